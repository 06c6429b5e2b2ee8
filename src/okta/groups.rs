//! Groups: finding one by name, and its members.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use reqwest::Method;
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use super::client::{OktaClient, found};
use super::error::{OktaError, OktaErrorKind};
use super::path::ApiPath;
use crate::model::outcome::{Failure, Outcome, Reason, Verdict};

/// The type of a group whose members can be changed here.
pub const OKTA_GROUP: &str = "OKTA_GROUP";

/// The most names remembered; playbooks name a handful.
const MAX_CACHED: usize = 256;

/// The most groups looked through for one name.
const MAX_FOUND: usize = 1000;

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRef {
    /// Okta's id, `00g…`.
    pub id: String,
    /// `profile.name`.
    pub name: String,
    /// `OKTA_GROUP`, `APP_GROUP` (imported) or `BUILT_IN` (Everyone).
    pub kind: String,
}

/// A group that could not be found for certain.
#[derive(Debug, Error)]
pub enum GroupError {
    /// Okta could not be asked.
    #[error("the group `{wanted}` could not be looked up")]
    Okta {
        /// As the playbook writes it.
        wanted: String,
        /// Why.
        #[source]
        source: OktaError,
    },
    /// No group has this name or id.
    #[error("there is no group `{wanted}`{}; create it in Okta or correct the playbook", Similar(.similar))]
    Missing {
        /// As the playbook writes it.
        wanted: String,
        /// Groups whose names differ only in case.
        similar: Vec<GroupRef>,
    },
    /// Several groups have this name.
    #[error("{} groups are called `{wanted}`{}; write the id instead of the name", .candidates.len(), Similar(.candidates))]
    Ambiguous {
        /// As the playbook writes it.
        wanted: String,
        /// All of them.
        candidates: Vec<GroupRef>,
    },
    /// Its members come from elsewhere.
    #[error("the members of `{}` ({}) cannot be changed in Okta: it is of type {}, and only OKTA_GROUP can", .group.name, .group.id, .group.kind)]
    NotOurs {
        /// The group.
        group: GroupRef,
    },
}

impl GroupError {
    /// What it means for an attempt; nothing was changed.
    pub fn to_outcome(&self) -> Outcome {
        match self {
            Self::Okta { source, .. } => source.to_outcome(false),
            Self::Missing { .. } => Outcome::Permanent(Failure::new(Reason::NotFound, self.to_string())),
            Self::Ambiguous { .. } => Outcome::Permanent(Failure::new(Reason::BadParameters, self.to_string())),
            Self::NotOurs { .. } => Outcome::Permanent(Failure::new(Reason::Rejected, self.to_string())),
        }
    }

    /// What it means when it comes up while a doubt is settled.
    pub fn to_verdict(&self) -> Verdict {
        match self {
            Self::Okta { source, .. } => source.to_verdict(),
            _ => Verdict::CannotTell,
        }
    }
}

impl OktaClient {
    /// Finds a group by id, or by its exact name (case matters). What is found is remembered until Okta says 404.
    pub async fn resolve_group(&self, name_or_id: &str) -> Result<GroupRef, GroupError> {
        if let Some(group) = self.group_ids.get(name_or_id) {
            return Ok(group);
        }
        let group = self.look_up(name_or_id).await?;
        if group.kind != OKTA_GROUP {
            return Err(GroupError::NotOurs { group });
        }
        self.group_ids.put(name_or_id, group.clone());
        Ok(group)
    }

    async fn look_up(&self, wanted: &str) -> Result<GroupRef, GroupError> {
        let asked = |source| GroupError::Okta { wanted: wanted.to_owned(), source };
        if is_group_id(wanted)
            && let Some(group) = self.group(wanted).await.map_err(asked)?
        {
            return Ok(group);
        }
        // A search is eventually consistent (Okta API reference, "List all groups"): a group made a moment ago can be missing.
        let search = format!("profile.name eq {}", serde_json::Value::from(wanted));
        let path = ApiPath::new(["api", "v1", "groups"]).map_err(|error| asked(error.into()))?;
        let all: Vec<GroupRef> =
            self.all(&path, &[("search", &search), ("limit", "200")], MAX_FOUND).await.map_err(asked)?;
        let (mut exact, similar): (Vec<_>, Vec<_>) = all.into_iter().partition(|group| group.name == wanted);
        if exact.iter().any(|group| group.kind == OKTA_GROUP) {
            exact.retain(|group| group.kind == OKTA_GROUP);
        }
        match (exact.pop(), exact.is_empty()) {
            (None, _) => Err(GroupError::Missing { wanted: wanted.to_owned(), similar }),
            (Some(group), true) => Ok(group),
            (Some(group), false) => {
                exact.push(group);
                Err(GroupError::Ambiguous { wanted: wanted.to_owned(), candidates: exact })
            }
        }
    }

    /// Reads a group by id; `None` when there is none.
    pub async fn group(&self, id: &str) -> Result<Option<GroupRef>, OktaError> {
        let path = ApiPath::new(["api", "v1", "groups", id])?;
        found(self.get(&path, &[]).await)?.map(|answer| answer.json()).transpose()
    }

    /// Puts a user into a group.
    pub async fn add_member(&self, group: &str, user: &str) -> Result<(), OktaError> {
        self.change_member(Method::PUT, group, user).await
    }

    /// Takes a user out of a group. If a group rule put him there, Okta adds him to the rule's exclusions.
    pub async fn remove_member(&self, group: &str, user: &str) -> Result<(), OktaError> {
        self.change_member(Method::DELETE, group, user).await
    }

    async fn change_member(&self, method: Method, group: &str, user: &str) -> Result<(), OktaError> {
        let path = ApiPath::new(["api", "v1", "groups", group, "users", user])?;
        let result = self.send(method, &path, &[], None).await;
        if result.as_ref().is_err_and(|error| error.kind == OktaErrorKind::NotFound) {
            self.group_ids.forget(group);
        }
        result.map(drop)
    }

    /// Whether a user is in a group, read from the user's side, which is the shorter list. A user who does not exist is
    /// an error of kind [`OktaErrorKind::NotFound`].
    pub async fn is_member(&self, group: &str, user: &str) -> Result<bool, OktaError> {
        Ok(self.user_groups(user).await?.iter().any(|of_user| of_user.id == group))
    }
}

/// `00g` and 17 letters or digits. A name can look like that as well, so it only says what to try first.
fn is_group_id(text: &str) -> bool {
    text.len() == 20 && text.starts_with("00g") && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// What is known of names, so that a burst of actions does not ask for the same group each time.
#[derive(Debug, Default)]
pub(super) struct GroupCache(Mutex<HashMap<String, GroupRef>>);

impl GroupCache {
    fn get(&self, wanted: &str) -> Option<GroupRef> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(wanted).cloned()
    }

    fn put(&self, wanted: &str, group: GroupRef) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_CACHED {
            known.clear();
        }
        known.insert(wanted.to_owned(), group);
    }

    fn forget(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, group| group.id != id);
    }
}

impl<'de> Deserialize<'de> for GroupRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Body {
            id: String,
            #[serde(rename = "type", default)]
            kind: String,
            #[serde(default)]
            profile: Profile,
        }
        #[derive(Default, Deserialize)]
        struct Profile {
            #[serde(default)]
            name: String,
        }
        let Body { id, kind, profile } = Body::deserialize(deserializer)?;
        Ok(Self { id, name: profile.name, kind })
    }
}

/// Names some groups in an error.
struct Similar<'a>(&'a [GroupRef]);

impl std::fmt::Display for Similar<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, group) in self.0.iter().take(5).enumerate() {
            let name: String = group.name.chars().take(60).filter(|c| !c.is_control()).collect();
            write!(f, "{}`{name}` ({}, {})", if at == 0 { ": " } else { ", " }, group.id, group.kind)?;
        }
        Ok(())
    }
}
