//! The state file against a plain model: whatever happens in whatever order, both hold the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod bench;
mod commands;
mod ledger;

use bench::Bench;
use commands::{Command, End, Pick, Policy, Prepare, Run, Step, Told, Verdict};
use okta_responder::model::action::{Happening, InDoubt};
use okta_responder::store::PersonChange;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;

/// Cases of a run that nobody asked to be longer (`PROPTEST_CASES`).
const CASES: u32 = 128;

fn config() -> Config {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let cases = if asked { Config::default().cases } else { CASES };
    Config { cases, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() }
}

fn check(beginning: &[Vec<Run>], commands: &[Command]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut bench = Bench::new().await;
        bench.begin_with(beginning).await;
        for command in commands {
            bench.run(command).await;
            bench.compare().await;
        }
        bench.reopen(true).await;
        bench.compare().await;
    });
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn the_state_file_holds_what_a_plain_model_holds(
        beginning in commands::beginning(),
        commands in vec(commands::command(), 1..100),
    ) {
        check(&beginning, &commands);
    }
}

/// A step that is ready as soon as it is planned.
fn ready(lane: Option<&'static str>) -> Step {
    let (kind, in_doubt, begins) = (commands::KINDS[0], InDoubt::Ask, Some(Happening::Prepared));
    Step { kind, lane, in_doubt, after: 0, wait: None, delay: None, begins }
}

fn run(steps: Vec<Step>) -> Run {
    Run { playbook: commands::PLAYBOOKS[0], observe: false, steps }
}

#[test]
fn an_earlier_action_that_a_person_wants_waits_for_the_later_one_that_is_under_way_on_its_lane() {
    let (pick, late, pause) = (Pick::first(), false, 0);
    let sequence = [
        Command::Claim { most: 1 },
        Command::End { pick, end: End::Permanent, pause },
        Command::Claim { most: 1 },
        Command::Person { pick, late, change: PersonChange::Retry },
        Command::Claim { most: 2 },
        Command::End { pick, end: End::Done, pause },
        Command::Claim { most: 2 },
    ];
    check(&[vec![run(vec![ready(Some("one")), ready(Some("one"))])]], &sequence);
}

#[test]
fn an_event_that_a_backfill_observed_stays_its_own_while_or_after_something_is_done_for_it() {
    let (pick, late, events) = (Pick::first(), false, || vec![0]);
    let page = |stream| Command::Page { stream, events: events(), stale: false, last: false };
    let sequence = [
        Command::BeginBackfill { execute: false },
        page(Pick::second()),
        Command::Decide { pick, late, verdict: Verdict::Decided(vec![run(vec![ready(None)])]) },
        page(Pick::first()),
        Command::Claim { most: 1 },
        page(Pick::first()),
        Command::End { pick, end: End::Done, pause: 0 },
        page(Pick::first()),
    ];
    check(&[], &sequence);
}

/// Its attempts were numbered from the beginning again, which no claim survived: the daemon could not start any more.
#[test]
fn an_action_that_the_guard_refused_between_two_attempts_and_a_person_wants_is_attempted_again() {
    let run = run(vec![ready(None)]);
    let (pick, late) = (Pick::first(), false);
    let claim = || Command::Claim { most: 1 };
    let sequence = [
        claim(),
        Command::Reopen { killed: true },
        Command::ReadBack { pick, late, about: None, told: Told::NotDone, pause: 0 },
        Command::Guard(Policy { protect: true, ..Policy::default() }),
        claim(),
        Command::Person { pick, late, change: PersonChange::Retry },
        Command::Prepare { pick, late, result: Prepare::Ends(Happening::Prepared) },
        Command::Guard(Policy::default()),
        claim(),
    ];
    check(&[vec![run]], &sequence);
}
