//! `backup`, and going back to a copy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use okta_responder::demo::org::{User, events};
use rusqlite::Connection;
use support::Scene;
use support::every::{Every, STEPS};
use support::ledger::{Ledger, told};

/// Puts a copy in the place of the state file, as the README says.
fn put_in_place(scene: &Scene, copy: &str) {
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", scene.state().display()));
    }
    fs::copy(scene.dir.path().join(copy), scene.state()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_to_a_copy_that_was_made_under_load_does_nothing_twice() {
    const USERS: usize = 12;
    let steps = STEPS.map(|(step, _)| step);
    let every = Every::new(&steps, "").await;
    let scene = &every.scene;
    let users: Vec<User> = (0..USERS)
        .map(|number| {
            let user = scene.org.add_user(User::new("Ann", &format!("Miller {number}")));
            scene.org.add_member(&every.old, &user.id);
            scene.org.assign(&every.app, &user.id);
            user
        })
        .collect();
    let push = |users: &[User]| scene.org.push_events(users.iter().map(|user| events::sign_in(user, "HIGH")).collect());
    let daemon = scene.daemon();
    push(&users[..USERS / 4]);
    let ledger = Ledger::of(scene).await;
    ledger.wait_until(|actions| actions.iter().any(|action| action.state == "succeeded")).await;
    push(&users[USERS / 4..USERS / 2]);
    let copy = scene.dir.path().join("copy.db").display().to_string();
    let output = scene.command(&["backup", &copy]);
    assert!(output.status.success(), "{output:?}");
    push(&users[USERS / 2..]);
    ledger.at_rest(USERS).await;
    assert!(daemon.stop().success());
    drop(ledger);

    put_in_place(scene, "copy.db");
    let daemon = scene.daemon();
    daemon.wait_for_log("the state file is a copy that was put in place");
    let ledger = Ledger::of(scene).await;
    let actions = ledger.at_rest(USERS).await;
    let log = daemon.log();
    assert_eq!(actions.len(), USERS * steps.len(), "{}", told(&actions));
    for (step, kind) in STEPS {
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for effect in scene.org.effects_of(kind).into_iter().filter(|effect| effect.changed) {
            *times.entry(effect.key.unwrap_or(effect.target)).or_default() += 1;
        }
        // Ending sessions twice is the same as once.
        let lawful = times.values().all(|times| *times == 1 || step == "sessions");
        assert!(lawful && times.len() == USERS, "{step}: {times:?} {log}");
    }
    let in_doubt = actions.iter().filter(|action| action.reason.as_deref() == Some("in_doubt")).count();
    let messages = actions.iter().filter(|action| matches!(action.step.as_str(), "slack" | "mail")).count();
    assert!(in_doubt >= USERS && in_doubt <= messages, "{in_doubt} of {messages} messages are shown in doubt");
    let failed: Vec<_> =
        actions.iter().filter(|action| !matches!(action.state.as_str(), "succeeded" | "settled")).collect();
    assert!(failed.is_empty(), "{failed:?}");

    // What comes after that is in no doubt.
    let dan = scene.org.add_user(User::new("Dan", "Novak"));
    scene.org.add_member(&every.old, &dan.id);
    scene.org.assign(&every.app, &dan.id);
    scene.org.push_event(events::sign_in(&dan, "HIGH"));
    let actions = ledger.at_rest(USERS + 1).await;
    let of_dan: Vec<_> = actions.iter().filter(|action| action.user.as_ref() == Some(&dan.id)).collect();
    assert!(of_dan.iter().all(|action| action.state == "succeeded"), "{of_dan:?}");
    assert_eq!(scene.org.effects_of("slack.post").len(), USERS + 1);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_private_whole_and_replaces_nothing_unasked() {
    let every = Every::new(&["add"], "").await;
    let scene = &every.scene;
    let copy = scene.dir.path().join("copy.db");
    let name = copy.display().to_string();
    let missing = scene.command(&["backup", &name]);
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");

    every.push();
    let daemon = scene.daemon();
    Ledger::of(scene).await.at_rest(1).await;
    assert!(daemon.stop().success());
    // Also without a daemon.
    let made = scene.command(&["backup", &name]);
    assert!(made.status.success(), "{made:?}");
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let connection = Connection::open(&copy).unwrap();
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!((count("SELECT count(*) FROM event"), count("SELECT count(*) FROM action")), (1, 1));
    drop(connection);

    let before = fs::read(&copy).unwrap();
    let refused = scene.command(&["backup", &name]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--force"));
    assert_eq!(fs::read(&copy).unwrap(), before);
    assert!(scene.command(&["backup", "--force", &name]).status.success());
    assert_ne!(fs::read(&copy).unwrap(), before, "it says when it was made");

    let state = scene.state().display().to_string();
    let itself = scene.command(&["backup", "--force", &state]);
    assert_eq!(itself.status.code(), Some(1), "{itself:?}");
    assert!(String::from_utf8_lossy(&itself.stderr).contains("is the state file itself"));
    let nowhere = scene.command(&["backup", "/nowhere/at/all/copy.db"]);
    assert_eq!(nowhere.status.code(), Some(1), "{nowhere:?}");
    let full =
        scene.command_under("ulimit -f 8", &["backup", &scene.dir.path().join("other.db").display().to_string()]);
    assert_eq!(full.status.code(), Some(75), "{full:?}");
    let mut left: Vec<_> = fs::read_dir(scene.dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    left.retain(|name| name.to_string_lossy().contains("other.db") || name.to_string_lossy().contains("partial"));
    assert!(left.is_empty(), "{left:?}");
}
