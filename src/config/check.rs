//! Everything that can be wrong with a configuration whose shape is right, told at once.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::time::Duration;

use lettre::message::Mailbox;
use secrecy::ExposeSecret;
use tracing_subscriber::EnvFilter;

use super::document::Repairs;
use super::network;
use super::path::KeyPath;
use super::problem::{Problem, Sources};
use super::secret::{SecretEnv, SecretError, SecretSource};
use super::values::{self, ValueError};
use super::{
    Config, EmailConfig, HttpConfig, JiraConfig, JiraFlavor, MailTls, OktaConfig, PagerDutyConfig, PlaybookConfig,
    RiskSource, ServiceNowConfig, SlackConfig, StepConfig,
};
use crate::connectors::{self, Service};
use crate::guard::alarm;
use crate::guard::limits::connector_of;
use crate::http;
use crate::model::similar::closest;
use crate::okta::auth::key::{KeyError, SigningKey};
use crate::playbook::{self, Fact, Playbook};
use crate::store::OKTA_KEEPS;

/// The least for which anything is kept.
const LEAST_KEPT: Duration = Duration::from_secs(24 * 3600);

/// The compiled playbooks and all problems, except those that may only be consequences of a repair.
pub(super) fn all(config: &Config, sources: &Sources, repairs: &Repairs) -> (Vec<Playbook>, Vec<Problem>) {
    let mut check = Check { sources, repairs, problems: Vec::new() };
    check.okta(config);
    check.network(config);
    check.numbers(config);
    check.state(config);
    check.risk(config);
    check.guard(config);
    check.log(config);
    if let Some(servicenow) = &config.servicenow {
        check.servicenow(servicenow);
    }
    if let Some(jira) = &config.jira {
        check.jira(jira);
    }
    if let Some(pagerduty) = &config.pagerduty {
        check.pagerduty(pagerduty);
    }
    if let Some(slack) = &config.slack {
        check.slack(slack);
    }
    if let Some(teams) = &config.teams {
        check.positive(&KeyPath::of("teams").key("timeout"), teams.timeout);
    }
    if let Some(email) = &config.email {
        check.email(email);
    }
    for (name, section) in &config.http {
        check.http(name, section);
    }
    let playbooks = check.playbooks(config);
    (playbooks, check.problems)
}

/// Every secret that cannot be had; those that systemd passes only if `credentials` are asked for.
pub(super) fn secrets(
    config: &Config,
    sources: &Sources,
    repairs: &Repairs,
    env: &SecretEnv,
    credentials: bool,
) -> Vec<Problem> {
    let (servicenow, slack, email) = (config.servicenow.as_ref(), config.slack.as_ref(), config.email.as_ref());
    let named = [
        ("okta", "token", config.okta.token.as_ref()),
        ("servicenow", "password", servicenow.and_then(|section| section.password.as_ref())),
        ("servicenow", "client_secret", servicenow.and_then(|section| section.client_secret.as_ref())),
        ("jira", "token", config.jira.as_ref().map(|section| &section.token)),
        ("pagerduty", "routing_key", config.pagerduty.as_ref().map(|section| &section.routing_key)),
        ("slack", "token", slack.and_then(|section| section.token.as_ref())),
        ("slack", "webhook_url", slack.and_then(|section| section.webhook_url.as_ref())),
        ("teams", "webhook_url", config.teams.as_ref().map(|section| &section.webhook_url)),
        ("email", "password", email.and_then(|section| section.password.as_ref())),
        ("network", "proxy_password", config.network.proxy_password.as_ref()),
    ];
    let asked = |source: &SecretSource| credentials || !matches!(source, SecretSource::Credential(_));
    let mut wrong: Vec<(KeyPath, String, String)> = Vec::new();
    if let Some(source) = config.okta.private_key.as_ref().filter(|source| asked(source)) {
        wrong.extend(private_key(&config.okta, source, env));
    }
    for (section, certificate, source) in config.client_certificates() {
        let source = source.filter(|source| certificate.is_some() && asked(source));
        if let Some(error) = source.and_then(|source| source.resolve_key(env).err()) {
            wrong.push((KeyPath::of_section(&section).key("client_key"), with_cause(&error), error.remedy()));
        }
    }
    let http = config.http.iter().flat_map(|(name, section)| {
        section.secrets().map(|(key, source)| (KeyPath::of("http").key(name).key(key), source))
    });
    let named = named.into_iter().map(|(section, key, source)| (KeyPath::of(section).key(key), source));
    for (path, source) in named.chain(http) {
        if let Some(error) = source.filter(|source| asked(source)).and_then(|source| source.resolve(env).err()) {
            wrong.push((path, with_cause(&error), error.remedy()));
        }
    }
    wrong.retain(|(path, ..)| !repairs.may_have_caused(path, sources.stands(path)));
    wrong.into_iter().map(|(path, message, remedy)| sources.problem(&path, message, remedy)).collect()
}

/// What is wrong with the key of the service app: it cannot be had, is none, or does not fit its algorithm.
fn private_key(okta: &OktaConfig, source: &SecretSource, env: &SecretEnv) -> Option<(KeyPath, String, String)> {
    let here = KeyPath::of("okta");
    let text = match source.resolve_key(env) {
        Ok(text) => text,
        Err(error) => return Some((here.key("private_key"), with_cause(&error), error.remedy())),
    };
    let error = SigningKey::read(text.expose_secret(), okta.algorithm, okta.key_id.as_deref()).err()?;
    let key = if matches!(error, KeyError::AlgorithmMismatch { .. }) { "algorithm" } else { "private_key" };
    Some((here.key(key), error.to_string(), error.remedy()))
}

fn with_cause(error: &SecretError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

/// The files of the way out that cannot be used, and what the environment says of proxies when it is wrong.
pub(super) fn network(
    config: &Config,
    sources: &Sources,
    repairs: &Repairs,
    env: &SecretEnv,
    credentials: bool,
) -> Vec<Problem> {
    let problems = network::problems_around(config, env, credentials).into_iter();
    let problems = problems.map(|error| (error.place(), error.split()));
    problems
        .filter(|(place, _)| !repairs.may_have_caused(place, sources.stands(place)))
        .map(|(place, (message, remedy))| sources.problem(&place, message, remedy))
        .collect()
}

/// The directory of a state file that the configuration names: it has to be there, and this user has to be able to write
/// in it, because SQLite keeps its log beside the file.
pub(super) fn state_directory(config: &Config, sources: &Sources) -> Option<Problem> {
    let directory = values::directory_of(config.state.path.as_ref()?);
    let problem =
        |message: String, remedy: &str| Some(sources.problem(&KeyPath::of("state").key("path"), message, remedy));
    let shown = directory.display();
    if !directory.is_dir() {
        return problem(
            format!("there is no directory {shown}"),
            "make it for the daemon's user, or name another path",
        );
    }
    // Rights, owners and read-only file systems are best judged by the system itself.
    let probe = directory.join(format!(".okta-responder-probe-{}", std::process::id()));
    match std::fs::OpenOptions::new().write(true).create_new(true).open(&probe) {
        Ok(_) => {
            // It was made a moment ago, and a file that is left over harms nobody.
            let _ = std::fs::remove_file(&probe);
            None
        }
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => problem(
            format!("the directory {shown} cannot be written: {error}"),
            "give it to the daemon's user, on a file system that is mounted for writing",
        ),
        Err(_) => None,
    }
}

struct Check<'c> {
    sources: &'c Sources,
    repairs: &'c Repairs,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn okta(&mut self, config: &Config) {
        let okta = KeyPath::of("okta");
        self.value(&okta.key("org_url"), config.org_url());
        if let Some(text) = &config.okta.admin_url {
            self.value(&okta.key("admin_url"), values::admin_url(text));
        }
        self.sign_in(&config.okta);
        self.positive(&okta.key("timeout"), config.okta.timeout);
        let share = config.okta.rate_share;
        if !(share > 0.0 && share <= 1.0) {
            let message = format!("{share} is not a share of the rate limit");
            self.say(&okta.key("rate_share"), message, "write a number above 0 and at most 1, such as 0.5");
        }
    }

    fn network(&mut self, config: &Config) {
        let section = KeyPath::of("network");
        for (key, index, message, remedy) in config.network.problems() {
            let place = section.key(key);
            self.say(&index.map_or(place.clone(), |index| place.element(index)), message, remedy);
        }
        let login = (config.network.proxy_username.is_some(), config.network.proxy_password.is_some());
        self.pair(&section, ("proxy_username", "proxy_password"), login);
        for (section, certificate, key) in config.client_certificates() {
            let set = (certificate.is_some(), key.is_some());
            self.pair(&KeyPath::of_section(&section), ("client_certificate", "client_key"), set);
        }
    }

    /// Exactly one way to sign in, and nothing that belongs to the other.
    fn sign_in(&mut self, okta: &OktaConfig) {
        let here = KeyPath::of("okta");
        let service = (okta.client_id.is_some(), okta.private_key.is_some());
        match (&okta.token, service) {
            (None, (false, false)) => {
                // A section that lacks another key was repaired as a whole; what was never written is missing all the same.
                let meant = ["token", "client_id", "private_key"];
                if !meant.iter().any(|key| self.repairs.keys.contains(&here.key(key))) {
                    let message = "there is no way to sign in to Okta";
                    let remedy =
                        "set client_id and private_key of a service app, or token = { credential = \"okta-token\" }";
                    self.problems.push(self.sources.problem(&here, message, remedy));
                }
            }
            (Some(_), (true, _) | (_, true)) => {
                let message = "token and a service app (client_id, private_key) are both set, and only one can be used";
                self.say(
                    &here.key("token"),
                    message,
                    "keep client_id and private_key, which Okta recommends, or token",
                );
            }
            (Some(_), (false, false)) => {
                for key in ["key_id", "algorithm", "dpop"] {
                    let path = here.key(key);
                    if self.sources.stands(&path) {
                        let message = format!("{key} says nothing about an API token");
                        self.say(&path, message, "take it out, or sign in with client_id and private_key");
                    }
                }
            }
            (None, set) => self.pair(&here, ("client_id", "private_key"), set),
        }
        for (key, text) in [("client_id", &okta.client_id), ("key_id", &okta.key_id)] {
            let usable = |text: &&String| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
            if let Some(text) = text.as_ref().filter(|text| !usable(text)) {
                let message = format!("\"{}\" is empty or holds white space", text.escape_debug());
                self.say(
                    &here.key(key),
                    message,
                    "write it exactly as the service app's page in the admin console shows it",
                );
            }
        }
    }

    fn numbers(&mut self, config: &Config) {
        let poll = KeyPath::of("poll");
        if !(1..=1000).contains(&config.poll.page_size) {
            let message = format!("Okta gives no pages of {} events", config.poll.page_size);
            self.say(&poll.key("page_size"), message, "write a number from 1 to 1000");
        }
        let dispatch = KeyPath::of("dispatch");
        if !(1..=1024).contains(&config.dispatch.concurrency) {
            let message = format!("{} requests at once are not possible", config.dispatch.concurrency);
            self.say(&dispatch.key("concurrency"), message, "write a number from 1 to 1024, such as 16");
        }
        self.positive(&dispatch.key("drain"), config.dispatch.drain);
        self.positive(&dispatch.key("retry_initial"), config.dispatch.retry_initial);
        self.positive(&dispatch.key("give_up_after"), config.dispatch.give_up_after);
        if config.dispatch.retry_max < config.dispatch.retry_initial {
            let message = "the longest pause is shorter than the first one";
            self.say(&dispatch.key("retry_max"), message, "make retry_max at least as long as retry_initial");
        }
    }

    fn state(&mut self, config: &Config) {
        let (state, section) = (KeyPath::of("state"), &config.state);
        self.positive(&state.key("prune_every"), section.prune_every);
        let shown = |duration: Duration| humantime::format_duration(duration).to_string();
        if section.keep_keys < OKTA_KEEPS {
            let message =
                format!("{} is shorter than the 90 days for which Okta keeps its log", shown(section.keep_keys));
            let remedy = "write \"90d\" or more, or an event that Okta gives again could be handled twice";
            self.say(&state.key("keep_keys"), message, remedy);
        }
        // The guard looks back at what was done: for its limits and for echoes.
        let least = LEAST_KEPT.max(config.guard.echo_window);
        for (key, kept) in [("keep_events", section.keep_events), ("keep_runs", section.keep_runs)] {
            if kept < least {
                let message = format!("{} is too short: what happened lately is still needed", shown(kept));
                self.say(&state.key(key), message, format!("write \"{}\" or more", shown(least)));
            }
        }
    }

    fn risk(&mut self, config: &Config) {
        let risk = KeyPath::of("risk");
        let groups = [("high_group", &config.risk.high_group), ("medium_group", &config.risk.medium_group)];
        for (key, group) in groups {
            if group.as_ref().is_some_and(|name| name.trim().is_empty()) {
                self.say(&risk.key(key), "the group has no name", "write the name or id of a group");
            }
        }
        if config.risk.high_group.is_some() && config.risk.high_group == config.risk.medium_group {
            let message = "the groups of high and of medium risk are the same one";
            self.say(&risk.key("medium_group"), message, "name two groups");
        }
    }

    fn guard(&mut self, config: &Config) {
        let guard = KeyPath::of("guard");
        let lists = [
            ("own_ids", &config.guard.own_ids),
            ("protected_users", &config.guard.protected_users),
            ("protected_groups", &config.guard.protected_groups),
            ("protected_apps", &config.guard.protected_apps),
            ("protected_members_of", &config.guard.protected_members_of),
            ("protected_roles", &config.guard.protected_roles),
        ];
        for (key, list) in lists {
            for (index, entry) in list.iter().enumerate() {
                if entry.trim() != entry || entry.is_empty() {
                    let message = format!("\"{entry}\" is empty or has white space around it, so it protects nothing");
                    self.say(&guard.key(key).element(index), message, "write it exactly, or take it out");
                }
            }
        }
        for (index, app) in config.guard.protected_apps.iter().enumerate() {
            let is_id = app.len() == 20 && app.starts_with("0oa") && app.chars().all(|c| c.is_ascii_alphanumeric());
            if app.trim() == app && !app.is_empty() && !is_id {
                let message = format!("\"{app}\" is not the id of an app, so it protects nothing");
                let remedy =
                    "write the id that the app's page in the admin console has in its address: 0oa…, 20 characters";
                self.say(&guard.key("protected_apps").element(index), message, remedy);
            }
        }
        if let Some(age) = config.guard.max_event_age {
            self.positive(&guard.key("max_event_age"), age);
        }
        let limits = guard.key("limits");
        for name in config.guard.limits.playbook.keys() {
            if !config.playbooks.iter().any(|playbook| playbook.name == *name) {
                let message = format!("there is no playbook `{name}`, so it limits nothing");
                self.say(&limits.key("playbook").key(name), message, "write the name of a playbook, or take it out");
            }
        }
        for name in config.guard.limits.connector.keys() {
            let mut known = connectors::catalogue().into_iter().filter(|kind| kind.changes_access);
            if !known.any(|kind| connector_of(kind.name) == name) {
                let message = format!("no action that changes access begins with `{name}.`, so it limits nothing");
                let remedy = "write what stands before the last dot of an action's name, such as \"okta.group\"";
                self.say(&limits.key("connector").key(name), message, remedy);
            }
        }
        if let Some(alarm) = &config.guard.alarm {
            let here = guard.key("alarm");
            if let Err(message) = alarm::check(alarm) {
                self.say(&here, message, "see [guard.alarm] in config.example.toml");
            }
            self.configured(config, &alarm.action, &here.key("action"));
            self.admins(config, &alarm.action, &alarm.with, &here);
            self.listed(config, &alarm.action, &alarm.with, &here.key("with"));
        }
    }

    fn log(&mut self, config: &Config) {
        if let Err(error) = EnvFilter::try_new(&config.log.level) {
            let message = format!("`{}` is not a filter of log lines: {error}", config.log.level);
            let remedy = "write error, warn, info, debug or trace, or such as \"okta_responder=debug,info\"";
            self.say(&KeyPath::of("log").key("level"), message, remedy);
        }
    }

    fn servicenow(&mut self, servicenow: &ServiceNowConfig) {
        let section = KeyPath::of("servicenow");
        self.value(&section.key("url"), values::service_url(&servicenow.url));
        self.positive(&section.key("timeout"), servicenow.timeout);
        let table = &servicenow.table;
        if table.is_empty() || !table.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            let message = format!("`{table}` is not the name of a table");
            self.say(&section.key("table"), message, "write its name, not its label: \"incident\", \"sn_si_incident\"");
        }
        let user = (servicenow.username.is_some(), servicenow.password.is_some());
        let client = (servicenow.client_id.is_some(), servicenow.client_secret.is_some());
        self.pair(&section, ("username", "password"), user);
        self.pair(&section, ("client_id", "client_secret"), client);
        if user == (false, false) && client == (false, false) {
            let message = "there is no way to sign in to ServiceNow";
            self.say(&section, message, "set username and password, or client_id and client_secret, or all four");
        }
    }

    fn jira(&mut self, jira: &JiraConfig) {
        let section = KeyPath::of("jira");
        self.value(&section.key("url"), values::service_url(&jira.url));
        if let Some(url) = &jira.browse_url {
            self.value(&section.key("browse_url"), values::service_url(url));
        }
        self.positive(&section.key("timeout"), jira.timeout);
        let is_cloud = values::service_url(&jira.url)
            .is_ok_and(|url| url.host_str().is_some_and(|host| host.ends_with(".atlassian.net")));
        if is_cloud && jira.flavor == JiraFlavor::Server {
            let message = "a site at atlassian.net is Jira Cloud, which has another API";
            self.say(&section.key("flavor"), message, "take it out, or write \"cloud\"");
        }
        if is_cloud && jira.username.is_none() {
            let message = "Jira Cloud takes an API token only together with its user's mail address";
            self.say(
                &section,
                message,
                "set username, or write the address of api.atlassian.com for another kind of token",
            );
        }
    }

    fn pagerduty(&mut self, pagerduty: &PagerDutyConfig) {
        let section = KeyPath::of("pagerduty");
        self.value(&section.key("url"), values::service_url(&pagerduty.url));
        self.positive(&section.key("timeout"), pagerduty.timeout);
    }

    fn slack(&mut self, slack: &SlackConfig) {
        let section = KeyPath::of("slack");
        self.value(&section.key("api_url"), values::service_url(&slack.api_url));
        self.positive(&section.key("timeout"), slack.timeout);
        match (&slack.token, &slack.webhook_url) {
            (Some(_), Some(_)) => {
                let message = "token and webhook_url are both set, and only one can be used";
                self.say(&section, message, "keep token (any channel, read back after a crash) or webhook_url");
            }
            (None, None) => {
                let message = "there is no way to post to Slack";
                self.say(&section, message, "set token (a bot's, with chat:write) or webhook_url");
            }
            _ => {}
        }
    }

    fn email(&mut self, email: &EmailConfig) {
        let section = KeyPath::of("email");
        self.positive(&section.key("timeout"), email.timeout);
        let is_address = email.host.parse::<std::net::IpAddr>().is_ok();
        if email.host.is_empty() || email.host.contains(['/', '@', ' ']) || (email.host.contains(':') && !is_address) {
            let message = format!("`{}` is not a host", email.host);
            self.say(
                &section.key("host"),
                message,
                "write only the name, such as \"smtp.example.com\"; the port is a key",
            );
        }
        if email.port == Some(0) {
            self.say(&section.key("port"), "0 is not a port", "write 587, 465 or 25, or leave it out");
        }
        if email.from.parse::<Mailbox>().is_err() {
            let message = format!("`{}` is not a sender", email.from);
            let remedy = "write \"responder@example.com\" or \"Okta Responder <responder@example.com>\"";
            self.say(&section.key("from"), message, remedy);
        }
        for (index, admin) in email.admins.iter().enumerate().filter(|(_, admin)| admin.parse::<Mailbox>().is_err()) {
            let message = format!("`{}` is not an address", admin.escape_debug());
            self.say(&section.key("admins").element(index), message, "write \"security@example.com\"");
        }
        self.pair(&section, ("username", "password"), (email.username.is_some(), email.password.is_some()));
        if email.tls == MailTls::None && !http::is_loopback_host(&email.host) {
            let message = format!("mail would go to {} without encryption", email.host);
            self.say(
                &section.key("tls"),
                message,
                "write \"starttls\" or \"tls\"; \"none\" is for a relay on this machine",
            );
        }
    }

    fn http(&mut self, name: &str, http: &HttpConfig) {
        let section = KeyPath::of("http").key(name);
        if !super::http::is_name(name) {
            let message = format!("`{name}` is not the name of a service");
            self.say(&section, message, "begin with a small letter, then small letters, digits, `-` and `_`");
        }
        self.positive(&section.key("timeout"), http.timeout);
        self.pair(&section, ("username", "password"), (http.username.is_some(), http.password.is_some()));
        self.pair(&section, ("client_id", "client_secret"), (http.client_id.is_some(), http.client_secret.is_some()));
        for (key, message, remedy) in http.problems() {
            self.say(&key.map_or(section.clone(), |key| section.key(key)), message, remedy);
        }
    }

    fn playbooks(&mut self, config: &Config) -> Vec<Playbook> {
        let mut names = BTreeSet::new();
        let mut compiled = Vec::new();
        for (index, playbook) in config.playbooks.iter().enumerate() {
            let here = KeyPath::of("playbook").element(index);
            if !names.insert(&playbook.name) {
                let message = "another playbook has the same name, and their actions could not be told apart";
                self.say(&here.key("name"), message, "give each playbook a name of its own");
            }
            match Playbook::compile(playbook, &connectors::catalogue()) {
                Ok(playbook) => {
                    self.facts(config, &playbook, &here);
                    compiled.push(playbook);
                }
                Err(problems) => self.uncompiled(&here, playbook, problems),
            }
            self.steps(config, playbook, &here);
        }
        compiled
    }

    /// What the playbook's own compiler found, with the places of its keys.
    fn uncompiled(&mut self, here: &KeyPath, playbook: &PlaybookConfig, problems: Vec<playbook::Problem>) {
        // When a step had to be repaired, its name may be what is missing.
        let names_known = !self.repairs.tables.iter().any(|table| table.is_within(here));
        for problem in problems {
            let place = match problem.step {
                None => here.clone(),
                Some(name) => {
                    let mut named = playbook.steps.iter().enumerate().filter(|(_, step)| step.name == name);
                    // Of two steps with one name, the second is the one too many.
                    let index = if problem.field == "name" { named.next_back() } else { named.next() };
                    here.key("step").element(index.map_or(0, |(index, _)| index))
                }
            };
            if names_known
                || !matches!(problem.field.as_str(), "after" | "needs" | "wait" | "when" | "cancel_if" | "with")
            {
                let place = problem.field.split('.').fold(place, |place, key| place.key(key));
                self.say(&place, problem.message, problem.remedy);
            }
        }
    }

    /// `user_risk` from groups needs the groups.
    fn facts(&mut self, config: &Config, playbook: &Playbook, here: &KeyPath) {
        let groups = [("high_group", &config.risk.high_group), ("medium_group", &config.risk.medium_group)];
        let missing: Vec<&str> = groups.iter().filter(|(_, group)| group.is_none()).map(|(key, _)| *key).collect();
        let wanted = config.risk.source == RiskSource::Groups && playbook.facts_named().contains(Fact::UserRisk);
        if wanted && !missing.is_empty() && !self.repairs.tables.contains(&KeyPath::of("risk")) {
            let verb = if missing.len() == 1 { "is" } else { "are" };
            let message =
                format!("user_risk is asked for, it comes from groups, and {} {verb} not set", missing.join(" and "));
            let remedy = "set high_group and medium_group in [risk], or source = \"okta\" or \"ledger\" there";
            self.say(here, message, remedy);
        }
    }

    fn steps(&mut self, config: &Config, playbook: &PlaybookConfig, here: &KeyPath) {
        for (index, step) in playbook.steps.iter().enumerate() {
            let here = here.key("step").element(index);
            for (key, duration) in [("wait", step.wait), ("delay", step.delay)] {
                if let Some(duration) = duration {
                    self.positive(&here.key(key), duration);
                }
            }
            self.configured(config, &step.action, &here.key("action"));
            self.posted_by_webhook(config, step, &here);
            self.admins(config, &step.action, &step.with, &here);
            self.listed(config, &step.action, &step.with, &here.key("with"));
            if alarm::is_reserved(&step.name) {
                let message = format!("`{}` is the name of the guard's own step", step.name);
                self.say(&here.key("name"), message, "give it another name");
            }
        }
    }

    /// What is posted through a webhook is not known afterwards: Slack gives it no timestamp.
    fn posted_by_webhook(&mut self, config: &Config, step: &StepConfig, here: &KeyPath) {
        if config.slack.as_ref().is_none_or(|slack| slack.webhook_url.is_none() || slack.token.is_some()) {
            return;
        }
        let (posts, edits) = (step.action == "slack.message.post", step.action == "slack.message.update");
        let found = [
            (here.key("update"), posts && step.update, "be edited"),
            (here.key("action"), edits, "be edited"),
            (here.key("with").key("thread"), posts && step.with.contains_key("thread"), "open a thread"),
        ];
        for (place, _, what) in found.into_iter().filter(|(_, is_there, _)| *is_there) {
            let message = format!("[slack] posts through a webhook, and such a message cannot {what}");
            self.say(&place, message, "give [slack] a `token` in place of `webhook_url`, or take it out");
        }
    }

    /// Who writes to the admins has to say who they are.
    fn admins(&mut self, config: &Config, action: &str, with: &toml::Table, here: &KeyPath) {
        let nobody = config.email.as_ref().is_some_and(|email| email.admins.is_empty());
        if nobody && action == "email.send" && connectors::names_admins(with) {
            let message = "the mail goes to the admins, and [email] does not say who they are";
            self.say(&here.key("with"), message, "set admins in [email], such as [\"security@example.com\"]");
        }
    }

    /// The section of the service that an action speaks to has to be there.
    fn configured(&mut self, config: &Config, action: &str, here: &KeyPath) {
        let Some(kind) = connectors::kind(action) else { return };
        let configured = match kind.service {
            Service::Okta => true,
            Service::ServiceNow => config.servicenow.is_some(),
            Service::Jira => config.jira.is_some(),
            Service::PagerDuty => config.pagerduty.is_some(),
            Service::Slack => config.slack.is_some(),
            Service::Teams => config.teams.is_some(),
            Service::Email => config.email.is_some(),
            Service::Http => !config.http.is_empty(),
        };
        if !configured {
            let section = if kind.service == Service::Http { "http.NAME" } else { kind.service.section() };
            let message = format!("`{}` needs the section [{section}], and it is not there", kind.name);
            self.say(here, message, format!("add [{section}] as in config.example.toml"));
        }
    }

    /// A request goes only to a service that stands in the configuration.
    fn listed(&mut self, config: &Config, action: &str, with: &toml::Table, here: &KeyPath) {
        if connectors::kind(action).is_none_or(|kind| kind.service != Service::Http) || config.http.is_empty() {
            return;
        }
        let Some(name) = with.get("service").and_then(toml::Value::as_str) else { return };
        if !config.http.contains_key(name) {
            let names = config.http.keys().map(String::as_str);
            let remedy = match closest(name, names.clone()) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!("add the section, or use one of {}", names.collect::<Vec<_>>().join(", ")),
            };
            self.say(&here.key("service"), format!("there is no section [http.{name}]"), remedy);
        }
    }

    /// Two keys that only make sense together.
    fn pair(&mut self, section: &KeyPath, keys: (&str, &str), set: (bool, bool)) {
        let (present, absent) = match set {
            (true, false) => keys,
            (false, true) => (keys.1, keys.0),
            _ => return,
        };
        let message = format!("{present} is set without {absent}");
        self.say(&section.key(present), message, format!("set {absent} as well, or take {present} out"));
    }

    fn positive(&mut self, path: &KeyPath, duration: Duration) {
        if duration.is_zero() {
            self.say(path, "the duration is zero", "write one above zero, such as \"30s\"");
        }
    }

    fn value<T>(&mut self, path: &KeyPath, result: Result<T, ValueError>) {
        if let Err(error) = result {
            self.say(path, error.message, error.remedy);
        }
    }

    fn say(&mut self, path: &KeyPath, message: impl Into<String>, remedy: impl Into<String>) {
        if !self.repairs.may_have_caused(path, self.sources.stands(path)) {
            self.problems.push(self.sources.problem(path, message, remedy));
        }
    }
}
