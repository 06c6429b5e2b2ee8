use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::demo::org::events::{group_added, published_at, risk_detected, sign_in};
use crate::demo::org::{Group, GroupKind, RateLimits};
use crate::model::event::{Event, SOURCE_OKTA};

const POLL: &str = "/api/v1/logs?sortOrder=ASCENDING&limit=2";

fn start() -> Timestamp {
    "2026-08-24T10:00:00Z".parse().unwrap()
}

async fn fixed() -> Fixture {
    Fixture::with(OrgOptions { start_at: Some(start()), ..OrgOptions::default() }).await
}

fn hours_ago(hours: i64) -> Timestamp {
    start() - SignedDuration::from_hours(hours)
}

#[tokio::test]
async fn polling_goes_on_for_ever_and_a_late_event_is_not_lost() {
    let fixture = fixed().await;
    let ada = fixture.ada();
    let event = || sign_in(&ada, "LOW");
    let pushed = fixture.org.push_events(vec![event(), event(), event()]);

    let first = fixture.get(&format!("{POLL}&since=2026-08-24T09:00:00Z")).await;
    assert_eq!(first.uuids(), pushed[..2]);
    let second = fixture.get_url(&first.next()).await;
    assert_eq!(second.uuids(), pushed[2..]);
    let empty = fixture.get_url(&second.next()).await;
    assert!(empty.uuids().is_empty());

    let late = fixture.org.push_event(published_at(event(), hours_ago(5)));
    assert_eq!(fixture.get_url(&empty.next()).await.uuids(), [late]);
}

#[tokio::test]
async fn links_are_lines_of_their_own_and_next_repeats_limit_and_filter() {
    let fixture = fixed().await;
    let page = fixture.get(&format!("{POLL}&filter=eventType%20eq%20%22a%22&since=2026-08-24T09:00:00Z")).await;
    assert_eq!(page.headers.get_all("link").iter().count(), 2);
    assert!(page.link("self").unwrap().contains("since=2026"));
    let next = url::Url::parse(&page.next()).unwrap();
    let query: std::collections::HashMap<_, _> = next.query_pairs().into_owned().collect();
    assert_eq!(query["limit"], "2");
    assert_eq!(query["filter"], "eventType eq \"a\"");
    assert_eq!(query["sortOrder"], "ASCENDING");
    assert!(query.contains_key("after") && !query.contains_key("since"));
}

#[tokio::test]
async fn since_of_a_polling_query_is_a_moment_of_persistence() {
    let fixture = fixed().await;
    let old = fixture.org.push_event(published_at(sign_in(&fixture.ada(), "LOW"), hours_ago(48)));
    assert_eq!(fixture.get(&format!("{POLL}&since=2026-08-24T09:00:00Z")).await.uuids(), [old]);
    assert!(fixture.get(&format!("{POLL}&since=2026-08-24T11:00:00Z")).await.uuids().is_empty());
}

#[tokio::test]
async fn a_bounded_query_is_ordered_by_published_and_ends() {
    let fixture = fixed().await;
    let ada = fixture.ada();
    let at = |hours| published_at(sign_in(&ada, "LOW"), hours_ago(hours));
    let pushed = fixture.org.push_events(vec![at(1), at(3), at(2), at(30)]);
    let query = "/api/v1/logs?since=2026-08-23T10:00:00Z&until=2026-08-24T10:00:00Z&limit=2";
    let first = fixture.get(query).await;
    assert_eq!(first.uuids(), [pushed[1].as_str(), pushed[2].as_str()]);
    let last = fixture.get_url(&first.next()).await;
    assert_eq!(last.uuids(), [pushed[0].as_str()]);
    assert_eq!(last.link("next"), None);
    let newest_first = fixture.get(&format!("{query}&sortOrder=DESCENDING")).await;
    assert_eq!(newest_first.uuids(), [pushed[0].as_str(), pushed[2].as_str()]);
    assert_eq!(fixture.get_url(&newest_first.next()).await.uuids(), [pushed[1].as_str()]);
}

#[tokio::test]
async fn a_filter_selects_event_types_and_polling_passes_over_the_others() {
    let fixture = fixed().await;
    let ada = fixture.ada();
    let group = Group { id: "00g1".to_owned(), name: "Staff".to_owned(), kind: GroupKind::Okta };
    let pushed = fixture.org.push_events(vec![
        sign_in(&ada, "LOW"),
        risk_detected(&ada, "LOW", "HIGH"),
        sign_in(&ada, "LOW"),
        group_added(&group, &ada),
    ]);
    let filter = r#"(eventType eq "user.risk.detect") or eventType eq "group.user_membership.add""#;
    let page = fixture
        .request(Method::GET, "/api/v1/logs?since=2026-08-24T09:00:00Z&limit=1")
        .query(&[("filter", filter)])
        .send();
    let first = Answer::of(page.await.unwrap()).await;
    assert_eq!(first.uuids(), [pushed[1].as_str()]);
    let second = fixture.get_url(&first.next()).await;
    assert_eq!(second.uuids(), [pushed[3].as_str()]);
    assert!(fixture.get_url(&second.next()).await.uuids().is_empty());
}

#[tokio::test]
async fn a_cursor_is_refused_after_it_was_forgotten_and_when_it_was_made_up() {
    let fixture = fixed().await;
    let next = fixture.get(POLL).await.next();
    assert_eq!(fixture.get_url(&next).await.status, 200);
    fixture.org.forget_cursors();
    assert_eq!(fixture.get_url(&next).await.error(), (400, "E0000031"));
    assert_eq!(fixture.get(&format!("{POLL}&after=1627500044869_1")).await.error(), (400, "E0000031"));
}

#[tokio::test]
async fn what_okta_does_not_understand_it_refuses_by_its_codes() {
    let fixture = fixed().await;
    for (query, code) in [
        ("since=yesterday", "E0000001"),
        ("since=2026-08-24T10:00:00Z&until=soon", "E0000001"),
        ("limit=1001", "E0000001"),
        ("limit=-1", "E0000001"),
        ("sortOrder=UP", "E0000001"),
        ("since=2026-01-01T00:00:00Z", "E0000053"),
        ("filter=eventType%20eqq%20%22a%22", "E0000053"),
        ("filter=published%20gt%20%22a%22", "E0000053"),
    ] {
        assert_eq!(fixture.get(&format!("/api/v1/logs?{query}")).await.error(), (400, code), "{query}");
    }
}

#[tokio::test]
async fn an_org_can_leave_next_out_of_empty_pages_and_name_another_host() {
    let options = OrgOptions {
        omit_next_on_empty: true,
        next_origin: Some("https://elsewhere.example.net".to_owned()),
        ..OrgOptions::default()
    };
    let fixture = Fixture::with(options).await;
    assert_eq!(fixture.get(POLL).await.link("next"), None);
    fixture.org.push_event(sign_in(&fixture.ada(), "LOW"));
    let next = fixture.get(POLL).await.next();
    assert!(next.starts_with("https://elsewhere.example.net/api/v1/logs?after="), "{next}");
}

#[tokio::test]
async fn the_clock_of_okta_is_its_own() {
    let offset = SignedDuration::from_hours(-3);
    let options = OrgOptions { start_at: Some(start()), clock_offset: offset, ..OrgOptions::default() };
    let fixture = Fixture::with(options).await;
    fixture.org.push_event(sign_in(&fixture.ada(), "LOW"));
    let page = fixture.get(POLL).await;
    assert!(page.header("date").starts_with("Mon, 24 Aug 2026 07:00:"), "{}", page.header("date"));
    assert!(page.body[0]["published"].as_str().unwrap().starts_with("2026-08-24T07:00:"));
}

#[tokio::test]
async fn a_used_up_minute_is_answered_with_429_and_the_time_of_its_end() {
    let rate_limits = RateLimits { logs: 2, ..RateLimits::default() };
    let fixture = Fixture::with(OrgOptions { start_at: Some(start()), rate_limits, ..OrgOptions::default() }).await;
    assert_eq!(fixture.get(POLL).await.header("x-rate-limit-remaining"), "1");
    assert_eq!(fixture.get(POLL).await.header("x-rate-limit-remaining"), "0");
    let refused = fixture.get(POLL).await;
    assert_eq!(refused.error(), (429, "E0000047"));
    assert_eq!(refused.header("x-rate-limit-limit"), "2");
    let reset: i64 = refused.header("x-rate-limit-reset").parse().unwrap();
    assert!((1..=60).contains(&(reset - start().as_second())), "reset at {reset}");
    assert!(refused.headers.contains_key("x-okta-request-id"));
}

#[tokio::test]
async fn a_synthetic_log_is_read_whole_without_gap_or_repetition() {
    let options = OrgOptions {
        start_at: Some(start()),
        synthetic_events: 2500,
        synthetic_risk_every: 500,
        ..OrgOptions::default()
    };
    let fixture = Fixture::with(options).await;
    let pushed = fixture.org.push_event(risk_detected(&fixture.ada(), "LOW", "HIGH"));
    let mut seen = Vec::new();
    let mut page = fixture.get("/api/v1/logs?limit=1000").await;
    while !page.uuids().is_empty() {
        for event in page.body.as_array().unwrap() {
            Event::parse(SOURCE_OKTA, &event.to_string()).unwrap();
        }
        seen.extend(page.uuids());
        page = fixture.get_url(&page.next()).await;
    }
    assert_eq!(seen.len(), 2501);
    assert_eq!(seen.last(), Some(&pushed));
    let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), 2501);

    let risk = fixture.get("/api/v1/logs?limit=1000&filter=eventType%20eq%20%22user.risk.detect%22").await;
    assert_eq!(risk.uuids().len(), 6);
    let user = risk.body[0]["target"][0]["id"].as_str().unwrap();
    assert_eq!(fixture.get(&format!("/api/v1/users/{user}")).await.status, 200, "who is in the log exists");

    let hour = "/api/v1/logs?since=2026-08-24T08:00:00Z&until=2026-08-24T09:00:00Z&limit=60";
    let (first, expected) = (fixture.get(hour).await, 2500 / 24);
    let rest = fixture.get_url(&first.next()).await;
    assert!((expected..=expected + 1).contains(&(first.uuids().len() + rest.uuids().len())));
    assert_eq!(rest.link("next"), None);
}
