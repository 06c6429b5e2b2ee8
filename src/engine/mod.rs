//! The tasks that tie the pure parts to IO.
//!
//! Poller → inbox → Decider → ledger → Dispatcher → connectors. Each task wakes the next one, and each also looks by
//! itself now and then, so that a restart, a lost wake-up and a person's command all take the same path.

pub mod clock;
mod decide;
mod delayed;
mod dispatch;
mod gather;
mod housekeep;
pub mod intake;
pub mod outcome;
mod poll;
pub(crate) mod prepare;
pub mod pulse;
mod rates;
mod reach;
pub mod retry;
pub mod revert;
mod standing;
mod survive;
#[cfg(test)]
mod testing;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use thiserror::Error;
use tokio::sync::Notify;

use crate::config::values::{Interval, StartFrom};
use crate::config::{Config, RiskConfig, RiskSource};
use crate::connectors::Registry;
use crate::guard::Guard;
use crate::okta::client::OktaClient;
use crate::okta::logs::filter_for;
use crate::playbook::Playbook;
use crate::playbook::facts::{Fact, LinkBase};
use crate::store::{Keep, Store, StoreError};
use clock::Clock;
use pulse::Pulse;
use reach::Reach;
use retry::Schedule;

pub use decide::Decider;
pub use dispatch::Dispatcher;
pub use housekeep::Housekeeper;
pub use poll::Poller;

/// The longest pause that something outside can ask for, with room to spare: `Retry-After` is bounded to an hour.
const LONGEST_PAUSE: Duration = Duration::from_secs(2 * 3600);
/// How long a task waits before it looks again whether the state file can be written. Its signs of life go on.
const TROUBLED: Duration = Duration::from_secs(1);

/// What every task shares.
pub struct Engine {
    /// The shell's clock.
    pub clock: Clock,
    /// The state file.
    pub store: Store,
    /// The org.
    pub okta: Arc<OktaClient>,
    /// The compiled playbooks, in file order.
    pub playbooks: Vec<Playbook>,
    /// Actions by name.
    pub connectors: Registry,
    /// What is never done.
    pub guard: Arc<Guard>,
    /// Where links in messages lead.
    pub links: LinkBase,
    /// The settings that tasks read.
    pub settings: Settings,
    /// Event types that are stored.
    pub wanted: BTreeSet<String>,
    /// Rung when events were stored.
    pub stored: Notify,
    /// Rung when actions were planned, or may go on.
    pub planned: Notify,
    /// Signs of life.
    pub pulse: Pulse,
    /// Which services can be reached.
    pub reach: Reach,
    filter_refused: AtomicBool,
    rates_told: rates::Told,
    /// Milliseconds of [`Engine::log_is_read_up_to`]; the least number before the first time.
    log_read: AtomicI64,
}

/// The settings that tasks read.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the first start begins.
    pub start_from: StartFrom,
    /// The pace of polling.
    pub interval: Interval,
    /// How far a restarted stream goes back.
    pub overlap: Duration,
    /// Events per page.
    pub page_size: u32,
    /// The most types in the server-side filter.
    pub max_filter_types: usize,
    /// Where `user_risk` comes from.
    pub risk: RiskConfig,
    /// The linked object that names a manager.
    pub manager_link: String,
    /// Requests under way at once to each service.
    pub concurrency: usize,
    /// Pauses between attempts.
    pub retry: Schedule,
    /// When an action has failed for good.
    pub give_up_after: Duration,
    /// How long a stop waits for requests under way.
    pub drain: Duration,
    /// How long rows are kept.
    pub keep: Keep,
    /// How often old rows are looked for.
    pub prune_every: Duration,
}

impl Settings {
    /// Takes what tasks need from the configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            start_from: config.poll.start_from,
            interval: config.poll.interval,
            overlap: config.poll.overlap,
            page_size: config.poll.page_size,
            max_filter_types: config.poll.max_filter_types,
            risk: config.risk.clone(),
            manager_link: config.okta.manager_link.clone(),
            concurrency: config.dispatch.concurrency,
            retry: Schedule { initial: config.dispatch.retry_initial, max: config.dispatch.retry_max },
            give_up_after: config.dispatch.give_up_after,
            drain: config.dispatch.drain,
            keep: config.state.keep(),
            prune_every: config.state.prune_every,
        }
    }
}

/// The parts an [`Engine`] is made of.
pub struct Parts {
    /// The shell's clock.
    pub clock: Clock,
    /// The state file.
    pub store: Store,
    /// The org.
    pub okta: Arc<OktaClient>,
    /// The compiled playbooks.
    pub playbooks: Vec<Playbook>,
    /// Actions by name.
    pub connectors: Registry,
    /// What is never done.
    pub guard: Guard,
    /// Where links in messages lead.
    pub links: LinkBase,
    /// The settings that tasks read.
    pub settings: Settings,
}

impl Engine {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        let wanted = wanted_types(&parts.playbooks, &parts.settings.risk);
        let guard = Arc::new(parts.guard.over(&parts.playbooks));
        let pulse = Pulse::new(parts.clock, parts.store.trouble());
        Self {
            clock: parts.clock,
            store: parts.store,
            okta: parts.okta,
            playbooks: parts.playbooks,
            connectors: parts.connectors,
            guard,
            links: parts.links,
            settings: parts.settings,
            wanted,
            stored: Notify::new(),
            planned: Notify::new(),
            pulse,
            reach: Reach::default(),
            filter_refused: AtomicBool::new(false),
            rates_told: rates::Told::default(),
            log_read: AtomicI64::new(i64::MIN),
        }
    }

    /// The filter that Okta applies, or nothing when there are too many types or Okta refused it: then everything is read
    /// and sorted here.
    pub fn server_filter(&self) -> String {
        if self.filter_refused.load(Ordering::Relaxed) {
            return String::new();
        }
        filter_for(&self.wanted, self.settings.max_filter_types).unwrap_or_default()
    }

    /// Tells for a kind of action how long its service may still be at work on a request that nobody waits for any more.
    pub(crate) fn patience(&self) -> impl Fn(&str) -> Duration + Send + use<> {
        let connectors = self.connectors.clone();
        move |kind| connectors.get(kind).map(|connector| connector.patience()).unwrap_or_default()
    }

    /// Puts right what a clock that ran ahead has put off too far.
    pub(crate) async fn pull_back(&self) -> Result<usize, StoreError> {
        let waits = self.playbooks.iter().flat_map(|playbook| &playbook.steps).filter_map(|step| step.wait);
        let longest_wait = waits.max().unwrap_or_default();
        // Twice, because pauses have jitter.
        let longest = LONGEST_PAUSE.max(self.settings.retry.max.saturating_mul(2));
        self.store.pull_back(self.clock.now(), longest, longest_wait).await
    }

    /// Whether the state file can be written, as far as is known. While it cannot, this waits a moment first; no new work is
    /// taken on meanwhile, so that nobody is asked for what could not be stored.
    pub(crate) async fn may_take_work(&self) -> bool {
        let mut trouble = self.store.trouble();
        if trouble.borrow().is_none() {
            return true;
        }
        tokio::time::timeout(TROUBLED, trouble.wait_for(Option::is_none)).await.is_ok()
    }

    /// Up to which moment by our clock this process has read the live stream: when it asked for the last page that was not
    /// full. `None` as long as there was none.
    pub(crate) fn log_is_read_up_to(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.log_read.load(Ordering::Relaxed)).ok()
    }

    /// The live stream was read to its end, by a page that was asked for at `elapsed` since the process began.
    pub(crate) fn log_is_read(&self, elapsed: Duration) {
        let ago = SignedDuration::try_from(self.clock.elapsed().saturating_sub(elapsed)).unwrap_or_default();
        if let Ok(asked) = self.clock.now().checked_sub(ago) {
            self.log_read.store(asked.as_millisecond(), Ordering::Relaxed);
        }
    }

    fn refuse_server_filter(&self) {
        self.filter_refused.store(true, Ordering::Relaxed);
    }
}

/// The event types that some playbook wants, those that some condition asks the past for (they start no run by themselves),
/// and those that tell a risk when the ledger is asked for it.
pub fn wanted_types(playbooks: &[Playbook], risk: &RiskConfig) -> BTreeSet<String> {
    let mut wanted: BTreeSet<String> =
        playbooks.iter().flat_map(|playbook| playbook.event_types()).map(str::to_owned).collect();
    let asked = playbooks.iter().flat_map(Playbook::questions);
    let asked_later = playbooks.iter().flat_map(Playbook::questions_asked_later);
    wanted.extend(asked.chain(asked_later).flat_map(|question| question.types.iter().cloned()));
    let risk_is_asked_for = playbooks.iter().any(|playbook| playbook.facts_named().contains(Fact::UserRisk));
    if risk.source == RiskSource::Ledger && risk_is_asked_for {
        wanted.extend(["user.risk.detect", "user.risk.change"].map(str::to_owned));
    }
    wanted
}

/// Why a task cannot go on; the daemon stops then, so that systemd starts it anew.
#[derive(Debug, Error)]
pub enum TaskError {
    /// The state file cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something that was just written is not there.
    #[error("{0} is gone from the state file")]
    Gone(&'static str),
}
