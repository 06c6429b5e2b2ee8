//! How a request proves who it is: by an API token, or as a service app of the org.
//!
//! A service app (Okta developer guide "Implement OAuth for Okta with a service app") signs a short assertion with its
//! private key, gets an access token for it, and, where the org wants DPoP (RFC 9449), proves with each request that it
//! holds the key that the token is bound to.

mod assertion;
mod dpop;
mod error;
mod jws;
pub mod key;
mod oauth;
mod ssws;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod time;
mod token;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

use crate::config::secret::LiveSecret;

pub use dpop::Dpop;
pub use error::AuthError;
pub use oauth::{OAuth, OAuthSettings};
pub use time::Time;

/// What a request carries to prove who it is, made for this one request. `Debug` shows nothing of it.
pub struct Pass {
    /// The `Authorization` header, marked sensitive.
    pub authorization: HeaderValue,
    /// The `DPoP` header, when the token is bound to a key.
    pub proof: Option<HeaderValue>,
    /// Tells the token from those before and after it.
    serial: u64,
    /// The nonce that stands in the proof.
    nonce: Option<String>,
}

impl Pass {
    /// One that is the same for every request.
    pub fn plain(authorization: HeaderValue) -> Self {
        Self { authorization, proof: None, serial: 0, nonce: None }
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pass(…)")
    }
}

/// What has been tried for one request that was refused, so that nothing is tried twice.
#[derive(Debug, Default)]
pub struct Tried {
    /// A nonce of the server's.
    pub nonce: bool,
    /// The server's clock.
    pub clock: bool,
    /// Another token or secret.
    pub renewed: bool,
}

/// What Okta has given to a service app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The app's client id: the actor of all that is done with the token.
    pub client_id: String,
    /// Whether the token is bound to a key of ours.
    pub dpop: bool,
    /// How long tokens live.
    pub lifetime: Duration,
    /// The scopes that Okta named, or those asked for if it named none.
    pub scopes: Vec<String>,
}

/// Gives out what each request carries. The seam for credentials that have to be fetched and renewed.
#[async_trait]
pub trait Credential: Send + Sync {
    /// The headers for one request to exactly this URL.
    async fn pass(&self, method: &Method, url: &Url) -> Result<Pass, AuthError>;

    /// Hears the headers of every answer to a request that carried `pass`.
    fn answered(&self, _pass: &Pass, _status: StatusCode, _headers: &HeaderMap) {}

    /// Hears that Okta refused the request (401), after [`Credential::answered`]. True when the next pass will be a better
    /// one, so that the request is worth sending again; it was not carried out.
    ///
    /// # Errors
    /// When there should be a better one and it cannot be had, which says more than the refusal does.
    async fn refused(&self, pass: &Pass, headers: &HeaderMap, tried: &mut Tried) -> Result<bool, AuthError>;

    /// What a service app has been given, asked for now if need be; `None` for a credential that nothing is given for.
    async fn granted(&self) -> Result<Option<Granted>, AuthError> {
        Ok(None)
    }
}

/// A member of a JSON object that is a secret.
fn hidden<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(SecretString::from))
}

/// The credential of a client. Cheap to clone; `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Auth(Arc<dyn Credential>);

impl Auth {
    /// An API token that stays as it is; see [`Auth::api_token`].
    pub fn ssws(token: &SecretString) -> Result<Self, AuthError> {
        Self::api_token(token.clone().into())
    }

    /// An API token, sent as `SSWS <token>`. It acts with the admin rights of who created it. When Okta refuses it, it is
    /// read again where it came from.
    pub fn api_token(token: LiveSecret) -> Result<Self, AuthError> {
        Ok(Self(Arc::new(ssws::Ssws::new(token)?)))
    }

    /// Any other credential.
    pub fn new(credential: Arc<dyn Credential>) -> Self {
        Self(credential)
    }

    pub(super) async fn pass(&self, method: &Method, url: &Url) -> Result<Pass, AuthError> {
        self.0.pass(method, url).await
    }

    pub(super) fn answered(&self, pass: &Pass, status: StatusCode, headers: &HeaderMap) {
        self.0.answered(pass, status, headers);
    }

    pub(super) async fn refused(&self, pass: &Pass, headers: &HeaderMap, tried: &mut Tried) -> Result<bool, AuthError> {
        self.0.refused(pass, headers, tried).await
    }

    pub(super) async fn granted(&self) -> Result<Option<Granted>, AuthError> {
        self.0.granted().await
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auth(…)")
    }
}
