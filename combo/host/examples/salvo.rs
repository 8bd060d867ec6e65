//! A service of salvo, mounted: `cargo run -p combo --example salvo`, then
//! `curl localhost:8080/salvo/hello/x`.
//!
//! salvo's own server asks the service through a service of hyper's trait, once per connection; so does
//! this, once per request. Its handlers find the peer by `remote_addr()` and the rest of the path; upgrades
//! work as under its own server.

use std::{net::SocketAddr, process::ExitCode};

use combo::{Context, Deployment, RequestBody, mount, mount::Target};
use http::{Request, uri::Scheme};
use hyper::service::Service as _;
use salvo::{
    conn::SocketAddr as Peer,
    http::body::ReqBody,
    prelude::{Router, Service, handler},
};

#[handler]
async fn hello(request: &mut salvo::Request) -> String {
    let name: String = request.param("name").unwrap_or_default();
    format!("Hello, {name}!\n")
}

#[handler]
async fn echo(request: &mut salvo::Request, response: &mut salvo::Response) {
    response.stream(futures_util::StreamExt::map(request.take_body(), |frame| {
        frame.map(|frame| frame.into_data().unwrap_or_default())
    }));
}

#[handler]
async fn whereabouts(request: &mut salvo::Request) -> String {
    format!("{} {} {}\n", request.remote_addr(), request.scheme(), request.uri().path())
}

fn routes() -> Router {
    Router::new()
        .push(Router::with_path("hello/{name}").get(hello))
        .push(Router::with_path("echo").post(echo))
        .push(Router::with_path("where").get(whereabouts))
}

/// Any service of salvo as a target.
pub(crate) fn target(service: Service) -> Target {
    let service = std::sync::Arc::new(service);
    let ask = move |request: Request<RequestBody>| {
        let peer = request.extensions().get::<SocketAddr>().map_or(Peer::Unknown, |peer| (*peer).into());
        let context: Option<&Context> = request.extensions().get();
        let scheme = context.map_or(Scheme::HTTP, |context| context.connection().scheme.clone());
        let asked = service.hyper_handler(Peer::Unknown, peer, scheme, None, Default::default(), None);
        asked.call(request.map(|body| ReqBody::Boxed { inner: Box::pin(body), fuse_config: None }))
    };
    // The context has the scheme.
    mount::tower(tower::service_fn(ask)).context()
}

/// The app of this example.
pub(crate) fn app() -> Target {
    target(Service::new(routes()))
}

fn main() -> ExitCode {
    combo::main(|| Deployment::new("salvo").listen("tcp:8080").mount("/salvo", app()))
}
