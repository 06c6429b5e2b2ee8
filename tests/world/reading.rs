//! The log, and the connection to the org.

use std::time::Duration;

use jiff::SignedDuration;
use okta_responder::demo::org::{Fault, Misbehaviour, OrgOptions, Service, User, events};
use okta_responder::store::EventFilter;
use serde_json::Value;

use super::cable::Cable;
use super::support::every::FAST;
use super::support::ledger::Ledger;
use super::support::{BOUND, Scene, eventually, inbox_of, live};

const LOGS: &str = "/api/v1/logs";

/// Stores and plans, and asks nothing of anybody.
const WATCH: &str = r#"
[[playbook]]
name = "watch"
on = ["user.risk.detect"]
mode = "observe"

  [[playbook.step]]
  name = "quarantine"
  action = "okta.group.add_user"
  with = { group = "High Risk Users" }
"#;

/// Small pages, from before the start.
const SMALL_PAGES: &str = "[poll]\nstart_from = \"1h\"\npage_size = 10\n";

/// How often the daemon has said that reading does not go on.
const STUCK: &str = "reading the log does not go on";

fn risks(user: &User, count: usize) -> Vec<Value> {
    (0..count).map(|_| events::risk_detected(user, "LOW", "HIGH")).collect()
}

/// The limits of the pages that were asked for, in order.
fn limits(scene: &Scene) -> Vec<String> {
    let limit = |path: &str| Some(path.split_once("limit=")?.1.split('&').next()?.to_owned());
    let pages = scene.org.requests().into_iter().filter(|request| request.path.starts_with(LOGS));
    pages.filter_map(|request| limit(&request.path)).collect()
}

/// Events before and behind a page that goes wrong so many times all arrive once and in order, the trouble is told once,
/// shown while it lasts, and then over.
async fn check(what: Misbehaviour, times: u32, words: &str) {
    let scene = Scene::with(OrgOptions::default(), SMALL_PAGES, WATCH).await;
    let user = scene.org.add_user(User::new("Ann", "Miller"));
    let uuids = scene.org.push_events(risks(&user, 25));
    scene.org.fault(Fault::new(Service::Okta, what).path("limit=10").sparing(1).times(times));
    let daemon = scene.daemon();
    let store = scene.store().await;
    assert_eq!(inbox_of(&store, 25).await, uuids, "{}", daemon.log());
    daemon.wait_for_log("reading goes on");
    assert!(daemon.log().contains(words), "{}", daemon.log());
    assert_eq!(daemon.log().matches(STUCK).count(), 1, "{}", daemon.log());
    let stream = live(&store).await;
    assert_eq!((stream.duplicates, stream.restarts, stream.problem), (0, 0, None));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_429_is_told_once_and_passes() {
    check(Misbehaviour::RateLimited { reset_in: Duration::from_secs(1) }, 4, "rate limit").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_trickles_in_is_given_up() {
    check(Misbehaviour::Drip, 1, "not answered in time").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_under_another_content_type_is_read_and_other_text_is_not() {
    let plain = |body: &str| Misbehaviour::Status {
        code: 200,
        headers: vec![("content-type".to_owned(), "text/plain".to_owned())],
        body: body.to_owned(),
    };
    // A page without records and without a link is asked for again, as Okta's own empty ones are.
    check(plain("oops"), 2, "not a JSON array").await;
    let scene = Scene::with(OrgOptions::default(), SMALL_PAGES, WATCH).await;
    let user = scene.org.add_user(User::new("Ann", "Miller"));
    scene.org.fault(Fault::new(Service::Okta, plain("[]")).path("limit=10").times(2));
    let uuids = scene.org.push_events(risks(&user, 3));
    let daemon = scene.daemon();
    assert_eq!(inbox_of(&scene.store().await, 3).await, uuids);
    assert!(!daemon.log().contains(STUCK), "{}", daemon.log());
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_no_org_is_shown_and_mended() {
    let scene = Scene::with(OrgOptions::default(), SMALL_PAGES, WATCH).await;
    let user = scene.org.add_user(User::new("Ann", "Miller"));
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    let store = scene.store().await;
    scene.org.fault(Fault::new(Service::Okta, Misbehaviour::status(404, "nothing here")).path(LOGS).always());
    let problem = eventually(async || live(&store).await.problem.ok_or_else(|| daemon.log())).await;
    assert!(problem.contains("was answered 404"), "{problem}");
    let uuids = scene.org.push_events(risks(&user, 3));
    scene.org.clear_faults();
    // A person has to mend that, so it is asked for rarely; a reload says that it is mended.
    daemon.signal("HUP");
    assert_eq!(inbox_of(&store, 3).await, uuids);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_too_large_is_read_in_parts_and_a_record_that_is_too_large_stepped_over() {
    const MIB: usize = 1024 * 1024;
    let scene = Scene::with(OrgOptions::default(), SMALL_PAGES, WATCH).await;
    scene.edit("timeout = \"2s\"\n\n[state]", "timeout = \"60s\"\n\n[state]");
    let user = scene.org.add_user(User::new("Ann", "Miller"));
    let kind = "user.risk.detect";
    let large =
        |name: &str, size| format!(r#"{{"uuid":"{name}","eventType":"{kind}","filler":"{}"}}"#, "x".repeat(size));
    let mut uuids = scene.org.push_events(risks(&user, 3));
    // Together they are more than is read of a page, each by itself is not.
    for name in ["a", "b", "c"] {
        scene.org.push_raw_event(&large(name, 12 * MIB), kind);
    }
    uuids.extend(scene.org.push_events(risks(&user, 2)));
    scene.org.push_raw_event(&large("d", 33 * MIB), kind);
    uuids.extend(scene.org.push_events(risks(&user, 14)));
    let daemon = scene.daemon();
    let store = scene.store().await;
    assert_eq!(inbox_of(&store, 19).await, uuids, "{}", daemon.log());
    assert!(daemon.log().contains("a page is too large, so fewer records are asked for"), "{}", daemon.log());
    // Each of the four is on record, the one that nobody has read by its address.
    let kept = store.list_quarantine(0).await.unwrap();
    assert_eq!(kept.len(), 4);
    let unread: Vec<_> = kept.iter().filter(|record| record.error.contains("larger than")).collect();
    let by_address: Vec<_> = unread.iter().filter(|record| record.raw.starts_with(&scene.org.okta_url())).collect();
    assert_eq!(by_address.len(), 1, "{:?}", unread.iter().map(|record| &record.error).collect::<Vec<_>>());
    assert!(by_address[0].raw.contains("after=") && by_address[0].raw.contains("limit=1"), "{}", by_address[0].raw);
    let stream = live(&store).await;
    assert_eq!((stream.duplicates, stream.restarts, stream.problem), (0, 0, None));
    // With room to spare the pages grow again.
    let asked = limits(&scene);
    assert!(asked.contains(&"1".to_owned()) && asked.contains(&"5".to_owned()), "{asked:?}");
    eventually(async || match limits(&scene).last().map(String::as_str) {
        Some("10") => Ok(()),
        _ => Err(format!("{:?}", limits(&scene))),
    })
    .await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_org_that_cannot_be_reached_is_told_once_and_nothing_is_lost() {
    let mut cable = Cable::new().await;
    let options = OrgOptions { next_origin: Some(cable.url()), ..OrgOptions::default() };
    let playbook = WATCH.replace("mode = \"observe\"", "").replace("group =", "user = \"{{ user.id }}\", group =");
    let scene = Scene::with(options, FAST, &playbook).await;
    cable.lead_to(&scene.org.okta_url());
    scene.edit(&scene.org.okta_url(), &cable.url());
    let group = scene.org.add_group("High Risk Users");
    let (ann, bob) = (scene.org.add_user(User::new("Ann", "Miller")), scene.org.add_user(User::new("Bob", "Jones")));
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    let ledger = Ledger::of(&scene).await;

    // The connection breaks with a decision under way: his facts, the change and the log are all out of reach.
    let slow = Fault::new(Service::Okta, Misbehaviour::Delay(Duration::from_millis(800)));
    scene.org.fault(slow.method("GET").path(&ann.id).always());
    scene.org.push_event(events::risk_detected(&ann, "LOW", "HIGH"));
    inbox_of(&ledger.store, 1).await;
    cable.pull().await;
    scene.org.push_event(events::risk_detected(&bob, "LOW", "HIGH"));
    daemon.wait_for_log("no connection could be made");
    let words = eventually(async || live(&ledger.store).await.problem.ok_or_else(|| daemon.log())).await;
    assert!(words.contains("the host refuses it"), "{words}");
    eventually(async || match ledger.events().await[0].reason.clone() {
        Some(why) if why.contains("did not leave") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;

    scene.org.clear_faults();
    cable.plug_in().await;
    daemon.wait_for_log("Okta is reached again");
    ledger.at_rest(2).await;
    assert!(scene.org.is_member(&group, &ann.id) && scene.org.is_member(&group, &bob.id), "{}", daemon.log());
    assert_eq!(scene.org.effects_of("group.add").len(), 2);
    assert_eq!(daemon.log().matches("Okta cannot be reached").count(), 1, "{}", daemon.log());
    eventually(async || live(&ledger.store).await.problem.map_or(Ok(()), Err)).await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_event_does_not_undo_what_happened_after_it() {
    let playbooks = r#"
[[playbook]]
name = "risk"
on = ["user.risk.detect"]

  [[playbook.step]]
  name = "quarantine"
  when = 'risk.level == "HIGH"'
  action = "okta.group.add_user"
  with = { group = "High Risk Users" }

  [[playbook.step]]
  name = "release"
  when = 'risk.level == "LOW"'
  action = "okta.group.remove_user"
  with = { group = "High Risk Users" }
"#;
    let scene = Scene::with(OrgOptions::default(), FAST, playbooks).await;
    let group = scene.org.add_group("High Risk Users");
    let ann = scene.org.add_user(User::new("Ann", "Miller"));
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    scene.org.push_event(events::risk_detected(&ann, "LOW", "HIGH"));
    ledger.at_rest(1).await;
    let before = scene.org.now() - SignedDuration::from_mins(5);
    let late = scene.org.push_event(events::published_at(events::risk_detected(&ann, "HIGH", "LOW"), before));
    ledger.at_rest(2).await;
    let (event, _) = ledger.store.find_event(&late).await.unwrap().unwrap();
    assert_eq!(event.state, "superseded");
    assert!(scene.org.is_member(&group, &ann.id), "{}", daemon.log());
    // What happens from now on counts again.
    scene.org.push_event(events::risk_detected(&ann, "HIGH", "LOW"));
    ledger.at_rest(3).await;
    assert!(!scene.org.is_member(&group, &ann.id));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_with_a_token_that_is_refused_leaves_the_old_one_at_work() {
    let scene = Scene::with(OrgOptions::default(), SMALL_PAGES, WATCH).await;
    let user = scene.org.add_user(User::new("Ann", "Miller"));
    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    let store = scene.store().await;
    scene.secret("okta-token", "00mistyped");
    daemon.signal("HUP");
    daemon.wait_for_log("the old configuration stays in force");
    let mut uuids = scene.org.push_events(risks(&user, 2));
    assert_eq!(inbox_of(&store, 2).await, uuids, "{}", daemon.log());
    assert!(!daemon.log().contains("00mistyped") && !daemon.log().contains("the configuration is read again"));

    // Okta need not be asked again whom the same token belongs to, so a reload gets through when Okta does not answer that.
    scene.org.fault(Fault::new(Service::Okta, Misbehaviour::status(503, "")).path("/users/me").always());
    scene.secret("okta-token", scene.org.token());
    scene.edit("page_size = 10", "page_size = 20");
    daemon.signal("HUP");
    daemon.wait_for_log("the configuration is read again");
    uuids.extend(scene.org.push_events(risks(&user, 2)));
    assert_eq!(inbox_of(&store, 4).await, uuids);
    assert_eq!(store.list_events(EventFilter::default()).await.unwrap().len(), 4);
    scene.org.wait_for(|_| limits(&scene).last().is_some_and(|limit| limit == "20"), BOUND).await.unwrap();
    assert!(daemon.stop().success());
}
