//! A ticket's whole life: opened when a user's risk rises, written to when it changes, and ended when it is over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use okta_responder::demo::org::{Fault, Misbehaviour, Service, User, events};
use support::Scene;
use support::every::FAST;
use support::ledger::{Ledger, told};

const PLAYBOOKS: &str = r#"
[[playbook]]
name = "rise"
on = ["user.session.start"]
when = 'risk.level == "HIGH"'

  [[playbook.step]]
  name = "open"
  action = "servicenow.incident.create"
  with = { short_description = "User risk HIGH: {{ target.login }}", correlation = "okta-user-{{ target.id }}", work_notes = "opened" }

[[playbook]]
name = "change"
on = ["user.session.start"]
when = 'risk.level == "MEDIUM"'

  [[playbook.step]]
  name = "note"
  action = "servicenow.incident.update"
  with = { correlation = "okta-user-{{ target.id }}", work_notes = "Risk is MEDIUM now.", urgency = 3 }

[[playbook]]
name = "end"
on = ["user.session.start"]
when = 'risk.level == "LOW"'

  [[playbook.step]]
  name = "resolve"
  action = "servicenow.incident.resolve"
  with = { correlation = "okta-user-{{ target.id }}", close_code = "No resolution provided", close_notes = "Risk is LOW again." }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_is_opened_noted_and_resolved_once_each_although_every_answer_is_lost() {
    for table in ["incident", "sn_si_incident"] {
        let scene = Scene::new("").await;
        let ann = scene.org.add_user(User::new("Ann", "Miller"));
        scene.configure(FAST, PLAYBOOKS);
        scene.edit("[servicenow]", &format!("[servicenow]\ntable = \"{table}\""));
        scene
            .org
            .fault(Fault::new(Service::ServiceNow, Misbehaviour::DropAfter).method("POST").path("/table/").times(1));
        scene
            .org
            .fault(Fault::new(Service::ServiceNow, Misbehaviour::DropAfter).method("PATCH").path("/table/").times(2));
        // One event after the other in the log: what they do to one incident keeps their order.
        for level in ["HIGH", "MEDIUM", "LOW"] {
            scene.org.push_event(events::sign_in(&ann, level));
        }
        let daemon = scene.daemon();
        let ledger = Ledger::of(&scene).await;
        let actions = ledger.at_rest(3).await;
        let ends: Vec<_> = actions.iter().map(|action| (action.step.as_str(), action.reason.as_deref())).collect();
        let found = Some("found_done");
        assert_eq!(ends.len(), 3, "{}", told(&actions));
        for step in ["open", "note", "resolve"] {
            assert!(ends.contains(&(step, found)), "{step}: {}\n{}", told(&actions), daemon.log());
        }
        let [record] = &scene.org.records(table)[..] else { panic!("not one record: {:?}", scene.org.records(table)) };
        assert_eq!(record["urgency"], "3");
        assert_eq!(record["state"], if table == "incident" { "6" } else { "3" });
        assert_eq!(record["close_notes"], "Risk is LOW again.");
        assert_eq!(record["work_notes"].as_str().unwrap().matches("Risk is MEDIUM now.").count(), 1);
        assert!(daemon.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_without_an_incident_fails_and_an_end_without_one_is_no_trouble() {
    let scene = Scene::new("").await;
    let ann = scene.org.add_user(User::new("Ann", "Miller"));
    scene.configure(FAST, PLAYBOOKS);
    for level in ["MEDIUM", "LOW"] {
        scene.org.push_event(events::sign_in(&ann, level));
    }
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    let actions = ledger.at_rest(2).await;
    let end = |step: &str| actions.iter().find(|action| action.step == step).map(|action| action.state.as_str());
    assert_eq!((end("note"), end("resolve")), (Some("failed"), Some("succeeded")), "{}", told(&actions));
    assert!(scene.org.records("incident").is_empty());
    assert!(daemon.stop().success());
}
