//! `okta.user.suspend`, `unsuspend`, `deactivate`, `expire_password` and `reset_factors`: what is done to a user as a
//! whole. None of them ends his sessions; `okta.user.clear_sessions` does.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::okta_params::{Name, no_such_user, parse, parsed, user_receipt};
use super::{ActionKind, Call, Connector, Deed, Effect, FromEvent, Inverse, Service, shape};
use crate::guard::Cleared;
use crate::model::escape::Escape;
use crate::model::outcome::{Failure, Outcome, Reason, Verdict};
use crate::okta::OktaClient;
use crate::okta::lifecycle::Lifecycle;
use crate::okta::rights::Right;

/// Keeps a user from signing in. Groups and apps stay, and so do his sessions.
pub static SUSPEND: ActionKind = status_action(
    "okta.user.suspend",
    "Suspends a user: he cannot sign in, and keeps groups and apps",
    &[Right::ReadUsers, Right::ChangeStatus],
    |deed| deed.remedy(UNSUSPEND.name, json!({})).into(),
);

/// Lets a suspended user sign in again.
pub static UNSUSPEND: ActionKind = status_action(
    "okta.user.unsuspend",
    "Lets a suspended user sign in again",
    &[Right::ReadUsers, Right::ChangeStatus],
    |deed| deed.remedy(SUSPEND.name, json!({})).into(),
);

/// Deactivates a user. He loses every app assignment, and with provisioning his accounts; this cannot be undone.
pub static DEACTIVATE: ActionKind = status_action(
    "okta.user.deactivate",
    "Deactivates a user: his app assignments are lost for good",
    &[Right::ReadUsers, Right::ChangeStatus],
    |_| {
        Inverse::impossible(
            "his app assignments are lost; an administrator activates him in Okta and gives him what he needs",
        )
    },
);

/// Makes a user choose a new password at his next sign-in. He cannot be suspended from then on until he has.
pub static EXPIRE_PASSWORD: ActionKind = status_action(
    "okta.user.expire_password",
    "Makes a user choose a new password at the next sign-in",
    &[Right::ReadUsers, Right::ChangeCredentials],
    |_| Inverse::impossible("the old password does not come back; he chooses a new one at his next sign-in"),
);

/// Forgets all second factors of a user. Whoever knows his password enrols new ones, so his sessions should end with it, and
/// the policies should ask for more than a password to enrol.
pub static RESET_FACTORS: ActionKind = ActionKind {
    lane: |params| Some(format!("okta.user.factors/{}", parse::<Params>(params).ok()?.user.0)),
    ..status_action(
        "okta.user.reset_factors",
        "Forgets all second factors of a user",
        &[Right::ReadUsers, Right::ChangeCredentials],
        |_| Inverse::impossible("forgotten factors do not come back; he enrols new ones"),
    )
};

const fn status_action(
    name: &'static str,
    summary: &'static str,
    rights: &'static [Right],
    inverse: fn(&Deed<'_>) -> Inverse,
) -> ActionKind {
    ActionKind {
        name,
        summary,
        service: Service::Okta,
        effect: Effect::SetLike,
        changes_access: true,
        resets_risk: false,
        rights,
        from_event: &[("user", FromEvent::UserId)],
        check,
        schema: shape::<Params>,
        escape: |_| Escape::Plain,
        lane,
        inverse,
    }
}

/// Every status that Okta names (Okta API reference, "Retrieve a user").
const KNOWN: [&str; 8] =
    ["STAGED", "PROVISIONED", "ACTIVE", "RECOVERY", "LOCKED_OUT", "PASSWORD_EXPIRED", "SUSPENDED", "DEPROVISIONED"];

/// What an action does to a user's status.
#[derive(Debug)]
struct Rule {
    change: Lifecycle,
    /// The status that it leads to; `None` when none tells of it.
    to: Option<&'static str>,
    /// The statuses in which Okta does it. One that is not known here is tried.
    from: &'static [&'static str],
    /// What it is called when it is done.
    done: &'static str,
    /// What can be done about another status.
    remedy: &'static str,
}

static SUSPENDING: Rule = Rule {
    change: Lifecycle::Suspend,
    to: Some("SUSPENDED"),
    from: &["ACTIVE"],
    done: "is suspended",
    remedy: "Okta suspends only who is ACTIVE; put him into a group that policies deny, or deactivate him",
};
static UNSUSPENDING: Rule = Rule {
    change: Lifecycle::Unsuspend,
    to: Some("ACTIVE"),
    from: &["SUSPENDED"],
    done: "is no longer suspended",
    remedy: "he is not suspended, and what holds him is another thing",
};
static DEACTIVATING: Rule = Rule {
    change: Lifecycle::Deactivate,
    to: Some("DEPROVISIONED"),
    from: &["STAGED", "PROVISIONED", "ACTIVE", "RECOVERY", "LOCKED_OUT", "PASSWORD_EXPIRED", "SUSPENDED"],
    done: "is deactivated",
    remedy: "",
};
static EXPIRING: Rule = Rule {
    change: Lifecycle::ExpirePassword,
    to: Some("PASSWORD_EXPIRED"),
    from: &["ACTIVE", "RECOVERY", "LOCKED_OUT"],
    done: "has to choose a new password",
    remedy: "he cannot sign in with his password as it is",
};
static RESETTING: Rule = Rule {
    change: Lifecycle::ResetFactors,
    to: None,
    from: &["PROVISIONED", "ACTIVE", "RECOVERY", "LOCKED_OUT", "PASSWORD_EXPIRED", "SUSPENDED"],
    done: "has no second factor any more",
    remedy: "he has no factors that could be used",
};

/// Performs one of the actions of this file.
#[derive(Debug)]
pub struct ChangeUser {
    okta: Arc<OktaClient>,
    rule: &'static Rule,
}

impl ChangeUser {
    /// [`SUSPEND`] on this org.
    pub fn suspend(okta: Arc<OktaClient>) -> Self {
        Self { okta, rule: &SUSPENDING }
    }

    /// [`UNSUSPEND`] on this org.
    pub fn unsuspend(okta: Arc<OktaClient>) -> Self {
        Self { okta, rule: &UNSUSPENDING }
    }

    /// [`DEACTIVATE`] on this org.
    pub fn deactivate(okta: Arc<OktaClient>) -> Self {
        Self { okta, rule: &DEACTIVATING }
    }

    /// [`EXPIRE_PASSWORD`] on this org.
    pub fn expire_password(okta: Arc<OktaClient>) -> Self {
        Self { okta, rule: &EXPIRING }
    }

    /// [`RESET_FACTORS`] on this org.
    pub fn reset_factors(okta: Arc<OktaClient>) -> Self {
        Self { okta, rule: &RESETTING }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Id or login.
    user: Name,
}

fn check(params: &Value) -> Result<(), String> {
    parse::<Params>(params).map(drop)
}

/// One lane for all that sets the status: a user who was suspended and then released must not end up suspended.
fn lane(params: &Value) -> Option<String> {
    Some(format!("okta.user.status/{}", parse::<Params>(params).ok()?.user.0))
}

#[async_trait]
impl Connector for ChangeUser {
    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        let Params { user: Name(name) } = match parsed(&call.params) {
            Ok(params) => params,
            Err(outcome) => return outcome,
        };
        let user = match self.okta.user(&name).await {
            Ok(Some(user)) => user,
            Ok(None) => return no_such_user(&name),
            Err(error) => return error.to_outcome(false),
        };
        let Rule { change, to, from, done, remedy } = self.rule;
        let status = user.status.as_str();
        if *to == Some(status) {
            return Outcome::AlreadyDone(user_receipt(&self.okta, &user.id, format!("{done} already")));
        }
        if KNOWN.contains(&status) && !from.contains(&status) {
            let why = format!("the status of user {} is {status}, so this cannot be done to him: {remedy}", user.id);
            return Outcome::Permanent(Failure::new(Reason::Conflict, why));
        }
        match self.okta.change_user(&user.id, *change).await {
            Ok(()) => Outcome::Done(user_receipt(&self.okta, &user.id, *done)),
            Err(error) => error.to_outcome(true),
        }
    }

    /// Okta's list of factors shows only what the enrolment policy of the asking client allows (Okta API reference, "List
    /// all enrolled factors"), so an empty one proves nothing: forgetting them is done again as soon as Okta answers.
    async fn verify(&self, call: &Call) -> Verdict {
        let Ok(params) = parse::<Params>(&call.params) else { return Verdict::CannotTell };
        match self.okta.user(&params.user.0).await {
            Ok(Some(user)) if self.rule.to == Some(user.status.as_str()) => {
                Verdict::Done(user_receipt(&self.okta, &user.id, self.rule.done))
            }
            Ok(_) => Verdict::NotDone,
            Err(error) => error.to_verdict(),
        }
    }
}

#[cfg(test)]
mod tests {
    use mockito::{Matcher, Server, ServerGuard};
    use serde_json::json;

    use super::*;
    use crate::model::ids::IdempotencyKey;
    use crate::model::outcome::Receipt;
    use crate::okta::testing::{USER, answers, client, error_body};

    type Build = fn(Arc<OktaClient>) -> ChangeUser;

    const ALL: [(&ActionKind, Build, &str); 5] = [
        (&SUSPEND, ChangeUser::suspend, "suspend"),
        (&UNSUSPEND, ChangeUser::unsuspend, "unsuspend"),
        (&DEACTIVATE, ChangeUser::deactivate, "deactivate"),
        (&EXPIRE_PASSWORD, ChangeUser::expire_password, "expire_password"),
        (&RESET_FACTORS, ChangeUser::reset_factors, "reset_factors"),
    ];

    fn call() -> Cleared<Call> {
        let (key, params) = (IdempotencyKey::derive("okta", "u", "p", "s"), json!({"user": USER}));
        Cleared::unguarded(Call { key, params, attempt: 1, earlier: Receipt::default() })
    }

    async fn org(status: &str) -> ServerGuard {
        let mut server = Server::new_async().await;
        answers(&mut server, "GET", &format!("/api/v1/users/{USER}"), 200, &json!({"id": USER, "status": status}))
            .await;
        server
    }

    /// What an action comes to for a user of a status, and whether its request left.
    async fn came_to(build: Build, word: &str, status: &str) -> (Outcome, bool) {
        let mut server = org(status).await;
        let path = format!("/api/v1/users/{USER}/lifecycle/{word}");
        let change = server.mock("POST", path.as_str()).match_query(Matcher::Any).with_body("{}").create_async().await;
        let outcome = build(Arc::new(client(&server.url()))).perform(&call()).await;
        (outcome, change.matched_async().await)
    }

    /// The whole table: `d` is done, `a` is so already, `-` is refused without a request.
    #[tokio::test]
    async fn every_status_has_its_answer() {
        let expected = [
            //            STAGED PROVISIONED ACTIVE RECOVERY LOCKED_OUT PASSWORD_EXPIRED SUSPENDED DEPROVISIONED
            (0, "--d---a-"),
            (1, "--a---d-"),
            (2, "ddddddda"),
            (3, "--ddda--"),
            (4, "-dddddd-"),
        ];
        for (index, row) in expected {
            let (kind, build, word) = ALL[index];
            let mut got = String::new();
            for status in KNOWN {
                got.push(match came_to(build, word, status).await {
                    (Outcome::Done(_), true) => 'd',
                    (Outcome::AlreadyDone(_), false) => 'a',
                    (Outcome::Permanent(failure), false) => {
                        assert_eq!(failure.reason, Reason::Conflict);
                        assert!(failure.detail.contains(status), "{failure}");
                        '-'
                    }
                    other => panic!("{}, {status}: {other:?}", kind.name),
                });
            }
            assert_eq!(got, row, "{}", kind.name);
            assert!(matches!(came_to(build, word, "NEW_WORD").await, (Outcome::Done(_), true)), "{}", kind.name);
        }
    }

    #[tokio::test]
    async fn a_status_that_changed_in_between_is_okta_s_to_refuse() {
        let mut server = org("ACTIVE").await;
        for (status, code, reason) in [(400, "E0000001", Reason::Rejected), (403, "E0000038", Reason::Conflict)] {
            let body = error_body(code, "This operation is not allowed in the user's current status.");
            server.mock("POST", Matcher::Any).with_status(status).with_body(body).create_async().await;
            let outcome = ChangeUser::suspend(Arc::new(client(&server.url()))).perform(&call()).await;
            let Outcome::Permanent(failure) = outcome else { panic!("{outcome:?}") };
            assert_eq!(failure.reason, reason);
        }
    }

    #[tokio::test]
    async fn a_doubt_is_settled_by_the_status() {
        for (kind, build, _) in ALL {
            let mut server = org("ACTIVE").await;
            let connector = build(Arc::new(client(&server.url())));
            let to = connector.rule.to;
            if kind.name != "okta.user.unsuspend" {
                server.mock("POST", Matcher::Any).match_query(Matcher::Any).with_status(502).create_async().await;
                assert!(matches!(connector.perform(&call()).await, Outcome::Unknown(_)), "{}", kind.name);
                assert_eq!(connector.verify(&call()).await, Verdict::NotDone, "{}", kind.name);
            }
            if let Some(to) = to {
                let server = org(to).await;
                let there = build(Arc::new(client(&server.url()))).verify(&call()).await;
                assert!(matches!(there, Verdict::Done(_)), "{}: {there:?}", kind.name);
            }
        }
    }

    #[tokio::test]
    async fn who_does_not_exist_is_permanent() {
        let mut server = Server::new_async().await;
        answers(&mut server, "GET", &format!("/api/v1/users/{USER}"), 404, &json!({})).await;
        let outcome = ChangeUser::suspend(Arc::new(client(&server.url()))).perform(&call()).await;
        assert!(matches!(outcome, Outcome::Permanent(Failure { reason: Reason::NotFound, .. })), "{outcome:?}");
    }

    #[test]
    fn what_sets_the_status_shares_a_lane() {
        let params = json!({"user": "u"});
        for (kind, ..) in ALL {
            let lane = if kind.name.ends_with("reset_factors") { "okta.user.factors/u" } else { "okta.user.status/u" };
            assert_eq!((kind.lane)(&params).as_deref(), Some(lane), "{}", kind.name);
            for bad in [json!({}), json!({"user": "me"}), json!({"user": "u", "x": 1})] {
                assert!((kind.check)(&bad).is_err(), "{}: {bad}", kind.name);
            }
        }
    }
}
