//! One daemon per state file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The length of the line that says what troubles the holder. It is written with the lock, so that there is room for it when
/// the disk is full.
const NOTE: usize = 300;
/// How often a lock that is held is asked for again at once.
const TRIES: u32 = 1000;

/// Held for as long as a process works on a state file; the kernel gives it back even after a kill.
#[derive(Debug)]
pub struct InstanceLock {
    file: File,
    /// Where the note begins in the lock file.
    note_at: u64,
}

/// Who works on a state file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process, in words.
    pub name: String,
    /// What keeps it from working, in words. The state file itself could not tell this when it cannot be written.
    pub trouble: Option<String>,
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
        let path = path_of(state);
        let broken = |source| LockError::Io { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(broken)?;
        // [`InstanceLock::holder`] has the lock for a moment only, which must keep nobody from starting.
        let mut tries = TRIES;
        while let Err(error) = file.try_lock() {
            match error {
                TryLockError::WouldBlock if tries > 0 => tries -= 1,
                TryLockError::WouldBlock => {
                    return Err(LockError::Held { state: state.to_owned(), holder: told_by(&file).name });
                }
                TryLockError::Error(source) => return Err(broken(source)),
            }
            std::thread::yield_now();
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(broken)?;
        let name = format!("process {} (okta-responder {purpose})\n", std::process::id());
        file.write_all(format!("{name}{:NOTE$}", "").as_bytes()).map_err(broken)?;
        Ok(Self { file, note_at: name.len() as u64 })
    }

    /// Lets others know what keeps this process from working; `None` when nothing does any more.
    ///
    /// # Errors
    /// When the lock file cannot be written, which is no harm: others just do not learn it.
    pub fn note(&self, trouble: Option<&str>) -> std::io::Result<()> {
        let mut line = trouble.unwrap_or_default().replace('\n', " ");
        while line.len() > NOTE {
            line.pop();
        }
        self.file.write_all_at(format!("{line:NOTE$}").as_bytes(), self.note_at)
    }

    /// Who works on a state file now; `None` when nobody does. Nothing is taken, made or written.
    pub fn holder(state: &Path) -> Result<Option<Holder>, LockError> {
        let path = path_of(state);
        let broken = |source| LockError::Io { path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(broken(error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(told_by(&file))),
            Err(TryLockError::Error(source)) => Err(broken(source)),
        }
    }
}

fn path_of(state: &Path) -> PathBuf {
    let mut path = state.to_owned().into_os_string();
    path.push(".lock");
    PathBuf::from(path)
}

/// What the holder wrote about itself.
fn told_by(mut file: &File) -> Holder {
    let mut told = String::new();
    let read = file.rewind().and_then(|()| file.take(1024).read_to_string(&mut told));
    let mut lines = told.lines().map(str::trim);
    let name = lines.next().filter(|name| read.is_ok() && !name.is_empty()).unwrap_or("another process").to_owned();
    let trouble = lines.next().filter(|trouble| !trouble.is_empty()).map(str::to_owned);
    Holder { name, trouble }
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
        let looked_at = InstanceLock::holder(&state).unwrap().unwrap();
        assert!(looked_at.name.contains("okta-responder run"), "{looked_at:?}");
        assert_eq!(looked_at.trouble, None);
        first.note(Some(&"the disk is full\n".repeat(100))).unwrap();
        let trouble = InstanceLock::holder(&state).unwrap().unwrap().trouble.unwrap();
        assert!(trouble.starts_with("the disk is full the disk"), "{trouble}");
        first.note(None).unwrap();
        assert_eq!(InstanceLock::holder(&state).unwrap().unwrap().trouble, None);
        drop(first);
        InstanceLock::take(&state, "backfill").unwrap();
    }

    #[test]
    fn looking_leaves_nothing_and_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state.db");
        assert_eq!(InstanceLock::holder(&state).unwrap(), None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        drop(InstanceLock::take(&state, "run").unwrap());
        assert_eq!(InstanceLock::holder(&state).unwrap(), None);
        InstanceLock::take(&state, "run").unwrap();
    }
}
