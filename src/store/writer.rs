//! The thread that writes.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::StoreError;
use super::health::{Health, Trouble};
use super::reserve::{self, Reserve};

/// The most jobs that share one commit.
const MAX_GROUP: usize = 256;
/// How many jobs may wait; more make their callers wait, which is the back-pressure on polling.
const MAX_WAITING: usize = 1024;
/// How often it is tried whether the file can be written again.
const PROBE: Duration = Duration::from_secs(1);
/// What a probe writes, in bytes, so that room for a single row does not count as room.
const PROBED: u32 = 256 << 10;

/// A sender to the writer thread. The thread ends when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Writer {
    jobs: mpsc::SyncSender<Box<dyn Job>>,
}

/// One job of a group. `run` happens inside the transaction, `answer` after the commit or its failure.
trait Job: Send {
    fn run(&mut self, connection: &Connection);
    /// On which room.
    fn room(&self) -> Room;
    /// Why it failed, if it did.
    fn failure(&self) -> Option<&StoreError>;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

/// On which room of the disk a job is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// On what is free; many jobs share one commit.
    Free,
    /// On the reserve, alone: a job that takes rows away while the disk is full.
    Reserve,
}

struct Task<T, F> {
    work: Option<F>,
    room: Room,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl Writer {
    pub(super) fn start(connection: Connection, reserve: Option<Reserve>, health: Health) -> Result<Self, StoreError> {
        let (jobs, waiting) = mpsc::sync_channel(MAX_WAITING);
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || write_groups(&connection, reserve, &waiting, &health))
            .map_err(|_| StoreError::Stopped)?;
        Ok(Self { jobs })
    }

    pub(super) async fn run<T, F>(&self, work: F, room: Room) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let mut job: Box<dyn Job> = Box::new(Task { work: Some(work), room, result: None, reply });
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

fn write_groups(
    connection: &Connection,
    mut reserve: Option<Reserve>,
    waiting: &mpsc::Receiver<Box<dyn Job>>,
    health: &Health,
) {
    loop {
        let first = if health.is_troubled() {
            match waiting.recv_timeout(PROBE) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    probe(connection, reserve.as_mut(), health);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        } else {
            match waiting.recv() {
                Ok(job) => job,
                Err(_) => return,
            }
        };
        let mut group = vec![first];
        while group.len() < MAX_GROUP {
            match waiting.try_recv() {
                Ok(job) => group.push(job),
                Err(_) => break,
            }
        }
        let (apart, group) = group.into_iter().partition(|job| job.room() == Room::Reserve && reserve.is_some());
        let (apart, mut group): (Vec<_>, Vec<_>) = (apart, group);
        if !group.is_empty() {
            let committed = commit(connection, reserve.as_mut(), reserve::MARGIN, &mut group);
            let failures = committed.as_ref().err().into_iter().chain(group.iter().filter_map(|job| job.failure()));
            match failures.filter_map(StoreError::trouble).next() {
                Some(trouble) => health.set(Some(trouble)),
                // A job that had nothing to write says nothing about the file.
                None if health.is_troubled() => probe(connection, reserve.as_mut(), health),
                None => {}
            }
            answer(group, &committed);
            if let Some(reserve) = &mut reserve {
                reserve.keep_short(connection);
            }
        }
        for job in apart {
            let Some(reserve) = reserve.as_mut() else { continue };
            let mut alone = vec![job];
            let committed = reserve.lend(connection, |reserve| commit(connection, Some(reserve), 0, &mut alone));
            // A reserve that could not be made again says so; that there was too little of it for this job does not.
            if reserve.is_short() {
                health.set(Some(Trouble::Full));
            }
            answer(alone, &committed);
        }
    }
}

fn answer(jobs: Vec<Box<dyn Job>>, committed: &Result<(), StoreError>) {
    for job in jobs {
        job.answer(committed.as_ref().map_err(StoreError::for_every_job).copied());
    }
}

/// Writes and takes back a row of some size, with the reserve whole. Only this ends a trouble.
fn probe(connection: &Connection, mut reserve: Option<&mut Reserve>, health: &Health) {
    let write = || -> Result<(), StoreError> {
        if let Some(reserve) = reserve.as_mut().filter(|reserve| reserve.is_short()) {
            // The room that it lacks may be that of the log.
            let _ = reserve::cut_log(connection);
            reserve.restore(connection)?;
        }
        transaction(connection, reserve, reserve::MARGIN, || {
            connection.execute(
                "INSERT INTO control (name, value, at) VALUES ('probe', hex(zeroblob(?1)), 0)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                [PROBED / 2],
            )?;
            Ok(())
        })?;
        connection.execute("DELETE FROM control WHERE name = 'probe'", [])?;
        Ok(())
    };
    match write() {
        Ok(()) => health.set(None),
        // An error that does not pass by itself comes up again with the next job, whose caller then knows what to do.
        Err(error) => health.set(error.trouble()),
    }
}

fn commit(
    connection: &Connection,
    reserve: Option<&mut Reserve>,
    margin: u64,
    group: &mut [Box<dyn Job>],
) -> Result<(), StoreError> {
    transaction(connection, reserve, margin, || {
        for job in group {
            job.run(connection);
            if connection.is_autocommit() {
                // A full disk makes SQLite roll the whole transaction back. Going on would commit each later job by itself.
                return Err(job.failure().map_or(StoreError::Full, StoreError::for_every_job));
            }
        }
        Ok(())
    })
}

/// Commits `work` if the reserve covers it.
fn transaction(
    connection: &Connection,
    reserve: Option<&mut Reserve>,
    margin: u64,
    work: impl FnOnce() -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let covered = work().and_then(|()| reserve.map_or(Ok(()), |reserve| reserve.cover(connection, margin)));
    let done = covered.and_then(|()| Ok(connection.execute_batch("COMMIT")?));
    done.inspect_err(|_| {
        // After a failed commit SQLite may have left the transaction open.
        if !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK");
        }
    })
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

    fn room(&self) -> Room {
        self.room
    }

    fn failure(&self) -> Option<&StoreError> {
        self.result.as_ref()?.as_ref().err()
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
    if connection.is_autocommit() {
        // SQLite has rolled everything back already, the savepoint with it.
        return result;
    }
    let end = if result.is_ok() { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" };
    connection.execute_batch(end)?;
    result
}
