use super::*;
use crate::demo::org::{Fault, Hold, Misbehaviour, Service};

/// A world with a group, a user, and one fault for requests about that group.
async fn with_fault(what: Misbehaviour) -> (Fixture, String, bool) {
    let fixture = Fixture::new().await;
    let (ada, group) = (fixture.ada(), fixture.org.add_group("High Risk Users"));
    fixture.org.fault(Fault::new(Service::Okta, what).method("PUT").path("/api/v1/groups/"));
    let path = format!("/api/v1/groups/{group}/users/{}", ada.id);
    let answered = fixture.request(Method::PUT, &path).send().await.is_ok();
    (fixture, path, answered)
}

#[tokio::test]
async fn a_dropped_request_has_no_answer_and_an_effect_only_when_it_was_processed() {
    for (what, effects) in [(Misbehaviour::DropBefore, 0), (Misbehaviour::DropAfter, 1)] {
        let (fixture, path, answered) = with_fault(what.clone()).await;
        assert!(!answered, "{what:?}");
        assert_eq!(fixture.org.effects().len(), effects, "{what:?}");
        assert_eq!(fixture.org.requests()[0].status, None, "{what:?}");
        assert_eq!(fixture.put(&path).await.status, 204, "the fault was for one request: {what:?}");
    }
}

#[tokio::test]
async fn a_held_answer_waits_for_its_release_while_the_effect_is_there() {
    let fixture = Fixture::new().await;
    let (ada, group) = (fixture.ada(), fixture.org.add_group("High Risk Users"));
    let hold = Hold::new();
    fixture.org.fault(Fault::new(Service::Okta, Misbehaviour::Hold(hold.clone())).method("PUT"));
    let request = fixture.request(Method::PUT, &format!("/api/v1/groups/{group}/users/{}", ada.id));
    let answer = tokio::spawn(request.send());
    hold.held(BOUND).await.unwrap();
    assert_eq!(fixture.org.effects().len(), 1);
    assert_eq!(fixture.org.requests()[0].status, None);
    assert!(!answer.is_finished());
    hold.release();
    assert_eq!(answer.await.unwrap().unwrap().status(), 204);
}

#[tokio::test]
async fn a_scripted_status_is_answered_without_processing() {
    let fixture = Fixture::new().await;
    let headers = vec![("retry-after".to_owned(), "7".to_owned())];
    let what = Misbehaviour::Status { code: 503, headers, body: "{\"errorCode\":\"E0000010\"}".to_owned() };
    fixture.org.fault(Fault::new(Service::Okta, what).times(2));
    for expected in [503, 503, 200] {
        assert_eq!(fixture.get("/api/v1/logs").await.status, expected);
    }
}

#[tokio::test]
async fn a_truncated_body_breaks_off_under_its_full_length() {
    let fixture = Fixture::with(OrgOptions { synthetic_events: 100, ..OrgOptions::default() }).await;
    let whole = fixture.get("/api/v1/logs").await.body.to_string().len();
    fixture.org.fault(Fault::new(Service::Okta, Misbehaviour::TruncateBody));
    let mut response = fixture.request(Method::GET, "/api/v1/logs").send().await.unwrap();
    assert_eq!(response.headers()["content-length"], whole.to_string().as_str());
    let mut read = 0;
    let broken = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => read += chunk.len(),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broken, "the body came to a regular end");
    assert_eq!(read, whole / 2);
}

#[tokio::test]
async fn an_endless_body_goes_on_for_as_long_as_somebody_reads() {
    let fixture = Fixture::new().await;
    fixture.org.fault(Fault::new(Service::Okta, Misbehaviour::EndlessBody));
    let mut response = fixture.request(Method::GET, "/api/v1/logs").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let mut read = 0;
    while read < 4 * 1024 * 1024 {
        read += response.chunk().await.unwrap().expect("more").len();
    }
}

#[tokio::test]
async fn an_answer_that_trickles_is_processed_and_never_ends() {
    let (fixture, path) = {
        let fixture = Fixture::new().await;
        let (ada, group) = (fixture.ada(), fixture.org.add_group("High Risk Users"));
        fixture.org.fault(Fault::new(Service::Okta, Misbehaviour::Drip).method("PUT"));
        (fixture, format!("/api/v1/groups/{group}/users/{}", ada.id))
    };
    let mut response = fixture.request(Method::PUT, &path).send().await.unwrap();
    assert_eq!((response.status().as_u16(), fixture.org.effects().len()), (200, 1));
    let mut read = Vec::new();
    while read.len() < 5 {
        read.extend(response.chunk().await.unwrap().expect("more"));
    }
    assert!(read.len() < 100, "that is a flood: {}", read.len());
}

#[tokio::test]
async fn a_rate_limit_has_the_form_of_its_service() {
    let fixture = Fixture::new().await;
    let reset_in = Duration::from_secs(9);
    fixture.org.fault(Fault::new(Service::Okta, Misbehaviour::RateLimited { reset_in }));
    let limited = fixture.get("/api/v1/logs").await;
    assert_eq!(limited.error(), (429, "E0000047"));
    assert_eq!(limited.header("x-rate-limit-remaining"), "0");
    assert_ne!(limited.header("x-rate-limit-limit"), "0");
    let reset: i64 = limited.header("x-rate-limit-reset").parse().unwrap();
    assert!((0..=9).contains(&(reset - fixture.org.now().as_second())));

    fixture.org.fault(Fault::new(Service::Okta, Misbehaviour::ConcurrencyLimited { reset_in }));
    let limited = fixture.get("/api/v1/logs").await;
    assert_eq!((limited.status, limited.header("x-rate-limit-limit")), (429, "0"));

    for (service, url) in [
        (Service::ServiceNow, format!("{}/api/now/table/incident", fixture.org.servicenow_url())),
        (Service::Slack, format!("{}/auth.test", fixture.org.slack_api_url())),
        (Service::Teams, fixture.org.teams_webhook_url()),
    ] {
        fixture.org.fault(Fault::new(service, Misbehaviour::RateLimited { reset_in }));
        let limited = fixture.get_url(&url).await;
        assert_eq!((limited.status, limited.header("retry-after")), (429, "9"), "{service:?}");
    }
}

#[tokio::test]
async fn html_and_redirects_come_in_place_of_the_answer() {
    let fixture = Fixture::new().await;
    fixture.org.fault(Fault::new(Service::Okta, Misbehaviour::Html));
    fixture.org.fault(Fault::new(Service::Okta, Misbehaviour::Redirect("http://127.0.0.1:9/x".to_owned())));
    let html = fixture.get("/api/v1/logs").await;
    assert_eq!((html.status, html.header("content-type")), (200, "text/html;charset=UTF-8"));
    let redirect = fixture.get("/api/v1/logs").await;
    assert_eq!((redirect.status, redirect.header("location")), (302, "http://127.0.0.1:9/x"));
    assert_eq!(fixture.get("/api/v1/logs").await.status, 200);
}

#[tokio::test]
async fn a_delayed_request_is_processed_after_the_pause() {
    let (fixture, _, answered) = with_fault(Misbehaviour::Delay(Duration::from_millis(30))).await;
    assert!(answered);
    let (received, processed) = (fixture.org.requests()[0].at_ms, fixture.org.effects()[0].at_ms);
    assert!(processed >= received + 30, "received at {received}, processed at {processed}");
}

#[tokio::test]
async fn waiting_ends_when_it_is_so_and_says_what_there_was_when_it_is_not() {
    let fixture = Fixture::new().await;
    let waiting = fixture.org.wait_for(|org| org.log_len() == 1, BOUND);
    let pushing = async {
        tokio::task::yield_now().await;
        fixture.org.push_event(Value::Object(serde_json::Map::new()));
    };
    let (waited, ()) = tokio::join!(waiting, pushing);
    waited.unwrap();
    let error = fixture.org.wait_for(|_| false, Duration::from_millis(1)).await.unwrap_err();
    assert!(error.to_string().contains("0 requests"), "{error}");
}

#[tokio::test]
async fn a_dropped_org_is_gone_even_for_open_connections() {
    let Fixture { org, client } = Fixture::new().await;
    let request = client.get(format!("{}/api/v1/logs", org.okta_url()));
    assert_eq!(request.try_clone().unwrap().send().await.unwrap().status(), 401);
    drop(org);
    // The tasks of the org hear of the stop when they are next polled.
    let gone = async {
        while request.try_clone().unwrap().send().await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, gone).await.unwrap();
}
