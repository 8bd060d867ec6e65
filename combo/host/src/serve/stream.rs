//! The bytes of one connection, whatever carries them, with a stamp on what goes through.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

#[cfg(feature = "tls")]
use super::sealed::Sealed;
use super::{
    guard::{HeadScan, LastHead},
    http2, outgoing,
    sweep::{Phase, Progress, Seen, Verdict},
    websocket::Websocket,
    worker::Registered,
};

/// What carries the bytes.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::server::TlsStream<Sealed>>),
    /// Any of the others, once it carries a websocket.
    Websocket(Arc<Websocket>),
    /// A pipe, for the rig.
    #[cfg(feature = "testing")]
    Memory(tokio::io::DuplexStream),
}

impl Socket {
    /// Notes whether the peer takes what it is told, and if that was asked, how much it has not.
    pub(super) fn note<T>(&self, progress: &Progress, told: &Poll<io::Result<T>>) {
        progress.write(told.is_pending());
        if told.is_pending() && progress.take_question() {
            progress.queues(self.queued());
        }
    }

    /// How many bytes of what was written the peer has not taken, as far as that is known.
    #[cold]
    pub(crate) fn queued(&self) -> u32 {
        match self {
            Self::Tcp(socket) => outgoing::queued(socket),
            Self::Unix(socket) => outgoing::queued(socket),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => outgoing::queued(&stream.get_ref().0.socket),
            Self::Websocket(websocket) => websocket.queued(),
            #[cfg(feature = "testing")]
            Self::Memory(_) => 0,
        }
    }

    /// Has it end by a reset: what the peer has not taken, some megabytes perhaps, is forgotten by the kernel.
    #[cold]
    pub(crate) fn reset(&self) {
        let lingers = match self {
            Self::Tcp(socket) => SockRef::from(socket).set_linger(Some(Duration::ZERO)),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => SockRef::from(&stream.get_ref().0.socket).set_linger(Some(Duration::ZERO)),
            Self::Unix(_) | Self::Websocket(_) => Ok(()),
            #[cfg(feature = "testing")]
            Self::Memory(_) => Ok(()),
        };
        // If it cannot be, the kernel forgets it later.
        drop(lingers);
    }

    fn is_sealed(&self) -> bool {
        #[cfg(feature = "tls")]
        return matches!(self, Self::Tls(_));
        #[cfg(not(feature = "tls"))]
        false
    }

    /// An error if the peer has reset it. Who only sends no more may still wait for an answer.
    #[cold]
    pub(crate) fn still_there(&self) -> io::Result<()> {
        let error = match self {
            Self::Tcp(socket) => socket.take_error()?,
            Self::Unix(socket) => socket.take_error()?,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.get_ref().0.socket.take_error()?,
            Self::Websocket(websocket) => return websocket.still_there(),
            #[cfg(feature = "testing")]
            Self::Memory(_) => None,
        };
        error.map_or(Ok(()), Err)
    }
}

/// One connection. It counts as open until it is dropped, wherever that is: an upgrade may take it
/// to another thread.
pub(crate) struct Stream {
    socket: Socket,
    progress: Arc<Progress>,
    scan: Scan,
    /// What was read already and is given on first.
    ahead: Bytes,
    closing: Option<Closing>,
    /// What may still be read in this turn, once it is something else than HTTP/1.
    turn: usize,
    /// Unless it has gone over to a websocket.
    registered: Option<Registered>,
}

/// What is followed of what a peer sends.
enum Scan {
    /// Heads, that is their lengths.
    Http1(HeadScan),
    /// Frames, that is whether they are of a head.
    Http2(http2::Frames),
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.progress.verdict() == Verdict::Cut && self.progress.owes() {
            self.socket.reset();
        }
    }
}

/// We have ended the connection; the peer has not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closing {
    /// There is nothing that it might still send.
    Now,
    /// There is.
    AfterPeer,
}

/// Bytes of an upgraded connection, or of HTTP/2, that are read before all others of its worker had their
/// turn.
const TURN: usize = 64 << 10;

/// What an HTTP/2 client that knows beforehand sends first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Stream {
    pub(crate) fn new(socket: Socket, progress: Arc<Progress>, registered: Registered) -> Self {
        Self {
            socket,
            progress,
            scan: Scan::Http1(HeadScan::default()),
            ahead: Bytes::new(),
            closing: None,
            turn: TURN,
            registered: Some(registered),
        }
    }

    /// Reads as much as it takes to tell HTTP/2 from HTTP/1; what was read is given on later.
    pub(crate) async fn is_http2(&mut self) -> io::Result<bool> {
        let (mut ahead, mut filled) = ([0; PREFACE.len()], 0);
        while filled < PREFACE.len() && ahead[..filled] == PREFACE[..filled] {
            match self.read(&mut ahead[filled..]).await? {
                0 => break,
                read => filled += read,
            }
        }
        self.ahead = Bytes::copy_from_slice(&ahead[..filled]);
        Ok(filled > 0 && ahead[..filled] == PREFACE[..filled])
    }

    /// It speaks HTTP/2.
    pub(crate) fn multiplexes(&mut self) {
        self.progress.multiplexes();
        self.scan = Scan::Http2(http2::Frames::new());
        let ahead = self.ahead.clone();
        self.read_from_peer(&ahead);
    }

    /// Gives back what was read and not used.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        self.ahead = bytes;
    }

    /// Waits until there is something to read, which may be the end, or until it is to finish.
    pub(crate) async fn rest(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            if self.progress.verdict() != Verdict::Serve {
                return Poll::Ready(Ok(()));
            }
            match &self.socket {
                Socket::Tcp(socket) => socket.poll_read_ready(cx),
                Socket::Unix(socket) => socket.poll_read_ready(cx),
                #[cfg(feature = "tls")]
                Socket::Tls(stream) => stream.get_ref().0.socket.poll_read_ready(cx),
                Socket::Websocket(_) => Poll::Ready(Ok(())),
                #[cfg(feature = "testing")]
                Socket::Memory(_) => Poll::Ready(Ok(())),
            }
        })
        .await
    }

    /// Whether it can be told when there is something to read, without reading it.
    pub(crate) fn can_rest(&self) -> bool {
        match &self.socket {
            #[cfg(feature = "testing")]
            Socket::Memory(_) => false,
            _ => true,
        }
    }

    fn read_from_peer(&mut self, bytes: &[u8]) {
        let scan = match &mut self.scan {
            Scan::Http1(scan) => scan,
            Scan::Http2(frames) => {
                let http2::Seen { of_bodies, begun, torn } = frames.feed(bytes);
                self.progress.tears(begun, torn);
                let _ = self.progress.read(of_bodies);
                return;
            }
        };
        let begins = matches!(self.progress.phase(), Phase::First | Phase::Idle);
        // Under TLS they were counted when they came.
        let count = if self.socket.is_sealed() { 0 } else { bytes.len() };
        if !self.progress.read(count) {
            return;
        }
        if begins && LastHead::is_whole(bytes) {
            LastHead::keep(Arc::as_ptr(&self.progress).addr(), bytes);
            return self.progress.head(Seen::Whole);
        }
        if begins {
            scan.restart();
        }
        scan.feed(bytes);
        self.progress.head(Seen::Scanned(scan.lengths()));
    }

    /// Looks after a peer that nobody has heard of for a while, if that is wanted.
    fn probe(&self) -> io::Result<()> {
        if self.progress.take_probe() {
            self.progress.queues(self.socket.queued());
            self.socket.still_there()?;
        }
        Ok(())
    }

    fn cut(&self) -> io::Result<()> {
        if self.progress.verdict() == Verdict::Cut {
            Err(io::ErrorKind::ConnectionAborted.into())
        } else {
            Ok(())
        }
    }

    /// An upgraded connection is polled by whoever took it, so that is who a verdict has to wake.
    fn wait(&self, cx: &Context<'_>, wake: fn(&Progress, &Waker)) {
        if self.progress.is_upgraded() {
            wake(&self.progress, cx.waker());
            // It may have been judged before anybody could be woken.
            let verdict = self.progress.verdict();
            if verdict == Verdict::Cut || self.parts(verdict) {
                cx.waker().wake_by_ref();
            }
        }
    }

    fn wrote<T>(&self, cx: &Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.socket.note(&self.progress, &polled);
        if polled.is_pending() {
            self.wait(cx, Progress::wake_writer);
        }
        polled
    }

    /// The same, and how much it was.
    fn wrote_some(&self, cx: &Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &polled {
            self.progress.wrote(*bytes);
        }
        self.wrote(cx, polled)
    }

    /// Whether it is time for a close of our own.
    fn parts(&self, verdict: Verdict) -> bool {
        verdict == Verdict::Part
            && matches!(&self.socket, Socket::Websocket(websocket) if websocket.parts(verdict))
    }

    /// Says a close of our own if it is time for it, or the rest of it. Whoever reads, writes or flushes goes
    /// on with it.
    fn poll_farewell(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.socket {
            Socket::Websocket(websocket) if self.progress.verdict() == Verdict::Part => {
                websocket.poll_farewell(cx, &self.progress)
            }
            _ => Poll::Ready(Ok(())),
        }
    }

    /// The same by who writes.
    fn poll_parting(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let said = self.poll_farewell(cx);
        if said.is_pending() {
            self.wait(cx, Progress::wake_writer);
        }
        said
    }

    /// What an app says in a tunnel. From the first of it on a websocket is also the sweep's.
    fn poll_tell(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.progress.phase() == Phase::Websocket
            && let Some(registered) = self.registered.take()
        {
            let websocket = Arc::new(Websocket::default());
            let socket = std::mem::replace(&mut self.socket, Socket::Websocket(websocket.clone()));
            websocket.begin(socket, registered);
            self.progress.shares(&websocket);
        }
        let Socket::Websocket(websocket) = &self.socket else {
            let polled = Pin::new(&mut self.socket).poll_write(cx, bytes);
            return self.wrote_some(cx, polled);
        };
        let polled = websocket.poll_tell(cx, bytes, &self.progress);
        if polled.is_pending() {
            self.wait(cx, Progress::wake_writer);
        }
        polled
    }
}

/// Calls one method of whatever carries the bytes.
macro_rules! each {
    ($socket:expr, $carrier:ident => $call:expr, $websocket:ident => $shared:expr) => {
        match $socket {
            Socket::Tcp($carrier) => $call,
            Socket::Unix($carrier) => $call,
            #[cfg(feature = "tls")]
            Socket::Tls($carrier) => $call,
            Socket::Websocket($websocket) => $shared,
            #[cfg(feature = "testing")]
            Socket::Memory($carrier) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(&mut *self, carrier => Pin::new(carrier).poll_read(cx, buf), shared => shared.poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let told = || unreachable!("what is said in a websocket is followed");
        each!(&mut *self, carrier => Pin::new(carrier).poll_write(cx, bytes), _shared => told())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let told = || unreachable!("what is said in a websocket is followed");
        each!(&mut *self, carrier => Pin::new(carrier).poll_write_vectored(cx, slices), _shared => told())
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, carrier => carrier.is_write_vectored(), _shared => false)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut *self, carrier => Pin::new(carrier).poll_flush(cx), shared => shared.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut *self, carrier => Pin::new(carrier).poll_shutdown(cx), shared => shared.poll_shutdown(cx))
    }
}

impl Stream {
    /// A socket that is closed with bytes unread, or that gets some afterwards, is reset, and that
    /// may overtake the answer (RFC 9112, section 9.6). So where there are some, the peer closes
    /// first; the sweep sees to it that it does not take long.
    fn poll_peer_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut unread = [0; 4_096];
        loop {
            let mut buf = ReadBuf::new(&mut unread);
            match Pin::new(&mut self.socket).poll_read(cx, &mut buf) {
                Poll::Pending if self.closing == Some(Closing::AfterPeer) => return Poll::Pending,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => self.closing = Some(Closing::AfterPeer),
                Poll::Ready(_) | Poll::Pending => return Poll::Ready(()),
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let count = buf.remaining().min(self.ahead.len());
            buf.put_slice(&self.ahead.split_to(count));
            return Poll::Ready(Ok(()));
        }
        self.cut()?;
        self.probe()?;
        if let Poll::Ready(said) = self.poll_farewell(cx) {
            said?;
        }
        if self.turn == 0 {
            // Others have theirs now: an app may take up all that it is given before it waits.
            self.turn = TURN;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        match &polled {
            Poll::Pending => {
                self.turn = TURN;
                self.wait(cx, Progress::wake);
            }
            Poll::Ready(_) => {
                let read = &buf.filled()[before..];
                if self.progress.is_upgraded() || self.progress.is_multiplexed() {
                    self.turn = self.turn.saturating_sub(read.len());
                }
                if !read.is_empty() {
                    self.as_mut().get_mut().read_from_peer(read);
                }
            }
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.cut()?;
        if self.progress.is_upgraded() {
            return self.poll_tell(cx, bytes);
        }
        let polled = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.wrote_some(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.cut()?;
        if self.progress.is_upgraded() {
            let first = slices.iter().find(|slice| !slice.is_empty());
            return self.poll_tell(cx, first.map_or(&[], |slice| &**slice));
        }
        let polled = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.wrote_some(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.probe()?;
        ready!(self.poll_parting(cx))?;
        let polled = Pin::new(&mut self.socket).poll_flush(cx);
        self.wrote(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            ready!(self.poll_parting(cx))?;
            let polled = Pin::new(&mut self.socket).poll_shutdown(cx);
            ready!(self.wrote(cx, polled))?;
            if self.progress.is_upgraded() {
                return Poll::Ready(Ok(()));
            }
            self.closing = Some(if self.progress.close() { Closing::AfterPeer } else { Closing::Now });
        }
        self.poll_peer_end(cx).map(Ok)
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use combo_core::Peer;
    use futures_util::{FutureExt, task::noop_waker_ref};
    use http::uri::Scheme;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::serve::{
        gate::Pass,
        sweep::Coarse,
        worker::{Accepted, Desk, Message, Raw},
    };

    const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
    const MESSAGE: &[u8] = &[0x82, 1, 7];
    const GOING_AWAY: &[u8] = &[0x88, 2, 0x03, 0xe9];

    /// A websocket that takes so many bytes at once, and its peer.
    struct Pair {
        desk: Desk,
        progress: Arc<Progress>,
        stream: Stream,
        peer: DuplexStream,
    }

    fn pair(room: usize) -> Pair {
        let (ours, peer) = duplex(room);
        let (desk, mut inbox) = Desk::new();
        let (socket, peer_of) = (Raw::Memory(duplex(1).0), Peer::Inet(([127, 0, 0, 1], 1).into()));
        let (scheme, tls) = (Scheme::HTTP, None);
        let accepted =
            Accepted { socket, peer: peer_of, scheme, tls, proxied: false, redirecting: None, shaking: None };
        assert!(desk.take(accepted, Pass::default()).is_ok());
        let Ok(Message::Serve(_, counted)) = inbox.try_recv() else { panic!("it was handed over") };
        let progress = Arc::new(Progress::new(Coarse::new(), Phase::Busy));
        let registered = desk.shared().register(progress.clone(), peer_of, counted);
        let stream = Stream::new(Socket::Memory(ours), progress.clone(), registered);
        progress.upgrades(true, 0);
        Pair { desk, progress, stream, peer }
    }

    impl Pair {
        fn says(&mut self, bytes: &[u8]) {
            self.stream.write_all(bytes).now_or_never().expect("there is room").expect("it is open");
        }

        fn hears(&mut self) -> Vec<u8> {
            let mut heard = Vec::new();
            while let Some(Ok(more @ 1..)) = self.peer.read_buf(&mut heard).now_or_never() {
                assert!(more > 0);
            }
            heard
        }

        fn flushes(&mut self) -> bool {
            let mut cx = Context::from_waker(noop_waker_ref());
            Pin::new(&mut self.stream).poll_flush(&mut cx).is_ready()
        }
    }

    #[test]
    fn a_websocket_that_nobody_reads_or_writes_is_closed_and_ended() {
        let mut pair = pair(100);
        pair.says(&[HEAD, MESSAGE].concat());
        pair.progress.part();
        assert_eq!(pair.hears(), [HEAD, MESSAGE].concat(), "nobody has judged it");
        pair.progress.judge(Verdict::Part);
        pair.progress.part();
        pair.progress.part();
        assert_eq!((pair.hears(), pair.progress.phase()), (GOING_AWAY.to_vec(), Phase::Parted));
        assert_eq!(pair.desk.open(), 1);
        pair.progress.judge(Verdict::Cut);
        pair.progress.part();
        assert_eq!(pair.desk.open(), 0);
        assert_eq!(pair.peer.read(&mut [0]).now_or_never().map(Result::ok), Some(Some(0)));
        let left = pair.stream.write(MESSAGE).now_or_never().map(|written| written.map_err(|e| e.kind()));
        assert_eq!(left, Some(Err(io::ErrorKind::ConnectionAborted)));
    }

    #[test]
    fn a_message_that_has_begun_is_not_broken_by_the_close() {
        let mut pair = pair(100);
        pair.says(&[HEAD, &MESSAGE[..2]].concat());
        pair.progress.judge(Verdict::Part);
        pair.progress.part();
        assert_eq!(pair.hears(), [HEAD, &MESSAGE[..2]].concat());
        pair.says(&MESSAGE[2..]);
        assert_eq!(pair.hears(), [&MESSAGE[2..], GOING_AWAY].concat());
        assert_eq!(pair.desk.open(), 1);
    }

    #[test]
    fn a_close_that_the_peer_takes_in_pieces_goes_on_when_it_is_flushed_or_swept() {
        type Way = fn(&mut Pair) -> bool;
        let ways: [Way; 2] = [Pair::flushes, |pair| (pair.progress.part(), true).1];
        for way in ways {
            let mut pair = pair(HEAD.len() + MESSAGE.len() + 2);
            pair.says(&[HEAD, &MESSAGE[..1]].concat());
            pair.progress.judge(Verdict::Part);
            pair.says(&MESSAGE[1..]);
            assert!(!pair.flushes());
            assert_eq!(pair.hears(), [HEAD, MESSAGE, &GOING_AWAY[..2]].concat());
            assert!(way(&mut pair));
            assert_eq!((pair.hears(), pair.progress.phase()), (GOING_AWAY[2..].to_vec(), Phase::Parted));
        }
    }

    #[test]
    fn where_messages_end_nobody_knows_it_is_ended_at_once() {
        for said in [&[b"the end of an answer ", HEAD, MESSAGE].concat()[..], &HEAD[..20]] {
            let mut pair = pair(100);
            pair.says(said);
            pair.progress.part();
            assert_eq!(pair.desk.open(), 1);
            pair.progress.judge(Verdict::Part);
            pair.progress.part();
            assert_eq!((pair.hears(), pair.desk.open()), (said.to_vec(), 0));
            assert_eq!(pair.progress.verdict(), Verdict::Cut);
        }
    }
}
