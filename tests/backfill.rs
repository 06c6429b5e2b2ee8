//! Reading the past: bounded, resumable, known events recognised, and nothing touched unless it is asked for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use okta_responder::demo::org::{Fault, Hold, Misbehaviour, Org, OrgOptions, Service, User, events};
use okta_responder::model::event::SOURCE_OKTA;
use okta_responder::store::{ActionFilter, EventFilter, NewStream, Store, StreamKind, StreamRow};
use serde_json::{Value, json};
use support::{BOUND, Scene, eventually, inbox, inbox_of};

const GROUP: &str = "High Risk Users";

const QUARANTINE: &str = r#"
[[playbook]]
name = "user-risk-changed"
on = ["user.risk.detect"]

  [[playbook.step]]
  name = "quarantine"
  when = 'risk.level == "HIGH"'
  action = "okta.group.add_user"
  with = { group = "High Risk Users" }
"#;

const SMALL_PAGES: &str = "[poll]\npage_size = 10\n";

/// Asks for a backfill as the command does, beside the daemon.
async fn ask(store: &Store, org: &Org, since: Timestamp, until: Timestamp, execute: bool) {
    let query = r#"eventType eq "user.risk.detect""#.to_owned();
    let (source, kind) = (SOURCE_OKTA.to_owned(), StreamKind::Backfill);
    let new = NewStream { source, kind, query, since, until: Some(until), execute };
    store.create_stream(new, org.now()).await.unwrap();
}

/// The newest backfill.
async fn backfill(store: &Store) -> StreamRow {
    store.list_streams().await.unwrap().into_iter().rfind(|stream| stream.kind == "backfill").unwrap()
}

/// Waits until the backfill has read to its end and all it found is decided and done.
async fn through(store: &Store) -> StreamRow {
    eventually(async || {
        // In this order: what the stream has brought by its end is in the status that is read after it.
        let stream = backfill(store).await;
        let status = store.status(Timestamp::UNIX_EPOCH).await.unwrap();
        let undecided = status.events.iter().any(|(state, _)| matches!(state.as_str(), "held" | "new"));
        if stream.state == "done" && !undecided && status.oldest_open_action.is_none() {
            Ok(stream)
        } else {
            Err(format!("{stream:?} {status:?}"))
        }
    })
    .await
}

fn ago(org: &Org, minutes: i64) -> Timestamp {
    org.now() - SignedDuration::from_mins(minutes)
}

/// Puts a risk event into the past. The org's second is over then, so that a stream that begins now does not see it.
async fn past(org: &Org, user: &User, previous: &str, level: &str, minutes: i64) -> String {
    let uuid = org.push_event(events::published_at(events::risk_detected(user, previous, level), ago(org, minutes)));
    let pushed = org.now().as_second();
    eventually(async || if org.now().as_second() > pushed { Ok(()) } else { Err("the same second".to_owned()) }).await;
    uuid
}

async fn state_of(store: &Store, uuid: &str) -> String {
    store.find_event(uuid).await.unwrap().unwrap().0.state
}

/// A log of so many risk events of the last day, one for each user.
fn day_of(events: u64) -> OrgOptions {
    OrgOptions { synthetic_events: events, synthetic_risk_every: 1, ..OrgOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_observes_unless_it_is_told_to_act() {
    let scene = Scene::with(day_of(35), SMALL_PAGES, QUARANTINE).await;
    scene.org.add_group(GROUP);
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    let store = scene.store().await;
    ask(&store, &scene.org, ago(&scene.org, 25 * 60), scene.org.now(), false).await;
    let stream = through(&store).await;
    assert_eq!((stream.stored, stream.duplicates, stream.restarts), (35, 0, 0));
    // What would have been done is on record.
    let actions = store.list_actions(ActionFilter::default()).await.unwrap();
    assert_eq!(actions.len(), 35);
    for action in actions {
        assert_eq!((action.state.as_str(), action.reason.as_deref(), action.attempts), ("skipped", Some("observe"), 0));
    }
    assert!(scene.org.effects().is_empty());
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_looked_first_can_still_act_afterwards() {
    let scene = Scene::with(day_of(25), SMALL_PAGES, QUARANTINE).await;
    scene.org.add_group(GROUP);
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    let store = scene.store().await;
    let (since, until) = (ago(&scene.org, 25 * 60), scene.org.now());
    for (execute, stored, effects) in [(false, 25, 0), (false, 0, 0), (true, 25, 25), (true, 0, 25)] {
        ask(&store, &scene.org, since, until, execute).await;
        let stream = through(&store).await;
        assert_eq!((stream.stored, stream.duplicates), (stored, 25 - stored));
        assert_eq!(scene.org.effects().len(), effects);
        assert_eq!(inbox(&store).await.len(), 25);
    }
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn acting_looks_only_at_how_things_stand_with_each_user_now() {
    let scene = Scene::with(OrgOptions::default(), SMALL_PAGES, QUARANTINE).await;
    let group = scene.org.add_group(GROUP);
    let [ann, ben, cyd] = ["Ann", "Ben", "Cyd"].map(|name| scene.org.add_user(User::new(name, "Miller")));
    let org = &scene.org;
    // Ann is well again, Ben is not, and of Cyd the live stream will know something newer.
    let ann_high = past(org, &ann, "LOW", "HIGH", 180).await;
    let ann_low = past(org, &ann, "HIGH", "LOW", 120).await;
    let ben_low = past(org, &ben, "MEDIUM", "LOW", 170).await;
    let ben_high = past(org, &ben, "LOW", "HIGH", 110).await;
    let cyd_high = past(org, &cyd, "LOW", "HIGH", 100).await;
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    let store = scene.store().await;
    let cyd_low = org.push_event(events::risk_detected(&cyd, "HIGH", "LOW"));
    assert_eq!(inbox_of(&store, 1).await, [cyd_low]);

    ask(&store, org, ago(org, 240), ago(org, 60), true).await;
    let stream = through(&store).await;
    assert_eq!(stream.stored, 5);
    for old in [&ann_high, &ben_low, &cyd_high] {
        assert_eq!(state_of(&store, old).await, "superseded");
    }
    for newest in [&ann_low, &ben_high] {
        assert_eq!(state_of(&store, newest).await, "decided");
    }
    let effects: Vec<String> = org.effects().into_iter().map(|effect| effect.target).collect();
    assert_eq!(effects, [format!("{group}/{}", ben.id)]);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_done_before_the_newest_state_is_known() {
    let scene = Scene::with(day_of(15), SMALL_PAGES, QUARANTINE).await;
    scene.org.add_group(GROUP);
    let hold = Hold::new();
    let slow = Misbehaviour::Hold(hold.clone());
    scene.org.fault(Fault::new(Service::Okta, slow).path("until=").sparing(1));
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    let store = scene.store().await;
    ask(&store, &scene.org, ago(&scene.org, 25 * 60), scene.org.now(), true).await;
    hold.held(BOUND).await.unwrap();
    inbox_of(&store, 10).await;
    let held = EventFilter { state: Some("held".to_owned()), ..EventFilter::default() };
    assert_eq!(store.list_events(held).await.unwrap().len(), 10);
    // A live event passes it by meanwhile.
    let user = scene.org.add_user(User::new("Ann", "Miller"));
    scene.org.push_event(events::risk_detected(&user, "LOW", "HIGH"));
    scene.org.wait_for(|org| !org.effects().is_empty(), BOUND).await.unwrap();
    assert_eq!(scene.org.effects().len(), 1);
    hold.release();
    through(&store).await;
    assert_eq!(scene.org.effects().len(), 16);
    assert!(daemon.stop().success());
}

/// Killed in the middle, the next daemon reads on, and every event is stored and acted on once.
async fn check_killed_at(point: &str) {
    let scene = Scene::with(day_of(65), SMALL_PAGES, QUARANTINE).await;
    scene.org.add_group(GROUP);
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    let store = scene.store().await;
    assert!(daemon.stop().success());
    ask(&store, &scene.org, ago(&scene.org, 25 * 60), scene.org.now(), true).await;

    let daemon = scene.daemon_with(&[("OKTA_RESPONDER_HALT_AT", point)]);
    daemon.wait_for_log("halted at");
    daemon.kill();
    let kept = inbox(&store).await.len() as u64;
    let stream = backfill(&store).await;
    assert_eq!((stream.stored, stream.next_url.is_some()), (kept, kept > 0), "{point}");

    let daemon = scene.daemon();
    let stream = through(&store).await;
    assert_eq!((stream.stored, stream.duplicates, stream.restarts), (65, 0, 0), "{point}");
    assert_eq!(inbox(&store).await.len(), 65);
    let mut effects: Vec<String> = scene.org.effects().into_iter().map(|effect| effect.target).collect();
    effects.sort();
    effects.dedup();
    assert_eq!((effects.len(), scene.org.effects().len()), (65, 65), "{point}");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_inside_the_transaction_of_a_page_it_reads_on_where_it_was() {
    check_killed_at("inside_t1:3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_with_a_page_read_and_not_stored_it_reads_on_where_it_was() {
    check_killed_at("page_read:4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_with_a_page_just_stored_it_reads_on_where_it_was() {
    check_killed_at("page_stored:4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_reads_from_its_beginning_to_its_end_and_not_beyond() {
    let scene = Scene::with(day_of(48), SMALL_PAGES, QUARANTINE).await;
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    let store = scene.store().await;
    let (since, until) = (ago(&scene.org, 20 * 60), ago(&scene.org, 10 * 60));
    ask(&store, &scene.org, since, until, false).await;
    // One event every half hour.
    assert_eq!(through(&store).await.stored, 20);
    let found = store.list_events(EventFilter::default()).await.unwrap();
    assert!(found.iter().all(|event| (since..until).contains(&event.published)), "{found:#?}");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_live_stream_has_handled_is_not_handled_again() {
    let scene = Scene::with(OrgOptions::default(), SMALL_PAGES, QUARANTINE).await;
    scene.org.add_group(GROUP);
    let users = ["Ann", "Ben", "Cyd"].map(|name| scene.org.add_user(User::new(name, "Miller")));
    let old = past(&scene.org, &users[0], "LOW", "HIGH", 30).await;
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    let store = scene.store().await;
    for user in &users[1..] {
        scene.org.push_event(events::risk_detected(user, "LOW", "HIGH"));
    }
    scene.org.wait_for(|org| org.effects().len() == 2, BOUND).await.unwrap();

    let until = scene.org.now() + SignedDuration::from_secs(1);
    ask(&store, &scene.org, ago(&scene.org, 60), until, true).await;
    let stream = through(&store).await;
    assert_eq!((stream.stored, stream.duplicates), (1, 2));
    assert_eq!(state_of(&store, &old).await, "decided");
    assert_eq!(scene.org.effects().len(), 3);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_cursor_begins_again_at_the_newest_event_it_has() {
    let scene = Scene::with(day_of(48), "[poll]\npage_size = 10\noverlap = \"2h\"\n", QUARANTINE).await;
    let body = r#"{"errorCode":"E0000031","errorSummary":"Invalid search criteria."}"#;
    let refused = Misbehaviour::status(400, body);
    scene.org.fault(Fault::new(Service::Okta, refused).path("until=").sparing(2));
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    let store = scene.store().await;
    ask(&store, &scene.org, ago(&scene.org, 25 * 60), scene.org.now(), false).await;
    let stream = through(&store).await;
    // Two hours hold four or five of the twenty events that it had.
    assert_eq!((stream.stored, stream.restarts), (48, 1));
    assert!((4..=5).contains(&stream.duplicates), "{}", stream.duplicates);
    assert!(daemon.stop().success());
}

/// The live stream lags behind, and a backfill meets an event first. It is still the live stream's to act on.
async fn check_met_first_by_a_backfill(execute: bool) {
    let scene = Scene::with(OrgOptions::default(), SMALL_PAGES, QUARANTINE).await;
    let group = scene.org.add_group(GROUP);
    let user = scene.org.add_user(User::new("Ann", "Miller"));
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    let store = scene.store().await;
    // The live stream has a cursor now; the one page of the backfill needs none.
    eventually(async || match support::live(&store).await.next_url {
        Some(url) if url.contains("after=") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let down = Misbehaviour::status(503, "");
    scene.org.fault(Fault::new(Service::Okta, down).path("after=").always());
    eventually(async || support::live(&store).await.problem.ok_or_else(|| daemon.log())).await;
    let uuid = scene.org.push_event(events::risk_detected(&user, "LOW", "HIGH"));
    let until = scene.org.now() + SignedDuration::from_secs(1);
    ask(&store, &scene.org, ago(&scene.org, 60), until, execute).await;
    through(&store).await;
    assert_eq!(inbox(&store).await, [uuid.as_str()]);
    assert_eq!(scene.org.is_member(&group, &user.id), execute);

    scene.org.clear_faults();
    let added = scene.org.wait_for(|org| org.is_member(&group, &user.id), BOUND).await;
    assert!(added.is_ok(), "{}", daemon.log());
    eventually(async || {
        let actions = store.list_actions(ActionFilter::default()).await.unwrap();
        match actions.as_slice() {
            [action] if action.state == "succeeded" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(inbox(&store).await, [uuid]);
    let more = scene.org.wait_for(|org| org.effects().len() > 1, Duration::from_secs(2)).await;
    assert!(more.is_err(), "{:?}", scene.org.effects());
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_backfill_only_observed_the_live_stream_still_acts_on() {
    check_met_first_by_a_backfill(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_backfill_has_acted_on_the_live_stream_leaves_alone() {
    check_met_first_by_a_backfill(true).await;
}

mod command {
    use super::*;

    /// The command over the last 25 hours, first looking, then acting. It ends when all is done.
    fn check(scene: &Scene, since: &str) {
        let seen = scene.json(&["backfill", "--since", since, "--format", "json"]);
        assert_eq!((&seen["state"], &seen["stored"]), (&json!("done"), &json!(25)), "{seen}");
        assert!(scene.org.effects().is_empty());
        let done = scene.json(&["backfill", "--since", since, "--execute", "--format", "json"]);
        assert_eq!((&done["state"], &done["stored"], &done["execute"]), (&json!("done"), &json!(25), &json!(true)));
        assert_eq!(scene.org.effects().len(), 25);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_a_daemon_it_does_the_work_itself() {
        let scene = Scene::with(day_of(25), SMALL_PAGES, QUARANTINE).await;
        scene.org.add_group(GROUP);
        check(&scene, "25h");
        // A daemon that starts now finds nothing left to do, and begins where it would have begun.
        let daemon = scene.daemon();
        daemon.wait_for_log("ready");
        let store = scene.store().await;
        assert_eq!(inbox(&store).await.len(), 25);
        assert_eq!(scene.org.effects().len(), 25);
        assert!(daemon.stop().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn beside_a_daemon_it_leaves_the_work_to_it() {
        let scene = Scene::with(day_of(25), SMALL_PAGES, QUARANTINE).await;
        scene.org.add_group(GROUP);
        let daemon = scene.daemon();
        daemon.wait_for_log("ready");
        check(&scene, "25h");
        assert!(daemon.log().contains("the backfill has read to its end"), "{}", daemon.log());
        assert!(daemon.stop().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_never_asks_for_more_than_okta_keeps_and_says_so() {
        let scene = Scene::with(day_of(5), SMALL_PAGES, QUARANTINE).await;
        let output = scene.command(&["backfill", "--since", "400d", "--format", "json"]);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && told.contains("Okta keeps 90 days"), "{told}");
        let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&seen["stored"], &seen["problem"]), (&json!(5), &Value::Null), "{seen}");
        let since: Timestamp = seen["since"].as_str().unwrap().parse().unwrap();
        let oldest = scene.org.now() - SignedDuration::from_hours(90 * 24 + 1);
        assert!(since > oldest, "{since}");
    }
}
