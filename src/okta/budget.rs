//! What an org's rate limits grant to this daemon, and who goes next. Pure: the shell around it is [`super::gate`].
//!
//! Every request of every task asks here first. Each bucket has its own [`Meter`], and all of them share the places of one
//! [`Crowd`]. Whoever has to wait is let go by priority, and within a priority in the order of asking.
//!
//! Remediation stays within the share as everything else does. It does not wait for anybody's enrichment all the same: it is
//! first in line, and a part of the share is kept that enrichment and backfills cannot take.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::bucket::{Bucket, Priority};
use super::crowd::Crowd;
use super::meter::{Meter, Opens};
use super::rate::{MIN_GAP, RateHeaders, WINDOW, Wait, wait_after_429};

/// The most requests turned away whose return is reckoned with.
const MAX_PROMISES: usize = 1000;

/// The longest that somebody who is turned away stays away. What is granted can change long before the turn that was
/// reckoned for him: a single answer with a limit of 1, from whoever stands in between, must not put changes off by hours,
/// nor past the time for which they are tried.
const LONGEST_AWAY: Duration = WINDOW.saturating_mul(5);

/// A request that waits or is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// One org's budget. `now` is the time since any fixed start, by a clock that never goes back.
#[derive(Debug, Clone)]
pub struct Budget {
    share: f64,
    lines: BTreeMap<Bucket, Line>,
    crowd: Crowd,
    /// Who waits, in the order in which they go.
    waiting: BTreeMap<(Priority, Ticket), Bucket>,
    under_way: BTreeMap<Ticket, Flight>,
    /// Who waits without standing in line, because he looks for himself when there is room.
    aside: BTreeMap<Bucket, usize>,
    next: u64,
    changes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    bucket: Bucket,
    priority: Priority,
    sent: Duration,
}

/// A bucket and what is told of it.
#[derive(Debug, Clone)]
struct Line {
    meter: Meter,
    /// When those who were turned away come back.
    promises: Vec<(Duration, Priority)>,
    requests: u64,
    refused: Refusals,
    crowded: Refusals,
}

#[derive(Debug, Clone, Copy, Default)]
struct Refusals {
    count: u64,
    last: Option<Duration>,
}

impl Refusals {
    fn note(&mut self, now: Duration) {
        self.count += 1;
        self.last = Some(now);
    }
}

/// What came back for a request.
#[derive(Debug, Clone, Copy)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The rate headers.
    pub headers: Option<RateHeaders>,
    /// Okta's clock.
    pub date: Option<Timestamp>,
}

/// A bucket as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketSnapshot {
    /// Which.
    pub bucket: Bucket,
    /// Requests per minute that are granted to everybody; `None` before it was heard.
    pub limit: Option<u32>,
    /// Requests per minute that are ours.
    pub share: Option<u32>,
    /// Requests of ours in the last minute, with those under way.
    pub used: usize,
    /// What is left of Okta's minute as it was heard last; `None` when that minute is over.
    pub remaining: Option<u32>,
    /// How long that minute still lasts.
    pub resets_in: Option<Duration>,
    /// Requests that wait for their turn.
    pub waiting: usize,
    /// Requests since the start.
    pub requests: u64,
    /// 429s since the start, because the bucket was used up.
    pub refused: u64,
    /// How long ago the last one was.
    pub refused_ago: Option<Duration>,
    /// 429s since the start, because too many requests of the org were under way at once.
    pub crowded: u64,
    /// How long ago the last one was.
    pub crowded_ago: Option<Duration>,
}

impl Budget {
    /// A budget that takes `share` (above 0, at most 1) of what the headers will grant.
    pub fn new(share: f64) -> Self {
        Self {
            share,
            lines: BTreeMap::new(),
            crowd: Crowd::new(share),
            waiting: BTreeMap::new(),
            under_way: BTreeMap::new(),
            aside: BTreeMap::new(),
            next: 0,
            changes: 0,
        }
    }

    /// Takes another share from now on.
    pub fn set_share(&mut self, share: f64) {
        if share.to_bits() != self.share.to_bits() {
            self.share = share;
            self.changes += 1;
            self.crowd = Crowd::new(share);
            self.lines.values_mut().for_each(|line| line.meter.set_share(share));
        }
    }

    /// Somebody waits for room without getting in line. It is told, and holds nobody up.
    pub fn step_aside(&mut self, bucket: Bucket) {
        *self.aside.entry(bucket).or_default() += 1;
        self.changes += 1;
    }

    /// Somebody who stepped aside does not wait any more.
    pub fn step_back(&mut self, bucket: Bucket) {
        if let Some(waiting) = self.aside.get_mut(&bucket) {
            *waiting = waiting.saturating_sub(1);
        }
        self.changes += 1;
    }

    /// Somebody wants to ask Okta for something and gets in line.
    pub fn ask(&mut self, bucket: Bucket, priority: Priority) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.line(bucket);
        self.waiting.insert((priority, ticket), bucket);
        ticket
    }

    /// Lets everybody go who may; says how many those are.
    pub fn release(&mut self, now: Duration) -> usize {
        let mut gone = Vec::new();
        let mut closed: Vec<Bucket> = Vec::new();
        for (&(priority, ticket), &bucket) in &self.waiting {
            // Who may not go holds back everybody behind him, who matters less and has more to leave.
            if closed.contains(&bucket) {
                continue;
            }
            if !self.crowd.has_room(now, self.under_way.len(), priority) {
                break;
            }
            let Some(line) = self.lines.get_mut(&bucket) else { continue };
            if !matches!(line.meter.opens(now, priority, 0), Opens::At(at) if at <= now) {
                closed.push(bucket);
                continue;
            }
            line.meter.sent(now, priority);
            line.requests += 1;
            self.changes += 1;
            self.under_way.insert(ticket, Flight { bucket, priority, sent: now });
            gone.push((priority, ticket));
        }
        self.waiting.retain(|key, _| !gone.contains(key));
        gone.len()
    }

    /// Whether this request may leave, or has left.
    pub fn is_let_go(&self, ticket: Ticket) -> bool {
        self.under_way.contains_key(&ticket)
    }

    /// How long to wait before the next look; `None` when only an answer, or somebody's leaving the line, can change
    /// anything.
    pub fn next_look(&self, now: Duration, bucket: Bucket, priority: Priority) -> Option<Duration> {
        let rest = self.crowd.rest_until().saturating_sub(now);
        let opens = match self.lines.get(&bucket).map(|line| line.meter.opens(now, priority, 0)) {
            Some(Opens::At(at)) => at.saturating_sub(now),
            Some(Opens::WhenAnswered) => return Some(rest).filter(|rest| !rest.is_zero()),
            None => Duration::ZERO,
        };
        Some(opens.max(rest)).filter(|wait| !wait.is_zero())
    }

    /// How long a request that asks now would have to wait, behind those who wait already and those who were told to come
    /// back. An estimate: what others use is not known.
    pub fn estimate(&self, now: Duration, bucket: Bucket, priority: Priority) -> Duration {
        let before = |key: &(Priority, Ticket)| key.0 <= priority;
        let waiting = self.waiting.iter().filter(|(key, of)| **of == bucket && before(key)).count();
        self.opens_in(now, bucket, priority, waiting)
    }

    /// Leaves the line without having gone. Says when to come back, within minutes: everybody who is turned away is told
    /// another time, so that they do not all come at once.
    pub fn turn_away(&mut self, ticket: Ticket, now: Duration) -> Duration {
        let Some((&key, &bucket)) = self.waiting.iter().find(|(key, _)| key.1 == ticket) else { return MIN_GAP };
        let ahead = self.waiting.range(..key).filter(|(_, of)| **of == bucket).count();
        self.waiting.remove(&key);
        let wait = self.opens_in(now, bucket, key.0, ahead).clamp(MIN_GAP, LONGEST_AWAY);
        let line = self.line(bucket);
        line.promises.retain(|(at, _)| *at > now);
        if line.promises.len() < MAX_PROMISES {
            line.promises.push((now.saturating_add(wait), key.0));
        }
        wait
    }

    /// A request will not leave, whether it still waits or was let go.
    pub fn withdraw(&mut self, ticket: Ticket) {
        self.waiting.retain(|key, _| key.1 != ticket);
        if let Some(Flight { bucket, priority, .. }) = self.under_way.remove(&ticket) {
            let line = self.line(bucket);
            line.meter.unsent(priority);
            line.requests = line.requests.saturating_sub(1);
        }
    }

    /// A request is over. `None`: no answer came, or nobody waited for it any more.
    pub fn over(&mut self, ticket: Ticket, reply: Option<Reply>, now: Duration) {
        let Some(Flight { bucket, priority, sent }) = self.under_way.remove(&ticket) else { return };
        self.changes += 1;
        let line = self.line(bucket);
        match reply {
            Some(Reply { headers: Some(headers), date: Some(date), .. }) => {
                line.meter.answered(now, priority, &headers, date);
            }
            _ => line.meter.lost(now, priority),
        }
        match reply {
            Some(Reply { status: 429, headers, date }) => match wait_after_429(headers.as_ref(), date) {
                Wait::Until(wait) => {
                    line.refused.note(now);
                    line.meter.close(now.saturating_add(wait));
                }
                Wait::Concurrency => {
                    line.crowded.note(now);
                    self.crowd.refused(now, sent);
                }
            },
            Some(_) => self.crowd.let_in(now, sent),
            None => {}
        }
    }

    /// How far apart polls of the live stream are that have nothing to catch up with: spread over the window. While a
    /// backfill reads, half of the share is left to it.
    pub fn steady_gap(&self, now: Duration) -> Duration {
        let Some(meter) = self.lines.get(&Bucket::Logs).map(|line| &line.meter) else { return MIN_GAP };
        let Some(allowance) = meter.allowance(now) else { return MIN_GAP };
        let wanted = |key: &(Priority, Ticket)| key.0 == Priority::Backfill;
        let contended = meter.sees(now, Priority::Backfill) || self.waiting.keys().any(wanted);
        let ours = if contended { (allowance / 2).max(1) } else { allowance };
        MIN_GAP.max(WINDOW / ours)
    }

    /// Grows whenever a snapshot would tell something new.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Requests that may be under way at once.
    pub fn at_once(&self) -> u32 {
        self.crowd.at_once()
    }

    /// The buckets that were ever asked, as they stand.
    pub fn snapshot(&self, now: Duration) -> Vec<BucketSnapshot> {
        let of = |(bucket, line): (&Bucket, &Line)| {
            let Line { meter, requests, refused, crowded, .. } = line;
            let left = meter.remaining(now);
            let ago = |refusals: &Refusals| refusals.last.map(|at| now.saturating_sub(at));
            BucketSnapshot {
                bucket: *bucket,
                limit: meter.limit_at(now),
                share: meter.allowance(now),
                used: meter.used(now),
                remaining: left.map(|(remaining, _)| remaining),
                resets_in: left.map(|(_, resets_in)| resets_in),
                waiting: self.waiting.values().filter(|of| *of == bucket).count()
                    + self.aside.get(bucket).copied().unwrap_or_default(),
                requests: *requests,
                refused: refused.count,
                refused_ago: ago(refused),
                crowded: crowded.count,
                crowded_ago: ago(crowded),
            }
        };
        self.lines.iter().map(of).collect()
    }

    fn opens_in(&self, now: Duration, bucket: Bucket, priority: Priority, waiting: usize) -> Duration {
        let rest = self.crowd.rest_until().saturating_sub(now);
        let Some(line) = self.lines.get(&bucket) else { return rest };
        let promised = line.promises.iter().filter(|(at, of)| *at > now && *of <= priority).count();
        match line.meter.opens(now, priority, waiting.saturating_add(promised)) {
            Opens::At(at) => at.saturating_sub(now).max(rest),
            Opens::WhenAnswered => rest,
        }
    }

    fn line(&mut self, bucket: Bucket) -> &mut Line {
        let share = self.share;
        self.lines.entry(bucket).or_insert_with(|| Line {
            meter: Meter::new(bucket, share),
            promises: Vec::new(),
            requests: 0,
            refused: Refusals::default(),
            crowded: Refusals::default(),
        })
    }
}

#[cfg(test)]
mod tests;
