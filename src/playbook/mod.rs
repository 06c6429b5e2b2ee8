//! Playbooks: what the operator wants done about which event. Pure: no IO, no clock.
//!
//! [`parse`] turns configuration into [`Playbook`]s and tells every problem at once; [`facts`] holds what an event and the
//! services say, [`past`] what the inbox says, [`given`] what people say instead; [`condition`], [`template`] and [`params`] read it; [`plan`] decides which step is to be done with which parameters.

pub mod condition;
pub mod facts;
pub mod given;
pub mod params;
pub mod parse;
pub mod past;
pub mod plan;
pub mod shape;
pub mod template;

use std::collections::BTreeSet;
use std::time::Duration;

use thiserror::Error;

use crate::config::Mode;
use crate::connectors::ActionKind;
use crate::model::action::InDoubt;

pub use condition::{Condition, ConditionError};
pub use facts::{Fact, FactSet, FactValue, Facts, LinkBase, StepView};
pub use params::{ParamError, ParamTemplates};
pub use parse::{Problem, is_update};
pub use past::Question;
pub use plan::{PlanError, Prepared};
pub use template::{Template, TemplateError};

/// A compiled playbook. Built by [`Playbook::compile`] only, so every reference in it holds.
#[derive(Debug)]
pub struct Playbook {
    /// Unique; part of every idempotency key.
    pub name: String,
    /// The event types it answers.
    pub on: Vec<String>,
    /// It applies to an event when this is true; without it, always.
    pub when: Option<Condition>,
    /// Whether it acts or only records.
    pub mode: Mode,
    /// What to do, in the order of the configuration. Behind a message with `update` stands the step that edits it.
    pub steps: Vec<Step>,
}

/// A compiled step.
#[derive(Debug)]
pub struct Step {
    /// Unique in its playbook; part of the idempotency key. That of a step which nobody wrote holds a `#`.
    pub name: String,
    /// It is called for when this is true; without it, always.
    pub when: Option<Condition>,
    /// What it does.
    pub action: &'static ActionKind,
    /// Its parameters.
    pub with: ParamTemplates,
    /// Steps that have to end first, however they end. Holds `needs` too.
    pub after: Vec<String>,
    /// Steps that have to succeed first.
    pub needs: Vec<String>,
    /// The longest wait for `after`; it begins when the delay ends.
    pub wait: Option<Duration>,
    /// How much later it is done than the event was decided.
    pub delay: Option<Duration>,
    /// Asked when the delay ends; when it is true, the step is not done.
    pub cancel_if: Option<Condition>,
    /// What to do when nobody can tell whether the request arrived: as configured, else the action's default.
    pub in_doubt: InDoubt,
    /// Whether a person has to allow it.
    pub approval: bool,
    /// The step whose message it edits. It is among `needs`.
    pub edits: Option<String>,
}

impl Playbook {
    /// The event types it answers.
    pub fn event_types(&self) -> impl Iterator<Item = &str> {
        self.on.iter().map(String::as_str)
    }

    /// Whether it answers events of this type.
    pub fn wants(&self, event_type: &str) -> bool {
        self.on.iter().any(|wanted| wanted == event_type)
    }

    /// Every fact that some condition or parameter names.
    pub fn facts_named(&self) -> FactSet {
        let of_step = |step: &Step| step.facts_named().union(step.facts_asked_later());
        self.steps.iter().fold(plan::applying_facts(self), |set, step| set.union(of_step(step)))
    }

    /// Everything that some condition asks of the past when the event is decided, each once.
    pub fn questions(&self) -> Vec<&Question> {
        let conditions = self.when.iter().chain(self.steps.iter().flat_map(Step::conditions));
        let all: BTreeSet<&Question> = conditions.flat_map(Condition::questions).collect();
        all.into_iter().collect()
    }

    /// Everything that is asked of the past when a delay ends, each once.
    pub fn questions_asked_later(&self) -> BTreeSet<&Question> {
        self.steps.iter().filter_map(|step| step.cancel_if.as_ref()).flat_map(Condition::questions).collect()
    }

    /// The steps in an order in which each stands behind those it waits for, else as they are written.
    pub fn in_order(&self) -> Vec<&Step> {
        let mut ordered = Vec::with_capacity(self.steps.len());
        // Every step finds its place, because a compiled playbook has no cycle.
        while let Some(next) = self.next_in_order(&ordered) {
            ordered.push(next);
        }
        ordered
    }

    fn next_in_order(&self, ordered: &[&Step]) -> Option<&Step> {
        let placed = |name: &String| ordered.iter().any(|step| step.name == *name);
        self.steps.iter().find(|step| !placed(&step.name) && step.after.iter().all(placed))
    }

    /// The step of this name.
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == name)
    }
}

impl Step {
    /// The conditions that are asked for it when the event is decided.
    pub fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.when.iter()
    }

    /// The facts that its condition or its parameters name.
    pub fn facts_named(&self) -> FactSet {
        let when = self.when.as_ref().map_or(FactSet::EMPTY, Condition::facts_named);
        when.union(self.with.facts_named())
    }

    /// The facts that are fetched when its delay ends.
    pub fn facts_asked_later(&self) -> FactSet {
        self.cancel_if.as_ref().map_or(FactSet::EMPTY, Condition::facts_named)
    }
}

// Tasks share playbooks.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Playbook>();
};

/// A condition or template that the operator has to change.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}; {remedy}")]
pub struct CompileError {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub remedy: String,
}

impl CompileError {
    fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }

    fn unknown_name(name: &str) -> Self {
        let message = format!("nothing is called `{}`", facts::cut(name, 100));
        Self::new(message, format!("use one of {}", Facts::names_for_people()))
    }
}

#[cfg(test)]
mod tests {
    use super::parse::tests::compile;
    use super::*;

    fn playbook() -> Playbook {
        let step =
            |name: &str, rest: &str| format!("[[step]]\nname = \"{name}\"\naction = \"slack.message.post\"\n{rest}\n");
        compile(
            &[
                "name = \"p\"\non = [\"user.risk.detect\", \"user.risk.change\"]\nwhen = 'user_risk == \"HIGH\"'\n"
                    .to_owned(),
                step("last", "after = [\"third\", \"first\"]"),
                step("third", "needs = [\"second\"]\nwhen = 'size(groups) > 1'"),
                step("first", "with = { text = \"{{ manager.login }}\" }"),
                step("second", "after = [\"first\"]"),
                step("free", ""),
            ]
            .concat(),
        )
        .unwrap()
    }

    #[test]
    fn each_step_stands_behind_those_it_waits_for_else_as_written() {
        let playbook = playbook();
        let order: Vec<_> = playbook.in_order().iter().map(|step| step.name.as_str()).collect();
        assert_eq!(order, ["first", "second", "third", "last", "free"]);
    }

    #[test]
    fn a_playbook_names_its_events_and_every_fact_it_reads() {
        let playbook = playbook();
        assert_eq!(playbook.event_types().collect::<Vec<_>>(), ["user.risk.detect", "user.risk.change"]);
        assert!(playbook.wants("user.risk.change") && !playbook.wants("user.risk"));
        assert_eq!(playbook.facts_named().to_string(), "manager, groups, user_risk");
        let named = |step: &str| playbook.step(step).unwrap().facts_named().to_string();
        assert_eq!([named("first"), named("third"), named("last")], ["manager", "groups", ""]);
        assert!(playbook.step("fourth").is_none());
    }

    #[test]
    fn a_name_that_nothing_has_is_answered_with_those_that_are() {
        let error = CompileError::unknown_name(&"weather".repeat(100)).to_string();
        assert!(error.starts_with("nothing is called `weatherweather"), "{error}");
        assert!(
            error.ends_with(
                "; use one of event, risk, target, app, sign_in, links, user, manager, groups, user_risk, steps"
            ),
            "{error}"
        );
        assert!(error.len() < 300, "{error}");
    }
}
