//! Reading one stream: ask for a page, store it with the cursor behind it, go on.
//!
//! When a page was full, the next one is asked for as soon as the headers with its link are in, while the body is still
//! being read and the page before is being committed. Commits stay in order: each names the cursor it follows, and the
//! store refuses one that does not follow.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::intake::{self, Intake};
use super::pulse::Beat;
use super::rates;
use super::reach::{OKTA, Sign};
use super::retry::Schedule;
use super::{Engine, TaskError};
use crate::config::values::{Interval, StartFrom};
use crate::halt::{self, Point};
use crate::model::event::SOURCE_OKTA;
use crate::model::ids::StreamId;
use crate::okta::error::{OktaError, OktaErrorKind};
use crate::okta::logs::{LogQuery, PageHead, clamp_since, next_limit, with_limit};
use crate::okta::rate::Wait;
use crate::okta::{Bucket, OktaClient, Priority};
use crate::store::{
    NewStream, PageCommit, PageCounts, Quarantined, Standstill, StoreError, Stream, StreamKind, StreamState,
};

/// How long a poller waits before it asks again after an error that passes by itself.
const PASSING: Schedule = Schedule { initial: Duration::from_secs(1), max: Duration::from_secs(60) };
/// How long it waits when a person has to mend something: a refused token, a missing role, a foreign next page.
const FOR_A_PERSON: Schedule = Schedule { initial: Duration::from_secs(30), max: Duration::from_secs(300) };
/// A longer wait for room in the rate limit is told in the log.
const WORTH_A_LINE: Duration = Duration::from_secs(10);
/// How often the cursor of a stream that has nothing new is written, so that an idle daemon does not commit every second.
/// A restart goes back by the overlap, which is far more.
const IDLE_COMMIT: SignedDuration = SignedDuration::from_secs(10);

/// Reads one stream until it ends or the daemon stops.
pub struct Poller {
    engine: Arc<Engine>,
    stop: CancellationToken,
    id: StreamId,
    kind: StreamKind,
    /// The stream as it stands in the store, moved along with each page.
    cursor: Option<String>,
    since: Timestamp,
    began: Timestamp,
    until: Option<Timestamp>,
    query: String,
    last_good_poll: Option<Timestamp>,
    /// Records to ask for: the configured page size, or fewer after a page that was larger than what is read of one.
    limit: u32,
    /// Whether the last page was full, so that there is more at once.
    full: bool,
    failures: u32,
    problem: Option<Problem>,
    /// The org, asked with the priority of the stream.
    okta: OktaClient,
    /// When this stream asked last.
    last_asked: Option<Duration>,
    /// When the page was asked for that is waited for.
    asked_at: Duration,
}

/// What keeps a stream from going on.
struct Problem {
    /// What stays the same when the same thing goes wrong again.
    gist: String,
    /// The sentence for people.
    words: String,
    /// Whether the log has it already, as a service that is down.
    told: bool,
    /// Whether it stays so until a person does something.
    for_a_person: bool,
}

impl Problem {
    fn standstill(&self) -> Standstill {
        Standstill { words: self.words.clone(), for_a_person: self.for_a_person }
    }
}

/// Why a poller's turn ended early.
enum Interrupted {
    Okta(OktaError),
    /// The page has more bytes than are read of one.
    TooLarge(OktaError),
    /// The body was not a page.
    Page(intake::PageError),
    Store(StoreError),
}

/// A page whose commit is under way.
type Committing = JoinHandle<Result<PageCounts, StoreError>>;

impl Poller {
    /// The poller of the live stream. Begins the stream at `start_from` (by Okta's clock) if it was never begun, and begins
    /// it again when the query has changed.
    pub async fn live(engine: Arc<Engine>, stop: CancellationToken) -> Result<Option<Self>, TaskError> {
        let query = engine.server_filter();
        let stream = match engine.store.live_stream(SOURCE_OKTA).await? {
            Some(stream) => stream,
            None => {
                let Some(okta_now) = okta_now(&engine, &stop).await else { return Ok(None) };
                let since = start(&engine.settings.start_from, okta_now);
                let new = NewStream {
                    source: SOURCE_OKTA.to_owned(),
                    kind: StreamKind::Live,
                    query: query.clone(),
                    since,
                    until: None,
                    execute: false,
                };
                let id = engine.store.create_stream(new, engine.clock.now()).await?;
                info!(stream.id = id.0, %since, "the live stream begins");
                engine.store.stream(id).await?.ok_or(TaskError::Gone("the live stream"))?
            }
        };
        let changed = stream.query != query;
        let mut poller = Self::of(engine, stop, stream);
        if changed {
            info!("the event types that playbooks want have changed: the stream begins again a little earlier");
            poller.restart(query).await?;
        }
        Ok(Some(poller))
    }

    /// The poller of a backfill.
    pub fn backfill(engine: Arc<Engine>, stop: CancellationToken, stream: Stream) -> Self {
        Self::of(engine, stop, stream)
    }

    fn of(engine: Arc<Engine>, stop: CancellationToken, stream: Stream) -> Self {
        let priority = match stream.kind {
            StreamKind::Live => Priority::Live,
            StreamKind::Backfill => Priority::Backfill,
        };
        Self {
            limit: engine.settings.page_size,
            okta: engine.okta.with(priority),
            engine,
            stop,
            id: stream.id,
            kind: stream.kind,
            cursor: stream.next_url,
            since: stream.since,
            began: stream.began,
            until: stream.until,
            query: stream.query,
            last_good_poll: stream.last_good_poll,
            full: false,
            failures: 0,
            problem: None,
            last_asked: None,
            asked_at: Duration::ZERO,
        }
    }

    /// Reads until the stream ends (a backfill) or the daemon stops.
    pub async fn run(mut self) -> Result<(), TaskError> {
        while !self.stop.is_cancelled() {
            let handled = match self.read_on().await {
                Ok(true) => return Ok(()),
                Ok(false) => Ok(()),
                Err(Interrupted::Okta(error)) => self.handle_okta(error).await,
                Err(Interrupted::TooLarge(error)) => self.ask_for_less(error).await,
                Err(Interrupted::Page(error)) => {
                    let words = format!("{error}: {}", cause(&error));
                    let gist = error.to_string();
                    self.pause_for(Problem { gist, words, told: false, for_a_person: false }, PASSING).await
                }
                Err(Interrupted::Store(error)) => self.handle_store(error).await,
            };
            match handled {
                // What was to be written about the stream is found out again.
                Err(TaskError::Store(error)) if error.may_pass() => {
                    debug!(stream.id = self.id.0, "reading waits: {error}");
                    self.pause(PASSING).await;
                }
                handled => handled?,
            }
        }
        Ok(())
    }

    /// Reads pages until something goes wrong (`Err`), the daemon stops (`Ok(false)`) or the stream ends (`Ok(true)`).
    async fn read_on(&mut self) -> Result<bool, Interrupted> {
        let mut ahead: Option<JoinHandle<Result<PageHead, OktaError>>> = None;
        let mut committing: Option<Committing> = None;
        let ended = loop {
            let asked = self.cursor.clone();
            self.asked_at = self.engine.clock.elapsed();
            let url = match &asked {
                Some(cursor) => self.page_url(cursor),
                None => self.first_url().map_err(Interrupted::Okta)?,
            };
            let head = match ahead.take() {
                Some(request) => tokio::select! {
                    head = request => match head {
                        Ok(head) => head,
                        // The task that asked ahead was lost; the page is simply asked for again.
                        Err(_) => continue,
                    },
                    () = self.stop.cancelled() => break false,
                },
                None => {
                    if !self.wait_for_store().await || !self.wait_for_turn().await {
                        break false;
                    }
                    tokio::select! {
                        head = self.okta.fetch_page(&url) => head,
                        () = self.stop.cancelled() => break false,
                    }
                }
            };
            let head = match head {
                Ok(head) => head,
                Err(error) => {
                    finish(committing.take()).await.map_err(Interrupted::Store)?;
                    return Err(Interrupted::Okta(error));
                }
            };
            // A backfill ends where Okta names no next page; the live stream then asks the same URL again.
            let last = self.until.is_some() && head.next.is_none();
            let linked = head.next.is_some();
            let next_url = head.next.clone().unwrap_or_else(|| url.clone());
            // Without a link there is nothing to ask ahead for: the page may be no page at all.
            if let Some(next) = head.next.clone()
                && self.full
                && self.limit == self.engine.settings.page_size
                && self.may_ask_now()
            {
                let okta = self.okta.clone();
                self.sent();
                let next = self.page_url(&next);
                ahead = Some(tokio::spawn(async move { okta.fetch_page(&next).await }));
            }
            let date = head.date;
            let body = tokio::select! {
                body = head.body.read() => body,
                () = self.stop.cancelled() => break false,
            };
            let size = body.as_ref().map_or(0, Vec::len);
            let intake = match body {
                Ok(body) => intake::sort_page(&body, &self.engine.wanted).map_err(Interrupted::Page),
                Err(error) if error.kind == OktaErrorKind::PageTooLarge => match self.limit {
                    1 if linked => Ok(record_too_large(&url, &error)),
                    // Every page of a polling query has a link; what has none and does not end is no page.
                    _ if linked || self.until.is_some() => Err(Interrupted::TooLarge(error)),
                    _ => Err(Interrupted::Okta(error)),
                },
                Err(error) => Err(Interrupted::Okta(error)),
            };
            let stored_before = finish(committing.take()).await.map_err(Interrupted::Store)?;
            self.tell(stored_before);
            let intake = intake?;
            halt::point(Point::PageRead);

            self.full = intake.records >= self.limit as usize;
            self.limit = next_limit(self.limit, self.engine.settings.page_size, Some(size));
            let unchanged = intake.records == 0 && asked.as_ref() == Some(&next_url);
            let nothing_new = unchanged && !last && self.problem.is_none();
            if nothing_new && self.last_good_poll.is_some_and(|stored| date.duration_since(stored) < IDLE_COMMIT) {
                self.good();
                self.tell_how_far(ahead.is_none());
                self.engine.pulse.polled();
                continue;
            }
            let page = page_commit(self.id, asked, next_url.clone(), intake, date, last);
            let store = self.engine.store.clone();
            let now = self.engine.clock.now();
            let rates = self.engine.rates_due(rates::ALONG);
            let commit: Committing = tokio::spawn(async move { store.commit_page_and_rates(page, rates, now).await });
            if self.full {
                committing = Some(commit);
            } else {
                let counts = finish(Some(commit)).await.map_err(Interrupted::Store)?;
                self.tell(counts);
            }
            self.cursor = Some(next_url);
            self.last_good_poll = Some(date);
            self.good();
            self.tell_how_far(ahead.is_none());
            if last {
                break true;
            }
        };
        let counts = finish(committing).await.map_err(Interrupted::Store)?;
        self.tell(counts);
        if ended {
            info!(stream.id = self.id.0, "the backfill has read to its end");
        }
        Ok(ended)
    }

    fn first_url(&self) -> Result<String, OktaError> {
        let filter = Some(self.query.clone()).filter(|query| !query.is_empty());
        self.engine.okta.logs_url(&LogQuery { since: self.since, until: self.until, filter, limit: self.limit })
    }

    /// The URL of a page behind a cursor: verbatim, but for the limit while that is not the configured one, and right after.
    fn page_url(&self, cursor: &str) -> String {
        let wanted = format!("limit={}", self.limit);
        let has_limit = |term: &str| term.starts_with("limit=");
        let mut terms = cursor.split(['?', '&']).skip(1);
        let as_it_is = match terms.find(|term| has_limit(term)) {
            Some(term) => term == wanted,
            None => self.limit == self.engine.settings.page_size,
        };
        if as_it_is { cursor.to_owned() } else { with_limit(cursor, self.limit) }
    }

    /// Tells the decider and the health of the daemon about stored pages.
    fn tell(&self, counts: Option<PageCounts>) {
        let Some(counts) = counts else { return };
        halt::point(Point::PageStored);
        if counts.stored > 0 {
            debug!(stream.id = self.id.0, stored = counts.stored, duplicates = counts.duplicates, "a page is stored");
            self.engine.stored.notify_one();
        }
        self.engine.pulse.polled();
    }

    /// Waits until the state file can be written. `false` when the daemon stops.
    async fn wait_for_store(&self) -> bool {
        while !self.stop.is_cancelled() {
            if self.engine.may_take_work().await {
                return true;
            }
            if self.kind == StreamKind::Live {
                self.engine.pulse.tick(Beat::Poller);
            }
        }
        false
    }

    /// Waits until the budget allows the next request. `false` when the daemon stops.
    async fn wait_for_turn(&mut self) -> bool {
        // Who waits for room is counted, and told of, as long as that lasts.
        let mut aside = None;
        loop {
            let wait = self.next_turn();
            if wait.is_zero() {
                self.sent();
                return !self.stop.is_cancelled();
            }
            let short = self.short_of_room();
            if aside.is_none() && !short.is_zero() {
                self.tell_wait(wait, short);
                aside = Some(self.okta.gate().step_aside(Bucket::Logs));
            }
            match &aside {
                None => self.sleep(wait).await,
                Some(_) => {
                    self.sleep(wait.min(rates::ALONG)).await;
                    if let Some(rates) = self.engine.rates_while_waiting(rates::ALONG) {
                        note(self.engine.store.note_rates(rates).await);
                    }
                }
            }
            if self.stop.is_cancelled() {
                return false;
            }
        }
    }

    /// How much longer the budget keeps the live stream than its own pace would.
    fn short_of_room(&self) -> Duration {
        let gate = self.okta.gate();
        match self.kind {
            StreamKind::Backfill => Duration::ZERO,
            StreamKind::Live => {
                let pace = self.paced(gate.steady_gap());
                let short = gate.opens_in(Bucket::Logs, Priority::Live).saturating_sub(pace);
                if short < rates::ALONG { Duration::ZERO } else { short }
            }
        }
    }

    /// Says that the log is not read for a while, when that is longer than anybody would expect.
    fn tell_wait(&self, wait: Duration, short: Duration) {
        if short <= WORTH_A_LINE {
            return;
        }
        let seconds = wait.as_secs().saturating_add(1);
        let logs = self.okta.gate().snapshot().buckets.into_iter().find(|row| row.bucket == Bucket::Logs);
        let share = logs.and_then(|row| row.share.filter(|share| row.used >= *share as usize));
        match share {
            Some(share) => {
                info!("the log is not read for {seconds} s: our share ({share} a minute) is used up")
            }
            None => info!("the log is not read for {seconds} s: what is left of Okta's rate limit is left to others"),
        }
    }

    /// How long to wait before the next request: the budget first, and for the live stream its pace.
    fn next_turn(&self) -> Duration {
        let gate = self.okta.gate();
        match self.kind {
            StreamKind::Backfill => gate.opens_in(Bucket::Logs, Priority::Backfill),
            StreamKind::Live => {
                let open = gate.opens_in(Bucket::Logs, Priority::Live);
                if self.full { open } else { open.max(self.paced(gate.steady_gap())) }
            }
        }
    }

    /// What is left of the time between two polls that have nothing to catch up with.
    fn paced(&self, steady: Duration) -> Duration {
        let gap = match self.engine.settings.interval {
            Interval::Auto => steady,
            Interval::Every(interval) => steady.max(interval),
        };
        let passed = self.last_asked.map_or(gap, |last| self.engine.clock.elapsed().saturating_sub(last));
        gap.saturating_sub(passed)
    }

    fn may_ask_now(&self) -> bool {
        self.next_turn().is_zero()
    }

    fn sent(&mut self) {
        self.last_asked = Some(self.engine.clock.elapsed());
        if self.kind == StreamKind::Live {
            self.engine.pulse.tick(Beat::Poller);
        }
    }

    /// A page went well: whatever was the matter is over.
    fn good(&mut self) {
        self.failures = 0;
        self.engine.reach.saw_and_tells(OKTA, Sign::Answered, self.asked_at, self.engine.clock.elapsed());
        match self.problem.take() {
            Some(Problem { told: true, words, .. }) => {
                debug!(stream.id = self.id.0, "reading goes on; over is: {words}")
            }
            Some(Problem { words, .. }) => info!(stream.id = self.id.0, "reading goes on; over is: {words}"),
            None => {}
        }
        self.engine.pulse.first_poll();
    }

    /// Tells up to when the log is read, if this page was its end and the last that was asked for.
    fn tell_how_far(&self, was_last_asked: bool) {
        if let Some(asked) = self.last_asked
            && self.kind == StreamKind::Live
            && !self.full
            && was_last_asked
        {
            self.engine.log_is_read(asked);
        }
    }

    /// What an error means for reading. It counts for whether Okta can be reached, too.
    fn problem_of(&self, error: &OktaError) -> Problem {
        let failure = error.to_failure();
        let (sign, now) = (Sign::of_failure(&failure), self.engine.clock.elapsed());
        let down = self.engine.reach.saw_and_tells(OKTA, sign, self.asked_at, now);
        let told = down && matches!(sign, Sign::Failed(_));
        Problem { gist: error.gist(), words: failure.detail, told, for_a_person: error.is_for_a_person() }
    }

    async fn handle_okta(&mut self, error: OktaError) -> Result<(), TaskError> {
        match error.kind {
            OktaErrorKind::FilterRefused | OktaErrorKind::BadRequest if self.begins_too_early(&error).is_some() => {
                // After a long stop the stream wants to begin far before what Okta keeps.
                let since = self.begins_too_early(&error).unwrap_or(self.since);
                warn!(stream.id = self.id.0, asked = %self.since, %since, "Okta keeps 90 days: the stream begins there");
                self.begin_at(since, self.query.clone()).await?;
                self.pause(PASSING).await;
            }
            OktaErrorKind::CursorRefused => {
                warn!(stream.id = self.id.0, error = %error, "the cursor is lost: the stream begins again a little earlier");
                let query = self.query.clone();
                self.restart(query).await?;
                self.pause(PASSING).await;
            }
            OktaErrorKind::FilterRefused => {
                warn!(error = %error, "Okta refuses the filter: it is applied on this side from now on");
                self.engine.refuse_server_filter();
                self.restart(String::new()).await?;
            }
            // Somebody else of ours was quicker: nothing is the matter.
            OktaErrorKind::RateLimited(Wait::Until(wait)) if error.is_turned_away() => self.sleep(wait).await,
            OktaErrorKind::RateLimited(Wait::Until(wait)) => {
                self.show(self.problem_of(&error)).await;
                self.full = false;
                self.sleep(wait).await;
            }
            OktaErrorKind::Unauthorized
            | OktaErrorKind::Forbidden
            | OktaErrorKind::FeatureNotEnabled
            | OktaErrorKind::ForeignNext
            | OktaErrorKind::NoCredential
            | OktaErrorKind::BadRequest
            | OktaErrorKind::NotFound => self.pause_for(self.problem_of(&error), FOR_A_PERSON).await?,
            _ => self.pause_for(self.problem_of(&error), PASSING).await?,
        }
        Ok(())
    }

    async fn handle_store(&mut self, error: StoreError) -> Result<(), TaskError> {
        match error {
            StoreError::CursorMoved => {
                // Somebody else moved the stream, or ended it: go on from what is stored.
                let stored =
                    self.engine.store.stream(self.id).await?.filter(|stream| stream.state == StreamState::Active);
                let Some(stored) = stored else {
                    self.stop.cancel();
                    return Ok(());
                };
                self.cursor = stored.next_url;
                self.since = stored.since;
                self.query = stored.query;
                Ok(())
            }
            error if error.may_pass() => {
                debug!(stream.id = self.id.0, "reading waits: {error}");
                // What was read and not stored is read again.
                if let Ok(Some(stored)) = self.engine.store.stream(self.id).await {
                    self.cursor = stored.next_url;
                }
                self.pause(PASSING).await;
                Ok(())
            }
            error => Err(TaskError::Store(error)),
        }
    }

    /// Begins the stream again: at the last good poll minus the overlap, but never before it was first meant to begin.
    async fn restart(&mut self, query: String) -> Result<(), TaskError> {
        let overlap = SignedDuration::try_from(self.engine.settings.overlap).unwrap_or(SignedDuration::from_hours(1));
        let since = match (self.kind, self.last_good_poll) {
            (StreamKind::Live, Some(last)) => last.checked_sub(overlap).unwrap_or(self.began).max(self.began),
            // A backfill reads by the time of the events, of which the newest stored one says how far it is.
            (StreamKind::Backfill, _) => {
                let newest = self.engine.store.stream(self.id).await?.and_then(|stream| stream.newest);
                newest.and_then(|newest| newest.checked_sub(overlap).ok()).map_or(self.since, |at| at.max(self.since))
            }
            (StreamKind::Live, None) => self.since,
        };
        self.begin_at(since, query).await
    }

    /// Where the stream can begin when what Okta refused lies before what it keeps, by its own clock.
    fn begins_too_early(&self, error: &OktaError) -> Option<Timestamp> {
        let okta_now = error.exchange.date.filter(|_| self.cursor.is_none())?;
        let (since, _) = clamp_since(self.since, okta_now);
        (since > self.since).then_some(since)
    }

    async fn begin_at(&mut self, since: Timestamp, query: String) -> Result<(), TaskError> {
        let now = self.engine.clock.now();
        self.engine.store.restart_stream(self.id, query.clone(), since, now).await?;
        info!(stream.id = self.id.0, %since, filter = %query, "the stream begins again");
        self.cursor = None;
        self.since = since;
        self.query = query;
        self.full = false;
        Ok(())
    }

    /// A page has more bytes than are read of one: the next attempt asks for half as many records from the same cursor. A
    /// page of one record that cannot be stepped over is for a person.
    async fn ask_for_less(&mut self, error: OktaError) -> Result<(), TaskError> {
        let less = next_limit(self.limit, self.engine.settings.page_size, None);
        if less == self.limit {
            return self.pause_for(self.problem_of(&error), FOR_A_PERSON).await;
        }
        warn!(stream.id = self.id.0, limit = less, "a page is too large, so fewer records are asked for: {error}");
        self.limit = less;
        self.full = false;
        Ok(())
    }

    /// Says what is the matter, shows it and waits.
    async fn pause_for(&mut self, problem: Problem, schedule: Schedule) -> Result<(), TaskError> {
        self.show(problem).await;
        self.pause(schedule).await;
        Ok(())
    }

    /// Says what is the matter once, and keeps it where `status` shows it.
    async fn show(&mut self, problem: Problem) {
        if self.problem.as_ref().is_none_or(|told| told.gist != problem.gist) {
            let words = &problem.words;
            if problem.told {
                debug!(stream.id = self.id.0, "reading the log does not go on: {words}");
            } else {
                warn!(stream.id = self.id.0, "reading the log does not go on: {words}");
            }
            let now = self.engine.clock.now();
            let told = match self.kind {
                StreamKind::Live => self.engine.store.set_standstill(Some(problem.standstill()), now).await,
                StreamKind::Backfill => self.engine.store.set_stream_problem(self.id, Some(words.clone()), now).await,
            };
            note(told);
            self.engine.pulse.problem(words);
            self.problem = Some(problem);
        }
    }

    async fn pause(&mut self, schedule: Schedule) {
        self.failures = self.failures.saturating_add(1);
        self.full = false;
        self.sleep(schedule.pause(self.failures, "poll")).await;
    }

    async fn sleep(&self, wait: Duration) {
        if self.kind == StreamKind::Live {
            self.engine.pulse.sleeps(Beat::Poller, wait);
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

fn page_commit(
    stream: StreamId,
    asked: Option<String>,
    next_url: String,
    intake: Intake,
    source_now: Timestamp,
    last: bool,
) -> PageCommit {
    let Intake { events, unwanted, quarantined, .. } = intake;
    for record in &quarantined {
        warn!(stream.id = stream.0, bytes = record.raw.len(), "a record goes to quarantine: {}", record.error);
    }
    PageCommit { stream, asked, next_url, events, unwanted, quarantined, source_now, last }
}

/// The page of one record that is larger than what is read of a page: it is stepped over, and kept as the address at which a
/// person can look at it.
fn record_too_large(url: &str, error: &OktaError) -> Intake {
    let record = Quarantined { error: error.to_failure().detail, raw: url.to_owned() };
    Intake { quarantined: vec![record], records: 1, ..Intake::default() }
}

async fn finish(commit: Option<Committing>) -> Result<Option<PageCounts>, StoreError> {
    match commit {
        None => Ok(None),
        Some(commit) => commit.await.unwrap_or(Err(StoreError::Stopped)).map(Some),
    }
}

/// Where the first start begins, by Okta's clock.
fn start(from: &StartFrom, okta_now: Timestamp) -> Timestamp {
    let wanted = match from {
        StartFrom::Now => okta_now,
        StartFrom::At(moment) => *moment,
        StartFrom::Ago(before) => SignedDuration::try_from(*before)
            .ok()
            .and_then(|before| okta_now.checked_sub(before).ok())
            .unwrap_or(Timestamp::UNIX_EPOCH),
    };
    let (since, clamped) = clamp_since(wanted, okta_now);
    if clamped {
        warn!(%wanted, %since, "Okta keeps 90 days: the stream begins there");
    }
    since
}

/// Okta's clock: the `Date` of any answer, even of one that says no. Asks until there is one; `None` when the daemon stops.
async fn okta_now(engine: &Engine, stop: &CancellationToken) -> Option<Timestamp> {
    let mut attempt = 0;
    let mut told = None;
    loop {
        let query = LogQuery { since: engine.clock.now(), until: None, filter: None, limit: 1 };
        let answer = match engine.okta.logs_url(&query) {
            Ok(url) => tokio::select! {
                answer = engine.okta.fetch_page(&url) => answer,
                () = stop.cancelled() => return None,
            },
            Err(error) => Err(error),
        };
        use OktaErrorKind::{BadRequest, FilterRefused, ForeignNext};
        let date = match &answer {
            Ok(head) => Some(head.date),
            Err(error) if matches!(error.kind, BadRequest | FilterRefused | ForeignNext) => error.exchange.date,
            Err(_) => None,
        };
        let error = match (date, answer) {
            (None, Err(error)) => error,
            (date, _) => {
                if told.is_some() {
                    note(engine.store.set_standstill(None, engine.clock.now()).await);
                }
                return date;
            }
        };
        attempt += 1;
        let (gist, words) = (error.gist(), error.to_failure().detail);
        if told.as_ref() != Some(&gist) {
            warn!("the log cannot be read yet: {words}");
            engine.pulse.problem(&words);
            let standstill = Standstill { words, for_a_person: error.is_for_a_person() };
            note(engine.store.set_standstill(Some(standstill), engine.clock.now()).await);
            told = Some(gist);
        }
        let for_a_person = matches!(error.kind, OktaErrorKind::Unauthorized | OktaErrorKind::Forbidden);
        let schedule = if for_a_person { FOR_A_PERSON } else { PASSING };
        tokio::select! {
            () = tokio::time::sleep(schedule.pause(attempt, "start")) => {}
            () = stop.cancelled() => return None,
        }
    }
}

/// What `status` is not told is no harm.
fn note(told: Result<(), StoreError>) {
    if let Err(error) = told {
        warn!("{error}");
    }
}

fn cause(error: &dyn std::error::Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(from: StartFrom, expected: &str) {
        let okta_now: Timestamp = "2026-08-24T10:00:00Z".parse().unwrap();
        assert_eq!(start(&from, okta_now).to_string(), expected);
    }

    #[test]
    fn the_first_start_counts_by_oktas_clock_and_never_before_what_okta_keeps() {
        check(StartFrom::Now, "2026-08-24T10:00:00Z");
        check(StartFrom::Ago(Duration::from_secs(3600)), "2026-08-24T09:00:00Z");
        check(StartFrom::At("2026-08-01T00:00:00Z".parse().unwrap()), "2026-08-01T00:00:00Z");
        check(StartFrom::At("2020-01-01T00:00:00Z".parse().unwrap()), "2026-05-26T10:00:00Z");
    }
}
