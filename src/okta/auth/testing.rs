//! What the tests of credentials share: clocks that stand still until they are set, and an org that judges assertions and
//! proofs with another implementation than the one that makes them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::ThumbprintHash;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use super::{Dpop, OAuth, OAuthSettings, Time};
use crate::config::secret::LiveSecret;
use crate::http::Network;
use crate::okta::{Auth, OktaClient, OktaSettings};

/// Clocks that only the test moves.
pub(super) struct Clocks(Mutex<(Timestamp, Duration)>);

impl Default for Clocks {
    fn default() -> Self {
        Self(Mutex::new((Timestamp::from_second(1_790_000_000).unwrap(), Duration::ZERO)))
    }
}

impl Clocks {
    /// Time passes.
    pub(super) fn pass(&self, seconds: f64) {
        let time = Duration::from_secs_f64(seconds);
        let mut clocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.0 = clocks.0.saturating_add(SignedDuration::try_from(time).unwrap()).unwrap();
        clocks.1 += time;
    }

    /// Somebody sets the wall clock.
    pub(super) fn set_wall(&self, wall: Timestamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = wall;
    }
}

impl Time for Clocks {
    fn wall(&self) -> Timestamp {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn elapsed(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

/// A private key of a service app as PEM, and the public half as x and y.
pub(super) fn key() -> (String, (String, String)) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let body = STANDARD.encode(pair.to_pkcs8v1().unwrap());
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let public = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    (format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"), public)
}

pub(super) const CLIENT_ID: &str = "0oa1service";

/// An answer in place of the right one.
#[derive(Clone)]
pub(super) struct Fault {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

/// How the org is and what came to it.
pub(super) struct World {
    pub(super) public: (String, String),
    pub(super) active: bool,
    /// How far its clock is ahead of the daemon's host.
    pub(super) ahead: SignedDuration,
    pub(super) dpop: bool,
    pub(super) token_nonce: Option<String>,
    pub(super) api_nonce: Option<String>,
    /// The token endpoint takes no nonce and gives another one each time.
    pub(super) never_content: bool,
    /// It gives the type `Bearer` whatever is asked.
    pub(super) always_bearer: bool,
    pub(super) life_s: Value,
    pub(super) granted: BTreeSet<String>,
    pub(super) fault: Option<Fault>,
    /// The API takes no token at all.
    pub(super) closed: bool,
    /// The same token is given each time.
    pub(super) same_token: bool,
    /// Questions to the token endpoint.
    pub(super) asked: usize,
    /// Requests to the API.
    pub(super) requests: usize,
    /// The nonces of the proofs that came, and where: `T` or `A`.
    pub(super) nonces: Vec<String>,
    /// Every assertion, proof and token that there was.
    pub(super) secrets: Vec<String>,
    tokens: HashMap<String, Option<String>>,
    jtis: HashSet<String>,
}

impl World {
    /// Every token that was given out is forgotten.
    pub(super) fn forget_tokens(&mut self) {
        self.tokens.clear();
    }
}

/// An org on this machine.
pub(super) struct Org {
    pub(super) url: Url,
    pub(super) clocks: Arc<Clocks>,
    pub(super) private: String,
    world: Arc<Mutex<World>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Org {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A service app's way to the org.
pub(super) struct House {
    pub(super) oauth: OAuth,
    pub(super) client: OktaClient,
}

impl Org {
    pub(super) async fn new() -> Self {
        let (private, public) = key();
        let world = Arc::new(Mutex::new(World {
            public,
            active: true,
            ahead: SignedDuration::ZERO,
            dpop: false,
            token_nonce: Some("t1".to_owned()),
            api_nonce: None,
            never_content: false,
            always_bearer: false,
            life_s: 3600.into(),
            granted: ["okta.logs.read", "okta.users.read"].map(str::to_owned).into(),
            fault: None,
            closed: false,
            same_token: false,
            asked: 0,
            requests: 0,
            nonces: Vec::new(),
            secrets: Vec::new(),
            tokens: HashMap::new(),
            jtis: HashSet::new(),
        }));
        let clocks = Arc::new(Clocks::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let gate = Gate { url: url.clone(), clocks: Arc::clone(&clocks), world: Arc::clone(&world) };
        let router = Router::new().fallback(answer).with_state(gate);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, clocks, private, world, server }
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The app with its own key.
    pub(super) fn house(&self, dpop: Dpop) -> House {
        self.house_with(dpop, self.private.as_str().into())
    }

    pub(super) fn house_with(&self, dpop: Dpop, private_key: LiveSecret) -> House {
        let settings = OAuthSettings {
            client_id: CLIENT_ID.to_owned(),
            private_key,
            key_id: Some("k1".to_owned()),
            algorithm: None,
            dpop,
            scopes: ["okta.logs.read", "okta.users.read"].map(str::to_owned).into(),
        };
        let org = OktaSettings {
            org_url: self.url.clone(),
            admin_url: self.url.clone(),
            timeout: Duration::from_secs(10),
            network: Network::default(),
        };
        let oauth = OAuth::new(&org, settings, Arc::clone(&self.clocks) as Arc<dyn Time>).unwrap();
        let client = OktaClient::new(&org, Auth::new(Arc::new(oauth.clone()))).unwrap();
        House { oauth, client }
    }
}

#[derive(Clone)]
struct Gate {
    url: Url,
    clocks: Arc<Clocks>,
    world: Arc<Mutex<World>>,
}

type Answer = (u16, Vec<(&'static str, String)>, String);

async fn answer(State(gate): State<Gate>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let mut world = gate.world.lock().unwrap_or_else(PoisonError::into_inner);
    let now = gate.clocks.wall().saturating_add(world.ahead).unwrap();
    let url = gate.url.join(head.uri.path()).unwrap();
    let visit = Visit { url, method: head.method.to_string(), headers: head.headers, now };
    let (status, headers, body) = if head.uri.path() == "/oauth2/v1/token" {
        visit.token(&mut world, std::str::from_utf8(&body).unwrap())
    } else {
        visit.api(&mut world)
    };
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now).unwrap();
    // A bucket that nobody could use up, so that requests need not find out one by one what it grants.
    let reset = now.as_second() + 60;
    let mut response = Response::builder().status(status).header("date", date);
    let of_api = head.uri.path() != "/oauth2/v1/token";
    for (name, value) in [("limit", 100_000), ("remaining", 99_000), ("reset", reset)].into_iter().filter(|_| of_api) {
        response = response.header(format!("x-rate-limit-{name}"), value);
    }
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(Body::from(body)).unwrap()
}

/// One request.
struct Visit {
    url: Url,
    method: String,
    headers: HeaderMap,
    now: Timestamp,
}

fn oauth_error(status: u16, code: &str, words: &str) -> Answer {
    (status, Vec::new(), json!({"error": code, "error_description": words}).to_string())
}

impl Visit {
    fn token(&self, world: &mut World, body: &str) -> Answer {
        world.asked += 1;
        let form: HashMap<String, String> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
        world.secrets.push(form["client_assertion"].clone());
        if let Some(Fault { status, headers, body }) = world.fault.clone() {
            return (status, headers, body);
        }
        assert_eq!(self.method, "POST");
        assert_eq!(form["grant_type"], "client_credentials");
        assert_eq!(form["client_assertion_type"], "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
        if let Err(words) = self.judge_assertion(world, &form["client_assertion"]) {
            return oauth_error(401, "invalid_client", words);
        }
        let proof = self.headers.get("dpop");
        let bound = match proof {
            None if world.dpop => {
                return oauth_error(400, "invalid_dpop_proof", "The DPoP proof JWT header is missing.");
            }
            None => None,
            Some(_) => {
                let wanted = world.token_nonce.clone();
                match self.judge_proof(world, 'T', wanted.as_deref(), None) {
                    Ok(thumbprint) if !world.never_content => Some(thumbprint),
                    Err("time") => return oauth_error(400, "invalid_dpop_proof", "The DPoP proof has expired."),
                    _ => {
                        if world.never_content {
                            world.token_nonce = Some(format!("t{}", world.asked));
                        }
                        let nonce = world.token_nonce.clone().unwrap();
                        let (status, _, body) = oauth_error(400, "use_dpop_nonce", "A nonce is required.");
                        return (status, vec![("dpop-nonce", nonce)], body);
                    }
                }
            }
        };
        let asked: BTreeSet<String> = form["scope"].split(' ').map(str::to_owned).collect();
        if !asked.is_subset(&world.granted) {
            return oauth_error(400, "invalid_scope", "One or more scopes are not configured.");
        }
        let number = if world.same_token { 0 } else { world.asked };
        let token = format!("eyJ.access-token-{number}");
        world.secrets.push(token.clone());
        let kind = if bound.is_some() && !world.always_bearer { "DPoP" } else { "Bearer" };
        world.tokens.insert(token.clone(), bound.filter(|_| kind == "DPoP"));
        let answer =
            json!({"token_type": kind, "expires_in": world.life_s, "access_token": token, "scope": form["scope"]});
        (200, vec![("cache-control", "no-store".to_owned())], answer.to_string())
    }

    fn api(&self, world: &mut World) -> Answer {
        world.requests += 1;
        let refused = |kind: &str, error: &str| {
            let body = json!({"errorCode": "E0000011", "errorSummary": "Invalid token provided"}).to_string();
            (401, vec![("www-authenticate", format!("{kind} authorization_uri=\"x\", error=\"{error}\""))], body)
        };
        let authorization = self.headers["authorization"].to_str().unwrap().to_owned();
        let (scheme, token) = authorization.split_once(' ').unwrap();
        let Some(bound) = world.tokens.get(token).cloned().filter(|_| !world.closed) else {
            return refused(scheme, "invalid_token");
        };
        let Some(thumbprint) = bound else {
            assert_eq!(scheme, "Bearer");
            return (200, Vec::new(), "{}".to_owned());
        };
        assert_eq!(scheme, "DPoP");
        let (wanted, hash) = (world.api_nonce.clone(), URL_SAFE_NO_PAD.encode(Sha256::digest(token)));
        match self.judge_proof(world, 'A', wanted.as_deref(), Some(&hash)) {
            Ok(by) if by == thumbprint => (200, Vec::new(), "{}".to_owned()),
            Err("nonce") => {
                let (status, mut headers, body) = refused("DPoP", "use_dpop_nonce");
                headers.push(("dpop-nonce", world.api_nonce.clone().unwrap()));
                (status, headers, body)
            }
            Err("time") => refused("DPoP", "invalid_dpop_proof"),
            other => panic!("a proof is wrong: {other:?}"),
        }
    }

    fn judge_assertion(&self, world: &mut World, assertion: &str) -> Result<(), &'static str> {
        if !world.active {
            return Err("The client is not active.");
        }
        let key = DecodingKey::from_ec_components(&world.public.0, &world.public.1).unwrap();
        let claims = judge(assertion, &key).ok_or("The client_assertion signature is invalid.")?;
        assert_eq!(jsonwebtoken::decode_header(assertion).unwrap().kid.as_deref(), Some("k1"));
        assert_eq!((&claims["iss"], &claims["sub"]), (&json!(CLIENT_ID), &json!(CLIENT_ID)));
        assert_eq!(claims["aud"], self.url.as_str());
        let now = self.now.as_second();
        if claims["exp"].as_i64().unwrap() <= now {
            return Err("The client_assertion token is expired.");
        }
        if claims["iat"].as_i64().unwrap() > now + 60 {
            return Err("The client_assertion token is not valid yet.");
        }
        assert!(world.jtis.insert(claims["jti"].to_string()), "an assertion came twice");
        Ok(())
    }

    /// The thumbprint of the key that made the proof, or what is wrong with it that may be.
    fn judge_proof(
        &self,
        world: &mut World,
        server: char,
        nonce: Option<&str>,
        hash: Option<&str>,
    ) -> Result<String, &'static str> {
        let proof = self.headers["dpop"].to_str().unwrap();
        world.secrets.push(proof.to_owned());
        let header = jsonwebtoken::decode_header(proof).unwrap();
        let jwk = header.jwk.unwrap();
        assert_eq!((header.typ.as_deref(), header.alg), (Some("dpop+jwt"), Algorithm::ES256));
        let part = URL_SAFE_NO_PAD.decode(proof.split('.').next().unwrap()).unwrap();
        assert!(serde_json::from_slice::<Value>(&part).unwrap()["jwk"].get("d").is_none(), "the private half");
        let claims = judge(proof, &DecodingKey::from_jwk(&jwk).unwrap()).expect("a proof is signed wrongly");
        assert_eq!(claims["htm"], self.method);
        assert_eq!(claims["htu"], self.url.as_str());
        assert_eq!(claims.get("ath").and_then(Value::as_str), hash);
        assert!(world.jtis.insert(claims["jti"].to_string()), "a proof came twice");
        let given = claims.get("nonce").and_then(Value::as_str);
        world.nonces.push(format!("{server}{}", given.unwrap_or("-")));
        if (claims["iat"].as_i64().unwrap() - self.now.as_second()).abs() > 60 {
            return Err("time");
        }
        if nonce.is_some() && given != nonce {
            return Err("nonce");
        }
        Ok(jwk.thumbprint(ThumbprintHash::SHA256).unwrap())
    }
}

fn judge(token: &str, key: &DecodingKey) -> Option<Value> {
    let mut validation = Validation::new(Algorithm::ES256);
    // The clocks are the test's.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    jsonwebtoken::decode::<Value>(token, key, &validation).ok().map(|data| data.claims)
}
