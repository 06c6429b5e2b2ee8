//! The part of Okta's API that remedies use beside groups, apps and sessions: the lifecycle of users and devices, Universal
//! Logout, and group rules. With the status rules that Okta really has, since those are the traps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Extension;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::Org;
use super::directory::User;
use super::effects::Service;
use super::events;
use super::okta::{Answer, By, OktaError, Parameters, Shared, answer, find_user, list, user_json};
use super::world::{Inside, World};

/// Devices and group rules.
#[derive(Debug, Default)]
pub(super) struct Estate {
    /// Id to status.
    devices: BTreeMap<String, String>,
    /// (user, device)
    links: BTreeSet<(String, String)>,
    rules: Vec<Rule>,
}

/// An active group rule that puts users into one group.
#[derive(Debug)]
struct Rule {
    name: String,
    group: String,
    excluded: Vec<String>,
}

/// The routes of this file.
pub(super) fn routes() -> Router<Arc<World>> {
    Router::new()
        .route("/api/v1/users/{user}/lifecycle/{change}", post(change_user))
        .route("/api/v1/users/{user}/devices", get(read_user_devices))
        .route("/api/v1/devices/{device}", get(read_device))
        .route("/api/v1/devices/{device}/users", get(read_device_users))
        .route("/api/v1/devices/{device}/lifecycle/{change}", post(change_device))
        .route("/api/v1/groups/rules", get(read_rules))
        .route("/oauth2/v1/global-token-revocation", post(log_out))
}

impl Org {
    /// Adds an active device of these users, and returns its id.
    pub fn add_device(&self, users: &[&str]) -> String {
        self.world.change(|inside| {
            let id = format!("guo1sim{:013}", inside.estate.devices.len() + 1);
            inside.estate.devices.insert(id.clone(), "ACTIVE".to_owned());
            inside.estate.links.extend(users.iter().map(|user| ((*user).to_owned(), id.clone())));
            id
        })
    }

    /// The status of a device; empty when there is none.
    pub fn device_status(&self, device: &str) -> String {
        self.world.read(|inside| inside.estate.devices.get(device).cloned().unwrap_or_default())
    }

    /// Adds an active group rule, which makes these users members.
    pub fn add_group_rule(&self, name: &str, group: &str, users: &[&str]) {
        self.world.change(|inside| {
            users.iter().for_each(|user| inside.directory.import_member(group, user));
            let rule = Rule { name: name.to_owned(), group: group.to_owned(), excluded: Vec::new() };
            inside.estate.rules.push(rule);
        });
    }

    /// Whether a group rule leaves this user alone, because somebody took him out of its group.
    pub fn is_excluded_by_rule(&self, user: &str) -> bool {
        let excludes = |rule: &Rule| rule.excluded.iter().any(|excluded| excluded == user);
        self.world.read(|inside| inside.estate.rules.iter().any(excludes))
    }
}

impl Inside {
    /// A member who is taken out of a group of a rule is excluded from the rule from then on, without anybody being asked.
    pub(super) fn leave_by_hand(&mut self, group: &str, user: &str, now_ms: i64) {
        let mut excluded = false;
        for rule in self.estate.rules.iter_mut().filter(|rule| rule.group == group) {
            rule.excluded.push(user.to_owned());
            excluded = true;
        }
        if let Some(user) = self.directory.user(user).filter(|_| excluded) {
            let (kind, words) = ("group.user_membership.rule.add_exclusion", "Add user exclusion to group rule");
            self.log.push(events::about_user(kind, words, &user, events::system()), now_ms);
        }
    }
}

/// What a change of a user's lifecycle needs and leads to (Okta API reference, "User lifecycles").
struct Lifecycle {
    effect: &'static str,
    event: &'static str,
    words: &'static str,
    from: &'static [&'static str],
    to: Option<&'static str>,
    refused: Refused,
}

/// How Okta refuses a change in the wrong status.
enum Refused {
    BadRequest,
    Forbidden,
}

const ANY: &[&str] = &["STAGED", "PROVISIONED", "ACTIVE", "RECOVERY", "LOCKED_OUT", "PASSWORD_EXPIRED", "SUSPENDED"];

fn lifecycle(change: &str) -> Option<Lifecycle> {
    let of = |effect, event, words, from, to, refused| Some(Lifecycle { effect, event, words, from, to, refused });
    use Refused::{BadRequest, Forbidden};
    match change {
        "suspend" => of(
            "user.suspend",
            "user.lifecycle.suspend",
            "Suspend Okta user",
            &["ACTIVE"],
            Some("SUSPENDED"),
            BadRequest,
        ),
        "unsuspend" => of(
            "user.unsuspend",
            "user.lifecycle.unsuspend",
            "Unsuspend Okta user",
            &["SUSPENDED"],
            Some("ACTIVE"),
            BadRequest,
        ),
        "deactivate" => of(
            "user.deactivate",
            "user.lifecycle.deactivate",
            "Deactivate Okta user",
            ANY,
            Some("DEPROVISIONED"),
            Forbidden,
        ),
        "expire_password" => of(
            "user.expire_password",
            "user.account.expire_password",
            "Expire user's password",
            &["ACTIVE", "RECOVERY", "LOCKED_OUT"],
            Some("PASSWORD_EXPIRED"),
            Forbidden,
        ),
        "reset_factors" => {
            of("user.reset_factors", "user.mfa.factor.reset_all", "Reset all factors for user", ANY, None, Forbidden)
        }
        _ => None,
    }
}

async fn change_user(State(world): Shared, Extension(by): By, Path((user, change)): Path<(String, String)>) -> Answer {
    let found = find_user(&world, &user)?;
    let Some(change) = lifecycle(&change) else {
        return Err(OktaError::not_found(&change, "lifecycle"));
    };
    if !change.from.contains(&found.status.as_str()) {
        return Err(match change.refused {
            Refused::BadRequest => {
                OktaError::validation("status", "Cannot suspend or unsuspend a user whose status does not allow it.")
            }
            Refused::Forbidden => {
                let summary = "This operation is not allowed in the user's current status.";
                OktaError::new(StatusCode::FORBIDDEN, "E0000038", summary)
            }
        });
    }
    let effect = world.effect(Service::Okta, change.effect, found.id.clone(), Value::Null);
    let now_ms = world.clock.now_ms();
    world.change(|inside| {
        if let Some(to) = change.to {
            let changed = User { status: to.to_owned(), ..found.clone() };
            inside.directory.users.insert(found.id.clone(), changed);
        }
        inside.journal.effects.push(effect);
        inside.log.push(events::about_user(change.event, change.words, &found, by.actor(&world)), now_ms);
    });
    Ok(answer(StatusCode::OK, &json!({})))
}

/// Universal Logout. What Okta makes of the risk then is not documented, so nothing comes of it here.
async fn log_out(State(world): Shared, Extension(by): By, body: Bytes) -> Answer {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let subject = body.get("sub_id").filter(|subject| subject.get("format") == Some(&Value::from("opaque")));
    let Some(id) = subject.and_then(|subject| subject.get("id")).and_then(Value::as_str) else {
        return Err(OktaError::validation("sub_id", "The subject is not valid."));
    };
    let found = find_user(&world, id)?;
    let effect = world.effect(Service::Okta, "user.logout", found.id.clone(), body.clone());
    let now_ms = world.clock.now_ms();
    world.change(|inside| {
        inside.journal.effects.push(effect);
        let (kind, words) = ("user.authentication.universal_logout", "Universal Logout of a user");
        inside.log.push(events::about_user(kind, words, &found, by.actor(&world)), now_ms);
    });
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn device_json(id: &str, status: &str) -> Value {
    json!({
        "id": id, "status": status, "resourceType": "UDDevice", "resourceId": id,
        "profile": {"displayName": format!("Device {}", id.trim_start_matches("guo1sim").trim_start_matches('0')),
            "platform": "IOS", "registered": true},
    })
}

async fn read_device(State(world): Shared, Path(device): Path<String>) -> Answer {
    let status = world.read(|inside| inside.estate.devices.get(&device).cloned());
    let status = status.ok_or_else(|| OktaError::not_found(&device, "Device"))?;
    Ok(answer(StatusCode::OK, &device_json(&device, &status)))
}

async fn read_user_devices(State(world): Shared, Path(user): Path<String>) -> Answer {
    let found = find_user(&world, &user)?;
    let devices: Vec<Value> = world.read(|inside| {
        let his = inside.estate.links.iter().filter(|(user, _)| *user == found.id);
        let his = his.filter_map(|(_, device)| Some((device, inside.estate.devices.get(device)?)));
        his.map(|(id, status)| json!({"deviceUserId": format!("dus{id}"), "device": device_json(id, status)})).collect()
    });
    Ok(answer(StatusCode::OK, &Value::from(devices)))
}

async fn read_device_users(State(world): Shared, Path(device): Path<String>) -> Answer {
    let users: Option<Vec<Value>> = world.read(|inside| {
        inside.estate.devices.get(&device)?;
        let his = inside.estate.links.iter().filter(|(_, linked)| *linked == device);
        let users = his.filter_map(|(user, _)| inside.directory.user(user));
        Some(users.map(|user| json!({"managementStatus": "NOT_MANAGED", "user": user_json(&world, &user)})).collect())
    });
    let users = users.ok_or_else(|| OktaError::not_found(&device, "Device"))?;
    Ok(answer(StatusCode::OK, &Value::from(users)))
}

async fn change_device(State(world): Shared, Path((device, change)): Path<(String, String)>) -> Answer {
    let (kind, from, to): (_, &[&str], _) = match change.as_str() {
        "suspend" => ("device.suspend", &["CREATED", "ACTIVE"], "SUSPENDED"),
        "unsuspend" => ("device.unsuspend", &["SUSPENDED"], "ACTIVE"),
        "deactivate" => ("device.deactivate", &["CREATED", "ACTIVE", "SUSPENDED"], "DEACTIVATED"),
        _ => return Err(OktaError::not_found(&change, "lifecycle")),
    };
    let effect = world.effect(Service::Okta, kind, device.clone(), Value::Null);
    world.change(|inside| {
        let status = inside.estate.devices.get_mut(&device).ok_or_else(|| OktaError::not_found(&device, "Device"))?;
        if !from.contains(&status.as_str()) {
            return Err(OktaError::validation("status", "The device's status does not allow it."));
        }
        to.clone_into(status);
        inside.journal.effects.push(effect);
        Ok(StatusCode::NO_CONTENT.into_response())
    })
}

async fn read_rules(State(world): Shared, uri: Uri, Query(parameters): Parameters) -> Answer {
    let rules = world.read(|inside| {
        let rules = inside.estate.rules.iter().enumerate();
        let one = |(number, rule): (usize, &Rule)| {
            json!({
                "id": format!("0pr1sim{number:013}"), "type": "group_rule", "name": rule.name, "status": "ACTIVE",
                "conditions": {
                    "people": {"users": {"exclude": rule.excluded}, "groups": {"exclude": []}},
                    "expression": {"type": "urn:okta:expression:1.0", "value": "user.department==\"Sales\""},
                },
                "actions": {"assignUserToGroups": {"groupIds": [rule.group]}},
            })
        };
        rules.map(one).collect()
    });
    Ok(list(&world, &uri, &parameters, rules))
}
