//! `okta-responder simulate`

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use jiff::Timestamp;

use super::inbox;
use super::moment::Moment;
use super::rehearsal::{self, Rehearsal, StepState};
use super::table::{self, Format, cut};
use super::{Exit, load_config, now, terminal};
use crate::app;
use crate::guard::Guard;
use crate::model::event::{Event, SOURCE_OKTA};
use crate::playbook::given::{self, GivenFacts};

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
///
/// With --from-inbox the events are those of the state file, read beside a running daemon, and what is told is how this
/// configuration would have decided otherwise: steps that would be new, gone, filled with other parameters, refused. The
/// facts are those that were fetched then; what was not asked for then is said to be unknown.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  okta-responder simulate --event event.json\n  \
    okta-responder simulate --event event.json --facts facts.json\n  \
    okta-responder simulate --event - < events.jsonl\n  \
    okta-responder --config new.toml simulate --from-inbox 1000 --only-differences\n\n\
    Exit codes: 0 told; 1 a step or a condition would fail, or something in the file is no event; 64 usage; 78 the \
    configuration is wrong.")]
pub(super) struct Arguments {
    /// The events; - reads standard input
    #[arg(long, value_name = "FILE", required_unless_present = "from_inbox")]
    event: Option<PathBuf>,
    /// The newest N events of the state file instead, 0 for all: what would differ from what was done
    #[arg(long, value_name = "N", conflicts_with_all = ["event", "facts", "now"])]
    from_inbox: Option<usize>,
    /// Of those only events published at or after this time (RFC 3339, or 36h before now)
    #[arg(long, value_name = "TIME", requires = "from_inbox")]
    since: Option<Moment>,
    /// Of those tell only the events for which something differs
    #[arg(long, requires = "from_inbox")]
    only_differences: bool,
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
    let Some(source) = &arguments.event else {
        let most = arguments.from_inbox.unwrap_or_default();
        let since = arguments.since.map(|since| since.at(now()));
        return inbox::run(&loaded, most, since, arguments.only_differences, arguments.format);
    };
    let text = read(source)?;
    let name = source.display();
    let records = given::records(&text).with_context(|| format!("{name} holds no events"))?;
    let given = match &arguments.facts {
        None => GivenFacts::default(),
        Some(path) => GivenFacts::read(&read(path)?).with_context(|| format!("the facts in {}", path.display()))?,
    };
    let links = app::links(&loaded.config)?;
    let guard = Guard::new(&loaded.config.guard, []);
    let at: Option<Timestamp> = arguments.now.map(|moment| moment.at(now()));
    let (mut wrong, mut failing) = (0, 0);
    for (number, record) in (1..).zip(&records) {
        let (record, completed) = given::complete(record, at.unwrap_or_else(now));
        match Event::parse(SOURCE_OKTA, &record) {
            Ok(event) => {
                let stage =
                    rehearsal::Stage { loaded: &loaded, guard: &guard, links: &links, given: &given, later: None };
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
            if let Some(delay) = &step.delay {
                let unless = step.cancel_if.as_ref().map(|text| format!(", unless this is true then: {text}"));
                let unless = cut(&unless.unwrap_or_default(), MAX_SHOWN).replace('\n', "\n        ");
                terminal::line(format!("      {delay} later{unless}"))?;
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
