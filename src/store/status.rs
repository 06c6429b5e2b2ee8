//! Read models: what people and scripts are shown.

use jiff::Timestamp;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};
use serde::Serialize;
use serde_json::Value;

use super::rates::{self, RateSnapshot};
use super::trips::{TripRow, trips_in_force};
use super::{Store, StoreError, from_ms, from_optional_ms, to_ms};
use crate::model::ids::StreamId;
use crate::model::lenient;

/// How things stand.
#[derive(Debug, Clone, Serialize)]
pub struct StatusSnapshot {
    /// Since when dispatching is paused.
    pub paused_since: Option<Timestamp>,
    /// Playbooks whose changes await approval until a person lets them go on, the latest first.
    pub stopped_playbooks: Vec<TripRow>,
    /// Actions that the guard does not let go because it cannot read whom they are about.
    pub unreadable: u64,
    /// What keeps the daemon from reading the log, if it still did when it was looked last.
    pub standstill: Option<Standstill>,
    /// The streams; the live one first, then backfills, newest first.
    pub streams: Vec<StreamRow>,
    /// Events by state.
    pub events: Vec<(String, u64)>,
    /// How many runs there are.
    pub runs: u64,
    /// Actions by state.
    pub actions: Vec<(String, u64)>,
    /// Records in quarantine.
    pub quarantined: u64,
    /// The bytes of the state file and its log.
    pub bytes: u64,
    /// When the oldest event whose record is still there was received.
    pub oldest_body: Option<Timestamp>,
    /// When old rows were last pruned.
    pub last_prune: Option<Timestamp>,
    /// When the oldest event without a decision was received.
    pub oldest_undecided: Option<Timestamp>,
    /// Since when the oldest action that is not at its end could be: since it was planned, or since its delay ended. What is
    /// still delayed does not count, nor what waits for that.
    pub oldest_open_action: Option<Timestamp>,
    /// How many actions wait for the end of a delay, and when the first of them ends.
    pub delayed: (u64, Option<Timestamp>),
    /// Okta's rate limits as the daemon last told them.
    pub rates: Option<RateSnapshot>,
    /// Messages that may not have been sent, of the last day.
    pub in_doubt_last_day: u64,
    /// Actions that failed in the last day.
    pub failed_last_day: u64,
}

/// What keeps the daemon from reading the log at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standstill {
    /// What, and what to do.
    pub words: String,
    /// Whether it stays so until a person does something.
    pub for_a_person: bool,
}

/// A stream, for people.
#[derive(Debug, Clone, Serialize)]
pub struct StreamRow {
    /// Its row.
    pub id: i64,
    /// Such as `okta`.
    pub source: String,
    /// `live` or `backfill`.
    pub kind: String,
    /// `active`, `done` or `cancelled`.
    pub state: String,
    /// The server-side filter; empty when the filter is applied on our side.
    pub query: String,
    /// The verbatim `rel=next` URL.
    pub next_url: Option<String>,
    /// Where it began, or began again.
    pub since: Timestamp,
    /// Where a backfill ends.
    pub until: Option<Timestamp>,
    /// Whether a backfill acts.
    pub execute: bool,
    /// The source's clock at the last stored page.
    pub last_good_poll: Option<Timestamp>,
    /// The newest event it stored.
    pub newest: Option<Timestamp>,
    /// Pages stored.
    pub pages: u64,
    /// Events stored.
    pub stored: u64,
    /// Events that were known already.
    pub duplicates: u64,
    /// Events left out because no playbook wants their type.
    pub unwanted: u64,
    /// Records in quarantine.
    pub quarantined: u64,
    /// How often it began again.
    pub restarts: u64,
    /// What keeps it from going on.
    pub problem: Option<String>,
}

/// What became of the events of a backfill.
#[derive(Debug, Clone, Default, Serialize)]
pub struct BackfillResults {
    /// Its events by state.
    pub events: Vec<(String, u64)>,
    /// Their runs by mode.
    pub runs: Vec<(String, u64)>,
    /// The actions of those by state.
    pub actions: Vec<(String, u64)>,
}

/// Which events to list.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Only this state.
    pub state: Option<String>,
    /// Only this type.
    pub event_type: Option<String>,
    /// Only this affected user (id).
    pub user: Option<String>,
    /// Only published at or after.
    pub since: Option<Timestamp>,
    /// At most so many, newest first.
    pub limit: usize,
}

/// An event, for people.
#[derive(Debug, Clone, Serialize)]
pub struct EventRow {
    /// Its row.
    pub id: i64,
    /// Such as `okta`.
    pub source: String,
    /// The source's id.
    pub uuid: String,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// When it happened.
    pub published: Timestamp,
    /// When it was stored.
    pub received_at: Timestamp,
    /// The affected user.
    pub user: Option<String>,
    /// The level that a risk event tells.
    pub risk: Option<String>,
    /// `held`, `new`, `decided`, `skipped` or `superseded`.
    pub state: String,
    /// Why it was skipped or put off.
    pub reason: Option<String>,
    /// The stream that stored it.
    pub stream: i64,
}

/// Which runs to list.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Only this playbook.
    pub playbook: Option<String>,
    /// Only this event (row or uuid).
    pub event: Option<String>,
    /// Only planned at or after.
    pub since: Option<Timestamp>,
    /// At most so many, newest first.
    pub limit: usize,
}

/// A run, for people.
#[derive(Debug, Clone, Serialize)]
pub struct RunRow {
    /// Its row.
    pub id: i64,
    /// The playbook.
    pub playbook: String,
    /// `enforce` or `observe`.
    pub mode: String,
    /// The event's row.
    pub event: i64,
    /// The event's uuid.
    pub event_uuid: String,
    /// The event's type.
    pub event_type: String,
    /// The affected user.
    pub user: Option<String>,
    /// When it was decided.
    pub created_at: Timestamp,
    /// Its actions by state, such as `2 succeeded, 1 failed`.
    pub actions: String,
    /// The run that it undoes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reverts: Option<i64>,
    /// The runs that undo it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reverted_by: Vec<i64>,
}

/// Which actions to list.
#[derive(Debug, Clone, Default)]
pub struct ActionFilter {
    /// Only these states; empty for all.
    pub states: Vec<String>,
    /// Only this run.
    pub run: Option<i64>,
    /// Only this `connector.noun.verb`.
    pub kind: Option<String>,
    /// Only this affected user (id).
    pub user: Option<String>,
    /// Only this playbook.
    pub playbook: Option<String>,
    /// Only planned at or after.
    pub since: Option<Timestamp>,
    /// Only this one.
    pub id: Option<i64>,
    /// At most so many, newest first.
    pub limit: usize,
}

/// An action, for people.
#[derive(Debug, Clone, Serialize)]
pub struct ActionRow {
    /// Its row.
    pub id: i64,
    /// Its run.
    pub run: i64,
    /// The playbook.
    pub playbook: String,
    /// The step.
    pub step: String,
    /// `connector.noun.verb`
    pub action: String,
    /// The affected user.
    pub user: Option<String>,
    /// Where it stands.
    pub state: String,
    /// A word from a closed list.
    pub reason: Option<String>,
    /// A sentence.
    pub error: Option<String>,
    /// How many attempts were made.
    pub attempts: u32,
    /// When it is due, if it is not at its end.
    pub due: Option<Timestamp>,
    /// The end of its delay, while it waits for that.
    pub delayed_until: Option<Timestamp>,
    /// What is asked when its delay ends; when it is true, it is not done.
    pub cancel_if: Option<String>,
    /// What the service called it.
    pub receipt: Option<Value>,
    /// The idempotency key.
    pub key: String,
    /// The lane.
    pub lane: Option<String>,
    /// Final parameters.
    pub params: Option<Value>,
    /// When it was planned.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When a person approved it.
    pub approved_at: Option<Timestamp>,
    /// Who, as far as the command line knows.
    pub approved_by: Option<String>,
    /// The action that it undoes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reverts: Option<i64>,
}

/// An attempt, for people.
#[derive(Debug, Clone, Serialize)]
pub struct AttemptRow {
    /// 1 for the first.
    pub number: u32,
    /// When its row was written, just before the request.
    pub started_at: Timestamp,
    /// When its outcome was known.
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<String>,
    /// A word from a closed list.
    pub reason: Option<String>,
    /// A sentence.
    pub detail: Option<String>,
}

/// A record in quarantine.
#[derive(Debug, Clone, Serialize)]
pub struct QuarantineRow {
    /// Its row.
    pub id: i64,
    /// The stream that met it.
    pub stream: i64,
    /// When.
    pub received_at: Timestamp,
    /// Why it is no event.
    pub error: String,
    /// The record (its first 64 KiB).
    pub raw: String,
}

impl Store {
    /// How things stand.
    pub async fn status(&self, now: Timestamp) -> Result<StatusSnapshot, StoreError> {
        let day_ago = to_ms(now) - 24 * 3600 * 1000;
        let (bytes, at) = (self.size_on_disk(), to_ms(now));
        self.read(move |connection| {
            let optional = |sql: &str| -> Result<Option<Timestamp>, StoreError> {
                from_optional_ms(connection.query_row(sql, [], |row| row.get(0)).optional()?.flatten())
            };
            let count = |sql: &str| -> Result<u64, StoreError> { Ok(connection.query_row(sql, [], |row| row.get(0))?) };
            Ok(StatusSnapshot {
                paused_since: optional("SELECT max(at) FROM control WHERE name = 'paused'")?,
                stopped_playbooks: trips_in_force(connection)?,
                unreadable: count(
                    "SELECT count(*) FROM action WHERE state IN ('ready', 'retry') AND reason = 'guard'",
                )?,
                standstill: standstill(connection)?,
                streams: list(connection, &format!("{STREAM} ORDER BY kind = 'live' DESC, id DESC LIMIT 20"), vec![], stream_row)?,
                events: by_state(connection, "event")?,
                runs: count("SELECT count(*) FROM run")?,
                actions: by_state(connection, "action")?,
                quarantined: count("SELECT count(*) FROM quarantine")?,
                bytes,
                oldest_body: optional(
                    "SELECT received_at FROM event WHERE id = (SELECT min(event) FROM event_body)",
                )?,
                last_prune: optional("SELECT pruned_at FROM retention")?,
                oldest_undecided: optional("SELECT min(received_at) FROM event WHERE state = 'new'")?,
                oldest_open_action: optional(
                    "SELECT min(max(a.created_at, coalesce(a.not_before, 0))) FROM action a WHERE a.finished_at IS NULL
                       AND NOT (a.state = 'waiting' AND EXISTS (
                            SELECT 1 FROM action d WHERE d.run = a.run AND d.state = 'waiting' AND d.due = d.not_before
                               AND (d.id = a.id OR a.open_after > 0)))",
                )?,
                delayed: connection.query_row(
                    "SELECT count(*), min(not_before) FROM action WHERE state = 'waiting' AND not_before > ?1",
                    [at],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                ).map_err(StoreError::from).and_then(|(count, first)| Ok((count, from_optional_ms(first)?)))?,
                rates: rates::told(connection)?,
                in_doubt_last_day: count(&format!(
                    "SELECT count(*) FROM action WHERE state = 'settled' AND reason = 'in_doubt' AND finished_at >= {day_ago}"
                ))?,
                failed_last_day: count(&format!(
                    "SELECT count(*) FROM action WHERE state = 'failed' AND finished_at >= {day_ago}"
                ))?,
            })
        })
        .await
    }

    /// Events, newest first.
    pub async fn list_events(&self, filter: EventFilter) -> Result<Vec<EventRow>, StoreError> {
        self.read(move |connection| {
            let mut query = Where::default();
            query.equal("state", filter.state);
            query.equal("type", filter.event_type);
            query.equal("subject", filter.user);
            query.since("published", filter.since);
            list(
                connection,
                &format!("{EVENT} {} ORDER BY id DESC {}", query.text(), limit(filter.limit)),
                query.values,
                event_row,
            )
        })
        .await
    }

    /// One event, by row or by uuid, with its record if that is still there.
    pub async fn find_event(&self, id_or_uuid: &str) -> Result<Option<(EventRow, Option<Value>)>, StoreError> {
        let wanted = Sql::Text(id_or_uuid.to_owned());
        self.read(move |connection| {
            let found = list(
                connection,
                &format!("{EVENT} WHERE uuid = ?1 OR id = CAST(?1 AS INTEGER) AND ?1 NOT GLOB '*[^0-9]*' LIMIT 1"),
                vec![wanted],
                event_row,
            )?;
            let Some(event) = found.into_iter().next() else { return Ok(None) };
            let body: Vec<Option<Value>> = list(
                connection,
                "SELECT body FROM event_body WHERE event = ?1",
                vec![Sql::Integer(event.id)],
                |row| json(row.get(0)?),
            )?;
            Ok(Some((event, body.into_iter().next().flatten())))
        })
        .await
    }

    /// Runs, newest first.
    pub async fn list_runs(&self, filter: RunFilter) -> Result<Vec<RunRow>, StoreError> {
        self.read(move |connection| {
            let mut query = Where::default();
            query.equal("r.playbook", filter.playbook);
            query.since("r.created_at", filter.since);
            if let Some(event) = filter.event {
                query.add("(e.uuid = ? OR CAST(e.id AS TEXT) = ?)", [Sql::Text(event.clone()), Sql::Text(event)]);
            }
            list(
                connection,
                &format!("{RUN} {} ORDER BY r.id DESC {}", query.text(), limit(filter.limit)),
                query.values,
                run_row,
            )
        })
        .await
    }

    /// One run, with the facts that were fetched for it.
    pub async fn find_run(&self, id: i64) -> Result<Option<(RunRow, Option<Value>)>, StoreError> {
        self.read(move |connection| {
            let runs = list(connection, &format!("{RUN} WHERE r.id = ?1"), vec![Sql::Integer(id)], run_row)?;
            let facts = list(connection, "SELECT facts FROM run WHERE id = ?1", vec![Sql::Integer(id)], |row| {
                json(row.get(0)?)
            })?;
            Ok(runs.into_iter().next().zip(facts.into_iter().next()))
        })
        .await
    }

    /// Actions, newest first.
    pub async fn list_actions(&self, filter: ActionFilter) -> Result<Vec<ActionRow>, StoreError> {
        self.read(move |connection| {
            let mut query = Where::default();
            if !filter.states.is_empty() {
                let marks = vec!["?"; filter.states.len()].join(", ");
                query.add(&format!("a.state IN ({marks})"), filter.states.into_iter().map(Sql::Text));
            }
            query.equal("a.kind", filter.kind);
            query.equal("a.subject", filter.user);
            query.equal("r.playbook", filter.playbook);
            query.since("a.created_at", filter.since);
            if let Some(run) = filter.run {
                query.add("a.run = ?", [Sql::Integer(run)]);
            }
            if let Some(id) = filter.id {
                query.add("a.id = ?", [Sql::Integer(id)]);
            }
            list(
                connection,
                &format!("{ACTION} {} ORDER BY a.id DESC {}", query.text(), limit(filter.limit)),
                query.values,
                action_row,
            )
        })
        .await
    }

    /// The attempts of an action, first one first.
    pub async fn list_attempts(&self, action: i64) -> Result<Vec<AttemptRow>, StoreError> {
        self.read(move |connection| {
            list(
                connection,
                "SELECT number, started_at, ended_at, outcome, reason, detail FROM attempt WHERE action = ?1 ORDER BY number",
                vec![Sql::Integer(action)],
                |row| {
                    Ok(AttemptRow {
                        number: row.get(0)?,
                        started_at: from_ms(row.get(1)?)?,
                        ended_at: from_optional_ms(row.get(2)?)?,
                        outcome: row.get(3)?,
                        reason: row.get(4)?,
                        detail: row.get(5)?,
                    })
                },
            )
        })
        .await
    }

    /// Records in quarantine, newest first.
    pub async fn list_quarantine(&self, most: usize) -> Result<Vec<QuarantineRow>, StoreError> {
        self.read(move |connection| {
            list(
                connection,
                &format!("SELECT id, stream, received_at, error, raw FROM quarantine ORDER BY id DESC {}", limit(most)),
                vec![],
                |row| {
                    Ok(QuarantineRow {
                        id: row.get(0)?,
                        stream: row.get(1)?,
                        received_at: from_ms(row.get(2)?)?,
                        error: row.get(3)?,
                        raw: row.get(4)?,
                    })
                },
            )
        })
        .await
    }

    /// What became of the events of a backfill.
    pub async fn backfill_results(&self, stream: StreamId) -> Result<BackfillResults, StoreError> {
        self.read(move |connection| {
            let counts = |sql: &str| {
                list(connection, sql, vec![Sql::Integer(stream.0)], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?))
                })
            };
            Ok(BackfillResults {
                events: counts("SELECT state, count(*) FROM event WHERE stream = ?1 GROUP BY state ORDER BY state")?,
                runs: counts(
                    "SELECT r.mode, count(*) FROM run r JOIN event e ON e.id = r.event
                     WHERE e.stream = ?1 GROUP BY r.mode ORDER BY r.mode",
                )?,
                actions: counts(
                    "SELECT a.state, count(*) FROM action a JOIN run r ON r.id = a.run JOIN event e ON e.id = r.event
                     WHERE e.stream = ?1 GROUP BY a.state ORDER BY a.state",
                )?,
            })
        })
        .await
    }

    /// Every stream, for `cursor show`.
    pub async fn list_streams(&self) -> Result<Vec<StreamRow>, StoreError> {
        self.read(|connection| list(connection, &format!("{STREAM} ORDER BY id"), vec![], stream_row)).await
    }
}

/// A WHERE clause under construction; values only ever travel as parameters.
#[derive(Default)]
struct Where {
    terms: Vec<String>,
    values: Vec<Sql>,
}

impl Where {
    fn add(&mut self, term: &str, values: impl IntoIterator<Item = Sql>) {
        self.terms.push(term.to_owned());
        self.values.extend(values);
    }

    fn equal(&mut self, column: &str, value: Option<String>) {
        if let Some(value) = value {
            self.add(&format!("{column} = ?"), [Sql::Text(value)]);
        }
    }

    fn since(&mut self, column: &str, since: Option<Timestamp>) {
        if let Some(since) = since {
            self.add(&format!("{column} >= ?"), [Sql::Integer(to_ms(since))]);
        }
    }

    fn text(&self) -> String {
        if self.terms.is_empty() { String::new() } else { format!("WHERE {}", self.terms.join(" AND ")) }
    }
}

pub(super) fn limit(most: usize) -> String {
    format!("LIMIT {}", if most == 0 { i64::MAX } else { most as i64 })
}

fn list<T>(
    connection: &Connection,
    sql: &str,
    values: Vec<Sql>,
    mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn by_state(connection: &Connection, table: &str) -> Result<Vec<(String, u64)>, StoreError> {
    list(connection, &format!("SELECT state, count(*) FROM {table} GROUP BY state ORDER BY state"), vec![], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

pub(super) fn json(text: Option<String>) -> Result<Option<Value>, StoreError> {
    text.map(|text| lenient::from_str(&text).map_err(|_| StoreError::Unreadable("JSON".to_owned()))).transpose()
}

const STREAM: &str = "SELECT id, source, kind, state, query, next_url, since, until, execute, last_good_poll, newest, pages, \
                      stored, duplicates, unwanted, quarantined, restarts, problem FROM stream";

fn stream_row(row: &Row<'_>) -> Result<StreamRow, StoreError> {
    Ok(StreamRow {
        id: row.get(0)?,
        source: row.get(1)?,
        kind: row.get(2)?,
        state: row.get(3)?,
        query: row.get(4)?,
        next_url: row.get(5)?,
        since: from_ms(row.get(6)?)?,
        until: from_optional_ms(row.get(7)?)?,
        execute: row.get(8)?,
        last_good_poll: from_optional_ms(row.get(9)?)?,
        newest: from_optional_ms(row.get(10)?)?,
        pages: row.get(11)?,
        stored: row.get(12)?,
        duplicates: row.get(13)?,
        unwanted: row.get(14)?,
        quarantined: row.get(15)?,
        restarts: row.get(16)?,
        problem: row.get(17)?,
    })
}

const EVENT: &str =
    "SELECT id, source, uuid, type, published, received_at, subject, risk, state, reason, stream FROM event";

fn event_row(row: &Row<'_>) -> Result<EventRow, StoreError> {
    Ok(EventRow {
        id: row.get(0)?,
        source: row.get(1)?,
        uuid: row.get(2)?,
        event_type: row.get(3)?,
        published: from_ms(row.get(4)?)?,
        received_at: from_ms(row.get(5)?)?,
        user: row.get(6)?,
        risk: row.get(7)?,
        state: row.get(8)?,
        reason: row.get(9)?,
        stream: row.get(10)?,
    })
}

const RUN: &str = "SELECT r.id, r.playbook, r.mode, e.id, e.uuid, e.type, e.subject, r.created_at,
    (SELECT group_concat(n || ' ' || state, ', ') FROM
        (SELECT state, count(*) AS n FROM action WHERE run = r.id GROUP BY state ORDER BY n DESC)),
    r.reverts, (SELECT json_group_array(id) FROM (SELECT id FROM run WHERE reverts = r.id ORDER BY id))
    FROM run r JOIN event e ON e.id = r.event";

fn run_row(row: &Row<'_>) -> Result<RunRow, StoreError> {
    Ok(RunRow {
        id: row.get(0)?,
        playbook: row.get(1)?,
        mode: row.get(2)?,
        event: row.get(3)?,
        event_uuid: row.get(4)?,
        event_type: row.get(5)?,
        user: row.get(6)?,
        created_at: from_ms(row.get(7)?)?,
        actions: row.get::<_, Option<String>>(8)?.unwrap_or_default(),
        reverts: row.get(9)?,
        reverted_by: serde_json::from_str(&row.get::<_, String>(10)?)
            .map_err(|_| StoreError::Unreadable("the runs that undo one".to_owned()))?,
    })
}

const ACTION: &str =
    "SELECT a.id, a.run, r.playbook, a.step, a.kind, a.subject, a.state, a.reason, a.error, a.attempts,
    iif(a.finished_at IS NULL, a.due, NULL), a.receipt, a.key, a.lane, a.params, a.created_at, a.finished_at,
     a.approved_at, a.approved_by, iif(a.state = 'waiting' AND a.answered_at IS NULL AND a.due <= a.not_before, a.not_before, NULL),
     a.delayed_plan ->> '$.cancel_if', a.reverts
    FROM action a JOIN run r ON r.id = a.run";

fn action_row(row: &Row<'_>) -> Result<ActionRow, StoreError> {
    Ok(ActionRow {
        id: row.get(0)?,
        run: row.get(1)?,
        playbook: row.get(2)?,
        step: row.get(3)?,
        action: row.get(4)?,
        user: row.get(5)?,
        state: row.get(6)?,
        reason: row.get(7)?,
        error: row.get(8)?,
        attempts: row.get(9)?,
        due: from_optional_ms(row.get(10)?)?,
        receipt: json(row.get(11)?)?,
        key: row.get(12)?,
        lane: row.get(13)?,
        params: json(row.get(14)?)?,
        created_at: from_ms(row.get(15)?)?,
        finished_at: from_optional_ms(row.get(16)?)?,
        approved_at: from_optional_ms(row.get(17)?)?,
        approved_by: row.get(18)?,
        delayed_until: from_optional_ms(row.get(19)?)?,
        cancel_if: row.get(20)?,
        reverts: row.get(21)?,
    })
}

/// A page of the live stream takes its problem away, and with it the standstill is over.
fn standstill(connection: &Connection) -> Result<Option<Standstill>, StoreError> {
    let found = connection
        .query_row(
            "SELECT value, name = 'standstill_for_a_person' FROM control
             WHERE name IN ('standstill', 'standstill_for_a_person') AND NOT EXISTS (
                 SELECT 1 FROM stream
                 WHERE kind = 'live' AND state = 'active' AND last_good_poll IS NOT NULL AND problem IS NULL)
             LIMIT 1",
            [],
            |row| Ok(Standstill { words: row.get(0)?, for_a_person: row.get(1)? }),
        )
        .optional()?;
    Ok(found)
}
