//! What every outbound HTTP client here has in common: how it is built, how much of an answer it reads, and what a
//! failure says about whether the request arrived.

pub mod inside;
pub mod network;
pub mod pem;
pub mod proxy;
pub mod trouble;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, ClientBuilder, Response, Url};
use thiserror::Error;

use crate::model::outcome::{Failure, Outcome, Reason};

pub use inside::Inside;
pub use network::Network;
pub use trouble::{Trouble, TroubleKind};

/// How long making a connection may take, TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest pause that a service may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(3600);

/// Builds a client for the service at `base`, which has its section of this name in the configuration; `timeout` bounds one
/// request from its start to the end of the body, and making a connection takes at most ten seconds of it.
///
/// Redirects are never followed: a token must not travel to where an answer points. TLS is 1.2 or 1.3.
pub fn client(section: &str, base: &Url, timeout: Duration, network: &Network) -> Result<Client, ClientError> {
    Ok(builder(section, base, timeout, network).and_then(ClientBuilder::build)?)
}

/// The same for a service whose address may lead only to where everybody may go, and to what `inside` admits. A name is
/// judged by the addresses that are really connected to, each time it is asked for, so that a name service that changes its
/// answer gains nothing. A proxy looks names up by itself; then only an address that stands in `base` can be judged.
///
/// # Errors
/// When `base` is itself an address that is not admitted, or the client cannot be built.
pub fn client_within(
    section: &str,
    base: &Url,
    timeout: Duration,
    network: &Network,
    inside: &Inside,
) -> Result<Client, ClientError> {
    if let Some(address) = inside.refused(base) {
        return Err(ClientError::Private(address));
    }
    let mut builder = builder(section, base, timeout, network)?;
    if matches!(network.way_to(base), proxy::Way::Direct) {
        builder = builder.dns_resolver(Arc::new(inside.names(trouble::SystemNames)));
    }
    Ok(builder.build()?)
}

fn builder(section: &str, base: &Url, timeout: Duration, network: &Network) -> Result<ClientBuilder, reqwest::Error> {
    let builder = Client::builder()
        .user_agent(concat!("okta-responder/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .timeout(timeout)
        .redirect(reqwest::redirect::Policy::none())
        .dns_resolver(Arc::new(trouble::SystemNames))
        .gzip(true)
        .pool_max_idle_per_host(4)
        .pool_idle_timeout(Duration::from_secs(50));
    network.lead(builder, section, base)
}

/// Whether a URL points to this machine; only then may it be plain http.
pub fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(is_loopback_host)
}

/// Whether a host name or address is this very machine. `localhost` counts: a resolver that sends it elsewhere is broken.
pub fn is_loopback_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// There is no HTTP client for a service.
#[derive(Debug, Error)]
pub enum ClientError {
    /// It could not be built.
    #[error(
        "the HTTP client could not be built; install the package `ca-certificates`, or name your own authorities with ca_file \
         in [network]"
    )]
    Build(#[from] reqwest::Error),
    /// The address is one that only some can reach, and nobody said that it is meant.
    #[error("{0} is no public address; if it is meant, add it to allow_private in the section of the service")]
    Private(IpAddr),
}

/// Reads the name of a header that an operator sets. What frames a request, names its host or carries credentials is the
/// daemon's own to set.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub fn own_header(name: &str) -> Result<HeaderName, String> {
    const OURS: [&str; 14] = [
        "authorization",
        "proxy-authorization",
        "cookie",
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "accept-encoding",
        "user-agent",
    ];
    let shown: String = name.chars().take(100).collect();
    let header =
        HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{shown}` is not the name of a header"))?;
    if OURS.contains(&header.as_str()) { Err(format!("`{shown}` is not set here")) } else { Ok(header) }
}

/// Reads a body of at most `cap` bytes, counted after decompression, and stops reading there.
pub async fn read_bounded(mut response: Response, cap: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(body),
            Ok(Some(chunk)) if body.len().saturating_add(chunk.len()) > cap => return Err(BodyError::TooLarge { cap }),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Err(error) if error.is_timeout() => return Err(BodyError::Timeout),
            Err(error) => return Err(BodyError::Broken(error.without_url())),
        }
    }
}

/// Whether a body repeats the credential of its request, as some proxies do; then nothing of it may be quoted. It is the
/// word after the scheme, as in `Bearer WORD`.
pub fn repeats_credential(body: &[u8], authorization: &HeaderValue) -> bool {
    let word = authorization.as_bytes().split(|byte| *byte == b' ').next_back().unwrap_or_default();
    !word.is_empty() && body.windows(word.len()).any(|window| window == word)
}

/// A body that was not read to its end.
#[derive(Debug, Error)]
pub enum BodyError {
    /// It is larger than anything this service should answer.
    #[error("the answer is larger than {cap} bytes")]
    TooLarge {
        /// The bound, in bytes.
        cap: usize,
    },
    /// The connection broke, or the encoding is wrong.
    #[error("the answer broke off")]
    Broken(#[source] reqwest::Error),
    /// It did not end in time.
    #[error("the answer did not end in time")]
    Timeout,
}

impl BodyError {
    /// The reason it is counted under.
    pub fn reason(&self) -> Reason {
        match self {
            Self::TooLarge { .. } => Reason::BadAnswer,
            Self::Broken(_) => Reason::ConnectionLost,
            Self::Timeout => Reason::Timeout,
        }
    }
}

/// What an error of `Client::execute` or `RequestBuilder::send` says about the request.
///
/// [`Reason::Connect`] means that it was certainly not taken: name resolution, TCP, a proxy or TLS failed.
/// [`Reason::BadParameters`] means that it could not even be built. After anything else it may have arrived.
pub fn classify_send_error(error: &reqwest::Error) -> Reason {
    match Trouble::of(error) {
        trouble if trouble.kind == TroubleKind::Unbuildable => Reason::BadParameters,
        trouble if trouble.is_before_request() => Reason::Connect,
        trouble if trouble.kind == TroubleKind::Timeout => Reason::Timeout,
        _ => Reason::ConnectionLost,
    }
}

/// The outcome of a request that brought no whole answer. `changing` says whether it was meant to change something.
pub fn after_send(changing: bool, failure: Failure) -> Outcome {
    match failure.reason {
        Reason::Connect => Outcome::Transient(failure),
        Reason::BadParameters => Outcome::Permanent(failure),
        _ if changing => Outcome::Unknown(failure),
        _ => Outcome::Transient(failure),
    }
}

/// The outcome of a request that was answered with a status that is no success. `pause` is what the service asks for.
///
/// 5xx leaves open whether a change was made (a gateway gave up, or the service fell over half-way), so it is `Unknown`
/// for a changing request; 503 is the exception, because it says that the request was not taken.
pub fn after_status(changing: bool, status: u16, pause: Option<Duration>, failure: Failure) -> Outcome {
    match (status, pause) {
        (429 | 503, Some(pause)) => Outcome::RetryAfter(pause, failure),
        (408 | 423 | 425 | 429 | 503, _) => Outcome::Transient(failure),
        (500.., _) if changing => Outcome::Unknown(failure),
        (500.., _) => Outcome::Transient(failure),
        _ => Outcome::Permanent(failure),
    }
}

/// The reason that a status that is no success is counted under.
pub fn reason_of_status(status: u16) -> Reason {
    match status {
        401 => Reason::Unauthorized,
        403 => Reason::Forbidden,
        404 | 410 => Reason::NotFound,
        409 | 412 | 423 => Reason::Conflict,
        429 => Reason::RateLimited,
        408 | 425 | 500.. => Reason::ServiceError,
        400..500 => Reason::Rejected,
        _ => Reason::BadAnswer,
    }
}

/// The pause asked for by `Retry-After`, in seconds or as a moment after the answer's own `Date`; 1 s to 1 h.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => u64::try_from(http_date(text)?.as_second().checked_sub(date(headers)?.as_second())?).unwrap_or(0),
    };
    Some(Duration::from_secs(seconds).clamp(Duration::from_secs(1), MAX_PAUSE))
}

/// Whether an answer says that it is HTML: a login page, a maintenance page, a proxy.
pub fn is_html(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(|value| value.as_bytes().trim_ascii_start());
    kind.and_then(|kind| kind.get(..9)).is_some_and(|start| start.eq_ignore_ascii_case(b"text/html"))
}

/// The `Date` of an answer: the service's clock.
pub fn date(headers: &HeaderMap) -> Option<Timestamp> {
    http_date(headers.get(DATE)?.to_str().ok()?)
}

fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;

    use base64::Engine as _;
    use reqwest::dns::{Addrs, Name, Resolve, Resolving};
    use reqwest::header::HeaderValue;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    async fn fetch(server: &mockito::Server) -> Response {
        let base = url(&server.url());
        client("okta", &base, 5 * S, &Network::default()).unwrap().get(base).send().await.unwrap()
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_cap_and_not_further() {
        let mut server = mockito::Server::new_async().await;
        server.mock("GET", "/").with_body("x".repeat(1000)).create_async().await;
        assert_eq!(read_bounded(fetch(&server).await, 1000).await.unwrap().len(), 1000);
        let error = read_bounded(fetch(&server).await, 999).await.unwrap_err();
        assert!(matches!(error, BodyError::TooLarge { cap: 999 }));
        assert_eq!(error.reason(), Reason::BadAnswer);
    }

    #[tokio::test]
    async fn the_cap_counts_what_comes_out_of_compression() {
        // 100,000 times the letter a.
        let packed = concat!(
            "H4sIAAAAAAACA+3BMQEAAADCoKzrX8IaHkABAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAArwaH+uIboIYBAA=="
        );
        let body = base64::engine::general_purpose::STANDARD.decode(packed).unwrap();
        assert!(body.len() < 1000);
        let mut server = mockito::Server::new_async().await;
        server.mock("GET", "/").with_header("content-encoding", "gzip").with_body(body).create_async().await;
        assert_eq!(read_bounded(fetch(&server).await, 100_000).await.unwrap().len(), 100_000);
        assert!(matches!(read_bounded(fetch(&server).await, 99_999).await, Err(BodyError::TooLarge { .. })));
    }

    #[tokio::test]
    async fn redirects_are_not_followed_and_the_user_agent_is_ours() {
        let mut server = mockito::Server::new_async().await;
        let elsewhere = server.mock("GET", "/elsewhere").expect(0).create_async().await;
        server
            .mock("GET", "/")
            .match_header("user-agent", concat!("okta-responder/", env!("CARGO_PKG_VERSION")))
            .with_status(302)
            .with_header("location", "/elsewhere")
            .create_async()
            .await;
        assert_eq!(fetch(&server).await.status(), 302);
        elsewhere.assert_async().await;
    }

    #[tokio::test]
    async fn only_a_failed_connection_certainly_sent_nothing() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = url(&format!("http://{}", listener.local_addr().unwrap()));
        let send = |timeout| {
            let client = client("okta", &base, timeout, &Network::default()).unwrap();
            let base = base.clone();
            async move { classify_send_error(&client.get(base).send().await.unwrap_err()) }
        };
        // Accepted by the kernel, never answered.
        assert_eq!(send(Duration::from_millis(100)).await, Reason::Timeout);
        let hang_up = tokio::spawn(async move {
            for _ in 0..2 {
                drop(listener.accept().await.unwrap());
            }
        });
        assert_eq!(send(5 * S).await, Reason::ConnectionLost);
        hang_up.await.unwrap();
        assert_eq!(send(5 * S).await, Reason::Connect);
    }

    /// A name service that knows nothing for so many questions, and then where everything is.
    struct Names {
        silent: AtomicUsize,
        address: SocketAddr,
    }

    impl Resolve for Names {
        fn resolve(&self, _: Name) -> Resolving {
            let silent = self.silent.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
            let address = self.address;
            Box::pin(async move {
                if silent {
                    return Err("no such name".into());
                }
                Ok(Box::new(std::iter::once(address)) as Addrs)
            })
        }
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_sends_nothing_and_is_asked_for_again_each_time() {
        let mut server = mockito::Server::new_async().await;
        let mock = server.mock("GET", "/").expect(1).create_async().await;
        let names = Names { silent: AtomicUsize::new(2), address: server.socket_address() };
        let base = url(&format!("http://org.invalid:{}", server.socket_address().port()));
        let client =
            builder("okta", &base, 5 * S, &Network::default()).unwrap().dns_resolver(Arc::new(names)).build().unwrap();
        for _ in 0..2 {
            let error = client.get(base.clone()).send().await.unwrap_err();
            assert_eq!(classify_send_error(&error), Reason::Connect);
        }
        assert_eq!(client.get(base).send().await.unwrap().status(), 200);
        mock.assert_async().await;
    }

    #[tokio::test]
    async fn a_body_that_trickles_is_given_up_when_the_time_of_the_whole_request_is_over() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = url(&format!("http://{}", listener.local_addr().unwrap()));
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            assert!(stream.read(&mut asked).await.unwrap() > 0);
            let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n[").await;
            while sent.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                sent = stream.write_all(b" ").await;
            }
        });
        let response = client("okta", &base, Duration::from_millis(500), &Network::default())
            .unwrap()
            .get(base)
            .send()
            .await
            .unwrap();
        let read = tokio::time::timeout(30 * S, read_bounded(response, 1000)).await.expect("it reads for ever");
        assert!(matches!(read, Err(BodyError::Timeout)), "{read:?}");
    }

    #[test]
    fn a_change_that_may_have_arrived_is_unknown_and_a_read_is_not() {
        let outcome = |changing, reason| after_send(changing, Failure::new(reason, ""));
        assert!(matches!(outcome(true, Reason::Connect), Outcome::Transient(_)));
        assert!(matches!(outcome(true, Reason::Timeout), Outcome::Unknown(_)));
        assert!(matches!(outcome(true, Reason::ConnectionLost), Outcome::Unknown(_)));
        assert!(matches!(outcome(false, Reason::Timeout), Outcome::Transient(_)));
        assert!(matches!(outcome(true, Reason::BadParameters), Outcome::Permanent(_)));
    }

    #[test]
    fn a_status_decides_the_outcome() {
        let outcome =
            |changing, status, pause| after_status(changing, status, pause, Failure::new(reason_of_status(status), ""));
        for status in [400, 401, 403, 404, 409, 302] {
            assert!(matches!(outcome(true, status, None), Outcome::Permanent(_)), "{status}");
        }
        for status in [500, 502, 504] {
            assert!(matches!(outcome(true, status, None), Outcome::Unknown(_)), "{status}");
            assert!(matches!(outcome(false, status, None), Outcome::Transient(_)), "{status}");
        }
        assert!(matches!(outcome(true, 503, None), Outcome::Transient(_)));
        assert!(matches!(outcome(true, 429, None), Outcome::Transient(_)));
        assert!(matches!(outcome(true, 429, Some(S)), Outcome::RetryAfter(S, _)));
    }

    #[test]
    fn retry_after_is_seconds_or_a_moment_by_the_services_clock() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), None);
        let mut with = |value: &'static str| {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
            headers.insert(DATE, HeaderValue::from_static("Thu, 11 Sep 2025 16:21:50 GMT"));
            retry_after(&headers)
        };
        assert_eq!(with("30"), Some(30 * S));
        assert_eq!(with("0"), Some(S));
        assert_eq!(with("99999999"), Some(3600 * S));
        assert_eq!(with("Thu, 11 Sep 2025 16:21:58 GMT"), Some(8 * S));
        assert_eq!(with("Thu, 11 Sep 2025 16:21:00 GMT"), Some(S));
        assert_eq!(with("soon"), None);
    }

    #[test]
    fn loopback_is_this_machine_only() {
        for (text, expected) in [
            ("http://127.0.0.1:8080", true),
            ("http://[::1]/", true),
            ("http://localhost", true),
            ("http://localhost.evil.net", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&url(text)), expected, "{text}");
        }
    }
}
