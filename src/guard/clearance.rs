//! The guard's word at the claim. What it has not cleared cannot be sent: [`Connector::perform`] takes only what this
//! module hands out.
//!
//! ```compile_fail,E0423
//! use okta_responder::connectors::Call;
//! use okta_responder::guard::Cleared;
//!
//! fn around_the_guard(call: Call) -> Cleared<Call> {
//!     Cleared(call)
//! }
//! ```
//!
//! [`Connector::perform`]: crate::connectors::Connector::perform

use std::ops::Deref;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::alarm::Message;
use super::limits::Spent;
use super::protection::{Protection, Subject};
use super::standing::Standings;
use super::{Guard, short};
use crate::config::Mode;
use crate::connectors::{self, Call};
use crate::model::event::Event;
use crate::model::ids::{ActionId, IdempotencyKey};

/// Something that the guard has passed, for one attempt. Nobody else makes one, and it cannot be copied.
#[derive(Debug)]
pub struct Cleared<T>(T);

impl<T> Deref for Cleared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

#[cfg(test)]
impl<T> Cleared<T> {
    /// For tests of connectors, which need no guard. The daemon's build has no such thing.
    pub(crate) fn unguarded(what: T) -> Self {
        Self(what)
    }
}

/// An action that may be sent next, if the guard lets it.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its row.
    pub id: ActionId,
    /// The playbook.
    pub playbook: String,
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
    /// Whether its run only observes.
    pub observe: bool,
    /// Whether a person has allowed it.
    pub approved: bool,
    /// The affected user's id.
    pub subject: Option<String>,
    /// Such as `okta`.
    pub source: String,
    /// When the event happened.
    pub published: Timestamp,
    /// The event's record, if the judge [reads it](Judge::reads_records) and it is still there.
    pub record: Option<String>,
}

/// What becomes of a candidate.
#[derive(Debug)]
pub enum Ruling {
    /// It is sent.
    Pass {
        /// What is sent.
        call: Cleared<Call>,
        /// Whether it counts against the limits.
        counted: bool,
    },
    /// It is not done: observe mode.
    Observe {
        /// The sentence to record.
        why: String,
    },
    /// A person has to allow it.
    Hold {
        /// A word from a closed list: `limit` or `approval`.
        reason: &'static str,
        /// The sentence to record.
        why: String,
        /// Whether the playbook is stopped by it, and the message that tells people so.
        trip: Option<Trip>,
    },
    /// It is never done.
    Refuse {
        /// The sentence to record.
        why: String,
    },
    /// It cannot be told now; it is looked at again.
    Later {
        /// When.
        until: Timestamp,
        /// The sentence to record.
        why: String,
    },
    /// These users have to be read from Okta first. Nothing is recorded.
    Ask(Vec<String>),
}

/// A playbook that is stopped.
#[derive(Debug, Clone, PartialEq)]
pub struct Trip {
    /// The sentence to record.
    pub why: String,
    /// The message to people, if one is configured.
    pub alarm: Option<Message>,
}

/// The guard at one moment, with what is known of users then: what [`claim_ready`](crate::store::Store::claim_ready) asks
/// for each candidate.
#[derive(Debug, Clone)]
pub struct Judge {
    guard: Arc<Guard>,
    standings: Arc<Standings>,
    now: Timestamp,
    hour_began: Timestamp,
}

impl Judge {
    /// Attempts that began after `hour_began` count against the limits.
    pub fn new(guard: Arc<Guard>, standings: Arc<Standings>, now: Timestamp, hour_began: Timestamp) -> Self {
        Self { guard, standings, now, hour_began }
    }

    /// Attempts that began after this count; nothing has to be counted when there is no limit.
    pub fn counts_after(&self) -> Option<Timestamp> {
        self.guard.limits.count().then_some(self.hour_began)
    }

    /// Whether the records of events have to be read, because a login in them may be on a list.
    pub fn reads_records(&self) -> bool {
        self.guard.protected.lists_users()
    }

    /// Rules over one candidate. Whoever lets one pass records it in `spent` before the next is asked for.
    ///
    /// The order is part of the promise: a protected user is protected whoever has allowed it; observe mode touches
    /// nothing; a person's word stands against staleness, limits and a stop, and against nothing else.
    pub fn rule(&self, candidate: &Candidate, spent: &Spent) -> Ruling {
        let guard = &*self.guard;
        let refuse = |why: String| Ruling::Refuse { why };
        let Some(kind) = connectors::kind(&candidate.kind) else {
            return refuse(format!("there is no action `{}` in this version", short(&candidate.kind)));
        };
        let Ok(params) = serde_json::from_str::<Value>(&candidate.params) else {
            return refuse("its stored parameters cannot be read".to_owned());
        };
        let event = candidate.record.as_deref().and_then(|body| Event::parse(&candidate.source, body).ok());
        let mut subject = event.as_ref().map(Subject::of).unwrap_or_default();
        if subject.id != candidate.subject.as_deref() {
            subject = Subject { id: candidate.subject.as_deref(), login: None };
        }
        if kind.changes_access {
            if let Some(why) = guard.protected.by_name(&params, subject) {
                return refuse(why);
            }
            if !candidate.approved
                && let Some(why) = guard.staleness(candidate.published, self.now)
            {
                return refuse(why);
            }
        }
        let mode = guard.mode_of(&candidate.playbook);
        if candidate.observe || mode == Mode::Observe {
            let whose = if guard.observes() { "[guard] mode = \"observe\"" } else { "its playbook observes" };
            return Ruling::Observe { why: format!("{whose}: it is recorded and not done") };
        }
        if kind.changes_access {
            let hold = |reason, why| Ruling::Hold { reason, why, trip: None };
            if !candidate.approved {
                if let Some(why) = spent.stopped(&candidate.playbook) {
                    return hold("limit", format!("the playbook is stopped: {why}"));
                }
                if guard.wants_approval(&candidate.playbook, &candidate.step) {
                    return hold("approval", "its step has approval = true".to_owned());
                }
            }
            match guard.protected.by_standing(kind, &params, subject, &self.standings, self.now) {
                Protection::None => {}
                Protection::Protected(why) => return refuse(why),
                Protection::Unasked(users) => return Ruling::Ask(users),
                Protection::Unreadable { until, why } => return Ruling::Later { until, why },
            }
            if !candidate.approved
                && let Some(over) = guard.limits.over(spent, candidate.id, &candidate.playbook, kind.name)
            {
                let alarm = guard.alarm.as_ref();
                let trip = (!over.always).then(|| Trip {
                    why: over.why.clone(),
                    alarm: alarm.map(|alarm| alarm.message(&candidate.playbook, &over.why)),
                });
                return Ruling::Hold { reason: "limit", why: over.why, trip };
            }
        }
        let call = Call { key: candidate.key.clone(), params, attempt: candidate.attempt };
        Ruling::Pass { call: Cleared(call), counted: kind.changes_access && !candidate.approved }
    }
}
