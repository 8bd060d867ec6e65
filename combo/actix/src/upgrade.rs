//! Takes a connection that is about to change its protocol and gives the app both its directions.
//!
//! The app's payload reads from the connection itself and the app's body is written to it by one local
//! task, so each direction is only as fast as its reader. If the app answers without an upgrade, the
//! payload ends.
#![expect(clippy::disallowed_methods, reason = "an upgraded connection is written to by a task")]

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    mem::{self, MaybeUninit},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use actix_web::{
    body::{BoxBody, MessageBody as _},
    error::PayloadError,
};
use bytes::Bytes;
use futures_core::Stream;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use crate::service::Busy;

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;

/// Bytes that the app may read before it has to wait, and the task that writes had its turn. Without it an
/// app that reads on until it has to wait, as `actix-web-actors` does before each message, keeps all that a
/// fast peer sends.
const TURN: usize = 64 * 1024;

/// A connection that may yet be opened. Dropped, it ends the payload.
pub(crate) struct Tunnel {
    connection: Rc<RefCell<Connection>>,
    upgrade: Option<OnUpgrade>,
    _busy: Option<Busy>,
}

struct Connection {
    io: Option<TokioIo<Upgraded>>,
    closed: bool,
    /// The app has heard that the other end says no more; it may still listen.
    heard_out: bool,
    /// Who waits for incoming bytes.
    reader: Option<Waker>,
    /// The task that writes.
    writer: Option<Waker>,
    /// What may still be read.
    allowance: usize,
    /// How often the app had to wait for more of it since the last turn.
    refusals: usize,
}

impl Tunnel {
    pub(crate) fn new(upgrade: OnUpgrade, busy: Option<Busy>) -> Self {
        let connection = Connection {
            io: None,
            closed: false,
            heard_out: false,
            reader: None,
            writer: None,
            allowance: TURN,
            refusals: 0,
        };
        Self { connection: Rc::new(RefCell::new(connection)), upgrade: Some(upgrade), _busy: busy }
    }

    pub(crate) fn incoming(&self) -> Incoming {
        Incoming(Rc::clone(&self.connection))
    }

    /// Connects the app's body to the connection, in a task of its own.
    pub(crate) fn open(mut self, body: BoxBody) {
        let _task = tokio::task::spawn_local(async move {
            let Some(upgrade) = self.upgrade.take() else { return };
            // The other end is gone: nobody is left to tell.
            let Ok(io) = upgrade.await else { return };
            self.connection.borrow_mut().join(TokioIo::new(io));
            let _closed: io::Result<()> = self.write(body).await;
        });
    }

    async fn write(&self, body: BoxBody) -> io::Result<()> {
        let mut body = pin!(body);
        loop {
            let next = poll_fn(|cx| {
                self.connection.borrow_mut().turn(cx);
                if let Poll::Ready(next) = body.as_mut().poll_next(cx) {
                    return Poll::Ready(next);
                }
                let mut connection = self.connection.borrow_mut();
                if let Poll::Ready(Err(_)) = connection.poll_flush(cx) {
                    return Poll::Ready(None);
                }
                // Nobody else reads if the app has dropped its payload, and then this is the only way
                // to learn that the other end is gone. If that is no news, only writing can tell.
                if Rc::strong_count(&self.connection) == 1 && !connection.heard_out {
                    while let Poll::Ready(read) = connection.poll_read(cx) {
                        if !matches!(read, Some(Ok(_))) {
                            return Poll::Ready(None);
                        }
                    }
                }
                Poll::Pending
            })
            .await;
            let Some(Ok(mut bytes)) = next else { break };
            while !bytes.is_empty() {
                let written = poll_fn(|cx| {
                    let mut connection = self.connection.borrow_mut();
                    connection.turn(cx);
                    connection.poll_write(cx, &bytes)
                })
                .await?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                let _ = bytes.split_to(written);
            }
        }
        poll_fn(|cx| self.connection.borrow_mut().poll_shutdown(cx)).await
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let mut connection = self.connection.borrow_mut();
        connection.closed = true;
        let io = connection.io.take();
        let reader = connection.reader.take();
        drop(connection);
        drop(io);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl Connection {
    fn join(&mut self, io: TokioIo<Upgraded>) {
        self.io = Some(io);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// The task that writes runs: whoever has read as much as it may can go on. Who asked again and again
    /// still had something to do, and gets more when it has not.
    fn turn(&mut self, cx: &Context<'_>) {
        self.writer = Some(cx.waker().clone());
        match mem::take(&mut self.refusals) {
            0 => return,
            1 => self.allowance = TURN,
            _ => {}
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn io(&mut self) -> io::Result<Pin<&mut TokioIo<Upgraded>>> {
        self.io.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let Some(io) = &mut self.io else {
            return if self.closed { Poll::Ready(None) } else { Poll::Pending };
        };
        // On the stack, so that a connection that waits holds no buffer.
        let mut space = [MaybeUninit::uninit(); CHUNK];
        let mut read = ReadBuf::uninit(&mut space);
        Poll::Ready(match ready!(Pin::new(io).poll_read(cx, &mut read)) {
            Ok(()) if read.filled().is_empty() => None,
            Ok(()) => Some(Ok(Bytes::copy_from_slice(read.filled()))),
            Err(error) => Some(Err(error)),
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.io()?.poll_write(cx, bytes)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_flush(cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_shutdown(cx)
    }
}

/// The app's payload: what arrives after the upgrade.
pub(crate) struct Incoming(Rc<RefCell<Connection>>);

impl Stream for Incoming {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut connection = self.0.borrow_mut();
        if connection.allowance == 0 && connection.io.is_some() {
            connection.refusals += 1;
            connection.reader = Some(cx.waker().clone());
            if let Some(writer) = connection.writer.take() {
                writer.wake();
            }
            return Poll::Pending;
        }
        let next = connection.poll_read(cx);
        match &next {
            Poll::Pending => connection.reader = Some(cx.waker().clone()),
            Poll::Ready(None) => connection.heard_out = true,
            Poll::Ready(Some(Ok(bytes))) => {
                connection.allowance = connection.allowance.saturating_sub(bytes.len());
            }
            Poll::Ready(Some(Err(_))) => {}
        }
        next.map_err(PayloadError::Io)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let writer = self.0.borrow_mut().writer.take();
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}
