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
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use combo_core::{BoxError, Peer};
use futures_util::FutureExt;
use http::{HeaderValue, uri::Scheme};
use slab::Slab;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, MissedTickBehavior},
};

use super::{
    gate::{Gate, Pass, Shaking},
    mounted::{Mounted, Replacement, Standing, Tally, Telling, Told, Turn},
    proxies::Proxies,
    recent::Recent,
    redirecting::Redirecting,
    route::Routes,
    sweep::{Coarse, Progress, Verdict},
};
use crate::mount::{App, Builder, layer::Wrapper};

/// How often overdue connections are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// Once in so many sweeps a connection that may be quiet is looked at, whether its peer is there.
const PROBE: u32 = 8;

/// More connections than this on one worker are a crowd.
const CROWD: usize = 256;

#[cfg(feature = "tls")]
pub(crate) use super::tls::Tls;

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
    /// It begins with what a proxy says of it.
    pub(crate) proxied: bool,
    /// Its requests are led to https.
    pub(crate) redirecting: Option<Arc<Redirecting>>,
    /// Over TLS, until it has shaken hands.
    pub(crate) shaking: Option<Shaking>,
}

/// What a worker is told.
pub(crate) enum Message {
    Serve(Accepted, Counted),
    /// End idle connections, finish what is in flight, say when nothing is left.
    Drain,
    /// End everything now.
    Cut,
    /// Have a mount answer in another way.
    Turn(usize, Turn, Arc<Told>),
    /// Put another app behind a mount.
    Replace(usize, Replacement),
}

/// A request in flight, or what it has become, as other threads may see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlight {
    /// The index of the mount.
    pub(crate) mount: usize,
    pub(crate) kind: Kind,
    text: Text,
    /// On the worker's coarse clock.
    since: u32,
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its answer.
    Request,
    /// What came of it.
    Websocket,
    /// The same, of any other protocol.
    Tunnel,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "request",
            Self::Websocket => "websocket",
            Self::Tunnel => "tunnel",
        })
    }
}

impl InFlight {
    /// Method and path, as far as they are kept.
    pub(crate) fn said(&self) -> String {
        let bytes: Vec<u8> =
            self.text.iter().flat_map(|word| word.to_le_bytes()).take_while(|b| *b > 0).collect();
        let (method, path) = bytes.split_at(bytes.len().min(8));
        format!("{} {}", String::from_utf8_lossy(method.trim_ascii_end()), String::from_utf8_lossy(path))
    }
}

/// Method and path in words, so that they can be written down and read without a lock.
type Text = [u64; WORDS];

/// Of a path the first 72 bytes are kept, after eight for the method.
const WORDS: usize = 10;

fn text(method: &str, path: &str) -> Text {
    let mut text = [0; WORDS];
    let word = |bytes: &[u8], filler: u8| {
        let mut word = [filler; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let method = method.as_bytes();
    text[0] = word(&method[..method.len().min(7)], b' ');
    let (whole, last) = path.as_bytes().as_chunks::<8>();
    for (to, from) in text[1..].iter_mut().zip(whole) {
        *to = u64::from_le_bytes(*from);
    }
    if let Some(to) = text[1..].get_mut(whole.len()) {
        *to = word(last, 0);
    }
    text
}

/// What stands before all mounts of a worker: the layers around the whole deployment, and routing
/// within them.
pub(crate) struct Front {
    pub(crate) app: Rc<dyn App>,
    /// Of no mount.
    pub(crate) telling: Telling,
}

/// A connection and whose it is.
pub(crate) type Connected = (Arc<Progress>, Peer);

const NOBODY: usize = 0;
const ON_SLATE: usize = 1;
const KEYS: usize = 2;

/// What other threads see of a worker.
#[derive(Debug)]
pub(crate) struct Shared {
    open: AtomicUsize,
    connections: Mutex<Slab<Connected>>,
    requests: Mutex<Slab<InFlight>>,
    /// What requests have become that are answered and go on.
    upgraded: Mutex<Slab<InFlight>>,
    /// Moves whenever the worker does something; see the stall watch.
    sequence: AtomicU64,
    parked: AtomicBool,
    stalled: AtomicBool,
    /// Whose app is running now: nobody's, the one on the slate, or the key of a request plus two.
    running: AtomicUsize,
    /// The index of a mount, then method and path: the request that came last.
    slate: (AtomicUsize, [AtomicU64; WORDS]),
    closed: Notify,
    started: Instant,
    pub(crate) clock: Coarse,
}

impl Shared {
    fn new() -> Self {
        Self {
            open: AtomicUsize::new(0),
            connections: Mutex::default(),
            requests: Mutex::default(),
            upgraded: Mutex::default(),
            sequence: AtomicU64::new(0),
            parked: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            running: AtomicUsize::new(NOBODY),
            slate: Default::default(),
            closed: Notify::new(),
            started: Instant::now(),
            clock: Coarse::new(),
        }
    }

    fn connections(&self) -> MutexGuard<'_, Slab<Connected>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn requests(&self) -> MutexGuard<'_, Slab<InFlight>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn upgraded(&self) -> MutexGuard<'_, Slab<InFlight>> {
        self.upgraded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request is answered and goes on as something else, under this key.
    pub(crate) fn upgrade(&self, request: InFlight, kind: Kind) -> usize {
        self.upgraded().insert(InFlight { kind, ..request })
    }

    /// It is over.
    pub(crate) fn end_upgrade(&self, key: usize) {
        let _ = self.upgraded().try_remove(key);
    }

    /// A request comes, and with it its app begins to run. It is written down without a lock and
    /// without an allocation, since most requests are answered at once.
    pub(crate) fn come(&self, mount: usize, method: &str, path: &str) {
        self.slate.0.store(mount, Relaxed);
        for (to, word) in self.slate.1.iter().zip(text(method, path)) {
            to.store(word, Relaxed);
        }
        self.running.store(ON_SLATE, Relaxed);
        self.moved();
    }

    /// The request that came last is not answered at once: it gets a place of its own.
    pub(crate) fn stay(&self) -> usize {
        let request = self.on_slate();
        self.requests().insert(request)
    }

    fn on_slate(&self) -> InFlight {
        let text = std::array::from_fn(|word| self.slate.1[word].load(Relaxed));
        InFlight { mount: self.slate.0.load(Relaxed), kind: Kind::Request, text, since: self.clock.now() }
    }

    /// It is known only now which mount the request that runs is for.
    pub(crate) fn route(&self, mount: usize, method: &str, path: &str) {
        match self.running.load(Relaxed).checked_sub(KEYS) {
            Some(key) => self.requests().get_mut(key).into_iter().for_each(|request| request.mount = mount),
            None => self.come(mount, method, path),
        }
    }

    /// An app begins to run on behalf of the request that came last, or of one that stayed.
    pub(crate) fn enter(&self, key: Option<usize>) {
        self.running.store(key.map_or(ON_SLATE, |key| key + KEYS), Relaxed);
        self.moved();
    }

    /// It has returned.
    pub(crate) fn leave(&self) {
        self.running.store(NOBODY, Relaxed);
    }

    /// The request whose app has not returned since it was first called.
    fn held(&self) -> Option<InFlight> {
        (self.running.load(Relaxed) == ON_SLATE).then(|| self.on_slate())
    }

    fn running(&self) -> Option<InFlight> {
        match self.running.load(Relaxed) {
            NOBODY => None,
            ON_SLATE => Some(self.on_slate()),
            key => self.requests().get(key - KEYS).copied(),
        }
    }

    /// The request that came last, or one that stayed.
    pub(crate) fn request(&self, key: Option<usize>) -> Option<InFlight> {
        key.map_or_else(|| Some(self.on_slate()), |key| self.requests().get(key).copied())
    }

    /// So many connections that memory counts more than the instructions that it takes to let it go.
    pub(crate) fn is_crowded(&self) -> bool {
        self.open.load(Relaxed) > CROWD
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

    /// All connections, without their lock: what a verdict has as its consequence may end another one.
    fn registered(&self) -> Vec<Connected> {
        self.connections().iter().map(|(_, connected)| connected.clone()).collect()
    }

    fn judge(&self, verdict: Verdict) {
        self.registered().iter().for_each(|(progress, _)| progress.judge(verdict));
    }

    /// Goes on with the end of websockets that are to end, whatever their apps do.
    fn part(&self) {
        // What is let go of is taken off the list, so the list is not held meanwhile.
        let parting: Vec<_> = self
            .connections()
            .iter()
            .filter(|(_, (progress, _))| progress.is_parting())
            .map(|(_, (progress, _))| progress.clone())
            .collect();
        parting.iter().for_each(Progress::part);
    }

    pub(crate) fn register(
        self: &Arc<Self>,
        progress: Arc<Progress>,
        peer: Peer,
        counted: Counted,
    ) -> Registered {
        let key = self.connections().insert((progress, peer));
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
    pub(crate) fn take(&self, accepted: Accepted, pass: Pass) -> Result<(), Box<(Accepted, Pass)>> {
        let _ = self.shared.open.fetch_add(1, Relaxed);
        let counted = Counted { shared: self.shared.clone(), pass };
        self.messages.send(Message::Serve(accepted, counted)).map_err(|refused| match refused.0 {
            Message::Serve(accepted, mut counted) => Box::new((accepted, std::mem::take(&mut counted.pass))),
            _ => unreachable!("only this message was sent"),
        })
    }

    pub(crate) fn tell(&self, message: Message) {
        // A worker that is gone has nothing left to end.
        let _ = self.messages.send(message);
    }

    /// What is in flight, oldest first, with its age in seconds: also what an app has not let go of
    /// since it came. The worker may be held by it, so its own clock is not asked.
    pub(crate) fn in_flight(&self) -> Vec<(InFlight, u32)> {
        let held = self.shared.held();
        let stayed: Vec<_> = self.shared.requests().iter().map(|(_, request)| *request).collect();
        self.by_age(held.into_iter().chain(stayed))
    }

    /// The same of connections, and streams of HTTP/2, that are something else than HTTP now.
    pub(crate) fn upgraded(&self) -> Vec<(InFlight, u32)> {
        let upgraded: Vec<_> = self.shared.upgraded().iter().map(|(_, request)| *request).collect();
        self.by_age(upgraded.into_iter())
    }

    fn by_age(&self, all: impl Iterator<Item = InFlight>) -> Vec<(InFlight, u32)> {
        let now = Coarse::new();
        now.set(self.shared.started.elapsed());
        let mut all: Vec<_> = all.map(|one| (one, now.now().saturating_sub(one.since))).collect();
        all.sort_by_key(|(_, age)| std::cmp::Reverse(*age));
        all
    }

    /// Where the worker is at: a number that moves while it does, or `None` while it sleeps.
    pub(crate) fn pulse(&self) -> Option<u64> {
        (!self.shared.parked.load(Relaxed)).then(|| self.shared.sequence.load(Relaxed))
    }

    /// Notes whether it is stuck; says whose app it is in.
    pub(crate) fn stall(&self, stalled: bool) -> Option<InFlight> {
        self.shared.stalled.store(stalled, Relaxed);
        self.shared.running()
    }
}

/// Counts a connection as open from the moment it is handed over.
pub(crate) struct Counted {
    shared: Arc<Shared>,
    pass: Pass,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let _ = self.shared.open.fetch_sub(1, Relaxed);
        self.shared.closed.notify_one();
    }
}

/// Keeps a connection in its worker's list.
pub(crate) struct Registered {
    key: usize,
    counted: Counted,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let shared = &self.counted.shared;
        let (progress, _) = shared.connections().remove(self.key);
        if let Some(key) = progress.named() {
            shared.end_upgrade(key);
        }
        // An app may still have a request's body, and with it the progress.
        progress.lets_go();
    }
}

/// What a worker is made from. Sent to its thread.
pub(crate) struct Assignment {
    pub(crate) proxies: Arc<Proxies>,
    /// Layers around all mounts, the innermost first.
    pub(crate) layers: Vec<Wrapper>,
    pub(crate) builders: Vec<Builder>,
    pub(crate) tellings: Vec<Telling>,
    pub(crate) tallies: Vec<Tally>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) access_log: bool,
    pub(crate) hsts: Option<HeaderValue>,
}

/// A worker, as its own connections see it.
pub(crate) struct Worker {
    pub(crate) mounts: Rc<[Mounted]>,
    pub(crate) front: Option<Front>,
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) recent: Recent,
    pub(crate) gate: Arc<Gate>,
    pub(crate) access_log: bool,
    /// What every answer over https says of the future (RFC 6797).
    pub(crate) hsts: Option<HeaderValue>,
    pub(crate) shared: Arc<Shared>,
    /// Since when.
    pub(crate) draining: Cell<Option<Instant>>,
    /// When that was, also by the coarse clock.
    swept: Cell<(Instant, u32)>,
    sweeps: Cell<u32>,
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
                    worker.draining.set(Some(Instant::now()));
                    worker.mounts.iter().for_each(Mounted::stop);
                    shared.judge(Verdict::Finish);
                    // The next sweep finds that the grace of websockets is over.
                    sweep.reset();
                }
                Some(Message::Cut) => {
                    shared.judge(Verdict::Cut);
                    shared.part();
                }
                Some(Message::Turn(mount, turn, told)) => {
                    worker.mounts[mount].turn(turn);
                    drop(told);
                }
                Some(Message::Replace(mount, replacement)) => {
                    let mounts = worker.mounts.clone();
                    let replaced = async move { replacement.perform(&mounts[mount]).await };
                    drop(tokio::task::spawn_local(replaced));
                }
                None => break,
            },
            _ = sweep.tick(), if shared.open.load(Relaxed) > 0 => worker.sweep(),
            () = shared.closed.notified(), if worker.draining.get().is_some() => {}
            () = &mut release => break,
        }
        if worker.draining.get().is_some() && !told && shared.open.load(Relaxed) == 0 {
            told = true;
            empty();
        }
    }
}

impl Worker {
    async fn build(assignment: Assignment, shared: Arc<Shared>) -> Result<Self, Unbuilt> {
        let Assignment { proxies, layers, builders, tellings, tallies, routes, gate, access_log, hsts } =
            assignment;
        let mut mounts = Vec::with_capacity(builders.len());
        for (mount, (builder, (telling, tally))) in
            builders.into_iter().zip(tellings.into_iter().zip(tallies)).enumerate()
        {
            let app = built(builder).await.map_err(|cause| (mount, cause))?;
            mounts.push(Mounted::new(Standing { app, telling }, tally));
        }
        let mounts: Rc<[Mounted]> = mounts.into();
        let front = (!layers.is_empty()).then(|| {
            let routing = super::front::routing(mounts.clone(), routes.clone(), shared.clone());
            let app = layers.into_iter().fold(routing, |app, wrap| wrap(app));
            Front { app, telling: Telling::default() }
        });
        let (draining, swept) = (Cell::new(None), Cell::new((Instant::now(), 0)));
        let recent = Recent::default();
        Ok(Self {
            mounts,
            front,
            proxies,
            routes,
            recent,
            gate,
            access_log,
            hsts,
            shared,
            draining,
            swept,
            sweeps: Cell::new(0),
        })
    }

    fn tell_time(&self) {
        self.shared.clock.set(self.shared.started.elapsed());
    }

    fn sweep(&self) {
        self.tell_time();
        let (now, (swept, before)) = (self.shared.clock.now(), self.swept.get());
        self.swept.set((Instant::now(), now));
        let (held, seconds) = (swept.elapsed() > 2 * SWEEP, now.saturating_sub(before));
        let late = if held { seconds.saturating_sub(1) } else { 0 };
        self.sweeps.set(self.sweeps.get().wrapping_add(1));
        let crowded = self.shared.is_crowded();
        let paused = self.mounts.iter().any(Mounted::is_paused);
        let draining = self.draining.get().map(|since| since.elapsed());
        for (nth, (progress, peer)) in (0_u32..).zip(self.shared.registered()) {
            if crowded {
                progress.lull();
            }
            if paused || nth.wrapping_add(self.sweeps.get()) % PROBE == 0 {
                progress.probe();
            }
            if late > 0 {
                // An app held the worker: whoever is late by that could not be heard.
                progress.excuse(late);
            }
            let Gate { limits, evictions, .. } = &*self.gate;
            progress.sweep(limits, seconds - late, draining, |why| evictions.count(why, &peer));
        }
        if draining.is_some() {
            self.shared.part();
        }
    }
}

/// Builds an app; a panic is an error.
pub(crate) async fn built(builder: Builder) -> Result<Rc<dyn App>, BoxError> {
    let built = AssertUnwindSafe(async { builder().await }).catch_unwind().await;
    built.unwrap_or_else(|panic| Err(said(&*panic).into()))
}

/// What a panic said.
pub(crate) fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without a word"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::sweep::{Keeps, Phase};

    #[test]
    fn a_request_is_written_down_and_read_back() {
        let shared = Shared::new();
        let long = "/0123456789".repeat(10);
        for (method, path, said) in [
            ("GET", "/", "GET /"),
            ("GET", "/1234567", "GET /1234567"),
            ("PROPFIND", "/a/b/c/d/e", "PROPFIN /a/b/c/d/e"),
            ("GET", &*long, &format!("GET {}", &long[..72])),
            ("GET", "", "GET "),
        ] {
            shared.come(3, method, path);
            let key = shared.stay();
            shared.come(4, "POST", "/another");
            shared.enter(Some(key));
            let running = shared.running().expect("a request");
            assert_eq!((running.mount, running.said().as_str()), (3, said));
            shared.leave();
            assert!(shared.running().is_none());
        }
    }

    /// As an app's own threads may hold connections of the worker that lets go of the threads.
    #[test]
    fn what_ends_with_a_connection_may_end_others_and_may_panic() {
        struct Panics(#[expect(dead_code, reason = "it is there to be dropped")] Registered);

        impl Drop for Panics {
            fn drop(&mut self) {
                panic!("while it ends");
            }
        }

        fn register(shared: &Arc<Shared>) -> (Arc<Progress>, Registered) {
            let progress = Arc::new(Progress::new(shared.clock.clone(), Phase::Tunnel));
            let _ = shared.open.fetch_add(1, Relaxed);
            let counted = Counted { shared: shared.clone(), pass: Pass::default() };
            (progress.clone(), shared.register(progress, Peer::Unix, counted))
        }

        let (done, judged) = std::sync::mpsc::channel();
        let _judging = std::thread::spawn(move || {
            let shared = Arc::new(Shared::new());
            let (one, _first) = register(&shared);
            one.keeps(Keeps::new(Arc::new(Panics(register(&shared).1))));
            let (other, second) = register(&shared);
            other.keeps(Keeps::new(Arc::new(register(&shared).1)));
            let verdicts = |verdict| [one.verdict(), other.verdict()] == [verdict; 2];
            shared.judge(Verdict::Finish);
            assert!(shared.connections().len() == 4 && verdicts(Verdict::Finish));
            shared.judge(Verdict::Cut);
            assert!(shared.connections().len() == 2 && verdicts(Verdict::Cut));
            other.keeps(Keeps::new(Arc::new(register(&shared).1)));
            drop(second);
            done.send(shared.connections().len())
        });
        assert_eq!(judged.recv_timeout(Duration::from_secs(30)), Ok(1));
    }
}
