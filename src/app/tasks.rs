//! The tasks of one engine, each by its name.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::Work;
use crate::engine::pulse::Beat;
use crate::engine::{Decider, Dispatcher, Engine, Housekeeper, Poller, TaskError};
use crate::model::ids::StreamId;

/// Backfills that are read at once.
const BACKFILLS: usize = 2;
/// How often new backfills are looked for, and how often a command that waits for the end looks whether it has come.
const LOOK: Duration = Duration::from_millis(500);

/// The names of the tasks, for errors and the log.
const POLLER: &str = "poller";
const BACKFILLER: &str = "backfiller";
const DECIDER: &str = "decider";
const DISPATCHER: &str = "dispatcher";
const HOUSEKEEPER: &str = "housekeeper";

/// Each ends with its name.
pub(super) type Tasks = JoinSet<(&'static str, Result<(), TaskError>)>;

/// Starts what the work takes; all of it ends by `stop`.
pub(super) fn start(engine: &Arc<Engine>, work: Work, stop: &CancellationToken) -> Tasks {
    let mut tasks = Tasks::new();
    let (decider, dispatcher) =
        (Decider::new(Arc::clone(engine), stop.clone()), Dispatcher::new(Arc::clone(engine), stop.clone()));
    tasks.spawn(async move { (DECIDER, decider.run().await) });
    tasks.spawn(async move { (DISPATCHER, dispatcher.run().await) });
    let (e, s) = (Arc::clone(engine), stop.clone());
    match work {
        Work::Daemon => {
            tasks.spawn(async move { (POLLER, live(e, s.child_token()).await) });
            let (e, s) = (Arc::clone(engine), stop.clone());
            tasks.spawn(async move { (BACKFILLER, backfills(e, s, None).await) });
            let housekeeper = Housekeeper::new(Arc::clone(engine), stop.clone());
            tasks.spawn(async move { (HOUSEKEEPER, housekeeper.run().await) });
        }
        Work::Backfill(id) => {
            tasks.spawn(async move { (BACKFILLER, backfills(e, s, Some(id)).await) });
        }
    }
    tasks
}

async fn live(engine: Arc<Engine>, stop: CancellationToken) -> Result<(), TaskError> {
    while !stop.is_cancelled() {
        if !engine.may_take_work().await {
            engine.pulse.tick(Beat::Poller);
            continue;
        }
        match Poller::live(Arc::clone(&engine), stop.clone()).await {
            Ok(Some(poller)) => return poller.run().await,
            Ok(None) => break,
            Err(TaskError::Store(error)) if error.may_pass() => {
                debug!("the live stream cannot begin yet: {error}");
                tokio::time::sleep(LOOK).await;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads the backfills that the state file asks for, as they are asked for.
async fn backfills(engine: Arc<Engine>, stop: CancellationToken, only: Option<StreamId>) -> Result<(), TaskError> {
    let mut reading: JoinSet<(StreamId, Result<(), TaskError>)> = JoinSet::new();
    let mut under_way: Vec<StreamId> = Vec::new();
    while !stop.is_cancelled() {
        let active = match engine.store.active_backfills().await {
            Err(error) if error.may_pass() => Vec::new(),
            active => active?,
        };
        for stream in active {
            let ours = only.is_none_or(|only| only == stream.id);
            if ours && !under_way.contains(&stream.id) && under_way.len() < BACKFILLS {
                under_way.push(stream.id);
                let id = stream.id;
                let poller = Poller::backfill(Arc::clone(&engine), stop.child_token(), stream);
                reading.spawn(async move { (id, poller.run().await) });
            }
        }
        tokio::select! {
            Some(done) = reading.join_next() => match done {
                Ok((id, result)) => {
                    under_way.retain(|other| *other != id);
                    result?;
                    engine.stored.notify_one();
                }
                Err(error) => {
                    error!("a backfill failed in itself and begins again where it was: {error}");
                    under_way.clear();
                }
            },
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => {}
        }
    }
    while reading.join_next().await.is_some() {}
    Ok(())
}

/// Ends when the work of a command is through; for the daemon never.
pub(super) async fn through(engine: &Engine, work: Work) {
    let Work::Backfill(id) = work else { return std::future::pending().await };
    loop {
        let ended = matches!(engine.store.stream(id).await, Ok(Some(stream)) if stream.state != crate::store::StreamState::Active);
        if ended && matches!(engine.store.unfinished_of(id).await, Ok(0)) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}
