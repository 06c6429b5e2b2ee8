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

    /// Whether one more attempt goes over a bound. An action that has counted in this hour already is none more, unless the
    /// hour holds more than the bound anyway, as after a clock was set back or a bound was lowered.
    pub fn over(&self, spent: &Spent, action: ActionId, playbook: &str, kind: &str) -> Option<Over> {
        let one_more = u64::from(!spent.actions.contains(&action));
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
        let over =
            |limit: Limit, so_far: u64| matches!(limit, Limit::Most(most) if so_far + one_more > u64::from(most));
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
/// long ago; so the window stays where the steady clock says it is, and follows a jump only when an hour has really
/// passed since. Across a restart the wall clock has to be believed.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Both clocks at a moment when they agreed.
    wall: Timestamp,
    steady: Duration,
    /// Since when the wall clock is ahead of them, and by how much it was at least.
    ahead: Option<(Duration, SignedDuration)>,
}

impl Window {
    /// Begins with both clocks as they are: the wall clock, and the time since the daemon began.
    pub fn new(wall: Timestamp, steady: Duration) -> Self {
        Self { wall, steady, ahead: None }
    }

    /// The beginning of the hour; attempts that began after it count.
    pub fn begins(&mut self, wall: Timestamp, steady: Duration) -> Timestamp {
        let passed =
            |since: Duration| SignedDuration::try_from(steady.saturating_sub(since)).unwrap_or(SignedDuration::MAX);
        let mut end = self.wall.saturating_add(passed(self.steady)).unwrap_or(Timestamp::MAX);
        let ahead = wall.duration_since(end);
        if ahead <= SignedDuration::ZERO {
            end = wall;
            *self = Self::new(wall, steady);
        } else {
            // The least that it was ahead in this hour: an attempt may have been made then.
            let (since, least) = self.ahead.unwrap_or((steady, ahead));
            let by = least.min(ahead);
            self.ahead = Some((since, by));
            if passed(since) >= HOUR {
                end = end.saturating_add(by).unwrap_or(Timestamp::MAX);
                // What it has been set forward by since then has an hour of its own.
                let rest = ahead.saturating_sub(by);
                *self = Self { ahead: rest.is_positive().then_some((steady, rest)), ..Self::new(end, steady) };
            }
        }
        end.saturating_sub(HOUR).unwrap_or(Timestamp::MIN)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ADD: &str = "okta.group.add_user";
    const REMOVE: &str = "okta.group.remove_user";
    const UNASSIGN: &str = "okta.app.unassign_user";

    fn limits(change: impl FnOnce(&mut LimitsConfig)) -> Limits {
        let mut config = LimitsConfig::unlimited();
        change(&mut config);
        Limits::new(&config)
    }

    /// Whether a new action of the playbook `p` that adds to a group is over, after these (playbook, kind).
    #[track_caller]
    fn check(limits: &Limits, before: &[(&str, &str)], over: Option<(&str, bool)>) {
        let mut spent = Spent::default();
        for (number, (playbook, kind)) in (0..).zip(before) {
            spent.record(ActionId(number), playbook, kind);
        }
        let found = limits.over(&spent, ActionId(1000), "p", ADD);
        match (found, over) {
            (None, None) => {}
            (Some(found), Some((part, always))) => {
                assert!(found.why.contains(part), "{}", found.why);
                assert_eq!(found.always, always, "{}", found.why);
            }
            (found, _) => panic!("{found:?}"),
        }
    }

    #[test]
    fn overall_counts_every_playbook_and_connector() {
        let limits = limits(|config| config.overall = Limit::Most(2));
        check(&limits, &[("q", UNASSIGN)], None);
        check(&limits, &[("q", UNASSIGN), ("r", ADD)], Some(("overall = 2", false)));
        check(&limits, &[("q", UNASSIGN); 3], Some(("overall = 2", false)));
    }

    #[test]
    fn a_playbook_counts_its_own() {
        let limits = limits(|config| config.per_playbook = Limit::Most(1));
        check(&limits, &[("q", ADD), ("q", ADD)], None);
        check(&limits, &[("p", UNASSIGN)], Some(("per_playbook = 1", false)));
    }

    #[test]
    fn a_connector_counts_what_stands_before_the_last_dot() {
        let limits = limits(|config| config.per_connector = Limit::Most(1));
        check(&limits, &[("q", UNASSIGN)], None);
        check(&limits, &[("q", REMOVE)], Some(("per_connector = 1", false)));
        assert_eq!((connector_of(ADD), connector_of("x")), ("okta.group", "x"));
    }

    #[test]
    fn a_single_bound_stands_in_place_of_the_general_one() {
        let wider = limits(|config| {
            config.per_playbook = Limit::Most(1);
            config.playbook.insert("p".to_owned(), Limit::Most(2));
            config.connector.insert("okta.group".to_owned(), Limit::Most(3));
        });
        check(&wider, &[("p", ADD)], None);
        check(&wider, &[("p", ADD), ("p", ADD)], Some(("playbook.\"p\" = 2", false)));
        check(&wider, &[("q", ADD), ("r", ADD), ("s", ADD)], Some(("connector.\"okta.group\" = 3", false)));
        let free = limits(|config| {
            config.per_playbook = Limit::Most(0);
            config.playbook.insert("p".to_owned(), Limit::Unlimited);
        });
        check(&free, &[("p", ADD); 50], None);
    }

    #[test]
    fn zero_lets_nothing_through_and_raises_no_alarm() {
        check(&limits(|config| config.overall = Limit::Most(0)), &[], Some(("waits for a person", true)));
        let both = limits(|config| {
            config.overall = Limit::Most(1);
            config.connector.insert("okta.group".to_owned(), Limit::Most(0));
        });
        check(&both, &[("q", UNASSIGN)], Some(("connector.\"okta.group\" = 0", true)));
    }

    #[test]
    fn without_a_bound_nothing_is_counted() {
        assert!(!limits(|_| {}).count());
        check(&limits(|_| {}), &[("p", ADD); 1000], None);
        for change in [
            |config: &mut LimitsConfig| config.overall = Limit::Most(1),
            |config: &mut LimitsConfig| config.per_playbook = Limit::Most(1),
            |config: &mut LimitsConfig| config.per_connector = Limit::Most(1),
            |config: &mut LimitsConfig| config.playbook = [("p".to_owned(), Limit::Most(1))].into(),
            |config: &mut LimitsConfig| config.connector = [("okta.app".to_owned(), Limit::Most(1))].into(),
        ] {
            assert!(limits(change).count());
        }
    }

    #[test]
    fn an_action_counts_once_and_its_retry_is_none_more() {
        let limits = limits(|config| config.overall = Limit::Most(1));
        let mut spent = Spent::default();
        spent.record(ActionId(1), "p", ADD);
        spent.record(ActionId(1), "p", ADD);
        assert_eq!(spent.by_playbook.get("p"), Some(&1));
        assert_eq!(spent.by_connector.get("okta.group"), Some(&1));
        assert_eq!(limits.over(&spent, ActionId(1), "p", ADD), None);
        let lowered = self::limits(|config| config.overall = Limit::Most(0));
        assert!(lowered.over(&spent, ActionId(1), "p", ADD).is_some());
        assert!(limits.over(&spent, ActionId(2), "p", ADD).is_some());
    }

    #[test]
    fn a_retry_is_held_where_too_many_stand_in_the_hour_already() {
        let limits = |most| limits(|config| config.overall = Limit::Most(most));
        let mut spent = Spent::default();
        spent.record(ActionId(1), "p", ADD);
        spent.record(ActionId(2), "p", ADD);
        assert_eq!(limits(2).over(&spent, ActionId(1), "p", ADD), None);
        assert!(limits(1).over(&spent, ActionId(1), "p", ADD).is_some_and(|over| !over.always));
        assert!(limits(0).over(&spent, ActionId(1), "p", ADD).is_some_and(|over| over.always));
    }

    #[test]
    fn the_first_reason_of_a_stop_stands() {
        let mut spent = Spent::default();
        assert_eq!(spent.stopped("p"), None);
        spent.stop("p", "first");
        spent.stop("p", "second");
        assert_eq!((spent.stopped("p"), spent.stopped("q")), (Some("first"), None));
    }

    fn minute(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
    }

    /// Where the window begins after these moments: (minutes of the wall clock, minutes of the steady one).
    #[track_caller]
    fn check_window(moments: &[(i64, u64)], begins: i64) {
        let mut window = Window::new(minute(0), Duration::ZERO);
        let mut begin = minute(-60);
        for (wall, steady) in moments {
            begin = window.begins(minute(*wall), Duration::from_secs(steady * 60));
        }
        assert_eq!(begin, minute(begins), "{moments:?}");
    }

    #[test]
    fn the_window_follows_a_clock_that_is_right() {
        check_window(&[], -60);
        check_window(&[(0, 0)], -60);
        check_window(&[(90, 90)], 30);
        check_window(&[(10, 10), (500, 500)], 440);
    }

    #[test]
    fn a_clock_set_back_takes_the_window_with_it() {
        check_window(&[(10, 10), (-110, 11)], -170);
        check_window(&[(10, 10), (-110, 11), (-100, 21)], -160);
    }

    #[test]
    fn a_clock_set_forward_opens_nothing_before_an_hour_has_passed() {
        check_window(&[(10, 10), (310, 10)], -50);
        check_window(&[(10, 10), (310, 10), (369, 69)], 9);
        check_window(&[(10, 10), (310, 10), (370, 70)], 310);
        // A second jump has an hour of its own.
        check_window(&[(10, 10), (310, 10), (669, 69), (670, 70)], 310);
        check_window(&[(10, 10), (310, 10), (670, 70), (729, 129)], 369);
        check_window(&[(10, 10), (310, 10), (670, 70), (730, 130)], 670);
        // Half taken back meanwhile, only the half was a jump of an hour ago.
        check_window(&[(300, 0), (100, 0), (310, 10), (360, 60)], 100);
        check_window(&[(300, 0), (100, 0), (310, 10), (360, 60), (419, 119)], 159);
        check_window(&[(300, 0), (100, 0), (310, 10), (360, 60), (420, 120)], 360);
        // Set right again meanwhile, there was no jump.
        check_window(&[(10, 10), (310, 10), (70, 70)], 10);
    }

    /// What happens next.
    #[derive(Debug, Clone)]
    enum Step {
        /// Time passes, in minutes.
        Wait(u64),
        /// Somebody sets the clock, by so many minutes.
        SetClock(i64),
        /// An action wants to be tried: one of a few, so that many are retries.
        Try { action: i64, playbook: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..25_u64).prop_map(Step::Wait),
            1 => (-200..200_i64).prop_map(Step::SetClock),
            8 => (0..30_i64, any::<bool>()).prop_map(|(action, playbook)| Step::Try { action, playbook }),
        ]
    }

    proptest! {
        /// The promise, with a ledger of the simplest kind: attempts with the time on the wall when they were made.
        #[test]
        fn no_sequence_of_events_makes_more_than_n_changes_in_any_hour(
            steps in proptest::collection::vec(step(), 1..200),
            overall in 1..6_u32,
            per_playbook in 1..6_u32,
        ) {
            let limits = limits(|config| {
                config.overall = Limit::Most(overall);
                config.per_playbook = Limit::Most(per_playbook);
            });
            let (mut real, mut offset) = (0_u64, 0_i64);
            let mut window = Window::new(minute(0), Duration::ZERO);
            // (real minute, wall clock, action, playbook)
            let mut ledger: Vec<(u64, Timestamp, i64, bool)> = Vec::new();
            for step in steps {
                match step {
                    Step::Wait(minutes) => real += minutes,
                    Step::SetClock(by) => offset += by,
                    Step::Try { action, playbook } => {
                        // An action belongs to one playbook.
                        let action = action * 2 + i64::from(playbook);
                        let name = |playbook: bool| if playbook { "p" } else { "q" };
                        let wall = minute(real as i64 + offset);
                        let since = window.begins(wall, Duration::from_secs(real * 60));
                        let mut spent = Spent::default();
                        for (_, at, action, playbook) in ledger.iter().filter(|(_, at, ..)| *at > since) {
                            let _ = at;
                            spent.record(ActionId(*action), name(*playbook), ADD);
                        }
                        if limits.over(&spent, ActionId(action), name(playbook), ADD).is_none() {
                            ledger.push((real, wall, action, playbook));
                        }
                    }
                }
                let _ = window.begins(minute(real as i64 + offset), Duration::from_secs(real * 60));
                // Every hour that really passed, by the end of each attempt.
                for (end, ..) in &ledger {
                    let within = |at: u64| at <= *end && at + 60 > *end;
                    let tried = ledger.iter().filter(|(at, ..)| within(*at));
                    let all: BTreeSet<i64> = tried.clone().map(|(_, _, action, _)| *action).collect();
                    prop_assert!(all.len() <= overall as usize, "{:?}", ledger);
                    for playbook in [true, false] {
                        let own = tried.clone().filter(|(.., whose)| *whose == playbook);
                        let own: BTreeSet<i64> = own.map(|(_, _, action, _)| *action).collect();
                        prop_assert!(own.len() <= per_playbook as usize, "{:?}", ledger);
                    }
                }
            }
        }
    }
}
