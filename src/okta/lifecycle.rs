//! What is done to a user as a whole: his status, his password and factors, his risk, all his sessions and tokens at once.

use reqwest::Method;
use serde_json::json;

use super::client::OktaClient;
use super::error::OktaError;
use super::path::ApiPath;

/// A change of a user's state (Okta API reference, "User lifecycles"). None of them ends his sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// He cannot sign in; groups and apps stay.
    Suspend,
    /// The way back.
    Unsuspend,
    /// He is gone for good as far as apps go: assignments are lost, and with provisioning his accounts there are closed.
    Deactivate,
    /// He has to choose a new password at the next sign-in.
    ExpirePassword,
    /// All his second factors are forgotten; the next sign-in enrols new ones.
    ResetFactors,
}

impl Lifecycle {
    fn word(self) -> &'static str {
        match self {
            Self::Suspend => "suspend",
            Self::Unsuspend => "unsuspend",
            Self::Deactivate => "deactivate",
            Self::ExpirePassword => "expire_password",
            Self::ResetFactors => "reset_factors",
        }
    }
}

impl OktaClient {
    /// Changes a user's state. Okta mails nobody about it.
    pub async fn change_user(&self, id: &str, change: Lifecycle) -> Result<(), OktaError> {
        let path = ApiPath::new(["api", "v1", "users", id, "lifecycle", change.word()])?;
        let no_mail: &[(&str, &str)] = if change == Lifecycle::Deactivate { &[("sendEmail", "false")] } else { &[] };
        self.send(Method::POST, &path, no_mail, None).await.map(drop)
    }

    /// Sets the risk of a user: `HIGH`, `MEDIUM` or `LOW`. Okta takes letters, digits, white space, `-`, `,` and `.` in a
    /// reason, at most 500 of them (Okta API reference, "Upsert the user's risk"). Needs Identity Threat Protection.
    pub async fn set_user_risk(&self, id: &str, level: &str, reason: Option<&str>) -> Result<(), OktaError> {
        let mut body = json!({"riskLevel": level});
        if let (Some(reason), Some(body)) = (reason, body.as_object_mut()) {
            body.insert("riskReason".to_owned(), reason.into());
        }
        let path = ApiPath::new(["api", "v1", "users", id, "risk"])?;
        self.send(Method::PUT, &path, &[], Some(&body)).await.map(drop)
    }

    /// Universal Logout: revokes all sessions and tokens of a user, also in the apps that take part in it (Okta API
    /// reference, "Revoke all tokens and sessions of a user").
    pub async fn log_out_everywhere(&self, id: &str) -> Result<(), OktaError> {
        let path = ApiPath::new(["oauth2", "v1", "global-token-revocation"])?;
        let body = json!({"sub_id": {"format": "opaque", "id": id}});
        self.send(Method::POST, &path, &[], Some(&body)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use mockito::{Matcher, Server};

    use super::*;
    use crate::okta::testing::{USER, client};

    #[tokio::test]
    async fn each_change_has_its_place_and_nobody_is_mailed() {
        for (change, path, query) in [
            (Lifecycle::Suspend, "suspend", ""),
            (Lifecycle::Unsuspend, "unsuspend", ""),
            (Lifecycle::Deactivate, "deactivate", "sendEmail=false"),
            (Lifecycle::ExpirePassword, "expire_password", ""),
            (Lifecycle::ResetFactors, "reset_factors", ""),
        ] {
            let mut server = Server::new_async().await;
            let path = format!("/api/v1/users/{USER}/lifecycle/{path}");
            let query = if query.is_empty() { Matcher::Missing } else { Matcher::Exact(query.to_owned()) };
            let asked = server.mock("POST", path.as_str()).match_query(query).with_body("{}").create_async().await;
            client(&server.url()).change_user(USER, change).await.unwrap();
            asked.assert_async().await;
        }
    }

    #[tokio::test]
    async fn risk_and_universal_logout_are_asked_for_in_okta_s_words() {
        let mut server = Server::new_async().await;
        let risk = server.mock("PUT", format!("/api/v1/users/{USER}/risk").as_str()).with_status(201);
        let risk = risk.match_body(Matcher::Json(json!({"riskLevel": "HIGH", "riskReason": "stolen laptop"})));
        let risk = risk.create_async().await;
        let logout = server.mock("POST", "/oauth2/v1/global-token-revocation").with_status(204);
        let logout = logout.match_body(Matcher::Json(json!({"sub_id": {"format": "opaque", "id": USER}})));
        let logout = logout.create_async().await;
        let okta = client(&server.url());
        okta.set_user_risk(USER, "HIGH", Some("stolen laptop")).await.unwrap();
        okta.log_out_everywhere(USER).await.unwrap();
        risk.assert_async().await;
        logout.assert_async().await;
    }
}
