use serde_json::json;

use super::signing::{APP, Change, Desk, GOOD, Key, SCOPES};
use super::*;

const TOKEN: &str = "/oauth2/v1/token";
const LOGS: &str = "/api/v1/logs";

/// The SHA-256 of a token, as `ath` has it; `jsonwebtoken` has no use for it.
fn ath(token: &str) -> String {
    use base64::Engine as _;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(digest)
}

impl Desk {
    /// The nonce, as it is learnt: by asking without.
    async fn nonce(&self) -> String {
        let proof = self.proof("POST", TOKEN, GOOD);
        let answer = self.ask(&self.assertion(GOOD), SCOPES, Some(&proof)).await;
        assert_eq!(answer.refusal().1, "use_dpop_nonce");
        answer.header("dpop-nonce").to_owned()
    }

    async fn ask_with(&self, nonce: &str) -> Answer {
        let proof = self.proof("POST", TOKEN, &|_, claims| claims["nonce"] = json!(nonce));
        self.ask(&self.assertion(GOOD), SCOPES, Some(&proof)).await
    }

    async fn bound_token(&self) -> String {
        self.ask_with(&self.nonce().await).await.token()
    }

    /// Reads the log with a bound token and a proof that differs from a good one.
    async fn read_with(&self, token: &str, change: Change<'_>) -> Answer {
        let proof = self.proof("GET", LOGS, &|header, claims| {
            claims["ath"] = json!(ath(token));
            change(header, claims);
        });
        self.read_proving(token, &proof).await
    }

    async fn read_proving(&self, token: &str, proof: &str) -> Answer {
        let request = self.fixture.client.get(format!("{}{LOGS}?limit=1", self.fixture.org.okta_url()));
        let request = request.header("authorization", format!("DPoP {token}")).header("DPoP", proof);
        Answer::of(request.send().await.unwrap()).await
    }
}

#[tokio::test]
async fn a_token_is_given_for_a_proof_with_the_nonce_and_a_fresh_assertion() {
    let desk = Desk::with_dpop().await;
    let missing = desk.token(SCOPES).await;
    assert_eq!(missing.refusal(), (400, "invalid_dpop_proof", "The DPoP proof JWT header is missing."));

    let (assertion, proof) = (desk.assertion(GOOD), desk.proof("POST", TOKEN, GOOD));
    let without = desk.ask(&assertion, SCOPES, Some(&proof)).await;
    let words = "Authorization server requires nonce in DPoP proof.";
    assert_eq!(without.refusal(), (400, "use_dpop_nonce", words));
    let nonce = without.header("dpop-nonce");

    let proof = desk.proof("POST", TOKEN, &|_, claims| claims["nonce"] = json!(nonce));
    let again = desk.ask(&assertion, SCOPES, Some(&proof)).await;
    assert_eq!(again.refusal(), (401, "invalid_client", "The client_assertion token has already been used."));

    let given = desk.ask_with(nonce).await;
    assert_eq!((given.status, &given.body["token_type"]), (200, &json!("DPoP")));
    assert_eq!(desk.read_with(&given.token(), GOOD).await.status, 200);
}

#[tokio::test]
async fn a_proof_that_is_not_right_gets_no_token() {
    let desk = Desk::with_dpop().await;
    let (nonce, now, url) = (desk.nonce().await, desk.now(), desk.token_url());
    let stranger = Key::new("ES256").jwk();
    let private = {
        let mut jwk = desk.own.jwk();
        jwk["d"] = json!("AAAA");
        jwk
    };
    let rows: [(&str, Change<'_>); 12] = [
        ("'typ' header in the DPoP proof JWT is invalid.", &|header, _| header["typ"] = json!("JWT")),
        ("'alg' header in the DPoP proof JWT is invalid.", &|header, _| header["alg"] = json!("none")),
        ("'jwk' header in the DPoP proof JWT is invalid.", &|header, _| header["jwk"] = Value::Null),
        ("'jwk' header in the DPoP proof JWT is invalid.", &|header, _| header["jwk"] = private.clone()),
        ("The DPoP proof JWT signature is invalid.", &|header, _| header["jwk"] = stranger.clone()),
        ("'htm' claim in the DPoP proof JWT is invalid.", &|_, claims| claims["htm"] = json!("GET")),
        ("'htu' claim in the DPoP proof JWT is invalid.", &|_, claims| claims["htu"] = json!(format!("{url}?a=b"))),
        ("'htu' claim in the DPoP proof JWT is invalid.", &|_, claims| claims["htu"] = json!("https://a.example")),
        ("'iat' claim in the DPoP proof JWT is invalid.", &|_, claims| claims["iat"] = json!(now - 400)),
        ("'iat' claim in the DPoP proof JWT is invalid.", &|_, claims| claims["iat"] = json!(now + 400)),
        ("'iat' claim in the DPoP proof JWT is invalid.", &|_, claims| claims["iat"] = Value::Null),
        ("'jti' claim in the DPoP proof JWT is invalid.", &|_, claims| claims["jti"] = Value::Null),
    ];
    for (words, change) in rows {
        let proof = desk.proof("POST", TOKEN, &|header, claims| {
            claims["nonce"] = json!(nonce);
            change(header, claims);
        });
        let answer = desk.ask(&desk.assertion(GOOD), SCOPES, Some(&proof)).await;
        assert_eq!(answer.refusal(), (400, "invalid_dpop_proof", words));
    }
    let twice = desk.proof("POST", TOKEN, &|_, claims| claims["nonce"] = json!(nonce));
    desk.ask(&desk.assertion(GOOD), SCOPES, Some(&twice)).await.token();
    let answer = desk.ask(&desk.assertion(GOOD), SCOPES, Some(&twice)).await;
    assert_eq!(answer.refusal().2, "The DPoP proof JWT has already been used.");
    let broken = desk.ask(&desk.assertion(GOOD), SCOPES, Some("no.proof")).await;
    assert_eq!(broken.refusal().2, "The DPoP proof JWT is malformed.");
}

#[tokio::test]
async fn a_renewed_nonce_is_told_and_the_old_one_works_on_or_not() {
    let desk = Desk::with_dpop().await;
    let old = desk.nonce().await;
    assert!(!desk.ask_with(&old).await.headers.contains_key("dpop-nonce"), "nothing new");
    desk.fixture.org.renew_nonce(true);
    let answer = desk.ask_with(&old).await;
    let renewed = answer.header("dpop-nonce").to_owned();
    assert_eq!((answer.status, renewed == old), (200, false));

    desk.fixture.org.renew_nonce(false);
    for stale in [&old, &renewed] {
        let refused = desk.ask_with(stale).await;
        assert_eq!((refused.status, refused.refusal().1), (400, "use_dpop_nonce"));
        let current = refused.header("dpop-nonce");
        assert_eq!(desk.ask_with(current).await.status, 200);
    }
}

#[tokio::test]
async fn a_bound_token_is_worth_nothing_without_its_own_proof() {
    let desk = Desk::with_dpop().await;
    let (token, now) = (desk.bound_token().await, desk.now());
    assert_eq!(desk.read(LOGS, &token).await.challenge(), (401, "invalid_token"), "as Bearer");
    let request = desk.fixture.client.get(format!("{}{LOGS}", desk.fixture.org.okta_url()));
    let bare = Answer::of(request.header("authorization", format!("DPoP {token}")).send().await.unwrap()).await;
    assert_eq!(bare.challenge(), (401, "invalid_dpop_proof"));
    assert!(bare.header("www-authenticate").starts_with("DPoP algs=\"RS256 RS384 RS512 ES256 ES384 ES512\", "));

    let url = format!("{}{LOGS}", desk.fixture.org.okta_url());
    let rows: [(&str, Change<'_>); 6] = [
        ("htm", &|_, claims| claims["htm"] = json!("POST")),
        ("htu", &|_, claims| claims["htu"] = json!(format!("{url}?limit=1"))),
        ("htu", &|_, claims| claims["htu"] = json!(format!("{url}/"))),
        ("ath", &|_, claims| claims["ath"] = json!(ath("another"))),
        ("ath", &|_, claims| claims["ath"] = Value::Null),
        ("iat", &|_, claims| claims["iat"] = json!(now - 400)),
    ];
    for (name, change) in rows {
        let refused = desk.read_with(&token, change).await;
        assert_eq!(refused.challenge(), (401, "invalid_dpop_proof"), "{name}");
        assert!(refused.header("www-authenticate").contains(&format!("'{name}' claim")), "{name}");
    }
    let proof = desk.proof("GET", LOGS, &|_, claims| claims["ath"] = json!(ath(&token)));
    assert_eq!(desk.read_proving(&token, &proof).await.status, 200);
    assert_eq!(desk.read_proving(&token, &proof).await.challenge(), (401, "invalid_dpop_proof"), "a second time");
}

#[tokio::test]
async fn a_token_is_bound_to_one_key() {
    let mut desk = Desk::with_dpop().await;
    let token = desk.bound_token().await;
    desk.own = Key::new("ES256");
    assert_eq!(desk.read_with(&token, GOOD).await.challenge(), (401, "invalid_token"));
    for algorithm in ["RS256", "ES384", "ES512"] {
        desk.own = Key::new(algorithm);
        let token = desk.bound_token().await;
        assert_eq!(desk.read_with(&token, GOOD).await.status, 200, "{algorithm}");
    }
}

#[tokio::test]
async fn a_resource_asks_for_a_nonce_where_it_was_told_to() {
    let options = OrgOptions { resource_nonce: true, ..OrgOptions::default() };
    let desk = Desk::of(options, |app| app).await;
    let token = desk.bound_token().await;
    let refused = desk.read_with(&token, GOOD).await;
    assert_eq!(refused.challenge(), (401, "use_dpop_nonce"));
    let nonce = refused.header("dpop-nonce");
    assert_eq!(desk.read_with(&token, &|_, claims| claims["nonce"] = json!(nonce)).await.status, 200);
}

#[tokio::test]
async fn whoever_offers_a_proof_is_bound_by_it_and_an_app_may_be_made_to() {
    let desk = Desk::new().await;
    let token = desk.bound_token().await;
    assert_eq!(desk.read(LOGS, &token).await.challenge(), (401, "invalid_token"));
    let free = desk.token(SCOPES).await.token();
    assert_eq!(
        desk.read_with(&free, GOOD).await.challenge(),
        (401, "invalid_token"),
        "an unbound token proves nothing"
    );
    desk.fixture.org.require_dpop(APP, true);
    assert_eq!(desk.token(SCOPES).await.refusal().1, "invalid_dpop_proof");
    assert_eq!(desk.read(LOGS, &free).await.status, 200, "what was given stays as it was");
}
