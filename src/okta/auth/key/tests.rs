//! Keys are made here, in every form in which people have them. jsonwebtoken judges what they sign, and aws-lc-rs where that
//! cannot (ES512).

use aws_lc_rs::encoding::{AsBigEndian as _, AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use jsonwebtoken::{DecodingKey, Validation};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use url::Url;

use super::der::{INTEGER, OCTET_STRING, OID, Reader, SEQUENCE};
use super::*;
use crate::okta::auth::assertion::assertion;

/// A key pair, as PKCS#8, and its public half for the judge.
struct Pair {
    pkcs8: Vec<u8>,
    judge: Judge,
}

enum Judge {
    Rsa { n: String, e: String },
    Ec { curve: Curve, x: String, y: String },
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// PKCS#1's numbers: version, n, e, d, p, q, dp, dq, qi.
fn numbers(pkcs1: &[u8]) -> Vec<&[u8]> {
    let mut key = Reader::new(pkcs1).enter(SEQUENCE).unwrap();
    std::iter::from_fn(|| key.take(INTEGER)).map(|number| number.strip_prefix(&[0]).unwrap_or(number)).collect()
}

/// The key within PKCS#8, in the form of its kind.
fn inner(pkcs8: &[u8]) -> &[u8] {
    let mut outer = Reader::new(pkcs8).enter(SEQUENCE).unwrap();
    outer.take(INTEGER).unwrap();
    outer.take(SEQUENCE).unwrap();
    outer.take(OCTET_STRING).unwrap()
}

fn rsa() -> Pair {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let pkcs8 = der.as_ref().to_vec();
    let parts = numbers(inner(&pkcs8));
    let judge = Judge::Rsa { n: b64(parts[1]), e: b64(parts[2]) };
    Pair { pkcs8, judge }
}

fn ec(curve: Curve) -> Pair {
    let pair = EcdsaKeyPair::generate(curve.signing()).unwrap();
    let pkcs8 = pair.to_pkcs8v1().unwrap().as_ref().to_vec();
    let point = pair.public_key().as_ref();
    let (x, y) = point[1..].split_at(curve.bytes());
    Pair { pkcs8, judge: Judge::Ec { curve, x: b64(x), y: b64(y) } }
}

/// The private number of an EC key.
fn private_number(pair: &Pair, curve: Curve) -> Vec<u8> {
    let pair = EcdsaKeyPair::from_pkcs8(curve.signing(), &pair.pkcs8).unwrap();
    let number: aws_lc_rs::encoding::EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().unwrap();
    number.as_ref().to_vec()
}

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Writes one value of DER.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
    let length = match length {
        0..=0x7f => vec![low],
        0x80..=0xff => vec![0x81, low],
        _ => vec![0x82, high, low],
    };
    [&[tag][..], &length, content].concat()
}

fn jwk(pair: &Pair) -> Value {
    match &pair.judge {
        Judge::Rsa { n, e } => {
            let parts = numbers(inner(&pair.pkcs8));
            let part = |index: usize| b64(parts[index]);
            json!({"kty": "RSA", "n": n, "e": e, "d": part(3), "p": part(4), "q": part(5), "dp": part(6),
                "dq": part(7), "qi": part(8)})
        }
        Judge::Ec { curve, x, y } => {
            json!({"kty": "EC", "crv": curve.jwk_name(), "x": x, "y": y, "d": b64(private_number(pair, *curve))})
        }
    }
}

fn public_jwk(pair: &Pair) -> Value {
    let mut jwk = jwk(pair);
    jwk.as_object_mut().unwrap().retain(|member, _| matches!(member.as_str(), "kty" | "crv" | "x" | "y" | "n" | "e"));
    jwk
}

const CLIENT: &str = "0oa1service";
const NOW: i64 = 1_790_000_000;

/// An assertion by the key is what Okta wants, and the judge finds its signature good.
fn check(text: &str, algorithm: Option<Algorithm>, expected: Algorithm, pair: &Pair) {
    let key = SigningKey::read(text, algorithm, None).unwrap_or_else(|error| panic!("{expected}: {error}"));
    assert_eq!(key.algorithm(), expected);
    let audience = Url::parse("https://example.okta.com/oauth2/v1/token").unwrap();
    let token = assertion(&key, CLIENT, &audience, Timestamp::from_second(NOW).unwrap()).unwrap();
    let claims = judged(token.expose_secret(), expected, &pair.judge);
    assert_eq!(claims["iss"], CLIENT);
    assert_eq!(claims["sub"], CLIENT);
    assert_eq!(claims["aud"], audience.as_str());
    assert_eq!((claims["iat"].as_i64(), claims["exp"].as_i64()), (Some(NOW), Some(NOW + 300)));
    assert!(claims["jti"].as_str().unwrap().len() >= 22, "128 bits");
}

fn judged(token: &str, algorithm: Algorithm, judge: &Judge) -> Value {
    let key = match judge {
        Judge::Rsa { n, e } => DecodingKey::from_rsa_components(n, e).unwrap(),
        Judge::Ec { curve: Curve::P521, x, y } => return judged_es512(token, x, y),
        Judge::Ec { x, y, .. } => DecodingKey::from_ec_components(x, y).unwrap(),
    };
    let mut validation = Validation::new(algorithm.as_str().parse().unwrap());
    // The moment is a fixed one.
    validation.validate_exp = false;
    validation.set_audience(&["https://example.okta.com/oauth2/v1/token"]);
    jsonwebtoken::decode::<Value>(token, &key, &validation).unwrap().claims
}

fn judged_es512(token: &str, x: &str, y: &str) -> Value {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let decoded = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let point = [vec![4], decoded(x), decoded(y)].concat();
    let public = UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point);
    public.verify(message.as_bytes(), &decoded(signature)).unwrap();
    let (header, claims) = message.split_once('.').unwrap();
    let json = |text| serde_json::from_slice::<Value>(&decoded(text)).unwrap();
    assert_eq!(json(header), json!({"alg": "ES512", "typ": "JWT"}));
    json(claims)
}

#[test]
fn an_rsa_key_is_read_in_every_form_and_signs_by_every_algorithm_of_its_kind() {
    let pair = rsa();
    let forms = [
        pem("PRIVATE KEY", &pair.pkcs8),
        pem("RSA PRIVATE KEY", inner(&pair.pkcs8)),
        jwk(&pair).to_string(),
        json!({"keys": [jwk(&pair)]}).to_string(),
    ];
    for form in &forms {
        check(form, None, Algorithm::Rs256, &pair);
    }
    check(&forms[0], Some(Algorithm::Rs384), Algorithm::Rs384, &pair);
    check(&forms[2], Some(Algorithm::Rs512), Algorithm::Rs512, &pair);
}

#[test]
fn an_ec_key_is_read_in_every_form_and_signs_by_the_algorithm_of_its_curve() {
    for (curve, algorithm) in
        [(Curve::P256, Algorithm::Es256), (Curve::P384, Algorithm::Es384), (Curve::P521, Algorithm::Es512)]
    {
        let pair = ec(curve);
        let sec1 = EcdsaKeyPair::from_pkcs8(curve.signing(), &pair.pkcs8).unwrap();
        let sec1: aws_lc_rs::encoding::EcPrivateKeyRfc5915Der<'_> = sec1.private_key().as_der().unwrap();
        let sec1 = pem("EC PRIVATE KEY", sec1.as_ref());
        // Without its curve, as within PKCS#8.
        let number = der(OCTET_STRING, &private_number(&pair, curve));
        let bare = pem("EC PRIVATE KEY", &der(SEQUENCE, &[&[INTEGER, 1, 1][..], &number].concat()));
        let parameters = pem("EC PARAMETERS", &der(OID, curve.oid()));
        for form in [
            pem("PRIVATE KEY", &pair.pkcs8),
            sec1.clone(),
            format!("{parameters}{sec1}"),
            format!("{parameters}{bare}"),
            jwk(&pair).to_string(),
        ] {
            check(&form, None, algorithm, &pair);
            check(&form, Some(algorithm), algorithm, &pair);
        }
    }
}

#[test]
fn text_around_a_pem_and_other_line_ends_do_no_harm() {
    let pair = ec(Curve::P256);
    let pem = pem("PRIVATE KEY", &pair.pkcs8);
    let around =
        format!("\u{feff}Bag Attributes\n  friendlyName: okta - the app\nKey Attributes: <none>\n{pem}\nthat was it\n");
    check(&around, None, Algorithm::Es256, &pair);
    check(&pem.replace('\n', "\r\n"), None, Algorithm::Es256, &pair);
    check(&pem.replace('\n', "\n  "), None, Algorithm::Es256, &pair);
    let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    check(&format!("{certificate}{pem}"), None, Algorithm::Es256, &pair);
}

#[test]
fn a_jwks_own_words_count_where_the_configuration_says_nothing() {
    let pair = rsa();
    let mut jwk = jwk(&pair);
    jwk["kid"] = "its own".into();
    jwk["alg"] = "RS384".into();
    jwk["use"] = "sig".into();
    let read = |algorithm, key_id| SigningKey::read(&jwk.to_string(), algorithm, key_id).unwrap();
    let own = read(None, None);
    assert_eq!((own.algorithm(), own.key_id()), (Algorithm::Rs384, Some("its own")));
    let told = read(Some(Algorithm::Rs512), Some("k1"));
    assert_eq!((told.algorithm(), told.key_id()), (Algorithm::Rs512, Some("k1")));
    let audience = Url::parse("https://example.okta.com/oauth2/v1/token").unwrap();
    let token = assertion(&told, CLIENT, &audience, Timestamp::from_second(NOW).unwrap()).unwrap();
    let header = jsonwebtoken::decode_header(token.expose_secret()).unwrap();
    assert_eq!((header.kid.as_deref(), header.typ.as_deref()), (Some("k1"), Some("JWT")));
}

#[test]
fn a_jwk_whose_numbers_lost_or_gained_zeros_is_still_the_same_key() {
    // Of the first byte of a number on P-521 only one bit can be set, so that it is zero for every second key.
    let begins_with_zero = |pair: &Pair| private_number(pair, Curve::P521)[0] == 0;
    let pair = std::iter::repeat_with(|| ec(Curve::P521)).find(begins_with_zero).unwrap();
    let mut short = jwk(&pair);
    for member in ["x", "y", "d"] {
        let number = URL_SAFE_NO_PAD.decode(short[member].as_str().unwrap()).unwrap();
        let start = number.iter().position(|byte| *byte != 0).unwrap();
        short[member] = b64(&number[start..]).into();
    }
    check(&short.to_string(), None, Algorithm::Es512, &pair);
    let pair = rsa();
    let mut long = jwk(&pair);
    let n = URL_SAFE_NO_PAD.decode(long["n"].as_str().unwrap()).unwrap();
    long["n"] = base64::engine::general_purpose::URL_SAFE.encode([vec![0], n].concat()).into();
    check(&long.to_string(), None, Algorithm::Rs256, &pair);
}

/// The text is refused for this reason, with a remedy, and nothing of it is told.
fn refused(text: &str, expected: &KeyError) {
    let error = SigningKey::read(text, None, None).err().unwrap_or_else(|| panic!("{expected:?}"));
    assert_eq!(&error, expected);
    let told = format!("{error} {error:?} {}", error.remedy());
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"+/=_-".contains(c)).filter(|word| word.len() > 20);
    for word in words {
        assert!(!told.contains(word), "{told}");
    }
}

#[test]
fn what_cannot_sign_is_told_apart() {
    let (rsa, ec256) = (rsa(), ec(Curve::P256));
    let key = pem("PRIVATE KEY", &ec256.pkcs8);
    refused("", &KeyError::NoKey);
    refused("00aTokenThatIsNoKeyAtAll0000000000000000", &KeyError::NoKey);
    refused("{}", &KeyError::NoKey);
    refused("{\"keys\": []}", &KeyError::NoKey);
    refused(&pem("PUBLIC KEY", &ec256.pkcs8), &KeyError::Public);
    refused(&public_jwk(&rsa).to_string(), &KeyError::Public);
    refused(&public_jwk(&ec256).to_string(), &KeyError::Public);
    refused(&pem("CERTIFICATE", &ec256.pkcs8), &KeyError::Certificate);
    refused(&pem("ENCRYPTED PRIVATE KEY", &ec256.pkcs8), &KeyError::Encrypted);
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----";
    refused(old, &KeyError::Encrypted);
    refused(&pem("OPENSSH PRIVATE KEY", &ec256.pkcs8), &KeyError::Ssh);
    refused("PuTTY-User-Key-File-3: ssh-rsa\nEncryption: none\n", &KeyError::Ssh);
    refused("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtleUtleUtleUtleUtleUtleUtleUtl me@host", &KeyError::Ssh);
    refused(&format!("{key}{key}"), &KeyError::SeveralKeys);
    refused(&json!({"keys": [jwk(&rsa), jwk(&ec256)]}).to_string(), &KeyError::SeveralKeys);
    refused(&pem("DSA PRIVATE KEY", &[0x30, 0]), &KeyError::Kind);
    refused(&json!({"kty": "oct", "k": "c2VjcmV0IHNlY3JldCBzZWNyZXQ"}).to_string(), &KeyError::Kind);
}

#[test]
fn keys_of_other_kinds_and_sizes_are_named() {
    let algorithm = |oid: &[u8]| der(SEQUENCE, &der(OID, oid));
    let version = [INTEGER, 1, 0];
    let ed25519 = [&version[..], &algorithm(&[0x2b, 0x65, 0x70]), &der(OCTET_STRING, &[OCTET_STRING, 0])].concat();
    refused(&pem("PRIVATE KEY", &der(SEQUENCE, &ed25519)), &KeyError::Kind);

    let secp256k1 =
        der(SEQUENCE, &[der(OID, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]), der(OID, &[0x2b, 0x81, 4, 0, 10])].concat());
    let sec1 = der(SEQUENCE, &[&[INTEGER, 1, 1][..], &der(OCTET_STRING, &[7; 32])].concat());
    let pkcs8 = der(SEQUENCE, &[&version[..], &secp256k1, &der(OCTET_STRING, &sec1)].concat());
    refused(&pem("PRIVATE KEY", &pkcs8), &KeyError::Curve);
    refused(&json!({"kty": "EC", "crv": "secp256k1", "x": "AQ", "y": "AQ", "d": "AQ"}).to_string(), &KeyError::Curve);

    let modulus = [&[0, 0x80][..], &[7; 127]].concat();
    let small = der(SEQUENCE, &[&version[..], &der(INTEGER, &modulus), &der(INTEGER, &[1, 0, 1])].concat());
    refused(&pem("RSA PRIVATE KEY", &small), &KeyError::RsaTooSmall { bits: 1024 });
    let small = json!({"kty": "RSA", "n": b64(&modulus), "e": "AQAB", "d": "AQ"});
    refused(&small.to_string(), &KeyError::RsaTooSmall { bits: 1024 });
}

#[test]
fn a_jwk_for_something_else_or_with_too_little_is_refused() {
    let pair = rsa();
    let with = |member: &str, value: &str| {
        let mut jwk = jwk(&pair);
        jwk[member] = value.into();
        jwk.to_string()
    };
    refused(&with("use", "enc"), &KeyError::JwkUse);
    refused(&with("alg", "PS256"), &KeyError::JwkAlgorithm);
    let mut without = jwk(&pair);
    without.as_object_mut().unwrap().remove("dq");
    refused(&without.to_string(), &KeyError::JwkLacks { member: "dq" });
    refused(&with("p", "AQAB"), &KeyError::Damaged);
    refused(&with("d", "not base64 but many characters that are secret"), &KeyError::Damaged);
    let (one, other) = (ec(Curve::P256), ec(Curve::P256));
    let mut mixed = jwk(&one);
    mixed["d"] = jwk(&other)["d"].clone();
    refused(&mixed.to_string(), &KeyError::Damaged);
}

#[test]
fn an_algorithm_for_another_kind_of_key_is_refused_with_those_that_fit() {
    let mismatch = |text: &str, algorithm| SigningKey::read(text, Some(algorithm), None).unwrap_err();
    let error = mismatch(&pem("PRIVATE KEY", &ec(Curve::P384).pkcs8), Algorithm::Es256);
    assert_eq!(error.to_string(), "ES256 does not fit: this is an EC key on P-384");
    assert!(error.remedy().starts_with("write ES384 as"), "{}", error.remedy());
    let error = mismatch(&pem("PRIVATE KEY", &rsa().pkcs8), Algorithm::Es512);
    assert!(error.remedy().starts_with("write RS256, RS384 or RS512 as"), "{}", error.remedy());
}

#[test]
fn a_jwk_that_names_an_algorithm_of_another_kind_of_key_is_told_to_be_wrong_itself() {
    let mut jwk = jwk(&ec(Curve::P256));
    jwk["alg"] = "RS256".into();
    let error = SigningKey::read(&jwk.to_string(), None, None).unwrap_err();
    assert_eq!(error.to_string(), "the JWK's own `alg` says RS256, and this is an EC key on P-256");
    assert!(error.remedy().contains("write ES256 as the JWK's `alg`"), "{}", error.remedy());
}

#[test]
fn damaged_keys_are_refused_wherever_they_are_cut() {
    for text in [pem("PRIVATE KEY", &rsa().pkcs8), pem("EC PRIVATE KEY", inner(&ec(Curve::P256).pkcs8))] {
        for end in (0..text.trim_end().len()).step_by(7) {
            assert!(SigningKey::read(&text[..end], None, None).is_err(), "{end}");
        }
    }
    let jwk = jwk(&ec(Curve::P256)).to_string();
    for end in 0..jwk.len() {
        assert!(SigningKey::read(&jwk[..end], None, None).is_err(), "{end}");
    }
    let pkcs8 = ec(Curve::P384).pkcs8;
    for end in 0..pkcs8.len() {
        assert!(SigningKey::read(&pem("PRIVATE KEY", &pkcs8[..end]), None, None).is_err(), "{end}");
    }
    let mut text = pem("PRIVATE KEY", &pkcs8);
    text.insert(60, '!');
    refused(&text, &KeyError::DamagedPem);
    refused("{\"kty\": \"RSA\", \"n\": \"averylongvaluethatissecret\" ", &KeyError::DamagedJwk { line: 1, column: 48 });
}

#[test]
fn debug_shows_nothing_of_the_key() {
    let pair = ec(Curve::P256);
    let key = SigningKey::read(&jwk(&pair).to_string(), None, Some("k1")).unwrap();
    assert_eq!(format!("{key:?}"), "SigningKey { algorithm: Es256, key_id: Some(\"k1\"), .. }");
}
