//! How a service is signed in to.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::{ACCEPT, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroize;

use super::super::secret::{Held, secret_text};
use super::super::wire::{self, Answer, Sends};
use crate::model::outcome::{Failure, Outcome, Reason};

/// A token is renewed this long before it ends.
const RENEW_EARLY: Duration = Duration::from_secs(60);

/// How long a token is used of which the service does not say how long it lasts, and the longest that one is used.
const UNTOLD: u64 = 600;
const LONGEST: u64 = 86_400;

/// The way into one service.
#[derive(Debug)]
pub(super) enum SignIn {
    /// Everybody is let in.
    Open,
    /// `Authorization: Bearer`.
    Bearer(Held),
    /// A header of the service's own.
    Header(HeaderName, Held),
    /// `Authorization: Basic`.
    Basic(String, Held),
    /// A bearer token that is fetched.
    OAuth(Box<OAuth>),
}

/// A client of OAuth 2.0 client credentials (RFC 6749, section 4.4). Its secret travels in the body, as every service that
/// asks for an audience wants it.
#[derive(Debug)]
pub(super) struct OAuth {
    pub(super) http: Client,
    pub(super) token_url: Url,
    pub(super) client_id: String,
    pub(super) client_secret: Held,
    pub(super) scope: Option<String>,
    pub(super) audience: Option<String>,
    pub(super) token: Mutex<Option<Token>>,
}

/// A token and when to fetch another one.
#[derive(Debug)]
pub(super) struct Token {
    value: SecretString,
    renew_at: Instant,
}

impl SignIn {
    /// What a request is shown to be let in with; `None` where nothing is needed.
    pub(super) async fn credential(&self) -> Result<Option<SecretString>, Outcome> {
        match self {
            Self::Open => Ok(None),
            Self::Bearer(held) | Self::Header(_, held) | Self::Basic(_, held) => Ok(Some(held.current())),
            Self::OAuth(oauth) => oauth.token(None).await.map(Some),
        }
    }

    /// What to use instead of a credential that the service has refused; `None` when there is no other.
    pub(super) async fn replacement(&self, refused: &SecretString) -> Result<Option<SecretString>, Outcome> {
        match self {
            Self::Open => Ok(None),
            Self::Bearer(held) | Self::Header(_, held) | Self::Basic(_, held) => Ok(held.replacement(refused)),
            Self::OAuth(oauth) => oauth.token(Some(refused)).await.map(Some),
        }
    }

    /// Adds the credential to a request.
    pub(super) fn show(&self, request: RequestBuilder, credential: Option<&SecretString>) -> RequestBuilder {
        let Some(credential) = credential else { return request };
        match self {
            Self::Open => request,
            Self::Bearer(_) | Self::OAuth(_) => request.bearer_auth(credential.expose_secret()),
            Self::Basic(username, _) => request.basic_auth(username, Some(credential.expose_secret())),
            Self::Header(name, _) => match HeaderValue::from_str(credential.expose_secret()) {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    request.header(name, value)
                }
                // The request is refused when it is built, as one with such a bearer token is.
                Err(_) => request.header(name, "\n"),
            },
        }
    }

    /// Everything that must not be repeated: what is held, what is shown, and what that looks like on its way.
    pub(super) fn secrets(&self, credential: Option<&SecretString>) -> Vec<SecretString> {
        let mut secrets: Vec<SecretString> = credential.into_iter().cloned().collect();
        match self {
            Self::Open => {}
            Self::Bearer(held) | Self::Header(_, held) => secrets.push(held.current()),
            Self::Basic(username, held) => {
                let of = |password: &SecretString| {
                    SecretString::from(BASE64.encode(format!("{username}:{}", password.expose_secret())))
                };
                let held = held.current();
                let words: Vec<_> = secrets.iter().chain([&held]).map(of).collect();
                secrets.extend(words);
                secrets.push(held);
            }
            Self::OAuth(oauth) => secrets.push(oauth.client_secret.current()),
        }
        secrets.retain(|secret| !secret.expose_secret().is_empty());
        secrets
    }
}

impl OAuth {
    /// The token, from memory or fetched. One equal to `refused` is not given again.
    async fn token(&self, refused: Option<&SecretString>) -> Result<SecretString, Outcome> {
        let mut kept = self.token.lock().await;
        let is_refused = |value: &SecretString| refused.is_some_and(|old| old.expose_secret() == value.expose_secret());
        if let Some(token) = kept.as_ref()
            && Instant::now() < token.renew_at
            && !is_refused(&token.value)
        {
            return Ok(token.value.clone());
        }
        *kept = None;

        let what = format!("fetching a token from {}", self.token_url.host_str().unwrap_or_default());
        let secret = self.client_secret.current();
        let mut answer = self.ask(&secret, &what).await?;
        // OAuth answers a wrong client with 400 or 401 (RFC 6749, section 5.2).
        let is_refusal = |answer: &Answer| matches!(answer.status.as_u16(), 400 | 401);
        if is_refusal(&answer)
            && let Some(secret) = self.client_secret.replacement(&secret)
        {
            answer = self.ask(&secret, &what).await?;
        }
        let status = answer.status.as_u16();
        if is_refusal(&answer) {
            let remedy = "check `client_id`, `client_secret`, `scope` and `audience`";
            let detail = format!("{what}: answered {status}; {remedy}");
            return Err(wire::unauthorized(Failure::new(Reason::Unauthorized, detail)));
        }
        if !answer.status.is_success() {
            return Err(wire::refusal(&answer, &what, "", Sends::Reading));
        }
        let granted = serde_json::from_slice::<Granted>(&answer.body);
        answer.body.zeroize();
        let Ok(Granted { access_token: value, expires_in }) = granted else {
            let detail = format!("{what}: answered {status} with something that holds no `access_token`");
            return Err(Sends::Reading.lost(Reason::BadAnswer, detail));
        };
        let lasts = Duration::from_secs(expires_in.unwrap_or(UNTOLD).min(LONGEST));
        let renew_at = Instant::now() + lasts.saturating_sub(RENEW_EARLY.min(lasts / 2));
        *kept = Some(Token { value: value.clone(), renew_at });
        Ok(value)
    }

    async fn ask(&self, secret: &SecretString, what: &str) -> Result<Answer, Outcome> {
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_id", self.client_id.as_str()),
            ("client_secret", secret.expose_secret()),
        ];
        form.extend(self.scope.as_deref().map(|scope| ("scope", scope)));
        form.extend(self.audience.as_deref().map(|audience| ("audience", audience)));
        let request = self.http.post(self.token_url.clone()).header(ACCEPT, "application/json").form(&form);
        wire::exchange(request, what, Sends::Reading).await
    }
}

#[derive(Deserialize)]
struct Granted {
    #[serde(deserialize_with = "secret_text")]
    access_token: SecretString,
    expires_in: Option<u64>,
}
