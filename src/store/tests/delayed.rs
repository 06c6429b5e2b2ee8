//! Delays: what a waiting action holds up, what makes it needless, and how old what was asked may be.

use super::*;

const DAY: i64 = 24 * 3600;
const LANE: &str = "group/ann";
const PARAMS: &str = r#"{"group":"g","user":"ann"}"#;

/// A change that is done a day later.
fn delayed(step: &str) -> NewAction {
    let plan = DelayedPlan { cancel_if: Some("true".to_owned()), needs: Vec::new(), approval: false };
    let delayed = Delayed { delay: Duration::from_secs(DAY as u64), params: Some(PARAMS.to_owned()), plan };
    NewAction { preparation: None, delayed: Some(delayed), subject: Some("ann".to_owned()), ..ready(step) }
}

impl Inbox {
    async fn due(&self, second: i64) -> Vec<String> {
        self.store.preparable(at(second), 9).await.unwrap().into_iter().map(|action| action.step).collect()
    }

    /// Writes that a delayed action is called for. Returns its row.
    async fn prepare(&self, action: ActionId, second: i64) -> ActionRow {
        let run = RunId(self.row(action).await.run);
        let lane = Some(LANE.to_owned());
        let result = Ok(Prepared { lane, params: Some(PARAMS.to_owned()), ..prepared(Happening::Prepared) });
        let looked_at = Preparation { action, run, facts: None, result };
        self.store.commit_preparations(vec![looked_at], at(second)).await.unwrap();
        self.row(action).await
    }
}

#[tokio::test]
async fn a_delay_holds_nothing_up_and_ends_after_its_length() {
    let inbox = Inbox::open().await;
    let tell = waiting("tell", &["take-out"]);
    let planned = inbox.plan("a", vec![NewAction { lane: None, ..delayed("take-out") }, tell]).await;
    let row = inbox.row(planned[0]).await;
    assert_eq!((row.delayed_until, row.due, row.lane), (Some(at(DAY + 1)), Some(at(DAY + 1)), None));
    assert_eq!((row.params, row.cancel_if), (serde_json::from_str(PARAMS).unwrap(), Some("true".to_owned())));
    assert!(!inbox.store.has_open_changes("ann", ChangesOf::All).await.unwrap());
    assert_eq!(inbox.store.unfinished_of(inbox.stream).await.unwrap(), 0);
    let status = inbox.store.status(at(2)).await.unwrap();
    assert_eq!((status.delayed, status.oldest_open_action), ((1, Some(at(DAY + 1))), None));
    // Whatever else changes the same goes on.
    inbox.plan("b", vec![NewAction { subject: Some("ann".to_owned()), ..in_lane("again", LANE) }]).await;
    assert_eq!(inbox.claim(2).await, ["again"]);
    assert!(inbox.due(DAY).await.is_empty());
    assert_eq!(inbox.due(DAY + 1).await, ["take-out"]);
    assert_eq!(inbox.store.next_due(at(2)).await.unwrap(), Some(at(DAY + 1)));
    let open = inbox.store.preparable(at(DAY + 1), 9).await.unwrap().remove(0);
    assert_eq!(open.since, at(DAY + 1), "patience begins when it is due");
    let due = open.delayed.unwrap();
    assert_eq!((due.params.as_deref(), due.kind.as_str()), (Some(PARAMS), "okta.group.add_user"));
    assert_eq!(due.plan.unwrap().cancel_if.as_deref(), Some("true"));
}

/// Plans a delayed change, brings a later action of its lane to a state, and looks whether the delayed one is superseded.
async fn check_superseded(state: ActionState, expected: bool) {
    let inbox = Inbox::open().await;
    let action = inbox.plan("a", vec![delayed("take-out")]).await[0];
    let happening = match state {
        ActionState::AwaitingApproval => Happening::HeldForApproval,
        ActionState::Skipped => Happening::NotCalledFor,
        _ => Happening::Prepared,
    };
    let newer = NewAction { preparation: Some(prepared(happening)), ..in_lane("again", LANE) };
    let newer = inbox.plan("b", vec![newer]).await[0];
    match state {
        ActionState::Succeeded | ActionState::Failed | ActionState::Unknown => {
            assert_eq!(inbox.claim(2).await, ["again"]);
            let (outcome, happening) = match state {
                ActionState::Succeeded => ("done", Happening::Succeeded),
                ActionState::Failed => ("permanent", Happening::WillNotPass),
                _ => ("unknown", Happening::OutcomeLost),
            };
            inbox.ends(newer, outcome, happening).await;
        }
        ActionState::Cancelled => {
            inbox.store.change_by_person(newer, PersonChange::Cancel, at(2)).await.unwrap();
        }
        _ => {}
    }
    assert_eq!(inbox.state(newer).await, state);
    assert_eq!(inbox.store.superseded(action, LANE).await.unwrap().is_some(), expected, "{state}");
    assert!(inbox.store.superseded(action, "group/bob").await.unwrap().is_none(), "another lane is another thing");
    let row = inbox.prepare(action, DAY + 1).await;
    assert_eq!(row.state, if expected { "skipped" } else { "ready" }, "{state}");
    if expected {
        assert_eq!((row.reason.as_deref(), row.lane), (Some("superseded"), None));
        let why = row.error.unwrap();
        assert!(why.contains(&format!("action {newer}")) && why.contains("playbook `p`"), "{why}");
    }
}

#[tokio::test]
async fn what_a_later_run_did_or_is_about_to_do_supersedes_and_what_came_to_nothing_does_not() {
    use ActionState as S;
    for state in [S::Ready, S::Unknown, S::Succeeded] {
        check_superseded(state, true).await;
    }
    for state in [S::AwaitingApproval, S::Skipped, S::Failed, S::Cancelled] {
        check_superseded(state, false).await;
    }
}

#[tokio::test]
async fn a_message_is_not_superseded_by_another_of_its_thread() {
    let inbox = Inbox::open().await;
    let message = |action| NewAction { kind: "slack.message.post", ..action };
    let action = inbox.plan("a", vec![message(delayed("tell-later"))]).await[0];
    inbox.plan("b", vec![message(in_lane("tell", LANE))]).await;
    assert_eq!(inbox.claim(2).await, ["tell"]);
    assert_eq!(inbox.prepare(action, DAY + 1).await.state, "ready");
}

#[tokio::test]
async fn neither_its_own_run_nor_another_run_of_its_event_supersedes_it() {
    let inbox = Inbox::open().await;
    inbox.receive(vec![event("a", "a", 0)]).await;
    let mut decision = inbox.decision("a", vec![delayed("take-out"), in_lane("own", LANE)]).await;
    let mut other = in_lane("other", LANE);
    other.key = IdempotencyKey::derive("okta", "a", "q", "other");
    let other = PlannedRun { playbook: "q".to_owned(), actions: vec![other], ..decision.runs[0].clone() };
    decision.runs.push(other);
    inbox.store.commit_decisions(vec![decision], at(1)).await.unwrap();
    let action = ActionId(inbox.rows().await[0].id);
    assert_eq!(inbox.prepare(action, DAY + 1).await.state, "ready");
}

#[tokio::test]
async fn what_was_asked_too_long_ago_is_asked_anew_before_anything_is_sent() {
    let inbox = Inbox::open().await;
    let action = inbox.plan("a", vec![delayed("take-out")]).await[0];
    inbox.prepare(action, DAY + 1).await;
    inbox.store.set_paused(true, at(DAY + 1)).await.unwrap();
    assert!(inbox.claim(DAY + 2).await.is_empty());
    inbox.store.set_paused(false, at(2 * DAY)).await.unwrap();
    assert!(inbox.claim(2 * DAY).await.is_empty());
    let row = inbox.row(action).await;
    assert_eq!((row.state.as_str(), row.lane, row.params), ("waiting", None, serde_json::from_str(PARAMS).unwrap()));
    assert_eq!(inbox.due(2 * DAY).await, ["take-out"]);
    assert_eq!(inbox.prepare(action, 2 * DAY).await.lane.as_deref(), Some(LANE));
    // A clock that was set back does not make an old answer a new one.
    assert!(inbox.claim(DAY + 2).await.is_empty());
    inbox.prepare(action, 2 * DAY).await;
    assert_eq!(inbox.claim(2 * DAY + 300).await, ["take-out"]);
    // Once it was sent it goes on like any other.
    let end = AttemptEnd { due: Some(at(3 * DAY)), ..end(action, Some("transient"), Happening::MayPass) };
    inbox.store.record_outcome(end, at(2 * DAY + 301)).await.unwrap();
    assert_eq!(inbox.claim(3 * DAY).await, ["take-out"]);
}

#[tokio::test]
async fn what_a_person_allowed_is_not_asked_anew() {
    let inbox = Inbox::open().await;
    let action = inbox.plan("a", vec![delayed("take-out")]).await[0];
    let run = RunId(inbox.row(action).await.run);
    let result = Ok(prepared(Happening::HeldForApproval));
    let looked_at = Preparation { action, run, facts: None, result };
    inbox.store.commit_preparations(vec![looked_at], at(DAY + 1)).await.unwrap();
    inbox.store.change_by_person(action, PersonChange::Approve, at(2 * DAY)).await.unwrap();
    assert_eq!(inbox.claim(2 * DAY).await, ["take-out"]);
}

#[tokio::test]
async fn a_person_takes_a_delayed_action_back_hastens_it_and_has_it_planned_anew() {
    let inbox = Inbox::open().await;
    let planned =
        inbox.plan("a", vec![delayed("hastened"), delayed("cancelled"), waiting("behind", &["hastened"])]).await;
    let change = async |action, change| inbox.store.change_by_person(action, change, at(60)).await;
    assert_eq!(change(planned[0], PersonChange::Retry).await.unwrap(), ActionState::Waiting);
    assert_eq!(inbox.due(60).await, ["hastened"]);
    assert!(change(planned[0], PersonChange::Retry).await.is_err(), "it is due already");
    assert!(change(planned[2], PersonChange::Retry).await.is_err(), "it has no delay");
    assert_eq!(change(planned[1], PersonChange::Cancel).await.unwrap(), ActionState::Cancelled);
    assert!(inbox.due(2 * DAY).await == ["hastened"]);
    // It was never sent, so it is asked about before it is.
    assert_eq!(change(planned[1], PersonChange::Retry).await.unwrap(), ActionState::Waiting);
    assert_eq!(inbox.due(60).await, ["hastened", "cancelled"]);
    let row = inbox.prepare(planned[1], 61).await;
    assert_eq!((row.state.as_str(), row.lane.as_deref()), ("ready", Some(LANE)));
}

#[tokio::test]
async fn parameters_that_were_planned_outlive_a_preparation_that_fails() {
    let inbox = Inbox::open().await;
    let action = inbox.plan("a", vec![delayed("take-out")]).await[0];
    let run = RunId(inbox.row(action).await.run);
    let result = Ok(Prepared { params: None, ..prepared(Happening::CannotBePrepared) });
    let looked_at = Preparation { action, run, facts: None, result };
    inbox.store.commit_preparations(vec![looked_at], at(DAY + 1)).await.unwrap();
    let row = inbox.row(action).await;
    assert_eq!((row.state.as_str(), row.params), ("failed", serde_json::from_str(PARAMS).unwrap()));
    inbox.store.change_by_person(action, PersonChange::Retry, at(2 * DAY)).await.unwrap();
    let due = inbox.store.preparable(at(2 * DAY), 9).await.unwrap().remove(0).delayed.unwrap();
    assert_eq!(due.params.as_deref(), Some(PARAMS));
}

#[tokio::test]
async fn a_clock_that_ran_ahead_makes_no_delay_longer_and_one_that_is_right_ends_none() {
    let inbox = Inbox::open().await;
    let wait_until = Some(at(31));
    let planned = inbox.plan("a", vec![NewAction { wait_until, ..delayed("take-out") }]).await;
    let pull_back = async |second| {
        let (longest, longest_wait) = (Duration::from_secs(3600), Duration::from_secs(30));
        inbox.store.pull_back(at(second), longest, longest_wait).await.unwrap()
    };
    assert_eq!(pull_back(2).await, 0);
    assert_eq!(inbox.row(planned[0]).await.delayed_until, Some(at(DAY + 1)));
    // It was planned by a clock that was a week ahead.
    assert_eq!(pull_back(1 - 7 * DAY).await, 1);
    assert_eq!(inbox.row(planned[0]).await.delayed_until, Some(at(1 - 6 * DAY)));
    assert_eq!((inbox.due(-6 * DAY).await.len(), inbox.due(1 - 6 * DAY).await.len()), (0, 1));
}

#[tokio::test]
async fn an_event_of_the_user_that_is_to_be_decided_is_seen() {
    let inbox = Inbox::open().await;
    inbox.receive(vec![event("e", "ann", 0)]).await;
    assert!(inbox.store.has_undecided("ann").await.unwrap() && !inbox.store.has_undecided("bob").await.unwrap());
    inbox.close("e", EventVerdict::Decided).await;
    assert!(!inbox.store.has_undecided("ann").await.unwrap());
}

#[tokio::test]
async fn the_journal_tells_until_when_an_action_is_delayed_and_what_it_will_change() {
    let inbox = Inbox::open().await;
    inbox.plan("a", vec![delayed("take-out")]).await;
    let head = inbox.store.journal_head().await.unwrap();
    let rows = inbox.store.journal_page(head.seq - 1, head.seq, 9).await.unwrap();
    let record: serde_json::Value = serde_json::from_str(&rows[0].record).unwrap();
    let told = &record["runs"][0]["actions"][0];
    assert_eq!(told["not_before"], at(DAY + 1).to_string());
    assert_eq!((&told["state"], &told["params"]["group"]), (&"waiting".into(), &"g".into()));
}
