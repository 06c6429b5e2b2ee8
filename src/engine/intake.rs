//! From the bytes of a page to rows of the inbox. Pure.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::model::event::{Envelope, Event, SOURCE_OKTA, Traits, actor_is_affected, told};
use crate::model::risk::Risk;
use crate::store::{NewEvent, Quarantined};

/// The most records of a page. Okta sends at most the 1,000 that are asked for (Okta API reference, System Log); a page of
/// 32 MiB has room for millions of the smallest ones, each of which would take far more memory than its text.
const MAX_RECORDS: usize = 10_000;

/// A page, sorted.
#[derive(Debug, Default)]
pub struct Intake {
    /// Events that some playbook wants.
    pub events: Vec<NewEvent>,
    /// How many events no playbook wants. Only their envelope was read.
    pub unwanted: u64,
    /// Records that are no events.
    pub quarantined: Vec<Quarantined>,
    /// How many records the page had.
    pub records: usize,
}

/// The body is not a JSON array: it was cut off, or it is not the System Log that answers. Nor is one with more than ten
/// times as many records as Okta sends a page.
#[derive(Debug, Error)]
#[error("the page is not a JSON array of records")]
pub struct PageError(#[source] serde_json::Error);

/// Sorts a page. A record that cannot be read goes to quarantine and the page goes on.
pub fn sort_page(body: &[u8], wanted: &BTreeSet<String>) -> Result<Intake, PageError> {
    // Checking is much quicker than replacing, and text is hardly ever broken.
    let text = std::str::from_utf8(body).map_or_else(|_| String::from_utf8_lossy(body), Cow::Borrowed);
    let Records(records) = serde_json::from_str(&text).map_err(PageError)?;
    let mut intake = Intake { records: records.len(), ..Intake::default() };
    for record in records {
        let raw = record.get();
        match Envelope::parse(raw) {
            Ok(envelope) if wanted.contains(envelope.event_type.as_ref()) => match new_event(&envelope, raw) {
                Ok(event) => intake.events.push(event),
                Err(error) => intake.quarantined.push(quarantined(raw, &error)),
            },
            Ok(_) => intake.unwanted += 1,
            Err(error) => intake.quarantined.push(quarantined(raw, &error)),
        }
    }
    Ok(intake)
}

/// The records of a page, each as its text.
struct Records<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Records<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Page;
        impl<'de> Visitor<'de> for Page {
            type Value = Records<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of records")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut page: A) -> Result<Self::Value, A::Error> {
                let mut records = Vec::new();
                while let Some(record) = page.next_element()? {
                    if records.len() == MAX_RECORDS {
                        return Err(A::Error::custom(format!("more than {MAX_RECORDS} records")));
                    }
                    records.push(record);
                }
                Ok(Records(records))
            }
        }
        deserializer.deserialize_seq(Page)
    }
}

/// Whether events of this type tell a user's risk.
pub fn tells_risk(event_type: &str) -> bool {
    matches!(event_type, "user.risk.detect" | "user.risk.change")
}

fn new_event(envelope: &Envelope<'_>, raw: &str) -> Result<NewEvent, crate::model::event::EventError> {
    let tells_risk = tells_risk(&envelope.event_type);
    let (subject, risk, traits) = match serde_json::from_str::<Sketch<'_>>(raw) {
        // The quick way: most records are plain, and only risk events are read to their depth.
        Ok(sketch) if !tells_risk && is_readable(raw) => {
            (sketch.affected_user(&envelope.event_type).map(str::to_owned), None, sketch.traits())
        }
        _ => {
            let event = Event::parse(SOURCE_OKTA, raw)?;
            let risk = tells_risk.then(|| Risk::of(&event).level.as_str());
            (event.affected_user().map(|user| user.id.to_owned()), risk, event.traits())
        }
    };
    Ok(NewEvent {
        uuid: envelope.uuid.as_ref().to_owned(),
        event_type: envelope.event_type.as_ref().to_owned(),
        published: envelope.published,
        subject,
        risk,
        traits,
        body: raw.to_owned(),
    })
}

fn quarantined(raw: &str, error: &crate::model::event::EventError) -> Quarantined {
    let mut words = error.to_string();
    if let Some(cause) = std::error::Error::source(error) {
        words = format!("{words}: {cause}");
    }
    Quarantined { error: words, raw: raw.to_owned() }
}

/// Whether the whole of a record can be read, which the decider will have to: one that is nested too deeply, or holds a
/// number that is none, belongs into quarantine and not into the inbox. Nothing of it is kept.
fn is_readable(raw: &str) -> bool {
    struct Whole;
    impl<'de> Deserialize<'de> for Whole {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(Self)
        }
    }
    impl<'de> Visitor<'de> for Whole {
        type Value = Self;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("anything")
        }

        fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
            Ok(self)
        }

        fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
            Ok(self)
        }

        fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
            Ok(self)
        }

        fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
            Ok(self)
        }

        fn visit_str<E>(self, _: &str) -> Result<Self, E> {
            Ok(self)
        }

        fn visit_unit<E>(self) -> Result<Self, E> {
            Ok(self)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
            while list.next_element::<Self>()?.is_some() {}
            Ok(self)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
            while map.next_entry::<Self, Self>()?.is_some() {}
            Ok(self)
        }
    }
    serde_json::from_str::<Whole>(raw).is_ok()
}

/// As much of a plain record as says whom it is about and what others are searched by. One with escapes in its ids or with people that are no objects does
/// not become a sketch.
#[derive(Deserialize)]
struct Sketch<'a> {
    #[serde(borrow, default)]
    actor: Option<SketchEntity<'a>>,
    #[serde(borrow, default)]
    target: Option<Vec<SketchEntity<'a>>>,
    #[serde(borrow, default)]
    client: Option<SketchClient<'a>>,
    #[serde(borrow, default)]
    device: Option<SketchEntity<'a>>,
    #[serde(borrow, default)]
    outcome: Option<SketchOutcome<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SketchClient<'a> {
    ip_address: Option<&'a str>,
    #[serde(borrow)]
    geographical_context: Option<SketchPlace<'a>>,
}

#[derive(Deserialize)]
struct SketchPlace<'a> {
    country: Option<&'a str>,
}

#[derive(Deserialize)]
struct SketchOutcome<'a> {
    result: Option<&'a str>,
}

#[derive(Deserialize)]
struct SketchEntity<'a> {
    id: Option<&'a str>,
    #[serde(rename = "type")]
    kind: Option<&'a str>,
}

impl<'a> Sketch<'a> {
    /// The same as [`Event::traits`].
    fn traits(&self) -> Traits {
        let client = self.client.as_ref();
        let country = client.and_then(|client| client.geographical_context.as_ref()?.country);
        let id = |one: &Option<SketchEntity<'a>>| one.as_ref().and_then(|one| one.id).and_then(told);
        Traits {
            actor: id(&self.actor),
            ip: client.and_then(|client| client.ip_address).and_then(told),
            country: country.and_then(told),
            device: id(&self.device),
            outcome: self.outcome.as_ref().and_then(|outcome| outcome.result).and_then(told),
        }
    }

    /// The same user as [`Event::affected_user`].
    fn affected_user(&self, event_type: &str) -> Option<&'a str> {
        let actor = || self.actor.as_ref().filter(|_| actor_is_affected(event_type)).and_then(SketchEntity::user_id);
        self.target.iter().flatten().find_map(SketchEntity::user_id).or_else(actor)
    }
}

impl<'a> SketchEntity<'a> {
    fn user_id(&self) -> Option<&'a str> {
        self.id.filter(|id| !id.is_empty() && self.kind == Some("User"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> BTreeSet<String> {
        ["user.risk.detect", "user.session.start"].into_iter().map(str::to_owned).collect()
    }

    fn record(uuid: &str, kind: &str, more: &str) -> String {
        format!(r#"{{"uuid":"{uuid}","eventType":"{kind}","published":"2026-08-24T10:15:02.102Z"{more}}}"#)
    }

    #[test]
    fn a_page_is_sorted_into_wanted_unwanted_and_quarantine() {
        let page = format!(
            "[{},{},{},7]",
            record("1", "user.session.start", r#","target":[{"id":"00u1","type":"User"}]"#),
            record("2", "user.session.end", ""),
            r#"{"uuid":"3"}"#
        );
        let intake = sort_page(page.as_bytes(), &wanted()).unwrap();
        assert_eq!(intake.records, 4);
        assert_eq!(intake.events.len(), 1);
        assert_eq!(intake.events[0].subject.as_deref(), Some("00u1"));
        assert_eq!(intake.unwanted, 1);
        assert_eq!(intake.quarantined.len(), 2);
    }

    #[test]
    fn a_page_of_more_records_than_okta_ever_sends_is_no_page() {
        let page = |records: usize| format!("[{}]", vec!["0"; records].join(","));
        assert_eq!(sort_page(page(MAX_RECORDS).as_bytes(), &wanted()).unwrap().quarantined.len(), MAX_RECORDS);
        assert!(sort_page(page(MAX_RECORDS + 1).as_bytes(), &wanted()).is_err());
    }

    #[test]
    fn a_record_that_cannot_be_read_whole_goes_to_quarantine_and_the_page_goes_on() {
        let deep =
            record("1", "user.session.start", &format!(r#","a":{}{}"#, "[".repeat(100_000), "]".repeat(100_000)));
        let number = record("2", "user.session.start", r#","a":1e999"#);
        let page =
            format!("[{deep},{number},{}]", record("3", "user.session.start", r#","a":[{"b":1.5},null,true,-1]"#));
        let intake = sort_page(page.as_bytes(), &wanted()).unwrap();
        assert_eq!((intake.quarantined.len(), intake.events.len()), (2, 1));
    }

    #[test]
    fn a_risk_event_carries_its_level() {
        let risk = r#","target":[{"id":"00u1","type":"User"}],
            "debugContext":{"debugData":{"risk":"{previousLevel=LOW, level=HIGH, reasons=a, b}"}}"#;
        let page = format!("[{}]", record("1", "user.risk.detect", risk));
        let intake = sort_page(page.as_bytes(), &wanted()).unwrap();
        assert_eq!(intake.events[0].risk, Some("HIGH"));
    }

    #[test]
    fn odd_targets_and_escaped_text_take_the_careful_way() {
        for target in [r#"[{"id":"00\u00751","type":"User"}]"#, r#"[7,{"id":"00u1","type":"User"}]"#] {
            let page = format!("[{}]", record("1", "user.session.start", &format!(r#","target":{target}"#)));
            let intake = sort_page(page.as_bytes(), &wanted()).unwrap();
            assert_eq!(intake.events[0].subject.as_deref(), Some("00u1"), "{target}");
        }
    }

    #[test]
    fn the_quick_way_finds_the_same_user_as_the_careful_one() {
        let user = |id: &str| format!(r#"{{"id":"{id}","type":"User"}}"#);
        let app = r#"{"id":"0oa1","type":"AppInstance","alternateId":"x","detailEntry":{"a":[1]}}"#;
        let people = [
            String::new(),
            format!(r#","actor":{}"#, user("00u1")),
            format!(r#","actor":{},"target":null"#, user("00u1")),
            format!(r#","actor":{},"target":[{app}]"#, user("00u1")),
            format!(r#","target":[{app},{},{}],"actor":{}"#, user("00u2"), user("00u3"), user("00u1")),
            format!(r#","target":[{},{{"type":"User"}},{}]"#, user(""), user("00u3")),
            format!(r#","actor":{},"target":[{{"id":null,"type":"User"}}]"#, user("00u1")),
            format!(r#","actor":{app},"target":[]"#),
            format!(r#","actor":7,"target":[{}]"#, user("00u2")),
            r#","actor":{"id":7,"type":"User"},"target":{}"#.to_owned(),
            r#","actor":{"id":"a"},"client":{"ipAddress":"192.0.2.1","geographicalContext":{"country":"Côte d'Ivoire"}}"#
                .to_owned(),
            r#","client":{"ipAddress":"unknown","geographicalContext":null},"device":{"id":"guo1"}"#.to_owned(),
            r#","client":{"ipAddress":7},"outcome":{"result":"FAILURE","reason":null}"#.to_owned(),
        ];
        for kind in ["user.session.start", "group.user_membership.add", "user.mfa.factor.activate"] {
            let wanted = [kind.to_owned()].into();
            for more in &people {
                let raw = record("1", kind, more);
                let expected = Event::parse(SOURCE_OKTA, &raw).unwrap().affected_user().map(|user| user.id.to_owned());
                let intake = sort_page(format!("[{raw}]").as_bytes(), &wanted).unwrap();
                assert_eq!(intake.events[0].subject, expected, "{raw}");
                assert_eq!(intake.events[0].traits, Event::parse(SOURCE_OKTA, &raw).unwrap().traits(), "{raw}");
            }
        }
    }

    #[test]
    fn a_page_that_was_cut_off_is_an_error_as_a_whole() {
        assert!(sort_page(b"[{\"uuid\":\"1\"", &wanted()).is_err());
        assert!(sort_page(b"<html>", &wanted()).is_err());
    }

    #[test]
    fn bytes_that_are_no_text_do_not_stop_the_page() {
        let mut page = b"[{\"uuid\":\"\xff\xfe\",\"eventType\":\"x\",\"published\":\"2026-08-24T10:15:02Z\"},".to_vec();
        page.extend(record("2", "user.session.start", "").as_bytes());
        page.push(b']');
        assert_eq!(sort_page(&page, &wanted()).unwrap().events.len(), 1);
    }
}
