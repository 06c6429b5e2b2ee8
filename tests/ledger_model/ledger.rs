//! The plain model: what the state file is meant to hold, kept in vectors and found by looking at everything.
//!
//! It shares with the code only the pure function that says which state follows which. Seconds stand for moments.

use std::collections::BTreeMap;

use okta_responder::model::action::{ActionState, Happening};
use okta_responder::store::PersonChange;

use crate::commands::{DAY, End, KINDS, Kept, Policy, Prepare, Run as PlannedRun, Told, Verdict};

/// Events that the log of the org can hold; a page names them by number.
pub const UNIVERSE: usize = 7;

pub fn uuid(event: usize) -> String {
    format!("event-{event}")
}

/// Most are about one of two users, one is about nobody.
pub fn subject(event: usize) -> Option<&'static str> {
    [Some("ann"), Some("ben"), Some("ann"), None].get(event % 4).copied().flatten()
}

pub fn risk(event: usize) -> Option<&'static str> {
    [Some("HIGH"), Some("LOW"), None].get(event % 3).copied().flatten()
}

/// The user whom the guard protects when it is told to.
pub const PROTECTED: &str = "ann";

/// Not in the order of their numbers.
pub fn published(event: usize) -> i64 {
    (event as i64 * 3) % UNIVERSE as i64
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub streams: Vec<Stream>,
    /// In the order in which they were stored; one that is taken over is stored anew.
    pub events: Vec<Event>,
    pub runs: Vec<Run>,
    pub actions: Vec<Action>,
    pub trips: Vec<Trip>,
    pub policy: Policy,
    /// Actions that the claim under way has let pass and that count.
    passed: Vec<i64>,
    pub paused: Option<i64>,
    /// How far Okta's clock is ahead of ours.
    pub okta_ahead: i64,
    /// Of actions that were sent and are gone: by event, playbook and step, since when they were there.
    pub spent: BTreeMap<(usize, &'static str, String), i64>,
    /// Actions that are gone and may still count against the limits.
    gone: Vec<Gone>,
}

#[derive(Debug)]
struct Gone {
    playbook: &'static str,
    counted: Vec<i64>,
}

/// What was taken away.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub bodies: u64,
    pub runs: u64,
    pub events: u64,
    pub keys: u64,
}

/// A playbook that was stopped, by a limit or a person.
#[derive(Debug)]
pub struct Trip {
    pub playbook: &'static str,
    pub began: i64,
    pub ended: Option<i64>,
    /// The action that went over the limit.
    pub action: Option<i64>,
}

#[derive(Debug)]
pub struct Stream {
    pub live: bool,
    pub execute: bool,
    pub state: &'static str,
    pub query: String,
    pub cursor: Option<String>,
    pub newest: Option<i64>,
    /// Okta's clock at the last page.
    pub good: Option<i64>,
    pub pages: u64,
    pub stored: u64,
    pub duplicates: u64,
    pub restarts: u64,
}

#[derive(Debug)]
pub struct Event {
    /// The row, once the file has told it.
    pub id: Option<i64>,
    pub event: usize,
    pub stream: usize,
    pub body: bool,
    pub state: &'static str,
    pub reason: Option<&'static str>,
    pub postponed: u32,
    pub retry_at: Option<i64>,
    pub received: i64,
}

#[derive(Debug)]
pub struct Run {
    pub id: Option<i64>,
    /// Its number among all runs that ever were.
    pub serial: usize,
    pub event: usize,
    pub playbook: &'static str,
    pub observe: bool,
    pub created: i64,
}

#[derive(Debug)]
pub struct Action {
    pub id: Option<i64>,
    pub run: usize,
    pub event: usize,
    pub playbook: &'static str,
    pub step: String,
    pub kind: &'static str,
    pub lane: Option<String>,
    pub state: ActionState,
    pub prepared: bool,
    pub after: Vec<String>,
    pub wait_until: Option<i64>,
    pub delay: Option<i64>,
    /// The end of its delay.
    pub not_before: Option<i64>,
    /// When all that is asked of it then was answered.
    pub answered: Option<i64>,
    pub due: i64,
    /// Attempts, or for a waiting action how often it was put off.
    pub attempts: u32,
    pub retry_from: i64,
    pub reason: Option<&'static str>,
    /// Whether there is a sentence.
    pub error: bool,
    pub receipt: bool,
    pub approved: bool,
    pub created: i64,
    /// Since when it is in its state, or was put off.
    pub updated: i64,
    pub finished: Option<i64>,
    pub made: Vec<Attempt>,
    /// When the attempts began that count against the limits.
    pub counted: Vec<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub number: u32,
    pub started: i64,
    pub ended: Option<i64>,
    pub outcome: Option<String>,
}

/// What an outcome is on the file: its word, and what happened to the action.
pub fn of_end(end: End) -> (&'static str, Happening) {
    match end {
        End::Done => ("done", Happening::Succeeded),
        End::AlreadyDone => ("already_done", Happening::Succeeded),
        End::RetryAfter => ("retry_after", Happening::MayPass),
        End::Transient => ("transient", Happening::MayPass),
        End::Permanent => ("permanent", Happening::WillNotPass),
        End::Unknown => ("unknown", Happening::OutcomeLost),
    }
}

pub fn of_told(told: Told) -> Option<Happening> {
    match told {
        Told::Done => Some(Happening::FoundDone),
        Told::NotDone => Some(Happening::FoundUndone),
        Told::NotDoneAndGivenUp => Some(Happening::WillNotPass),
        Told::DoubtAccepted => Some(Happening::DoubtAccepted),
        Told::CannotTell => Some(Happening::CannotTell),
        Told::TryLater => None,
    }
}

impl Stream {
    pub fn new(live: bool, execute: bool) -> Self {
        Self {
            live,
            execute,
            state: "active",
            query: String::new(),
            cursor: None,
            newest: None,
            good: None,
            pages: 0,
            stored: 0,
            duplicates: 0,
            restarts: 0,
        }
    }
}

impl Event {
    /// Whether a playbook may have its say about it now.
    fn is_due(&self, now: i64) -> bool {
        self.state == "new" && self.retry_at.is_none_or(|at| at <= now)
    }

    fn is_closed(&self) -> bool {
        matches!(self.state, "decided" | "skipped" | "superseded")
    }

    fn is_put_off(&self, now: i64) -> bool {
        self.state == "new" && self.retry_at.is_some_and(|at| at > now)
    }
}

impl Action {
    fn service(&self) -> &str {
        self.kind.split('.').next().unwrap_or_default()
    }

    pub fn is_open(&self) -> bool {
        !self.state.is_final()
    }

    /// What a person's word means for it.
    fn wish(&self, change: PersonChange, now: i64) -> Happening {
        let was_never_sent = self.delay.is_some() && self.made.is_empty();
        let is_delayed = self.state == ActionState::Waiting && self.not_before.is_some_and(|end| end > now);
        match change {
            PersonChange::Retry if is_delayed => Happening::HastenedByPerson,
            PersonChange::Retry if !self.prepared || was_never_sent || self.state == ActionState::Refused => {
                Happening::PlannedAnewByPerson
            }
            PersonChange::Retry => Happening::RetriedByPerson,
            PersonChange::Cancel => Happening::CancelledByPerson,
            PersonChange::Approve => Happening::Approved,
            PersonChange::Settle => Happening::SettledByPerson,
        }
    }

    fn goes_on(&mut self, happening: Happening, now: i64) -> bool {
        let Ok(next) = self.state.after(happening) else { return false };
        self.state = next;
        self.updated = now;
        self.finished = next.is_final().then_some(now);
        true
    }
}

/// T1 and what people do to streams.
impl Ledger {
    /// Returns how many events were new and how many known, or `None` when the page is refused.
    pub fn commit_page(
        &mut self,
        reader: usize,
        stale: bool,
        events: &[usize],
        next: &str,
        last: bool,
        now: i64,
    ) -> Option<(u64, u64)> {
        if stale || self.streams[reader].state != "active" {
            return None;
        }
        let (mut stored, mut duplicates) = (0, 0);
        for &event in events {
            if self.stores(reader, event, now) {
                stored += 1;
            } else {
                duplicates += 1;
            }
        }
        let stream = &mut self.streams[reader];
        stream.cursor = Some(next.to_owned());
        stream.newest = stream.newest.max(events.iter().map(|event| published(*event)).max());
        stream.good = Some(now + self.okta_ahead);
        stream.pages += 1;
        stream.stored += stored;
        stream.duplicates += duplicates;
        if last {
            stream.state = "done";
            self.release_held(reader, "new", None);
        }
        Some((stored, duplicates))
    }

    fn stores(&mut self, reader: usize, event: usize, now: i64) -> bool {
        if let Some(at) = self.events.iter().position(|known| known.event == event) {
            if !self.may_take_over(reader, &self.events[at]) {
                return false;
            }
            self.events.remove(at);
            self.runs.retain(|run| run.event != event);
            self.actions.retain(|action| action.event != event);
        }
        let stream = &self.streams[reader];
        let state = if !stream.live && stream.execute { "held" } else { "new" };
        self.events.push(Event {
            id: None,
            event,
            stream: reader,
            body: true,
            state,
            reason: None,
            postponed: 0,
            retry_at: None,
            received: now,
        });
        true
    }

    /// A stream that acts takes an event that a backfill met first and that nothing was done for.
    fn may_take_over(&self, reader: usize, known: &Event) -> bool {
        let (reader, owner) = (&self.streams[reader], &self.streams[known.stream]);
        let acts = reader.live || reader.execute;
        let idle =
            !owner.execute || known.reason == Some("backfill cancelled") || (known.state == "held" && reader.live);
        let touched =
            self.actions.iter().any(|action| action.event == known.event && (action.is_open() || action.attempts > 0));
        acts && !owner.live && idle && !touched
    }

    fn release_held(&mut self, stream: usize, state: &'static str, reason: Option<&'static str>) {
        for event in self.events.iter_mut().filter(|event| event.stream == stream && event.state == "held") {
            event.state = state;
            event.reason = reason;
        }
    }

    pub fn cancel_backfill(&mut self, stream: usize) -> bool {
        let active = !self.streams[stream].live && self.streams[stream].state == "active";
        if active {
            self.streams[stream].state = "cancelled";
        }
        self.release_held(stream, "skipped", Some("backfill cancelled"));
        active
    }
}

/// T2 and preparing.
impl Ledger {
    /// Returns how many actions are new. `serial` numbers the runs.
    pub fn commit_decision(&mut self, row: i64, verdict: &Verdict, serial: &mut usize, now: i64) -> usize {
        let Some(event) = self.events.iter_mut().find(|event| event.id == Some(row) && event.state == "new") else {
            return 0;
        };
        event.retry_at = None;
        event.reason = None;
        let runs = match verdict {
            Verdict::Postponed(pause) => {
                event.retry_at = Some(now + pause);
                event.reason = Some("later");
                event.postponed += 1;
                return 0;
            }
            Verdict::Skipped => {
                event.state = "skipped";
                event.reason = Some("own");
                return 0;
            }
            Verdict::Superseded => {
                event.state = "superseded";
                return 0;
            }
            Verdict::Decided(runs) => runs,
        };
        event.state = "decided";
        let event = event.event;
        let mut written = 0;
        for run in runs {
            if self.runs.iter().any(|known| known.event == event && known.playbook == run.playbook) {
                continue;
            }
            *serial += 1;
            self.runs.push(Run {
                id: None,
                serial: *serial,
                event,
                playbook: run.playbook,
                observe: run.observe,
                created: now,
            });
            written += self.plan(*serial, event, run, now);
        }
        written
    }

    fn plan(&mut self, serial: usize, event: usize, run: &PlannedRun, now: i64) -> usize {
        let mut written = 0;
        for (number, step) in run.steps.iter().enumerate() {
            if self.spent.contains_key(&(event, run.playbook, step_name(number))) {
                continue;
            }
            written += 1;
            let mut action = Action {
                id: None,
                run: serial,
                event,
                playbook: run.playbook,
                step: step_name(number),
                kind: step.kind,
                lane: step.lane.map(str::to_owned),
                state: ActionState::Waiting,
                prepared: step.begins.is_some_and(has_params) || step.delay.is_some(),
                after: after(number, step.after),
                wait_until: step.wait.map(|wait| now + step.delay.unwrap_or_default() + wait),
                delay: step.delay,
                not_before: step.delay.map(|delay| now + delay),
                answered: None,
                due: now + step.delay.unwrap_or_default(),
                attempts: 0,
                retry_from: now,
                reason: step.begins.map(|_| "planned"),
                error: false,
                receipt: false,
                approved: false,
                created: now,
                updated: now,
                finished: None,
                made: Vec::new(),
                counted: Vec::new(),
            };
            if let Some(begins) = step.begins {
                assert!(action.goes_on(begins, now));
            }
            self.actions.push(action);
        }
        written
    }

    fn open_before(&self, action: &Action) -> usize {
        self.actions
            .iter()
            .filter(|other| other.run == action.run && action.after.contains(&other.step) && other.is_open())
            .count()
    }

    pub fn preparable(&self, now: i64) -> Vec<i64> {
        self.by_due(|action| {
            let turn = self.open_before(action) == 0 || action.wait_until.is_some_and(|at| at <= now);
            action.state == ActionState::Waiting && action.due <= now && turn
        })
    }

    /// Whether a later run came to the lane that an action takes when it is prepared.
    fn is_overtaken(&self, row: i64, event: usize) -> bool {
        use ActionState as S;
        self.actions.iter().any(|other| {
            let came_to_something = other.is_open() && other.state != S::AwaitingApproval;
            let did_something = matches!(other.state, S::Succeeded | S::Settled);
            other.lane.as_deref() == Some("late")
                && other.id > Some(row)
                && other.event != event
                && (came_to_something || did_something)
        })
    }

    pub fn prepare(&mut self, row: i64, result: Prepare, now: i64) {
        let event = self.action(row).event;
        let overtaken = self.is_overtaken(row, event);
        let action = self.action(row);
        if action.state != ActionState::Waiting {
            return;
        }
        match result {
            Prepare::Later(pause) => {
                action.due = now + pause;
                action.error = true;
                action.updated = now;
                action.attempts += 1;
            }
            Prepare::Ends(happening) => {
                let goes_on = matches!(happening, Happening::Prepared | Happening::HeldForApproval);
                // A message's lane is its thread, in which it says nothing of another.
                let overtaken = overtaken && goes_on && action.delay.is_some() && action.kind != "slack.message.post";
                action.prepared = has_params(happening) || action.delay.is_some();
                if !overtaken {
                    action.lane.get_or_insert_with(|| "late".to_owned());
                }
                if goes_on && !overtaken && action.delay.is_some() {
                    action.answered = Some(now);
                }
                action.reason = Some(if overtaken { "superseded" } else { "prepared" });
                action.error = overtaken;
                action.attempts = action.made.last().map_or(0, |attempt| attempt.number);
                assert!(action.goes_on(if overtaken { Happening::NotCalledFor } else { happening }, now));
            }
        }
    }
}

/// T3, T4 and reading back.
impl Ledger {
    /// The actions that are claimed, in their order, and those that the guard stopped.
    pub fn claim(&mut self, most: usize, now: i64) -> (Vec<i64>, Vec<i64>) {
        let (mut taken, mut stopped) = (Vec::new(), Vec::new());
        self.passed.clear();
        if self.paused.is_some() {
            return (taken, stopped);
        }
        let mut services: Vec<&str> = KINDS.map(|kind| kind.split('.').next().unwrap_or_default()).to_vec();
        services.sort_unstable();
        for service in services {
            let under_way = |action: &&Action| action.service() == service && action.state == ActionState::Started;
            let mut free = most.saturating_sub(self.actions.iter().filter(under_way).count());
            let mut behind = None;
            // As many as there are places are looked at together, until the places are taken or nothing is left.
            while free > 0 {
                let mut round = self.by_due(|action| {
                    let ready = matches!(action.state, ActionState::Ready | ActionState::Retry);
                    let is_next = Some((action.due, action.id)) > behind;
                    action.service() == service && ready && action.due <= now && is_next && self.lane_is_free(action)
                });
                round.truncate(free);
                let whole = round.len() == free;
                for row in round {
                    behind = Some((self.action(row).due, Some(row)));
                    if self.asks_anew(row, now) {
                        continue;
                    }
                    if self.guard_passes(row, now) {
                        free -= 1;
                        taken.push(row);
                    } else {
                        stopped.push(row);
                    }
                }
                if !whole {
                    break;
                }
            }
        }
        (taken, stopped)
    }

    /// What was delayed and asked about more than five minutes ago, by a clock that may have been set since, is asked about again.
    fn asks_anew(&mut self, row: i64, now: i64) -> bool {
        let action = self.action(row);
        let old = action.answered.is_some_and(|answered| (now - answered).abs() > 300);
        if !old || action.attempts > 0 || action.approved {
            return false;
        }
        assert!(action.goes_on(Happening::AskedAnew, now));
        (action.lane, action.reason, action.error) = (None, None, false);
        true
    }

    /// Asks the guard for one action and does what it says.
    fn guard_passes(&mut self, row: i64, now: i64) -> bool {
        let policy = self.policy;
        let (playbook, event, serial) = {
            let action = self.action(row);
            (action.playbook, action.event, action.run)
        };
        let observes = policy.observe || self.runs.iter().any(|run| run.serial == serial && run.observe);
        let changes_access = self.action(row).kind == KINDS[0];
        let over = if self.action(row).approved { None } else { self.over(row, now) };
        let stopped = self.trips.iter().any(|trip| trip.playbook == playbook && trip.ended.is_none());
        let action = self.action(row);
        let stop = if changes_access && policy.protect && subject(event) == Some(PROTECTED) {
            Some((Happening::RefusedByGuard, "guard"))
        } else if observes {
            Some((Happening::NotCalledFor, "observe"))
        } else if changes_access && !action.approved && (stopped || over.is_some()) {
            Some((Happening::HeldForApproval, "limit"))
        } else {
            None
        };
        let Some((happening, reason)) = stop else {
            assert!(action.goes_on(Happening::Claimed, now));
            if action.attempts == 0 {
                action.retry_from = now;
            }
            action.attempts += 1;
            let number = action.attempts;
            action.made.push(Attempt { number, started: now, ended: None, outcome: None });
            if changes_access && !action.approved {
                action.counted.push(now);
                self.passed.push(row);
            }
            return true;
        };
        action.reason = Some(reason);
        action.error = true;
        assert!(action.goes_on(happening, now));
        if reason == "limit" && !stopped && over == Some(false) {
            self.trips.push(Trip { playbook, began: now, ended: None, action: Some(row) });
        }
        false
    }

    /// Whether one more change would be too many in the hour behind us, and if so, whether every change is.
    fn over(&self, row: i64, now: i64) -> Option<bool> {
        let lately = |counted: &[i64]| counted.iter().any(|began| *began > now - 3600);
        let counts =
            |action: &&Action| lately(&action.counted) || action.id.is_some_and(|row| self.passed.contains(&row));
        let there = self.actions.iter().filter(counts).map(|action| (action.id, action.playbook));
        let gone = self.gone.iter().filter(|gone| lately(&gone.counted));
        let spent: Vec<_> = there.chain(gone.map(|gone| (None, gone.playbook))).collect();
        // What counts already is none more, but does not pass where too many count anyway.
        let one_more = usize::from(spent.iter().all(|(spent, _)| *spent != Some(row)));
        let playbook = self.actions.iter().find(|action| action.id == Some(row))?.playbook;
        let of_playbook = spent.iter().filter(|(_, other)| *other == playbook).count();
        let bounds = [(self.policy.overall, spent.len()), (self.policy.per_playbook, of_playbook)];
        let over = |(bound, spent): &(Option<u32>, usize)| bound.is_some_and(|most| *spent + one_more > most as usize);
        let always = bounds.iter().any(|(bound, _)| *bound == Some(0));
        (always || bounds.iter().any(over)).then_some(always)
    }

    fn lane_is_free(&self, action: &Action) -> bool {
        let blocks = |other: &Action| {
            other.lane == action.lane
                && other.is_open()
                && (other.id < action.id || other.state == ActionState::Started)
                && other.id != action.id
        };
        action.lane.is_none() || !self.actions.iter().any(blocks)
    }

    pub fn end(&mut self, row: i64, end: End, pause: i64, now: i64) {
        let (word, happening) = of_end(end);
        let action = self.action(row);
        let attempt = action.made.last_mut().expect("it was claimed");
        attempt.ended = Some(now);
        attempt.outcome = Some(word.to_owned());
        action.due = now + pause;
        action.reason = Some("because");
        action.error = true;
        action.receipt |= happening == Happening::Succeeded;
        assert!(action.goes_on(happening, now));
    }

    /// Returns whether what reading back said was still about an unknown action, and about its last attempt.
    pub fn read_back(&mut self, row: i64, attempt: Option<u32>, told: Told, pause: i64, now: i64) -> bool {
        let action = self.action(row);
        let about_last = attempt.is_none_or(|number| action.made.last().is_some_and(|last| last.number == number));
        if action.state != ActionState::Unknown || !about_last {
            return false;
        }
        action.due = now + pause;
        action.reason = Some("told");
        action.error = true;
        if let Some(happening) = of_told(told) {
            action.receipt |= happening == Happening::FoundDone;
            assert!(action.goes_on(happening, now));
        }
        true
    }

    pub fn mark_lost(&mut self, now: i64) -> usize {
        let mut lost = 0;
        for action in self.actions.iter_mut().filter(|action| action.state == ActionState::Started) {
            lost += 1;
            let attempt = action.made.last_mut().expect("it was claimed");
            attempt.ended = Some(now);
            attempt.outcome = Some("unknown".to_owned());
            action.due = now;
            action.reason = Some("interrupted");
            action.error = true;
            assert!(action.goes_on(Happening::OutcomeLost, now));
        }
        lost
    }

    /// Returns whether it could be done, or else whether that is for want of the event's record.
    pub fn person(&mut self, row: i64, change: PersonChange, now: i64) -> Result<(), bool> {
        let event = self.action(row).event;
        let recorded = self.events.iter().any(|known| known.event == event && known.body);
        let action = self.action(row);
        let happening = action.wish(change, now);
        let possible = action.state.after(happening).is_ok();
        let lacks_record = possible && change == PersonChange::Retry && !recorded;
        if lacks_record || !action.goes_on(happening, now) {
            return Err(lacks_record);
        }
        action.due = now;
        action.error = false;
        action.reason = Some(match change {
            PersonChange::Retry => "retried",
            PersonChange::Cancel => "cancelled",
            PersonChange::Approve => "approved",
            PersonChange::Settle => "settled",
        });
        if matches!(change, PersonChange::Retry | PersonChange::Approve) {
            action.retry_from = now;
        }
        if change == PersonChange::Retry {
            action.not_before = action.not_before.map(|end| end.min(now));
        }
        match happening {
            Happening::Approved => action.approved = true,
            Happening::PlannedAnewByPerson => {
                action.approved = false;
                action.lane.take_if(|_| action.delay.is_some());
            }
            _ => {}
        }
        Ok(())
    }
}

/// Pruning.
impl Ledger {
    /// The moment that counts as now: Okta's, as far as ours has come there.
    pub fn prunes_by(&self, now: i64) -> Option<i64> {
        self.streams.iter().filter_map(|stream| stream.good).max().map(|okta| okta.min(now))
    }

    pub fn prune(&mut self, kept: Kept, now: i64) -> Taken {
        let Some(by) = self.prunes_by(now) else { return Taken::default() };
        // What is dated later than tomorrow was dated by a clock that was wrong.
        let tomorrow = now + DAY;
        let since = |ours: i64, event: usize| {
            if ours > tomorrow { published(event) } else { ours.max(published(event)) }
        };
        let before = |days: i64| by - days * DAY;
        let mut taken = Taken::default();

        for event in &mut self.events {
            let open = self.actions.iter().any(|action| action.event == event.event && action.is_open());
            let goes = since(event.received, event.event) < before(kept.events) && event.is_closed() && !open;
            taken.bodies += u64::from(goes && event.body);
            event.body &= !goes;
        }

        let goes = |run: &Run| {
            let ended = |at: Option<i64>| at.is_some_and(|at| at < before(kept.runs) || at > tomorrow);
            let mut actions = self.actions.iter().filter(|action| action.run == run.serial);
            since(run.created, run.event) < before(kept.runs) && actions.all(|action| ended(action.finished))
        };
        let (gone, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.runs).into_iter().partition(goes);
        self.runs = stay;
        taken.runs = gone.len() as u64;
        let known_since = before(kept.keys.max(90));
        let is_gone = |action: &Action| gone.iter().any(|run| run.serial == action.run);
        for action in self.actions.extract_if(.., |action| is_gone(action)) {
            let sent = since(action.created, action.event);
            if sent >= known_since && !action.made.is_empty() {
                self.spent.entry((action.event, action.playbook, action.step)).or_insert(sent);
            }
            self.gone.push(Gone { playbook: action.playbook, counted: action.counted });
        }

        let tells_risk = |event: &Event| {
            let newest = |user: &&str| {
                let of_user = self.events.iter().filter(|other| subject(other.event) == Some(user));
                let newest =
                    of_user.filter(|other| risk(other.event).is_some()).max_by_key(|other| published(other.event));
                newest.is_some_and(|newest| newest.event == event.event)
            };
            subject(event.event).as_ref().is_some_and(newest)
        };
        let needed =
            |event: &Event| event.body || self.runs.iter().any(|run| run.event == event.event) || tells_risk(event);
        let old = |event: &Event| since(event.received, event.event) < known_since;
        let goes: Vec<_> = self.events.iter().map(|event| old(event) && event.is_closed() && !needed(event)).collect();
        taken.events = goes.iter().filter(|goes| **goes).count() as u64;
        let mut goes = goes.into_iter();
        self.events.retain(|_| !goes.next().unwrap_or_default());

        let keys = self.spent.len();
        self.spent.retain(|_, sent| *sent >= known_since);
        taken.keys = (keys - self.spent.len()) as u64;
        taken
    }
}

/// Stops, approvals and clocks.
impl Ledger {
    /// Returns whether that changed anything.
    pub fn stop_playbook(&mut self, playbook: &'static str, now: i64) -> bool {
        let stopped = self.trips.iter().any(|trip| trip.playbook == playbook && trip.ended.is_none());
        if !stopped {
            self.trips.push(Trip { playbook, began: now, ended: None, action: None });
        }
        !stopped
    }

    /// Returns how many actions are looked at again, or `None` when the playbook was not stopped.
    pub fn let_go_on(&mut self, playbook: &str, now: i64) -> Option<usize> {
        let trip = self.trips.iter_mut().find(|trip| trip.playbook == playbook && trip.ended.is_none())?;
        trip.ended = Some(now);
        let mut let_go = 0;
        for gone in self.gone.iter_mut().filter(|gone| gone.playbook == playbook) {
            gone.counted.clear();
        }
        for action in &mut self.actions {
            if action.playbook == playbook {
                action.counted.clear();
            }
            let held = action.state == ActionState::AwaitingApproval && action.reason == Some("limit");
            if held && action.playbook == playbook {
                assert!(action.goes_on(Happening::LetGoOn, now));
                (action.due, action.retry_from) = (now, now);
                (action.reason, action.error) = (Some("resumed"), false);
                let_go += 1;
            }
        }
        Some(let_go)
    }

    pub fn expire_approvals(&mut self, before: i64, now: i64) -> usize {
        let mut expired = 0;
        for action in &mut self.actions {
            if action.state == ActionState::AwaitingApproval && action.updated < before {
                assert!(action.goes_on(Happening::ApprovalExpired, now));
                (action.reason, action.error) = (Some("expired"), true);
                expired += 1;
            }
        }
        expired
    }

    pub fn pull_back(&mut self, now: i64, longest: i64, longest_wait: i64) -> usize {
        use ActionState as S;
        let (due, wait) = (now + longest, now + longest_wait);
        let mut moved = 0;
        for action in &mut self.actions {
            let moves = matches!(action.state, S::Waiting | S::Ready | S::Retry | S::Unknown);
            let delay = action.delay.unwrap_or_default();
            let end = action.not_before.map(|end| end.min(now + delay));
            let far = action.due > end.map_or(due, |end| due.max(end))
                || action.wait_until.is_some_and(|at| at > wait + delay)
                || action.retry_from > due
                || action.updated > due;
            if moves && far {
                let is_delayed = action.not_before.is_some_and(|end| end > now);
                action.due = end.filter(|_| is_delayed).unwrap_or(action.due.min(now));
                action.not_before = end;
                action.wait_until = action.wait_until.map(|at| at.min(wait + delay));
                action.retry_from = action.retry_from.min(now);
                action.updated = action.updated.min(now);
                moved += 1;
            }
        }
        for event in self.events.iter_mut().filter(|event| event.state == "new") {
            if let Some(retry_at) = &mut event.retry_at
                && (*retry_at > due || event.received > due)
            {
                *retry_at = (*retry_at).min(now);
                event.received = event.received.min(now);
                moved += 1;
            }
        }
        moved
    }
}

/// What the tasks and people ask.
impl Ledger {
    pub fn action(&mut self, row: i64) -> &mut Action {
        self.actions.iter_mut().find(|action| action.id == Some(row)).expect("a row that was told")
    }

    /// Rows in the order in which they are due.
    pub fn by_due(&self, which: impl Fn(&Action) -> bool) -> Vec<i64> {
        let mut found: Vec<_> =
            self.actions.iter().filter(|action| which(action)).map(|action| (action.due, action.id)).collect();
        found.sort_unstable();
        found.into_iter().filter_map(|(_, row)| row).collect()
    }

    pub fn in_state(&self, state: ActionState) -> Vec<i64> {
        self.actions.iter().filter(|action| action.state == state).filter_map(|action| action.id).collect()
    }

    /// Actions to which a person can do this.
    pub fn changeable(&self, change: PersonChange, now: i64) -> Vec<i64> {
        let possible = |action: &&Action| action.state.after(action.wish(change, now)).is_ok();
        self.actions.iter().filter(possible).filter_map(|action| action.id).collect()
    }

    pub fn rows(&self) -> Vec<i64> {
        self.actions.iter().filter_map(|action| action.id).collect()
    }

    /// Rows of events that are to be decided now, in their order, with whether each is superseded.
    pub fn undecided(&self, now: i64) -> Vec<(i64, bool)> {
        let mut found: Vec<_> = self
            .events
            .iter()
            .filter(|event| event.is_due(now))
            .filter(|event| {
                let waits_for = |other: &&Event| other.id < event.id && subject(other.event) == subject(event.event);
                let mut before = self.events.iter().filter(waits_for);
                subject(event.event).is_none() || !before.any(|other| other.is_put_off(now))
            })
            .map(|event| (!self.streams[event.stream].live, event.id, self.is_superseded(event)))
            .collect();
        found.sort_unstable();
        found.into_iter().filter_map(|(_, row, superseded)| Some((row?, superseded))).collect()
    }

    /// By any event of a user's that happened later, for a backfill that acts; for a live event only by one that had
    /// arrived before, and that is acted on.
    fn is_superseded(&self, event: &Event) -> bool {
        let stream = &self.streams[event.stream];
        let newer = self.events.iter().any(|other| {
            let owner = &self.streams[other.stream];
            let arrived_before = other.id < event.id && !matches!(other.state, "held" | "skipped");
            subject(other.event) == subject(event.event)
                && risk(other.event).is_some()
                && published(other.event) > published(event.event)
                && (!stream.live || (arrived_before && (owner.live || owner.execute)))
        });
        (stream.live || stream.execute) && subject(event.event).is_some() && risk(event.event).is_some() && newer
    }

    pub fn newest_risk(&self, user: &str) -> Option<&'static str> {
        let of_user =
            self.events.iter().filter(|event| subject(event.event) == Some(user) && risk(event.event).is_some());
        of_user.max_by_key(|event| (published(event.event), event.id)).and_then(|event| risk(event.event))
    }

    pub fn has_open_changes(&self, user: &str) -> bool {
        use ActionState as S;
        self.actions.iter().any(|action| {
            subject(action.event) == Some(user)
                && action.service() == "okta"
                && action.lane.is_some()
                && matches!(action.state, S::Waiting | S::Ready | S::Started | S::Retry | S::Unknown)
                && !self.is_stuck(action)
        })
    }

    /// Whether it comes behind what only a person can move.
    fn is_stuck(&self, action: &Action) -> bool {
        use ActionState as S;
        let held = |action: &Action| matches!(action.state, S::NeedsAttention | S::AwaitingApproval);
        let waits = |action: &Action| matches!(action.state, S::Waiting | S::Ready | S::Retry);
        let in_lane = |action: &Action| {
            let of_lane = |other: &&Action| action.lane.is_some() && other.lane == action.lane && other.is_open();
            self.actions.iter().filter(of_lane).min_by_key(|other| other.id).is_some_and(held)
        };
        let for_ever = action.state == S::Waiting && action.wait_until.is_none();
        let mut named =
            self.actions.iter().filter(|other| other.run == action.run && action.after.contains(&other.step));
        waits(action)
            && (in_lane(action) || (for_ever && named.any(|other| held(other) || (waits(other) && in_lane(other)))))
    }

    pub fn next_due(&self, now: i64) -> Option<i64> {
        use ActionState as S;
        let due = self
            .actions
            .iter()
            .filter(|action| matches!(action.state, S::Waiting | S::Ready | S::Retry | S::Unknown))
            .map(|action| action.due);
        let waits = self
            .actions
            .iter()
            .filter(|action| action.state == S::Waiting && self.open_before(action) > 0)
            .filter_map(|action| action.wait_until);
        let events = self.events.iter().filter(|event| event.state == "new").filter_map(|event| event.retry_at);
        due.chain(waits).chain(events).filter(|at| *at > now).min()
    }

    /// Whether it had a delay, or waits for a step that had one, and was not prepared since.
    fn is_delayed(&self, action: &Action) -> bool {
        let of_run = |other: &Action| other.run == action.run && other.state == ActionState::Waiting;
        let run_is = || self.actions.iter().any(|other| of_run(other) && other.delay.is_some());
        let waits = action.delay.is_some() || (self.open_before(action) > 0 && run_is());
        action.state == ActionState::Waiting && waits
    }

    pub fn unfinished_of(&self, stream: usize) -> u64 {
        use ActionState as S;
        let of_stream = |event: usize| self.events.iter().any(|known| known.event == event && known.stream == stream);
        let events = self.events.iter().filter(|event| event.stream == stream && matches!(event.state, "new" | "held"));
        let actions = self.actions.iter().filter(|action| {
            of_stream(action.event)
                && matches!(action.state, S::Waiting | S::Ready | S::Started | S::Unknown)
                && !self.is_delayed(action)
        });
        (events.count() + actions.count()) as u64
    }
}

pub fn step_name(number: usize) -> String {
    format!("step-{number}")
}

/// The names of the steps before `number` whose bit is set.
pub fn after(number: usize, bits: u8) -> Vec<String> {
    (0..number).filter(|before| bits & (1 << before) != 0).map(step_name).collect()
}

/// Whether an action that was prepared in this way has parameters.
pub fn has_params(happening: Happening) -> bool {
    !matches!(happening, Happening::NotCalledFor | Happening::CannotBePrepared)
}
