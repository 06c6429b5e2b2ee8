use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::config::load;
use crate::playbook::shape::Shape;
use crate::playbook::{Fact, FactValue, Facts};

const PLAYBOOKS: &str = r##"
[okta]
org_url = "https://example.okta.com"
token = { env = "T" }
[slack]
token = { env = "S" }
[[playbook]]
name = "risk"
on = ["user.risk.detect"]
[[playbook.step]]
name = "quarantine"
when = 'risk.level == "HIGH"'
action = "okta.group.add_user"
with = { group = "High Risk" }
[[playbook.step]]
name = "tell"
after = ["quarantine"]
action = "slack.message.post"
with = { channel = "#security", text = "{{ manager.name }} {{ steps.quarantine.state }}" }
[[playbook]]
name = "sign-in"
on = ["user.session.start", "user.risk.detect"]
[[playbook.step]]
name = "tell"
action = "slack.message.post"
with = { channel = "#security", text = "a sign-in" }
"##;

const RISK: &str = r#"event = { eventType = "user.risk.detect", target = [{ type = "User", id = "00u1", alternateId = "ann@example.com", displayName = "Ann Example" }] }"#;

/// The tests of the playbooks above, or everything that is wrong as people read it.
fn compiled(tests: &str, files: &[(&str, &str)]) -> Result<Vec<Playtest>, String> {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let file = directory.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let file = directory.path().join("config.toml");
    fs::write(&file, format!("{PLAYBOOKS}{tests}")).unwrap();
    let told = |problems: Vec<crate::config::problem::Problem>| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        lines.join("\n").replace(&format!("{}/", directory.path().display()), "")
    };
    let loaded = load::load(&file).map_err(told)?;
    compile(&loaded).map_err(told)
}

#[track_caller]
fn check_refused(test: &str, parts: &[&str]) {
    let told = compiled(&format!("[[test]]\nname = \"t\"\n{test}\n"), &[]).unwrap_err();
    assert_eq!(told.matches("error:").count(), 1, "{told}");
    for part in parts {
        assert!(told.contains(part), "{part} is not in {told}");
    }
}

#[test]
fn every_problem_is_told_at_once_with_file_line_and_name() {
    let tests = format!(
        r##"
[[test]]
name = "one"
{RISK}
expect = [
  {{ step = "quarantin" }},
  {{ step = "tell" }},
  {{ step = "quarantine", action = "okta.group.add_usr", with = {{ grup = "High Risk" }} }},
]
not = ["tel"]
facts = {{ steps = {{ quarantin = {{ state = "succeded" }} }} }}

[[test]]
name = "one"
playbook = "rsk"

[[test]]
name = "two"
event = {{ eventType = "user.risk.detct" }}
event_file = "x.json"
expect = []
"##
    );
    let beside = "[[test]]\nname = \"three\"\nevent_file = \"no.json\"\nnot = [\"tell\"]\n";
    let told = compiled(&tests, &[("playbooks.d/more.toml", beside)]).unwrap_err();
    insta::assert_snapshot!(told);
}

#[test]
fn mistakes_of_shape_are_told_by_the_loader() {
    check_refused("expct = []", &["config.toml:", "test \"t\"", "unknown key `expct`", "did you mean `expect`?"]);
    check_refused("expect = [{ stp = \"x\" }]", &["test \"t\", expect 1: unknown key `stp`", "did you mean `step`?"]);
    check_refused("facts = { user = { logn = \"x\" } }", &["unknown key `logn`", "did you mean `login`?"]);
}

#[test]
fn a_test_that_cannot_fail_is_refused() {
    check_refused(RISK, &["expects nothing, so it cannot fail"]);
    check_refused(
        "expect = []\nevent = { eventType = \"user.risk.detct\" }",
        &["no playbook answers", "`user.risk.detect`?"],
    );
    check_refused(
        "playbook = \"risk\"\nexpect = []\nevent = { eventType = \"user.session.start\" }",
        &["the playbook `risk` does not answer `user.session.start`"],
    );
}

#[test]
fn what_contradicts_itself_is_refused() {
    check_refused(
        &format!("{RISK}\nexpect = [{{ step = \"tell\" }}]"),
        &["`risk` and `sign-in` both have a step `tell`"],
    );
    let both = "expect = [{ step = \"quarantine\" }]\nnot = [\"quarantine\"]";
    check_refused(&format!("{RISK}\n{both}"), &["`quarantine` is expected as well"]);
    let twice = "expect = [{ step = \"quarantine\" }, { step = \"quarantine\" }]";
    check_refused(&format!("{RISK}\n{twice}"), &["the same step is told of twice"]);
    let skipped = "expect = [{ step = \"quarantine\", state = \"skipped\", with = { group = \"x\" } }]";
    check_refused(&format!("{RISK}\n{skipped}"), &["expect 1, with", "has no final parameters"]);
    let misspelt = "expect = [{ step = \"quarantine\", with = { group = { contain = \"x\" } } }]";
    check_refused(&format!("{RISK}\n{misspelt}"), &["expect 1, with.group", "{ contains = "]);
    check_refused(&format!("{RISK}\nexpect = []\nevent_file = \"x\""), &["there are two events"]);
}

fn one(test: &str, files: &[(&str, &str)]) -> Playtest {
    compiled(&format!("[[test]]\nname = \"t\"\nexpect = []\n{test}\n"), files).unwrap().remove(0)
}

fn fact(test: &Playtest, fact: Fact) -> Option<&Value> {
    test.given.facts.iter().find_map(|(name, value)| match value {
        FactValue::Known(value) if *name == fact => Some(value),
        _ => None,
    })
}

#[test]
fn an_event_is_filled_up_to_what_okta_always_sends() {
    let test = one(RISK, &[]);
    assert_eq!(test.event.uuid, "test");
    assert_eq!(test.event.published.to_string(), "2026-01-01T00:00:00Z");
    assert_eq!((test.event.body["version"].clone(), test.event.body["client"].clone()), (json!("0"), Value::Null));
    assert_eq!(test.now, test.event.published);
    let later = one(&format!("{RISK}\ndecided_after = \"2h\""), &[]);
    assert_eq!(later.now.to_string(), "2026-01-01T02:00:00Z");
}

#[test]
fn an_event_may_stand_in_a_file_beside_that_of_the_test() {
    let record = r#"{"eventType":"user.risk.detect","uuid":"u-1","published":"2026-08-24T10:00:00Z"}"#;
    let test = one("event_file = \"events/high.json\"", &[("events/high.json", record)]);
    assert_eq!((test.event.uuid.as_str(), test.file.ends_with("config.toml")), ("u-1", true));
    let beside = "[[test]]\nname = \"b\"\nevent_file = \"high.json\"\nexpect = []\n";
    let tests = compiled("", &[("playbooks.d/more.toml", beside), ("playbooks.d/high.json", record)]).unwrap();
    assert_eq!((tests[0].line, tests[0].file.ends_with("playbooks.d/more.toml")), (1, true));
    let several = format!("[{record},{record}]");
    let told = compiled("[[test]]\nname = \"t\"\nexpect = []\nevent_file = \"e.json\"\n", &[("e.json", &several)]);
    assert!(told.unwrap_err().contains("e.json: it holds 2 events"));
}

#[test]
fn a_person_has_every_field_that_can_be_read() {
    let test = one(&format!("{RISK}\nfacts = {{ user = {{ email = \"a@example.com\" }}, manager = {{}} }}"), &[]);
    let user = fact(&test, Fact::User).unwrap();
    assert_eq!(
        (&user["id"], &user["login"], &user["name"]),
        (&json!("00u1"), &json!("ann@example.com"), &json!("Ann Example"))
    );
    assert_eq!((&user["status"], &user["mobile_phone"]), (&json!("ACTIVE"), &Value::Null));
    assert_eq!(fact(&test, Fact::Manager), Some(&Value::Null));
    assert_eq!(fact(&test, Fact::Groups), None);
    let Some(Shape::Record(fields)) = Facts::shape("user") else { panic!() };
    let mut fields: Vec<_> = fields.iter().map(|(field, _)| *field).collect();
    fields.sort_unstable();
    let keys: Vec<_> = user.as_object().unwrap().keys().map(String::as_str).collect();
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, fields);
}
