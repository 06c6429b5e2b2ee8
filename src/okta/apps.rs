//! Apps: who is assigned to one, and why.

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::client::{OktaClient, found};
use super::error::OktaError;
use super::path::ApiPath;

/// The most groups of one app that are read.
const MAX_APP_GROUPS: usize = 2000;

/// The longest name of a user in an app.
const MAX_USER_NAME: usize = 100;

/// An app of the org.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct App {
    /// What people call it.
    #[serde(default)]
    pub label: String,
    /// `ACTIVE`, `INACTIVE`, `DELETED`.
    #[serde(default)]
    pub status: String,
}

/// A user's assignment to an app.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AppUser {
    /// `USER`: assigned in person; `GROUP`: by a group.
    #[serde(default)]
    pub scope: String,
    /// `ACTIVE`, `PROVISIONED`, `DEPROVISIONED`, …
    #[serde(default)]
    pub status: String,
    /// What he signs in to the app with, where the app keeps such.
    #[serde(default)]
    pub credentials: Option<AppCredentials>,
}

/// What a user signs in to an app with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AppCredentials {
    /// His name in the app.
    #[serde(default, rename = "userName")]
    pub user_name: Option<String>,
}

impl AppUser {
    /// His name in the app, where it has one that can be given again: one to a hundred characters (Okta API reference,
    /// "Assign an application user").
    pub fn user_name(&self) -> Option<&str> {
        let name = self.credentials.as_ref()?.user_name.as_deref()?;
        (1..=MAX_USER_NAME).contains(&name.chars().count()).then_some(name)
    }
}

impl OktaClient {
    /// An app by id; `None` when there is none.
    pub async fn app(&self, app: &str) -> Result<Option<App>, OktaError> {
        let path = ApiPath::new(["api", "v1", "apps", app])?;
        found(self.get(&path, &[]).await)?.map(|answer| answer.json()).transpose()
    }

    /// A user's assignment to an app; `None` when there is none.
    pub async fn app_user(&self, app: &str, user: &str) -> Result<Option<AppUser>, OktaError> {
        let path = ApiPath::new(["api", "v1", "apps", app, "users", user])?;
        found(self.get(&path, &[]).await)?.map(|answer| answer.json()).transpose()
    }

    /// Takes an assignment away. The user's app profile is lost, and with provisioning he is deactivated in the app
    /// (Okta API reference, "Unassign an application user").
    pub async fn unassign(&self, app: &str, user: &str, send_email: bool) -> Result<(), OktaError> {
        let path = ApiPath::new(["api", "v1", "apps", app, "users", user])?;
        let query = [("sendEmail", if send_email { "true" } else { "false" })];
        self.send(Method::DELETE, &path, &query, None).await.map(drop)
    }

    /// Assigns an app to a user in person. Without a name in the app Okta makes one from the app's own template; so it does
    /// with the profile (Okta API reference, "Assign an application user").
    pub async fn assign(&self, app: &str, user: &str, user_name: Option<&str>) -> Result<(), OktaError> {
        let path = ApiPath::new(["api", "v1", "apps", app, "users"])?;
        let mut body = json!({"id": user, "scope": "USER"});
        if let (Some(name), Some(body)) = (user_name, body.as_object_mut()) {
            body.insert("credentials".to_owned(), json!({"userName": name}));
        }
        self.send(Method::POST, &path, &[], Some(&body)).await.map(drop)
    }

    /// The ids of the groups that an app is assigned to.
    pub async fn app_groups(&self, app: &str) -> Result<Vec<String>, OktaError> {
        #[derive(Deserialize)]
        struct Assignment {
            id: String,
        }
        let path = ApiPath::new(["api", "v1", "apps", app, "groups"])?;
        let all: Vec<Assignment> = self.all(&path, &[("limit", "200")], MAX_APP_GROUPS).await?;
        Ok(all.into_iter().map(|assignment| assignment.id).collect())
    }
}
