//! The way out of this host: proxies, authorities that are believed besides the system's, certificates of our own.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use reqwest::{Certificate, ClientBuilder, tls};
use rustls_pki_types::CertificateDer;
use url::Url;

use super::pem::ClientIdentity;
use super::proxy::{Way, Ways};

/// The way out of this host. Cheap to clone. The default goes everywhere directly, believes the authorities of the system
/// and shows no certificate.
#[derive(Clone, Default)]
pub struct Network(Arc<Inner>);

#[derive(Default)]
struct Inner {
    ways: Ways,
    authorities: Vec<CertificateDer<'static>>,
    identities: BTreeMap<String, ClientIdentity>,
}

impl Network {
    /// Puts the parts together. `authorities` are believed besides the system's; `identities` are our own certificates, by
    /// the section of the service that they are shown to.
    pub fn new(
        ways: Ways,
        authorities: Vec<CertificateDer<'static>>,
        identities: BTreeMap<String, ClientIdentity>,
    ) -> Self {
        Self(Arc::new(Inner { ways, authorities, identities }))
    }

    /// How the host of an address is reached.
    pub fn way_to(&self, address: &Url) -> Way<'_> {
        self.0.ways.to(address)
    }

    /// The authorities that are believed besides the system's.
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.0.authorities
    }

    /// Whether a certificate of ours is shown to the service of a section.
    pub fn shows_certificate(&self, section: &str) -> bool {
        self.0.identities.contains_key(section)
    }

    /// Makes a client go this way to `base`, the address of the service of `section`.
    pub(super) fn lead(
        &self,
        builder: ClientBuilder,
        section: &str,
        base: &Url,
    ) -> Result<ClientBuilder, reqwest::Error> {
        // The environment has been asked already, so that what is said of the way is what is gone.
        let mut builder = builder.no_proxy().tls_version_min(tls::Version::TLS_1_2);
        if let Way::Through(proxy) = self.way_to(base) {
            let mut through = reqwest::Proxy::all(proxy.url().as_str())?;
            if let Some(authorization) = proxy.authorization() {
                through = through.custom_http_auth(authorization.clone());
            }
            builder = builder.proxy(through);
        }
        if base.scheme() == "http" {
            // Plain http has no certificates to check, and a machine without any can still run it.
            return Ok(builder.tls_certs_only([]));
        }
        let authorities = self.0.authorities.iter().map(|der| Certificate::from_der(der));
        builder = builder.tls_certs_merge(authorities.collect::<Result<Vec<_>, _>>()?);
        Ok(match self.0.identities.get(section) {
            Some(ours) => builder.identity(ours.identity()),
            None => builder,
        })
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("ways", &self.0.ways)
            .field("authorities", &self.0.authorities.len())
            .field("identities", &self.0.identities.keys())
            .finish()
    }
}
