//! JSON Web Tokens as Okta reads them (RFC 7515, RFC 7518): compact, RSA or ECDSA, verified with a key that is known
//! or, in a DPoP proof, with the one in the header. Nothing here is shared with the code that signs.

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The algorithms that Okta takes, for assertions and proofs alike.
pub(super) const ALGORITHMS: [&str; 6] = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"];

/// A token that was taken apart; nothing about it is verified yet.
#[derive(Debug)]
pub(super) struct Jwt {
    pub(super) header: Value,
    claims: Value,
    signed: String,
    signature: Vec<u8>,
}

impl Jwt {
    /// Takes a compact token apart.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let json = |part: &str| serde_json::from_slice::<Value>(&decode(part)?).ok().filter(Value::is_object);
        Some(Self {
            header: json(header)?,
            claims: json(claims)?,
            signed: signed.to_owned(),
            signature: decode(signature)?,
        })
    }

    /// A claim that is text.
    pub(super) fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim)?.as_str()
    }

    /// A claim that is a moment, in whole seconds since 1970.
    pub(super) fn seconds(&self, claim: &str) -> Option<i64> {
        self.claims.get(claim)?.as_i64()
    }

    /// Whether `aud` is this and nothing else.
    pub(super) fn is_for(&self, audience: &str) -> bool {
        match self.claims.get("aud") {
            Some(Value::Array(all)) => matches!(all.as_slice(), [only] if only == audience),
            Some(one) => one == audience,
            None => false,
        }
    }

    /// A header that is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.header.get(name)?.as_str()
    }

    /// Whether the algorithm is one that Okta takes.
    pub(super) fn has_known_algorithm(&self) -> bool {
        self.header("alg").is_some_and(|alg| ALGORITHMS.contains(&alg))
    }

    /// Whether this key made the signature, by the algorithm that the header names.
    pub(super) fn is_signed_by(&self, key: &PublicKey) -> bool {
        key.verifies(self.header("alg").unwrap_or_default(), self.signed.as_bytes(), &self.signature)
    }
}

/// A public key.
#[derive(Debug, Clone)]
pub(super) enum PublicKey {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    Ec {
        curve: Curve,
        x: Vec<u8>,
        y: Vec<u8>,
    },
    /// X.509 `SubjectPublicKeyInfo`, of either kind.
    Spki(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    fn of(name: &str) -> Option<Self> {
        [Self::P256, Self::P384, Self::P521].into_iter().find(|curve| curve.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// The bytes of a coordinate, leading zeros included.
    fn width(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    fn algorithm(self) -> &'static str {
        match self {
            Self::P256 => "ES256",
            Self::P384 => "ES384",
            Self::P521 => "ES512",
        }
    }
}

impl PublicKey {
    /// Reads a JWK. One with private parts is none that anybody should send.
    pub(super) fn from_jwk(jwk: &Value) -> Option<Self> {
        if ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|private| jwk.get(private).is_some()) {
            return None;
        }
        let part = |name: &str| decode(jwk.get(name)?.as_str()?);
        match jwk.get("kty")?.as_str()? {
            "RSA" => Some(Self::Rsa { modulus: part("n")?, exponent: part("e")? }),
            "EC" => {
                let curve = Curve::of(jwk.get("crv")?.as_str()?)?;
                let (x, y) = (part("x")?, part("y")?);
                (x.len() == curve.width() && y.len() == curve.width()).then_some(Self::Ec { curve, x, y })
            }
            _ => None,
        }
    }

    /// The JWK's SHA-256 thumbprint: over its necessary members in the order of their names, without blanks (RFC 7638).
    pub(super) fn thumbprint(&self) -> Option<String> {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let canonical = match self {
            Self::Rsa { modulus, exponent } => {
                format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, encode(exponent), encode(modulus))
            }
            Self::Ec { curve, x, y } => {
                format!(r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#, curve.name(), encode(x), encode(y))
            }
            Self::Spki(_) => return None,
        };
        Some(hash(canonical.as_bytes()))
    }

    fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let rsa = match algorithm {
            "RS256" => Some(&RSA_PKCS1_2048_8192_SHA256),
            "RS384" => Some(&RSA_PKCS1_2048_8192_SHA384),
            "RS512" => Some(&RSA_PKCS1_2048_8192_SHA512),
            _ => None,
        };
        let ec = match algorithm {
            "ES256" => Some(&ECDSA_P256_SHA256_FIXED),
            "ES384" => Some(&ECDSA_P384_SHA384_FIXED),
            "ES512" => Some(&ECDSA_P521_SHA512_FIXED),
            _ => None,
        };
        let unparsed = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
        };
        match self {
            Self::Rsa { modulus, exponent } => rsa.is_some_and(|rsa| {
                PublicKeyComponents { n: modulus, e: exponent }.verify(rsa, message, signature).is_ok()
            }),
            Self::Ec { curve, x, y } => {
                let point = [&[4], x.as_slice(), y].concat();
                ec.is_some_and(|ec| curve.algorithm() == algorithm && unparsed(ec, &point))
            }
            Self::Spki(der) => rsa.is_some_and(|rsa| unparsed(rsa, der)) || ec.is_some_and(|ec| unparsed(ec, der)),
        }
    }
}

/// SHA-256 as base64url, the form of thumbprints and of `ath`.
pub(super) fn hash(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(bytes))
}

fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The example of RFC 7638, section 3.1.
    #[test]
    fn the_thumbprint_is_that_of_the_standard_whatever_else_the_key_says() {
        let modulus = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCi\
                       FV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgn\
                       Yb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqb\
                       w0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let jwk = json!({"kty": "RSA", "n": modulus, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"});
        let thumbprint = PublicKey::from_jwk(&jwk).unwrap().thumbprint().unwrap();
        assert_eq!(thumbprint, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn a_key_with_private_parts_or_a_short_coordinate_is_refused() {
        let zeros = BASE64_URL_SAFE_NO_PAD.encode([0; 32]);
        let public = json!({"kty": "EC", "crv": "P-256", "x": zeros, "y": zeros});
        assert!(PublicKey::from_jwk(&public).is_some());
        for (name, value) in [("d", zeros.as_str()), ("x", "AAAA"), ("crv", "P-384"), ("kty", "oct")] {
            let mut other = public.clone();
            other[name] = Value::from(value);
            assert!(PublicKey::from_jwk(&other).is_none(), "{name}");
        }
    }

    #[test]
    fn what_is_no_token_is_none() {
        for text in ["", "a.b", "e30.e30", "e30.e30.!", "W10.e30.", "e30.bnVsbA.", "e30.e30.e30.e30"] {
            assert!(Jwt::parse(text).is_none(), "{text}");
        }
        assert!(Jwt::parse("e30.e30.").is_some());
    }
}
