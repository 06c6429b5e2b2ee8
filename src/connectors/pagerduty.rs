//! Alerts in PagerDuty, over the Events API v2.
//!
//! PagerDuty folds events of one `dedup_key` into the alert that is open under it, so a request that may have arrived can
//! be sent again. It does not tell which alerts there are (that is another API, with other rights). After an alert was
//! resolved, the next trigger of its key opens a new one (PagerDuty developer documentation, Events API v2).
//!
//! The routing key stands in the body of each request, and nothing of an answer that repeats it is quoted.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Client;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::Url;

use super::probe::Finding;
use super::secret::Held;
use super::wire::{self, Answer, Sends};
use super::{
    ActionKind, Call, Connector, Deed, Effect, Inverse, Remedy, Service, SetupError, cut, required, service_url, shape,
};
use crate::config::PagerDutyConfig;
use crate::config::secret::LiveSecret;
use crate::guard::Cleared;
use crate::http::{self, Network};
use crate::model::escape::Escape;
use crate::model::ids::IdempotencyKey;
use crate::model::outcome::{Failure, Outcome, Reason, Receipt, Verdict};

/// `pagerduty.event.trigger`
pub static TRIGGER_EVENT: ActionKind = ActionKind {
    name: "pagerduty.event.trigger",
    summary: "Triggers an alert, or adds to the open one of the same correlation",
    service: Service::PagerDuty,
    effect: Effect::Folded,
    changes_access: false,
    resets_risk: false,
    rights: &[],
    from_event: &[],
    check: |params| TriggerParams::parse(params).map(drop),
    schema: shape::<TriggerParams>,
    escape: |_| Escape::Line,
    lane,
    inverse,
};

/// `pagerduty.event.resolve`
pub static RESOLVE_EVENT: ActionKind = ActionKind {
    name: "pagerduty.event.resolve",
    summary: "Resolves the alert of a correlation",
    service: Service::PagerDuty,
    effect: Effect::Folded,
    changes_access: false,
    resets_risk: false,
    rights: &[],
    from_event: &[],
    check: |params| ResolveParams::parse(params).map(drop),
    schema: shape::<ResolveParams>,
    escape: |_| Escape::Line,
    lane,
    inverse: |_| Inverse::impossible("the alert is resolved; whoever is needed has to be called anew"),
};

/// The longest `dedup_key`.
const MAX_DEDUP_KEY: usize = 255;
/// The longest `summary`.
const MAX_SUMMARY: usize = 1024;
/// The most details, and the longest of them; together they stay far below the 512 KB of an event.
const MAX_DETAILS: usize = 50;
const MAX_TEXT: usize = 2000;
/// The most links.
const MAX_LINKS: usize = 10;

/// An alert is resolved after it was triggered.
fn lane(params: &Value) -> Option<String> {
    Some(format!("pagerduty.event/{}", params.get("correlation")?.as_str()?.trim()))
}

/// The alert is known by its correlation, or by our key where it has none of its own.
fn inverse(deed: &Deed<'_>) -> Inverse {
    let resolve = |correlation: &str| Remedy::new(RESOLVE_EVENT.name, json!({"correlation": correlation}));
    match deed.text("correlation") {
        "" => resolve(deed.key.as_str()).into(),
        shared => resolve(shared).warned("other events of the same correlation may stand in this alert").into(),
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TriggerParams {
    summary: String,
    #[serde(default)]
    severity: Severity,
    /// What is affected. Default: `okta-responder`.
    source: Option<String>,
    component: Option<String>,
    group: Option<String>,
    class: Option<String>,
    /// Further facts, by name.
    #[serde(default)]
    details: BTreeMap<String, String>,
    #[serde(default)]
    links: Vec<Link>,
    /// Events with the same correlation share one alert as long as it is open.
    correlation: Option<String>,
}

/// `severity = "critical" | "error" | "warning" | "info"`
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Critical,
    #[default]
    Error,
    Warning,
    Info,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Link {
    title: String,
    /// When it is empty, as that of a step that failed, there is no link.
    url: String,
}

impl TriggerParams {
    fn parse(params: &Value) -> Result<Self, String> {
        let params = Self::deserialize(params).map_err(|error| error.to_string())?;
        required("summary", &params.summary)?;
        if params.details.len() > MAX_DETAILS {
            return Err(format!("`details` has more than {MAX_DETAILS} entries"));
        }
        if params.links.len() > MAX_LINKS {
            return Err(format!("`links` has more than {MAX_LINKS} entries"));
        }
        params.correlation.as_deref().map_or(Ok(()), |correlation| required("correlation", correlation))?;
        Ok(params)
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ResolveParams {
    /// That of the step that triggered the alert.
    correlation: String,
}

impl ResolveParams {
    fn parse(params: &Value) -> Result<Self, String> {
        let params = Self::deserialize(params).map_err(|error| error.to_string())?;
        required("correlation", &params.correlation)?;
        Ok(params)
    }
}

/// An event as it is sent, without the routing key.
struct Event {
    dedup_key: String,
    body: Map<String, Value>,
}

impl Event {
    fn trigger(params: &Value, key: &IdempotencyKey) -> Result<Self, String> {
        let params = TriggerParams::parse(params)?;
        let dedup_key = match &params.correlation {
            Some(correlation) => dedup_key(correlation)?,
            None => key.as_str().to_owned(),
        };
        let mut details: Map<String, Value> =
            params.details.into_iter().map(|(name, text)| (cut(&name, 100), json!(cut(&text, MAX_TEXT)))).collect();
        details.insert("okta_responder_key".to_owned(), json!(key.as_str()));
        let source = params.source.filter(|source| !source.trim().is_empty());
        let mut payload = json!({
            "summary": cut(&params.summary, MAX_SUMMARY),
            "severity": params.severity,
            "source": source.map_or_else(|| "okta-responder".to_owned(), |source| cut(&source, MAX_TEXT)),
            "custom_details": details,
        });
        for (name, text) in [("component", params.component), ("group", params.group), ("class", params.class)] {
            if let (Some(text), Some(payload)) = (text.filter(|text| !text.trim().is_empty()), payload.as_object_mut())
            {
                payload.insert(name.to_owned(), json!(cut(&text, MAX_TEXT)));
            }
        }
        let is_web = |url: &str| Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        let links = params.links.iter().filter(|link| is_web(&link.url) && link.url.len() <= MAX_TEXT);
        let links: Vec<_> = links.map(|link| json!({"href": link.url, "text": cut(&link.title, 200)})).collect();
        let mut body = Map::from_iter([
            ("event_action".to_owned(), json!("trigger")),
            ("dedup_key".to_owned(), json!(dedup_key)),
            ("payload".to_owned(), payload),
        ]);
        if !links.is_empty() {
            body.insert("links".to_owned(), json!(links));
        }
        Ok(Self { dedup_key, body })
    }

    fn resolve(params: &Value) -> Result<Self, String> {
        let dedup_key = dedup_key(&ResolveParams::parse(params)?.correlation)?;
        let body = [("event_action".to_owned(), json!("resolve")), ("dedup_key".to_owned(), json!(dedup_key))];
        Ok(Self { dedup_key, body: Map::from_iter(body) })
    }

    /// What goes over the wire.
    fn with(&self, routing_key: &SecretString) -> Value {
        let mut body = self.body.clone();
        body.insert("routing_key".to_owned(), json!(routing_key.expose_secret()));
        Value::Object(body)
    }
}

/// Checks a correlation, part of which comes from events.
fn dedup_key(correlation: &str) -> Result<String, String> {
    let correlation = correlation.trim();
    required("correlation", correlation)?;
    if correlation.chars().count() > MAX_DEDUP_KEY {
        return Err(format!("`correlation` is longer than {MAX_DEDUP_KEY} characters"));
    }
    Ok(Escape::Line.apply(correlation))
}

/// One integration of one service in PagerDuty.
#[derive(Debug)]
pub struct PagerDuty {
    http: Client,
    base: Url,
    host: String,
    routing_key: Held,
}

impl PagerDuty {
    /// Takes the `[pagerduty]` section and its secret. Nothing is sent.
    ///
    /// # Errors
    /// When the address is not an https URL (http only to loopback).
    pub fn new(config: &PagerDutyConfig, routing_key: LiveSecret, network: &Network) -> Result<Self, SetupError> {
        let section = Service::PagerDuty.section();
        let base = service_url(section, "url", &config.url)?;
        let http = http::client(section, &base, config.timeout, network)
            .map_err(|source| SetupError::Client { section, source })?;
        let host = base.host_str().unwrap_or_default().to_owned();
        Ok(Self { http, base, host, routing_key: Held::new(Service::PagerDuty, "routing_key", routing_key) })
    }

    /// Whether the host is there. The routing key cannot be tried without an event. Changes nothing.
    pub async fn probe(&self) -> Vec<Finding> {
        const ABOUT: &str = "PagerDuty";
        let what = format!("reaching PagerDuty at {}", self.host);
        vec![match wire::reach(&self.http, self.base.as_str(), &what).await {
            Ok(host) => {
                Finding::note(ABOUT, format!("{host} answers; the routing key cannot be tried without an event"))
            }
            Err(failure) => Finding::failed(ABOUT, failure),
        }]
    }

    async fn send(&self, event: Result<Event, String>) -> Outcome {
        let event = match event {
            Ok(event) => event,
            Err(problem) => return Outcome::Permanent(Failure::new(Reason::BadParameters, problem)),
        };
        match self.enqueue(&event).await {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }

    async fn enqueue(&self, event: &Event) -> Result<Outcome, Outcome> {
        let what = format!("sending an event to PagerDuty at {}", self.host);
        let url = self.base.join("v2/enqueue").map_err(|_| {
            Outcome::Permanent(Failure::new(Reason::BadParameters, format!("{what}: no address can be built")))
        })?;
        let send = async |routing_key: &SecretString| {
            wire::exchange(self.http.post(url.clone()).json(&event.with(routing_key)), &what, Sends::Changing).await
        };
        let mut routing_key = self.routing_key.current();
        let mut answer = send(&routing_key).await?;
        // An event that is refused, as one with a wrong routing key is, has changed nothing; so it goes out again, once,
        // if the key was replaced.
        if matches!(answer.status.as_u16(), 400 | 401 | 403)
            && let Some(other) = self.routing_key.replacement(&routing_key)
        {
            routing_key = other;
            answer = send(&routing_key).await?;
        }
        if !answer.status.is_success() {
            return Err(wire::refusal(&answer, &what, &said(&answer, &routing_key), Sends::Changing));
        }
        #[derive(Deserialize)]
        struct Taken {
            status: String,
            dedup_key: String,
        }
        match serde_json::from_slice::<Taken>(&answer.body) {
            Ok(taken) if taken.status == "success" && taken.dedup_key == event.dedup_key => {
                let receipt = Receipt::note("accepted; PagerDuty tells of it when it has looked at it");
                Ok(Outcome::Done(Receipt { id: Some(taken.dedup_key), ..receipt }))
            }
            _ => Err(Sends::Changing.lost(
                Reason::BadAnswer,
                format!("{what}: answered {} with something that is no acceptance", answer.status.as_u16()),
            )),
        }
    }
}

/// PagerDuty's own message, bounded and without the routing key that it may repeat.
fn said(answer: &Answer, routing_key: &SecretString) -> String {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Body {
        message: String,
        errors: Vec<String>,
    }
    let Ok(Body { message, errors }) = serde_json::from_slice(&answer.body) else { return String::new() };
    let said = std::iter::once(message).chain(errors).filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ");
    if said.contains(routing_key.expose_secret()) {
        return "an answer that is not repeated here because it holds a secret".to_owned();
    }
    cut(&Escape::Line.apply(&said), 200)
}

/// `pagerduty.event.trigger`
pub(super) struct Trigger(pub(super) Arc<PagerDuty>);

/// `pagerduty.event.resolve`
pub(super) struct Resolve(pub(super) Arc<PagerDuty>);

#[async_trait]
impl Connector for Trigger {
    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        self.0.send(Event::trigger(&call.params, &call.key)).await
    }

    async fn verify(&self, _: &Call) -> Verdict {
        Verdict::CannotTell
    }
}

#[async_trait]
impl Connector for Resolve {
    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        self.0.send(Event::resolve(&call.params)).await
    }

    async fn verify(&self, _: &Call) -> Verdict {
        Verdict::CannotTell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef01234567";

    fn trigger(params: Value) -> Result<Value, String> {
        let event = Event::trigger(&params, &IdempotencyKey::from_stored(KEY.to_owned()))?;
        Ok(event.with(&"routing".into()))
    }

    #[test]
    fn an_event_has_pagerdutys_shape_and_bounds() {
        let sent = trigger(json!({
            "summary": "s".repeat(2000), "severity": "critical", "component": "", "details": {"risk": "HIGH"},
            "links": [{"title": "log", "url": "https://example.okta.com"}, {"title": "none", "url": ""},
                      {"title": "bad", "url": "javascript:alert(1)"}],
        }))
        .unwrap();
        assert_eq!(sent["payload"]["summary"].as_str().unwrap().chars().count(), MAX_SUMMARY);
        assert_eq!(sent["payload"]["severity"], "critical");
        assert_eq!(sent["payload"].get("component"), None);
        assert_eq!(sent["payload"]["custom_details"], json!({"risk": "HIGH", "okta_responder_key": KEY}));
        assert_eq!(sent["links"], json!([{"href": "https://example.okta.com", "text": "log"}]));
        assert_eq!((&sent["dedup_key"], &sent["routing_key"]), (&json!(KEY), &json!("routing")));
    }

    #[test]
    fn an_alert_is_resolved_by_the_correlation_that_triggered_it_and_after_it() {
        let params = json!({"summary": "x", "correlation": " okta-user-00u1 "});
        let resolve = json!({"correlation": "okta-user-00u1"});
        assert_eq!(trigger(params.clone()).unwrap()["dedup_key"], "okta-user-00u1");
        assert_eq!(Event::resolve(&resolve).unwrap().dedup_key, "okta-user-00u1");
        assert_eq!((TRIGGER_EVENT.lane)(&params), (RESOLVE_EVENT.lane)(&resolve));
        assert_eq!((TRIGGER_EVENT.lane)(&json!({"summary": "x"})), None);
    }

    #[test]
    fn parameters_that_pagerduty_would_not_take_are_refused() {
        let refused = |params: Value, part: &str| {
            let problem = trigger(params).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        };
        refused(json!({"summary": " "}), "`summary` is empty");
        refused(json!({"summary": "x", "severity": "high"}), "unknown variant `high`");
        refused(json!({"summary": "x", "correlation": ""}), "`correlation` is empty");
        refused(json!({"summary": "x", "correlation": "x".repeat(256)}), "longer than 255");
        refused(json!({"summary": "x", "links": vec![json!({"title": "t", "url": ""}); 11]}), "more than 10");
        assert!(Event::resolve(&json!({"correlation": "c", "summary": "x"})).is_err());
    }
}
