//! The state file against a plain model: whatever happens in whatever order, both hold the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod bench;
mod commands;
mod ledger;

use bench::Bench;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;

/// Cases of a run that nobody asked to be longer (`PROPTEST_CASES`).
const CASES: u32 = 64;

fn config() -> Config {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let cases = if asked { Config::default().cases } else { CASES };
    Config { cases, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn the_state_file_holds_what_a_plain_model_holds(
        beginning in commands::beginning(),
        commands in vec(commands::command(), 1..100),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::new().await;
            bench.begin_with(&beginning).await;
            for command in &commands {
                bench.run(command).await;
                bench.compare().await;
            }
            bench.reopen(true).await;
            bench.compare().await;
        });
    }
}
