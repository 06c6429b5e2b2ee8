//! A copy of the state file, also while a daemon works on it.
//!
//! `VACUUM INTO` reads one snapshot in one transaction: the writer is not held up, and what it commits meanwhile is not in the
//! copy. SQLite's backup interface would begin again whenever another process commits, under load for ever. It also writes
//! the indexes anew, so that a damaged index does not get into a copy.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;
use thiserror::Error;

use super::file::{beside, give_name, remove_if_there};
use super::{StoreError, integrity, migrate, open_connection, open_reader, reserve};

/// How often it is told how far the copying is.
const TELL: Duration = Duration::from_millis(200);

/// A copy that is whole and on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Its size in bytes.
    pub bytes: u64,
}

/// How far the copying is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copying {
    /// So many bytes of about so many are written.
    Writing {
        /// Written.
        done: u64,
        /// What it will come to, about.
        of: u64,
    },
    /// The copy is being checked.
    Checking,
}

/// Why there is no copy. Whatever had its name before still has it.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The target is there.
    #[error("{} is there already; choose another name, or replace it with --force", .0.display())]
    Exists(PathBuf),
    /// The target is the state file.
    #[error("{} is the state file itself; choose another name", .0.display())]
    Itself(PathBuf),
    /// Another backup writes to the same target.
    #[error("another backup to {} is under way", .0.display())]
    UnderWay(PathBuf),
    /// The target cannot be written.
    #[error("the copy {} could not be written; its directory must exist, be writable and have room", target.display())]
    Target {
        /// The target.
        target: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The copy does not fit.
    #[error("there is no room for the copy {}, or the system refuses to write it; make room, or choose another place", .0.display())]
    NoRoom(PathBuf),
    /// The copy is not whole.
    #[error(
        "the copy is not whole ({0}), so it was not kept; `okta-responder check --state` tells whether the state file itself is \
         damaged"
    )]
    NotWhole(String),
    /// The state file cannot be read, or the copy cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Copies the state file to `target`: private, whole, checked, and on the disk before it gets its name. With `replace`,
/// whatever has that name is replaced in one step. `tell` hears now and then how far it is.
///
/// # Errors
/// See [`BackupError`]; nothing is left behind.
pub fn back_up(
    state: &Path,
    target: &Path,
    replace: bool,
    now: Timestamp,
    tell: impl FnMut(Copying),
) -> Result<Copied, BackupError> {
    if !state.exists() {
        return Err(StoreError::Missing(state.to_owned()).into());
    }
    refuse_target(state, target, replace)?;
    let partial = beside(target, ".partial");
    let cannot = |source| BackupError::Target { target: target.to_owned(), source };
    // The lock says that a backup is at work; without one, the file was left by a kill.
    let held =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&partial).map_err(cannot)?;
    if held.try_lock().is_err() {
        return Err(BackupError::UnderWay(target.to_owned()));
    }
    let copied = copy(state, &partial, &held, now, tell).and_then(|copied| {
        refuse_target(state, target, replace)?;
        give_name(&partial, target).map_err(cannot)?;
        Ok(copied)
    });
    if copied.is_err() {
        let _ = remove_if_there(&partial);
        let _ = remove_if_there(&beside(&partial, "-journal"));
    }
    copied
}

fn refuse_target(state: &Path, target: &Path, replace: bool) -> Result<(), BackupError> {
    let Ok(there) = std::fs::metadata(target) else { return Ok(()) };
    for part in ["", "-wal", "-shm", ".lock", reserve::SUFFIX] {
        if std::fs::metadata(beside(state, part))
            .is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
        {
            return Err(BackupError::Itself(target.to_owned()));
        }
    }
    if replace { Ok(()) } else { Err(BackupError::Exists(target.to_owned())) }
}

fn copy(
    state: &Path,
    partial: &Path,
    held: &File,
    now: Timestamp,
    mut tell: impl FnMut(Copying),
) -> Result<Copied, BackupError> {
    let cannot = |source| BackupError::Target { target: partial.to_owned(), source };
    held.set_len(0).map_err(cannot)?;
    let source = open_reader(state)?;
    match migrate::check_current(&source) {
        // The copy that one makes before an upgrade.
        Ok(()) | Err(StoreError::Older) => {}
        Err(error) => return Err(error.into()),
    }
    let of: u64 = source
        .query_row(
            "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
            [],
            |row| row.get(0),
        )
        .map_err(StoreError::from)?;
    let told = || tell(Copying::Writing { done: held.metadata().map_or(0, |copy| copy.len()), of });
    vacuum(source, partial, told).map_err(|error| match error {
        StoreError::Full | StoreError::Refused => BackupError::NoRoom(partial.to_owned()),
        error => error.into(),
    })?;

    tell(Copying::Checking);
    let copy = open_connection(partial)?;
    // Without a log beside it, the copy is one file; the daemon turns that back when it opens it.
    copy.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(())).map_err(StoreError::from)?;
    integrity::mark_copied(&copy, now)?;
    if let Some(found) = integrity::findings(&copy)?.into_iter().next() {
        return Err(BackupError::NotWhole(found));
    }
    copy.close().map_err(|(_, error)| StoreError::from(error))?;
    held.sync_all().map_err(cannot)?;
    Ok(Copied { bytes: held.metadata().map_err(cannot)?.len() })
}

/// Copies on a thread of its own, so that somebody can hear how far it is.
fn vacuum(source: Connection, target: &Path, mut tell: impl FnMut()) -> Result<(), StoreError> {
    let target = target.to_string_lossy().into_owned();
    let (done, wait) = mpsc::channel();
    let copying = std::thread::Builder::new().name("backup".to_owned()).spawn(move || {
        // Reading is all that this connection may do otherwise.
        let copied = source
            .execute_batch("PRAGMA query_only = OFF")
            .and_then(|()| source.execute("VACUUM INTO ?1", [target]).map(drop));
        let _ = done.send(copied);
    });
    copying.map_err(|_| StoreError::Stopped)?;
    loop {
        match wait.recv_timeout(TELL) {
            Ok(copied) => return Ok(copied?),
            Err(RecvTimeoutError::Timeout) => tell(),
            Err(RecvTimeoutError::Disconnected) => return Err(StoreError::Stopped),
        }
    }
}
