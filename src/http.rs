//! Building HTTP clients and reading bounded bodies.
