//! `[network]`: the way out of this host.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use thiserror::Error;
use url::Url;

use super::Config;
use super::path::KeyPath;
use super::secret::{SecretEnv, SecretError, SecretSource};
use crate::http::Network;
use crate::http::pem::{self, ClientIdentity, IdentityError, PemError};
use crate::http::proxy::{Choice, Exception, Exceptions, ProxyError, Ways, proxy_url};

/// `[network]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// `http://proxy.example.com:3128`, or `"none"`. Unset: the environment's, as `HTTPS_PROXY` or `ALL_PROXY` name it.
    pub proxy: Option<String>,
    /// Who the proxy is told we are.
    pub proxy_username: Option<String>,
    /// That user's password.
    pub proxy_password: Option<SecretSource>,
    /// Hosts, domains, addresses and networks that are reached without the proxy.
    pub no_proxy: Vec<String>,
    /// Certificates of authorities that are believed besides the system's, in PEM.
    pub ca_file: Option<PathBuf>,
}

/// The value of `proxy` that means none at all.
const NO_PROXY_AT_ALL: &str = "none";

/// A value of `[network]`, or a file that it names, that cannot be used.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// The environment names a proxy that cannot be used.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// A value that `check` would have refused.
    #[error("[network] {key}: {message}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong.
        message: &'static str,
    },
    /// A secret cannot be had.
    #[error("[{section}] {key} cannot be read: {}", .source.remedy())]
    Secret {
        /// Its section.
        section: String,
        /// Its key.
        key: &'static str,
        /// Why.
        #[source]
        source: SecretError,
    },
    /// The authorities cannot be used.
    #[error("[network] ca_file cannot be used: {}", .0.remedy())]
    Authorities(#[source] PemError),
    /// A certificate of our own cannot be used.
    #[error("[{section}] {} cannot be used: {}", key_of(.source), .source.remedy())]
    Identity {
        /// Its section.
        section: String,
        /// Why.
        #[source]
        source: IdentityError,
    },
}

fn key_of(error: &IdentityError) -> &'static str {
    if error.is_about_key() { "client_key" } else { "client_certificate" }
}

impl NetworkError {
    /// The message without the remedy, and the remedy, where they can be told apart.
    pub(super) fn split(&self) -> (String, String) {
        match self {
            Self::Proxy(error) => {
                (error.to_string(), "proxy = \"none\" in [network] leaves the environment out".to_owned())
            }
            Self::Value { message, .. } => ((*message).to_owned(), "see [network] in config.example.toml".to_owned()),
            Self::Secret { source, .. } => (with_cause(source), source.remedy()),
            Self::Authorities(source) => (with_cause(source), source.remedy()),
            Self::Identity { source, .. } => (with_cause(source), source.remedy()),
        }
    }

    /// The key that it is about.
    pub(super) fn place(&self) -> KeyPath {
        match self {
            Self::Proxy(_) => KeyPath::of("network"),
            Self::Value { key, .. } => KeyPath::of("network").key(key),
            Self::Secret { section, key, .. } => KeyPath::of_section(section).key(key),
            Self::Authorities(_) => KeyPath::of("network").key("ca_file"),
            Self::Identity { section, source } => KeyPath::of_section(section).key(key_of(source)),
        }
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

impl NetworkConfig {
    /// Whether a proxy is named here, as opposed to the environment or none.
    pub(super) fn names_proxy(&self) -> bool {
        self.proxy.as_deref().is_some_and(|proxy| proxy.trim() != NO_PROXY_AT_ALL)
    }

    /// What is wrong with its values, as far as they tell by themselves: key, index in a list, message and remedy.
    pub(super) fn problems(&self) -> Vec<(&'static str, Option<usize>, String, &'static str)> {
        let mut problems = Vec::new();
        if self.names_proxy()
            && let Some(Err(message)) = self.proxy.as_deref().map(proxy_url)
        {
            let remedy = "write \"http://proxy.example.com:3128\" or \"none\"; user and password are proxy_username and \
                          proxy_password";
            problems.push(("proxy", None, message.to_owned(), remedy));
        }
        for (key, set) in
            [("proxy_username", self.proxy_username.is_some()), ("proxy_password", self.proxy_password.is_some())]
        {
            if set && !self.names_proxy() {
                let message = "there is no proxy in [network] that this could be for".to_owned();
                problems.push((key, None, message, "set proxy as well, or take it out"));
            }
        }
        if self.proxy_username.as_ref().is_some_and(|user| user.is_empty() || user.contains(':')) {
            let message = "the name of a user is not empty and has no colon".to_owned();
            problems.push(("proxy_username", None, message, "write the name by which the proxy knows this host"));
        }
        for (index, entry) in self.no_proxy.iter().enumerate() {
            if let Err(message) = Exception::parse(entry) {
                let remedy =
                    "write \"example.com\", \".example.com\", \"192.0.2.7\", \"10.0.0.0/8\", \"fd00::/8\" or \"*\"";
                problems.push(("no_proxy", Some(index), format!("\"{entry}\": {message}"), remedy));
            }
        }
        problems
    }

    /// Which proxy leads where. `login` gives the password of the proxy that is named here.
    ///
    /// # Errors
    /// When a value is wrong, the password cannot be had, or the environment names a proxy that cannot be used.
    fn ways(
        &self,
        env: &SecretEnv,
        login: impl FnOnce(&SecretSource) -> Result<SecretString, SecretError>,
    ) -> Result<Ways, NetworkError> {
        let entries = self.no_proxy.iter().map(|entry| Exception::parse(entry)).collect::<Result<Vec<_>, _>>();
        let exceptions = entries.map_err(|message| NetworkError::Value { key: "no_proxy", message })?;
        let choice = match self.proxy.as_deref() {
            None => Choice::Environment,
            Some(text) if text.trim() == NO_PROXY_AT_ALL => Choice::Off,
            Some(text) => {
                let url = proxy_url(text).map_err(|message| NetworkError::Value { key: "proxy", message })?;
                let login = match (&self.proxy_username, &self.proxy_password) {
                    (Some(user), Some(source)) => {
                        let (section, key) = ("network".to_owned(), "proxy_password");
                        let password = login(source);
                        let password = password.map_err(|source| NetworkError::Secret { section, key, source })?;
                        Some((user.clone(), password))
                    }
                    _ => None,
                };
                Choice::Configured { url, login }
            }
        };
        Ok(Ways::new(choice, Exceptions::new(exceptions), |name| env.variable(name))?)
    }
}

/// Which way every configured service is reached, in words and without a password, by its section. Where the address is a
/// secret that is not at hand, that is said.
///
/// # Errors
/// When the environment names a proxy that cannot be used; a configuration that was loaded is right in itself.
pub fn told_ways(config: &Config, env: &SecretEnv) -> Result<Vec<(String, String)>, NetworkError> {
    let ways = config.network.ways(env, |_| Ok(SecretString::default()))?;
    let way = |address: &str| {
        Url::parse(address.trim())
            .map_or_else(|_| "by an address that is not known here".to_owned(), |url| ways.to(&url).to_string())
    };
    let secret = |source: &SecretSource| way(source.resolve(env).unwrap_or_default().expose_secret());
    let mut told = vec![("okta", way(&config.okta.org_url))];
    told.extend(config.servicenow.as_ref().map(|section| ("servicenow", way(&section.url))));
    told.extend(config.jira.as_ref().map(|section| ("jira", way(&section.url))));
    told.extend(config.pagerduty.as_ref().map(|section| ("pagerduty", way(&section.url))));
    told.extend(config.slack.as_ref().map(|section| {
        let way = section.webhook_url.as_ref().map_or_else(|| way(&section.api_url), secret);
        ("slack", way)
    }));
    told.extend(config.teams.as_ref().map(|section| ("teams", secret(&section.webhook_url))));
    // SMTP goes through no HTTP proxy.
    told.extend(config.email.as_ref().map(|_| ("email", "direct".to_owned())));
    let mut told: Vec<_> = told.into_iter().map(|(section, way)| (section.to_owned(), way)).collect();
    told.extend(config.http.iter().map(|(name, section)| (format!("http.{name}"), way(&section.base_url))));
    Ok(told)
}

/// The way out of this host that a configuration names: reads the files and the secrets that it takes.
///
/// # Errors
/// The first that cannot be used.
pub fn network(config: &Config, env: &SecretEnv) -> Result<Network, NetworkError> {
    let ways = config.network.ways(env, |password| password.resolve(env))?;
    let authorities = match &config.network.ca_file {
        Some(file) => pem::certificates(file).map_err(NetworkError::Authorities)?,
        None => Vec::new(),
    };
    let mut identities = BTreeMap::new();
    for (section, certificate, key) in config.client_certificates() {
        let (Some(certificate), Some(key)) = (certificate, key) else { continue };
        let secret = |source| NetworkError::Secret { section: section.clone(), key: "client_key", source };
        let key = key.resolve_key(env).map_err(secret)?;
        let identity = ClientIdentity::new(certificate, &key);
        let identity = identity.map_err(|source| NetworkError::Identity { section: section.clone(), source })?;
        identities.insert(section, identity);
    }
    Ok(Network::new(ways, authorities, identities))
}

/// Everything outside of the configuration that the way out needs and that is not as it has to be. Secrets that systemd
/// passes are looked at only if `credentials` are asked for; that they can be read at all is looked at with all others.
pub(super) fn problems_around(config: &Config, env: &SecretEnv, credentials: bool) -> Vec<NetworkError> {
    let mut problems = Vec::new();
    if let Err(error @ NetworkError::Proxy(_)) = config.network.ways(env, |_| Ok(SecretString::default())) {
        problems.push(error);
    }
    let file = config.network.ca_file.as_deref();
    problems.extend(file.and_then(|file| pem::certificates(file).err()).map(NetworkError::Authorities));
    for (section, certificate, key) in config.client_certificates() {
        let (Some(certificate), Some(key)) = (certificate, key) else { continue };
        let at_hand = credentials || !matches!(key, SecretSource::Credential(_));
        let source = match key.resolve_key(env) {
            Ok(key) if at_hand => ClientIdentity::new(certificate, &key).err(),
            _ => pem::certificates(certificate).err().map(IdentityError::Chain),
        };
        problems.extend(source.map(|source| NetworkError::Identity { section, source }));
    }
    problems
}
