//! `okta-responder backfill`

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::moment::{Moment, span};
use super::run::watch_signals;
use super::table::{self, Format, plural};
use super::{Exit, load_config, now, open_store, runtime, tell_problems, terminal};
use crate::app::{self, App, AppError, Signal, Work};
use crate::config::load::{self, Loaded};
use crate::config::problem::Problem;
use crate::config::secret::SecretEnv;
use crate::engine::wanted_types;
use crate::model::event::SOURCE_OKTA;
use crate::model::ids::StreamId;
use crate::okta::logs::{clamp_since, filter_for};
use crate::store::{BackfillResults, LockError, NewStream, Store, Stream, StreamKind, StreamRow, StreamState};
use crate::telemetry::log;

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How often a line of progress is written where there is no terminal.
const TELL: Duration = Duration::from_secs(5);

/// Read a stretch of the past
///
/// Reads a stretch of the past from Okta's log. Events that are known already are recognized and left alone. Without
/// --execute nothing is touched: the runs are recorded as observed, so that you see what would have been done. With
/// --execute only the newest state of each user is acted on; older risk events end as superseded.
///
/// A running daemon does the reading and this command only watches; without one this command does it itself. Either way
/// the backfill is remembered in the state file: one that was interrupted goes on where it was.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    okta-responder backfill --since 36h                          what would have been done\n  \
    okta-responder backfill --since 2026-08-01T00:00:00Z --until 2026-08-02T00:00:00Z\n  \
    okta-responder backfill --since 36h --execute                act on the newest state of each user\n  \
    okta-responder backfill --resume                             go on with one that was interrupted\n\n\
    Times are RFC 3339 (2026-08-24T10:00:00Z) or a duration before now (36h). Okta keeps 90 days.\n\n\
    Exit codes: 0 read to its end, or left to the daemon; 1 failed or interrupted; 64 usage; 75 another backfill runs; 78 the \
    configuration is wrong.")]
#[command(group(clap::ArgGroup::new("what").required(true).args(["since", "resume", "list", "cancel"])))]
pub(super) struct Arguments {
    /// Where to begin
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Where to end [default: now]
    #[arg(long, value_name = "TIME", conflicts_with_all = ["resume", "list", "cancel"])]
    until: Option<Moment>,
    /// Act on what is found, not only record it
    #[arg(long, conflicts_with_all = ["resume", "list", "cancel"])]
    execute: bool,
    /// Leave the reading to the daemon (the one that runs, or the next one) and do not watch
    #[arg(long)]
    detach: bool,
    /// Go on with an unfinished backfill: this one, or the only one
    #[arg(long, value_name = "ID", num_args = 0..=1, default_missing_value = "0", hide_default_value = true)]
    resume: Option<i64>,
    /// List backfills
    #[arg(long, conflicts_with = "detach")]
    list: bool,
    /// End an unfinished backfill; what it has stored stays
    #[arg(long, value_name = "ID", conflicts_with = "detach")]
    cancel: Option<i64>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(file: &Path, arguments: &Arguments) -> anyhow::Result<Exit> {
    let loaded = load_config(file)?;
    if arguments.list {
        return list(&loaded, arguments.format);
    }
    if let Some(id) = arguments.cancel {
        return cancel(&loaded, StreamId(id));
    }
    if arguments.detach {
        return detach(&loaded, arguments);
    }
    log::start(&quiet(&loaded))?;
    let (query, state) = (query(&loaded), app::state_path(&loaded.config));
    let missing = load::load_with_secrets(file, &SecretEnv::of_process()).err().unwrap_or_default();
    // The daemon's lock decides who reads.
    match App::open(loaded, SecretEnv::of_process(), "backfill") {
        Ok(app) => read(app, query, &missing, arguments),
        Err(AppError::Locked(LockError::Held { holder, .. })) if holder.contains("okta-responder run") => {
            let store = Store::open_existing(&state).with_context(|| format!("state file {}", state.display()))?;
            runtime()?.block_on(watch_daemon(&store, query, arguments))
        }
        Err(error) => Err(error.into()),
    }
}

/// The server-side filter of a backfill, as the daemon's own; `None` when no playbook wants anything.
fn query(loaded: &Loaded) -> Option<String> {
    let wanted = wanted_types(&loaded.playbooks, &loaded.config.risk);
    let filter = filter_for(&wanted, loaded.config.poll.max_filter_types).unwrap_or_default();
    (!wanted.is_empty()).then_some(filter)
}

/// A backfill's stretch, mode and progress in words.
pub(super) fn in_words(stream: &StreamRow) -> String {
    let until = stream.until.map(|until| until.to_string()).unwrap_or_default();
    let mode = if stream.execute { "acts" } else { "observes" };
    let mut words = format!("{} to {until}, {mode}, {}, {} events", stream.since, stream.state, stream.stored);
    if let Some(problem) = stream.problem.as_ref().filter(|_| stream.state == "active") {
        words.push_str(": ");
        words.push_str(problem);
    }
    words
}

fn list(loaded: &Loaded, format: Format) -> anyhow::Result<Exit> {
    let store = open_store(&loaded.config)?;
    let mut streams = runtime()?.block_on(store.list_streams())?;
    streams.retain(|stream| stream.kind == "backfill");
    table::list(
        format.into(),
        &streams,
        ["ID", "STATE", "MODE", "SINCE", "UNTIL", "EVENTS", "KNOWN", "PROBLEM"],
        |stream| {
            [
                stream.id.to_string(),
                stream.state.clone(),
                if stream.execute { "acts" } else { "observes" }.to_owned(),
                stream.since.to_string(),
                stream.until.map(|until| until.to_string()).unwrap_or_default(),
                stream.stored.to_string(),
                stream.duplicates.to_string(),
                stream.problem.clone().filter(|_| stream.state == "active").unwrap_or_default(),
            ]
        },
        "There was no backfill yet.",
    )?;
    Ok(Exit::Done)
}

fn cancel(loaded: &Loaded, id: StreamId) -> anyhow::Result<Exit> {
    let store = open_store(&loaded.config)?;
    if runtime()?.block_on(store.cancel_backfill(id, now()))? {
        terminal::line(format!("Backfill {} is cancelled; what it has stored stays.", id.0))?;
        return Ok(Exit::Done);
    }
    Err(anyhow!("there is no unfinished backfill {}; `okta-responder backfill --list` shows them", id.0))
}

fn detach(loaded: &Loaded, arguments: &Arguments) -> anyhow::Result<Exit> {
    let store = open_store(&loaded.config)?;
    let stream = runtime()?.block_on(begin(&store, query(loaded), arguments))?;
    terminal::line(format!(
        "Backfill {} is the daemon's: the one that runs, or the next one. `okta-responder backfill --list` shows how far it is.",
        stream.id.0
    ))?;
    Ok(Exit::Done)
}

/// Reads here: no daemon has the state file.
fn read(app: App, query: Option<String>, missing: &[Problem], arguments: &Arguments) -> anyhow::Result<Exit> {
    if !missing.is_empty() {
        tell_problems(missing);
        return Err(Exit::Configuration.because("the configuration cannot be used here; nothing was read"));
    }
    let signals = watch_signals()?;
    let store = app.store().clone();
    let runtime = runtime()?;
    let stream = runtime.block_on(begin(&store, query, arguments))?;
    let mut progress = Progress::new(&stream);
    let ended = runtime.block_on(async {
        let mut work = std::pin::pin!(app.run(Work::Backfill(stream.id), signals, || None));
        tokio::select! {
            ended = &mut work => ended,
            never = follow(&store, &mut progress) => match never {},
        }
    });
    progress.clear();
    ended?;
    runtime.block_on(async {
        let stream = store.stream(stream.id).await?.context("the backfill is gone from the state file")?;
        let open = store.unfinished_of(stream.id).await?;
        if stream.state == StreamState::Active {
            terminal::note(format!(
                "Interrupted; `okta-responder backfill --resume {}` goes on, and so does the next `okta-responder run`.",
                stream.id.0
            ));
            return Ok(Exit::Failed);
        }
        let told = tell_end(&store, &stream, arguments.format).await?;
        if open > 0 {
            terminal::note(format!("Interrupted with {open} to be decided or done; the next `okta-responder run` goes on."));
            return Ok(Exit::Failed);
        }
        Ok(told)
    })
}

/// Watches the daemon read. Ctrl-C ends the watching only.
async fn watch_daemon(store: &Store, query: Option<String>, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stream = begin(store, query, arguments).await?;
    let mut signals = watch_signals()?;
    terminal::note("The running daemon does the reading; this command watches.");
    let mut progress = Progress::new(&stream);
    let through = tokio::select! {
        result = until_through(store, stream.id, &mut progress) => result.map(|()| true),
        () = stopped(&mut signals) => Ok(false),
    };
    progress.clear();
    if !through? {
        terminal::note(format!(
            "Backfill {0} goes on in the daemon; `okta-responder backfill --resume {0}` watches it again.",
            stream.id.0
        ));
        return Ok(Exit::Done);
    }
    let stream = store.stream(stream.id).await?.context("the backfill is gone from the state file")?;
    tell_end(store, &stream, arguments.format).await
}

async fn stopped(signals: &mut mpsc::Receiver<Signal>) {
    while let Some(signal) = signals.recv().await {
        if signal == Signal::Stop {
            return;
        }
    }
}

async fn until_through(store: &Store, id: StreamId, progress: &mut Progress) -> anyhow::Result<()> {
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        let stream = store.stream(id).await?.context("the backfill is gone from the state file")?;
        let open = store.unfinished_of(id).await?;
        if stream.state != StreamState::Active && open == 0 {
            return Ok(());
        }
        progress.show(&stream, open);
    }
}

/// Shows progress until the caller has had enough.
async fn follow(store: &Store, progress: &mut Progress) -> std::convert::Infallible {
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        // Whatever is the matter with the state file, the work itself meets it and tells it.
        if let (Ok(Some(stream)), Ok(open)) = (store.stream(progress.id).await, store.unfinished_of(progress.id).await)
        {
            progress.show(&stream, open);
        }
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// The stream to read: an unfinished one that is asked for, or asked for once more, else a new one.
async fn begin(store: &Store, query: Option<String>, arguments: &Arguments) -> anyhow::Result<Stream> {
    let active = store.active_backfills().await?;
    if let Some(wanted) = arguments.resume {
        return resumed(active, wanted);
    }
    let asked = Asked::of(arguments, now())?;
    if let Some(same) = active.iter().find(|stream| asked.is_same(stream)) {
        terminal::note(format!("Backfill {} is the same and unfinished: it goes on where it was.", same.id.0));
        return Ok(same.clone());
    }
    for other in &active {
        terminal::note(format!("Backfill {0} is unfinished too; `backfill --cancel {0}` ends it.", other.id.0));
    }
    let Some(query) = query else {
        return Err(Exit::Configuration
            .because("no playbook names an event type, so a backfill would store nothing; add one and try again"));
    };
    let new = NewStream {
        source: SOURCE_OKTA.to_owned(),
        kind: StreamKind::Backfill,
        query,
        since: asked.since,
        until: Some(asked.until),
        execute: asked.execute,
    };
    let id = store.create_stream(new, now()).await?;
    store.stream(id).await?.context("the backfill is gone from the state file")
}

fn resumed(active: Vec<Stream>, wanted: i64) -> anyhow::Result<Stream> {
    let mut fitting: Vec<Stream> =
        active.into_iter().filter(|stream| wanted == 0 || stream.id == StreamId(wanted)).collect();
    match (fitting.pop(), fitting.is_empty()) {
        (Some(stream), true) => Ok(stream),
        (Some(_), false) => Err(Exit::Usage.because(
            "several backfills are unfinished; `okta-responder backfill --list` shows them, --resume ID names one",
        )),
        (None, _) => {
            Err(anyhow!("there is no such unfinished backfill; `okta-responder backfill --list` shows them all"))
        }
    }
}

/// What the command line asks for, in moments.
struct Asked {
    since: Timestamp,
    until: Timestamp,
    execute: bool,
    /// Whether both ends were given as moments, or the end was left open.
    since_is_moment: bool,
    until_is_open: bool,
}

impl Asked {
    fn of(arguments: &Arguments, now: Timestamp) -> anyhow::Result<Self> {
        let since = arguments.since.context("--since is missing")?;
        let wanted = since.at(now);
        if wanted > now {
            return Err(Exit::Usage.because(format!("--since {wanted} lies in the future")));
        }
        let (begin, clamped) = clamp_since(wanted, now);
        if clamped {
            terminal::note(format!("Okta keeps 90 days of its log: the backfill begins at {begin}, not at {wanted}."));
        }
        let until = arguments.until.map_or(now, |until| until.at(now)).min(now);
        if until <= begin {
            return Err(Exit::Usage.because(format!("--until {until} is not after --since {begin}")));
        }
        Ok(Self {
            since: begin,
            until,
            execute: arguments.execute,
            since_is_moment: matches!(since, Moment::At(_)) && !clamped,
            until_is_open: arguments.until.is_none(),
        })
    }

    /// Whether an unfinished backfill is what is asked for. A duration before now names another moment each time, so
    /// such a one is only resumed by `--resume`.
    fn is_same(&self, stream: &Stream) -> bool {
        self.since_is_moment
            && stream.since.as_millisecond() == self.since.as_millisecond()
            && (self.until_is_open
                || stream.until.is_some_and(|until| until.as_millisecond() == self.until.as_millisecond()))
            && stream.execute == self.execute
    }
}

/// What was done, at the end.
#[derive(Debug, Serialize)]
struct End {
    #[serde(flatten)]
    stream: StreamRow,
    results: BackfillResults,
}

async fn tell_end(store: &Store, stream: &Stream, format: Format) -> anyhow::Result<Exit> {
    let results = store.backfill_results(stream.id).await?;
    let row = store.list_streams().await?.into_iter().find(|row| row.id == stream.id.0);
    let row = row.context("the backfill is gone from the state file")?;
    let cancelled = stream.state == StreamState::Cancelled;
    if format == Format::Json {
        table::json(&End { stream: row, results })?;
    } else {
        let mode = if row.execute { "acted on" } else { "observed only; --execute acts" };
        table::fields(&[
            ("backfill", format!("{} ({})", row.id, row.state)),
            ("stretch", format!("{} to {}", row.since, row.until.map(|until| until.to_string()).unwrap_or_default())),
            ("events", format!("{} new, {} known already", row.stored, row.duplicates)),
            ("quarantined", Some(row.quarantined).filter(|n| *n > 0).map(|n| n.to_string()).unwrap_or_default()),
            ("by state", table::counts(&results.events)),
            ("runs", format!("{} ({mode})", results.runs.iter().map(|(_, count)| count).sum::<u64>())),
            ("actions", table::counts(&results.actions)),
        ])?;
    }
    if cancelled {
        return Err(anyhow!("backfill {} was cancelled", stream.id.0));
    }
    Ok(Exit::Done)
}

/// How far a backfill is: a bar on a terminal, else a line now and then, on standard error.
struct Progress {
    id: StreamId,
    since: Timestamp,
    until: Timestamp,
    bar: Option<ProgressBar>,
    began: Instant,
    stored_before: u64,
    /// Where it was when we began to look.
    newest_before: Option<Timestamp>,
    told: Instant,
}

impl Progress {
    fn new(stream: &Stream) -> Self {
        let until = stream.until.unwrap_or(stream.since);
        let length = u64::try_from(until.duration_since(stream.since).as_secs()).unwrap_or_default();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(length.max(1)), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self {
            id: stream.id,
            since: stream.since,
            until,
            bar,
            began: Instant::now(),
            stored_before: stream.stored,
            newest_before: stream.newest,
            told: Instant::now(),
        }
    }

    fn show(&mut self, stream: &Stream, open: u64) {
        let words = self.words(stream, open);
        if let Some(bar) = &self.bar {
            let done = stream.newest.map_or(0, |newest| newest.duration_since(self.since).as_secs());
            bar.set_position(u64::try_from(done).unwrap_or_default());
            bar.set_message(words);
        } else if self.told.elapsed() >= TELL {
            self.told = Instant::now();
            terminal::note(words);
        }
    }

    fn words(&self, stream: &Stream, open: u64) -> String {
        let elapsed = self.began.elapsed();
        if stream.state != StreamState::Active {
            return format!("{} stored; {} to be decided or done", plural(stream.stored, "event"), open);
        }
        let rate = stream.stored.saturating_sub(self.stored_before) as f64 / elapsed.as_secs_f64().max(0.001);
        let left = self.left(stream, elapsed).map(|left| format!(", {} left", span(left))).unwrap_or_default();
        format!("{} stored, {rate:.0}/s{left}", plural(stream.stored, "event"))
    }

    /// The time left, if the rest of the stretch is as dense as what was read since we began to look.
    fn left(&self, stream: &Stream, elapsed: Duration) -> Option<Duration> {
        let newest = stream.newest?;
        let read = newest.duration_since(self.newest_before.unwrap_or(self.since)).as_secs_f64();
        let rest = self.until.duration_since(newest).as_secs_f64();
        let seconds = elapsed.as_secs_f64() * rest / read;
        (read > 0.0 && rest >= 0.0).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Beside a bar only what goes wrong is logged.
fn quiet(loaded: &Loaded) -> crate::config::LogConfig {
    crate::config::LogConfig { level: "warn".to_owned(), ..loaded.config.log.clone() }
}
