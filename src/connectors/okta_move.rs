//! `okta.group.move_user`: out of one group, into another, so that he is never in neither.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::okta_params::{Name, named, no_such_user, parse, parsed, protected, user_receipt};
use super::{ActionKind, Call, Connector, Effect, FromEvent, Service, shape};
use crate::guard::Cleared;
use crate::model::escape::Escape;
use crate::model::outcome::{Outcome, Verdict};
use crate::okta::groups::{GroupError, GroupRef};
use crate::okta::rights::Right;
use crate::okta::{OktaClient, OktaError, OktaErrorKind};

/// Moves a user from one group into another. He is put into the second first and taken out of the first then, each with a
/// request of its own: whatever comes in between, he is in both, and never in neither.
pub static MOVE_USER: ActionKind = ActionKind {
    name: "okta.group.move_user",
    summary: "Moves a user from one group into another",
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

/// Performs [`MOVE_USER`].
#[derive(Debug)]
pub struct MoveUser {
    okta: Arc<OktaClient>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Name or id of the group that he leaves.
    from: Name,
    /// Name or id of the group that he comes into.
    to: Name,
    /// Id or login.
    user: Name,
}

fn check(params: &Value) -> Result<(), String> {
    let Params { from, to, .. } = parse(params)?;
    if from.0 == to.0 { Err(format!("`from` and `to` are both `{}`", super::cut(&from.0, 100))) } else { Ok(()) }
}

/// The same for the way back, so that the two keep their order.
fn lane(params: &Value) -> Option<String> {
    let Params { from, to, user } = parse(params).ok()?;
    let (first, second) = if from.0 < to.0 { (from.0, to.0) } else { (to.0, from.0) };
    Some(format!("okta.group.move/{first}/{second}/{}", user.0))
}

/// The groups, and where the user stands between them.
struct Standing {
    from: GroupRef,
    to: GroupRef,
    user: String,
    in_from: bool,
    in_to: bool,
}

/// Why it cannot be told.
enum Unclear {
    Group(GroupError),
    Okta(OktaError),
    NoSuchUser,
}

#[async_trait]
impl Connector for MoveUser {
    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        let params: Params = match parsed(&call.params) {
            Ok(params) => params,
            Err(outcome) => return outcome,
        };
        let Standing { from, to, user, in_from, in_to } = match self.standing(&params).await {
            Ok(standing) => standing,
            Err(Unclear::Group(error)) => return error.to_outcome(),
            Err(Unclear::Okta(error)) => return error.to_outcome(false),
            Err(Unclear::NoSuchUser) => return no_such_user(&params.user.0),
        };
        for group in [&from, &to] {
            if let Some(why) = call.protects([group.name.as_str(), group.id.as_str()]) {
                return protected(why, &call.earlier);
            }
        }
        let (from_name, to_name) = (named(&from.name, &from.id), named(&to.name, &to.id));
        let receipt = |note: String| user_receipt(&self.okta, &user, note);
        let (result, done) = match (in_to, in_from) {
            (true, false) => return Outcome::AlreadyDone(receipt(format!("was in {to_name} and not in {from_name}"))),
            (false, true) => (
                self.okta.add_member(&to.id, &user).await,
                Outcome::Progress(receipt(format!("is in {to_name} now; leaving {from_name} follows"))),
            ),
            (false, false) => {
                (self.okta.add_member(&to.id, &user).await, Outcome::Done(receipt(format!("is in {to_name} now"))))
            }
            (true, true) => (
                self.okta.remove_member(&from.id, &user).await,
                Outcome::Done(receipt(format!("is in {to_name}, and no longer in {from_name}"))),
            ),
        };
        match result {
            Ok(()) => done,
            // A remembered group is gone; the next attempt looks its name up anew.
            Err(error) if error.kind == OktaErrorKind::NotFound => Outcome::Transient(error.to_failure()),
            Err(error) => error.to_outcome(true),
        }
    }

    async fn verify(&self, call: &Call) -> Verdict {
        let Ok(params) = parse::<Params>(&call.params) else { return Verdict::CannotTell };
        match self.standing(&params).await {
            Ok(Standing { in_to: true, in_from: false, user, .. }) => {
                Verdict::Done(user_receipt(&self.okta, &user, "is in the one group and not in the other"))
            }
            // In neither, in both, or still in the first one: the next attempt does what is missing.
            Ok(_) | Err(Unclear::NoSuchUser) => Verdict::NotDone,
            Err(Unclear::Group(error)) => error.to_verdict(),
            Err(Unclear::Okta(error)) => error.to_verdict(),
        }
    }
}

impl MoveUser {
    /// On this org.
    pub fn new(okta: Arc<OktaClient>) -> Self {
        Self { okta }
    }

    async fn standing(&self, params: &Params) -> Result<Standing, Unclear> {
        let from = self.okta.resolve_group(&params.from.0).await.map_err(Unclear::Group)?;
        let to = self.okta.resolve_group(&params.to.0).await.map_err(Unclear::Group)?;
        let Some(user) = self.okta.user_id(&params.user.0).await.map_err(Unclear::Okta)? else {
            return Err(Unclear::NoSuchUser);
        };
        let groups = match self.okta.user_groups(&user).await {
            Ok(groups) => groups,
            Err(error) if error.kind == OktaErrorKind::NotFound => return Err(Unclear::NoSuchUser),
            Err(error) => return Err(Unclear::Okta(error)),
        };
        let is_in = |group: &GroupRef| groups.iter().any(|of_user| of_user.id == group.id);
        let (in_from, in_to) = (is_in(&from), is_in(&to));
        Ok(Standing { from, to, user, in_from, in_to })
    }
}

#[cfg(test)]
mod tests {
    use mockito::{Matcher, Server, ServerGuard};
    use serde_json::json;

    use super::*;
    use crate::config::GuardConfig;
    use crate::guard::Guard;
    use crate::model::ids::IdempotencyKey;
    use crate::model::outcome::{Failure, Reason, Receipt};
    use crate::okta::testing::{GROUP, USER, answers, client, group};

    const OTHER: &str = "00g0000000000000othr";

    fn call() -> Call {
        let params = json!({"from": GROUP, "to": OTHER, "user": USER});
        Call { key: IdempotencyKey::derive("okta", "u", "p", "s"), params, attempt: 1, earlier: Receipt::default() }
    }

    /// An org with both groups, and the user in these of them.
    async fn org(member_of: &[&str]) -> ServerGuard {
        let mut server = Server::new_async().await;
        let both = [group(GROUP, "Staff", "OKTA_GROUP"), group(OTHER, "Quarantine", "OKTA_GROUP")];
        for one in &both {
            let path = format!("/api/v1/groups/{}", one["id"].as_str().unwrap());
            answers(&mut server, "GET", &path, 200, one).await;
        }
        let his: Vec<_> = both.iter().filter(|group| member_of.contains(&group["id"].as_str().unwrap())).collect();
        answers(&mut server, "GET", &format!("/api/v1/users/{USER}/groups"), 200, &json!(his)).await;
        server
    }

    /// What one attempt comes to for who is in these groups, and the request that it sends.
    async fn came_to(member_of: &[&str]) -> (Outcome, &'static str) {
        let mut server = org(member_of).await;
        let add = format!("/api/v1/groups/{OTHER}/users/{USER}");
        let remove = format!("/api/v1/groups/{GROUP}/users/{USER}");
        let add = server.mock("PUT", add.as_str()).with_status(204).create_async().await;
        let remove = server.mock("DELETE", remove.as_str()).with_status(204).create_async().await;
        let outcome = MoveUser::new(Arc::new(client(&server.url()))).perform(&Cleared::unguarded(call())).await;
        let sent = match (add.matched_async().await, remove.matched_async().await) {
            (false, false) => "nothing",
            (true, false) => "add",
            (false, true) => "remove",
            (true, true) => "both",
        };
        (outcome, sent)
    }

    #[tokio::test]
    async fn each_attempt_does_the_next_thing_that_is_missing_and_the_first_is_to_add() {
        assert!(matches!(came_to(&[GROUP]).await, (Outcome::Progress(_), "add")));
        assert!(matches!(came_to(&[GROUP, OTHER]).await, (Outcome::Done(_), "remove")));
        assert!(matches!(came_to(&[]).await, (Outcome::Done(_), "add")));
        assert!(matches!(came_to(&[OTHER]).await, (Outcome::AlreadyDone(_), "nothing")));
    }

    #[tokio::test]
    async fn reading_back_finds_it_done_only_when_nothing_is_missing() {
        for (member_of, done) in [(&[GROUP][..], false), (&[GROUP, OTHER], false), (&[], false), (&[OTHER], true)] {
            let server = org(member_of).await;
            let verdict = MoveUser::new(Arc::new(client(&server.url()))).verify(&call()).await;
            assert_eq!(matches!(verdict, Verdict::Done(_)), done, "{member_of:?}: {verdict:?}");
            assert_eq!(verdict == Verdict::NotDone, !done);
        }
    }

    #[tokio::test]
    async fn a_group_that_is_protected_by_its_name_is_not_touched_by_its_id() {
        for protected in ["staff", "Quarantine"] {
            let mut server = org(&[GROUP]).await;
            let change = server.mock("PUT", Matcher::Any).expect(0).create_async().await;
            let config = GuardConfig { protected_groups: vec![protected.to_owned()], ..GuardConfig::default() };
            let call = Cleared::under(Guard::new(&config, []), call());
            let outcome = MoveUser::new(Arc::new(client(&server.url()))).perform(&call).await;
            let Outcome::Permanent(Failure { reason: Reason::Protected, detail }) = outcome else {
                panic!("{outcome:?}")
            };
            assert!(detail.contains("protected_groups") && detail.contains("nothing was changed"), "{detail}");
            change.assert_async().await;
            // Protected since he was put into the other one.
            let earlier = Receipt::note("is in the other now");
            let halfway = Cleared::under(Guard::new(&config, []), Call { attempt: 2, earlier, ..(self::call()) });
            let outcome = MoveUser::new(Arc::new(client(&server.url()))).perform(&halfway).await;
            assert!(outcome.into_failure().detail.contains("stays so: is in the other now"));
        }
    }

    #[test]
    fn parameters_are_checked_and_the_way_back_shares_the_lane() {
        let there = json!({"from": "A", "to": "B", "user": "u"});
        let back = json!({"from": "B", "to": "A", "user": "u"});
        assert_eq!((MOVE_USER.lane)(&there), Some("okta.group.move/A/B/u".to_owned()));
        assert_eq!((MOVE_USER.lane)(&there), (MOVE_USER.lane)(&back));
        assert!((MOVE_USER.check)(&there).is_ok());
        for bad in [json!({"from": "A", "to": "A", "user": "u"}), json!({"to": "B", "user": "u"}), json!({"from": "A"})]
        {
            assert!((MOVE_USER.check)(&bad).is_err(), "{bad}");
        }
    }
}
