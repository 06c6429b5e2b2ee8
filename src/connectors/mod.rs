//! The code that speaks to outside services: the contract each connector keeps, and the one table that lists them.
//!
//! A connector sends *one* request per attempt (plus the reads it needs to be idempotent), classifies what came back as
//! an [`Outcome`] and returns. It never waits, never repeats, never touches the store. What it must not do: report
//! `Transient` or `Permanent` when the changing request may have arrived — that is `Unknown`.

pub mod okta_app;
pub mod okta_group;
mod okta_params;
pub mod okta_session;

use async_trait::async_trait;
use serde_json::Value;

use crate::model::action::InDoubt;
use crate::model::escape::Escape;
use crate::model::ids::IdempotencyKey;
use crate::model::outcome::{Outcome, Verdict};

/// One action of the catalogue, ready to be performed against its service.
#[async_trait]
pub trait Connector: Send + Sync {
    /// Sends the request of one attempt. The attempt row is committed before this is called.
    async fn perform(&self, call: &Call) -> Outcome;

    /// Reads the target back after an attempt whose outcome is unknown. Changes nothing.
    async fn verify(&self, call: &Call) -> Verdict;
}

/// What one attempt is about.
#[derive(Debug, Clone)]
pub struct Call {
    /// Travels to the service wherever the service has a place for it.
    pub key: IdempotencyKey,
    /// The rendered parameters of the step; they have passed [`ActionKind::check`] with their real values.
    pub params: Value,
    /// 1 for the first attempt.
    pub attempt: u32,
}

/// What a crash between request and record means for an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// A state is set: it can be read back, and setting it twice is the same as once.
    SetLike,
    /// Something is made under our idempotency key, which can be looked up.
    Keyed,
    /// A message: nothing to look up.
    Message,
}

impl Effect {
    /// The default of a step's `in_doubt`.
    pub fn default_in_doubt(self) -> InDoubt {
        match self {
            Self::Message => InDoubt::Skip,
            Self::SetLike | Self::Keyed => InDoubt::Ask,
        }
    }
}

/// The service an action needs, which is the configuration section that must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// `[okta]`.
    Okta,
    /// `[servicenow]`.
    ServiceNow,
    /// `[slack]`.
    Slack,
    /// `[email]`.
    Email,
}

impl Service {
    /// The name of its section in the configuration.
    pub fn section(self) -> &'static str {
        match self {
            Self::Okta => "okta",
            Self::ServiceNow => "servicenow",
            Self::Slack => "slack",
            Self::Email => "email",
        }
    }
}

/// A parameter that is filled from the event when the step leaves it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromEvent {
    /// The id of the affected user.
    UserId,
    /// The id of the target of type `AppInstance`.
    AppId,
}

/// The pure description of one action: everything that planning and checking need to know, without a service.
pub struct ActionKind {
    /// `connector.noun.verb`.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// The service it needs.
    pub service: Service,
    /// What a crash leaves.
    pub effect: Effect,
    /// Whether it changes a person's access; such actions are counted and refused by the guard.
    pub changes_access: bool,
    /// Whether Okta answers it by lowering the user's risk, so that the fall that follows is an echo of ours.
    pub resets_risk: bool,
    /// Parameters filled from the event when absent.
    pub from_event: &'static [(&'static str, FromEvent)],
    /// Parses the parameters into the action's typed struct: unknown keys, missing keys and wrong types are errors. It is
    /// called with unrendered templates by `check` (strings may hold anything then) and with final values before use.
    pub check: fn(&Value) -> Result<(), String>,
    /// How values interpolated into the parameter of this name are escaped.
    pub escape: fn(&str) -> Escape,
    /// The lane: the one thing it changes, from final parameters. `None` for what has no order (tickets, messages).
    pub lane: fn(&Value) -> Option<String>,
}

impl std::fmt::Debug for ActionKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ActionKind").field("name", &self.name).finish_non_exhaustive()
    }
}
