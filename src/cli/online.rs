//! The part of `check` that asks the services. It only reads.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::now;
use crate::app;
use crate::config::RiskSource;
use crate::config::load::Loaded;
use crate::config::secret::SecretEnv;
use crate::connectors::Services;
use crate::engine::wanted_types;
use crate::model::outcome::{Failure, Reason};
use crate::okta::OktaClient;
use crate::okta::groups::{GroupError, GroupRef};
use crate::okta::logs::{LogQuery, filter_for};

/// One thing that was tried.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// What.
    pub check: String,
    /// Whether it is as it has to be.
    pub ok: bool,
    /// Whether it failed because nobody answered.
    pub unreachable: bool,
    /// What was found, or what is wrong and what to do.
    pub detail: String,
}

impl Row {
    fn new(check: impl Into<String>, result: Result<String, Failure>) -> Self {
        let check = check.into();
        match result {
            Ok(detail) => Self { check, ok: true, unreachable: false, detail },
            Err(Failure { reason, detail }) => {
                let unreachable = matches!(
                    reason,
                    Reason::Connect
                        | Reason::Timeout
                        | Reason::ConnectionLost
                        | Reason::ServiceError
                        | Reason::RateLimited
                );
                Self { check, ok: false, unreachable, detail }
            }
        }
    }
}

/// Tries everything, tells each row as it comes, and returns them all.
pub(super) async fn check(
    loaded: &Loaded,
    env: &SecretEnv,
    mut tell: impl FnMut(&Row) -> std::io::Result<()>,
) -> anyhow::Result<Vec<Row>> {
    let okta = Arc::new(app::okta_client(loaded, env)?);
    let services = Services::new(
        &loaded.config,
        Arc::clone(&okta),
        app::service_secrets(&loaded.config, env)?,
        &app::network(&loaded.config, env)?,
    )?;
    let mut rows = Vec::new();
    let mut add = |row: Row| {
        let told = tell(&row);
        rows.push(row);
        told
    };

    let me = okta.me().await.map_err(|error| error.to_failure());
    let own_id = me.as_ref().ok().map(|me| me.id.clone());
    add(Row::new("Okta token", me.map(|me| format!("belongs to {}", me.login.unwrap_or(me.id)))))?;
    // Without a token every further question to Okta has the same answer.
    if let Some(own_id) = own_id {
        add(Row::new("Okta log", read_log(loaded, &okta).await))?;
        for (place, name) in groups_changed(loaded) {
            add(Row::new(format!("group of {place}"), told_group(okta.resolve_group(&name).await)))?;
        }
        for (place, name) in groups_read(loaded) {
            add(Row::new(format!("group of {place}"), told_group(okta.find_group(&name).await)))?;
        }
        for user in &loaded.config.guard.protected_users {
            add(Row::new("user of [guard] protected_users", told_user(&okta, user).await))?;
        }
        if !loaded.config.guard.protected_roles.is_empty() {
            add(Row::new("roles of [guard] protected_roles", told_roles(loaded, &okta, &own_id).await))?;
        }
        for (place, id) in apps(loaded) {
            let found = okta.app_label(&id).await.map_err(|error| error.to_failure()).and_then(|label| match label {
                Some(label) => Ok(format!("`{id}` is {label}")),
                None => Err(Failure::new(
                    Reason::NotFound,
                    format!(
                        "there is no app `{id}`; the id stands in the address of the app's page in the admin console"
                    ),
                )),
            });
            add(Row::new(format!("app of {place}"), found))?;
        }
    }
    if let Some(servicenow) = &services.servicenow {
        add(Row::new("ServiceNow", servicenow.probe().await))?;
    }
    if let Some(slack) = &services.slack {
        add(Row::new("Slack", slack.probe().await))?;
    }
    if let Some(email) = &services.email {
        add(Row::new("mail server", email.probe().await))?;
    }
    Ok(rows)
}

async fn read_log(loaded: &Loaded, okta: &OktaClient) -> Result<String, Failure> {
    let wanted = wanted_types(&loaded.playbooks, &loaded.config.risk);
    let filter = filter_for(&wanted, loaded.config.poll.max_filter_types);
    let query = LogQuery { since: now(), until: None, filter, limit: 1 };
    let url = okta.logs_url(&query).map_err(|error| error.to_failure())?;
    let head = okta.fetch_page(&url).await.map_err(|error| error.to_failure())?;
    let ahead = head.date.duration_since(now()).as_secs();
    Ok(match ahead.abs() {
        0..=5 => "can be read".to_owned(),
        seconds => format!("can be read; our clock and Okta's are {seconds} s apart"),
    })
}

fn told_group(found: Result<GroupRef, GroupError>) -> Result<String, Failure> {
    match found {
        Ok(group) => Ok(format!("`{}` is {} ({})", group.name, group.id, group.kind)),
        Err(GroupError::Okta { source, .. }) => Err(source.to_failure()),
        Err(error) => Err(Failure::new(Reason::NotFound, error.to_string())),
    }
}

async fn told_user(okta: &OktaClient, name: &str) -> Result<String, Failure> {
    match okta.user_id(name).await.map_err(|error| error.to_failure())? {
        Some(id) => Ok(format!("`{name}` is {id}")),
        None => Err(Failure::new(Reason::NotFound, format!("there is no user `{name}`, so this protects nobody"))),
    }
}

/// Whether admin roles can be read, and which of the protected ones can only be custom roles.
async fn told_roles(loaded: &Loaded, okta: &OktaClient, own_id: &str) -> Result<String, Failure> {
    okta.user_roles(own_id).await.map_err(|error| error.to_failure())?;
    let is_standard = |role: &&String| STANDARD_ROLES.iter().any(|known| known.eq_ignore_ascii_case(role.trim()));
    let (_, other): (Vec<_>, Vec<_>) = loaded.config.guard.protected_roles.iter().partition(is_standard);
    Ok(match other.as_slice() {
        [] => "can be read".to_owned(),
        other => {
            let names: Vec<_> = other.iter().map(|name| format!("`{name}`")).collect();
            format!("can be read; no standard role of Okta's, so only a custom role of that name: {}", names.join(", "))
        }
    })
}

/// The types of Okta's standard admin roles (Okta API reference, role assignments), and our word for all of them.
const STANDARD_ROLES: [&str; 14] = [
    "any",
    "ACCESS_CERTIFICATIONS_ADMIN",
    "ACCESS_REQUESTS_ADMIN",
    "API_ACCESS_MANAGEMENT_ADMIN",
    "APP_ADMIN",
    "GROUP_MEMBERSHIP_ADMIN",
    "HELP_DESK_ADMIN",
    "MOBILE_ADMIN",
    "ORG_ADMIN",
    "READ_ONLY_ADMIN",
    "REPORT_ADMIN",
    "SUPER_ADMIN",
    "USER_ADMIN",
    "WORKFLOWS_ADMIN",
];

/// Groups whose members playbooks change. Names that a template makes are known only when an event comes.
fn groups_changed(loaded: &Loaded) -> BTreeSet<(String, String)> {
    parameters(loaded, "okta.group.", "group")
}

/// Groups whose members are only read, or never changed. One that is not there protects nobody.
fn groups_read(loaded: &Loaded) -> Vec<(String, String)> {
    let (risk, guard) = (&loaded.config.risk, &loaded.config.guard);
    let of_risk = [("[risk] high_group", &risk.high_group), ("[risk] medium_group", &risk.medium_group)];
    let of_risk = of_risk.into_iter().filter(|_| risk.source == RiskSource::Groups);
    let of_risk = of_risk.filter_map(|(place, name)| Some((place, name.as_ref()?)));
    let of_members = guard.protected_members_of.iter().map(|name| ("[guard] protected_members_of", name));
    let of_groups = guard.protected_groups.iter().map(|name| ("[guard] protected_groups", name));
    of_risk.chain(of_members).chain(of_groups).map(|(place, name)| (place.to_owned(), name.clone())).collect()
}

fn apps(loaded: &Loaded) -> BTreeSet<(String, String)> {
    let mut apps = parameters(loaded, "okta.app.", "app");
    apps.extend(loaded.config.guard.protected_apps.iter().map(|id| ("[guard] protected_apps".to_owned(), id.clone())));
    apps
}

/// The fixed values of a parameter in all steps whose action begins with `prefix`, each with its place.
fn parameters(loaded: &Loaded, prefix: &str, parameter: &str) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for playbook in &loaded.playbooks {
        for step in playbook.steps.iter().filter(|step| step.action.name.starts_with(prefix)) {
            let params = step.with.unrendered();
            let value = params
                .get(parameter)
                .and_then(Value::as_str)
                .filter(|text| !text.contains("{{") && !text.contains("{%"));
            if let Some(value) = value {
                found.insert((format!("playbook \"{}\", step \"{}\"", playbook.name, step.name), value.to_owned()));
            }
        }
    }
    found
}
