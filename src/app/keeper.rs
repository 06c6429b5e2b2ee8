//! The state file around the work: how it was left, whether it is whole, whether it can be written.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error, info, warn};

use super::{Signal, stopped};
use crate::engine::clock::Clock;
use crate::store::{InstanceLock, LastStop, Restored, Store, StoreError};
use crate::telemetry::systemd;

/// The shortest pause before something is tried again with a file that could not be used.
const PAUSE: Duration = Duration::from_millis(500);

/// A check that goes on beside the work, until this is dropped.
pub(super) type Check = Option<AbortOnDropHandle<()>>;

/// The first look at how the file was left. A file that was not left in order is checked from here on, and `damaged` is rung
/// when it is not whole; one that is known to be damaged is checked before this returns. `Ok(None)` when the daemon is told
/// to stop meanwhile.
///
/// # Errors
/// [`StoreError::Corrupt`] when the file is still damaged, or why it cannot be used.
pub(super) async fn begin(
    store: &Store,
    clock: Clock,
    damaged: &CancellationToken,
    signals: &mut mpsc::Receiver<Signal>,
) -> Result<Option<Check>, StoreError> {
    let Some((last, restored)) = patiently(store, signals, || store.begin_work(clock.now())).await? else {
        return Ok(None);
    };
    if let Some(Restored { copied_at }) = restored {
        warn!(
            %copied_at,
            "the state file is a copy that was put in place: the log is read again from where the copy stands, what was \
             done since is looked up at the services, and messages that may have been sent since are in doubt"
        );
    }
    match last {
        LastStop::InOrder => Ok(Some(None)),
        LastStop::Otherwise => {
            info!("the last stop was not in order: the state file is checked beside the work");
            let (store, damaged) = (store.clone(), damaged.clone());
            let checking = tokio::spawn(async move {
                if let Ok(false) = is_whole(&store, clock).await {
                    damaged.cancel();
                }
            });
            Ok(Some(Some(AbortOnDropHandle::new(checking))))
        }
        LastStop::Damaged => {
            info!("the state file was found damaged before: it is checked before anything is done with it");
            tokio::select! {
                whole = is_whole(store, clock) => if whole? { Ok(Some(None)) } else { Err(StoreError::Corrupt) },
                () = stopped(signals) => Ok(None),
            }
        }
    }
}

/// The last word: how the file is left. What cannot be written is no harm: the next start checks the file then.
pub(super) async fn end(store: &Store, now: Timestamp, in_order: bool, damaged: bool) {
    let written = match (in_order, damaged) {
        (true, _) => store.end_work(now).await,
        (false, true) => store.note_damage(true, now).await,
        (false, false) => Ok(()),
    };
    if let Err(error) = written {
        info!("the state file could not be marked, so the next start checks it: {error}");
    }
}

/// Does something with the state file, as soon as it can be written. `None` when the daemon is told to stop meanwhile.
pub(super) async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(
    store: &Store,
    signals: &mut mpsc::Receiver<Signal>,
    job: impl Fn() -> F,
) -> Result<Option<T>, StoreError> {
    loop {
        match job().await {
            Err(error) if error.may_pass() => {}
            done => return done.map(Some),
        }
        // A pause even if it is over at once: this may have failed in a way that the probe does not see.
        let again = async {
            tokio::time::sleep(PAUSE).await;
            let _ = store.trouble().wait_for(Option::is_none).await;
        };
        tokio::select! {
            () = again => {}
            () = stopped(signals) => return Ok(None),
        }
    }
}

/// Says once, when it changes, what keeps the state file from being written: in the log, to systemd, and in the lock file,
/// where `status` finds it.
pub(super) fn watch_trouble(store: Store, lock: Arc<InstanceLock>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut trouble = store.trouble();
        while trouble.changed().await.is_ok() {
            let words = trouble.borrow_and_update().map(|trouble| trouble.to_string());
            match &words {
                Some(words) => {
                    warn!("no new work is taken on: {words}");
                    systemd::status(&format!("taking on no work: {words}"));
                }
                None => {
                    info!("the state file can be written again: work goes on");
                    systemd::status("the state file can be written again");
                }
            }
            if let Err(error) = lock.note(words.as_deref()) {
                debug!("the lock file could not be written: {error}");
            }
        }
    }))
}

/// Checks the whole file and tells what is wrong with it.
async fn is_whole(store: &Store, clock: Clock) -> Result<bool, StoreError> {
    let began = clock.elapsed();
    let found =
        store.check_integrity().await.inspect_err(|error| warn!("the state file could not be checked: {error}"))?;
    if found.is_empty() {
        let took_ms = clock.elapsed().saturating_sub(began).as_millis() as u64;
        info!(took_ms, "the state file is whole");
        if let Err(error) = store.note_damage(false, clock.now()).await {
            debug!("a mark of damage, if there is one, stays: {error}");
        }
    }
    for finding in &found {
        error!("damage in the state file: {finding}");
    }
    Ok(found.is_empty())
}
