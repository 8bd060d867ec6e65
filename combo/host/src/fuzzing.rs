//! What first meets bytes from outside, for `combo/fuzz`, which is given them by a fuzzer. It is there under
//! `cfg(fuzzing)` alone: nothing else can name what is private here. Whether it is right is asked there.

use std::{fmt::Debug, io, net::SocketAddr};

use combo_core::{BoxError, Pattern};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Request, uri::Scheme};
use tokio::io::AsyncReadExt as _;

use crate::{
    certs::{found, leaf},
    mount::files::{self, range::Asked},
    serve::{
        frames::Frames,
        guard::{HeadScan, Lengths},
        haproxy, http2,
        proxies::Proxies,
        route::Routes,
        tls,
    },
};

/// Whether the head of a request that comes in these pieces has a `Content-Length`.
pub fn has_length(pieces: &[&[u8]]) -> bool {
    let mut scan = HeadScan::default();
    pieces.iter().for_each(|piece| scan.feed(piece));
    scan.lengths().content_length
}

/// Guards a request of whose length the wire has shown something.
pub fn guard(
    request: &mut Request<()>,
    scheme: &Scheme,
    known: &mut Option<HeaderValue>,
    content_length: bool,
) -> Result<(), String> {
    let lengths = || Lengths { content_length };
    crate::serve::guard::guard(request, scheme, known, lengths).map_err(|why| format!("{why:?}"))
}

/// Whose a request is, and how much of the path is its prefix.
pub fn route(patterns: &[Pattern], host: &str, path: &str) -> Option<(usize, usize)> {
    Routes::new(patterns).find(host, path).map(|found| (found.mount, found.strip))
}

/// What a header of the PROXY protocol says, that comes in two pieces; and how many bytes were taken.
pub fn haproxy(pieces: [&[u8]; 2]) -> (io::Result<(Option<SocketAddr>, Option<Scheme>)>, usize) {
    let mut stream = pieces[0].chain(pieces[1]);
    let said = haproxy::read(&mut stream).now_or_never().expect("bytes in memory are there");
    let (one, other) = stream.into_inner();
    let left = one.len() + other.len();
    (said.map(|said| (said.peer, said.scheme)), pieces[0].len() + pieces[1].len() - left)
}

/// What a proxy has said.
#[derive(Debug)]
pub struct Said {
    /// The client.
    pub peer: Option<SocketAddr>,
    /// How it came.
    pub scheme: Option<Scheme>,
    /// To which host.
    pub host: Option<String>,
    /// Under which prefix.
    pub prefix: Option<String>,
}

/// What the headers of a request say by these names, where `10.0.0.0/8` is trusted.
pub fn proxies(names: &[&str], headers: &HeaderMap) -> Said {
    let mut proxies = Proxies::default();
    assert!(proxies.add("10.0.0.0/8"));
    names.iter().for_each(|name| proxies.hear(name).expect("a name"));
    let said = proxies.said(headers);
    Said { peer: said.peer, scheme: said.scheme, host: said.host, prefix: said.prefix }
}

/// The parts of a file that are to be sent, by their first and last byte: none where none is there. Nothing
/// where it is the whole file.
pub fn range(range: &str, length: u64) -> Option<Vec<(u64, u64)>> {
    let parts = match files::range::asked(range, length) {
        Asked::Whole => return None,
        Asked::Unsatisfiable => Vec::new(),
        Asked::One(part) => vec![part],
        Asked::Several(parts) => parts,
    };
    Some(parts.iter().map(|part| (part.first, part.last)).collect())
}

/// Where a path leads below the root, and whether it is said to be a folder.
pub fn place(path: &str) -> Option<(String, bool)> {
    files::path::place(path).map(|place| (place.path.into_owned(), place.folder))
}

/// Where a folder without a slash is redirected to.
pub fn with_slash(prefix: &str, path: &str, query: Option<&str>) -> String {
    files::path::with_slash(prefix, path, query)
}

/// Key and chain of a server, perhaps the authorities of clients; whether the certificate is for a host.
pub fn tls(key: &[u8], chain: &[u8], authority: Option<&[u8]>, host: &str) -> Result<bool, BoxError> {
    let verifier = authority.map(|authority| tls::verifier(authority, true));
    let (key, chain) = (tls::private(key), tls::chain(chain));
    if let Ok(chain) = &chain {
        let ordered = leaf::in_order(chain.clone());
        let _ = (leaf::Leaf::read(&ordered[0]), leaf::Holder::read(&ordered[0]));
    }
    let covers = chain.as_ref().is_ok_and(|chain| tls::covers(&chain[0], host));
    let _ = (found::certified(chain?, key?)?, verifier.transpose()?);
    Ok(covers)
}

/// How far what was written in these pieces has come.
pub fn frames(pieces: &[&[u8]]) -> impl Eq + Debug + use<> {
    fed(pieces)
}

/// How many of the bytes are still of the message that had begun before; and where it rests among them.
pub fn rest(before: &[u8], bytes: &[u8]) -> (usize, Option<usize>) {
    let mut frames = fed(&[before]);
    let until = frames.until_rest(bytes);
    let rests = (0..=bytes.len()).find(|at| {
        let rests = frames.rests();
        frames.feed(bytes.get(*at..=*at).unwrap_or_default());
        rests
    });
    (until, rests)
}

/// Whether an HTTP/2 client that sends this in these pieces is in the middle of a head.
#[must_use]
pub fn torn(pieces: &[&[u8]]) -> bool {
    let mut frames = http2::Frames::new();
    pieces.iter().fold(false, |_, piece| frames.feed(piece).torn)
}

fn fed(pieces: &[&[u8]]) -> Frames {
    let mut frames = Frames::new();
    pieces.iter().for_each(|piece| frames.feed(piece));
    frames
}
