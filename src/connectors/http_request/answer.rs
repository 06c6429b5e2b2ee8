//! What an answer says: whether something is there, and what of it later steps may read.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

use super::super::cut;
use crate::model::escape::Escape;
use crate::playbook::facts::names_a_secret;

/// The largest answer that is read, in bytes.
pub(super) const MAX_ANSWER: usize = 64 * 1024;

/// The largest answer that is kept for later steps, in bytes of compact JSON. It stands in the state file.
pub(super) const MAX_KEPT: usize = 8 * 1024;

/// The deepest that one is kept. What stands in the state file has to be read back, and readers of JSON have a limit too.
const MAX_DEPTH: usize = 32;

/// The most conditions of a look-up.
const MAX_CONDITIONS: usize = 10;

/// What the answer of a look-up has to hold.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Found {
    /// This leads to something that is not null, false or empty.
    Something(String),
    /// All of these lead to these values. Numbers and flags are compared with texts as they are written.
    Values(BTreeMap<String, Value>),
}

impl Found {
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            // What a template gives is looked at when it is used: a pointer that is none leads to nothing.
            Self::Something(pointer) => check_pointer("found", pointer),
            Self::Values(values) if values.is_empty() => Err("`found` is empty".to_owned()),
            Self::Values(values) if values.len() > MAX_CONDITIONS => {
                Err(format!("`found` has more than {MAX_CONDITIONS} entries"))
            }
            Self::Values(values) => values.iter().try_for_each(|(pointer, value)| {
                check_pointer("found", pointer)?;
                if value.is_object() || value.is_array() {
                    return Err(format!(
                        "`found` compares \"{pointer}\" with something that is neither text nor number"
                    ));
                }
                Ok(())
            }),
        }
    }

    pub(super) fn is_in(&self, answer: &Value) -> bool {
        match self {
            Self::Something(pointer) => answer.pointer(pointer).is_some_and(is_something),
            Self::Values(values) => values.iter().all(|(pointer, wanted)| {
                answer.pointer(pointer).is_some_and(|value| plain(value) == plain(wanted) && is_something(wanted))
            }),
        }
    }
}

/// Whether a parameter is a JSON pointer (RFC 6901).
pub(super) fn check_pointer(parameter: &str, pointer: &str) -> Result<(), String> {
    if pointer.starts_with('/') || pointer.contains("{{") {
        return Ok(());
    }
    Err(format!("`{parameter}`: \"{pointer}\" is not a JSON pointer such as \"/items/0/id\""))
}

fn is_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(object) => !object.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What is kept of an answer for later steps, and what is said when that is not all of it. It is kept whole or not at all,
/// but for the values of keys that name secrets.
pub(super) fn kept(body: Option<Value>, secrets: &[SecretString]) -> (Option<Value>, &'static str) {
    let Some(mut body) = body else { return (None, "") };
    if is_deeper(&body, MAX_DEPTH) {
        return (None, "; its body is nested too deeply and not kept");
    }
    redact(&mut body);
    let text = body.to_string();
    if text.len() > MAX_KEPT {
        return (None, "; its body is larger than 8 KiB and not kept");
    }
    if secrets.iter().any(|secret| text.contains(secret.expose_secret())) {
        return (None, "; its body repeats a secret and is not kept");
    }
    (Some(body), "")
}

fn is_deeper(value: &Value, most: usize) -> bool {
    match value {
        Value::Array(list) => most == 0 || list.iter().any(|item| is_deeper(item, most - 1)),
        Value::Object(object) => most == 0 || object.values().any(|item| is_deeper(item, most - 1)),
        _ => false,
    }
}

fn redact(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(redact),
        Value::Object(object) => {
            for (key, item) in object.iter_mut() {
                if names_a_secret(key) && !item.is_null() {
                    *item = Value::from("[redacted]");
                } else {
                    redact(item);
                }
            }
        }
        _ => {}
    }
}

/// The words of an error, where they usually stand; bounded, and empty where there are none.
pub(super) fn said(body: &[u8]) -> String {
    const PLACES: [&str; 9] = [
        "/error/message",
        "/error_description",
        "/message",
        "/detail",
        "/errorSummary",
        "/errors/0/message",
        "/errors/0/detail",
        "/title",
        "/error",
    ];
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return String::new() };
    let said = PLACES.iter().find_map(|place| body.pointer(place)?.as_str().filter(|text| !text.is_empty()));
    cut(&Escape::Line.apply(said.unwrap_or_default()), 200)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(found: Value) -> Found {
        let found = Found::deserialize(found).unwrap();
        found.check().unwrap();
        found
    }

    #[test]
    fn something_is_there_when_a_pointer_leads_to_it() {
        let answer = json!({"items": [{"id": 7, "ref": "k"}], "none": [], "null": null, "off": false, "text": ""});
        for (pointer, expected) in [
            ("/items/0", true),
            ("/items/0/id", true),
            ("/items/1", false),
            ("/none", false),
            ("/null", false),
            ("/off", false),
            ("/text", false),
            ("/nothing", false),
        ] {
            assert_eq!(found(json!(pointer)).is_in(&answer), expected, "{pointer}");
        }
    }

    #[test]
    fn every_value_has_to_be_the_wanted_one_and_nothing_is_never_wanted() {
        let answer = json!({"items": [{"id": 7, "ref": "k", "on": true}], "empty": ""});
        for (wanted, expected) in [
            (json!({"/items/0/ref": "k"}), true),
            (json!({"/items/0/ref": "k", "/items/0/id": "7"}), true),
            (json!({"/items/0/id": 7, "/items/0/on": true}), true),
            (json!({"/items/0/ref": "other"}), false),
            (json!({"/items/0/ref": "k", "/items/0/id": 8}), false),
            (json!({"/items": "k"}), false),
            // A template that gave nothing must not find everything.
            (json!({"/empty": ""}), false),
        ] {
            assert_eq!(found(wanted.clone()).is_in(&answer), expected, "{wanted}");
        }
        assert!(Found::deserialize(json!({"/a": {}})).unwrap().check().is_err());
    }

    #[test]
    fn an_answer_is_kept_whole_or_not_at_all() {
        let secrets = [SecretString::from("hush_1")];
        assert_eq!(kept(None, &secrets), (None, ""));
        assert_eq!(kept(Some(json!({"id": 1})), &secrets), (Some(json!({"id": 1})), ""));
        let fits = json!("x".repeat(MAX_KEPT - 2));
        assert_eq!(kept(Some(fits.clone()), &secrets), (Some(fits), ""));
        let (none, why) = kept(Some(json!("x".repeat(MAX_KEPT - 1))), &secrets);
        assert!(none.is_none() && why.contains("larger than 8 KiB"), "{why}");
        let (none, why) = kept(Some(json!({"echo": "Bearer hush_1"})), &secrets);
        assert!(none.is_none() && why.contains("repeats a secret"), "{why}");
    }

    #[test]
    fn an_answer_that_is_kept_can_be_read_back() {
        let nested = |depth: usize| {
            serde_json::from_str::<Value>(&format!("{}{}", "[".repeat(depth), "]".repeat(depth))).unwrap()
        };
        assert_eq!(kept(Some(nested(MAX_DEPTH)), &[]).0, Some(nested(MAX_DEPTH)));
        for depth in [MAX_DEPTH + 1, 127] {
            let (none, why) = kept(Some(nested(depth)), &[]);
            assert!(none.is_none() && why.contains("nested too deeply"), "{depth}: {why}");
        }
    }

    #[test]
    fn what_a_key_calls_a_secret_is_not_kept() {
        let answer = json!({"id": 1, "list": [{"access_token": "a", "Password": {"x": 1}, "secret": null}]});
        let shown =
            json!({"id": 1, "list": [{"access_token": "[redacted]", "Password": "[redacted]", "secret": null}]});
        assert_eq!(kept(Some(answer), &[]).0, Some(shown));
    }

    #[test]
    fn the_words_of_an_error_are_one_bounded_line() {
        assert_eq!(said(br#"{"error": {"message": "no\nsuch host"}}"#), "no such host");
        assert_eq!(said(br#"{"error": "invalid_client", "error_description": "wrong"}"#), "wrong");
        assert_eq!(said(br#"{"error": "invalid_client"}"#), "invalid_client");
        assert_eq!(said(b"<html>"), "");
        assert_eq!(said(json!({"message": "x".repeat(500)}).to_string().as_bytes()).chars().count(), 200);
    }
}
