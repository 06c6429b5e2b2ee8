//! What is kept and for how long, and the journal: nothing that is still needed goes, everything else does, and whatever
//! somebody does to the journal is noticed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use okta_responder::config::GuardConfig;
use okta_responder::demo::org::{User, events};
use okta_responder::guard::{Guard, Judge};
use okta_responder::model::action::{Happening, InDoubt};
use okta_responder::model::ids::{ActionId, IdempotencyKey, StreamId};
use okta_responder::store::{
    ActionFilter, AttemptEnd, Decision, EventVerdict, Keep, NewAction, NewEvent, NewStream, PageCommit, PersonChange,
    PersonError, PlannedRun, Prepared, Pruned, Quarantined, Store, StreamKind,
};
use rusqlite::Connection;
use serde_json::Value;
use support::{Scene, eventually};
use tempfile::TempDir;

/// So many days after the first one.
fn day(day: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + day * 24 * 3600).unwrap()
}

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 3600)
}

/// A state file through which days pass.
struct Years {
    dir: TempDir,
    store: Store,
    live: StreamId,
}

fn new_stream(kind: StreamKind, execute: bool) -> NewStream {
    let until = (kind == StreamKind::Backfill).then(|| day(1));
    NewStream { source: "okta".to_owned(), kind, query: String::new(), since: day(0), until, execute }
}

fn event(uuid: &str, user: &str, published: Timestamp) -> NewEvent {
    NewEvent {
        uuid: uuid.to_owned(),
        event_type: "user.risk.detect".to_owned(),
        published,
        subject: Some(user.to_owned()),
        risk: Some("HIGH"),
        traits: Default::default(),
        body: format!("{{\"uuid\":\"{uuid}\",\"filler\":\"{}\"}}", "x".repeat(2000)),
    }
}

fn action(key: &str, happening: Happening) -> NewAction {
    let params = Some(r#"{"channel":"C1","text":"hello"}"#.to_owned());
    NewAction {
        step: "tell".to_owned(),
        kind: "slack.message.post",
        key: IdempotencyKey::derive("okta", key, "p", "tell"),
        subject: Some("u".to_owned()),
        lane: None,
        in_doubt: InDoubt::Ask,
        after: Vec::new(),
        wait_until: None,
        preparation: Some(Prepared { happening, params, lane: None, reason: None, error: None }),
        delayed: None,
    }
}

impl Years {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        let live = store.create_stream(new_stream(StreamKind::Live, false), day(0)).await.unwrap();
        Self { dir, store, live }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("state.db")
    }

    fn raw(&self) -> Connection {
        let connection = Connection::open(self.file()).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        connection
    }

    fn count(&self, table: &str) -> u64 {
        self.raw().query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }

    /// Receives events in a stream; Okta's clock and ours are given apart. Returns how many were new.
    async fn receive_in(&self, stream: StreamId, events: Vec<NewEvent>, okta: Timestamp, ours: Timestamp) -> u64 {
        let asked = self.store.stream(stream).await.unwrap().unwrap().next_url;
        let page = PageCommit {
            stream,
            asked,
            next_url: "next".to_owned(),
            events,
            unwanted: 0,
            quarantined: Vec::new(),
            source_now: okta,
            last: false,
        };
        self.store.commit_page(page, ours).await.unwrap().stored
    }

    async fn receive(&self, events: Vec<NewEvent>, at: Timestamp) -> u64 {
        self.receive_in(self.live, events, at, at).await
    }

    /// A poll that brings nothing, so that Okta's date is known.
    async fn okta_says(&self, at: Timestamp) {
        self.receive(Vec::new(), at).await;
    }

    /// Decides everything that waits: each event gets a run of one action, unless `happening` is `None`.
    async fn decide(&self, happening: Option<Happening>, at: Timestamp) -> usize {
        let mut written = 0;
        loop {
            let pending = self.store.undecided(at, 500, &[], Vec::new()).await.unwrap();
            if pending.is_empty() {
                return written;
            }
            let decisions = pending.into_iter().map(|event| {
                let observe = event.backfill.is_some();
                let verdict = if event.superseded { EventVerdict::Superseded } else { EventVerdict::Decided };
                let uuid: Value = serde_json::from_str(&event.body).unwrap();
                let runs = happening.filter(|_| !event.superseded).map(|happening| PlannedRun {
                    playbook: "p".to_owned(),
                    observe,
                    facts: "{}".to_owned(),
                    actions: vec![action(uuid["uuid"].as_str().unwrap(), happening)],
                });
                Decision { event: event.id, verdict, runs: runs.into_iter().collect() }
            });
            written += self.store.commit_decisions(decisions.collect(), at).await.unwrap();
        }
    }

    /// Sends all that is ready, and it succeeds.
    async fn send(&self, at: Timestamp) {
        let guard = Arc::new(Guard::new(&GuardConfig::default(), []));
        loop {
            let judge = Judge::new(Arc::clone(&guard), Arc::default(), at, at);
            let claims = self.store.claim_ready(at, 100, judge).await.unwrap();
            assert!(claims.stopped.is_empty());
            if claims.taken.is_empty() {
                return;
            }
            for taken in claims.taken {
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
                self.store.record_outcome(end, at).await.unwrap();
            }
        }
    }

    /// Prunes when Okta and we agree on the day.
    async fn prune(&self, keep: Keep, at: Timestamp) -> Pruned {
        self.okta_says(at).await;
        self.store.prune(keep, at).await.unwrap()
    }

    async fn body(&self, uuid: &str) -> Option<Value> {
        self.store.find_event(uuid).await.unwrap().unwrap().1
    }
}

#[tokio::test]
async fn records_go_first_then_events_then_runs() {
    let years = Years::new().await;
    years.receive(vec![event("with-run", "a", day(0))], day(0)).await;
    years.decide(Some(Happening::Prepared), day(0)).await;
    years.send(day(0)).await;
    years.receive(vec![event("plain", "a", day(0)), event("newest", "a", day(1))], day(0)).await;
    years.decide(None, day(0)).await;

    assert!(years.prune(Keep::default(), day(29)).await.is_empty());
    let pruned = years.prune(Keep::default(), day(32)).await;
    assert_eq!((pruned.bodies, pruned.runs, pruned.events), (3, 0, 0));
    assert_eq!(years.body("with-run").await, None);
    assert!(years.prune(Keep::default(), day(179)).await.is_empty());
    let pruned = years.prune(Keep::default(), day(182)).await;
    assert_eq!((pruned.runs, pruned.events), (0, 1), "an event stays with its run");
    let pruned = years.prune(Keep::default(), day(402)).await;
    assert_eq!((pruned.runs, pruned.events), (1, 1));
    assert_eq!((years.count("event"), years.count("action"), years.count("attempt")), (1, 0, 0));
}

#[tokio::test]
async fn what_is_open_stays_however_old_it_is() {
    let years = Years::new().await;
    years.receive(vec![event("held-for-approval", "a", day(0))], day(0)).await;
    years.decide(Some(Happening::HeldForApproval), day(0)).await;
    let acting = years.store.create_stream(new_stream(StreamKind::Backfill, true), day(0)).await.unwrap();
    years.receive_in(acting, vec![event("held", "b", day(0))], day(0), day(0)).await;
    years.receive(vec![event("undecided", "c", day(0))], day(0)).await;
    let pruned = years.prune(Keep::default(), day(3000)).await;
    assert_eq!((pruned.bodies, pruned.runs, pruned.events), (0, 0, 0));
    for uuid in ["held-for-approval", "held", "undecided"] {
        assert!(years.body(uuid).await.is_some(), "{uuid}");
    }
    years.store.change_by_person(ActionId(1), PersonChange::Cancel, day(3000)).await.unwrap();
    let pruned = years.prune(Keep::default(), day(3001)).await;
    assert_eq!((pruned.bodies, pruned.runs), (1, 0), "its run ended yesterday");
    assert_eq!(years.prune(Keep::default(), day(3401)).await.runs, 1);
}

#[tokio::test]
async fn an_event_is_recognised_for_as_long_as_okta_can_send_it_again() {
    let years = Years::new().await;
    years.receive(vec![event("known", "a", day(0)), event("newest", "a", day(1))], day(0)).await;
    years.decide(None, day(0)).await;
    // Whatever the configuration says.
    let nothing = Keep { events: days(1), runs: days(1), keys: Duration::ZERO };
    years.prune(nothing, day(90)).await;
    assert_eq!(years.receive(vec![event("known", "a", day(0))], day(90)).await, 0);
    years.prune(nothing, day(92)).await;
    assert_eq!(years.receive(vec![event("known", "a", day(0))], day(92)).await, 1);
}

#[tokio::test]
async fn the_key_of_what_was_sent_outlives_its_row() {
    let years = Years::new().await;
    years.receive(vec![event("sent", "a", day(0))], day(0)).await;
    years.decide(Some(Happening::Prepared), day(0)).await;
    years.send(day(0)).await;
    let keep = Keep { events: days(1), runs: days(2), keys: days(180) };
    assert_eq!(years.prune(keep, day(5)).await.runs, 1);
    assert_eq!(years.count("action"), 0);
    let again = async |uuid: &str, at| {
        years.receive(vec![event(uuid, uuid, at)], at).await;
        let event = years.store.undecided(at, 1, &[], Vec::new()).await.unwrap().remove(0).id;
        let actions = vec![action("sent", Happening::Prepared)];
        let run = PlannedRun { playbook: "p".to_owned(), observe: false, facts: "{}".to_owned(), actions };
        let decision = Decision { event, verdict: EventVerdict::Decided, runs: vec![run] };
        years.store.commit_decisions(vec![decision], at).await.unwrap()
    };
    assert_eq!(again("one", day(179)).await, 0, "it was sent");
    assert_eq!(years.prune(keep, day(182)).await.keys, 1);
    assert_eq!(again("two", day(182)).await, 1);
}

#[tokio::test]
async fn the_event_that_tells_a_users_risk_is_kept_for_good() {
    let years = Years::new().await;
    let mut low = event("low", "a", day(1));
    low.risk = Some("LOW");
    // Of two that happened in the same moment the one that came later counts.
    let before = [event("high", "a", day(0)), event("same-moment", "a", day(1))];
    years.receive([&before[..], &[low, event("other", "b", day(0))]].concat(), day(1)).await;
    years.decide(None, day(1)).await;
    assert_eq!(years.prune(Keep::default(), day(5000)).await.events, 2);
    assert_eq!(years.store.newest_risk("a").await.unwrap().as_deref(), Some("LOW"));
    assert_eq!(years.store.newest_risk("b").await.unwrap().as_deref(), Some("HIGH"));
}

#[tokio::test]
async fn an_older_event_of_a_backfill_is_superseded_by_one_whose_record_is_gone() {
    let years = Years::new().await;
    years.receive(vec![event("newer", "a", day(1))], day(1)).await;
    years.decide(None, day(1)).await;
    assert_eq!(years.prune(Keep::default(), day(60)).await.bodies, 1);
    let acting = years.store.create_stream(new_stream(StreamKind::Backfill, true), day(60)).await.unwrap();
    years.receive_in(acting, vec![event("older", "a", day(0))], day(60), day(60)).await;
    years.raw().execute("UPDATE event SET state = 'new' WHERE state = 'held'", []).unwrap();
    years.decide(Some(Happening::Prepared), day(60)).await;
    assert_eq!(years.store.find_event("older").await.unwrap().unwrap().0.state, "superseded");
}

#[tokio::test]
async fn what_a_backfill_observed_can_still_be_acted_on_and_counted() {
    let years = Years::new().await;
    let looking = years.store.create_stream(new_stream(StreamKind::Backfill, false), day(0)).await.unwrap();
    years.receive_in(looking, vec![event("seen", "a", day(0))], day(0), day(0)).await;
    years.decide(Some(Happening::NotCalledFor), day(0)).await;
    assert_eq!(years.prune(Keep::default(), day(40)).await.bodies, 1);
    let results = years.store.backfill_results(looking).await.unwrap();
    assert_eq!((results.events, results.runs), (vec![("decided".to_owned(), 1)], vec![("observe".to_owned(), 1)]));
    assert_eq!(years.receive(vec![event("seen", "a", day(0))], day(40)).await, 1, "the live stream takes it over");
    assert!(years.body("seen").await.is_some());
    assert_eq!(years.decide(Some(Happening::Prepared), day(40)).await, 1);
}

#[tokio::test]
async fn what_cannot_be_shown_to_the_guard_any_more_is_not_retried() {
    let years = Years::new().await;
    years.receive(vec![event("failed", "a", day(0))], day(0)).await;
    years.decide(Some(Happening::CannotBePrepared), day(0)).await;
    years.prune(Keep::default(), day(31)).await;
    let refused = years.store.change_by_person(ActionId(1), PersonChange::Retry, day(31)).await;
    assert!(matches!(refused, Err(PersonError::RecordGone(_))), "{refused:?}");
}

#[tokio::test]
async fn a_clock_that_jumps_takes_nothing_away_too_early() {
    let years = Years::new().await;
    assert_eq!(
        years.store.prune(Keep::default(), day(5000)).await.unwrap().by,
        None,
        "nothing is known of Okta's clock"
    );
    years.receive(vec![event("one", "a", day(0)), event("two", "a", day(1))], day(1)).await;
    years.decide(None, day(1)).await;
    let pruned = years.store.prune(Keep::default(), day(5000)).await.unwrap();
    assert!(pruned.is_empty() && pruned.by == Some(day(1)), "{pruned:?}");
    // Received by a clock that stood far back, and by one that stood far ahead.
    years.receive_in(years.live, vec![event("back", "a", day(2))], day(2), Timestamp::UNIX_EPOCH).await;
    years.receive_in(years.live, vec![event("ahead", "a", day(2))], day(2), day(4000)).await;
    years.decide(None, day(2)).await;
    assert!(years.prune(Keep::default(), day(3)).await.is_empty());
    assert_eq!(years.prune(Keep::default(), day(33)).await.bodies, 4, "all of them are old by Okta's clock");
}

#[tokio::test]
async fn what_was_done_by_a_wrong_clock_is_as_old_as_its_event() {
    let years = Years::new().await;
    for (uuid, ours) in [("back", Timestamp::UNIX_EPOCH), ("ahead", day(4000))] {
        years.receive_in(years.live, vec![event(uuid, uuid, day(2))], day(2), ours).await;
        years.decide(Some(Happening::Prepared), ours).await;
        years.send(ours).await;
    }
    let keep = Keep { events: days(1), runs: days(2), keys: days(180) };
    assert_eq!(years.prune(keep, day(3)).await.runs, 0);
    assert_eq!((years.prune(keep, day(5)).await.runs, years.count("spent_key")), (2, 2));
    assert_eq!(years.prune(keep, day(181)).await.keys, 0);
    assert_eq!(years.prune(keep, day(183)).await.keys, 2);
    // A clock that was right counts, where something was done long after its event.
    years.receive(vec![event("late", "late", day(183))], day(240)).await;
    years.decide(Some(Happening::Prepared), day(240)).await;
    years.send(day(240)).await;
    assert_eq!(years.prune(keep, day(243)).await.runs, 1);
    assert_eq!(years.prune(keep, day(419)).await.keys, 0);
    assert_eq!(years.prune(keep, day(421)).await.keys, 1);
}

#[tokio::test]
async fn what_ended_while_okta_was_silent_is_not_old() {
    let years = Years::new().await;
    // An event that Okta still had, read anew just before Okta went silent; what came of it was done later.
    let (before, after) = (day(60), day(60).checked_add(SignedDuration::from_hours(6)).unwrap());
    years.receive_in(years.live, vec![event("old", "a", day(0))], before, after).await;
    years.decide(Some(Happening::Prepared), after).await;
    years.send(after).await;
    let keep = Keep { events: days(1), runs: days(1), keys: days(180) };
    let pruned = years.store.prune(keep, after).await.unwrap();
    assert_eq!((pruned.by, pruned.bodies), (Some(before), 0));
    assert_eq!(pruned.runs, 0, "the guard has to count what was just sent");
    assert_eq!(years.prune(keep, day(62)).await.runs, 1);
}

#[tokio::test]
async fn the_number_of_an_event_that_is_gone_is_never_given_again() {
    let years = Years::new().await;
    let looking = years.store.create_stream(new_stream(StreamKind::Backfill, false), day(0)).await.unwrap();
    let mut given = Vec::new();
    let mut number = async |uuid: &str, at| {
        let id = years.store.find_event(uuid).await.unwrap().unwrap().0.id;
        assert!(given.iter().all(|before| *before < id), "{uuid} at {at} is {id}, after {given:?}");
        given.push(id);
    };
    years.receive(vec![event("newest", "a", day(1))], day(0)).await;
    number("newest", day(0)).await;
    // The one with the greatest number goes after it was taken over.
    for stream in [looking, years.live] {
        years.receive_in(stream, vec![event("seen", "a", day(0))], day(0), day(0)).await;
        number("seen", day(0)).await;
    }
    years.decide(None, day(0)).await;
    assert_eq!(years.prune(Keep::default(), day(182)).await.events, 1);
    years.receive_in(looking, vec![event("kept", "b", day(182))], day(182), day(182)).await;
    number("kept", day(182)).await;
    years.decide(Some(Happening::NotCalledFor), day(182)).await;
    // It goes before another is taken over.
    years.receive(vec![event("greatest", "a", day(0))], day(182)).await;
    number("greatest", day(182)).await;
    years.decide(None, day(182)).await;
    assert_eq!(years.prune(Keep::default(), day(364)).await.events, 1);
    years.receive(vec![event("kept", "b", day(182))], day(364)).await;
    number("kept", day(364)).await;
}

#[tokio::test]
async fn quarantine_is_pruned_as_records_are() {
    let years = Years::new().await;
    let page = PageCommit {
        stream: years.live,
        asked: None,
        next_url: "next".to_owned(),
        events: Vec::new(),
        unwanted: 0,
        quarantined: vec![Quarantined { error: "no uuid".to_owned(), raw: "{}".to_owned() }],
        source_now: day(0),
        last: false,
    };
    years.store.commit_page(page, day(0)).await.unwrap();
    assert_eq!(years.prune(Keep::default(), day(30)).await.quarantined, 0);
    assert_eq!(years.prune(Keep::default(), day(31)).await.quarantined, 1);
}

#[tokio::test]
async fn the_file_stays_as_large_as_what_is_kept() {
    const A_DAY: usize = 100;
    let years = Years::new().await;
    let keep = Keep { events: days(5), runs: days(10), keys: days(90) };
    let mut sizes = Vec::new();
    for today in 0..120 {
        let events = (0..A_DAY).map(|n| event(&format!("{today}-{n}"), &format!("user-{}", n % 50), day(today)));
        years.receive(events.collect(), day(today)).await;
        let happening = if today % 30 == 0 { Some(Happening::Prepared) } else { None };
        years.decide(happening, day(today)).await;
        years.send(day(today)).await;
        years.prune(keep, day(today)).await;
        sizes.push(years.store.size_on_disk());
    }
    let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    assert!(years.count("event_body") <= 6 * A_DAY as u64 && years.count("event") <= 92 * A_DAY as u64);
    // Five days of records are a megabyte; what recognises ninety days of events is some three more. Free pages that are
    // kept for what comes are four.
    assert!(sizes.iter().all(|size| mib(*size) < 12.0), "{sizes:?}");
    assert!(sizes[119] <= sizes[95] + sizes[95] / 10, "it has stopped growing: {sizes:?}");
    assert_eq!(
        std::fs::metadata(years.dir.path().join("state.db-wal")).map_or(0, |wal| wal.len()),
        0,
        "the log is cut"
    );
}

#[tokio::test]
async fn free_pages_go_back_to_the_file_system() {
    let years = Years::new().await;
    for page in 0..8 {
        let events = (0..1000).map(|n| event(&format!("{page}-{n}"), "a", day(0)));
        years.receive(events.collect(), day(0)).await;
    }
    years.decide(None, day(0)).await;
    years.okta_says(day(40)).await;
    let before = years.store.size_on_disk();
    let pruned = years.store.prune(Keep::default(), day(40)).await.unwrap();
    assert_eq!(pruned.bodies, 8000);
    assert!(pruned.pages > 1000, "{pruned:?}");
    assert!(years.store.size_on_disk() < before / 2, "{before} bytes before, {} after", years.store.size_on_disk());
}

/// What the journal holds, as JSON.
async fn journal(store: &Store) -> Vec<Value> {
    let stretch = store.journal_stretch(None, None).await.unwrap();
    let rows = store.journal_page(stretch.anchor.seq, stretch.last, 100_000).await.unwrap();
    rows.iter().map(|row| serde_json::from_str(&row.record).unwrap()).collect()
}

#[tokio::test]
async fn the_journal_tells_every_change_and_who_made_it() {
    let years = Years::new().await;
    years.receive(vec![event("e", "ann", day(0))], day(0)).await;
    years.decide(Some(Happening::HeldForApproval), day(0)).await;
    let beside = Store::open_existing(&years.file()).unwrap();
    beside.change_by_person(ActionId(1), PersonChange::Approve, day(0)).await.unwrap();
    beside.set_paused(true, day(0)).await.unwrap();
    beside.set_paused(true, day(0)).await.unwrap();
    beside.set_paused(false, day(0)).await.unwrap();
    years.send(day(0)).await;
    let backfill = beside.create_stream(new_stream(StreamKind::Backfill, false), day(0)).await.unwrap();
    beside.cancel_backfill(backfill, day(0)).await.unwrap();
    beside.restart_stream(years.live, String::new(), day(0), day(0)).await.unwrap();
    years.store.record_configuration("ab".repeat(32), day(0)).await.unwrap();
    let told = journal(&years.store).await;
    let words: Vec<String> = told
        .iter()
        .map(|record| {
            let (what, to) = (record["what"].as_str().unwrap(), record["to"].as_str().unwrap_or_default());
            let by = record["by"]["command"].as_str().or(record["by"].as_str()).unwrap_or_default();
            [what, to, by].join(" ")
        })
        .collect();
    assert_eq!(
        words,
        [
            "stream_begun  program",
            "decided  ",
            "action ready actions approve",
            "paused  pause",
            "resumed  resume",
            "action started program",
            "action succeeded program",
            "stream_begun  backfill",
            "backfill_cancelled  backfill --cancel",
            "cursor_reset  cursor reset",
            "configuration  program",
        ]
    );
    let planned = &told[1]["runs"][0]["actions"][0];
    assert_eq!((&told[1]["uuid"], &told[1]["user"]), (&"e".into(), &"ann".into()));
    assert_eq!((&planned["state"], &planned["params"]["text"]), (&"awaiting_approval".into(), &"hello".into()));
    assert!(told[2]["by"]["uid"].is_u64());
    assert!(!serde_json::to_string(&told).unwrap().contains("filler"), "records of events stay out");
}

#[tokio::test]
async fn a_backfill_that_observes_is_told_in_sum() {
    let years = Years::new().await;
    let looking = years.store.create_stream(new_stream(StreamKind::Backfill, false), day(0)).await.unwrap();
    let events = (0..1000).map(|n| event(&n.to_string(), "a", day(0)));
    years.receive_in(looking, events.collect(), day(0), day(0)).await;
    let before = journal(&years.store).await.len();
    years.decide(Some(Happening::NotCalledFor), day(0)).await;
    let told = journal(&years.store).await;
    assert_eq!(told.len(), before + 2, "one for each transaction of 500");
    assert_eq!(told.last().unwrap()["runs"], 500);
}

#[tokio::test]
async fn the_chain_is_one_however_many_write() {
    let years = Years::new().await;
    let beside = Store::open_existing(&years.file()).unwrap();
    let many = (0..60).map(|n| {
        let store = if n % 2 == 0 { years.store.clone() } else { beside.clone() };
        tokio::spawn(async move { store.record_configuration(format!("{n:064}"), day(0)).await.unwrap() })
    });
    futures_util::future::join_all(many).await;
    let told = journal(&years.store).await;
    let numbers: Vec<u64> = told.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=61).collect::<Vec<_>>());
}

/// Runs `export` on the state file of a scene.
fn export(scene: &Scene, arguments: &[&str]) -> (Option<i32>, String) {
    let output = scene.command(&[&["export"], arguments].concat());
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn head_of(file: &std::path::Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    last["head"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_export_connects_with_the_next_and_what_was_changed_is_noticed() {
    let scene = Scene::new("").await;
    let store = Store::open(&scene.state()).unwrap();
    for day_of in 0..10 {
        store.set_paused(day_of % 2 == 0, day(day_of)).await.unwrap();
    }
    let path = |name: &str| scene.dir.path().join(name);
    let (first, second) = (path("first.jsonl"), path("second.jsonl"));
    let middle = day(5).to_string();
    let told = export(&scene, &["--until", &middle, "--output", first.to_str().unwrap()]);
    assert_eq!(told.0, Some(0), "{}", told.1);
    assert_eq!(export(&scene, &["--since", &middle, "--output", second.to_str().unwrap()]).0, Some(0));
    let verify =
        |file: &std::path::Path, more: &[&str]| export(&scene, &[&["--verify", file.to_str().unwrap()], more].concat());
    assert_eq!(verify(&first, &[]).0, Some(0));
    let (exit, told) = verify(&second, &["--expect", &head_of(&first)]);
    assert!(exit == Some(0) && told.contains("numbers 6 to 10"), "{told}");
    assert_eq!(export(&scene, &["--output", first.to_str().unwrap()]).0, Some(1), "it is there already");

    let whole = std::fs::read_to_string(&first).unwrap();
    std::fs::write(&first, whole.replacen("resumed", "settled", 1)).unwrap();
    let (exit, told) = verify(&first, &[]);
    assert!(exit == Some(1) && told.contains("line 3: record 2 or its hash was changed"), "{told}");
    std::fs::write(&first, &whole[..whole.len() - 1]).unwrap();
    assert!(verify(&first, &[]).1.contains("cut off"));

    let head = head_of(&second);
    let (exit, told) = export(&scene, &["--verify", "--expect", &head]);
    assert!(exit == Some(0) && told.contains("The expected hash is the head."), "{told}");
    assert_eq!(export(&scene, &["--verify", "--expect", &"0f".repeat(32)]).0, Some(1));
    let raw = Connection::open(scene.state()).unwrap();
    let refused = raw.execute("UPDATE journal SET record = replace(record, 'resumed', 'settled') WHERE seq = 4", []);
    assert!(refused.unwrap_err().to_string().contains("never changed"));
    raw.execute_batch("DROP TRIGGER journal_is_written_once").unwrap();
    raw.execute("UPDATE journal SET record = replace(record, 'resumed', 'settled') WHERE seq = 4", []).unwrap();
    let (exit, told) = export(&scene, &["--verify"]);
    assert!(exit == Some(1) && told.contains("record 4 or its hash was changed"), "{told}");
    raw.execute("DELETE FROM journal WHERE seq = 4", []).unwrap();
    assert!(export(&scene, &["--verify"]).1.contains("record 5 stands where record 4 should"));
}

#[tokio::test]
async fn pruning_the_journal_leaves_a_chain_that_says_where_it_begins() {
    let scene = Scene::new("").await;
    let store = Store::open(&scene.state()).unwrap();
    let live = store.create_stream(new_stream(StreamKind::Live, false), day(0)).await.unwrap();
    for n in 0..800 {
        store.set_paused(n % 2 == 0, day(n / 2)).await.unwrap();
    }
    let head = store.journal_head().await.unwrap();
    let page = PageCommit {
        stream: live,
        asked: None,
        next_url: "next".to_owned(),
        events: Vec::new(),
        unwanted: 0,
        quarantined: Vec::new(),
        source_now: day(700),
        last: false,
    };
    store.commit_page(page, day(700)).await.unwrap();
    let pruned = store.prune(Keep::default(), day(700)).await.unwrap();
    assert_eq!(pruned.journal, 601, "what is older than 400 days");
    let (exit, told) = export(&scene, &["--verify", "--expect", &okta_responder::store::hex(&head.hash)]);
    assert_eq!(exit, Some(0), "{told}");
    // Whoever takes the front away without saying so is noticed.
    let raw = Connection::open(scene.state()).unwrap();
    raw.execute_batch(
        "UPDATE retention SET anchor_seq = anchor_seq + 5, anchor_hash = (SELECT hash FROM journal WHERE seq = anchor_seq + 5);
         DELETE FROM journal WHERE seq <= (SELECT anchor_seq FROM retention);",
    )
    .unwrap();
    assert!(export(&scene, &["--verify"]).1.contains("does not begin where its last prune says"));
}

const QUARANTINE: &str = r#"
[[playbook]]
name = "watch"
on = ["user.risk.detect"]

  [[playbook.step]]
  name = "quarantine"
  action = "okta.group.add_user"
  with = { group = "High Risk Users" }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_prunes_by_itself_and_status_and_export_tell() {
    let scene = Scene::new(QUARANTINE).await;
    scene.org.add_group("High Risk Users");
    let ann = scene.org.add_user(User::new("Ann", "Miller"));
    scene.edit("[state]\n", "[state]\nprune_every = \"1s\"\n");
    let now = scene.org.now();
    let before = |days: i64| now.checked_sub(SignedDuration::from_hours(24 * days)).unwrap();
    {
        // What an old daemon left behind.
        let store = Store::open(&scene.state()).unwrap();
        let old = NewStream { since: before(40), ..new_stream(StreamKind::Backfill, false) };
        let stream = store.create_stream(old, before(40)).await.unwrap();
        let page = PageCommit {
            stream,
            asked: None,
            next_url: "next".to_owned(),
            events: vec![event("old", "a", before(40))],
            unwanted: 0,
            quarantined: Vec::new(),
            source_now: before(40),
            last: true,
        };
        store.commit_page(page, before(40)).await.unwrap();
        let id = store.undecided(now, 1, &[], Vec::new()).await.unwrap().remove(0).id;
        let skipped = Decision { event: id, verdict: EventVerdict::Skipped("own".to_owned()), runs: Vec::new() };
        store.commit_decisions(vec![skipped], before(40)).await.unwrap();
    }
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    scene.org.push_event(events::risk_detected(&ann, "LOW", "HIGH"));
    let store = scene.store().await;
    eventually(async || match store.find_event("old").await.unwrap() {
        Some((_, None)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    eventually(async || {
        let actions = store.list_actions(ActionFilter::default()).await.unwrap();
        if actions.iter().any(|action| action.state == "succeeded") { Ok(()) } else { Err(format!("{actions:?}")) }
    })
    .await;
    daemon.wait_for_log("the journal's head");
    let status = scene.json(&["status", "--format", "json"]);
    assert!(status["last_prune"].is_string() && status["bytes"].as_u64().unwrap() > 0, "{status}");
    assert_eq!(scene.command(&["pause"]).status.code(), Some(0));
    assert!(daemon.stop().success());
    let file = scene.dir.path().join("all.jsonl");
    assert_eq!(export(&scene, &["--since", "1h", "--output", file.to_str().unwrap()]).0, Some(0));
    let text = std::fs::read_to_string(&file).unwrap();
    for part in [
        r#""what":"configuration""#,
        r#""what":"decided""#,
        r#""to":"succeeded""#,
        r#""command":"pause""#,
        r#""kind":"bodies""#,
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    for secret in [scene.org.token(), okta_responder::demo::org::SLACK_TOKEN] {
        assert!(!text.contains(secret));
    }
    assert_eq!(export(&scene, &["--verify", file.to_str().unwrap()]).0, Some(0));
}
