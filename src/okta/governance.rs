//! Access reviews of Okta Identity Governance: Security Access Reviews of one user, and certification campaigns.
//!
//! Neither has a place for an idempotency key (Okta Governance API reference), so a review is found again by its name.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Answer, OktaClient};
use super::error::OktaError;
use super::path::ApiPath;

/// The longest name that lists give back whole (Okta Governance API reference, "List all security access reviews").
pub const MAX_REVIEW_NAME: usize = 200;

/// How far ahead a campaign is scheduled: its start has to be in the future. One that is not launched before starts then
/// by itself.
const LEAD: Duration = Duration::from_secs(15 * 60);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A review or a campaign as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Review {
    /// `sar…` or `ici…`.
    pub id: String,
    /// As it was given.
    #[serde(default)]
    pub name: String,
    /// Of a review `PENDING`, `ACTIVE`, `CLOSED` or `ERROR`; of a campaign `SCHEDULED`, `LAUNCHING`, `ACTIVE`, `COMPLETED`,
    /// `DELETED` or `ERROR`.
    #[serde(default)]
    pub status: String,
}

/// What a look-up found, and Okta's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookedUp {
    /// The review of exactly this name.
    pub review: Option<Review>,
    /// When Okta answered, by its own clock. Dates that it compares with that clock are counted from here.
    pub at: Option<Timestamp>,
}

/// What is reviewed, by whom, and until when.
#[derive(Debug, Clone, Copy)]
pub struct NewReview<'a> {
    /// At most [`MAX_REVIEW_NAME`] characters.
    pub name: &'a str,
    /// The id of the user whose access it is.
    pub user: &'a str,
    /// The id of the user who decides; never the same one.
    pub reviewer: &'a str,
    /// How many days it is open; `None` for Okta's seven.
    pub days: Option<u32>,
    /// Now, by Okta's clock.
    pub now: Timestamp,
}

impl OktaClient {
    /// The Security Access Review of exactly this name (Okta Governance API reference, "List all security access reviews").
    pub async fn find_review(&self, name: &str) -> Result<LookedUp, OktaError> {
        self.find(ApiPath::new(["governance", "api", "v2", "security-access-reviews"])?, name).await
    }

    /// Starts a Security Access Review. Okta gathers the user's access before it is open (202, `PENDING`). The id, as far
    /// as the answer can be read.
    pub async fn start_review(&self, new: &NewReview<'_>) -> Result<Option<String>, OktaError> {
        let mut body = json!({
            "principalId": new.user,
            "name": new.name,
            "reviewerSettings": {"type": "USER", "userSettings": {"includedUserIds": [new.reviewer]}},
        });
        if let (Some(days), Some(object)) = (new.days, body.as_object_mut()) {
            // At least a whole day after Okta has made it, which is a little later.
            object.insert("endTime".to_owned(), Value::from(date(new.now, DAY.saturating_mul(days) + LEAD)));
        }
        let path = ApiPath::new(["governance", "api", "v2", "security-access-reviews"])?;
        Ok(id_in(&self.send(Method::POST, &path, &[], Some(&body)).await?))
    }

    /// The campaign of exactly this name (Okta Governance API reference, "List all campaigns").
    pub async fn find_campaign(&self, name: &str) -> Result<LookedUp, OktaError> {
        self.find(ApiPath::new(["governance", "api", "v1", "campaigns"])?, name).await
    }

    /// Makes a campaign of one user: about one app when there is one, else about all his apps. What the reviewer revokes is
    /// taken away; what he does not look at stays. It is scheduled, and has to be launched. The id, as far as the answer
    /// can be read.
    pub async fn create_campaign(&self, new: &NewReview<'_>, app: Option<&str>) -> Result<Option<String>, OktaError> {
        let (kind, resources, principals) = match app {
            Some(app) => (
                "RESOURCE",
                json!({
                    "type": "APPLICATION",
                    "targetTypes": ["APPLICATION"],
                    "targetResources": [{"resourceId": app, "resourceType": "APPLICATION"}],
                }),
                // A campaign about a user can leave apps out but name none; one about an app narrows its users down by an
                // expression.
                json!({"type": "USERS", "userScopeExpression": format!("user.id == {}", Value::from(new.user))}),
            ),
            None => (
                "USER",
                json!({"targetTypes": ["APPLICATION"], "individuallyAssignedAppsOnly": false}),
                json!({"type": "USERS", "userIds": [new.user]}),
            ),
        };
        let body = json!({
            "name": new.name,
            "campaignType": kind,
            "scheduleSettings": {
                "type": "ONE_OFF",
                "startDate": date(new.now, LEAD),
                "durationInDays": new.days.unwrap_or(7),
                "timeZone": "UTC",
            },
            "resourceSettings": resources,
            "principalScopeSettings": principals,
            "reviewerSettings": {
                "type": "USER",
                "reviewerId": new.reviewer,
                "selfReviewDisabled": true,
                "justificationRequired": true,
            },
            "remediationSettings": {
                "accessApproved": "NO_ACTION", "accessRevoked": "DENY", "noResponse": "NO_ACTION",
            },
            "notificationSettings": {
                "notifyReviewerWhenReviewAssigned": true,
                "notifyReviewerDuringMidpointOfReview": true,
                "notifyReviewerWhenOverdue": true,
                "notifyReviewerAtCampaignEnd": false,
                "notifyReviewPeriodEnd": true,
            },
        });
        let path = ApiPath::new(["governance", "api", "v1", "campaigns"])?;
        Ok(id_in(&self.send(Method::POST, &path, &[], Some(&body)).await?))
    }

    /// Launches a campaign before its time. Okta refuses it (409 E0000195) unless the campaign is scheduled.
    pub async fn launch_campaign(&self, id: &str) -> Result<(), OktaError> {
        let path = ApiPath::new(["governance", "api", "v1", "campaigns", id, "launch"])?;
        self.send(Method::POST, &path, &[], None).await.map(drop)
    }

    async fn find(&self, path: ApiPath, name: &str) -> Result<LookedUp, OktaError> {
        // String literals of a filter are JSON strings (Okta API reference, "Filter"), so no name ends its own.
        let filter = format!("name eq {}", Value::from(name));
        let answer = self.get(&path, &[("filter", &filter), ("limit", "200")]).await?;
        let at = answer.exchange.date;
        let list: List = answer.json()?;
        let review = list.data.into_iter().find(|review| review.name == name);
        Ok(LookedUp { review, at })
    }
}

#[derive(Deserialize)]
struct List {
    data: Vec<Review>,
}

#[derive(Deserialize)]
struct Made {
    id: String,
}

/// That it was made is decided by the status; what cannot be read of the answer is looked up when it is needed.
fn id_in(answer: &Answer) -> Option<String> {
    answer.json::<Made>().ok().map(|made| made.id).filter(|id| !id.is_empty() && id.len() <= 64)
}

/// A moment after another as Okta reads it.
fn date(now: Timestamp, after: Duration) -> String {
    format!("{:.3}", now.checked_add(after).unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use mockito::{Matcher, Server};

    use super::*;
    use crate::okta::testing::{APP, USER, answers, client};

    const BOSS: &str = "00u0000000000manager";
    const REVIEWS: &str = "/governance/api/v2/security-access-reviews";
    const CAMPAIGNS: &str = "/governance/api/v1/campaigns";

    fn new(days: Option<u32>) -> NewReview<'static> {
        NewReview { name: "n [key]", user: USER, reviewer: BOSS, days, now: "2026-08-24T10:00:00Z".parse().unwrap() }
    }

    #[tokio::test]
    async fn a_review_is_found_by_its_exact_name_with_okta_s_time() {
        let mut server = Server::new_async().await;
        let body = json!({"data": [
            {"id": "sar1", "name": "n [key] two", "status": "ACTIVE"}, {"id": "sar2", "name": "n [key]", "status": "PENDING"},
        ], "_links": {}});
        let list = server
            .mock("GET", REVIEWS)
            .match_query(Matcher::AllOf(vec![Matcher::UrlEncoded("filter".into(), "name eq \"n [key]\"".into())]));
        let list = list.with_header("date", "Mon, 24 Aug 2026 10:15:02 GMT").with_body(body.to_string());
        list.create_async().await;
        let found = client(&server.url()).find_review("n [key]").await.unwrap();
        assert_eq!(found.review.map(|review| review.id).as_deref(), Some("sar2"));
        assert_eq!(found.at, Some("2026-08-24T10:15:02Z".parse().unwrap()));
        answers(&mut server, "GET", CAMPAIGNS, 200, &json!({"data": []})).await;
        assert_eq!(client(&server.url()).find_campaign("n").await.unwrap().review, None);
    }

    #[tokio::test]
    async fn a_review_asks_one_reviewer_and_ends_later_than_the_shortest_okta_takes() {
        let mut server = Server::new_async().await;
        let sent = |end: Option<&str>| {
            let mut body = json!({"principalId": USER, "name": "n [key]", "reviewerSettings": {
                "type": "USER", "userSettings": {"includedUserIds": [BOSS]}}});
            if let Some(end) = end {
                body["endTime"] = json!(end);
            }
            body
        };
        let with_end = server.mock("POST", REVIEWS).match_body(Matcher::Json(sent(Some("2026-08-25T10:15:00.000Z"))));
        with_end.with_status(202).with_body("{\"id\": \"sar1\"}").create_async().await;
        let without = server.mock("POST", REVIEWS).match_body(Matcher::Json(sent(None)));
        without.with_status(202).with_body("not JSON").create_async().await;
        let okta = client(&server.url());
        assert_eq!(okta.start_review(&new(Some(1))).await.unwrap().as_deref(), Some("sar1"));
        assert_eq!(okta.start_review(&new(None)).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_campaign_is_about_one_app_or_about_all_and_begins_in_the_future() {
        let mut server = Server::new_async().await;
        let about = |kind: &str, more: Value| {
            let mut body = json!({"campaignType": kind, "scheduleSettings": {"startDate": "2026-08-24T10:15:00.000Z"},
                "reviewerSettings": {"type": "USER", "reviewerId": BOSS, "selfReviewDisabled": true}});
            body["principalScopeSettings"] = more;
            Matcher::PartialJson(body)
        };
        let one = about("RESOURCE", json!({"userScopeExpression": format!("user.id == \"{USER}\"")}));
        server
            .mock("POST", CAMPAIGNS)
            .match_body(one)
            .with_status(201)
            .with_body("{\"id\":\"ici1\"}")
            .create_async()
            .await;
        let all = about("USER", json!({"userIds": [USER]}));
        server
            .mock("POST", CAMPAIGNS)
            .match_body(all)
            .with_status(201)
            .with_body("{\"id\":\"ici2\"}")
            .create_async()
            .await;
        let okta = client(&server.url());
        assert_eq!(okta.create_campaign(&new(None), Some(APP)).await.unwrap().as_deref(), Some("ici1"));
        assert_eq!(okta.create_campaign(&new(None), None).await.unwrap().as_deref(), Some("ici2"));
    }
}
