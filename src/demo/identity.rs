//! The service app as which the daemon of the demo signs in: a key pair made for this one performance.

use std::io;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use super::org::{AppKey, ServiceApp};

/// The client id of the app.
pub(super) const CLIENT_ID: &str = "0oa1sim0responder001";

/// The name under which the org keeps the public key.
pub(super) const KEY_ID: &str = "demo";

/// A key pair: the private half for the daemon, the public one for the org.
pub(super) struct Identity {
    /// PEM, PKCS#8.
    pub(super) private_key: Zeroizing<String>,
    public_key: AppKey,
}

impl Identity {
    /// Makes one for the curve P-256.
    pub(super) fn make() -> io::Result<Self> {
        let failed = |_| io::Error::other("no key pair could be made");
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?;
        let private = pair.to_pkcs8v1().map_err(failed)?;
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(failed)?;
        let body = Zeroizing::new(BASE64_STANDARD.encode(private.as_ref()));
        let private_key =
            Zeroizing::new(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", *body));
        let public_key = AppKey::Spki { kid: KEY_ID.to_owned(), der: public.as_ref().to_vec() };
        Ok(Self { private_key, public_key })
    }

    /// The app to register, with nothing granted but these scopes. It must prove possession, as new apps must.
    pub(super) fn app(&self, scopes: impl IntoIterator<Item = String>) -> ServiceApp {
        ServiceApp::new(CLIENT_ID, vec![self.public_key.clone()]).granted(scopes)
    }
}
