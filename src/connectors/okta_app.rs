//! `okta.app.unassign_user`: taking an app away from a user.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;

use super::okta_params::{Name, parse};
use super::{ActionKind, Call, Connector, Effect, FromEvent, Service};
use crate::model::escape::Escape;
use crate::model::outcome::{Failure, Outcome, Reason, Receipt, Verdict};
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
    async fn perform(&self, call: &Call) -> Outcome {
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
