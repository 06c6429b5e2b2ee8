//! Requests to any other service that the configuration lists.
//!
//! What a crash leaves depends on what the step says: with a look-up the target is read back, with an idempotency header
//! the service folds repeats, a request that only reads is simply sent again; of everything else nobody can tell.
//!
//! A step cannot lead a request elsewhere. The service is named by a fixed word, its address stands in the configuration,
//! and every value in a path is encoded so that it stays within its segment.

mod answer;
mod service;
mod sign_in;

use std::collections::BTreeMap;

use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::{ActionKind, Effect, FromEvent, Inverse, Service, cut, required, shape};
use crate::http;
use crate::model::escape::Escape;

use answer::Found;
pub use service::HttpServices;
pub(super) use service::{Change, Request};

/// `http.request`
pub static REQUEST: ActionKind = KIND;

/// `http.access.change`
pub static CHANGE_ACCESS: ActionKind = ActionKind {
    name: "http.access.change",
    summary: "Sends a request that changes a user's access to a service of [http.NAME]; the guard counts and protects",
    changes_access: true,
    from_event: &[("user", FromEvent::UserId)],
    check: |params| ChangeParams::parse(params).map(drop),
    schema: shape::<ChangeParams>,
    lane: |params| {
        let ChangeParams { request, user } = ChangeParams::parse(params).ok()?;
        Some(format!("http.{}/{}", request.service, request.lane.unwrap_or(user)))
    },
    ..KIND
};

const KIND: ActionKind = ActionKind {
    name: "http.request",
    summary: "Sends a request to a service of [http.NAME]",
    service: Service::Http,
    effect: Effect::Opaque,
    changes_access: false,
    resets_risk: false,
    rights: &[],
    from_event: &[],
    check: |params| RequestParams::parse(params).map(drop),
    schema: shape::<RequestParams>,
    escape: |parameter| match parameter {
        "path" | "lookup_path" => Escape::PathSegment,
        "headers" | "lane" => Escape::Line,
        _ => Escape::Plain,
    },
    lane: |params| {
        let params = RequestParams::parse(params).ok()?;
        Some(format!("http.{}/{}", params.service, params.lane?.trim()))
    },
    inverse: |_| Inverse::impossible("what undoes it only its service knows; do it there"),
};

/// What a crash leaves of a request with these parameters, whose templates need not be filled in.
pub(super) fn effect(params: &Value) -> Effect {
    let has = |name: &str| params.get(name).is_some();
    let reads = params.get("method").and_then(Value::as_str).is_some_and(|method| matches!(method, "GET" | "HEAD"));
    if has("lookup_path") {
        Effect::Keyed
    } else if reads || has("idempotency_header") {
        Effect::Folded
    } else {
        Effect::Opaque
    }
}

/// The longest URL and the largest body that are sent, in bytes.
const MAX_URL: usize = 8 * 1024;
const MAX_BODY: usize = 256 * 1024;

/// The most entries of a table of texts.
const MAX_ENTRIES: usize = 50;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RequestParams {
    /// The name of a section [http.NAME]; no template.
    service: String,
    method: Verb,
    /// Below `base_url`. Values in it are encoded and stay within their segment.
    path: String,
    /// What stands behind `?`.
    #[serde(default)]
    query: BTreeMap<String, String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The body as JSON; strings at any depth are templates.
    json: Option<Value>,
    /// The body as a form.
    form: Option<BTreeMap<String, String>>,
    /// The statuses of success. Default: `["2xx"]`.
    #[serde(default = "any_success")]
    expect: Vec<Expected>,
    /// The header in which the service takes an idempotency key.
    idempotency_header: Option<String>,
    /// A path that is asked for with GET before anything is sent, and in doubt: whether it is done already.
    lookup_path: Option<String>,
    /// What stands behind `?` of it.
    #[serde(default)]
    lookup_query: BTreeMap<String, String>,
    /// What its answer has to hold, as JSON pointers: one that leads to something, or a table of pointers and values.
    /// Default: any success.
    found: Option<Found>,
    /// The part of its answer that stands for what was made, as a JSON pointer. Default: all of it.
    found_body: Option<String>,
    /// Requests to one service with the same lane are sent in the order of their events.
    lane: Option<String>,
}

/// The parameters of `http.access.change`.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ChangeParams {
    #[schemars(flatten)]
    request: RequestParams,
    /// The id of the user whose access it changes.
    user: String,
}

impl ChangeParams {
    fn parse(params: &Value) -> Result<Self, String> {
        let mut rest = params.as_object().ok_or("the parameters are no table")?.clone();
        let user = rest.remove("user").ok_or("missing field `user`")?;
        let user = user.as_str().ok_or("`user` is not a text")?.to_owned();
        required("user", &user)?;
        Ok(Self { request: RequestParams::parse(&Value::Object(rest))?, user })
    }
}

/// `method`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Verb {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
}

impl Verb {
    fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Head => Method::HEAD,
            Self::Post => Method::POST,
            Self::Put => Method::PUT,
            Self::Patch => Method::PATCH,
            Self::Delete => Method::DELETE,
        }
    }

    /// Whether it changes nothing (RFC 9110, section 9.2.1).
    fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head)
    }
}

/// A status, or all of one kind.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Expected {
    Status(u16),
    Kind(#[schemars(regex(pattern = "^[1-5]xx$"))] String),
}

fn any_success() -> Vec<Expected> {
    vec![Expected::Kind("2xx".to_owned())]
}

impl Expected {
    fn is(&self, status: u16) -> bool {
        match self {
            Self::Status(expected) => *expected == status,
            Self::Kind(kind) => kind.strip_suffix("xx").is_some_and(|first| first == (status / 100).to_string()),
        }
    }

    fn check(&self) -> Result<(), String> {
        match self {
            Self::Status(100..=599) => Ok(()),
            Self::Kind(kind) if ["1xx", "2xx", "3xx", "4xx", "5xx"].contains(&kind.as_str()) => Ok(()),
            Self::Status(other) => Err(not_a_status(&other.to_string())),
            Self::Kind(other) => Err(not_a_status(&format!("\"{}\"", cut(other, 40)))),
        }
    }
}

fn not_a_status(written: &str) -> String {
    format!("`expect` holds {written}; write statuses such as 201 or \"2xx\"")
}

impl RequestParams {
    fn parse(params: &Value) -> Result<Self, String> {
        let params = Self::deserialize(params).map_err(|error| error.to_string())?;
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if params.service.is_empty() || !params.service.chars().all(is_word) {
            return Err("`service` is not the name of a section [http.NAME]; it is a fixed word".to_owned());
        }
        check_path("path", &params.path)?;
        if params.json.is_some() && params.form.is_some() {
            return Err("`json` and `form` are both set, and a request has one body".to_owned());
        }
        if params.method.is_safe() && (params.json.is_some() || params.form.is_some()) {
            return Err("a request that only reads has no body; leave out `json` and `form`".to_owned());
        }
        if params.expect.is_empty() {
            return Err("`expect` is empty, so nothing would be a success".to_owned());
        }
        params.expect.iter().try_for_each(Expected::check)?;
        let tables = [("query", &params.query), ("headers", &params.headers), ("lookup_query", &params.lookup_query)];
        for (name, table) in tables.into_iter().chain(params.form.iter().map(|form| ("form", form))) {
            if table.len() > MAX_ENTRIES {
                return Err(format!("`{name}` has more than {MAX_ENTRIES} entries"));
            }
        }
        for name in params.headers.keys().chain(&params.idempotency_header) {
            http::own_header(name)?;
        }
        params.check_lookup()?;
        Ok(params)
    }

    fn check_lookup(&self) -> Result<(), String> {
        match &self.lookup_path {
            Some(path) => check_path("lookup_path", path)?,
            None if !self.lookup_query.is_empty() || self.found.is_some() || self.found_body.is_some() => {
                return Err("`lookup_query`, `found` and `found_body` say nothing without `lookup_path`".to_owned());
            }
            None => {}
        }
        if let Some(found) = &self.found {
            found.check()?;
        }
        self.found_body.as_deref().map_or(Ok(()), |pointer| answer::check_pointer("found_body", pointer))
    }

    /// The headers of the request, besides those of the section.
    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        let value = |(name, value): (&String, &String)| {
            let header = HeaderValue::from_bytes(value.trim().as_bytes());
            Ok((http::own_header(name)?, header.map_err(|_| format!("the header `{name}` cannot hold its value"))?))
        };
        self.headers.iter().map(value).collect()
    }
}

/// A path as it is written, or with its values, which are encoded by then.
fn check_path(parameter: &str, path: &str) -> Result<(), String> {
    let Some(path) = fixed_part(path) else { return Ok(()) };
    if path.contains(['?', '#', '\\']) || path.chars().any(char::is_control) {
        return Err(format!(
            "`{parameter}` holds a character that ends a path or hides in it; write `query` for what stands behind `?`"
        ));
    }
    if path.split_once("://").is_some_and(|(scheme, _)| scheme.bytes().all(|byte| byte.is_ascii_alphabetic())) {
        return Err(format!("`{parameter}` is a whole address; write what follows `base_url` in [http.NAME]"));
    }
    let mut segments = path.strip_prefix('/').unwrap_or(&path).split('/').peekable();
    while let Some(segment) = segments.next() {
        // The last one may be empty: many services end their paths in a slash.
        if segment.is_empty() && segments.peek().is_some() {
            return Err(format!("`{parameter}` has an empty segment"));
        }
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        if plain == "." || plain == ".." {
            return Err(format!("`{parameter}` leads to another place than it says"));
        }
    }
    Ok(())
}

/// A path with a letter in place of each value. None if its template is more than values: what that gives is looked at when
/// it is filled in.
fn fixed_part(path: &str) -> Option<String> {
    if path.contains("{%") || path.contains("{#") {
        return None;
    }
    let (mut fixed, mut rest) = (String::new(), path);
    while let Some((before, value)) = rest.split_once("{{") {
        fixed.push_str(before);
        fixed.push('x');
        rest = value.split_once("}}")?.1;
    }
    fixed.push_str(rest);
    Some(fixed)
}

/// The address of a path below `base`, which ends in a slash. Nothing in the path leads out of there.
fn address(base: &Url, parameter: &str, path: &str, query: &BTreeMap<String, String>) -> Result<Url, String> {
    let refused = |why: &str| Err(format!("`{parameter}` {why}; nothing is sent"));
    if path.contains("{{") || path.contains("{%") {
        return refused("holds a template that is not filled in");
    }
    check_path(parameter, path).map_err(|why| format!("{why}; nothing is sent"))?;
    let path = path.strip_prefix('/').unwrap_or(path);
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path()));
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    if url.origin() != base.origin() || !url.path().starts_with(base.path()) {
        return refused("leads out of `base_url`");
    }
    if url.as_str().len() > MAX_URL {
        return refused("and `query` are too long together");
    }
    Ok(url)
}

#[cfg(test)]
mod service_tests;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn params(more: Value) -> Value {
        let mut params = json!({"service": "edr", "method": "POST", "path": "/hosts"});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    }

    #[track_caller]
    fn check_refused(more: Value, part: &str) {
        let problem = RequestParams::parse(&params(more)).unwrap_err();
        assert!(problem.contains(part), "{problem}");
    }

    #[test]
    fn what_a_crash_leaves_follows_from_what_the_step_says() {
        for (more, expected) in [
            (json!({}), Effect::Opaque),
            (json!({"method": "PUT"}), Effect::Opaque),
            (json!({"method": "GET"}), Effect::Folded),
            (json!({"idempotency_header": "Idempotency-Key"}), Effect::Folded),
            (json!({"lookup_path": "/hosts/1", "idempotency_header": "Idempotency-Key"}), Effect::Keyed),
        ] {
            let params = params(more);
            assert!(RequestParams::parse(&params).is_ok(), "{params}");
            assert_eq!(effect(&params), expected, "{params}");
        }
    }

    #[test]
    fn parameters_that_could_not_be_sent_are_refused() {
        check_refused(json!({"service": "{{ target.login }}"}), "it is a fixed word");
        check_refused(json!({"method": "CONNECT"}), "unknown variant `CONNECT`");
        check_refused(json!({"path": "/a?b=c"}), "`path` holds a character");
        check_refused(json!({"path": "/{{ target.id }}?b=c"}), "`path` holds a character");
        check_refused(json!({"path": "/../{{ target.id }}"}), "`path` leads to another place");
        check_refused(json!({"path": "/hosts//{{ target.id }}"}), "`path` has an empty segment");
        check_refused(json!({"path": "https://api.example.com/hosts"}), "`path` is a whole address");
        check_refused(json!({"lookup_path": "/%2e%2E/x"}), "`lookup_path` leads to another place");
        check_refused(json!({"json": {}, "form": {}}), "a request has one body");
        check_refused(json!({"method": "GET", "json": {}}), "has no body");
        check_refused(json!({"expect": []}), "`expect` is empty");
        check_refused(json!({"expect": ["ok"]}), "`expect` holds \"ok\"; write");
        check_refused(json!({"expect": [99]}), "`expect` holds 99; write");
        check_refused(json!({"headers": {"Authorization": "x"}}), "`Authorization` is not set here");
        check_refused(json!({"idempotency_header": "Host"}), "`Host` is not set here");
        check_refused(json!({"found": "/id"}), "say nothing without `lookup_path`");
        check_refused(json!({"lookup_path": "/a", "found": "id"}), "is not a JSON pointer");
        check_refused(json!({"lookup_path": "/a", "found": {}}), "`found` is empty");
        check_refused(json!({"surprise": 1}), "unknown field `surprise`");
    }

    #[test]
    fn what_only_a_template_gives_is_not_judged_as_it_is_written() {
        for path in [
            r#"/hosts/{{ event.client.device | default("?#/../") }}/isolate"#,
            "/hosts/.{{ target.id }}",
            "{% if app %}/apps/{{ app.id }}{% else %}/users{% endif %}",
            "/{{ target.id }}/",
        ] {
            assert!(RequestParams::parse(&params(json!({"path": path}))).is_ok(), "{path}");
        }
    }

    #[test]
    fn a_change_of_access_names_its_user_and_keeps_the_order_of_his_events() {
        let change = params(json!({"user": "00u1"}));
        assert_eq!((CHANGE_ACCESS.check)(&change), Ok(()));
        assert_eq!((CHANGE_ACCESS.lane)(&change).as_deref(), Some("http.edr/00u1"));
        assert!((CHANGE_ACCESS.check)(&params(json!({}))).unwrap_err().contains("`user`"));
        assert!((CHANGE_ACCESS.check)(&params(json!({"user": " "}))).is_err());
        assert!((CHANGE_ACCESS.check)(&params(json!({"user": "u", "x": 1}))).unwrap_err().contains("`x`"));
        assert!((REQUEST.check)(&change).unwrap_err().contains("`user`"));
        assert_eq!((REQUEST.lane)(&params(json!({}))), None);
        assert_eq!((REQUEST.lane)(&params(json!({"lane": "a"}))).as_deref(), Some("http.edr/a"));
    }

    #[test]
    fn a_path_stays_below_its_base() {
        let base = Url::parse("https://api.example.com/v1/").unwrap();
        let at = |path: &str| address(&base, "path", path, &BTreeMap::new()).map(String::from);
        for (path, expected) in [
            ("/hosts", "https://api.example.com/v1/hosts"),
            ("hosts/", "https://api.example.com/v1/hosts/"),
            ("", "https://api.example.com/v1/"),
            ("/hosts/a%2Fb", "https://api.example.com/v1/hosts/a%2Fb"),
            ("/hosts/a@b:c", "https://api.example.com/v1/hosts/a@b:c"),
            ("/hosts/...", "https://api.example.com/v1/hosts/..."),
            ("/http://evil.example/", ""),
        ] {
            assert_eq!(at(path).unwrap_or_default(), expected, "{path}");
        }
        for path in [
            "/../admin",
            "/hosts/..",
            "/hosts/%2e%2E/x",
            "/hosts/.%2e",
            "/./x",
            "//evil.example/x",
            "/hosts//isolate",
            "/hosts\\..\\x",
            "/hosts?x",
            "/hosts#x",
            "/ho\nsts",
            "/{{ x }}",
        ] {
            assert!(at(path).is_err(), "{path} became {:?}", at(path));
        }
        let query = BTreeMap::from([("q".to_owned(), "a&b=c#d e/../é".to_owned())]);
        let url = address(&base, "path", "/x", &query).unwrap();
        assert_eq!(url.query_pairs().collect::<Vec<_>>(), [("q".into(), "a&b=c#d e/../é".into())]);
        let query = BTreeMap::from([("q".to_owned(), "x".repeat(MAX_URL))]);
        assert!(address(&base, "path", "/x", &query).is_err());
    }

    #[test]
    fn whatever_stands_in_a_value_it_is_one_segment() {
        let base = Url::parse("https://api.example.com/v1/").unwrap();
        for value in ["a/b", "../../admin", "a?b#c", "@evil.example", "\\x", "a b", "é", "%2e%2e", "a\u{0}b", "x%2Fy"]
        {
            let segment = Escape::PathSegment.apply(value);
            let url = address(&base, "path", &format!("/hosts/{segment}/isolate"), &BTreeMap::new()).unwrap();
            let segments: Vec<_> = url.path_segments().unwrap().collect();
            assert_eq!((segments.len(), segments[1], segments[3]), (4, "hosts", "isolate"), "{value}: {url}");
        }
        for value in ["..", ".", "\u{200b}.."] {
            let segment = Escape::PathSegment.apply(value);
            assert!(address(&base, "path", &format!("/hosts/{segment}/isolate"), &BTreeMap::new()).is_err(), "{value}");
        }
    }

    #[test]
    fn headers_take_any_letters_and_no_second_line() {
        let headers =
            |value: &str| RequestParams::parse(&params(json!({"headers": {"X-User": value}}))).unwrap().headers();
        assert_eq!(headers(" Zoë ").unwrap()[0].1.as_bytes(), "Zoë".as_bytes());
        assert!(headers("a\r\nX-Other: b").is_err());
    }
}
