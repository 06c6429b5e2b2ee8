//! `okta-responder pause` and `okta-responder resume`

use std::path::Path;

use anyhow::anyhow;
use clap::Args;

use super::table::plural;
use super::{Exit, load_config, load_for_state, now, open_store, person, runtime, terminal};
use crate::config::load::{self, Loaded};
use crate::store::LetGo;

/// Stop dispatching; polling and deciding go on
///
/// Stops dispatching: nothing is sent any more to Okta or any other service but reading the log. Events are still
/// stored and decided, so that nothing is lost. A request that is under way is not called back. It works beside the
/// daemon, which sees it within a second, and lasts across restarts.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  okta-responder pause\n  okta-responder status          says since when\n  \
    okta-responder resume\n  okta-responder pause --playbook user-risk-changed")]
pub(super) struct PauseArguments {
    /// Only this playbook, and only its changes of access: they await approval until it is resumed
    #[arg(long, value_name = "NAME")]
    playbook: Option<String>,
}

/// Start dispatching again
///
/// Starts dispatching again: what has gathered is done, in the order of the events.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  okta-responder actions list --state ready     what will be done\n  \
    okta-responder actions cancel 12              but not this\n  okta-responder resume\n  \
    okta-responder resume --playbook user-risk-changed")]
pub(super) struct ResumeArguments {
    /// Only this playbook, which went over a limit or was paused. What was held back goes on, up to the limits again
    #[arg(long, value_name = "NAME")]
    playbook: Option<String>,
}

pub(super) fn pause(file: &Path, arguments: &PauseArguments) -> anyhow::Result<Exit> {
    match &arguments.playbook {
        None => set(file, true),
        Some(playbook) => stop(file, playbook),
    }
}

pub(super) fn resume(file: &Path, arguments: &ResumeArguments) -> anyhow::Result<Exit> {
    match &arguments.playbook {
        None => set(file, false),
        Some(playbook) => let_go_on(file, playbook),
    }
}

fn set(file: &Path, paused: bool) -> anyhow::Result<Exit> {
    let store = open_store(&load_for_state(file)?)?;
    let (changed, stopped) = runtime()?.block_on(async {
        let changed = store.set_paused(paused, now()).await?;
        anyhow::Ok((changed, store.trips().await?))
    })?;
    terminal::line(match (paused, changed) {
        (true, true) => "Dispatching is paused; `okta-responder resume` goes on.",
        (true, false) => "Dispatching was paused already; `okta-responder status` says since when.",
        (false, true) => "Dispatching goes on.",
        (false, false) => "Dispatching was not paused.",
    })?;
    for trip in stopped.iter().filter(|_| !paused) {
        let playbook = &trip.playbook;
        let hint = format!("`okta-responder resume --playbook \"{playbook}\"` lets it go on");
        terminal::line(format!("The playbook `{playbook}` is still stopped: {}; {hint}.", trip.why))?;
    }
    Ok(Exit::Done)
}

fn stop(file: &Path, playbook: &str) -> anyhow::Result<Exit> {
    let loaded = load_config(file)?;
    known(&loaded, playbook)?;
    let store = open_store(&loaded.config)?;
    let changed = runtime()?.block_on(store.stop_playbook(playbook, &person(), now()))?;
    terminal::line(if changed {
        format!(
            "Changes of access by `{playbook}` await approval; `okta-responder resume --playbook \"{playbook}\"` goes on."
        )
    } else {
        format!("`{playbook}` was stopped already; `okta-responder status` says since when.")
    })?;
    Ok(Exit::Done)
}

fn let_go_on(file: &Path, playbook: &str) -> anyhow::Result<Exit> {
    let store = open_store(&load_for_state(file)?)?;
    let LetGo { was_stopped, actions } = runtime()?.block_on(store.let_go_on(playbook, &person(), now()))?;
    // One that was stopped may have left the configuration since, and one that is wrong names none.
    if let (false, Ok(loaded)) = (was_stopped, load::load(file)) {
        known(&loaded, playbook)?;
    }
    terminal::line(if was_stopped {
        let actions = plural(actions as u64, "action");
        format!("`{playbook}` goes on; {actions} that awaited approval because of the stop will be tried.")
    } else {
        format!("`{playbook}` was not stopped.")
    })?;
    Ok(Exit::Done)
}

fn known(loaded: &Loaded, playbook: &str) -> anyhow::Result<()> {
    let names: Vec<_> = loaded.playbooks.iter().map(|known| known.name.as_str()).collect();
    if names.contains(&playbook) {
        return Ok(());
    }
    let there = match names.as_slice() {
        [] => "there is none".to_owned(),
        names => format!("there are `{}`", names.join("`, `")),
    };
    Err(anyhow!("there is no playbook `{playbook}` in the configuration; {there}"))
}
