//! Incidents in ServiceNow, over the Table API.
//!
//! ServiceNow has no uniqueness of its own: a second POST with the same `correlation_id` makes a second incident. So an
//! incident is looked up before it is created, and what comes back is compared with what was asked for, both ways:
//! a query with a part that the instance does not understand returns *arbitrary* rows, and a field that the user may
//! not write is dropped without a word (ServiceNow REST API reference, Table API).

mod change;
mod incident;
mod probe;
#[cfg(test)]
mod tests;

use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::ACCEPT;
use reqwest::{Client, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroize;

use incident::{Incident, IncidentParams, NewIncident};

pub use change::{RESOLVE_INCIDENT, UPDATE_INCIDENT};
pub(super) use change::{Resolve, Update};

use super::secret::{Held, secret_text};
use super::wire::{self, Answer, Sends};
use super::{ActionKind, Call, Connector, Effect, Service, SetupError, cut, service_url, shape};
use crate::config::ServiceNowConfig;
use crate::config::secret::LiveSecret;
use crate::guard::Cleared;
use crate::http::{self, Network};
use crate::model::escape::Escape;
use crate::model::outcome::{Failure, Outcome, Reason, Receipt, Verdict};

/// `servicenow.incident.create`
pub static CREATE_INCIDENT: ActionKind = ActionKind {
    name: "servicenow.incident.create",
    summary: "Opens an incident, or finds the open one of the same correlation",
    service: Service::ServiceNow,
    effect: Effect::Keyed,
    changes_access: false,
    resets_risk: false,
    rights: &[],
    from_event: &[],
    check: |params| IncidentParams::parse(params).map(drop),
    schema: shape::<IncidentParams>,
    escape: |parameter| match parameter {
        "description" | "work_notes" | "fields" => Escape::Plain,
        _ => Escape::Line,
    },
    // Two events that share an incident must not look it up at the same time, or both would create it.
    lane: |params| {
        let correlation = IncidentParams::parse(params).ok()?.correlation?;
        Some(format!("servicenow.incident/{}", correlation.0.trim()))
    },
};

/// A token is renewed this long before it ends.
const RENEW_EARLY: Duration = Duration::from_secs(60);

/// One ServiceNow instance and the account that writes to it.
#[derive(Debug)]
pub struct ServiceNow {
    http: Client,
    base: Url,
    host: String,
    table: String,
    login: Login,
    timeout: Duration,
}

#[derive(Debug)]
enum Login {
    Basic { username: String, password: Held },
    OAuth(Box<OAuth>),
}

#[derive(Debug)]
struct OAuth {
    client_id: String,
    client_secret: Held,
    user: Option<(String, Held)>,
    token: Mutex<Option<Token>>,
}

/// The secrets that one request for a token is made with.
struct Grant {
    client_secret: SecretString,
    password: Option<SecretString>,
}

impl OAuth {
    fn grant(&self) -> Grant {
        let password = self.user.as_ref().map(|(_, password)| password.current());
        Grant { client_secret: self.client_secret.current(), password }
    }

    /// What to use instead of secrets that were refused; which of them it was, nobody says.
    fn replacement(&self, refused: Grant) -> Option<Grant> {
        let client_secret = self.client_secret.replacement(&refused.client_secret);
        let password = self.user.as_ref().zip(refused.password.as_ref());
        let password = password.and_then(|((_, held), refused)| held.replacement(refused));
        (client_secret.is_some() || password.is_some()).then(|| Grant {
            client_secret: client_secret.unwrap_or(refused.client_secret),
            password: password.or(refused.password),
        })
    }
}

#[derive(Debug, Clone)]
struct Token {
    value: SecretString,
    renew_at: Instant,
}

impl ServiceNow {
    /// Takes the `[servicenow]` section and its secrets. Nothing is sent.
    ///
    /// # Errors
    /// When the address is not an https URL (http only to loopback), the table is not a table name, or neither basic
    /// authentication nor an OAuth client is complete.
    pub fn new(
        config: &ServiceNowConfig,
        password: Option<LiveSecret>,
        client_secret: Option<LiveSecret>,
        network: &Network,
    ) -> Result<Self, SetupError> {
        let section = Service::ServiceNow.section();
        let base = service_url(section, "url", &config.url)?;
        if config.table.is_empty()
            || !config.table.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        {
            return Err(SetupError::invalid(section, "`table` is not the name of a table, such as \"incident\""));
        }
        let password = password.map(|secret| Held::new(Service::ServiceNow, "password", secret));
        let client_secret = client_secret.map(|secret| Held::new(Service::ServiceNow, "client_secret", secret));
        let login = match (&config.client_id, client_secret, &config.username, password) {
            (Some(client_id), Some(client_secret), username, password) => {
                let user = match (username, password) {
                    (Some(username), Some(password)) => Some((username.clone(), password)),
                    (None, None) => None,
                    _ => return Err(SetupError::invalid(section, "`username` and `password` belong together")),
                };
                Login::OAuth(Box::new(OAuth {
                    client_id: client_id.clone(),
                    client_secret,
                    user,
                    token: Mutex::new(None),
                }))
            }
            (None, None, Some(username), Some(password)) => Login::Basic { username: username.clone(), password },
            _ => {
                return Err(SetupError::invalid(
                    section,
                    "give `username` and `password`, or `client_id` and `client_secret`, or all four",
                ));
            }
        };
        let http = http::client(section, &base, config.timeout, network)
            .map_err(|source| SetupError::Client { section, source })?;
        let host = base.host_str().unwrap_or_default().to_owned();
        Ok(Self { http, base, host, table: config.table.clone(), login, timeout: config.timeout })
    }

    /// Finds the newest incident whose `field` is exactly `value`. Changes nothing.
    async fn find(&self, field: &str, value: &str) -> Result<Found, Outcome> {
        let what = format!("looking up an incident at {}", self.host);
        let url = self.table_url()?;
        let query = [
            ("sysparm_query", format!("{field}={value}^ORDERBYDESCsys_created_on")),
            ("sysparm_limit", "1".to_owned()),
            ("sysparm_fields", Incident::FIELDS.to_owned()),
        ];
        let answer = self.exchange(|http| http.get(url.clone()).query(&query), &what, Sends::Reading).await?;
        let rows: Rows = self.parse(&answer, &what, Sends::Reading)?;
        Ok(match rows.result.into_iter().next() {
            None => Found::Nothing,
            Some(row) if row.field(field) == value => Found::Incident(row),
            Some(_) => Found::Foreign,
        })
    }

    async fn create(&self, incident: &NewIncident) -> Outcome {
        let what = format!("creating an incident at {}", self.host);
        let row = match self.post(incident, &what).await {
            Ok(row) => row,
            Err(outcome) => return outcome,
        };
        match incident.first_difference(&row) {
            None => Outcome::Done(self.receipt(&row, None)),
            Some(field) => Outcome::Permanent(Failure::new(
                Reason::BadAnswer,
                format!(
                    "{what}: {} was created, but its `{field}` does not hold what was sent, so it cannot be found again; \
                     give this account the right to write `{field}` on table `{}`, and do not retry this action",
                    row.name(),
                    self.table
                ),
            )),
        }
    }

    async fn post(&self, incident: &NewIncident, what: &str) -> Result<Incident, Outcome> {
        let url = self.table_url()?;
        let query = [("sysparm_fields", Incident::FIELDS), ("sysparm_exclude_reference_link", "true")];
        let answer = self
            .exchange(|http| http.post(url.clone()).query(&query).json(&incident.body), what, Sends::Changing)
            .await?;
        let row: Row = self.parse(&answer, what, Sends::Changing)?;
        if row.result.sys_id.is_empty() {
            return Err(Sends::Changing.lost(Reason::BadAnswer, format!("{what}: the answer names no `sys_id`")));
        }
        Ok(row.result)
    }

    /// Sends one request with our credentials. One that is refused with 401 has changed nothing, so it is sent again, once,
    /// if there is another credential by then: a new token, or a password that was replaced.
    async fn exchange(
        &self,
        request: impl Fn(&Client) -> RequestBuilder + Send + Sync,
        what: &str,
        sends: Sends,
    ) -> Result<Answer, Outcome> {
        let send = async |credential: &SecretString| {
            let request = request(&self.http).header(ACCEPT, "application/json");
            let request = match &self.login {
                Login::Basic { username, .. } => request.basic_auth(username, Some(credential.expose_secret())),
                Login::OAuth(_) => request.bearer_auth(credential.expose_secret()),
            };
            wire::exchange(request, what, sends).await
        };
        let mut credential = match &self.login {
            Login::Basic { password, .. } => password.current(),
            Login::OAuth(oauth) => self.token(oauth, None).await?,
        };
        let mut answer = send(&credential).await?;
        if answer.status.as_u16() == 401 {
            let other = match &self.login {
                Login::Basic { password, .. } => password.replacement(&credential),
                Login::OAuth(oauth) => Some(self.token(oauth, Some(&credential)).await?),
            };
            if let Some(other) = other {
                credential = other;
                answer = send(&credential).await?;
            }
        }
        if answer.status.is_success() {
            Ok(answer)
        } else {
            Err(wire::refusal(&answer, what, &self.said(&answer, &credential), sends))
        }
    }

    /// The OAuth token, from memory or from `/oauth_token.do`. A token equal to `refused` is not given again.
    async fn token(&self, oauth: &OAuth, refused: Option<&SecretString>) -> Result<SecretString, Outcome> {
        let mut kept = oauth.token.lock().await;
        let is_refused = |value: &SecretString| refused.is_some_and(|old| old.expose_secret() == value.expose_secret());
        if let Some(token) = kept.as_ref()
            && Instant::now() < token.renew_at
            && !is_refused(&token.value)
        {
            return Ok(token.value.clone());
        }
        *kept = None;

        let what = format!("fetching a token from {}", self.host);
        let grant = oauth.grant();
        let mut answer = self.ask_for_token(oauth, &grant, &what).await?;
        // OAuth answers a wrong client or password with 400 or 401 (RFC 6749, section 5.2).
        let is_refusal = |answer: &Answer| matches!(answer.status.as_u16(), 400 | 401);
        if is_refusal(&answer)
            && let Some(grant) = oauth.replacement(grant)
        {
            answer = self.ask_for_token(oauth, &grant, &what).await?;
        }
        if is_refusal(&answer) {
            let status = answer.status.as_u16();
            return Err(wire::unauthorized(Failure::new(
                Reason::Unauthorized,
                format!("{what}: answered {status}; check `client_id`, `client_secret`, `username` and `password`"),
            )));
        }
        if !answer.status.is_success() {
            return Err(wire::refusal(&answer, &what, "", Sends::Reading));
        }
        let granted = self.parse::<Granted>(&answer, &what, Sends::Reading);
        answer.body.zeroize();
        let Granted { access_token: value, expires_in } = granted?;
        let lasts = Duration::from_secs(expires_in.unwrap_or(600).min(86_400));
        let renew_at = Instant::now() + lasts.saturating_sub(RENEW_EARLY.min(lasts / 2));
        *kept = Some(Token { value: value.clone(), renew_at });
        Ok(value)
    }

    async fn ask_for_token(&self, oauth: &OAuth, grant: &Grant, what: &str) -> Result<Answer, Outcome> {
        let mut form =
            vec![("client_id", oauth.client_id.as_str()), ("client_secret", grant.client_secret.expose_secret())];
        match oauth.user.as_ref().zip(grant.password.as_ref()) {
            Some(((username, _), password)) => form.extend([
                ("grant_type", "password"),
                ("username", username.as_str()),
                ("password", password.expose_secret()),
            ]),
            None => form.push(("grant_type", "client_credentials")),
        }
        let request = self.http.post(self.url("oauth_token.do")?).header(ACCEPT, "application/json").form(&form);
        wire::exchange(request, what, Sends::Reading).await
    }

    fn parse<T: for<'de> Deserialize<'de>>(&self, answer: &Answer, what: &str, sends: Sends) -> Result<T, Outcome> {
        serde_json::from_slice(&answer.body).map_err(|_| {
            if answer.is_html() && contains_ignoring_case(&answer.body, b"hibernating") {
                return Outcome::Transient(Failure::new(
                    Reason::ServiceError,
                    format!("{what}: the instance is hibernating; wake it at developer.servicenow.com"),
                ));
            }
            let kind = if answer.is_html() { "an HTML page" } else { "something" };
            sends.lost(
                Reason::BadAnswer,
                format!("{what}: answered {} with {kind} that is not the Table API's JSON", answer.status.as_u16()),
            )
        })
    }

    /// ServiceNow's own message, bounded and without any secret of ours that it may repeat.
    fn said(&self, answer: &Answer, credential: &SecretString) -> String {
        #[derive(Deserialize)]
        struct Body {
            error: Message,
        }
        #[derive(Deserialize)]
        struct Message {
            message: Option<String>,
            detail: Option<String>,
        }
        let Ok(Body { error }) = serde_json::from_slice(&answer.body) else { return String::new() };
        let said: Vec<_> =
            [error.message, error.detail].into_iter().flatten().filter(|text| !text.is_empty()).collect();
        let said = said.join(": ");
        let is_repeated = |secret: &SecretString| said.contains(secret.expose_secret());
        if answer.repeats_credential || is_repeated(credential) || self.secrets().iter().any(is_repeated) {
            return "an answer that is not repeated here because it holds a secret".to_owned();
        }
        cut(&Escape::Line.apply(&said), 200)
    }

    fn secrets(&self) -> Vec<SecretString> {
        match &self.login {
            Login::Basic { password, .. } => vec![password.current()],
            Login::OAuth(oauth) => {
                let Grant { client_secret, password } = oauth.grant();
                std::iter::once(client_secret).chain(password).collect()
            }
        }
    }

    fn table_url(&self) -> Result<Url, Outcome> {
        self.url(&format!("api/now/table/{}", self.table))
    }

    fn url(&self, path: &str) -> Result<Url, Outcome> {
        self.base.join(path).map_err(|_| {
            Outcome::Permanent(Failure::new(Reason::BadParameters, format!("no address can be built for `{path}`")))
        })
    }

    fn receipt(&self, row: &Incident, note: Option<&str>) -> Receipt {
        Receipt {
            id: Some(row.sys_id.clone()),
            number: (!row.number.is_empty()).then(|| cut(&Escape::Line.apply(&row.number), 64)),
            url: Some(format!("{}nav_to.do?uri={}.do%3Fsys_id%3D{}", self.base, self.table, row.sys_id)),
            note: note.map(str::to_owned),
            ..Receipt::default()
        }
    }
}

#[async_trait]
impl Connector for ServiceNow {
    fn patience(&self) -> Duration {
        self.timeout
    }

    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        let incident = match IncidentParams::parse(&call.params).and_then(|params| NewIncident::new(params, &call.key))
        {
            Ok(incident) => incident,
            Err(problem) => return Outcome::Permanent(Failure::new(Reason::BadParameters, problem)),
        };
        match self.find(incident.own_field, call.key.as_str()).await {
            Ok(Found::Incident(row)) => {
                return Outcome::AlreadyDone(self.receipt(&row, Some("was created by an earlier attempt")));
            }
            Ok(Found::Nothing | Found::Foreign) => {}
            Err(outcome) => return outcome,
        }
        if let Some(correlation) = &incident.shared {
            match self.find("correlation_id", correlation).await {
                Ok(Found::Incident(row)) if row.is_open() => {
                    return Outcome::AlreadyDone(
                        self.receipt(&row, Some("reused the open incident of this correlation")),
                    );
                }
                Ok(_) => {}
                Err(outcome) => return outcome,
            }
        }
        self.create(&incident).await
    }

    async fn verify(&self, call: &Call) -> Verdict {
        let incident = match IncidentParams::parse(&call.params).and_then(|params| NewIncident::new(params, &call.key))
        {
            Ok(incident) => incident,
            // Such parameters are refused before anything is sent.
            Err(_) => return Verdict::NotDone,
        };
        match self.find(incident.own_field, call.key.as_str()).await {
            Ok(Found::Incident(row)) if row.is_open() => Verdict::Done(self.receipt(&row, None)),
            Ok(Found::Incident(row)) => Verdict::Done(self.receipt(&row, Some("is closed already"))),
            Ok(Found::Nothing) => Verdict::NotDone,
            Ok(Found::Foreign) => Verdict::CannotTell,
            Err(Outcome::RetryAfter(_, failure) | Outcome::Transient(failure)) => Verdict::TryLater(failure),
            // Asking again will not help: a person has to look.
            Err(_) => Verdict::CannotTell,
        }
    }
}

/// What a look-up found.
enum Found {
    /// Nothing: the answer was empty.
    Nothing,
    /// The incident that was asked for.
    Incident(Incident),
    /// Some other record: the instance did not understand the query, or hides the field from this account.
    Foreign,
}

fn contains_ignoring_case(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}

#[derive(Deserialize)]
struct Rows {
    result: Vec<Incident>,
}

#[derive(Deserialize)]
struct Row {
    result: Incident,
}

#[derive(Deserialize)]
struct Granted {
    #[serde(deserialize_with = "secret_text")]
    access_token: SecretString,
    expires_in: Option<u64>,
}
