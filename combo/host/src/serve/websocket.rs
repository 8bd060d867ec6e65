//! What an app says in a websocket -> the same to its peer, and a close of our own when it is time for it.
//!
//! Two have it: who owns the connection, and the sweep of its worker, which closes it where the app neither
//! reads nor writes. Neither waits for the peer while the other is kept out.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    task::{Context, Poll, Waker, ready},
};

use futures_util::FutureExt;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::unconstrained,
};

use super::{
    frames::Frames,
    stream::Socket,
    sweep::{Progress, Verdict},
    worker::Registered,
};

/// A connection that is one.
#[derive(Default)]
pub(crate) struct Websocket(Mutex<Option<Open>>);

/// Until it was ended.
struct Open {
    socket: Socket,
    frames: Frames,
    farewell: Farewell,
    _registered: Registered,
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

impl Websocket {
    /// Before anything was said.
    pub(crate) fn begin(&self, socket: Socket, registered: Registered) {
        let (frames, farewell) = (Frames::new(), Farewell::Unsaid);
        *self.open() = Some(Open { socket, frames, farewell, _registered: registered });
    }

    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, then: impl FnOnce(&mut Open) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let ended = || Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        self.open().as_mut().map_or_else(ended, then)
    }

    /// Whether it is time for a close of our own.
    pub(crate) fn parts(&self, verdict: Verdict) -> bool {
        self.open().as_ref().is_some_and(|open| open.parts(verdict))
    }

    /// An error if the peer has reset it.
    pub(crate) fn still_there(&self) -> io::Result<()> {
        self.open().as_ref().map_or(Ok(()), |open| open.socket.still_there())
    }

    /// How much of what was said the peer has not taken.
    pub(crate) fn queued(&self) -> u32 {
        self.open().as_ref().map_or(0, |open| open.socket.queued())
    }

    /// Says a close of our own if it is time for it, or the rest of it.
    pub(crate) fn poll_farewell(&self, cx: &mut Context<'_>, progress: &Progress) -> Poll<io::Result<()>> {
        self.with(|open| open.poll_farewell(cx, progress).map_ok(drop))
    }

    /// What the app says.
    pub(crate) fn poll_tell(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        progress: &Progress,
    ) -> Poll<io::Result<usize>> {
        self.with(|open| open.poll_tell(cx, bytes, progress))
    }

    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|open| Pin::new(&mut open.socket).poll_read(cx, buf))
    }

    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|open| Pin::new(&mut open.socket).poll_flush(cx))
    }

    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|open| Pin::new(&mut open.socket).poll_shutdown(cx))
    }

    /// Goes on with its end on behalf of an app that does not. Does nothing while its owner is at it, who
    /// is woken by every verdict.
    pub(crate) fn go_on(&self, progress: &Arc<Progress>) {
        let mut open = match self.0.try_lock() {
            Ok(open) => open,
            Err(TryLockError::Poisoned(open)) => open.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let Some(known) = open.as_mut() else { return };
        if progress.verdict() != Verdict::Cut && known.goes_on(progress) {
            return;
        }
        let ended = open.take();
        drop(open);
        progress.judge(Verdict::Cut);
        if let Some(ended) = ended {
            ended.end(progress);
        }
    }
}

impl Open {
    fn parts(&self, verdict: Verdict) -> bool {
        verdict == Verdict::Part && self.farewell == Farewell::Unsaid && self.frames.rests()
    }

    /// Gives how much the app may say that nobody hears, once there was a close.
    fn poll_farewell(
        &mut self,
        cx: &mut Context<'_>,
        progress: &Progress,
    ) -> Poll<io::Result<Option<usize>>> {
        if self.parts(progress.verdict()) {
            self.farewell = Farewell::Begun(0);
        }
        loop {
            let sent = match self.farewell {
                Farewell::Unsaid => return Poll::Ready(Ok(None)),
                Farewell::Said(left) => return Poll::Ready(Ok(Some(left))),
                Farewell::Begun(sent) => sent,
            };
            let rest = &GOING_AWAY[sent..];
            let socket = Pin::new(&mut self.socket);
            if rest.is_empty() {
                let polled = socket.poll_flush(cx);
                self.socket.note(progress, &polled);
                ready!(polled)?;
                self.farewell = Farewell::Said(UNHEARD);
                progress.parts();
                progress.let_write();
            } else {
                let polled = socket.poll_write(cx, rest);
                self.socket.note(progress, &polled);
                match ready!(polled)? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    more => self.farewell = Farewell::Begun(sent + more),
                }
            }
        }
    }

    /// The frames are followed, and after a close of our own nothing is heard.
    fn poll_tell(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        progress: &Progress,
    ) -> Poll<io::Result<usize>> {
        match ready!(self.poll_farewell(cx, progress))? {
            None => {}
            Some(left) if left > 0 || bytes.is_empty() => {
                let taken = left.min(bytes.len());
                self.farewell = Farewell::Said(left - taken);
                return Poll::Ready(Ok(taken));
            }
            Some(_) => return Poll::Pending,
        }
        let ends = progress.verdict() == Verdict::Part;
        let bytes = if ends { &bytes[..self.frames.until_rest(bytes)] } else { bytes };
        let polled = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.socket.note(progress, &polled);
        let written = ready!(polled)?;
        progress.wrote(written);
        self.frames.feed(&bytes[..written]);
        if self.frames.closed() {
            progress.parts();
        }
        // Whoever writes or flushes next goes on with it, or the sweep.
        if let Poll::Ready(said) = self.poll_farewell(cx, progress) {
            let _ = said?;
        }
        Poll::Ready(Ok(written))
    }

    /// Says what there is to say. Not if nothing can be said any more: the peer is gone, or where a message
    /// ends is not known.
    fn goes_on(&mut self, progress: &Arc<Progress>) -> bool {
        // Who waits to write may have been forgotten for this.
        let waker = Waker::from(progress.clone());
        let farewell = unconstrained(poll_fn(|cx| self.poll_farewell(cx, progress)));
        let said = pin!(farewell).poll_unpin(&mut Context::from_waker(&waker));
        !matches!(said, Poll::Ready(Err(_))) && self.frames.are_followed()
    }

    /// Ends the connection. What the peer has said until now is read, as what is left unread might
    /// overtake the close.
    fn end(mut self, progress: &Arc<Progress>) {
        let waker = Waker::from(progress.clone());
        let ended = unconstrained(poll_fn(|cx| {
            let _ = Pin::new(&mut self.socket).poll_shutdown(cx);
            for _ in 0..UNHEARD / 4_096 {
                let mut unread = [0; 4_096];
                let mut buf = ReadBuf::new(&mut unread);
                let read = Pin::new(&mut self.socket).poll_read(cx, &mut buf);
                if !matches!(read, Poll::Ready(Ok(()))) || buf.filled().is_empty() {
                    break;
                }
            }
            Poll::Ready(())
        }));
        let _ = pin!(ended).poll_unpin(&mut Context::from_waker(&waker));
        if progress.owes() {
            self.socket.reset();
        }
    }
}
