//! Steps with a delay, end to end: a user comes into a group now and out of it later, unless something has happened by then.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use jiff::SignedDuration;
use okta_responder::demo::org::{Fault, Misbehaviour, OrgOptions, Service, User, events};
use okta_responder::model::ids::ActionId;
use okta_responder::store::{ActionRow, PersonChange};
use support::every::FAST;
use support::ledger::Ledger;
use support::{Daemon, Scene, eventually};

/// An org with the group of the cool-off, and the one that tells high risk.
struct CoolOff {
    scene: Scene,
    group: String,
    high: String,
}

impl CoolOff {
    async fn new(delay: &str) -> Self {
        let scene = Scene::with(OrgOptions::default(), "", "").await;
        let (group, high) = (scene.org.add_group("Cool-off"), scene.org.add_group("High Risk Users"));
        let cool_off = Self { scene, group, high };
        cool_off.scene.configure(
            FAST,
            &format!(
                "[[playbook]]\nname = \"cool-off\"\non = [\"user.session.start\"]\n\
                 [[playbook.step]]\nname = \"add\"\naction = \"okta.group.add_user\"\nwith = {{ group = \"Cool-off\" }}\n\
                 [[playbook.step]]\nname = \"take-out\"\nneeds = [\"add\"]\ndelay = \"{delay}\"\n\
                 cancel_if = 'user_risk == \"HIGH\"'\naction = \"okta.group.remove_user\"\nwith = {{ group = \"Cool-off\" }}\n"
            ),
        );
        cool_off
    }

    fn user(&self, first: &str) -> User {
        self.scene.org.add_user(User::new(first, "Miller"))
    }

    fn sign_in(&self, user: &User) {
        self.scene.org.push_event(events::sign_in(user, "LOW"));
    }

    async fn start(&self) -> (Daemon, Ledger) {
        let daemon = self.scene.daemon();
        (daemon, Ledger::of(&self.scene).await)
    }

    fn is_in(&self, user: &User) -> bool {
        self.scene.org.is_member(&self.group, &user.id)
    }

    /// Does what a person asks on the command line.
    fn asks(&self, command: &str, action: &ActionRow) {
        let done = self.scene.command(&["actions", command, &action.id.to_string()]);
        assert!(done.status.success(), "{done:?}");
    }
}

/// The row of a user's step as soon as it is as wanted; the newest one where there are several.
async fn row(ledger: &Ledger, user: &User, step: &str, wanted: impl Fn(&ActionRow) -> bool) -> ActionRow {
    eventually(async || {
        let mut rows = ledger.actions().await;
        rows.retain(|row| row.step == step && row.user.as_ref() == Some(&user.id));
        rows.into_iter().rfind(&wanted).ok_or_else(|| format!("no such `{step}` of {}", user.login))
    })
    .await
}

async fn in_state(ledger: &Ledger, user: &User, step: &str, state: &str) -> ActionRow {
    row(ledger, user, step, |row| row.state == state).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_delayed_is_done_when_the_delay_ends_unless_its_condition_is_true_by_then() {
    let cool_off = CoolOff::new("2s").await;
    let (ann, bob) = (cool_off.user("Ann"), cool_off.user("Bob"));
    cool_off.scene.org.add_member(&cool_off.high, &bob.id);
    let (daemon, ledger) = cool_off.start().await;
    cool_off.sign_in(&ann);
    cool_off.sign_in(&bob);
    let done = in_state(&ledger, &ann, "take-out", "succeeded").await;
    let took = done.finished_at.unwrap().duration_since(done.created_at);
    assert!(took >= SignedDuration::from_secs(2), "{took}");
    assert!(!cool_off.is_in(&ann));
    let left = in_state(&ledger, &bob, "take-out", "skipped").await;
    assert_eq!(left.reason.as_deref(), Some("cancel_if"));
    assert!(left.error.unwrap().contains("user_risk == \"HIGH\""));
    assert!(cool_off.is_in(&bob));
    assert_eq!(cool_off.scene.org.effects_of("group.remove").len(), 1);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_sees_what_is_delayed_and_hastens_it_or_takes_it_back() {
    let cool_off = CoolOff::new("1h").await;
    let (ann, bob) = (cool_off.user("Ann"), cool_off.user("Bob"));
    let (daemon, ledger) = cool_off.start().await;
    cool_off.sign_in(&ann);
    cool_off.sign_in(&bob);
    for user in [&ann, &bob] {
        in_state(&ledger, user, "add", "succeeded").await;
    }
    let [anns, bobs] =
        [in_state(&ledger, &ann, "take-out", "waiting").await, in_state(&ledger, &bob, "take-out", "waiting").await];
    let listed = cool_off.scene.command(&["actions", "list", "--state", "waiting"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.matches("delayed until").count(), 2, "{listed}");
    assert_eq!(cool_off.scene.json(&["status", "--format", "json"])["delayed"], 2);
    let shown = cool_off.scene.json(&["actions", "show", &anns.id.to_string(), "--format", "json"]);
    assert_eq!(shown["delayed_until"], anns.due.unwrap().to_string());
    assert_eq!(shown["cancel_if"], "user_risk == \"HIGH\"");

    cool_off.asks("cancel", &bobs);
    // Facts that cannot be had are no reason to act.
    let groups = Fault::new(Service::Okta, Misbehaviour::status(503, "")).method("GET").path("/groups").always();
    cool_off.scene.org.fault(groups);
    cool_off.asks("retry", &anns);
    row(&ledger, &ann, "take-out", |row| row.state == "waiting" && row.error.is_some()).await;
    assert!(cool_off.is_in(&ann));
    cool_off.scene.org.clear_faults();
    in_state(&ledger, &ann, "take-out", "succeeded").await;
    in_state(&ledger, &bob, "take-out", "cancelled").await;
    assert_eq!((cool_off.is_in(&ann), cool_off.is_in(&bob)), (false, true));
    assert!(daemon.stop().success());
}

/// The daemon was down when the delay ended and when something happened after that: it has to know before it acts.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_stop_what_happened_meanwhile_supersedes_what_was_delayed() {
    let cool_off = CoolOff::new("1h").await;
    let (ann, bob) = (cool_off.user("Ann"), cool_off.user("Bob"));
    let (daemon, ledger) = cool_off.start().await;
    cool_off.sign_in(&ann);
    cool_off.sign_in(&bob);
    let mut delayed = Vec::new();
    for user in [&ann, &bob] {
        in_state(&ledger, user, "add", "succeeded").await;
        delayed.push(in_state(&ledger, user, "take-out", "waiting").await);
    }
    daemon.kill();
    cool_off.sign_in(&ann);
    for action in &delayed {
        let changed = ledger.store.change_by_person(ActionId(action.id), PersonChange::Retry, cool_off.scene.org.now());
        assert_eq!(changed.await.unwrap().as_str(), "waiting");
    }
    // What was planned is done although its playbook is gone, and by what was planned.
    cool_off.scene.edit("name = \"take-out\"", "name = \"let-go\"");
    let away = Misbehaviour::status(503, "");
    cool_off.scene.org.fault(Fault::new(Service::Okta, away).method("GET").path("/api/v1/logs").always());
    let daemon = cool_off.scene.daemon();
    let waits = |row: &ActionRow| row.error.as_ref().is_some_and(|why| why.contains("the log is not read"));
    for user in [&ann, &bob] {
        row(&ledger, user, "take-out", waits).await;
    }
    assert!(cool_off.is_in(&ann) && cool_off.is_in(&bob));
    cool_off.scene.org.clear_faults();
    let superseded = in_state(&ledger, &ann, "take-out", "skipped").await;
    assert_eq!(superseded.reason.as_deref(), Some("superseded"));
    assert!(superseded.error.unwrap().contains("okta.group.add_user"));
    in_state(&ledger, &bob, "take-out", "succeeded").await;
    in_state(&ledger, &ann, "let-go", "waiting").await;
    assert_eq!((cool_off.is_in(&ann), cool_off.is_in(&bob)), (true, false));
    assert!(daemon.stop().success());
}
