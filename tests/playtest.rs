//! Playbooks under test: the `[[test]]` beside them, and the past seen through another configuration.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use okta_responder::demo::org::{OrgOptions, User, events};
use serde_json::Value;
use support::Scene;
use support::every::FAST;
use support::ledger::Ledger;

const HEAD: &str = r##"
[okta]
org_url = "https://example.okta.com"
token = { credential = "okta-token" }
[slack]
token = { credential = "slack-token" }
[guard]
protected_users = ["root@example.com"]
"##;

const PLAYBOOK: &str = r##"
[[playbook]]
name = "risk"
on = ["user.risk.detect"]
when = 'risk.level != "UNKNOWN"'

  [[playbook.step]]
  name = "quarantine"
  when = 'risk.level == "HIGH"'
  action = "okta.group.add_user"
  with = { group = "High Risk Users" }

  [[playbook.step]]
  name = "tell"
  after = ["quarantine"]
  action = "slack.message.post"
    [playbook.step.with]
    channel = "#security"
    text = '''
Risk {{ risk.level }}: {{ target.login }}
Quarantine: {{ steps.quarantine.state }}'''
"##;

fn event(login: &str, level: &str) -> String {
    format!(
        "  [test.event]\n  eventType = \"user.risk.detect\"\n  \
         target = [{{ type = \"User\", id = \"00u1\", alternateId = \"{login}\" }}]\n  \
         debugContext.debugData.risk = \"{{level={level}}}\"\n"
    )
}

fn test(name: &str, more: &str, login: &str, level: &str) -> String {
    format!("\n[[test]]\nname = \"{name}\"\n{more}\n{}", event(login, level))
}

fn write(directory: &Path, tests: &str) {
    std::fs::write(directory.join("config.toml"), format!("{HEAD}{PLAYBOOK}{tests}")).unwrap();
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_okta-responder"));
    command.current_dir(directory).env_remove("OKTA_RESPONDER_CONFIG");
    command.args(["--config", "config.toml"]).args(arguments).output().unwrap()
}

fn told(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{err}exit {}\n", output.status.code().unwrap())
}

#[test]
fn the_example_is_as_its_tests_say_and_needs_nothing_for_it() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy("config.example.toml", directory.path().join("config.toml")).unwrap();
    let output = run(directory.path(), &["test"]);
    let told = told(&output);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("ok      high risk goes into quarantine") && told.contains("all as expected"), "{told}");
}

#[test]
fn what_holds_is_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let all = r##"expect = [
  { step = "quarantine", action = "okta.group.add_user", state = "run", with_exactly = { group = "High Risk Users", user = "00u1" } },
  { playbook = "risk", step = "tell", with = { text = { contains = ["ann@example.com", "succeeded"] } } },
]"##;
    let tests = [
        test("high", all, "ann@example.com", "HIGH"),
        test(
            "low",
            "expect = [{ step = \"tell\" }, { step = \"quarantine\", state = \"skipped\", why = \"is false\" }]",
            "ann@example.com",
            "LOW",
        ),
        test("low is not quarantined", "not = [\"quarantine\"]", "ann@example.com", "LOW"),
        test("unknown", "expect = []", "ann@example.com", "?"),
        test(
            "protected",
            "expect = [{ step = \"quarantine\", state = \"refused\", why = \"protected\" }]\nothers = true",
            "root@example.com",
            "HIGH",
        ),
        test(
            "without the guard",
            "guard = false\nexpect = [{ step = \"quarantine\", state = \"run\" }]\nothers = true",
            "root@example.com",
            "HIGH",
        ),
        test(
            "after a failure",
            "expect = [{ step = \"quarantine\" }, { step = \"tell\", with = { text = { contains = \"failed\" } } }]\nfacts.steps.quarantine = { state = \"failed\" }",
            "ann@example.com",
            "HIGH",
        ),
    ];
    write(directory.path(), &tests.concat());
    let output = run(directory.path(), &["test"]);
    let told = told(&output);
    assert!(output.status.success(), "{told}");
    assert_eq!(told.matches("ok      ").count(), 7, "{told}");
    assert!(told.contains("7 tests, all as expected"), "{told}");
    let one = run(directory.path(), &["test", "low", "--format", "json"]);
    let verdict: Value = serde_json::from_slice(&one.stdout).unwrap();
    assert_eq!((verdict["test"].as_str(), verdict["ok"].as_bool()), (Some("low"), Some(true)), "{verdict}");
}

#[test]
fn what_does_not_hold_is_told_field_by_field() {
    let directory = tempfile::tempdir().unwrap();
    let text = "expect = [{ step = \"tell\", with = { text = \"Risk LOW: ann@example.com\\nQuarantine: succeeded\", channel = \"#soc\" } }]";
    let tests = [
        test("missing", "expect = [{ step = \"quarantine\" }, { step = \"tell\" }]", "ann@example.com", "LOW"),
        test(
            "surplus",
            "expect = [{ step = \"quarantine\", with = { group = \"Risky\" } }]",
            "ann@example.com",
            "HIGH",
        ),
        test("none", "expect = [{ step = \"tell\" }]", "ann@example.com", "?"),
        test("text", text, "ann@example.com", "LOW"),
        test("refused", "expect = [{ step = \"quarantine\" }]\nothers = true", "root@example.com", "HIGH"),
        test("unwanted", "not = [\"tell\"]", "ann@example.com", "LOW"),
        test(
            "state",
            "expect = [{ step = \"quarantine\", state = \"approval\" }]\nothers = true",
            "ann@example.com",
            "HIGH",
        ),
        test(
            "action",
            "expect = [{ step = \"quarantine\", action = \"okta.group.remove_user\" }]\nothers = true",
            "ann@example.com",
            "HIGH",
        ),
        test(
            "exactly",
            "expect = [{ step = \"quarantine\", with_exactly = { group = \"High Risk Users\" } }]\nothers = true",
            "ann@example.com",
            "HIGH",
        ),
    ];
    write(directory.path(), &tests.concat());
    insta::assert_snapshot!(told(&run(directory.path(), &["test"])));
    let json = run(directory.path(), &["test", "missing", "--format", "json"]);
    let verdict: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(verdict["differences"][0]["what"], "missing", "{verdict}");
    assert_eq!(verdict["differences"][0]["reads"], serde_json::json!({"risk.level": "LOW"}), "{verdict}");
}

#[test]
fn a_step_with_a_delay_is_tested_for_it_and_for_how_things_stand_when_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let later = "delay = \"24h\"\n  cancel_if = 'groups.exists(name, name == \"High Risk Users\")'";
    let playbook = PLAYBOOK.replacen("with =", &format!("{later}\n  with ="), 1);
    let of = |name: &str, expect: &str, more: &str| {
        let more = format!("expect = [{{ step = \"quarantine\", {expect} }}]\nothers = true\n{more}");
        test(name, &more, "ann@example.com", "HIGH")
    };
    let tests = [
        of("later", "state = \"run\", delay = \"1day\"", ""),
        of("still called for", "state = \"run\"", "later = { groups = [] }"),
        of("cancelled", "state = \"cancelled\", why = \"High Risk\"", "later = { groups = [\"High Risk Users\"] }"),
        of("at once", "delay = \"0s\"", ""),
        of("not cancelled", "state = \"run\"", "later = { groups = [\"High Risk Users\"] }"),
        of("not given", "state = \"run\"", "later = { user = {} }"),
    ];
    std::fs::write(directory.path().join("config.toml"), format!("{HEAD}{playbook}{}", tests.concat())).unwrap();
    let told = told(&run(directory.path(), &["test"]));
    assert_eq!(told.matches("ok      ").count(), 3, "{told}");
    for part in [
        "quarantine: is done at another time\n    expected  \"at once\"\n    planned   \"1day\"",
        "planned   \"would be skipped when its delay ends\"",
        "can't be told: groups would be asked for when its delay ends; give what is missing in [test.later]",
        "3 of 6 tests FAILED",
    ] {
        assert!(told.contains(part), "`{part}` is not in:\n{told}");
    }
    let event = r#"{"uuid":"u","eventType":"user.risk.detect","published":"2026-08-24T10:15:02.102Z",
        "target":[{"id":"00u1","type":"User"}],"debugContext":{"debugData":{"risk":"{level=HIGH}"}}}"#;
    std::fs::write(directory.path().join("event.json"), event).unwrap();
    let simulated = String::from_utf8(run(directory.path(), &["simulate", "--event", "event.json"]).stdout).unwrap();
    let part =
        "would run\n      1day later, unless this is true then: groups.exists(name, name == \"High Risk Users\")";
    assert!(simulated.contains(part), "{simulated}");
}

#[test]
fn a_fact_that_is_needed_has_to_be_given() {
    let directory = tempfile::tempdir().unwrap();
    let expect = "expect = [{ step = \"tell\" }]";
    let tests = [
        test("asked for", expect, "ann@example.com", "LOW"),
        test("given", &format!("{expect}\nfacts = {{ manager = {{ name = \"Bo\" }} }}"), "ann@example.com", "LOW"),
    ];
    let playbook = PLAYBOOK.replace("{{ target.login }}", "{{ manager.name }}");
    std::fs::write(directory.path().join("config.toml"), format!("{HEAD}{playbook}{}", tests.concat())).unwrap();
    let told = told(&run(directory.path(), &["test"]));
    assert!(told.contains("risk / tell: can't be told: manager would be asked for"), "{told}");
    assert!(
        told.contains("ok      given") && told.contains("1 of 2 tests FAILED") && told.ends_with("exit 1\n"),
        "{told}"
    );
}

#[test]
fn a_test_that_is_wrong_is_told_by_check_and_keeps_nobody_else_from_work() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &test("wrong", "expect = [{ step = \"quarantin\" }]", "ann@example.com", "HIGH"));
    for command in ["check", "test"] {
        let output = run(directory.path(), &[command]);
        let told = told(&output);
        assert_eq!(output.status.code(), Some(78), "{told}");
        assert!(told.contains("test \"wrong\", expect 1, step: there is no step `quarantin`"), "{told}");
        assert!(told.contains("did you mean `quarantine`?"), "{told}");
    }
    let record = r#"{"uuid":"u","eventType":"user.risk.detect","published":"2026-08-24T10:00:00Z"}"#;
    std::fs::write(directory.path().join("event.json"), record).unwrap();
    let output = run(directory.path(), &["simulate", "--event", "event.json"]);
    assert!(output.status.success(), "{}", told(&output));
    write(directory.path(), &test("right", "expect = []", "ann@example.com", "?"));
    let output = run(directory.path(), &["test", "rigth"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(told(&output).contains("did you mean `right`?"), "{}", told(&output));
}

#[test]
fn the_schema_is_printed_for_both_kinds_of_files() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, key) in [(&["schema"][..], "okta"), (&["schema", "--playbooks"][..], "playbook")] {
        let output = run(directory.path(), arguments);
        let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert!(schema["properties"][key].is_object(), "{schema}");
    }
}

/// The groups that playbooks name, and three users: of high, medium and low risk.
async fn past() -> (Scene, Vec<User>) {
    let playbook = PLAYBOOK.replace("{{ target.login }}", "{{ target.login }} ({{ user.name }})");
    let scene = Scene::with(OrgOptions::default(), FAST, &playbook).await;
    scene.org.add_group("High Risk Users");
    scene.org.add_group("Medium Risk Users");
    let users: Vec<User> = ["Ann", "Bea", "Cid"].map(|first| scene.org.add_user(User::new(first, "Miller"))).into();
    for (user, level) in users.iter().zip(["HIGH", "MEDIUM", "LOW"]) {
        scene.org.push_event(events::risk_detected(user, "UNKNOWN", level));
    }
    (scene, users)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_is_seen_through_another_configuration() {
    let (scene, _) = past().await;
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    ledger.at_rest(3).await;
    let look = |more: &[&str]| {
        let mut all = vec!["simulate", "--from-inbox", "0", "--format", "json"];
        all.extend(more);
        let mut lines = scene.json_lines(&all);
        let summary = lines.pop().unwrap()["summary"].clone();
        (lines, summary)
    };
    // Beside the daemon, and with the configuration that was used: nothing differs.
    let (events, summary) = look(&[]);
    assert_eq!(
        (events.len(), summary["same"].as_u64(), summary["differ"].as_u64()),
        (3, Some(3), Some(0)),
        "{events:#?}"
    );
    assert!(look(&["--only-differences"]).0.is_empty());
    let requests = scene.org.requests().len();
    drop(daemon);

    // A wider condition, another channel, and a step that needs what nobody asked for then.
    scene.edit("risk.level == \"HIGH\"", "risk.level in [\"HIGH\", \"MEDIUM\"]");
    scene.edit("channel = \"#security\"", "channel = \"#soc\"");
    let step = "\n  [[playbook.step]]\n  name = \"boss\"\n  when = 'manager != null'\n  action = \"slack.message.post\"\n  \
                with = { channel = \"#soc\", text = \"x\" }\n";
    let text = std::fs::read_to_string(scene.config()).unwrap();
    std::fs::write(scene.config(), text + step).unwrap();
    let (events, summary) = look(&["--only-differences"]);
    assert_eq!(events.len(), 3, "{events:#?}");
    let steps = &summary["steps"];
    let counted = ["new", "gone", "parameters", "otherwise", "unknown"].map(|key| steps[key].as_u64().unwrap());
    assert_eq!(counted, [1, 0, 3, 0, 3], "{events:#?}");
    let bea = &events[1]["steps"];
    assert_eq!((&bea[0]["step"], &bea[0]["change"]), (&Value::from("quarantine"), &Value::from("new")), "{bea}");
    let channel = &bea[1]["parameters"];
    let tell = channel.as_array().unwrap().iter().find(|parameter| parameter["name"] == "channel").unwrap();
    assert_eq!((&tell["then"], &tell["now"]), (&Value::from("#security"), &Value::from("#soc")));

    // A guard that says no, a playbook that is gone.
    scene.edit("name = \"risk\"", "name = \"other\"");
    let (events, summary) = look(&[]);
    assert!(summary["steps"]["gone"].as_u64() > Some(0) && summary["steps"]["new"].as_u64() > Some(0), "{events:#?}");
    assert_eq!(scene.org.requests().len(), requests, "nothing was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_guard_would_have_refused_is_told() {
    let (scene, users) = past().await;
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    ledger.at_rest(3).await;
    drop(daemon);
    let text = std::fs::read_to_string(scene.config()).unwrap();
    let guard = format!("[guard]\nprotected_users = [\"{}\"]\n", users[0].login);
    std::fs::write(scene.config(), text.replacen("[slack]", &format!("{guard}[slack]"), 1)).unwrap();
    let output = scene.command(&["simulate", "--from-inbox", "10", "--only-differences"]);
    let told = told(&output);
    assert!(told.contains("quarantine: REFUSED BY THE GUARD instead of called for"), "{told}");
    assert!(told.contains("1 decided otherwise") && told.contains("2 the same"), "{told}");
}
