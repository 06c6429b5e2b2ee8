use std::fs;
use std::path::Path;

use jsonschema::Validator;

use super::*;
use crate::config::example;
use crate::config::load::{self, PLAYBOOKS_DIRECTORY};

const MINIMAL: &str = "[okta]\norg_url = \"https://example.okta.com\"\ntoken = { env = \"T\" }\n";

/// Another implementation than the one that makes the schema.
fn judge(schema: &Value) -> Validator {
    jsonschema::draft202012::new(schema).unwrap()
}

fn json_of(text: &str) -> Value {
    fn without_moments(value: toml::Value) -> Value {
        match value {
            toml::Value::Datetime(moment) => json!(moment.to_string()),
            toml::Value::Array(list) => list.into_iter().map(without_moments).collect(),
            toml::Value::Table(table) => table.into_iter().map(|(key, value)| (key, without_moments(value))).collect(),
            other => serde_json::to_value(other).unwrap(),
        }
    }
    without_moments(toml::Value::Table(toml::from_str(text).unwrap()))
}

#[track_caller]
fn check_right(schema: &Value, text: &str) {
    let told: Vec<String> =
        judge(schema).iter_errors(&json_of(text)).map(|error| format!("{} {error}", error.instance_path())).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}

#[test]
fn both_are_schemas_and_know_no_null() {
    for schema in [of_configuration(), of_playbooks()] {
        assert!(jsonschema::draft202012::meta::is_valid(&schema));
        let text = schema.to_string();
        assert!(!text.contains("\"null\"") && !text.contains("\"nanos\"") && !text.contains("[`"), "{text}");
    }
}

#[test]
fn the_example_is_right_with_every_setting_in_it() {
    check_right(&of_configuration(), example::EXAMPLE);
    check_right(&of_configuration(), &example::complete());
}

#[test]
fn an_editor_shows_what_a_key_means_and_its_default() {
    let schema = of_configuration();
    let timeout = schema.pointer("/$defs/OktaConfig/properties/timeout").unwrap();
    assert_eq!(timeout["default"], "30s", "{timeout}");
    assert_eq!(timeout["description"], "The bound on one request.");
    let defined = |value: &Value| value.as_object().is_some_and(|value| value.contains_key("description"));
    for name in ["OktaConfig", "PollConfig", "GuardConfig", "StepConfig", "TestConfig", "ExpectConfig"] {
        let properties = schema.pointer(&format!("/$defs/{name}/properties")).unwrap().as_object().unwrap();
        assert!(properties.values().all(defined), "{name}: {properties:?}");
    }
}

#[test]
fn what_stands_in_playbooks_d_has_a_schema_of_its_own() {
    let playbook = "[[playbook]]\nname = \"p\"\non = [\"a.b\"]\n[[playbook.step]]\nname = \"s\"\n\
                    action = \"okta.user.clear_sessions\"\nwait = \"1m 30s\"\nafter = [\"t\"]\n";
    check_right(&of_playbooks(), playbook);
    check_right(&of_configuration(), &format!("{MINIMAL}{playbook}"));
    assert!(!judge(&of_playbooks()).is_valid(&json_of(&format!("{MINIMAL}{playbook}"))));
}

#[test]
fn every_way_to_write_a_value_is_right() {
    for text in [
        "[poll]\nstart_from = \"now\"\ninterval = \"auto\"",
        "[poll]\nstart_from = \"24h\"\ninterval = \"10s\"",
        "[poll]\nstart_from = 2026-08-24T10:00:00Z",
        "[poll]\nstart_from = \"2026-08-24T10:00:00+02:00\"",
        "[guard]\napproval_expires = \"never\"\nlimits = { overall = \"unlimited\", playbook = { p = 3 } }",
        "[guard]\napproval_expires = \"1day 2h\"",
        "[guard.alarm]\naction = \"slack.message.post\"\nwith = { channel = \"#c\" }",
        "[servicenow]\nurl = \"https://x.example.com\"\nusername = \"u\"\npassword = { credential = \"c\" }",
    ] {
        check_right(&of_configuration(), &format!("{MINIMAL}{text}\n"));
    }
    let step = |with: &str| {
        format!("{MINIMAL}[[playbook]]\nname = \"p\"\non = [\"a.b\"]\n[[playbook.step]]\nname = \"s\"\n{with}\n")
    };
    for with in [
        "action = \"servicenow.incident.create\"\nwith = { short_description = \"x\", urgency = 1, impact = \"{{ 2 }}\" }",
        "action = \"okta.group.add_user\"\nwith = { group = \"g\", user = \"{{ target.id }}\" }",
        "action = \"email.send\"\nwith = { to = \"a@b.c\", subject = \"s\", text = \"t\" }",
        "action = \"email.send\"\nwith = { to = [\"a@b.c\"], subject = \"s\", text = \"t\" }",
        "action = \"okta.app.unassign_user\"",
    ] {
        check_right(&of_configuration(), &step(with));
    }
}

/// Whatever the schema refuses, the loader refuses as well; these are its mistakes of shape, one by one.
#[test]
fn mistakes_of_shape_are_seen_and_are_mistakes_for_the_loader_too() {
    let okta =
        |more: &str| format!("[okta]\norg_url = \"https://example.okta.com\"\ntoken = {{ env = \"T\" }}\n{more}\n");
    let playbook = |more: &str| {
        okta(&format!(
            "[slack]\ntoken = {{ env = \"S\" }}\n[[playbook]]\nname = \"p\"\non = [\"user.risk.detect\"]\n{more}\n"
        ))
    };
    let step = |more: &str| playbook(&format!("[[playbook.step]]\nname = \"s\"\n{more}"));
    let clear = "action = \"okta.user.clear_sessions\"";
    let test = |more: &str| step(&format!("{clear}\n[[test]]\nname = \"t\"\n{more}"));
    let mistakes = [
        String::new(),
        okta("surprise = 1"),
        "surprise = 1\n".to_owned() + MINIMAL,
        MINIMAL.replace("org_url", "orgurl"),
        MINIMAL.replace("{ env = \"T\" }", "\"00aSecret\""),
        MINIMAL.replace("env", "fil"),
        MINIMAL.replace("env = \"T\"", "env = \"T\", file = \"f\""),
        okta("timeout = \"30 parsecs\""),
        okta("timeout = 30"),
        okta("rate_share = \"half\""),
        okta("rate_share = 1.5"),
        okta("algorithm = \"HS256\""),
        okta("dpop = \"maybe\""),
        okta("[poll]\nstart_from = \"yesterday\""),
        okta("[poll]\ninterval = \"often\""),
        okta("[poll]\npage_size = -1"),
        okta("[poll]\npage_size = 1001"),
        okta("[poll]\npage_size = \"many\""),
        okta("[riks]\nsource = \"okta\""),
        okta("[risk]\nsource = \"group\""),
        okta("[dispatch]\nconcurrency = 0"),
        okta("[guard]\nprotected_users = [\"00u1\", 7]"),
        okta("[guard]\napproval_expires = \"some day\""),
        okta("[guard.limits]\noverall = -1"),
        okta("[guard.limits]\noverall = \"none\""),
        okta("[guard.alarm]\nwith = { channel = \"c\" }"),
        okta("[guard.alarm]\naction = \"okta.user.clear_sessions\""),
        okta("[teams]\ntimeout = \"1s\""),
        okta("[email]\nhost = \"h\"\nfrom = \"a@b.c\"\ntls = \"ssl\""),
        okta("[log]\nformat = \"xml\""),
        okta("[[playbook]]\non = [\"user.risk.detect\"]"),
        okta("[[playbook]]\nname = \"p\"\non = \"user.risk.detect\""),
        okta("[[playbook]]\nname = \"p\"\non = []"),
        okta("[[playbook]]\nname = \"p\"\non = [\"user risk\"]"),
        okta("[[playbook]]\nname = \"a playbook\"\non = [\"user.risk.detect\"]"),
        playbook("mode = \"watch\""),
        playbook("step = 7"),
        step(""),
        step("nmae = \"x\"\naction = \"okta.user.clear_sessions\""),
        step("action = \"okta.group.add_usr\""),
        step(&format!("{clear}\nafter = \"x\"")),
        step(&format!("{clear}\nwait = 30")),
        step(&format!("{clear}\nin_doubt = \"perhaps\"")),
        step(&format!("{clear}\napproval = \"yes\"")),
        step(&format!("{clear}\nwith = {{ forget_devices = \"yes\" }}")),
        step(&format!("{clear}\nwith = {{ forget_device = true }}")),
        step("action = \"okta.group.add_user\""),
        step("action = \"okta.group.add_user\"\nwith = { group = \"A\", colour = \"red\" }"),
        step("action = \"slack.message.post\"\nwith = { channel = \"c\" }"),
        step("action = \"slack.message.post\"\nwith = { channel = \"c\", text = 7 }"),
        test("nmae = \"x\""),
        test("expect = \"s\""),
        test("expect = [{ with = {} }]"),
        test("expect = [{ step = \"s\", state = \"done\" }]"),
        test("event = \"user.risk.detect\""),
        test("facts = { user_risk = \"high\" }"),
        test("facts = { usr = {} }"),
        test("facts = { user = { logn = \"x\" } }"),
        test("facts = { steps = { s = {} } }"),
    ];
    let judge = judge(&of_configuration());
    for text in mistakes {
        assert!(!judge.is_valid(&json_of(&text)), "the schema sees nothing wrong in:\n{text}");
        assert!(!loads(&text), "the loader sees nothing wrong in:\n{text}");
    }
    check_right(&of_configuration(), &test("event = { eventType = \"user.risk.detect\" }\nexpect = []"));
}

fn loads(text: &str) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    assert!(!Path::new(&directory.path().join(PLAYBOOKS_DIRECTORY)).exists());
    fs::write(&file, text).unwrap();
    load::load(&file).is_ok()
}

#[test]
fn every_action_is_known_with_its_parameters() {
    let schema = of_configuration();
    for kind in connectors::catalogue() {
        let text = |with: &str| {
            let step = format!("[[playbook.step]]\nname = \"s\"\naction = \"{}\"\nwith = {{ {with} }}", kind.name);
            json_of(&format!("{MINIMAL}[[playbook]]\nname = \"p\"\non = [\"a.b\"]\n{step}\n"))
        };
        let told = |with: &str| {
            let judge = judge(&schema);
            judge.iter_errors(&text(with)).map(|error| error.to_string()).collect::<Vec<_>>().join("\n")
        };
        assert!(told("no_such_parameter = 1").contains("no_such_parameter"), "{}", kind.name);
    }
}
