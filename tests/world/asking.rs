//! Facts that have to be asked for.

use std::time::Duration;

use okta_responder::demo::org::{Fault, Misbehaviour, OrgOptions, Service, User, events};
use okta_responder::model::ids::ActionId;
use okta_responder::store::PersonChange;

use super::support::Scene;
use super::support::every::FAST;
use super::support::ledger::{Ledger, told};

/// Needs the user before anything is decided.
const ASKS: &str = r#"
[[playbook]]
name = "asks"
on = ["user.session.start"]

  [[playbook.step]]
  name = "add"
  when = 'user.status == "ACTIVE"'
  action = "okta.group.add_user"
  with = { group = "High Risk Users" }
"#;

/// Needs nothing but the event.
const DOES_WITHOUT: &str = r#"
[[playbook]]
name = "does-without"
on = ["user.session.start"]

  [[playbook.step]]
  name = "sessions"
  action = "okta.user.clear_sessions"
"#;

/// Only tells something of the user.
const TELLS: &str = r##"
[[playbook]]
name = "tells"
on = ["user.session.start"]

  [[playbook.step]]
  name = "slack"
  action = "slack.message.post"
  with = { channel = "#security", text = "{{ user.login }} ({{ user.name }}) of {{ target.login }}" }
"##;

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_a_look_up_has_its_end() {
    let status = |code| Misbehaviour::status(code, r#"{"errorCode":"E0000001","errorSummary":"no"}"#);
    let faults = [
        ("passes", Misbehaviour::DropBefore),
        ("passes", Misbehaviour::DropAfter),
        ("passes", Misbehaviour::Delay(Duration::from_secs(5))),
        ("passes", Misbehaviour::TruncateBody),
        ("passes", Misbehaviour::EndlessBody),
        ("passes", Misbehaviour::Drip),
        ("passes", Misbehaviour::Html),
        ("passes", Misbehaviour::status(200, "null")),
        ("passes", Misbehaviour::Redirect("http://127.0.0.1:9/".to_owned())),
        ("passes", Misbehaviour::RateLimited { reset_in: Duration::from_secs(1) }),
        ("passes", Misbehaviour::ConcurrencyLimited { reset_in: Duration::from_secs(1) }),
        ("passes", status(401)),
        ("passes", status(500)),
        ("passes", status(503)),
        ("fails", status(400)),
        ("fails", status(403)),
        ("fails", status(404)),
    ];
    let scene = Scene::with(OrgOptions::default(), FAST, ASKS).await;
    let group = scene.org.add_group("High Risk Users");
    let mut users = Vec::new();
    for (number, (_, what)) in faults.iter().enumerate() {
        let user = scene.org.add_user(User::new(&format!("User{number}"), "Miller"));
        let path = format!("/api/v1/users/{}", user.id);
        scene.org.fault(Fault::new(Service::Okta, what.clone()).method("GET").path(&path));
        scene.org.push_event(events::sign_in(&user, "HIGH"));
        users.push(user);
    }
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    let actions = ledger.at_rest(faults.len()).await;
    assert_eq!(actions.len(), faults.len());
    for ((end, what), user) in faults.iter().zip(&users) {
        let action = actions.iter().find(|action| action.user.as_ref() == Some(&user.id)).unwrap();
        let passes = *end == "passes";
        assert_eq!(action.state, if passes { "succeeded" } else { "failed" }, "{what:?}: {}", told(&actions));
        assert_eq!(scene.org.is_member(&group, &user.id), passes, "{what:?}");
        let why = action.error.as_deref().unwrap_or_default();
        assert!(passes || why.contains("`user` is not known"), "{what:?}: {why}");
    }
    assert_eq!(scene.org.effects_of("group.add").len(), faults.iter().filter(|(end, _)| *end == "passes").count());
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_that_never_come_end_visibly_and_hold_up_nothing_that_can_do_without() {
    let settings = format!("{FAST}give_up_after = \"5s\"\n");
    let scene = Scene::with(OrgOptions::default(), &settings, &format!("{ASKS}{DOES_WITHOUT}{TELLS}")).await;
    let high = scene.org.add_group("High Risk Users");
    let ann = scene.org.add_user(User::new("Ann", "Miller"));
    let path = format!("/api/v1/users/{}", ann.id);
    let away = Fault::new(Service::Okta, Misbehaviour::status(500, "")).method("GET").path(&path);
    scene.org.fault(away.always());
    scene.org.push_event(events::sign_in(&ann, "HIGH"));
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    // What needs nothing is done while the event still waits.
    let done = ledger.wait_for("sessions", "succeeded").await;

    let failed = ledger.wait_for("add", "failed").await;
    let why = failed.error.unwrap();
    assert!(why.contains("`user` is not known: it could not be had in time") && why.contains("500"), "{why}");
    ledger.wait_for("slack", "succeeded").await;
    let text = &scene.org.slack_messages()[0].text;
    let unknown = "(not known: Okta could not be asked)";
    assert!(text.starts_with(&format!("{unknown} ({unknown}) of {}", ann.login)), "{text}");
    let log = daemon.log();
    assert_eq!(log.matches("an event is put off").count(), 1, "{log}");
    assert!(log.contains("`user` is given up"), "{log}");
    assert!(!scene.org.is_member(&high, &ann.id));
    assert!(done.run < failed.run, "it did not wait for the others");

    // A person has it tried again, and what is known then counts.
    scene.org.clear_faults();
    ledger.store.change_by_person(ActionId(failed.id), PersonChange::Retry, scene.org.now()).await.unwrap();
    ledger.wait_for("add", "succeeded").await;
    ledger.at_rest(1).await;
    assert!(scene.org.is_member(&high, &ann.id));
    assert_eq!((scene.org.effects_of("slack.post").len(), scene.org.effects_of("group.add").len()), (1, 1));
    assert!(daemon.stop().success());
}
