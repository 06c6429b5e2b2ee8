//! `okta-responder status`

use std::path::Path;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::moment::{ago, span};
use super::table::{self, Format, plural};
use super::{Exit, load_for_state, now, open_store, runtime, terminal};
use crate::app;
use crate::config::values::Interval;
use crate::model::action::ActionState;
use crate::store::{Holder, InstanceLock, RateRow, RateSnapshot, StatusSnapshot, StreamRow, TripRow};

/// Tell how things stand
///
/// Tells whether a daemon runs, how far behind Okta it is, what is open, and what waits for a person. It reads the state
/// file beside the daemon and disturbs nothing.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  okta-responder status\n  okta-responder status --format json | jq .lag_seconds\n  \
    okta-responder status --format json | jq '.actions.failed // 0'\n\n\
    Exit codes: 0 told; 1 there is no state file; 78 the configuration or the state directory is wrong."
)]
pub(super) struct Arguments {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What is told, in the order of its JSON.
#[derive(Debug, Serialize)]
struct Told {
    /// Who works on the state file; null when nobody does.
    daemon: Option<String>,
    /// What keeps the daemon from taking on work, in words; null when nothing does.
    trouble: Option<String>,
    /// Our clock when this was told.
    now: Timestamp,
    /// What keeps the log from being read, in words; null when nothing does.
    problem: Option<String>,
    /// Seconds since the last good poll of the live stream, by Okta's clock; null before the first.
    lag_seconds: Option<i64>,
    /// How many things wait for a person: the sum of what follows.
    waiting_for_a_person: u64,
    for_a_person: Vec<Task>,
    paused_since: Option<Timestamp>,
    stopped_playbooks: Vec<TripRow>,
    streams: Vec<StreamRow>,
    /// By state.
    #[serde(serialize_with = "as_object")]
    events: Vec<(String, u64)>,
    runs: u64,
    /// By state.
    #[serde(serialize_with = "as_object")]
    actions: Vec<(String, u64)>,
    quarantined: u64,
    /// The state file and its log.
    bytes: u64,
    oldest_body: Option<Timestamp>,
    last_prune: Option<Timestamp>,
    oldest_undecided: Option<Timestamp>,
    oldest_open_action: Option<Timestamp>,
    /// How many actions wait for the end of a delay.
    delayed: u64,
    /// When the first of these ends.
    first_delay_ends: Option<Timestamp>,
    in_doubt_last_day: u64,
    failed_last_day: u64,
    /// Okta's rate limits; null before a daemon has asked Okta for anything.
    rates: Option<Rates>,
}

/// Okta's rate limits as the daemon last told them.
#[derive(Debug, Serialize)]
struct Rates {
    age_seconds: i64,
    /// Whether a daemon is at work and told this within the last minute. What is only true for a minute is null otherwise.
    current: bool,
    #[serde(flatten)]
    told: RateSnapshot,
}

/// Something that a person should look at.
#[derive(Debug, Serialize)]
struct Task {
    count: u64,
    what: String,
    /// The command that shows it, or where to look.
    look: String,
}

pub(super) fn run(file: &Path, arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = load_for_state(file)?;
    let store = open_store(&config)?;
    let daemon = InstanceLock::holder(&app::state_path(&config))?;
    // As exact as every other time that is told.
    let now = Timestamp::from_millisecond(now().as_millisecond())?;
    let snapshot = runtime()?.block_on(store.status(now))?;
    let told = Told::new(daemon, now, snapshot, patience(&config.poll.interval));
    match arguments.format {
        Format::Json => table::json(&told)?,
        Format::Text => tell(&told)?,
    }
    Ok(Exit::Done)
}

/// How old the last good poll of a running daemon may be before a person should look at it.
const PATIENCE: Duration = Duration::from_secs(2 * 60);

/// The same for a daemon that is told to poll more rarely.
fn patience(interval: &Interval) -> Duration {
    match interval {
        Interval::Auto => PATIENCE,
        Interval::Every(interval) => PATIENCE.max(interval.saturating_mul(2)),
    }
}

fn as_object<S: Serializer>(counts: &[(String, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(counts.iter().map(|(state, count)| (state, count)))
}

impl Told {
    fn new(daemon: Option<Holder>, now: Timestamp, snapshot: StatusSnapshot, patience: Duration) -> Self {
        let live = snapshot.streams.iter().find(|stream| stream.kind == "live");
        let lag_seconds =
            live.and_then(|live| live.last_good_poll).map(|last| now.duration_since(last).as_secs().max(0));
        let polls = daemon.as_ref().is_some_and(|daemon| daemon.name.contains("okta-responder run"));
        let behind = lag_seconds.filter(|lag| polls && lag.unsigned_abs() > patience.as_secs());
        let (daemon, trouble) = daemon.map_or((None, None), |daemon| (Some(daemon.name), daemon.trouble));
        let standstill = snapshot.standstill.as_ref().filter(|_| polls);
        let problem = live.and_then(|live| live.problem.clone());
        let problem = problem.or_else(|| standstill.map(|standstill| standstill.words.clone()));
        let refused =
            standstill.filter(|standstill| standstill.for_a_person).map(|standstill| standstill.words.as_str());
        let for_a_person = tasks(&snapshot, behind, refused, trouble.as_deref());
        let rates = snapshot.rates.map(|rates| Rates::new(rates, daemon.is_some(), now));
        Self {
            daemon,
            trouble,
            now,
            problem,
            lag_seconds,
            waiting_for_a_person: for_a_person.iter().map(|task| task.count).sum(),
            for_a_person,
            paused_since: snapshot.paused_since,
            stopped_playbooks: snapshot.stopped_playbooks,
            streams: snapshot.streams,
            events: snapshot.events,
            runs: snapshot.runs,
            actions: snapshot.actions,
            quarantined: snapshot.quarantined,
            bytes: snapshot.bytes,
            oldest_body: snapshot.oldest_body,
            last_prune: snapshot.last_prune,
            oldest_undecided: snapshot.oldest_undecided,
            oldest_open_action: snapshot.oldest_open_action,
            delayed: snapshot.delayed.0,
            first_delay_ends: snapshot.delayed.1,
            in_doubt_last_day: snapshot.in_doubt_last_day,
            failed_last_day: snapshot.failed_last_day,
            rates,
        }
    }

    fn live(&self) -> Option<&StreamRow> {
        self.streams.iter().find(|stream| stream.kind == "live")
    }
}

/// How long what is told of the rate limits is true: Okta counts by the minute.
const CURRENT: i64 = 60;

impl Rates {
    fn new(mut told: RateSnapshot, at_work: bool, now: Timestamp) -> Self {
        let age_seconds = now.duration_since(told.at).as_secs();
        // Neither what is old nor what a clock that ran ahead wrote.
        let current = at_work && (-CURRENT..=CURRENT).contains(&age_seconds);
        if !current {
            told.grow_old();
        }
        Self { age_seconds: age_seconds.max(0), current, told }
    }
}

/// What a person should look at. `behind`: for so many seconds a running daemon has not read the log. `refused`: what keeps
/// it from that until a person does something. `trouble`: what keeps it from taking on work.
fn tasks(snapshot: &StatusSnapshot, behind: Option<i64>, refused: Option<&str>, trouble: Option<&str>) -> Vec<Task> {
    let of = |state: ActionState| {
        snapshot.actions.iter().filter(|(word, _)| word == state.as_str()).map(|(_, count)| count).sum::<u64>()
    };
    let list = "okta-responder actions list --state";
    let task = |count, what: &str, look: String| Task { count, what: what.to_owned(), look };
    let shut_out = refused.map(|words| Task {
        count: 1,
        what: "daemon that cannot read the log".to_owned(),
        look: words.to_owned(),
    });
    let late = behind.filter(|_| refused.is_none()).map(|seconds| Task {
        count: 1,
        what: format!("daemon that has not read the log for {}", span(Duration::from_secs(seconds.unsigned_abs()))),
        look: "journalctl -u okta-responder, the disk of the state file, okta-responder check --online".to_owned(),
    });
    let troubled = trouble.map(|trouble| Task {
        count: 1,
        what: "daemon that takes on no work".to_owned(),
        look: trouble.to_owned(),
    });
    let stopped = snapshot.stopped_playbooks.iter().map(|trip| Task {
        count: 1,
        what: format!("stopped playbook `{}`", trip.playbook),
        look: format!("okta-responder resume --playbook \"{}\"", trip.playbook),
    });
    let mut tasks: Vec<Task> = troubled.into_iter().chain(shut_out).chain(late).chain(stopped).collect();
    tasks.extend([
        task(of(ActionState::NeedsAttention), "needs attention", format!("{list} needs_attention")),
        task(of(ActionState::AwaitingApproval), "awaits approval", format!("{list} awaiting_approval")),
        task(snapshot.unreadable, "cannot be told to be unprotected", format!("{list} ready,retry")),
        task(snapshot.in_doubt_last_day, "may not have been sent (last 24 h)", format!("{list} settled --since 24h")),
        task(snapshot.failed_last_day, "failed (last 24 h)", format!("{list} failed --since 24h")),
        task(snapshot.quarantined, "could not be read as an event", "okta-responder events quarantine".to_owned()),
    ]);
    tasks.retain(|task| task.count > 0);
    tasks
}

fn tell(told: &Told) -> std::io::Result<()> {
    let now = told.now;
    for trip in &told.stopped_playbooks {
        terminal::line(stopped(trip, now))?;
    }
    let lag = told.lag_seconds.map(|lag| span(Duration::from_secs(lag.unsigned_abs())));
    table::fields(&[
        ("daemon", told.daemon.clone().unwrap_or_else(|| "not running".to_owned())),
        ("takes no work", told.trouble.clone().unwrap_or_default()),
        (
            "last good poll",
            match (told.live(), lag) {
                (None, _) => "the live stream has not begun".to_owned(),
                (Some(_), None) => "none yet".to_owned(),
                (Some(_), Some(lag)) => format!("{lag} ago, by Okta's clock"),
            },
        ),
        ("problem", told.problem.clone().unwrap_or_default()),
        ("paused", told.paused_since.map(|since| paused(since, now)).unwrap_or_default()),
        ("events", table::counts(&told.events)),
        ("runs", told.runs.to_string()),
        ("actions", table::counts(&told.actions)),
        ("oldest undecided", told.oldest_undecided.map(|since| ago(since, now)).unwrap_or_default()),
        ("oldest open action", told.oldest_open_action.map(|since| ago(since, now)).unwrap_or_default()),
        (
            "delayed",
            told.first_delay_ends
                .map(|first| format!("{}, the first {}", plural(told.delayed, "action"), ago(first, now)))
                .unwrap_or_default(),
        ),
        ("quarantined", Some(told.quarantined).filter(|n| *n > 0).map(|n| n.to_string()).unwrap_or_default()),
        ("state file", state_file(told)),
    ])?;
    for stream in told.streams.iter().filter(|stream| stream.kind == "backfill" && stream.state == "active") {
        terminal::line(format!("backfill {}  {}", stream.id, super::backfill::in_words(stream)))?;
    }
    if told.for_a_person.is_empty() {
        terminal::line("\nNothing waits for a person.")?;
    } else {
        terminal::line("\nFor a person:")?;
        told.for_a_person
            .iter()
            .try_for_each(|Task { count, what, look }| terminal::line(format!("  {count} {what}: {look}")))?;
    }
    told.rates.as_ref().map_or(Ok(()), |rates| tell_rates(rates, now))
}

/// Okta's rate limits, a bucket a line.
fn tell_rates(rates: &Rates, now: Timestamp) -> std::io::Result<()> {
    let RateSnapshot { at, at_once, buckets } = &rates.told;
    let known = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
    terminal::line(format!("\nOkta's rate limits per minute, {} ({at_once} requests at once):", ago(*at, now)))?;
    let cells = |row: &RateRow| {
        [
            row.bucket.clone(),
            known(row.limit.map(u64::from)),
            known(row.share.map(u64::from)),
            known(row.used),
            known(row.remaining.map(u64::from)),
            row.resets_at.map_or("-".to_owned(), |reset| ago(reset, now)),
            known(row.waiting),
            refusals(row.refused, row.refused_at, now),
            refusals(row.crowded, row.crowded_at, now),
        ]
    };
    let headings = ["BUCKET", "LIMIT", "OURS", "USED", "LEFT", "RESETS", "WAITING", "REFUSED", "TOO MANY AT ONCE"];
    table::whole(buckets, headings, cells, "")
}

fn refusals(count: u64, last: Option<Timestamp>, now: Timestamp) -> String {
    last.map_or(count.to_string(), |last| format!("{count}, last {}", ago(last, now)))
}

fn state_file(told: &Told) -> String {
    let mut words = table::bytes(told.bytes);
    if let Some(oldest) = told.oldest_body {
        words.push_str(&format!(", oldest record {}", ago(oldest, told.now)));
    }
    if let Some(last) = told.last_prune {
        words.push_str(&format!(", pruned {}", ago(last, told.now)));
    }
    words
}

/// A stopped playbook, in a line.
fn stopped(trip: &TripRow, now: Timestamp) -> String {
    let TripRow { playbook, why, since, held, .. } = trip;
    format!(
        "STOPPED: playbook `{playbook}`, {}, {held} awaiting approval: {why}; `okta-responder resume --playbook \"{playbook}\"` \
         goes on\n",
        ago(*since, now)
    )
}

fn paused(since: Timestamp, now: Timestamp) -> String {
    format!("since {since} ({}); `okta-responder resume` goes on", ago(since, now))
}
