//! Playbooks whose changes await approval, what counts against the limits, and approvals that come too late.

use jiff::Timestamp;
use rusqlite::{Connection, params};
use serde::Serialize;

use super::journal::{self, PlannedTold, Told};
use super::ledger::{change_state, change_state_by};
use super::who::Who;
use super::{Store, StoreError, from_ms, to_ms};
use crate::guard::limits::Spent;
use crate::guard::{Candidate, Trip, alarm};
use crate::model::action::{ActionState, Happening};
use crate::model::ids::{ActionId, IdempotencyKey, RunId};

/// A playbook that has just gone over a limit.
#[derive(Debug, Clone)]
pub struct Tripped {
    /// The playbook.
    pub playbook: String,
    /// The action that went over it.
    pub action: ActionId,
    /// Why.
    pub why: String,
    /// Whether a message to people is planned.
    pub alarm: bool,
}

/// A playbook that is stopped, for people.
#[derive(Debug, Clone, Serialize)]
pub struct TripRow {
    /// The playbook.
    pub playbook: String,
    /// `limit` or `person`.
    pub cause: String,
    /// Why.
    pub why: String,
    /// The action that went over the limit.
    pub action: Option<i64>,
    /// Since when.
    pub since: Timestamp,
    /// How many of its actions await approval.
    pub held: u64,
}

/// A playbook that was let go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LetGo {
    /// Whether it was stopped at all.
    pub was_stopped: bool,
    /// How many actions the guard looks at again.
    pub actions: usize,
}

impl Store {
    /// Refuses what has awaited approval since before `before`, with this sentence. Commits nothing when there is nothing.
    /// Returns how many it refused.
    pub async fn expire_approvals(&self, before: Timestamp, why: String, now: Timestamp) -> Result<usize, StoreError> {
        if self.read(move |connection| expired(connection, before)).await?.is_empty() {
            return Ok(0);
        }
        self.write(move |connection| {
            let expired = expired(connection, before)?;
            for action in &expired {
                connection
                    .prepare_cached("UPDATE action SET reason = 'expired', error = ?2 WHERE id = ?1")?
                    .execute(params![action.0, why])?;
                change_state(connection, *action, Happening::ApprovalExpired, now)?;
            }
            Ok(expired.len())
        })
        .await
    }

    /// Playbooks that are stopped, the latest first.
    pub async fn trips(&self) -> Result<Vec<TripRow>, StoreError> {
        self.read(trips_in_force).await
    }

    /// Stops a playbook at a person's word: its changes of access await approval. Returns whether that changed anything.
    pub async fn stop_playbook(&self, playbook: &str, who: &str, now: Timestamp) -> Result<bool, StoreError> {
        let (playbook, why) = (playbook.to_owned(), format!("`okta-responder pause --playbook` by {who}"));
        let by = Who::person("pause --playbook");
        self.write(move |connection| {
            let changed = connection.execute(
                "INSERT INTO trip (playbook, cause, why, began_at) VALUES (?1, 'person', ?2, ?3) ON CONFLICT DO NOTHING",
                params![playbook, why, to_ms(now)],
            )?;
            if changed > 0 {
                let told = Told::PlaybookStopped { playbook: &playbook, why: &why, action: None, alarm: None, by: &by };
                journal::append(connection, now, &told)?;
            }
            Ok(changed > 0)
        })
        .await
    }

    /// Lets a playbook go on. What the stop held back is asked of the guard again, and its count begins anew: a person has
    /// seen what was done until now.
    pub async fn let_go_on(&self, playbook: &str, who: &str, now: Timestamp) -> Result<LetGo, StoreError> {
        let (playbook, who) = (playbook.to_owned(), who.to_owned());
        let by = Who::person("resume --playbook");
        self.write(move |connection| {
            let ended = connection.execute(
                "UPDATE trip SET ended_at = ?2, ended_by = ?3 WHERE playbook = ?1 AND ended_at IS NULL",
                params![playbook, to_ms(now), who],
            )?;
            if ended == 0 {
                return Ok(LetGo { was_stopped: false, actions: 0 });
            }
            journal::append(connection, now, &Told::PlaybookLetGoOn { playbook: &playbook, by: &by })?;
            // Not told by the clock: one that ran ahead, then or now, would leave out too much or too little.
            connection.execute(
                "UPDATE attempt SET counted = 0 WHERE counted = 1 AND EXISTS (
                    SELECT 1 FROM action a JOIN run r ON r.id = a.run WHERE a.id = attempt.action AND r.playbook = ?1)",
                [&playbook],
            )?;
            let held: Vec<ActionId> = connection
                .prepare_cached(
                    "SELECT a.id FROM action a JOIN run r ON r.id = a.run
                     WHERE a.state = 'awaiting_approval' AND a.reason = 'limit' AND r.playbook = ?1",
                )?
                .query_map([&playbook], |row| Ok(ActionId(row.get(0)?)))?
                .collect::<Result<_, _>>()?;
            for action in &held {
                connection
                    .prepare_cached(
                        "UPDATE action SET due = ?2, retry_from = ?2, reason = 'resumed', error = NULL WHERE id = ?1",
                    )?
                    .execute(params![action.0, to_ms(now)])?;
                change_state_by(connection, *action, Happening::LetGoOn, &by, now)?;
            }
            Ok(LetGo { was_stopped: true, actions: held.len() })
        })
        .await
    }
}

pub(super) fn trips_in_force(connection: &Connection) -> Result<Vec<TripRow>, StoreError> {
    connection
        .prepare_cached(
            "SELECT t.playbook, t.cause, t.why, t.action, t.began_at,
                    (SELECT count(*) FROM action a JOIN run r ON r.id = a.run
                     WHERE a.state = 'awaiting_approval' AND r.playbook = t.playbook)
             FROM trip t WHERE t.ended_at IS NULL ORDER BY t.id DESC",
        )?
        .query_map([], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get::<_, i64>(4)?, row.get(5)?))
        })?
        .map(|row| {
            let (playbook, cause, why, action, since, held) = row?;
            Ok(TripRow { playbook, cause, why, action, since: from_ms(since)?, held })
        })
        .collect()
}

/// What was changed after `since`, each action once, and which playbooks are stopped. What a playbook did before a person
/// let it go on does not count any more. Without a moment nothing is counted.
pub(super) fn spent(connection: &Connection, since: Option<Timestamp>) -> Result<Spent, StoreError> {
    let mut spent = Spent::default();
    let mut stopped = connection.prepare_cached("SELECT playbook, why FROM trip WHERE ended_at IS NULL")?;
    let mut rows = stopped.query([])?;
    while let Some(row) = rows.next()? {
        spent.stop(&row.get::<_, String>(0)?, &row.get::<_, String>(1)?);
    }
    let Some(since) = since else { return Ok(spent) };
    let mut attempted = connection.prepare_cached(
        "SELECT a.id, r.playbook, a.kind FROM attempt t INDEXED BY attempt_counted
             JOIN action a ON a.id = t.action JOIN run r ON r.id = a.run
         WHERE t.counted = 1 AND t.started_at > ?1",
    )?;
    let mut rows = attempted.query([to_ms(since)])?;
    while let Some(row) = rows.next()? {
        spent.record(ActionId(row.get(0)?), &row.get::<_, String>(1)?, &row.get::<_, String>(2)?);
    }
    Ok(spent)
}

/// Stops a playbook that went over a limit and plans the one message about it, an action of the run that went over: it is
/// delivered and settled like every other. Nothing if the playbook is stopped already.
pub(super) fn trip(
    connection: &Connection,
    over: &Candidate,
    run: RunId,
    trip: Trip,
    now: Timestamp,
) -> Result<Option<Tripped>, StoreError> {
    let inserted = connection
        .prepare_cached(
            "INSERT INTO trip (playbook, cause, why, action, began_at) VALUES (?1, 'limit', ?2, ?3, ?4)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![over.playbook, trip.why, over.id.0, to_ms(now)])?;
    if inserted == 0 {
        return Ok(None);
    }
    let number = connection.last_insert_rowid();
    let alarm = match &trip.alarm {
        None => None,
        Some(message) => {
            // One key for each trip: the same run may trip again after a person let it go on.
            let key = IdempotencyKey::derive(&over.source, over.key.as_str(), alarm::STEP, &number.to_string());
            connection
                .prepare_cached(
                    "INSERT INTO action (run, step, kind, key, state, in_doubt, params, due, created_at, updated_at, retry_from)
                     VALUES (?1, ?2, ?3, ?4, 'ready', ?5, ?6, ?7, ?7, ?7, ?7)",
                )?
                .execute(params![
                    run.0,
                    alarm::STEP,
                    message.kind,
                    key.as_str(),
                    message.in_doubt.as_str(),
                    message.params.to_string(),
                    to_ms(now)
                ])?;
            Some((connection.last_insert_rowid(), message, key))
        }
    };
    let told = Told::PlaybookStopped {
        playbook: &over.playbook,
        why: &trip.why,
        action: Some(over.id.0),
        alarm: alarm.as_ref().map(|(action, message, key)| PlannedTold {
            action: *action,
            step: alarm::STEP,
            kind: message.kind,
            key: key.as_str(),
            state: ActionState::Ready,
            params: Some(message.params.clone()),
            not_before: None,
            reason: None,
            error: None,
        }),
        by: &Who::PROGRAM,
    };
    journal::append(connection, now, &told)?;
    Ok(Some(Tripped { playbook: over.playbook.clone(), action: over.id, why: trip.why, alarm: trip.alarm.is_some() }))
}

/// Actions that have awaited approval since before a moment; some hundreds at most, the others next time.
fn expired(connection: &Connection, before: Timestamp) -> Result<Vec<ActionId>, StoreError> {
    connection
        .prepare_cached(
            "SELECT id FROM action INDEXED BY action_held
             WHERE state = 'awaiting_approval' AND updated_at < ?1 ORDER BY updated_at LIMIT 500",
        )?
        .query_map([to_ms(before)], |row| Ok(ActionId(row.get(0)?)))?
        .map(|row| Ok(row?))
        .collect()
}
