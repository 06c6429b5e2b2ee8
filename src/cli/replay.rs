//! What another configuration would have done for events of the past, against what was done. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::rehearsal::{Part, Person, Run, Stage, StepState};
use crate::config::GuardConfig;
use crate::config::load::Loaded;
use crate::guard::{Guard, alarm};
use crate::model::event::Event;
use crate::model::outcome::Receipt;
use crate::playbook::facts::{Fact, Facts, LinkBase, StepView};
use crate::playbook::given::GivenFacts;
use crate::playbook::{FactValue, Playbook, Question};
use crate::store::{Past, PastAction, PastRun};

/// What a configuration would have made of one event.
#[derive(Debug, Serialize)]
pub(super) struct Replayed {
    pub event: i64,
    pub uuid: String,
    #[serde(rename = "type")]
    pub event_type: String,
    pub published: Timestamp,
    pub user: Option<Person>,
    pub outcome: Outcome,
    /// Why nothing is compared.
    pub why: Option<String>,
    /// The steps of which something is to be told.
    pub steps: Vec<Step>,
}

/// How an event compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Same,
    /// It was left alone: our own, an echo, superseded.
    LeftAlone,
    /// Something of it can't be told.
    Unknown,
    Differs,
}

/// A step of which something is to be told.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    pub playbook: String,
    /// The run it belonged to.
    pub run: Option<i64>,
    /// Empty: the whole playbook.
    pub step: String,
    pub action: Option<String>,
    pub change: Change,
    /// What was decided then.
    pub then: Option<&'static str>,
    /// What would be decided now.
    pub now: Option<&'static str>,
    pub why: Option<String>,
    pub parameters: Vec<Parameter>,
}

/// In which way a step differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    New,
    Gone,
    Parameters,
    Otherwise,
    Unknown,
}

/// A parameter that differs.
#[derive(Debug, Serialize)]
pub(super) struct Parameter {
    pub name: String,
    pub then: Option<Value>,
    pub now: Option<Value>,
}

/// What was decided about a step, whatever became of it afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decided {
    CalledFor,
    Observed,
    NotCalledFor,
    Refused,
    Failed,
    /// Not yet, or it could not be told.
    Unknown,
}

impl Decided {
    fn then(action: &PastAction) -> Self {
        let prepared = action.params.is_some();
        match (action.state.as_str(), action.reason.as_deref()) {
            ("skipped", Some("observe")) if prepared => Self::Observed,
            ("skipped", Some("observe")) => Self::Unknown,
            // It was called for, and was not any more when its delay ended.
            ("skipped", Some("cancel_if" | "superseded")) if prepared => Self::CalledFor,
            ("skipped", Some("cancel_if" | "superseded")) => Self::Unknown,
            ("skipped", _) => Self::NotCalledFor,
            ("refused", Some("guard")) => Self::Refused,
            ("failed", _) if !prepared => Self::Failed,
            _ if prepared => Self::CalledFor,
            _ => Self::Unknown,
        }
    }

    fn now(part: &Part) -> Self {
        match part.state {
            StepState::WouldRun | StepState::AwaitsApproval | StepState::Cancelled => Self::CalledFor,
            StepState::Observed => Self::Observed,
            StepState::NotCalledFor | StepState::NeedNotMet => Self::NotCalledFor,
            StepState::Refused => Self::Refused,
            StepState::Failed => Self::Failed,
            StepState::NeedsFacts => Self::Unknown,
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::CalledFor => "called for",
            Self::Observed => "observed only",
            Self::NotCalledFor => "not called for",
            Self::Refused => "refused by the guard",
            Self::Failed => "failed before it was sent",
            Self::Unknown => "not known",
        }
    }

    fn has_params(self) -> bool {
        matches!(self, Self::CalledFor | Self::Observed)
    }
}

/// The configuration under which the past is looked at.
pub(super) struct Replay<'l> {
    loaded: &'l Loaded,
    links: &'l LinkBase,
    guard: Guard,
    /// The same guard where nothing is ever done: for backfills that only observe.
    observing: Guard,
    /// Whether some users are protected by what only Okta can tell.
    asks_okta: bool,
}

impl<'l> Replay<'l> {
    pub(super) fn new(loaded: &'l Loaded, links: &'l LinkBase) -> Self {
        let config = &loaded.config.guard;
        let observing = GuardConfig { mode: crate::config::Mode::Observe, ..config.clone() };
        let guard = Guard::new(config, []);
        let reads = guard.reads();
        Self { loaded, links, asks_okta: reads.0 || reads.1, observing: Guard::new(&observing, []), guard }
    }

    /// Compares one event. `asked` is what the inbox says now of what conditions ask of the past; what it said then goes
    /// before it.
    pub(super) fn replay(&self, past: &Past, event: &Event, asked: &Value) -> Replayed {
        let mut replayed = Replayed {
            event: past.id,
            uuid: past.uuid.clone(),
            event_type: event.event_type.clone(),
            published: event.published,
            user: event.affected_user().map(Person::from),
            outcome: Outcome::Same,
            why: None,
            steps: Vec::new(),
        };
        if past.state != "decided" {
            let reason = past.reason.as_deref().unwrap_or(&past.state);
            replayed.outcome = Outcome::LeftAlone;
            replayed.why = Some(format!("it was left alone: {reason}"));
            return replayed;
        }
        let own = self.guard.is_own(event);
        let wants = |playbook: &&Playbook| !own && playbook.wants(&event.event_type);
        for playbook in self.loaded.playbooks.iter().filter(wants) {
            let run = past.runs.iter().find(|run| run.playbook == playbook.name);
            self.compare(playbook, past, run, (event, asked), &mut replayed.steps);
        }
        let answered =
            |run: &&PastRun| self.loaded.playbooks.iter().filter(wants).any(|playbook| playbook.name == run.playbook);
        for run in past.runs.iter().filter(|run| !answered(run)) {
            let why = if own { "its actor is one of [guard] own_ids" } else { "no playbook of this name answers it" };
            replayed.steps.extend(run.actions.iter().filter_map(|action| gone(run, action, Some(why))));
        }
        let differs = |step: &Step| step.change != Change::Unknown;
        replayed.outcome = match replayed.steps.as_slice() {
            [] => Outcome::Same,
            steps if steps.iter().any(differs) => Outcome::Differs,
            _ => Outcome::Unknown,
        };
        replayed
    }

    /// What this configuration asks of the past about an event.
    pub(super) fn questions(&self, event: &Event) -> BTreeSet<&'l Question> {
        let wanting = self.loaded.playbooks.iter().filter(|playbook| playbook.wants(&event.event_type));
        wanting.flat_map(Playbook::questions).collect()
    }

    fn compare(
        &self,
        playbook: &Playbook,
        past: &Past,
        run: Option<&PastRun>,
        (event, asked): (&Event, &Value),
        told: &mut Vec<Step>,
    ) {
        let mut given =
            GivenFacts { facts: facts_then(past, run, asked), steps: run.map(steps_then).unwrap_or_default() };
        let mut now = self.look(playbook, past, run, event, &given);
        // How a step ended then says nothing about one that is decided otherwise now.
        while let Some(run) = run {
            let same = |name: &String| {
                let then = run.actions.iter().find(|action| action.step == *name).map(Decided::then);
                now.steps.iter().find(|part| part.step == *name).map(Decided::now) == then
            };
            let before = given.steps.len();
            given.steps.retain(|(name, _)| same(name));
            if given.steps.len() == before {
                break;
            }
            now = self.look(playbook, past, Some(run), event, &given);
        }
        let new = |step: &str| Step { run: run.map(|run| run.id), ..unchanged(&playbook.name, step) };
        if now.applies.is_none() {
            told.push(Step { change: Change::Unknown, why: now.why.clone(), ..new("") });
            return;
        }
        for part in &now.steps {
            let then = run.and_then(|run| run.actions.iter().find(|action| action.step == part.step));
            told.extend(
                self.compare_step(playbook, run, then, part)
                    .map(|step| Step { action: Some(part.action.to_owned()), ..step }),
            );
        }
        let is_there = |action: &&PastAction| now.steps.iter().any(|part| part.step == action.step);
        if let Some(run) = run {
            let why =
                now.why.as_deref().filter(|_| now.applies == Some(false)).unwrap_or("the playbook has no such step");
            told.extend(
                run.actions.iter().filter(|action| !is_there(action)).filter_map(|one| gone(run, one, Some(why))),
            );
        }
    }

    /// What would be decided now. What was refused when it was to be sent, as when it had become too old by then, is
    /// looked at as of that moment.
    fn look(&self, playbook: &Playbook, past: &Past, run: Option<&PastRun>, event: &Event, given: &GivenFacts) -> Run {
        let at = run.map_or(past.received_at, |run| run.created_at);
        let mut now = self.rehearse(playbook, past, event, given, at);
        for part in &mut now.steps {
            let then = run.and_then(|run| run.actions.iter().find(|action| action.step == part.step));
            let refused = then.filter(|then| Decided::then(then) == Decided::Refused);
            if let Some(at) = refused.and_then(|then| then.finished_at) {
                let later = self.rehearse(playbook, past, event, given, at);
                if let Some(later) = later.steps.into_iter().find(|later| later.step == part.step) {
                    *part = later;
                }
            }
        }
        now
    }

    fn rehearse(&self, playbook: &Playbook, past: &Past, event: &Event, given: &GivenFacts, at: Timestamp) -> Run {
        let guard = if past.only_observed { &self.observing } else { &self.guard };
        Stage { loaded: self.loaded, guard, links: self.links, given, later: None }.run(playbook, event, at)
    }

    fn compare_step(
        &self,
        playbook: &Playbook,
        run: Option<&PastRun>,
        then: Option<&PastAction>,
        part: &Part,
    ) -> Option<Step> {
        let before = then.map_or(Decided::NotCalledFor, Decided::then);
        let now = Decided::now(part);
        let step = Step {
            run: run.map(|run| run.id),
            then: then.map(|_| before.in_words()),
            now: Some(now.in_words()),
            why: part.why.clone(),
            ..unchanged(&playbook.name, &part.step)
        };
        // Whether there was something to edit depends on when the message went out.
        let is_edit = playbook.step(&part.step).is_some_and(|step| step.edits.is_some());
        match (before, now) {
            (Decided::CalledFor, Decided::NotCalledFor) if is_edit => None,
            (Decided::Unknown, _) => {
                let why =
                    then.and_then(|then| then.error.clone()).unwrap_or_else(|| "it was not decided yet".to_owned());
                Some(Step { change: Change::Unknown, why: Some(why), ..step })
            }
            (_, Decided::Unknown) => {
                let why = part.why.as_ref().map(|why| format!("not asked for then: {why}"));
                Some(Step { change: Change::Unknown, why, ..step })
            }
            (Decided::Refused, Decided::CalledFor) if self.asks_okta => {
                let why = "who is protected by a group or a role only Okta can tell".to_owned();
                Some(Step { change: Change::Unknown, why: Some(why), ..step })
            }
            (before, now) if before == now && now.has_params() => {
                let then = then?;
                let parameters = other_parameters(then, part);
                if parameters.is_empty() && then.action == part.action {
                    return None;
                }
                if then.action == part.action && run.is_some_and(|run| !saw_the_end(playbook, run, then)) {
                    let why = "it tells how other steps stood when it was sent, and they ended after that".to_owned();
                    return Some(Step { change: Change::Unknown, why: Some(why), ..step });
                }
                let why = (then.action != part.action).then(|| format!("then it was {}", then.action));
                Some(Step { change: Change::Parameters, why, parameters, ..step })
            }
            (before, now) if before == now => None,
            (Decided::NotCalledFor, _) => Some(Step { change: Change::New, parameters: all(None, part), ..step }),
            (_, Decided::NotCalledFor) => Some(Step { change: Change::Gone, ..step }),
            _ => Some(Step { change: Change::Otherwise, ..step }),
        }
    }
}

/// A step that was called for and is not there any more.
fn gone(run: &PastRun, action: &PastAction, why: Option<&str>) -> Option<Step> {
    let then = Decided::then(action);
    // The guard's own message is none of a playbook's steps.
    let counts = !matches!(then, Decided::NotCalledFor) && !alarm::is_reserved(&action.step);
    counts.then(|| Step {
        run: Some(run.id),
        action: Some(action.action.clone()),
        change: Change::Gone,
        then: Some(then.in_words()),
        why: why.map(str::to_owned),
        ..unchanged(&run.playbook, &action.step)
    })
}

fn unchanged(playbook: &str, step: &str) -> Step {
    Step {
        playbook: playbook.to_owned(),
        run: None,
        step: step.to_owned(),
        action: None,
        change: Change::Otherwise,
        then: None,
        now: None,
        why: None,
        parameters: Vec::new(),
    }
}

/// What was known about the user then. What was fetched for another run of the same event was known as well.
fn facts_then(past: &Past, own: Option<&PastRun>, asked: &Value) -> Vec<(Fact, FactValue)> {
    let mut facts = Facts::default();
    let others = past.runs.iter().filter(|run| own.is_none_or(|own| own.id != run.id));
    for stored in others.chain(own).filter_map(|run| run.facts.as_ref()) {
        // What cannot be read was never fetched, as far as this can tell.
        let _ = facts.restore_fetched(stored);
    }
    let mut answers = asked.as_object().cloned().unwrap_or_default();
    if let Some(FactValue::Known(Value::Object(then))) = facts.get(Fact::Past) {
        answers.extend(then.clone());
    }
    facts.set(Fact::Past, FactValue::Known(Value::Object(answers)));
    Fact::ALL.into_iter().filter_map(|fact| Some((fact, facts.get(fact)?.clone()))).collect()
}

/// The steps as those after them saw them in the end. In a run that only observed they saw that nothing was done.
fn steps_then(run: &PastRun) -> Vec<(String, StepView)> {
    let view = |action: &PastAction| {
        if run.observe {
            return StepView { state: "skipped".to_owned(), ..StepView::default() };
        }
        let receipt: Receipt =
            action.receipt.clone().and_then(|receipt| serde_json::from_value(receipt).ok()).unwrap_or_default();
        StepView {
            state: action.state.clone(),
            url: receipt.url,
            id: receipt.id,
            number: receipt.number,
            note: receipt.note,
            status: receipt.answer.as_ref().map(|answer| answer.status),
            body: receipt.answer.and_then(|answer| answer.body),
            error: action.error.clone(),
        }
    };
    run.actions.iter().map(|action| (action.step.clone(), view(action))).collect()
}

/// Whether a step that reads others was filled in when those had ended, so that it reads the same today.
fn saw_the_end(playbook: &Playbook, run: &PastRun, then: &PastAction) -> bool {
    let Some(step) = playbook.step(&then.step) else { return true };
    if run.observe || step.with.steps_named().is_empty() {
        return true;
    }
    let Some(sent) = then.first_attempt else { return false };
    let mut awaited = run.actions.iter().filter(|action| step.after.contains(&action.step));
    awaited.all(|action| action.finished_at.is_some_and(|ended| ended <= sent))
}

fn other_parameters(then: &PastAction, part: &Part) -> Vec<Parameter> {
    all(then.params.as_ref(), part).into_iter().filter(|parameter| parameter.then != parameter.now).collect()
}

/// Every parameter of then and of now.
fn all(then: Option<&Value>, part: &Part) -> Vec<Parameter> {
    let then = then.and_then(Value::as_object);
    let now = part.params.as_ref();
    let mut names: Vec<&String> = then.into_iter().chain(now).flat_map(serde_json::Map::keys).collect();
    names.sort_unstable();
    names.dedup();
    let get =
        |params: Option<&serde_json::Map<String, Value>>, name: &String| params.and_then(|all| all.get(name)).cloned();
    names.into_iter().map(|name| Parameter { name: name.clone(), then: get(then, name), now: get(now, name) }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::load;
    use crate::model::event::SOURCE_OKTA;

    const PLAYBOOK: &str = r##"
        [okta]
        org_url = "https://example.okta.com"
        token = { env = "T" }
        [slack]
        token = { env = "S" }
        [risk]
        source = "ledger"
        [[playbook]]
        name = "p"
        on = ["user.risk.detect"]
        [[playbook.step]]
        name = "add"
        when = 'user_risk == "HIGH"'
        action = "okta.group.add_user"
        with = { group = "g" }
        [[playbook.step]]
        name = "tell"
        needs = ["add"]
        action = "slack.message.post"
        with = { channel = "c", text = "{{ steps.add.state }} {{ steps.add.error }}" }
    "##;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    fn event() -> Event {
        let body = json!({"uuid": "u", "eventType": "user.risk.detect", "published": at(0).to_string(),
            "target": [{"type": "User", "id": "00u1"}]});
        Event::parse(SOURCE_OKTA, &body.to_string()).unwrap()
    }

    fn action(step: &str, state: &str, params: Option<Value>) -> PastAction {
        let kind = if step == "add" { "okta.group.add_user" } else { "slack.message.post" };
        let prepared = params.is_some();
        PastAction {
            id: 1,
            step: step.to_owned(),
            action: kind.to_owned(),
            state: state.to_owned(),
            reason: match state {
                "skipped" => Some("condition".to_owned()),
                "refused" => Some("guard".to_owned()),
                _ => None,
            },
            error: None,
            params,
            receipt: None,
            first_attempt: prepared.then(|| at(20)),
            finished_at: Some(at(10)),
        }
    }

    fn added(state: &str) -> PastAction {
        action("add", state, Some(json!({"group": "g", "user": "00u1"})))
    }

    fn told(text: &str) -> PastAction {
        action("tell", "succeeded", Some(json!({"channel": "c", "text": text})))
    }

    fn past(user_risk: &str, actions: Vec<PastAction>) -> Past {
        let run = PastRun {
            id: 7,
            playbook: "p".to_owned(),
            observe: false,
            facts: Some(json!({"user_risk": {"known": user_risk}})),
            created_at: at(1),
            actions,
        };
        Past {
            id: 3,
            source: SOURCE_OKTA.to_owned(),
            uuid: "u".to_owned(),
            received_at: at(1),
            state: "decided".to_owned(),
            reason: None,
            only_observed: false,
            body: None,
            runs: vec![run],
        }
    }

    /// The steps of which something is told, each with how it differs.
    #[track_caller]
    fn check(configuration: &str, past: &Past, expected: &[(&str, Change)]) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        std::fs::write(&file, configuration).unwrap();
        let loaded = load::load(&file).unwrap_or_else(|problems| panic!("{}", problems[0]));
        let links = LinkBase::new("https://example.okta.com", None);
        let replayed = Replay::new(&loaded, &links).replay(past, &event(), &Value::Null);
        let steps: Vec<_> = replayed.steps.iter().map(|step| (step.step.as_str(), step.change)).collect();
        assert_eq!(steps, expected, "{replayed:#?}");
    }

    #[test]
    fn what_was_done_is_what_would_be_done() {
        check(PLAYBOOK, &past("HIGH", vec![added("succeeded"), told("succeeded ")]), &[]);
        check(PLAYBOOK, &past("LOW", vec![action("add", "skipped", None), action("tell", "skipped", None)]), &[]);
        // A step that failed at the service was called for all the same, and what needs it was not.
        check(PLAYBOOK, &past("HIGH", vec![added("failed"), action("tell", "skipped", None)]), &[]);
    }

    #[test]
    fn how_a_step_ended_says_nothing_about_one_that_is_decided_otherwise() {
        let wider = PLAYBOOK.replace("user_risk == \"HIGH\"", "user_risk != \"HIGH\"");
        let low = past("LOW", vec![action("add", "skipped", None), action("tell", "skipped", None)]);
        check(&wider, &low, &[("add", Change::New), ("tell", Change::New)]);
        let high = past("HIGH", vec![added("succeeded"), told("succeeded ")]);
        check(&wider, &high, &[("add", Change::Gone), ("tell", Change::Gone)]);
    }

    #[test]
    fn what_a_text_told_before_another_step_had_ended_is_not_compared() {
        let mut later = past("HIGH", vec![added("settled"), told("retry 503")]);
        later.runs[0].actions[0].finished_at = Some(at(30));
        check(PLAYBOOK, &later, &[("tell", Change::Unknown)]);
        check(PLAYBOOK, &past("HIGH", vec![added("settled"), told("retry 503")]), &[("tell", Change::Parameters)]);
    }

    #[test]
    fn facts_that_were_not_asked_for_are_unknown_unless_another_run_had_them() {
        let mut without = past("HIGH", vec![added("succeeded"), told("succeeded ")]);
        without.runs[0].facts = Some(json!({}));
        check(PLAYBOOK, &without, &[("add", Change::Unknown)]);
        without.runs.push(PastRun { id: 8, playbook: "q".to_owned(), ..past("HIGH", Vec::new()).runs.remove(0) });
        check(PLAYBOOK, &without, &[]);
    }

    #[test]
    fn a_backfill_that_only_observed_is_compared_as_one() {
        let observed = |step: PastAction| PastAction {
            state: "skipped".to_owned(),
            reason: Some("observe".to_owned()),
            first_attempt: None,
            ..step
        };
        let needs_nothing = PLAYBOOK.replace("needs", "after");
        let mut past = past("HIGH", vec![observed(added("")), observed(told("skipped "))]);
        (past.only_observed, past.runs[0].observe) = (true, true);
        check(&needs_nothing, &past, &[]);
        past.only_observed = false;
        let changed: Vec<_> = [("add", Change::Otherwise), ("tell", Change::Otherwise)].into();
        check(&needs_nothing, &past, &changed);
    }

    #[test]
    fn what_had_become_too_old_when_it_was_to_be_sent_is_refused_again() {
        let bounded = format!("{PLAYBOOK}\n[guard]\nmax_event_age = \"1h\"\n");
        let mut late = past("HIGH", vec![added("refused"), action("tell", "skipped", None)]);
        late.runs[0].actions[0].finished_at = Some(at(7200));
        check(&bounded, &late, &[]);
        check(PLAYBOOK, &late, &[("add", Change::Otherwise), ("tell", Change::New)]);
    }

    #[test]
    fn an_event_that_was_left_alone_is_left_alone() {
        let mut echo = past("HIGH", Vec::new());
        (echo.state, echo.reason) = ("skipped".to_owned(), Some("echo".to_owned()));
        check(PLAYBOOK, &echo, &[]);
    }

    #[test]
    fn the_guards_own_message_is_no_step_that_is_gone() {
        let mut past = past("HIGH", vec![added("succeeded"), told("succeeded ")]);
        past.runs[0].actions.push(PastAction { step: alarm::STEP.to_owned(), ..told("x") });
        check(PLAYBOOK, &past, &[]);
    }
}
