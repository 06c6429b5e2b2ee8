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
        admins: Vec::new(),
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
        assert!(matches!(&outcome, Outcome::Permanent(f) if f.reason == Reason::BadParameters), "{to}: {outcome:?}");
    }
    assert_eq!(server.text(), "");
}

/// Those of the configuration.
fn admins() -> Mailboxes {
    ["Root <root@example.com>", "boss@example.com"].map(|admin| admin.parse::<Mailbox>().unwrap()).into_iter().collect()
}

/// The mail that these parameters make, as it leaves.
fn sent(params: Value) -> Result<String, String> {
    let from: Mailbox = "Okta Responder <responder@example.com>".parse().unwrap();
    let message =
        MailParams::parse(&params)?.message(&from, &admins(), &IdempotencyKey::from_stored(KEY.to_owned()))?;
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
    for body in ["<html><script>", "\r\n--b\r\nContent-Type: text/html\r\n\r\n<b>", "\u{feff}<!doctype html>", "é<b>"]
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
fn people_are_named_by_words_and_nobody_gets_a_mail_twice() {
    let written = |with: &str| written_out(&toml::from_str(with).unwrap()).to_string();
    assert_eq!(written("to = \"user\""), "to = \"{{ user.email }}\"\n");
    let list = written("to = [\"admins\", \"manager\", \"a@example.com\"]\ncc = \"user\"\ntext = \"user\"");
    assert!(
        list.contains("\"admins\", \"{% if manager %}{{ manager.email }}{% endif %}\", \"a@example.com\""),
        "{list}"
    );
    assert!(list.contains("cc = \"{{ user.email }}\"") && list.contains("text = \"user\""), "{list}");
    let names = |with: &str| names_admins(&toml::from_str(with).unwrap());
    assert_eq!(["to = \"admins\"", "cc = [\"a\", \"admins\"]", "to = \"user\""].map(names), [true, true, false]);

    let to = |params: Value| {
        let text = sent(params).unwrap();
        text.lines().find_map(|line| line.strip_prefix("To: ")).unwrap().to_owned()
    };
    let mail = |people: Value| json!({"to": people, "subject": "s", "text": "t"});
    assert_eq!(to(mail(json!("admins"))), "Root <root@example.com>, boss@example.com");
    assert_eq!(to(mail(json!(["boss@example.com", "", "admins"]))), "boss@example.com, Root <root@example.com>");
    let nobody = sent(mail(json!(["", " "]))).unwrap_err();
    assert!(nobody.contains("whom it stands for has no mail address"), "{nobody}");
    let from: Mailbox = "responder@example.com".parse().unwrap();
    let params = MailParams::parse(&mail(json!("admins"))).unwrap();
    let error = params.message(&from, &Mailboxes::new(), &IdempotencyKey::from_stored(KEY.to_owned())).unwrap_err();
    assert!(error.contains("[email] has no `admins`"), "{error}");
}

#[test]
fn parameters_are_checked() {
    let check = SEND.check;
    assert!(check(&json!({"to": "{{ manager.email }}", "subject": "s", "text": "t"})).is_ok());
    assert!(
        check(
            &json!({"to": ["a@b.c", "admins", "{{ user.email }}"], "cc": [], "subject": "s", "text": "t", "html": "h"})
        )
        .is_ok()
    );
    for people in [json!({"to": "admin"}), json!({"to": ["a@b.c", "admin"]}), json!({"to": "admins", "cc": "admin"})] {
        let mut mail = json!({"subject": "s", "text": "t"});
        mail.as_object_mut().unwrap().extend(people.as_object().unwrap().clone());
        let problem = check(&mail).unwrap_err();
        assert!(problem.contains("`admin` is not one mail address") && problem.contains("\"manager\""), "{problem}");
    }
    assert!(check(&json!({"to": [], "subject": "s", "text": "t"})).is_err());
    assert!(check(&json!({"to": 5, "subject": "s", "text": "t"})).is_err());
    assert!(check(&json!({"to": "a@b.c", "subject": "s", "text": "t", "bcc": "x"})).is_err());
}

#[test]
fn a_section_that_cannot_work_is_refused() {
    let secret = || Some(LiveSecret::from(PASSWORD));
    assert!(Mailer::new(&config(25), secret(), &Network::default()).is_ok());
    assert!(Mailer::new(&config(25), None, &Network::default()).is_err());
    assert!(
        Mailer::new(&EmailConfig { host: "mail.example.com".to_owned(), ..config(25) }, secret(), &Network::default())
            .is_err()
    );
    assert!(
        Mailer::new(&EmailConfig { from: "nobody".to_owned(), ..config(25) }, secret(), &Network::default()).is_err()
    );
}
