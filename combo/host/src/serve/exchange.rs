//! One request of an HTTP/2 connection -> whom it waits for: its app, or its client, to send or to take. The
//! sweep ends one that has waited for its client too long; the others of the connection go on.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use slab::Slab;

use super::{evictions::Eviction, limits::Limits, pace::Pace, sweep::Progress};

/// What the sweep sees of a request.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    /// Somebody waits for more of its body.
    reads: AtomicBool,
    /// What was asked for next has to come from the app.
    app: AtomicBool,
    /// There is more of its answer, and the client takes none.
    writes: AtomicBool,
    /// Both sides may be quiet for as long as they like: it is a call of gRPC, or it is answered already.
    quiet: AtomicBool,
    reading: Pace,
    writing: Pace,
    ended: AtomicBool,
    waker: AtomicWaker,
    /// Who reads the body, which may be somebody else.
    reader: AtomicWaker,
}

/// What moved on a connection since the last sweep, and in how many seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moved {
    pub(crate) seconds: u32,
    /// Of bodies.
    pub(crate) read: u32,
    /// By the peer.
    pub(crate) taken: u32,
    /// Of answers.
    pub(crate) answered: u32,
}

impl Exchange {
    /// Whether somebody waits for more of its body.
    pub(crate) fn body(&self, waits: bool) {
        self.reads.store(waits, Relaxed);
    }

    /// Somebody waits for more of its body. Says whether there will be none.
    pub(crate) fn body_waits(&self, reader: &Waker) -> bool {
        self.body(true);
        self.reader.register(reader);
        self.ended.load(Relaxed)
    }

    /// What it still has to say and to hear, it may say and hear when it likes.
    pub(crate) fn may_be_quiet(&self) {
        self.quiet.store(true, Relaxed);
    }

    /// Its app was asked for more, and has none yet.
    pub(crate) fn app_waits(&self) {
        self.app.store(true, Relaxed);
    }

    /// Ends it if it is overdue. What moves on its connection counts for all that is on it: in what order
    /// answers are sent, we have our say too.
    pub(crate) fn sweep(&self, limits: &Limits, moved: Moved) -> Option<Eviction> {
        let Moved { seconds, read, answered, .. } = moved;
        let reads = self.reads.load(Relaxed) && !self.quiet.load(Relaxed);
        self.reading.goes_on(reads, seconds, read, limits.rate, Duration::ZERO);
        self.writing.goes_on(self.writes.load(Relaxed), seconds, answered, limits.rate, limits.write);
        let overdue = if self.reading.is_over(limits.body, limits.rate) {
            Eviction::Body
        } else if self.writing.is_over(limits.write, limits.rate) {
            Eviction::Write
        } else {
            return None;
        };
        let ended = self.ended.swap(true, Relaxed);
        self.waker.wake();
        self.reader.wake();
        (!ended).then_some(overdue)
    }
}

/// The requests of a connection that wait.
#[derive(Debug, Default)]
pub(crate) struct Exchanges(Mutex<Slab<Arc<Exchange>>>);

impl Exchanges {
    fn all(&self) -> MutexGuard<'_, Slab<Arc<Exchange>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn sweep(&self, limits: &Limits, moved: Moved, mut ended: impl FnMut(Eviction)) {
        for (_, exchange) in &*self.all() {
            exchange.sweep(limits, moved).into_iter().for_each(&mut ended);
        }
    }
}

pin_project_lite::pin_project! {
    /// What the HTTP library does for a request, until that is done or the request ended.
    pub(crate) struct Watched<F> {
        #[pin]
        request: F,
        exchange: Arc<Exchange>,
        listed: Option<Listed>,
        progress: Arc<Progress>,
    }
}

impl<F> Watched<F> {
    pub(crate) fn new(request: F, exchange: Arc<Exchange>, progress: Arc<Progress>) -> Self {
        Self { request, exchange, listed: None, progress }
    }
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let exchange = &**this.exchange;
        exchange.app.store(false, Relaxed);
        if exchange.ended.load(Relaxed) || this.request.poll(cx).is_ready() {
            // Dropped before its end, its stream is reset (RFC 9113, section 5.4.2).
            return Poll::Ready(());
        }
        exchange.writes.store(!exchange.app.load(Relaxed), Relaxed);
        exchange.waker.register(cx.waker());
        if this.listed.is_none()
            && let Some(exchanges) = this.progress.exchanges()
        {
            let key = exchanges.all().insert(this.exchange.clone());
            *this.listed = Some(Listed { key, progress: this.progress.clone() });
        }
        Poll::Pending
    }
}

/// Keeps a request in its connection's list.
struct Listed {
    key: usize,
    progress: Arc<Progress>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        if let Some(exchanges) = self.progress.exchanges() {
            drop(exchanges.all().try_remove(self.key));
        }
    }
}
