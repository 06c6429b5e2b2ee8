//! Some company's own API, as `http.request` meets them: blocks of users behind a token or OAuth, an idempotency key that is
//! honoured, a list that takes no notice of parameters that it does not know, and answers that are large or no JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::effects::Service;
use super::faults::{Gate, misbehave, note};
use super::world::World;

/// The token that is accepted from the start.
pub const THIRD_PARTY_TOKEN: &str = "simulated-third-party-token";

/// The client of OAuth client credentials.
pub const THIRD_PARTY_CLIENT_ID: &str = "responder";

/// Its secret from the start.
pub const THIRD_PARTY_CLIENT_SECRET: &str = "simulated-third-party-secret";

/// How long a token lasts, in seconds.
const LIFETIME: u64 = 3600;

/// What the API holds.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    made: u64,
    blocks: Vec<Value>,
    /// The blocks that were made under a key.
    keys: BTreeMap<String, Value>,
    tokens: Vec<String>,
}

impl Blocks {
    /// The blocks that are there.
    pub(super) fn all(&self) -> Vec<Value> {
        self.blocks.clone()
    }

    /// Makes the tokens that were given out unknown.
    pub(super) fn revoke_tokens(&mut self) {
        self.tokens.clear();
    }

    fn make(&mut self, given: &Value) -> Value {
        self.made += 1;
        let block = json!({
            "id": format!("b{}", self.made), "ref": given["ref"], "user": given["user"], "state": "active",
            "links": {"self": format!("https://blocks.example.com/b{}", self.made)},
        });
        self.blocks.push(block.clone());
        block
    }
}

/// The API.
pub(super) fn router(world: &Arc<World>) -> Router {
    let gate = Gate { world: Arc::clone(world), service: Service::ThirdParty };
    Router::new()
        .route("/", get(|| async { StatusCode::NOT_FOUND }))
        .route("/oauth/token", post(issue))
        .route("/v1/me", get(me))
        .route("/v1/blocks", get(list).post(create))
        .route("/v1/blocks/{id}", get(read).delete(remove))
        .route("/v1/large", get(large))
        .route("/v1/text", get(|| async { "all is well" }))
        .layer(from_fn_with_state(gate.clone(), misbehave))
        .layer(from_fn_with_state(gate, note))
        .with_state(Arc::clone(world))
}

async fn issue(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let has = |key: &str, value: &str| {
        url::form_urlencoded::parse(&body).any(|(given, given_value)| given == key && given_value == value)
    };
    if !has("grant_type", "client_credentials") {
        return (StatusCode::BAD_REQUEST, Json(json!({"error": "unsupported_grant_type"}))).into_response();
    }
    world.change(|inside| {
        if !(has("client_id", THIRD_PARTY_CLIENT_ID) && has("client_secret", &inside.secrets.third_party_client_secret))
        {
            return (StatusCode::UNAUTHORIZED, Json(json!({"error": "invalid_client"}))).into_response();
        }
        inside.blocks.made += 1;
        let token = format!("simulated-third-party-access-{}", inside.blocks.made);
        inside.blocks.tokens.push(token.clone());
        let granted = json!({"access_token": token, "token_type": "Bearer", "expires_in": LIFETIME});
        Json(granted).into_response()
    })
}

/// The answer to whom is not let in; `None` for the others.
fn refusal(world: &World, headers: &HeaderMap) -> Option<Response> {
    let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let shown = shown.strip_prefix("Bearer ").unwrap_or_default().to_owned();
    let known = world.read(|inside| shown == inside.secrets.third_party_token || inside.blocks.tokens.contains(&shown));
    let refused = || (StatusCode::UNAUTHORIZED, Json(json!({"message": "The token is not known."}))).into_response();
    (!known).then(refused)
}

async fn me(State(world): State<Arc<World>>, headers: HeaderMap) -> Response {
    refusal(&world, &headers).unwrap_or_else(|| Json(json!({"name": "responder"})).into_response())
}

async fn list(
    State(world): State<Arc<World>>,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    if let Some(refused) = refusal(&world, &headers) {
        return refused;
    }
    let mut items = world.read(|inside| inside.blocks.all());
    if let Some(wanted) = query.get("ref") {
        items.retain(|block| block["ref"] == *wanted);
    }
    Json(json!({"items": items})).into_response()
}

async fn create(State(world): State<Arc<World>>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(refused) = refusal(&world, &headers) {
        return refused;
    }
    let Ok(given) = serde_json::from_slice::<Value>(&body) else {
        return problem(StatusCode::BAD_REQUEST, "The body is not JSON.");
    };
    let Some(target) = given.get("user").and_then(Value::as_str).map(str::to_owned) else {
        return problem(StatusCode::UNPROCESSABLE_ENTITY, "`user` is missing.");
    };
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut effect = world.effect(Service::ThirdParty, "block.create", target, given.clone());
    effect.key.clone_from(&key);
    world.change(|inside| {
        let known = key.as_ref().and_then(|key| inside.blocks.keys.get(key).cloned());
        effect.changed = known.is_none();
        let block = known.unwrap_or_else(|| inside.blocks.make(&given));
        if let Some(key) = key {
            inside.blocks.keys.insert(key, block.clone());
        }
        inside.journal.effects.push(effect);
        (StatusCode::CREATED, Json(block)).into_response()
    })
}

async fn read(State(world): State<Arc<World>>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    if let Some(refused) = refusal(&world, &headers) {
        return refused;
    }
    let found = world.read(|inside| inside.blocks.blocks.iter().find(|block| block["id"] == *id).cloned());
    found.map_or_else(|| problem(StatusCode::NOT_FOUND, "There is no such block."), |block| Json(block).into_response())
}

async fn remove(State(world): State<Arc<World>>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    if let Some(refused) = refusal(&world, &headers) {
        return refused;
    }
    let mut effect = world.effect(Service::ThirdParty, "block.remove", id.clone(), Value::Null);
    world.change(|inside| {
        let before = inside.blocks.blocks.len();
        inside.blocks.blocks.retain(|block| block["id"] != *id);
        effect.changed = inside.blocks.blocks.len() < before;
        let status = if effect.changed { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND };
        inside.journal.effects.push(effect);
        status.into_response()
    })
}

async fn large(State(world): State<Arc<World>>, headers: HeaderMap) -> Response {
    let items: Vec<_> = (0..1000).map(|number| json!({"number": number, "text": "x".repeat(100)})).collect();
    refusal(&world, &headers).unwrap_or_else(|| Json(json!({"items": items})).into_response())
}

fn problem(status: StatusCode, words: &str) -> Response {
    (status, Json(json!({"message": words}))).into_response()
}
