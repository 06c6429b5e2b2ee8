//! What undoes an action: each says it itself, purely, from what it was asked and what it has recorded.
//!
//! Only what *we* changed is undone. What was so before stays, and where nothing undoes an action its answer says so, with
//! what a person can do. Whether the world is still as the action left it is not asked here: every action reads its target
//! before it changes it, those that undo as well.

use serde_json::{Value, json};

use crate::model::ids::{IdempotencyKey, RunId};
use crate::model::outcome::{GroupNote, Receipt};

/// What ServiceNow is told to have closed a ticket with when nobody says otherwise: a choice of a delivered instance.
pub const CLOSE_CODE: &str = "No resolution provided";

/// An action that has changed something, for whoever wants it undone.
#[derive(Debug, Clone, Copy)]
pub struct Deed<'a> {
    /// Its run.
    pub run: RunId,
    /// Its idempotency key.
    pub key: &'a IdempotencyKey,
    /// Its final parameters.
    pub params: &'a Value,
    /// What it recorded.
    pub receipt: &'a Receipt,
    /// Whether one of its attempts ended without our knowing how, so that what it recorded may miss a part.
    pub interrupted: bool,
    /// What a ticket is closed with.
    pub close_code: &'a str,
}

impl Deed<'_> {
    /// A parameter that is a text.
    pub(super) fn text(&self, name: &str) -> &str {
        self.params.get(name).and_then(Value::as_str).unwrap_or_default().trim()
    }

    /// How the target stood before, by the action's own name.
    pub(super) fn before(&self, name: &str) -> Option<&str> {
        self.receipt.before.get(name).map(String::as_str)
    }

    /// This action with these parameters and the user of this one.
    pub(super) fn remedy(&self, action: &'static str, mut params: Value) -> Remedy {
        if let Value::Object(params) = &mut params {
            params.insert("user".to_owned(), json!(self.text("user")));
        }
        Remedy::new(action, params)
    }
}

/// The answer of an action that is to be undone.
#[derive(Debug, Clone, PartialEq)]
pub enum Inverse {
    /// These actions, one after the other.
    Actions(Vec<Remedy>),
    /// Nothing undoes it; a sentence that says what stays and what a person can do.
    Impossible(String),
}

impl Inverse {
    /// [`Inverse::Impossible`] with this sentence.
    pub(crate) fn impossible(why: &str) -> Self {
        Self::Impossible(why.to_owned())
    }
}

impl From<Remedy> for Inverse {
    fn from(remedy: Remedy) -> Self {
        Self::Actions(vec![remedy])
    }
}

/// An action that undoes another one, or a part of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Remedy {
    /// `connector.noun.verb`
    pub action: &'static str,
    /// Final parameters.
    pub params: Value,
    /// Groups that it remembers from the beginning, as [`Receipt::groups`].
    pub groups: Vec<GroupNote>,
    /// What a person should know before he lets it be done.
    pub warning: Option<String>,
}

impl Remedy {
    pub(super) fn new(action: &'static str, params: Value) -> Self {
        Self { action, params, groups: Vec::new(), warning: None }
    }

    pub(super) fn warned(self, warning: &str) -> Self {
        Self { warning: Some(warning.to_owned()), ..self }
    }
}

#[cfg(test)]
mod tests;
