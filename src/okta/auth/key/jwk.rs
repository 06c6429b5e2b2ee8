//! Private keys as JSON (RFC 7517, RFC 7518).

use aws_lc_rs::rsa::{KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{EcdsaKeyPair, RsaKeyPair};
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{Curve, Found, KeyError, Material, check_modulus};
use crate::okta::auth::hidden;

/// Some tools write padding, which JWKs do not have.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One private JWK, alone or as the only one of a set.
pub(super) fn read(text: &str) -> Result<Found, KeyError> {
    // The parser's own words may quote a value.
    let damaged = |error: serde_json::Error| KeyError::DamagedJwk { line: error.line(), column: error.column() };
    let set: Set = serde_json::from_str(text).map_err(damaged)?;
    let jwk = match set.keys {
        None => serde_json::from_str(text).map_err(damaged)?,
        Some(keys) => {
            let mut keys = keys.into_iter();
            match (keys.next(), keys.next()) {
                (Some(key), None) => key,
                (None, _) => return Err(KeyError::NoKey),
                (Some(_), Some(_)) => return Err(KeyError::SeveralKeys),
            }
        }
    };
    jwk.found()
}

#[derive(Deserialize)]
struct Set {
    keys: Option<Vec<Jwk>>,
}

#[derive(Deserialize)]
struct Jwk {
    #[serde(default)]
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    #[serde(default, deserialize_with = "hidden")]
    d: Option<SecretString>,
    #[serde(default, deserialize_with = "hidden")]
    p: Option<SecretString>,
    #[serde(default, deserialize_with = "hidden")]
    q: Option<SecretString>,
    #[serde(default, deserialize_with = "hidden")]
    dp: Option<SecretString>,
    #[serde(default, deserialize_with = "hidden")]
    dq: Option<SecretString>,
    #[serde(default, deserialize_with = "hidden")]
    qi: Option<SecretString>,
}

impl Jwk {
    fn found(self) -> Result<Found, KeyError> {
        if self.r#use.as_deref().is_some_and(|purpose| purpose != "sig") {
            return Err(KeyError::JwkUse);
        }
        let material = match self.kty.as_str() {
            "" => return Err(KeyError::NoKey),
            "RSA" => self.rsa()?,
            "EC" => self.ec()?,
            _ => return Err(KeyError::Kind),
        };
        let Self { kid, alg, .. } = self;
        Ok(Found { material, key_id: kid.filter(|kid| !kid.is_empty()), algorithm: alg })
    }

    fn rsa(&self) -> Result<Material, KeyError> {
        let public_key = PublicKeyComponents {
            n: without_zeros(number("n", self.n.as_deref())?),
            e: without_zeros(number("e", self.e.as_deref())?),
        };
        check_modulus(&public_key.n)?;
        let d = self.d.as_ref().ok_or(KeyError::Public)?;
        let secret = |member, value: &Option<SecretString>| number(member, value.as_ref().map(|v| v.expose_secret()));
        let components = KeyPairComponents {
            public_key,
            d: number("d", Some(d.expose_secret()))?,
            p: secret("p", &self.p)?,
            q: secret("q", &self.q)?,
            dP: secret("dp", &self.dp)?,
            dQ: secret("dq", &self.dq)?,
            qInv: secret("qi", &self.qi)?,
        };
        RsaKeyPair::from_components(&components).map(Material::Rsa).map_err(|_| KeyError::Damaged)
    }

    fn ec(&self) -> Result<Material, KeyError> {
        let curve = Curve::ALL.into_iter().find(|curve| Some(curve.jwk_name()) == self.crv.as_deref());
        let curve = curve.ok_or(KeyError::Curve)?;
        let (x, y) = (padded(curve, "x", self.x.as_deref())?, padded(curve, "y", self.y.as_deref())?);
        let d = self.d.as_ref().ok_or(KeyError::Public)?;
        let d = padded(curve, "d", Some(d.expose_secret()))?;
        let point = [&[4][..], &x, &y].concat();
        let pair = EcdsaKeyPair::from_private_key_and_public_key(curve.signing(), &d, &point);
        Ok(Material::Ec(curve, pair.map_err(|_| KeyError::Damaged)?))
    }
}

/// The big-endian bytes of a member.
fn number(member: &'static str, value: Option<&str>) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let value = value.ok_or(KeyError::JwkLacks { member })?;
    BASE64URL.decode(value).map(Zeroizing::new).map_err(|_| KeyError::Damaged)
}

fn without_zeros(number: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    Zeroizing::new(number.get(start..).unwrap_or_default().to_vec())
}

/// A member as a number of the curve's length; some tools drop leading zeros, or add some.
fn padded(curve: Curve, member: &'static str, value: Option<&str>) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let number = without_zeros(number(member, value)?);
    let missing = curve.bytes().checked_sub(number.len()).ok_or(KeyError::Damaged)?;
    let mut whole = Zeroizing::new(vec![0; missing]);
    whole.reserve_exact(number.len());
    whole.extend_from_slice(&number);
    Ok(whole)
}
