//! The state file against a plain model: whatever happens in whatever order, both hold the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod bench;
mod commands;
mod ledger;

use bench::Bench;
use commands::{Command, Pick, Policy, Prepare, Run, Step, Told};
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

/// Its attempts were numbered from the beginning again, which no claim survived: the daemon could not start any more.
#[test]
fn an_action_that_the_guard_refused_between_two_attempts_and_a_person_wants_is_attempted_again() {
    let step = Step {
        kind: commands::KINDS[0],
        lane: None,
        in_doubt: InDoubt::Ask,
        after: 0,
        wait: None,
        begins: Some(Happening::Prepared),
    };
    let run = Run { playbook: commands::PLAYBOOKS[0], observe: false, steps: vec![step] };
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
