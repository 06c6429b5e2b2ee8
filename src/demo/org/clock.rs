//! Okta's clock. It is not ours: it may run ahead or behind, and nothing outside the simulated org reads it except
//! through `Date` headers and event times, as with the real one.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Started once; moves with tokio's time, so paused time pauses the org as well.
#[derive(Debug)]
pub(super) struct Clock {
    began: Timestamp,
    started: Instant,
}

impl Clock {
    /// A clock that shows `at` (or the wall clock) shifted by `offset` now.
    #[expect(clippy::disallowed_methods, reason = "the simulated org is an outside world with a clock of its own")]
    pub(super) fn start(at: Option<Timestamp>, offset: SignedDuration) -> Self {
        let at = at.unwrap_or_else(Timestamp::now);
        Self { began: at.checked_add(offset).unwrap_or(at), started: Instant::now() }
    }

    /// What the org believes the time is.
    pub(super) fn now(&self) -> Timestamp {
        self.began.checked_add(self.started.elapsed()).unwrap_or(self.began)
    }

    /// The same in milliseconds since 1970.
    pub(super) fn now_ms(&self) -> i64 {
        self.now().as_millisecond()
    }

    /// How long the org has been running.
    pub(super) fn running(&self) -> Duration {
        self.started.elapsed()
    }
}
