//! A forward proxy on loopback: `CONNECT` and whole URLs, with or without a password, in good and in bad moods.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use url::Url;

/// What the proxy does with those that may use it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    /// Serves them.
    Fine,
    /// Answers 502 and closes.
    Refuses,
    /// Serves them, and cuts the connection after so many bytes of the other side's.
    DropsAfter(u64),
    /// Reads what they want and never answers.
    Hangs,
}

/// How a proxy is made.
#[derive(Default)]
pub struct ProxyOptions {
    /// User and password that it asks for.
    pub credentials: Option<(String, String)>,
    /// Names that only this proxy can resolve, whatever the port.
    pub hosts: BTreeMap<String, SocketAddr>,
    /// Where it listens; a free port of 127.0.0.1 when unset.
    pub bind: Option<SocketAddr>,
}

/// One request to the proxy.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `CONNECT`, or the method of a request for a whole URL.
    pub method: String,
    /// `host:port`, or the URL.
    pub target: String,
    /// The request line and all headers, as they came.
    pub head: String,
    /// What the proxy answered itself; `None` for what it passed on, and while it hangs.
    pub refused_with: Option<u16>,
}

/// A running proxy. Dropping it closes its port and its connections.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    options: ProxyOptions,
    mood: Mutex<Mood>,
    asked: Mutex<Vec<Asked>>,
    cuts: watch::Sender<u64>,
}

impl Proxy {
    /// Begins to listen.
    pub async fn start(options: ProxyOptions) -> Self {
        let bind = options.bind.unwrap_or((Ipv4Addr::LOCALHOST, 0).into());
        let listener = TcpListener::bind(bind).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mood, asked) = (Mutex::new(Mood::Fine), Mutex::default());
        let shared = Arc::new(Shared { options, mood, asked, cuts: watch::Sender::new(0) });
        let all = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let shared = Arc::clone(&all);
                connections.spawn(async move {
                    let mut cut = shared.cuts.subscribe();
                    tokio::select! {
                        // However a connection ends is its client's business.
                        _ = attend(client, &shared) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, shared, task }
    }

    /// Its address as a proxy URL, without credentials.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How the next requests fare; connections that are open already go on as they are.
    pub fn set_mood(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap() = mood;
    }

    /// Cuts every connection that is open.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// What was asked of it, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// How many tunnels it opened.
    pub fn tunnels(&self) -> usize {
        self.passed(|asked| asked.method == "CONNECT")
    }

    /// How many requests for a whole URL it passed on.
    pub fn requests(&self) -> usize {
        self.passed(|asked| asked.method != "CONNECT")
    }

    fn passed(&self, wanted: impl Fn(&Asked) -> bool) -> usize {
        self.asked().iter().filter(|asked| asked.refused_with.is_none() && wanted(asked)).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn attend(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let (head, rest) = read_head(&mut client).await?;
    let mut words = head.lines().next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let note = |refused_with| {
        let asked = Asked { method: method.clone(), target: target.clone(), head: head.clone(), refused_with };
        shared.asked.lock().unwrap().push(asked);
    };
    let mood = *shared.mood.lock().unwrap();
    let address = shared.resolve(&method, &target);
    let refusal = if !shared.admits(&head) {
        Some("407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm=\"proxy\"")
    } else if mood == Mood::Refuses {
        Some("502 Bad Gateway")
    } else if address.is_none() && mood != Mood::Hangs {
        Some("504 Gateway Timeout")
    } else {
        None
    };
    if let Some(refusal) = refusal {
        note(refusal[..3].parse().ok());
        let answer = format!("HTTP/1.1 {refusal}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        return client.write_all(answer.as_bytes()).await;
    }
    note(None);
    if mood == Mood::Hangs {
        return std::future::pending().await;
    }
    let mut service = TcpStream::connect(address.unwrap()).await?;
    if method == "CONNECT" {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    } else {
        service.write_all(for_the_origin(&head, &target).as_bytes()).await?;
    }
    service.write_all(&rest).await?;
    let (mut from_client, mut to_client) = client.split();
    let (from_service, mut to_service) = service.split();
    let limit = if let Mood::DropsAfter(bytes) = mood { bytes } else { u64::MAX };
    let mut from_service = from_service.take(limit);
    tokio::select! {
        // Whoever ends first ends it for both: a half-open tunnel is of no use to HTTP.
        sent = copy(&mut from_client, &mut to_service) => sent,
        sent = copy(&mut from_service, &mut to_client) => sent,
    }?;
    Ok(())
}

impl Shared {
    fn admits(&self, head: &str) -> bool {
        let Some((user, password)) = &self.options.credentials else { return true };
        let wanted = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
        header(head, "proxy-authorization").is_some_and(|given| given == wanted)
    }

    /// Where a target is. This proxy leads nowhere but to loopback.
    fn resolve(&self, method: &str, target: &str) -> Option<SocketAddr> {
        let url = if method == "CONNECT" { format!("tunnel://{target}") } else { target.to_owned() };
        let url = Url::parse(&url).ok()?;
        let host = url.host_str()?;
        if let Some(address) = self.options.hosts.get(host) {
            return Some(*address);
        }
        let host = if host == "localhost" { "127.0.0.1" } else { host.trim_matches(['[', ']']) };
        let ip: std::net::IpAddr = host.parse().ok()?;
        ip.is_loopback().then_some(SocketAddr::new(ip, url.port_or_known_default()?))
    }
}

/// Reads up to the empty line; returns what came behind it as well.
async fn read_head(client: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The head as the service behind gets it: with a path, without what was for the proxy, and for this one request.
fn for_the_origin(head: &str, target: &str) -> String {
    let url = Url::parse(target).unwrap();
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let mut lines = head.trim_end().split("\r\n");
    let mut out = lines.next().unwrap_or_default().replacen(target, path, 1);
    for line in lines {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        if !name.starts_with("proxy-") && name != "connection" {
            out.push_str("\r\n");
            out.push_str(line);
        }
    }
    out + "\r\nconnection: close\r\n\r\n"
}

fn header<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(wanted).then_some(value.trim())
    })
}
