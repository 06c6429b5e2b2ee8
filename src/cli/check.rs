//! `okta-responder check`

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::online::{self, Row};
use super::table::{self, Format, plural};
use super::{Exit, runtime, tell_problems, terminal};
use crate::app;
use crate::config::load::{self, Loaded};
use crate::config::network::told_ways;
use crate::config::problem::Problem;
use crate::config::secret::SecretEnv;
use crate::config::values;
use crate::connectors::Service;
use crate::engine::wanted_types;
use crate::okta::logs::filter_for;
use crate::store::{self, StoreError};

/// Tell everything that is wrong with the configuration
///
/// Reads the configuration, the playbooks beside it and the secrets, and tells everything that is wrong, all at once, with
/// file, line and remedy. Nothing is asked of any service unless --online is given.
///
/// With --online it also tries, one after the other: whether the token is accepted, the log can be read, every group and
/// app that is named is there, and ServiceNow, Slack and the mail server let us in (a webhook cannot be tried without
/// posting to it). It changes nothing anywhere.
///
/// With --state it also reads the state file from end to end, beside a running daemon or without one, and tells what is
/// damaged in it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  okta-responder check\n  okta-responder --config new.toml check --online\n  \
    okta-responder check --state\n  okta-responder check --format json | jq -r .message\n\n\
    Exit codes: 0 all is well; 1 a service says no; 69 a service cannot be reached; 78 the \
    configuration is wrong or the state file is damaged.")]
pub(super) struct Arguments {
    /// Ask Okta and the other services too
    #[arg(long)]
    online: bool,
    /// Read the whole state file too, and tell whether it is damaged
    #[arg(long)]
    state: bool,
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
    let found = Found::of(&loaded, &env)?;
    match arguments.format {
        Format::Json => table::json(&found)?,
        Format::Text => found.tell()?,
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
    let detail = if found.is_empty() {
        format!("{} is whole", state.display())
    } else {
        format!("{} is damaged: {}. {}", state.display(), found.join("; "), StoreError::Corrupt)
    };
    Ok(Row { check: "state file".to_owned(), ok: found.is_empty(), unreachable: false, detail })
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
            let mark = if row.ok { "ok    " } else { "FAILED" };
            terminal::line(format!("{mark}  {}: {}", row.check, row.detail))
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
    network: BTreeMap<&'static str, String>,
    state: String,
    playbooks: usize,
    steps: usize,
    services: Vec<&'static str>,
    event_types: Vec<String>,
    /// What Okta is asked to filter by; null when the filter is applied on our side.
    filter: Option<String>,
    mode: &'static str,
}

impl Found {
    fn of(loaded: &Loaded, env: &SecretEnv) -> anyhow::Result<Self> {
        let config = &loaded.config;
        let org = config.org_url()?;
        let wanted = wanted_types(&loaded.playbooks, &config.risk);
        let configured = [
            (Service::Okta, true),
            (Service::ServiceNow, config.servicenow.is_some()),
            (Service::Slack, config.slack.is_some()),
            (Service::Teams, config.teams.is_some()),
            (Service::Email, config.email.is_some()),
        ];
        Ok(Self {
            config: loaded.sources.main_file().display().to_string(),
            org: org.as_str().trim_end_matches('/').to_owned(),
            org_written: values::understood(&config.okta.org_url, &org).map(|_| config.okta.org_url.clone()),
            network: told_ways(config, env)?.into_iter().collect(),
            state: app::state_path(config).display().to_string(),
            playbooks: loaded.playbooks.len(),
            steps: loaded.playbooks.iter().map(|playbook| playbook.steps.len()).sum(),
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

    fn tell(&self) -> std::io::Result<()> {
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
        ])
    }
}
