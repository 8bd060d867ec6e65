//! A request -> response, by an axum router.
//!
//! Handlers find `OriginalUri` and `ConnectInfo<SocketAddr>` where axum's users expect them.

use std::{
    cell::RefCell,
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, OriginalUri},
    routing::future::RouteFuture,
};
use combo_core::BoxError;
use http::{Request, Response};
use http_body::Body as _;
use tower_service::Service;

use super::{Answering, App, Arrival, Builder, Recipe, Source, Target};
use crate::serve::body::{RequestBody, ResponseBody};

/// An axum 0.8 router, as it would be given to `axum::serve`.
pub fn axum(router: Router) -> Target {
    Target::new("an axum app", Source::App(Box::new(Clones(router))))
}

struct Clones(Router);

impl Recipe for Clones {
    fn builder(&mut self) -> Builder {
        let router = self.0.clone();
        Box::new(move || Box::pin(async move { Ok(Rc::new(Axum(RefCell::new(router))) as Rc<dyn App>) }))
    }
}

/// A router is always ready, and calling it only makes a future, so one instance serves all.
struct Axum(RefCell<Router>);

impl App for Axum {
    fn answer(&self, mut request: Request<RequestBody>, mut arrival: Arrival<'_>) -> Answering {
        let original = arrival.strip(&mut request);
        let extensions = request.extensions_mut();
        if let Some(peer) = arrival.connection.peer.address() {
            let _ = extensions.insert(ConnectInfo::<SocketAddr>(peer));
        }
        let _ = extensions.insert(OriginalUri(original));
        // An empty body costs nothing in axum's own form.
        let request = request.map(|body| if body.is_end_stream() { Body::empty() } else { Body::new(body) });
        Box::pin(Route(self.0.borrow_mut().call(request)))
    }
}

/// The answer of a router on its way.
struct Route(RouteFuture<Infallible>);

impl Future for Route {
    type Output = Result<Response<ResponseBody>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(response) = ready!(Pin::new(&mut self.0).poll(cx));
        let (head, body) = response.into_parts();
        Poll::Ready(Ok(Response::from_parts(head, ResponseBody::begun(body, cx))))
    }
}
