//! Plays a schedule: the lives of the daemon one after the other, then a quiet one in which everything comes to rest.

use std::collections::BTreeSet;
use std::time::Duration;

use okta_responder::store::{EventFilter, Store};

use super::process::{Daemon, Program, now};
use super::report::Counts;
use super::schedule::{Deed, End, Life, Schedule};
use super::stage::{Stage, WANTED_TYPES};

/// How long a daemon may take to a halt point. Many are never reached, such as reading back where nothing was lost.
const TO_A_POINT: Duration = Duration::from_millis(700);
/// How long anything may take that has to come.
const BOUND: Duration = Duration::from_secs(60);
/// The longest pause between two looks at the state file.
const LOOK: Duration = Duration::from_millis(15);

/// States in which nothing happens any more unless a person asks for it.
const AT_REST: [&str; 8] =
    ["succeeded", "settled", "failed", "skipped", "refused", "cancelled", "needs_attention", "awaiting_approval"];

/// One schedule as it is being played.
pub struct Play<'a> {
    schedule: &'a Schedule,
    stage: &'a Stage,
    program: &'a Program,
    counts: &'a mut Counts,
    with_more: bool,
}

impl<'a> Play<'a> {
    /// Nothing has happened yet.
    pub fn new(schedule: &'a Schedule, stage: &'a Stage, program: &'a Program, counts: &'a mut Counts) -> Self {
        Self { schedule, stage, program, counts, with_more: false }
    }

    /// Plays it to its end. Says what had not come to rest in the time, if anything.
    ///
    /// # Errors
    /// What the daemon did that it never should, or did not in time.
    pub async fn play(mut self) -> Result<Option<String>, String> {
        for life in &self.schedule.lives {
            self.live(life).await?;
        }
        self.come_to_rest().await
    }

    async fn live(&mut self, life: &Life) -> Result<(), String> {
        for deed in &life.before {
            self.act(deed, None).await?;
        }
        let halt = match life.end {
            End::KilledAt(point, time) => Some(format!("{}:{time}", point.name())),
            _ => None,
        };
        let mut daemon = self.start(halt.as_deref())?;
        for (after, deed) in &life.beats {
            tokio::time::sleep(Duration::from_millis(*after)).await;
            self.act(deed, Some(&mut daemon)).await?;
        }
        match life.end {
            End::KilledAt(point, _) => {
                let halted = daemon.halts_within(TO_A_POINT).await.map_err(told)?;
                kill(daemon)?;
                self.counts.killed(halted.then_some(point));
            }
            End::KilledAfter(ms) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                kill(daemon)?;
                self.counts.killed(None);
            }
            End::StoppedAfter(ms) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                self.stop(daemon).await?;
            }
        }
        Ok(())
    }

    /// The last life: nothing is wrong any more, and the daemon may end its work.
    async fn come_to_rest(&mut self) -> Result<Option<String>, String> {
        self.stage.calm();
        let mut daemon = self.start(None)?;
        let until = now() + BOUND;
        let store = loop {
            match Store::open_existing(&self.stage.state()) {
                Ok(store) => break store,
                Err(error) if now() >= until => return Err(format!("the state file cannot be opened: {error}")),
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        };
        self.command(&["resume"]).await?;
        let left = loop {
            let open = open(&store, self.stage).await.map_err(told)?;
            if open.is_empty() {
                break None;
            }
            if let Some(status) = daemon.ended().map_err(told)? {
                return Err(format!("the daemon ended by itself: {status}"));
            }
            if now() >= until {
                break Some(open);
            }
            tokio::time::sleep(LOOK).await;
        };
        self.stop(daemon).await?;
        Ok(left)
    }

    async fn act(&mut self, deed: &Deed, daemon: Option<&mut Daemon>) -> Result<(), String> {
        match deed {
            Deed::Push(events) => self.stage.push(self.schedule, events),
            Deed::ForgetCursors => {
                self.counts.cursors_refused += 1;
                self.stage.org.forget_cursors();
            }
            Deed::Reload => {
                self.with_more = !self.with_more;
                self.stage.configure(self.with_more).map_err(told)?;
                if let Some(daemon) = daemon
                    && daemon.watches_signals_within(BOUND).await.map_err(told)?
                {
                    daemon.signal("HUP").map_err(told)?;
                    self.counts.reloads += 1;
                }
            }
            // Before the first daemon has made its state file there is nothing to pause.
            Deed::Pause | Deed::Resume if !self.has_started() => {}
            Deed::Pause => {
                self.counts.pauses += 1;
                self.command(&["pause"]).await?;
            }
            Deed::Resume => self.command(&["resume"]).await?,
        }
        Ok(())
    }

    fn has_started(&self) -> bool {
        Store::open_existing(&self.stage.state()).is_ok()
    }

    async fn command(&self, arguments: &[&str]) -> Result<(), String> {
        let output = self.program.run(&self.stage.config(), arguments).await.map_err(told)?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{arguments:?}: {} {}", output.status, String::from_utf8_lossy(&output.stderr)))
    }

    fn start(&mut self, halt: Option<&str>) -> Result<Daemon, String> {
        self.counts.starts += 1;
        self.program.start(&self.stage.config(), &self.stage.log(), halt).map_err(told)
    }

    async fn stop(&mut self, mut daemon: Daemon) -> Result<(), String> {
        self.counts.stops += 1;
        daemon.signal("TERM").map_err(told)?;
        // One that was stopped before it watched for signals ends by the signal itself, which is as good.
        match daemon.ends_within(BOUND).await.map_err(told)? {
            Some(status) if status.success() || status.code().is_none() => Ok(()),
            Some(status) => Err(format!("it was to stop and ended with {status}")),
            None => Err("it was to stop and goes on".to_owned()),
        }
    }
}

/// Kills a daemon, which has to be alive until then.
fn kill(daemon: Daemon) -> Result<(), String> {
    match daemon.kill().map_err(told)? {
        None => Ok(()),
        Some(status) => Err(format!("the daemon ended by itself: {status}")),
    }
}

/// What has not come to its end, in words; empty when nothing is left to do.
async fn open(store: &Store, stage: &Stage) -> Result<String, okta_responder::store::StoreError> {
    let events = store.list_events(EventFilter { limit: 100_000, ..EventFilter::default() }).await?;
    let stored: BTreeSet<&str> = events.iter().map(|event| event.uuid.as_str()).collect();
    let logged = WANTED_TYPES.iter().flat_map(|kind| stage.org.logged(kind));
    let missing: Vec<_> = logged.filter(|uuid| !stored.contains(uuid.as_str())).collect();
    if !missing.is_empty() {
        return Ok(format!("the events {missing:?} are not stored"));
    }
    let undecided: Vec<_> = events.iter().filter(|event| matches!(event.state.as_str(), "new" | "held")).collect();
    if !undecided.is_empty() {
        return Ok(format!("without a decision: {undecided:?}"));
    }
    let mut actions = store.list_actions(Default::default()).await?;
    actions.retain(|action| !AT_REST.contains(&action.state.as_str()));
    Ok(if actions.is_empty() { String::new() } else { format!("not at rest: {actions:?}") })
}

fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}
