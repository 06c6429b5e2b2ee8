//! How long to wait before the next attempt. The only place that knows the `backoff` crate.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;
use sha2::{Digest, Sha256};

/// An exponential schedule. It is pure: the same attempt of the same thing always waits equally long, and different
/// things wait differently long, so that they do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// The first pause, before jitter.
    pub initial: Duration,
    /// The longest pause, before jitter.
    pub max: Duration,
}

impl Schedule {
    /// How far a pause may lie from the schedule, both ways.
    const JITTER: f64 = 0.3;

    /// The pause after attempt number `attempt` (1 for the first) of the thing that `seed` names.
    pub fn pause(&self, attempt: u32, seed: &str) -> Duration {
        let mut steps = ExponentialBackoff {
            current_interval: self.initial,
            randomization_factor: 0.0,
            multiplier: 2.0,
            max_interval: self.max,
            // Else a schedule would never reach a pause of more than a quarter of an hour.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        // Beyond this many doublings every schedule has reached its maximum.
        let attempt = attempt.clamp(1, 64);
        let pause = (0..attempt).filter_map(|_| steps.next_backoff()).last().unwrap_or(self.max);
        pause.mul_f64(1.0 - Self::JITTER + 2.0 * Self::JITTER * fraction(attempt, seed))
    }
}

/// A number in 0..1 that depends on nothing but the arguments.
fn fraction(attempt: u32, seed: &str) -> f64 {
    let mut hash = Sha256::new();
    hash.update(attempt.to_be_bytes());
    hash.update(seed.as_bytes());
    let digest = hash.finalize();
    let number = digest.first_chunk().copied().map_or(0, u32::from_be_bytes);
    f64::from(number) / 2_f64.powi(32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SCHEDULE: Schedule = Schedule { initial: Duration::from_secs(1), max: Duration::from_secs(300) };

    #[test]
    fn pauses_double_up_to_the_maximum() {
        for (attempt, middle) in [(1, 1.0), (2, 2.0), (3, 4.0), (9, 256.0), (10, 300.0), (4_000_000, 300.0)] {
            let pause = SCHEDULE.pause(attempt, "key").as_secs_f64();
            assert!((middle * 0.7..=middle * 1.3).contains(&pause), "attempt {attempt}: {pause}");
        }
    }

    #[test]
    fn a_maximum_of_hours_is_reached() {
        let hours = Schedule { initial: Duration::from_secs(60), max: Duration::from_secs(7_200) };
        let pause = hours.pause(20, "key").as_secs();
        assert!((5_040..=9_360).contains(&pause), "{pause}");
    }

    #[test]
    fn pauses_are_spread_over_the_whole_jitter() {
        let pauses: Vec<_> = (0..500).map(|key| SCHEDULE.pause(1, &key.to_string()).as_secs_f64()).collect();
        let below = |bound: f64| pauses.iter().filter(|pause| **pause < bound).count();
        assert!((50..=200).contains(&below(0.85)), "a quarter lies in the lowest quarter");
        assert!((200..=300).contains(&below(1.0)), "half of them in the lower half");
        assert!((300..=450).contains(&below(1.15)), "a quarter lies in the highest quarter");
    }

    #[test]
    fn different_keys_do_not_come_back_together() {
        assert_ne!(SCHEDULE.pause(5, "a"), SCHEDULE.pause(5, "b"));
        assert_eq!(SCHEDULE.pause(5, "a"), SCHEDULE.pause(5, "a"));
    }

    proptest! {
        #[test]
        fn no_pause_is_zero_or_beyond_the_bound(attempt: u32, seed: String) {
            let pause = SCHEDULE.pause(attempt, &seed);
            prop_assert!(pause >= Duration::from_millis(700) && pause <= Duration::from_secs(390));
        }
    }
}
