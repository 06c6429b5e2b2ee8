//! Actions and attempts: preparing, and transactions T3 and T4.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::delayed::{self, Due};
use super::journal::{self, Changed, Told, embedded};
use super::who::Who;
use super::{Store, StoreError, from_ms, from_optional_ms, to_ms};
use crate::halt::{self, Point};
use crate::model::action::{ActionState, Happening, IllegalTransition, InDoubt};
use crate::model::ids::{ActionId, IdempotencyKey, RunId, StreamId};
use crate::model::outcome::Receipt;

/// The end of an action's preparation.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// One of the happenings that end preparation.
    pub happening: Happening,
    /// Final parameters, as JSON.
    pub params: Option<String>,
    /// The lane.
    pub lane: Option<String>,
    /// A word from a closed list, such as `condition` or `observe`.
    pub reason: Option<&'static str>,
    /// A sentence.
    pub error: Option<String>,
}

/// An action whose preparation is due.
#[derive(Debug, Clone)]
pub struct OpenAction {
    /// Its row.
    pub id: ActionId,
    /// Its run.
    pub run: RunId,
    /// The step.
    pub step: String,
    /// How often preparing was put off.
    pub postponed: u32,
    /// When it was planned, when its delay ended, or when a person asked for it again.
    pub since: Timestamp,
    /// The end of its wait, if it has one.
    pub wait_until: Option<Timestamp>,
    /// What was planned of it, if it had a delay.
    pub delayed: Option<Due>,
    /// `connector.noun.verb`
    pub kind: String,
    /// Final parameters, as JSON, where they are known from the beginning.
    pub params: Option<String>,
    /// Steps that end first.
    pub after: Vec<String>,
}

/// What preparing an action of a run needs to know.
#[derive(Debug, Clone)]
pub struct RunContext {
    /// The playbook.
    pub playbook: String,
    /// Whether it only observes.
    pub observe: bool,
    /// The run that it undoes; no playbook stands behind such a run.
    pub reverts: Option<RunId>,
    /// The facts fetched so far, as JSON.
    pub facts: String,
    /// Such as `okta`.
    pub source: String,
    /// The event's record, or `None` when it was pruned.
    pub body: Option<String>,
    /// The run's actions.
    pub siblings: Vec<SiblingState>,
}

/// What other steps may read of a step.
#[derive(Debug, Clone)]
pub struct SiblingState {
    /// The step.
    pub step: String,
    /// Where it stands.
    pub state: ActionState,
    /// What the service called it.
    pub receipt: Receipt,
    /// Why it did not succeed.
    pub error: Option<String>,
    /// Final parameters, as JSON, of a message that another step may edit.
    pub message: Option<String>,
}

/// The result of looking at a waiting action.
#[derive(Debug, Clone)]
pub struct Preparation {
    /// The action.
    pub action: ActionId,
    /// Its run.
    pub run: RunId,
    /// Facts fetched on the way, as JSON; replaces what the run has.
    pub facts: Option<String>,
    /// The end, or when to look again and why.
    pub result: Result<Prepared, (Timestamp, String)>,
}

/// An action taken for an attempt (T3), or for reading back.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Its row.
    pub id: ActionId,
    /// Its run.
    pub run: RunId,
    /// The step.
    pub step: String,
    /// `connector.noun.verb`
    pub kind: String,
    /// The idempotency key.
    pub key: IdempotencyKey,
    /// Final parameters, as JSON.
    pub params: String,
    /// The number of the attempt.
    pub attempt: u32,
    /// What to do in doubt.
    pub in_doubt: InDoubt,
    /// When its time for retries began: with its first attempt, or when a person asked for it again.
    pub retry_from: Timestamp,
    /// Since when it is in the state in which it was found.
    pub since: Timestamp,
    /// What attempts before recorded. As long as there is nothing, for `okta.group.restore_user` the groups that
    /// `okta.group.remove_user_from_all` remembers of the same user since he was last put back, where what was reverted
    /// since, and what reverts, does not count; for `slack.message.post` what the newest message of its lane, which is its
    /// thread, recorded; for `slack.message.update` what the message to edit did.
    pub earlier: Receipt,
    /// Why it did not succeed so far, as a word from a closed list and in a sentence.
    pub trouble: Option<(String, String)>,
}

/// T4: how an attempt, or the reading back after one, ended.
#[derive(Debug, Clone)]
pub struct AttemptEnd {
    /// The action.
    pub action: ActionId,
    /// The number of the attempt; `None` for the one that is its last.
    pub attempt: Option<u32>,
    /// The attempt's outcome word; `None` when this is about reading back.
    pub outcome: Option<&'static str>,
    /// A word from a closed list.
    pub reason: Option<&'static str>,
    /// A sentence.
    pub detail: Option<String>,
    /// What happened to the action; `None` leaves its state (reading back was not possible now).
    pub happening: Option<Happening>,
    /// What the service called it.
    pub receipt: Option<Receipt>,
    /// When the action is due again.
    pub due: Option<Timestamp>,
}

impl Store {
    /// Waiting actions whose steps before have ended (or whose wait is over) and that are due, those first that are due
    /// longest: what is put off again and again stands behind what was never looked at.
    pub async fn preparable(&self, now: Timestamp, limit: usize) -> Result<Vec<OpenAction>, StoreError> {
        self.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT id, run, step, attempts, max(retry_from, coalesce(not_before, 0)), wait_until,
                            kind, params, not_before, delayed_plan, after FROM action
                     WHERE state = 'waiting' AND due <= ?1 AND (open_after = 0 OR wait_until <= ?1)
                     ORDER BY due, id LIMIT ?2",
                )?
                .query_map(params![to_ms(now), limit as i64], |row| Ok(open_action(row)))?
                .map(|row| row?)
                .collect()
        })
        .await
    }

    /// What preparing an action of this run needs to know.
    pub async fn run_context(&self, run: RunId) -> Result<RunContext, StoreError> {
        self.read(move |connection| {
            let mut context = connection
                .prepare_cached(
                    "SELECT r.playbook, r.mode = 'observe', r.facts, e.source, b.body, r.reverts
                     FROM run r JOIN event e ON e.id = r.event LEFT JOIN event_body b ON b.event = e.id WHERE r.id = ?1",
                )?
                .query_row([run.0], |row| {
                    Ok(RunContext {
                        playbook: row.get(0)?,
                        observe: row.get(1)?,
                        facts: row.get(2)?,
                        source: row.get(3)?,
                        body: row.get(4)?,
                        reverts: row.get::<_, Option<i64>>(5)?.map(RunId),
                        siblings: Vec::new(),
                    })
                })?;
            context.siblings = connection
                .prepare_cached(
                    "SELECT step, state, receipt, error, iif(kind = 'slack.message.post', params, NULL) FROM action
                     WHERE run = ?1 ORDER BY id",
                )?
                .query_map([run.0], |row| Ok(sibling(row)))?
                .map(|row| row?)
                .collect::<Result<_, _>>()?;
            Ok(context)
        })
        .await
    }

    /// Writes what looking at waiting actions came to. An action that is no longer waiting is left alone.
    pub async fn commit_preparations(&self, looked_at: Vec<Preparation>, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |connection| {
            for preparation in &looked_at {
                commit_preparation(connection, preparation, now)?;
            }
            Ok(())
        })
        .await
    }

    /// T4: writes how an attempt ended and what that means for its action, in one transaction.
    ///
    /// When the action has been moved meanwhile, so that this is [`StoreError::Illegal`], only the attempt is written.
    pub async fn record_outcome(&self, end: AttemptEnd, now: Timestamp) -> Result<(), StoreError> {
        let recorded = self.write(move |connection| {
            let recorded = record_outcome(connection, &end, now)?;
            halt::point(Point::InsideT4);
            Ok(recorded)
        });
        Ok(recorded.await??)
    }

    /// Marks every attempt without an outcome as unknown: the process that made it is gone. Called once at start, before
    /// anything is claimed. `patience` tells for a kind of action how long the service may still be at work on it. Returns
    /// how many there were.
    pub async fn mark_lost(
        &self,
        now: Timestamp,
        patience: impl Fn(&str) -> Duration + Send + 'static,
    ) -> Result<usize, StoreError> {
        self.write(move |connection| {
            let lost: Vec<(i64, u32, String)> = connection
                .prepare_cached(
                    "SELECT t.action, t.number, a.kind FROM attempt t JOIN action a ON a.id = t.action
                     WHERE t.outcome IS NULL",
                )?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<Result<_, _>>()?;
            for (action, number, kind) in &lost {
                let end = AttemptEnd {
                    action: ActionId(*action),
                    attempt: Some(*number),
                    outcome: Some("unknown"),
                    reason: Some("interrupted"),
                    detail: Some("the daemon stopped while the request was under way".to_owned()),
                    happening: Some(Happening::OutcomeLost),
                    receipt: None,
                    due: Some(later(now, patience(kind))),
                };
                // An action that is not under way any more stays where it is; nothing may keep the daemon from starting.
                let _ = record_outcome(connection, &end, now)?;
            }
            Ok(lost.len())
        })
        .await
    }

    /// Actions whose last attempt is unknown and whose target is to be read back now; at most `limit` of each service.
    pub async fn unsettled(&self, now: Timestamp, limit: usize) -> Result<Vec<Claimed>, StoreError> {
        self.read(move |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {CLAIMED} FROM action a WHERE a.id IN (
                        SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY service ORDER BY due, id) AS place
                                        FROM action WHERE state = 'unknown' AND due <= ?1)
                        WHERE place <= ?2)
                     ORDER BY a.due, a.id"
                ))?
                .query_map(params![to_ms(now), limit as i64], |row| Ok(claimed(row)))?
                .map(|row| row?)
                .collect()
        })
        .await
    }

    /// When something is due next, after `now`: an action, the end of a wait, or an event that was put off.
    pub async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.read(move |connection| {
            let next: Option<i64> = connection
                .prepare_cached(
                    "SELECT min(at) FROM (
                        SELECT min(due) AS at FROM action
                         WHERE state IN ('waiting', 'ready', 'retry', 'unknown') AND due > ?1
                        UNION ALL
                        SELECT min(wait_until) FROM action WHERE state = 'waiting' AND open_after > 0 AND wait_until > ?1
                        UNION ALL
                        SELECT min(retry_at) FROM event WHERE state = 'new' AND retry_at > ?1)",
                )?
                .query_row([to_ms(now)], |row| row.get(0))?;
            from_optional_ms(next)
        })
        .await
    }

    /// Brings back what a clock that ran ahead has put off too far: nothing is due later than `longest` from now, no wait
    /// for other steps ends later than `longest_wait` from now, and no time for retries begins in the future. A delay counts
    /// beside that; none ends later than its own length from now. Returns how many actions and events that were.
    pub async fn pull_back(
        &self,
        now: Timestamp,
        longest: Duration,
        longest_wait: Duration,
    ) -> Result<usize, StoreError> {
        let (due, wait) = (to_ms(later(now, longest)), to_ms(later(now, longest_wait)));
        let now = to_ms(now);
        self.write(move |connection| {
            let mut moved = connection
                .prepare_cached(
                    "UPDATE action SET due = iif(not_before > ?1, min(not_before, ?1 + delay), min(due, ?1)),
                                       not_before = min(not_before, ?1 + delay),
                                       wait_until = min(wait_until, ?2 + coalesce(delay, 0)),
                                       retry_from = min(retry_from, ?1), updated_at = min(updated_at, ?1)
                     WHERE state IN ('waiting', 'ready', 'retry', 'unknown')
                       AND (due > max(?3, coalesce(min(not_before, ?1 + delay), 0))
                            OR wait_until > ?2 + coalesce(delay, 0) OR retry_from > ?3 OR updated_at > ?3)",
                )?
                .execute([now, wait, due])?;
            moved += connection
                .prepare_cached(
                    "UPDATE event SET retry_at = min(retry_at, ?1), received_at = min(received_at, ?1)
                     WHERE state = 'new' AND retry_at IS NOT NULL AND (retry_at > ?2 OR received_at > ?2)",
                )?
                .execute([now, due])?;
            Ok(moved)
        })
        .await
    }

    /// How many events of a stream wait for a decision, plus how many actions that came of it wait for their first attempt
    /// to end. Retries and what only a person can move are left out, and so are edits that wait for other steps, and delays
    /// with the steps that wait for them.
    pub async fn unfinished_of(&self, stream: StreamId) -> Result<u64, StoreError> {
        self.read(move |connection| {
            Ok(connection
                .prepare_cached(
                    "SELECT (SELECT count(*) FROM event WHERE stream = ?1 AND state = 'new')
                          + (SELECT count(*) FROM event WHERE stream = ?1 AND state = 'held')
                          + (SELECT count(*) FROM action a JOIN run r ON r.id = a.run JOIN event e ON e.id = r.event
                             WHERE e.stream = ?1 AND a.state IN ('waiting', 'ready', 'started', 'unknown')
                               AND NOT (a.state = 'waiting' AND (a.kind = 'slack.message.update' OR a.delay IS NOT NULL
                                 OR a.open_after > 0 AND EXISTS (
                                    SELECT 1 FROM action d
                                    WHERE d.run = a.run AND d.state = 'waiting' AND d.delay IS NOT NULL))))",
                )?
                .query_row([stream.0], |row| row.get(0))?)
        })
        .await
    }
}

/// `pause` after `moment`, or the end of time.
pub(super) fn later(moment: Timestamp, pause: Duration) -> Timestamp {
    SignedDuration::try_from(pause).ok().and_then(|pause| moment.checked_add(pause).ok()).unwrap_or(Timestamp::MAX)
}

fn commit_preparation(connection: &Connection, looked_at: &Preparation, now: Timestamp) -> Result<(), StoreError> {
    if let Some(facts) = &looked_at.facts {
        connection
            .prepare_cached("UPDATE run SET facts = ?2 WHERE id = ?1")?
            .execute(params![looked_at.run.0, facts])?;
    }
    if state_of(connection, looked_at.action)? != ActionState::Waiting {
        return Ok(());
    }
    match &looked_at.result {
        Err((until, reason)) => {
            connection
                .prepare_cached(
                    "UPDATE action SET due = ?2, error = ?3, attempts = attempts + 1, updated_at = ?4 WHERE id = ?1",
                )?
                .execute(params![looked_at.action.0, to_ms(*until), reason, to_ms(now)])?;
        }
        Ok(prepared) => {
            let prepared = delayed::unless_superseded(connection, looked_at.action, prepared, now)?;
            connection
                .prepare_cached(
                    "UPDATE action SET params = iif(delay IS NULL, ?2, coalesce(?2, params)), lane = coalesce(lane, ?3),
                                       reason = ?4, error = ?5,
                                       attempts = (SELECT coalesce(max(number), 0) FROM attempt
                                                   WHERE attempt.action = action.id)
                     WHERE id = ?1",
                )?
                .execute(params![
                    looked_at.action.0,
                    prepared.params,
                    prepared.lane,
                    prepared.reason,
                    prepared.error
                ])?;
            change_state(connection, looked_at.action, prepared.happening, now)?;
        }
    }
    Ok(())
}

fn record_outcome(
    connection: &Connection,
    end: &AttemptEnd,
    now: Timestamp,
) -> Result<Result<(), IllegalTransition>, StoreError> {
    if let Some(outcome) = end.outcome {
        connection
            .prepare_cached(
                "UPDATE attempt SET ended_at = ?2, outcome = ?3, reason = ?4, detail = ?5
                 WHERE action = ?1 AND number = coalesce(?6, number) AND outcome IS NULL",
            )?
            .execute(params![end.action.0, to_ms(now), outcome, end.reason, end.detail, end.attempt])?;
    }
    let state = state_of(connection, end.action)?;
    let last: u32 = connection
        .prepare_cached("SELECT coalesce(max(number), 0) FROM attempt WHERE action = ?1")?
        .query_row([end.action.0], |row| row.get(0))?;
    // What reading back found is about one unknown attempt, and says nothing of one that was begun since.
    let stale =
        end.outcome.is_none() && (state != ActionState::Unknown || end.attempt.is_some_and(|attempt| attempt != last));
    if let Some(happening) = end.happening
        && (stale || state.after(happening).is_err())
    {
        return Ok(Err(IllegalTransition { state, happening }));
    }
    if stale {
        return Ok(Ok(()));
    }
    let receipt = match end.receipt.clone() {
        // What was remembered stays on record, whatever a later receipt leaves out.
        Some(receipt) => serde_json::to_string(&receipt.remembering(receipt_of(connection, end.action)?)).ok(),
        None => None,
    };
    connection
        .prepare_cached(
            "UPDATE action SET due = coalesce(?2, due), receipt = coalesce(?3, receipt), reason = ?4, error = ?5
             WHERE id = ?1",
        )?
        .execute(params![end.action.0, end.due.map(to_ms), receipt, end.reason, end.detail])?;
    if let Some(happening) = end.happening {
        change_state(connection, end.action, happening, now)?;
    }
    Ok(Ok(()))
}

/// Changes an action's state because the program found or did something; see [`change_state_by`].
pub(super) fn change_state(
    connection: &Connection,
    action: ActionId,
    happening: Happening,
    now: Timestamp,
) -> Result<ActionState, StoreError> {
    change_state_by(connection, action, happening, &Who::PROGRAM, now)
}

/// The only way in which an action changes its state. The journal is told, with what the row says now, and steps that wait
/// for the action learn when it has ended.
pub(super) fn change_state_by(
    connection: &Connection,
    action: ActionId,
    happening: Happening,
    who: &Who,
    now: Timestamp,
) -> Result<ActionState, StoreError> {
    // Parameters are told once, when they are final, and so is what an action of many parts remembers: told with each of its
    // parts, the groups of a user who has hundreds would fill the journal.
    let prepared = matches!(happening, Happening::Prepared | Happening::HeldForApproval);
    let goes_on = matches!(happening, Happening::Claimed | Happening::MayPass);
    let mut statement = connection.prepare_cached(
        "SELECT run, state, step, kind, subject, attempts, reason, error, iif(?2, params, NULL),
                iif(?3, json_remove(receipt, '$.groups'), receipt)
         FROM action WHERE id = ?1",
    )?;
    let mut rows = statement.query(params![action.0, prepared, goes_on])?;
    let row = rows.next()?.ok_or_else(|| StoreError::Unreadable(format!("action {action} does not exist")))?;
    let json = |column| row.get::<_, Option<String>>(column).map(|json| json.as_deref().map(embedded));
    let before = parse_state(&row.get::<_, String>(1)?)?;
    let next = before.after(happening)?;
    let change = Changed {
        action: action.0,
        run: row.get(0)?,
        step: row.get(2)?,
        kind: row.get(3)?,
        user: row.get(4)?,
        from: before,
        to: next,
        because: happening,
        by: who,
        attempts: row.get(5)?,
        reason: row.get(6)?,
        error: row.get(7)?,
        params: json(8)?,
        receipt: json(9)?,
    };
    drop(rows);
    connection
        .prepare_cached("UPDATE action SET state = ?2, updated_at = ?3, finished_at = ?4 WHERE id = ?1")?
        .execute(params![action.0, next.as_str(), to_ms(now), next.is_final().then(|| to_ms(now))])?;
    if next.is_final() != before.is_final() {
        count_open_after(connection, RunId(change.run))?;
    }
    journal::append(connection, now, &Told::Action(change))?;
    Ok(next)
}

/// Counts, for the waiting actions of a run, how many of the steps they wait for have not ended.
pub(super) fn count_open_after(connection: &Connection, run: RunId) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE action SET open_after = (
                SELECT count(*) FROM json_each(action.after) named JOIN action d ON d.run = action.run AND d.step = named.value
                WHERE d.finished_at IS NULL)
             WHERE run = ?1 AND state = 'waiting' AND after <> '[]'",
        )?
        .execute([run.0])?;
    Ok(())
}

fn receipt_of(connection: &Connection, action: ActionId) -> Result<Receipt, StoreError> {
    let json = connection
        .prepare_cached("SELECT receipt FROM action WHERE id = ?1")?
        .query_row([action.0], |row| row.get(0))?;
    parse_receipt(json)
}

fn state_of(connection: &Connection, action: ActionId) -> Result<ActionState, StoreError> {
    let word: String = connection
        .prepare_cached("SELECT state FROM action WHERE id = ?1")?
        .query_row([action.0], |row| row.get(0))
        .optional()?
        .ok_or_else(|| StoreError::Unreadable(format!("action {action} does not exist")))?;
    parse_state(&word)
}

pub(super) fn parse_state(word: &str) -> Result<ActionState, StoreError> {
    ActionState::parse(word).ok_or_else(|| StoreError::Unreadable(format!("action state `{word}`")))
}

pub(super) fn parse_receipt(json: Option<String>) -> Result<Receipt, StoreError> {
    match json {
        None => Ok(Receipt::default()),
        Some(json) => serde_json::from_str(&json).map_err(|_| StoreError::Unreadable("a receipt".to_owned())),
    }
}

fn open_action(row: &Row<'_>) -> Result<OpenAction, StoreError> {
    Ok(OpenAction {
        id: ActionId(row.get(0)?),
        run: RunId(row.get(1)?),
        step: row.get(2)?,
        postponed: row.get(3)?,
        since: from_ms(row.get(4)?)?,
        wait_until: from_optional_ms(row.get(5)?)?,
        delayed: delayed::due(row, 6)?,
        kind: row.get(6)?,
        params: row.get(7)?,
        after: serde_json::from_str(&row.get::<_, String>(10)?)
            .map_err(|_| StoreError::Unreadable("the steps that an action waits for".to_owned()))?,
    })
}

fn sibling(row: &Row<'_>) -> Result<SiblingState, StoreError> {
    let state: String = row.get(1)?;
    Ok(SiblingState {
        step: row.get(0)?,
        state: parse_state(&state)?,
        receipt: parse_receipt(row.get(2)?)?,
        error: row.get(3)?,
        message: row.get(4)?,
    })
}

/// The columns of [`Claimed`], of an action `a`. The number of the attempt is the next one; for an unknown action that is
/// only read back it is not used.
pub(super) const CLAIMED: &str = "a.id, a.run, a.step, a.kind, a.key, a.params, a.attempts + 1, a.in_doubt, a.retry_from, \
                                  a.updated_at, a.reason, a.error, \
     coalesce(a.receipt, CASE a.kind \
       WHEN 'okta.group.restore_user' THEN ( \
         SELECT json_object('groups', json_group_array(json(g.value))) FROM action b, json_each(b.receipt, '$.groups') g \
         WHERE b.subject = a.subject AND b.kind = 'okta.group.remove_user_from_all' AND b.lane = a.lane AND b.id < a.id \
           AND NOT EXISTS (SELECT 1 FROM action v WHERE v.reverts = b.id AND v.state IN ('succeeded', 'settled')) \
           AND NOT coalesce(g.value ->> '$.refused', 0) \
           AND b.id > coalesce((SELECT max(c.id) FROM action c \
                                WHERE c.subject = a.subject AND c.kind = a.kind AND c.lane = a.lane AND c.id < a.id \
                                  AND c.state IN ('succeeded', 'settled') AND c.reverts IS NULL \
                                  AND NOT EXISTS (SELECT 1 FROM action v WHERE v.reverts = c.id \
                                                                     AND v.state IN ('succeeded', 'settled'))), 0)) \
        WHEN 'slack.message.post' THEN ( \
          SELECT b.receipt FROM action b \
          WHERE b.lane = a.lane AND b.kind = 'slack.message.post' AND b.state = 'succeeded' AND b.id <> a.id \
          ORDER BY b.id DESC LIMIT 1) \
        WHEN 'slack.message.update' THEN ( \
          SELECT b.receipt FROM action b WHERE b.run = a.run AND b.step = json_extract(a.params, '$.message') LIMIT 1) \
      END)";

/// Reads the first thirteen columns of a row as [`CLAIMED`].
pub(super) fn claimed(row: &Row<'_>) -> Result<Claimed, StoreError> {
    let in_doubt: String = row.get(7)?;
    Ok(Claimed {
        id: ActionId(row.get(0)?),
        run: RunId(row.get(1)?),
        step: row.get(2)?,
        kind: row.get(3)?,
        key: IdempotencyKey::from_stored(row.get(4)?),
        params: row.get(5)?,
        attempt: row.get(6)?,
        in_doubt: InDoubt::parse(&in_doubt).ok_or_else(|| StoreError::Unreadable(format!("in_doubt `{in_doubt}`")))?,
        retry_from: from_ms(row.get(8)?)?,
        since: from_ms(row.get(9)?)?,
        trouble: row.get::<_, Option<String>>(10)?.zip(row.get(11)?),
        earlier: parse_receipt(row.get(12)?)?,
    })
}
