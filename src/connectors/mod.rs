//! The code that speaks to outside services: the contract each connector keeps, and the one table that lists them.
//!
//! A connector sends *one* request per attempt (plus the reads it needs to be idempotent), classifies what came back as
//! an [`Outcome`] and returns. It never waits, never repeats, never touches the store. What it must not do: report
//! `Transient` or `Permanent` when the changing request may have arrived — that is `Unknown`.
//!
//! An action that needs several requests keeps to this: each attempt reads where the target stands, sends the next request
//! that is missing and reports [`Outcome::Progress`] until none is. So every request has its own attempt row and its own
//! word of the guard, a pause or a protection that comes in between is heeded, and after a crash the rest is done. Such an
//! action is counted once, whatever its number of requests. Groups and devices that are found only on the way are shown to
//! the guard before they are touched ([`Cleared::protects`]).

#[cfg(test)]
mod contract;
mod email;
mod http_request;
pub mod inverse;
mod jira;
mod okta_app;
mod okta_assign;
mod okta_device;
mod okta_group;
mod okta_groups;
mod okta_move;
mod okta_params;
mod okta_review;
mod okta_risk;
mod okta_session;
mod okta_user;
mod pagerduty;
pub mod probe;
#[cfg(test)]
mod rotation;
mod secret;
mod servicenow;
mod slack;
#[cfg(test)]
mod stage;
mod teams;
mod webhook;
mod wire;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;
use thiserror::Error;
use url::Url;

use crate::config::Config;
use crate::config::secret::LiveSecret;
use crate::guard::Cleared;
use crate::http::{self, Network};
use crate::model::action::InDoubt;
use crate::model::escape::Escape;
use crate::model::ids::IdempotencyKey;
use crate::model::outcome::{Outcome, Receipt, Verdict};
use crate::okta::OktaClient;
use crate::okta::rights::Right;

pub use email::Mailer;
pub(crate) use email::names_admins;
pub use http_request::HttpServices;
pub use inverse::{Deed, Inverse, Remedy};
pub use jira::{Jira, ProjectUse};
pub use pagerduty::PagerDuty;
pub use servicenow::ServiceNow;
pub use slack::Slack;
pub use teams::Teams;

/// Every action there is. A new one is a file of its own and one line here.
pub static ACTIONS: &[Registration] = &[
    Registration { kind: &okta_group::ADD_USER, build: |services| on_okta(services, okta_group::AddUser::new) },
    Registration { kind: &okta_group::REMOVE_USER, build: |services| on_okta(services, okta_group::RemoveUser::new) },
    Registration { kind: &okta_move::MOVE_USER, build: |services| on_okta(services, okta_move::MoveUser::new) },
    Registration {
        kind: &okta_groups::REMOVE_FROM_ALL,
        build: |services| on_okta(services, okta_groups::RemoveFromAll::new),
    },
    Registration { kind: &okta_groups::RESTORE, build: |services| on_okta(services, okta_groups::Restore::new) },
    Registration { kind: &okta_app::UNASSIGN_USER, build: |services| on_okta(services, okta_app::UnassignUser::new) },
    Registration { kind: &okta_assign::ASSIGN_USER, build: |services| on_okta(services, okta_assign::AssignUser::new) },
    Registration {
        kind: &okta_session::CLEAR_SESSIONS,
        build: |services| on_okta(services, okta_session::ClearSessions::new),
    },
    Registration {
        kind: &okta_session::UNIVERSAL_LOGOUT,
        build: |services| on_okta(services, okta_session::UniversalLogout::new),
    },
    Registration { kind: &okta_user::SUSPEND, build: |services| on_okta(services, okta_user::ChangeUser::suspend) },
    Registration { kind: &okta_user::UNSUSPEND, build: |services| on_okta(services, okta_user::ChangeUser::unsuspend) },
    Registration {
        kind: &okta_user::DEACTIVATE,
        build: |services| on_okta(services, okta_user::ChangeUser::deactivate),
    },
    Registration {
        kind: &okta_user::EXPIRE_PASSWORD,
        build: |services| on_okta(services, okta_user::ChangeUser::expire_password),
    },
    Registration {
        kind: &okta_user::RESET_FACTORS,
        build: |services| on_okta(services, okta_user::ChangeUser::reset_factors),
    },
    Registration { kind: &okta_risk::SET_RISK, build: |services| on_okta(services, okta_risk::SetRisk::new) },
    Registration {
        kind: &okta_device::SUSPEND,
        build: |services| on_okta(services, okta_device::ChangeDevices::suspend),
    },
    Registration {
        kind: &okta_device::UNSUSPEND,
        build: |services| on_okta(services, okta_device::ChangeDevices::unsuspend),
    },
    Registration {
        kind: &okta_device::DEACTIVATE,
        build: |services| on_okta(services, okta_device::ChangeDevices::deactivate),
    },
    Registration {
        kind: &okta_review::START_REVIEW,
        build: |services| {
            let (okta, manager_link) = (Arc::clone(&services.okta), services.manager_link.clone());
            Some(Arc::new(okta_review::StartReview::new(okta, manager_link)))
        },
    },
    Registration { kind: &servicenow::CREATE_INCIDENT, build: |services| connector(&services.servicenow) },
    Registration {
        kind: &servicenow::UPDATE_INCIDENT,
        build: |services| with(&services.servicenow, servicenow::Update),
    },
    Registration {
        kind: &servicenow::RESOLVE_INCIDENT,
        build: |services| with(&services.servicenow, servicenow::Resolve),
    },
    Registration { kind: &jira::CREATE_ISSUE, build: |services| connector(&services.jira) },
    Registration { kind: &pagerduty::TRIGGER_EVENT, build: |services| with(&services.pagerduty, pagerduty::Trigger) },
    Registration { kind: &pagerduty::RESOLVE_EVENT, build: |services| with(&services.pagerduty, pagerduty::Resolve) },
    Registration { kind: &slack::POST_MESSAGE, build: |services| connector(&services.slack) },
    Registration { kind: &slack::UPDATE_MESSAGE, build: |services| with(&services.slack, slack::Edit) },
    Registration { kind: &teams::POST_MESSAGE, build: |services| connector(&services.teams) },
    Registration { kind: &email::SEND, build: |services| connector(&services.email) },
    Registration { kind: &http_request::REQUEST, build: |services| with(&services.http, http_request::Request) },
    Registration { kind: &http_request::CHANGE_ACCESS, build: |services| with(&services.http, http_request::Change) },
];

/// The actions that Okta answers by lowering the user's risk.
pub fn resetting_risk() -> impl Iterator<Item = &'static str> {
    ACTIONS.iter().map(|registration| registration.kind).filter(|kind| kind.resets_risk).map(|kind| kind.name)
}

/// One action of the catalogue and the way to its connector.
pub struct Registration {
    /// What planning and checking need to know.
    pub kind: &'static ActionKind,
    /// Makes the connector; `None` when the service is not configured.
    pub build: fn(&Services) -> Option<Arc<dyn Connector>>,
}

/// What an action with these parameters needs beside its [`ActionKind::rights`].
pub fn more_rights(kind: &ActionKind, params: &Value) -> &'static [Right] {
    if kind.name == okta_app::UNASSIGN_USER.name { okta_app::more_rights(params) } else { &[] }
}

/// The parameters of a step as they are filled in: words that stand for facts are written out as templates.
pub fn written_out<'w>(kind: &ActionKind, with: &'w toml::Table) -> Cow<'w, toml::Table> {
    if kind.service == Service::Email { Cow::Owned(email::written_out(with)) } else { Cow::Borrowed(with) }
}

/// What a service would refuse in the parameters of a step as they are written, in a sentence. [`ActionKind::check`] does
/// not see it, because what only becomes too long when it is filled in is cut.
///
/// # Errors
/// The first that is found.
pub fn check_written(kind: &ActionKind, params: &Value) -> Result<(), String> {
    if kind.service == Service::Slack { slack::check_written(params) } else { Ok(()) }
}

/// What a crash between request and record means for an action with these parameters, whose templates need not be filled in.
pub fn effect(kind: &ActionKind, params: &Value) -> Effect {
    if kind.service == Service::Http { http_request::effect(params) } else { kind.effect }
}

/// The action of this name.
pub fn kind(name: &str) -> Option<&'static ActionKind> {
    ACTIONS.iter().map(|registration| registration.kind).find(|kind| kind.name == name)
}

/// The descriptions of all actions.
pub fn catalogue() -> Vec<&'static ActionKind> {
    ACTIONS.iter().map(|registration| registration.kind).collect()
}

/// The connectors of the configured services, by the name of the action.
#[derive(Clone)]
pub struct Registry {
    connectors: BTreeMap<&'static str, Arc<dyn Connector>>,
}

impl Registry {
    /// Makes every connector whose service is configured.
    pub fn new(services: &Services) -> Self {
        let connectors = ACTIONS
            .iter()
            .filter_map(|registration| Some((registration.kind.name, (registration.build)(services)?)))
            .collect();
        Self { connectors }
    }

    /// Only these connectors.
    #[cfg(test)]
    pub(crate) fn of(connectors: impl IntoIterator<Item = (&'static str, Arc<dyn Connector>)>) -> Self {
        Self { connectors: connectors.into_iter().collect() }
    }

    /// The connector of an action, unless the action is unknown or its service is not configured.
    pub fn get(&self, action: &str) -> Option<Arc<dyn Connector>> {
        self.connectors.get(action).cloned()
    }
}

/// The services of one configuration, each with its own connections; `None` for a section that is not there.
#[derive(Debug, Clone)]
pub struct Services {
    /// `[okta]`
    pub okta: Arc<OktaClient>,
    /// `okta.manager_link`
    pub manager_link: String,
    /// `[servicenow]`
    pub servicenow: Option<Arc<ServiceNow>>,
    /// `[jira]`
    pub jira: Option<Arc<Jira>>,
    /// `[pagerduty]`
    pub pagerduty: Option<Arc<PagerDuty>>,
    /// `[slack]`
    pub slack: Option<Arc<Slack>>,
    /// `[teams]`
    pub teams: Option<Arc<Teams>>,
    /// `[email]`
    pub email: Option<Arc<Mailer>>,
    /// `[http.NAME]`
    pub http: Option<Arc<HttpServices>>,
}

/// The secrets of the services other than Okta; `None` for what the configuration does not name. Each service reads its
/// own again when it is refused.
#[derive(Debug, Default)]
pub struct ServiceSecrets {
    /// `servicenow.password`
    pub servicenow_password: Option<LiveSecret>,
    /// `servicenow.client_secret`
    pub servicenow_client_secret: Option<LiveSecret>,
    /// `jira.token`
    pub jira_token: Option<LiveSecret>,
    /// `pagerduty.routing_key`
    pub pagerduty_routing_key: Option<LiveSecret>,
    /// `slack.token`
    pub slack_token: Option<LiveSecret>,
    /// `slack.webhook_url`
    pub slack_webhook_url: Option<LiveSecret>,
    /// `teams.webhook_url`
    pub teams_webhook_url: Option<LiveSecret>,
    /// `email.password`
    pub email_password: Option<LiveSecret>,
    /// The one secret of each `[http.NAME]` that has one, by name.
    pub http: BTreeMap<String, LiveSecret>,
}

impl Services {
    /// Makes the services that the configuration names. Nothing is sent.
    ///
    /// # Errors
    /// The first section that cannot work as it is written.
    pub fn new(
        config: &Config,
        okta: Arc<OktaClient>,
        secrets: ServiceSecrets,
        network: &Network,
    ) -> Result<Self, SetupError> {
        let ServiceSecrets {
            servicenow_password,
            servicenow_client_secret,
            jira_token,
            pagerduty_routing_key,
            slack_token,
            slack_webhook_url,
            teams_webhook_url,
            email_password,
            http,
        } = secrets;
        let servicenow = config.servicenow.as_ref();
        let jira = config.jira.as_ref().zip(jira_token);
        let pagerduty = config.pagerduty.as_ref().zip(pagerduty_routing_key);
        let slack = config.slack.as_ref();
        let teams = config.teams.as_ref().zip(teams_webhook_url);
        let email = config.email.as_ref();
        Ok(Self {
            okta,
            manager_link: config.okta.manager_link.clone(),
            servicenow: servicenow
                .map(|section| ServiceNow::new(section, servicenow_password, servicenow_client_secret, network))
                .transpose()?
                .map(Arc::new),
            jira: jira.map(|(section, token)| Jira::new(section, token, network)).transpose()?.map(Arc::new),
            pagerduty: pagerduty
                .map(|(section, routing_key)| PagerDuty::new(section, routing_key, network))
                .transpose()?
                .map(Arc::new),
            slack: slack
                .map(|section| Slack::new(section, slack_token, slack_webhook_url, network))
                .transpose()?
                .map(Arc::new),
            teams: teams.map(|(section, url)| Teams::new(section, url, network)).transpose()?.map(Arc::new),
            email: email.map(|section| Mailer::new(section, email_password, network)).transpose()?.map(Arc::new),
            http: (!config.http.is_empty())
                .then(|| HttpServices::new(&config.http, http, network))
                .transpose()?
                .map(Arc::new),
        })
    }
}

/// A section of the configuration that cannot work as it is written.
#[derive(Debug, Error)]
pub enum SetupError {
    /// A value of the section is wrong.
    #[error("[{section}] {problem}")]
    Invalid {
        /// The section.
        section: &'static str,
        /// What is wrong and what would be right. Holds no secret.
        problem: String,
    },
    /// The HTTP client could not be built.
    #[error("[{section}] cannot speak HTTP")]
    Client {
        /// The section.
        section: &'static str,
        /// Why.
        #[source]
        source: http::ClientError,
    },
}

impl SetupError {
    fn invalid(section: &'static str, problem: impl Into<String>) -> Self {
        Self::Invalid { section, problem: problem.into() }
    }
}

/// One action of the catalogue, ready to be performed against its service.
#[async_trait]
pub trait Connector: Send + Sync {
    /// Sends the request of one attempt. The guard has passed it and its attempt row is committed before this is called.
    async fn perform(&self, call: &Cleared<Call>) -> Outcome;

    /// Reads the target back after an attempt whose outcome is unknown. Changes nothing.
    async fn verify(&self, call: &Call) -> Verdict;

    /// How long after a request has left it may still take effect. Where a repeat would not be harmless, the target is not
    /// read back before that: what the service is still at work on would not be found, and be made twice.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }
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
    /// What the attempts before this one recorded, see [`Outcome::Progress`]; before there is such a record, for
    /// `okta.group.restore_user` what the actions that took the user out of his groups recorded, for `slack.message.post`
    /// what the last message of its thread did, and for `slack.message.update` what the message to edit did. Empty for what
    /// is done with one request and stands alone.
    pub earlier: Receipt,
}

/// What a crash between request and record means for an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// A state is set: it can be read back, and setting it twice is the same as once.
    SetLike,
    /// Something is made under our idempotency key, which can be looked up.
    Keyed,
    /// The service makes one of requests that are the same or carry the same key, and does not tell what it holds.
    Folded,
    /// A message: nothing to look up.
    Message,
    /// Nothing to look up, nothing that folds, and nobody knows what a repeat would do.
    Opaque,
}

impl Effect {
    /// The default of a step's `in_doubt`.
    pub fn default_in_doubt(self) -> InDoubt {
        match self {
            Self::Message => InDoubt::Skip,
            Self::Folded => InDoubt::Resend,
            Self::SetLike | Self::Keyed | Self::Opaque => InDoubt::Ask,
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
    /// `[jira]`.
    Jira,
    /// `[pagerduty]`.
    PagerDuty,
    /// `[slack]`.
    Slack,
    /// `[teams]`.
    Teams,
    /// `[email]`.
    Email,
    /// `[http.NAME]`, whichever the parameters name.
    Http,
}

impl Service {
    /// The name of its section in the configuration.
    pub fn section(self) -> &'static str {
        match self {
            Self::Okta => "okta",
            Self::ServiceNow => "servicenow",
            Self::Jira => "jira",
            Self::PagerDuty => "pagerduty",
            Self::Slack => "slack",
            Self::Teams => "teams",
            Self::Email => "email",
            Self::Http => "http",
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
    /// The id of the event's device, unless the step asks for all `devices`.
    DeviceId,
    /// The affected user and the UTC day of the event, for a step that asks for a `thread`. An event without a user leaves
    /// it out.
    UserDay,
}

impl FromEvent {
    /// Whether a parameter is filled in beside those that the step gives.
    pub fn fills(self, given: &serde_json::Map<String, Value>) -> bool {
        match self {
            Self::UserId | Self::AppId => true,
            Self::DeviceId => !given.contains_key("devices"),
            Self::UserDay => given.contains_key("thread"),
        }
    }
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
    /// What all its requests to Okta need, those that read the target back among them.
    pub rights: &'static [Right],
    /// Parameters filled from the event when absent.
    pub from_event: &'static [(&'static str, FromEvent)],
    /// Parses the parameters into the action's typed struct: unknown keys, missing keys and wrong types are errors. It is
    /// called with unrendered templates by `check` (strings may hold anything then) and with final values before use.
    pub check: fn(&Value) -> Result<(), String>,
    /// The parameters' shape, for editors: that of the typed struct.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    /// How values interpolated into the parameter of this name are escaped.
    pub escape: fn(&str) -> Escape,
    /// The lane: the one thing it changes, from final parameters. `None` for what has no order (tickets, most messages).
    pub lane: fn(&Value) -> Option<String>,
    /// What undoes it when it has changed something. Pure.
    pub inverse: fn(&Deed<'_>) -> Inverse,
}

impl std::fmt::Debug for ActionKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ActionKind").field("name", &self.name).finish_non_exhaustive()
    }
}

fn on_okta<C: Connector + 'static>(services: &Services, new: fn(Arc<OktaClient>) -> C) -> Option<Arc<dyn Connector>> {
    Some(Arc::new(new(Arc::clone(&services.okta))))
}

fn connector<C: Connector + 'static>(service: &Option<Arc<C>>) -> Option<Arc<dyn Connector>> {
    service.clone().map(|service| service as Arc<dyn Connector>)
}

/// One of several actions of a service.
fn with<S, C: Connector + 'static>(service: &Option<Arc<S>>, new: fn(Arc<S>) -> C) -> Option<Arc<dyn Connector>> {
    service.clone().map(|service| Arc::new(new(service)) as Arc<dyn Connector>)
}

/// Reads the address of a service as one that paths can be joined to: https, or http to loopback, with no user, query or
/// fragment.
fn service_url(section: &'static str, key: &str, text: &str) -> Result<Url, SetupError> {
    let invalid = |problem: &str| SetupError::invalid(section, format!("`{key}` {problem}"));
    let mut url = Url::parse(text).map_err(|_| invalid("is not a URL, such as \"https://example.com\""))?;
    if !(url.scheme() == "https" || url.scheme() == "http" && http::is_loopback(&url)) {
        return Err(invalid("has to begin with https:// (http:// only to loopback)"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("must hold no user, password, query or fragment"));
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

/// The shape of an action's parameters, for [`ActionKind::schema`].
fn shape<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    T::json_schema(generator)
}

/// Refuses an empty parameter.
fn required(parameter: &str, text: &str) -> Result<(), String> {
    if text.trim().is_empty() { Err(format!("`{parameter}` is empty")) } else { Ok(()) }
}

/// At most `most` characters of a text; one that is longer ends in `…`.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_is_listed_once_and_found_by_its_name() {
        let names: Vec<_> = ACTIONS.iter().map(|action| action.kind.name).collect();
        for name in &names {
            assert_eq!(names.iter().filter(|other| other == &name).count(), 1, "{name}");
            assert_eq!(kind(name).map(|kind| kind.name), Some(*name));
        }
    }

    #[test]
    fn what_changes_access_has_an_order() {
        for action in ACTIONS.iter().map(|action| action.kind).filter(|kind| kind.changes_access) {
            let params = match action.name {
                "okta.group.move_user" => serde_json::json!({"from": "a", "to": "b", "user": "u"}),
                "okta.group.add_user" | "okta.group.remove_user" => serde_json::json!({"group": "g", "user": "u"}),
                "http.access.change" => {
                    serde_json::json!({"service": "s", "method": "POST", "path": "/", "user": "u"})
                }
                "okta.user.set_risk" => serde_json::json!({"level": "LOW", "user": "u"}),
                name if name.starts_with("okta.app.") => serde_json::json!({"app": "a", "user": "u"}),
                name if name.starts_with("okta.device.") => serde_json::json!({"device": "d", "user": "u"}),
                _ => serde_json::json!({"user": "u"}),
            };
            assert!((action.lane)(&params).is_some(), "{}", action.name);
        }
    }

    #[test]
    fn an_unconfigured_service_has_no_connector() {
        let config: Config = toml::from_str(
            "[okta]\norg_url = 'https://example.okta.com'\ntoken = { env = 'T' }\n\
             [slack]\nwebhook_url = { env = 'W' }\n",
        )
        .unwrap();
        let url: Url = "https://example.okta.com".parse().unwrap();
        let settings = crate::okta::OktaSettings {
            org_url: url.clone(),
            admin_url: url,
            timeout: std::time::Duration::from_secs(1),
            network: Network::default(),
        };
        let okta = OktaClient::new(&settings, crate::okta::Auth::ssws(&"t".into()).unwrap()).unwrap();
        let secrets = ServiceSecrets {
            slack_webhook_url: Some("https://hooks.slack.com/services/T/B/X".into()),
            ..ServiceSecrets::default()
        };
        let services = Services::new(&config, Arc::new(okta), secrets, &Network::default()).unwrap();
        assert!(!format!("{services:?}").contains("T/B/X"));
        let registry = Registry::new(&services);
        assert!(registry.get("okta.group.add_user").is_some());
        assert!(registry.get("slack.message.post").is_some());
        assert!(registry.get("email.send").is_none());
        assert!(registry.get("no.such.action").is_none());
    }

    #[test]
    fn a_cut_text_says_that_it_is_cut() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
    }
}
