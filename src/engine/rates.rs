//! Telling commands beside the daemon how Okta's rate limits stand, without writing more often than is done anyway.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Engine;
use crate::okta::budget::BucketSnapshot;
use crate::store::{RateRow, RateSnapshot};

/// The least time between two that ride along with a page that is stored anyway. An idle stream stores its cursor less often.
pub(super) const ALONG: Duration = Duration::from_secs(5);
/// The least time before one is stored by itself: longer than an idle stream takes to store its cursor.
pub(super) const ALONE: Duration = Duration::from_secs(15);

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Option<(Duration, u64)>>);

impl Told {
    /// Whether something is to be told, now that so much has changed; then it counts as told.
    fn is_due(&self, now: Duration, changes: u64, least: Duration) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = match *last {
            Some((at, told)) => changes != told && now.saturating_sub(at) >= least,
            None => changes > 0,
        };
        if due {
            *last = Some((now, changes));
        }
        due
    }

    /// The same while somebody waits: what was told grows old, although nothing is sent.
    fn is_old(&self, now: Duration, changes: u64, least: Duration) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let old = last.is_none_or(|(at, _)| now.saturating_sub(at) >= least);
        if old {
            *last = Some((now, changes));
        }
        old
    }
}

impl Engine {
    /// How the rate limits stand, if the last word about them is so old and something has happened since.
    pub(super) fn rates_due(&self, least: Duration) -> Option<RateSnapshot> {
        let gate = self.okta.gate();
        if !self.rates_told.is_due(self.clock.elapsed(), gate.changes(), least) {
            return None;
        }
        Some(self.rates())
    }

    /// The same while a poll waits for its turn, whether anything has happened since or not.
    pub(super) fn rates_while_waiting(&self, least: Duration) -> Option<RateSnapshot> {
        let old = self.rates_told.is_old(self.clock.elapsed(), self.okta.gate().changes(), least);
        old.then(|| self.rates())
    }

    fn rates(&self) -> RateSnapshot {
        let gate = self.okta.gate();
        let (now, snapshot) = (self.clock.now(), gate.snapshot());
        let buckets = snapshot.buckets.into_iter().map(|bucket| row(bucket, now)).collect();
        RateSnapshot { at: now, at_once: snapshot.at_once, buckets }
    }
}

fn row(bucket: BucketSnapshot, now: Timestamp) -> RateRow {
    // As exact as what is stored.
    let shift = |by: Duration, back: bool| {
        let by = SignedDuration::from_millis(i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
        let moved = if back { now.checked_sub(by) } else { now.checked_add(by) };
        moved.unwrap_or(now)
    };
    RateRow {
        bucket: bucket.bucket.as_str().to_owned(),
        limit: bucket.limit,
        share: bucket.share,
        used: u64::try_from(bucket.used).ok(),
        remaining: bucket.remaining,
        resets_at: bucket.resets_in.map(|wait| shift(wait, false)),
        waiting: u64::try_from(bucket.waiting).ok(),
        requests: bucket.requests,
        refused: bucket.refused,
        refused_at: bucket.refused_ago.map(|ago| shift(ago, true)),
        crowded: bucket.crowded,
        crowded_at: bucket.crowded_ago.map(|ago| shift(ago, true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_daemon_tells_nothing_and_a_busy_one_not_too_often() {
        const S: Duration = Duration::from_secs(1);
        let told = Told::default();
        assert!(!told.is_due(S, 0, ALONE), "nothing was asked yet");
        assert!(told.is_due(S, 1, ALONE));
        assert!(!told.is_due(100 * S, 1, ALONE), "nothing is new");
        assert!(told.is_due(100 * S, 2, ALONE));
        assert!(!told.is_due(114 * S, 3, ALONE) && told.is_due(114 * S, 3, ALONG));
        assert!(!told.is_due(118 * S, 9, ALONG));
    }

    #[test]
    fn what_is_told_does_not_grow_old_while_somebody_waits() {
        const S: Duration = Duration::from_secs(1);
        let told = Told::default();
        assert!(told.is_due(S, 1, ALONE));
        assert!(!told.is_due(100 * S, 1, ALONG), "nothing is sent");
        assert!(!told.is_old(5 * S, 1, ALONG) && told.is_old(6 * S, 1, ALONG));
        assert!(!told.is_old(10 * S, 1, ALONG) && told.is_old(11 * S, 1, ALONG));
    }
}
