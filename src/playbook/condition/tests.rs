use serde_json::json;

use super::*;
use crate::model::event::{Event, SOURCE_OKTA};
use crate::playbook::facts::{FactValue, LinkBase, StepView};

fn facts() -> Facts {
    let body = json!({
        "uuid": "u-1", "eventType": "user.risk.detect", "published": "2026-08-24T10:15:02.102Z",
        "displayMessage": "true || risk.level == 'LOW'",
        "outcome": {"result": "SUCCESS", "reason": null},
        "target": [{"id": "00u1", "type": "User", "alternateId": "ann@example.com"}],
        "debugContext": {"debugData": {"risk": "{previousLevel=LOW, level=HIGH, reasons=a, b}"}},
        "number": 7, "pattern": "(((",
    });
    let event = Event::parse(SOURCE_OKTA, &body.to_string()).unwrap();
    Facts::from_event(event, &LinkBase::new("https://acme.okta.com", None))
}

#[track_caller]
fn check(text: &str, expected: bool) {
    assert_eq!(Condition::compile(text).unwrap().evaluate(&facts()).unwrap(), expected, "{text}");
}

#[track_caller]
fn check_refused(text: &str, part: &str) {
    let error = Condition::compile(text).unwrap_err();
    assert!(error.to_string().contains(part), "{text}: {error}");
}

#[test]
fn a_condition_sees_of_the_event_whatever_it_reads_of_it() {
    check("event.outcome.result == 'SUCCESS' && event.number == 7 && !has(event.nothing)", true);
    check("event['number'] == 7 && has(event.outcome)", true);
    check("size(event) > 5 && event.number == 7", true);
    check("[{'number': 8}].exists(event, event.number == 8)", true);
}

#[test]
fn conditions_answer() {
    check(r#"risk.level == "HIGH""#, true);
    check(r#"risk.previous_level == "HIGH" && risk.level in ["LOW", "MEDIUM"]"#, false);
    check(r#"target.login.endsWith("@example.com")"#, true);
    check(r#"target.login.matches("^ann@")"#, true);
    check("has(event.outcome.result) && !has(event.outcome.weather)", true);
    check(r#"event.target.exists(t, t.type == "User" && t.id.startsWith("00u"))"#, true);
    check(r#"risk.reasons.exists(event, event == "b")"#, true);
    check("event.number + 1 == 8 && size(risk.reasons) == 2", true);
    check("app == null", true);
}

#[test]
fn text_from_events_is_never_evaluated() {
    check(r#"event.displayMessage == "true || risk.level == 'LOW'""#, true);
    check_refused("risk.reasons_text.matches(event.pattern)", "not a literal");
    check_refused("risk.reasons_text.matches('(')", "not a regular expression");
}

#[test]
fn names_that_nothing_fills_are_refused() {
    check_refused("weather == 1", "event, risk, target, app, sign_in, links, user, manager, groups, user_risk, steps");
    check_refused("risk.reasons.exists(r, reason == r)", "reason");
    check_refused("now() == 1", "no function");
    check_refused("_now() == 1", "no function");
    check_refused("steps == {}", "as a whole");
    check_refused("steps['a'].state == 'x'", "as a whole");
}

#[test]
fn a_field_that_never_exists_is_refused() {
    check_refused(r#"risk.lvl == "HIGH""#, "no field `risk.lvl`; the fields of `risk` are level, previous_level");
    check_refused("target.logn == 3", "no field `target.logn`; did you mean `login`?");
    check_refused("target['logn'] == 'x'", "no field `target.logn`; did you mean `login`?");
    check_refused("has(target.logn)", "no field `target.logn`");
    check_refused("steps.quarantine.stat == 'failed'", "did you mean `state`?");
    check_refused("user.nme == 'x'", "did you mean `name`?");
    check_refused("manager != null && manager.emial != null", "did you mean `email`?");
    check_refused("user_risk.level == 'HIGH'", "`user_risk` is a level and has no fields");
    check_refused("risk.reasons.exists(r, r == target.logn)", "no field `target.logn`");
    check_refused("[target.logn].exists(target, target.x == 1)", "no field `target.logn`");
}

#[test]
fn a_level_that_never_is_is_refused() {
    check_refused(r#"risk.level == "High""#, "`risk.level` is never \"High\"; did you mean `HIGH`?");
    check_refused(r#"user_risk == "high""#, "did you mean `HIGH`?");
    check_refused(r#""low" != risk["previous_level"]"#, "did you mean `LOW`?");
    check_refused(r#"risk.level in ["LOW", "Mid"]"#, "never \"Mid\"; a level is LOW, MEDIUM, HIGH, UNKNOWN");
    check_refused("risk.level == 3", "not a text");
}

#[test]
fn a_condition_that_cannot_be_true_or_false_is_refused() {
    check_refused("risk.level", "`risk.level` is of type string, not true or false");
    check_refused(r#"risk.level == "HIGH" && target.login"#, "`target.login` is of type string");
    check_refused(r#"risk.level == "LOW" || !(size(risk.reasons))"#, "a part of the condition is of type int");
    check_refused(r#"risk.level == "HIGH" ? sign_in.proxy : "no""#, "a part of the condition is of type string");
    check_refused("manager.email", "`manager.email` is of type string");
    check_refused("!steps.tell_security.url", "`steps.tell_security.url` is of type string");
    check_refused("risk.reasons.map(r, r)", "list");
}

#[test]
fn fields_that_exist_or_may_exist_and_names_of_comprehensions_are_taken() {
    for text in [
        "has(event.weather.sun) && event.weather.sun",
        "event.anything",
        "has(target.login) && has(risk.detection)",
        "has(user.profile.costCenter) && user.profile.costCenter == 'x' || manager.profile['a b'] == 1",
        "sign_in.behaviors['New Device'] == 'POSITIVE' || sign_in.behaviors.Velocity == 'POSITIVE'",
        "sign_in.proxy && !sign_in.threat_suspected",
        "event.risks.exists(risk, risk.lvl == 'x' && risk.level == 'High')",
        "event.list.all(steps, steps.a.stat == 'x') && event.list.exists(user_risk, user_risk == 'high')",
        "groups.exists(g, g == 'Staff') && groups[0] != 'x' && risk.reasons[0].startsWith('a')",
        "user_risk in ['MEDIUM', 'UNKNOWN'] && risk.level == event.level && risk.level in event.levels",
        "manager == null || manager.email == null || app != null && app.id in ['0oa1']",
        "steps.tell_security.state in ['failed', 'retry'] && steps.a.url != null",
        "type(risk.level) == string && int(sign_in.ip) == 3 && risk['level'] == 'LOW'",
        "event.flag ? risk.level == 'LOW' : sign_in.proxy",
    ] {
        Condition::compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

#[test]
fn what_could_run_long_is_refused() {
    check_refused(&"1".repeat(MAX_CONDITION + 1), "bytes");
    check_refused("risk.reasons.all(a, risk.reasons.all(b, risk.reasons.all(c, a == c)))", "nested");
    check_refused(&format!("{}1 == 1", "1 + ".repeat(900)), "levels deep");
    check("risk.reasons.all(a, risk.reasons.exists(b, a == b))", true);
    check(&format!("{}1 == 64", "1 + ".repeat(63)), true);
    check_refused(&format!("{}1 == 65", "1 + ".repeat(64)), "more than 64 levels deep");
}

#[test]
fn the_longest_condition_is_taken() {
    let text = |bytes: usize| format!("'{}' == ''", "x".repeat(bytes - "'' == ''".len()));
    assert_eq!(Condition::compile(&text(4_096)).unwrap().text(), text(4_096));
    check_refused(&text(4_097), "the condition has 4097 bytes, more than 4096");
}

#[test]
fn a_field_at_the_end_of_an_endless_record_is_seen() {
    let mut body = json!({"uuid": "u-1", "eventType": "x", "published": "2026-08-24T10:15:02.102Z", "zz": 1});
    for n in 0..500 {
        body[format!("n{n}")] = json!(n);
    }
    let event = Event::parse(SOURCE_OKTA, &body.to_string()).unwrap();
    let facts = Facts::from_event(event, &LinkBase::new("https://acme.okta.com", None));
    assert!(Condition::compile("event.zz == 1 && has(event.zz)").unwrap().evaluate(&facts).unwrap());
    assert!(Condition::compile("size(event) == 200").unwrap().evaluate(&facts).unwrap(), "as a whole it is cut");
}

#[test]
fn a_condition_shows_itself_as_it_was_written() {
    let condition = Condition::compile("risk.level == 'HIGH'").unwrap();
    assert_eq!(format!("{condition:?}"), r#"Condition("risk.level == 'HIGH'")"#);
}

#[test]
fn any_brackets_and_garbage_end_in_an_error() {
    for text in ["", "(", "risk.", "'", "\u{0}", "risk.level ==", "{{ risk }}", "has(risk)", &"(".repeat(2_000)] {
        assert!(Condition::compile(text).is_err(), "{text}");
    }
}

#[test]
fn facts_and_steps_are_told() {
    let condition = Condition::compile("user.status == 'ACTIVE' && groups.exists(user, user == 'x')").unwrap();
    assert_eq!(condition.facts_named().to_string(), "user, groups");
    assert!(!condition.names_steps());
    let condition = Condition::compile("has(steps.tell_security.url) || steps.a.state == 'failed'").unwrap();
    assert!(condition.names_steps() && condition.facts_named().is_empty());
    assert_eq!(condition.steps_named().iter().collect::<Vec<_>>(), ["a", "tell_security"]);
}

#[test]
fn steps_are_read_with_underscores() {
    let mut facts = facts();
    facts.set_step("tell-security", StepView { state: "failed".to_owned(), ..StepView::default() });
    let condition = Condition::compile("steps.tell_security.state == 'failed'").unwrap();
    assert!(condition.evaluate(&facts).unwrap());
}

#[test]
fn a_missing_fact_is_named_with_its_reason_only_where_it_matters() {
    let mut facts = facts();
    facts.set(Fact::User, FactValue::Missing("Okta answered 403".to_owned()));
    let error = Condition::compile("user.status == 'ACTIVE'").unwrap().evaluate(&facts).unwrap_err();
    assert_eq!(error.to_string(), "the fact `user` is not known: Okta answered 403");
    assert!(Condition::compile("risk.level == 'HIGH' || user.status == 'X'").unwrap().evaluate(&facts).unwrap());
}

#[test]
fn answers_that_are_no_answers_are_errors() {
    for (text, part) in [
        ("event.displayMessage", "string"),
        ("event.weather == 1", "weather"),
        ("event.number.contains('a')", "contains"),
        ("risk.level < 1", "cannot be evaluated"),
    ] {
        let error = Condition::compile(text).unwrap().evaluate(&facts()).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn a_flood_in_the_event_is_answered() {
    let body = json!({
        "uuid": "u-1", "eventType": "x", "published": "2026-08-24T10:15:02.102Z",
        "list": vec!["a".repeat(100); 3_000],
    });
    let event = Event::parse(SOURCE_OKTA, &body.to_string()).unwrap();
    let facts = Facts::from_event(event, &LinkBase::new("https://acme.okta.com", None));
    let condition = Condition::compile("event.list.all(a, event.list.all(b, a == b))").unwrap();
    assert!(condition.evaluate(&facts).unwrap());
}

#[test]
fn regular_expressions_are_bounded_in_length_and_repetition() {
    let longest = format!("target.login.matches('{}')", "a".repeat(256));
    assert!(!Condition::compile(&longest).unwrap().evaluate(&facts()).unwrap());
    for bytes in [257, 1_000] {
        let text = format!("target.login.matches('{}')", "a".repeat(bytes));
        check_refused(&text, "longer than 256 bytes or two lists deep");
    }
    check("risk.reasons.exists(a, a.matches('^[ab]$'))", true);
    check_refused("risk.reasons.all(a, risk.reasons.all(b, b.matches('^a')))", "two lists deep");
}

#[test]
fn what_a_condition_reads_is_told_with_its_values() {
    let event = json!({"uuid": "u", "eventType": "x", "published": "2026-08-24T10:15:02.102Z",
        "client": {"ipAddress": "192.0.2.7"}, "target": null});
    let event = Event::parse(SOURCE_OKTA, &event.to_string()).unwrap();
    let facts = Facts::from_event(event, &LinkBase::new("https://acme.okta.com", None));
    let read = |text: &str| {
        let read = Condition::compile(text).unwrap().values_read(&facts);
        read.into_iter().map(|(path, value)| format!("{path}={value}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        read(r#"risk.level == "HIGH" && event.client.ipAddress != "x""#),
        r#"event.client.ipAddress="192.0.2.7" risk.level="UNKNOWN""#
    );
    assert_eq!(read(r#"app != null && app.id in ["risk.level"]"#), "app=null");
    assert_eq!(read(r#"risk.reasons.exists(app, app == "a")"#), "risk.reasons=[]");
    assert_eq!(read(r#"user_risk == "HIGH""#), "");
}

#[test]
fn what_is_asked_of_the_past_is_known_before_any_event_and_read_from_the_facts() {
    let text = r#"risk.level == "HIGH" && count("a.b", "60m") >= 5 && !seen_before("ip", ["c", "d"], "30d")"#;
    let condition = Condition::compile(text).unwrap();
    let asked: Vec<_> = condition.questions().map(ToString::to_string).collect();
    assert_eq!(asked, [r#"count("a.b", "1h")"#, r#"seen_before("ip", ["c","d"], "30days")"#]);
    assert!(condition.facts_named().contains(Fact::Past));

    let mut facts = facts();
    assert!(condition.facts_open(&facts).contains(Fact::Past));
    let mut told = |count: u64| {
        let answers = json!({asked[0].as_str(): count, asked[1].as_str(): false});
        facts.set(Fact::Past, FactValue::Known(answers));
        assert!(condition.facts_open(&facts).is_empty());
        condition.evaluate(&facts).unwrap()
    };
    assert!(told(5));
    assert!(!told(4));
    // What another condition asked is no answer to this one.
    facts.set(Fact::Past, FactValue::Known(json!({asked[0].as_str(): 5})));
    assert!(condition.facts_open(&facts).contains(Fact::Past));
    assert!(condition.evaluate(&facts).unwrap_err().to_string().contains("the past is not known"));
    // Null says that the event does not tell what to look for.
    facts.set(Fact::Past, FactValue::Known(json!({asked[0].as_str(): null, asked[1].as_str(): false})));
    assert!(condition.evaluate(&facts).unwrap_err().to_string().contains("does not tell"));
}

#[test]
fn what_is_asked_of_the_past_stands_in_the_condition_itself() {
    check_refused(r#"count(target.login, "1h") > 1"#, "literal");
    check_refused(r#"risk.reasons.exists(r, count(r, "1h") > 1)"#, "literal");
    check_refused(r#"target.count("a.b", "1h") > 1"#, "called on something");
    check_refused(r#"count("a.b", "1h")"#, "not true or false");
    check_refused(r#"count("a.b", "1h") >= 5 && count("a.b", "two")"#, "no duration");
    let many: Vec<_> = (0..17).map(|n| format!(r#"count("a.b{n}", "1h") > 1"#)).collect();
    check_refused(&many.join(" || "), "more than 16");
}

#[test]
fn the_hour_and_the_day_are_those_of_the_event() {
    // 10:15 UTC on a Monday.
    check(r#"hour_in("UTC", 10, 11) && !hour_in("+01:00", 10, 11)"#, true);
    check(r#"weekday_in("UTC", ["mon"]) && risk.reasons.all(r, weekday_in("UTC", ["mon", "tue"]))"#, true);
    check_refused(r#"hour_in("Europe/Brelin", 8, 18)"#, "no time zone");
    check_refused(r#"hour_in(target.login, 8, 18)"#, "literal");
    check_refused(r#"weekday_in("UTC", ["someday"])"#, "no weekday");
}

#[test]
fn a_condition_that_is_asked_later_looks_at_the_time_of_then() {
    let condition = Condition::compile("hour_in(\"UTC\", 10, 11)").unwrap();
    let facts = facts();
    assert!(condition.evaluate(&facts).unwrap());
    let later = facts.as_of("2026-08-25T11:15:02Z".parse().unwrap());
    assert!(!condition.evaluate(&later).unwrap());
}
