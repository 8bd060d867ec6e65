//! A connection -> requests -> responses, by hyper. HTTP/1.1 and HTTP/2 on every endpoint: by ALPN
//! over TLS, by the client's first bytes in clear text.
#![expect(clippy::disallowed_methods, reason = "HTTP/2 has tasks of its own")]

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use combo_core::{BoxError, Connection, Peer, context::Credentials};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::AsyncRead,
    net::{TcpStream, UnixStream},
};

#[cfg(feature = "tls")]
use super::sealed::{Carrier, Sealed};
use super::{
    answer::{Door, Line},
    evictions::Eviction,
    exchange::Watched,
    haproxy,
    limits::Limits,
    stream::{Socket, Stream},
    sweep::{Keeps, Phase, Progress, Verdict},
    worker::{Accepted, Counted, Raw, Shared, Tls, Worker},
};

/// After how long without a frame an HTTP/2 client is pinged, and how long that may be unanswered.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// What an HTTP/2 client may send of one body, and of all on a connection, before apps have read it: so that some
/// of them may read late without holding up the others.
const WINDOWS: (u32, u32) = (256 << 10, 1 << 20);

/// Serves one connection until it ends or is cut.
pub(crate) async fn connection(worker: Rc<Worker>, accepted: Accepted, counted: Counted) {
    let shakes = accepted.tls.is_some() || accepted.proxied;
    let phase = if shakes { Phase::Handshake } else { Phase::First };
    let progress = Arc::new(Progress::new(worker.shared.clock.clone(), phase));
    if worker.draining.get().is_some() {
        progress.judge(Verdict::Finish);
    }
    let (shared, gate, peer) = (worker.shared.clone(), worker.gate.clone(), accepted.peer);
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
                if is_flood(&*error) {
                    gate.evictions.count(Eviction::Flood, &peer);
                }
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
    let Accepted { socket, peer, scheme, tls, proxied, redirecting, shaking } = accepted;
    let registered = worker.shared.register(progress.clone(), peer, counted);
    let mut connection = Connection::new(peer, scheme);
    if proxied && !worker.proxies.trusts(&peer) {
        return Err(format!("{peer} is no trusted proxy").into());
    }
    let opening = open(socket, tls.as_ref(), proxied, &mut connection, &progress);
    let (socket, by_alpn) = match shaking {
        None => opening.await?,
        Some(shaking) => tokio::select! {
            opened = opening => opened?,
            () = shaking.gives_way() => {
                worker.gate.evictions.count(Eviction::Handshakes, &peer);
                return Err("too many shook hands, and it had taken longest".into());
            }
        },
    };
    if progress.phase() == Phase::Handshake {
        progress.opens();
    }
    let mut stream = Stream::new(socket, progress.clone(), registered);
    let http2 = match by_alpn {
        Some(http2) => http2,
        None => stream.is_http2().await?,
    };
    let limits = worker.gate.limits.clone();
    // Of a connection that a proxy does not say the client of, that one has written the headers.
    let trusted = worker.proxies.trusts(&connection.peer) && !(proxied && connection.peer == peer);
    let connection = Arc::new(connection);
    let (host, authority, bulk) = (RefCell::default(), RefCell::default(), Cell::default());
    let (opening, began, progress) = (Cell::default(), Cell::default(), progress.clone());
    let line = Rc::new(Line {
        worker,
        connection,
        progress,
        host,
        authority,
        bulk,
        trusted,
        tls,
        redirecting,
        opening,
        began,
    });
    if http2 {
        let progress = line.progress.clone();
        stream.multiplexes();
        let mut builder = http2::Builder::new(OnWorker(line.clone()));
        let _ = builder
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(limits.head_size)
            .max_pending_accept_reset_streams(limits.resets)
            .max_local_error_reset_streams(limits.own_resets)
            .max_send_buf_size(limits.send_buffer)
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .timer(TokioTimer::new())
            .keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1)
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
pub(super) enum Bulk {
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

    pub(super) fn after(self, bytes: u64) -> Self {
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
    tls: Option<&Tls>,
    proxied: bool,
    connection: &mut Connection,
    progress: &Arc<Progress>,
) -> io::Result<(Socket, Option<bool>)> {
    #[cfg(not(feature = "tls"))]
    let _ = progress;
    match socket {
        Raw::Tcp(socket) => {
            let mut socket = TcpStream::from_std(socket)?;
            connection.local = socket.local_addr().ok();
            hear_out(&mut socket, proxied, connection).await?;
            match tls {
                #[cfg(feature = "tls")]
                Some(tls) => shake(Carrier::Tcp(socket), tls, connection, progress).await,
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
            match tls {
                #[cfg(feature = "tls")]
                Some(tls) => shake(Carrier::Unix(socket), tls, connection, progress).await,
                _ => Ok((Socket::Unix(socket), None)),
            }
        }
        #[cfg(feature = "testing")]
        Raw::Memory(pipe) => Ok((Socket::Memory(pipe), None)),
    }
}

#[cfg(feature = "tls")]
async fn shake(
    socket: Carrier,
    tls: &Tls,
    connection: &mut Connection,
    progress: &Arc<Progress>,
) -> io::Result<(Socket, Option<bool>)> {
    let socket = Sealed { socket, progress: progress.clone() };
    let stream = Box::new(tls.accept(socket).await?);
    connection.tls = Some(super::tls::facts(stream.get_ref().1));
    let http2 = stream.get_ref().1.alpn_protocol() == Some(super::tls::H2);
    Ok((Socket::Tls(stream), Some(http2)))
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
    /// What is begun right after a request came is about that request.
    fn execute(&self, future: F) {
        let Line { began, opening, progress, .. } = &*self.0;
        if let Some(exchange) = began.take() {
            let progress: Arc<Progress> = progress.clone();
            drop(tokio::task::spawn_local(Watched::new(future, exchange, progress)));
        } else if let Some(tunnel) = opening.take() {
            drop(tokio::task::spawn_local(async move {
                let _tunnel = tunnel;
                future.await;
            }));
        } else {
            drop(tokio::task::spawn_local(future));
        }
    }
}

/// Whether the HTTP library has had too much of what costs and brings nothing (RFC 9113, section 10.5).
fn is_flood(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|cause| {
        let cause = cause.downcast_ref::<h2::Error>();
        cause.is_some_and(|cause| cause.is_library() && cause.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
    })
}

/// A tunnel in a stream of HTTP/2, named until it ends: until its app has said all.
pub(super) struct Tunnel {
    pub(super) shared: Arc<Shared>,
    pub(super) progress: Arc<Progress>,
    pub(super) key: usize,
    pub(super) _keeps: Option<Keeps>,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.shared.end_upgrade(self.key);
        self.progress.tunnel_ended();
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
