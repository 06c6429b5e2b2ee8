//! Issues in Jira, over the REST API of Cloud (version 3) and of Data Center (version 2).
//!
//! Jira has no uniqueness of its own, so an issue carries our key as a label and is looked up by it before it is created.
//! Three traps make that more than one request (Jira Cloud platform REST API, "Search for issues using JQL"):
//!
//! - The search lags behind: an issue that was just created is not found for a while. So a lost answer is looked into only
//!   after [`Connector::patience`], and issues that were created a moment ago are remembered here and read by their id.
//! - The search may be used by nobody in particular: where our token is refused, it can answer 200 with no issues. So the
//!   headers that tell who we are taken for are looked at, and nothing is called missing before Jira has said who we are.
//! - Labels are compared without regard to case, so what comes back is compared again.

mod issue;
mod probe;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::ACCEPT;
use reqwest::{Client, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use url::Url;

pub use probe::ProjectUse;

use issue::{Correlation, Found, Issue, IssueParams, Issues, NewIssue};

use super::secret::Held;
use super::wire::{self, Answer, Sends};
use super::{ActionKind, Call, Connector, Effect, Service, SetupError, cut, service_url, shape};
use crate::config::secret::LiveSecret;
use crate::config::{JiraConfig, JiraFlavor};
use crate::guard::Cleared;
use crate::http::{self, Network};
use crate::model::escape::Escape;
use crate::model::outcome::{Failure, Outcome, Reason, Receipt, Verdict};

/// `jira.issue.create`
pub static CREATE_ISSUE: ActionKind = ActionKind {
    name: "jira.issue.create",
    summary: "Creates an issue, or finds the open one of the same correlation",
    service: Service::Jira,
    effect: Effect::Keyed,
    changes_access: false,
    resets_risk: false,
    rights: &[],
    from_event: &[],
    check: |params| IssueParams::parse(params).map(drop),
    schema: shape::<IssueParams>,
    escape: |parameter| if parameter == "description" { Escape::Plain } else { Escape::Line },
    // Two events that share an issue must not look it up at the same time, or both would create it.
    lane: |params| {
        let params = IssueParams::parse(params).ok()?;
        Some(format!("jira.issue/{}/{}", params.project.trim(), params.correlation?.trim()))
    },
};

/// The most issues that a search is asked for: more than differ in the case of one label.
const MAX_FOUND: u32 = 50;

/// The most requests of one attempt, of which the last one creates.
const MOST_REQUESTS: u32 = 5;

/// One Jira and the account that writes to it.
#[derive(Debug)]
pub struct Jira {
    http: Client,
    base: Url,
    browse: Url,
    host: String,
    flavor: JiraFlavor,
    /// Without one the token is a bearer's.
    username: Option<String>,
    token: Held,
    timeout: Duration,
    search_lag: Duration,
    /// Nothing that was created by others before this is known here.
    since: Instant,
    /// What the search may not show yet.
    recent: Mutex<BTreeMap<Correlation, Recent>>,
}

/// An issue that was created here.
#[derive(Debug)]
struct Recent {
    id: String,
    /// From when on the search shows it.
    shown: Instant,
}

impl Jira {
    /// Takes the `[jira]` section and its secret. Nothing is sent.
    ///
    /// # Errors
    /// When an address is not an https URL (http only to loopback).
    pub fn new(config: &JiraConfig, token: LiveSecret, network: &Network) -> Result<Self, SetupError> {
        let section = Service::Jira.section();
        let base = service_url(section, "url", &config.url)?;
        let browse = config
            .browse_url
            .as_deref()
            .map_or_else(|| Ok(base.clone()), |url| service_url(section, "browse_url", url))?;
        let http = http::client(section, &base, config.timeout, network)
            .map_err(|source| SetupError::Client { section, source })?;
        Ok(Self {
            http,
            host: base.host_str().unwrap_or_default().to_owned(),
            base,
            browse,
            flavor: config.flavor,
            username: config.username.clone(),
            token: Held::new(Service::Jira, "token", token),
            timeout: config.timeout,
            search_lag: config.search_lag,
            since: Instant::now(),
            recent: Mutex::default(),
        })
    }

    /// Finds the newest issue that carries this very label. Changes nothing.
    async fn find(&self, jql: String, label: &str) -> Result<Found, Outcome> {
        let what = format!("looking up an issue at {}", self.host);
        let url = self.api(match self.flavor {
            JiraFlavor::Cloud => "search/jql",
            JiraFlavor::Server => "search",
        })?;
        let body = json!({"jql": jql, "maxResults": MAX_FOUND, "fields": Issue::FIELDS});
        let answer = self.exchange(|http| http.post(url.clone()).json(&body), &what, Sends::Reading).await?;
        let Issues { issues } = self.parse(&answer, &what, Sends::Reading)?;
        let is_empty = issues.is_empty();
        Ok(match issues.into_iter().find(|issue| issue.has(label)) {
            Some(issue) => Found::Issue(issue),
            None if is_empty => Found::Nothing,
            None => Found::Foreign,
        })
    }

    /// The open issue of a correlation, as Jira itself holds it and not as its search shows it.
    async fn find_open(&self, correlation: &Correlation) -> Result<Option<Issue>, Outcome> {
        if let Some(id) = self.remembered(correlation)
            && let Some(issue) = self.read(&id).await?.filter(|issue| issue.is_open())
        {
            return Ok(Some(issue));
        }
        match self.find(correlation.jql_of_open(), &correlation.label).await? {
            Found::Issue(found) => Ok(self.read(&found.id).await?.filter(|issue| issue.is_open())),
            Found::Nothing | Found::Foreign => {
                let shown = self.since + self.search_lag;
                match shown.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
                    None => Ok(None),
                    Some(rest) => Err(Outcome::RetryAfter(
                        rest.max(Duration::from_secs(1)),
                        Failure::new(
                            Reason::Conflict,
                            format!(
                                "looking up an issue at {}: what was created just before this daemon began may not be found \
                                 yet (`search_lag`); it is looked up again then",
                                self.host
                            ),
                        ),
                    )),
                }
            }
        }
    }

    /// Reads one issue by its id, which does not lag; `None` when it is not there any more.
    async fn read(&self, id: &str) -> Result<Option<Issue>, Outcome> {
        let what = format!("reading an issue at {}", self.host);
        let url = self.api(&format!("issue/{id}"))?;
        let query = [("fields", Issue::FIELDS.join(","))];
        match self.exchange(|http| http.get(url.clone()).query(&query), &what, Sends::Reading).await {
            Ok(answer) => self.parse(&answer, &what, Sends::Reading).map(Some),
            Err(Outcome::Permanent(failure)) if failure.reason == Reason::NotFound => Ok(None),
            Err(outcome) => Err(outcome),
        }
    }

    async fn create(&self, issue: &NewIssue) -> Outcome {
        let what = format!("creating an issue at {}", self.host);
        let made = async {
            let url = self.api("issue")?;
            let body = issue.body(self.flavor);
            let answer = self.exchange(|http| http.post(url.clone()).json(&body), &what, Sends::Changing).await?;
            let made: Issue = self.parse(&answer, &what, Sends::Changing)?;
            if made.id.is_empty() || made.key.is_empty() {
                let detail = format!("{what}: the answer names no issue");
                return Err(Sends::Changing.lost(Reason::BadAnswer, detail));
            }
            Ok(made)
        };
        match made.await {
            Ok(made) => {
                if let Some(correlation) = &issue.correlation {
                    self.remember(correlation.clone(), &made);
                }
                Outcome::Done(self.receipt(&made, None))
            }
            Err(outcome) => outcome,
        }
    }

    fn remember(&self, correlation: Correlation, issue: &Issue) {
        let now = Instant::now();
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|_, issue| now < issue.shown);
        recent.insert(correlation, Recent { id: issue.id.clone(), shown: now + self.search_lag });
    }

    fn remembered(&self, correlation: &Correlation) -> Option<String> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.get(correlation).map(|issue| issue.id.clone())
    }

    /// Sends one request with our credentials. One that is refused for them has changed nothing, so it is sent again, once,
    /// if the token was replaced.
    async fn exchange(
        &self,
        request: impl Fn(&Client) -> RequestBuilder + Send + Sync,
        what: &str,
        sends: Sends,
    ) -> Result<Answer, Outcome> {
        let send = async |token: &SecretString| {
            let request = request(&self.http).header(ACCEPT, "application/json");
            let request = match &self.username {
                Some(username) => request.basic_auth(username, Some(token.expose_secret())),
                None => request.bearer_auth(token.expose_secret()),
            };
            wire::exchange(request, what, sends).await
        };
        let mut token = self.token.current();
        let mut answer = send(&token).await?;
        if is_refused(&answer, sends)
            && let Some(other) = self.token.replacement(&token)
        {
            token = other;
            answer = send(&token).await?;
        }
        let status = answer.status.as_u16();
        if is_refused(&answer, sends) && status != 401 {
            let detail = format!(
                "{what}: answered {status} as if to nobody; check the credentials in the configuration, and sign in once in a \
                 browser if Jira asks for a CAPTCHA"
            );
            return Err(wire::unauthorized(Failure::new(Reason::Unauthorized, detail)));
        }
        if answer.status.is_success() {
            Ok(answer)
        } else {
            Err(wire::refusal(&answer, what, &said(&answer, &token), sends))
        }
    }

    fn parse<T: for<'de> Deserialize<'de>>(&self, answer: &Answer, what: &str, sends: Sends) -> Result<T, Outcome> {
        serde_json::from_slice(&answer.body).map_err(|_| {
            let kind = if answer.is_html() { "an HTML page" } else { "something" };
            let status = answer.status.as_u16();
            sends.lost(
                Reason::BadAnswer,
                format!("{what}: answered {status} with {kind} that is not the REST API's JSON"),
            )
        })
    }

    fn api(&self, path: &str) -> Result<Url, Outcome> {
        let version = match self.flavor {
            JiraFlavor::Cloud => 3,
            JiraFlavor::Server => 2,
        };
        self.base.join(&format!("rest/api/{version}/{path}")).map_err(|_| {
            Outcome::Permanent(Failure::new(Reason::BadParameters, format!("no address can be built for `{path}`")))
        })
    }

    fn receipt(&self, issue: &Issue, note: Option<&str>) -> Receipt {
        Receipt {
            id: Some(issue.id.clone()),
            number: Some(issue.key.clone()),
            url: self.browse.join(&format!("browse/{}", issue.key)).ok().map(String::from),
            note: note.map(str::to_owned),
            ..Receipt::default()
        }
    }
}

#[async_trait]
impl Connector for Jira {
    /// The last request of an attempt may leave when all the others have taken their time, and what it makes is found
    /// only when the search has caught up.
    fn patience(&self) -> Duration {
        self.timeout * MOST_REQUESTS + self.search_lag
    }

    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        let issue = match NewIssue::new(&call.params, &call.key) {
            Ok(issue) => issue,
            Err(problem) => return Outcome::Permanent(Failure::new(Reason::BadParameters, problem)),
        };
        match self.find(issue.jql_of_own(), &issue.own_label).await {
            Ok(Found::Issue(found)) => {
                return Outcome::AlreadyDone(self.receipt(&found, Some("was created by an earlier attempt")));
            }
            Ok(Found::Nothing | Found::Foreign) => {}
            Err(outcome) => return outcome,
        }
        if let Some(correlation) = &issue.correlation {
            match self.find_open(correlation).await {
                Ok(Some(open)) => {
                    return Outcome::AlreadyDone(
                        self.receipt(&open, Some("reused the open issue of this correlation")),
                    );
                }
                Ok(None) => {}
                Err(outcome) => return outcome,
            }
        }
        self.create(&issue).await
    }

    async fn verify(&self, call: &Call) -> Verdict {
        // Parameters that are wrong are refused before anything is sent.
        let Ok(issue) = NewIssue::new(&call.params, &call.key) else { return Verdict::NotDone };
        let found = async {
            let found = self.find(issue.jql_of_own(), &issue.own_label).await?;
            if matches!(found, Found::Nothing) {
                self.who_we_are().await?;
            }
            Ok(found)
        };
        match found.await {
            Ok(Found::Issue(issue)) if issue.is_open() => Verdict::Done(self.receipt(&issue, None)),
            Ok(Found::Issue(issue)) => Verdict::Done(self.receipt(&issue, Some("is closed already"))),
            Ok(Found::Nothing) => Verdict::NotDone,
            Ok(Found::Foreign) => Verdict::CannotTell,
            Err(Outcome::RetryAfter(_, failure) | Outcome::Transient(failure)) => Verdict::TryLater(failure),
            // Asking again will not help: a person has to look.
            Err(_) => Verdict::CannotTell,
        }
    }
}

/// Whether Jira did not take our word for who we are. It says so with 401, or it answers as it would answer anybody and
/// tells only in a header (Atlassian, "Basic auth for REST APIs": `X-Seraph-LoginReason`; Data Center also
/// `X-AUSERNAME`). What was created is created, whoever it was taken to be by.
fn is_refused(answer: &Answer, sends: Sends) -> bool {
    if answer.status.as_u16() == 401 {
        return true;
    }
    let is = |header: &str, words: &[&str]| {
        let values = answer.headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
        values.into_iter().any(|value| words.iter().any(|word| value.trim().eq_ignore_ascii_case(word)))
    };
    let as_nobody = is("x-seraph-loginreason", &["AUTHENTICATED_FAILED", "AUTHENTICATION_DENIED"])
        || is("x-ausername", &["anonymous"]);
    as_nobody && !(sends == Sends::Changing && (answer.status.is_success() || answer.status.is_server_error()))
}

/// Jira's own message, bounded and without the token that it may repeat.
fn said(answer: &Answer, token: &SecretString) -> String {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Body {
        error_messages: Vec<String>,
        /// By field.
        errors: BTreeMap<String, String>,
        /// Of what stands before Jira.
        message: String,
    }
    let Ok(Body { error_messages, errors, message }) = serde_json::from_slice(&answer.body) else {
        return String::new();
    };
    let of_fields = errors.into_iter().map(|(field, problem)| format!("`{field}`: {problem}"));
    let said = error_messages.into_iter().chain(of_fields).chain([message]).filter(|text| !text.is_empty());
    let said = said.collect::<Vec<_>>().join("; ");
    if answer.repeats_credential || said.contains(token.expose_secret()) {
        return "an answer that is not repeated here because it holds a secret".to_owned();
    }
    cut(&Escape::Line.apply(&said), 300)
}
