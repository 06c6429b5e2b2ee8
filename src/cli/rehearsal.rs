//! What would be done for an event. Pure: the playbooks, the guard and the templates are the daemon's own; only the facts
//! are somebody's word, and steps that would run are taken to succeed.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::config::Mode;
use crate::config::load::Loaded;
use crate::engine::intake::tells_risk;
use crate::engine::prepare;
use crate::engine::wanted_types;
use crate::guard::Guard;
use crate::model::action::Happening;
use crate::model::event::{Entity, Event};
use crate::model::ids::IdempotencyKey;
use crate::model::risk::{Risk, RiskOrigin};
use crate::playbook::facts::{Fact, FactSet, FactValue, Facts, LinkBase, StepView, step_identifier};
use crate::playbook::given::GivenFacts;
use crate::playbook::{Condition, Playbook, Step, plan};

/// How it is told that something is asked for later than the rest.
pub(super) const WHEN_DUE: &str = "when its delay ends";

/// Everything that is needed besides the event.
pub(super) struct Stage<'a> {
    pub loaded: &'a Loaded,
    pub guard: &'a Guard,
    pub links: &'a LinkBase,
    pub given: &'a GivenFacts,
    /// What is known when a delay ends; without it that is left open, and the step is taken to be done.
    pub later: Option<&'a GivenFacts>,
}

/// What would be done for one event.
#[derive(Debug, Serialize)]
pub(super) struct Rehearsal {
    pub uuid: String,
    #[serde(rename = "type")]
    pub event_type: String,
    pub published: Timestamp,
    pub user: Option<Person>,
    /// What the event tells of the user's risk; null when it tells nothing.
    pub risk: Option<Risk>,
    /// Whether the event would be stored at all.
    pub wanted: bool,
    /// Whether we caused it ourselves, as far as [guard] own_ids tells; such an event starts nothing.
    pub own: bool,
    /// Whether it would be left alone as an echo, had we reset this user's risk a moment before.
    pub possible_echo: bool,
    pub notes: Vec<String>,
    pub runs: Vec<Run>,
}

/// The affected user.
#[derive(Debug, Serialize)]
pub(super) struct Person {
    id: String,
    login: Option<String>,
    name: Option<String>,
}

/// One playbook that wants events of this type.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    pub playbook: String,
    pub mode: &'static str,
    /// Null when facts are needed to tell.
    pub applies: Option<bool>,
    pub why: Option<String>,
    /// What its condition reads.
    #[serde(skip)]
    pub reads: Vec<(String, Value)>,
    pub steps: Vec<Part>,
}

/// One step.
#[derive(Debug, Serialize)]
pub(super) struct Part {
    pub step: String,
    pub action: &'static str,
    pub state: StepState,
    pub why: Option<String>,
    /// What its condition reads.
    #[serde(skip)]
    pub reads: Vec<(String, Value)>,
    pub after: Vec<String>,
    pub wait: Option<String>,
    /// How much later it would be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<String>,
    /// What is asked then; when it is true, nothing is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_if: Option<String>,
    /// The facts that would be asked for.
    pub facts: Vec<&'static str>,
    /// As far as they can be filled in.
    pub params: Option<Map<String, Value>>,
    pub lane: Option<String>,
    pub key: String,
}

/// What would become of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StepState {
    WouldRun,
    AwaitsApproval,
    NeedsFacts,
    NotCalledFor,
    NeedNotMet,
    Observed,
    Cancelled,
    Refused,
    Failed,
}

impl StepState {
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::WouldRun => "would run",
            Self::AwaitsApproval => "would wait for approval",
            Self::NeedsFacts => "needs facts",
            Self::NotCalledFor => "is not called for",
            Self::NeedNotMet => "would be skipped",
            Self::Observed => "would be recorded only (observe mode)",
            Self::Cancelled => "would be skipped when its delay ends",
            Self::Refused => "would be refused by the guard",
            Self::Failed => "would FAIL",
        }
    }

    /// The word that later steps read of it.
    fn seen_as(self) -> &'static str {
        match self {
            Self::WouldRun | Self::NeedsFacts => "succeeded",
            Self::AwaitsApproval => "awaiting_approval",
            Self::NotCalledFor | Self::NeedNotMet | Self::Observed | Self::Cancelled => "skipped",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        let named = [&self.login, &self.name].into_iter().flatten().cloned().collect::<Vec<_>>().join(", ");
        if named.is_empty() { Ok(()) } else { write!(f, " ({named})") }
    }
}

impl From<Entity<'_>> for Person {
    fn from(user: Entity<'_>) -> Self {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Self { id: user.id.to_owned(), login: text(user.alternate_id), name: text(user.display_name) }
    }
}

impl Rehearsal {
    /// Whether a condition or a step gives no answer or cannot be filled in: something that its author has to change.
    pub(super) fn fails(&self) -> bool {
        self.runs.iter().any(Run::fails)
    }
}

impl Run {
    fn fails(&self) -> bool {
        self.failed_condition().is_some() || self.steps.iter().any(|step| step.state == StepState::Failed)
    }

    /// Why the condition of the playbook gives no answer.
    pub(super) fn failed_condition(&self) -> Option<&str> {
        self.why.as_deref().filter(|_| self.applies == Some(true))
    }
}

impl Stage<'_> {
    pub(super) fn rehearse(&self, event: &Event, now: Timestamp) -> Rehearsal {
        let risk = Risk::of(event);
        let wanted = wanted_types(&self.loaded.playbooks, &self.loaded.config.risk).contains(&event.event_type);
        let own = self.guard.is_own(event);
        let is_about_risk = tells_risk(&event.event_type) && event.affected_user().is_some();
        let possible_echo = is_about_risk && self.guard.is_echo(event, &risk, Some(event.published));
        let mut notes = Vec::new();
        if !wanted {
            notes.push(format!("no playbook wants `{}`: the event would not even be stored", event.event_type));
        }
        if own {
            notes.push("its actor is one of [guard] own_ids: it would start nothing".to_owned());
        }
        if possible_echo {
            let window = humantime::format_duration(self.loaded.config.guard.echo_window);
            notes.push(format!(
                "had we cleared this user's sessions within {window} before, it would be left alone as an echo"
            ));
        }
        let wanting = self.loaded.playbooks.iter().filter(|playbook| !own && playbook.wants(&event.event_type));
        Rehearsal {
            uuid: event.uuid.clone(),
            event_type: event.event_type.clone(),
            published: event.published,
            user: event.affected_user().map(Person::from),
            risk: (tells_risk(&event.event_type) || risk.source != RiskOrigin::None).then_some(risk),
            wanted,
            own,
            possible_echo,
            notes,
            runs: wanting.map(|playbook| self.run(playbook, event, now)).collect(),
        }
    }

    fn facts(&self, event: &Event) -> Facts {
        let mut facts = Facts::from_event(event.clone(), self.links);
        if event.affected_user().is_none() {
            for fact in Fact::ALL.into_iter().filter(|fact| *fact != Fact::Past) {
                facts.set(fact, FactValue::Missing("the event names no user".to_owned()));
            }
        }
        for (fact, value) in &self.given.facts {
            facts.set(*fact, value.clone());
        }
        facts
    }

    /// What one playbook would make of the event, whether it wants events of this type or not.
    pub(super) fn run(&self, playbook: &Playbook, event: &Event, now: Timestamp) -> Run {
        let mut facts = self.facts(event);
        let open = plan::open_to_apply(playbook, &facts);
        let (applies, why) = if open.is_empty() {
            match plan::applies(playbook, &facts) {
                Ok(true) => (Some(true), None),
                Ok(false) => (Some(false), Some("its condition is false".to_owned())),
                Err(error) => (Some(true), Some(with_cause(&error))),
            }
        } else {
            (None, Some(format!("{} would be asked for to tell", in_words(open, playbook.when.iter(), &facts))))
        };
        let observe = playbook.mode == Mode::Observe || self.guard.observes();
        let mode = if observe { "observe" } else { "enforce" };
        let reads = playbook.when.as_ref().map(|when| when.values_read(&facts)).unwrap_or_default();
        let mut run = Run { playbook: playbook.name.clone(), mode, applies, why, reads, steps: Vec::new() };
        if applies == Some(false) {
            return run;
        }
        for step in playbook.in_order() {
            // A condition without an answer fails every step, so that somebody sees it.
            let part = self.part(playbook, step, event, &facts, run.failed_condition(), &run.steps, now);
            facts.set_step(&step.name, self.seen(step, &part));
            run.steps.push(part);
        }
        run
    }

    #[expect(clippy::too_many_arguments, reason = "each is another thing that a step depends on")]
    fn part(
        &self,
        playbook: &Playbook,
        step: &Step,
        event: &Event,
        facts: &Facts,
        unmet: Option<&str>,
        before: &[Part],
        now: Timestamp,
    ) -> Part {
        let observe = playbook.mode == Mode::Observe || self.guard.observes();
        let mut part = Part {
            step: step.name.clone(),
            action: step.action.name,
            state: StepState::Failed,
            why: unmet.map(str::to_owned),
            reads: step.when.as_ref().map(|when| when.values_read(facts)).unwrap_or_default(),
            after: step.after.clone(),
            wait: step.wait.map(|wait| humantime::format_duration(wait).to_string()),
            delay: step.delay.map(|delay| humantime::format_duration(delay).to_string()),
            cancel_if: step.cancel_if.as_ref().map(|condition| condition.text().to_owned()),
            facts: Vec::new(),
            params: None,
            lane: None,
            key: IdempotencyKey::derive(&event.source, &event.uuid, &playbook.name, &step.name).as_str().to_owned(),
        };
        if unmet.is_some() {
            return part;
        }
        if let Some(needed) = step.needs.iter().find(|needed| !self.is_success(needed, before)) {
            part.state = StepState::NeedNotMet;
            let held = before.iter().any(|part| part.step == *needed && part.state == StepState::AwaitsApproval);
            let which = if held { "which a person has to approve first" } else { "which would not succeed" };
            part.why = Some(format!("it needs the step `{needed}`, {which}"));
            return part;
        }
        match plan::prepare(playbook, step, facts, event) {
            plan::Prepared::NeedsFacts(open) => {
                part.state = StepState::NeedsFacts;
                part.why = Some(what_is_needed(step, facts, open));
                part.facts = facts.not_fetched(step.facts_named()).iter().map(Fact::as_str).collect();
                part.params = Some(step.with.render_known(facts));
            }
            // Observing would record it as skipped; whoever rehearses wants to know that it would not work.
            plan::Prepared::Failed { message } => part.why = Some(message),
            prepared => {
                let edited = step.edits.as_ref().and_then(|name| before.iter().find(|part| part.step == *name));
                let posted = edited.and_then(|message| message.params.clone()).map(Value::Object);
                let prepared = prepare::edit(posted.as_ref(), prepared);
                let end = prepare::end(self.guard, step, event, prepared, observe, now);
                part.state = match end.happening {
                    Happening::Prepared => StepState::WouldRun,
                    Happening::HeldForApproval => StepState::AwaitsApproval,
                    Happening::RefusedByGuard => StepState::Refused,
                    Happening::NotCalledFor if end.reason == Some("observe") => StepState::Observed,
                    Happening::NotCalledFor => StepState::NotCalledFor,
                    _ => StepState::Failed,
                };
                part.why = end.error;
                part.lane = end.lane;
                part.params = end.params.and_then(|params| serde_json::from_str(&params).ok());
                if matches!(part.state, StepState::WouldRun | StepState::AwaitsApproval) {
                    self.when_due(step, event, facts, now, &mut part);
                }
            }
        }
        part
    }

    /// Asks what is asked when the delay ends, if it was told how things stand then.
    fn when_due(&self, step: &Step, event: &Event, facts: &Facts, now: Timestamp, part: &mut Part) {
        let (Some(later), Some(delay), Some(condition)) = (self.later, step.delay, &step.cancel_if) else { return };
        let delay = SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX);
        let mut fresh = facts.clone().as_of(now.checked_add(delay).unwrap_or(Timestamp::MAX));
        if event.affected_user().is_some() {
            Fact::ALL.into_iter().for_each(|fact| fresh.forget(fact));
        }
        later.facts.iter().for_each(|(fact, value)| fresh.set(*fact, value.clone()));
        later.steps.iter().for_each(|(name, view)| fresh.set_step(name, view.clone()));
        let open = condition.facts_open(&fresh);
        part.reads = condition.values_read(&fresh);
        if !open.is_empty() {
            part.state = StepState::NeedsFacts;
            let open = in_words(open, std::iter::once(condition), &fresh);
            part.why = Some(format!("{open} would be asked for {WHEN_DUE}"));
            return;
        }
        match condition.evaluate(&fresh) {
            Ok(false) => {}
            Ok(true) => {
                part.state = StepState::Cancelled;
                part.why = Some(format!("`cancel_if` is true: `{}`", condition.text()));
            }
            Err(error) => {
                part.state = StepState::Failed;
                part.why = Some(format!("`cancel_if` gave no answer: {error}"));
            }
        }
    }

    fn given_step(&self, name: &str) -> Option<&StepView> {
        let wanted = step_identifier(name);
        self.given.steps.iter().find(|(given, _)| step_identifier(given) == wanted).map(|(_, view)| view)
    }

    fn is_success(&self, name: &str, before: &[Part]) -> bool {
        let predicted = before.iter().find(|part| part.step == name).map(|part| part.state.seen_as());
        let state = self.given_step(name).map(|view| view.state.as_str()).or(predicted);
        matches!(state, Some("succeeded" | "settled"))
    }

    /// The step as the steps after it would see it.
    fn seen(&self, step: &Step, part: &Part) -> StepView {
        if let Some(view) = self.given_step(&step.name) {
            return view.clone();
        }
        let state = part.state.seen_as().to_owned();
        let made = |what: &str| (state == "succeeded").then(|| format!("({what} of {})", step.name));
        // Why it may be called for is no error of a step that is taken to succeed.
        let error = part.why.clone().filter(|_| state != "succeeded");
        let (url, id, number, note) = (made("url"), made("id"), made("number"), made("note"));
        // What a service would answer nobody knows but who tells it.
        StepView { url, id, number, note, error, state, ..StepView::default() }
    }
}

/// Facts by their names, and of the past what is asked.
fn in_words<'c>(open: FactSet, conditions: impl Iterator<Item = &'c Condition>, facts: &Facts) -> String {
    let asked = conditions.flat_map(|condition| condition.questions_open(facts));
    let facts = open.iter().filter(|fact| *fact != Fact::Past).map(|fact| fact.as_str().to_owned());
    facts.chain(asked).collect::<Vec<_>>().join(", ")
}

fn what_is_needed(step: &Step, facts: &Facts, open: FactSet) -> String {
    let of_condition = step.when.as_ref().is_some_and(|when| !when.facts_open(facts).is_empty());
    let open = in_words(open, step.conditions(), facts);
    if of_condition {
        format!("{open} would be asked for to tell whether it is called for")
    } else {
        format!("{open} would be asked for to fill its parameters")
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
