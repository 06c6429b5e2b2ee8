//! Slack: `chat.postMessage`, `auth.test`, and an incoming webhook (Slack Web API reference). The Web API tells of its
//! errors with status 200, and has no way to recognise a message that was sent before.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};

use super::effects::Service;
use super::faults::{Gate, misbehave, note};
use super::world::World;

/// The bot token that Slack accepts from the start.
pub const SLACK_TOKEN: &str = "xoxb-simulated-bot-token";

/// The path of the one incoming webhook, up to the secret at its end.
pub(super) const WEBHOOK_PATH: &str = "/services/T0SIM0001/B0SIM0001/";

/// That secret, from the start.
pub(super) const WEBHOOK_SECRET: &str = "simulatedwebhooksecret";

/// The longest text, in characters.
const MAX_TEXT: usize = 40_000;

/// The most blocks a message may have.
const MAX_BLOCKS: usize = 50;

/// A message as it was posted.
#[derive(Debug, Clone, PartialEq)]
pub struct SlackMessage {
    /// The channel asked for; of a webhook its own.
    pub channel: String,
    /// The timestamp that identifies a message of the Web API.
    pub ts: Option<String>,
    /// The text, empty when there were only blocks.
    pub text: String,
    /// The message metadata.
    pub metadata: Option<Value>,
    /// All that was sent.
    pub body: Value,
}

/// What was posted.
#[derive(Debug, Default)]
pub(super) struct Posts(Vec<SlackMessage>);

impl Posts {
    pub(super) fn messages(&self) -> &[SlackMessage] {
        &self.0
    }
}

/// The Web API and the webhook.
pub(super) fn router(world: &Arc<World>) -> Router {
    let gate = Gate { world: Arc::clone(world), service: Service::Slack };
    Router::new()
        .route("/api/chat.postMessage", post(post_message))
        .route("/api/auth.test", post(test_auth).get(test_auth))
        .route(&format!("{WEBHOOK_PATH}{{secret}}"), post(post_by_webhook))
        .fallback(no_such_method)
        .layer(from_fn_with_state(gate.clone(), misbehave))
        .layer(from_fn_with_state(gate, note))
        .with_state(Arc::clone(world))
}

async fn post_message(State(world): State<Arc<World>>, headers: HeaderMap, body: Bytes) -> Response {
    let refused = |error: &str| answer(&json!({"ok": false, "error": error}));
    if let Err(error) = check_token(&world, &headers) {
        return refused(error);
    }
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !media.starts_with("application/json") {
        return refused("invalid_post_type");
    }
    let Ok(body) = serde_json::from_slice::<Value>(&body) else { return refused("invalid_json") };
    let Some(channel) = text_of(&body, "channel") else { return refused("channel_not_found") };
    let channels = &world.options.slack_channels;
    if !channels.is_empty() && !channels.contains(&channel) {
        return refused("channel_not_found");
    }
    if let Err(error) = check_content(&body) {
        return refused(error);
    }
    let now_ms = world.clock.now_ms();
    let message = keep(&world, body, &channel, |count| Some(format!("{}.{:06}", now_ms.div_euclid(1000), count + 100)));
    let told = json!({
        "type": "message", "subtype": "bot_message", "text": message.text, "ts": message.ts, "bot_id": "B0SIM0001",
        "metadata": message.metadata,
    });
    answer(&json!({"ok": true, "channel": channel, "ts": message.ts, "message": told}))
}

async fn post_by_webhook(State(world): State<Arc<World>>, Path(secret): Path<String>, body: Bytes) -> Response {
    if world.read(|inside| inside.secrets.slack_webhook != secret) {
        return (StatusCode::NOT_FOUND, "no_service").into_response();
    }
    let Ok(body) = serde_json::from_slice::<Value>(&body) else {
        return (StatusCode::BAD_REQUEST, "invalid_payload").into_response();
    };
    if let Err(error) = check_content(&body) {
        return (StatusCode::BAD_REQUEST, error).into_response();
    }
    keep(&world, body, "webhook", |_| None);
    "ok".into_response()
}

async fn test_auth(State(world): State<Arc<World>>, headers: HeaderMap) -> Response {
    match check_token(&world, &headers) {
        Ok(()) => answer(&json!({
            "ok": true, "url": "https://simulated.slack.com/", "team": "Simulated", "user": "responder",
            "team_id": "T0SIM0001", "user_id": "U0SIM0001", "bot_id": "B0SIM0001",
        })),
        Err(error) => answer(&json!({"ok": false, "error": error})),
    }
}

async fn no_such_method() -> Response {
    answer(&json!({"ok": false, "error": "unknown_method"}))
}

/// Keeps the message and notes the effect.
fn keep(world: &World, body: Value, channel: &str, ts: impl FnOnce(usize) -> Option<String>) -> SlackMessage {
    let mut effect = world.effect(Service::Slack, "slack.post", channel.to_owned(), body.clone());
    effect.key = body.pointer("/metadata/event_payload").and_then(key_of);
    world.change(|inside| {
        let message = SlackMessage {
            channel: channel.to_owned(),
            ts: ts(inside.posts.0.len()),
            text: text_of(&body, "text").unwrap_or_default(),
            metadata: body.get("metadata").cloned(),
            body,
        };
        inside.posts.0.push(message.clone());
        inside.journal.effects.push(effect);
        message
    })
}

/// The idempotency key in a message's metadata: the payload's member that is named like one.
fn key_of(payload: &Value) -> Option<String> {
    ["key", "idempotency_key"].into_iter().find_map(|name| text_of(payload, name))
}

fn check_token(world: &World, headers: &HeaderMap) -> Result<(), &'static str> {
    let given = headers.get(AUTHORIZATION).ok_or("not_authed")?.to_str().unwrap_or_default();
    let is_valid = |token: &str| world.read(|inside| inside.secrets.slack_token == token);
    if given.strip_prefix("Bearer ").is_some_and(is_valid) { Ok(()) } else { Err("invalid_auth") }
}

fn check_content(body: &Value) -> Result<(), &'static str> {
    let filled = |name: &str| body.get(name).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let text = text_of(body, "text").unwrap_or_default();
    if text.is_empty() && !filled("blocks") && !filled("attachments") {
        return Err("no_text");
    }
    if text.chars().count() > MAX_TEXT {
        return Err("msg_too_long");
    }
    if body.get("blocks").and_then(Value::as_array).is_some_and(|blocks| blocks.len() > MAX_BLOCKS) {
        return Err("invalid_blocks");
    }
    Ok(())
}

fn text_of(value: &Value, name: &str) -> Option<String> {
    value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn answer(body: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json; charset=utf-8")], body.to_string()).into_response()
}
