//! The one SQLite file. It speaks in domain words: no SQL, no rusqlite type and no path leaves this module.
//!
//! One thread writes. It takes whatever has gathered, runs each job in a savepoint of its own, commits them together
//! and only then answers, so an answer always means "on the disk". Reads go through a second connection and see
//! committed data only.

mod backup;
pub mod chain;
mod claim;
mod decisions;
mod delayed;
mod file;
mod health;
mod ingest;
mod integrity;
mod journal;
mod ledger;
mod lock;
mod migrate;
mod past;
mod people;
mod prune;
mod rates;
mod reserve;
mod revert;
mod search;
mod status;
mod trips;
mod who;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, ffi};
use thiserror::Error;
use tokio::sync::watch;

use health::Health;
use reserve::Reserve;

pub use backup::{BackupError, Copied, Copying, back_up};
pub use claim::{Claims, Stopped, Taken};
pub use decisions::{BackfillMode, ChangesOf, Decision, EventVerdict, NewAction, PendingEvent, PlannedRun};
pub use delayed::{Delayed, DelayedPlan, Due};
pub use health::Trouble;
pub use ingest::{NewEvent, NewStream, PageCommit, PageCounts, Quarantined, Stream, StreamKind, StreamState};
pub use integrity::{LastStop, Restored, check_file};
pub use journal::{Anchor, Hash, JournalRow, Stretch, hex, seal};
pub use ledger::{AttemptEnd, Claimed, OpenAction, Preparation, Prepared, RunContext, SiblingState};
pub use lock::{Holder, InstanceLock, LockError};
pub use past::{Past, PastAction, PastRun};
pub use people::{PersonChange, PersonError};
pub use prune::{Keep, OKTA_KEEPS, Pruned};
pub use rates::{RateRow, RateSnapshot};
pub use revert::{DoneAction, NewRevert, NewUndo, Newer, Revert, RevertError, RevertedBy, Revertible};
pub use status::{
    ActionFilter, ActionRow, AttemptRow, BackfillResults, EventFilter, EventRow, QuarantineRow, RunFilter, RunRow,
    Standstill, StatusSnapshot, StreamRow,
};
pub use trips::{LetGo, TripRow, Tripped};

/// How long another process may hold the write lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of the file the writer keeps in memory, in KiB. Each event goes into indexes at random places; with SQLite's own
/// 2 MiB their pages would be read again for every event of a backfill.
const WRITER_CACHE_KIB: i64 = 16 << 10;

/// A handle to the state file; clones share the writer thread and the read connection.
#[derive(Clone)]
pub struct Store {
    writer: writer::Writer,
    reader: Arc<Mutex<Connection>>,
    health: Health,
    path: PathBuf,
    /// Whether a command beside the daemon has it, so that a person is behind all that is written.
    beside: bool,
}

/// Why the state file could not be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// SQLite said no.
    #[error("the state file could not be used")]
    Sqlite(#[source] rusqlite::Error),
    /// There is no room.
    #[error("{}", Trouble::Full)]
    Full,
    /// Another process held the write lock too long.
    #[error("{}", Trouble::Busy)]
    Busy,
    /// The file cannot be written.
    #[error("{}", Trouble::ReadOnly)]
    ReadOnly,
    /// The system refused a write.
    #[error("{}", Trouble::Refused)]
    Refused,
    /// A commit failed.
    #[error("a commit to the state file failed: {0}")]
    Unwritable(String),
    /// The file is damaged.
    #[error(
        "the state file is damaged. Move it away, together with its -wal and -shm files, and put a copy that \
         `okta-responder backup` made in its place, owned by the daemon's user: what was done since that copy is found at \
         the services. Without a copy, start with an empty file and set [poll] start_from to the time from which the log has \
         to be read again: what was done since then is done again where the service cannot tell. README, \"Backup and the \
         way back\""
    )]
    Corrupt,
    /// The file has no content, which is nothing that this program leaves behind.
    #[error(
        "the state file {} is empty: its cursor and its records are gone. Put a copy that `okta-responder backup` made in its \
         place; or remove it, and the daemon begins anew at [poll] start_from", .0.display()
    )]
    Empty(PathBuf),
    /// There is a log, but the file that it belongs to is gone or is another one.
    #[error(
        "{} is the log of another state file than the one beside it; if a copy was put in place, remove this log and the \
         -shm file, and start again; else put the state file back that it belongs to", .0.display()
    )]
    ForeignLog(PathBuf),
    /// Others may read the file, and that cannot be changed.
    #[error("the state file {} is open to others, and its mode cannot be changed; as its owner, chmod 600 it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file was written by a newer version.
    #[error(
        "the state file has schema version {found}, which is newer than this program knows; run the newer version again, or \
         put a copy in its place that `okta-responder backup` made before the upgrade"
    )]
    Newer {
        /// Its schema version.
        found: usize,
    },
    /// The file was written by an older version and this command does not change it.
    #[error(
        "the state file has an older schema; start the daemon once (`okta-responder run`), which brings it up to date"
    )]
    Older,
    /// The file is something else.
    #[error("the file is no state file of okta-responder")]
    NotOurs,
    /// There is no file.
    #[error("there is no state file at {}; it is made by the first `okta-responder run`", .0.display())]
    Missing(PathBuf),
    /// The file cannot be opened.
    #[error("the state file {} could not be opened; it and its directory must be there and belong to the daemon's user", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The schema could not be brought up to date.
    #[error("the schema of the state file could not be brought up to date")]
    Migration(#[source] Box<rusqlite_migration::Error>),
    /// A row is not what this program writes.
    #[error("the state file holds something that this program does not write: {0}")]
    Unreadable(String),
    /// A change that the state machine forbids was asked for.
    #[error(transparent)]
    Illegal(#[from] crate::model::action::IllegalTransition),
    /// A page does not follow the cursor that is stored; nothing was changed.
    #[error("the page does not follow the stored cursor")]
    CursorMoved,
    /// The writer thread is gone.
    #[error("the writer of the state file has stopped")]
    Stopped,
}

impl StoreError {
    /// What SQLite said stays what it is; the rest is about migrations.
    fn migration(error: rusqlite_migration::Error) -> Self {
        match error {
            rusqlite_migration::Error::RusqliteError { err, .. } => match Self::from(err) {
                Self::Sqlite(err) => {
                    Self::Migration(Box::new(rusqlite_migration::Error::RusqliteError { query: String::new(), err }))
                }
                told => told,
            },
            error => Self::Migration(Box::new(error)),
        }
    }

    /// The same error once more, for each job of a group whose commit failed. What SQLite said is kept in words.
    fn for_every_job(&self) -> Self {
        match self {
            Self::Full => Self::Full,
            Self::Busy => Self::Busy,
            Self::ReadOnly => Self::ReadOnly,
            Self::Refused => Self::Refused,
            Self::Corrupt => Self::Corrupt,
            Self::Sqlite(error) => Self::Unwritable(error.to_string()),
            other => Self::Unwritable(other.to_string()),
        }
    }

    /// Whether waiting may help: no room, or somebody else holds the file, or it cannot be written for now.
    pub fn may_pass(&self) -> bool {
        self.trouble().is_some()
    }

    /// What keeps the file from being written, if that is all there is.
    pub fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Full => Some(Trouble::Full),
            Self::Busy => Some(Trouble::Busy),
            Self::ReadOnly => Some(Trouble::ReadOnly),
            Self::Refused => Some(Trouble::Refused),
            _ => None,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        if let rusqlite::Error::SqliteFailure(told, _) = &error {
            match told.extended_code {
                // Where the disk is full, SQLite may not even get room for the index of its log, and calls that an input
                // error.
                ffi::SQLITE_IOERR_SHMSIZE => return Self::Full,
                // Nothing of the transaction is in the file. A failed fsync is another thing: what the system had taken may
                // be gone without a further word, so that one ends the process, and the next start reads what is there.
                ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_TRUNCATE => return Self::Refused,
                _ => {}
            }
        }
        match error.sqlite_error_code() {
            Some(Code::DiskFull) => Self::Full,
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => Self::Busy,
            // The log lies beside the file and cannot be made in a read-only directory.
            Some(Code::ReadOnly | Code::CannotOpen) => Self::ReadOnly,
            Some(Code::DatabaseCorrupt) => Self::Corrupt,
            Some(Code::NotADatabase) => Self::NotOurs,
            _ => Self::Sqlite(error),
        }
    }
}

impl Store {
    /// Opens the file for the daemon: makes it (readable by its owner only) if it is missing, closes it to others if it was
    /// open to them, brings its schema up to date, and keeps some room beside it for a full disk. The caller holds the
    /// [`InstanceLock`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut connection = match file::look(path)? {
            file::Found::Nothing => file::create(path)?,
            file::Found::Ours => open_connection(path)?,
        };
        migrate::prepare(&connection)?;
        migrate::to_latest(&mut connection)?;
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        let reserve = Reserve::open(path, &connection);
        Self::with_writer(path, connection, reserve, false)
    }

    /// Opens an existing file for a command that runs beside the daemon. The schema is not changed.
    pub fn open_existing(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Missing(path.to_owned()));
        }
        let connection = open_connection(path)?;
        migrate::prepare(&connection)?;
        migrate::check_current(&connection)?;
        Self::with_writer(path, connection, None, true)
    }

    fn with_writer(
        path: &Path,
        connection: Connection,
        reserve: Option<Reserve>,
        beside: bool,
    ) -> Result<Self, StoreError> {
        let reader = open_reader(path)?;
        let health = Health::new();
        Ok(Self {
            writer: writer::Writer::start(connection, reserve, health.clone())?,
            reader: Arc::new(Mutex::new(reader)),
            health,
            path: path.to_owned(),
            beside,
        })
    }

    /// What keeps the file from being written, as it changes. While there is something, it is tried every second whether it
    /// is over.
    pub fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.health.listen()
    }

    /// Runs a job on the writer thread; the answer comes after the commit.
    async fn write<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.writer.run(job, writer::Room::Free).await
    }

    /// The same for a job that has to be done also when the disk is full, and that leads to there being room.
    async fn write_on_reserve<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.writer.run(job, writer::Room::Reserve).await
    }

    /// Runs a query on the read connection.
    async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let reader = Arc::clone(&self.reader);
        tokio::task::spawn_blocking(move || query(&reader.lock().unwrap_or_else(PoisonError::into_inner)))
            .await
            .map_err(|_| StoreError::Stopped)?
    }

    /// A number that changes whenever another process has committed to the file.
    pub async fn foreign_changes(&self) -> Result<i64, StoreError> {
        self.read(|connection| Ok(connection.query_row("PRAGMA data_version", [], |row| row.get(0))?)).await
    }

    /// The size of the file and its log, in bytes.
    pub fn size_on_disk(&self) -> u64 {
        let mut wal = self.path.clone().into_os_string();
        wal.push("-wal");
        [self.path.clone(), PathBuf::from(wal)]
            .iter()
            .filter_map(|path| std::fs::metadata(path).ok())
            .map(|meta| meta.len())
            .sum()
    }
}

fn open_connection(path: &Path) -> Result<Connection, StoreError> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|source| StoreError::Open { path: path.to_owned(), source })
}

/// A connection that reads what is committed, and nothing else.
fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let reader = open_connection(path)?;
    migrate::prepare(&reader)?;
    reader.execute_batch("PRAGMA query_only = ON;")?;
    Ok(reader)
}

fn to_ms(moment: Timestamp) -> i64 {
    moment.as_millisecond()
}

fn from_ms(ms: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(ms).map_err(|_| StoreError::Unreadable(format!("moment {ms}")))
}

fn from_optional_ms(ms: Option<i64>) -> Result<Option<Timestamp>, StoreError> {
    ms.map(from_ms).transpose()
}
