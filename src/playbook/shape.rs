//! What stands behind the names of conditions and templates, so that a field that never exists is found before any event.

use serde_json::{Value, json};

use super::CompileError;
use super::facts::{Facts, cut};
use crate::model::risk::RiskLevel;
use crate::model::similar::closest;

/// The fields of a record, by name.
pub type Fields = &'static [(&'static str, Shape)];

/// Every word that a level can be.
const LEVELS: [RiskLevel; 4] = [RiskLevel::Low, RiskLevel::Medium, RiskLevel::High, RiskLevel::Unknown];

/// What a text says in place of what could not be had.
const NOT_KNOWN: &str = "(not known: Okta could not be asked)";

/// What a value looks like, whatever the event. Texts, numbers, flags and records may be null as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Okta's to decide; nothing is known about it before.
    Open,
    /// A text.
    Text,
    /// A number.
    Number,
    /// True or false.
    Flag,
    /// The word of a [`RiskLevel`], never null.
    Level,
    /// A list of texts.
    List,
    /// An object with exactly these fields.
    Record(Fields),
    /// An object whose every value has these fields.
    Each(Fields),
}

impl Shape {
    /// A value of this shape with every field filled; `None` where only an event can tell.
    pub(super) fn sample(self) -> Option<Value> {
        match self {
            Self::Open | Self::Each(_) => None,
            Self::Text => Some(json!("text")),
            Self::Number => Some(json!(200)),
            Self::Flag => Some(json!(true)),
            Self::Level => Some(json!(RiskLevel::Low.as_str())),
            Self::List => Some(json!(["text"])),
            Self::Record(fields) => {
                Some(fields.iter().filter_map(|(name, shape)| Some(((*name).to_owned(), shape.sample()?))).collect())
            }
        }
    }

    /// What stands for a value of this shape that could not be had, in a text for people.
    pub(super) fn not_known(self) -> Value {
        match self {
            Self::Open | Self::Each(_) => json!({}),
            Self::Text => json!(NOT_KNOWN),
            Self::Number | Self::Flag => Value::Null,
            Self::Level => json!(RiskLevel::Unknown.as_str()),
            Self::List => json!([NOT_KNOWN]),
            Self::Record(fields) => {
                fields.iter().map(|(name, shape)| ((*name).to_owned(), shape.not_known())).collect()
            }
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Number => "a number",
            Self::Flag => "true or false",
            Self::Level => "a level",
            Self::List => "a list",
            Self::Open | Self::Record(_) | Self::Each(_) => "an object",
        }
    }
}

/// A value as the operator wrote the way to it, and what is known about it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    path: String,
    shape: Shape,
}

impl Place {
    /// What a name stands for; `None` for a name that nothing fills.
    pub(super) fn of(name: &str) -> Option<Self> {
        Facts::shape(name).map(|shape| Self { path: name.to_owned(), shape })
    }

    /// What stands in a field of it. A field that never exists is refused also where the text provides for its absence
    /// (`has(…)`, `default`): such a text would take the other way forever.
    pub(super) fn field(&self, name: &str) -> Result<Self, CompileError> {
        let found = match self.shape {
            Shape::Open => Some(Shape::Open),
            Shape::Each(fields) => Some(Shape::Record(fields)),
            Shape::Record(fields) => fields.iter().find(|(known, _)| *known == name).map(|(_, shape)| *shape),
            Shape::Text | Shape::Number | Shape::Flag | Shape::Level | Shape::List => None,
        };
        match found {
            Some(shape) => Ok(Self { path: format!("{}.{}", self.path, cut(name, 100)), shape }),
            None => Err(self.no_field(name)),
        }
    }

    /// Refuses a literal that this is compared with and never equals; `None` is a literal that isn't text.
    pub(super) fn check_literal(&self, literal: Option<&str>) -> Result<(), CompileError> {
        let words = LEVELS.map(RiskLevel::as_str);
        if self.shape != Shape::Level || literal.is_some_and(|literal| words.contains(&literal)) {
            return Ok(());
        }
        let message = match literal {
            Some(literal) => format!("`{}` is never \"{}\"", self.path, cut(literal, 100)),
            None => format!("`{}` is compared with something that is not a text", self.path),
        };
        let meant = closest(&literal.unwrap_or_default().to_ascii_uppercase(), words);
        Err(CompileError::new(message, suggestion(meant, &format!("a level is {}", words.join(", ")))))
    }

    fn no_field(&self, name: &str) -> CompileError {
        let message = format!("there is no field `{}.{}`", self.path, cut(name, 100));
        match self.shape {
            Shape::Record(fields) => {
                let names = || fields.iter().map(|(name, _)| *name);
                let listed = format!("the fields of `{}` are {}", self.path, names().collect::<Vec<_>>().join(", "));
                CompileError::new(message, suggestion(closest(name, names()), &listed))
            }
            other => CompileError::new(message, format!("`{}` is {} and has no fields", self.path, other.noun())),
        }
    }
}

fn suggestion(meant: Option<&str>, listed: &str) -> String {
    match meant {
        Some(meant) => format!("did you mean `{meant}`? {listed}"),
        None => listed.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> Result<Place, CompileError> {
        let mut parts = path.split('.');
        parts.try_fold(Place::of(parts.clone().next().unwrap()).unwrap(), |place, part| {
            if place.path == part { Ok(place) } else { place.field(part) }
        })
    }

    #[track_caller]
    fn check(path: &str, expected: &str) {
        let error = place(path).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
    }

    #[test]
    fn a_field_that_never_exists_is_answered_with_those_that_do() {
        check(
            "target.logn",
            "there is no field `target.logn`; did you mean `login`? the fields of `target` are id, login, name",
        );
        check("risk.weather", "there is no field `risk.weather`; the fields of `risk` are level, previous_level,");
        check("steps.quarantine.stat", "there is no field `steps.quarantine.stat`; did you mean `state`?");
        check("user_risk.level", "there is no field `user_risk.level`; `user_risk` is a level and has no fields");
        check("user.name.first", "there is no field `user.name.first`; `user.name` is a text and has no fields");
    }

    #[test]
    fn what_okta_decides_is_open() {
        for path in
            ["event.weather.sun", "user.profile.costCenter", "manager.profile.a.b", "sign_in.behaviors.Velocity"]
        {
            assert_eq!(place(path).unwrap().shape, Shape::Open, "{path}");
        }
    }

    #[test]
    fn a_level_is_compared_with_levels_only() {
        let level = place("risk.previous_level").unwrap();
        for word in LEVELS {
            level.check_literal(Some(word.as_str())).unwrap();
        }
        for (literal, expected) in [
            (
                Some("High"),
                "`risk.previous_level` is never \"High\"; did you mean `HIGH`? a level is LOW, MEDIUM, HIGH, UNKNOWN",
            ),
            (Some("Mid"), "`risk.previous_level` is never \"Mid\"; a level is LOW"),
            (None, "`risk.previous_level` is compared with something that is not a text; a level is LOW"),
        ] {
            let error = level.check_literal(literal).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        place("target.name").unwrap().check_literal(Some("High")).unwrap();
    }

    #[test]
    fn a_sample_has_every_field_whose_form_is_known() {
        assert_eq!(Shape::Open.sample(), None);
        assert_eq!(Shape::Each(&[("a", Shape::Text)]).sample(), None);
        let fields: Fields = &[
            ("text", Shape::Text),
            ("flag", Shape::Flag),
            ("level", Shape::Level),
            ("list", Shape::List),
            ("open", Shape::Open),
            ("inner", Shape::Record(&[("text", Shape::Text)])),
        ];
        assert_eq!(
            Shape::Record(fields).sample(),
            Some(json!({"text": "text", "flag": true, "level": "LOW", "list": ["text"], "inner": {"text": "text"}}))
        );
    }

    #[test]
    fn what_has_no_fields_is_called_by_its_kind() {
        check("groups.first", "there is no field `groups.first`; `groups` is a list and has no fields");
        check("sign_in.proxy.x", "there is no field `sign_in.proxy.x`; `sign_in.proxy` is true or false and has");
        assert_eq!([Shape::Open, Shape::Record(&[]), Shape::Each(&[])].map(Shape::noun), ["an object"; 3]);
        assert!(Place::of("weather").is_none());
    }
}
