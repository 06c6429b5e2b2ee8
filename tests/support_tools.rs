//! The tools of the other tests: they are held to account before anything is judged by them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use okta_responder::demo::org::{Org, OrgOptions};
use reqwest::{Certificate, Client, ClientBuilder, Identity as ClientIdentity, Response};
use support::proxy::{Mood, Proxy, ProxyOptions};
use support::tls::{Authority, Identity, TlsFront, TlsOptions, Versions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Asks for a page of the log, below an origin.
async fn ask(client: ClientBuilder, org: &Org, origin: &str) -> reqwest::Result<Response> {
    let client = client.timeout(support::BOUND).build().unwrap();
    let request = client.get(format!("{origin}/api/v1/logs"));
    request.header("authorization", format!("SSWS {}", org.token())).send().await
}

fn trusting(authority: &Authority) -> ClientBuilder {
    Client::builder().no_proxy().tls_certs_only([Certificate::from_pem(authority.pem().as_bytes()).unwrap()])
}

fn showing(client: ClientBuilder, identity: &Identity) -> ClientBuilder {
    let pem = format!("{}{}", identity.certificate, identity.key);
    client.identity(ClientIdentity::from_pem(pem.as_bytes()).unwrap())
}

/// Waits until a front has seen so many handshakes come to an end and so many fail: it hears of it after the client.
async fn handshakes(front: &TlsFront, good: usize, bad: usize) {
    support::eventually(async || {
        let (seen, failures) = (front.handshakes(), front.failures());
        if (seen, failures.len()) == (good, bad) { Ok(()) } else { Err(format!("{seen} good, and {failures:?}")) }
    })
    .await;
}

struct Fixture {
    org: Org,
    authority: Authority,
}

impl Fixture {
    async fn new() -> Self {
        Self { org: Org::start(OrgOptions::default()).await.unwrap(), authority: Authority::new("A private authority") }
    }

    fn options(&self) -> TlsOptions<'static> {
        TlsOptions::new(self.authority.server(&["localhost", "127.0.0.1", "::1", "acme.example"]))
    }

    async fn front(&self, options: TlsOptions<'_>) -> TlsFront {
        let front = TlsFront::start(self.org.address(), options).await;
        self.org.known_as(&front.url("localhost"));
        front
    }
}

#[tokio::test]
async fn a_front_serves_whoever_knows_its_authority_and_the_org_goes_by_its_name() {
    let fixture = Fixture::new().await;
    let front = fixture.front(fixture.options()).await;
    let answer = ask(trusting(&fixture.authority), &fixture.org, &front.url("localhost")).await.unwrap();
    assert_eq!(answer.status(), 200);
    let links: Vec<_> = answer.headers().get_all("link").iter().map(|link| link.to_str().unwrap()).collect();
    assert!(links.iter().all(|link| link.starts_with(&format!("<{}/", front.url("localhost")))), "{links:?}");
    handshakes(&front, 1, 0).await;

    let stranger = Authority::new("Another");
    ask(trusting(&stranger), &fixture.org, &front.url("localhost")).await.unwrap_err();
    let elsewhere = fixture.front(TlsOptions::new(fixture.authority.server(&["acme.example"]))).await;
    ask(trusting(&fixture.authority), &fixture.org, &elsewhere.url("localhost")).await.unwrap_err();
    handshakes(&front, 1, 1).await;
    handshakes(&elsewhere, 0, 1).await;
    assert_eq!(front.handshakes(), 1);
}

#[tokio::test]
async fn a_certificate_that_is_over_is_not_trusted() {
    let fixture = Fixture::new().await;
    let front = fixture.front(TlsOptions::new(fixture.authority.expired_server(&["localhost"]))).await;
    ask(trusting(&fixture.authority), &fixture.org, &front.url("localhost")).await.unwrap_err();
    handshakes(&front, 0, 1).await;
}

#[tokio::test]
async fn a_front_stands_on_ipv6_too() {
    let fixture = Fixture::new().await;
    let bind = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    let front = fixture.front(TlsOptions { bind, ..fixture.options() }).await;
    let answer = ask(trusting(&fixture.authority), &fixture.org, &front.url("[::1]")).await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_front_that_asks_for_a_client_certificate_takes_only_one_of_its_authority() {
    let fixture = Fixture::new().await;
    let clients = Authority::new("For clients");
    let front = fixture.front(TlsOptions { clients: Some(&clients), ..fixture.options() }).await;
    let url = front.url("localhost");
    let trusting = || trusting(&fixture.authority);
    ask(trusting(), &fixture.org, &url).await.unwrap_err();
    let stranger = Authority::new("Another").client("responder");
    ask(showing(trusting(), &stranger), &fixture.org, &url).await.unwrap_err();
    let known = clients.client("responder");
    assert_eq!(ask(showing(trusting(), &known), &fixture.org, &url).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_front_speaks_the_versions_it_was_told_to() {
    use reqwest::tls::Version;
    let fixture = Fixture::new().await;
    for (versions, highest, served) in [
        (Versions::Only12, Version::TLS_1_2, true),
        (Versions::Only13, Version::TLS_1_2, false),
        (Versions::Only13, Version::TLS_1_3, true),
        (Versions::Only11, Version::TLS_1_3, false),
    ] {
        let front = fixture.front(TlsOptions { versions, ..fixture.options() }).await;
        let client = trusting(&fixture.authority).tls_version_max(highest);
        let answer = ask(client, &fixture.org, &front.url("localhost")).await;
        assert_eq!(answer.is_ok(), served, "{answer:?}");
        assert!(!front.was_followed_below_12());
    }
}

#[tokio::test]
async fn a_client_that_accepts_tls_1_1_is_found_out() {
    let fixture = Fixture::new().await;
    let front = fixture.front(TlsOptions { versions: Versions::Only11, ..fixture.options() }).await;
    let mut careless = TcpStream::connect(front.address()).await.unwrap();
    let record = [22, 3, 1, 0, 1, 1];
    careless.write_all(&record).await.unwrap();
    let mut hello = [0; 47];
    careless.read_exact(&mut hello).await.unwrap();
    assert_eq!((hello[0], &hello[9..11]), (22, &[3, 2][..]));
    careless.write_all(&record).await.unwrap();
    support::eventually(async || if front.was_followed_below_12() { Ok(()) } else { Err("nothing".to_owned()) }).await;
}

#[tokio::test]
async fn a_proxy_passes_whole_urls_and_tunnels_and_tells_what_was_asked() {
    let fixture = Fixture::new().await;
    let front = fixture.front(fixture.options()).await;
    let hosts = [("acme.example".to_owned(), front.address())].into();
    let proxy = Proxy::start(ProxyOptions { hosts, ..ProxyOptions::default() }).await;
    let client = || trusting(&fixture.authority).proxy(reqwest::Proxy::all(proxy.url()).unwrap());

    let plain = format!("http://{}", fixture.org.address());
    assert_eq!(ask(client(), &fixture.org, &plain).await.unwrap().status(), 200);
    assert_eq!((proxy.requests(), proxy.tunnels()), (1, 0));
    assert_eq!(ask(client(), &fixture.org, "https://acme.example").await.unwrap().status(), 200);
    assert_eq!((proxy.requests(), proxy.tunnels()), (1, 1));
    let tunnel = &proxy.asked()[1];
    assert_eq!((tunnel.method.as_str(), tunnel.target.as_str()), ("CONNECT", "acme.example:443"));
    assert!(!tunnel.head.contains(fixture.org.token()), "{}", tunnel.head);

    ask(client(), &fixture.org, "https://unknown.example").await.unwrap_err();
    assert_eq!(proxy.asked()[2].refused_with, Some(504));
}

#[tokio::test]
async fn a_proxy_with_a_password_serves_nobody_without_and_keeps_it_to_itself() {
    let fixture = Fixture::new().await;
    let front = fixture.front(fixture.options()).await;
    let credentials = Some(("clerk".to_owned(), "open sesame".to_owned()));
    let proxy = Proxy::start(ProxyOptions { credentials, ..ProxyOptions::default() }).await;
    let plain = format!("http://{}", fixture.org.address());
    for (origin, password, served) in [
        (&plain, None, false),
        (&front.url("localhost"), None, false),
        (&front.url("localhost"), Some("guessed"), false),
        (&plain, Some("open sesame"), true),
        (&front.url("localhost"), Some("open sesame"), true),
    ] {
        let way = reqwest::Proxy::all(proxy.url()).unwrap();
        let way = if let Some(password) = password { way.basic_auth("clerk", password) } else { way };
        let answer = ask(trusting(&fixture.authority).proxy(way), &fixture.org, origin).await;
        assert_eq!(answer.is_ok_and(|answer| answer.status() == 200), served, "{origin} {password:?}");
    }
    let refused: Vec<_> = proxy.asked().iter().map(|asked| asked.refused_with).collect();
    assert_eq!(refused, [Some(407), Some(407), Some(407), None, None]);
    assert_eq!(fixture.org.requests().len(), 2);
}

#[tokio::test]
async fn a_proxy_refuses_drops_hangs_and_recovers() {
    let fixture = Fixture::new().await;
    let front = fixture.front(fixture.options()).await;
    let proxy = Proxy::start(ProxyOptions::default()).await;
    let client = || trusting(&fixture.authority).proxy(reqwest::Proxy::all(proxy.url()).unwrap());
    let url = front.url("localhost");

    proxy.set_mood(Mood::Refuses);
    ask(client(), &fixture.org, &url).await.unwrap_err();
    assert_eq!(proxy.asked()[0].refused_with, Some(502));

    proxy.set_mood(Mood::DropsAfter(700));
    ask(client(), &fixture.org, &url).await.unwrap_err();
    assert_eq!((proxy.tunnels(), fixture.org.requests().len()), (1, 0), "it drops within the handshake");

    proxy.set_mood(Mood::Hangs);
    let waiting = ask(client(), &fixture.org, &url);
    let asked = support::eventually(async || match proxy.asked().len() {
        3 => Ok(()),
        other => Err(format!("{other} requests")),
    });
    tokio::select! {
        answer = waiting => panic!("answered: {answer:?}"),
        () = asked => {}
    }
    let waiting = tokio::spawn(client().timeout(Duration::from_secs(3600)).build().unwrap().get(&url).send());
    support::eventually(async || if proxy.asked().len() == 4 { Ok(()) } else { Err("no request".to_owned()) }).await;
    proxy.cut();
    waiting.await.unwrap().unwrap_err();

    proxy.set_mood(Mood::Fine);
    assert_eq!(ask(client(), &fixture.org, &url).await.unwrap().status(), 200);
}
