//! Private keys as PEM: PKCS#1, PKCS#8 and SEC 1.

use aws_lc_rs::signature::{EcdsaKeyPair, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::der::{CONTEXT_0, INTEGER, OCTET_STRING, OID, Reader, SEQUENCE};
use super::{Curve, KeyError, Material, check_modulus};

const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";

/// Finds the one private key in a text.
pub(super) fn read(text: &str) -> Result<Material, KeyError> {
    if ["PuTTY-User-Key-File", "ssh-", "ecdsa-sha2-"].iter().any(|start| text.starts_with(start)) {
        return Err(KeyError::Ssh);
    }
    let mut keys = Vec::new();
    let mut other = None;
    let mut rest = text;
    while let Some(section) = Section::next(&mut rest)? {
        match section.label {
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => keys.push(section),
            "ENCRYPTED PRIVATE KEY" => return Err(KeyError::Encrypted),
            "OPENSSH PRIVATE KEY" | "SSH2 ENCRYPTED PRIVATE KEY" => return Err(KeyError::Ssh),
            label if label.ends_with("PUBLIC KEY") => other = Some(KeyError::Public),
            label if label.contains("CERTIFICATE") => other = Some(KeyError::Certificate),
            label if label.ends_with("PRIVATE KEY") => return Err(KeyError::Kind),
            // Parameters of a curve, which a key repeats.
            _ => {}
        }
    }
    let key = match keys.as_slice() {
        [key] => key,
        [] => return Err(other.unwrap_or(KeyError::NoKey)),
        _ => return Err(KeyError::SeveralKeys),
    };
    let der = key.der()?;
    match key.label {
        "RSA PRIVATE KEY" => pkcs1(&der),
        "EC PRIVATE KEY" => sec1(&der, None),
        _ => pkcs8(&der),
    }
}

/// What stands between a BEGIN and its END.
struct Section<'t> {
    label: &'t str,
    body: &'t str,
}

impl<'t> Section<'t> {
    /// The next section of a text, past whatever stands before it.
    fn next(rest: &mut &'t str) -> Result<Option<Self>, KeyError> {
        let Some((_, after)) = rest.split_once(BEGIN) else { return Ok(None) };
        let (label, after) = after.split_once(DASHES).ok_or(KeyError::DamagedPem)?;
        let (body, after) = after.split_once("-----END ").ok_or(KeyError::DamagedPem)?;
        let after = after.strip_prefix(label).and_then(|after| after.strip_prefix(DASHES));
        *rest = after.ok_or(KeyError::DamagedPem)?;
        Ok(Some(Self { label, body }))
    }

    fn der(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        // Headers of old encrypted keys (RFC 1421): `Proc-Type: 4,ENCRYPTED`.
        if self.body.contains("ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        let base64: Zeroizing<Vec<u8>> =
            Zeroizing::new(self.body.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect());
        STANDARD.decode(&*base64).map(Zeroizing::new).map_err(|_| KeyError::DamagedPem)
    }
}

/// PKCS#8 (RFC 5208): a version, the kind of key, and the key in the form of its kind.
fn pkcs8(der: &[u8]) -> Result<Material, KeyError> {
    let parts = || {
        let mut outer = Reader::new(der).enter(SEQUENCE)?;
        outer.take(INTEGER)?;
        let mut kind = outer.enter(SEQUENCE)?;
        Some((kind.take(OID)?, kind.take(OID), outer.take(OCTET_STRING)?))
    };
    match parts().ok_or(KeyError::Damaged)? {
        (RSA_ENCRYPTION, _, key) => pkcs1(key),
        (EC_PUBLIC_KEY, curve, key) => sec1(key, curve),
        _ => Err(KeyError::Kind),
    }
}

/// PKCS#1 (RFC 8017, A.1.2).
fn pkcs1(der: &[u8]) -> Result<Material, KeyError> {
    let modulus = || {
        let mut key = Reader::new(der).enter(SEQUENCE)?;
        key.take(INTEGER)?;
        key.take(INTEGER)
    };
    check_modulus(modulus().ok_or(KeyError::Damaged)?)?;
    RsaKeyPair::from_der(der).map(Material::Rsa).map_err(|_| KeyError::Damaged)
}

/// SEC 1 (RFC 5915). Its curve is named within it or around it, and else told by the length of its number.
fn sec1(der: &[u8], around: Option<&[u8]>) -> Result<Material, KeyError> {
    let parts = || {
        let mut key = Reader::new(der).enter(SEQUENCE)?;
        key.take(INTEGER)?;
        let number = key.take(OCTET_STRING)?;
        Some((number, key.enter(CONTEXT_0).and_then(|mut curve| curve.take(OID))))
    };
    let (number, within) = parts().ok_or(KeyError::Damaged)?;
    let curve = match around.or(within) {
        Some(oid) => Curve::ALL.into_iter().find(|curve| curve.oid() == oid),
        None => Curve::ALL.into_iter().find(|curve| curve.bytes() == number.len()),
    };
    let curve = curve.ok_or(KeyError::Curve)?;
    let pair = EcdsaKeyPair::from_private_key_der(curve.signing(), der).map_err(|_| KeyError::Damaged)?;
    Ok(Material::Ec(curve, pair))
}
