//! `check` and `check --online`: what has to be granted is told, every row that can fail is made to fail, and nothing is
//! changed anywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use okta_responder::demo::org::{Fault, GroupKind, Misbehaviour, OrgOptions, Service, User, events, slack_channel_id};
use serde_json::Value;
use support::Scene;

const GROUP: &str = r##"
[[playbook]]
name = "quarantine"
on = ["user.risk.detect"]

  [[playbook.step]]
  name = "add"
  action = "okta.group.add_user"
  with = { group = "High Risk Users" }
"##;

/// What everything in these tests may do.
async fn scene(extra: &str, playbooks: &str) -> Scene {
    let scene = Scene::with(OrgOptions::default(), extra, playbooks).await;
    scene.org.add_group("High Risk Users");
    scene.org.add_group("Medium Risk Users");
    scene.org.give_role(scene.org.token_owner(), "SUPER_ADMIN");
    scene
}

fn step(action: &str, with: &str) -> String {
    format!(
        "[[playbook]]\nname = \"p\"\non = [\"user.session.start\"]\n[[playbook.step]]\nname = \"s\"\naction = \"{action}\"\nwith = {with}\n"
    )
}

/// The rows of `check --online`, and its exit code.
fn rows(scene: &Scene) -> (i32, Vec<Value>) {
    let output = scene.command(&["check", "--online", "--format", "json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code().unwrap(), rows)
}

/// That one row stands so, and says all this; and the exit code.
#[track_caller]
fn check(scene: &Scene, row: &str, state: &str, code: i32, parts: &[&str]) {
    let (exit, rows) = rows(scene);
    let found: Vec<_> = rows.iter().filter(|found| found["check"] == row).collect();
    let [found] = found[..] else { panic!("{row}: {rows:#?}") };
    assert_eq!((found["state"].as_str().unwrap(), exit), (state, code), "{rows:#?}");
    assert_eq!(found["ok"], state != "failed");
    let text = format!("{} {}", found["detail"], found["remedy"]);
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
    assert_eq!(scene.org.effects(), [], "something was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_have_one_form_and_one_order() {
    let slack = step("slack.message.post", r##"{ channel = "#security", text = "x" }"##);
    let scene = scene("", &format!("{GROUP}{slack}")).await;
    let (exit, rows) = rows(&scene);
    assert_eq!(exit, 0, "{rows:#?}");
    let keys = ["check", "detail", "ok", "remedy", "state", "unreachable"];
    for row in &rows {
        let mut found: Vec<_> = row.as_object().unwrap().keys().map(String::as_str).collect();
        found.sort_unstable();
        assert!(keys.iter().all(|key| found.contains(key)) && found.len() == keys.len(), "{row}");
    }
    let order: Vec<_> = rows.iter().map(|row| row["check"].as_str().unwrap()).collect();
    assert_eq!(
        order,
        [
            "Okta token",
            "Okta log",
            "clock",
            "Okta rate",
            "risk events",
            "Okta admin role",
            "group High Risk Users",
            "group Medium Risk Users",
            "ServiceNow table",
            "ServiceNow rights",
            "Slack token",
            "Slack scopes",
            "Slack channel #security of playbook \"p\", step \"s\"",
            "mail server",
        ]
    );
    let text = scene.command(&["check", "--online"]);
    assert!(String::from_utf8(text.stdout).unwrap().ends_with("\nthe daemon would work\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_to_be_granted_is_told_before_anything_is_asked() {
    let scene = scene("[guard]\nprotected_roles = [\"any\"]\n", GROUP).await;
    let told = scene.json(&["check", "--format", "json"]);
    let scopes: Vec<_> =
        told["rights"].as_array().unwrap().iter().map(|right| right["scope"].as_str().unwrap()).collect();
    assert_eq!(
        scopes,
        ["okta.logs.read", "okta.users.read", "okta.roles.read", "okta.groups.read", "okta.groups.manage"]
    );
    assert_eq!(told["rights"][4]["for"][0], "playbook \"quarantine\", step \"add\" (okta.group.add_user)");
    assert_eq!(told["wants_risk_events"], true);
    let text = String::from_utf8(scene.command(&["check", "--verbose"]).stdout).unwrap();
    for part in ["Group Membership Administrator", "okta.groups.members.manage", "for: [guard] protected_roles"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(scene.org.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_failure_hides_no_later_row() {
    let scene = scene("", GROUP).await;
    scene.org.fault(Fault::new(Service::Okta, Misbehaviour::status(500, "{}")).path("/users/me").always());
    check(&scene, "Okta token", "failed", 69, &[]);
    check(&scene, "group High Risk Users", "ok", 69, &[]);
    scene.org.clear_faults();
    let refused = r#"{"errorCode":"E0000006","errorSummary":"You do not have permission"}"#;
    scene.org.fault(Fault::new(Service::Okta, Misbehaviour::status(403, refused)).path("/logs").always());
    check(&scene, "Okta log", "failed", 1, &["grant Read-only Administrator"]);
    check(&scene, "group High Risk Users", "ok", 1, &[]);
    check(&scene, "mail server", "ok", 1, &[]);
    scene.org.clear_faults();
    scene.org.fault(Fault::new(Service::Okta, Misbehaviour::status(403, refused)).path("/groups").always());
    check(&scene, "group High Risk Users", "failed", 1, &["read groups", "okta.groups.read"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_risk_are_visible_or_it_is_said_who_sees_them() {
    let scene = scene("", GROUP).await;
    check(&scene, "risk events", "ok", 0, &["directly assigned super administrator, as we are"]);
    let lesser = Scene::with(OrgOptions::default(), "", GROUP).await;
    for group in ["High Risk Users", "Medium Risk Users"] {
        lesser.org.add_group(group);
    }
    lesser.org.give_role(lesser.org.token_owner(), "ORG_ADMIN");
    check(&lesser, "risk events", "note", 0, &["Identity Threat Protection", "super administrator"]);
    let user = lesser.org.add_user(User::new("Ann", "Miller"));
    lesser.org.push_event(events::risk_detected(&user, "LOW", "HIGH"));
    check(&lesser, "risk events", "ok", 0, &["visible"]);
    // Nothing else wants them.
    lesser.configure("", &step("slack.message.post", r##"{ channel = "#security", text = "x" }"##));
    assert!(rows(&lesser).1.iter().all(|row| row["check"] != "risk events"));
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_roles_that_are_not_enough_are_told_with_those_that_are() {
    let scene = Scene::with(OrgOptions::default(), "", GROUP).await;
    for group in ["High Risk Users", "Medium Risk Users"] {
        scene.org.add_group(group);
    }
    let row = "Okta admin role";
    check(&scene, row, "note", 0, &["none", "Group Membership Administrator"]);
    let refused = r#"{"errorCode":"E0000006","errorSummary":"You do not have permission"}"#;
    scene.org.fault(Fault::new(Service::Okta, Misbehaviour::status(403, refused)).path("/roles").always());
    check(&scene, row, "note", 0, &["Group Membership Administrator"]);
    scene.configure("[guard]\nprotected_roles = [\"any\"]\n", GROUP);
    check(&scene, "protected roles", "failed", 1, &["okta.iam.read"]);
    scene.org.clear_faults();
    scene.org.give_role(scene.org.token_owner(), "HELP_DESK_ADMIN");
    check(&scene, row, "failed", 1, &["change the members of groups", "grant Group Membership Administrator"]);
    scene.configure("", &step("okta.user.clear_sessions", "{}"));
    check(&scene, row, "ok", 0, &[]);
    scene.configure("", GROUP);
    scene.org.give_role(scene.org.token_owner(), "CUSTOM");
    check(&scene, row, "note", 0, &["cannot be told without doing it"]);
    scene.org.give_role(scene.org.token_owner(), "GROUP_MEMBERSHIP_ADMIN");
    check(&scene, row, "ok", 0, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_has_to_be_one_and_ours_where_it_is_changed() {
    let scene = scene("", GROUP).await;
    let named = |name: &str| scene.configure("", &GROUP.replace("High Risk Users", name));
    let imported = scene.org.add_group_of("Imported", GroupKind::App);
    named("Imported");
    check(&scene, "group Imported", "failed", 1, &["APP_GROUP", &imported, "made in Okta"]);
    named("Everyone");
    check(&scene, "group Everyone", "failed", 1, &["BUILT_IN"]);
    scene.org.add_group("Twice");
    scene.org.add_group("Twice");
    named("Twice");
    check(&scene, "group Twice", "failed", 1, &["Twice"]);
    named("Nowhere");
    check(&scene, "group Nowhere", "failed", 1, &["there is no group", "quarantine"]);
    // Where it is only read, an imported one will do.
    scene.configure("[guard]\nprotected_members_of = [\"Imported\"]\n", GROUP);
    check(&scene, "group Imported", "ok", 0, &["APP_GROUP"]);
    // One group under two names is two lanes.
    let id = scene.org.add_group("Both");
    scene.configure(&format!("[guard]\nprotected_groups = [\"{id}\"]\n"), &GROUP.replace("High Risk Users", "Both"));
    check(&scene, &format!("group {id}: names"), "note", 0, &["`Both`", "in several ways"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_groups_grant_is_told_with_its_groups() {
    let scene = scene("", GROUP).await;
    let app = scene.org.add_app("Payroll");
    scene.configure("", &step("okta.app.unassign_user", &format!("{{ app = \"{app}\" }}")));
    let (row, groups) = (format!("app {app}"), format!("app {app}: groups"));
    check(&scene, &row, "ok", 0, &["Payroll"]);
    check(&scene, &groups, "ok", 0, &["no group"]);
    let group = scene.org.add_group("Staff");
    scene.org.assign_group(&app, &group);
    check(&scene, &groups, "note", 0, &["1 group", "okta.group.remove_user"]);
    let inactive = r#"{"id":"x","label":"Payroll","status":"INACTIVE"}"#;
    scene.org.fault(Fault::new(Service::Okta, Misbehaviour::status(200, inactive)).path(&format!("/apps/{app}")));
    check(&scene, &row, "note", 0, &["INACTIVE"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_risk_of_users_has_to_be_readable_where_it_is_asked_for() {
    let playbook = GROUP.replace("[[playbook.step]]", "[[playbook.step]]\n  when = 'user_risk == \"HIGH\"'");
    let scene = scene("", &playbook).await;
    scene.edit("source = \"groups\"", "source = \"okta\"");
    check(&scene, "user risk", "ok", 0, &[]);
    let absent = r#"{"errorCode":"E0000015","errorSummary":"You do not have permission to access the feature"}"#;
    scene.org.fault(Fault::new(Service::Okta, Misbehaviour::status(401, absent)).path("/risk").always());
    check(&scene, "user risk", "failed", 1, &["does not have this feature"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_is_told_by_how_much() {
    let options = OrgOptions { clock_offset: jiff::SignedDuration::from_secs(-423), ..OrgOptions::default() };
    let scene = Scene::with(options, "", GROUP).await;
    for group in ["High Risk Users", "Medium Risk Users"] {
        scene.org.add_group(group);
    }
    check(&scene, "clock", "note", 0, &["7m", "ahead of Okta's", "NTP"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn servicenow_is_read_and_what_its_account_may_is_told_as_far_as_it_shows() {
    let scene = scene("", GROUP).await;
    let row = "ServiceNow rights";
    check(&scene, row, "ok", 0, &["cannot be tried without creating a record", "`itil`"]);
    scene.org.servicenow_roles(Some(&["snc_read_only"]));
    check(&scene, row, "note", 0, &["`snc_read_only`", "such as `itil`"]);
    scene.org.servicenow_roles(Some(&[]));
    check(&scene, row, "note", 0, &["shows no roles"]);
    scene.org.servicenow_roles(None);
    check(&scene, row, "note", 0, &["could not be read"]);
    let refused = r#"{"error":{"message":"Insufficient rights"},"status":"failure"}"#;
    scene.org.fault(Fault::new(Service::ServiceNow, Misbehaviour::status(403, refused)).path("/incident").always());
    check(&scene, "ServiceNow table", "failed", 1, &["403"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn slack_channels_have_to_be_there_and_joined() {
    let slack = |channel: &str| step("slack.message.post", &format!("{{ channel = \"{channel}\", text = \"x\" }}"));
    let row = |channel: &str| format!("Slack channel {channel} of playbook \"p\", step \"s\"");
    let scene = scene("", &slack("#security")).await;
    let id = slack_channel_id("security");
    scene.org.slack_leave("security");
    check(&scene, &row("#security"), "failed", 1, &["not in a channel", "/invite"]);
    scene.configure("", &slack(&id));
    check(&scene, &row(&id), "failed", 1, &["/invite"]);
    scene.org.slack_scopes("chat:write,chat:write.public,channels:read,groups:read");
    check(&scene, &row(&id), "note", 0, &["chat:write.public"]);
    scene.org.slack_scopes("chat:write");
    check(&scene, &row(&id), "note", 0, &["channels:read"]);
    scene.org.slack_scopes("channels:read");
    check(&scene, "Slack scopes", "failed", 1, &["chat:write", "install"]);

    scene.org.slack_scopes("chat:write,channels:read");
    scene.configure("", &slack("#general"));
    check(&scene, &row("#general"), "ok", 0, &[]);
    scene.configure("", &slack("#private-security"));
    check(&scene, &row("#private-security"), "note", 0, &["groups:read"]);
    scene.org.slack_scopes("chat:write,channels:read,groups:read");
    // The third of the channels stands on the second page.
    scene.configure("", &slack("#private-security"));
    check(&scene, &row("#private-security"), "ok", 0, &[]);
    let nowhere = slack_channel_id("nowhere");
    scene.configure("", &slack(&nowhere));
    check(&scene, &row(&nowhere), "failed", 1, &["no such channel"]);
    scene.org.slack_archive("general");
    let general = slack_channel_id("general");
    scene.configure("", &slack(&general));
    check(&scene, &row(&general), "failed", 1, &["archived"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_are_not_posted_to_and_their_hosts_are_asked() {
    let scene = scene("", GROUP).await;
    scene.secret("teams", &scene.org.teams_webhook_url());
    let file = scene.dir.path().join("teams").display().to_string();
    scene.configure(&format!("[teams]\nwebhook_url = {{ file = \"{file}\" }}\n"), GROUP);
    check(&scene, "Teams webhook", "note", 0, &["without posting"]);
    scene.secret("teams", "http://127.0.0.1:1/workflows/w?sig=secretsignature");
    check(&scene, "Teams webhook", "failed", 69, &["Teams webhook"]);
    let (_, rows) = rows(&scene);
    assert!(!format!("{rows:?}").contains("secretsignature"));
}
