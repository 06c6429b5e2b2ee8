//! The command line: what people read, what goes wrong and how it is told, and that commands and the daemon leave each
//! other in peace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use okta_responder::demo::org::{Fault, Misbehaviour, OrgOptions, Service, User, events};
use okta_responder::store::InstanceLock;
use serde_json::Value;
use support::{BOUND, Mounted, Scene};

const PLAYBOOK: &str = r##"
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
  with = { channel = "#security", text = "{{ target.login }}: {{ steps.quarantine.state }} {{ steps.incident.number }}" }
"##;

/// Only the group, so that nothing but Okta is needed.
const QUARANTINE: &str = r##"
[[playbook]]
name = "quarantine"
on = ["user.risk.detect"]

  [[playbook.step]]
  name = "quarantine"
  when = 'risk.level == "HIGH"'
  action = "okta.group.add_user"
  with = { group = "High Risk Users" }
"##;

async fn scene(playbooks: &str) -> Scene {
    let scene = Scene::new(playbooks).await;
    scene.org.add_group("High Risk Users");
    scene.org.add_group("Medium Risk Users");
    scene
}

/// Exit code, standard output and standard error, as a snapshot has them.
fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("exit {}\n{}---\n{}", output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// What differs from run to run: ids, times, ports, paths.
fn settings(scene: &Scene) -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    let dir = scene.dir.path().display().to_string();
    settings.add_filter(&dir.replace('.', r"\."), "DIR");
    settings.add_filter(r"http://127\.0\.0\.1:\d+", "http://LOOPBACK");
    settings.add_filter(r"127\.0\.0\.1:\d+", "LOOPBACK");
    settings.add_filter(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME");
    settings.add_filter(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "UUID");
    settings.add_filter(r"\b[0-9a-f]{40}\b", "KEY");
    settings.add_filter(r"\b00[ug][0-9A-Za-z]{17}\b", "OKTA_ID");
    settings.add_filter(r"process \d+", "process PID");
    settings.add_filter(r"state file +[0-9.]+ [MG]iB.*", "state file  SIZE, oldest record AGE");
    settings.add_filter(r"(, \d+ left)?, ours", ", ours");
    settings.add_filter(r"\d+(ms|s) ago", "JUST NOW");
    settings.add_filter(r"last good poll( +)now.*", "last good poll${1}JUST NOW");
    settings.add_filter(r"\breq\d+\b", "REQUEST");
    // How much was asked by then is another number each time; tests/budget.rs looks at them.
    settings.add_filter(r"(?s)\n\nOkta's rate limits per minute, .*?\n---", "\n---");
    settings.add_filter(r"(\S) {2,}", "$1  ");
    settings
}

/// Compares what a command tells with its snapshot.
#[track_caller]
fn check(scene: &Scene, name: &str, arguments: &[&str]) {
    let output = scene.command(arguments);
    settings(scene).bind(|| insta::assert_snapshot!(name, told(&output)));
}

/// The exit code, and that each of these parts is told on standard error.
#[track_caller]
fn check_refused(output: &Output, code: i32, parts: &[&str]) {
    let told = told(output);
    assert_eq!(output.status.code(), Some(code), "{told}");
    for part in parts {
        assert!(String::from_utf8_lossy(&output.stderr).contains(part), "`{part}` is not in\n{told}");
    }
    assert!(!told.contains("panicked"), "{told}");
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_okta-responder"));
    command.env_remove("OKTA_RESPONDER_CONFIG").stdin(Stdio::null());
    command
}

#[test]
fn every_command_explains_itself() {
    let commands: &[&[&str]] = &[
        &[],
        &["run"],
        &["demo"],
        &["check"],
        &["test"],
        &["simulate"],
        &["backfill"],
        &["status"],
        &["events"],
        &["events", "list"],
        &["events", "show"],
        &["events", "quarantine"],
        &["runs"],
        &["runs", "list"],
        &["runs", "show"],
        &["actions"],
        &["actions", "list"],
        &["actions", "show"],
        &["actions", "retry"],
        &["actions", "cancel"],
        &["actions", "approve"],
        &["actions", "settle"],
        &["pause"],
        &["resume"],
        &["cursor"],
        &["cursor", "show"],
        &["cursor", "reset"],
        &["schema"],
        &["completions"],
        &["man"],
    ];
    let mut all = String::new();
    for command in commands {
        let output = program().args(*command).arg("--help").output().unwrap();
        assert!(output.status.success(), "{command:?}");
        all.push_str(&format!(
            "$ okta-responder {}\n{}\n",
            command.join(" "),
            String::from_utf8(output.stdout).unwrap()
        ));
    }
    insta::assert_snapshot!("help", all);
}

#[test]
fn completions_and_manual_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        let output = program().args(["completions", shell]).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("backfill"), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    let output = program().args(["man", "--dir"]).arg(dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    let page = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert!(page("okta-responder.1").contains("okta\\-responder\\-check"), "{}", page("okta-responder.1"));
    assert!(
        page("okta-responder-actions-retry.1").contains("EXAMPLES")
            || page("okta-responder-actions-retry.1").contains("Examples")
    );
    let whole = program().arg("man").output().unwrap();
    assert!(String::from_utf8_lossy(&whole.stdout).matches(".TH ").count() > 20);
}

#[test]
fn a_wrong_command_line_is_usage() {
    let cases: &[(&[&str], &str)] = &[
        (&["strat"], "unrecognized subcommand"),
        (&["backfill"], "--since"),
        (&["backfill", "--since", "yesterday"], "write a moment such as"),
        (&["backfill", "--resume", "--execute"], "cannot be used"),
        (&["backfill", "--cancel", "1", "--since", "1h"], "cannot be used"),
        (&["actions", "retry"], "<ID>"),
        (&["actions", "retry", "abc"], "`abc` is not the number of an action"),
        (&["actions", "show", "1.5"], "`1.5` is not the number of an action"),
        (&["actions", "list", "--state", "done"], "needs_attention"),
        (&["events", "show", "1", "--raw"], "--body"),
        (&["cursor", "reset"], "--since"),
    ];
    for (arguments, part) in cases {
        check_refused(&program().args(*arguments).output().unwrap(), 64, &[part]);
    }
}

#[test]
fn a_missing_configuration_is_told_with_its_name() {
    let output = program().args(["--config", "/nonexistent/config.toml", "status"]).output().unwrap();
    check_refused(&output, 78, &["/nonexistent/config.toml", "remedy:"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_configuration_is_told_all_at_once() {
    let scene = scene(PLAYBOOK).await;
    check(&scene, "check_well", &["check"]);
    let config = std::fs::read_to_string(scene.config()).unwrap();

    std::fs::write(scene.config(), config.replace("[state]", "[state\n")).unwrap();
    check(&scene, "check_bad_toml", &["check"]);

    let wrong = config
        .replace("rate_share = 1.0", "rate_share = 7.0\nretaliate = true")
        .replace("user.risk.detect", "user.risk.detected?")
        .replace("okta.group.add_user", "okta.group.add");
    std::fs::write(scene.config(), wrong).unwrap();
    check(&scene, "check_many", &["check"]);
    let json = scene.command(&["check", "--format", "json"]);
    assert_eq!(json.status.code(), Some(78));
    let lines: Vec<Value> =
        String::from_utf8(json.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() >= 3 && lines.iter().all(|line| line["remedy"].is_string()), "{lines:?}");

    std::fs::write(scene.config(), &config).unwrap();
    let token = scene.dir.path().join("okta-token");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::remove_file(scene.dir.path().join("slack-token")).unwrap();
    check(&scene, "check_secrets", &["check"]);
    check_refused(&scene.command(&["run"]), 78, &["chmod 600"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_are_tried_and_nothing_is_changed() {
    let apps = r#"
[[playbook]]
name = "app"
on = ["application.user_membership.add"]
  [[playbook.step]]
  name = "take-away"
  action = "okta.app.unassign_user"
  with = { app = "0oa0there0is0no0such" }
"#;
    let scene = scene(PLAYBOOK).await;
    check(&scene, "online_well", &["check", "--online"]);
    assert!(scene.org.effects().is_empty());

    scene.configure("", &format!("{}{apps}", PLAYBOOK.replace("High Risk", "Hihg Risk")));
    check(&scene, "online_unknown_names", &["check", "--online"]);

    // What is protected has to be there, or it protects nobody.
    let guard = r#"
[guard]
protected_users = ["nobody@example.com"]
protected_groups = ["Super Admnis"]
protected_members_of = ["Brake Glass"]
protected_roles = ["super_admin", "SUPER_ADMN"]
"#;
    scene.configure(guard, PLAYBOOK);
    let text = told(&scene.command(&["check", "--online"]));
    for part in
        ["`nobody@example.com`, so this protects nobody", "Super Admnis", "Brake Glass", "of that name: `SUPER_ADMN`"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }

    scene.configure("", PLAYBOOK);
    std::fs::write(scene.dir.path().join("okta-token"), "00anotherTokenThatIsRefused0000000000000").unwrap();
    std::fs::write(scene.dir.path().join("slack-token"), "xoxb-refused").unwrap();
    std::fs::write(scene.dir.path().join("servicenow-password"), "refused").unwrap();
    let output = scene.command(&["check", "--online"]);
    let text = told(&output);
    for secret in ["00anotherToken", "xoxb-refused"] {
        assert!(!text.contains(secret), "{text}");
    }
    settings(&scene).bind(|| insta::assert_snapshot!("online_refused", text));
    assert!(scene.org.effects().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_do_not_answer_are_unavailable() {
    let scene = scene(PLAYBOOK).await;
    for service in [Service::ServiceNow, Service::Slack] {
        scene.org.fault(Fault::new(service, Misbehaviour::status(503, "down")).always());
    }
    let text = std::fs::read_to_string(scene.config()).unwrap();
    let port = format!("port = {}", scene.org.smtp_port());
    std::fs::write(
        scene.config(),
        text.replace(&port, "port = 1").replace(&scene.org.okta_url(), "http://127.0.0.1:1"),
    )
    .unwrap();
    check(&scene, "online_unreachable", &["check", "--online"]);
}

fn write_event(scene: &Scene, name: &str, event: &Value) -> String {
    let path = scene.dir.path().join(name);
    std::fs::write(&path, event.to_string()).unwrap();
    path.display().to_string()
}

fn person() -> User {
    User { id: "00u0ann0miller000001".to_owned(), ..User::new("Ann", "Miller") }
}

/// An event that is the same in every run.
fn risk_event(before: &str, level: &str) -> Value {
    let at = "2026-08-24T10:15:02.102Z".parse().unwrap();
    let mut event = events::published_at(events::risk_detected(&person(), before, level), at);
    event["uuid"] = "dc9fd3c0-598c-11ef-8478-2b7584bf8d5a".into();
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_rehearsed_without_state_secrets_or_network() {
    let scene = scene(PLAYBOOK).await;
    let high = write_event(&scene, "high.json", &risk_event("LOW", "HIGH"));
    let all = write_event(
        &scene,
        "all.json",
        &serde_json::json!([risk_event("HIGH", "LOW"), events::sign_in(&person(), "LOW")]),
    );
    let facts = write_event(
        &scene,
        "facts.json",
        &serde_json::json!({"user": {"login": "ann@example.com"}, "steps": {"incident": {"state": "failed", "error": "503"}}}),
    );
    for secret in ["okta-token", "slack-token", "servicenow-password"] {
        std::fs::remove_file(scene.dir.path().join(secret)).unwrap();
    }
    let asked = scene.org.requests().len();
    check(&scene, "simulate_without_facts", &["simulate", "--event", &high]);
    let wrong = write_event(&scene, "wrong.json", &serde_json::json!({"usr": {}}));
    check_refused(&scene.command(&["simulate", "--event", &high, "--facts", &wrong]), 1, &["there is no fact `usr`"]);
    // `number` of a failed step is null, which renders as nothing.
    check(&scene, "simulate_with_facts", &["simulate", "--event", &high, "--facts", &facts]);
    check(&scene, "simulate_many", &["simulate", "--event", &all]);
    let json = scene.json(&["simulate", "--event", &high, "--facts", &facts, "--format", "json"]);
    let steps = &json["runs"][0]["steps"];
    assert_eq!(steps[0]["state"], "would_run");
    assert_eq!(steps[0]["params"]["group"], "High Risk Users");
    assert_eq!(steps[1]["params"]["short_description"], "User risk HIGH: ann@example.com");
    assert_eq!(scene.org.requests().len(), asked);
    assert!(!scene.state().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_and_observing_have_their_say_in_a_rehearsal() {
    let guard = "[guard]\nprotected_users = [\"00u0ann0miller000001\"]\nmax_event_age = \"6h\"\n";
    let scene = Scene::with(OrgOptions::default(), guard, QUARANTINE).await;
    let high = write_event(&scene, "high.json", &risk_event("LOW", "HIGH"));
    let state = |arguments: &[&str]| {
        let mut all = vec!["simulate", "--event", &high, "--format", "json"];
        all.extend(arguments);
        let step = scene.json(&all)["runs"][0]["steps"][0].clone();
        (step["state"].as_str().unwrap().to_owned(), step["why"].as_str().unwrap_or_default().to_owned())
    };
    let (word, why) = state(&[]);
    assert_eq!(word, "refused");
    assert!(why.contains("protected_users"), "{why}");
    scene.configure("[guard]\nmax_event_age = \"6h\"\n", QUARANTINE);
    assert_eq!(state(&[]).0, "would_run");
    let (word, why) = state(&["--now", "2026-08-25T10:00:00Z"]);
    assert_eq!(word, "refused");
    assert!(why.contains("max_event_age"), "{why}");
    scene.configure("[guard]\nmode = \"observe\"\n", QUARANTINE);
    assert_eq!(state(&[]).0, "observed");
    scene.configure("", &QUARANTINE.replace("action =", "approval = true\n  action ="));
    assert_eq!(state(&[]).0, "awaits_approval");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_fail_is_told_even_when_it_is_only_observed() {
    let scene = scene(QUARANTINE).await;
    let high = write_event(&scene, "high.json", &risk_event("LOW", "HIGH"));
    let broken = PLAYBOOK.replace("risk.level == \"HIGH\"", "event.debugContext.nothing.there == 1");
    for mode in ["enforce", "observe"] {
        scene.configure(&format!("[guard]\nmode = \"{mode}\"\n"), &broken);
        let output = scene.command(&["simulate", "--event", &high]);
        check_refused(&output, 1, &["something would fail for 1 event"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("quarantine: okta.group.add_user would FAIL: "), "{mode}: {text}");
    }
    let when = "on = [\"user.risk.detect\"]\nwhen = 'event.debugContext.nothing.there == 1'";
    scene.configure("", &QUARANTINE.replace("on = [\"user.risk.detect\"]", when));
    let output = scene.command(&["simulate", "--event", &high]);
    check_refused(&output, 1, &["something would fail for 1 event"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("playbook quarantine (enforce): would FAIL: "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_taken_to_succeed_has_no_error() {
    let text = "{{ steps.quarantine.state }}[{{ steps.quarantine.error }}]";
    let playbook = PLAYBOOK
        .replace(
            "when = 'risk.level == \"HIGH\"'\n  action = \"okta",
            "when = 'user_risk == \"HIGH\"'\n  action = \"okta",
        )
        .replace("{{ target.login }}: {{ steps.quarantine.state }}", text);
    let scene = scene(&playbook).await;
    let high = write_event(&scene, "high.json", &risk_event("LOW", "HIGH"));
    let steps = scene.json(&["simulate", "--event", &high, "--format", "json"])["runs"][0]["steps"].clone();
    assert_eq!(steps[0]["state"], "needs_facts");
    assert!(steps[2]["params"]["text"].as_str().unwrap().starts_with("succeeded[]"), "{steps}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_is_told_and_the_rest_goes_on() {
    let scene = scene(QUARANTINE).await;
    let mixed = write_event(&scene, "mixed.json", &serde_json::json!([7, risk_event("LOW", "HIGH"), {"uuid": "x"}]));
    let output = scene.command(&["simulate", "--event", &mixed]);
    check_refused(&output, 1, &["record 1 of", "record 3 of", "2 of 3 records are no event"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("would run"));
    std::fs::write(&mixed, "<html>").unwrap();
    check_refused(&scene.command(&["simulate", "--event", &mixed]), 1, &["holds no events", "not JSON"]);
    check_refused(&scene.command(&["simulate", "--event", "/nonexistent"]), 1, &["/nonexistent cannot be read"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_state_file_commands_say_what_to_do() {
    let scene = scene(QUARANTINE).await;
    let commands: &[&[&str]] = &[
        &["status"],
        &["events", "list"],
        &["runs", "list"],
        &["runs", "revert", "1"],
        &["actions", "list"],
        &["pause"],
        &["cursor", "show"],
        &["cursor", "reset", "--since", "1h"],
        &["backfill", "--list"],
    ];
    for arguments in commands {
        check_refused(&scene.command(arguments), 1, &["there is no state file", "okta-responder run"]);
    }
    scene.edit("/state.db", "/nowhere/state.db");
    for arguments in commands {
        check_refused(&scene.command(arguments), 78, &["there is no directory", "/nowhere"]);
    }
    scene.edit("/nowhere/state.db", "/state.db");
    let left: Vec<_> = std::fs::read_dir(scene.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("state.db")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_work_beside_the_daemon() {
    let scene = scene(PLAYBOOK).await;
    let user = scene.org.add_user(person());
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    scene.org.push_raw_event("{\"uuid\":7}", "user.risk.detect");
    let uuid = scene.org.push_event(risk_event("LOW", "HIGH"));
    let told = scene.org.wait_for(|org| !org.slack_messages().is_empty(), BOUND).await;
    assert!(told.is_ok(), "{}", daemon.log());
    // The message is out; its outcome is stored a moment later.
    wait_until(|| scene.json_lines(&["actions", "list", "--state", "succeeded", "--format", "json"]).len() == 3);

    let status = scene.json(&["status", "--format", "json"]);
    assert!(status["daemon"].as_str().unwrap().contains("okta-responder run"), "{status}");
    assert_eq!(status["streams"][0]["kind"], "live");
    assert_eq!(status["events"], serde_json::json!({"decided": 1}));
    assert_eq!(status["actions"], serde_json::json!({"succeeded": 3}));
    assert_eq!((&status["waiting_for_a_person"], &status["for_a_person"][0]["count"]), (&1.into(), &1.into()));
    let fraction = status["now"].as_str().unwrap().split_once('.').map_or(0, |(_, fraction)| fraction.len());
    assert!(fraction <= "123Z".len(), "{status}");
    check(&scene, "status", &["status"]);
    check(&scene, "events_list", &["events", "list"]);
    check(&scene, "runs_list", &["runs", "list", "--playbook", "user-risk-changed"]);
    check(&scene, "runs_show", &["runs", "show", "1"]);
    check(&scene, "runs_revert", &["runs", "revert", "1", "--dry-run"]);
    check(&scene, "actions_list", &["actions", "list", "--type", "okta.group.add_user", "--user", &user.id]);
    check(&scene, "actions_show", &["actions", "show", "1"]);
    check(&scene, "quarantine", &["events", "quarantine"]);
    let event = scene.json(&["events", "show", &uuid, "--body", "--format", "json"]);
    assert_eq!(event["body"]["uuid"], uuid.as_str());
    assert_eq!(event["runs"].as_array().unwrap().len(), 1);
    assert!(scene.json(&["events", "show", &uuid, "--format", "json"]).get("body").is_none());

    let record = scene.command(&["events", "show", &uuid, "--body"]);
    let parsed: Value = serde_json::from_slice(&record.stdout).unwrap();
    assert_eq!(parsed["uuid"], uuid.as_str());
    // Whatever shows an event is understood where an event is asked for.
    let shown = [write_event(&scene, "shown.json", &parsed), write_event(&scene, "whole.json", &event)];
    for file in &shown {
        let told = scene.json(&["simulate", "--event", file, "--format", "json"]);
        assert_eq!(
            (&told["uuid"], &told["runs"][0]["steps"][0]["state"]),
            (&uuid.as_str().into(), &"would_run".into())
        );
    }

    check_refused(&scene.command(&["actions", "retry", "1", "1"]), 1, &["action 1 is succeeded"]);
    assert!(!self::told(&scene.command(&["actions", "retry", "1", "1"])).contains("of 2"));
    check(&scene, "actions_wrong", &["actions", "retry", "1", "999"]);
    check_refused(&scene.command(&["actions", "show", "999"]), 1, &["there is no action 999"]);
    check_refused(&scene.command(&["runs", "show", "999"]), 1, &["there is no run 999"]);
    check_refused(&scene.command(&["events", "show", "999"]), 1, &["there is no event `999`"]);
    check_refused(&scene.command(&["run"]), 75, &["is in use by process", "okta-responder run"]);
    check_refused(&scene.command(&["cursor", "reset", "--since", "1h"]), 75, &["is in use by process"]);
    assert!(daemon.stop().success());
    assert!(scene.json(&["status", "--format", "json"])["daemon"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_does_not_read_is_told_once_it_is_late() {
    let scene = scene(QUARANTINE).await;
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    assert!(daemon.stop().success());
    let polled = |minutes: i64| {
        let now =
            scene.json(&["status", "--format", "json"])["now"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        let connection = rusqlite::Connection::open(scene.state()).unwrap();
        let at = now.as_millisecond() - minutes * 60_000;
        connection.execute("UPDATE stream SET last_good_poll = ?1", [at]).unwrap();
    };
    let told = || String::from_utf8(scene.command(&["status"]).stdout).unwrap();
    polled(5);
    // Nobody expects a daemon that is stopped to read.
    assert!(told().contains("Nothing waits for a person."), "{}", told());
    let running = InstanceLock::take(&scene.state(), "run").unwrap();
    let late = told();
    for part in ["For a person:", "has not read the log for 5m", "journalctl", "disk", "check --online"] {
        assert!(late.contains(part), "{late}");
    }
    assert_eq!(scene.json(&["status", "--format", "json"])["waiting_for_a_person"], 1);
    polled(1);
    assert!(told().contains("Nothing waits for a person."), "{}", told());
    drop(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_reads_of_an_action_fits_its_state() {
    let scene = scene(PLAYBOOK).await;
    let user = scene.org.add_user(person());
    let long = "a sentence that goes on and on ".repeat(6);
    let said = serde_json::json!({"error": {"message": long}}).to_string();
    scene.org.fault(Fault::new(Service::ServiceNow, Misbehaviour::status(503, &said)).always());
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    scene.org.push_event(events::risk_detected(&user, "HIGH", "LOW"));
    scene.org.push_event(events::risk_detected(&user, "LOW", "HIGH"));
    let of = |state: &str| scene.json_lines(&["actions", "list", "--state", state, "--format", "json"]);
    wait_until(|| of("skipped").len() == 2 && of("retry").len() == 1);
    assert!(scene.command(&["pause"]).status.success());
    assert!(daemon.stop().success());

    let skipped = of("skipped")[0]["id"].to_string();
    let text = told(&scene.command(&["actions", "show", &skipped]));
    assert!(text.contains("Nothing was sent.") && !text.contains("not tried yet"), "{text}");

    let due = &of("retry")[0];
    let id = due["id"].to_string();
    check_refused(
        &scene.command(&["actions", "retry", &id]),
        1,
        &[&format!("action {id} is to be tried again by itself: it is due at {}", due["due"].as_str().unwrap())],
    );
    // Nothing is cut where no terminal shows it.
    let why = due["error"].as_str().unwrap();
    assert!(why.chars().count() > 60, "{why}");
    for arguments in [&["actions", "list"][..], &["actions", "show", &id]] {
        let text = told(&scene.command(arguments));
        assert!(text.contains(why) && !text.contains('…'), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_daemon_from_its_first_poll_is_told_by_status() {
    let scene = scene(QUARANTINE).await;
    std::fs::write(scene.dir.path().join("okta-token"), "00anotherTokenThatIsRefused0000000000000").unwrap();
    let daemon = scene.daemon();
    daemon.wait_for_log("nothing is decided yet");
    let status = || scene.json(&["status", "--format", "json"]);
    wait_until(|| status()["problem"].is_string());
    let told = status();
    assert_eq!(told["waiting_for_a_person"], 1, "{told}");
    assert!(told["for_a_person"][0]["look"].as_str().unwrap().contains("401"), "{told}");
    std::fs::write(scene.dir.path().join("okta-token"), scene.org.token()).unwrap();
    daemon.wait_for_log("ready: ");
    wait_until(|| status()["problem"].is_null());
    assert_eq!(status()["waiting_for_a_person"], 0);

    // What passes by itself is told, and waits for nobody.
    scene.org.fault(Fault::new(Service::Okta, Misbehaviour::status(503, "down")).path("/logs").always());
    wait_until(|| status()["problem"].is_string());
    assert_eq!(status()["waiting_for_a_person"], 0);
    scene.org.clear_faults();
    // A right that is taken away while it runs is for a person.
    let refused = r#"{"errorCode":"E0000006","errorSummary":"no"}"#;
    scene.org.fault(Fault::new(Service::Okta, Misbehaviour::status(403, refused)).path("/logs").always());
    wait_until(|| status()["waiting_for_a_person"] == 1);
    assert!(daemon.stop().success());
    let stopped = status();
    assert_eq!(stopped["waiting_for_a_person"], 0, "a daemon that does not run waits for nobody: {stopped}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_playbook_waits_for_a_person_and_an_unknown_one_is_told() {
    let scene = scene(QUARANTINE).await;
    let daemon = scene.daemon();
    daemon.wait_for_log("ready: ");
    for command in ["pause", "resume"] {
        let output = scene.command(&[command, "--playbook", "quarantaine"]);
        check_refused(&output, 1, &["there is no playbook `quarantaine`", "there are `quarantine`"]);
    }
    assert!(scene.command(&["pause", "--playbook", "quarantine"]).status.success());
    let status = told(&scene.command(&["status"]));
    assert!(status.contains("1 stopped playbook `quarantine`: okta-responder resume"), "{status}");
    // One that left the configuration while it was stopped can still be let go on.
    scene.configure("", &QUARANTINE.replace("name = \"quarantine\"\non", "name = \"other\"\non"));
    assert!(scene.command(&["resume", "--playbook", "quarantine"]).status.success());
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_configuration_is_logged_in_the_format_of_the_log() {
    let scene = Scene::with(OrgOptions::default(), "[log]\nformat = \"json\"\n", QUARANTINE).await;
    let daemon = scene.daemon();
    daemon.wait_for_log("ready: ");
    scene.edit("rate_share = 1.0", "rate_share = 7.0\nretaliate = true");
    daemon.signal("HUP");
    daemon.wait_for_log("the old one stays in force");
    let lines: Vec<Value> = daemon.log().lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let problem = lines.iter().find(|line| line["place"] == "[okta] rate_share").unwrap();
    assert_eq!(problem["level"], "ERROR");
    assert_eq!(problem["file"], scene.config().display().to_string());
    assert!(problem["line"].is_u64() && problem["remedy"].is_string() && problem["message"].is_string(), "{problem}");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_that_is_not_there_and_a_wrong_filter_are_configuration() {
    let scene = scene(QUARANTINE).await;
    let loud = program().env("OKTA_RESPONDER_LOG", "bogus=xx").arg("--config").arg(scene.config()).arg("run").output();
    let loud = loud.unwrap();
    check_refused(&loud, 78, &["OKTA_RESPONDER_LOG: `bogus=xx` is no log filter"]);
    let text = told(&loud);
    assert_eq!((text.matches("bogus").count(), text.matches("level filter").count()), (1, 1), "{text}");

    scene.edit("/state.db", "/nowhere/state.db");
    for arguments in [&["check"][..], &["run"], &["backfill", "--since", "1h"]] {
        check_refused(&scene.command(arguments), 78, &["/nowhere", "director"]);
    }
    // Without a path of its own the daemon tells what it meets.
    let path = format!("path = \"{}\"", scene.dir.path().join("nowhere/state.db").display());
    scene.edit(&path, "");
    let nowhere = scene.dir.path().join("nowhere");
    let mut run = program();
    let run = run.env("STATE_DIRECTORY", &nowhere).arg("--config").arg(scene.config()).arg("run").output().unwrap();
    check_refused(&run, 78, &["lock file", "its directory must exist"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_starts_something_says_that_nothing_was_started() {
    let scene = scene(QUARANTINE).await;
    scene.edit("rate_share = 1.0", "rate_share = 7.0");
    for (arguments, starts) in
        [(&["run"][..], true), (&["cursor", "show"], false), (&["pause", "--playbook", "x"], false)]
    {
        let output = scene.command(arguments);
        check_refused(&output, 78, &["the configuration has 1 problem"]);
        assert_eq!(told(&output).contains("nothing was started"), starts, "{}", told(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_until_resume_and_a_person_may_take_back_or_allow() {
    let scene = scene(&QUARANTINE.replace("action =", "approval = true\n  action =")).await;
    let (ann, bob) = (scene.org.add_user(person()), scene.org.add_user(User::new("Bob", "Smith")));
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    assert!(scene.command(&["pause"]).status.success());
    assert!(String::from_utf8_lossy(&scene.command(&["pause"]).stdout).contains("already"));
    scene.org.push_event(events::risk_detected(&ann, "LOW", "HIGH"));
    scene.org.push_event(events::risk_detected(&bob, "LOW", "HIGH"));
    let waiting = || scene.json_lines(&["actions", "list", "--state", "awaiting_approval", "--format", "json"]);
    wait_until(|| waiting().len() == 2);
    let status = scene.json(&["status", "--format", "json"]);
    assert!(status["paused_since"].is_string());
    assert_eq!(status["waiting_for_a_person"], 2);
    let of = |user: &str| waiting().iter().find(|action| action["user"] == user).unwrap()["id"].to_string();
    let (of_ann, of_bob) = (of(&ann.id), of(&bob.id));
    assert!(scene.command(&["actions", "approve", &of_ann]).status.success());
    assert!(scene.command(&["actions", "cancel", &of_bob]).status.success());
    assert!(scene.org.effects().is_empty());
    assert!(scene.command(&["resume"]).status.success());
    let acted = scene.org.wait_for(|org| !org.effects().is_empty(), BOUND).await;
    assert!(acted.is_ok(), "{}", daemon.log());
    assert_eq!(scene.org.effects().len(), 1);
    assert!(scene.org.effects()[0].target.ends_with(&ann.id));
    wait_until(|| scene.json_lines(&["actions", "list", "--state", "succeeded", "--format", "json"]).len() == 1);
    assert_eq!(scene.json_lines(&["actions", "list", "--state", "cancelled", "--format", "json"]).len(), 1);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_without_a_daemon_reads_by_itself_and_observes() {
    let scene = scene(QUARANTINE).await;
    let user = scene.org.add_user(person());
    let hour_ago = scene.org.now() - jiff::SignedDuration::from_hours(1);
    scene.org.push_event(events::published_at(events::risk_detected(&user, "LOW", "HIGH"), hour_ago));
    let told = scene.json(&["backfill", "--since", "2h", "--format", "json"]);
    assert_eq!(told["state"], "done");
    assert_eq!(told["stored"], 1);
    assert_eq!(told["results"]["runs"][0], serde_json::json!(["observe", 1]));
    assert!(scene.org.effects().is_empty());
    check(&scene, "backfill_again", &["backfill", "--since", "2h", "--execute"]);
    check(&scene, "backfill_list", &["backfill", "--list"]);
    check_refused(&scene.command(&["backfill", "--resume"]), 1, &["no such unfinished backfill"]);
    check_refused(&scene.command(&["backfill", "--cancel", "1"]), 1, &["no unfinished backfill 1"]);
    check_refused(&scene.command(&["backfill", "--since", "1h", "--until", "2h"]), 64, &["is not after --since"]);
    let clamped = scene.command(&["backfill", "--since", "200days"]);
    assert!(String::from_utf8_lossy(&clamped.stderr).contains("Okta keeps 90 days"), "{}", self::told(&clamped));
    assert!(clamped.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_beside_the_daemon_is_read_by_it() {
    let options = OrgOptions { synthetic_events: 100, synthetic_risk_every: 10, ..OrgOptions::default() };
    let scene = Scene::with(options, "", QUARANTINE).await;
    scene.org.add_group("High Risk Users");
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    let told = scene.json(&["backfill", "--since", "25h", "--execute", "--format", "json"]);
    assert_eq!(told["state"], "done");
    assert_eq!(told["stored"].as_u64().unwrap() + told["duplicates"].as_u64().unwrap(), 10, "{told}");
    let acted = told["results"]["actions"].as_array().unwrap().iter().find(|counts| counts[0] == "succeeded").cloned();
    assert!(acted.is_some_and(|counts| counts[1].as_u64().unwrap() > 0), "{told}");
    assert!(!scene.org.effects().is_empty());
    let detached = scene.command(&["backfill", "--since", "3h", "--detach"]);
    assert!(detached.status.success());
    wait_until(|| {
        let streams = scene.json_lines(&["backfill", "--list", "--format", "json"]);
        streams.len() == 2 && streams.iter().all(|stream| stream["state"] == "done")
    });
    assert!(daemon.stop().success());
}

/// Starts a backfill that acts while dispatching is paused, so that it cannot end; interrupts it once it says `ready`.
fn interrupted(scene: &Scene, ready: &str, arguments: &[&str]) -> Output {
    let mut command = program();
    command.arg("--config").arg(scene.config()).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut told = Vec::new();
    let mut reader = BufReader::new(child.stderr.take().unwrap());
    while !String::from_utf8_lossy(&told).contains(ready) {
        assert_ne!(reader.read_until(b'\n', &mut told).unwrap(), 0, "{}", String::from_utf8_lossy(&told));
    }
    assert!(Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap().success());
    reader.read_to_end(&mut told).unwrap();
    let mut output = child.wait_with_output().unwrap();
    output.stderr = told;
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_leaves_a_backfill_to_the_daemon() {
    let options = OrgOptions { synthetic_events: 100, synthetic_risk_every: 10, ..OrgOptions::default() };
    let scene = Scene::with(options, "", QUARANTINE).await;
    scene.org.add_group("High Risk Users");
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    assert!(scene.command(&["pause"]).status.success());
    let watching = interrupted(&scene, "this command watches", &["backfill", "--since", "25h", "--execute"]);
    check_refused(&watching, 0, &["goes on in the daemon"]);
    let done = || scene.json_lines(&["backfill", "--list", "--format", "json"])[0]["state"] == "done";
    wait_until(done);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_backfill_leaves_what_is_open_to_the_next_daemon() {
    let options = OrgOptions { synthetic_events: 100, synthetic_risk_every: 10, ..OrgOptions::default() };
    let scene = Scene::with(options, "", QUARANTINE).await;
    scene.org.add_group("High Risk Users");
    assert!(scene.command(&["backfill", "--since", "1m"]).status.success());
    assert!(scene.command(&["pause"]).status.success());
    // It cannot end while dispatching is paused, and says so every few seconds.
    let reading = interrupted(&scene, "to be decided or done", &["backfill", "--since", "25h", "--execute"]);
    check_refused(&reading, 1, &["the next `okta-responder run` goes on"]);
    assert!(scene.org.effects().is_empty());
    assert!(scene.command(&["resume"]).status.success());
    let daemon = scene.daemon();
    assert!(scene.org.wait_for(|org| !org.effects().is_empty(), BOUND).await.is_ok(), "{}", daemon.log());
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_backfill_is_resumed_and_never_made_twice() {
    let scene = scene(QUARANTINE).await;
    let since = (scene.org.now() - jiff::SignedDuration::from_hours(2)).to_string();
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    assert!(daemon.stop().success());
    for _ in 0..2 {
        assert!(scene.command(&["backfill", "--since", &since, "--detach"]).status.success());
    }
    assert_eq!(scene.json_lines(&["backfill", "--list", "--format", "json"]).len(), 1);
    let told = scene.json(&["backfill", "--resume", "--format", "json"]);
    assert_eq!(told["state"], "done");
    assert!(scene.command(&["backfill", "--since", &since, "--detach"]).status.success());
    assert!(scene.command(&["backfill", "--cancel", "3"]).status.success());
    assert_eq!(scene.json_lines(&["backfill", "--list", "--format", "json"])[1]["state"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cursor_is_shown_and_moved_while_the_daemon_is_stopped() {
    let options = OrgOptions { synthetic_events: 100, synthetic_risk_every: 10, ..OrgOptions::default() };
    let scene = Scene::with(options, "", QUARANTINE).await;
    scene.org.add_group("High Risk Users");
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    assert!(daemon.stop().success());
    assert!(scene.json_lines(&["cursor", "show", "--format", "json"])[0]["next_url"].is_string());
    assert!(scene.command(&["cursor", "reset", "--since", "25h"]).status.success());
    let live = scene.json_lines(&["cursor", "show", "--format", "json"]).remove(0);
    assert!(live["next_url"].is_null());
    assert_eq!(live["restarts"], 1);
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    assert!(scene.org.wait_for(|org| org.effects().len() > 5, BOUND).await.is_ok(), "{}", daemon.log());
    assert!(daemon.stop().success());
    check_refused(&scene.command(&["cursor", "reset", "--since", "2100-01-01T00:00:00Z"]), 64, &["lies in the future"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_file_that_cannot_be_used_is_told_for_what_it_is() {
    let scene = scene(QUARANTINE).await;
    let output = scene.command(&["backfill", "--since", "1h", "--format", "json"]);
    assert!(output.status.success(), "{}", told(&output));
    let state = scene.state();

    let held = InstanceLock::take(&state, "backfill").unwrap();
    check_refused(
        &scene.command(&["run"]),
        75,
        &["is in use by process", "(okta-responder backfill)", "stop it first"],
    );
    check_refused(&scene.command(&["backfill", "--since", "1h"]), 75, &["is in use by process"]);
    assert!(scene.command(&["status"]).status.success());
    drop(held);

    let connection = rusqlite::Connection::open(&state).unwrap();
    connection.pragma_update(None, "user_version", 999).unwrap();
    drop(connection);
    check_refused(&scene.command(&["status"]), 78, &["schema version 999", "newer"]);
    check_refused(&scene.command(&["run"]), 78, &["schema version 999", "newer"]);

    remove_state(&state);
    std::fs::write(&state, "this is a letter to my aunt, and long enough to be taken for a header of a database file")
        .unwrap();
    check_refused(&scene.command(&["status"]), 78, &["is no state file of okta-responder"]);
    check_refused(&scene.command(&["run"]), 78, &["is no state file of okta-responder"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_needs_the_state_file_works_while_the_configuration_is_wrong() {
    let scene = scene(QUARANTINE).await;
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    scene.edit("okta.group.add_user", "okta.group.ad_user");
    for command in [&["pause"][..], &["status"], &["resume"], &["actions", "list"], &["backup", "/dev/null/x"]] {
        let output = scene.command(command);
        assert!(told(&output).contains("the configuration has 1 problem"), "{}", told(&output));
        assert_eq!(output.status.success(), command[0] != "backup", "{}", told(&output));
    }
    // Which state file is meant has to be certain.
    scene.edit("[state]\npath", "[state]\npaht");
    check_refused(&scene.command(&["pause"]), 78, &["paht"]);
    assert!(daemon.stop().success());
}

fn remove_state(state: &Path) {
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", state.display()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_or_read_only_disk_is_told_for_what_it_is() {
    let scene = scene(QUARANTINE).await;
    let disk = scene.dir.path().join("disk");
    let Some(mounted) = Mounted::new(&disk, "size=2m") else {
        eprintln!("skipped: this user may not mount a small file system");
        return;
    };
    let text = std::fs::read_to_string(scene.config()).unwrap();
    let path = disk.join("state.db");
    std::fs::write(scene.config(), text.replace(&scene.state().display().to_string(), &path.display().to_string()))
        .unwrap();
    assert!(scene.command(&["backfill", "--since", "1h", "--format", "json"]).status.success());

    // Whatever is left of the disk is filled, each time anew: a command that ends can leave some room.
    let fillers = ["one", "two"].map(|name| disk.join(name));
    for (filler, command) in fillers.iter().zip([&["backfill", "--since", "1h"][..], &["pause"]]) {
        let _ = std::fs::write(filler, vec![0; 4 << 20]);
        check_refused(&scene.command(command), 75, &["disk", "full"]);
    }
    for filler in &fillers {
        std::fs::remove_file(filler).unwrap();
    }
    assert!(scene.command(&["pause"]).status.success());

    mounted.remount("ro");
    check_refused(&scene.command(&["resume"]), 75, &["read-only"]);
}

/// Asks again until it is so. Each look is a whole command, so nothing has to sleep.
#[track_caller]
fn wait_until(condition: impl Fn() -> bool) {
    let looks = BOUND.as_millis() / 5;
    assert!((0..looks).any(|_| condition()), "it never came to that");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_refused_later_is_told_by_status() {
    let scene = scene(QUARANTINE).await;
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    let refused = Misbehaviour::status(401, r#"{"errorCode":"E0000011","errorSummary":"Invalid token provided"}"#);
    scene.org.fault(Fault::new(Service::Okta, refused).path("/api/v1/logs").always());
    wait_until(|| scene.json(&["status", "--format", "json"])["streams"][0]["problem"].is_string());
    let text = String::from_utf8(scene.command(&["status"]).stdout).unwrap();
    assert!(text.contains("problem") && text.contains("401"), "{text}");
    assert!(daemon.stop().success());
}
