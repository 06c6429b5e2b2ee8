//! `POST /oauth2/v1/token`: who asks is told by a signed assertion, and what is given is told in Okta's words. Their
//! order is Okta's as well: an assertion is spent even where the answer is that the proof needs a nonce.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::jwt::{Jwt, PublicKey};
use super::proof::{self, Expected, Proven, Refused};
use super::{AppKey, Issued, OAuth, ServiceApp, TokenRequest, Ungranted, random, scopes};
use crate::demo::org::okta::JSON;
use crate::demo::org::world::World;

/// The path of the endpoint.
pub(in crate::demo::org) const PATH: &str = "/oauth2/v1/token";

/// The form of client authentication that has Okta's scopes.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The longest life of an assertion, in seconds.
const LONGEST_ASSERTION: i64 = 3600;

/// How far ahead of Okta's clock an assertion may have been made, in seconds.
const IAT_LEEWAY: i64 = 300;

/// Answers a request for a token.
pub(in crate::demo::org) async fn give(State(world): State<Arc<World>>, headers: HeaderMap, body: Bytes) -> Response {
    let desk = Desk {
        origin: world.okta_url(),
        now: world.clock.now().as_second(),
        lifetime: i64::try_from(world.options.token_lifetime.as_secs()).unwrap_or(i64::MAX),
        ungranted: world.options.ungranted,
    };
    let form = Form::read(&headers, &body);
    world.change(|inside| {
        let oauth = &mut inside.oauth;
        let mut request = TokenRequest {
            client_id: String::new(),
            asked: Vec::new(),
            given: Vec::new(),
            token_type: None,
            error: None,
        };
        let judged = form.and_then(|form| {
            request.asked = form.scopes();
            desk.judge(oauth, &form, &headers, &mut request.client_id)
        });
        let (response, error) = match judged {
            Ok(given) => {
                (request.given, request.token_type) = (given.scopes.clone(), Some(given.token_type));
                (given.response(), None)
            }
            Err(refusal) => (refusal.response(), Some((refusal.error, refusal.words.clone()))),
        };
        request.error = error;
        oauth.requests.push(request);
        response
    })
}

/// What every request is judged by.
struct Desk {
    origin: String,
    /// In seconds since 1970.
    now: i64,
    /// Of a token, in seconds.
    lifetime: i64,
    ungranted: Ungranted,
}

impl Desk {
    fn judge(
        &self,
        oauth: &mut OAuth,
        form: &Form,
        headers: &HeaderMap,
        client_id: &mut String,
    ) -> Result<Given, Refusal> {
        if form.get("grant_type") != Some("client_credentials") {
            let words = "The authorization grant type is not supported by the authorization server.";
            return Err(Refusal::bad("unsupported_grant_type", words));
        }
        let app = self.authenticate(oauth, form)?.clone();
        app.client_id.clone_into(client_id);
        let proven = self.prove(oauth, &app, headers)?;
        let scopes = self.grant(&app, &form.scopes())?;
        Ok(self.issue(oauth, &app, scopes, proven))
    }

    /// RFC 7523, section 3, and what Okta asks beyond it.
    fn authenticate<'a>(&self, oauth: &'a mut OAuth, form: &Form) -> Result<&'a ServiceApp, Refusal> {
        if form.get("client_assertion_type") != Some(ASSERTION_TYPE) {
            return Err(Refusal::client("The client_assertion_type is not supported by the authorization server."));
        }
        let assertion = form.get("client_assertion").and_then(Jwt::parse);
        let assertion = assertion.ok_or_else(|| Refusal::client("The parsing of the client_assertion failed."))?;
        let (issuer, subject) = (assertion.text("iss").unwrap_or_default(), assertion.text("sub").unwrap_or_default());
        if issuer != subject || form.get("client_id").is_some_and(|given| given != issuer) {
            return Err(Refusal::client("The issuer and subject of the client_assertion must be the client id."));
        }
        let unknown = || Refusal::client("Invalid value for 'client_id' parameter.");
        self.check_signature(oauth.active(issuer).ok_or_else(unknown)?, &assertion)?;
        self.check_claims(&assertion)?;
        if let Some(id) = assertion.text("jti") {
            let forget = assertion.seconds("exp").unwrap_or(self.now);
            if !oauth.spend("assertion", id, forget, self.now) {
                return Err(Refusal::client("The client_assertion token has already been used."));
            }
        }
        oauth.active(issuer).ok_or_else(unknown)
    }

    fn check_signature(&self, app: &ServiceApp, assertion: &Jwt) -> Result<(), Refusal> {
        if !assertion.has_known_algorithm() {
            return Err(Refusal::client("The client_assertion signing algorithm is not supported."));
        }
        let matching: Vec<&AppKey> = match (assertion.header("kid"), app.keys.as_slice()) {
            (None, [only]) => vec![only],
            (None, _) => Vec::new(),
            (Some(kid), keys) => keys.iter().filter(|key| key.kid() == Some(kid)).collect(),
        };
        if matching.is_empty() {
            return Err(Refusal::client("The client_assertion JWT kid is invalid."));
        }
        let signs = |key: PublicKey| assertion.is_signed_by(&key);
        if matching.into_iter().any(|key| key.public().is_some_and(signs)) {
            Ok(())
        } else {
            Err(Refusal::client("The client_assertion signature is invalid."))
        }
    }

    fn check_claims(&self, assertion: &Jwt) -> Result<(), Refusal> {
        if !assertion.is_for(&format!("{}{PATH}", self.origin)) {
            let words = "The audience claim for client_assertion must be the endpoint invoked for the request.";
            return Err(Refusal::client(words));
        }
        let words = match assertion.seconds("exp") {
            None => "The client_assertion token must have an expiration.",
            Some(expires) if expires <= self.now => "The client_assertion token is expired.",
            Some(expires) if expires > self.now + LONGEST_ASSERTION => {
                "The client_assertion token has an expiration too far into the future."
            }
            Some(_) if assertion.seconds("iat").is_some_and(|made| made > self.now + IAT_LEEWAY) => {
                "The client_assertion token is issued in the future."
            }
            Some(_) => return Ok(()),
        };
        Err(Refusal::client(words))
    }

    fn prove(&self, oauth: &mut OAuth, app: &ServiceApp, headers: &HeaderMap) -> Result<Option<Proven>, Refusal> {
        let Some(text) = proof::given(headers) else {
            if app.dpop_required {
                return Err(Refusal::bad("invalid_dpop_proof", "The DPoP proof JWT header is missing."));
            }
            return Ok(None);
        };
        let url = format!("{}{PATH}", self.origin);
        let expected = Expected { method: "POST", url: &url, token: None, nonce: true };
        let proven = text.and_then(|text| oauth.prove(text, expected, self.now));
        proven.map(Some).map_err(|refused| match refused {
            Refused::Invalid(words) => Refusal::bad("invalid_dpop_proof", &words),
            Refused::Nonce(nonce) => {
                let words = "Authorization server requires nonce in DPoP proof.";
                Refusal { nonce: Some(nonce), ..Refusal::bad("use_dpop_nonce", words) }
            }
        })
    }

    fn grant(&self, app: &ServiceApp, asked: &[String]) -> Result<Vec<String>, Refusal> {
        if asked.is_empty() {
            let words = "The authorization server resource does not have any configured default scopes, 'scope' must \
                         be provided.";
            return Err(Refusal::bad("invalid_scope", words));
        }
        if !asked.iter().all(|scope| scopes::is_known(scope)) {
            let words = "One or more scopes are not configured for the authorization server resource.";
            return Err(Refusal::bad("invalid_scope", words));
        }
        let granted: Vec<String> = asked.iter().filter(|scope| app.scopes.contains(scope)).cloned().collect();
        if granted.is_empty() {
            return Err(Refusal::bad("consent_required", "You are not allowed any of the requested scopes."));
        }
        if granted.len() < asked.len() && self.ungranted == Ungranted::Refused {
            return Err(Refusal::bad("invalid_scope", "One or more of the requested scopes are not allowed."));
        }
        Ok(granted)
    }

    fn issue(&self, oauth: &mut OAuth, app: &ServiceApp, scopes: Vec<String>, proven: Option<Proven>) -> Given {
        let (jkt, nonce) = proven.map_or((None, None), |proven| (Some(proven.jkt), proven.renewed));
        let expires = self.now.saturating_add(self.lifetime);
        let token = self.write(app, &scopes, expires, jkt.as_deref());
        let token_type = if jkt.is_some() { "DPoP" } else { "Bearer" };
        let issued = Issued { client_id: app.client_id.clone(), scopes: scopes.clone(), expires, jkt };
        oauth.tokens.insert(token.clone(), issued);
        Given { token, token_type, expires_in: self.lifetime, scopes, nonce }
    }

    /// A token that looks like Okta's. Nobody but Okta reads it, so what stands for its signature need not be one.
    fn write(&self, app: &ServiceApp, scopes: &[String], expires: i64, jkt: Option<&str>) -> String {
        let mut claims = json!({
            "ver": 1, "jti": format!("AT.{}", random(24)), "iss": self.origin, "aud": self.origin, "iat": self.now,
            "exp": expires, "cid": app.client_id, "sub": app.client_id, "scp": scopes,
        });
        if let (Some(jkt), Some(claims)) = (jkt, claims.as_object_mut()) {
            claims.insert("cnf".to_owned(), json!({"jkt": jkt}));
        }
        let header = json!({"kid": "simulated", "alg": "RS256"});
        let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.{}", encode(&header), encode(&claims), random(256))
    }
}

/// The parameters of a request.
struct Form(Vec<(String, String)>);

impl Form {
    fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Refusal> {
        let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if kind.split(';').next().map(str::trim) != Some("application/x-www-form-urlencoded") {
            return Err(Refusal::bad("invalid_request", "The request must be application/x-www-form-urlencoded."));
        }
        Ok(Self(form_urlencoded::parse(body).into_owned().collect()))
    }

    /// A parameter; one that comes twice counts as missing.
    fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.0.iter().filter(|(given, _)| given == name);
        all.next().filter(|_| all.next().is_none()).map(|(_, value)| value.as_str())
    }

    fn scopes(&self) -> Vec<String> {
        self.get("scope").unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    }
}

/// The good answer.
struct Given {
    token: String,
    token_type: &'static str,
    expires_in: i64,
    scopes: Vec<String>,
    nonce: Option<String>,
}

impl Given {
    fn response(&self) -> Response {
        let body = json!({
            "token_type": self.token_type, "expires_in": self.expires_in, "access_token": self.token,
            "scope": self.scopes.join(" "),
        });
        answer(StatusCode::OK, &body, self.nonce.as_deref())
    }
}

/// The other one.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    error: &'static str,
    words: String,
    nonce: Option<String>,
}

impl Refusal {
    /// The assertion is not taken.
    fn client(words: &str) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, ..Self::bad("invalid_client", words) }
    }

    fn bad(error: &'static str, words: &str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error, words: words.to_owned(), nonce: None }
    }

    fn response(&self) -> Response {
        let body = json!({"error": self.error, "error_description": self.words});
        answer(self.status, &body, self.nonce.as_deref())
    }
}

fn answer(status: StatusCode, body: &Value, nonce: Option<&str>) -> Response {
    let headers = [(CONTENT_TYPE, JSON), (CACHE_CONTROL, "no-cache, no-store")];
    let mut response = (status, headers, body.to_string()).into_response();
    if let Some(nonce) = nonce.and_then(|nonce| HeaderValue::try_from(nonce).ok()) {
        response.headers_mut().insert(HeaderName::from_static("dpop-nonce"), nonce);
    }
    response
}
