//! What the benches share: a scene with the simulated org, bare SQLite to compare with, what `/proc` says, and tables.
#![allow(dead_code, reason = "each bench uses its own part of this")]

#[path = "../../tests/support/mod.rs"]
pub mod daemon;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use okta_responder::demo::org::{OrgOptions, RateLimits};
use okta_responder::okta::logs::filter_for;
use okta_responder::store::{NewStream, Store, StreamKind};
use rusqlite::{Connection, OpenFlags};

use daemon::{Daemon, Scene};

/// The types of ordinary synthetic events, in a playbook that looks at each of them and wants none.
const WATCH: &str = r##"
[[playbook]]
name = "watch"
on = ["user.session.start", "user.authentication.sso", "policy.evaluate_sign_on",
      "application.user_membership.add", "group.user_membership.add"]
when = 'event.outcome.result == "NEVER"'

  [[playbook.step]]
  name = "tell"
  action = "slack.message.post"
  with = { channel = "#security", text = "{{ event.eventType }}" }
"##;

/// The same types as Okta is asked for.
const TYPES: [&str; 5] = [
    "user.session.start",
    "user.authentication.sso",
    "policy.evaluate_sign_on",
    "application.user_membership.add",
    "group.user_membership.add",
];

/// The most time a bench waits for anything.
const BOUND: Duration = Duration::from_secs(1200);

/// A number of the environment, so that a bench can be made shorter or longer.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A runtime such as the daemon's own, for the org.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// An org whose log begins with `events` synthetic events, with a daemon's configuration that watches them. The org never
/// refuses a request, so that only the daemon's own pace is measured.
pub async fn scene_with_log(events: u64) -> Scene {
    let options = OrgOptions {
        synthetic_events: events,
        synthetic_risk_every: 0,
        rate_limits: RateLimits::unlimited(),
        ..OrgOptions::default()
    };
    Scene::with(options, "[log]\nlevel = \"warn\"", WATCH).await
}

/// Asks for a backfill of the whole synthetic log, as the command would.
pub async fn ask_for_backfill(scene: &Scene) {
    let store = Store::open(&scene.state()).unwrap();
    let now = scene.org.now();
    let types = TYPES.into_iter().map(str::to_owned).collect();
    let stream = NewStream {
        source: "okta".to_owned(),
        kind: StreamKind::Backfill,
        query: filter_for(&types, TYPES.len()).unwrap(),
        since: now.checked_sub(SignedDuration::from_hours(48)).unwrap(),
        until: Some(now),
        execute: false,
    };
    store.create_stream(stream, now).await.unwrap();
}

/// How far a backfill is, read beside the daemon.
pub struct Progress<'d> {
    daemon: &'d Daemon,
    connection: Connection,
}

impl<'d> Progress<'d> {
    /// Looks into the state file that a daemon writes.
    pub fn of(daemon: &'d Daemon, state: &Path) -> Self {
        let connection = Connection::open_with_flags(state, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        Self { daemon, connection }
    }

    /// Events stored by the backfill.
    pub fn stored(&self) -> u64 {
        self.number("SELECT coalesce(sum(stored), 0) FROM stream WHERE kind = 'backfill'")
    }

    /// Stored events without a decision.
    pub fn undecided(&self) -> u64 {
        self.number("SELECT count(*) FROM event WHERE state = 'new'")
    }

    /// Waits until `wanted` events are stored.
    pub fn until_stored(&self, wanted: u64) {
        self.wait_for(|| self.stored() >= wanted);
    }

    /// Waits until none is without a decision.
    pub fn until_decided(&self) {
        self.wait_for(|| self.undecided() == 0);
    }

    fn wait_for(&self, condition: impl Fn() -> bool) {
        let until = Instant::now() + BOUND;
        while !condition() {
            let runs = process_state(self.daemon.pid()) != 'Z' && Instant::now() < until;
            assert!(runs, "the daemon has ended or takes longer than {BOUND:?}:\n{}", self.daemon.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn number(&self, query: &str) -> u64 {
        self.connection.query_row(query, [], |row| row.get(0)).unwrap()
    }
}

/// A fresh SQLite file with the daemon's durability and nothing else of it.
pub fn bare_sqlite(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;").unwrap();
    connection
}

/// The processor time a process has used, of all its threads, in seconds.
pub fn cpu_seconds(pid: u32) -> f64 {
    // Fields 14 and 15 of the line, in ticks; Linux shows 100 a second to every program (proc_pid_stat(5)).
    let ticks: f64 = stat_from_third(pid)[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
    ticks / 100.0
}

/// `R`, `S`, …, or `Z` for a process that has ended.
fn process_state(pid: u32) -> char {
    stat_from_third(pid)[0].chars().next().unwrap()
}

/// The fields behind the program's name, which may hold anything.
fn stat_from_third(pid: u32) -> Vec<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().map(str::to_owned).collect()
}

/// `VmRSS` (now) or `VmHWM` (the most so far) of a process, in MiB.
pub fn resident_mib(pid: u32, field: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// The value below which a share of the samples lies.
pub fn quantile(samples: &[Duration], share: f64) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

/// Milliseconds, for tables and JSON.
pub fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Prints rows of words and a figure, the figures below each other.
pub fn table(title: &str, rows: &[(&str, String)]) {
    let width = rows.iter().map(|(words, _)| words.chars().count()).max().unwrap_or_default();
    println!("\n{title}");
    for (words, figure) in rows {
        println!("  {words:width$}  {figure:>12}");
    }
}

/// A directory on the file system of the scene, for what is compared with it.
pub fn beside(scene: &Scene, name: &str) -> PathBuf {
    scene.dir.path().join(name)
}
