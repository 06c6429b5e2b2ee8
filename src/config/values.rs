//! Values that are more than their text: moments to start from, polling intervals, addresses.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use thiserror::Error;
use url::Url;

use crate::http;

/// Where the state file lies when neither the configuration nor systemd says so.
pub const STATE_DIRECTORY: &str = "/var/lib/okta-responder";

/// The directory that a file is in.
pub(crate) fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Domains under which Okta hosts orgs; only there has an org a twin host whose name ends with `-admin`.
const OKTA_DOMAINS: &[&str] = &["okta.com", "oktapreview.com", "okta-emea.com", "okta-gov.com", "okta.mil"];

/// A value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}; {remedy}")]
pub struct ValueError {
    /// What is wrong with it.
    pub message: String,
    /// What to write instead.
    pub remedy: String,
}

impl ValueError {
    fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }
}

/// Where the first start of a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFrom {
    /// Okta's now.
    Now,
    /// A moment.
    At(Timestamp),
    /// This long before now.
    Ago(Duration),
}

impl StartFrom {
    /// Reads `now`, an RFC 3339 moment, or a humantime duration.
    ///
    /// # Errors
    /// When the text is none of the three.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        if text == "now" {
            return Ok(Self::Now);
        }
        if let Ok(moment) = text.parse::<Timestamp>() {
            return Ok(Self::At(moment));
        }
        humantime::parse_duration(text).map(Self::Ago).map_err(|_| {
            ValueError::new(
                format!("`{text}` is not a point to start from"),
                "write \"now\", a duration before now such as \"24h\", or a moment with its zone such as \
                 \"2026-08-24T10:00:00Z\"",
            )
        })
    }

    /// The moment it means at `now`. What lies before the first representable moment is that moment.
    pub fn moment(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Now => now,
            Self::At(moment) => moment,
            Self::Ago(duration) => SignedDuration::try_from(duration)
                .ok()
                .and_then(|duration| now.checked_sub(duration).ok())
                .unwrap_or(Timestamp::MIN),
        }
    }
}

impl<'de> Deserialize<'de> for StartFrom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // TOML has moments of its own, so people leave the quotes away.
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Self::parse(&text),
            toml::Value::Datetime(moment) => Self::parse(&moment.to_string()),
            other => Err(ValueError::new(
                format!("a point to start from is a string, not a {}", other.type_str()),
                "write \"now\", a duration such as \"24h\", or a moment such as \"2026-08-24T10:00:00Z\"",
            )),
        }
        .map_err(D::Error::custom)
    }
}

/// How often the log is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// As fast as the budget allows, at least 1 s apart.
    Auto,
    /// This often, if the budget allows.
    Every(Duration),
}

impl Interval {
    /// The shortest pause between two polls.
    pub const SHORTEST: Duration = Duration::from_secs(1);

    /// Reads `auto` or a humantime duration of at least [`Interval::SHORTEST`].
    ///
    /// # Errors
    /// When the text is neither.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match humantime::parse_duration(text) {
            Ok(duration) if duration >= Self::SHORTEST => Ok(Self::Every(duration)),
            Ok(_) => Err(ValueError::new(format!("`{text}` is shorter than 1 s"), "write \"1s\" or more, or \"auto\"")),
            Err(_) => Err(ValueError::new(
                format!("`{text}` is not a polling interval"),
                "write \"auto\" or a duration such as \"10s\"",
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A bound on changes of access within an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// So many; 0 lets nothing through without a person.
    Most(u32),
    /// No bound.
    Unlimited,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Most(most) => most.fmt(f),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(i64),
            Word(String),
        }
        let wrong = |what: String| {
            D::Error::custom(format!("`{what}` is not a number of changes; write 0 or more, or \"unlimited\""))
        };
        match Written::deserialize(deserializer).map_err(|_| wrong("this".to_owned()))? {
            Written::Number(number) => u32::try_from(number).map(Self::Most).map_err(|_| wrong(number.to_string())),
            Written::Word(word) if word == "unlimited" => Ok(Self::Unlimited),
            Written::Word(word) => Err(wrong(word)),
        }
    }
}

/// How long something may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// So long.
    After(Duration),
    /// For ever.
    Never,
}

impl Expiry {
    /// The bound, if there is one.
    pub fn bound(self) -> Option<Duration> {
        match self {
            Self::After(wait) => Some(wait),
            Self::Never => None,
        }
    }
}

impl<'de> Deserialize<'de> for Expiry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match humantime::parse_duration(&text) {
            _ if text == "never" => Ok(Self::Never),
            Ok(wait) if !wait.is_zero() => Ok(Self::After(wait)),
            _ => Err(D::Error::custom(format!("`{text}` is not a duration such as \"24h\"; write one, or \"never\""))),
        }
    }
}

/// Reads the address of an org: scheme and host, and a port if need be. What people copy out of a browser is understood:
/// blanks around it, capitals, a path, a query, a fragment and the default port are dropped.
///
/// # Errors
/// For everything else that [`service_url`] refuses, and for the admin console's host, whose API is another one.
pub fn org_url(text: &str) -> Result<Url, ValueError> {
    let url = origin_url(text)?;
    if let Some((name, domain)) = okta_host(&url)
        && let Some(org) = name.strip_suffix("-admin")
    {
        return Err(ValueError::new(
            format!("`{}` is the admin console, not the org", bare(&url)),
            format!("write \"https://{org}.{domain}\""),
        ));
    }
    Ok(url)
}

/// Reads the address of the admin console as [`org_url`] reads that of the org.
///
/// # Errors
/// For everything else that [`service_url`] refuses.
pub fn admin_url(text: &str) -> Result<Url, ValueError> {
    origin_url(text)
}

/// What was understood of an address of [`org_url`], where that is not what was written; a slash at its end is no difference.
pub fn understood(text: &str, url: &Url) -> Option<String> {
    let understood = bare(url);
    (text.strip_suffix('/').unwrap_or(text) != understood).then_some(understood)
}

/// An address without anything behind its host and port.
fn origin_url(text: &str) -> Result<Url, ValueError> {
    // A query or a fragment goes first, because no service has one in its address.
    let text = text.trim();
    let mut url = service_url(text.split(['?', '#']).next().unwrap_or(text))?;
    url.set_path("/");
    // The root of the name service at the end of a name makes another host of it for certificates and for us.
    let host = url.host_str().and_then(|host| host.strip_suffix('.')).map(str::to_owned);
    if let Some(host) = host
        && url.set_host(Some(&host)).is_err()
    {
        return Err(ValueError::new(
            "the address names no host",
            "write an address such as \"https://example.okta.com\"",
        ));
    }
    Ok(url)
}

fn bare(url: &Url) -> String {
    format!("{}://{}", url.scheme(), authority(url))
}

/// Reads the address of a service: https, or http to this very machine; no user, password, query or fragment in it.
///
/// # Errors
/// When it is anything else. The error does not repeat a password that stands in the address.
pub fn service_url(text: &str) -> Result<Url, ValueError> {
    let refused = |message: String, remedy: &str| Err(ValueError::new(message, remedy));
    if text.trim() != text || text.is_empty() {
        return refused(
            "the address is empty or has white space around it".to_owned(),
            "write an address such as \"https://example.com\"",
        );
    }
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(_) if !text.contains("://") && Url::parse(&format!("https://{text}")).is_ok() && !text.contains('@') => {
            return Err(ValueError::new(
                format!("`{text}` has no scheme"),
                format!("write \"https://{}\"", text.trim_end_matches('/')),
            ));
        }
        Err(error) => {
            return refused(
                format!("this is not an address: {error}"),
                "write an address such as \"https://example.com\"",
            );
        }
    };
    if !url.username().is_empty() || url.password().is_some() {
        return refused(
            "the address carries a user or a password".to_owned(),
            "leave them out of the address; secrets come from files, credentials or the environment",
        );
    }
    match url.scheme() {
        "https" => {}
        "http" if http::is_loopback(&url) => {}
        "http" => {
            return Err(ValueError::new(
                format!("`{text}` is not encrypted, and plain http goes to this machine only"),
                format!("write \"https://{}{}\"", authority(&url), url.path().trim_end_matches('/')),
            ));
        }
        other => {
            return refused(
                format!("`{other}` is not a scheme this daemon speaks"),
                "write an address that begins with https://",
            );
        }
    }
    if url.host_str().is_none_or(str::is_empty) {
        return refused(format!("`{text}` names no host"), "write an address such as \"https://example.com\"");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refused(
            format!("`{}://{}` goes on with a query or a fragment", url.scheme(), authority(&url)),
            "end the address before `?` and `#`",
        );
    }
    Ok(url)
}

/// The admin console that belongs to an org: on Okta's own domains the host with `-admin`, else the same host.
pub fn admin_url_of(org: &Url) -> Url {
    let mut admin = org.clone();
    if let Some((name, domain)) = okta_host(org)
        && admin.set_host(Some(&format!("{name}-admin.{domain}"))).is_err()
    {
        return org.clone();
    }
    admin
}

/// The org's name and the domain, for a host directly below one of Okta's domains.
fn okta_host(url: &Url) -> Option<(&str, &'static str)> {
    let host = url.host_str()?;
    OKTA_DOMAINS.iter().find_map(|domain| {
        let name = host.strip_suffix(domain)?.strip_suffix('.')?;
        (!name.is_empty() && !name.contains('.')).then_some((name, *domain))
    })
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_to_start_from_is_now_a_moment_or_a_duration() {
        let now: Timestamp = "2026-08-24T10:00:00Z".parse().unwrap();
        let moment = |text: &str| StartFrom::parse(text).unwrap().moment(now).to_string();
        assert_eq!(moment("now"), "2026-08-24T10:00:00Z");
        assert_eq!(moment("36h"), "2026-08-22T22:00:00Z");
        assert_eq!(moment("2026-08-01T00:00:00+02:00"), "2026-07-31T22:00:00Z");
        assert_eq!(StartFrom::Ago(Duration::MAX).moment(now), Timestamp::MIN);
        for wrong in ["", "yesterday", "2026-08-01", "2026-08-01T00:00:00", "24"] {
            assert!(StartFrom::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_interval_is_auto_or_at_least_a_second() {
        assert_eq!(Interval::parse("auto"), Ok(Interval::Auto));
        assert_eq!(Interval::parse("10s"), Ok(Interval::Every(Duration::from_secs(10))));
        for wrong in ["", "fast", "0s", "999ms"] {
            assert!(Interval::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_org_is_its_https_origin() {
        assert_eq!(org_url("https://example.okta.com").unwrap().as_str(), "https://example.okta.com/");
        assert_eq!(org_url("https://example.okta.com/").unwrap().as_str(), "https://example.okta.com/");
        assert_eq!(org_url("https://login.example.org:8443").unwrap().as_str(), "https://login.example.org:8443/");
        for local in ["http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:9"] {
            assert!(org_url(local).is_ok(), "{local}");
        }
    }

    #[test]
    fn what_is_copied_out_of_a_browser_is_understood_and_said() {
        let understood = |text: &str| understood(text, &org_url(text).unwrap());
        for copied in [
            "https://example.okta.com/app/UserHome",
            "  https://example.okta.com\t",
            "HTTPS://EXAMPLE.Okta.com",
            "https://example.okta.com:443/",
            "https://example.okta.com./api/v1/",
            "https://example.okta.com/login?fromURI=%2Fapp#main",
            "https://example.okta.com?x",
            "https://example.okta.com#x",
        ] {
            assert_eq!(understood(copied).as_deref(), Some("https://example.okta.com"), "{copied}");
            assert_eq!(org_url(copied).unwrap().as_str(), "https://example.okta.com/");
        }
        for exact in ["https://example.okta.com", "https://example.okta.com/", "https://login.example.org:8443"] {
            assert_eq!(understood(exact), None, "{exact}");
        }
        assert_eq!(admin_url("https://example-admin.okta.com/admin/dashboard").unwrap().path(), "/");
        assert_eq!(org_url("https://[2001:DB8::1]/x").unwrap().as_str(), "https://[2001:db8::1]/");
        assert_eq!(org_url("https://192.0.2.7/x").unwrap().as_str(), "https://192.0.2.7/");
    }

    #[test]
    fn a_wrong_org_address_is_refused_naming_the_right_one() {
        let remedy = |text: &str| org_url(text).unwrap_err().remedy;
        assert_eq!(remedy("example.okta.com"), "write \"https://example.okta.com\"");
        assert_eq!(remedy("http://example.okta.com"), "write \"https://example.okta.com\"");
        assert_eq!(remedy("https://example-admin.oktapreview.com"), "write \"https://example.oktapreview.com\"");
        let copied = "https://Example-Admin.okta.com./admin/dashboard";
        assert_eq!(remedy(copied), "write \"https://example.okta.com\"");
        for wrong in ["", " ", "ftp://a.okta.com", "https://", "https://a b/", "https://./"] {
            assert!(org_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_not_repeated() {
        for text in
            ["https://me:hunter2@example.okta.com", "me:hunter2@example.okta.com", "http://me:hunter2@x.example"]
        {
            let error = service_url(text).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn only_hosts_of_okta_have_an_admin_twin() {
        let admin = |text: &str| admin_url_of(&org_url(text).unwrap()).to_string();
        assert_eq!(admin("https://example.okta.com"), "https://example-admin.okta.com/");
        assert_eq!(admin("https://login.example.org"), "https://login.example.org/");
        assert_eq!(admin("https://notokta.com"), "https://notokta.com/");
    }
}
