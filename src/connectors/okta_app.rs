//! `okta.app.unassign_user`: taking an app away from a user.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;

use super::okta_params::{Name, parse};
use super::{ActionKind, Call, Connector, Effect, FromEvent, Service};
use crate::guard::Cleared;
use crate::model::escape::Escape;
use crate::model::outcome::{Failure, Outcome, Reason, Receipt, Verdict};
use crate::okta::rights::Right;
use crate::okta::{OktaClient, OktaError, OktaErrorKind};

/// Takes an app away from a user. His profile in the app is lost, and with provisioning his account there is
/// deactivated; what a group grants cannot be taken away like this.
pub static UNASSIGN_USER: ActionKind = ActionKind {
    name: "okta.app.unassign_user",
    summary: "Takes an app away from a user",
    service: Service::Okta,
    effect: Effect::SetLike,
    changes_access: true,
    resets_risk: false,
    rights: &[Right::ReadApps, Right::ReadUsers, Right::ChangeAssignments],
    from_event: &[("app", FromEvent::AppId), ("user", FromEvent::UserId)],
    check: |params| parse::<Params>(params).map(drop),
    escape: |_| Escape::Plain,
    lane: |params| {
        let Params { app, user, .. } = parse(params).ok()?;
        Some(format!("okta.app/{}/{}", app.0, user.0))
    },
};

/// Performs [`UNASSIGN_USER`].
#[derive(Debug)]
pub struct UnassignUser {
    okta: Arc<OktaClient>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Id.
    app: Name,
    /// Id or login.
    user: Name,
    /// Whether Okta mails the administrators.
    #[serde(default)]
    send_email: bool,
}

#[async_trait]
impl Connector for UnassignUser {
    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        let params: Params = match parse(&call.params) {
            Ok(params) => params,
            Err(error) => return Outcome::Permanent(Failure::new(Reason::BadParameters, error)),
        };
        let app = &params.app.0;
        let user = match self.assigned(&params).await {
            Ok(Some(user)) => user,
            Ok(None) => return Outcome::AlreadyDone(self.receipt(&params, "was not assigned")),
            Err(error) => return error.to_outcome(false),
        };
        match self.okta.unassign(app, &user, params.send_email).await {
            Ok(()) => Outcome::Done(self.receipt(&params, "is no longer assigned")),
            Err(error) if error.kind == OktaErrorKind::NotFound => {
                Outcome::AlreadyDone(self.receipt(&params, "was not assigned any more"))
            }
            Err(error) if error.kind == OktaErrorKind::GrantedByGroup => {
                Outcome::Permanent(self.granted_by_group(app, &user).await)
            }
            Err(error) => error.to_outcome(true),
        }
    }

    async fn verify(&self, call: &Call) -> Verdict {
        let Ok(params) = parse::<Params>(&call.params) else { return Verdict::CannotTell };
        match self.assigned(&params).await {
            Ok(Some(_)) => Verdict::NotDone,
            Ok(None) => Verdict::Done(self.receipt(&params, "is not assigned")),
            Err(error) => error.to_verdict(),
        }
    }
}

impl UnassignUser {
    /// On this org.
    pub fn new(okta: Arc<OktaClient>) -> Self {
        Self { okta }
    }

    /// The id of the user, if the app is assigned to him.
    async fn assigned(&self, params: &Params) -> Result<Option<String>, OktaError> {
        let Some(user) = self.okta.user_id(&params.user.0).await? else { return Ok(None) };
        Ok(self.okta.app_user(&params.app.0, &user).await?.map(|_| user))
    }

    /// Names the groups that grant the app, as far as they can be read: they are what has to change.
    async fn granted_by_group(&self, app: &str, user: &str) -> Failure {
        let granting = match (self.okta.user_groups(user).await, self.okta.app_groups(app).await) {
            (Ok(mut of_user), Ok(of_app)) => {
                of_user.retain(|group| of_app.contains(&group.id));
                of_user.iter().take(5).map(|group| format!("`{}` ({})", group.name, group.id)).collect::<Vec<_>>()
            }
            _ => Vec::new(),
        };
        let groups = if granting.is_empty() { "which could not be read".to_owned() } else { granting.join(", ") };
        let detail = format!(
            "app {app} cannot be taken away from user {user} while a group grants it: {groups}; \
             take the user out of it with okta.group.remove_user, or deny the app by policy"
        );
        Failure::new(Reason::GrantedByGroup, detail)
    }

    /// An app's own page needs a name that is not at hand; the user's page lists his apps.
    fn receipt(&self, params: &Params, note: &str) -> Receipt {
        Receipt {
            id: Some(params.app.0.clone()),
            url: self.okta.admin_link(["admin", "user", "profile", "view", &params.user.0]),
            ..Receipt::note(note)
        }
    }
}

#[cfg(test)]
mod tests {
    use mockito::{Matcher, Server, ServerGuard};
    use serde_json::json;

    use super::*;
    use crate::model::ids::IdempotencyKey;
    use crate::okta::testing::{APP, USER, answers, client, error_body, group};

    fn call() -> Cleared<Call> {
        let params = json!({"app": APP, "user": USER});
        Cleared::unguarded(Call { key: IdempotencyKey::derive("okta", "u", "p", "s"), params, attempt: 1, earlier: Receipt::default() })
    }

    fn assignment() -> String {
        format!("/api/v1/apps/{APP}/users/{USER}")
    }

    async fn org(assigned: bool) -> ServerGuard {
        let mut server = Server::new_async().await;
        let (status, body) = match assigned {
            true => (200, json!({"id": USER, "scope": "USER", "status": "ACTIVE"})),
            false => {
                (404, json!({"errorCode": "E0000007", "errorSummary": "Not found: Resource not found: x (AppUser)"}))
            }
        };
        answers(&mut server, "GET", &assignment(), status, &body).await;
        server
    }

    fn connector(server: &ServerGuard) -> UnassignUser {
        UnassignUser::new(Arc::new(client(&server.url())))
    }

    #[tokio::test]
    async fn an_assignment_is_taken_away_without_mail() {
        let mut server = org(true).await;
        let change = server.mock("DELETE", assignment().as_str()).match_query("sendEmail=false");
        let change = change.with_status(204).create_async().await;
        let Outcome::Done(receipt) = connector(&server).perform(&call()).await else { panic!("not done") };
        assert_eq!(receipt.id.as_deref(), Some(APP));
        change.assert_async().await;
    }

    #[tokio::test]
    async fn what_is_not_assigned_is_done_already() {
        let mut server = org(false).await;
        let change = server.mock("DELETE", Matcher::Any).expect(0).create_async().await;
        assert!(matches!(connector(&server).perform(&call()).await, Outcome::AlreadyDone(_)));
        change.assert_async().await;

        let mut server = org(true).await;
        server.mock("DELETE", Matcher::Any).with_status(404).create_async().await;
        assert!(matches!(connector(&server).perform(&call()).await, Outcome::AlreadyDone(_)));
    }

    #[tokio::test]
    async fn groups_that_grant_the_app_are_named() {
        let mut server = org(true).await;
        let body = error_body("E0000046", "Deactivate application for user forbidden.");
        server.mock("DELETE", Matcher::Any).with_status(403).with_body(body).create_async().await;
        let unread = connector(&server).perform(&call()).await;
        let Outcome::Permanent(failure) = unread else { panic!("not permanent") };
        assert!(failure.detail.contains("could not be read"), "{failure}");

        let groups = json!([group("00ga", "Staff", "OKTA_GROUP"), group("00gb", "Finance", "OKTA_GROUP")]);
        answers(&mut server, "GET", &format!("/api/v1/users/{USER}/groups"), 200, &groups).await;
        let grants = json!([{"id": "00gb", "priority": 0}, {"id": "00gc"}]);
        answers(&mut server, "GET", &format!("/api/v1/apps/{APP}/groups"), 200, &grants).await;
        let Outcome::Permanent(failure) = connector(&server).perform(&call()).await else { panic!("not permanent") };
        assert_eq!(failure.reason, Reason::GrantedByGroup);
        assert!(failure.detail.contains("`Finance` (00gb)") && !failure.detail.contains("Staff"), "{failure}");
    }

    #[tokio::test]
    async fn a_doubt_is_settled_by_reading() {
        let mut server = org(true).await;
        server.mock("DELETE", Matcher::Any).with_status(504).create_async().await;
        assert!(matches!(connector(&server).perform(&call()).await, Outcome::Unknown(_)));
        assert_eq!(connector(&server).verify(&call()).await, Verdict::NotDone);
        assert!(matches!(connector(&org(false).await).verify(&call()).await, Verdict::Done(_)));
        let mut forbidden = Server::new_async().await;
        forbidden.mock("GET", Matcher::Any).with_status(403).create_async().await;
        assert_eq!(connector(&forbidden).verify(&call()).await, Verdict::CannotTell);
    }

    #[test]
    fn parameters_are_checked() {
        assert!((UNASSIGN_USER.check)(&call().params).is_ok());
        assert_eq!((UNASSIGN_USER.lane)(&call().params), Some(format!("okta.app/{APP}/{USER}")));
        for bad in
            [json!({"app": "", "user": "u"}), json!({"app": "a"}), json!({"app": "a", "user": "u", "mail": true})]
        {
            assert!((UNASSIGN_USER.check)(&bad).is_err(), "{bad}");
        }
    }
}
