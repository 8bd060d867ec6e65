//! What a trusted proxy says of a request -> whom it is from, how it came, and to which host. Pure.
//!
//! `X-Forwarded-For`, `-Proto`, `-Host` and `-Prefix` are looked at where there is one of them, else
//! `Forwarded` (RFC 7239). What cannot be understood is as if it were not there. An app sees none of
//! them: it is told by its framework's own means.

use std::net::{IpAddr, SocketAddr};

use combo_core::Peer;
use http::{HeaderMap, HeaderValue, header::FORWARDED, uri::Scheme};
use ipnet::IpNet;

/// Whom we believe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proxies {
    networks: Vec<IpNet>,
    /// Whoever can open our unix sockets.
    unix: bool,
}

/// What was said of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) scheme: Option<Scheme>,
    pub(crate) host: Option<String>,
    pub(crate) prefix: Option<String>,
}

impl Proxies {
    /// An address, a network, or `unix`.
    pub(crate) fn add(&mut self, said: &str) -> bool {
        if said == "unix" {
            self.unix = true;
            return true;
        }
        let network = said.parse().or_else(|_| said.parse::<IpAddr>().map(IpNet::from));
        self.networks.extend(network.as_ref().ok());
        network.is_ok()
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.unix && self.networks.is_empty()
    }

    pub(crate) fn trusts(&self, peer: &Peer) -> bool {
        match peer.address() {
            Some(address) => self.trusts_address(address.ip()),
            None => self.unix,
        }
    }

    fn trusts_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// The nearest on the way that is no proxy of ours: proxies add to the end, so from there.
    fn client(&self, way: impl DoubleEndedIterator<Item = Option<SocketAddr>>) -> Option<SocketAddr> {
        let mut client = None;
        for hop in way.rev() {
            // Behind what cannot be understood there is nobody to believe.
            let Some(hop) = hop else { break };
            client = Some(hop);
            if !self.trusts_address(hop.ip()) {
                break;
            }
        }
        client
    }

    /// What the headers of a request say, whose sender is trusted.
    pub(crate) fn said(&self, headers: &HeaderMap) -> Said {
        let x = |name: &str| list(headers, name);
        let (way, proto, host) = (x("x-forwarded-for"), x("x-forwarded-proto"), x("x-forwarded-host"));
        let prefix = x("x-forwarded-prefix").pop().filter(|prefix| is_prefix(prefix)).map(str::to_owned);
        if !(way.is_empty() && proto.is_empty() && host.is_empty()) {
            return Said {
                peer: self.client(way.into_iter().map(address)),
                scheme: proto.last().and_then(|said| scheme(said)),
                host: host.last().map(|host| (*host).to_owned()),
                prefix,
            };
        }
        let elements: Vec<Element> =
            list(headers, FORWARDED.as_str()).into_iter().map(Element::parse).collect();
        let last = elements.last();
        Said {
            peer: self
                .client(elements.iter().map(|element| element.by("for").and_then(|said| address(&said)))),
            scheme: last.and_then(|last| scheme(&last.by("proto")?)),
            host: last.and_then(|last| last.by("host")),
            prefix,
        }
    }
}

/// The elements of all headers of one name, commas in quotes apart.
fn list<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| split(value, b',')).filter(|element| !element.is_empty()).collect()
}

fn split(value: &str, separator: u8) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                parts.push(value[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(value[start..].trim());
    parts
}

/// `for=192.0.2.1;proto=https` (RFC 7239, section 4).
struct Element<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Element<'a> {
    fn parse(said: &'a str) -> Self {
        Self(split(said, b';').into_iter().filter_map(|pair| pair.split_once('=')).collect())
    }

    fn by(&self, name: &str) -> Option<String> {
        let (_, value) = self.0.iter().find(|(known, _)| known.trim().eq_ignore_ascii_case(name))?;
        let value = value.trim();
        let Some(quoted) = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) else {
            return Some(value.to_owned());
        };
        let mut plain = String::with_capacity(quoted.len());
        let mut escaped = false;
        for character in quoted.chars() {
            if character == '\\' && !escaped {
                escaped = true;
            } else {
                escaped = false;
                plain.push(character);
            }
        }
        Some(plain)
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`. Without a port it
/// is 0.
fn address(said: &str) -> Option<SocketAddr> {
    let bare = said.strip_prefix('[').and_then(|said| said.strip_suffix(']')).unwrap_or(said);
    let address = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)).or_else(|_| said.parse());
    address.ok().map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()))
}

fn scheme(said: &str) -> Option<Scheme> {
    [Scheme::HTTP, Scheme::HTTPS].into_iter().find(|known| known.as_str().eq_ignore_ascii_case(said))
}

/// Only what can be put before a path and nothing else.
fn is_prefix(said: &str) -> bool {
    said.starts_with('/')
        && !said.starts_with("//")
        && said.parse::<http::uri::PathAndQuery>().is_ok_and(|path| path.query().is_none())
}

/// Our own prefix behind the one of a proxy.
pub(crate) fn joined(said: &str, ours: Option<&HeaderValue>) -> Option<HeaderValue> {
    let ours = ours.and_then(|ours| ours.to_str().ok()).unwrap_or_default();
    let joined = format!("{}{ours}", said.trim_end_matches('/'));
    if joined.is_empty() { None } else { HeaderValue::from_str(&joined).ok() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxies(said: &[&str]) -> Proxies {
        let mut proxies = Proxies::default();
        for said in said {
            assert!(proxies.add(said), "{said}");
        }
        proxies
    }

    fn check(lines: &[(&str, &str)], peer: Option<&str>, scheme: Option<&str>, host: Option<&str>) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: http::HeaderName = name.parse().expect("a name");
            let _ = headers.append(name, value.parse().expect("a value"));
        }
        let said = proxies(&["10.0.0.0/8", "::1", "192.0.2.200"]).said(&headers);
        let seen =
            (said.peer.map(|peer| peer.to_string()), said.scheme.map(|scheme| scheme.to_string()), said.host);
        let expected = (peer.map(Into::into), scheme.map(Into::into), host.map(Into::into));
        assert_eq!(seen, expected, "{lines:?}");
    }

    #[test]
    fn addresses_networks_and_unix_can_be_trusted_and_nothing_else() {
        let trusted = proxies(&["10.0.0.0/8", "::1", "unix"]);
        for (peer, expected) in
            [("10.1.2.3:1", true), ("11.1.2.3:1", false), ("[::1]:1", true), ("[::2]:1", false)]
        {
            assert_eq!(trusted.trusts(&Peer::Inet(peer.parse().expect("an address"))), expected, "{peer}");
        }
        assert!(trusted.trusts(&Peer::Unix) && !proxies(&["::1"]).trusts(&Peer::Unix));
        for bad in ["", "localhost", "10.0.0.0/33", "10.0.0/8", "*"] {
            assert!(!Proxies::default().add(bad), "{bad}");
        }
        assert!(Proxies::default().is_empty() && !trusted.is_empty());
    }

    #[test]
    fn the_client_is_the_nearest_that_is_no_proxy() {
        let by = |value, peer| check(&[("x-forwarded-for", value)], peer, None, None);
        by("192.0.2.1", Some("192.0.2.1:0"));
        by("192.0.2.1:80", Some("192.0.2.1:80"));
        by("2001:db8::1", Some("[2001:db8::1]:0"));
        by("[2001:db8::1]:80", Some("[2001:db8::1]:80"));
        by("::ffff:192.0.2.1", Some("192.0.2.1:0"));
        by("203.0.113.66, 192.0.2.1", Some("192.0.2.1:0"));
        by("203.0.113.66, 192.0.2.1, 10.0.0.7 ,::1", Some("192.0.2.1:0"));
        by("10.0.0.8, 10.0.0.7", Some("10.0.0.8:0"));
        by("192.0.2.1, unknown, 10.0.0.7", Some("10.0.0.7:0"));
        by("unknown", None);
        by(" , ", None);
        check(
            &[("x-forwarded-for", "203.0.113.66"), ("x-forwarded-for", "192.0.2.1")],
            Some("192.0.2.1:0"),
            None,
            None,
        );
    }

    #[test]
    fn scheme_and_host_are_the_last_proxys() {
        let proto = |value, scheme| check(&[("x-forwarded-proto", value)], None, scheme, None);
        proto("https", Some("https"));
        proto("https, HTTP", Some("http"));
        proto("gopher", None);
        check(&[("x-forwarded-host", "a.example, b.example:8080")], None, None, Some("b.example:8080"));
    }

    #[test]
    fn forwarded_is_believed_where_it_is_alone() {
        let by = |value, peer, scheme, host| check(&[("forwarded", value)], peer, scheme, host);
        by("for=192.0.2.1;proto=https;host=a.example", Some("192.0.2.1:0"), Some("https"), Some("a.example"));
        by("For=\"[2001:db8::1]:4711\"", Some("[2001:db8::1]:4711"), None, None);
        by(
            "for=203.0.113.66, for=192.0.2.1;proto=http, for=10.0.0.7;proto=https",
            Some("192.0.2.1:0"),
            Some("https"),
            None,
        );
        by("for=_hidden, for=10.0.0.7", Some("10.0.0.7:0"), None, None);
        by("for=\"192.0.2.1\"; host=\"a\\\"b, c\"", Some("192.0.2.1:0"), None, Some("a\"b, c"));
        by("nonsense", None, None, None);
        let both = [("forwarded", "for=203.0.113.66;proto=http"), ("x-forwarded-for", "192.0.2.1")];
        check(&both, Some("192.0.2.1:0"), None, None);
    }

    #[test]
    fn a_prefix_goes_before_ours() {
        for (said, ours, expected) in [
            ("/outer", Some("/blog"), Some("/outer/blog")),
            ("/outer/", Some("/blog"), Some("/outer/blog")),
            ("/outer", None, Some("/outer")),
            ("/", Some("/blog"), Some("/blog")),
            ("/", None, None),
        ] {
            let ours = ours.map(HeaderValue::from_static);
            assert_eq!(joined(said, ours.as_ref()), expected.map(HeaderValue::from_static), "{said}");
        }
        for bad in ["outer", "//evil.example", "/a?b", "", "/a b"] {
            assert!(!is_prefix(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_understood_or_ignored(value in "[ -~]{0,80}", name in "(x-forwarded-(for|proto|host|prefix)|forwarded)") {
            let mut headers = HeaderMap::new();
            if let (Ok(name), Ok(value)) = (name.parse::<http::HeaderName>(), value.parse()) {
                let _ = headers.insert(name, value);
            }
            let _ = proxies(&["10.0.0.0/8"]).said(&headers);
        }
    }
}
