//! Steps with a delay: what their rows hold, and what else may have happened before they are due.
//!
//! While such an action waits, its row has no lane: whatever else changes the same need not wait for it. When it is due it
//! takes its place in the lane in the same transaction in which it is made certain that no later run came to the same.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::ledger::{Prepared, change_state, later};
use super::{Store, StoreError, from_ms, to_ms};
use crate::model::action::Happening;
use crate::model::ids::{ActionId, RunId};

/// How old an answer may be on which an action is sent. What was kept for longer, by a pause, a stop, the guard or an earlier
/// change of the same, is asked anew.
const STILL_TRUE: SignedDuration = SignedDuration::from_mins(5);

/// The reason of an action that a later run made needless.
pub(super) const SUPERSEDED: &str = "superseded";

/// How a step with a delay is planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delayed {
    /// How much later than its event was decided.
    pub delay: Duration,
    /// Final parameters of a change of access, as JSON. Whatever else it does is filled in when it is due.
    pub params: Option<String>,
    /// What is asked when it is due.
    pub plan: DelayedPlan,
}

/// What is asked of an action when its delay ends: its step as it was when the action was planned. A later configuration
/// changes none of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelayedPlan {
    /// When this is true, it is not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_if: Option<String>,
    /// Steps without whose success it is not done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// Whether a person has to allow it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approval: bool,
}

/// An action whose delay has ended.
#[derive(Debug, Clone)]
pub struct Due {
    /// `connector.noun.verb`
    pub kind: String,
    /// The parameters that were planned, if they were.
    pub params: Option<String>,
    /// When the delay ended.
    pub at: Timestamp,
    /// What is asked; an error when the row cannot be read.
    pub plan: Result<DelayedPlan, String>,
}

impl Store {
    /// Why an action with a delay is not done any more, in a sentence: a run for another, later event came to the same.
    pub async fn superseded(&self, action: ActionId, lane: &str) -> Result<Option<String>, StoreError> {
        let lane = lane.to_owned();
        self.read(move |connection| newer_in_lane(connection, action, &lane)).await
    }

    /// Whether an event of this user waits for its decision.
    pub async fn has_undecided(&self, subject: &str) -> Result<bool, StoreError> {
        let subject = subject.to_owned();
        self.read(move |connection| {
            Ok(connection
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM event WHERE subject = ?1 AND state = 'new')")?
                .query_row([subject], |row| row.get(0))?)
        })
        .await
    }
}

/// What a row says of a delay, in the columns `kind, params, not_before, delayed_plan` from `first` on.
pub(super) fn due(row: &Row<'_>, first: usize) -> Result<Option<Due>, StoreError> {
    let Some(at) = row.get::<_, Option<i64>>(first + 2)? else { return Ok(None) };
    let plan: Option<String> = row.get(first + 3)?;
    let plan = serde_json::from_str(plan.as_deref().unwrap_or("{}"))
        .map_err(|error| format!("what was planned cannot be read: {error}"));
    Ok(Some(Due { kind: row.get(first)?, params: row.get(first + 1)?, at: from_ms(at)?, plan }))
}

/// Writes what a planned action has beside its row when it has a delay: it is due when that ends.
pub(super) fn plan(
    connection: &Connection,
    action: ActionId,
    delayed: &Delayed,
    now: Timestamp,
) -> Result<(), StoreError> {
    let plan = serde_json::to_string(&delayed.plan).map_err(|error| StoreError::Unreadable(error.to_string()))?;
    connection
        .prepare_cached(
            "UPDATE action SET delay = ?2, not_before = ?3, due = ?3, delayed_plan = ?4, params = ?5,
                               wait_until = ?3 + (wait_until - created_at)
             WHERE id = ?1",
        )?
        .execute(params![
            action.0,
            i64::try_from(delayed.delay.as_millis()).unwrap_or(i64::MAX),
            to_ms(later(now, delayed.delay)),
            plan,
            delayed.params,
        ])?;
    Ok(())
}

/// The end of a preparation as it stands in the transaction that writes it: an action with a delay is not done when a later
/// run came to the same meanwhile. Nothing can come between this and its place in the lane.
pub(super) fn unless_superseded(
    connection: &Connection,
    action: ActionId,
    prepared: &Prepared,
    now: Timestamp,
) -> Result<Prepared, StoreError> {
    let goes_on = matches!(prepared.happening, Happening::Prepared | Happening::HeldForApproval);
    let (delayed, is_message): (bool, bool) = connection
        .prepare_cached("SELECT delay IS NOT NULL, kind = 'slack.message.post' FROM action WHERE id = ?1")?
        .query_row([action.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if !delayed || !goes_on {
        return Ok(prepared.clone());
    }
    // The lane of a message is its thread, in which one says nothing of another.
    let lane = prepared.lane.as_deref().filter(|_| !is_message);
    let newer = lane.map(|lane| newer_in_lane(connection, action, lane)).transpose()?.flatten();
    if let Some(why) = newer {
        return Ok(Prepared {
            happening: Happening::NotCalledFor,
            reason: Some(SUPERSEDED),
            error: Some(why),
            lane: None,
            ..prepared.clone()
        });
    }
    connection.prepare_cached("UPDATE action SET answered_at = ?2 WHERE id = ?1")?.execute([action.0, to_ms(now)])?;
    Ok(prepared.clone())
}

/// Lets an action with a delay wait again, for all that is asked of it to be asked anew, if that was answered too long ago
/// and nothing was sent yet. Its place in the lane is given up meanwhile: events of the user are not held up by what has to
/// wait for them. Returns whether it waits.
pub(super) fn ask_anew(
    connection: &Connection,
    action: ActionId,
    answered: Timestamp,
    now: Timestamp,
) -> Result<bool, StoreError> {
    // A clock that was set back tells nothing of how long ago that was.
    if now.duration_since(answered).abs() <= STILL_TRUE {
        return Ok(false);
    }
    connection
        .prepare_cached("UPDATE action SET lane = NULL, reason = NULL, error = NULL WHERE id = ?1")?
        .execute([action.0])?;
    change_state(connection, action, Happening::AskedAnew, now)?;
    Ok(true)
}

/// The action of a run for a later event that came to the same, or is about to. What a person holds back, what was not
/// called for and what failed came to nothing.
fn newer_in_lane(connection: &Connection, action: ActionId, lane: &str) -> Result<Option<String>, StoreError> {
    let newer = connection
        .prepare_cached(
            "SELECT b.id, b.kind, b.run, r.playbook FROM (
                SELECT id, kind, run FROM action WHERE lane = ?2 AND id > ?1 AND state IN ('succeeded', 'settled')
                UNION ALL
                SELECT id, kind, run FROM action WHERE lane = ?2 AND id > ?1
                   AND state IN ('waiting', 'ready', 'started', 'retry', 'unknown', 'needs_attention')) b
             JOIN run r ON r.id = b.run
             WHERE r.event <> (SELECT event FROM run WHERE id = (SELECT run FROM action WHERE id = ?1))
             ORDER BY b.id LIMIT 1",
        )?
        .query_row(params![action.0, lane], |row| {
            let (id, kind, run, playbook): (i64, String, i64, String) =
                (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            let run = RunId(run);
            Ok(format!(
                "a later run came to the same, and that stands: action {id} ({kind}) of run {run}, playbook `{playbook}`"
            ))
        })
        .optional()?;
    Ok(newer)
}
