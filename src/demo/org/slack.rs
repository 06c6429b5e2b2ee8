//! Slack: `chat.postMessage`, `chat.update`, `auth.test`, and an incoming webhook (Slack Web API reference). The Web API
//! tells of its errors with status 200, and has no way to recognise a message that was sent before.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::Org;
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

/// The longest text of an edit, in bytes.
const MAX_EDITED_TEXT: usize = 4000;

/// The most blocks a message may have, the most characters of a text in one, and of all together.
const MAX_BLOCKS: usize = 50;
const MAX_BLOCK_TEXT: usize = 3000;
const MAX_BLOCKS_TEXT: usize = 13_200;

/// A message as it was posted.
#[derive(Debug, Clone, PartialEq)]
pub struct SlackMessage {
    /// The channel asked for; of a webhook its own.
    pub channel: String,
    /// The timestamp that identifies a message of the Web API.
    pub ts: Option<String>,
    /// The message that it answers.
    pub thread: Option<String>,
    /// The text as it stands, empty when there were only blocks.
    pub text: String,
    /// What it said before each of its edits.
    pub edited: Vec<String>,
    /// The message metadata.
    pub metadata: Option<Value>,
    /// All that was sent, of an edited one the last time.
    pub body: Value,
}

/// What was posted, and what the bot may do.
#[derive(Debug)]
pub(super) struct Posts {
    messages: Vec<SlackMessage>,
    scopes: String,
    /// Names, without `#`, of channels that the bot is not in.
    left: BTreeSet<String>,
    archived: BTreeSet<String>,
    /// Timestamps of messages that were deleted.
    deleted: BTreeSet<String>,
    edits_are_closed: bool,
}

impl Default for Posts {
    fn default() -> Self {
        let scopes = "chat:write,channels:read,groups:read".to_owned();
        Self {
            messages: Vec::new(),
            scopes,
            left: BTreeSet::new(),
            archived: BTreeSet::new(),
            deleted: BTreeSet::new(),
            edits_are_closed: false,
        }
    }
}

impl Posts {
    pub(super) fn messages(&self) -> &[SlackMessage] {
        &self.messages
    }

    /// The message of this timestamp in a channel, unless it was deleted.
    fn find(&mut self, channel: &str, ts: &str) -> Option<&mut SlackMessage> {
        if self.deleted.contains(ts) {
            return None;
        }
        let same =
            |message: &&mut SlackMessage| message.ts.as_deref() == Some(ts) && id_of(&message.channel) == channel;
        self.messages.iter_mut().find(same)
    }

    fn may_see(&self, channel: &str) -> bool {
        let has = |wanted: &str| self.scopes.split(',').any(|scope| scope == wanted);
        has(if is_private(channel) { "groups:read" } else { "channels:read" })
    }
}

impl Org {
    /// Gives the bot token other scopes, separated by commas. What they allow changes at once.
    pub fn slack_scopes(&self, scopes: &str) {
        self.world.change(|inside| inside.posts.scopes = scopes.to_owned());
    }

    /// Takes the bot out of a channel, named without `#`.
    pub fn slack_leave(&self, channel: &str) {
        self.world.change(|inside| inside.posts.left.insert(channel.to_owned()));
    }

    /// Deletes a message, as people do.
    pub fn slack_delete(&self, ts: &str) {
        self.world.change(|inside| inside.posts.deleted.insert(ts.to_owned()));
    }

    /// Lets nobody edit messages any more, as a workspace does some time after they were posted.
    pub fn slack_close_edits(&self) {
        self.world.change(|inside| inside.posts.edits_are_closed = true);
    }

    /// Archives a channel, named without `#`.
    pub fn slack_archive(&self, channel: &str) {
        self.world.change(|inside| inside.posts.archived.insert(channel.to_owned()));
    }
}

/// The id of a channel that was asked for by its name or by its id.
fn id_of(channel: &str) -> String {
    channel.strip_prefix('#').map_or_else(|| channel.to_owned(), slack_channel_id)
}

/// The id of a channel by its name, without `#`.
pub fn slack_channel_id(name: &str) -> String {
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("C0SIM{}", letters.to_ascii_uppercase())
}

/// Channels whose name begins so are private.
fn is_private(channel: &str) -> bool {
    channel.starts_with("private")
}

/// The channels that the API tells of, without `#`. Where every channel exists, these are.
fn channels(world: &World) -> Vec<String> {
    let configured = &world.options.slack_channels;
    if configured.is_empty() {
        return ["general", "private-security", "security"].map(str::to_owned).into();
    }
    configured.iter().map(|name| name.trim_start_matches('#').to_owned()).collect()
}

/// The Web API and the webhook.
pub(super) fn router(world: &Arc<World>) -> Router {
    let gate = Gate { world: Arc::clone(world), service: Service::Slack };
    Router::new()
        .route("/api/chat.postMessage", post(post_message))
        .route("/api/chat.update", post(update_message))
        .route("/api/auth.test", post(test_auth).get(test_auth))
        .route("/api/conversations.info", get(channel_info))
        .route("/api/users.conversations", get(joined_channels))
        .route(&format!("{WEBHOOK_PATH}{{secret}}"), post(post_by_webhook))
        .fallback(no_such_method)
        .layer(from_fn_with_state(gate.clone(), misbehave))
        .layer(from_fn_with_state(gate, note))
        .with_state(Arc::clone(world))
}

/// The body of a call that changes something, or the word with which it is refused.
fn body_of(world: &World, headers: &HeaderMap, body: &Bytes) -> Result<Value, &'static str> {
    check_token(world, headers)?;
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !media.starts_with("application/json") {
        return Err("invalid_post_type");
    }
    serde_json::from_slice(body).map_err(|_| "invalid_json")
}

async fn post_message(State(world): State<Arc<World>>, headers: HeaderMap, body: Bytes) -> Response {
    let refused = |error: &str| answer(&json!({"ok": false, "error": error}));
    let body = match body_of(&world, &headers, &body) {
        Ok(body) => body,
        Err(error) => return refused(error),
    };
    let Some(channel) = text_of(&body, "channel") else { return refused("channel_not_found") };
    let channels = &world.options.slack_channels;
    if !channels.is_empty() && !channels.contains(&channel) {
        return refused("channel_not_found");
    }
    if let Err(error) = check_content(&body) {
        return refused(error);
    }
    let id = id_of(&channel);
    let is_gone = |thread: &str| world.change(|inside| inside.posts.find(&id, thread).is_none());
    if text_of(&body, "thread_ts").is_some_and(|thread| is_gone(&thread)) {
        return refused("thread_not_found");
    }
    let now_ms = world.clock.now_ms();
    let message = keep(&world, body, &channel, |count| Some(format!("{}.{:06}", now_ms.div_euclid(1000), count + 100)));
    let told = json!({
        "type": "message", "subtype": "bot_message", "text": message.text, "ts": message.ts, "bot_id": "B0SIM0001",
        "metadata": message.metadata,
    });
    answer(&json!({"ok": true, "channel": id, "ts": message.ts, "message": told}))
}

/// Edits a message of ours. Blocks that are not given stay.
async fn update_message(State(world): State<Arc<World>>, headers: HeaderMap, body: Bytes) -> Response {
    let refused = |error: &str| answer(&json!({"ok": false, "error": error}));
    let body = match body_of(&world, &headers, &body) {
        Ok(body) => body,
        Err(error) => return refused(error),
    };
    let given = |name: &str| text_of(&body, name).unwrap_or_default();
    let (channel, ts, text) = (given("channel"), given("ts"), given("text"));
    if !channel.starts_with(['C', 'D', 'G']) {
        return refused("channel_not_found");
    }
    if let Err(error) = check_content(&body) {
        return refused(error);
    }
    if text.len() > MAX_EDITED_TEXT {
        return refused("msg_too_long");
    }
    let effect = world.effect(Service::Slack, "slack.update", channel.clone(), body.clone());
    let edited = world.change(|inside| {
        if inside.posts.edits_are_closed {
            return Err("edit_window_closed");
        }
        let message = inside.posts.find(&channel, &ts).ok_or("message_not_found")?;
        message.edited.push(std::mem::replace(&mut message.text, text.clone()));
        let blocks = message.body.get("blocks").cloned();
        message.body = body.clone();
        if let (None, Some(blocks), Some(told)) = (body.get("blocks"), blocks, message.body.as_object_mut()) {
            told.insert("blocks".to_owned(), blocks);
        }
        inside.journal.effects.push(effect);
        Ok(())
    });
    match edited {
        Ok(()) => answer(&json!({"ok": true, "channel": channel, "ts": ts, "text": text})),
        Err(error) => refused(error),
    }
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
        Ok(()) => with_scopes(
            &world,
            &json!({
                "ok": true, "url": "https://simulated.slack.com/", "team": "Simulated", "user": "responder",
                "team_id": "T0SIM0001", "user_id": "U0SIM0001", "bot_id": "B0SIM0001",
            }),
        ),
        Err(error) => answer(&json!({"ok": false, "error": error})),
    }
}

/// A channel by its id. One that is private and without the bot is not found, as is one that does not exist.
async fn channel_info(
    State(world): State<Arc<World>>,
    headers: HeaderMap,
    Query(parameters): Query<HashMap<String, String>>,
) -> Response {
    if let Err(error) = check_token(&world, &headers) {
        return answer(&json!({"ok": false, "error": error}));
    }
    let wanted = parameters.get("channel").map(String::as_str).unwrap_or_default();
    let found = channels(&world).into_iter().find(|name| slack_channel_id(name) == wanted);
    let body = world.read(|inside| match found {
        Some(name) if !inside.posts.may_see(&name) => {
            json!({"ok": false, "error": "missing_scope", "needed": "channels:read", "provided": inside.posts.scopes})
        }
        Some(name) if !(is_private(&name) && inside.posts.left.contains(&name)) => {
            json!({"ok": true, "channel": channel_json(&inside.posts, &name)})
        }
        _ => json!({"ok": false, "error": "channel_not_found"}),
    });
    with_scopes(&world, &body)
}

/// The channels that the bot is in, of the kinds asked for, two a page.
async fn joined_channels(
    State(world): State<Arc<World>>,
    headers: HeaderMap,
    Query(parameters): Query<HashMap<String, String>>,
) -> Response {
    if let Err(error) = check_token(&world, &headers) {
        return answer(&json!({"ok": false, "error": error}));
    }
    let given = |name: &str| parameters.get(name).map(String::as_str).unwrap_or_default();
    let asked = |name: &String| {
        let kind = if is_private(name) { "private_channel" } else { "public_channel" };
        given("types").split(',').any(|wanted| wanted == kind)
    };
    let body = world.read(|inside| {
        let posts = &inside.posts;
        let wanted: Vec<String> = channels(&world).into_iter().filter(asked).collect();
        if wanted.iter().any(|name| !posts.may_see(name)) {
            return json!({"ok": false, "error": "missing_scope", "provided": posts.scopes});
        }
        let joined = wanted.iter().filter(|name| !posts.left.contains(*name) && !posts.archived.contains(*name));
        let joined: Vec<Value> = joined.map(|name| channel_json(posts, name)).collect();
        let start: usize = given("cursor").parse().unwrap_or(0);
        let next = if start + 2 < joined.len() { (start + 2).to_string() } else { String::new() };
        let page: Vec<&Value> = joined.iter().skip(start).take(2).collect();
        json!({"ok": true, "channels": page, "response_metadata": {"next_cursor": next}})
    });
    with_scopes(&world, &body)
}

fn channel_json(posts: &Posts, name: &str) -> Value {
    json!({
        "id": slack_channel_id(name), "name": name, "is_channel": true, "is_private": is_private(name),
        "is_archived": posts.archived.contains(name), "is_member": !posts.left.contains(name),
    })
}

/// An answer to a token that is known says what it may do.
fn with_scopes(world: &World, body: &Value) -> Response {
    let mut response = answer(body);
    let scopes = world.read(|inside| HeaderValue::try_from(inside.posts.scopes.as_str()));
    if let Ok(scopes) = scopes {
        response.headers_mut().insert(HeaderName::from_static("x-oauth-scopes"), scopes);
    }
    response
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
            ts: ts(inside.posts.messages.len()),
            thread: text_of(&body, "thread_ts"),
            edited: Vec::new(),
            text: text_of(&body, "text").unwrap_or_default(),
            metadata: body.get("metadata").cloned(),
            body,
        };
        inside.posts.messages.push(message.clone());
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
    body.get("blocks").and_then(Value::as_array).map_or(Ok(()), |blocks| check_blocks(blocks))
}

/// Texts in blocks are neither empty nor too long, and a block is one of those that a message can hold.
fn check_blocks(blocks: &[Value]) -> Result<(), &'static str> {
    const KINDS: [&str; 6] = ["section", "header", "context", "divider", "actions", "image"];
    let is_known = |block: &Value| KINDS.iter().any(|kind| block.get("type").is_some_and(|given| given == kind));
    if blocks.len() > MAX_BLOCKS || !blocks.iter().all(is_known) {
        return Err("invalid_blocks");
    }
    let (mut open, mut together) = (blocks.iter().collect::<Vec<_>>(), 0);
    while let Some(value) = open.pop() {
        if let Some(text) = value.get("text").and_then(Value::as_str) {
            let length = text.chars().count();
            if !(1..=MAX_BLOCK_TEXT).contains(&length) {
                return Err("invalid_blocks");
            }
            together += length;
        }
        match value {
            Value::Array(list) => open.extend(list),
            Value::Object(object) => open.extend(object.values()),
            _ => {}
        }
    }
    if together > MAX_BLOCKS_TEXT { Err("msg_blocks_too_long") } else { Ok(()) }
}

fn text_of(value: &Value, name: &str) -> Option<String> {
    value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn answer(body: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json; charset=utf-8")], body.to_string()).into_response()
}
