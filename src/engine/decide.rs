//! The task that decides: it takes events from the inbox, lets the playbooks have their say, and writes runs and actions.
//!
//! Deciding itself is pure. What this task adds is fetching the facts that *decide* (those that conditions and the
//! parameters of changes name); facts that only describe are fetched later, when their step is prepared, so that a slow
//! look-up never delays a change.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::intake::tells_risk;
use super::pulse::Beat;
use super::retry::Schedule;
use super::survive::{self, survive, survive_async};
use super::{Engine, TaskError, gather, outcome, prepare};
use crate::config::Mode;
use crate::connectors;
use crate::halt::{self, Point};
use crate::model::action::{ActionState, Happening};
use crate::model::event::Event;
use crate::model::ids::{EventId, IdempotencyKey};
use crate::model::risk::Risk;
use crate::okta::Priority;
use crate::playbook::facts::{Fact, FactSet, Facts, StepView};
use crate::playbook::{Playbook, Step, plan};
use crate::store::{
    BackfillMode, ChangesOf, Decision, Delayed, DelayedPlan, EventVerdict, NewAction, PendingEvent, PlannedRun,
    Prepared, StoreError,
};

/// Events looked at in one round.
const ROUND: usize = 500;
/// Events whose facts are being fetched at once.
const FETCHING: usize = 8;
/// Pauses when a fact cannot be had.
const POSTPONED: Schedule = Schedule { initial: Duration::from_secs(1), max: Duration::from_secs(60) };
/// How long nothing is decided after the state file could not be used. When it cannot be written, the wait goes on until it can.
const REST: Duration = Duration::from_secs(1);
/// The longest time between two looks into the inbox.
const LOOK: Duration = Duration::from_secs(1);

/// The task that decides.
pub struct Decider {
    engine: Arc<Engine>,
    stop: CancellationToken,
    fetching: JoinSet<(EventId, Result<(), StoreError>)>,
    /// Events under way, with the user each is about: his later events wait.
    under_way: HashMap<EventId, Option<String>>,
    /// Users for whom something was decided in the last round, if there was more than fits into one: others come first.
    had_their_turn: HashSet<String>,
    /// Events that were found to need a request when no more could be made; they are not opened again before one can.
    waiting: HashSet<EventId>,
}

impl Decider {
    /// A decider that runs until `stop`.
    pub fn new(engine: Arc<Engine>, stop: CancellationToken) -> Self {
        Self {
            engine,
            stop,
            fetching: JoinSet::new(),
            under_way: HashMap::new(),
            waiting: HashSet::new(),
            had_their_turn: HashSet::new(),
        }
    }

    /// Decides until the daemon stops.
    pub async fn run(mut self) -> Result<(), TaskError> {
        while !self.stop.is_cancelled() {
            self.engine.pulse.tick(Beat::Decider);
            if !self.engine.may_take_work().await {
                continue;
            }
            let more = match self.round().await {
                Ok(more) => more,
                Err(error) if error.may_pass() => {
                    debug!("deciding waits: {error}");
                    self.rest().await;
                    false
                }
                Err(error) => return Err(error.into()),
            };
            if more {
                continue;
            }
            let wait = self.until_due().await;
            tokio::select! {
                () = self.engine.stored.notified() => {}
                Some(done) = self.fetching.join_next() => {
                    if let Some(error) = self.fetched(done)? {
                        // What was asked for could not be stored. Asking again at once would only burden Okta.
                        debug!("deciding waits: {error}");
                        self.rest().await;
                    }
                }
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => {}
            }
        }
        self.fetching.shutdown().await;
        Ok(())
    }

    /// Takes back an event whose facts were fetched. Returns why its decision could not be stored, if that passes by itself.
    fn fetched(
        &mut self,
        done: Result<(EventId, Result<(), StoreError>), tokio::task::JoinError>,
    ) -> Result<Option<StoreError>, TaskError> {
        match done {
            Ok((event, result)) => {
                self.under_way.remove(&event);
                match result {
                    Ok(()) => Ok(None),
                    Err(error) if error.may_pass() => Ok(Some(error)),
                    Err(error) => Err(error.into()),
                }
            }
            Err(error) => {
                // A panic in one look-up must not block its user for ever.
                warn!("fetching facts failed: {error}");
                self.under_way.clear();
                Ok(None)
            }
        }
    }

    /// A while in which nothing is tried, because the state file could not be used.
    async fn rest(&self) {
        tokio::select! {
            () = tokio::time::sleep(REST) => {}
            () = self.stop.cancelled() => {}
        }
    }

    async fn until_due(&self) -> Duration {
        let now = self.engine.clock.now();
        match self.engine.store.next_due(now).await {
            Ok(Some(due)) => Duration::try_from(due.duration_since(now)).unwrap_or(LOOK).min(LOOK),
            _ => LOOK,
        }
    }

    /// One look into the inbox. Returns whether there may be more right away.
    async fn round(&mut self) -> Result<bool, StoreError> {
        let now = self.engine.clock.now();
        let resetting: Vec<_> = connectors::resetting_risk().collect();
        let mut busy: HashSet<String> = self.under_way.values().flatten().cloned().collect();
        // Many events of one user must not keep the others' from being seen.
        let had_their_turn = std::mem::take(&mut self.had_their_turn);
        let passed_over = busy.iter().chain(&had_their_turn).cloned().collect();
        let pending = self.engine.store.undecided(now, ROUND, &resetting, passed_over).await?;
        let full = pending.len() == ROUND;
        let mut began = 0;
        let mut decisions = Vec::new();
        // Users for whom something is decided in this round: what else waits for them can be looked at right after it.
        let mut decided_for: HashSet<String> = HashSet::new();
        let mut left = false;
        let mut waiting = HashSet::new();
        for event in pending {
            let user = event.subject.as_ref();
            if self.under_way.contains_key(&event.id) || user.is_some_and(|user| busy.contains(user)) {
                left |= user.is_some_and(|user| decided_for.contains(user));
                continue;
            }
            if event.too_early {
                left = true;
                busy.extend(event.subject);
                continue;
            }
            let may_fetch = self.fetching.len() < FETCHING;
            if !may_fetch && self.waiting.contains(&event.id) {
                busy.extend(event.subject);
                waiting.insert(event.id);
                continue;
            }
            let id = event.id;
            match survive(|| self.look_at(event, now)).unwrap_or_else(|| Look::Decided(poisoned(id))) {
                Look::NeedsIo(case) => {
                    busy.extend(case.pending.subject.clone());
                    if !may_fetch {
                        waiting.insert(id);
                        continue;
                    }
                    self.under_way.insert(id, case.pending.subject.clone());
                    began += 1;
                    let engine = Arc::clone(&self.engine);
                    self.fetching.spawn(async move { (id, decide_with_facts(&engine, *case).await) });
                }
                Look::Decided(decision) => {
                    // Groups that this decision changes must be changed before the user's next event asks for them.
                    let mut acting = decision.runs.iter().filter(|run| !run.observe).flat_map(|run| &run.actions);
                    if let Some(user) = acting.find_map(|action| action.subject.clone()) {
                        busy.insert(user.clone());
                        decided_for.insert(user);
                    }
                    decisions.push(decision);
                }
            }
        }
        self.waiting = waiting;
        let decided = decisions.len();
        write(&self.engine, decisions).await?;
        let more = (full && decided + began > 0) || (left && decided > 0) || !had_their_turn.is_empty();
        if full {
            self.had_their_turn = decided_for;
        }
        Ok(more)
    }

    /// Decides an event, or finds that something has to be asked for it first.
    fn look_at(&self, event: PendingEvent, now: Timestamp) -> Look {
        match Case::open(&self.engine, event) {
            Err(decision) => Look::Decided(*decision),
            Ok(case) if case.needs_io(&self.engine) => Look::NeedsIo(Box::new(case)),
            Ok(case) => Look::Decided(case.decide(&self.engine, now)),
        }
    }
}

/// What a look at an event came to.
enum Look {
    NeedsIo(Box<Case>),
    Decided(Decision),
}

/// The end of an event over which the program failed in itself. The events behind it go on.
fn poisoned(event: EventId) -> Decision {
    error!(event.id = event.0, "an event is skipped: {}", survive::WORDS);
    Decision { event, verdict: EventVerdict::Skipped(format!("poisoned: {}", survive::WORDS)), runs: Vec::new() }
}

async fn write(engine: &Engine, decisions: Vec<Decision>) -> Result<(), StoreError> {
    if decisions.is_empty() {
        return Ok(());
    }
    halt::point(Point::DecisionMade);
    let written = engine.store.commit_decisions(decisions, engine.clock.now()).await?;
    halt::point(Point::DecisionStored);
    if written > 0 {
        engine.planned.notify_one();
    }
    Ok(())
}

/// Decides one event whose playbooks ask for facts that need a request.
async fn decide_with_facts(engine: &Engine, mut case: Case) -> Result<(), StoreError> {
    let now = engine.clock.now();
    let id = case.pending.id;
    let decision = survive_async(async {
        match case.gather(engine).await {
            Ok(()) => case.decide(engine, engine.clock.now()),
            Err(later) => case.put_off(engine, later, now),
        }
    });
    let decision = decision.await.unwrap_or_else(|| poisoned(id));
    write(engine, vec![decision]).await
}

/// An event on the table.
struct Case {
    pending: PendingEvent,
    event: Arc<Event>,
    facts: Facts,
    /// Playbooks that want its type, by their place.
    playbooks: Vec<usize>,
    /// Whether it is a fall in risk that our own action caused.
    echo: bool,
}

impl Case {
    /// Opens an event, or says at once what becomes of it.
    fn open(engine: &Engine, pending: PendingEvent) -> Result<Self, Box<Decision>> {
        let end = |verdict| Box::new(Decision { event: pending.id, verdict, runs: Vec::new() });
        let event = match Event::parse(&pending.source, &pending.body) {
            Ok(event) => Arc::new(event),
            Err(error) => {
                warn!(event.id = pending.id.0, "an event is skipped, because it cannot be read whole: {error}");
                return Err(end(EventVerdict::Skipped(format!("unreadable: {}", with_cause(&error)))));
            }
        };
        if engine.guard.is_own(&event) {
            return Err(end(EventVerdict::Skipped("own".to_owned())));
        }
        if pending.superseded {
            if pending.backfill.is_none() {
                info!(
                    event.uuid = event.uuid,
                    "a risk event arrived after one that happened later: nothing is done for it"
                );
            }
            return Err(end(EventVerdict::Superseded));
        }
        let wants = |playbook: &Playbook| playbook.wants(&event.event_type);
        let playbooks =
            (0..).zip(&engine.playbooks).filter(|(_, playbook)| wants(playbook)).map(|(at, _)| at).collect();
        let facts = Facts::from_event(Arc::clone(&event), &engine.links);
        let echo = tells_risk(&event.event_type) && engine.guard.is_echo(&event, &Risk::of(&event), pending.last_reset);
        Ok(Self { pending, event, facts, playbooks, echo })
    }

    /// Whether anything has to be asked before this event can be decided. A backfill that observes asks nothing of Okta:
    /// its events may be a million. Our own inbox is asked for what conditions ask of the past.
    fn needs_io(&self, engine: &Engine) -> bool {
        let open = if self.echo { FactSet::EMPTY } else { self.open_facts(engine) };
        open.contains(Fact::Past) || (!self.only_observes() && !open.is_empty())
    }

    fn only_observes(&self) -> bool {
        self.pending.backfill == Some(BackfillMode::Observe)
    }

    /// The facts that decide and are not there yet: first those that say whether a playbook applies, then those of the
    /// playbooks that do.
    fn open_facts(&self, engine: &Engine) -> FactSet {
        self.wanting(engine).fold(FactSet::EMPTY, |open, playbook| open.union(self.open_facts_of(playbook)))
    }

    fn open_facts_of(&self, playbook: &Playbook) -> FactSet {
        let first = plan::open_to_apply(playbook, &self.facts);
        if !first.is_empty() {
            return first;
        }
        let applies = plan::applies(playbook, &self.facts).unwrap_or(false);
        if applies { self.facts.not_fetched(plan::deciding_facts(playbook)) } else { FactSet::EMPTY }
    }

    fn wanting<'a>(&'a self, engine: &'a Engine) -> impl Iterator<Item = &'a Playbook> {
        self.playbooks.iter().filter_map(|at| engine.playbooks.get(*at))
    }

    /// Asks the ledger and Okta for what decides.
    async fn gather(&mut self, engine: &Engine) -> Result<(), gather::Later> {
        let user = self.pending.subject.clone();
        if self.open_facts(engine).contains(Fact::Past) || self.wanting(engine).any(|one| !one.questions().is_empty()) {
            let mut facts = std::mem::take(&mut self.facts);
            let asked = gather::ask_the_past(engine, &mut facts, &self.event, self.wanting(engine)).await;
            self.facts = facts;
            asked?;
        }
        if self.only_observes() {
            return Ok(());
        }
        // Twice: what says that a playbook applies, then what its steps name.
        for _ in 0..2 {
            let open = self.open_facts(engine);
            let after_ours = gather::AfterOurs { postponed: self.pending.postponed, of: ChangesOf::All };
            gather::wait_for_own_changes(engine, open, user.as_deref(), after_ours).await?;
            let (since, most) = (self.pending.received, engine.settings.give_up_after);
            let patience = gather::Patience::since(since, most, self.pending.postponed, engine.clock.now());
            let priority = if self.pending.backfill.is_some() { Priority::Backfill } else { Priority::Enrichment };
            let wanted = gather::Wanted { facts: open, priority };
            gather::fetch(engine, &mut self.facts, wanted, user.as_deref(), patience).await?;
        }
        Ok(())
    }

    /// A fact cannot be had now. Playbooks that can do without it are not held up by those that cannot.
    fn put_off(&self, engine: &Engine, later: gather::Later, now: Timestamp) -> Decision {
        let pause = later.pause.unwrap_or_else(|| POSTPONED.pause(self.pending.postponed + 1, &self.event.uuid));
        if later.by_design
            || later.told
            || self.pending.put_off_because.as_deref().is_some_and(|why| why != gather::OWN_CHANGES)
        {
            debug!(event.uuid = self.event.uuid, "an event is put off: {}", later.reason);
        } else {
            warn!(event.uuid = self.event.uuid, "an event is put off: {}", later.reason);
        }
        let mut runs = Vec::new();
        if !later.by_design {
            let ready = self.wanting(engine).filter(|playbook| self.open_facts_of(playbook).is_empty());
            runs = ready.filter_map(|playbook| self.plan_run(engine, playbook, now)).collect();
        }
        let verdict = EventVerdict::Postponed { until: outcome::after(now, pause), reason: later.reason };
        Decision { event: self.pending.id, verdict, runs }
    }

    /// The decision. Pure but for the log.
    fn decide(&self, engine: &Engine, now: Timestamp) -> Decision {
        if self.echo {
            info!(event.uuid = self.event.uuid, "a fall in risk that our own action caused is left alone");
            return Decision {
                event: self.pending.id,
                verdict: EventVerdict::Skipped("echo".to_owned()),
                runs: Vec::new(),
            };
        }
        let runs: Vec<PlannedRun> =
            self.wanting(engine).filter_map(|playbook| self.plan_run(engine, playbook, now)).collect();
        debug!(
            event.uuid = self.event.uuid,
            event.kind = self.event.event_type,
            runs = runs.len(),
            "an event is decided"
        );
        Decision { event: self.pending.id, verdict: EventVerdict::Decided, runs }
    }

    fn plan_run(&self, engine: &Engine, playbook: &Playbook, now: Timestamp) -> Option<PlannedRun> {
        let unmet = match plan::applies(playbook, &self.facts) {
            Ok(true) => None,
            Ok(false) => return None,
            // In a backfill that observes, an answer that needs a request is not had.
            Err(_) if self.only_observes() && !self.facts.not_fetched(plan::applying_facts(playbook)).is_empty() => {
                return None;
            }
            Err(error) => Some(with_cause(&error)),
        };
        let observe = self.only_observes() || playbook.mode == Mode::Observe || engine.guard.observes();
        let mut facts = self.facts.clone();
        if observe {
            // Nothing is done, so that is what a step that reads other steps sees.
            let state = ActionState::Skipped.as_str().to_owned();
            for step in &playbook.steps {
                facts.set_step(&step.name, StepView { state: state.clone(), ..StepView::default() });
            }
        }
        let actions = playbook.in_order().into_iter().map(|step| {
            let start = match &unmet {
                Some(why) => Start { preparation: Some(prepare::cannot(why.clone())), ..Start::default() },
                None => self.prepare(engine, playbook, step, &facts, observe, now),
            };
            self.new_action(playbook, step, start, now)
        });
        Some(PlannedRun {
            playbook: playbook.name.clone(),
            observe,
            facts: self.facts.fetched_json().to_string(),
            actions: actions.collect(),
        })
    }

    /// How far a step can be prepared now. A step that changes access is prepared at once even when it waits for others,
    /// because its lane must be known; if it is called for, it goes on waiting. With a delay it is prepared so too, because
    /// what it changes is what was meant when the event was decided; a lane it has when it is due.
    fn prepare(
        &self,
        engine: &Engine,
        playbook: &Playbook,
        step: &Step,
        facts: &Facts,
        observe: bool,
        now: Timestamp,
    ) -> Start {
        let delayed = |params| {
            let plan = DelayedPlan {
                cancel_if: step.cancel_if.as_ref().map(|condition| condition.text().to_owned()),
                needs: step.needs.clone(),
                approval: step.approval,
            };
            step.delay.map(|delay| Delayed { delay, params, plan })
        };
        let waits = !step.after.is_empty() && !observe;
        if waits && !step.action.changes_access {
            return Start { delayed: delayed(None), ..Start::default() };
        }
        let planned = plan::prepare(playbook, step, facts, &self.event);
        if matches!(planned, plan::Prepared::NeedsFacts(_)) && !observe {
            return Start { delayed: delayed(None), ..Start::default() };
        }
        let end = prepare::end(&engine.guard, step, &self.event, planned, observe, now);
        let goes_on = matches!(end.happening, Happening::Prepared | Happening::HeldForApproval);
        if goes_on && step.delay.is_some() {
            let params = end.params.filter(|_| step.action.changes_access);
            return Start { delayed: delayed(params), ..Start::default() };
        }
        let lane = end.lane.clone();
        Start { preparation: Some(end).filter(|_| !(waits && goes_on)), lane, delayed: None }
    }

    fn new_action(
        &self,
        playbook: &Playbook,
        step: &Step,
        Start { preparation, lane, delayed }: Start,
        now: Timestamp,
    ) -> NewAction {
        let wait = step.wait.and_then(|wait| SignedDuration::try_from(wait).ok());
        NewAction {
            step: step.name.clone(),
            kind: step.action.name,
            key: IdempotencyKey::derive(&self.event.source, &self.event.uuid, &playbook.name, &step.name),
            subject: self.pending.subject.clone(),
            lane,
            in_doubt: step.in_doubt,
            after: step.after.clone(),
            wait_until: wait.and_then(|wait| now.checked_add(wait).ok()),
            preparation,
            delayed,
        }
    }
}

/// How an action begins.
#[derive(Default)]
struct Start {
    /// How far it could be prepared.
    preparation: Option<Prepared>,
    lane: Option<String>,
    delayed: Option<Delayed>,
}

fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{POISON, engine, receive, receive_page};
    use super::*;
    use crate::config::PlaybookConfig;
    use crate::connectors::Registry;
    use crate::store::{ActionFilter, EventFilter, NewEvent};

    #[tokio::test]
    async fn an_event_over_which_the_program_fails_ends_visibly_and_those_behind_it_go_on() {
        let poisoned = |name: &str, kind: &str, when: &str| {
            let text = format!(
                "name = \"{name}\"\non = [\"{kind}\"]\n[[step]]\nname = \"s\"\nwhen = '{when}'\n\
                 action = \"slack.message.post\"\nwith = {{ channel = \"c\", text = \"t\" }}"
            );
            let config: PlaybookConfig = toml::from_str(&text).unwrap();
            let mut playbook = Playbook::compile(&config, &connectors::catalogue()).unwrap();
            playbook.steps.iter_mut().for_each(|step| step.action = &POISON);
            playbook
        };
        let playbook = poisoned("p", "x", "event.uuid == \"bad\"");
        let (engine, _dir) = engine(vec![playbook], Registry::of([])).await;
        receive(&engine, "x", &["before", "bad", "behind"]).await;
        let mut decider = Decider::new(Arc::clone(&engine), CancellationToken::new());
        while decider.round().await.unwrap() {}
        let mut events = engine.store.list_events(EventFilter::default()).await.unwrap();
        events.sort_by_key(|event| event.id);
        let states: Vec<_> = events.iter().map(|event| event.state.as_str()).collect();
        assert_eq!(states, ["decided", "skipped", "decided"]);
        let why = events[1].reason.as_deref().unwrap();
        assert!(why.starts_with("poisoned: ") && why.contains("report"), "{why}");
    }

    /// How the steps of a playbook stand once an event is decided: the state, whether it is delayed, its parameters, its lane.
    async fn decided(mode: &str) -> Vec<(String, String, bool, bool, Option<String>)> {
        let later = "delay = \"24h\"\ncancel_if = 'user_risk == \"HIGH\"'";
        let change = "action = \"okta.group.remove_user\"\nwith = { group = \"g\", user = \"00u1\" }";
        let tell = "action = \"slack.message.post\"\nwith = { channel = \"c\", text = \"t\" }";
        let text = format!(
            "name = \"p\"\non = [\"x\"]\nmode = \"{mode}\"\n[[step]]\nname = \"now\"\n{change}\n\
             [[step]]\nname = \"change\"\n{change}\n{later}\n[[step]]\nname = \"tell\"\n{tell}\n{later}\n\
             [[step]]\nname = \"uncalled\"\nwhen = 'event.uuid == \"other\"'\n{change}\n{later}\n"
        );
        let config: PlaybookConfig = toml::from_str(&text).unwrap();
        let playbook = Playbook::compile(&config, &connectors::catalogue()).unwrap();
        let (engine, _dir) = engine(vec![playbook], Registry::of([])).await;
        receive(&engine, "x", &["e"]).await;
        let mut decider = Decider::new(Arc::clone(&engine), CancellationToken::new());
        while decider.round().await.unwrap() {}
        let mut rows = engine.store.list_actions(ActionFilter::default()).await.unwrap();
        rows.reverse();
        let row = |row: crate::store::ActionRow| {
            (row.step, row.state, row.delayed_until.is_some(), row.params.is_some(), row.lane)
        };
        rows.into_iter().map(row).collect()
    }

    #[tokio::test]
    async fn a_delayed_change_is_planned_with_the_rest_and_holds_no_lane_and_a_text_is_filled_in_when_it_is_due() {
        let row = |step: &str, state: &str, [delayed, filled]: [bool; 2], lane: Option<&str>| {
            (step.to_owned(), state.to_owned(), delayed, filled, lane.map(str::to_owned))
        };
        let lane = Some("okta.group/g/00u1");
        assert_eq!(
            decided("enforce").await,
            [
                row("now", "ready", [false, true], lane),
                row("change", "waiting", [true, true], None),
                row("tell", "waiting", [true, false], None),
                row("uncalled", "skipped", [false, false], None),
            ]
        );
        assert_eq!(
            decided("observe").await,
            [
                row("now", "skipped", [false, true], lane),
                row("change", "skipped", [false, true], lane),
                row("tell", "skipped", [false, true], None),
                row("uncalled", "skipped", [false, false], None),
            ]
        );
    }

    #[tokio::test]
    async fn what_stands_behind_an_event_that_waits_for_a_newer_one_waits_with_it() {
        let (engine, _dir) = engine(Vec::new(), Registry::of([])).await;
        let told = |uuid: &str, minutes: i64| {
            let published = engine.clock.now() - SignedDuration::from_mins(minutes);
            let body = format!(r#"{{"uuid":"{uuid}","eventType":"user.risk.detect","published":"{published:.3}"}}"#);
            let (event_type, subject) = ("user.risk.detect".to_owned(), Some("ann".to_owned()));
            NewEvent {
                uuid: uuid.to_owned(),
                event_type,
                published,
                subject,
                risk: Some("HIGH"),
                traits: Default::default(),
                body,
            }
        };
        receive_page(&engine, vec![told("newer", 5), told("late", 9), told("newest", 1)]).await;
        let mut decider = Decider::new(Arc::clone(&engine), CancellationToken::new());
        let open = async || {
            let events = engine.store.list_events(EventFilter::default()).await.unwrap();
            let mut open: Vec<_> = events.into_iter().filter(|event| event.state == "new").collect();
            open.sort_by_key(|event| event.id);
            open.into_iter().map(|event| event.uuid).collect::<Vec<_>>()
        };
        assert!(decider.round().await.unwrap(), "there is more right away");
        assert_eq!(open().await, ["late", "newest"]);
        decider.round().await.unwrap();
        assert!(open().await.is_empty());
        assert_eq!(engine.store.find_event("late").await.unwrap().unwrap().0.state, "superseded");
    }
}
