//! What all the services share: one state under one lock, the clock, and a signal whenever something changed.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

use super::OrgOptions;
use super::clock::Clock;
use super::directory::{Directory, User};
use super::effects::{Effect, Journal, Service};
use super::faults::Faults;
use super::governance::Reviews;
use super::jira::Project;
use super::log::Log;
use super::oauth::OAuth;
use super::pagerduty::Alert;
use super::rate::RateModel;
use super::remedies::Estate;
use super::secrets::Secrets;
use super::servicenow::Tables;
use super::slack::Posts;
use super::smtp::Mail;
use super::thirdparty::Blocks;

/// The shared world.
pub(super) struct World {
    pub(super) options: OrgOptions,
    pub(super) clock: Clock,
    pub(super) addresses: Addresses,
    /// The origin that the org goes by, in links and in what tokens and proofs are for.
    okta_url: Mutex<String>,
    inside: Mutex<Inside>,
    version: watch::Sender<u64>,
}

/// Where the services listen.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    pub(super) okta: SocketAddr,
    /// Origins, without a slash at the end.
    pub(super) servicenow: String,
    pub(super) jira: String,
    pub(super) pagerduty: String,
    pub(super) slack: String,
    pub(super) teams: String,
    pub(super) third_party: String,
    pub(super) smtp_port: u16,
}

/// The state.
pub(super) struct Inside {
    pub(super) log: Log,
    pub(super) directory: Directory,
    pub(super) estate: Estate,
    pub(super) reviews: Reviews,
    pub(super) journal: Journal,
    pub(super) faults: Faults,
    pub(super) rate: RateModel,
    pub(super) oauth: OAuth,
    pub(super) secrets: Secrets,
    pub(super) tables: Tables,
    pub(super) jira: Project,
    pub(super) alerts: Vec<Alert>,
    pub(super) blocks: Blocks,
    pub(super) posts: Posts,
    pub(super) mails: Vec<Mail>,
}

impl World {
    pub(super) fn new(options: OrgOptions, clock: Clock, addresses: Addresses, inside: Inside) -> Self {
        let okta_url = Mutex::new(format!("http://{}", addresses.okta));
        Self { options, clock, addresses, okta_url, inside: Mutex::new(inside), version: watch::Sender::new(0) }
    }

    /// The origin that the org goes by, without a slash at the end.
    pub(super) fn okta_url(&self) -> String {
        self.okta_url.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives the org another origin.
    pub(super) fn known_as(&self, origin: &str) {
        origin.clone_into(&mut self.okta_url.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Works on the state without anybody having to hear of it.
    pub(super) fn read<T>(&self, work: impl FnOnce(&mut Inside) -> T) -> T {
        work(&mut self.lock())
    }

    /// Works on the state and wakes whoever waits for something to happen.
    pub(super) fn change<T>(&self, work: impl FnOnce(&mut Inside) -> T) -> T {
        let result = work(&mut self.lock());
        self.version.send_modify(|version| *version += 1);
        result
    }

    /// Hears of every change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(super) fn at_ms(&self) -> u64 {
        u64::try_from(self.clock.running().as_millis()).unwrap_or(u64::MAX)
    }

    /// An effect that happens now.
    pub(super) fn effect(&self, service: Service, kind: &'static str, target: String, body: Value) -> Effect {
        Effect { at_ms: self.at_ms(), service, kind, target, key: None, changed: true, body }
    }

    /// The user to whom the API token belongs.
    pub(super) fn token_owner(&self) -> User {
        User {
            id: self.options.token_owner.clone(),
            login: "svc-responder@example.com".to_owned(),
            email: "svc-responder@example.com".to_owned(),
            first: "Responder".to_owned(),
            last: "Service".to_owned(),
            ..User::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    /// Puts an event into the log. A risk event is not only told but so: the user has that level afterwards.
    pub(super) fn record(&mut self, event: Value, now_ms: i64) -> String {
        if let Some((user, level)) = risk_told(&event) {
            self.directory.set_risk(&user, &level, "Detected by the simulated org");
        }
        self.log.push(event, now_ms)
    }
}

/// The user and the new level of a risk event.
fn risk_told(event: &Value) -> Option<(String, String)> {
    let event_type = event.get("eventType")?.as_str()?;
    if !matches!(event_type, "user.risk.detect" | "user.risk.change") {
        return None;
    }
    let user =
        event.get("target")?.as_array()?.iter().find(|target| target.get("type") == Some(&Value::from("User")))?;
    let structured = event.pointer("/securityContext/risk/level").and_then(Value::as_str);
    let told = event.pointer("/debugContext/debugData/risk").and_then(Value::as_str).unwrap_or_default();
    let from_text = told.split([',', '{', '}']).find_map(|part| part.trim().strip_prefix("level="));
    Some((user.get("id")?.as_str()?.to_owned(), structured.or(from_text)?.to_owned()))
}
