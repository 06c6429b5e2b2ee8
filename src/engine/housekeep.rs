//! The task that keeps the state file small and tells the journal's head to the log of the host.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::retry::Schedule;
use super::{Engine, TaskError};
use crate::store::{Pruned, StoreError, Trouble, hex};

/// The first look comes this long after the start, so that a start has the disk for itself.
const FIRST: Duration = Duration::from_secs(300);
/// How long a full disk waits for the next look.
const FULL: Duration = Duration::from_secs(60);
/// How often the journal's head is told.
const TELL: Duration = Duration::from_secs(24 * 3600);
/// How far ahead of Okta's last page our clock may be before that is worth a word.
const AHEAD: SignedDuration = SignedDuration::from_hours(24);

/// The task that prunes.
pub struct Housekeeper {
    engine: Arc<Engine>,
    stop: CancellationToken,
    /// When the head was last told.
    told: Option<Duration>,
}

impl Housekeeper {
    /// A housekeeper that runs until `stop`.
    pub fn new(engine: Arc<Engine>, stop: CancellationToken) -> Self {
        Self { engine, stop, told: None }
    }

    /// Prunes now and then, and soon when the disk is full: taking rows away makes room.
    pub async fn run(mut self) -> Result<(), TaskError> {
        let every = self.engine.settings.prune_every;
        let mut trouble = self.engine.store.trouble();
        let mut pause = every.min(FIRST);
        for round in 1_u32.. {
            // Several daemons on one host do not come at the same time.
            let seed = format!("{} {}", std::process::id(), self.engine.links.org_url);
            let jittered = Schedule { initial: pause, max: pause }.pause(round, &seed);
            tokio::select! {
                () = tokio::time::sleep(jittered) => {}
                () = full(&mut trouble) => {}
                () = self.stop.cancelled() => return Ok(()),
            }
            pause = every;
            match self.look_after().await {
                Err(error) if error.may_pass() => warn!("old rows stay for now: {error}"),
                result => result?,
            }
        }
        Ok(())
    }

    async fn look_after(&mut self) -> Result<(), StoreError> {
        let engine = Arc::clone(&self.engine);
        let now = engine.clock.now();
        let pruned = tokio::select! {
            pruned = engine.store.prune(engine.settings.keep, now) => pruned?,
            // What is not taken away now is taken away another time.
            () = self.stop.cancelled() => return Ok(()),
        };
        tell(&pruned, now);
        let elapsed = engine.clock.elapsed();
        if self.told.is_none_or(|told| elapsed.saturating_sub(told) >= TELL) {
            let head = engine.store.journal_head().await?;
            info!(
                journal.seq = head.seq,
                journal.head = hex(&head.hash),
                "the journal's head; whoever keeps this line can tell later whether the journal was changed"
            );
            self.told = Some(elapsed);
        }
        Ok(())
    }
}

/// Ends when the disk has been full for a while.
async fn full(trouble: &mut watch::Receiver<Option<Trouble>>) {
    // Without a store there is nothing to wait for; whoever has it ends with it.
    if trouble.wait_for(|trouble| *trouble == Some(Trouble::Full)).await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(FULL).await;
}

fn tell(pruned: &Pruned, now: Timestamp) {
    if let Some(by) = pruned.by.filter(|by| now.duration_since(*by) > AHEAD) {
        warn!(
            %now,
            %by,
            "this host's clock is far ahead of Okta's last page: old rows are told by that page's date, not by the clock"
        );
    }
    if pruned.is_empty() {
        debug!("nothing is old enough to be pruned");
        return;
    }
    info!(
        bodies = pruned.bodies,
        quarantined = pruned.quarantined,
        runs = pruned.runs,
        events = pruned.events,
        keys = pruned.keys,
        journal = pruned.journal,
        pages = pruned.pages,
        "old rows are pruned"
    );
}
