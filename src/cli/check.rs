//! `okta-responder check`

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::online::{self, Row, State};
use super::table::{self, Format, plural};
use super::{Exit, runtime, tell_problems, terminal};
use crate::app;
use crate::app::rights::{self, Need};
use crate::config::load::{self, Loaded};
use crate::config::network::told_ways;
use crate::config::playtest;
use crate::config::problem::Problem;
use crate::config::secret::SecretEnv;
use crate::config::values;
use crate::connectors::Service;
use crate::engine::wanted_types;
use crate::okta::logs::filter_for;
use crate::okta::rights::Role;
use crate::store::{self, StoreError};

/// Tell everything that is wrong with the configuration
///
/// Reads the configuration, the playbooks beside it and the secrets, and tells everything that is wrong, all at once, with
/// file, line and remedy. Nothing is asked of any service unless --online is given.
///
/// With --online it also asks every service that is configured, and tells row by row whether the daemon would work: the
/// token, the log and the events of risk, our admin roles, every group, user and app that is named, ServiceNow's table, the
/// channels in Slack, the mail server. It changes nothing anywhere, so that some things can only be noted: they are marked
/// as such, and are no failure. In JSON such a row has `ok: true` all the same: scripts read `state` (ok, note, failed).
///
/// With --state it also reads the state file from end to end, beside a running daemon or without one, and tells what is
/// damaged in it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  okta-responder check\n  okta-responder --config new.toml check --online\n  \
    okta-responder check --state\n  okta-responder check --format json | jq -r '.message // empty'\n\n\
    Exit codes: 0 all is well; 1 a service says no; 69 a service cannot be reached; 78 the \
    configuration is wrong or the state file is damaged.")]
pub(super) struct Arguments {
    /// Ask Okta and the other services too
    #[arg(long)]
    online: bool,
    /// Read the whole state file too, and tell whether it is damaged
    #[arg(long)]
    state: bool,
    /// Tell of each right at Okta what it is for, too
    #[arg(long, short)]
    verbose: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(file: &Path, arguments: &Arguments) -> anyhow::Result<Exit> {
    let env = SecretEnv::of_process();
    let loaded = if arguments.online {
        load::load_with_secrets(file, &env)
    } else {
        load::load_with_secrets_at_hand(file, &env)
    };
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => return tell_wrong(&problems, arguments.format),
    };
    if let Err(problems) = playtest::compile(&loaded) {
        return tell_wrong(&problems, arguments.format);
    }
    let found = Found::of(&loaded, &env)?;
    match arguments.format {
        Format::Json => table::json(&found)?,
        Format::Text => found.tell(arguments.verbose)?,
    }
    if arguments.state {
        let row = state_row(&app::state_path(&loaded.config))?;
        tell_row(&row, arguments.format)?;
        if !row.ok {
            return Ok(Exit::Configuration);
        }
    }
    if !arguments.online {
        return Ok(Exit::Done);
    }
    let rows = runtime()?.block_on(online::check(&loaded, &env, |row| tell_row(row, arguments.format)))?;
    if arguments.format == Format::Text {
        terminal::line(summary(&rows))?;
    }
    Ok(verdict(&rows))
}

fn tell_wrong(problems: &[Problem], format: Format) -> anyhow::Result<Exit> {
    match format {
        Format::Json => problems.iter().try_for_each(|problem| terminal::json(&problem.to_json()))?,
        Format::Text => {
            tell_problems(problems);
            terminal::note(plural(problems.len() as u64, "problem"));
        }
    }
    Ok(Exit::Configuration)
}

/// Reads the whole state file. What cannot be read at all is an error, with a remedy of its own.
fn state_row(state: &Path) -> anyhow::Result<Row> {
    let found = store::check_file(state).with_context(|| format!("state file {}", state.display()))?;
    let (state, detail) = if found.is_empty() {
        (State::Ok, format!("{} is whole", state.display()))
    } else {
        let found = found.join("; ");
        (State::Failed, format!("{} is damaged: {found}. {}", state.display(), StoreError::Corrupt))
    };
    let ok = state == State::Ok;
    Ok(Row { check: "state file".to_owned(), ok, state, unreachable: false, detail, remedy: None })
}

/// The last line for people.
fn summary(rows: &[Row]) -> String {
    let of = |state: State| rows.iter().filter(|row| row.state == state).count() as u64;
    let notes = match of(State::Note) {
        0 => String::new(),
        notes => format!(" ({} to read)", plural(notes, "note")),
    };
    match of(State::Failed) {
        0 => format!("the daemon would work{notes}"),
        1 => format!("1 thing stands in the daemon's way{notes}"),
        failed => format!("{failed} things stand in the daemon's way{notes}"),
    }
}

fn verdict(rows: &[Row]) -> Exit {
    if rows.iter().any(|row| row.unreachable) {
        Exit::Unavailable
    } else if rows.iter().any(|row| !row.ok) {
        Exit::Failed
    } else {
        Exit::Done
    }
}

fn tell_row(row: &Row, format: Format) -> std::io::Result<()> {
    match format {
        Format::Json => table::json(row),
        Format::Text => {
            let mark = match row.state {
                State::Ok => "ok    ",
                State::Note => "note  ",
                State::Failed => "FAILED",
            };
            terminal::line(format!("{mark}  {}: {}", row.check, row.detail))?;
            row.remedy.iter().try_for_each(|remedy| terminal::line(format!("        remedy: {remedy}")))
        }
    }
}

/// A configuration in which nothing is wrong, in numbers.
#[derive(Debug, Serialize)]
struct Found {
    config: String,
    org: String,
    /// How the org is written, where that had to be understood.
    #[serde(skip_serializing_if = "Option::is_none")]
    org_written: Option<String>,
    /// Which way every service is reached.
    network: BTreeMap<String, String>,
    state: String,
    playbooks: usize,
    steps: usize,
    services: Vec<&'static str>,
    event_types: Vec<String>,
    /// What Okta is asked to filter by; null when the filter is applied on our side.
    filter: Option<String>,
    mode: &'static str,
    /// The service app that signs in to Okta; null with an API token.
    #[serde(rename = "client_id")]
    signs_in: Option<String>,
    /// The scopes that a service app has to be granted.
    scopes: Vec<String>,
    /// What has to be granted at Okta, each right with what it is for.
    rights: Vec<Granted>,
    /// The admin roles that are enough together.
    roles: Vec<Role>,
    /// Whether some playbook wants events that are not shown to everybody who may read the log.
    wants_risk_events: bool,
}

/// One right at Okta.
#[derive(Debug, Serialize)]
struct Granted {
    /// The OAuth scope.
    scope: &'static str,
    /// What it allows, in words.
    right: String,
    /// The least standard role that is enough.
    role: Role,
    /// What a custom role needs to be enough as well; empty where Okta names nothing.
    permissions: &'static [&'static str],
    /// Settings and steps.
    #[serde(rename = "for")]
    purposes: Vec<String>,
}

impl From<Need> for Granted {
    fn from(Need { right, purposes }: Need) -> Self {
        Self {
            scope: right.scope(),
            right: right.to_string(),
            role: right.role(),
            permissions: right.permissions(),
            purposes,
        }
    }
}

impl Found {
    fn of(loaded: &Loaded, env: &SecretEnv) -> anyhow::Result<Self> {
        let config = &loaded.config;
        let org = config.org_url()?;
        let wanted = wanted_types(&loaded.playbooks, &config.risk);
        let configured = [
            (Service::Okta, true),
            (Service::ServiceNow, config.servicenow.is_some()),
            (Service::Jira, config.jira.is_some()),
            (Service::PagerDuty, config.pagerduty.is_some()),
            (Service::Slack, config.slack.is_some()),
            (Service::Teams, config.teams.is_some()),
            (Service::Email, config.email.is_some()),
            (Service::Http, !config.http.is_empty()),
        ];
        Ok(Self {
            config: loaded.sources.main_file().display().to_string(),
            org: org.as_str().trim_end_matches('/').to_owned(),
            org_written: values::understood(&config.okta.org_url, &org).map(|_| config.okta.org_url.clone()),
            network: told_ways(config, env)?.into_iter().collect(),
            state: app::state_path(config).display().to_string(),
            playbooks: loaded.playbooks.len(),
            steps: loaded.config.playbooks.iter().map(|playbook| playbook.steps.len()).sum(),
            services: configured
                .into_iter()
                .filter(|(_, there)| *there)
                .map(|(service, _)| service.section())
                .collect(),
            filter: filter_for(&wanted, config.poll.max_filter_types),
            event_types: wanted.into_iter().collect(),
            mode: match config.guard.mode {
                crate::config::Mode::Enforce => "enforce",
                crate::config::Mode::Observe => "observe",
            },
            signs_in: config.okta.client_id.clone(),
            scopes: rights::scopes(loaded).into_iter().collect(),
            rights: rights::needs(loaded).into_iter().map(Granted::from).collect(),
            roles: rights::roles(loaded).into_iter().collect(),
            wants_risk_events: rights::wants_risk_events(loaded),
        })
    }

    /// Which way every service is reached, those that go the same way together.
    fn ways(&self) -> String {
        let mut by_way: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (service, way) in &self.network {
            by_way.entry(way).or_default().push(service);
        }
        let told: Vec<_> =
            by_way.into_iter().map(|(way, services)| format!("{}: {way}", services.join(", "))).collect();
        told.join("; ")
    }

    fn tell(&self, verbose: bool) -> std::io::Result<()> {
        let playbooks = plural(self.playbooks as u64, "playbook");
        table::fields(&[
            ("configuration", format!("{} is well: {playbooks}, {}", self.config, plural(self.steps as u64, "step"))),
            (
                "org",
                match &self.org_written {
                    Some(written) => format!("{} (understood from `{}`)", self.org, written.escape_debug()),
                    None => self.org.clone(),
                },
            ),
            ("state file", self.state.clone()),
            ("services", self.services.join(", ")),
            ("network", self.ways()),
            ("event types", self.event_types.join(", ")),
            (
                "filter",
                self.filter
                    .clone()
                    .unwrap_or_else(|| "none at Okta: the log is read whole and filtered here".to_owned()),
            ),
            ("mode", if self.mode == "observe" { "observe: nothing is touched" } else { "enforce" }.to_owned()),
            ("scopes to grant", self.signs_in.as_ref().map(|_| self.scopes.join(", ")).unwrap_or_default()),
            (
                if self.signs_in.is_some() { "roles to grant" } else { "token's owner needs" },
                self.roles.iter().map(|role| role.label).collect::<Vec<_>>().join("; "),
            ),
            ("risk events", if self.wants_risk_events { RISK_EVENTS_SHOWN.to_owned() } else { String::new() }),
        ])?;
        self.rights.iter().filter(|_| verbose).try_for_each(|granted| {
            terminal::line(format!("\n{} ({})", granted.right, granted.scope))?;
            terminal::line(format!("  role: {}{}", granted.role.label, custom(granted.permissions)))?;
            granted.purposes.iter().try_for_each(|purpose| terminal::line(format!("  for: {purpose}")))
        })
    }
}

/// Who is shown events of risk.
const RISK_EVENTS_SHOWN: &str = "without Identity Threat Protection (Adaptive MFA only) they are shown to a directly assigned \
                                 Super Administrator alone";

fn custom(permissions: &[&str]) -> String {
    if permissions.is_empty() {
        String::new()
    } else {
        format!(", or a custom role with {}", permissions.join(" and "))
    }
}
