//! `okta-responder status`

use std::path::Path;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::moment::{ago, span};
use super::table::{self, Format};
use super::{Exit, load_config, now, open_store, runtime, terminal};
use crate::app;
use crate::model::action::ActionState;
use crate::store::{InstanceLock, StatusSnapshot, StreamRow};

/// Tell how things stand
///
/// Tells whether a daemon runs, how far behind Okta it is, what is open, and what waits for a person. It reads the state
/// file beside the daemon and disturbs nothing.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  okta-responder status\n  okta-responder status --format json | jq .lag_seconds\n\n\
    Exit codes: 0 told; 1 there is no state file; 78 the configuration is wrong."
)]
pub(super) struct Arguments {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What is told, in the order of its JSON.
#[derive(Debug, Serialize)]
struct Told {
    /// Who works on the state file; null when nobody does.
    daemon: Option<String>,
    /// Our clock when this was told.
    now: Timestamp,
    /// Seconds since the last good poll of the live stream, by Okta's clock; null before the first.
    lag_seconds: Option<i64>,
    /// Actions that wait for a person.
    waiting_for_a_person: u64,
    #[serde(flatten)]
    snapshot: StatusSnapshot,
}

pub(super) fn run(file: &Path, arguments: &Arguments) -> anyhow::Result<Exit> {
    let loaded = load_config(file)?;
    let store = open_store(&loaded)?;
    let daemon = InstanceLock::holder(&app::state_path(&loaded.config))?;
    let now = now();
    let snapshot = runtime()?.block_on(store.status(now))?;
    let told = Told {
        daemon,
        now,
        lag_seconds: live(&snapshot)
            .and_then(|live| live.last_good_poll)
            .map(|last| now.duration_since(last).as_secs().max(0)),
        waiting_for_a_person: of_states(&snapshot, &FOR_A_PERSON),
        snapshot,
    };
    match arguments.format {
        Format::Json => table::json(&told)?,
        Format::Text => tell(&told)?,
    }
    Ok(Exit::Done)
}

/// The states that only a person ends.
const FOR_A_PERSON: [ActionState; 2] = [ActionState::NeedsAttention, ActionState::AwaitingApproval];

fn live(snapshot: &StatusSnapshot) -> Option<&StreamRow> {
    snapshot.streams.iter().find(|stream| stream.kind == "live")
}

fn of_states(snapshot: &StatusSnapshot, states: &[ActionState]) -> u64 {
    let wanted = |word: &str| states.iter().any(|state| state.as_str() == word);
    snapshot.actions.iter().filter(|(word, _)| wanted(word)).map(|(_, count)| count).sum()
}

fn tell(told: &Told) -> std::io::Result<()> {
    let (now, snapshot) = (told.now, &told.snapshot);
    let lag = told.lag_seconds.map(|lag| span(Duration::from_secs(lag.unsigned_abs())));
    table::fields(&[
        ("daemon", told.daemon.clone().unwrap_or_else(|| "not running".to_owned())),
        (
            "last good poll",
            match (live(snapshot), lag) {
                (None, _) => "the live stream has not begun".to_owned(),
                (Some(_), None) => "none yet".to_owned(),
                (Some(_), Some(lag)) => format!("{lag} ago, by Okta's clock"),
            },
        ),
        ("problem", live(snapshot).and_then(|live| live.problem.clone()).unwrap_or_default()),
        ("paused", snapshot.paused_since.map(|since| paused(since, now)).unwrap_or_default()),
        ("events", table::counts(&snapshot.events)),
        ("runs", snapshot.runs.to_string()),
        ("actions", table::counts(&snapshot.actions)),
        ("oldest undecided", snapshot.oldest_undecided.map(|since| ago(since, now)).unwrap_or_default()),
        ("oldest open action", snapshot.oldest_open_action.map(|since| ago(since, now)).unwrap_or_default()),
        ("quarantined", Some(snapshot.quarantined).filter(|n| *n > 0).map(|n| n.to_string()).unwrap_or_default()),
    ])?;
    for stream in snapshot.streams.iter().filter(|stream| stream.kind == "backfill" && stream.state == "active") {
        terminal::line(format!("backfill {}  {}", stream.id, super::backfill::in_words(stream)))?;
    }
    tell_persons_work(snapshot)
}

fn paused(since: Timestamp, now: Timestamp) -> String {
    format!("since {since} ({}); `okta-responder resume` goes on", ago(since, now))
}

/// What a person should look at, each with the command that shows it.
fn tell_persons_work(snapshot: &StatusSnapshot) -> std::io::Result<()> {
    let of = |state| of_states(snapshot, &[state]);
    let list = "okta-responder actions list --state";
    let lines = [
        (of(ActionState::NeedsAttention), "needs attention", format!("{list} needs_attention")),
        (of(ActionState::AwaitingApproval), "awaits approval", format!("{list} awaiting_approval")),
        (snapshot.in_doubt_last_day, "may not have been sent (last 24 h)", format!("{list} settled --since 24h")),
        (snapshot.failed_last_day, "failed (last 24 h)", format!("{list} failed --since 24h")),
        (snapshot.quarantined, "could not be read as an event", "okta-responder events quarantine".to_owned()),
    ];
    let open: Vec<_> = lines.iter().filter(|(count, _, _)| *count > 0).collect();
    if open.is_empty() {
        return terminal::line("\nNothing waits for a person.");
    }
    terminal::line("\nFor a person:")?;
    for (count, what, command) in open {
        terminal::line(format!("  {count} {what}: {command}"))?;
    }
    Ok(())
}
