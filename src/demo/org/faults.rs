//! Scripted faults: what a service does wrong, for which request, and how often.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;
use tokio::time::timeout;

use super::TimedOut;
use super::effects::{Request as Seen, Service};
use super::okta::OktaError;
use super::wire::WireControl;
use super::world::World;

/// A rule: which requests it hits, how many of them, and what happens to those.
#[derive(Debug, Clone)]
pub struct Fault {
    service: Service,
    method: Option<String>,
    path: String,
    spared: u32,
    times: u32,
    what: Misbehaviour,
}

/// What happens to a request that a fault hits.
#[derive(Debug, Clone)]
pub enum Misbehaviour {
    /// Not processed; answered with this. Over SMTP the code and the first line of the body are the reply.
    Status {
        /// The status.
        code: u16,
        /// Headers beside the usual ones.
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
    },
    /// Not processed; the service's own form of 429. Okta says when the minute is over, the others `Retry-After`.
    RateLimited {
        /// How long until then.
        reset_in: Duration,
    },
    /// Not processed; Okta's 429 for too many requests at once, with a limit and a rest of 0.
    ConcurrencyLimited {
        /// Okta's guess of how long that lasts.
        reset_in: Duration,
    },
    /// Processed; half of the body is sent under the full `content-length`.
    TruncateBody,
    /// Not processed; the connection is closed without an answer.
    DropBefore,
    /// Processed; the connection is closed without an answer.
    DropAfter,
    /// Processed; the answer waits until it is released.
    Hold(Hold),
    /// Not processed; status 200 and a page of HTML, as from a captive portal or a sleeping instance.
    Html,
    /// Processed after a pause.
    Delay(Duration),
    /// The connection is closed without an answer at once, and the request is processed after a pause. Over SMTP there is
    /// no pause.
    DropThenProcess(Duration),
    /// Not processed; status 200 and a JSON body that never ends.
    EndlessBody,
    /// Processed; instead of the answer a body trickles in that never ends, a byte at a time.
    Drip,
    /// Not processed; status 302 to this URL.
    Redirect(String),
}

impl Misbehaviour {
    /// A bare status with a body.
    pub fn status(code: u16, body: &str) -> Self {
        Self::Status { code, headers: Vec::new(), body: body.to_owned() }
    }
}

impl Fault {
    /// Hits the next request to a service, whatever it is.
    pub fn new(service: Service, what: Misbehaviour) -> Self {
        Self { service, method: None, path: String::new(), spared: 0, times: 1, what }
    }

    /// Only this method, or SMTP verb (`MAIL`, `RCPT`, `DATA`; `DATA` is met when the whole message is there).
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only where path and query, as sent, contain this; over SMTP, where the argument does (for `DATA`: a recipient).
    #[must_use]
    pub fn path(mut self, part: &str) -> Self {
        self.path = part.to_owned();
        self
    }

    /// So many requests instead of one.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// Every request from now on.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(u32::MAX)
    }

    /// Lets so many matching requests pass first.
    #[must_use]
    pub fn sparing(mut self, spared: u32) -> Self {
        self.spared = spared;
        self
    }

    fn matches(&self, service: Service, method: &str, path: &str) -> bool {
        self.service == service
            && self.method.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
            && path.contains(&self.path)
    }
}

/// An answer that is being held back.
#[derive(Clone)]
pub struct Hold(Arc<HoldState>);

struct HoldState {
    held: watch::Sender<u32>,
    released: watch::Sender<bool>,
}

impl Hold {
    /// Holds every answer it meets until [`Hold::release`].
    #[expect(clippy::new_without_default, reason = "a hold is made on purpose, never by default")]
    pub fn new() -> Self {
        Self(Arc::new(HoldState { held: watch::Sender::new(0), released: watch::Sender::new(false) }))
    }

    /// Waits until a request has been processed and its answer is held.
    pub async fn held(&self, at_most: Duration) -> Result<(), TimedOut> {
        let mut held = self.0.held.subscribe();
        match timeout(at_most, held.wait_for(|count| *count > 0)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(TimedOut { waited: at_most, seen: "no answer was held".to_owned() }),
        }
    }

    /// Lets all held answers go, and those still to come.
    pub fn release(&self) {
        self.0.released.send_replace(true);
    }

    pub(super) async fn pass(&self) {
        self.0.held.send_modify(|count| *count += 1);
        let mut released = self.0.released.subscribe();
        // The sender lives in `self`, so this can only end by release.
        let _ = released.wait_for(|released| *released).await;
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("released", &*self.0.released.borrow()).finish_non_exhaustive()
    }
}

/// The rules that still have something to hit, oldest first.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What happens to this request. A rule that is used up is gone.
    pub(super) fn take(&mut self, service: Service, method: &str, path: &str) -> Option<Misbehaviour> {
        let matching = self.0.iter_mut().filter(|fault| fault.times > 0 && fault.matches(service, method, path));
        let mut hit = None;
        for fault in matching {
            if fault.spared > 0 {
                fault.spared -= 1;
                continue;
            }
            fault.times = if fault.times == u32::MAX { u32::MAX } else { fault.times - 1 };
            hit = Some(fault.what.clone());
            break;
        }
        self.0.retain(|fault| fault.times > 0);
        hit
    }
}

/// The world and which of its services a layer stands before.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) world: Arc<World>,
    pub(super) service: Service,
}

/// An answer that never left: the connection was cut instead.
#[derive(Debug, Clone, Copy)]
struct Unanswered;

/// The outermost layer: notes what came and what was answered.
pub(super) async fn note(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let header = |name: &str| {
        let value = request.headers().get(name)?.to_str().ok()?;
        Some((name.to_owned(), value.to_owned()))
    };
    let seen = Seen {
        at_ms: gate.world.at_ms(),
        service: gate.service,
        method: request.method().to_string(),
        path: target_of(&request),
        status: None,
        headers: ["user-agent", "accept", "content-type", "content-length"].into_iter().filter_map(header).collect(),
    };
    let number = gate.world.change(|inside| inside.journal.received(seen));
    let response = next.run(request).await;
    if response.extensions().get::<Unanswered>().is_none() {
        let status = response.status().as_u16();
        gate.world.change(|inside| inside.journal.answered(number, status));
    }
    response
}

/// The innermost layer: lets a request through, or does to it what the script says.
pub(super) async fn misbehave(
    State(gate): State<Gate>,
    ConnectInfo(wire): ConnectInfo<WireControl>,
    request: Request,
    next: Next,
) -> Response {
    let (method, path) = (request.method().to_string(), target_of(&request));
    let what = gate.world.read(|inside| inside.faults.take(gate.service, &method, &path));
    let Some(what) = what else { return next.run(request).await };
    match what {
        Misbehaviour::Status { code, headers, body } => scripted(code, headers, body),
        Misbehaviour::RateLimited { reset_in } => rate_limited(&gate, 60, reset_in),
        Misbehaviour::ConcurrencyLimited { reset_in } => rate_limited(&gate, 0, reset_in),
        Misbehaviour::Html => html(),
        Misbehaviour::Redirect(url) => scripted(302, vec![(LOCATION.to_string(), url)], String::new()),
        Misbehaviour::DropBefore => unanswered(&wire),
        Misbehaviour::DropAfter => {
            next.run(request).await;
            unanswered(&wire)
        }
        Misbehaviour::DropThenProcess(pause) => {
            let (parts, body) = request.into_parts();
            if let Ok(body) = axum::body::to_bytes(body, usize::MAX).await {
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    next.run(Request::from_parts(parts, Body::from(body))).await;
                });
            }
            unanswered(&wire)
        }
        Misbehaviour::EndlessBody => {
            wire.never_end();
            StatusCode::OK.into_response()
        }
        Misbehaviour::Drip => {
            next.run(request).await;
            wire.drip();
            StatusCode::OK.into_response()
        }
        Misbehaviour::TruncateBody => {
            let response = next.run(request).await;
            let length = response.body().size_hint().exact().unwrap_or_default();
            wire.cut_body_after(usize::try_from(length / 2).unwrap_or_default());
            response
        }
        Misbehaviour::Hold(hold) => {
            let response = next.run(request).await;
            hold.pass().await;
            response
        }
        Misbehaviour::Delay(pause) => {
            tokio::time::sleep(pause).await;
            next.run(request).await
        }
    }
}

fn unanswered(wire: &WireControl) -> Response {
    wire.cut_now();
    let mut response = StatusCode::OK.into_response();
    response.extensions_mut().insert(Unanswered);
    response
}

fn scripted(code: u16, headers: Vec<(String, String)>, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// What a sleeping developer instance and many a captive portal answer.
pub(super) fn html() -> Response {
    let page = "<html><head><title>Hibernating Instance</title></head><body>This instance is asleep.</body></html>";
    ([(CONTENT_TYPE, "text/html;charset=UTF-8")], page).into_response()
}

fn rate_limited(gate: &Gate, limit: u32, reset_in: Duration) -> Response {
    let seconds = i64::try_from(reset_in.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
    let (mut response, headers) = match gate.service {
        Service::Okta => {
            let reset = gate.world.clock.now().as_second().saturating_add(seconds);
            let headers = vec![
                ("x-rate-limit-limit", i64::from(limit)),
                ("x-rate-limit-remaining", 0),
                ("x-rate-limit-reset", reset),
            ];
            (OktaError::too_many_requests().into_response(), headers)
        }
        Service::ServiceNow => {
            let detail = format!("Rate limit of {limit} requests per hour for Table API exceeded");
            (super::servicenow::error(429, "Rate limit exceeded", &detail), vec![(RETRY_AFTER.as_str(), seconds)])
        }
        Service::Teams | Service::PagerDuty | Service::Jira | Service::ThirdParty => {
            (scripted(429, Vec::new(), String::new()), vec![(RETRY_AFTER.as_str(), seconds)])
        }
        Service::Slack | Service::Smtp => {
            let body = r#"{"ok":false,"error":"ratelimited"}"#;
            let json = vec![(CONTENT_TYPE.to_string(), "application/json".to_owned())];
            (scripted(429, json, body.to_owned()), vec![(RETRY_AFTER.as_str(), seconds)])
        }
    };
    for (name, value) in headers {
        if let Ok(name) = HeaderName::try_from(name) {
            response.headers_mut().insert(name, HeaderValue::from(value));
        }
    }
    response
}

fn target_of(request: &Request) -> String {
    request.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_hits_what_it_names_as_often_as_it_says_and_no_more() {
        let mut faults = Faults::default();
        faults.add(Fault::new(Service::Okta, Misbehaviour::Html).method("put").path("/groups/").sparing(1).times(2));
        let mut hit = |service, method, path| faults.take(service, method, path).is_some();
        assert!(!hit(Service::Okta, "PUT", "/api/v1/groups/g/users/u"), "the first is spared");
        assert!(!hit(Service::Okta, "GET", "/api/v1/groups/g"));
        assert!(!hit(Service::Slack, "PUT", "/api/v1/groups/g"));
        assert!(hit(Service::Okta, "PUT", "/api/v1/groups/g/users/u"));
        assert!(hit(Service::Okta, "PUT", "/api/v1/groups/g/users/u"));
        assert!(!hit(Service::Okta, "PUT", "/api/v1/groups/g/users/u"));
    }
}
