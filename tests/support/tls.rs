//! TLS for the services of a scene: a private authority, what it certifies, and a front that ends TLS on loopback and
//! passes the bytes on to an address that speaks without.

use std::fmt::Display;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// A certificate authority that nobody knows until a test says so.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Founds one.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate, as it stands in a CA bundle.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certifies a server for host names and addresses.
    pub fn server(&self, names: &[&str]) -> Identity {
        self.certify(names, ExtendedKeyUsagePurpose::ServerAuth, 2999)
    }

    /// The same with a certificate that is over.
    pub fn expired_server(&self, names: &[&str]) -> Identity {
        self.certify(names, ExtendedKeyUsagePurpose::ServerAuth, 2001)
    }

    /// Certifies a client.
    pub fn client(&self, name: &str) -> Identity {
        self.certify(&[name], ExtendedKeyUsagePurpose::ClientAuth, 2999)
    }

    fn certify(&self, names: &[&str], usage: ExtendedKeyUsagePurpose, until: i32) -> Identity {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(until, 1, 1));
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate; it needs no intermediate one.
    pub certificate: String,
    /// The key, PKCS#8.
    pub key: String,
}

/// The versions of TLS that a front speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// 1.2 and 1.3.
    Current,
    /// 1.2 and nothing else.
    Only12,
    /// 1.3 and nothing else.
    Only13,
    /// It answers every greeting as a server does that knows no more than TLS 1.1. A sound client ends there.
    Only11,
}

/// How a front is made.
pub struct TlsOptions<'a> {
    /// What it shows.
    pub identity: Identity,
    /// The authority whose certificates it wants to see of every client; `None` asks for none.
    pub clients: Option<&'a Authority>,
    /// What it speaks.
    pub versions: Versions,
    /// Where it listens; port 0 takes a free one.
    pub bind: SocketAddr,
}

impl TlsOptions<'_> {
    /// A front on a free port of 127.0.0.1 that speaks what is current and asks for nothing.
    pub fn new(identity: Identity) -> Self {
        Self { identity, clients: None, versions: Versions::Current, bind: (Ipv4Addr::LOCALHOST, 0).into() }
    }
}

/// A running front. Dropping it closes its port and its connections.
pub struct TlsFront {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    handshakes: usize,
    failures: Vec<String>,
    went_on: bool,
}

impl TlsFront {
    /// Begins to listen, for a plain service at `target`.
    pub async fn start(target: SocketAddr, options: TlsOptions<'_>) -> Self {
        let listener = TcpListener::bind(options.bind).await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = (options.versions != Versions::Only11).then(|| TlsAcceptor::from(server_config(&options)));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    // However a connection ends is its client's business.
                    let _ = match acceptor {
                        Some(acceptor) => pass_on(client, &acceptor, target, &seen).await,
                        None => greet_as_of_old(client, &seen).await,
                    };
                });
            }
        });
        Self { address, seen, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its origin under a name, such as `https://localhost:1234`. IPv6 addresses stand in brackets.
    pub fn url(&self, host: impl Display) -> String {
        format!("https://{host}:{}", self.address.port())
    }

    /// How many handshakes came to an end.
    pub fn handshakes(&self) -> usize {
        self.seen.lock().unwrap().handshakes
    }

    /// Why others did not.
    pub fn failures(&self) -> Vec<String> {
        self.seen.lock().unwrap().failures.clone()
    }

    /// Whether a client accepted TLS 1.1 when it was offered nothing better.
    pub fn was_followed_below_12(&self) -> bool {
        self.seen.lock().unwrap().went_on
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn server_config(options: &TlsOptions<'_>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = match options.versions {
        Versions::Only12 => vec![&TLS12],
        Versions::Only13 => vec![&TLS13],
        Versions::Current | Versions::Only11 => vec![&TLS12, &TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(&versions).unwrap();
    let builder = match options.clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.0.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let certificate = CertificateDer::from_pem_slice(options.identity.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(options.identity.key.as_bytes()).unwrap();
    Arc::new(builder.with_single_cert(vec![certificate], key).unwrap())
}

async fn pass_on(client: TcpStream, tls: &TlsAcceptor, target: SocketAddr, seen: &Mutex<Seen>) -> io::Result<()> {
    let mut client = match tls.accept(client).await {
        Ok(client) => client,
        Err(error) => {
            seen.lock().unwrap().failures.push(error.to_string());
            return Err(error);
        }
    };
    seen.lock().unwrap().handshakes += 1;
    let mut service = TcpStream::connect(target).await?;
    service.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut service).await?;
    Ok(())
}

/// The kinds of a TLS record that matter here.
const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;

/// A `ServerHello` of TLS 1.1, made of nothing but what every client can read.
async fn greet_as_of_old(mut client: TcpStream, seen: &Mutex<Seen>) -> io::Result<()> {
    read_record(&mut client).await?;
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    // No session, TLS_RSA_WITH_AES_128_CBC_SHA, no compression.
    hello.extend([0, 0x00, 0x2f, 0]);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![HANDSHAKE, 3, 2, 0, length + 4, 2, 0, 0, length];
    record.extend(hello);
    client.write_all(&record).await?;
    let answer = read_record(&mut client).await?;
    let mut seen = seen.lock().unwrap();
    seen.went_on |= answer != ALERT;
    seen.failures.push("the client did not want TLS 1.1".to_owned());
    Ok(())
}

/// Reads a whole record and returns its kind.
async fn read_record(stream: &mut TcpStream) -> io::Result<u8> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).await?;
    let mut body = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    stream.read_exact(&mut body).await?;
    Ok(head[0])
}
