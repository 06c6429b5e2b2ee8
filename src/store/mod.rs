//! The one SQLite file. It speaks in domain words: no SQL, no rusqlite type and no path leaves this module.
//!
//! One thread writes. It takes whatever has gathered, runs each job in a savepoint of its own, commits them together
//! and only then answers, so an answer always means "on the disk". Reads go through a second connection and see
//! committed data only.

pub mod chain;
mod claim;
mod decisions;
mod ingest;
mod journal;
mod ledger;
mod lock;
mod migrate;
mod people;
mod prune;
mod status;
mod trips;
mod who;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};
use thiserror::Error;

pub use claim::{Claims, Stopped, Taken};
pub use decisions::{BackfillMode, Decision, EventVerdict, NewAction, PendingEvent, PlannedRun};
pub use ingest::{NewEvent, NewStream, PageCommit, PageCounts, Quarantined, Stream, StreamKind, StreamState};
pub use journal::{Anchor, Hash, JournalRow, Stretch, hex, seal};
pub use ledger::{AttemptEnd, Claimed, OpenAction, Preparation, Prepared, RunContext, SiblingState};
pub use lock::{InstanceLock, LockError};
pub use people::{PersonChange, PersonError};
pub use prune::{Keep, OKTA_KEEPS, Pruned};
pub use status::{
    ActionFilter, ActionRow, AttemptRow, BackfillResults, EventFilter, EventRow, QuarantineRow, RunFilter, RunRow,
    StatusSnapshot, StreamRow,
};
pub use trips::{LetGo, TripRow, Tripped};

/// A handle to the state file; clones share the writer thread and the read connection.
#[derive(Clone)]
pub struct Store {
    writer: writer::Writer,
    reader: Arc<Mutex<Connection>>,
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
    #[error("the disk that holds the state file is full; make room, and the daemon goes on by itself")]
    Full,
    /// Another process held the write lock too long.
    #[error("another process held the state file for more than 10 s; the daemon tries again")]
    Busy,
    /// A commit failed.
    #[error("a commit to the state file failed: {0}")]
    Unwritable(String),
    /// The file cannot be written.
    #[error("the state file or its directory is read-only for this user or file system")]
    ReadOnly,
    /// The file is damaged.
    #[error(
        "the state file is damaged; stop the daemon and put a backup in its place, or move the file away and set [poll] \
         start_from to the time from which the log has to be read again"
    )]
    Corrupt,
    /// The file was written by a newer version.
    #[error(
        "the state file has schema version {found}, which is newer than this program knows; run the newer version again"
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
    #[error("the state file {} could not be opened; its directory must exist and belong to the daemon's user", path.display())]
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
    fn migration(error: rusqlite_migration::Error) -> Self {
        Self::Migration(Box::new(error))
    }

    /// The same error once more, for each job of a group whose commit failed. What SQLite said is kept in words.
    fn for_every_job(&self) -> Self {
        match self {
            Self::Full => Self::Full,
            Self::Busy => Self::Busy,
            Self::ReadOnly => Self::ReadOnly,
            Self::Corrupt => Self::Corrupt,
            Self::Sqlite(error) => Self::Unwritable(error.to_string()),
            other => Self::Unwritable(other.to_string()),
        }
    }

    /// Whether waiting may help: no room, or somebody else holds the file.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Full | Self::Busy)
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        // Where the disk is full, SQLite may not even get room for the index of its log, and calls that an input error.
        if matches!(&error, rusqlite::Error::SqliteFailure(told, _) if told.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
        {
            return Self::Full;
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
    /// Opens the file for the daemon: makes it (readable by its owner only) if it is missing and brings its schema up to
    /// date. The caller holds the [`InstanceLock`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        create_private(path)?;
        let mut connection = open_connection(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        migrate::prepare(&connection)?;
        migrate::to_latest(&mut connection)?;
        Self::with_writer(path, connection, false)
    }

    /// Opens an existing file for a command that runs beside the daemon. The schema is not changed.
    pub fn open_existing(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Missing(path.to_owned()));
        }
        let connection = open_connection(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        migrate::prepare(&connection)?;
        migrate::check_current(&connection)?;
        Self::with_writer(path, connection, true)
    }

    fn with_writer(path: &Path, connection: Connection, beside: bool) -> Result<Self, StoreError> {
        let reader = open_connection(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        migrate::prepare(&reader)?;
        reader.execute_batch("PRAGMA query_only = ON;")?;
        Ok(Self {
            writer: writer::Writer::start(connection)?,
            reader: Arc::new(Mutex::new(reader)),
            path: path.to_owned(),
            beside,
        })
    }

    /// Runs a job on the writer thread; the answer comes after the commit.
    async fn write<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.writer.run(job).await
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

fn open_connection(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|source| StoreError::Open { path: path.to_owned(), source })
}

/// Makes the file before SQLite does, so that it is never readable by others. SQLite gives its log the same mode.
fn create_private(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::OpenOptionsExt;
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::Open {
            path: path.to_owned(),
            source: rusqlite::Error::ToSqlConversionFailure(Box::new(error)),
        }),
    }
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
