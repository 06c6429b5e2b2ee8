//! How the story is told: as a timeline for people, or as one JSON object a line.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::story::Summary;
use crate::model::escape::Escape;

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Lines for people.
    Text {
        /// With colours.
        colour: bool,
    },
    /// One object a line.
    Json,
}

/// Where the story is told.
pub struct Show {
    out: Box<dyn Write + Send>,
    look: Look,
}

/// What a line of the timeline is about; the word is the JSON's `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A record in the System Log.
    Event,
    /// A change that a service processed.
    Effect,
    /// What became of the daemon, and what it makes of answers.
    Daemon,
}

/// A line of the timeline.
#[derive(Debug)]
pub(super) struct Entry {
    /// Since the org was started.
    pub(super) at: Duration,
    pub(super) kind: Kind,
    /// Who: a service, or `daemon`.
    pub(super) actor: &'static str,
    /// What happened, in words.
    pub(super) text: String,
    /// Whether something went wrong.
    pub(super) trouble: bool,
    /// Members of the JSON object beside time, kind, actor and text.
    pub(super) details: Value,
}

/// A run and how its steps ended.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) run: i64,
    pub(super) playbook: String,
    pub(super) event: String,
    pub(super) about: String,
    /// Steps that were called for: name, state, attempts, and what the service calls the result.
    pub(super) steps: Vec<(String, String, u32, Option<String>)>,
}

/// The most characters that people are told of one thing.
const MAX_TEXT: usize = 150;

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";

impl Show {
    /// Tells it to `out`. A reader that goes away (`| head`) ends the telling and not the story.
    pub fn new(out: impl Write + Send + 'static, look: Look) -> Self {
        Self { out: Box::new(out), look }
    }

    /// Begins a part of the story; only people are told.
    pub(super) fn heading(&mut self, text: &str) -> io::Result<()> {
        let text = self.painted(BOLD, text);
        self.people(&format!("\n{text}"))
    }

    /// A remark; only people are told.
    pub(super) fn remark(&mut self, text: &str) -> io::Result<()> {
        self.people(&line_of(text))
    }

    pub(super) fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        match self.look {
            Look::Json => {
                let mut object = Map::new();
                object.insert("kind".to_owned(), json!(entry.kind.word()));
                object.insert("at_ms".to_owned(), json!(entry.at.as_millis() as u64));
                object.insert("actor".to_owned(), json!(entry.actor));
                object.insert("text".to_owned(), json!(entry.text));
                if let Value::Object(details) = &entry.details {
                    object.extend(details.clone());
                }
                self.write(&Value::Object(object).to_string())
            }
            Look::Text { .. } => {
                let at = self.painted(DIM, &format!("{:7.3} s", entry.at.as_secs_f64()));
                let colour = match entry.kind {
                    _ if entry.trouble => RED,
                    Kind::Event => YELLOW,
                    Kind::Effect => GREEN,
                    Kind::Daemon => CYAN,
                };
                let actor = self.painted(colour, &format!("{:<11}", entry.actor));
                self.write(&format!("{at}  {actor} {}", cut(line_of(&entry.text))))
            }
        }
    }

    pub(super) fn flows(&mut self, flows: &[Flow]) -> io::Result<()> {
        if self.look == Look::Json {
            return flows.iter().try_for_each(|flow| self.write(&flow.json().to_string()));
        }
        self.heading("Flows and how their steps ended")?;
        let width =
            |texts: &mut dyn Iterator<Item = &String>| texts.map(|text| text.chars().count()).max().unwrap_or(0);
        let playbooks = width(&mut flows.iter().map(|flow| &flow.playbook));
        let people = width(&mut flows.iter().map(|flow| &flow.about));
        for flow in flows {
            let line = format!("  {:playbooks$}  {:people$}  {}", flow.playbook, flow.about, flow.results());
            self.write(&line_of(&line))?;
        }
        Ok(())
    }

    pub(super) fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        if self.look == Look::Json {
            return self.write(&summary.json().to_string());
        }
        let states: Vec<String> = summary.actions.iter().map(|(state, count)| format!("{count} {state}")).collect();
        let good = summary.is_good();
        let counted = self.painted(
            if good { GREEN } else { RED },
            &format!("duplicates {}, lost {}", summary.duplicates, summary.lost),
        );
        self.heading("Summary")?;
        self.write(&format!(
            "  events {}, runs {}, actions {}, effects {}, {counted} ({:.1} s)",
            summary.events,
            summary.runs,
            states.join(" + "),
            summary.effects,
            summary.took.as_secs_f64()
        ))
    }

    fn people(&mut self, line: &str) -> io::Result<()> {
        if self.look == Look::Json { Ok(()) } else { self.write(line) }
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        match self.look {
            Look::Text { colour: true } => format!("\u{1b}[{colour}m{text}\u{1b}[0m"),
            _ => text.to_owned(),
        }
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        match writeln!(self.out, "{line}").and_then(|()| self.out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}

/// Text that stays one line and cannot steer a terminal, whatever the names in it hold.
fn line_of(text: &str) -> String {
    Escape::Line.apply(text)
}

/// The JSON and the ledger hold what is cut off here.
fn cut(text: String) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Effect => "effect",
            Self::Daemon => "daemon",
        }
    }
}

impl Flow {
    fn results(&self) -> String {
        if self.steps.is_empty() {
            return "nothing to do".to_owned();
        }
        let step = |(name, state, attempts, number): &(String, String, u32, Option<String>)| {
            let number = number.as_ref().map(|number| format!(" {number}")).unwrap_or_default();
            let attempts = if *attempts > 1 { format!(" at attempt {attempts}") } else { String::new() };
            match state.as_str() {
                "succeeded" => format!("{name}{number}{attempts}"),
                state => format!("{name}{number} {}{attempts}", state.to_uppercase()),
            }
        };
        self.steps.iter().map(step).collect::<Vec<_>>().join(", ")
    }

    fn json(&self) -> Value {
        let results: BTreeMap<&str, Value> = self
            .steps
            .iter()
            .map(|(name, state, attempts, number)| {
                (name.as_str(), json!({"state": state, "attempts": attempts, "number": number}))
            })
            .collect();
        json!({
            "kind": "flow", "run": self.run, "playbook": self.playbook, "event": self.event, "about": self.about,
            "results": results,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn told(look: Look, entry: &Entry) -> String {
        let page = Page::default();
        Show::new(page.clone(), look).entry(entry).unwrap();
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    fn entry(text: &str) -> Entry {
        Entry {
            at: Duration::from_millis(1234),
            kind: Kind::Effect,
            actor: "Slack",
            text: text.to_owned(),
            trouble: false,
            details: json!({"effect": "slack.post"}),
        }
    }

    #[test]
    fn a_name_cannot_recolour_or_break_a_line() {
        assert_eq!(
            told(Look::Text { colour: false }, &entry("a\u{1b}[31m\nb\u{202E}")),
            "  1.234 s  Slack       a [31m b\n"
        );
    }

    #[test]
    fn a_long_text_is_cut_for_people_and_not_for_programs() {
        let long = "ä".repeat(MAX_TEXT + 1);
        assert!(told(Look::Text { colour: false }, &entry(&long)).ends_with("ä…\n"));
        assert!(told(Look::Json, &entry(&long)).contains(&long));
    }

    #[test]
    fn colours_are_only_there_when_they_are_wanted() {
        assert!(told(Look::Text { colour: true }, &entry("a")).contains("\u{1b}[32mSlack"));
    }

    #[test]
    fn json_is_one_object_a_line_with_the_kind_and_the_details() {
        let line = told(Look::Json, &entry("a\nb"));
        let object: Value = serde_json::from_str(line.strip_suffix('\n').unwrap()).unwrap();
        assert_eq!(
            object,
            json!({"kind": "effect", "at_ms": 1234, "actor": "Slack", "text": "a\nb", "effect": "slack.post"})
        );
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn a_reader_that_went_away_does_not_end_the_story() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        Show::new(Gone, Look::Json).entry(&entry("a")).unwrap();
    }
}
