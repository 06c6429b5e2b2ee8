//! A service app against an org that judges what it sends.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::SignedDuration;
use reqwest::Method;

use super::testing::{CLIENT_ID, Fault, House, Org, key};
use super::*;
use crate::config::secret::{SecretEnv, SecretSource};
use crate::model::outcome::{Outcome, Reason};
use crate::okta::{ApiPath, OktaError, OktaErrorKind};

impl House {
    /// One request to the API, with a query.
    async fn get(&self) -> Result<(), OktaError> {
        let path = ApiPath::new(["api", "v1", "logs"]).unwrap();
        self.client.get(&path, &[("since", "2026-08-24T10:00:00Z")]).await.map(drop)
    }

    /// Waits until nobody asks the token endpoint.
    async fn settled(&self) {
        self.oauth.settled().await;
    }
}

impl Org {
    fn counts(&self) -> (usize, usize) {
        let world = self.world();
        (world.asked, world.requests)
    }

    /// Nothing that was ever sent stands in the text.
    fn keeps_secrets(&self, text: &str) {
        let world = self.world();
        let key = self.private.lines().nth(1).unwrap();
        for secret in world.secrets.iter().map(String::as_str).chain([key]) {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

fn fault(status: u16, body: &str) -> Option<Fault> {
    Some(Fault { status, headers: Vec::new(), body: body.to_owned() })
}

#[tokio::test]
async fn a_token_is_fetched_once_and_goes_with_every_request() {
    let org = Org::new().await;
    let house = org.house(Dpop::Auto);
    assert_eq!(org.counts(), (0, 0), "nothing is sent before it is needed");
    for _ in 0..3 {
        house.get().await.unwrap();
    }
    assert_eq!(org.counts(), (1, 3));
    let granted = house.client.granted().await.unwrap().unwrap();
    assert_eq!(
        granted,
        Granted {
            client_id: CLIENT_ID.to_owned(),
            dpop: false,
            lifetime: Duration::from_secs(3600),
            scopes: ["okta.logs.read", "okta.users.read"].map(str::to_owned).into(),
        }
    );
    assert_eq!(house.client.own_id().await.unwrap(), CLIENT_ID, "Okta is not asked who we are");
    assert_eq!(org.counts(), (1, 3));
}

#[tokio::test]
async fn fifty_tasks_cause_one_question() {
    let org = Org::new().await;
    let house = org.house(Dpop::Auto);
    assert!(join_all((0..50).map(|_| house.get())).await.iter().all(Result::is_ok));
    assert_eq!(org.counts(), (1, 50));
    // All of them are refused at once.
    org.world().forget_tokens();
    assert!(join_all((0..50).map(|_| house.get())).await.iter().all(Result::is_ok));
    let (asked, requests) = org.counts();
    assert!(asked == 2 && (101..=150).contains(&requests), "{asked} {requests}");
}

#[tokio::test]
async fn a_failed_question_is_not_asked_again_by_everybody() {
    let org = Org::new().await;
    org.world().active = false;
    let house = org.house(Dpop::Auto);
    for round in 1..4 {
        let errors = join_all((0..16).map(|_| house.get())).await;
        assert!(errors.iter().all(|error| error.as_ref().is_err_and(|e| e.kind == OktaErrorKind::NoCredential)));
        assert_eq!(org.counts(), (round, 0));
        org.clocks.pass(45.0);
    }
    org.world().active = true;
    house.get().await.unwrap();
}

#[tokio::test]
async fn who_waits_goes_on_when_the_one_that_asks_is_given_up() {
    let org = Org::new().await;
    let house = org.house(Dpop::Auto);
    {
        let mut first = std::pin::pin!(house.get());
        assert!(futures_util::poll!(&mut first).is_pending());
    }
    house.get().await.unwrap();
}

#[tokio::test]
async fn a_token_is_renewed_early_and_nobody_waits_for_it() {
    let org = Org::new().await;
    let house = org.house(Dpop::Auto);
    house.get().await.unwrap();
    org.clocks.pass(2879.0);
    house.get().await.unwrap();
    house.settled().await;
    assert_eq!(org.counts(), (1, 2), "four fifths of its life are not over");
    org.clocks.pass(2.0);
    for _ in 0..5 {
        house.get().await.unwrap();
    }
    house.settled().await;
    assert_eq!(org.counts(), (2, 7));
    org.clocks.pass(720.0);
    house.get().await.unwrap();
    house.settled().await;
    assert_eq!(org.counts(), (2, 8), "past the end of the first, within the life of the second");
}

#[tokio::test]
async fn an_old_token_goes_on_until_its_end_while_it_cannot_be_renewed() {
    let org = Org::new().await;
    let house = org.house(Dpop::Auto);
    house.get().await.unwrap();
    org.world().fault = fault(503, "");
    org.clocks.pass(2881.0);
    for _ in 0..5 {
        house.get().await.unwrap();
        house.settled().await;
    }
    assert_eq!(org.counts(), (2, 6), "it is not hammered");
    org.clocks.pass(60.0);
    house.get().await.unwrap();
    house.settled().await;
    assert_eq!(org.counts(), (3, 7));
    org.clocks.pass(660.0);
    let error = house.get().await.unwrap_err();
    assert_eq!(error.reason(), Reason::ServiceError, "now it has ended");
    assert!(matches!(error.to_outcome(true), Outcome::Transient(_)), "nothing was sent");
    org.world().fault = None;
    org.clocks.pass(60.0);
    house.get().await.unwrap();
}

#[tokio::test]
async fn tokens_that_live_for_moments_work_as_well() {
    for life in [3.0, 0.5, 0.0] {
        let org = Org::new().await;
        org.world().life_s = life.into();
        let house = org.house(Dpop::Required);
        for _ in 0..10 {
            house.get().await.unwrap();
            house.settled().await;
            org.clocks.pass(1.0);
        }
        let (asked, requests) = org.counts();
        assert!(requests == 10 && asked <= 12, "{asked} questions for tokens of {life} s");
    }
}

#[tokio::test]
async fn a_refused_token_is_renewed_once() {
    let org = Org::new().await;
    let house = org.house(Dpop::Auto);
    house.get().await.unwrap();
    org.world().forget_tokens();
    house.get().await.unwrap();
    assert_eq!(org.counts(), (2, 3));
    // Again, at once: what was taken may be renewed.
    org.world().forget_tokens();
    house.get().await.unwrap();
    assert_eq!(org.counts(), (3, 5));
}

#[tokio::test]
async fn why_a_refused_token_cannot_be_renewed_is_what_is_said() {
    let org = Org::new().await;
    let house = org.house(Dpop::Auto);
    house.get().await.unwrap();
    org.world().forget_tokens();
    org.world().fault = fault(503, "");
    let error = house.get().await.unwrap_err();
    assert_eq!(error.kind, OktaErrorKind::NoTokenYet { reason: Reason::ServiceError, wait: None }, "it passes");
    assert!(matches!(error.to_outcome(true), Outcome::Transient(_)), "the refused request was not carried out");
    org.world().fault = None;
    org.world().active = false;
    org.clocks.pass(45.0);
    house.get().await.unwrap_err();
    org.world().active = true;
    org.clocks.pass(45.0);
    house.get().await.unwrap();
}

#[tokio::test]
async fn an_api_that_takes_no_token_at_all_does_not_make_us_ask_for_ever() {
    let org = Org::new().await;
    org.world().closed = true;
    let house = org.house(Dpop::Auto);
    assert_eq!(house.get().await.unwrap_err().kind, OktaErrorKind::Unauthorized);
    assert_eq!(org.counts(), (2, 2));
    for _ in 0..10 {
        let error = house.get().await.unwrap_err();
        assert_eq!(error.kind, OktaErrorKind::NoCredential);
        assert!(error.to_failure().detail.contains("tokens that it has just given out"), "{error}");
    }
    assert_eq!(org.counts(), (2, 2));
    org.world().closed = false;
    org.clocks.pass(60.0);
    house.get().await.unwrap();
}

#[tokio::test]
async fn tokens_that_the_api_never_takes_are_asked_for_less_and_less_often() {
    let org = Org::new().await;
    let house = org.house(Dpop::Auto);
    house.get().await.unwrap();
    org.world().closed = true;
    for _ in 0..600 {
        house.get().await.unwrap_err();
        org.clocks.pass(0.5);
    }
    let (asked, _) = org.counts();
    assert!((10..60).contains(&asked), "{asked} questions in five minutes");
    org.world().closed = false;
    org.clocks.pass(40.0);
    house.get().await.unwrap();
    // The next trouble begins with a short pause again.
    org.world().closed = true;
    house.get().await.unwrap_err();
    org.world().closed = false;
    org.clocks.pass(2.0);
    house.get().await.unwrap();
}

#[tokio::test]
async fn a_refused_token_is_never_sent_again_even_if_it_is_given_again() {
    let org = Org::new().await;
    org.world().same_token = true;
    let house = org.house(Dpop::Auto);
    house.get().await.unwrap();
    org.world().forget_tokens();
    assert_eq!(house.get().await.unwrap_err().kind, OktaErrorKind::NoCredential);
    assert_eq!(org.counts(), (2, 2));
    assert_eq!(house.get().await.unwrap_err().kind, OktaErrorKind::NoCredential);
    assert_eq!(org.counts(), (2, 2));
}

#[tokio::test]
async fn a_feature_that_the_org_lacks_is_no_reason_for_a_new_token() {
    let org = Org::new().await;
    let house = org.house(Dpop::Auto);
    let pass = house.oauth.pass(&Method::GET, &org.url).await.unwrap();
    assert_eq!(org.counts(), (1, 0));
    let mut server = mockito::Server::new_async().await;
    let body = crate::okta::testing::error_body("E0000015", "no feature");
    let mock = server.mock("GET", "/x").with_status(401).with_body(body).expect(1).create_async().await;
    let settings = crate::okta::OktaSettings {
        org_url: Url::parse(&server.url()).unwrap(),
        admin_url: org.url.clone(),
        timeout: Duration::from_secs(5),
        network: crate::http::Network::default(),
    };
    let client = crate::okta::OktaClient::new(&settings, Auth::new(Arc::new(house.oauth.clone()))).unwrap();
    let error = client.get(&ApiPath::new(["x"]).unwrap(), &[]).await.unwrap_err();
    assert_eq!(error.kind, OktaErrorKind::FeatureNotEnabled);
    mock.assert_async().await;
    assert_eq!(org.counts(), (1, 0));
    drop(pass);
}

#[tokio::test]
async fn dpop_is_gone_over_to_when_the_org_demands_it() {
    let org = Org::new().await;
    org.world().dpop = true;
    let house = org.house(Dpop::Auto);
    house.get().await.unwrap();
    assert_eq!(org.counts(), (3, 1), "without a proof, without a nonce, with it");
    assert_eq!(org.world().nonces, ["T-", "Tt1", "A-"]);
    assert!(house.client.granted().await.unwrap().unwrap().dpop);
    // From now on it begins with what it knows.
    org.clocks.pass(3600.0);
    house.get().await.unwrap();
    assert_eq!(org.counts(), (4, 2));
}

#[tokio::test]
async fn a_nonce_that_the_server_renews_is_taken_over() {
    let org = Org::new().await;
    org.world().dpop = true;
    let house = org.house(Dpop::Required);
    house.get().await.unwrap();
    assert_eq!(org.counts(), (2, 1));
    org.world().nonces.clear();
    org.world().token_nonce = Some("t2".to_owned());
    org.world().api_nonce = Some("a1".to_owned());
    org.clocks.pass(3600.0);
    house.get().await.unwrap();
    house.get().await.unwrap();
    assert_eq!(org.world().nonces, ["Tt1", "Tt2", "A-", "Aa1", "Aa1"], "each server has its own");
    org.world().nonces.clear();
    org.world().api_nonce = Some("a2".to_owned());
    assert!(join_all((0..8).map(|_| house.get())).await.iter().all(Result::is_ok));
    house.get().await.unwrap();
    assert_eq!(org.world().nonces.last().unwrap(), "Aa2");
    // A new nonce and a forgotten token in one request.
    org.world().api_nonce = Some("a3".to_owned());
    org.world().forget_tokens();
    house.get().await.unwrap();
}

#[tokio::test]
async fn dpop_that_is_off_and_demanded_is_said() {
    let org = Org::new().await;
    org.world().dpop = true;
    let house = org.house(Dpop::Off);
    let error = house.get().await.unwrap_err();
    assert_eq!((error.kind, org.counts()), (OktaErrorKind::NoCredential, (1, 0)));
    assert!(error.to_failure().detail.contains("`okta.dpop` is \"off\""), "{}", error.to_failure());
}

#[tokio::test]
async fn a_token_that_is_not_bound_is_refused_where_dpop_is_required() {
    let org = Org::new().await;
    org.world().always_bearer = true;
    let error = org.house(Dpop::Required).get().await.unwrap_err();
    assert!(error.to_failure().detail.contains("is of the type Bearer, and `okta.dpop`"), "{}", error.to_failure());
    assert_eq!(org.counts().1, 0);
    org.house(Dpop::Auto).get().await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_never_content_with_a_nonce_is_given_up() {
    let org = Org::new().await;
    org.world().never_content = true;
    let error = org.house(Dpop::Required).get().await.unwrap_err();
    assert!(error.to_failure().detail.contains("asks for a DPoP nonce"), "{}", error.to_failure());
    assert!(org.counts().0 <= 5, "{:?}", org.counts());
}

#[tokio::test]
async fn a_clock_that_is_off_on_either_side_is_put_right_by_oktas() {
    for ahead in [423, -423, 86_400, -86_400] {
        for dpop in [Dpop::Auto, Dpop::Required] {
            let org = Org::new().await;
            org.world().ahead = SignedDuration::from_secs(ahead);
            let house = org.house(dpop);
            house.get().await.unwrap_or_else(|error| panic!("{ahead}: {}", error.to_failure()));
            let (asked, _) = org.counts();
            // The next token takes no detour.
            org.clocks.pass(3600.0);
            house.get().await.unwrap();
            assert_eq!(org.counts().0, asked + 1, "{ahead}");
        }
    }
}

#[tokio::test]
async fn a_clock_that_is_set_while_we_work_is_noticed_by_the_api_as_well() {
    let org = Org::new().await;
    let house = org.house(Dpop::Required);
    house.get().await.unwrap();
    org.world().ahead = SignedDuration::from_secs(-7200);
    house.get().await.unwrap();
    assert_eq!(org.counts().1, 3);
    // And back.
    org.world().ahead = SignedDuration::ZERO;
    house.get().await.unwrap();
    assert_eq!(org.counts().1, 5);
}

#[tokio::test]
async fn a_clock_that_is_off_is_said_when_the_key_is_wrong_besides() {
    let org = Org::new().await;
    org.world().ahead = SignedDuration::from_secs(423);
    org.world().active = false;
    let error = org.house(Dpop::Auto).get().await.unwrap_err();
    let detail = error.to_failure().detail;
    assert!(detail.contains("this host's clock is 7m 3s behind Okta's"), "{detail}");
}

fn write_key(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn a_key_that_was_replaced_is_read_again_when_the_old_one_is_refused() {
    let org = Org::new().await;
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("key");
    write_key(&path, &org.private);
    let source = SecretSource::File(path.clone());
    let secret = LiveSecret::read_key(&source, &SecretEnv::new(None, |_| None)).unwrap();
    let house = org.house_with(Dpop::Auto, secret);
    house.get().await.unwrap();
    // The app gets another key; the file does later.
    let (private, public) = key();
    org.world().public = public;
    org.clocks.pass(3600.0);
    assert_eq!(house.get().await.unwrap_err().kind, OktaErrorKind::NoCredential);
    write_key(&path, "-----BEGIN PRIVATE KEY-----\nnot yet whole");
    org.clocks.pass(45.0);
    let error = house.get().await.unwrap_err();
    assert!(error.to_failure().detail.contains("the PEM text is damaged"), "{}", error.to_failure());
    write_key(&path, &private);
    org.clocks.pass(45.0);
    house.get().await.unwrap();
    assert_eq!(org.counts().1, 2);
}

/// What comes of an answer of the token endpoint, and what is said about it.
async fn check(fault: Option<Fault>, kind: OktaErrorKind, words: &[&str]) -> OktaError {
    let org = Org::new().await;
    org.world().fault = fault;
    let error = org.house(Dpop::Auto).get().await.unwrap_err();
    assert_eq!(error.kind, kind, "{error:?}");
    assert!(matches!(error.to_outcome(true), Outcome::Transient(_) | Outcome::RetryAfter(..)), "{error:?}");
    let detail = error.to_failure().detail;
    for word in words {
        assert!(detail.contains(word), "`{word}` is not in: {detail}");
    }
    org.keeps_secrets(&format!("{error} {error:?} {detail}"));
    error
}

#[tokio::test]
async fn every_refusal_says_what_to_do() {
    let person = OktaErrorKind::NoCredential;
    let coded =
        |code: &str| fault(400, &format!(r#"{{"error": "{code}", "error_description": "Okta's\u001b words"}}"#));
    check(
        coded("invalid_client"),
        person,
        &[CLIENT_ID, "ES256", "key id k1", "(\"Okta's  words\")", "okta.private_key"],
    )
    .await;
    let by_api = r#"{"errorCode": "invalid_client", "errorSummary": "Invalid value for 'client_id' parameter."}"#;
    check(fault(401, by_api), person, &["Invalid value for 'client_id' parameter.", "active app of this org"]).await;
    let scopes = &["okta.logs.read okta.users.read", "Okta API Scopes", "super administrator"];
    check(coded("invalid_scope"), person, scopes).await;
    check(coded("unauthorized_client"), person, &["unauthorized_client", "Client Credentials"]).await;
    let org = Org::new().await;
    org.world().fault = coded("invalid_dpop_proof");
    let error = org.house(Dpop::Required).get().await.unwrap_err();
    assert!(error.to_failure().detail.contains("does not take the DPoP proof"), "{}", error.to_failure());
}

#[tokio::test]
async fn trouble_of_the_token_endpoint_passes() {
    let passing = |reason, wait| OktaErrorKind::NoTokenYet { reason, wait };
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    check(fault(500, ""), passing(Reason::ServiceError, None), &["answered 500"]).await;
    check(fault(429, "{}"), passing(Reason::RateLimited, seconds(60)), &["answered 429"]).await;
    let mut wait = fault(503, "").unwrap();
    wait.headers.push(("retry-after", "7".to_owned()));
    check(Some(wait), passing(Reason::ServiceError, seconds(7)), &["503"]).await;
    // What waits for a token comes back when the endpoint is asked again, and no later.
    let mut absurd = fault(503, "").unwrap();
    absurd.headers.push(("retry-after", "86400".to_owned()));
    check(Some(absurd), passing(Reason::ServiceError, seconds(300)), &["503"]).await;
    let mut page = fault(200, "<html>sign in</html>").unwrap();
    page.headers.push(("content-type", "text/html".to_owned()));
    let garbage = passing(Reason::BadAnswer, None);
    check(Some(page), garbage, &["HTML page", "okta.org_url"]).await;
    check(fault(302, ""), garbage, &["302"]).await;
    check(fault(400, "[]"), garbage, &["400"]).await;
    check(fault(200, "{}"), garbage, &["no token"]).await;
    check(fault(200, r#"{"access_token": "a\nb", "token_type": "Bearer", "expires_in": 3600}"#), garbage, &[]).await;
    check(fault(200, r#"{"access_token": 7, "token_type": "Bearer"}"#), garbage, &["JSON"]).await;
    let endless = format!(r#"{{"access_token": "{}", "token_type": "Bearer"}}"#, "x".repeat(20_000));
    check(fault(200, &endless), garbage, &["no token"]).await;
    check(fault(200, &" ".repeat(70_000)), garbage, &["could not be read", "larger than"]).await;
}

#[tokio::test]
async fn the_token_endpoint_sets_the_pause_when_it_is_asked_too_often() {
    let org = Org::new().await;
    let mut busy = fault(429, "").unwrap();
    busy.headers.push(("retry-after", "20".to_owned()));
    org.world().fault = Some(busy);
    let house = org.house(Dpop::Auto);
    for _ in 0..3 {
        assert_eq!(house.get().await.unwrap_err().kind.wait(), Some(Duration::from_secs(20)));
    }
    org.clocks.pass(19.0);
    house.get().await.unwrap_err();
    assert_eq!(org.counts(), (1, 0));
    org.world().fault = None;
    org.clocks.pass(2.0);
    house.get().await.unwrap();
}

#[tokio::test]
async fn an_org_that_is_not_there_is_a_failed_connection_and_nothing_was_sent() {
    let mut org = Org::new().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    org.url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let error = org.house(Dpop::Auto).get().await.unwrap_err();
    assert_eq!(error.reason(), Reason::Connect);
    assert!(matches!(error.to_outcome(true), Outcome::Transient(_)));
    assert!(error.to_failure().detail.contains("no connection"), "{}", error.to_failure());
}

#[tokio::test]
async fn an_answer_that_repeats_what_we_sent_is_not_quoted() {
    let org = Org::new().await;
    let house = org.house(Dpop::Required);
    house.get().await.unwrap();
    let debug = format!("{:?} {:?} {:?}", house.client, house.oauth.pass(&Method::GET, &org.url).await, house.oauth);
    org.keeps_secrets(&debug);
    let mut server = mockito::Server::new_async().await;
    let echo = |request: &mockito::Request| {
        let body = String::from_utf8_lossy(request.body().unwrap()).into_owned();
        let assertion = body.rsplit("client_assertion=").next().unwrap();
        format!(r#"{{"error": "invalid_client", "error_description": "{assertion}"}}"#).into_bytes()
    };
    server.mock("POST", "/oauth2/v1/token").with_status(401).with_body_from_request(echo).create_async().await;
    let mut other = Org::new().await;
    other.url = Url::parse(&format!("{}/", server.url())).unwrap();
    let error = other.house(Dpop::Auto).get().await.unwrap_err();
    assert!(!format!("{error:?} {}", error.to_failure()).contains("eyJ"), "{error:?}");
}

#[tokio::test]
async fn a_proof_names_the_address_without_query_and_fragment() {
    let prover = dpop::Prover::new(Dpop::Required).unwrap();
    let now = jiff::Timestamp::from_second(1_790_000_000).unwrap();
    let claims = |url: &str| {
        let url = Url::parse(url).unwrap();
        let proof = prover.proof(&Method::GET, &url, now, None, None).unwrap();
        jsonwebtoken::dangerous::insecure_decode::<serde_json::Value>(proof.as_bytes()).unwrap().claims
    };
    for (url, expected) in [
        ("https://Example.okta.com:443/api/v1/logs?after=1#x", "https://example.okta.com/api/v1/logs"),
        ("https://example.okta.com", "https://example.okta.com/"),
        ("https://example.okta.com:8443/a%20b/../c", "https://example.okta.com:8443/c"),
    ] {
        assert_eq!(claims(url)["htu"], expected);
    }
}
