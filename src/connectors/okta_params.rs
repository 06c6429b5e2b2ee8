//! What Okta's actions have in common: their parameters, and the words in which they speak of users and groups.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::model::outcome::{Failure, GroupNote, Outcome, Reason, Receipt};
use crate::okta::OktaClient;
use crate::okta::groups::GroupRef;

/// The most groups or devices that one sentence names.
const MOST_NAMED: usize = 8;

/// Reads an action's typed parameters.
pub(super) fn parse<T: DeserializeOwned>(params: &Value) -> Result<T, String> {
    T::deserialize(params).map_err(|error| error.to_string())
}

/// The same when the action is performed.
pub(super) fn parsed<T: DeserializeOwned>(params: &Value) -> Result<T, Outcome> {
    parse(params).map_err(|error| Outcome::Permanent(Failure::new(Reason::BadParameters, error)))
}

/// An id or a name: not empty, and not `me`, which Okta reads as whoever the token belongs to.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub(super) struct Name(pub(super) String);

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.trim() {
            "" => Err("an id or a name is empty"),
            "me" => Err("`me` is no id: Okta reads it as the owner of the token"),
            name => Ok(Self(name.to_owned())),
        }
    }
}

/// What becomes of memberships that a group rule made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RuleManaged {
    /// They are left as they are, and told.
    #[default]
    Report,
    /// They are removed, and the user is on the rule's list of exclusions until an administrator takes him off.
    Remove,
}

/// A user who is to be changed does not exist.
pub(super) fn no_such_user(user: &str) -> Outcome {
    Outcome::Permanent(Failure::new(Reason::NotFound, format!("there is no user `{user}` in Okta")))
}

/// What the guard protects was found on the way. `earlier` is what attempts before this one recorded.
pub(super) fn protected(why: String, earlier: &Receipt) -> Outcome {
    Outcome::Permanent(Failure::new(Reason::Protected, format!("{why}; {}", unchanged(earlier))))
}

/// How far an action has come that ends without its last request.
pub(super) fn unchanged(earlier: &Receipt) -> String {
    match &earlier.note {
        None => "nothing was changed".to_owned(),
        Some(note) => format!("what was done before stays so: {note}"),
    }
}

/// A receipt that leads to the user's page in the admin console.
pub(super) fn user_receipt(okta: &OktaClient, user: &str, note: impl Into<String>) -> Receipt {
    Receipt {
        id: Some(user.to_owned()),
        url: okta.admin_link(["admin", "user", "profile", "view", user]),
        ..Receipt::note(note)
    }
}

/// A group as a sentence names it.
pub(super) fn named(name: &str, id: &str) -> String {
    let name: String = name.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("`{name}` ({id})")
}

/// Some of many, named, and how many more there are.
pub(super) fn listing(names: impl IntoIterator<Item = String>) -> String {
    let mut names: Vec<String> = names.into_iter().collect();
    let more = names.len().saturating_sub(MOST_NAMED);
    names.truncate(MOST_NAMED);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    names.join(", ")
}

/// What is remembered of a group.
pub(super) fn remembered(group: &GroupRef) -> GroupNote {
    GroupNote { id: group.id.clone(), name: group.name.chars().take(255).collect(), refused: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_names_some_of_many() {
        assert_eq!(listing([]), "");
        assert_eq!(listing(["a".to_owned(), "b".to_owned()]), "a, b");
        let many = (0..10).map(|number| number.to_string());
        assert_eq!(listing(many), "0, 1, 2, 3, 4, 5, 6, 7, 2 more");
        assert_eq!(named("A\nB", "00g1"), "`A B` (00g1)");
    }
}
