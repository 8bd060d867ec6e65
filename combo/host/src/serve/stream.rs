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
        if self.progress.phase() == Phase::Upgraded {
            wake(&self.progress, cx.waker());
        }
    }

    fn wrote<T>(&self, cx: &Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.progress.write(polled.is_pending());
        if polled.is_pending() {
            self.wait(cx, Progress::wake_writer);
        }
        polled
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
        let before = buf.filled().len();
        let polled = each!(&mut self.socket, carrier => Pin::new(carrier).poll_read(cx, buf));
        match &polled {
            Poll::Pending => self.wait(cx, Progress::wake),
            Poll::Ready(_) => {
                let read = &buf.filled()[before..];
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
        let polled = each!(&mut self.socket, carrier => Pin::new(carrier).poll_write(cx, bytes));
        self.wrote(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.cut()?;
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
            let polled = each!(&mut self.socket, carrier => Pin::new(carrier).poll_shutdown(cx));
            ready!(self.wrote(cx, polled))?;
            if self.progress.phase() == Phase::Upgraded {
                return Poll::Ready(Ok(()));
            }
            self.closing = Some(if self.progress.close() { Closing::AfterPeer } else { Closing::Now });
        }
        self.poll_peer_end(cx).map(Ok)
    }
}
