//! One request to Okta: sent with the credential, read within bounds, sorted when it fails.

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LINK};
use reqwest::{Client, Method, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;
use tracing::debug;
use url::Url;

use super::auth::Auth;
use super::error::{Exchange, OktaError, OktaErrorKind};
use super::groups::GroupCache;
use super::page::{check_origin, next_link};
use super::path::ApiPath;
use super::rate::RateHeaders;
use crate::http;

/// The most bytes of an object or of a page of objects.
const MAX_BODY: usize = 8 * 1024 * 1024;

/// The most bytes read of an error's body.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// Where the org is and how long a request may take.
#[derive(Debug, Clone)]
pub struct OktaSettings {
    /// `https://example.okta.com`; plain http only to loopback.
    pub org_url: Url,
    /// The admin console, for links that people follow.
    pub admin_url: Url,
    /// The bound on one request, from its start to the end of its body.
    pub timeout: Duration,
}

/// Speaks to one org.
#[derive(Debug)]
pub struct OktaClient {
    http: Client,
    pub(super) org_url: Url,
    admin_url: Url,
    auth: Auth,
    pub(super) group_ids: GroupCache,
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
        serde_json::from_slice(&self.body).map_err(|error| OktaError::from_json(self.exchange.clone(), error))
    }
}

impl OktaClient {
    /// Builds a client. Nothing is sent.
    pub fn new(settings: &OktaSettings, auth: Auth) -> Result<Self, OktaSetupError> {
        let org = &settings.org_url;
        let secure = org.scheme() == "https" || (org.scheme() == "http" && http::is_loopback(org));
        let bare = org.path() == "/" && org.query().is_none() && org.username().is_empty() && org.password().is_none();
        if !secure || !bare || org.host_str().is_none() {
            return Err(OktaSetupError::OrgUrl);
        }
        let http = http::client(org, settings.timeout).map_err(OktaSetupError::Http)?;
        let (org_url, admin_url) = (org.clone(), settings.admin_url.clone());
        Ok(Self { http, org_url, admin_url, auth, group_ids: GroupCache::default() })
    }

    /// The org's address.
    pub fn org_url(&self) -> &Url {
        &self.org_url
    }

    /// A page of the admin console, such as `["admin", "group", id]`. `None` when an id cannot stand in a path.
    pub fn admin_link<const N: usize>(&self, segments: [&str; N]) -> Option<String> {
        ApiPath::new(segments).ok().map(|path| path.url(&self.admin_url, &[]).into())
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
        match http::read_bounded(response, MAX_BODY).await {
            Ok(body) => Ok(Answer { exchange, next, body }),
            Err(_) if changing => Ok(Answer { exchange, next, body: Vec::new() }),
            Err(error) => Err(OktaError::from_body(exchange, error)),
        }
    }

    /// Sends a request and returns as soon as the headers of a success are in.
    pub(super) async fn head(&self, method: Method, url: Url, body: Option<&Value>) -> Result<Head, OktaError> {
        let mut exchange = self.attempt(&method, &url, body).await?;
        if exchange.1.status() == 401 && self.auth.refused().await {
            exchange = self.attempt(&method, &url, body).await?;
        }
        let (mut exchange, response) = exchange;
        read_headers(&mut exchange, response.headers());
        debug!(
            okta.method = exchange.method,
            okta.path = exchange.path,
            okta.status = exchange.status,
            okta.request_id = exchange.request_id,
            "Okta answered",
        );
        if !response.status().is_success() {
            let mut body = http::read_bounded(response, MAX_ERROR_BODY).await.unwrap_or_default();
            if self.auth.authorization().await.is_ok_and(|value| http::repeats_credential(&body, &value)) {
                body.clear();
            }
            return Err(OktaError::from_answer(exchange, &body));
        }
        let lines = response.headers().get_all(LINK).into_iter().filter_map(|line| line.to_str().ok());
        let next = next_link(lines).map(str::to_owned);
        match next.as_deref().map(|next| check_origin(next, &self.org_url)) {
            Some(Err(error)) => Err(OktaError::foreign_next(exchange, error)),
            _ => Ok(Head { response, exchange, next }),
        }
    }

    async fn attempt(
        &self,
        method: &Method,
        url: &Url,
        body: Option<&Value>,
    ) -> Result<(Exchange, Response), OktaError> {
        let mut exchange = Exchange { method: method_name(method), path: url.path().to_owned(), ..Exchange::default() };
        let authorization = match self.auth.authorization().await {
            Ok(value) => value,
            Err(error) => return Err(OktaError::no_credential(exchange, error)),
        };
        let request = self
            .http
            .request(method.clone(), url.clone())
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .header(AUTHORIZATION, authorization);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        match request.send().await {
            Ok(response) => {
                exchange.status = Some(response.status().as_u16());
                Ok((exchange, response))
            }
            Err(error) => Err(OktaError::from_send(exchange, error)),
        }
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

/// A successful answer whose body is still to be read.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) response: Response,
    pub(super) exchange: Exchange,
    pub(super) next: Option<String>,
}

fn read_headers(exchange: &mut Exchange, headers: &HeaderMap) {
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
