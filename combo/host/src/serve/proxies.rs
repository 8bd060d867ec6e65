//! What a trusted proxy says of a request -> whom it is from, how it came, and to which host. Pure.
//!
//! Each proxy adds to the end of what its client wrote, so everything is read from the end, and what
//! cannot be understood ends it: nothing before it is believed. Only the headers that were named are
//! looked at, `X-Forwarded-*` or `Forwarded` (RFC 7239) and never one for want of the other: what a
//! proxy does not set its client may. An app sees none of them: it is told by its framework's own means.

use std::net::{IpAddr, SocketAddr};

use combo_core::{Endpoint, Peer, pattern::normal_segment};
use http::{HeaderMap, HeaderValue, uri::Scheme};
use ipnet::IpNet;

/// Whom we believe, and in which headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proxies {
    networks: Vec<IpNet>,
    /// Whoever can open our unix sockets.
    unix: bool,
    /// None: the usual ones.
    headers: Option<Vec<Header>>,
}

/// Where a proxy says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    For,
    Proto,
    Host,
    Prefix,
    Forwarded,
}

impl Header {
    const ALL: [Self; 5] = [Self::For, Self::Proto, Self::Host, Self::Prefix, Self::Forwarded];

    /// Those that are looked at unless others are said: what every proxy sets. The others many let through
    /// as a client wrote them.
    const USUAL: &[Self] = &[Self::For, Self::Proto];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::For => "x-forwarded-for",
            Self::Proto => "x-forwarded-proto",
            Self::Host => "x-forwarded-host",
            Self::Prefix => "x-forwarded-prefix",
            Self::Forwarded => "forwarded",
        }
    }

    /// Whether both say the same of a request.
    fn contradicts(self, other: Self) -> bool {
        let x = |header| matches!(header, Self::For | Self::Proto | Self::Host);
        (self == Self::Forwarded && x(other)) || (other == Self::Forwarded && x(self))
    }
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

    /// Only these headers, by their names.
    ///
    /// # Errors
    ///
    /// What a name would have to be.
    pub(crate) fn hear(&mut self, said: &str) -> Result<(), &'static str> {
        let headers = self.headers.get_or_insert_default();
        let header = Header::ALL
            .into_iter()
            .find(|header| header.name().eq_ignore_ascii_case(said))
            .ok_or("x-forwarded-for, -proto, -host or -prefix, or forwarded")?;
        if headers.iter().any(|other| other.contradicts(header)) {
            return Err("either forwarded or x-forwarded-for, -proto and -host");
        }
        headers.push(header);
        Ok(())
    }

    /// None at all.
    pub(crate) fn hear_nothing(&mut self) {
        self.headers = Some(Vec::new());
    }

    pub(crate) fn headers(&self) -> &[Header] {
        self.headers.as_deref().unwrap_or(Header::USUAL)
    }

    /// Whom to trust, for instance, where nobody who can connect to an endpoint is.
    pub(crate) fn missing(&self, endpoint: &Endpoint) -> Option<&'static str> {
        match endpoint.bare() {
            Endpoint::Unix { .. } => (!self.unix).then_some("unix"),
            // It may turn out to be of either kind.
            Endpoint::Inherited(_) if self.unix => None,
            _ => self.networks.is_empty().then_some("10.0.0.0/8"),
        }
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

    /// The nearest on the way back that is no proxy of ours.
    fn client(&self, way_back: impl Iterator<Item = Option<SocketAddr>>) -> Option<SocketAddr> {
        let mut client = None;
        for hop in way_back {
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
        let mut said = Said::default();
        for header in self.headers() {
            let mut elements = from_the_end(headers, header.name());
            match header {
                Header::For => said.peer = self.client(elements.map(|said| address(text(said)?))),
                Header::Proto => said.scheme = elements.next().and_then(|said| scheme(text(said)?)),
                Header::Host => said.host = elements.next().and_then(|said| Some(text(said)?.to_owned())),
                Header::Prefix => {
                    let prefix = elements.next().and_then(text).filter(|prefix| is_prefix(prefix));
                    said.prefix = prefix.map(ToOwned::to_owned);
                }
                Header::Forwarded => {
                    let mut elements = lines(headers, header.name())
                        .flat_map(|line| split_from_the_end(line, b','))
                        .map(Element::parse)
                        .peekable();
                    let last = elements.peek();
                    said.scheme = last.and_then(|last| scheme(&last.by("proto")?));
                    said.host = last.and_then(|last| last.by("host"));
                    said.peer = self.client(elements.map(|element| address(&element.by("for")?)));
                }
            }
        }
        said
    }
}

/// The lines of one name, the last one first.
fn lines<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).into_iter().rev().map(HeaderValue::as_bytes)
}

/// The elements of all lines of one name. In `X-Forwarded-*` nothing is quoted: a quote of the client's
/// must not swallow what a proxy added.
fn from_the_end<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a [u8]> {
    lines(headers, name).flat_map(|line| line.rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

fn text(said: &[u8]) -> Option<&str> {
    std::str::from_utf8(said).ok()
}

/// The parts between separators that are not quoted, the last one first. From the end, because there is
/// what the proxy wrote: a quote that the client left open takes only what is before it.
fn split_from_the_end(line: &[u8], separator: u8) -> Vec<&[u8]> {
    let (mut parts, mut end, mut quoted) = (Vec::new(), line.len(), false);
    for (at, byte) in line.iter().enumerate().rev() {
        match byte {
            b'"' if quoted => {
                let escapes = line[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
                quoted = escapes % 2 == 1;
            }
            b'"' => quoted = true,
            _ if *byte == separator && !quoted => {
                parts.push(line[at + 1..end].trim_ascii());
                end = at;
            }
            _ => {}
        }
    }
    parts.push(line[..end].trim_ascii());
    parts
}

/// `for=192.0.2.1;proto=https` (RFC 7239, section 4).
struct Element<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Element<'a> {
    fn parse(said: &'a [u8]) -> Self {
        let pairs = split_from_the_end(said, b';').into_iter().filter_map(text);
        Self(pairs.filter_map(|pair| pair.split_once('=')).collect())
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

/// Only what can be put before a path and nothing else, for browsers as well: it names neither a host
/// nor the way back, and hides nothing.
fn is_prefix(said: &str) -> bool {
    let Some(path) = said.strip_prefix('/') else { return false };
    let path = path.strip_suffix('/').unwrap_or(path);
    said == "/" || path.split('/').all(is_segment)
}

/// `segment-nz` (RFC 3986, section 3.3).
fn is_segment(said: &str) -> bool {
    let bytes = said.as_bytes();
    let harmless = |at: usize| {
        let digits =
            said.get(at + 1..at + 3).filter(|said| said.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        byte.is_some_and(|byte| !byte.is_ascii_control() && !matches!(byte, b'/' | b'\\'))
    };
    let allowed = |(at, byte): (usize, &u8)| match byte {
        b'%' => harmless(at),
        byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(byte),
    };
    bytes.iter().enumerate().all(allowed) && !matches!(&*normal_segment(said), "" | "." | "..")
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

    const OURS: [&str; 3] = ["10.0.0.0/8", "::1", "192.0.2.200"];

    /// In latin-1, so that any byte can be said.
    fn lines(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: http::HeaderName = name.parse().expect("a name");
            let bytes: Vec<u8> = value.chars().map(|c| u8::try_from(c).expect("a byte")).collect();
            let _ = headers.append(name, HeaderValue::from_bytes(&bytes).expect("a value"));
        }
        headers
    }

    fn check(said: &[(&str, &str)], peer: Option<&str>, scheme: Option<&str>, host: Option<&str>) {
        let mut proxies = proxies(&OURS);
        let forwarded = said.iter().any(|(name, _)| *name == "forwarded");
        for name in if forwarded {
            &["Forwarded"][..]
        } else {
            &["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"]
        } {
            assert_eq!(proxies.hear(name), Ok(()), "{name}");
        }
        let seen = proxies.said(&lines(said));
        let seen =
            (seen.peer.map(|peer| peer.to_string()), seen.scheme.map(|scheme| scheme.to_string()), seen.host);
        let expected = (peer.map(Into::into), scheme.map(Into::into), host.map(Into::into));
        assert_eq!(seen, expected, "{said:?}");
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
        by("203.0.113.66, , 10.0.0.7", Some("10.0.0.7:0"));
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
    fn what_a_client_wrote_does_not_hide_what_a_proxy_added() {
        for client in ["\"", "\u{ff}", "for=\"", "\"\\", "203.0.113.66, \"", ",", "\u{c3}\u{a4}\t\""] {
            let with = |added: &str| format!("{client}, {added}");
            let by = |name, added: &str, peer, scheme, host| {
                check(&[(name, &*with(added))], peer, scheme, host);
            };
            by("x-forwarded-for", "192.0.2.1", Some("192.0.2.1:0"), None, None);
            by("x-forwarded-for", "10.0.0.7", Some("10.0.0.7:0"), None, None);
            by("x-forwarded-proto", "https", None, Some("https"), None);
            by("x-forwarded-host", "a.example", None, None, Some("a.example"));
            let quoted = "for=\"[2001:db8::1]:80\";host=\"a\\\"b, c\"";
            for added in [quoted, &format!("{quoted}, for=10.0.0.7;host=\"a\\\"b, c\"")] {
                by("forwarded", added, Some("[2001:db8::1]:80"), None, Some("a\"b, c"));
            }
            by("forwarded", "for=10.0.0.7", Some("10.0.0.7:0"), None, None);
        }
        // Nothing is said elsewhere for want of what can be read.
        check(&[("x-forwarded-for", "\u{ff}"), ("x-forwarded-proto", "\"")], None, None, None);
    }

    #[test]
    fn forwarded_is_believed_where_that_is_said() {
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
    }

    #[test]
    fn only_the_headers_that_were_named_are_heard() {
        let all = lines(&[
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "a.example"),
            ("x-forwarded-prefix", "/a"),
            ("forwarded", "for=192.0.2.2;proto=http;host=b.example"),
        ]);
        let heard = |names: Option<&[&str]>| {
            let mut proxies = proxies(&OURS);
            if let Some(names) = names {
                proxies.hear_nothing();
                for name in names {
                    assert_eq!(proxies.hear(name), Ok(()), "{name}");
                }
            }
            let Said { peer, scheme, host, prefix } = proxies.said(&all);
            let words =
                [peer.map(|peer| peer.ip().to_string()), scheme.map(|said| said.to_string()), host, prefix];
            words.map(Option::unwrap_or_default).join(" ")
        };
        assert_eq!(heard(None), "192.0.2.1 https  ");
        assert_eq!(heard(Some(&["X-Forwarded-For", "x-forwarded-proto"])), "192.0.2.1 https  ");
        assert_eq!(heard(Some(&["forwarded"])), "192.0.2.2 http b.example ");
        assert_eq!(heard(Some(&["x-forwarded-prefix", "forwarded"])), "192.0.2.2 http b.example /a");
        assert_eq!(heard(Some(&[])), "   ");
        for names in
            [&["x-real-ip"][..], &[""], &["forwarded", "x-forwarded-for"], &["x-forwarded-host", "forwarded"]]
        {
            let mut proxies = Proxies::default();
            assert!(names.iter().any(|name| proxies.hear(name).is_err()), "{names:?}");
        }
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
    }

    #[test]
    fn a_prefix_is_a_path_and_nothing_else() {
        for good in ["/", "/outer", "/outer/", "/a/b.c/%20~:@!", "/a%2e", "/%C3%A4"] {
            assert!(is_prefix(good), "{good}");
        }
        for bad in [
            "",
            "outer",
            "//",
            "//evil.example",
            "/a//b",
            "/a//",
            "/\\evil.example",
            "/a\\b",
            "/a?b",
            "/a#b",
            "/a b",
            "/a\tb",
            "/a\u{7f}",
            "/.",
            "/a/../b",
            "/..",
            "/%2e%2E/a",
            "/a%",
            "/a%2",
            "/a%+1",
            "/a%2fb",
            "/a%5Cb",
            "/a%0ab",
            "/<b>",
            "/a\"b",
            "/\u{e4}",
        ] {
            assert!(!is_prefix(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_understood_or_ignored(value in "[ -~\u{80}-\u{ff}]{0,80}", name in "(x-forwarded-(for|proto|host|prefix)|forwarded)") {
            let mut proxies = proxies(&OURS);
            proxies.hear_nothing();
            prop_assert_eq!(proxies.hear(&name), Ok(()));
            let _ = proxies.said(&lines(&[(&name, &value)]));
        }

        /// Whatever a client writes, what its proxy adds counts.
        #[test]
        fn the_last_word_is_the_proxys(value in "[a-z=;,\"\\\\ \u{80}-\u{ff}]{0,40}") {
            check(&[("x-forwarded-for", &*format!("{value},192.0.2.1"))], Some("192.0.2.1:0"), None, None);
            let added = "for=\"[2001:db8::1]\";host=\"a\\\\\"";
            check(&[("forwarded", &*format!("{value},{added}"))], Some("[2001:db8::1]:0"), None, Some("a\\"));
        }
    }
}
