//! One daemon per state file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Held for as long as a process works on a state file; the kernel gives it back even after a kill.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
}

/// Why the lock could not be had.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{} is in use by {holder}; stop it first, or use another state file", state.display())]
    Held {
        /// The state file.
        state: PathBuf,
        /// Who holds it, in words.
        holder: String,
    },
    /// The lock file cannot be used.
    #[error("the lock file {} could not be used; its directory must exist and belong to the daemon's user", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl InstanceLock {
    /// Takes the lock of a state file, or says who holds it. `purpose` is what this process does, for the next one's message.
    pub fn take(state: &Path, purpose: &str) -> Result<Self, LockError> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut path = state.to_owned().into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        let broken = |source| LockError::Io { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(broken)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = (&file).take(200).read_to_string(&mut holder);
                let holder = holder.trim();
                let holder = if holder.is_empty() { "another process" } else { holder }.to_owned();
                return Err(LockError::Held { state: state.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(broken(source)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(broken)?;
        write!(file, "process {} (okta-responder {purpose})", std::process::id()).map_err(broken)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_learns_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state.db");
        let first = InstanceLock::take(&state, "run").unwrap();
        let refused = InstanceLock::take(&state, "run").unwrap_err().to_string();
        assert!(refused.contains(&format!("process {} (okta-responder run)", std::process::id())), "{refused}");
        drop(first);
        InstanceLock::take(&state, "backfill").unwrap();
    }
}
