//! A connection -> requests -> responses, by hyper. HTTP/1.1 and HTTP/2 on every endpoint: by ALPN
//! over TLS, by the client's first bytes in clear text.
#![expect(
    clippy::disallowed_methods,
    reason = "HTTP/2 has tasks of its own, and requests are timed for the access log"
)]

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{self, Poll},
};

use bytes::Bytes;
use combo_core::{BoxError, Connection, Peer, context::Credentials};
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONTENT_LENGTH, HOST, UPGRADE},
    uri::Authority,
};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    ext::Protocol,
    server::conn::{http1, http2},
    service::Service,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncRead,
    net::{TcpStream, UnixStream},
    time::Instant,
};

use super::{
    body::{Content, RequestBody, ResponseBody},
    front::RoutedTo,
    grpc::{self, Call},
    guard::{LastHead, Lengths, guard, valid_host},
    haproxy,
    limits::Limits,
    proxies::joined,
    recent::Way,
    refusal::{Malformed, Refusal},
    route::Found,
    stream::{Socket, Stream},
    sweep::{Keeps, Phase, Progress, Seen, Verdict},
    worker::{Accepted, Counted, Front, Kind, Raw, Shared, Tls, Worker, said},
};
use crate::mount::{Answering, Arrival, Later, host};

/// Serves one connection until it ends or is cut.
pub(crate) async fn connection(worker: Rc<Worker>, accepted: Accepted, counted: Counted) {
    let shakes = accepted.tls.is_some() || accepted.proxied;
    let phase = if shakes { Phase::Handshake } else { Phase::First };
    let progress = Arc::new(Progress::new(worker.shared.clock.clone(), phase));
    if worker.draining.get().is_some() {
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
    let Accepted { socket, peer, scheme, tls, proxied } = accepted;
    let mut connection = Connection::new(peer, scheme);
    #[cfg(feature = "tls")]
    let certificate = tls.as_ref().map(|tls| tls.certificate.clone());
    #[cfg(not(feature = "tls"))]
    let certificate = None;
    if proxied && !worker.proxies.trusts(&peer) {
        return Err(format!("{peer} is no trusted proxy").into());
    }
    let (socket, by_alpn) = open(socket, tls, proxied, &mut connection).await?;
    if progress.phase() == Phase::Handshake {
        progress.enter(Phase::First);
    }
    let mut stream = Stream::new(socket, progress.clone(), registered);
    let http2 = match by_alpn {
        Some(http2) => http2,
        None => stream.is_http2().await?,
    };
    let limits = worker.limits.clone();
    // Of a connection that a proxy does not say the client of, that one has written the headers.
    let trusted = worker.proxies.trusts(&connection.peer) && !(proxied && connection.peer == peer);
    let connection = Arc::new(connection);
    let (progress, host, opening) = (progress.clone(), RefCell::default(), Cell::new(None));
    let (bulk, authority) = (Cell::default(), RefCell::default());
    let line =
        Rc::new(Line { worker, connection, progress, host, authority, bulk, trusted, certificate, opening });
    if http2 {
        let progress = line.progress.clone();
        progress.multiplexes();
        let mut builder = http2::Builder::new(OnWorker(line.clone()));
        let _ = builder
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(limits.head_size)
            .max_pending_accept_reset_streams(limits.resets)
            .max_local_error_reset_streams(limits.own_resets)
            .max_send_buf_size(limits.send_buffer)
            .enable_connect_protocol();
        // Boxed, so that the many HTTP/1 connections do not carry its size.
        let mut connection = Box::pin(builder.serve_connection(TokioIo::new(stream), Door(line)));
        let finish = http2::Connection::graceful_shutdown;
        let _ = drive(connection.as_mut(), &progress, finish, || false).await.transpose()?;
        Ok(())
    } else {
        one_by_one(stream, line, &limits).await
    }
}

/// HTTP/1: requests one by one. Where there are many connections, those that wait long for their next
/// request do so without the buffers of the HTTP library: after their first, when nobody knows yet how
/// often they will ask, and whenever they have not asked for a while. Between requests is also when the
/// way of writing changes to what suits the answers.
async fn one_by_one(mut stream: Stream, line: Rc<Line>, limits: &Limits) -> Result<(), BoxError> {
    let mut builder = http1::Builder::new();
    let _ = builder.half_close(true).max_header_size(limits.head_size as usize).header_read_timeout(None);
    let progress = line.progress.clone();
    let (mut may_rest, mut first) = (stream.can_rest(), true);
    loop {
        let (service, vectored) = (Door(line.clone()), line.bulk.get().is_large());
        let _ = builder.writev(vectored);
        let mut connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let rests = || {
            let changes = line.bulk.get().is_large() != vectored && progress.rests(true);
            may_rest && (changes || progress.rests(first) && line.worker.shared.is_crowded())
        };
        let finish = http1::UpgradeableConnection::graceful_shutdown;
        if let Some(ended) = drive(Pin::new(&mut connection), &progress, finish, rests).await {
            return Ok(ended?);
        }
        let Some(parts) = connection.into_parts() else { return Ok(()) };
        stream = parts.io.into_inner();
        first = false;
        if !parts.read_buf.is_empty() {
            // The beginning of the next request came with the last one.
            stream.unread(parts.read_buf);
            may_rest = false;
            continue;
        }
        // Empty as it is, it holds all that the last head was in.
        drop(parts.read_buf);
        stream.rest().await?;
    }
}

/// How large the answers on a connection are. Small ones are copied behind their heads and written as
/// one piece, which costs us and the kernel least; large ones are written from where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Bulk {
    /// Nothing is known yet, or the last answer was large.
    #[default]
    Large,
    /// Still taken for large: there were so many small answers since the last large one.
    Shrinking(u8),
    Small,
}

impl Bulk {
    /// The bytes of a body from which on it is large.
    const LARGE: u64 = 32 << 10;

    /// Small answers in a row that make them the rule.
    const SMALL: u8 = 4;

    fn after(self, bytes: u64) -> Self {
        match self {
            _ if bytes >= Self::LARGE => Self::Large,
            Self::Large => Self::Shrinking(1),
            Self::Shrinking(small) if small + 1 < Self::SMALL => Self::Shrinking(small + 1),
            Self::Shrinking(_) | Self::Small => Self::Small,
        }
    }

    fn is_large(self) -> bool {
        self != Self::Small
    }
}

/// Polls a connection to its end; asks it once to finish when that is the verdict. Leaves it, with
/// nothing, where it `rests`.
async fn drive<C: Future>(
    mut connection: Pin<&mut C>,
    progress: &Progress,
    finish: impl Fn(Pin<&mut C>),
    rests: impl Fn() -> bool,
) -> Option<C::Output> {
    let mut told = false;
    poll_fn(|cx| {
        loop {
            let polled = connection.as_mut().poll(cx);
            if polled.is_pending() && rests() {
                return Poll::Ready(None);
            }
            if told || polled.is_ready() || !progress.finishes() {
                return polled.map(Some);
            }
            told = true;
            finish(connection.as_mut());
        }
    })
    .await
}

/// Registers a socket with this worker's runtime; hears out a proxy; over TLS, shakes hands. Says whether
/// it is HTTP/2 where that is agreed upon beforehand.
async fn open(
    socket: Raw,
    tls: Option<Tls>,
    proxied: bool,
    connection: &mut Connection,
) -> io::Result<(Socket, Option<bool>)> {
    match socket {
        Raw::Tcp(socket) => {
            let mut socket = TcpStream::from_std(socket)?;
            connection.local = socket.local_addr().ok();
            hear_out(&mut socket, proxied, connection).await?;
            match tls {
                #[cfg(feature = "tls")]
                Some(tls) => {
                    let stream = Box::new(tls.acceptor.accept(socket).await?);
                    connection.tls = Some(super::tls::facts(stream.get_ref().1));
                    let http2 = stream.get_ref().1.alpn_protocol() == Some(super::tls::H2);
                    Ok((Socket::Tls(stream), Some(http2)))
                }
                _ => Ok((Socket::Tcp(socket), None)),
            }
        }
        Raw::Unix(socket) => {
            let mut socket = UnixStream::from_std(socket)?;
            connection.credentials = socket.peer_cred().ok().map(|known| Credentials {
                process: known.pid(),
                user: known.uid(),
                group: known.gid(),
            });
            hear_out(&mut socket, proxied, connection).await?;
            Ok((Socket::Unix(socket), None))
        }
        #[cfg(feature = "testing")]
        Raw::Memory(pipe) => Ok((Socket::Memory(pipe), None)),
    }
}

/// What a proxy says of a connection is what is known of it from then on.
async fn hear_out(
    socket: &mut (impl AsyncRead + Unpin),
    proxied: bool,
    connection: &mut Connection,
) -> io::Result<()> {
    if proxied {
        let said = haproxy::read(socket).await?;
        connection.peer = said.peer.map_or(connection.peer, Peer::Inet);
        connection.scheme = said.scheme.unwrap_or_else(|| connection.scheme.clone());
    }
    Ok(())
}

/// HTTP/2 streams are tasks of the worker, and so is what writes into each tunnel in one.
#[derive(Clone)]
struct OnWorker(Rc<Line>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for OnWorker {
    fn execute(&self, future: F) {
        match self.0.opening.take() {
            None => drop(tokio::task::spawn_local(future)),
            Some(tunnel) => drop(tokio::task::spawn_local(async move {
                let _tunnel = tunnel;
                future.await;
            })),
        }
    }
}

/// A tunnel in a stream of HTTP/2, named until it ends: until its app has said all.
struct Tunnel {
    shared: Arc<Shared>,
    progress: Arc<Progress>,
    key: usize,
    _keeps: Option<Keeps>,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.shared.end_upgrade(self.key);
        self.progress.tunnel_ended();
    }
}

/// What the requests of one connection share.
struct Line {
    worker: Rc<Worker>,
    connection: Arc<Connection>,
    progress: Arc<Progress>,
    /// The host of the last request, which is the next one's as a rule.
    host: RefCell<Option<HeaderValue>>,
    /// The same as a part of a URI, over TLS.
    authority: RefCell<Option<Authority>>,
    bulk: Cell<Bulk>,
    /// It comes from a proxy that is believed what it says of others.
    trusted: bool,
    /// What was shown in the handshake.
    certificate: Option<Certificate>,
    /// The HTTP library begins it as soon as it has the head of its answer.
    opening: Cell<Option<Tunnel>>,
}

#[cfg(feature = "tls")]
type Certificate = rustls::pki_types::CertificateDer<'static>;
#[cfg(not(feature = "tls"))]
type Certificate = Infallible;

/// What a trusted proxy said of one request.
struct Believed {
    connection: Arc<Connection>,
    prefix: Option<String>,
}

/// Where the HTTP library hands over requests.
struct Door(Rc<Line>);

impl Service<Request<Incoming>> for Door {
    type Response = Response<Outgoing>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let line = &self.0;
        let ticket = Some(Ticket::new(line.clone(), &request));
        let call = Call::of(&request);
        let connects = (*request.method() == Method::CONNECT).then(|| asked_for(&request));
        let bare = *request.method() == Method::HEAD && request.version() == Version::HTTP_2;
        let refused = State::Refused(Refusal::NoMount);
        // A request is large, so it is put where it stays before anybody looks at it.
        let mut answer = Answer { request: Some(request), ticket, connects, bare, call, state: refused };
        answer.admit(line);
        answer
    }
}

impl Line {
    /// Through guard and route, which comes later where layers are around all mounts.
    fn admit(
        &self,
        request: &mut Request<Incoming>,
    ) -> Result<(Option<Way>, Option<Box<Believed>>), Refusal> {
        let believed = self.trusted.then(|| Box::new(self.believe(request)));
        let scheme =
            believed.as_ref().map_or(&self.connection.scheme, |believed| &believed.connection.scheme);
        let seen = self.progress.take_head();
        let lengths = || match seen {
            Seen::Nothing => Lengths::default(),
            Seen::Whole => LastHead::lengths(Arc::as_ptr(&self.progress).addr()),
            Seen::Scanned(lengths) => lengths,
        };
        let known = &mut *self.host.borrow_mut();
        if let Err(why) = guard(request, scheme, known, lengths) {
            // Hosts are newer than HTTP/1.0, and whoever asks how we are does not always have one.
            if why != Malformed::NoHost || request.version() != Version::HTTP_10 {
                return Err(Refusal::Malformed(why));
            }
            let _ = request.headers_mut().insert(HOST, self.own_host());
            guard(request, scheme, known, lengths).map_err(Refusal::Malformed)?;
        }
        if request.version() == Version::HTTP_10 {
            // RFC 9110, section 7.8: there is nothing to upgrade from.
            let _ = request.headers_mut().remove(UPGRADE);
        }
        if self.worker.front.is_some() {
            // Nobody but the connection knows of certificates, so this does not wait for routing.
            return if self.is_misdirected(request) {
                Err(Refusal::Misdirected)
            } else {
                Ok((None, believed))
            };
        }
        let Worker { routes, recent, .. } = &*self.worker;
        let host = if routes.by_host() { host(request) } else { "" };
        match recent.find(routes, host, request.uri()) {
            Some(way) => Ok((Some(way), believed)),
            None if self.is_misdirected(request) => Err(Refusal::Misdirected),
            None => Err(Refusal::NoMount),
        }
    }

    fn authority(&self, host: &str) -> Option<Authority> {
        let mut last = self.authority.borrow_mut();
        if last.as_ref().is_none_or(|last| last.as_str() != host) {
            *last = host.parse().ok();
        }
        last.clone()
    }

    /// What there is no mount for is somebody else's, where the certificate is not for its host.
    fn is_misdirected(&self, request: &Request<Incoming>) -> bool {
        #[cfg(feature = "tls")]
        if let Some(shown) = &self.certificate {
            return !self.worker.routes.knows(host(request)) && !super::tls::covers(shown, host(request));
        }
        let _ = (request, &self.certificate);
        false
    }

    /// The host of a request that names none: where it arrived.
    #[cold]
    fn own_host(&self) -> HeaderValue {
        let local =
            self.connection.local.map(|local| SocketAddr::new(local.ip().to_canonical(), local.port()));
        let named = local.and_then(|local| HeaderValue::from_str(&local.to_string()).ok());
        named.unwrap_or(HeaderValue::from_static("localhost"))
    }

    /// Takes from a request what a trusted proxy said of it.
    #[cold]
    fn believe(&self, request: &mut Request<Incoming>) -> Believed {
        let said = self.worker.proxies.said(request.headers());
        if let Some(host) = said.host.filter(|host| valid_host(host.as_bytes()))
            && let (Ok(value), Ok(authority)) = (HeaderValue::from_str(&host), host.parse())
        {
            let _ = request.headers_mut().insert(HOST, value);
            if request.uri().authority().is_some() {
                let mut parts = request.uri().clone().into_parts();
                parts.authority = Some(authority);
                *request.uri_mut() = Uri::from_parts(parts).unwrap_or_else(|_| request.uri().clone());
            }
        }
        let mut connection = (*self.connection).clone();
        connection.peer = said.peer.map_or(connection.peer, Peer::Inet);
        connection.scheme = said.scheme.unwrap_or(connection.scheme);
        Believed { connection: Arc::new(connection), prefix: said.prefix }
    }
}

/// The answer of an app, or of the combo itself.
struct Answer {
    /// Until its app is asked.
    request: Option<Request<Incoming>>,
    ticket: Option<Ticket>,
    /// What it asks to go on as.
    connects: Option<Kind>,
    /// Its body stays here: over HTTP/2 the HTTP library would send it, whatever the method.
    bare: bool,
    /// If it is one of gRPC.
    call: Option<Call>,
    state: State,
}

enum State {
    /// Its app has not been asked yet.
    Admitted(Option<Way>, Option<Box<Believed>>),
    Asked(Later),
    Refused(Refusal),
}

impl Answer {
    /// The head is looked at before more is read; the app is asked where it can be woken.
    fn admit(&mut self, line: &Line) {
        let (Some(request), Some(ticket)) = (&mut self.request, &mut self.ticket) else { return };
        self.state = match line.admit(request) {
            Ok((way, believed)) => {
                ticket.mounted(way.as_ref().map(|way| way.found.mount));
                ticket.from(believed.as_deref());
                State::Admitted(way, believed)
            }
            Err(refusal) => State::Refused(refusal),
        };
    }
}

impl Answer {
    /// What changes the protocol waits until all that was answered before is written: from its first byte
    /// on it is followed.
    fn waits_its_turn(&self, response: &Response<ResponseBody>, progress: &Progress) -> bool {
        progress.is_writing() && !progress.is_multiplexed() && granted(response, self.connects).is_some()
    }
}

impl Future for Answer {
    type Output = Result<Response<Outgoing>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut ticket = this.ticket.take().expect("a future is not polled after it is ready");
        let answering = match &mut this.state {
            State::Refused(refusal) => Err(*refusal),
            State::Asked(later) => ticket.guarded(|| match later.as_mut().poll(cx) {
                Poll::Ready(answered) => Some(Answering::Now(answered)),
                Poll::Pending => None,
            }),
            State::Admitted(way, believed) => {
                let request = this.request.take().expect("an app is asked once");
                ticket.ask(request, way.as_ref(), believed.as_deref(), cx).map(Some)
            }
        };
        let mut response = match answering {
            Ok(Some(Answering::Now(Ok(response))))
                if this.waits_its_turn(&response, &ticket.line.progress) =>
            {
                let progress = ticket.line.progress.clone();
                this.state = State::Asked(Box::pin(async move {
                    progress.written().await;
                    Ok(response)
                }));
                ticket.stay();
                this.ticket = Some(ticket);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Ok(Some(Answering::Now(Ok(response)))) => {
                let refusal = response.extensions().get::<Refusal>().copied();
                // A panic within a layer was caught there.
                if refusal == Some(Refusal::Panicked) {
                    ticket.panicked();
                }
                match refusal {
                    // A layer had it said in the words of HTTP.
                    Some(refusal) if this.call.is_some() => ticket.refused(refusal, true),
                    _ => {
                        ticket.answered(&response, this.connects);
                        response
                    }
                }
            }
            Ok(Some(Answering::Now(Err(error)))) => {
                let refusal = Refusal::of(error, |error| ticket.complain(&crate::error::chain(error)));
                ticket.refused(refusal, this.call.is_some())
            }
            Ok(waits) => {
                if let Some(Answering::Later(later)) = waits {
                    this.state = State::Asked(later);
                }
                if !this.call.as_mut().is_some_and(|call| call.is_over(cx)) {
                    ticket.stay();
                    this.ticket = Some(ticket);
                    return Poll::Pending;
                }
                // What the app was doing is dropped.
                this.state = State::Refused(Refusal::TimedOut);
                ticket.refused(Refusal::TimedOut, true)
            }
            Err(refusal) => ticket.refused(refusal, this.call.is_some()),
        };
        if this.bare && !response.body().is_end_stream() {
            if let Some(length) = response.body().size_hint().exact() {
                let _ = response.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
            }
            *response.body_mut() = ResponseBody::empty();
        }
        ticket.whole |= response.body().is_end_stream();
        Poll::Ready(Ok(response.map(|body| Outgoing { body, ticket })))
    }
}

/// What a CONNECT asks for (RFC 8441, section 4).
#[cold]
fn asked_for(request: &Request<Incoming>) -> Kind {
    let protocol = request.extensions().get::<Protocol>();
    if protocol.is_some_and(|protocol| protocol.as_str() == "websocket") {
        Kind::Websocket
    } else {
        Kind::Tunnel
    }
}

/// What goes on after this answer, if anything does.
fn granted(response: &Response<ResponseBody>, connects: Option<Kind>) -> Option<Kind> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return connects.filter(|_| response.status().is_success());
    }
    let websocket =
        response.headers().get(UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    Some(if websocket { Kind::Websocket } else { Kind::Tunnel })
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
    peer: Peer,
}

/// nginx's word for a client that went away before it was answered.
const CLIENT_CLOSED: u16 = 499;

impl Ticket {
    fn new(line: Rc<Line>, request: &Request<Incoming>) -> Self {
        line.progress.request_began();
        let log = line.worker.access_log.then(|| {
            let (method, uri) = (request.method().clone(), request.uri().clone());
            Box::new(Log { began: Instant::now(), method, uri, mount: None, peer: line.connection.peer })
        });
        let status = StatusCode::from_u16(CLIENT_CLOSED).unwrap_or_default();
        let whole = request.method() == Method::HEAD;
        Self { line, key: None, status, sent: 0, whole, log }
    }

    fn mounted(&mut self, mount: Option<usize>) {
        if let Some(log) = &mut self.log {
            log.mount = mount;
        }
    }

    fn from(&mut self, believed: Option<&Believed>) {
        if let (Some(log), Some(believed)) = (&mut self.log, believed) {
            log.peer = believed.connection.peer;
        }
    }

    /// Gives a request to its app.
    fn ask(
        &self,
        request: Request<Incoming>,
        way: Option<&Way>,
        believed: Option<&Believed>,
        cx: &mut task::Context<'_>,
    ) -> Result<Answering, Refusal> {
        let Line { worker, connection, progress, .. } = &*self.line;
        let connection = believed.map_or(connection, |believed| &believed.connection);
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
        let mut arrival =
            Arrival::new(&request, connection, telling, strip, |host| self.line.authority(host));
        arrival.rest = way.and_then(Way::rest);
        let before = believed.and_then(|believed| believed.prefix.as_deref());
        let joined = before.and_then(|before| joined(before, arrival.forwarded));
        arrival.forwarded = joined.as_ref().or(arrival.forwarded);
        let request = request.map(|incoming| RequestBody::of_client(incoming, progress));
        self.guarded(|| app.answer(request, arrival, cx))
    }

    /// An app has answered, if only with a head.
    fn answered(&mut self, response: &Response<ResponseBody>, connects: Option<Kind>) {
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
    fn refused(&mut self, refusal: Refusal, call: bool) -> Response<ResponseBody> {
        self.status = refusal.status();
        if call { grpc::refused(refusal) } else { refusal.response() }
    }

    /// It takes longer, so it can be named.
    fn stay(&mut self) {
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
    fn guarded<T>(&self, run: impl FnOnce() -> T) -> Result<T, Refusal> {
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
    fn panicked(&self) {
        let worker = &self.line.worker;
        let request = worker.shared.request(self.key);
        if let Some(mount) = request.and_then(|request| worker.mounts.get(request.mount)) {
            mount.tally.panicked();
        }
    }

    /// Says that an app went wrong, with the request that it happened in.
    fn complain(&self, what: &str) {
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
        let polled = match &mut body.0 {
            Content::Streamed(streamed) => ticket
                .guarded(|| streamed.as_mut().poll_frame(cx))
                .unwrap_or_else(|_| Poll::Ready(Some(Err("the app panicked".into())))),
            _ => Pin::new(&mut *body).poll_frame(cx),
        };
        match &polled {
            Poll::Ready(None) => ticket.whole = true,
            Poll::Ready(Some(Ok(frame))) => {
                ticket.sent += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
                // Whoever knows its length may not ask for its end.
                ticket.whole |= body.is_end_stream() || body.size_hint().exact() == Some(0);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_large_until_several_in_a_row_were_small() {
        let after = |sent: &[u64]| sent.iter().fold(Bulk::default(), |bulk, bytes| bulk.after(*bytes));
        let large = Bulk::LARGE;
        for (sent, expected) in [
            (&[][..], true),
            (&[0, 1, large - 1], true),
            (&[0, 1, large - 1, 2], false),
            (&[0, 0, 0, large, 0, 0, 0], true),
            (&[0, 0, 0, 0, 0, large], true),
            (&[0, 0, 0, 0, 0, large, 0, 0, 0, 0], false),
        ] {
            assert_eq!(after(sent).is_large(), expected, "{sent:?}");
        }
    }
}
