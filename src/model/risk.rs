//! A user's risk as the log tells it.
//!
//! Three places can hold it: `securityContext.risk` (an object), `debugContext.debugData.risk` (a Java map printed as a
//! string, `{previousLevel=LOW, level=HIGH, reasons=a, b, issuer=OKTA}`; Okta event reference for Identity Threat
//! Protection) and, for sign-ins, JSON inside other `debugData` strings. A level that is missing or not understood is
//! [`RiskLevel::Unknown`], never `LOW`: a gap in the log must not release anybody.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::event::Event;

/// The most characters kept of any text of a risk.
pub const MAX_FIELD: usize = 1_000;

/// The most reasons kept.
pub const MAX_REASONS: usize = 50;

/// The most bytes of a risk text that are looked at.
const MAX_TEXT: usize = 16 * 1024;

/// How high a risk is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RiskLevel {
    /// `LOW`.
    Low,
    /// `MEDIUM`.
    Medium,
    /// `HIGH`.
    High,
    /// Missing, or a word we don't know.
    #[default]
    Unknown,
}

impl RiskLevel {
    /// Reads a level, whatever its case; anything else is [`RiskLevel::Unknown`].
    pub fn parse(word: &str) -> Self {
        let word = word.trim();
        [Self::Low, Self::Medium, Self::High]
            .into_iter()
            .find(|level| level.as_str().eq_ignore_ascii_case(word))
            .unwrap_or(Self::Unknown)
    }

    /// Okta's word, or `UNKNOWN`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "LOW",
            Self::Medium => "MEDIUM",
            Self::High => "HIGH",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// Whether it is one of Okta's three levels.
    pub fn is_known(self) -> bool {
        self != Self::Unknown
    }

    /// Where it stands among the known levels; `None` for [`RiskLevel::Unknown`], which stands nowhere.
    pub fn rank(self) -> Option<u8> {
        match self {
            Self::Low => Some(1),
            Self::Medium => Some(2),
            Self::High => Some(3),
            Self::Unknown => None,
        }
    }
}

impl fmt::Display for RiskLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which form of the event a risk was read from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RiskOrigin {
    /// `securityContext.risk`.
    Structured,
    /// A text of `debugData`.
    Text,
    /// The event says nothing about risk.
    #[default]
    None,
}

/// What one event says about risk. Its serialised form is what conditions and templates read as `risk`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Risk {
    /// The level now.
    pub level: RiskLevel,
    /// The level before.
    pub previous_level: RiskLevel,
    /// The detection's name, such as `Brute Force Attack`; an open list.
    pub detection: Option<String>,
    /// The reasons, one by one, in the event's order.
    pub reasons: Vec<String>,
    /// The reasons as one text, as the event has them.
    pub reasons_text: String,
    /// Who issued it, such as `OKTA`.
    pub issuer: Option<String>,
    /// Which form it was read from.
    pub source: RiskOrigin,
}

impl Risk {
    /// Reads the risk of an event: the structured form where it has a level, else the text forms in order. What the
    /// structured form leaves out (often `previousLevel`) is taken from the text where both agree on the level.
    pub fn of(event: &Event) -> Self {
        let structured = event
            .body
            .get("securityContext")
            .and_then(|context| context.get("risk"))
            .and_then(Value::as_object)
            .map(|object| Self::from_object(object, RiskOrigin::Structured))
            .unwrap_or_default();
        let text = Self::of_debug_data(event);
        if structured.level.is_known() {
            return if text.level == structured.level { structured.filled_from(text) } else { structured };
        }
        if text.level.is_known() || structured.is_empty() { text } else { structured }
    }

    /// Reads one text form: `{key=value, …}` with or without braces, back-ticks or the word `Risk` in front, or JSON.
    ///
    /// Where a text holds `level` twice with different values (a reason can imitate a key), the higher one counts; a
    /// doubtful `previousLevel` is unknown.
    pub fn parse(text: &str) -> Self {
        let text = cut_bytes(text, MAX_TEXT).trim_matches(|c: char| c.is_whitespace() || c == '`');
        let text = without_prefix(text);
        if let Ok(Value::Object(object)) = serde_json::from_str::<Value>(text) {
            let inner = object.get("risk").and_then(Value::as_object).unwrap_or(&object);
            return Self::from_object(inner, RiskOrigin::Text);
        }
        let text = text.strip_prefix('{').unwrap_or(text);
        let text = text.strip_suffix('}').unwrap_or(text);
        Self::from_pairs(text)
    }

    /// Whether the level is lower than the one before. A `LOW` with nothing known before it counts as a fall: whoever
    /// asks wants to know whether this event could release somebody.
    pub fn is_fall(&self) -> bool {
        match (self.level.rank(), self.previous_level.rank()) {
            (Some(level), Some(previous)) => level < previous,
            (Some(level), None) => level == 1,
            (None, _) => false,
        }
    }

    fn of_debug_data(event: &Event) -> Self {
        let Some(debug) = event.debug_data() else { return Self::default() };
        let mut first = Self::default();
        for key in ["risk", "riskChange", "logOnlySecurityData"] {
            let risk = match debug.get(key) {
                Some(Value::String(text)) => Self::parse(text),
                Some(Value::Object(object)) => {
                    let inner = object.get("risk").and_then(Value::as_object).unwrap_or(object);
                    Self::from_object(inner, RiskOrigin::Text)
                }
                _ => continue,
            };
            if risk.level.is_known() {
                return risk;
            }
            if first.is_empty() {
                first = risk;
            }
        }
        first
    }

    fn from_object(object: &Map<String, Value>, source: RiskOrigin) -> Self {
        let mut risk = Self::default();
        for (key, value) in object {
            let Some(field) = Field::of(key) else { continue };
            match (field, value) {
                (field, Value::String(text)) => risk.put(field, text),
                (Field::Reasons, Value::Array(list)) => {
                    let list = list.iter().filter_map(Value::as_str);
                    risk.reasons = list.map(kept).filter(|reason| !reason.is_empty()).take(MAX_REASONS).collect();
                    risk.reasons_text = kept(&risk.reasons.join(", "));
                }
                _ => {}
            }
        }
        risk.with_source(source)
    }

    /// Reads `key=value` pairs. A value goes on to the next known key, because values hold commas.
    fn from_pairs(text: &str) -> Self {
        let mut risk = Self::default();
        let keys = keys_of(text);
        let mut levels: Vec<RiskLevel> = Vec::new();
        let mut previous: Vec<RiskLevel> = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            let end = keys.get(at + 1).map_or(text.len(), |next| next.start);
            let value = text.get(key.value..end).unwrap_or_default().trim().trim_end_matches(',');
            match key.field {
                Field::Level => levels.push(level_of(value)),
                Field::PreviousLevel => previous.push(level_of(value)),
                field => risk.put(field, value),
            }
        }
        risk.level = levels.into_iter().max_by_key(|level| level.rank()).unwrap_or_default();
        previous.dedup();
        risk.previous_level = match previous.as_slice() {
            [only] => *only,
            _ => RiskLevel::Unknown,
        };
        risk.with_source(RiskOrigin::Text)
    }

    fn put(&mut self, field: Field, text: &str) {
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        match field {
            Field::Level => self.level = level_of(text),
            Field::PreviousLevel => self.previous_level = level_of(text),
            Field::Detection => self.detection = Some(kept(text)),
            Field::Name => self.detection = self.detection.take().or_else(|| Some(kept(text))),
            Field::Issuer => self.issuer = Some(kept(text)),
            Field::Reasons => {
                let reasons = text.split(',').map(str::trim).filter(|reason| !reason.is_empty());
                self.reasons = reasons.take(MAX_REASONS).map(kept).collect();
                self.reasons_text = kept(text);
            }
        }
    }

    fn filled_from(self, other: Self) -> Self {
        let no_reasons = self.reasons.is_empty();
        Self {
            previous_level: if self.previous_level.is_known() { self.previous_level } else { other.previous_level },
            detection: self.detection.or(other.detection),
            issuer: self.issuer.or(other.issuer),
            reasons: if no_reasons { other.reasons } else { self.reasons },
            reasons_text: if no_reasons { other.reasons_text } else { self.reasons_text },
            ..self
        }
    }

    fn with_source(mut self, source: RiskOrigin) -> Self {
        self.source = if self.is_empty() { RiskOrigin::None } else { source };
        self
    }

    /// Whether the event says nothing. Then it has no source either: [`Risk::with_source`] gives it none.
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    PreviousLevel,
    Level,
    Detection,
    Reasons,
    Issuer,
    Name,
}

/// Every key that is known, in the spelling of each form.
const FIELDS: &[(&str, Field)] = &[
    ("previousLevel", Field::PreviousLevel),
    ("priorRiskLevel", Field::PreviousLevel),
    ("level", Field::Level),
    ("riskLevel", Field::Level),
    ("detectionName", Field::Detection),
    ("reasons", Field::Reasons),
    ("reasonCode", Field::Reasons),
    ("issuer", Field::Issuer),
    ("name", Field::Name),
];

impl Field {
    fn of(key: &str) -> Option<Self> {
        FIELDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, field)| *field)
    }
}

struct FoundKey {
    field: Field,
    /// Where the key begins.
    start: usize,
    /// Where its value begins.
    value: usize,
}

/// The known keys of a text: whole words in front of `=`, at the beginning or after a comma. So `level` is never found
/// inside `previousLevel`, nor a key inside a sentence.
fn keys_of(text: &str) -> Vec<FoundKey> {
    let mut keys = Vec::new();
    let mut start = 0;
    for piece in text.split_inclusive(',') {
        let indent = piece.len() - piece.trim_start().len();
        if let Some((key, _)) = piece.trim_start().split_once('=')
            && let Some(field) = Field::of(key.trim_end())
        {
            keys.push(FoundKey { field, start: start + indent, value: start + indent + key.len() + 1 });
        }
        start += piece.len();
    }
    keys
}

/// A level is one word; a key that we don't know may stand behind it.
fn level_of(value: &str) -> RiskLevel {
    RiskLevel::parse(value.split(',').next().unwrap_or_default())
}

fn without_prefix(text: &str) -> &str {
    match text.get(..4) {
        Some(word) if word.eq_ignore_ascii_case("risk") => {
            let rest = text.get(4..).unwrap_or_default().trim_start();
            if rest.starts_with('{') { rest } else { text }
        }
        _ => text,
    }
}

fn kept(text: &str) -> String {
    text.trim().chars().take(MAX_FIELD).collect()
}

fn cut_bytes(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::event::SOURCE_OKTA;

    use RiskLevel::{High, Low, Medium, Unknown};

    #[track_caller]
    fn check(text: &str, previous: RiskLevel, level: RiskLevel, detection: Option<&str>, reasons: &[&str]) {
        let risk = Risk::parse(text);
        assert_eq!((risk.previous_level, risk.level), (previous, level), "{text}");
        assert_eq!(risk.detection.as_deref(), detection, "{text}");
        assert_eq!(risk.reasons, reasons, "{text}");
    }

    fn event(security: Value, debug: Value) -> Event {
        let body = json!({
            "uuid": "u", "eventType": "user.risk.detect", "published": "2026-08-24T10:15:02.102Z",
            "securityContext": security, "debugContext": {"debugData": debug},
        });
        Event::parse(SOURCE_OKTA, &body.to_string()).unwrap()
    }

    #[test]
    fn every_known_form_is_read() {
        check(
            "{previousLevel=LOW, level=MEDIUM, detectionName=Session Influenced User Risk, reasons=Session is suspected to be hijacked, issuer=OKTA}",
            Low,
            Medium,
            Some("Session Influenced User Risk"),
            &["Session is suspected to be hijacked"],
        );
        check(
            "{reasons=MFA brute force, detectionName=Brute Force Attack, issuer=OKTA, level=MEDIUM, previousLevel=HIGH}",
            High,
            Medium,
            Some("Brute Force Attack"),
            &["MFA brute force"],
        );
        check("{level=LOW}", Unknown, Low, None, &[]);
        check(
            "{reasons=Anomalous Location, Anomalous Device, level=HIGH}",
            Unknown,
            High,
            None,
            &["Anomalous Location", "Anomalous Device"],
        );
        check("Risk{level=LOW}", Unknown, Low, None, &[]);
        check("`{level=high}`", Unknown, High, None, &[]);
        check(
            "{reasons=malware detected, malicious proxy, level=HIGH, name=sig-sci}",
            Unknown,
            High,
            Some("sig-sci"),
            &["malware detected", "malicious proxy"],
        );
        check(
            r#"{"riskLevel":"HIGH","priorRiskLevel":"LOW","direction":"increase","reasonCode":"High threat IP"}"#,
            Low,
            High,
            None,
            &["High threat IP"],
        );
        check(r#"{"risk":{"reasons":"A, B","level":"HIGH"},"behaviors":{}}"#, Unknown, High, None, &["A", "B"]);
        check("detectionName=Okta Threat Intelligence", Unknown, Unknown, Some("Okta Threat Intelligence"), &[]);
    }

    #[test]
    fn a_previous_level_alone_is_no_level() {
        check("{previousLevel=HIGH}", High, Unknown, None, &[]);
        check("{previousLevel=HIGH, issuer=OKTA}", High, Unknown, None, &[]);
    }

    #[test]
    fn an_unknown_key_behind_a_level_does_not_hide_it() {
        check("{level=HIGH, score=93, previousLevel=LOW}", Low, High, None, &[]);
    }

    #[test]
    fn a_reason_that_imitates_a_key_cannot_lower_the_level() {
        assert_eq!(Risk::parse("{level=HIGH, reasons=x, level=LOW}").level, High);
        assert_eq!(Risk::parse("{reasons=x, level=LOW, level=HIGH}").level, High);
        assert_eq!(
            Risk::parse("{previousLevel=LOW, level=LOW, reasons=x, previousLevel=HIGH}").previous_level,
            Unknown
        );
    }

    #[test]
    fn the_structured_form_wins_and_its_gaps_are_filled() {
        let risk = Risk::of(&event(
            json!({"risk": {"level": "HIGH", "reasons": ["Anomalous Device"], "detectionName": "Hijack"}}),
            json!({"risk": "{previousLevel=LOW, level=HIGH, reasons=other, issuer=OKTA}"}),
        ));
        assert_eq!((risk.previous_level, risk.level, risk.source), (Low, High, RiskOrigin::Structured));
        assert_eq!(risk.reasons, ["Anomalous Device"]);
        assert_eq!(risk.issuer.as_deref(), Some("OKTA"));

        let contradicting =
            Risk::of(&event(json!({"risk": {"level": "HIGH"}}), json!({"risk": "{previousLevel=HIGH, level=LOW}"})));
        assert_eq!((contradicting.previous_level, contradicting.level), (Unknown, High));
    }

    #[test]
    fn an_empty_structured_form_leaves_the_text() {
        for security in [json!({}), json!(null), json!({"risk": null}), json!({"risk": {"level": null}})] {
            let risk = Risk::of(&event(security, json!({"risk": "{level=MEDIUM}"})));
            assert_eq!((risk.level, risk.source), (Medium, RiskOrigin::Text));
        }
    }

    #[test]
    fn the_json_of_a_sign_in_is_the_last_resort() {
        let json_text = r#"{"risk":{"reasons":"Anomalous Location","level":"HIGH"}}"#;
        let alone = Risk::of(&event(json!({}), json!({"logOnlySecurityData": json_text})));
        assert_eq!(alone.level, High);
        let both = Risk::of(&event(json!({}), json!({"risk": "{level=LOW}", "logOnlySecurityData": json_text})));
        assert_eq!(both.level, Low);
    }

    #[test]
    fn every_gap_of_the_structured_form_is_filled_and_nothing_else() {
        let text = json!({"risk": "{previousLevel=LOW, level=HIGH, detectionName=T, reasons=a, b, issuer=OKTA}"});
        let bare = Risk::of(&event(json!({"risk": {"level": "HIGH"}}), text.clone()));
        assert_eq!(
            bare,
            Risk {
                level: High,
                previous_level: Low,
                detection: Some("T".to_owned()),
                reasons: vec!["a".to_owned(), "b".to_owned()],
                reasons_text: "a, b".to_owned(),
                issuer: Some("OKTA".to_owned()),
                source: RiskOrigin::Structured,
            }
        );
        let full =
            json!({"level": "HIGH", "previousLevel": "MEDIUM", "detectionName": "S", "reasons": "c", "issuer": "I"});
        let full = Risk::of(&event(json!({ "risk": full }), text));
        assert_eq!((full.previous_level, full.detection.as_deref()), (Medium, Some("S")));
        assert_eq!((full.reasons_text.as_str(), full.issuer.as_deref()), ("c", Some("I")));
        assert_eq!(full.reasons, ["c"]);
    }

    #[test]
    fn blanks_around_keys_and_strange_words_in_front_change_nothing() {
        check("{ previousLevel = LOW ,    level = HIGH ,  detectionName = T }", Low, High, Some("T"), &[]);
        check("risk {level=LOW}", Unknown, Low, None, &[]);
        check("Test{level=LOW}", Unknown, Unknown, None, &[]);
    }

    #[test]
    fn a_structured_form_without_a_level_yields_only_to_a_text_that_says_more() {
        let reasons = json!({"risk": {"reasons": ["Anomalous Device"]}});
        let outdone = Risk::of(&event(reasons.clone(), json!({"risk": "{level=HIGH}"})));
        assert_eq!((outdone.level, outdone.source), (High, RiskOrigin::Text));
        let kept = Risk::of(&event(reasons, json!({"risk": "{detectionName=Hijack}"})));
        assert_eq!((kept.reasons_text.as_str(), kept.source), ("Anomalous Device", RiskOrigin::Structured));
        let named = Risk::of(&event(json!({}), json!({"risk": "{detectionName=Hijack}"})));
        assert_eq!((named.detection.as_deref(), named.source), (Some("Hijack"), RiskOrigin::Text));
    }

    #[test]
    fn debug_data_may_hold_objects_in_place_of_texts() {
        for debug in [
            json!({"risk": {"level": "HIGH"}}),
            json!({"riskChange": {"level": "HIGH"}}),
            json!({"logOnlySecurityData": {"risk": {"level": "HIGH"}, "level": "LOW"}}),
            json!({"risk": 7, "riskChange": null, "logOnlySecurityData": {"risk": {"level": "HIGH"}}}),
        ] {
            let risk = Risk::of(&event(json!({}), debug.clone()));
            assert_eq!((risk.level, risk.source), (High, RiskOrigin::Text), "{debug}");
        }
    }

    #[test]
    fn of_texts_without_a_level_the_first_that_says_anything_counts() {
        let debug = json!({"risk": "{}", "riskChange": "{issuer=A}", "logOnlySecurityData": "{issuer=B}"});
        assert_eq!(Risk::of(&event(json!({}), debug)).issuer.as_deref(), Some("A"));
    }

    #[test]
    fn a_long_text_is_read_as_far_as_the_bound() {
        let level_behind = |bytes: usize| Risk::parse(&format!("{{reasons={}, level=HIGH}}", "x".repeat(bytes))).level;
        assert_eq!(level_behind(16_000), High);
        assert_eq!(level_behind(16_384), Unknown);
    }

    #[test]
    fn levels_have_words_and_ranks() {
        for (level, word, rank) in
            [(Low, "LOW", Some(1)), (Medium, "MEDIUM", Some(2)), (High, "HIGH", Some(3)), (Unknown, "UNKNOWN", None)]
        {
            assert_eq!(level.to_string(), word);
            assert_eq!(serde_json::to_value(level).unwrap(), word);
            assert_eq!(RiskLevel::parse(&format!(" {} ", word.to_lowercase())), level);
            assert_eq!((level.rank(), level.is_known()), (rank, rank.is_some()));
        }
    }

    #[test]
    fn an_event_without_risk_is_unknown_and_no_fall() {
        for debug in [json!({}), json!({"risk": ""}), json!({"risk": "{}"}), json!({"risk": "{score=93}"})] {
            let risk = Risk::of(&event(json!({"risk": {}}), debug));
            assert_eq!(risk, Risk::default());
            assert!(!risk.is_fall());
        }
    }

    #[test]
    fn falls_are_told_from_rises() {
        let risk = |previous_level, level| Risk { previous_level, level, ..Risk::default() };
        assert!(risk(High, Low).is_fall());
        assert!(risk(High, Medium).is_fall());
        assert!(risk(Unknown, Low).is_fall());
        for (previous, level) in [(Low, High), (Low, Low), (Unknown, Medium), (High, Unknown)] {
            assert!(!risk(previous, level).is_fall(), "{previous} to {level}");
        }
    }

    fn reason() -> impl Strategy<Value = String> {
        "[A-Za-z0-9][A-Za-z0-9 .:/()-]{0,30}[A-Za-z0-9]"
    }

    proptest! {
        #[test]
        fn no_text_panics_or_grows(text in any::<String>(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for text in [text.clone(), format!("{{{text}"), format!("{{reasons={text}, level={text}"), String::from_utf8_lossy(&bytes).into_owned()] {
                let risk = Risk::parse(&text);
                prop_assert!(risk.reasons.len() <= MAX_REASONS);
                prop_assert!(risk.reasons_text.chars().count() <= MAX_FIELD);
            }
        }

        #[test]
        fn any_order_of_keys_round_trips(
            order in Just(vec![0_usize, 1, 2, 3, 4]).prop_shuffle(),
            previous in prop::sample::select(vec![Low, Medium, High]),
            level in prop::sample::select(vec![Low, Medium, High]),
            detection in reason(),
            reasons in proptest::collection::vec(reason(), 1..6),
            issuer in prop::option::of("[A-Z]{1,8}"),
            prefix in prop::sample::select(vec!["", "Risk", " ", "`"]),
        ) {
            let fields = [
                Some(format!("previousLevel={previous}")),
                Some(format!("level={level}")),
                Some(format!("detectionName={detection}")),
                Some(format!("reasons={}", reasons.join(", "))),
                issuer.as_ref().map(|issuer| format!("issuer={issuer}")),
            ];
            let text: Vec<_> = order.into_iter().filter_map(|at| fields[at].clone()).collect();
            let risk = Risk::parse(&format!("{prefix}{{{}}}{}", text.join(", "), if prefix == "`" { "`" } else { "" }));
            prop_assert_eq!(risk.previous_level, previous);
            prop_assert_eq!(risk.level, level);
            prop_assert_eq!(risk.detection, Some(detection));
            prop_assert_eq!(risk.reasons, reasons);
            prop_assert_eq!(risk.issuer, issuer);
        }
    }

    #[test]
    fn a_flood_of_reasons_is_bounded() {
        let text = format!("{{level=HIGH, reasons={}}}", "x, ".repeat(100_000));
        let risk = Risk::parse(&text);
        assert_eq!(risk.level, High);
        assert_eq!(risk.reasons.len(), MAX_REASONS);
        assert_eq!(risk.reasons_text.chars().count(), MAX_FIELD);
    }
}
