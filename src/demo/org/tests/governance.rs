//! What Okta Identity Governance refuses, and with which words.

use jiff::SignedDuration;
use serde_json::json;

use super::*;

const REVIEWS: &str = "/governance/api/v2/security-access-reviews";
const CAMPAIGNS: &str = "/governance/api/v1/campaigns";

impl Fixture {
    async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(body).send().await.unwrap()).await
    }

    fn boss(&self) -> User {
        self.org.add_user(User::new("Boss", "Bigwig"))
    }

    /// A moment so long from now.
    fn at(&self, hours: i64) -> String {
        (self.org.now() + SignedDuration::from_hours(hours)).to_string()
    }

    /// What starts a review of Ada by her boss.
    fn review(&self, ada: &User, boss: &User) -> Value {
        json!({
            "principalId": ada.id, "name": "Review [k]", "endTime": self.at(72),
            "reviewerSettings": {"type": "USER", "userSettings": {"includedUserIds": [boss.id]}},
        })
    }

    /// What creates a campaign about Ada that her boss decides.
    fn campaign(&self, ada: &User, boss: &User) -> Value {
        json!({
            "name": "Campaign [k]", "campaignType": "USER",
            "scheduleSettings": {"type": "ONE_OFF", "startDate": self.at(1), "durationInDays": 7, "timeZone": "UTC"},
            "resourceSettings": {"targetTypes": ["APPLICATION"]},
            "principalScopeSettings": {"type": "USERS", "userIds": [ada.id]},
            "reviewerSettings": {"type": "USER", "reviewerId": boss.id},
            "remediationSettings": {"accessApproved": "NO_ACTION", "accessRevoked": "DENY", "noResponse": "NO_ACTION"},
        })
    }

    /// That a request with one value changed (or taken out, with null) is refused like this, and leaves nothing behind.
    async fn check_refused(&self, path: &str, body: &Value, change: (&str, Value), expected: (u16, &str, &str)) {
        let (pointer, value) = change;
        let mut body = body.clone();
        match body.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => body[pointer.trim_start_matches('/')] = value,
        }
        let answer = self.post(path, &body).await;
        let (status, code, words) = expected;
        assert_eq!(answer.error(), (status, code), "{pointer}: {}", answer.body);
        assert!(answer.body.to_string().contains(words), "{pointer}: {}", answer.body);
        assert!(self.org.access_reviews().is_empty(), "{pointer}");
    }
}

#[tokio::test]
async fn a_review_is_refused_without_a_reviewer_or_with_one_who_may_not_review() {
    let fixture = Fixture::new().await;
    let (ada, boss) = (fixture.ada(), fixture.boss());
    let body = fixture.review(&ada, &boss);
    let ids = "/reviewerSettings/userSettings/includedUserIds";
    let invalid = |words| (400, "E0000001", words);
    let refused = async |pointer, value, expected| {
        fixture.check_refused(REVIEWS, &body, (pointer, value), expected).await;
    };
    refused("/reviewerSettings", Value::Null, invalid("reviewerSettings.type")).await;
    refused("/reviewerSettings/type", json!("GROUP"), invalid("The type must be USER.")).await;
    refused(ids, json!([]), invalid("one to ten reviewers")).await;
    refused(ids, json!(vec![boss.id.as_str(); 11]), invalid("one to ten reviewers")).await;
    refused(ids, json!([ada.id]), invalid("cannot review his own access")).await;
    refused(ids, json!(["00u1nobody0000000001"]), (404, "E0000007", "00u1nobody0000000001")).await;
    // Ids only: a login names nobody here.
    refused(ids, json!([boss.login]), (404, "E0000007", &boss.login)).await;
    assert_eq!(fixture.post(REVIEWS, &body).await.status, 202);
}

#[tokio::test]
async fn a_review_is_refused_for_its_user_its_name_its_end_and_what_is_not_known() {
    let fixture = Fixture::new().await;
    let (ada, boss) = (fixture.ada(), fixture.boss());
    let body = fixture.review(&ada, &boss);
    let invalid = |words| (400, "E0000001", words);
    let refused = async |pointer, value, expected| {
        fixture.check_refused(REVIEWS, &body, (pointer, value), expected).await;
    };
    refused("/principalId", json!("00u1"), invalid("20 characters")).await;
    refused("/principalId", json!("00u1nobody0000000001"), (404, "E0000007", "(User)")).await;
    refused("/name", json!(""), invalid("1 to 255 characters")).await;
    refused("/name", json!("n".repeat(256)), invalid("1 to 255 characters")).await;
    for hours in [-1, 23, 24 * 183] {
        refused("/endTime", json!(fixture.at(hours)), invalid("at least one day and less than six months")).await;
    }
    refused("/endTime", json!("tomorrow"), invalid("endTime")).await;
    refused("/noSuchField", json!(1), invalid("noSuchField")).await;
    let malformed = fixture.request(Method::POST, REVIEWS).body("{").send().await.unwrap();
    assert_eq!(Answer::of(malformed).await.error(), (400, "E0000003"));
}

#[tokio::test]
async fn a_campaign_is_refused_for_what_it_lacks_its_start_its_scope_and_its_reviewer() {
    let fixture = Fixture::new().await;
    let (ada, boss) = (fixture.ada(), fixture.boss());
    let body = fixture.campaign(&ada, &boss);
    let invalid = |words| (400, "E0000001", words);
    let refused = async |pointer, value, expected| {
        fixture.check_refused(CAMPAIGNS, &body, (pointer, value), expected).await;
    };
    for part in ["/scheduleSettings", "/resourceSettings", "/reviewerSettings", "/remediationSettings"] {
        refused(part, Value::Null, invalid(part.trim_start_matches('/'))).await;
    }
    refused("/scheduleSettings", json!({"type": "ONE_OFF"}), invalid("scheduleSettings.startDate")).await;
    for past in [-1, 0] {
        refused("/scheduleSettings/startDate", json!(fixture.at(past)), invalid("must be a future date")).await;
    }
    refused("/scheduleSettings/startDate", json!("soon"), invalid("must be a future date")).await;
    refused("/principalScopeSettings/userIds", json!([]), invalid("Users are required")).await;
    refused("/principalScopeSettings/userIds", json!(["00u1nobody0000000001"]), (404, "E0000007", "(User)")).await;
    refused("/reviewerSettings/reviewerId", json!("00u1nobody0000000001"), (404, "E0000007", "(User)")).await;
    refused("/reviewerSettings/reviewerId", Value::Null, invalid("The reviewer is required")).await;
    let expression = json!({"type": "REVIEWER_EXPRESSION"});
    refused("/reviewerSettings", expression, invalid("fallBackReviewerId")).await;

    let mut of_app = body.clone();
    of_app["campaignType"] = json!("RESOURCE");
    let scope = json!({"userScopeExpression": format!("user.id == \"{}\"", ada.id)});
    of_app["principalScopeSettings"] = scope;
    let none = ("/resourceSettings", json!({"targetResources": []}));
    fixture.check_refused(CAMPAIGNS, &of_app, none, invalid("resourceSettings.targetResources")).await;
    let unknown = ("/resourceSettings", json!({"targetResources": [{"resourceId": "0oa1nothing000000001"}]}));
    fixture.check_refused(CAMPAIGNS, &of_app, unknown, (404, "E0000007", "AppInstance")).await;
    let wrong = ("/principalScopeSettings/userScopeExpression", json!("user.login == \"ada\""));
    fixture.check_refused(CAMPAIGNS, &of_app, wrong, invalid("user.id ==")).await;
}

#[tokio::test]
async fn a_campaign_is_launched_once() {
    let fixture = Fixture::new().await;
    let (ada, boss) = (fixture.ada(), fixture.boss());
    let created = fixture.post(CAMPAIGNS, &fixture.campaign(&ada, &boss)).await;
    assert_eq!((created.status, &created.body["status"]), (201, &json!("SCHEDULED")));
    let launch = format!("{CAMPAIGNS}/{}/launch", created.body["id"].as_str().unwrap());
    assert_eq!(fixture.post(&launch, &Value::Null).await.status, 202);
    let again = fixture.post(&launch, &Value::Null).await;
    assert_eq!(again.error(), (409, "E0000195"));
    assert!(again.body.to_string().contains("must be scheduled"), "{}", again.body);
    assert_eq!(fixture.org.effects_of("campaign.launch").len(), 1);
    let unknown = fixture.post(&format!("{CAMPAIGNS}/ici1nothing/launch"), &Value::Null).await;
    assert_eq!(unknown.error(), (404, "E0000007"));
}

#[tokio::test]
async fn reviews_are_found_by_their_exact_name_and_by_no_other_filter() {
    let fixture = Fixture::new().await;
    let (ada, boss) = (fixture.ada(), fixture.boss());
    assert_eq!(fixture.post(REVIEWS, &fixture.review(&ada, &boss)).await.status, 202);
    let found = async |path: &str, filter: &str| {
        let request = fixture.request(Method::GET, path).query(&[("filter", filter)]);
        Answer::of(request.send().await.unwrap()).await
    };
    let count = |answer: &Answer| answer.body["data"].as_array().map(Vec::len);
    assert_eq!(count(&found(REVIEWS, "name eq \"Review [k]\"").await), Some(1));
    assert_eq!(count(&found(REVIEWS, "name eq \"Review\"").await), Some(0));
    assert_eq!(count(&found(CAMPAIGNS, "name eq \"Review [k]\"").await), Some(0), "a review is no campaign");
    for wrong in ["name sw \"Review\"", "status eq \"ACTIVE\"", "name eq Review", "name eq \"Review"] {
        for path in [REVIEWS, CAMPAIGNS] {
            assert_eq!(found(path, wrong).await.error(), (400, "E0000031"), "{path} {wrong}");
        }
    }
}

#[tokio::test]
async fn an_org_without_security_access_reviews_has_campaigns() {
    let options = OrgOptions { security_access_reviews: false, ..OrgOptions::default() };
    let fixture = Fixture::with(options).await;
    let (ada, boss) = (fixture.ada(), fixture.boss());
    let refused = fixture.post(REVIEWS, &fixture.review(&ada, &boss)).await;
    assert_eq!(refused.error(), (401, "E0000015"));
    assert_eq!(fixture.post(CAMPAIGNS, &fixture.campaign(&ada, &boss)).await.status, 201);
}
