//! The task that dispatches: it prepares what waits, claims what is ready, sends it, and settles what is unknown.
//!
//! T3 is committed before a request leaves and T4 after its answer; nothing here is open across either.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::outcome::{self, RetryPolicy};
use super::prepare;
use super::pulse::Beat;
use super::retry::Schedule;
use super::survive::{self, survive_async};
use super::{Engine, TaskError, gather};
use crate::connectors::{self, Call, Effect};
use crate::halt::{self, Point};
use crate::model::action::Happening;
use crate::model::event::Event;
use crate::model::ids::ActionId;
use crate::model::outcome::{Failure, Outcome, Reason, Verdict};
use crate::playbook::facts::{Facts, StepView};
use crate::playbook::plan;
use crate::store::{AttemptEnd, Claimed, OpenAction, Preparation, Prepared, RunContext, StoreError};

/// Waiting actions looked at in one round.
const ROUND: usize = 200;
/// Actions whose facts are being fetched at once.
const PREPARING: usize = 8;
/// Pauses when a fact that describes cannot be had.
const POSTPONED: Schedule = Schedule { initial: Duration::from_secs(1), max: Duration::from_secs(60) };
/// How long nothing is dispatched after the state file could not be used. When it cannot be written, the wait goes on until it can.
const REST: Duration = Duration::from_secs(1);
/// The longest time between two looks into the ledger: a person's command is seen within it.
const LOOK: Duration = Duration::from_secs(1);

/// The task that dispatches.
pub struct Dispatcher {
    engine: Arc<Engine>,
    stop: CancellationToken,
    under_way: JoinSet<Result<(), StoreError>>,
    preparing: JoinSet<(ActionId, Result<(), StoreError>)>,
    in_preparation: HashSet<ActionId>,
    /// Unknown actions that are being read back, and their services.
    in_settlement: HashMap<ActionId, String>,
    settling: JoinSet<(ActionId, Result<(), StoreError>)>,
}

impl Dispatcher {
    /// A dispatcher that takes on work until `stop`.
    pub fn new(engine: Arc<Engine>, stop: CancellationToken) -> Self {
        Self {
            engine,
            stop,
            under_way: JoinSet::new(),
            preparing: JoinSet::new(),
            in_preparation: HashSet::new(),
            in_settlement: HashMap::new(),
            settling: JoinSet::new(),
        }
    }

    /// Dispatches until the daemon stops, then waits for the requests under way, at most the configured drain. What is
    /// still under way after that stays an attempt without an outcome, and is settled at the next start.
    pub async fn run(mut self) -> Result<(), TaskError> {
        while !self.stop.is_cancelled() {
            self.engine.pulse.tick(Beat::Dispatcher);
            if !self.engine.may_take_work().await {
                continue;
            }
            if let Err(error) = self.round().await {
                if !error.may_pass() {
                    return Err(error.into());
                }
                debug!("dispatching waits: {error}");
                self.rest().await;
            }
            let wait = self.until_due().await;
            let done = tokio::select! {
                () = self.engine.planned.notified() => Ok(()),
                Some(done) = self.under_way.join_next() => done.unwrap_or(Ok(())),
                Some(done) = self.preparing.join_next() => freed(done, |action| match action {
                    Some(action) => drop(self.in_preparation.remove(&action)),
                    None => self.in_preparation.clear(),
                }),
                Some(done) = self.settling.join_next() => freed(done, |action| match action {
                    Some(action) => drop(self.in_settlement.remove(&action)),
                    None => self.in_settlement.clear(),
                }),
                () = tokio::time::sleep(wait) => Ok(()),
                () = self.stop.cancelled() => Ok(()),
            };
            match done {
                Ok(()) => {}
                Err(error) if error.may_pass() => {
                    // What was asked for could not be stored. Asking again at once would only burden the services.
                    debug!("dispatching waits: {error}");
                    self.rest().await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.drain().await;
        Ok(())
    }

    /// A while in which nothing is tried, because the state file could not be used.
    async fn rest(&self) {
        tokio::select! {
            () = tokio::time::sleep(REST) => {}
            () = self.stop.cancelled() => {}
        }
    }

    async fn drain(mut self) {
        let open = self.under_way.len();
        if open > 0 {
            info!(open, "stopping: waiting for requests under way");
        }
        let all = async { while self.under_way.join_next().await.is_some() {} };
        if tokio::time::timeout(self.engine.settings.drain, all).await.is_err() {
            warn!("requests are still under way; their outcome is read back at the next start");
        }
    }

    async fn until_due(&self) -> Duration {
        let now = self.engine.clock.now();
        match self.engine.store.next_due(now).await {
            Ok(Some(due)) => Duration::try_from(due.duration_since(now)).unwrap_or(LOOK).min(LOOK),
            _ => LOOK,
        }
    }

    /// One look into the ledger.
    async fn round(&mut self) -> Result<(), StoreError> {
        let now = self.engine.clock.now();
        self.claim(now).await?;
        for action in self.engine.store.preparable(now, ROUND).await? {
            if self.preparing.len() >= PREPARING {
                break;
            }
            if self.in_preparation.insert(action.id) {
                let engine = Arc::clone(&self.engine);
                self.preparing.spawn(async move { (action.id, prepare_action(&engine, action).await) });
            }
        }
        // Like requests, reading back has places of its own for each service.
        let most = self.engine.settings.concurrency;
        for action in self.engine.store.unsettled(now, most).await? {
            let service = service_of(&action.kind);
            let busy = self.in_settlement.values().filter(|other| *other == service).count();
            if busy < most && !self.in_settlement.contains_key(&action.id) {
                self.in_settlement.insert(action.id, service.to_owned());
                let engine = Arc::clone(&self.engine);
                self.settling.spawn(async move { (action.id, settle(&engine, action).await) });
            }
        }
        Ok(())
    }

    async fn claim(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let most = self.engine.settings.concurrency;
        if !self.engine.store.has_claimable(now, most).await? {
            return Ok(());
        }
        for action in self.engine.store.claim_ready(now, most).await? {
            halt::point(Point::Claimed);
            let engine = Arc::clone(&self.engine);
            self.under_way.spawn(async move { attempt(&engine, action).await });
        }
        Ok(())
    }
}

/// Frees the action of a task that has ended, or every one when it is not known whose task it was.
fn freed(
    done: Result<(ActionId, Result<(), StoreError>), tokio::task::JoinError>,
    free: impl FnOnce(Option<ActionId>),
) -> Result<(), StoreError> {
    match done {
        Ok((action, result)) => {
            free(Some(action));
            result
        }
        Err(error) => {
            error!("a task of the dispatcher failed: {error}");
            free(None);
            Ok(())
        }
    }
}

/// What stands before the first dot of an action's kind.
fn service_of(kind: &str) -> &str {
    kind.split('.').next().unwrap_or_default()
}

/// Sends the request of a claimed action and records how it ended.
async fn attempt(engine: &Engine, action: Claimed) -> Result<(), StoreError> {
    let began = engine.clock.elapsed();
    let outcome = match (engine.connectors.get(&action.kind), serde_json::from_str::<Value>(&action.params)) {
        (Some(connector), Ok(params)) => {
            let call = Call { key: action.key.clone(), params, attempt: action.attempt };
            if is_doubtful(engine, &action).await? {
                // Not sent: what the step says to do in doubt is done, as after a crash.
                let words =
                    "the state file is a copy that was put in place, and this may have been sent after it was made";
                return record(
                    engine,
                    outcome::of_attempt(
                        &action,
                        Outcome::Unknown(Failure::new(Reason::Interrupted, words)),
                        policy(engine),
                        engine.clock.now(),
                    ),
                )
                .await;
            }
            // A panic must not take the daemon down, and whether the request had left by then is not known.
            let performed = survive_async(connector.perform(&call)).await;
            performed.unwrap_or_else(|| Outcome::Unknown(Failure::new(Reason::Interrupted, survive::WORDS)))
        }
        (None, _) => Outcome::Permanent(no_connector(&action.kind)),
        (_, Err(error)) => {
            Outcome::Permanent(Failure::new(Reason::BadParameters, format!("stored parameters: {error}")))
        }
    };
    halt::point(Point::Answered);
    let took = engine.clock.elapsed().saturating_sub(began);
    let end = outcome::of_attempt(&action, outcome, policy(engine), engine.clock.now());
    tell(&action, &end, took);
    record(engine, end).await?;
    halt::point(Point::OutcomeStored);
    Ok(())
}

/// Whether a message may have been sent in the time that a copy of the state file knows nothing of. Changes and what has a
/// key are looked up by their connectors before anything is sent.
async fn is_doubtful(engine: &Engine, action: &Claimed) -> Result<bool, StoreError> {
    let is_message = connectors::kind(&action.kind).is_some_and(|kind| kind.effect == Effect::Message);
    Ok(is_message && engine.store.may_be_done_since_copy(action.id, action.attempt).await?)
}

/// Reads the target of an unknown attempt back and records what that says.
async fn settle(engine: &Engine, action: Claimed) -> Result<(), StoreError> {
    let verdict = match (engine.connectors.get(&action.kind), serde_json::from_str::<Value>(&action.params)) {
        (Some(connector), Ok(params)) => {
            let call = Call { key: action.key.clone(), params, attempt: action.attempt };
            // Asking the same again would only fail again.
            survive_async(connector.verify(&call)).await.unwrap_or(Verdict::CannotTell)
        }
        (None, _) => Verdict::TryLater(no_connector(&action.kind)),
        (_, Err(_)) => Verdict::CannotTell,
    };
    halt::point(Point::ReadBack);
    let end = outcome::of_verdict(&action, verdict, policy(engine), engine.clock.now());
    info!(
        action.id = action.id.0,
        action.kind = action.kind,
        "an unknown attempt was read back: {}",
        end.detail.as_deref().unwrap_or("the effect is there")
    );
    record(engine, end).await
}

/// T4. What happened out there happened: while the disk is full this waits, as long as it takes.
async fn record(engine: &Engine, end: AttemptEnd) -> Result<(), StoreError> {
    let mut told = false;
    loop {
        match engine.store.record_outcome(end.clone(), engine.clock.now()).await {
            Ok(()) => break,
            Err(error) if error.may_pass() => {
                if !std::mem::replace(&mut told, true) {
                    warn!(action.id = end.action.0, "an outcome waits to be stored: {error}");
                }
                tokio::time::sleep(LOOK).await;
            }
            // A person moved the action meanwhile; the attempt is on record, the person's word stands.
            Err(StoreError::Illegal(why)) => {
                warn!(action.id = end.action.0, "{why}");
                break;
            }
            Err(error) => return Err(error),
        }
    }
    engine.planned.notify_one();
    engine.stored.notify_one();
    Ok(())
}

fn tell(action: &Claimed, end: &AttemptEnd, took: Duration) {
    let outcome = end.outcome.unwrap_or_default();
    let took_ms = took.as_millis() as u64;
    let id = action.id.0;
    let (kind, step) = (action.kind.as_str(), action.step.as_str());
    let detail = end.detail.as_deref().unwrap_or_default();
    match end.happening {
        Some(Happening::Succeeded) => {
            info!(action.id = id, action.kind = kind, action.step = step, outcome, took_ms, "{kind} succeeded");
        }
        Some(Happening::WillNotPass) => {
            error!(action.id = id, action.kind = kind, action.step = step, outcome, took_ms, "{kind} failed: {detail}");
        }
        _ => {
            let attempt = action.attempt;
            warn!(
                action.id = id,
                action.kind = kind,
                action.step = step,
                outcome,
                attempt,
                took_ms,
                "{kind} did not succeed yet: {detail}"
            );
        }
    }
}

fn policy(engine: &Engine) -> RetryPolicy {
    RetryPolicy { schedule: engine.settings.retry, give_up_after: engine.settings.give_up_after }
}

fn no_connector(kind: &str) -> Failure {
    Failure::new(
        Reason::BadParameters,
        format!("`{kind}` is not configured (any more); add its section or cancel the action"),
    )
}

/// Prepares a waiting action: fetches the facts it names, asks its condition, renders its parameters.
async fn prepare_action(engine: &Engine, action: OpenAction) -> Result<(), StoreError> {
    let context = engine.store.run_context(action.run).await?;
    let mut facts_before = None;
    let looked = survive_async(async {
        match open(engine, &context) {
            Err(why) => (Ok(prepare::cannot(why)), None),
            Ok((event, mut facts)) => {
                facts_before.replace(facts.fetched_json());
                let result = look(engine, &action, &context, &event, &mut facts).await;
                (result, Some(facts.fetched_json()))
            }
        }
    });
    let (result, facts) = looked.await.unwrap_or_else(|| (Ok(prepare::cannot(survive::WORDS.to_owned())), None));
    let facts = facts.filter(|facts| Some(facts) != facts_before.as_ref()).map(|facts| facts.to_string());
    let now = engine.clock.now();
    let preparation = Preparation { action: action.id, run: action.run, facts, result };
    engine.store.commit_preparations(vec![preparation], now).await?;
    halt::point(Point::Prepared);
    engine.planned.notify_one();
    Ok(())
}

fn open(engine: &Engine, context: &RunContext) -> Result<(Arc<Event>, Facts), String> {
    let body = context.body.as_deref().ok_or("the event's record is gone; it was kept too short")?;
    let event = Arc::new(Event::parse(&context.source, body).map_err(|error| error.to_string())?);
    let mut facts = Facts::from_event(Arc::clone(&event), &engine.links);
    let stored = serde_json::from_str(&context.facts).map_err(|error| error.to_string())?;
    facts.restore_fetched(&stored).map_err(|error| error.to_string())?;
    for sibling in &context.siblings {
        facts.set_step(
            &sibling.step,
            StepView {
                state: sibling.state.as_str().to_owned(),
                url: sibling.receipt.url.clone(),
                id: sibling.receipt.id.clone(),
                number: sibling.receipt.number.clone(),
                error: sibling.error.clone(),
            },
        );
    }
    Ok((event, facts))
}

async fn look(
    engine: &Engine,
    action: &OpenAction,
    context: &RunContext,
    event: &Event,
    facts: &mut Facts,
) -> Result<Prepared, (Timestamp, String)> {
    let Some((playbook, step)) = engine
        .playbooks
        .iter()
        .find(|playbook| playbook.name == context.playbook)
        .and_then(|playbook| Some((playbook, playbook.step(&action.step)?)))
    else {
        return Ok(prepare::cannot(format!(
            "playbook `{}`, step `{}` is not in the configuration any more",
            context.playbook, action.step
        )));
    };
    let unmet = step
        .needs
        .iter()
        .find(|needed| !context.siblings.iter().any(|sibling| sibling.step == **needed && sibling.state.is_success()));
    if let Some(needed) = unmet {
        return Ok(prepare::not_called_for("needs", format!("it needs the step `{needed}`, which did not succeed")));
    }
    let user = event.affected_user().map(|user| user.id.to_owned());
    loop {
        let now = engine.clock.now();
        match plan::prepare(playbook, step, facts, event) {
            plan::Prepared::NeedsFacts(open) => {
                debug!(action.id = action.id.0, facts = %open, "facts are fetched");
                let after_ours = gather::AfterOurs { postponed: action.postponed, before: Some(action.run) };
                let ours = gather::wait_for_own_changes(engine, open, user.as_deref(), after_ours).await;
                let fetched = match ours {
                    Ok(()) => gather::fetch(engine, facts, open, user.as_deref(), action.postponed).await,
                    Err(later) => Err(later),
                };
                if let Err(later) = fetched {
                    let pause = later.pause.unwrap_or_else(|| POSTPONED.pause(action.postponed + 1, &action.step));
                    return Err((outcome::after(now, pause), later.reason));
                }
            }
            prepared => {
                return Ok(prepare::end(&engine.guard, step, event, prepared, context.observe, now));
            }
        }
    }
}
