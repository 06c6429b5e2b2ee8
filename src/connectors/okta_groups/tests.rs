use mockito::{Matcher, Mock, Server, ServerGuard};
use serde_json::{Value, json};

use super::*;
use crate::config::GuardConfig;
use crate::guard::Guard;
use crate::model::ids::IdempotencyKey;
use crate::okta::testing::{USER, answers, client, error_body, group};

const A: &str = "00g00000000000000000";
const B: &str = "00g00000000000000001";

fn call(params: Value, earlier: &[GroupNote]) -> Call {
    let earlier = Receipt { groups: earlier.to_vec(), ..Receipt::default() };
    Call { key: IdempotencyKey::derive("okta", "u", "p", "s"), params, attempt: 1, earlier }
}

fn note(id: &str, refused: bool) -> GroupNote {
    GroupNote { id: id.to_owned(), name: "x".to_owned(), refused }
}

fn everybody() -> Value {
    group("00geveryoneeveryonee", "Everyone", "BUILT_IN")
}

/// An org in which the user is in these groups and in `Everyone`, and a rule manages some.
async fn org(groups: &[Value], by_rule: &[&str]) -> ServerGuard {
    let mut server = Server::new_async().await;
    let mut his = vec![everybody()];
    his.extend(groups.iter().cloned());
    answers(&mut server, "GET", &format!("/api/v1/users/{USER}/groups"), 200, &json!(his)).await;
    for one in [group(A, "A", "OKTA_GROUP"), group(B, "B", "OKTA_GROUP")] {
        answers(&mut server, "GET", &format!("/api/v1/groups/{}", one["id"].as_str().unwrap()), 200, &one).await;
    }
    let rules = json!([{"name": "r", "status": "ACTIVE", "actions": {"assignUserToGroups": {"groupIds": by_rule}}}]);
    answers(&mut server, "GET", "/api/v1/groups/rules", 200, &rules).await;
    server
}

fn a() -> Value {
    group(A, "A", "OKTA_GROUP")
}

fn b() -> Value {
    group(B, "B", "OKTA_GROUP")
}

async fn change(server: &mut ServerGuard, method: &str, group: &str, status: usize) -> Mock {
    let mock = server.mock(method, format!("/api/v1/groups/{group}/users/{USER}").as_str());
    mock.with_status(status).with_body(error_body("E0000006", "no")).create_async().await
}

async fn remove(server: &ServerGuard, params: Value, earlier: &[GroupNote]) -> Outcome {
    let call = Cleared::unguarded(call(params, earlier));
    RemoveFromAll::new(Arc::new(client(&server.url()))).perform(&call).await
}

async fn restore(server: &ServerGuard, params: Value, earlier: &[GroupNote]) -> Outcome {
    let call = Cleared::unguarded(call(params, earlier));
    Restore::new(Arc::new(client(&server.url()))).perform(&call).await
}

fn he() -> Value {
    json!({"user": USER})
}

#[track_caller]
fn progress(outcome: Outcome) -> Receipt {
    match outcome {
        Outcome::Progress(receipt) => receipt,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn told(outcome: &Outcome, parts: &[&str]) {
    let text = format!("{outcome:?}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
}

#[tokio::test]
async fn what_he_is_to_leave_is_remembered_before_anything_is_touched() {
    let mut server = org(&[a(), b(), group("00gimported", "Imported", "APP_GROUP")], &[B]).await;
    let touched = server.mock("DELETE", Matcher::Any).expect(0).create_async().await;
    let receipt = progress(remove(&server, he(), &[]).await);
    assert_eq!(receipt.groups, [GroupNote { id: A.to_owned(), name: "A".to_owned(), refused: false }]);
    let kept = receipt.note.unwrap();
    assert!(kept.contains("a group rule manages them: `B`") && kept.contains("imported: `Imported`"), "{kept}");
    let both = json!({"user": USER, "rule_managed": "remove"});
    assert_eq!(progress(remove(&server, both, &[]).await).groups.len(), 2);
    let none = json!({"user": USER, "except": ["A"]});
    told(&remove(&server, none, &[]).await, &["AlreadyDone", "a group rule manages them"]);
    touched.assert_async().await;
}

#[tokio::test]
async fn each_attempt_leaves_the_next_group_that_is_remembered() {
    let plan = [note(A, false), note(B, false)];
    let mut server = org(&[a(), b(), group("00gnew", "Joined since", "OKTA_GROUP")], &[]).await;
    let (first, second) = (change(&mut server, "DELETE", A, 204).await, change(&mut server, "DELETE", B, 204).await);
    told(&remove(&server, he(), &plan).await, &["Progress", "is out of `A`", "1 more"]);
    assert!(first.matched_async().await && !second.matched_async().await);
    let mut server = org(&[b()], &[]).await;
    let second = change(&mut server, "DELETE", B, 204).await;
    let verify = async |server: &ServerGuard| {
        RemoveFromAll::new(Arc::new(client(&server.url()))).verify(&call(he(), &plan)).await
    };
    assert_eq!(verify(&server).await, Verdict::NotDone);
    told(&remove(&server, he(), &plan).await, &["Done", "is out of 2 groups"]);
    assert!(second.matched_async().await);
    let kept = [group("00gimported", "Imported", "APP_GROUP"), group("00gnew", "Joined since", "OKTA_GROUP")];
    let server = org(&kept, &[]).await;
    let Verdict::Done(receipt) = verify(&server).await else { panic!("not so") };
    let told_after_a_crash = receipt.note.unwrap();
    for part in ["imported: `Imported`", "joined them since: `Joined since`"] {
        assert!(told_after_a_crash.contains(part), "{told_after_a_crash}");
    }
    told(&remove(&server, he(), &plan).await, &["Done", "is out of 2 groups"]);
}

#[tokio::test]
async fn a_group_that_okta_does_not_let_go_keeps_him_in_no_other() {
    let plan = [note(A, false), note(B, false)];
    let mut server = org(&[a(), b()], &[]).await;
    change(&mut server, "DELETE", A, 403).await;
    let receipt = progress(remove(&server, he(), &plan).await);
    assert_eq!(receipt.groups, [note(A, true), note(B, false)]);
    let gone = change(&mut server, "DELETE", B, 204).await;
    progress(remove(&server, he(), &receipt.groups).await);
    assert!(gone.matched_async().await);
    let server = org(&[a()], &[]).await;
    let connector = RemoveFromAll::new(Arc::new(client(&server.url())));
    assert_eq!(connector.verify(&call(he(), &receipt.groups)).await, Verdict::NotDone, "he is in one still");
    let outcome = remove(&server, he(), &receipt.groups).await;
    told(&outcome, &["Permanent", "Forbidden", A, "he is out of the others"]);
    let mut server = org(&[a()], &[]).await;
    change(&mut server, "DELETE", A, 403).await;
    told(&remove(&server, he(), &[note(A, false)]).await, &["Permanent", "Forbidden"]);
}

#[tokio::test]
async fn a_protected_group_is_left_and_entered_by_nobody_and_it_is_told() {
    let config = GuardConfig { protected_groups: vec!["a".to_owned()], ..GuardConfig::default() };
    let guarded = |earlier: &[GroupNote]| Cleared::under(Guard::new(&config, []), call(he(), earlier));
    let mut server = org(&[a(), b()], &[]).await;
    let touched = server.mock("DELETE", Matcher::Any).expect(0).create_async().await;
    let removal = RemoveFromAll::new(Arc::new(client(&server.url())));
    let receipt = progress(removal.perform(&guarded(&[])).await);
    assert_eq!(receipt.groups.len(), 1);
    assert!(receipt.note.unwrap().contains("protected: `A`"));
    // Protected since it was remembered.
    let server = org(&[a()], &[]).await;
    let removal = RemoveFromAll::new(Arc::new(client(&server.url())));
    told(&removal.perform(&guarded(&[note(A, false)])).await, &["Done", "protected: `A`"]);
    touched.assert_async().await;
    let server = org(&[], &[]).await;
    let outcome = Restore::new(Arc::new(client(&server.url()))).perform(&guarded(&[note(A, false)])).await;
    told(&outcome, &["AlreadyDone", "not restored, because they are protected: `A`"]);
}

#[tokio::test]
async fn what_is_remembered_is_restored_one_in_each_attempt() {
    let plan = [note(A, false), note(B, false), note(B, false), note("00ggone", false)];
    let mut server = org(&[], &[]).await;
    answers(&mut server, "GET", "/api/v1/groups/00ggone", 404, &json!({})).await;
    let first = change(&mut server, "PUT", A, 204).await;
    let begun = restore(&server, he(), &plan).await;
    told(&begun, &["Progress", "is back in `A`", "2 more"]);
    assert_eq!(progress(begun).groups, plan, "from now on it is this action's own memory");
    assert!(first.matched_async().await);
    let mut server = org(&[a()], &[]).await;
    answers(&mut server, "GET", "/api/v1/groups/00ggone", 404, &json!({})).await;
    let second = change(&mut server, "PUT", B, 204).await;
    told(&restore(&server, he(), &plan).await, &["Progress", "is back in `B`"]);
    assert!(second.matched_async().await);
    let mut server = org(&[a(), b()], &[]).await;
    answers(&mut server, "GET", "/api/v1/groups/00ggone", 404, &json!({})).await;
    told(&restore(&server, he(), &plan).await, &["AlreadyDone", "they are gone: `x` (00ggone)"]);
    let connector = Restore::new(Arc::new(client(&server.url())));
    assert!(matches!(connector.verify(&call(he(), &plan)).await, Verdict::Done(_)));
    told(&restore(&server, he(), &[]).await, &["AlreadyDone", "nothing is remembered"]);
}

#[tokio::test]
async fn groups_that_are_named_are_restored_instead_of_those_remembered() {
    let mut server = org(&[a()], &[]).await;
    let second = change(&mut server, "PUT", B, 204).await;
    let named = json!({"user": USER, "groups": [A, B]});
    let connector = Restore::new(Arc::new(client(&server.url())));
    assert_eq!(connector.verify(&call(named.clone(), &[])).await, Verdict::NotDone);
    told(&restore(&server, named, &[]).await, &["Done", "is back in `B`"]);
    assert!(second.matched_async().await);
}

#[tokio::test]
async fn a_group_that_refuses_him_keeps_him_out_of_no_other() {
    let plan = [note(A, false), note(B, false)];
    let mut server = org(&[], &[]).await;
    change(&mut server, "PUT", A, 403).await;
    let receipt = progress(restore(&server, he(), &plan).await);
    assert_eq!(receipt.groups, [note(A, true), note(B, false)]);
    change(&mut server, "PUT", B, 204).await;
    progress(restore(&server, he(), &receipt.groups).await);
    let server = org(&[b()], &[]).await;
    let connector = Restore::new(Arc::new(client(&server.url())));
    assert_eq!(connector.verify(&call(he(), &receipt.groups)).await, Verdict::NotDone, "he is not in one still");
    told(&restore(&server, he(), &receipt.groups).await, &["Permanent", "Forbidden", A]);
}

#[tokio::test]
async fn who_does_not_exist_is_in_no_group() {
    let mut server = Server::new_async().await;
    answers(&mut server, "GET", &format!("/api/v1/users/{USER}/groups"), 404, &json!({})).await;
    told(&remove(&server, he(), &[]).await, &["AlreadyDone"]);
    told(&restore(&server, he(), &[]).await, &["Permanent", "NotFound"]);
}

#[tokio::test]
async fn a_lost_answer_is_in_doubt() {
    let plan = [note(A, false), note(B, false)];
    let mut server = org(&[a(), b()], &[]).await;
    change(&mut server, "DELETE", A, 502).await;
    assert!(matches!(remove(&server, he(), &plan).await, Outcome::Unknown(_)));
    let mut server = org(&[], &[]).await;
    change(&mut server, "PUT", A, 502).await;
    assert!(matches!(restore(&server, he(), &plan).await, Outcome::Unknown(_)));
}

#[test]
fn parameters_are_checked_and_both_ways_share_the_lane() {
    assert_eq!((REMOVE_FROM_ALL.lane)(&he()), (RESTORE.lane)(&he()));
    assert_eq!((RESTORE.lane)(&he()), Some(format!("okta.group.all/{USER}")));
    let whole = json!({"user": "u", "except": ["A"], "rule_managed": "remove"});
    assert!((REMOVE_FROM_ALL.check)(&whole).is_ok() && (RESTORE.check)(&whole).is_err());
    for bad in [json!({}), json!({"user": "u", "except": "A"}), json!({"user": "u", "rule_managed": "keep"})] {
        assert!((REMOVE_FROM_ALL.check)(&bad).is_err(), "{bad}");
    }
    assert!((RESTORE.check)(&json!({"user": "u", "groups": [" "]})).is_err());
}
