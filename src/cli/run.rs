//! `okta-responder run`

use std::path::Path;

use anyhow::Context;
use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::mpsc;
use tracing::{error, info};

use super::{Exit, load_config_with_secrets, runtime};
use crate::app::{self, App, Signal, Work};
use crate::config::load::{self, Loaded};
use crate::config::problem::Problem;
use crate::config::secret::SecretEnv;
use crate::telemetry::log;

/// Run the daemon: poll, decide, dispatch, until it is told to stop
///
/// SIGTERM and SIGINT finish what is under way and stop; a second one stops at once. SIGHUP checks the configuration and
/// goes on with the new one, or keeps the old one when the new one is wrong.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  okta-responder run\n  okta-responder --config ./config.toml run\n  \
    OKTA_RESPONDER_LOG=debug okta-responder run\n\n\
    Exit codes: 0 stopped as it was told; 1 failed; 75 another instance works on the state file; 78 the \
    configuration, a secret or the state directory is wrong.")]
pub(super) struct Arguments {}

pub(super) fn run(file: &Path, _: Arguments) -> anyhow::Result<Exit> {
    let loaded = load_config_with_secrets(file)?;
    log::start(&loaded.config.log)?;
    let state = app::state_path(&loaded.config);
    info!(version = env!("CARGO_PKG_VERSION"), config = %file.display(), state = %state.display(), "okta-responder starts");
    let app = App::open(loaded, SecretEnv::of_process(), "run")?;
    let signals = watch_signals()?;
    let file = file.to_owned();
    runtime()?.block_on(app.run(Work::Daemon, signals, move || reload(&file)))?;
    info!("okta-responder has stopped");
    Ok(Exit::Done)
}

/// Signals of the process, as the daemon understands them.
pub(super) fn watch_signals() -> anyhow::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(4);
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("signals cannot be watched")?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let meaning = if signal == SIGHUP { Signal::Reload } else { Signal::Stop };
            if sender.blocking_send(meaning).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

fn reload(file: &Path) -> Option<Loaded> {
    load::load_with_secrets(file, &SecretEnv::of_process())
        .map_err(|problems| {
            problems.iter().for_each(log_problem);
            error!("the new configuration is wrong; the old one stays in force");
        })
        .ok()
}

/// A daemon's problems stand in its log, in the log's format: whoever reads it by program reads these too.
fn log_problem(problem: &Problem) {
    let Problem { file, line, place, message, remedy, .. } = problem;
    error!(file, line, place, remedy, "{message}");
}
