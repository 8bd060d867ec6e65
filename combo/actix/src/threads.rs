//! Takes the closure that makes an `App` and gives a tower service that may be called from any thread.
//!
//! Each thread is an arbiter of one actix `System` and has its own instance of the app. Requests wait
//! in a bounded queue per thread; bodies come back through a bounded channel per response. A panic in
//! the app ends the one request that caused it.
#![expect(clippy::disallowed_methods, reason = "an app on threads of its own needs threads")]

use std::{
    error::Error as StdError,
    fmt,
    future::{Future, poll_fn},
    io, mem,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    thread,
};

use actix_http::{Request, Response};
use actix_rt::{Arbiter, System};
use actix_service::{IntoServiceFactory, Service as ActixTrait, ServiceFactory};
use actix_web::{Error, body::MessageBody, dev::AppConfig};
use bytes::Bytes;
use http::StatusCode;
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::{mpsc, oneshot};

use crate::{
    response::{Body, Kind},
    service::{ActixService, Arrival, BoxError, BuildError},
};

/// Pieces of a body between the app's thread and the reader's.
const PIECES: usize = 4;

type Job = Box<dyn FnOnce(ActixService) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// An actix-web app on threads of its own.
///
/// Clones share the threads, which end after the last clone is dropped, what is in flight is answered
/// and upgraded connections are closed. Each app is dropped on its own thread.
#[derive(Clone)]
pub struct ActixThreads {
    lanes: Arc<[Lane]>,
}

/// The way to one thread.
struct Lane {
    queue: mpsc::Sender<Job>,
    /// Requests accepted whose response has not been read to its end.
    load: Arc<AtomicUsize>,
}

impl ActixThreads {
    /// Starts `threads` threads, each with its own app, and returns when all apps are built.
    ///
    /// At least one thread; at most `queue` requests wait for a thread to take them up. The threads
    /// belong to the current actix `System` if there is one, else to one made here.
    ///
    /// # Errors
    /// If a thread cannot be started or an app cannot be built.
    pub fn start<F, I, S, B>(threads: usize, queue: usize, factory: F) -> Result<Self, BuildError>
    where
        F: Fn() -> I + Send + Clone + 'static,
        I: IntoServiceFactory<S, Request>,
        S: ServiceFactory<Request, Config = AppConfig> + 'static,
        S::Error: Into<Error> + 'static,
        S::InitError: fmt::Debug,
        S::Response: Into<Response<B>> + 'static,
        <S::Service as ActixTrait<Request>>::Future: 'static,
        S::Service: 'static,
        B: MessageBody + 'static,
    {
        let lanes = move |system: Option<Arc<OwnSystem>>| {
            (0..threads.max(1))
                .map(|_| lane(queue.max(1), factory.clone(), system.clone()))
                .collect::<Result<Vec<_>, _>>()
        };
        let lanes = match System::try_current() {
            Some(_) => lanes(None)?,
            None => in_own_system(lanes)?,
        };
        // All threads build at once; only then does anybody wait.
        let lanes = lanes.into_iter().map(Building::finish).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { lanes: lanes.into() })
    }

    /// Answers one request, with what the host knows about it. See [`ActixService::call_with`].
    pub fn call_with<B>(&self, request: http::Request<B>, arrival: Arrival) -> ThreadsFuture
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let least = self.lanes.iter().min_by_key(|lane| lane.load.load(Ordering::Relaxed));
        let mut refusal = Unavailable::Gone;
        for lane in least.into_iter().chain(&*self.lanes) {
            match lane.queue.try_reserve() {
                Ok(place) => {
                    let (answer, response) = oneshot::channel();
                    let reply = Reply { answer: Some(answer), token: Some(Token::new(&lane.load)) };
                    place.send(Box::new(move |service| {
                        Box::pin(answer_one(service, request, arrival, reply))
                    }));
                    return ThreadsFuture(Waiting::For(response));
                }
                Err(mpsc::error::TrySendError::Full(())) => refusal = Unavailable::Busy,
                Err(mpsc::error::TrySendError::Closed(())) => {}
            }
        }
        ThreadsFuture(Waiting::Refused(refusal))
    }
}

impl fmt::Debug for ActixThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActixThreads").field("threads", &self.lanes.len()).finish_non_exhaustive()
    }
}

impl<B> tower_service::Service<http::Request<B>> for ActixThreads
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<SendBody>;
    type Error = Unavailable;
    type Future = ThreadsFuture;

    /// Always ready: a full queue is an error at once, not a wait.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unavailable>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<B>) -> ThreadsFuture {
        let arrival = Arrival::among(request.extensions_mut());
        self.call_with(request, arrival)
    }
}

/// Why a request was not answered by the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Every queue is full.
    Busy,
    /// The app's threads have ended.
    Gone,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "the actix app is busy: the queue of every thread is full",
            Self::Gone => "the actix app's threads have ended",
        })
    }
}

impl StdError for Unavailable {}

/// The answer on its way from another thread. Dropping it drops the app's own future over there.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct ThreadsFuture(Waiting);

#[derive(Debug)]
enum Waiting {
    Refused(Unavailable),
    For(oneshot::Receiver<http::Response<SendBody>>),
}

impl Future for ThreadsFuture {
    type Output = Result<http::Response<SendBody>, Unavailable>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Waiting::Refused(why) => Poll::Ready(Err(*why)),
            Waiting::For(response) => Pin::new(response).poll(cx).map_err(|_| Unavailable::Gone),
        }
    }
}

/// The body of a response from another thread.
///
/// One piece if it was in memory there; else at most a few pieces wait between the threads, and the
/// app's body is not polled further until they are read.
#[derive(Debug)]
pub struct SendBody(Far);

#[derive(Debug)]
enum Far {
    Here(Option<Bytes>),
    Withheld,
    Stream { pieces: mpsc::Receiver<Piece>, left: Option<u64> },
}

#[derive(Debug)]
enum Piece {
    Bytes(Bytes),
    Failed(BoxError),
    End,
}

impl http_body::Body for SendBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Far::Stream { pieces, left } = &mut self.0 else {
            return Poll::Ready(match mem::replace(&mut self.0, Far::Here(None)) {
                Far::Here(Some(bytes)) => Some(Ok(Frame::data(bytes))),
                _ => None,
            });
        };
        let end = match ready!(pieces.poll_recv(cx)) {
            Some(Piece::Bytes(bytes)) => {
                if let Some(left) = left {
                    *left = left.saturating_sub(bytes.len() as u64);
                }
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Some(Piece::Failed(error)) => Some(Err(error)),
            Some(Piece::End) => None,
            // Without its end: the task that wrote panicked, or its thread ended.
            None => Some(Err("the actix app ended before its body did".into())),
        };
        self.0 = Far::Here(None);
        Poll::Ready(end)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Far::Here(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Far::Here(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Far::Stream { left: Some(left), .. } => SizeHint::with_exact(*left),
            Far::Withheld | Far::Stream { left: None, .. } => SizeHint::default(),
        }
    }
}

/// One request on the app's thread. A panic in here is caught by the task around it.
async fn answer_one<B>(service: ActixService, request: http::Request<B>, arrival: Arrival, mut reply: Reply)
where
    B: http_body::Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    let mut answer = service.call_with(request, arrival);
    let answer = poll_fn(|cx| {
        if reply.poll_closed(cx).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut answer).poll(cx).map(Some)
    })
    .await;
    let Some(answer) = answer else { return };
    let (parts, body) = answer.into_parts();
    let left = body.size_hint().exact();
    let body = match body.0 {
        Kind::Empty => return reply.send(parts, Far::Here(None)),
        Kind::Withheld => return reply.send(parts, Far::Withheld),
        Kind::Full(bytes) => return reply.send(parts, Far::Here(Some(bytes))),
        stream @ Kind::Stream { .. } => Body(stream),
    };
    let (sender, pieces) = mpsc::channel(PIECES);
    let token = reply.begin(parts, Far::Stream { pieces, left });
    carry(body, sender, token).await;
}

/// Polls the body only when there is room for what it gives, and drops it as soon as nobody reads.
async fn carry(body: Body, sender: mpsc::Sender<Piece>, token: Option<Token>) {
    let mut body = pin!(body);
    let mut closed = pin!(sender.closed());
    loop {
        let Ok(room) = sender.reserve().await else { return };
        let next = poll_fn(|cx| {
            if closed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            body.as_mut().poll_frame(cx).map(Some)
        })
        .await;
        match next {
            None => return,
            Some(Some(Ok(frame))) => {
                if let Ok(bytes) = frame.into_data() {
                    room.send(Piece::Bytes(bytes));
                }
            }
            Some(last) => {
                drop(token);
                return room.send(match last {
                    Some(Err(error)) => Piece::Failed(error),
                    _ => Piece::End,
                });
            }
        }
    }
}

/// The promise of an answer.
struct Reply {
    answer: Option<oneshot::Sender<http::Response<SendBody>>>,
    /// Given back before the last word, so that whoever hears it finds the thread free.
    token: Option<Token>,
}

impl Reply {
    fn send(mut self, parts: http::response::Parts, body: Far) {
        self.token = None;
        self.say(parts, body);
    }

    /// Sends a response whose body is still to come.
    fn begin(mut self, parts: http::response::Parts, body: Far) -> Option<Token> {
        self.say(parts, body);
        self.token.take()
    }

    fn say(&mut self, parts: http::response::Parts, body: Far) {
        if let Some(answer) = self.answer.take() {
            // Whoever asked may have gone.
            let _: Result<(), _> = answer.send(http::Response::from_parts(parts, SendBody(body)));
        }
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.answer {
            Some(answer) => answer.poll_closed(cx),
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // An end without an answer and without a panic is that of the thread.
        if thread::panicking() {
            self.token = None;
            let (parts, _) = Body::refusal(StatusCode::INTERNAL_SERVER_ERROR).into_parts();
            self.say(parts, Far::Here(None));
        }
    }
}

/// Counts one request on one thread.
struct Token(Arc<AtomicUsize>);

impl Token {
    fn new(load: &Arc<AtomicUsize>) -> Self {
        let _ = load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let _ = self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A thread that is building its app.
struct Building {
    lane: Lane,
    built: std::sync::mpsc::Receiver<Result<(), BuildError>>,
}

impl Building {
    fn finish(self) -> Result<Lane, BuildError> {
        match self.built.recv() {
            Ok(Ok(())) => Ok(self.lane),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(BuildError::thread(io::Error::other("the app panicked while it was built"))),
        }
    }
}

fn lane<F, I, S, B>(
    capacity: usize,
    factory: F,
    system: Option<Arc<OwnSystem>>,
) -> Result<Building, BuildError>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as ActixTrait<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let (queue, jobs) = mpsc::channel(capacity);
    let (tell, built) = std::sync::mpsc::channel();
    let arbiter = Arbiter::try_new().map_err(BuildError::thread)?;
    let _accepted = arbiter.spawn_fn(move || {
        let _task = tokio::task::spawn_local(async move {
            let _stop = StopArbiter;
            // Held until the service is dropped: it ends the system when the last thread is done.
            let _system = system;
            match ActixService::new(factory).await {
                Ok(service) => {
                    let _ = tell.send(Ok(()));
                    serve(service, jobs).await;
                }
                Err(error) => {
                    let _ = tell.send(Err(error));
                }
            }
        });
    });
    Ok(Building { lane: Lane { queue, load: Arc::default() }, built })
}

/// Takes up requests until nobody can send any more, then waits for all that was begun.
async fn serve(mut service: ActixService, mut jobs: mpsc::Receiver<Job>) {
    let (busy, mut done) = mpsc::channel(1);
    service.busy = Some(busy);
    while let Some(job) = jobs.recv().await {
        let _task = tokio::task::spawn_local(job(service.clone()));
    }
    drop(service);
    let _ = done.recv().await;
}

/// Ends its thread when dropped there, also by a panic.
struct StopArbiter;

impl Drop for StopArbiter {
    fn drop(&mut self) {
        if let Some(arbiter) = Arbiter::try_current() {
            let _ = arbiter.stop();
        }
    }
}

/// A system that exists for these threads alone.
struct OwnSystem(System);

impl Drop for OwnSystem {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Runs `lanes` on the thread of a new system: arbiters belong to the system current where they start.
fn in_own_system(
    lanes: impl FnOnce(Option<Arc<OwnSystem>>) -> Result<Vec<Building>, BuildError> + Send + 'static,
) -> Result<Vec<Building>, BuildError> {
    let (tell, started) = std::sync::mpsc::channel();
    let _thread = thread::Builder::new()
        .name("actix-system".into())
        .spawn(move || {
            let runner = System::new();
            let own = Arc::new(OwnSystem(System::current()));
            let _ = tell.send(lanes(Some(own)));
            // Nobody is left to be told of an exit code.
            let _: io::Result<()> = runner.run();
        })
        .map_err(BuildError::thread)?;
    started.recv().unwrap_or_else(|_| Err(BuildError::thread(io::Error::other("the actix system panicked"))))
}
