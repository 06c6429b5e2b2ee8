use serde_json::json;

use super::*;
use crate::model::outcome::Receipt;
use crate::store::Newer;

const ADD: &str = "okta.group.add_user";
const REMOVE: &str = "okta.group.remove_user";

/// An action that has put Ann into a group.
fn added(id: i64, step: &str) -> DoneAction {
    DoneAction {
        id: ActionId(id),
        step: step.to_owned(),
        kind: ADD.to_owned(),
        key: IdempotencyKey::derive("okta", "u", "p", step),
        state: ActionState::Succeeded,
        reason: None,
        error: None,
        params: Some(json!({"group": "High", "user": "00u1"})),
        receipt: Receipt::default(),
        lane: Some("okta.group/High/00u1".to_owned()),
        attempts: 1,
        done: true,
        unknown: false,
        interrupted: false,
        newer: Vec::new(),
        reverted_by: Vec::new(),
    }
}

fn of_kind(id: i64, step: &str, kind: &str, params: Value) -> DoneAction {
    DoneAction { kind: kind.to_owned(), params: Some(params), ..added(id, step) }
}

fn plan(actions: Vec<DoneAction>) -> Result<Plan, Blocked> {
    let run = Revertible { run: RunId(7), playbook: "p".to_owned(), reverts: None, actions, newest: ActionId(9) };
    Plan::of(&run, "Solved")
}

/// What is undone, taken back, left and passed over, as the names of steps.
#[track_caller]
fn check(actions: Vec<DoneAction>, expected: [&[&str]; 4]) -> Plan {
    let plan = plan(actions).unwrap();
    let undo: Vec<_> = plan.undo.iter().map(|undo| undo.step.as_str()).collect();
    let names = |kept: &[Kept]| kept.iter().map(|kept| kept.step.clone()).collect::<Vec<_>>();
    assert_eq!(undo, expected[0], "undone: {plan:#?}");
    assert_eq!(names(&plan.cancel), expected[1], "taken back: {plan:#?}");
    assert_eq!(names(&plan.stays), expected[2], "stays: {plan:#?}");
    assert_eq!(names(&plan.nothing), expected[3], "nothing: {plan:#?}");
    plan
}

#[test]
fn the_last_is_undone_first_tickets_at_the_end_and_what_was_sent_stays() {
    let incident = json!({"short_description": "s"});
    let message = json!({"channel": "c", "text": "t"});
    let app = json!({"app": "0oa1", "user": "00u1"});
    let plan = check(
        vec![
            added(1, "group"),
            of_kind(2, "suspend", "okta.user.suspend", json!({"user": "00u1"})),
            of_kind(3, "incident", "servicenow.incident.create", incident),
            of_kind(4, "app", "okta.app.unassign_user", app),
            of_kind(5, "tell", "slack.message.post", message),
        ],
        [&["revert-app", "revert-suspend", "revert-group", "revert-incident"], &[], &["tell"], &[]],
    );
    let after: Vec<&[String]> = plan.undo.iter().map(|undo| undo.after.as_slice()).collect();
    assert_eq!(after[0], ["revert-suspend"], "an app waits for the account");
    assert!(after[1].is_empty() && after[2].is_empty());
    assert_eq!(after[3], ["revert-app", "revert-suspend", "revert-group"]);
    assert_eq!(plan.undo[3].params["close_code"], "Solved");
    assert_eq!(plan.undo[3].params["correlation"], IdempotencyKey::derive("okta", "u", "p", "incident").as_str());
}

#[test]
fn only_what_the_run_has_changed_is_undone() {
    let note = Receipt::note("was a member already");
    let already = DoneAction { done: false, receipt: note, ..added(1, "already") };
    let skipped = DoneAction { state: ActionState::Skipped, done: false, params: None, ..added(2, "skipped") };
    let refused = DoneAction { state: ActionState::Refused, done: false, ..added(3, "refused") };
    let failed = DoneAction { state: ActionState::Failed, done: false, ..added(4, "failed") };
    let undone = DoneAction { state: ActionState::Failed, done: false, unknown: true, ..added(5, "read-back") };
    let plan = check(
        vec![already, skipped, refused, failed, undone],
        [&[], &[], &[], &["read-back", "failed", "refused", "skipped", "already"]],
    );
    assert!(plan.is_empty());
    assert_eq!(plan.nothing[4].why, "it was so before: was a member already");
}

#[test]
fn what_was_done_in_part_or_found_done_is_undone() {
    let failed = DoneAction { state: ActionState::Failed, ..added(1, "failed") };
    let found = DoneAction { state: ActionState::Settled, done: false, unknown: true, ..added(2, "found") };
    let lost = DoneAction { interrupted: true, ..found.clone() };
    let lost = DoneAction { id: ActionId(3), step: "lost".to_owned(), ..lost };
    let said = DoneAction { reason: Some("settled".to_owned()), ..found.clone() };
    let said = DoneAction { id: ActionId(4), step: "said".to_owned(), ..said };
    let plan = check(
        vec![failed, found, lost, said],
        [&["revert-said", "revert-lost", "revert-found", "revert-failed"], &[], &[], &[]],
    );
    let warned: Vec<_> = plan.undo.iter().map(|undo| undo.warning.is_some()).collect();
    assert_eq!(warned, [true, true, false, false], "a request whose answer was lost was sent for a reason");
}

#[test]
fn what_is_open_is_taken_back_and_its_part_undone() {
    let open = |id, step: &str, state, done| DoneAction { state, done, ..added(id, step) };
    check(
        vec![
            open(1, "waiting", ActionState::Waiting, false),
            open(2, "held", ActionState::AwaitingApproval, false),
            open(3, "half", ActionState::Retry, true),
        ],
        [&["revert-half"], &["half", "held", "waiting"], &[], &[]],
    );
}

#[test]
fn the_edit_of_a_message_that_was_sent_still_tells_what_was_taken_back() {
    let edit =
        |state| DoneAction { state, done: false, ..of_kind(3, "tell#update", "slack.message.update", json!({})) };
    for state in [ActionState::Waiting, ActionState::Ready, ActionState::Retry] {
        let delayed = DoneAction { state: ActionState::Waiting, done: false, ..added(1, "out") };
        let told = of_kind(2, "tell", "slack.message.post", json!({"channel": "c", "text": "t"}));
        check(vec![delayed, told, edit(state)], [&[], &["out"], &["tell#update", "tell"], &[]]);
    }
    check(vec![edit(ActionState::Skipped)], [&[], &[], &[], &["tell#update"]]);
}

#[test]
fn what_was_cancelled_is_said_once() {
    let cancelled = DoneAction {
        state: ActionState::Cancelled,
        reason: Some("cancelled".to_owned()),
        done: false,
        ..added(1, "a")
    };
    assert_eq!(check(vec![cancelled], [&[], &[], &[], &["a"]]).nothing[0].why, "it is cancelled");
}

#[test]
fn what_nobody_knows_yet_blocks_unless_nothing_could_be_done_about_it() {
    for state in [ActionState::Started, ActionState::Unknown] {
        let blocked = plan(vec![DoneAction { state, ..added(1, "s") }]).unwrap_err();
        assert!(matches!(blocked, Blocked::UnderWay { .. }), "{blocked}");
    }
    let asked = DoneAction { state: ActionState::NeedsAttention, done: false, unknown: true, ..added(1, "s") };
    let blocked = plan(vec![asked]).unwrap_err();
    assert!(blocked.to_string().contains("actions settle 1"), "{blocked}");
    let message = of_kind(1, "tell", "slack.message.post", json!({"channel": "c", "text": "t"}));
    check(vec![DoneAction { state: ActionState::NeedsAttention, done: false, ..message }], [&[], &[], &["tell"], &[]]);
}

/// What was planned before to undo the one action.
fn by(run: i64, state: ActionState) -> RevertedBy {
    let (run, action, params) = (RunId(run), ActionId(run * 10), json!({"group": "High", "user": "00u1"}));
    RevertedBy { run, action, kind: REMOVE.to_owned(), params, state }
}

#[test]
fn what_is_undone_already_is_not_undone_again_and_what_came_to_nothing_is_with_another_key() {
    let key = |reverted_by: Vec<RevertedBy>| {
        let plan = check(vec![DoneAction { reverted_by, ..added(1, "s") }], [&["revert-s"], &[], &[], &[]]);
        plan.undo[0].key.clone()
    };
    let first = key(Vec::new());
    assert_eq!(first, key(Vec::new()));
    let mut keys = vec![first];
    for state in [ActionState::Failed, ActionState::Refused, ActionState::Skipped, ActionState::Cancelled] {
        let again = key(vec![by(8, state)]);
        assert_ne!(again, keys[0], "{state}");
        keys.push(again);
    }
    for state in [ActionState::Succeeded, ActionState::Settled, ActionState::Ready, ActionState::NeedsAttention] {
        let reverted_by = vec![by(8, ActionState::Failed), by(9, state)];
        let plan = check(vec![DoneAction { reverted_by, ..added(1, "s") }], [&[], &[], &[], &["s"]]);
        assert!(plan.nothing[0].why.contains("run 9"), "{}", plan.nothing[0].why);
    }
}

fn newer(run: i64, kind: &str, state: ActionState) -> Newer {
    Newer { run: RunId(run), kind: kind.to_owned(), state }
}

#[test]
fn what_a_later_run_has_undone_is_undone_and_what_it_wants_is_told() {
    let with = |newer: Vec<Newer>| vec![DoneAction { newer, ..added(1, "s") }];
    let released = newer(9, REMOVE, ActionState::Succeeded);
    check(with(vec![released.clone()]), [&[], &[], &[], &["s"]]);
    for newer in [
        vec![newer(9, ADD, ActionState::Succeeded)],
        vec![released, newer(10, ADD, ActionState::Settled)],
        vec![newer(9, REMOVE, ActionState::Ready)],
    ] {
        let plan = check(with(newer), [&["revert-s"], &[], &[], &[]]);
        assert_eq!(plan.conflicts().count(), 1);
    }
}

#[test]
fn a_plan_is_written_with_the_lanes_of_its_actions_and_what_was_seen() {
    let open = DoneAction { state: ActionState::Waiting, done: false, attempts: 0, ..added(2, "open") };
    let actions = vec![added(1, "s"), open];
    let run = Revertible { run: RunId(7), playbook: "p".to_owned(), reverts: None, actions, newest: ActionId(9) };
    let written = Plan::of(&run, "Solved").unwrap().written(&run);
    assert_eq!((written.of, written.cancel, written.seen.len()), (RunId(7), vec![ActionId(2)], 2));
    assert_eq!(written.newest, ActionId(9));
    assert_eq!(written.seen[&ActionId(1)], (ActionState::Succeeded, 1));
    let undo = &written.undo[0];
    assert_eq!((undo.kind, undo.of, undo.lane.as_deref()), (REMOVE, ActionId(1), Some("okta.group/High/00u1")));
}

#[test]
fn actions_of_the_same_thing_are_undone_in_turn() {
    let back = of_kind(2, "out", REMOVE, json!({"group": "High", "user": "00u1"}));
    let plan = check(vec![added(1, "in"), back], [&["revert-out", "revert-in"], &[], &[], &[]]);
    assert_eq!((plan.undo[0].action, plan.undo[1].action), (ADD, REMOVE));
}
