use std::sync::Arc;

use serde_json::json;

use super::super::stage::{Reply, Stage};
use super::super::{Call, Connector};
use super::*;
use crate::config::secret::LiveSecret;
use crate::guard::Cleared;
use crate::http::Network;
use crate::model::ids::IdempotencyKey;
use crate::model::outcome::{Outcome, Reason, Receipt, Verdict};

const KEY: &str = "0123456789abcdef0123456789abcdef01234567";

fn connector(stage: &Stage) -> Request {
    let text = format!(
        "base_url = '{}/v1'\nallow_private = ['127.0.0.0/8']\ntoken = {{ env = 'T' }}\ntimeout = '20s'\n\
         headers = {{ X-Tenant = 'acme', Accept = 'application/vnd.edr+json' }}",
        stage.base
    );
    let sections = BTreeMap::from([("edr".to_owned(), toml::from_str(&text).unwrap())]);
    let secrets = BTreeMap::from([("edr".to_owned(), LiveSecret::from("hush_1"))]);
    Request(Arc::new(HttpServices::new(&sections, secrets, &Network::default()).unwrap()))
}

fn call(params: Value) -> Call {
    Call { key: IdempotencyKey::from_stored(KEY.to_owned()), params, attempt: 1, earlier: Receipt::default() }
}

/// A request with these parameters, sent to a service that gives this answer.
async fn outcome_of(reply: Reply, more: Value) -> Outcome {
    let stage = Stage::open(move |_| reply.clone()).await;
    let mut params = json!({"service": "edr", "method": "POST", "path": "/hosts"});
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let outcome = connector(&stage).perform(&Cleared::unguarded(call(params))).await;
    assert_eq!(stage.seen().len(), 1, "{outcome:?}");
    outcome
}

#[track_caller]
fn receipt_of(outcome: Outcome) -> (u16, Option<Value>, String) {
    let Outcome::Done(receipt) = outcome else { panic!("{outcome:?}") };
    let answer = *receipt.answer.unwrap();
    (answer.status, answer.body, receipt.note.unwrap())
}

#[track_caller]
fn check_failed(outcome: &Outcome, expected: Reason, part: &str) {
    let failure = outcome.clone().into_failure();
    assert_eq!(failure.reason, expected, "{outcome:?}");
    assert!(failure.detail.contains(part), "{outcome:?}");
}

#[tokio::test]
async fn a_request_is_sent_as_the_step_and_its_section_describe_it() {
    let stage = Stage::open(|_| Reply::json(201, &json!({"id": 7, "session_token": "x"}))).await;
    let params = json!({
        "service": "edr", "method": "PUT", "path": "/hosts/a%2Fb/isolate", "query": {"why": "risk & more"},
        "headers": {"X-Trace": "t1", "x-tenant": "other"}, "json": {"user": "Zoë", "tags": ["okta"], "n": 1},
        "expect": [201], "idempotency_header": "Idempotency-Key",
    });
    let outcome = connector(&stage).perform(&Cleared::unguarded(call(params))).await;
    let (status, body, note) = receipt_of(outcome);
    assert_eq!(
        (status, body, note.as_str()),
        (201, Some(json!({"id": 7, "session_token": "[redacted]"})), "answered 201")
    );
    let [seen] = &stage.seen()[..] else { panic!("not one request") };
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("PUT", "/v1/hosts/a%2Fb/isolate?why=risk+%26+more"));
    assert_eq!(seen.json(), json!({"user": "Zoë", "tags": ["okta"], "n": 1}));
    for (name, value) in [
        ("authorization", "Bearer hush_1"),
        ("content-type", "application/json"),
        ("accept", "application/vnd.edr+json"),
        ("x-trace", "t1"),
        ("x-tenant", "other"),
        ("idempotency-key", KEY),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
}

#[tokio::test]
async fn a_form_is_encoded() {
    let stage = Stage::open(|_| Reply::text(200, "text/plain", "ok")).await;
    let params = json!({"service": "edr", "method": "POST", "path": "x", "form": {"a": "b&c=d", "e": "é"}});
    let outcome = connector(&stage).perform(&Cleared::unguarded(call(params))).await;
    assert_eq!(receipt_of(outcome), (200, None, "answered 200; its body is no JSON and not kept".to_owned()));
    let [seen] = &stage.seen()[..] else { panic!("not one request") };
    assert_eq!(seen.body, "a=b%26c%3Dd&e=%C3%A9");
    assert_eq!(seen.header("content-type"), Some("application/x-www-form-urlencoded"));
}

#[tokio::test]
async fn what_is_expected_is_a_success_and_another_success_is_doubtful() {
    let answer = |status| Reply::json(status, &json!({}));
    for (status, expect) in
        [(200, json!([200])), (202, json!(["2xx"])), (404, json!([204, 404])), (302, json!(["3xx"]))]
    {
        let outcome = outcome_of(answer(status), json!({"expect": expect})).await;
        assert_eq!(receipt_of(outcome).0, status);
    }
    let doubtful = outcome_of(answer(202), json!({"expect": [201]})).await;
    assert!(matches!(doubtful, Outcome::Unknown(_)), "{doubtful:?}");
    check_failed(&doubtful, Reason::BadAnswer, "answered 202, which `expect` does not name");
    let read = outcome_of(answer(202), json!({"expect": [200], "method": "GET"})).await;
    assert!(matches!(read, Outcome::Permanent(_)), "{read:?}");
    let refused = outcome_of(Reply::json(422, &json!({"message": "no such host"})), json!({})).await;
    assert!(matches!(refused, Outcome::Permanent(_)), "{refused:?}");
    check_failed(&refused, Reason::Rejected, "answered 422 (no such host)");
}

#[tokio::test]
async fn a_redirect_is_named_and_not_followed() {
    let reply = |place: &str| Reply::text(307, "text/html", "").with("Location", place);
    let outcome = outcome_of(reply("https://evil.example:8443/steal?x=hush_1"), json!({})).await;
    assert!(matches!(outcome, Outcome::Permanent(_)), "{outcome:?}");
    check_failed(
        &outcome,
        Reason::BadAnswer,
        "answered 307 (it points to https://evil.example:8443); a redirect is never followed",
    );
    check_failed(&outcome_of(reply("/login"), json!({})).await, Reason::BadAnswer, "(it points to http://127.0.0.1:");
    check_failed(&outcome_of(reply("https://hush_1.example/"), json!({})).await, Reason::BadAnswer, "answered 307;");
}

#[tokio::test]
async fn an_answer_that_cannot_be_kept_is_still_a_success_of_a_change() {
    for (reply, expected) in [
        (Reply::json(200, &json!("x".repeat(10_000))), "answered 200; its body is larger than 8 KiB and not kept"),
        (Reply::json(200, &json!("x".repeat(70_000))), "answered 200; its body is larger than 64 KiB and not kept"),
        (Reply::Endless(200), "answered 200; its body is larger than 64 KiB and not kept"),
        (Reply::Truncated(200), "answered 200; its body broke off and is not kept"),
        (Reply::text(200, "application/json", "{\"id\":"), "answered 200; its body is no JSON and not kept"),
        (Reply::json(200, &json!({"echo": "hush_1"})), "answered 200; its body repeats a secret and is not kept"),
        (Reply::text(204, "text/plain", ""), "answered 204"),
    ] {
        let (_, body, note) = receipt_of(outcome_of(reply, json!({})).await);
        assert_eq!((body, note.as_str()), (None, expected));
    }
}

#[tokio::test]
async fn what_only_reads_may_always_be_asked_again() {
    for reply in [Reply::Close, Reply::Truncated(200), Reply::json(500, &json!({}))] {
        let outcome = outcome_of(reply, json!({"method": "GET"})).await;
        assert!(matches!(outcome, Outcome::Transient(_)), "{outcome:?}");
    }
    let stage = Stage::open(|_| Reply::json(200, &json!({}))).await;
    let verdict = |method: &str| {
        let (connector, params) = (connector(&stage), json!({"service": "edr", "method": method, "path": "/"}));
        async move { connector.verify(&call(params)).await }
    };
    assert_eq!(verdict("GET").await, Verdict::NotDone);
    assert_eq!(verdict("POST").await, Verdict::CannotTell);
    assert!(stage.seen().is_empty());
}

/// Performs and verifies against a look-up that gives this answer; the requests that came of the first.
async fn look_up(reply: Reply, more: Value) -> (Outcome, Verdict, Vec<String>) {
    let stage =
        Stage::open(move |seen| if seen.method == "GET" { reply.clone() } else { Reply::json(201, &json!({"id": 8})) })
            .await;
    let mut params = json!({"service": "edr", "method": "POST", "path": "/blocks", "lookup_path": "/blocks/k1"});
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let connector = connector(&stage);
    let outcome = connector.perform(&Cleared::unguarded(call(params.clone()))).await;
    let methods = stage.seen().into_iter().map(|seen| seen.method).collect();
    (outcome, connector.verify(&call(params)).await, methods)
}

#[tokio::test]
async fn what_a_look_up_finds_is_not_sent_and_stands_for_what_was_made() {
    let items = json!({"items": [{"id": 7, "ref": "k1"}]});
    for (more, kept) in [
        (json!({}), items.clone()),
        (json!({"found": "/items/0"}), items.clone()),
        (json!({"found": {"/items/0/ref": "k1"}, "found_body": "/items/0"}), json!({"id": 7, "ref": "k1"})),
    ] {
        let (outcome, verdict, methods) = look_up(Reply::json(200, &items), more).await;
        let Outcome::AlreadyDone(receipt) = outcome else { panic!("{outcome:?}") };
        assert_eq!(receipt.answer.as_ref().unwrap().body, Some(kept));
        assert_eq!(receipt.note.as_deref(), Some("found: the look-up answered 200"));
        assert_eq!((verdict, methods), (Verdict::Done(receipt), vec!["GET".to_owned()]));
    }
}

#[tokio::test]
async fn what_a_look_up_does_not_find_is_sent() {
    let other = json!({"items": [{"id": 7, "ref": "other"}]});
    for (reply, more) in [
        (Reply::json(404, &json!({})), json!({})),
        (Reply::json(200, &json!({"items": []})), json!({"found": "/items/0"})),
        // A service that takes no notice of a parameter answers with whatever there is.
        (Reply::json(200, &other), json!({"found": {"/items/0/ref": "k1"}})),
    ] {
        let (outcome, verdict, methods) = look_up(reply, more).await;
        assert_eq!(receipt_of(outcome).1, Some(json!({"id": 8})));
        assert_eq!((verdict, methods.join(" ")), (Verdict::NotDone, "GET POST".to_owned()));
    }
}

#[tokio::test]
async fn a_look_up_that_says_nothing_sends_nothing() {
    for (reply, more) in [
        (Reply::json(404, &json!({})), json!({"found": "/items/0"})),
        (Reply::json(403, &json!({})), json!({})),
        (Reply::text(200, "text/html", "<html>"), json!({"found": "/items/0"})),
        (Reply::json(200, &json!("x".repeat(70_000))), json!({})),
        (Reply::text(302, "text/html", "").with("Location", "/login"), json!({})),
    ] {
        let (outcome, verdict, methods) = look_up(reply, more).await;
        assert!(matches!(outcome, Outcome::Permanent(_) | Outcome::Transient(_)), "{outcome:?}");
        assert!(matches!(verdict, Verdict::TryLater(_)), "{verdict:?}");
        assert_eq!(methods, ["GET"]);
    }
}

#[tokio::test]
async fn a_service_that_is_not_listed_is_not_asked() {
    let stage = Stage::open(|_| Reply::json(200, &json!({}))).await;
    let params = json!({"service": "other", "method": "POST", "path": "/"});
    let outcome = connector(&stage).perform(&Cleared::unguarded(call(params))).await;
    check_failed(&outcome, Reason::BadParameters, "there is no section [http.other]");
    assert!(matches!(outcome, Outcome::Permanent(_)) && stage.seen().is_empty());
}
