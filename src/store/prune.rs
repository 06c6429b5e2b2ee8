//! Pruning: what is old enough goes, a little at a time; what keeps a thing from being done twice stays longest.
//!
//! Rows are looked for on a connection of its own and taken away by the writer in short jobs, each of which asks again
//! whether the rows may go. The age of a row is told by the later of our clock and Okta's, and *now* is the earlier of
//! the two: a clock of ours that has jumped, either way, takes nothing away too early.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, params};
use serde::Serialize;
use serde_json::Value;

use super::health::Trouble;
use super::journal::{self, Told};
use super::{Store, StoreError, from_optional_ms, migrate, open_connection, to_ms};

/// How long Okta keeps its log (Okta System Log API, "Data retention"): for so long an event can come again.
pub const OKTA_KEEPS: Duration = Duration::from_secs(90 * 24 * 3600);

/// How wrong a clock may be before what it dated is not believed.
const A_DAY: SignedDuration = SignedDuration::from_hours(24);
/// Rows that are taken away in one transaction, where there is room: what is deleted has to be written to the log first.
const STEP: usize = 500;
/// Rows that are looked at in one read.
const LOOK: usize = 2_000;
/// Pages given back to the file system in one transaction, where there is room, and how many such transactions follow each
/// other at most.
const VACUUM_STEP: usize = 256;
const VACUUM_STEPS: usize = 64;
/// Free pages that stay in the file to be written again: at least so many, and one of so many.
const FREE_PAGES: u64 = 512;
const FREE_SHARE: u64 = 10;

/// How long rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Bodies of events of which nothing is open, and records in quarantine.
    pub events: Duration,
    /// Runs whose actions are all at their end, with actions and attempts; and the journal.
    pub runs: Duration,
    /// What recognises an event or an action that comes again. Never less than [`OKTA_KEEPS`], whatever stands here.
    pub keys: Duration,
}

impl Default for Keep {
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        Self { events: days(30), runs: days(400), keys: days(180) }
    }
}

/// What was taken away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// The moment that counted as now: ours, or that of Okta's last page when that is earlier. `None` before the first
    /// page; nothing is pruned then.
    pub by: Option<Timestamp>,
    /// Bodies of events.
    pub bodies: u64,
    /// Records in quarantine.
    pub quarantined: u64,
    /// Runs, with their actions and attempts.
    pub runs: u64,
    /// Events, whose bodies and runs went before.
    pub events: u64,
    /// Keys of actions.
    pub keys: u64,
    /// Records of the journal.
    pub journal: u64,
    /// Pages given back to the file system.
    pub pages: u64,
}

impl Pruned {
    /// Whether nothing was old enough.
    pub fn is_empty(&self) -> bool {
        let Self { by: _, bodies, quarantined, runs, events, keys, journal, pages: _ } = self;
        bodies + quarantined + runs + events + keys + journal == 0
    }
}

/// Rows that are walked in the order of their numbers, which is that of their age but for clocks that jumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walked {
    Bodies,
    Runs,
    Events,
}

/// Rows of which there are few, or that go only from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Swept {
    Quarantined,
    Keys,
    Journal,
}

/// The moments that divide what goes from what stays.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// What is dated later was dated by a clock that cannot have been right.
    tomorrow: i64,
    events: i64,
    runs: i64,
    keys: i64,
}

impl Limits {
    fn new(keep: Keep, by: Timestamp, now: Timestamp) -> Self {
        let before = |keep: Duration| {
            let at = SignedDuration::try_from(keep).ok().and_then(|keep| by.checked_sub(keep).ok());
            to_ms(at.unwrap_or(Timestamp::MIN))
        };
        let keys = keep.keys.max(OKTA_KEEPS);
        // Never by Okta's date: when Okta is silent, or behind, all that was just done would count as wrongly dated.
        let tomorrow = to_ms(now.checked_add(A_DAY).unwrap_or(Timestamp::MAX));
        Self { tomorrow, events: before(keep.events), runs: before(keep.runs), keys: before(keys) }
    }

    fn of(self, kind: Walked) -> i64 {
        match kind {
            Walked::Bodies => self.events,
            Walked::Runs => self.runs,
            Walked::Events => self.keys,
        }
    }
}

impl Store {
    /// Takes away what is older than `keep`, in steps short enough that reading the log is never held up, and gives free
    /// pages back to the file system. Nothing that is open, and nothing that another row still needs, is touched.
    ///
    /// # Errors
    /// When the file cannot be used. What was taken away before stays away. A full disk is met with the reserve and with
    /// smaller steps first, because taking rows away is what helps there.
    pub async fn prune(&self, keep: Keep, now: Timestamp) -> Result<Pruned, StoreError> {
        let mut pruned = Pruned { by: self.prunes_by(now).await?, ..Pruned::default() };
        let Some(by) = pruned.by else { return Ok(pruned) };
        let limits = Limits::new(keep, by, now);
        let side = Side::open(self)?;
        // In this order each kind sets the next one free.
        pruned.bodies = self.walk(&side, Walked::Bodies, limits, now).await?;
        pruned.runs = self.walk(&side, Walked::Runs, limits, now).await?;
        pruned.events = self.walk(&side, Walked::Events, limits, now).await?;
        pruned.quarantined = self.sweep(&side, Swept::Quarantined, limits, now).await?;
        pruned.keys = self.sweep(&side, Swept::Keys, limits, now).await?;
        pruned.journal = self.sweep(&side, Swept::Journal, limits, now).await?;
        pruned.pages = self.vacuum(&side).await?;
        side.write(self, move |connection| {
            connection.execute("UPDATE retention SET pruned_at = ?1", [to_ms(now)])?;
            Ok(())
        })
        .await?;
        side.truncate_log().await?;
        Ok(pruned)
    }

    /// By which moment ages are told: our clock, but never ahead of the newest page that Okta dated.
    async fn prunes_by(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let okta = self
            .read(|connection| {
                from_optional_ms(connection.query_row("SELECT max(last_good_poll) FROM stream", [], |row| row.get(0))?)
            })
            .await?;
        Ok(okta.map(|okta| okta.min(now)))
    }

    async fn walk(&self, side: &Side, kind: Walked, limits: Limits, now: Timestamp) -> Result<u64, StoreError> {
        let (mut taken, mut after, mut pace) = (0, Some(0), Pace::new(STEP));
        while let Some(from) = after {
            let (old, next) = side.read(move |connection| look(connection, kind, limits, from)).await?;
            let mut left = old.as_slice();
            while !left.is_empty() {
                let (batch, rest) = left.split_at(pace.step.min(left.len()));
                let ids = Value::from(batch).to_string();
                match side.write(self, move |connection| take_away(connection, kind, &ids, limits, now)).await {
                    Ok(rows) => {
                        taken += rows;
                        left = rest;
                        pace.went_on();
                    }
                    Err(error) => side.make_room(&mut pace, error).await?,
                }
            }
            after = next;
        }
        Ok(taken)
    }

    async fn sweep(&self, side: &Side, kind: Swept, limits: Limits, now: Timestamp) -> Result<u64, StoreError> {
        let (mut taken, mut pace) = (0, Pace::new(STEP));
        loop {
            let step = pace.step;
            match side.write(self, move |connection| sweep(connection, kind, limits, step, now)).await {
                Ok(0) => return Ok(taken),
                Ok(rows) => {
                    taken += rows;
                    pace.went_on();
                }
                Err(error) => side.make_room(&mut pace, error).await?,
            }
        }
    }

    /// Gives free pages back until as many are left as will soon be written again.
    async fn vacuum(&self, side: &Side) -> Result<u64, StoreError> {
        let (mut given, mut pace) = (0, Pace::new(VACUUM_STEP));
        // On a full disk half of them go, however few there are: with free pages alone nothing can be written, since
        // everything goes through the log first.
        let kept = match side.is_tight() {
            true => side.read(|connection| Ok(number(connection, "PRAGMA freelist_count")?)).await? / 2,
            false => u64::MAX,
        };
        for _ in 0..VACUUM_STEPS {
            let most = pace.step as u64;
            let step = side.write(self, move |connection| {
                let free = number(connection, "PRAGMA freelist_count")?;
                let all = number(connection, "PRAGMA page_count")?;
                let spare = free.saturating_sub(FREE_PAGES.max(all / FREE_SHARE).min(kept)).min(most);
                if spare > 0 {
                    // Each page is a row of its own.
                    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({spare})"))?;
                    let mut pages = statement.query([])?;
                    while pages.next()?.is_some() {}
                }
                Ok(spare)
            });
            match step.await {
                Ok(0) => break,
                Ok(pages) => {
                    given += pages;
                    pace.went_on();
                }
                Err(error) => side.make_room(&mut pace, error).await?,
            }
        }
        Ok(given)
    }
}

fn number(connection: &Connection, pragma: &str) -> rusqlite::Result<u64> {
    connection.query_row(pragma, [], |row| row.get(0))
}

/// How much is done in one transaction.
struct Pace {
    most: usize,
    step: usize,
    /// Whether anything was done since it slowed down.
    moves: bool,
}

impl Pace {
    fn new(most: usize) -> Self {
        Self { most, step: most, moves: true }
    }

    fn went_on(&mut self) {
        self.moves = true;
        self.step = self.step.saturating_mul(2).min(self.most);
    }

    /// Returns whether there is any sense in trying again.
    fn slows_down(&mut self) -> bool {
        let sense = self.moves || self.step > 1;
        (self.step, self.moves) = ((self.step / 8).max(1), false);
        sense
    }
}

/// A connection that looks for old rows, so that nobody who reads has to wait for that.
struct Side {
    connection: Arc<Mutex<Connection>>,
    /// Whether the disk was found full: from then on this round of pruning works on the reserve.
    tight: AtomicBool,
}

impl Side {
    fn open(store: &Store) -> Result<Self, StoreError> {
        let connection = open_connection(&store.path)?;
        migrate::prepare(&connection)?;
        connection.execute_batch("PRAGMA query_only = ON;")?;
        // Cutting the log waits for readers; the next time will do as well.
        connection.busy_timeout(Duration::from_millis(250))?;
        let tight = AtomicBool::new(*store.trouble().borrow() == Some(Trouble::Full));
        Ok(Self { connection: Arc::new(Mutex::new(connection)), tight })
    }

    fn is_tight(&self) -> bool {
        self.tight.load(Ordering::Relaxed)
    }

    /// Has the writer do a job, on the reserve where nothing else is left.
    async fn write<T, F>(&self, store: &Store, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        if self.is_tight() { store.write_on_reserve(job).await } else { store.write(job).await }
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let connection = Arc::clone(&self.connection);
        tokio::task::spawn_blocking(move || query(&connection.lock().unwrap_or_else(PoisonError::into_inner)))
            .await
            .map_err(|_| StoreError::Stopped)?
    }

    /// Makes going on possible after an error, or gives it back: a full disk is met with the reserve, then with less at once,
    /// again and again as long as that leads any further.
    async fn make_room(&self, pace: &mut Pace, error: StoreError) -> Result<(), StoreError> {
        if !matches!(error, StoreError::Full) {
            return Err(error);
        }
        let first = !self.tight.swap(true, Ordering::Relaxed);
        if !pace.slows_down() && !first {
            return Err(error);
        }
        self.truncate_log().await
    }

    /// Writes the log into the file and cuts it to nothing, if nobody is in the way.
    async fn truncate_log(&self) -> Result<(), StoreError> {
        let cut = |connection: &Connection| -> Result<(), StoreError> {
            Ok(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
        };
        match self.read(cut).await {
            Err(StoreError::Busy | StoreError::Full) => Ok(()),
            result => result,
        }
    }
}

/// Whether all that came of event `e` is at its end.
const NOTHING_OPEN: &str = "e.state IN ('decided', 'skipped', 'superseded')
    AND NOT EXISTS (SELECT 1 FROM run o JOIN action a ON a.run = o.id WHERE o.event = e.id AND a.finished_at IS NULL)";

/// Whether nothing refers to event `e` any more, and it is not the one that tells its user's risk.
const NOT_NEEDED: &str = "e.state IN ('decided', 'skipped', 'superseded')
    AND NOT EXISTS (SELECT 1 FROM event_body WHERE event = e.id) AND NOT EXISTS (SELECT 1 FROM run WHERE event = e.id)
    AND (e.risk IS NULL OR e.subject IS NULL
         OR EXISTS (SELECT 1 FROM event n WHERE n.subject = e.subject AND n.risk IS NOT NULL
                                            AND (n.published, n.id) > (e.published, e.id)))";

/// Whether every action of run `r` came to its end before `?2`, or at a moment after `?3`, which is tomorrow.
const ALL_ENDED: &str = "NOT EXISTS (SELECT 1 FROM action a WHERE a.run = r.id
                             AND (a.finished_at IS NULL OR a.finished_at BETWEEN ?2 AND ?3))";

/// Since when event `e` is there, by the later of both clocks, or by Okta's alone where ours cannot have been right. `?3` is
/// tomorrow.
const AGE: &str = "iif(e.received_at > ?3, e.published, max(e.received_at, e.published))";

/// The same for run `r` of event `e`.
const AGE_OF_RUN: &str = "iif(r.created_at > ?3, e.published, max(r.created_at, e.published))";

/// The next rows behind `from` that may go, and where the look after this one begins. The first stretch without any old
/// row ends the walk.
fn look(
    connection: &Connection,
    kind: Walked,
    limits: Limits,
    from: i64,
) -> Result<(Vec<i64>, Option<i64>), StoreError> {
    let sql = match kind {
        Walked::Bodies => format!(
            "SELECT b.event, {AGE} < ?2, {AGE} < ?2 AND {NOTHING_OPEN} FROM event_body b JOIN event e ON e.id = b.event
             WHERE b.event > ?1 ORDER BY b.event LIMIT ?4"
        ),
        Walked::Runs => format!(
            "SELECT r.id, {AGE_OF_RUN} < ?2, {AGE_OF_RUN} < ?2 AND {ALL_ENDED} FROM run r JOIN event e ON e.id = r.event
             WHERE r.id > ?1 ORDER BY r.id LIMIT ?4"
        ),
        Walked::Events => format!(
            "SELECT e.id, {AGE} < ?2, {AGE} < ?2 AND {NOT_NEEDED} FROM event e WHERE e.id > ?1 ORDER BY e.id LIMIT ?4"
        ),
    };
    let rows: Vec<(i64, bool, bool)> = connection
        .prepare_cached(&sql)?
        .query_map(params![from, limits.of(kind), limits.tomorrow, LOOK as i64], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<Result<_, _>>()?;
    let goes_on = rows.len() == LOOK && rows.iter().any(|(_, old, _)| *old);
    let next = rows.last().map(|(id, ..)| *id).filter(|_| goes_on);
    Ok((rows.into_iter().filter(|(.., may_go)| *may_go).map(|(id, ..)| id).collect(), next))
}

/// Takes away those of the rows that may still go: since the look, a person may have asked for an action again.
fn take_away(
    connection: &Connection,
    kind: Walked,
    ids: &str,
    limits: Limits,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let execute = |sql: &str| connection.prepare_cached(sql)?.execute([ids]);
    let rows = match kind {
        Walked::Bodies => execute(&format!(
            "DELETE FROM event_body WHERE event IN (
                SELECT e.id FROM event e WHERE e.id IN (SELECT value FROM json_each(?1)) AND {NOTHING_OPEN})"
        ))?,
        Walked::Runs => {
            let ids: Vec<i64> = connection
                .prepare_cached(&format!(
                    "SELECT r.id FROM run r WHERE r.id IN (SELECT value FROM json_each(?1)) AND {ALL_ENDED}"
                ))?
                .query_map(params![ids, limits.runs, limits.tomorrow], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            take_runs_away(connection, &Value::from(ids).to_string(), limits)?
        }
        Walked::Events => execute(&format!(
            "DELETE FROM event WHERE id IN (
                SELECT e.id FROM event e WHERE e.id IN (SELECT value FROM json_each(?1)) AND {NOT_NEEDED})"
        ))?,
    } as u64;
    let what = match kind {
        Walked::Bodies => "bodies",
        Walked::Runs => "runs",
        Walked::Events => "events",
    };
    tell(connection, what, rows, now)
}

fn take_runs_away(connection: &Connection, ids: &str, limits: Limits) -> Result<usize, StoreError> {
    // Where runs are kept shorter than keys, what was sent stays known by its key.
    connection
        .prepare_cached(
            "INSERT INTO spent_key (key, at)
             SELECT a.key, iif(a.created_at > ?3, e.published, max(a.created_at, e.published)) AS sent
             FROM action a JOIN run r ON r.id = a.run JOIN event e ON e.id = r.event
             WHERE a.run IN (SELECT value FROM json_each(?1)) AND sent >= ?2
               AND EXISTS (SELECT 1 FROM attempt WHERE action = a.id)
             ON CONFLICT (key) DO NOTHING",
        )?
        .execute(params![ids, limits.keys, limits.tomorrow])?;
    for sql in [
        "DELETE FROM attempt WHERE action IN (
            SELECT id FROM action WHERE run IN (SELECT value FROM json_each(?1)))",
        "DELETE FROM action WHERE run IN (SELECT value FROM json_each(?1))",
    ] {
        connection.prepare_cached(sql)?.execute([ids])?;
    }
    Ok(connection.prepare_cached("DELETE FROM run WHERE id IN (SELECT value FROM json_each(?1))")?.execute([ids])?)
}

/// Takes at most `step` rows away; zero when nothing is old.
fn sweep(connection: &Connection, kind: Swept, limits: Limits, step: usize, now: Timestamp) -> Result<u64, StoreError> {
    match kind {
        Swept::Quarantined => {
            let sql = "DELETE FROM quarantine WHERE id IN (SELECT id FROM quarantine WHERE received_at < ?1 LIMIT ?2)";
            let rows = connection.prepare_cached(sql)?.execute(params![limits.events, step as i64])?;
            tell(connection, "quarantined", rows as u64, now)
        }
        Swept::Keys => {
            let sql = "DELETE FROM spent_key WHERE key IN (SELECT key FROM spent_key WHERE at < ?1 LIMIT ?2)";
            let rows = connection.prepare_cached(sql)?.execute(params![limits.keys, step as i64])?;
            tell(connection, "keys", rows as u64, now)
        }
        Swept::Journal => journal::take_front_away(connection, limits.runs, limits.tomorrow, step, now),
    }
}

fn tell(connection: &Connection, kind: &'static str, rows: u64, now: Timestamp) -> Result<u64, StoreError> {
    if rows > 0 {
        journal::append(connection, now, &Told::Pruned { kind, rows, anchor: None })?;
    }
    Ok(rows)
}
