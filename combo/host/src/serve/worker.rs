//! One thread with everything that requests need: a runtime, an instance of every mount, its share
//! of the connections. No request ever leaves its worker.
//!
//! Other threads see a worker through its [`Desk`]: they can hand it connections, ask it to drain,
//! and read what it is at.
#![expect(
    clippy::disallowed_methods,
    reason = "this is where connections are spawned and the coarse clock is set"
)]

use std::{
    cell::Cell,
    future::Future,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use combo_core::{BoxError, Context, Peer, Site};
use futures_util::FutureExt;
use http::{HeaderValue, uri::Scheme};
use slab::Slab;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, MissedTickBehavior},
};

use super::{
    limits::Limits,
    route::Routes,
    sweep::{Coarse, Phase, Progress, Verdict},
};
use crate::mount::{App, Builder};

/// How often overdue connections are looked for.
const SWEEP: Duration = Duration::from_secs(1);

#[cfg(feature = "tls")]
pub(crate) type Tls = tokio_rustls::TlsAcceptor;

/// Without the feature there is no such endpoint.
#[cfg(not(feature = "tls"))]
#[derive(Clone, Debug)]
pub(crate) enum Tls {}

/// A socket that no runtime knows yet, so that the worker that serves it can register it.
pub(crate) enum Raw {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
    #[cfg(feature = "testing")]
    Memory(tokio::io::DuplexStream),
}

/// A connection on its way to a worker.
pub(crate) struct Accepted {
    pub(crate) socket: Raw,
    pub(crate) peer: Peer,
    pub(crate) scheme: Scheme,
    pub(crate) tls: Option<Tls>,
}

/// What a worker is told.
pub(crate) enum Message {
    Serve(Accepted, Counted),
    /// End idle connections, finish what is in flight, say when nothing is left.
    Drain,
    /// End everything now.
    Cut,
}

/// A request in flight, as other threads may see it.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    pub(crate) context: Context,
    /// On the worker's coarse clock.
    pub(crate) since: u32,
}

/// One mount on one worker.
pub(crate) struct Mounted {
    pub(crate) app: Rc<dyn App>,
    pub(crate) site: Arc<Site>,
    /// What `X-Forwarded-Prefix` says: nothing if the app sees the whole path.
    pub(crate) forwarded: Option<HeaderValue>,
}

/// What other threads see of a worker.
#[derive(Debug)]
pub(crate) struct Shared {
    open: AtomicUsize,
    connections: Mutex<Slab<Arc<Progress>>>,
    requests: Mutex<Slab<InFlight>>,
    /// Moves whenever the worker does something; see the stall watch.
    sequence: AtomicU64,
    parked: AtomicBool,
    stalled: AtomicBool,
    /// The key of the request whose app is running now, plus one.
    running: AtomicUsize,
    closed: Notify,
    pub(crate) clock: Coarse,
}

impl Shared {
    fn new() -> Self {
        Self {
            open: AtomicUsize::new(0),
            connections: Mutex::default(),
            requests: Mutex::default(),
            sequence: AtomicU64::new(0),
            parked: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            running: AtomicUsize::new(0),
            closed: Notify::new(),
            clock: Coarse::new(),
        }
    }

    fn connections(&self) -> MutexGuard<'_, Slab<Arc<Progress>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn requests(&self) -> MutexGuard<'_, Slab<InFlight>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An app begins to run on behalf of a request.
    pub(crate) fn enter(&self, key: Option<usize>) {
        self.running.store(key.map_or(0, |key| key + 1), Relaxed);
        self.moved();
    }

    /// It has returned.
    pub(crate) fn leave(&self) {
        self.running.store(0, Relaxed);
    }

    /// The worker does something; see the stall watch.
    pub(crate) fn moved(&self) {
        self.sequence.store(self.sequence.load(Relaxed) + 1, Relaxed);
    }

    pub(crate) fn park(&self) {
        self.parked.store(true, Relaxed);
    }

    pub(crate) fn unpark(&self) {
        self.moved();
        self.parked.store(false, Relaxed);
    }

    fn judge(&self, verdict: Verdict) {
        for (_, progress) in &*self.connections() {
            progress.judge(verdict);
        }
    }

    pub(crate) fn register(self: &Arc<Self>, progress: Arc<Progress>, counted: Counted) -> Registered {
        let key = self.connections().insert(progress);
        Registered { key, counted }
    }
}

/// A worker as the rest of the process knows it.
#[derive(Clone)]
pub(crate) struct Desk {
    shared: Arc<Shared>,
    messages: mpsc::UnboundedSender<Message>,
}

impl Desk {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Message>) {
        let (messages, inbox) = mpsc::unbounded_channel();
        (Self { shared: Arc::new(Shared::new()), messages }, inbox)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Open connections, those on their way included.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Relaxed)
    }

    pub(crate) fn stalled(&self) -> bool {
        self.shared.stalled.load(Relaxed)
    }

    /// Gives the connection back if the worker is gone.
    pub(crate) fn take(&self, accepted: Accepted) -> Result<(), Accepted> {
        let _ = self.shared.open.fetch_add(1, Relaxed);
        let counted = Counted(self.shared.clone());
        self.messages.send(Message::Serve(accepted, counted)).map_err(|refused| match refused.0 {
            Message::Serve(accepted, _) => accepted,
            Message::Drain | Message::Cut => unreachable!("only this message was sent"),
        })
    }

    pub(crate) fn tell(&self, message: Message) {
        // A worker that is gone has nothing left to end.
        let _ = self.messages.send(message);
    }

    /// What is in flight, oldest first, with its age in seconds.
    pub(crate) fn in_flight(&self) -> Vec<(InFlight, u32)> {
        let now = self.shared.clock.now();
        let mut requests: Vec<_> =
            self.shared.requests().iter().map(|(_, r)| (r.clone(), now.saturating_sub(r.since))).collect();
        requests.sort_by_key(|(_, age)| std::cmp::Reverse(*age));
        requests
    }

    /// Connections that are something else than HTTP now.
    pub(crate) fn upgraded(&self) -> usize {
        self.shared.connections().iter().filter(|(_, progress)| progress.phase() == Phase::Upgraded).count()
    }

    /// Where the worker is at: a number that moves while it does, or `None` while it sleeps.
    pub(crate) fn pulse(&self) -> Option<u64> {
        (!self.shared.parked.load(Relaxed)).then(|| self.shared.sequence.load(Relaxed))
    }

    /// Notes whether it is stuck; says whose app it is in.
    pub(crate) fn stall(&self, stalled: bool) -> Option<InFlight> {
        self.shared.stalled.store(stalled, Relaxed);
        let key = self.shared.running.load(Relaxed).checked_sub(1)?;
        self.shared.requests().get(key).cloned()
    }
}

/// Counts a connection as open from the moment it is handed over.
pub(crate) struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        let _ = self.0.open.fetch_sub(1, Relaxed);
        self.0.closed.notify_one();
    }
}

/// Keeps a connection in its worker's list.
pub(crate) struct Registered {
    key: usize,
    counted: Counted,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let _ = self.counted.0.connections().remove(self.key);
    }
}

/// What a worker is made from. Sent to its thread.
pub(crate) struct Assignment {
    pub(crate) builders: Vec<Builder>,
    pub(crate) sites: Vec<(Arc<Site>, Option<HeaderValue>)>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) access_log: bool,
}

/// A worker, as its own connections see it.
pub(crate) struct Worker {
    pub(crate) mounts: Vec<Mounted>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) access_log: bool,
    pub(crate) shared: Arc<Shared>,
    pub(crate) draining: Cell<bool>,
    started: Instant,
}

/// Which mount could not be built, and why.
pub(crate) type Unbuilt = (usize, BoxError);

/// Runs on the worker's own thread, inside its runtime, until everything is drained and `release`
/// fires. Says through `ready` whether it could build its apps, and through `empty` when a drain is done.
pub(crate) async fn run(
    assignment: Assignment,
    desk: Desk,
    mut inbox: mpsc::UnboundedReceiver<Message>,
    ready: oneshot::Sender<Result<(), Unbuilt>>,
    empty: impl Fn(),
    release: impl Future<Output = ()>,
) {
    let mut release = std::pin::pin!(release);
    let shared = desk.shared.clone();
    drop(desk);
    let worker = match Worker::build(assignment, shared).await {
        Ok(worker) => Rc::new(worker),
        Err(unbuilt) => {
            let _ = ready.send(Err(unbuilt));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    let shared = &worker.shared;
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    loop {
        tokio::select! {
            message = inbox.recv() => match message {
                Some(Message::Serve(accepted, counted)) => {
                    worker.tell_time();
                    drop(tokio::task::spawn_local(super::http::connection(worker.clone(), accepted, counted)));
                }
                Some(Message::Drain) => {
                    worker.draining.set(true);
                    shared.judge(Verdict::Finish);
                }
                Some(Message::Cut) => shared.judge(Verdict::Cut),
                None => break,
            },
            _ = sweep.tick(), if shared.open.load(Relaxed) > 0 => worker.sweep(),
            () = shared.closed.notified(), if worker.draining.get() => {}
            () = &mut release => break,
        }
        if worker.draining.get() && !told && shared.open.load(Relaxed) == 0 {
            told = true;
            empty();
        }
    }
}

impl Worker {
    async fn build(assignment: Assignment, shared: Arc<Shared>) -> Result<Self, Unbuilt> {
        let Assignment { builders, sites, routes, limits, access_log } = assignment;
        let mut mounts = Vec::with_capacity(builders.len());
        for (mount, (builder, (site, forwarded))) in builders.into_iter().zip(sites).enumerate() {
            let built = AssertUnwindSafe(async { builder().await }).catch_unwind().await;
            let app =
                built.unwrap_or_else(|panic| Err(said(&*panic).into())).map_err(|cause| (mount, cause))?;
            mounts.push(Mounted { app, site, forwarded });
        }
        let (draining, started) = (Cell::new(false), Instant::now());
        Ok(Self { mounts, routes, limits, access_log, shared, draining, started })
    }

    fn tell_time(&self) {
        self.shared.clock.set(self.started.elapsed());
    }

    fn sweep(&self) {
        self.tell_time();
        for (_, progress) in &*self.shared.connections() {
            if let Some(overdue) = progress.sweep(&self.limits, self.draining.get()) {
                tracing::debug!("ended a connection whose peer {overdue}");
            }
        }
    }
}

/// What a panic said.
pub(crate) fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without a word"))
}
