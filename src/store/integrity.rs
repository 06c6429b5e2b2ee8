//! Whether the file is whole: the mark of a stop in order, and the check.
//!
//! The mark is a row that a stop in order leaves as its last word and a start takes away as its first. When it is not there,
//! the process or the host ended in some other way, and the file is checked beside the work that goes on.

use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, InterruptHandle, OptionalExtension, params};

use super::{Store, StoreError, from_ms, migrate, open_reader, to_ms};
use crate::guard::alarm;
use crate::model::ids::ActionId;

/// The most findings that are told of a damaged file.
const FINDINGS: u32 = 10;

/// How the last daemon left the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastStop {
    /// It stopped in order.
    InOrder,
    /// It did not: a kill, a crash, a loss of power. Or the file was written by a version without the mark.
    Otherwise,
    /// A check found damage, and none since has found the file whole.
    Damaged,
}

/// A copy that was put in the place of the state file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// When the copy was made. What was done after that is not in it.
    pub copied_at: Timestamp,
}

impl Store {
    /// The first word of a process that works on the file: how the last one left it, and whether it is a copy that was put
    /// in place since. From here on the file counts as not stopped in order.
    pub async fn begin_work(&self, now: Timestamp) -> Result<(LastStop, Option<Restored>), StoreError> {
        // A start on a full disk must get as far as pruning.
        match self.write(move |connection| begin(connection, now)).await {
            Err(StoreError::Full) => self.write_on_reserve(move |connection| begin(connection, now)).await,
            begun => begun,
        }
    }

    /// The last word of a process that stops in order.
    pub async fn end_work(&self, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |connection| set_mark(connection, "stopped", now)).await
    }

    /// Notes what a check or the work itself has found: the next start does not begin to work on a damaged file.
    pub async fn note_damage(&self, damaged: bool, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |connection| match damaged {
            true => set_mark(connection, "damaged", now),
            false => take_mark(connection, "damaged").map(drop),
        })
        .await
    }

    /// Whether an attempt of this action may have been made in the time that a copy knows nothing of: the copy was put in
    /// place after its event, and no attempt was made since. `attempt` is the one that is about to be made. The alarm of a
    /// playbook that was stopped since was certainly not sent before.
    pub async fn may_be_done_since_copy(&self, action: ActionId, attempt: u32) -> Result<bool, StoreError> {
        self.read(move |connection| {
            Ok(connection
                .prepare_cached(
                    "SELECT EXISTS (
                        SELECT 1 FROM control c JOIN action a ON a.id = ?1 JOIN run r ON r.id = a.run
                                                JOIN event e ON e.id = r.event
                         WHERE c.name = 'restored' AND e.published <= c.at
                           AND NOT (a.step = ?3 AND a.created_at >= c.at)
                           AND NOT EXISTS (SELECT 1 FROM attempt t WHERE t.action = a.id AND t.number < ?2
                                                                     AND t.started_at >= c.at))",
                )?
                .query_row(params![action.0, attempt, alarm::STEP], |row| row.get(0))?)
        })
        .await
    }

    /// Checks the file on a connection of its own, beside everything else; the writer is not held up. Returns what is wrong
    /// with it: nothing, if it is whole. Dropping the future ends the check.
    pub async fn check_integrity(&self) -> Result<Vec<String>, StoreError> {
        let path = self.path.clone();
        let connection = blocking(move || open_reader(&path)).await?;
        let _interrupt = EndWhenDropped(connection.get_interrupt_handle());
        blocking(move || findings(&connection)).await
    }
}

/// The same for a file of any state, on demand: also for one that no daemon could work on.
///
/// # Errors
/// When the file cannot be looked at. Damage is a finding and no error.
pub fn check_file(path: &Path) -> Result<Vec<String>, StoreError> {
    if !path.exists() {
        return Err(StoreError::Missing(path.to_owned()));
    }
    if std::fs::metadata(path).is_ok_and(|found| found.len() == 0) {
        return Err(StoreError::Empty(path.to_owned()));
    }
    let looked_at = open_reader(path).and_then(|connection| {
        match migrate::check_current(&connection) {
            // An older schema can be damaged like any other.
            Ok(()) | Err(StoreError::Older) => findings(&connection),
            Err(error) => Err(error),
        }
    });
    match looked_at {
        Err(StoreError::Corrupt) => Ok(vec!["its first pages are damaged".to_owned()]),
        looked_at => looked_at,
    }
}

/// Marks a file that was just made: nothing was ever stopped out of order in it.
pub(super) fn mark_in_order(connection: &Connection) -> Result<(), StoreError> {
    set_mark(connection, "stopped", Timestamp::UNIX_EPOCH)
}

/// Marks a copy: what is done after this moment is not in it.
pub(super) fn mark_copied(connection: &Connection, now: Timestamp) -> Result<(), StoreError> {
    take_mark(connection, "stopped")?;
    set_mark(connection, "copied", now)
}

/// What is wrong with a file: its structure, what its indexes say against its tables, and references that lead nowhere.
pub(super) fn findings(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let structure = || -> rusqlite::Result<Vec<String>> {
        let mut check = connection.prepare(&format!("PRAGMA integrity_check({FINDINGS})"))?;
        let mut found: Vec<String> = check.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        found.retain(|line| line != "ok");
        if found.is_empty() {
            let mut check = connection.prepare("PRAGMA foreign_key_check")?;
            let lost = check.query_map([], |row| Ok((row.get(0)?, row.get(2)?)))?;
            for row in lost.take(FINDINGS as usize) {
                let (table, parent): (String, String) = row?;
                found.push(format!("a row of {table} refers to a row of {parent} that is not there"));
            }
        }
        Ok(found)
    };
    match structure().map_err(StoreError::from) {
        Err(StoreError::Corrupt) => Ok(vec!["it cannot be read to its end".to_owned()]),
        Err(StoreError::NotOurs) => Ok(vec!["its header is damaged".to_owned()]),
        found => found,
    }
}

fn begin(connection: &Connection, now: Timestamp) -> Result<(LastStop, Option<Restored>), StoreError> {
    let in_order = take_mark(connection, "stopped")?.is_some();
    let damaged = mark(connection, "damaged")?.is_some();
    let restored = take_mark(connection, "copied")?;
    if let Some(copied_at) = restored {
        set_mark(connection, "restored", now)?;
        return Ok((LastStop::Otherwise, Some(Restored { copied_at })));
    }
    let last = match (damaged, in_order) {
        (true, _) => LastStop::Damaged,
        (false, true) => LastStop::InOrder,
        (false, false) => LastStop::Otherwise,
    };
    Ok((last, None))
}

struct EndWhenDropped(InterruptHandle);

impl Drop for EndWhenDropped {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Stopped)?
}

fn mark(connection: &Connection, name: &str) -> Result<Option<Timestamp>, StoreError> {
    let at: Option<i64> =
        connection.query_row("SELECT at FROM control WHERE name = ?1", [name], |row| row.get(0)).optional()?;
    at.map(from_ms).transpose()
}

fn set_mark(connection: &Connection, name: &str, at: Timestamp) -> Result<(), StoreError> {
    connection.execute(
        "INSERT INTO control (name, value, at) VALUES (?1, '1', ?2) ON CONFLICT (name) DO UPDATE SET at = excluded.at",
        params![name, to_ms(at)],
    )?;
    Ok(())
}

fn take_mark(connection: &Connection, name: &str) -> Result<Option<Timestamp>, StoreError> {
    let at = mark(connection, name)?;
    if at.is_some() {
        connection.execute("DELETE FROM control WHERE name = ?1", [name])?;
    }
    Ok(at)
}
