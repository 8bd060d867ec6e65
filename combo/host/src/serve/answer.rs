//! A request -> its answer: through guard and route to its mount, by the connection's own task.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{self, Poll},
};

use combo_core::{Connection, Peer};
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, STRICT_TRANSPORT_SECURITY, UPGRADE},
    uri::{Authority, Scheme},
};
use http_body::Body;
use hyper::{body::Incoming, ext::Protocol, service::Service};

use super::{
    body::ResponseBody,
    exchange::Exchange,
    framing::{Asked, Fault, frame},
    grpc::Call,
    guard::{LastHead, Lengths, guard, valid_host},
    http::{Bulk, Tunnel},
    recent::Way,
    redirecting::Redirecting,
    refusal::{Malformed, Refusal},
    sweep::{Progress, Seen},
    ticket::{Outgoing, Ticket},
    worker::{Kind, Tls, Worker},
};
use crate::mount::{Answering, Later, host};

/// What the requests of one connection share.
pub(super) struct Line {
    pub(super) worker: Rc<Worker>,
    pub(super) connection: Arc<Connection>,
    pub(super) progress: Arc<Progress>,
    /// The host of the last request, which is the next one's as a rule.
    pub(super) host: RefCell<Option<HeaderValue>>,
    /// The same as a part of a URI, over TLS.
    pub(super) authority: RefCell<Option<Authority>>,
    pub(super) bulk: Cell<Bulk>,
    /// It comes from a proxy that is believed what it says of others.
    pub(super) trusted: bool,
    /// How hands were shaken.
    pub(super) tls: Option<Tls>,
    /// Its requests are led to https.
    pub(super) redirecting: Option<Arc<Redirecting>>,
    /// The HTTP library begins it as soon as it has the head of its answer.
    pub(super) opening: Cell<Option<Tunnel>>,
    /// Over HTTP/2, the request that it begins now.
    pub(super) began: Cell<Option<Arc<Exchange>>>,
}

/// A request that has passed the guard.
enum Admitted {
    Mounted(Option<Way>, Option<Box<Believed>>),
    Redirected(Box<Response<ResponseBody>>, Option<Box<Believed>>),
}

/// What a trusted proxy said of one request.
pub(super) struct Believed {
    pub(super) connection: Arc<Connection>,
    pub(super) prefix: Option<String>,
}

/// Where the HTTP library hands over requests.
pub(super) struct Door(pub(super) Rc<Line>);

impl Service<Request<Incoming>> for Door {
    type Response = Response<Outgoing>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let line = &self.0;
        let ticket = Ticket::new(line.clone(), &request);
        let (call, asked) = (Call::of(&request), Asked::of(&request));
        if let (Some(exchange), Some(_)) = (&ticket.exchange, &call) {
            exchange.may_be_quiet();
        }
        let connects = (*request.method() == Method::CONNECT).then(|| asked_for(&request));
        let bare = *request.method() == Method::HEAD && request.version() == Version::HTTP_2;
        let refused = State::Refused(Refusal::NoMount);
        // A request is large, so it is put where it stays before anybody looks at it.
        let (request, ticket) = (Some(request), Some(ticket));
        let secure = line.connection.scheme == Scheme::HTTPS;
        let mut answer = Answer { request, ticket, connects, bare, secure, asked, call, state: refused };
        answer.admit(line);
        answer
    }
}

impl Line {
    /// Through guard and route, which comes later where layers are around all mounts.
    fn admit(&self, request: &mut Request<Incoming>, secure: &mut bool) -> Result<Admitted, Refusal> {
        if self.worker.gate.is_full() {
            return Err(Refusal::Full);
        }
        let believed = self.trusted.then(|| Box::new(self.believe(request)));
        let scheme =
            believed.as_ref().map_or(&self.connection.scheme, |believed| &believed.connection.scheme);
        *secure = *scheme == Scheme::HTTPS;
        let seen = self.progress.take_head();
        let lengths = || match seen {
            Seen::Nothing => Lengths::default(),
            Seen::Whole => LastHead::lengths(Arc::as_ptr(&self.progress).addr()),
            Seen::Scanned(lengths) => lengths,
        };
        let known = &mut *self.host.borrow_mut();
        if let Err(why) = guard(request, scheme, known, lengths) {
            // Hosts are newer than HTTP/1.0, and whoever asks how we are does not always have one.
            let may_be_without = request.version() == Version::HTTP_10 && self.redirecting.is_none();
            if why != Malformed::NoHost || !may_be_without {
                return Err(Refusal::Malformed(why));
            }
            let _ = request.headers_mut().insert(HOST, self.own_host());
            guard(request, scheme, known, lengths).map_err(Refusal::Malformed)?;
        }
        if request.version() == Version::HTTP_10 {
            // RFC 9110, section 7.8: there is nothing to upgrade from.
            let _ = request.headers_mut().remove(UPGRADE);
        }
        if let Some(redirecting) = &self.redirecting {
            return Ok(Admitted::Redirected(Box::new(redirecting.answer(request)?), believed));
        }
        if self.worker.front.is_some() {
            // Nobody but the connection knows of certificates, so this does not wait for routing.
            return if self.is_misdirected(request) {
                Err(Refusal::Misdirected)
            } else {
                Ok(Admitted::Mounted(None, believed))
            };
        }
        let Worker { routes, recent, .. } = &*self.worker;
        let host = if routes.by_host() { host(request) } else { "" };
        match recent.find(routes, host, request.uri()) {
            Some(way) => Ok(Admitted::Mounted(Some(way), believed)),
            None if self.is_misdirected(request) => Err(Refusal::Misdirected),
            None => Err(Refusal::NoMount),
        }
    }

    pub(super) fn authority(&self, host: &str) -> Option<Authority> {
        let mut last = self.authority.borrow_mut();
        if last.as_ref().is_none_or(|last| last.as_str() != host) {
            *last = host.parse().ok();
        }
        last.clone()
    }

    /// What there is no mount for is somebody else's, where the certificate is not for its host.
    fn is_misdirected(&self, request: &Request<Incoming>) -> bool {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let server = self.connection.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
            return !self.worker.routes.knows(host(request)) && !tls.covers(server, host(request));
        }
        let _ = (request, &self.tls);
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
pub(super) struct Answer {
    /// Until its app is asked.
    request: Option<Request<Incoming>>,
    ticket: Option<Ticket>,
    /// What it asks to go on as.
    connects: Option<Kind>,
    /// Its body stays here: over HTTP/2 the HTTP library would send it, whatever the method.
    bare: bool,
    /// It came over https, as far as the client knows.
    secure: bool,
    /// What decides where its answer ends.
    asked: Asked,
    /// If it is one of gRPC.
    call: Option<Call>,
    state: State,
}

enum State {
    /// Its app has not been asked yet.
    Admitted(Option<Way>, Option<Box<Believed>>),
    Asked(Later),
    /// It is led elsewhere.
    Redirected(Option<Box<Response<ResponseBody>>>),
    Refused(Refusal),
}

impl Answer {
    /// The head is looked at before more is read; the app is asked where it can be woken.
    fn admit(&mut self, line: &Line) {
        let (Some(request), Some(ticket)) = (&mut self.request, &mut self.ticket) else { return };
        self.state = match line.admit(request, &mut self.secure) {
            Ok(Admitted::Redirected(response, believed)) => {
                ticket.from(believed.as_deref());
                State::Redirected(Some(response))
            }
            Ok(Admitted::Mounted(way, believed)) => {
                ticket.mounted(way.as_ref().map(|way| way.found.mount));
                ticket.from(believed.as_deref());
                State::Admitted(way, believed)
            }
            Err(refusal) => State::Refused(refusal),
        };
    }

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
            State::Redirected(response) => Ok(response.take().map(|response| Answering::Now(Ok(*response)))),
            State::Asked(later) => ticket.guarded(|| match later.as_mut().poll(cx) {
                Poll::Ready(answered) => Some(Answering::Now(answered)),
                Poll::Pending => None,
            }),
            State::Admitted(way, believed) => {
                ticket.ask(&mut this.request, way.as_ref(), believed.as_deref(), cx).map(Some)
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
                ticket.app_waits();
                this.ticket = Some(ticket);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Ok(Some(Answering::Now(Ok(mut response)))) => {
                let fault = frame(&mut response, this.asked).err();
                if let Some(fault) = &fault {
                    ticket.complain(&fault.said());
                }
                let refusal = response.extensions().get::<Refusal>().copied();
                // A panic within a layer was caught there.
                if refusal == Some(Refusal::Panicked) {
                    ticket.panicked();
                }
                match refusal {
                    _ if matches!(fault, Some(Fault::Interim(_))) => {
                        ticket.refused(Refusal::Failed, this.call.is_some())
                    }
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
                    ticket.app_waits();
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
        if let Some(hsts) = ticket.line.worker.hsts.as_ref().filter(|_| this.secure) {
            let _ = response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        if ticket.last && ticket.exchange.is_none() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let _ = response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(exchange) = &ticket.exchange {
            exchange.may_be_quiet();
        }
        ticket.whole |= response.body().is_end_stream();
        Poll::Ready(Ok(response.map(|body| Outgoing { body, rest: None, given: (0, 0), ticket })))
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
pub(super) fn granted(response: &Response<ResponseBody>, connects: Option<Kind>) -> Option<Kind> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return connects.filter(|_| response.status().is_success());
    }
    let websocket =
        response.headers().get(UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    Some(if websocket { Kind::Websocket } else { Kind::Tunnel })
}
