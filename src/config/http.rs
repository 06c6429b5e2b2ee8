//! `[http.NAME]`: services that `http.request` may speak to, and no others.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::secret::SecretSource;
use super::{defaults, duration, values};
use crate::http::{self, Inside};

/// The longest name of a service.
const MAX_NAME: usize = 32;

/// `[http.NAME]`: a service that `http.request` may speak to. Signs in with `token`, with `username` and `password`, with
/// `client_id` and `client_secret`, or not at all.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// `https://api.example.com/v1`; every path of a step stands below it. Plain http only to loopback.
    pub base_url: String,
    /// A token, sent as `Authorization: Bearer …`.
    pub token: Option<SecretSource>,
    /// The header that the token is sent in as it is, such as `X-Api-Key`, in place of `Authorization`.
    pub token_header: Option<String>,
    /// The user of basic authentication.
    pub username: Option<String>,
    /// That user's password.
    pub password: Option<SecretSource>,
    /// The client of OAuth 2.0 client credentials.
    pub client_id: Option<String>,
    /// Its secret.
    pub client_secret: Option<SecretSource>,
    /// Where it fetches tokens.
    pub token_url: Option<String>,
    /// The scopes it asks for, separated by blanks.
    pub scope: Option<String>,
    /// The audience it asks for, where the service wants one.
    pub audience: Option<String>,
    /// Headers of every request to `base_url`. No secret stands here.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Addresses and networks that may be connected to although they are not public, such as `10.0.0.0/8`.
    #[serde(default)]
    pub allow_private: Vec<String>,
    /// A path that `check --online` asks for with GET, to try the credentials.
    pub probe_path: Option<String>,
    /// Our certificate and those that lead to its CA, in PEM, for a service or a gateway that asks for one.
    pub client_certificate: Option<PathBuf>,
    /// The private key of that certificate, in PEM.
    pub client_key: Option<SecretSource>,
    /// The bound on one request.
    #[serde(default = "defaults::service_timeout", deserialize_with = "duration::required")]
    pub timeout: Duration,
}

impl HttpConfig {
    /// The one secret that it signs in with, and its key; `None` when it signs in without one, or in several ways, which a
    /// configuration that was loaded does not.
    pub fn secret(&self) -> Option<(&'static str, &SecretSource)> {
        let mut set = self.secrets().into_iter().filter_map(|(key, source)| Some((key, source?)));
        set.next().filter(|_| set.next().is_none())
    }

    /// Every secret, by its key.
    pub(super) fn secrets(&self) -> [(&'static str, Option<&SecretSource>); 3] {
        [
            ("token", self.token.as_ref()),
            ("password", self.password.as_ref()),
            ("client_secret", self.client_secret.as_ref()),
        ]
    }

    /// What is wrong with its values, as far as they tell by themselves: the key, if it is about one, message and remedy.
    pub(super) fn problems(&self) -> Vec<(Option<&'static str>, String, String)> {
        let mut problems = Vec::new();
        let mut say = |key, message: String, remedy: &str| problems.push((key, message, remedy.to_owned()));
        if self.secrets().iter().filter(|(_, source)| source.is_some()).count() > 1 {
            let message = "there is more than one way to sign in, and only one can be used".to_owned();
            say(None, message, "keep token, or username and password, or client_id and client_secret");
        }
        for (key, text) in [("token_url", &self.token_url), ("scope", &self.scope), ("audience", &self.audience)] {
            if text.is_some() && self.client_id.is_none() {
                let message = format!("{key} says nothing without client_id");
                say(Some(key), message, "set client_id and client_secret as well, or take it out");
            }
        }
        if self.client_id.is_some() && self.token_url.is_none() {
            let message = "client_id is set without token_url".to_owned();
            say(Some("client_id"), message, "set token_url, where the client fetches its tokens");
        }
        match (&self.token, &self.token_header) {
            (None, Some(_)) => {
                let message = "token_header says nothing without token".to_owned();
                say(Some("token_header"), message, "set token as well, or take it out");
            }
            (_, Some(name)) => {
                if let Err(message) = http::own_header(name) {
                    say(Some("token_header"), message, "write the name of a header, such as \"X-Api-Key\"");
                }
            }
            (_, None) => {}
        }
        for (name, value) in &self.headers {
            let message = match http::own_header(name) {
                Err(message) => message,
                Ok(_) if self.token_header.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(name)) => {
                    format!("`{name}` carries the token")
                }
                Ok(_) if value.chars().any(char::is_control) => format!("the value of `{name}` is not one line"),
                Ok(_) => continue,
            };
            say(Some("headers"), message, "take it out, or write headers such as { Accept = \"application/json\" }");
        }
        let inside = Inside::parse(&self.allow_private);
        if let Err((index, message)) = &inside {
            let entry = self.allow_private.get(*index).map(String::as_str).unwrap_or_default();
            say(
                Some("allow_private"),
                format!("\"{entry}\": {message}"),
                "write addresses and networks: \"192.0.2.7\", \"10.0.0.0/8\", \"fd00::/8\"",
            );
        }
        let inside = inside.unwrap_or_default();
        for (key, text) in [("base_url", Some(&self.base_url)), ("token_url", self.token_url.as_ref())] {
            match text.map(|text| values::service_url(text)) {
                Some(Err(error)) => problems.push((Some(key), error.message, error.remedy)),
                Some(Ok(url)) => {
                    if let Some(address) = inside.refused(&url) {
                        let remedy = format!("if it is meant, add allow_private = [\"{address}\"]");
                        problems.push((Some(key), format!("{address} is no public address"), remedy));
                    }
                }
                None => {}
            }
        }
        problems
    }
}

/// Whether this can be the name of a service: it stands in steps, in logs and behind `http.`.
pub(super) fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= MAX_NAME
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let config: HttpConfig = toml::from_str(text).unwrap();
        let told: Vec<_> = config
            .problems()
            .into_iter()
            .map(|(key, message, _)| format!("{}: {message}", key.unwrap_or("-")))
            .collect();
        assert_eq!(told, expected, "{text}");
    }

    #[test]
    fn every_way_to_sign_in_is_right_and_two_at_once_are_not() {
        let base = "base_url = \"https://api.example.com/v1\"\n";
        for way in [
            "",
            "token = { env = \"T\" }",
            "token = { env = \"T\" }\ntoken_header = \"X-Api-Key\"",
            "username = \"u\"\npassword = { env = \"P\" }",
            "client_id = \"c\"\nclient_secret = { env = \"S\" }\ntoken_url = \"https://login.example.com/token\"\nscope = \"a b\"",
        ] {
            check(&format!("{base}{way}"), &[]);
        }
        check(
            &format!("{base}token = {{ env = \"T\" }}\npassword = {{ env = \"P\" }}"),
            &["-: there is more than one way to sign in, and only one can be used"],
        );
        check(&format!("{base}scope = \"a\""), &["scope: scope says nothing without client_id"]);
        check(&format!("{base}client_id = \"c\""), &["client_id: client_id is set without token_url"]);
        check(&format!("{base}token_header = \"X-K\""), &["token_header: token_header says nothing without token"]);
    }

    #[test]
    fn addresses_that_only_some_can_reach_have_to_be_listed() {
        check("base_url = \"https://10.1.2.3/\"", &["base_url: 10.1.2.3 is no public address"]);
        check("base_url = \"http://127.0.0.1:80\"\nallow_private = [\"127.0.0.0/8\"]", &[]);
        check("base_url = \"https://10.1.2.3/\"\nallow_private = [\"10.1.2.3\"]", &[]);
        check(
            "base_url = \"https://x.example.com\"\nallow_private = [\"internal.example.com\"]",
            &["allow_private: \"internal.example.com\": this is neither an address nor a network"],
        );
        check(
            "base_url = \"http://api.example.com\"",
            &["base_url: `http://api.example.com` is not encrypted, and plain http goes to this machine only"],
        );
    }

    #[test]
    fn headers_that_the_daemon_sets_itself_cannot_be_set() {
        let base = "base_url = \"https://api.example.com\"\n";
        check(&format!("{base}headers = {{ Accept = \"application/json\" }}"), &[]);
        check(&format!("{base}headers = {{ authorization = \"x\" }}"), &["headers: `authorization` is not set here"]);
        check(&format!("{base}headers = {{ \"a b\" = \"x\" }}"), &["headers: `a b` is not the name of a header"]);
        check(&format!("{base}headers = {{ A = \"x\\ny\" }}"), &["headers: the value of `A` is not one line"]);
    }

    #[test]
    fn a_name_is_one_word() {
        for (name, expected) in
            [("edr", true), ("my-edr_2", true), ("", false), ("2edr", false), ("a.b", false), ("Edr", false)]
        {
            assert_eq!(is_name(name), expected, "{name}");
        }
    }
}
