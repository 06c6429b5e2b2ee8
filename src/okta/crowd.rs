//! How many requests may be under way at once, whatever bucket they fall into. Pure.
//!
//! Okta bounds the requests of a whole org that are under way at the same time, and does not tell the number (Okta API
//! reference, "Concurrency rate limits"): what others use of it is found out only by being refused.

use std::time::Duration;

use super::bucket::{Bucket, Priority};
use super::rate::WINDOW;

/// What Okta grants a Workforce org.
const ORG: u32 = 75;
/// The first pause after a refusal; it doubles with each further one.
const FIRST_REST: Duration = Duration::from_millis(200);
/// The doublings of it: some 6 s at most.
const DOUBLINGS: u32 = 5;

/// Halves the number with a refusal, and adds one for each window without.
#[derive(Debug, Clone)]
pub struct Crowd {
    most: u32,
    at_once: u32,
    /// When it was lowered last; answers to requests that left before say nothing new.
    lowered: Option<Duration>,
    /// When it was lowered or raised last.
    changed: Duration,
    refusals: u32,
    rest_until: Duration,
}

impl Crowd {
    /// As many as `share` of what Okta grants.
    pub fn new(share: f64) -> Self {
        let most = ((f64::from(ORG) * share.clamp(0.0, 1.0)) as u32).max(2);
        Self { most, at_once: most, lowered: None, changed: Duration::ZERO, refusals: 0, rest_until: Duration::ZERO }
    }

    /// Requests that may be under way at once.
    pub fn at_once(&self) -> u32 {
        self.at_once
    }

    /// Whether a request may join `under_way` others. Those below remediation leave some places free.
    pub fn has_room(&self, now: Duration, under_way: usize, priority: Priority) -> bool {
        let places = (f64::from(self.at_once) * priority.most(Bucket::Other)) as usize;
        now >= self.rest_until && under_way < places.max(1)
    }

    /// When the pause after a refusal is over.
    pub fn rest_until(&self) -> Duration {
        self.rest_until
    }

    /// Okta refused a request, sent at a moment, because too many were under way.
    pub fn refused(&mut self, now: Duration, sent: Duration) {
        if self.lowered.is_some_and(|lowered| sent < lowered) {
            return;
        }
        self.at_once = (self.at_once / 2).max(1);
        let rest = FIRST_REST.saturating_mul(1 << self.refusals.min(DOUBLINGS));
        self.rest_until = now.saturating_add(rest).saturating_add(jitter(now, rest));
        self.refusals = self.refusals.saturating_add(1);
        (self.lowered, self.changed) = (Some(now), now);
    }

    /// A request, sent at a moment, was let in.
    pub fn let_in(&mut self, now: Duration, sent: Duration) {
        if self.lowered.is_none_or(|lowered| sent >= lowered) {
            self.refusals = 0;
        }
        if self.at_once < self.most && now.saturating_sub(self.changed) >= WINDOW {
            self.at_once += 1;
            self.changed = now;
        }
    }
}

/// Up to as much again, drawn from the moment: it only has to differ between daemons.
fn jitter(now: Duration, rest: Duration) -> Duration {
    let drawn = now.subsec_nanos().wrapping_mul(2_654_435_761) >> 24;
    rest.saturating_mul(drawn) / 256
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_refusal_halves_the_number_once_and_windows_without_one_raise_it_again() {
        let mut crowd = Crowd::new(0.5);
        assert_eq!(crowd.at_once(), 37);
        // Three that were under way together are one refusal.
        for _ in 0..3 {
            crowd.refused(10 * S, 9 * S);
        }
        assert_eq!(crowd.at_once(), 18);
        assert!(!crowd.has_room(10 * S, 0, Priority::Remediation), "a pause first");
        assert!(crowd.has_room(11 * S, 0, Priority::Remediation));
        for _ in 0..10 {
            let now = crowd.rest_until();
            crowd.refused(now, now);
        }
        assert_eq!(crowd.at_once(), 1);
        let now = crowd.rest_until();
        assert!(crowd.has_room(now, 0, Priority::Backfill) && !crowd.has_room(now, 1, Priority::Remediation));
        crowd.let_in(now + 30 * S, now);
        assert_eq!(crowd.at_once(), 1);
        for minute in 1..100 {
            crowd.let_in(now + minute * 60 * S, now + minute * 60 * S);
        }
        assert_eq!(crowd.at_once(), 37, "and never more than at first");
    }

    #[test]
    fn pauses_grow_within_bounds_and_begin_small_again() {
        let mut crowd = Crowd::new(1.0);
        let mut now = S;
        for doubling in 0..12 {
            crowd.refused(now, now);
            let rest = crowd.rest_until() - now;
            let least = FIRST_REST * (1 << doubling.min(5));
            assert!(rest >= least && rest <= 2 * least, "{doubling}: {rest:?}");
            now = crowd.rest_until();
        }
        crowd.let_in(now, now);
        crowd.refused(now, now);
        assert!(crowd.rest_until() - now <= 2 * FIRST_REST);
    }

    #[test]
    fn places_are_kept_for_what_matters_more() {
        let crowd = Crowd::new(0.5);
        let taken = |priority| (0..=100).find(|taken| !crowd.has_room(S, *taken, priority)).unwrap();
        assert_eq!(Priority::ALL.map(taken), [37, 37, 27, 18]);
    }
}
