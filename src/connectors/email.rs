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
    /// When `from` is no address, `username` and `password` are not both there, or `tls = "none"` would leave this machine.
    pub fn new(config: &EmailConfig, password: Option<LiveSecret>, network: &Network) -> Result<Self, SetupError> {
        let section = Service::Email.section();
        let invalid = |problem: &str| SetupError::invalid(section, problem);
        let from: Mailbox =
            config.from.parse().map_err(|_| invalid("`from` is not `Name <user@example.com>` or an address"))?;
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
        let message = match MailParams::parse(&call.params).and_then(|params| params.message(&self.from, &call.key)) {
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

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MailParams {
    to: Addresses,
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

    /// The addresses, or what is wrong with them.
    fn mailboxes(&self, parameter: &str) -> Result<Mailboxes, String> {
        let mut all = Mailboxes::new();
        for text in self.list().iter().filter(|text| !text.trim().is_empty()) {
            let mailbox: Mailbox = literal(text).parse().map_err(|_| {
                let text = cut(&Escape::Line.apply(text), 80);
                format!("`{parameter}`: `{text}` is not one mail address; several are written as a list")
            })?;
            all.push(mailbox);
        }
        Ok(all)
    }
}

impl MailParams {
    fn parse(params: &Value) -> Result<Self, String> {
        let params = Self::deserialize(params).map_err(|error| error.to_string())?;
        if params.to.list().is_empty() {
            return Err("`to` is empty".to_owned());
        }
        required("subject", &params.subject)?;
        required("text", &params.text)?;
        Ok(params)
    }

    fn message(self, from: &Mailbox, key: &IdempotencyKey) -> Result<Message, String> {
        let to = self.to.mailboxes("to")?;
        let cc = self.cc.map(|cc| cc.mailboxes("cc")).transpose()?.unwrap_or_default();
        let (named, copied) = (to.iter().count(), cc.iter().count());
        if named == 0 {
            return Err("`to` names nobody".to_owned());
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
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use serde_json::json;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::super::rotation::SecretFile;
    use super::*;
    use crate::connectors::probe::Grade;

    const KEY: &str = "0123456789abcdef0123456789abcdef01234567";
    const PASSWORD: &str = "pass_word_1";
    /// The step at which the text of the mail has arrived whole.
    const TEXT: &str = ".";

    /// What the server does at a step instead of accepting it.
    #[derive(Clone)]
    enum Fault {
        Say(&'static str),
        Close,
        Silence,
    }

    /// A mail server on loopback that accepts everything but `fault`, which strikes at the line that begins with `at`.
    struct Server {
        port: u16,
        lines: Arc<Mutex<Vec<String>>>,
        task: tokio::task::JoinHandle<()>,
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    impl Server {
        async fn open(at: &'static str, fault: Option<Fault>) -> Self {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let lines = Arc::new(Mutex::new(Vec::new()));
            let log = Arc::clone(&lines);
            let task = tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (read, mut write) = stream.into_split();
                    let mut incoming = BufReader::new(read).lines();
                    let mut in_text = false;
                    let mut line = "greeting".to_owned();
                    loop {
                        if in_text && line != TEXT {
                            log.lock().unwrap().push(line);
                        } else {
                            let answer = match (&fault, &line) {
                                (Some(Fault::Say(answer)), line) if line.starts_with(at) => *answer,
                                (Some(Fault::Close), line) if line.starts_with(at) => break,
                                (Some(Fault::Silence), line) if line.starts_with(at) => std::future::pending().await,
                                (_, line) if line.starts_with("EHLO") => "250-mail\r\n250-8BITMIME\r\n250 AUTH PLAIN",
                                (_, line) if line.starts_with("AUTH") => "235 welcome",
                                (_, line) if line.starts_with("DATA") => "354 go on",
                                (_, line) if line == "greeting" => "220 mail",
                                _ => "250 ok",
                            };
                            in_text = answer.starts_with("354");
                            log.lock().unwrap().push(line);
                            if write.write_all(format!("{answer}\r\n").as_bytes()).await.is_err() {
                                break;
                            }
                        }
                        match incoming.next_line().await {
                            Ok(Some(next)) => line = next,
                            _ => break,
                        }
                    }
                }
            });
            Self { port, lines, task }
        }

        fn text(&self) -> String {
            self.lines.lock().unwrap().join("\n")
        }
    }

    fn config(port: u16) -> EmailConfig {
        EmailConfig {
            host: "127.0.0.1".to_owned(),
            port: Some(port),
            tls: MailTls::None,
            from: "Okta Responder <responder@example.com>".to_owned(),
            username: Some("daemon".to_owned()),
            password: None,
            timeout: Duration::from_secs(20),
        }
    }

    fn call(params: Value) -> Cleared<Call> {
        Cleared::unguarded(Call {
            key: IdempotencyKey::from_stored(KEY.to_owned()),
            params,
            attempt: 1,
            earlier: Receipt::default(),
        })
    }

    fn mail() -> Cleared<Call> {
        call(json!({"to": "ada@example.com", "subject": "User risk HIGH", "text": "Look at this."}))
    }

    async fn attempt(at: &'static str, fault: Fault) -> Outcome {
        let timeout = Duration::from_millis(if matches!(fault, Fault::Silence) { 300 } else { 20_000 });
        let server = Server::open(at, Some(fault)).await;
        let mailer =
            Mailer::new(&EmailConfig { timeout, ..config(server.port) }, Some(PASSWORD.into()), &Network::default())
                .unwrap();
        let outcome = mailer.perform(&mail()).await;
        assert!(!format!("{outcome:?} {mailer:?}").contains(PASSWORD), "{outcome:?}");
        outcome
    }

    #[test]
    fn a_password_is_known_again_in_every_form_in_which_it_travels() {
        let password = SecretString::from("hunter2");
        for said in ["bad: hunter2", "500 what is AUTH PLAIN AG1lAGh1bnRlcjI=?", "500 what is aHVudGVyMg?"] {
            assert!(repeats_password(said, "me", &password), "{said}");
        }
        assert!(!repeats_password("535 5.7.8 bad credentials", "me", &password));
    }

    #[tokio::test]
    async fn a_mail_carries_the_key_and_says_that_it_is_automatic() {
        let server = Server::open("", None).await;
        let mailer = Mailer::new(&config(server.port), Some(PASSWORD.into()), &Network::default()).unwrap();
        let params = json!({
            "to": ["Ada <ada@example.com>", "grace@example.com"], "cc": "soc@example.com",
            "subject": "Risk\r\nBcc: eve@example.com", "text": "plain part", "html": "<p>rich part</p>",
        });
        let outcome = mailer.perform(&call(params)).await;
        let Outcome::Done(receipt) = &outcome else { panic!("{outcome:?}") };
        assert_eq!(receipt.id, Some(format!("<{KEY}@okta-responder.example.com>")));
        let text = server.text();
        for part in [
            "MAIL FROM:<responder@example.com>",
            "RCPT TO:<ada@example.com>",
            "RCPT TO:<grace@example.com>",
            "RCPT TO:<soc@example.com>",
            &format!("Message-ID: <{KEY}@okta-responder.example.com>"),
            "Auto-Submitted: auto-generated",
            &format!("X-Okta-Responder-Key: {KEY}"),
            "Subject: Risk  Bcc: eve@example.com",
            "multipart/alternative",
            "plain part",
            "<p>rich part</p>",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert!(!text.contains("\nBcc:") && !text.contains("RCPT TO:<eve"), "{text}");
    }

    #[tokio::test]
    async fn what_fails_before_the_text_is_sent_may_be_repeated() {
        for at in ["greeting", "EHLO", "AUTH", "MAIL", "RCPT", "DATA"] {
            for fault in [Fault::Close, Fault::Silence, Fault::Say("451 later"), Fault::Say("what is this")] {
                let outcome = attempt(at, fault).await;
                assert!(matches!(outcome, Outcome::Transient(_)), "{at}: {outcome:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_refusal_is_certain_at_every_step() {
        for at in ["MAIL", "RCPT", "DATA", TEXT] {
            let outcome = attempt(at, Fault::Say("550 no")).await;
            assert!(matches!(&outcome, Outcome::Permanent(f) if f.reason == Reason::Rejected), "{at}: {outcome:?}");
        }
        let outcome = attempt(TEXT, Fault::Say("452 full")).await;
        assert!(matches!(outcome, Outcome::Transient(_)), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_refused_login_waits_for_the_operator_and_hides_the_password() {
        let outcome = attempt("AUTH", Fault::Say("535 wrong: pass_word_1")).await;
        assert!(matches!(&outcome, Outcome::Transient(f) if f.reason == Reason::Unauthorized), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_password_that_was_replaced_is_read_again_and_used_in_the_same_attempt() {
        // Of this login the server refuses the old password: \0daemon\0pass_word_1.
        let server = Server::open("AUTH PLAIN AGRhZW1vbgBwYXNzX3dvcmRfMQ==", Some(Fault::Say("535 5.7.8 no"))).await;
        let file = SecretFile::new(PASSWORD);
        let mailer = Mailer::new(&config(server.port), Some(file.live()), &Network::default()).unwrap();
        let logins = || server.text().matches("AUTH").count();

        let outcome = mailer.perform(&mail()).await;
        assert!(matches!(&outcome, Outcome::Transient(f) if f.reason == Reason::Unauthorized), "{outcome:?}");
        assert_eq!(logins(), 1, "a password that is still the same is not sent again");
        file.write("");
        assert!(matches!(mailer.probe().await[0].grade, Grade::Failed(_)));
        assert_eq!(logins(), 2);

        file.write("pass_word_2");
        let outcome = mailer.perform(&mail()).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        assert_eq!(logins(), 4);
        assert_eq!(mailer.probe().await[0].grade, Grade::Fine);
        assert_eq!(logins(), 5, "from now on it is the new one");
        assert_eq!(server.text().matches("MAIL FROM").count(), 1);
    }

    #[tokio::test]
    async fn what_is_lost_after_the_text_was_sent_is_unknown() {
        for (fault, reason) in [
            (Fault::Close, Reason::BadAnswer),
            (Fault::Silence, Reason::Timeout),
            (Fault::Say("what is this"), Reason::BadAnswer),
        ] {
            let outcome = attempt(TEXT, fault).await;
            assert!(matches!(&outcome, Outcome::Unknown(f) if f.reason == reason), "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_tried_again() {
        let port = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().port();
        let mailer = Mailer::new(&config(port), Some(PASSWORD.into()), &Network::default()).unwrap();
        let outcome = mailer.perform(&mail()).await;
        assert!(matches!(&outcome, Outcome::Transient(f) if f.reason == Reason::Connect), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_server_without_starttls_gets_neither_password_nor_mail() {
        let server = Server::open("", None).await;
        let section = EmailConfig { tls: MailTls::Starttls, ..config(server.port) };
        let mailer = Mailer::new(&section, Some(PASSWORD.into()), &Network::default()).unwrap();
        let outcome = mailer.perform(&mail()).await;
        assert!(matches!(outcome, Outcome::Transient(_)), "{outcome:?}");
        assert!(!server.text().contains("AUTH") && !server.text().contains("MAIL"), "{}", server.text());
    }

    #[tokio::test]
    async fn an_attempt_that_is_dropped_sends_no_more() {
        let silent = Server::open("EHLO", Some(Fault::Silence)).await;
        let mailer = Mailer::new(&config(silent.port), Some(PASSWORD.into()), &Network::default()).unwrap();
        let dropped = timeout(Duration::from_millis(50), mailer.perform(&mail())).await;
        assert!(dropped.is_err());
        assert!(!silent.text().contains("MAIL"));
    }

    #[tokio::test]
    async fn a_bad_address_is_a_bad_parameter() {
        let server = Server::open("", None).await;
        let mailer = Mailer::new(&config(server.port), Some(PASSWORD.into()), &Network::default()).unwrap();
        for to in [
            json!("no address"),
            json!(["ada@example.com", "a@b@c"]),
            json!(""),
            json!([" "]),
            json!("a\n@b.c"),
            json!("eve@example.org, ada@example.com"),
            json!("Ada, eve@example.org <ada@example.com>"),
        ] {
            let outcome = mailer.perform(&call(json!({"to": to, "subject": "s", "text": "t"}))).await;
            assert!(
                matches!(&outcome, Outcome::Permanent(f) if f.reason == Reason::BadParameters),
                "{to}: {outcome:?}"
            );
        }
        assert_eq!(server.text(), "");
    }

    /// The mail that these parameters make, as it leaves.
    fn sent(params: Value) -> Result<String, String> {
        let from: Mailbox = "Okta Responder <responder@example.com>".parse().unwrap();
        let message = MailParams::parse(&params)?.message(&from, &IdempotencyKey::from_stored(KEY.to_owned()))?;
        Ok(String::from_utf8(message.formatted()).unwrap())
    }

    /// The names of the headers, sorted, those of the parts behind those of the mail.
    fn header_names(text: &str) -> Vec<String> {
        let head = text.split("\r\n\r\n").next().unwrap();
        let lines = head.split("\r\n").filter(|line| !line.starts_with([' ', '\t']));
        let mut names: Vec<_> = lines.map(|line| line.split(':').next().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_subject_stays_one_header_that_reads_as_it_was_written() {
        let usual = header_names(&sent(json!({"to": "a@example.com", "subject": "s", "text": "t"})).unwrap());
        for subject in [
            "x\r\nBcc: eve@example.org",
            "x\r\n\r\n<html>",
            "x\u{2028}Bcc: y",
            "x\u{85}Content-Type: text/html",
            "é\r\nBcc: eve@example.org",
            "=?utf-8?B?DQpCY2M6IGV2ZUBleGFtcGxlLm9yZw==?=",
        ] {
            let text = sent(json!({"to": "a@example.com", "subject": subject, "text": "t"})).unwrap();
            assert_eq!(header_names(&text), usual, "{text}");
            let coded = text.lines().find(|line| line.starts_with("Subject:")).unwrap();
            assert!(!subject.is_ascii() || !coded.contains("=?"), "{coded}");
        }
    }

    #[test]
    fn a_text_is_plain_text_whatever_it_holds() {
        for body in
            ["<html><script>", "\r\n--b\r\nContent-Type: text/html\r\n\r\n<b>", "\u{feff}<!doctype html>", "é<b>"]
        {
            let text = sent(json!({"to": "a@example.com", "subject": "s", "text": body})).unwrap();
            let head = text.split("\r\n\r\n").next().unwrap();
            assert!(head.contains("Content-Type: text/plain; charset=utf-8"), "{head}");
            assert!(!head.contains("multipart"), "{head}");
        }
    }

    #[test]
    fn parts_of_a_mail_cannot_be_ended_by_their_text() {
        let params = json!({"to": "a@example.com", "subject": "s", "text": "t", "html": "<b>x</b>"});
        let boundary = |text: &str| text.split("boundary=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let (one, other) = (boundary(&sent(params.clone()).unwrap()), boundary(&sent(params).unwrap()));
        assert!(one.len() >= 16 && one != other, "nobody can guess a boundary that is drawn anew");
    }

    proptest! {
        #[test]
        fn no_word_of_an_event_adds_a_header_or_a_recipient(word in "(\\PC|[\\r\\n\\t,;:<>@\"()=?]){0,40}") {
            let plain = sent(json!({"to": "a@example.com", "subject": "s", "text": "t"})).unwrap();
            let params = json!({"to": format!("{word} <a@example.com>"), "subject": format!("s {word}"), "text": format!("t{word}")});
            // Most words are no name; then there is no mail at all.
            if let Ok(text) = sent(params) {
                prop_assert_eq!(header_names(&text), header_names(&plain));
                let mailbox: Result<Mailbox, _> = literal(&format!("{word} <a@example.com>")).parse();
                prop_assert_eq!(mailbox.unwrap().email.to_string(), "a@example.com");
            }
        }
    }

    #[test]
    fn parameters_are_checked() {
        let check = SEND.check;
        assert!(check(&json!({"to": "{{ manager.email }}", "subject": "s", "text": "t"})).is_ok());
        assert!(check(&json!({"to": ["a", "b"], "cc": [], "subject": "s", "text": "t", "html": "h"})).is_ok());
        assert!(check(&json!({"to": [], "subject": "s", "text": "t"})).is_err());
        assert!(check(&json!({"to": 5, "subject": "s", "text": "t"})).is_err());
        assert!(check(&json!({"to": "a", "subject": "s", "text": "t", "bcc": "x"})).is_err());
    }

    #[test]
    fn a_section_that_cannot_work_is_refused() {
        let secret = || Some(LiveSecret::from(PASSWORD));
        assert!(Mailer::new(&config(25), secret(), &Network::default()).is_ok());
        assert!(Mailer::new(&config(25), None, &Network::default()).is_err());
        assert!(
            Mailer::new(
                &EmailConfig { host: "mail.example.com".to_owned(), ..config(25) },
                secret(),
                &Network::default()
            )
            .is_err()
        );
        assert!(
            Mailer::new(&EmailConfig { from: "nobody".to_owned(), ..config(25) }, secret(), &Network::default())
                .is_err()
        );
    }
}
