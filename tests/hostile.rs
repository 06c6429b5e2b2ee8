//! What attackers and broken services can send: none of it stops the daemon, holds up others or hides an event.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use okta_responder::demo::org::{Fault, Misbehaviour, Service, User, events};
use support::every::{Every, FAST};
use support::ledger::Ledger;
use support::{Scene, inbox_of};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_answer_never_delays_what_goes_to_another() {
    let settings = format!("{FAST}concurrency = 1\n");
    let every = Every::with(&settings, &["incident", "add"], "").await;
    every.scene.edit("timeout = \"2s\"\n\n[slack]", "timeout = \"5m\"\n\n[slack]");
    every.scene.org.fault(every.fault("incident", Misbehaviour::Delay(Duration::from_secs(240))).always());
    every.push();
    let _daemon = every.scene.daemon();
    let ledger = Ledger::of(&every.scene).await;
    ledger.wait_for("add", "succeeded").await;
    ledger.wait_for("incident", "started").await;
    assert!(every.scene.org.is_member(&every.high, &every.user.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_events_about_one_user_does_not_hold_up_another_user() {
    let every = Every::new(&["add"], "").await;
    let other = every.scene.org.add_user(User::new("Bob", "Miller"));
    // Each of them asks Okta for the user, one after another, and Okta is slow.
    every.scene.edit("name = \"add\"", "name = \"add\"\nwhen = 'user.status == \"ACTIVE\"'");
    let slow = Fault::new(Service::Okta, Misbehaviour::Delay(Duration::from_millis(500)));
    every.scene.org.fault(slow.method("GET").path(&every.user.id).always());
    let mut flood: Vec<_> = (0..600).map(|_| events::sign_in(&every.user, "HIGH")).collect();
    flood.push(events::sign_in(&other, "HIGH"));
    every.scene.org.push_events(flood);
    let _daemon = every.scene.daemon();
    let ledger = Ledger::of(&every.scene).await;
    ledger.wait_until(|actions| actions.iter().any(|action| action.user.as_deref() == Some(&other.id))).await;
    let decided = ledger.events().await.iter().filter(|event| event.state == "decided").count();
    assert!(decided < 100, "{decided} events of the flood came first");
}

/// Tells a user's names everywhere.
const TELL_ALL: &str = r##"
[[playbook]]
name = "tell-all"
on = ["user.session.start"]

  [[playbook.step]]
  name = "slack"
  action = "slack.message.post"
    [playbook.step.with]
    channel = "#security"
    text = "Risk of {{ target.name }}\n<{{ links.user }}|User>"
    blocks = [{ type = "section", text = { type = "mrkdwn", text = "{{ target.name }}" } }]

  [[playbook.step]]
  name = "teams"
  action = "teams.message.post"
    [playbook.step.with]
    title = "Risk of {{ target.name }}"
    text = "First line: {{ target.name }}\nSecond line"
    links = [{ title = "{{ target.name }}", url = "{{ links.user }}" }, { title = "bad", url = "{{ target.name }}" }]

  [[playbook.step]]
  name = "mail"
  action = "email.send"
  with = { to = "boss@example.com", subject = "Risk of {{ target.name }}", text = "x {{ target.name }}", html = "<p>{{ target.name }}</p>" }

  [[playbook.step]]
  name = "incident"
  action = "servicenow.incident.create"
  with = { short_description = "{{ target.name }}", description = "x {{ target.name }}", work_notes = "{{ target.name }}" }
"##;

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_name_is_only_text_wherever_it_is_told() {
    const NAME: &str = "<!channel> <http://evil.example|Okta> [x](http://evil.example) [code]<b>b</b>[/code]\r\nBcc: eve@example.org\u{202e}\u{1b}[31m";
    let scene = Scene::new("").await;
    scene.secret("teams-webhook", &scene.org.teams_webhook_url());
    let webhook = scene.dir.path().join("teams-webhook").display().to_string();
    scene.configure(&format!("{FAST}[teams]\nwebhook_url = {{ file = \"{webhook}\" }}\n"), TELL_ALL);
    let user = scene.org.add_user(User::new("Ann", "Miller"));
    let mut event = events::sign_in(&user, "HIGH");
    for pointer in ["/target/0/displayName", "/actor/displayName"] {
        if let Some(name) = event.pointer_mut(pointer) {
            *name = serde_json::json!(NAME);
        }
    }
    scene.org.push_event(event);
    let _daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    for step in ["slack", "teams", "mail", "incident"] {
        ledger.wait_for(step, "succeeded").await;
    }
    let only = |kind: &str| {
        let effects = scene.org.effects_of(kind);
        assert_eq!(effects.len(), 1, "{kind}");
        effects[0].body.clone()
    };

    let slack = only("slack.post");
    let text = slack["text"].as_str().unwrap();
    assert_eq!((text.matches('<').count(), text.lines().count()), (1, 2), "{text}");
    assert!(text.contains("&lt;!channel&gt; &lt;http://evil.example|Okta&gt;"), "{text}");
    assert_eq!((&slack["parse"], &slack["blocks"][0]["text"]["verbatim"]), (&"none".into(), &true.into()));

    let teams = only("teams.post");
    let card = &teams["attachments"][0]["content"];
    let kinds: Vec<_> =
        card["body"].as_array().unwrap().iter().map(|block| block["inlines"][0]["type"].clone()).collect();
    assert_eq!(kinds, ["TextRun", "TextRun", "TextRun"], "{card}");
    assert_eq!(card["actions"].as_array().unwrap().len(), 1, "{card}");

    let mails = scene.org.mails();
    assert_eq!(mails[0].to, ["boss@example.com"]);
    assert!(mails[0].header("Bcc").is_none() && mails[0].header("Subject").unwrap().contains("Bcc: eve"));
    let data = only("mail")["data"].as_str().unwrap().to_owned();
    assert!(data.contains("&lt;b&gt;") && !data.contains("<p><"), "{data}");

    let incident = only("incident.create").to_string();
    assert!(!incident.contains("[code]") && !incident.contains("[/code]"), "{incident}");
    for sent in [slack.to_string(), teams.to_string(), data, incident] {
        assert!(!sent.contains(['\u{202e}', '\u{1b}']) && !sent.contains("\\u001b"), "{sent}");
    }

    let listed = scene.command(&["events", "list", "--format", "csv"]);
    assert!(String::from_utf8(listed.stdout).unwrap().starts_with("id,published,type,user,risk,state,reason\n1,"));
    for arguments in [
        &["events", "show", "1", "--body"][..],
        &["actions", "show", "1"],
        &["actions", "show", "1", "--format", "json"],
    ] {
        let shown = scene.command(arguments);
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(!shown.is_empty() && !shown.contains(['\u{1b}', '\u{202e}']), "{arguments:?}: {shown}");
    }
}

/// The most memory that the daemon may ever take while Okta answers with whatever it likes, in MiB. SECURITY.md names it.
const MEMORY_BOUND: u64 = 256;

#[tokio::test(flavor = "multi_thread")]
async fn a_compromised_okta_can_neither_exhaust_the_memory_nor_take_the_token_elsewhere() {
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let thief = elsewhere.local_addr().unwrap();
    let okta = Impostor::open().await;
    let own = okta.address;
    let lies = vec![
        // 512 MiB of blanks in 3.4 MB.
        Lie::body("Content-Encoding: gzip\r\n", gzipped_blanks(512)),
        // 16 million records.
        Lie::body("", format!("[{}0]", "0,".repeat(16 * MIB - 8))),
        // One record, with 15 million combining characters.
        Lie::body("", format!("[{}]", event("huge", &"\u{301}".repeat(15 * MIB)))),
        Lie::body("", "[".repeat(20 * MIB)),
        Lie::body("", format!("[{}{}]", "{\"a\":".repeat(4 * MIB) + "1", "}".repeat(4 * MIB))),
        Lie::endless(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            format!("10000\r\n{}\r\n", " ".repeat(65536)),
        ),
        Lie::endless("HTTP/1.1 200 OK\r\n", format!("X-More: {}\r\n", "x".repeat(4096))),
        Lie::endless("HTTP/1.1 500 Broken\r\n\r\n", "x".repeat(65536)),
        Lie::Whole(format!("HTTP/1.1 307 There\r\nLocation: http://{thief}/api/v1/logs\r\n\r\n").into_bytes()),
    ];
    let lied = lies.len();
    // An honest page after each, so that the pauses between failures do not grow.
    for (number, lie) in lies.into_iter().enumerate() {
        okta.tell([lie, okta.page(&event(&format!("honest-{number}"), &"e\u{301}".repeat(100_000)))]);
    }

    let next = format!("Link: <http://{thief}/api/v1/logs>; rel=\"next\"\r\n");
    okta.tell([Lie::body(&next, "[]")]);

    let every = Every::with(&format!("{FAST}[guard]\nmode = \"observe\"\n"), &["add"], "").await;
    every.scene.edit(&every.scene.org.okta_url(), &format!("http://{own}"));
    every.scene.edit("timeout = \"2s\"\n\n[state]", "timeout = \"60s\"\n\n[state]");
    let daemon = every.scene.daemon();
    let store = every.scene.store().await;
    assert_eq!(inbox_of(&store, lied).await.len(), lied, "{}", daemon.log());

    daemon.wait_for_log("no token is sent there");

    let most = resident_most(daemon.pid());
    assert!(most < MEMORY_BOUND, "the daemon took {most} MiB");
    assert!(elsewhere.accept().is_err(), "somebody else was asked");
    assert!(daemon.stop().success());
}

/// Okta's clock, without which no page is one.
const DATE: &str = "Date: Mon, 24 Aug 2026 10:15:03 GMT\r\nConnection: close\r\n";

const MIB: usize = 1024 * 1024;

/// A record that the playbook wants.
fn event(uuid: &str, words: &str) -> String {
    format!(
        r#"{{"uuid":"{uuid}","eventType":"user.session.start","published":"2026-08-24T10:15:02.102Z","displayMessage":"{words}"}}"#
    )
}

/// The most memory that was ever resident, in MiB.
fn resident_most(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// A gzip stream of so many MiB of blanks: one literal, and then over and over "the last character 258 times more", with
/// the fixed codes of deflate (RFC 1951). Its checksum is wrong, which nobody comes to see.
fn gzipped_blanks(mib: usize) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let (mut bits, mut held) = (0_u32, 0);
    let mut put = |value: u32, count: u32| {
        bits |= value << held;
        held += count;
        while held >= 8 {
            out.push(bits as u8);
            bits >>= 8;
            held -= 8;
        }
    };
    // The last block, fixed codes; a blank is 0x30 + 0x20, and codes go out from their highest bit.
    put(0b011, 3);
    put((0x50_u32).reverse_bits() >> 24, 8);
    // Length 258 is 0b11000101, distance 1 is 0b00000.
    (0..mib * MIB / 258).for_each(|_| put((0b1100_0101_u32).reverse_bits() >> 24, 13));
    put(0, 7);
    put(0, 7);
    out.extend([0; 8]);
    out
}

/// An answer to a question for the log.
enum Lie {
    /// These bytes.
    Whole(Vec<u8>),
    /// The first of them once, the second over and over.
    Endless(Vec<u8>, Vec<u8>),
}

impl Lie {
    fn body(headers: &str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let head = format!("HTTP/1.1 200 OK\r\n{DATE}{headers}Content-Length: {}\r\n\r\n", body.len());
        Self::Whole([head.into_bytes(), body].concat())
    }

    fn endless(head: &str, more: String) -> Self {
        let (status, headers) = head.split_once("\r\n").unwrap();
        Self::Endless(format!("{status}\r\n{DATE}{headers}").into_bytes(), more.into_bytes())
    }
}

/// Somebody who answers in Okta's place.
struct Impostor {
    address: SocketAddr,
    lies: Arc<Mutex<VecDeque<Lie>>>,
    task: JoinHandle<()>,
}

impl Impostor {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let lies = Arc::new(Mutex::new(VecDeque::new()));
        let told = Arc::clone(&lies);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(Self::answer(stream, address, Arc::clone(&told)));
            }
        });
        Self { address, lies, task }
    }

    fn tell(&self, lies: impl IntoIterator<Item = Lie>) {
        self.lies.lock().unwrap().extend(lies);
    }

    /// A page with one record, and the way to the next one.
    fn page(&self, record: &str) -> Lie {
        Self::page_at(self.address, record)
    }

    fn page_at(own: SocketAddr, records: &str) -> Lie {
        let next = format!("Link: <http://{own}/api/v1/logs?after=1>; rel=\"next\"\r\n");
        Lie::body(&next, format!("[{records}]"))
    }

    async fn answer(mut stream: TcpStream, own: SocketAddr, lies: Arc<Mutex<VecDeque<Lie>>>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        assert!(head.contains("SSWS "), "{head}");
        let lie = if head.starts_with("GET /api/v1/logs") {
            lies.lock().unwrap().pop_front().unwrap_or_else(|| Self::page_at(own, ""))
        } else {
            Lie::body("", r#"{"id":"00u1impostor00000001","status":"ACTIVE","profile":{"login":"me@example.com"}}"#)
        };
        // The other side goes away when it has had enough.
        match lie {
            Lie::Whole(bytes) => drop(stream.write_all(&bytes).await),
            Lie::Endless(first, more) => {
                let mut sent = stream.write_all(&first).await;
                while sent.is_ok() {
                    sent = stream.write_all(&more).await;
                }
            }
        }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.task.abort();
    }
}
