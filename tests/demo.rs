//! The demo is the real program, run as anybody would run it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

fn demo(scratch: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_okta-responder"));
    command.arg("demo").args(arguments).env("TMPDIR", scratch).env("OKTA_RESPONDER_CONFIG", "/nonexistent/config.toml");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn is_empty(directory: &Path) -> bool {
    directory.read_dir().unwrap().next().is_none()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn terminate(child: &Child) {
    let sent = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
    assert!(sent.success());
}

#[test]
fn every_flow_of_the_incident_happens_exactly_once() {
    let scratch = tempfile::tempdir().unwrap();
    let output = demo(scratch.path(), &["--format", "json"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let mut lines = lines(&output);

    let summary = lines.pop().unwrap();
    let keys: BTreeSet<&str> = summary.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = ["actions", "duplicate_effects", "effects", "events", "lost_events", "runs", "seconds"];
    assert_eq!(keys, BTreeSet::from(expected));
    assert_eq!((&summary["duplicate_effects"], &summary["lost_events"]), (&json!(0), &json!(0)));
    assert_eq!((&summary["events"], &summary["runs"], &summary["effects"]), (&json!(13), &json!(16), &json!(28)));
    // Dan's app, which a group grants, is the one failure, and Gia's incident the one that had to be looked up.
    assert_eq!((&summary["actions"]["failed"], &summary["actions"]["settled"]), (&json!(1), &json!(1)));

    let of_kind = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).collect::<Vec<_>>();
    let playbooks: BTreeSet<&str> = of_kind("flow").iter().map(|flow| flow["playbook"].as_str().unwrap()).collect();
    for playbook in [
        "user-risk-changed",
        "high-risk-app-assigned",
        "high-risk-app-review",
        "access-review-ended",
        "high-risk-sign-in",
    ] {
        assert!(playbooks.contains(playbook), "{playbooks:?}");
    }
    assert!(playbooks.iter().any(|name| name.starts_with("revert of run ")), "{playbooks:?}");

    let mut effects: BTreeMap<&str, usize> = BTreeMap::new();
    let mut keys = BTreeSet::new();
    for effect in of_kind("effect") {
        *effects.entry(effect["effect"].as_str().unwrap()).or_default() += 1;
        // An incident is resolved under the key that it was opened with.
        let key = effect["key"].as_str().map(|key| (effect["effect"].as_str(), key));
        assert!(key.is_none_or(|key| keys.insert(key)), "twice: {effect}");
    }
    let expected = [
        ("app.unassign", 1),
        ("group.add", 3),
        ("group.remove", 2),
        ("incident.create", 4),
        ("incident.update", 1),
        ("mail", 3),
        ("review.start", 1),
        ("sessions.clear", 1),
        ("slack.post", 12),
    ];
    assert_eq!(effects, BTreeMap::from(expected));

    let states: Vec<&str> = of_kind("daemon").iter().filter_map(|line| line["state"].as_str()).collect();
    for state in ["started", "killed", "skipped", "retry", "settled"] {
        assert!(states.contains(&state), "{state}: {states:?}");
    }
    assert_eq!(of_kind("event").len(), 13, "twelve events, one of them twice; the echo is Okta's own");
    assert!(is_empty(scratch.path()), "files are left");
}

#[test]
fn kept_it_runs_on_until_it_is_told_to_stop() {
    let scratch = tempfile::tempdir().unwrap();
    let mut child = demo(scratch.path(), &["--keep"]).spawn().unwrap();
    let mut guide = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = guide.find(|line| line.as_ref().is_ok_and(|line| line.contains("status --config"))).unwrap().unwrap();
    let config = Path::new(line.split_whitespace().last().unwrap());
    assert!(config.starts_with(scratch.path()) && config.exists(), "{line}");
    assert!(child.try_wait().unwrap().is_none());
    let mut status = Command::new(env!("CARGO_BIN_EXE_okta-responder"));
    let status = status.arg("status").arg("--config").arg(config).args(["--format", "json"]).output().unwrap();
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert!(status["daemon"].is_string(), "no daemon runs: {status}");
    terminate(&child);
    let mut story = String::new();
    child.stdout.take().unwrap().read_to_string(&mut story).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(story.contains("duplicates 0, lost 0"), "{story}");
    assert!(!story.contains('\u{1b}'), "colours are for terminals");
    assert!(is_empty(scratch.path()), "files are left");
}

#[test]
fn broken_off_it_leaves_nothing_behind() {
    let scratch = tempfile::tempdir().unwrap();
    let mut child = demo(scratch.path(), &["--format", "json"]).spawn().unwrap();
    let mut story = BufReader::new(child.stdout.take().unwrap()).lines();
    let started: Value = serde_json::from_str(&story.next().unwrap().unwrap()).unwrap();
    terminate(&child);
    // The pipe stays open for as long as any process holds it.
    story.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(is_empty(scratch.path()), "files are left");
    let daemon = started["pid"].as_u64().unwrap();
    let alive = Command::new("kill").args(["-0", &daemon.to_string()]).stderr(Stdio::null()).status().unwrap();
    assert!(!alive.success(), "the daemon is left");
}
