//! A connection -> requests -> responses, by hyper. HTTP/1.1 and HTTP/2 on every endpoint: by ALPN
//! over TLS, by the client's first bytes in clear text.
#![expect(
    clippy::disallowed_methods,
    reason = "HTTP/2 has tasks of its own, and requests are timed for the access log"
)]

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{self, Poll},
};

use bytes::Bytes;
use combo_core::{BoxError, Connection};
use http::{Method, Request, Response, StatusCode, Uri, header::HOST, uri::Scheme};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::Service,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, UnixStream},
    time::Instant,
};

use super::{
    body::{RequestBody, ResponseBody},
    guard::{LastHead, Lengths, guard},
    refusal::Refusal,
    stream::{Socket, Stream},
    sweep::{Phase, Progress, Seen, Verdict},
    worker::{Accepted, Counted, Raw, Telling, Worker, said},
};
use crate::mount::{Answering, Arrival};

/// Serves one connection until it ends or is cut.
pub(crate) async fn connection(worker: Rc<Worker>, accepted: Accepted, counted: Counted) {
    let phase = if accepted.tls.is_some() { Phase::Handshake } else { Phase::First };
    let progress = Arc::new(Progress::new(worker.shared.clock.clone(), phase));
    if worker.draining.get() {
        progress.judge(Verdict::Finish);
    }
    let shared = worker.shared.clone();
    let mut served = pin!(serve(worker, accepted, counted, progress.clone()));
    let mut known = None;
    poll_fn(|cx| {
        // A verdict wakes once: the next one has to find the waker again.
        let verdict = Some(progress.verdict());
        if std::mem::replace(&mut known, verdict) != verdict {
            progress.wake(cx.waker());
        }
        shared.moved();
        if progress.verdict() == Verdict::Cut {
            return Poll::Ready(());
        }
        served.as_mut().poll(cx).map(|served| {
            if let Err(error) = served {
                tracing::debug!(error = crate::error::chain(&*error), "a connection ended early");
            }
        })
    })
    .await;
}

async fn serve(
    worker: Rc<Worker>,
    accepted: Accepted,
    counted: Counted,
    progress: Arc<Progress>,
) -> Result<(), BoxError> {
    let registered = worker.shared.register(progress.clone(), counted);
    let Accepted { socket, peer, scheme, tls } = accepted;
    let (socket, by_alpn) = open(socket, tls, &progress).await?;
    let mut stream = Stream::new(socket, progress.clone(), registered);
    let http2 = match by_alpn {
        Some(http2) => http2,
        None => stream.is_http2().await?,
    };
    let limits = worker.limits.clone();
    let connection = Arc::new(Connection::new(peer, scheme));
    let line = Rc::new(Line { worker, connection, progress: progress.clone(), http2 });
    let service = Door(line);
    if http2 {
        progress.multiplexes();
        let mut builder = http2::Builder::new(OnWorker);
        let _ = builder
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(limits.head_size)
            .max_pending_accept_reset_streams(limits.resets)
            .max_local_error_reset_streams(limits.own_resets)
            .max_send_buf_size(limits.send_buffer)
            .enable_connect_protocol();
        // Boxed, so that the many HTTP/1 connections do not carry its size.
        let mut connection = Box::pin(builder.serve_connection(TokioIo::new(stream), service));
        drive(connection.as_mut(), &progress, http2::Connection::graceful_shutdown).await?;
    } else {
        let mut builder = http1::Builder::new();
        let _ = builder
            .half_close(true)
            // One write of few bytes costs us and the kernel less than a vectored one.
            .writev(false)
            .max_header_size(limits.head_size as usize)
            .header_read_timeout(None);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
        drive(connection.as_mut(), &progress, http1::UpgradeableConnection::graceful_shutdown).await?;
    }
    Ok(())
}

/// Polls a connection to its end; asks it once to finish when that is the verdict.
async fn drive<C: Future>(
    mut connection: Pin<&mut C>,
    progress: &Progress,
    finish: impl Fn(Pin<&mut C>),
) -> C::Output {
    let mut told = false;
    poll_fn(|cx| {
        loop {
            let polled = connection.as_mut().poll(cx);
            if told || polled.is_ready() || !progress.finishes() {
                return polled;
            }
            told = true;
            finish(connection.as_mut());
        }
    })
    .await
}

/// Registers a socket with this worker's runtime; over TLS, shakes hands. Says whether it is HTTP/2
/// where that is agreed upon beforehand.
async fn open(
    socket: Raw,
    tls: Option<super::worker::Tls>,
    progress: &Progress,
) -> io::Result<(Socket, Option<bool>)> {
    // Only a handshake makes progress here.
    let _ = progress;
    match (socket, tls) {
        #[cfg(feature = "tls")]
        (Raw::Tcp(socket), Some(tls)) => {
            let stream = Box::new(tls.accept(TcpStream::from_std(socket)?).await?);
            let http2 = stream.get_ref().1.alpn_protocol() == Some(super::tls::H2);
            progress.enter(Phase::First);
            Ok((Socket::Tls(stream), Some(http2)))
        }
        (Raw::Tcp(socket), _) => Ok((Socket::Tcp(TcpStream::from_std(socket)?), None)),
        (Raw::Unix(socket), _) => Ok((Socket::Unix(UnixStream::from_std(socket)?), None)),
        #[cfg(feature = "testing")]
        (Raw::Memory(pipe), _) => Ok((Socket::Memory(pipe), None)),
    }
}

/// HTTP/2 streams are tasks of the worker.
#[derive(Clone)]
struct OnWorker;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for OnWorker {
    fn execute(&self, future: F) {
        drop(tokio::task::spawn_local(future));
    }
}

/// What the requests of one connection share.
struct Line {
    worker: Rc<Worker>,
    connection: Arc<Connection>,
    progress: Arc<Progress>,
    http2: bool,
}

/// Where the HTTP library hands over requests.
struct Door(Rc<Line>);

impl Service<Request<Incoming>> for Door {
    type Response = Response<Outgoing>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, mut request: Request<Incoming>) -> Answer {
        let line = &self.0;
        let mut ticket = Ticket::new(line.clone(), &request);
        let (mount, arrival) = match line.admit(&mut request) {
            Ok(admitted) => admitted,
            Err(refusal) => return Answer { ticket: Some(ticket), connects: false, state: Err(refusal) },
        };
        ticket.mounted(mount);
        let (method, shared) = (request.method(), &line.worker.shared);
        let connects = *method == Method::CONNECT;
        shared.come(mount, method.as_str(), request.uri().path());
        if line.http2 {
            // Its stream is a task of its own, and others may come before that runs.
            ticket.key = Some(shared.stay());
        }
        let request = request.map(|incoming| RequestBody::new(incoming, &line.progress));
        let app = &line.worker.mounts[mount].app;
        let state = ticket.guarded(|| app.answer(request, arrival));
        Answer { ticket: Some(ticket), connects, state }
    }
}

impl Line {
    /// Through guard and route.
    fn admit(&self, request: &mut Request<Incoming>) -> Result<(usize, Arrival<'_>), Refusal> {
        let seen = self.progress.take_head();
        let lengths = || match seen {
            Seen::Nothing => Lengths::default(),
            Seen::Whole => LastHead::lengths(Arc::as_ptr(&self.progress).addr()),
            Seen::Scanned(lengths) => lengths,
        };
        guard(request, &self.connection.scheme, lengths).map_err(Refusal::Malformed)?;
        let secure = self.connection.scheme == Scheme::HTTPS;
        let routes = &self.worker.routes;
        let host = if secure || routes.by_host() {
            request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
        } else {
            ""
        };
        let found = routes.find(host, request.uri().path()).ok_or(Refusal::NoMount)?;
        let Telling { site, forwarded, context } = &self.worker.mounts[found.mount].telling;
        let bare = secure && request.uri().scheme().is_none() && request.uri().authority().is_none();
        let absolute = bare.then(|| absolute(request.uri().clone(), host));
        let strip = if forwarded.is_some() { found.strip } else { 0 };
        let (connection, forwarded) = (&self.connection, forwarded.as_ref());
        let arrival = Arrival { connection, site, strip, absolute, forwarded, context: *context };
        Ok((found.mount, arrival))
    }
}

/// Over TLS the original URI names scheme and host, whatever the version of HTTP.
fn absolute(uri: Uri, host: &str) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = host.parse().ok();
    Uri::from_parts(parts).unwrap_or(uri)
}

/// The answer of an app, or of the combo itself.
struct Answer {
    ticket: Option<Ticket>,
    connects: bool,
    state: Result<Answering, Refusal>,
}

impl Future for Answer {
    type Output = Result<Response<Outgoing>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut ticket = this.ticket.take().expect("a future is not polled after it is ready");
        let answered = match &mut this.state {
            Err(refusal) => Err(*refusal),
            Ok(answering) => match ticket.guarded(|| answering.as_mut().poll(cx)) {
                Ok(Poll::Pending) => {
                    ticket.stay();
                    this.ticket = Some(ticket);
                    return Poll::Pending;
                }
                Ok(Poll::Ready(Ok(response))) => Ok(response),
                Ok(Poll::Ready(Err(error))) => {
                    ticket.complain(&crate::error::chain(&*error));
                    Err(Refusal::Failed)
                }
                Err(refusal) => Err(refusal),
            },
        };
        if let Ok(response) = &answered {
            if response.status() == StatusCode::SWITCHING_PROTOCOLS
                || this.connects && response.status().is_success()
            {
                ticket.line.progress.upgrades();
            }
            if let ResponseBody::Streamed(_) = response.body() {
                ticket.stay();
            }
        }
        let response = answered.unwrap_or_else(Refusal::response);
        ticket.status = response.status();
        ticket.whole |= response.body().is_end_stream();
        Poll::Ready(Ok(response.map(|body| Outgoing { body, ticket })))
    }
}

/// A request in flight: from its head to the end of its answer, however that comes.
struct Ticket {
    line: Rc<Line>,
    /// Among the worker's requests, if it was not answered at once.
    key: Option<usize>,
    status: StatusCode,
    sent: u64,
    whole: bool,
    /// Only if somebody will read it in the access log.
    log: Option<Box<Log>>,
}

struct Log {
    began: Instant,
    method: Method,
    uri: Uri,
    mount: Option<usize>,
}

/// nginx's word for a client that went away before it was answered.
const CLIENT_CLOSED: u16 = 499;

impl Ticket {
    fn new(line: Rc<Line>, request: &Request<Incoming>) -> Self {
        line.progress.request_began();
        let log = line.worker.access_log.then(|| {
            let (method, uri) = (request.method().clone(), request.uri().clone());
            Box::new(Log { began: Instant::now(), method, uri, mount: None })
        });
        let status = StatusCode::from_u16(CLIENT_CLOSED).unwrap_or_default();
        let whole = request.method() == Method::HEAD;
        Self { line, key: None, status, sent: 0, whole, log }
    }

    fn mounted(&mut self, mount: usize) {
        if let Some(log) = &mut self.log {
            log.mount = Some(mount);
        }
    }

    /// It takes longer, so it can be named.
    fn stay(&mut self) {
        if self.key.is_none() {
            self.key = Some(self.line.worker.shared.stay());
        }
    }

    /// Runs an app's code with its panics caught and with marks for the stall watch.
    fn guarded<T>(&self, run: impl FnOnce() -> T) -> Result<T, Refusal> {
        let shared = &self.line.worker.shared;
        shared.enter(self.key);
        let ran = catch_unwind(AssertUnwindSafe(run));
        shared.leave();
        ran.map_err(|panic| {
            self.complain(&said(&*panic));
            Refusal::Panicked
        })
    }

    /// Says that an app went wrong, with the request that it happened in.
    fn complain(&self, what: &str) {
        let worker = &self.line.worker;
        let Some(request) = worker.shared.request(self.key) else { return };
        let mount = &*worker.mounts[request.mount].telling.site.pattern;
        tracing::error!(mount, request = request.said(), "an app failed: {what}");
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.line.progress.request_ended();
        if let Some(key) = self.key {
            let _ = self.line.worker.shared.requests().try_remove(key);
        }
        if let Some(log) = self.log.take() {
            self.write(&log);
        }
    }
}

impl Ticket {
    /// The line in the access log.
    #[cold]
    fn write(&self, log: &Log) {
        let micros = u64::try_from(log.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        tracing::info!(
            target: "access",
            method = %log.method,
            path = log.uri.path(),
            mount = log.mount.map(|mount| &*self.line.worker.mounts[mount].telling.site.pattern),
            status = self.status.as_u16(),
            bytes = self.sent,
            micros,
            peer = %self.line.connection.peer,
            cut = (!self.whole).then_some(true),
        );
    }
}

/// A response body on its way to the client; a panic in it ends it early and nothing else.
struct Outgoing {
    body: ResponseBody,
    ticket: Ticket,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { body, ticket } = &mut *self;
        let polled = match body {
            ResponseBody::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            ResponseBody::Streamed(streamed) => ticket
                .guarded(|| streamed.as_mut().poll_frame(cx))
                .unwrap_or_else(|_| Poll::Ready(Some(Err("the app panicked".into())))),
        };
        match &polled {
            Poll::Ready(None) => ticket.whole = true,
            Poll::Ready(Some(Ok(frame))) => {
                ticket.sent += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
                ticket.whole |= body.is_end_stream();
            }
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
