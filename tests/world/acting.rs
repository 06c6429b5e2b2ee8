//! Requests that change something, and the doubts that they leave.

use std::time::Duration;

use jiff::SignedDuration;
use okta_responder::demo::org::{Fault, Misbehaviour, Service, User, events};
use okta_responder::model::ids::ActionId;
use okta_responder::store::PersonChange;

use super::support::every::{Every, FAST, STEPS};
use super::support::ledger::{Ledger, told};

/// What is left of a step in the end: how many effects, and in which state.
type End = (usize, &'static str);

fn every_step() -> Vec<&'static str> {
    STEPS.iter().map(|(step, _)| *step).collect()
}

fn is_message(step: &str) -> bool {
    matches!(step, "slack" | "mail")
}

/// Lets so many changing requests of these steps meet a fault. Returns what the daemon has logged in the end.
async fn check(
    steps: &[&str],
    times: u32,
    what: impl Fn(&str) -> Misbehaviour,
    expected: impl Fn(&str) -> End,
) -> String {
    let every = Every::new(steps, "").await;
    for step in steps {
        every.scene.org.fault(every.fault(step, what(step)).times(times));
    }
    every.push();
    let daemon = every.scene.daemon();
    let ledger = Ledger::of(&every.scene).await;
    let actions = ledger.at_rest(1).await;
    assert_eq!(actions.len(), steps.len());
    for action in &actions {
        let got = (every.effects(&action.step).len(), action.state.as_str());
        assert_eq!(got, expected(&action.step), "{}: {}\n{}", action.step, told(&actions), daemon.log());
    }
    let log = daemon.log();
    assert!(daemon.stop().success());
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_lost_is_sent_again_where_it_can_be_known() {
    let end = |step: &str| if is_message(step) { (0, "settled") } else { (1, "succeeded") };
    check(&every_step(), 1, |_| Misbehaviour::DropBefore, end).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_trickles_in_is_given_up_and_read_back() {
    let end = |step: &str| match step {
        // Okta has said that it is done; there is nothing more to read.
        "add" | "remove" | "unassign" | "sessions" => (1, "succeeded"),
        _ => (1, "settled"),
    };
    check(&every_step(), 1, |_| Misbehaviour::Drip, end).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_refusals_is_told_once_and_each_effect_comes_once() {
    let steps = ["add", "incident", "slack"];
    let log =
        check(&steps, 4, |_| Misbehaviour::RateLimited { reset_in: Duration::from_secs(1) }, |_| (1, "succeeded"))
            .await;
    assert_eq!(log.matches("did not succeed yet").count(), steps.len(), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_is_refused_is_waited_for_and_told_once() {
    let steps = ["add", "incident"];
    let log = check(&steps, 4, |_| Misbehaviour::status(401, "{}"), |_| (1, "succeeded")).await;
    assert_eq!(log.matches("did not succeed yet").count(), steps.len(), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_carries_no_credential_away() {
    let trap = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", trap.local_addr().unwrap());
    let steps: Vec<_> = every_step().into_iter().filter(|step| *step != "mail").collect();
    let log = check(&steps, 1, |_| Misbehaviour::Redirect(url.clone()), |_| (0, "failed")).await;
    assert!(!log.contains(&url), "{log}");
    let visit = tokio::time::timeout(Duration::from_millis(1), trap.accept()).await;
    assert!(visit.is_err(), "somebody followed");
}

/// A doubt about an incident whose look-ups never succeed any more.
async fn doubtful(settings: &str) -> Every {
    let every = Every::with(settings, &["incident"], "").await;
    every.scene.org.fault(every.fault("incident", Misbehaviour::DropAfter));
    // The first look-up is the one before creating.
    let look_ups = Fault::new(Service::ServiceNow, Misbehaviour::status(503, "")).method("GET").path("/table/");
    every.scene.org.fault(look_ups.sparing(1).always());
    every.push();
    every
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubt_that_can_never_be_read_back_is_left_to_a_person() {
    let every = doubtful(&format!("{FAST}give_up_after = \"10s\"\n")).await;
    let daemon = every.scene.daemon();
    let ledger = Ledger::of(&every.scene).await;
    let action = ledger.wait_for("incident", "needs_attention").await;
    let why = action.error.unwrap();
    assert!(why.starts_with("whether it was done could not be read back for 10s") && why.contains("503"), "{why}");
    let log = daemon.log();
    assert_eq!(log.matches("an unknown attempt stays unknown").count(), 1, "{log}");
    assert_eq!(log.matches("needs attention").count(), 1, "{log}");
    // The person's word is followed, and what is there is found.
    every.scene.org.clear_faults();
    ledger.store.change_by_person(ActionId(action.id), PersonChange::Retry, every.scene.org.now()).await.unwrap();
    ledger.wait_for("incident", "succeeded").await;
    assert_eq!(every.effects("incident").len(), 1);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_was_taken_out_of_the_configuration_is_told_once() {
    let settings = format!("{FAST}give_up_after = \"6s\"\n");
    let every = doubtful(&settings).await;
    let daemon = every.scene.daemon();
    let ledger = Ledger::of(&every.scene).await;
    ledger.wait_for("incident", "unknown").await;
    assert!(daemon.stop().success());
    let text = std::fs::read_to_string(every.scene.config()).unwrap();
    let (before, rest) = text.split_once("[servicenow]").unwrap();
    let slack = &rest[rest.find("[slack]").unwrap()..rest.find("[[playbook]]").unwrap()];
    let playbook = "[[playbook]]\nname = \"other\"\non = [\"user.session.start\"]\n[[playbook.step]]\nname = \"add\"\n\
                    action = \"okta.group.add_user\"\nwith = { group = \"High Risk Users\" }\n";
    std::fs::write(every.scene.config(), format!("{before}{slack}{playbook}")).unwrap();
    let daemon = every.scene.daemon();
    let action = ledger.wait_for("incident", "needs_attention").await;
    let why = action.error.unwrap();
    assert!(why.contains("is not configured (any more)"), "{why}");
    assert_eq!(daemon.log().matches("an unknown attempt stays unknown").count(), 1, "{}", daemon.log());
    // Everything else goes on.
    let bob = every.scene.org.add_user(User::new("Bob", "Jones"));
    every.scene.org.push_event(events::sign_in(&bob, "HIGH"));
    ledger.wait_for("add", "succeeded").await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_off_by_a_clock_that_ran_ahead_is_done_when_it_is_right_again() {
    let every = Every::new(&["add"], "").await;
    every.scene.org.fault(every.fault("add", Misbehaviour::status(403, "")));
    every.push();
    let daemon = every.scene.daemon();
    let ledger = Ledger::of(&every.scene).await;
    let failed = ledger.wait_for("add", "failed").await;
    assert!(daemon.stop().success());
    // Written by a command whose clock is a year ahead.
    let ahead = every.scene.org.now() + SignedDuration::from_hours(365 * 24);
    ledger.store.change_by_person(ActionId(failed.id), PersonChange::Retry, ahead).await.unwrap();
    let daemon = every.scene.daemon();
    ledger.wait_for("add", "succeeded").await;
    assert!(daemon.log().contains("what a clock that ran ahead had put off is due now"), "{}", daemon.log());
    assert_eq!(every.effects("add").len(), 1);
    assert!(daemon.stop().success());
}
