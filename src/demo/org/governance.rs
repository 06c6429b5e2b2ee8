//! Okta Identity Governance, as far as a responder uses it: Security Access Reviews and certification campaigns, with their
//! statuses and the refusals that are the traps, and people who decide in them.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Extension;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::Org;
use super::directory::User;
use super::effects::Service;
use super::events;
use super::okta::{Answer, By, OktaError, Parameters, Shared, answer};
use super::world::{Inside, World};

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// All reviews and campaigns, oldest first.
#[derive(Debug, Default)]
pub(super) struct Reviews {
    all: Vec<AccessReview>,
}

/// A Security Access Review or a certification campaign.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessReview {
    /// `sar…` or `ici…`.
    pub id: String,
    /// As it was given.
    pub name: String,
    /// Of a review `PENDING`, `ACTIVE` or `CLOSED`; of a campaign `SCHEDULED`, `ACTIVE` or `COMPLETED`.
    pub status: &'static str,
    /// The id of the user whose access it is.
    pub user: String,
    /// The ids of the users who decide.
    pub reviewers: Vec<String>,
    /// The apps that it is about; `None` for all of the user's.
    pub apps: Option<Vec<String>>,
    /// What was sent.
    pub body: Value,
}

impl AccessReview {
    /// Whether it is a campaign.
    pub fn is_campaign(&self) -> bool {
        self.id.starts_with("ici")
    }
}

/// The routes of this file.
pub(super) fn routes() -> Router<Arc<World>> {
    Router::new()
        .route("/governance/api/v2/security-access-reviews", get(list_reviews).post(start_review))
        .route("/governance/api/v2/security-access-reviews/{id}", get(read_review))
        .route("/governance/api/v1/campaigns", get(list_campaigns).post(create_campaign))
        .route("/governance/api/v1/campaigns/{id}", get(read_campaign))
        .route("/governance/api/v1/campaigns/{id}/launch", post(launch))
}

impl Org {
    /// Every Security Access Review and every campaign, oldest first.
    pub fn access_reviews(&self) -> Vec<AccessReview> {
        self.world.read(|inside| inside.reviews.all.clone())
    }

    /// The reviewer decides about everything that the review is about, and the review ends. What he revokes Okta takes
    /// away; what a group grants it cannot, and the log says so. False when there is nothing open of that id.
    pub fn decide_review(&self, id: &str, keeps: bool) -> bool {
        let now_ms = self.world.clock.now_ms();
        self.world.change(|inside| inside.decide(id, keeps, now_ms))
    }
}

impl Inside {
    fn decide(&mut self, id: &str, keeps: bool, now_ms: i64) -> bool {
        self.gathered(now_ms);
        let Some(review) = self.reviews.all.iter_mut().find(|review| review.id == id && review.status == "ACTIVE")
        else {
            return false;
        };
        review.status = if review.is_campaign() { "COMPLETED" } else { "CLOSED" };
        let review = review.clone();
        let words = if review.is_campaign() {
            [
                "certification.campaign.item.decide",
                "certification.campaign.item.remediate",
                "certification.campaign.close",
            ]
        } else {
            ["access.review.action", "access.review.remediate", "access.review.close"]
        };
        let Some(user) = self.directory.user(&review.user).map(|user| user.into_owned()) else { return false };
        let reviewer = review.reviewers.first().and_then(|id| self.directory.user(id)).map(|user| user.into_owned());
        let by = reviewer.map_or_else(events::system, |reviewer| events::principal(&reviewer));
        let decision = if keeps { "APPROVE" } else { "REVOKE" };
        let apps: Vec<_> = self.directory.apps.values().cloned().collect();
        let is_reviewed = |id: &String| review.apps.as_ref().is_none_or(|apps| apps.contains(id));
        for app in apps.iter().filter(|app| is_reviewed(&app.id)) {
            if !self.directory.is_assigned(&app.id, &user.id) {
                continue;
            }
            let [decide, remediate, _] = words;
            let debug = json!({"decision": decision, "resource": app.label});
            let event = |kind, message, actor, result| {
                events::about_review(kind, message, &review, &user, actor, debug.clone(), result)
            };
            self.log.push(event(decide, "Decision on an item of an access review", by.clone(), "SUCCESS"), now_ms);
            if !keeps {
                let taken = self.directory.unassign(&app.id, &user.id).is_ok();
                if taken {
                    self.log.push(events::app_membership(app, &user, events::system(), false), now_ms);
                }
                let result = if taken { "SUCCESS" } else { "FAILURE" };
                self.log.push(event(remediate, "Remediation of an access review", events::system(), result), now_ms);
            }
        }
        let [_, _, close] = words;
        let message = if review.is_campaign() { "Close campaign" } else { "Close security access review" };
        self.log.push(events::about_review(close, message, &review, &user, by, json!({}), "SUCCESS"), now_ms);
        true
    }

    /// Okta gathers what a user has before his review is open; here it has done so by the time somebody looks again.
    fn gathered(&mut self, now_ms: i64) {
        for review in self.reviews.all.iter_mut().filter(|review| review.status == "PENDING") {
            review.status = "ACTIVE";
            if let Some(user) = self.directory.user(&review.user) {
                let (kind, message) = ("access.review.start", "Security access review is ready");
                let (by, debug) = (events::system(), json!({}));
                self.log.push(events::about_review(kind, message, review, &user, by, debug, "SUCCESS"), now_ms);
            }
        }
    }

    /// Keeps a new one, and tells of it.
    fn started(&mut self, world: &World, review: AccessReview, by: Value, told: (&'static str, &'static str)) {
        let key = review.name.rsplit_once('[').and_then(|(_, key)| key.strip_suffix(']')).map(str::to_owned);
        let kind = if review.is_campaign() { "campaign.create" } else { "review.start" };
        let effect = world.effect(Service::Okta, kind, review.user.clone(), review.body.clone());
        self.journal.effects.push(super::Effect { key, ..effect });
        if let Some(user) = self.directory.user(&review.user) {
            let event = events::about_review(told.0, told.1, &review, &user, by, json!({}), "SUCCESS");
            self.log.push(event, world.clock.now_ms());
        }
        self.reviews.all.push(review);
    }
}

async fn list_reviews(State(world): Shared, Query(parameters): Parameters) -> Answer {
    require_reviews(&world)?;
    list(&world, parameters.get("filter").map_or("", String::as_str), false)
}

async fn list_campaigns(State(world): Shared, Query(parameters): Parameters) -> Answer {
    list(&world, parameters.get("filter").map_or("", String::as_str), true)
}

async fn read_review(State(world): Shared, Path(id): Path<String>) -> Answer {
    require_reviews(&world)?;
    read(&world, &id, false)
}

async fn read_campaign(State(world): Shared, Path(id): Path<String>) -> Answer {
    read(&world, &id, true)
}

async fn start_review(State(world): Shared, Extension(by): By, body: Bytes) -> Answer {
    require_reviews(&world)?;
    let body = parsed(&body)?;
    let known = ["principalId", "name", "endTime", "reviewerSettings"];
    if let Some(other) =
        body.as_object().into_iter().flat_map(|body| body.keys()).find(|key| !known.contains(&key.as_str()))
    {
        return Err(OktaError::validation(other, "The field is not known."));
    }
    let principal = text(&body, "/principalId").filter(|id| id.len() == 20);
    let principal =
        principal.ok_or_else(|| OktaError::validation("principalId", "The field must have 20 characters."))?;
    let user = user_of_id(&world, &principal)?;
    let name = named(&body)?;
    if let Some(end) = text(&body, "/endTime") {
        let end = end.parse::<Timestamp>().ok();
        let open = end.map(|end| end.duration_since(world.clock.now()));
        if open.is_none_or(|open| open < DAY || open > DAY * 182) {
            let cause = "The end must be at least one day and less than six months after creation.";
            return Err(OktaError::validation("endTime", cause));
        }
    }
    if text(&body, "/reviewerSettings/type").as_deref() != Some("USER") {
        return Err(OktaError::validation("reviewerSettings.type", "The type must be USER."));
    }
    let reviewers = body.pointer("/reviewerSettings/userSettings/includedUserIds").and_then(Value::as_array);
    let reviewers: Vec<String> = reviewers.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    if reviewers.is_empty() || reviewers.len() > 10 {
        return Err(OktaError::validation("includedUserIds", "There must be one to ten reviewers."));
    }
    for reviewer in &reviewers {
        user_of_id(&world, reviewer)?;
    }
    if reviewers.contains(&principal) {
        return Err(OktaError::validation("includedUserIds", "The principal cannot review his own access."));
    }
    let (actor, told) = (by.actor(&world), ("access.review.create", "Create security access review"));
    let review = world.change(|inside| {
        inside.gathered(world.clock.now_ms());
        let id = format!("sar1sim{:013}", inside.reviews.all.len() + 1);
        let review = AccessReview { id, name, status: "PENDING", user: user.id, reviewers, apps: None, body };
        inside.started(&world, review.clone(), actor, told);
        review
    });
    Ok(answer(StatusCode::ACCEPTED, &shown(&world, &review)))
}

async fn create_campaign(State(world): Shared, Extension(by): By, body: Bytes) -> Answer {
    let body = parsed(&body)?;
    let name = named(&body)?;
    for part in ["scheduleSettings", "resourceSettings", "reviewerSettings", "remediationSettings"] {
        if !body.get(part).is_some_and(Value::is_object) {
            return Err(OktaError::validation(part, "The field is required."));
        }
    }
    for part in ["type", "startDate", "durationInDays", "timeZone"] {
        if body.pointer(&format!("/scheduleSettings/{part}")).is_none() {
            return Err(OktaError::validation(&format!("scheduleSettings.{part}"), "The field is required."));
        }
    }
    let start = text(&body, "/scheduleSettings/startDate").and_then(|start| start.parse::<Timestamp>().ok());
    if start.is_none_or(|start| start <= world.clock.now()) {
        let cause = "Campaign template start date must be a future date";
        return Err(OktaError::validation_of("Campaign", cause));
    }
    let (user, apps) = scope_of(&world, &body)?;
    let reviewer = reviewer_of(&world, &body, &user)?;
    let (actor, told) = (by.actor(&world), ("certification.campaign.create", "Create campaign"));
    let campaign = world.change(|inside| {
        let id = format!("ici1sim{:013}", inside.reviews.all.len() + 1);
        let reviewers = vec![reviewer];
        let campaign = AccessReview { id, name, status: "SCHEDULED", user: user.id, reviewers, apps, body };
        inside.started(&world, campaign.clone(), actor, told);
        campaign
    });
    let shown = shown(&world, &campaign);
    let place = shown.pointer("/_links/self/href").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut headers = HeaderMap::new();
    headers.extend(place.try_into().ok().map(|place| (LOCATION, place)));
    Ok((headers, answer(StatusCode::CREATED, &shown)).into_response())
}

async fn launch(State(world): Shared, Extension(by): By, Path(id): Path<String>) -> Answer {
    let mut effect = world.effect(Service::Okta, "campaign.launch", id.clone(), Value::Null);
    world.change(|inside| {
        let campaign = inside.reviews.all.iter_mut().find(|review| review.is_campaign() && review.id == id);
        let campaign = campaign.ok_or_else(|| OktaError::not_found(&id, "Campaign"))?;
        effect.changed = campaign.status == "SCHEDULED";
        if !effect.changed {
            let summary = "Campaign cannot be launched.";
            let error = OktaError::new(StatusCode::CONFLICT, "E0000195", summary);
            return Err(error.because("Campaign must be scheduled before it can be started"));
        }
        campaign.status = "ACTIVE";
        let campaign = campaign.clone();
        inside.journal.effects.push(effect);
        if let Some(user) = inside.directory.user(&campaign.user) {
            let (kind, actor) = ("certification.campaign.launch", by.actor(&world));
            let event = events::about_review(kind, "Launch campaign", &campaign, &user, actor, json!({}), "SUCCESS");
            inside.log.push(event, world.clock.now_ms());
        }
        Ok(())
    })?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// An org without Security Access Reviews says so with 401, which is no word about the token.
fn require_reviews(world: &World) -> Result<(), OktaError> {
    if world.options.security_access_reviews {
        return Ok(());
    }
    let summary = "You do not have permission to access the feature you are requesting";
    Err(OktaError::new(StatusCode::UNAUTHORIZED, "E0000015", summary))
}

fn list(world: &World, filter: &str, campaigns: bool) -> Answer {
    let name = match filter.trim() {
        "" => None,
        filter => {
            let literal = filter.strip_prefix("name eq ").ok_or_else(OktaError::unknown_cursor)?;
            Some(serde_json::from_str::<String>(literal).map_err(|_| OktaError::unknown_cursor())?)
        }
    };
    let found: Vec<AccessReview> = world.change(|inside| {
        inside.gathered(world.clock.now_ms());
        let wanted = |review: &&AccessReview| {
            review.is_campaign() == campaigns && name.as_ref().is_none_or(|name| review.name == *name)
        };
        inside.reviews.all.iter().filter(wanted).take(200).cloned().collect()
    });
    let data: Vec<Value> = found.iter().map(|review| shown(world, review)).collect();
    Ok(answer(StatusCode::OK, &json!({"data": data, "_links": {"self": {"href": world.okta_url()}}})))
}

fn read(world: &World, id: &str, campaign: bool) -> Answer {
    let found = world.change(|inside| {
        inside.gathered(world.clock.now_ms());
        inside.reviews.all.iter().find(|review| review.id == id && review.is_campaign() == campaign).cloned()
    });
    let kind = if campaign { "Campaign" } else { "SecurityAccessReview" };
    let found = found.ok_or_else(|| OktaError::not_found(id, kind))?;
    Ok(answer(StatusCode::OK, &shown(world, &found)))
}

fn shown(world: &World, review: &AccessReview) -> Value {
    let path = if review.is_campaign() { "v1/campaigns" } else { "v2/security-access-reviews" };
    let here = format!("{}/governance/api/{path}/{}", world.okta_url(), review.id);
    let mut shown = review.body.clone();
    let mut links = json!({"self": {"href": here}});
    if review.is_campaign() {
        events::set(&mut links, &["launchCampaign"], json!({"href": format!("{here}/launch")}));
    }
    for (key, value) in [("id", json!(review.id)), ("status", json!(review.status)), ("_links", links)] {
        events::set(&mut shown, &[key], value);
    }
    shown
}

/// Whose access a campaign is about, and to which apps.
fn scope_of(world: &World, body: &Value) -> Result<(User, Option<Vec<String>>), OktaError> {
    if text(body, "/campaignType").as_deref() == Some("USER") {
        let wanted = text(body, "/principalScopeSettings/userIds/0");
        let wanted = wanted.ok_or_else(|| OktaError::validation("principalScopeSettings", "Users are required."))?;
        return Ok((user_of_id(world, &wanted)?, None));
    }
    let targets = body.pointer("/resourceSettings/targetResources").and_then(Value::as_array);
    let apps: Vec<String> = targets.into_iter().flatten().filter_map(|target| text(target, "/resourceId")).collect();
    let known: BTreeSet<String> = world.read(|inside| inside.directory.apps.keys().cloned().collect());
    if let Some(unknown) = apps.iter().find(|app| !known.contains(*app)) {
        return Err(OktaError::not_found(unknown, "AppInstance"));
    }
    let expression = text(body, "/principalScopeSettings/userScopeExpression").unwrap_or_default();
    let user = expression.strip_prefix("user.id == ").and_then(|literal| serde_json::from_str::<String>(literal).ok());
    match user {
        Some(user) if !apps.is_empty() => Ok((user_of_id(world, &user)?, Some(apps))),
        Some(_) => Err(OktaError::validation("resourceSettings.targetResources", "The field is required.")),
        None => Err(OktaError::validation("principalScopeSettings", "This org understands `user.id ==` alone.")),
    }
}

/// Who decides in a campaign.
fn reviewer_of(world: &World, body: &Value, user: &User) -> Result<String, OktaError> {
    let settings = |field: &str| text(body, &format!("/reviewerSettings/{field}"));
    let id = match settings("type").as_deref() {
        Some("USER") => settings("reviewerId"),
        Some("REVIEWER_EXPRESSION") => {
            let fallback = settings("fallBackReviewerId");
            if fallback.is_none() {
                return Err(OktaError::validation("reviewerSettings.fallBackReviewerId", "The field is required."));
            }
            let manager = user.manager_id.clone().filter(|id| user_of_id(world, id).is_ok());
            manager.or(fallback)
        }
        _ => None,
    };
    let id = id.ok_or_else(|| OktaError::validation("reviewerSettings", "The reviewer is required."))?;
    Ok(user_of_id(world, &id)?.id)
}

/// The governance API takes ids only.
fn user_of_id(world: &World, id: &str) -> Result<User, OktaError> {
    let found = world.read(|inside| inside.directory.user(id).map(|user| user.into_owned()));
    found.filter(|user| user.id == id).ok_or_else(|| OktaError::not_found(id, "User"))
}

fn named(body: &Value) -> Result<String, OktaError> {
    let name = text(body, "/name").filter(|name| (1..=255).contains(&name.chars().count()));
    name.ok_or_else(|| OktaError::validation("name", "The field must have 1 to 255 characters."))
}

fn parsed(body: &[u8]) -> Result<Value, OktaError> {
    let malformed = || OktaError::new(StatusCode::BAD_REQUEST, "E0000003", "The request body was not well-formed.");
    serde_json::from_slice(body).map_err(|_| malformed())
}

fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer)?.as_str().map(str::to_owned)
}
