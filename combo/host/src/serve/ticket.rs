//! A request in flight -> what is known of it: by whom it is held up, how its app ended, its line in the
//! access log. It lasts from the head of the request to the end of the answer.
#![expect(clippy::disallowed_methods, reason = "requests are timed for the access log")]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{self, Poll},
};

use bytes::Bytes;
use combo_core::{BoxError, Peer};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    answer::{Believed, Line, granted},
    body::{Content, RequestBody, ResponseBody},
    exchange::Exchange,
    front::RoutedTo,
    grpc,
    http::Tunnel,
    proxies::joined,
    recent::Way,
    refusal::Refusal,
    route::Found,
    sweep::{Keeps, Verdict},
    worker::{Front, Kind, said},
};
use crate::mount::{Answering, Arrival};

/// A request in flight: from its head to the end of its answer, however that comes.
pub(super) struct Ticket {
    pub(super) line: Rc<Line>,
    /// Among the worker's requests, if it was not answered at once.
    key: Option<usize>,
    pub(super) status: StatusCode,
    sent: u64,
    pub(super) whole: bool,
    /// Its connection has had as many as it may.
    pub(super) last: bool,
    /// Over HTTP/2, what the sweep sees of it.
    pub(super) exchange: Option<Arc<Exchange>>,
    /// Only if somebody will read it in the access log.
    log: Option<Box<Log>>,
}

struct Log {
    began: Instant,
    method: Method,
    uri: Uri,
    mount: Option<usize>,
    peer: Peer,
}

/// nginx's word for a client that went away before it was answered.
const CLIENT_CLOSED: u16 = 499;

impl Ticket {
    pub(super) fn new(line: Rc<Line>, request: &Request<Incoming>) -> Self {
        let (limits, requests) = (&line.worker.gate.limits, line.progress.request_began());
        let last = requests == limits.requests;
        let exchange = line.progress.is_multiplexed().then(|| {
            let exchange = Arc::<Exchange>::default();
            line.began.set(Some(exchange.clone()));
            exchange
        });
        if requests >= limits.requests && exchange.is_some() {
            // Whoever does not hear that it is to end is not heard either.
            let deaf = requests - limits.requests > limits.streams;
            line.progress.judge(if deaf { Verdict::Cut } else { Verdict::Finish });
        }
        let log = line.worker.access_log.then(|| {
            let (method, uri) = (request.method().clone(), request.uri().clone());
            Box::new(Log { began: Instant::now(), method, uri, mount: None, peer: line.connection.peer })
        });
        let status = StatusCode::from_u16(CLIENT_CLOSED).unwrap_or_default();
        let whole = request.method() == Method::HEAD;
        Self { line, key: None, status, sent: 0, whole, last, exchange, log }
    }

    pub(super) fn mounted(&mut self, mount: Option<usize>) {
        if let Some(log) = &mut self.log {
            log.mount = mount;
        }
    }

    pub(super) fn from(&mut self, believed: Option<&Believed>) {
        if let (Some(log), Some(believed)) = (&mut self.log, believed) {
            log.peer = believed.connection.peer;
        }
    }

    /// Gives a request to its app. It is large, so it is taken from where it is at last.
    pub(super) fn ask(
        &self,
        asked: &mut Option<Request<Incoming>>,
        way: Option<&Way>,
        believed: Option<&Believed>,
        cx: &mut task::Context<'_>,
    ) -> Result<Answering, Refusal> {
        let Line { worker, connection, progress, .. } = &*self.line;
        let connection = believed.map_or(connection, |believed| &believed.connection);
        let request = asked.as_ref().expect("an app is asked once");
        let standing;
        let (app, telling, strip) = match way.map(|way| way.found) {
            Some(Found { mount, strip }) => {
                worker.shared.come(mount, request.method().as_str(), request.uri().path());
                standing = worker.mounts[mount].standing.borrow();
                (&standing.app, &standing.telling, strip)
            }
            None => {
                let Front { app, telling } = worker.front.as_ref().expect("routing waits for nothing else");
                worker.shared.come(worker.mounts.len(), request.method().as_str(), request.uri().path());
                (app, telling, 0)
            }
        };
        let mut arrival = Arrival::new(request, connection, telling, strip, |host| self.line.authority(host));
        arrival.rest = way.and_then(Way::rest);
        let before = believed.and_then(|believed| believed.prefix.as_deref());
        let joined = before.and_then(|before| joined(before, arrival.forwarded));
        arrival.forwarded = joined.as_ref().or(arrival.forwarded);
        let exchange = self.exchange.as_ref();
        self.guarded(|| {
            let request = asked.take().expect("it was there");
            let request = request.map(|incoming| RequestBody::of_client(incoming, progress, exchange));
            app.answer(request, arrival, cx)
        })
    }

    /// An app has answered, if only with a head.
    pub(super) fn answered(&mut self, response: &Response<ResponseBody>, connects: Option<Kind>) {
        if self.line.worker.front.is_some()
            && let Some(RoutedTo(mount)) = response.extensions().get()
        {
            self.mounted(Some(*mount));
        }
        self.status = response.status();
        if let Some(kind) = granted(response, connects) {
            self.upgrade(kind, response.extensions().get().cloned());
        }
        if response.body().streams() {
            self.stay();
        }
    }

    /// The combo answers itself, in the words of gRPC if it is a call.
    #[cold]
    pub(super) fn refused(&mut self, refusal: Refusal, call: bool) -> Response<ResponseBody> {
        self.status = refusal.status();
        if call { grpc::refused(refusal) } else { refusal.response() }
    }

    /// So much of its answer is sent.
    fn hands_over(&self, bytes: usize) {
        if self.exchange.is_some() {
            self.line.progress.hands_over(bytes);
        }
    }

    /// Its app has nothing more to say yet.
    pub(super) fn app_waits(&self) {
        if let Some(exchange) = &self.exchange {
            exchange.app_waits();
        }
    }

    /// It takes longer, so it can be named.
    pub(super) fn stay(&mut self) {
        if self.key.is_none() {
            self.key = Some(self.line.worker.shared.stay());
        }
    }

    /// What the app says from here on is no answer any more.
    #[cold]
    fn upgrade(&self, kind: Kind, keeps: Option<Keeps>) {
        let Line { worker, progress, opening, .. } = &*self.line;
        let shared = &worker.shared;
        let Some(request) = shared.request(self.key) else { return };
        let key = shared.upgrade(request, kind);
        if progress.is_multiplexed() {
            progress.tunnel_began();
            let (shared, progress) = (shared.clone(), progress.clone());
            opening.set(Some(Tunnel { shared, progress, key, _keeps: keeps }));
        } else {
            keeps.into_iter().for_each(|keeps| progress.keeps(keeps));
            progress.upgrades(kind == Kind::Websocket, key);
        }
    }

    /// Runs an app's code with its panics caught and with marks for the stall watch.
    pub(super) fn guarded<T>(&self, run: impl FnOnce() -> T) -> Result<T, Refusal> {
        let shared = &self.line.worker.shared;
        shared.enter(self.key);
        let ran = catch_unwind(AssertUnwindSafe(run));
        shared.leave();
        ran.map_err(|panic| {
            self.panicked();
            self.complain(&said(&*panic));
            Refusal::Panicked
        })
    }

    /// Counts a panic for its mount.
    #[cold]
    pub(super) fn panicked(&self) {
        let worker = &self.line.worker;
        let request = worker.shared.request(self.key);
        if let Some(mount) = request.and_then(|request| worker.mounts.get(request.mount)) {
            mount.tally.panicked();
        }
    }

    /// Says that an app went wrong, with the request that it happened in.
    pub(super) fn complain(&self, what: &str) {
        let worker = &self.line.worker;
        let Some(request) = worker.shared.request(self.key) else { return };
        let mount = worker.mounts.get(request.mount).map(|mount| &*mount.site.pattern);
        tracing::error!(mount, request = request.said(), "an app failed: {what}");
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.line.progress.request_ended();
        self.line.bulk.set(self.line.bulk.get().after(self.sent));
        // It was not begun after all.
        drop(self.line.opening.take());
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
            mount = log.mount.map(|mount| &*self.line.worker.mounts[mount].site.pattern),
            status = self.status.as_u16(),
            bytes = self.sent,
            micros,
            peer = %log.peer,
            cut = (!self.whole).then_some(true),
        );
    }
}

/// A response body on its way to the client; a panic in it ends it early and nothing else.
pub(super) struct Outgoing {
    pub(super) body: ResponseBody,
    /// What came of it at once and is not sent yet.
    pub(super) rest: Option<Bytes>,
    /// What was written when pieces of a paced one were given, and how large they are together.
    pub(super) given: (u32, usize),
    pub(super) ticket: Ticket,
}

/// What is given to HTTP/2 at once, and after how much of a paced one HTTP/1 has to write before it is given more. They
/// keep all that they are given, HTTP/2 for whom it likes: so not all of it is given.
const PIECE: usize = 16 << 10;

impl Drop for Outgoing {
    fn drop(&mut self) {
        if self.body.streams() {
            // What it owns may panic in its turn; that ends no connection.
            let body = std::mem::take(&mut self.body);
            let _ = self.ticket.guarded(|| drop(body));
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let polled = match this.rest.take() {
            Some(rest) => Poll::Ready(Some(Ok(Frame::data(rest)))),
            None => this.poll_body(cx),
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                let frame = this.piece(frame);
                let sent = frame.data_ref().map_or(0, Bytes::len);
                this.ticket.hands_over(sent);
                this.ticket.sent += sent as u64;
                // Whoever knows its length may not ask for its end.
                this.ticket.whole |= this.is_end_stream() || this.size_hint().exact() == Some(0);
                return Poll::Ready(Some(Ok(frame)));
            }
            Poll::Ready(None) => this.ticket.whole = true,
            Poll::Ready(Some(Err(_))) => {}
            Poll::Pending => this.ticket.app_waits(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        if let Some(rest) = &self.rest {
            let (rest, lower) = (rest.len() as u64, hint.lower());
            hint.upper().into_iter().for_each(|upper| hint.set_upper(upper + rest));
            hint.set_lower(lower + rest);
        }
        hint
    }
}

impl Outgoing {
    fn poll_body(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.is_given() {
            // The HTTP library writes what it has, and asks again when the socket takes more; or else when it is told.
            if !self.ticket.line.progress.is_writing() {
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        let Self { body, ticket, given, .. } = self;
        let is_paced = matches!(body.0, Content::Paced(_)) && ticket.exchange.is_none();
        let so_far = ticket.line.progress.so_far();
        let polled = match &mut body.0 {
            Content::Paced(streamed) | Content::Streamed(streamed) => ticket
                .guarded(|| streamed.as_mut().poll_frame(cx))
                .unwrap_or_else(|_| Poll::Ready(Some(Err("the app panicked".into())))),
            _ => Pin::new(&mut *body).poll_frame(cx),
        };
        if is_paced && let Poll::Ready(Some(Ok(frame))) = &polled {
            let before = if given.0 == so_far { given.1 } else { 0 };
            *given = (so_far, before + frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    /// Whether as much of a paced one as is given at once is still with the HTTP library, which would take a dozen more.
    fn is_given(&self) -> bool {
        let progress = &self.ticket.line.progress;
        let (so_far, bytes) = self.given;
        bytes >= PIECE && (so_far == progress.so_far() || progress.is_writing())
    }

    /// As much of it as is given at once.
    fn piece(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        if self.ticket.exchange.is_none() || frame.data_ref().is_none_or(|bytes| bytes.len() <= PIECE) {
            return frame;
        }
        frame.map_data(|mut bytes| {
            self.rest = Some(bytes.split_off(PIECE));
            bytes
        })
    }
}
