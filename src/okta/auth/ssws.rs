//! An API token of Okta's own scheme.

use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretString};
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::{AuthError, Credential, Pass, Tried};
use crate::config::secret::LiveSecret;

/// `Authorization: SSWS <token>`
pub(super) struct Ssws(LiveSecret);

impl Ssws {
    pub(super) fn new(token: LiveSecret) -> Result<Self, AuthError> {
        header(&token.current())?;
        Ok(Self(token))
    }
}

#[async_trait]
impl Credential for Ssws {
    async fn pass(&self, _method: &Method, _url: &Url) -> Result<Pass, AuthError> {
        Ok(Pass::plain(header(&self.0.current())?))
    }

    async fn refused(&self, pass: &Pass, _headers: &HeaderMap, tried: &mut Tried) -> Result<bool, AuthError> {
        if std::mem::replace(&mut tried.renewed, true) {
            return Ok(false);
        }
        // Another request may have read it again while this one was under way.
        let is_new = |token: SecretString| header(&token).is_ok_and(|header| header != pass.authorization);
        if is_new(self.0.current()) {
            return Ok(true);
        }
        match self.0.reread() {
            Ok(true) => {
                info!(
                    "Okta refuses the API token, and `okta.token` has a new one: it is used from now on; should it belong to \
                     another account, reload, so that its events are known as our own"
                );
                Ok(is_new(self.0.current()))
            }
            Ok(false) => Ok(false),
            Err(error) => {
                warn!("Okta refuses the API token, and `okta.token` cannot be read again: {error}; {}", error.remedy());
                Ok(false)
            }
        }
    }
}

fn header(token: &SecretString) -> Result<HeaderValue, AuthError> {
    let token = token.expose_secret().trim();
    if token.is_empty() {
        return Err(AuthError::Empty);
    }
    let text = Zeroizing::new(format!("SSWS {token}"));
    let mut value = HeaderValue::from_str(&text).map_err(|_| AuthError::NotAHeader)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::{SecretEnv, SecretSource};
    use crate::okta::Auth;

    async fn pass(auth: &Auth) -> Pass {
        auth.pass(&Method::GET, &Url::parse("https://example.okta.com/x").unwrap()).await.unwrap()
    }

    async fn refused(auth: &Auth, pass: &Pass) -> bool {
        auth.refused(pass, &HeaderMap::new(), &mut Tried::default()).await.unwrap()
    }

    #[tokio::test]
    async fn the_token_is_sent_and_never_shown() {
        let auth = Auth::ssws(&SecretString::from("00secret\n")).unwrap();
        let pass = pass(&auth).await;
        assert_eq!(pass.authorization.to_str().unwrap(), "SSWS 00secret");
        assert!(!format!("{auth:?} {pass:?} {:?}", pass.authorization).contains("00secret"));
        assert!(!refused(&auth, &pass).await);
    }

    #[test]
    fn what_cannot_be_a_token_is_refused_without_repeating_it() {
        assert!(matches!(Auth::ssws(&SecretString::from(" \n")), Err(AuthError::Empty)));
        let error = Auth::ssws(&SecretString::from("00sec\nret")).unwrap_err();
        assert!(matches!(error, AuthError::NotAHeader));
        assert!(!format!("{error} {error:?}").contains("00sec"));
    }

    #[tokio::test]
    async fn a_refused_token_is_read_again_where_it_came_from() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("token");
        let write = |token: &str| {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::write(&path, token).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        };
        write("00old");
        let source = SecretSource::File(path.clone());
        let auth = Auth::api_token(LiveSecret::read(&source, &SecretEnv::new(None, |_| None)).unwrap()).unwrap();
        let old = pass(&auth).await;
        assert!(!refused(&auth, &old).await, "it is the same one");
        write("00new");
        let mut tried = Tried::default();
        assert!(auth.refused(&old, &HeaderMap::new(), &mut tried).await.unwrap());
        assert!(!auth.refused(&old, &HeaderMap::new(), &mut tried).await.unwrap(), "once for a request");
        let new = pass(&auth).await;
        assert_eq!(new.authorization.to_str().unwrap(), "SSWS 00new");
        assert!(refused(&auth, &old).await, "another request with the old one hears of the new one");
        // Zeros, as a file has them whose content was lost: the daemon goes on asking, and finds the next one.
        write("\0\0\0\0");
        assert!(!refused(&auth, &new).await);
        let new = pass(&auth).await;
        write("00newest");
        assert!(refused(&auth, &new).await);
        let new = pass(&auth).await;
        assert_eq!(new.authorization.to_str().unwrap(), "SSWS 00newest");
        std::fs::remove_file(&path).unwrap();
        assert!(!refused(&auth, &new).await);
    }
}
