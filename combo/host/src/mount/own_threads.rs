//! A mount on threads of its own: the bulkhead for apps that block or are not trusted.
//!
//! Requests wait in a bounded queue and answers come back piece by piece, so a worker only ever waits.
//! Services that may cross threads get a multi-threaded runtime; all others an instance per thread.
#![expect(clippy::disallowed_methods, reason = "threads of its own have to be started")]

use std::{
    future::{Future, poll_fn},
    io,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    thread,
};

use bytes::Bytes;
use combo_core::{BoxError, Site};
use futures_util::FutureExt;
use http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::{
    runtime,
    sync::{OnceCell, mpsc, oneshot},
};

use super::{Answering, App, Arrival, Builder, Passage, Recipe, Target, upgrades};
use crate::serve::{
    body::{RequestBody, ResponseBody},
    mounted::Tally,
    refusal::Refusal,
    sweep::Keeps,
    worker::said,
};

/// How many requests may wait for each thread.
const QUEUE: usize = 64;

/// Pieces of a body between two threads.
const PIECES: usize = 4;

/// What a body gave, and whether there is no more to come.
type Piece = (Option<Result<Frame<Bytes>, BoxError>>, bool);

/// More threads than this have never served anybody.
const MOST_THREADS: usize = 1_024;

impl Target {
    /// Runs the app on `threads` threads of its own, for apps that block or are not trusted: whatever
    /// it does, workers and other mounts go on. Up to 64 requests per thread wait to be taken up; more
    /// are answered 503 with `Retry-After`. A stop does not wait for those that an app never lets go of, but
    /// names the mount.
    ///
    /// An axum router and a service that was given to [`mount::tower`](super::tower()) run on a
    /// multi-threaded runtime, where `block_in_place` works. Everything else, and everything with a
    /// layer around it, has an instance on each thread, which is an arbiter of the actix `System`.
    #[must_use]
    pub fn own_threads(mut self, threads: usize) -> Self {
        self.own_threads = Some(threads);
        self
    }
}

pub(super) fn fault(threads: Option<usize>) -> Option<String> {
    let wrong = threads.filter(|threads| !(1..=MOST_THREADS).contains(threads))?;
    Some(format!("it cannot have {wrong} threads of its own: it must be 1 to {MOST_THREADS}"))
}

/// An app that may be asked on any thread.
pub(crate) trait SendApp: Send + Sync {
    fn ask(&self, request: Request<RequestBody>, arrival: Arrival<'_>) -> Asked;
}

pub(crate) type SendBody = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;
pub(crate) type Asked = Pin<Box<dyn Future<Output = Result<Response<SendBody>, BoxError>> + Send>>;

pub(super) fn recipe(inner: Box<dyn Recipe>, threads: usize, tally: Tally) -> Box<dyn Recipe> {
    Box::new(OwnThreads { inner, threads, tally, pool: Arc::default() })
}

struct OwnThreads {
    inner: Box<dyn Recipe>,
    threads: usize,
    tally: Tally,
    /// Made by the first worker that asks, for all.
    pool: Arc<OnceCell<Arc<Pool>>>,
}

impl Recipe for OwnThreads {
    fn builder(&mut self) -> Builder {
        let (pool, threads, tally) = (self.pool.clone(), self.threads, self.tally.clone());
        let send = self.inner.send();
        let builders: Vec<_> = match send {
            Some(_) => Vec::new(),
            None => (0..threads).map(|_| self.inner.builder()).collect(),
        };
        Box::new(move || {
            Box::pin(async move {
                let start = || async {
                    match send {
                        Some(app) => Pool::of_one(app, threads, tally).map_err(BoxError::from),
                        None => Pool::of_arbiters(builders, tally).await,
                    }
                };
                let pool = pool.get_or_try_init(start).await?.clone();
                Ok(Rc::new(Far(pool)) as Rc<dyn App>)
            })
        })
    }
}

/// A request on its way to another thread.
struct Job {
    request: Request<RequestBody>,
    passage: Passage,
    answer: oneshot::Sender<Result<Response<FarBody>, BoxError>>,
}

/// The threads of one mount, for all workers. They end when no worker has the app any more and every
/// answer has come to its end.
enum Pool {
    /// Each with its own instance of the app; whoever is free takes what waits.
    Arbiters(async_channel::Sender<Job>),
    /// All with the same.
    One(One),
}

struct One {
    running: Option<(runtime::Runtime, Arc<dyn SendApp>)>,
    tally: Tally,
    /// Not taken up yet.
    waiting: Arc<AtomicUsize>,
    most: usize,
}

impl Drop for One {
    fn drop(&mut self) {
        if let Some((runtime, app)) = self.running.take() {
            // Whatever the end of an app takes, it is its own threads that it takes it from.
            drop(runtime.spawn(async move { drop(app) }));
            // Whoever drops the last of it may be within a runtime, which must not wait for another.
            runtime.shutdown_background();
        }
    }
}

impl Pool {
    fn of_one(app: Arc<dyn SendApp>, threads: usize, tally: Tally) -> io::Result<Arc<Self>> {
        let (began, ended) = (tally.clone(), tally.clone());
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("combo-own")
            .on_thread_start(move || began.thread_began())
            .on_thread_stop(move || ended.thread_ended())
            .enable_all()
            .build()?;
        let (running, waiting, most) = (Some((runtime, app)), Arc::default(), QUEUE * threads);
        Ok(Arc::new(Self::One(One { running, tally, waiting, most })))
    }

    /// Starts a thread for each builder and waits until all have built.
    async fn of_arbiters(builders: Vec<Builder>, tally: Tally) -> Result<Arc<Self>, BoxError> {
        let (queue, jobs) = async_channel::bounded(QUEUE * builders.len());
        let system = actix_rt::System::try_current();
        let mut building = Vec::with_capacity(builders.len());
        for (index, builder) in builders.into_iter().enumerate() {
            let (built, ready) = oneshot::channel();
            let (jobs, system, tally) = (jobs.clone(), system.clone(), tally.clone());
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = thread::Builder::new().name(format!("combo-own-{index}")).spawn(move || {
                let _counted = Counted::new(&tally);
                let runner = actix_rt::System::with_tokio_rt(|| runtime);
                // Apps see the one System of the process, as on workers.
                if let Some(system) = system {
                    actix_rt::System::set_current(system);
                }
                runner.block_on(serve(builder, built, jobs, tally));
            })?;
            drop(thread);
            building.push(ready);
        }
        for ready in building {
            ready.await.map_err(|_| "its thread ended before it was ready")??;
        }
        Ok(Arc::new(Self::Arbiters(queue)))
    }

    fn take(&self, job: Job) -> Result<(), Refusal> {
        match self {
            Self::Arbiters(queue) => queue.try_send(job).map_err(|_| Refusal::Busy),
            Self::One(One { running, tally, waiting, most }) => {
                if waiting.fetch_add(1, Relaxed) >= *most {
                    let _ = waiting.fetch_sub(1, Relaxed);
                    return Err(Refusal::Busy);
                }
                let (runtime, app) = running.as_ref().expect("they are taken only when all is dropped");
                let (app, waiting, tally) = (app.clone(), waiting.clone(), tally.clone());
                drop(runtime.spawn(async move {
                    let _ = waiting.fetch_sub(1, Relaxed);
                    let Job { request, passage, answer } = job;
                    let asking = async { app.ask(request, passage.arrival()).await };
                    carry(asking, answer, &passage.site, &tally).await;
                }));
                Ok(())
            }
        }
    }
}

/// Counts a thread until all that was on it has ended.
struct Counted(Tally);

impl Counted {
    fn new(tally: &Tally) -> Self {
        tally.thread_began();
        Self(tally.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.thread_ended();
    }
}

/// One thread of a mount: builds its instance, then takes up requests until nobody can ask any more.
async fn serve(
    builder: Builder,
    built: oneshot::Sender<Result<(), BoxError>>,
    jobs: async_channel::Receiver<Job>,
    tally: Tally,
) {
    let app = AssertUnwindSafe(async { builder().await }).catch_unwind().await;
    let app = match app.unwrap_or_else(|panic| Err(said(&*panic).into())) {
        Ok(app) => app,
        Err(cause) => {
            let _ = built.send(Err(cause));
            return;
        }
    };
    let _ = built.send(Ok(()));
    while let Ok(Job { request, passage, answer }) = jobs.recv().await {
        let (app, tally) = (app.clone(), tally.clone());
        drop(tokio::task::spawn_local(async move {
            let asking = passage.ask(&*app, request);
            carry(asking, answer, &passage.site, &tally).await;
        }));
        // It runs before this thread takes up another: what it blocks is left to the others.
        tokio::task::yield_now().await;
    }
}

/// Asks, sends the answer back and then its body, piece by piece, as it is read there. Drops what the
/// app was doing as soon as nobody wants it any more. A panic ends this one request.
async fn carry<B>(
    asking: impl Future<Output = Result<Response<B>, BoxError>>,
    mut answer: oneshot::Sender<Result<Response<FarBody>, BoxError>>,
    site: &Site,
    tally: &Tally,
) where
    B: Body<Data = Bytes, Error = BoxError>,
{
    let answered = {
        let mut asking = pin!(AssertUnwindSafe(asking).catch_unwind());
        poll_fn(|cx| match answer.poll_closed(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => asking.as_mut().poll(cx).map(Some),
        })
        .await
    };
    let response = match answered {
        None => return,
        Some(Ok(Ok(response))) => response,
        Some(Ok(Err(error))) => return drop(answer.send(Err(error))),
        Some(Err(panic)) => {
            tally.panicked();
            return drop(answer.send(Err(said(&*panic).into())));
        }
    };
    let (head, body) = response.into_parts();
    let hint = body.size_hint();
    if body.is_end_stream() {
        return drop(answer.send(Ok(Response::from_parts(head, FarBody { pieces: None, hint, pool: None }))));
    }
    let (sender, pieces) = mpsc::channel(PIECES);
    if answer
        .send(Ok(Response::from_parts(head, FarBody { pieces: Some(pieces), hint, pool: None })))
        .is_err()
    {
        return;
    }
    let flowing = AssertUnwindSafe(flow(body, sender)).catch_unwind().await;
    if let Err(panic) = flowing {
        tally.panicked();
        tracing::error!(mount = site.pattern, "an app failed: {}", said(&*panic));
    }
}

/// Polls a body only when there is room for what it gives, and drops it when nobody reads.
async fn flow<B>(body: B, pieces: mpsc::Sender<Piece>)
where
    B: Body<Data = Bytes, Error = BoxError>,
{
    let mut body = pin!(body);
    let mut closed = pin!(pieces.closed());
    while let Ok(room) = pieces.reserve().await {
        let next = poll_fn(|cx| match closed.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => body.as_mut().poll_frame(cx).map(Some),
        });
        let Some(frame) = next.await else { return };
        let last = !matches!(frame, Some(Ok(_))) || body.is_end_stream();
        room.send((frame, last));
        if last {
            return;
        }
    }
}

/// A body that comes from another thread.
struct FarBody {
    /// Nothing when it is over.
    pieces: Option<mpsc::Receiver<Piece>>,
    hint: SizeHint,
    /// Where it comes from, kept until it is over.
    pool: Option<Arc<Pool>>,
}

impl Body for FarBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(pieces) = &mut self.pieces else { return Poll::Ready(None) };
        let (piece, last) = ready!(pieces.poll_recv(cx))
            .unwrap_or_else(|| (Some(Err("the app ended before its body did".into())), true));
        if let Some(Ok(frame)) = &piece
            && let (Some(left), Some(bytes)) = (self.hint.exact(), frame.data_ref())
        {
            self.hint = SizeHint::with_exact(left.saturating_sub(bytes.len() as u64));
        }
        if last {
            (self.pieces, self.pool) = (None, None);
        }
        Poll::Ready(piece)
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

/// The app as a worker knows it.
struct Far(Arc<Pool>);

impl App for Far {
    fn answer(&self, request: Request<RequestBody>, arrival: Arrival<'_>, cx: &mut Context<'_>) -> Answering {
        let (answer, answered) = oneshot::channel();
        let connects = *request.method() == Method::CONNECT;
        let job = Job { request, passage: arrival.kept(), answer };
        if let Err(refusal) = self.0.take(job) {
            return Answering::Now(Err(refusal.into()));
        }
        let pool = self.0.clone();
        let waiting = async move {
            let mut response = answered.await.map_err(|_| "the app's thread has ended")??;
            if upgrades(&response, connects) {
                Keeps::add(response.extensions_mut(), pool.clone());
            }
            Ok(response.map(|body| ResponseBody::new(FarBody { pool: Some(pool), ..body })))
        };
        Answering::boxed(Box::pin(waiting), cx)
    }
}
