//! The example configuration is documentation, and held to the code here.

use std::collections::BTreeSet;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::model::event::{Event, SOURCE_OKTA};
use crate::playbook::{Fact, FactValue, Facts, LinkBase, Playbook, Prepared, StepView, plan};

pub(super) const EXAMPLE: &str = include_str!("../../config.example.toml");

const MINIMAL: &str = r#"
    [okta]
    org_url = "https://example.okta.com"
    token = { env = "T" }
    [servicenow]
    url = "https://example.service-now.com"
    [jira]
    url = "https://example.atlassian.net"
    token = { env = "J" }
    [pagerduty]
    routing_key = { env = "P" }
    [slack]
    [teams]
    webhook_url = { env = "W" }
    [email]
    host = "smtp.example.com"
    from = "a@example.com"
    [http.edr]
    base_url = "https://api.edr.example.com/v1"
    [[playbook]]
    name = "p"
    on = ["user.risk.detect"]
    [[playbook.step]]
    name = "s"
    action = "okta.user.clear_sessions"
"#;

/// The example with every setting that is left out put in: what has `#` right before its key.
pub(super) fn complete() -> String {
    let is_setting = |rest: &str| {
        rest.starts_with("[[")
            || rest.split_once(" = ").is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    let lines = EXAMPLE.lines().map(|line| line.strip_prefix('#').filter(|rest| is_setting(rest)).unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

fn parsed(text: &str) -> Config {
    toml::from_str(text).unwrap()
}

fn loaded() -> load::Loaded {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    std::fs::write(&file, EXAMPLE).unwrap();
    load::load(&file).unwrap_or_else(|problems| panic!("{}", problems[0]))
}

#[test]
fn nothing_is_wrong_with_the_example() {
    let names: Vec<_> = loaded().playbooks.into_iter().map(|playbook| playbook.name).collect();
    assert_eq!(
        names,
        [
            "user-risk-changed",
            "high-risk-app-assigned",
            "high-risk-app-review",
            "access-review-ended",
            "high-risk-sign-in",
            "mfa-fatigue",
            "account-takeover",
            "threat-insight",
            "suspicious-activity-reported",
            "breached-credential",
            "partner-reported-risk",
            "unsuspended-at-high-risk",
            "device-added-at-high-risk",
            "policy-no-longer-met",
            "break-glass-used",
            "cool-off"
        ]
    );
}

#[test]
fn every_setting_of_the_example_fits_its_type() {
    let document =
        document::read::<Config>(Path::new("config.example.toml"), &complete()).map_err(|p| p[0].to_string());
    let problems = document.unwrap().problems;
    assert!(problems.is_empty(), "{}", problems[0]);
}

#[test]
fn every_default_of_the_example_is_the_codes() {
    let (shown, real) = (parsed(&complete()), parsed(MINIMAL));
    let same = |shown: &dyn std::fmt::Debug, real: &dyn std::fmt::Debug| {
        assert_eq!(format!("{shown:?}"), format!("{real:?}"));
    };
    same(&shown.okta.timeout, &real.okta.timeout);
    same(&shown.okta.dpop, &real.okta.dpop);
    same(&shown.okta.rate_share, &real.okta.rate_share);
    same(&shown.okta.manager_link, &real.okta.manager_link);
    same(&shown.okta.admin_url.as_deref().map(values::admin_url), &Some(real.admin_url()));
    same(&shown.network.no_proxy, &real.network.no_proxy);
    same(&shown.poll, &real.poll);
    same(&shown.state_path(None), &real.state_path(None));
    same(&shown.risk.source, &real.risk.source);
    same(&shown.dispatch, &real.dispatch);
    same(&GuardConfig { max_event_age: None, alarm: None, ..shown.guard }, &real.guard);
    same(&shown.log, &real.log);
    let (shown_now, real_now) = (shown.servicenow.unwrap(), real.servicenow.unwrap());
    same(&(shown_now.table, shown_now.timeout), &(real_now.table, real_now.timeout));
    let (shown_jira, real_jira) = (shown.jira.unwrap(), real.jira.unwrap());
    same(&(shown_jira.flavor, shown_jira.search_lag), &(real_jira.flavor, real_jira.search_lag));
    same(&shown_jira.timeout, &real_jira.timeout);
    let (shown_duty, real_duty) = (shown.pagerduty.unwrap(), real.pagerduty.unwrap());
    same(&(shown_duty.url, shown_duty.timeout), &(real_duty.url, real_duty.timeout));
    let (shown_slack, real_slack) = (shown.slack.unwrap(), real.slack.unwrap());
    same(&(shown_slack.api_url, shown_slack.timeout), &(real_slack.api_url, real_slack.timeout));
    same(&shown.teams.unwrap().timeout, &real.teams.unwrap().timeout);
    let (shown_mail, real_mail) = (shown.email.unwrap(), real.email.unwrap());
    same(&(shown_mail.tls, shown_mail.timeout), &(real_mail.tls, real_mail.timeout));
    let (shown_http, real_http) = (&shown.http["edr"], &real.http["edr"]);
    same(&(&shown_http.headers, &shown_http.allow_private), &(&real_http.headers, &real_http.allow_private));
    same(&shown_http.timeout, &real_http.timeout);
    let (shown_playbook, real_playbook) = (&shown.playbooks[0], &real.playbooks[0]);
    same(&shown_playbook.mode, &real_playbook.mode);
    same(&shown_playbook.steps[0].approval, &real_playbook.steps[0].approval);
    same(&shown_playbook.steps[1].needs, &real_playbook.steps[0].needs);
}

/// The keys that serde accepts in `T`, taken from what it says about one that it does not accept.
fn keys_of<T: DeserializeOwned>() -> BTreeSet<String> {
    let document: toml::Table = toml::from_str("\"no such key\" = 1").unwrap();
    let error = T::deserialize(document).err().unwrap().to_string();
    wording::listed(&error).into_iter().map(str::to_owned).collect()
}

#[test]
fn every_key_occurs_in_the_example() {
    let document: toml::Table = toml::from_str(&complete()).unwrap();
    let table = |name: &str| document[name].as_table().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let playbook = document["playbook"][0].as_table().unwrap();
    let steps = playbook["step"].as_array().unwrap();
    let of_steps: BTreeSet<String> = steps.iter().flat_map(|step| step.as_table().unwrap().keys().cloned()).collect();
    assert_eq!(document.keys().cloned().collect::<BTreeSet<_>>(), keys_of::<Config>());
    assert_eq!(table("okta"), keys_of::<OktaConfig>());
    assert_eq!(table("network"), keys_of::<NetworkConfig>());
    assert_eq!(table("poll"), keys_of::<PollConfig>());
    assert_eq!(table("state"), keys_of::<StateConfig>());
    assert_eq!(table("risk"), keys_of::<RiskConfig>());
    assert_eq!(table("dispatch"), keys_of::<DispatchConfig>());
    let in_guard = |name: &str| document["guard"][name].as_table().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(table("guard"), keys_of::<GuardConfig>());
    assert_eq!(in_guard("limits"), keys_of::<LimitsConfig>());
    assert_eq!(in_guard("alarm"), keys_of::<AlarmConfig>());
    assert_eq!(table("log"), keys_of::<LogConfig>());
    assert_eq!(table("servicenow"), keys_of::<ServiceNowConfig>());
    assert_eq!(table("jira"), keys_of::<JiraConfig>());
    assert_eq!(table("pagerduty"), keys_of::<PagerDutyConfig>());
    assert_eq!(table("slack"), keys_of::<SlackConfig>());
    assert_eq!(table("teams"), keys_of::<TeamsConfig>());
    assert_eq!(table("email"), keys_of::<EmailConfig>());
    let http = document["http"]["edr"].as_table().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(http, keys_of::<HttpConfig>());
    assert_eq!(playbook.keys().cloned().collect::<BTreeSet<_>>(), keys_of::<PlaybookConfig>());
    assert_eq!(of_steps, keys_of::<StepConfig>());
    let of_tests = |tests: &toml::Value| -> BTreeSet<String> {
        let tests = tests.as_array().unwrap();
        tests.iter().flat_map(|test| test.as_table().unwrap().keys().cloned()).collect()
    };
    assert_eq!(of_tests(&document["test"]), keys_of::<playtest::TestConfig>());
}

#[test]
fn every_action_is_named_in_the_example() {
    for registration in crate::connectors::ACTIONS {
        assert!(EXAMPLE.contains(registration.kind.name), "{}", registration.kind.name);
    }
}

fn risk_event(previous: &str, level: &str) -> Event {
    event(json!({
        "uuid": "7b5fe3d0-0000-11f1-9c4e-d5a1f3b0c0de", "eventType": "user.risk.detect", "published": "2026-08-24T10:15:02.102Z",
        "actor": {"id": "okta.System", "type": "SystemPrincipal"},
        "target": [{"id": "00u1", "type": "User", "alternateId": "ana@example.com", "displayName": "Ana & Co"}],
        "debugContext": {"debugData": {"risk": format!(
            "{{previousLevel={previous}, level={level}, detectionName=Okta Threat Intelligence, reasons=a, b, issuer=OKTA}}"
        )}}
    }))
}

fn assignment(app: &str) -> Event {
    event(json!({
        "uuid": "7b5fe3d0-0000-11f1-9c4e-d5a1f3b0c0df", "eventType": "application.user_membership.add",
        "published": "2026-08-24T10:15:02.102Z", "actor": {"id": "00uadmin", "type": "User"},
        "target": [
            {"id": "0ua1", "type": "AppUser"}, {"id": app, "type": "AppInstance", "displayName": "Payroll"},
            {"id": "00u1", "type": "User", "alternateId": "ana@example.com", "displayName": "Ana & Co"}
        ]
    }))
}

fn event(body: Value) -> Event {
    Event::parse(SOURCE_OKTA, &body.to_string()).unwrap()
}

/// What the playbook of this name makes of an event: a line for each step that is called for, with its texts when asked
/// for. Steps before a message end with the state given for them, `skipped` where none is.
fn check(playbook: &str, event: &Event, user_risk: &str, ended: &[(&str, &str)], with_texts: bool) -> String {
    let loaded = loaded();
    let playbook: &Playbook = loaded.playbooks.iter().find(|candidate| candidate.name == playbook).unwrap();
    assert!(playbook.wants(&event.event_type));
    let mut facts = Facts::from_event(event.clone(), &LinkBase::new("https://example.okta.com", None));
    let person = |name: &str, login: &str| {
        json!({"id": "00u1", "login": login, "email": login, "first_name": name, "last_name": "Example", "name": name,
            "mobile_phone": null, "status": "ACTIVE", "manager_id": null})
    };
    facts.set(Fact::User, FactValue::Known(person("Ana", "ana@example.com")));
    facts.set(Fact::Manager, FactValue::Known(person("Bo", "bo@example.com")));
    facts.set(Fact::Groups, FactValue::Known(json!([])));
    facts.set(Fact::UserRisk, FactValue::Known(json!(user_risk)));
    for step in &playbook.steps {
        let state = ended.iter().find(|(name, _)| *name == step.name).map_or("skipped", |(_, state)| state);
        let done = state == "succeeded";
        let made = done && step.name == "incident";
        let view = StepView {
            state: state.to_owned(),
            url: made.then(|| "https://example.service-now.com/incident".to_owned()),
            number: made.then(|| "INC0010002".to_owned()),
            error: (!done && state != "skipped").then(|| "granted_by_group: a group grants it".to_owned()),
            ..StepView::default()
        };
        facts.set_step(&step.name, view);
    }
    if !plan::applies(playbook, &facts).unwrap() {
        return "does not apply".to_owned();
    }
    let written = playbook.steps.iter().filter(|step| step.edits.is_none());
    let lines = written.filter_map(|step| match plan::prepare(playbook, step, &facts, event) {
        Prepared::Ready { params, .. } if with_texts => {
            let params = params.as_object().unwrap().iter();
            let params: Vec<_> =
                params.map(|(key, value)| format!("{key}: {}", value.as_str().unwrap_or("…"))).collect();
            Some(format!("== {}\n{}", step.name, params.join("\n")))
        }
        Prepared::Ready { .. } => Some(step.name.clone()),
        Prepared::NotCalledFor { .. } => None,
        other => panic!("{}: {other:?}", step.name),
    });
    lines.collect::<Vec<_>>().join(if with_texts { "\n" } else { " " })
}

#[test]
fn a_change_of_risk_moves_the_user_between_the_groups_and_is_always_told() {
    let steps = |previous, level| check("user-risk-changed", &risk_event(previous, level), "LOW", &[], false);
    assert_eq!(steps("LOW", "HIGH"), "quarantine incident tell-manager tell-security");
    assert_eq!(steps("MEDIUM", "HIGH"), "quarantine end-watch incident tell-manager tell-security");
    assert_eq!(steps("LOW", "MEDIUM"), "watch tell-security");
    assert_eq!(steps("HIGH", "MEDIUM"), "watch end-quarantine tell-security");
    assert_eq!(steps("HIGH", "LOW"), "end-quarantine tell-security");
    assert_eq!(steps("MEDIUM", "LOW"), "end-watch tell-security");
    assert_eq!(steps("LOW", "NEW_WORD"), "tell-security");
}

#[test]
fn the_texts_of_a_high_risk_read_well() {
    let ended = [("quarantine", "succeeded"), ("incident", "succeeded")];
    insta::assert_snapshot!(check("user-risk-changed", &risk_event("LOW", "HIGH"), "LOW", &ended, true));
}

#[test]
fn without_an_incident_the_message_leads_to_the_user() {
    let ended = [("quarantine", "succeeded"), ("incident", "retry")];
    let text = check("user-risk-changed", &risk_event("LOW", "HIGH"), "LOW", &ended, true);
    assert!(text.contains("No incident yet (retry granted_by_group"), "{text}");
    assert!(text.contains("/admin/user/profile/view/00u1|investigate the user>"), "{text}");
}

#[test]
fn an_app_that_is_too_much_for_the_risk_is_taken_back_or_told() {
    let app = assignment("0oa1payrollEXAMPLE01");
    let steps = |user_risk| check("high-risk-app-assigned", &app, user_risk, &[], false);
    assert_eq!(steps("LOW"), "");
    assert_eq!(steps("MEDIUM"), "tell-medium");
    assert_eq!(steps("UNKNOWN"), "tell-medium");
    assert_eq!(steps("HIGH"), "take-back tell-high");
    let other = assignment("0oa1another000000000");
    assert_eq!(check("high-risk-app-assigned", &other, "HIGH", &[], false), "does not apply");
    insta::assert_snapshot!(check("high-risk-app-assigned", &app, "HIGH", &[("take-back", "failed")], true));
}

#[test]
fn an_app_to_review_starts_a_review_and_tells() {
    let app = assignment("0oa1sourceEXAMPLE003");
    let texts = |ended: &[(&str, &str)]| check("high-risk-app-review", &app, "HIGH", ended, true);
    assert_eq!(check("high-risk-app-review", &app, "MEDIUM", &[], false), "");
    let done = texts(&[("review", "succeeded")]);
    assert!(done.contains("name: ana@example.com was given Payroll at high risk"), "{done}");
    assert!(done.contains("|under review>"), "{done}");
    let failed = texts(&[("review", "failed")]);
    assert!(failed.contains("There is *no* review yet (failed"), "{failed}");
}

#[test]
fn a_risky_sign_in_makes_a_ticket_and_another_does_not() {
    let sign_in = |level: &str| {
        event(json!({
            "uuid": "7b5fe3d0-0000-11f1-9c4e-d5a1f3b0c0d0", "eventType": "user.session.start",
            "published": "2026-08-24T10:15:02.102Z",
            "actor": {"id": "00u1", "type": "User", "alternateId": "ana@example.com"}, "target": null,
            "client": {"ipAddress": "192.0.2.7"}, "authenticationContext": {"credentialType": "PASSWORD"},
            "debugContext": {"debugData": {
                "risk": format!("{{reasons=New Device, New IP, level={level}}}"),
                "behaviors": "{New Device=POSITIVE, Velocity=NEGATIVE}"
            }}
        }))
    };
    assert_eq!(check("high-risk-sign-in", &sign_in("MEDIUM"), "LOW", &[], false), "does not apply");
    insta::assert_snapshot!(check("high-risk-sign-in", &sign_in("HIGH"), "LOW", &[], true));
}
