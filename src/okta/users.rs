//! Users: who they are, whom they report to, what they belong to, and their sessions.

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::client::{OktaClient, found};
use super::error::OktaError;
use super::groups::GroupRef;
use super::page::check_origin;
use super::path::ApiPath;

/// The most groups of one user that are read.
pub const MAX_USER_GROUPS: usize = 2000;

/// The most admin roles of one user that are read.
pub const MAX_USER_ROLES: usize = 500;

/// The largest profile that is kept whole, in bytes of JSON.
const MAX_PROFILE: usize = 64 * 1024;

/// A user, as far as playbooks speak of one.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// Okta's id, `00u…`.
    pub id: String,
    /// `ACTIVE`, `SUSPENDED`, `DEPROVISIONED`, …
    pub status: String,
    /// `profile.login`.
    pub login: Option<String>,
    /// `profile.email`.
    pub email: Option<String>,
    /// `profile.firstName`.
    pub first_name: Option<String>,
    /// `profile.lastName`.
    pub last_name: Option<String>,
    /// `profile.displayName`.
    pub display_name: Option<String>,
    /// `profile.mobilePhone`.
    pub mobile_phone: Option<String>,
    /// `profile.managerId`: free text; an id, a login or something that names nobody.
    pub manager_id: Option<String>,
    /// `profile.manager`: free text, mostly a display name.
    pub manager: Option<String>,
    /// The whole profile; empty when it is larger than 64 KiB.
    pub profile: Map<String, Value>,
}

/// An admin role as it is assigned to somebody.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AdminRole {
    /// `SUPER_ADMIN`, `ORG_ADMIN`, …, or `CUSTOM`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What people call it; of a custom role its name.
    #[serde(default)]
    pub label: Option<String>,
    /// The id of a custom role, `cr0…`.
    #[serde(default)]
    pub role: Option<String>,
    /// `USER` when it is his own, `GROUP` when a group gives it.
    #[serde(default, rename = "assignmentType")]
    pub assigned: Option<String>,
}

impl OktaClient {
    /// Reads a user by id or login; `None` when there is none.
    pub async fn user(&self, id_or_login: &str) -> Result<Option<User>, OktaError> {
        let path = ApiPath::new(["api", "v1", "users", id_or_login])?;
        let answer = found(self.get(&path, &[]).await)?;
        answer.map(|answer| answer.json::<UserBody>().map(User::from)).transpose()
    }

    /// The id of a user who may be named by id or by login; `None` when there is none. What looks like an id is not asked
    /// for: whoever uses it finds out.
    pub async fn user_id(&self, id_or_login: &str) -> Result<Option<String>, OktaError> {
        if is_user_id(id_or_login) {
            return Ok(Some(id_or_login.to_owned()));
        }
        Ok(self.user(id_or_login).await?.map(|user| user.id))
    }

    /// The user that the credential belongs to.
    pub async fn me(&self) -> Result<User, OktaError> {
        let answer = self.get(&ApiPath::new(["api", "v1", "users", "me"])?, &[]).await?;
        answer.json::<UserBody>().map(User::from)
    }

    /// Every group that a user belongs to, at most [`MAX_USER_GROUPS`].
    pub async fn user_groups(&self, id: &str) -> Result<Vec<GroupRef>, OktaError> {
        self.all(&ApiPath::new(["api", "v1", "users", id, "groups"])?, &[], MAX_USER_GROUPS).await
    }

    /// The admin roles of a user, his own and those that he has through a group (Okta API reference, "List all role
    /// assignments for a user"), at most [`MAX_USER_ROLES`]. Needs `okta.roles.read`.
    pub async fn user_roles(&self, id: &str) -> Result<Vec<AdminRole>, OktaError> {
        self.all(&ApiPath::new(["api", "v1", "users", id, "roles"])?, &[], MAX_USER_ROLES).await
    }

    /// The admin roles of a service app (Okta API reference, "List all role assignments for a client app"), at most
    /// [`MAX_USER_ROLES`]. Needs `okta.roles.read`.
    pub async fn client_roles(&self, client_id: &str) -> Result<Vec<AdminRole>, OktaError> {
        self.all(&ApiPath::new(["oauth2", "v1", "clients", client_id, "roles"])?, &[], MAX_USER_ROLES).await
    }

    /// The manager of a user: whom `profile.managerId` names, else the linked object `link_name` (not asked when empty).
    ///
    /// `managerId` is free text (Okta API reference, "User profile"), so one that names nobody is no error.
    pub async fn manager_of(&self, user: &User, link_name: &str) -> Result<Option<User>, OktaError> {
        if let Some(manager_id) = user.manager_id.as_deref().filter(|id| can_name_a_user(id))
            && let Some(manager) = self.user(manager_id).await?
        {
            return Ok(Some(manager));
        }
        if link_name.is_empty() {
            return Ok(None);
        }
        let path = ApiPath::new(["api", "v1", "users", &user.id, "linkedObjects", link_name])?;
        // 404: the org has no such relation.
        let Some(answer) = found(self.get(&path, &[]).await)? else { return Ok(None) };
        let links = answer.json::<Vec<LinkedObject>>()?;
        let Some(link) = links.first() else { return Ok(None) };
        let url = check_origin(&link.links.this.href, &self.org_url)
            .map_err(|error| OktaError::foreign_next(answer.exchange.clone(), error))?;
        match url.path_segments().and_then(|mut segments| segments.next_back()).filter(|id| !id.is_empty()) {
            Some(id) => self.user(id).await,
            None => Err(OktaError::bad_answer(answer.exchange, "the linked object names no user")),
        }
    }

    /// The risk that Okta sees in a user, in its words: `HIGH`, `MEDIUM`, `LOW` or `NONE`. Needs Identity Threat Protection.
    pub async fn user_risk(&self, id: &str) -> Result<String, OktaError> {
        let answer = self.get(&ApiPath::new(["api", "v1", "users", id, "risk"])?, &[]).await?;
        Ok(answer.json::<RiskBody>()?.risk_level)
    }

    /// Ends every session of a user. `oauth_tokens` revokes his refresh and access tokens as well, `forget_devices`
    /// forgets remembered factors. Okta lowers his risk to LOW in answer.
    pub async fn clear_sessions(&self, id: &str, oauth_tokens: bool, forget_devices: bool) -> Result<(), OktaError> {
        let word = |flag| if flag { "true" } else { "false" };
        let query = [("oauthTokens", word(oauth_tokens)), ("forgetDevices", word(forget_devices))];
        let path = ApiPath::new(["api", "v1", "users", id, "sessions"])?;
        self.send(Method::DELETE, &path, &query, None).await.map(drop)
    }
}

/// `00u` and 17 letters or digits.
fn is_user_id(text: &str) -> bool {
    text.len() == 20 && text.starts_with("00u") && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Okta looks a login with a slash up only by id (Okta API reference, "Retrieve a user"), and no name is that long.
fn can_name_a_user(text: &str) -> bool {
    let text = text.trim();
    !text.is_empty() && text.len() <= 255 && !text.contains('/') && text != "." && text != ".." && text != "me"
}

#[derive(Deserialize)]
struct UserBody {
    id: String,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    profile: Option<Map<String, Value>>,
}

impl From<UserBody> for User {
    fn from(body: UserBody) -> Self {
        let mut profile = body.profile.unwrap_or_default();
        let text = |key: &str| profile.get(key).and_then(Value::as_str).filter(|s| !s.is_empty()).map(str::to_owned);
        let mut user = Self {
            id: body.id,
            status: body.status.unwrap_or_default(),
            login: text("login"),
            email: text("email"),
            first_name: text("firstName"),
            last_name: text("lastName"),
            display_name: text("displayName"),
            mobile_phone: text("mobilePhone"),
            manager_id: text("managerId"),
            manager: text("manager"),
            profile: Map::new(),
        };
        if serde_json::to_string(&profile).is_ok_and(|json| json.len() <= MAX_PROFILE) {
            user.profile = std::mem::take(&mut profile);
        }
        user
    }
}

#[derive(Deserialize)]
struct LinkedObject {
    #[serde(rename = "_links")]
    links: SelfLink,
}

#[derive(Deserialize)]
struct SelfLink {
    #[serde(rename = "self")]
    this: Href,
}

#[derive(Deserialize)]
struct Href {
    href: String,
}

#[derive(Deserialize)]
struct RiskBody {
    #[serde(rename = "riskLevel")]
    risk_level: String,
}

#[cfg(test)]
mod tests {
    use mockito::{Matcher, Server, ServerGuard};
    use serde_json::json;

    use super::*;
    use crate::okta::OktaErrorKind;
    use crate::okta::testing::{USER, answers, client, error_body, group};

    const MANAGER: &str = "00u0000000000manager";

    async fn has_user(server: &mut ServerGuard, id: &str, profile: Value) {
        let body = json!({"id": id, "status": "ACTIVE", "profile": profile});
        answers(server, "GET", &format!("/api/v1/users/{id}"), 200, &body).await;
    }

    async fn knows_nobody_else(server: &mut ServerGuard) {
        let body = error_body("E0000007", "Not found: Resource not found: x (User)");
        server.mock("GET", Matcher::Any).with_status(404).with_body(body).expect_at_least(0).create_async().await;
    }

    #[tokio::test]
    async fn a_user_is_read_as_far_as_he_is_filled_in() {
        let mut server = Server::new_async().await;
        knows_nobody_else(&mut server).await;
        let profile = json!({"login": "ann@example.com", "firstName": "Ann", "mobilePhone": null, "managerId": "",
            "employeeNumber": 7});
        has_user(&mut server, USER, profile).await;
        let okta = client(&server.url());
        let user = okta.user(USER).await.unwrap().unwrap();
        assert_eq!((user.id.as_str(), user.status.as_str()), (USER, "ACTIVE"));
        assert_eq!((user.login.as_deref(), user.first_name.as_deref()), (Some("ann@example.com"), Some("Ann")));
        assert_eq!((user.mobile_phone, user.manager_id), (None, None));
        assert_eq!(user.profile.get("employeeNumber"), Some(&json!(7)));
        assert_eq!(okta.user("nobody@example.com").await.unwrap(), None);
        assert_eq!(okta.user("..").await.unwrap_err().kind, OktaErrorKind::BadParameters);
    }

    #[tokio::test]
    async fn a_huge_profile_is_not_kept() {
        let mut server = Server::new_async().await;
        has_user(&mut server, USER, json!({"login": "ann", "notes": "x".repeat(MAX_PROFILE)})).await;
        let user = client(&server.url()).user(USER).await.unwrap().unwrap();
        assert_eq!(user.login.as_deref(), Some("ann"));
        assert!(user.profile.is_empty());
    }

    #[tokio::test]
    async fn a_login_is_looked_up_and_an_id_is_not() {
        let mut server = Server::new_async().await;
        knows_nobody_else(&mut server).await;
        let body = json!({"id": USER});
        let path = "/api/v1/users/ann%40example.com";
        let login = server.mock("GET", path).with_body(body.to_string()).expect(1).create_async().await;
        let okta = client(&server.url());
        assert_eq!(okta.user_id(USER).await.unwrap().as_deref(), Some(USER));
        assert_eq!(okta.user_id("ann@example.com").await.unwrap().as_deref(), Some(USER));
        login.assert_async().await;
        assert_eq!(okta.user_id("bob@example.com").await.unwrap(), None);
    }

    /// Whom the manager of a user with this profile is found to be.
    async fn check(server: &mut ServerGuard, profile: Value, link: &str, expected: Option<&str>) {
        has_user(server, USER, profile.clone()).await;
        let okta = client(&server.url());
        let user = okta.user(USER).await.unwrap().unwrap();
        let manager = okta.manager_of(&user, link).await.unwrap();
        assert_eq!(manager.as_ref().map(|user| user.id.as_str()), expected, "{profile}");
    }

    #[tokio::test]
    async fn a_manager_is_whom_the_profile_names_else_the_linked_object() {
        let mut server = Server::new_async().await;
        knows_nobody_else(&mut server).await;
        has_user(&mut server, MANAGER, json!({})).await;
        check(&mut server, json!({"managerId": MANAGER}), "manager", Some(MANAGER)).await;
        for text in [json!("Bob Smith"), json!("../x/y"), json!("me"), json!(""), json!(null), json!(7)] {
            check(&mut server, json!({"managerId": text}), "manager", None).await;
        }
        let links = format!("/api/v1/users/{USER}/linkedObjects/manager");
        let href = format!("{}/api/v1/users/{MANAGER}", server.url());
        answers(&mut server, "GET", &links, 200, &json!([{"_links": {"self": {"href": href}}}])).await;
        check(&mut server, json!({"managerId": "Bob Smith"}), "manager", Some(MANAGER)).await;
        check(&mut server, json!({}), "", None).await;
        answers(&mut server, "GET", &links, 200, &json!([])).await;
        check(&mut server, json!({}), "manager", None).await;
    }

    #[tokio::test]
    async fn a_linked_object_at_another_host_is_refused() {
        let mut server = Server::new_async().await;
        has_user(&mut server, USER, json!({})).await;
        let links = format!("/api/v1/users/{USER}/linkedObjects/manager");
        let href = format!("https://evil.example/api/v1/users/{MANAGER}");
        answers(&mut server, "GET", &links, 200, &json!([{"_links": {"self": {"href": href}}}])).await;
        let okta = client(&server.url());
        let user = okta.user(USER).await.unwrap().unwrap();
        assert_eq!(okta.manager_of(&user, "manager").await.unwrap_err().kind, OktaErrorKind::ForeignNext);
    }

    #[tokio::test]
    async fn groups_risk_and_sessions_are_asked_for_in_their_places() {
        let mut server = Server::new_async().await;
        answers(
            &mut server,
            "GET",
            &format!("/api/v1/users/{USER}/groups"),
            200,
            &json!([group("g", "Staff", "OKTA_GROUP")]),
        )
        .await;
        answers(&mut server, "GET", &format!("/api/v1/users/{USER}/risk"), 200, &json!({"riskLevel": "NONE"})).await;
        let sessions = server.mock("DELETE", format!("/api/v1/users/{USER}/sessions").as_str());
        let sessions = sessions.match_query(Matcher::Exact("oauthTokens=true&forgetDevices=false".to_owned()));
        let sessions = sessions.with_status(204).create_async().await;
        let okta = client(&server.url());
        let groups = okta.user_groups(USER).await.unwrap();
        assert_eq!(groups, [GroupRef { id: "g".into(), name: "Staff".into(), kind: "OKTA_GROUP".into() }]);
        assert_eq!(okta.user_risk(USER).await.unwrap(), "NONE");
        okta.clear_sessions(USER, true, false).await.unwrap();
        sessions.assert_async().await;
    }

    #[tokio::test]
    async fn admin_roles_are_read_standard_and_custom_ones() {
        let mut server = Server::new_async().await;
        let roles = json!([
            {"id": "ra1", "label": "Super Administrator", "type": "SUPER_ADMIN", "assignmentType": "GROUP"},
            {"id": "ra2", "label": "Help", "type": "CUSTOM", "role": "cr01", "assignmentType": "USER"},
        ]);
        answers(&mut server, "GET", &format!("/api/v1/users/{USER}/roles"), 200, &roles).await;
        let role = |kind: &str, label: &str, role: Option<&str>, assigned: &str| AdminRole {
            kind: kind.to_owned(),
            label: Some(label.to_owned()),
            role: role.map(str::to_owned),
            assigned: Some(assigned.to_owned()),
        };
        let expected =
            [role("SUPER_ADMIN", "Super Administrator", None, "GROUP"), role("CUSTOM", "Help", Some("cr01"), "USER")];
        assert_eq!(client(&server.url()).user_roles(USER).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn roles_that_may_not_be_read_name_their_scope() {
        let mut server = Server::new_async().await;
        let body: Value = serde_json::from_str(&error_body("E0000006", "You do not have permission")).unwrap();
        answers(&mut server, "GET", &format!("/api/v1/users/{USER}/roles"), 403, &body).await;
        let error = client(&server.url()).user_roles(USER).await.unwrap_err();
        assert_eq!(error.kind, OktaErrorKind::Forbidden);
        assert!(error.to_string().contains("okta.roles.read"), "{error}");
    }
}
