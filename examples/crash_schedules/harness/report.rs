//! What is counted, and the table of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use okta_responder::halt::Point;

/// The counts of one schedule, or of many.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Schedules.
    pub runs: usize,
    /// Daemons started.
    pub starts: usize,
    /// SIGKILLs at a point, by its name.
    pub killed_at: BTreeMap<&'static str, usize>,
    /// SIGKILLs at any other moment.
    pub killed_at_random: usize,
    /// SIGTERMs.
    pub stops: usize,
    /// SIGHUPs.
    pub reloads: usize,
    /// `pause`s.
    pub pauses: usize,
    /// How often every cursor was forgotten.
    pub cursors_refused: usize,
    /// Faults of the world that were laid out.
    pub faults: usize,
    /// Distinct events that the daemon asks for.
    pub events: usize,
    /// Effects called for.
    pub called_for: usize,
    /// Those of them that are there.
    pub seen: usize,
    /// Sessions ended once more, since nobody can read back whether they were.
    pub sessions_again: usize,
    /// Messages sent once more because their step says so.
    pub resent: usize,
    /// Requests of which nobody knows whether they arrived, and that are shown as such.
    pub unknown_shown: usize,
    /// How long all of it took.
    pub took: Duration,
    /// Every violation by its kind.
    pub violations: BTreeMap<Kind, usize>,
}

/// Kinds of violations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An effect happened more than once.
    Duplicate,
    /// An effect, or an event, is missing.
    Lost,
    /// Something happened that nothing calls for.
    Invented,
    /// A doubt that nothing shows, or a record that says something else than what happened.
    Hidden,
    /// Changes in one lane came in another order than their events.
    Disorder,
    /// The daemon ended by itself, hung, or a command failed.
    Broken,
}

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which kind.
    pub kind: Kind,
    /// What it is.
    pub words: String,
}

impl Violation {
    /// A violation in words.
    pub fn new(kind: Kind, words: impl Into<String>) -> Self {
        Self { kind, words: words.into() }
    }
}

impl Counts {
    /// A daemon was killed, at a point or at any other moment.
    pub fn killed(&mut self, at: Option<Point>) {
        match at {
            Some(point) => *self.killed_at.entry(point.name()).or_default() += 1,
            None => self.killed_at_random += 1,
        }
    }

    /// Adds those of another schedule.
    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.killed_at {
            *self.killed_at.entry(name).or_default() += count;
        }
        for (kind, count) in &other.violations {
            *self.violations.entry(*kind).or_default() += count;
        }
        let Self { killed_at: _, violations: _, runs, starts, killed_at_random, stops, reloads, .. } = other;
        let Self { pauses, cursors_refused, faults, events, called_for, seen, .. } = other;
        let Self { sessions_again, resent, unknown_shown, .. } = other;
        for (sum, more) in [
            (&mut self.runs, runs),
            (&mut self.starts, starts),
            (&mut self.killed_at_random, killed_at_random),
            (&mut self.stops, stops),
            (&mut self.reloads, reloads),
            (&mut self.pauses, pauses),
            (&mut self.cursors_refused, cursors_refused),
            (&mut self.faults, faults),
            (&mut self.events, events),
            (&mut self.called_for, called_for),
            (&mut self.seen, seen),
            (&mut self.sessions_again, sessions_again),
            (&mut self.resent, resent),
            (&mut self.unknown_shown, unknown_shown),
        ] {
            *sum += more;
        }
    }

    /// Every SIGKILL.
    pub fn kills(&self) -> usize {
        self.killed_at.values().sum::<usize>() + self.killed_at_random
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, count: usize| writeln!(f, "{name:<44} {count:>8}");
        row("runs", self.runs)?;
        row("kills (SIGKILL)", self.kills())?;
        for (name, count) in &self.killed_at {
            row(&format!("  at {name}"), *count)?;
        }
        row("  at a random moment", self.killed_at_random)?;
        row("restarts", self.starts.saturating_sub(self.runs))?;
        row("  stops (SIGTERM)", self.stops)?;
        row("reloads (SIGHUP)", self.reloads)?;
        row("pauses", self.pauses)?;
        row("cursors refused", self.cursors_refused)?;
        row("faults of the services laid out", self.faults)?;
        row("events", self.events)?;
        row("effects called for", self.called_for)?;
        row("effects seen", self.seen)?;
        row("  sessions ended again, as is harmless", self.sessions_again)?;
        row("  messages resent, as their step says", self.resent)?;
        row("unknown (shown)", self.unknown_shown)?;
        for (kind, name) in [
            (Kind::Hidden, "unknown (hidden)"),
            (Kind::Duplicate, "duplicates"),
            (Kind::Lost, "lost"),
            (Kind::Invented, "invented"),
            (Kind::Disorder, "out of order"),
            (Kind::Broken, "broken"),
        ] {
            row(name, self.violations.get(&kind).copied().unwrap_or_default())?;
        }
        row("seconds", self.took.as_secs() as usize)
    }
}
