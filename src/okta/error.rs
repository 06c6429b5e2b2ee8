//! What can go wrong with a request to Okta, sorted by what there is to do about it.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use thiserror::Error;

use super::auth::AuthError;
use super::page::ForeignNext;
use super::path::PathError;
use super::rate::{RateHeaders, Wait};
use crate::http::{self, BodyError, Trouble};
use crate::model::outcome::{Failure, Outcome, Reason, Verdict};

/// What to do about a token that Okta refuses.
const ANOTHER_TOKEN: &str = "put a new one where `okta.token` points, or see to the service app";
/// The most characters kept of what Okta says.
const MAX_SUMMARY: usize = 300;

/// A request to Okta that did not succeed. It holds neither the token, nor a query, nor a whole body.
#[derive(Debug, Error)]
#[error("{}", Told { kind: &self.kind, exchange: &self.exchange, auth: self.auth() })]
pub struct OktaError {
    /// What it means.
    pub kind: OktaErrorKind,
    /// What was asked and answered.
    pub exchange: Box<Exchange>,
    #[source]
    source: Option<Cause>,
}

/// The meaning of a failed request. Sorted by status first, then by error code, never by Okta's words (System Log query
/// guide: the same code comes with 400 and with 500).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OktaErrorKind {
    /// 401: the token is wrong, expired or revoked.
    Unauthorized,
    /// 401 E0000015: the org does not have the feature.
    FeatureNotEnabled,
    /// 403: a scope or an admin role is missing.
    Forbidden,
    /// 403 E0000046: a group grants the access, so that the assignment cannot be taken away.
    GrantedByGroup,
    /// 403 E0000038: not in the state that the user is in.
    WrongStatus,
    /// 404: there is no such thing (any more).
    NotFound,
    /// 429.
    RateLimited(Wait),
    /// Another 4xx: the request is wrong.
    BadRequest,
    /// 400 for a stored page URL: the stream has to start again from a moment.
    CursorRefused,
    /// The filter of a query is refused: it has to be applied on this side.
    FilterRefused,
    /// 5xx, or 423: Okta cannot do it now.
    Server,
    /// No connection; nothing was taken.
    Connect,
    /// No answer in time; it may have arrived.
    Timeout,
    /// The connection broke after sending; it may have arrived.
    ConnectionLost,
    /// The answer is not what the API's contract says.
    BadAnswer,
    /// A page of the log is larger than what is read of one: fewer records have to be asked for.
    PageTooLarge,
    /// The next page lies at another origin.
    ForeignNext,
    /// No credential could be had, and a person has to do something about it; nothing was sent.
    NoCredential,
    /// No access token could be had for now; nothing was sent.
    NoTokenYet {
        /// Why.
        reason: Reason,
        /// How long the token endpoint asks to wait, if it does.
        wait: Option<Duration>,
    },
    /// An id or a name of ours cannot be asked for; nothing was sent.
    BadParameters,
}

impl OktaErrorKind {
    /// The wait that Okta asks for; `None` when it asks for none.
    pub fn wait(self) -> Option<Duration> {
        match self {
            Self::RateLimited(Wait::Until(wait)) => Some(wait),
            Self::NoTokenYet { wait, .. } => wait,
            _ => None,
        }
    }
}

/// What was asked, and what is known of the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchange {
    /// The method.
    pub method: &'static str,
    /// The path, without the query.
    pub path: String,
    /// The status, if there was an answer.
    pub status: Option<u16>,
    /// Okta's code, such as `E0000007`.
    pub error_code: Option<String>,
    /// Okta's sentence, or ours; bounded, without control characters.
    pub summary: Option<String>,
    /// `X-Okta-Request-Id`: what Okta's support asks for.
    pub request_id: Option<String>,
    /// The rate headers.
    pub rate: Option<RateHeaders>,
    /// The `Date` header: Okta's clock.
    pub date: Option<Timestamp>,
}

impl OktaError {
    /// An error about an exchange.
    pub(super) fn new(kind: OktaErrorKind, exchange: Exchange) -> Self {
        Self { kind, exchange: Box::new(exchange), source: None }
    }

    /// Sorts an answer whose status is no success; `body` is what could be read of it.
    pub(super) fn from_answer(mut exchange: Exchange, body: &[u8]) -> Self {
        let told: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
        let cause = told.causes.into_iter().map(|cause| cause.summary).find(|text| !text.is_empty());
        let summary = match cause {
            Some(cause) => format!("{} ({cause})", told.summary),
            None => told.summary,
        };
        exchange.error_code = Some(bounded(&told.code, 20)).filter(|code| !code.is_empty());
        exchange.summary = Some(bounded(&summary, MAX_SUMMARY)).filter(|text| !text.is_empty());
        Self::new(kind_of(&exchange), exchange)
    }

    /// A request that brought no answer.
    pub(super) fn from_send(exchange: Exchange, error: reqwest::Error) -> Self {
        let kind = match http::classify_send_error(&error) {
            Reason::Connect => OktaErrorKind::Connect,
            Reason::Timeout => OktaErrorKind::Timeout,
            Reason::BadParameters => OktaErrorKind::BadParameters,
            _ => OktaErrorKind::ConnectionLost,
        };
        let trouble = Trouble::of(&error);
        let source = Some(match kind {
            OktaErrorKind::Connect if trouble.is_known() => Cause::NoConnection { trouble, source: None },
            OktaErrorKind::Connect => Cause::NoConnection { trouble, source: Some(error.without_url()) },
            _ => Cause::Send(error.without_url()),
        });
        Self { kind, exchange: Box::new(exchange), source }
    }

    /// An answer whose body could not be read.
    pub(super) fn from_body(exchange: Exchange, error: BodyError) -> Self {
        let kind = match error {
            BodyError::TooLarge { .. } => OktaErrorKind::BadAnswer,
            BodyError::Timeout => OktaErrorKind::Timeout,
            BodyError::Broken(_) => OktaErrorKind::ConnectionLost,
        };
        Self { kind, exchange: Box::new(exchange), source: Some(Cause::Body(error)) }
    }

    /// An answer that is not JSON of the expected shape. The parser's message names a place and a type; the value that
    /// it may quote is short and stays out of `Display`.
    pub(super) fn from_json(exchange: Exchange, error: serde_json::Error) -> Self {
        let source = Some(Cause::Json(error));
        Self { kind: OktaErrorKind::BadAnswer, exchange: Box::new(exchange), source }
    }

    /// An answer that lacks something; `what` is a sentence.
    pub(crate) fn bad_answer(mut exchange: Exchange, what: &str) -> Self {
        exchange.summary = Some(what.to_owned());
        Self::new(OktaErrorKind::BadAnswer, exchange)
    }

    /// A next page at another origin.
    pub(super) fn foreign_next(exchange: Exchange, error: ForeignNext) -> Self {
        Self { kind: OktaErrorKind::ForeignNext, exchange: Box::new(exchange), source: Some(Cause::Foreign(error)) }
    }

    /// A request for which our share of the rate limit has no room now; it did not leave. `wait`: when it has.
    pub(super) fn turned_away(exchange: Exchange, wait: Duration) -> Self {
        Self::new(OktaErrorKind::RateLimited(Wait::Until(wait)), exchange)
    }

    /// Whether the request was held back for the sake of our share of the rate limit.
    pub fn is_turned_away(&self) -> bool {
        self.exchange.status.is_none() && matches!(self.kind, OktaErrorKind::RateLimited(_))
    }

    /// No credential.
    pub(super) fn no_credential(exchange: Exchange, error: AuthError) -> Self {
        let kind = match error.passing() {
            Some((reason, wait)) => OktaErrorKind::NoTokenYet { reason, wait },
            None => OktaErrorKind::NoCredential,
        };
        Self { kind, exchange: Box::new(exchange), source: Some(Cause::Auth(error)) }
    }

    /// The status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        self.exchange.status
    }

    /// Why there was no credential, if that is what went wrong.
    pub fn auth(&self) -> Option<&AuthError> {
        match &self.source {
            Some(Cause::Auth(error)) => Some(error),
            _ => None,
        }
    }

    /// Whether it stays so until a person does something: a credential that is refused, or a right that is missing.
    pub fn is_for_a_person(&self) -> bool {
        let passes = self.auth().is_some_and(|error| error.passing().is_some());
        !passes && matches!(self.reason(), Reason::Unauthorized | Reason::Forbidden)
    }

    /// What to do about it, where that stands in the words of [`OktaError::to_failure`] and can be told apart.
    pub fn remedy(&self) -> Option<String> {
        match self.kind {
            OktaErrorKind::Unauthorized => Some(ANOTHER_TOKEN.to_owned()),
            _ => self.auth().and_then(AuthError::remedy),
        }
    }

    /// What stays the same when the same thing goes wrong again, unlike the words, which name the request and the wait.
    pub fn gist(&self) -> String {
        let kind = match self.kind {
            OktaErrorKind::RateLimited(Wait::Until(_)) => OktaErrorKind::RateLimited(Wait::Until(Duration::ZERO)),
            OktaErrorKind::NoTokenYet { reason, .. } => OktaErrorKind::NoTokenYet { reason, wait: None },
            kind => kind,
        };
        let cause = match &self.source {
            Some(Cause::Auth(AuthError::Unreached { trouble, .. }) | Cause::NoConnection { trouble, .. }) => {
                format!("{trouble:?}")
            }
            Some(Cause::Auth(error)) => error.gist().to_owned(),
            _ => String::new(),
        };
        format!("{kind:?} {:?} {:?} {cause}", self.exchange.status, self.exchange.error_code)
    }

    /// The reason it is counted under.
    pub fn reason(&self) -> Reason {
        match self.kind {
            OktaErrorKind::Unauthorized | OktaErrorKind::NoCredential => Reason::Unauthorized,
            OktaErrorKind::NoTokenYet { reason, .. } => reason,
            OktaErrorKind::FeatureNotEnabled | OktaErrorKind::Forbidden => Reason::Forbidden,
            OktaErrorKind::GrantedByGroup => Reason::GrantedByGroup,
            OktaErrorKind::WrongStatus => Reason::Conflict,
            OktaErrorKind::NotFound => Reason::NotFound,
            OktaErrorKind::RateLimited(_) => Reason::RateLimited,
            OktaErrorKind::BadRequest | OktaErrorKind::CursorRefused | OktaErrorKind::FilterRefused => Reason::Rejected,
            OktaErrorKind::Server => Reason::ServiceError,
            OktaErrorKind::Connect => Reason::Connect,
            OktaErrorKind::Timeout => Reason::Timeout,
            OktaErrorKind::ConnectionLost => Reason::ConnectionLost,
            OktaErrorKind::BadAnswer | OktaErrorKind::PageTooLarge | OktaErrorKind::ForeignNext => Reason::BadAnswer,
            OktaErrorKind::BadParameters => Reason::BadParameters,
        }
    }

    /// The same in the words of a connector: message and causes in one bounded line.
    pub fn to_failure(&self) -> Failure {
        let mut text = self.to_string();
        let mut source = self.source();
        if self.exchange.path.is_empty() && self.auth().is_some() {
            source = source.and_then(|cause| cause.source());
        }
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Failure::new(self.reason(), text)
    }

    /// What the error means for an attempt. `changing` says whether the failed request was meant to change something;
    /// the reads before it are not.
    pub fn to_outcome(&self, changing: bool) -> Outcome {
        let failure = self.to_failure();
        match self.kind {
            OktaErrorKind::RateLimited(Wait::Until(wait)) => Outcome::RetryAfter(wait, failure),
            OktaErrorKind::RateLimited(Wait::Concurrency) => Outcome::Transient(failure),
            OktaErrorKind::NoTokenYet { wait: Some(wait), .. } => Outcome::RetryAfter(wait, failure),
            OktaErrorKind::NoTokenYet { wait: None, .. } => Outcome::Transient(failure),
            // Nothing was done, and an operator can put it right: the action waits for him as long as retries last.
            OktaErrorKind::Unauthorized | OktaErrorKind::NoCredential => Outcome::Transient(failure),
            OktaErrorKind::Connect | OktaErrorKind::Timeout | OktaErrorKind::ConnectionLost => {
                http::after_send(changing, failure)
            }
            OktaErrorKind::Server => http::after_status(changing, self.status().unwrap_or(500), None, failure),
            // Garbage under a good status says nothing about what was done; a proxy may have answered a read.
            OktaErrorKind::BadAnswer => match self.status() {
                Some(300..500) => Outcome::Permanent(failure),
                _ if changing => Outcome::Unknown(failure),
                _ => Outcome::Transient(failure),
            },
            _ => Outcome::Permanent(failure),
        }
    }
}

impl OktaError {
    /// What the error of a read means when it was made to settle a doubt: ask again, or, when asking will not help, let
    /// a person look.
    pub fn to_verdict(&self) -> Verdict {
        match self.to_outcome(false) {
            Outcome::Transient(failure) | Outcome::RetryAfter(_, failure) => Verdict::TryLater(failure),
            _ => Verdict::CannotTell,
        }
    }
}

impl From<PathError> for OktaError {
    fn from(error: PathError) -> Self {
        let source = Some(Cause::Path(error));
        Self { kind: OktaErrorKind::BadParameters, exchange: Box::default(), source }
    }
}

/// The cause underneath, hidden so that no caller depends on a library's type.
#[derive(Debug, Error)]
enum Cause {
    #[error("{trouble}")]
    NoConnection { trouble: Trouble, source: Option<reqwest::Error> },
    #[error(transparent)]
    Send(reqwest::Error),
    #[error(transparent)]
    Body(BodyError),
    #[error("the answer is not the JSON that was expected (line {}, column {})", .0.line(), .0.column())]
    Json(serde_json::Error),
    #[error(transparent)]
    Foreign(ForeignNext),
    #[error(transparent)]
    Auth(AuthError),
    #[error(transparent)]
    Path(PathError),
}

/// Okta's error body (Okta API reference, "Errors").
#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    #[serde(rename = "errorCode")]
    code: String,
    #[serde(rename = "errorSummary")]
    summary: String,
    #[serde(rename = "errorCauses")]
    causes: Vec<ErrorCause>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorCause {
    #[serde(rename = "errorSummary")]
    summary: String,
}

fn kind_of(exchange: &Exchange) -> OktaErrorKind {
    use OktaErrorKind as K;
    match (exchange.status.unwrap_or(0), exchange.error_code.as_deref()) {
        (401, Some("E0000015")) => K::FeatureNotEnabled,
        (401, _) => K::Unauthorized,
        (403, Some("E0000046")) => K::GrantedByGroup,
        (403, Some("E0000038")) => K::WrongStatus,
        (403, _) => K::Forbidden,
        (404 | 410, _) => K::NotFound,
        (429, _) => K::RateLimited(super::rate::wait_after_429(exchange.rate.as_ref(), exchange.date)),
        (408 | 423 | 425 | 500.., _) => K::Server,
        (400..500, _) => K::BadRequest,
        _ => K::BadAnswer,
    }
}

/// Others' words without control characters, and not too many of them.
pub(super) fn bounded(text: &str, max: usize) -> String {
    text.chars().take(max).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The sentence of an error: what was tried, what came back, what to do.
struct Told<'a> {
    kind: &'a OktaErrorKind,
    exchange: &'a Exchange,
    auth: Option<&'a AuthError>,
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use OktaErrorKind as K;
        let Exchange { method, path, status, error_code, summary, request_id, .. } = self.exchange;
        match self.auth {
            // Signing in is no request of its own: what kept it says everything.
            Some(auth) if path.is_empty() => return auth.fmt(f),
            _ if path.is_empty() => f.write_str("nothing was asked of Okta")?,
            _ => write!(f, "{method} {path}")?,
        }
        match self.kind {
            K::Connect => f.write_str(" did not leave for `okta.org_url`")?,
            K::Timeout => f.write_str(" was not answered in time; `okta.timeout` bounds it")?,
            K::ConnectionLost => f.write_str(" was not answered: the connection broke after sending")?,
            K::RateLimited(_) if status.is_none() => {
                f.write_str(" did not leave: our share of Okta's rate limit is used up")?
            }
            K::NoCredential | K::NoTokenYet { .. } => f.write_str(" did not leave")?,
            K::ForeignNext => f.write_str(" was answered with a page link that is not followed")?,
            K::BadParameters => {}
            _ => match status {
                Some(status) => write!(f, " was answered {status}")?,
                None => f.write_str(" was not answered as expected")?,
            },
        }
        if let Some(code) = error_code {
            write!(f, " {code}")?;
        }
        if let Some(summary) = summary {
            write!(f, " \"{summary}\"")?;
        }
        if let Some(id) = request_id {
            write!(f, " (request {id})")?;
        }
        match self.kind {
            K::Unauthorized => {
                write!(f, "; the token is wrong, expired or revoked; {ANOTHER_TOKEN}")
            }
            K::FeatureNotEnabled => f.write_str("; the org does not have this feature: ask Okta, or take the step out"),
            K::Forbidden => write!(f, "; {}", Needs { method, path }),
            K::GrantedByGroup => f.write_str("; a group grants this access: take the user out of the group instead"),
            K::WrongStatus => f.write_str("; the user's status does not allow it"),
            K::RateLimited(Wait::Until(wait)) if status.is_none() => {
                write!(f, "; it goes out in some {} s", wait.as_secs().saturating_add(1))
            }
            K::RateLimited(Wait::Until(wait)) => {
                write!(f, "; the rate limit opens again in {}", humantime::format_duration(*wait))
            }
            K::RateLimited(Wait::Concurrency) => f.write_str("; too many requests at once in this org"),
            K::CursorRefused => {
                f.write_str("; the stored cursor is lost: the stream starts again from the last good poll")
            }
            K::FilterRefused => f.write_str("; the filter is applied here instead"),
            K::BadAnswer if matches!(status, Some(300..400)) => {
                f.write_str("; `okta.org_url` is not the address of the org itself")
            }
            _ => Ok(()),
        }
    }
}

/// What a path needs: scope names from the Okta API reference, roles from its admin role documentation.
struct Needs<'a> {
    method: &'a str,
    path: &'a str,
}

impl fmt::Display for Needs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let segments: Vec<&str> = self.path.trim_start_matches('/').split('/').collect();
        let area = match segments.as_slice() {
            ["api", "v1", "logs", ..] => "logs",
            ["api", "v1", "users", _, "risk"] => "userRisk",
            ["api", "v1", "users", _, "roles"] => "roles",
            ["api", "v1", "users", ..] => "users",
            ["api", "v1", "groups", ..] => "groups",
            ["api", "v1", "apps", ..] => "apps",
            ["governance", "api", _, "security-access-reviews", ..] => "governance.securityAccessReviews.admin",
            ["governance", "api", _, "campaigns", ..] => "governance.accessCertifications",
            _ => return f.write_str("the token's owner lacks an admin role for it"),
        };
        let verb = if self.method == "GET" { "read" } else { "manage" };
        let role = match (area, verb) {
            ("logs", _) => {
                "reads the System Log (read-only administrator; super administrator for risk events without Identity Threat Protection)"
            }
            ("users" | "userRisk", "read") => "may see this user",
            ("users" | "userRisk", _) => {
                "may manage this user (never an administrator, unless it is super administrator)"
            }
            ("roles", _) => "may see admin roles (super administrator, or a custom role that can view roles)",
            ("groups", "read") => "may see this group",
            ("groups", _) => {
                "may manage the members of this group (a group with admin rights needs super administrator)"
            }
            ("governance.securityAccessReviews.admin", _) => {
                "may manage security access reviews (super administrator, or a custom role that can)"
            }
            ("governance.accessCertifications", _) => "may manage campaigns (access certifications administrator)",
            (_, "read") => "may see this app",
            _ => "may manage this app's assignments",
        };
        write!(
            f,
            "it needs the scope okta.{area}.{verb} (an API token has its owner's rights) and an admin role that {role}"
        )
    }
}
