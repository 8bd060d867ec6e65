//! A socket under TLS, whose bytes count as they come: of what is in a record nothing is seen before it is whole, and a
//! slow client takes its time for one.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::sweep::Progress;

/// Beneath TLS.
pub(crate) struct Sealed {
    pub(super) socket: Carrier,
    pub(super) progress: Arc<Progress>,
}

/// What carries it.
pub(crate) enum Carrier {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The same call, whatever it is.
macro_rules! carried {
    ($carrier:expr, $socket:ident => $call:expr) => {
        match $carrier {
            Carrier::Tcp($socket) => $call,
            Carrier::Unix($socket) => $call,
        }
    };
}

impl Carrier {
    pub(super) fn take_error(&self) -> io::Result<Option<io::Error>> {
        carried!(self, socket => socket.take_error())
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        carried!(self, socket => socket.poll_read_ready(cx))
    }
}

impl AsFd for Carrier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        carried!(self, socket => socket.as_fd())
    }
}

impl AsyncRead for Sealed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = carried!(&mut self.socket, socket => Pin::new(socket).poll_read(cx, buf));
        self.progress.reads_sealed(buf.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Sealed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        carried!(&mut self.socket, socket => Pin::new(socket).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        carried!(&mut self.socket, socket => Pin::new(socket).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        carried!(&self.socket, socket => socket.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        carried!(&mut self.socket, socket => Pin::new(socket).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        carried!(&mut self.socket, socket => Pin::new(socket).poll_shutdown(cx))
    }
}
