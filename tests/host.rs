//! Faults of the host: a full disk, a file that somebody else holds, limits on files, descriptors and memory, a file system
//! that is read-only. The daemon goes on or ends; no effect is lost and none happens twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod support;

use std::io::Write;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use okta_responder::demo::org::{Fault, Hold, Misbehaviour, OrgOptions, Service, User, events};
use okta_responder::store::{
    Decision, EventVerdict, Keep, NewEvent, NewStream, PageCommit, Store, StoreError, StreamKind, Trouble,
};
use rusqlite::Connection;
use serde_json::json;
use support::every::{Every, FAST};
use support::ledger::Ledger;
use support::limits::Limit;
use support::{BOUND, Daemon, Mounted, Scene, eventually};

/// Asks Okta for the user's groups before anything is decided.
const TAKE_BACK: &str = r#"
[[playbook]]
name = "take-back"
on = ["application.user_membership.add"]

  [[playbook.step]]
  name = "take-back"
  when = 'user_risk == "HIGH"'
  action = "okta.app.unassign_user"
"#;

/// What the daemon says when it begins and when it ceases to wait.
const WAITS: &str = "no new work is taken on";
const GOES_ON: &str = "the state file can be written again";

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_work_without_burdening_okta_and_room_starts_it_again() {
    let scene = Scene::new(TAKE_BACK).await;
    let disk = scene.dir.path().join("disk");
    let Some(_mounted) = Mounted::new(&disk, "size=4m") else {
        eprintln!("NOT TESTED: this user may not mount a small file system");
        return;
    };
    let path = disk.join("state.db");
    scene.edit(&scene.state().display().to_string(), &path.display().to_string());
    let (high, app) = (scene.org.add_group("High Risk Users"), scene.org.add_app("Payroll"));
    let ann = scene.org.add_user(User::new("Ann", "Miller"));
    scene.org.add_member(&high, &ann.id);
    scene.org.assign(&app, &ann.id);
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");

    // The page is stored, and then nothing is.
    let hold = Hold::new();
    scene.org.fault(Fault::new(Service::Okta, Misbehaviour::Hold(hold.clone())).path("/groups"));
    scene.org.push_event(events::app_assigned(&scene.org.app(&app).unwrap(), &ann));
    hold.held(BOUND).await.unwrap();
    let filler = disk.join("filler");
    let _ = std::fs::write(&filler, vec![0; 8 << 20]);
    hold.release();
    daemon.wait_for_log("no new work is taken on: the disk that holds the state file is full");
    let asked = scene.org.requests().len();
    let told = scene.json(&["status", "--format", "json"]);
    assert!(told["trouble"].as_str().unwrap().contains("disk that holds the state file is full"), "{told}");
    assert_eq!(told["for_a_person"][0]["what"], "daemon that takes on no work");
    let refused = scene.command(&["backup", &disk.join("copy.db").display().to_string()]);
    assert_eq!(refused.status.code(), Some(75), "{refused:?}");
    assert!(!disk.join("copy.db").exists() && !disk.join("copy.db.partial").exists());
    // What was under way when the disk filled up may still be answered; nothing new is asked.
    let asked_more = scene.org.requests().len() - asked;
    assert!(asked_more <= 2, "{asked_more} requests while nothing can be stored");
    assert!(scene.org.is_assigned(&app, &ann.id));
    assert_eq!(daemon.log().matches(WAITS).count(), 1, "{}", daemon.log());

    std::fs::remove_file(&filler).unwrap();
    let done = scene.org.wait_for(|org| !org.is_assigned(&app, &ann.id), BOUND).await;
    assert!(done.is_ok(), "{}", daemon.log());
    let store = Store::open_existing(&path).unwrap();
    eventually(async || match store.list_actions(Default::default()).await.unwrap() {
        actions if actions.iter().all(|action| action.state == "succeeded") => Ok(()),
        actions => Err(format!("{actions:?}")),
    })
    .await;
    eventually(async || match scene.json(&["status", "--format", "json"])["trouble"].clone() {
        serde_json::Value::Null => Ok(()),
        trouble => Err(trouble.to_string()),
    })
    .await;
    assert!(daemon.log().contains(GOES_ON));
    assert!(daemon.stop().success());
}

/// Leaves old records behind, as a daemon does that ran 40 days before `now` and has not heard of Okta since.
async fn leave_old_records(path: &Path, events: usize, now: Timestamp) {
    let then = now.checked_sub(SignedDuration::from_hours(40 * 24)).unwrap();
    let store = Store::open(path).unwrap();
    for page in (0..events).collect::<Vec<_>>().chunks(250) {
        hear_of_okta(&store, page.iter().map(|number| padded(&format!("old-{number}"), then)).collect(), then).await;
    }
    loop {
        let pending = store.undecided(then, 1000, &[], Vec::new()).await.unwrap();
        if pending.is_empty() {
            return;
        }
        let skipped = |id| Decision { event: id, verdict: EventVerdict::Skipped("own".to_owned()), runs: Vec::new() };
        store.commit_decisions(pending.into_iter().map(|event| skipped(event.id)).collect(), then).await.unwrap();
    }
}

/// An event of some 2 kB.
fn padded(uuid: &str, published: Timestamp) -> NewEvent {
    NewEvent {
        uuid: uuid.to_owned(),
        event_type: "user.session.start".to_owned(),
        published,
        subject: None,
        risk: None,
        traits: Default::default(),
        body: json!({ "padding": "x".repeat(2000) }).to_string(),
    }
}

/// Writes a file until there is not one byte left for it.
fn fill(filler: &Path) {
    let mut filler = std::fs::OpenOptions::new().append(true).create(true).open(filler).unwrap();
    let full = std::iter::repeat_with(|| filler.write_all(&[0; 4096])).find_map(Result::err).unwrap();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
}

/// A backfill of one page.
async fn hear_of_okta(store: &Store, events: Vec<NewEvent>, at: Timestamp) {
    try_to_hear_of_okta(store, events, at).await.unwrap();
}

async fn try_to_hear_of_okta(store: &Store, events: Vec<NewEvent>, at: Timestamp) -> Result<(), StoreError> {
    let (source, query) = ("okta".to_owned(), String::new());
    let new = NewStream { source, kind: StreamKind::Backfill, query, since: at, until: Some(at), execute: false };
    let stream = store.create_stream(new, at).await?;
    let (asked, next_url, unwanted, quarantined) = (None, "next".to_owned(), 0, Vec::new());
    let page = PageCommit { stream, asked, next_url, events, unwanted, quarantined, source_now: at, last: true };
    store.commit_page(page, at).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_old_records_make_room_and_the_work_goes_on() {
    const OLD: usize = 3000;
    const NEW: usize = 8;
    let every = Every::with(FAST, &["incident"], "").await;
    let scene = &every.scene;
    let disk = scene.dir.path().join("disk");
    let Some(_mounted) = Mounted::new(&disk, "size=16m") else {
        eprintln!("NOT TESTED: this user may not mount a small file system");
        return;
    };
    let path = disk.join("state.db");
    let beside = scene.state().display().to_string();
    scene.edit(&beside, &path.display().to_string());
    leave_old_records(&path, OLD, scene.org.now()).await;
    hear_of_okta(&Store::open(&path).unwrap(), Vec::new(), scene.org.now()).await;

    // A page of more than a megabyte comes when not one byte is left for it, and long before the first look for old rows.
    let hold = Hold::new();
    scene.org.fault(Fault::new(Service::Okta, Misbehaviour::Hold(hold.clone())).path("/api/v1/logs"));
    let daemon = scene.daemon();
    hold.held(BOUND).await.unwrap();
    let mut large = events::sign_in(&every.user, "LOW");
    large["debugContext"]["debugData"]["padding"] = json!("x".repeat(200 << 10));
    scene.org.push_events(vec![large; NEW]);
    fill(&disk.join("filler"));
    hold.release();
    daemon.wait_for_log("no new work is taken on: the disk that holds the state file is full");
    let ledger = Ledger { store: Store::open_existing(&path).unwrap() };
    let bodies = async || ledger.store.status(scene.org.now()).await.unwrap().oldest_body;
    assert!(bodies().await.is_some() && ledger.events().await.len() == OLD, "{}", daemon.log());

    // The next start comes to that look soon, and the filler stays.
    daemon.kill();
    scene.edit("[state]\n", "[state]\nprune_every = \"1s\"\n");
    let daemon = scene.daemon();
    let actions = ledger.at_rest(OLD + NEW).await;
    let log = daemon.log();
    assert!(actions.len() == NEW && actions.iter().all(|action| action.state == "succeeded"), "{log}");
    assert_eq!((scene.org.incidents().len(), every.effects("incident").len()), (NEW, NEW), "{log}");
    assert_eq!(ledger.store.find_event("old-0").await.unwrap().unwrap().1, None);
    assert!(log.contains("old rows are pruned"), "{log}");
    assert!(daemon.stop().success());
}

/// What SQLite's log holds past the end of the file cannot be taken into it when the disk is full, so the log cannot be written
/// from its beginning again either. Whatever is in it, and with not one byte left, old records go and the work goes on.
#[tokio::test(flavor = "multi_thread")]
async fn with_no_byte_left_and_a_log_that_does_not_fit_into_the_file_old_records_are_pruned() {
    for grows_by in [0, 10, 100, 600] {
        check_no_byte_left(grows_by).await;
    }
}

/// `grows_by`: events that are in the log alone when the disk fills up.
async fn check_no_byte_left(grows_by: usize) {
    const OLD: usize = 1000;
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let Some(_mounted) = Mounted::new(&disk, "size=16m") else {
        eprintln!("NOT TESTED: this user may not mount a small file system");
        return;
    };
    let (path, now) = (disk.join("state.db"), "2026-07-01T00:00:00Z".parse().unwrap());
    leave_old_records(&path, OLD, now).await;
    let length = |suffix: &str| std::fs::metadata(disk.join(format!("state.db{suffix}"))).unwrap().len();
    let store = Store::open(&path).unwrap();
    hear_of_okta(&store, (0..grows_by).map(|number| padded(&format!("new-{number}"), now)).collect(), now).await;
    let reserved = length(".reserve");
    assert!(reserved >= 1 << 20);
    fill(&disk.join("filler"));
    // The log can have some room in itself.
    let mut more = 0..;
    let full = loop {
        let events = more.by_ref().take(20).map(|number| padded(&format!("more-{number}"), now)).collect();
        if let Err(error) = try_to_hear_of_okta(&store, events, now).await {
            break error;
        }
    };
    assert!(matches!(full, StoreError::Full), "{grows_by}: {full}");
    assert_eq!(*store.trouble().borrow(), Some(Trouble::Full));
    assert!(length(".reserve") >= reserved, "{grows_by}: the work that went on has eaten the reserve");

    let pruned = store.prune(Keep::default(), now).await;
    assert_eq!(pruned.as_ref().map(|pruned| pruned.bodies).ok(), Some(OLD as u64), "{grows_by}: {pruned:?}");
    assert!(length(".reserve") >= 1 << 20, "{grows_by}: the reserve is not whole again");
    store.trouble().wait_for(Option::is_none).await.unwrap();
    let after = (0..100).map(|number| padded(&format!("after-{number}"), now)).collect();
    hear_of_okta(&store, after, now).await;
    for kept in (0..grows_by).map(|number| format!("new-{number}")) {
        assert!(store.find_event(&kept).await.unwrap().is_some(), "{grows_by}: {kept}");
    }
    assert_eq!(store.check_integrity().await.unwrap(), Vec::<String>::new());
}

/// One step of every kind, the message with a fact that is fetched when it is prepared.
const FLOW: &str = r##"
[[playbook]]
name = "flow"
on = ["user.risk.detect"]

  [[playbook.step]]
  name = "add"
  when = 'user_risk != "HIGH"'
  action = "okta.group.add_user"
  with = { group = "High Risk Users" }

  [[playbook.step]]
  name = "incident"
  action = "servicenow.incident.create"
  with = { short_description = "Risk of {{ target.login }}" }

  [[playbook.step]]
  name = "tell"
  action = "slack.message.post"
  with = { channel = "#security", text = "{{ manager.login }}" }
"##;

/// An org with Ann, her manager, and the playbook.
struct Flow {
    scene: Scene,
    ann: User,
}

impl Flow {
    async fn new() -> Self {
        let settings = "[poll]\nstart_from = \"1h\"\n[dispatch]\nretry_initial = \"3s\"\n";
        let scene = Scene::with(OrgOptions::default(), settings, FLOW).await;
        scene.org.add_group("High Risk Users");
        scene.org.add_group("Medium Risk Users");
        let (ann, mia) =
            (scene.org.add_user(User::new("Ann", "Miller")), scene.org.add_user(User::new("Mia", "Stone")));
        scene.org.link_manager(&ann.id, &mia.id);
        Self { scene, ann }
    }

    fn push(&self) {
        self.scene.org.push_event(events::risk_detected(&self.ann, "LOW", "HIGH"));
    }

    fn hold(&self, method: &str, path: &str) -> Hold {
        let hold = Hold::new();
        let fault = Fault::new(Service::Okta, Misbehaviour::Hold(hold.clone()));
        self.scene.org.fault(fault.method(method).path(path));
        hold
    }

    /// Everything is done once.
    async fn check_effects(&self, daemon: &Daemon) {
        let ledger = Ledger::of(&self.scene).await;
        let actions = ledger.at_rest(1).await;
        let log = daemon.log();
        assert_eq!(actions.len(), 3, "{}", support::ledger::told(&actions));
        let done = |state: &str| matches!(state, "succeeded" | "settled");
        assert!(actions.iter().all(|action| done(&action.state)), "{}: {log}", support::ledger::told(&actions));
        let count = |kind| self.scene.org.effects_of(kind).iter().filter(|effect| effect.changed).count();
        assert_eq!(["group.add", "incident.create", "slack.post"].map(count), [1, 1, 1], "{log}");
    }
}

/// Lets no write pass from some moment on, waits until the daemon says so, lets writes pass again and looks at the effects.
async fn check_write(at: &str, waits: &str) {
    let flow = Flow::new().await;
    let org = &flow.scene.org;
    let daemon = flow.scene.daemon_with(&[("OKTA_RESPONDER_LOG", "debug")]);
    daemon.wait_for_log("ready: ");
    let hold = match at {
        "page" => flow.hold("GET", "/api/v1/logs"),
        "decision" => flow.hold("GET", "/groups"),
        "preparation" => flow.hold("GET", "/linkedObjects"),
        "outcome" => flow.hold("PUT", "/groups/"),
        "claim" => {
            org.fault(Fault::new(Service::Okta, Misbehaviour::status(503, "")).method("PUT").path("/groups/"));
            // Held by nobody: the retry is waited for below.
            flow.hold("GET", "/nowhere")
        }
        other => panic!("there is no write at {other}"),
    };
    if at == "page" {
        hold.held(BOUND).await.unwrap();
    }
    flow.push();
    match at {
        "page" => {}
        "claim" => {
            let ledger = Ledger::of(&flow.scene).await;
            ledger.wait_for("add", "retry").await;
        }
        _ => hold.held(BOUND).await.unwrap(),
    }
    let Some(limit) = Limit::set(daemon.pid(), "fsize", 0) else { return };
    hold.release();
    daemon.wait_for_log(WAITS);
    if at == "claim" {
        let sent = org.requests().iter().filter(|request| request.method == "PUT").count();
        assert_eq!(sent, 1, "only what was refused before: {}", daemon.log());
    }
    let commands = flow.scene.command_under("ulimit -f 0", &["pause"]);
    assert_eq!(commands.status.code(), Some(75), "{commands:?}");
    limit.lift();
    daemon.wait_for_log(GOES_ON);
    daemon.wait_for_log(waits);
    flow.check_effects(&daemon).await;
    let log = daemon.log();
    assert_eq!(log.matches(WAITS).count(), log.matches(GOES_ON).count(), "said once for each change: {log}");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_cannot_be_stored_is_read_again() {
    check_write("page", "reading waits").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_cannot_be_stored_is_made_again() {
    check_write("decision", "deciding waits").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preparation_that_cannot_be_stored_is_made_again() {
    check_write("preparation", "dispatching waits").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_claimed_is_not_sent() {
    // Whichever write comes first finds the trouble, and then nothing is claimed: no words of the dispatcher are waited for.
    check_write("claim", GOES_ON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_cannot_be_stored_waits_and_is_not_sent_again() {
    check_write("outcome", "an outcome waits to be stored").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_at_the_start_nothing_is_left_behind_and_the_next_start_does_everything() {
    let flow = Flow::new().await;
    flow.push();
    // Room for the lock file, but not for the state file.
    let mut daemon = Daemon::start_under("ulimit -f 1", &flow.scene.config());
    assert_eq!(daemon.wait().code(), Some(75), "{}", daemon.log());
    assert!(daemon.log().contains("the system refuses to write the state file"), "{}", daemon.log());
    assert!(!flow.scene.state().exists());
    let daemon = flow.scene.daemon();
    flow.check_effects(&daemon).await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_file_that_somebody_else_holds_is_waited_for() {
    let flow = Flow::new().await;
    let daemon = flow.scene.daemon();
    daemon.wait_for_log("ready");
    let other = Connection::open(flow.scene.state()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    flow.push();
    let refused = flow.scene.command(&["pause"]);
    assert_eq!(refused.status.code(), Some(75), "{refused:?}");
    daemon.wait_for_log("no new work is taken on: another process has held the write lock");
    assert_eq!(flow.scene.org.effects_of("group.add").len(), 0);
    other.execute_batch("ROLLBACK").unwrap();
    flow.check_effects(&daemon).await;
    daemon.wait_for_log(GOES_ON);
    assert_eq!(daemon.log().matches(WAITS).count(), 1, "{}", daemon.log());
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_file_descriptors_what_cannot_be_sent_is_sent_later() {
    let flow = Flow::new().await;
    let daemon = flow.scene.daemon();
    daemon.wait_for_log("ready");
    // What is open stays open, and nothing more can be opened.
    let Some(limit) = Limit::set(daemon.pid(), "nofile", 3) else { return };
    flow.push();
    daemon.wait_for_log("no connection could be made");
    assert_eq!(flow.scene.org.incidents().len(), 0);
    limit.lift();
    flow.check_effects(&daemon).await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_file_descriptors_for_a_start_end_it_without_a_panic() {
    let flow = Flow::new().await;
    flow.push();
    for descriptors in [6, 9, 12, 15] {
        let mut daemon = Daemon::start_under(&format!("ulimit -n {descriptors}"), &flow.scene.config());
        eventually(async || match daemon.runs() && !daemon.log().contains("nothing is decided yet") {
            true => Err(daemon.log()),
            false => Ok(()),
        })
        .await;
        let log = daemon.log();
        assert!(!log.contains("panicked"), "{descriptors}: {log}");
        if !daemon.runs() {
            assert!(matches!(daemon.wait().code(), Some(1 | 75 | 78)), "{descriptors}: {log}");
        }
    }
    assert_eq!(flow.scene.org.effects().len(), 0);
    let daemon = flow.scene.daemon();
    flow.check_effects(&daemon).await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_memory_it_ends_or_goes_on_and_does_everything_once() {
    const EVENTS: usize = 30;
    let every = Every::with(FAST, &["add", "incident"], "").await;
    // One heap, since the address space that is set aside for others would do for a while.
    let daemon = every.scene.daemon_with(&[("MALLOC_ARENA_MAX", "1")]);
    daemon.wait_for_log("ready");
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let size: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
    let Some(_limit) = Limit::set(daemon.pid(), "as", (size + 512) << 10) else { return };
    // Some megabytes of records, so that a page of them does not fit.
    let mut pages = Vec::new();
    for _ in 0..EVENTS {
        let mut event = events::sign_in(&every.user, "LOW");
        event["debugContext"]["debugData"]["padding"] = json!("x".repeat(256 << 10));
        pages.push(event);
    }
    every.scene.org.push_events(pages);
    let mut daemon = daemon;
    eventually(async || {
        let log = daemon.log();
        let bit = log.contains("memory") || log.contains("panicked") || log.contains("does not go on");
        if bit || !daemon.runs() { Ok(()) } else { Err(log) }
    })
    .await;
    drop(daemon);

    let daemon = every.scene.daemon();
    let ledger = Ledger::of(&every.scene).await;
    let actions = ledger.at_rest(EVENTS).await;
    let log = daemon.log();
    assert!(actions.iter().all(|action| matches!(action.state.as_str(), "succeeded" | "settled")), "{log}");
    for (step, expected) in [("add", 1), ("incident", EVENTS)] {
        assert_eq!(every.effects(step).iter().filter(|effect| effect.changed).count(), expected, "{step}: {log}");
    }
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_is_read_only_is_told_and_nothing_is_done() {
    let flow = Flow::new().await;
    let daemon = flow.scene.daemon();
    daemon.wait_for_log("ready");
    assert!(daemon.stop().success());
    flow.push();
    let dir = flow.scene.dir.path().display().to_string();
    let read_only = format!("mount --bind '{dir}' '{dir}' && mount -o remount,bind,ro '{dir}'");
    let own = std::process::Command::new("unshare").args(["-rm", "sh", "-c", &read_only]).output();
    if !own.is_ok_and(|output| output.status.success()) {
        eprintln!("NOT TESTED: this user may not mount in a namespace of his own");
        return;
    }
    // The shell words run inside of the namespace, and so does what comes after them.
    let shell = format!("exec unshare -rm sh -c \"{read_only} && exec \\\"\\$0\\\" \\\"\\$@\\\"\" \"$0\" \"$@\"; true");
    let mut refused = Daemon::start_under(&shell, &flow.scene.config());
    assert_eq!(refused.wait().code(), Some(78), "{}", refused.log());
    assert!(refused.log().contains("Read-only file system"), "{}", refused.log());
    for command in [&["status"][..], &["pause"], &["check", "--state"]] {
        let output = flow.scene.command_under(&shell, command);
        let told = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(output.status.success() || told.contains("read-only"), "{command:?}: {output:?}");
    }
    let daemon = flow.scene.daemon();
    flow.check_effects(&daemon).await;
    assert!(daemon.stop().success());
}
