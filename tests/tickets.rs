//! A ticket's whole life: opened when a user's risk rises, written to when it changes, and ended when it is over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use std::time::Duration;

use okta_responder::demo::org::{
    Fault, Hold, JIRA_TOKEN, JIRA_USER, Misbehaviour, OrgOptions, PAGERDUTY_ROUTING_KEY, Service, User, events,
};
use okta_responder::store::ActionRow;
use support::every::FAST;
use support::ledger::{Ledger, told};
use support::{BOUND, Scene};

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

const ALERTS: &str = r#"
[[playbook]]
name = "rise"
on = ["user.session.start"]
when = 'risk.level == "HIGH"'

  [[playbook.step]]
  name = "trigger"
  action = "pagerduty.event.trigger"
    [playbook.step.with]
    summary = "User risk HIGH: {{ target.login }}"
    severity = "critical"
    correlation = "okta-user-{{ target.id }}"
    details = { ip = "{{ sign_in.ip }}" }
    links = [{ title = "System Log", url = "{{ links.syslog }}" }]

[[playbook]]
name = "end"
on = ["user.session.start"]
when = 'risk.level == "LOW"'

  [[playbook.step]]
  name = "resolve"
  action = "pagerduty.event.resolve"
  with = { correlation = "okta-user-{{ target.id }}" }
"#;

/// A scene with PagerDuty and Ann.
async fn on_duty() -> (Scene, User) {
    let scene = Scene::new("").await;
    let ann = scene.org.add_user(User::new("Ann", "Miller"));
    scene.secret("routing-key", PAGERDUTY_ROUTING_KEY);
    let (url, file) = (scene.org.pagerduty_url(), scene.dir.path().join("routing-key"));
    let section =
        format!("[pagerduty]\nurl = \"{url}\"\nrouting_key = {{ file = \"{}\" }}\ntimeout = \"2s\"\n", file.display());
    scene.configure(&format!("{FAST}{section}"), ALERTS);
    (scene, ann)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_is_open_once_and_over_in_the_end_although_answers_are_lost_and_sent_again() {
    let (scene, ann) = on_duty().await;
    let lost = || Fault::new(Service::PagerDuty, Misbehaviour::DropAfter).times(1);
    scene.org.fault(lost());
    scene.org.fault(Fault::new(Service::PagerDuty, Misbehaviour::status(503, "{}")).times(1));
    for level in ["HIGH", "HIGH"] {
        scene.org.push_event(events::sign_in(&ann, level));
    }
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    let actions = ledger.at_rest(2).await;
    assert!(actions.iter().all(|action| action.state == "succeeded"), "{}\n{}", told(&actions), daemon.log());
    let [alert] = &scene.org.alerts()[..] else { panic!("not one alert: {:?}", scene.org.alerts()) };
    assert_eq!((alert.open, alert.triggers), (true, 3), "the one whose answer was lost came twice");
    assert_eq!(alert.summary, format!("User risk HIGH: {}", ann.login));

    scene.org.fault(lost());
    scene.org.push_event(events::sign_in(&ann, "LOW"));
    let actions = ledger.at_rest(3).await;
    assert!(actions.iter().all(|action| action.state == "succeeded"), "{}\n{}", told(&actions), daemon.log());
    assert!(scene.org.alerts().iter().all(|alert| !alert.open));
    assert_eq!(scene.org.alerts().len(), 1);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routing_key_that_pagerduty_does_not_know_is_told_without_showing_it() {
    let (scene, ann) = on_duty().await;
    scene.org.replace_secrets(|secrets| secrets.pagerduty_routing_key = "another-key".to_owned());
    scene.org.push_event(events::sign_in(&ann, "HIGH"));
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    let actions = ledger.at_rest(1).await;
    let [action] = &actions[..] else { panic!("not one action") };
    assert_eq!((action.state.as_str(), action.reason.as_deref()), ("failed", Some("rejected")), "{}", told(&actions));
    assert!(action.error.as_deref().unwrap().contains("'routing_key' is missing or invalid"), "{}", told(&actions));
    assert!(!format!("{actions:?}{}", daemon.log()).contains(PAGERDUTY_ROUTING_KEY));
    assert!(daemon.stop().success());
}

const ISSUES: &str = r#"
[[playbook]]
name = "single"
on = ["user.session.start"]
when = 'risk.level == "HIGH"'

  [[playbook.step]]
  name = "single"
  action = "jira.issue.create"
    [playbook.step.with]
    project = "SEC"
    issue_type = "Task"
    summary = "User risk HIGH: {{ target.login }}"
    description = """
User: {{ target.name }}
System Log: {{ links.syslog }}
"""
    labels = ["okta", "risk {{ risk.level }}"]
    priority = "High"
    fields = { customfield_10010 = { value = "{{ risk.level }}" } }

[[playbook]]
name = "shared"
on = ["user.session.start"]
when = 'risk.level == "HIGH"'

  [[playbook.step]]
  name = "shared"
  action = "jira.issue.create"
  with = { project = "SEC", issue_type = "Incident", summary = "{{ target.login }}", correlation = "okta-user-{{ target.id }}" }
"#;

/// A scene with Jira, whose search lags, and Ann.
async fn with_jira(server: bool) -> (Scene, User) {
    let options =
        OrgOptions { jira_server: server, jira_search_lag: Duration::from_millis(1500), ..OrgOptions::default() };
    let scene = Scene::with(options, "", "").await;
    let ann = scene.org.add_user(User::new("Ann", "Miller"));
    scene.secret("jira-token", JIRA_TOKEN);
    let (url, file) = (scene.org.jira_url(), scene.dir.path().join("jira-token"));
    let way = if server { "flavor = \"server\"".to_owned() } else { format!("username = \"{JIRA_USER}\"") };
    let section = format!(
        "[jira]\nurl = \"{url}\"\n{way}\ntoken = {{ file = \"{}\" }}\nsearch_lag = \"2s\"\ntimeout = \"1s\"\n",
        file.display()
    );
    scene.configure(&format!("{FAST}{section}"), ISSUES);
    (scene, ann)
}

fn is_done(action: &ActionRow) -> bool {
    matches!(action.state.as_str(), "succeeded" | "settled")
}

/// What people see of the issues: how many there are of the one playbook and of the other.
fn issues(scene: &Scene) -> (usize, usize) {
    let all = scene.org.jira_issues();
    let shared = all.iter().filter(|issue| issue.labels.iter().any(|label| label.starts_with("okta-user-"))).count();
    (all.len() - shared, shared)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issue_is_created_once_although_its_answer_is_lost_and_the_search_does_not_show_it_yet() {
    let (scene, ann) = with_jira(false).await;
    scene.org.fault(Fault::new(Service::Jira, Misbehaviour::DropAfter).method("POST").path("/issue").times(1));
    for _ in 0..2 {
        scene.org.push_event(events::sign_in(&ann, "HIGH"));
    }
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    let actions = ledger.at_rest(2).await;
    assert!(actions.iter().all(is_done), "{}\n{}", told(&actions), daemon.log());
    let found = actions.iter().filter(|action| action.reason.as_deref() == Some("found_done")).count();
    assert_eq!((issues(&scene), found), ((2, 1), 1), "{}\n{}", told(&actions), daemon.log());
    let all = scene.org.jira_issues();
    let single = all.iter().find(|issue| issue.fields["issuetype"]["name"] == "Task").unwrap();
    assert_eq!(single.fields["customfield_10010"]["value"], "HIGH");
    assert!(single.labels.contains(&"risk-HIGH".to_owned()), "{:?}", single.labels);
    assert_eq!(single.fields["description"]["content"][0]["content"][0]["text"], "User: Ann Miller");

    let shared = all.iter().find(|issue| issue.fields["issuetype"]["name"] == "Incident").unwrap();
    let urls: Vec<_> = actions.iter().filter(|action| action.step == "shared").map(|action| &action.receipt).collect();
    assert!(urls.iter().all(|receipt| format!("{receipt:?}").contains(&format!("/browse/{}", shared.key))), "{urls:?}");
    assert!(scene.org.close_jira_issue(&shared.key));
    scene.org.push_event(events::sign_in(&ann, "HIGH"));
    ledger.at_rest(3).await;
    assert_eq!(issues(&scene), (3, 2), "what is closed is not reused");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issue_whose_answer_a_crash_swallowed_is_found_on_a_data_center() {
    let (scene, ann) = with_jira(true).await;
    let hold = Hold::new();
    scene.org.fault(Fault::new(Service::Jira, Misbehaviour::Hold(hold.clone())).method("POST").path("/issue").times(1));
    scene.org.push_event(events::sign_in(&ann, "HIGH"));
    let daemon = scene.daemon();
    hold.held(BOUND).await.unwrap();
    daemon.kill();
    hold.release();
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    let actions = ledger.at_rest(1).await;
    assert!(actions.iter().all(is_done), "{}\n{}", told(&actions), daemon.log());
    assert_eq!(issues(&scene), (1, 1), "{}\n{}", told(&actions), daemon.log());
    let all = scene.org.jira_issues();
    let single = all.iter().find(|issue| issue.fields["issuetype"]["name"] == "Task").unwrap();
    let text = single.fields["description"].as_str().unwrap();
    assert!(text.starts_with("{noformat}\nUser: Ann Miller\n"), "{text}");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_jira_asks_for_is_kept_and_what_it_refuses_is_told() {
    let (scene, ann) = with_jira(false).await;
    let single = ISSUES.split("[[playbook]]\nname = \"shared\"").next().unwrap();
    scene.edit(ISSUES, single);
    let limited = Misbehaviour::RateLimited { reset_in: Duration::from_secs(1) };
    scene.org.fault(Fault::new(Service::Jira, limited).method("POST").path("/issue").times(1));
    scene.org.push_event(events::sign_in(&ann, "HIGH"));
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    let actions = ledger.at_rest(1).await;
    assert_eq!(actions.iter().map(|action| action.attempts).collect::<Vec<_>>(), [2], "{}", told(&actions));
    assert_eq!(issues(&scene), (1, 0));

    scene.org.jira_requires("customfield_10011");
    scene.org.push_event(events::sign_in(&ann, "HIGH"));
    let actions = ledger.at_rest(2).await;
    let last = actions.last().unwrap();
    assert_eq!((last.state.as_str(), last.reason.as_deref()), ("failed", Some("rejected")), "{}", told(&actions));
    assert!(last.error.as_deref().unwrap().contains("`customfield_10011`: customfield_10011 is required."));
    assert!(daemon.stop().success());
}
