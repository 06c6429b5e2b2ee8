//! `okta.group.add_user` and `okta.group.remove_user`: membership in a group, which is how sign-in policies learn of a
//! quarantine.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;

use super::okta_params::{Name, parse};
use super::{ActionKind, Call, Connector, Effect, FromEvent, Service};
use crate::model::escape::Escape;
use crate::model::outcome::{Failure, Outcome, Reason, Receipt, Verdict};
use crate::okta::groups::GroupRef;
use crate::okta::{OktaClient, OktaError, OktaErrorKind};

/// Puts a user into a group.
pub static ADD_USER: ActionKind = ActionKind {
    name: "okta.group.add_user",
    summary: "Puts a user into a group",
    service: Service::Okta,
    effect: Effect::SetLike,
    changes_access: true,
    resets_risk: false,
    from_event: &[("user", FromEvent::UserId)],
    check,
    escape: |_| Escape::Plain,
    lane,
};

/// Takes a user out of a group. If a group rule put him there, Okta adds him to the rule's exclusions, which an
/// administrator has to undo by hand.
pub static REMOVE_USER: ActionKind = ActionKind {
    name: "okta.group.remove_user",
    summary: "Takes a user out of a group",
    service: Service::Okta,
    effect: Effect::SetLike,
    changes_access: true,
    resets_risk: false,
    from_event: &[("user", FromEvent::UserId)],
    check,
    escape: |_| Escape::Plain,
    lane,
};

/// Performs [`ADD_USER`].
#[derive(Debug)]
pub struct AddUser(Membership);

impl AddUser {
    /// On this org.
    pub fn new(okta: Arc<OktaClient>) -> Self {
        Self(Membership { okta, wanted: true })
    }
}

/// Performs [`REMOVE_USER`].
#[derive(Debug)]
pub struct RemoveUser(Membership);

impl RemoveUser {
    /// On this org.
    pub fn new(okta: Arc<OktaClient>) -> Self {
        Self(Membership { okta, wanted: false })
    }
}

#[async_trait]
impl Connector for AddUser {
    async fn perform(&self, call: &Call) -> Outcome {
        self.0.perform(call).await
    }

    async fn verify(&self, call: &Call) -> Verdict {
        self.0.verify(call).await
    }
}

#[async_trait]
impl Connector for RemoveUser {
    async fn perform(&self, call: &Call) -> Outcome {
        self.0.perform(call).await
    }

    async fn verify(&self, call: &Call) -> Verdict {
        self.0.verify(call).await
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Name or id.
    group: Name,
    /// Id or login.
    user: Name,
}

fn check(params: &Value) -> Result<(), String> {
    parse::<Params>(params).map(drop)
}

/// The same for both actions: what adds and what removes the same user keeps its order.
fn lane(params: &Value) -> Option<String> {
    let Params { group, user } = parse(params).ok()?;
    Some(format!("okta.group/{}/{}", group.0, user.0))
}

/// Where a user stands towards a group.
enum Standing {
    Member(String),
    NotMember(String),
    NoSuchUser,
}

#[derive(Debug)]
struct Membership {
    okta: Arc<OktaClient>,
    wanted: bool,
}

impl Membership {
    async fn perform(&self, call: &Call) -> Outcome {
        let Params { group, user } = match parse(&call.params) {
            Ok(params) => params,
            Err(error) => return Outcome::Permanent(Failure::new(Reason::BadParameters, error)),
        };
        let group = match self.okta.resolve_group(&group.0).await {
            Ok(group) => group,
            Err(error) => return error.to_outcome(),
        };
        let id = match (self.standing(&group, &user.0).await, self.wanted) {
            (Ok(Standing::NotMember(id)), true) | (Ok(Standing::Member(id)), false) => id,
            (Ok(Standing::Member(_)), true) => {
                return Outcome::AlreadyDone(self.receipt(&group, "was a member already"));
            }
            (Ok(Standing::NotMember(_)), false) => {
                return Outcome::AlreadyDone(self.receipt(&group, "was not a member"));
            }
            (Ok(Standing::NoSuchUser), false) => {
                return Outcome::AlreadyDone(self.receipt(&group, "there is no such user"));
            }
            (Ok(Standing::NoSuchUser), true) => {
                return Outcome::Permanent(Failure::new(
                    Reason::NotFound,
                    format!("there is no user `{}` in Okta", user.0),
                ));
            }
            (Err(error), _) => return error.to_outcome(false),
        };
        let result = match self.wanted {
            true => self.okta.add_member(&group.id, &id).await,
            false => self.okta.remove_member(&group.id, &id).await,
        };
        match result {
            Ok(()) if self.wanted => Outcome::Done(self.receipt(&group, "is a member now")),
            Ok(()) => Outcome::Done(self.receipt(&group, "is no longer a member")),
            // The user was there a moment ago, so the remembered group is gone; the next attempt looks its name up anew.
            Err(error) if error.kind == OktaErrorKind::NotFound => Outcome::Transient(error.to_failure()),
            Err(error) => error.to_outcome(true),
        }
    }

    async fn verify(&self, call: &Call) -> Verdict {
        let Ok(Params { group, user }) = parse(&call.params) else { return Verdict::CannotTell };
        let group = match self.okta.resolve_group(&group.0).await {
            Ok(group) => group,
            Err(error) => return error.to_verdict(),
        };
        match (self.standing(&group, &user.0).await, self.wanted) {
            (Ok(Standing::Member(_)), true) => Verdict::Done(self.receipt(&group, "is a member")),
            (Ok(Standing::NotMember(_) | Standing::NoSuchUser), false) => {
                Verdict::Done(self.receipt(&group, "is not a member"))
            }
            (Ok(_), _) => Verdict::NotDone,
            (Err(error), _) => error.to_verdict(),
        }
    }

    async fn standing(&self, group: &GroupRef, user: &str) -> Result<Standing, OktaError> {
        let Some(id) = self.okta.user_id(user).await? else { return Ok(Standing::NoSuchUser) };
        match self.okta.is_member(&group.id, &id).await {
            Ok(true) => Ok(Standing::Member(id)),
            Ok(false) => Ok(Standing::NotMember(id)),
            Err(error) if error.kind == OktaErrorKind::NotFound => Ok(Standing::NoSuchUser),
            Err(error) => Err(error),
        }
    }

    fn receipt(&self, group: &GroupRef, note: &str) -> Receipt {
        Receipt {
            id: Some(group.id.clone()),
            url: self.okta.admin_link(["admin", "group", &group.id]),
            ..Receipt::note(note)
        }
    }
}
