//! Mail over SMTP.
//!
//! The conversation is led step by step, because the outcome depends on where it ends: before the text of the mail is
//! sent nothing can have been delivered; from its first byte to the server's answer nobody knows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Mailboxes, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters, TlsVersion};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use lettre::{Message, transport};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::probe::Finding;
use super::secret::Held;
use super::wire::unauthorized;
use super::{ActionKind, Call, Connector, Effect, Inverse, Service, SetupError, cut, required, shape};
use crate::config::secret::LiveSecret;
use crate::config::{EmailConfig, MailTls};
use crate::guard::Cleared;
use crate::http::{self, Network, Trouble};
use crate::model::escape::Escape;
use crate::model::ids::IdempotencyKey;
use crate::model::outcome::{Failure, Outcome, Reason, Receipt, Verdict};

/// `email.send`
pub static SEND: ActionKind = ActionKind {
    name: "email.send",
    summary: "Sends a mail",
    service: Service::Email,
    effect: Effect::Message,
    changes_access: false,
    resets_risk: false,
    rights: &[],
    from_event: &[],
    check: |params| MailParams::parse(params).map(drop),
    schema: shape::<MailParams>,
    escape: |parameter| match parameter {
        "text" => Escape::Plain,
        "html" => Escape::Html,
        _ => Escape::Line,
    },
    lane: |_| None,
    inverse: |_| Inverse::impossible("it was sent; tell people what does not hold any more"),
};

/// The most recipients of one mail.
const MAX_RECIPIENTS: usize = 50;
/// The longest subject, in characters.
const MAX_SUBJECT: usize = 250;
/// How long the goodbye after a delivered mail may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// The mail server and the sender.
pub struct Mailer {
    host: String,
    port: u16,
    tls: Protection,
    login: Option<(String, Held)>,
    from: Mailbox,
    admins: Mailboxes,
    hello: ClientId,
    timeout: Duration,
}

enum Protection {
    Starttls(TlsParameters),
    Wrapped(TlsParameters),
    None,
}

impl std::fmt::Debug for Mailer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailer").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Mailer {
    /// Takes the `[email]` section and its secret, and reads the system's certificates. Nothing is sent. Mail goes to the
    /// server directly: proxies lead to web services only. TLS is 1.2 or 1.3.
    ///
    /// # Errors
    /// When `from` or one of `admins` is no address, `username` and `password` are not both there, or `tls = "none"` would leave this machine.
    pub fn new(config: &EmailConfig, password: Option<LiveSecret>, network: &Network) -> Result<Self, SetupError> {
        let section = Service::Email.section();
        let invalid = |problem: &str| SetupError::invalid(section, problem);
        let from: Mailbox =
            config.from.parse().map_err(|_| invalid("`from` is not `Name <user@example.com>` or an address"))?;
        let mut admins = Mailboxes::new();
        for admin in &config.admins {
            admins.push(admin.parse().map_err(|_| invalid("`admins` holds something that is not an address"))?);
        }
        let login = match (&config.username, password) {
            (Some(username), Some(password)) => {
                Some((username.clone(), Held::new(Service::Email, "password", password)))
            }
            (None, None) => None,
            _ => return Err(invalid("`username` and `password` belong together")),
        };
        let parameters = || {
            let mut builder = TlsParameters::builder(config.host.clone()).set_min_tls_version(TlsVersion::Tlsv12);
            let wrong = |_| invalid("no TLS can be set up; look at `host` and the certificates of this machine");
            for authority in network.authorities() {
                builder = builder.add_root_certificate(Certificate::from_der(authority.to_vec()).map_err(wrong)?);
            }
            builder.build().map_err(wrong)
        };
        let (tls, default_port) = match config.tls {
            MailTls::Starttls => (Protection::Starttls(parameters()?), transport::smtp::SUBMISSION_PORT),
            MailTls::Tls => (Protection::Wrapped(parameters()?), transport::smtp::SUBMISSIONS_PORT),
            MailTls::None if http::is_loopback_host(&config.host) => (Protection::None, transport::smtp::SMTP_PORT),
            MailTls::None => return Err(invalid("`tls = \"none\"` is only for a mail server on this machine")),
        };
        Ok(Self {
            host: config.host.clone(),
            port: config.port.unwrap_or(default_port),
            tls,
            login,
            hello: ClientId::Domain(from.email.domain().to_owned()),
            from,
            admins,
            timeout: config.timeout,
        })
    }

    /// Connects, protects the connection, and logs in. Changes nothing.
    pub async fn probe(&self) -> Vec<Finding> {
        let conversation = async {
            let mut connection = self.open().await?;
            let _ = timeout(GOODBYE, connection.abort()).await;
            Ok::<_, Outcome>(())
        };
        let result = match timeout(self.timeout, conversation).await {
            Ok(result) => result.map_err(Outcome::into_failure),
            Err(_) => {
                let detail = format!("{}:{} did not answer in {} s", self.host, self.port, self.timeout.as_secs_f32());
                Err(Failure::new(Reason::Timeout, detail))
            }
        };
        let protected = match &self.tls {
            Protection::Wrapped(_) => ", TLS",
            Protection::Starttls(_) => ", STARTTLS",
            Protection::None => ", without TLS",
        };
        let login = if self.login.is_some() { ", accepts the login" } else { ", no login configured" };
        let detail = result.map(|()| format!("{}:{} answers{protected}{login}", self.host, self.port));
        vec![Finding::of("mail server", detail)]
    }

    /// Leads the whole conversation. `text_sent` becomes true when the text of the mail begins to leave.
    async fn deliver(&self, message: &Message, text_sent: &AtomicBool) -> Result<(), Outcome> {
        let mut connection = self.open().await?;
        let result = self.converse(&mut connection, message, text_sent).await;
        // The goodbye is a courtesy: the outcome stands before it.
        let _ = timeout(GOODBYE, connection.abort()).await;
        result
    }

    /// Connects and logs in. A password that is refused is tried again, once and over a connection of its own, if it was
    /// replaced: nothing was said about a mail yet.
    async fn open(&self) -> Result<AsyncSmtpConnection, Outcome> {
        let mut connection = self.connect().await?;
        let Some((username, held)) = &self.login else { return Ok(connection) };
        let password = held.current();
        let Err((outcome, is_refusal)) = self.log_in(&mut connection, username, &password).await else {
            return Ok(connection);
        };
        let _ = timeout(GOODBYE, connection.abort()).await;
        let Some(password) = is_refusal.then(|| held.replacement(&password)).flatten() else { return Err(outcome) };
        let mut connection = self.connect().await?;
        match self.log_in(&mut connection, username, &password).await {
            Ok(()) => Ok(connection),
            Err((outcome, _)) => {
                let _ = timeout(GOODBYE, connection.abort()).await;
                Err(outcome)
            }
        }
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Outcome> {
        let unreachable = |error| self.unreachable("connecting", &error);
        let wrapped = match &self.tls {
            Protection::Wrapped(parameters) => Some(parameters.clone()),
            Protection::Starttls(_) | Protection::None => None,
        };
        let address = (self.host.as_str(), self.port);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(address, Some(self.timeout), &self.hello, wrapped, None)
                .await
                .map_err(unreachable)?;
        if let Protection::Starttls(parameters) = &self.tls {
            connection
                .starttls(parameters.clone(), &self.hello)
                .await
                .map_err(|error| self.unreachable("starting TLS", &error))?;
        }
        Ok(connection)
    }

    /// The error says also whether it was the server that refused, such as with 535 (RFC 4954, section 6).
    async fn log_in(
        &self,
        connection: &mut AsyncSmtpConnection,
        username: &str,
        password: &SecretString,
    ) -> Result<(), (Outcome, bool)> {
        let credentials = Credentials::new(username.to_owned(), password.expose_secret().to_owned());
        connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await.map(drop).map_err(|error| {
            let detail = format!("logging in at {}: {}", self.host, said(&error, Some((username, password))));
            let is_refusal = error.is_permanent();
            let outcome = if is_refusal || error.is_client() {
                unauthorized(Failure::new(Reason::Unauthorized, detail))
            } else {
                Outcome::Transient(Failure::new(reason_of(&error, false), detail))
            };
            (outcome, is_refusal)
        })
    }

    async fn converse(
        &self,
        connection: &mut AsyncSmtpConnection,
        message: &Message,
        text_sent: &AtomicBool,
    ) -> Result<(), Outcome> {
        let text = message.formatted();
        let envelope = message.envelope();
        let mut options = Vec::new();
        if !text.is_ascii() {
            options.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        let mut addresses = envelope.from().into_iter().chain(envelope.to());
        if addresses.any(|address| !AsRef::<str>::as_ref(address).is_ascii()) {
            if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                let detail = format!("{} takes no addresses with letters outside ASCII", self.host);
                return Err(Outcome::Permanent(Failure::new(Reason::Rejected, detail)));
            }
            options.push(MailParameter::SmtpUtfEight);
        }
        let refused = |step: &'static str| move |error| self.failed(step, &error, false);
        connection.command(Mail::new(envelope.from().cloned(), options)).await.map_err(refused("naming the sender"))?;
        for recipient in envelope.to() {
            connection
                .command(Rcpt::new(recipient.clone(), Vec::new()))
                .await
                .map_err(refused("naming a recipient"))?;
        }
        connection.command(Data).await.map_err(refused("announcing the mail"))?;

        text_sent.store(true, Ordering::Relaxed);
        connection.message(&text).await.map_err(|error| self.failed("sending the mail", &error, true))?;
        Ok(())
    }

    /// The outcome when there is no connection to lead a conversation on, or no TLS.
    fn unreachable(&self, step: &str, error: &transport::smtp::Error) -> Outcome {
        match Trouble::of_chain(error) {
            Some(trouble) if !(error.is_permanent() || error.is_transient()) => {
                let words = format!("{step} at {}:{}: {trouble}", self.host, self.port);
                Outcome::Transient(Failure::new(reason_of(error, false), words))
            }
            _ => self.failed(step, error, false),
        }
    }

    /// The outcome of an error of the conversation. An answer of the server is certain; anything else is certain only
    /// before the text was sent.
    fn failed(&self, step: &str, error: &transport::smtp::Error, text_sent: bool) -> Outcome {
        let password = self.login.as_ref().map(|(username, password)| (username.as_str(), password.current()));
        let login = password.as_ref().map(|(username, password)| (*username, password));
        let said = said(error, login);
        let failure =
            Failure::new(reason_of(error, text_sent), format!("{step} at {}:{}: {said}", self.host, self.port));
        if error.is_permanent() {
            Outcome::Permanent(failure)
        } else if error.is_transient() || !text_sent {
            Outcome::Transient(failure)
        } else {
            Outcome::Unknown(failure)
        }
    }
}

/// The error in words, bounded and without our password, should the server repeat it.
fn said(error: &transport::smtp::Error, login: Option<(&str, &SecretString)>) -> String {
    let said = error.to_string();
    match login {
        Some((username, password)) if repeats_password(&said, username, password) => {
            "an answer that is not repeated here because it holds a secret".to_owned()
        }
        _ => cut(&Escape::Line.apply(&said), 200),
    }
}

/// Whether a text holds the password, as it is or as it travels: some servers repeat the command that they refuse.
fn repeats_password(text: &str, username: &str, password: &SecretString) -> bool {
    let password = password.expose_secret();
    let plain = Zeroizing::new(format!("\0{username}\0{password}"));
    let (plain, alone) = (Zeroizing::new(BASE64.encode(&*plain)), Zeroizing::new(BASE64.encode(password)));
    [password, plain.trim_end_matches('='), alone.trim_end_matches('=')]
        .iter()
        .any(|form| !form.is_empty() && text.contains(form))
}

#[async_trait]
impl Connector for Mailer {
    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        let params = MailParams::parse(&call.params);
        let message = match params.and_then(|params| params.message(&self.from, &self.admins, &call.key)) {
            Ok(message) => message,
            Err(problem) => return Outcome::Permanent(Failure::new(Reason::BadParameters, problem)),
        };
        let text_sent = AtomicBool::new(false);
        match timeout(self.timeout, self.deliver(&message, &text_sent)).await {
            Ok(Ok(())) => Outcome::Done(Receipt { id: Some(message_id(&self.from, &call.key)), ..Receipt::default() }),
            Ok(Err(outcome)) => outcome,
            Err(_) => {
                let detail = format!("{}:{} did not finish in {} s", self.host, self.port, self.timeout.as_secs_f32());
                let failure = Failure::new(Reason::Timeout, detail);
                if text_sent.load(Ordering::Relaxed) { Outcome::Unknown(failure) } else { Outcome::Transient(failure) }
            }
        }
    }

    async fn verify(&self, _: &Call) -> Verdict {
        Verdict::CannotTell
    }
}

fn reason_of(error: &transport::smtp::Error, text_sent: bool) -> Reason {
    if error.is_permanent() {
        Reason::Rejected
    } else if error.is_transient() {
        Reason::ServiceError
    } else if error.is_timeout() {
        Reason::Timeout
    } else if error.is_response() || error.is_client() {
        Reason::BadAnswer
    } else if text_sent {
        Reason::ConnectionLost
    } else {
        Reason::Connect
    }
}

/// Puts the addresses of people in place of the words for them, so that they are asked for like any other fact: `"user"` is
/// the affected user, `"manager"` his manager. Who has no address becomes nothing. `"admins"` are known only here, and are
/// put in when the mail is sent.
pub(super) fn written_out(with: &toml::Table) -> toml::Table {
    let mut with = with.clone();
    for name in ["to", "cc"] {
        match with.get_mut(name) {
            Some(toml::Value::String(word)) => write_out(word),
            Some(toml::Value::Array(words)) => words.iter_mut().for_each(|word| {
                if let toml::Value::String(word) = word {
                    write_out(word);
                }
            }),
            _ => {}
        }
    }
    with
}

fn write_out(word: &mut String) {
    let written = match word.as_str() {
        "user" => "{{ user.email }}",
        "manager" => "{% if manager %}{{ manager.email }}{% endif %}",
        _ => return,
    };
    *word = written.to_owned();
}

/// Whether the mail of these parameters goes to the admins of the configuration.
pub(crate) fn names_admins(with: &toml::Table) -> bool {
    let is_word = |value: &toml::Value| value.as_str() == Some(ADMINS);
    ["to", "cc"].into_iter().filter_map(|name| with.get(name)).any(|value| match value {
        toml::Value::Array(words) => words.iter().any(is_word),
        word => is_word(word),
    })
}

/// Stands for the addresses in `email.admins`.
const ADMINS: &str = "admins";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MailParams {
    /// An address or a list of them. "user" is the affected user's, "manager" his manager's, "admins" those of [email].
    to: Addresses,
    /// The same, for a copy.
    cc: Option<Addresses>,
    subject: String,
    text: String,
    html: Option<String>,
}

/// One address or a list of them. A string is never divided at commas: a name from an event could add a recipient.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "an address or a list of addresses")]
enum Addresses {
    One(String),
    Many(Vec<String>),
}

impl Addresses {
    fn list(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    /// What is neither an address, nor a word for people, nor filled in yet.
    fn check(&self, parameter: &str) -> Result<(), String> {
        let is_open = |text: &str| text.contains("{{") || text.contains("{%");
        let mut told = self.list().iter().filter(|text| !text.trim().is_empty() && *text != ADMINS && !is_open(text));
        told.try_for_each(|text| mailbox(parameter, text).map(drop))
    }

    /// The addresses, or what is wrong with them.
    fn mailboxes(&self, parameter: &str, admins: &Mailboxes) -> Result<Mailboxes, String> {
        let mut all: Vec<Mailbox> = Vec::new();
        for text in self.list().iter().filter(|text| !text.trim().is_empty()) {
            if text == ADMINS {
                all.extend(admins.iter().cloned());
                continue;
            }
            all.push(mailbox(parameter, text)?);
        }
        // Somebody can be an admin and the manager as well.
        let mut known: Vec<&Mailbox> = Vec::new();
        for mailbox in &all {
            if !known.iter().any(|other| other.email == mailbox.email) {
                known.push(mailbox);
            }
        }
        Ok(known.into_iter().cloned().collect())
    }
}

fn mailbox(parameter: &str, text: &str) -> Result<Mailbox, String> {
    literal(text).parse().map_err(|_| {
        let text = cut(&Escape::Line.apply(text), 80);
        format!(
            "`{parameter}`: `{text}` is not one mail address; several are written as a list, and people by the words \
             \"user\", \"manager\" and \"admins\""
        )
    })
}

impl MailParams {
    fn parse(params: &Value) -> Result<Self, String> {
        let params = Self::deserialize(params).map_err(|error| error.to_string())?;
        if params.to.list().iter().all(|text| text.trim().is_empty()) {
            return Err("`to` names nobody: whom it stands for has no mail address in Okta".to_owned());
        }
        params.to.check("to")?;
        params.cc.as_ref().map_or(Ok(()), |cc| cc.check("cc"))?;
        required("subject", &params.subject)?;
        required("text", &params.text)?;
        Ok(params)
    }

    fn message(self, from: &Mailbox, admins: &Mailboxes, key: &IdempotencyKey) -> Result<Message, String> {
        let to = self.to.mailboxes("to", admins)?;
        let cc = self.cc.map(|cc| cc.mailboxes("cc", admins)).transpose()?.unwrap_or_default();
        let (named, copied) = (to.iter().count(), cc.iter().count());
        if named == 0 {
            return Err("`to` names nobody: [email] has no `admins`".to_owned());
        }
        if named + copied > MAX_RECIPIENTS {
            return Err(format!("`to` and `cc` name more than {MAX_RECIPIENTS} recipients"));
        }
        let mut message = Message::builder()
            .from(from.clone())
            .mailbox(lettre::message::header::To::from(to))
            .subject(cut(&literal(&self.subject), MAX_SUBJECT))
            .message_id(Some(message_id(from, key)))
            // Nobody's absence note answers a mail that says so (RFC 3834).
            .raw_header(header("Auto-Submitted", "auto-generated"))
            .raw_header(header("X-Okta-Responder-Key", key.as_str()));
        if copied > 0 {
            message = message.mailbox(lettre::message::header::Cc::from(cc));
        }
        let text = SinglePart::builder().header(ContentType::TEXT_PLAIN).body(self.text);
        let built = match self.html.filter(|html| !html.trim().is_empty()) {
            None => message.singlepart(text),
            Some(html) => {
                let html = SinglePart::builder().header(ContentType::TEXT_HTML).body(html);
                message.multipart(MultiPart::alternative().singlepart(text).singlepart(html))
            }
        };
        built.map_err(|error| format!("no mail can be built from the parameters: {error}"))
    }
}

/// A text for a header that readers show as it is written: one line, and no `=?charset?B?…?=`, which they would decode to
/// anything (RFC 2047).
fn literal(text: &str) -> String {
    Escape::Line.apply(text).replace("=?", "= ?")
}

/// The same key always gives the same id, so that a receiver who gets a mail twice can tell.
fn message_id(from: &Mailbox, key: &IdempotencyKey) -> String {
    format!("<{key}@okta-responder.{}>", from.email.domain())
}

fn header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

#[cfg(test)]
mod tests;
