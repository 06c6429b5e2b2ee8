//! An incident on its way to ServiceNow and back: the parameters of a step, what is sent, and what is asked of a record.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::contains_ignoring_case;
use crate::connectors::{cut, required};
use crate::model::ids::IdempotencyKey;

/// The longest `correlation_id` (the field's own limit).
const MAX_CORRELATION: usize = 100;
/// The longest `short_description` (the field's own limit).
pub(super) const MAX_SHORT_DESCRIPTION: usize = 160;
/// The longest other text (the limit of `description`).
pub(super) const MAX_TEXT: usize = 4000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct IncidentParams {
    short_description: Word,
    description: Option<Word>,
    urgency: Option<Word>,
    impact: Option<Word>,
    category: Option<Word>,
    subcategory: Option<Word>,
    /// A `sys_id` of `sys_user`.
    caller: Option<Word>,
    /// A `sys_id` of `sys_user_group`.
    assignment_group: Option<Word>,
    work_notes: Option<Word>,
    /// Events with the same correlation share one incident as long as it is open.
    pub(super) correlation: Option<Word>,
    #[serde(default)]
    fields: BTreeMap<String, Word>,
}

impl IncidentParams {
    /// Reads the shape; values that only matter when they are final are looked at by [`NewIncident::new`].
    pub(super) fn parse(params: &Value) -> Result<Self, String> {
        let params = Self::deserialize(params).map_err(|error| error.to_string())?;
        required("short_description", &params.short_description.0)?;
        check_fields(&params.fields, &NAMED_FIELDS)?;
        Ok(params)
    }
}

/// Refuses further fields that are none, that a step may not set, or that have parameters of their own.
pub(super) fn check_fields(fields: &BTreeMap<String, Word>, named: &[&str]) -> Result<(), String> {
    for field in fields.keys() {
        if field.is_empty() || !field.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            return Err(format!("`fields.{field}` is not the name of a field"));
        }
        if field.starts_with("sys_") || field.starts_with("correlation_") {
            return Err(format!("`fields.{field}` is kept by ServiceNow or by this daemon and cannot be set"));
        }
        if named.contains(&field.as_str()) {
            return Err(format!("`fields.{field}` has a parameter of its own; use that"));
        }
    }
    Ok(())
}

/// The fields that have parameters of their own.
pub(super) const NAMED_FIELDS: [&str; 9] = [
    "short_description",
    "description",
    "urgency",
    "impact",
    "category",
    "subcategory",
    "caller_id",
    "assignment_group",
    "work_notes",
];

/// A string, or a whole number that stands for one, as in `urgency = 1`.
#[derive(Debug)]
pub(super) struct Word(pub(super) String);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Word;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a whole number")
            }

            fn visit_str<E>(self, text: &str) -> Result<Word, E> {
                Ok(Word(text.to_owned()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Word {
    fn schema_name() -> Cow<'static, str> {
        "Word".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"] })
    }
}

/// An incident as it is sent.
pub(super) struct NewIncident {
    pub(super) body: Value,
    /// The field that holds the idempotency key: it alone says whether *this* action's request arrived.
    pub(super) own_field: &'static str,
    /// The correlation that other events share, if the step names one.
    pub(super) shared: Option<String>,
    /// What must come back unchanged.
    echoed: Vec<(&'static str, String)>,
}

impl NewIncident {
    pub(super) fn new(params: IncidentParams, key: &IdempotencyKey) -> Result<Self, String> {
        let shared = params.correlation.map(|correlation| correlation_id(&correlation.0)).transpose()?;
        let echoed = match &shared {
            None => vec![("correlation_id", key.as_str().to_owned())],
            Some(shared) => {
                vec![("correlation_id", shared.clone()), ("correlation_display", key.as_str().to_owned())]
            }
        };

        let mut body = Map::new();
        let mut set = |field: &str, word: Option<Word>, most: usize| {
            let text = word.map(|Word(text)| cut(&without_code_tags(&text), most)).unwrap_or_default();
            if !text.trim().is_empty() {
                body.insert(field.to_owned(), Value::String(text));
            }
        };
        for (field, word) in params.fields {
            set(&field, Some(word), MAX_TEXT);
        }
        set("short_description", Some(params.short_description), MAX_SHORT_DESCRIPTION);
        set("description", params.description, MAX_TEXT);
        set("urgency", params.urgency, MAX_TEXT);
        set("impact", params.impact, MAX_TEXT);
        set("category", params.category, MAX_TEXT);
        set("subcategory", params.subcategory, MAX_TEXT);
        set("caller_id", params.caller, MAX_TEXT);
        set("assignment_group", params.assignment_group, MAX_TEXT);
        set("work_notes", params.work_notes, MAX_TEXT);
        if !body.contains_key("short_description") {
            return Err("`short_description` is empty".to_owned());
        }
        body.insert("correlation_display".to_owned(), json!(key.as_str()));
        body.insert("correlation_id".to_owned(), json!(shared.as_deref().unwrap_or(key.as_str())));

        let own_field = if shared.is_some() { "correlation_display" } else { "correlation_id" };
        Ok(Self { body: Value::Object(body), own_field, shared, echoed })
    }

    /// The first field that did not come back as it was sent.
    pub(super) fn first_difference(&self, row: &Incident) -> Option<&'static str> {
        self.echoed.iter().find(|(field, sent)| row.field(field) != sent).map(|(field, _)| *field)
    }
}

/// Checks an operator's correlation, part of which comes from events. It stands in a query, where `^` begins another
/// condition and `javascript:` is run by the instance (ServiceNow, encoded query strings).
pub(super) fn correlation_id(text: &str) -> Result<String, String> {
    let text = text.trim();
    required("correlation", text)?;
    if text.chars().count() > MAX_CORRELATION {
        return Err(format!("`correlation` is longer than {MAX_CORRELATION} characters"));
    }
    if text.chars().any(|c| c == '^' || c.is_control()) {
        return Err("`correlation` holds `^` or a control character, which would change the query".to_owned());
    }
    if contains_ignoring_case(text.as_bytes(), b"javascript:") {
        return Err("`correlation` holds `javascript:`, which ServiceNow would run".to_owned());
    }
    Ok(text.to_owned())
}

/// Journal fields show what stands between `[code]` and `[/code]` as HTML; event text must not.
pub(super) fn without_code_tags(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('[') {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let opens = |name: &str| tag.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        out.push_str(if opens("[code]") || opens("[/code]") { "[ " } else { "[" });
        rest = tag.strip_prefix('[').unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// What is asked of a record. The Table API gives every value as a string, and leaves out what the account may not read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Incident {
    #[serde(deserialize_with = "sys_id")]
    pub(super) sys_id: String,
    pub(super) number: String,
    state: String,
    active: String,
    correlation_id: String,
    correlation_display: String,
}

impl Incident {
    /// The fields that are asked for.
    pub(super) const FIELDS: &str = "sys_id,number,state,active,correlation_id,correlation_display";

    pub(super) fn field(&self, name: &str) -> &str {
        if name == "correlation_display" { &self.correlation_display } else { &self.correlation_id }
    }

    /// Whether people still work on it: 6, 7 and 8 are resolved, closed and cancelled, and `active` is false for closed
    /// records of every table.
    pub(super) fn is_open(&self) -> bool {
        self.active != "false" && !matches!(self.state.as_str(), "6" | "7" | "8")
    }

    /// Whether nobody works on it any more, or it is in the state that was asked for.
    pub(super) fn has_ended(&self, state: &str) -> bool {
        !self.is_open() || self.state == state
    }

    /// What people call it.
    pub(super) fn name(&self) -> String {
        let name = if self.number.is_empty() { &self.sys_id } else { &self.number };
        format!("incident {}", cut(name, 64))
    }
}

/// A `sys_id` goes into a URL, so anything that is none counts as missing.
fn sys_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let fits = text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric());
    Ok(if fits { text } else { String::new() })
}
