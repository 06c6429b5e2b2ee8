//! What people change from the command line, beside a running daemon.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};
use thiserror::Error;

use super::journal::{self, Told};
use super::ledger::{change_state_by, parse_state};
use super::status::Standstill;
use super::who::Who;
use super::{Store, StoreError, to_ms};
use crate::model::action::{ActionState, Happening};
use crate::model::ids::{ActionId, StreamId};

/// What a person can do to an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PersonChange {
    /// Try it again now, or do it without waiting for the end of its delay.
    Retry,
    /// Take it back.
    Cancel,
    /// Allow it.
    Approve,
    /// Say that its effect is there.
    Settle,
}

/// Why it was not done.
#[derive(Debug, Error)]
pub enum PersonError {
    /// There is no such action.
    #[error("there is no action {0}; `okta-responder actions list` shows them")]
    NoSuchAction(ActionId),
    /// It is not in a state in which this makes sense.
    #[error("action {action} is {state}: it cannot be {done}; possible from: {possible}")]
    WrongState {
        /// The action.
        action: ActionId,
        /// Where it stands.
        state: ActionState,
        /// The participle of what was asked.
        done: &'static str,
        /// The states from which it can be done.
        possible: String,
    },
    /// Its event's record is pruned, so the guard could not see whom it is about.
    #[error(
        "action {0} cannot be retried: the record of its event was pruned ([state] keep_events); do it by hand at the service"
    )]
    RecordGone(ActionId),
    /// The file could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PersonChange {
    /// What that means for an action in this state, or `None` when it cannot be done. One that was never prepared, that had a
    /// delay and was never sent, or that the guard refused, is prepared again before anything is sent. `is_delayed` tells that
    /// its delay has not ended.
    fn happening(self, state: ActionState, prepared: bool, is_delayed: bool) -> Option<Happening> {
        let happening = match self {
            Self::Retry if state == ActionState::Waiting => is_delayed.then_some(Happening::HastenedByPerson)?,
            Self::Retry if prepared && state != ActionState::Refused => Happening::RetriedByPerson,
            Self::Retry => Happening::PlannedAnewByPerson,
            Self::Cancel => Happening::CancelledByPerson,
            Self::Approve => Happening::Approved,
            Self::Settle => Happening::SettledByPerson,
        };
        state.after(happening).is_ok().then_some(happening)
    }

    /// Whether the time for retries begins now: an action that waited two days for its approval has had no attempt yet.
    fn begins_anew(self) -> bool {
        matches!(self, Self::Retry | Self::Approve)
    }

    fn command(self) -> &'static str {
        match self {
            Self::Retry => "actions retry",
            Self::Cancel => "actions cancel",
            Self::Approve => "actions approve",
            Self::Settle => "actions settle",
        }
    }

    fn participle(self) -> &'static str {
        match self {
            Self::Retry => "retried",
            Self::Cancel => "cancelled",
            Self::Approve => "approved",
            Self::Settle => "settled",
        }
    }
}

impl Store {
    /// Does what a person asks to one action. The daemon sees it within a second.
    pub async fn change_by_person(
        &self,
        action: ActionId,
        change: PersonChange,
        now: Timestamp,
    ) -> Result<ActionState, PersonError> {
        self.change_by(action, change, "a person", now).await
    }

    /// The same, on record with the person's name. Who approves an action lets it past the limits, past a stop of its
    /// playbook and past `max_event_age`; planned anew, it needs another approval.
    pub async fn change_by(
        &self,
        action: ActionId,
        change: PersonChange,
        who: &str,
        now: Timestamp,
    ) -> Result<ActionState, PersonError> {
        let (person, who) = (Who::person(change.command()), who.to_owned());
        self.write(move |connection| {
            let found: Option<(String, bool, bool, bool)> = connection
                .query_row(
                    "SELECT a.state,
                            a.params IS NOT NULL AND (a.delay IS NULL OR EXISTS (SELECT 1 FROM attempt WHERE action = a.id)),
                            EXISTS (SELECT 1 FROM event_body WHERE event = r.event), coalesce(a.not_before > ?2, 0)
                     FROM action a JOIN run r ON r.id = a.run WHERE a.id = ?1",
                    [action.0, to_ms(now)],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
                )
                .optional()?;
            let Some((state, prepared, recorded, is_delayed)) = found else { return Ok(Err(PersonError::NoSuchAction(action))) };
            let state = parse_state(&state)?;
            let Some(happening) = change.happening(state, prepared, is_delayed) else {
                let possible: Vec<&str> = ActionState::ALL
                    .into_iter()
                    .filter(|state| change.happening(*state, true, false).is_some())
                    .map(ActionState::as_str)
                    .collect();
                return Ok(Err(PersonError::WrongState {
                    action,
                    state,
                    done: change.participle(),
                    possible: possible.join(", "),
                }));
            };
            if change == PersonChange::Retry && !recorded {
                return Ok(Err(PersonError::RecordGone(action)));
            }
            connection.execute(
                "UPDATE action SET due = ?2, reason = ?3, error = NULL,
                            retry_from = iif(?4, ?2, retry_from), not_before = iif(?5, min(not_before, ?2), not_before)
                 WHERE id = ?1",
                params![
                    action.0,
                    to_ms(now),
                    change.participle(),
                    change.begins_anew(),
                    change == PersonChange::Retry
                ],
            )?;
            let approval = match happening {
                Happening::Approved => Some((Some(to_ms(now)), Some(who))),
                Happening::PlannedAnewByPerson => Some((None, None)),
                _ => None,
            };
            if let Some((at, by)) = approval {
                connection.execute(
                    "UPDATE action SET approved_at = ?2, approved_by = ?3,
                                       lane = iif(delay IS NULL OR ?2 IS NOT NULL, lane, NULL) WHERE id = ?1",
                    params![action.0, at, by],
                )?;
            }
            Ok(Ok(change_state_by(connection, action, happening, &person, now)?))
        })
        .await?
    }

    /// Stops or starts dispatching; polling goes on. Returns whether that changed anything.
    pub async fn set_paused(&self, paused: bool, now: Timestamp) -> Result<bool, StoreError> {
        let who = Who::person(if paused { "pause" } else { "resume" });
        self.write(move |connection| {
            let changed = if paused {
                connection.execute(
                    "INSERT INTO control (name, value, at) VALUES ('paused', '1', ?1) ON CONFLICT (name) DO NOTHING",
                    [to_ms(now)],
                )?
            } else {
                connection.execute("DELETE FROM control WHERE name = 'paused'", [])?
            };
            if changed > 0 {
                let told = if paused { Told::Paused { by: &who } } else { Told::Resumed { by: &who } };
                journal::append(connection, now, &told)?;
            }
            Ok(changed > 0)
        })
        .await
    }

    /// Records what keeps the daemon from reading the log at all, or that nothing does any more; the live stream, if there is
    /// one, has it as its problem.
    pub async fn set_standstill(&self, standstill: Option<Standstill>, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |connection| {
            let Some(Standstill { words, for_a_person }) = standstill else {
                connection
                    .execute("DELETE FROM control WHERE name IN ('standstill', 'standstill_for_a_person')", [])?;
                return Ok(());
            };
            let (name, other) = match for_a_person {
                true => ("standstill_for_a_person", "standstill"),
                false => ("standstill", "standstill_for_a_person"),
            };
            connection.execute("DELETE FROM control WHERE name = ?1", [other])?;
            connection.execute(
                "INSERT INTO control (name, value, at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value, at = excluded.at",
                params![name, words, to_ms(now)],
            )?;
            connection.execute(
                "UPDATE stream SET problem = ?1, updated_at = ?2 WHERE kind = 'live' AND state = 'active'",
                params![words, to_ms(now)],
            )?;
            Ok(())
        })
        .await
    }

    /// Ends a backfill. Returns whether it was active.
    pub async fn cancel_backfill(&self, stream: StreamId, now: Timestamp) -> Result<bool, StoreError> {
        let who = Who::person("backfill --cancel");
        self.write(move |connection| {
            let changed = connection.execute(
                "UPDATE stream SET state = 'cancelled', updated_at = ?2
                 WHERE id = ?1 AND kind = 'backfill' AND state = 'active'",
                params![stream.0, to_ms(now)],
            )?;
            connection.execute(
                "UPDATE event SET state = 'skipped', reason = 'backfill cancelled' WHERE stream = ?1 AND state = 'held'",
                [stream.0],
            )?;
            if changed > 0 {
                journal::append(connection, now, &Told::BackfillCancelled { stream: stream.0, by: &who })?;
            }
            Ok(changed > 0)
        })
        .await
    }
}
