//! A user's risk as the log tells it.
