//! `okta-responder runs`

use std::path::Path;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use super::moment::Moment;
use super::table::{self, Format, ListFormat};
use super::{Exit, actions, load_for_state, now, open_store, revert, runtime, terminal};
use crate::store::{ActionFilter, ActionRow, RunFilter, RunRow, Store};

/// Show runs: playbooks applied to events
///
/// A run is one playbook applied to one event; these commands show them beside the daemon.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List runs, newest first
    List(List),
    /// Show one run and its actions
    Show(Show),
    Revert(revert::Arguments),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  okta-responder runs list --playbook user-risk-changed --since 24h\n  \
    okta-responder runs list --event dc9fd3c0-598c-11ef-8478-2b7584bf8d5a --format json")]
struct List {
    /// Only runs of this playbook
    #[arg(long, value_name = "NAME")]
    playbook: Option<String>,
    /// Only runs for this event (its number here, or Okta's uuid)
    #[arg(long, value_name = "EVENT")]
    event: Option<String>,
    /// Only runs decided at or after this time (RFC 3339, or 36h before now)
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// At most so many; 0 for all
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ListFormat,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  okta-responder runs show 7\n\nExit codes: 0 shown; 1 there is no such run.")]
struct Show {
    /// The run
    run: i64,
    /// Show the facts that were fetched for it too; they hold profiles
    #[arg(long)]
    facts: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(file: &Path, arguments: Arguments) -> anyhow::Result<Exit> {
    let config = load_for_state(file)?;
    let store = open_store(&config)?;
    runtime()?.block_on(async {
        match arguments.command {
            Command::List(arguments) => list(&store, arguments).await,
            Command::Show(arguments) => show(&store, &arguments).await,
            Command::Revert(arguments) => revert::run(&config, &store, &arguments).await,
        }
    })
}

async fn list(store: &Store, arguments: List) -> anyhow::Result<Exit> {
    let filter = RunFilter {
        playbook: arguments.playbook,
        event: arguments.event,
        since: arguments.since.map(|since| since.at(now())),
        limit: arguments.limit,
    };
    let runs = store.list_runs(filter).await?;
    table::list(
        arguments.format,
        &runs,
        ["ID", "DECIDED", "PLAYBOOK", "MODE", "EVENT", "TYPE", "USER", "ACTIONS"],
        |run| {
            [
                run.id.to_string(),
                run.created_at.to_string(),
                run.playbook.clone(),
                run.mode.clone(),
                run.event.to_string(),
                run.event_type.clone(),
                run.user.clone().unwrap_or_default(),
                run.actions.clone(),
            ]
        },
        "No runs.",
    )?;
    Ok(Exit::Done)
}

/// One run, as JSON.
#[derive(Debug, Serialize)]
struct Told {
    #[serde(flatten)]
    run: RunRow,
    steps: Vec<ActionRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<Value>,
}

async fn show(store: &Store, arguments: &Show) -> anyhow::Result<Exit> {
    let Some((run, facts)) = store.find_run(arguments.run).await? else {
        return Err(anyhow!("there is no run {}; `okta-responder runs list` shows them", arguments.run));
    };
    let mut steps = store.list_actions(ActionFilter { run: Some(run.id), ..ActionFilter::default() }).await?;
    steps.reverse();
    let facts = facts.filter(|_| arguments.facts);
    if arguments.format == Format::Json {
        table::json(&Told { run, steps, facts })?;
        return Ok(Exit::Done);
    }
    let mut fields = vec![
        ("run", run.id.to_string()),
        ("playbook", run.playbook.clone()),
        ("mode", run.mode.clone()),
        ("event", format!("{} ({})", run.event, run.event_uuid)),
        ("type", run.event_type.clone()),
        ("user", run.user.clone().unwrap_or_default()),
        ("decided", run.created_at.to_string()),
    ];
    fields.extend(run.reverts.map(|of| ("reverts", format!("run {of}"))));
    let by: Vec<String> = run.reverted_by.iter().map(|by| format!("run {by}")).collect();
    if !by.is_empty() {
        fields.push(("reverted by", by.join(", ")));
    }
    table::fields(&fields)?;
    terminal::line("")?;
    actions::tell_list(ListFormat::Text, &steps)?;
    if let Some(facts) = facts {
        terminal::line("")?;
        terminal::json(&format!("{facts:#}"))?;
    }
    Ok(Exit::Done)
}
