//! The private key of a service app: read in the forms in which people have it, and used to sign.
//!
//! Nothing of a key is ever in an error or in `Debug`.

mod der;
mod error;
mod jwk;
mod pem;
#[cfg(test)]
mod tests;

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair,
};
use serde::Deserialize;

pub use error::KeyError;

/// How an assertion is signed (RFC 7518): what Okta takes for `private_key_jwt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
pub enum Algorithm {
    /// RSA with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// RSA with SHA-384.
    #[serde(rename = "RS384")]
    Rs384,
    /// RSA with SHA-512.
    #[serde(rename = "RS512")]
    Rs512,
    /// ECDSA on P-256.
    #[serde(rename = "ES256")]
    Es256,
    /// ECDSA on P-384.
    #[serde(rename = "ES384")]
    Es384,
    /// ECDSA on P-521.
    #[serde(rename = "ES512")]
    Es512,
}

impl Algorithm {
    const ALL: [Self; 6] = [Self::Rs256, Self::Rs384, Self::Rs512, Self::Es256, Self::Es384, Self::Es512];

    /// Its name in a JWT's header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    /// What it asks of a key: a curve, or RSA.
    fn curve(self) -> Option<Curve> {
        match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 => None,
            Self::Es256 => Some(Curve::P256),
            Self::Es384 => Some(Curve::P384),
            Self::Es512 => Some(Curve::P521),
        }
    }

    fn rsa_encoding(self) -> &'static dyn RsaEncoding {
        match self {
            Self::Rs384 => &RSA_PKCS1_SHA384,
            Self::Rs512 => &RSA_PKCS1_SHA512,
            _ => &RSA_PKCS1_SHA256,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key, and how it signs.
pub struct SigningKey {
    material: Material,
    algorithm: Algorithm,
    key_id: Option<String>,
}

impl SigningKey {
    /// Reads a private key: PEM (PKCS#1, PKCS#8 or SEC 1, with other text around it) or a JWK. `algorithm` and `key_id` are
    /// what the configuration says; what it leaves open a JWK's own `alg` and `kid` say, and else the kind of key.
    ///
    /// # Errors
    /// When it is no key, not the kind of key that signs here, or does not fit the algorithm.
    pub fn read(text: &str, algorithm: Option<Algorithm>, key_id: Option<&str>) -> Result<Self, KeyError> {
        let text = text.trim().trim_start_matches('\u{feff}');
        let found = if text.starts_with(['{', '[']) { jwk::read(text)? } else { Found::from(pem::read(text)?) };
        let configured = algorithm.is_some();
        let algorithm = match (algorithm, found.algorithm.as_deref()) {
            (Some(algorithm), _) => algorithm,
            (None, Some(name)) => Algorithm::named(name).ok_or(KeyError::JwkAlgorithm)?,
            (None, None) => found.material.default_algorithm(),
        };
        if algorithm.curve() != found.material.curve() {
            let (kind, fits) = (found.material.name(), found.material.fitting());
            return Err(match configured {
                true => KeyError::AlgorithmMismatch { algorithm, kind, fits },
                // Only a JWK brings one of its own.
                false => KeyError::JwkAlgorithmMismatch { algorithm, kind, fits },
            });
        }
        let key_id = key_id.map(str::to_owned).or(found.key_id);
        Ok(Self { material: found.material, algorithm, key_id })
    }

    /// How it signs.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The name under which Okta knows the public key.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// The signature as a JWT carries it (RFC 7518, 3.3 and 3.4). `None` when the machine gives no random numbers.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.material {
            Material::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(self.algorithm.rsa_encoding(), &random, message, &mut signature).ok()?;
                Some(signature)
            }
            Material::Ec(_, pair) => Some(pair.sign(&random, message).ok()?.as_ref().to_vec()),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// What a text held.
struct Found {
    material: Material,
    key_id: Option<String>,
    /// A JWK's word for how it signs.
    algorithm: Option<String>,
}

impl From<Material> for Found {
    fn from(material: Material) -> Self {
        Self { material, key_id: None, algorithm: None }
    }
}

enum Material {
    Rsa(RsaKeyPair),
    Ec(Curve, EcdsaKeyPair),
}

impl Material {
    fn curve(&self) -> Option<Curve> {
        match self {
            Self::Rsa(_) => None,
            Self::Ec(curve, _) => Some(*curve),
        }
    }

    fn default_algorithm(&self) -> Algorithm {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.curve() == self.curve()).unwrap_or(Algorithm::Rs256)
    }

    fn name(&self) -> &'static str {
        self.curve().map_or("an RSA key", Curve::name)
    }

    fn fitting(&self) -> &'static str {
        match self.curve() {
            None => "RS256, RS384 or RS512",
            Some(Curve::P256) => "ES256",
            Some(Curve::P384) => "ES384",
            Some(Curve::P521) => "ES512",
        }
    }
}

/// The curves of ES256, ES384 and ES512.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    fn name(self) -> &'static str {
        match self {
            Self::P256 => "an EC key on P-256",
            Self::P384 => "an EC key on P-384",
            Self::P521 => "an EC key on P-521",
        }
    }

    /// Its name in a JWK (RFC 7518, 6.2.1.1).
    fn jwk_name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// The content of its object identifier (RFC 5480, 2.1.1.1).
    fn oid(self) -> &'static [u8] {
        match self {
            Self::P256 => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
            Self::P384 => &[0x2b, 0x81, 0x04, 0x00, 0x22],
            Self::P521 => &[0x2b, 0x81, 0x04, 0x00, 0x23],
        }
    }

    /// The bytes of a number on it.
    fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
            Self::P521 => &ECDSA_P521_SHA512_FIXED_SIGNING,
        }
    }
}

/// The least bits of an RSA modulus (RFC 7518, 3.3).
const LEAST_RSA_BITS: usize = 2048;

/// Refuses RSA keys that are too small to sign; `modulus` is its big-endian bytes.
fn check_modulus(modulus: &[u8]) -> Result<(), KeyError> {
    let significant = modulus.iter().position(|byte| *byte != 0).and_then(|start| modulus.get(start..));
    let significant = significant.unwrap_or_default();
    let leading = significant.first().map_or(0, |first| first.leading_zeros() as usize);
    let bits = (significant.len() * 8).saturating_sub(leading);
    if bits < LEAST_RSA_BITS { Err(KeyError::RsaTooSmall { bits }) } else { Ok(()) }
}
