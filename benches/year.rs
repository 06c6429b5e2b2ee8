//! How large the state file is after a year: so many events a day, of which some start a run whose actions are sent, with
//! everything pruned once a day. `DAYS` and `EVENTS_A_DAY` set the length and the load, `RUNS_PERCENT` how many start a run.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench reads the real clock, prints its figures, and may fail"
)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use okta_responder::config::GuardConfig;
use okta_responder::guard::{Guard, Judge};
use okta_responder::model::action::{Happening, InDoubt};
use okta_responder::model::ids::{IdempotencyKey, StreamId};
use okta_responder::store::{
    AttemptEnd, Decision, EventVerdict, Keep, NewAction, NewEvent, NewStream, PageCommit, PlannedRun, Prepared, Pruned,
    Store, StoreError, StreamKind,
};

fn main() {
    let (days, load) = (support::setting("DAYS", 400), support::setting("EVENTS_A_DAY", 1_000));
    let percent = support::setting("RUNS_PERCENT", 5);
    support::runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state.db");
        let store = Store::open(&file).unwrap();
        let mut year = Year { live: begin(&store).await, store, load, percent };
        println!("\n{days} days of {load} events of 2 KB, {percent} % with a run of two actions, pruned daily");
        println!("   day    file MiB   pruning, s   longest write meanwhile, ms");
        let mut largest = 0;
        for today in 0..days {
            year.day(today).await;
            let (took, longest) = year.prune(today).await;
            largest = largest.max(year.store.size_on_disk());
            if today % (days / 20).max(1) == 0 || today + 1 == days {
                let mib = year.store.size_on_disk() as f64 / 1024.0 / 1024.0;
                println!("{today:6}  {mib:10.1}  {:11.2}  {:10.1}", took.as_secs_f64(), support::ms(longest));
            }
        }
        let line = serde_json::json!({
            "bench": "year", "days": days, "events_a_day": load, "runs_percent": percent,
            "bytes_at_end": year.store.size_on_disk(), "bytes_at_most": largest,
        });
        println!("{line}");
    });
}

fn at(day: u64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + i64::try_from(day).unwrap() * 24 * 3600).unwrap()
}

async fn begin(store: &Store) -> StreamId {
    let new = NewStream {
        source: "okta".to_owned(),
        kind: StreamKind::Live,
        query: String::new(),
        since: at(0),
        until: None,
        execute: false,
    };
    store.create_stream(new, at(0)).await.unwrap()
}

struct Year {
    store: Store,
    live: StreamId,
    load: u64,
    percent: u64,
}

impl Year {
    async fn day(&mut self, today: u64) {
        for page in 0..self.load.div_ceil(1000) {
            let events = (page * 1000..self.load.min((page + 1) * 1000)).map(|n| event(today, n));
            let asked = self.store.stream(self.live).await.unwrap().unwrap().next_url;
            self.store.commit_page(page_of(self.live, asked, events.collect(), today), at(today)).await.unwrap();
        }
        loop {
            let pending = self.store.undecided(at(today), 500, &[], Vec::new()).await.unwrap();
            if pending.is_empty() {
                break;
            }
            let decisions = pending.into_iter().map(|event| {
                let starts = event.id.0.unsigned_abs() % 100 < self.percent;
                let runs = starts.then(|| run(event.id.0)).into_iter().collect();
                Decision { event: event.id, verdict: EventVerdict::Decided, runs }
            });
            self.store.commit_decisions(decisions.collect(), at(today)).await.unwrap();
        }
        let guard = Arc::new(Guard::new(&GuardConfig::default(), []));
        loop {
            let judge = Judge::new(Arc::clone(&guard), Arc::default(), at(today), at(today));
            let claims = self.store.claim_ready(at(today), 200, judge).await.unwrap();
            if claims.taken.is_empty() {
                break;
            }
            // Outcomes that come together share a commit, as they do when many requests are under way.
            let outcomes = claims.taken.into_iter().map(|taken| {
                let end = AttemptEnd {
                    action: taken.action.id,
                    attempt: None,
                    outcome: Some("done"),
                    reason: None,
                    detail: None,
                    happening: Some(Happening::Succeeded),
                    receipt: None,
                    due: None,
                };
                self.store.record_outcome(end, at(today))
            });
            futures_util::future::try_join_all(outcomes).await.unwrap();
        }
    }

    /// Prunes, while somebody writes again and again as the poller would. Returns how long it took, and the longest write.
    async fn prune(&self, today: u64) -> (Duration, Duration) {
        let began = Instant::now();
        let mut pruning = std::pin::pin!(self.store.prune(Keep::default(), at(today)));
        let mut longest = Duration::ZERO;
        loop {
            let write = async {
                let began = Instant::now();
                self.store.set_stream_problem(self.live, None, at(today)).await.unwrap();
                let took = began.elapsed();
                tokio::time::sleep(Duration::from_millis(20)).await;
                took
            };
            tokio::select! {
                pruned = &mut pruning => {
                    let _: Pruned = Result::<_, StoreError>::unwrap(pruned);
                    return (began.elapsed(), longest);
                }
                took = write => longest = longest.max(took),
            }
        }
    }
}

fn event(day: u64, number: u64) -> NewEvent {
    // As long as the ids of Okta.
    let uuid = format!("{day:08x}-{number:04x}-11f1-9a51-6d1f6a7f0c11");
    NewEvent {
        event_type: "user.authentication.sso".to_owned(),
        published: at(day),
        subject: Some(format!("00u1sim{:013}", number % 5_000)),
        risk: None,
        traits: Default::default(),
        body: format!("{{\"uuid\":\"{uuid}\",\"filler\":\"{}\"}}", "x".repeat(2_000)),
        uuid,
    }
}

fn page_of(stream: StreamId, asked: Option<String>, events: Vec<NewEvent>, today: u64) -> PageCommit {
    let next_url = "https://example.okta.com/api/v1/logs?after=1".to_owned();
    let source_now = at(today);
    PageCommit { stream, asked, next_url, events, unwanted: 0, quarantined: Vec::new(), source_now, last: false }
}

fn run(event: i64) -> PlannedRun {
    let actions = ["incident", "tell-security"].map(|step| NewAction {
        step: step.to_owned(),
        kind: "slack.message.post",
        key: IdempotencyKey::derive("okta", &event.to_string(), "bench", step),
        subject: Some(format!("00u1sim{:013}", event % 5_000)),
        lane: None,
        in_doubt: InDoubt::Skip,
        after: Vec::new(),
        wait_until: None,
        preparation: Some(Prepared {
            happening: Happening::Prepared,
            params: Some(format!(r##"{{"channel":"#security","text":"User risk HIGH (was LOW): {event}"}}"##)),
            lane: None,
            reason: None,
            error: None,
        }),
        delayed: None,
    });
    PlannedRun { playbook: "bench".to_owned(), observe: false, facts: "{}".to_owned(), actions: actions.into() }
}
