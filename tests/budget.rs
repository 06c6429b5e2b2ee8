//! The budget of Okta's rate limits: what matters goes first, and Okta never has to refuse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use std::time::Duration;

use jiff::SignedDuration;
use okta_responder::demo::org::{
    Fault, Hold, Misbehaviour, Org, OrgOptions, RateLimits, Request, Service, User, events,
};
use okta_responder::store::{NewStream, StreamKind};
use serde_json::Value;
use support::{BOUND, Scene, eventually};

/// Risk puts a user into a group and asks for nothing; every other change is decided by the groups of the user.
const PLAYBOOKS: &str = r#"
[[playbook]]
name = "quarantine"
on = ["user.risk.detect"]

  [[playbook.step]]
  name = "quarantine"
  when = 'risk.level == "HIGH"'
  action = "okta.group.add_user"
  with = { group = "High Risk Users" }

[[playbook]]
name = "enrich"
on = ["user.session.start"]
mode = "observe"

  [[playbook.step]]
  name = "unassign"
  when = '"Contractors" in groups'
  action = "okta.app.unassign_user"
"#;

fn below<'a>(requests: &'a [Request], path: &'a str) -> impl Iterator<Item = &'a Request> {
    requests.iter().filter(move |request| request.path.starts_with(path))
}

/// The bucket in `status --format json`, as soon as it is told that this is so.
async fn told(scene: &Scene, bucket: &str, is: impl Fn(&Value) -> bool) -> (Value, Value) {
    eventually(async || {
        let rates = scene.json(&["status", "--format", "json"])["rates"].clone();
        let rows = rates["buckets"].as_array().cloned().unwrap_or_default();
        match rows.into_iter().find(|row| row["bucket"] == bucket) {
            Some(row) if is(&row) => Ok((row, rates)),
            _ => Err(format!("{rates:#}")),
        }
    })
    .await
}

async fn quarantined(org: &Org, within: Duration) {
    let done = org.wait_for(|org| !org.effects_of("group.add").is_empty(), within).await;
    assert!(done.is_ok(), "{:#?}", org.effects());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_does_not_wait_for_enrichment_or_a_backfill_and_okta_never_has_to_refuse() {
    let options = OrgOptions {
        rate_limits: RateLimits { logs: 60, users: 20, ..RateLimits::default() },
        synthetic_events: 1000,
        synthetic_span: Duration::from_secs(1800),
        ..OrgOptions::default()
    };
    let scene = Scene::with(options, "[poll]\npage_size = 10\n", PLAYBOOKS).await;
    scene.edit("rate_share = 1.0", "rate_share = 0.5");
    let org = &scene.org;
    org.add_group("High Risk Users");
    let users: Vec<User> = (0..30).map(|number| org.add_user(User::new("Ann", &format!("Miller{number}")))).collect();
    let suspect = org.add_user(User::new("Bob", "Brown"));
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    let (now, store) = (org.now(), scene.store().await);
    let backfill = NewStream {
        source: "okta".to_owned(),
        kind: StreamKind::Backfill,
        query: String::new(),
        since: now - SignedDuration::from_hours(1),
        until: Some(now),
        execute: false,
    };
    store.create_stream(backfill, now).await.unwrap();
    // The groups of thirty users are asked for. Ten requests a minute are ours, of which these may have seven.
    let enriched = |org: &Org| below(&org.requests(), "/api/v1/users/").filter(|r| r.path.ends_with("/groups")).count();
    org.push_events(users.iter().map(|user| events::sign_in(user, "LOW")).collect());
    org.wait_for(|org| enriched(org) >= 7, BOUND).await.unwrap();
    org.push_event(events::risk_detected(&suspect, "LOW", "HIGH"));
    // Far less than a minute, which it would take if enrichment had left nothing.
    quarantined(org, Duration::from_secs(30)).await;
    let (users, rates) = told(&scene, "users", |row| row["used"].as_u64() >= Some(8)).await;
    assert_eq!((&users["limit"], &users["share"], &users["refused"]), (&20.into(), &10.into(), &0.into()), "{rates}");
    assert_eq!(rates["current"], true);
    let (logs, _) = told(&scene, "logs", |row| row["used"].as_u64() >= Some(20)).await;
    assert_eq!((&logs["limit"], &logs["share"]), (&60.into(), &30.into()));

    let requests = org.requests();
    assert!(requests.iter().all(|request| request.status != Some(429)), "{requests:#?}");
    assert!(below(&requests, "/api/v1/users/").filter(|r| r.path.ends_with("/groups")).count() <= 10);
    assert!(daemon.stop().success());
    let rates = scene.json(&["status", "--format", "json"])["rates"].clone();
    assert_eq!((&rates["current"], &rates["buckets"][0]["used"]), (&false.into(), &Value::Null), "{rates}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_at_once_are_made_fewer_and_hold_up_no_bucket() {
    let scene = Scene::new(PLAYBOOKS).await;
    let org = &scene.org;
    org.add_group("High Risk Users");
    let suspect = org.add_user(User::new("Bob", "Brown"));
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    let crowded = Misbehaviour::ConcurrencyLimited { reset_in: BOUND };
    org.fault(Fault::new(Service::Okta, crowded).method("PUT").times(2));
    org.push_event(events::risk_detected(&suspect, "LOW", "HIGH"));
    quarantined(org, BOUND).await;
    let (groups, rates) = told(&scene, "groups", |row| row["crowded"] == 2).await;
    assert_eq!((&groups["refused"], &rates["at_once"]), (&0.into(), &18.into()), "{rates}");
    assert!(groups["crowded_at"].is_string(), "{groups}");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_what_is_known_of_the_limits() {
    let options = OrgOptions { rate_limits: RateLimits { users: 2, ..RateLimits::default() }, ..OrgOptions::default() };
    let scene = Scene::with(options, "", PLAYBOOKS).await;
    scene.edit("rate_share = 1.0", "rate_share = 0.5");
    let org = &scene.org;
    org.add_group("High Risk Users");
    let suspect = org.add_user(User::new("Bob", "Brown"));
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    org.push_event(events::risk_detected(&suspect, "LOW", "HIGH"));
    quarantined(org, BOUND).await;
    // The one request a minute is spent.
    daemon.signal("HUP");
    daemon.wait_for_log("the configuration is read again");
    let hold = Hold::new();
    org.fault(Fault::new(Service::Okta, Misbehaviour::Hold(hold.clone())).path("/api/v1/users/"));
    let other = org.add_user(User::new("Eve", "Green"));
    org.push_event(events::risk_detected(&other, "LOW", "HIGH"));
    told(&scene, "users", |row| row["requests"] == 1).await;
    let asked = hold.held(Duration::from_secs(4)).await;
    assert!(asked.is_err(), "nothing of the new engine may be asked within the same minute");
    assert!(daemon.stop().success());
}
