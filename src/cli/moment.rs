//! Moments on the command line: RFC 3339, or a duration before now.

use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

/// What `--since`, `--until` and `--now` accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    At(Timestamp),
    Ago(Duration),
}

/// A text that is neither.
#[derive(Debug, Error)]
#[error("write a moment such as 2026-08-24T10:00:00Z, or a duration before now such as 36h or \"2days 3h\"")]
pub(super) struct MomentError;

impl Moment {
    /// The moment itself. What lies before the first one there is becomes that one.
    pub(super) fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(moment) => moment,
            Self::Ago(before) => SignedDuration::try_from(before)
                .ok()
                .and_then(|before| now.checked_sub(before).ok())
                .unwrap_or(Timestamp::MIN),
        }
    }
}

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        match text.parse() {
            Ok(moment) => Ok(Self::At(moment)),
            Err(_) => humantime::parse_duration(text).map(Self::Ago).map_err(|_| MomentError),
        }
    }
}

/// How long ago something was, as people say it: the two largest units.
pub(super) fn ago(moment: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(moment).as_secs();
    let words = span(Duration::from_secs(seconds.unsigned_abs()));
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("{words} ago"),
        _ => format!("in {words}"),
    }
}

/// A duration in its two largest units.
pub(super) fn span(duration: Duration) -> String {
    let whole = humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string();
    whole.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let now: Timestamp = "2026-08-24T10:00:00Z".parse().unwrap();
        let found = text.parse::<Moment>().ok().map(|moment| moment.at(now).to_string());
        assert_eq!(found.as_deref(), expected, "{text}");
    }

    #[test]
    fn moments_and_durations_before_now_are_read() {
        check("2026-08-01T00:00:00Z", Some("2026-08-01T00:00:00Z"));
        check("2026-08-01T02:00:00+02:00", Some("2026-08-01T00:00:00Z"));
        check("36h", Some("2026-08-22T22:00:00Z"));
        check(" 1day 1h ", Some("2026-08-23T09:00:00Z"));
        for wrong in ["yesterday", "", "2026-08-01", "-3h", "36"] {
            check(wrong, None);
        }
    }

    #[test]
    fn spans_have_two_units_at_most() {
        let now: Timestamp = "2026-08-24T10:00:00Z".parse().unwrap();
        assert_eq!(ago("2026-08-24T09:58:57Z".parse().unwrap(), now), "1m 3s ago");
        assert_eq!(ago("2026-08-22T08:58:57Z".parse().unwrap(), now), "2days 1h ago");
        assert_eq!(ago("2026-08-24T10:00:05Z".parse().unwrap(), now), "in 5s");
        assert_eq!(ago(now, now), "now");
    }
}
