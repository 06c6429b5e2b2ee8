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
/// A window that ends so many seconds after another one is the one that follows it; what ends in between is another counter's,
/// or the window before, told by an answer that was overtaken.
const NEXT_S: i64 = 50;
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
    /// Okta's windows that are still open, told apart by limit and end: what is one bucket for us may be several for Okta.
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
        let is_same = |counter: &&mut Counter| counter.limit == heard.limit && counter.epoch_s.abs_diff(epoch_s) <= 1;
        if let Some(counter) = self.counters.iter_mut().find(is_same) {
            // Answers overtake each other, and within a window what remains only gets less.
            counter.remaining = counter.remaining.min(heard.remaining);
            return;
        }
        let before = epoch_s.saturating_sub(NEXT_S);
        let is_before = |counter: &&mut Counter| counter.limit == heard.limit && counter.epoch_s <= before;
        match self.counters.iter_mut().find(is_before) {
            Some(counter) => *counter = heard,
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
                // Those ahead are still to leave: each takes the place of the one a whole share before it.
                let (windows, place) = (used.checked_div(most).unwrap_or(1), used.checked_rem(most).unwrap_or(0));
                let begins = self.in_window(now, from).nth(place).map_or(now, |(at, _)| *at);
                let windows = u32::try_from(windows).unwrap_or(u32::MAX);
                Opens::At(begins.saturating_add(OVER.saturating_mul(windows)))
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

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    use Priority::{Backfill, Enrichment, Live, Remediation};

    fn date() -> Timestamp {
        Timestamp::from_second(1_757_607_710).unwrap()
    }

    fn headers(limit: u32, remaining: u32, resets_in_s: i64) -> RateHeaders {
        RateHeaders { limit, remaining, reset_epoch_s: date().as_second() + resets_in_s }
    }

    /// A meter with half of a bucket, in which `used` requests of a priority were answered at a moment.
    fn meter(now: Duration, limit: u32, remaining: u32, used: usize, priority: Priority) -> Meter {
        let mut meter = Meter::new(Bucket::Users, 0.5);
        for _ in 0..used {
            meter.sent(now, priority);
            meter.answered(now, priority, &headers(limit, remaining, 60), date());
        }
        meter
    }

    #[track_caller]
    fn check(meter: &Meter, now: Duration, expected: [bool; 4]) {
        let open = |priority| matches!(meter.opens(now, priority, 0), Opens::At(at) if at <= now);
        assert_eq!(Priority::ALL.map(open), expected);
    }

    #[test]
    fn before_anything_is_heard_one_request_at_a_time_finds_out() {
        let mut meter = Meter::new(Bucket::Users, 0.5);
        check(&meter, S, [true; 4]);
        meter.sent(S, Enrichment);
        check(&meter, S, [false; 4]);
        assert_eq!(meter.opens(S, Remediation, 0), Opens::At(3 * S), "unless it is not answered");
        meter.answered(2 * S, Enrichment, &headers(100, 99, 60), date());
        check(&meter, 2 * S, [true; 4]);
        // A new window is as unknown as the first one.
        let later = 70 * S;
        check(&meter, later, [true; 4]);
        meter.sent(later, Live);
        check(&meter, later, [false; 4]);
    }

    #[test]
    fn each_priority_leaves_a_part_to_those_above() {
        // Half of 80 is 40: enrichment and backfills take 30 together, backfills 20.
        check(&meter(S, 80, 79, 19, Backfill), 2 * S, [true; 4]);
        check(&meter(S, 80, 79, 20, Backfill), 2 * S, [true, true, true, false]);
        check(&meter(S, 80, 79, 30, Backfill), 2 * S, [true, true, false, false]);
        check(&meter(S, 80, 79, 30, Enrichment), 2 * S, [true, true, false, false]);
        check(&meter(S, 80, 79, 39, Remediation), 2 * S, [true; 4]);
        check(&meter(S, 80, 79, 40, Remediation), 2 * S, [false; 4]);
        assert_eq!(meter(S, 80, 79, 40, Remediation).opens(2 * S, Remediation, 0), Opens::At(S + OVER));
    }

    #[test]
    fn what_is_left_to_the_others_is_not_touched_and_less_important_requests_stop_earlier() {
        check(&meter(S, 80, 61, 1, Live), 2 * S, [true; 4]);
        check(&meter(S, 80, 60, 1, Live), 2 * S, [true, true, true, false]);
        check(&meter(S, 80, 50, 1, Live), 2 * S, [true, true, false, false]);
        check(&meter(S, 80, 41, 1, Live), 2 * S, [true, true, false, false]);
        check(&meter(S, 80, 40, 1, Live), 2 * S, [false; 4]);
        // A moment more than Okta's whole seconds say.
        assert_eq!(meter(S, 80, 40, 1, Live).opens(2 * S, Remediation, 0), Opens::At(62 * S));
        let mut one_under_way = meter(S, 80, 41, 1, Live);
        one_under_way.sent(2 * S, Live);
        check(&one_under_way, 2 * S, [false; 4]);
    }

    #[test]
    fn a_request_counts_until_a_window_after_its_answer() {
        let mut meter = meter(S, 80, 79, 39, Remediation);
        meter.sent(S, Remediation);
        assert_eq!(meter.opens(2 * S, Remediation, 0), Opens::At(S + OVER));
        // The others' window is over, this one's is not: Okta may have counted it just now.
        meter.answered(30 * S, Remediation, &headers(80, 79, 60), date());
        let at = S + OVER;
        for _ in 0..39 {
            assert_eq!(meter.opens(at, Remediation, 0), Opens::At(Duration::ZERO));
            meter.sent(at, Remediation);
        }
        assert_eq!(meter.opens(at, Remediation, 0), Opens::At(30 * S + OVER));
    }

    #[test]
    fn answers_that_overtake_each_other_do_not_give_back_what_is_used() {
        let mut meter = Meter::new(Bucket::Users, 1.0);
        let hear = |meter: &mut Meter, remaining, resets_in| {
            meter.sent(S, Live);
            meter.answered(S, Live, &headers(10, remaining, resets_in), date());
            meter.remaining(S).unwrap()
        };
        assert_eq!(hear(&mut meter, 5, 2), (5, 3 * S));
        assert_eq!(hear(&mut meter, 9, 2), (5, 3 * S));
        // The next window.
        assert_eq!(hear(&mut meter, 9, 60), (9, 61 * S));
        // A late word about the one before counts no longer than that one lasts.
        assert_eq!(hear(&mut meter, 0, 1), (0, 2 * S));
        assert_eq!(meter.remaining(4 * S), Some((9, 58 * S)));
        let mut meter = Meter::new(Bucket::Users, 1.0);
        hear(&mut meter, 9, 60);
        // An answer that never came may have been counted.
        meter.sent(S, Live);
        meter.lost(S, Live);
        assert_eq!(meter.remaining(S), Some((8, 61 * S)));
        meter.sent(S, Live);
        meter.unsent(Live);
        assert_eq!((meter.remaining(S), meter.used(S)), (Some((8, 61 * S)), 2));
    }

    #[test]
    fn where_okta_counts_our_bucket_as_two_the_scarcer_one_decides() {
        let mut meter = meter(S, 600, 590, 1, Live);
        meter.sent(S, Live);
        meter.answered(S, Live, &headers(100, 51, 20), date());
        assert_eq!(meter.allowance(S), Some(50));
        check(&meter, S, [true, true, false, false]);
        meter.sent(S, Live);
        meter.answered(S, Live, &headers(600, 589, 60), date());
        assert_eq!(meter.allowance(S), Some(50), "what was heard of one says nothing about the other");
        assert_eq!(meter.allowance(30 * S), Some(300), "until its window is over");
    }

    #[test]
    fn the_concurrency_limits_zeros_say_nothing_about_the_bucket() {
        let mut meter = meter(S, 600, 599, 1, Live);
        meter.sent(S, Live);
        meter.answered(S, Live, &headers(0, 0, 60), date());
        check(&meter, S, [true; 4]);
        assert_eq!(meter.allowance(S), Some(300));
    }

    #[test]
    fn the_smallest_share_still_lets_one_request_a_window_through() {
        let mut meter = Meter::new(Bucket::Logs, 0.001);
        meter.sent(S, Backfill);
        assert_eq!(meter.opens(S, Backfill, 0), Opens::At(3 * S));
        meter.answered(S, Backfill, &headers(10, 10, 60), date());
        assert_eq!(meter.opens(S, Backfill, 0), Opens::At(S + OVER));
        meter.sent(S + OVER, Backfill);
        assert_eq!(meter.opens(S + OVER, Backfill, 0), Opens::WhenAnswered);
    }

    #[test]
    fn those_ahead_are_reckoned_with_window_by_window() {
        let meter = meter(S, 20, 19, 10, Remediation);
        let opens = |ahead| meter.opens(S, Remediation, ahead);
        assert_eq!([opens(0), opens(8)], [Opens::At(S + OVER); 2]);
        // A tenth one would go at the others' expense, if nothing of the minute that was heard were ours.
        assert_eq!(opens(9), Opens::At(62 * S));
        assert_eq!([opens(10), opens(19)], [Opens::At(S + 2 * OVER); 2]);
        assert_eq!(opens(20), Opens::At(S + 3 * OVER));
    }
}
