//! What one of Okta's rate buckets still grants to this daemon. Pure.
//!
//! `now` is the time since any fixed start, by a clock that never goes back.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use super::bucket::{Bucket, Priority};
use super::rate::{RateHeaders, WINDOW};

/// A moment more than the window, so that no 60 s hold both ends.
const OVER: Duration = WINDOW.saturating_add(Duration::from_millis(1));
/// While it is not known what a bucket grants, one request at a time finds out. One that is not answered for so long does
/// not hold back the others.
const SILENCE: Duration = Duration::from_secs(2);
/// The most counters that are told apart in one bucket.
const MAX_COUNTERS: usize = 4;

/// The daemon's share of one bucket.
///
/// Two things hold: in any 60 s no more than `share` × limit requests are counted by Okta (but at least one), and none leaves
/// while the others have used so much of Okta's window that less than (1 − `share`) × limit would remain for them. A request
/// is held against the 60 s from when it leaves until 60 s after its answer, because Okta counts it somewhere in between.
///
/// Each priority leaves a part of the share to those above it, see [`Priority::most`].
#[derive(Debug, Clone)]
pub struct Meter {
    bucket: Bucket,
    share: f64,
    /// Requests under way.
    under_way: Vec<Priority>,
    /// When the last one left.
    last_sent: Option<Duration>,
    /// When requests of the last window were answered, oldest first.
    answered: VecDeque<(Duration, Priority)>,
    /// Okta's windows that are still open, told apart by their limit: what is one bucket for us may be several for Okta.
    counters: Vec<Counter>,
    /// The limit that was heard last.
    limit: Option<u32>,
    closed_until: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Counter {
    limit: u32,
    /// The least that was heard of this window, less what left since without an answer that tells.
    remaining: u32,
    /// The end of Okta's window by Okta's clock.
    epoch_s: i64,
    /// The same by ours, rather too late than too early.
    reset_at: Duration,
}

/// When a request may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opens {
    /// From this moment on.
    At(Duration),
    /// When one of those under way is answered.
    WhenAnswered,
}

impl Meter {
    /// A meter that takes `share` (above 0, at most 1) of what the headers will grant.
    pub fn new(bucket: Bucket, share: f64) -> Self {
        Self {
            bucket,
            share: share.clamp(0.0, 1.0),
            under_way: Vec::new(),
            last_sent: None,
            answered: VecDeque::new(),
            counters: Vec::new(),
            limit: None,
            closed_until: Duration::ZERO,
        }
    }

    /// Takes another share from now on.
    pub fn set_share(&mut self, share: f64) {
        self.share = share.clamp(0.0, 1.0);
    }

    /// When a request of this priority may leave, with `ahead` others going before it.
    pub fn opens(&self, now: Duration, priority: Priority, ahead: usize) -> Opens {
        let mut opens = self.closed_until;
        let busy = self.under_way.len().saturating_add(ahead);
        let mut known = self.counters.iter().filter(|counter| counter.reset_at > now).peekable();
        if known.peek().is_none() && busy > 0 {
            opens = opens.max(self.last_sent.unwrap_or(now).saturating_add(SILENCE));
        }
        for counter in known {
            let left = counter.remaining.saturating_sub(u32::try_from(busy).unwrap_or(u32::MAX));
            let kept = counter.limit.saturating_sub(self.most(counter.limit, priority));
            if left <= kept {
                opens = opens.max(counter.reset_at);
            }
        }
        let Some(limit) = self.limit_at(now) else { return Opens::At(opens) };
        for above in Priority::ALL.into_iter().filter(|above| *above <= priority) {
            match self.window_opens(now, above, self.most(limit, above), ahead) {
                Opens::At(at) => opens = opens.max(at),
                Opens::WhenAnswered => return Opens::WhenAnswered,
            }
        }
        Opens::At(opens)
    }

    /// A request leaves.
    pub fn sent(&mut self, now: Duration, priority: Priority) {
        self.under_way.push(priority);
        self.last_sent = Some(now);
    }

    /// A request that was noted did not leave after all.
    pub fn unsent(&mut self, priority: Priority) {
        self.take_back(priority);
    }

    /// A request came to its end without an answer that tells; Okta may have counted it.
    pub fn lost(&mut self, now: Duration, priority: Priority) {
        self.over(now, priority);
        for counter in &mut self.counters {
            counter.remaining = counter.remaining.saturating_sub(1);
        }
    }

    /// A request was answered. The concurrency limit's zeros say nothing about the bucket: that request counts as lost.
    pub fn answered(&mut self, now: Duration, priority: Priority, headers: &RateHeaders, date: Timestamp) {
        if headers.limit == 0 {
            return self.lost(now, priority);
        }
        self.over(now, priority);
        self.limit = Some(headers.limit);
        self.counters.retain(|counter| counter.reset_at > now);
        let (epoch_s, reset_at) = (headers.reset_epoch_s, now.saturating_add(headers.until_reset(date)));
        let heard = Counter { limit: headers.limit, remaining: headers.remaining, epoch_s, reset_at };
        let few = self.counters.len() < MAX_COUNTERS;
        match self.counters.iter_mut().find(|counter| counter.limit == heard.limit) {
            // The next window.
            Some(counter) if heard.epoch_s > counter.epoch_s.saturating_add(1) => *counter = heard,
            // A late answer, about a window that is over.
            Some(counter) if heard.epoch_s < counter.epoch_s.saturating_sub(1) => {}
            // Answers overtake each other, and within a window what remains only gets less.
            Some(counter) => counter.remaining = counter.remaining.min(heard.remaining),
            None if few => self.counters.push(heard),
            None => {}
        }
    }

    /// Okta has refused a request for this bucket's sake: nobody asks for a while.
    pub fn close(&mut self, until: Duration) {
        self.closed_until = self.closed_until.max(until);
    }

    /// Requests per window that are ours, if the limit is known.
    pub fn allowance(&self, now: Duration) -> Option<u32> {
        self.limit_at(now).map(|limit| self.most(limit, Priority::Remediation))
    }

    /// Requests per window that are granted to everybody, if known.
    pub fn limit_at(&self, now: Duration) -> Option<u32> {
        let open = self.counters.iter().filter(|counter| counter.reset_at > now);
        open.map(|counter| counter.limit).min().or(self.limit)
    }

    /// What is left of the scarcest window as far as it was heard, and when that ends; `None` when no window is known.
    pub fn remaining(&self, now: Duration) -> Option<(u32, Duration)> {
        let open = self.counters.iter().filter(|counter| counter.reset_at > now);
        open.min_by_key(|counter| counter.remaining)
            .map(|counter| (counter.remaining, counter.reset_at.saturating_sub(now)))
    }

    /// Requests of the last window, with those under way.
    pub fn used(&self, now: Duration) -> usize {
        self.in_window(now, Priority::Remediation).count().saturating_add(self.under_way.len())
    }

    /// Whether a request of this priority is under way or was answered in the last window.
    pub fn sees(&self, now: Duration, priority: Priority) -> bool {
        self.under_way.contains(&priority) || self.in_window(now, priority).any(|(_, of)| *of == priority)
    }

    /// Requests per window for a priority and those below it; one at least, or nothing would ever be learned.
    fn most(&self, limit: u32, priority: Priority) -> u32 {
        // A share of at most 1 keeps the products within u32, and `as` saturates.
        let ours = (f64::from(limit) * self.share) as u32;
        ((f64::from(ours) * priority.most(self.bucket)) as u32).max(1)
    }

    fn in_window(&self, now: Duration, from: Priority) -> impl Iterator<Item = &(Duration, Priority)> {
        self.answered.iter().filter(move |(at, priority)| *priority >= from && at.saturating_add(OVER) > now)
    }

    /// When fewer than `most` requests of a priority and those below it lie within the last window.
    fn window_opens(&self, now: Duration, from: Priority, most: u32, ahead: usize) -> Opens {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let under_way = self.under_way.iter().filter(|priority| **priority >= from).count();
        let answered = self.in_window(now, from).count();
        let used = answered.saturating_add(under_way).saturating_add(ahead);
        let Some(too_many) = used.checked_sub(most) else { return Opens::At(Duration::ZERO) };
        match self.in_window(now, from).nth(too_many) {
            Some((at, _)) => Opens::At(at.saturating_add(OVER)),
            None if ahead == 0 => Opens::WhenAnswered,
            None => {
                // Those ahead are still to be answered: a guess, whole windows from now.
                let windows = too_many.saturating_sub(answered).checked_div(most).unwrap_or(0).saturating_add(1);
                Opens::At(now.saturating_add(OVER.saturating_mul(u32::try_from(windows).unwrap_or(u32::MAX))))
            }
        }
    }

    fn take_back(&mut self, priority: Priority) {
        if let Some(at) = self.under_way.iter().position(|of| *of == priority) {
            self.under_way.swap_remove(at);
        }
    }

    fn over(&mut self, now: Duration, priority: Priority) {
        self.take_back(priority);
        while self.answered.front().is_some_and(|(at, _)| at.saturating_add(OVER) <= now) {
            self.answered.pop_front();
        }
        self.answered.push_back((now, priority));
    }
}
