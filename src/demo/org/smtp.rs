//! A mail server without TLS (RFC 5321): it takes a message, keeps envelope and text, and passes it on to nobody.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::effects::{Request, Service};
use super::faults::Misbehaviour;
use super::world::World;

/// A longer line ends the conversation.
const MAX_LINE: u64 = 64 * 1024;

/// The largest message, in bytes.
const MAX_MESSAGE: usize = 10 * 1024 * 1024;

/// A message that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The sender of the envelope.
    pub from: String,
    /// The recipients of the envelope.
    pub to: Vec<String>,
    /// Head and body as they were meant, with dots unstuffed and lines ending in CRLF.
    pub data: String,
}

impl Mail {
    /// A header's value, unfolded, the first of that name.
    pub fn header(&self, name: &str) -> Option<String> {
        let head = self.data.split("\r\n\r\n").next()?.replace("\r\n ", " ").replace("\r\n\t", " ");
        head.split("\r\n").find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }
}

/// Accepts connections until the org stops.
pub(super) fn serve(listener: TcpListener, world: Arc<World>, stop: CancellationToken) {
    tokio::spawn(async move {
        while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
            let (world, stop) = (Arc::clone(&world), stop.clone());
            tokio::spawn(async move {
                // A client that hangs up is no concern of the server.
                let _ = stop.run_until_cancelled(Session::new(world, stream).run()).await;
            });
        }
    });
}

/// One conversation.
struct Session {
    world: Arc<World>,
    stream: BufReader<TcpStream>,
    from: Option<String>,
    to: Vec<String>,
}

/// Whether the conversation goes on.
enum Then {
    GoOn,
    HangUp,
}

impl Session {
    fn new(world: Arc<World>, stream: TcpStream) -> Self {
        Self { world, stream: BufReader::new(stream), from: None, to: Vec::new() }
    }

    async fn run(mut self) -> io::Result<()> {
        self.reply("220 mail.simulated.test ESMTP").await?;
        while let Some(line) = read_line(&mut self.stream).await? {
            let line = String::from_utf8_lossy(&line).into_owned();
            let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
            if let Then::HangUp = self.command(&verb.to_ascii_uppercase(), argument).await? {
                break;
            }
        }
        Ok(())
    }

    async fn command(&mut self, verb: &str, argument: &str) -> io::Result<Then> {
        let reply = match verb {
            "EHLO" => {
                "250-mail.simulated.test\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-AUTH PLAIN LOGIN\r\n250 SIZE 10485760"
            }
            "HELO" | "NOOP" => "250 ok",
            "MAIL" => return self.mail(argument).await,
            "RCPT" => return self.recipient(argument).await,
            "DATA" => return self.data().await,
            "AUTH" => return self.authenticate(argument).await,
            "RSET" => {
                self.reset();
                "250 ok"
            }
            "QUIT" => {
                self.reply("221 bye").await?;
                return Ok(Then::HangUp);
            }
            _ => "502 command not implemented",
        };
        self.reply(reply).await
    }

    async fn mail(&mut self, argument: &str) -> io::Result<Then> {
        let Some(from) = address(argument, "FROM:") else { return self.reply("501 syntax: MAIL FROM:<address>").await };
        self.reset();
        self.step("MAIL", argument, "250 ok", |session| session.from = Some(from)).await
    }

    async fn recipient(&mut self, argument: &str) -> io::Result<Then> {
        let Some(to) = address(argument, "TO:") else { return self.reply("501 syntax: RCPT TO:<address>").await };
        if self.from.is_none() {
            return self.reply("503 MAIL first").await;
        }
        self.step("RCPT", argument, "250 ok", |session| session.to.push(to)).await
    }

    async fn data(&mut self) -> io::Result<Then> {
        if self.to.is_empty() {
            return self.reply("503 RCPT first").await;
        }
        self.reply("354 end with <CRLF>.<CRLF>").await?;
        let Some(data) = self.message().await? else {
            self.reply("552 message too large").await?;
            return Ok(Then::HangUp);
        };
        let recipients = self.to.join(",");
        let then = self.step("DATA", &recipients, "250 ok queued", |session| session.keep(data)).await?;
        self.reset();
        Ok(then)
    }

    /// Accepts the mail server's password, or whatever is offered while it has none; what it was is not kept.
    async fn authenticate(&mut self, argument: &str) -> io::Result<Then> {
        let given = argument.rsplit(' ').next().unwrap_or_default();
        let mut last = given.as_bytes().to_vec();
        let mut prompts = match argument.split(' ').collect::<Vec<_>>().as_slice() {
            ["PLAIN", _] => vec![],
            ["PLAIN"] => vec!["334 "],
            ["LOGIN"] => vec!["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"],
            ["LOGIN", _] => vec!["334 UGFzc3dvcmQ6"],
            _ => return self.reply("504 mechanism not known").await,
        };
        for prompt in prompts.drain(..) {
            self.reply(prompt).await?;
            match read_line(&mut self.stream).await? {
                Some(line) => last = line,
                None => return Ok(Then::HangUp),
            }
        }
        // PLAIN: who acts for whom, and the password, with NUL between them; LOGIN: the password alone.
        let offered = STANDARD.decode(&last).unwrap_or_default();
        let password = offered.rsplit(|byte| *byte == 0).next().unwrap_or_default();
        let is_valid = self.world.read(|inside| match &inside.secrets.smtp_password {
            None => true,
            Some(valid) => valid.as_bytes() == password,
        });
        self.reply(if is_valid { "235 accepted" } else { "535 5.7.8 wrong user or password" }).await
    }

    /// One command that a scripted fault may hit. `process` is what the command does.
    async fn step(
        &mut self,
        verb: &str,
        argument: &str,
        reply: &str,
        process: impl FnOnce(&mut Self),
    ) -> io::Result<Then> {
        let seen = Request {
            at_ms: self.world.at_ms(),
            service: Service::Smtp,
            method: verb.to_owned(),
            path: argument.to_owned(),
            status: None,
            headers: BTreeMap::new(),
        };
        let (number, what) = self
            .world
            .change(|inside| (inside.journal.received(seen), inside.faults.take(Service::Smtp, verb, argument)));
        let reply = match what {
            None => {
                process(self);
                reply.to_owned()
            }
            Some(Misbehaviour::Status { code, body, .. }) => {
                format!("{code} {}", body.lines().next().unwrap_or_default())
            }
            Some(Misbehaviour::RateLimited { .. } | Misbehaviour::ConcurrencyLimited { .. }) => {
                "421 too many messages".to_owned()
            }
            Some(Misbehaviour::DropAfter | Misbehaviour::DropThenProcess(_) | Misbehaviour::TruncateBody) => {
                process(self);
                return Ok(Then::HangUp);
            }
            Some(Misbehaviour::Hold(hold)) => {
                process(self);
                hold.pass().await;
                reply.to_owned()
            }
            Some(Misbehaviour::Delay(pause)) => {
                tokio::time::sleep(pause).await;
                process(self);
                reply.to_owned()
            }
            Some(Misbehaviour::Html | Misbehaviour::Redirect(_)) => "<html>".to_owned(),
            Some(Misbehaviour::DropBefore) => return Ok(Then::HangUp),
            Some(Misbehaviour::EndlessBody) => loop {
                self.reply("250-more").await?;
            },
            Some(Misbehaviour::Drip) => {
                process(self);
                loop {
                    self.reply("250-more").await?;
                    tokio::time::sleep(super::wire::DRIP).await;
                }
            }
        };
        let status = reply.get(..3).and_then(|code| code.parse().ok()).unwrap_or_default();
        self.world.change(|inside| inside.journal.answered(number, status));
        self.reply(&reply).await
    }

    fn keep(&mut self, data: String) {
        let mail = Mail { from: self.from.clone().unwrap_or_default(), to: self.to.clone(), data };
        let body = json!({"from": mail.from, "to": mail.to, "data": Value::from(mail.data.as_str())});
        let mut effect = self.world.effect(Service::Smtp, "mail", mail.to.join(","), body);
        effect.key = mail.header("Message-ID");
        self.world.change(|inside| {
            inside.mails.push(mail);
            inside.journal.effects.push(effect);
        });
    }

    /// The lines up to the single dot. `None` when they are too many or the client hangs up.
    async fn message(&mut self) -> io::Result<Option<String>> {
        let mut data = Vec::new();
        while let Some(line) = read_line(&mut self.stream).await? {
            if line == b"." {
                return Ok(Some(String::from_utf8_lossy(&data).into_owned()));
            }
            if data.len() + line.len() > MAX_MESSAGE {
                return Ok(None);
            }
            data.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            data.extend_from_slice(b"\r\n");
        }
        Ok(None)
    }

    fn reset(&mut self) {
        self.from = None;
        self.to.clear();
    }

    async fn reply(&mut self, line: &str) -> io::Result<Then> {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).await?;
        Ok(Then::GoOn)
    }
}

/// A line without its end; `None` at the end of the connection.
async fn read_line(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    stream.take(MAX_LINE).read_until(b'\n', &mut line).await?;
    if line.pop() != Some(b'\n') {
        return Ok(None);
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(Some(line))
}

/// The address in `FROM:<a@b>` or `TO:<a@b> …`.
fn address(argument: &str, keyword: &str) -> Option<String> {
    let given = argument.get(..keyword.len()).filter(|given| given.eq_ignore_ascii_case(keyword))?;
    let rest = argument.strip_prefix(given)?.trim_start().strip_prefix('<')?;
    rest.split_once('>').map(|(address, _)| address.to_owned())
}
