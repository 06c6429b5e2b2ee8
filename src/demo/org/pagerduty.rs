//! PagerDuty's Events API v2 (PagerDuty developer documentation): one address, events that are folded by `dedup_key`, and
//! 202 before anything is looked at closely.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::effects::Service;
use super::faults::{Gate, misbehave, note};
use super::world::World;

/// The integration key that is accepted.
pub const PAGERDUTY_ROUTING_KEY: &str = "0simulated0routing0key0000000001";

/// The most bytes of an event.
const MAX_EVENT: usize = 512 * 1024;

/// An alert, as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// The key that events are folded by.
    pub dedup_key: String,
    /// False when it was resolved.
    pub open: bool,
    /// How many triggers were folded into it.
    pub triggers: usize,
    /// The words of the first of them.
    pub summary: String,
}

/// The Events API.
pub(super) fn router(world: &Arc<World>) -> Router {
    let gate = Gate { world: Arc::clone(world), service: Service::PagerDuty };
    Router::new()
        .route("/v2/enqueue", post(enqueue))
        .layer(from_fn_with_state(gate.clone(), misbehave))
        .layer(from_fn_with_state(gate, note))
        .with_state(Arc::clone(world))
}

async fn enqueue(State(world): State<Arc<World>>, body: Bytes) -> Response {
    if body.len() > MAX_EVENT {
        return invalid(StatusCode::PAYLOAD_TOO_LARGE, "The event is too large");
    }
    let Ok(mut event) = serde_json::from_slice::<Value>(&body) else {
        return invalid(StatusCode::BAD_REQUEST, "The event is not JSON");
    };
    if let Some(problem) = problem(&world, &event) {
        return invalid(StatusCode::BAD_REQUEST, problem);
    }
    if let Some(event) = event.as_object_mut() {
        event.remove("routing_key");
    }
    let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (dedup_key, summary) = (text("/dedup_key"), text("/payload/summary"));
    let triggers = text("/event_action") == "trigger";
    let kind = if triggers { "pagerduty.trigger" } else { "pagerduty.resolve" };
    let mut effect = world.effect(Service::PagerDuty, kind, dedup_key.clone(), event);
    effect.key = Some(dedup_key.clone());
    world.change(|inside| {
        let open = inside.alerts.iter_mut().find(|alert| alert.open && alert.dedup_key == dedup_key);
        match open {
            Some(alert) if triggers => {
                alert.triggers += 1;
                effect.changed = false;
            }
            Some(alert) => alert.open = false,
            None if triggers => {
                inside.alerts.push(Alert { dedup_key: dedup_key.clone(), open: true, triggers: 1, summary });
            }
            None => effect.changed = false,
        }
        inside.journal.effects.push(effect);
    });
    let body = json!({"status": "success", "message": "Event processed", "dedup_key": dedup_key});
    (StatusCode::ACCEPTED, Json(body)).into_response()
}

/// What PagerDuty refuses an event for.
fn problem(world: &World, event: &Value) -> Option<&'static str> {
    let text = |path: &str| event.pointer(path).and_then(Value::as_str);
    let routing_key = world.read(|inside| inside.secrets.pagerduty_routing_key.clone());
    if text("/routing_key") != Some(routing_key.as_str()) {
        return Some("'routing_key' is missing or invalid");
    }
    if text("/dedup_key").is_none_or(|key| key.is_empty() || key.chars().count() > 255) {
        return Some("'dedup_key' is missing or too long");
    }
    match text("/event_action") {
        Some("resolve" | "acknowledge") => None,
        Some("trigger") => {
            let is_severity = |word: &str| matches!(word, "critical" | "error" | "warning" | "info");
            if text("/payload/summary").is_none_or(|words| words.is_empty() || words.chars().count() > 1024) {
                Some("'payload.summary' is missing or too long")
            } else if !text("/payload/severity").is_some_and(is_severity) {
                Some(
                    "'payload.severity' is invalid (must be one of the following: 'critical', 'warning', 'error' or 'info')",
                )
            } else if text("/payload/source").is_none_or(str::is_empty) {
                Some("'payload.source' is missing or blank")
            } else {
                None
            }
        }
        _ => Some("'event_action' is invalid"),
    }
}

fn invalid(status: StatusCode, problem: &str) -> Response {
    let body = json!({"status": "invalid event", "message": "Event object is invalid", "errors": [problem]});
    (status, Json(body)).into_response()
}
