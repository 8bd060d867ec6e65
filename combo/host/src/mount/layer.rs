//! Any tower layer around a mount, or around the whole deployment. A layer sees the request as the app
//! would, so it stands between the prefix rule and the app.

use std::{
    cell::RefCell,
    convert::Infallible,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use combo_core::BoxError;
use http::{Request, Response};
use http_body::Body;
use send_wrapper::SendWrapper;
use tower_layer::Layer;
use tower_service::Service;

use super::{Answering, App, Arrival, Builder, Later, Passage, Recipe, Target, tower};
use crate::serve::{
    body::{RequestBody, ResponseBody},
    refusal::Refusal,
    worker::said,
};

/// The rest of the way to an app, as a tower service: what a layer is put around.
///
/// It takes requests with any body, so layers may change it. It never fails: what an app did wrong is
/// an answer with status 500, and what the combo refuses is one too. It stays on its worker: it is `Send`
/// and `Sync` for layers that ask for that, and panics where it is called on another thread.
#[derive(Clone)]
pub struct Inner(SendWrapper<Rc<dyn App>>);

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

/// Puts something around an app, on each worker.
pub(crate) trait Wrap: Send {
    fn wrapper(&self) -> Wrapper;
}

pub(crate) type Wrapper = Box<dyn FnOnce(Rc<dyn App>) -> Rc<dyn App> + Send>;

impl<F: Fn(Rc<dyn App>) -> Rc<dyn App> + Clone + Send + 'static> Wrap for F {
    fn wrapper(&self) -> Wrapper {
        Box::new(self.clone())
    }
}

/// A recipe with something around what it makes.
pub(super) fn around(recipe: Box<dyn Recipe>, wrap: Box<dyn Wrap>) -> Box<dyn Recipe> {
    Box::new(Around(recipe, wrap))
}

struct Around(Box<dyn Recipe>, Box<dyn Wrap>);

impl Recipe for Around {
    fn builder(&mut self) -> Builder {
        let (builder, wrap) = (self.0.builder(), self.1.wrapper());
        Box::new(move || Box::pin(async move { Ok(wrap(builder().await?)) }))
    }
}

/// A layer as something that can be put around apps.
pub(crate) fn wrap<L, B>(layer: L) -> Box<dyn Wrap>
where
    L: Layer<Inner> + Clone + Send + 'static,
    L::Service: Service<Request<RequestBody>, Response = Response<B>> + Clone + 'static,
    <L::Service as Service<Request<RequestBody>>>::Error: Into<BoxError>,
    <L::Service as Service<Request<RequestBody>>>::Future: 'static,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    Box::new(move |app| {
        Rc::new(Layered(RefCell::new(layer.layer(Inner(SendWrapper::new(app)))))) as Rc<dyn App>
    })
}

impl Target {
    /// Puts a tower layer around this mount: compression, CORS, authentication, tracing. One that is
    /// said later is around those said before, as with axum's `Router::layer`.
    ///
    /// Each worker has its own copy, so what a layer counts it counts per worker unless its clones
    /// share it. The layer finds what every service finds: the rest of the path, the peer as
    /// `SocketAddr` and the original URI as `http::Uri` among the extensions, which it must leave there.
    ///
    /// ```
    /// use combo::mount;
    /// use http::{HeaderName, HeaderValue};
    /// use tower_http::set_header::SetResponseHeaderLayer;
    ///
    /// let name = HeaderName::from_static("x-frame-options");
    /// let layer = SetResponseHeaderLayer::overriding(name, HeaderValue::from_static("DENY"));
    /// let target = mount::redirect("/new").layer(layer);
    /// ```
    #[must_use]
    pub fn layer<L, B>(mut self, layer: L) -> Self
    where
        L: Layer<Inner> + Clone + Send + 'static,
        L::Service: Service<Request<RequestBody>, Response = Response<B>> + Clone + 'static,
        <L::Service as Service<Request<RequestBody>>>::Error: Into<BoxError>,
        <L::Service as Service<Request<RequestBody>>>::Future: 'static,
        B: Body<Data = Bytes> + 'static,
        B::Error: Into<BoxError>,
    {
        self.layers.push(wrap(layer));
        self
    }
}

/// An app with a layer around it.
struct Layered<S>(RefCell<S>);

impl<S, B> App for Layered<S>
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
        tower::tell(&mut request, &arrival, original.clone());
        // The app is told of the prefix already, and where the request came from.
        (arrival.original, arrival.forwarded, arrival.context) = (Some(original), None, None);
        let _ = request.extensions_mut().insert(arrival.kept());
        tower::call(&self.0, request, cx)
    }
}

impl<B> Service<Request<B>> for Inner
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Asking;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Asking {
        let request = Some(Box::new(request.map(RequestBody::new)));
        Asking(SendWrapper::new(State::Not(Rc::clone(&self.0), request)))
    }
}

/// The answer of the app within on its way.
pub struct Asking(SendWrapper<State>);

enum State {
    Not(Rc<dyn App>, Option<Box<Request<RequestBody>>>),
    Asked(Later, Box<str>),
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asking").finish_non_exhaustive()
    }
}

impl Future for Asking {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (answered, said) = match &mut *self.0 {
            State::Asked(later, said) => {
                let polled = contained(|| later.as_mut().poll(cx), |panicked| Poll::Ready(Err(panicked)));
                (ready!(polled), said.clone())
            }
            State::Not(app, request) => {
                let mut request = *request.take().expect("a future is not polled after it is ready");
                let said = format!("{} {}", request.method(), request.uri().path()).into_boxed_str();
                let answering = match request.extensions_mut().remove::<Passage>() {
                    Some(passage) => contained(
                        || app.answer(request, passage.arrival(), cx),
                        |panicked| Answering::Now(Err(panicked)),
                    ),
                    None => Answering::Now(Err("a layer took away the request's extensions".into())),
                };
                match answering {
                    Answering::Now(answered) => (answered, said),
                    Answering::Later(later) => {
                        *self.0 = State::Asked(later, said);
                        return Poll::Pending;
                    }
                }
            }
        };
        Poll::Ready(Ok(answered.unwrap_or_else(|error| {
            let tell = |error: &(dyn std::error::Error + 'static)| {
                tracing::error!(request = &*said, "an app failed: {}", crate::error::chain(error));
            };
            let panicked = error.is::<Panicked>();
            let refusal = Refusal::of(error, tell);
            if panicked { Refusal::Panicked } else { refusal }.response()
        })))
    }
}

/// Runs an app's code. A panic of the app is an answer to the layers around it, so that what they add to
/// every answer is added to this one, too.
fn contained<T>(run: impl FnOnce() -> T, panicked: impl FnOnce(BoxError) -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| panicked(Panicked(said(&*panic)).into()))
}

/// An app panicked, and what it said.
#[derive(Debug)]
struct Panicked(String);

impl std::fmt::Display for Panicked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Panicked {}
