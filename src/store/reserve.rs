//! Room that is kept beside the state file for the day on which the disk is full.
//!
//! Taking rows away makes room, and takes some first: what is deleted has to be written to SQLite's log, and the log cannot
//! be taken into the file while the file has to grow for it. With not one byte left neither can ever happen. So a file of
//! nothing but room lies beside the state file. Only pruning lives on it, and only inside of one turn of the writer thread,
//! which gives it up, takes the log into the file, takes rows away, takes the log in again and makes the reserve anew.
//!
//! What must stay true: no transaction is committed unless the reserve is as long as the file would have to grow for the log
//! with that transaction in it. Then the first step of such a turn always succeeds, and what it needed is free again after it,
//! because each page by which the file grows stood in the log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use tracing::warn;

use super::file::{beside, cannot_open};
use super::{BUSY_TIMEOUT, StoreError};

/// What its name adds to that of the state file.
pub(super) const SUFFIX: &str = ".reserve";
/// How long it is in bytes when nothing waits in the log: what one small step of pruning takes, many times over. It grows by
/// as much at once.
const SIZE: u64 = 1 << 20;
/// By how much it is longer than it has to be, so that commands beside the daemon, which do not look after it, can write too.
pub(super) const MARGIN: u64 = 512 << 10;
/// What stays of it while rows are taken away, in case the file grows even then.
const KEPT: u64 = 128 << 10;
/// What is written at once.
const CHUNK: usize = 64 << 10;
/// How long a turn waits for those who read.
const READERS: Duration = Duration::from_millis(250);

/// The reserve of a state file. It belongs to the writer thread.
pub(super) struct Reserve {
    state: PathBuf,
    file: File,
    length: u64,
    /// Whether it was told that it cannot be made.
    told: bool,
}

impl Reserve {
    /// Makes it if it is missing, and whole again if a kill came while it was out. `None` where it cannot be made at all, which
    /// is told; without room it is made with the next write that finds some, and nothing is written before.
    pub(super) fn open(state: &Path, connection: &Connection) -> Option<Self> {
        let path = beside(state, SUFFIX);
        let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let reserve = opened.and_then(|file| {
            let length = file.metadata()?.len();
            Ok(Self { state: state.to_owned(), file, length, told: false })
        });
        let mut reserve = match reserve {
            Ok(reserve) => reserve,
            Err(error) => {
                warn!("no room can be kept for a full disk: {} cannot be made ({error})", path.display());
                return None;
            }
        };
        if reserve.length != SIZE {
            // It may be too short because a kill came while its room was in the log.
            let _ = reserve.shrink_to(0).and_then(|()| cut_log(connection));
            let _ = reserve.restore(connection);
        }
        Some(reserve)
    }

    /// Makes it so long that a checkpoint after the open transaction will have room, and `margin` more.
    ///
    /// # Errors
    /// [`StoreError::Full`] without room for it; the transaction must not be committed then.
    pub(super) fn cover(&mut self, connection: &Connection, margin: u64) -> Result<(), StoreError> {
        let needed = growth(&self.state, connection)?.saturating_add(margin);
        if self.length >= needed {
            return Ok(());
        }
        let before = self.length;
        self.lengthen_to(needed.next_multiple_of(SIZE)).inspect_err(|_| {
            let _ = self.shrink_to(before);
        })
    }

    /// Takes the log into the file when the file has to grow for it by more than little, so that the reserve need never be much
    /// longer than one transaction asks for.
    pub(super) fn keep_short(&mut self, connection: &Connection) {
        if growth(&self.state, connection).is_ok_and(|growth| growth > MARGIN) {
            // Without room, or while somebody reads, it is done after another commit.
            let _ = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        }
    }

    /// Makes it as long as it should be between two transactions, or as long as there is room.
    pub(super) fn restore(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let length = growth(&self.state, connection)?.saturating_add(MARGIN).next_multiple_of(SIZE);
        if self.length > length { self.shrink_to(length) } else { self.lengthen_to(length) }
    }

    /// Whether some of it is missing.
    pub(super) fn is_short(&self) -> bool {
        self.length < SIZE
    }

    /// Runs `work` on the room of the reserve: one transaction that takes rows away. `work` commits through
    /// [`Self::cover`] without a margin. Afterwards the log is empty and the reserve is whole again, as long as nobody
    /// else has taken its room meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Full`] when somebody reads for too long, so that the log cannot be cut, or when there is no room even
    /// so. Nothing is done then.
    pub(super) fn lend<T>(
        &mut self,
        connection: &Connection,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let begun = self.shrink_to(0).and_then(|()| cut_log(connection)).and_then(|()| self.lengthen_to(KEPT));
        let done = begun.and_then(|()| work(self));
        let whole = self.shrink_to(0).and_then(|()| cut_log(connection));
        // Also after a failure, with what there is.
        let whole = self.restore(connection).and(whole);
        if let Err(error) = whole
            && !matches!(error, StoreError::Full)
        {
            return Err(error);
        }
        done
    }

    fn shrink_to(&mut self, length: u64) -> Result<(), StoreError> {
        if length >= self.length {
            return Ok(());
        }
        // What a file system frees it may not hand out before that is on the disk.
        self.file
            .set_len(length)
            .and_then(|()| self.file.sync_all())
            .map_err(|error| cannot_open(&self.state, error))?;
        self.length = length;
        Ok(())
    }

    /// Adds bytes that no file system can store as fewer. A file that cannot be longer for another reason than room stays
    /// as it is: then it is the state file that will tell.
    fn lengthen_to(&mut self, length: u64) -> Result<(), StoreError> {
        match self.write_to(length).and_then(|()| self.file.sync_all()) {
            Ok(()) => {
                self.told = false;
                Ok(())
            }
            Err(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    warn!("the room that is kept for a full disk could not be made beside the state file: {error}");
                }
                match error.kind() {
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Err(StoreError::Full),
                    _ => Ok(()),
                }
            }
        }
    }

    fn write_to(&mut self, length: u64) -> io::Result<()> {
        let mut noise = self.length | 1;
        self.file.seek(SeekFrom::Start(self.length))?;
        while self.length < length {
            let most = usize::try_from(length - self.length).unwrap_or(CHUNK).min(CHUNK);
            let chunk: Vec<u8> = std::iter::repeat_with(|| {
                // Xorshift: it looks like noise to whatever compresses.
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise.to_le_bytes()
            })
            .take(most.div_ceil(8))
            .flatten()
            .take(most)
            .collect();
            let written = self.file.write(&chunk)?;
            if written == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            self.length += written as u64;
        }
        Ok(())
    }
}

/// By how many bytes the file has to grow when the log, and the open transaction, are taken into it.
fn growth(state: &Path, connection: &Connection) -> Result<u64, StoreError> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, u64>(0));
    let (pages, size) = (number("PRAGMA page_count")?, number("PRAGMA page_size")?);
    let there = fs::metadata(state).map_err(|error| cannot_open(state, error))?.len();
    Ok(pages.saturating_mul(size).saturating_sub(there))
}

/// Takes the log into the file and cuts it to nothing.
pub(super) fn cut_log(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(READERS)?;
    let cut = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
    connection.busy_timeout(BUSY_TIMEOUT)?;
    if cut? { Err(StoreError::Full) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::Store;
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        (dir, path)
    }

    fn length(state: &Path) -> u64 {
        fs::metadata(beside(state, SUFFIX)).unwrap().len()
    }

    /// A file of its own with a table, on one connection.
    fn bare() -> (tempfile::TempDir, PathBuf, Connection) {
        let (dir, path) = place();
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x);").unwrap();
        (dir, path, connection)
    }

    #[test]
    fn the_daemon_keeps_it_private_and_full_of_bytes_that_need_their_room() {
        let (_dir, path) = place();
        let store = Store::open(&path).unwrap();
        assert_eq!(length(&path), SIZE);
        let there = fs::read(beside(&path, SUFFIX)).unwrap();
        let mut counts = [0_usize; 256];
        for byte in there {
            counts[usize::from(byte)] += 1;
        }
        assert!(counts.iter().all(|count| *count < SIZE as usize / 128), "any byte is about as frequent as any other");
        assert_eq!(fs::metadata(beside(&path, SUFFIX)).unwrap().permissions().mode() & 0o777, 0o600);
        drop(store);
    }

    #[test]
    fn a_command_beside_the_daemon_makes_none() {
        let (_dir, path) = place();
        drop(Store::open(&path).unwrap());
        fs::remove_file(beside(&path, SUFFIX)).unwrap();
        drop(Store::open_existing(&path).unwrap());
        assert!(!beside(&path, SUFFIX).exists());
    }

    #[test]
    fn a_start_makes_it_whole_after_a_kill_and_short_after_a_large_transaction() {
        let (_dir, path) = place();
        drop(Store::open(&path).unwrap());
        for left in [0, KEPT, 5 * SIZE] {
            File::options().write(true).open(beside(&path, SUFFIX)).unwrap().set_len(left).unwrap();
            let store = Store::open(&path).unwrap();
            assert_eq!(length(&path), SIZE, "after {left}");
            drop(store);
        }
    }

    #[test]
    fn a_place_where_it_cannot_be_made_is_no_hindrance() {
        let (_dir, path) = place();
        fs::create_dir(beside(&path, SUFFIX)).unwrap();
        let store = Store::open(&path).unwrap();
        assert_eq!(*store.trouble().borrow(), None);
    }

    #[test]
    fn it_is_longer_than_what_the_log_adds_to_the_file() {
        let (_dir, path, connection) = bare();
        let mut reserve = Reserve::open(&path, &connection).unwrap();
        let before = fs::metadata(&path).unwrap().len();
        connection.execute_batch("BEGIN; INSERT INTO t VALUES (zeroblob(3000000));").unwrap();
        reserve.cover(&connection, MARGIN).unwrap();
        connection.execute_batch("COMMIT").unwrap();
        assert!(length(&path) >= 3_000_000 + MARGIN, "{}", length(&path));
        assert_eq!(fs::metadata(&path).unwrap().len(), before, "it is in the log alone");

        reserve.keep_short(&connection);
        assert!(fs::metadata(&path).unwrap().len() > 3_000_000);
        reserve.lend(&connection, |_| Ok(())).unwrap();
        assert_eq!(length(&path), SIZE);
    }

    #[test]
    fn work_on_it_finds_the_log_empty_and_little_of_it_left_and_it_is_whole_again_even_after_a_failure() {
        let (_dir, path, connection) = bare();
        let mut reserve = Reserve::open(&path, &connection).unwrap();
        connection.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        let lent = reserve.lend(&connection, |_| {
            assert_eq!(fs::metadata(beside(&path, "-wal")).unwrap().len(), 0);
            assert_eq!(length(&path), KEPT);
            Err::<(), _>(StoreError::Stopped)
        });
        assert!(matches!(lent, Err(StoreError::Stopped)));
        assert_eq!(length(&path), SIZE);
    }

    #[test]
    fn while_somebody_reads_nothing_is_done_on_it() {
        let (_dir, path, connection) = bare();
        let mut reserve = Reserve::open(&path, &connection).unwrap();
        connection.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        let reader = Connection::open(&path).unwrap();
        reader.execute_batch("BEGIN; SELECT * FROM t;").unwrap();
        connection.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        let mut done = false;
        let lent = reserve.lend(&connection, |_| {
            done = true;
            Ok(())
        });
        assert!(matches!(lent, Err(StoreError::Full)) && !done);
        assert_eq!(length(&path), SIZE);
    }
}
