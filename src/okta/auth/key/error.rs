//! What can be wrong with a private key.

use thiserror::Error;

use super::Algorithm;
use crate::http::pem::TAKE_PASSPHRASE_OFF;

/// A private key that cannot be used. Nothing of the key is in it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Neither PEM nor a JWK.
    #[error("this is neither a key in PEM form nor a JWK")]
    NoKey,
    /// It begins like PEM and is damaged.
    #[error("the PEM text is damaged: a line, an end or a character is missing")]
    DamagedPem,
    /// It begins like JSON and is damaged.
    #[error("the JWK is not JSON of that form (line {line}, column {column})")]
    DamagedJwk {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// The numbers do not make a key.
    #[error("the key is damaged: its numbers do not belong together")]
    Damaged,
    /// Only the public half.
    #[error("this is a public key")]
    Public,
    /// A certificate, or a request for one.
    #[error("this is a certificate without its private key")]
    Certificate,
    /// It needs a passphrase.
    #[error("the private key is encrypted with a passphrase")]
    Encrypted,
    /// OpenSSH's or PuTTY's own format.
    #[error("this is an SSH key in a format of its own")]
    Ssh,
    /// More than one private key.
    #[error("there are several private keys")]
    SeveralKeys,
    /// RSA, too small.
    #[error("this is an RSA key of {bits} bits, and fewer than 2048 are not enough")]
    RsaTooSmall {
        /// The bits of its modulus.
        bits: usize,
    },
    /// An elliptic curve that no algorithm here signs on.
    #[error("this is an EC key on a curve that Okta does not take")]
    Curve,
    /// Ed25519, DSA, a symmetric key …
    #[error("this is neither an RSA key nor an EC key")]
    Kind,
    /// An RSA JWK with fewer numbers than are needed.
    #[error("the JWK lacks `{member}`")]
    JwkLacks {
        /// The member.
        member: &'static str,
    },
    /// A JWK's `alg` is none of ours.
    #[error("the JWK's `alg` is none that Okta takes for signing")]
    JwkAlgorithm,
    /// A JWK that is for encryption.
    #[error("the JWK's `use` says that it is not for signing")]
    JwkUse,
    /// A JWK's `alg` is for another kind of key.
    #[error("the JWK's own `alg` says {algorithm}, and this is {kind}")]
    JwkAlgorithmMismatch {
        /// What it says.
        algorithm: Algorithm,
        /// What the key is.
        kind: &'static str,
        /// What would fit.
        fits: &'static str,
    },
    /// The algorithm is for another kind of key.
    #[error("{algorithm} does not fit: this is {kind}")]
    AlgorithmMismatch {
        /// What was asked for.
        algorithm: Algorithm,
        /// What the key is.
        kind: &'static str,
        /// What would fit.
        fits: &'static str,
    },
}

impl KeyError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::NoKey => {
                "give the private key of the service app: a PEM file that begins with -----BEGIN PRIVATE KEY-----, or the \
                 JWK that Okta showed when the key was made"
            }
            Self::DamagedPem | Self::DamagedJwk { .. } | Self::Damaged => {
                "copy the whole key again, or make a new one and register its public half with the service app"
            }
            Self::Public => "give the private half; the public one is registered with the service app in Okta",
            Self::Certificate => "give the private key; Okta knows service apps by keys, not by certificates",
            Self::Encrypted => TAKE_PASSPHRASE_OFF,
            Self::Ssh => "turn it into PEM (ssh-keygen -p -m PEM -f COPY), or make a key for this purpose alone",
            Self::SeveralKeys => "leave only the one that is registered with the service app",
            Self::RsaTooSmall { .. } | Self::Curve | Self::Kind | Self::JwkAlgorithm => {
                "make an RSA key of 2048 bits or more, or an EC key on P-256, P-384 or P-521, and register its public half \
                 with the service app"
            }
            Self::JwkLacks { .. } => "give the JWK as it was made, with p, q, dp, dq and qi for RSA, or the key as PEM",
            Self::JwkUse => "give the key that is registered with the service app for signing",
            Self::JwkAlgorithmMismatch { fits, .. } => return format!("write {fits} as the JWK's `alg`, or leave it out there"),
            Self::AlgorithmMismatch { fits, .. } => return format!("write {fits} as `algorithm`, or leave it out"),
        }
        .to_owned()
    }
}
