//! `okta-responder actions`

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, anyhow};
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::moment::Moment;
use super::table::{self, Format, ListFormat, plural};
use super::{Exit, load_config, now, open_store, runtime, terminal};
use crate::model::action::ActionState;
use crate::model::ids::ActionId;
use crate::store::{ActionFilter, ActionRow, AttemptRow, PersonChange, PersonError, Store};

/// Show actions, and decide about those that wait for a person
///
/// An action is one step of one run, with its idempotency key, its state and its attempts. These commands work beside
/// the daemon, which sees a decision of yours within a second.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List actions, newest first
    List(List),
    /// Show one action with its attempts
    Show(Show),
    /// Try actions again now: those that failed, were refused or cancelled, or need attention
    #[command(after_help = after_change("retry"))]
    Retry(Ids),
    /// Take actions back that have not been sent
    #[command(after_help = after_change("cancel"))]
    Cancel(Ids),
    /// Allow actions that await approval
    #[command(after_help = after_change("approve"))]
    Approve(Ids),
    /// Say of actions that need attention that their effect is there; they are not sent again
    #[command(after_help = after_change("settle"))]
    Settle(Ids),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  okta-responder actions list --state needs_attention,awaiting_approval\n  \
    okta-responder actions list --state failed --since 24h --format json | jq .error")]
struct List {
    /// Only actions in these states
    #[arg(long, value_delimiter = ',', value_parser = states())]
    state: Vec<String>,
    /// Only actions of this run
    #[arg(long)]
    run: Option<i64>,
    /// Only this action, such as okta.group.add_user
    #[arg(long = "type", visible_alias = "action", value_name = "NAME")]
    kind: Option<String>,
    /// Only actions about this user (Okta's id)
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Only actions of this playbook
    #[arg(long, value_name = "NAME")]
    playbook: Option<String>,
    /// Only actions planned at or after this time (RFC 3339, or 36h before now)
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
#[command(
    after_help = "Examples:\n  okta-responder actions show 12\n\nExit codes: 0 shown; 1 there is no such action."
)]
struct Show {
    /// The action
    #[arg(value_parser = number)]
    action: i64,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
struct Ids {
    /// The actions; `okta-responder actions list` shows their numbers
    #[arg(required = true, value_name = "ID", value_parser = number)]
    actions: Vec<i64>,
}

/// What stands below the help of a command that changes actions.
fn after_change(command: &str) -> String {
    format!(
        "Examples:\n  okta-responder actions {command} 12 13\n\n\
         Each is changed by itself; what cannot be done is told with the reason.\n\n\
         Exit codes: 0 done for all of them; 1 not done for some."
    )
}

/// Reads the number of an action.
fn number(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("`{text}` is not the number of an action"))
}

fn states() -> PossibleValuesParser {
    ActionState::ALL.map(ActionState::as_str).into()
}

pub(super) fn run(file: &Path, arguments: Arguments) -> anyhow::Result<Exit> {
    let loaded = load_config(file)?;
    let store = open_store(&loaded)?;
    runtime()?.block_on(async {
        match arguments.command {
            Command::List(arguments) => list(&store, arguments).await,
            Command::Show(arguments) => show(&store, &arguments).await,
            Command::Retry(ids) => change(&store, &ids, PersonChange::Retry).await,
            Command::Cancel(ids) => change(&store, &ids, PersonChange::Cancel).await,
            Command::Approve(ids) => change(&store, &ids, PersonChange::Approve).await,
            Command::Settle(ids) => change(&store, &ids, PersonChange::Settle).await,
        }
    })
}

/// Prints actions as a list.
pub(super) fn tell_list(format: ListFormat, actions: &[ActionRow]) -> std::io::Result<()> {
    table::list(
        format,
        actions,
        ["ID", "RUN", "PLAYBOOK", "STEP", "ACTION", "USER", "STATE", "TRIES", "WHY"],
        |action| {
            [
                action.id.to_string(),
                action.run.to_string(),
                action.playbook.clone(),
                action.step.clone(),
                action.action.clone(),
                action.user.clone().unwrap_or_default(),
                action.state.clone(),
                action.attempts.to_string(),
                action.error.clone().or_else(|| action.reason.clone()).unwrap_or_default(),
            ]
        },
        "No actions.",
    )
}

async fn list(store: &Store, arguments: List) -> anyhow::Result<Exit> {
    let filter = ActionFilter {
        states: arguments.state,
        run: arguments.run,
        kind: arguments.kind,
        user: arguments.user,
        playbook: arguments.playbook,
        since: arguments.since.map(|since| since.at(now())),
        id: None,
        limit: arguments.limit,
    };
    tell_list(arguments.format, &store.list_actions(filter).await?)?;
    Ok(Exit::Done)
}

/// One action, as JSON.
#[derive(Debug, Serialize)]
struct Told {
    #[serde(flatten)]
    action: ActionRow,
    history: Vec<AttemptRow>,
}

async fn show(store: &Store, arguments: &Show) -> anyhow::Result<Exit> {
    let filter = ActionFilter { id: Some(arguments.action), limit: 1, ..ActionFilter::default() };
    let Some(action) = store.list_actions(filter).await?.pop() else {
        return Err(anyhow!("there is no action {}; `okta-responder actions list` shows them", arguments.action));
    };
    let history = store.list_attempts(action.id).await?;
    if arguments.format == Format::Json {
        table::json(&Told { action, history })?;
        return Ok(Exit::Done);
    }
    let told = |value: &Option<serde_json::Value>| value.as_ref().map(ToString::to_string).unwrap_or_default();
    table::fields(&[
        ("action", action.id.to_string()),
        ("does", action.action.clone()),
        ("run", action.run.to_string()),
        ("playbook", action.playbook.clone()),
        ("step", action.step.clone()),
        ("user", action.user.clone().unwrap_or_default()),
        ("state", action.state.clone()),
        ("reason", action.reason.clone().unwrap_or_default()),
        ("why", action.error.clone().unwrap_or_default()),
        ("due", action.due.map(|due| due.to_string()).unwrap_or_default()),
        ("parameters", told(&action.params)),
        ("receipt", told(&action.receipt)),
        ("lane", action.lane.clone().unwrap_or_default()),
        ("key", action.key.clone()),
        ("planned", action.created_at.to_string()),
        ("ended", action.finished_at.map(|at| at.to_string()).unwrap_or_default()),
    ])?;
    terminal::line("")?;
    // What was never sent and is at its end is no action that is still to be tried.
    let ended = ActionState::parse(&action.state).is_some_and(ActionState::is_final);
    table::whole(
        &history,
        ["TRY", "STARTED", "ENDED", "OUTCOME", "REASON", "DETAIL"],
        |attempt| {
            [
                attempt.number.to_string(),
                attempt.started_at.to_string(),
                attempt.ended_at.map(|at| at.to_string()).unwrap_or_default(),
                attempt.outcome.clone().unwrap_or_default(),
                attempt.reason.clone().unwrap_or_default(),
                attempt.detail.clone().unwrap_or_default(),
            ]
        },
        if ended { "Nothing was sent." } else { "It was not tried yet." },
    )?;
    Ok(Exit::Done)
}

async fn change(store: &Store, ids: &Ids, change: PersonChange) -> anyhow::Result<Exit> {
    let mut failed = 0;
    // A number that is given twice is one action.
    let actions: BTreeSet<i64> = ids.actions.iter().copied().collect();
    for id in &actions {
        match store.change_by_person(ActionId(*id), change, now()).await {
            Ok(state) => terminal::line(format!("action {id}: {state}"))?,
            Err(PersonError::Store(error)) => {
                return Err(error).with_context(|| format!("action {id} was not changed"));
            }
            Err(PersonError::WrongState { state: ActionState::Retry, .. }) if change == PersonChange::Retry => {
                failed += 1;
                let filter = ActionFilter { id: Some(*id), limit: 1, ..ActionFilter::default() };
                let due = store.list_actions(filter).await?.pop().and_then(|action| action.due);
                let when = due.map(|due| format!(" at {due}")).unwrap_or_default();
                terminal::note(format!("okta-responder: action {id} is to be tried again by itself: it is due{when}"));
            }
            Err(error) => {
                failed += 1;
                terminal::note(format!("okta-responder: {error}"));
            }
        }
    }
    match failed {
        0 => Ok(Exit::Done),
        _ if actions.len() == 1 => Ok(Exit::Failed),
        failed => Err(anyhow!("{failed} of {} were not changed", plural(actions.len() as u64, "action"))),
    }
}
