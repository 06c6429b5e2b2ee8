//! A person has what a run did undone: all of it that can be, once, through the same ledger and under the same guard.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use okta_responder::demo::org::{Fault, Misbehaviour, Service, User, events};
use okta_responder::halt::{HALT_AT, Point};
use okta_responder::store::ActionRow;
use serde_json::{Value, json};
use support::every::FAST;
use support::ledger::{Ledger, told};
use support::{Daemon, Scene};

/// Ann signs in at high risk, and this comes of it.
struct Alarm {
    scene: Scene,
    ann: User,
    group: String,
    app: String,
}

const QUARANTINE: &str = r#"
  [[playbook.step]]
  name = "quarantine"
  action = "okta.group.add_user"
  with = { group = "High Risk Users" }
"#;

const INCIDENT: &str = r#"
  [[playbook.step]]
  name = "incident"
  action = "servicenow.incident.create"
  with = { short_description = "High risk: {{ target.login }}" }
"#;

impl Alarm {
    async fn new(extra: &str, steps: &str) -> Self {
        let scene = Scene::new("").await;
        let ann = scene.org.add_user(User::new("Ann", "Miller"));
        let (group, app) = (scene.org.add_group("High Risk Users"), scene.org.add_app("Payroll"));
        let alarm = Self { scene, ann, group, app };
        alarm.configure(extra, steps);
        alarm
    }

    fn configure(&self, extra: &str, steps: &str) {
        let playbook =
            "[[playbook]]\nname = \"alarm\"\non = [\"user.session.start\"]\nwhen = 'risk.level == \"HIGH\"'\n";
        let watch = r#"
[[playbook]]
name = "watch"
on = ["user.lifecycle.unsuspend", "user.lifecycle.suspend"]
  [[playbook.step]]
  name = "watch"
  action = "slack.message.post"
  with = { channel = "C1", text = "unsuspended" }
"#;
        let steps = steps.replace("APP", &self.app);
        self.scene.configure(&format!("{FAST}{extra}\n"), &format!("{playbook}{steps}{watch}"));
    }

    fn sign_in(&self) {
        self.scene.org.push_event(events::sign_in(&self.ann, "HIGH"));
    }

    /// Starts a daemon and lets it answer an alarm.
    async fn answered(&self) -> (Daemon, Ledger) {
        self.sign_in();
        let daemon = self.scene.daemon();
        let ledger = Ledger::of(&self.scene).await;
        ledger.at_rest(1).await;
        (daemon, ledger)
    }

    fn revert(&self, more: &[&str]) -> Value {
        self.scene.json(&[&["runs", "revert", "--format", "json"], more].concat())
    }

    /// What a revert that is refused says.
    fn refused(&self, more: &[&str]) -> String {
        let output = self.scene.command(&[&["runs", "revert"], more].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn is_quarantined(&self) -> bool {
        self.scene.org.is_member(&self.group, &self.ann.id)
    }

    fn status(&self) -> String {
        self.scene.org.user(&self.ann.id).unwrap().status
    }

    fn changes(&self, kind: &str) -> usize {
        self.scene.org.effects_of(kind).into_iter().filter(|effect| effect.changed).count()
    }
}

/// The actions of a run, each as its step and state.
fn of_run(actions: &[ActionRow], run: i64) -> Vec<(String, String)> {
    let of_run = actions.iter().filter(|action| action.run == run);
    of_run.map(|action| (action.step.clone(), action.state.clone())).collect()
}

/// Waits until every action of a run is in a state at which it stays, and returns them.
async fn ended(ledger: &Ledger, run: i64) -> Vec<(String, String)> {
    let is_final = |action: &ActionRow| action.finished_at.is_some() || action.state == "awaiting_approval";
    let actions = ledger
        .wait_until(|actions| {
            let mut of_run = actions.iter().filter(|action| action.run == run).peekable();
            of_run.peek().is_some() && of_run.all(is_final)
        })
        .await;
    of_run(&actions, run)
}

fn steps(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|one| one["step"].as_str().unwrap()).collect()
}

fn all(steps: &[&str], state: &str) -> Vec<(String, String)> {
    steps.iter().map(|step| ((*step).to_owned(), state.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_can_be_undone_is_undone_once_and_the_rest_is_named() {
    let more = r#"
  [[playbook.step]]
  name = "suspend"
  action = "okta.user.suspend"
  [[playbook.step]]
  name = "take-back"
  action = "okta.app.unassign_user"
  with = { app = "APP" }
  [[playbook.step]]
  name = "tell"
  after = ["incident"]
  action = "slack.message.post"
  with = { channel = "C1", text = "{{ steps.incident.number }}" }
"#;
    let alarm = Alarm::new("", &format!("{QUARANTINE}{more}{INCIDENT}")).await;
    alarm.scene.org.assign_as(&alarm.app, &alarm.ann.id, "amiller");
    let (daemon, ledger) = alarm.answered().await;
    assert!(alarm.is_quarantined() && alarm.status() == "SUSPENDED");
    assert!(!alarm.scene.org.is_assigned(&alarm.app, &alarm.ann.id));

    let effects = alarm.scene.org.effects().len();
    let shown = alarm.revert(&["1", "--dry-run"]);
    let expected = ["revert-take-back", "revert-suspend", "revert-quarantine", "revert-incident"];
    assert_eq!(steps(&shown["undo"]), expected);
    assert_eq!((steps(&shown["stays"]), &shown["planned"]), (vec!["tell"], &json!(null)));
    assert!(alarm.refused(&["1"]).contains("--yes"), "nobody can be asked here");
    assert_eq!((ledger.actions().await.len(), alarm.scene.org.effects().len()), (5, effects));

    let told = alarm.revert(&["1", "--yes"]);
    assert_eq!((&told["planned"], steps(&told["undo"])), (&json!(2), expected.to_vec()));
    assert_eq!(ended(&ledger, 2).await, all(&expected, "succeeded"), "{}", daemon.log());
    let org = &alarm.scene.org;
    assert!(!alarm.is_quarantined() && alarm.status() == "ACTIVE");
    assert!(org.is_assigned(&alarm.app, &alarm.ann.id));
    assert_eq!(org.app_name(&alarm.app, &alarm.ann.id).as_deref(), Some("amiller"), "what she was called there");
    assert_eq!(org.incidents()[0]["state"], "6");
    assert_eq!(org.effects_of("incident.update").len(), 1);

    // The tickets waited for the rest, and the app for the account.
    let actions = ledger.actions().await;
    let row = |step: &str| actions.iter().find(|action| action.step == step).unwrap();
    assert!(row("revert-incident").finished_at > row("revert-quarantine").finished_at);
    assert!(row("revert-take-back").finished_at > row("revert-suspend").finished_at);
    assert!(row("revert-suspend").approved_by.is_some());
    assert_eq!(row("revert-suspend").reverts, Some(row("suspend").id));

    // What we do is no event to answer, and what is undone is undone.
    let stored = ledger.at_rest(3).await;
    assert_eq!(stored.len(), 9, "{}", support::ledger::told(&stored));
    let again = alarm.scene.command(&["runs", "revert", "1", "--yes"]);
    let again = String::from_utf8(again.stdout).unwrap();
    assert!(again.contains("Nothing to revert: run 2 did."), "{again}");
    assert_eq!(alarm.scene.json(&["runs", "show", "1", "--format", "json"])["reverted_by"], json!([2]));
    assert_eq!(alarm.scene.json(&["runs", "show", "2", "--format", "json"])["reverts"], 1);
    let text = String::from_utf8(alarm.scene.command(&["runs", "show", "2"]).stdout).unwrap();
    assert!(text.contains("revert of run 1") && text.contains("reverts   run 1"), "{text}");

    // What a person has undone is no difference between two configurations.
    let past = alarm.scene.command(&["simulate", "--from-inbox", "10", "--format", "json"]);
    let past = String::from_utf8(past.stdout).unwrap();
    assert!(past.contains("user.session.start") && !past.contains("revert"), "{past}");

    // A revert is a run like any other.
    assert_eq!(alarm.revert(&["2", "--yes"])["planned"], 3);
    ended(&ledger, 3).await;
    assert!(alarm.is_quarantined() && alarm.status() == "SUSPENDED");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_it_undoes_the_rest_and_nothing_twice() {
    let alarm = Alarm::new("", &format!("{QUARANTINE}{INCIDENT}")).await;
    let (daemon, ledger) = alarm.answered().await;
    assert!(daemon.stop().success());
    let planned = alarm.scene.command(&["runs", "revert", "1", "--yes"]);
    let planned = String::from_utf8(planned.stdout).unwrap();
    assert!(planned.contains("Run 2 reverts run 1") && planned.contains("No daemon runs"), "{planned}");

    for halt in [Point::Answered, Point::InsideT4] {
        let daemon = alarm.scene.daemon_with(&[(HALT_AT, halt.name())]);
        daemon.wait_for_log(&format!("halted at {}", halt.name()));
        daemon.kill();
    }
    let daemon = alarm.scene.daemon();
    let undone = ended(&ledger, 2).await;
    assert!(undone.iter().all(|(_, state)| matches!(state.as_str(), "succeeded" | "settled")), "{undone:?}");
    assert!(!alarm.is_quarantined());
    assert_eq!((alarm.changes("group.remove"), alarm.changes("incident.update")), (1, 1), "{}", daemon.log());
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_to_nothing_leaves_the_ticket_open_and_is_planned_again() {
    let alarm = Alarm::new("", &format!("{QUARANTINE}{INCIDENT}")).await;
    let (daemon, ledger) = alarm.answered().await;
    let refusal = Misbehaviour::status(403, r#"{"errorCode":"E0000006","errorSummary":"no"}"#);
    alarm.scene.org.fault(Fault::new(Service::Okta, refusal).method("DELETE").path("/groups/").always());
    assert_eq!(alarm.revert(&["1", "--yes"])["planned"], 2);
    let first = ended(&ledger, 2).await;
    assert_eq!(first, [all(&["revert-quarantine"], "failed"), all(&["revert-incident"], "skipped")].concat());
    assert_ne!(alarm.scene.org.incidents()[0]["state"], "6");

    alarm.scene.org.clear_faults();
    assert_eq!(alarm.revert(&["1", "--yes"])["planned"], 3);
    assert_eq!(ended(&ledger, 3).await, all(&["revert-quarantine", "revert-incident"], "succeeded"));
    assert!(!alarm.is_quarantined());
    assert_eq!(alarm.scene.org.incidents()[0]["state"], "6");
    let names: Vec<_> = ledger.actions().await.into_iter().map(|action| action.playbook).collect();
    assert!(names.contains(&"revert of run 1 (2)".to_owned()), "{names:?}");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_later_run_wants_is_not_undone_unless_a_person_means_it() {
    let alarm = Alarm::new("", QUARANTINE).await;
    let (daemon, ledger) = alarm.answered().await;
    alarm.sign_in();
    ledger.at_rest(2).await;
    let why = alarm.refused(&["1", "--yes"]);
    assert!(why.contains("run 2 has done `okta.group.add_user`") && why.contains("--despite-newer"), "{why}");
    let second = alarm.revert(&["2", "--yes"]);
    assert_eq!((&second["planned"], steps(&second["nothing"])), (&json!(null), vec!["quarantine"]), "it was so before");
    assert!(alarm.is_quarantined());
    assert_eq!(alarm.revert(&["1", "--yes", "--despite-newer"])["planned"], 3);
    assert_eq!(ended(&ledger, 3).await, all(&["revert-quarantine"], "succeeded"));
    assert!(!alarm.is_quarantined());
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_still_open_is_taken_back() {
    let held = "  [[playbook.step]]\n  name = \"suspend\"\n  approval = true\n  action = \"okta.user.suspend\"\n";
    let alarm = Alarm::new("", &format!("{QUARANTINE}{held}")).await;
    let (daemon, ledger) = alarm.answered().await;
    let told = alarm.revert(&["1", "--yes"]);
    assert_eq!((steps(&told["cancel"]), steps(&told["undo"])), (vec!["suspend"], vec!["revert-quarantine"]));
    ended(&ledger, 2).await;
    let actions = ledger.actions().await;
    let expected = [all(&["quarantine"], "succeeded"), all(&["suspend"], "cancelled")].concat();
    assert_eq!(of_run(&actions, 1), expected, "{}", self::told(&actions));
    assert!(!alarm.is_quarantined() && alarm.status() == "ACTIVE");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn observe_mode_undoes_nothing_and_who_is_protected_by_now_is_left_alone() {
    let alarm = Alarm::new("", QUARANTINE).await;
    let (daemon, ledger) = alarm.answered().await;
    assert!(daemon.stop().success());

    alarm.configure("[guard]\nmode = \"observe\"", QUARANTINE);
    assert_eq!(steps(&alarm.revert(&["1", "--dry-run"])["undo"]), ["revert-quarantine"]);
    assert!(alarm.refused(&["1", "--yes"]).contains("mode = \"observe\""));
    let daemon = alarm.scene.daemon();
    alarm.sign_in();
    ledger.at_rest(2).await;
    let observed = String::from_utf8(alarm.scene.command(&["runs", "revert", "2"]).stdout).unwrap();
    assert!(observed.contains("run 2 only observed"), "{observed}");
    assert!(daemon.stop().success());

    alarm.configure(&format!("[guard]\nprotected_users = [\"{}\"]", alarm.ann.login), QUARANTINE);
    assert_eq!(alarm.revert(&["1", "--yes", "--despite-newer"])["planned"], 3);
    let daemon = alarm.scene.daemon();
    assert_eq!(ended(&ledger, 3).await, all(&["revert-quarantine"], "refused"));
    assert!(alarm.is_quarantined());
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_limits_nor_the_age_of_the_event_keep_a_person_from_reverting() {
    let alarm = Alarm::new("", QUARANTINE).await;
    let (daemon, ledger) = alarm.answered().await;
    assert!(daemon.stop().success());
    alarm.configure("[guard]\nmax_event_age = \"1s\"\n[guard.limits]\nper_playbook = 0", QUARANTINE);
    assert_eq!(alarm.revert(&["1", "--yes"])["planned"], 2);
    let daemon = alarm.scene.daemon();
    assert_eq!(ended(&ledger, 2).await, all(&["revert-quarantine"], "succeeded"), "{}", daemon.log());
    assert!(!alarm.is_quarantined());
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_groups_come_back_each_once() {
    let leave = "  [[playbook.step]]\n  name = \"leave\"\n  action = \"okta.group.remove_user_from_all\"\n";
    let alarm = Alarm::new("", leave).await;
    let org = &alarm.scene.org;
    let groups = ["Staff", "Sales"].map(|name| {
        let group = org.add_group(name);
        org.add_member(&group, &alarm.ann.id);
        group
    });
    let (daemon, ledger) = alarm.answered().await;
    assert!(groups.iter().all(|group| !org.is_member(group, &alarm.ann.id)));
    // One of them was given back by hand meanwhile.
    org.add_member(&groups[0], &alarm.ann.id);
    let told = alarm.revert(&["1", "--yes"]);
    assert_eq!(told["undo"][0]["action"], "okta.group.restore_user");
    assert_eq!(ended(&ledger, 2).await, all(&["revert-leave"], "succeeded"));
    assert!(groups.iter().all(|group| org.is_member(group, &alarm.ann.id)));
    assert_eq!(alarm.changes("group.add"), 1);
    assert!(daemon.stop().success());
}
