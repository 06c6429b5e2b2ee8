//! Microsoft Teams: a workflow's webhook ("When a Teams webhook request is received"). It answers 202 with nothing in it
//! before the workflow has run, and takes no message above some 28 KB (Teams connector, known issues and limitations).

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use serde_json::{Value, json};

use super::effects::Service;
use super::faults::{Gate, misbehave, note};
use super::world::World;

/// The path of the one webhook.
const PATH: &str = "/workflows/0sim0workflow0001/triggers/manual/paths/invoke";

/// The signature in its address, from the start.
pub(super) const SIGNATURE: &str = "simulated-signature";

/// The most bytes of a message.
const MAX_MESSAGE: usize = 28 * 1024;

/// The webhook's address below its origin.
pub(super) fn webhook(signature: &str) -> String {
    format!("{PATH}?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig={signature}")
}

/// The webhook.
pub(super) fn router(world: &Arc<World>) -> Router {
    let gate = Gate { world: Arc::clone(world), service: Service::Teams };
    Router::new()
        .route(PATH, post(trigger))
        .layer(from_fn_with_state(gate.clone(), misbehave))
        .layer(from_fn_with_state(gate, note))
        .with_state(Arc::clone(world))
}

#[derive(Deserialize)]
struct Signed {
    sig: Option<String>,
}

async fn trigger(State(world): State<Arc<World>>, Query(signed): Query<Signed>, body: Bytes) -> Response {
    if !world.read(|inside| signed.sig.as_ref() == Some(&inside.secrets.teams_signature)) {
        return refused(StatusCode::UNAUTHORIZED, "DirectApiAuthorizationRequired");
    }
    if body.len() > MAX_MESSAGE {
        return refused(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge");
    }
    let Ok(message) = serde_json::from_slice::<Value>(&body) else {
        return refused(StatusCode::BAD_REQUEST, "InvalidRequestContent");
    };
    if !is_message(&message) {
        return refused(StatusCode::BAD_REQUEST, "TriggerInputSchemaMismatch");
    }
    let effect = world.effect(Service::Teams, "teams.post", "webhook".to_owned(), message);
    world.change(|inside| inside.journal.effects.push(effect));
    StatusCode::ACCEPTED.into_response()
}

/// What the trigger's schema asks for: a message whose attachments are Adaptive Cards.
fn is_message(message: &Value) -> bool {
    let cards = message.get("attachments").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    message.get("type").is_some_and(|kind| kind == "message")
        && !cards.is_empty()
        && cards.iter().all(|card| {
            card.get("contentType").is_some_and(|kind| kind == "application/vnd.microsoft.card.adaptive")
                && card.pointer("/content/type").is_some_and(|kind| kind == "AdaptiveCard")
        })
}

fn refused(status: StatusCode, code: &str) -> Response {
    (status, axum::Json(json!({"error": {"code": code, "message": "The request was refused."}}))).into_response()
}
