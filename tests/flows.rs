//! The flows of the shipped playbooks, end to end.

mod support;

use okta_responder::demo::org::{User, events};
use support::{BOUND, Scene};

const QUARANTINE: &str = r##"
[[playbook]]
name = "user-risk-changed"
on = ["user.risk.detect"]

  [[playbook.step]]
  name = "quarantine"
  when = 'risk.level == "HIGH"'
  action = "okta.group.add_user"
  with = { group = "High Risk Users" }

  [[playbook.step]]
  name = "incident"
  when = 'risk.level == "HIGH"'
  action = "servicenow.incident.create"
  with = { short_description = "User risk HIGH: {{ user.login }}", urgency = 1, impact = 2 }

  [[playbook.step]]
  name = "tell"
  after = ["quarantine", "incident"]
  wait = "30s"
  action = "slack.message.post"
  with = { channel = "#security", text = "{{ user.login }}: {{ steps.quarantine.state }} {{ steps.incident.number }} {{ links.syslog }}" }
"##;

#[tokio::test(flavor = "multi_thread")]
async fn a_risky_user_is_quarantined_and_people_are_told() {
    let scene = Scene::new(QUARANTINE).await;
    let group = scene.org.add_group("High Risk Users");
    let user = scene.org.add_user(User::new("Ann", "Miller"));
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    scene.org.push_event(events::risk_detected(&user, "LOW", "HIGH"));
    let told = scene.org.wait_for(|org| !org.slack_messages().is_empty(), BOUND).await;
    assert!(told.is_ok(), "{}", daemon.log());
    assert!(scene.org.is_member(&group, &user.id));
    assert_eq!(scene.org.incidents().len(), 1);
    assert!(daemon.stop().success());
}
