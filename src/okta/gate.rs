//! Where requests to Okta wait until the budget lets them go: the shell around [`Budget`], shared by all tasks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::bucket::{Bucket, Priority};
use super::budget::{BucketSnapshot, Budget, Reply, Ticket};

/// One org's budget. Cheap to clone; the clones are one budget.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    budget: Mutex<Budget>,
    /// Rung when somebody may have become free to go.
    changed: Notify,
    /// Tokio's clock, like the timers of those who wait.
    began: Instant,
}

/// How long a request may wait for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// So long; what would take longer is turned away at once.
    AtMost(Duration),
    /// As long as it takes, for whoever holds nothing up meanwhile.
    Endless,
}

/// There is no room soon enough. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TurnedAway {
    /// When to come back.
    pub wait: Duration,
}

/// The budget of an org, for who shows it.
#[derive(Debug, Clone)]
pub struct GateSnapshot {
    /// Its buckets.
    pub buckets: Vec<BucketSnapshot>,
    /// Requests that may be under way at once.
    pub at_once: u32,
    /// Grows whenever there is something new to tell.
    pub changes: u64,
}

impl Gate {
    /// A gate that lets through `share` (above 0, at most 1) of what the headers will grant.
    pub fn new(share: f64) -> Self {
        Self(Arc::new(Inner { budget: Mutex::new(Budget::new(share)), changed: Notify::new(), began: Instant::now() }))
    }

    /// Lets through another share from now on.
    pub fn set_share(&self, share: f64) {
        self.budget().set_share(share);
        self.0.changed.notify_waiters();
    }

    /// Waits for a turn. Dropping the future leaves the line.
    pub async fn pass(&self, bucket: Bucket, priority: Priority, patience: Patience) -> Result<Turn, TurnedAway> {
        let began = self.now();
        let until = match patience {
            Patience::AtMost(most) => Some(began.saturating_add(most)),
            Patience::Endless => None,
        };
        let (ticket, estimate) = {
            let mut budget = self.budget();
            let estimate = budget.estimate(began, bucket, priority);
            (budget.ask(bucket, priority), estimate)
        };
        let turn = Turn { gate: self.clone(), ticket, left: false };
        let mut turned_away = until.is_some_and(|until| began.saturating_add(estimate) > until);
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            changed.as_mut().enable();
            let now = self.now();
            let mut wait = {
                let mut budget = self.budget();
                if budget.release(now) > 0 {
                    self.0.changed.notify_waiters();
                }
                if budget.is_let_go(ticket) {
                    return Ok(turn);
                }
                if turned_away || until.is_some_and(|until| now >= until) {
                    return Err(TurnedAway { wait: budget.turn_away(ticket, now) });
                }
                budget.next_look(now, bucket, priority)
            };
            if let Some(until) = until {
                wait = Some(wait.unwrap_or(Duration::MAX).min(until.saturating_sub(now)));
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
            turned_away = false;
        }
    }

    /// Counts one who waits for room without getting in line, until the answer is dropped.
    pub fn step_aside(&self, bucket: Bucket) -> Aside {
        self.budget().step_aside(bucket);
        Aside { gate: self.clone(), bucket }
    }

    /// How long a request that asks now would have to wait, as far as can be told.
    pub fn opens_in(&self, bucket: Bucket, priority: Priority) -> Duration {
        self.budget().estimate(self.now(), bucket, priority)
    }

    /// See [`Budget::steady_gap`].
    pub fn steady_gap(&self) -> Duration {
        self.budget().steady_gap(self.now())
    }

    /// How things stand.
    pub fn snapshot(&self) -> GateSnapshot {
        let budget = self.budget();
        GateSnapshot { buckets: budget.snapshot(self.now()), at_once: budget.at_once(), changes: budget.changes() }
    }

    /// See [`Budget::changes`].
    pub fn changes(&self) -> u64 {
        self.budget().changes()
    }

    fn now(&self) -> Duration {
        self.0.began.elapsed()
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.0.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to send one request. Dropped before the request has left, it is given back; dropped later, the request counts
/// as one that Okta may have seen.
#[derive(Debug)]
pub struct Turn {
    gate: Gate,
    ticket: Ticket,
    left: bool,
}

impl Turn {
    /// The request leaves now.
    pub fn leaves(&mut self) {
        self.left = true;
    }

    /// No connection came about: the request did not leave after all.
    pub fn stayed(&mut self) {
        self.left = false;
    }

    /// The headers of the answer are in.
    pub fn answered(self, reply: Reply) {
        let now = self.gate.now();
        self.gate.budget().over(self.ticket, Some(reply), now);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        {
            let now = self.gate.now();
            let mut budget = self.gate.budget();
            if self.left { budget.over(self.ticket, None, now) } else { budget.withdraw(self.ticket) }
        }
        self.gate.0.changed.notify_waiters();
    }
}

/// One who waits beside the line.
#[derive(Debug)]
pub struct Aside {
    gate: Gate,
    bucket: Bucket,
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.gate.budget().step_back(self.bucket);
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::okta::rate::RateHeaders;

    use Bucket::Users;
    use Priority::{Enrichment, Remediation};

    const S: Duration = Duration::from_secs(1);

    fn reply(remaining: u32) -> Reply {
        let date = Timestamp::from_second(1_757_607_710).unwrap();
        let headers = RateHeaders { limit: 4, remaining, reset_epoch_s: date.as_second() + 60 };
        Reply { status: 200, headers: Some(headers), date: Some(date) }
    }

    /// A gate that lets two requests a minute through, which it has done.
    async fn used_up() -> Gate {
        let gate = Gate::new(0.5);
        for remaining in [3, 2] {
            let mut pass = gate.pass(Users, Remediation, Patience::Endless).await.unwrap();
            pass.leaves();
            pass.answered(reply(remaining));
        }
        gate
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_no_patience_is_turned_away_at_once_and_who_has_waits_for_the_window() {
        let gate = used_up().await;
        let began = Instant::now();
        let away = gate.pass(Users, Remediation, Patience::AtMost(3 * S)).await.unwrap_err();
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(away.wait >= 60 * S && away.wait <= 62 * S, "{away:?}");
        assert_eq!(gate.snapshot().buckets[0].waiting, 0);
        gate.pass(Users, Remediation, Patience::Endless).await.unwrap();
        assert!(began.elapsed() >= 60 * S && began.elapsed() <= 62 * S, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_let_go_makes_room_for_the_next_when_he_is_answered_lost_or_gone() {
        let gate = Gate::new(0.5);
        for end in 0..3 {
            let mut first = gate.pass(Users, Remediation, Patience::Endless).await.unwrap();
            let waiting = tokio::spawn({
                let gate = gate.clone();
                async move { gate.pass(Users, Enrichment, Patience::Endless).await.map(drop) }
            });
            while gate.snapshot().buckets[0].waiting == 0 {
                tokio::task::yield_now().await;
            }
            let began = Instant::now();
            match end {
                0 => drop(first),
                1 => {
                    first.leaves();
                    drop(first);
                }
                _ => {
                    first.leaves();
                    first.answered(Reply { headers: None, ..reply(0) });
                }
            }
            waiting.await.unwrap().unwrap();
            assert_eq!(began.elapsed(), Duration::ZERO, "{end}");
        }
        // Of those, two have left, and none of the three that waited.
        assert_eq!(gate.snapshot().buckets[0].used, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waiting_leaves_the_line() {
        let gate = used_up().await;
        let waiting = tokio::time::timeout(S, gate.pass(Users, Remediation, Patience::Endless)).await;
        assert!(waiting.is_err());
        let told = gate.snapshot().buckets;
        assert_eq!((told[0].waiting, told[0].used, told[0].requests), (0, 2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_beside_the_line_is_counted_and_holds_nobody_up() {
        let gate = used_up().await;
        let (before, open) = (gate.changes(), gate.opens_in(Users, Remediation));
        let aside = gate.step_aside(Users);
        assert_eq!(gate.snapshot().buckets[0].waiting, 1);
        assert_eq!(gate.opens_in(Users, Remediation), open);
        drop(aside);
        assert_eq!(gate.snapshot().buckets[0].waiting, 0);
        assert!(gate.changes() > before, "a snapshot would have told something new");
    }

    #[tokio::test(start_paused = true)]
    async fn a_larger_share_lets_go_who_waits() {
        let gate = used_up().await;
        let began = Instant::now();
        let (passed, ()) = tokio::join!(gate.pass(Users, Remediation, Patience::Endless), async {
            tokio::time::sleep(S).await;
            gate.set_share(1.0);
        });
        passed.unwrap();
        assert_eq!(began.elapsed(), S);
    }
}
