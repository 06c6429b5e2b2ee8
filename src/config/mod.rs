//! The configuration file: serde types with their defaults, in one place.
//!
//! Times are humantime (`"36h"`) or, where a moment is meant, RFC 3339. Unknown keys are errors everywhere.

mod check;
mod document;
mod duration;
#[cfg(test)]
mod example;
pub mod http;
pub mod load;
pub mod network;
mod path;
pub mod playtest;
pub mod problem;
pub mod schema;
pub mod secret;
pub mod values;
mod wording;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use crate::model::action::InDoubt;
use crate::okta::auth::Dpop;
use crate::okta::auth::key::Algorithm;
use crate::store::Keep;
use http::HttpConfig;
use network::NetworkConfig;
use playtest::TestConfig;
use secret::SecretSource;
use values::{Expiry, Interval, StartFrom, ValueError};

pub use values::Limit;

/// The whole file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The org and how to speak to it.
    pub okta: OktaConfig,
    /// The way out of this host.
    #[serde(default)]
    pub network: NetworkConfig,
    /// Reading the log.
    #[serde(default)]
    pub poll: PollConfig,
    /// The state file.
    #[serde(default)]
    pub state: StateConfig,
    /// Where a user's risk comes from when some other event arrives.
    #[serde(default)]
    pub risk: RiskConfig,
    /// Sending requests.
    #[serde(default)]
    pub dispatch: DispatchConfig,
    /// What is never done.
    #[serde(default)]
    pub guard: GuardConfig,
    /// Logging.
    #[serde(default)]
    pub log: LogConfig,
    /// ServiceNow, if used.
    pub servicenow: Option<ServiceNowConfig>,
    /// Jira, if used.
    pub jira: Option<JiraConfig>,
    /// PagerDuty, if used.
    pub pagerduty: Option<PagerDutyConfig>,
    /// Slack, if used.
    pub slack: Option<SlackConfig>,
    /// Microsoft Teams, if used.
    pub teams: Option<TeamsConfig>,
    /// Mail, if used.
    pub email: Option<EmailConfig>,
    /// The services that `http.request` may speak to, by name.
    #[serde(default)]
    pub http: BTreeMap<String, HttpConfig>,
    /// The playbooks, in file order; `playbooks.d/*.toml` adds more.
    #[serde(default, rename = "playbook")]
    pub playbooks: Vec<PlaybookConfig>,
    /// What the playbooks are meant to do; for `okta-responder test`.
    #[serde(default, rename = "test")]
    pub tests: Vec<TestConfig>,
}

impl Config {
    /// The org's address, ending with `/` and nothing behind the host.
    ///
    /// # Errors
    /// When `org_url` is not the address of an org; a configuration that was loaded has passed this.
    pub fn org_url(&self) -> Result<Url, ValueError> {
        values::org_url(&self.okta.org_url)
    }

    /// The admin console's address: `admin_url`, else derived from `org_url`.
    ///
    /// # Errors
    /// When either is not an address; a configuration that was loaded has passed this.
    pub fn admin_url(&self) -> Result<Url, ValueError> {
        match &self.okta.admin_url {
            Some(text) => values::admin_url(text),
            None => Ok(values::admin_url_of(&self.org_url()?)),
        }
    }

    /// The certificates of our own that services may ask for, by section: each with its key, as far as they are set.
    pub fn client_certificates(&self) -> Vec<(String, Option<&Path>, Option<&SecretSource>)> {
        fn of<'c>(
            section: &str,
            set: Option<(&'c Option<PathBuf>, &'c Option<SecretSource>)>,
        ) -> (String, Option<&'c Path>, Option<&'c SecretSource>) {
            let (certificate, key) = set.unzip();
            (section.to_owned(), certificate.and_then(Option::as_deref), key.and_then(Option::as_ref))
        }
        let (servicenow, slack, teams) = (self.servicenow.as_ref(), self.slack.as_ref(), self.teams.as_ref());
        let jira = self.jira.as_ref();
        let mut all = vec![
            of("okta", Some((&self.okta.client_certificate, &self.okta.client_key))),
            of("servicenow", servicenow.map(|section| (&section.client_certificate, &section.client_key))),
            of("jira", jira.map(|section| (&section.client_certificate, &section.client_key))),
            of("slack", slack.map(|section| (&section.client_certificate, &section.client_key))),
            of("teams", teams.map(|section| (&section.client_certificate, &section.client_key))),
        ];
        let http = self.http.iter();
        all.extend(http.map(|(name, section)| {
            of(&format!("http.{name}"), Some((&section.client_certificate, &section.client_key)))
        }));
        all
    }

    /// The SQLite file. `state_directory` is what systemd put into `$STATE_DIRECTORY`; of several, the first counts.
    pub fn state_path(&self, state_directory: Option<&OsStr>) -> PathBuf {
        if let Some(path) = &self.state.path {
            return path.clone();
        }
        let given = state_directory.and_then(|list| std::env::split_paths(list).next());
        given
            .filter(|path| !path.as_os_str().is_empty())
            .unwrap_or_else(|| Path::new(values::STATE_DIRECTORY).to_owned())
            .join("state.db")
    }
}

/// `[okta]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OktaConfig {
    /// `https://example.okta.com`, or a custom domain. Plain http only to loopback.
    pub org_url: String,
    /// Where people look at the admin console; links in messages start with it. Default: `org_url` with `-admin` for
    /// hosts of Okta, else `org_url`.
    pub admin_url: Option<String>,
    /// The SSWS API token; or `client_id` and `private_key`.
    pub token: Option<SecretSource>,
    /// The service app that signs in, by OAuth 2.0 client credentials.
    pub client_id: Option<String>,
    /// Its private key: PEM or JWK.
    pub private_key: Option<SecretSource>,
    /// The name under which Okta knows the key. Default: a JWK's own, else none.
    pub key_id: Option<String>,
    /// How assertions are signed. Default: a JWK's own, else RS256 or what goes with the curve.
    pub algorithm: Option<Algorithm>,
    /// Whether tokens are bound to a key that the daemon makes.
    #[serde(default)]
    pub dpop: Dpop,
    /// Our certificate and those that lead to its CA, in PEM, for a service or a gateway that asks for one.
    pub client_certificate: Option<PathBuf>,
    /// The private key of that certificate, in PEM.
    pub client_key: Option<SecretSource>,
    /// The bound on one request.
    #[serde(default = "defaults::okta_timeout", deserialize_with = "duration::required")]
    pub timeout: Duration,
    /// The share of what Okta's rate headers grant that this daemon takes, above 0 and at most 1.
    #[serde(default = "defaults::rate_share")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub rate_share: f64,
    /// The linked object that names a user's manager, asked when the profile has no `managerId`. Empty: not asked.
    #[serde(default = "defaults::manager_link")]
    pub manager_link: String,
}

/// How the daemon signs in to Okta.
#[derive(Debug, Clone, Copy)]
pub enum SignIn<'c> {
    /// By an API token.
    Token(&'c SecretSource),
    /// As a service app.
    Service {
        /// Its id.
        client_id: &'c str,
        /// Where its key is.
        private_key: &'c SecretSource,
    },
}

impl OktaConfig {
    /// How the daemon signs in; `None` when there is no way or more than one, which a configuration that was loaded has not.
    pub fn sign_in(&self) -> Option<SignIn<'_>> {
        match (&self.token, &self.client_id, &self.private_key) {
            (Some(token), None, None) => Some(SignIn::Token(token)),
            (None, Some(client_id), Some(private_key)) => Some(SignIn::Service { client_id, private_key }),
            _ => None,
        }
    }
}

/// `[poll]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PollConfig {
    /// Where the first start begins: `"now"`, an RFC 3339 moment, or a duration before now (`"24h"`).
    pub start_from: StartFrom,
    /// `"auto"` (as fast as the budget allows, at least 1 s apart) or a duration.
    pub interval: Interval,
    /// How far behind the last good poll a lost or changed stream starts again.
    #[serde(deserialize_with = "duration::required")]
    pub overlap: Duration,
    /// Events asked for per page, 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub page_size: u32,
    /// The most event types put into the server-side filter; with more, the filter is applied here.
    pub max_filter_types: usize,
}

/// `[state]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StateConfig {
    /// The SQLite file. Default: `state.db` in systemd's `$STATE_DIRECTORY`, else `/var/lib/okta-responder/state.db`.
    pub path: Option<PathBuf>,
    /// How long bodies of events and records in quarantine are kept, if nothing of them is open.
    #[serde(deserialize_with = "duration::required")]
    pub keep_events: Duration,
    /// How long runs with their actions and attempts are kept once they are at their end, and the journal.
    #[serde(deserialize_with = "duration::required")]
    pub keep_runs: Duration,
    /// How long events and actions are recognised when they come again; at least the 90 days for which Okta keeps its log.
    #[serde(deserialize_with = "duration::required")]
    pub keep_keys: Duration,
    /// How often old rows are looked for.
    #[serde(deserialize_with = "duration::required")]
    pub prune_every: Duration,
}

impl StateConfig {
    /// How long rows are kept.
    pub fn keep(&self) -> Keep {
        Keep { events: self.keep_events, runs: self.keep_runs, keys: self.keep_keys }
    }
}

/// `[risk]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RiskConfig {
    /// Where `user_risk` comes from.
    pub source: RiskSource,
    /// The group of high-risk users (name or id), for `source = "groups"`.
    pub high_group: Option<String>,
    /// The group of medium-risk users (name or id), for `source = "groups"`.
    pub medium_group: Option<String>,
}

/// Where `user_risk` comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RiskSource {
    /// Is the user in the high or medium group?
    Groups,
    /// `GET /api/v1/users/{id}/risk`.
    Okta,
    /// The newest risk event of the user in our own inbox.
    Ledger,
}

/// `[dispatch]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DispatchConfig {
    /// Requests under way at once to each service, so that one that does not answer holds up no other.
    #[schemars(range(min = 1, max = 1024))]
    pub concurrency: usize,
    /// How long a stop waits for requests under way.
    #[serde(deserialize_with = "duration::required")]
    pub drain: Duration,
    /// The first pause after a failed attempt.
    #[serde(deserialize_with = "duration::required")]
    pub retry_initial: Duration,
    /// The longest pause between attempts.
    #[serde(deserialize_with = "duration::required")]
    pub retry_max: Duration,
    /// An action that has not succeeded this long after its event was decided is `failed`. Facts are asked for as long, and
    /// doubts are read back as long, before they are left to people.
    #[serde(deserialize_with = "duration::required")]
    pub give_up_after: Duration,
}

/// `[guard]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GuardConfig {
    /// `"observe"` plans and records everything and touches nothing, whatever the playbooks say.
    pub mode: Mode,
    /// A fall in risk this soon after we cleared the user's sessions or set his risk is our own echo.
    #[serde(deserialize_with = "duration::required")]
    pub echo_window: Duration,
    /// Principals that are this daemon (user or client ids), besides the one that the token belongs to.
    pub own_ids: Vec<String>,
    /// Users (id or login) whose access is never changed: break-glass accounts.
    pub protected_users: Vec<String>,
    /// Groups (name or id, as the playbooks write them) whose members are never changed.
    pub protected_groups: Vec<String>,
    /// Apps (id) whose assignments are never taken away.
    pub protected_apps: Vec<String>,
    /// Groups (name or id) whose members' access is never changed. Needs `okta.users.read`.
    pub protected_members_of: Vec<String>,
    /// Admin roles (type such as `SUPER_ADMIN`, label or id; `any` for every one) whose holders' access is never changed.
    /// Needs `okta.roles.read`.
    pub protected_roles: Vec<String>,
    /// Changes of access are refused for events older than this when they are decided or sent. Unset: no bound.
    #[serde(deserialize_with = "duration::optional")]
    pub max_event_age: Option<Duration>,
    /// What nobody approves within this time is refused; `"never"` lets it wait for ever.
    pub approval_expires: Expiry,
    /// How many changes of access an hour may bring.
    pub limits: LimitsConfig,
    /// The message to people when a playbook goes over a limit.
    pub alarm: Option<AlarmConfig>,
}

/// `[guard.limits]`: changes of access within any hour. 0 lets nothing through without a person.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Of all playbooks together.
    pub overall: Limit,
    /// Of each playbook.
    pub per_playbook: Limit,
    /// Of each connector: what stands before the last dot of an action's name, such as `okta.group`.
    pub per_connector: Limit,
    /// Of single playbooks, in place of `per_playbook`.
    pub playbook: BTreeMap<String, Limit>,
    /// Of single connectors, in place of `per_connector`.
    pub connector: BTreeMap<String, Limit>,
}

/// `[guard.alarm]`
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlarmConfig {
    /// `connector.noun.verb`, one that tells and changes no access.
    pub action: String,
    /// Its parameters; strings may hold `{{ playbook }}` and `{{ why }}`. Texts have a default.
    #[serde(default)]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub with: toml::Table,
}

/// `mode = "enforce" | "observe"`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Do it.
    Enforce,
    /// Plan and record, touch nothing.
    Observe,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `text` for people, `json` for collectors.
    pub format: LogFormat,
    /// A tracing filter, such as `info` or `okta_responder=debug,info`.
    pub level: String,
}

/// `format = "text" | "json"`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line each.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[servicenow]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceNowConfig {
    /// `https://example.service-now.com`
    pub url: String,
    /// The user of basic authentication, or of OAuth's password grant.
    pub username: Option<String>,
    /// That user's password.
    pub password: Option<SecretSource>,
    /// OAuth client id; with it a token is fetched from `/oauth_token.do` (password grant when `username` is set, else
    /// client credentials).
    pub client_id: Option<String>,
    /// OAuth client secret.
    pub client_secret: Option<SecretSource>,
    /// Our certificate and those that lead to its CA, in PEM, for a service or a gateway that asks for one.
    pub client_certificate: Option<PathBuf>,
    /// The private key of that certificate, in PEM.
    pub client_key: Option<SecretSource>,
    /// The table that incidents go to.
    #[serde(default = "defaults::servicenow_table")]
    pub table: String,
    /// The bound on one request.
    #[serde(default = "defaults::service_timeout", deserialize_with = "duration::required")]
    pub timeout: Duration,
}

/// `[jira]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JiraConfig {
    /// `https://example.atlassian.net`, or for scoped tokens `https://api.atlassian.com/ex/jira/` and the site's cloud id.
    pub url: String,
    /// Which of the two REST APIs it speaks.
    #[serde(default)]
    pub flavor: JiraFlavor,
    /// Where people open issues, when it is not `url`.
    pub browse_url: Option<String>,
    /// The user of basic authentication, in Jira Cloud his mail address. Without one, the token goes as a bearer's.
    pub username: Option<String>,
    /// An API token, a personal access token, or on a server the user's password.
    pub token: SecretSource,
    /// Our certificate and those that lead to its CA, in PEM, for a service or a gateway that asks for one.
    pub client_certificate: Option<PathBuf>,
    /// The private key of that certificate, in PEM.
    pub client_key: Option<SecretSource>,
    /// How long Jira's search may not show an issue that was created. After an answer was lost, it is waited for.
    #[serde(default = "defaults::jira_search_lag", deserialize_with = "duration::required")]
    pub search_lag: Duration,
    /// The bound on one request.
    #[serde(default = "defaults::service_timeout", deserialize_with = "duration::required")]
    pub timeout: Duration,
}

/// `flavor = "cloud" | "server"`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JiraFlavor {
    /// Jira Cloud.
    #[default]
    Cloud,
    /// Jira Data Center, or a Jira Server.
    Server,
}

/// `[pagerduty]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PagerDutyConfig {
    /// The integration key of a service, of the kind Events API v2.
    pub routing_key: SecretSource,
    /// The Events API. In the EU region `https://events.eu.pagerduty.com`.
    #[serde(default = "defaults::pagerduty_url")]
    pub url: String,
    /// The bound on one request.
    #[serde(default = "defaults::service_timeout", deserialize_with = "duration::required")]
    pub timeout: Duration,
}

/// `[slack]`: either `token` or `webhook_url`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlackConfig {
    /// A bot token (`xoxb-…`) with `chat:write`.
    pub token: Option<SecretSource>,
    /// An incoming webhook; its URL is the secret. It posts to the channel it was made for.
    pub webhook_url: Option<SecretSource>,
    /// Our certificate and those that lead to its CA, in PEM, for a service or a gateway that asks for one.
    pub client_certificate: Option<PathBuf>,
    /// The private key of that certificate, in PEM.
    pub client_key: Option<SecretSource>,
    /// The Web API.
    #[serde(default = "defaults::slack_api_url")]
    pub api_url: String,
    /// The bound on one request.
    #[serde(default = "defaults::service_timeout", deserialize_with = "duration::required")]
    pub timeout: Duration,
}

/// `[teams]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TeamsConfig {
    /// The webhook of a workflow; its URL is the secret. It posts to the channel or chat it was made for.
    pub webhook_url: SecretSource,
    /// Our certificate and those that lead to its CA, in PEM, for a service or a gateway that asks for one.
    pub client_certificate: Option<PathBuf>,
    /// The private key of that certificate, in PEM.
    pub client_key: Option<SecretSource>,
    /// The bound on one request.
    #[serde(default = "defaults::service_timeout", deserialize_with = "duration::required")]
    pub timeout: Duration,
}

/// `[email]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmailConfig {
    /// The SMTP host.
    pub host: String,
    /// The port. Default: 587 for `starttls`, 465 for `tls`, 25 for `none`.
    pub port: Option<u16>,
    /// How the connection is protected.
    #[serde(default = "defaults::mail_tls")]
    pub tls: MailTls,
    /// The sender, `Name <address>` or an address.
    pub from: String,
    /// Who is meant by `to = "admins"`: addresses, or names and addresses.
    #[serde(default)]
    pub admins: Vec<String>,
    /// The SMTP user.
    pub username: Option<String>,
    /// The SMTP password.
    pub password: Option<SecretSource>,
    /// The bound on one delivery.
    #[serde(default = "defaults::service_timeout", deserialize_with = "duration::required")]
    pub timeout: Duration,
}

/// `tls = "starttls" | "tls" | "none"`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// STARTTLS, required.
    Starttls,
    /// TLS from the first byte.
    Tls,
    /// No TLS; only to loopback.
    None,
}

/// `[[playbook]]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlaybookConfig {
    /// Unique; part of the idempotency key, so renaming a playbook makes it a new one.
    #[schemars(regex(pattern = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"))]
    pub name: String,
    /// The event types it answers.
    #[schemars(length(min = 1), inner(regex(pattern = r"^[A-Za-z0-9._]{1,200}$")))]
    pub on: Vec<String>,
    /// CEL; the playbook applies to an event when it is true. Default: always.
    pub when: Option<String>,
    /// Default: enforce.
    #[serde(default = "defaults::mode")]
    pub mode: Mode,
    /// What to do.
    #[serde(rename = "step", default)]
    pub steps: Vec<StepConfig>,
}

/// `[[playbook.step]]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepConfig {
    /// Unique in its playbook; part of the idempotency key.
    #[schemars(regex(pattern = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"))]
    pub name: String,
    /// CEL. Default: always.
    pub when: Option<String>,
    /// `connector.noun.verb`
    pub action: String,
    /// Parameters; strings are templates.
    #[serde(default)]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub with: toml::Table,
    /// Steps that have to end first, however they end.
    #[serde(default)]
    pub after: Vec<String>,
    /// Steps that have to succeed first; else this one is skipped.
    #[serde(default)]
    pub needs: Vec<String>,
    /// The longest wait for `after`; then it runs anyway. With a `delay` it begins when that ends.
    #[serde(default, deserialize_with = "duration::optional")]
    pub wait: Option<Duration>,
    /// It is done so much later than the event was decided. What it changes is planned with the rest.
    #[serde(default, deserialize_with = "duration::optional")]
    pub delay: Option<Duration>,
    /// CEL, asked when the `delay` ends, of facts that are fetched then: when it is true, the step is skipped.
    pub cancel_if: Option<String>,
    /// What to do when nobody can tell whether the request arrived.
    pub in_doubt: Option<InDoubt>,
    /// A person has to allow it.
    #[serde(default)]
    pub approval: bool,
    /// A message that tells of other steps: it goes out after `wait`, or at once, and is edited when they have ended.
    #[serde(default)]
    pub update: bool,
}

/// Every default value that is not simply "absent".
mod defaults {
    use super::*;

    pub(super) fn okta_timeout() -> Duration {
        Duration::from_secs(30)
    }
    pub(super) fn service_timeout() -> Duration {
        Duration::from_secs(15)
    }
    pub(super) fn rate_share() -> f64 {
        0.5
    }
    pub(super) fn manager_link() -> String {
        "manager".to_owned()
    }
    pub(super) fn servicenow_table() -> String {
        "incident".to_owned()
    }
    pub(super) fn jira_search_lag() -> Duration {
        Duration::from_secs(60)
    }
    pub(super) fn pagerduty_url() -> String {
        "https://events.pagerduty.com".to_owned()
    }
    pub(super) fn slack_api_url() -> String {
        "https://slack.com/api".to_owned()
    }
    pub(super) fn mail_tls() -> MailTls {
        MailTls::Starttls
    }
    pub(super) fn mode() -> Mode {
        Mode::Enforce
    }
}

impl Default for PollConfig {
    fn default() -> Self {
        Self {
            start_from: StartFrom::Now,
            interval: Interval::Auto,
            overlap: Duration::from_secs(3600),
            page_size: 1000,
            max_filter_types: 20,
        }
    }
}

impl Default for StateConfig {
    fn default() -> Self {
        let Keep { events, runs, keys } = Keep::default();
        let prune_every = Duration::from_secs(3600);
        Self { path: None, keep_events: events, keep_runs: runs, keep_keys: keys, prune_every }
    }
}

impl Default for RiskConfig {
    fn default() -> Self {
        Self { source: RiskSource::Groups, high_group: None, medium_group: None }
    }
}

impl Default for DispatchConfig {
    fn default() -> Self {
        Self {
            concurrency: 16,
            drain: Duration::from_secs(20),
            retry_initial: Duration::from_secs(1),
            retry_max: Duration::from_secs(300),
            give_up_after: Duration::from_secs(24 * 3600),
        }
    }
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            echo_window: Duration::from_secs(600),
            own_ids: Vec::new(),
            protected_users: Vec::new(),
            protected_groups: Vec::new(),
            protected_apps: Vec::new(),
            protected_members_of: Vec::new(),
            protected_roles: Vec::new(),
            max_event_age: None,
            approval_expires: Expiry::After(Duration::from_secs(24 * 3600)),
            limits: LimitsConfig::default(),
            alarm: None,
        }
    }
}

impl LimitsConfig {
    /// No bound at all.
    pub fn unlimited() -> Self {
        Self { overall: Limit::Unlimited, per_playbook: Limit::Unlimited, ..Self::default() }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            overall: Limit::Most(200),
            per_playbook: Limit::Most(100),
            per_connector: Limit::Unlimited,
            playbook: BTreeMap::new(),
            connector: BTreeMap::new(),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}
