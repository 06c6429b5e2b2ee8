//! From `[[test]]` to something that can be run, telling every problem at once.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::{ExpectConfig, ExpectedState, PersonFacts, TestConfig, TestFacts};
use crate::config::StepConfig;
use crate::config::load::Loaded;
use crate::config::path::KeyPath;
use crate::config::problem::Problem;
use crate::connectors;
use crate::model::action::ActionState;
use crate::model::event::{Entity, Event, MAX_EVENT_BYTES, SOURCE_OKTA};
use crate::model::risk::RiskLevel;
use crate::model::similar::closest;
use crate::playbook::facts::{Fact, FactValue, step_identifier};
use crate::playbook::given::{self, GivenFacts};
use crate::playbook::{Playbook, Question, Step};

/// When an event happened that does not tell, so that a test reads the same on every day.
const PUBLISHED: &str = "2026-01-01T00:00:00Z";

/// What every event of Okta's has, null where it has nothing to say (Okta OpenAPI, schema `LogEvent`).
const FIELDS: &[&str] = &[
    "actor",
    "authenticationContext",
    "client",
    "debugContext",
    "device",
    "displayMessage",
    "legacyEventType",
    "outcome",
    "request",
    "securityContext",
    "target",
    "transaction",
];

/// A test that can be run.
#[derive(Debug)]
pub struct Playtest {
    /// Its name.
    pub name: String,
    /// The file it stands in.
    pub file: PathBuf,
    /// The line it begins in.
    pub line: usize,
    /// Only this playbook is asked.
    pub playbook: Option<String>,
    /// The event.
    pub event: Event,
    /// When it is decided.
    pub now: Timestamp,
    /// Whether the guard has its say.
    pub guard: bool,
    /// What Okta would answer, and how steps ended.
    pub given: GivenFacts,
    /// The same for when a delay ends, if anything is told of that.
    pub later: Option<GivenFacts>,
    /// The steps that are told of.
    pub expect: Vec<Expected>,
    /// Whether other steps may be called for.
    pub others: bool,
    /// Steps that are not called for.
    pub not: Vec<String>,
}

/// A step that is told of.
#[derive(Debug)]
pub struct Expected {
    /// The playbook.
    pub playbook: String,
    /// Its step.
    pub step: String,
    /// What it does.
    pub action: Option<String>,
    /// What becomes of it; `None` when it is only said that it is called for.
    pub state: Option<ExpectedState>,
    /// Its parameters.
    pub with: Map<String, Value>,
    /// Whether these are all of them.
    pub exactly: bool,
    /// How much later it is done, in words; empty for at once.
    pub delay: Option<String>,
    /// A part of the reason.
    pub why: Option<String>,
}

/// Makes the tests of a configuration ready. Reads the files that they name.
///
/// # Errors
/// Every problem that was found, in the order of files and lines.
pub fn compile(loaded: &Loaded) -> Result<Vec<Playtest>, Vec<Problem>> {
    let mut compiler = Compiler { loaded, problems: Vec::new() };
    let mut names = BTreeSet::new();
    let mut tests = Vec::new();
    for (index, test) in loaded.config.tests.iter().enumerate() {
        let here = KeyPath::of("test").element(index);
        if test.name.trim() != test.name || test.name.is_empty() || test.name.contains(char::is_control) {
            let message = "the name is empty, or has white space around it or more than one line";
            compiler.say(&here.key("name"), message, "write a few words that say what is expected");
        }
        if !names.insert(&test.name) {
            compiler.say(&here.key("name"), "another test has the same name", "give each test a name of its own");
        }
        tests.extend(compiler.test(test, &here));
    }
    let mut problems = compiler.problems;
    if problems.is_empty() {
        return Ok(tests);
    }
    let main = loaded.sources.main_file().display().to_string();
    problems.sort_by_cached_key(|problem| (problem.file != main, problem.file.clone(), problem.line));
    Err(problems)
}

struct Compiler<'l> {
    loaded: &'l Loaded,
    problems: Vec<Problem>,
}

impl<'l> Compiler<'l> {
    fn test(&mut self, test: &TestConfig, here: &KeyPath) -> Option<Playtest> {
        let all = &self.loaded.playbooks;
        if let Some(name) = &test.playbook
            && !all.iter().any(|playbook| playbook.name == *name)
        {
            let known = all.iter().map(|playbook| playbook.name.as_str());
            self.unknown(&here.key("playbook"), "playbook", name, "the playbooks are", known);
            return None;
        }
        if test.expect.is_none() && test.not.is_empty() {
            let remedy = "write expect = [{ step = \"…\" }], expect = [] when nothing is called for, or not = [\"…\"]";
            self.say(here, "the test expects nothing, so it cannot fail", remedy);
        }
        if test.expect.is_none() && test.others {
            self.say(&here.key("others"), "there are no others without `expect`", "take it out");
        }
        let event = self.event(test, here)?;
        let named = |playbook: &&Playbook| test.playbook.as_ref().is_none_or(|name| playbook.name == *name);
        let about: Vec<&Playbook> = all.iter().filter(named).filter(|one| one.wants(&event.event_type)).collect();
        if about.is_empty() {
            self.unanswered(test, &event, here);
            return None;
        }
        let asked: BTreeSet<_> = about.iter().flat_map(|playbook| playbook.questions()).collect();
        let given = self.given(&test.facts, &event, (&about, &asked), &here.key("facts"));
        if test.later.is_some() && !steps(&about).any(|(_, step)| step.cancel_if.is_some()) {
            self.say(&here.key("later"), "no step that answers this event has a `cancel_if`", "take it out");
        }
        let asked_later: BTreeSet<_> = about.iter().flat_map(|playbook| playbook.questions_asked_later()).collect();
        let later =
            test.later.as_ref().map(|facts| self.given(facts, &event, (&about, &asked_later), &here.key("later")));
        let mut expect = Vec::new();
        for (index, expected) in test.expect.iter().flatten().enumerate() {
            let place = here.key("expect").element(index);
            if let Some(expected) = self.expected(expected, &about, &place) {
                let same = |other: &Expected| other.playbook == expected.playbook && other.step == expected.step;
                if expect.iter().any(same) {
                    self.say(&place.key("step"), "the same step is told of twice", "put both into one");
                }
                expect.push(expected);
            }
        }
        for (index, name) in test.not.iter().enumerate() {
            let place = here.key("not").element(index);
            if !steps(&about).any(|(_, step)| step.name == *name) {
                self.unknown(&place, "step", name, "the steps are", steps(&about).map(|(_, step)| step.name.as_str()));
            } else if expect.iter().any(|expected| expected.step == *name && is_called_for(expected.state)) {
                self.say(&place, format!("`{name}` is expected as well"), "take it out here or there");
            }
        }
        let after = SignedDuration::try_from(test.decided_after.unwrap_or_default()).unwrap_or(SignedDuration::MAX);
        let (file, line) = self.loaded.sources.stands_at(here);
        Some(Playtest {
            name: test.name.clone(),
            file,
            line,
            playbook: test.playbook.clone(),
            now: event.published.saturating_add(after).unwrap_or(event.published),
            event,
            guard: test.guard,
            given,
            later,
            expect,
            others: test.others || test.expect.is_none(),
            not: test.not.clone(),
        })
    }

    fn event(&mut self, test: &TestConfig, here: &KeyPath) -> Option<Event> {
        let (place, record) = match (&test.event, &test.event_file) {
            (Some(event), None) => (here.key("event"), completed(json_of_table(event))),
            (None, Some(name)) => {
                let place = here.key("event_file");
                let (file, _) = self.loaded.sources.stands_at(here);
                match one_record(&file.parent().unwrap_or(Path::new("")).join(name)) {
                    Ok(record) => (place, completed(record)),
                    Err((message, remedy)) => {
                        self.say(&place, format!("{}: {message}", name.display()), remedy);
                        return None;
                    }
                }
            }
            (both, _) => {
                let message = if both.is_some() { "there are two events" } else { "there is no event" };
                let remedy = "write event = { eventType = \"user.risk.detect\", … }, or event_file = \"…\"";
                self.say(here, message, remedy);
                return None;
            }
        };
        match Event::parse(SOURCE_OKTA, &record.to_string()) {
            Ok(event) => Some(event),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                self.say(&place, format!("{error}{cause}"), "write at least eventType = \"user.risk.detect\"");
                None
            }
        }
    }

    /// Nobody answers the event, so whatever is expected of it tells nothing.
    fn unanswered(&mut self, test: &TestConfig, event: &Event, here: &KeyPath) {
        let playbooks = &self.loaded.playbooks;
        let (who, types): (String, Vec<&str>) = match &test.playbook {
            Some(name) => {
                let one = playbooks.iter().filter(|playbook| playbook.name == *name);
                (format!("the playbook `{name}` does not answer"), one.flat_map(Playbook::event_types).collect())
            }
            None => ("no playbook answers".to_owned(), playbooks.iter().flat_map(Playbook::event_types).collect()),
        };
        let kind = &event.event_type;
        let remedy = match closest(kind, types.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "write an event of a type that stands in `on`, or take the test out".to_owned(),
        };
        let place = here.key(if test.event.is_some() { "event" } else { "event_file" });
        self.say(&place, format!("{who} `{kind}`, so the test cannot fail"), remedy);
    }

    fn given(
        &mut self,
        facts: &TestFacts,
        event: &Event,
        (about, asked): (&[&Playbook], &BTreeSet<&Question>),
        here: &KeyPath,
    ) -> GivenFacts {
        let mut given = GivenFacts::default();
        let mut known = |fact, value| given.facts.push((fact, FactValue::Known(value)));
        if let Some(user) = &facts.user {
            known(Fact::User, person(user, event.affected_user()));
        }
        if let Some(manager) = &facts.manager {
            let none = *manager == PersonFacts::default();
            known(Fact::Manager, if none { Value::Null } else { person(manager, None) });
        }
        if let Some(groups) = &facts.groups {
            known(Fact::Groups, json!(groups));
        }
        if let Some(risk) = facts.user_risk {
            known(Fact::UserRisk, json!(RiskLevel::from(risk).as_str()));
        }
        if let Some(past) = &facts.past {
            let asked: Vec<String> = asked.iter().map(ToString::to_string).collect();
            let mut answers = Map::new();
            for (text, answer) in past {
                let place = here.key("past").key(text);
                match given::past([(text.clone(), json_of(answer))]) {
                    Ok(Value::Object(one)) if one.keys().all(|question| asked.contains(question)) => {
                        answers.extend(one)
                    }
                    Ok(_) => {
                        let known = asked.iter().map(String::as_str);
                        self.unknown(&place, "question", text, "the conditions that answer this event ask", known);
                    }
                    Err(error) => self.say(&place, error.to_string(), "write it as the condition does"),
                }
            }
            given.facts.push((Fact::Past, FactValue::Known(Value::Object(answers))));
        }
        for (name, step) in &facts.steps {
            let place = here.key("steps").key(name);
            let wanted = step_identifier(name);
            if !steps(about).any(|(_, step)| step_identifier(&step.name) == wanted) {
                self.unknown(&place, "step", name, "the steps are", steps(about).map(|(_, step)| step.name.as_str()));
            }
            if ActionState::parse(&step.state).is_none() {
                let states = ActionState::ALL.iter().map(|state| state.as_str());
                self.unknown(&place.key("state"), "state", &step.state, "the states are", states);
            }
            given.steps.push((name.clone(), step.clone().view()));
        }
        given
    }

    fn expected(&mut self, expected: &ExpectConfig, about: &[&Playbook], here: &KeyPath) -> Option<Expected> {
        if let Some(name) = &expected.playbook
            && !about.iter().any(|playbook| playbook.name == *name)
        {
            let known = about.iter().map(|playbook| playbook.name.as_str());
            self.unknown(&here.key("playbook"), "playbook", name, "the playbooks that answer this event are", known);
            return None;
        }
        let asked = |playbook: &Playbook| expected.playbook.as_ref().is_none_or(|name| playbook.name == *name);
        let about: Vec<&Playbook> = about.iter().copied().filter(|playbook| asked(playbook)).collect();
        let found: Vec<_> = steps(&about).filter(|(_, step)| step.name == expected.step).collect();
        let (playbook, step) = match found.as_slice() {
            [one] => *one,
            [] => {
                let known = steps(&about).map(|(_, step)| step.name.as_str());
                self.unknown(&here.key("step"), "step", &expected.step, "the steps are", known);
                return None;
            }
            [(first, _), (second, _), ..] => {
                let message = format!("`{}` and `{}` both have a step `{}`", first.name, second.name, expected.step);
                self.say(&here.key("step"), message, "add playbook = \"…\"");
                return None;
            }
        };
        if let Some(action) = &expected.action
            && connectors::kind(action).is_none()
        {
            let known = connectors::catalogue().into_iter().map(|kind| kind.name);
            self.unknown(&here.key("action"), "action", action, "the actions are", known);
        }
        let (key, with) = match (&expected.with, &expected.with_exactly) {
            (Some(_), Some(_)) => {
                self.say(here, "`with` and `with_exactly` are both there", "keep one of them");
                return None;
            }
            (Some(with), None) => ("with", Some(with)),
            (None, with) => ("with_exactly", with.as_ref()),
        };
        if with.is_some() && matches!(expected.state, Some(ExpectedState::Skipped | ExpectedState::Failed)) {
            let message = "a step that is skipped or fails has no final parameters";
            self.say(&here.key(key), message, "take them out; why = \"…\" tells the reason");
        }
        if let Some(with) = with {
            self.parameters(with, playbook, step, &here.key(key));
        }
        Some(Expected {
            playbook: playbook.name.clone(),
            step: step.name.clone(),
            action: expected.action.clone(),
            state: expected.state,
            with: with
                .map(|with| with.iter().map(|(name, value)| (name.clone(), json_of(value))).collect())
                .unwrap_or_default(),
            exactly: expected.with_exactly.is_some(),
            delay: expected.delay.map(|delay| match delay.is_zero() {
                true => String::new(),
                false => humantime::format_duration(delay).to_string(),
            }),
            why: expected.why.clone(),
        })
    }

    /// Parameters that the step never has, and texts that are written in no way there is.
    fn parameters(&mut self, with: &toml::Table, playbook: &Playbook, step: &Step, here: &KeyPath) {
        let Some(config) = self.config_of(playbook, step) else { return };
        let filled = step.action.from_event.iter().map(|(name, _)| *name);
        let known: Vec<&str> = config.with.keys().map(String::as_str).chain(filled).collect();
        for (name, value) in with {
            let place = here.key(name);
            if !known.contains(&name.as_str()) {
                self.unknown(&place, "parameter", name, "the step has", known.iter().copied());
                continue;
            }
            let is_text = config.with.get(name).is_none_or(toml::Value::is_str);
            let fits = match value {
                toml::Value::Table(table) if is_text => parts(&json_of_table(table)).is_some(),
                _ => true,
            };
            if !fits {
                let message = "a text is told whole or by parts of it";
                self.say(&place, message, "write \"…\", { contains = \"…\" } or { contains = [\"…\", \"…\"] }");
            }
        }
    }

    fn config_of(&self, playbook: &Playbook, step: &Step) -> Option<&'l StepConfig> {
        let config = self.loaded.config.playbooks.iter().find(|config| config.name == playbook.name)?;
        config.steps.iter().find(|config| config.name == step.name)
    }

    fn unknown<'n>(
        &mut self,
        place: &KeyPath,
        noun: &str,
        name: &str,
        listed: &str,
        known: impl Iterator<Item = &'n str>,
    ) {
        let known: BTreeSet<&str> = known.collect();
        let remedy = match closest(name, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("{listed} {}", known.into_iter().collect::<Vec<_>>().join(", ")),
        };
        self.say(place, format!("there is no {noun} `{name}`"), remedy);
    }

    fn say(&mut self, path: &KeyPath, message: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(self.loaded.sources.problem(path, message, remedy));
    }
}

/// The parts of `{ contains = … }`; `None` for anything else.
pub(crate) fn parts(value: &Value) -> Option<Vec<&str>> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    match object.get("contains")? {
        Value::String(part) => Some(vec![part]),
        Value::Array(parts) => parts.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// Whether a step that this is expected of is called for.
fn is_called_for(state: Option<ExpectedState>) -> bool {
    !matches!(state, Some(ExpectedState::Skipped | ExpectedState::Refused))
}

fn steps<'p>(playbooks: &[&'p Playbook]) -> impl Iterator<Item = (&'p Playbook, &'p Step)> {
    playbooks.iter().copied().flat_map(|playbook| playbook.steps.iter().map(move |step| (playbook, step)))
}

/// The one record of a file.
fn one_record(path: &Path) -> Result<Value, (String, String)> {
    let remedy = "name a file with one event as JSON, such as `okta-responder events show ID --body` prints".to_owned();
    let told = |message: String| (message, remedy.clone());
    let most = 2 * MAX_EVENT_BYTES as u64;
    // A pipe would be waited for, so the kind is looked at before it is opened.
    let is_file = std::fs::metadata(path).map_err(|error| told(format!("it cannot be read: {error}")))?.is_file();
    if !is_file {
        return Err(told("it is not a regular file".to_owned()));
    }
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(most + 1).read_to_string(&mut text))
        .map_err(|error| told(format!("it cannot be read: {error}")))?;
    if text.len() as u64 > most {
        return Err(told(format!("it has more than {most} bytes")));
    }
    let records = given::records(text.trim_start_matches('\u{feff}')).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        told(format!("{error}{cause}"))
    })?;
    match records.as_slice() {
        [one] => serde_json::from_str(one).map_err(|error| told(format!("it is not JSON: {error}"))),
        several => Err(told(format!("it holds {} events, and a test is about one", several.len()))),
    }
}

/// Fills in what every event has. What is no object stays, and is refused.
fn completed(record: Value) -> Value {
    let Value::Object(mut record) = record else { return record };
    let mut fill = |key: &str, value: Value| {
        record.entry(key).or_insert(value);
    };
    fill("uuid", json!("test"));
    fill("published", json!(PUBLISHED));
    fill("version", json!("0"));
    fill("severity", json!("INFO"));
    FIELDS.iter().for_each(|field| fill(field, Value::Null));
    Value::Object(record)
}

/// A person as he is told of, with what Okta always knows taken from the event.
fn person(person: &PersonFacts, event: Option<Entity<'_>>) -> Value {
    let of_event = |text: Option<&str>| text.map(str::to_owned);
    let (id, login, name) = event.map_or((None, None, None), |user| {
        (Some(user.id.to_owned()), of_event(user.alternate_id), of_event(user.display_name))
    });
    let parts: Vec<&str> = [&person.first_name, &person.last_name].into_iter().flatten().map(String::as_str).collect();
    let joined = Some(parts.join(" ")).filter(|name| !name.is_empty());
    json!({
        "id": person.id.clone().or(id),
        "login": person.login.clone().or(login),
        "email": person.email,
        "first_name": person.first_name,
        "last_name": person.last_name,
        "name": person.name.clone().or(joined).or(name).unwrap_or_default(),
        "mobile_phone": person.mobile_phone,
        "status": person.status.as_deref().unwrap_or("ACTIVE"),
        "manager_id": person.manager_id,
        "profile": json_of_table(&person.profile),
    })
}

fn json_of_table(table: &toml::Table) -> Value {
    table.iter().map(|(key, value)| (key.clone(), json_of(value))).collect()
}

/// The same value in JSON; moments are texts.
fn json_of(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => json!(text),
        toml::Value::Integer(number) => json!(number),
        toml::Value::Float(number) => json!(number),
        toml::Value::Boolean(flag) => json!(flag),
        toml::Value::Datetime(moment) => json!(moment.to_string()),
        toml::Value::Array(list) => list.iter().map(json_of).collect(),
        toml::Value::Table(table) => json_of_table(table),
    }
}
