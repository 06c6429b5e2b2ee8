//! `okta.group.add_user` and `okta.group.remove_user`: membership in a group, which is how sign-in policies learn of a
//! quarantine.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::okta_params::{Name, parse, protected};
use super::{ActionKind, Call, Connector, Effect, FromEvent, Service, shape};
use crate::guard::Cleared;
use crate::model::escape::Escape;
use crate::model::outcome::{Failure, Outcome, Reason, Receipt, Verdict};
use crate::okta::groups::GroupRef;
use crate::okta::rights::Right;
use crate::okta::{OktaClient, OktaError, OktaErrorKind};

/// Puts a user into a group.
pub static ADD_USER: ActionKind = ActionKind {
    name: "okta.group.add_user",
    summary: "Puts a user into a group",
    service: Service::Okta,
    effect: Effect::SetLike,
    changes_access: true,
    resets_risk: false,
    rights: &[Right::ReadGroups, Right::ReadUsers, Right::ChangeMembers],
    from_event: &[("user", FromEvent::UserId)],
    check,
    schema: shape::<Params>,
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
    rights: &[Right::ReadGroups, Right::ReadUsers, Right::ChangeMembers],
    from_event: &[("user", FromEvent::UserId)],
    check,
    schema: shape::<Params>,
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
    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        self.0.perform(call).await
    }

    async fn verify(&self, call: &Call) -> Verdict {
        self.0.verify(call).await
    }
}

#[async_trait]
impl Connector for RemoveUser {
    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        self.0.perform(call).await
    }

    async fn verify(&self, call: &Call) -> Verdict {
        self.0.verify(call).await
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
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
    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        let Params { group, user } = match parse(&call.params) {
            Ok(params) => params,
            Err(error) => return Outcome::Permanent(Failure::new(Reason::BadParameters, error)),
        };
        let group = match self.okta.resolve_group(&group.0).await {
            Ok(group) => group,
            Err(error) => return error.to_outcome(),
        };
        // A name that is protected may have been written as an id, or the other way round.
        if let Some(why) = call.protects([group.name.as_str(), group.id.as_str()]) {
            return protected(why, &call.earlier);
        }
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

#[cfg(test)]
mod tests {
    use mockito::{Matcher, Server, ServerGuard};
    use serde_json::json;

    use super::*;
    use crate::model::ids::IdempotencyKey;
    use crate::okta::testing::{GROUP, TOKEN, USER, answers, client, error_body, group};

    fn call() -> Cleared<Call> {
        let params = json!({"group": "High Risk Users", "user": USER});
        Cleared::unguarded(Call {
            key: IdempotencyKey::derive("okta", "u", "p", "s"),
            params,
            attempt: 1,
            earlier: Receipt::default(),
        })
    }

    /// An org with the group, and the user in it or not; `None`: there is no such user.
    async fn org(member: Option<bool>) -> ServerGuard {
        let mut server = Server::new_async().await;
        let ours = group(GROUP, "High Risk Users", "OKTA_GROUP");
        answers(&mut server, "GET", "/api/v1/groups", 200, &json!([ours])).await;
        let path = format!("/api/v1/users/{USER}/groups");
        match member {
            Some(true) => answers(&mut server, "GET", &path, 200, &json!([ours])).await,
            Some(false) => answers(&mut server, "GET", &path, 200, &json!([group("00gx", "x", "BUILT_IN")])).await,
            None => answers(&mut server, "GET", &path, 404, &json!({"errorCode": "E0000007"})).await,
        };
        server
    }

    async fn perform(server: &ServerGuard, wanted: bool) -> Outcome {
        let okta = Arc::new(client(&server.url()));
        match wanted {
            true => AddUser::new(okta).perform(&call()).await,
            false => RemoveUser::new(okta).perform(&call()).await,
        }
    }

    async fn verify(server: &ServerGuard, wanted: bool) -> Verdict {
        let okta = Arc::new(client(&server.url()));
        match wanted {
            true => AddUser::new(okta).verify(&call()).await,
            false => RemoveUser::new(okta).verify(&call()).await,
        }
    }

    #[tokio::test]
    async fn membership_is_changed_only_when_it_is_not_as_wanted() {
        for (wanted, method) in [(true, "PUT"), (false, "DELETE")] {
            let path = format!("/api/v1/groups/{GROUP}/users/{USER}");
            let mut server = org(Some(!wanted)).await;
            let change = server.mock(method, path.as_str()).with_status(204).expect(1).create_async().await;
            let Outcome::Done(receipt) = perform(&server, wanted).await else { panic!("not done") };
            assert_eq!(receipt.url.unwrap(), format!("https://example-admin.okta.com/admin/group/{GROUP}"));
            change.assert_async().await;

            let mut server = org(Some(wanted)).await;
            let change = server.mock(method, Matcher::Any).expect(0).create_async().await;
            assert!(matches!(perform(&server, wanted).await, Outcome::AlreadyDone(_)));
            change.assert_async().await;
        }
    }

    #[tokio::test]
    async fn a_user_who_does_not_exist_is_in_no_group_and_cannot_be_put_into_one() {
        let server = org(None).await;
        assert!(matches!(perform(&server, false).await, Outcome::AlreadyDone(_)));
        let Outcome::Permanent(failure) = perform(&server, true).await else { panic!("not permanent") };
        assert_eq!(failure.reason, Reason::NotFound);
    }

    #[tokio::test]
    async fn a_change_without_an_outcome_is_unknown_and_settled_by_reading() {
        for wanted in [true, false] {
            let mut server = org(Some(!wanted)).await;
            server.mock("PUT", Matcher::Any).with_status(502).create_async().await;
            server.mock("DELETE", Matcher::Any).with_status(502).create_async().await;
            assert!(matches!(perform(&server, wanted).await, Outcome::Unknown(_)));
            assert_eq!(verify(&server, wanted).await, Verdict::NotDone);
            assert!(matches!(verify(&org(Some(wanted)).await, wanted).await, Verdict::Done(_)));
        }
    }

    #[tokio::test]
    async fn a_failed_read_changes_nothing_and_leaves_nothing_open() {
        let mut server = org(Some(false)).await;
        let path = format!("/api/v1/users/{USER}/groups");
        answers(&mut server, "GET", &path, 500, &json!({})).await;
        let change = server.mock("PUT", Matcher::Any).expect(0).create_async().await;
        assert!(matches!(perform(&server, true).await, Outcome::Transient(_)));
        assert!(matches!(verify(&server, true).await, Verdict::TryLater(_)));
        change.assert_async().await;
    }

    #[tokio::test]
    async fn a_group_that_went_away_in_between_is_looked_up_again() {
        let mut server = org(Some(false)).await;
        let body = error_body("E0000007", "Not found: Resource not found: x (UserGroup)");
        server.mock("PUT", Matcher::Any).with_status(404).with_body(body).create_async().await;
        let Outcome::Transient(failure) = perform(&server, true).await else { panic!("not transient") };
        assert_eq!(failure.reason, Reason::NotFound);
        assert!(!failure.to_string().contains(TOKEN));
    }

    #[tokio::test]
    async fn an_unknown_group_is_permanent() {
        let mut server = Server::new_async().await;
        answers(&mut server, "GET", "/api/v1/groups", 200, &json!([])).await;
        let Outcome::Permanent(failure) = perform(&server, true).await else { panic!("not permanent") };
        assert_eq!(failure.reason, Reason::NotFound);
        assert!(failure.detail.contains("High Risk Users"));
    }

    #[test]
    fn parameters_are_checked_and_both_actions_share_the_lane() {
        let good = json!({"group": "G", "user": "u"});
        assert_eq!((ADD_USER.lane)(&good), Some("okta.group/G/u".to_owned()));
        assert_eq!((ADD_USER.lane)(&good), (REMOVE_USER.lane)(&good));
        assert!((ADD_USER.check)(&json!({"group": "{{ x }}", "user": "{{ user.id }}"})).is_ok());
        for bad in [
            json!({"group": "G"}),
            json!({"group": " ", "user": "u"}),
            json!({"group": "G", "user": "me"}),
            json!({"group": "G", "user": 7}),
            json!({"group": "G", "user": "u", "extra": 1}),
            json!([]),
        ] {
            assert!((ADD_USER.check)(&bad).is_err() && (REMOVE_USER.check)(&bad).is_err(), "{bad}");
        }
    }
}
