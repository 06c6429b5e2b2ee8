//! The way out of a corporate network: private authorities, proxies, certificates of our own, IPv6, and what is told when
//! none of it leads anywhere. Hosts are named `.example`, which only the proxy of a test knows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use okta_responder::connectors::Mailer;
use okta_responder::connectors::probe::Grade;
use okta_responder::demo::org::{OrgOptions, User, events};
use okta_responder::http::pem::{self, ClientIdentity};
use okta_responder::http::proxy::{Choice, Exceptions, Ways, proxy_url};
use okta_responder::http::{self, Network, Trouble};
use okta_responder::model::outcome::Reason;
use support::ledger::Ledger;
use support::proxy::{Mood, Proxy, ProxyOptions};
use support::tls::{Authority, TlsFront, TlsOptions, Versions};
use support::{Daemon, Scene, eventually};
use tokio::net::TcpListener;
use url::Url;

const PASSWORD: &str = "hunter2-of-the-proxy";

/// What the daemon says when Okta is lost and when it is back.
const LOST: &str = "Okta cannot be reached";
const BACK: &str = "Okta is reached again";

/// A user into a group and an incident for every sign-in.
const QUARANTINE: &str = r#"
[[playbook]]
name = "quarantine"
on = ["user.session.start"]
step = [
  { name = "add", action = "okta.group.add_user", with = { group = "High Risk Users" } },
  { name = "incident", action = "servicenow.incident.create", with = { short_description = "{{ target.login }}" } },
]
"#;

const FAST: &str = "[poll]\nstart_from = \"1h\"\n[dispatch]\nretry_initial = \"100ms\"\nretry_max = \"300ms\"\n";

fn pem_file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn address_of(url: &str) -> SocketAddr {
    url.strip_prefix("http://").unwrap().parse().unwrap()
}

mod client {
    use super::*;

    /// A plain service behind a front, and a network that knows the front's authority.
    struct Stage {
        service: SocketAddr,
        authority: Authority,
        dir: tempfile::TempDir,
        _service: mockito::ServerGuard,
    }

    impl Stage {
        async fn new() -> Self {
            let mut service = mockito::Server::new_async().await;
            service.mock("GET", "/").expect_at_least(0).create_async().await;
            let dir = tempfile::tempdir().unwrap();
            Self { service: service.socket_address(), authority: Authority::new("Acme CA"), dir, _service: service }
        }

        fn options(&self, names: &[&str]) -> TlsOptions<'static> {
            TlsOptions::new(self.authority.server(names))
        }

        async fn front(&self, options: TlsOptions<'_>) -> TlsFront {
            TlsFront::start(self.service, options).await
        }

        fn network(&self, ways: Ways, identity: Option<ClientIdentity>) -> Network {
            let file = pem_file(self.dir.path(), "ca.pem", &self.authority.pem());
            let identities: BTreeMap<_, _> =
                identity.map(|identity| ("servicenow".to_owned(), identity)).into_iter().collect();
            Network::new(ways, pem::certificates(&file).unwrap(), identities)
        }

        fn trusting(&self) -> Network {
            self.network(Ways::default(), None)
        }
    }

    /// The status, or what was the matter and how it counts.
    async fn get(network: &Network, url: &str) -> Result<u16, (Reason, String)> {
        let url = Url::parse(url).unwrap();
        let client = http::client("servicenow", &url, Duration::from_secs(5), network).unwrap();
        match client.get(url).send().await {
            Ok(answer) => Ok(answer.status().as_u16()),
            Err(error) => {
                let words = format!("{}; {error:?}", Trouble::of(&error));
                assert!(!words.contains(PASSWORD), "{words}");
                Err((http::classify_send_error(&error), Trouble::of(&error).to_string()))
            }
        }
    }

    /// No connection can be made, and the words hold these.
    #[track_caller]
    fn check(got: Result<u16, (Reason, String)>, expected: &[&str]) {
        let (reason, words) = got.unwrap_err();
        assert_eq!(reason, Reason::Connect, "{words}");
        for expected in expected.iter().chain(&["no connection could be made"]) {
            assert!(words.contains(expected), "{words}");
        }
    }

    #[tokio::test]
    async fn every_certificate_that_is_not_believed_says_why_and_what_to_do() {
        let stage = Stage::new().await;
        let front = stage.front(stage.options(&["localhost"])).await;
        assert_eq!(get(&stage.trusting(), &front.url("localhost")).await, Ok(200));
        let unknown = get(&Network::default(), &front.url("localhost")).await;
        check(unknown, &["comes from an authority that this host does not know", "ca_file"]);
        let other = get(&stage.trusting(), &front.url("127.0.0.1")).await;
        check(other, &["is for localhost and not for this name"]);
        let expired = stage.front(TlsOptions::new(stage.authority.expired_server(&["localhost"]))).await;
        check(get(&stage.trusting(), &expired.url("localhost")).await, &["has expired", "clock of this host"]);
    }

    #[tokio::test]
    async fn tls_is_at_least_1_2_and_what_speaks_less_or_none_is_told() {
        let stage = Stage::new().await;
        for (versions, served) in [(Versions::Only12, true), (Versions::Only13, true), (Versions::Only11, false)] {
            let front = stage.front(TlsOptions { versions, ..stage.options(&["localhost"]) }).await;
            let got = get(&stage.trusting(), &front.url("localhost")).await;
            match served {
                true => assert_eq!(got, Ok(200)),
                false => check(got, &["has to speak TLS 1.2 or 1.3"]),
            }
            assert!(!front.was_followed_below_12());
        }
        let plain = format!("https://{}", stage.service);
        check(get(&stage.trusting(), &plain).await, &["does not speak TLS", "its scheme and its port"]);
    }

    #[tokio::test]
    async fn a_certificate_of_ours_is_shown_where_it_is_asked_for() {
        let stage = Stage::new().await;
        let (clients, strangers) = (Authority::new("For clients"), Authority::new("Another"));
        let identity = |authority: &Authority| {
            let ours = authority.client("responder");
            let chain = pem_file(stage.dir.path(), "client.pem", &ours.certificate);
            ClientIdentity::new(&chain, &ours.key.clone().into()).unwrap()
        };
        for versions in [Versions::Only12, Versions::Only13] {
            let options = TlsOptions { clients: Some(&clients), versions, ..stage.options(&["localhost"]) };
            let front = stage.front(options).await;
            let url = front.url("localhost");
            let shown = stage.network(Ways::default(), Some(identity(&clients)));
            assert_eq!(get(&shown, &url).await, Ok(200));
            for network in [stage.trusting(), stage.network(Ways::default(), Some(identity(&strangers)))] {
                check(
                    get(&network, &url).await,
                    &["asks for a certificate of ours", "client_certificate", "client_key"],
                );
            }
        }
    }

    fn through(proxy: &str, login: bool) -> Ways {
        let login = login.then(|| ("me".to_owned(), PASSWORD.into()));
        let choice = Choice::Configured { url: proxy_url(proxy).unwrap(), login };
        Ways::new(choice, Exceptions::default(), |_| None).unwrap()
    }

    #[tokio::test]
    async fn a_proxy_is_told_from_the_host_behind_it() {
        let stage = Stage::new().await;
        let front = stage.front(stage.options(&["acme.example"])).await;
        let proxy = Proxy::start(ProxyOptions {
            credentials: Some(("me".to_owned(), PASSWORD.to_owned())),
            hosts: BTreeMap::from([("acme.example".to_owned(), front.address())]),
            bind: None,
        })
        .await;
        let url = "https://acme.example/";
        let with_login = stage.network(through(&proxy.url(), true), None);
        assert_eq!(get(&with_login, url).await, Ok(200));
        assert!(format!("{with_login:?}").contains("as me") && !format!("{with_login:?}").contains(PASSWORD));
        let without = stage.network(through(&proxy.url(), false), None);
        check(get(&without, url).await, &["(407)", "proxy_username and proxy_password"]);
        check(get(&with_login, "https://other.example/").await, &["the proxy leads to no such host", "no_proxy"]);
        proxy.set_mood(Mood::DropsAfter(10));
        check(get(&with_login, url).await, &["broke it off"]);
        // The certificate is that of the host, whatever leads to it.
        let stranger = Network::new(through(&proxy.url(), true), Vec::new(), BTreeMap::new());
        proxy.set_mood(Mood::Fine);
        check(get(&stranger, url).await, &["the certificate of the host comes from an authority"]);

        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let nowhere = stage.network(through(&format!("http://{nobody}"), false), None);
        check(get(&nowhere, url).await, &["the proxy refuses it", "`proxy` in [network]"]);
        let unknown = stage.network(through("http://proxy.invalid:3128", false), None);
        check(get(&unknown, url).await, &["knows no proxy.invalid", "`proxy` in [network]"]);
        let direct = get(&stage.trusting(), "https://acme.invalid/").await;
        check(direct, &["knows no acme.invalid", "look at the address"]);
    }

    #[tokio::test]
    async fn a_proxy_and_a_host_may_have_ipv6_addresses_and_the_proxy_may_speak_tls() {
        let stage = Stage::new().await;
        let bind = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
        let front = stage.front(TlsOptions { bind, ..stage.options(&["::1", "acme.example"]) }).await;
        assert_eq!(get(&stage.trusting(), &front.url("[::1]")).await, Ok(200));
        let hosts = BTreeMap::from([("acme.example".to_owned(), front.address())]);
        let proxy = Proxy::start(ProxyOptions { credentials: None, hosts, bind: Some(bind) }).await;
        let network = stage.network(through(&proxy.url(), false), None);
        assert_eq!(get(&network, "https://acme.example/").await, Ok(200));
        // The same behind TLS of its own.
        let wrapped = TlsFront::start(proxy.address(), stage.options(&["localhost"])).await;
        let network = stage.network(through(&wrapped.url("localhost"), false), None);
        assert_eq!(get(&network, "https://acme.example/").await, Ok(200));
        let stranger = Network::new(through(&wrapped.url("localhost"), false), Vec::new(), BTreeMap::new());
        check(get(&stranger, "https://acme.example/").await, &["the certificate of the proxy comes from an authority"]);
        assert_eq!(proxy.tunnels(), 2);
    }

    #[tokio::test]
    async fn mail_believes_the_same_authorities() {
        let scene = Scene::new("").await;
        let authority = Authority::new("Acme CA");
        let smtp = SocketAddr::from((Ipv4Addr::LOCALHOST, scene.org.smtp_port()));
        let front = TlsFront::start(smtp, TlsOptions::new(authority.server(&["localhost"]))).await;
        let section = format!(
            "host = \"localhost\"\nport = {}\ntls = \"tls\"\nfrom = \"r@example.com\"\ntimeout = \"5s\"\n",
            front.address().port()
        );
        let probe = async |network: &Network| {
            Mailer::new(&toml::from_str(&section).unwrap(), None, network).unwrap().probe().await.remove(0)
        };
        let found = probe(&Network::default()).await;
        assert!(found.detail.contains("comes from an authority that this host does not know"), "{found:?}");
        assert_eq!(found.grade, Grade::Failed(Reason::Connect));
        let file = pem_file(scene.dir.path(), "ca.pem", &authority.pem());
        let network = Network::new(Ways::default(), pem::certificates(&file).unwrap(), BTreeMap::new());
        assert_eq!(probe(&network).await.grade, Grade::Fine);
    }
}

/// An org and a ServiceNow instance that only a proxy knows, each with a certificate of a private authority.
struct Corporate {
    scene: Scene,
    proxy: Proxy,
    user: User,
    _fronts: [TlsFront; 2],
}

const ORG: &str = "acme.example";
const SNOW: &str = "snow.example";

impl Corporate {
    /// `network` stands in [network], behind the authority.
    async fn new(network: impl Fn(&Proxy) -> String) -> Self {
        let scene = Scene::with(OrgOptions::default(), "", "").await;
        let authority = Authority::new("Acme CA");
        let front = async |target, name| TlsFront::start(target, TlsOptions::new(authority.server(&[name]))).await;
        let fronts =
            [front(scene.org.address(), ORG).await, front(address_of(&scene.org.servicenow_url()), SNOW).await];
        let hosts = [ORG, SNOW].map(str::to_owned).into_iter().zip(fronts.iter().map(TlsFront::address)).collect();
        let credentials = Some(("me".to_owned(), PASSWORD.to_owned()));
        let proxy = Proxy::start(ProxyOptions { credentials, hosts, bind: None }).await;
        let ca = pem_file(scene.dir.path(), "ca.pem", &authority.pem());
        scene.secret("proxy-password", PASSWORD);
        scene.org.known_as(&format!("https://{ORG}"));
        let extra = format!("[network]\nca_file = \"{}\"\n{}\n{FAST}", ca.display(), network(&proxy));
        scene.configure(&extra, QUARANTINE);
        scene.edit(&scene.org.servicenow_url(), &format!("https://{SNOW}"));
        scene.org.add_group("High Risk Users");
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        Self { scene, proxy, user, _fronts: fronts }
    }

    /// With a proxy in the configuration.
    async fn configured() -> Self {
        let dir = |proxy: &Proxy| {
            format!("proxy = \"{}\"\nproxy_username = \"me\"\nproxy_password = {{ file = \"PASSWORD\" }}", proxy.url())
        };
        let corporate = Self::new(dir).await;
        let file = corporate.scene.dir.path().join("proxy-password").display().to_string();
        corporate.scene.edit("PASSWORD", &file);
        corporate
    }

    fn push(&self) {
        self.scene.org.push_event(events::sign_in(&self.user, "HIGH"));
    }

    fn asked_for(&self, host: &str) -> usize {
        let asked = self.proxy.asked();
        asked.iter().filter(|asked| asked.target == format!("{host}:443")).count()
    }

    /// Waits until the proxy was asked for the org so many times more.
    async fn asked_again(&self, times: usize) {
        let before = self.asked_for(ORG);
        eventually(async || match self.asked_for(ORG) - before {
            now if now >= times => Ok(()),
            now => Err(format!("{now} of {times}")),
        })
        .await;
    }

    /// Every event has had each of its effects once.
    async fn check_once(&self, daemon: &Daemon, sign_ins: usize) {
        let actions = Ledger::of(&self.scene).await.at_rest(sign_ins).await;
        let log = daemon.log();
        assert_eq!(actions.len(), 2 * sign_ins, "{log}");
        assert!(actions.iter().all(|action| matches!(action.state.as_str(), "succeeded" | "settled")), "{log}");
        assert_eq!(self.scene.org.incidents().len(), sign_ins, "{log}");
        let added = self.scene.org.effects_of("group.add").into_iter().filter(|effect| effect.changed).count();
        assert_eq!(added, 1, "{log}");
        assert!(!log.contains(PASSWORD), "{log}");
    }
}

fn count(daemon: &Daemon, words: &str) -> usize {
    daemon.log().matches(words).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_through_the_configured_proxy_with_its_login() {
    let corporate = Corporate::configured().await;
    let shown = format!("through {} as me ([network] proxy)", corporate.proxy.url());
    let found = corporate.scene.json(&["check", "--format", "json"]);
    assert_eq!(found["network"]["okta"], shown.as_str(), "{found}");
    assert_eq!(
        (&found["network"]["servicenow"], &found["network"]["slack"]),
        (&shown.as_str().into(), &"direct".into())
    );

    corporate.push();
    // What the environment says does not count then.
    let daemon = corporate.scene.daemon_with(&[("HTTPS_PROXY", "http://127.0.0.1:9"), ("NO_PROXY", "example")]);
    corporate.check_once(&daemon, 1).await;
    assert!(corporate.asked_for(ORG) >= 1 && corporate.asked_for(SNOW) >= 1);
    assert_eq!(corporate.proxy.requests(), 0, "only tunnels are asked for");
    assert!(daemon.log().contains(&format!("[okta] is reached {shown}")), "{}", daemon.log());
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environments_proxy_and_its_exceptions_count_where_none_is_configured() {
    let corporate = Corporate::new(|_| String::new()).await;
    let address = corporate.proxy.address();
    let variable = format!("http://me:{PASSWORD}@{address}");
    corporate.push();
    let daemon =
        corporate.scene.daemon_with(&[("https_proxy", &variable), ("no_proxy", &format!("10.0.0.0/8, .{SNOW}"))]);
    let ledger = Ledger::of(&corporate.scene).await;
    ledger.wait_for("add", "succeeded").await;
    daemon.wait_for_log(&format!(
        "ServiceNow cannot be reached: no connection could be made: the name service knows no {SNOW}"
    ));
    assert_eq!(corporate.asked_for(SNOW), 0);
    assert!(corporate.asked_for(ORG) >= 1);
    assert!(daemon.stop().success());
    // With the exception gone, what waited is done.
    let daemon = corporate.scene.daemon_with(&[("https_proxy", &variable)]);
    corporate.check_once(&daemon, 1).await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_and_drops_is_told_once_each_time_and_nothing_is_lost_or_doubled() {
    let corporate = Corporate::configured().await;
    let daemon = corporate.scene.daemon_with(&[("OKTA_RESPONDER_LOG", "info")]);
    daemon.wait_for_log("ready: ");
    corporate.push();
    corporate.check_once(&daemon, 1).await;
    for round in 1..=2 {
        corporate.proxy.set_mood(Mood::Refuses);
        corporate.proxy.cut();
        corporate.push();
        corporate.asked_again(2).await;
        assert_eq!((count(&daemon, LOST), count(&daemon, BACK)), (round, round - 1), "{}", daemon.log());
        corporate.proxy.set_mood(Mood::Fine);
        corporate.check_once(&daemon, 1 + round).await;
        eventually(async || if count(&daemon, BACK) == round { Ok(()) } else { Err(daemon.log()) }).await;
        assert_eq!(count(&daemon, LOST), round, "{}", daemon.log());
    }
    assert!(daemon.log().contains("the proxy leads to no such host"), "{}", daemon.log());

    // Tunnels that break in the middle of what is said.
    corporate.proxy.set_mood(Mood::DropsAfter(6000));
    corporate.proxy.cut();
    for _ in 0..3 {
        corporate.push();
        corporate.asked_again(1).await;
        corporate.proxy.cut();
    }
    corporate.proxy.set_mood(Mood::Fine);
    corporate.check_once(&daemon, 6).await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_the_proxy_does_not_take_is_told_and_mended_by_a_reload() {
    let corporate = Corporate::configured().await;
    corporate.scene.secret("proxy-password", "wrong");
    corporate.push();
    let daemon = corporate.scene.daemon();
    daemon.wait_for_log("the proxy asks for a login that it accepts (407)");
    let online = corporate.scene.command(&["check", "--online"]);
    assert_eq!(online.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&online.stdout).contains("(407)"), "{online:?}");
    corporate.asked_again(2).await;
    assert_eq!(count(&daemon, "(407)"), 1, "{}", daemon.log());
    corporate.scene.secret("proxy-password", PASSWORD);
    daemon.signal("HUP");
    corporate.check_once(&daemon, 1).await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_authority_is_told_and_believed_once_it_is_in_ca_file_over_ipv6() {
    let scene = Scene::with(OrgOptions::default(), "", "").await;
    let authority = Authority::new("Acme CA");
    let bind = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    let identity = authority.server(&["::1"]);
    let front = TlsFront::start(scene.org.address(), TlsOptions { bind, ..TlsOptions::new(identity) }).await;
    scene.org.known_as(&front.url("[::1]"));
    scene.configure(FAST, QUARANTINE);
    scene.org.add_group("High Risk Users");
    let user = scene.org.add_user(User::new("Ann", "Miller"));
    scene.org.push_event(events::sign_in(&user, "HIGH"));
    // A path behind the host is understood, and said.
    let org_url = front.url("[::1]");
    scene.edit(&format!("org_url = \"{org_url}\""), &format!("org_url = \"{org_url}/app/UserHome\""));
    let found = scene.json(&["check", "--format", "json"]);
    assert_eq!(found["org"], org_url.as_str());
    assert_eq!(found["org_written"], format!("{org_url}/app/UserHome"));

    let daemon = scene.daemon();
    daemon.wait_for_log("comes from an authority that this host does not know");
    assert!(daemon.log().contains("put its CA certificate into ca_file in [network]"), "{}", daemon.log());
    let ca = scene.dir.path().join("ca.pem");
    scene.edit(FAST, &format!("[network]\nca_file = \"{}\"\n{FAST}", ca.display()));
    let refused = scene.command(&["check"]);
    assert_eq!(refused.status.code(), Some(78));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("[network] ca_file") && told.contains("put it there"), "{told}");
    std::fs::write(&ca, authority.pem()).unwrap();
    assert!(scene.command(&["check"]).status.success());
    daemon.signal("HUP");
    let ledger = Ledger::of(&scene).await;
    ledger.at_rest(1).await;
    assert_eq!((scene.org.effects_of("group.add").len(), scene.org.incidents().len()), (1, 1), "{}", daemon.log());
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_before_servicenow_is_shown_our_certificate_and_holds_up_nothing_else() {
    let scene = Scene::with(OrgOptions::default(), "", "").await;
    let (authority, clients) = (Authority::new("Acme CA"), Authority::new("For clients"));
    let options = TlsOptions { clients: Some(&clients), ..TlsOptions::new(authority.server(&["localhost"])) };
    let front = TlsFront::start(address_of(&scene.org.servicenow_url()), options).await;
    let ca = pem_file(scene.dir.path(), "ca.pem", &authority.pem());
    scene.configure(&format!("[network]\nca_file = \"{}\"\n{FAST}", ca.display()), QUARANTINE);
    scene.edit(&scene.org.servicenow_url(), &front.url("localhost"));
    scene.org.add_group("High Risk Users");
    let users: Vec<_> = (0..5).map(|n| scene.org.add_user(User::new(&format!("User{n}"), "Miller"))).collect();
    users.iter().for_each(|user| drop(scene.org.push_event(events::sign_in(user, "HIGH"))));
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    let waiting = |state: &str| matches!(state, "retry" | "started" | "ready" | "unknown");
    ledger
        .wait_until(|actions| {
            let of = |step: &str| actions.iter().filter(|action| action.step == step).collect::<Vec<_>>();
            let (added, incidents) = (of("add"), of("incident"));
            added.len() == 5
                && added.iter().all(|action| action.state == "succeeded")
                && incidents.iter().all(|action| waiting(&action.state))
                && front.failures().len() >= 15
        })
        .await;
    let words = "ServiceNow cannot be reached: no connection could be made: the host asks for a certificate of ours";
    assert_eq!(count(&daemon, words), 1, "{}", daemon.log());
    assert_eq!(scene.org.incidents().len(), 0);

    let ours = clients.client("responder");
    let chain = pem_file(scene.dir.path(), "client.pem", &ours.certificate);
    let key = scene.dir.path().join("client.key").display().to_string();
    scene.secret("client.key", "no key at all");
    let certificate = format!("client_certificate = \"{}\"\nclient_key = {{ file = \"{key}\" }}", chain.display());
    scene.edit("[servicenow]\n", &format!("[servicenow]\n{certificate}\n"));
    let refused = scene.command(&["check"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(78), "{told}");
    assert!(told.contains("[servicenow] client_key") && told.contains("there is no private key in PEM"), "{told}");
    assert!(!told.contains("no key at all"), "{told}");
    scene.secret("client.key", &ours.key);
    daemon.signal("HUP");
    let actions = ledger.at_rest(5).await;
    assert!(actions.iter().all(|action| matches!(action.state.as_str(), "succeeded" | "settled")), "{}", daemon.log());
    assert_eq!(scene.org.incidents().len(), 5);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_a_service_is_one_line_and_its_end_another_however_many_requests_fail() {
    let scene = Scene::with(OrgOptions::default(), "", "").await;
    let authority = Authority::new("Acme CA");
    let identity = authority.server(&["localhost"]);
    let target = address_of(&scene.org.servicenow_url());
    let front = TlsFront::start(target, TlsOptions::new(identity.clone())).await;
    let (url, bind) = (front.url("localhost"), front.address());
    let ca = pem_file(scene.dir.path(), "ca.pem", &authority.pem());
    scene.configure(&format!("[network]\nca_file = \"{}\"\n{FAST}", ca.display()), QUARANTINE);
    scene.edit(&scene.org.servicenow_url(), &url);
    scene.org.add_group("High Risk Users");
    let user = scene.org.add_user(User::new("Ann", "Miller"));
    let daemon = scene.daemon();
    daemon.wait_for_log("ready: ");
    drop(front);
    // The port stays refused until the front stands again.
    for _ in 0..20 {
        scene.org.push_event(events::sign_in(&user, "HIGH"));
    }
    let ledger = Ledger::of(&scene).await;
    let attempts = |actions: &[okta_responder::store::ActionRow]| -> u32 {
        actions.iter().filter(|action| action.step == "incident").map(|action| action.attempts).sum()
    };
    ledger.wait_until(|actions| attempts(actions) >= 60).await;
    let (lost, back) = ("ServiceNow cannot be reached", "ServiceNow is reached again");
    assert_eq!((count(&daemon, lost), count(&daemon, back)), (1, 0), "{}", daemon.log());
    let _front = TlsFront::start(target, TlsOptions { bind, ..TlsOptions::new(identity) }).await;
    ledger.at_rest(20).await;
    assert_eq!(scene.org.incidents().len(), 20, "{}", daemon.log());
    assert_eq!((count(&daemon, lost), count(&daemon, back)), (1, 1), "{}", daemon.log());
    assert_eq!(count(&daemon, "did not succeed yet"), 0, "{}", daemon.log());
    assert!(daemon.stop().success());
}

#[test]
fn a_wrong_way_out_is_told_with_its_place_and_no_password() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let text = "[okta]\norg_url = \"https://acme.okta.com\"\ntoken = { env = \"TOKEN\" }\n\
                client_certificate = \"/nowhere/client.pem\"\n\
                [network]\nproxy = \"http://me:hunter2@proxy.example:3128\"\nproxy_username = \"me\"\n\
                no_proxy = [\"example.com:443\"]\nca_file = \"/nowhere/ca.pem\"\n";
    std::fs::write(&config, text).unwrap();
    let check = |variables: &[(&str, &str)]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_okta-responder"));
        command.arg("--config").arg(&config).arg("check").env("TOKEN", "t").envs(variables.iter().copied());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(78));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let told = check(&[]);
    assert!(!told.contains("hunter2"), "{told}");
    for place in [
        "[okta] client_certificate",
        "[network] proxy:",
        "[network] proxy_username",
        "[network] no_proxy",
        "[network] ca_file",
    ] {
        assert!(told.contains(place), "{place}: {told}");
    }
    std::fs::write(&config, text.split("client_certificate").next().unwrap()).unwrap();
    let told = check(&[("HTTPS_PROXY", "socks5://me:hunter2@proxy.example:1080")]);
    assert!(told.contains("HTTPS_PROXY does not name a proxy") && !told.contains("hunter2"), "{told}");
}
