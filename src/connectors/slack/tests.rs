use std::time::Duration;

use serde_json::json;

use super::super::stage::{Reply, Stage};
use super::*;
use crate::model::ids::IdempotencyKey;

fn config(base: &str) -> SlackConfig {
    SlackConfig {
        token: None,
        webhook_url: None,
        client_certificate: None,
        client_key: None,
        api_url: format!("{base}/api"),
        timeout: Duration::from_secs(20),
    }
}

fn call(params: Value) -> Cleared<Call> {
    call_after(Receipt::default(), params)
}

/// A call about which the ledger knows something.
fn call_after(earlier: Receipt, params: Value) -> Cleared<Call> {
    Cleared::unguarded(Call { key: IdempotencyKey::from_stored("k".repeat(40)), params, attempt: 1, earlier })
}

async fn outcome_of(answer: Value) -> Outcome {
    let stage = Stage::open(move |_| Reply::json(200, &answer)).await;
    let slack = Slack::new(&config(&stage.base), Some("xoxb-1".into()), None, &Network::default()).unwrap();
    slack.perform(&call(json!({"channel": "C1", "text": "hello"}))).await
}

#[tokio::test]
async fn a_bot_names_channel_and_key_and_lets_nothing_unfurl() {
    let stage = Stage::open(|_| Reply::json(200, &json!({"ok": true, "channel": "C1", "ts": "17.01"}))).await;
    let slack = Slack::new(&config(&stage.base), Some("xoxb-1".into()), None, &Network::default()).unwrap();
    let outcome = slack.perform(&call(json!({"channel": "#security", "text": "hello", "thread_ts": "16.5"}))).await;
    let Outcome::Done(receipt) = &outcome else { panic!("{outcome:?}") };
    assert_eq!((receipt.id.as_deref(), receipt.note.as_deref()), (Some("17.01"), Some("posted to C1")));
    let seen = &stage.seen()[0];
    assert_eq!(seen.path(), "/api/chat.postMessage");
    assert_eq!(seen.header("authorization"), Some("Bearer xoxb-1"));
    assert_eq!(seen.header("content-type"), Some("application/json; charset=utf-8"));
    let key = "k".repeat(40);
    assert_eq!(
        seen.json(),
        json!({
            "channel": "#security", "text": "hello", "thread_ts": "16.5", "unfurl_links": false, "unfurl_media": false,
            "parse": "none", "link_names": false,
            "metadata": {"event_type": "okta_responder_action", "event_payload": {"key": key}},
        })
    );
}

#[tokio::test]
async fn a_webhook_needs_no_channel_and_sends_none() {
    let stage = Stage::open(|_| Reply::text(200, "text/html", "ok")).await;
    let url = format!("{}/services/T/B/X", stage.base);
    let slack = Slack::new(&config(&stage.base), None, Some(url.into()), &Network::default()).unwrap();
    assert!(!slack.needs_channel());
    let divider = json!([{"type": "divider"}]);
    let outcome = slack.perform(&call(json!({"channel": "#elsewhere", "text": "hello", "blocks": divider}))).await;
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    assert_eq!(
        stage.seen()[0].json(),
        json!({
            "text": "hello", "unfurl_links": false, "unfurl_media": false, "parse": "none", "link_names": false,
            "blocks": divider,
        })
    );
}

#[tokio::test]
async fn a_bot_without_a_channel_sends_nothing() {
    let stage = Stage::open(|_| Reply::Close).await;
    let slack = Slack::new(&config(&stage.base), Some("xoxb-1".into()), None, &Network::default()).unwrap();
    let outcome = slack.perform(&call(json!({"text": "hello"}))).await;
    assert!(matches!(&outcome, Outcome::Permanent(failure) if failure.reason == Reason::BadParameters));
    assert_eq!(stage.seen().len(), 0);
}

#[tokio::test]
async fn every_kind_of_error_word_has_its_outcome() {
    for (word, expected) in [
        ("token_revoked", Reason::Unauthorized),
        ("ratelimited", Reason::RateLimited),
        ("service_unavailable", Reason::ServiceError),
    ] {
        let outcome = outcome_of(json!({"ok": false, "error": word})).await;
        assert!(matches!(&outcome, Outcome::Transient(f) if f.reason == expected), "{word}: {outcome:?}");
    }
    for (word, expected) in [
        ("missing_scope", Reason::Forbidden),
        ("restricted_action_read_only_channel", Reason::Forbidden),
        ("channel_not_found", Reason::NotFound),
        ("is_archived", Reason::Conflict),
        ("invalid_blocks", Reason::Rejected),
        ("a word of no kind\n", Reason::Rejected),
    ] {
        let outcome = outcome_of(json!({"ok": false, "error": word})).await;
        assert!(matches!(&outcome, Outcome::Permanent(f) if f.reason == expected), "{word}: {outcome:?}");
    }
    for word in ["fatal_error", "internal_error"] {
        let outcome = outcome_of(json!({"ok": false, "error": word})).await;
        assert!(matches!(outcome, Outcome::Unknown(_)), "{word}: {outcome:?}");
    }
}

#[test]
fn parameters_are_checked() {
    let check = POST_MESSAGE.check;
    assert!(check(&json!({"text": "{{ user.login }}", "blocks": [{"type": "divider"}]})).is_ok());
    assert!(check(&json!({"text": ""})).is_err());
    assert!(check(&json!({"text": "x", "blocks": []})).is_err());
    assert!(check(&json!({"text": "x", "blocks": "x"})).is_err());
    let markdown = json!([{"type": "markdown", "text": "{{ event.displayMessage }}"}]);
    assert!(check(&json!({"text": "x", "blocks": markdown})).unwrap_err().contains("`markdown` block"));
    assert!(check(&json!({"text": "x", "chanel": "x"})).unwrap_err().contains("unknown field `chanel`"));
    assert!(check(&json!({"text": "x", "thread": "user_day", "reply_broadcast": true})).is_ok());
    assert!(check(&json!({"text": "x", "thread": "user"})).unwrap_err().contains("expected `user_day`"));
    assert!(check(&json!({"text": "x", "thread": "user_day", "thread_ts": "1.2"})).unwrap_err().contains("keep one"));
    assert!(check(&json!({"text": "x", "thread_of": "00u1"})).unwrap_err().contains("without `thread`"));
    assert!(check(&json!({"text": "x", "reply_broadcast": true})).unwrap_err().contains("without `thread`"));
    let lane = |params: Value| (POST_MESSAGE.lane)(&params);
    assert_eq!(lane(threaded()).as_deref(), Some("slack.message/#security/00u1 2026-08-24"));
    assert_eq!(lane(json!({"channel": "#security", "text": "x", "thread": "user_day"})), None, "of no user");
    let check = UPDATE_MESSAGE.check;
    assert!(check(&json!({"message": "tell", "text": "x"})).is_ok());
    assert!(check(&json!({"message": "", "text": "x"})).is_err());
    assert!(check(&json!({"message": "tell", "text": "x", "channel": "C1"})).unwrap_err().contains("unknown field"));
}

#[tokio::test]
async fn a_text_and_blocks_of_any_length_arrive_and_a_message_without_blocks_left_is_its_text() {
    let stage = Stage::open(|_| Reply::json(200, &json!({"ok": true, "channel": "C1", "ts": "17.01"}))).await;
    let slack = Slack::new(&config(&stage.base), Some("xoxb-1".into()), None, &Network::default()).unwrap();
    let section = |text: &str| json!({"type": "section", "text": {"type": "mrkdwn", "text": text}});
    let long =
        json!({"channel": "C1", "text": "é".repeat(40_001), "blocks": [section(&"x".repeat(3001)), section("")]});
    assert!(matches!(slack.perform(&call(long)).await, Outcome::Done(_)));
    let sent = stage.seen()[0].json();
    assert_eq!(sent["text"].as_str().unwrap().chars().count(), 40_000);
    assert_eq!(sent["blocks"].as_array().unwrap().len(), 1);
    assert_eq!(sent["blocks"][0]["text"]["text"].as_str().unwrap().chars().count(), 3000);
    slack.perform(&call(json!({"channel": "C1", "text": "x", "blocks": [section(" ")]}))).await;
    assert_eq!(stage.seen()[1].json().get("blocks"), None);
}

fn threaded() -> Value {
    json!({"channel": "#security", "text": "hello", "thread": "user_day", "thread_of": "00u1 2026-08-24"})
}

fn in_thread(ts: &str) -> Receipt {
    Receipt { thread: Some(ts.to_owned()), ..Receipt::default() }
}

#[tokio::test]
async fn the_first_message_of_a_day_opens_a_thread_and_the_next_one_answers_it() {
    let stage = Stage::open(|_| Reply::json(200, &json!({"ok": true, "channel": "C1", "ts": "17.01"}))).await;
    let slack = Slack::new(&config(&stage.base), Some("xoxb-1".into()), None, &Network::default()).unwrap();
    let Outcome::Done(first) = slack.perform(&call(threaded())).await else { panic!("it was not posted") };
    assert_eq!((first.thread.as_deref(), first.channel.as_deref()), (Some("17.01"), Some("C1")));
    assert_eq!(first.note.as_deref(), Some("posted to C1, where it opens a thread"));
    let Outcome::Done(next) = slack.perform(&call_after(first, threaded())).await else { panic!("it was not posted") };
    assert_eq!(next.thread.as_deref(), Some("17.01"));
    let threads: Vec<_> = stage.seen().iter().map(|seen| seen.json()["thread_ts"].clone()).collect();
    assert_eq!(threads, [Value::Null, json!("17.01")]);
    // What stands alone is no part of a thread, whatever the ledger knows.
    let alone = slack.perform(&call_after(in_thread("17.01"), json!({"channel": "C1", "text": "x"}))).await;
    assert!(matches!(alone, Outcome::Done(receipt) if receipt.thread.is_none()));
    assert_eq!(stage.seen()[2].json().get("thread_ts"), None);
}

#[tokio::test]
async fn a_thread_whose_first_message_is_gone_is_opened_anew_by_the_next_attempt() {
    let stage = Stage::open(|seen| match seen.json().get("thread_ts") {
        Some(_) => Reply::json(200, &json!({"ok": false, "error": "thread_not_found"})),
        None => Reply::json(200, &json!({"ok": true, "channel": "C1", "ts": "18.01"})),
    })
    .await;
    let slack = Slack::new(&config(&stage.base), Some("xoxb-1".into()), None, &Network::default()).unwrap();
    let Outcome::Progress(known) = slack.perform(&call_after(in_thread("17.01"), threaded())).await else {
        panic!("it did not go on")
    };
    let Outcome::Done(receipt) = slack.perform(&call_after(known, threaded())).await else { panic!("not posted") };
    assert_eq!(receipt.thread.as_deref(), Some("18.01"));
    // A thread that the step itself names is the operator's.
    let named = slack.perform(&call(json!({"channel": "C1", "text": "x", "thread_ts": "17.01"}))).await;
    assert!(matches!(&named, Outcome::Permanent(failure) if failure.reason == Reason::NotFound), "{named:?}");
}

#[tokio::test]
async fn an_edit_finds_its_message_and_takes_away_blocks_that_it_does_not_have() {
    let stage = Stage::open(|_| Reply::json(200, &json!({"ok": true, "channel": "C1", "ts": "17.01"}))).await;
    let slack = Slack::new(&config(&stage.base), Some("xoxb-1".into()), None, &Network::default()).unwrap();
    let edit = Edit(Arc::new(slack));
    let posted = Receipt { id: Some("17.01".to_owned()), channel: Some("C1".to_owned()), ..Receipt::default() };
    let text = format!("{} end", "é".repeat(2000));
    let outcome = edit.perform(&call_after(posted, json!({"message": "tell", "text": text}))).await;
    assert!(matches!(&outcome, Outcome::Done(receipt) if receipt.id.as_deref() == Some("17.01")), "{outcome:?}");
    let seen = &stage.seen()[0];
    assert_eq!(seen.path(), "/api/chat.update");
    let mut sent = seen.json();
    assert!(sent["text"].take().as_str().is_some_and(|text| text.len() <= 4000 && text.ends_with('…')));
    let expected = json!({
        "channel": "C1", "ts": "17.01", "text": null, "blocks": [], "parse": "none", "link_names": false,
    });
    assert_eq!(sent, expected);

    let unknown = edit.perform(&call(json!({"message": "tell", "text": "x"}))).await;
    assert!(matches!(unknown, Outcome::Permanent(failure) if failure.reason == Reason::BadParameters));
    assert_eq!(stage.seen().len(), 1);
}

#[tokio::test]
async fn every_error_word_of_an_edit_has_its_outcome() {
    for (word, expected) in [
        ("message_not_found", Reason::NotFound),
        ("cant_update_message", Reason::Forbidden),
        ("edit_window_closed", Reason::Conflict),
        ("is_inactive", Reason::Conflict),
        ("msg_too_long", Reason::Rejected),
    ] {
        let outcome = outcome_of(json!({"ok": false, "error": word})).await;
        assert!(matches!(&outcome, Outcome::Permanent(f) if f.reason == expected), "{word}: {outcome:?}");
    }
    let outcome = outcome_of(json!({"ok": false, "error": "update_failed"})).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
}

#[test]
fn exactly_one_of_token_and_webhook_is_taken() {
    let config = config("https://slack.com");
    assert!(Slack::new(&config, None, None, &Network::default()).is_err());
    assert!(
        Slack::new(
            &config,
            Some("t".into()),
            Some("https://hooks.slack.com/services/T/B/X".into()),
            &Network::default()
        )
        .is_err()
    );
    let error = Slack::new(&config, None, Some("http://hooks.slack.com/services/T/B/X".into()), &Network::default())
        .unwrap_err();
    assert!(!format!("{error} {error:?}").contains("T/B/X"));
}
