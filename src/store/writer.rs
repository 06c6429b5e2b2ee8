//! The thread that writes.

use std::sync::mpsc;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::StoreError;

/// The most jobs that share one commit.
const MAX_GROUP: usize = 256;
/// How many jobs may wait; more make their callers wait, which is the back-pressure on polling.
const MAX_WAITING: usize = 1024;

/// A sender to the writer thread. The thread ends when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Writer {
    jobs: mpsc::SyncSender<Box<dyn Job>>,
}

/// One job of a group. `run` happens inside the transaction, `answer` after the commit or its failure.
trait Job: Send {
    fn run(&mut self, connection: &Connection);
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Task<T, F> {
    work: Option<F>,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> Result<Self, StoreError> {
        let (jobs, waiting) = mpsc::sync_channel(MAX_WAITING);
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || write_groups(&connection, &waiting))
            .map_err(|_| StoreError::Stopped)?;
        Ok(Self { jobs })
    }

    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let mut job: Box<dyn Job> = Box::new(Task { work: Some(work), result: None, reply });
        // The queue is almost never full; when it is, waiting for a turn keeps the runtime's threads free.
        while let Err(refused) = self.jobs.try_send(job) {
            match refused {
                mpsc::TrySendError::Full(back) => job = back,
                mpsc::TrySendError::Disconnected(_) => return Err(StoreError::Stopped),
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        answer.await.map_err(|_| StoreError::Stopped)?
    }
}

fn write_groups(connection: &Connection, waiting: &mpsc::Receiver<Box<dyn Job>>) {
    while let Ok(first) = waiting.recv() {
        let mut group = vec![first];
        while group.len() < MAX_GROUP {
            match waiting.try_recv() {
                Ok(job) => group.push(job),
                Err(_) => break,
            }
        }
        let committed = commit(connection, &mut group);
        for job in group {
            job.answer(committed.as_ref().map_err(StoreError::for_every_job).copied());
        }
    }
}

fn commit(connection: &Connection, group: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    for job in group {
        job.run(connection);
        if connection.is_autocommit() {
            // A full disk makes SQLite roll the whole transaction back. Going on would commit each later job by itself.
            return Err(StoreError::Full);
        }
    }
    connection.execute_batch("COMMIT").inspect_err(|_| {
        // After a failed commit SQLite may have left the transaction open.
        if !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK");
        }
    })?;
    Ok(())
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, connection: &Connection) {
        let Some(work) = self.work.take() else { return };
        self.result = Some(in_savepoint(connection, work));
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let result = match committed {
            Ok(()) => self.result.unwrap_or(Err(StoreError::Stopped)),
            Err(error) => Err(error),
        };
        // Nobody waits any more when the caller was cancelled; what is committed stays committed.
        let _ = self.reply.send(result);
    }
}

/// A job that fails leaves nothing behind and does not spoil the others of its group.
fn in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    connection.execute_batch("SAVEPOINT job")?;
    let result = work(connection);
    let end = if result.is_ok() { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" };
    connection.execute_batch(end)?;
    result
}
