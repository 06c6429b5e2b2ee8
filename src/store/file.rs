//! The file itself: how it comes into being, and what is looked at before SQLite opens it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tracing::warn;

use super::{StoreError, integrity, migrate, open_connection, reserve};

/// What stands at the place of the state file.
pub(super) enum Found {
    /// Nothing: it has to be made.
    Nothing,
    /// Something that SQLite may open.
    Ours,
}

/// Looks at the place of the state file, and closes a file that is open to others.
///
/// What an accident leaves behind must not pass for a first start, which would begin at `start_from` without a word: an
/// empty file is refused, and so is a log whose file is gone. A copy that was put in the place of a file whose log still
/// lies there is refused as well, or SQLite would write that log over it.
pub(super) fn look(path: &Path) -> Result<Found, StoreError> {
    let log = beside(path, "-wal");
    let length = match fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return if log.exists() { Err(StoreError::ForeignLog(log)) } else { Ok(Found::Nothing) };
        }
        Err(error) => return Err(cannot_open(path, error)),
    };
    if length == 0 {
        return Err(StoreError::Empty(path.to_owned()));
    }
    for file in [path.to_owned(), log.clone(), beside(path, "-shm"), beside(path, reserve::SUFFIX)] {
        make_private(&file)?;
    }
    let has_log = fs::metadata(&log).is_ok_and(|log| log.len() > 0);
    if has_log && !keeps_a_log(path).map_err(|error| cannot_open(path, error))? {
        return Err(StoreError::ForeignLog(log));
    }
    Ok(Found::Ours)
}

/// Makes the file under another name and gives it its own when it is whole, so that a kill leaves either no state file or
/// one with its schema.
pub(super) fn create(path: &Path) -> Result<Connection, StoreError> {
    let new = beside(path, ".new");
    // Left by a kill in the middle of this; nobody else is here, since the caller holds the lock.
    for suffix in ["", "-wal", "-shm", "-journal"] {
        remove_if_there(&beside(&new, suffix)).map_err(|error| cannot_open(&new, error))?;
    }
    make_empty(&new).map_err(|error| cannot_open(&new, error))?;
    let mut connection = open_connection(&new)?;
    migrate::prepare(&connection)?;
    migrate::begin(&mut connection)?;
    integrity::mark_in_order(&connection)?;
    // The last connection to close takes the log into the file.
    connection.close().map_err(|(_, error)| StoreError::from(error))?;
    give_name(&new, path).map_err(|error| cannot_open(path, error))?;
    open_connection(path)
}

/// Makes a file that only its owner can read.
pub(super) fn make_empty(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Gives a file that is whole its name, in place of whatever has it now, so that a loss of power leaves the one or the other.
pub(super) fn give_name(file: &Path, name: &Path) -> io::Result<()> {
    File::open(file)?.sync_all()?;
    fs::rename(file, name)?;
    let directory = name.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The name with something added, as SQLite names what belongs to a file.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

pub(super) fn cannot_open(path: &Path, error: io::Error) -> StoreError {
    if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge) {
        return StoreError::Full;
    }
    StoreError::Open { path: path.to_owned(), source: rusqlite::Error::ToSqlConversionFailure(Box::new(error)) }
}

fn make_private(path: &Path) -> Result<(), StoreError> {
    let Ok(found) = fs::metadata(path) else { return Ok(()) };
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode & 0o700))
        .map_err(|source| StoreError::Exposed { path: path.to_owned(), source })?;
    warn!("{} was open to others (mode {mode:04o}); now only its owner can use it", path.display());
    Ok(())
}

/// Whether the header says that the file works with a log (SQLite file format, bytes 18 and 19). The state file always does,
/// and a copy that `backup` made does not until the daemon has opened it.
fn keeps_a_log(path: &Path) -> io::Result<bool> {
    let mut header = Vec::new();
    File::open(path)?.take(20).read_to_end(&mut header)?;
    // What is no SQLite file is left for SQLite to say.
    Ok(header.get(18..20).is_none_or(|versions| versions != [1, 1]) || !header.starts_with(b"SQLite format 3\0"))
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        (dir, path)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_that_is_open_to_others_is_closed_to_them_with_its_log() {
        let (_dir, path) = place();
        drop(Store::open(&path).unwrap());
        let store = Store::open(&path).unwrap();
        let log = beside(&path, "-wal");
        for file in [&path, &log] {
            fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
        }
        let again = Store::open(&path).unwrap();
        assert_eq!((mode(&path), mode(&log)), (0o600, 0o600));
        drop((store, again));
    }

    #[test]
    fn what_an_accident_left_behind_is_no_first_start() {
        let (_dir, path) = place();
        fs::write(&path, "").unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::Empty(_))));
        fs::remove_file(&path).unwrap();
        fs::write(beside(&path, "-wal"), "x").unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::ForeignLog(_))));
        fs::remove_file(beside(&path, "-wal")).unwrap();
        fs::write(&path, "this is no database at all, whatever its name says".repeat(20)).unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::NotOurs)));
    }

    #[test]
    fn a_database_of_somebody_else_is_left_alone() {
        let (_dir, path) = place();
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
        let before = fs::read(&path).unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::NotOurs)));
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_start_that_was_killed_while_it_made_the_file_is_no_hindrance() {
        let (_dir, path) = place();
        fs::write(beside(&path, ".new"), "half a file").unwrap();
        fs::write(beside(&path, ".new-wal"), "and its log").unwrap();
        drop(Store::open(&path).unwrap());
        assert!(!beside(&path, ".new").exists());
    }
}
