//! T3 and the guard: what passes, what is stopped, and what a person may change about it.

use proptest::prelude::*;

use super::*;
use crate::config::{AlarmConfig, Limit, Mode};
use crate::guard::standing::Standings;

fn limited(per_playbook: u32) -> GuardConfig {
    let limits = LimitsConfig { per_playbook: Limit::Most(per_playbook), ..LimitsConfig::unlimited() };
    let with = toml::from_str("channel = '#a'").unwrap();
    let alarm = AlarmConfig { action: "slack.message.post".to_owned(), with };
    GuardConfig { limits, alarm: Some(alarm), ..GuardConfig::default() }
}

fn message(step: &str) -> NewAction {
    NewAction { kind: "slack.message.post", ..ready(step) }
}

impl Inbox {
    async fn claim_under(&self, config: &GuardConfig, second: i64) -> Claims {
        self.store.claim_ready(at(second), 100, judge_of(config.clone(), second)).await.unwrap()
    }

    /// The steps that are taken under a guard.
    async fn taken(&self, config: &GuardConfig, second: i64) -> Vec<String> {
        let mut steps: Vec<_> =
            self.claim_under(config, second).await.taken.into_iter().map(|taken| taken.action.step).collect();
        steps.sort();
        steps
    }

    pub(super) async fn row(&self, action: ActionId) -> ActionRow {
        let filter = ActionFilter { id: Some(action.0), ..ActionFilter::default() };
        self.store.list_actions(filter).await.unwrap().remove(0)
    }

    async fn fails(&self, action: ActionId, second: i64) {
        let end = AttemptEnd { due: Some(at(second)), ..end(action, Some("transient"), Happening::MayPass) };
        self.store.record_outcome(end, at(second)).await.unwrap();
    }
}

#[tokio::test]
async fn past_a_limit_the_playbook_is_stopped_and_people_are_told_once() {
    let inbox = Inbox::open().await;
    let config = limited(2);
    let actions = inbox.plan("a", vec![ready("1"), ready("2"), ready("3"), ready("4"), message("m")]).await;
    let claims = inbox.claim_under(&config, 10).await;
    let taken: Vec<_> = claims.taken.iter().map(|taken| taken.action.id).collect();
    assert_eq!(taken[..3], [actions[0], actions[1], actions[4]]);
    assert_eq!(claims.taken[3].action.step, "guard-alarm");
    assert_eq!(claims.stopped.iter().map(|stopped| stopped.action).collect::<Vec<_>>(), actions[2..4]);
    assert_eq!(claims.tripped.len(), 1);
    assert_eq!((claims.tripped[0].action, claims.tripped[0].alarm), (actions[2], true));
    // The journal tells what is to be sent to whom.
    let journal = inbox.store.journal_page(0, u64::MAX >> 1, 1000).await.unwrap();
    let told = journal.iter().find(|row| row.record.contains("playbook_stopped")).unwrap();
    let told: serde_json::Value = serde_json::from_str(&told.record).unwrap();
    let alarm = claims.taken[3].action.id.0;
    assert_eq!((&told["alarm"]["action"], &told["alarm"]["params"]["channel"]), (&alarm.into(), &"#a".into()));
    let held = inbox.row(actions[3]).await;
    assert_eq!((held.state.as_str(), held.reason.as_deref()), ("awaiting_approval", Some("limit")));
    assert!(held.error.unwrap().contains("per_playbook = 2"));
    // What comes later is held as well, also when its hour would have room, and nobody is told again.
    inbox.plan("b", vec![ready("5")]).await;
    assert!(inbox.taken(&config, 5000).await.is_empty());
    let store = Store::open(&file(&inbox.dir)).unwrap();
    let trips = store.trips().await.unwrap();
    assert_eq!(trips.len(), 1);
    assert_eq!((trips[0].playbook.as_str(), trips[0].cause.as_str(), trips[0].held), ("p", "limit", 3));
    assert_eq!((trips[0].action, trips[0].since), (Some(actions[2].0), at(10)));
    assert_eq!(inbox.rows().await.iter().filter(|row| row.step == "guard-alarm").count(), 1);
}

#[tokio::test]
async fn who_lets_a_playbook_go_on_begins_its_count_anew() {
    let inbox = Inbox::open().await;
    let config = limited(1);
    let actions = inbox.plan("a", vec![ready("1"), ready("2"), ready("3")]).await;
    assert_eq!(inbox.taken(&config, 10).await, ["1"]);
    let let_go = inbox.store.let_go_on("p", "ann", at(20)).await.unwrap();
    assert_eq!(let_go, LetGo { was_stopped: true, actions: 2 });
    assert!(inbox.store.trips().await.unwrap().is_empty());
    assert_eq!(inbox.row(actions[1]).await.reason.as_deref(), Some("resumed"));
    // One more, and the playbook is stopped again with an alarm of its own.
    assert_eq!(inbox.taken(&config, 30).await, ["2", "guard-alarm", "guard-alarm"]);
    assert!(inbox.taken(&config, 40).await.is_empty());
    assert_eq!(inbox.state(actions[2]).await, ActionState::AwaitingApproval);
    let nobody = inbox.store.let_go_on("q", "ann", at(20)).await.unwrap();
    assert_eq!(nobody, LetGo { was_stopped: false, actions: 0 });
}

#[tokio::test]
async fn a_clock_that_ran_ahead_when_a_playbook_was_let_go_on_opens_no_door() {
    let inbox = Inbox::open().await;
    let config = limited(1);
    inbox.plan("a", vec![ready("1"), ready("2")]).await;
    assert_eq!(inbox.taken(&config, 10).await, ["1"]);
    inbox.store.let_go_on("p", "ann", at(100_000)).await.unwrap();
    for (step, second, taken) in [("3", 20, true), ("4", 30, false)] {
        inbox.plan(step, vec![ready(step)]).await;
        assert_eq!(inbox.taken(&config, second).await.contains(&step.to_owned()), taken, "{step}");
    }
}

#[tokio::test]
async fn who_lets_a_playbook_go_on_begins_its_count_anew_also_after_attempts_by_a_clock_that_ran_ahead() {
    let inbox = Inbox::open().await;
    let config = limited(1);
    inbox.plan("a", vec![ready("1"), ready("2")]).await;
    assert_eq!(inbox.taken(&config, 100_000).await, ["1"]);
    inbox.store.let_go_on("p", "ann", at(20)).await.unwrap();
    assert_eq!(inbox.taken(&config, 30).await, ["2"]);
}

#[tokio::test]
async fn a_person_can_stop_a_playbook_and_its_steps_that_want_approval_stay_held() {
    let inbox = Inbox::open().await;
    let config = limited(9);
    let own = NewAction { preparation: Some(prepared(Happening::HeldForApproval)), ..ready("own") };
    let actions = inbox.plan("a", vec![ready("1"), own]).await;
    assert!(inbox.store.stop_playbook("p", "ann", at(2)).await.unwrap());
    assert!(!inbox.store.stop_playbook("p", "bob", at(3)).await.unwrap());
    let claims = inbox.claim_under(&config, 4).await;
    assert!(claims.taken.is_empty() && claims.tripped.is_empty());
    assert!(claims.stopped[0].why.contains("by ann"), "{}", claims.stopped[0].why);
    assert_eq!(inbox.store.let_go_on("p", "ann", at(5)).await.unwrap().actions, 1);
    assert_eq!(inbox.state(actions[1]).await, ActionState::AwaitingApproval);
    assert_eq!(inbox.taken(&config, 6).await, ["1"]);
}

#[tokio::test]
async fn an_action_counts_once_an_hour_and_again_in_a_later_one() {
    for (second, room) in [(6599, false), (6600, true)] {
        let inbox = Inbox::open().await;
        let config = limited(2);
        let actions = inbox.plan("a", vec![ready("1")]).await;
        for second in [10, 20, 3000] {
            assert_eq!(inbox.taken(&config, second).await, ["1"], "{second}");
            inbox.fails(actions[0], second).await;
        }
        inbox.plan("b", vec![ready("2")]).await;
        assert_eq!(inbox.taken(&config, 3001).await, ["1", "2"]);
        inbox.ends(actions[0], "done", Happening::Succeeded).await;
        // The one counts until an hour after its last attempt, and so does the other.
        inbox.plan("c", vec![ready("3")]).await;
        assert_eq!(inbox.taken(&config, second + 1).await == ["3"], room, "{second}");
    }
}

#[tokio::test]
async fn an_attempt_in_the_future_counts_and_an_hour_later_none_does() {
    let config = limited(1);
    for (second, taken) in [(-9000, false), (10, false), (3609, false), (3610, true)] {
        let inbox = Inbox::open().await;
        inbox.plan("a", vec![ready("1")]).await;
        assert_eq!(inbox.taken(&config, 10).await, ["1"]);
        let two = NewAction { preparation: None, ..ready("2") };
        let two = inbox.plan("b", vec![two]).await[0];
        let run = RunId(inbox.row(two).await.run);
        let result = Ok(prepared(Happening::Prepared));
        let raw = Connection::open(file(&inbox.dir)).unwrap();
        raw.execute("UPDATE action SET due = -10000000000000", []).unwrap();
        let preparation = Preparation { action: two, run, facts: None, result };
        inbox.store.commit_preparations(vec![preparation], at(second)).await.unwrap();
        assert_eq!(inbox.taken(&config, second).await.contains(&"2".to_owned()), taken, "{second}");
    }
}

#[tokio::test]
async fn what_a_person_approved_passes_the_limit_and_does_not_count() {
    let inbox = Inbox::open().await;
    let config = limited(1);
    let actions = inbox.plan("a", vec![ready("1"), ready("2")]).await;
    inbox.taken(&config, 10).await;
    let approved = inbox.store.change_by(actions[1], PersonChange::Approve, "ann (uid 7)", at(20)).await.unwrap();
    assert_eq!(approved, ActionState::Ready);
    let row = inbox.row(actions[1]).await;
    assert_eq!((row.approved_at, row.approved_by.as_deref()), (Some(at(20)), Some("ann (uid 7)")));
    assert_eq!(inbox.taken(&config, 20).await, ["2", "guard-alarm"]);
    // Its retry passes as well; what is planned anew needs another approval.
    inbox.fails(actions[1], 30).await;
    assert_eq!(inbox.taken(&config, 3000).await, ["2"]);
    let raw = Connection::open(file(&inbox.dir)).unwrap();
    let counted: i64 = raw.query_row("SELECT count(*) FROM attempt WHERE counted = 1", [], |row| row.get(0)).unwrap();
    assert_eq!(counted, 1);
}

#[tokio::test]
async fn what_is_planned_anew_needs_another_approval() {
    let inbox = Inbox::open().await;
    let held = NewAction { preparation: Some(prepared(Happening::HeldForApproval)), ..ready("s") };
    let action = inbox.plan("a", vec![held]).await[0];
    inbox.store.change_by(action, PersonChange::Approve, "ann", at(2)).await.unwrap();
    let protecting = GuardConfig { protected_users: vec!["a".to_owned()], ..limited(9) };
    assert!(inbox.taken(&protecting, 3).await.is_empty());
    assert_eq!(inbox.state(action).await, ActionState::Refused);
    inbox.store.change_by_person(action, PersonChange::Retry, at(4)).await.unwrap();
    let row = inbox.row(action).await;
    assert_eq!((row.state.as_str(), row.approved_at, row.approved_by), ("waiting", None, None));
}

#[tokio::test]
async fn the_guards_word_at_the_claim_ends_or_holds_what_was_ready() {
    let observe = GuardConfig { mode: Mode::Observe, ..limited(9) };
    let protecting = GuardConfig { protected_users: vec!["a".to_owned()], ..limited(9) };
    let stale = GuardConfig { max_event_age: Some(std::time::Duration::from_secs(5)), ..limited(9) };
    for (config, state, reason) in [
        (observe, "skipped", "observe"),
        (protecting, "refused", "guard"),
        (stale, "refused", "guard"),
        (limited(0), "awaiting_approval", "limit"),
    ] {
        for tried in [false, true] {
            let inbox = Inbox::open().await;
            let actions = inbox.plan("a", vec![ready("s"), waiting("then", &["s"])]).await;
            if tried {
                inbox.claim(2).await;
                inbox.fails(actions[0], 3).await;
            }
            let claims = inbox.claim_under(&config, 10).await;
            assert!(claims.taken.is_empty() && claims.tripped.is_empty());
            let row = inbox.row(actions[0]).await;
            assert_eq!((row.state.as_str(), row.reason.as_deref()), (state, Some(reason)));
            assert_eq!(row.error.as_deref(), Some(claims.stopped[0].why.as_str()));
            assert_eq!(u32::from(tried), row.attempts);
            // What waits for it goes on when it is at its end.
            let goes_on = inbox.store.preparable(at(11), 10).await.unwrap().len();
            assert_eq!(goes_on, usize::from(row.finished_at.is_some()), "{state}");
        }
    }
}

#[tokio::test]
async fn who_has_to_be_asked_for_holds_up_nobody_else() {
    let inbox = Inbox::open().await;
    let config = GuardConfig { protected_roles: vec!["any".to_owned()], ..limited(9) };
    let mut known = Standings::default();
    known.read("z", crate::guard::standing::Standing::default(), at(5));
    known.failed("y", "403".to_owned(), |_| std::time::Duration::from_secs(30), at(5));
    for user in ["a", "b", "y", "z"] {
        let params = serde_json::json!({"user": user, "group": "g"}).to_string();
        let preparation = Some(Prepared { params: Some(params), ..prepared(Happening::Prepared) });
        inbox.plan(user, vec![NewAction { preparation, ..ready(user) }]).await;
    }
    let judge = Judge::new(Arc::new(Guard::new(&config, [])), Arc::new(known), at(5), at(-3595));
    let claims = inbox.store.claim_ready(at(5), 1, judge).await.unwrap();
    assert_eq!(claims.taken.iter().map(|taken| taken.action.step.as_str()).collect::<Vec<_>>(), ["z"]);
    assert_eq!(claims.unasked.into_iter().collect::<Vec<_>>(), ["a", "b"]);
    let rows = inbox.rows().await;
    assert_eq!((rows[0].state.as_str(), rows[0].error.as_deref(), rows[0].due), ("ready", None, Some(at(1))));
    assert_eq!((rows[2].state.as_str(), rows[2].error.as_deref(), rows[2].due), ("ready", Some("403"), Some(at(35))));
    assert_eq!(inbox.store.status(at(6)).await.unwrap().unreadable, 1);
}

#[tokio::test]
async fn a_pause_claims_nothing_and_asks_nobody() {
    let inbox = Inbox::open().await;
    inbox.plan("a", vec![ready("s")]).await;
    inbox.store.set_paused(true, at(1)).await.unwrap();
    let claims = inbox.claim_under(&limited(0), 2).await;
    assert!(claims.taken.is_empty() && claims.stopped.is_empty());
}

#[tokio::test]
async fn what_nobody_approves_is_refused_and_idling_commits_nothing() {
    let inbox = Inbox::open().await;
    let held = NewAction { preparation: Some(prepared(Happening::HeldForApproval)), ..ready("s") };
    let actions = inbox.plan("a", vec![held, waiting("then", &["s"])]).await;
    let other = Store::open_existing(&file(&inbox.dir)).unwrap();
    let before = other.foreign_changes().await.unwrap();
    assert_eq!(inbox.store.expire_approvals(at(1), "too late".to_owned(), at(2)).await.unwrap(), 0);
    assert_eq!(other.foreign_changes().await.unwrap(), before);
    assert_eq!(inbox.store.expire_approvals(at(2), "too late".to_owned(), at(2)).await.unwrap(), 1);
    let row = inbox.row(actions[0]).await;
    let told = (row.state.as_str(), row.reason.as_deref(), row.error.as_deref());
    assert_eq!(told, ("refused", Some("expired"), Some("too late")));
    assert_eq!(inbox.store.preparable(at(3), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_held_in_great_number_is_held_in_parts() {
    let inbox = Inbox::open().await;
    for number in 0..6 {
        let steps = (0..100).map(|step| ready(&format!("{step}"))).collect();
        inbox.plan(&format!("event-{number}"), steps).await;
    }
    let claims = inbox.claim_under(&limited(0), 5).await;
    assert_eq!((claims.stopped.len(), claims.more), (500, true));
    let claims = inbox.claim_under(&limited(0), 5).await;
    assert_eq!((claims.stopped.len(), claims.more), (100, false));
}

#[tokio::test]
async fn a_great_number_of_users_who_have_to_be_asked_for_is_not_looked_at_again_before_one_was_read() {
    let inbox = Inbox::open().await;
    let config = GuardConfig { protected_roles: vec!["any".to_owned()], ..limited(9) };
    for number in 0..6 {
        let steps = (0..100).map(|step| ready(&format!("{step}"))).collect();
        inbox.plan(&format!("event-{number}"), steps).await;
    }
    let claims = inbox.claim_under(&config, 5).await;
    assert_eq!((claims.unasked.len(), claims.more), (5, false));
    // Where something else is among them, what is behind has its turn at once.
    let protecting = GuardConfig { protected_users: vec!["event-0".to_owned()], ..config };
    let claims = inbox.claim_under(&protecting, 5).await;
    assert_eq!((claims.stopped.len(), claims.unasked.len(), claims.more), (100, 4, true));
}

#[tokio::test]
async fn an_alarm_is_sent_also_when_the_state_file_is_a_copy_that_was_put_in_place() {
    let inbox = Inbox::open().await;
    let config = limited(1);
    let actions = inbox.plan("a", vec![ready("1"), ready("2"), message("m")]).await;
    let raw = Connection::open(file(&inbox.dir)).unwrap();
    raw.execute("INSERT INTO control (name, value, at) VALUES ('copied', '1', ?1)", [to_ms(at(1))]).unwrap();
    inbox.store.begin_work(at(9)).await.unwrap();
    let claims = inbox.claim_under(&config, 10).await;
    assert_eq!(claims.tripped.len(), 1);
    let alarm = &claims.taken.iter().find(|taken| taken.action.step == "guard-alarm").unwrap().action;
    assert!(!inbox.store.may_be_done_since_copy(alarm.id, alarm.attempt).await.unwrap());
    assert!(inbox.store.may_be_done_since_copy(actions[2], 1).await.unwrap());
    // One that was planned when the copy was made may have been sent.
    inbox.fails(alarm.id, 11).await;
    raw.execute("DELETE FROM attempt WHERE action = ?1", [alarm.id.0]).unwrap();
    raw.execute("UPDATE control SET at = ?1 WHERE name = 'restored'", [to_ms(at(20))]).unwrap();
    assert!(inbox.store.may_be_done_since_copy(alarm.id, 1).await.unwrap());
}

#[tokio::test]
async fn however_a_person_moves_an_action_no_two_of_its_attempts_have_one_number() {
    let inbox = Inbox::open().await;
    let protecting = GuardConfig { protected_users: vec!["a".to_owned()], ..limited(9) };
    let action = inbox.plan("a", vec![ready("s")]).await[0];
    let run = RunId(inbox.row(action).await.run);
    let prepare = async |result| {
        let preparation = Preparation { action, run, facts: None, result };
        inbox.store.commit_preparations(vec![preparation], at(3)).await.unwrap();
    };
    let person = async |change| inbox.store.change_by_person(action, change, at(3)).await.unwrap();
    // Tried, refused, planned anew, put off, taken back, tried again: the tries that were put off have no rows.
    assert_eq!(inbox.claim(2).await.len(), 1);
    inbox.fails(action, 3).await;
    assert!(inbox.taken(&protecting, 3).await.is_empty());
    person(PersonChange::Retry).await;
    prepare(Err((at(3), "later".to_owned()))).await;
    person(PersonChange::Cancel).await;
    person(PersonChange::Retry).await;
    assert_eq!(inbox.claim(4).await.len(), 1);
    inbox.fails(action, 4).await;
    // Refused and planned anew once more.
    assert!(inbox.taken(&protecting, 5).await.is_empty());
    person(PersonChange::Retry).await;
    prepare(Ok(prepared(Happening::Prepared))).await;
    assert_eq!(inbox.claim(6).await.len(), 1);
    let numbers: Vec<_> = inbox.store.list_attempts(action.0).await.unwrap().iter().map(|row| row.number).collect();
    assert_eq!(numbers, [1, 3, 4]);
}

#[tokio::test]
async fn the_time_for_retries_begins_with_the_first_attempt_however_long_that_was_put_off() {
    let inbox = Inbox::open().await;
    let action = inbox.plan("a", vec![ready("s")]).await[0];
    inbox.store.set_paused(true, at(2)).await.unwrap();
    inbox.store.set_paused(false, at(900_000)).await.unwrap();
    for second in [900_001, 900_060] {
        let claims = inbox.claim_under(&limited(9), second).await;
        assert_eq!(claims.taken[0].action.retry_from, at(900_001), "{second}");
        inbox.fails(action, second).await;
    }
}

/// What happens to the store next.
#[derive(Debug, Clone)]
enum Step {
    /// Time passes, in minutes, and everything that can be claimed is.
    Wait(i64),
    /// An event plans so many changes.
    Plan(usize),
    /// An attempt under way ends in this way.
    Ends(usize, bool),
    /// The daemon is killed and starts again.
    Restart,
    /// Somebody takes every stop away behind our back: the count alone has to hold.
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..30_i64).prop_map(Step::Wait),
        2 => (1..4_usize).prop_map(Step::Plan),
        3 => (0..8_usize, any::<bool>()).prop_map(|(which, done)| Step::Ends(which, done)),
        1 => Just(Step::Restart),
        3 => Just(Step::Forget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    /// The promise, with the real ledger: whatever is planned, fails, is retried and restarted.
    #[test]
    fn the_ledger_never_lets_more_through_than_the_limit(steps in proptest::collection::vec(step(), 1..25), most in 1..5_u32) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut inbox = Inbox::open().await;
            let config = limited(most);
            let mut minute = 0;
            let mut under_way: Vec<ActionId> = Vec::new();
            let mut tried: Vec<(i64, ActionId)> = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Wait(minutes) => {
                        minute += minutes;
                        for taken in inbox.claim_under(&config, minute * 60).await.taken {
                            if taken.action.kind == "okta.group.add_user" {
                                tried.push((minute, taken.action.id));
                            }
                            under_way.push(taken.action.id);
                        }
                    }
                    Step::Plan(count) => {
                        let steps = (0..count).map(|step| ready(&format!("{step}"))).collect();
                        inbox.plan(&format!("event-{number}"), steps).await;
                    }
                    Step::Ends(which, done) if which < under_way.len() => {
                        let action = under_way.swap_remove(which);
                        if done {
                            inbox.ends(action, "done", Happening::Succeeded).await;
                        } else {
                            inbox.fails(action, minute * 60).await;
                        }
                    }
                    Step::Ends(..) => {}
                    Step::Forget => {
                        let raw = Connection::open(file(&inbox.dir)).unwrap();
                        raw.execute("DELETE FROM trip", []).unwrap();
                        raw.execute("UPDATE action SET state = 'ready' WHERE state = 'awaiting_approval'", []).unwrap();
                    }
                    Step::Restart => {
                        let Inbox { store, stream, dir } = inbox;
                        drop(store);
                        inbox = Inbox { store: Store::open(&file(&dir)).unwrap(), stream, dir };
                        inbox.store.mark_lost(at(minute * 60), |_| Duration::ZERO).await.unwrap();
                        for action in under_way.drain(..) {
                            let found = AttemptEnd { due: Some(at(0)), ..end(action, None, Happening::FoundUndone) };
                            inbox.store.record_outcome(found, at(minute * 60)).await.unwrap();
                        }
                    }
                }
                for (end, _) in &tried {
                    let within = tried.iter().filter(|(at, _)| at <= end && at + 60 > *end);
                    let distinct: std::collections::HashSet<_> = within.map(|(_, action)| action).collect();
                    assert!(distinct.len() <= most as usize, "{tried:?}");
                }
            }
        });
    }
}
