//! Paths and queries whose parts cannot break out of their place.

use thiserror::Error;
use url::Url;

/// The most bytes of one segment; an Okta id has 20, a login at most some 100.
const MAX_SEGMENT: usize = 512;

/// An absolute path of the API, each segment percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiPath(String);

impl ApiPath {
    /// Builds a path from its segments. `/`, `?`, `#` and `%` inside one are encoded; an empty one, `.` and `..` are
    /// refused, because URL parsers give them a meaning even when they are encoded.
    pub fn new<const N: usize>(segments: [&str; N]) -> Result<Self, PathError> {
        let mut path = String::new();
        for segment in segments {
            if segment.is_empty() || segment == "." || segment == ".." || segment.len() > MAX_SEGMENT {
                return Err(PathError { segment: segment.chars().take(40).map(visible).collect() });
            }
            path.push('/');
            path.push_str(&encode(segment));
        }
        Ok(Self(path))
    }

    /// The encoded path, with its leading `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URL of this path at the origin of `org`, with a query of names and values.
    pub fn url(&self, org: &Url, query: &[(&str, &str)]) -> Url {
        let mut url = org.clone();
        url.set_path(&self.0);
        url.set_fragment(None);
        let pairs: Vec<_> = query.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        url.set_query(if pairs.is_empty() { None } else { Some(pairs.join("&")) }.as_deref());
        url
    }
}

/// A value that cannot stand in a path.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{segment}` cannot be an id or a login; look at the parameters of the step, or at the event they come from")]
pub struct PathError {
    segment: String,
}

/// Percent-encodes everything but RFC 3986's unreserved characters, so that no parser sees a delimiter.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn visible(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(id: &str) -> Url {
        ApiPath::new(["api", "v1", "users", id]).unwrap().url(&Url::parse("https://example.okta.com/").unwrap(), &[])
    }

    #[test]
    fn delimiters_in_an_id_do_not_change_the_path() {
        assert_eq!(url("../apps/x").as_str(), "https://example.okta.com/api/v1/users/..%2Fapps%2Fx");
        assert_eq!(url("a?b#c").path(), "/api/v1/users/a%3Fb%23c");
        assert_eq!(url("%2e%2e").path(), "/api/v1/users/%252e%252e");
        assert_eq!(url("a\\b").path(), "/api/v1/users/a%5Cb");
        assert_eq!(url("ann+x@example.com").path(), "/api/v1/users/ann%2Bx%40example.com");
    }

    #[test]
    fn segments_that_mean_another_place_are_refused() {
        for id in ["", ".", "..", &"x".repeat(513)] {
            assert!(ApiPath::new(["api", "v1", "users", id]).is_err(), "{id}");
        }
    }

    #[test]
    fn a_query_value_stays_one_value() {
        let org = Url::parse("https://example.okta.com/").unwrap();
        let url = ApiPath::new(["x"]).unwrap().url(&org, &[("filter", "a eq \"b&c=d\" + e#f"), ("n", "1")]);
        assert_eq!(url.query(), Some("filter=a%20eq%20%22b%26c%3Dd%22%20%2B%20e%23f&n=1"));
    }

    proptest! {
        #[test]
        fn any_id_keeps_the_path_at_four_segments(id in ".{1,40}") {
            if let Ok(path) = ApiPath::new(["api", "v1", "users", &id]) {
                let url = path.url(&Url::parse("https://example.okta.com/").unwrap(), &[]);
                prop_assert_eq!(url.path_segments().unwrap().count(), 4);
                prop_assert!(url.path().starts_with("/api/v1/users/"));
                prop_assert!(url.query().is_none());
            }
        }
    }
}
