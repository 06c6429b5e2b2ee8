use serde_json::json;

use super::signing::{APP, Change, Desk, GOOD, Key, SCOPES};
use super::*;
use crate::demo::org::events::risk_detected;
use crate::demo::org::{AppKey, RateLimits, Service, ServiceApp, Ungranted};

const CLIENT: (u16, &str) = (401, "invalid_client");

#[tokio::test]
async fn every_algorithm_opens_the_door_with_either_form_of_the_key() {
    let mut desk = Desk::new().await;
    for algorithm in ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"] {
        desk.key = Key::new(algorithm);
        let mut jwk = desk.key.jwk();
        jwk["kid"] = json!("one");
        for key in [AppKey::Jwk(jwk), desk.key.spki("one")] {
            desk.fixture.org.set_app_keys(APP, vec![key]);
            let answer = desk.token(SCOPES).await;
            let read = desk.read("/api/v1/logs", &answer.token()).await;
            assert_eq!((read.status, &answer.body["token_type"]), (200, &json!("Bearer")), "{algorithm}");
        }
    }
    let answer = desk.token("okta.logs.read").await;
    assert_eq!((&answer.body["expires_in"], &answer.body["scope"]), (&json!(3600), &json!("okta.logs.read")));
    assert_eq!(answer.header("cache-control"), "no-cache, no-store");
    assert_eq!(answer.header("x-rate-limit-limit"), RateLimits::default().token.to_string());
    assert!(answer.headers.contains_key("date") && answer.headers.contains_key("x-okta-request-id"));
}

#[tokio::test]
async fn an_assertion_that_is_not_right_is_refused_in_okta_s_words() {
    let desk = Desk::new().await;
    let now = desk.now();
    let audience = "The audience claim for client_assertion must be the endpoint invoked for the request.";
    let signature = "The client_assertion signature is invalid.";
    let kid = "The client_assertion JWT kid is invalid.";
    let who = "The issuer and subject of the client_assertion must be the client id.";
    let rows: [(&str, Change<'_>); 13] = [
        (audience, &|_, claims| claims["aud"] = json!(desk.fixture.org.okta_url())),
        (audience, &|_, claims| claims["aud"] = json!([claims["aud"], "https://elsewhere.example"])),
        (audience, &|_, claims| claims["aud"] = Value::Null),
        ("The client_assertion token is expired.", &|_, claims| claims["exp"] = json!(now - 1)),
        ("The client_assertion token has an expiration too far into the future.", &|_, claims| {
            claims["exp"] = json!(now + 3700);
        }),
        ("The client_assertion token must have an expiration.", &|_, claims| claims["exp"] = json!("soon")),
        ("The client_assertion token is issued in the future.", &|_, claims| claims["iat"] = json!(now + 600)),
        ("Invalid value for 'client_id' parameter.", &|_, claims| {
            (claims["iss"], claims["sub"]) = (json!("0oa0stranger"), json!("0oa0stranger"));
        }),
        (who, &|_, claims| claims["sub"] = json!("0oa0stranger")),
        (kid, &|header, _| header["kid"] = json!("two")),
        ("The client_assertion signing algorithm is not supported.", &|header, _| header["alg"] = json!("none")),
        ("The client_assertion signing algorithm is not supported.", &|header, _| header["alg"] = json!("HS256")),
        (signature, &|header, _| header["alg"] = json!("RS256")),
    ];
    for (words, change) in rows {
        let answer = desk.ask(&desk.assertion(change), SCOPES, None).await;
        assert_eq!(answer.refusal(), (CLIENT.0, CLIENT.1, words));
    }
    let stranger = Key::new("ES256").sign(&json!({"alg": "ES256", "kid": "one"}), &json!({"iss": APP, "sub": APP}));
    assert_eq!(desk.ask(&stranger, SCOPES, None).await.refusal(), (CLIENT.0, CLIENT.1, signature));
    let broken = desk.ask("no.token", SCOPES, None).await;
    assert_eq!(broken.refusal(), (CLIENT.0, CLIENT.1, "The parsing of the client_assertion failed."));
    assert_eq!((desk.fixture.org.tokens_given(), desk.fixture.org.token_requests().len()), (0, 15));
    desk.token(SCOPES).await.token();
}

#[tokio::test]
async fn an_assertion_counts_once_and_one_without_id_counts_again() {
    let desk = Desk::new().await;
    let assertion = desk.assertion(GOOD);
    desk.ask(&assertion, SCOPES, None).await.token();
    let words = "The client_assertion token has already been used.";
    assert_eq!(desk.ask(&assertion, SCOPES, None).await.refusal(), (CLIENT.0, CLIENT.1, words));
    let nameless = desk.assertion(&|_, claims| claims["jti"] = Value::Null);
    desk.ask(&nameless, SCOPES, None).await.token();
    desk.ask(&nameless, SCOPES, None).await.token();
}

#[tokio::test]
async fn a_key_id_is_only_needed_where_there_are_several_keys() {
    let desk = Desk::new().await;
    let nameless = || desk.assertion(&|header, _| header["kid"] = Value::Null);
    desk.ask(&nameless(), SCOPES, None).await.token();
    desk.fixture.org.set_app_keys(APP, vec![desk.key.spki("one"), Key::new("ES256").spki("two")]);
    let words = "The client_assertion JWT kid is invalid.";
    assert_eq!(desk.ask(&nameless(), SCOPES, None).await.refusal(), (CLIENT.0, CLIENT.1, words));
    desk.token(SCOPES).await.token();
}

#[tokio::test]
async fn the_org_judges_by_its_own_clock() {
    for (hours, words) in [
        (2, "The client_assertion token is expired."),
        (-2, "The client_assertion token has an expiration too far into the future."),
    ] {
        let clock_offset = jiff::SignedDuration::from_hours(hours);
        let desk = Desk::of(OrgOptions { clock_offset, ..OrgOptions::default() }, ServiceApp::without_dpop).await;
        let ours = desk.now() - hours * 3600;
        let skewed = desk.assertion(&|_, claims| (claims["iat"], claims["exp"]) = (json!(ours), json!(ours + 300)));
        assert_eq!(desk.ask(&skewed, SCOPES, None).await.refusal(), (CLIENT.0, CLIENT.1, words));
        desk.token(SCOPES).await.token();
    }
}

#[tokio::test]
async fn a_request_that_is_none_is_refused() {
    let desk = Desk::new().await;
    let assertion = desk.assertion(GOOD);
    let grant = desk.post(&[("grant_type", "password"), ("client_assertion", &assertion)], None).await;
    assert_eq!((grant.status, grant.refusal().1), (400, "unsupported_grant_type"));
    let form = [("grant_type", "client_credentials"), ("client_assertion", assertion.as_str())];
    assert_eq!(desk.post(&form, None).await.refusal().1, "invalid_client", "without its type");
    let json = desk.fixture.client.post(desk.token_url()).json(&json!({})).send().await.unwrap();
    assert_eq!(Answer::of(json).await.refusal().1, "invalid_request");
}

#[tokio::test]
async fn only_granted_scopes_are_given_and_what_is_missing_is_left_out_or_refused() {
    let desk = Desk::new().await;
    let refused = async |scope: &str| {
        let answer = desk.token(scope).await;
        (answer.status, answer.refusal().1.to_owned())
    };
    assert_eq!(refused("").await, (400, "invalid_scope".to_owned()));
    assert_eq!(refused("okta.logs.read okta.nonsense").await, (400, "invalid_scope".to_owned()));
    assert_eq!(refused("okta.groups.manage").await, (400, "consent_required".to_owned()));
    let some = desk.token("okta.logs.read okta.groups.manage").await;
    assert_eq!((some.status, &some.body["scope"]), (200, &json!("okta.logs.read")));
    let noted = desk.fixture.org.token_requests().pop().unwrap();
    assert_eq!((noted.client_id.as_str(), noted.asked.len(), noted.given.len()), (APP, 2, 1));

    desk.fixture.org.grant_scope(APP, "okta.groups.manage");
    assert_eq!(desk.token("okta.groups.manage").await.status, 200);
    desk.fixture.org.ungrant_scope(APP, "okta.groups.manage");
    assert_eq!(refused("okta.groups.manage").await, (400, "consent_required".to_owned()));

    let options = OrgOptions { ungranted: Ungranted::Refused, ..OrgOptions::default() };
    let strict = Desk::of(options, ServiceApp::without_dpop).await;
    let answer = strict.token("okta.logs.read okta.groups.manage").await;
    assert_eq!((answer.status, answer.refusal().1), (400, "invalid_scope"));
}

#[tokio::test]
async fn a_revoked_app_gets_no_token_and_its_tokens_are_worth_nothing() {
    let desk = Desk::new().await;
    let token = desk.token(SCOPES).await.token();
    desk.fixture.org.revoke_app(APP);
    assert_eq!(desk.read("/api/v1/logs", &token).await.challenge(), (401, "invalid_token"));
    let words = "Invalid value for 'client_id' parameter.";
    assert_eq!(desk.token(SCOPES).await.refusal(), (CLIENT.0, CLIENT.1, words));
    desk.fixture.org.restore_app(APP);
    assert_eq!(desk.read("/api/v1/logs", &token).await.status, 200);
}

#[tokio::test]
async fn a_token_ends_with_its_time_or_when_the_org_says_so() {
    let desk = Desk::new().await;
    let token = desk.token(SCOPES).await.token();
    assert_eq!(desk.read("/api/v1/logs", &token).await.status, 200);
    desk.fixture.org.expire_tokens();
    let refused = desk.read("/api/v1/logs", &token).await;
    assert_eq!((refused.challenge(), refused.error()), ((401, "invalid_token"), (401, "E0000011")));
    assert!(refused.header("www-authenticate").starts_with("Bearer authorization_uri=\"http://127.0.0.1:"));

    let options = OrgOptions { token_lifetime: Duration::ZERO, ..OrgOptions::default() };
    let brief = Desk::of(options, ServiceApp::without_dpop).await;
    let token = brief.token(SCOPES).await.token();
    assert_eq!(brief.read("/api/v1/logs", &token).await.challenge(), (401, "invalid_token"));
}

#[tokio::test]
async fn scopes_are_enforced_at_every_endpoint_and_the_answer_names_the_one_that_is_missing() {
    let granted = |app: ServiceApp| app.without_dpop().granted(["okta.users.read", "okta.groups.manage"]);
    let desk = Desk::of(OrgOptions::default(), granted).await;
    let token = desk.token("okta.users.read okta.groups.manage").await.token();
    let ada = desk.fixture.ada();
    assert_eq!(desk.read(&format!("/api/v1/users/{}", ada.id), &token).await.status, 200);
    for (path, scope) in [
        ("/api/v1/groups".to_owned(), "okta.groups.read"),
        ("/api/v1/logs".to_owned(), "okta.logs.read"),
        (format!("/api/v1/users/{}/risk", ada.id), "okta.userRisk.read"),
        ("/api/v1/groups".to_owned(), "okta.groups.read"),
    ] {
        let refused = desk.read(&path, &token).await;
        assert_eq!((refused.challenge(), &refused.body), ((403, "insufficient_scope"), &json!("")), "{path}");
        let challenge = refused.header("www-authenticate");
        assert!(challenge.contains(&format!("scope=\"{scope}\"")), "{challenge}");
        assert!(challenge.contains(&format!("resource=\"{path}\"")), "{challenge}");
    }
}

#[tokio::test]
async fn an_app_without_a_role_may_do_nothing_and_has_no_user() {
    let desk = Desk::new().await;
    let token = desk.token(SCOPES).await.token();
    assert_eq!(desk.read("/api/v1/users/me", &token).await.error(), (404, "E0000007"));
    desk.fixture.org.set_app_roles(APP, &[]);
    assert_eq!(desk.read("/api/v1/logs", &token).await.error(), (403, "E0000006"));
    desk.fixture.org.set_app_roles(APP, &["READ_ONLY_ADMIN"]);
    assert_eq!(desk.read("/api/v1/logs", &token).await.status, 200);
}

#[tokio::test]
async fn risk_events_are_hidden_from_all_but_super_administrators_where_the_org_is_so() {
    let options = OrgOptions { risk_events_for_super_admins: true, ..OrgOptions::default() };
    let desk = Desk::of(options, ServiceApp::without_dpop).await;
    let org = &desk.fixture.org;
    let shown = [org.push_event(risk_detected(&desk.fixture.ada(), "LOW", "HIGH"))];
    let token = desk.token(SCOPES).await.token();
    let filtered = "/api/v1/logs?filter=eventType%20eq%20%22user.risk.detect%22";
    for path in ["/api/v1/logs", filtered] {
        assert_eq!(desk.read(path, &token).await.uuids(), shown);
    }
    org.set_app_roles(APP, &["READ_ONLY_ADMIN"]);
    for path in ["/api/v1/logs", filtered] {
        assert!(desk.read(path, &token).await.uuids().is_empty());
    }
    assert!(desk.fixture.get("/api/v1/logs").await.uuids().is_empty(), "the owner of the SSWS token has no role");
    org.give_role(org.token_owner(), "SUPER_ADMIN");
    assert_eq!(desk.fixture.get("/api/v1/logs").await.uuids(), shown);
}

#[tokio::test]
async fn the_app_is_the_actor_of_what_it_does() {
    let desk = Desk::of(OrgOptions::default(), |app| app.without_dpop().granted(["okta.groups.manage"])).await;
    let token = desk.token("okta.groups.manage").await.token();
    let (ada, group) = (desk.fixture.ada(), desk.fixture.org.add_group("High Risk Users"));
    let url = format!("{}/api/v1/groups/{group}/users/{}", desk.fixture.org.okta_url(), ada.id);
    let done = desk.fixture.client.put(url).bearer_auth(token).send().await.unwrap();
    assert_eq!(done.status(), 204);
    let log = desk.fixture.get("/api/v1/logs").await;
    let actor = &log.body[0]["actor"];
    assert_eq!((&actor["id"], &actor["type"]), (&json!(APP), &json!("PublicClientApp")));
}

#[tokio::test]
async fn ssws_tokens_are_replaced_or_forbidden() {
    let fixture = Fixture::new().await;
    fixture.org.replace_secrets(|secrets| "another".clone_into(&mut secrets.okta_token));
    assert_eq!(fixture.get("/api/v1/logs").await.error(), (401, "E0000011"));
    let url = format!("{}/api/v1/logs", fixture.org.okta_url());
    let answer = fixture.client.get(&url).header("authorization", "SSWS another").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let without = Fixture::with(OrgOptions { ssws_allowed: false, ..OrgOptions::default() }).await;
    assert_eq!(without.get("/api/v1/logs").await.error(), (401, "E0000011"));
}

#[tokio::test]
async fn principals_have_parts_of_a_bucket_of_their_own_and_the_token_endpoint_one_for_all() {
    let rate_limits = RateLimits { logs: 4, token: 2, ..RateLimits::default() };
    let options = OrgOptions { rate_limits, principal_percent: 50, ..OrgOptions::default() };
    let desk = Desk::of(options, ServiceApp::without_dpop).await;
    let token = desk.token(SCOPES).await.token();
    let app: Vec<u16> = [
        desk.read("/api/v1/logs", &token).await.status,
        desk.read("/api/v1/logs", &token).await.status,
        desk.read("/api/v1/logs", &token).await.status,
    ]
    .into();
    assert_eq!(app, [200, 200, 429]);
    assert_eq!(desk.fixture.get("/api/v1/logs").await.status, 200, "the other principal's part is untouched");
    assert_eq!(desk.token(SCOPES).await.status, 200);
    assert_eq!(desk.token(SCOPES).await.status, 429);
    assert_eq!(desk.fixture.org.request_count(Service::Okta, "/oauth2/v1/token"), 3);
}
