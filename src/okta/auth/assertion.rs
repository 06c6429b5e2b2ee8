//! The assertion by which a service app proves who it is to the token endpoint (RFC 7523, `private_key_jwt`).

use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::json;
use url::Url;

use super::AuthError;
use super::jws::{compact, unique_id};
use super::key::SigningKey;

/// How long an assertion is good, in seconds. Okta takes up to an hour (developer guide on service apps); it is used at once.
const LIFE_S: i64 = 300;

/// A fresh assertion; each is good for one request, because Okta takes each `jti` once. `now` is Okta's time.
pub(super) fn assertion(
    key: &SigningKey,
    client_id: &str,
    audience: &Url,
    now: Timestamp,
) -> Result<SecretString, AuthError> {
    let mut header = json!({"alg": key.algorithm().as_str(), "typ": "JWT"});
    if let (Some(header), Some(key_id)) = (header.as_object_mut(), key.key_id()) {
        header.insert("kid".to_owned(), key_id.into());
    }
    let issued_at = now.as_second();
    let claims = json!({
        "iss": client_id,
        "sub": client_id,
        "aud": audience.as_str(),
        "iat": issued_at,
        "exp": issued_at.saturating_add(LIFE_S),
        "jti": unique_id()?,
    });
    compact(&header, &claims, |message| key.sign(message)).map(SecretString::from)
}
