//! What was done for events, for whoever asks what another configuration would have done.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};
use serde_json::Value;

use super::status::{json, limit};
use super::{Store, StoreError, from_ms, from_optional_ms, to_ms};

/// An event that is decided, with all that came of it.
#[derive(Debug, Clone)]
pub struct Past {
    /// Its row.
    pub id: i64,
    /// Such as `okta`.
    pub source: String,
    /// Its uuid.
    pub uuid: String,
    /// When it was stored.
    pub received_at: Timestamp,
    /// `decided`, `skipped` or `superseded`.
    pub state: String,
    /// Why it was skipped.
    pub reason: Option<String>,
    /// Whether it came with a backfill that only observes.
    pub only_observed: bool,
    /// The record, if it is still kept.
    pub body: Option<String>,
    /// The runs of playbooks, in the order in which they were planned.
    pub runs: Vec<PastRun>,
}

/// A run.
#[derive(Debug, Clone)]
pub struct PastRun {
    /// Its row.
    pub id: i64,
    /// The playbook.
    pub playbook: String,
    /// Whether it only observed.
    pub observe: bool,
    /// The facts that were fetched for it.
    pub facts: Option<Value>,
    /// When it was decided.
    pub created_at: Timestamp,
    /// Its actions, in the order in which they were planned.
    pub actions: Vec<PastAction>,
}

/// An action.
#[derive(Debug, Clone)]
pub struct PastAction {
    /// Its row.
    pub id: i64,
    /// The step.
    pub step: String,
    /// `connector.noun.verb`
    pub action: String,
    /// Where it stands.
    pub state: String,
    /// A word from a closed list.
    pub reason: Option<String>,
    /// A sentence.
    pub error: Option<String>,
    /// Final parameters; `None` when they were never filled in.
    pub params: Option<Value>,
    /// What the service called it.
    pub receipt: Option<Value>,
    /// When its first attempt began. Its parameters were filled in before that.
    pub first_attempt: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl Store {
    /// The rows of the newest decided events, the newest first; at most so many, published at or after `since`.
    pub async fn decided_events(&self, most: usize, since: Option<Timestamp>) -> Result<Vec<i64>, StoreError> {
        let since = since.map_or(i64::MIN, to_ms);
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT id FROM event WHERE state IN ('decided', 'skipped', 'superseded') AND published >= ?1
                 ORDER BY id DESC {}",
                limit(most)
            ))?;
            let rows = statement.query_map([since], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// One event with all that came of it; `None` when it was pruned meanwhile.
    pub async fn past(&self, event: i64) -> Result<Option<Past>, StoreError> {
        self.read(move |connection| {
            // One snapshot: the daemon goes on writing.
            let connection = connection.unchecked_transaction()?;
            let found = connection
                .query_row(
                    "SELECT e.source, e.uuid, e.received_at, e.state, e.reason, s.kind = 'backfill' AND NOT s.execute, b.body
                     FROM event e JOIN stream s ON s.id = e.stream LEFT JOIN event_body b ON b.event = e.id WHERE e.id = ?1",
                    [event],
                    |row| {
                        Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
                    },
                )
                .optional()?;
            let Some((source, uuid, received_at, state, reason, only_observed, body)) = found else { return Ok(None) };
            let mut runs = Vec::new();
            let mut statement = connection.prepare_cached(
                "SELECT id, playbook, mode = 'observe', facts, created_at FROM run WHERE event = ?1 AND reverts IS NULL ORDER BY id",
            )?;
            let mut rows = statement.query(params![event])?;
            while let Some(row) = rows.next()? {
                let id = row.get(0)?;
                runs.push(PastRun {
                    id,
                    playbook: row.get(1)?,
                    observe: row.get(2)?,
                    facts: json(row.get(3)?)?,
                    created_at: from_ms(row.get(4)?)?,
                    actions: actions(&connection, id)?,
                });
            }
            let received_at = from_ms(received_at)?;
            Ok(Some(Past { id: event, source, uuid, received_at, state, reason, only_observed, body, runs }))
        })
        .await
    }
}

fn actions(connection: &rusqlite::Connection, run: i64) -> Result<Vec<PastAction>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, step, kind, state, reason, error, params, receipt,
                (SELECT min(started_at) FROM attempt WHERE action = action.id), finished_at
         FROM action WHERE run = ?1 ORDER BY id",
    )?;
    let mut rows = statement.query([run])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(PastAction {
            id: row.get(0)?,
            step: row.get(1)?,
            action: row.get(2)?,
            state: row.get(3)?,
            reason: row.get(4)?,
            error: row.get(5)?,
            params: json(row.get(6)?)?,
            receipt: json(row.get(7)?)?,
            first_attempt: from_optional_ms(row.get(8)?)?,
            finished_at: from_optional_ms(row.get(9)?)?,
        });
    }
    Ok(found)
}
