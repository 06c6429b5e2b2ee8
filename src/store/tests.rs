//! The store as its users see it: what a transaction promises, and what it refuses.

mod guard;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use futures_util::future::join_all;
use tempfile::TempDir;

use super::*;
use crate::config::{GuardConfig, LimitsConfig};
use crate::guard::limits::HOUR;
use crate::guard::{Guard, Judge};
use crate::model::action::{ActionState, Happening, InDoubt};
use crate::model::ids::{ActionId, IdempotencyKey, RunId, StreamId};
use crate::model::outcome::{GroupNote, Receipt};

/// The kinds of action that reset risk.
const RESETTING: [&str; 2] = ["okta.group.add_user", "okta.user.clear_sessions"];

/// A state file in a directory of its own.
struct Inbox {
    store: Store,
    stream: StreamId,
    dir: TempDir,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn file(dir: &TempDir) -> PathBuf {
    dir.path().join("state.db")
}

fn stream(kind: StreamKind, execute: bool) -> NewStream {
    NewStream {
        source: "okta".to_owned(),
        kind,
        query: String::new(),
        since: at(0),
        until: (kind == StreamKind::Backfill).then(|| at(1000)),
        execute,
    }
}

/// A risk event of a user, published at a second.
fn event(uuid: &str, user: &str, second: i64) -> NewEvent {
    NewEvent {
        uuid: uuid.to_owned(),
        event_type: "user.risk.detect".to_owned(),
        published: at(second),
        subject: Some(user.to_owned()),
        risk: Some("HIGH"),
        traits: Default::default(),
        body: format!("{{\"uuid\":\"{uuid}\"}}"),
    }
}

fn page(stream: StreamId, asked: Option<&str>, next: &str, events: Vec<NewEvent>) -> PageCommit {
    PageCommit {
        stream,
        asked: asked.map(str::to_owned),
        next_url: next.to_owned(),
        events,
        unwanted: 0,
        quarantined: Vec::new(),
        source_now: at(1),
        last: false,
    }
}

fn prepared(happening: Happening) -> Prepared {
    Prepared { happening, params: Some("{}".to_owned()), lane: None, reason: None, error: None }
}

/// A step that may be claimed at once.
fn ready(step: &str) -> NewAction {
    NewAction {
        step: step.to_owned(),
        kind: "okta.group.add_user",
        key: IdempotencyKey::derive("okta", "replaced", "p", step),
        subject: None,
        lane: None,
        in_doubt: InDoubt::Ask,
        after: Vec::new(),
        wait_until: None,
        preparation: Some(prepared(Happening::Prepared)),
    }
}

fn waiting(step: &str, after: &[&str]) -> NewAction {
    let after = after.iter().map(|step| (*step).to_owned()).collect();
    NewAction { after, preparation: None, ..ready(step) }
}

fn in_lane(step: &str, lane: &str) -> NewAction {
    NewAction { lane: Some(lane.to_owned()), ..ready(step) }
}

/// A guard that stops nothing.
fn judge(second: i64) -> Judge {
    judge_of(GuardConfig { limits: LimitsConfig::unlimited(), ..GuardConfig::default() }, second)
}

fn judge_of(config: GuardConfig, second: i64) -> Judge {
    let hour_began = at(second).checked_sub(HOUR).unwrap();
    Judge::new(Arc::new(Guard::new(&config, [])), Arc::default(), at(second), hour_began)
}

fn end(action: ActionId, outcome: Option<&'static str>, happening: Happening) -> AttemptEnd {
    AttemptEnd {
        action,
        outcome,
        reason: None,
        detail: None,
        happening: Some(happening),
        receipt: None,
        due: None,
        attempt: None,
    }
}

impl Inbox {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&file(&dir)).unwrap();
        let stream = store.create_stream(stream(StreamKind::Live, false), at(0)).await.unwrap();
        Self { store, stream, dir }
    }

    /// Stores events behind whatever is stored.
    async fn receive(&self, events: Vec<NewEvent>) -> PageCounts {
        let cursor = self.store.stream(self.stream).await.unwrap().unwrap().next_url;
        self.store.commit_page(page(self.stream, cursor.as_deref(), "next", events), at(1)).await.unwrap()
    }

    /// The events that are to be decided, by uuid.
    async fn undecided(&self, second: i64) -> Vec<String> {
        let pending = self.store.undecided(at(second), 100, &RESETTING, Vec::new()).await.unwrap();
        let mut uuids = Vec::new();
        for event in pending {
            uuids.push(self.store.find_event(&event.id.0.to_string()).await.unwrap().unwrap().0.uuid);
        }
        uuids
    }

    /// Ends an event without a run.
    async fn close(&self, uuid: &str, verdict: EventVerdict) {
        let event = self.pending(uuid).await.id;
        self.store.commit_decisions(vec![Decision { event, verdict, runs: Vec::new() }], at(1)).await.unwrap();
    }

    async fn pending(&self, uuid: &str) -> PendingEvent {
        let id = self.store.find_event(uuid).await.unwrap().unwrap().0.id;
        self.store
            .undecided(at(1), 100, &RESETTING, Vec::new())
            .await
            .unwrap()
            .into_iter()
            .find(|event| event.id.0 == id)
            .unwrap()
    }

    /// Receives an event of its own and plans a run of these actions for it. Returns their ids.
    async fn plan(&self, uuid: &str, actions: Vec<NewAction>) -> Vec<ActionId> {
        self.receive(vec![event(uuid, uuid, 0)]).await;
        let decision = self.decision(uuid, actions).await;
        self.store.commit_decisions(vec![decision], at(1)).await.unwrap();
        let mut rows = self.rows().await;
        let run = rows.last().unwrap().run;
        rows.retain(|row| row.run == run);
        rows.into_iter().map(|row| ActionId(row.id)).collect()
    }

    async fn decision(&self, uuid: &str, mut actions: Vec<NewAction>) -> Decision {
        for action in &mut actions {
            action.key = IdempotencyKey::derive("okta", uuid, "p", &action.step);
            action.subject.get_or_insert_with(|| uuid.to_owned());
        }
        let event = self.pending(uuid).await.id;
        let run = PlannedRun { playbook: "p".to_owned(), observe: false, facts: "{}".to_owned(), actions };
        Decision { event, verdict: EventVerdict::Decided, runs: vec![run] }
    }

    /// Every action, oldest first.
    async fn rows(&self) -> Vec<ActionRow> {
        let mut rows = self.store.list_actions(ActionFilter::default()).await.unwrap();
        rows.reverse();
        rows
    }

    async fn state(&self, action: ActionId) -> ActionState {
        let filter = ActionFilter { id: Some(action.0), ..ActionFilter::default() };
        ActionState::parse(&self.store.list_actions(filter).await.unwrap()[0].state).unwrap()
    }

    /// Claims what can be claimed, by step.
    async fn claim(&self, second: i64) -> Vec<String> {
        let claims = self.store.claim_ready(at(second), 100, judge(second)).await.unwrap();
        claims.taken.into_iter().map(|taken| taken.action.step).collect()
    }

    async fn ends(&self, action: ActionId, outcome: &'static str, happening: Happening) {
        self.store.record_outcome(end(action, Some(outcome), happening), at(2)).await.unwrap();
    }

    /// Plans as many actions and leads them to a state in the way the daemon would.
    async fn bring(&self, state: ActionState, count: usize) -> Vec<ActionId> {
        use ActionState as S;
        let happening = match state {
            S::AwaitingApproval => Happening::HeldForApproval,
            S::Skipped => Happening::NotCalledFor,
            S::Refused => Happening::RefusedByGuard,
            _ => Happening::Prepared,
        };
        let mut actions = Vec::new();
        for number in 0..count {
            let step = NewAction { preparation: Some(prepared(happening)), ..ready("step") };
            let step = if state == S::Waiting { waiting("step", &[]) } else { step };
            actions.extend(self.plan(&format!("event-{number}"), vec![step]).await);
        }
        if !matches!(state, S::Waiting | S::Ready | S::AwaitingApproval | S::Skipped | S::Refused | S::Cancelled) {
            assert_eq!(self.claim(1).await.len(), count);
        }
        for action in &actions {
            match state {
                S::Retry => self.ends(*action, "transient", Happening::MayPass).await,
                S::Failed => self.ends(*action, "permanent", Happening::WillNotPass).await,
                S::Succeeded => self.ends(*action, "done", Happening::Succeeded).await,
                S::Unknown | S::Settled | S::NeedsAttention => {
                    self.ends(*action, "unknown", Happening::OutcomeLost).await;
                    let next = match state {
                        S::Settled => Happening::FoundDone,
                        S::NeedsAttention => Happening::CannotTell,
                        _ => continue,
                    };
                    self.store.record_outcome(end(*action, None, next), at(2)).await.unwrap();
                }
                S::Cancelled => {
                    self.store.change_by_person(*action, PersonChange::Cancel, at(2)).await.unwrap();
                }
                _ => {}
            }
            assert_eq!(self.state(*action).await, state);
        }
        actions
    }
}

#[tokio::test]
async fn a_page_that_does_not_follow_the_cursor_changes_nothing() {
    let inbox = Inbox::open().await;
    let first = page(inbox.stream, None, "one", vec![event("a", "u", 0)]);
    inbox.store.commit_page(first.clone(), at(1)).await.unwrap();
    for asked in [None, Some("two")] {
        let late = page(inbox.stream, asked, "three", vec![event("b", "u", 0)]);
        let refused = inbox.store.commit_page(late, at(1)).await;
        assert!(matches!(refused, Err(StoreError::CursorMoved)), "{refused:?}");
    }
    let nobodys = page(StreamId(99), None, "x", Vec::new());
    assert!(matches!(inbox.store.commit_page(nobodys, at(1)).await, Err(StoreError::CursorMoved)));
    let stream = inbox.store.stream(inbox.stream).await.unwrap().unwrap();
    assert_eq!((stream.next_url.as_deref(), stream.stored), (Some("one"), 1));
    assert_eq!(inbox.undecided(1).await, ["a"]);
}

#[tokio::test]
async fn an_event_that_is_known_stays_as_it_is_whichever_stream_brings_it_again() {
    let inbox = Inbox::open().await;
    assert_eq!(inbox.receive(vec![event("a", "u", 0)]).await, PageCounts { stored: 1, duplicates: 0 });
    inbox.plan("b", vec![ready("s")]).await;
    let again = vec![event("a", "u", 0), event("b", "b", 0), event("c", "u", 0), event("c", "u", 0)];
    assert_eq!(inbox.receive(again).await, PageCounts { stored: 1, duplicates: 3 });
    let backfill = inbox.store.create_stream(stream(StreamKind::Backfill, true), at(1)).await.unwrap();
    let last = PageCommit { last: true, ..page(backfill, None, "end", vec![event("a", "u", 0), event("b", "b", 0)]) };
    let counts = inbox.store.commit_page(last, at(1)).await.unwrap();
    assert_eq!(counts, PageCounts { stored: 0, duplicates: 2 });
    assert_eq!(inbox.undecided(1).await, ["a", "c"], "live and undecided as before, and b decided as before");
}

#[tokio::test]
async fn a_stream_that_has_ended_takes_no_more_pages() {
    let inbox = Inbox::open().await;
    let backfill = inbox.store.create_stream(stream(StreamKind::Backfill, false), at(1)).await.unwrap();
    let last = PageCommit { last: true, ..page(backfill, None, "end", Vec::new()) };
    inbox.store.commit_page(last, at(1)).await.unwrap();
    let more = inbox.store.commit_page(page(backfill, Some("end"), "more", vec![event("a", "u", 0)]), at(1)).await;
    assert!(matches!(more, Err(StoreError::CursorMoved)), "{more:?}");
    assert!(inbox.store.active_backfills().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_decision_that_is_written_twice_plans_once() {
    let inbox = Inbox::open().await;
    inbox.receive(vec![event("a", "u", 0)]).await;
    let decision = inbox.decision("a", vec![ready("one"), waiting("two", &["one"])]).await;
    assert_eq!(inbox.store.commit_decisions(vec![decision.clone()], at(1)).await.unwrap(), 2);
    assert_eq!(inbox.store.commit_decisions(vec![decision.clone(), decision], at(1)).await.unwrap(), 0);
    assert_eq!(inbox.rows().await.len(), 2);
    assert_eq!(inbox.store.list_runs(RunFilter::default()).await.unwrap().len(), 1);
    assert!(inbox.undecided(1).await.is_empty());
}

#[tokio::test]
async fn a_lane_is_claimed_one_action_at_a_time_in_event_order() {
    let inbox = Inbox::open().await;
    let add = inbox.plan("a", vec![in_lane("add", "group/u")]).await[0];
    let other = inbox.plan("b", vec![in_lane("other", "group/v"), ready("free")]).await;
    let remove = inbox.plan("c", vec![in_lane("remove", "group/u")]).await[0];
    assert_eq!(inbox.claim(1).await, ["add", "other", "free"]);
    for open in ["transient", "unknown"] {
        let happening = if open == "unknown" { Happening::OutcomeLost } else { Happening::MayPass };
        let retry = AttemptEnd { due: Some(at(50)), ..end(add, Some(open), happening) };
        inbox.store.record_outcome(retry, at(2)).await.unwrap();
        assert!(inbox.claim(10).await.is_empty(), "behind one that is {open}");
        if open == "transient" {
            assert_eq!(inbox.claim(50).await, ["add"]);
        }
    }
    inbox.store.record_outcome(end(add, None, Happening::FoundDone), at(51)).await.unwrap();
    assert_eq!(inbox.claim(51).await, ["remove"]);
    inbox.ends(remove, "done", Happening::Succeeded).await;
    inbox.ends(other[0], "done", Happening::Succeeded).await;
}

#[tokio::test]
async fn a_waiting_action_holds_its_place_in_the_lane() {
    let inbox = Inbox::open().await;
    let run = vec![ready("first"), NewAction { lane: Some("group/u".to_owned()), ..waiting("add", &["first"]) }];
    let add = inbox.plan("a", run).await[1];
    inbox.plan("b", vec![in_lane("remove", "group/u")]).await;
    assert_eq!(inbox.claim(1).await, ["first"]);
    inbox.store.change_by_person(add, PersonChange::Cancel, at(1)).await.unwrap();
    assert_eq!(inbox.claim(1).await, ["remove"]);
}

#[tokio::test]
async fn an_earlier_action_that_a_person_wants_again_waits_for_the_later_one_under_way() {
    let inbox = Inbox::open().await;
    let add = inbox.plan("a", vec![in_lane("add", "group/u")]).await[0];
    let remove = inbox.plan("b", vec![in_lane("remove", "group/u")]).await[0];
    assert_eq!(inbox.claim(1).await, ["add"]);
    inbox.ends(add, "permanent", Happening::WillNotPass).await;
    assert_eq!(inbox.claim(1).await, ["remove"]);
    inbox.store.change_by_person(add, PersonChange::Retry, at(3)).await.unwrap();
    assert!(inbox.claim(3).await.is_empty(), "two requests on one lane at once");
    inbox.ends(remove, "done", Happening::Succeeded).await;
    assert_eq!(inbox.claim(3).await, ["add"]);
}

#[tokio::test]
async fn a_step_is_prepared_when_every_step_before_it_has_ended_or_its_wait_is_over() {
    let inbox = Inbox::open().await;
    let patient = waiting("patient", &["one", "two"]);
    let hasty = NewAction { wait_until: Some(at(30)), ..waiting("hasty", &["one", "two"]) };
    let skipped = NewAction { preparation: Some(prepared(Happening::NotCalledFor)), ..ready("skipped") };
    let free = waiting("free", &["skipped"]);
    let actions = inbox.plan("a", vec![ready("one"), ready("two"), skipped, patient, hasty, free]).await;
    let preparable = async |second| {
        let open = inbox.store.preparable(at(second), 100).await.unwrap();
        open.into_iter().map(|action| action.step).collect::<Vec<_>>()
    };
    assert_eq!(preparable(1).await, ["free"]);
    assert_eq!(preparable(30).await, ["hasty", "free"]);
    assert_eq!(inbox.claim(1).await, ["one", "two"]);
    inbox.ends(actions[0], "done", Happening::Succeeded).await;
    assert_eq!(preparable(1).await, ["free"]);
    inbox.ends(actions[1], "permanent", Happening::WillNotPass).await;
    assert_eq!(preparable(2).await, ["patient", "hasty", "free"]);
    inbox.store.change_by_person(actions[1], PersonChange::Retry, at(3)).await.unwrap();
    assert_eq!(preparable(3).await, ["free"], "a step that is tried again is waited for again");
}

#[tokio::test]
async fn a_look_that_comes_too_late_leaves_the_action_alone() {
    let inbox = Inbox::open().await;
    let action = inbox.plan("a", vec![waiting("s", &[])]).await[0];
    inbox.store.change_by_person(action, PersonChange::Cancel, at(1)).await.unwrap();
    let run = RunId(inbox.rows().await[0].run);
    for result in [Ok(prepared(Happening::Prepared)), Err((at(9), "later".to_owned()))] {
        let late = Preparation { action, run, facts: None, result };
        inbox.store.commit_preparations(vec![late], at(2)).await.unwrap();
        let row = &inbox.rows().await[0];
        assert_eq!((row.state.as_str(), row.params.is_none(), row.attempts), ("cancelled", true, 0));
    }
}

#[tokio::test]
async fn what_the_state_machine_forbids_changes_nothing() {
    let inbox = Inbox::open().await;
    let actions = inbox.plan("a", vec![ready("ready"), waiting("waiting", &[])]).await;
    for action in &actions {
        let before = inbox.state(*action).await;
        let refused = inbox.store.record_outcome(end(*action, Some("done"), Happening::Succeeded), at(2)).await;
        assert!(matches!(refused, Err(StoreError::Illegal(_))), "{refused:?}");
        assert_eq!(inbox.state(*action).await, before);
    }
    assert_eq!(inbox.claim(1).await, ["ready"]);
    inbox.ends(actions[0], "done", Happening::Succeeded).await;
    let row = inbox.rows().await[0].clone();
    let late = AttemptEnd {
        receipt: Some(crate::model::outcome::Receipt::note("late")),
        detail: Some("late".to_owned()),
        ..end(actions[0], Some("transient"), Happening::MayPass)
    };
    assert!(inbox.store.record_outcome(late, at(9)).await.is_err());
    let after = &inbox.rows().await[0];
    assert_eq!((&after.state, &after.error, &after.receipt), (&row.state, &row.error, &row.receipt));
}

/// Keeps the writer busy until it is told to go on, so that what is asked meanwhile ends up in one group.
async fn occupy(store: &Store) -> std::sync::mpsc::Sender<()> {
    let (go_on, wait) = std::sync::mpsc::channel();
    let (started, has_started) = tokio::sync::oneshot::channel();
    let store = store.clone();
    tokio::spawn(async move {
        let job = store.write(move |_| {
            let _ = started.send(());
            let _ = wait.recv();
            Ok(())
        });
        job.await.unwrap();
    });
    has_started.await.unwrap();
    go_on
}

#[tokio::test]
async fn a_job_that_fails_leaves_nothing_behind_and_does_not_spoil_its_group() {
    let inbox = Inbox::open().await;
    inbox.receive(vec![event("a", "u", 0)]).await;
    let go_on = occupy(&inbox.store).await;
    let failing = inbox.store.write(|connection| -> Result<(), StoreError> {
        connection.execute("UPDATE event SET state = 'skipped'", [])?;
        Err(StoreError::CursorMoved)
    });
    let broken = inbox.store.write(|connection| -> Result<(), StoreError> {
        connection.execute("UPDATE event SET state = 'skipped'", [])?;
        connection.execute("UPDATE event SET state = 'no such state'", [])?;
        Ok(())
    });
    let pages = async {
        let first = inbox.store.commit_page(page(inbox.stream, Some("next"), "2", vec![event("b", "v", 0)]), at(1));
        let wrong = inbox.store.commit_page(page(inbox.stream, Some("next"), "3", vec![event("c", "w", 0)]), at(1));
        let second = inbox.store.commit_page(page(inbox.stream, Some("2"), "4", vec![event("d", "x", 0)]), at(1));
        tokio::join!(first, failing, wrong, broken, second)
    };
    let release = async {
        tokio::task::yield_now().await;
        go_on.send(()).unwrap();
    };
    let ((first, failing, wrong, broken, second), ()) = tokio::join!(pages, release);
    assert_eq!((first.unwrap().stored, second.unwrap().stored), (1, 1));
    assert!(matches!(failing, Err(StoreError::CursorMoved)));
    assert!(matches!(wrong, Err(StoreError::CursorMoved)));
    assert!(matches!(broken, Err(StoreError::Sqlite(_))));
    assert_eq!(inbox.undecided(1).await, ["a", "b", "d"]);
    assert_eq!(inbox.store.stream(inbox.stream).await.unwrap().unwrap().next_url.as_deref(), Some("4"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_at_once_each_read_what_they_were_told_is_written() {
    let inbox = Inbox::open().await;
    let mut actions = Vec::new();
    for number in 0..3 {
        let run = (0..100).map(|step| ready(&format!("step-{step}"))).collect();
        actions.extend(inbox.plan(&format!("event-{number}"), run).await);
    }
    assert_eq!(inbox.store.claim_ready(at(1), 1000, judge(1)).await.unwrap().taken.len(), actions.len());
    let ended = actions.iter().map(async |action| {
        inbox.ends(*action, "done", Happening::Succeeded).await;
        assert_eq!(inbox.state(*action).await, ActionState::Succeeded);
    });
    join_all(ended).await;
    assert_eq!(inbox.store.status(at(2)).await.unwrap().actions, [("succeeded".to_owned(), 300)]);
}

#[tokio::test]
async fn an_event_that_is_put_off_holds_back_its_own_user_only() {
    let inbox = Inbox::open().await;
    inbox
        .receive(vec![event("a1", "ann", 0), event("b1", "bob", 1), event("a2", "ann", 2), event("b2", "bob", 3)])
        .await;
    let nobody = NewEvent { subject: None, ..event("n", "", 4) };
    inbox.receive(vec![nobody]).await;
    let put_off = async |uuid: &str, second: i64| {
        let event = inbox.pending(uuid).await.id;
        let verdict = EventVerdict::Postponed { until: at(second), reason: "Okta is away".to_owned() };
        let decision = Decision { event, verdict, runs: Vec::new() };
        assert_eq!(inbox.store.commit_decisions(vec![decision], at(1)).await.unwrap(), 0);
    };
    put_off("n", 60).await;
    put_off("a2", 60).await;
    assert_eq!(inbox.undecided(1).await, ["a1", "b1", "b2"], "what is put off holds back nothing before it");
    put_off("a1", 30).await;
    assert_eq!(inbox.undecided(1).await, ["b1", "b2"]);
    assert_eq!(inbox.store.next_due(at(1)).await.unwrap(), Some(at(30)));
    assert_eq!(inbox.undecided(30).await, ["a1", "b1", "b2"]);
    assert_eq!(inbox.undecided(60).await, ["a1", "b1", "a2", "b2", "n"]);
    let row = inbox.store.find_event("a1").await.unwrap().unwrap().0;
    assert_eq!((row.state.as_str(), row.reason.as_deref()), ("new", Some("Okta is away")));
}

#[tokio::test]
async fn an_event_knows_when_a_reset_of_its_user_was_last_attempted() {
    let inbox = Inbox::open().await;
    let tell = NewAction { kind: "slack.message.post", ..ready("tell") };
    let [reset, _] = inbox.plan("ann", vec![ready("reset"), tell]).await[..] else { panic!("two actions") };
    inbox.receive(vec![event("bob", "bob", 1), event("fall", "ann", 2)]).await;
    assert_eq!(inbox.pending("fall").await.last_reset, None, "it is only planned");
    assert_eq!(inbox.claim(3).await, ["reset", "tell"]);
    assert_eq!(inbox.pending("fall").await.last_reset, Some(at(3)), "it is under way");
    inbox.ends(reset, "transient", Happening::MayPass).await;
    assert_eq!(inbox.pending("fall").await.last_reset, Some(at(3)), "it failed, but may have arrived");
    assert_eq!(inbox.claim(5).await, ["reset"]);
    assert_eq!(inbox.pending("fall").await.last_reset, Some(at(5)));
    assert_eq!(inbox.pending("bob").await.last_reset, None, "another user");
}

#[tokio::test]
async fn an_executing_backfill_holds_its_events_until_it_is_known_which_is_the_newest() {
    let inbox = Inbox::open().await;
    let backfill = inbox.store.create_stream(stream(StreamKind::Backfill, true), at(1)).await.unwrap();
    let plain = NewEvent { risk: None, ..event("plain", "ann", 1) };
    let old = vec![event("old", "ann", 2), plain, event("tie", "bob", 7)];
    inbox.store.commit_page(page(backfill, None, "1", old), at(1)).await.unwrap();
    assert!(inbox.undecided(1).await.is_empty());
    assert_eq!(inbox.store.unfinished_of(backfill).await.unwrap(), 3);
    inbox.receive(vec![event("live", "ann", 5)]).await;
    let last = PageCommit { last: true, ..page(backfill, Some("1"), "2", vec![event("tie2", "bob", 7)]) };
    inbox.store.commit_page(last, at(1)).await.unwrap();
    assert_eq!(inbox.undecided(1).await, ["live", "old", "plain", "tie", "tie2"], "live events come first");
    for (uuid, superseded) in [("live", false), ("old", true), ("plain", false), ("tie", false), ("tie2", false)] {
        assert_eq!(inbox.pending(uuid).await.superseded, superseded, "{uuid}");
    }
    assert_eq!(inbox.pending("old").await.backfill, Some(BackfillMode::Execute));
}

#[tokio::test]
async fn a_cancelled_backfill_starts_nothing() {
    let inbox = Inbox::open().await;
    let backfill = inbox.store.create_stream(stream(StreamKind::Backfill, true), at(1)).await.unwrap();
    inbox.store.commit_page(page(backfill, None, "1", vec![event("a", "u", 1)]), at(1)).await.unwrap();
    assert!(inbox.store.cancel_backfill(backfill, at(2)).await.unwrap());
    assert!(!inbox.store.cancel_backfill(backfill, at(2)).await.unwrap());
    assert!(!inbox.store.cancel_backfill(inbox.stream, at(2)).await.unwrap(), "the live stream is no backfill");
    assert!(inbox.undecided(9).await.is_empty());
    assert_eq!(inbox.store.find_event("a").await.unwrap().unwrap().0.state, "skipped");
}

#[tokio::test]
async fn what_was_written_is_there_when_the_file_is_opened_again() {
    let Inbox { store, stream, dir } = Inbox::open().await;
    let inbox = Inbox { store: store.clone(), stream, dir };
    let action = inbox.plan("a", vec![ready("s")]).await[0];
    assert_eq!(inbox.claim(1).await, ["s"]);
    let Inbox { store: other, dir, .. } = inbox;
    drop((store, other));
    let inbox = Inbox { store: Store::open(&file(&dir)).unwrap(), stream, dir };
    assert_eq!(inbox.state(action).await, ActionState::Started);
    assert_eq!(inbox.store.mark_lost(at(3), |_| Duration::ZERO).await.unwrap(), 1);
    assert_eq!(
        inbox.store.mark_lost(at(3), |_| Duration::ZERO).await.unwrap(),
        0,
        "what is unknown already is not lost again"
    );
    assert_eq!(inbox.state(action).await, ActionState::Unknown);
    assert!(inbox.claim(9).await.is_empty(), "an unknown action is never just sent again");
    let unsettled = inbox.store.unsettled(at(3), 10).await.unwrap();
    assert_eq!((unsettled.len(), unsettled[0].id, unsettled[0].attempt), (1, action, 2));
    let attempts = inbox.store.list_attempts(action.0).await.unwrap();
    assert_eq!(attempts[0].outcome.as_deref(), Some("unknown"));
}

#[tokio::test]
async fn a_file_of_another_version_or_of_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Store::open_existing(&file(&dir));
    assert!(matches!(missing, Err(StoreError::Missing(_))));
    drop(Store::open(&file(&dir)).unwrap());
    let set_version = |version: i64| {
        let connection = Connection::open(file(&dir)).unwrap();
        connection.pragma_update(None, "user_version", version).unwrap();
    };
    set_version(99);
    assert!(matches!(Store::open(&file(&dir)), Err(StoreError::Newer { found: 99 })));
    assert!(matches!(Store::open_existing(&file(&dir)), Err(StoreError::Newer { found: 99 })));
    set_version(0);
    assert!(matches!(Store::open_existing(&file(&dir)), Err(StoreError::NotOurs)));
    let text = dir.path().join("notes.txt");
    std::fs::write(&text, "no database, but long enough to be taken for one if nobody looked ".repeat(20)).unwrap();
    let before = std::fs::read(&text).unwrap();
    assert!(matches!(Store::open(&text), Err(StoreError::NotOurs)));
    assert!(matches!(Store::open_existing(&text), Err(StoreError::NotOurs)));
    assert_eq!(std::fs::read(&text).unwrap(), before);
}

#[tokio::test]
async fn only_the_owner_can_read_what_is_stored() {
    let inbox = Inbox::open().await;
    inbox.receive(vec![event("a", "u", 0)]).await;
    let mut seen = 0;
    for entry in std::fs::read_dir(inbox.dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        seen += 1;
    }
    assert!(seen >= 2, "the file and its log");
}

#[tokio::test]
async fn a_person_changes_an_action_exactly_where_the_state_machine_allows_it() {
    let changes = [
        (PersonChange::Retry, Happening::RetriedByPerson),
        (PersonChange::Cancel, Happening::CancelledByPerson),
        (PersonChange::Approve, Happening::Approved),
        (PersonChange::Settle, Happening::SettledByPerson),
    ];
    for state in ActionState::ALL {
        let inbox = Inbox::open().await;
        let actions = inbox.bring(state, changes.len()).await;
        for (action, (change, happening)) in actions.into_iter().zip(changes) {
            // Who asks for what the guard refused gets the guard again.
            let asks_again = state == ActionState::Refused && change == PersonChange::Retry;
            let happening = if asks_again { Happening::PlannedAnewByPerson } else { happening };
            let result = inbox.store.change_by_person(action, change, at(5)).await;
            match (state.after(happening), result) {
                (Ok(next), Ok(now)) => assert_eq!(now, next, "{state} {change:?}"),
                (Err(_), Err(PersonError::WrongState { state: told, possible, .. })) => {
                    assert_eq!(told, state);
                    assert!(possible.split(", ").all(|word| word != state.as_str()), "{possible}");
                }
                (expected, got) => panic!("{state} {change:?}: {got:?} instead of {expected:?}"),
            }
            assert_eq!(inbox.state(action).await, state.after(happening).unwrap_or(state), "{state} {change:?}");
        }
    }
}

#[tokio::test]
async fn an_action_without_parameters_is_prepared_before_it_is_tried_again() {
    let inbox = Inbox::open().await;
    let none = Prepared { params: None, ..prepared(Happening::CannotBePrepared) };
    let failed = NewAction { preparation: Some(none), ..ready("failed") };
    let actions = inbox.plan("a", vec![failed, waiting("cancelled", &[])]).await;
    inbox.store.change_by_person(actions[1], PersonChange::Cancel, at(2)).await.unwrap();
    for action in actions {
        let state = inbox.store.change_by_person(action, PersonChange::Retry, at(3)).await.unwrap();
        assert_eq!(state, ActionState::Waiting);
    }
    assert_eq!(inbox.store.preparable(at(4), 10).await.unwrap().len(), 2);
    assert!(inbox.store.claim_ready(at(4), 10, judge(4)).await.unwrap().taken.is_empty());
    let nobody = inbox.store.change_by_person(ActionId(99), PersonChange::Retry, at(3)).await;
    assert!(matches!(nobody, Err(PersonError::NoSuchAction(_))));
}

#[tokio::test]
async fn the_time_for_retries_begins_when_a_person_has_spoken() {
    for (state, change, outcome) in [
        (ActionState::AwaitingApproval, PersonChange::Approve, 900),
        (ActionState::Failed, PersonChange::Retry, 900),
        (ActionState::Retry, PersonChange::Settle, 1),
    ] {
        let inbox = Inbox::open().await;
        let action = inbox.bring(state, 1).await[0];
        let _ = inbox.store.change_by_person(action, change, at(900)).await;
        let claimed = inbox.store.claim_ready(at(900), 1, judge(900)).await.unwrap().taken;
        assert_eq!(claimed[0].action.retry_from, at(outcome), "{state}");
    }
}

#[tokio::test]
async fn each_service_has_places_of_its_own() {
    let inbox = Inbox::open().await;
    let of = |step: &str, kind| NewAction { kind, ..ready(step) };
    let tickets = ["t1", "t2", "t3"].map(|step| of(step, "servicenow.incident.create"));
    inbox.plan("a", tickets.into_iter().chain([of("g1", "okta.group.add_user")]).collect()).await;
    let claim = async || -> Vec<String> {
        let claimed = inbox.store.claim_ready(at(5), 2, judge(5)).await.unwrap().taken;
        claimed.into_iter().map(|taken| taken.action.step).collect()
    };
    assert_eq!(claim().await, ["g1", "t1", "t2"]);
    assert!(!inbox.store.has_claimable(at(5), 2).await.unwrap(), "the places of the one service are taken");
    inbox.plan("b", vec![of("g2", "okta.group.remove_user")]).await;
    assert_eq!(claim().await, ["g2"]);
}

#[tokio::test]
async fn an_attempt_whose_action_was_moved_meanwhile_never_keeps_the_daemon_from_starting() {
    let inbox = Inbox::open().await;
    let action = inbox.plan("a", vec![ready("s")]).await[0];
    inbox.claim(1).await;
    // What an older version, or a stale verdict, may have left behind.
    let raw = Connection::open(file(&inbox.dir)).unwrap();
    raw.execute("UPDATE action SET state = 'cancelled', finished_at = 1", []).unwrap();
    assert_eq!(inbox.store.mark_lost(at(2), |_| Duration::ZERO).await.unwrap(), 1);
    assert_eq!(inbox.store.mark_lost(at(3), |_| Duration::ZERO).await.unwrap(), 0);
    assert_eq!(inbox.rows().await[0].state, "cancelled");
    assert_eq!(inbox.store.list_attempts(action.0).await.unwrap()[0].outcome.as_deref(), Some("unknown"));
}

#[tokio::test]
async fn a_stale_verdict_says_nothing_of_an_attempt_that_was_begun_since() {
    let inbox = Inbox::open().await;
    let action = inbox.plan("a", vec![ready("s")]).await[0];
    inbox.claim(1).await;
    inbox.ends(action, "unknown", Happening::OutcomeLost).await;
    inbox.store.change_by_person(action, PersonChange::Cancel, at(2)).await.unwrap();
    inbox.store.change_by_person(action, PersonChange::Retry, at(2)).await.unwrap();
    inbox.claim(3).await;
    let verdict = inbox.store.record_outcome(end(action, None, Happening::WillNotPass), at(4)).await;
    assert!(matches!(verdict, Err(StoreError::Illegal(_))), "{verdict:?}");
    assert_eq!(inbox.rows().await[0].state, "started");
}

#[tokio::test]
async fn what_a_person_wants_of_an_observed_event_is_never_forgotten() {
    let inbox = Inbox::open().await;
    let backfill = inbox.store.create_stream(stream(StreamKind::Backfill, false), at(0)).await.unwrap();
    inbox.store.commit_page(page(backfill, None, "b", vec![event("a", "a", 0)]), at(1)).await.unwrap();
    let refused = NewAction { preparation: Some(prepared(Happening::RefusedByGuard)), ..ready("s") };
    let mut decision = inbox.decision("a", vec![refused]).await;
    decision.runs[0].observe = true;
    inbox.store.commit_decisions(vec![decision], at(1)).await.unwrap();
    let action = ActionId(inbox.rows().await[0].id);
    inbox.store.change_by_person(action, PersonChange::Retry, at(2)).await.unwrap();
    let counts = inbox.receive(vec![event("a", "a", 0), event("b", "b", 1)]).await;
    assert_eq!((counts.stored, counts.duplicates), (1, 1));
    assert_eq!(inbox.rows().await[0].state, "waiting", "the action that is just being prepared is still there");
}

#[tokio::test]
async fn users_who_are_passed_over_make_room_for_others() {
    let inbox = Inbox::open().await;
    let nobody = NewEvent { subject: None, ..event("0", "", 0) };
    inbox.receive(vec![nobody, event("1", "a", 0), event("2", "a", 0), event("3", "b", 0)]).await;
    let pending = inbox.store.undecided(at(1), 2, &RESETTING, vec!["a".to_owned(), "x\"]".to_owned()]).await.unwrap();
    let users: Vec<_> = pending.into_iter().map(|event| event.subject).collect();
    assert_eq!(users, [None, Some("b".to_owned())]);
}

#[tokio::test]
async fn nothing_is_claimed_while_dispatching_is_paused() {
    let inbox = Inbox::open().await;
    inbox.plan("a", vec![ready("s")]).await;
    assert!(inbox.store.set_paused(true, at(1)).await.unwrap());
    assert!(!inbox.store.set_paused(true, at(2)).await.unwrap());
    assert!(!inbox.store.has_claimable(at(5), 9).await.unwrap());
    assert!(inbox.claim(5).await.is_empty());
    assert_eq!(inbox.store.status(at(5)).await.unwrap().paused_since, Some(at(1)));
    assert!(inbox.store.set_paused(false, at(3)).await.unwrap());
    assert!(inbox.store.has_claimable(at(5), 9).await.unwrap());
    assert_eq!(inbox.claim(5).await, ["s"]);
}

#[tokio::test]
async fn open_changes_of_a_user_are_those_that_go_on_by_themselves() {
    let inbox = Inbox::open().await;
    let lane = || vec![in_lane("s", "lane")];
    let first = inbox.plan("a", lane()).await[0];
    inbox.plan("message", vec![ready("s")]).await;
    let open = async |user| inbox.store.has_open_changes(user, None).await.unwrap();
    let run = RunId(inbox.rows().await[0].run);
    assert!(open("a").await && !open("message").await && !open("nobody").await);
    assert!(!inbox.store.has_open_changes("a", Some(run)).await.unwrap(), "a run does not wait for itself");
    assert!(inbox.store.has_open_changes("a", Some(RunId(run.0 + 1))).await.unwrap());
    inbox.claim(1).await;
    inbox.ends(first, "unknown", Happening::OutcomeLost).await;
    assert!(open("a").await);
    inbox.store.record_outcome(end(first, None, Happening::CannotTell), at(2)).await.unwrap();
    assert!(!open("a").await, "only a person moves it now");
}

#[tokio::test]
async fn what_comes_behind_something_that_only_a_person_can_move_is_not_waited_for_either() {
    for waits in [false, true] {
        let inbox = Inbox::open().await;
        let held = NewAction { preparation: Some(prepared(Happening::HeldForApproval)), ..in_lane("held", "lane") };
        let wait_until = waits.then(|| at(1000));
        let then = NewAction { lane: Some("other".to_owned()), wait_until, ..waiting("then", &["held"]) };
        let held = inbox.plan("a", vec![held, then]).await[0];
        let open = async || inbox.store.has_open_changes("a", None).await.unwrap();
        assert_eq!(open().await, waits, "it goes on at the end of its wait");
        // His next event changes the same, and something else after that.
        inbox.receive(vec![event("b", "a", 5)]).await;
        let behind = NewAction { lane: Some("third".to_owned()), ..waiting("behind", &["release"]) };
        let mut next = inbox.decision("b", vec![in_lane("release", "lane"), behind]).await;
        next.runs[0].actions.iter_mut().for_each(|action| action.subject = Some("a".to_owned()));
        inbox.store.commit_decisions(vec![next], at(6)).await.unwrap();
        assert_eq!(open().await, waits);
        inbox.store.change_by_person(held, PersonChange::Approve, at(7)).await.unwrap();
        assert!(open().await);
    }
}

#[tokio::test]
async fn an_event_that_arrives_after_what_happened_later_does_not_undo_it() {
    let inbox = Inbox::open().await;
    let told = |uuid, user, risk, second| NewEvent { risk: Some(risk), ..event(uuid, user, second) };
    inbox.receive(vec![told("high", "ann", "HIGH", 20), told("unknown", "bob", "UNKNOWN", 20)]).await;
    let plain = NewEvent { risk: None, ..event("plain", "ann", 10) };
    let late =
        vec![told("late", "ann", "LOW", 10), told("tie", "ann", "LOW", 20), plain, told("bob", "bob", "HIGH", 10)];
    inbox.receive(late).await;
    assert!(inbox.pending("late").await.too_early, "what it comes to is known after `high`");
    inbox.close("high", EventVerdict::Decided).await;
    assert!(!inbox.pending("late").await.too_early);
    for (uuid, superseded) in [("late", true), ("tie", false), ("plain", false), ("bob", false)] {
        assert_eq!(inbox.pending(uuid).await.superseded, superseded, "{uuid}");
    }
    // In the order in which things happened, every one of them is acted on.
    inbox.receive(vec![told("newer", "ann", "LOW", 30), told("newest", "ann", "HIGH", 40)]).await;
    assert!(!inbox.pending("newer").await.superseded && !inbox.pending("newest").await.superseded);
}

#[tokio::test]
async fn an_event_that_turns_out_to_be_an_echo_supersedes_nothing() {
    let inbox = Inbox::open().await;
    let told = |uuid, risk, second| NewEvent { risk: Some(risk), ..event(uuid, "ann", second) };
    inbox.receive(vec![told("echo", "LOW", 20), told("late", "HIGH", 10)]).await;
    assert!(inbox.pending("late").await.too_early && !inbox.pending("echo").await.too_early);
    inbox.close("echo", EventVerdict::Skipped("echo".to_owned())).await;
    let late = inbox.pending("late").await;
    assert!(!late.superseded && !late.too_early);
}

#[tokio::test]
async fn an_event_from_far_ahead_supersedes_nothing() {
    let inbox = Inbox::open().await;
    for (user, ahead, superseded) in [("ann", 24 * 3600 + 1, true), ("bob", 24 * 3600 + 2, false)] {
        inbox.receive(vec![event(&format!("far-{user}"), user, ahead)]).await;
        inbox.close(&format!("far-{user}"), EventVerdict::Decided).await;
        inbox.receive(vec![event(&format!("now-{user}"), user, 1)]).await;
        assert_eq!(inbox.pending(&format!("now-{user}")).await.superseded, superseded, "{user}");
    }
}

#[tokio::test]
async fn what_was_only_looked_at_supersedes_nothing_that_acts() {
    let inbox = Inbox::open().await;
    let looking = inbox.store.create_stream(stream(StreamKind::Backfill, false), at(1)).await.unwrap();
    inbox.store.commit_page(page(looking, None, "1", vec![event("newer", "ann", 20)]), at(1)).await.unwrap();
    inbox.receive(vec![event("older", "ann", 10)]).await;
    assert!(!inbox.pending("older").await.superseded);
}

#[tokio::test]
async fn an_event_of_a_cancelled_backfill_is_acted_on_when_another_stream_brings_it() {
    for live in [true, false] {
        let inbox = Inbox::open().await;
        let cancelled = inbox.store.create_stream(stream(StreamKind::Backfill, true), at(1)).await.unwrap();
        inbox.store.commit_page(page(cancelled, None, "1", vec![event("a", "ann", 1)]), at(1)).await.unwrap();
        assert!(inbox.store.cancel_backfill(cancelled, at(2)).await.unwrap());
        let before = inbox.store.find_event("a").await.unwrap().unwrap().0;
        assert_eq!((before.state.as_str(), before.reason.as_deref()), ("skipped", Some("backfill cancelled")));
        let counts = if live {
            inbox.receive(vec![event("a", "ann", 1)]).await
        } else {
            let again = inbox.store.create_stream(stream(StreamKind::Backfill, true), at(3)).await.unwrap();
            let last = PageCommit { last: true, ..page(again, None, "1", vec![event("a", "ann", 1)]) };
            inbox.store.commit_page(last, at(3)).await.unwrap()
        };
        assert_eq!(counts, PageCounts { stored: 1, duplicates: 0 });
        assert_eq!(inbox.undecided(9).await, ["a"]);
        let after = inbox.store.find_event("a").await.unwrap().unwrap().0;
        assert!(after.id > before.id && after.reason.is_none(), "{after:?}");
        // Once is enough.
        assert_eq!(inbox.receive(vec![event("a", "ann", 1)]).await.stored, 0);
        assert_eq!(inbox.undecided(9).await, ["a"]);
    }
}

#[tokio::test]
async fn what_a_clock_that_ran_ahead_put_off_is_brought_back_and_the_rest_is_left_alone() {
    use std::time::Duration;

    const YEAR: i64 = 365 * 24 * 3600;
    let inbox = Inbox::open().await;
    let far = NewAction { wait_until: Some(at(YEAR)), ..waiting("far", &["step"]) };
    let near = NewAction { wait_until: Some(at(600)), ..waiting("near", &["step"]) };
    let planned = inbox.plan("a", vec![ready("step"), far, near]).await;
    assert_eq!(inbox.claim(1).await, ["step"]);
    let end = AttemptEnd { due: Some(at(YEAR)), ..end(planned[0], Some("transient"), Happening::MayPass) };
    inbox.store.record_outcome(end, at(1)).await.unwrap();
    inbox.receive(vec![event("b", "bob", 1), event("c", "cid", 1)]).await;
    for (uuid, until) in [("b", YEAR), ("c", 60)] {
        let verdict = EventVerdict::Postponed { until: at(until), reason: "Okta is away".to_owned() };
        let decision = Decision { event: inbox.pending(uuid).await.id, verdict, runs: Vec::new() };
        inbox.store.commit_decisions(vec![decision], at(1)).await.unwrap();
    }
    let pull_back = async |second| {
        let (longest, longest_wait) = (Duration::from_secs(3600), Duration::from_secs(700));
        inbox.store.pull_back(at(second), longest, longest_wait).await.unwrap()
    };
    assert!(inbox.claim(50).await.is_empty() && inbox.undecided(50).await.is_empty());
    assert_eq!(pull_back(50).await, 3);
    assert_eq!(inbox.claim(50).await, ["step"]);
    assert_eq!(inbox.undecided(50).await, ["b"], "what is put off by a legitimate pause stays so");
    let preparable = async |second| inbox.store.preparable(at(second), 9).await.unwrap().len();
    assert_eq!((preparable(599).await, preparable(600).await, preparable(750).await), (0, 1, 2));
    assert_eq!(pull_back(50).await, 0);

    // A time for retries that begins in the future would have no end.
    let failed = inbox.bring(ActionState::Failed, 1).await[0];
    inbox.store.change_by_person(failed, PersonChange::Retry, at(YEAR)).await.unwrap();
    assert_eq!(pull_back(60).await, 1);
    assert_eq!(inbox.claim(60).await, ["step"]);
}

/// What an attempt that did its part remembers of these groups.
fn remembering(action: ActionId, groups: &[&str]) -> AttemptEnd {
    // Those with a `!` before them were refused.
    let note = |id: &&str| GroupNote {
        id: id.trim_start_matches('!').to_owned(),
        name: "x".to_owned(),
        refused: id.starts_with('!'),
    };
    let receipt = Receipt { groups: groups.iter().map(note).collect(), ..Receipt::note("a part is done") };
    AttemptEnd { receipt: Some(receipt), due: Some(at(3)), ..end(action, Some("done"), Happening::MayPass) }
}

/// The ids of the groups that the one action that can be claimed remembers.
async fn remembered(inbox: &Inbox, second: i64) -> Vec<String> {
    let mut claims = inbox.store.claim_ready(at(second), 100, judge(second)).await.unwrap();
    let taken = claims.taken.pop().unwrap();
    assert!(claims.taken.is_empty());
    assert_eq!(taken.action.earlier, taken.call.earlier);
    taken.action.earlier.groups.into_iter().map(|group| group.id).collect()
}

#[tokio::test]
async fn what_an_attempt_remembers_goes_with_the_next_and_stays_when_a_later_receipt_leaves_it_out() {
    let inbox = Inbox::open().await;
    let action = inbox.plan("a", vec![ready("s")]).await[0];
    assert!(remembered(&inbox, 1).await.is_empty());
    inbox.store.record_outcome(remembering(action, &["g1", "g2"]), at(2)).await.unwrap();
    assert_eq!(remembered(&inbox, 3).await, ["g1", "g2"]);
    inbox.store.record_outcome(remembering(action, &[]), at(4)).await.unwrap();
    assert_eq!(remembered(&inbox, 5).await, ["g1", "g2"]);
    let lost = AttemptEnd { due: Some(at(6)), ..end(action, Some("unknown"), Happening::OutcomeLost) };
    inbox.store.record_outcome(lost, at(6)).await.unwrap();
    let unknown = inbox.store.unsettled(at(7), 9).await.unwrap().remove(0);
    assert_eq!(unknown.earlier.groups.len(), 2, "who reads it back knows it as well");
}

#[tokio::test]
async fn what_an_action_of_many_parts_remembers_is_told_to_the_journal_at_its_end_and_not_with_each_part() {
    let inbox = Inbox::open().await;
    let action = inbox.plan("a", vec![ready("s")]).await[0];
    let ids: Vec<String> = (0..300).map(|number| format!("00g{number:017}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    remembered(&inbox, 1).await;
    inbox.store.record_outcome(remembering(action, &ids), at(2)).await.unwrap();
    for _ in 0..20 {
        assert_eq!(remembered(&inbox, 3).await.len(), 300);
        inbox.store.record_outcome(remembering(action, &[]), at(3)).await.unwrap();
    }
    remembered(&inbox, 3).await;
    inbox.ends(action, "done", Happening::Succeeded).await;
    let stretch = inbox.store.journal_stretch(None, None).await.unwrap();
    let rows = inbox.store.journal_page(0, stretch.last, 1000).await.unwrap();
    let telling: Vec<_> = rows.iter().filter(|row| row.record.contains(ids[299])).collect();
    assert_eq!(telling.len(), 1);
    assert!(telling[0].record.contains(r#""to":"succeeded""#), "{}", telling[0].record);
}

#[tokio::test]
async fn a_user_is_put_back_into_what_he_was_taken_out_of_since_he_was_last_put_back() {
    let inbox = Inbox::open().await;
    let step = |kind: &'static str, user: &str, lane: &str| NewAction {
        kind,
        subject: Some(user.to_owned()),
        ..in_lane("s", lane)
    };
    let (remove, restore) = ("okta.group.remove_user_from_all", "okta.group.restore_user");
    let removed = async |uuid: &str, user: &str, lane: &str, groups: &[&str]| {
        let action = inbox.plan(uuid, vec![step(remove, user, lane)]).await[0];
        remembered(&inbox, 1).await;
        inbox.store.record_outcome(remembering(action, groups), at(2)).await.unwrap();
        remembered(&inbox, 3).await;
        inbox.ends(action, "done", Happening::Succeeded).await;
    };
    // What Okta did not let him be taken out of is nothing to be put back into.
    removed("a", "ann", "all/ann", &["g1", "!g7"]).await;
    removed("b", "ann", "all/ann", &["g2", "g3"]).await;
    removed("c", "bob", "all/bob", &["g4"]).await;
    // Somebody else, whom an event about Ann named.
    removed("d", "ann", "all/boss", &["g5"]).await;
    let first = inbox.plan("e", vec![step(restore, "ann", "all/ann")]).await[0];
    let mut groups = remembered(&inbox, 3).await;
    groups.sort();
    assert_eq!(groups, ["g1", "g2", "g3"]);
    inbox.ends(first, "done", Happening::Succeeded).await;
    let second = inbox.plan("f", vec![step(restore, "ann", "all/ann")]).await[0];
    assert!(remembered(&inbox, 3).await.is_empty(), "he was put back");
    inbox.ends(second, "permanent", Happening::WillNotPass).await;
    removed("g", "ann", "all/ann", &["g6"]).await;
    inbox.plan("h", vec![step(restore, "ann", "all/ann")]).await;
    assert_eq!(remembered(&inbox, 3).await, ["g6"]);
}
