//! hello-axum by plain hyper, on one thread: `least PORT [told]`. This is the least that a server of it costs which is
//! built on hyper: nothing looks at a request before the app, counts it, or sees how long it takes. With `told`, the app
//! is mounted at `/axum` and finds what combo tells it: peer, original URI and prefix.

/// Connections.
mod plain;

use std::{cell::RefCell, io, process::ExitCode, rc::Rc};

use axum::{
    Router,
    extract::{ConnectInfo, OriginalUri},
};
use hyper::{
    Request, Uri,
    body::Incoming,
    header::{HeaderName, HeaderValue},
    http::uri::PathAndQuery,
    service::service_fn,
};
use tower_service::Service;

const PREFIX: &str = "/axum";
const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-prefix");

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let parsed = match &words[..] {
        [port] => port.parse().ok().map(|port| (port, false)),
        [port, told] if told == "told" => port.parse().ok().map(|port| (port, true)),
        _ => None,
    };
    let Some((port, told)) = parsed else {
        eprintln!("usage: least PORT [told]");
        return ExitCode::from(2);
    };
    match run(port, told) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot serve on `127.0.0.1:{port}`: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(port: u16, told: bool) -> io::Result<()> {
    let app: Rc<RefCell<Router>> = Rc::new(RefCell::new(hello_axum::app()));
    plain::run(port, |peer| {
        let app = app.clone();
        service_fn(move |mut request: Request<Incoming>| {
            if told {
                tell(&mut request);
                let _ = request.extensions_mut().insert(ConnectInfo(peer));
            }
            app.borrow_mut().call(request)
        })
    })
}

/// Takes the prefix off.
fn tell(request: &mut Request<Incoming>) {
    let whole = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let rest = whole.strip_prefix(PREFIX).and_then(|rest| rest.parse::<Uri>().ok()).unwrap_or_default();
    let original = std::mem::replace(request.uri_mut(), rest);
    let _ = request.extensions_mut().insert(OriginalUri(original));
    let _ = request.headers_mut().insert(FORWARDED, HeaderValue::from_static(PREFIX));
}
