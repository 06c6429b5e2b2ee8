//! Groups: finding one by name, and its members.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

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

/// The most group rules that are read.
const MAX_RULES: usize = 2000;

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

impl GroupRef {
    /// Whether its members can be changed in Okta.
    pub fn is_ours(&self) -> bool {
        self.kind == OKTA_GROUP
    }
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
    #[error("there is no group `{wanted}`{}; {}", Similar(.similar), Self::CREATE)]
    Missing {
        /// As the playbook writes it.
        wanted: String,
        /// Groups whose names differ only in case.
        similar: Vec<GroupRef>,
    },
    /// Several groups have this name.
    #[error("{} groups are called `{wanted}`{}; {}", .candidates.len(), Similar(.candidates), Self::WRITE_ID)]
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
    const CREATE: &str = "create it in Okta or correct the configuration";
    const WRITE_ID: &str = "write the id instead of the name";

    /// What to do about it, as it stands in `Display`.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Okta { source, .. } => source.remedy(),
            Self::Missing { .. } => Some(Self::CREATE.to_owned()),
            Self::Ambiguous { .. } => Some(Self::WRITE_ID.to_owned()),
            Self::NotOurs { .. } => None,
        }
    }

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
    /// Finds a group whose members can be changed here, see [`OktaClient::find_group`].
    pub async fn resolve_group(&self, name_or_id: &str) -> Result<GroupRef, GroupError> {
        let group = self.find_group(name_or_id).await?;
        if group.is_ours() { Ok(group) } else { Err(GroupError::NotOurs { group }) }
    }

    /// Finds a group of any type by id, or by its exact name (case matters); of several with the same name an
    /// `OKTA_GROUP` goes before imported ones. What is found is remembered until Okta says 404.
    pub async fn find_group(&self, name_or_id: &str) -> Result<GroupRef, GroupError> {
        if let Some(group) = self.group_ids.get(name_or_id) {
            return Ok(group);
        }
        let group = self.look_up(name_or_id).await?;
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
        let search = named(wanted);
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

/// A group rule, as far as it says who is in which groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRule {
    /// What people call it.
    pub name: String,
    /// Whether it is at work.
    pub is_active: bool,
    /// The ids of the groups that it puts users into.
    pub groups: Vec<String>,
    /// The ids of the users it leaves alone. Taking a user out of one of its groups adds him here, and only by
    /// deactivating the rule an administrator gets him off the list again; it holds 100.
    pub excluded: Vec<String>,
}

impl GroupRule {
    /// Whether it may be this rule that keeps the user in the group. What its expression says of him is Okta's to tell.
    pub fn may_hold(&self, user: &str, group: &str) -> bool {
        self.is_active
            && self.groups.iter().any(|assigned| assigned == group)
            && !self.excluded.iter().any(|excluded| excluded == user)
    }
}

impl OktaClient {
    /// All group rules of the org (Okta API reference, "List all group rules"); Okta allows 2,000.
    pub async fn group_rules(&self) -> Result<Vec<GroupRule>, OktaError> {
        let path = ApiPath::new(["api", "v1", "groups", "rules"])?;
        self.all(&path, &[("limit", "200")], MAX_RULES).await
    }
}

impl<'de> Deserialize<'de> for GroupRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let body = serde_json::Value::deserialize(deserializer)?;
        let text = |key: &str| body.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        let ids = |pointer: &str| {
            let list = body.pointer(pointer).and_then(serde_json::Value::as_array).into_iter().flatten();
            list.filter_map(|id| id.as_str().map(str::to_owned)).collect()
        };
        Ok(Self {
            name: text("name"),
            is_active: text("status") == "ACTIVE",
            groups: ids("/actions/assignUserToGroups/groupIds"),
            excluded: ids("/conditions/people/users/exclude"),
        })
    }
}

/// `00g` and 17 letters or digits. A name can look like that as well, so it only says what to try first.
fn is_group_id(text: &str) -> bool {
    text.len() == 20 && text.starts_with("00g") && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The search for the groups of exactly this name. String literals of a search are JSON strings (Okta API reference,
/// "Filter"), so no name ends its own.
fn named(name: &str) -> String {
    format!("profile.name eq {}", serde_json::Value::from(name))
}

/// What is known of names, so that a burst of actions does not ask for the same group each time.
#[derive(Debug, Clone, Default)]
pub(super) struct GroupCache(Arc<Mutex<HashMap<String, GroupRef>>>);

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

#[cfg(test)]
mod tests {
    use mockito::{Matcher, Server};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::okta::testing::{GROUP, USER, answers, client, error_body, group};

    /// What a search that answers these groups makes of the name `High Risk`.
    async fn check(found: Value) -> Result<String, String> {
        let mut server = Server::new_async().await;
        answers(&mut server, "GET", "/api/v1/groups", 200, &found).await;
        let result = client(&server.url()).resolve_group("High Risk").await;
        result.map(|group| group.id).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_name_must_fit_exactly_one_group() {
        assert_eq!(check(json!([group("g1", "High Risk", "OKTA_GROUP")])).await.unwrap(), "g1");
        let cased = json!([group("g0", "high risk", "OKTA_GROUP"), group("g1", "High Risk", "OKTA_GROUP")]);
        assert_eq!(check(cased).await.unwrap(), "g1");
        let imported = json!([group("g1", "High Risk", "OKTA_GROUP"), group("g2", "High Risk", "APP_GROUP")]);
        assert_eq!(check(imported).await.unwrap(), "g1");

        let missing = check(json!([group("g0", "high risk", "OKTA_GROUP")])).await.unwrap_err();
        assert!(missing.contains("no group `High Risk`: `high risk` (g0, OKTA_GROUP)"), "{missing}");
        let twice = json!([group("g1", "High Risk", "OKTA_GROUP"), group("g2", "High Risk", "OKTA_GROUP")]);
        let twice = check(twice).await.unwrap_err();
        assert!(twice.contains("2 groups") && twice.contains("g1") && twice.contains("g2"), "{twice}");
        let foreign = check(json!([group("g2", "High Risk", "APP_GROUP")])).await.unwrap_err();
        assert!(foreign.contains("of type APP_GROUP"), "{foreign}");
    }

    #[tokio::test]
    async fn a_name_is_searched_for_as_a_json_string() {
        let mut server = Server::new_async().await;
        let search = Matcher::UrlEncoded("search".to_owned(), r#"profile.name eq "a\" or type eq \"x&y""#.to_owned());
        let mock = server.mock("GET", "/api/v1/groups").match_query(search).with_body("[]").create_async().await;
        client(&server.url()).resolve_group("a\" or type eq \"x&y").await.unwrap_err();
        mock.assert_async().await;
    }

    #[tokio::test]
    async fn an_id_is_read_and_what_only_looks_like_one_is_searched_for() {
        let mut server = Server::new_async().await;
        let path = format!("/api/v1/groups/{GROUP}");
        answers(&mut server, "GET", &path, 200, &group(GROUP, "High Risk", "OKTA_GROUP")).await;
        assert_eq!(client(&server.url()).resolve_group(GROUP).await.unwrap().name, "High Risk");

        server.mock("GET", path.as_str()).with_status(404).create_async().await;
        answers(&mut server, "GET", "/api/v1/groups", 200, &json!([group("g1", GROUP, "OKTA_GROUP")])).await;
        assert_eq!(client(&server.url()).resolve_group(GROUP).await.unwrap().id, "g1");
    }

    #[tokio::test]
    async fn a_found_group_is_remembered_until_it_is_gone() {
        let mut server = Server::new_async().await;
        let search = server.mock("GET", "/api/v1/groups").match_query(Matcher::Any).expect(2);
        let search =
            search.with_body(json!([group(GROUP, "High Risk", "OKTA_GROUP")]).to_string()).create_async().await;
        let okta = client(&server.url());
        for _ in 0..3 {
            okta.resolve_group("High Risk").await.unwrap();
        }
        let body = error_body("E0000007", "Not found");
        server.mock("PUT", Matcher::Any).with_status(404).with_body(body).create_async().await;
        assert_eq!(okta.add_member(GROUP, USER).await.unwrap_err().kind, OktaErrorKind::NotFound);
        okta.resolve_group("High Risk").await.unwrap();
        search.assert_async().await;
    }

    #[tokio::test]
    async fn an_imported_group_can_be_read_but_not_changed() {
        let mut server = Server::new_async().await;
        answers(&mut server, "GET", "/api/v1/groups", 200, &json!([group("g1", "Staff", "APP_GROUP")])).await;
        let okta = client(&server.url());
        assert_eq!(okta.find_group("Staff").await.unwrap().id, "g1");
        let error = okta.resolve_group("Staff").await.unwrap_err();
        assert!(matches!(error, GroupError::NotOurs { .. }));
        assert!(matches!(error.to_outcome(), Outcome::Permanent(_)));
        assert_eq!(error.to_verdict(), Verdict::CannotTell);
    }

    #[tokio::test]
    async fn a_rule_may_hold_whom_it_does_not_exclude() {
        let mut server = Server::new_async().await;
        let rule = |status: &str, exclude: Value| {
            json!({"id": "0pr1", "name": "staff", "status": status,
                "conditions": {"people": {"users": {"exclude": exclude}, "groups": {"exclude": []}}},
                "actions": {"assignUserToGroups": {"groupIds": [GROUP]}}})
        };
        let rules = json!([rule("ACTIVE", json!([])), rule("INACTIVE", json!([])), rule("ACTIVE", json!([USER])), {}]);
        answers(&mut server, "GET", "/api/v1/groups/rules", 200, &rules).await;
        let rules = client(&server.url()).group_rules().await.unwrap();
        let holds: Vec<_> = rules.iter().map(|rule| rule.may_hold(USER, GROUP)).collect();
        assert_eq!(holds, [true, false, false, false]);
        assert!(!rules[0].may_hold(USER, "00gother"));
    }

    proptest! {
        #[test]
        fn no_name_ends_its_own_string_in_a_search(name in "(\\PC|[\"\\\\\\x00-\\x1f]| or | eq ){0,40}") {
            let search = named(&name);
            let literal = search.strip_prefix("profile.name eq ").unwrap();
            // One JSON string and nothing behind it.
            prop_assert_eq!(serde_json::from_str::<String>(literal).unwrap(), name);
        }
    }

    #[test]
    fn the_memory_is_bounded() {
        let cache = GroupCache::default();
        for n in 0..=MAX_CACHED {
            let group = GroupRef { id: n.to_string(), name: String::new(), kind: String::new() };
            cache.put(&n.to_string(), group);
        }
        assert_eq!(cache.0.lock().unwrap().len(), 1);
    }
}
