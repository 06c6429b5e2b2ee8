//! What Okta's rate headers grant, and how much of it is taken. Pure.
//!
//! The headers and their meaning: Okta API reference, "Monitor rate limits" and "Concurrency rate limits".

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::HeaderMap;

/// Okta counts requests by the minute.
pub const WINDOW: Duration = Duration::from_secs(60);

/// The least time between two polls that have nothing to catch up with.
const MIN_GAP: Duration = Duration::from_secs(1);

/// The longest wait that a 429 can ask for: a whole window and some room for clocks that count in whole seconds.
const MAX_WAIT: Duration = Duration::from_secs(65);

/// The rate headers of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateHeaders {
    /// `X-Rate-Limit-Limit`: requests granted per window.
    pub limit: u32,
    /// `X-Rate-Limit-Remaining`: how many are left in this window, whoever asks.
    pub remaining: u32,
    /// `X-Rate-Limit-Reset`: when the window ends, in seconds since the epoch by Okta's clock.
    pub reset_epoch_s: i64,
}

impl RateHeaders {
    /// Reads the three headers; `None` when one is missing or no number.
    pub fn parse(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
        Some(Self {
            limit: text("x-rate-limit-limit")?.parse().ok()?,
            remaining: text("x-rate-limit-remaining")?.parse().ok()?,
            reset_epoch_s: text("x-rate-limit-reset")?.parse().ok()?,
        })
    }

    /// How long the window still lasts, by Okta's clock (`date`), bounded to 0..=60 s.
    fn until_reset(&self, date: Timestamp) -> Duration {
        let seconds = self.reset_epoch_s.saturating_sub(date.as_second());
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(WINDOW)
    }
}

/// What a 429 asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The window is used up; it is open again after this time, which is 1 to 65 s.
    Until(Duration),
    /// Too many requests at once. Okta's reset is only a suggestion then: the caller's own back-off decides.
    Concurrency,
}

/// Reads a 429. `date` is the `Date` of the same answer, so that this machine's clock does not matter. A 429 that says
/// nothing usable is waited out for a whole window.
pub fn wait_after_429(headers: Option<&RateHeaders>, date: Option<Timestamp>) -> Wait {
    match (headers, date) {
        (Some(RateHeaders { limit: 0, remaining: 0, .. }), _) => Wait::Concurrency,
        (Some(headers), Some(date)) => {
            // Both are whole seconds: one more makes sure that the window has really ended.
            let seconds = headers.reset_epoch_s.saturating_sub(date.as_second()).saturating_add(1);
            let wait = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            Wait::Until(wait.clamp(MIN_GAP, MAX_WAIT))
        }
        _ => Wait::Until(WINDOW),
    }
}

/// How eager the next request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Nothing is waiting: requests are spread evenly over the window, at least 1 s apart.
    Steady,
    /// The last page was full, so more is there: at once, as long as the share lasts.
    CatchUp,
}

/// The daemon's share of one of Okta's rate-limit buckets.
///
/// Two things hold: in any 60 s no more than `share` × limit requests leave (but at least one), and none leaves while the
/// others have used so much of Okta's window that less than (1 − `share`) × limit would remain for them.
///
/// `now` is the time since any fixed start, by a clock that never goes back.
#[derive(Debug, Clone)]
pub struct Budget {
    share: f64,
    /// When requests left, oldest first; never more than the window's allowance plus those before it was known.
    sent: VecDeque<Duration>,
    heard: Option<Heard>,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    limit: u32,
    /// What the last answer said, less what was sent since.
    remaining: u32,
    /// When Okta's window ends, by our clock.
    reset_at: Duration,
}

impl Budget {
    /// A budget that takes `share` (above 0, at most 1) of what the headers will grant. Until they are heard, requests
    /// are 1 s apart.
    pub fn new(share: f64) -> Self {
        Self { share: share.clamp(0.0, 1.0), sent: VecDeque::new(), heard: None }
    }

    /// Notes that a request leaves.
    pub fn sent(&mut self, now: Duration) {
        let window_start = now.saturating_sub(WINDOW);
        while self.sent.front().is_some_and(|at| *at < window_start) {
            self.sent.pop_front();
        }
        self.sent.push_back(now);
        if let Some(heard) = &mut self.heard {
            heard.remaining = heard.remaining.saturating_sub(1);
        }
    }

    /// Takes in the headers of an answer. The concurrency limit's zeros say nothing about the bucket and are passed over.
    pub fn heard(&mut self, headers: &RateHeaders, date: Timestamp, now: Duration) {
        if headers.limit > 0 {
            let reset_at = now.saturating_add(headers.until_reset(date));
            self.heard = Some(Heard { limit: headers.limit, remaining: headers.remaining, reset_at });
        }
    }

    /// How long to wait before the next request. Asked again after the wait, it says zero unless something was sent or
    /// heard in between.
    pub fn next_at(&self, now: Duration, pace: Pace) -> Duration {
        let after_last = |gap: Duration| self.sent.back().map_or(Duration::ZERO, |last| last.saturating_add(gap));
        let Some(heard) = self.heard else { return after_last(MIN_GAP).saturating_sub(now) };
        let allowance = self.allowance(heard.limit);

        let paced = match pace {
            Pace::Steady => after_last(MIN_GAP.max(WINDOW / allowance)),
            Pace::CatchUp => Duration::ZERO,
        };
        let windowed = self.window_opens(allowance);
        let reserve = heard.limit.saturating_sub(allowance);
        let shared = if heard.remaining <= reserve { heard.reset_at } else { Duration::ZERO };
        paced.max(windowed).max(shared).saturating_sub(now)
    }

    /// Requests per window; one at least, or nothing would ever be learned.
    fn allowance(&self, limit: u32) -> u32 {
        // A share of at most 1 keeps the product within u32, and `as` saturates.
        ((f64::from(limit) * self.share) as u32).max(1)
    }

    /// When fewer than `allowance` requests lie within the last window.
    fn window_opens(&self, allowance: u32) -> Duration {
        let allowance = usize::try_from(allowance).unwrap_or(usize::MAX);
        let earliest = self.sent.len().checked_sub(allowance).and_then(|at| self.sent.get(at));
        // A moment more than the window, so that no 60 s hold both ends.
        earliest.map_or(Duration::ZERO, |at| at.saturating_add(WINDOW).saturating_add(Duration::from_millis(1)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn date() -> Timestamp {
        Timestamp::from_second(1_757_607_710).unwrap()
    }

    fn headers(limit: u32, remaining: u32, resets_in_s: i64) -> RateHeaders {
        RateHeaders { limit, remaining, reset_epoch_s: date().as_second() + resets_in_s }
    }

    #[test]
    fn headers_are_read_or_not_there_at_all() {
        let mut map = HeaderMap::new();
        for (name, value) in
            [("x-rate-limit-limit", "120"), ("x-rate-limit-remaining", " 7 "), ("x-rate-limit-reset", "1757607758")]
        {
            assert_eq!(RateHeaders::parse(&map), None);
            map.insert(name, HeaderValue::from_static(value));
        }
        let read = RateHeaders { limit: 120, remaining: 7, reset_epoch_s: 1_757_607_758 };
        assert_eq!(RateHeaders::parse(&map), Some(read));
        map.insert("x-rate-limit-limit", HeaderValue::from_static("-1"));
        assert_eq!(RateHeaders::parse(&map), None);
    }

    #[test]
    fn a_429_is_waited_out_by_oktas_clock_within_bounds() {
        let wait = |resets_in_s| wait_after_429(Some(&headers(50, 0, resets_in_s)), Some(date()));
        assert_eq!(wait(8), Wait::Until(9 * S));
        assert_eq!(wait(-30), Wait::Until(S));
        assert_eq!(wait(3600), Wait::Until(65 * S));
        let absurd = RateHeaders { limit: 1, remaining: 0, reset_epoch_s: i64::MAX };
        assert_eq!(wait_after_429(Some(&absurd), Some(date())), Wait::Until(65 * S));
        assert_eq!(wait_after_429(None, Some(date())), Wait::Until(60 * S));
        assert_eq!(wait_after_429(Some(&headers(50, 0, 8)), None), Wait::Until(60 * S));
    }

    #[test]
    fn two_zeros_are_the_concurrency_limit() {
        assert_eq!(wait_after_429(Some(&headers(0, 0, 5)), Some(date())), Wait::Concurrency);
        assert_eq!(wait_after_429(Some(&headers(0, 0, 5)), None), Wait::Concurrency);
        assert_eq!(wait_after_429(Some(&headers(0, 1, 5)), Some(date())), Wait::Until(6 * S));

        let mut budget = Budget::new(0.5);
        budget.heard(&headers(600, 599, 60), date(), S);
        budget.heard(&headers(0, 0, 60), date(), S);
        assert_eq!(budget.next_at(S, Pace::CatchUp), Duration::ZERO, "they say nothing about the bucket");
    }

    #[test]
    fn steady_polling_is_spread_over_the_window() {
        let mut budget = Budget::new(0.5);
        assert_eq!(budget.next_at(Duration::ZERO, Pace::Steady), Duration::ZERO);
        budget.sent(Duration::ZERO);
        assert_eq!(budget.next_at(Duration::ZERO, Pace::CatchUp), S, "nothing is known yet");
        budget.heard(&headers(50, 49, 60), date(), S / 2);
        // 25 in 60 s are 2.4 s apart.
        assert_eq!(budget.next_at(S / 2, Pace::Steady), Duration::from_millis(1900));
        assert_eq!(budget.next_at(S / 2, Pace::CatchUp), Duration::ZERO);
        // 300 in 60 s would be 0.2 s apart; polling stays at 1 s.
        budget.heard(&headers(600, 599, 60), date(), S / 2);
        assert_eq!(budget.next_at(S / 2, Pace::Steady), S / 2);
    }

    #[test]
    fn catching_up_stops_at_the_share() {
        let mut budget = Budget::new(0.5);
        for n in 0..10 {
            assert_eq!(budget.next_at(Duration::from_millis(n * 100), Pace::CatchUp), Duration::ZERO, "{n}");
            budget.sent(Duration::from_millis(n * 100));
            // A window of Okta's that is always fresh: only our own count can stop us.
            budget.heard(&headers(20, 19, 60), date(), Duration::from_millis(n * 100));
        }
        assert_eq!(budget.next_at(S, Pace::CatchUp), Duration::from_millis(59_001));
    }

    #[test]
    fn what_is_left_to_the_others_is_not_touched() {
        let mut budget = Budget::new(0.5);
        budget.heard(&headers(120, 60, 17), date(), S);
        assert_eq!(budget.next_at(S, Pace::CatchUp), 17 * S);
        assert_eq!(budget.next_at(18 * S, Pace::CatchUp), Duration::ZERO, "the window has ended");
        budget.heard(&headers(120, 61, 17), date(), S);
        assert_eq!(budget.next_at(S, Pace::CatchUp), Duration::ZERO);
        budget.sent(S);
        assert_eq!(budget.next_at(S, Pace::CatchUp), 17 * S, "one is under way and counts already");
    }

    #[test]
    fn the_smallest_share_still_polls_once_a_window() {
        let mut budget = Budget::new(0.001);
        budget.sent(Duration::ZERO);
        budget.heard(&headers(10, 10, 60), date(), Duration::ZERO);
        assert_eq!(budget.next_at(Duration::ZERO, Pace::Steady), Duration::from_millis(60_001));
    }

    #[test]
    fn what_was_sent_before_the_window_is_forgotten() {
        let mut budget = Budget::new(0.5);
        for n in 1..1_000 {
            budget.sent(n * S);
            assert_eq!(budget.sent.len(), n.min(61) as usize, "a window holds both its ends");
        }
    }

    proptest! {
        /// Model: an Okta window that resets every 60 s and that others use as well.
        #[test]
        fn no_60_seconds_see_more_than_the_share(
            limit in 1..200_u32,
            share in 0.01..=1.0_f64,
            start_ms in 0..200_000_u64,
            steps in prop::collection::vec((any::<bool>(), 0..3_000_u64, 0..4_u32), 1..400),
        ) {
            let mut budget = Budget::new(share);
            let allowance = ((f64::from(limit) * share) as usize).max(1);
            let mut now = Duration::from_millis(start_ms);
            let mut sent: Vec<Duration> = Vec::new();
            let mut window = (0, limit);
            for (full, idle_ms, others) in steps {
                let pace = if full { Pace::CatchUp } else { Pace::Steady };
                let wait = budget.next_at(now, pace);
                prop_assert!(wait <= Duration::from_secs(61), "never waits longer than a window: {wait:?}");
                now += wait;
                prop_assert_eq!(budget.next_at(now, pace), Duration::ZERO);
                budget.sent(now);
                sent.push(now);
                let in_window = sent.iter().filter(|at| **at + WINDOW >= now).count();
                prop_assert!(in_window <= allowance + 1, "{in_window} of {allowance}");

                let this = now.as_secs() / 60;
                if window.0 != this {
                    window = (this, limit);
                }
                window.1 = window.1.saturating_sub(1 + others);
                let headers = RateHeaders { limit, remaining: window.1, reset_epoch_s: ((this + 1) * 60) as i64 };
                budget.heard(&headers, Timestamp::from_second(now.as_secs() as i64).unwrap(), now);
                now += Duration::from_millis(if full { 0 } else { idle_ms });
            }
        }
    }
}
