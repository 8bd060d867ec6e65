//! Takes the closure that makes an `App` and gives a tower service that lives on the same thread.
//!
//! Never spawns for an ordinary request and never catches a panic: whoever polls gets it.

use std::{
    cell::RefCell,
    convert::Infallible,
    error::Error as StdError,
    fmt,
    future::Future,
    io,
    marker::PhantomData,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use actix_http::{Request, Response};
use actix_service::{IntoServiceFactory, Service as ActixTrait, ServiceFactory};
use actix_web::{
    Error,
    body::{BoxBody, MessageBody},
    dev::AppConfig,
};
use bytes::Bytes;
use pin_project_lite::pin_project;

use crate::{
    glossary::Glossary,
    request,
    response::{Body, Reply},
};

/// Any error, when only its text matters.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// One instance of an actix-web app, on the thread that made it.
///
/// Clones share the instance. Calling it needs a `tokio::task::LocalSet` (or actix's own runtime)
/// around it if the app spawns, as apps with websockets, actors or `actix_web::rt::spawn` do.
#[derive(Clone)]
pub struct ActixService {
    shared: Rc<Shared<dyn Dispatch>>,
}

struct Shared<D: ?Sized> {
    glossary: Rc<RefCell<Glossary>>,
    app: D,
}

/// What the host of a service tells beyond the request itself.
///
/// As a plain tower service, [`ActixService`] looks for an `Arrival` among the request's extensions,
/// and if there is none, for a `SocketAddr`, which is then the `peer`.
#[derive(Clone, Debug, Default)]
pub struct Arrival {
    /// Who is at the other end of the connection: `HttpRequest::peer_addr()`. Default: unknown.
    pub peer: Option<SocketAddr>,
    /// Bytes at the beginning of the path that the app does not see. Default: 0.
    pub strip: usize,
    /// Scheme and authority that the app's URI begins with, in place of the request's own: for
    /// connections with TLS, so that `connection_info()` says so. Default: as in the request.
    pub origin: Option<(http::uri::Scheme, http::uri::Authority)>,
}

impl ActixService {
    /// Builds one instance of the app. Takes what `actix_web::HttpServer::new` takes.
    ///
    /// # Errors
    /// If the app cannot be built, for instance because one of its `data_factory` futures failed.
    pub async fn new<F, I, S, B>(factory: F) -> Result<Self, BuildError>
    where
        F: Fn() -> I,
        I: IntoServiceFactory<S, Request>,
        S: ServiceFactory<Request, Config = AppConfig> + 'static,
        S::Error: Into<Error> + 'static,
        S::InitError: fmt::Debug,
        S::Response: Into<Response<B>> + 'static,
        <S::Service as ActixTrait<Request>>::Future: 'static,
        S::Service: 'static,
        B: MessageBody + 'static,
    {
        let app = factory()
            .into_factory()
            .new_service(AppConfig::default())
            .await
            .map_err(|reason| BuildError(Kind::App(format!("{reason:?}"))))?;
        let glossary = Rc::new(RefCell::new(Glossary::new()));
        Ok(Self { shared: Rc::new(Shared { glossary, app: App { service: app, body: PhantomData } }) })
    }

    /// Answers one request, with what the host knows about it.
    ///
    /// The app finds in its request extensions (`web::ReqData`): the URI as it arrived, as
    /// `actix_web::http::Uri`; and, if there are any, the request's own extensions, as
    /// `http::Extensions`.
    pub fn call_with<B>(&self, request: http::Request<B>, arrival: Arrival) -> Answer
    where
        B: http_body::Body<Data = Bytes> + 'static,
        B::Error: Into<BoxError>,
    {
        match request::translate(request, arrival, &self.shared.glossary) {
            Ok((request, reply)) => Answer(State::Asked(self.shared.app.dispatch(request, reply))),
            Err(_) => Answer(State::Refused(Some(Body::refusal(http::StatusCode::BAD_REQUEST)))),
        }
    }
}

impl fmt::Debug for ActixService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActixService").finish_non_exhaustive()
    }
}

impl<B> tower_service::Service<http::Request<B>> for ActixService
where
    B: http_body::Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let arrival = Arrival::among(request.extensions_mut());
        ResponseFuture(self.call_with(request, arrival))
    }
}

impl Arrival {
    pub(crate) fn among(extensions: &mut http::Extensions) -> Self {
        if extensions.is_empty() {
            return Self::default();
        }
        extensions
            .remove::<Self>()
            .unwrap_or_else(|| Self { peer: extensions.get::<SocketAddr>().copied(), ..Self::default() })
    }
}

/// The app's answer on its way. Dropping it drops the app's own future.
#[must_use = "futures do nothing unless polled"]
pub struct Answer(State);

enum State {
    Asked(Pin<Box<dyn Future<Output = http::Response<Body>>>>),
    Refused(Option<http::Response<Body>>),
}

impl Future for Answer {
    type Output = http::Response<Body>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Asked(answer) => answer.as_mut().poll(cx),
            State::Refused(response) => {
                Poll::Ready(response.take().expect("a future is not polled after it is ready"))
            }
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

/// An [`Answer`] in the form that tower asks for.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture(Answer);

impl Future for ResponseFuture {
    type Output = Result<http::Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(Ok)
    }
}

/// The app could not be built.
pub struct BuildError(Kind);

enum Kind {
    App(String),
    Thread(io::Error),
}

impl BuildError {
    pub(crate) fn thread(cause: io::Error) -> Self {
        Self(Kind::Thread(cause))
    }
}

impl fmt::Debug for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildError({self})")
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            // What actix gives here is most often `()`: the cause is in the app's own log.
            Kind::App(reason) => write!(f, "cannot build the actix app: its factory gave `{reason}`"),
            Kind::Thread(_) => f.write_str("cannot start a thread for the actix app"),
        }
    }
}

impl StdError for BuildError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0 {
            Kind::App(_) => None,
            Kind::Thread(cause) => Some(cause),
        }
    }
}

/// An app of any type.
trait Dispatch {
    fn dispatch(&self, request: Request, reply: Reply)
    -> Pin<Box<dyn Future<Output = http::Response<Body>>>>;
}

struct App<S, B> {
    service: S,
    body: PhantomData<fn() -> B>,
}

impl<S, B> Dispatch for App<S, B>
where
    S: ActixTrait<Request>,
    S::Error: Into<Error>,
    S::Response: Into<Response<B>>,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    fn dispatch(
        &self,
        request: Request,
        reply: Reply,
    ) -> Pin<Box<dyn Future<Output = http::Response<Body>>>> {
        // The only allocation for the future: the translation of the response is part of it.
        Box::pin(Dispatched { answer: self.service.call(request), reply: Some(reply), body: PhantomData })
    }
}

pin_project! {
    struct Dispatched<F, B> {
        #[pin]
        answer: F,
        reply: Option<Reply>,
        body: PhantomData<fn() -> B>,
    }
}

impl<F, R, E, B> Future for Dispatched<F, B>
where
    F: Future<Output = Result<R, E>>,
    R: Into<Response<B>>,
    E: Into<Error>,
    B: MessageBody + 'static,
{
    type Output = http::Response<Body>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.answer.poll(cx));
        let reply = this.reply.take().expect("a future is not polled after it is ready");
        Poll::Ready(match answer {
            Ok(response) => reply.with(response.into()),
            Err(error) => reply.with(Response::<BoxBody>::from(error.into())),
        })
    }
}
