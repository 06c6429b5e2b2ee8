//! What kept a request from being answered, told so that somebody can do something about it.
//!
//! The libraries beneath wrap their errors in each other. What has a type of its own is recognized by it; only what
//! the library for tunnels says has no public type, and is recognized by its words.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::{AlertDescription, CertificateError, Error as TlsError, PeerMisbehaved};
use thiserror::Error;

use super::inside::PrivateName;

/// The words with which `Display` begins when no connection could be made.
pub const NO_CONNECTION: &str = "no connection could be made";

/// What to do, out of the words of a [`Trouble`] that kept a connection from being made, wherever they stand in a text.
pub fn remedy_in(text: &str) -> Option<&str> {
    let (_, told) = text.split_once(NO_CONNECTION)?;
    told.split_once("; ").map(|(_, remedy)| remedy)
}

/// What kept a request from being answered. `Display` says what happened and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Whose trouble it is.
    pub whose: Whose,
    /// What it is.
    pub kind: TroubleKind,
}

/// Whom the trouble is with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The host that was asked.
    Host,
    /// The proxy on the way to it.
    Proxy,
}

/// The kinds of trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TroubleKind {
    /// The name does not resolve.
    Name(String),
    /// The name leads to an address that is not admitted.
    Private(String, IpAddr),
    /// Nobody listens there.
    Refused,
    /// No way leads there.
    NoRoute,
    /// No connection in time.
    ConnectTimeout,
    /// This process may open no more connections.
    Descriptors,
    /// The connection broke while it was being made.
    BrokeOff,
    /// 407: the proxy wants to be shown a login, or another one.
    ProxyLogin,
    /// The proxy makes no tunnel to the host.
    ProxyRefuses,
    /// A certificate that is not believed.
    Certificate(BadCertificate),
    /// It wants a certificate of ours, or another one.
    ClientCertificate,
    /// It speaks no TLS that is new enough.
    OldTls,
    /// It does not speak TLS at all.
    NoTls,
    /// TLS failed in some other way.
    Tls(String),
    /// No connection, and nobody says why.
    Connect,
    /// The request left, and no answer came in time.
    Timeout,
    /// The request left, and the connection broke.
    Lost,
    /// No request could be made.
    Unbuildable,
}

/// Why a certificate is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadCertificate {
    /// Nobody whom this host believes has signed it.
    UnknownIssuer,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYet,
    /// It is for other names, these ones.
    OtherName(Vec<String>),
    /// It was revoked.
    Revoked,
    /// It is wrong in some other way.
    Other(String),
}

impl Trouble {
    /// What an error of `Client::execute` or `RequestBuilder::send` comes from.
    pub fn of(error: &reqwest::Error) -> Self {
        let causes = Self::of_chain(error);
        let host = |kind| Self { whose: Whose::Host, kind };
        match causes {
            // The same words of the system may come before and after a request has left; only where a connection was being
            // made is it certain. A server turns down our certificate when a client of TLS 1.3 has already sent its request,
            // and before it reads it (RFC 8446, section 4.4.2.4).
            Some(trouble) if error.is_connect() || trouble.kind == TroubleKind::ClientCertificate => trouble,
            _ if error.is_builder() => host(TroubleKind::Unbuildable),
            _ if error.is_connect() && error.is_timeout() => host(TroubleKind::ConnectTimeout),
            _ if error.is_connect() => host(TroubleKind::Connect),
            _ if error.is_timeout() => host(TroubleKind::Timeout),
            _ => host(TroubleKind::Lost),
        }
    }

    /// What the causes of an error tell, whosever it is; `None` when none of them is known.
    pub fn of_chain(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut whose = Whose::Host;
        let mut cause = Some(error);
        while let Some(error) = cause {
            match tunnel(error) {
                Some(Tunnel::Below) => whose = Whose::Proxy,
                Some(Tunnel::Is(kind)) => return Some(Self { whose: Whose::Proxy, kind }),
                None => {}
            }
            if let Some(kind) = known(error) {
                return Some(Self { whose, kind });
            }
            cause = inner(error);
        }
        None
    }

    /// Whether it says all that there is to say; else the causes underneath may tell more.
    pub fn is_known(&self) -> bool {
        !matches!(
            self.kind,
            TroubleKind::Connect
                | TroubleKind::BrokeOff
                | TroubleKind::Timeout
                | TroubleKind::Lost
                | TroubleKind::Unbuildable
        )
    }

    /// Whether nothing of the request was taken, however far it came: no connection was made, or the other side turned down
    /// our certificate, which it does before it reads on.
    pub fn is_before_request(&self) -> bool {
        !matches!(self.kind, TroubleKind::Timeout | TroubleKind::Lost | TroubleKind::Unbuildable)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (who, address) = match self.whose {
            Whose::Host => ("the host", "the address"),
            Whose::Proxy => ("the proxy", "`proxy` in [network], or HTTPS_PROXY"),
        };
        match &self.kind {
            TroubleKind::Timeout => return f.write_str("no answer came in time"),
            TroubleKind::Lost => return f.write_str("the connection broke before an answer came"),
            TroubleKind::Unbuildable => return f.write_str("no request can be built from these parameters"),
            _ => f.write_str(NO_CONNECTION)?,
        }
        match &self.kind {
            TroubleKind::Name(name) => {
                write!(f, ": the name service knows no {name}; look at {address}, and at DNS")
            }
            TroubleKind::Private(name, address) => write!(
                f,
                ": {name} leads to {address}, which is no public address; if it is meant, add it to allow_private in the \
                 section of the service, else look at DNS"
            ),
            TroubleKind::Refused => write!(f, ": {who} refuses it; look at {address}, and its port"),
            TroubleKind::NoRoute => {
                write!(f, ": no network leads to {who}; look at {address}, at routes and firewall")
            }
            TroubleKind::ConnectTimeout => write!(
                f,
                " in time; look at {address}, at the firewall, and whether a proxy is needed ([network])"
            ),
            TroubleKind::Descriptors => {
                f.write_str(": the daemon may open no more files; raise LimitNOFILE= of the unit")
            }
            TroubleKind::BrokeOff => {
                write!(f, ": {who} broke it off at once; look at {address}, at gateways and firewall")
            }
            TroubleKind::ProxyLogin => f.write_str(
                ": the proxy asks for a login that it accepts (407); look at proxy_username and proxy_password in [network], \
                 or at the login in HTTPS_PROXY (http://USER:PASSWORD@HOST:PORT)",
            ),
            TroubleKind::ProxyRefuses => f.write_str(
                ": the proxy leads to no such host; have it allowed there, or name it in no_proxy of [network]",
            ),
            TroubleKind::Certificate(bad) => write!(f, ": the certificate of {who} {bad}"),
            TroubleKind::ClientCertificate => write!(
                f,
                ": {who} asks for a certificate of ours that it accepts; look at client_certificate and client_key in the \
                 section of the service"
            ),
            TroubleKind::OldTls => {
                write!(f, ": {who} and this daemon have no TLS in common; it has to speak TLS 1.2 or 1.3")
            }
            TroubleKind::NoTls => {
                write!(f, ": {who} does not speak TLS there; look at {address}, its scheme and its port")
            }
            TroubleKind::Tls(words) => write!(f, ": TLS with {who} failed ({words})"),
            _ => write!(f, "; look at {address}, the name service and the firewall"),
        }
    }
}

impl fmt::Display for BadCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownIssuer => f.write_str(
                "comes from an authority that this host does not know; if it is your own, or a gateway that opens TLS, put \
                 its CA certificate into ca_file in [network]",
            ),
            Self::Expired => f.write_str("has expired; have it renewed, and look at the clock of this host"),
            Self::NotYet => f.write_str("is not valid yet; look at the clock of this host"),
            Self::OtherName(names) if names.is_empty() => {
                f.write_str("is not for this name; look at the address, or have the name put into the certificate")
            }
            Self::OtherName(names) => write!(
                f,
                "is for {} and not for this name; look at the address, or have the name put into the certificate",
                names.join(", ")
            ),
            Self::Revoked => f.write_str("was revoked; have it replaced"),
            Self::Other(words) => write!(f, "is not accepted ({words})"),
        }
    }
}

/// The cause of an error. An error of the system may hold another one, which `source` would step over.
fn inner<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(held) => Some(held as &(dyn Error + 'static)),
        None => error.source(),
    }
}

enum Tunnel {
    /// What is underneath concerns the proxy.
    Below,
    /// This is it.
    Is(TroubleKind),
}

/// What the library for tunnels says. Should its words change, tests fail, and messages become less exact.
fn tunnel(error: &(dyn Error + 'static)) -> Option<Tunnel> {
    let words = error.to_string();
    Some(match words.strip_prefix("tunnel error: ")? {
        "proxy authorization required" => Tunnel::Is(TroubleKind::ProxyLogin),
        "unsuccessful" | "proxy response headers too long" => Tunnel::Is(TroubleKind::ProxyRefuses),
        "unexpected end of file" => Tunnel::Is(TroubleKind::BrokeOff),
        _ => Tunnel::Below,
    })
}

/// What one error is by its type.
fn known(error: &(dyn Error + 'static)) -> Option<TroubleKind> {
    if let Some(NoSuchName(name)) = error.downcast_ref() {
        return Some(TroubleKind::Name(name.clone()));
    }
    if let Some(PrivateName { name, address }) = error.downcast_ref() {
        return Some(TroubleKind::Private(name.clone(), *address));
    }
    if let Some(error) = error.downcast_ref::<TlsError>() {
        return Some(of_tls(error));
    }
    let error = error.downcast_ref::<io::Error>()?;
    if error.get_ref().is_some_and(|held| held.is::<TlsError>() || held.is::<io::Error>()) {
        return None;
    }
    use io::ErrorKind as K;
    Some(match (error.kind(), error.raw_os_error()) {
        // EMFILE and ENFILE.
        (_, Some(23 | 24)) => TroubleKind::Descriptors,
        (K::ConnectionRefused, _) => TroubleKind::Refused,
        (K::HostUnreachable | K::NetworkUnreachable | K::AddrNotAvailable | K::NetworkDown, _) => TroubleKind::NoRoute,
        (K::TimedOut, _) => TroubleKind::ConnectTimeout,
        (K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe | K::UnexpectedEof, _) => TroubleKind::BrokeOff,
        _ => return None,
    })
}

fn of_tls(error: &TlsError) -> TroubleKind {
    use AlertDescription as A;
    match error {
        TlsError::InvalidCertificate(bad) => TroubleKind::Certificate(of_certificate(bad)),
        TlsError::AlertReceived(
            A::CertificateRequired
            | A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied,
        ) => TroubleKind::ClientCertificate,
        TlsError::AlertReceived(A::ProtocolVersion | A::HandshakeFailure | A::InsufficientSecurity)
        | TlsError::PeerIncompatible(_)
        | TlsError::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedCipherSuite) => TroubleKind::OldTls,
        TlsError::InvalidMessage(_) => TroubleKind::NoTls,
        other => TroubleKind::Tls(other.to_string()),
    }
}

fn of_certificate(bad: &CertificateError) -> BadCertificate {
    match bad {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => BadCertificate::UnknownIssuer,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => BadCertificate::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => BadCertificate::NotYet,
        CertificateError::NotValidForName => BadCertificate::OtherName(Vec::new()),
        CertificateError::NotValidForNameContext { presented, .. } => {
            BadCertificate::OtherName(presented.iter().take(3).map(|name| plain_name(name)).collect())
        }
        CertificateError::Revoked => BadCertificate::Revoked,
        other => BadCertificate::Other(other.to_string()),
    }
}

/// A name of a certificate. The library tells it as `DnsName("a.example")` or `IpAddress(127.0.0.1)`.
fn plain_name(told: &str) -> String {
    let inner = told.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(told);
    inner.trim_matches('"').chars().filter(|c| !c.is_control()).take(100).collect()
}

/// Asks the system's name service, as the client itself would, but says which name is not known.
pub(super) struct SystemNames;

impl Resolve for SystemNames {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            match tokio::net::lookup_host((name.as_str(), 0)).await {
                Ok(addresses) => Ok(Box::new(addresses.collect::<Vec<SocketAddr>>().into_iter()) as Addrs),
                // Files that are used up, and the like, are no matter of the name.
                Err(error) if error.raw_os_error().is_some() => Err(error.into()),
                Err(_) => Err(NoSuchName(name.as_str().to_owned()).into()),
            }
        })
    }
}

/// A name that does not resolve, for now.
#[derive(Debug, Error)]
#[error("the name service knows no {0}")]
struct NoSuchName(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_certificate_are_told_plainly() {
        assert_eq!(plain_name("DnsName(\"proxy.example\")"), "proxy.example");
        assert_eq!(plain_name("IpAddress(192.0.2.7)"), "192.0.2.7");
        assert_eq!(plain_name("proxy.example\u{1b}"), "proxy.example");
    }

    #[test]
    fn what_to_do_is_found_in_the_words_of_a_trouble() {
        let told = |whose, kind| format!("GET /x: {}", Trouble { whose, kind });
        let login = told(Whose::Proxy, TroubleKind::ProxyLogin);
        let remedy = remedy_in(&login).unwrap_or_default();
        assert!(remedy.starts_with("look at proxy_username") && remedy.contains("HTTPS_PROXY (http://USER"), "{login}");
        assert_eq!(remedy_in(&told(Whose::Host, TroubleKind::Timeout)), None);
        assert_eq!(remedy_in("answered 503; it is asked again"), None);
    }
}
