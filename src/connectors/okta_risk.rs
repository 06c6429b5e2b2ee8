//! `okta.user.set_risk`: telling Okta how risky a user is, so that its own policies act on it.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::okta_params::{Name, no_such_user, parse, parsed, user_receipt};
use super::{ActionKind, Call, Connector, Deed, Effect, FromEvent, Inverse, Service, shape};
use crate::guard::Cleared;
use crate::model::escape::Escape;
use crate::model::outcome::{Outcome, Verdict};
use crate::okta::OktaClient;
use crate::okta::rights::Right;

/// Sets the risk of a user in Okta. What Okta then tells of it in its log is an echo of ours and releases nobody.
pub static SET_RISK: ActionKind = ActionKind {
    name: "okta.user.set_risk",
    summary: "Sets the risk of a user in Okta",
    service: Service::Okta,
    effect: Effect::SetLike,
    changes_access: true,
    resets_risk: true,
    rights: &[Right::ReadUsers, Right::ReadRisk, Right::ChangeRisk],
    from_event: &[("user", FromEvent::UserId)],
    check,
    schema: shape::<Params>,
    escape: |_| Escape::Plain,
    lane: |params| Some(format!("okta.user.risk/{}", parse::<Params>(params).ok()?.user.0)),
    inverse,
};

/// The levels that can be set; NONE is only read (Okta API reference, "Upsert the user's risk").
const LEVELS: [&str; 3] = ["HIGH", "MEDIUM", "LOW"];

/// The most characters of a reason.
const MAX_REASON: usize = 500;

/// Performs [`SET_RISK`].
#[derive(Debug)]
pub struct SetRisk {
    okta: Arc<OktaClient>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Id or login.
    user: Name,
    /// `HIGH`, `MEDIUM` or `LOW`.
    level: String,
    /// Why. What Okta does not take in it becomes a space.
    #[serde(default)]
    reason: String,
}

fn check(params: &Value) -> Result<(), String> {
    let Params { level, .. } = parse(params)?;
    // A template is looked at again when it is filled in.
    if LEVELS.contains(&level.as_str()) || level.contains("{{") || level.contains("{%") {
        return Ok(());
    }
    Err(format!("`level` is \"{}\", and has to be HIGH, MEDIUM or LOW", super::cut(&level, 40)))
}

/// Back to the level that was read before it was set.
fn inverse(deed: &Deed<'_>) -> Inverse {
    let back = |level: &str| {
        let reason = format!("okta-responder run {} was reverted", deed.run);
        deed.remedy(SET_RISK.name, json!({"level": level, "reason": reason}))
    };
    match deed.before("level") {
        Some(level) if LEVELS.contains(&level) => back(level).into(),
        Some("NONE") => back("LOW").warned("it was NONE, which cannot be set; LOW is the nearest").into(),
        _ => Inverse::impossible("the level before is not on record; set it at Okta"),
    }
}

#[async_trait]
impl Connector for SetRisk {
    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        let Params { user: Name(name), level, reason } = match parsed(&call.params) {
            Ok(params) => params,
            Err(outcome) => return outcome,
        };
        let user = match self.okta.user_id(&name).await {
            Ok(Some(user)) => user,
            Ok(None) => return no_such_user(&name),
            Err(error) => return error.to_outcome(false),
        };
        let was = match self.okta.user_risk(&user).await {
            Ok(is) if is == level => {
                return Outcome::AlreadyDone(user_receipt(&self.okta, &user, format!("was {level} already")));
            }
            Ok(was) => was,
            Err(error) => return error.to_outcome(false),
        };
        let reason = sanitised(&reason);
        match self.okta.set_user_risk(&user, &level, (!reason.is_empty()).then_some(&reason)).await {
            Ok(()) => {
                let receipt = user_receipt(&self.okta, &user, format!("is {level} now"));
                Outcome::Done(receipt.with_before([("level", super::cut(&was, 20).as_str())]))
            }
            Err(error) => error.to_outcome(true),
        }
    }

    async fn verify(&self, call: &Call) -> Verdict {
        let Ok(Params { user: Name(name), level, .. }) = parse(&call.params) else { return Verdict::CannotTell };
        let user = match self.okta.user_id(&name).await {
            Ok(Some(user)) => user,
            Ok(None) => return Verdict::NotDone,
            Err(error) => return error.to_verdict(),
        };
        match self.okta.user_risk(&user).await {
            Ok(is) if is == level => Verdict::Done(user_receipt(&self.okta, &user, format!("is {level}"))),
            Ok(_) => Verdict::NotDone,
            Err(error) => error.to_verdict(),
        }
    }
}

impl SetRisk {
    /// On this org.
    pub fn new(okta: Arc<OktaClient>) -> Self {
        Self { okta }
    }
}

/// A reason in the characters that Okta takes; everything else is refused there with 400.
fn sanitised(reason: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-,.".contains(c) { c } else { ' ' };
    let plain: String = reason.chars().map(plain).collect();
    let words = plain.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests {
    use mockito::{Matcher, Server, ServerGuard};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::ids::IdempotencyKey;
    use crate::model::outcome::{Failure, Reason, Receipt};
    use crate::okta::testing::{USER, answers, client, error_body};

    fn call(reason: &str) -> Cleared<Call> {
        let params = json!({"user": USER, "level": "HIGH", "reason": reason});
        let key = IdempotencyKey::derive("okta", "u", "p", "s");
        Cleared::unguarded(Call { key, params, attempt: 1, earlier: Receipt::default() })
    }

    fn path() -> String {
        format!("/api/v1/users/{USER}/risk")
    }

    async fn org(level: &str) -> ServerGuard {
        let mut server = Server::new_async().await;
        answers(&mut server, "GET", &path(), 200, &json!({"riskLevel": level})).await;
        server
    }

    fn connector(server: &ServerGuard) -> SetRisk {
        SetRisk::new(Arc::new(client(&server.url())))
    }

    #[tokio::test]
    async fn the_first_level_and_a_new_one_are_both_set() {
        for (before, status) in [("NONE", 201), ("LOW", 200)] {
            let mut server = org(before).await;
            let body = json!({"riskLevel": "HIGH", "riskReason": "EDR host-7, malware 9.1"});
            let set = server.mock("PUT", path().as_str()).match_body(Matcher::Json(body)).with_status(status);
            let set = set.with_body("{}").create_async().await;
            let outcome = connector(&server).perform(&call("EDR: host-7, malware=\"9.1\"")).await;
            assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
            set.assert_async().await;
        }
    }

    #[tokio::test]
    async fn without_a_reason_okta_writes_its_own() {
        let mut server = org("LOW").await;
        let set = server.mock("PUT", path().as_str()).match_body(Matcher::Json(json!({"riskLevel": "HIGH"})));
        let set = set.with_body("{}").create_async().await;
        assert!(matches!(connector(&server).perform(&call("\u{202e}<>")).await, Outcome::Done(_)));
        set.assert_async().await;
    }

    #[tokio::test]
    async fn the_level_that_is_so_already_is_not_set() {
        let mut server = org("HIGH").await;
        let set = server.mock("PUT", Matcher::Any).expect(0).create_async().await;
        assert!(matches!(connector(&server).perform(&call("x")).await, Outcome::AlreadyDone(_)));
        assert!(matches!(connector(&server).verify(&call("x")).await, Verdict::Done(_)));
        set.assert_async().await;
        let low = org("LOW").await;
        assert_eq!(connector(&low).verify(&call("x")).await, Verdict::NotDone);
    }

    #[tokio::test]
    async fn an_org_without_the_feature_says_so() {
        for status in [401, 403] {
            let mut server = Server::new_async().await;
            let body = error_body("E0000015", "You do not have permission to access the feature you are requesting");
            let body: Value = serde_json::from_str(&body).unwrap();
            answers(&mut server, "GET", &path(), status, &body).await;
            let outcome = connector(&server).perform(&call("x")).await;
            assert!(
                matches!(outcome, Outcome::Permanent(Failure { reason: Reason::Forbidden, .. })),
                "{status}: {outcome:?}"
            );
        }
    }

    #[test]
    fn parameters_are_checked() {
        let with = |level: &str| (SET_RISK.check)(&json!({"user": "u", "level": level}));
        assert!(with("HIGH").is_ok() && with("{{ risk.level }}").is_ok());
        assert!(with("NONE").unwrap_err().contains("HIGH, MEDIUM or LOW"));
        assert!(with("high").is_err() && (SET_RISK.check)(&json!({"user": "u"})).is_err());
        let params = json!({"user": "u", "level": "LOW"});
        assert_eq!((SET_RISK.lane)(&params), Some("okta.user.risk/u".to_owned()));
        assert!(SET_RISK.resets_risk);
    }

    proptest! {
        #[test]
        fn any_reason_becomes_one_that_okta_takes(reason in any::<String>()) {
            let plain = sanitised(&reason);
            prop_assert!(plain.len() <= MAX_REASON);
            prop_assert!(plain.chars().all(|c| c.is_ascii_alphanumeric() || " -,.".contains(c)), "{}", plain);
        }
    }
}
