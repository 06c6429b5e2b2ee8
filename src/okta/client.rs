//! One request to Okta: sent with the credential, read within bounds, sorted when it fails.

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, LINK};
use reqwest::{Client, Method, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;
use tracing::debug;
use url::Url;

use super::auth::{Auth, AuthError, Granted, Pass, Tried};
use super::bucket::{Bucket, Priority};
use super::budget::Reply;
use super::error::{Exchange, OktaError, OktaErrorKind};
use super::gate::{Gate, Patience, Turn};
use super::groups::GroupCache;
use super::page::{check_origin, next_link};
use super::path::ApiPath;
use super::rate::RateHeaders;
use crate::http::{self, Network};
use crate::model::lenient;

/// The most bytes of an object or of a page of objects: some 3,000 groups. Read into memory as values, a body can take
/// sixteen times as much, in each of the requests under way.
const MAX_BODY: usize = 2 * 1024 * 1024;

/// The most bytes read of an error's body.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// How long a request waits for its turn before it is put off: longer waits belong into the schedule of whoever asks, where
/// they hold up nobody else.
const PATIENCE: Patience = Patience::AtMost(Duration::from_secs(3));

/// Where the org is and how long a request may take.
#[derive(Debug, Clone)]
pub struct OktaSettings {
    /// `https://example.okta.com`; plain http only to loopback.
    pub org_url: Url,
    /// The admin console, for links that people follow.
    pub admin_url: Url,
    /// The bound on one request, from its start to the end of its body.
    pub timeout: Duration,
    /// The way out of this host.
    pub network: Network,
}

/// Speaks to one org. Its clones share the budget of the org's rate limits; each asks with a priority of its own.
#[derive(Debug, Clone)]
pub struct OktaClient {
    http: Client,
    pub(super) org_url: Url,
    admin_url: Url,
    auth: Auth,
    pub(super) group_ids: GroupCache,
    gate: Gate,
    priority: Priority,
    patience: Patience,
    timeout: Duration,
}

/// The settings do not make a client.
#[derive(Debug, Error)]
pub enum OktaSetupError {
    /// The address is not an org's.
    #[error("`okta.org_url` must be `https://` and a host, without a path or a user name (`http://` only to loopback)")]
    OrgUrl,
    /// The HTTP client could not be built.
    #[error("no client for `okta.org_url`")]
    Http(#[source] http::ClientError),
}

/// A successful answer, read whole.
#[derive(Debug)]
pub struct Answer {
    /// What was asked and answered.
    pub exchange: Exchange,
    /// The next page, verbatim; its origin is checked.
    pub next: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    /// The body as JSON of a shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, OktaError> {
        lenient::from_slice(&self.body).map_err(|error| OktaError::from_json(self.exchange.clone(), error))
    }
}

impl OktaClient {
    /// Builds a client. Nothing is sent. It asks for what a person waits for: with the highest priority, patiently, and
    /// with all that the rate limits grant; see [`OktaClient::through`].
    pub fn new(settings: &OktaSettings, auth: Auth) -> Result<Self, OktaSetupError> {
        let org = &settings.org_url;
        let secure = org.scheme() == "https" || (org.scheme() == "http" && http::is_loopback(org));
        let bare = org.path() == "/" && org.query().is_none() && org.username().is_empty() && org.password().is_none();
        if !secure || !bare || org.host_str().is_none() {
            return Err(OktaSetupError::OrgUrl);
        }
        let http = http::client("okta", org, settings.timeout, &settings.network).map_err(OktaSetupError::Http)?;
        let (org_url, admin_url) = (org.clone(), settings.admin_url.clone());
        let (gate, priority, patience) = (Gate::new(1.0), Priority::Remediation, Patience::Endless);
        let (group_ids, timeout) = (GroupCache::default(), settings.timeout);
        Ok(Self { http, org_url, admin_url, auth, group_ids, gate, priority, patience, timeout })
    }

    /// The same client as a daemon uses it: within a budget, and turned away when there is no room soon. What is turned away
    /// was not sent; its error is a [`OktaErrorKind::RateLimited`] without a status.
    pub fn through(self, gate: Gate) -> Self {
        Self { gate, patience: PATIENCE, ..self }
    }

    /// The same client, asking for something that matters more or less.
    pub fn with(&self, priority: Priority) -> Self {
        Self { priority, ..self.clone() }
    }

    /// The same client, waiting for its turn as long as it takes.
    pub fn patiently(&self) -> Self {
        Self { patience: Patience::Endless, ..self.clone() }
    }

    /// The org's budget.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The bound on one request.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The org's address.
    pub fn org_url(&self) -> &Url {
        &self.org_url
    }

    /// A page of the admin console, such as `["admin", "group", id]`. `None` when an id cannot stand in a path.
    pub fn admin_link<const N: usize>(&self, segments: [&str; N]) -> Option<String> {
        ApiPath::new(segments).ok().map(|path| path.url(&self.admin_url, &[]).into())
    }

    /// What a service app has been given, which is asked for now if need be; `None` where an API token signs in.
    pub async fn granted(&self) -> Result<Option<Granted>, OktaError> {
        let failed = |error: AuthError| OktaError::no_credential(Exchange::default(), error);
        self.auth.granted().await.map_err(failed)
    }

    /// Whom Okta takes us for: the owner of an API token, who is asked for, or the service app, once it has a token. It is
    /// the actor of what we do.
    pub async fn own_id(&self) -> Result<String, OktaError> {
        match self.granted().await? {
            Some(granted) => Ok(granted.client_id),
            None => Ok(self.me().await?.id),
        }
    }

    /// Reads an object or a first page.
    pub async fn get(&self, path: &ApiPath, query: &[(&str, &str)]) -> Result<Answer, OktaError> {
        self.send(Method::GET, path, query, None).await
    }

    /// Reads a page by the URL that an answer gave for it.
    pub async fn get_page(&self, url: &str) -> Result<Answer, OktaError> {
        let url = check_origin(url, &self.org_url)
            .map_err(|error| OktaError::foreign_next(Exchange { method: "GET", ..Exchange::default() }, error))?;
        self.whole(Method::GET, url, None).await
    }

    /// Sends any request. For one that changes something a success is decided by its status alone: a body that breaks
    /// off afterwards is left empty.
    pub async fn send(
        &self,
        method: Method,
        path: &ApiPath,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, OktaError> {
        self.whole(method, path.url(&self.org_url, query), body).await
    }

    async fn whole(&self, method: Method, url: Url, body: Option<&Value>) -> Result<Answer, OktaError> {
        let changing = method != Method::GET;
        let Head { response, exchange, next } = self.head(method, url, body).await?;
        // Okta answers a change with JSON or with nothing. A page comes from something in between, which may have kept
        // the request to itself.
        if changing && http::is_html(response.headers()) {
            return Err(OktaError::bad_answer(exchange, "an HTML page is no answer of Okta's; look at the proxy"));
        }
        match http::read_bounded(response, MAX_BODY).await {
            Ok(body) => Ok(Answer { exchange, next, body }),
            Err(_) if changing => Ok(Answer { exchange, next, body: Vec::new() }),
            Err(error) => Err(OktaError::from_body(exchange, error)),
        }
    }

    /// Sends a request and returns as soon as the headers of a success are in. A refused request was not carried out, so it
    /// goes out again when the credential has something better to offer.
    pub(super) async fn head(&self, method: Method, url: Url, body: Option<&Value>) -> Result<Head, OktaError> {
        let mut tried = Tried::default();
        loop {
            let Sent { exchange, response, pass } = self.attempt(&method, &url, body).await?;
            if response.status().is_success() {
                return self.headed(exchange, response);
            }
            let refused = (response.status() == 401).then(|| response.headers().clone());
            let mut body = http::read_bounded(response, MAX_ERROR_BODY).await.unwrap_or_default();
            let secrets = [Some(&pass.authorization), pass.proof.as_ref()];
            if secrets.into_iter().flatten().any(|secret| http::repeats_credential(&body, secret)) {
                body.clear();
            }
            let error = OktaError::from_answer(exchange, &body);
            let Some(headers) = refused.filter(|_| error.kind == OktaErrorKind::Unauthorized) else {
                return Err(error);
            };
            match self.auth.refused(&pass, &headers, &mut tried).await {
                Ok(true) => {}
                Ok(false) => return Err(error),
                Err(why) => {
                    let Exchange { method, path, .. } = *error.exchange;
                    return Err(OktaError::no_credential(Exchange { method, path, ..Exchange::default() }, why));
                }
            }
        }
    }

    fn headed(&self, exchange: Exchange, response: Response) -> Result<Head, OktaError> {
        let lines = response.headers().get_all(LINK).into_iter().filter_map(|line| line.to_str().ok());
        let next = next_link(lines).map(str::to_owned);
        match next.as_deref().map(|next| check_origin(next, &self.org_url)) {
            Some(Err(error)) => Err(OktaError::foreign_next(exchange, error)),
            _ => Ok(Head { response, exchange, next }),
        }
    }

    /// Sends a request once and hears what its headers say.
    async fn attempt(&self, method: &Method, url: &Url, body: Option<&Value>) -> Result<Sent, OktaError> {
        let mut exchange = Exchange { method: method_name(method), path: url.path().to_owned(), ..Exchange::default() };
        let mut turn = self.turn(method, url, &exchange).await?;
        let pass = match self.auth.pass(method, url).await {
            Ok(pass) => pass,
            Err(error) => return Err(OktaError::no_credential(exchange, error)),
        };
        let mut request = self
            .http
            .request(method.clone(), url.clone())
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .header(AUTHORIZATION, &pass.authorization);
        if let Some(proof) = &pass.proof {
            request = request.header("DPoP", proof);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        turn.leaves();
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                let error = OktaError::from_send(exchange, error);
                if error.kind == OktaErrorKind::Connect {
                    turn.stayed();
                }
                return Err(error);
            }
        };
        read_headers(&mut exchange, &response);
        turn.answered(Reply { status: response.status().as_u16(), headers: exchange.rate, date: exchange.date });
        self.auth.answered(&pass, response.status(), response.headers());
        debug!(
            okta.method = exchange.method,
            okta.path = exchange.path,
            okta.status = exchange.status,
            okta.request_id = exchange.request_id,
            "Okta answered",
        );
        Ok(Sent { exchange, response, pass })
    }

    /// Waits until the budget lets the request go.
    async fn turn(&self, method: &Method, url: &Url, exchange: &Exchange) -> Result<Turn, OktaError> {
        let bucket = Bucket::of(method, url.path());
        let turn = self.gate.pass(bucket, self.priority, self.patience).await;
        turn.map_err(|away| OktaError::turned_away(exchange.clone(), away.wait))
    }

    /// Reads pages of objects until they end or `max` objects are there; more is an error, because deciding on a part
    /// of a list would be deciding wrongly.
    pub(super) async fn all<T: DeserializeOwned>(
        &self,
        path: &ApiPath,
        query: &[(&str, &str)],
        max: usize,
    ) -> Result<Vec<T>, OktaError> {
        let mut answer = self.get(path, query).await?;
        let mut all = answer.json::<Vec<T>>()?;
        // Every page but the last must bring something, so `max` bounds the requests as well.
        while let Some(next) = answer.next.take() {
            answer = self.get_page(&next).await?;
            let page = answer.json::<Vec<T>>()?;
            if page.is_empty() {
                break;
            }
            all.extend(page);
            if all.len() > max {
                return Err(OktaError::bad_answer(answer.exchange, "the list is longer than anything expected"));
            }
        }
        Ok(all)
    }
}

/// A request that was answered somehow.
struct Sent {
    exchange: Exchange,
    response: Response,
    pass: Pass,
}

/// A successful answer whose body is still to be read.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) response: Response,
    pub(super) exchange: Exchange,
    pub(super) next: Option<String>,
}

fn read_headers(exchange: &mut Exchange, response: &Response) {
    let headers = response.headers();
    exchange.status = Some(response.status().as_u16());
    let id = headers.get("x-okta-request-id").and_then(|value| value.to_str().ok());
    exchange.request_id = id.map(|id| id.chars().take(64).collect());
    exchange.rate = RateHeaders::parse(headers);
    exchange.date = http::date(headers);
}

fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::POST => "POST",
        _ => "request",
    }
}

/// Turns "there is no such thing" into `None`.
pub(super) fn found<T>(result: Result<T, OktaError>) -> Result<Option<T>, OktaError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind == OktaErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use mockito::{Matcher, Server};
    use reqwest::header::HeaderMap;
    use secrecy::SecretString;
    use serde_json::json;

    use super::*;
    use crate::model::outcome::{Outcome, Reason};
    use crate::okta::auth::Credential;
    use crate::okta::rate::Wait;
    use crate::okta::testing::{TOKEN, answers, client, client_within, error_body, writes_and_hangs_up};

    fn path() -> ApiPath {
        ApiPath::new(["api", "v1", "groups", "g", "users", "u"]).unwrap()
    }

    async fn delete(client: &OktaClient) -> OktaError {
        client.send(Method::DELETE, &path(), &[("secret", "in-the-query")], None).await.unwrap_err()
    }

    /// What one answer to a changing request means.
    async fn check(status: usize, code: &str, kind: OktaErrorKind, outcome: &str) {
        let mut server = Server::new_async().await;
        server
            .mock("DELETE", "/api/v1/groups/g/users/u")
            .match_query(Matcher::Any)
            .with_status(status)
            .with_header("x-okta-request-id", "req-1")
            .with_body(error_body(code, "Okta's\u{1b}[31m words"))
            .create_async()
            .await;
        let error = delete(&client(&server.url())).await;
        assert_eq!(error.kind, kind, "{status} {code}");
        let shown = format!("{:?}", error.to_outcome(true));
        assert!(shown.starts_with(outcome), "{status} {code}: {shown}");
        let text = format!("{error} {error:?} {shown}");
        assert!(text.contains("DELETE /api/v1/groups/g/users/u") && text.contains("req-1"), "{text}");
        assert!(!text.contains(TOKEN) && !text.contains("in-the-query") && !text.contains('\u{1b}'), "{text}");
    }

    #[tokio::test]
    async fn every_status_has_its_meaning() {
        use OktaErrorKind as K;
        check(400, "E0000001", K::BadRequest, "Permanent(Failure { reason: Rejected").await;
        check(401, "E0000011", K::Unauthorized, "Transient(Failure { reason: Unauthorized").await;
        check(401, "E0000015", K::FeatureNotEnabled, "Permanent(Failure { reason: Forbidden").await;
        check(403, "E0000006", K::Forbidden, "Permanent(Failure { reason: Forbidden").await;
        check(403, "E0000005", K::Forbidden, "Permanent(Failure { reason: Forbidden").await;
        check(403, "E0000046", K::GrantedByGroup, "Permanent(Failure { reason: GrantedByGroup").await;
        check(403, "E0000038", K::WrongStatus, "Permanent(Failure { reason: Conflict").await;
        check(404, "E0000007", K::NotFound, "Permanent(Failure { reason: NotFound").await;
        check(423, "E0000239", K::Server, "Transient(Failure { reason: ServiceError").await;
        check(500, "E0000009", K::Server, "Unknown(Failure { reason: ServiceError").await;
        check(502, "", K::Server, "Unknown(Failure { reason: ServiceError").await;
        check(503, "E0000010", K::Server, "Transient(Failure { reason: ServiceError").await;
        check(302, "", K::BadAnswer, "Permanent(Failure { reason: BadAnswer").await;
        // No rate headers: a whole window.
        let wait = K::RateLimited(Wait::Until(Duration::from_secs(60)));
        check(429, "E0000047", wait, "RetryAfter(60s, Failure { reason: RateLimited").await;
    }

    #[tokio::test]
    async fn a_429_is_waited_out_by_its_own_headers() {
        for (limit, expected) in [("50", "RetryAfter(9s"), ("0", "Transient(")] {
            let mut server = Server::new_async().await;
            server
                .mock("DELETE", Matcher::Any)
                .with_status(429)
                .with_header("date", "Thu, 11 Sep 2025 16:22:30 GMT")
                .with_header("x-rate-limit-limit", limit)
                .with_header("x-rate-limit-remaining", "0")
                .with_header("x-rate-limit-reset", "1757607758")
                .create_async()
                .await;
            let error = delete(&client(&server.url())).await;
            assert!(format!("{:?}", error.to_outcome(true)).starts_with(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn what_the_share_has_no_room_for_does_not_leave_and_comes_back_later() {
        let mut server = Server::new_async().await;
        let mock = server
            .mock("DELETE", Matcher::Any)
            .with_header("date", "Thu, 11 Sep 2025 16:22:30 GMT")
            .with_header("x-rate-limit-limit", "2")
            .with_header("x-rate-limit-remaining", "1")
            .with_header("x-rate-limit-reset", "1757607790")
            .expect(1)
            .create_async()
            .await;
        let client = client(&server.url()).through(Gate::new(0.5));
        client.send(Method::DELETE, &path(), &[], None).await.unwrap();
        let error = delete(&client.with(Priority::Enrichment)).await;
        assert!(error.is_turned_away() && !error.to_string().contains("answered"), "{error}");
        assert!(matches!(error.to_outcome(true), Outcome::RetryAfter(wait, _) if wait.as_secs() >= 59), "{error}");
        mock.assert_async().await;
    }

    #[tokio::test]
    async fn a_missing_right_is_named() {
        for (method, segments, scope) in [
            (Method::GET, ["api", "v1", "logs", "x", "x"], "okta.logs.read"),
            (Method::PUT, ["api", "v1", "users", "u", "risk"], "okta.userRisk.manage"),
            (Method::DELETE, ["api", "v1", "users", "u", "sessions"], "okta.users.manage"),
            (Method::GET, ["api", "v1", "users", "u", "groups"], "okta.users.read"),
            (Method::PUT, ["api", "v1", "groups", "g", "users"], "okta.groups.manage"),
            (Method::GET, ["api", "v1", "apps", "a", "groups"], "okta.apps.read"),
        ] {
            let mut server = Server::new_async().await;
            let body = error_body("E0000006", "You do not have permission");
            server.mock(method.as_str(), Matcher::Any).with_status(403).with_body(body).create_async().await;
            let path = ApiPath::new(segments).unwrap();
            let error = client(&server.url()).send(method, &path, &[], None).await.unwrap_err();
            assert!(error.to_string().contains(scope), "{error}");
        }
    }

    #[tokio::test]
    async fn a_request_that_may_have_arrived_is_unknown_and_one_that_did_not_leave_is_not() {
        let (url, task) = writes_and_hangs_up(b"").await;
        let lost = delete(&client(&url)).await;
        assert_eq!(lost.kind, OktaErrorKind::ConnectionLost);
        assert!(matches!(lost.to_outcome(true), Outcome::Unknown(_)));
        assert!(matches!(lost.to_outcome(false), Outcome::Transient(_)));
        task.abort();
        let _ = task.await;
        let refused = delete(&client(&url)).await;
        assert_eq!(refused.kind, OktaErrorKind::Connect);
        assert!(matches!(refused.to_outcome(true), Outcome::Transient(_)));

        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let late = delete(&client_within(&url, Duration::from_millis(100))).await;
        assert_eq!(late.kind, OktaErrorKind::Timeout);
        assert!(matches!(late.to_outcome(true), Outcome::Unknown(_)));
        for error in [lost, refused, late] {
            let text = format!("{error} {error:?} {}", error.to_failure());
            assert!(!text.contains(TOKEN) && !text.contains("in-the-query"), "{text}");
        }
    }

    #[tokio::test]
    async fn what_is_no_json_is_a_bad_answer_and_its_text_is_not_repeated() {
        let mut server = Server::new_async().await;
        server.mock("GET", Matcher::Any).with_body("<html>private words</html>").create_async().await;
        let answer = client(&server.url()).get(&path(), &[]).await.unwrap();
        let error = answer.json::<Vec<String>>().unwrap_err();
        assert_eq!(error.reason(), Reason::BadAnswer);
        assert!(!error.to_failure().to_string().contains("private"));
    }

    #[tokio::test]
    async fn an_oversized_object_is_a_bad_answer() {
        let mut server = Server::new_async().await;
        server.mock("GET", Matcher::Any).with_body(vec![b' '; MAX_BODY + 1]).create_async().await;
        let error = client(&server.url()).get(&path(), &[]).await.unwrap_err();
        assert_eq!(error.kind, OktaErrorKind::BadAnswer);
    }

    #[tokio::test]
    async fn the_status_decides_a_change_and_the_whole_answer_decides_a_read() {
        let (url, task) = writes_and_hangs_up(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{").await;
        let client = client(&url);
        assert!(client.send(Method::PUT, &path(), &[], None).await.is_ok());
        let error = client.get(&path(), &[]).await.unwrap_err();
        assert_eq!(error.kind, OktaErrorKind::ConnectionLost);
        task.abort();
    }

    #[tokio::test]
    async fn a_page_of_a_proxy_is_no_answer_to_a_change() {
        let mut server = Server::new_async().await;
        let page = server.mock("DELETE", Matcher::Any).with_header("content-type", " Text/HTML; charset=utf-8");
        page.with_body("<html>please sign in</html>").create_async().await;
        let error = delete(&client(&server.url())).await;
        assert_eq!(error.kind, OktaErrorKind::BadAnswer);
        assert!(matches!(error.to_outcome(true), Outcome::Unknown(_)));
    }

    #[tokio::test]
    async fn lists_are_followed_to_their_end_and_never_to_another_host() {
        let mut server = Server::new_async().await;
        let path = ApiPath::new(["list"]).unwrap();
        let base = server.url();
        let page = |after: &'static str| Matcher::Regex(format!("^after={after}$"));
        let first = server.mock("GET", "/list").with_body("[1,2]");
        first.with_header("link", &format!("<{base}/list?after=a,1>; rel=\"next\"")).create_async().await;
        server.mock("GET", "/list").match_query(page("a,1")).with_body("[3]").create_async().await;
        let client = client(&base);
        assert_eq!(client.all::<u32>(&path, &[], 10).await.unwrap(), [1, 2, 3]);
        assert_eq!(client.all::<u32>(&path, &[], 2).await.unwrap_err().kind, OktaErrorKind::BadAnswer);

        let foreign = ApiPath::new(["foreign"]).unwrap();
        let mock = server.mock("GET", "/foreign").with_body("[1]");
        mock.with_header("link", "<https://evil.example/list>; rel=\"next\"").create_async().await;
        let error = client.all::<u32>(&foreign, &[], 10).await.unwrap_err();
        assert_eq!(error.kind, OktaErrorKind::ForeignNext);
        assert!(!error.to_failure().to_string().contains("evil"));
    }

    /// Gives out `Bearer 0`, and after each refusal the next number.
    #[derive(Default)]
    struct Renewing(AtomicUsize);

    #[async_trait::async_trait]
    impl Credential for Renewing {
        async fn pass(&self, _: &Method, _: &Url) -> Result<Pass, AuthError> {
            let number = self.0.load(Ordering::SeqCst);
            let value = HeaderValue::from_str(&format!("Bearer {number}")).map_err(|_| AuthError::NotAHeader)?;
            Ok(Pass::plain(value))
        }

        async fn refused(&self, _: &Pass, _: &HeaderMap, tried: &mut Tried) -> Result<bool, AuthError> {
            if std::mem::replace(&mut tried.renewed, true) {
                return Ok(false);
            }
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(true)
        }
    }

    #[tokio::test]
    async fn a_refused_credential_is_renewed_once_and_no_more() {
        let mut server = Server::new_async().await;
        let url = Url::parse(&server.url()).unwrap();
        let settings = OktaSettings {
            org_url: url.clone(),
            admin_url: url,
            timeout: Duration::from_secs(5),
            network: Network::default(),
        };
        let client = OktaClient::new(&settings, Auth::new(Arc::new(Renewing::default()))).unwrap();
        let path = ApiPath::new(["x"]).unwrap();
        let refused = server.mock("GET", "/x").match_header("authorization", Matcher::Regex("Bearer [023]".to_owned()));
        let refused = refused.with_status(401).expect(4).create_async().await;
        let taken = server.mock("GET", "/x").match_header("authorization", "Bearer 1").create_async().await;
        client.get(&path, &[]).await.unwrap();
        taken.remove_async().await;
        let last = server.mock("GET", "/x").match_header("authorization", "Bearer 1").with_status(401);
        let last = last.expect(1).create_async().await;
        assert_eq!(client.get(&path, &[]).await.unwrap_err().kind, OktaErrorKind::Unauthorized, "1, then 2");
        assert_eq!(client.get(&path, &[]).await.unwrap_err().kind, OktaErrorKind::Unauthorized, "2, then 3");
        last.assert_async().await;
        refused.assert_async().await;
    }

    #[tokio::test]
    async fn the_token_goes_out_as_a_header() {
        let mut server = Server::new_async().await;
        let mock = server.mock("GET", "/x").match_header("authorization", format!("SSWS {TOKEN}").as_str());
        let mock = mock.match_header("accept", "application/json").with_body("{}").create_async().await;
        let client = client(&server.url());
        client.get(&ApiPath::new(["x"]).unwrap(), &[]).await.unwrap();
        mock.assert_async().await;
        assert!(!format!("{client:?}").contains(TOKEN));
    }

    #[tokio::test]
    async fn a_body_is_sent_as_json() {
        let mut server = Server::new_async().await;
        let body = json!({"riskLevel": "HIGH"});
        let mock = server.mock("PUT", "/x").match_body(Matcher::Json(body.clone())).create_async().await;
        client(&server.url()).send(Method::PUT, &ApiPath::new(["x"]).unwrap(), &[], Some(&body)).await.unwrap();
        mock.assert_async().await;
        answers(&mut server, "GET", "/y", 200, &json!({"a": 1})).await;
        let answer = client(&server.url()).get(&ApiPath::new(["y"]).unwrap(), &[]).await.unwrap();
        assert_eq!(answer.json::<Value>().unwrap(), json!({"a": 1}));
        assert!(answer.exchange.date.is_some(), "every answer has Okta's clock");
    }

    #[test]
    fn only_a_bare_https_address_is_an_org() {
        for (org, good) in [
            ("https://example.okta.com", true),
            ("http://127.0.0.1:8080", true),
            ("http://example.okta.com", false),
            ("https://example.okta.com/path", false),
            ("https://user@example.okta.com", false),
            ("ftp://example.okta.com", false),
        ] {
            let settings = OktaSettings {
                org_url: Url::parse(org).unwrap(),
                admin_url: Url::parse("https://example-admin.okta.com").unwrap(),
                timeout: Duration::from_secs(1),
                network: Network::default(),
            };
            let auth = Auth::ssws(&SecretString::from(TOKEN)).unwrap();
            assert_eq!(OktaClient::new(&settings, auth).is_ok(), good, "{org}");
        }
    }
}
