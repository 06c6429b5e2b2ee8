//! Proofs that a request comes from who holds the key that its token is bound to (RFC 9449).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::AuthError;
use super::jws::{base64url, compact, unique_id};

/// The most characters of a nonce; Okta's have 32.
const MAX_NONCE: usize = 512;

/// `dpop = "required" | "auto" | "off"`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dpop {
    /// Only tokens that are bound to a key are used.
    Required,
    /// Begins without, and goes over to it when the org demands it.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// Who gave out a nonce: each server knows only its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    /// The token endpoint.
    Tokens,
    /// The API.
    Api,
}

/// The daemon's own key, which it makes at its start and keeps in memory only, and what the servers said about proofs.
pub(super) struct Prover {
    wish: Dpop,
    key: EcdsaKeyPair,
    public: Value,
    demanded: AtomicBool,
    nonces: Mutex<Nonces>,
}

#[derive(Default)]
struct Nonces {
    tokens: Option<String>,
    api: Option<String>,
}

impl Prover {
    pub(super) fn new(wish: Dpop) -> Result<Self, AuthError> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| AuthError::Crypto)?;
        // A point is 04, then x and y with 32 bytes each (SEC 1, 2.3.3).
        let point = key.public_key().as_ref();
        let (Some(x), Some(y)) = (point.get(1..33), point.get(33..65)) else { return Err(AuthError::Crypto) };
        let public = json!({"kty": "EC", "crv": "P-256", "x": base64url(x), "y": base64url(y)});
        let demanded = AtomicBool::new(wish == Dpop::Required);
        Ok(Self { wish, key, public, demanded, nonces: Mutex::default() })
    }

    pub(super) fn wish(&self) -> Dpop {
        self.wish
    }

    /// Whether tokens are asked for with a proof.
    pub(super) fn is_on(&self) -> bool {
        self.demanded.load(Ordering::SeqCst)
    }

    /// The token endpoint wants proofs. True when they are sent from now on and were not before.
    pub(super) fn demand(&self) -> bool {
        self.wish == Dpop::Auto && !self.demanded.swap(true, Ordering::SeqCst)
    }

    /// The nonce for the next proof to a server.
    pub(super) fn nonce(&self, server: Server) -> Option<String> {
        let nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        match server {
            Server::Tokens => nonces.tokens.clone(),
            Server::Api => nonces.api.clone(),
        }
    }

    /// Takes over the nonce of an answer, if it carries one.
    pub(super) fn take_nonce(&self, server: Server, headers: &HeaderMap) {
        let nonce = headers.get("dpop-nonce").and_then(|value| value.to_str().ok()).map(str::trim);
        let Some(nonce) = nonce.filter(|nonce| (1..=MAX_NONCE).contains(&nonce.len())) else { return };
        let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        match server {
            Server::Tokens => nonces.tokens = Some(nonce.to_owned()),
            Server::Api => nonces.api = Some(nonce.to_owned()),
        }
    }

    /// A proof for one request, good for nothing else. `now` is Okta's time; `token` is the one that goes with it.
    pub(super) fn proof(
        &self,
        method: &Method,
        url: &Url,
        now: Timestamp,
        nonce: Option<&str>,
        token: Option<&str>,
    ) -> Result<HeaderValue, AuthError> {
        let mut bare = url.clone();
        bare.set_query(None);
        bare.set_fragment(None);
        let mut claims = json!({
            "htm": method.as_str(),
            "htu": bare.as_str(),
            "iat": now.as_second(),
            "jti": unique_id()?,
        });
        if let Some(claims) = claims.as_object_mut() {
            if let Some(nonce) = nonce {
                claims.insert("nonce".to_owned(), nonce.into());
            }
            if let Some(token) = token {
                claims.insert("ath".to_owned(), base64url(Sha256::digest(token)).into());
            }
        }
        let header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.public});
        let sign = |message: &[u8]| Some(self.key.sign(&SystemRandom::new(), message).ok()?.as_ref().to_vec());
        let proof = compact(&header, &claims, sign)?;
        let mut value = HeaderValue::from_str(&proof).map_err(|_| AuthError::Crypto)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// Why the API refused a token or its proof, as `WWW-Authenticate` says it (RFC 6750, RFC 9449).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A nonce is wanted in the proof.
    Nonce,
    /// The proof is wrong.
    Proof,
    /// The token is wrong or has ended.
    Token,
    /// It does not say.
    Unsaid,
}

impl Challenge {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(WWW_AUTHENTICATE);
        let says = |word: &str| {
            lines.iter().any(|line| line.as_bytes().windows(word.len()).any(|part| part == word.as_bytes()))
        };
        if says("use_dpop_nonce") {
            Self::Nonce
        } else if says("invalid_dpop_proof") {
            Self::Proof
        } else if says("invalid_token") {
            Self::Token
        } else {
            Self::Unsaid
        }
    }
}
