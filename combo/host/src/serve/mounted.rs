//! One mount on one worker: what answers for it now, and how that becomes something else while
//! everything around it goes on. Whoever was asked before answers; only later requests see the new.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use combo_core::{BoxError, Draining, Reply, Site};
use http::HeaderValue;
use tokio::sync::{Semaphore, oneshot};

use super::worker::built;
use crate::{
    mount::{
        App, Builder,
        stand_in::{Gate, maintained, paused},
    },
    step::Caller,
};

/// What requests of a mount are told of it.
#[derive(Clone, Default)]
pub(crate) struct Telling {
    pub(crate) site: Arc<Site>,
    /// Whether the app sees only the rest of the path.
    pub(crate) strips: bool,
    /// What `X-Forwarded-Prefix` says: nothing if the app sees the whole path.
    pub(crate) forwarded: Option<HeaderValue>,
    /// What the [`Context`](combo_core::Context) says of the drain, where there is one.
    pub(crate) context: Option<Draining>,
}

/// What is counted of a mount, wherever it runs and whatever is behind it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    panics: AtomicU64,
    own_threads: AtomicUsize,
}

impl Tally {
    #[cold]
    pub(crate) fn panicked(&self) {
        let _ = self.0.panics.fetch_add(1, Relaxed);
    }

    pub(crate) fn panics(&self) -> u64 {
        self.0.panics.load(Relaxed)
    }

    /// A thread of its own begins.
    pub(crate) fn thread_began(&self) {
        let _ = self.0.own_threads.fetch_add(1, Relaxed);
    }

    pub(crate) fn thread_ended(&self) {
        let _ = self.0.own_threads.fetch_sub(1, Relaxed);
    }

    /// Threads of its own that have not ended.
    pub(crate) fn own_threads(&self) -> usize {
        self.0.own_threads.load(Relaxed)
    }
}

/// What answers, and what it is told.
#[derive(Clone)]
pub(crate) struct Standing {
    pub(crate) app: Rc<dyn App>,
    pub(crate) telling: Telling,
}

/// One mount on one worker.
pub(crate) struct Mounted {
    pub(crate) site: Arc<Site>,
    pub(crate) tally: Tally,
    /// Borrowed while an app is asked, so it is changed only by tasks of the worker itself.
    pub(crate) standing: RefCell<Standing>,
    aside: RefCell<Option<Aside>>,
}

/// The mount's own app, while something stands in for it; and where requests wait for that to end.
struct Aside {
    own: Standing,
    gate: Option<Gate>,
}

/// How a mount is to answer from now on.
#[derive(Clone)]
pub(crate) enum Turn {
    Serve,
    /// With a page, or with our own sentence if that is empty.
    Maintain(Bytes),
    /// By waiting, as long as there is room.
    Pause(Arc<Semaphore>),
}

impl Turn {
    pub(crate) fn said(&self) -> &'static str {
        match self {
            Self::Serve => "resumed",
            Self::Maintain(_) => "in maintenance",
            Self::Pause(_) => "paused",
        }
    }
}

impl Mounted {
    pub(crate) fn new(own: Standing, tally: Tally) -> Self {
        let site = own.telling.site.clone();
        Self { site, tally, standing: RefCell::new(own), aside: RefCell::default() }
    }

    pub(crate) fn turn(&self, turn: Turn) {
        let before = self.aside.take();
        let (own, waited) = match before {
            Some(Aside { own, gate }) => (own, gate),
            None => (self.standing.borrow().clone(), None),
        };
        let next = match turn {
            Turn::Serve => own,
            Turn::Maintain(page) => self.stand_in(own, maintained(page), None),
            Turn::Pause(room) => {
                let (app, gate) = paused(room);
                self.stand_in(own, app, Some(gate))
            }
        };
        drop(self.standing.replace(next.clone()));
        if let Some(gate) = waited {
            gate.open(next);
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.aside.borrow().as_ref().is_some_and(|aside| aside.gate.is_some())
    }

    fn stand_in(&self, own: Standing, app: Rc<dyn App>, gate: Option<Gate>) -> Standing {
        drop(self.aside.replace(Some(Aside { own, gate })));
        // It keeps what a request came with, so that it can be told of whatever answers it at last.
        let strips = !self.site.prefix.is_empty();
        let telling = Telling { site: self.site.clone(), strips, forwarded: None, context: None };
        Standing { app, telling }
    }

    /// The combo stops: a gate that is gone will not be opened, so whoever waits at it, or comes to it now,
    /// is refused.
    pub(crate) fn stop(&self) {
        let gate = self.aside.borrow_mut().as_mut().and_then(|aside| aside.gate.take());
        drop(gate);
    }

    /// Another app of the mount's own; gives the one before.
    fn replace(&self, own: Standing) -> Standing {
        match &mut *self.aside.borrow_mut() {
            Some(aside) => std::mem::replace(&mut aside.own, own),
            None => self.standing.replace(own),
        }
    }
}

/// Another app for a mount on one worker, in two steps: it is built, and if it is on every worker, it is
/// put in place.
pub(crate) struct Replacement {
    pub(crate) builder: Builder,
    pub(crate) telling: Telling,
    pub(crate) ready: oneshot::Sender<Result<(), BoxError>>,
    /// Dropped if it is not to be put in place.
    pub(crate) go: oneshot::Receiver<()>,
    pub(crate) done: oneshot::Sender<()>,
}

impl Replacement {
    pub(crate) async fn perform(self, mounted: &Mounted) {
        let Self { builder, telling, ready, go, done } = self;
        let app = match built(builder).await {
            Ok(app) => app,
            Err(cause) => return drop(ready.send(Err(cause))),
        };
        if ready.send(Ok(())).is_ok() && go.await.is_ok() {
            let before = mounted.replace(Standing { app, telling });
            // Whatever the end of the old app may take, the new one answers.
            let _ = done.send(());
            drop(before);
        } else {
            drop(app);
            drop(done);
        }
    }
}

/// Answers a command once every worker has let go of it.
pub(crate) struct Told(Option<Caller>);

impl Told {
    pub(crate) fn new(caller: Caller) -> Arc<Self> {
        Arc::new(Self(Some(caller)))
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if let Some(caller) = self.0.take() {
            caller.hear(Reply::Done);
        }
    }
}
