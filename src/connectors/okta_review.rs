//! `okta.review.start`: somebody else decides what a user keeps.
//!
//! A Security Access Review first, which is made for this (Okta Identity Governance guide, "Initiate security access
//! reviews"); a certification campaign where the org has no such reviews, or where the step asks for one. Neither takes an
//! idempotency key, so ours stands at the end of the name, by which a review is looked up before one is started.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::okta_params::{Name, named, no_such_user, parse, parsed};
use super::{ActionKind, Call, Connector, Effect, FromEvent, Service, cut, shape};
use crate::guard::Cleared;
use crate::model::escape::Escape;
use crate::model::ids::IdempotencyKey;
use crate::model::outcome::{Failure, Outcome, Reason, Receipt, Verdict};
use crate::okta::governance::{LookedUp, MAX_REVIEW_NAME, NewReview, Review};
use crate::okta::rights::Right;
use crate::okta::users::User;
use crate::okta::{OktaClient, OktaError, OktaErrorKind};

/// Starts an access review of a user, once for each event. What is decided in it Okta carries out itself.
pub static START_REVIEW: ActionKind = ActionKind {
    name: "okta.review.start",
    summary: "Has a user's access reviewed by his manager",
    service: Service::Okta,
    effect: Effect::Keyed,
    changes_access: false,
    resets_risk: false,
    rights: &[Right::ReadUsers, Right::ReadReviews, Right::StartReviews, Right::ReadCampaigns, Right::RunCampaigns],
    from_event: &[("user", FromEvent::UserId)],
    check: |params| parse::<Params>(params).map(drop),
    schema: shape::<Params>,
    escape: |name| if name == "name" { Escape::Line } else { Escape::Plain },
    lane: |_| None,
};

/// The longest time that a review is open, in days: less than six months (Okta Governance API reference, "Create a
/// security access review").
const MAX_DAYS: u32 = 180;

/// Performs [`START_REVIEW`].
#[derive(Debug)]
pub struct StartReview {
    okta: Arc<OktaClient>,
    /// The linked object that leads to a user's manager; none is asked for when it is empty.
    manager_link: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Id or login.
    user: Name,
    /// What the review is called; the idempotency key follows it.
    #[serde(default = "default_name")]
    name: Name,
    /// A Security Access Review or a campaign.
    #[serde(default)]
    kind: Kind,
    /// Who decides, by id or login, in place of the user's manager.
    reviewer: Option<Name>,
    /// Who decides where there is no manager who could, by id or login.
    fallback_reviewer: Option<Name>,
    /// The id of the one app that a campaign is about; by default it is about all apps of the user. A Security Access
    /// Review is always about all his access.
    app: Option<Name>,
    /// How many days it is open, 1 to 180. Default: 7.
    #[serde(default, deserialize_with = "days")]
    #[schemars(range(min = 1, max = 180))]
    days: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// A Security Access Review, or a campaign where the org has no such reviews or does not let us start one.
    #[default]
    Auto,
    /// A Security Access Review and nothing else.
    SecurityAccessReview,
    /// A campaign and nothing else.
    Campaign,
}

fn days<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let days = u32::deserialize(deserializer)?;
    if !(1..=MAX_DAYS).contains(&days) {
        return Err(D::Error::custom(format!("`days` is not 1 to {MAX_DAYS}")));
    }
    Ok(Some(days))
}

fn default_name() -> Name {
    Name("Access review".to_owned())
}

/// The two APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Api {
    Review,
    Campaign,
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Review => "security access review",
            Self::Campaign => "campaign",
        })
    }
}

/// Whose access it is, and who decides about it.
struct People {
    user: String,
    reviewer: User,
}

#[async_trait]
impl Connector for StartReview {
    /// What Okta is still at work on is in no list.
    fn patience(&self) -> Duration {
        self.okta.timeout()
    }

    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        let params: Params = match parsed(&call.params) {
            Ok(params) => params,
            Err(outcome) => return outcome,
        };
        let name = review_name(&params.name.0, &call.key);
        let refused = match params.kind {
            Kind::Campaign => None,
            Kind::SecurityAccessReview => {
                return match self.review(&params, &name, call.attempt).await {
                    Ok(outcome) => outcome,
                    Err(error) => error.to_outcome(true),
                };
            }
            Kind::Auto => match self.review(&params, &name, call.attempt).await {
                Ok(outcome) => return outcome,
                Err(error) => Some(error),
            },
        };
        match (self.campaign(&params, &name).await, refused) {
            (Outcome::Permanent(failure), Some(error)) => Outcome::Permanent(Failure::new(
                failure.reason,
                format!("no campaign: {}; and before it no security access review: {error}", failure.detail),
            )),
            (outcome, _) => outcome,
        }
    }

    async fn verify(&self, call: &Call) -> Verdict {
        let Ok(params) = parse::<Params>(&call.params) else { return Verdict::CannotTell };
        let name = review_name(&params.name.0, &call.key);
        if params.kind != Kind::Campaign {
            match self.okta.find_review(&name).await {
                // The next attempt tells of one that Okta could not prepare.
                Ok(LookedUp { review: Some(review), .. }) if review.status == ERROR => return Verdict::NotDone,
                Ok(LookedUp { review: Some(review), .. }) => return Verdict::Done(self.found(Api::Review, &review)),
                Ok(_) if params.kind == Kind::SecurityAccessReview => return Verdict::NotDone,
                Ok(_) => {}
                Err(error) if params.kind == Kind::Auto && is_not_for_us(&error) => {}
                Err(error) => return error.to_verdict(),
            }
        }
        match self.okta.find_campaign(&name).await {
            Ok(LookedUp { review: Some(campaign), .. }) if ![SCHEDULED, ERROR].contains(&campaign.status.as_str()) => {
                Verdict::Done(self.found(Api::Campaign, &campaign))
            }
            // The next attempt launches one that is only scheduled, and tells of one that could not be prepared.
            Ok(_) => Verdict::NotDone,
            // Where there are reviews there need be no campaigns.
            Err(error) if params.kind == Kind::Auto && is_not_for_us(&error) => Verdict::NotDone,
            Err(error) => error.to_verdict(),
        }
    }
}

impl StartReview {
    /// On this org, where `manager_link` is the linked object that leads to managers.
    pub fn new(okta: Arc<OktaClient>, manager_link: String) -> Self {
        Self { okta, manager_link }
    }

    /// A Security Access Review. An error says that the org has none, or has none for us, and that nothing was changed;
    /// or, where a step asks for nothing else, what there is to say about that.
    async fn review(&self, params: &Params, name: &str, attempt: u32) -> Result<Outcome, OktaError> {
        let LookedUp { review, at } = match self.okta.find_review(name).await {
            Ok(looked_up) => looked_up,
            Err(error) if is_not_for_us(&error) => return Err(error),
            Err(error) => return Ok(error.to_outcome(false)),
        };
        if let Some(review) = review {
            return Ok(self.already(Api::Review, &review));
        }
        // An attempt before may have found no reviews here, and made a campaign.
        if attempt > 1 && params.kind == Kind::Auto {
            match self.okta.find_campaign(name).await {
                Ok(LookedUp { review: None, .. }) => {}
                Ok(_) => return Ok(self.campaign(params, name).await),
                Err(error) if is_not_for_us(&error) => {}
                Err(error) => return Ok(error.to_outcome(false)),
            }
        }
        let People { user, reviewer } = match self.people(params).await {
            Ok(people) => people,
            Err(outcome) => return Ok(outcome),
        };
        let Some(new) = new_review(params, name, &user, &reviewer, at) else { return Ok(no_time()) };
        match self.okta.start_review(&new).await {
            Ok(id) => Ok(Outcome::Done(self.receipt(Api::Review, id, &format!("{} decides", told(&reviewer))))),
            Err(error) if is_not_for_us(&error) => Err(error),
            Err(error) => Ok(error.to_outcome(true)),
        }
    }

    /// A campaign: one attempt makes it, and the next launches it.
    async fn campaign(&self, params: &Params, name: &str) -> Outcome {
        let LookedUp { review, at } = match self.okta.find_campaign(name).await {
            Ok(looked_up) => looked_up,
            Err(error) => return error.to_outcome(false),
        };
        match review {
            Some(campaign) if campaign.status == SCHEDULED => self.launch(name, campaign).await,
            Some(campaign) => self.already(Api::Campaign, &campaign),
            None => {
                let People { user, reviewer } = match self.people(params).await {
                    Ok(people) => people,
                    Err(outcome) => return outcome,
                };
                let Some(new) = new_review(params, name, &user, &reviewer, at) else { return no_time() };
                match self.okta.create_campaign(&new, params.app.as_ref().map(|app| app.0.as_str())).await {
                    Ok(id) => {
                        let note = format!("{} decides; its launch follows", told(&reviewer));
                        Outcome::Progress(self.receipt(Api::Campaign, id, &note))
                    }
                    Err(error) => error.to_outcome(true),
                }
            }
        }
    }

    async fn launch(&self, name: &str, campaign: Review) -> Outcome {
        match self.okta.launch_campaign(&campaign.id).await {
            Ok(()) => Outcome::Done(self.receipt(Api::Campaign, Some(campaign.id), "launched")),
            // 409: it is not scheduled any more, perhaps because its time had come.
            Err(error) if error.status() == Some(409) => match self.okta.find_campaign(name).await {
                Ok(LookedUp { review: Some(campaign), .. }) if campaign.status != SCHEDULED => {
                    self.already(Api::Campaign, &campaign)
                }
                _ => error.to_outcome(true),
            },
            Err(error) => error.to_outcome(true),
        }
    }

    /// The user, and the first who may decide about him: never he himself, and nobody who cannot sign in.
    async fn people(&self, params: &Params) -> Result<People, Outcome> {
        let failed = |error: OktaError| error.to_outcome(false);
        let Some(user) = self.okta.user(&params.user.0).await.map_err(failed)? else {
            return Err(no_such_user(&params.user.0));
        };
        let (role, first) = match &params.reviewer {
            Some(reviewer) => ("the reviewer", self.okta.user(&reviewer.0).await),
            None => ("the manager", self.okta.manager_of(&user, &self.manager_link).await),
        };
        let mut why_not = match fit(role, first.map_err(failed)?, &user) {
            Ok(reviewer) => return Ok(People { user: user.id, reviewer }),
            Err(why_not) => why_not,
        };
        if let Some(fallback) = &params.fallback_reviewer {
            let second = self.okta.user(&fallback.0).await.map_err(failed)?;
            match fit("`fallback_reviewer`", second, &user) {
                Ok(reviewer) => return Ok(People { user: user.id, reviewer }),
                Err(too) => why_not = format!("{why_not}, and {too}"),
            }
        }
        let remedy = match params.fallback_reviewer {
            Some(_) => "name somebody else as `fallback_reviewer`",
            None => "name a `fallback_reviewer`",
        };
        let detail = format!("nobody can review the access of {}: {why_not}; {remedy}", told(&user));
        Err(Outcome::Permanent(Failure::new(Reason::NotFound, detail)))
    }

    /// What the look-up found is what was to be started, whether it is still open or decided by now.
    fn already(&self, api: Api, review: &Review) -> Outcome {
        if review.status == ERROR {
            let detail = format!(
                "the {api} {} was started, and Okta could not prepare it; close it in the admin console and start another",
                review.id
            );
            return Outcome::Permanent(Failure::new(Reason::Rejected, detail));
        }
        Outcome::AlreadyDone(self.found(api, review))
    }

    fn found(&self, api: Api, review: &Review) -> Receipt {
        self.receipt(api, Some(review.id.clone()), "was started by an earlier attempt")
    }

    /// Neither kind has an address of its own that Okta documents: reviewers find both on their dashboard (Okta help,
    /// "Review access" and "Review campaigns").
    fn receipt(&self, api: Api, id: Option<String>, what: &str) -> Receipt {
        let app = match api {
            Api::Review => "Okta Security Access Reviews",
            Api::Campaign => "Okta Access Certification Reviews",
        };
        let url = self.okta.org_url().join("app/UserHome").ok().map(String::from);
        Receipt { id, url, ..Receipt::note(format!("{api}: {what}; reviewers open it in the app {app}")) }
    }
}

const SCHEDULED: &str = "SCHEDULED";
const ERROR: &str = "ERROR";

/// Whether the org has no such thing, or not for us; and nothing was changed. 401 E0000015 and 404 are how Okta says that a
/// feature is not there, 403 how it says that it is not for whoever asks.
fn is_not_for_us(error: &OktaError) -> bool {
    use OktaErrorKind as K;
    matches!(error.kind, K::FeatureNotEnabled | K::NotFound | K::Forbidden)
}

/// The candidate, if he may decide about the user and can; else why not.
fn fit(role: &str, candidate: Option<User>, user: &User) -> Result<User, String> {
    match candidate {
        None => Err(format!("{role} is not known to Okta")),
        Some(candidate) if candidate.id == user.id => Err(format!("{role} is the user himself")),
        Some(candidate) if !can_sign_in(&candidate) => {
            Err(format!("{role}, {}, is {}", told(&candidate), candidate.status))
        }
        Some(candidate) => Ok(candidate),
    }
}

/// Whether somebody in this status can be asked to decide (Okta API reference, "User status").
fn can_sign_in(user: &User) -> bool {
    !matches!(user.status.as_str(), "DEPROVISIONED" | "SUSPENDED" | "STAGED")
}

/// The name with our key behind it, the same for every attempt. It stands in a filter, where quotes are trouble.
fn review_name(name: &str, key: &IdempotencyKey) -> String {
    let plain: String =
        Escape::Line.apply(name).chars().map(|c| if matches!(c, '"' | '\\') { '\'' } else { c }).collect();
    let tail = format!(" [{}]", key.as_str());
    format!("{}{tail}", cut(plain.trim(), MAX_REVIEW_NAME.saturating_sub(tail.len())))
}

fn new_review<'a>(
    params: &Params,
    name: &'a str,
    user: &'a str,
    reviewer: &'a User,
    now: Option<Timestamp>,
) -> Option<NewReview<'a>> {
    Some(NewReview { name, user, reviewer: &reviewer.id, days: params.days, now: now? })
}

/// Every answer of Okta's has a date; one without came from something in between.
fn no_time() -> Outcome {
    let detail =
        "the answer to the look-up of the review has no date, so that its end cannot be told; look at the proxy";
    Outcome::Transient(Failure::new(Reason::BadAnswer, detail))
}

fn told(user: &User) -> String {
    named(user.login.as_deref().unwrap_or("no login"), &user.id)
}

#[cfg(test)]
mod tests {
    use mockito::Server;
    use serde_json::json;

    use super::*;
    use crate::okta::testing::{USER, answers, client};

    fn key() -> IdempotencyKey {
        IdempotencyKey::derive("okta", "u", "p", "s")
    }

    #[test]
    fn a_name_keeps_its_key_and_cannot_end_a_filter() {
        let key = key();
        assert_eq!(review_name("Access of ana", &key), format!("Access of ana [{}]", key.as_str()));
        let long = review_name(&"\u{fc}".repeat(500), &key);
        assert!(
            long.chars().count() <= MAX_REVIEW_NAME && long.ends_with(&format!("\u{2026} [{}]", key.as_str())),
            "{long}"
        );
        let odd = review_name("a\" or name co \"\\b\n", &key);
        assert!(odd.starts_with("a' or name co ''b [") && !odd.contains(['"', '\\', '\n']), "{odd}");
    }

    #[test]
    fn parameters_are_checked() {
        let check = START_REVIEW.check;
        assert!(check(&json!({"user": USER})).is_ok());
        assert!(check(&json!({"user": USER, "kind": "campaign", "days": 180, "fallback_reviewer": "a@b.c"})).is_ok());
        for bad in [
            json!({}),
            json!({"user": USER, "days": 0}),
            json!({"user": USER, "days": 181}),
            json!({"user": USER, "kind": "survey"}),
            json!({"user": USER, "reviewer": ""}),
            json!({"user": USER, "x": 1}),
        ] {
            assert!(check(&bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_review_that_okta_could_not_prepare_is_left_to_a_person() {
        let mut server = Server::new_async().await;
        let (params, name) = (json!({"user": USER, "name": "n"}), review_name("n", &key()));
        let body = json!({"data": [{"id": "sar1", "name": name, "status": "ERROR"}]});
        answers(&mut server, "GET", "/governance/api/v2/security-access-reviews", 200, &body).await;
        let connector = StartReview::new(Arc::new(client(&server.url())), "manager".to_owned());
        let call = Call { key: key(), params, attempt: 2, earlier: Receipt::default() };
        assert_eq!(connector.verify(&call).await, Verdict::NotDone);
        let Outcome::Permanent(failure) = connector.perform(&Cleared::unguarded(call)).await else { panic!("not so") };
        assert!(failure.detail.contains("sar1"), "{failure}");
    }
}
