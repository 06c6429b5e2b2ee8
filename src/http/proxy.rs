//! Which proxy, if any, leads to a host. Pure: the environment is a look-up that is handed in.
//!
//! Everything that leaves this machine is encrypted, so a proxy is only ever asked for a tunnel (`CONNECT`); it sees the
//! name of the host and nothing of what is said. Plain http goes to loopback alone, and loopback to no proxy, so that
//! `HTTP_PROXY` has nothing to say here.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::is_loopback;

/// The variables that name a proxy for https, the first that is set counts.
const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// The variables that name hosts which are reached without it.
const EXCEPTION_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// What `[network]` says about proxies.
#[derive(Debug, Clone, Default)]
pub enum Choice {
    /// Nothing: the environment decides.
    #[default]
    Environment,
    /// No proxy, whatever the environment says.
    Off,
    /// This one, whatever the environment says.
    Configured {
        /// Its address, see [`proxy_url`].
        url: Url,
        /// Its user and his password.
        login: Option<(String, SecretString)>,
    },
}

/// How hosts are reached. The default reaches every one directly.
#[derive(Debug, Clone, Default)]
pub struct Ways {
    proxy: Option<Proxy>,
    exceptions: Exceptions,
}

/// How one host is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way<'a> {
    /// Without a proxy.
    Direct,
    /// Through this one.
    Through(&'a Proxy),
}

impl fmt::Display for Way<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("direct"),
            Self::Through(proxy) => write!(f, "through {proxy}"),
        }
    }
}

/// A proxy. Neither `Display` nor `Debug` shows its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    url: Url,
    user: Option<String>,
    authorization: Option<HeaderValue>,
    named_by: &'static str,
}

impl Proxy {
    fn new(mut url: Url, login: Option<(&str, &str)>, named_by: &'static str) -> Result<Self, ProxyError> {
        // Neither says anything about where the proxy is, and the user's part is kept apart.
        let cleared = url.set_username("").and_then(|()| url.set_password(None));
        cleared.map_err(|()| ProxyError::Address { named_by })?;
        url.set_path("");
        let authorization = login
            .map(|(user, password)| {
                let plain = Zeroizing::new(format!("{user}:{password}"));
                let word = Zeroizing::new(format!("Basic {}", BASE64.encode(plain.as_bytes())));
                let mut value = HeaderValue::from_str(&word).map_err(|_| ProxyError::Address { named_by })?;
                value.set_sensitive(true);
                Ok(value)
            })
            .transpose()?;
        Ok(Self { url, user: login.map(|(user, _)| user.to_owned()), authorization, named_by })
    }

    /// Its address, without a user.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// What it is shown to be let in; marked sensitive.
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str().trim_end_matches('/'))?;
        if let Some(user) = &self.user {
            write!(f, " as {user}")?;
        }
        write!(f, " ({})", self.named_by)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A proxy that cannot be used. It repeats no address, because a password may stand in it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProxyError {
    /// What names it does not hold the address of one.
    #[error(
        "{named_by} does not name a proxy by an address such as \"http://proxy.example.com:3128\" (http or https); \
         put it right, or set `proxy` in [network]"
    )]
    Address {
        /// The variable or the key.
        named_by: &'static str,
    },
}

impl Ways {
    /// Puts together what the configuration and the environment say. `exceptions` are those of the configuration; those of
    /// the environment count as well when its proxy does.
    ///
    /// # Errors
    /// When the environment has to decide, and what it names is not a proxy that can be spoken to.
    pub fn new(
        choice: Choice,
        mut exceptions: Exceptions,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ProxyError> {
        let set = |names: &[&'static str]| {
            names.iter().find_map(|name| Some((*name, variable(name).filter(|value| !value.trim().is_empty())?)))
        };
        let proxy = match choice {
            Choice::Off => None,
            Choice::Configured { url, login } => {
                let login = login.as_ref().map(|(user, password)| (user.as_str(), password.expose_secret()));
                Some(Proxy::new(url, login, "[network] proxy")?)
            }
            Choice::Environment => match set(&PROXY_VARIABLES) {
                Some((name, value)) => {
                    if let Some((_, list)) = set(&EXCEPTION_VARIABLES) {
                        exceptions.0.extend(list.split(',').filter_map(|entry| Exception::parse(entry).ok()));
                    }
                    Some(of_environment(name, &Zeroizing::new(value))?)
                }
                None => None,
            },
        };
        Ok(Self { proxy, exceptions })
    }

    /// How the host of an address is reached.
    pub fn to(&self, address: &Url) -> Way<'_> {
        match &self.proxy {
            Some(proxy) if !is_loopback(address) && !self.exceptions.contain(address) => Way::Through(proxy),
            _ => Way::Direct,
        }
    }
}

/// Reads a proxy's address as people write it into a variable: the scheme may be missing, and user and password stand in it.
fn of_environment(name: &'static str, value: &str) -> Result<Proxy, ProxyError> {
    let wrong = || ProxyError::Address { named_by: name };
    let text = value.trim();
    let with_scheme = Zeroizing::new(if text.contains("://") { text.to_owned() } else { format!("http://{text}") });
    let url = Url::parse(&with_scheme).map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong());
    }
    let decoded = |part: &str| Zeroizing::new(percent_decoded(part));
    let login =
        (!url.username().is_empty()).then(|| (decoded(url.username()), decoded(url.password().unwrap_or_default())));
    let login = login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()));
    Proxy::new(url.clone(), login, name)
}

fn percent_decoded(text: &str) -> String {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match rest {
            [b'%', high, low, after @ ..] => digit(*high).zip(digit(*low)).map(|(high, low)| (high << 4 | low, after)),
            _ => None,
        };
        let (byte, after) = escaped.unwrap_or((*first, tail));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads the address of a proxy as the configuration has it: http or https, a host, perhaps a port, and no user in it.
///
/// # Errors
/// What is wrong with it, without repeating it.
pub fn proxy_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text.trim()).map_err(|_| "this is not the address of a proxy")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the address of the proxy carries a user or a password");
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err("only proxies that speak http or https can be used");
    }
    let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    if !bare || url.host_str().is_none_or(str::is_empty) {
        return Err("the address of a proxy is a scheme, a host and a port");
    }
    Ok(url)
}

/// Hosts that are reached without a proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exceptions(Vec<Exception>);

impl Exceptions {
    /// These ones.
    pub fn new(list: impl IntoIterator<Item = Exception>) -> Self {
        Self(list.into_iter().collect())
    }

    fn contain(&self, address: &Url) -> bool {
        self.0.iter().any(|exception| exception.matches(address))
    }
}

/// One entry of `no_proxy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exception {
    /// `*`
    Everything,
    /// A host and everything below it; in lower case, without a dot in front.
    Domain(String),
    /// An address, or all that begin with the same so many bits.
    Net(IpAddr, u8),
}

impl Exception {
    /// Reads `*`, a domain (`example.com`, `.example.com` and `*.example.com` are the same), an address or a network
    /// (`10.0.0.0/8`).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if text == "*" {
            return Ok(Self::Everything);
        }
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        if let Ok(address) = bare.parse::<IpAddr>() {
            let all = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Ok(all), str::parse::<u8>).ok().filter(|bits| *bits <= all);
            return bits.map(|bits| Self::Net(address, bits)).ok_or("the length of the network is wrong");
        }
        let domain = text.strip_prefix('*').unwrap_or(text).trim_matches('.').to_ascii_lowercase();
        if domain.is_empty() {
            return Err("the entry is empty");
        }
        if !domain.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')) {
            return Err("this is neither a host, nor a domain, nor a network; it has no scheme, port or path");
        }
        Ok(Self::Domain(domain))
    }

    fn matches(&self, address: &Url) -> bool {
        match (self, address.host()) {
            (Self::Everything, _) => true,
            (Self::Domain(domain), Some(Host::Domain(host))) => {
                let host = host.trim_end_matches('.').to_ascii_lowercase();
                host.strip_suffix(domain.as_str()).is_some_and(|front| front.is_empty() || front.ends_with('.'))
            }
            (Self::Net(net, bits), Some(Host::Ipv4(host))) => within(*net, *bits, IpAddr::V4(host)),
            (Self::Net(net, bits), Some(Host::Ipv6(host))) => within(*net, *bits, IpAddr::V6(host)),
            _ => false,
        }
    }
}

/// Whether two addresses begin with the same so many bits.
pub(super) fn within(net: IpAddr, bits: u8, host: IpAddr) -> bool {
    let (differing, length) = match (net, host) {
        (IpAddr::V4(net), IpAddr::V4(host)) => (u128::from(net.to_bits() ^ host.to_bits()), 32),
        (IpAddr::V6(net), IpAddr::V6(host)) => (net.to_bits() ^ host.to_bits(), 128),
        _ => return false,
    };
    differing.checked_shr(u32::from(length - bits.min(length))).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    /// How an address is reached with these variables and these entries of `no_proxy`, in words that hold no secret.
    #[track_caller]
    fn check(choice: Choice, exceptions: &[&str], variables: &[(&str, &str)], to: &str, expected: &str) {
        let exceptions = Exceptions::new(exceptions.iter().map(|entry| Exception::parse(entry).unwrap()));
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let ways = Ways::new(choice, exceptions, variable).unwrap();
        assert_eq!(ways.to(&url(to)).to_string(), expected);
        assert!(!format!("{ways:?} {}", ways.to(&url(to))).contains("hunter2"));
    }

    fn configured() -> Choice {
        let login = Some(("me".to_owned(), SecretString::from("hunter2")));
        Choice::Configured { url: url("http://proxy.example.com:3128"), login }
    }

    const ORG: &str = "https://example.okta.com";

    #[test]
    fn the_configured_proxy_goes_before_the_environments_and_is_shown_without_its_password() {
        let variables = [("HTTPS_PROXY", "http://other:1"), ("NO_PROXY", "okta.com")];
        let shown = "through http://proxy.example.com:3128 as me ([network] proxy)";
        check(configured(), &[], &variables, ORG, shown);
        check(configured(), &["okta.com"], &variables, ORG, "direct");
        check(Choice::Off, &[], &variables, ORG, "direct");
        check(Choice::Environment, &[], &[], ORG, "direct");
    }

    #[test]
    fn the_environment_is_read_as_everybody_reads_it() {
        let shown = "through http://p.example:3128 (HTTPS_PROXY)";
        let env = |name, value, no: &str, expected: &str| {
            check(
                Choice::Environment,
                &[],
                &[(name, value), ("ALL_PROXY", "http://all:9"), ("no_proxy", no)],
                ORG,
                expected,
            );
        };
        env("HTTPS_PROXY", "http://p.example:3128", "", shown);
        env("HTTPS_PROXY", "p.example:3128", "example.com, 10.0.0.0/8", shown);
        env("https_proxy", "https://p.example/", "", "through https://p.example (https_proxy)");
        env("HTTPS_PROXY", "http://me:hunter2@p.example:3128", "", "through http://p.example:3128 as me (HTTPS_PROXY)");
        env("HTTPS_PROXY", "http://p.example:3128", ".okta.com", "direct");
        env("HTTPS_PROXY", "http://p.example:3128", "*", "direct");
        env("HTTPS_PROXY", "", "", "through http://all:9 (ALL_PROXY)");
        // Nothing goes in plain http but to loopback.
        env("HTTP_PROXY", "http://p.example:3128", "", "through http://all:9 (ALL_PROXY)");
    }

    #[test]
    fn loopback_is_never_asked_of_a_proxy() {
        for to in ["http://127.0.0.1:8080", "https://[::1]:8080", "https://localhost"] {
            check(configured(), &[], &[], to, "direct");
        }
    }

    #[test]
    fn an_environment_that_names_no_proxy_of_ours_is_told_without_repeating_it() {
        for value in ["socks5://me:hunter2@p.example:1080", "http://", "http://me:hunter2@", "http://[hunter2"] {
            let variable = |name: &str| (name == "ALL_PROXY").then(|| value.to_owned());
            let error = Ways::new(Choice::Environment, Exceptions::default(), variable).unwrap_err();
            assert_eq!(error, ProxyError::Address { named_by: "ALL_PROXY" }, "{value}");
            assert!(!format!("{error} {error:?}").contains("hunter2"));
            assert!(Ways::new(Choice::Off, Exceptions::default(), variable).is_ok());
        }
    }

    #[test]
    fn a_login_travels_as_basic_authentication_and_special_characters_survive() {
        let authorization = |value: &str| {
            let proxy = of_environment("HTTPS_PROXY", value).unwrap();
            let header = proxy.authorization().unwrap().clone();
            assert!(header.is_sensitive());
            String::from_utf8(BASE64.decode(&header.as_bytes()[6..]).unwrap()).unwrap()
        };
        assert_eq!(authorization("http://me:hunter2@p:1"), "me:hunter2");
        assert_eq!(authorization("http://me:p%40ss%3Aw%C3%B6rd%25@p:1"), "me:p@ss:wörd%");
        assert_eq!(authorization("http://me@p:1"), "me:");
        assert_eq!(percent_decoded("100%"), "100%");
        assert_eq!(percent_decoded("%4"), "%4");
        assert_eq!(percent_decoded("%zz%41"), "%zzA");
    }

    #[test]
    fn an_exception_is_a_domain_with_all_below_it_an_address_or_a_network() {
        let matches = |entry: &str, to: &str| Exception::parse(entry).unwrap().matches(&url(to));
        for (entry, to) in [
            ("example.com", "https://example.com"),
            (".example.com", "https://example.com"),
            ("*.example.com", "https://a.b.EXAMPLE.com."),
            ("Example.Com", "https://a.example.com"),
            ("10.0.0.0/8", "https://10.250.1.2"),
            ("192.168.7.7", "https://192.168.7.7"),
            ("0.0.0.0/0", "https://192.168.7.7"),
            ("fd00::/8", "https://[fd12:3456::1]"),
            ("[fd00::1]", "https://[fd00::1]"),
            ("*", "https://[fd00::1]"),
        ] {
            assert!(matches(entry, to), "{entry} {to}");
        }
        for (entry, to) in [
            ("example.com", "https://notexample.com"),
            ("example.com", "https://example.com.evil.net"),
            ("10.0.0.0/8", "https://11.0.0.1"),
            ("192.168.7.7", "https://192.168.7.8"),
            ("0.0.0.0/0", "https://[fd00::1]"),
            ("fd00::/8", "https://[fe80::1]"),
            ("10.0.0.0/8", "https://ten.example.com"),
        ] {
            assert!(!matches(entry, to), "{entry} {to}");
        }
        for wrong in
            ["", ".", "10.0.0.0/33", "10.0.0.0/x", "fd00::/129", "example.com:443", "https://example.com", "a b"]
        {
            assert!(Exception::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_proxys_address_is_a_scheme_a_host_and_a_port() {
        for right in ["http://proxy.example.com:3128", "https://proxy.example.com/", " http://[fd00::1]:3128"] {
            assert!(proxy_url(right).is_ok(), "{right}");
        }
        for wrong in
            ["proxy.example.com:3128", "socks5://p:1", "http://me:hunter2@p:1", "http://p/path", "http://p?q", ""]
        {
            let error = proxy_url(wrong).unwrap_err();
            assert!(!error.contains("hunter2"), "{wrong}");
        }
    }
}
