use proptest::prelude::*;
use serde_json::{Value, json};

use super::incident::{MAX_SHORT_DESCRIPTION, correlation_id, without_code_tags};
use super::*;
use crate::connectors::stage::{KEY, PATIENT, Reply, Seen, Stage, call, servicenow_config};

fn config(url: &str) -> ServiceNowConfig {
    ServiceNowConfig { username: Some("daemon".to_owned()), ..servicenow_config(url, PATIENT) }
}

fn basic(stage: &Stage) -> ServiceNow {
    ServiceNow::new(&config(&stage.base), Some("secret".into()), None, &Network::default()).unwrap()
}

fn shared() -> Cleared<Call> {
    call(json!({"short_description": "Risk", "correlation": "okta-user-00u1"}))
}

fn row(number: &str, active: &str, state: &str, correlation: &str, display: &str) -> Value {
    json!({"sys_id": "9d38", "number": number, "active": active, "state": state,
           "correlation_id": correlation, "correlation_display": display})
}

/// Answers look-ups by field from these records, and creates what is posted under INC2.
fn instance(records: Vec<(&'static str, Value)>) -> impl FnMut(&Seen) -> Reply {
    move |seen| {
        if seen.method == "POST" {
            let sent = seen.json();
            let field = |name: &str| sent[name].as_str().unwrap_or_default().to_owned();
            let made = row("INC2", "true", "1", &field("correlation_id"), &field("correlation_display"));
            return Reply::json(201, &json!({"result": made}));
        }
        let query = seen.query("sysparm_query").unwrap();
        let rows: Vec<_> = records.iter().filter(|(start, _)| query.starts_with(start)).map(|(_, row)| row).collect();
        Reply::json(200, &json!({"result": rows}))
    }
}

fn posts(stage: &Stage) -> usize {
    stage.seen().iter().filter(|seen| seen.method == "POST").count()
}

#[track_caller]
fn check_params(params: Value, expected: Result<(), &str>) {
    match ((CREATE_INCIDENT.check)(&params), expected) {
        (Ok(()), Ok(())) => {}
        (Err(problem), Err(part)) => assert!(problem.contains(part), "{problem}"),
        (got, _) => panic!("{params}: {got:?}"),
    }
}

#[track_caller]
fn number(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Done(receipt) | Outcome::AlreadyDone(receipt) => receipt.number.as_deref().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn parameters_take_numbers_and_templates_and_refuse_what_is_not_theirs() {
    check_params(json!({"short_description": "x {{ user.login }}", "urgency": 1, "impact": "2"}), Ok(()));
    check_params(json!({"short_description": "x", "fields": {"contact_type": "monitoring", "u_score": 3}}), Ok(()));
    check_params(json!({"short_description": " "}), Err("`short_description` is empty"));
    check_params(json!({"short_description": "x", "urgency": 1.5}), Err("a string or a whole number"));
    check_params(json!({"short_description": "x", "severity": 1}), Err("unknown field `severity`"));
    check_params(json!({"short_description": "x", "fields": {"sys_created_by": "me"}}), Err("cannot be set"));
    check_params(json!({"short_description": "x", "fields": {"correlation_id": "me"}}), Err("cannot be set"));
    check_params(json!({"short_description": "x", "fields": {"urgency": "1"}}), Err("a parameter of its own"));
    check_params(json!({"short_description": "x", "fields": {"a^b": "1"}}), Err("not the name of a field"));
}

#[test]
fn a_correlation_cannot_change_the_query() {
    assert_eq!(correlation_id(" okta-user-00u1 "), Ok("okta-user-00u1".to_owned()));
    for hostile in ["a^active=true", "a\nb", "JavaScript:gs.log()", "", "  ", &"x".repeat(101)] {
        assert!(correlation_id(hostile).is_err(), "{hostile}");
    }
}

#[test]
fn only_a_shared_correlation_has_a_lane() {
    assert_eq!((CREATE_INCIDENT.lane)(&shared().params), Some("servicenow.incident/okta-user-00u1".to_owned()));
    assert_eq!((CREATE_INCIDENT.lane)(&json!({"short_description": "x"})), None);
}

#[test]
fn event_text_cannot_open_html_in_a_journal() {
    assert_eq!(without_code_tags("a [code]<b>[/CODE] [c] ["), "a [ code]<b>[ /CODE] [c] [");
}

#[tokio::test]
async fn an_incident_carries_the_key_and_only_what_was_given() {
    let stage = Stage::open(instance(Vec::new())).await;
    let params =
        json!({"short_description": "s".repeat(200), "urgency": 1, "caller": "", "fields": {"contact_type": "x"}});
    let outcome = basic(&stage).perform(&call(params)).await;
    let Outcome::Done(receipt) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(receipt.number.as_deref(), Some("INC2"));
    assert_eq!(receipt.id.as_deref(), Some("9d38"));
    assert_eq!(receipt.url, Some(format!("{}/nav_to.do?uri=incident.do%3Fsys_id%3D9d38", stage.base)));
    let sent = stage.seen()[1].json();
    assert_eq!(sent["short_description"].as_str().unwrap().chars().count(), MAX_SHORT_DESCRIPTION);
    assert_eq!(sent["urgency"], "1");
    assert_eq!(sent["contact_type"], "x");
    assert_eq!(sent["correlation_id"], KEY);
    assert_eq!(sent["correlation_display"], KEY);
    assert_eq!(sent.get("caller_id"), None);
}

#[tokio::test]
async fn a_row_that_was_not_asked_for_is_not_taken_for_ours() {
    let stage = Stage::open(instance(vec![("", row("INC1", "true", "1", "other", ""))])).await;
    assert_eq!(basic(&stage).verify(&shared()).await, Verdict::CannotTell);
    assert_eq!(number(&basic(&stage).perform(&shared()).await), "INC2");
}

#[tokio::test]
async fn the_incident_of_the_same_key_is_found_even_when_it_is_closed() {
    let stage = Stage::open(instance(vec![("correlation_id", row("INC1", "false", "7", KEY, ""))])).await;
    let call = call(json!({"short_description": "Risk"}));
    assert_eq!(number(&basic(&stage).perform(&call).await), "INC1");
    let Verdict::Done(receipt) = basic(&stage).verify(&call).await else { panic!() };
    assert_eq!(receipt.note.as_deref(), Some("is closed already"));
    assert_eq!(posts(&stage), 0);
}

#[tokio::test]
async fn an_open_incident_of_a_shared_correlation_is_reused() {
    let open = row("INC1", "true", "2", "okta-user-00u1", "another key");
    let stage = Stage::open(instance(vec![("correlation_id", open)])).await;
    let outcome = basic(&stage).perform(&shared()).await;
    let Outcome::AlreadyDone(receipt) = &outcome else { panic!("{outcome:?}") };
    assert!(receipt.note.as_deref().unwrap().contains("reused"));
    assert_eq!(posts(&stage), 0);
}

#[tokio::test]
async fn a_closed_incident_of_a_shared_correlation_is_not_reused() {
    for (active, state) in [("false", "3"), ("true", "6"), ("true", "7"), ("true", "8")] {
        let closed = row("INC1", active, state, "okta-user-00u1", "another key");
        let stage = Stage::open(instance(vec![("correlation_id", closed)])).await;
        assert_eq!(number(&basic(&stage).perform(&shared()).await), "INC2", "{active} {state}");
    }
}

#[tokio::test]
async fn a_doubt_about_a_shared_correlation_is_settled_by_our_own_key() {
    let of_another = row("INC1", "true", "1", "okta-user-00u1", "another key");
    let stage = Stage::open(instance(vec![("correlation_id", of_another)])).await;
    assert_eq!(basic(&stage).verify(&shared()).await, Verdict::NotDone);

    let ours = row("INC1", "true", "1", "okta-user-00u1", KEY);
    let stage = Stage::open(instance(vec![("correlation_display", ours)])).await;
    assert!(matches!(basic(&stage).verify(&shared()).await, Verdict::Done(_)));
}

#[tokio::test]
async fn a_correlation_that_the_instance_drops_is_told_with_the_number_and_not_tried_again() {
    let stage = Stage::open(|seen| match seen.method.as_str() {
        "GET" => Reply::json(200, &json!({"result": []})),
        _ => Reply::json(201, &json!({"result": row("INC9", "true", "1", "", "")})),
    })
    .await;
    let outcome = basic(&stage).perform(&call(json!({"short_description": "Risk"}))).await;
    let Outcome::Permanent(failure) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.reason, Reason::BadAnswer);
    assert!(failure.detail.contains("INC9") && failure.detail.contains("`correlation_id`"), "{failure}");
    assert_eq!(posts(&stage), 1);
}

#[tokio::test]
async fn a_hibernating_instance_is_tried_again() {
    let stage = Stage::open(|seen| match seen.method.as_str() {
        "GET" => Reply::json(200, &json!({"result": []})),
        _ => Reply::text(200, "text/html;charset=UTF-8", "<title>Hibernating Instance</title>"),
    })
    .await;
    let outcome = basic(&stage).perform(&call(json!({"short_description": "Risk"}))).await;
    let Outcome::Transient(failure) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.reason, Reason::ServiceError);
    assert!(failure.detail.contains("hibernating"));
}

fn oauth(stage: &Stage, user: bool) -> ServiceNow {
    let config = ServiceNowConfig {
        client_id: Some("client".to_owned()),
        username: user.then(|| "daemon".to_owned()),
        ..config(&stage.base)
    };
    ServiceNow::new(&config, user.then(|| "secret".into()), Some("hush".into()), &Network::default()).unwrap()
}

#[tokio::test]
async fn a_token_is_fetched_once_and_kept() {
    let mut rest = instance(Vec::new());
    let stage = Stage::open(move |seen| match seen.path() {
        "/oauth_token.do" => Reply::json(200, &json!({"access_token": "t1", "expires_in": 1799})),
        _ => rest(seen),
    })
    .await;
    let service = oauth(&stage, true);
    service.perform(&call(json!({"short_description": "Risk"}))).await;
    service.perform(&call(json!({"short_description": "Risk"}))).await;
    let seen = stage.seen();
    let tokens: Vec<_> = seen.iter().filter(|seen| seen.path() == "/oauth_token.do").collect();
    let [token] = tokens[..] else { panic!("{} tokens", tokens.len()) };
    assert_eq!(token.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(token.body, "client_id=client&client_secret=hush&grant_type=password&username=daemon&password=secret");
    assert_eq!(seen[1].header("authorization"), Some("Bearer t1"));
}

#[tokio::test]
async fn a_refused_token_is_fetched_anew_once() {
    let mut given = 0;
    let mut rest = instance(Vec::new());
    let stage = Stage::open(move |seen| match seen.path() {
        "/oauth_token.do" => {
            given += 1;
            Reply::json(200, &json!({"access_token": format!("t{given}"), "expires_in": 1799}))
        }
        _ if seen.header("authorization") == Some("Bearer t1") => Reply::json(401, &json!({})),
        _ => rest(seen),
    })
    .await;
    let outcome = oauth(&stage, false).perform(&call(json!({"short_description": "Risk"}))).await;
    assert_eq!(number(&outcome), "INC2");
    assert!(stage.seen()[0].body.ends_with("grant_type=client_credentials"));
    assert_eq!(stage.seen().len(), 5);
}

#[tokio::test]
async fn tokens_that_are_always_refused_are_not_fetched_for_ever() {
    let stage = Stage::open(|seen| match seen.path() {
        "/oauth_token.do" => Reply::json(200, &json!({"access_token": "t", "expires_in": 1799})),
        _ => Reply::json(401, &json!({})),
    })
    .await;
    let outcome = oauth(&stage, false).perform(&call(json!({"short_description": "Risk"}))).await;
    assert!(matches!(&outcome, Outcome::Transient(failure) if failure.reason == Reason::Unauthorized), "{outcome:?}");
    assert_eq!(stage.seen().len(), 4);
}

proptest! {
    #[test]
    fn no_text_of_an_event_is_shown_as_html(text in "(\\PC|\\[|\\]|/|c|C|o|O|d|D|e|E|\\[code\\]|\\[/CODE\\]){0,40}") {
        let out = without_code_tags(&text).to_ascii_lowercase();
        prop_assert!(!out.contains("[code]") && !out.contains("[/code]"), "{out:?}");
    }

    #[test]
    fn a_correlation_never_becomes_a_second_condition(text in "(\\PC|\\^|\\^OR|\\^NQ|=|\n|javascript:|JavaScript:){0,60}") {
        if let Ok(correlation) = correlation_id(&text) {
            prop_assert!(!correlation.contains('^') && !correlation.chars().any(char::is_control));
            prop_assert!(!correlation.to_ascii_lowercase().contains("javascript:"));
            // As it stands in the address: one value, no further parameter.
            let mut url = Url::parse("https://example.service-now.com/api/now/table/incident").unwrap();
            url.query_pairs_mut().append_pair("sysparm_query", &format!("correlation_id={correlation}"));
            let pairs: Vec<_> = url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
            prop_assert_eq!(pairs, [("sysparm_query".to_owned(), format!("correlation_id={correlation}"))]);
        }
    }
}

#[test]
fn a_section_that_cannot_work_is_refused() {
    let secret = || Some(LiveSecret::from("secret"));
    let good = || config("https://example.service-now.com");
    assert!(ServiceNow::new(&good(), secret(), None, &Network::default()).is_ok());
    assert!(ServiceNow::new(&config("http://example.service-now.com"), secret(), None, &Network::default()).is_err());
    assert!(
        ServiceNow::new(&config("https://user@example.service-now.com"), secret(), None, &Network::default()).is_err()
    );
    assert!(ServiceNow::new(&good(), None, None, &Network::default()).is_err());
    assert!(ServiceNow::new(&good(), None, secret(), &Network::default()).is_err());
    assert!(
        ServiceNow::new(&ServiceNowConfig { table: "../x".to_owned(), ..good() }, secret(), None, &Network::default())
            .is_err()
    );
}
