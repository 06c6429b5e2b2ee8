//! The guard in the running daemon: it is asked when an action is about to be sent, not only when it is planned.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use okta_responder::demo::org::{Fault, Misbehaviour, Org, Service, User, events};
use support::every::{Every, FAST};
use support::ledger::{Ledger, told};
use support::{Daemon, Scene, eventually};

/// One playbook that adds the user to a group, and nothing else.
const QUARANTINE: &str = r#"
[[playbook]]
name = "quarantine"
on = ["user.session.start"]
[[playbook.step]]
name = "add"
action = "okta.group.add_user"
with = { group = "High Risk Users" }
"#;

/// An org with a few users, a group for them, and a daemon's configuration with this guard.
struct Stage {
    scene: Scene,
    users: Vec<User>,
    group: String,
}

impl Stage {
    async fn new(guard: &str) -> Self {
        let scene = Scene::with(Default::default(), "", "").await;
        let names = ["Ann", "Bob", "Cat", "Dan", "Eve"];
        let users = names.iter().map(|name| scene.org.add_user(User::new(name, "Miller"))).collect();
        let group = scene.org.add_group("High Risk Users");
        let stage = Self { scene, users, group };
        stage.configure(guard);
        stage
    }

    fn configure(&self, guard: &str) {
        self.scene.configure(&format!("{FAST}{guard}\n"), QUARANTINE);
    }

    fn org(&self) -> &Org {
        &self.scene.org
    }

    /// Signs some of the users in, at high risk.
    fn sign_in(&self, users: std::ops::Range<usize>) {
        self.org().push_events(self.users[users].iter().map(|user| events::sign_in(user, "HIGH")).collect());
    }

    async fn run(&self) -> (Daemon, Ledger) {
        (self.scene.daemon(), Ledger::of(&self.scene).await)
    }

    fn added(&self) -> usize {
        self.org().effects_of("group.add").len()
    }

    /// Runs a command that has to succeed, and returns what it prints.
    #[track_caller]
    fn says(&self, arguments: &[&str]) -> String {
        let output = self.scene.command(arguments);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {err}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn alarms(&self) -> Vec<String> {
        self.org().slack_messages().into_iter().map(|message| message.text).collect()
    }
}

async fn wait_for_states(ledger: &Ledger, state: &str, count: usize) {
    ledger.wait_until(|actions| actions.iter().filter(|action| action.state == state).count() == count).await;
}

/// Okta does not take the change for now.
fn out_of_order(every: &Every) -> Fault {
    every.fault("add", Misbehaviour::status(503, "{}")).always()
}

/// A change is in retry; then the configuration becomes another one.
async fn reloaded_in_retry(guard: impl FnOnce(&Every) -> String) -> (Every, Ledger, Daemon) {
    let every = Every::new(&["add"], "").await;
    every.scene.org.fault(out_of_order(&every));
    every.push();
    let daemon = every.scene.daemon();
    let ledger = Ledger::of(&every.scene).await;
    ledger.wait_for("add", "retry").await;
    every.scene.edit("[dispatch]", &format!("{}\n[dispatch]", guard(&every)));
    daemon.signal("HUP");
    daemon.wait_for_log("the configuration is read again");
    every.scene.org.clear_faults();
    (every, ledger, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_to_observe_mode_stops_what_is_ready() {
    let (every, ledger, daemon) = reloaded_in_retry(|_| "[guard]\nmode = \"observe\"".to_owned()).await;
    let add = ledger.wait_for("add", "skipped").await;
    assert_eq!(add.reason.as_deref(), Some("observe"));
    assert!(add.error.unwrap().contains("mode = \"observe\""));
    assert!(every.effects("add").is_empty());
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_protected_since_is_not_tried_again() {
    // The list has the login, the action the id.
    let (every, ledger, daemon) =
        reloaded_in_retry(|every| format!("[guard]\nprotected_users = [\"{}\"]", every.user.login)).await;
    let add = ledger.wait_for("add", "refused").await;
    assert!(add.error.unwrap().contains("protected_users"));
    assert!(every.effects("add").is_empty());
    assert!(daemon.stop().success());
}

const LIMITED: &str = "[guard.limits]\nper_playbook = 2\n[guard.alarm]\naction = \"slack.message.post\"\n\
                       with = { channel = \"#security\" }";

#[tokio::test(flavor = "multi_thread")]
async fn a_playbook_that_goes_over_its_limit_is_stopped_until_a_person_lets_it_go_on() {
    let stage = Stage::new(LIMITED).await;
    stage.sign_in(0..4);
    let (daemon, ledger) = stage.run().await;
    wait_for_states(&ledger, "awaiting_approval", 2).await;
    ledger.wait_for("guard-alarm", "succeeded").await;
    daemon.wait_for_log("THE PLAYBOOK `quarantine` IS STOPPED");
    assert!(daemon.stop().success());
    // It stays stopped over a restart, and nobody is told twice.
    stage.sign_in(4..5);
    let (daemon, ledger) = stage.run().await;
    wait_for_states(&ledger, "awaiting_approval", 3).await;
    assert_eq!(stage.added(), 2);
    let alarms = stage.alarms();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert!(alarms[0].contains("quarantine") && alarms[0].contains("per_playbook = 2"), "{alarms:?}");
    let status = stage.says(&["status"]);
    assert!(status.starts_with("STOPPED: playbook `quarantine`"), "{status}");
    assert_eq!(stage.scene.json(&["status", "--format", "json"])["stopped_playbooks"][0]["held"], 3);
    // One goes by itself at a person's word, the others when the playbook goes on: two more, then it is over again.
    let held = ledger.actions().await.into_iter().rfind(|action| action.state == "awaiting_approval").unwrap();
    stage.says(&["actions", "approve", &held.id.to_string()]);
    eventually(async || if stage.added() == 3 { Ok(()) } else { Err(told(&ledger.actions().await)) }).await;
    let said = stage.says(&["resume", "--playbook", "quarantine"]);
    assert!(said.contains("2 actions"), "{said}");
    eventually(async || if stage.added() == 5 { Ok(()) } else { Err(told(&ledger.actions().await)) }).await;
    ledger.at_rest(5).await;
    assert_eq!(stage.alarms().len(), 1);
    let shown = stage.scene.json(&["actions", "show", &held.id.to_string(), "--format", "json"]);
    assert!(shown["approved_by"].as_str().unwrap().contains("uid"), "{shown}");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_held_can_be_approved_at_once() {
    let stage = Stage::new("[guard.limits]\noverall = 0").await;
    stage.sign_in(0..3);
    let (daemon, ledger) = stage.run().await;
    wait_for_states(&ledger, "awaiting_approval", 3).await;
    let unasked = stage.scene.command(&["actions", "approve", "--all"]);
    assert!(!unasked.status.success());
    assert!(String::from_utf8_lossy(&unasked.stderr).contains("--yes"));
    let said = stage.says(&["actions", "approve", "--playbook", "quarantine", "--yes"]);
    assert!(said.contains("3 × okta.group.add_user (quarantine)"), "{said}");
    wait_for_states(&ledger, "succeeded", 3).await;
    assert_eq!(stage.added(), 3);
    assert!(stage.says(&["actions", "approve", "--all", "--yes"]).contains("No actions await approval"));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_approves_in_time_is_refused() {
    let stage = Stage::new("[guard]\napproval_expires = \"1s\"\n[guard.limits]\noverall = 0").await;
    stage.sign_in(0..1);
    let (daemon, ledger) = stage.run().await;
    let add = ledger.wait_for("add", "refused").await;
    assert_eq!(add.reason.as_deref(), Some("expired"));
    assert!(add.error.unwrap().contains("nobody approved it within 1s"));
    assert_eq!(stage.added(), 0);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_protected_group_and_admins_are_left_alone() {
    let guard = "[guard]\nprotected_members_of = [\"Break Glass\"]\nprotected_roles = [\"SUPER_ADMIN\"]";
    let stage = Stage::new(guard).await;
    let (org, users) = (stage.org(), &stage.users);
    let (vault, admins) = (org.add_group("Break Glass"), org.add_group("Admins"));
    org.add_member(&vault, &users[0].id);
    org.give_role(&users[1].id, "SUPER_ADMIN");
    org.give_role(&admins, "SUPER_ADMIN");
    org.add_member(&admins, &users[2].id);
    org.give_role(&users[3].id, "HELP_DESK_ADMIN");
    stage.sign_in(0..5);
    let (daemon, ledger) = stage.run().await;
    let actions = ledger.at_rest(5).await;
    let of = |user: &User| actions.iter().find(|action| action.user.as_deref() == Some(&user.id)).unwrap();
    for (user, why) in [(0, "protected_members_of"), (1, "protected_roles"), (2, "protected_roles")] {
        let action = of(&users[user]);
        assert_eq!(action.state, "refused", "{}", told(&actions));
        assert!(action.error.as_ref().unwrap().contains(why), "{}", told(&actions));
    }
    for user in [3, 4] {
        assert_eq!(of(&users[user]).state, "succeeded", "{}", told(&actions));
        assert!(org.is_member(&stage.group, &users[user].id));
    }
    assert_eq!(stage.added(), 2);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_that_cannot_be_read_protect_until_they_can() {
    let stage = Stage::new("[guard]\nprotected_roles = [\"any\"]").await;
    let body =
        r#"{"errorCode":"E0000006","errorSummary":"You do not have permission to perform the requested action"}"#;
    stage.org().fault(Fault::new(Service::Okta, Misbehaviour::status(403, body)).method("GET").path("/roles").always());
    stage.sign_in(0..1);
    let (daemon, ledger) = stage.run().await;
    let waits = ledger.wait_until(|actions| actions.iter().any(|action| action.error.is_some())).await.remove(0);
    assert_eq!((waits.state.as_str(), waits.reason.as_deref()), ("ready", Some("guard")));
    assert!(waits.error.unwrap().contains("okta.roles.read"));
    assert_eq!(stage.scene.json(&["status", "--format", "json"])["waiting_for_a_person"], 1);
    // It is asked for again, and again nothing passes.
    eventually(async || match stage.org().request_count(Service::Okta, "/roles") {
        asked if asked >= 2 => Ok(()),
        asked => Err(format!("{asked} requests")),
    })
    .await;
    assert_eq!(stage.added(), 0);
    stage.org().clear_faults();
    ledger.wait_for("add", "succeeded").await;
    assert!(daemon.stop().success());
}
