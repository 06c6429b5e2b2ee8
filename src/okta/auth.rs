//! How a request proves who it is.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

/// Gives out the value of the `Authorization` header. The seam for credentials that have to be fetched and renewed.
#[async_trait]
pub trait Credential: Send + Sync {
    /// The value for the next request, marked sensitive.
    async fn authorization(&self) -> Result<HeaderValue, AuthError>;

    /// Hears that Okta refused the value just given out (401). True when the next value will be a new one, so that the
    /// request is worth sending once more; it was not carried out.
    async fn refused(&self) -> bool;
}

/// The credential of a client. Cheap to clone; `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Auth(Arc<dyn Credential>);

impl Auth {
    /// An API token, sent as `SSWS <token>`. It acts with the admin rights of who created it.
    pub fn ssws(token: &SecretString) -> Result<Self, AuthError> {
        let token = token.expose_secret().trim();
        if token.is_empty() {
            return Err(AuthError::Empty);
        }
        let mut value = HeaderValue::from_str(&format!("SSWS {token}")).map_err(|_| AuthError::NotAHeader)?;
        value.set_sensitive(true);
        Ok(Self(Arc::new(Ssws(value))))
    }

    /// Any other credential.
    pub fn new(credential: Arc<dyn Credential>) -> Self {
        Self(credential)
    }

    /// See [`Credential::authorization`].
    pub async fn authorization(&self) -> Result<HeaderValue, AuthError> {
        self.0.authorization().await
    }

    /// See [`Credential::refused`].
    pub async fn refused(&self) -> bool {
        self.0.refused().await
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auth(…)")
    }
}

/// No credential could be had; nothing was sent.
#[derive(Debug, Error)]
pub enum AuthError {
    /// The token is empty.
    #[error("the API token is empty; look at `okta.token`")]
    Empty,
    /// The token holds characters that no token has.
    #[error("the API token holds line breaks or other characters that no token has; look at `okta.token`")]
    NotAHeader,
}

/// The header value is the secret; it is sensitive, so that its `Debug` shows nothing either.
struct Ssws(HeaderValue);

#[async_trait]
impl Credential for Ssws {
    async fn authorization(&self) -> Result<HeaderValue, AuthError> {
        Ok(self.0.clone())
    }

    async fn refused(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_token_is_sent_and_never_shown() {
        let auth = Auth::ssws(&SecretString::from("00secret\n")).unwrap();
        let value = auth.authorization().await.unwrap();
        assert_eq!(value.to_str().unwrap(), "SSWS 00secret");
        assert!(!format!("{auth:?} {value:?}").contains("00secret"));
        assert!(!auth.refused().await);
    }

    #[test]
    fn what_cannot_be_a_token_is_refused_without_repeating_it() {
        assert!(matches!(Auth::ssws(&SecretString::from(" \n")), Err(AuthError::Empty)));
        let error = Auth::ssws(&SecretString::from("00sec\nret")).unwrap_err();
        assert!(matches!(error, AuthError::NotAHeader));
        assert!(!format!("{error} {error:?}").contains("00sec"));
    }
}
