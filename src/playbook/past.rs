//! What a condition asks of the past: counts over our own inbox, and the hour by the event's own time. Pure.
//!
//! Deciding reads no database. So every argument is a literal, what is asked is known when the condition is compiled, and
//! the answers are a fact like any other ([`Fact::Past`](super::Fact::Past)), fetched before anything is decided. They are
//! as of the event's own time, so that the same event is decided the same way later: a count takes in what was published
//! up to the event, itself among it; what was seen before is only what came before it. What a `cancel_if` asks is as of the
//! moment at which it is asked.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use cel::Value as Cel;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::CompileError;
use super::facts::cut;
use crate::model::event::{Event, Traits};

/// The functions that ask the inbox.
pub(super) const ASKING: [&str; 4] = ["count", "count_users", "seen_before", "first_seen"];

/// The functions that look at the event's own time.
pub(super) const TIMELY: [&str; 2] = ["hour_in", "weekday_in"];

/// The longest window. Rows of events are kept at least that long, whatever `[state]` says.
pub const MAX_WINDOW: Duration = crate::store::OKTA_KEEPS;

/// The most that is counted; more is as many.
pub const MAX_COUNTED: usize = 10_000;

/// The most bytes of a question as it is stored.
const MAX_QUESTION: usize = 240;

const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// One question to the inbox.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// What is asked.
    pub ask: Ask,
    /// The event types that are looked at.
    pub types: Vec<String>,
    /// How far back from the event's own time.
    pub window: Duration,
    /// Only events with this outcome.
    pub outcome: Option<String>,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// How many events, the one in question among them if it is of the type.
    Count(By),
    /// How many different affected users.
    Users(By),
    /// Whether an earlier event of the affected user had the same.
    SeenBefore(Trait),
    /// Whether the event tells it, and no earlier one of the affected user had it.
    FirstSeen(Trait),
}

/// Whose events are counted: those with the same as the event in question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// The affected user.
    User,
    /// The actor.
    Actor,
    /// The address of the client.
    Ip,
}

/// What an event may tell of where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trait {
    /// The country, by its name.
    Country,
    /// The device that Okta knows, by its id.
    Device,
    /// The address of the client.
    Ip,
}

impl By {
    const ALL: [Self; 3] = [Self::User, Self::Actor, Self::Ip];

    fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Actor => "actor",
            Self::Ip => "ip",
        }
    }
}

impl Trait {
    const ALL: [Self; 3] = [Self::Country, Self::Device, Self::Ip];

    fn as_str(self) -> &'static str {
        match self {
            Self::Country => "country",
            Self::Device => "device",
            Self::Ip => "ip",
        }
    }

    fn of(self, traits: Traits) -> Option<String> {
        match self {
            Self::Country => traits.country,
            Self::Device => traits.device,
            Self::Ip => traits.ip,
        }
    }
}

/// What the inbox is searched for: a question about one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// Such as `okta`.
    pub source: String,
    /// The event in question.
    pub uuid: String,
    /// The types.
    pub types: Vec<String>,
    /// After this moment,
    pub after: Timestamp,
    /// and up to this one.
    pub until: Timestamp,
    /// Only events with this outcome.
    pub outcome: Option<String>,
    /// What they have in common with the event in question.
    pub by: (By, String),
    /// What is looked for among them.
    pub goal: Goal,
}

/// What is looked for among the events of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// Their number.
    Events,
    /// The number of their affected users.
    Users,
    /// How many, other than the event in question, have this: only none or some is meant.
    With(Trait, String),
}

impl Question {
    /// Takes a question from the name of its function and its arguments; `None` of an argument is one that is no literal.
    pub(super) fn of(function: &str, arguments: &[Option<Cel>]) -> Result<Self, CompileError> {
        Self::try_of(function, arguments).map_err(|message| {
            let remedy = match function {
                "count_users" => "write count_users(\"user.session.start\", \"10m\", \"ip\", \"FAILURE\"); the outcome may be left out",
                "count" => "write count(\"user.mfa.okta_verify.deny_push\", \"1h\"); a third argument is \"user\", \"actor\" or \"ip\", a fourth an outcome",
                _ => "write first_seen(\"country\", \"user.session.start\", \"30d\"); a fourth argument is an outcome such as \"SUCCESS\"",
            };
            CompileError::new(format!("`{function}(…)`: {message}"), remedy)
        })
    }

    fn try_of(function: &str, arguments: &[Option<Cel>]) -> Result<Self, String> {
        let literals: Vec<&Cel> = arguments
            .iter()
            .map(Option::as_ref)
            .collect::<Option<_>>()
            .ok_or("every argument has to be a literal, so that what is asked is known before any event")?;
        let (ask, types, window, outcome) = match (function, literals.as_slice()) {
            ("count", [types, window]) => (Ask::Count(By::User), types, window, None),
            ("count", [types, window, by, outcome @ ..]) => (Ask::Count(by_of(by)?), types, window, outcome.first()),
            ("count_users", [types, window, by, outcome @ ..]) => {
                let by = by_of(by)?;
                if by == By::User {
                    return Err("one user is one user; count by \"ip\" or \"actor\"".to_owned());
                }
                (Ask::Users(by), types, window, outcome.first())
            }
            ("seen_before", [what, types, window, outcome @ ..]) => {
                (Ask::SeenBefore(trait_of(what)?), types, window, outcome.first())
            }
            ("first_seen", [what, types, window, outcome @ ..]) => {
                (Ask::FirstSeen(trait_of(what)?), types, window, outcome.first())
            }
            _ => return Err("there are too few arguments".to_owned()),
        };
        if literals.len() > 4 {
            return Err("there are too many arguments".to_owned());
        }
        let outcome = outcome.map(|outcome| text_of(outcome).map(str::to_owned)).transpose()?;
        let question = Self { ask, types: types_of(types)?, window: window_of(text_of(window)?)?, outcome };
        if question.to_string().len() > MAX_QUESTION {
            return Err(format!("it has more than {MAX_QUESTION} bytes; name fewer types"));
        }
        Ok(question)
    }

    /// What the inbox is searched for at a moment, which is the event's own unless it is asked later; or why there is nothing
    /// to search for.
    pub fn about(&self, event: &Event, moment: Timestamp) -> Result<Search, &'static str> {
        let traits = event.traits();
        let user = event.affected_user().map(|user| user.id.to_owned());
        let (by, goal) = match self.ask {
            Ask::Count(by) => (by, Goal::Events),
            Ask::Users(by) => (by, Goal::Users),
            Ask::SeenBefore(what) | Ask::FirstSeen(what) => {
                // What the event does not tell was neither seen before nor is it new.
                let value = what.of(traits.clone()).ok_or("untold")?;
                (By::User, Goal::With(what, value))
            }
        };
        let same = match by {
            By::User => user.ok_or("the event names no user")?,
            By::Actor => traits.actor.ok_or("the event names no actor")?,
            By::Ip => traits.ip.ok_or("the event tells no address")?,
        };
        let window = SignedDuration::try_from(self.window).unwrap_or(SignedDuration::MAX);
        Ok(Search {
            source: event.source.clone(),
            uuid: event.uuid.clone(),
            types: self.types.clone(),
            after: moment.saturating_sub(window).unwrap_or(Timestamp::MIN),
            until: moment,
            outcome: self.outcome.clone(),
            by: (by, same),
            goal,
        })
    }

    /// The answer as a fact. `found` is what the search found; a question that cannot be asked of this event is null, but
    /// where a country or device is asked for that the event does not tell: that is neither new nor known.
    pub fn answer(&self, found: Result<u64, &'static str>) -> Value {
        match (self.ask, found) {
            (Ask::Count(_) | Ask::Users(_), Ok(found)) => json!(found),
            (Ask::SeenBefore(_), Ok(found)) => json!(found > 0),
            (Ask::FirstSeen(_), Ok(found)) => json!(found == 0),
            (Ask::SeenBefore(_) | Ask::FirstSeen(_), Err("untold")) => json!(false),
            (_, Err(_)) => Value::Null,
        }
    }

    /// Whether this can be its answer.
    pub(crate) fn fits(&self, answer: &Value) -> bool {
        match self.ask {
            Ask::Count(_) | Ask::Users(_) => answer.is_u64(),
            Ask::SeenBefore(_) | Ask::FirstSeen(_) => answer.is_boolean(),
        }
    }
}

/// As a condition writes it; this is also the name under which its answer is stored.
impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<Value> = Vec::new();
        let function = match self.ask {
            Ask::Count(_) => "count",
            Ask::Users(_) => "count_users",
            Ask::SeenBefore(what) => {
                parts.push(json!(what.as_str()));
                "seen_before"
            }
            Ask::FirstSeen(what) => {
                parts.push(json!(what.as_str()));
                "first_seen"
            }
        };
        parts.push(match self.types.as_slice() {
            [one] => json!(one),
            many => json!(many),
        });
        parts.push(json!(humantime::format_duration(self.window).to_string()));
        match self.ask {
            Ask::Count(By::User) if self.outcome.is_none() => {}
            Ask::Count(by) | Ask::Users(by) => parts.push(json!(by.as_str())),
            Ask::SeenBefore(_) | Ask::FirstSeen(_) => {}
        }
        parts.extend(self.outcome.iter().map(|outcome| json!(outcome)));
        let parts: Vec<_> = parts.iter().map(Value::to_string).collect();
        write!(f, "{function}({})", parts.join(", "))
    }
}

/// The answer of `hour_in` and `weekday_in` for an event of this moment.
///
/// # Errors
/// What is wrong with the arguments; with literal ones that is found by `check`.
pub(super) fn timely(function: &str, arguments: &[Cel], at: Timestamp) -> Result<bool, String> {
    match (function, arguments) {
        ("hour_in", [zone, Cel::Int(from), Cel::Int(to)]) => {
            if !(0..=24).contains(from) || !(0..=24).contains(to) || from == to {
                return Err("hours are two different ones from 0 to 24".to_owned());
            }
            let hour = i64::from(at.to_zoned(zone_of(text_of(zone)?)?).hour());
            Ok(if from < to { (*from..*to).contains(&hour) } else { hour >= *from || hour < *to })
        }
        ("weekday_in", [zone, Cel::List(days)]) => {
            let zone = zone_of(text_of(zone)?)?;
            let days: Vec<&str> = days.iter().map(text_of).collect::<Result<_, _>>()?;
            if let Some(wrong) = days.iter().find(|day| !WEEKDAYS.contains(day)) {
                return Err(format!("`{}` is no weekday; they are {}", cut(wrong, 50), WEEKDAYS.join(", ")));
            }
            let day = usize::try_from(at.to_zoned(zone).weekday().to_monday_zero_offset()).unwrap_or_default();
            Ok(WEEKDAYS.get(day).is_some_and(|day| days.contains(day)))
        }
        _ => Err("the arguments are not those of the function".to_owned()),
    }
}

/// A zone of the tz database, such as `Europe/Berlin`, or a fixed offset such as `+05:30`.
fn zone_of(name: &str) -> Result<TimeZone, String> {
    let unknown =
        || format!("`{}` is no time zone such as \"Europe/Berlin\", and no offset such as \"+02:00\"", cut(name, 50));
    let Some((sign, rest)) =
        name.strip_prefix('+').map(|rest| (1, rest)).or(name.strip_prefix('-').map(|rest| (-1, rest)))
    else {
        return TimeZone::get(name).map_err(|_| unknown());
    };
    let (hours, minutes) = rest.split_once(':').ok_or_else(unknown)?;
    let number = |text: &str, most: i32| {
        i32::from_str(text).ok().filter(|number| text.len() == 2 && (0..=most).contains(number))
    };
    let (hours, minutes) = number(hours, 14).zip(number(minutes, 59)).ok_or_else(unknown)?;
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).map(TimeZone::fixed).map_err(|_| unknown())
}

fn text_of(value: &Cel) -> Result<&str, String> {
    match value {
        Cel::String(text) => Ok(text.as_str()),
        _ => Err("an argument that is meant to be a text is none".to_owned()),
    }
}

fn by_of(value: &Cel) -> Result<By, String> {
    let word = text_of(value)?;
    By::ALL.into_iter().find(|by| by.as_str() == word).ok_or_else(|| {
        format!("it can be counted by {}, not by `{}`", By::ALL.map(By::as_str).join(", "), cut(word, 50))
    })
}

fn trait_of(value: &Cel) -> Result<Trait, String> {
    let word = text_of(value)?;
    Trait::ALL.into_iter().find(|what| what.as_str() == word).ok_or_else(|| {
        format!("it can look for {}, not for `{}`", Trait::ALL.map(Trait::as_str).join(", "), cut(word, 50))
    })
}

fn types_of(value: &Cel) -> Result<Vec<String>, String> {
    let mut types: Vec<String> = match value {
        Cel::List(list) => list.iter().map(|one| text_of(one).map(str::to_owned)).collect::<Result<_, _>>()?,
        one => vec![text_of(one)?.to_owned()],
    };
    types.sort_unstable();
    types.dedup();
    let fits = |kind: &String| {
        !kind.is_empty() && kind.len() <= 200 && kind.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_')
    };
    match types.iter().find(|kind| !fits(kind)) {
        Some(wrong) => Err(format!("`{}` is not an event type", cut(wrong, 50))),
        None if types.is_empty() => Err("it names no event type".to_owned()),
        None => Ok(types),
    }
}

fn window_of(text: &str) -> Result<Duration, String> {
    let window =
        humantime::parse_duration(text).map_err(|_| format!("`{}` is no duration such as \"1h\"", cut(text, 50)))?;
    if window.is_zero() || window > MAX_WINDOW {
        return Err(format!("the window is not between a moment and {}", humantime::format_duration(MAX_WINDOW)));
    }
    Ok(window)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::SOURCE_OKTA;

    fn text(text: &str) -> Option<Cel> {
        Some(Cel::from(text.to_owned()))
    }

    fn question(function: &str, arguments: &[&str]) -> Result<Question, CompileError> {
        let arguments: Vec<_> = arguments.iter().map(|argument| text(argument)).collect();
        Question::of(function, &arguments)
    }

    #[test]
    fn a_question_reads_as_it_was_written() {
        for (function, arguments, told) in [
            ("count", &["a.b", "60m"][..], r#"count("a.b", "1h")"#),
            ("count", &["a.b", "1h", "ip"], r#"count("a.b", "1h", "ip")"#),
            ("count", &["a.b", "1h", "user", "FAILURE"], r#"count("a.b", "1h", "user", "FAILURE")"#),
            ("count_users", &["a.b", "10m", "ip"], r#"count_users("a.b", "10m", "ip")"#),
            (
                "first_seen",
                &["country", "a.b", "30d", "SUCCESS"],
                r#"first_seen("country", "a.b", "30days", "SUCCESS")"#,
            ),
        ] {
            assert_eq!(question(function, arguments).unwrap().to_string(), told);
        }
    }

    #[test]
    fn what_cannot_be_asked_is_told() {
        for (function, arguments, part) in [
            ("count", &["a.b"][..], "too few"),
            ("count", &["a.b", "1h", "user", "X", "Y"], "too many"),
            ("count", &["a.b", "soon"], "no duration"),
            ("count", &["a.b", "91d"], "not between"),
            ("count", &["a*", "1h"], "not an event type"),
            ("count", &["a.b", "1h", "app"], "counted by user, actor, ip"),
            ("count_users", &["a.b", "1h", "user"], "one user"),
            ("seen_before", &["city", "a.b", "1h"], "look for country, device, ip"),
        ] {
            let error = question(function, arguments).unwrap_err();
            assert!(error.message.contains(part), "{}", error.message);
        }
        let error = Question::of("count", &[None, text("1h")]).unwrap_err();
        assert!(error.message.contains("literal"), "{}", error.message);
    }

    fn event(more: &str) -> Event {
        let raw =
            format!(r#"{{"uuid":"u","eventType":"user.session.start","published":"2026-08-24T10:00:00Z"{more}}}"#);
        Event::parse(SOURCE_OKTA, &raw).unwrap()
    }

    #[test]
    fn what_the_event_does_not_tell_is_neither_new_nor_known() {
        let who = r#","target":[{"id":"00u1","type":"User"}]"#;
        for (country, found, seen, first) in [
            ("", None, false, false),
            (r#","client":{"geographicalContext":{"country":"Chad"}}"#, Some(0), false, true),
        ] {
            let event = event(&format!("{who}{country}"));
            for (function, expected) in [("seen_before", seen), ("first_seen", first)] {
                let question = question(function, &["country", "user.session.start", "1d"]).unwrap();
                let about = question.about(&event, event.published).map(|_| found.unwrap_or_default());
                assert_eq!(question.answer(about), json!(expected), "{function}{country}");
            }
        }
        let nobody = event("");
        let count = question("count", &["user.session.start", "1d"]).unwrap();
        assert_eq!(count.answer(count.about(&nobody, nobody.published).map(|_| 1)), Value::Null);
    }

    #[test]
    fn a_window_ends_with_the_event_itself() {
        let search = question("count", &["a.b", "1h", "ip", "FAILURE"]).unwrap();
        let event = event(r#","client":{"ipAddress":"203.0.113.7"}"#);
        let search = search.about(&event, event.published).unwrap();
        assert_eq!(
            (search.after.to_string(), search.until.to_string()),
            ("2026-08-24T09:00:00Z".to_owned(), "2026-08-24T10:00:00Z".to_owned())
        );
        assert_eq!((search.by, search.goal), ((By::Ip, "203.0.113.7".to_owned()), Goal::Events));
    }

    #[track_caller]
    fn check_hour(zone: &str, from: i64, to: i64, at: &str, expected: bool) {
        let arguments = [Cel::from(zone.to_owned()), Cel::Int(from), Cel::Int(to)];
        assert_eq!(timely("hour_in", &arguments, at.parse().unwrap()), Ok(expected), "{zone} {from} {to} {at}");
    }

    #[test]
    fn hours_and_days_are_those_of_the_zone() {
        check_hour("Europe/Berlin", 8, 18, "2026-07-01T06:00:00Z", true);
        check_hour("Europe/Berlin", 8, 18, "2026-01-01T06:59:59Z", false);
        check_hour("+05:30", 8, 18, "2026-07-01T02:30:00Z", true);
        check_hour("-03:00", 22, 6, "2026-07-01T02:00:00Z", true);
        check_hour("UTC", 22, 6, "2026-07-01T06:00:00Z", false);
        let weekend = Cel::from(vec![Cel::from("sat".to_owned()), Cel::from("sun".to_owned())]);
        let asked = |at: &str| {
            timely("weekday_in", &[Cel::from("Asia/Tokyo".to_owned()), weekend.clone()], at.parse().unwrap())
        };
        assert_eq!(asked("2026-07-03T16:00:00Z"), Ok(true));
        assert_eq!(asked("2026-07-05T16:00:00Z"), Ok(false));
    }

    #[test]
    fn zones_hours_and_days_that_there_are_not_are_told() {
        let hour = |zone: &str, from, to| {
            timely("hour_in", &[Cel::from(zone.to_owned()), Cel::Int(from), Cel::Int(to)], Timestamp::UNIX_EPOCH)
        };
        for zone in ["Europe/Brelin", "+2", "+25:00", "+02:60", "+-2:00", "/etc/passwd"] {
            assert!(hour(zone, 8, 18).is_err(), "{zone}");
        }
        assert!(hour("UTC", 8, 25).is_err() && hour("UTC", 8, 8).is_err() && hour("UTC", -1, 8).is_err());
        let days = Cel::from(vec![Cel::from("Saturday".to_owned())]);
        assert!(timely("weekday_in", &[Cel::from("UTC".to_owned()), days], Timestamp::UNIX_EPOCH).is_err());
    }
}
