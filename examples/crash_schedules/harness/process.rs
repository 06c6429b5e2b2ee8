//! The program as processes: the daemon, and commands beside it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use okta_responder::halt::HALT_AT;

/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(4);

/// What is started as the daemon and its commands.
#[derive(Debug, Clone)]
pub struct Program {
    /// The file.
    pub file: PathBuf,
    /// What stands before the daemon's own arguments.
    pub before: Vec<String>,
}

/// A running daemon; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: File,
}

impl Program {
    /// Starts the daemon. What it logs is added to the file `log`.
    pub fn start(&self, config: &Path, log: &Path, halt: Option<&str>) -> io::Result<Daemon> {
        let writer = OpenOptions::new().create(true).append(true).open(log)?;
        let mut reader = File::open(log)?;
        reader.seek(SeekFrom::End(0))?;
        let mut command = self.command(config);
        command.arg("run").stdout(Stdio::null()).stderr(writer);
        if let Some(halt) = halt {
            command.env(HALT_AT, halt);
        }
        Ok(Daemon { child: command.spawn()?, log: reader })
    }

    /// Runs a command to its end, off the runtime.
    pub async fn run(&self, config: &Path, arguments: &[&str]) -> io::Result<Output> {
        let mut command = self.command(config);
        command.args(arguments);
        tokio::task::spawn_blocking(move || command.output()).await.map_err(io::Error::other)?
    }

    fn command(&self, config: &Path) -> Command {
        let mut command = Command::new(&self.file);
        command.args(&self.before).arg("--config").arg(config).stdin(Stdio::null());
        for foreign in ["OKTA_RESPONDER_CONFIG", "OKTA_RESPONDER_LOG", "NOTIFY_SOCKET", "STATE_DIRECTORY", HALT_AT] {
            command.env_remove(foreign);
        }
        command
    }
}

impl Daemon {
    /// Waits until it has halted, at most so long. Says whether it did.
    pub async fn halts_within(&mut self, at_most: Duration) -> io::Result<bool> {
        let until = now() + at_most;
        let mut text = String::new();
        loop {
            self.log.read_to_string(&mut text)?;
            if text.contains("halted at ") {
                return Ok(true);
            }
            if now() >= until || self.child.try_wait()?.is_some() {
                return Ok(false);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until it watches for signals; before that, the first one would end it. Says whether it does, in the time.
    pub async fn watches_signals_within(&mut self, at_most: Duration) -> io::Result<bool> {
        let until = now() + at_most;
        loop {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
            // The lowest bit is SIGHUP.
            if caught & 1 == 1 {
                return Ok(true);
            }
            if now() >= until || self.child.try_wait()?.is_some() {
                return Ok(false);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Sends a signal by its name, such as `HUP`.
    pub fn signal(&self, name: &str) -> io::Result<()> {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status()?;
        if sent.success() { Ok(()) } else { Err(io::Error::other(format!("SIG{name} could not be sent"))) }
    }

    /// Kills it as `kill -9` does. Says how it had ended if it had done so by itself.
    pub fn kill(mut self) -> io::Result<Option<ExitStatus>> {
        let before = self.child.try_wait()?;
        self.child.kill()?;
        self.child.wait()?;
        Ok(before)
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end, at most so long.
    pub async fn ends_within(&mut self, at_most: Duration) -> io::Result<Option<ExitStatus>> {
        let until = now() + at_most;
        loop {
            let ended = self.child.try_wait()?;
            if ended.is_some() || now() >= until {
                return Ok(ended);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that is gone already is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The clock that waits are bounded by.
pub fn now() -> Instant {
    Instant::now()
}
