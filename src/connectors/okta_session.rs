//! `okta.user.clear_sessions` and `okta.user.universal_logout`: ending every session of a user, in Okta or everywhere.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::okta_params::{Name, no_such_user, parse, parsed, user_receipt};
use super::{ActionKind, Call, Connector, Effect, FromEvent, Inverse, Service, shape};
use crate::guard::Cleared;
use crate::model::escape::Escape;
use crate::model::outcome::{Outcome, Verdict};
use crate::okta::OktaClient;
use crate::okta::rights::Right;

/// Ends every session of a user. Sessions that web and native apps keep themselves are not touched (Okta API reference,
/// "Revoke all user sessions").
pub static CLEAR_SESSIONS: ActionKind = ActionKind {
    name: "okta.user.clear_sessions",
    summary: "Ends every Okta session of a user",
    service: Service::Okta,
    effect: Effect::SetLike,
    changes_access: true,
    resets_risk: true,
    rights: &[Right::ReadUsers, Right::EndSessions],
    from_event: &[("user", FromEvent::UserId)],
    check: |params| parse::<Params>(params).map(drop),
    schema: shape::<Params>,
    escape: |_| Escape::Plain,
    lane: |params| Some(format!("okta.session/{}", parse::<Params>(params).ok()?.user.0)),
    inverse: |_| Inverse::impossible("sessions that ended do not come back; he signs in again"),
};

/// Revokes every session and token of a user, and logs him out of the apps that take part in Universal Logout: stronger than
/// [`CLEAR_SESSIONS`], and like it taken for something that lowers his risk.
pub static UNIVERSAL_LOGOUT: ActionKind = ActionKind {
    name: "okta.user.universal_logout",
    summary: "Logs a user out everywhere: all sessions and tokens, and the apps that take part",
    rights: &[Right::ReadUsers, Right::LogOut],
    check: |params| parse::<OnlyUser>(params).map(drop),
    schema: shape::<OnlyUser>,
    lane: |params| Some(format!("okta.session/{}", parse::<OnlyUser>(params).ok()?.user.0)),
    ..CLEAR_SESSIONS
};

/// Performs [`CLEAR_SESSIONS`].
#[derive(Debug)]
pub struct ClearSessions {
    okta: Arc<OktaClient>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Id or login.
    user: Name,
    /// Whether his OAuth tokens are revoked as well.
    #[serde(default)]
    oauth_tokens: bool,
    /// Whether remembered factors are forgotten. Okta Classic Engine wants `false`.
    #[serde(default = "yes")]
    forget_devices: bool,
}

/// Performs [`UNIVERSAL_LOGOUT`].
#[derive(Debug)]
pub struct UniversalLogout {
    okta: Arc<OktaClient>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OnlyUser {
    /// Id or login.
    user: Name,
}

fn yes() -> bool {
    true
}

#[async_trait]
impl Connector for ClearSessions {
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
        match self.okta.clear_sessions(&user, params.oauth_tokens, params.forget_devices).await {
            Ok(()) => Outcome::Done(user_receipt(&self.okta, &user, "every session is ended")),
            Err(error) => error.to_outcome(true),
        }
    }

    /// Okta does not list sessions, so nothing can be read back. Clearing them twice is the same as once, while a
    /// session left to an attacker is not: as soon as Okta answers, the request is to be sent again.
    async fn verify(&self, call: &Call) -> Verdict {
        let Ok(params) = parse::<Params>(&call.params) else { return Verdict::CannotTell };
        match self.okta.user(&params.user.0).await {
            Ok(_) => Verdict::NotDone,
            Err(error) => error.to_verdict(),
        }
    }
}

impl ClearSessions {
    /// On this org.
    pub fn new(okta: Arc<OktaClient>) -> Self {
        Self { okta }
    }
}

#[async_trait]
impl Connector for UniversalLogout {
    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        let OnlyUser { user: Name(name) } = match parsed(&call.params) {
            Ok(params) => params,
            Err(outcome) => return outcome,
        };
        let user = match self.okta.user_id(&name).await {
            Ok(Some(user)) => user,
            Ok(None) => return no_such_user(&name),
            Err(error) => return error.to_outcome(false),
        };
        match self.okta.log_out_everywhere(&user).await {
            Ok(()) => Outcome::Done(user_receipt(&self.okta, &user, "is logged out everywhere")),
            Err(error) => error.to_outcome(true),
        }
    }

    /// Like sessions, this cannot be read back, and is harmless to repeat.
    async fn verify(&self, call: &Call) -> Verdict {
        let Ok(params) = parse::<OnlyUser>(&call.params) else { return Verdict::CannotTell };
        match self.okta.user(&params.user.0).await {
            Ok(_) => Verdict::NotDone,
            Err(error) => error.to_verdict(),
        }
    }
}

impl UniversalLogout {
    /// On this org.
    pub fn new(okta: Arc<OktaClient>) -> Self {
        Self { okta }
    }
}

#[cfg(test)]
mod tests {
    use mockito::{Matcher, Server, ServerGuard};
    use serde_json::{Value, json};

    use super::*;
    use crate::model::ids::IdempotencyKey;
    use crate::model::outcome::{Failure, Reason, Receipt};
    use crate::okta::testing::{USER, answers, client};

    fn call(params: Value) -> Cleared<Call> {
        Cleared::unguarded(Call {
            key: IdempotencyKey::derive("okta", "u", "p", "s"),
            params,
            attempt: 1,
            earlier: Receipt::default(),
        })
    }

    fn connector(server: &ServerGuard) -> ClearSessions {
        ClearSessions::new(Arc::new(client(&server.url())))
    }

    /// Which query these parameters become.
    async fn check(params: Value, query: &str) {
        let mut server = Server::new_async().await;
        let path = format!("/api/v1/users/{USER}/sessions");
        let change = server.mock("DELETE", path.as_str()).match_query(query);
        let change = change.with_status(204).create_async().await;
        let Outcome::Done(receipt) = connector(&server).perform(&call(params)).await else { panic!("not done") };
        let page = format!("https://example-admin.okta.com/admin/user/profile/view/{USER}");
        assert_eq!(receipt.url, Some(page));
        change.assert_async().await;
    }

    #[tokio::test]
    async fn sessions_are_cleared_as_the_parameters_say() {
        check(json!({"user": USER}), "oauthTokens=false&forgetDevices=true").await;
        let all = json!({"user": USER, "oauth_tokens": true, "forget_devices": false});
        check(all, "oauthTokens=true&forgetDevices=false").await;
    }

    #[tokio::test]
    async fn a_user_who_does_not_exist_is_permanent() {
        let mut server = Server::new_async().await;
        answers(&mut server, "DELETE", &format!("/api/v1/users/{USER}/sessions"), 404, &json!({})).await;
        let outcome = connector(&server).perform(&call(json!({"user": USER}))).await;
        assert!(matches!(outcome, Outcome::Permanent(Failure { reason: Reason::NotFound, .. })), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_doubt_is_sent_again_as_soon_as_okta_answers() {
        let mut server = Server::new_async().await;
        server.mock("DELETE", Matcher::Any).with_status(500).create_async().await;
        let doubt = call(json!({"user": USER}));
        assert!(matches!(connector(&server).perform(&doubt).await, Outcome::Unknown(_)));
        answers(&mut server, "GET", &format!("/api/v1/users/{USER}"), 503, &json!({})).await;
        assert!(matches!(connector(&server).verify(&doubt).await, Verdict::TryLater(_)));
        answers(&mut server, "GET", &format!("/api/v1/users/{USER}"), 200, &json!({"id": USER})).await;
        assert_eq!(connector(&server).verify(&doubt).await, Verdict::NotDone);
    }

    #[tokio::test]
    async fn a_user_is_logged_out_everywhere_and_a_doubt_about_it_is_sent_again() {
        let mut server = Server::new_async().await;
        let path = "/oauth2/v1/global-token-revocation";
        let body = json!({"sub_id": {"format": "opaque", "id": USER}});
        let asked = server.mock("POST", path).match_body(Matcher::Json(body)).with_status(204).create_async().await;
        let logout = UniversalLogout::new(Arc::new(client(&server.url())));
        assert!(matches!(logout.perform(&call(json!({"user": USER}))).await, Outcome::Done(_)));
        asked.assert_async().await;
        answers(&mut server, "GET", &format!("/api/v1/users/{USER}"), 200, &json!({"id": USER})).await;
        assert_eq!(logout.verify(&call(json!({"user": USER}))).await, Verdict::NotDone);
        let both = [(UNIVERSAL_LOGOUT.lane)(&json!({"user": "u"})), (CLEAR_SESSIONS.lane)(&json!({"user": "u"}))];
        assert!(both.iter().all(|lane| lane.as_deref() == Some("okta.session/u")) && UNIVERSAL_LOGOUT.resets_risk);
        assert!((UNIVERSAL_LOGOUT.check)(&json!({"user": "u", "oauth_tokens": true})).is_err());
    }

    #[test]
    fn parameters_are_checked() {
        assert!((CLEAR_SESSIONS.check)(&json!({"user": "{{ user.id }}"})).is_ok());
        assert_eq!((CLEAR_SESSIONS.lane)(&json!({"user": "u"})), Some("okta.session/u".to_owned()));
        for bad in [
            json!({}),
            json!({"user": "me"}),
            json!({"user": "u", "oauth_tokens": "yes"}),
            json!({"user": "u", "x": 1}),
        ] {
            assert!((CLEAR_SESSIONS.check)(&bad).is_err(), "{bad}");
        }
    }
}
