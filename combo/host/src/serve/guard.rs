//! A request -> a request that every app may trust, whatever its framework would have let through.
//!
//! Pure. Exactly one valid host, which agrees with the target; one kind of length; no `..` in the
//! path as it was sent, and no byte that is not ASCII; the scheme of the socket; nothing that only a proxy may say.

use std::cell::RefCell;

use combo_core::pattern::normal_segment;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri,
    header::{CONTENT_LENGTH, FORWARDED, HOST, TRANSFER_ENCODING},
    uri::{Authority, Scheme},
};

use super::refusal::Malformed;

/// What the wire showed of a head that the HTTP library does not pass on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lengths {
    /// There was a `Content-Length` line.
    pub(crate) content_length: bool,
}

/// Makes a request trustworthy, or says why it cannot be.
///
/// What the wire showed is asked for only where it matters: in a request with a `Transfer-Encoding`.
/// A host that was `known` to be valid still is; one that turns out to be is known from then on.
pub(crate) fn guard<B>(
    request: &mut Request<B>,
    scheme: &Scheme,
    known: &mut Option<HeaderValue>,
    lengths: impl FnOnce() -> Lengths,
) -> Result<(), Malformed> {
    // What else must not be there, the HTTP library refuses.
    if !request.uri().path_and_query().is_none_or(|target| target.as_str().is_ascii()) {
        return Err(Malformed::Target);
    }
    if has_dot_dot(request.uri().path()) {
        return Err(Malformed::DotDot);
    }
    let Told { host, as_proxy } = headers(request.headers(), lengths)?;
    match (host, request.uri().authority()) {
        (None, None) => return Err(Malformed::NoHost),
        (Some(host), None) if known.as_ref() == Some(host) => {}
        (Some(host), None) if valid_host(host.as_bytes()) => {
            // A copy, since the value itself holds the buffer that the whole head was read into.
            *known = HeaderValue::from_bytes(host.as_bytes()).ok();
        }
        (Some(host), Some(authority)) if valid_host(host.as_bytes()) => {
            if !same_host(host.as_bytes(), authority, scheme) {
                return Err(Malformed::HostsDiffer);
            }
        }
        (Some(_), _) => return Err(Malformed::Host),
        (None, Some(authority)) => {
            let said = authority.as_str().as_bytes();
            let host = match known {
                Some(host) if host.as_bytes() == said => host.clone(),
                _ => {
                    if !valid_host(said) {
                        return Err(Malformed::Host);
                    }
                    let host = HeaderValue::from_bytes(said).map_err(|_| Malformed::Host)?;
                    known.insert(host).clone()
                }
            };
            let _ = request.headers_mut().insert(HOST, host);
        }
    }
    if as_proxy {
        drop_proxy_headers(request.headers_mut());
    }
    if request.uri().scheme().is_some_and(|said| said != scheme) && request.method() != Method::CONNECT {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(scheme.clone());
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Malformed::Host)?;
    }
    Ok(())
}

struct Told<'a> {
    host: Option<&'a HeaderValue>,
    /// It says something that only a proxy may say.
    as_proxy: bool,
}

fn headers(headers: &HeaderMap, lengths: impl FnOnce() -> Lengths) -> Result<Told<'_>, Malformed> {
    let mut told = Told { host: None, as_proxy: false };
    let (mut length, mut encoded) = (false, false);
    for (name, value) in headers {
        // By length first: that tells most names apart at once.
        match name.as_str().len() {
            4 if name == HOST => {
                let before = told.host.replace(value);
                if before.is_some() {
                    return Err(Malformed::ManyHosts);
                }
            }
            14 if name == CONTENT_LENGTH => length = true,
            17 if name == TRANSFER_ENCODING => {
                if encoded || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed::TransferEncoding);
                }
                encoded = true;
            }
            9.. => told.as_proxy |= only_from_proxies(name),
            _ => {}
        }
    }
    if encoded && (length || lengths().content_length) { Err(Malformed::TwoLengths) } else { Ok(told) }
}

fn only_from_proxies(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    match name.first() {
        Some(b'f') => name == FORWARDED.as_str().as_bytes(),
        Some(b'x') => name.starts_with(b"x-forwarded-"),
        _ => false,
    }
}

fn drop_proxy_headers(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| only_from_proxies(name)).cloned().collect();
    for name in names {
        let _ = headers.remove(name);
    }
}

fn has_dot_dot(path: &str) -> bool {
    // Most paths have neither, or no more than the dot before an extension.
    let from = memchr::memchr2(b'.', b'%', path.as_bytes()).unwrap_or(path.len());
    let rest = &path.as_bytes()[from..];
    rest.windows(2).any(|two| two == b".." || two[0] == b'%')
        && path.split('/').any(|segment| segment == ".." || normal_segment(segment) == "..")
}

/// A name or an address, and a port if wanted: no user, no escapes, nothing empty.
pub(crate) fn valid_host(said: &[u8]) -> bool {
    if said.first() == Some(&b'[') {
        return valid_address(said);
    }
    let mut length = 0;
    while length < said.len() && NAME[usize::from(said[length])] {
        length += 1;
    }
    (1..=254).contains(&length) && said[0] != b'.' && valid_port(&said[length..])
}

/// Which bytes a name is made of.
const NAME: [bool; 256] = {
    let mut name = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        name[byte] = (byte as u8).is_ascii_alphanumeric() || matches!(byte as u8, b'-' | b'.' | b'_');
        byte += 1;
    }
    name
};

fn valid_address(said: &[u8]) -> bool {
    let Some(end) = said.iter().position(|b| *b == b']') else { return false };
    let address =
        std::str::from_utf8(&said[1..end]).ok().and_then(|text| text.parse::<std::net::Ipv6Addr>().ok());
    address.is_some() && valid_port(&said[end + 1..])
}

fn valid_port(said: &[u8]) -> bool {
    match said {
        [] => true,
        [b':', digits @ ..] if digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) => {
            let number = digits.iter().fold(0, |number, digit| 10 * number + u32::from(digit - b'0'));
            number <= u16::MAX.into()
        }
        _ => false,
    }
}

/// Whether the header and the target name the same host and port.
fn same_host(host: &[u8], authority: &Authority, scheme: &Scheme) -> bool {
    let plain = |said: &[u8]| -> Vec<u8> {
        let default: &[u8] = if *scheme == Scheme::HTTPS { b":443" } else { b":80" };
        let said = said.strip_suffix(default).or_else(|| said.strip_suffix(b":")).unwrap_or(said);
        said.to_ascii_lowercase()
    };
    host == authority.as_str().as_bytes() || plain(host) == plain(authority.as_str().as_bytes())
}

/// Finds a `Content-Length` line in a head as it is read, in pieces of any size: the HTTP library
/// drops the line where there is a `Transfer-Encoding` beside it. Only heads that begin a read are
/// looked at; of what is pipelined after another request the library keeps the encoding alone and
/// closes the connection after it, so that nothing can hide behind it (RFC 9112, section 6.3).
#[derive(Debug, Default)]
pub(crate) struct HeadScan {
    /// The beginning of a line that was torn, as far as it matters.
    torn: [u8; CONTENT_LENGTH_LINE.len()],
    length: usize,
    begun: bool,
    found: bool,
    done: bool,
}

const CONTENT_LENGTH_LINE: &[u8; 15] = b"content-length:";

impl HeadScan {
    /// A new head begins with the next byte.
    pub(crate) fn restart(&mut self) {
        (self.length, self.begun, self.found, self.done) = (0, false, false, false);
    }

    pub(crate) fn lengths(&self) -> Lengths {
        Lengths { content_length: self.found }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if self.length > 0 && !self.done {
            let Some(newline) = memchr::memchr(b'\n', rest) else { return self.tear(rest) };
            self.tear(&rest[..newline]);
            let (torn, length) = (self.torn, std::mem::take(&mut self.length));
            self.line(&torn[..length]);
            rest = &rest[newline + 1..];
        }
        while !self.done {
            let Some(newline) = memchr::memchr(b'\n', rest) else { return self.tear(rest) };
            self.line(&rest[..newline]);
            rest = &rest[newline + 1..];
        }
    }

    /// The whole of a head that came in one piece.
    fn of(head: &[u8]) -> Self {
        let mut scan = Self::default();
        scan.feed(head);
        scan
    }

    fn line(&mut self, line: &[u8]) {
        match line {
            // Empty lines before a request are skipped (RFC 9112, section 2.2).
            [] | [b'\r'] => self.done = self.begun,
            [b'c' | b'C', ..] => {
                let name = line.get(..CONTENT_LENGTH_LINE.len());
                self.found |= name.is_some_and(|name| name.eq_ignore_ascii_case(CONTENT_LENGTH_LINE));
            }
            _ => {}
        }
        self.begun |= !matches!(line, [] | [b'\r']);
    }

    /// Keeps the beginning of a line whose end is yet to come.
    fn tear(&mut self, piece: &[u8]) {
        let taken = piece.len().min(self.torn.len() - self.length);
        self.torn[self.length..self.length + taken].copy_from_slice(&piece[..taken]);
        self.length += taken;
    }
}

/// The last head that came in one piece on this thread, kept until it has been parsed, which happens
/// before another connection is read: so that hardly any head has to be scanned.
#[derive(Debug)]
pub(crate) struct LastHead {
    reader: usize,
    bytes: Vec<u8>,
}

thread_local! {
    static LAST_HEAD: RefCell<LastHead> = const { RefCell::new(LastHead { reader: 0, bytes: Vec::new() }) };
}

impl LastHead {
    /// Whether a read that begins a head ends one, so that it can be kept. Not if it begins with the
    /// empty lines that may stand before one.
    pub(crate) fn is_whole(bytes: &[u8]) -> bool {
        bytes.ends_with(b"\r\n\r\n") && !matches!(bytes[0], b'\r' | b'\n')
    }

    /// Keeps a head that was read on a connection, which is known by some number.
    pub(crate) fn keep(reader: usize, bytes: &[u8]) {
        LAST_HEAD.with_borrow_mut(|last| {
            last.reader = reader;
            last.bytes.clear();
            last.bytes.extend_from_slice(bytes);
        });
    }

    /// What the head showed, if it was read on this connection.
    pub(crate) fn lengths(reader: usize) -> Lengths {
        LAST_HEAD.with_borrow(|last| match last.reader {
            whose if whose == reader => HeadScan::of(&last.bytes).lengths(),
            _ => Lengths::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(target: &str, headers: &[(&str, &str)], expected: Result<&str, Malformed>) {
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).expect("a request");
        let lengths = Lengths::default();
        let guarded = guard(&mut request, &Scheme::HTTP, &mut None, || lengths).map(|()| {
            let names = request
                .headers()
                .iter()
                .map(|(name, value)| format!("{name}={}", value.to_str().expect("text")));
            format!("{} {}", request.uri(), names.collect::<Vec<_>>().join(" "))
        });
        assert_eq!(guarded, expected.map(ToOwned::to_owned), "{target} {headers:?}");
    }

    #[test]
    fn a_request_names_exactly_one_valid_host() {
        check("/", &[("host", "example.com")], Ok("/ host=example.com"));
        check("/", &[("host", "[::1]:8080")], Ok("/ host=[::1]:8080"));
        check("/", &[("host", "my_service:80")], Ok("/ host=my_service:80"));
        check("/", &[], Err(Malformed::NoHost));
        check("/", &[("host", "a"), ("host", "a")], Err(Malformed::ManyHosts));
        for bad in [
            "",
            "a b",
            "a,b",
            "u@a",
            "a/b",
            "a:x",
            "a:123456",
            "a:65536",
            "a:1:2",
            "a://long enough",
            "[::1",
            "[x]",
            "[::1]x",
            "é",
            "%61",
            ".a",
            ":80",
        ] {
            let mut request = Request::new(());
            let value = HeaderValue::from_bytes(bad.as_bytes()).expect("a value");
            let _ = request.headers_mut().insert(HOST, value);
            assert_eq!(
                guard(&mut request, &Scheme::HTTP, &mut None, Lengths::default),
                Err(Malformed::Host),
                "{bad}"
            );
        }
    }

    #[test]
    fn host_and_target_agree() {
        check("http://a/x", &[("host", "a")], Ok("http://a/x host=a"));
        check("http://A/x", &[("host", "a:80")], Ok("http://A/x host=a:80"));
        check("http://a/x", &[], Ok("http://a/x host=a"));
        check("http://a:8080/x", &[], Ok("http://a:8080/x host=a:8080"));
        check("http://a/x", &[("host", "b")], Err(Malformed::HostsDiffer));
        check("http://a:1/x", &[("host", "a:2")], Err(Malformed::HostsDiffer));
        check("http://u@a/x", &[("host", "a")], Err(Malformed::HostsDiffer));
        check("http://u@a/x", &[], Err(Malformed::Host));
    }

    #[test]
    fn the_scheme_is_the_sockets() {
        check("https://a/x?y", &[], Ok("http://a/x?y host=a"));
    }

    #[test]
    fn a_body_has_one_kind_of_length() {
        let host = ("host", "a");
        check("/", &[host, ("transfer-encoding", "Chunked")], Ok("/ host=a transfer-encoding=Chunked"));
        check("/", &[host, ("content-length", "1")], Ok("/ host=a content-length=1"));
        check(
            "/",
            &[host, ("content-length", "1"), ("transfer-encoding", "chunked")],
            Err(Malformed::TwoLengths),
        );
        for bad in ["gzip, chunked", "chunked, chunked", "identity", "xchunked", ""] {
            check("/", &[host, ("transfer-encoding", bad)], Err(Malformed::TransferEncoding));
        }
        let twice = [host, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        check("/", &twice, Err(Malformed::TransferEncoding));
        let mut request = Request::new(());
        let _ = request.headers_mut().insert(HOST, HeaderValue::from_static("a"));
        let _ = request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        let hidden = Lengths { content_length: true };
        assert_eq!(guard(&mut request, &Scheme::HTTP, &mut None, || hidden), Err(Malformed::TwoLengths));
    }

    #[test]
    fn dot_dot_is_refused_however_it_is_written() {
        for bad in ["/..", "/a/../b", "/a/..", "/%2e%2e/a", "/.%2E", "/%2E./"] {
            check(bad, &[("host", "a")], Err(Malformed::DotDot));
        }
        for good in ["/a..b", "/...", "/.", "/%2e", "/..%2fa", "/%252e%252e"] {
            check(good, &[("host", "a")], Ok(&format!("{good} host=a")));
        }
    }

    #[test]
    fn a_target_is_ascii() {
        for bad in ["/é", "/a/ü/b?c", "/?é", "/\u{80}"] {
            check(bad, &[("host", "a")], Err(Malformed::Target));
        }
        check("/%C3%A9?%ff", &[("host", "a")], Ok("/%C3%A9?%ff host=a"));
    }

    #[test]
    fn what_only_a_proxy_may_say_is_dropped() {
        let spoofed = [
            ("host", "a"),
            ("forwarded", "for=1.2.3.4"),
            ("X-Forwarded-For", "1.2.3.4"),
            ("X-Forwarded-For", "5.6.7.8"),
            ("X-Forwarded-Prefix", "/admin"),
            ("x-forwarded-anything", "x"),
            ("x-forward", "stays"),
        ];
        check("/", &spoofed, Ok("/ host=a x-forward=stays"));
    }

    fn scan(head: &[u8], split: usize) -> bool {
        let mut scan = HeadScan::default();
        scan.feed(&head[..split]);
        scan.feed(&head[split..]);
        scan.lengths().content_length
    }

    #[test]
    fn a_head_that_came_whole_is_looked_at_later() {
        let head = b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(LastHead::is_whole(head) && !LastHead::is_whole(&head[..head.len() - 1]));
        LastHead::keep(1, head);
        assert!(LastHead::lengths(1).content_length);
        assert!(!LastHead::lengths(2).content_length, "of another connection");
        LastHead::keep(1, b"GET / HTTP/1.1\r\n\r\n");
        assert!(!LastHead::lengths(1).content_length);
    }

    #[test]
    fn a_length_is_found_wherever_the_head_is_torn() {
        let with = b"\r\n\nPOST / HTTP/1.1\r\nHost: a\r\nContent-LENGTH : 3\r\ncontent-length: 3\r\n\r\nabc";
        let without =
            b"POST / HTTP/1.1\r\nX-Content-Length: a\r\nContent-Lengthy: 1\r\n\r\ncontent-length: 3\r\n";
        for split in 0..with.len() {
            assert!(scan(with, split), "torn at {split}");
        }
        for split in 0..without.len() {
            assert!(!scan(without, split), "torn at {split}");
        }
    }

    proptest! {
        #[test]
        fn no_host_makes_it_panic(host in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = valid_host(&host);
        }

        #[test]
        fn every_tear_finds_the_same(head in "(([cC]ontent-Length|Host|X): ?[0-9]{0,3}\r?\n){0,4}\r\n.{0,9}", at in 0_usize..40) {
            let head = head.as_bytes();
            prop_assert_eq!(scan(head, at.min(head.len())), scan(head, 0));
        }
    }
}
