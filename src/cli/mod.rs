//! The command line. One file per command; this one holds the arguments and what commands share.

mod actions;
mod backfill;
mod backup;
mod check;
mod completions;
mod csv;
mod cursor;
mod demo;
mod events;
mod exit;
mod export;
mod inbox;
mod man;
mod moment;
mod online;
mod pause;
mod rehearsal;
mod replay;
mod revert;
mod run;
mod runs;
mod schema;
mod simulate;
mod status;
mod table;
pub mod terminal;
mod test;
mod verdict;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};
use jiff::Timestamp;
use signal_hook::consts::SIGXFSZ;

use crate::app;
use crate::config::Config;
use crate::config::load::{self, Loaded};
use crate::config::problem::Problem;
use crate::config::secret::SecretEnv;
use crate::config::values;
use crate::engine::clock::Clock;
use crate::store::{Store, StoreError};

pub use exit::Exit;

/// Answers identity threats in Okta from inside your own network.
///
/// Polls the Okta System Log outward (no inbound webhook), keeps its cursor and a record of every intended change in one
/// SQLite file, and carries out the playbooks of the configuration, each change once.
#[derive(Debug, Parser)]
#[command(name = "okta-responder", version, max_term_width = 110, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done; 1 failed; 64 wrong usage; 69 a service cannot be reached; 75 not possible now, try \
    again later; 78 the configuration or the state file is wrong.\n\n\
    To begin: write /etc/okta-responder/config.toml, `okta-responder check --online`, `okta-responder run`. Every command \
    tells more in its --help."
)]
struct Arguments {
    /// The configuration file [default: /etc/okta-responder/config.toml]
    #[arg(long, short, global = true, value_name = "FILE", env = load::FILE_VARIABLE)]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    Demo(demo::Arguments),
    Check(check::Arguments),
    Test(test::Arguments),
    Simulate(simulate::Arguments),
    Backfill(backfill::Arguments),
    Backup(backup::Arguments),
    Status(status::Arguments),
    Events(events::Arguments),
    Runs(runs::Arguments),
    Actions(actions::Arguments),
    Pause(pause::PauseArguments),
    Resume(pause::ResumeArguments),
    Cursor(cursor::Arguments),
    Export(export::Arguments),
    Schema(schema::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

/// Runs the program and says how it ended.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let wrong = error.use_stderr();
            // A closed pipe is all that can go wrong here.
            let _ = error.print();
            return if wrong { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    // A write past a limit on the size of files is an error like a full disk, and not the end of the process.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
    match dispatch(arguments) {
        Ok(exit) => exit.into(),
        Err(error) => {
            terminal::note(format!("okta-responder: {}", told(&error)));
            Exit::of(&error).into()
        }
    }
}

fn dispatch(arguments: Arguments) -> anyhow::Result<Exit> {
    let config = load::locate(arguments.config.as_deref(), None);
    match arguments.command {
        Command::Run(arguments) => run::run(&config, arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Check(arguments) => check::run(&config, &arguments),
        Command::Test(arguments) => test::run(&config, &arguments),
        Command::Simulate(arguments) => simulate::run(&config, &arguments),
        Command::Backfill(arguments) => backfill::run(&config, &arguments),
        Command::Backup(arguments) => backup::run(&config, &arguments),
        Command::Status(arguments) => status::run(&config, &arguments),
        Command::Events(arguments) => events::run(&config, arguments),
        Command::Runs(arguments) => runs::run(&config, arguments),
        Command::Actions(arguments) => actions::run(&config, arguments),
        Command::Pause(arguments) => pause::pause(&config, &arguments),
        Command::Resume(arguments) => pause::resume(&config, &arguments),
        Command::Cursor(arguments) => cursor::run(&config, &arguments),
        Command::Export(arguments) => export::run(&config, &arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
    }
}

/// The error and its causes in one line.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Reads the configuration, or prints every problem and fails with [`Exit::Configuration`].
fn load_config(file: &Path) -> anyhow::Result<Loaded> {
    load::load(file).map_err(|problems| wrong(&problems, ""))
}

/// Reads of the configuration what a command needs that only works with the state file. What else is wrong in it is left to
/// `check`.
fn load_for_state(file: &Path) -> anyhow::Result<Config> {
    let (config, problems) = load::load_for_state(file).map_err(|problems| wrong(&problems, ""))?;
    if problems > 0 {
        let problems = table::plural(problems as u64, "problem");
        terminal::note(format!(
            "the configuration has {problems}, which `okta-responder check` tells; this goes on without it"
        ));
    }
    Ok(config)
}

/// The same for the daemon, which works with the services.
fn load_config_with_secrets(file: &Path) -> anyhow::Result<Loaded> {
    load::load_with_secrets(file, &SecretEnv::of_process())
        .map_err(|problems| wrong(&problems, "; nothing was started"))
}

fn wrong(problems: &[Problem], consequence: &str) -> anyhow::Error {
    tell_problems(problems);
    let problems = table::plural(problems.len() as u64, "problem");
    Exit::Configuration.because(format!("the configuration has {problems}{consequence}"))
}

fn tell_problems(problems: &[Problem]) {
    for problem in problems {
        terminal::note(problem.to_string());
    }
}

/// The state file of an existing installation, for a command that runs beside the daemon.
fn open_store(config: &Config) -> anyhow::Result<Store> {
    let path = app::state_path(config);
    let directory = values::directory_of(&path);
    match Store::open_existing(&path) {
        Err(StoreError::Missing(_)) if !directory.is_dir() => Err(Exit::Configuration.because(format!(
            "there is no directory {} for the state file; make it for the daemon's user, or change [state] path",
            directory.display()
        ))),
        opened => opened.with_context(|| format!("state file {}", path.display())),
    }
}

/// The wall clock, which commands hand to everything pure.
fn now() -> Timestamp {
    Clock::start().now()
}

/// Who types, as far as the system knows: for the record of approvals.
fn person() -> String {
    use std::os::unix::fs::MetadataExt;
    let named = ["SUDO_USER", "LOGNAME", "USER"].iter().find_map(|name| std::env::var(name).ok());
    let named = named.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned());
    let name: String = terminal::printable(&named).chars().take(64).collect();
    // The names are the environment's word; the owner of our own process is the kernel's.
    match std::fs::metadata("/proc/self") {
        Ok(process) => format!("{name} (uid {})", process.uid()),
        Err(_) => name,
    }
}

/// A runtime for one command.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .thread_name("okta-responder")
        .enable_all()
        .build()
        .context("the runtime could not be started")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Words that name a secret. Everybody on the host can read the arguments of a process.
    const SECRET: [&str; 6] = ["token", "password", "passphrase", "secret", "private", "webhook"];

    fn check_takes_no_secret(command: &clap::Command) -> usize {
        let mut seen = 0;
        for argument in command.get_arguments() {
            let values = argument.get_value_names().unwrap_or_default().iter().map(|name| name.to_string());
            let mut names = vec![argument.get_id().to_string()];
            names
                .extend(argument.get_all_aliases().into_iter().flatten().chain(argument.get_long()).map(str::to_owned));
            names.extend(argument.get_env().map(|name| name.to_string_lossy().into_owned()));
            for name in names.into_iter().chain(values).map(|name| name.to_ascii_lowercase()) {
                let is_secret = SECRET.iter().any(|word| name.contains(word));
                assert!(
                    !is_secret,
                    "`{}` takes `{name}`: a secret belongs into a file or a credential",
                    command.get_name()
                );
                seen += 1;
            }
        }
        seen + command.get_subcommands().map(check_takes_no_secret).sum::<usize>()
    }

    #[test]
    fn no_argument_of_any_command_takes_a_secret() {
        assert!(check_takes_no_secret(&Arguments::command()) > 20, "the commands were not looked at");
    }
}
