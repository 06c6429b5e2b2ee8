//! Requests that fail, get lost or are never answered: each effect is there once, or the doubt is shown.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use std::time::Duration;

use okta_responder::demo::org::{Fault, Hold, Misbehaviour, Service, User, events};
use okta_responder::model::ids::ActionId;
use okta_responder::store::PersonChange;
use support::every::{Every, FAST, STEPS};
use support::ledger::{Ledger, told};
use support::{BOUND, eventually};

/// What is left of a step in the end: how many effects, in which state, for which reason.
type End = (usize, &'static str, Option<&'static str>);

const DONE: End = (1, "succeeded", None);
const FOUND: End = (1, "settled", Some("found_done"));
const IN_DOUBT: &str = "in_doubt";

fn every_step() -> Vec<&'static str> {
    STEPS.iter().map(|(step, _)| *step).collect()
}

/// Lets the first changing request of every step meet a fault, and looks at what is left of each step in the end.
async fn check(fault: impl Fn(&str) -> Misbehaviour, expected: impl Fn(&str) -> End) {
    let every = Every::new(&every_step(), "").await;
    for step in every_step() {
        every.scene.org.fault(every.fault(step, fault(step)));
    }
    every.push();
    let daemon = every.scene.daemon();
    let ledger = Ledger::of(&every.scene).await;
    let actions = ledger.at_rest(1).await;
    assert_eq!(actions.len(), STEPS.len());
    for action in &actions {
        let step = action.step.as_str();
        let got = (every.effects(step).len(), action.state.as_str(), action.reason.as_deref());
        assert_eq!(got, expected(step), "{step}: {}\n{}", told(&actions), daemon.log());
    }
    assert!(every.scene.org.is_member(&every.high, &every.user.id) || expected("add").0 == 0);
    let in_doubt = actions.iter().filter(|action| action.reason.as_deref() == Some(IN_DOUBT)).count() as u64;
    let status = ledger.store.status(every.scene.org.now()).await.unwrap();
    assert_eq!(status.in_doubt_last_day, in_doubt, "every doubt is shown");
    assert!(daemon.stop().success());
}

fn is_message(step: &str) -> bool {
    matches!(step, "slack" | "mail")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_a_service_asks_for_is_made_and_nothing_is_done_twice() {
    check(|_| Misbehaviour::RateLimited { reset_in: Duration::from_secs(1) }, |_| DONE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_is_not_there_for_is_done_when_it_is_back() {
    let unavailable = |step: &str| Misbehaviour::status(if step == "mail" { 451 } else { 503 }, "not now");
    check(unavailable, |_| DONE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_server_error_the_target_is_read_back_where_it_can_be() {
    check(
        |_| Misbehaviour::status(500, "oops"),
        |step| match step {
            "slack" => (0, "settled", Some(IN_DOUBT)),
            // To SMTP this is a refusal.
            "mail" => (0, "failed", Some("rejected")),
            _ => DONE,
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_lost_on_its_way_is_sent_again_where_that_can_be_told() {
    let expected = |step: &str| if is_message(step) { (0, "settled", Some(IN_DOUBT)) } else { DONE };
    check(|_| Misbehaviour::DropBefore, expected).await;
}

/// What is left when the request arrived and its answer did not.
fn answer_lost(step: &str) -> End {
    match step {
        // Sessions cannot be read back, and ending them twice is the same as once.
        "sessions" => (2, "succeeded", None),
        step if is_message(step) => (1, "settled", Some(IN_DOUBT)),
        _ => FOUND,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_answer_was_lost_is_found_done_and_not_sent_again() {
    check(|_| Misbehaviour::DropAfter, answer_lost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_never_answered_is_found_done_and_not_sent_again() {
    let hold = Hold::new();
    check(|_| Misbehaviour::Hold(hold.clone()), answer_lost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_leaves_no_more_doubt_than_it_has_to() {
    check(
        |_| Misbehaviour::TruncateBody,
        |step| match step {
            // Okta's answer to a change has no body that could break off.
            "add" | "remove" | "unassign" | "sessions" => DONE,
            step => answer_lost(step),
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_proxy_is_never_taken_for_a_success() {
    check(
        |step| if step == "mail" { Misbehaviour::status(451, "later") } else { Misbehaviour::Html },
        |step| if step == "slack" { (0, "settled", Some(IN_DOUBT)) } else { DONE },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_connected_to_waits_and_is_done_once_when_the_address_is_mended() {
    let every = Every::new(&["incident", "slack", "mail"], "").await;
    let right = std::fs::read_to_string(every.scene.config()).unwrap();
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let there = format!("http://127.0.0.1:{nobody}");
    every.scene.edit(&every.scene.org.servicenow_url(), &there);
    every.scene.edit(&every.scene.org.slack_api_url(), &there);
    every.scene.edit(&format!("port = {}", every.scene.org.smtp_port()), &format!("port = {nobody}"));
    every.push();
    let daemon = every.scene.daemon();
    let ledger = Ledger::of(&every.scene).await;
    let tried = ledger.wait_until(|actions| actions.iter().filter(|action| action.attempts > 1).count() == 3).await;
    assert!(tried.iter().all(|action| action.reason.as_deref() == Some("connect")), "{}", told(&tried));
    std::fs::write(every.scene.config(), right).unwrap();
    daemon.signal("HUP");
    for action in ledger.at_rest(1).await {
        assert_eq!((every.effects(&action.step).len(), action.state.as_str()), (1, "succeeded"), "{}", action.step);
    }
    assert!(daemon.stop().success());
}

/// What becomes of a message whose request or answer is lost, for each `in_doubt`.
async fn check_doubt(what: Misbehaviour, in_doubt: &str, effects: usize, state: &str) -> (Every, Ledger) {
    let every = Every::new(&["slack", "mail"], &format!("in_doubt = \"{in_doubt}\"")).await;
    every.scene.org.fault(every.fault("slack", what.clone()));
    every.scene.org.fault(every.fault("mail", what));
    every.push();
    let daemon = every.scene.daemon();
    let ledger = Ledger::of(&every.scene).await;
    for action in ledger.at_rest(1).await {
        let got = (every.effects(&action.step).len(), action.state.as_str());
        assert_eq!(got, (effects, state), "{in_doubt}, {}", action.step);
    }
    assert!(daemon.stop().success());
    (every, ledger)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_doubt_is_left_sent_again_or_asked_about_as_its_step_says() {
    check_doubt(Misbehaviour::DropBefore, "skip", 0, "settled").await;
    check_doubt(Misbehaviour::DropBefore, "resend", 1, "succeeded").await;
    check_doubt(Misbehaviour::DropAfter, "resend", 2, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_is_asked_about_he_can_settle_or_try_again() {
    let (every, ledger) = check_doubt(Misbehaviour::DropBefore, "ask", 0, "needs_attention").await;
    ledger.change(&every.scene, "slack", PersonChange::Retry).await;
    ledger.change(&every.scene, "mail", PersonChange::Settle).await;
    let daemon = every.scene.daemon();
    ledger.wait_for("slack", "succeeded").await;
    ledger.wait_for("mail", "settled").await;
    assert_eq!((every.effects("slack").len(), every.effects("mail").len()), (1, 0));
    assert!(daemon.stop().success());
}

const IMPATIENT: &str = "[poll]\nstart_from = \"1h\"\n[dispatch]\nretry_initial = \"100ms\"\ngive_up_after = \"1s\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_too_long_is_given_up_until_a_person_wants_it_again() {
    let every = Every::with(IMPATIENT, &["add", "incident", "slack", "mail"], "").await;
    for step in ["incident", "slack"] {
        every.scene.org.fault(every.fault(step, Misbehaviour::status(503, "")).always());
    }
    every.scene.org.fault(every.fault("mail", Misbehaviour::status(451, "no")).always());
    // Lost each time: it is known that nothing was done, and still there has to be an end.
    every.scene.org.fault(every.fault("add", Misbehaviour::DropBefore).always());
    every.push();
    let daemon = every.scene.daemon();
    let ledger = Ledger::of(&every.scene).await;
    for action in ledger.at_rest(1).await {
        let told = action.error.as_deref().unwrap_or_default();
        assert_eq!(action.state, "failed", "{}: {told}", action.step);
        assert!(told.starts_with("given up after 1s and "), "{}: {told}", action.step);
        assert_eq!(every.effects(&action.step).len(), 0);
    }
    every.scene.org.clear_faults();
    for step in ["add", "incident", "slack", "mail"] {
        ledger.change(&every.scene, step, PersonChange::Retry).await;
    }
    for step in ["add", "incident", "slack", "mail"] {
        ledger.wait_for(step, "succeeded").await;
        assert_eq!(every.effects(step).len(), 1, "{step}");
    }
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_takes_back_is_not_tried_any_more() {
    let every = Every::new(&["add", "slack"], "").await;
    every.scene.org.fault(every.fault("add", Misbehaviour::status(503, "")).always());
    every.push();
    let daemon = every.scene.daemon();
    let ledger = Ledger::of(&every.scene).await;
    ledger.wait_for("add", "retry").await;
    ledger.wait_for("slack", "succeeded").await;
    // Between two attempts; an attempt under way cannot be taken back.
    eventually(async || {
        let action = ledger.step("add").await;
        let id = ActionId(action.id);
        let change = ledger.store.change_by_person(id, PersonChange::Cancel, every.scene.org.now());
        change.await.map_err(|error| error.to_string())
    })
    .await;
    every.scene.org.clear_faults();
    // A second event goes all the way, so the first one had its chance.
    let bob = every.scene.org.add_user(User::new("Bob", "Jones"));
    every.scene.org.push_event(events::sign_in(&bob, "HIGH"));
    ledger.wait_until(|actions| actions.iter().filter(|action| action.state == "succeeded").count() == 3).await;
    assert_eq!(every.effects("add").len(), 1);
    assert!(!every.scene.org.is_member(&every.high, &every.user.id));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubt_waits_until_the_service_can_be_asked() {
    let every = Every::new(&["incident"], "").await;
    every.scene.org.fault(every.fault("incident", Misbehaviour::DropAfter));
    // The first look-up is the one before creating.
    let look_ups = Fault::new(Service::ServiceNow, Misbehaviour::status(503, "")).method("GET").path("/table/");
    every.scene.org.fault(look_ups.clone().sparing(1).times(1));
    every.push();
    let daemon = every.scene.daemon();
    let ledger = Ledger::of(&every.scene).await;
    let actions = ledger.at_rest(1).await;
    assert_eq!((actions[0].state.as_str(), every.effects("incident").len()), ("settled", 1));
    assert_eq!(actions[0].receipt.as_ref().unwrap()["number"], every.scene.org.incidents()[0]["number"]);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_the_answer_of_what_is_under_way() {
    let every = Every::new(&["slack"], "").await;
    let hold = Hold::new();
    every.scene.org.fault(every.fault("slack", Misbehaviour::Hold(hold.clone())));
    every.scene.edit("timeout = \"2s\"", "timeout = \"60s\"");
    every.push();
    let mut daemon = every.scene.daemon();
    let ledger = Ledger::of(&every.scene).await;
    hold.held(BOUND).await.unwrap();
    daemon.signal("TERM");
    daemon.wait_for_log("waiting for requests under way");
    hold.release();
    assert!(daemon.wait().success());
    let action = ledger.step("slack").await;
    assert_eq!((action.state.as_str(), every.effects("slack").len()), ("succeeded", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_does_not_get_its_answer_leaves_a_doubt_for_the_next_start() {
    let every = Every::with(&format!("{FAST}drain = \"100ms\"\n"), &["add"], "").await;
    let hold = Hold::new();
    every.scene.org.fault(every.fault("add", Misbehaviour::Hold(hold.clone())));
    every.scene.edit("timeout = \"2s\"", "timeout = \"60s\"");
    every.push();
    let daemon = every.scene.daemon();
    let ledger = Ledger::of(&every.scene).await;
    hold.held(BOUND).await.unwrap();
    assert!(daemon.stop().success());
    assert_eq!(ledger.step("add").await.state, "started");
    let daemon = every.scene.daemon();
    ledger.wait_for("add", "settled").await;
    assert_eq!(every.effects("add").len(), 1);
    assert!(daemon.stop().success());
    hold.release();
}
