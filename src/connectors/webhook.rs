//! An address that is a secret as a whole: whoever knows it may post there.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use url::Url;
use zeroize::Zeroize;

use super::probe::Finding;
use super::secret::Held;
use super::{Service, SetupError, wire};
use crate::config::secret::LiveSecret;
use crate::http::{self, Network};

/// The key of the secret in every section that has one.
const KEY: &str = "webhook_url";

/// The webhook of a section. Its secret can be replaced while the daemon runs, and lead to another host then.
pub(super) struct Webhook {
    service: Service,
    secret: Held,
    read: Read,
    timeout: Duration,
    network: Network,
    current: Mutex<Door>,
}

/// Reads an address, or says what is wrong with it without repeating it.
type Read = fn(&str) -> Result<Url, SetupError>;

/// An address and the client that was made for its host.
#[derive(Clone)]
pub(super) struct Door {
    http: Client,
    url: SecretString,
}

impl Door {
    /// A request to the webhook, to be filled.
    pub(super) fn post(&self) -> RequestBuilder {
        self.http.post(self.url.expose_secret())
    }

    /// Whether the address holds this text, which then must not be shown.
    pub(super) fn holds(&self, text: &str) -> bool {
        self.url.expose_secret().contains(text)
    }
}

impl Webhook {
    /// Takes the secret. Nothing is sent.
    pub(super) fn new(
        service: Service,
        secret: LiveSecret,
        read: Read,
        timeout: Duration,
        network: &Network,
    ) -> Result<Self, SetupError> {
        let current = Mutex::new(open(service, secret.current(), read, timeout, network)?);
        let secret = Held::new(service, KEY, secret);
        Ok(Self { service, secret, read, timeout, network: network.clone(), current })
    }

    /// The address as it was read last, if it was one.
    pub(super) fn current(&self) -> Door {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether its host is there. The address itself is not called: that would post. Changes nothing.
    pub(super) async fn probe(&self, about: &str) -> Finding {
        let door = self.current();
        let what = format!("reaching the host of the {about}");
        match wire::reach(&door.http, door.url.expose_secret(), &what).await {
            Ok(host) => {
                Finding::note(about, format!("{host} answers; the webhook itself cannot be tried without posting"))
            }
            Err(failure) => Finding::failed(about, failure),
        }
    }

    /// What to use instead of an address that was refused; `None` when there is no other that could be used.
    pub(super) fn replacement(&self, refused: &Door) -> Option<Door> {
        let url = self.secret.replacement(&refused.url)?;
        match open(self.service, url, self.read, self.timeout, &self.network) {
            Ok(door) => {
                *self.current.lock().unwrap_or_else(PoisonError::into_inner) = door.clone();
                Some(door)
            }
            Err(error) => {
                self.secret.reject(&error.to_string());
                None
            }
        }
    }
}

fn open(
    service: Service,
    url: SecretString,
    read: Read,
    timeout: Duration,
    network: &Network,
) -> Result<Door, SetupError> {
    let base = read(url.expose_secret())?;
    let http = http::client(service.section(), &base, timeout, network);
    String::from(base).zeroize();
    let http = http.map_err(|source| SetupError::Client { section: service.section(), source })?;
    Ok(Door { http, url })
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("service", &self.service).finish_non_exhaustive()
    }
}
