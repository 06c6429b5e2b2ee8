//! Okta's time, as far as it is known: this host's clock, put right by what Okta's answers say.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

/// Clocks that are this close agree: an assertion lives for minutes, and a `Date` has whole seconds.
const AGREES: SignedDuration = SignedDuration::from_secs(60);

/// The clocks of this host, handed in by the shell.
pub trait Time: Send + Sync {
    /// The wall clock.
    fn wall(&self) -> Timestamp;

    /// The time since some fixed moment; never goes back.
    fn elapsed(&self) -> Duration;
}

/// The clocks of this host, and how far Okta's is ahead of them.
pub(super) struct OktaTime {
    time: Arc<dyn Time>,
    offset: Mutex<SignedDuration>,
}

impl OktaTime {
    pub(super) fn new(time: Arc<dyn Time>) -> Self {
        Self { time, offset: Mutex::new(SignedDuration::ZERO) }
    }

    /// What Okta's clock shows now.
    pub(super) fn now(&self) -> Timestamp {
        self.time.wall().saturating_add(self.offset()).unwrap_or(Timestamp::MAX)
    }

    /// See [`Time::elapsed`].
    pub(super) fn elapsed(&self) -> Duration {
        self.time.elapsed()
    }

    /// How far Okta's clock is ahead of this host's; zero while nothing speaks against it.
    pub(super) fn offset(&self) -> SignedDuration {
        *self.offset.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over the `Date` of an answer that refused what was stamped with our time. True when stamps will be others
    /// from now on. Says so, and that is once for as long as the host's clock stays as it is.
    pub(super) fn learn(&self, date: Option<Timestamp>) -> bool {
        let Some(date) = date else { return false };
        let ahead = date.duration_since(self.time.wall());
        let mut offset = self.offset.lock().unwrap_or_else(PoisonError::into_inner);
        if ahead.saturating_sub(*offset).abs() <= AGREES {
            return false;
        }
        if ahead.abs() <= AGREES {
            *offset = SignedDuration::ZERO;
            info!("this host's clock agrees with Okta's again");
        } else {
            *offset = ahead;
            warn!("{}; Okta's time is used to sign in until then", told(ahead));
        }
        true
    }
}

/// A clock that is off, and what to do about it. `ahead` is how far Okta's clock is ahead of this host's.
pub(super) fn told(ahead: SignedDuration) -> String {
    let by = humantime::format_duration(Duration::from_secs(ahead.unsigned_abs().as_secs()));
    let side = if ahead.is_negative() { "ahead of" } else { "behind" };
    format!("this host's clock is {by} {side} Okta's: set it by NTP (timedatectl set-ntp true)")
}

#[cfg(test)]
mod tests {
    use super::super::testing::Clocks;
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_put_right_by_oktas_date_and_back_again() {
        let clocks = Arc::new(Clocks::default());
        let time = OktaTime::new(Arc::clone(&clocks) as Arc<dyn Time>);
        let okta = clocks.wall();
        let check = |off: i64, learnt: bool, offset: i64| {
            clocks.set_wall(okta.saturating_add(SignedDuration::from_secs(off)).unwrap());
            assert_eq!(time.learn(Some(okta)), learnt, "{off}");
            assert_eq!(time.offset().as_secs(), offset, "{off}");
        };
        check(0, false, 0);
        check(60, false, 0);
        check(-423, true, 423);
        assert_eq!(time.now(), okta);
        check(-430, false, 423);
        check(3600, true, -3600);
        assert_eq!(time.now(), okta);
        check(3, true, 0);
        assert!(!time.learn(None));
    }

    #[test]
    fn the_sentence_says_by_how_much_and_on_which_side() {
        assert!(told(SignedDuration::from_secs(423)).starts_with("this host's clock is 7m 3s behind Okta's"));
        assert!(told(SignedDuration::from_secs(-7200)).starts_with("this host's clock is 2h ahead of Okta's"));
    }
}
