//! Reading the log: whatever Okta, the network and the machine do, every event is in the inbox once and in order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use okta_responder::demo::org::{
    Fault, Hold, Misbehaviour, Org, OrgOptions, RateLimits, Request, Service, User, events,
};
use okta_responder::store::{EventFilter, NewStream, RunFilter, Store, StreamKind};
use serde_json::{Value, json};
use support::{BOUND, Daemon, Scene, eventually, inbox, inbox_of, live};

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

/// The same for another type of event.
const WATCH_APPS: &str = r#"
[[playbook]]
name = "watch-apps"
on = ["application.user_membership.add"]
mode = "observe"

  [[playbook.step]]
  name = "unassign"
  action = "okta.app.unassign_user"
"#;

/// Small pages, from before the start.
const SMALL_PAGES: &str = "[poll]\nstart_from = \"1h\"\npage_size = 10\n";

fn risks(user: &User, count: usize) -> Vec<Value> {
    (0..count).map(|_| events::risk_detected(user, "LOW", "HIGH")).collect()
}

/// The requests for pages, without the one that only asks for Okta's clock.
fn pages_asked(org: &Org) -> Vec<Request> {
    let is_page = |request: &Request| request.path.starts_with(LOGS) && !request.path.ends_with("&limit=1");
    org.requests().into_iter().filter(is_page).collect()
}

/// Waits for that many more requests for pages, so that what is under way has certainly been stored.
async fn polls(org: &Org, more: usize) {
    let before = pages_asked(org).len();
    org.wait_for(|org| pages_asked(org).len() >= before + more, BOUND).await.unwrap();
}

async fn runs(store: &Store) -> usize {
    store.list_runs(RunFilter::default()).await.unwrap().len()
}

/// A server that nobody may speak to.
struct Trap {
    url: String,
    visits: Arc<AtomicUsize>,
}

impl Trap {
    async fn set() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let visits = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&visits);
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { url, visits }
    }

    fn visits(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }
}

mod pages {
    use super::*;

    /// So many events in pages of ten, all in the log before the daemon starts.
    async fn check(count: usize) {
        let scene = Scene::with(OrgOptions::default(), SMALL_PAGES, WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        let uuids = scene.org.push_events(risks(&user, count));
        let daemon = scene.daemon();
        let store = scene.store().await;
        assert_eq!(inbox_of(&store, count).await, uuids);
        polls(&scene.org, 2).await;
        let stream = live(&store).await;
        let seen = (stream.stored, stream.duplicates, stream.unwanted, stream.quarantined, stream.restarts);
        assert_eq!(seen, (count as u64, 0, 0, 0, 0));
        eventually(async || match runs(&store).await {
            planned if planned == count => Ok(()),
            planned => Err(format!("{planned} runs")),
        })
        .await;
        assert!(scene.org.effects().is_empty());
        assert!(daemon.stop().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_pages_are_stored_in_order_and_nothing_twice() {
        check(95).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_last_page_that_is_just_full_is_followed_by_an_empty_one() {
        check(30).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_page_is_followed_by_the_next_one_at_once() {
        let scene = Scene::with(OrgOptions::default(), SMALL_PAGES, WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        scene.org.push_events(risks(&user, 300));
        let _daemon = scene.daemon();
        let store = scene.store().await;
        inbox_of(&store, 300).await;
        let asked = pages_asked(&scene.org);
        // Thirty pages a second apart would take half a minute.
        let took = asked[30].at_ms - asked[0].at_ms;
        assert!(took < 15_000, "{took} ms");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_a_next_link_on_an_empty_page_the_same_page_is_asked_for_again() {
        let options = OrgOptions { omit_next_on_empty: true, ..OrgOptions::default() };
        let scene = Scene::with(options, SMALL_PAGES, WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        let daemon = scene.daemon();
        daemon.wait_for_log("ready");
        polls(&scene.org, 2).await;
        let asked = pages_asked(&scene.org);
        assert!(asked.iter().all(|request| request.path == asked[0].path), "{asked:?}");

        // From the first page, and from one behind a cursor.
        let store = scene.store().await;
        let mut uuids = scene.org.push_events(risks(&user, 3));
        inbox_of(&store, 3).await;
        polls(&scene.org, 2).await;
        uuids.extend(scene.org.push_events(risks(&user, 12)));
        assert_eq!(inbox_of(&store, 15).await, uuids);
        assert_eq!(live(&store).await.duplicates, 0);
        assert!(daemon.stop().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_event_that_comes_twice_is_stored_once_and_counted() {
        let scene = Scene::new(WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        let daemon = scene.daemon();
        daemon.wait_for_log("ready");
        let mut event = events::risk_detected(&user, "LOW", "HIGH");
        event["uuid"] = json!("0d0c1b7e-51a1-11f0-8000-000000000001");
        scene.org.push_events(vec![event.clone(), event.clone()]);
        let store = scene.store().await;
        inbox_of(&store, 1).await;
        polls(&scene.org, 1).await;
        scene.org.push_event(event);
        eventually(async || match live(&store).await.duplicates {
            2 => Ok(()),
            other => Err(format!("{other} duplicates")),
        })
        .await;
        assert_eq!(inbox(&store).await.len(), 1);
        assert_eq!(runs(&store).await, 1);
        assert!(daemon.stop().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn events_of_one_user_do_not_hold_each_other_up() {
        let scene = Scene::with(OrgOptions::default(), SMALL_PAGES, &WATCH.replace("observe", "enforce")).await;
        scene.org.add_group("High Risk Users");
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        scene.org.push_events(risks(&user, 30));
        let daemon = scene.daemon();
        let store = scene.store().await;
        inbox_of(&store, 30).await;
        eventually(async || match runs(&store).await {
            30 => Ok(()),
            planned => Err(format!("{planned} runs")),
        })
        .await;
        let received = store.list_events(EventFilter::default()).await.unwrap().into_iter().map(|row| row.received_at);
        let decided = store.list_runs(RunFilter::default()).await.unwrap().into_iter().map(|row| row.created_at);
        // One a second would take half a minute.
        let took = decided.max().unwrap().duration_since(received.max().unwrap());
        assert!(took < SignedDuration::from_secs(15), "{took:?}");
        assert!(daemon.stop().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_event_that_was_published_long_before_the_cursor_is_not_missed() {
        let scene = Scene::new(WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        let daemon = scene.daemon();
        daemon.wait_for_log("ready");
        let store = scene.store().await;
        let first = scene.org.push_event(events::risk_detected(&user, "LOW", "HIGH"));
        inbox_of(&store, 1).await;
        let published = scene.org.now() - SignedDuration::from_hours(30);
        let late = scene.org.push_event(events::published_at(events::risk_detected(&user, "LOW", "HIGH"), published));
        assert_eq!(inbox_of(&store, 2).await, [first, late]);
        assert!(daemon.stop().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn records_that_are_no_events_go_to_quarantine_and_the_page_goes_on() {
        let scene = Scene::with(OrgOptions::default(), SMALL_PAGES, WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        let kind = "user.risk.detect";
        let mut uuids = scene.org.push_events(risks(&user, 4));
        let huge = format!(r#"{{"uuid":"huge","eventType":"{kind}","filler":"{}"}}"#, "x".repeat(600 * 1024));
        for broken in ["7", "null", "[]", r#"{"eventType":"user.risk.detect"}"#, &huge] {
            scene.org.push_raw_event(broken, kind);
        }
        uuids.extend(scene.org.push_events(risks(&user, 14)));
        let daemon = scene.daemon();
        let store = scene.store().await;
        assert_eq!(inbox_of(&store, 18).await, uuids);
        assert_eq!(live(&store).await.quarantined, 5);
        let kept = store.list_quarantine(0).await.unwrap();
        assert_eq!(kept.len(), 5);
        assert!(kept.iter().all(|record| !record.error.is_empty() && record.raw.len() <= 64 * 1024));
        // The stream itself has no problem.
        assert_eq!(live(&store).await.problem, None);
        assert!(daemon.stop().success());
    }
}

mod faults {
    use super::*;

    /// What the daemon makes of the third of five pages going wrong once: it says so, asks for the same page again, and
    /// everything arrives in order. Returns the milliseconds between the two requests.
    async fn check(what: Misbehaviour, words: &str) -> u64 {
        let scene = Scene::with(OrgOptions::default(), SMALL_PAGES, WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        let uuids = scene.org.push_events(risks(&user, 45));
        scene.org.fault(Fault::new(Service::Okta, what).path("limit=10").sparing(2));
        let daemon = scene.daemon();
        let store = scene.store().await;
        assert_eq!(inbox_of(&store, 45).await, uuids, "{}", daemon.log());
        daemon.wait_for_log(words);

        // The page behind it may have been asked for already when the third one broke off.
        let asked = pages_asked(&scene.org);
        let again: Vec<usize> = (3..asked.len()).filter(|at| asked[*at].path == asked[2].path).collect();
        assert!(again == [3] || again == [4], "{asked:#?}");
        let stream = live(&store).await;
        assert_eq!((stream.stored, stream.duplicates, stream.restarts), (45, 0, 0));
        assert_eq!(stream.problem, None);
        assert!(!daemon.log().contains(scene.org.token()), "{}", daemon.log());
        assert!(daemon.stop().success());
        asked[again[0]].at_ms - asked[2].at_ms
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_rate_limit_is_waited_out_until_okta_opens_again() {
        let waited = check(Misbehaviour::RateLimited { reset_in: Duration::from_secs(3) }, "rate limit").await;
        assert!((3_000..20_000).contains(&waited), "{waited} ms");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_concurrency_limit_is_waited_out_by_our_own_schedule() {
        let what = Misbehaviour::ConcurrencyLimited { reset_in: Duration::from_secs(3000) };
        let waited = check(what, "too many requests at once").await;
        assert!((500..20_000).contains(&waited), "{waited} ms");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_error_of_okta_passes() {
        let body = r#"{"errorCode":"E0000009","errorSummary":"Internal Server Error"}"#;
        let waited = check(Misbehaviour::status(500, body), "was answered 500 E0000009").await;
        assert!(waited >= 500, "{waited} ms");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_gateway_that_gives_up_passes() {
        check(Misbehaviour::status(503, "<html>upstream timed out</html>"), "was answered 503").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_page_that_breaks_off_is_read_again_as_a_whole() {
        check(Misbehaviour::TruncateBody, "broke off").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_page_that_never_ends_is_given_up() {
        check(Misbehaviour::EndlessBody, "the answer is larger than").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_page_of_html_is_no_page() {
        check(Misbehaviour::Html, "not a JSON array").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_answer_that_is_too_slow_is_asked_for_again() {
        check(Misbehaviour::Delay(Duration::from_secs(5)), "not answered in time").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_connection_that_breaks_before_anything_is_done_passes() {
        check(Misbehaviour::DropBefore, "the connection broke").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_connection_that_breaks_when_all_is_done_passes() {
        check(Misbehaviour::DropAfter, "the connection broke").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_redirect_is_not_followed() {
        let trap = Trap::set().await;
        check(Misbehaviour::Redirect(format!("{}/api/v1/logs", trap.url)), "was answered 302").await;
        assert_eq!(trap.visits(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_trouble_that_lasts_is_told_once_shown_and_then_over() {
        let scene = Scene::new(WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        let daemon = scene.daemon();
        daemon.wait_for_log("ready");
        let body = r#"{"errorCode":"E0000009","errorSummary":"Internal Server Error"}"#;
        scene.org.fault(Fault::new(Service::Okta, Misbehaviour::status(500, body)).path(LOGS).always());
        polls(&scene.org, 3).await;
        let store = scene.store().await;
        let problem = live(&store).await.problem.unwrap();
        assert!(problem.contains("500 E0000009"), "{problem}");
        let told = daemon.log().matches("reading the log does not go on").count();
        assert_eq!(told, 1, "{}", daemon.log());

        let uuid = scene.org.push_event(events::risk_detected(&user, "LOW", "HIGH"));
        scene.org.clear_faults();
        assert_eq!(inbox_of(&store, 1).await, [uuid]);
        daemon.wait_for_log("reading goes on");
        assert_eq!(live(&store).await.problem, None);
        assert!(daemon.stop().success());
    }
}

mod access {
    use super::*;

    /// A refusal that a person has to mend: shown in words that help him, nothing is lost, and a reload is enough to
    /// go on at the same cursor.
    async fn check(code: u16, body: &str, words: &[&str]) {
        let scene = Scene::new(WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        let daemon = scene.daemon();
        daemon.wait_for_log("ready");
        let store = scene.store().await;
        let mut uuids = scene.org.push_events(risks(&user, 2));
        inbox_of(&store, 2).await;

        scene.org.fault(Fault::new(Service::Okta, Misbehaviour::status(code, body)).path(LOGS).always());
        let problem = eventually(async || live(&store).await.problem.ok_or_else(|| daemon.log())).await;
        for word in words {
            assert!(problem.contains(word), "{problem}");
        }
        assert!(!problem.contains(scene.org.token()));
        let cursor = live(&store).await.next_url;
        uuids.extend(scene.org.push_events(risks(&user, 3)));
        scene.org.clear_faults();
        daemon.signal("HUP");
        assert_eq!(inbox_of(&store, 5).await, uuids);
        let stream = live(&store).await;
        assert_eq!((stream.restarts, stream.duplicates, stream.problem), (0, 0, None));
        let url = cursor.unwrap();
        assert!(pages_asked(&scene.org).iter().filter(|request| url.ends_with(&request.path)).count() >= 2);
        assert!(daemon.stop().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_refused_token_is_shown_and_nothing_is_lost() {
        let body = r#"{"errorCode":"E0000011","errorSummary":"Invalid token provided"}"#;
        check(401, body, &["401 E0000011", "okta.token"]).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_missing_role_is_named_and_nothing_is_lost() {
        let body = r#"{"errorCode":"E0000006","errorSummary":"You do not have permission"}"#;
        check(403, body, &["403 E0000006", "okta.logs.read"]).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_token_that_is_refused_at_the_start_and_accepted_later_is_waited_for() {
        let scene = Scene::with(OrgOptions::default(), SMALL_PAGES, WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        let uuids = scene.org.push_events(risks(&user, 3));
        let body = r#"{"errorCode":"E0000011","errorSummary":"Invalid token provided"}"#;
        scene.org.fault(Fault::new(Service::Okta, Misbehaviour::status(401, body)).times(2));
        let daemon = scene.daemon();
        let store = scene.store().await;
        assert_eq!(inbox_of(&store, 3).await, uuids);
        assert!(daemon.stop().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_new_token_is_taken_up_by_a_reload_even_before_the_first_one_was_accepted() {
        let scene = Scene::with(OrgOptions::default(), SMALL_PAGES, WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        let uuids = scene.org.push_events(risks(&user, 3));
        scene.secret("okta-token", "00mistyped");
        let daemon = scene.daemon();
        daemon.wait_for_log("E0000011");
        scene.secret("okta-token", scene.org.token());
        daemon.signal("HUP");
        let store = scene.store().await;
        assert_eq!(inbox_of(&store, 3).await, uuids);
        assert!(!daemon.log().contains("00mistyped") && !daemon.log().contains(scene.org.token()));
        assert!(daemon.stop().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_next_page_on_another_host_is_never_asked_for() {
        let trap = Trap::set().await;
        let options = OrgOptions { next_origin: Some(trap.url.clone()), ..OrgOptions::default() };
        let scene = Scene::with(options, SMALL_PAGES, WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        scene.org.push_events(risks(&user, 25));
        let daemon = scene.daemon();
        daemon.wait_for_log("page link that is not followed");
        let store = scene.store().await;
        let problem = eventually(async || live(&store).await.problem.ok_or_else(|| daemon.log())).await;
        assert!(problem.contains("page link that is not followed"), "{problem}");
        assert!(!problem.contains(&trap.url), "{problem}");
        assert_eq!(trap.visits(), 0);
        // A page without a cursor behind it is not stored.
        assert_eq!(inbox(&store).await, Vec::<String>::new());
        assert_eq!(live(&store).await.next_url, None);
        assert!(daemon.stop().success());
    }
}

mod restarts {
    use super::*;

    /// The stream begins long enough ago to begin again the whole overlap earlier.
    const OVERLAP: &str = "[poll]\nstart_from = \"1h\"\noverlap = \"10m\"\n";

    fn ten_minutes() -> SignedDuration {
        SignedDuration::from_mins(10)
    }

    /// Where the stream began again lies the overlap before a good poll between `before` and now, by Okta's clock.
    async fn assert_began_again(store: &Store, org: &Org, before: Timestamp) {
        let stream = live(store).await;
        let expected = (before - ten_minutes())..=(org.now() - ten_minutes());
        assert!(expected.contains(&stream.since), "{} is not in {expected:?}", stream.since);
        let since = format!("since={:.3}", stream.since).replace(':', "%3A");
        let asked = pages_asked(org);
        assert!(asked.iter().any(|request| request.path.contains(&since)), "{since}: {asked:#?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lost_cursor_begins_again_before_the_last_good_poll_and_known_events_are_recognised() {
        let options = OrgOptions { clock_offset: SignedDuration::from_hours(-5), ..OrgOptions::default() };
        let scene = Scene::with(options, OVERLAP, WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        let daemon = scene.daemon();
        daemon.wait_for_log("ready");
        let store = scene.store().await;
        let mut uuids = scene.org.push_events(risks(&user, 5));
        inbox_of(&store, 5).await;
        let before = live(&store).await.last_good_poll.unwrap();

        scene.org.forget_cursors();
        uuids.push(scene.org.push_event(events::risk_detected(&user, "LOW", "HIGH")));
        assert_eq!(inbox_of(&store, 6).await, uuids);
        let stream = live(&store).await;
        assert_eq!((stream.restarts, stream.duplicates, stream.stored), (1, 5, 6));
        assert!(daemon.log().contains("the cursor is lost"), "{}", daemon.log());
        assert_began_again(&store, &scene.org, before).await;
        eventually(async || match runs(&store).await {
            6 => Ok(()),
            planned => Err(format!("{planned} runs")),
        })
        .await;
        assert!(daemon.stop().success());
    }

    /// A playbook for another type is added; the daemon learns of it by `turn`. Events of that type from a little before
    /// are found, and those known already start nothing again.
    async fn check_added_playbook(turn: impl FnOnce(&Scene, Daemon) -> Daemon) {
        let scene = Scene::with(OrgOptions::default(), OVERLAP, WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        let app = scene.org.app(&scene.org.add_app("Payroll")).unwrap();
        let daemon = scene.daemon();
        daemon.wait_for_log("ready");
        let store = scene.store().await;
        let unwanted = scene.org.push_event(events::app_assigned(&app, &user));
        let mut uuids = scene.org.push_events(risks(&user, 3));
        inbox_of(&store, 3).await;
        polls(&scene.org, 1).await;
        let before = live(&store).await.last_good_poll.unwrap();

        scene.configure(OVERLAP, &format!("{WATCH}{WATCH_APPS}"));
        let daemon = turn(&scene, daemon);
        uuids.push(unwanted);
        assert_eq!(inbox_of(&store, 4).await, uuids);
        uuids.push(scene.org.push_event(events::app_assigned(&app, &user)));
        assert_eq!(inbox_of(&store, 5).await, uuids);
        let stream = live(&store).await;
        assert_eq!((stream.restarts, stream.duplicates), (1, 3));
        assert!(stream.query.contains("application.user_membership.add"), "{}", stream.query);
        assert_began_again(&store, &scene.org, before).await;
        assert!(daemon.stop().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn after_a_stop_longer_than_okta_keeps_the_log_the_stream_begins_where_it_still_has_it() {
        let scene = Scene::new(WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        let (now, state) = (scene.org.now(), scene.state());
        let store = Store::open(&state).unwrap();
        let long_ago = now - SignedDuration::from_hours(200 * 24);
        let new = NewStream {
            source: "okta".to_owned(),
            kind: StreamKind::Live,
            query: "eventType eq \"user.risk.detect\"".to_owned(),
            since: long_ago,
            until: None,
            execute: false,
        };
        store.create_stream(new, now).await.unwrap();
        let uuids = scene.org.push_events(risks(&user, 1));
        let daemon = scene.daemon();
        daemon.wait_for_log("Okta keeps 90 days: the stream begins there");
        assert_eq!(inbox_of(&store, 1).await, uuids);
        let stream = live(&store).await;
        let kept = now - SignedDuration::from_hours(91 * 24);
        assert!(stream.since > kept && !stream.query.is_empty(), "{stream:?}");
        assert!(daemon.stop().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_playbook_added_while_the_daemon_is_stopped_begins_the_stream_again() {
        check_added_playbook(|scene, daemon| {
            assert!(daemon.stop().success());
            scene.daemon()
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_playbook_added_by_a_reload_begins_the_stream_again() {
        check_added_playbook(|_, daemon| {
            daemon.signal("HUP");
            daemon
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stream_that_begins_now_never_begins_again_before_that() {
        // The half hour before the start is full of events that a playbook wants.
        let options = OrgOptions {
            synthetic_events: 100,
            synthetic_risk_every: 2,
            synthetic_span: Duration::from_secs(1800),
            ..OrgOptions::default()
        };
        let scene = Scene::with(options, "", WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        let daemon = scene.daemon();
        daemon.wait_for_log("ready");
        let store = scene.store().await;
        let began = live(&store).await.since;
        scene.org.forget_cursors();
        let uuid = scene.org.push_event(events::risk_detected(&user, "LOW", "HIGH"));
        assert_eq!(inbox_of(&store, 1).await, [uuid]);
        let stream = live(&store).await;
        assert_eq!((stream.restarts, stream.since), (1, began));
        assert!(daemon.stop().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_wrong_configuration_leaves_the_old_one_in_force() {
        let scene = Scene::new(WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        let daemon = scene.daemon();
        daemon.wait_for_log("ready");
        scene.configure("[poll]\npage_size = 0\n", WATCH);
        daemon.signal("HUP");
        daemon.wait_for_log("the old one stays in force");
        let store = scene.store().await;
        let uuid = scene.org.push_event(events::risk_detected(&user, "LOW", "HIGH"));
        assert_eq!(inbox_of(&store, 1).await, [uuid]);
        assert_eq!(live(&store).await.restarts, 0);
        assert!(daemon.stop().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stopped_daemon_goes_on_at_the_stored_cursor() {
        let scene = Scene::with(OrgOptions::default(), SMALL_PAGES, WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        let mut uuids = scene.org.push_events(risks(&user, 13));
        let daemon = scene.daemon();
        let store = scene.store().await;
        inbox_of(&store, 13).await;
        assert!(daemon.stop().success());
        let cursor = live(&store).await.next_url.unwrap();

        uuids.extend(scene.org.push_events(risks(&user, 24)));
        let before = scene.org.requests().len();
        let daemon = scene.daemon();
        assert_eq!(inbox_of(&store, 37).await, uuids);
        let requests = scene.org.requests();
        let first = requests[before..].iter().find(|request| request.path.starts_with(LOGS)).unwrap();
        assert!(cursor.ends_with(&first.path), "{cursor} {}", first.path);
        let stream = live(&store).await;
        assert_eq!((stream.restarts, stream.duplicates), (0, 0));
        assert!(daemon.stop().success());
    }

    /// Killed in the middle of paging, the next daemon goes on with nothing lost and nothing twice.
    async fn check_killed_at(point: &str) {
        let scene = Scene::with(OrgOptions::default(), SMALL_PAGES, WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        let uuids = scene.org.push_events(risks(&user, 45));
        let daemon = scene.daemon_with(&[("OKTA_RESPONDER_HALT_AT", point)]);
        daemon.wait_for_log("halted at");
        daemon.kill();
        let store = scene.store().await;
        let kept = inbox(&store).await;
        // The cursor stands behind exactly what is stored.
        assert_eq!(kept, uuids[..kept.len()]);
        assert_eq!(kept.len() % 10, 0, "{point} left half a page");
        assert_eq!(live(&store).await.next_url.is_some(), !kept.is_empty());

        let daemon = scene.daemon();
        assert_eq!(inbox_of(&store, 45).await, uuids, "{point}");
        polls(&scene.org, 2).await;
        let stream = live(&store).await;
        assert_eq!((stream.stored, stream.duplicates, stream.restarts), (45, 0, 0), "{point}");
        eventually(async || match runs(&store).await {
            45 => Ok(()),
            planned => Err(format!("{planned} runs after {point}")),
        })
        .await;
        assert!(daemon.stop().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_when_a_page_is_read_and_not_stored() {
        check_killed_at("page_read:1").await;
        check_killed_at("page_read:3").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_inside_the_transaction_of_a_page() {
        check_killed_at("inside_t1:1").await;
        check_killed_at("inside_t1:3").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_just_after_a_page_is_stored() {
        check_killed_at("page_stored:2").await;
    }
}

mod filters {
    use super::*;

    async fn check(scene: Scene, filter_is_asked: bool) {
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        let app = scene.org.app(&scene.org.add_app("Payroll")).unwrap();
        let mut uuids = scene.org.push_events(risks(&user, 3));
        scene.org.push_events(vec![events::sign_in(&user, "LOW"), events::user_cleared_sessions(&user)]);
        uuids.push(scene.org.push_event(events::app_assigned(&app, &user)));
        let daemon = scene.daemon();
        let store = scene.store().await;
        assert_eq!(inbox_of(&store, 4).await, uuids, "{}", daemon.log());
        polls(&scene.org, 1).await;
        let stream = live(&store).await;
        assert_eq!((stream.unwanted, stream.duplicates, stream.query.as_str()), (2, 0, ""));
        let asked = pages_asked(&scene.org);
        assert_eq!(asked[0].path.contains("filter="), filter_is_asked, "{asked:#?}");
        assert!(!asked[asked.len() - 1].path.contains("filter="), "{asked:#?}");
        assert!(daemon.stop().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_refused_filter_is_applied_on_this_side() {
        let both = format!("{WATCH}{WATCH_APPS}");
        let scene = Scene::with(OrgOptions::default(), SMALL_PAGES, &both).await;
        let body = r#"{"errorCode":"E0000053","errorSummary":"Invalid filter"}"#;
        scene.org.fault(Fault::new(Service::Okta, Misbehaviour::status(400, body)).path("filter=").always());
        check(scene, true).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn more_types_than_a_filter_may_have_are_filtered_on_this_side() {
        let both = format!("{WATCH}{WATCH_APPS}");
        let settings = format!("{SMALL_PAGES}max_filter_types = 1\n");
        let scene = Scene::with(OrgOptions::default(), &settings, &both).await;
        check(scene, false).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_filter_names_what_the_playbooks_want_and_okta_sends_no_more() {
        let scene = Scene::with(OrgOptions::default(), SMALL_PAGES, WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        scene.org.push_event(events::sign_in(&user, "LOW"));
        let uuid = scene.org.push_event(events::risk_detected(&user, "LOW", "HIGH"));
        let daemon = scene.daemon();
        let store = scene.store().await;
        assert_eq!(inbox_of(&store, 1).await, [uuid]);
        let stream = live(&store).await;
        assert_eq!(stream.query, r#"eventType eq "user.risk.detect""#);
        assert_eq!(stream.unwanted, 0);
        assert!(daemon.stop().success());
    }
}

mod clocks {
    use super::*;

    /// "Now" is what Okta's clock shows, however far it is from ours.
    async fn check(offset: SignedDuration) {
        // The log begins with an event every half hour of the last day, by Okta's clock.
        let options =
            OrgOptions { clock_offset: offset, synthetic_events: 48, synthetic_risk_every: 1, ..OrgOptions::default() };
        let scene = Scene::with(options, "", WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        let earliest = scene.org.now() - SignedDuration::from_secs(1);
        let daemon = scene.daemon();
        daemon.wait_for_log("ready");
        let store = scene.store().await;
        let since = live(&store).await.since;
        assert!((earliest..=scene.org.now()).contains(&since), "{since}");

        let uuid = scene.org.push_event(events::risk_detected(&user, "LOW", "HIGH"));
        assert_eq!(inbox_of(&store, 1).await, [uuid]);
        let last = live(&store).await.last_good_poll.unwrap();
        assert!((earliest..=scene.org.now()).contains(&last), "{last}");
        assert!(daemon.stop().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn okta_is_ahead_of_us() {
        check(SignedDuration::from_hours(3)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn okta_is_behind_us() {
        check(SignedDuration::from_hours(-3)).await;
    }
}

mod budget {
    use super::*;

    fn limited(logs: u32) -> OrgOptions {
        OrgOptions {
            rate_limits: RateLimits { logs, ..RateLimits::default() },
            synthetic_events: 2000,
            synthetic_risk_every: 1,
            synthetic_span: Duration::from_secs(1800),
            ..OrgOptions::default()
        }
    }

    fn asked(org: &Org) -> Vec<Request> {
        org.requests().into_iter().filter(|request| request.path.starts_with(LOGS)).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn catching_up_takes_its_share_of_a_minute_and_not_one_request_more() {
        let scene = Scene::with(limited(40), SMALL_PAGES, WATCH).await;
        scene.edit("rate_share = 1.0", "rate_share = 0.5");
        let daemon = scene.daemon();
        // The 2000 events have 200 pages: the share is used up long before the end.
        scene.org.wait_for(|org| asked(org).len() >= 20, BOUND).await.unwrap();
        let more = scene.org.wait_for(|org| asked(org).len() > 20, Duration::from_secs(4)).await;
        assert!(more.is_err(), "{:#?}", asked(&scene.org));
        assert!(asked(&scene.org).iter().all(|request| request.status == Some(200)));
        assert!(daemon.stop().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_minute_sees_more_than_the_share_and_okta_never_has_to_refuse() {
        let scene = Scene::with(limited(12), SMALL_PAGES, WATCH).await;
        scene.edit("rate_share = 1.0", "rate_share = 0.5");
        let daemon = scene.daemon();
        // Into the second minute: it is the only way to see that the share comes back, and no earlier.
        scene.org.wait_for(|org| asked(org).len() >= 9, 2 * BOUND).await.unwrap();
        let asked = asked(&scene.org);
        // Okta's minutes begin at whole seconds.
        for window in asked.windows(7) {
            let (first, seventh) = (&window[0], &window[6]);
            assert!(seventh.at_ms - first.at_ms > 58_500, "{asked:#?}");
        }
        assert!(asked.iter().all(|request| request.status != Some(429)), "{asked:#?}");
        assert!(daemon.stop().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_restarted_daemon_keeps_to_what_is_left_of_the_share() {
        let scene = Scene::with(limited(40), SMALL_PAGES, WATCH).await;
        scene.edit("rate_share = 1.0", "rate_share = 0.5");
        let daemon = scene.daemon();
        scene.org.wait_for(|org| asked(org).len() >= 20, BOUND).await.unwrap();
        daemon.kill();
        let daemon = scene.daemon();
        // It asks once to learn how things stand, and leaves the rest to the others.
        daemon.wait_for_log("ready");
        let more = scene.org.wait_for(|org| asked(org).len() > 21, Duration::from_secs(3)).await;
        assert!(more.is_err(), "{:#?}", asked(&scene.org));
        assert!(daemon.stop().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_others_have_used_is_left_to_them() {
        let scene = Scene::with(OrgOptions::default(), SMALL_PAGES, WATCH).await;
        scene.edit("rate_share = 1.0", "rate_share = 0.5");
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        scene.org.push_events(risks(&user, 25));
        // A full page whose headers say that the others have taken most of the minute, which ends in 4 s.
        let url = format!("{}{LOGS}?after=0_0&limit=10", scene.org.okta_url());
        let reset = scene.org.now().as_second() + 4;
        let records: Vec<Value> = (0..10).map(|number| json!({"number": number})).collect();
        let answer = Misbehaviour::Status {
            code: 200,
            headers: vec![
                ("x-rate-limit-limit".to_owned(), "120".to_owned()),
                ("x-rate-limit-remaining".to_owned(), "60".to_owned()),
                ("x-rate-limit-reset".to_owned(), reset.to_string()),
                ("link".to_owned(), format!("<{url}>; rel=\"next\"")),
            ],
            body: Value::from(records).to_string(),
        };
        scene.org.fault(Fault::new(Service::Okta, answer).path("limit=10"));
        let daemon = scene.daemon();
        scene.org.wait_for(|org| pages_asked(org).len() >= 2, BOUND).await.unwrap();
        assert!(scene.org.now().as_second() >= reset, "{:#?}", pages_asked(&scene.org));
        assert!(daemon.stop().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_live_stream_goes_on_while_a_backfill_hangs() {
        let scene = Scene::new(WATCH).await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        let daemon = scene.daemon();
        daemon.wait_for_log("ready");
        let hold = Hold::new();
        let slow = Misbehaviour::Hold(hold.clone());
        scene.org.fault(Fault::new(Service::Okta, slow).path("until=").always());
        let store = scene.store().await;
        let now = scene.org.now();
        let new = NewStream {
            source: "okta".to_owned(),
            kind: StreamKind::Backfill,
            query: String::new(),
            since: now - SignedDuration::from_hours(1),
            until: Some(now),
            execute: false,
        };
        store.create_stream(new, now).await.unwrap();
        hold.held(BOUND).await.unwrap();
        let uuids = scene.org.push_events(risks(&user, 2));
        assert_eq!(inbox_of(&store, 2).await, uuids);
        hold.release();
        eventually(async || {
            let streams = store.list_streams().await.unwrap();
            let backfill = streams.into_iter().find(|stream| stream.kind == "backfill").unwrap();
            if backfill.state == "done" { Ok(()) } else { Err(backfill.state) }
        })
        .await;
        assert!(daemon.stop().success());
    }
}
