//! The one place that reads a clock. Everything pure takes `now` as an argument.
#![allow(clippy::disallowed_methods, reason = "this is the shell's clock")]

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// The wall clock, and the time since the daemon began.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    began: Instant,
    began_at: Timestamp,
}

impl Clock {
    /// Begins now.
    pub fn start() -> Self {
        Self { began: Instant::now(), began_at: Timestamp::now() }
    }

    /// The wall clock.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// The wall clock when this began.
    pub fn began_at(&self) -> Timestamp {
        self.began_at
    }

    /// Time since [`Clock::start`]; never goes back.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}
