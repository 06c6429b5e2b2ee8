//! The one place that reads a clock. Everything pure takes `now` as an argument.
#![allow(clippy::disallowed_methods, reason = "this is the shell's clock")]

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

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

impl crate::okta::auth::Time for Clock {
    fn wall(&self) -> Timestamp {
        self.now()
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Smaller steps are those of a clock that is being kept right.
const STEP: SignedDuration = SignedDuration::from_secs(5);

/// Notices when the wall clock is set, by comparing it with the time that passes. Pure.
#[derive(Debug, Default)]
pub struct Steps {
    last: Option<(Timestamp, Duration)>,
}

impl Steps {
    /// How far the wall clock was set since the last look, forward or (negative) back; `None` when it simply went on. A
    /// machine that slept looks like one whose clock was set forward.
    pub fn look(&mut self, wall: Timestamp, elapsed: Duration) -> Option<SignedDuration> {
        let (wall_before, elapsed_before) = self.last.replace((wall, elapsed))?;
        let passed = SignedDuration::try_from(elapsed.saturating_sub(elapsed_before)).unwrap_or(SignedDuration::MAX);
        let step = wall.duration_since(wall_before).checked_sub(passed)?;
        (step.abs() > STEP).then_some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_noticed_once_and_one_that_is_kept_right_is_not() {
        let mut steps = Steps::default();
        let mut look = |wall, elapsed| {
            steps.look(Timestamp::from_second(1_800_000_000_i64 + wall).unwrap(), Duration::from_secs(elapsed))
        };
        assert_eq!(look(0, 0), None);
        assert_eq!(look(60, 60), None);
        assert_eq!(look(64, 61), None, "three seconds are put right");
        assert_eq!(look(90_065, 62), Some(SignedDuration::from_secs(90_000)));
        assert_eq!(look(90_066, 63), None);
        assert_eq!(look(66, 63), Some(SignedDuration::from_secs(-90_000)));
        assert_eq!(look(67, 64), None);
    }
}
