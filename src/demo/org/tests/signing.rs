//! A client of service apps that shares nothing with the org: `jsonwebtoken` signs, but for ES512, which it lacks.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{KeyPair, PublicKeyData as _, RsaKeySize};
use serde_json::{Value, json};

use super::*;
use crate::demo::org::{AppKey, ServiceApp};

/// The client id of the app.
pub(super) const APP: &str = "0oa0sim0service0app1";

/// The scopes that it is granted.
pub(super) const SCOPES: &str = "okta.logs.read okta.users.read";

/// A key pair, and the algorithm that it signs by.
pub(super) struct Key {
    pub(super) algorithm: &'static str,
    pair: KeyPair,
}

/// Making one takes long, so all tests share it.
static RSA: LazyLock<KeyPair> =
    LazyLock::new(|| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap());

impl Key {
    pub(super) fn new(algorithm: &'static str) -> Self {
        let pair = match algorithm {
            "ES256" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap(),
            "ES384" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(),
            "ES512" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap(),
            _ => KeyPair::from_pem(&RSA.serialize_pem()).unwrap(),
        };
        Self { algorithm, pair }
    }

    pub(super) fn spki(&self, kid: &str) -> AppKey {
        AppKey::Spki { kid: kid.to_owned(), der: self.pair.subject_public_key_info() }
    }

    /// The public key as a JWK, by whoever knows the curve.
    pub(super) fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        match self.encoding() {
            Some((key, algorithm)) => serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).unwrap()).unwrap(),
            None => {
                let (x, y) = self.pair.public_key_raw()[1..].split_at(66);
                json!({"kty": "EC", "crv": "P-521", "x": encode(x), "y": encode(y)})
            }
        }
    }

    /// A token of any header and claims.
    pub(super) fn sign(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = match self.encoding() {
            Some((key, algorithm)) => jsonwebtoken::crypto::sign(signed.as_bytes(), &key, algorithm).unwrap(),
            None => {
                let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P521_SHA512_FIXED_SIGNING, self.pair.serialized_der());
                let signature = key.unwrap().sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
                BASE64_URL_SAFE_NO_PAD.encode(signature)
            }
        };
        format!("{signed}.{signature}")
    }

    fn encoding(&self) -> Option<(EncodingKey, Algorithm)> {
        let pem = self.pair.serialize_pem();
        let algorithm = self.algorithm.parse().ok()?;
        let key = if self.algorithm.starts_with("RS") {
            EncodingKey::from_rsa_pem(pem.as_bytes())
        } else {
            EncodingKey::from_ec_pem(pem.as_bytes())
        };
        Some((key.unwrap(), algorithm))
    }
}

/// What differs from a good assertion or proof.
pub(super) type Change<'a> = &'a dyn Fn(&mut Value, &mut Value);

/// Nothing does.
pub(super) const GOOD: Change<'static> = &|_, _| {};

/// An org with one app, and whoever has its key.
pub(super) struct Desk {
    pub(super) fixture: Fixture,
    pub(super) key: Key,
    /// The key that proves possession.
    pub(super) own: Key,
}

impl Desk {
    /// An app that must prove possession.
    pub(super) async fn with_dpop() -> Self {
        Self::of(OrgOptions::default(), |app| app).await
    }

    /// One that need not.
    pub(super) async fn new() -> Self {
        Self::of(OrgOptions::default(), ServiceApp::without_dpop).await
    }

    pub(super) async fn of(options: OrgOptions, change: impl FnOnce(ServiceApp) -> ServiceApp) -> Self {
        let (fixture, key, own) = (Fixture::with(options).await, Key::new("ES256"), Key::new("ES256"));
        let app = ServiceApp::new(APP, vec![key.spki("one")]).granted(SCOPES.split(' '));
        fixture.org.register_app(change(app));
        Self { fixture, key, own }
    }

    pub(super) fn now(&self) -> i64 {
        self.fixture.org.now().as_second()
    }

    pub(super) fn token_url(&self) -> String {
        format!("{}/oauth2/v1/token", self.fixture.org.okta_url())
    }

    pub(super) fn assertion(&self, change: Change<'_>) -> String {
        let mut header = json!({"alg": self.key.algorithm, "kid": "one"});
        let mut claims = json!({
            "iss": APP, "sub": APP, "aud": self.token_url(), "iat": self.now(), "exp": self.now() + 300, "jti": fresh(),
        });
        change(&mut header, &mut claims);
        self.key.sign(&header, &claims)
    }

    /// A proof for a request to the org.
    pub(super) fn proof(&self, method: &str, path: &str, change: Change<'_>) -> String {
        let url = format!("{}{path}", self.fixture.org.okta_url());
        let mut header = json!({"typ": "dpop+jwt", "alg": self.own.algorithm, "jwk": self.own.jwk()});
        let mut claims = json!({"htm": method, "htu": url, "iat": self.now(), "jti": fresh()});
        change(&mut header, &mut claims);
        self.own.sign(&header, &claims)
    }

    /// A form, and perhaps a proof, at the token endpoint.
    pub(super) async fn post(&self, form: &[(&str, &str)], proof: Option<&str>) -> Answer {
        let request = self.fixture.client.post(self.token_url()).form(form);
        let request = proof.into_iter().fold(request, |request, proof| request.header("DPoP", proof));
        Answer::of(request.send().await.unwrap()).await
    }

    pub(super) async fn ask(&self, assertion: &str, scope: &str, proof: Option<&str>) -> Answer {
        let assertion_type = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let form = [
            ("grant_type", "client_credentials"),
            ("scope", scope),
            ("client_assertion_type", assertion_type),
            ("client_assertion", assertion),
        ];
        self.post(&form, proof).await
    }

    /// Asks as one should, without a proof.
    pub(super) async fn token(&self, scope: &str) -> Answer {
        self.ask(&self.assertion(GOOD), scope, None).await
    }

    /// Reads from the org with a token without a proof.
    pub(super) async fn read(&self, path: &str, token: &str) -> Answer {
        let request = self.fixture.client.get(format!("{}{path}", self.fixture.org.okta_url()));
        Answer::of(request.header("authorization", format!("Bearer {token}")).send().await.unwrap()).await
    }
}

impl Answer {
    /// The access token.
    #[track_caller]
    pub(super) fn token(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body["access_token"].as_str().unwrap().to_owned()
    }

    /// Status, error and its description.
    pub(super) fn refusal(&self) -> (u16, &str, &str) {
        let text = |name: &str| self.body[name].as_str().unwrap_or_default();
        (self.status, text("error"), text("error_description"))
    }

    /// Status and what `WWW-Authenticate` calls the error.
    pub(super) fn challenge(&self) -> (u16, &str) {
        let challenge = self.headers.get("www-authenticate").map_or("", |value| value.to_str().unwrap());
        let error = challenge.split_once(" error=\"").map_or("", |(_, rest)| rest.split('"').next().unwrap());
        (self.status, error)
    }
}

/// An id that was never used.
fn fresh() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("id-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
