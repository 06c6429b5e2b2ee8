//! From configuration to playbooks, telling every problem at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::facts::{STEPS, cut, step_identifier};
use super::{CompileError, Condition, ParamTemplates, Playbook, Step};
use crate::config::{PlaybookConfig, StepConfig};
use crate::connectors::{self, ActionKind};
use crate::model::similar::closest;

/// The longest name of a playbook or step, in characters.
const MAX_NAME: usize = 64;

/// The longest delay of a step: for so long rows of events are kept at least, whatever `[state]` says.
pub const MAX_DELAY: Duration = crate::store::OKTA_KEEPS;

/// Something in a playbook that the operator has to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The step it is in; `None` for the playbook itself.
    pub step: Option<String>,
    /// The key it is in, such as `when` or `with.text`.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Playbook {
    /// Compiles a playbook of these actions, or tells everything that is wrong with it. That its name is unique is for the caller to check.
    pub fn compile(config: &PlaybookConfig, actions: &[&'static ActionKind]) -> Result<Self, Vec<Problem>> {
        let mut found = Problems::default();
        check_name(&config.name, &mut found);
        check_event_types(&config.on, &mut found);
        let when = config.when.as_deref().and_then(|text| found.condition("when", text));
        if when.as_ref().is_some_and(Condition::names_steps) {
            found.add("when", "no step has run when the playbook's condition is asked", "move it to the step's `when`");
        }
        if config.steps.is_empty() {
            found.add("step", "the playbook has no steps", "add a [[playbook.step]], or remove the playbook");
        }
        check_step_names(config, &mut found);
        let mut steps = Vec::new();
        for step in &config.steps {
            steps.extend(compile_step(step, config, actions, &mut found));
            if step.update && found.list.is_empty() {
                steps.extend(edit_of(step, steps.last(), actions));
            }
        }
        check_cycles(config, &mut found);
        check_status_order(config, &mut found);
        check_delayed_order(config, actions, &mut found);
        check_stripping(config, &mut found);
        if !found.list.is_empty() {
            return Err(found.list);
        }
        Ok(Self { name: config.name.clone(), on: config.on.clone(), when, mode: config.mode, steps })
    }
}

fn compile_step(
    config: &StepConfig,
    playbook: &PlaybookConfig,
    actions: &[&'static ActionKind],
    found: &mut Problems,
) -> Option<Step> {
    found.step = Some(config.name.clone());
    let step = try_step(config, playbook, actions, found);
    found.step = None;
    step
}

fn try_step(
    config: &StepConfig,
    playbook: &PlaybookConfig,
    actions: &[&'static ActionKind],
    found: &mut Problems,
) -> Option<Step> {
    check_name(&config.name, found);
    let (mut after, mut needs) = (check_order(config, playbook, found), config.needs.clone());
    let when = config.when.as_deref().map(|text| found.condition("when", text));
    let cancel_if = check_delay(config, found);
    let Some(kind) = actions.iter().copied().find(|kind| kind.name == config.action) else {
        let known = actions.iter().map(|kind| kind.name);
        let message = format!("there is no action `{}`", cut(&config.action, 100));
        found.add("action", message, instead(&config.action, "actions", known));
        return None;
    };
    let with = match ParamTemplates::compile(kind, &connectors::written_out(kind, &config.with)) {
        Ok(with) => with,
        Err(problems) => {
            for (parameter, problem) in problems {
                found.compile_error(&format!("with.{parameter}"), problem);
            }
            return None;
        }
    };
    let when = match when {
        Some(Some(condition)) => Some(condition),
        Some(None) => return None,
        None => None,
    };
    let edits = if kind.name == EDIT { message_to_edit(config, playbook, found) } else { None };
    if let Some(message) = &edits {
        for names in [&mut after, &mut needs] {
            if !names.contains(message) {
                names.push(message.clone());
            }
        }
    }
    check_steps_read("with", &with.steps_named(), config, kind, playbook, &after, found);
    if let Some(condition) = &when {
        check_steps_read("when", condition.steps_named(), config, kind, playbook, &after, found);
    }
    if let Some(condition) = &cancel_if {
        check_steps_waited_for("cancel_if", condition.steps_named(), config, playbook, &after, found);
    }
    check_params(&with, kind, found);
    if config.update {
        check_update(&with, kind, found);
        if config.wait.is_none() && !(needs.is_empty() && when.as_ref().is_none_or(|when| !when.names_steps())) {
            let message = "the message would not wait for the steps that it needs or asks for";
            found.add("update", message, "add `wait`, or take `update` out");
        }
    }
    let effect = connectors::effect(kind, &Value::Object(with.unrendered()));
    Some(Step {
        name: config.name.clone(),
        when,
        action: kind,
        with,
        after,
        needs,
        wait: config.wait.or(config.update.then_some(Duration::ZERO)),
        delay: config.delay,
        cancel_if,
        in_doubt: config.in_doubt.unwrap_or_else(|| effect.default_in_doubt()),
        approval: config.approval,
        edits,
    })
}

/// The step that edits a message when everything that it tells of has ended. Nobody wrote it: it says the same, later.
fn edit_of(config: &StepConfig, message: Option<&Step>, actions: &[&'static ActionKind]) -> Option<Step> {
    let message = message?;
    let kind = actions.iter().copied().find(|kind| kind.name == EDIT)?;
    let said = config.with.iter().filter(|(name, _)| matches!(name.as_str(), "text" | "blocks"));
    let mut with: toml::Table = said.map(|(name, value)| (name.clone(), value.clone())).collect();
    with.insert("message".to_owned(), toml::Value::from(message.name.as_str()));
    Some(Step {
        name: format!("{}{UPDATE}", message.name),
        when: None,
        action: kind,
        with: ParamTemplates::compile(kind, &with).ok()?,
        after: message.after.iter().chain([&message.name]).cloned().collect(),
        needs: vec![message.name.clone()],
        wait: None,
        delay: None,
        cancel_if: None,
        in_doubt: kind.effect.default_in_doubt(),
        approval: false,
        edits: Some(message.name.clone()),
    })
}

/// Only a message that tells of steps can have something to add when they end.
fn check_update(with: &ParamTemplates, kind: &ActionKind, found: &mut Problems) {
    if kind.name != POST {
        let message = format!("`{}` cannot be edited afterwards", kind.name);
        found.add("update", message, format!("take it out; it is for `{POST}`"));
    } else if with.steps_named().is_empty() {
        let message = format!("the message reads no `{STEPS}.`, so there would be nothing to edit");
        found.add("update", message, "take it out, or tell how another step ended");
    }
}

/// The step whose message is edited, by its name as it is written.
fn message_to_edit(config: &StepConfig, playbook: &PlaybookConfig, found: &mut Problems) -> Option<String> {
    let name = config.with.get("message")?.as_str()?;
    let mut messages = playbook.steps.iter().filter(|step| step.action == POST).map(|step| step.name.as_str());
    if messages.any(|message| message == name) {
        return Some(name.to_owned());
    }
    let message = format!("`{}` is no step that posts a message to Slack", cut(name, 100));
    let messages = playbook.steps.iter().filter(|step| step.action == POST).map(|step| step.name.as_str());
    found.add("with.message", message, instead(name, "messages", messages));
    None
}

/// The steps to wait for: `after` and `needs`, each once. Unknown names are told.
fn check_order(config: &StepConfig, playbook: &PlaybookConfig, found: &mut Problems) -> Vec<String> {
    let mut after: Vec<String> = Vec::new();
    for (field, names) in [("after", &config.after), ("needs", &config.needs)] {
        for name in names {
            if *name == config.name {
                found.add(field, "a step cannot wait for itself", format!("remove `{name}`"));
            } else if !playbook.steps.iter().any(|step| step.name == *name) {
                let known = playbook.steps.iter().map(|step| step.name.as_str());
                found.add(field, format!("there is no step `{}`", cut(name, 100)), instead(name, "steps", known));
            } else if !after.contains(name) {
                after.push(name.clone());
            }
        }
    }
    if config.wait.is_some() && waits_for(config).next().is_none() {
        found.add("wait", "there is nothing to wait for", "add `after`, or remove `wait`");
    }
    after
}

/// A step is taken back only while it waits for the end of its delay.
fn check_delay(config: &StepConfig, found: &mut Problems) -> Option<Condition> {
    if config.delay.is_some_and(|delay| delay > MAX_DELAY) {
        let days = MAX_DELAY.as_secs() / (24 * 3600);
        found.add("delay", format!("the delay is longer than {days} days"), format!("write at most \"{days}d\""));
    }
    let condition = found.condition("cancel_if", config.cancel_if.as_deref()?);
    if config.delay.is_none() {
        let remedy = "add a `delay`, such as \"24h\", or write the condition as `when`, the other way round";
        found.add("cancel_if", "it is asked when a delay ends, and the step has none", remedy);
    }
    condition
}

/// A step may read only steps that it waits for. One that changes access may read none: what it changes has to be known
/// when the run is decided, because that decides what it waits behind.
fn check_steps_read(
    field: &str,
    read: &BTreeSet<String>,
    config: &StepConfig,
    kind: &ActionKind,
    playbook: &PlaybookConfig,
    after: &[String],
    found: &mut Problems,
) {
    if read.is_empty() {
        return;
    }
    if kind.changes_access {
        let message = format!("`{}` changes access, so it cannot depend on what other steps did", kind.name);
        found.add(field, message, format!("use the event, or `needs` to order it; remove `{STEPS}.`"));
        return;
    }
    check_steps_waited_for(field, read, config, playbook, after, found);
}

fn check_steps_waited_for(
    field: &str,
    read: &BTreeSet<String>,
    config: &StepConfig,
    playbook: &PlaybookConfig,
    after: &[String],
    found: &mut Problems,
) {
    for identifier in read {
        match playbook.steps.iter().find(|step| step_identifier(&step.name) == *identifier) {
            Some(step) if step.name == config.name => {
                found.add(field, format!("the step reads itself, `{STEPS}.{identifier}`"), "read another step");
            }
            Some(step) if after.contains(&step.name) => {}
            Some(step) => {
                let message = format!("`{STEPS}.{identifier}` is read, but the step does not wait for `{}`", step.name);
                found.add(field, message, format!("add `{}` to `after`", step.name));
            }
            None => {
                let known: Vec<_> = playbook.steps.iter().map(|step| step_identifier(&step.name)).collect();
                let message = format!("there is no step `{}`", cut(identifier, 100));
                found.add(field, message, instead(identifier, "steps", known.iter().map(String::as_str)));
            }
        }
    }
}

/// Lets the action look at its parameters. What the event will fill in is there already, as any text.
fn check_params(with: &ParamTemplates, kind: &ActionKind, found: &mut Problems) {
    let mut params = with.unrendered();
    for (name, _) in kind.from_event.iter().filter(|(_, what)| what.fills(&with.unrendered())) {
        params.entry(*name).or_insert_with(|| Value::from("from the event"));
    }
    let params = Value::Object(params);
    if let Err(message) = (kind.check)(&params).and_then(|()| connectors::check_written(kind, &params)) {
        let remedy = format!("correct the parameters of `{}` ({})", kind.name, kind.summary);
        found.add("with", cut(&message, 500), remedy);
    }
}

fn check_name(name: &str, found: &mut Problems) {
    let fits = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        && name.len() <= MAX_NAME;
    if !fits {
        let message = format!("`{}` is not a name", cut(name, 100));
        found.add(
            "name",
            message,
            format!("begin with a letter, then letters, digits, `-` and `_`, at most {MAX_NAME}"),
        );
    }
}

/// Names that differ only in `-` and `_` are one identifier behind `steps.`, so they count as the same.
fn check_step_names(config: &PlaybookConfig, found: &mut Problems) {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for step in &config.steps {
        if let Some(first) = seen.insert(step_identifier(&step.name), &step.name) {
            found.step = Some(step.name.clone());
            let message = format!("another step is called `{}`", cut(first, 100));
            found.add("name", message, "names of steps differ in more than `-` and `_`");
            found.step = None;
        }
    }
    for message in config.steps.iter().filter(|step| step.update) {
        if let Some(name) = seen.get(&step_identifier(&format!("{}{UPDATE}", message.name))) {
            found.step = Some((*name).to_owned());
            let told = format!("`{}` is how the edit of `{}` is called", cut(name, 100), cut(&message.name, 100));
            found.add("name", told, "give it another name");
            found.step = None;
        }
    }
}

fn check_event_types(types: &[String], found: &mut Problems) {
    if types.is_empty() {
        found.add("on", "the playbook answers no event type", "name some, such as on = [\"user.risk.detect\"]");
    }
    for kind in types {
        let fits = !kind.is_empty()
            && kind.len() <= 200
            && kind.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_');
        if !fits {
            let message = format!("`{}` is not an event type", cut(kind, 100));
            found.add("on", message, "write the full type, such as user.risk.detect; there are no wildcards");
        }
    }
}

/// The steps that it waits for, as they are written.
fn waits_for(step: &StepConfig) -> impl Iterator<Item = &str> {
    let message = step.with.get("message").filter(|_| step.action == EDIT).and_then(toml::Value::as_str);
    step.after.iter().chain(&step.needs).map(String::as_str).chain(message)
}

/// Takes away, again and again, the steps that wait for nothing left; what stays waits in a circle.
fn check_cycles(config: &PlaybookConfig, found: &mut Problems) {
    let mut open: Vec<&StepConfig> = config.steps.iter().collect();
    loop {
        let names: BTreeSet<&str> = open.iter().map(|step| step.name.as_str()).collect();
        let waits = |step: &&StepConfig| waits_for(step).any(|name| *name != step.name && names.contains(name));
        let still: Vec<_> = open.iter().copied().filter(waits).collect();
        if still.len() == open.len() {
            break;
        }
        open = still;
    }
    if !open.is_empty() {
        let names: Vec<_> = open.iter().map(|step| format!("`{}`", cut(&step.name, MAX_NAME))).collect();
        let message = format!("these steps wait for each other: {}", names.join(", "));
        found.add("step", message, "remove one of their `after` or `needs`");
    }
}

/// A user whose password has expired cannot be suspended any more (Okta API reference, "Suspend a user": only who is ACTIVE).
/// Both change the same user's status, so they are done in the order in which the playbook has them; where that order would
/// leave him unsuspended, it is told here rather than by Okta in the night.
fn check_status_order(config: &PlaybookConfig, found: &mut Problems) {
    let user = |step| text_of(step, "user");
    for (index, suspend) in config.steps.iter().enumerate().filter(|(_, step)| step.action == SUSPEND) {
        let waits = suspend.after.iter().chain(&suspend.needs);
        let waits: BTreeSet<&str> = waits.map(String::as_str).collect();
        for (other, expire) in config.steps.iter().enumerate().filter(|(_, step)| step.action == EXPIRE_PASSWORD) {
            let comes_first = waits.contains(expire.name.as_str())
                || (other < index && !expire.after.iter().chain(&expire.needs).any(|name| *name == suspend.name));
            if comes_first && user(suspend) == user(expire) {
                found.step = Some(suspend.name.clone());
                let message = format!(
                    "the step `{}` expires the password of the same user before, and Okta suspends nobody whose password has \
                     expired",
                    cut(&expire.name, MAX_NAME)
                );
                found.add("action", message, "write the step that suspends in front of it");
                found.step = None;
            }
        }
    }
}

/// What a step changes holds its place until it is done, so that later changes of the same stand behind it. It must not do so
/// for the length of another step's delay.
fn check_delayed_order(config: &PlaybookConfig, actions: &[&'static ActionKind], found: &mut Problems) {
    let changes = |step: &&StepConfig| actions.iter().any(|kind| kind.name == step.action && kind.changes_access);
    for step in config.steps.iter().filter(|step| step.delay.is_none()).filter(changes) {
        let (mut seen, mut open): (BTreeSet<&str>, Vec<&StepConfig>) = (BTreeSet::new(), vec![step]);
        while let Some(next) = open.pop() {
            let before =
                config.steps.iter().filter(|other| next.after.iter().chain(&next.needs).any(|n| *n == other.name));
            open.extend(before.filter(|other| seen.insert(&other.name)));
        }
        if let Some(delayed) = config.steps.iter().find(|other| other.delay.is_some() && seen.contains(&*other.name)) {
            found.step = Some(step.name.clone());
            let message = format!(
                "it changes access and waits for the delayed step `{}`: whatever else changes the same would wait as long",
                cut(&delayed.name, MAX_NAME)
            );
            found.add("after", message, "give it a `delay` of its own");
            found.step = None;
        }
    }
}

/// Who is put into a group and taken out of all groups in the same run would not stay in it: the two are done in any order.
/// What is named by an id in one place and by its name in the other cannot be compared here.
fn check_stripping(config: &PlaybookConfig, found: &mut Problems) {
    let is_id = |name: &str| name.len() == 20 && name.starts_with("00g");
    for strip in config.steps.iter().filter(|step| step.action == REMOVE_FROM_ALL) {
        let except = strip.with.get("except").and_then(toml::Value::as_array);
        let except: Vec<&str> = except.into_iter().flatten().filter_map(toml::Value::as_str).map(str::trim).collect();
        for add in &config.steps {
            let Some((_, key)) = PUTTING_IN.iter().find(|(action, _)| *action == add.action) else { continue };
            let Some(group) = text_of(add, key) else { continue };
            let unclear = |name: &str| name.contains("{{") || is_id(name) != is_id(&group);
            let stays = group.contains("{{") || except.iter().any(|name| *name == group || unclear(name));
            let waits = add.delay > strip.delay || add.after.iter().chain(&add.needs).any(|name| *name == strip.name);
            let together = add.when == strip.when || add.when.is_none() || strip.when.is_none();
            if !stays && !waits && together && text_of(add, "user") == text_of(strip, "user") {
                found.step = Some(strip.name.clone());
                let message = format!(
                    "it would take the user out of `{}` again, into which the step `{}` puts him",
                    cut(&group, MAX_NAME),
                    cut(&add.name, MAX_NAME)
                );
                found.add("with", message, "name the group in `except`, or let that step wait `after` this one");
                found.step = None;
            }
        }
    }
}

/// A parameter that is a text.
fn text_of(step: &StepConfig, parameter: &str) -> Option<String> {
    step.with.get(parameter).and_then(toml::Value::as_str).map(|text| text.trim().to_owned())
}

const REMOVE_FROM_ALL: &str = "okta.group.remove_user_from_all";
/// The actions that put a user into a group, and the parameter that names it.
const PUTTING_IN: [(&str, &str); 3] =
    [("okta.group.add_user", "group"), ("okta.group.move_user", "to"), ("okta.app.unassign_user", "restrict_group")];

/// The actions whose order matters to each other.
const SUSPEND: &str = "okta.user.suspend";
const EXPIRE_PASSWORD: &str = "okta.user.expire_password";

/// The action that posts a message which can be edited, the one that edits it, and what is added to the name of the first
/// step for the second. No name that anybody writes has such an end.
const POST: &str = "slack.message.post";
const EDIT: &str = "slack.message.update";
const UPDATE: &str = "#update";

/// Whether a step is the edit that `update = true` of another one has added.
pub fn is_update(step: &str) -> bool {
    step.ends_with(UPDATE)
}

/// What to do about a name that is none of the candidates; `noun` is what they are, in the plural.
fn instead<'a>(word: &str, noun: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    let candidates: Vec<&str> = candidates.collect();
    match closest(word, candidates.iter().copied()) {
        Some(best) => format!("did you mean `{best}`?"),
        // Of many with long names, those that begin in the same way tell more than all of them.
        None if candidates.iter().any(|name| begins_like(word, name)) => {
            let alike: Vec<&str> = candidates.into_iter().filter(|name| begins_like(word, name)).collect();
            format!("the {noun} that begin so are {}", alike.join(", "))
        }
        None => format!("the {noun} are {}", candidates.join(", ")),
    }
}

/// Whether both are alike up to the last dot of the first.
fn begins_like(word: &str, name: &str) -> bool {
    word.rsplit_once('.').is_some_and(|(start, _)| !start.is_empty() && name.starts_with(&format!("{start}.")))
}

#[derive(Default)]
struct Problems {
    list: Vec<Problem>,
    step: Option<String>,
}

impl Problems {
    fn add(&mut self, field: &str, message: impl Into<String>, remedy: impl Into<String>) {
        let step = self.step.clone();
        self.list.push(Problem { step, field: field.to_owned(), message: message.into(), remedy: remedy.into() });
    }

    fn compile_error(&mut self, field: &str, error: CompileError) {
        self.add(field, error.message, error.remedy);
    }

    fn condition(&mut self, field: &str, text: &str) -> Option<Condition> {
        match Condition::compile(text) {
            Ok(condition) => Some(condition),
            Err(error) => {
                self.compile_error(field, error);
                None
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
