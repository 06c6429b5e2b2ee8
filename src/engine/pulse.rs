//! Signs of life: what systemd's watchdog and status line are told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::clock::Clock;
use crate::store::Trouble;

/// The tasks that have to tick for the daemon to count as alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// The decider looked for events.
    Decider,
    /// The dispatcher looked for actions.
    Dispatcher,
    /// The poller of the live stream is about to ask, or has an answer.
    Poller,
}

/// What the tasks show of themselves.
#[derive(Debug)]
pub struct Pulse {
    clock: Clock,
    decider: AtomicU64,
    dispatcher: AtomicU64,
    poller: AtomicU64,
    polled: AtomicU64,
    ready: AtomicBool,
    became_ready: Notify,
    problem: Mutex<Option<String>>,
    /// What keeps the state file from being written, so that no new work is taken on.
    trouble: watch::Receiver<Option<Trouble>>,
}

impl Pulse {
    /// Nothing has happened yet.
    pub fn new(clock: Clock, trouble: watch::Receiver<Option<Trouble>>) -> Self {
        Self {
            clock,
            decider: AtomicU64::new(0),
            dispatcher: AtomicU64::new(0),
            poller: AtomicU64::new(0),
            polled: AtomicU64::new(0),
            ready: AtomicBool::new(false),
            became_ready: Notify::new(),
            problem: Mutex::new(None),
            trouble,
        }
    }

    /// A task went round.
    pub fn tick(&self, beat: Beat) {
        self.sleeps(beat, Duration::ZERO);
    }

    /// A task means to be still for a while; it counts as alive until then.
    pub fn sleeps(&self, beat: Beat, pause: Duration) {
        let cell = match beat {
            Beat::Decider => &self.decider,
            Beat::Dispatcher => &self.dispatcher,
            Beat::Poller => &self.poller,
        };
        let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        cell.store(self.millis().saturating_add(pause), Ordering::Relaxed);
    }

    /// A page was stored.
    pub fn polled(&self) {
        self.polled.store(self.millis(), Ordering::Relaxed);
    }

    /// A poll went well; the first one makes the daemon ready.
    pub fn first_poll(&self) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if !self.ready.swap(true, Ordering::SeqCst) {
            self.became_ready.notify_waiters();
        }
    }

    /// Waits for the first good poll.
    pub async fn until_ready(&self) {
        loop {
            let notified = self.became_ready.notified();
            if self.ready.load(Ordering::SeqCst) {
                return;
            }
            notified.await;
        }
    }

    /// What keeps the log from being read.
    pub fn problem(&self, words: &str) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(words.to_owned());
    }

    /// One line for `systemctl status`.
    pub fn status_line(&self) -> String {
        if let Some(trouble) = *self.trouble.borrow() {
            return format!("taking on no work: {trouble}").chars().take(200).collect();
        }
        if let Some(problem) = self.problem.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            return format!("not reading the log: {problem}").chars().take(200).collect();
        }
        let ago = self.age(&self.polled);
        format!("last page stored {} s ago", ago.as_secs())
    }

    /// Whether poller, decider and dispatcher all went round within `bound`. Each of them goes through the store, so a
    /// store that hangs shows as well.
    pub fn alive(&self, bound: Duration) -> bool {
        [&self.poller, &self.decider, &self.dispatcher].into_iter().all(|cell| self.age(cell) <= bound)
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn age(&self, cell: &AtomicU64) -> Duration {
        Duration::from_millis(self.millis().saturating_sub(cell.load(Ordering::Relaxed)))
    }
}
