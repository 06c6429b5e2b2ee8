//! Runs that undo others: what is written, what keeps it from being written, and what is remembered of it.

use std::collections::BTreeMap;

use super::*;

fn undo(step: &str, of: ActionId, after: &[&str]) -> NewUndo {
    NewUndo {
        step: step.to_owned(),
        kind: "okta.group.remove_user",
        of,
        key: IdempotencyKey::derive("revert", &of.0.to_string(), "okta.group.remove_user", step),
        params: "{\"group\":\"g\"}".to_owned(),
        lane: Some("lane".to_owned()),
        groups: Vec::new(),
        in_doubt: InDoubt::Ask,
        after: after.iter().map(|step| (*step).to_owned()).collect(),
    }
}

impl Inbox {
    async fn revertible(&self, run: i64) -> Revertible {
        self.store.revertible(RunId(run)).await.unwrap().unwrap()
    }

    /// Has a run reverted as it stands now.
    async fn revert(&self, run: i64, cancel: &[ActionId], undo: Vec<NewUndo>) -> Result<Revert, RevertError> {
        let Revertible { actions, newest, .. } = self.revertible(run).await;
        let seen: BTreeMap<_, _> = actions.iter().map(|action| (action.id, (action.state, action.attempts))).collect();
        let revert = NewRevert { of: RunId(run), seen, newest, cancel: cancel.to_vec(), undo };
        self.store.plan_revert(revert, "ann", at(5)).await
    }

    async fn succeeds(&self, action: ActionId) {
        self.claim(3).await;
        self.ends(action, "done", Happening::Succeeded).await;
    }

    async fn row_of(&self, run: i64) -> RunRow {
        self.store.find_run(run).await.unwrap().unwrap().0
    }
}

#[tokio::test]
async fn a_revert_is_a_run_of_its_own_whose_actions_are_approved_and_wait_for_each_other() {
    let inbox = Inbox::open().await;
    let done = inbox.plan("a", vec![ready("s"), ready("t")]).await;
    inbox.claim(3).await;
    for action in &done {
        inbox.ends(*action, "done", Happening::Succeeded).await;
    }
    let other_lane = NewUndo { lane: None, ..undo("u-t", done[1], &["u-s"]) };
    let planned = inbox.revert(1, &[], vec![undo("u-s", done[0], &[]), other_lane]).await.unwrap();
    assert_eq!(planned, Revert { run: RunId(2), name: "revert of run 1".to_owned() });
    let rows: Vec<_> = inbox.rows().await.into_iter().filter(|row| row.run == 2).collect();
    let told = |row: &ActionRow| (row.step.clone(), row.state.clone(), row.reverts, row.approved_by.clone());
    let expected =
        |step: &str, state: &str, of: ActionId| (step.to_owned(), state.to_owned(), Some(of.0), Some("ann".to_owned()));
    assert_eq!(told(&rows[0]), expected("u-s", "ready", done[0]));
    assert_eq!(told(&rows[1]), expected("u-t", "waiting", done[1]));
    assert_eq!((inbox.row_of(1).await.reverted_by, inbox.row_of(2).await.reverts), (vec![2], Some(1)));

    assert!(inbox.store.preparable(at(6), 9).await.unwrap().is_empty(), "the first is to end before");
    assert_eq!(inbox.claim(6).await, ["u-s"]);
    inbox.ends(ActionId(rows[0].id), "done", Happening::Succeeded).await;
    let waits = inbox.store.preparable(at(7), 9).await.unwrap().remove(0);
    assert_eq!((waits.params.as_deref(), waits.after), (Some("{\"group\":\"g\"}"), vec!["u-s".to_owned()]));
    assert_eq!(inbox.store.run_context(waits.run).await.unwrap().reverts, Some(RunId(1)));

    let journal = inbox.store.journal_page(0, u64::MAX >> 1, 1000).await.unwrap();
    let told: Vec<serde_json::Value> = journal.iter().map(|row| serde_json::from_str(&row.record).unwrap()).collect();
    let told = told.iter().find(|record| record["what"] == "reverted").unwrap();
    assert_eq!(
        (&told["reverts"], &told["run"]["run"], &told["by"]["command"]),
        (&1.into(), &2.into(), &"runs revert".into())
    );
    assert_eq!(told["run"]["actions"][0]["params"]["group"], "g");
}

#[tokio::test]
async fn nothing_is_written_when_an_action_has_gone_on_or_its_undoing_is_known() {
    let inbox = Inbox::open().await;
    let action = inbox.plan("a", vec![ready("s")]).await[0];
    let seen = BTreeMap::from([(action, (ActionState::Ready, 0))]);
    inbox.claim(3).await;
    let late =
        NewRevert { of: RunId(1), seen, newest: action, cancel: vec![action], undo: vec![undo("u", action, &[])] };
    let error = inbox.store.plan_revert(late, "ann", at(5)).await.unwrap_err();
    assert!(matches!(error, RevertError::GoneOn(gone) if gone == action), "{error}");
    inbox.ends(action, "done", Happening::Succeeded).await;
    assert_eq!(inbox.rows().await.len(), 1);

    inbox.revert(1, &[], vec![undo("u", action, &[])]).await.unwrap();
    let error = inbox.revert(1, &[], vec![undo("u", action, &[])]).await.unwrap_err();
    assert!(matches!(&error, RevertError::Known(step) if step == "u"), "{error}");
    let again = inbox.revert(1, &[], vec![undo("again", action, &[])]).await.unwrap();
    assert_eq!(again.name, "revert of run 1 (2)");
    assert_eq!(inbox.row_of(1).await.reverted_by, [2, 3]);
    let by: Vec<_> = inbox.revertible(1).await.actions.remove(0).reverted_by.into_iter().map(|by| by.run.0).collect();
    assert_eq!(by, [2, 3]);
}

#[tokio::test]
async fn what_is_open_is_taken_back_with_the_revert() {
    let inbox = Inbox::open().await;
    let actions = inbox.plan("a", vec![ready("s"), waiting("t", &["s"])]).await;
    inbox.revert(1, &actions, Vec::new()).await.unwrap();
    for action in &actions {
        assert_eq!(inbox.state(*action).await, ActionState::Cancelled);
    }
}

#[tokio::test]
async fn what_later_runs_do_to_the_same_thing_is_known_and_the_own_revert_is_none_of_it() {
    let inbox = Inbox::open().await;
    let first = inbox.plan("a", vec![in_lane("s", "lane")]).await[0];
    inbox.succeeds(first).await;
    inbox.revert(1, &[], vec![undo("u", first, &[])]).await.unwrap();
    assert!(inbox.revertible(1).await.actions[0].newer.is_empty());
    inbox.plan("b", vec![in_lane("s", "lane")]).await;
    inbox.plan("c", vec![in_lane("s", "other")]).await;
    let newer: Vec<_> = inbox.revertible(1).await.actions.remove(0).newer;
    assert_eq!(newer.len(), 1);
    assert_eq!((newer[0].run, newer[0].state), (RunId(3), ActionState::Ready));
    assert!(inbox.revertible(3).await.actions[0].newer.is_empty(), "what came before is none of it");
}

#[tokio::test]
async fn nothing_is_written_when_another_run_came_while_a_person_was_asked() {
    let inbox = Inbox::open().await;
    let action = inbox.plan("a", vec![in_lane("s", "lane")]).await[0];
    inbox.succeeds(action).await;
    let seen = BTreeMap::from([(action, (ActionState::Succeeded, 1))]);
    let planned = NewRevert { of: RunId(1), seen, newest: action, cancel: vec![], undo: vec![undo("u", action, &[])] };
    inbox.plan("b", vec![in_lane("s", "other")]).await;
    inbox.plan("c", vec![in_lane("s", "lane")]).await;
    let error = inbox.store.plan_revert(planned, "ann", at(5)).await.unwrap_err();
    assert!(matches!(error, RevertError::Newer(RunId(3))), "{error}");
}

#[tokio::test]
async fn what_was_read_first_stays_on_record() {
    let inbox = Inbox::open().await;
    let action = inbox.plan("a", vec![ready("s")]).await[0];
    for (second, level) in [(3, "LOW"), (5, "HIGH")] {
        inbox.claim(second).await;
        let receipt = Receipt::note(level).with_before([("level", level)]);
        let part = end(action, Some("done"), Happening::MayPass);
        let part = AttemptEnd { receipt: Some(receipt), due: Some(at(second + 1)), ..part };
        inbox.store.record_outcome(part, at(second)).await.unwrap();
    }
    let receipt = inbox.revertible(1).await.actions.remove(0).receipt;
    assert_eq!((receipt.note.as_deref(), receipt.before["level"].as_str()), (Some("HIGH"), "LOW"));
}

#[tokio::test]
async fn groups_that_a_revert_has_put_back_are_forgotten_and_no_others() {
    let inbox = Inbox::open().await;
    let step = |kind: &'static str| NewAction { kind, subject: Some("ann".to_owned()), ..in_lane("s", "all/ann") };
    let (remove, restore) = ("okta.group.remove_user_from_all", "okta.group.restore_user");
    for (uuid, group) in [("a", "g1"), ("b", "g2")] {
        let action = inbox.plan(uuid, vec![step(remove)]).await[0];
        remembered(&inbox, 1).await;
        inbox.store.record_outcome(remembering(action, &[group]), at(2)).await.unwrap();
        remembered(&inbox, 3).await;
        inbox.ends(action, "done", Happening::Succeeded).await;
    }
    let of = inbox.revertible(2).await.actions.remove(0).id;
    let groups = vec![GroupNote { id: "g2".to_owned(), ..GroupNote::default() }];
    let back = NewUndo { kind: restore, lane: Some("all/ann".to_owned()), groups, ..undo("u", of, &[]) };
    inbox.revert(2, &[], vec![back]).await.unwrap();
    assert_eq!(remembered(&inbox, 6).await, ["g2"], "its own memory");
    let undoing = inbox.rows().await.pop().unwrap();
    inbox.ends(ActionId(undoing.id), "done", Happening::Succeeded).await;
    inbox.plan("c", vec![step(restore)]).await;
    assert_eq!(remembered(&inbox, 7).await, ["g1"]);
}
