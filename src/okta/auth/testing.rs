//! What the tests of credentials share: clocks that stand still until they are set.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Time;

/// Clocks that only the test moves.
pub(super) struct Clocks(Mutex<(Timestamp, Duration)>);

impl Default for Clocks {
    fn default() -> Self {
        Self(Mutex::new((Timestamp::from_second(1_790_000_000).unwrap(), Duration::ZERO)))
    }
}

impl Clocks {
    /// Time passes.
    pub(super) fn pass(&self, time: Duration) {
        let mut clocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.0 = clocks.0.saturating_add(SignedDuration::try_from(time).unwrap()).unwrap();
        clocks.1 += time;
    }

    /// Somebody sets the wall clock.
    pub(super) fn set_wall(&self, wall: Timestamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = wall;
    }
}

impl Time for Clocks {
    fn wall(&self) -> Timestamp {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn elapsed(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}
