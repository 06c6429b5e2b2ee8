//! What attackers and broken services can send: none of it stops the daemon, holds up others or hides an event.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use std::time::Duration;

use okta_responder::demo::org::{Fault, Misbehaviour, Service, User, events};
use support::every::{Every, FAST};
use support::ledger::Ledger;

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_answer_never_delays_what_goes_to_another() {
    let settings = format!("{FAST}concurrency = 1\n");
    let every = Every::with(&settings, &["incident", "add"], "").await;
    every.scene.edit("timeout = \"2s\"\n\n[slack]", "timeout = \"5m\"\n\n[slack]");
    every.scene.org.fault(every.fault("incident", Misbehaviour::Delay(Duration::from_secs(240))).always());
    every.push();
    let _daemon = every.scene.daemon();
    let ledger = Ledger::of(&every.scene).await;
    ledger.wait_for("add", "succeeded").await;
    ledger.wait_for("incident", "started").await;
    assert!(every.scene.org.is_member(&every.high, &every.user.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_events_about_one_user_does_not_hold_up_another_user() {
    let every = Every::new(&["add"], "").await;
    let other = every.scene.org.add_user(User::new("Bob", "Miller"));
    // Each of them asks Okta for the user, one after another, and Okta is slow.
    every.scene.edit("name = \"add\"", "name = \"add\"\nwhen = 'user.status == \"ACTIVE\"'");
    let slow = Fault::new(Service::Okta, Misbehaviour::Delay(Duration::from_millis(500)));
    every.scene.org.fault(slow.method("GET").path(&every.user.id).always());
    let mut flood: Vec<_> = (0..600).map(|_| events::sign_in(&every.user, "HIGH")).collect();
    flood.push(events::sign_in(&other, "HIGH"));
    every.scene.org.push_events(flood);
    let _daemon = every.scene.daemon();
    let ledger = Ledger::of(&every.scene).await;
    ledger.wait_until(|actions| actions.iter().any(|action| action.user.as_deref() == Some(&other.id))).await;
    let decided = ledger.events().await.iter().filter(|event| event.state == "decided").count();
    assert!(decided < 100, "{decided} events of the flood came first");
}
