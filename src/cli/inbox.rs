//! `okta-responder simulate --from-inbox`

use std::io;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::replay::{Change, Outcome, Parameter, Replay, Replayed, Step};
use super::table::{self, Format, cut, plural};
use super::{Exit, open_store, runtime, terminal};
use crate::app;
use crate::config::load::Loaded;
use crate::model::event::Event;
use crate::store::Store;

/// The most characters of a value that are shown to people.
const MAX_SHOWN: usize = 500;

/// Looks at the newest events of the state file, 0 for all, and tells what would differ from what was done.
pub(super) fn run(
    loaded: &Loaded,
    most: usize,
    since: Option<Timestamp>,
    only_differences: bool,
    format: Format,
) -> anyhow::Result<Exit> {
    let store = open_store(&loaded.config)?;
    let summary = runtime()?.block_on(look(&store, loaded, most, since, only_differences, format))?;
    match format {
        Format::Json => table::json(&Told { summary })?,
        Format::Text => summary.tell()?,
    }
    Ok(Exit::Done)
}

async fn look(
    store: &Store,
    loaded: &Loaded,
    most: usize,
    since: Option<Timestamp>,
    only_differences: bool,
    format: Format,
) -> anyhow::Result<Summary> {
    let links = app::links(&loaded.config)?;
    let replay = Replay::new(loaded, &links);
    let mut summary = Summary::default();
    for id in store.decided_events(most, since).await? {
        let Some(past) = store.past(id).await? else { continue };
        summary.events += 1;
        let Some(event) = past.body.as_deref().and_then(|body| Event::parse(&past.source, body).ok()) else {
            summary.without_record += 1;
            continue;
        };
        let asked = store.answers(&replay.questions(&event), &event, event.published).await?;
        let replayed = replay.replay(&past, &event, &asked);
        summary.count(&replayed);
        if !only_differences || replayed.outcome == Outcome::Differs {
            match format {
                Format::Json => table::json(&replayed)?,
                Format::Text => tell(&replayed)?,
            }
        }
    }
    Ok(summary)
}

/// The last line of JSON.
#[derive(Debug, Serialize)]
struct Told {
    summary: Summary,
}

/// All events in numbers.
#[derive(Debug, Default, Serialize)]
struct Summary {
    events: u64,
    same: u64,
    differ: u64,
    unknown: u64,
    left_alone: u64,
    /// Events whose record is not kept any more.
    without_record: u64,
    steps: Steps,
}

/// The steps that differ, in numbers.
#[derive(Debug, Default, Serialize)]
struct Steps {
    new: u64,
    gone: u64,
    parameters: u64,
    otherwise: u64,
    unknown: u64,
}

impl Summary {
    fn count(&mut self, replayed: &Replayed) {
        *match replayed.outcome {
            Outcome::Same => &mut self.same,
            Outcome::LeftAlone => &mut self.left_alone,
            Outcome::Unknown => &mut self.unknown,
            Outcome::Differs => &mut self.differ,
        } += 1;
        for step in &replayed.steps {
            *match step.change {
                Change::New => &mut self.steps.new,
                Change::Gone => &mut self.steps.gone,
                Change::Parameters => &mut self.steps.parameters,
                Change::Otherwise => &mut self.steps.otherwise,
                Change::Unknown => &mut self.steps.unknown,
            } += 1;
        }
    }

    fn tell(&self) -> io::Result<()> {
        let counted = [
            (self.same, "the same"),
            (self.differ, "decided otherwise"),
            (self.unknown, "not wholly known"),
            (self.left_alone, "left alone then"),
            (self.without_record, "without a record any more"),
        ];
        terminal::line(format!("{}: {}", plural(self.events, "event"), in_numbers(&counted, "none")))?;
        let steps = [
            (self.steps.new, "new"),
            (self.steps.gone, "gone"),
            (self.steps.parameters, "with other parameters"),
            (self.steps.otherwise, "otherwise"),
            (self.steps.unknown, "not known"),
        ];
        terminal::line(format!("steps: {}", in_numbers(&steps, "all the same")))
    }
}

fn in_numbers(counted: &[(u64, &str)], none: &str) -> String {
    let told: Vec<_> =
        counted.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if told.is_empty() { none.to_owned() } else { told.join(", ") }
}

fn tell(replayed: &Replayed) -> io::Result<()> {
    let user = replayed.user.as_ref().map(|user| format!("  {user}")).unwrap_or_default();
    let outcome = match (replayed.outcome, &replayed.why) {
        (_, Some(why)) => format!(": {why}"),
        (Outcome::Same, None) => ": the same".to_owned(),
        _ => String::new(),
    };
    terminal::line(format!(
        "event {}  {}  {}{user}{outcome}",
        replayed.event, replayed.event_type, replayed.published
    ))?;
    replayed.steps.iter().try_for_each(tell_step)
}

fn tell_step(step: &Step) -> io::Result<()> {
    let run = step.run.map(|run| format!(" (run {run})")).unwrap_or_default();
    let name = if step.step.is_empty() { String::new() } else { format!(" / {}", step.step) };
    let why = step.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let action = step.action.as_deref().unwrap_or_default();
    let (then, now) = (step.then.unwrap_or("not there"), step.now.unwrap_or("not there"));
    let words = match step.change {
        Change::New if now == "called for" => format!("NEW, {action}{why}"),
        Change::New => format!("NEW, {action}, {now}{why}"),
        Change::Gone => format!("GONE, {action}, {then} then{why}"),
        Change::Parameters => format!("OTHER PARAMETERS, {action}{why}"),
        Change::Otherwise => format!("{} instead of {then}{why}", now.to_uppercase()),
        Change::Unknown => format!("not known{why}"),
    };
    terminal::line(format!("  {}{run}{name}: {words}", step.playbook))?;
    step.parameters.iter().try_for_each(|parameter| tell_parameter(step.change, parameter))
}

fn tell_parameter(change: Change, parameter: &Parameter) -> io::Result<()> {
    let shown = |value: &Option<Value>| {
        value.as_ref().map_or_else(|| "nothing".to_owned(), |value| cut(&value.to_string(), MAX_SHOWN))
    };
    if change == Change::New {
        return terminal::line(format!("    {} = {}", parameter.name, shown(&parameter.now)));
    }
    terminal::line(format!("    {}", parameter.name))?;
    terminal::line(format!("      then  {}", shown(&parameter.then)))?;
    terminal::line(format!("      now   {}", shown(&parameter.now)))
}
