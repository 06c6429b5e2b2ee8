//! Plays crash schedules against the daemon: `cargo run --release --example crash_schedules -- --runs 1000 --seed 1`.
//!
//! Each schedule is drawn from the seed and its number: events of several users, faults of the services, and a daemon
//! that is killed at named points and at random moments, stopped, reloaded and paused. Afterwards the simulated org's own
//! record of effects is held against what the events call for. A duplicate, a loss, an invented effect or a doubt that
//! nothing shows is told with the schedule's number and its directory, which stays, and the exit code is 1;
//! `--only NUMBER` plays that schedule again.
//!
//! The daemon is this very file, started again as a process of its own with `daemon` before the arguments: it then enters
//! the command line of the library, as the program does. Examples are built with the feature `halt`, so that the process
//! has its halt points in a release build too.

#[path = "harness/mod.rs"]
mod harness;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use harness::{Program, Run};

/// The first argument of the process that is the daemon.
const DAEMON: &str = "daemon";

/// Plays crash schedules against the daemon
#[derive(Debug, Parser)]
struct Arguments {
    /// How many schedules
    #[arg(long, default_value_t = 100)]
    runs: u64,
    /// What they follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only the schedule of this number
    #[arg(long, value_name = "NUMBER")]
    only: Option<u64>,
    /// How many side by side; they mostly wait
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// Where the directories of the schedules are made; those of failed ones stay
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == DAEMON) {
        let own = arguments.into_iter().enumerate().filter(|(place, _)| *place != 1).map(|(_, argument)| argument);
        return okta_responder::cli::main(own);
    }
    match play(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("crash_schedules: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn play(arguments: Arguments) -> std::io::Result<ExitCode> {
    let program = Program { file: std::env::current_exe()?, before: vec![DAEMON.to_owned()] };
    let directory = arguments.directory.unwrap_or_else(|| std::env::temp_dir().join("okta-responder-schedules"));
    let numbers = arguments.only.map_or_else(|| (0..arguments.runs).collect(), |only| vec![only]);
    let (seed, jobs) = (arguments.seed, arguments.jobs);
    let run = Run { program, seed, numbers, jobs, directory: directory.clone() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let sum = runtime.block_on(harness::play_all(run, |played| {
        for violation in &played.violations {
            let (number, place) = (played.number, played.directory.display());
            say(&format!(
                "schedule {number}: {:?}: {} ({place}; --seed {seed} --only {number})",
                violation.kind, violation.words
            ));
        }
    }));
    say(&sum.to_string());
    // Empty unless something was kept.
    let _ = std::fs::remove_dir(directory);
    Ok(if sum.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[allow(clippy::print_stdout, reason = "the table is what this is for")]
fn say(words: &str) {
    println!("{words}");
}
