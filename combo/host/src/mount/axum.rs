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
    sync::Arc,
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
use http_body_util::BodyExt;
use tower_service::Service;

use super::{
    Answering, App, Arrival, Builder, Recipe, Source, Target,
    own_threads::{Asked, SendApp, SendBody},
};
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

    fn send(&mut self) -> Option<Arc<dyn SendApp>> {
        Some(Arc::new(Self(self.0.clone())))
    }
}

impl SendApp for Clones {
    fn ask(&self, request: Request<RequestBody>, arrival: Arrival<'_>) -> Asked {
        let route = self.0.clone().call(told(request, arrival));
        Box::pin(async move {
            let Ok(response) = route.await;
            Ok(response.map(|body| Box::pin(body.map_err(Into::into)) as SendBody))
        })
    }
}

/// A router is always ready, and calling it only makes a future, so one instance serves all.
struct Axum(RefCell<Router>);

impl App for Axum {
    fn answer(&self, request: Request<RequestBody>, arrival: Arrival<'_>, cx: &mut Context<'_>) -> Answering {
        let request = told(request, arrival);
        let route = Route(self.0.borrow_mut().call(request));
        Answering::of(route, cx)
    }
}

/// The request as axum's own server would give it to a router.
fn told(mut request: Request<RequestBody>, mut arrival: Arrival<'_>) -> Request<Body> {
    let original = arrival.strip(&mut request);
    let extensions = request.extensions_mut();
    if let Some(peer) = arrival.connection.peer.address() {
        let _ = extensions.insert(ConnectInfo::<SocketAddr>(peer));
    }
    let _ = extensions.insert(OriginalUri(original));
    // An empty body costs nothing in axum's own form.
    request.map(|body| if body.is_end_stream() { Body::empty() } else { Body::new(body) })
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
