//! Proofs of possession (RFC 9449): what is checked of each, at the token endpoint and at every resource.

use axum::http::HeaderMap;

use super::OAuth;
use super::jwt::{Jwt, PublicKey, hash};

/// How far the moment of a proof may be from ours, either way, in seconds.
const IAT_WINDOW: i64 = 300;

/// What a proof must be for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub(super) method: &'a str,
    /// Without query and fragment.
    pub(super) url: &'a str,
    /// The access token that comes with it.
    pub(super) token: Option<&'a str>,
    /// Whether a nonce must be in it.
    pub(super) nonce: bool,
}

/// Why a proof is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is none, or not one that holds; in Okta's words.
    Invalid(String),
    /// It needs the nonce that is current now.
    Nonce(String),
}

/// A proof that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proven {
    /// The thumbprint of the key that made it.
    pub(super) jkt: String,
    /// The nonce to use from now on, if the one in it will not work for ever.
    pub(super) renewed: Option<String>,
}

/// The proof among the headers; `None` when there is none.
pub(super) fn given(headers: &HeaderMap) -> Option<Result<&str, Refused>> {
    let mut all = headers.get_all("dpop").iter();
    let first = all.next()?;
    if all.next().is_some() {
        return Some(Err(invalid("More than one DPoP header is present.")));
    }
    Some(first.to_str().map_err(|_| invalid("The DPoP proof JWT is malformed.")))
}

impl OAuth {
    /// Checks a proof, and spends its id. `now` is in seconds since 1970.
    pub(super) fn prove(&mut self, text: &str, expected: Expected<'_>, now: i64) -> Result<Proven, Refused> {
        let proof = Jwt::parse(text).ok_or_else(|| invalid("The DPoP proof JWT is malformed."))?;
        if proof.header("typ") != Some("dpop+jwt") {
            return Err(header("typ"));
        }
        if !proof.has_known_algorithm() {
            return Err(header("alg"));
        }
        let key = proof.header.get("jwk").and_then(PublicKey::from_jwk).ok_or_else(|| header("jwk"))?;
        if !proof.is_signed_by(&key) {
            return Err(invalid("The DPoP proof JWT signature is invalid."));
        }
        if proof.text("htm") != Some(expected.method) {
            return Err(claim("htm"));
        }
        if proof.text("htu") != Some(expected.url) {
            return Err(claim("htu"));
        }
        let made = proof.seconds("iat").ok_or_else(|| claim("iat"))?;
        if (now - made).abs() > IAT_WINDOW {
            return Err(claim("iat"));
        }
        if expected.token.is_some_and(|token| proof.text("ath") != Some(&hash(token.as_bytes()))) {
            return Err(claim("ath"));
        }
        let renewed = if expected.nonce { self.renewed(proof.text("nonce"))? } else { None };
        let id = proof.text("jti").filter(|id| !id.is_empty()).ok_or_else(|| claim("jti"))?;
        if !self.spend("proof", id, made + IAT_WINDOW, now) {
            return Err(invalid("The DPoP proof JWT has already been used."));
        }
        let jkt = key.thumbprint().ok_or_else(|| header("jwk"))?;
        Ok(Proven { jkt, renewed })
    }

    fn renewed(&self, nonce: Option<&str>) -> Result<Option<String>, Refused> {
        match nonce {
            Some(nonce) if nonce == self.nonce => Ok(None),
            Some(nonce) if self.old_nonces.contains(nonce) => Ok(Some(self.nonce.clone())),
            _ => Err(Refused::Nonce(self.nonce.clone())),
        }
    }
}

fn invalid(words: &str) -> Refused {
    Refused::Invalid(words.to_owned())
}

fn claim(name: &str) -> Refused {
    Refused::Invalid(format!("'{name}' claim in the DPoP proof JWT is invalid."))
}

fn header(name: &str) -> Refused {
    Refused::Invalid(format!("'{name}' header in the DPoP proof JWT is invalid."))
}
