//! Apps: who is assigned to one, and why.

use reqwest::Method;
use serde::Deserialize;

use super::client::{OktaClient, found};
use super::error::OktaError;
use super::path::ApiPath;

/// The most groups of one app that are read.
const MAX_APP_GROUPS: usize = 2000;

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
