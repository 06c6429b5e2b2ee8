//! What a run has done, for whoever wants it undone, and the run that undoes it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;
use thiserror::Error;

use super::journal::{self, PlannedTold, RunTold, Told, embedded};
use super::ledger::{change_state_by, count_open_after, parse_receipt, parse_state};
use super::status::json;
use super::who::Who;
use super::{Store, StoreError, to_ms};
use crate::model::action::{ActionState, Happening, InDoubt};
use crate::model::ids::{ActionId, IdempotencyKey, RunId};
use crate::model::outcome::{GroupNote, Receipt};

/// A run with all that is to be known before it is undone.
#[derive(Debug, Clone)]
pub struct Revertible {
    /// The run.
    pub run: RunId,
    /// The playbook.
    pub playbook: String,
    /// The run that it undoes itself.
    pub reverts: Option<RunId>,
    /// Its actions, in the order in which they were planned.
    pub actions: Vec<DoneAction>,
    /// The newest action of all runs; what is planned behind it is not known here.
    pub newest: ActionId,
}

/// An action of such a run.
#[derive(Debug, Clone)]
pub struct DoneAction {
    /// The action.
    pub id: ActionId,
    /// The step.
    pub step: String,
    /// `connector.noun.verb`
    pub kind: String,
    /// The idempotency key.
    pub key: IdempotencyKey,
    /// Where it stands.
    pub state: ActionState,
    /// A word from a closed list.
    pub reason: Option<String>,
    /// A sentence.
    pub error: Option<String>,
    /// Final parameters; `None` when they were never filled in.
    pub params: Option<Value>,
    /// What it recorded.
    pub receipt: Receipt,
    /// The lane.
    pub lane: Option<String>,
    /// How many attempts were made.
    pub attempts: u32,
    /// Whether an attempt has changed something.
    pub done: bool,
    /// Whether an attempt ended without our knowing how.
    pub unknown: bool,
    /// Whether the daemon was stopped in one, so that it need not have been sent.
    pub interrupted: bool,
    /// What other runs did later to the same thing, or are about to do, the earliest first.
    pub newer: Vec<Newer>,
    /// What was planned before to undo it, the earliest first.
    pub reverted_by: Vec<RevertedBy>,
}

/// What another run did later to the same thing.
#[derive(Debug, Clone)]
pub struct Newer {
    /// The run.
    pub run: RunId,
    /// `connector.noun.verb`
    pub kind: String,
    /// Where it stands: on its way to its end, or done.
    pub state: ActionState,
}

/// What was planned before to undo an action.
#[derive(Debug, Clone)]
pub struct RevertedBy {
    /// The run.
    pub run: RunId,
    /// The action.
    pub action: ActionId,
    /// `connector.noun.verb`
    pub kind: String,
    /// Final parameters.
    pub params: Value,
    /// Where it stands.
    pub state: ActionState,
}

/// A run that undoes another one, to be written.
#[derive(Debug, Clone)]
pub struct NewRevert {
    /// The run to undo.
    pub of: RunId,
    /// Its actions as they were when this was planned: state and number of attempts. If one of them has gone on since,
    /// nothing is written.
    pub seen: BTreeMap<ActionId, (ActionState, u32)>,
    /// The newest action of all runs then. If another run has planned something about the same things since, nothing is
    /// written either.
    pub newest: ActionId,
    /// Those of them that are taken back.
    pub cancel: Vec<ActionId>,
    /// What is done, in this order.
    pub undo: Vec<NewUndo>,
}

/// An action that undoes another one, to be written. A person has seen it, so it is approved.
#[derive(Debug, Clone)]
pub struct NewUndo {
    /// The step.
    pub step: String,
    /// `connector.noun.verb`
    pub kind: &'static str,
    /// The action that it undoes.
    pub of: ActionId,
    /// The idempotency key.
    pub key: IdempotencyKey,
    /// Final parameters, as JSON.
    pub params: String,
    /// The lane.
    pub lane: Option<String>,
    /// Groups that it remembers from the beginning.
    pub groups: Vec<GroupNote>,
    /// What to do in doubt.
    pub in_doubt: InDoubt,
    /// Steps that end first.
    pub after: Vec<String>,
}

/// A revert that is planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revert {
    /// The run that undoes.
    pub run: RunId,
    /// What it is called in place of a playbook.
    pub name: String,
}

/// Why a revert was not planned. Nothing was changed.
#[derive(Debug, Error)]
pub enum RevertError {
    /// An action has gone on.
    #[error("action {0} of the run has gone on meanwhile; nothing was changed, look at it again")]
    GoneOn(ActionId),
    /// Another run has come.
    #[error("run {0} has something to do about the same meanwhile; nothing was changed, look at it again")]
    Newer(RunId),
    /// What undoes it was sent before.
    #[error("`{0}` was undone before, and the record of it is pruned")]
    Known(String),
    /// The event's record is pruned, so the guard could not see whom it is about.
    #[error(
        "the record of the run's event was pruned ([state] keep_events), so the guard could not see whom it is about; \
             undo it by hand at the services"
    )]
    RecordGone,
    /// The file could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// A run with what it did and what came after it; `None` when there is no such run.
    pub async fn revertible(&self, run: RunId) -> Result<Option<Revertible>, StoreError> {
        self.read(move |connection| {
            // One snapshot: the daemon goes on writing.
            let connection = connection.unchecked_transaction()?;
            let found: Option<(String, Option<i64>)> = connection
                .query_row("SELECT playbook, reverts FROM run WHERE id = ?1", [run.0], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            let Some((playbook, reverts)) = found else { return Ok(None) };
            let actions = actions(&connection, run)?;
            let newest = connection.query_row("SELECT coalesce(max(id), 0) FROM action", [], |row| row.get(0))?;
            let (reverts, newest) = (reverts.map(RunId), ActionId(newest));
            Ok(Some(Revertible { run, playbook, reverts, actions, newest }))
        })
        .await
    }

    /// Writes a run that undoes another one, and takes back what of that is still open, in one transaction. `who` is put on
    /// record as the one who approved it.
    pub async fn plan_revert(&self, revert: NewRevert, who: &str, now: Timestamp) -> Result<Revert, RevertError> {
        let (person, who) = (Who::person("runs revert"), who.to_owned());
        self.write(move |connection| {
            if let Some(error) = hindrance(connection, &revert)? {
                return Ok(Err(error));
            }
            for action in &revert.cancel {
                connection.execute(
                    "UPDATE action SET due = ?2, reason = 'cancelled', error = NULL WHERE id = ?1",
                    params![action.0, to_ms(now)],
                )?;
                change_state_by(connection, *action, Happening::CancelledByPerson, &person, now)?;
            }
            write(connection, &revert, &person, &who, now).map(Ok)
        })
        .await?
    }
}

fn actions(connection: &Connection, run: RunId) -> Result<Vec<DoneAction>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, step, kind, key, state, reason, error, params, receipt, lane,
                (SELECT count(*) FROM attempt WHERE action = action.id),
                EXISTS (SELECT 1 FROM attempt WHERE action = action.id AND outcome = 'done'),
                EXISTS (SELECT 1 FROM attempt WHERE action = action.id AND outcome = 'unknown'),
                EXISTS (SELECT 1 FROM attempt WHERE action = action.id AND outcome = 'unknown' AND reason = 'interrupted')
         FROM action WHERE run = ?1 ORDER BY id",
    )?;
    let mut rows = statement.query([run.0])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let id = ActionId(row.get(0)?);
        found.push(DoneAction {
            id,
            step: row.get(1)?,
            kind: row.get(2)?,
            key: IdempotencyKey::from_stored(row.get(3)?),
            state: parse_state(&row.get::<_, String>(4)?)?,
            reason: row.get(5)?,
            error: row.get(6)?,
            params: json(row.get(7)?)?,
            receipt: parse_receipt(row.get(8)?)?,
            lane: row.get(9)?,
            attempts: row.get(10)?,
            done: row.get(11)?,
            unknown: row.get(12)?,
            interrupted: row.get(13)?,
            newer: newer(connection, id)?,
            reverted_by: reverted_by(connection, id)?,
        });
    }
    Ok(found)
}

fn newer(connection: &Connection, action: ActionId) -> Result<Vec<Newer>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT n.run, n.kind, n.state FROM action a JOIN action n ON n.lane = a.lane AND n.id > a.id AND n.run <> a.run
         WHERE a.id = ?1 AND n.state NOT IN ('skipped', 'refused', 'cancelled', 'failed') AND n.reverts IS NOT a.id
         ORDER BY n.id",
    )?;
    let mut rows = statement.query([action.0])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let state = parse_state(&row.get::<_, String>(2)?)?;
        found.push(Newer { run: RunId(row.get(0)?), kind: row.get(1)?, state });
    }
    Ok(found)
}

fn reverted_by(connection: &Connection, action: ActionId) -> Result<Vec<RevertedBy>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT run, id, kind, params, state FROM action WHERE reverts = ?1 ORDER BY id")?;
    let mut rows = statement.query([action.0])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(RevertedBy {
            run: RunId(row.get(0)?),
            action: ActionId(row.get(1)?),
            kind: row.get(2)?,
            params: json(row.get(3)?)?.unwrap_or_default(),
            state: parse_state(&row.get::<_, String>(4)?)?,
        });
    }
    Ok(found)
}

/// What keeps a revert from being written.
fn hindrance(connection: &Connection, revert: &NewRevert) -> Result<Option<RevertError>, StoreError> {
    let is_recorded: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM run r JOIN event_body b ON b.event = r.event WHERE r.id = ?1)",
        [revert.of.0],
        |row| row.get(0),
    )?;
    if !is_recorded {
        return Ok(Some(RevertError::RecordGone));
    }
    for (action, seen) in &revert.seen {
        let is: Option<(String, u32)> = connection
            .query_row(
                "SELECT state, (SELECT count(*) FROM attempt WHERE action = action.id) FROM action WHERE id = ?1",
                [action.0],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        if is.is_none_or(|(state, attempts)| (state.as_str(), attempts) != (seen.0.as_str(), seen.1)) {
            return Ok(Some(RevertError::GoneOn(*action)));
        }
    }
    let newer: Option<i64> = connection
        .query_row(
            "SELECT n.run FROM action n JOIN action a ON a.lane = n.lane AND a.run = ?1
             WHERE n.id > ?2 AND n.run <> ?1 AND n.state NOT IN ('skipped', 'refused', 'cancelled', 'failed') LIMIT 1",
            params![revert.of.0, revert.newest.0],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(run) = newer {
        return Ok(Some(RevertError::Newer(RunId(run))));
    }
    for undo in &revert.undo {
        let is_known: bool = connection.query_row(
            "SELECT EXISTS (SELECT 1 FROM spent_key WHERE key = ?1) OR EXISTS (SELECT 1 FROM action WHERE key = ?1)",
            [undo.key.as_str()],
            |row| row.get(0),
        )?;
        if is_known {
            return Ok(Some(RevertError::Known(undo.step.clone())));
        }
    }
    Ok(None)
}

fn write(
    connection: &Connection,
    revert: &NewRevert,
    person: &Who,
    who: &str,
    now: Timestamp,
) -> Result<Revert, StoreError> {
    let (event, uuid, event_type, user): (i64, String, String, Option<String>) = connection.query_row(
        "SELECT e.id, e.uuid, e.type, e.subject FROM run r JOIN event e ON e.id = r.event WHERE r.id = ?1",
        [revert.of.0],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
    )?;
    let name = free_name(connection, event, revert.of)?;
    connection.execute(
        "INSERT INTO run (event, playbook, mode, facts, created_at, reverts) VALUES (?1, ?2, 'enforce', '{}', ?3, ?4)",
        params![event, name, to_ms(now), revert.of.0],
    )?;
    let run = RunId(connection.last_insert_rowid());
    let mut actions = Vec::new();
    for undo in &revert.undo {
        actions.push(insert(connection, run, undo, who, now)?);
    }
    count_open_after(connection, run)?;
    let told = Told::Reverted {
        event,
        uuid: &uuid,
        r#type: &event_type,
        user: user.as_deref(),
        reverts: revert.of.0,
        run: RunTold { run: run.0, playbook: &name, mode: "enforce", actions },
        by: person,
    };
    journal::append(connection, now, &told)?;
    Ok(Revert { run, name })
}

/// What stands in place of a playbook's name. A run that is reverted once more, because not all of it was, has another one.
fn free_name(connection: &Connection, event: i64, of: RunId) -> Result<String, StoreError> {
    let first = format!("revert of run {of}");
    let numbered = (2..).map(|number| format!("{first} ({number})"));
    for name in std::iter::once(first.clone()).chain(numbered) {
        let is_taken: bool = connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM run WHERE event = ?1 AND playbook = ?2)")?
            .query_row(params![event, name], |row| row.get(0))?;
        if !is_taken {
            return Ok(name);
        }
    }
    Ok(first)
}

fn insert<'a>(
    connection: &Connection,
    run: RunId,
    undo: &'a NewUndo,
    who: &str,
    now: Timestamp,
) -> Result<PlannedTold<'a>, StoreError> {
    let state = match undo.after.is_empty() {
        true => ActionState::Waiting.after(Happening::Prepared)?,
        false => ActionState::Waiting,
    };
    let receipt = Receipt { groups: undo.groups.clone(), ..Receipt::default() };
    connection
        .prepare_cached(
            "INSERT INTO action (run, step, kind, key, subject, lane, state, in_doubt, params, after, due, receipt,
                                 created_at, updated_at, retry_from, approved_at, approved_by, reverts)
             VALUES (?1, ?2, ?3, ?4, (SELECT subject FROM action WHERE id = ?13), ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?10, ?10, ?10,
                     ?10, ?12, ?13)",
        )?
        .execute(params![
            run.0,
            undo.step,
            undo.kind,
            undo.key.as_str(),
            undo.lane,
            state.as_str(),
            undo.in_doubt.as_str(),
            undo.params,
            serde_json::to_string(&undo.after).unwrap_or_else(|_| "[]".to_owned()),
            to_ms(now),
            (!undo.groups.is_empty()).then(|| serde_json::to_string(&receipt).ok()).flatten(),
            who,
            undo.of.0,
        ])?;
    Ok(PlannedTold {
        action: connection.last_insert_rowid(),
        step: &undo.step,
        kind: undo.kind,
        key: undo.key.as_str(),
        state,
        params: Some(embedded(&undo.params)),
        reason: None,
        error: None,
        not_before: None,
    })
}
