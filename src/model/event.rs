//! One System Log record, read as far as the daemon needs it.
//!
//! Okta calls neither key names nor values a contract, so everything but `uuid`, `eventType` and `published` may be
//! missing, null or of another type (Okta OpenAPI, schema `LogEvent`). Targets are found by type, never by position.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use thiserror::Error;

use super::lenient;

/// The source name of the Okta System Log.
pub const SOURCE_OKTA: &str = "okta";

/// The largest record that is taken in, in bytes; a larger one goes to quarantine.
pub const MAX_EVENT_BYTES: usize = 512 * 1024;

/// The longest `uuid` and the longest `eventType`, in bytes. Okta's have 36 and some 60; they stand in keys and logs.
const MAX_NAME: usize = 256;

/// The three fields without which a record is not an event, borrowed from the page where that is possible.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope<'a> {
    /// Okta's id of the event.
    #[serde(borrow)]
    pub uuid: Cow<'a, str>,
    /// Such as `user.risk.detect`.
    #[serde(borrow)]
    pub event_type: Cow<'a, str>,
    /// When it happened, by Okta's clock.
    #[serde(deserialize_with = "moment")]
    pub published: Timestamp,
}

/// RFC 3339, as Okta writes it. Exports of other tools leave the zone out; it is UTC then.
fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    text.parse::<Timestamp>()
        .or_else(|_| text.parse::<jiff::civil::DateTime>()?.to_zoned(jiff::tz::TimeZone::UTC).map(|at| at.timestamp()))
        .map_err(|_| D::Error::custom("`published` is no time such as 2026-08-24T10:15:02.102Z"))
}

impl<'a> Envelope<'a> {
    /// Reads only the envelope.
    pub fn parse(raw: &'a str) -> Result<Self, EventError> {
        check_size(raw)?;
        serde_json::from_str::<Self>(raw).map_err(EventError::Shape)?.checked()
    }

    fn checked(self) -> Result<Self, EventError> {
        if self.uuid.is_empty() || self.event_type.is_empty() {
            return Err(EventError::Empty);
        }
        if self.uuid.len() > MAX_NAME || self.event_type.len() > MAX_NAME {
            return Err(EventError::LongName);
        }
        Ok(self)
    }
}

fn check_size(raw: &str) -> Result<(), EventError> {
    if raw.len() > MAX_EVENT_BYTES { Err(EventError::TooLarge { bytes: raw.len() }) } else { Ok(()) }
}

/// A record that cannot be taken as an event; it is kept raw in quarantine.
#[derive(Debug, Error)]
pub enum EventError {
    /// It is not an object with the three fields.
    #[error("not a System Log record")]
    Shape(#[source] serde_json::Error),
    /// A required field is empty.
    #[error("`uuid` or `eventType` is empty")]
    Empty,
    /// `uuid` or `eventType` is longer than any of Okta's.
    #[error("`uuid` or `eventType` has more than {MAX_NAME} bytes")]
    LongName,
    /// It is larger than [`MAX_EVENT_BYTES`].
    #[error("{bytes} bytes are more than the {MAX_EVENT_BYTES} an event may have")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// A whole event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Where it comes from: [`SOURCE_OKTA`].
    pub source: String,
    /// Okta's id of the event.
    pub uuid: String,
    /// Such as `user.risk.detect`.
    pub event_type: String,
    /// When it happened, by Okta's clock.
    pub published: Timestamp,
    /// The whole record.
    pub body: Value,
}

/// An actor or a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity<'a> {
    /// Okta's id, such as `00u…`.
    pub id: &'a str,
    /// `User`, `AppInstance`, `SystemPrincipal`, …
    pub kind: &'a str,
    /// The login of a user, the label of an app.
    pub alternate_id: Option<&'a str>,
    /// The name people know.
    pub display_name: Option<&'a str>,
}

impl Event {
    /// Reads a whole record.
    pub fn parse(source: &str, raw: &str) -> Result<Self, EventError> {
        check_size(raw)?;
        let body: Value = lenient::from_str(raw).map_err(EventError::Shape)?;
        let envelope = Envelope::deserialize(&body).map_err(EventError::Shape)?.checked()?;
        let (uuid, event_type) = (envelope.uuid.into_owned(), envelope.event_type.into_owned());
        let published = envelope.published;
        Ok(Self { source: source.to_owned(), uuid, event_type, published, body })
    }

    /// The actor, if the record names one.
    pub fn actor(&self) -> Option<Entity<'_>> {
        self.body.get("actor").and_then(entity)
    }

    /// The targets in the record's order; empty when `target` is null or missing.
    pub fn targets(&self) -> impl Iterator<Item = Entity<'_>> {
        self.body.get("target").and_then(Value::as_array).into_iter().flatten().filter_map(entity)
    }

    /// The first target of a type (`User`, `AppInstance`, `UserGroup`, …).
    pub fn target(&self, kind: &str) -> Option<Entity<'_>> {
        self.targets().find(|target| target.kind == kind)
    }

    /// The user whom the event is about: the target of type `User`. Only where the user acts for himself (sign-in,
    /// factors, breached credential) and the record has no such target is it the actor; for a risk event never.
    pub fn affected_user(&self) -> Option<Entity<'_>> {
        let actor = || self.actor().filter(|actor| actor.kind == "User" && actor_is_affected(&self.event_type));
        self.target("User").or_else(actor)
    }

    /// The id of the device that the event is about: the target of a device event, else the device it came from (Okta
    /// OpenAPI, `LogEvent.device`).
    pub fn device(&self) -> Option<&str> {
        let target = self.target("UDDevice").or_else(|| self.target("Device")).map(|device| device.id);
        target.or_else(|| self.body.get("device")?.get("id")?.as_str().filter(|id| !id.is_empty()))
    }

    /// `debugContext.debugData`, if it is an object.
    pub fn debug_data(&self) -> Option<&Map<String, Value>> {
        self.body.get("debugContext")?.get("debugData")?.as_object()
    }
}

/// What an event tells of who did it and from where, as far as others are searched by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traits {
    /// The id of the actor.
    pub actor: Option<String>,
    /// The address of the client.
    pub ip: Option<String>,
    /// The name of the client's country.
    pub country: Option<String>,
    /// The id of the device, where it is one that Okta knows.
    pub device: Option<String>,
    /// Such as `SUCCESS`.
    pub outcome: Option<String>,
}

impl Event {
    /// What others are searched by.
    pub fn traits(&self) -> Traits {
        let at = |pointer| self.body.pointer(pointer).and_then(Value::as_str).and_then(told);
        Traits {
            actor: at("/actor/id"),
            ip: at("/client/ipAddress"),
            country: at("/client/geographicalContext/country"),
            device: at("/device/id"),
            outcome: at("/outcome/result"),
        }
    }
}

/// A text that tells something: Okta writes "not known" also as the strings `null` and `unknown`.
pub fn told(text: &str) -> Option<String> {
    let says_nothing = ["", "null", "unknown"].iter().any(|word| text.eq_ignore_ascii_case(word));
    (!says_nothing && text.len() <= MAX_NAME).then(|| text.to_owned())
}

/// Whether the acting user is the affected one, in an event of this type that names no other.
pub fn actor_is_affected(event_type: &str) -> bool {
    ACTOR_IS_AFFECTED.iter().any(|prefix| event_type.starts_with(prefix))
}

/// Event types in which the acting user is the affected one.
const ACTOR_IS_AFFECTED: &[&str] = &[
    "user.session.",
    "user.authentication.",
    "user.mfa.",
    "policy.evaluate_sign_on",
    "security.breached_credential.",
    "user.account.report_suspicious_activity_by_enduser",
    // He adds a device of his own; its lifecycle is an administrator's.
    "device.user.add",
];

fn entity(value: &Value) -> Option<Entity<'_>> {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    Some(Entity {
        id: text("id").filter(|id| !id.is_empty())?,
        kind: text("type")?,
        alternate_id: text("alternateId"),
        display_name: text("displayName"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(json: &str) -> Event {
        Event::parse(SOURCE_OKTA, json).unwrap()
    }

    #[test]
    fn the_affected_user_of_a_risk_event_is_the_target_never_the_actor() {
        let with_target = event(
            r#"{"uuid":"u","eventType":"user.risk.detect","published":"2026-08-24T10:15:02.102Z",
                "actor":{"id":"00uadmin","type":"User"},
                "target":[{"id":"0oa1","type":"AppInstance"},{"id":"00u1","type":"User","alternateId":"a@b.c"}]}"#,
        );
        assert_eq!(with_target.affected_user().unwrap().id, "00u1");
        let without = event(
            r#"{"uuid":"u","eventType":"user.risk.detect","published":"2026-08-24T10:15:02.102Z",
                "actor":{"id":"00uadmin","type":"User"},"target":null}"#,
        );
        assert_eq!(without.affected_user(), None);
    }

    #[test]
    fn who_signs_in_is_affected_even_without_a_target() {
        let sign_in = event(
            r#"{"uuid":"u","eventType":"user.session.start","published":"2026-08-24T10:15:02.102Z",
                "actor":{"id":"00u1","type":"User"},"target":null}"#,
        );
        assert_eq!(sign_in.affected_user().unwrap().id, "00u1");
    }

    #[test]
    fn who_adds_a_device_is_affected_and_who_suspends_one_is_not() {
        let of = |event_type: &str| {
            event(&format!(
                r#"{{"uuid":"u","eventType":"{event_type}","published":"2026-08-24T10:15:02.102Z",
                    "actor":{{"id":"00u1","type":"User"}},"target":[{{"id":"guo1","type":"UDDevice"}}]}}"#
            ))
        };
        let added = of("device.user.add");
        assert_eq!((added.affected_user().unwrap().id, added.device()), ("00u1", Some("guo1")));
        assert_eq!(of("device.lifecycle.suspend").affected_user(), None);
    }

    #[test]
    fn a_record_without_its_three_fields_is_refused() {
        for raw in [
            "[]",
            "7",
            "{}",
            r#"{"uuid":"u","eventType":"x"}"#,
            r#"{"uuid":"","eventType":"x","published":"2026-08-24T10:15:02Z"}"#,
        ] {
            assert!(Envelope::parse(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn a_time_without_a_zone_is_utc() {
        for text in ["2022-06-22 18:18:29.015", "2022-06-22T18:18:29.015000000", "2022-06-22T20:18:29.015+02:00"] {
            let record = format!(r#"{{"uuid":"u","eventType":"x","published":"{text}"}}"#);
            assert_eq!(Envelope::parse(&record).unwrap().published.to_string(), "2022-06-22T18:18:29.015Z");
        }
        let error = Envelope::parse(r#"{"uuid":"u","eventType":"x","published":"redacted"}"#).unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("`published` is no time"));
    }

    #[test]
    fn half_a_character_in_a_name_does_not_hide_the_event() {
        let named = event(
            r#"{"uuid":"u","eventType":"user.risk.detect","published":"2026-08-24T10:15:02.102Z",
                "target":[{"id":"00u1","type":"User","displayName":"Ann\ud83d"}]}"#,
        );
        assert_eq!(named.affected_user().unwrap().display_name, Some("Ann\u{fffd}"));
    }

    #[test]
    fn names_that_would_fill_keys_and_logs_are_refused() {
        let long = "x".repeat(MAX_NAME + 1);
        for (uuid, kind) in [(long.as_str(), "x"), ("u", long.as_str())] {
            let raw = format!(r#"{{"uuid":"{uuid}","eventType":"{kind}","published":"2026-08-24T10:15:02Z"}}"#);
            assert!(matches!(Envelope::parse(&raw), Err(EventError::LongName)));
        }
    }

    /// A record of exactly this size, with names of these lengths.
    fn record(bytes: usize, uuid: usize, event_type: usize) -> String {
        let (uuid, event_type) = ("u".repeat(uuid), "t".repeat(event_type));
        let head =
            format!(r#"{{"uuid":"{uuid}","eventType":"{event_type}","published":"2026-08-24T10:15:02Z","pad":""#);
        let pad = bytes.saturating_sub(head.len() + 2);
        format!("{head}{}\"}}", "x".repeat(pad))
    }

    #[test]
    fn the_largest_record_is_taken_and_one_byte_more_is_refused() {
        let largest = record(524_288, 36, 60);
        assert_eq!(largest.len(), 524_288);
        assert!(Envelope::parse(&largest).is_ok() && Event::parse(SOURCE_OKTA, &largest).is_ok());
        for bytes in [524_289, 600_000] {
            let larger = record(bytes, 36, 60);
            for refused in [Envelope::parse(&larger).map(drop), Event::parse(SOURCE_OKTA, &larger).map(drop)] {
                let text = refused.unwrap_err().to_string();
                assert_eq!(text, format!("{bytes} bytes are more than the 524288 an event may have"));
            }
        }
    }

    #[test]
    fn the_longest_names_are_taken() {
        assert!(Envelope::parse(&record(0, MAX_NAME, MAX_NAME)).is_ok());
    }

    #[test]
    fn fields_of_unexpected_types_do_no_harm() {
        let odd = event(
            r#"{"uuid":"u","eventType":"user.session.start","published":"2026-08-24T10:15:02.102Z","version":0,
                "actor":7,"target":[null,{"id":null},{"type":"User"}],"debugContext":{}}"#,
        );
        assert_eq!(odd.affected_user(), None);
        assert_eq!(odd.debug_data(), None);
    }
}
