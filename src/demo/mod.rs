//! A simulated world to show, test and measure the daemon against.

pub mod org;
