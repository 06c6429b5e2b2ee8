//! Signs of life: what systemd's watchdog and status line are told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::clock::Clock;

/// The tasks that have to tick for the daemon to count as alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// The decider looked for events.
    Decider,
    /// The dispatcher looked for actions.
    Dispatcher,
}

/// What the tasks show of themselves.
#[derive(Debug)]
pub struct Pulse {
    clock: Clock,
    decider: AtomicU64,
    dispatcher: AtomicU64,
    polled: AtomicU64,
    ready: AtomicBool,
    became_ready: Notify,
    problem: Mutex<Option<String>>,
}

impl Pulse {
    /// Nothing has happened yet.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            decider: AtomicU64::new(0),
            dispatcher: AtomicU64::new(0),
            polled: AtomicU64::new(0),
            ready: AtomicBool::new(false),
            became_ready: Notify::new(),
            problem: Mutex::new(None),
        }
    }

    /// A task went round.
    pub fn tick(&self, beat: Beat) {
        let cell = match beat {
            Beat::Decider => &self.decider,
            Beat::Dispatcher => &self.dispatcher,
        };
        cell.store(self.millis(), Ordering::Relaxed);
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
        if let Some(problem) = self.problem.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            return format!("not reading the log: {problem}").chars().take(200).collect();
        }
        let ago = self.age(&self.polled);
        format!("last page stored {} s ago", ago.as_secs())
    }

    /// Whether decider and dispatcher both went round within `bound`.
    pub fn alive(&self, bound: Duration) -> bool {
        self.age(&self.decider) <= bound && self.age(&self.dispatcher) <= bound
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn age(&self, cell: &AtomicU64) -> Duration {
        Duration::from_millis(self.millis().saturating_sub(cell.load(Ordering::Relaxed)))
    }
}
