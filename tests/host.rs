//! Faults of the host: what the daemon does when its disk is full.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod support;

use okta_responder::demo::org::{Service, User, events};
use okta_responder::store::Store;
use support::{BOUND, Mounted, Scene, eventually};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_work_without_burdening_okta_and_room_starts_it_again() {
    let scene = Scene::new(TAKE_BACK).await;
    let disk = scene.dir.path().join("disk");
    let Some(_mounted) = Mounted::new(&disk, "size=4m") else {
        eprintln!("skipped: this user may not mount a small file system");
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
    let hold = okta_responder::demo::org::Hold::new();
    let held = okta_responder::demo::org::Misbehaviour::Hold(hold.clone());
    scene.org.fault(okta_responder::demo::org::Fault::new(Service::Okta, held).path("/groups"));
    scene.org.push_event(events::app_assigned(&scene.org.app(&app).unwrap(), &ann));
    hold.held(BOUND).await.unwrap();
    let filler = disk.join("filler");
    let _ = std::fs::write(&filler, vec![0; 8 << 20]);
    hold.release();
    daemon.wait_for_log("deciding waits: the disk that holds the state file is full");
    let asked = scene.org.request_count(Service::Okta, "/groups");
    eventually(async || match daemon.log().matches("deciding waits").count() {
        0 | 1 => Err(daemon.log()),
        _ => Ok(()),
    })
    .await;
    let asked_more = scene.org.request_count(Service::Okta, "/groups") - asked;
    assert!(asked_more <= 2, "{asked_more} look-ups between two rests");
    assert!(scene.org.is_assigned(&app, &ann.id));

    std::fs::remove_file(&filler).unwrap();
    let done = scene.org.wait_for(|org| !org.is_assigned(&app, &ann.id), BOUND).await;
    assert!(done.is_ok(), "{}", daemon.log());
    let store = Store::open_existing(&path).unwrap();
    eventually(async || match store.list_actions(Default::default()).await.unwrap() {
        actions if actions.iter().all(|action| action.state == "succeeded") => Ok(()),
        actions => Err(format!("{actions:?}")),
    })
    .await;
    assert!(daemon.stop().success());
}
