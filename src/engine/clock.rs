//! The one place that reads a clock. Everything pure takes `now` as an argument.
#![allow(clippy::disallowed_methods, reason = "this is the shell's clock")]

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// The wall clock, and the time since the daemon began.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    began: Instant,
}

impl Clock {
    /// Begins now.
    pub fn start() -> Self {
        Self { began: Instant::now() }
    }

    /// The wall clock.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Time since [`Clock::start`]; never goes back.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}
