//! Limits of a running process, set from outside.

use std::process::Command;

/// A soft limit that was set; lifted by hand, so that a test says when.
pub struct Limit {
    pid: u32,
    what: &'static str,
    before: String,
}

impl Limit {
    /// Sets it, such as `fsize` to 0; `None`, told loudly, where there is no `prlimit` (util-linux).
    pub fn set(pid: u32, what: &'static str, soft: u64) -> Option<Self> {
        let asked = prlimit(pid, &[&format!("--{what}"), "--output", "SOFT", "--noheadings", "--raw"]);
        let Some(before) = asked else {
            eprintln!("NOT TESTED: there is no prlimit here, so `{what}` of a running process cannot be limited");
            return None;
        };
        prlimit(pid, &[&format!("--{what}={soft}:")]).unwrap();
        Some(Self { pid, what, before })
    }

    /// Sets back what was before.
    pub fn lift(self) {
        prlimit(self.pid, &[&format!("--{}={}:", self.what, self.before)]).unwrap();
    }
}

fn prlimit(pid: u32, arguments: &[&str]) -> Option<String> {
    let output = Command::new("prlimit").arg("--pid").arg(pid.to_string()).args(arguments).output().ok()?;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "prlimit {arguments:?}: {told}");
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}
