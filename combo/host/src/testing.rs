//! A whole deployment under test, on a clock that only the test moves.
//!
//! The rig takes the same [`Plan`] as [`start`](crate::start): what is tested is what is deployed.
//! Requests go through the real HTTP, guard, routes and mounts over a pipe in memory; no socket is
//! opened. Folders are the real ones, and what jobs write goes to a private layer over them, so
//! mounts serve it and nothing real changes.
//!
//! ```
//! use combo::{BoxError, Change, Deployment, Job, Tick, mount, secs, testing::Rig};
//!
//! async fn greet(tick: Tick) -> Result<Vec<Change>, BoxError> {
//!     Ok(vec![Change::write("greeting.txt", format!("tick {}", tick.count))])
//! }
//!
//! # #[cfg(feature = "files")]
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! # let folder = std::env::temp_dir().join(format!("combo-rig-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder).unwrap();
//! let plan = Deployment::new("test")
//!     .listen("tcp:8080")
//!     .root(&folder)
//!     .mount("/", mount::files("."))
//!     .job(Job::new("greet", "every 4s", greet).may_write("."))
//!     .plan()
//!     .expect("a right deployment");
//! let mut rig = Rig::new(plan);
//! assert_eq!(rig.get("/greeting.txt").await.status(), 404);
//! rig.advance(secs(4)).await;
//! assert_eq!(rig.get("/greeting.txt").await.text(), "tick 1");
//! assert!(!folder.join("greeting.txt").exists());
//! # });
//! ```
#![expect(clippy::disallowed_methods, reason = "the rig owns a thread and a folder")]

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use combo_core::{Command, Peer, Reply, Tick, Timestamp};
use http::{HeaderMap, Request, Response, StatusCode, header::HOST, uri::Scheme};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, oneshot};

use crate::{
    jobs::{Entry, ErasedTask, Outcome, apply::OUTSIDE, run::Wanted},
    mount::Target,
    plan::Plan,
    run::{Deeds, Flow, Opened},
    serve::worker::{self, Accepted, Desk, Raw},
    step::{Caller, Event, Now, State, step},
};

/// What the rig's clock says at first: 2026-01-01T00:00:00Z.
const BEGINNING: i64 = 1_767_225_600;

/// Whom apps see at the other end.
const CLIENT: ([u8; 4], u16) = ([127, 0, 0, 1], 50_000);

/// What fits into the pipe between client and server.
const PIPE: usize = 64 << 10;

/// A deployment under test. Its time stands still between calls.
#[derive(Debug)]
pub struct Rig {
    orders: Option<Sender<Order>>,
    thread: Option<thread::JoinHandle<()>>,
    layer: tempfile::TempDir,
}

/// What came back for a request.
#[derive(Clone, Debug)]
pub struct Answer(Response<Bytes>);

impl Answer {
    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status()
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.0.headers()
    }

    /// The whole body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        self.0.body()
    }

    /// The whole body as text.
    ///
    /// # Panics
    ///
    /// If it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.0.body()).expect("the body is text")
    }
}

enum Order {
    Request(Request<Bytes>, oneshot::Sender<Result<Answer, String>>),
    Advance(Duration, oneshot::Sender<()>),
    Command(Command, oneshot::Sender<Reply>),
    Swap(String, Target, oneshot::Sender<Reply>),
    Outcomes(oneshot::Sender<Vec<Entry>>),
    Now(oneshot::Sender<Timestamp>),
}

impl Rig {
    /// Opens everything but listeners. The clock says 2026-01-01T00:00:00Z.
    ///
    /// Hosted jobs come due and are skipped: their code does its own writing, to real files.
    ///
    /// # Panics
    ///
    /// If something cannot be opened, with all that could not.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self::starting_at(plan, Timestamp::from_second(BEGINNING).expect("an instant in range"))
    }

    /// The same at another time.
    ///
    /// # Panics
    ///
    /// If something cannot be opened, with all that could not.
    #[must_use]
    pub fn starting_at(plan: Plan, now: Timestamp) -> Self {
        let layer = tempfile::Builder::new().prefix("combo-rig-").tempdir().expect("a temporary folder");
        let (orders, inbox) = channel();
        let (opened, opening) = channel();
        let folder = layer.path().to_owned();
        let thread = thread::Builder::new()
            .name("combo-rig".into())
            .spawn(move || keep(plan, &folder, now, &opened, &inbox))
            .expect("a thread");
        let rig = Self { orders: Some(orders), thread: Some(thread), layer };
        match opening.recv() {
            Ok(Ok(())) => rig,
            Ok(Err(errors)) => panic!("the rig cannot open what was planned:\n{errors}"),
            Err(_) => panic!("the rig's thread ended before it was ready"),
        }
    }

    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> T {
        let (sender, receiver) = oneshot::channel();
        let sent = self.orders.as_ref().is_some_and(|orders| orders.send(order(sender)).is_ok());
        assert!(sent, "the rig's thread has ended");
        receiver.await.expect("the rig's thread answers every order")
    }

    /// GETs a path from host `localhost` and reads the whole answer.
    ///
    /// # Panics
    ///
    /// If the path is none or the connection ends before the answer does.
    pub async fn get(&mut self, path: &str) -> Answer {
        let request = Request::get(path).body(Bytes::new()).expect("a path");
        self.send(request).await
    }

    /// Sends a request and reads the whole answer; `Host` is `localhost` unless said.
    ///
    /// Waiting takes no real time: when every task of the deployment waits for a timer, the runtime's
    /// time jumps to it. The rig's own clock, which jobs and schedules see, stands still meanwhile.
    ///
    /// # Panics
    ///
    /// If the connection ends before the answer does.
    pub async fn send(&mut self, request: Request<impl Into<Bytes>>) -> Answer {
        match self.try_send(request).await {
            Ok(answer) => answer,
            Err(why) => panic!("no whole answer: {why}"),
        }
    }

    /// The same for answers that are expected to end early.
    ///
    /// # Errors
    ///
    /// What the client saw, if the connection ended before the answer did.
    pub async fn try_send(&mut self, request: Request<impl Into<Bytes>>) -> Result<Answer, String> {
        let request = request.map(Into::into);
        self.order(|answer| Order::Request(request, answer)).await
    }

    /// Moves the clock, running every tick at its instant, and waits until nothing is left to do
    /// without moving it further.
    pub async fn advance(&mut self, by: Duration) {
        self.order(|done| Order::Advance(by, done)).await;
    }

    /// Says a command and waits for the reply.
    pub async fn command(&mut self, command: Command) -> Reply {
        self.order(|reply| Order::Command(command, reply)).await
    }

    /// Puts another target behind a mount, as [`Handle::swap`](crate::Handle::swap) does.
    pub async fn swap(&mut self, mount: impl Into<String>, target: Target) -> Reply {
        let mount = mount.into();
        self.order(|reply| Order::Swap(mount, target, reply)).await
    }

    /// What the clock says.
    pub async fn now(&self) -> Timestamp {
        self.order(Order::Now).await
    }

    /// How every tick so far has ended, oldest first.
    pub async fn outcomes(&self) -> Vec<Entry> {
        self.order(Order::Outcomes).await
    }

    /// What jobs have written: paths under the root, or absolute ones outside of it, and contents.
    ///
    /// # Panics
    ///
    /// If the private folder cannot be read.
    #[must_use]
    pub fn disk(&self) -> BTreeMap<PathBuf, Bytes> {
        let mut files = BTreeMap::new();
        collect(self.layer.path(), &mut files).expect("the rig's own folder is readable");
        let plain = |path: PathBuf| {
            let path = path.strip_prefix(self.layer.path()).map_or(path.clone(), Path::to_owned);
            path.strip_prefix(OUTSIDE).map_or(path.clone(), |rest| Path::new("/").join(rest))
        };
        files.into_iter().map(|(path, contents)| (plain(path), contents)).collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        drop(self.orders.take());
        // Its panic has been seen by whoever waited for an answer.
        drop(self.thread.take().map(thread::JoinHandle::join));
    }
}

fn collect(folder: &Path, files: &mut BTreeMap<PathBuf, Bytes>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            drop(files.insert(entry.path(), fs::read(entry.path())?.into()));
        }
    }
    Ok(())
}

/// The rig's thread. Between orders nothing runs, so that a paused runtime cannot jump ahead.
fn keep(
    plan: Plan,
    layer: &Path,
    now: Timestamp,
    opened: &Sender<Result<(), crate::Errors>>,
    orders: &Receiver<Order>,
) {
    let runner = actix_rt::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime")
    });
    let mut bench = match runner.block_on(Bench::open(plan, layer, now)) {
        Ok(bench) => bench,
        Err(errors) => {
            // The other side is waiting for this.
            let _ = opened.send(Err(errors));
            return;
        }
    };
    let _ = opened.send(Ok(()));
    // Whoever gave an order and went away does not want its answer.
    while let Ok(order) = orders.recv() {
        match order {
            Order::Request(request, answer) => drop(answer.send(runner.block_on(bench.request(request)))),
            Order::Advance(by, done) => {
                runner.block_on(bench.advance(by));
                let _ = done.send(());
            }
            Order::Command(command, reply) => {
                let asked = bench.ask(|caller| Event::Asked { command, caller });
                drop(reply.send(runner.block_on(asked)));
            }
            Order::Swap(mount, target, reply) => {
                let target = Box::new(target);
                let asked = bench.ask(|caller| Event::SwapAsked { mount, target, caller });
                drop(reply.send(runner.block_on(asked)));
            }
            Order::Outcomes(outcomes) => {
                drop(outcomes.send(bench.state.ledger().entries().cloned().collect()));
            }
            Order::Now(now) => drop(now.send(bench.now().wall)),
        }
    }
}

/// Stands in for hosted code.
#[cfg_attr(not(feature = "tokio-cron-scheduler"), expect(dead_code, reason = "there is none"))]
pub(crate) struct Idle;

impl ErasedTask for Idle {
    fn run(&self, _: Tick) -> Wanted<'_> {
        let why = "hosted code is not run in a rig".to_owned();
        Box::pin(std::future::ready(Err(Outcome::Skipped { why })))
    }

    fn writes(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

/// Everything that runs on the rig's thread.
struct Bench {
    desk: Desk,
    state: State,
    deeds: Deeds,
    events: mpsc::UnboundedReceiver<Event>,
    clock: Arc<Mutex<Timestamp>>,
    began: Timestamp,
    _release: oneshot::Sender<()>,
}

impl Bench {
    async fn open(plan: Plan, layer: &Path, now: Timestamp) -> Result<Self, crate::Errors> {
        let mut opened = Opened::open(plan, Some(layer)).await?;
        let (events, inbox) = mpsc::unbounded_channel();
        let (desk, messages) = Desk::new();
        let (ready, readied) = oneshot::channel();
        let (release, released) = oneshot::channel::<()>();
        let emptied = events.clone();
        let empty = move || drop(emptied.send(Event::WorkersEmpty));
        let released = async move { drop(released.await) };
        let assignment = opened.house.assignment();
        let working = worker::run(assignment, desk.clone(), messages, ready, empty, released);
        drop(tokio::task::spawn_local(working));
        if let Ok(Err((mount, cause))) = readied.await {
            return Err(opened.house.unbuilt(mount, cause));
        }
        let clock = Arc::new(Mutex::new(now));
        let reading = clock.clone();
        let host = tokio::runtime::Handle::current();
        let (names, ground) = (opened.names, opened.ground);
        let deeds = Deeds::new(opened.jobs, names, ground, vec![desk.clone()], opened.told, host, events)
            .with_clock(move || *reading.lock().expect("no one panics while setting a clock"));
        let state = State::new(opened.timetable, opened.drain, now).with_mounts(opened.mounts);
        Ok(Self { desk, state, deeds, events: inbox, clock, began: now, _release: release })
    }

    fn now(&self) -> Now {
        let wall = *self.clock.lock().expect("no one panics while setting a clock");
        let mono = Duration::try_from(wall.duration_since(self.began)).unwrap_or_default();
        Now { wall, mono }
    }

    fn happen(&mut self, event: Event) {
        let now = self.now();
        for effect in step(event, &mut self.state, now) {
            // What has stopped stays there to be looked at.
            let (Flow::On | Flow::Over) = self.deeds.perform(effect);
        }
    }

    /// Lets everything happen that can without moving the clock: a sleep on a paused runtime ends
    /// when there is nothing else left to do.
    async fn settle(&mut self) {
        loop {
            tokio::select! {
                biased;
                event = self.events.recv() => match event {
                    Some(event) => self.happen(event),
                    None => return,
                },
                () = tokio::time::sleep(Duration::from_millis(1)) => return,
            }
        }
    }

    async fn move_to(&mut self, wall: Timestamp) {
        let by = wall.duration_since(self.now().wall);
        tokio::time::advance(Duration::try_from(by).unwrap_or_default()).await;
        *self.clock.lock().expect("no one panics while setting a clock") = wall;
    }

    async fn advance(&mut self, by: Duration) {
        let target = self.now().wall + by;
        loop {
            let alarm = self.state.alarm();
            let budget = alarm.mono.map(|mono| self.began + mono);
            let Some(next) = alarm.wall.into_iter().chain(budget).min().filter(|next| *next <= target) else {
                break;
            };
            self.move_to(next.max(self.now().wall)).await;
            self.happen(Event::Woke);
            self.settle().await;
        }
        self.move_to(target).await;
        self.settle().await;
    }

    async fn ask(&mut self, event: impl FnOnce(Caller) -> Event) -> Reply {
        let (caller, mut reply) = oneshot::channel();
        self.happen(event(Caller(Some(caller))));
        loop {
            self.settle().await;
            match reply.try_recv() {
                Ok(reply) => return reply,
                Err(oneshot::error::TryRecvError::Empty) => {}
                Err(oneshot::error::TryRecvError::Closed) => return Reply::Stopped,
            }
        }
    }

    async fn request(&mut self, mut request: Request<Bytes>) -> Result<Answer, String> {
        if !request.headers().contains_key(HOST) {
            let _ = request.headers_mut().insert(HOST, http::HeaderValue::from_static("localhost"));
        }
        let (client, server) = tokio::io::duplex(PIPE);
        let peer = Peer::Inet(SocketAddr::from(CLIENT));
        let accepted =
            Accepted { socket: Raw::Memory(server), peer, scheme: Scheme::HTTP, tls: None, proxied: false };
        self.desk.take(accepted).map_err(|_| "the deployment has stopped".to_owned())?;
        let failed = |error: hyper::Error| crate::error::chain(&error);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(client)).await.map_err(failed)?;
        drop(tokio::task::spawn_local(connection));
        let response = sender.send_request(request.map(Full::new)).await.map_err(failed)?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(failed)?.to_bytes();
        Ok(Answer(Response::from_parts(parts, body)))
    }
}
