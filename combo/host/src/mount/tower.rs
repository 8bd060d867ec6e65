//! A request -> response, by any tower service.
//!
//! The service finds `http::Uri` (the original URI) and `SocketAddr` (the peer) in the request's
//! extensions.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use combo_core::BoxError;
use http::{Request, Response, Uri};
use http_body::Body;
use http_body_util::BodyExt;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    Answering, App, Arrival, Builder, Recipe, Source, Target,
    own_threads::{Asked, SendApp, SendBody},
};
use crate::serve::body::{RequestBody, ResponseBody};

/// Any tower service that can be cloned and sent to the workers: warp through `warp::service`,
/// tonic, salvo, a stack of tower layers. An error that it returns is answered with 500 and logged.
///
/// One whose futures or bodies cannot be sent goes through [`local`].
///
/// Clients of gRPC ask for `/package.Service/Method`, so such a service is mounted at the root of a host, or at
/// `"/package.Service"` [`unstripped`](Target::unstripped) beside others. A call that has no answer by the
/// deadline that it brings ends with it, as under tonic's own server; an answer that has begun by then goes
/// on. What the combo refuses is told as a status of gRPC.
pub fn tower<S, B>(service: S) -> Target
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Target::new("a tower service", Source::App(recipe(service)))
}

/// A tower service that each worker makes for itself, so neither it nor its futures and bodies need be
/// `Send`: `make` is called once per worker, on the worker.
pub fn local<F, S, B>(make: F) -> Target
where
    F: Fn() -> S + Clone + Send + 'static,
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + 'static,
    S::Error: Into<BoxError>,
    S::Future: 'static,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    let label = format!("a local service (`{}`)", std::any::type_name::<F>());
    let app = move || app(make());
    Target::new(label, Source::App(Box::new(Local(app))))
}

pub(super) fn recipe<S, B>(service: S) -> Box<dyn Recipe>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Box::new(Clones(service))
}

/// A service as an app.
pub(super) fn app<S, B>(service: S) -> Rc<dyn App>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + 'static,
    S::Error: Into<BoxError>,
    S::Future: 'static,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    Rc::new(Tower(RefCell::new(service)))
}

struct Local<F>(F);

impl<F: Fn() -> Rc<dyn App> + Clone + Send + 'static> Recipe for Local<F> {
    fn builder(&mut self) -> Builder {
        let make = self.0.clone();
        Box::new(move || Box::pin(async move { Ok(make()) }))
    }
}

struct Clones<S>(S);

impl<S, B> Recipe for Clones<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn builder(&mut self) -> Builder {
        let service = self.0.clone();
        Box::new(move || Box::pin(async move { Ok(app(service)) }))
    }

    fn send(&mut self) -> Option<Arc<dyn SendApp>> {
        Some(Arc::new(Sent(Mutex::new(self.0.clone()))))
    }
}

/// A service that any thread may clone.
struct Sent<S>(Mutex<S>);

impl<S, B> SendApp for Sent<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn ask(&self, mut request: Request<RequestBody>, mut arrival: Arrival<'_>) -> Asked {
        let original = arrival.strip(&mut request);
        tell(&mut request, &arrival, original);
        let mut service = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move {
            poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
            let response = service.call(request).await.map_err(Into::into)?;
            Ok(response.map(|body| Box::pin(body.map_err(Into::into)) as SendBody))
        })
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
    fn answer(
        &self,
        mut request: Request<RequestBody>,
        mut arrival: Arrival<'_>,
        cx: &mut Context<'_>,
    ) -> Answering {
        let original = arrival.strip(&mut request);
        tell(&mut request, &arrival, original);
        call(&self.0, request, cx)
    }
}

/// Leaves what services find among the extensions.
pub(super) fn tell(request: &mut Request<RequestBody>, arrival: &Arrival<'_>, original: Uri) {
    let extensions = request.extensions_mut();
    if let Some(peer) = arrival.connection.peer.address() {
        let _ = extensions.insert(peer);
    }
    let _ = extensions.insert(original);
}

/// Most services are always ready, and then the one instance serves all.
pub(super) fn call<S, B>(
    shared: &RefCell<S>,
    request: Request<RequestBody>,
    cx: &mut Context<'_>,
) -> Answering
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + 'static,
    S::Error: Into<BoxError>,
    S::Future: 'static,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    let mut service = shared.borrow_mut();
    match service.poll_ready(cx) {
        Poll::Ready(Ok(())) => {
            let calling = service.call(request);
            drop(service);
            return Answering::boxed(Box::pin(Called { calling }), cx);
        }
        Poll::Ready(Err(error)) => return Answering::Now(Err(error.into())),
        Poll::Pending => {}
    }
    // The one that was asked has to wait, since it may have a place in a queue by now.
    let fresh = service.clone();
    let mut service = std::mem::replace(&mut *service, fresh);
    Answering::Later(Box::pin(async move {
        poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
        Called { calling: service.call(request) }.await
    }))
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
