//! A secret of a service as its connector holds it: one that the service refuses is read again where it came from.
//!
//! The request that was refused with it has changed nothing, so the connector sends it once more with the new one, in
//! the same attempt. A secret that is still the same is never sent a second time: accounts are locked for that.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserializer;
use tracing::{info, warn};

use super::Service;
use crate::config::secret::LiveSecret;

/// One secret of one section of the configuration.
#[derive(Debug)]
pub(super) struct Held {
    section: Cow<'static, str>,
    key: &'static str,
    secret: LiveSecret,
    /// Why it cannot be replaced, as it was told last; empty when nothing is in the way.
    told: Mutex<String>,
}

impl Held {
    /// `key` is its key in the section of the service.
    pub(super) fn new(service: Service, key: &'static str, secret: LiveSecret) -> Self {
        Self { section: Cow::Borrowed(service.section()), key, secret, told: Mutex::default() }
    }

    /// The same in a section that has a name of its own, such as `http.edr`.
    pub(super) fn of(section: String, key: &'static str, secret: LiveSecret) -> Self {
        Self { section: Cow::Owned(section), key, secret, told: Mutex::default() }
    }

    /// The secret as it was read last.
    pub(super) fn current(&self) -> SecretString {
        self.secret.current()
    }

    /// What to use instead of a secret that the service has refused; `None` when there is no other. It is read again with
    /// every refusal, and told once that it was replaced, or why it could not be.
    pub(super) fn replacement(&self, refused: &SecretString) -> Option<SecretString> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.secret.current();
        match self.secret.replacement(refused) {
            Ok(found) => {
                if found.as_ref().is_some_and(|new| new.expose_secret() != before.expose_secret()) {
                    info!("the secret of [{}] was replaced (`{}`)", self.section, self.key);
                }
                told.clear();
                found
            }
            Err(error) => {
                let trouble = format!("{error}; {}", error.remedy());
                self.tell(&mut told, trouble);
                None
            }
        }
    }

    /// Tells that what was read cannot be used, so that the old one stays.
    pub(super) fn reject(&self, problem: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        self.tell(&mut told, problem.to_owned());
    }

    fn tell(&self, told: &mut String, trouble: String) {
        if *told != trouble {
            let (key, section) = (self.key, &self.section);
            warn!("`{key}` of [{section}] was refused, and what there is now cannot take its place: {trouble}");
            *told = trouble;
        }
    }
}

/// Takes a secret out of an answer without a copy that nobody overwrites.
pub(super) fn secret_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    struct Visitor;
    impl serde::de::Visitor<'_> for Visitor {
        type Value = SecretString;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a token")
        }

        fn visit_str<E>(self, text: &str) -> Result<SecretString, E> {
            Ok(SecretString::from(text))
        }
    }
    deserializer.deserialize_str(Visitor)
}
