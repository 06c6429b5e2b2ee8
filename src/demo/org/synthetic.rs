//! A log of any number of events that are made on the fly: the event of an index is always the same, and nothing is
//! kept in memory. Benches read it, so a page is little more than copying pre-rendered text.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::Value;

use super::directory::{App, Group, User};
use super::events;

/// How many different users appear in the synthetic log.
pub const SYNTHETIC_USERS: u64 = 5000;

const USER_PREFIX: &str = "00u2sim";

/// The synthetic user of a number, as he appears in events and in the directory.
pub(super) fn user(number: &str) -> User {
    let login = format!("user.{number}@example.com");
    User {
        id: format!("{USER_PREFIX}{number}"),
        login: login.clone(),
        email: login,
        first: "User".to_owned(),
        last: number.to_owned(),
        status: "ACTIVE".to_owned(),
        ..User::default()
    }
}

/// The synthetic user of an id, if it is one.
pub(super) fn user_of_id(id: &str) -> Option<User> {
    let number = id.strip_prefix(USER_PREFIX)?;
    let known = number.len() == 13 && number.parse::<u64>().is_ok_and(|number| number < SYNTHETIC_USERS);
    known.then(|| user(number))
}

/// The log.
#[derive(Debug)]
pub(super) struct Synthetic {
    count: u64,
    first_ms: i64,
    span_ms: i64,
    risk_every: u64,
    templates: Vec<Template>,
}

/// An event with gaps.
#[derive(Debug)]
struct Template {
    event_type: &'static str,
    pieces: Vec<(String, Slot)>,
}

/// What fills the gap after a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Uuid,
    Published,
    User,
    End,
}

/// Twenty events of ordinary traffic: indices into the templates, in the order in which they repeat.
const MIX: [usize; 20] = [0, 1, 2, 0, 1, 0, 1, 3, 0, 1, 0, 2, 1, 0, 4, 0, 1, 2, 0, 1];

/// The template of risk events, which are strewn into the mix.
const RISK: usize = 5;

/// What stands in a template where a gap will be; it occurs in no event.
const MARK: &str = "~";

impl Synthetic {
    /// `count` events spread evenly over `span_ms` milliseconds from `first_ms` on, every `risk_every`th (0: none) of
    /// which is a `user.risk.detect` from LOW to HIGH.
    pub(super) fn new(count: u64, first_ms: i64, span_ms: i64, risk_every: u64) -> Self {
        let user = user("~user~");
        let app = App { id: "0oa2sim0000000000001".to_owned(), label: "Sample Payroll".to_owned() };
        let group = Group {
            id: "00g2sim0000000000001".to_owned(),
            name: "Sample Staff".to_owned(),
            kind: super::directory::GroupKind::Okta,
        };
        let templates = vec![
            Template::of("user.session.start", events::sign_in(&user, "LOW")),
            Template::of("user.authentication.sso", events::single_sign_on(&app, &user)),
            Template::of("policy.evaluate_sign_on", events::policy_evaluated(&app, &user)),
            Template::of("application.user_membership.add", events::app_assigned(&app, &user)),
            Template::of("group.user_membership.add", events::group_added(&group, &user)),
            Template::of("user.risk.detect", events::risk_detected_structured(&user, "LOW", "HIGH")),
        ];
        Self { count, first_ms, span_ms, risk_every, templates }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// When the event of an index was published and, in the synthetic log, persisted.
    pub(super) fn time_ms(&self, index: u64) -> i64 {
        let offset = i128::from(index) * i128::from(self.span_ms) / i128::from(self.count.max(1));
        self.first_ms.saturating_add(i64::try_from(offset).unwrap_or(i64::MAX))
    }

    /// The first index whose time is not before `ms`.
    pub(super) fn first_from(&self, ms: i64) -> u64 {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.time_ms(middle) < ms {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    pub(super) fn event_type(&self, index: u64) -> &'static str {
        self.template(index).map_or("", |template| template.event_type)
    }

    /// Appends the event's JSON.
    pub(super) fn render(&self, index: u64, out: &mut String) {
        let Some(template) = self.template(index) else { return };
        for (text, slot) in &template.pieces {
            out.push_str(text);
            // Writing to a String cannot fail.
            let _ = match slot {
                Slot::Uuid => write!(out, "{:08x}-51a0-11f0-8000-{index:012x}", index.wrapping_mul(0x9e37_79b1) as u32),
                Slot::Published => {
                    write!(out, "{:.3}", Timestamp::from_millisecond(self.time_ms(index)).unwrap_or_default())
                }
                Slot::User => write!(out, "{:013}", index.wrapping_mul(7919) % SYNTHETIC_USERS),
                Slot::End => Ok(()),
            };
        }
    }

    fn template(&self, index: u64) -> Option<&Template> {
        let risk = self.risk_every > 0 && index % self.risk_every == self.risk_every - 1;
        let mixed = || usize::try_from(index % MIX.len() as u64).ok().and_then(|slot| MIX.get(slot)).copied();
        let number = if risk { Some(RISK) } else { mixed() };
        number.and_then(|number| self.templates.get(number))
    }
}

impl Template {
    fn of(event_type: &'static str, mut event: Value) -> Self {
        events::set(&mut event, &["uuid"], Value::from("~uuid~"));
        events::set(&mut event, &["published"], Value::from("~published~"));
        let text = event.to_string();
        let mut parts = text.split(MARK);
        let mut pieces = Vec::new();
        while let Some(literal) = parts.next() {
            let slot = match parts.next() {
                Some("uuid") => Slot::Uuid,
                Some("published") => Slot::Published,
                Some("user") => Slot::User,
                _ => Slot::End,
            };
            pieces.push((literal.to_owned(), slot));
        }
        Self { event_type, pieces }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_deterministic_whole_and_in_order() {
        let log = Synthetic::new(10_000, 1_700_000_000_000, 86_400_000, 1000);
        let mut last = i64::MIN;
        let mut bytes = 0;
        for index in 0..2000 {
            let (mut text, mut again) = (String::new(), String::new());
            log.render(index, &mut text);
            log.render(index, &mut again);
            assert_eq!(text, again);
            let event: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(event["eventType"], log.event_type(index));
            assert!(!text.contains(MARK), "{text}");
            assert!(log.time_ms(index) >= last);
            last = log.time_ms(index);
            bytes += text.len();
        }
        assert_eq!(log.event_type(999), "user.risk.detect");
        assert!((1500..3000).contains(&(bytes / 2000)), "an event has {} bytes", bytes / 2000);
    }

    #[test]
    fn the_first_event_from_a_moment_is_found() {
        let log = Synthetic::new(1000, 0, 10_000, 0);
        assert_eq!(log.first_from(-1), 0);
        assert_eq!(log.first_from(5), 1);
        assert_eq!(log.first_from(5000), 500);
        assert_eq!(log.first_from(10_000), 1000);
    }

    #[test]
    fn who_appears_in_the_log_is_a_user_and_nobody_else_is() {
        assert_eq!(user_of_id("00u2sim0000000000042").unwrap().login, "user.0000000000042@example.com");
        assert_eq!(user_of_id("00u2sim0000000005000"), None);
        assert_eq!(user_of_id("00u2sim42"), None);
    }
}
