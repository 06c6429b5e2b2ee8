//! `okta-responder runs revert`

use anyhow::anyhow;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::table::{self, Format, ListFormat, plural};
use super::{Exit, now, person, terminal};
use crate::app;
use crate::config::{Config, Mode};
use crate::connectors::inverse::CLOSE_CODE;
use crate::engine::revert::{Kept, Plan, Undo};
use crate::model::ids::RunId;
use crate::store::{InstanceLock, RunRow, Store};

/// Undo what a run did, as far as it can be undone
///
/// Shows what undoes the run, asks, and leaves it to the daemon: who was suspended is let in again, who was put into a group
/// is taken out of it, groups and apps are given back, tickets are closed. Only what the run itself has changed is undone,
/// the last thing first. What was sent stays sent, and is named. What is still open of the run is taken back.
///
/// The actions that undo stand in a run of their own, with keys, attempts and the guard like all others: protected users,
/// groups and apps stay protected and observe mode touches nothing, but they count against no limit, because you have seen
/// them. Each reads its target first. A revert can be reverted like any other run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  okta-responder runs revert 7 --dry-run      what would be done\n  \
    okta-responder runs revert 7\n  okta-responder runs revert 7 --yes --format json\n\n\
    Reverted once more, only what came to nothing the first time is planned again.\n\n\
    Exit codes: 0 planned, shown, or nothing to do; 1 not done.")]
pub(super) struct Arguments {
    /// The run; `okta-responder runs list` shows their numbers
    #[arg(value_parser = number)]
    run: i64,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Also where a later run has done something about the same user and thing; without this such a revert is refused
    #[arg(long)]
    despite_newer: bool,
    /// What ServiceNow is told to have closed a ticket with: one of the table's own choices
    #[arg(long, value_name = "TEXT", default_value = CLOSE_CODE)]
    close_code: String,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Reads the number of a run.
fn number(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("`{text}` is not the number of a run"))
}

/// What is told, as JSON.
#[derive(Debug, Serialize)]
struct Told<'a> {
    run: &'a RunRow,
    #[serde(flatten)]
    plan: &'a Plan,
    /// The run that undoes it; null when nothing was planned.
    planned: Option<i64>,
}

pub(super) async fn run(config: &Config, store: &Store, arguments: &Arguments) -> anyhow::Result<Exit> {
    let id = RunId(arguments.run);
    let (Some(found), Some((row, _))) = (store.revertible(id).await?, store.find_run(arguments.run).await?) else {
        return Err(anyhow!("there is no run {id}; `okta-responder runs list` shows them"));
    };
    let plan = Plan::of(&found, &arguments.close_code)?;
    let is_text = arguments.format == Format::Text;
    if is_text {
        tell(&row, &plan)?;
    }
    let told = |planned| Told { run: &row, plan: &plan, planned };
    if plan.is_empty() || arguments.dry_run {
        match is_text {
            true if plan.is_empty() => terminal::line(nothing(&row))?,
            true => terminal::line("Nothing was changed: it was only to be shown.")?,
            false => table::json(&told(None))?,
        }
        return Ok(Exit::Done);
    }
    if config.guard.mode == Mode::Observe {
        return Err(anyhow!(
            "[guard] mode = \"observe\" touches nothing, and so undoes nothing; --dry-run shows the plan"
        ));
    }
    let newer = plan.conflicts().count();
    if newer > 0 && !arguments.despite_newer {
        let first = plan.conflicts().next().map(|(step, why)| format!("{step}: {why}")).unwrap_or_default();
        return Err(anyhow!(
            "{} of the plan would undo what a later run wants ({first}); look at it, then add --despite-newer",
            plural(newer as u64, "action")
        ));
    }
    let question = match (plan.undo.len() as u64, plan.cancel.len() as u64) {
        (0, open) => format!("Take back {} of run {id}?", plural(open, "action")),
        (undo, 0) => format!("Revert run {id} with {}?", plural(undo, "action")),
        (undo, open) => {
            format!("Take back {} of run {id} and revert it with {}?", plural(open, "action"), plural(undo, "action"))
        }
    };
    if !arguments.yes && !terminal::confirmed(&question)? {
        terminal::note("okta-responder: nothing was changed");
        return Ok(Exit::Failed);
    }
    let planned = store.plan_revert(plan.written(&found), &person(), now()).await?.run;
    if !is_text {
        table::json(&told(Some(planned.0)))?;
        return Ok(Exit::Done);
    }
    terminal::line(format!("Run {planned} reverts run {id}; `okta-responder runs show {planned}` tells how it ends."))?;
    if let Some(hint) = hint(config, store).await? {
        terminal::line(hint)?;
    }
    Ok(Exit::Done)
}

/// What keeps the daemon from doing it at once.
async fn hint(config: &Config, store: &Store) -> anyhow::Result<Option<&'static str>> {
    let daemon = InstanceLock::holder(&app::state_path(config))?;
    Ok(match daemon {
        None => Some("No daemon runs: it is done when one starts."),
        Some(_) if store.status(now()).await?.paused_since.is_some() => {
            Some("Dispatching is paused: it is done after `okta-responder resume`.")
        }
        Some(_) => None,
    })
}

fn nothing(run: &RunRow) -> String {
    let by: Vec<String> = run.reverted_by.iter().map(|by| format!("run {by}")).collect();
    match (by.is_empty(), run.mode.as_str()) {
        (false, _) => format!("Nothing to revert: {} did.", by.join(" and ")),
        (true, "observe") => format!("Nothing to revert: run {} only observed.", run.id),
        _ => "Nothing to revert.".to_owned(),
    }
}

fn tell(run: &RunRow, plan: &Plan) -> std::io::Result<()> {
    let about = run.user.as_ref().map(|user| format!(" about {user}")).unwrap_or_default();
    terminal::line(format!("Run {}: {}{about}, {}", run.id, run.playbook, run.created_at))?;
    if !plan.undo.is_empty() {
        terminal::line("\nIs undone, in this order:")?;
        let heading = ["STEP", "ACTION", "WITH", "NOTE"];
        let cells = |undo: &Undo| [undo.step.clone(), undo.action.to_owned(), with(undo), note(undo)];
        table::list(ListFormat::Text, &plan.undo, heading, cells, "")?;
    }
    for (heading, kept) in
        [("Is taken back:", &plan.cancel), ("Stays as it is:", &plan.stays), ("Nothing to undo:", &plan.nothing)]
    {
        if !kept.is_empty() {
            terminal::line(format!("\n{heading}"))?;
            let cells = |kept: &Kept| [kept.step.clone(), kept.action.clone(), kept.why.clone()];
            table::whole(kept, ["STEP", "ACTION", "WHY"], cells, "")?;
        }
    }
    terminal::line("")
}

/// The parameters in a few words.
fn with(undo: &Undo) -> String {
    let mut words: Vec<String> = Vec::new();
    for (name, value) in undo.params.as_object().into_iter().flatten() {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        words.push(format!("{name} = {value}"));
    }
    words.extend(undo.groups.iter().map(|group| format!("group {} ({})", group.name, group.id)));
    words.join(", ")
}

fn note(undo: &Undo) -> String {
    let after = (!undo.after.is_empty()).then(|| format!("after {}", undo.after.join(", ")));
    let words: Vec<String> = [undo.conflict.clone(), undo.warning.clone(), after].into_iter().flatten().collect();
    words.join("; ")
}
