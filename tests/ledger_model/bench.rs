//! Does every command to both, the file and the model, and compares them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use okta_responder::config::values::Limit;
use okta_responder::config::{GuardConfig, LimitsConfig, Mode};
use okta_responder::guard::{Guard, Judge};
use okta_responder::model::action::{ActionState, Happening};
use okta_responder::model::ids::{ActionId, EventId, IdempotencyKey, RunId, StreamId};
use okta_responder::model::outcome::Receipt;
use okta_responder::store::{
    ActionFilter, ActionRow, AttemptEnd, ChangesOf, Decision, Delayed, DelayedPlan, EventFilter, EventVerdict, Keep,
    NewAction, NewEvent, NewStream, PageCommit, PersonChange, PersonError, PlannedRun, Preparation, Prepared,
    RunFilter, Store, StoreError, StreamKind,
};
use tempfile::TempDir;

use crate::commands::{Command, DAY, End, KINDS, Kept, Pick, Prepare, Run, Step, Told, Verdict};
use crate::ledger::{self, Attempt, Ledger, Stream, Taken, UNIVERSE};

const FILE: &str = "state.db";
const SOURCE: &str = "okta";

pub struct Bench {
    dir: TempDir,
    store: Store,
    ledger: Ledger,
    now: i64,
    /// Pages so far, which name their cursors.
    pages: u32,
    /// Runs so far.
    serial: usize,
    /// Every row that an event ever had.
    event_rows: Vec<(i64, usize)>,
    /// The greatest row of each table so far: a number is never given twice.
    greatest: [i64; 3],
    /// By the key of what was sent: its row, and since when that was there.
    sent: BTreeMap<String, (i64, i64)>,
}

impl Bench {
    pub async fn new() -> Self {
        let dir = in_memory();
        let store = Store::open(&dir.path().join(FILE)).unwrap();
        let ledger = Ledger::default();
        let (event_rows, greatest, sent) = (Vec::new(), [0; 3], BTreeMap::new());
        let mut bench = Self { dir, store, ledger, now: 0, pages: 0, serial: 0, event_rows, greatest, sent };
        bench.begin(Stream::new(true, false)).await;
        bench
    }

    /// One event each, with what is planned for it.
    pub async fn begin_with(&mut self, beginning: &[Vec<Run>]) {
        for (event, runs) in beginning.iter().enumerate() {
            self.page(Pick::first(), &[event], false, false).await;
            self.decide(Pick::first(), false, &Verdict::Decided(runs.clone())).await;
        }
    }

    pub async fn run(&mut self, command: &Command) {
        match command {
            Command::Page { stream, events, stale, last } => self.page(*stream, events, *stale, *last).await,
            Command::BeginBackfill { execute } => self.begin(Stream::new(false, *execute)).await,
            Command::CancelBackfill(pick) => self.cancel_backfill(*pick).await,
            Command::Restart(pick) => self.restart(*pick).await,
            Command::Decide { pick, late, verdict } => self.decide(*pick, *late, verdict).await,
            Command::Prepare { pick, late, result } => self.prepare(*pick, *late, *result).await,
            Command::Claim { most } => self.claim(*most).await,
            Command::End { pick, end, pause } => self.end(*pick, *end, *pause).await,
            Command::ReadBack { pick, late, about, told, pause } => {
                self.read_back(*pick, *late, *about, *told, *pause).await;
            }
            Command::Person { pick, late, change } => self.person(*pick, *late, *change).await,
            Command::Pause(paused) => self.pause(*paused).await,
            Command::Guard(policy) => self.ledger.policy = *policy,
            Command::StopPlaybook(playbook) => self.stop_playbook(playbook).await,
            Command::LetGoOn(playbook) => self.let_go_on(playbook).await,
            Command::ExpireApprovals(wait) => self.expire_approvals(*wait).await,
            Command::Pass(seconds) => self.now += seconds,
            Command::OktaAhead(seconds) => self.ledger.okta_ahead = *seconds,
            Command::Prune { days, poll, kept } => self.prune(*days, *poll, *kept).await,
            Command::SetBack(seconds) => self.set_back(*seconds).await,
            Command::Reopen { killed } => self.reopen(*killed).await,
        }
    }

    /// Ends the process and begins a new one. A killed one leaves the file and its log as they are on the disk.
    pub async fn reopen(&mut self, killed: bool) {
        let next = in_memory();
        if !killed {
            // The last handle closes the file; a new one may open it meanwhile.
            self.store = Store::open(&self.dir.path().join(FILE)).unwrap();
        } else {
            for file in [FILE.to_owned(), format!("{FILE}-wal")] {
                std::fs::copy(self.dir.path().join(&file), next.path().join(&file)).unwrap();
            }
            self.store = Store::open(&next.path().join(FILE)).unwrap();
            self.dir = next;
        }
        assert_eq!(
            self.store.mark_lost(self.at(), |_| Duration::ZERO).await.unwrap(),
            self.ledger.mark_lost(self.now),
            "lost attempts"
        );
    }

    fn at(&self) -> Timestamp {
        at(self.now)
    }
}

/// One command each.
impl Bench {
    async fn begin(&mut self, stream: Stream) {
        let new = NewStream {
            source: SOURCE.to_owned(),
            kind: if stream.live { StreamKind::Live } else { StreamKind::Backfill },
            query: String::new(),
            since: at(0),
            until: (!stream.live).then(|| at(100)),
            execute: stream.execute,
        };
        let id = self.store.create_stream(new, self.at()).await.unwrap();
        self.ledger.streams.push(stream);
        assert_eq!(id, stream_id(self.ledger.streams.len() - 1));
    }

    async fn page(&mut self, stream: Pick, events: &[usize], stale: bool, last: bool) {
        let stream = self.stream(stream);
        let last = last && !self.ledger.streams[stream].live;
        self.pages += 1;
        let next = format!("cursor-{}", self.pages);
        let asked = if stale { Some("stale".to_owned()) } else { self.ledger.streams[stream].cursor.clone() };
        let page = PageCommit {
            stream: stream_id(stream),
            asked,
            next_url: next.clone(),
            events: events.iter().map(|event| new_event(*event)).collect(),
            unwanted: 0,
            quarantined: Vec::new(),
            source_now: at(self.now + self.ledger.okta_ahead),
            last,
        };
        let counts = match self.store.commit_page(page, self.at()).await {
            Ok(counts) => Some((counts.stored, counts.duplicates)),
            Err(StoreError::CursorMoved) => None,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(counts, self.ledger.commit_page(stream, stale, events, &next, last, self.now));
        self.learn_events().await;
    }

    async fn cancel_backfill(&mut self, pick: Pick) {
        let stream = self.stream(pick);
        if !self.ledger.streams[stream].live {
            let cancelled = self.store.cancel_backfill(stream_id(stream), self.at()).await.unwrap();
            assert_eq!(cancelled, self.ledger.cancel_backfill(stream));
        }
    }

    async fn restart(&mut self, pick: Pick) {
        let number = self.stream(pick);
        let stream = &mut self.ledger.streams[number];
        stream.restarts += 1;
        stream.cursor = None;
        stream.query = format!("query {}", stream.restarts);
        let query = stream.query.clone();
        self.store.restart_stream(stream_id(number), query, self.at(), self.at()).await.unwrap();
    }

    async fn decide(&mut self, pick: Pick, late: bool, verdict: &Verdict) {
        let due: Vec<_> = self.ledger.undecided(self.now).into_iter().map(|(row, _)| row).collect();
        let every: Vec<_> = self.event_rows.iter().map(|(row, _)| *row).collect();
        let Some(row) = pick.of(if late { &every } else { &due }) else { return };
        let event = self.event_rows.iter().find(|(known, _)| *known == row).unwrap().1;
        let (told, runs) = match verdict {
            Verdict::Decided(runs) => (EventVerdict::Decided, planned(event, runs, self.now)),
            Verdict::Skipped => (EventVerdict::Skipped("own".to_owned()), Vec::new()),
            Verdict::Superseded => (EventVerdict::Superseded, Vec::new()),
            Verdict::Postponed(pause) => {
                let later = EventVerdict::Postponed { until: at(self.now + pause), reason: "later".to_owned() };
                (later, Vec::new())
            }
        };
        let decision = Decision { event: EventId(row), verdict: told, runs };
        let written = self.store.commit_decisions(vec![decision], self.at()).await.unwrap();
        assert_eq!(written, self.ledger.commit_decision(row, verdict, &mut self.serial, self.now), "new actions");
        self.learn_actions().await;
    }

    async fn prepare(&mut self, pick: Pick, late: bool, result: Prepare) {
        let open = if late { self.ledger.rows() } else { self.ledger.preparable(self.now) };
        let Some(row) = pick.of(&open) else { return };
        let serial = self.ledger.action(row).run;
        let run = self.ledger.runs.iter().find(|run| run.serial == serial).unwrap().id.unwrap();
        let looked_at = Preparation {
            action: ActionId(row),
            run: RunId(run),
            facts: None,
            result: match result {
                Prepare::Later(pause) => Err((at(self.now + pause), "later".to_owned())),
                Prepare::Ends(happening) => Ok(prepared(happening, "prepared", Some("late".to_owned()))),
            },
        };
        self.store.commit_preparations(vec![looked_at], self.at()).await.unwrap();
        self.ledger.prepare(row, result, self.now);
    }

    async fn claim(&mut self, most: usize) {
        let claims = self.store.claim_ready(self.at(), most, self.judge()).await.unwrap();
        let taken: Vec<_> = claims.taken.iter().map(|taken| taken.action.id.0).collect();
        let stopped: Vec<_> = claims.stopped.iter().map(|stopped| stopped.action.0).collect();
        assert_eq!((taken, stopped), self.ledger.claim(most, self.now), "claimed, and stopped, in this order");
        for taken in claims.taken {
            let claimed = taken.action;
            let action = self.ledger.action(claimed.id.0);
            assert_eq!(taken.call.key, key(action.event, action.playbook, &action.step));
            assert_eq!((claimed.attempt, claimed.retry_from), (action.attempts, at(action.retry_from)));
            let this = (claimed.id.0, action.created);
            let first = *self.sent.entry(claimed.key.as_str().to_owned()).or_insert(this);
            if first.0 != this.0 {
                // Less a day for clocks that were set back.
                assert!(self.now - first.1 > 89 * DAY, "{claimed:?} was sent before, by {}", first.0);
                self.sent.insert(claimed.key.as_str().to_owned(), this);
            }
        }
    }

    /// The guard of the configuration as it is now.
    fn judge(&self) -> Judge {
        let policy = self.ledger.policy;
        let limit = |most: Option<u32>| most.map_or(Limit::Unlimited, Limit::Most);
        let config = GuardConfig {
            mode: if policy.observe { Mode::Observe } else { Mode::Enforce },
            protected_users: policy.protect.then(|| ledger::PROTECTED.to_owned()).into_iter().collect(),
            max_event_age: None,
            limits: LimitsConfig {
                overall: limit(policy.overall),
                per_playbook: limit(policy.per_playbook),
                per_connector: Limit::Unlimited,
                ..LimitsConfig::default()
            },
            alarm: None,
            ..GuardConfig::default()
        };
        Judge::new(Arc::new(Guard::new(&config, [])), Arc::default(), self.at(), at(self.now - 3600))
    }

    async fn stop_playbook(&mut self, playbook: &'static str) {
        let stopped = self.store.stop_playbook(playbook, "eve", self.at()).await.unwrap();
        assert_eq!(stopped, self.ledger.stop_playbook(playbook, self.now));
    }

    async fn let_go_on(&mut self, playbook: &str) {
        let let_go = self.store.let_go_on(playbook, "eve", self.at()).await.unwrap();
        assert_eq!(let_go.was_stopped.then_some(let_go.actions), self.ledger.let_go_on(playbook, self.now));
    }

    async fn expire_approvals(&mut self, wait: i64) {
        let before = self.now - wait;
        let expired = self.store.expire_approvals(at(before), "too late".to_owned(), self.at()).await.unwrap();
        assert_eq!(expired, self.ledger.expire_approvals(before, self.now), "approvals that expired");
    }

    async fn prune(&mut self, days: i64, poll: bool, kept: Kept) {
        self.now += days * DAY;
        if poll {
            self.page(Pick::first(), &[], false, false).await;
        }
        let [events, runs, keys] =
            [kept.events, kept.runs, kept.keys].map(|days| Duration::from_secs((days * DAY).unsigned_abs()));
        let pruned = self.store.prune(Keep { events, runs, keys }, self.at()).await.unwrap();
        assert_eq!(pruned.by, self.ledger.prunes_by(self.now).map(at));
        let taken = Taken { bodies: pruned.bodies, runs: pruned.runs, events: pruned.events, keys: pruned.keys };
        assert_eq!(taken, self.ledger.prune(kept, self.now), "what is taken away, as of {:?}", pruned.by);
    }

    async fn set_back(&mut self, seconds: i64) {
        self.now -= seconds;
        let (longest, longest_wait) = (50, 60);
        let [due, wait] = [longest, longest_wait].map(|seconds: i64| Duration::from_secs(seconds.unsigned_abs()));
        let moved = self.store.pull_back(self.at(), due, wait).await.unwrap();
        assert_eq!(moved, self.ledger.pull_back(self.now, longest, longest_wait), "pulled back");
    }

    async fn end(&mut self, pick: Pick, end: End, pause: i64) {
        let Some(row) = pick.of(&self.ledger.in_state(ActionState::Started)) else { return };
        let (outcome, happening) = ledger::of_end(end);
        let end_of = AttemptEnd {
            outcome: Some(outcome),
            reason: Some("because"),
            ..self.attempt_end(row, Some(happening), pause)
        };
        self.store.record_outcome(end_of, self.at()).await.unwrap();
        self.ledger.end(row, end, pause, self.now);
    }

    async fn read_back(&mut self, pick: Pick, late: bool, about: Option<u32>, told: Told, pause: i64) {
        let unknown = if late { self.ledger.rows() } else { self.ledger.in_state(ActionState::Unknown) };
        let Some(row) = pick.of(&unknown) else { return };
        let happening = ledger::of_told(told);
        let last = self.ledger.action(row).made.last().map_or(0, |attempt| attempt.number);
        let attempt = about.map(|back| last.saturating_sub(back));
        let verdict = AttemptEnd { attempt, ..self.attempt_end(row, happening, pause) };
        let recorded = self.store.record_outcome(verdict, self.at()).await;
        let fits = self.ledger.read_back(row, attempt, told, pause, self.now);
        match recorded {
            Ok(()) => assert!(fits || happening.is_none(), "a verdict that came too late was taken"),
            Err(StoreError::Illegal(_)) => assert!(!fits, "a verdict was refused"),
            Err(error) => panic!("{error}"),
        }
    }

    fn attempt_end(&self, row: i64, happening: Option<Happening>, pause: i64) -> AttemptEnd {
        let success = matches!(happening, Some(Happening::Succeeded | Happening::FoundDone));
        AttemptEnd {
            action: ActionId(row),
            attempt: None,
            outcome: None,
            reason: Some("told"),
            detail: Some("so".to_owned()),
            happening,
            receipt: success.then(|| Receipt::note("done")),
            due: Some(at(self.now + pause)),
        }
    }

    async fn person(&mut self, pick: Pick, late: bool, change: PersonChange) {
        let every = if late { self.ledger.rows() } else { self.ledger.changeable(change, self.now) };
        let Some(row) = pick.of(&every) else { return };
        let changed = self.store.change_by_person(ActionId(row), change, self.at()).await;
        let done = self.ledger.person(row, change, self.now);
        match changed {
            Ok(state) => {
                assert!(done.is_ok() && state == self.ledger.action(row).state, "{change:?} was done: {state}");
            }
            Err(PersonError::WrongState { state, .. }) => {
                assert_eq!(done, Err(false), "{change:?} was refused from {state}");
            }
            Err(PersonError::RecordGone(_)) => assert_eq!(done, Err(true), "{change:?} was refused"),
            Err(error) => panic!("{error}"),
        }
    }

    async fn pause(&mut self, paused: bool) {
        let changed = self.store.set_paused(paused, self.at()).await.unwrap();
        assert_eq!(changed, self.ledger.paused.is_some() != paused);
        self.ledger.paused = paused.then(|| self.ledger.paused.unwrap_or(self.now));
    }

    fn stream(&self, pick: Pick) -> usize {
        let every: Vec<usize> = (0..self.ledger.streams.len()).collect();
        pick.of(&every).unwrap_or_default()
    }
}

/// Rows of what is new: the file tells them. They grow in the order in which things were stored.
impl Bench {
    async fn learn_events(&mut self) {
        let mut rows = self.store.list_events(EventFilter::default()).await.unwrap();
        rows.reverse();
        for event in self.ledger.events.iter_mut().filter(|event| event.id.is_none()) {
            let row = rows.iter().find(|row| row.id > self.greatest[0]).expect("a row for every stored event");
            assert_eq!(row.uuid, ledger::uuid(event.event));
            event.id = Some(row.id);
            self.greatest[0] = row.id;
            self.event_rows.push((row.id, event.event));
        }
    }

    async fn learn_actions(&mut self) {
        let mut runs = self.store.list_runs(RunFilter::default()).await.unwrap();
        runs.reverse();
        for run in self.ledger.runs.iter_mut().filter(|run| run.id.is_none()) {
            let row = runs.iter().find(|row| row.id > self.greatest[1]).expect("a row for every run");
            run.id = Some(row.id);
            self.greatest[1] = row.id;
        }
        let actions = self.actions().await;
        for action in self.ledger.actions.iter_mut().filter(|action| action.id.is_none()) {
            let row = actions.iter().find(|row| row.id > self.greatest[2]).expect("a row for every action");
            action.id = Some(row.id);
            self.greatest[2] = row.id;
        }
    }

    /// Oldest first.
    async fn actions(&self) -> Vec<ActionRow> {
        let mut rows = self.store.list_actions(ActionFilter::default()).await.unwrap();
        rows.reverse();
        rows
    }
}

/// Whether the file holds what the model holds, and answers as it does.
impl Bench {
    pub async fn compare(&self) {
        self.compare_streams().await;
        self.compare_events().await;
        self.compare_runs().await;
        self.compare_actions().await;
        self.compare_answers().await;
    }

    async fn compare_streams(&self) {
        let rows = self.store.list_streams().await.unwrap().into_iter();
        let shown: Vec<_> = rows
            .map(|row| {
                let counts = (row.pages, row.stored, row.duplicates, row.restarts);
                (row.id, row.state, row.query, row.next_url, row.newest, counts)
            })
            .collect();
        let kept = self.ledger.streams.iter().enumerate().map(|(number, stream)| {
            let counts = (stream.pages, stream.stored, stream.duplicates, stream.restarts);
            let newest = stream.newest.map(at);
            (stream_id(number).0, stream.state.to_owned(), stream.query.clone(), stream.cursor.clone(), newest, counts)
        });
        assert_eq!(shown, kept.collect::<Vec<_>>(), "streams");
    }

    async fn compare_events(&self) {
        let mut shown: Vec<_> = self
            .store
            .list_events(EventFilter::default())
            .await
            .unwrap()
            .into_iter()
            .map(|row| (Some(row.id), row.uuid, row.state, row.reason, row.stream, row.received_at))
            .collect();
        shown.reverse();
        let kept = self.ledger.events.iter().map(|event| {
            let (uuid, reason) = (ledger::uuid(event.event), event.reason.map(str::to_owned));
            (event.id, uuid, event.state.to_owned(), reason, stream_id(event.stream).0, at(event.received))
        });
        assert_eq!(shown, kept.collect::<Vec<_>>(), "events");
        for event in &self.ledger.events {
            let (row, body) = self.store.find_event(&ledger::uuid(event.event)).await.unwrap().expect("it was shown");
            assert_eq!(body.is_some(), event.body, "the record of {row:?}");
        }
    }

    /// No event has two runs of one playbook.
    async fn compare_runs(&self) {
        let mut shown: Vec<_> = self
            .store
            .list_runs(RunFilter::default())
            .await
            .unwrap()
            .into_iter()
            .map(|row| (Some(row.id), row.event_uuid, row.playbook, row.mode, row.created_at))
            .collect();
        shown.reverse();
        let kept = self.ledger.runs.iter().map(|run| {
            let mode = if run.observe { "observe" } else { "enforce" };
            (run.id, ledger::uuid(run.event), run.playbook.to_owned(), mode.to_owned(), at(run.created))
        });
        assert_eq!(shown, kept.collect::<Vec<_>>(), "runs");
        let asked: BTreeSet<_> = shown.iter().map(|run| (&run.1, &run.2)).collect();
        assert_eq!(asked.len(), shown.len(), "an event with two runs of one playbook");
    }

    async fn compare_actions(&self) {
        let rows = self.actions().await;
        let mut under_way: BTreeMap<&str, i64> = BTreeMap::new();
        for (row, kept) in rows.iter().zip(&self.ledger.actions) {
            let which = format!("action {}: {kept:?}", row.id);
            assert_eq!(Some(row.id), kept.id, "{which}");
            assert_eq!(row.state, kept.state.as_str(), "{which}");
            assert_eq!((&row.step, row.action.as_str(), row.playbook.as_str()), (&kept.step, kept.kind, kept.playbook));
            assert_eq!(row.key, key(kept.event, kept.playbook, &kept.step).as_str(), "{which}");
            assert_eq!((&row.lane, row.attempts), (&kept.lane, kept.attempts), "{which}");
            assert_eq!(row.due, kept.is_open().then(|| at(kept.due)), "{which}");
            assert_eq!((row.reason.as_deref(), row.error.is_some()), (kept.reason, kept.error), "{which}");
            assert_eq!((row.params.is_some(), row.receipt.is_some()), (kept.prepared, kept.receipt), "{which}");
            assert_eq!((row.created_at, row.finished_at), (at(kept.created), kept.finished.map(at)), "{which}");
            let attempts = self.attempts(row.id).await;
            assert_eq!(attempts, kept.made, "{which}");
            let open = attempts.iter().filter(|attempt| attempt.outcome.is_none()).count();
            assert_eq!(open, usize::from(row.state == "started"), "an attempt is open while its action is under way");
            if row.state == "started"
                && let Some(lane) = &row.lane
            {
                let other = under_way.insert(lane, row.id);
                assert!(other.is_none(), "{other:?} and {} are under way on {lane}", row.id);
            }
        }
        assert_eq!(rows.len(), self.ledger.actions.len(), "actions");
        let keys: BTreeSet<_> = rows.iter().map(|row| &row.key).collect();
        assert_eq!(keys.len(), rows.len(), "two actions with one key");
    }

    async fn attempts(&self, row: i64) -> Vec<Attempt> {
        let attempts = self.store.list_attempts(row).await.unwrap();
        attempts
            .into_iter()
            .map(|row| Attempt {
                number: row.number,
                started: seconds(row.started_at),
                ended: row.ended_at.map(seconds),
                outcome: row.outcome,
            })
            .collect()
    }

    async fn compare_answers(&self) {
        let (store, ledger, now) = (&self.store, &self.ledger, self.at());
        let undecided = store.undecided(now, 100, &KINDS[..1], Vec::new()).await.unwrap();
        let shown: Vec<_> = undecided.iter().map(|event| (event.id.0, event.superseded)).collect();
        assert_eq!(shown, ledger.undecided(self.now), "what is to be decided");
        let preparable = store.preparable(now, 100).await.unwrap();
        let shown: Vec<_> = preparable.iter().map(|action| action.id.0).collect();
        assert_eq!(shown, ledger.preparable(self.now), "what is to be prepared");
        let unsettled = store.unsettled(now, 100).await.unwrap();
        let shown: Vec<_> = unsettled.iter().map(|action| action.id.0).collect();
        let unknown = ledger.by_due(|action| action.state == ActionState::Unknown && action.due <= self.now);
        assert_eq!(shown, unknown, "what is to be read back");
        assert_eq!(store.next_due(now).await.unwrap(), ledger.next_due(self.now).map(at), "when something is due");
        for user in ["ann", "ben"] {
            assert_eq!(store.newest_risk(user).await.unwrap().as_deref(), ledger.newest_risk(user), "{user}");
            assert_eq!(
                store.has_open_changes(user, ChangesOf::All).await.unwrap(),
                ledger.has_open_changes(user),
                "{user}"
            );
        }
        for stream in 0..ledger.streams.len() {
            let shown = store.unfinished_of(stream_id(stream)).await.unwrap();
            assert_eq!(shown, ledger.unfinished_of(stream), "unfinished of stream {stream}");
        }
        let trips = store.trips().await.unwrap();
        let shown: Vec<_> = trips.iter().map(|trip| (trip.playbook.as_str(), trip.action, trip.since)).collect();
        let kept = ledger.trips.iter().rev().filter(|trip| trip.ended.is_none());
        let kept = kept.map(|trip| (trip.playbook, trip.action, at(trip.began)));
        assert_eq!(shown, kept.collect::<Vec<_>>(), "playbooks that are stopped");
        let status = store.status(now).await.unwrap();
        assert_eq!(
            status.actions,
            counted(ledger.actions.iter().map(|action| action.state.as_str())),
            "actions by state"
        );
        let delays = ledger.actions.iter().filter(|action| action.state == ActionState::Waiting);
        let delays: Vec<_> = delays.filter_map(|action| action.not_before).filter(|end| *end > self.now).collect();
        assert_eq!(status.delayed, (delays.len() as u64, delays.iter().min().map(|end| at(*end))), "delayed");
        assert_eq!(status.events, counted(ledger.events.iter().map(|event| event.state)), "events by state");
        assert_eq!((status.runs, status.paused_since), (ledger.runs.len() as u64, ledger.paused.map(at)));
    }
}

/// A directory whose files need no disk, where there is such a thing: what is tested here is not the disk.
fn in_memory() -> TempDir {
    let shared_memory = PathBuf::from("/dev/shm");
    tempfile::tempdir_in(shared_memory).or_else(|_| tempfile::tempdir()).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn seconds(moment: Timestamp) -> i64 {
    moment.as_second() - 1_800_000_000
}

fn stream_id(number: usize) -> StreamId {
    StreamId(number as i64 + 1)
}

fn key(event: usize, playbook: &str, step: &str) -> IdempotencyKey {
    IdempotencyKey::derive(SOURCE, &ledger::uuid(event), playbook, step)
}

fn new_event(event: usize) -> NewEvent {
    assert!(event < UNIVERSE);
    NewEvent {
        uuid: ledger::uuid(event),
        event_type: "user.risk.detect".to_owned(),
        published: at(ledger::published(event)),
        subject: ledger::subject(event).map(str::to_owned),
        risk: ledger::risk(event),
        traits: Default::default(),
        body: "{}".to_owned(),
    }
}

fn planned(event: usize, runs: &[Run], now: i64) -> Vec<PlannedRun> {
    let of_run = |run: &Run| PlannedRun {
        playbook: run.playbook.to_owned(),
        observe: run.observe,
        facts: "{}".to_owned(),
        actions: (0..)
            .zip(&run.steps)
            .map(|(number, step)| new_action(event, run.playbook, number, step, now))
            .collect(),
    };
    runs.iter().map(of_run).collect()
}

fn new_action(event: usize, playbook: &str, number: usize, step: &Step, now: i64) -> NewAction {
    let name = ledger::step_name(number);
    NewAction {
        kind: step.kind,
        key: key(event, playbook, &name),
        subject: ledger::subject(event).map(str::to_owned),
        lane: step.lane.map(str::to_owned),
        in_doubt: step.in_doubt,
        after: ledger::after(number, step.after),
        wait_until: step.wait.map(|wait| at(now + wait)),
        preparation: step.begins.map(|begins| prepared(begins, "planned", None)),
        delayed: step.delay.map(|delay| Delayed {
            delay: Duration::from_secs(delay as u64),
            params: Some("{}".to_owned()),
            plan: DelayedPlan::default(),
        }),
        step: name,
    }
}

fn prepared(happening: Happening, reason: &'static str, lane: Option<String>) -> Prepared {
    let params = ledger::has_params(happening).then(|| "{}".to_owned());
    Prepared { happening, params, lane, reason: Some(reason), error: None }
}

fn counted<'a>(words: impl Iterator<Item = &'a str>) -> Vec<(String, u64)> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    counts.into_iter().map(|(word, count)| (word.to_owned(), count)).collect()
}
