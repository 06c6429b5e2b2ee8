//! What Okta's rate headers say, and what a 429 asks for. Pure.
//!
//! The headers and their meaning: Okta API reference, "Monitor rate limits" and "Concurrency rate limits".

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::HeaderMap;

/// Okta counts requests by the minute.
pub const WINDOW: Duration = Duration::from_secs(60);

/// The least time between two polls that have nothing to catch up with, and before who was turned away comes back.
pub const MIN_GAP: Duration = Duration::from_secs(1);

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

    /// How long the window still lasts, by Okta's clock (`date`), bounded to 1..=61 s. Both are whole seconds: one more makes
    /// sure that the window has really ended.
    pub fn until_reset(&self, date: Timestamp) -> Duration {
        let seconds = self.reset_epoch_s.saturating_sub(date.as_second());
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(WINDOW).saturating_add(Duration::from_secs(1))
    }
}

/// What a 429 asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The window is used up; it is open again after this time, which is 1 to 65 s when Okta has refused the request. When
    /// our own share is used up nothing was sent, and it can be longer, with many others in line.
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

#[cfg(test)]
mod tests {
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
    }
}
