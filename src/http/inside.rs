//! Addresses that not everybody can reach. A service that an operator names freely is looked for only where everybody may
//! go, so that no name can lead a request of ours to this machine, the networks behind it or a cloud's metadata, unless
//! its section says that just this is meant.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;
use url::{Host, Url};

use super::proxy::{Exception, within};

/// The addresses that are admitted besides the public ones. The default admits none.
#[derive(Debug, Clone, Default)]
pub struct Inside(Arc<[Net]>);

/// An address, or all that begin with the same so many bits.
type Net = (IpAddr, u8);

impl Inside {
    /// Reads the entries of `allow_private`: addresses and networks.
    ///
    /// # Errors
    /// The first entry that is neither, by its index, and what is wrong with it.
    pub fn parse(entries: &[String]) -> Result<Self, (usize, &'static str)> {
        let net = |(index, entry): (usize, &String)| match Exception::parse(entry) {
            Ok(Exception::Net(net, bits)) => Ok((net, bits)),
            Ok(Exception::Domain(_) | Exception::Everything) => {
                Err((index, "this is neither an address nor a network"))
            }
            Err(message) => Err((index, message)),
        };
        Ok(Self(entries.iter().enumerate().map(net).collect::<Result<_, _>>()?))
    }

    /// Whether a connection may be made to an address.
    pub fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.0.iter().any(|(net, bits)| within(*net, *bits, address))
    }

    /// The address that stands in a URL in place of a name, if it is not admitted.
    pub fn refused(&self, url: &Url) -> Option<IpAddr> {
        let address = match url.host()? {
            Host::Domain(_) => return None,
            Host::Ipv4(address) => IpAddr::V4(address),
            Host::Ipv6(address) => IpAddr::V6(address),
        };
        (!self.admits(address)).then_some(address)
    }

    /// A name service that gives only what is admitted of the answers of another one.
    pub(super) fn names<R: Resolve + 'static>(&self, names: R) -> impl Resolve + use<R> {
        Admitted { names, inside: self.clone() }
    }
}

struct Admitted<R> {
    names: R,
    inside: Inside,
}

impl<R: Resolve> Resolve for Admitted<R> {
    fn resolve(&self, name: Name) -> Resolving {
        let (shown, inside) = (name.as_str().to_owned(), self.inside.clone());
        let asked = self.names.resolve(name);
        Box::pin(async move {
            let all: Vec<SocketAddr> = asked.await?.collect();
            let admitted: Vec<SocketAddr> = all.iter().copied().filter(|found| inside.admits(found.ip())).collect();
            match all.first() {
                Some(first) if admitted.is_empty() => Err(PrivateName { name: shown, address: first.ip() }.into()),
                _ => Ok(Box::new(admitted.into_iter()) as Addrs),
            }
        })
    }
}

/// A name all of whose addresses are not admitted.
#[derive(Debug, Error)]
#[error("{name} leads to {address}, which is no public address")]
pub(super) struct PrivateName {
    pub(super) name: String,
    pub(super) address: IpAddr,
}

/// Whether an address is one that anybody can reach, after the registries of special-purpose addresses (RFC 6890 and the
/// IANA registries that it began). What only wraps another address is judged by that one.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        // Between a carrier and its customers; protocol assignments; benchmarks; reserved.
        [0, ..] | [100, 64..=127, ..] | [192, 0, 0, _] | [198, 18..=19, ..] | [240..=255, ..] => true,
        // The old relays from IPv6.
        [192, 88, 99, _] => true,
        _ => false,
    };
    !(special
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] => v4(high, low),
        // NAT64, and 6to4.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        // Protocol assignments, with Teredo among them; documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Only this much of IPv6 is given to the public.
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::super::proxy::{Choice, Exceptions, Ways};
    use super::super::{Network, TroubleKind, client_within, trouble};
    use super::*;

    fn inside(entries: &[&str]) -> Inside {
        Inside::parse(&entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[track_caller]
    fn check(address: &str, expected: bool) {
        assert_eq!(Inside::default().admits(address.parse().unwrap()), expected, "{address}");
    }

    #[test]
    fn only_what_everybody_can_reach_is_admitted_by_itself() {
        for public in
            ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1", "223.255.255.255"]
        {
            check(public, true);
            check(&format!("::ffff:{public}"), true);
            check(&format!("64:ff9b::{public}"), true);
        }
        for private in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
        ] {
            check(private, false);
            check(&format!("::ffff:{private}"), false);
            check(&format!("64:ff9b::{private}"), false);
        }
        for public in ["2606:4700:4700::1111", "2a00:1450::1", "2002:808:808::1", "3ffe::1"] {
            check(public, true);
        }
        for private in [
            "::",
            "::1",
            "::127.0.0.1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::1",
            "3fff:1::1",
            "64:ff9b:1::1",
            "100::1",
            "4000::1",
        ] {
            check(private, false);
        }
    }

    #[test]
    fn what_is_listed_is_admitted_in_every_way_to_write_it_and_nothing_beside_it() {
        let inside = inside(&["10.0.0.0/8", "192.168.7.7", "fd00::/8"]);
        for (address, expected) in [
            ("10.255.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("192.168.7.7", true),
            ("192.168.7.8", false),
            ("fd12::1", true),
            ("fc00::1", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(inside.admits(address.parse().unwrap()), expected, "{address}");
        }
        for wrong in ["*", "example.com", "10.0.0.0/33", "", "10.0.0"] {
            assert!(
                Inside::parse(&["10.0.0.0/8".to_owned(), wrong.to_owned()]).is_err_and(|(at, _)| at == 1),
                "{wrong}"
            );
        }
    }

    #[test]
    fn an_address_in_place_of_a_name_is_known_however_it_is_written() {
        for text in
            ["http://127.1/", "http://2130706433/", "http://0x7f.1/", "http://[::1]/", "https://[::ffff:a9fe:a9fe]/x"]
        {
            assert!(Inside::default().refused(&Url::parse(text).unwrap()).is_some(), "{text}");
        }
        for text in ["https://example.com/", "https://localhost/", "https://1.1.1.1/"] {
            assert_eq!(Inside::default().refused(&Url::parse(text).unwrap()), None, "{text}");
        }
        let base = Url::parse("http://127.0.0.1:1/").unwrap();
        let client = |inside: &Inside| client_within("x", &base, Duration::from_secs(1), &Network::default(), inside);
        assert!(client(&Inside::default()).unwrap_err().to_string().contains("127.0.0.1 is no public address"));
        assert!(client(&inside(&["127.0.0.0/8"])).is_ok());
    }

    #[test]
    fn behind_a_proxy_an_address_is_judged_all_the_same() {
        let proxy = Choice::Configured { url: Url::parse("http://10.9.9.9:3128").unwrap(), login: None };
        let ways = Ways::new(proxy, Exceptions::default(), |_| None).unwrap();
        let network = Network::new(ways, Vec::new(), BTreeMap::new());
        let client = |base: &str| {
            let base = Url::parse(base).unwrap();
            client_within("x", &base, Duration::from_secs(1), &network, &Inside::default())
        };
        assert!(client("https://10.0.0.1/").is_err());
        assert!(client("https://api.example.com/").is_ok());
    }

    /// A name service with one answer.
    struct Told(Vec<SocketAddr>);

    impl Resolve for Told {
        fn resolve(&self, _: Name) -> Resolving {
            let told = self.0.clone();
            Box::pin(async move { Ok(Box::new(told.into_iter()) as Addrs) })
        }
    }

    #[tokio::test]
    async fn a_name_gives_only_the_addresses_that_are_admitted() {
        let told = |list: &[&str]| Told(list.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect());
        let ask = async |names: Told, inside: &Inside| {
            let found = inside.names(names).resolve("api.example.com".parse().unwrap()).await;
            found.map(|found| found.map(|address| address.ip().to_string()).collect::<Vec<_>>())
        };
        let none = Inside::default();
        assert_eq!(ask(told(&["10.0.0.1", "1.1.1.1", "::1"]), &none).await.unwrap(), ["1.1.1.1"]);
        assert_eq!(ask(told(&["10.0.0.1"]), &inside(&["10.0.0.0/8"])).await.unwrap(), ["10.0.0.1"]);
        let error = ask(told(&["169.254.169.254", "10.0.0.1"]), &none).await.unwrap_err();
        assert_eq!(error.to_string(), "api.example.com leads to 169.254.169.254, which is no public address");
        assert!(ask(told(&[]), &none).await.unwrap().is_empty());
    }

    /// The client itself asks the filtering name service, and connects to nothing else.
    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_not_connected_to_unless_that_is_listed() {
        let mut server = mockito::Server::new_async().await;
        let mock = server.mock("GET", "/").expect(1).create_async().await;
        let base = Url::parse(&format!("http://localhost:{}/", server.socket_address().port())).unwrap();
        let client =
            |inside: &Inside| client_within("x", &base, Duration::from_secs(20), &Network::default(), inside).unwrap();
        let error = client(&Inside::default()).get(base.clone()).send().await.unwrap_err();
        let trouble = trouble::Trouble::of(&error);
        assert!(matches!(&trouble.kind, TroubleKind::Private(name, _) if name == "localhost"), "{trouble:?}");
        assert!(trouble.is_before_request());
        let sent = client(&inside(&["127.0.0.0/8", "::1"])).get(base.clone()).send().await;
        assert_eq!(sent.unwrap().status(), 200);
        mock.assert_async().await;
    }
}
