//! One exchange with a service that is not Okta, and what its failure means for the attempt.

use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{Client, RequestBuilder, StatusCode};
use url::Url;

use crate::http::{self, BodyError, Trouble};
use crate::model::outcome::{Failure, Outcome, Reason};

/// The largest answer that is read, in bytes; a record of one of these services is a few kilobytes.
pub(super) const MAX_ANSWER: usize = 1024 * 1024;

/// Whether a request would leave something behind at the service, had it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sends {
    /// A look-up, or a request for a token.
    Reading,
    /// The request that makes the effect.
    Changing,
}

impl Sends {
    /// The outcome when the request left and nobody knows what became of it.
    pub(super) fn lost(self, reason: Reason, detail: impl AsRef<str>) -> Outcome {
        http::after_send(self.is_changing(), Failure::new(reason, detail))
    }

    fn is_changing(self) -> bool {
        self == Self::Changing
    }
}

/// A whole answer.
pub(super) struct Answer {
    /// Its status.
    pub(super) status: StatusCode,
    /// Its headers.
    pub(super) headers: HeaderMap,
    /// Its body; empty when that of a refusal could not be read, because the status says enough.
    pub(super) body: Vec<u8>,
    /// Whether the body repeats the credential of the request; then nothing of it may be quoted.
    pub(super) repeats_credential: bool,
}

impl Answer {
    /// Whether the service says that it is HTML.
    pub(super) fn is_html(&self) -> bool {
        http::is_html(&self.headers)
    }
}

/// Sends one request and reads its answer. `what` names it in failures, such as "creating an incident at HOST". The
/// error of the client is not quoted: it holds the URL, which can be a secret.
pub(super) async fn exchange(request: RequestBuilder, what: &str, sends: Sends) -> Result<Answer, Outcome> {
    match exchange_up_to(request, what, sends, MAX_ANSWER).await? {
        (answer, Some(error)) if answer.status.is_success() => {
            Err(sends.lost(error.reason(), format!("{what}: {error}")))
        }
        (answer, _) => Ok(answer),
    }
}

/// The same with a bound of one's own, in bytes, for whom the status may say enough. With the answer why its body, which is
/// empty then, could not be read.
pub(super) async fn exchange_up_to(
    request: RequestBuilder,
    what: &str,
    sends: Sends,
    cap: usize,
) -> Result<(Answer, Option<BodyError>), Outcome> {
    let failed = |error: reqwest::Error| {
        sends.lost(http::classify_send_error(&error), format!("{what}: {}", Trouble::of(&error)))
    };
    let (client, request) = request.build_split();
    let request = request.map_err(failed)?;
    let credential = request.headers().get(AUTHORIZATION).cloned();
    let response = client.execute(request).await.map_err(failed)?;
    let (status, headers) = (response.status(), response.headers().clone());
    let (body, trouble) = match http::read_bounded(response, cap).await {
        Ok(body) => (body, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let repeats_credential = credential.is_some_and(|value| http::repeats_credential(&body, &value));
    Ok((Answer { status, headers, body, repeats_credential }, trouble))
}

/// Whether the host of an address can be reached: its root is asked for, with nothing of the address but scheme, host and
/// port, so that no webhook is called. Whatever it answers, it is there. Returns the host.
pub(super) async fn reach(http: &Client, address: &str, what: &str) -> Result<String, Failure> {
    let invalid = || Failure::new(Reason::BadParameters, format!("{what}: its address is not one"));
    let mut root = Url::parse(address).map_err(|_| invalid())?;
    root.set_path("/");
    root.set_query(None);
    let host = root.host_str().ok_or_else(invalid)?.to_owned();
    let answer = exchange(http.head(root), what, Sends::Reading).await.map_err(Outcome::into_failure)?;
    // A proxy that wants a password has answered in place of the host.
    if answer.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        return Err(refusal(&answer, what, "", Sends::Reading).into_failure());
    }
    Ok(host)
}

/// What an answer other than 2xx means. `said` is the service's own word for it, already cleared of secrets.
pub(super) fn refusal(answer: &Answer, what: &str, said: &str, sends: Sends) -> Outcome {
    let status = answer.status.as_u16();
    let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
    let remedy = match status {
        300..=399 => "; a redirect is never followed, so check the address in the configuration",
        401 => "; check the credentials in the configuration",
        403 => "; give the account of the configuration the right to do this",
        429 => "; the rate limit of the service is reached",
        _ => "",
    };
    let failure = Failure::new(http::reason_of_status(status), format!("{what}: answered {status}{said}{remedy}"));
    if status == 401 {
        return unauthorized(failure);
    }
    http::after_status(sends.is_changing(), status, http::retry_after(&answer.headers), failure)
}

/// Our credentials were refused: nothing was done, and an operator can put it right, so the action waits for him as long
/// as its retries last.
pub(super) fn unauthorized(failure: Failure) -> Outcome {
    Outcome::Transient(Failure { reason: Reason::Unauthorized, ..failure })
}
