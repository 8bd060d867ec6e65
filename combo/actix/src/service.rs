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
    mem,
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
    http::header::{HeaderName, HeaderValue},
};
use bytes::Bytes;
use http::StatusCode;
use pin_project_lite::pin_project;
use tokio::sync::mpsc;

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
    app: Rc<dyn Dispatch>,
    pub(crate) glossary: Rc<RefCell<Glossary>>,
    /// Cloned by all that is still to be finished.
    pub(crate) busy: Option<Busy>,
}

/// Keeps a receiver waiting until all clones are dropped.
pub(crate) type Busy = mpsc::Sender<Infallible>;

/// What the host of a service tells beyond the request itself.
///
/// As a plain tower service, [`ActixService`] looks for an `Arrival` among the request's extensions,
/// and if there is none, for a `SocketAddr`, which is then the `peer`.
#[derive(Clone, Debug, Default)]
pub struct Arrival {
    /// Who is at the other end of the connection: `HttpRequest::peer_addr()`. Default: unknown.
    pub peer: Option<SocketAddr>,
    /// Bytes at the beginning of the path that the app does not see. What it sees begins with `/`
    /// all the same, and its query is untouched. Default: 0.
    pub strip: usize,
    /// Scheme and authority that the app's URI begins with, in place of the request's own: for
    /// connections with TLS, so that `connection_info()` says so. Default: as in the request.
    pub origin: Option<(http::uri::Scheme, http::uri::Authority)>,
    /// A header that the host adds to the client's. Default: none.
    pub header: Option<(HeaderName, HeaderValue)>,
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
        let service = factory()
            .into_factory()
            .new_service(AppConfig::default())
            .await
            .map_err(|reason| BuildError(Kind::App(format!("{reason:?}"))))?;
        let app = App { service, idle: RefCell::default(), body: PhantomData };
        Ok(Self { app: Rc::new(app), glossary: Rc::new(RefCell::new(Glossary::new())), busy: None })
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
        match request::translate(request, arrival, self) {
            Ok((request, reply)) => Answer(State::Asked(Rc::clone(&self.app).dispatch(request, reply))),
            Err(_) => Answer(State::Refused(StatusCode::BAD_REQUEST)),
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
    Asked(Pin<Box<dyn Turn>>),
    Refused(StatusCode),
    Answered,
}

impl Future for Answer {
    type Output = http::Response<Body>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match &mut self.0 {
            State::Asked(turn) => turn.as_mut().poll(cx),
            State::Refused(status) => Poll::Ready(Body::refusal(*status)),
            State::Answered => panic!("polled after it was ready"),
        };
        if response.is_ready()
            && let State::Asked(turn) = mem::replace(&mut self.0, State::Answered)
        {
            turn.rest();
        }
        response
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
    fn dispatch(self: Rc<Self>, request: Request, reply: Reply) -> Pin<Box<dyn Turn>>;
}

/// One request with an app of any type.
trait Turn {
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<http::Response<Body>>;

    /// Goes back to where it came from, so that the next request needs no allocation.
    fn rest(self: Pin<Box<Self>>);
}

/// Turns kept for later, per app: as many as actix keeps of its own.
const IDLE: usize = 128;

struct App<S: ActixTrait<Request>, B> {
    service: S,
    idle: RefCell<Vec<Pin<Box<AppTurn<S, B>>>>>,
    body: PhantomData<fn() -> B>,
}

pin_project! {
    struct AppTurn<S: ActixTrait<Request>, B> {
        #[pin]
        answer: Option<S::Future>,
        reply: Option<Reply>,
        // Only while there is something to answer: idle, it belongs to the app.
        app: Option<Rc<App<S, B>>>,
    }
}

impl<S, B> Dispatch for App<S, B>
where
    S: ActixTrait<Request> + 'static,
    S::Error: Into<Error>,
    S::Response: Into<Response<B>>,
    B: MessageBody + 'static,
{
    fn dispatch(self: Rc<Self>, request: Request, reply: Reply) -> Pin<Box<dyn Turn>> {
        let answer = self.service.call(request);
        let idle = self.idle.borrow_mut().pop();
        let mut turn = idle.unwrap_or_else(|| Box::pin(AppTurn { answer: None, reply: None, app: None }));
        let mut parts = turn.as_mut().project();
        parts.answer.set(Some(answer));
        *parts.reply = Some(reply);
        *parts.app = Some(self);
        turn
    }
}

impl<S, B> Turn for AppTurn<S, B>
where
    S: ActixTrait<Request>,
    S::Error: Into<Error>,
    S::Response: Into<Response<B>>,
    B: MessageBody + 'static,
{
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<http::Response<Body>> {
        let mut this = self.project();
        let answer = this.answer.as_mut().as_pin_mut().expect("a turn has a future until it is answered");
        let answer = ready!(answer.poll(cx));
        this.answer.set(None);
        let reply = this.reply.take().expect("a turn has a reply until it is answered");
        Poll::Ready(match answer {
            Ok(response) => reply.with(response.into()),
            Err(error) => reply.with(Response::<BoxBody>::from(error.into())),
        })
    }

    fn rest(mut self: Pin<Box<Self>>) {
        if let Some(app) = self.as_mut().project().app.take() {
            let mut idle = app.idle.borrow_mut();
            if idle.len() < IDLE {
                idle.push(self);
            }
        }
    }
}
