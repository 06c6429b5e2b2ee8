//! `okta.app.assign_user`: giving an app to a user in person, which is the way back from `okta.app.unassign_user`.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::okta_params::{Name, no_such_user, parse, parsed};
use super::{ActionKind, Call, Connector, Effect, FromEvent, Service, okta_app, shape};
use crate::guard::Cleared;
use crate::model::escape::Escape;
use crate::model::outcome::{Failure, Outcome, Reason, Receipt, Verdict};
use crate::okta::OktaClient;
use crate::okta::rights::Right;

/// Gives an app to a user in person. Who has it through a group has it already: Okta cannot turn the one into the other.
pub static ASSIGN_USER: ActionKind = ActionKind {
    name: "okta.app.assign_user",
    summary: "Gives an app to a user",
    service: Service::Okta,
    effect: Effect::SetLike,
    changes_access: true,
    resets_risk: false,
    rights: &[Right::ReadApps, Right::ReadUsers, Right::ChangeAssignments],
    from_event: &[("app", FromEvent::AppId), ("user", FromEvent::UserId)],
    check: |params| parse::<Params>(params).map(drop),
    schema: shape::<Params>,
    escape: |_| Escape::Plain,
    lane: |params| {
        let Params { app, user, .. } = parse(params).ok()?;
        Some(okta_app::lane(&app, &user))
    },
    inverse: |deed| deed.remedy(okta_app::UNASSIGN_USER.name, json!({"app": deed.text("app")})).into(),
};

/// Performs [`ASSIGN_USER`].
#[derive(Debug)]
pub struct AssignUser {
    okta: Arc<OktaClient>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Id.
    app: Name,
    /// Id or login.
    user: Name,
    /// His name in the app; what the app makes of his profile when it is left out.
    #[serde(default)]
    user_name: Option<Name>,
}

#[async_trait]
impl Connector for AssignUser {
    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        let params: Params = match parsed(&call.params) {
            Ok(params) => params,
            Err(outcome) => return outcome,
        };
        let user = match self.okta.user_id(&params.user.0).await {
            Ok(Some(user)) => user,
            Ok(None) => return no_such_user(&params.user.0),
            Err(error) => return error.to_outcome(false),
        };
        match self.okta.app_user(&params.app.0, &user).await {
            Ok(Some(assigned)) if assigned.scope == "GROUP" => {
                return Outcome::AlreadyDone(self.receipt(&params, &user, "a group grants it"));
            }
            Ok(Some(_)) => return Outcome::AlreadyDone(self.receipt(&params, &user, "is assigned already")),
            Ok(None) => {}
            Err(error) => return error.to_outcome(false),
        }
        match self.okta.app(&params.app.0).await {
            Ok(Some(_)) => {}
            Ok(None) => {
                let why = format!("there is no app `{}` in Okta", params.app.0);
                return Outcome::Permanent(Failure::new(Reason::NotFound, why));
            }
            Err(error) => return error.to_outcome(false),
        }
        let name = params.user_name.as_ref().map(|name| name.0.as_str());
        match self.okta.assign(&params.app.0, &user, name).await {
            Ok(()) => Outcome::Done(self.receipt(&params, &user, "is assigned now")),
            Err(error) => error.to_outcome(true),
        }
    }

    async fn verify(&self, call: &Call) -> Verdict {
        let Ok(params) = parse::<Params>(&call.params) else { return Verdict::CannotTell };
        let user = match self.okta.user_id(&params.user.0).await {
            Ok(Some(user)) => user,
            Ok(None) => return Verdict::NotDone,
            Err(error) => return error.to_verdict(),
        };
        match self.okta.app_user(&params.app.0, &user).await {
            Ok(Some(_)) => Verdict::Done(self.receipt(&params, &user, "is assigned")),
            Ok(None) => Verdict::NotDone,
            Err(error) => error.to_verdict(),
        }
    }
}

impl AssignUser {
    /// On this org.
    pub fn new(okta: Arc<OktaClient>) -> Self {
        Self { okta }
    }

    fn receipt(&self, params: &Params, user: &str, note: &str) -> Receipt {
        Receipt {
            id: Some(params.app.0.clone()),
            url: self.okta.admin_link(["admin", "user", "profile", "view", user]),
            ..Receipt::note(note)
        }
    }
}

#[cfg(test)]
mod tests {
    use mockito::{Matcher, Server, ServerGuard};
    use serde_json::{Value, json};

    use super::*;
    use crate::model::ids::IdempotencyKey;
    use crate::okta::testing::{APP, USER, answers, client};

    fn call(more: Value) -> Cleared<Call> {
        let mut params = json!({"app": APP, "user": USER});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let key = IdempotencyKey::derive("okta", "u", "p", "s");
        Cleared::unguarded(Call { key, params, attempt: 1, earlier: Receipt::default() })
    }

    /// An org in which the app is assigned with this scope, or not.
    async fn org(scope: Option<&str>) -> ServerGuard {
        let mut server = Server::new_async().await;
        let path = format!("/api/v1/apps/{APP}/users/{USER}");
        let (status, body) = match scope {
            Some(scope) => (200, json!({"id": USER, "scope": scope, "status": "ACTIVE"})),
            None => {
                (404, json!({"errorCode": "E0000007", "errorSummary": "Not found: Resource not found: x (AppUser)"}))
            }
        };
        answers(&mut server, "GET", &path, status, &body).await;
        answers(&mut server, "GET", &format!("/api/v1/apps/{APP}"), 200, &json!({"label": "Payroll"})).await;
        server
    }

    fn connector(server: &ServerGuard) -> AssignUser {
        AssignUser::new(Arc::new(client(&server.url())))
    }

    #[tokio::test]
    async fn an_app_is_given_with_the_name_that_is_asked_for_and_without_one_otherwise() {
        let mut server = org(None).await;
        for (more, sent) in [
            (json!({}), json!({"id": USER, "scope": "USER"})),
            (json!({"user_name": "ann.m"}), json!({"id": USER, "scope": "USER", "credentials": {"userName": "ann.m"}})),
        ] {
            let change = server.mock("POST", format!("/api/v1/apps/{APP}/users").as_str());
            let change = change.match_body(Matcher::Json(sent)).with_status(200).with_body("{}").create_async().await;
            assert!(matches!(connector(&server).perform(&call(more)).await, Outcome::Done(_)));
            change.assert_async().await;
            change.remove_async().await;
        }
    }

    #[tokio::test]
    async fn who_has_the_app_in_either_way_is_left_alone() {
        for scope in ["USER", "GROUP"] {
            let mut server = org(Some(scope)).await;
            let change = server.mock("POST", Matcher::Any).expect(0).create_async().await;
            assert!(matches!(connector(&server).perform(&call(json!({}))).await, Outcome::AlreadyDone(_)), "{scope}");
            change.assert_async().await;
            assert!(matches!(connector(&server).verify(&call(json!({}))).await, Verdict::Done(_)), "{scope}");
        }
        assert_eq!(connector(&org(None).await).verify(&call(json!({}))).await, Verdict::NotDone);
    }

    #[tokio::test]
    async fn an_app_that_there_is_not_is_given_to_nobody() {
        let mut server = org(None).await;
        answers(&mut server, "GET", &format!("/api/v1/apps/{APP}"), 404, &json!({"errorCode": "E0000007"})).await;
        let change = server.mock("POST", Matcher::Any).expect(0).create_async().await;
        assert!(matches!(connector(&server).perform(&call(json!({}))).await, Outcome::Permanent(_)));
        change.assert_async().await;
    }

    #[tokio::test]
    async fn what_okta_refuses_is_not_tried_again() {
        let mut server = org(None).await;
        let refused = json!({"errorCode": "E0000001", "errorSummary": "Credentials should not be set on this resource based on the scheme."});
        answers(&mut server, "POST", &format!("/api/v1/apps/{APP}/users"), 400, &refused).await;
        let Outcome::Permanent(failure) = connector(&server).perform(&call(json!({"user_name": "a"}))).await else {
            panic!("not refused")
        };
        assert!(failure.detail.contains("Credentials should not be set"), "{failure}");
    }
}
