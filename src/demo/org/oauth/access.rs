//! What stands before every resource: the credential, the budget, the scope and the role, in this order.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, DATE, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::jwt::ALGORITHMS;
use super::proof::{self, Expected, Refused};
use super::{Issued, OAuth, Principal, scopes, token};
use crate::demo::org::okta::{OktaError, fresh_id};
use crate::demo::org::world::World;

/// Lets in who may come in, and dresses every answer in the headers that Okta always sends.
pub(in crate::demo::org) async fn admit(State(world): State<Arc<World>>, mut request: Request, next: Next) -> Response {
    let mut response = if request.method() == Method::POST && request.uri().path() == token::PATH {
        budgeted(&world, None, request, next).await
    } else {
        match authenticate(&world, &request) {
            Ok(bearer) => {
                request.extensions_mut().insert(bearer.principal.clone());
                budgeted(&world, Some(bearer), request, next).await
            }
            Err(refused) => *refused,
        }
    };
    let headers = response.headers_mut();
    let date = world.clock.now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    if let (Ok(date), Ok(id)) = (HeaderValue::try_from(date), HeaderValue::try_from(fresh_id("req"))) {
        headers.entry(DATE).or_insert(date);
        headers.entry(HeaderName::from_static("x-okta-request-id")).or_insert(id);
    }
    response
}

/// Whoever shows a credential that holds, and what it is good for.
struct Bearer {
    principal: Principal,
    /// The scopes of an app's token; the SSWS token needs none.
    scopes: Option<Vec<String>>,
    challenge: Challenge,
}

/// Lets a request through as far as the budget goes, and then as far as scopes and roles go.
async fn budgeted(world: &Arc<World>, bearer: Option<Bearer>, request: Request, next: Next) -> Response {
    let (method, path, now) = (request.method().as_str(), request.uri().path(), world.clock.now());
    let id = bearer.as_ref().map(|bearer| bearer.principal.id());
    let grant = world.read(|inside| inside.rate.take(id, method, path, now));
    let mut response = if grant.refused.is_some() {
        OktaError::too_many_requests().into_response()
    } else {
        let _under_way = UnderWay(world);
        match bearer.and_then(|bearer| bearer.refuse(method, path)) {
            Some(refused) => refused,
            None => next.run(request).await,
        }
    };
    grant.write(response.headers_mut());
    response
}

impl Bearer {
    fn refuse(&self, method: &str, path: &str) -> Option<Response> {
        let needed = scopes::needed(method, path)?;
        if self.scopes.as_ref().is_some_and(|scopes| !scopes::allow(scopes, &needed)) {
            let words = "The access token provided does not contain the required scopes.";
            // Okta sends no body with this one.
            return Some(self.challenge.dress(StatusCode::FORBIDDEN.into_response(), "insufficient_scope", words));
        }
        let powerless = matches!(&self.principal, Principal::App { roles, .. } if roles.is_empty());
        powerless.then(|| OktaError::no_permission().into_response())
    }
}

/// A request between its admission and its answer, or the moment when nobody waits for that any more.
struct UnderWay<'a>(&'a World);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.read(|inside| inside.rate.done());
    }
}

fn authenticate(world: &World, request: &Request) -> Result<Bearer, Box<Response>> {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (scheme, credential) = given.split_once(' ').unwrap_or_default();
    let url = format!("{}{}", world.okta_url(), request.uri().path());
    let mut challenge = Challenge::new(world, request, "Bearer");
    match scheme {
        "SSWS" => {
            let known = world.options.ssws_allowed && world.read(|inside| inside.secrets.okta_token == credential);
            if !known {
                return Err(Box::new(OktaError::invalid_token().into_response()));
            }
            Ok(Bearer { principal: Principal::Owner, scopes: None, challenge })
        }
        "Bearer" | "DPoP" => {
            let now = world.clock.now().as_second();
            let (issued, principal) = world
                .read(|inside| inside.oauth.find(credential, now))
                .ok_or_else(|| challenge.refuse("invalid_token", "The access token is invalid."))?;
            if issued.jkt.is_some() {
                challenge.scheme = "DPoP";
            }
            match (&issued.jkt, scheme) {
                (None, "Bearer") => {}
                (Some(jkt), "DPoP") => possess(world, request, &url, credential, jkt, &challenge)?,
                _ => return Err(challenge.refuse("invalid_token", "The access token is of another type.")),
            }
            Ok(Bearer { principal, scopes: Some(issued.scopes), challenge })
        }
        _ => Err(Box::new(OktaError::invalid_token().into_response())),
    }
}

/// Checks the proof that comes with a bound token.
fn possess(
    world: &World,
    request: &Request,
    url: &str,
    credential: &str,
    jkt: &str,
    challenge: &Challenge,
) -> Result<(), Box<Response>> {
    let text = proof::given(request.headers())
        .ok_or_else(|| challenge.refuse("invalid_dpop_proof", "The DPoP proof JWT header is missing."))?;
    let expected = Expected {
        method: request.method().as_str(),
        url,
        token: Some(credential),
        nonce: world.options.resource_nonce,
    };
    let now = world.clock.now().as_second();
    let proven = text.and_then(|text| world.read(|inside| inside.oauth.prove(text, expected, now)));
    match proven {
        Ok(proven) if proven.jkt == jkt => Ok(()),
        Ok(_) => Err(challenge.refuse("invalid_token", "The access token is bound to another key.")),
        Err(Refused::Invalid(words)) => Err(challenge.refuse("invalid_dpop_proof", &words)),
        Err(Refused::Nonce(nonce)) => {
            let words = "Resource server requires nonce in DPoP proof.";
            let mut response = challenge.refuse("use_dpop_nonce", words);
            if let Ok(nonce) = HeaderValue::try_from(nonce) {
                response.headers_mut().insert(HeaderName::from_static("dpop-nonce"), nonce);
            }
            Err(response)
        }
    }
}

impl OAuth {
    /// A token that still holds, and whose it is.
    fn find(&self, token: &str, now: i64) -> Option<(Issued, Principal)> {
        let issued = self.tokens.get(token).filter(|issued| now < issued.expires)?;
        let app = self.active(&issued.client_id)?;
        let (client_id, name, roles) = (app.client_id.clone(), app.name.clone(), app.roles.clone());
        Some((issued.clone(), Principal::App { client_id, name, roles }))
    }
}

/// What `WWW-Authenticate` says.
struct Challenge {
    scheme: &'static str,
    /// Okta writes `http` here, whatever the org is reached by.
    realm: String,
    scope: String,
    resource: String,
}

impl Challenge {
    fn new(world: &World, request: &Request, scheme: &'static str) -> Self {
        let path = request.uri().path();
        Self {
            scheme,
            realm: world.okta_url().replacen("https://", "http://", 1),
            scope: scopes::needed(request.method().as_str(), path).unwrap_or_default(),
            resource: path.to_owned(),
        }
    }

    /// Refuses the credential.
    fn refuse(&self, error: &str, words: &str) -> Box<Response> {
        Box::new(self.dress(OktaError::invalid_token().into_response(), error, words))
    }

    fn dress(&self, mut response: Response, error: &str, words: &str) -> Response {
        let Self { scheme, realm, scope, resource } = self;
        let algorithms = match *scheme {
            "DPoP" => format!("algs=\"{}\", ", ALGORITHMS.join(" ")),
            _ => String::new(),
        };
        let challenge = format!(
            "{scheme} {algorithms}authorization_uri=\"{realm}/oauth2/v1/authorize\", realm=\"{realm}\", \
             scope=\"{scope}\", error=\"{error}\", error_description=\"{words}\", resource=\"{resource}\""
        );
        if let Ok(challenge) = HeaderValue::try_from(challenge) {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
