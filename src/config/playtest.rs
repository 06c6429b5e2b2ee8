//! `[[test]]`: what a playbook is meant to do for an event, written beside it.
//!
//! The daemon reads the shape of tests with the rest of the file, and does nothing with them: a test that cannot be run
//! keeps nobody from his work. `check` and `test` look at their meaning ([`compile`]).

mod compile;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::duration;
use crate::model::risk::RiskLevel;
use crate::playbook::given::GivenStep;

pub(crate) use compile::parts;
pub use compile::{Expected, Playtest, compile};

/// `[[test]]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestConfig {
    /// Unique; says what is expected.
    pub name: String,
    /// Only this playbook is asked. Default: every one.
    pub playbook: Option<String>,
    /// The event as Okta sends it. `eventType` is enough; what else every event has is filled in.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub event: Option<toml::Table>,
    /// A file with the event as JSON, from where this file lies. Either this or `event`.
    pub event_file: Option<PathBuf>,
    /// How long after the event it is decided. Default: at once.
    #[serde(default, deserialize_with = "duration::optional")]
    pub decided_after: Option<Duration>,
    /// Whether the guard of this configuration has its say: protected identities, observe mode, `max_event_age`.
    #[serde(default = "yes")]
    pub guard: bool,
    /// What Okta would answer. A fact that is not given and is needed fails the test.
    #[serde(default)]
    pub facts: TestFacts,
    /// What Okta would answer when a delay ends, and how steps ended by then. Given, every `cancel_if` is asked; else what has
    /// a delay is taken to be done.
    pub later: Option<TestFacts>,
    /// The steps that are called for, and no others; `[]` for none.
    pub expect: Option<Vec<ExpectConfig>>,
    /// Whether other steps than those in `expect` may be called for.
    #[serde(default)]
    pub others: bool,
    /// Steps that must not happen, whatever else does.
    #[serde(default)]
    pub not: Vec<String>,
}

/// `test.facts`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestFacts {
    /// The affected user. `id`, `login` and `name` are the event's where they are left out.
    pub user: Option<PersonFacts>,
    /// His manager; an empty table says that he has none.
    pub manager: Option<PersonFacts>,
    /// The names of his groups.
    pub groups: Option<Vec<String>>,
    /// `LOW`, `MEDIUM`, `HIGH` or `UNKNOWN`.
    pub user_risk: Option<UserRisk>,
    /// What conditions ask of the past, as they ask it: `{ 'count("user.session.start", "1h")' = 3 }`. What a condition asks
    /// and is not given fails the test.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub past: Option<toml::Table>,
    /// How steps ended, by name. Steps that are not told of are taken to succeed.
    #[serde(default)]
    pub steps: BTreeMap<String, GivenStep>,
}

/// `test.facts.user` and `test.facts.manager`: what is left out is null, as where Okta knows nothing.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PersonFacts {
    /// Okta's id.
    pub id: Option<String>,
    /// The login.
    pub login: Option<String>,
    /// The address.
    pub email: Option<String>,
    /// The first name.
    pub first_name: Option<String>,
    /// The last name.
    pub last_name: Option<String>,
    /// The name people know. Default: first and last name.
    pub name: Option<String>,
    /// The phone.
    pub mobile_phone: Option<String>,
    /// Such as `SUSPENDED`. Default: `ACTIVE`.
    pub status: Option<String>,
    /// The profile's `managerId`.
    pub manager_id: Option<String>,
    /// The whole profile.
    #[serde(default)]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub profile: toml::Table,
}

/// The words of [`RiskLevel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum UserRisk {
    /// Low.
    Low,
    /// Medium.
    Medium,
    /// High.
    High,
    /// Nobody knows.
    Unknown,
}

impl From<UserRisk> for RiskLevel {
    fn from(risk: UserRisk) -> Self {
        match risk {
            UserRisk::Low => Self::Low,
            UserRisk::Medium => Self::Medium,
            UserRisk::High => Self::High,
            UserRisk::Unknown => Self::Unknown,
        }
    }
}

/// `test.expect`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectConfig {
    /// The playbook, where several have a step of this name.
    pub playbook: Option<String>,
    /// The step.
    pub step: String,
    /// What it does, `connector.noun.verb`.
    pub action: Option<String>,
    /// What becomes of it. Default: it is called for, whether it runs, awaits approval or is only observed.
    pub state: Option<ExpectedState>,
    /// Some of its final parameters. `{ contains = "…" }` takes a part of a text, or a list of parts.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub with: Option<toml::Table>,
    /// All of its final parameters, those that the event fills in among them.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub with_exactly: Option<toml::Table>,
    /// How much later it is done; `"0s"` for at once.
    #[serde(default, deserialize_with = "duration::optional")]
    pub delay: Option<Duration>,
    /// A part of the reason why it is refused, skipped or failed.
    pub why: Option<String>,
}

/// What is expected to become of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExpectedState {
    /// It runs without a person.
    Run,
    /// It awaits approval.
    Approval,
    /// It is recorded only: observe mode.
    Observed,
    /// Its `cancel_if` is true when its delay ends.
    Cancelled,
    /// The guard says no.
    Refused,
    /// Its condition, or that of its playbook, is false, or a step that it needs does not succeed.
    Skipped,
    /// Its condition gives no answer, or its parameters cannot be filled in.
    Failed,
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests;
