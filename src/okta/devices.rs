//! Devices, and who uses them. Identity Engine only (Okta API reference, "Devices").

use reqwest::Method;
use serde::Deserialize;

use super::client::{OktaClient, found};
use super::error::OktaError;
use super::path::ApiPath;

/// The most devices of one user, and the most users of one device, that are read.
const MAX_LINKS: usize = 1000;

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Device {
    /// Okta's id, `guo…`.
    pub id: String,
    /// `CREATED`, `ACTIVE`, `SUSPENDED` or `DEACTIVATED`.
    #[serde(default)]
    pub status: String,
    /// What is known of it.
    #[serde(default)]
    pub profile: DeviceProfile,
}

/// What a device says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct DeviceProfile {
    /// What people call it.
    #[serde(rename = "displayName", default)]
    pub display_name: String,
}

/// Who uses a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceUser {
    /// His id.
    pub id: String,
    /// His login.
    pub login: Option<String>,
}

/// A change of a device's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChange {
    /// It counts for nothing at sign-in until it is let go on.
    Suspend,
    /// The way back.
    Unsuspend,
    /// Its links to users and its certificates are lost.
    Deactivate,
}

impl DeviceChange {
    fn word(self) -> &'static str {
        match self {
            Self::Suspend => "suspend",
            Self::Unsuspend => "unsuspend",
            Self::Deactivate => "deactivate",
        }
    }
}

impl OktaClient {
    /// Reads a device; `None` when there is none.
    pub async fn device(&self, id: &str) -> Result<Option<Device>, OktaError> {
        let path = ApiPath::new(["api", "v1", "devices", id])?;
        found(self.get(&path, &[]).await)?.map(|answer| answer.json()).transpose()
    }

    /// The devices of a user.
    pub async fn user_devices(&self, user: &str) -> Result<Vec<Device>, OktaError> {
        #[derive(Deserialize)]
        struct Link {
            device: Device,
        }
        let path = ApiPath::new(["api", "v1", "users", user, "devices"])?;
        let links: Vec<Link> = self.all(&path, &[], MAX_LINKS).await?;
        Ok(links.into_iter().map(|link| link.device).collect())
    }

    /// The users of a device.
    pub async fn device_users(&self, device: &str) -> Result<Vec<DeviceUser>, OktaError> {
        #[derive(Deserialize)]
        struct Link {
            user: User,
        }
        #[derive(Deserialize)]
        struct User {
            id: String,
            #[serde(default)]
            profile: Profile,
        }
        #[derive(Default, Deserialize)]
        struct Profile {
            #[serde(default)]
            login: Option<String>,
        }
        let path = ApiPath::new(["api", "v1", "devices", device, "users"])?;
        let links: Vec<Link> = self.all(&path, &[], MAX_LINKS).await?;
        Ok(links.into_iter().map(|link| DeviceUser { id: link.user.id, login: link.user.profile.login }).collect())
    }

    /// Changes a device's state, for all who use it.
    pub async fn change_device(&self, id: &str, change: DeviceChange) -> Result<(), OktaError> {
        let path = ApiPath::new(["api", "v1", "devices", id, "lifecycle", change.word()])?;
        self.send(Method::POST, &path, &[], None).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use mockito::Server;
    use serde_json::json;

    use super::*;
    use crate::okta::testing::{USER, answers, client, error_body};

    #[tokio::test]
    async fn devices_and_their_users_are_read_as_far_as_they_are_filled_in() {
        let mut server = Server::new_async().await;
        let device =
            json!({"id": "guo1", "status": "ACTIVE", "profile": {"displayName": "Ann's phone", "platform": "IOS"}});
        let links = json!([{"created": "2026-01-05T08:00:00.000Z", "deviceUserId": "dus1", "device": device},
            {"device": {"id": "guo2"}}]);
        answers(&mut server, "GET", &format!("/api/v1/users/{USER}/devices"), 200, &links).await;
        let users = json!([{"created": "x", "user": {"id": USER, "profile": {"login": "ann@example.com"}}},
            {"user": {"id": "00u2"}}]);
        answers(&mut server, "GET", "/api/v1/devices/guo1/users", 200, &users).await;
        answers(&mut server, "GET", "/api/v1/devices/guo1", 200, &device).await;
        let missing = serde_json::from_str(&error_body("E0000007", "Not found")).unwrap();
        answers(&mut server, "GET", "/api/v1/devices/guo9", 404, &missing).await;
        let okta = client(&server.url());
        let devices = okta.user_devices(USER).await.unwrap();
        assert_eq!(devices.iter().map(|device| device.status.as_str()).collect::<Vec<_>>(), ["ACTIVE", ""]);
        assert_eq!(okta.device("guo1").await.unwrap().as_ref(), devices.first());
        assert_eq!(okta.device("guo9").await.unwrap(), None);
        let logins: Vec<_> = okta.device_users("guo1").await.unwrap().into_iter().map(|user| user.login).collect();
        assert_eq!(logins, [Some("ann@example.com".to_owned()), None]);
    }

    #[tokio::test]
    async fn a_device_is_changed_in_its_place() {
        let mut server = Server::new_async().await;
        for (change, word) in [
            (DeviceChange::Suspend, "suspend"),
            (DeviceChange::Unsuspend, "unsuspend"),
            (DeviceChange::Deactivate, "deactivate"),
        ] {
            let asked = server.mock("POST", format!("/api/v1/devices/guo1/lifecycle/{word}").as_str());
            let asked = asked.with_status(204).create_async().await;
            client(&server.url()).change_device("guo1", change).await.unwrap();
            asked.assert_async().await;
        }
    }
}
