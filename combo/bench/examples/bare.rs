//! A file from memory by plain hyper, on one thread: `bare PORT FILE`. What is asked for does not matter, nor does
//! anything that a request says but `If-None-Match`: this is the least that a server built on hyper costs. The
//! head is that of `mount::files`.

/// Connections.
mod plain;

use std::{convert::Infallible, future::ready, io, process::ExitCode, rc::Rc};

use http_body_util::Full;
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{
        ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH,
        LAST_MODIFIED, VARY, X_CONTENT_TYPE_OPTIONS,
    },
    service::service_fn,
};

const TAG: HeaderValue = HeaderValue::from_static("\"0123456789abcdef0123456789abcdef\"");

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let parsed = match &words[..] {
        [port, file] => port.parse().ok().map(|port| (port, file)),
        _ => None,
    };
    let Some((port, file)) = parsed else {
        eprintln!("usage: bare PORT FILE");
        return ExitCode::from(2);
    };
    match std::fs::read(file).and_then(|contents| run(port, contents.into())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot serve `{file}` on `127.0.0.1:{port}`: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Both heads and the body, ready to be copied.
struct Prepared {
    whole: HeaderMap,
    not_modified: HeaderMap,
    contents: Bytes,
}

impl Prepared {
    fn new(contents: Bytes) -> Self {
        let not_modified = HeaderMap::from_iter([
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (ETAG, TAG),
            (VARY, HeaderValue::from_static("accept-encoding")),
        ]);
        let mut whole = not_modified.clone();
        whole.extend([
            (LAST_MODIFIED, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT")),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
            (CONTENT_LENGTH, contents.len().into()),
            (ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        ]);
        Self { whole, not_modified, contents }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let is_known = request.headers().get(IF_NONE_MATCH) == Some(&TAG);
        let (head, contents) =
            if is_known { (&self.not_modified, Bytes::new()) } else { (&self.whole, self.contents.clone()) };
        let mut response = Response::new(Full::new(contents));
        *response.headers_mut() = head.clone();
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        response
    }
}

fn run(port: u16, contents: Bytes) -> io::Result<()> {
    let prepared = Rc::new(Prepared::new(contents));
    plain::run(port, |_| {
        let prepared = prepared.clone();
        service_fn(move |request| ready(Ok::<_, Infallible>(prepared.answer(&request))))
    })
}
