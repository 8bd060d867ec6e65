//! Routes of poem, mounted: `cargo run -p combo --example poem`, then `curl localhost:8080/poem/hello/x`.
//!
//! An endpoint takes poem's own request, which is made here of its parts as poem's own server does it.
//! Handlers find the peer as `RemoteAddr` and the rest of the path; upgrades work as
//! under its own server.

use std::{convert::Infallible, io, net::SocketAddr, process::ExitCode, sync::Arc};

use combo::{Context, Deployment, RequestBody, mount, mount::Target};
use http::{Request, Response, uri::Scheme};
use http_body_util::{BodyExt, combinators::BoxBody};
use poem::{
    Body, Endpoint, IntoResponse, RequestParts, Route, get, handler, post,
    web::{LocalAddr, Path, RemoteAddr},
};

#[handler]
fn hello(Path(name): Path<String>) -> String {
    format!("Hello, {name}!\n")
}

#[handler]
fn echo(body: Body) -> Body {
    body
}

#[handler]
fn whereabouts(request: &poem::Request) -> String {
    format!("{} {} {}\n", request.remote_addr(), request.scheme(), request.uri().path())
}

fn routes() -> Route {
    Route::new().at("/hello/:name", get(hello)).at("/echo", post(echo)).at("/where", get(whereabouts))
}

/// Any endpoint of poem as a target.
pub(crate) fn target<E: Endpoint + 'static>(endpoint: E) -> Target {
    let endpoint = Arc::new(endpoint);
    let ask = move |request: Request<RequestBody>| {
        let endpoint = endpoint.clone();
        let peer = request.extensions().get::<SocketAddr>().copied();
        let peer = RemoteAddr(peer.map_or_else(Default::default, Into::into));
        let context: Option<&Context> = request.extensions().get();
        let scheme = context.map_or(Scheme::HTTP, |context| context.connection().scheme.clone());
        let (parts, body) = request.into_parts();
        let parts = RequestParts::from((parts, LocalAddr::default(), peer, scheme));
        let body = Body::from(BoxBody::new(body.map_err(io::Error::other)));
        async move {
            let response = endpoint.call(poem::Request::from_parts(parts, body)).await;
            let response = response.map_or_else(poem::Error::into_response, IntoResponse::into_response);
            Ok::<Response<BoxBody<_, io::Error>>, Infallible>(response.into())
        }
    };
    // The context has the scheme.
    mount::tower(tower::service_fn(ask)).context()
}

/// The app of this example.
pub(crate) fn app() -> Target {
    target(routes())
}

fn main() -> ExitCode {
    combo::main(|| Deployment::new("poem").listen("tcp:8080").mount("/poem", app()))
}
