use proptest::prelude::*;

use super::*;

use Bucket::{Groups, Logs, Users};
use Priority::{Backfill, Enrichment, Live, Remediation};

const S: Duration = Duration::from_secs(1);

fn date() -> Timestamp {
    Timestamp::from_second(1_757_607_710).unwrap()
}

fn reply(status: u16, limit: u32, remaining: u32, resets_in_s: i64) -> Reply {
    let headers = RateHeaders { limit, remaining, reset_epoch_s: date().as_second() + resets_in_s };
    Reply { status, headers: Some(headers), date: Some(date()) }
}

/// Asks and is answered at once.
fn asks(budget: &mut Budget, now: Duration, bucket: Bucket, priority: Priority, reply: Reply) {
    let ticket = budget.ask(bucket, priority);
    assert_eq!(budget.release(now), 1);
    budget.over(ticket, Some(reply), now);
}

#[test]
fn who_waits_goes_by_priority_and_then_in_order() {
    let mut budget = Budget::new(0.5);
    let first = budget.ask(Users, Enrichment);
    assert_eq!(budget.release(S), 1);
    let line = [Backfill, Enrichment, Enrichment, Remediation].map(|priority| budget.ask(Users, priority));
    let elsewhere = budget.ask(Groups, Backfill);
    assert_eq!(budget.release(S), 1, "a bucket of its own");
    assert!(budget.is_let_go(elsewhere));
    let mut order = Vec::new();
    let mut under_way = first;
    for _ in line {
        // No headers, so one at a time.
        budget.over(under_way, Some(Reply { status: 200, headers: None, date: None }), S);
        assert_eq!(budget.release(S), 1);
        under_way = line.into_iter().find(|ticket| budget.is_let_go(*ticket)).unwrap();
        order.push(line.iter().position(|ticket| *ticket == under_way).unwrap());
    }
    assert_eq!(order, [3, 1, 2, 0]);
}

#[test]
fn who_gives_up_frees_the_place() {
    let mut budget = Budget::new(0.5);
    let [gone, waits, stays] = [Live, Live, Live].map(|priority| budget.ask(Users, priority));
    budget.release(S);
    assert!(budget.is_let_go(gone));
    budget.withdraw(waits);
    budget.withdraw(gone);
    assert_eq!(budget.release(S), 1);
    assert!(budget.is_let_go(stays) && !budget.is_let_go(gone));
    let told = budget.snapshot(S);
    assert_eq!((told[0].used, told[0].requests, told[0].waiting), (1, 1, 0));
}

#[test]
fn a_429_closes_its_bucket_for_everybody_and_no_other() {
    let mut budget = Budget::new(0.5);
    asks(&mut budget, S, Users, Enrichment, reply(429, 600, 0, 30));
    let ticket = budget.ask(Users, Remediation);
    let other = budget.ask(Groups, Backfill);
    budget.release(31 * S);
    assert!(!budget.is_let_go(ticket) && budget.is_let_go(other));
    assert_eq!(budget.next_look(31 * S, Users, Remediation), Some(S));
    assert_eq!(budget.release(32 * S), 1);
    let told = &budget.snapshot(32 * S)[0];
    assert_eq!((told.refused, told.refused_ago, told.crowded), (1, Some(31 * S), 0));
}

#[test]
fn too_many_at_once_means_fewer_at_once_and_closes_no_bucket() {
    let mut budget = Budget::new(0.5);
    assert_eq!(budget.at_once(), 37);
    asks(&mut budget, S, Users, Enrichment, reply(200, 600, 599, 60));
    asks(&mut budget, S, Users, Enrichment, reply(429, 0, 0, 10));
    assert_eq!(budget.at_once(), 18);
    budget.ask(Users, Enrichment);
    let rest = budget.next_look(S, Users, Enrichment).unwrap();
    assert!(rest < S, "{rest:?}");
    assert_eq!((budget.release(S), budget.release(S + rest)), (0, 1));
    let told = &budget.snapshot(2 * S)[0];
    assert_eq!((told.refused, told.crowded, told.crowded_ago, told.limit), (0, 1, Some(S), Some(600)));
}

#[test]
fn who_is_turned_away_is_told_when_his_turn_will_be() {
    let mut budget = Budget::new(0.5);
    for _ in 0..10 {
        asks(&mut budget, S, Users, Remediation, reply(200, 20, 19, 60));
    }
    let mut told = |priority| {
        let ticket = budget.ask(Users, priority);
        assert_eq!(budget.release(S), 0);
        budget.turn_away(ticket, S).as_secs()
    };
    // Ten have room in the next window, the eleventh in the one after.
    let remediation: Vec<u64> = (0..11).map(|_| told(Remediation)).collect();
    assert_eq!(remediation, [60, 60, 60, 60, 60, 60, 60, 60, 60, 61, 120]);
    assert!(told(Enrichment) > 60);
    assert_eq!(told(Remediation), 120, "not behind those who matter less");
}

#[test]
fn nobody_is_sent_away_for_long_because_little_was_granted_once() {
    let mut budget = Budget::new(0.5);
    asks(&mut budget, S, Users, Remediation, reply(200, 1, 0, 60));
    for _ in 0..2000 {
        let ticket = budget.ask(Users, Remediation);
        assert_eq!(budget.release(S), 0);
        let wait = budget.turn_away(ticket, S);
        assert!(wait <= 300 * S, "{wait:?}");
    }
}

#[test]
fn live_polls_are_spread_over_the_window_and_leave_half_of_it_to_a_backfill() {
    let mut budget = Budget::new(0.5);
    assert_eq!(budget.steady_gap(S), S);
    asks(&mut budget, S, Logs, Live, reply(200, 50, 49, 60));
    assert_eq!(budget.steady_gap(S), Duration::from_millis(2400));
    asks(&mut budget, S, Logs, Backfill, reply(200, 50, 48, 60));
    assert_eq!(budget.steady_gap(S), 5 * S);
    assert_eq!(budget.steady_gap(100 * S), Duration::from_millis(2400));
    asks(&mut budget, 100 * S, Logs, Live, reply(200, 600, 599, 60));
    assert_eq!(budget.steady_gap(100 * S), S);
}

#[test]
fn another_share_holds_at_once_and_forgets_nothing() {
    let mut budget = Budget::new(1.0);
    for _ in 0..10 {
        asks(&mut budget, S, Users, Remediation, reply(200, 20, 19, 60));
    }
    budget.set_share(0.5);
    budget.ask(Users, Remediation);
    assert_eq!((budget.release(S), budget.release(62 * S)), (0, 1));
}

/// Okta's side of one bucket: a minute that begins somewhere, and what was used of it by us and by others.
struct Minute {
    limit: u32,
    phase_ms: u64,
    number: u64,
    ours: u32,
    others: u32,
    /// Ours that left before the limit was known.
    blind: u32,
}

impl Minute {
    fn at(&mut self, now: Duration) -> &mut Self {
        let number = (u64::try_from(now.as_millis()).unwrap() + self.phase_ms) / 60_000;
        if number != self.number {
            (self.number, self.ours, self.others, self.blind) = (number, 0, 0, 0);
        }
        self
    }

    fn reply(&self, status: u16, now: Duration) -> Reply {
        let ends_ms = (self.number + 1) * 60_000 - self.phase_ms;
        let second = |ms: u64| date().as_second() + i64::try_from(ms / 1000).unwrap();
        let headers = RateHeaders {
            limit: self.limit,
            remaining: self.limit.saturating_sub(self.ours + self.others + self.blind),
            reset_epoch_s: second(ends_ms),
        };
        let date = Timestamp::from_second(second(u64::try_from(now.as_millis()).unwrap())).unwrap();
        Reply { status, headers: Some(headers), date: Some(date) }
    }
}

struct Asked {
    ticket: Ticket,
    bucket: usize,
    priority: Priority,
    /// Whether Okta counts it when it leaves, or only when it is answered.
    early: bool,
    /// Whether it left before anything was heard of the bucket.
    blind: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Ask { bucket: usize, priority: usize, early: bool },
    Pass(u64),
    Answer(usize),
    Lose(usize),
    Leave(usize),
    Others { bucket: usize, more: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..2_usize, 0..4_usize, any::<bool>())
            .prop_map(|(bucket, priority, early)| Step::Ask { bucket, priority, early }),
        3 => (0..9_000_u64).prop_map(Step::Pass),
        6 => any::<usize>().prop_map(Step::Answer),
        1 => any::<usize>().prop_map(Step::Lose),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => (0..2_usize, 0..8_u32).prop_map(|(bucket, more)| Step::Others { bucket, more }),
    ]
}

const TWO: [Bucket; 2] = [Logs, Users];

struct Model {
    budget: Budget,
    minutes: [Minute; 2],
    allowance: [u32; 2],
    heard: [bool; 2],
    waiting: Vec<Asked>,
    under_way: Vec<Asked>,
    now: Duration,
}

impl Model {
    fn count(&mut self, bucket: usize, blind: bool) -> Result<(), TestCaseError> {
        let allowance = self.allowance[bucket];
        let minute = self.minutes[bucket].at(self.now);
        if blind {
            minute.blind += 1;
            return Ok(());
        }
        minute.ours += 1;
        prop_assert!(minute.ours <= allowance, "{} of {allowance} in one of Okta's minutes", minute.ours);
        Ok(())
    }

    /// Lets go who may, and looks whether they are the right ones.
    fn release(&mut self) -> Result<(), TestCaseError> {
        self.budget.release(self.now);
        let (gone, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|asked| self.budget.is_let_go(asked.ticket));
        self.waiting = left;
        for mut asked in gone {
            asked.blind = !self.heard[asked.bucket];
            let first = |other: &&Asked| {
                other.bucket == asked.bucket && (other.priority, other.ticket) < (asked.priority, asked.ticket)
            };
            prop_assert!(self.waiting.iter().find(first).is_none(), "somebody was passed over");
            if asked.early {
                self.count(asked.bucket, asked.blind)?;
            }
            self.under_way.push(asked);
        }
        prop_assert!(self.under_way.len() <= self.budget.at_once() as usize);
        Ok(())
    }

    fn end(&mut self, at: usize, answered: bool) -> Result<(), TestCaseError> {
        if self.under_way.is_empty() {
            return Ok(());
        }
        let asked = self.under_way.swap_remove(at % self.under_way.len());
        if !asked.early {
            self.count(asked.bucket, asked.blind)?;
        }
        self.heard[asked.bucket] |= answered;
        let reply = self.minutes[asked.bucket].at(self.now).reply(200, self.now);
        self.budget.over(asked.ticket, answered.then_some(reply), self.now);
        self.release()
    }

    fn go(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Ask { bucket, priority, early } => {
                let priority = Priority::ALL[priority];
                let ticket = self.budget.ask(TWO[bucket], priority);
                self.waiting.push(Asked { ticket, bucket, priority, early, blind: false });
            }
            Step::Pass(ms) => self.now += Duration::from_millis(ms),
            Step::Answer(at) => self.end(at, true)?,
            Step::Lose(at) => self.end(at, false)?,
            Step::Leave(at) if !self.waiting.is_empty() => {
                let asked = self.waiting.swap_remove(at % self.waiting.len());
                let wait = self.budget.turn_away(asked.ticket, self.now);
                prop_assert!(wait >= MIN_GAP, "{wait:?}");
            }
            Step::Leave(_) => {}
            Step::Others { bucket, more } => {
                let rest = self.minutes[bucket].limit - self.allowance[bucket];
                let minute = self.minutes[bucket].at(self.now);
                minute.others = (minute.others + more).min(rest);
            }
        }
        self.release()
    }

    /// Everybody who waits is let go in the end, within the windows that it takes.
    fn drain(&mut self) -> Result<(), TestCaseError> {
        // What a backfill gets of the smaller bucket.
        let least = (self.allowance.iter().min().unwrap() / 2).max(1);
        let windows = u32::try_from(self.waiting.len() + self.under_way.len()).unwrap() / least + 3;
        let until = self.now + (windows * 62 + 10) * S;
        while !self.waiting.is_empty() {
            while !self.under_way.is_empty() {
                self.end(0, true)?;
            }
            let looks = self
                .waiting
                .iter()
                .filter_map(|asked| self.budget.next_look(self.now, TWO[asked.bucket], asked.priority));
            let Some(next) = looks.min() else {
                prop_assert!(!self.under_way.is_empty() || self.waiting.is_empty(), "nobody would ever look again");
                continue;
            };
            self.now += next;
            self.release()?;
            prop_assert!(self.now <= until, "{} still wait", self.waiting.len());
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Model: two of Okta's buckets with minutes of their own that others use as well, within their part.
    #[test]
    fn okta_never_counts_more_than_the_share_and_everybody_gets_his_turn(
        limits in prop::array::uniform2(2..60_u32),
        phases_ms in prop::array::uniform2(0..60_000_u64),
        share in 0.05..=1.0_f64,
        start_ms in 0..200_000_u64,
        steps in prop::collection::vec(step(), 1..250),
    ) {
        let minute = |at: usize| Minute { limit: limits[at], phase_ms: phases_ms[at], number: 0, ours: 0, others: 0, blind: 0 };
        let mut model = Model {
            budget: Budget::new(share),
            minutes: [minute(0), minute(1)],
            allowance: limits.map(|limit| ((f64::from(limit) * share) as u32).max(1)),
            heard: [false; 2],
            waiting: Vec::new(),
            under_way: Vec::new(),
            now: Duration::from_millis(start_ms),
        };
        for step in steps {
            model.go(step)?;
        }
        model.drain()?;
    }
}
