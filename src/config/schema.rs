//! The JSON Schema of the configuration, for editors.
//!
//! It is made of the types that the configuration is read into: their doc comments are what an editor shows. It sees less
//! than `check` does (no condition, no template, no name that has to be somewhere), but nothing that it refuses is right.

use std::borrow::Cow;
use std::time::Duration;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::Config;
use super::load::Playbooks;
use super::values::{Expiry, Interval, Limit, StartFrom};
use crate::connectors::{self, ActionKind};

/// Durations as humantime reads them.
const DURATION: &str = "^\\s*([0-9]+(\\.[0-9]+)?\\s*(nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds|second|secs|sec|s|minutes|minute|\
                        mins|min|m|hours|hour|hrs|hr|h|days|day|d|weeks|week|wks|wk|w|months|month|M|years|year|yrs|yr|y)\\s*)+$";

/// Moments with their zone.
const MOMENT: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ].+$";

/// The schema of the configuration file.
pub fn of_configuration() -> Value {
    document::<Config>("okta-responder")
}

/// The schema of a file in `playbooks.d`.
pub fn of_playbooks() -> Value {
    document::<Playbooks>("okta-responder playbooks")
}

fn document<T: JsonSchema>(title: &str) -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let actions: Vec<_> = connectors::catalogue().into_iter().map(|kind| Action::new(kind, &mut generator)).collect();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    let mut put = |pointer: &str, value: Value| {
        if let Some(place) = schema.pointer_mut(pointer) {
            merge(place, value);
        }
    };
    // Every duration of the configuration is read by `duration`, which the derived schema does not know.
    put("/$defs/Duration", json!({"type": "string", "pattern": DURATION, "required": null, "properties": null}));
    put("/$defs/StepConfig", json!({"allOf": actions.iter().map(Action::of_step).collect::<Value>()}));
    put("/$defs/StepConfig/properties/action", names(&actions, |_| true));
    put("/$defs/ExpectConfig/properties/action", names(&actions, |_| true));
    let tells = |action: &Action| !action.kind.changes_access;
    let telling = actions.iter().filter(|action| tells(action));
    put("/$defs/AlarmConfig", json!({"allOf": telling.map(Action::of_alarm).collect::<Value>()}));
    put("/$defs/AlarmConfig/properties/action", names(&actions, tells));
    put("", json!({"title": title}));
    as_written(&mut schema);
    schema
}

/// An action and the shape of its parameters.
struct Action {
    kind: &'static ActionKind,
    params: Value,
}

impl Action {
    fn new(kind: &'static ActionKind, generator: &mut SchemaGenerator) -> Self {
        let mut params = (kind.schema)(generator).to_value();
        if let Some(required) = params.get_mut("required").and_then(Value::as_array_mut) {
            required.retain(|name| !kind.from_event.iter().any(|(filled, _)| name == filled));
        }
        merge(&mut params, json!({"title": null, "description": kind.summary}));
        Self { kind, params }
    }

    fn of_step(&self) -> Value {
        let required = self.params.get("required").and_then(Value::as_array).is_some_and(|names| !names.is_empty());
        let mut then = json!({"properties": {"with": self.params}});
        if required {
            merge(&mut then, json!({"required": ["with"]}));
        }
        self.when(then)
    }

    /// The guard fills in what its message leaves out.
    fn of_alarm(&self) -> Value {
        let mut params = self.params.clone();
        merge(&mut params, json!({"required": null}));
        self.when(json!({"properties": {"with": params}}))
    }

    fn when(&self, then: Value) -> Value {
        json!({"if": {"properties": {"action": {"const": self.kind.name}}, "required": ["action"]}, "then": then})
    }
}

fn names(actions: &[Action], wanted: impl Fn(&Action) -> bool) -> Value {
    let name = |action: &Action| json!({"const": action.kind.name, "description": action.kind.summary});
    json!({"oneOf": actions.iter().filter(|action| wanted(action)).map(name).collect::<Value>()})
}

/// Puts the keys of an object into a schema; null takes one out.
fn merge(place: &mut Value, value: Value) {
    let (Value::Object(place), Value::Object(value)) = (place, value) else { return };
    for (key, value) in value {
        match value {
            Value::Null => drop(place.remove(&key)),
            value => drop(place.insert(key, value)),
        }
    }
}

/// Speaks of values as they stand in the file. TOML has no null, so what may be left out is left out; durations are texts;
/// and doc comments lose what only Rust's own documentation understands.
fn as_written(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(as_written),
        Value::Object(object) => {
            object.values_mut().for_each(as_written);
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            one_of_any(object);
            match object.get_mut("default") {
                Some(Value::Null) => drop(object.remove("default")),
                Some(default) => durations(default),
                None => {}
            }
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = text.replace("[`", "`").replace("`]", "`").replace('\n', " ");
            }
        }
        _ => {}
    }
}

/// Writes the durations in a default value as humantime reads them.
fn durations(value: &mut Value) {
    let part = |key: &str| value.get(key).and_then(Value::as_u64);
    match (part("secs"), part("nanos")) {
        (Some(secs), Some(nanos)) => {
            let duration = Duration::from_secs(secs) + Duration::from_nanos(nanos);
            *value = json!(humantime::format_duration(duration).to_string());
        }
        _ => {
            if let Value::Object(object) = value {
                object.retain(|_, value| !value.is_null());
                object.values_mut().for_each(durations);
            }
        }
    }
}

/// `anyOf` with null and one other is that other.
fn one_of_any(object: &mut Map<String, Value>) {
    let Some(Value::Array(any)) = object.get_mut("anyOf") else { return };
    any.retain(|schema| schema.get("type").is_none_or(|kind| kind != "null"));
    if let [Value::Object(only)] = any.as_slice() {
        let only = only.clone();
        object.remove("anyOf");
        for (key, value) in only {
            object.entry(key).or_insert(value);
        }
    }
}

impl JsonSchema for StartFrom {
    fn schema_name() -> Cow<'static, str> {
        "StartFrom".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        text_or(&["now"], &[MOMENT, DURATION])
    }
}

impl JsonSchema for Interval {
    fn schema_name() -> Cow<'static, str> {
        "Interval".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        text_or(&["auto"], &[DURATION])
    }
}

impl JsonSchema for Expiry {
    fn schema_name() -> Cow<'static, str> {
        "Expiry".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        text_or(&["never"], &[DURATION])
    }
}

impl JsonSchema for Limit {
    fn schema_name() -> Cow<'static, str> {
        "Limit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "integer", "minimum": 0, "maximum": u32::MAX}, {"const": "unlimited"}]})
    }
}

/// A text that is one of these words, or looks like one of these.
fn text_or(words: &[&str], patterns: &[&str]) -> Schema {
    let mut ways: Vec<Value> = words.iter().map(|word| json!({"const": word})).collect();
    ways.extend(patterns.iter().map(|pattern| json!({"type": "string", "pattern": pattern})));
    json_schema!({"anyOf": ways})
}

#[cfg(test)]
mod tests;
