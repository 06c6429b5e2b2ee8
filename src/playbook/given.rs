//! Events and facts as people write them down: for a rehearsal, or for a test of a playbook. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use thiserror::Error;

use super::Condition;
use super::facts::{Fact, FactValue, StepView};

/// What is wrong with something that was written down.
#[derive(Debug, Error)]
pub enum GivenError {
    /// Records are JSON.
    #[error("it is not JSON")]
    NotJson(#[source] serde_json::Error),
    /// There is not one record.
    #[error("it is empty")]
    Empty,
    /// Facts are an object by their names.
    #[error("they are not a JSON object")]
    NoObject(#[source] serde_json::Error),
    /// Something that is no fact.
    #[error("there is no fact `{0}`; use {1} or steps")]
    UnknownFact(String, String),
    /// A fact that never looks like this.
    #[error("`{0}` has to be {1}")]
    Misshapen(Fact, &'static str),
    /// Something that no condition can ask of the past.
    #[error("`past`: {0}")]
    Past(String),
    /// The steps are not told by name.
    #[error("`steps`")]
    Steps(#[source] serde_json::Error),
}

/// What somebody says Okta would answer.
#[derive(Debug, Clone, Default)]
pub struct GivenFacts {
    /// The facts that are told; the others are not known.
    pub facts: Vec<(Fact, FactValue)>,
    /// How steps ended, by name; those that are not told of are taken to succeed.
    pub steps: Vec<(String, StepView)>,
}

impl GivenFacts {
    /// Reads a JSON object of facts by their names, and of `steps`.
    ///
    /// # Errors
    /// The first thing that is no fact, or never looks like that.
    pub fn read(text: &str) -> Result<Self, GivenError> {
        let object: Map<String, Value> = serde_json::from_str(text).map_err(GivenError::NoObject)?;
        let mut given = Self::default();
        for (name, value) in object {
            match (Fact::parse(&name), name.as_str()) {
                (Some(Fact::Past), _) => {
                    let Value::Object(answers) = value else {
                        return Err(GivenError::Misshapen(Fact::Past, PAST));
                    };
                    given.facts.push((Fact::Past, FactValue::Known(past(answers)?)));
                }
                (Some(fact), _) => {
                    check_fact(fact, &value)?;
                    given.facts.push((fact, FactValue::Known(value)));
                }
                (None, "steps") => {
                    let steps: BTreeMap<String, GivenStep> =
                        serde_json::from_value(value).map_err(GivenError::Steps)?;
                    given.steps = steps.into_iter().map(|(name, step)| (name, step.view())).collect();
                }
                (None, _) => {
                    let names = Fact::ALL.map(Fact::as_str).join(", ");
                    return Err(GivenError::UnknownFact(name, names));
                }
            }
        }
        Ok(given)
    }
}

/// How a step ended, as somebody says.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GivenStep {
    /// The word of an action's state, such as `succeeded` or `failed`.
    pub state: String,
    /// Where a person can look at what it made.
    pub url: Option<String>,
    /// The service's id of what it made.
    pub id: Option<String>,
    /// The number people use, such as `INC0010002`.
    pub number: Option<String>,
    /// What it found or left, in a sentence.
    pub note: Option<String>,
    /// Why it has not succeeded.
    pub error: Option<String>,
    /// The status of the answer to `http.request`.
    pub status: Option<u16>,
    /// That answer.
    pub body: Option<Value>,
}

impl GivenStep {
    /// The step as the steps after it see it.
    pub fn view(self) -> StepView {
        let Self { state, url, id, number, note, error, status, body } = self;
        StepView { state, url, id, number, note, error, status, body }
    }
}

/// Answers about the past, by the questions as conditions write them. They are stored as the questions read when they are
/// told back, so that blanks and `60m` for `1h` make no difference.
///
/// # Errors
/// The first that is no question, or whose answer is none.
pub fn past(answers: impl IntoIterator<Item = (String, Value)>) -> Result<Value, GivenError> {
    let mut told = Map::new();
    for (text, answer) in answers {
        let condition = Condition::compile(&format!("type({text}) == null_type"));
        let condition = condition.map_err(|error| GivenError::Past(format!("`{text}`: {}", error.message)))?;
        let mut questions = condition.questions();
        match (questions.next(), questions.next()) {
            (Some(question), None) if question.fits(&answer) => told.insert(question.to_string(), answer),
            (Some(_), None) => return Err(GivenError::Past(format!("`{text}` is never {answer}"))),
            _ => {
                return Err(GivenError::Past(format!("`{text}` is no single question such as count(\"a.b\", \"1h\")")));
            }
        };
    }
    Ok(Value::Object(told))
}

/// What `past` looks like.
const PAST: &str = r#"an object, such as {"count(\"user.session.start\", \"1h\")": 3}"#;

fn check_fact(fact: Fact, value: &Value) -> Result<(), GivenError> {
    let fits = match fact {
        Fact::User => value.is_object(),
        Fact::Manager => value.is_object() || value.is_null(),
        Fact::Groups => value.as_array().is_some_and(|groups| groups.iter().all(Value::is_string)),
        Fact::Past => value.is_object(),
        Fact::UserRisk => value.as_str().is_some_and(|level| matches!(level, "LOW" | "MEDIUM" | "HIGH" | "UNKNOWN")),
    };
    let expected = match fact {
        Fact::User => "an object, such as {\"login\": \"ann@example.com\"}",
        Fact::Manager => "an object, or null for a user without a manager",
        Fact::Groups => "a list of names",
        Fact::Past => PAST,
        Fact::UserRisk => "\"LOW\", \"MEDIUM\", \"HIGH\" or \"UNKNOWN\"",
    };
    if fits { Ok(()) } else { Err(GivenError::Misshapen(fact, expected)) }
}

/// The records of a file, in its order: the values that stand one after the other, with arrays and envelopes opened.
///
/// # Errors
/// When it is not JSON, or there is none.
pub fn records(text: &str) -> Result<Vec<String>, GivenError> {
    let mut records = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        let raw = value.map_err(GivenError::NotJson)?.get();
        if let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(raw) {
            records.extend(list.into_iter().map(|record| record.get().to_owned()));
        } else if let Ok(hook) = serde_json::from_str::<Hook<'_>>(raw) {
            records.extend(hook.data.events.into_iter().map(|record| record.get().to_owned()));
        } else if let Ok(Shown { body, event_type: None }) = serde_json::from_str(raw) {
            records.push(body.get().to_owned());
        } else {
            records.push(raw.to_owned());
        }
    }
    if records.is_empty() { Err(GivenError::Empty) } else { Ok(records) }
}

/// Records that come out of other tools or out of documentation often lack what every event of Okta's has. What can be
/// taken for it is put in, and said; `moment` is when it happened if it does not tell.
pub fn complete(record: &str, moment: Timestamp) -> (Cow<'_, str>, Vec<String>) {
    let mut notes = Vec::new();
    let Ok(Value::Object(mut object)) = serde_json::from_str(record) else { return (record.into(), notes) };
    if !object.get("eventType").is_some_and(Value::is_string) {
        return (record.into(), notes);
    }
    if !object.contains_key("uuid") {
        notes.push("it has no `uuid`; `simulated` is taken, so its keys are not those of the real event".to_owned());
        object.insert("uuid".to_owned(), "simulated".into());
    }
    let published = object.get("published").map(|published| published.as_str().unwrap_or_default().to_owned());
    match published {
        None => {
            notes.push(format!("it has no `published`; {moment} is taken"));
            object.insert("published".to_owned(), moment.to_string().into());
        }
        Some(text) if text.parse::<Timestamp>().is_err() => {
            let taken = match text.parse::<jiff::civil::DateTime>() {
                Ok(civil) => {
                    notes.push(format!("its `published` has no time zone; {civil}Z is taken"));
                    format!("{civil}Z")
                }
                Err(_) => {
                    notes.push(format!("its `published` is no time; {moment} is taken"));
                    moment.to_string()
                }
            };
            object.insert("published".to_owned(), taken.into());
        }
        Some(_) => {}
    }
    if notes.is_empty() {
        return (record.into(), notes);
    }
    (Value::Object(object).to_string().into(), notes)
}

/// What an event hook sends (Okta developer guide, "Event hooks").
#[derive(Deserialize)]
struct Hook<'a> {
    #[serde(borrow)]
    data: HookData<'a>,
}

#[derive(Deserialize)]
struct HookData<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

/// What `okta-responder events show ID --body --format json` prints.
#[derive(Deserialize)]
struct Shown<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
    #[serde(rename = "eventType")]
    event_type: Option<IgnoredAny>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::{Event, SOURCE_OKTA};

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_eq!(records(text).unwrap(), expected);
    }

    #[test]
    fn every_way_to_write_events_down_is_read() {
        check(r#"{"uuid":"1"}"#, &[r#"{"uuid":"1"}"#]);
        check(r#"[{"uuid":"1"}, {"uuid":"2"}]"#, &[r#"{"uuid":"1"}"#, r#"{"uuid":"2"}"#]);
        check("{\"uuid\":\"1\"}\n\n{\"uuid\":\"2\"}\n", &[r#"{"uuid":"1"}"#, r#"{"uuid":"2"}"#]);
        check(r#"{"id":1,"uuid":"1","type":"x","runs":[],"body":{"uuid":"1"}}"#, &[r#"{"uuid":"1"}"#]);
        check(r#"{"eventType":"com.okta.event_hook","data":{"events":[{"uuid":"1"}]}}"#, &[r#"{"uuid":"1"}"#]);
    }

    #[test]
    fn what_other_tools_leave_out_is_completed_and_said() {
        let at = "2026-08-24T10:00:00Z".parse().unwrap();
        let (record, notes) = complete(r#"{"eventType":"x","published":"2026-08-24 09:00:00.5"}"#, at);
        let event = Event::parse(SOURCE_OKTA, &record).unwrap();
        assert_eq!(event.published.to_string(), "2026-08-24T09:00:00.5Z");
        assert_eq!(notes.len(), 2, "{notes:?}");
        for lacking in [r#"{"eventType":"x","uuid":"u"}"#, r#"{"eventType":"x","uuid":"u","published":"redacted"}"#] {
            let (record, notes) = complete(lacking, at);
            assert_eq!(Event::parse(SOURCE_OKTA, &record).unwrap().published.to_string(), "2026-08-24T10:00:00Z");
            assert_eq!(notes.len(), 1, "{notes:?}");
        }
    }

    #[test]
    fn what_is_no_event_or_whole_stays_as_it_is() {
        let whole = r#"{"eventType":"x","uuid":"u","published":"2026-08-24T10:00:00Z","a":1.0}"#;
        for record in [whole, "7", "{}", r#"{"uuid":"u"}"#, r#"{"eventType":7}"#] {
            assert_eq!(complete(record, Timestamp::UNIX_EPOCH), (record.into(), vec![]));
        }
    }

    #[test]
    fn what_is_no_json_or_empty_is_refused() {
        for text in ["", "  ", "[]", "<html>", "{\"uuid\":"] {
            assert!(records(text).is_err(), "{text}");
        }
    }

    #[test]
    fn facts_are_checked_by_name_and_shape() {
        let given =
            GivenFacts::read(r#"{"manager":null,"user_risk":"HIGH","steps":{"a-b":{"state":"failed"}}}"#).unwrap();
        assert_eq!(given.facts.len(), 2);
        assert_eq!(given.steps[0].1.state, "failed");
        for wrong in [r#"{"usr":{}}"#, r#"{"groups":"Staff"}"#, r#"{"user_risk":"high"}"#, r#"{"steps":{"a":{}}}"#, "7"]
        {
            assert!(GivenFacts::read(wrong).is_err(), "{wrong}");
        }
    }
}
