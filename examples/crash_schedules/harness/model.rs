//! What the events of a schedule call for, said plainly and without a line of the daemon's code.
//!
//! The playbooks of the harness: whoever rises to HIGH goes into the group, loses his sessions and gets an incident and a
//! mail; whoever falls leaves the group; each of these events is told in the channel. Who is given the app while he is in
//! the group loses it, and that is told as well. Whoever becomes a case is moved from the staff into quarantine, leaves his
//! teams, and gets a review, a campaign, an alert, and an incident with a note. A risk event that arrives after a newer one of
//! the same user says nothing about how things stand, and nothing follows from it.

use std::collections::{BTreeMap, BTreeSet};

use super::schedule::{Schedule, Told, What};

/// The changes of membership that a case calls for, each once: out of (false) or into (true) which group.
pub const CASE_CHANGES: [(&str, bool); 4] =
    [("quarantine", true), ("staff", false), ("team 1", false), ("team 2", false)];

/// What a case calls for besides, each once: its step, and the word of the effect.
pub const CASE_THINGS: [(&str, &str); 5] = [
    ("review", "review.start"),
    ("campaign", "campaign.create"),
    ("page", "pagerduty.trigger"),
    ("open", "incident.create"),
    ("note", "incident.update"),
];

/// What is called for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CalledFor {
    /// Events that the daemon asks Okta for.
    pub wanted: BTreeSet<usize>,
    /// Those that a newer one overtook.
    pub overtaken: BTreeSet<usize>,
    /// For each user the changes of his membership, in order: true for in, false for out.
    pub memberships: BTreeMap<usize, Vec<bool>>,
    /// Who is in the group at the end.
    pub members: BTreeSet<usize>,
    /// Who loses the app.
    pub unassigned: BTreeSet<usize>,
    /// How often each user's sessions are to be ended.
    pub sessions: BTreeMap<usize, usize>,
    /// The incidents, by event.
    pub incidents: BTreeSet<usize>,
    /// The messages, by event and step.
    pub messages: BTreeSet<(usize, &'static str)>,
    /// Who becomes a case, and by which event.
    pub cases: BTreeMap<usize, usize>,
}

impl CalledFor {
    /// By the events of a schedule, in the order in which the log has them.
    pub fn by(schedule: &Schedule) -> Self {
        let members = (0..).zip(&schedule.users).filter(|(_, inside)| **inside).map(|(user, _)| user).collect();
        let mut called_for = Self { members, ..Self::default() };
        let mut seen = BTreeSet::new();
        let mut newest: BTreeMap<usize, i64> = BTreeMap::new();
        for (place, event) in (0..).zip(schedule.told()) {
            if event.what != What::Noise && seen.insert(event.number) {
                called_for.wanted.insert(event.number);
                called_for.follow(event, place, &mut newest);
            }
        }
        called_for
    }

    /// How many effects that is.
    pub fn effects(&self) -> usize {
        self.memberships.values().map(Vec::len).sum::<usize>()
            + self.sessions.values().sum::<usize>()
            + self.unassigned.len()
            + self.incidents.len()
            + self.messages.len()
            // The campaign is launched as well.
            + self.cases.len() * (CASE_CHANGES.len() + CASE_THINGS.len() + 1)
    }

    fn follow(&mut self, event: &Told, place: i64, newest: &mut BTreeMap<usize, i64>) {
        let user = event.user;
        if event.what == What::Case {
            self.cases.insert(user, event.number);
            return;
        }
        if event.what == What::App {
            if self.members.contains(&user) {
                self.unassigned.insert(user);
            }
            self.messages.insert((event.number, "tell-app"));
            return;
        }
        // Any late event happened before any that was not late.
        let happened = event.late.map_or(place, |seconds| -(seconds as i64));
        if newest.get(&user).is_some_and(|newer| *newer > happened) {
            self.overtaken.insert(event.number);
            return;
        }
        newest.insert(user, happened);
        self.messages.insert((event.number, "tell"));
        let rises = event.what == What::Rise;
        if rises {
            *self.sessions.entry(user).or_default() += 1;
            self.incidents.insert(event.number);
            self.messages.insert((event.number, "mail"));
        }
        let changes = if rises { self.members.insert(user) } else { self.members.remove(&user) };
        if changes {
            self.memberships.entry(user).or_default().push(rises);
        }
    }
}

#[cfg(test)]
mod tests {
    use okta_responder::halt::Point;

    use super::super::schedule::{Deed, Doubt, End, Life};
    use super::*;

    /// What these events of one user call for: his changes of membership, incidents, messages, and overtaken events.
    #[track_caller]
    fn check(inside: bool, events: &[(What, Option<u64>)], changes: &[bool], counts: [usize; 3]) {
        let told = (0..).zip(events).map(|(number, (what, late))| Told { number, user: 0, what: *what, late: *late });
        let life =
            Life { before: vec![Deed::Push(told.collect())], beats: Vec::new(), end: End::KilledAt(Point::Claimed, 1) };
        let schedule = Schedule {
            seed: 1,
            number: 1,
            users: vec![inside],
            page_size: 10,
            mail_doubt: Doubt::Skip,
            faults: Vec::new(),
            lives: vec![life],
        };
        let got = CalledFor::by(&schedule);
        assert_eq!(got.memberships.get(&0).map(Vec::as_slice).unwrap_or_default(), changes);
        assert_eq!([got.incidents.len(), got.messages.len(), got.overtaken.len()], counts);
    }

    #[test]
    fn risk_moves_the_membership_and_only_where_that_changes_something() {
        use What::{App, Fall, Noise, Rise};
        check(false, &[(Rise, None), (Rise, None), (Fall, None), (Noise, None)], &[true, false], [2, 5, 0]);
        check(true, &[(Rise, None), (App, None)], &[], [1, 3, 0]);
        check(true, &[(What::Case, None)], &[], [0, 0, 0]);
        check(false, &[(Fall, None)], &[], [0, 1, 0]);
    }

    #[test]
    fn an_overtaken_event_calls_for_nothing() {
        use What::{Fall, Rise};
        check(false, &[(Rise, None), (Fall, Some(60))], &[true], [1, 2, 1]);
        check(false, &[(Rise, Some(90)), (Fall, Some(60)), (Rise, None)], &[true, false, true], [2, 5, 0]);
        check(false, &[(Rise, Some(60)), (Fall, Some(90))], &[true], [1, 2, 1]);
    }
}
