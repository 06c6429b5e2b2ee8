//! The task that dispatches: it prepares what waits, claims what is ready, sends it, and settles what is unknown.
//!
//! T3 is committed before a request leaves and T4 after its answer; nothing here is open across either.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::clock::Steps;
use super::outcome::{self, RetryPolicy};
use super::prepare;
use super::pulse::Beat;
use super::rates;
use super::reach::Sign;
use super::retry::Schedule;
use super::standing::Reader;
use super::survive::{self, survive_async};
use super::{Engine, TaskError, delayed, gather};
use crate::connectors::{self, Call, Effect};
use crate::guard::Judge;
use crate::guard::limits::Window;
use crate::halt::{self, Point};
use crate::model::action::{ActionState, Happening};
use crate::model::event::Event;
use crate::model::ids::ActionId;
use crate::model::outcome::{Failure, Outcome, Reason, Verdict};
use crate::okta::Priority;
use crate::playbook::facts::{Fact, FactSet, Facts, StepView};
use crate::playbook::{Condition, Playbook, Step, plan};
use crate::store::{
    AttemptEnd, ChangesOf, Claimed, Claims, OpenAction, Preparation, Prepared, RunContext, Stopped, StoreError, Taken,
    Tripped,
};

/// Waiting actions looked at in one round.
const ROUND: usize = 200;
/// Actions whose facts are being fetched at once.
const PREPARING: usize = 8;
/// Pauses when a fact that describes cannot be had.
pub(super) const POSTPONED: Schedule = Schedule { initial: Duration::from_secs(1), max: Duration::from_secs(60) };
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
    /// Users whom the guard has to know before their actions can be claimed.
    reader: Reader,
    /// Where the hour of the limits begins.
    window: Window,
    clock_steps: Steps,
    /// Whether the clock ran ahead, for all that is known: at the start, and when it was set back.
    may_be_put_off_too_far: bool,
}

impl Dispatcher {
    /// A dispatcher that takes on work until `stop`.
    pub fn new(engine: Arc<Engine>, stop: CancellationToken) -> Self {
        Self {
            reader: Reader::new(Arc::clone(&engine)),
            // From the beginning of the process, so that a reload does not make it believe a clock that was set forward.
            window: Window::new(engine.clock.began_at(), Duration::ZERO),
            engine,
            stop,
            under_way: JoinSet::new(),
            preparing: JoinSet::new(),
            in_preparation: HashSet::new(),
            in_settlement: HashMap::new(),
            settling: JoinSet::new(),
            clock_steps: Steps::default(),
            may_be_put_off_too_far: true,
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
                () = self.reader.next() => Ok(()),
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
        self.look_at_the_clock().await?;
        if let Some(rates) = self.engine.rates_due(rates::ALONE) {
            self.engine.store.note_rates(rates).await?;
        }
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

    /// What is due by a clock that ran ahead would wait until then when it is put right.
    async fn look_at_the_clock(&mut self) -> Result<(), StoreError> {
        let (now, elapsed) = (self.engine.clock.now(), self.engine.clock.elapsed());
        if let Some(step) = self.clock_steps.look(now, elapsed) {
            let way = if step.is_negative() { "back" } else { "forward (or the machine slept)" };
            warn!("the clock of this machine was set {way} by {:#}", step.abs());
            self.may_be_put_off_too_far |= step.is_negative();
        }
        if self.may_be_put_off_too_far {
            let moved = self.engine.pull_back().await?;
            if moved > 0 {
                warn!(moved, "what a clock that ran ahead had put off is due now");
            }
            self.may_be_put_off_too_far = false;
        }
        Ok(())
    }

    async fn claim(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let engine = &self.engine;
        if let Some((before, why)) = engine.guard.approvals_expire(now) {
            let expired = engine.store.expire_approvals(before, why.clone(), now).await?;
            if expired > 0 {
                warn!(expired, "actions that awaited approval are refused: {why}");
                engine.planned.notify_one();
            }
        }
        let most = engine.settings.concurrency;
        // The window learns of every moment, so that it sees the clock jump.
        let hour_began = self.window.begins(now, engine.clock.elapsed());
        if !engine.store.has_claimable(now, most).await? {
            return Ok(());
        }
        let judge = Judge::new(Arc::clone(&engine.guard), self.reader.known(), now, hour_began);
        let claims = engine.store.claim_ready(now, most, judge).await?;
        tell_stopped(&claims);
        // Actions that wait for what was stopped may go on now.
        if claims.more || !claims.stopped.is_empty() {
            engine.planned.notify_one();
        }
        for taken in claims.taken {
            halt::point(Point::Claimed);
            let engine = Arc::clone(engine);
            self.under_way.spawn(async move { attempt(&engine, taken).await });
        }
        self.reader.read(claims.unasked);
        Ok(())
    }
}

/// Tells what the guard stopped: a line for each action, and a loud one for each playbook that went over a limit.
fn tell_stopped(claims: &Claims) {
    for Stopped { action, kind, playbook, state, why } in &claims.stopped {
        // A flood that is held back has its one loud line below, and `status`.
        if *state == ActionState::AwaitingApproval {
            info!(action.id = action.0, action.kind = kind, playbook, "{kind} awaits approval: {why}");
        } else {
            warn!(action.id = action.0, action.kind = kind, playbook, "{kind} is {state}: {why}");
        }
    }
    for Tripped { playbook, action, why, alarm } in &claims.tripped {
        error!(
            playbook,
            action.id = action.0,
            alarm,
            "THE PLAYBOOK `{playbook}` IS STOPPED: {why}. Its changes of access wait for a person: `okta-responder status`, \
             then `okta-responder resume --playbook \"{playbook}\"`, or `okta-responder actions approve` for single ones"
        );
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

/// What is reached or not: each of `[http.NAME]` by itself.
fn reached(action: &Claimed) -> Cow<'_, str> {
    #[derive(Deserialize)]
    struct Named {
        service: String,
    }
    match service_of(&action.kind) {
        "http" => match serde_json::from_str(&action.params) {
            Ok(Named { service }) => Cow::Owned(format!("http.{service}")),
            Err(_) => Cow::Borrowed("http"),
        },
        service => Cow::Borrowed(service),
    }
}

/// Sends the request of a claimed action, which the guard has cleared, and records how it ended.
async fn attempt(engine: &Engine, taken: Taken) -> Result<(), StoreError> {
    let Taken { action, call } = taken;
    let began = engine.clock.elapsed();
    let outcome = match engine.connectors.get(&action.kind) {
        // Not sent: what the step says to do in doubt is done, as after a crash.
        Some(_) if is_doubtful(engine, &action).await? => Outcome::Unknown(Failure::new(
            Reason::Interrupted,
            "the state file is a copy that was put in place, and this may have been sent after it was made",
        )),
        Some(connector) => {
            // A panic must not take the daemon down, and whether the request had left by then is not known.
            let performed = survive_async(connector.perform(&call)).await;
            performed.unwrap_or_else(|| Outcome::Unknown(Failure::new(Reason::Interrupted, survive::WORDS)))
        }
        None => Outcome::Permanent(no_connector(&action.kind)),
    };
    halt::point(Point::Answered);
    let took = engine.clock.elapsed().saturating_sub(began);
    let patience = engine.connectors.get(&action.kind).map(|connector| connector.patience()).unwrap_or_default();
    let policy = RetryPolicy { still_at_work: patience.saturating_sub(took), ..policy(engine) };
    let sign = Sign::of_outcome(&outcome);
    let down = engine.reach.saw(&reached(&action), sign, began, engine.clock.elapsed());
    let told = down && matches!(sign, Sign::Failed(_));
    let end = outcome::of_attempt(&action, outcome, policy, engine.clock.now());
    tell(&action, &end, took, told);
    record(engine, end).await?;
    halt::point(Point::OutcomeStored);
    Ok(())
}

/// Whether a message may have been sent in the time that a copy of the state file knows nothing of. Changes and what has a
/// key are looked up by their connectors before anything is sent.
async fn is_doubtful(engine: &Engine, action: &Claimed) -> Result<bool, StoreError> {
    let params = serde_json::from_str(&action.params).unwrap_or_default();
    let effect = connectors::kind(&action.kind).map(|kind| connectors::effect(kind, &params));
    let is_message = matches!(effect, Some(Effect::Message | Effect::Opaque));
    Ok(is_message && engine.store.may_be_done_since_copy(action.id, action.attempt).await?)
}

/// Reads the target of an unknown attempt back and records what that says.
async fn settle(engine: &Engine, action: Claimed) -> Result<(), StoreError> {
    let began = engine.clock.elapsed();
    let verdict = match (engine.connectors.get(&action.kind), serde_json::from_str::<Value>(&action.params)) {
        (Some(connector), Ok(params)) => {
            let (key, earlier) = (action.key.clone(), action.earlier.clone());
            let call = Call { key, params, attempt: action.attempt, earlier };
            // Asking the same again would only fail again.
            survive_async(connector.verify(&call)).await.unwrap_or(Verdict::CannotTell)
        }
        (None, _) => Verdict::TryLater(no_connector(&action.kind)),
        (_, Err(_)) => Verdict::CannotTell,
    };
    halt::point(Point::ReadBack);
    let sign = Sign::of_verdict(&verdict);
    let down = engine.reach.saw(&reached(&action), sign, began, engine.clock.elapsed());
    let told = down && matches!(sign, Sign::Failed(_));
    let end = outcome::of_verdict(&action, verdict, policy(engine), engine.clock.now());
    let (id, kind) = (action.id.0, action.kind.as_str());
    let found = end.detail.as_deref().unwrap_or("the effect is there");
    match end.happening {
        _ if outcome::is_known(&action, &end) => debug!(action.id = id, action.kind = kind, "{found}"),
        None if told => debug!(action.id = id, action.kind = kind, "an unknown attempt stays unknown: {found}"),
        None => warn!(action.id = id, action.kind = kind, "an unknown attempt stays unknown: {found}"),
        Some(Happening::CannotTell) => error!(action.id = id, action.kind = kind, "{kind} needs attention: {found}"),
        Some(_) => info!(action.id = id, action.kind = kind, "an unknown attempt was read back: {found}"),
    }
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

/// One line for an attempt. `told` says that its service is down, and that the log has that already.
fn tell(action: &Claimed, end: &AttemptEnd, took: Duration, told: bool) {
    let word = end.outcome.unwrap_or_default();
    let took_ms = took.as_millis() as u64;
    let id = action.id.0;
    let (kind, step) = (action.kind.as_str(), action.step.as_str());
    let detail = end.detail.as_deref().unwrap_or_default();
    match end.happening {
        Some(Happening::Succeeded) => {
            info!(action.id = id, action.kind = kind, action.step = step, outcome = word, took_ms, "{kind} succeeded");
        }
        Some(Happening::WillNotPass) => {
            error!(
                action.id = id,
                action.kind = kind,
                action.step = step,
                outcome = word,
                took_ms,
                "{kind} failed: {detail}"
            );
        }
        Some(Happening::MayPass) if end.reason == Some(outcome::PROGRESS) => {
            info!(action.id = id, action.kind = kind, action.step = step, took_ms, "{kind} goes on: {detail}");
        }
        _ if told || outcome::is_known(action, end) => {
            debug!(action.id = id, action.kind = kind, outcome = word, took_ms, "{kind} did not succeed yet: {detail}");
        }
        _ => {
            let attempt = action.attempt;
            warn!(
                action.id = id,
                action.kind = kind,
                action.step = step,
                outcome = word,
                attempt,
                took_ms,
                "{kind} did not succeed yet: {detail}"
            );
        }
    }
}

fn policy(engine: &Engine) -> RetryPolicy {
    RetryPolicy {
        schedule: engine.settings.retry,
        give_up_after: engine.settings.give_up_after,
        still_at_work: Duration::ZERO,
    }
}

fn no_connector(kind: &str) -> Failure {
    Failure::new(
        Reason::BadParameters,
        format!(
            "`{kind}` is not configured (any more); add its section, then `okta-responder actions retry`, or cancel it"
        ),
    )
}

/// Prepares a waiting action: fetches the facts it names, asks its condition, renders its parameters.
async fn prepare_action(engine: &Engine, action: OpenAction) -> Result<(), StoreError> {
    let context = engine.store.run_context(action.run).await?;
    if context.reverts.is_some() {
        let result = Ok(prepare::of_revert(&action, &context.siblings));
        let preparation = Preparation { action: action.id, run: action.run, facts: None, result };
        return prepared(engine, preparation).await;
    }
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
    prepared(engine, Preparation { action: action.id, run: action.run, facts, result }).await
}

/// Writes what preparing an action came to.
async fn prepared(engine: &Engine, preparation: Preparation) -> Result<(), StoreError> {
    engine.store.commit_preparations(vec![preparation], engine.clock.now()).await?;
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
    show_steps(&mut facts, context);
    Ok((event, facts))
}

/// Lets conditions and templates read how the steps of the run stand.
pub(super) fn show_steps(facts: &mut Facts, context: &RunContext) {
    for sibling in &context.siblings {
        facts.set_step(
            &sibling.step,
            StepView {
                state: sibling.state.as_str().to_owned(),
                url: sibling.receipt.url.clone(),
                id: sibling.receipt.id.clone(),
                number: sibling.receipt.number.clone(),
                note: sibling.receipt.note.clone(),
                status: sibling.receipt.answer.as_ref().map(|answer| answer.status),
                body: sibling.receipt.answer.as_ref().and_then(|answer| answer.body.clone()),
                error: sibling.error.clone(),
            },
        );
    }
}

/// How long the facts of a step are waited for: those that decide as long as everything is tried, those that a text only
/// tells at most as long as the step waits for other steps.
fn patience(engine: &Engine, action: &OpenAction, playbook: &Playbook, step: &Step, facts: &Facts) -> Duration {
    let asked = step.when.as_ref().map_or(FactSet::EMPTY, Condition::facts_named).union(plan::applying_facts(playbook));
    let decides = step.action.changes_access || !facts.not_fetched(asked).is_empty();
    let most = engine.settings.give_up_after;
    match action.wait_until {
        Some(end) if !decides => Duration::try_from(end.duration_since(action.since)).unwrap_or_default().min(most),
        _ => most,
    }
}

async fn look(
    engine: &Engine,
    action: &OpenAction,
    context: &RunContext,
    event: &Event,
    facts: &mut Facts,
) -> Result<Prepared, (Timestamp, String)> {
    match &action.delayed {
        Some(due) => delayed::look(engine, action, due, context, event, facts).await,
        None => prepare_step(engine, action, context, event, facts).await,
    }
}

/// What it means for an action that a step that it needs did not succeed, if there is such a one.
pub(super) fn unmet(needs: &[String], context: &RunContext) -> Option<Prepared> {
    let is_met =
        |needed: &String| context.siblings.iter().any(|sibling| sibling.step == *needed && sibling.state.is_success());
    let needed = needs.iter().find(|needed| !is_met(needed))?;
    Some(prepare::not_called_for("needs", format!("it needs the step `{needed}`, which did not succeed")))
}

/// Prepares an action by its step as it is in the configuration now.
pub(super) async fn prepare_step(
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
    if let Some(unmet) = unmet(&step.needs, context) {
        return Ok(unmet);
    }
    let edited = step.edits.as_ref().and_then(|name| context.siblings.iter().find(|sibling| sibling.step == *name));
    if let Some(message) = edited.filter(|message| message.receipt.id.is_none()) {
        let why = format!("nobody knows where the message of `{}` stands, or whether it was sent", message.step);
        return Ok(prepare::not_called_for("needs", why));
    }
    let user = event.affected_user().map(|user| user.id.to_owned());
    if playbook.when.iter().chain(step.conditions()).any(|asks| asks.facts_open(facts).contains(Fact::Past)) {
        // The event was decided before these conditions were written.
        let asked = gather::ask_the_past(engine, facts, event, std::iter::once(playbook)).await;
        asked.map_err(|error| (outcome::after(engine.clock.now(), POSTPONED.initial), error.to_string()))?;
    }
    loop {
        let now = engine.clock.now();
        match plan::prepare_if_it_applies(playbook, step, facts, event) {
            plan::Prepared::NeedsFacts(open) => {
                let most = patience(engine, action, playbook, step, facts);
                let patience = gather::Patience::since(action.since, most, action.postponed, now);
                debug!(action.id = action.id.0, facts = %open, "facts are fetched");
                let after_ours = gather::AfterOurs { postponed: action.postponed, of: ChangesOf::Before(action.run) };
                let ours = gather::wait_for_own_changes(engine, open, user.as_deref(), after_ours).await;
                let wanted = gather::Wanted { facts: open, priority: Priority::Enrichment };
                let fetched = match ours {
                    Ok(()) => gather::fetch(engine, facts, wanted, user.as_deref(), patience).await,
                    Err(later) => Err(later),
                };
                if let Err(later) = fetched {
                    let pause = later.pause.unwrap_or_else(|| POSTPONED.pause(action.postponed + 1, &action.step));
                    let (again, last) = (outcome::after(now, pause), outcome::after(action.since, most));
                    // The last time is when patience ends, not a whole pause after it.
                    let until = if last > now { again.min(last) } else { again };
                    return Err((until, later.reason));
                }
            }
            prepared => {
                let posted = edited.and_then(|message| serde_json::from_str(message.message.as_deref()?).ok());
                let prepared = prepare::edit(posted.as_ref(), prepared);
                return Ok(prepare::end(&engine.guard, step, event, prepared, context.observe, now));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Poison, engine, now, receive};
    use super::*;
    use crate::connectors::Registry;
    use crate::model::action::InDoubt;
    use crate::model::ids::IdempotencyKey;
    use crate::store::{ActionFilter, Decision, EventVerdict, NewAction, PlannedRun};

    const KIND: &str = "slack.message.post";

    #[tokio::test]
    async fn an_attempt_over_which_the_program_fails_is_in_doubt_and_left_to_a_person_when_reading_back_fails_too() {
        let connector: Arc<dyn crate::connectors::Connector> = Arc::new(Poison);
        let (engine, _dir) = engine(Vec::new(), Registry::of([(KIND, connector)])).await;
        receive(&engine, "x", &["e"]).await;
        let pending = engine.store.undecided(now(), 9, &[], Vec::new()).await.unwrap();
        let ready = Prepared {
            happening: Happening::Prepared,
            params: Some("{}".to_owned()),
            lane: None,
            reason: None,
            error: None,
        };
        let action = NewAction {
            step: "s".to_owned(),
            kind: KIND,
            key: IdempotencyKey::derive("okta", "e", "p", "s"),
            subject: None,
            lane: None,
            in_doubt: InDoubt::Ask,
            after: Vec::new(),
            wait_until: None,
            preparation: Some(ready),
            delayed: None,
        };
        let run =
            PlannedRun { playbook: "p".to_owned(), observe: false, facts: "{}".to_owned(), actions: vec![action] };
        let decision = Decision { event: pending[0].id, verdict: EventVerdict::Decided, runs: vec![run] };
        engine.store.commit_decisions(vec![decision], now()).await.unwrap();
        let state = async || engine.store.list_actions(ActionFilter::default()).await.unwrap()[0].state.clone();

        let mut dispatcher = Dispatcher::new(Arc::clone(&engine), CancellationToken::new());
        dispatcher.claim(now()).await.unwrap();
        dispatcher.under_way.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(state().await, "unknown");
        let later = outcome::after(now(), Duration::from_secs(60));
        let unknown = engine.store.unsettled(later, 9).await.unwrap().remove(0);
        settle(&engine, unknown).await.unwrap();
        assert_eq!(state().await, "needs_attention");
    }
}
