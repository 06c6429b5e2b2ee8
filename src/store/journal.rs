//! The journal: what happened, in order, each record sealed with the one before it.
//!
//! A record is written in the transaction of what it tells, by whoever writes: the daemon, or a command beside it. The
//! previous hash is read inside that transaction, so there is one chain however many write. Whoever may write the file can
//! also compute the whole chain anew; that is noticed only by comparing with a head that is kept somewhere else.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::who::Who;
use super::{Store, StoreError, from_ms, to_ms};
use crate::model::action::{ActionState, Happening};

/// A SHA-256 digest; shown as 64 hexadecimal digits.
pub type Hash = [u8; 32];

/// What a record tells. Words are those of the tables. Parameters of actions are told whole, they hold no secrets; bodies of
/// events are not.
#[derive(Debug, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(super) enum Told<'a> {
    /// An event was decided and started runs that act.
    Decided { event: i64, uuid: &'a str, r#type: &'a str, user: Option<&'a str>, runs: Vec<RunTold<'a>> },
    /// Events were decided and started runs that only observe. They are told in sum, since nothing is done: a backfill that
    /// observes may start a million.
    Observed { runs: u64, first_run: i64, last_run: i64 },
    /// An action changed its state.
    Action(Changed<'a>),
    /// A person has a run undone, by a run of its own. What was still open of it is told as a change of each action.
    Reverted {
        event: i64,
        uuid: &'a str,
        r#type: &'a str,
        user: Option<&'a str>,
        reverts: i64,
        run: RunTold<'a>,
        by: &'a Who,
    },
    /// Dispatching was paused.
    Paused { by: &'a Who },
    /// Dispatching goes on.
    Resumed { by: &'a Who },
    /// Changes of a playbook await approval from here on: it went over a limit with this action, or a person said so. The
    /// message about it is planned with it.
    PlaybookStopped {
        playbook: &'a str,
        why: &'a str,
        action: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        alarm: Option<PlannedTold<'a>>,
        by: &'a Who,
    },
    /// A person let a playbook go on.
    PlaybookLetGoOn { playbook: &'a str, by: &'a Who },
    /// A stream begins.
    StreamBegun {
        stream: i64,
        kind: &'static str,
        since: Timestamp,
        until: Option<Timestamp>,
        execute: bool,
        by: &'a Who,
    },
    /// A stream begins again somewhere else: its cursor was lost, its query changed, or a person moved it.
    CursorReset { stream: i64, since: Timestamp, query: &'a str, by: &'a Who },
    /// A backfill was ended by a person.
    BackfillCancelled { stream: i64, by: &'a Who },
    /// The daemon goes by this configuration from here on.
    Configuration { sha256: &'a str, program: &'a str, by: &'a Who },
    /// Old rows were taken away.
    Pruned {
        kind: &'static str,
        rows: u64,
        /// The last record that went, where these were the journal's own.
        #[serde(skip_serializing_if = "Option::is_none")]
        anchor: Option<Anchor>,
    },
}

/// A change of an action's state, with what its row says behind it.
#[derive(Debug, Serialize)]
pub(super) struct Changed<'a> {
    pub action: i64,
    pub run: i64,
    pub step: String,
    pub kind: String,
    pub user: Option<String>,
    pub from: ActionState,
    pub to: ActionState,
    pub because: Happening,
    pub by: &'a Who,
    pub attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Value>,
}

/// A run of a decision.
#[derive(Debug, Serialize)]
pub(super) struct RunTold<'a> {
    pub run: i64,
    pub playbook: &'a str,
    pub mode: &'static str,
    pub actions: Vec<PlannedTold<'a>>,
}

/// An action as it was planned.
#[derive(Debug, Serialize)]
pub(super) struct PlannedTold<'a> {
    pub action: i64,
    pub step: &'a str,
    pub kind: &'a str,
    pub key: &'a str,
    pub state: ActionState,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params: Option<Value>,
    /// The end of its delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
}

/// A place in the chain: the number of a record and its hash. What stands before the first record there ever was has number
/// 0 and 32 zero bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Anchor {
    /// The number of the record.
    pub seq: u64,
    /// Its hash.
    #[serde(serialize_with = "as_hex")]
    pub hash: Hash,
}

/// A record of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRow {
    /// Its number: one more than that of the record before it.
    pub seq: u64,
    /// When, by our clock.
    pub at: Timestamp,
    /// A JSON object on one line.
    pub record: String,
    /// Its hash.
    pub hash: Hash,
}

/// A stretch of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// The place before its first record.
    pub anchor: Anchor,
    /// The number of its last record; that of the anchor when the stretch is empty.
    pub last: u64,
}

/// The hash of a record: SHA-256 over the previous hash in hexadecimal and the record's text.
pub fn seal(previous: &Hash, record: &str) -> Hash {
    let mut sha = Sha256::new();
    sha.update(hex(previous).as_bytes());
    sha.update(record.as_bytes());
    sha.finalize().into()
}

/// 64 hexadecimal digits.
pub fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Store {
    /// The newest record's place, or the anchor when there is none.
    pub async fn journal_head(&self) -> Result<Anchor, StoreError> {
        self.read(head).await
    }

    /// The stretch of the records of a time, by the moments they name: it begins behind the last record from before `since`
    /// and ends with the last one from before `until`. Stretches that meet in time so meet in the chain.
    pub async fn journal_stretch(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<Stretch, StoreError> {
        self.read(move |connection| {
            let (anchor, head) = (anchor(connection)?, head(connection)?);
            let before = |moment: Timestamp| -> Result<Option<u64>, StoreError> {
                Ok(connection
                    .prepare_cached("SELECT seq FROM journal WHERE at < ?1 ORDER BY seq DESC LIMIT 1")?
                    .query_row([to_ms(moment)], |row| row.get(0))
                    .optional()?)
            };
            let first = match since {
                Some(since) => before(since)?.unwrap_or(anchor.seq),
                None => anchor.seq,
            };
            let last = match until {
                Some(until) => before(until)?.unwrap_or(anchor.seq),
                None => head.seq,
            };
            Ok(Stretch { anchor: place(connection, first)?, last: last.max(first) })
        })
        .await
    }

    /// Records behind `after`, up to and with `last`, first one first, at most `most`.
    pub async fn journal_page(&self, after: u64, last: u64, most: usize) -> Result<Vec<JournalRow>, StoreError> {
        self.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT seq, at, record, hash FROM journal WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3",
                )?
                .query_map(params![after, last, most as i64], |row| Ok(journal_row(row)))?
                .map(|row| row?)
                .collect()
        })
        .await
    }

    /// The anchor that the newest prune of the journal told, if the record of it is still there. A state file whose own
    /// anchor is another one was tampered with.
    pub async fn journal_told_anchor(&self) -> Result<Option<(u64, String)>, StoreError> {
        self.read(|connection| {
            Ok(connection
                .query_row(
                    "SELECT json_extract(record, '$.anchor.seq'), json_extract(record, '$.anchor.hash') FROM journal
                     WHERE json_extract(record, '$.what') = 'pruned' AND json_extract(record, '$.kind') = 'journal'
                     ORDER BY seq DESC LIMIT 1",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?)
        })
        .await
    }

    /// Writes down by which configuration the program goes from here on: the digest of its files, never their content.
    pub async fn record_configuration(&self, sha256: String, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |connection| {
            let told = Told::Configuration { sha256: &sha256, program: env!("CARGO_PKG_VERSION"), by: &Who::PROGRAM };
            append(connection, now, &told)
        })
        .await
    }
}

/// Adds a record. The transaction that is open holds the write lock, so nobody else adds one meanwhile.
pub(super) fn append(connection: &Connection, now: Timestamp, told: &Told<'_>) -> Result<(), StoreError> {
    #[derive(Serialize)]
    struct Record<'a> {
        seq: u64,
        at: Timestamp,
        #[serde(flatten)]
        told: &'a Told<'a>,
    }
    let head = head(connection)?;
    let seq = head.seq + 1;
    // As exact as the column beside it.
    let at = from_ms(to_ms(now))?;
    let record = serde_json::to_string(&Record { seq, at, told })
        .map_err(|error| StoreError::Unreadable(format!("a record for the journal: {error}")))?;
    let hash = seal(&head.hash, &record);
    connection
        .prepare_cached("INSERT INTO journal (seq, at, record, hash) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![seq, to_ms(at), record, hash])?;
    Ok(())
}

/// Takes the oldest records away, at most `most`, as far as they are from before `before`, and tells so in a new one that
/// names the last that went. A record whose moment lies behind `latest` cannot be judged; it goes with older ones behind it.
pub(super) fn take_front_away(
    connection: &Connection,
    before: i64,
    latest: i64,
    most: usize,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let front: Vec<(u64, i64)> = connection
        .prepare_cached("SELECT seq, at FROM journal ORDER BY seq LIMIT ?1")?
        .query_map([most as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let Some((last, _)) =
        front.iter().take_while(|(_, at)| *at < before || *at > latest).filter(|(_, at)| *at < before).last()
    else {
        return Ok(0);
    };
    let anchor = place(connection, *last)?;
    connection
        .prepare_cached("UPDATE retention SET anchor_seq = ?1, anchor_hash = ?2")?
        .execute(params![anchor.seq, anchor.hash])?;
    let rows = connection.prepare_cached("DELETE FROM journal WHERE seq <= ?1")?.execute([anchor.seq])? as u64;
    append(connection, now, &Told::Pruned { kind: "journal", rows, anchor: Some(anchor) })?;
    Ok(rows)
}

/// JSON text as JSON, for embedding; what is none is embedded as text.
pub(super) fn embedded(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|_| Value::from(json))
}

fn head(connection: &Connection) -> Result<Anchor, StoreError> {
    let newest = connection
        .prepare_cached("SELECT seq, hash FROM journal ORDER BY seq DESC LIMIT 1")?
        .query_row([], |row| Ok(Anchor { seq: row.get(0)?, hash: row.get(1)? }))
        .optional()?;
    newest.map_or_else(|| anchor(connection), Ok)
}

fn anchor(connection: &Connection) -> Result<Anchor, StoreError> {
    Ok(connection
        .prepare_cached("SELECT anchor_seq, anchor_hash FROM retention")?
        .query_row([], |row| Ok(Anchor { seq: row.get(0)?, hash: row.get(1)? }))?)
}

/// The record with this number as a place: one that is there, or the anchor.
fn place(connection: &Connection, seq: u64) -> Result<Anchor, StoreError> {
    let hash = connection
        .prepare_cached("SELECT hash FROM journal WHERE seq = ?1")?
        .query_row([seq], |row| row.get(0))
        .optional()?;
    match hash {
        Some(hash) => Ok(Anchor { seq, hash }),
        None => anchor(connection),
    }
}

fn journal_row(row: &Row<'_>) -> Result<JournalRow, StoreError> {
    Ok(JournalRow { seq: row.get(0)?, at: from_ms(row.get(1)?)?, record: row.get(2)?, hash: row.get(3)? })
}

fn as_hex<S: serde::Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex(hash))
}
