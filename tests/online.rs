//! `check` and `check --online`: what has to be granted is told, every row that can fail is made to fail, and nothing is
//! changed anywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use okta_responder::demo::org::{
    AppKey, Fault, GroupKind, JIRA_TOKEN, JIRA_USER, Misbehaviour, OrgOptions, PAGERDUTY_ROUTING_KEY, Service,
    ServiceApp, Ungranted, User, events, slack_channel_id,
};
use rcgen::PublicKeyData;
use serde_json::Value;
use support::every::FAST;
use support::ledger::Ledger;
use support::{Scene, eventually};

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
            "risk events",
            "Okta admin role",
            "group High Risk Users",
            "group Medium Risk Users",
            "Okta rate",
            "ServiceNow table",
            "ServiceNow rights",
            "Slack token",
            "Slack scopes",
            "Slack channel #security",
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
async fn a_role_that_may_end_sessions_may_not_suspend_or_log_out() {
    let scene = Scene::with(OrgOptions::default(), "", "").await;
    for group in ["High Risk Users", "Medium Risk Users"] {
        scene.org.add_group(group);
    }
    scene.org.give_role(scene.org.token_owner(), "HELP_DESK_ADMIN");
    let row = "Okta admin role";
    for (action, with, lacking) in [
        ("okta.user.suspend", "{}", "Group Administrator"),
        ("okta.user.universal_logout", "{}", "Organization Administrator"),
        ("okta.user.set_risk", r#"{ level = "HIGH" }"#, "Organization Administrator"),
        ("okta.device.suspend", r#"{ devices = "all" }"#, "Organization Administrator"),
        ("okta.review.start", "{}", "Access Certifications Administrator"),
    ] {
        scene.configure("", &step(action, with));
        check(&scene, row, "failed", 1, &[lacking]);
    }
    scene.configure("", &step("okta.user.reset_factors", "{}"));
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
    // In whatever parameter it is named.
    let missing = ["here", "there", "elsewhere", "kept", "denied"];
    let moves = step("okta.group.move_user", r#"{ from = "here", to = "there" }"#);
    let leaves = step("okta.group.remove_user_from_all", r#"{ except = ["kept"] }"#).replace("\"p\"", "\"q\"");
    let returns = step("okta.group.restore_user", r#"{ groups = ["elsewhere"] }"#).replace("\"p\"", "\"r\"");
    let denies = r#"{ app = "0oa1", via_groups = "restrict", restrict_group = "denied" }"#;
    let denies = step("okta.app.unassign_user", denies).replace("\"p\"", "\"t\"");
    scene.configure("", &[moves, leaves, returns, denies].concat());
    for name in missing {
        check(&scene, &format!("group {name}"), "failed", 1, &["there is no group"]);
    }
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
    let row = |channel: &str| format!("Slack channel {channel}");
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
    check(&scene, &row("#general"), "ok", 0, &["the app is in it, for playbook"]);
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

#[tokio::test(flavor = "multi_thread")]
async fn jira_tells_who_we_are_and_in_which_projects_issues_can_be_created() {
    let scene = scene("", GROUP).await;
    scene.secret("jira-token", JIRA_TOKEN);
    let (url, dir) = (scene.org.jira_url(), scene.dir.path().display().to_string());
    let section =
        format!("[jira]\nurl = \"{url}\"\nusername = \"{JIRA_USER}\"\ntoken = {{ file = \"{dir}/jira-token\" }}\n");
    let create = |project: &str, kind: &str| {
        let with = format!("{{ project = \"{project}\", issue_type = \"{kind}\", summary = \"x\" }}");
        scene.configure(&section, &step("jira.issue.create", &with));
    };
    create("SEC", "task");
    check(&scene, "Jira account", "ok", 0, &["`Okta Responder`"]);
    check(&scene, "Jira project SEC", "ok", 0, &["`Security`", "issues can be created, for playbook"]);
    create("SEC", "Epic");
    check(&scene, "Jira project SEC", "failed", 1, &["no type of issue `Epic`", "`Task`, `Bug`, `Incident`"]);
    create("HR", "Task");
    check(&scene, "Jira project HR", "failed", 1, &["no such project", "browse"]);
    create("{{ target.id }}", "Task");
    assert!(rows(&scene).1.iter().all(|row| !row["check"].as_str().unwrap().starts_with("Jira project")));
    create("SEC", "Task");
    scene.org.jira_lets_create(false);
    check(&scene, "Jira project SEC", "failed", 1, &["may not create", "Create issues"]);
    scene.edit("[jira]\n", "[jira]\nflavor = \"server\"\n");
    check(&scene, "Jira account", "failed", 1, &["404", "check `url` and `flavor`"]);
    create("SEC", "Task");
    scene.org.replace_secrets(|secrets| secrets.jira_token = "another".to_owned());
    check(&scene, "Jira account", "failed", 1, &["401", "credentials"]);
    let (_, rows) = rows(&scene);
    assert!(!format!("{rows:?}").contains(JIRA_TOKEN));
}

#[tokio::test(flavor = "multi_thread")]
async fn pagerduty_is_asked_without_an_event() {
    let scene = scene("", GROUP).await;
    scene.secret("routing-key", PAGERDUTY_ROUTING_KEY);
    let (url, dir) = (scene.org.pagerduty_url(), scene.dir.path().display().to_string());
    let section =
        |url: &str| format!("[pagerduty]\nurl = \"{url}\"\nrouting_key = {{ file = \"{dir}/routing-key\" }}\n");
    scene.configure(&section(&url), GROUP);
    check(&scene, "PagerDuty", "note", 0, &["answers", "without an event"]);
    assert!(scene.org.alerts().is_empty());
    scene.configure(&section("http://127.0.0.1:1"), GROUP);
    check(&scene, "PagerDuty", "failed", 69, &["reaching PagerDuty"]);
    let (_, rows) = rows(&scene);
    assert!(!format!("{rows:?}").contains(PAGERDUTY_ROUTING_KEY));
}

const CLIENT: &str = "0oa1responder0000001";

/// Signs in as a service app that is granted these scopes, in place of the API token.
fn as_app(scene: &Scene, scopes: &[&str]) {
    let key = rcgen::KeyPair::generate().unwrap();
    scene.secret("key.pem", &key.serialize_pem());
    let public = AppKey::Spki { kid: "k1".to_owned(), der: key.subject_public_key_info() };
    scene.org.register_app(ServiceApp::new(CLIENT, vec![public]).granted(scopes.iter().copied()));
    let dir = scene.dir.path().display();
    scene.edit(
        &format!("token = {{ file = \"{dir}/okta-token\" }}"),
        &format!("client_id = \"{CLIENT}\"\nprivate_key = {{ file = \"{dir}/key.pem\" }}\nkey_id = \"k1\""),
    );
}

/// What `check` tells to grant.
fn scopes_to_grant(scene: &Scene) -> Vec<String> {
    let told = scene.json(&["check", "--format", "json"]);
    told["scopes"].as_array().unwrap().iter().map(|scope| scope.as_str().unwrap().to_owned()).collect()
}

/// Everything that a playbook can ask of Okta.
const EVERYTHING: &str = r##"
[[playbook]]
name = "everything"
on = ["user.risk.detect"]

  [[playbook.step]]
  name = "add"
  when = '!("Elsewhere" in groups) && manager == null'
  action = "okta.group.add_user"
  with = { group = "High Risk Users" }

  [[playbook.step]]
  name = "remove"
  after = ["add"]
  action = "okta.group.remove_user"
  with = { group = "Medium Risk Users" }

  [[playbook.step]]
  name = "take-away"
  action = "okta.app.unassign_user"
  with = { app = "APP" }

  [[playbook.step]]
  name = "end"
  action = "okta.user.clear_sessions"
"##;

#[tokio::test(flavor = "multi_thread")]
async fn what_check_tells_to_grant_is_enough_for_everything() {
    let scene = scene("", GROUP).await;
    let app = scene.org.add_app("Payroll");
    let guard = "[guard]\nprotected_roles = [\"any\"]\nprotected_members_of = [\"High Risk Users\"]\n[poll]\nstart_from = \"1h\"\n";
    scene.configure(guard, &EVERYTHING.replace("APP", &app));
    let wanted = scopes_to_grant(&scene);
    as_app(&scene, &wanted.iter().map(String::as_str).collect::<Vec<_>>());
    let (exit, found) = rows(&scene);
    assert_eq!(exit, 0, "{found:#?}");
    check(&scene, "Okta token", "ok", 0, &[CLIENT, "DPoP", "1h"]);
    for scope in &wanted {
        check(&scene, &format!("scope {scope}"), "ok", 0, &["granted"]);
    }
    check(&scene, "Okta admin role", "ok", 0, &["SUPER_ADMIN"]);

    let user = scene.org.add_user(User::new("Ann", "Miller"));
    scene.org.assign(&app, &user.id);
    let medium = scene.org.add_group("Medium Risk Users too");
    scene.edit("with = { group = \"Medium Risk Users\" }", "with = { group = \"Medium Risk Users too\" }");
    scene.org.add_member(&medium, &user.id);
    let daemon = scene.daemon();
    scene.org.push_event(events::risk_detected(&user, "LOW", "HIGH"));
    for kind in ["group.add", "group.remove", "app.unassign", "sessions.clear"] {
        eventually(async || match scene.org.effects_of(kind).len() {
            0 => Err(format!("no {kind}: {}", daemon.log())),
            _ => Ok(()),
        })
        .await;
    }
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_check_tells_to_grant_for_one_action_is_enough_for_it() {
    for (action, with) in [
        ("okta.group.move_user", r#"from = "Medium Risk Users", to = "High Risk Users""#),
        ("okta.group.remove_user_from_all", ""),
        ("okta.app.unassign_user", r#"app = "APP", via_groups = "remove""#),
        ("okta.user.suspend", ""),
        ("okta.user.deactivate", ""),
        ("okta.user.expire_password", ""),
        ("okta.user.reset_factors", ""),
        ("okta.user.universal_logout", ""),
        ("okta.user.set_risk", r#"level = "HIGH""#),
        ("okta.device.suspend", r#"devices = "all""#),
        ("okta.review.start", r#"fallback_reviewer = "security.lead@example.com""#),
    ] {
        let scene = Scene::with(OrgOptions::default(), "", "").await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        scene.org.add_user(User::new("Security", "Lead"));
        scene.org.add_device(&[&user.id]);
        let (app, group) = (scene.org.add_app("Payroll"), scene.org.add_group("Medium Risk Users"));
        scene.org.add_group("High Risk Users");
        scene.org.add_member(&group, &user.id);
        scene.org.assign_group(&app, &group);
        scene.configure(FAST, &step(action, &format!("{{ {with} }}").replace("APP", &app)));
        let wanted = scopes_to_grant(&scene);
        as_app(&scene, &wanted.iter().map(String::as_str).collect::<Vec<_>>());
        scene.org.push_event(events::sign_in(&user, "LOW"));
        let daemon = scene.daemon();
        let ledger = Ledger::of(&scene).await;
        let actions = ledger.at_rest(1).await;
        let ended: Vec<_> = actions.iter().map(|done| (done.state.as_str(), done.reason.as_deref())).collect();
        assert_eq!(ended, [("succeeded", None)], "{action} with {wanted:?}: {}", daemon.log());
        assert!(!scene.org.effects().is_empty(), "{action}");
        assert!(daemon.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_scope_that_is_missing_is_named_whether_okta_leaves_it_out_or_refuses_all() {
    for ungranted in [Ungranted::LeftOut, Ungranted::Refused] {
        let options = OrgOptions { ungranted, ..OrgOptions::default() };
        let scene = Scene::with(options, "", GROUP).await;
        scene.org.add_group("High Risk Users");
        scene.org.add_group("Medium Risk Users");
        as_app(&scene, &["okta.logs.read", "okta.users.read"]);
        check(&scene, "Okta token", "ok", 1, &[CLIENT]);
        check(&scene, "scope okta.logs.read", "ok", 1, &[]);
        check(
            &scene,
            "scope okta.groups.manage",
            "failed",
            1,
            &["grant okta.groups.manage", "Okta API Scopes", "quarantine"],
        );
        check(&scene, "Okta log", "ok", 1, &[]);
        check(&scene, "group High Risk Users", "note", 1, &["not asked without okta.groups.read"]);
        scene.org.ungrant_scope(CLIENT, "okta.logs.read");
        scene.org.ungrant_scope(CLIENT, "okta.users.read");
        check(&scene, "Okta token", "failed", 1, &[]);
        check(&scene, "scope okta.logs.read", "failed", 1, &["grant okta.logs.read"]);
        check(&scene, "rest of Okta", "note", 1, &[]);
        check(&scene, "mail server", "ok", 1, &[]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_without_the_role_or_the_key_is_told_so() {
    let scene = scene("", GROUP).await;
    let wanted = scopes_to_grant(&scene);
    as_app(&scene, &wanted.iter().map(String::as_str).collect::<Vec<_>>());
    scene.org.set_app_roles(CLIENT, &[]);
    check(&scene, "Okta log", "failed", 1, &["grant Read-only Administrator"]);
    check(&scene, "scope okta.logs.read", "ok", 1, &[]);
    check(&scene, "Okta admin role", "note", 1, &["okta.roles.read", "Group Membership Administrator"]);
    scene.org.set_app_roles(CLIENT, &["READ_ONLY_ADMIN"]);
    check(&scene, "Okta log", "ok", 0, &[]);
    scene.secret("key.pem", &rcgen::KeyPair::generate().unwrap().serialize_pem());
    check(&scene, "Okta token", "failed", 1, &[CLIENT]);
    let (_, rows) = rows(&scene);
    let refused = rows.iter().find(|row| row["check"] == "Okta token").unwrap();
    assert!(refused["detail"].as_str().unwrap().starts_with("no access token: "), "{refused}");
    assert!(refused["remedy"].as_str().unwrap().starts_with("see that `okta.client_id`"), "{refused}");
    assert!(!refused["detail"].as_str().unwrap().contains("see that"), "{refused}");
    check(&scene, "rest of Okta", "note", 1, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_check_would_need_is_not_asked_of_an_app() {
    let tell = step("slack.message.post", r##"{ channel = "#security", text = "x" }"##);
    let scene = scene("[guard]\nprotected_groups = [\"High Risk Users\"]\n", &tell).await;
    as_app(&scene, &["okta.logs.read"]);
    check(&scene, "group High Risk Users", "note", 0, &["okta.groups.read", "nothing else"]);
}
