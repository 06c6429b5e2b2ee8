//! JSON Web Signatures in their compact form (RFC 7515).

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::AuthError;

/// Header, claims and signature, ready to be sent.
pub(super) fn compact(
    header: &Value,
    claims: &Value,
    sign: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Result<String, AuthError> {
    let mut text = format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()));
    let signature = sign(text.as_bytes()).ok_or(AuthError::Crypto)?;
    text.push('.');
    text.push_str(&base64url(signature));
    Ok(text)
}

/// An id that no other token has: 128 random bits.
pub(super) fn unique_id() -> Result<String, AuthError> {
    let mut bits = [0; 16];
    rand::fill(&mut bits).map_err(|_| AuthError::Crypto)?;
    Ok(base64url(bits))
}

/// Base64 as JWTs write it: for URLs, without padding.
pub(super) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
