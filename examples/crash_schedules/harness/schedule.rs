//! What a schedule is: who is there, what happens to them, what goes wrong out there, and how the daemon is treated
//! meanwhile. All of it follows from the seed.

use okta_responder::halt::Point;

use super::dice::Dice;

/// One schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// The seed of the run.
    pub seed: u64,
    /// Its number in the run.
    pub number: u64,
    /// For each user, whether he is in quarantine when it begins.
    pub users: Vec<bool>,
    /// Events per page of the log.
    pub page_size: u64,
    /// What the mail step does in doubt.
    pub mail_doubt: Doubt,
    /// What goes wrong out there.
    pub faults: Vec<WorldFault>,
    /// The lives of the daemon. Another, quiet one follows the last.
    pub lives: Vec<Life>,
}

/// The values of `in_doubt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Left, and shown.
    Skip,
    /// Sent again.
    Resend,
    /// Left to a person.
    Ask,
}

/// An event that is put into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Its number; its uuid follows from it.
    pub number: usize,
    /// Whom it is about.
    pub user: usize,
    /// What it says.
    pub what: What,
    /// A late event happened so many seconds before the schedule began; the others happen when they are put into the log.
    pub late: Option<u64>,
}

/// What an event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The risk of the user rose to HIGH.
    Rise,
    /// A person lowered it to LOW.
    Fall,
    /// The user was given the app; at most once in a schedule.
    App,
    /// The user became a case; at most once in a schedule.
    Case,
    /// Something that no playbook asks for.
    Noise,
}

/// From one start of the daemon to its end.
#[derive(Debug, Clone)]
pub struct Life {
    /// Done before it starts.
    pub before: Vec<Deed>,
    /// Done while it lives, each so many milliseconds after the one before.
    pub beats: Vec<(u64, Deed)>,
    /// How it ends.
    pub end: End,
}

/// Something that is done to the world or to the daemon.
#[derive(Debug, Clone)]
pub enum Deed {
    /// Events come into the log, all at once. An event that is there already comes a second time.
    Push(Vec<Told>),
    /// Okta forgets every cursor.
    ForgetCursors,
    /// The configuration changes, so that another filter is asked for, or changes back; SIGHUP.
    Reload,
    /// `okta-responder pause`
    Pause,
    /// `okta-responder resume`
    Resume,
}

/// How a life ends.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// SIGKILL when it gets to the point for the so-manyth time, or after a while if it never does.
    KilledAt(Point, u64),
    /// SIGKILL after so many milliseconds.
    KilledAfter(u64),
    /// SIGTERM after so many milliseconds.
    StoppedAfter(u64),
}

/// Something a service does wrong.
#[derive(Debug, Clone, Copy)]
pub struct WorldFault {
    /// Which requests it hits.
    pub place: Place,
    /// What happens to them.
    pub wrong: Wrong,
    /// How many pass first.
    pub sparing: u64,
    /// How many it hits.
    pub times: u64,
}

/// Requests that can be hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Reading the log.
    Log,
    /// Reading users and their groups.
    Users,
    /// Looking up a group.
    Groups,
    /// Putting somebody into a group.
    Add,
    /// Taking somebody out of it.
    Remove,
    /// Ending sessions.
    Sessions,
    /// Taking an app away.
    Unassign,
    /// Making an incident.
    CreateIncident,
    /// Looking for an incident.
    FindIncident,
    /// Adding to an incident.
    UpdateIncident,
    /// Starting a review, making or launching a campaign.
    StartReview,
    /// Looking for one.
    FindReview,
    /// Triggering an alert.
    Page,
    /// Posting.
    Post,
    /// The beginning of a mail.
    MailFrom,
    /// The end of a mail.
    MailData,
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// 500, not processed.
    Error500,
    /// 503, not processed.
    Error503,
    /// The service's 429, with the end of the window or a pause.
    RateLimited,
    /// Okta's 429 for too many requests at once.
    ConcurrencyLimited,
    /// No answer, not processed.
    DroppedBefore,
    /// No answer, but processed.
    DroppedAfter,
    /// Half an answer, but processed.
    Truncated,
    /// A page of HTML, not processed.
    Html,
    /// An answer after every timeout, but processed.
    AnsweredTooLate,
    /// Not even begun when the timeout is over.
    BegunTooLate,
}

const PLACES: [Place; 16] = [
    Place::Log,
    Place::Users,
    Place::Groups,
    Place::Add,
    Place::Remove,
    Place::Sessions,
    Place::Unassign,
    Place::CreateIncident,
    Place::FindIncident,
    Place::UpdateIncident,
    Place::StartReview,
    Place::FindReview,
    Place::Page,
    Place::Post,
    Place::MailFrom,
    Place::MailData,
];

/// Every way in which something can go wrong.
pub const WRONGS: [Wrong; 10] = [
    Wrong::Error500,
    Wrong::Error503,
    Wrong::RateLimited,
    Wrong::ConcurrencyLimited,
    Wrong::DroppedBefore,
    Wrong::DroppedAfter,
    Wrong::Truncated,
    Wrong::Html,
    Wrong::AnsweredTooLate,
    Wrong::BegunTooLate,
];

impl Place {
    fn is_okta(self) -> bool {
        matches!(
            self,
            Self::Log
                | Self::Users
                | Self::Groups
                | Self::Add
                | Self::Remove
                | Self::Sessions
                | Self::Unassign
                | Self::StartReview
                | Self::FindReview
        )
    }
}

impl Schedule {
    /// The schedule of this number in the run of this seed.
    pub fn draw(seed: u64, number: u64) -> Self {
        let mut dice = Dice::new(seed, number);
        let users: Vec<bool> = (0..dice.between(2, 4)).map(|_| dice.percent(30)).collect();
        let mut story = Story { users: users.len(), told: Vec::new(), given: Vec::new(), cases: Vec::new() };
        let faults = (0..dice.below(8)).map(|_| fault(&mut dice)).collect();
        let lives = (0..dice.between(2, 4)).map(|at| life(&mut dice, &mut story, at == 0)).collect();
        Self {
            seed,
            number,
            users,
            page_size: *dice.pick(&[2, 3, 5, 1000]),
            mail_doubt: *dice.pick(&[Doubt::Skip, Doubt::Skip, Doubt::Resend, Doubt::Ask]),
            faults,
            lives,
        }
    }

    /// Every event in the order in which the log has it, those that come twice twice.
    pub fn told(&self) -> impl Iterator<Item = &Told> {
        let deeds =
            self.lives.iter().flat_map(|life| life.before.iter().chain(life.beats.iter().map(|(_, deed)| deed)));
        deeds.flat_map(|deed| if let Deed::Push(events) = deed { events.as_slice() } else { &[] })
    }

    /// The uuid of an event.
    pub fn uuid(&self, event: usize) -> String {
        format!("{:08x}-c4a5-4000-8000-{:08x}{event:04x}", self.seed as u32, self.number as u32)
    }
}

/// What was told so far.
struct Story {
    users: usize,
    told: Vec<Told>,
    given: Vec<usize>,
    cases: Vec<usize>,
}

impl Story {
    /// Some events, of which one may be there already.
    fn go_on(&mut self, dice: &mut Dice) -> Deed {
        let mut events: Vec<Told> = (0..dice.between(1, 4)).map(|_| self.event(dice)).collect();
        if dice.percent(30) {
            events.push(*dice.pick(&self.told));
        }
        Deed::Push(events)
    }

    fn event(&mut self, dice: &mut Dice) -> Told {
        let user = dice.below(self.users as u64) as usize;
        let (what, late) = match dice.below(100) {
            0..35 => (What::Rise, None),
            35..60 => (What::Fall, None),
            60..67 => (What::Rise, Some(dice.between(60, 600))),
            67..74 => (What::Fall, Some(dice.between(60, 600))),
            74..82 if !self.given.contains(&user) => {
                self.given.push(user);
                (What::App, None)
            }
            82..93 if !self.cases.contains(&user) => {
                self.cases.push(user);
                (What::Case, None)
            }
            _ => (What::Noise, None),
        };
        let event = Told { number: self.told.len(), user, what, late };
        self.told.push(event);
        event
    }
}

fn life(dice: &mut Dice, story: &mut Story, first: bool) -> Life {
    let end = match dice.below(100) {
        0..60 => End::KilledAt(*dice.pick(&Point::ALL), dice.between(1, 6)),
        60..85 => End::KilledAfter(dice.between(5, 700)),
        _ => End::StoppedAfter(dice.between(5, 700)),
    };
    let halts = matches!(end, End::KilledAt(..));
    let mut before = Vec::new();
    // Where nothing is new, hardly any point is reached.
    if first || dice.percent(if halts { 90 } else { 40 }) {
        before.push(story.go_on(dice));
    }
    if !first && dice.percent(8) {
        before.push(Deed::ForgetCursors);
    }
    // A daemon that halts inside a transaction keeps every command from writing.
    let beats = (0..dice.below(4)).map(|_| (dice.between(0, 250), deed(dice, story, !halts))).collect();
    Life { before, beats, end }
}

fn deed(dice: &mut Dice, story: &mut Story, commands: bool) -> Deed {
    match dice.below(100) {
        0..20 if commands => Deed::Pause,
        20..35 if commands => Deed::Resume,
        0..75 => story.go_on(dice),
        75..94 => Deed::Reload,
        _ => Deed::ForgetCursors,
    }
}

fn fault(dice: &mut Dice) -> WorldFault {
    let place = *dice.pick(&PLACES);
    let mut wrong = *dice.pick(&WRONGS);
    if wrong == Wrong::ConcurrencyLimited && !place.is_okta() {
        wrong = Wrong::DroppedAfter;
    }
    WorldFault { place, wrong, sparing: dice.below(3), times: dice.between(1, 2) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_follows_from_its_seed_and_number() {
        let told = |seed, number| format!("{:?}", Schedule::draw(seed, number));
        assert_eq!(told(3, 9), told(3, 9));
        assert_ne!(told(3, 9), told(3, 10));
    }

    #[test]
    fn a_few_hundred_schedules_hold_every_point_and_every_fault() {
        let all: Vec<_> = (0..400).map(|number| Schedule::draw(1, number)).collect();
        let ends: Vec<_> = all.iter().flat_map(|schedule| &schedule.lives).map(|life| life.end).collect();
        for point in Point::ALL {
            assert!(ends.iter().any(|end| matches!(end, End::KilledAt(at, _) if *at == point)), "{point:?}");
        }
        let faults: Vec<_> = all.iter().flat_map(|schedule| &schedule.faults).collect();
        for wrong in WRONGS {
            assert!(faults.iter().any(|fault| fault.wrong == wrong), "{wrong:?}");
        }
        for place in PLACES {
            assert!(faults.iter().any(|fault| fault.place == place), "{place:?}");
        }
    }
}
