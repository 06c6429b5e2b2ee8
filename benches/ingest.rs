//! How fast a backfill is: events stored, and events decided, per second, by the real binary beside the simulated org.
//!
//! The same run measures what a bare program takes for the same log on the same machine: fetching the pages and throwing
//! them away, and inserting the same rows into a plain SQLite table, 1,000 to a transaction. `EVENTS` sets the length of
//! the log. The playbook looks at each event and wants none.
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

use std::time::{Duration, Instant};

use okta_responder::app;
use okta_responder::config::load;
use okta_responder::config::secret::SecretEnv;
use okta_responder::model::event::Envelope;
use okta_responder::okta::logs::LogQuery;
use serde_json::value::RawValue;
use support::Progress;
use support::daemon::{Daemon, Scene};

fn main() {
    let events = support::setting("EVENTS", 200_000);
    let org = support::runtime();
    let scene = org.block_on(support::scene_with_log(events));

    let bare = support::runtime().block_on(bare(&scene));
    let daemon = org.block_on(daemon(&scene, events));

    let per_second = |time: Duration| (events as f64 / time.as_secs_f64()).round();
    let micros = |seconds: f64| (seconds * 1e7 / events as f64).round() / 10.0;
    let sequence = bare.fetching + bare.inserting;
    let ratio = (sequence.as_secs_f64() / daemon.decided.as_secs_f64() * 100.0).round() / 100.0;
    support::table(
        &format!("Backfill of {events} events"),
        &[
            ("stored, events/s", per_second(daemon.stored).to_string()),
            ("stored and decided, events/s", per_second(daemon.decided).to_string()),
            ("processor time of the daemon, µs per event", micros(daemon.cpu).to_string()),
            ("state file, bytes per event", (daemon.bytes / events).to_string()),
            ("bare: pages fetched and thrown away, events/s", per_second(bare.fetching).to_string()),
            ("bare: rows inserted into SQLite, events/s", per_second(bare.inserting).to_string()),
            ("bare: one after the other, events/s", per_second(sequence).to_string()),
            ("stored and decided, times the bare program", ratio.to_string()),
        ],
    );
    let line = serde_json::json!({
        "bench": "ingest", "events": events, "stored_per_s": per_second(daemon.stored),
        "decided_per_s": per_second(daemon.decided), "cpu_us_per_event": micros(daemon.cpu),
        "bytes_per_event": daemon.bytes / events, "bare_fetch_per_s": per_second(bare.fetching),
        "bare_insert_per_s": per_second(bare.inserting), "bare_per_s": per_second(sequence), "ratio": ratio,
    });
    println!("{line}");
}

struct OfDaemon {
    stored: Duration,
    decided: Duration,
    cpu: f64,
    bytes: u64,
}

/// The real thing, from its first page on.
async fn daemon(scene: &Scene, events: u64) -> OfDaemon {
    support::ask_for_backfill(scene).await;
    let daemon = Daemon::start(&scene.config(), &[]);
    let progress = Progress::of(&daemon, &scene.state());
    tokio::task::block_in_place(|| progress.until_stored(1));
    let (began, before) = (Instant::now(), progress.stored());
    tokio::task::block_in_place(|| progress.until_stored(events));
    // What was there when the clock began to run does not count.
    let share = events as f64 / (events - before) as f64;
    let stored = began.elapsed().mul_f64(share);
    tokio::task::block_in_place(|| progress.until_decided());
    let decided = began.elapsed().mul_f64(share);
    let cpu = support::cpu_seconds(daemon.pid());
    assert_eq!(progress.stored(), events);
    assert!(daemon.stop().success());
    let bytes = std::fs::metadata(scene.state()).unwrap().len();
    OfDaemon { stored, decided, cpu, bytes }
}

struct OfBare {
    fetching: Duration,
    inserting: Duration,
}

/// The least that any program would have to do with this log.
async fn bare(scene: &Scene) -> OfBare {
    let loaded = load::load(&scene.config()).unwrap();
    let okta = app::okta_client(&loaded, &SecretEnv::of_process()).unwrap();
    let mut sqlite = support::bare_sqlite(&support::beside(scene, "bare.db"));
    sqlite
        .execute_batch(
            "CREATE TABLE event (id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, type TEXT NOT NULL,
                                 published INTEGER NOT NULL, body TEXT NOT NULL) STRICT;",
        )
        .unwrap();
    let now = scene.org.now();
    let since = now.checked_sub(jiff::SignedDuration::from_hours(48)).unwrap();
    let query = LogQuery { since, until: Some(now), filter: None, limit: 1000 };
    let mut next = Some(okta.logs_url(&query).unwrap());
    let (mut fetching, mut inserting) = (Duration::ZERO, Duration::ZERO);
    while let Some(url) = next {
        let began = Instant::now();
        let head = okta.fetch_page(&url).await.unwrap();
        next = head.next;
        let body = head.body.read().await.unwrap();
        fetching += began.elapsed();

        let records: Vec<&RawValue> = serde_json::from_slice(&body).unwrap();
        let rows: Vec<(Envelope<'_>, &str)> =
            records.iter().map(|record| (Envelope::parse(record.get()).unwrap(), record.get())).collect();
        let began = Instant::now();
        let transaction = sqlite.transaction().unwrap();
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO event (uuid, type, published, body) VALUES (?1, ?2, ?3, ?4)")
                .unwrap();
            for (event, body) in &rows {
                let published = event.published.as_millisecond();
                insert.execute((&event.uuid, &event.event_type, published, body)).unwrap();
            }
        }
        transaction.commit().unwrap();
        inserting += began.elapsed();
    }
    OfBare { fetching, inserting }
}
