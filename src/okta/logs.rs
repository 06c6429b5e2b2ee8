//! Reading the System Log. Okta's System Log query guide calls a query without `until`, in ascending order, a polling
//! query: complete, in the order of persistence, with a next page that is always there.

use std::collections::BTreeSet;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, Response};
use url::Url;

use super::client::{Head, OktaClient};
use super::error::{Exchange, OktaError, OktaErrorKind};
use super::page::check_origin;
use super::path::ApiPath;
use super::rate::RateHeaders;
use crate::http;

/// The most bytes of a page, decompressed. A thousand events have some 4 MiB; what is larger than this is no page.
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
    /// What the bucket of the log still grants, if Okta says so.
    pub rate: Option<RateHeaders>,
    /// The events.
    pub body: PageBody,
}

/// The events of a page, still on their way.
pub struct PageBody {
    response: Response,
    exchange: Exchange,
}

impl PageBody {
    /// Reads the JSON array, of at most 32 MiB.
    pub async fn read(self) -> Result<Vec<u8>, OktaError> {
        http::read_bounded(self.response, MAX_PAGE).await.map_err(|error| OktaError::from_body(self.exchange, error))
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
        Ok(PageHead { next, date, rate: exchange.rate, body: PageBody { response, exchange } })
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
