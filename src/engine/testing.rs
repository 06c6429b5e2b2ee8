//! What the tests of the tasks share: an engine that reaches nobody, and things that blow up when they are touched.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tempfile::TempDir;

use super::clock::Clock;
use super::retry::Schedule;
use super::{Engine, Parts, Settings};
use crate::config::values::{Interval, StartFrom};
use crate::config::{GuardConfig, RiskConfig};
use crate::connectors::{ActionKind, Call, Connector, Effect, Registry, Service};
use crate::guard::{Cleared, Guard};
use crate::model::escape::Escape;
use crate::model::ids::StreamId;
use crate::model::outcome::{Outcome, Verdict};
use crate::okta::testing::client;
use crate::playbook::Playbook;
use crate::playbook::facts::LinkBase;
use crate::store::{Keep, NewEvent, NewStream, PageCommit, Store, StreamKind};

/// An action whose every function panics once its step is prepared.
pub(super) static POISON: ActionKind = ActionKind {
    name: "slack.message.post",
    summary: "Panics",
    service: Service::Slack,
    effect: Effect::Message,
    changes_access: false,
    resets_risk: false,
    rights: &[],
    from_event: &[],
    check: |_| panic!("poison"),
    schema: |_| true.into(),
    escape: |_| Escape::Plain,
    lane: |_| None,
    inverse: |_| panic!("poison"),
};

/// A connector that panics.
pub(super) struct Poison;

#[async_trait]
impl Connector for Poison {
    async fn perform(&self, _: &Cleared<Call>) -> Outcome {
        panic!("poison")
    }

    async fn verify(&self, _: &Call) -> Verdict {
        panic!("poison")
    }
}

/// A moment.
pub(super) fn now() -> Timestamp {
    Clock::start().now()
}

/// An engine with a state file of its own, which reaches nobody.
pub(super) async fn engine(playbooks: Vec<Playbook>, connectors: Registry) -> (Arc<Engine>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("state.db")).unwrap();
    let engine = Engine::new(Parts {
        clock: Clock::start(),
        store,
        okta: Arc::new(client("http://127.0.0.1:9")),
        playbooks,
        connectors,
        guard: Guard::new(&GuardConfig::default(), []),
        links: LinkBase::new("https://example.okta.com", None),
        settings: Settings {
            start_from: StartFrom::Now,
            interval: Interval::Auto,
            overlap: Duration::from_secs(60),
            page_size: 10,
            max_filter_types: 10,
            risk: RiskConfig::default(),
            manager_link: "manager".to_owned(),
            concurrency: 4,
            retry: Schedule { initial: Duration::from_secs(1), max: Duration::from_secs(300) },
            give_up_after: Duration::from_secs(3600),
            drain: Duration::ZERO,
            keep: Keep::default(),
            prune_every: Duration::from_secs(3600),
        },
    });
    (Arc::new(engine), dir)
}

/// Stores plain events of this type, each of a user of its own.
pub(super) async fn receive(engine: &Engine, event_type: &str, uuids: &[&str]) {
    let event = |uuid: &&str| NewEvent {
        uuid: (*uuid).to_owned(),
        event_type: event_type.to_owned(),
        published: now(),
        subject: Some(format!("user-{uuid}")),
        risk: None,
        traits: Default::default(),
        body: format!(r#"{{"uuid":"{uuid}","eventType":"{event_type}","published":"{:.3}"}}"#, now()),
    };
    receive_page(engine, uuids.iter().map(event).collect()).await;
}

/// Stores these events of the live stream.
pub(super) async fn receive_page(engine: &Engine, events: Vec<NewEvent>) {
    let new = NewStream {
        source: "okta".to_owned(),
        kind: StreamKind::Live,
        query: String::new(),
        since: now(),
        until: None,
        execute: false,
    };
    let stream: StreamId = engine.store.create_stream(new, now()).await.unwrap();
    let page = PageCommit {
        stream,
        asked: None,
        next_url: "next".to_owned(),
        events,
        unwanted: 0,
        quarantined: Vec::new(),
        source_now: now(),
        last: false,
    };
    engine.store.commit_page(page, now()).await.unwrap();
}
