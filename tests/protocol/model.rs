//! The protocol as a model: every step names the code it stands for, and one step is one transaction, one request or one
//! answer, so that a crash can come between any two.

use std::sync::LazyLock;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use okta_responder::engine::outcome::{RetryPolicy, of_attempt, of_verdict};
use okta_responder::engine::retry::Schedule;
use okta_responder::model::action::{ActionState, Happening, InDoubt};
use okta_responder::model::ids::{ActionId, IdempotencyKey, RunId};
use okta_responder::model::outcome::{Failure, Outcome, Reason, Receipt, Verdict};
use okta_responder::store::Claimed;
use stateright::{Model, Property};

use crate::properties;

/// Events in the log of the org, in the order in which Okta keeps them; all are about one user.
pub const EVENTS: usize = 2;
/// Steps of the one playbook that wants them.
pub const STEPS: usize = 2;

/// What a step does at its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Set-like, in a lane of its own step: the first event puts the user into a group, the second takes him out.
    Set,
    /// Keyed: looked up by its key, made if it is not there.
    Keyed,
    /// Neither: nobody can ask the service whether it was done.
    Message(InDoubt),
}

/// A protocol with one thing wrong. The checker has to find each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The cursor is committed in a transaction before its events.
    CursorBeforeEvents,
    /// An event is marked decided in a transaction before its actions.
    DecidedBeforeActions,
    /// A known event is decided again when a page brings it again, and its actions have new keys.
    NoDeduplication,
    /// The request leaves first; claim and outcome are committed together after it.
    ClaimAfterRequest,
    /// At start, attempts without an outcome are left as they are.
    LostIsForgotten,
    /// An unknown attempt is sent again without reading its target back.
    SettledBlindly,
    /// An unknown attempt is taken for a success.
    UnknownIsSuccess,
    /// An unknown attempt is taken for a failure without effect.
    UnknownIsTransient,
    /// Actions on one lane do not wait for each other.
    NoLanes,
    /// A lane goes on past an action whose attempt is unknown.
    LaneFreeInDoubt,
}

/// What is checked, and how much may go wrong on one path. Budgets keep the graph finite and without cycles.
#[derive(Debug, Clone, Copy)]
pub struct Protocol {
    /// What the steps of every event do.
    pub kinds: [Kind; STEPS],
    /// Whether the second step of a run waits for the first (`after`).
    pub chained: bool,
    /// How often the process dies.
    pub crashes: u8,
    /// How often the world misbehaves: a request or an answer is lost, the service refuses, a cursor is refused.
    pub faults: u8,
    /// How often a person changes an action.
    pub changes: u8,
    /// Whether he looks at the service first and touches only what waits for him. One who meddles cancels and retries
    /// whatever the code lets him.
    pub careful: bool,
    /// Whether a request whose answer nobody waits for any more may still be done, at any later time.
    pub late: bool,
    /// What is wrong with the protocol.
    pub flaw: Option<Flaw>,
}

/// Everything there is at one moment: the file, the memory of the process, and the world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// The process runs. Memory is gone when it does not.
    pub up: bool,
    pub crashes: u8,
    pub faults: u8,
    pub changes: u8,
    /// On the file: how many events of the log lie before the cursor.
    pub cursor: u8,
    /// On the file.
    pub inbox: [Inbox; EVENTS],
    /// In memory: a page that was read and is not stored yet.
    pub page: Option<Page>,
    /// In memory: an event whose decision is made and not stored yet.
    pub decision: Option<u8>,
    pub actions: [[Action; STEPS]; EVENTS],
    /// In the world: whether the user is in the group of each lane.
    pub member: [bool; STEPS],
    /// In the world: an effect of the first event came after one of the second, in one lane.
    pub disorder: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Inbox {
    Absent,
    New,
    Decided,
    /// Only with [`Flaw::DecidedBeforeActions`]: marked, and its actions are still in memory.
    MarkedOnly,
}

/// The events `from..to` of the log, asked for with the cursor `from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Page {
    pub from: u8,
    pub to: u8,
    /// Only with [`Flaw::CursorBeforeEvents`]: its cursor is on the file and its events are not.
    pub half: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Action {
    /// On the file; `None` before the event is decided.
    pub row: Option<ActionState>,
    /// In memory and on the wire: the attempt under way.
    pub flight: Option<Flight>,
    /// In memory: what reading back said, not stored yet.
    pub told: Option<Told>,
    /// On the wire: a request of a dead or impatient process that may still arrive.
    pub stray: bool,
    /// In the world: how often the service changed something for it.
    pub effects: u8,
    /// Whether the service was ever seen in the state that it asks for.
    pub seen: bool,
    /// A person has changed it without looking.
    pub meddled: bool,
}

/// Where an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flight {
    /// The claim is committed; the request has not left.
    Claimed,
    /// The request is on its way.
    Sent,
    /// The service has acted; its answer is on its way.
    Acted,
    /// The attempt has ended, and its outcome is not stored yet.
    Ended(End),
}

/// How an attempt ended: an [`Outcome`] without its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    Done,
    Transient,
    Permanent,
    Unknown,
}

/// What reading back said: a [`Verdict`] without its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Told {
    Done,
    NotDone,
    CannotTell,
    /// The service could not be asked for as long as retries go on.
    Never,
}

/// An action by event and step.
pub type Place = (usize, usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `okta::logs`: a page with the events up to this one comes back.
    ReadPage(u8),
    /// [`Store::commit_page`](okta_responder::store::Store::commit_page) (T1).
    CommitPage,
    /// [`Store::restart_stream`](okta_responder::store::Store::restart_stream): the cursor was refused, or a person reset it.
    RestartStream,
    /// `Decider`: the playbooks have their say about the first undecided event.
    Decide(u8),
    /// [`Store::commit_decisions`](okta_responder::store::Store::commit_decisions) (T2).
    CommitDecision,
    /// [`Store::commit_preparations`](okta_responder::store::Store::commit_preparations).
    Prepare(Place),
    /// [`Store::claim_ready`](okta_responder::store::Store::claim_ready) (T3), of one action; a group is several in a row.
    Claim(Place),
    /// `Connector::perform`: the request leaves.
    Send(Place),
    /// The service does what it is asked.
    Act(Place),
    /// Its answer arrives.
    Answer(Place),
    /// The request or its answer is lost: a timeout, or a connection that breaks.
    Lose(Place),
    /// The service refuses without acting, for now or for good.
    Refuse(Place, End),
    /// [`Store::record_outcome`](okta_responder::store::Store::record_outcome) (T4), with what `engine::outcome::of_attempt` says.
    Record(Place),
    /// `Connector::verify`: the target is read back.
    ReadBack(Place),
    /// Reading back is not possible now (`Verdict::TryLater`).
    CannotReadBack(Place),
    /// It never was possible in the time for retries.
    NeverReadBack(Place),
    /// [`Store::record_outcome`](okta_responder::store::Store::record_outcome), with what `engine::outcome::of_verdict` says.
    Settle(Place),
    /// [`Store::change_by_person`](okta_responder::store::Store::change_by_person).
    Person(Place, Happening),
    /// The process is killed: its memory is gone, the file stays.
    Crash,
    /// It starts again: [`Store::mark_lost`](okta_responder::store::Store::mark_lost).
    Restart,
    /// A request that nobody waits for is done after all.
    StrayArrives(Place),
    /// It is never done.
    StrayIsGone(Place),
}

impl Step {
    /// Whether it need never happen.
    pub fn is_mishap(&self) -> bool {
        matches!(self, Self::Crash | Self::RestartStream | Self::Person(..))
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            up: true,
            crashes: 0,
            faults: 0,
            changes: 0,
            cursor: 0,
            inbox: [Inbox::Absent; EVENTS],
            page: None,
            decision: None,
            actions: [[Action::default(); STEPS]; EVENTS],
            member: [false; STEPS],
            disorder: false,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        for place in places() {
            if state.at(place).stray {
                steps.extend([Step::StrayArrives(place), Step::StrayIsGone(place)]);
            }
        }
        if !state.up {
            steps.push(Step::Restart);
            return;
        }
        if state.crashes < self.crashes {
            steps.push(Step::Crash);
        }
        self.reading(state, steps);
        self.deciding(state, steps);
        for place in places() {
            self.dispatching(state, place, steps);
            self.person(state, place, steps);
        }
    }

    /// Every step that is offered changes the state, and always towards the end: that is what [`State::progress`] measures,
    /// so the graph has no cycle and every path ends.
    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut next = last.clone();
        self.apply(&mut next, step);
        let leads_on = next.progress() > last.progress();
        assert!(self.flaw.is_some() || leads_on, "{step:?} does not lead on\nfrom {last:?}\nto {next:?}");
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

/// What can happen next.
impl Protocol {
    fn reading(&self, state: &State, steps: &mut Vec<Step>) {
        match state.page {
            Some(_) => steps.push(Step::CommitPage),
            None => steps.extend((state.cursor + 1..=EVENTS as u8).map(Step::ReadPage)),
        }
        if state.faults < self.faults && state.cursor > 0 {
            steps.push(Step::RestartStream);
        }
    }

    /// `Store::undecided` gives a user's events in the order in which they were stored, and the decider takes one at a time.
    fn deciding(&self, state: &State, steps: &mut Vec<Step>) {
        if state.decision.is_some() {
            steps.push(Step::CommitDecision);
        } else if let Some(event) = state.inbox.iter().position(|event| *event == Inbox::New) {
            steps.push(Step::Decide(event as u8));
        }
    }

    fn dispatching(&self, state: &State, place: Place, steps: &mut Vec<Step>) {
        let action = state.at(place);
        let may_fail = state.faults < self.faults;
        match action.flight {
            Some(Flight::Claimed) => steps.push(Step::Send(place)),
            Some(Flight::Sent) => {
                steps.push(Step::Act(place));
                if may_fail {
                    steps.extend([
                        Step::Lose(place),
                        Step::Refuse(place, End::Transient),
                        Step::Refuse(place, End::Permanent),
                    ]);
                }
            }
            Some(Flight::Acted) => {
                steps.push(Step::Answer(place));
                if may_fail {
                    steps.push(Step::Lose(place));
                }
            }
            Some(Flight::Ended(_)) => steps.push(Step::Record(place)),
            None => {}
        }
        // The dispatcher reads one action back at most once at a time (`in_settlement`).
        if action.told.is_some() {
            steps.push(Step::Settle(place));
        } else if action.row == Some(ActionState::Unknown) {
            steps.push(Step::ReadBack(place));
            if may_fail {
                steps.extend([Step::CannotReadBack(place), Step::NeverReadBack(place)]);
            }
        }
        if action.row == Some(ActionState::Waiting) && self.comes_after(place).all(|before| state.is_final(before)) {
            steps.push(Step::Prepare(place));
        }
        let due = matches!(action.row, Some(ActionState::Ready | ActionState::Retry)) && action.flight.is_none();
        if due && self.lane_is_free(state, place) {
            steps.push(match self.flaw {
                Some(Flaw::ClaimAfterRequest) => Step::Send(place),
                _ => Step::Claim(place),
            });
        }
    }

    /// What waits for a person he looks up at the service: he settles it if it is there, and retries it if it is not. What
    /// he cancels or retries of his own accord he did not look up.
    fn person(&self, state: &State, place: Place, steps: &mut Vec<Step>) {
        if state.changes == self.changes {
            return;
        }
        let action = state.at(place);
        let Some(row) = action.row else { return };
        if row == ActionState::NeedsAttention {
            let looked = if action.effects > 0 { Happening::SettledByPerson } else { Happening::RetriedByPerson };
            steps.push(Step::Person(place, looked));
        }
        if row == ActionState::NeedsAttention || self.careful {
            return;
        }
        for wish in [Happening::RetriedByPerson, Happening::CancelledByPerson] {
            if row.after(wish).is_ok() {
                steps.push(Step::Person(place, wish));
            }
        }
    }

    /// The condition of `Store::claim_ready`: no earlier action holds a place in the lane, and none is under way.
    fn lane_is_free(&self, state: &State, (event, step): Place) -> bool {
        if self.kinds[step] != Kind::Set || self.flaw == Some(Flaw::NoLanes) {
            return true;
        }
        let blocks = |other: usize| match state.at((other, step)).row {
            None => false,
            Some(ActionState::Unknown) if self.flaw == Some(Flaw::LaneFreeInDoubt) => false,
            Some(ActionState::Started) => true,
            Some(row) => other < event && !row.is_final(),
        };
        (0..EVENTS).filter(|other| *other != event).all(|other| !blocks(other))
    }

    fn comes_after(&self, (event, step): Place) -> impl Iterator<Item = Place> {
        (0..step).filter(|_| self.chained).map(move |before| (event, before))
    }
}

/// What it does.
impl Protocol {
    fn apply(&self, state: &mut State, step: Step) {
        match step {
            Step::ReadPage(to) => state.page = Some(Page { from: state.cursor, to, half: false }),
            Step::CommitPage => self.commit_page(state),
            Step::RestartStream => {
                state.faults += 1;
                state.cursor = 0;
            }
            Step::Decide(event) => state.decision = Some(event),
            Step::CommitDecision => self.commit_decision(state),
            Step::Prepare(place) => state.goes_on(place, Happening::Prepared),
            Step::Claim(place) => {
                state.goes_on(place, Happening::Claimed);
                state.at_mut(place).flight = Some(Flight::Claimed);
            }
            Step::Send(place) => state.at_mut(place).flight = Some(Flight::Sent),
            Step::Act(place) => {
                self.act(state, place);
                state.at_mut(place).flight = Some(Flight::Acted);
            }
            Step::Answer(place) => state.at_mut(place).flight = Some(Flight::Ended(End::Done)),
            Step::Lose(place) => {
                state.faults += 1;
                let action = state.at_mut(place);
                action.stray |= self.late && action.flight == Some(Flight::Sent);
                action.flight = Some(Flight::Ended(End::Unknown));
            }
            Step::Refuse(place, end) => {
                state.faults += 1;
                state.at_mut(place).flight = Some(Flight::Ended(end));
            }
            Step::Record(place) => self.record(state, place),
            Step::ReadBack(place) => self.read_back(state, place),
            Step::CannotReadBack(_) => state.faults += 1,
            Step::NeverReadBack(place) => {
                state.faults += 1;
                state.at_mut(place).told = Some(Told::Never);
            }
            Step::Settle(place) => self.settle(state, place),
            Step::Person(place, wish) => {
                state.changes += 1;
                state.at_mut(place).meddled |= !self.careful;
                state.goes_on(place, wish);
            }
            Step::Crash => self.crash(state),
            Step::Restart => self.restart(state),
            Step::StrayArrives(place) => {
                state.at_mut(place).stray = false;
                self.effect(state, place);
            }
            Step::StrayIsGone(place) => state.at_mut(place).stray = false,
        }
    }

    fn commit_page(&self, state: &mut State) {
        let Some(page) = state.page.take() else { return };
        // `StoreError::CursorMoved`: the stream began again while the page was on its way.
        if page.from != state.cursor && !page.half {
            return;
        }
        state.cursor = page.to;
        if self.flaw == Some(Flaw::CursorBeforeEvents) && !page.half {
            state.page = Some(Page { half: true, ..page });
            return;
        }
        for event in usize::from(page.from)..usize::from(page.to) {
            let known = state.inbox[event] != Inbox::Absent;
            if known && self.flaw == Some(Flaw::NoDeduplication) && state.inbox[event] == Inbox::Decided {
                for step in 0..STEPS {
                    if state.is_final((event, step)) {
                        state.at_mut((event, step)).row = Some(ActionState::Ready);
                    }
                }
            } else if !known {
                state.inbox[event] = Inbox::New;
            }
        }
    }

    fn commit_decision(&self, state: &mut State) {
        let Some(event) = state.decision.take() else { return };
        let at = usize::from(event);
        if self.flaw == Some(Flaw::DecidedBeforeActions) && state.inbox[at] == Inbox::New {
            state.inbox[at] = Inbox::MarkedOnly;
            state.decision = Some(event);
            return;
        }
        state.inbox[at] = Inbox::Decided;
        for step in 0..STEPS {
            state.at_mut((at, step)).row = Some(ActionState::Waiting);
            if self.comes_after((at, step)).next().is_none() {
                state.goes_on((at, step), Happening::Prepared);
            }
        }
    }

    /// The service does what the request says.
    fn act(&self, state: &mut State, place: Place) {
        // A keyed action looks its key up first (`Connector::perform`).
        let there = matches!(self.kinds[place.1], Kind::Keyed) && state.at(place).effects > 0;
        if !there {
            self.effect(state, place);
        }
        state.at_mut(place).seen = true;
    }

    fn effect(&self, state: &mut State, place: Place) {
        let (event, step) = place;
        if self.kinds[step] == Kind::Set {
            let wanted = wants_member(event);
            if state.member[step] == wanted {
                return;
            }
            state.member[step] = wanted;
            let later = (event + 1..EVENTS).any(|later| state.at((later, step)).seen);
            state.disorder |= later;
        }
        let action = state.at_mut(place);
        action.effects = (action.effects + 1).min(3);
    }

    fn record(&self, state: &mut State, place: Place) {
        let Some(Flight::Ended(end)) = state.at_mut(place).flight.take() else { return };
        if self.flaw == Some(Flaw::ClaimAfterRequest) {
            state.goes_on(place, Happening::Claimed);
        }
        let happening = match (end, self.flaw) {
            (End::Unknown, Some(Flaw::UnknownIsSuccess)) => Happening::Succeeded,
            (End::Unknown, Some(Flaw::UnknownIsTransient)) => Happening::MayPass,
            _ => MEANING.of_end(end),
        };
        state.goes_on(place, happening);
    }

    fn read_back(&self, state: &mut State, place: Place) {
        let (event, step) = place;
        let there = match self.kinds[step] {
            Kind::Set => Some(state.member[step] == wants_member(event)),
            Kind::Keyed => Some(state.at(place).effects > 0),
            Kind::Message(_) => None,
        };
        let action = state.at_mut(place);
        action.seen |= there == Some(true);
        action.told = Some(match there {
            _ if self.flaw == Some(Flaw::SettledBlindly) => Told::NotDone,
            Some(true) => Told::Done,
            Some(false) => Told::NotDone,
            None => Told::CannotTell,
        });
    }

    /// A verdict about an action that is not unknown any more changes nothing (`StoreError::Illegal`).
    fn settle(&self, state: &mut State, place: Place) {
        let Some(told) = state.at_mut(place).told.take() else { return };
        let in_doubt = match self.kinds[place.1] {
            Kind::Message(in_doubt) => in_doubt,
            Kind::Set | Kind::Keyed => InDoubt::Ask,
        };
        if state.at(place).row == Some(ActionState::Unknown) {
            state.goes_on(place, MEANING.of_told(told, in_doubt));
        }
    }

    fn crash(&self, state: &mut State) {
        state.up = false;
        state.crashes += 1;
        state.page = None;
        state.decision = None;
        for place in places() {
            let action = state.at_mut(place);
            action.stray |= self.late && action.flight == Some(Flight::Sent);
            action.flight = None;
            action.told = None;
        }
    }

    fn restart(&self, state: &mut State) {
        state.up = true;
        for place in places() {
            if state.at(place).row == Some(ActionState::Started) && self.flaw != Some(Flaw::LostIsForgotten) {
                state.goes_on(place, Happening::OutcomeLost);
            }
        }
    }
}

impl State {
    pub fn at(&self, (event, step): Place) -> &Action {
        &self.actions[event][step]
    }

    fn at_mut(&mut self, (event, step): Place) -> &mut Action {
        &mut self.actions[event][step]
    }

    pub fn is_final(&self, place: Place) -> bool {
        self.at(place).row.is_some_and(ActionState::is_final)
    }

    /// The one way in which a row changes: what the code itself says follows.
    fn goes_on(&mut self, place: Place, happening: Happening) {
        let row = self.at(place).row.expect("only planned actions go on");
        let next = row.after(happening).unwrap_or_else(|illegal| panic!("{illegal}: {self:?}"));
        self.at_mut(place).row = Some(next);
    }

    /// How far everything is. What goes wrong costs a budget and may set the rest back; everything else leads on.
    fn progress(&self) -> (u8, u32) {
        let page = match self.page {
            Some(page) if page.half => 0,
            Some(page) if page.from == self.cursor => 2,
            Some(_) => 0,
            None => 1,
        };
        let inbox = self.inbox.iter().map(|event| match event {
            Inbox::Absent => 0,
            Inbox::New => 2,
            Inbox::MarkedOnly => 3,
            Inbox::Decided => 4,
        });
        let actions = places().map(|place| self.at(place).progress());
        let rest = u32::from(self.up) + u32::from(self.decision.is_some()) + u32::from(self.cursor) * 3 + page;
        (self.crashes + self.faults + self.changes, rest + inbox.sum::<u32>() + actions.sum::<u32>())
    }
}

impl Action {
    fn progress(&self) -> u32 {
        use ActionState as S;
        let way = match (self.flight, self.row) {
            (Some(Flight::Ended(End::Transient | End::Unknown)), _) => 2,
            (Some(Flight::Claimed), _) => 8,
            (Some(Flight::Sent), _) => 9,
            (Some(Flight::Acted), _) => 10,
            (Some(Flight::Ended(End::Done | End::Permanent)), _) => 11,
            (None, None) => 0,
            (None, Some(S::Waiting)) => 1,
            // Nobody is under way with it any more; the start of the process will say that it is unknown.
            (None, Some(S::Started)) => 3,
            (None, Some(S::Unknown)) => 4,
            (None, Some(S::NeedsAttention)) => 5,
            (None, Some(S::Retry)) => 6,
            (None, Some(S::Ready)) => 7,
            (None, Some(_)) => 12,
        };
        let told = match (self.told, self.row) {
            (Some(_), Some(S::Unknown)) => 2,
            (None, _) => 1,
            (Some(_), _) => 0,
        };
        way * 3 + told + u32::from(!self.stray)
    }
}

/// The first event puts the user into the group, the second takes him out again.
pub fn wants_member(event: usize) -> bool {
    event == 0
}

pub fn places() -> impl Iterator<Item = Place> {
    (0..EVENTS).flat_map(|event| (0..STEPS).map(move |step| (event, step)))
}

/// What the code makes of outcomes and verdicts. Asked once, because it writes sentences as well.
struct Meaning {
    ends: Vec<(End, Happening)>,
    told: Vec<(Told, InDoubt, Happening)>,
}

static MEANING: LazyLock<Meaning> = LazyLock::new(|| {
    let failure = || Failure::new(Reason::Timeout, "");
    let ends = [
        (End::Done, Outcome::Done(Receipt::default())),
        (End::Transient, Outcome::Transient(failure())),
        (End::Permanent, Outcome::Permanent(failure())),
        (End::Unknown, Outcome::Unknown(failure())),
    ];
    let told = [
        (Told::Done, Verdict::Done(Receipt::default())),
        (Told::NotDone, Verdict::NotDone),
        (Told::CannotTell, Verdict::CannotTell),
        (Told::Never, Verdict::TryLater(failure())),
    ];
    let policy = RetryPolicy {
        schedule: Schedule { initial: Duration::from_secs(1), max: Duration::from_secs(60) },
        give_up_after: Duration::from_secs(3600),
        still_at_work: Duration::ZERO,
    };
    let now = Timestamp::UNIX_EPOCH;
    let claimed = |in_doubt| Claimed {
        id: ActionId(1),
        run: RunId(1),
        step: "step".to_owned(),
        kind: "service.noun.verb".to_owned(),
        key: IdempotencyKey::derive("okta", "event", "playbook", "step"),
        params: "{}".to_owned(),
        attempt: 1,
        in_doubt,
        retry_from: now,
        since: now,
        earlier: Receipt::default(),
        trouble: None,
    };
    let happening = |end: okta_responder::store::AttemptEnd| end.happening.expect("each of these moves the action");
    Meaning {
        ends: ends
            .into_iter()
            .map(|(end, outcome)| (end, happening(of_attempt(&claimed(InDoubt::Ask), outcome, policy, now))))
            .collect(),
        told: [InDoubt::Skip, InDoubt::Resend, InDoubt::Ask]
            .into_iter()
            .flat_map(|in_doubt| told.clone().map(|(told, verdict)| (told, in_doubt, verdict)))
            .map(|(told, in_doubt, verdict)| {
                let asked =
                    now + if told == Told::Never { SignedDuration::from_hours(2) } else { SignedDuration::ZERO };
                (told, in_doubt, happening(of_verdict(&claimed(in_doubt), verdict, policy, asked)))
            })
            .collect(),
    }
});

impl Meaning {
    fn of_end(&self, end: End) -> Happening {
        self.ends.iter().find(|known| known.0 == end).expect("every end is listed").1
    }

    fn of_told(&self, told: Told, in_doubt: InDoubt) -> Happening {
        self.told.iter().find(|known| (known.0, known.1) == (told, in_doubt)).expect("every verdict is listed").2
    }
}
