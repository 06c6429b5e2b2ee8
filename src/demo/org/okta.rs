//! The Okta management API, as far as a responder uses it (Okta OpenAPI; errors and headers as Okta really sends them).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Extension, Path, Query, State};
use axum::http::header::{CONTENT_TYPE, LINK};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::directory::{App, Group, Missing, Refusal, User};
use super::effects::Service;
use super::faults::{Gate, misbehave, note};
use super::governance;
use super::log;
use super::oauth::{self, Principal};
use super::remedies;
use super::world::World;
use super::{events, events::RiskDetected};

/// The media type of every answer with a body.
pub(super) const JSON: &str = "application/json";

/// Members, groups and assignments a page holds when `limit` is not given.
const DEFAULT_PAGE: usize = 200;

/// The whole API, in its layers: noting requests, then credentials and budget, then scripted faults.
pub(super) fn router(world: &Arc<World>) -> Router {
    let gate = Gate { world: Arc::clone(world), service: Service::Okta };
    Router::new()
        .route(oauth::token::PATH, post(oauth::token::give))
        .route("/oauth2/v1/clients/{client}/roles", get(read_app_roles))
        .route("/api/v1/logs", get(log::read))
        .route("/api/v1/users/{user}", get(read_user))
        .route("/api/v1/users/{user}/groups", get(read_user_groups))
        .route("/api/v1/users/{user}/roles", get(read_user_roles))
        .route("/api/v1/users/{user}/linkedObjects/{name}", get(read_linked))
        .route("/api/v1/users/{user}/risk", get(read_risk).put(set_risk))
        .route("/api/v1/users/{user}/sessions", delete(clear_sessions))
        .route("/api/v1/groups", get(find_groups))
        .route("/api/v1/groups/{group}", get(read_group))
        .route("/api/v1/groups/{group}/users", get(read_members))
        .route("/api/v1/groups/{group}/users/{user}", put(add_member).delete(remove_member))
        .route("/api/v1/apps", get(find_apps))
        .route("/api/v1/apps/{app}", get(read_app))
        .route("/api/v1/apps/{app}/groups", get(read_app_groups))
        .route("/api/v1/apps/{app}/users", post(assign))
        .route("/api/v1/apps/{app}/users/{user}", get(read_assignment).delete(unassign))
        .merge(remedies::routes())
        .merge(governance::routes())
        .fallback(no_such_endpoint)
        .method_not_allowed_fallback(no_such_endpoint)
        .layer(from_fn_with_state(gate.clone(), misbehave))
        .layer(from_fn_with_state(Arc::clone(world), oauth::access::admit))
        .layer(from_fn_with_state(gate, note))
        .with_state(Arc::clone(world))
}

/// An error answer of Okta: status and code, a summary, and sometimes a cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OktaError {
    status: StatusCode,
    code: &'static str,
    summary: String,
    cause: Option<String>,
}

impl OktaError {
    pub(super) fn new(status: StatusCode, code: &'static str, summary: impl Into<String>) -> Self {
        Self { status, code, summary: summary.into(), cause: None }
    }

    pub(super) fn validation(field: &str, cause: &str) -> Self {
        let summary = format!("Api validation failed: {field}");
        let error = Self::new(StatusCode::BAD_REQUEST, "E0000001", summary);
        Self { cause: Some(format!("{field}: {cause}")), ..error }
    }

    /// The same about a whole object.
    pub(super) fn validation_of(object: &str, cause: &str) -> Self {
        let summary = format!("Api validation failed: {object}");
        Self::new(StatusCode::BAD_REQUEST, "E0000001", summary).because(cause)
    }

    /// The error with its cause.
    pub(super) fn because(self, cause: &str) -> Self {
        Self { cause: Some(cause.to_owned()), ..self }
    }

    pub(super) fn invalid_filter(summary: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "E0000053", summary)
    }

    pub(super) fn unknown_cursor() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "E0000031", "Invalid search criteria.")
    }

    pub(super) fn too_many_requests() -> Self {
        let summary = "API call exceeded rate limit due to too many requests.";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "E0000047", summary)
    }

    pub(super) fn invalid_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "E0000011", "Invalid token provided")
    }

    pub(super) fn no_permission() -> Self {
        let summary = "You do not have permission to perform the requested action";
        Self::new(StatusCode::FORBIDDEN, "E0000006", summary)
    }

    pub(super) fn not_found(id: &str, kind: &str) -> Self {
        let summary = format!("Not found: Resource not found: {id} ({kind})");
        Self::new(StatusCode::NOT_FOUND, "E0000007", summary)
    }

    /// What a refused change of `app` or `group` and `user` is answered with.
    fn refused(refusal: Refusal, resource: &str, user: &str) -> Self {
        match refusal {
            Refusal::Missing(Missing::User) => Self::not_found(user, "User"),
            Refusal::Missing(Missing::Group) => Self::not_found(resource, "UserGroup"),
            Refusal::Missing(Missing::App) => Self::not_found(resource, "AppInstance"),
            Refusal::Missing(Missing::Assignment) => Self::not_found(user, "AppUser"),
            Refusal::NotAnOktaGroup => Self::no_permission(),
            Refusal::Deactivated => Self::validation_of("appUser", "The user is deactivated."),
            Refusal::GrantedByGroup => {
                let error = Self::new(StatusCode::FORBIDDEN, "E0000046", "Deactivate application for user forbidden.");
                let cause = "The application cannot be unassigned from the user while their group memberships grant \
                             them access to the application.";
                Self { cause: Some(cause.to_owned()), ..error }
            }
        }
    }
}

impl IntoResponse for OktaError {
    fn into_response(self) -> Response {
        let causes: Vec<Value> = self.cause.iter().map(|cause| json!({"errorSummary": cause})).collect();
        let body = json!({
            "errorCode": self.code, "errorSummary": self.summary, "errorLink": self.code, "errorId": fresh_id("oae"),
            "errorCauses": causes,
        });
        answer(self.status, &body)
    }
}

/// A `Link` header line.
pub(super) fn link(url: &str, relation: &str) -> HeaderValue {
    HeaderValue::try_from(format!("<{url}>; rel=\"{relation}\"")).unwrap_or(HeaderValue::from_static(""))
}

pub(super) type Shared = State<Arc<World>>;
pub(super) type By = Extension<Principal>;
pub(super) type Parameters = Query<HashMap<String, String>>;
pub(super) type Answer = Result<Response, OktaError>;

async fn no_such_endpoint(_: Method) -> OktaError {
    let summary = "The endpoint does not support the provided HTTP method";
    OktaError::new(StatusCode::METHOD_NOT_ALLOWED, "E0000022", summary)
}

async fn read_user(State(world): Shared, Extension(by): By, Path(user): Path<String>) -> Answer {
    if user == "me" && by != Principal::Owner {
        return Err(OktaError::not_found("me", "User"));
    }
    let found = find_user(&world, &user)?;
    Ok(answer(StatusCode::OK, &user_json(&world, &found)))
}

async fn read_user_groups(
    State(world): Shared,
    Path(user): Path<String>,
    uri: Uri,
    Query(parameters): Parameters,
) -> Answer {
    let found = find_user(&world, &user)?;
    let groups = world.read(|inside| inside.directory.groups_of(&found.id).into_iter().map(group_json).collect());
    Ok(list(&world, &uri, &parameters, groups))
}

/// The admin roles of a user, those that he has through a group among them.
async fn read_user_roles(State(world): Shared, Path(user): Path<String>) -> Answer {
    let found = find_user(&world, &user)?;
    let roles = world.read(|inside| inside.directory.roles_of(&found.id));
    let one = |(role, through_group): &(String, bool)| {
        json!({"id": format!("ra{role}"), "label": role, "type": role, "status": "ACTIVE",
            "assignmentType": if *through_group { "GROUP" } else { "USER" }})
    };
    Ok(answer(StatusCode::OK, &Value::from(roles.iter().map(one).collect::<Vec<_>>())))
}

/// The admin roles of a service app. Only who may view roles may see them.
async fn read_app_roles(State(world): Shared, Path(client): Path<String>) -> Answer {
    let roles = oauth::roles_of(&world, &client).ok_or_else(|| OktaError::not_found(&client, "Client"))?;
    if !roles.iter().any(|role| role == "SUPER_ADMIN") {
        return Err(OktaError::no_permission());
    }
    let one = |role: &String| json!({"id": format!("ra{role}"), "label": role, "type": role, "status": "ACTIVE", "assignmentType": "CLIENT"});
    Ok(answer(StatusCode::OK, &Value::from(roles.iter().map(one).collect::<Vec<_>>())))
}

async fn read_linked(State(world): Shared, Path((user, name)): Path<(String, String)>) -> Answer {
    let found = find_user(&world, &user)?;
    let (known, other) = world.read(|inside| {
        let directory = &inside.directory;
        (directory.knows_link(&name), directory.linked(&name, &found.id).map(str::to_owned))
    });
    if !known {
        return Err(OktaError::not_found(&name, "LinkedObjectProperty"));
    }
    let links: Vec<Value> = other
        .iter()
        .map(|id| json!({"_links": {"self": {"href": format!("{}/api/v1/users/{id}", world.okta_url())}}}))
        .collect();
    Ok(answer(StatusCode::OK, &Value::from(links)))
}

async fn read_risk(State(world): Shared, Path(user): Path<String>) -> Answer {
    let found = find_user(&world, &user)?;
    Ok(answer(StatusCode::OK, &risk_json(&world, &found.id)))
}

async fn set_risk(State(world): Shared, Extension(by): By, Path(user): Path<String>, body: Bytes) -> Answer {
    let body: Value = serde_json::from_slice(&body)
        .map_err(|_| OktaError::new(StatusCode::BAD_REQUEST, "E0000003", "The request body was not well-formed."))?;
    let level = body.get("riskLevel").and_then(Value::as_str).unwrap_or_default().to_owned();
    if !matches!(level.as_str(), "HIGH" | "MEDIUM" | "LOW") {
        return Err(OktaError::validation("riskLevel", "The risk level must be HIGH, MEDIUM or LOW."));
    }
    let reason = body.get("riskReason").and_then(Value::as_str).unwrap_or("override.by.admin").to_owned();
    if reason.len() > 500
        || !reason.chars().all(|c| c.is_ascii_alphanumeric() || c.is_whitespace() || "-,.".contains(c))
    {
        return Err(OktaError::validation("riskReason", "The field must match the pattern ^[a-zA-Z0-9\\s\\-,.]*$"));
    }
    let found = find_user(&world, &user)?;
    let mut effect = world.effect(Service::Okta, "risk.set", found.id.clone(), body);
    let now_ms = world.clock.now_ms();
    let first = world.change(|inside| {
        let previous = inside.directory.set_risk(&found.id, &level, &reason);
        let before = previous.as_ref().map_or("LOW", |risk| &risk.level);
        effect.changed = previous.as_ref().is_none_or(|risk| risk.level != level);
        inside.journal.effects.push(effect);
        if before != level {
            let detection = "Admin Reported User Risk";
            let told = RiskDetected { previous: before, level: &level, detection, reasons: &[&reason] };
            inside.log.push(told.event(&found, by.actor(&world)), now_ms);
        }
        previous.is_none()
    });
    let status = if first { StatusCode::CREATED } else { StatusCode::OK };
    Ok(answer(status, &risk_json(&world, &found.id)))
}

/// Ends the sessions. What makes this call a trap: Okta then lowers the user's risk by itself and tells so in the log,
/// with the system and not the caller as actor.
async fn clear_sessions(
    State(world): Shared,
    Extension(by): By,
    Path(user): Path<String>,
    Query(parameters): Parameters,
) -> Answer {
    let found = find_user(&world, &user)?;
    let effect = world.effect(Service::Okta, "sessions.clear", found.id.clone(), json!(parameters));
    let now_ms = world.clock.now_ms();
    world.change(|inside| {
        inside.journal.effects.push(effect);
        inside.log.push(events::sessions_cleared(&found, by.actor(&world)), now_ms);
        let previous = inside.directory.risk_level(&found.id).to_owned();
        if matches!(previous.as_str(), "HIGH" | "MEDIUM") {
            inside.directory.set_risk(&found.id, "LOW", "Sessions cleared");
            let (detection, reasons) = ("Admin Reported User Risk", &["User sessions cleared"]);
            let fall = RiskDetected { previous: &previous, level: "LOW", detection, reasons };
            inside.log.push(fall.event(&found, events::system()), now_ms);
        }
    });
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn find_groups(State(world): Shared, uri: Uri, Query(parameters): Parameters) -> Answer {
    let given = |name: &str| parameters.get(name).map(String::as_str);
    let name = given("search").map(|search| equality(search, "profile.name")).transpose()?;
    let id = given("filter").map(|filter| equality(filter, "id")).transpose()?;
    let prefix = given("q").unwrap_or_default().to_lowercase();
    let groups = world.read(|inside| {
        let wanted = |group: &&Group| {
            name.as_deref().is_none_or(|name| group.name.eq_ignore_ascii_case(name))
                && id.as_deref().is_none_or(|id| group.id == id)
                && group.name.to_lowercase().starts_with(&prefix)
        };
        inside.directory.groups.values().filter(wanted).map(group_json).collect()
    });
    Ok(list(&world, &uri, &parameters, groups))
}

async fn read_group(State(world): Shared, Path(group): Path<String>) -> Answer {
    let found = world.read(|inside| inside.directory.groups.get(&group).map(group_json));
    let found = found.ok_or_else(|| OktaError::not_found(&group, "UserGroup"))?;
    Ok(answer(StatusCode::OK, &found))
}

async fn read_members(
    State(world): Shared,
    Path(group): Path<String>,
    uri: Uri,
    Query(parameters): Parameters,
) -> Answer {
    let members = world.read(|inside| {
        let directory = &inside.directory;
        let known = directory.groups.contains_key(&group);
        known.then(|| directory.members(&group).into_iter().map(|user| user_json(&world, user)).collect())
    });
    let members = members.ok_or_else(|| OktaError::not_found(&group, "UserGroup"))?;
    Ok(list(&world, &uri, &parameters, members))
}

async fn add_member(State(world): Shared, Extension(by): By, Path((group, user)): Path<(String, String)>) -> Answer {
    set_member(&world, &by, &group, &user, true)
}

async fn remove_member(State(world): Shared, Extension(by): By, Path((group, user)): Path<(String, String)>) -> Answer {
    set_member(&world, &by, &group, &user, false)
}

fn set_member(world: &World, by: &Principal, group: &str, user: &str, member: bool) -> Answer {
    let kind = if member { "group.add" } else { "group.remove" };
    let mut effect = world.effect(Service::Okta, kind, format!("{group}/{user}"), Value::Null);
    let now_ms = world.clock.now_ms();
    world
        .change(|inside| {
            effect.changed = inside.directory.set_member(group, user, member)?;
            let told = inside.directory.groups.get(group).zip(inside.directory.user(user));
            if let Some((group, user)) = told.filter(|_| effect.changed) {
                inside.log.push(events::group_membership(group, &user, by.actor(world), member), now_ms);
            }
            if effect.changed && !member {
                inside.leave_by_hand(group, user, now_ms);
            }
            inside.journal.effects.push(effect);
            Ok(())
        })
        .map_err(|refusal| OktaError::refused(refusal, group, user))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn find_apps(State(world): Shared, uri: Uri, Query(parameters): Parameters) -> Answer {
    let prefix = parameters.get("q").cloned().unwrap_or_default().to_lowercase();
    let apps = world.read(|inside| {
        let wanted = inside.directory.apps.values().filter(|app| app.label.to_lowercase().starts_with(&prefix));
        wanted.map(|app| app_json(&world, app)).collect()
    });
    Ok(list(&world, &uri, &parameters, apps))
}

async fn read_app(State(world): Shared, Path(app): Path<String>) -> Answer {
    let found = world.read(|inside| inside.directory.apps.get(&app).map(|app| app_json(&world, app)));
    let found = found.ok_or_else(|| OktaError::not_found(&app, "AppInstance"))?;
    Ok(answer(StatusCode::OK, &found))
}

async fn read_app_groups(
    State(world): Shared,
    Path(app): Path<String>,
    uri: Uri,
    Query(parameters): Parameters,
) -> Answer {
    let base = &world.okta_url();
    let groups = world.read(|inside| {
        let granting = inside.directory.groups_granting(&app).into_iter().enumerate();
        let granting = granting.map(|(priority, group)| {
            json!({
                "id": group.id, "lastUpdated": CREATED, "priority": priority, "profile": {},
                "_links": {
                    "app": {"href": format!("{base}/api/v1/apps/{app}")},
                    "self": {"href": format!("{base}/api/v1/apps/{app}/groups/{}", group.id)},
                    "group": {"href": format!("{base}/api/v1/groups/{}", group.id)},
                },
            })
        });
        inside.directory.apps.contains_key(&app).then(|| granting.collect())
    });
    let groups = groups.ok_or_else(|| OktaError::not_found(&app, "AppInstance"))?;
    Ok(list(&world, &uri, &parameters, groups))
}

async fn read_assignment(State(world): Shared, Path((app, user)): Path<(String, String)>) -> Answer {
    let found = find_user(&world, &user)?;
    let base = &world.okta_url();
    let assignment = world.read(|inside| {
        let directory = &inside.directory;
        let known = directory.apps.get(&app).ok_or_else(|| OktaError::not_found(&app, "AppInstance"))?;
        if !directory.is_assigned(&known.id, &found.id) {
            return Err(OktaError::not_found(&user, "AppUser"));
        }
        let name = directory.app_names.get(&(app.clone(), found.id.clone())).unwrap_or(&found.login);
        let scope = if directory.is_assigned_directly(&known.id, &found.id) { "USER" } else { "GROUP" };
        Ok(json!({
            "id": found.id, "externalId": null, "created": CREATED, "lastUpdated": CREATED, "scope": scope,
            "status": "ACTIVE", "statusChanged": CREATED, "passwordChanged": null, "syncState": "DISABLED",
            "credentials": {"userName": name}, "profile": {},
            "_links": {
                "app": {"href": format!("{base}/api/v1/apps/{app}")},
                "user": {"href": format!("{base}/api/v1/users/{}", found.id)},
            },
        }))
    })?;
    Ok(answer(StatusCode::OK, &assignment))
}

async fn assign(State(world): Shared, Extension(by): By, Path(app): Path<String>, body: Bytes) -> Answer {
    let body: Value = serde_json::from_slice(&body)
        .map_err(|_| OktaError::new(StatusCode::BAD_REQUEST, "E0000003", "The request body was not well-formed."))?;
    let Some(id) = body.get("id").and_then(Value::as_str) else {
        return Err(OktaError::validation("id", "The field cannot be left blank"));
    };
    let name = body.pointer("/credentials/userName").and_then(Value::as_str);
    let mut effect = world.effect(Service::Okta, "app.assign", format!("{app}/{id}"), body.clone());
    let now_ms = world.clock.now_ms();
    world
        .change(|inside| {
            effect.changed = inside.directory.assign_in_person(&app, id, name)?;
            let told = inside.directory.apps.get(&app).zip(inside.directory.user(id));
            if let Some((app, user)) = told.filter(|_| effect.changed) {
                inside.log.push(events::app_membership(app, &user, by.actor(&world), true), now_ms);
            }
            inside.journal.effects.push(effect);
            Ok(())
        })
        .map_err(|refusal| OktaError::refused(refusal, &app, id))?;
    let found = find_user(&world, id)?;
    let name = name.unwrap_or(&found.login);
    Ok(answer(
        StatusCode::OK,
        &json!({"id": found.id, "scope": "USER", "status": "ACTIVE", "credentials": {"userName": name}, "profile": {}}),
    ))
}

async fn unassign(State(world): Shared, Extension(by): By, Path((app, user)): Path<(String, String)>) -> Answer {
    let mut effect = world.effect(Service::Okta, "app.unassign", format!("{app}/{user}"), Value::Null);
    let now_ms = world.clock.now_ms();
    world
        .change(|inside| {
            let result = inside.directory.unassign(&app, &user);
            effect.changed = result.is_ok();
            if matches!(result, Ok(()) | Err(Refusal::Missing(Missing::Assignment))) {
                inside.journal.effects.push(effect);
            }
            let told = inside.directory.apps.get(&app).zip(inside.directory.user(&user));
            if let Some((app, user)) = told.filter(|_| result.is_ok()) {
                inside.log.push(events::app_membership(app, &user, by.actor(&world), false), now_ms);
            }
            result
        })
        .map_err(|refusal| OktaError::refused(refusal, &app, &user))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// When everything in this org was made; nothing depends on it.
const CREATED: &str = "2026-01-05T08:00:00.000Z";

pub(super) fn user_json(world: &World, user: &User) -> Value {
    json!({
        "id": user.id, "status": user.status, "created": CREATED, "activated": CREATED, "statusChanged": CREATED,
        "lastLogin": null, "lastUpdated": CREATED, "passwordChanged": CREATED,
        "type": {"id": "oty1sim0000000000001"},
        "profile": {
            "firstName": user.first, "lastName": user.last, "mobilePhone": user.mobile_phone, "secondEmail": null,
            "managerId": user.manager_id, "login": user.login, "email": user.email,
        },
        "credentials": {"password": {}, "provider": {"type": "OKTA", "name": "OKTA"}},
        "_links": {"self": {"href": format!("{}/api/v1/users/{}", world.okta_url(), user.id)}},
    })
}

fn group_json(group: &Group) -> Value {
    json!({
        "id": group.id, "created": CREATED, "lastUpdated": CREATED, "lastMembershipUpdated": CREATED,
        "objectClass": ["okta:user_group"], "type": group.kind.as_str(),
        "profile": {"name": group.name, "description": null},
    })
}

fn app_json(world: &World, app: &App) -> Value {
    json!({
        "id": app.id, "name": "sample_saml", "label": app.label, "status": "ACTIVE", "created": CREATED,
        "lastUpdated": CREATED, "signOnMode": "SAML_2_0", "features": [],
        "_links": {"self": {"href": format!("{}/api/v1/apps/{}", world.okta_url(), app.id)}},
    })
}

fn risk_json(world: &World, user: &str) -> Value {
    let base = &world.okta_url();
    let risk = world.read(|inside| inside.directory.risks.get(user).cloned());
    let mut body = json!({
        "riskLevel": "NONE",
        "_links": {
            "user": {"href": format!("{base}/api/v1/users/{user}"), "hints": {"allow": ["GET"]}},
            "self": {"href": format!("{base}/api/v1/users/{user}/risk"), "hints": {"allow": ["GET", "PUT"]}},
        },
    });
    if let Some(risk) = risk {
        events::set(&mut body, &["riskLevel"], Value::from(risk.level));
        events::set(&mut body, &["reason"], Value::from(risk.reason));
    }
    body
}

pub(super) fn find_user(world: &World, wanted: &str) -> Result<User, OktaError> {
    let wanted = if wanted == "me" { &world.options.token_owner } else { wanted };
    let found = world.read(|inside| inside.directory.user(wanted).map(|user| user.into_owned()));
    found.ok_or_else(|| OktaError::not_found(wanted, "User"))
}

/// A page of a list, with its links. The cursor is the id of the last item of the page before.
pub(super) fn list(world: &World, uri: &Uri, parameters: &HashMap<String, String>, items: Vec<Value>) -> Response {
    let limit = parameters.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(DEFAULT_PAGE).max(1);
    let id = |item: &Value| item.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let start = parameters
        .get("after")
        .and_then(|after| items.iter().position(|item| id(item) == *after))
        .map_or(0, |position| position + 1);
    let page: Vec<Value> = items.iter().skip(start).take(limit).cloned().collect();
    let base = &world.okta_url();
    let mut headers = HeaderMap::new();
    headers.append(LINK, link(&format!("{base}{uri}"), "self"));
    if let Some(last) = page.last().filter(|_| start + page.len() < items.len()) {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("after", &id(last)).append_pair("limit", &limit.to_string());
        for (name, value) in parameters.iter().filter(|(name, _)| !matches!(name.as_str(), "after" | "limit")) {
            query.append_pair(name, value);
        }
        headers.append(LINK, link(&format!("{base}{}?{}", uri.path(), query.finish()), "next"));
    }
    (headers, answer(StatusCode::OK, &Value::from(page))).into_response()
}

/// The value of `attribute eq "value"`, the only comparison that lists understand here.
fn equality(text: &str, attribute: &str) -> Result<String, OktaError> {
    let invalid = || OktaError::unknown_cursor();
    let rest = text.trim().strip_prefix(attribute).ok_or_else(invalid)?.trim_start();
    let literal = rest.strip_prefix("eq").or_else(|| rest.strip_prefix("EQ")).ok_or_else(invalid)?;
    serde_json::from_str(literal.trim()).map_err(|_| invalid())
}

pub(super) fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, JSON)], body.to_string()).into_response()
}

/// Ids of errors and requests only have to differ.
pub(super) fn fresh_id(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{prefix}{:017}", NEXT.fetch_add(1, Ordering::Relaxed))
}
