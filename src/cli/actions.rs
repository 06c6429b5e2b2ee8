//! `okta-responder actions`

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, anyhow};
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::moment::Moment;
use super::table::{self, Format, ListFormat, plural};
use super::{Exit, load_for_state, now, open_store, runtime, terminal};
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
    /// Try actions again now: those that failed, were refused or cancelled, need attention, or are delayed
    #[command(after_help = after_change("retry"))]
    Retry(Ids),
    /// Take actions back that have not been sent
    #[command(after_help = after_change("cancel"))]
    Cancel(Chosen),
    /// Allow actions that await approval
    ///
    /// They go past the limits, a stop of their playbook and max_event_age. Protected users, groups and apps stay
    /// protected, and observe mode touches nothing.
    #[command(after_help = after_change("approve"))]
    Approve(Chosen),
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

/// Actions by number, or all of those that await approval.
#[derive(Debug, Args)]
struct Chosen {
    /// The actions; `okta-responder actions list` shows their numbers
    #[arg(required_unless_present_any = ["playbook", "all"], value_name = "ID", value_parser = number)]
    actions: Vec<i64>,
    /// Every action of this playbook that awaits approval
    #[arg(long, value_name = "NAME", conflicts_with = "actions")]
    playbook: Option<String>,
    /// Every action that awaits approval
    #[arg(long, conflicts_with_all = ["actions", "playbook"])]
    all: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
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
    let store = open_store(&load_for_state(file)?)?;
    runtime()?.block_on(async {
        match arguments.command {
            Command::List(arguments) => list(&store, arguments).await,
            Command::Show(arguments) => show(&store, &arguments).await,
            Command::Retry(ids) => change(&store, &ids.actions, PersonChange::Retry).await,
            Command::Cancel(chosen) => change_chosen(&store, chosen, PersonChange::Cancel).await,
            Command::Approve(chosen) => change_chosen(&store, chosen, PersonChange::Approve).await,
            Command::Settle(ids) => change(&store, &ids.actions, PersonChange::Settle).await,
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
                why(action),
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
    let mut fields = vec![
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
        ("delayed until", action.delayed_until.map(|until| until.to_string()).unwrap_or_default()),
        ("unless then", action.cancel_if.clone().unwrap_or_default()),
        ("parameters", told(&action.params)),
        ("receipt", told(&action.receipt)),
        ("lane", action.lane.clone().unwrap_or_default()),
        ("key", action.key.clone()),
        ("planned", action.created_at.to_string()),
        ("approved", approval(&action)),
        ("ended", action.finished_at.map(|at| at.to_string()).unwrap_or_default()),
    ];
    fields.extend(action.reverts.map(|of| ("reverts", format!("action {of}"))));
    table::fields(&fields)?;
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

fn approval(action: &ActionRow) -> String {
    match (&action.approved_at, &action.approved_by) {
        (Some(at), Some(by)) => format!("{at} by {by}"),
        (Some(at), None) => at.to_string(),
        _ => String::new(),
    }
}

/// What people are told of an action besides its state.
fn why(action: &ActionRow) -> String {
    match action.delayed_until {
        Some(until) => format!("delayed until {until}"),
        None => action.error.clone().or_else(|| action.reason.clone()).unwrap_or_default(),
    }
}

/// Changes the actions that are named, or all that await approval after telling what they are and asking.
async fn change_chosen(store: &Store, chosen: Chosen, change: PersonChange) -> anyhow::Result<Exit> {
    if !chosen.actions.is_empty() {
        return self::change(store, &chosen.actions, change).await;
    }
    let filter = ActionFilter {
        states: vec![ActionState::AwaitingApproval.as_str().to_owned()],
        playbook: chosen.playbook,
        ..ActionFilter::default()
    };
    let mut actions = store.list_actions(filter).await?;
    if actions.is_empty() {
        terminal::line("No actions await approval.")?;
        return Ok(Exit::Done);
    }
    actions.reverse();
    for line in summary(&actions) {
        terminal::line(line)?;
    }
    let verb = if change == PersonChange::Approve { "Approve" } else { "Cancel" };
    let question = format!("{verb} {}?", plural(actions.len() as u64, "action"));
    if !chosen.yes && !terminal::confirmed(&question)? {
        terminal::note("okta-responder: nothing was changed");
        return Ok(Exit::Failed);
    }
    let actions: Vec<i64> = actions.iter().map(|action| action.id).collect();
    self::change(store, &actions, change).await
}

/// What some actions would do, counted by playbook and action, and the users whom they are about.
fn summary(actions: &[ActionRow]) -> Vec<String> {
    /// Users named before the rest is only counted.
    const NAMED: usize = 10;
    let mut groups: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for action in actions {
        let group = (action.playbook.as_str(), action.action.as_str());
        *counts.entry(group).or_default() += 1;
        groups.entry(group).or_default().extend(action.user.as_deref());
    }
    let line = |(group, users): (&(&str, &str), &BTreeSet<&str>)| {
        let (playbook, action) = group;
        let named = users.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        let more = users.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let count = counts.get(group).copied().unwrap_or_default();
        format!("{count} × {action} ({playbook}): {named}{more}")
    };
    groups.iter().map(line).collect()
}

async fn change(store: &Store, ids: &[i64], change: PersonChange) -> anyhow::Result<Exit> {
    let mut failed = 0;
    // A number that is given twice is one action.
    let actions: BTreeSet<i64> = ids.iter().copied().collect();
    let person = super::person();
    for id in &actions {
        match store.change_by(ActionId(*id), change, &person, now()).await {
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
