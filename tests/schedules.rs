//! A short run of crash schedules: the same as `cargo run --example crash_schedules`, with seeds that stay.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

#[path = "../examples/crash_schedules/harness/mod.rs"]
mod harness;

use harness::{Program, Run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_it_does_each_thing_once_or_shows_the_doubt() {
    let directory = std::env::temp_dir().join(format!("okta-responder-schedules-{}", std::process::id()));
    let program = Program { file: env!("CARGO_BIN_EXE_okta-responder").into(), before: Vec::new() };
    let run = Run { program, seed: 20, numbers: (0..25).collect(), jobs: 5, directory: directory.clone() };
    let mut failed = String::new();
    let sum = harness::play_all(run, |played| {
        for violation in &played.violations {
            failed += &format!(
                "schedule {} ({}): {:?}: {}\n",
                played.number,
                played.directory.display(),
                violation.kind,
                violation.words
            );
        }
    })
    .await;
    assert!(failed.is_empty(), "{failed}{sum}");
    assert!(sum.kills() > 25 && sum.called_for > 50 && sum.seen > 50, "the schedules do not bite any more:\n{sum}");
    std::fs::remove_dir(directory).unwrap();
}
