//! `okta-responder demo`

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tokio::sync::mpsc::Receiver;

use super::run::watch_signals;
use super::table::Format;
use super::{Exit, runtime, terminal};
use crate::app::Signal;
use crate::demo::{Demo, Look, Show, Summary};

/// Play an incident in a simulated org; needs nothing
///
/// Starts a simulated Okta, ServiceNow, Slack and mail server on this machine, runs the daemon with the playbooks of the
/// example configuration against them, plays an incident, kills the daemon in the middle of it, and counts what arrived.
/// It needs no network, no configuration and no rights, and takes its files away at the end.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  okta-responder demo\n  okta-responder demo --keep\n  \
    okta-responder demo --format json | tail -n 1 | jq .duplicate_effects\n\n\
    Exit codes: 0 everything happened exactly once; 1 something was lost or done twice, a step did not come, or it was broken off.")]
pub(super) struct Arguments {
    /// Keep org and daemon running afterwards, until Ctrl-C, and say where they are
    #[arg(long)]
    keep: bool,

    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let program = std::env::current_exe().context("this program does not know where it lies")?;
    let look = match arguments.format {
        Format::Json => Look::Json,
        Format::Text => Look::Text { colour: wants_colour() },
    };
    let mut signals = watch_signals()?;
    runtime()?.block_on(play(program, Show::new(io::stdout(), look), arguments.keep, &mut signals))
}

async fn play(program: PathBuf, show: Show, keep: bool, signals: &mut Receiver<Signal>) -> anyhow::Result<Exit> {
    let mut demo = Demo::prepare(program, show, keep).await?;
    let played = tokio::select! {
        played = demo.play() => played,
        _ = signals.recv() => {
            terminal::note("okta-responder: the demo was broken off; what it started is stopped and its files are removed");
            return Ok(Exit::Failed);
        }
    };
    let exit = match &played {
        Ok(summary) => exit_of(summary),
        Err(_) => Exit::Failed,
    };
    if exit == Exit::Failed {
        terminal::note("The last lines of the daemon:");
        demo.log().iter().for_each(terminal::note);
    }
    if keep && played.is_ok() {
        terminal::note("\nOrg and daemon keep running until Ctrl-C.");
        demo.guide().iter().for_each(terminal::note);
        signals.recv().await;
    }
    played?;
    Ok(exit)
}

fn exit_of(summary: &Summary) -> Exit {
    if summary.is_good() { Exit::Done } else { Exit::Failed }
}

/// Only for people at a terminal that can, and not if they say no (no-color.org).
fn wants_colour() -> bool {
    let says_no = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    io::stdout().is_terminal() && !says_no && !is_dumb
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    #[track_caller]
    fn check(duplicates: usize, lost: usize, expected: Exit) {
        let summary = Summary {
            events: 1,
            runs: 1,
            actions: BTreeMap::new(),
            effects: 1,
            duplicates,
            lost,
            took: Duration::ZERO,
        };
        assert_eq!(exit_of(&summary), expected);
    }

    #[test]
    fn what_was_lost_or_done_twice_is_a_failure() {
        check(0, 0, Exit::Done);
        check(1, 0, Exit::Failed);
        check(0, 1, Exit::Failed);
    }
}
