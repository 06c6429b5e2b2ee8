//! Events that wait for a decision, and transaction T2.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

use super::delayed::{self, Delayed};
use super::journal::{self, PlannedTold, RunTold, Told, embedded};
use super::ledger::{Prepared, count_open_after, later};
use super::{Store, StoreError, from_ms, from_optional_ms, to_ms};
use crate::halt::{self, Point};
use crate::model::action::{ActionState, InDoubt};
use crate::model::ids::{ActionId, EventId, IdempotencyKey, RunId};

/// An event that waits for its decision.
#[derive(Debug, Clone)]
pub struct PendingEvent {
    /// Its row.
    pub id: EventId,
    /// Such as `okta`.
    pub source: String,
    /// The record, verbatim.
    pub body: String,
    /// The affected user.
    pub subject: Option<String>,
    /// Whether it comes from a backfill, and if so, whether that acts.
    pub backfill: Option<BackfillMode>,
    /// Whether a risk event of the same user that happened later is known: for a backfill that acts at all, for a live
    /// event if that one had arrived before.
    pub superseded: bool,
    /// Whether that is not known yet: the later one, which stands before it, is still to be decided, and may be an echo.
    /// Until then neither this event nor what stands behind it of its user is decided.
    pub too_early: bool,
    /// When an action that resets risk was last attempted on the affected user, whatever became of it.
    pub last_reset: Option<Timestamp>,
    /// How often it was put off.
    pub postponed: u32,
    /// Why it was put off last.
    pub put_off_because: Option<String>,
    /// When it was stored.
    pub received: Timestamp,
}

/// Runs whose changes are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangesOf {
    /// Every one.
    All,
    /// Those before this one.
    Before(RunId),
    /// Every one but this.
    Besides(RunId),
}

/// What a backfill does with what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackfillMode {
    /// Plans and records.
    Observe,
    /// Acts.
    Execute,
}

/// T2 for one event.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The event.
    pub event: EventId,
    /// What becomes of it.
    pub verdict: EventVerdict,
    /// The runs it starts.
    pub runs: Vec<PlannedRun>,
}

/// What becomes of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventVerdict {
    /// Every playbook had its say.
    Decided,
    /// It starts nothing, for the reason given.
    Skipped(String),
    /// A newer event of the same user says how things stand now.
    Superseded,
    /// A fact could not be had; it is looked at again.
    Postponed {
        /// When.
        until: Timestamp,
        /// Why.
        reason: String,
    },
}

/// A run with its actions.
#[derive(Debug, Clone)]
pub struct PlannedRun {
    /// The playbook.
    pub playbook: String,
    /// Whether it only observes.
    pub observe: bool,
    /// The facts fetched so far, as JSON.
    pub facts: String,
    /// In the order of `after`: an action stands behind those it waits for.
    pub actions: Vec<NewAction>,
}

/// An action to be written.
#[derive(Debug, Clone)]
pub struct NewAction {
    /// The step.
    pub step: String,
    /// `connector.noun.verb`
    pub kind: &'static str,
    /// The idempotency key.
    pub key: IdempotencyKey,
    /// The affected user.
    pub subject: Option<String>,
    /// The one thing it changes. A waiting action holds its place in the lane already, but not during a delay.
    pub lane: Option<String>,
    /// What to do in doubt.
    pub in_doubt: InDoubt,
    /// Steps that end first.
    pub after: Vec<String>,
    /// The longest wait for them, as if there were no delay.
    pub wait_until: Option<Timestamp>,
    /// How far it could be prepared; `None` when that comes later.
    pub preparation: Option<Prepared>,
    /// That it is done later than the rest, if it is not at its end already.
    pub delayed: Option<Delayed>,
}

impl Store {
    /// Events that wait for a decision, live ones first, each user's in the order in which they were stored. An event
    /// whose user has an earlier event that was put off is not among them, nor are those of users to be passed over.
    /// `resetting` are the kinds of action that reset a user's risk. An event that claims to lie more than a day ahead of us
    /// supersedes nothing, or it would do so until then.
    pub async fn undecided(
        &self,
        now: Timestamp,
        limit: usize,
        resetting: &[&'static str],
        passed_over: Vec<String>,
    ) -> Result<Vec<PendingEvent>, StoreError> {
        let (resetting, passed_over) = (Value::from(resetting).to_string(), Value::from(passed_over).to_string());
        self.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT e.id, e.source, b.body, e.subject, e.backfill, s.execute, e.postponed,
                            e.risk IS NOT NULL AND (NOT e.backfill OR s.execute) AND EXISTS (
                                SELECT 1 FROM event n WHERE n.subject = e.subject AND n.published > e.published
                                   AND n.risk <> 'UNKNOWN' AND n.published <= n.received_at + 86400000
                                   AND (e.backfill OR (n.id < e.id AND n.state NOT IN ('held', 'skipped')
                                        AND n.stream IN (SELECT id FROM stream WHERE kind = 'live' OR execute)))),
                            (SELECT max(t.started_at) FROM action a JOIN attempt t ON t.action = a.id
                             WHERE a.subject = e.subject AND a.kind IN (SELECT value FROM json_each(?3))),
                            e.reason, e.received_at,
                            e.risk IS NOT NULL AND NOT e.backfill AND EXISTS (
                                SELECT 1 FROM event n WHERE n.subject = e.subject AND n.published > e.published
                                   AND n.risk <> 'UNKNOWN' AND n.published <= n.received_at + 86400000
                                   AND n.state = 'new' AND n.id < e.id AND NOT n.backfill)
                     FROM event e JOIN event_body b ON b.event = e.id JOIN stream s ON s.id = e.stream
                     WHERE e.state = 'new' AND coalesce(e.retry_at, 0) <= ?1
                       AND NOT EXISTS (SELECT 1 FROM event p WHERE p.state = 'new' AND p.retry_at > ?1
                                                               AND p.subject = e.subject AND p.id < e.id)
                       AND (e.subject IS NULL OR e.subject NOT IN (SELECT value FROM json_each(?4)))
                     ORDER BY e.backfill, e.id LIMIT ?2",
                )?
                .query_map(params![to_ms(now), limit as i64, resetting, passed_over], |row| Ok(pending_event(row)))?
                .map(|row| row?)
                .collect()
        })
        .await
    }

    /// T2: writes decisions, their runs and actions, and marks the events decided, in one transaction. A run or an action
    /// that is there already stays as it is. Returns how many actions were new.
    pub async fn commit_decisions(&self, decisions: Vec<Decision>, now: Timestamp) -> Result<usize, StoreError> {
        self.write(move |connection| {
            let (mut written, mut observed) = (0, Observed::default());
            for decision in &decisions {
                written += commit_decision(connection, decision, &mut observed, now)?;
            }
            observed.tell(connection, now)?;
            halt::point(Point::InsideT2);
            Ok(written)
        })
        .await
    }

    /// The level told by the newest risk event of a user.
    pub async fn newest_risk(&self, subject: &str) -> Result<Option<String>, StoreError> {
        let subject = subject.to_owned();
        self.read(move |connection| {
            Ok(connection
                .prepare_cached(
                    "SELECT risk FROM event WHERE subject = ?1 AND risk IS NOT NULL ORDER BY published DESC, id DESC LIMIT 1",
                )?
                .query_row([subject], |row| row.get(0))
                .optional()?)
        })
        .await
    }

    /// Whether changes of a user's access are planned or under way in these runs. What only a person can move does not count,
    /// nor what comes behind that: in a lane of which it is the first, or waiting for such a step without end. Nor does what
    /// waits for the end of a delay.
    pub async fn has_open_changes(&self, subject: &str, of: ChangesOf) -> Result<bool, StoreError> {
        let subject = subject.to_owned();
        let (before, besides) = match of {
            ChangesOf::All => (i64::MAX, i64::MIN),
            ChangesOf::Before(run) => (run.0, run.0),
            ChangesOf::Besides(run) => (i64::MAX, run.0),
        };
        self.read(move |connection| {
            Ok(connection
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM action a WHERE subject = ?1 AND kind LIKE 'okta.%' AND lane IS NOT NULL
                        AND run < ?2 AND run <> ?3
                        AND state IN ('waiting', 'ready', 'started', 'retry', 'unknown')
                        AND NOT (state IN ('waiting', 'ready', 'retry') AND (
                            coalesce((SELECT h.state FROM action h WHERE h.lane = a.lane
                                 AND h.state IN ('waiting', 'ready', 'started', 'retry', 'unknown', 'needs_attention',
                                                 'awaiting_approval')
                               ORDER BY h.id LIMIT 1), '') IN ('needs_attention', 'awaiting_approval')
                            OR (state = 'waiting' AND wait_until IS NULL AND EXISTS (
                                SELECT 1 FROM json_each(a.after) named JOIN action d ON d.run = a.run AND d.step = named.value
                                 WHERE d.state IN ('needs_attention', 'awaiting_approval')
                                    OR (d.state IN ('waiting', 'ready', 'retry') AND
                                        (SELECT h.state FROM action h WHERE h.lane = d.lane
                                            AND h.state IN ('waiting', 'ready', 'started', 'retry', 'unknown',
                                                            'needs_attention', 'awaiting_approval')
                                          ORDER BY h.id LIMIT 1) IN ('needs_attention', 'awaiting_approval')))))))",
                )?
                .query_row(params![subject, before, besides], |row| row.get(0))?)
        })
        .await
    }
}

fn pending_event(row: &Row<'_>) -> Result<PendingEvent, StoreError> {
    let backfill = match (row.get(4)?, row.get(5)?) {
        (false, _) => None,
        (true, false) => Some(BackfillMode::Observe),
        (true, true) => Some(BackfillMode::Execute),
    };
    Ok(PendingEvent {
        id: EventId(row.get(0)?),
        source: row.get(1)?,
        body: row.get(2)?,
        subject: row.get(3)?,
        backfill,
        postponed: row.get(6)?,
        superseded: row.get(7)?,
        last_reset: from_optional_ms(row.get(8)?)?,
        put_off_because: row.get(9)?,
        received: from_ms(row.get(10)?)?,
        too_early: row.get(11)?,
    })
}

fn commit_decision(
    connection: &Connection,
    decision: &Decision,
    observed: &mut Observed,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let (state, reason, retry_at) = match &decision.verdict {
        EventVerdict::Decided => ("decided", None, None),
        EventVerdict::Skipped(reason) => ("skipped", Some(reason), None),
        EventVerdict::Superseded => ("superseded", None, None),
        EventVerdict::Postponed { until, reason } => ("new", Some(reason), Some(to_ms(*until))),
    };
    let changed = connection
        .prepare_cached(
            "UPDATE event SET state = ?2, reason = ?3, retry_at = ?4, postponed = postponed + (?4 IS NOT NULL)
             WHERE id = ?1 AND state = 'new'",
        )?
        .execute(params![decision.event.0, state, reason, retry_at])?;
    if changed == 0 {
        return Ok(0);
    }
    let mut written = 0;
    let mut acting = Vec::new();
    for run in &decision.runs {
        let mode = if run.observe { "observe" } else { "enforce" };
        let inserted = connection
            .prepare_cached(
                "INSERT INTO run (event, playbook, mode, facts, created_at) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (event, playbook) DO NOTHING",
            )?
            .execute(params![decision.event.0, run.playbook, mode, run.facts, to_ms(now)])?;
        if inserted == 0 {
            continue;
        }
        let id = RunId(connection.last_insert_rowid());
        let mut actions = Vec::new();
        for action in &run.actions {
            actions.extend(insert_action(connection, id, action, now)?);
        }
        count_open_after(connection, id)?;
        written += actions.len();
        if run.observe {
            observed.count(id);
        } else {
            acting.push(RunTold { run: id.0, playbook: &run.playbook, mode, actions });
        }
    }
    if !acting.is_empty() {
        tell_decision(connection, decision.event, acting, now)?;
    }
    Ok(written)
}

fn tell_decision(
    connection: &Connection,
    event: EventId,
    runs: Vec<RunTold<'_>>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (uuid, event_type, user): (String, String, Option<String>) = connection
        .prepare_cached("SELECT uuid, type, subject FROM event WHERE id = ?1")?
        .query_row([event.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let told = Told::Decided { event: event.0, uuid: &uuid, r#type: &event_type, user: user.as_deref(), runs };
    journal::append(connection, now, &told)
}

/// Runs that only observe, of one transaction.
#[derive(Default)]
struct Observed {
    runs: u64,
    first: Option<RunId>,
    last: Option<RunId>,
}

impl Observed {
    fn count(&mut self, run: RunId) {
        self.runs += 1;
        self.first = self.first.or(Some(run));
        self.last = Some(run);
    }

    fn tell(&self, connection: &Connection, now: Timestamp) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (self.first, self.last) else { return Ok(()) };
        let told = Told::Observed { runs: self.runs, first_run: first.0, last_run: last.0 };
        journal::append(connection, now, &told)
    }
}

/// Writes an action and returns how it is told. `None` when its key is known: it was planned, or even sent, before.
fn insert_action<'a>(
    connection: &Connection,
    run: RunId,
    action: &'a NewAction,
    now: Timestamp,
) -> Result<Option<PlannedTold<'a>>, StoreError> {
    let state = match &action.preparation {
        None => ActionState::Waiting,
        Some(prepared) => ActionState::Waiting.after(prepared.happening)?,
    };
    let prepared = action.preparation.as_ref();
    let inserted = connection
        .prepare_cached(
            "INSERT INTO action (run, step, kind, key, subject, lane, state, in_doubt, params, after, wait_until, due, reason,
                                 error, created_at, updated_at, retry_from, finished_at)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?12, ?12, ?12, ?15
             WHERE NOT EXISTS (SELECT 1 FROM spent_key WHERE key = ?4)
             ON CONFLICT (key) DO NOTHING",
        )?
        .execute(params![
            run.0,
            action.step,
            action.kind,
            action.key.as_str(),
            action.subject,
            action.lane,
            state.as_str(),
            action.in_doubt.as_str(),
            prepared.and_then(|p| p.params.as_ref()),
            serde_json::to_string(&action.after).unwrap_or_else(|_| "[]".to_owned()),
            action.wait_until.map(to_ms),
            to_ms(now),
            prepared.and_then(|p| p.reason),
            prepared.and_then(|p| p.error.as_ref()),
            state.is_final().then(|| to_ms(now)),
        ])?;
    if inserted == 0 {
        return Ok(None);
    }
    let id = connection.last_insert_rowid();
    if let Some(delayed) = &action.delayed {
        delayed::plan(connection, ActionId(id), delayed, now)?;
    }
    let params =
        prepared.map_or(action.delayed.as_ref().and_then(|delayed| delayed.params.as_deref()), |p| p.params.as_deref());
    Ok(Some(PlannedTold {
        action: id,
        step: &action.step,
        kind: action.kind,
        key: action.key.as_str(),
        state,
        params: params.map(embedded),
        not_before: action.delayed.as_ref().map(|delayed| from_ms(to_ms(later(now, delayed.delay)))).transpose()?,
        reason: prepared.and_then(|p| p.reason),
        error: prepared.and_then(|p| p.error.as_deref()),
    }))
}
