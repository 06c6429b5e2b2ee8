//! A server on loopback that answers as a test tells it, and can do to a connection what a broken service does; and what
//! the tests of several connectors have in common: their sections, their calls, and records as services answer them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::Call;
use crate::config::secret::SecretSource;
use crate::config::{JiraConfig, JiraFlavor, PagerDutyConfig, ServiceNowConfig, SlackConfig, TeamsConfig};
use crate::guard::Cleared;
use crate::model::ids::IdempotencyKey;
use crate::model::outcome::Receipt;

/// Long enough for an answer over loopback on a busy machine.
pub(super) const PATIENT: Duration = Duration::from_secs(20);

/// The key of the calls that [`call`] makes.
pub(super) const KEY: &str = "0123456789abcdef0123456789abcdef01234567";

/// The first attempt of an action with these parameters.
pub(super) fn call(params: Value) -> Cleared<Call> {
    let key = IdempotencyKey::from_stored(KEY.to_owned());
    Cleared::unguarded(Call { key, params, attempt: 1, earlier: Receipt::default() })
}

/// `[servicenow]` without a way to sign in.
pub(super) fn servicenow_config(base: &str, timeout: Duration) -> ServiceNowConfig {
    ServiceNowConfig {
        url: base.to_owned(),
        username: None,
        password: None,
        client_id: None,
        client_secret: None,
        client_certificate: None,
        client_key: None,
        table: "incident".to_owned(),
        timeout,
    }
}

/// An incident of ServiceNow as it stands after it was created by this request.
pub(super) fn incident_row(created: &Seen) -> Value {
    let sent = created.json();
    json!({
        "sys_id": "9d385017c611228701d22104cc95c371", "number": "INC0010002", "state": "1", "active": "true",
        "correlation_id": sent["correlation_id"], "correlation_display": sent["correlation_display"],
    })
}

/// `[jira]` with a user.
pub(super) fn jira_config(base: &str, flavor: JiraFlavor, timeout: Duration) -> JiraConfig {
    JiraConfig {
        url: base.to_owned(),
        flavor,
        browse_url: None,
        username: Some("daemon".to_owned()),
        token: SecretSource::Env("J".to_owned()),
        client_certificate: None,
        client_key: None,
        search_lag: Duration::from_secs(5),
        timeout,
    }
}

/// What Jira answers to a request that creates nothing, when these requests have created an issue before, which is now in
/// a status of this category; `None` for the one that creates.
pub(super) fn jira_answer(seen: &Seen, created: &[Seen], category: &str) -> Option<Reply> {
    let issue = |created: &Seen| {
        let status = json!({"statusCategory": {"key": category}});
        let labels = &created.json()["fields"]["labels"];
        json!({"id": "10001", "key": "SEC-1", "fields": {"labels": labels, "status": status}})
    };
    match seen.path() {
        path if path.ends_with("/issue") => None,
        path if path.contains("/search") => {
            let issues: Vec<_> = created.iter().map(issue).collect();
            Some(Reply::json(200, &json!({"issues": issues, "isLast": true})))
        }
        path if path.contains("/issue/") => created.first().map(|created| Reply::json(200, &issue(created))),
        _ => Some(Reply::json(200, &json!({"displayName": "Okta Responder"}))),
    }
}

/// `[pagerduty]`
pub(super) fn pagerduty_config(base: &str, timeout: Duration) -> PagerDutyConfig {
    PagerDutyConfig { routing_key: SecretSource::Env("P".to_owned()), url: base.to_owned(), timeout }
}

/// `[slack]` without a way in.
pub(super) fn slack_config(base: &str, timeout: Duration) -> SlackConfig {
    SlackConfig {
        token: None,
        webhook_url: None,
        client_certificate: None,
        client_key: None,
        api_url: format!("{base}/api"),
        timeout,
    }
}

/// `[teams]`
pub(super) fn teams_config(timeout: Duration) -> TeamsConfig {
    TeamsConfig { webhook_url: SecretSource::Env("T".to_owned()), client_certificate: None, client_key: None, timeout }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    /// Path and query, still encoded.
    pub(super) target: String,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The decoded value of a query parameter.
    pub(super) fn query(&self, name: &str) -> Option<String> {
        let url = url::Url::parse("http://stage/").unwrap().join(&self.target).unwrap();
        url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

/// What the server does with a request.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// Answers.
    Answer { status: u16, headers: Vec<(String, String)>, body: String },
    /// Takes the request and never answers.
    Silence,
    /// Takes the request and closes the connection.
    Close,
    /// Begins an answer of this status and closes the connection before its end.
    Truncated(u16),
    /// Answers with a body that does not end.
    Endless(u16),
    /// Answers with a body that comes one byte at a time.
    Drip(u16),
}

impl Reply {
    pub(super) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::text(status, "application/json", body.to_string())
    }

    pub(super) fn text(status: u16, kind: &str, body: impl Into<String>) -> Self {
        Self::Answer { status, headers: vec![("Content-Type".to_owned(), kind.to_owned())], body: body.into() }
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.into()));
        }
        self
    }
}

/// The server; it ends with its owner.
pub(super) struct Stage {
    pub(super) base: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    count: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Stage {
    pub(super) async fn open(play: impl FnMut(&Seen) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (counter, count) = watch::channel(0);
        let play = Arc::new(Mutex::new(play));
        let log = Arc::clone(&seen);
        let counter = Arc::new(counter);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (play, log, counter) = (Arc::clone(&play), Arc::clone(&log), Arc::clone(&counter));
                connections.spawn(async move {
                    let mut stream = stream;
                    let Some(request) = receive(&mut stream).await else { return };
                    let reply = (play.lock().unwrap_or_else(PoisonError::into_inner))(&request);
                    log.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                    counter.send_modify(|count| *count += 1);
                    // The client may be gone, which is what some tests are about.
                    let _ = answer(&mut stream, reply).await;
                });
            }
        });
        Self { base, seen, count, task }
    }

    /// An address at which nobody listens.
    pub(super) async fn nobody() -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until this many requests have arrived.
    pub(super) async fn requests(&self, at_least: usize) {
        let mut count = self.count.clone();
        count.wait_for(|count| *count >= at_least).await.unwrap();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn receive(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
    let whole = end + length.unwrap_or(0);
    while bytes.len() < whole {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(Seen { method, target, headers, body: String::from_utf8_lossy(&bytes[end..]).into_owned() })
}

async fn answer(stream: &mut TcpStream, reply: Reply) -> std::io::Result<()> {
    match reply {
        Reply::Answer { status, headers, body } => {
            let body = if matches!(status, 204 | 205 | 304) { String::new() } else { body };
            let mut head = format!("HTTP/1.1 {status} Told\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            stream.write_all(format!("{head}\r\n{body}").as_bytes()).await?;
            stream.shutdown().await
        }
        Reply::Silence => std::future::pending().await,
        Reply::Close => stream.shutdown().await,
        Reply::Truncated(status) => {
            let start = format!("HTTP/1.1 {status} Told\r\nContent-Length: 1000\r\n\r\n{{\"result\":");
            stream.write_all(start.as_bytes()).await?;
            stream.shutdown().await
        }
        Reply::Endless(status) => {
            stream.write_all(format!("HTTP/1.1 {status} Told\r\n\r\n").as_bytes()).await?;
            loop {
                stream.write_all(&[b' '; 16 * 1024]).await?;
            }
        }
        Reply::Drip(status) => {
            stream.write_all(format!("HTTP/1.1 {status} Told\r\nContent-Length: 100000\r\n\r\n").as_bytes()).await?;
            let mut tick = tokio::time::interval(Duration::from_millis(10));
            loop {
                tick.tick().await;
                stream.write_all(b" ").await?;
            }
        }
    }
}
