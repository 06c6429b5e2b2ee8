//! One question to the token endpoint, and what its answer means.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use reqwest::{Client, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{AuthError, hidden};
use crate::http::{self, Trouble};
use crate::okta::client::OktaSettings;
use crate::okta::error::bounded;
use crate::okta::rate::{RateHeaders, Wait, wait_after_429};

/// The most bytes read of an answer.
const MAX_BODY: usize = 64 * 1024;
/// The most bytes of a token; longer ones do not fit into a header that servers take.
const MAX_TOKEN: usize = 16 * 1024;
/// The most characters kept of what Okta says.
const MAX_SAID: usize = 300;
/// How long a token is held to live when its answer does not say.
const UNSAID_LIFE: Duration = Duration::from_secs(300);
/// The longest pause that the token endpoint may ask for: what waits for a token waits that long, and is not put off by an
/// hour because something in between said so.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// The longest that a token is held to live, whatever its answer says. Okta's live an hour.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Where tokens come from: the org's own authorization server, the only one that gives out scopes of Okta's API.
pub(super) struct TokenEndpoint {
    http: Client,
    url: Url,
}

/// An answer, sorted.
pub(super) struct TokenAnswer {
    pub(super) headers: HeaderMap,
    pub(super) date: Option<Timestamp>,
    pub(super) result: Result<Given, Refusal>,
}

/// A token and what is known of it.
pub(super) struct Given {
    pub(super) token: SecretString,
    /// `Bearer` or `DPoP`, in any case.
    pub(super) kind: String,
    pub(super) life: Duration,
    pub(super) scope: Option<String>,
}

/// A question that was answered with an error.
pub(super) enum Refusal {
    /// By the protocol: RFC 6749, 5.2, or in Okta's own shape of errors.
    Coded { code: String, said: Option<String> },
    /// In another way.
    Other(AuthError),
}

impl TokenEndpoint {
    pub(super) fn new(org: &OktaSettings) -> Result<Self, AuthError> {
        let http = http::client("okta", &org.org_url, org.timeout, &org.network)
            .map_err(|error| AuthError::Http(error.into()))?;
        let mut url = org.org_url.clone();
        url.set_path("/oauth2/v1/token");
        Ok(Self { http, url })
    }

    /// The address, which is also the audience of assertions.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Asks for a token once.
    ///
    /// # Errors
    /// When nothing whole was answered.
    pub(super) async fn ask(
        &self,
        assertion: &SecretString,
        scope: &str,
        proof: Option<HeaderValue>,
    ) -> Result<TokenAnswer, AuthError> {
        let form = [
            ("grant_type", "client_credentials"),
            ("scope", scope),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion.expose_secret()),
        ];
        let request = self.http.post(self.url.clone()).header(ACCEPT, HeaderValue::from_static("application/json"));
        let request = match &proof {
            Some(proof) => request.header("DPoP", proof),
            None => request,
        };
        let response = request.form(&form).send().await.map_err(|error| {
            let (reason, trouble) = (http::classify_send_error(&error), Trouble::of(&error));
            let source = (!trouble.is_known()).then(|| Arc::new(error.without_url()));
            AuthError::Unreached { reason, trouble, source }
        })?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = http::read_bounded(response, MAX_BODY).await.map_err(|error| AuthError::Unread(error.into()))?;
        let sent = [Some(assertion.expose_secret().as_bytes()), proof.as_ref().map(HeaderValue::as_bytes)];
        if sent.into_iter().flatten().any(|sent| body.windows(sent.len()).any(|part| part == sent)) {
            body.clear();
        }
        let date = http::date(&headers);
        let result = sort(status, &headers, date, &body);
        Ok(TokenAnswer { headers, date, result })
    }
}

#[derive(Deserialize)]
struct Body {
    #[serde(default, deserialize_with = "hidden")]
    access_token: Option<SecretString>,
    token_type: Option<String>,
    expires_in: Option<f64>,
    scope: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
    #[serde(rename = "errorCode")]
    okta_code: Option<String>,
    #[serde(rename = "errorSummary")]
    okta_summary: Option<String>,
}

fn sort(status: u16, headers: &HeaderMap, date: Option<Timestamp>, body: &[u8]) -> Result<Given, Refusal> {
    if matches!(status, 408 | 429 | 500..) {
        let wait =
            http::retry_after(headers).or_else(|| match wait_after_429(RateHeaders::parse(headers).as_ref(), date) {
                Wait::Until(wait) if status == 429 => Some(wait),
                _ => None,
            });
        let wait = wait.map(|wait| wait.min(LONGEST_PAUSE));
        return Err(Refusal::Other(AuthError::Unavailable { status, wait }));
    }
    let no_answer = |what| Refusal::Other(AuthError::NotAnAnswer { status, what });
    if http::is_html(headers) {
        return Err(no_answer("is an HTML page"));
    }
    // The parser's words may quote what it read, so they are left out.
    let body: Body = serde_json::from_slice(body).map_err(|_| no_answer("is not the JSON that was expected"))?;
    if (200..300).contains(&status) {
        return given(body).ok_or_else(|| no_answer("holds no token that can be sent"));
    }
    let code = body.error.or(body.okta_code).map(|code| bounded(&code, 40)).filter(|code| !code.is_empty());
    let said = body.error_description.or(body.okta_summary).map(|said| bounded(&said, MAX_SAID));
    match code {
        Some(code) if (400..500).contains(&status) => {
            Err(Refusal::Coded { code, said: said.filter(|said| !said.is_empty()) })
        }
        _ => Err(no_answer("is no token endpoint's")),
    }
}

fn given(body: Body) -> Option<Given> {
    let token = body.access_token?;
    let length = token.expose_secret().len();
    if !(1..=MAX_TOKEN).contains(&length) || !token.expose_secret().bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let life = match body.expires_in {
        Some(seconds) => Duration::try_from_secs_f64(seconds.clamp(0.0, LONGEST_LIFE.as_secs_f64())).ok()?,
        None => UNSAID_LIFE,
    };
    Some(Given { token, kind: bounded(&body.token_type?, 20), life, scope: body.scope })
}
