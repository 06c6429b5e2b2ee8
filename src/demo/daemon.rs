//! The daemon as a process of its own.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Lines of the daemon's log that are kept.
const KEPT: usize = 25;

/// Variables that would reach past the demo: another configuration, another log level, somebody else's service manager.
const FOREIGN: &[&str] = &[
    crate::config::load::FILE_VARIABLE,
    crate::telemetry::log::LEVEL_VARIABLE,
    "CREDENTIALS_DIRECTORY",
    "NOTIFY_SOCKET",
    "STATE_DIRECTORY",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Runs a command of the program to its end, as a person does beside the daemon.
pub(super) fn command(program: &Path, config: &Path, arguments: &[&str]) -> io::Result<Output> {
    let mut command = Command::new(program);
    command.arg("--config").arg(config).args(arguments).stdin(Stdio::null());
    for name in FOREIGN {
        command.env_remove(name);
    }
    command.output()
}

/// A running daemon; killed when dropped, which it is made for.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
}

/// The end of what daemons logged, one after the other.
#[derive(Debug, Clone, Default)]
pub(super) struct LogTail(Arc<Mutex<VecDeque<String>>>);

impl Daemon {
    /// Starts `program run` on a configuration.
    pub(super) fn start(program: &Path, config: &Path, log: &LogTail) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.arg("--config").arg(config).arg("run");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // Ctrl-C is for the demo, which then ends its daemon.
        command.process_group(0);
        for name in FOREIGN {
            command.env_remove(name);
        }
        let mut child = command.spawn()?;
        let stderr = child.stderr.take();
        let daemon = Self { child };
        if let Some(stderr) = stderr {
            let log = log.clone();
            std::thread::Builder::new().name("daemon-log".to_owned()).spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    log.add(line);
                }
            })?;
        }
        Ok(daemon)
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Kills it with SIGKILL, which leaves it no time for anything, and waits until it is gone.
    pub(super) fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A daemon that is gone already is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl LogTail {
    /// The last lines.
    pub(super) fn lines(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }

    fn add(&self, line: String) {
        let mut lines = self.lock();
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_the_log_is_kept() {
        let log = LogTail::default();
        for number in 0..=KEPT {
            log.add(number.to_string());
        }
        let lines = log.lines();
        assert_eq!((lines.len(), lines[0].as_str()), (KEPT, "1"));
    }
}
