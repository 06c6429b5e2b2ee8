//! What can happen to a state file, as plain data, so that a failing sequence shrinks.

use okta_responder::model::action::{Happening, InDoubt};
use okta_responder::store::PersonChange;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Chooses one of what there is when the command runs; nothing when there is nothing.
#[derive(Debug, Clone, Copy)]
pub struct Pick(u8);

impl Pick {
    pub fn first() -> Self {
        Self(0)
    }

    pub fn second() -> Self {
        Self(1)
    }

    pub fn of<T: Clone>(self, from: &[T]) -> Option<T> {
        from.get(usize::from(self.0).checked_rem(from.len())?).cloned()
    }
}

#[derive(Debug, Clone)]
pub enum Command {
    /// A page arrives: new, known, late and repeated events. `stale`: it was asked for with a cursor that has moved since.
    Page {
        stream: Pick,
        events: Vec<usize>,
        stale: bool,
        last: bool,
    },
    BeginBackfill {
        execute: bool,
    },
    CancelBackfill(Pick),
    /// The cursor was refused or reset, or the configuration asks for other events.
    Restart(Pick),
    /// `late`: the decision was made about any row that ever was, be it decided or forgotten by now.
    Decide {
        pick: Pick,
        late: bool,
        verdict: Verdict,
    },
    /// `late`: about any action, not only one that is to be prepared.
    Prepare {
        pick: Pick,
        late: bool,
        result: Prepare,
    },
    Claim {
        most: usize,
    },
    End {
        pick: Pick,
        end: End,
        pause: i64,
    },
    /// `late`: about any action, not only one that is unknown. `about`: so many attempts before the last one, where the
    /// attempt is told at all.
    ReadBack {
        pick: Pick,
        late: bool,
        about: Option<u32>,
        told: Told,
        pause: i64,
    },
    /// `late`: of any action, not only one in which this makes sense.
    Person {
        pick: Pick,
        late: bool,
        change: PersonChange,
    },
    Pause(bool),
    /// The daemon reads another configuration: the guard asks for something else from now on.
    Guard(Policy),
    StopPlaybook(&'static str),
    LetGoOn(&'static str),
    /// What has awaited approval for so long is refused.
    ExpireApprovals(i64),
    Pass(i64),
    /// Okta's clock is so far ahead of ours from now on.
    OktaAhead(i64),
    /// What is old goes, after some days have passed and, with `poll`, after Okta's last page has told its date anew.
    Prune {
        days: i64,
        poll: bool,
        kept: Kept,
    },
    /// The clock is set back, and what was put off too far is pulled back.
    SetBack(i64),
    /// The daemon starts again, after a clean end or (`killed`) from what a dead process left on the disk.
    Reopen {
        killed: bool,
    },
}

/// How many days things are kept.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    pub events: i64,
    pub runs: i64,
    pub keys: i64,
}

/// What the guard is told to stop. The lists protect one of the users.
#[derive(Debug, Clone, Copy, Default)]
pub struct Policy {
    pub observe: bool,
    pub protect: bool,
    pub overall: Option<u32>,
    pub per_playbook: Option<u32>,
}

#[derive(Debug, Clone)]
pub enum Verdict {
    Decided(Vec<Run>),
    Skipped,
    Superseded,
    Postponed(i64),
}

#[derive(Debug, Clone)]
pub struct Run {
    pub playbook: &'static str,
    pub observe: bool,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone)]
pub struct Step {
    pub kind: &'static str,
    pub lane: Option<&'static str>,
    pub in_doubt: InDoubt,
    /// Which of the steps before it it waits for, a bit each.
    pub after: u8,
    pub wait: Option<i64>,
    /// Only of what is not prepared when it is planned.
    pub delay: Option<i64>,
    /// How far it is prepared when it is planned.
    pub begins: Option<Happening>,
}

#[derive(Debug, Clone, Copy)]
pub enum Prepare {
    Ends(Happening),
    Later(i64),
}

#[derive(Debug, Clone, Copy)]
pub enum End {
    Done,
    AlreadyDone,
    RetryAfter,
    Transient,
    Permanent,
    Unknown,
}

#[derive(Debug, Clone, Copy)]
pub enum Told {
    Done,
    NotDone,
    NotDoneAndGivenUp,
    DoubtAccepted,
    CannotTell,
    TryLater,
}

/// The kinds of action that are planned: two services, and the first resets risk.
pub const KINDS: [&str; 2] = ["okta.group.add_user", "slack.message.post"];
/// In seconds.
pub const DAY: i64 = 24 * 3600;
pub const PLAYBOOKS: [&str; 2] = ["one", "two"];
/// The second is the one that an action takes when it has none until it is prepared, as after a delay.
const LANES: [&str; 2] = ["group/a", "late"];

/// What is planned before anything else happens, so that something can happen to it.
pub fn beginning() -> impl Strategy<Value = Vec<Vec<Run>>> {
    vec(vec(run(), 1..3), 1..4)
}

pub fn command() -> impl Strategy<Value = Command> {
    prop_oneof![3 => reading(), 12 => acting(), 5 => people(), 6 => time()]
}

fn reading() -> impl Strategy<Value = Command> {
    prop_oneof![
        5 => (pick(), vec(0..super::ledger::UNIVERSE, 0..4), prop::bool::weighted(0.1), prop::bool::weighted(0.2))
            .prop_map(|(stream, events, stale, last)| Command::Page { stream, events, stale, last }),
        6 => (pick(), late(), verdict()).prop_map(|(pick, late, verdict)| Command::Decide { pick, late, verdict }),
        1 => any::<bool>().prop_map(|execute| Command::BeginBackfill { execute }),
        1 => pick().prop_map(Command::CancelBackfill),
        1 => pick().prop_map(Command::Restart),
    ]
}

fn acting() -> impl Strategy<Value = Command> {
    prop_oneof![
        3 => (pick(), late(), prepare()).prop_map(|(pick, late, result)| Command::Prepare { pick, late, result }),
        4 => (1usize..4).prop_map(|most| Command::Claim { most }),
        4 => (pick(), end(), seconds()).prop_map(|(pick, end, pause)| Command::End { pick, end, pause }),
        3 => (pick(), late(), about(), told(), seconds())
            .prop_map(|(pick, late, about, told, pause)| Command::ReadBack { pick, late, about, told, pause }),
    ]
}

fn people() -> impl Strategy<Value = Command> {
    let playbook = || select(PLAYBOOKS.to_vec());
    prop_oneof![
        8 => (pick(), late(), change()).prop_map(|(pick, late, change)| Command::Person { pick, late, change }),
        1 => prop::bool::weighted(0.3).prop_map(Command::Pause),
        3 => policy().prop_map(Command::Guard),
        1 => playbook().prop_map(Command::StopPlaybook),
        2 => playbook().prop_map(Command::LetGoOn),
    ]
}

fn time() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => seconds().prop_map(Command::Pass),
        2 => Just(Command::Pass(3000)),
        1 => seconds().prop_map(Command::SetBack),
        1 => seconds().prop_map(Command::ExpireApprovals),
        2 => any::<bool>().prop_map(|killed| Command::Reopen { killed }),
        1 => select(vec![0i64, -100, -3000, 3000, -2 * DAY]).prop_map(Command::OktaAhead),
        5 => (select(vec![0i64, 3, 50, 100, 200]), prop::bool::weighted(0.7), kept())
            .prop_map(|(days, poll, kept)| Command::Prune { days, poll, kept }),
    ]
}

/// The configuration lets nobody keep less than a day; keys are kept for ninety days whatever it says.
fn kept() -> impl Strategy<Value = Kept> {
    let days = || select(vec![1i64, 1, 40, 150]);
    (days(), days(), select(vec![0i64, 150])).prop_map(|(events, runs, keys)| Kept { events, runs, keys })
}

fn about() -> impl Strategy<Value = Option<u32>> {
    select(vec![None, Some(0), Some(0), Some(0), Some(1), Some(2)])
}

fn seconds() -> impl Strategy<Value = i64> {
    select(vec![0i64, 0, 1, 10, 100])
}

fn late() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.1)
}

fn policy() -> impl Strategy<Value = Policy> {
    let limit = || prop_oneof![2 => Just(None), 1 => (0u32..4).prop_map(Some)];
    (prop::bool::weighted(0.2), prop::bool::weighted(0.3), limit(), limit())
        .prop_map(|(observe, protect, overall, per_playbook)| Policy { observe, protect, overall, per_playbook })
}

fn pick() -> impl Strategy<Value = Pick> {
    any::<u8>().prop_map(Pick)
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        8 => vec(run(), 0..3).prop_map(Verdict::Decided),
        1 => Just(Verdict::Skipped),
        1 => Just(Verdict::Superseded),
        2 => select(vec![0i64, 1, 10, 100]).prop_map(Verdict::Postponed),
    ]
}

fn run() -> impl Strategy<Value = Run> {
    (select(PLAYBOOKS.to_vec()), prop::bool::weighted(0.2), vec(step(), 0..4))
        .prop_map(|(playbook, observe, steps)| Run { playbook, observe, steps })
}

fn step() -> impl Strategy<Value = Step> {
    let begins = prop_oneof![
        3 => Just(None),
        6 => Just(Some(Happening::Prepared)),
        2 => preparation_ends().prop_map(Some),
    ];
    let lane = prop_oneof![1 => Just(None), 3 => select(LANES.to_vec()).prop_map(Some)];
    let wait = prop_oneof![3 => Just(None), 1 => select(vec![1i64, 10, 100]).prop_map(Some)];
    let delay = prop_oneof![1 => Just(None), 1 => select(vec![1i64, 1, 10]).prop_map(Some)];
    let in_doubt = select(vec![InDoubt::Skip, InDoubt::Resend, InDoubt::Ask]);
    (select(KINDS.to_vec()), lane, in_doubt, 0u8..4, wait, delay, begins).prop_map(
        |(kind, lane, in_doubt, after, wait, delay, begins)| {
            let delay = delay.filter(|_| begins.is_none());
            let lane = lane.filter(|_| delay.is_none());
            Step { kind, lane, in_doubt, after, wait, delay, begins }
        },
    )
}

fn preparation_ends() -> impl Strategy<Value = Happening> {
    select(vec![
        Happening::Prepared,
        Happening::HeldForApproval,
        Happening::NotCalledFor,
        Happening::RefusedByGuard,
        Happening::CannotBePrepared,
    ])
}

fn prepare() -> impl Strategy<Value = Prepare> {
    prop_oneof![
        4 => preparation_ends().prop_map(Prepare::Ends),
        1 => select(vec![1i64, 10]).prop_map(Prepare::Later),
    ]
}

fn end() -> impl Strategy<Value = End> {
    select(vec![
        End::Done,
        End::AlreadyDone,
        End::RetryAfter,
        End::Transient,
        End::Permanent,
        End::Unknown,
        End::Unknown,
    ])
}

fn told() -> impl Strategy<Value = Told> {
    select(vec![
        Told::Done,
        Told::NotDone,
        Told::NotDone,
        Told::NotDoneAndGivenUp,
        Told::DoubtAccepted,
        Told::CannotTell,
        Told::TryLater,
    ])
}

fn change() -> impl Strategy<Value = PersonChange> {
    select(vec![PersonChange::Retry, PersonChange::Cancel, PersonChange::Approve, PersonChange::Settle])
}
