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
use combo_core::{Command, Entry, Outcome, Peer, Reply, Tick, Timestamp, Trigger, trigger};
use http::{HeaderMap, Request, Response, StatusCode, header::HOST, uri::Scheme};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, oneshot};

use crate::{
    jobs::{ErasedTask, apply::OUTSIDE, output::Output, run::Wanted},
    mount::Target,
    plan::Plan,
    run::{Deeds, Flow, Ledgers, Opened},
    serve::{
        gate::Pass,
        worker::{self, Accepted, Desk, Raw},
    },
    step::{Caller, Event, Now, State, step},
};

/// What the rig's clock says at first: 2026-01-01T00:00:00Z.
const BEGINNING: i64 = 1_767_225_600;

/// How many entries of the ledger it remembers.
const ENTRIES: usize = 1_000_000;

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
    SetClock(Timestamp, oneshot::Sender<()>),
    Changed(PathBuf, oneshot::Sender<()>),
    Command(Command, oneshot::Sender<Reply>),
    Swap(String, Target, oneshot::Sender<Reply>),
    Outcomes(oneshot::Sender<Vec<Entry>>),
    Now(oneshot::Sender<Timestamp>),
}

impl Rig {
    /// Opens everything but listeners. The clock says 2026-01-01T00:00:00Z.
    ///
    /// Hosted jobs and commands come due and are skipped: they do their own writing, to real files.
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
        Self::open(plan, None, now)
    }

    /// The same after a time in which no process ran: what was due since then has been missed.
    ///
    /// # Panics
    ///
    /// If something cannot be opened, with all that could not.
    #[must_use]
    pub fn resuming(plan: Plan, since: Timestamp, now: Timestamp) -> Self {
        Self::open(plan, Some(since), now)
    }

    fn open(plan: Plan, since: Option<Timestamp>, now: Timestamp) -> Self {
        let layer = tempfile::Builder::new().prefix("combo-rig-").tempdir().expect("a temporary folder");
        let (orders, inbox) = channel();
        let (opened, opening) = channel();
        let folder = layer.path().to_owned();
        let thread = thread::Builder::new()
            .name("combo-rig".into())
            .spawn(move || keep(plan, &folder, (since, now), &opened, &inbox))
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

    /// Sets the wall clock, forwards or back, as an administrator would: no time passes.
    pub async fn set_clock(&mut self, to: Timestamp) {
        self.order(|done| Order::SetClock(to, done)).await;
    }

    /// Says that a file has changed, to the jobs that are due when it does. Nothing watches real files here.
    /// The path is as in the trigger.
    pub async fn file_changed(&mut self, path: impl Into<PathBuf>) {
        let path = path.into();
        self.order(|done| Order::Changed(path, done)).await;
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
    (since, now): (Option<Timestamp>, Timestamp),
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
    let mut bench = match runner.block_on(Bench::open(plan, layer, since, now)) {
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
            Order::SetClock(to, done) => {
                runner.block_on(bench.set_clock(to));
                let _ = done.send(());
            }
            Order::Changed(path, done) => {
                runner.block_on(bench.file_changed(&path));
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

/// Stands in for what does its own writing, or asks others; says that it is not run.
pub(crate) struct Idle(pub(crate) &'static str);

impl Idle {
    /// What stands in for a program or foreign code.
    pub(crate) const FOREIGN: Self = Self("neither hosted code nor a command is run in a rig");
    /// What stands in for orders.
    #[cfg(feature = "acme")]
    pub(crate) const ORDERS: Self = Self("nothing is ordered in a rig");
}

impl ErasedTask for Idle {
    fn run<'a>(&'a self, _: Tick, _: &'a Output) -> Wanted<'a> {
        let why = self.0.to_owned();
        Box::pin(std::future::ready(Err(Outcome::Skipped { why })))
    }
}

/// What the rig's clock says, or said when it began to follow the runtime's time.
struct Clock {
    wall: Timestamp,
    mono: Duration,
    follows: Option<tokio::time::Instant>,
}

fn read(clock: &Mutex<Clock>) -> Now {
    let clock = clock.lock().expect("no one panics while setting a clock");
    let since = clock.follows.map_or(Duration::ZERO, |since| since.elapsed());
    after(Now { wall: clock.wall, mono: clock.mono }, since)
}

fn after(now: Now, time: Duration) -> Now {
    Now { wall: now.wall.saturating_add(time).unwrap_or(Timestamp::MAX), mono: now.mono + time }
}

/// Everything that runs on the rig's thread.
struct Bench {
    desk: Desk,
    state: State,
    deeds: Deeds,
    events: mpsc::UnboundedReceiver<Event>,
    clock: Arc<Mutex<Clock>>,
    /// Who waits for which file.
    files: Vec<(usize, PathBuf)>,
    _release: oneshot::Sender<()>,
}

impl Bench {
    async fn open(
        plan: Plan,
        layer: &Path,
        since: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Self, crate::Errors> {
        let mut opened = Opened::open(plan, Some(layer), Ledgers::Leave, None).await?;
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
        let clock = Arc::new(Mutex::new(Clock { wall: now, mono: Duration::ZERO, follows: None }));
        let reading = clock.clone();
        let host = tokio::runtime::Handle::current();
        let (names, ground) = (opened.names, opened.ground);
        let deeds = Deeds::new(opened.tasks, names, ground, vec![desk.clone()], opened.told, host, events)
            .with_clock(move || read(&reading).wall);
        let mut standing = opened.standing;
        for (_, past) in &mut standing {
            past.accounted = since;
        }
        let files = standing.iter().enumerate().filter_map(|(job, (terms, _))| match &terms.trigger {
            Trigger::Event(trigger::Event::Changed(path)) => Some((job, path.clone())),
            _ => None,
        });
        let files = files.collect();
        let state = State::new(standing, opened.running_jobs, opened.drain, now)
            .with_ledger_of(ENTRIES)
            .with_mounts(opened.mounts);
        let mut bench = Self { desk, state, deeds, events: inbox, clock, files, _release: release };
        bench.happen(Event::Started);
        bench.settle().await;
        Ok(bench)
    }

    fn now(&self) -> Now {
        read(&self.clock)
    }

    /// Sets the clock, which follows the runtime's time from there on, or stands.
    fn set(&self, Now { wall, mono }: Now, runs: bool) {
        let follows = runs.then(tokio::time::Instant::now);
        *self.clock.lock().expect("no one panics while setting a clock") = Clock { wall, mono, follows };
    }

    fn happen(&mut self, event: Event) {
        let now = self.now();
        // What has stopped stays there to be looked at.
        let (Flow::On | Flow::Over) = self.deeds.perform(step(event, &mut self.state, now));
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

    async fn set_clock(&mut self, to: Timestamp) {
        self.set(Now { wall: to, ..self.now() }, false);
        self.happen(Event::Woke);
        self.settle().await;
    }

    async fn file_changed(&mut self, path: &Path) {
        let jobs: Vec<_> = self.files.iter().filter(|(_, of)| of == path).map(|(job, _)| *job).collect();
        for job in jobs {
            self.happen(Event::FileChanged { job });
        }
        self.settle().await;
    }

    async fn advance(&mut self, by: Duration) {
        let until = after(self.now(), by);
        self.set(self.now(), true);
        loop {
            let (now, alarm) = (self.now(), self.state.alarm());
            let ahead =
                |wall: Timestamp| Duration::try_from(wall.duration_since(now.wall)).unwrap_or_default();
            let mono = alarm.mono.map(|mono| mono.saturating_sub(now.mono));
            let wait = alarm.wall.map(ahead).into_iter().chain(mono).min();
            let left = until.mono.saturating_sub(now.mono);
            let wait = wait.filter(|wait| *wait <= left);
            tokio::select! {
                biased;
                event = self.events.recv() => match event {
                    Some(event) => self.happen(event),
                    None => return,
                },
                () = tokio::time::sleep(wait.unwrap_or(left)) => match wait {
                    None => break,
                    // The runtime's time has whole milliseconds.
                    Some(wait) => {
                        self.set(after(now, wait), true);
                        self.happen(Event::Woke);
                    }
                },
            }
        }
        self.set(until, false);
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
        let accepted = Accepted {
            socket: Raw::Memory(server),
            peer,
            scheme: Scheme::HTTP,
            tls: None,
            proxied: false,
            redirecting: None,
            shaking: None,
        };
        self.desk.take(accepted, Pass::default()).map_err(|_| "the deployment has stopped".to_owned())?;
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
