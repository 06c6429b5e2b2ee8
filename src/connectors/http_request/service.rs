//! One exchange with a service of `[http.NAME]`, and what its answer means.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use super::super::probe::Finding;
use super::super::secret::Held;
use super::super::wire::{self, Answer, Sends};
use super::super::{Call, Connector, Service, SetupError, service_url};
use super::answer::{self, MAX_ANSWER};
use super::sign_in::{OAuth, SignIn};
use super::{ChangeParams, MAX_BODY, RequestParams, address};
use crate::config::http::HttpConfig;
use crate::config::secret::LiveSecret;
use crate::guard::Cleared;
use crate::http::{self, BodyError, Inside, Network};
use crate::model::outcome::{Answer as Kept, Failure, Outcome, Reason, Receipt, Verdict};

/// The services of `[http.NAME]`.
#[derive(Debug)]
pub struct HttpServices(BTreeMap<String, HttpService>);

impl HttpServices {
    /// Takes the sections and their secrets, by name. Nothing is sent.
    ///
    /// # Errors
    /// The first section that cannot work as it is written.
    pub fn new(
        sections: &BTreeMap<String, HttpConfig>,
        mut secrets: BTreeMap<String, LiveSecret>,
        network: &Network,
    ) -> Result<Self, SetupError> {
        let service = |(name, section): (&String, &HttpConfig)| {
            let service = HttpService::new(name, section, secrets.remove(name), network)?;
            Ok((name.clone(), service))
        };
        Ok(Self(sections.iter().map(service).collect::<Result<_, _>>()?))
    }

    /// Whether each of them is there, and lets us in where that can be tried. Changes nothing.
    pub async fn probe(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for service in self.0.values() {
            findings.push(service.probe().await);
        }
        findings
    }

    async fn perform(&self, params: &Value, call: &Call) -> Outcome {
        let attempt = async || {
            let (service, params) = self.service(params)?;
            service.perform(&params, call).await
        };
        attempt().await.unwrap_or_else(|outcome| outcome)
    }

    async fn verify(&self, params: &Value) -> Verdict {
        // Such parameters are refused before anything is sent.
        let Ok((service, params)) = self.service(params) else { return Verdict::CannotTell };
        match service.look_up(&params).await {
            // Nobody minds when it is asked again.
            Ok(None) if params.method.is_safe() => Verdict::NotDone,
            Ok(None) => Verdict::CannotTell,
            Ok(Some(Some(receipt))) => Verdict::Done(receipt),
            Ok(Some(None)) => Verdict::NotDone,
            Err(outcome) => Verdict::TryLater(outcome.into_failure()),
        }
    }

    fn service(&self, params: &Value) -> Result<(&HttpService, RequestParams), Outcome> {
        let params = RequestParams::parse(params).map_err(wrong)?;
        let service = self.0.get(&params.service).ok_or_else(|| {
            wrong(format!("there is no section [http.{}] (any more); add it, or cancel the action", params.service))
        })?;
        Ok((service, params))
    }

    fn patience(&self) -> Duration {
        self.0.values().map(|service| service.timeout).max().unwrap_or_default()
    }
}

fn wrong(problem: impl AsRef<str>) -> Outcome {
    Outcome::Permanent(Failure::new(Reason::BadParameters, problem))
}

/// One service and the way into it.
#[derive(Debug)]
struct HttpService {
    section: String,
    http: Client,
    base: Url,
    host: String,
    headers: HeaderMap,
    sign_in: SignIn,
    probe_path: Option<String>,
    timeout: Duration,
}

/// An answer with what must not be repeated of it.
struct Heard {
    answer: Answer,
    /// Why the body is not whole.
    trouble: Option<BodyError>,
    secrets: Vec<SecretString>,
}

impl HttpService {
    fn new(name: &str, config: &HttpConfig, secret: Option<LiveSecret>, network: &Network) -> Result<Self, SetupError> {
        let section = format!("http.{name}");
        let invalid = |problem: String| SetupError::invalid(Service::Http.section(), format!("`{name}`: {problem}"));
        let inside =
            Inside::parse(&config.allow_private).map_err(|(_, why)| invalid(format!("`allow_private`: {why}")))?;
        let client = |base: &Url| {
            let client = http::client_within(&section, base, config.timeout, network, &inside);
            client.map_err(|source| SetupError::Client { section: Service::Http.section(), source })
        };
        let base = service_url(Service::Http.section(), "base_url", &config.base_url)?;
        let held = |key| secret.map(|secret| Held::of(section.clone(), key, secret));
        let sign_in = match (config.secret().map(|(key, _)| key), &config.username, &config.client_id) {
            (None, None, None) => SignIn::Open,
            (Some("token"), None, None) => match (held("token"), &config.token_header) {
                (Some(token), None) => SignIn::Bearer(token),
                (Some(token), Some(name)) => SignIn::Header(http::own_header(name).map_err(invalid)?, token),
                (None, _) => return Err(invalid("there is no token".to_owned())),
            },
            (Some("password"), Some(username), None) => {
                let password = held("password").ok_or_else(|| invalid("there is no password".to_owned()))?;
                SignIn::Basic(username.clone(), password)
            }
            (Some("client_secret"), None, Some(client_id)) => {
                let text = config.token_url.as_deref().unwrap_or_default();
                let mut token_url = service_url(Service::Http.section(), "token_url", text)?;
                // It is called as it is written.
                if !text.ends_with('/') {
                    let path = token_url.path().trim_end_matches('/').to_owned();
                    token_url.set_path(&path);
                }
                SignIn::OAuth(Box::new(OAuth {
                    http: client(&token_url)?,
                    token_url,
                    client_id: client_id.clone(),
                    client_secret: held("client_secret").ok_or_else(|| invalid("there is no secret".to_owned()))?,
                    scope: config.scope.clone(),
                    audience: config.audience.clone(),
                    token: Mutex::new(None),
                }))
            }
            _ => {
                let ways = "`token`, or `username` and `password`, or `client_id` and `client_secret`, or none of them";
                return Err(invalid(format!("give {ways}")));
            }
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let value = HeaderValue::from_bytes(value.as_bytes());
            let value = value.map_err(|_| invalid(format!("the header `{name}` cannot hold its value")))?;
            headers.insert(http::own_header(name).map_err(invalid)?, value);
        }
        let host = base.host_str().unwrap_or_default().to_owned();
        let probe_path = config.probe_path.clone();
        Ok(Self { http: client(&base)?, section, base, host, headers, sign_in, probe_path, timeout: config.timeout })
    }

    async fn probe(&self) -> Finding {
        match self.try_probe().await {
            Ok(finding) => finding,
            Err(failure) => Finding::failed(&self.section, failure),
        }
    }

    async fn try_probe(&self) -> Result<Finding, Failure> {
        let host = wire::reach(&self.http, self.base.as_str(), &format!("reaching {}", self.host)).await?;
        let Some(path) = &self.probe_path else {
            return Ok(match &self.sign_in {
                SignIn::Open => Finding::fine(&self.section, format!("{host} answers")),
                SignIn::OAuth(_) => {
                    self.sign_in.credential().await.map_err(Outcome::into_failure)?;
                    Finding::fine(&self.section, format!("{host} answers, and there is a token for it"))
                }
                _ => Finding::note(
                    &self.section,
                    format!("{host} answers; without probe_path the credentials are not tried"),
                ),
            });
        };
        let what = format!("GET {path} at {}", self.host);
        let url = address(&self.base, "probe_path", path, &BTreeMap::new());
        let url = url.map_err(|problem| Failure::new(Reason::BadParameters, problem))?;
        let heard = self.exchange(|http| http.get(url.clone()), &what, Sends::Reading).await;
        let heard = heard.map_err(Outcome::into_failure)?;
        if !heard.answer.status.is_success() {
            return Err(self.refusal(&heard, &what, Sends::Reading).into_failure());
        }
        Ok(Finding::fine(&self.section, format!("{host} answers, and lets us in ({path})")))
    }

    async fn perform(&self, params: &RequestParams, call: &Call) -> Result<Outcome, Outcome> {
        let url = address(&self.base, "path", &params.path, &params.query).map_err(wrong)?;
        let mut headers: HeaderMap = params.headers().map_err(wrong)?.into_iter().collect();
        if let Some(name) = &params.idempotency_header {
            let key =
                HeaderValue::from_str(call.key.as_str()).map_err(|_| wrong("the key cannot travel in a header"))?;
            headers.insert(http::own_header(name).map_err(wrong)?, key);
        }
        let body = body(params).map_err(wrong)?;
        if let Some(Some(receipt)) = self.look_up(params).await? {
            return Ok(Outcome::AlreadyDone(receipt));
        }
        let what = format!("{} {} at {}", params.method.method(), url.path(), self.host);
        let sends = if params.method.is_safe() { Sends::Reading } else { Sends::Changing };
        let request = |http: &Client| {
            let request = http.request(params.method.method(), url.clone());
            let request = match &body {
                Some((kind, body)) => request.header(CONTENT_TYPE, *kind).body(body.clone()),
                None => request,
            };
            request.headers(headers.clone())
        };
        let heard = self.exchange(request, &what, sends).await?;
        let status = heard.answer.status.as_u16();
        if params.expect.iter().any(|expected| expected.is(status)) {
            return self.receipt(&heard, None, &what, sends).map(Outcome::Done);
        }
        if heard.answer.status.is_success() {
            let detail = format!("{what}: answered {status}, which `expect` does not name");
            return Err(match sends {
                Sends::Reading => Outcome::Permanent(Failure::new(Reason::BadAnswer, detail)),
                Sends::Changing => sends.lost(Reason::BadAnswer, detail),
            });
        }
        Err(self.refusal(&heard, &what, sends))
    }

    /// Whether what a request would do is done, with what stands for it; `None` when the step says nothing of a look-up.
    async fn look_up(&self, params: &RequestParams) -> Result<Option<Option<Receipt>>, Outcome> {
        let Some(path) = &params.lookup_path else { return Ok(None) };
        let url = address(&self.base, "lookup_path", path, &params.lookup_query).map_err(wrong)?;
        let what = format!("looking up {} at {}", url.path(), self.host);
        let heard = self.exchange(|http| http.get(url.clone()), &what, Sends::Reading).await?;
        match heard.answer.status.as_u16() {
            // Where the answer has to hold something, this says only that the path is wrong.
            404 | 410 if params.found.is_none() => return Ok(Some(None)),
            status if !(200..300).contains(&status) => return Err(self.refusal(&heard, &what, Sends::Reading)),
            _ => {}
        }
        // What it holds decides, so it has to be there whole.
        if let Some(trouble) = &heard.trouble {
            return Err(Sends::Reading.lost(trouble.reason(), format!("{what}: {trouble}")));
        }
        if let Some(found) = &params.found {
            let Ok(body) = serde_json::from_slice::<Value>(&heard.answer.body) else {
                let kind = if heard.answer.is_html() { "an HTML page" } else { "something" };
                let detail = format!("{what}: answered {} with {kind} that is no JSON", heard.answer.status.as_u16());
                return Err(Sends::Reading.lost(Reason::BadAnswer, detail));
            };
            if !found.is_in(&body) {
                return Ok(Some(None));
            }
        }
        let receipt = self.receipt(&heard, params.found_body.as_deref(), &what, Sends::Reading)?;
        let note = receipt.note.as_deref().unwrap_or_default().replacen("answered", "found: the look-up answered", 1);
        Ok(Some(Some(Receipt { note: Some(note), ..receipt })))
    }

    /// Sends one request with our credentials. One that is refused with 401 has changed nothing, so it is sent again, once,
    /// if there is another credential by then: a new token, or a secret that was replaced.
    async fn exchange(
        &self,
        request: impl Fn(&Client) -> RequestBuilder + Send + Sync,
        what: &str,
        sends: Sends,
    ) -> Result<Heard, Outcome> {
        let send = async |credential: Option<&SecretString>| {
            let request = self.sign_in.show(request(&self.http), credential);
            let (client, request) = request.build_split();
            let failed = |_| wrong(format!("{what}: no request can be built from these parameters"));
            let mut request = request.map_err(failed)?;
            let given = request.headers_mut();
            // What a step says goes before what its section says.
            for (name, value) in &self.headers {
                given.entry(name).or_insert_with(|| value.clone());
            }
            given.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
            wire::exchange_up_to(RequestBuilder::from_parts(client, request), what, sends, MAX_ANSWER).await
        };
        let mut credential = self.sign_in.credential().await?;
        let (mut answer, mut trouble) = send(credential.as_ref()).await?;
        if answer.status.as_u16() == 401
            && let Some(refused) = &credential
            && let Some(other) = self.sign_in.replacement(refused).await?
        {
            credential = Some(other);
            (answer, trouble) = send(credential.as_ref()).await?;
        }
        let secrets = self.sign_in.secrets(credential.as_ref());
        Ok(Heard { answer, trouble, secrets })
    }

    /// What is on record of a success. `part` is the part of the answer that counts. Of a request that changes something
    /// the status says enough; one that only reads is asked again when its answer broke off.
    fn receipt(&self, heard: &Heard, part: Option<&str>, what: &str, sends: Sends) -> Result<Receipt, Outcome> {
        let status = heard.answer.status.as_u16();
        let (body, why) = match &heard.trouble {
            Some(BodyError::TooLarge { .. }) => (None, "; its body is larger than 64 KiB and not kept"),
            Some(trouble) if sends == Sends::Reading => {
                return Err(sends.lost(trouble.reason(), format!("{what}: {trouble}")));
            }
            Some(_) => (None, "; its body broke off and is not kept"),
            None if heard.answer.body.trim_ascii().is_empty() => (None, ""),
            None => match serde_json::from_slice::<Value>(&heard.answer.body) {
                Ok(mut body) => answer::kept(
                    match part {
                        Some(pointer) => body.pointer_mut(pointer).map(Value::take),
                        None => Some(body),
                    },
                    &heard.secrets,
                ),
                Err(_) => (None, "; its body is no JSON and not kept"),
            },
        };
        Ok(Receipt {
            answer: Some(Box::new(Kept { status, body })),
            ..Receipt::note(format!("answered {status}{why}"))
        })
    }

    fn refusal(&self, heard: &Heard, what: &str, sends: Sends) -> Outcome {
        let answer = &heard.answer;
        let repeats = |text: &[u8]| {
            let is_in = |secret: &SecretString| {
                let secret = secret.expose_secret().as_bytes();
                text.windows(secret.len().max(1)).any(|window| window == secret)
            };
            heard.secrets.iter().any(is_in)
        };
        let said = match self.place(answer) {
            Some(place) if repeats(place.as_bytes()) => String::new(),
            Some(place) => format!("it points to {place}"),
            None if answer.repeats_credential || repeats(&answer.body) => {
                "an answer that is not repeated here because it holds a secret".to_owned()
            }
            None => answer::said(&answer.body),
        };
        wire::refusal(answer, what, &said, sends)
    }

    /// Where a redirect points to: scheme, host and port; what stands behind them can be a secret of somebody.
    fn place(&self, answer: &Answer) -> Option<String> {
        if !answer.status.is_redirection() {
            return None;
        }
        let place = answer.headers.get(LOCATION)?.to_str().ok()?;
        let origin = self.base.join(place).ok()?.origin();
        origin.is_tuple().then(|| origin.ascii_serialization().chars().take(200).collect())
    }
}

/// The body and its kind.
fn body(params: &RequestParams) -> Result<Option<(&'static str, Vec<u8>)>, String> {
    let body = match (&params.json, &params.form) {
        (Some(json), _) => ("application/json", json.to_string().into_bytes()),
        (None, Some(form)) => {
            let mut text = url::form_urlencoded::Serializer::new(String::new());
            text.extend_pairs(form);
            ("application/x-www-form-urlencoded", text.finish().into_bytes())
        }
        (None, None) => return Ok(None),
    };
    if body.1.len() > MAX_BODY {
        return Err(format!("the body is larger than {} KiB", MAX_BODY / 1024));
    }
    Ok(Some(body))
}

/// `http.request`
pub(in super::super) struct Request(pub(in super::super) Arc<HttpServices>);

/// `http.access.change`
pub(in super::super) struct Change(pub(in super::super) Arc<HttpServices>);

impl Change {
    /// The request without the user, who is the guard's matter.
    fn request(params: &Value) -> Result<Value, Outcome> {
        ChangeParams::parse(params).map_err(wrong)?;
        let mut params = params.clone();
        if let Some(params) = params.as_object_mut() {
            params.remove("user");
        }
        Ok(params)
    }
}

#[async_trait]
impl Connector for Request {
    fn patience(&self) -> Duration {
        self.0.patience()
    }

    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        self.0.perform(&call.params, call).await
    }

    async fn verify(&self, call: &Call) -> Verdict {
        self.0.verify(&call.params).await
    }
}

#[async_trait]
impl Connector for Change {
    fn patience(&self) -> Duration {
        self.0.patience()
    }

    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        match Self::request(&call.params) {
            Ok(params) => self.0.perform(&params, call).await,
            Err(outcome) => outcome,
        }
    }

    async fn verify(&self, call: &Call) -> Verdict {
        match Self::request(&call.params) {
            Ok(params) => self.0.verify(&params).await,
            Err(_) => Verdict::CannotTell,
        }
    }
}
