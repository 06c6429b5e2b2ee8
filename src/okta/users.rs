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
