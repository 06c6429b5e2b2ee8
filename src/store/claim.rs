//! Transaction T3: the guard is asked, and what it passes is claimed.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::delayed;
use super::ledger::{CLAIMED, Claimed, change_state, claimed};
use super::trips::{self, Tripped};
use super::{Store, StoreError, from_ms, from_optional_ms, to_ms};
use crate::connectors::Call;
use crate::guard::limits::Spent;
use crate::guard::{Candidate, Cleared, Judge, Ruling};
use crate::halt::{self, Point};
use crate::model::action::{ActionState, Happening};
use crate::model::ids::ActionId;

/// The most candidates that are looked at in one transaction. What is behind them has its turn in the next one.
const LOOKED_AT: usize = 500;

/// What a claim came to.
#[derive(Debug, Default)]
pub struct Claims {
    /// Claimed: their attempt rows are written, and they are to be sent.
    pub taken: Vec<Taken>,
    /// What the guard did not let pass.
    pub stopped: Vec<Stopped>,
    /// Playbooks that went over a limit, each told once.
    pub tripped: Vec<Tripped>,
    /// Users who have to be read from Okta before the guard can say anything.
    pub unasked: BTreeSet<String>,
    /// Whether there may be more right away: not while all that was looked at waits for users to be read.
    pub more: bool,
}

/// An action that is claimed, and the call that the guard has cleared for it.
#[derive(Debug)]
pub struct Taken {
    /// The action.
    pub action: Claimed,
    /// What is sent.
    pub call: Cleared<Call>,
}

/// An action that the guard did not let pass at its claim.
#[derive(Debug, Clone)]
pub struct Stopped {
    /// The action.
    pub action: ActionId,
    /// `connector.noun.verb`
    pub kind: String,
    /// The playbook.
    pub playbook: String,
    /// Where it stands now; for what is looked at again it is unchanged.
    pub state: ActionState,
    /// The sentence on record.
    pub why: String,
}

impl Store {
    /// T3: takes actions that are due and whose lane is free, asks `judge` for each, and writes the attempt rows of those
    /// that pass, in one transaction. Nothing is taken while dispatching is paused. Each service has `most` places of its
    /// own: when one does not answer, what goes to the others goes on. A lane is free when no earlier action holds a place
    /// in it and none is under way: that can be a later one, when a person has an earlier one tried again. In the lane of
    /// a thread of messages only what is about to leave or on its way holds a place: an alert never waits for one that
    /// failed or that a person has to allow.
    ///
    /// What the guard holds, refuses or observes changes its state here as well. What counts against the limits is read
    /// in the same transaction and goes on being counted as candidates pass, so that no two claims can share a place.
    pub async fn claim_ready(&self, now: Timestamp, most: usize, judge: Judge) -> Result<Claims, StoreError> {
        self.write(move |connection| {
            let mut claim = Claim { connection, now, judge: &judge, spent: None, claims: Claims::default() };
            for (service, free) in free_places(connection, most)? {
                claim.of_service(&service, free)?;
            }
            if !claim.claims.taken.is_empty() {
                halt::point(Point::InsideT3);
            }
            Ok(claim.claims)
        })
        .await
    }

    /// Whether anything could be claimed; neither lanes nor the guard are asked. Spares an idle daemon its commits.
    pub async fn has_claimable(&self, now: Timestamp, most: usize) -> Result<bool, StoreError> {
        self.read(move |connection| {
            for (service, _) in free_places(connection, most)? {
                let due: bool = connection
                    .prepare_cached(
                        "SELECT EXISTS (SELECT 1 FROM action WHERE service = ?1 AND state IN ('ready', 'retry')
                                                               AND due <= ?2)",
                    )?
                    .query_row(params![service, to_ms(now)], |row| row.get(0))?;
                if due {
                    return Ok(true);
                }
            }
            Ok(false)
        })
        .await
    }
}

/// What became of a candidate.
enum Ruled {
    Taken,
    /// It is not among the candidates of this moment any more.
    Moved,
    /// It stays where it is until a user is read.
    AsItWas,
}

/// A candidate in its place in the order.
struct InLine {
    action: Claimed,
    candidate: Candidate,
    due: i64,
    /// When all that is asked of it at the end of its delay was answered.
    answered: Option<Timestamp>,
}

/// One claim under way.
struct Claim<'a> {
    connection: &'a Connection,
    now: Timestamp,
    judge: &'a Judge,
    /// Read when the first candidate is there.
    spent: Option<Spent>,
    claims: Claims,
}

impl Claim<'_> {
    fn of_service(&mut self, service: &str, mut free: usize) -> Result<(), StoreError> {
        let (mut looked_at, mut asks) = (0, 0);
        let mut behind = (i64::MIN, i64::MIN);
        while free > 0 {
            if looked_at >= LOOKED_AT {
                self.claims.more |= asks < looked_at;
                break;
            }
            let candidates = self.candidates(service, behind, free)?;
            let whole = candidates.len() == free;
            looked_at += candidates.len();
            for one in candidates {
                behind = (one.due, one.action.id.0);
                match self.rule(one)? {
                    Ruled::Taken => free -= 1,
                    Ruled::Moved => {}
                    Ruled::AsItWas => asks += 1,
                }
            }
            if !whole {
                break;
            }
        }
        Ok(())
    }

    /// Candidates behind a place in the order of being due.
    fn candidates(&self, service: &str, behind: (i64, i64), most: usize) -> Result<Vec<InLine>, StoreError> {
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT {CLAIMED},
                    r.playbook, r.mode = 'observe', a.approved_at IS NOT NULL, a.subject, e.source, e.published,
                    iif(?6, (SELECT body FROM event_body WHERE event = e.id), NULL), a.due, a.delay, a.answered_at
             FROM action a JOIN run r ON r.id = a.run JOIN event e ON e.id = r.event
             WHERE a.service = ?1 AND a.state IN ('ready', 'retry') AND a.due <= ?2 AND (a.due, a.id) > (?3, ?4)
               AND (a.lane IS NULL OR NOT EXISTS (
                    SELECT 1 FROM action b WHERE b.lane = a.lane AND (b.id < a.id OR b.state = 'started')
                       AND b.state IN ('waiting', 'ready', 'started', 'retry', 'unknown', 'needs_attention',
                                       'awaiting_approval')
                       AND (b.lane NOT GLOB 'slack.message/*' OR b.state IN ('ready', 'started', 'unknown'))))
             ORDER BY a.due, a.id LIMIT ?5"
        ))?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let reads_records = self.judge.reads_records();
        let rows = statement
            .query_map(params![service, to_ms(self.now), behind.0, behind.1, most, reads_records], |row| {
                Ok(candidate(row))
            })?;
        rows.map(|row| row?).collect()
    }

    /// Lets the guard rule over a candidate and writes what that means.
    fn rule(&mut self, InLine { action, candidate, due: _, answered }: InLine) -> Result<Ruled, StoreError> {
        let unsent = action.attempt == 1 && !candidate.approved;
        if let Some(answered) = answered.filter(|_| unsent)
            && delayed::ask_anew(self.connection, candidate.id, answered, self.now)?
        {
            return Ok(Ruled::Moved);
        }
        let spent = match &mut self.spent {
            Some(spent) => spent,
            none => none.insert(trips::spent(self.connection, self.judge.counts_after())?),
        };
        match self.judge.rule(&candidate, spent) {
            Ruling::Pass { call, counted } => {
                if counted {
                    spent.record(candidate.id, &candidate.playbook, &candidate.kind);
                }
                self.take(action, call, counted)?;
                return Ok(Ruled::Taken);
            }
            Ruling::Observe { why } => self.stop(candidate, Happening::NotCalledFor, "observe", why)?,
            Ruling::Refuse { why } => self.stop(candidate, Happening::RefusedByGuard, "guard", why)?,
            Ruling::Hold { reason, why, trip } => {
                if let Some(trip) = trip {
                    spent.stop(&candidate.playbook, &trip.why);
                    let tripped = trips::trip(self.connection, &candidate, action.run, trip, self.now)?;
                    self.claims.tripped.extend(tripped);
                }
                self.stop(candidate, Happening::HeldForApproval, reason, why)?;
            }
            Ruling::Later { until, why } => {
                self.connection
                    .prepare_cached("UPDATE action SET due = ?2, reason = 'guard', error = ?3 WHERE id = ?1")?
                    .execute(params![candidate.id.0, to_ms(until), why])?;
            }
            Ruling::Ask(users) => {
                self.claims.unasked.extend(users);
                return Ok(Ruled::AsItWas);
            }
        }
        Ok(Ruled::Moved)
    }

    fn take(&mut self, mut action: Claimed, call: Cleared<Call>, counted: bool) -> Result<(), StoreError> {
        if action.attempt == 1 {
            // A pause, a stop or the guard may have kept it longer than retries go on: that was no trying.
            action.retry_from = self.now;
        }
        self.connection
            .prepare_cached("UPDATE action SET attempts = ?2, retry_from = ?3 WHERE id = ?1")?
            .execute(params![action.id.0, action.attempt, to_ms(action.retry_from)])?;
        change_state(self.connection, action.id, Happening::Claimed, self.now)?;
        self.connection
            .prepare_cached("INSERT INTO attempt (action, number, started_at, counted) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![action.id.0, action.attempt, to_ms(self.now), counted])?;
        self.claims.taken.push(Taken { action, call });
        Ok(())
    }

    fn stop(
        &mut self,
        candidate: Candidate,
        happening: Happening,
        reason: &'static str,
        why: String,
    ) -> Result<(), StoreError> {
        self.connection.prepare_cached("UPDATE action SET reason = ?2, error = ?3 WHERE id = ?1")?.execute(params![
            candidate.id.0,
            reason,
            why
        ])?;
        let state = change_state(self.connection, candidate.id, happening, self.now)?;
        let Candidate { id: action, kind, playbook, .. } = candidate;
        self.claims.stopped.push(Stopped { action, kind, playbook, state, why });
        Ok(())
    }
}

fn candidate(row: &Row<'_>) -> Result<InLine, StoreError> {
    let action = claimed(row)?;
    let candidate = Candidate {
        id: action.id,
        playbook: row.get(13)?,
        step: action.step.clone(),
        kind: action.kind.clone(),
        key: action.key.clone(),
        params: action.params.clone(),
        attempt: action.attempt,
        earlier: action.earlier.clone(),
        observe: row.get(14)?,
        approved: row.get(15)?,
        subject: row.get(16)?,
        source: row.get(17)?,
        published: from_ms(row.get(18)?)?,
        record: row.get(19)?,
        delay: Duration::from_millis(row.get::<_, Option<u64>>(21)?.unwrap_or_default()),
    };
    Ok(InLine { action, candidate, due: row.get(20)?, answered: from_optional_ms(row.get(22)?)? })
}

/// The services that something is ready for, each with how many of its `most` places are free. None while dispatching is
/// paused.
fn free_places(connection: &Connection, most: usize) -> Result<Vec<(String, usize)>, StoreError> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "WITH RECURSIVE wanted (name) AS (
                SELECT min(service) FROM action WHERE state IN ('ready', 'retry')
                UNION ALL
                SELECT (SELECT min(service) FROM action WHERE state IN ('ready', 'retry') AND service > wanted.name)
                FROM wanted WHERE wanted.name IS NOT NULL)
             SELECT name, ?1 - (SELECT count(*) FROM action WHERE state = 'started' AND service = name) AS free
             FROM wanted WHERE name IS NOT NULL AND free > 0
               AND NOT EXISTS (SELECT 1 FROM control WHERE name = 'paused')",
        )?
        .query_map([most], |row| Ok((row.get(0)?, row.get(1)?)))?
        .map(|row| Ok(row?))
        .collect()
}
