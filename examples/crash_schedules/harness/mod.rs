//! Crash schedules: the real daemon as a process against the simulated org, killed again and again; at the end the org's
//! own record is held against what the events call for.
//!
//! A schedule follows from a seed and a number, and so does what it calls for. What does not follow is the exact moment at
//! which a signal meets the daemon, so a schedule that failed may have to be played several times.
#![allow(clippy::indexing_slicing, clippy::disallowed_methods, reason = "a harness bounds its waits by the real clock")]

mod dice;
mod judge;
mod model;
mod play;
mod process;
mod report;
mod schedule;
mod stage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use okta_responder::store::{EventFilter, RunFilter, Store};
use serde_json::Value;
use tokio::task::JoinSet;

use judge::{Seen, Shown};
use model::CalledFor;
use play::Play;
use schedule::Schedule;
use stage::Stage;

pub use process::Program;
pub use report::{Counts, Kind, Violation};

/// More rows than a schedule makes.
const ALL: usize = 100_000;

/// What to play.
#[derive(Debug, Clone)]
pub struct Run {
    /// The program.
    pub program: Program,
    /// Its schedules follow from this.
    pub seed: u64,
    /// The numbers of the schedules.
    pub numbers: Vec<u64>,
    /// How many are played side by side.
    pub jobs: usize,
    /// Where each gets its directory.
    pub directory: PathBuf,
}

/// How a schedule ended.
#[derive(Debug)]
pub struct Played {
    /// Its number.
    pub number: u64,
    /// What was counted.
    pub counts: Counts,
    /// What must not be.
    pub violations: Vec<Violation>,
    /// Its directory, which is kept when there is a violation.
    pub directory: PathBuf,
}

/// Plays all schedules and tells of each as it ends. Returns the sum of the counts.
pub async fn play_all(run: Run, mut told: impl FnMut(&Played)) -> Counts {
    let (run, mut playing, mut sum) = (Arc::new(run), JoinSet::new(), Counts::default());
    let began = process::now();
    let mut numbers = run.numbers.clone().into_iter();
    loop {
        while playing.len() < run.jobs.max(1)
            && let Some(number) = numbers.next()
        {
            let run = Arc::clone(&run);
            playing.spawn(async move { play(&run, number).await });
        }
        match playing.join_next().await {
            None => {
                sum.took = began.elapsed();
                return sum;
            }
            Some(Ok(played)) => {
                sum.add(&played.counts);
                told(&played);
            }
            Some(Err(error)) => {
                *sum.violations.entry(Kind::Broken).or_default() += 1;
                told(&Played {
                    number: u64::MAX,
                    counts: Counts::default(),
                    violations: vec![Violation::new(Kind::Broken, format!("the harness failed in itself: {error}"))],
                    directory: run.directory.clone(),
                });
            }
        }
    }
}

/// Plays one schedule and judges it.
async fn play(run: &Run, number: u64) -> Played {
    let schedule = Schedule::draw(run.seed, number);
    let called_for = CalledFor::by(&schedule);
    let mut counts = Counts { runs: 1, faults: schedule.faults.len(), ..Counts::default() };
    counts.events = called_for.wanted.len();
    counts.called_for = called_for.effects();
    let directory = run.directory.join(format!("{}-{number}", run.seed));
    let violations = match act(run, &schedule, &called_for, &mut counts, &directory).await {
        Ok(violations) => violations,
        Err(words) => vec![Violation::new(Kind::Broken, words)],
    };
    for violation in &violations {
        *counts.violations.entry(violation.kind).or_default() += 1;
    }
    Played { number, counts, violations, directory }
}

async fn act(
    run: &Run,
    schedule: &Schedule,
    called_for: &CalledFor,
    counts: &mut Counts,
    directory: &Path,
) -> Result<Vec<Violation>, String> {
    let stage = Stage::build(schedule, directory.to_owned()).await.map_err(|error| error.to_string())?;
    let played = Play::new(schedule, &stage, &run.program, counts).play().await;
    let violations = match played {
        Ok(left) => {
            let seen = look(run, &stage).await.map_err(|error| error.to_string())?;
            let mut violations = judge::judge(schedule, called_for, &seen, counts);
            violations
                .extend(left.map(|open| Violation::new(Kind::Broken, format!("it does not come to rest: {open}"))));
            violations
        }
        Err(words) => vec![Violation::new(Kind::Broken, words)],
    };
    if violations.is_empty() {
        stage.remove().map_err(|error| error.to_string())?;
    } else {
        let told = format!("{schedule:#?}\n{called_for:#?}\n{violations:#?}\n{:#?}\n", stage.org.effects());
        std::fs::write(directory.join("schedule.txt"), told).map_err(|error| error.to_string())?;
    }
    Ok(violations)
}

/// How things stand, by the org, and as a person is shown them.
async fn look(run: &Run, stage: &Stage) -> Result<Seen, Box<dyn std::error::Error + Send + Sync>> {
    let store = Store::open_existing(&stage.state())?;
    let events = store.list_events(EventFilter { limit: ALL, ..EventFilter::default() }).await?;
    let runs = store.list_runs(RunFilter { limit: ALL, ..RunFilter::default() }).await?;
    let event_of: BTreeMap<i64, String> = runs.into_iter().map(|run| (run.id, run.event_uuid)).collect();
    let list = run.program.run(&stage.config(), &["actions", "list", "--limit", "0", "--format", "json"]).await?;
    let status = run.program.run(&stage.config(), &["status", "--format", "json"]).await?;
    let mut actions = Vec::new();
    for line in String::from_utf8(list.stdout)?.lines() {
        let action: Value = serde_json::from_str(line)?;
        let text = |name: &str| action[name].as_str().unwrap_or_default().to_owned();
        let attempts = store.list_attempts(action["id"].as_i64().unwrap_or_default()).await?;
        actions.push(Shown {
            event: event_of.get(&action["run"].as_i64().unwrap_or_default()).cloned().unwrap_or_default(),
            step: text("step"),
            state: text("state"),
            reason: text("reason"),
            attempts: attempts.into_iter().map(|attempt| attempt.outcome.unwrap_or_default()).collect(),
        });
    }
    let users: Vec<String> = stage.users.iter().map(|user| user.id.clone()).collect();
    let status: Value = serde_json::from_slice(&status.stdout)?;
    Ok(Seen {
        effects: stage.org.effects(),
        members: (0..users.len()).filter(|user| stage.org.is_member(&stage.groups["risk"], &users[*user])).collect(),
        groups: stage.groups.clone(),
        users,
        inbox: events.into_iter().map(|event| (event.uuid, event.state, event.reason.unwrap_or_default())).collect(),
        actions,
        in_doubt: status["in_doubt_last_day"].as_u64().unwrap_or_default(),
    })
}
