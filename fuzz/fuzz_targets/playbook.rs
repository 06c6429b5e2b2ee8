//! A configuration file: everything that is wrong with it is told, and no secret shows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use okta_responder::config::load::load;

/// The most problems that are told; a person reads them.
const MAX_PROBLEMS: usize = 10_000;

fuzz_target!(|text: &str| {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = directory.path().join("config.toml");
    // What follows the file's own text is a secret that was written where none belongs.
    std::fs::write(&file, format!("{text}\n[slack]\nwebhook_url = \"https://hooks.slack.com/hunter2\"\n")).unwrap();
    let Err(problems) = load(&file) else { panic!("a secret in the file is always a problem") };
    assert!(!problems.is_empty() && problems.len() <= MAX_PROBLEMS);
    if !text.contains("hunter2") {
        for problem in &problems {
            assert!(!problem.to_string().contains("hunter2") && !problem.to_json().contains("hunter2"), "{problem}");
        }
    }
    std::fs::write(&file, text).unwrap();
    let _ = load(&file);
});
