//! Reading the System Log. Okta's System Log query guide calls a query without `until`, in ascending order, a polling
//! query: complete, in the order of persistence, with a next page that is always there.

use std::collections::BTreeSet;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, Response};
use serde::Deserialize;
use url::Url;

use super::client::{Head, OktaClient};
use super::error::{Exchange, OktaError, OktaErrorKind};
use super::page::check_origin;
use super::path::ApiPath;
use crate::http::{self, BodyError};

/// The most bytes of a page, decompressed. A thousand events have some 4 MiB.
const MAX_PAGE: usize = 32 * 1024 * 1024;

/// How far back Okta keeps the log.
pub const RETENTION: SignedDuration = SignedDuration::from_hours(90 * 24);

/// A query that starts a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// Where it starts.
    pub since: Timestamp,
    /// Where it ends; `None` makes it a polling query.
    pub until: Option<Timestamp>,
    /// The server-side filter, see [`filter_for`].
    pub filter: Option<String>,
    /// Events per page, 1 to 1000.
    pub limit: u32,
}

/// The filter for some event types, or `None` when they are none or more than `max`: then the filter is applied here.
pub fn filter_for(types: &BTreeSet<String>, max: usize) -> Option<String> {
    if types.is_empty() || types.len() > max {
        return None;
    }
    // String literals of a filter are JSON strings (Okta API reference, "Filter").
    let terms: Vec<String> =
        types.iter().map(|name| format!("eventType eq {}", serde_json::Value::from(name.as_str()))).collect();
    Some(terms.join(" or "))
}

/// How many records to ask for next, when `limit` were asked for and at most `wanted` ever are: half as many after a page
/// that was too large (`size` is `None`), never less than one; twice as many again after one with room to spare.
pub fn next_limit(limit: u32, wanted: u32, size: Option<usize>) -> u32 {
    match size {
        None => (limit / 2).max(1),
        Some(size) if size < MAX_PAGE / 4 => limit.saturating_mul(2).min(wanted),
        Some(_) => limit,
    }
}

/// A page's URL with another `limit`, and otherwise verbatim. The cursor says where a page begins, `limit` how long it is
/// (Okta API reference, "List all System Log events").
pub fn with_limit(url: &str, limit: u32) -> String {
    let Some((before, query)) = url.split_once('?') else { return format!("{url}?limit={limit}") };
    let wanted = format!("limit={limit}");
    let is_limit = |term: &&str| term.starts_with("limit=");
    let mut terms: Vec<&str> = query.split('&').collect();
    match terms.iter_mut().find(|term| is_limit(term)) {
        Some(term) => *term = &wanted,
        None => terms.push(&wanted),
    }
    format!("{before}?{}", terms.join("&"))
}

/// Moves a start that lies before Okta's retention, or after Okta's now, to where the log is; says whether it did.
pub fn clamp_since(since: Timestamp, okta_now: Timestamp) -> (Timestamp, bool) {
    let oldest = okta_now.checked_sub(RETENTION).unwrap_or(Timestamp::MIN);
    let clamped = since.clamp(oldest, okta_now);
    (clamped, clamped != since)
}

/// A page whose headers are in and whose body is still to be read, so that the next one can be asked for already.
#[derive(Debug)]
pub struct PageHead {
    /// The next page, verbatim, its origin checked. A polling query always has one; if not, the URL just used stays.
    pub next: Option<String>,
    /// Okta's clock.
    pub date: Timestamp,
    /// The events.
    pub body: PageBody,
}

/// The events of a page, still on their way.
pub struct PageBody {
    response: Response,
    exchange: Exchange,
}

impl PageBody {
    /// Reads the JSON array, of at most 32 MiB; a longer one is [`OktaErrorKind::PageTooLarge`].
    pub async fn read(self) -> Result<Vec<u8>, OktaError> {
        http::read_bounded(self.response, MAX_PAGE).await.map_err(|error| {
            let too_large = matches!(error, BodyError::TooLarge { .. });
            let mut error = OktaError::from_body(self.exchange, error);
            if too_large {
                error.kind = OktaErrorKind::PageTooLarge;
            }
            error
        })
    }
}

impl fmt::Debug for PageBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageBody").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}

impl OktaClient {
    /// The URL of the first page of a query.
    pub fn logs_url(&self, query: &LogQuery) -> Result<String, OktaError> {
        let since = timestamp(query.since);
        let until = query.until.map(timestamp);
        let limit = query.limit.clamp(1, 1000).to_string();
        let mut pairs = vec![("since", since.as_str()), ("sortOrder", "ASCENDING"), ("limit", limit.as_str())];
        if let Some(until) = &until {
            pairs.push(("until", until));
        }
        if let Some(filter) = &query.filter {
            pairs.push(("filter", filter));
        }
        Ok(ApiPath::new(["api", "v1", "logs"])?.url(&self.org_url, &pairs).into())
    }

    /// When the newest event of these types was published since a moment; `None` when there is none, or none that the
    /// credential may see.
    pub async fn newest_event(
        &self,
        types: &BTreeSet<String>,
        since: Timestamp,
    ) -> Result<Option<Timestamp>, OktaError> {
        #[derive(Deserialize)]
        struct Published {
            published: Timestamp,
        }
        let since = timestamp(since);
        let mut query = vec![("since", since.as_str()), ("sortOrder", "DESCENDING"), ("limit", "1")];
        let filter = filter_for(types, usize::MAX);
        if let Some(filter) = &filter {
            query.push(("filter", filter));
        }
        let answer = self.get(&ApiPath::new(["api", "v1", "logs"])?, &query).await?;
        Ok(answer.json::<Vec<Published>>()?.first().map(|event| event.published))
    }

    /// Asks for a page: the first one by [`OktaClient::logs_url`], every other by the `next` of the one before.
    ///
    /// A 400 for a `next` is [`OktaErrorKind::CursorRefused`]; for a first page with a filter it is
    /// [`OktaErrorKind::FilterRefused`].
    pub async fn fetch_page(&self, url: &str) -> Result<PageHead, OktaError> {
        let asked = Exchange { method: "GET", path: "/api/v1/logs".to_owned(), ..Exchange::default() };
        let url = check_origin(url, &self.org_url).map_err(|error| OktaError::foreign_next(asked, error))?;
        let Head { response, exchange, next } = match self.head(Method::GET, url.clone(), None).await {
            Ok(head) => head,
            Err(error) => return Err(refusal(error, &url)),
        };
        let Some(date) = exchange.date else {
            return Err(OktaError::bad_answer(exchange, "the answer has no Date, and the log is read by Okta's clock"));
        };
        Ok(PageHead { next, date, body: PageBody { response, exchange } })
    }
}

/// Says what a refused page URL means. The codes are those of the System Log query guide for a filter that cannot be
/// understood (E0000053) or is not supported (E0000031); a URL that is too long is the filter's fault as well.
fn refusal(mut error: OktaError, url: &Url) -> OktaError {
    let has = |name: &str| url.query_pairs().any(|(key, _)| key == name);
    let code = error.exchange.error_code.as_deref();
    match error.status() {
        Some(400) if has("after") => error.kind = OktaErrorKind::CursorRefused,
        Some(400) if has("filter") && matches!(code, Some("E0000053" | "E0000031")) => {
            error.kind = OktaErrorKind::FilterRefused;
        }
        Some(414 | 431) if has("filter") && !has("after") => error.kind = OktaErrorKind::FilterRefused,
        _ => {}
    }
    error
}

/// RFC 3339 with the milliseconds that Okta counts in.
fn timestamp(at: Timestamp) -> String {
    format!("{at:.3}")
}

#[cfg(test)]
mod tests {
    use mockito::{Matcher, Mock, Server, ServerGuard};

    use super::*;
    use crate::okta::testing::{TOKEN, client, error_body};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn query() -> LogQuery {
        let since = at("2026-08-24T10:15:02.102Z");
        LogQuery { since, until: None, filter: Some("eventType eq \"a&b\"".to_owned()), limit: 1000 }
    }

    fn types(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn page(server: &mut ServerGuard, status: usize) -> Mock {
        server.mock("GET", "/api/v1/logs").match_query(Matcher::Any).with_status(status)
    }

    #[test]
    fn a_polling_query_has_no_until_and_is_ascending() {
        let client = client("https://example.okta.com");
        let polling = client.logs_url(&query()).unwrap();
        assert_eq!(
            polling,
            "https://example.okta.com/api/v1/logs?since=2026-08-24T10%3A15%3A02.102Z&sortOrder=ASCENDING&limit=1000\
             &filter=eventType%20eq%20%22a%26b%22"
        );
        let bounded = LogQuery { until: Some(at("2026-08-25T00:00:00Z")), filter: None, limit: 5000, ..query() };
        let bounded = client.logs_url(&bounded).unwrap();
        assert!(bounded.ends_with("sortOrder=ASCENDING&limit=1000&until=2026-08-25T00%3A00%3A00.000Z"), "{bounded}");
    }

    #[test]
    fn a_filter_names_its_types_as_json_strings() {
        assert_eq!(filter_for(&types(&["b.c", "a"]), 2).unwrap(), r#"eventType eq "a" or eventType eq "b.c""#);
        assert_eq!(filter_for(&types(&["a\" or x pr or \"\\"]), 2).unwrap(), r#"eventType eq "a\" or x pr or \"\\""#);
        assert_eq!(filter_for(&types(&["a", "b", "c"]), 2), None);
        assert_eq!(filter_for(&types(&[]), 2), None);
    }

    #[test]
    fn a_start_is_moved_to_where_the_log_is() {
        let now = at("2026-08-24T00:00:00Z");
        let good = at("2026-08-01T00:00:00Z");
        assert_eq!(clamp_since(good, now), (good, false));
        assert_eq!(clamp_since(at("2020-01-01T00:00:00Z"), now), (at("2026-05-26T00:00:00Z"), true));
        assert_eq!(clamp_since(at("2026-08-24T00:00:01Z"), now), (now, true));
        assert_eq!(clamp_since(Timestamp::MIN, Timestamp::MIN), (Timestamp::MIN, false));
    }

    #[tokio::test]
    async fn a_page_gives_its_next_verbatim_with_oktas_clock_and_budget() {
        let mut server = Server::new_async().await;
        let next = format!("{}/api/v1/logs?after=1_1&filter=eventType+eq+\"a\"", server.url());
        page(&mut server, 200)
            .with_header("link", "<https://elsewhere.example/self>; rel=\"self\"")
            .with_header("link", &format!("<{next}>; rel=\"next\""))
            .with_header("date", "Thu, 11 Sep 2025 16:21:50 GMT")
            .with_header("x-rate-limit-limit", "120")
            .with_header("x-rate-limit-remaining", "119")
            .with_header("x-rate-limit-reset", "1757607758")
            .with_body("[{}]")
            .create_async()
            .await;
        let client = client(&server.url());
        let head = client.fetch_page(&client.logs_url(&query()).unwrap()).await.unwrap();
        assert_eq!(head.next, Some(next));
        assert_eq!(head.date, at("2025-09-11T16:21:50Z"));
        assert!(!format!("{head:?}").contains(TOKEN));
        assert_eq!(head.body.read().await.unwrap(), b"[{}]");
    }

    #[tokio::test]
    async fn a_next_at_another_origin_is_refused_before_anything_is_sent_there() {
        let mut server = Server::new_async().await;
        let mut other = Server::new_async().await;
        let never = other.mock("GET", Matcher::Any).expect(0).create_async().await;
        let foreign = format!("{}/api/v1/logs?after=1", other.url());
        page(&mut server, 200).with_header("link", &format!("<{foreign}>; rel=next")).create_async().await;
        let client = client(&server.url());
        let answered = client.fetch_page(&client.logs_url(&query()).unwrap()).await.unwrap_err();
        assert_eq!(answered.kind, OktaErrorKind::ForeignNext);
        let stored = client.fetch_page(&foreign).await.unwrap_err();
        assert_eq!(stored.kind, OktaErrorKind::ForeignNext);
        never.assert_async().await;
    }

    #[tokio::test]
    async fn a_page_that_is_too_large_is_not_read_to_its_end() {
        let mut server = Server::new_async().await;
        page(&mut server, 200).with_body(vec![b' '; MAX_PAGE + 1]).create_async().await;
        let client = client(&server.url());
        let head = client.fetch_page(&client.logs_url(&query()).unwrap()).await.unwrap();
        assert_eq!(head.body.read().await.unwrap_err().kind, OktaErrorKind::PageTooLarge);
    }

    #[test]
    fn a_page_that_is_too_large_is_halved_down_to_one_record_and_grows_again_with_room_to_spare() {
        let halved: Vec<u32> =
            std::iter::successors(Some(1000), |limit| Some(next_limit(*limit, 1000, None))).take(12).collect();
        assert_eq!(halved, [1000, 500, 250, 125, 62, 31, 15, 7, 3, 1, 1, 1]);
        assert_eq!(next_limit(500, 1000, Some(MAX_PAGE / 4)), 500, "twice as many might be too large again");
        assert_eq!(next_limit(300, 1000, Some(MAX_PAGE / 4 - 1)), 600);
        assert_eq!(next_limit(700, 1000, Some(0)), 1000);
        assert_eq!(next_limit(1000, 1000, Some(0)), 1000);
    }

    #[test]
    fn only_the_limit_of_a_page_url_is_replaced() {
        let check = |url: &str, expected: &str| assert_eq!(with_limit(url, 7), expected);
        let base = "https://x.okta.com/api/v1/logs";
        check(
            &format!("{base}?after=1_1&limit=1000&filter=a+eq+%22limit=9%22"),
            &format!("{base}?after=1_1&limit=7&filter=a+eq+%22limit=9%22"),
        );
        check(&format!("{base}?limit=7&after=1"), &format!("{base}?limit=7&after=1"));
        check(&format!("{base}?after=1"), &format!("{base}?after=1&limit=7"));
        check(base, &format!("{base}?limit=7"));
    }

    /// What a refusal of this URL means.
    async fn check(query: &str, status: usize, code: &str, expected: OktaErrorKind) {
        let mut server = Server::new_async().await;
        page(&mut server, status).with_body(error_body(code, "whatever")).create_async().await;
        let url = format!("{}/api/v1/logs?{query}", server.url());
        let error = client(&server.url()).fetch_page(&url).await.unwrap_err();
        assert_eq!(error.kind, expected, "{query} {status} {code}");
        assert!(error.to_string().contains("GET /api/v1/logs"), "{error}");
    }

    #[tokio::test]
    async fn a_refused_cursor_and_a_refused_filter_are_told_apart() {
        use OktaErrorKind as K;
        check("after=1&filter=x", 400, "E0000031", K::CursorRefused).await;
        check("after=1", 400, "E0000001", K::CursorRefused).await;
        check("since=x&filter=y", 400, "E0000053", K::FilterRefused).await;
        check("since=x&filter=y", 400, "E0000031", K::FilterRefused).await;
        check("since=x&filter=y", 414, "", K::FilterRefused).await;
        check("since=x&filter=y", 400, "E0000001", K::BadRequest).await;
        check("since=x", 400, "E0000053", K::BadRequest).await;
        check("since=x&filter=y", 500, "E0000053", K::Server).await;
        check("after=1", 401, "E0000011", K::Unauthorized).await;
    }
}
