//! `okta-responder simulate`

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::moment::Moment;
use super::rehearsal::{self, Rehearsal, StepState};
use super::table::{self, Format, cut};
use super::{Exit, load_config, now, terminal};
use crate::app;
use crate::guard::Guard;
use crate::model::event::{Event, SOURCE_OKTA};
use crate::playbook::facts::{Fact, StepView};

/// The most bytes of a file of events or facts.
const MAX_INPUT: u64 = 64 * 1024 * 1024;
/// The most characters of a parameter that are shown to people.
const MAX_SHOWN: usize = 4000;

/// Tell what would be done for an event
///
/// Tells for each event which playbooks answer it, and for each step whether it would run, with which parameters, or why
/// not. It reads the configuration and the events and nothing else: no state file, no secrets, no network.
///
/// FILE holds one event, a JSON array of events, what an event hook sends, what `okta-responder events show ID --body`
/// prints, or one event a line.
///
/// Facts that need a request are not asked for; a step that needs one says so. Give them in a file:
/// {"user": {"login": "ann@example.com", "status": "ACTIVE"}, "manager": null, "groups": ["Staff"], "user_risk": "HIGH",
/// "steps": {"incident": {"state": "failed", "error": "…"}}}. Steps that are not told of are taken to succeed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  okta-responder simulate --event event.json\n  \
    okta-responder simulate --event event.json --facts facts.json\n  \
    okta-responder simulate --event - < events.jsonl\n\n\
    Exit codes: 0 told; 1 a step or a condition would fail, or something in the file is no event; 64 usage; 78 the \
    configuration is wrong.")]
pub(super) struct Arguments {
    /// The events; - reads standard input
    #[arg(long, value_name = "FILE")]
    event: PathBuf,
    /// What Okta would answer about the user
    #[arg(long, value_name = "FILE")]
    facts: Option<PathBuf>,
    /// When it is decided: RFC 3339, or a duration before now [default: when the event happened]
    #[arg(long, value_name = "TIME")]
    now: Option<Moment>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(file: &Path, arguments: &Arguments) -> anyhow::Result<Exit> {
    let loaded = load_config(file)?;
    let text = read(&arguments.event)?;
    let name = arguments.event.display();
    let records = records(&text).with_context(|| format!("{name} holds no events"))?;
    let given = match &arguments.facts {
        None => GivenFacts::default(),
        Some(path) => GivenFacts::read(&read(path)?).with_context(|| format!("the facts in {}", path.display()))?,
    };
    let links = app::links(&loaded.config)?;
    let guard = Guard::new(&loaded.config.guard, []);
    let at: Option<Timestamp> = arguments.now.map(|moment| moment.at(now()));
    let (mut wrong, mut failing) = (0, 0);
    for (number, record) in (1..).zip(&records) {
        let (record, completed) = complete(record, at);
        match Event::parse(SOURCE_OKTA, &record) {
            Ok(event) => {
                let stage = rehearsal::Stage { loaded: &loaded, guard: &guard, links: &links, given: &given };
                let mut rehearsal = stage.rehearse(&event, at.unwrap_or(event.published));
                rehearsal.notes.splice(0..0, completed);
                failing += u64::from(rehearsal.fails());
                match arguments.format {
                    Format::Json => table::json(&rehearsal)?,
                    Format::Text => tell(&rehearsal, number)?,
                }
            }
            Err(error) => {
                wrong += 1;
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                terminal::note(format!("okta-responder: record {number} of {name} is no event: {error}{cause}"));
            }
        }
    }
    if wrong > 0 {
        return Err(anyhow!(
            "{wrong} of {} {} no event; an event is a JSON object with at least an `eventType`, as `okta-responder events show \
             ID --body` prints it",
            table::plural(records.len() as u64, "record"),
            if wrong == 1 { "is" } else { "are" }
        ));
    }
    if failing > 0 {
        return Err(anyhow!("something would fail for {}; see what is told above", table::plural(failing, "event")));
    }
    Ok(Exit::Done)
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        io::stdin().lock().take(MAX_INPUT + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(MAX_INPUT + 1).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("{} cannot be read", path.display()))?;
    if bytes.len() as u64 > MAX_INPUT {
        return Err(anyhow!("{} has more than {} MiB; divide it", path.display(), MAX_INPUT >> 20));
    }
    let text = String::from_utf8(bytes).map_err(|_| anyhow!("{} is not UTF-8 text", path.display()))?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

/// What an event hook sends (Okta developer guide, "Event hooks").
#[derive(Deserialize)]
struct Hook<'a> {
    #[serde(borrow)]
    data: HookData<'a>,
}

#[derive(Deserialize)]
struct HookData<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

/// What `okta-responder events show ID --body --format json` prints.
#[derive(Deserialize)]
struct Shown<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
    #[serde(rename = "eventType")]
    event_type: Option<IgnoredAny>,
}

/// The records of a file, in its order: the values that stand one after the other, with arrays and envelopes opened.
fn records(text: &str) -> anyhow::Result<Vec<String>> {
    let mut records = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        let raw = value.context("it is not JSON")?.get();
        if let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(raw) {
            records.extend(list.into_iter().map(|record| record.get().to_owned()));
        } else if let Ok(hook) = serde_json::from_str::<Hook<'_>>(raw) {
            records.extend(hook.data.events.into_iter().map(|record| record.get().to_owned()));
        } else if let Ok(Shown { body, event_type: None }) = serde_json::from_str(raw) {
            records.push(body.get().to_owned());
        } else {
            records.push(raw.to_owned());
        }
    }
    if records.is_empty() { Err(anyhow!("it is empty")) } else { Ok(records) }
}

/// Records that come out of other tools or out of documentation often lack what every event of Okta's has. What can be
/// taken for it is put in, and said.
fn complete(record: &str, at: Option<Timestamp>) -> (Cow<'_, str>, Vec<String>) {
    let mut notes = Vec::new();
    let Ok(Value::Object(mut object)) = serde_json::from_str(record) else { return (record.into(), notes) };
    if !object.get("eventType").is_some_and(Value::is_string) {
        return (record.into(), notes);
    }
    if !object.contains_key("uuid") {
        notes.push("it has no `uuid`; `simulated` is taken, so its keys are not those of the real event".to_owned());
        object.insert("uuid".to_owned(), "simulated".into());
    }
    let published = object.get("published").map(|published| published.as_str().unwrap_or_default().to_owned());
    match published {
        None => {
            let moment = at.unwrap_or_else(now);
            notes.push(format!("it has no `published`; {moment} is taken"));
            object.insert("published".to_owned(), moment.to_string().into());
        }
        Some(text) if text.parse::<Timestamp>().is_err() => {
            let taken = match text.parse::<jiff::civil::DateTime>() {
                Ok(civil) => {
                    notes.push(format!("its `published` has no time zone; {civil}Z is taken"));
                    format!("{civil}Z")
                }
                Err(_) => {
                    let moment = at.unwrap_or_else(now);
                    notes.push(format!("its `published` is no time; {moment} is taken"));
                    moment.to_string()
                }
            };
            object.insert("published".to_owned(), taken.into());
        }
        Some(_) => {}
    }
    if notes.is_empty() {
        return (record.into(), notes);
    }
    (Value::Object(object).to_string().into(), notes)
}

/// What somebody says Okta would answer.
#[derive(Debug, Default)]
pub(super) struct GivenFacts {
    pub facts: Vec<(Fact, Value)>,
    pub steps: Vec<(String, StepView)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenStep {
    state: String,
    url: Option<String>,
    id: Option<String>,
    number: Option<String>,
    note: Option<String>,
    error: Option<String>,
}

impl GivenFacts {
    fn read(text: &str) -> anyhow::Result<Self> {
        let object: Map<String, Value> = serde_json::from_str(text).context("they are not a JSON object")?;
        let mut given = Self::default();
        for (name, value) in object {
            match (Fact::parse(&name), name.as_str()) {
                (Some(fact), _) => {
                    check_fact(fact, &value)?;
                    given.facts.push((fact, value));
                }
                (None, "steps") => {
                    let steps: std::collections::BTreeMap<String, GivenStep> =
                        serde_json::from_value(value).context("`steps`")?;
                    given.steps = steps.into_iter().map(|(name, step)| (name, step.view())).collect();
                }
                (None, _) => {
                    let names = Fact::ALL.map(Fact::as_str).join(", ");
                    return Err(anyhow!("there is no fact `{name}`; use {names} or steps"));
                }
            }
        }
        Ok(given)
    }
}

impl GivenStep {
    fn view(self) -> StepView {
        let Self { state, url, id, number, note, error } = self;
        StepView { state, url, id, number, note, error }
    }
}

fn check_fact(fact: Fact, value: &Value) -> anyhow::Result<()> {
    let fits = match fact {
        Fact::User => value.is_object(),
        Fact::Manager => value.is_object() || value.is_null(),
        Fact::Groups => value.as_array().is_some_and(|groups| groups.iter().all(Value::is_string)),
        Fact::UserRisk => value.as_str().is_some_and(|level| matches!(level, "LOW" | "MEDIUM" | "HIGH" | "UNKNOWN")),
    };
    let expected = match fact {
        Fact::User => "an object, such as {\"login\": \"ann@example.com\"}",
        Fact::Manager => "an object, or null for a user without a manager",
        Fact::Groups => "a list of names",
        Fact::UserRisk => "\"LOW\", \"MEDIUM\", \"HIGH\" or \"UNKNOWN\"",
    };
    if fits { Ok(()) } else { Err(anyhow!("`{fact}` has to be {expected}")) }
}

fn tell(rehearsal: &Rehearsal, number: usize) -> io::Result<()> {
    if number > 1 {
        terminal::line("")?;
    }
    terminal::line(format!("event {}  {}  {}", rehearsal.uuid, rehearsal.event_type, rehearsal.published))?;
    let risk = rehearsal.risk.as_ref().map(|risk| {
        let before = Some(risk.previous_level).filter(|level| level.is_known());
        let before = before.map(|before| format!(" (before: {before})")).unwrap_or_default();
        format!("{}{before}", risk.level)
    });
    table::fields(&[
        ("  user", rehearsal.user.as_ref().map_or_else(|| "none: it names nobody".to_owned(), ToString::to_string)),
        ("  risk", risk.unwrap_or_default()),
    ])?;
    rehearsal.notes.iter().try_for_each(|note| terminal::line(format!("  note: {note}")))?;
    for run in &rehearsal.runs {
        let applies = match (run.applies, &run.why) {
            (Some(true), None) => "applies".to_owned(),
            (Some(true), Some(why)) => format!("would FAIL: {why}"),
            (Some(false), why) => format!("does not apply: {}", why.as_deref().unwrap_or_default()),
            (None, why) => format!("may apply: {}", why.as_deref().unwrap_or_default()),
        };
        terminal::line(format!("  playbook {} ({}): {applies}", run.playbook, run.mode))?;
        for step in &run.steps {
            let why = step.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            terminal::line(format!("    {}: {} {}{why}", step.step, step.action, step.state.in_words()))?;
            if !step.after.is_empty() {
                let most = step.wait.as_ref().map(|wait| format!(", {wait} at most")).unwrap_or_default();
                terminal::line(format!("      waits for {}{most}", step.after.join(", ")))?;
            }
            let shown = !matches!(step.state, StepState::NotCalledFor | StepState::NeedNotMet);
            for (name, value) in step.params.iter().flatten().filter(|_| shown) {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let text = text.replace('\n', "\n        ");
                terminal::line(format!("      {name} = {}", cut(&text, MAX_SHOWN)))?;
            }
            if shown {
                let lane = step.lane.as_ref().map(|lane| format!("lane {lane}, ")).unwrap_or_default();
                terminal::line(format!("      {lane}key {}", step.key))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_eq!(records(text).unwrap(), expected);
    }

    #[test]
    fn every_way_to_write_events_down_is_read() {
        check(r#"{"uuid":"1"}"#, &[r#"{"uuid":"1"}"#]);
        check(r#"[{"uuid":"1"}, {"uuid":"2"}]"#, &[r#"{"uuid":"1"}"#, r#"{"uuid":"2"}"#]);
        check("{\"uuid\":\"1\"}\n\n{\"uuid\":\"2\"}\n", &[r#"{"uuid":"1"}"#, r#"{"uuid":"2"}"#]);
        check(r#"{"id":1,"uuid":"1","type":"x","runs":[],"body":{"uuid":"1"}}"#, &[r#"{"uuid":"1"}"#]);
        check(r#"{"eventType":"com.okta.event_hook","data":{"events":[{"uuid":"1"}]}}"#, &[r#"{"uuid":"1"}"#]);
    }

    #[test]
    fn what_other_tools_leave_out_is_completed_and_said() {
        let at = Some("2026-08-24T10:00:00Z".parse().unwrap());
        let (record, notes) = complete(r#"{"eventType":"x","published":"2026-08-24 09:00:00.5"}"#, at);
        let event = Event::parse(SOURCE_OKTA, &record).unwrap();
        assert_eq!(event.published.to_string(), "2026-08-24T09:00:00.5Z");
        assert_eq!(notes.len(), 2, "{notes:?}");
        for lacking in [r#"{"eventType":"x","uuid":"u"}"#, r#"{"eventType":"x","uuid":"u","published":"redacted"}"#] {
            let (record, notes) = complete(lacking, at);
            assert_eq!(Event::parse(SOURCE_OKTA, &record).unwrap().published.to_string(), "2026-08-24T10:00:00Z");
            assert_eq!(notes.len(), 1, "{notes:?}");
        }
    }

    #[test]
    fn what_is_no_event_or_whole_stays_as_it_is() {
        let whole = r#"{"eventType":"x","uuid":"u","published":"2026-08-24T10:00:00Z","a":1.0}"#;
        for record in [whole, "7", "{}", r#"{"uuid":"u"}"#, r#"{"eventType":7}"#] {
            assert_eq!(complete(record, None), (record.into(), vec![]));
        }
    }

    #[test]
    fn what_is_no_json_or_empty_is_refused() {
        for text in ["", "  ", "[]", "<html>", "{\"uuid\":"] {
            assert!(records(text).is_err(), "{text}");
        }
    }

    #[test]
    fn facts_are_checked_by_name_and_shape() {
        let given =
            GivenFacts::read(r#"{"manager":null,"user_risk":"HIGH","steps":{"a-b":{"state":"failed"}}}"#).unwrap();
        assert_eq!(given.facts.len(), 2);
        assert_eq!(given.steps[0].1.state, "failed");
        for wrong in [r#"{"usr":{}}"#, r#"{"groups":"Staff"}"#, r#"{"user_risk":"high"}"#, r#"{"steps":{"a":{}}}"#, "7"]
        {
            assert!(GivenFacts::read(wrong).is_err(), "{wrong}");
        }
    }
}
