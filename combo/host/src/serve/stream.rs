//! The bytes of one connection, whatever carries them, with a stamp on what goes through.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::{
    frames::Frames,
    guard::{HeadScan, LastHead},
    sweep::{Phase, Progress, Seen, Verdict},
    worker::Registered,
};

/// What carries the bytes.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// A pipe, for the rig.
    #[cfg(feature = "testing")]
    Memory(tokio::io::DuplexStream),
}

impl Socket {
    /// An error if the peer has reset it. Who only sends no more may still wait for an answer.
    #[cold]
    fn still_there(&self) -> io::Result<()> {
        let error = match self {
            Self::Tcp(socket) => socket.take_error()?,
            Self::Unix(socket) => socket.take_error()?,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.get_ref().0.take_error()?,
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
    scan: HeadScan,
    /// What was read already and is given on first.
    ahead: Bytes,
    closing: Option<Closing>,
    /// What may still be read in this turn, once it is something else than HTTP.
    turn: usize,
    /// Once it is one.
    websocket: Option<Box<Websocket>>,
    _registered: Registered,
}

/// We have ended the connection; the peer has not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closing {
    /// There is nothing that it might still send.
    Now,
    /// There is.
    AfterPeer,
}

/// What its app has said in a websocket, and we.
struct Websocket {
    frames: Frames,
    farewell: Farewell,
}

/// How far we have come with a close of our own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Farewell {
    Unsaid,
    /// So many bytes of it are written.
    Begun(usize),
    /// So many bytes of what the app says after it are still taken, as if somebody heard them.
    Said(usize),
}

/// A close with code 1001: going away (RFC 6455, section 7.4.1).
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

/// What an app may say that nobody hears. More than that waits, as with a peer that does not read: an app
/// that never stops would otherwise never wait.
const UNHEARD: usize = 64 << 10;

/// Bytes of an upgraded connection that are read before all others of its worker had their turn.
const TURN: usize = 64 << 10;

/// What an HTTP/2 client that knows beforehand sends first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Stream {
    pub(crate) fn new(socket: Socket, progress: Arc<Progress>, registered: Registered) -> Self {
        Self {
            socket,
            progress,
            scan: HeadScan::default(),
            ahead: Bytes::new(),
            closing: None,
            turn: TURN,
            websocket: None,
            _registered: registered,
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
                Socket::Tls(stream) => stream.get_ref().0.poll_read_ready(cx),
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
        let begins = matches!(self.progress.phase(), Phase::First | Phase::Idle);
        if !self.progress.read() {
            return;
        }
        if begins && LastHead::is_whole(bytes) {
            LastHead::keep(Arc::as_ptr(&self.progress).addr(), bytes);
            return self.progress.head(Seen::Whole);
        }
        if begins {
            self.scan.restart();
        }
        self.scan.feed(bytes);
        self.progress.head(Seen::Scanned(self.scan.lengths()));
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
        self.progress.write(polled.is_pending());
        if polled.is_pending() {
            self.wait(cx, Progress::wake_writer);
        }
        polled
    }

    /// Whether it is time for a close of our own.
    fn parts(&self, verdict: Verdict) -> bool {
        let may = |websocket: &Websocket| websocket.farewell == Farewell::Unsaid && websocket.frames.rests();
        verdict == Verdict::Part && self.websocket.as_deref().is_some_and(may)
    }
}

/// Calls one method of whatever carries the bytes.
macro_rules! each {
    ($socket:expr, $carrier:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($carrier) => $call,
            Socket::Unix($carrier) => $call,
            #[cfg(feature = "tls")]
            Socket::Tls($carrier) => $call,
            #[cfg(feature = "testing")]
            Socket::Memory($carrier) => $call,
        }
    };
}

impl Stream {
    /// A socket that is closed with bytes unread, or that gets some afterwards, is reset, and that
    /// may overtake the answer (RFC 9112, section 9.6). So where there are some, the peer closes
    /// first; the sweep sees to it that it does not take long.
    fn poll_peer_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut unread = [0; 4_096];
        loop {
            let mut buf = ReadBuf::new(&mut unread);
            match each!(&mut self.socket, carrier => Pin::new(carrier).poll_read(cx, &mut buf)) {
                Poll::Pending if self.closing == Some(Closing::AfterPeer) => return Poll::Pending,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => self.closing = Some(Closing::AfterPeer),
                Poll::Ready(_) | Poll::Pending => return Poll::Ready(()),
            }
        }
    }
}

impl Stream {
    /// Says a close of our own if it is time for it, or the rest of it. Whoever reads or writes goes on with
    /// it. Gives how much the app may say that nobody hears, once there was one.
    fn poll_farewell(&mut self, cx: &mut Context<'_>, verdict: Verdict) -> Poll<io::Result<Option<usize>>> {
        let parts = self.parts(verdict);
        let Some(websocket) = self.websocket.as_deref_mut() else { return Poll::Ready(Ok(None)) };
        if parts {
            websocket.farewell = Farewell::Begun(0);
        }
        loop {
            let sent = match websocket.farewell {
                Farewell::Unsaid => return Poll::Ready(Ok(None)),
                Farewell::Said(left) => return Poll::Ready(Ok(Some(left))),
                Farewell::Begun(sent) => sent,
            };
            let rest = &GOING_AWAY[sent..];
            if rest.is_empty() {
                let polled = each!(&mut self.socket, carrier => Pin::new(carrier).poll_flush(cx));
                self.progress.write(polled.is_pending());
                ready!(polled)?;
                websocket.farewell = Farewell::Said(UNHEARD);
                self.progress.parts();
                self.progress.let_write();
            } else {
                let polled = each!(&mut self.socket, carrier => Pin::new(carrier).poll_write(cx, rest));
                self.progress.write(polled.is_pending());
                match ready!(polled)? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    more => websocket.farewell = Farewell::Begun(sent + more),
                }
            }
        }
    }

    /// What an app says in a tunnel. Of a websocket the frames are followed, and after a close of our own
    /// nothing is heard.
    fn poll_tell(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.websocket.is_none() && self.progress.phase() == Phase::Websocket {
            self.websocket = Some(Box::new(Websocket { frames: Frames::new(), farewell: Farewell::Unsaid }));
        }
        let verdict = self.progress.verdict();
        match self.poll_farewell(cx, verdict) {
            Poll::Ready(Ok(None)) => {}
            Poll::Ready(Ok(Some(left))) if left > 0 || bytes.is_empty() => {
                let taken = left.min(bytes.len());
                if let Some(websocket) = &mut self.websocket {
                    websocket.farewell = Farewell::Said(left - taken);
                }
                return Poll::Ready(Ok(taken));
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(Some(_))) | Poll::Pending => {
                self.wait(cx, Progress::wake_writer);
                return Poll::Pending;
            }
        }
        let bytes = match &self.websocket {
            Some(websocket) if verdict == Verdict::Part => &bytes[..websocket.frames.until_rest(bytes)],
            _ => bytes,
        };
        let polled = each!(&mut self.socket, carrier => Pin::new(carrier).poll_write(cx, bytes));
        let written = ready!(self.wrote(cx, polled))?;
        if let Some(websocket) = &mut self.websocket {
            websocket.frames.feed(&bytes[..written]);
            if websocket.frames.closed() {
                self.progress.parts();
            }
            if let Poll::Ready(said) = self.poll_farewell(cx, verdict) {
                let _ = said?;
            }
        }
        Poll::Ready(Ok(written))
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
        if self.websocket.is_some() {
            let verdict = self.progress.verdict();
            if let Poll::Ready(said) = self.poll_farewell(cx, verdict) {
                let _ = said?;
            }
        }
        if self.turn == 0 {
            // Others have theirs now: an app may take up all that it is given before it waits.
            self.turn = TURN;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = each!(&mut self.socket, carrier => Pin::new(carrier).poll_read(cx, buf));
        match &polled {
            Poll::Pending => {
                self.turn = TURN;
                self.wait(cx, Progress::wake);
            }
            Poll::Ready(_) => {
                let read = &buf.filled()[before..];
                if self.progress.is_upgraded() {
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
        let polled = each!(&mut self.socket, carrier => Pin::new(carrier).poll_write(cx, bytes));
        self.wrote(cx, polled)
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
        let polled = each!(&mut self.socket, carrier => Pin::new(carrier).poll_write_vectored(cx, slices));
        self.wrote(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        each!(&self.socket, carrier => carrier.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.progress.take_probe() {
            self.socket.still_there()?;
        }
        let polled = each!(&mut self.socket, carrier => Pin::new(carrier).poll_flush(cx));
        self.wrote(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            let verdict = self.progress.verdict();
            let said = self.poll_farewell(cx, verdict);
            let _ = ready!(self.wrote(cx, said))?;
            let polled = each!(&mut self.socket, carrier => Pin::new(carrier).poll_shutdown(cx));
            ready!(self.wrote(cx, polled))?;
            if self.progress.is_upgraded() {
                return Poll::Ready(Ok(()));
            }
            self.closing = Some(if self.progress.close() { Closing::AfterPeer } else { Closing::Now });
        }
        self.poll_peer_end(cx).map(Ok)
    }
}
