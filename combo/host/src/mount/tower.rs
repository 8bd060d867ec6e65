//! A request -> response, by any tower service.
//!
//! The service finds `http::Uri` (the original URI) and `SocketAddr` (the peer) in the request's
//! extensions.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use combo_core::BoxError;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{Answering, App, Arrival, Builder, Recipe, Source, Target};
use crate::serve::body::{RequestBody, ResponseBody};

/// Any tower service that can be cloned and sent to the workers: warp through `warp::service`,
/// tonic, salvo, a stack of tower layers.
///
/// Its future and its response body stay on the worker and need not be `Send`. An error that it
/// returns is answered with 500 and logged.
pub fn tower<S, B>(service: S) -> Target
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: 'static,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    Target::new("a tower service", Source::App(recipe(service)))
}

/// A tower service that each worker makes for itself, so it need not be `Send`: `make` is called
/// once per worker, on the worker.
pub fn local<F, S, B>(make: F) -> Target
where
    F: Fn() -> S + Clone + Send + 'static,
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + 'static,
    S::Error: Into<BoxError>,
    S::Future: 'static,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    Target::new(
        format!("a local service (`{}`)", std::any::type_name::<F>()),
        Source::App(Box::new(Local(make))),
    )
}

pub(super) fn recipe<S, B>(service: S) -> Box<dyn Recipe>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: 'static,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    Box::new(Clones(service))
}

struct Clones<S>(S);

impl<S, B> Recipe for Clones<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: 'static,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    fn builder(&mut self) -> Builder {
        let service = self.0.clone();
        Box::new(move || Box::pin(async move { Ok(Rc::new(Tower(RefCell::new(service))) as Rc<dyn App>) }))
    }
}

struct Local<F>(F);

impl<F, S, B> Recipe for Local<F>
where
    F: Fn() -> S + Clone + Send + 'static,
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + 'static,
    S::Error: Into<BoxError>,
    S::Future: 'static,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    fn builder(&mut self) -> Builder {
        let make = self.0.clone();
        Box::new(move || Box::pin(async move { Ok(Rc::new(Tower(RefCell::new(make()))) as Rc<dyn App>) }))
    }
}

struct Tower<S>(RefCell<S>);

impl<S, B> App for Tower<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + 'static,
    S::Error: Into<BoxError>,
    S::Future: 'static,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    fn answer(&self, mut request: Request<RequestBody>, mut arrival: Arrival<'_>) -> Answering {
        let original = arrival.strip(&mut request);
        let extensions = request.extensions_mut();
        if let Some(peer) = arrival.connection.peer.address() {
            let _ = extensions.insert(peer);
        }
        let _ = extensions.insert(original);
        // Most services are always ready, and then the one instance serves all.
        let mut service = self.0.borrow_mut();
        if let Poll::Ready(Ok(())) = service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            return Box::pin(Called { calling: service.call(request) });
        }
        // The one that was asked has to wait, since it may have a place in a queue by now.
        let fresh = service.clone();
        let mut service = std::mem::replace(&mut *service, fresh);
        Box::pin(async move {
            poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
            Called { calling: service.call(request) }.await
        })
    }
}

pin_project! {
    /// The answer of a service on its way.
    struct Called<F> { #[pin] calling: F }
}

impl<F, B, E> Future for Called<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(self.project().calling.poll(cx)).map_err(Into::into)?;
        let (head, body) = response.into_parts();
        Poll::Ready(Ok(Response::from_parts(head, ResponseBody::begun(Box::pin(body), cx))))
    }
}
