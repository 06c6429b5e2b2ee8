//! How much memory the real binary takes: idle, and in a backfill that is long enough to show whether it grows.
//!
//! `EVENTS` sets the length of the backfill. `VmRSS` is what is resident now, `VmHWM` the most that ever was.
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

use std::time::Duration;

use support::Progress;
use support::daemon::Daemon;

/// What an idle daemon may take, and one that backfills, in MiB.
const AIMS: (f64, f64) = (20.0, 48.0);

fn main() {
    let events = support::setting("EVENTS", 1_000_000);
    let org = support::runtime();

    let idle = {
        let scene = org.block_on(support::scene_with_log(0));
        let daemon = Daemon::start(&scene.config(), &[]);
        // Some polls of an empty log, so that every task has run and every connection is there.
        let polls = |org: &okta_responder::demo::org::Org| {
            org.request_count(okta_responder::demo::org::Service::Okta, "/api/v1/logs") >= 5
        };
        org.block_on(scene.org.wait_for(polls, Duration::from_secs(60))).unwrap();
        let memory = Memory::of(daemon.pid());
        assert!(daemon.stop().success());
        memory
    };

    let scene = org.block_on(support::scene_with_log(events));
    org.block_on(support::ask_for_backfill(&scene));
    let daemon = Daemon::start(&scene.config(), &[]);
    let progress = Progress::of(&daemon, &scene.state());
    let step = (events / 10).max(1);
    let mut way = Vec::new();
    for stored in (1..=10).map(|tenth| tenth * step) {
        progress.until_stored(stored);
        way.push((stored, Memory::of(daemon.pid())));
    }
    progress.until_decided();
    let end = Memory::of(daemon.pid());
    assert!(daemon.stop().success());

    let show = |memory: Memory| format!("{:.1} / {:.1}", memory.now, memory.most);
    let labels: Vec<String> = way.iter().map(|(stored, _)| format!("{stored} events stored")).collect();
    let mut rows = vec![("idle", show(idle))];
    rows.extend(labels.iter().map(String::as_str).zip(way.iter().map(|(_, memory)| show(*memory))));
    rows.push(("everything decided", show(end)));
    support::table("Resident memory, now / most so far, MiB", &rows);
    println!("  aims: idle {}, backfill {}", AIMS.0, AIMS.1);
    let line = serde_json::json!({
        "bench": "memory", "events": events, "idle_rss_mib": round(idle.now), "idle_hwm_mib": round(idle.most),
        "backfill_rss_mib": way.iter().map(|(_, memory)| round(memory.now)).collect::<Vec<_>>(),
        "backfill_hwm_mib": round(end.most),
    });
    println!("{line}");
}

#[derive(Clone, Copy)]
struct Memory {
    now: f64,
    most: f64,
}

impl Memory {
    fn of(pid: u32) -> Self {
        Self { now: support::resident_mib(pid, "VmRSS"), most: support::resident_mib(pid, "VmHWM") }
    }
}

fn round(mib: f64) -> f64 {
    (mib * 10.0).round() / 10.0
}
