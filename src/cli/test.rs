//! `okta-responder test`

use std::io;
use std::path::Path;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::rehearsal::{Rehearsal, Stage, WHEN_DUE};
use super::table::{self, Format, cut, plural};
use super::verdict::{self, Difference, What};
use super::{Exit, load_config, terminal, wrong};
use crate::app;
use crate::config::GuardConfig;
use crate::config::load::Loaded;
use crate::config::playtest::{self, Playtest};
use crate::guard::Guard;
use crate::model::similar::closest;
use crate::playbook::facts::LinkBase;

/// The most characters of a value that are shown to people.
const MAX_SHOWN: usize = 2000;

/// Run the tests of the playbooks
///
/// A [[test]] stands beside playbooks, in the configuration or in playbooks.d. It tells an event, what Okta would answer
/// about the user, and which steps are then called for with which parameters. Like `simulate` this reads the configuration
/// and nothing else: no state file, no secrets, no network, no clock.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  okta-responder test\n  okta-responder test \"high risk is quarantined\"\n  \
    okta-responder --config new.toml test --format json | jq -r 'select(.ok | not).test'\n\n\
    Exit codes: 0 all is as the tests say; 1 something is not; 64 there is no test of that name; 78 the configuration or a \
    test is wrong.")]
pub(super) struct Arguments {
    /// Only these tests
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(file: &Path, arguments: &Arguments) -> anyhow::Result<Exit> {
    let loaded = load_config(file)?;
    let tests = playtest::compile(&loaded).map_err(|problems| wrong(&problems, "; no test was run"))?;
    if let Some(name) = arguments.names.iter().find(|name| !tests.iter().any(|test| test.name == **name)) {
        let meant = closest(name, tests.iter().map(|test| test.name.as_str()));
        let hint =
            meant.map_or_else(|| "without a name all are run".to_owned(), |meant| format!("did you mean `{meant}`?"));
        return Err(Exit::Usage.because(format!("there is no test `{name}`; {hint}")));
    }
    let links = app::links(&loaded.config)?;
    let house = House {
        loaded: &loaded,
        links: &links,
        guard: Guard::new(&loaded.config.guard, []),
        no_guard: Guard::new(&GuardConfig::default(), []),
    };
    let wanted = |test: &&Playtest| arguments.names.is_empty() || arguments.names.contains(&test.name);
    let (mut all, mut failed) = (0, 0);
    for test in tests.iter().filter(wanted) {
        let verdict = house.verdict(test);
        all += 1;
        failed += u64::from(!verdict.ok);
        match arguments.format {
            Format::Json => table::json(&verdict)?,
            Format::Text => tell(&verdict)?,
        }
    }
    if arguments.format == Format::Text {
        terminal::line(match (all, failed) {
            (0, _) => "No tests: write a [[test]] beside a playbook.".to_owned(),
            (_, 0) => format!("{}, all as expected", plural(all, "test")),
            _ => format!("{failed} of {} FAILED", plural(all, "test")),
        })?;
    }
    Ok(if failed > 0 { Exit::Failed } else { Exit::Done })
}

/// What tests are run in.
struct House<'l> {
    loaded: &'l Loaded,
    links: &'l LinkBase,
    guard: Guard,
    no_guard: Guard,
}

/// How a test ended.
#[derive(Debug, Serialize)]
struct Verdict<'t> {
    test: &'t str,
    file: String,
    line: usize,
    ok: bool,
    differences: Vec<Difference>,
}

impl House<'_> {
    fn verdict<'t>(&self, test: &'t Playtest) -> Verdict<'t> {
        let guard = if test.guard { &self.guard } else { &self.no_guard };
        let stage =
            Stage { loaded: self.loaded, guard, links: self.links, given: &test.given, later: test.later.as_ref() };
        let Rehearsal { mut runs, .. } = stage.rehearse(&test.event, test.now);
        runs.retain(|run| test.playbook.as_ref().is_none_or(|name| run.playbook == *name));
        let differences = verdict::judge(test, &runs);
        let (file, line) = (test.file.display().to_string(), test.line);
        Verdict { test: &test.name, file, line, ok: differences.is_empty(), differences }
    }
}

fn tell(verdict: &Verdict<'_>) -> io::Result<()> {
    if verdict.ok {
        return terminal::line(format!("ok      {}", verdict.test));
    }
    terminal::line(format!("FAILED  {}  ({}:{})", verdict.test, verdict.file, verdict.line))?;
    verdict.differences.iter().try_for_each(tell_difference)
}

fn tell_difference(difference: &Difference) -> io::Result<()> {
    let why = difference.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let of_plan = |key: &str| difference.planned.as_ref().and_then(|planned| planned.get(key)).and_then(Value::as_str);
    let words = match difference.what {
        What::Missing => {
            let planned = difference.planned.as_ref().and_then(Value::as_str).unwrap_or("is not called for");
            format!("is expected, and {planned}{why}")
        }
        What::Surplus if of_plan("state") == Some("failed") => format!("is not expected, and would FAIL{why}"),
        What::Surplus => format!("is not expected, and called for ({}){why}", of_plan("action").unwrap_or_default()),
        What::Unknown => {
            let table = if why.ends_with(WHEN_DUE) { "[test.later]" } else { "[test.facts]" };
            format!("can't be told{why}; give what is missing in {table}")
        }
        What::State => format!("ends otherwise{why}"),
        What::Action => "does another thing".to_owned(),
        What::Parameter => format!("has another `{}`", difference.parameter.as_deref().unwrap_or_default()),
        What::Delay => "is done at another time".to_owned(),
        What::Why => "has another reason".to_owned(),
    };
    let step = if difference.step.is_empty() { String::new() } else { format!(" / {}", difference.step) };
    terminal::line(format!("  {}{step}: {words}", difference.playbook))?;
    for (name, value) in &difference.reads {
        tell_value(&format!("    {name} is "), value)?;
    }
    match (difference.what, &difference.expected, &difference.planned) {
        (What::Surplus, _, Some(planned)) => {
            for (name, value) in planned.get("with").and_then(Value::as_object).into_iter().flatten() {
                tell_value(&format!("    {name} = "), value)?;
            }
        }
        (_, Some(Value::String(expected)), Some(Value::String(planned)))
            if (expected.clone() + planned).contains('\n') =>
        {
            for line in changed_lines(expected, planned) {
                terminal::line(format!("    {line}"))?;
            }
        }
        (_, None, None) | (What::Missing | What::Unknown, ..) => {}
        (_, expected, planned) => {
            tell_side("    expected  ", expected.as_ref())?;
            tell_side("    planned   ", planned.as_ref())?;
        }
    }
    Ok(())
}

fn tell_side(label: &str, value: Option<&Value>) -> io::Result<()> {
    match value {
        Some(value) => tell_value(label, value),
        None => terminal::line(format!("{label}nothing")),
    }
}

/// A value behind its label; the further lines of a text stand below its first one.
fn tell_value(label: &str, value: &Value) -> io::Result<()> {
    let text = value.as_str().filter(|text| text.contains('\n')).map_or_else(|| value.to_string(), str::to_owned);
    terminal::line(format!("{label}{}", cut(&text, MAX_SHOWN).replace('\n', &format!("\n{}", " ".repeat(label.len())))))
}

/// Two texts line by line: `-` is expected, `+` is planned, and what is the same before and behind is shown once.
fn changed_lines(expected: &str, planned: &str) -> Vec<String> {
    let (expected, planned): (Vec<_>, Vec<_>) = (expected.split('\n').collect(), planned.split('\n').collect());
    let same = |pairs: &mut dyn Iterator<Item = (&&str, &&str)>| pairs.take_while(|(one, other)| one == other).count();
    let before = same(&mut expected.iter().zip(&planned));
    let most = expected.len().min(planned.len()) - before;
    let behind = same(&mut expected.iter().rev().zip(planned.iter().rev())).min(most);
    let marked = |mark: &str, lines: &[&str], from: usize, to: usize| -> Vec<String> {
        let shown = lines.get(from..to).unwrap_or_default();
        shown.iter().map(|line| format!("{mark} {}", cut(line, MAX_SHOWN))).collect()
    };
    [
        marked(" ", &expected, 0, before),
        marked("-", &expected, before, expected.len() - behind),
        marked("+", &planned, before, planned.len() - behind),
        marked(" ", &expected, expected.len() - behind, expected.len()),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_that_differ_are_marked() {
        let lines = |expected, planned| changed_lines(expected, planned).join("|");
        assert_eq!(lines("a\nb\nc", "a\nx\ny\nc"), "  a|- b|+ x|+ y|  c");
        assert_eq!(lines("a\na", "a"), "  a|- a");
        assert_eq!(lines("a", "a\na"), "  a|+ a");
        assert_eq!(lines("", "a"), "- |+ a");
    }
}
