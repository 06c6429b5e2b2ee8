//! `okta-responder events`

use std::path::Path;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use super::moment::Moment;
use super::table::{self, Format, ListFormat};
use super::{Exit, load_for_state, now, open_store, runtime, terminal};
use crate::playbook::facts;
use crate::store::{EventFilter, EventRow, RunFilter, RunRow, Store};

/// Show events
///
/// Events are kept in the state file as they came from Okta; these commands show them beside the daemon.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List events, newest first
    List(List),
    /// Show one event and its runs
    Show(Show),
    /// List records that could not be read as events
    Quarantine(Quarantine),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  okta-responder events list --type user.risk.detect --since 24h\n  \
    okta-responder events list --user 00u1abcdefGHIJKLMN697 --limit 0 --format json | jq -r .uuid")]
struct List {
    /// Only events in this state
    #[arg(long, value_parser = ["held", "new", "decided", "skipped", "superseded"])]
    state: Option<String>,
    /// Only events of this type, such as user.risk.detect
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only events about this user (Okta's id)
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Only events published at or after this time (RFC 3339, or 36h before now)
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
#[command(after_help = "Examples:\n  okta-responder events show 42\n  \
    okta-responder events show dc9fd3c0-598c-11ef-8478-2b7584bf8d5a --body > event.json\n\n\
    Exit codes: 0 shown; 1 there is no such event, or its record is not kept any more.")]
struct Show {
    /// The event: its number here, or Okta's uuid
    event: String,
    /// Show the record itself and nothing else, without what may hold login tokens in debugData
    #[arg(long)]
    body: bool,
    /// Show the record exactly as Okta sent it; it may hold login tokens
    #[arg(long, requires = "body")]
    raw: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
struct Quarantine {
    /// At most so many; 0 for all
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Show the records too; they may hold sensitive data
    #[arg(long)]
    body: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ListFormat,
}

pub(super) fn run(file: &Path, arguments: Arguments) -> anyhow::Result<Exit> {
    let store = open_store(&load_for_state(file)?)?;
    runtime()?.block_on(async {
        match arguments.command {
            Command::List(arguments) => list(&store, arguments).await,
            Command::Show(arguments) => show(&store, arguments).await,
            Command::Quarantine(arguments) => quarantine(&store, &arguments).await,
        }
    })?;
    Ok(Exit::Done)
}

async fn list(store: &Store, arguments: List) -> anyhow::Result<()> {
    let filter = EventFilter {
        state: arguments.state,
        event_type: arguments.event_type,
        user: arguments.user,
        since: arguments.since.map(|since| since.at(now())),
        limit: arguments.limit,
    };
    let events = store.list_events(filter).await?;
    table::list(
        arguments.format,
        &events,
        ["ID", "PUBLISHED", "TYPE", "USER", "RISK", "STATE", "REASON"],
        |event| {
            [
                event.id.to_string(),
                event.published.to_string(),
                event.event_type.clone(),
                event.user.clone().unwrap_or_default(),
                event.risk.clone().unwrap_or_default(),
                event.state.clone(),
                event.reason.clone().unwrap_or_default(),
            ]
        },
        "No events.",
    )?;
    Ok(())
}

/// One event, as JSON.
#[derive(Debug, Serialize)]
struct Told {
    #[serde(flatten)]
    event: EventRow,
    runs: Vec<RunRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Value>,
}

async fn show(store: &Store, arguments: Show) -> anyhow::Result<()> {
    let Some((event, body)) = store.find_event(&arguments.event).await? else {
        return Err(anyhow!("there is no event `{}`; `okta-responder events list` shows them", arguments.event));
    };
    let runs = store.list_runs(RunFilter { event: Some(event.uuid.clone()), ..RunFilter::default() }).await?;
    let body = body.filter(|_| arguments.body).map(|body| if arguments.raw { body } else { facts::redacted(&body) });
    if arguments.format == Format::Json {
        table::json(&Told { event, runs, body })?;
        return Ok(());
    }
    if let Some(body) = body {
        terminal::json(&format!("{body:#}"))?;
        return Ok(());
    }
    if arguments.body {
        return Err(anyhow!("the record of event {} is not kept any more; without --body the rest is shown", event.id));
    }
    table::fields(&[
        ("event", event.id.to_string()),
        ("uuid", event.uuid.clone()),
        ("source", event.source.clone()),
        ("type", event.event_type.clone()),
        ("published", event.published.to_string()),
        ("received", event.received_at.to_string()),
        ("user", event.user.clone().unwrap_or_default()),
        ("risk", event.risk.clone().unwrap_or_default()),
        ("state", event.state.clone()),
        ("reason", event.reason.clone().unwrap_or_default()),
        ("stream", event.stream.to_string()),
    ])?;
    for run in &runs {
        terminal::line(format!("run {}  {} ({}): {}", run.id, run.playbook, run.mode, run.actions))?;
    }
    Ok(())
}

async fn quarantine(store: &Store, arguments: &Quarantine) -> anyhow::Result<()> {
    let mut records = store.list_quarantine(arguments.limit).await?;
    if !arguments.body {
        records.iter_mut().for_each(|record| record.raw.clear());
    }
    table::list(
        arguments.format,
        &records,
        ["ID", "RECEIVED", "STREAM", "ERROR", "RECORD"],
        |record| {
            [
                record.id.to_string(),
                record.received_at.to_string(),
                record.stream.to_string(),
                record.error.clone(),
                record.raw.clone(),
            ]
        },
        "No records in quarantine.",
    )?;
    Ok(())
}
