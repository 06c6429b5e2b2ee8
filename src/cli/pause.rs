//! `okta-responder pause` and `okta-responder resume`

use std::path::Path;

use clap::Args;

use super::{Exit, load_config, now, open_store, runtime, terminal};

/// Stop dispatching; polling and deciding go on
///
/// Stops dispatching: nothing is sent any more to Okta or any other service but reading the log. Events are still
/// stored and decided, so that nothing is lost. A request that is under way is not called back. It works beside the
/// daemon, which sees it within a second, and lasts across restarts.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  okta-responder pause\n  okta-responder status          says since when\n  \
    okta-responder resume")]
pub(super) struct PauseArguments {}

/// Start dispatching again
///
/// Starts dispatching again: what has gathered is done, in the order of the events.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  okta-responder actions list --state ready     what will be done\n  \
    okta-responder actions cancel 12              but not this\n  okta-responder resume")]
pub(super) struct ResumeArguments {}

pub(super) fn pause(file: &Path) -> anyhow::Result<Exit> {
    set(file, true)
}

pub(super) fn resume(file: &Path) -> anyhow::Result<Exit> {
    set(file, false)
}

fn set(file: &Path, paused: bool) -> anyhow::Result<Exit> {
    let loaded = load_config(file)?;
    let store = open_store(&loaded)?;
    let changed = runtime()?.block_on(store.set_paused(paused, now()))?;
    terminal::line(match (paused, changed) {
        (true, true) => "Dispatching is paused; `okta-responder resume` goes on.",
        (true, false) => "Dispatching was paused already; `okta-responder status` says since when.",
        (false, true) => "Dispatching goes on.",
        (false, false) => "Dispatching was not paused.",
    })?;
    Ok(Exit::Done)
}
