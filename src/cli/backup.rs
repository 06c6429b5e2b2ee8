//! `okta-responder backup`

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Exit, load_for_state, now, terminal};
use crate::app;
use crate::store::{self, Copying};

/// Copy the state file, also while the daemon runs
///
/// Makes a copy of the state file as it is at this moment: one file, readable by its owner only, checked from end to end, and
/// on the disk before it gets its name. The daemon is not held up, and need not run. Keep it like the state file: it holds
/// events of the log.
///
/// To go back to a copy: stop the daemon, move the state file and its -wal and -shm files away, put the copy in their place,
/// start the daemon. It reads the log again from where the copy stands. What was done since is found at the services;
/// messages that may have been sent since are not sent again unless their step says so, and are shown.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  okta-responder backup /var/backups/okta-responder.db\n  \
    okta-responder backup --force /var/backups/okta-responder-$(date +%u).db\n\n\
    Exit codes: 0 the copy is there; 1 there is no state file, or the target cannot be written or is there already; 75 the disk \
    is full; 78 the state file is damaged.")]
pub(super) struct Arguments {
    /// Where the copy goes
    file: PathBuf,
    /// Replace what has that name
    #[arg(long)]
    force: bool,
}

pub(super) fn run(config: &Path, arguments: &Arguments) -> anyhow::Result<Exit> {
    let state = app::state_path(&load_for_state(config)?);
    let bar = std::io::stderr().is_terminal().then(bar);
    let tell = |progress| {
        let Some(bar) = &bar else { return };
        match progress {
            Copying::Writing { done, of } => {
                bar.set_length(of.max(1));
                bar.set_position(done.min(of));
                bar.set_message(format!("{} of about {}", HumanBytes(done), HumanBytes(of)));
            }
            Copying::Checking => bar.set_message("checking the copy"),
        }
    };
    let copied = store::back_up(&state, &arguments.file, arguments.force, now(), tell);
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    let copied = copied.with_context(|| format!("state file {}", state.display()))?;
    terminal::line(format!("{} holds {}, checked.", arguments.file.display(), HumanBytes(copied.bytes)))?;
    Ok(Exit::Done)
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
