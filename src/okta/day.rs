//! A day of an org, played in a moment: the real gate against the simulated org's rate model, by tokio's paused clock.
//!
//! Nobody's requests are sent here; what is true of HTTP is that a request reaches Okta some time after it left, is counted
//! there, and is answered some time later, or never.
#![allow(clippy::print_stdout, reason = "how much is asked in an hour is read by people")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Method;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use super::bucket::{Bucket, Priority};
use super::budget::Reply;
use super::gate::{Gate, Patience};
use super::rate::RateHeaders;
use crate::demo::org::{RateBucket, RateLimits, RateModel, RateRefusal, RateRules};

const HOUR: Duration = Duration::from_secs(3600);
/// With the hour in which the last burst ends.
const DAY: Duration = Duration::from_secs(23 * 3600);
const SHORT: Patience = Patience::AtMost(Duration::from_secs(3));

const LOGS: (&str, &str) = ("GET", "/api/v1/logs");
const USER: (&str, &str) = ("GET", "/api/v1/users/u");
const USER_GROUPS: (&str, &str) = ("GET", "/api/v1/users/u/groups");
const QUARANTINE: (&str, &str) = ("PUT", "/api/v1/groups/g/users/u");
const UNASSIGN: (&str, &str) = ("DELETE", "/api/v1/apps/a/users/u");

/// An org and what happens to ours.
struct Day {
    name: &'static str,
    limits: RateLimits,
    /// What the other tools use of each bucket, in percent, changing by the hour between nothing and this.
    others: u32,
    /// Okta's clock before or behind ours.
    offset_s: i64,
    length: Duration,
    /// Risk events per burst, at most.
    burst: u64,
    /// The hours in which a backfill reads.
    backfill: std::ops::Range<u32>,
}

#[derive(Default)]
struct Seen {
    requests: BTreeMap<Bucket, u64>,
    refused: BTreeMap<Bucket, u64>,
    /// By the hour.
    busiest: BTreeMap<(Bucket, u64), u64>,
    turned_away: u64,
    /// From when a change was wanted until it left, with how many changes were wanted before it in its bucket.
    waits: Vec<(Duration, Bucket, u64)>,
    open: BTreeMap<Bucket, u64>,
}

struct World {
    gate: Gate,
    model: RefCell<RateModel>,
    seen: RefCell<Seen>,
    drawn: RefCell<u64>,
    began: Instant,
    offset_s: i64,
}

impl World {
    /// A number below `below`, the same ones each day.
    fn draw(&self, below: u64) -> u64 {
        let mut drawn = self.drawn.borrow_mut();
        *drawn ^= *drawn << 13;
        *drawn ^= *drawn >> 7;
        *drawn ^= *drawn << 17;
        *drawn % below
    }

    fn okta_now(&self) -> Timestamp {
        let ms = i64::try_from(self.began.elapsed().as_millis()).unwrap();
        Timestamp::from_millisecond(1_757_607_710_347 + self.offset_s * 1000 + ms).unwrap()
    }

    /// One request; `Err` says when to come back.
    async fn request(&self, what: (&str, &str), priority: Priority, patience: Patience) -> Result<(), Duration> {
        let bucket = Bucket::of(&Method::from_bytes(what.0.as_bytes()).unwrap(), what.1);
        let mut pass = match self.gate.pass(bucket, priority, patience).await {
            Ok(pass) => pass,
            Err(away) => {
                self.seen.borrow_mut().turned_away += 1;
                return Err(away.wait);
            }
        };
        pass.leaves();
        {
            let mut seen = self.seen.borrow_mut();
            *seen.requests.entry(bucket).or_default() += 1;
            let hour = self.began.elapsed().as_secs() / 3600;
            *seen.busiest.entry((bucket, hour)).or_default() += 1;
        }
        // Mostly quick, at times slow, now and then never answered, whether it arrived or not.
        let slow = if self.draw(50) == 0 { 4000 } else { 150 };
        sleep(Duration::from_millis(5 + self.draw(slow))).await;
        let lost = self.draw(2000);
        if lost == 0 {
            sleep(Duration::from_secs(30)).await;
            return Err(Duration::from_secs(1));
        }
        let grant = self.model.borrow_mut().take(Some("ours"), what.0, what.1, self.okta_now());
        let date = Timestamp::from_second(self.okta_now().as_second()).unwrap();
        sleep(Duration::from_millis(5 + self.draw(slow))).await;
        if grant.refused.is_none() {
            self.model.borrow_mut().done();
        }
        if lost == 1 {
            sleep(Duration::from_secs(30)).await;
            return Err(Duration::from_secs(1));
        }
        let headers = RateHeaders { limit: grant.limit, remaining: grant.remaining, reset_epoch_s: grant.reset };
        let status = if grant.refused.is_some() { 429 } else { 200 };
        pass.answered(Reply { status, headers: Some(headers), date: Some(date) });
        match grant.refused {
            None => Ok(()),
            Some(why) => {
                assert_ne!(why, RateRefusal::Concurrency, "there are never that many at once");
                *self.seen.borrow_mut().refused.entry(bucket).or_default() += 1;
                Err(Duration::from_secs(10))
            }
        }
    }

    /// The same as often as it takes, as the schedule of the ledger does it.
    async fn insist(&self, what: (&str, &str), priority: Priority) {
        while let Err(wait) = self.request(what, priority, SHORT).await {
            sleep(wait).await;
        }
    }

    async fn change(&self, what: (&str, &str)) {
        let bucket = Bucket::of(&Method::from_bytes(what.0.as_bytes()).unwrap(), what.1);
        let ahead = {
            let mut seen = self.seen.borrow_mut();
            let open = seen.open.entry(bucket).or_default();
            *open += 1;
            *open - 1
        };
        let began = Instant::now();
        self.insist(what, Priority::Remediation).await;
        let mut seen = self.seen.borrow_mut();
        *seen.open.entry(bucket).or_default() -= 1;
        seen.waits.push((began.elapsed(), bucket, ahead));
    }

    /// What one event of a risen risk causes.
    async fn event(&self) {
        self.insist(USER, Priority::Enrichment).await;
        self.insist(USER_GROUPS, Priority::Enrichment).await;
        self.change(USER_GROUPS).await;
        self.change(QUARANTINE).await;
        if self.draw(3) == 0 {
            self.change(UNASSIGN).await;
        }
    }

    async fn live(&self) {
        loop {
            let open = self.gate.opens_in(Bucket::Logs, Priority::Live);
            let began = Instant::now();
            sleep(open).await;
            // A full page now and then.
            let pages = if self.draw(200) == 0 { 20 } else { 1 };
            for _ in 0..pages {
                if let Err(wait) = self.request(LOGS, Priority::Live, SHORT).await {
                    sleep(wait).await;
                }
            }
            sleep(self.gate.steady_gap().saturating_sub(began.elapsed())).await;
        }
    }

    async fn backfill(&self, hours: std::ops::Range<u32>) {
        sleep(HOUR * hours.start).await;
        while self.began.elapsed() < HOUR * hours.end {
            if let Err(wait) = self.request(LOGS, Priority::Backfill, SHORT).await {
                sleep(wait).await;
            }
        }
    }

    async fn others(&self, limits: RateLimits, percent: u32) {
        use RateBucket as B;
        loop {
            for bucket in [B::Logs, B::User, B::Users, B::Groups, B::Apps] {
                let part = self.draw(u64::from(percent) + 1) * u64::from(limits.of(bucket)) / 100;
                self.model.borrow_mut().others_use(bucket, u32::try_from(part).unwrap());
            }
            sleep(Duration::from_secs(600 + self.draw(3600))).await;
        }
    }
}

/// Plays a day and looks whether Okta had to refuse anything.
fn check(day: Day) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let Day { name, limits, others, offset_s, length, burst, backfill } = day;
    let world = runtime.block_on(LocalSet::new().run_until(async move {
        let rules = RateRules { limits, principal_percent: 50, concurrency: 75, ..RateRules::default() };
        let world = Rc::new(World {
            gate: Gate::new(0.5),
            model: RefCell::new(RateModel::new(rules)),
            seen: RefCell::default(),
            drawn: RefCell::new(0x9e37_79b9_7f4a_7c15),
            began: Instant::now(),
            offset_s,
        });
        let of = |world: &Rc<World>| Rc::clone(world);
        let (live, other, first, second) = (of(&world), of(&world), of(&world), of(&world));
        let mut tasks = vec![
            tokio::task::spawn_local(async move { live.live().await }),
            tokio::task::spawn_local(async move { other.others(limits, others).await }),
        ];
        let again = backfill.clone();
        tasks.push(tokio::task::spawn_local(async move { first.backfill(backfill).await }));
        tasks.push(tokio::task::spawn_local(async move { second.backfill(again).await }));
        while world.began.elapsed() < length {
            sleep(Duration::from_secs(120 + world.draw(1800))).await;
            for _ in 0..=world.draw(burst) {
                let world = of(&world);
                tasks.push(tokio::task::spawn_local(async move { world.event().await }));
            }
            tasks.retain(|task| !task.is_finished());
        }
        // What is left of the last burst.
        sleep(HOUR).await;
        let open = world.seen.borrow().open.values().sum::<u64>();
        assert_eq!(open, 0, "{name}: changes are still waiting");
        tasks.iter().for_each(|task| task.abort());
        world
    }));
    let seen = world.seen.take();
    for (bucket, requests) in &seen.requests {
        let busiest = seen.busiest.iter().filter(|((of, _), _)| of == bucket).map(|(_, count)| *count).max();
        let limit = limits.of(match bucket {
            Bucket::Logs => RateBucket::Logs,
            Bucket::User => RateBucket::User,
            Bucket::Users => RateBucket::Users,
            Bucket::Groups => RateBucket::Groups,
            _ => RateBucket::Apps,
        });
        println!(
            "{name}, {bucket}: {} requests an hour on average, {} in the busiest, of {} that the org grants; 429: {}",
            requests * 3600 / (length + HOUR).as_secs(),
            busiest.unwrap_or_default(),
            limit * 60,
            seen.refused.get(bucket).copied().unwrap_or_default(),
        );
    }
    let longest = seen.waits.iter().map(|(wait, ..)| *wait).max().unwrap_or_default();
    println!("{name}: {} changes, the longest wait {longest:?}; turned away {}", seen.waits.len(), seen.turned_away);
    seen
}

/// Nothing refused, and no change later than those before it take: a window for each share of them, a window for what
/// others' shares used when it came, a little for requests that were slow or lost.
fn check_no_refusal(day: Day) {
    let (limits, name) = (day.limits, day.name);
    let seen = check(day);
    assert_eq!(seen.refused, BTreeMap::new(), "{name}: a 429 of our own making");
    for (wait, bucket, ahead) in seen.waits {
        let limit = match bucket {
            Bucket::Users => limits.users,
            Bucket::Groups => limits.groups,
            _ => limits.apps,
        };
        let windows = u32::try_from(ahead).unwrap() / (limit / 2) + 1;
        let bound = Duration::from_secs(64) * windows + Duration::from_secs(70);
        assert!(wait <= bound, "{name}: a change in {bucket}, with {ahead} before it, waited {wait:?}");
    }
}

fn workforce() -> RateLimits {
    RateLimits::default()
}

#[test]
fn a_day_in_a_workforce_org_has_no_429_of_our_own_making() {
    check_no_refusal(Day {
        name: "workforce",
        limits: workforce(),
        others: 50,
        offset_s: 0,
        length: DAY,
        burst: 120,
        backfill: 3..6,
    });
}

#[test]
fn a_day_in_an_enterprise_org_has_no_429_of_our_own_making() {
    let limits = RateLimits { logs: 50, ..RateLimits::default() };
    let (name, offset_s) = ("enterprise, its clock 37 s ahead", 37);
    check_no_refusal(Day { name, limits, others: 50, offset_s, length: DAY, burst: 60, backfill: 10..14 });
}

#[test]
fn a_day_in_an_integrator_org_has_no_429_of_our_own_making() {
    let limits = RateLimits { logs: 20, ..RateLimits::all(20) };
    let (name, offset_s) = ("integrator, its clock 3 s behind", -3);
    check_no_refusal(Day { name, limits, others: 50, offset_s, length: DAY, burst: 12, backfill: 1..8 });
}

#[test]
fn steady_polling_asks_as_often_as_the_share_allows() {
    let (name, burst) = ("workforce, idle", 1);
    let limits = workforce();
    let seen = check(Day { name, limits, others: 0, offset_s: 0, length: 2 * HOUR, burst, backfill: 0..0 });
    let polls = seen.busiest.get(&(Bucket::Logs, 1)).copied().unwrap_or_default();
    assert!((3000..=3600).contains(&polls), "{polls} polls in an hour, of 7200 that the org grants");
}

#[test]
fn others_who_take_more_than_their_part_are_given_way_to() {
    let limits = RateLimits { logs: 50, ..RateLimits::default() };
    let (name, backfill) = ("enterprise, greedy others", 0..2);
    let seen = check(Day { name, limits, others: 90, offset_s: 0, length: 4 * HOUR, burst: 40, backfill });
    // Whoever is refused then has himself to thank, and that is hardly ever us.
    let refused: u64 = seen.refused.values().sum();
    let requests: u64 = seen.requests.values().sum();
    assert!(refused * 100 < requests, "{refused} of {requests}");
}
