//! Streams, pages and the cursor.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use sha2::{Digest, Sha256};

use super::journal::{self, Told};
use super::rates::{self, RateSnapshot};
use super::who::Who;
use super::{Store, StoreError, from_ms, from_optional_ms, to_ms};
use crate::halt::{self, Point};
use crate::model::event::Traits;
use crate::model::ids::StreamId;

/// The most characters of a quarantined record that are kept.
const MAX_QUARANTINED: usize = 64 * 1024;

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// The endless read of what happens now; one for each source.
    Live,
    /// A bounded read of the past.
    Backfill,
}

/// Whether a stream goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamState {
    /// It is read.
    Active,
    /// It reached its end.
    Done,
    /// A person ended it.
    Cancelled,
}

/// A stream to be made.
#[derive(Debug, Clone)]
pub struct NewStream {
    /// Such as `okta`.
    pub source: String,
    /// Live or backfill.
    pub kind: StreamKind,
    /// The server-side filter; empty when the filter is applied on our side.
    pub query: String,
    /// Where it begins.
    pub since: Timestamp,
    /// Where a backfill ends.
    pub until: Option<Timestamp>,
    /// Whether a backfill acts on what it finds; else it observes.
    pub execute: bool,
}

/// One resumable read of a source, as it stands.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Its row.
    pub id: StreamId,
    /// Such as `okta`.
    pub source: String,
    /// Live or backfill.
    pub kind: StreamKind,
    /// Whether it goes on.
    pub state: StreamState,
    /// The filter that the cursor belongs to.
    pub query: String,
    /// The verbatim `rel=next` URL; `None` before the first page.
    pub next_url: Option<String>,
    /// Where it began, or began again.
    pub since: Timestamp,
    /// Where it was first meant to begin; it never begins again before that.
    pub began: Timestamp,
    /// Where a backfill ends.
    pub until: Option<Timestamp>,
    /// Whether a backfill acts.
    pub execute: bool,
    /// The source's clock at the last page that was stored.
    pub last_good_poll: Option<Timestamp>,
    /// The newest event it stored.
    pub newest: Option<Timestamp>,
    /// Events it stored so far.
    pub stored: u64,
}

/// An event of a page.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The source's id of it.
    pub uuid: String,
    /// Its type.
    pub event_type: String,
    /// When it happened, by the source's clock.
    pub published: Timestamp,
    /// The id of the affected user.
    pub subject: Option<String>,
    /// The level that a risk event tells.
    pub risk: Option<&'static str>,
    /// What others are searched by.
    pub traits: Traits,
    /// The record, verbatim.
    pub body: String,
}

/// A record of a page that is no event.
#[derive(Debug, Clone)]
pub struct Quarantined {
    /// Why.
    pub error: String,
    /// The record, verbatim.
    pub raw: String,
}

/// Transaction T1: a page and the cursor behind it.
#[derive(Debug, Clone)]
pub struct PageCommit {
    /// The stream it was read for.
    pub stream: StreamId,
    /// The cursor that the page was asked for with, as the stream had it.
    pub asked: Option<String>,
    /// The cursor behind the page.
    pub next_url: String,
    /// Its events that some playbook wants.
    pub events: Vec<NewEvent>,
    /// How many were left out because no playbook wants their type.
    pub unwanted: u64,
    /// Records that are no events.
    pub quarantined: Vec<Quarantined>,
    /// The source's clock when it answered.
    pub source_now: Timestamp,
    /// Whether the stream ends with this page.
    pub last: bool,
}

/// What became of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PageCounts {
    /// New events.
    pub stored: u64,
    /// Events that were in the inbox already.
    pub duplicates: u64,
}

impl Store {
    /// The live stream of a source, if it was ever begun.
    pub async fn live_stream(&self, source: &str) -> Result<Option<Stream>, StoreError> {
        let source = source.to_owned();
        self.read(move |connection| {
            connection
                .prepare_cached(&format!("{SELECT_STREAM} WHERE source = ?1 AND kind = 'live'"))?
                .query_row([source], |row| Ok(stream(row)))
                .optional()?
                .transpose()
        })
        .await
    }

    /// One stream.
    pub async fn stream(&self, id: StreamId) -> Result<Option<Stream>, StoreError> {
        self.read(move |connection| {
            connection
                .prepare_cached(&format!("{SELECT_STREAM} WHERE id = ?1"))?
                .query_row([id.0], |row| Ok(stream(row)))
                .optional()?
                .transpose()
        })
        .await
    }

    /// Backfills that are to be read, oldest first.
    pub async fn active_backfills(&self) -> Result<Vec<Stream>, StoreError> {
        self.read(|connection| {
            connection
                .prepare_cached(&format!("{SELECT_STREAM} WHERE kind = 'backfill' AND state = 'active' ORDER BY id"))?
                .query_map([], |row| Ok(stream(row)))?
                .map(|row| row?)
                .collect()
        })
        .await
    }

    /// Begins a stream.
    pub async fn create_stream(&self, new: NewStream, now: Timestamp) -> Result<StreamId, StoreError> {
        // Backfills are asked for by people only.
        let (kind, who) = match new.kind {
            StreamKind::Live => ("live", Who::PROGRAM),
            StreamKind::Backfill => ("backfill", Who::person("backfill")),
        };
        self.write(move |connection| {
            connection.execute(
                "INSERT INTO stream (source, kind, state, query, since, began, until, execute, created_at, updated_at)
                 VALUES (?1, ?2, 'active', ?3, ?4, ?4, ?5, ?6, ?7, ?7)",
                params![new.source, kind, new.query, to_ms(new.since), new.until.map(to_ms), new.execute, to_ms(now)],
            )?;
            let stream = connection.last_insert_rowid();
            let NewStream { since, until, execute, .. } = new;
            let told = Told::StreamBegun { stream, kind, since, until, execute, by: &who };
            journal::append(connection, now, &told)?;
            Ok(StreamId(stream))
        })
        .await
    }

    /// Drops a stream's cursor and begins again at `since` with `query`: the cursor was refused, the query changed, or a
    /// person asked for it. Events that are known already are recognised by their uuid.
    pub async fn restart_stream(
        &self,
        id: StreamId,
        query: String,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let who = if self.beside { Who::person("cursor reset") } else { Who::PROGRAM };
        self.write(move |connection| {
            connection.execute(
                "UPDATE stream SET next_url = NULL, query = ?2, since = ?3, began = min(began, ?3),
                                   restarts = restarts + 1, updated_at = ?4
                 WHERE id = ?1",
                params![id.0, query, to_ms(since), to_ms(now)],
            )?;
            journal::append(connection, now, &Told::CursorReset { stream: id.0, since, query: &query, by: &who })
        })
        .await
    }

    /// Records what keeps a stream from going on, or that nothing does.
    pub async fn set_stream_problem(
        &self,
        id: StreamId,
        problem: Option<String>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(move |connection| {
            connection.execute(
                "UPDATE stream SET problem = ?2, updated_at = ?3 WHERE id = ?1",
                params![id.0, problem, to_ms(now)],
            )?;
            Ok(())
        })
        .await
    }

    /// T1: stores a page and moves the cursor behind it, in one transaction. The cursor moves in no other way.
    ///
    /// Refused when the stream's cursor is not the one that the page was asked for with, or the stream has ended.
    pub async fn commit_page(&self, page: PageCommit, now: Timestamp) -> Result<PageCounts, StoreError> {
        self.commit_page_and_rates(page, None, now).await
    }

    /// The same, and in the same transaction how Okta's rate limits stand.
    pub async fn commit_page_and_rates(
        &self,
        page: PageCommit,
        rates: Option<RateSnapshot>,
        now: Timestamp,
    ) -> Result<PageCounts, StoreError> {
        self.write(move |connection| {
            let counts = commit_page(connection, &page, now)?;
            if let Some(rates) = &rates {
                rates::note(connection, rates)?;
            }
            if counts.stored > 0 {
                halt::point(Point::InsideT1);
            }
            Ok(counts)
        })
        .await
    }
}

/// The stream that a page was read for.
struct Reader {
    source: String,
    backfill: bool,
    execute: bool,
}

impl Reader {
    /// How its events begin.
    fn state(&self) -> &'static str {
        if self.backfill && self.execute { "held" } else { "new" }
    }
}

fn commit_page(connection: &Connection, page: &PageCommit, now: Timestamp) -> Result<PageCounts, StoreError> {
    let mut of_stream = connection.prepare_cached(
        "SELECT source, kind = 'backfill', execute, next_url FROM stream WHERE id = ?1 AND state = 'active'",
    )?;
    let (reader, cursor): (Reader, Option<String>) = of_stream
        .query_row([page.stream.0], |row| {
            let reader = Reader { source: row.get(0)?, backfill: row.get(1)?, execute: row.get(2)? };
            Ok((reader, row.get(3)?))
        })
        .optional()?
        .ok_or(StoreError::CursorMoved)?;
    if cursor != page.asked {
        return Err(StoreError::CursorMoved);
    }
    let mut counts = PageCounts::default();
    let mut newest: Option<i64> = None;
    {
        let mut insert = connection.prepare_cached(
            "INSERT INTO event (source, uuid, type, published, received_at, stream, subject, risk, backfill, state,
                                actor, ip, country, device, outcome)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) ON CONFLICT (source, uuid) DO NOTHING",
        )?;
        let mut insert_body = connection.prepare_cached("INSERT INTO event_body (event, body) VALUES (?1, ?2)")?;
        for event in &page.events {
            let mut insert = || {
                insert.execute(params![
                    reader.source,
                    event.uuid,
                    event.event_type,
                    to_ms(event.published),
                    to_ms(now),
                    page.stream.0,
                    event.subject,
                    event.risk,
                    reader.backfill,
                    reader.state(),
                    event.traits.actor,
                    event.traits.ip,
                    event.traits.country,
                    event.traits.device,
                    event.traits.outcome,
                ])
            };
            newest = newest.max(Some(to_ms(event.published)));
            let mut inserted = insert()?;
            if inserted == 0 && set_free(connection, &reader, &event.uuid)? {
                inserted = insert()?;
            }
            if inserted == 0 {
                counts.duplicates += 1;
                continue;
            }
            counts.stored += 1;
            insert_body.execute(params![connection.last_insert_rowid(), event.body])?;
        }
    }
    for record in &page.quarantined {
        quarantine(connection, page.stream, record, now)?;
    }
    connection
        .prepare_cached(
            "UPDATE stream SET next_url = ?2, last_good_poll = ?3, newest = max(coalesce(newest, ?4), coalesce(?4, newest)),
                    pages = pages + 1, stored = stored + ?5, duplicates = duplicates + ?6, unwanted = unwanted + ?7,
                    quarantined = quarantined + ?8, problem = NULL, state = iif(?9, 'done', state), updated_at = ?10
             WHERE id = ?1",
        )?
        .execute(params![
            page.stream.0,
            page.next_url,
            to_ms(page.source_now),
            newest,
            counts.stored,
            counts.duplicates,
            page.unwanted,
            page.quarantined.len(),
            page.last,
            to_ms(now),
        ])?;
    if page.last && reader.execute {
        connection.execute("UPDATE event SET state = 'new' WHERE stream = ?1 AND state = 'held'", [page.stream.0])?;
    }
    Ok(counts)
}

/// Frees, for a stream that acts, an event that a backfill met first and has not acted on: one that only observes, or was
/// cancelled, or (for the live stream) has not read to its end. Else a backfill over a time that the live stream has still
/// to read would swallow what happened in it, and looking first would leave nothing to act on. What was observed is
/// forgotten, the event with it: stored anew it gets a number that was never given, so that a decision under way for the
/// old row finds nothing. Returns whether there is room for it now; there is none when the event is no such one, or when a
/// person has had something of it done: that is on record for good.
fn set_free(connection: &Connection, reader: &Reader, uuid: &str) -> Result<bool, StoreError> {
    if reader.backfill && !reader.execute {
        return Ok(false);
    }
    let old: Option<i64> = connection
        .prepare_cached(
            "SELECT e.id FROM event e JOIN stream s ON s.id = e.stream
             WHERE e.source = ?1 AND e.uuid = ?2 AND s.kind = 'backfill'
               AND (NOT s.execute OR e.reason = 'backfill cancelled' OR (e.state = 'held' AND NOT ?3))
               AND NOT EXISTS (SELECT 1 FROM run r JOIN action a ON a.run = r.id
                               WHERE r.event = e.id AND (a.finished_at IS NULL OR a.attempts > 0))",
        )?
        .query_row(params![reader.source, uuid, reader.backfill], |row| row.get(0))
        .optional()?;
    let Some(old) = old else { return Ok(false) };
    for forgotten in [
        "DELETE FROM action WHERE run IN (SELECT id FROM run WHERE event = ?1)",
        "DELETE FROM run WHERE event = ?1",
        "DELETE FROM event_body WHERE event = ?1",
        "DELETE FROM event WHERE id = ?1",
    ] {
        connection.prepare_cached(forgotten)?.execute([old])?;
    }
    Ok(true)
}

fn quarantine(
    connection: &Connection,
    stream: StreamId,
    record: &Quarantined,
    now: Timestamp,
) -> Result<(), StoreError> {
    let digest: String = Sha256::digest(record.raw.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let kept: String = record.raw.chars().take(MAX_QUARANTINED).collect();
    connection.execute(
        "INSERT INTO quarantine (stream, received_at, digest, error, raw) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (digest) DO NOTHING",
        params![stream.0, to_ms(now), digest, record.error, kept],
    )?;
    Ok(())
}

const SELECT_STREAM: &str = "SELECT id, source, kind, state, query, next_url, since, until, execute, last_good_poll, \
                             newest, stored, began FROM stream";

fn stream(row: &Row<'_>) -> Result<Stream, StoreError> {
    let kind: String = row.get(2)?;
    let state: String = row.get(3)?;
    Ok(Stream {
        id: StreamId(row.get(0)?),
        source: row.get(1)?,
        kind: match kind.as_str() {
            "live" => StreamKind::Live,
            "backfill" => StreamKind::Backfill,
            other => return Err(StoreError::Unreadable(format!("stream kind `{other}`"))),
        },
        state: match state.as_str() {
            "active" => StreamState::Active,
            "done" => StreamState::Done,
            "cancelled" => StreamState::Cancelled,
            other => return Err(StoreError::Unreadable(format!("stream state `{other}`"))),
        },
        query: row.get(4)?,
        next_url: row.get(5)?,
        since: from_ms(row.get(6)?)?,
        until: from_optional_ms(row.get(7)?)?,
        execute: row.get(8)?,
        last_good_poll: from_optional_ms(row.get(9)?)?,
        newest: from_optional_ms(row.get(10)?)?,
        stored: row.get(11)?,
        began: from_ms(row.get(12)?)?,
    })
}
