//! Everything that can be wrong with a configuration, told at once.
