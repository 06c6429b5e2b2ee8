//! How much may be changed in an hour. Pure: the ledger tells what was attempted, this says whether one more fits.
//!
//! What counts is an *action with an attempt*: an action that is tried three times in one hour counts once, one that is
//! tried again in a later hour counts there as well. What a person has allowed by name does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::config::{Limit, LimitsConfig};
use crate::model::ids::ActionId;

/// The length of the sliding window.
pub const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// How far the wall clock may run ahead of the steady one between two looks before that is a jump.
const DRIFT: SignedDuration = SignedDuration::from_secs(5);

/// What was changed in the hour behind us, and who was stopped. The ledger fills it in at each claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spent {
    actions: BTreeSet<ActionId>,
    by_playbook: BTreeMap<String, u64>,
    by_connector: BTreeMap<String, u64>,
    stopped: BTreeMap<String, String>,
}

impl Spent {
    /// Counts an action; a second time changes nothing.
    pub fn record(&mut self, action: ActionId, playbook: &str, kind: &str) {
        if self.actions.insert(action) {
            *self.by_playbook.entry(playbook.to_owned()).or_default() += 1;
            *self.by_connector.entry(connector_of(kind).to_owned()).or_default() += 1;
        }
    }

    /// Notes that a playbook is stopped, and why; the first word stands.
    pub fn stop(&mut self, playbook: &str, why: &str) {
        self.stopped.entry(playbook.to_owned()).or_insert_with(|| why.to_owned());
    }

    /// Why a playbook is stopped.
    pub fn stopped(&self, playbook: &str) -> Option<&str> {
        self.stopped.get(playbook).map(String::as_str)
    }
}

/// The bounds of `[guard.limits]`.
#[derive(Debug, Clone, Default)]
pub struct Limits(LimitsConfig);

/// A bound that an action would go over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    /// The sentence to record.
    pub why: String,
    /// Whether nothing at all is allowed without a person: then there is nothing to raise an alarm about.
    pub always: bool,
}

impl Limits {
    /// Takes the configuration.
    pub fn new(config: &LimitsConfig) -> Self {
        Self(config.clone())
    }

    /// Whether anything has to be counted.
    pub fn count(&self) -> bool {
        let LimitsConfig { overall, per_playbook, per_connector, playbook, connector } = &self.0;
        let single = [overall, per_playbook, per_connector];
        single.into_iter().chain(playbook.values()).chain(connector.values()).any(|limit| *limit != Limit::Unlimited)
    }

    /// Whether one more change goes over a bound. An action that has counted in this hour already is none more.
    pub fn over(&self, spent: &Spent, action: ActionId, playbook: &str, kind: &str) -> Option<Over> {
        if spent.actions.contains(&action) {
            return None;
        }
        let connector = connector_of(kind);
        let counted = |counts: &BTreeMap<String, u64>, name: &str| counts.get(name).copied().unwrap_or_default();
        let of_playbook = self.0.playbook.get(playbook);
        let of_connector = self.0.connector.get(connector);
        let bounds = [
            (self.0.overall, spent.actions.len() as u64, "overall".to_owned(), "in all".to_owned()),
            (
                of_playbook.copied().unwrap_or(self.0.per_playbook),
                counted(&spent.by_playbook, playbook),
                key(of_playbook, "playbook", playbook),
                format!("by the playbook `{playbook}`"),
            ),
            (
                of_connector.copied().unwrap_or(self.0.per_connector),
                counted(&spent.by_connector, connector),
                key(of_connector, "connector", connector),
                format!("by `{connector}`"),
            ),
        ];
        let over = |limit: Limit, so_far: u64| matches!(limit, Limit::Most(most) if so_far >= u64::from(most));
        // What never passes is told before what is only used up.
        let always = bounds.iter().find(|(limit, ..)| *limit == Limit::Most(0));
        let (limit, _, key, whose) = always.or_else(|| bounds.iter().find(|bound| over(bound.0, bound.1)))?;
        Some(match limit {
            Limit::Most(0) => {
                Over { why: format!("[guard.limits] {key} = 0: every change waits for a person"), always: true }
            }
            limit => Over {
                why: format!(
                    "more than [guard.limits] {key} = {limit} changes of access within an hour, counted {whose}"
                ),
                always: false,
            },
        })
    }
}

fn key(single: Option<&Limit>, table: &str, name: &str) -> String {
    match single {
        Some(_) => format!("{table}.\"{name}\""),
        None => format!("per_{table}"),
    }
}

/// What stands before the last dot of an action's name: `okta.group` of `okta.group.add_user`.
pub fn connector_of(kind: &str) -> &str {
    kind.rsplit_once('.').map_or(kind, |(connector, _)| connector)
}

/// Where the hour that counts begins, whatever the wall clock does.
///
/// Set back, the clock leaves attempts in its future, and those count. Set forward, it would make a minute ago look like
/// long ago; so after a jump the window stays where the steady clock says it is, until an hour has really passed. Across
/// a restart the wall clock has to be believed.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    wall: Timestamp,
    steady: Duration,
    jumped: Option<Duration>,
}

impl Window {
    /// Begins with both clocks as they are: the wall clock, and the time since the daemon began.
    pub fn new(wall: Timestamp, steady: Duration) -> Self {
        Self { wall, steady, jumped: None }
    }

    /// The beginning of the hour; attempts that began after it count.
    pub fn begins(&mut self, wall: Timestamp, steady: Duration) -> Timestamp {
        let passed = SignedDuration::try_from(steady.saturating_sub(self.steady)).unwrap_or(SignedDuration::MAX);
        let expected = self.wall.saturating_add(passed).unwrap_or(Timestamp::MAX);
        let ahead = wall.duration_since(expected);
        let since = *self.jumped.get_or_insert(steady);
        let waited = SignedDuration::try_from(steady.saturating_sub(since)).unwrap_or(SignedDuration::MAX);
        let end = if ahead <= DRIFT || waited >= HOUR {
            *self = Self::new(wall, steady);
            wall
        } else {
            expected
        };
        end.saturating_sub(HOUR).unwrap_or(Timestamp::MIN)
    }
}
