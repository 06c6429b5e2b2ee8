//! Holds what happened against what was called for. Pure.
//!
//! The org's own record says what happened. What the daemon says of itself is only asked where the org's record is not as
//! called for: whether the doubt is shown.

use std::collections::{BTreeMap, BTreeSet};

use okta_responder::demo::org::Effect;

use super::model::{CASE_CHANGES, CASE_THINGS, CalledFor};
use super::report::{Counts, Kind, Violation};
use super::schedule::{Doubt, Schedule};

/// How things stand at the end.
#[derive(Debug, Default)]
pub struct Seen {
    /// The org's record.
    pub effects: Vec<Effect>,
    /// Ids of the users, in the order of the schedule.
    pub users: Vec<String>,
    /// Ids of the groups, by what they are.
    pub groups: BTreeMap<&'static str, String>,
    /// Who is in the group of those at risk.
    pub members: BTreeSet<usize>,
    /// The inbox: uuid, state and reason.
    pub inbox: Vec<(String, String, String)>,
    /// The actions, as `actions list` shows them.
    pub actions: Vec<Shown>,
    /// How many doubts `status` counts.
    pub in_doubt: u64,
}

/// An action as a person sees it, and how its attempts ended.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// The uuid of its event.
    pub event: String,
    /// Its step.
    pub step: String,
    /// Its state.
    pub state: String,
    /// The word beside it.
    pub reason: String,
    /// The outcome words of its attempts; empty where there is none.
    pub attempts: Vec<String>,
}

impl Shown {
    fn shows_doubt(&self) -> bool {
        self.state == "needs_attention" || (self.state == "settled" && self.reason == "in_doubt")
    }

    fn says_done(&self) -> bool {
        matches!(self.state.as_str(), "succeeded" | "settled")
    }

    /// Attempts whose outcome was never learned from their own answer.
    fn doubts(&self) -> usize {
        self.attempts.iter().filter(|outcome| matches!(outcome.as_str(), "" | "unknown")).count()
    }
}

/// Everything that must not be, and the counts of what is.
pub fn judge(schedule: &Schedule, called_for: &CalledFor, seen: &Seen, counts: &mut Counts) -> Vec<Violation> {
    let mut bench = Bench { schedule, called_for, seen, counts, found: Vec::new(), explained: BTreeSet::new() };
    bench.inbox();
    bench.memberships();
    bench.apps();
    bench.sessions();
    bench.cases();
    for event in &called_for.incidents {
        bench.thing(*event, "incident", "incident.create");
    }
    for (event, step) in &called_for.messages {
        bench.thing(*event, step, if *step == "mail" { "mail" } else { "slack.post" });
    }
    bench.records();
    bench.invented();
    bench.found
}

struct Bench<'a> {
    schedule: &'a Schedule,
    called_for: &'a CalledFor,
    seen: &'a Seen,
    counts: &'a mut Counts,
    found: Vec<Violation>,
    /// Places of the effects that something calls for, even if too often.
    explained: BTreeSet<usize>,
}

impl Bench<'_> {
    /// Each event is in the inbox once, and ended as it should.
    fn inbox(&mut self) {
        let mut rows: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
        for (uuid, state, reason) in &self.seen.inbox {
            if rows.insert(uuid, (state, reason)).is_some() {
                self.find(Kind::Duplicate, format!("event {uuid} is in the inbox twice"));
            }
        }
        for event in &self.called_for.wanted {
            let wanted = if self.called_for.overtaken.contains(event) { "superseded" } else { "decided" };
            let uuid = self.schedule.uuid(*event);
            match rows.remove(uuid.as_str()) {
                Some((state, _)) if state == wanted => {}
                Some((state, reason)) => {
                    self.find(Kind::Lost, format!("event {event} is {state} ({reason}) and not {wanted}"));
                }
                None => self.find(Kind::Lost, format!("event {event} is not in the inbox")),
            }
        }
        for (uuid, (state, reason)) in rows {
            // Okta lowers a risk by itself when sessions are ended.
            if (state, reason) != ("skipped", "echo") {
                self.find(Kind::Invented, format!("event {uuid} is {state} ({reason}) and was never told"));
            }
        }
    }

    /// Each user's changes are those that the events call for, in their order.
    fn memberships(&mut self) {
        for (user, id) in self.seen.users.iter().enumerate() {
            let kinds = [("group.add", true), ("group.remove", false)];
            let target = self.membership("risk", id);
            let change = |effect: &Effect| {
                let ours = effect.changed && effect.target == target;
                kinds.iter().find(|(kind, _)| ours && *kind == effect.kind).map(|(_, inside)| *inside)
            };
            let changes: Vec<bool> =
                self.matching(|effect| change(effect).is_some()).into_iter().filter_map(change).collect();
            let wanted = self.called_for.memberships.get(&user).map(Vec::as_slice).unwrap_or_default();
            let count = |list: &[bool], inside| list.iter().filter(|change| **change == inside).count();
            self.counts.seen += changes.len().min(wanted.len());
            let words = format!("user {user} was put in (true) and out (false) {changes:?}, called for is {wanted:?}");
            for inside in [true, false] {
                let (got, most) = (count(&changes, inside), count(wanted, inside));
                if got > most {
                    self.find(if most == 0 { Kind::Invented } else { Kind::Duplicate }, words.clone());
                } else if got < most {
                    self.find(Kind::Lost, words.clone());
                }
            }
            if changes.len() == wanted.len() && changes != wanted {
                self.find(Kind::Disorder, words);
            }
        }
        if self.seen.members != self.called_for.members {
            let words =
                format!("in the group are {:?}, and should be {:?}", self.seen.members, self.called_for.members);
            self.find(Kind::Disorder, words);
        }
    }

    fn apps(&mut self) {
        for (user, id) in self.seen.users.iter().enumerate() {
            let times = self
                .matching(|effect| {
                    effect.kind == "app.unassign" && effect.changed && effect.target.ends_with(id.as_str())
                })
                .len();
            let wanted = usize::from(self.called_for.unassigned.contains(&user));
            self.compare(times, wanted, &format!("user {user} loses the app"));
        }
    }

    /// A case is done to the end, each part of it once, and nobody is ever in neither of the groups that he is moved between.
    fn cases(&mut self) {
        for (user, event) in &self.called_for.cases {
            let id = self.seen.users.get(*user).cloned().unwrap_or_default();
            let mut at = BTreeMap::new();
            for (group, inside) in CASE_CHANGES {
                let target = self.membership(group, &id);
                let kind = if inside { "group.add" } else { "group.remove" };
                let changes = self.matching(|effect| effect.kind == kind && effect.changed && effect.target == target);
                at.insert(group, changes.first().map(|effect| effect.at_ms));
                let times = changes.len();
                self.compare(times, 1, &format!("{kind} of user {user} and `{group}` happens"));
            }
            if at["quarantine"] > at["staff"] {
                self.find(Kind::Disorder, format!("user {user} left the staff before he was in quarantine"));
            }
            for (step, kind) in CASE_THINGS {
                self.thing(*event, step, kind);
            }
        }
        let launches = self.matching(|effect| effect.kind == "campaign.launch" && effect.changed).len();
        self.compare(launches, self.called_for.cases.len(), "campaigns are launched");
    }

    /// What the org calls the membership of a user.
    fn membership(&self, group: &str, user: &str) -> String {
        format!("{}/{user}", self.seen.groups.get(group).map_or("", String::as_str))
    }

    /// Sessions cannot be read back: they are ended again for each attempt that got lost, and no oftener.
    fn sessions(&mut self) {
        for (user, id) in self.seen.users.iter().enumerate() {
            let times = self.matching(|effect| effect.kind == "sessions.clear" && effect.target == *id).len();
            let wanted = self.called_for.sessions.get(&user).copied().unwrap_or_default();
            let of_user: BTreeSet<String> = self
                .schedule
                .told()
                .filter(|event| event.user == user)
                .map(|event| self.schedule.uuid(event.number))
                .collect();
            let actions =
                self.seen.actions.iter().filter(|action| action.step == "sessions" && of_user.contains(&action.event));
            let again = times.saturating_sub(wanted).min(actions.map(Shown::doubts).sum());
            self.counts.sessions_again += again;
            self.compare(times - again, wanted, &format!("the sessions of user {user} are ended"));
        }
    }

    /// An incident, a message or whatever else names its event: once, or in doubt for all to see.
    fn thing(&mut self, event: usize, step: &str, kind: &str) {
        let uuid = self.schedule.uuid(event);
        let words = format!("{uuid} {step}");
        // A trigger that PagerDuty has folded into the open alert changed nothing.
        let is_it = |effect: &Effect| effect.kind == kind && effect.body.to_string().contains(&words);
        let times = self.matching(|effect| effect.changed && is_it(effect)).len();
        let what = format!("{step} for event {event}");
        let Some(action) = self.seen.actions.iter().find(|action| action.event == uuid && action.step == step) else {
            self.find(Kind::Lost, format!("there is no action for {what}"));
            return;
        };
        let as_asked = step == "mail" && self.schedule.mail_doubt == Doubt::Resend;
        let again = if as_asked { times.saturating_sub(1).min(action.doubts()) } else { 0 };
        self.counts.resent += again;
        if times == 0 && action.shows_doubt() {
            return;
        }
        self.compare(times - again, 1, &format!("{what}, which is {} ({}),", action.state, action.reason));
    }

    /// What the daemon says of its actions is so, and what it does not know it shows.
    fn records(&mut self) {
        let shown = self.seen.actions.iter().filter(|action| action.shows_doubt()).count();
        self.counts.unknown_shown += shown;
        let settled =
            self.seen.actions.iter().filter(|action| action.state == "settled" && action.shows_doubt()).count();
        if self.seen.in_doubt < settled as u64 {
            let words = format!("`status` counts {} doubts, and there are {settled}", self.seen.in_doubt);
            self.find(Kind::Hidden, words);
        }
        for action in &self.seen.actions {
            let Shown { event, step, state, reason, attempts } = action;
            let is_message = matches!(step.as_str(), "mail" | "tell" | "tell-app");
            let asked = step == "mail" && self.schedule.mail_doubt == Doubt::Resend;
            if is_message && action.doubts() > 0 && !action.shows_doubt() && !asked {
                let words = format!("{step} of {event} is {state} ({reason}), and its attempts ended {attempts:?}");
                self.find(Kind::Hidden, words);
            }
            if !action.says_done() && !action.shows_doubt() && state != "skipped" {
                self.find(Kind::Lost, format!("{step} of {event} is {state} ({reason})"));
            }
            if state == "skipped" && !attempts.is_empty() {
                self.find(Kind::Hidden, format!("{step} of {event} is skipped after {attempts:?}"));
            }
        }
    }

    /// Whatever changed something, nothing called for it.
    fn invented(&mut self) {
        let effects = self.seen.effects.iter().enumerate();
        let left = effects.filter(|(place, effect)| effect.changed && !self.explained.contains(place));
        let words: Vec<_> =
            left.map(|(_, effect)| format!("{} of {} was never called for", effect.kind, effect.target)).collect();
        for words in words {
            self.find(Kind::Invented, words);
        }
    }

    fn compare(&mut self, times: usize, wanted: usize, what: &str) {
        self.counts.seen += times.min(wanted);
        let words = format!("{what} {times} times, called for is {wanted}");
        if times < wanted {
            self.find(Kind::Lost, words);
        } else if times > wanted {
            self.find(if wanted == 0 { Kind::Invented } else { Kind::Duplicate }, words);
        }
    }

    /// The effects that something calls for; they are explained by that.
    fn matching(&mut self, wanted: impl Fn(&Effect) -> bool) -> Vec<&Effect> {
        let mut matching = Vec::new();
        for (place, effect) in self.seen.effects.iter().enumerate() {
            if wanted(effect) {
                self.explained.insert(place);
                matching.push(effect);
            }
        }
        matching
    }

    fn find(&mut self, kind: Kind, words: String) {
        self.found.push(Violation::new(kind, words));
    }
}

#[cfg(test)]
mod tests {
    use okta_responder::demo::org::Service;
    use serde_json::{Value, json};

    use super::super::schedule::{Deed, End, Life, Told, What};
    use super::*;

    fn effect(kind: &'static str, target: &str, body: Value) -> Effect {
        Effect { at_ms: 0, service: Service::Okta, kind, target: target.to_owned(), key: None, changed: true, body }
    }

    /// One user rises once.
    fn schedule() -> Schedule {
        let told = Told { number: 0, user: 0, what: What::Rise, late: None };
        let life = Life { before: vec![Deed::Push(vec![told])], beats: Vec::new(), end: End::KilledAfter(1) };
        let mail_doubt = Doubt::Skip;
        Schedule {
            seed: 1,
            number: 1,
            users: vec![false],
            page_size: 10,
            mail_doubt,
            faults: Vec::new(),
            lives: vec![life],
        }
    }

    /// Everything as it should be.
    fn seen() -> Seen {
        let uuid = schedule().uuid(0);
        let shown = |step: &str| Shown {
            event: uuid.clone(),
            step: step.to_owned(),
            state: "succeeded".to_owned(),
            reason: String::new(),
            attempts: vec!["done".to_owned()],
        };
        Seen {
            effects: vec![
                effect("group.add", "g/u0", Value::Null),
                effect("sessions.clear", "u0", Value::Null),
                effect("incident.create", "1", json!({"short_description": format!("{uuid} incident")})),
                effect("mail", "m", json!({"data": format!("Subject: {uuid} mail")})),
                effect("slack.post", "c", json!({"text": format!("{uuid} tell")})),
            ],
            users: vec!["u0".to_owned()],
            groups: BTreeMap::from([("risk", "g".to_owned())]),
            members: BTreeSet::from([0]),
            inbox: vec![(uuid.clone(), "decided".to_owned(), String::new())],
            actions: ["quarantine", "sessions", "incident", "mail", "tell"].map(shown).to_vec(),
            in_doubt: 0,
        }
    }

    /// The kinds of violation that are found after a change.
    #[track_caller]
    fn check(change: impl FnOnce(&mut Seen), kinds: &[Kind]) {
        let (schedule, mut seen) = (schedule(), seen());
        change(&mut seen);
        let found = judge(&schedule, &CalledFor::by(&schedule), &seen, &mut Counts::default());
        let found: BTreeSet<Kind> = found.into_iter().map(|violation| violation.kind).collect();
        assert_eq!(found, kinds.iter().copied().collect());
    }

    fn in_doubt(seen: &mut Seen, reason: &str) {
        let message = &mut seen.actions[4];
        (message.state, message.reason) = ("settled".to_owned(), reason.to_owned());
        message.attempts = vec!["unknown".to_owned()];
    }

    #[test]
    fn what_is_as_called_for_is_let_pass() {
        check(|_| {}, &[]);
    }

    #[test]
    fn each_effect_that_is_missing_is_lost() {
        for place in 1..5 {
            check(|seen| drop(seen.effects.remove(place)), &[Kind::Lost]);
        }
        check(|seen| drop(seen.effects.remove(0)), &[Kind::Lost]);
        check(|seen| seen.inbox.clear(), &[Kind::Lost]);
        check(|seen| seen.actions[4].state = "failed".to_owned(), &[Kind::Lost]);
    }

    #[test]
    fn each_effect_that_is_there_twice_is_a_duplicate() {
        for place in 0..5 {
            check(|seen| seen.effects.push(seen.effects[place].clone()), &[Kind::Duplicate]);
        }
        check(|seen| seen.inbox.push(seen.inbox[0].clone()), &[Kind::Duplicate]);
    }

    #[test]
    fn what_nothing_calls_for_is_invented() {
        check(|seen| seen.effects.push(effect("slack.post", "c", json!({"text": "hello"}))), &[Kind::Invented]);
        check(|seen| seen.effects.push(effect("app.unassign", "a/u0", Value::Null)), &[Kind::Invented]);
        check(|seen| seen.effects.push(effect("group.remove", "g/u0", Value::Null)), &[Kind::Invented]);
        let stranger = ("other".to_owned(), "decided".to_owned(), String::new());
        check(|seen| seen.inbox.push(stranger), &[Kind::Invented]);
    }

    #[test]
    fn a_membership_that_is_not_what_the_newest_event_says_is_found() {
        check(|seen| seen.members.clear(), &[Kind::Disorder]);
    }

    #[test]
    fn a_doubt_is_let_pass_where_it_is_shown_and_nowhere_else() {
        let sent = |seen: &mut Seen| {
            in_doubt(seen, "in_doubt");
            seen.in_doubt = 1;
        };
        check(sent, &[]);
        let not_sent = |seen: &mut Seen| {
            sent(seen);
            seen.effects.pop();
        };
        check(not_sent, &[]);
        check(|seen| in_doubt(seen, "in_doubt"), &[Kind::Hidden]);
        check(|seen| in_doubt(seen, "found_done"), &[Kind::Hidden]);
        check(|seen| seen.actions[4].attempts = vec![String::new()], &[Kind::Hidden]);
    }

    #[test]
    fn sessions_are_ended_again_only_for_an_attempt_that_got_lost() {
        let again = |seen: &mut Seen| seen.effects.push(seen.effects[1].clone());
        check(again, &[Kind::Duplicate]);
        let lost = |seen: &mut Seen| {
            again(seen);
            seen.actions[1].attempts.insert(0, "unknown".to_owned());
        };
        check(lost, &[]);
    }
}
