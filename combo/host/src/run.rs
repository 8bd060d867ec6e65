//! A plan -> a running combo. [`start`] opens everything, gathers all errors and serves nothing until
//! all has succeeded; [`Deeds`] performs what `step` decides.
#![expect(clippy::disallowed_methods, reason = "this is where threads and tasks are started")]

use std::{
    collections::HashMap,
    io,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use combo_core::{
    Alert, BoxError, Cancel, Command, Draining, Endpoint, Entry, MountState, Outcome, Pattern, Policies,
    Reply, Site, Status, Tick, Timestamp, Trigger, User, endpoint::UnixName, trigger,
};
use futures_util::FutureExt;
use http::HeaderValue;
use tokio::{
    runtime::{self, Runtime},
    sync::{Semaphore, mpsc, oneshot, watch as channel},
    task::JoinSet,
};

use crate::{
    account::Account,
    deployment::OnAlert,
    error::{Error, Errors, Kind},
    jobs::{
        self, Act, Begin, Beginning, Begun, Ended, Journal, Keep, Opening, Past, Terms, Whom, Work,
        changed::{self, Watching},
        journal::{Closed, Remembered},
        program::Commanded,
    },
    mount::{Recipe, Target, layer::Wrap},
    notify::Supervisor,
    plan::{Plan, PlannedJob, PlannedMount, PlannedWork},
    serve::{
        gate::Gate,
        hsts::Hsts,
        inherited,
        listen::{self, Address, Listener, Noticing, Store},
        memory::Gauge,
        mounted::{Tally, Telling, Told, Turn},
        proxies::Proxies,
        route::Routes,
        worker::{self, Assignment, Desk, Message, said},
    },
    step::{Caller, Effect, Event, State},
    swap::{Ground, swap},
    watch::{Watch, watch},
};

/// How many threads a worker may use for blocking calls.
const BLOCKING_PER_WORKER: usize = 64;

/// How many requests of one worker a drain names each time, and how many upgraded connections.
const NAMED: usize = 10;

/// How many requests may wait at a mount that is paused.
const WAITING: usize = 1_024;

/// How long threads may take to end once everything has been drained or cut.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A running combo. Dropping it drains.
#[derive(Debug)]
pub struct Handle {
    addresses: Vec<Address>,
    events: mpsc::UnboundedSender<Event>,
    stopped: channel::Receiver<bool>,
}

impl Handle {
    /// Where it listens, in the order that was said.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Says a command and waits for the reply. What is said of a mount is replied to when every worker has
    /// heard it: no request that comes later is answered as before.
    ///
    /// ```no_run
    /// # async fn migrate() {}
    /// # async fn example(handle: combo::Handle) {
    /// use combo::{Command, Reply};
    ///
    /// let page = "<h1>back in a minute</h1>".to_owned();
    /// let reply = handle.send(Command::Maintain { mount: "/shop".to_owned(), page }).await;
    /// assert_eq!(reply, Reply::Done);
    /// migrate().await;
    /// let reply = handle.send(Command::Resume { mount: "/shop".to_owned() }).await;
    /// assert_eq!(reply, Reply::Done);
    /// # }
    /// ```
    pub async fn send(&self, command: Command) -> Reply {
        self.ask(|caller| Event::Asked { command, caller }).await
    }

    /// Puts another target behind a mount, with all that is said of it, while everything else goes on:
    /// connections stay open, and requests that the old one was given are finished by it. The new one is
    /// built on each worker as at the start. If it cannot be built on one, the old one stays on all, and the
    /// reply says why.
    ///
    /// A mount that is paused or in maintenance stays so, until it is resumed with the new target. Whoever
    /// does not wait for the reply takes the swap back, unless it has been done.
    ///
    /// ```no_run
    /// # async fn example(handle: combo::Handle) {
    /// use combo::{Reply, mount};
    ///
    /// match handle.swap("/blog", mount::redirect("https://blog.example.com")).await {
    ///     Reply::Done => println!("from now on the blog is over there"),
    ///     Reply::Refused { why } => eprintln!("the blog is what it was: {why}"),
    ///     _ => {}
    /// }
    /// # }
    /// ```
    pub async fn swap(&self, mount: impl Into<String>, target: Target) -> Reply {
        let (mount, target) = (mount.into(), Box::new(target));
        self.ask(|caller| Event::SwapAsked { mount, target, caller }).await
    }

    async fn ask(&self, event: impl FnOnce(Caller) -> Event) -> Reply {
        let (caller, reply) = oneshot::channel();
        if self.events.send(event(Caller(Some(caller)))).is_err() {
            return Reply::Stopped;
        }
        reply.await.unwrap_or(Reply::Stopped)
    }

    /// Waits until it has stopped: everything has been finished or cut.
    pub async fn stopped(&self) {
        // An error says that the watch is gone, which is as stopped as can be.
        let _ = self.stopped.clone().wait_for(|stopped| *stopped).await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Asked { command: Command::Stop, caller: Caller::default() });
    }
}

/// Opens everything and begins to serve; between the ports and the rest the process becomes the
/// [user](crate::Deployment::user) that was said, if one was. Tasks run on the runtime that this is called on, so that
/// should have several threads.
///
/// # Errors
///
/// Everything that the world refused; nothing has been served then.
pub async fn start(plan: Plan) -> Result<Handle, Errors> {
    start_with(plan, As::Server { signals: false }).await
}

/// What a process is started as.
pub(crate) enum As {
    /// The one that does everything.
    Server { signals: bool },
    /// One that runs a job beside it, and wants to know how that ends.
    Guest { heard: mpsc::UnboundedSender<Entry> },
}

pub(crate) async fn start_with(plan: Plan, started_as: As) -> Result<Handle, Errors> {
    let (signals, heard) = match started_as {
        As::Server { signals } => (signals, None),
        As::Guest { heard } => (true, Some(heard)),
    };
    // Whose signals are not ours speaks for himself.
    let supervisor = if signals && heard.is_none() { Supervisor::of_environment() } else { None };
    let ledgers = if heard.is_some() { Ledgers::Join } else { Ledgers::Keep };
    let (events, inbox) = mpsc::unbounded_channel();
    let mut opened = Opened::open(plan, None, ledgers, Some(&events)).await?;
    if heard.is_none() {
        inherited::leave().iter().for_each(|sentence| tracing::warn!("{sentence}"));
    }
    opened.tasks.heard = heard;
    let (release, released) = channel::channel(());
    let system = system(events.clone(), released.clone()).map_err(one("actix system"))?;
    let (desks, threads) = workers(opened.house, &system, &events, &released).await?;
    let addresses: Vec<_> = opened.listeners.iter().map(Listener::address).collect();
    let (stopping, stopped) = channel::channel(false);
    let (names, tallies) = (opened.names.clone(), opened.ground.tallies.clone());
    let threads = Threads { threads, desks: desks.clone(), names, tallies, release };
    let host = runtime::Handle::current();
    let deeds =
        Deeds::new(opened.tasks, opened.names, opened.ground, desks, opened.told, host, events.clone())
            .with_supervisor(supervisor, &addresses);
    let (ready, readied) = oneshot::channel();
    let watching = Watch {
        state: State::new(opened.standing, opened.running_jobs, opened.drain, Timestamp::now())
            .with_mounts(opened.mounts),
        deeds,
        listeners: opened.listeners,
        inbox,
        signals,
        ready,
    };
    let journal = watching.deeds.journal();
    let started = thread::Builder::new().name("combo-watch".into()).spawn(move || {
        watch(watching);
        if !journal.close(LAST_WORD) {
            tracing::error!("the last entries of the ledger are not written: the disk does not take them");
        }
        threads.end();
        let _ = stopping.send(true);
    });
    drop(started.map_err(one("watch"))?);
    // From here on it is stopped if whoever starts it does not wait for the end of that.
    let handle = Handle { addresses, events, stopped };
    let watching = readied.await.unwrap_or_else(|_| Err(io::Error::other("it ended before it was ready")));
    watching.map_err(one("watch"))?;
    Ok(handle)
}

fn one(what: &'static str) -> impl Fn(io::Error) -> Errors {
    move |cause| Errors(vec![Kind::Thread { what, cause }.into()])
}

/// What is done about the ledger of the state folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ledgers {
    /// It is this process's.
    Keep,
    /// It is another's, and this one writes into it.
    Join,
    /// Nothing.
    Leave,
}

/// Everything that a plan needs, opened; no thread has been started.
pub(crate) struct Opened {
    pub(crate) house: House,
    pub(crate) tasks: Tasks,
    pub(crate) standing: Vec<(Terms, Past)>,
    pub(crate) running_jobs: usize,
    pub(crate) names: Vec<String>,
    pub(crate) ground: Ground,
    /// Their patterns and what is behind them.
    pub(crate) mounts: Vec<(String, String)>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) drain: Duration,
    /// Who is told of the drain.
    pub(crate) told: Vec<Draining>,
}

/// What jobs do, and where it is written down.
pub(crate) struct Tasks {
    pub(crate) jobs: Vec<Arc<Work>>,
    pub(crate) journal: Journal,
    pub(crate) on_alert: Option<OnAlert>,
    /// Who else wants to know how ticks end.
    pub(crate) heard: Option<mpsc::UnboundedSender<Entry>>,
    /// The files that jobs wait for.
    _watching: Option<Watching>,
    /// Certificates that may change.
    noticing: Option<Noticing>,
    /// What makes certificates due.
    #[cfg(feature = "acme")]
    _awake: Vec<crate::certs::acme::wake::Awake>,
}

/// What every worker is made from.
pub(crate) struct House {
    layers: Vec<Box<dyn Wrap>>,
    proxies: Arc<Proxies>,
    recipes: Vec<Box<dyn Recipe>>,
    tellings: Vec<Telling>,
    tallies: Vec<Tally>,
    routes: Arc<Routes>,
    gate: Arc<Gate>,
    access_log: bool,
    hsts: Option<HeaderValue>,
    workers: usize,
}

impl House {
    /// What is said of a mount that a worker could not build.
    #[cfg(feature = "testing")]
    pub(crate) fn unbuilt(&self, mount: usize, cause: BoxError) -> Errors {
        Errors(vec![self.unbuilt_one(mount, cause)])
    }

    fn unbuilt_one(&self, mount: usize, cause: BoxError) -> Error {
        Kind::Mount { pattern: self.tellings[mount].site.pattern.clone(), cause }.into()
    }

    pub(crate) fn assignment(&mut self) -> Assignment {
        Assignment {
            proxies: self.proxies.clone(),
            layers: self.layers.iter().map(|layer| layer.wrapper()).collect(),
            builders: self.recipes.iter_mut().map(|recipe| recipe.builder()).collect(),
            tellings: self.tellings.clone(),
            tallies: self.tallies.clone(),
            routes: self.routes.clone(),
            gate: self.gate.clone(),
            access_log: self.access_log,
            hsts: self.hsts.clone(),
        }
    }
}

impl Opened {
    /// With a `layer` nothing real is listened on or written: what tasks write goes there.
    /// Without `events` no file is watched. Where the process is to become a user, ports are opened first,
    /// and everything else as that user.
    pub(crate) async fn open(
        plan: Plan,
        layer: Option<&Path>,
        ledgers: Ledgers,
        events: Option<&mpsc::UnboundedSender<Event>>,
    ) -> Result<Self, Errors> {
        let mut errors = Vec::new();
        let root = match root(plan.root.as_deref()) {
            Ok(root) => root,
            Err(error) => return Err(Errors(vec![error])),
        };
        let endpoints = if layer.is_none() { plan.endpoints } else { Vec::new() };
        let (mut listeners, mut account, store) = (Vec::new(), None, Store::default());
        #[cfg(feature = "acme")]
        for job in &plan.jobs {
            if let PlannedWork::Certificates(ordered) = &job.work {
                store.order(root.join(&ordered.folder), ordered.wanted.clone());
            }
        }
        if let Some(user) = plan.user.filter(|_| layer.is_none()) {
            // A unix socket is a file: root would make it in a folder where others may write.
            let is_file = |endpoint: &Endpoint| {
                matches!(endpoint.bare(), Endpoint::Unix { path: UnixName::Path(_), .. })
            };
            let open = |endpoint| Listener::open(endpoint, &root, &store);
            let ports: Vec<_> =
                endpoints.iter().map(|endpoint| (!is_file(endpoint)).then(|| open(endpoint))).collect();
            // What root could reach this user may not.
            match become_user(&user).and_then(|became| folder(&root).map(|_| became)) {
                Ok(became) => account = Some(became),
                // What is opened now would be opened by the wrong one.
                Err(error) => {
                    errors.extend(ports.into_iter().flatten().filter_map(Result::err));
                    errors.push(error);
                    return Err(Errors(errors));
                }
            }
            let opened = endpoints.iter().zip(ports);
            let opened = opened.map(|(endpoint, port)| port.unwrap_or_else(|| open(endpoint)));
            listeners = all_of(opened, &mut errors).into_iter().flatten().collect();
        }
        let mut names: Vec<_> = plan.mounts.iter().map(|mount| mount.pattern.to_string()).collect();
        let labels = plan.mounts.iter().map(|mount| mount.target.label.clone());
        let mounts = names.iter().cloned().zip(labels).collect();
        let patterns = plan.mounts.iter().map(|mount| mount.pattern.clone()).collect();
        let tallies: Vec<_> = plan.mounts.iter().map(|_| Tally::default()).collect();
        // Before a request is routed it is in a layer at most.
        names.push("the layers around all mounts".to_owned());
        let routes = Arc::new(Routes::new(plan.mounts.iter().map(|mount| &mount.pattern)));
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let (mut jobs, mut standing) =
            (Vec::with_capacity(plan.jobs.len()), Vec::with_capacity(plan.jobs.len()));
        let (mut opening, usual) = (Opening::new(&root, layer), Arc::new(Policies::default()));
        #[cfg(feature = "acme")]
        let mut waking = Vec::new();
        for job in plan.jobs {
            #[cfg(feature = "acme")]
            if let PlannedWork::Certificates(ordered) = &job.work {
                waking.push((standing.len(), ordered.waking(&root)));
            }
            let terms = terms(&job, &host, &usual);
            let name = terms.name.clone();
            standing.push((terms, Past::default()));
            match work(job, name, &mut opening, account.as_ref(), &store).await {
                Ok(work) => jobs.push(Arc::new(work)),
                Err(error) => errors.push(error),
            }
        }
        for sentence in opening.finish() {
            tracing::warn!("{sentence}");
        }
        let watching = match events.map(|events| watch_files(&standing, &root, events.clone())) {
            None => None,
            Some(Ok(watching)) => Some(watching),
            Some(Err(error)) => {
                errors.push(error);
                None
            }
        };
        let draining = Draining::new();
        let (mut recipes, mut tellings) = (Vec::new(), Vec::new());
        for (mount, tally) in plan.mounts.into_iter().zip(&tallies) {
            match recipe(mount, &root, layer, tally, &draining).await {
                Ok((recipe, telling)) => {
                    recipes.push(recipe);
                    tellings.push(telling);
                }
                Err(error) => errors.push(error),
            }
        }
        if account.is_none() {
            let opened = endpoints.iter().map(|endpoint| Listener::open(endpoint, &root, &store));
            listeners = all_of(opened, &mut errors).into_iter().flatten().collect();
        }
        listen::lead_to_https(&mut listeners, &store);
        // As the user that it is by now, who will read them from here on.
        let noticing = match events.map(|_| store.notice(|_| ())) {
            None => None,
            Some(Ok(noticing)) => noticing,
            Some(Err(cause)) => {
                errors.push(Kind::Thread { what: "watch of certificates", cause }.into());
                None
            }
        };
        // Last, since this is what other processes see.
        let (journal, sentences) = match plan.state.filter(|_| errors.is_empty()) {
            None => (Journal::none(), Vec::new()),
            Some(state) => match journal(&state, &root, ledgers, plan.keep, &mut standing) {
                Ok(opened) => opened,
                Err(error) => {
                    errors.push(error);
                    (Journal::none(), Vec::new())
                }
            },
        };
        if !errors.is_empty() {
            return Err(Errors(errors));
        }
        for sentence in sentences {
            tracing::error!("{sentence}");
        }
        let workers = plan.workers.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
        let (layers, proxies) = (plan.layers, Arc::new(plan.proxies));
        let gate = Arc::new(Gate::new(Arc::new(plan.limits), proxies.clone()));
        let house = House {
            layers,
            proxies,
            recipes,
            tellings,
            tallies: tallies.clone(),
            routes,
            gate: gate.clone(),
            access_log: plan.access_log,
            hsts: plan.hsts.and_then(Hsts::header),
            workers,
        };
        let (drain, mut told) = (plan.drain, plan.told);
        told.push(draining.clone());
        let ground = Ground { root, layer: layer.map(Path::to_owned), patterns, tallies, draining, gate };
        #[cfg(feature = "acme")]
        let awake = match events.filter(|_| ledgers == Ledgers::Keep) {
            None => Vec::new(),
            Some(events) => waking
                .into_iter()
                .map(|(job, waking)| {
                    let events = events.clone();
                    waking.wake(move || drop(events.send(Event::FileChanged { job })))
                })
                .collect(),
        };
        let tasks = Tasks {
            jobs,
            journal,
            on_alert: plan.on_alert,
            heard: None,
            _watching: watching,
            noticing,
            #[cfg(feature = "acme")]
            _awake: awake,
        };
        let running_jobs = plan.running_jobs;
        Ok(Self { house, tasks, standing, running_jobs, names, ground, mounts, listeners, drain, told })
    }
}

/// Watches the files that jobs wait for.
fn watch_files(
    standing: &[(Terms, Past)],
    root: &Path,
    events: mpsc::UnboundedSender<Event>,
) -> Result<Watching, Error> {
    let of = |(job, (terms, _)): (usize, &(Terms, Past))| match &terms.trigger {
        Trigger::Event(trigger::Event::Changed(path)) => Some((job, root.join(path))),
        _ => None,
    };
    let files = standing.iter().enumerate().filter_map(of).collect();
    // Nobody is left to tell when it ends.
    let watching = changed::watch(files, move |job| drop(events.send(Event::FileChanged { job })));
    watching.map_err(|(path, cause)| Kind::Watch { path, cause }.into())
}

/// The journal of the ledger, and what it knows of each job's past.
fn journal(
    state: &Path,
    root: &Path,
    ledgers: Ledgers,
    keep: Keep,
    standing: &mut [(Terms, Past)],
) -> Result<(Journal, Vec<String>), Error> {
    let refused = |closed| match closed {
        Closed::Kept(pid) => Kind::Kept { path: state.to_owned(), pid }.into(),
        Closed::Io(cause) => Kind::State { path: state.to_owned(), cause }.into(),
    };
    let (folder, now) = (root.join(state), Timestamp::now());
    match ledgers {
        Ledgers::Leave => Ok((Journal::none(), Vec::new())),
        Ledgers::Join => Journal::join(&folder, now).map(|journal| (journal, Vec::new())).map_err(refused),
        Ledgers::Keep => {
            let jobs = standing.iter().map(|(terms, _)| (terms.name.clone(), terms.trigger.to_string()));
            let opened = Journal::open(&folder, keep, &jobs.collect::<Vec<_>>(), now).map_err(refused)?;
            for ((_, past), known) in standing.iter_mut().zip(opened.past) {
                let Remembered { accounted, counts, failures, last, .. } = known;
                *past = Past { accounted, counts, failures, last };
            }
            Ok((opened.journal, opened.sentences))
        }
    }
}

/// What requests of a mount are told of it.
fn telling(pattern: &Pattern, target: &Target, draining: &Draining) -> Telling {
    let site = Site::new(pattern);
    let strips = !target.unstripped && !site.prefix.is_empty();
    let forwarded = strips.then(|| HeaderValue::from_str(&site.prefix).ok()).flatten();
    let context = target.context.then(|| draining.clone());
    Telling { site: Arc::new(site), strips, forwarded, context }
}

/// The folder that relative paths are under.
fn root(said: Option<&Path>) -> Result<PathBuf, Error> {
    folder(said.unwrap_or(Path::new(".")))
}

fn folder(path: &Path) -> Result<PathBuf, Error> {
    // With the dot it has to be a folder that one may go into.
    let root = path.canonicalize().and_then(|root| root.join(".").metadata().map(|_| root));
    root.map_err(|cause| Kind::Root { path: path.to_owned(), cause }.into())
}

fn all_of<T>(opened: impl Iterator<Item = Result<T, Error>>, errors: &mut Vec<Error>) -> Vec<T> {
    opened.filter_map(|opened| opened.map_err(|error| errors.push(error)).ok()).collect()
}

/// Makes this process a user, unless it is that already.
fn become_user(user: &User) -> Result<Account, Error> {
    let refused = |cause| Error::from(Kind::User { user: user.to_string(), cause });
    let account = Account::find(user).map_err(refused)?;
    if account.is_to_come(user).map_err(refused)? {
        account.become_it().map_err(refused)?;
        tracing::info!("became user `{user}`");
    }
    Ok(account)
}

/// What a mount is made from, and what its requests are told of it.
pub(crate) async fn recipe(
    mount: PlannedMount,
    root: &Path,
    layer: Option<&Path>,
    tally: &Tally,
    draining: &Draining,
) -> Result<(Box<dyn Recipe>, Telling), Error> {
    let pattern = mount.pattern.to_string();
    let refused = |cause: BoxError| Kind::Mount { pattern, cause }.into();
    let mut target = mount.target;
    // What is built may be something that is built later itself.
    while let Some(make) = target.later() {
        let made = AssertUnwindSafe(async { make().await }).catch_unwind().await;
        let built = match made {
            Ok(Ok(built)) => built,
            Ok(Err(cause)) => return Err(refused(cause)),
            Err(panic) => return Err(refused(said(&*panic).into())),
        };
        if let Some(why) = built.faults().into_iter().next() {
            return Err(refused(why.into()));
        }
        target = target.around(built);
    }
    let telling = telling(&mount.pattern, &target, draining);
    // What a job has written lies over what was there before.
    let resolve = |folder: &Path| -> Vec<PathBuf> {
        let real = root.join(folder);
        let over = layer.map(|layer| layer.join(jobs::apply::layered(root, &real)));
        over.into_iter().filter(|folder| folder.is_dir()).chain([real]).collect()
    };
    Ok((target.recipe(resolve, tally).map_err(refused)?, telling))
}

/// What the roster has to know of a job.
fn terms(job: &PlannedJob, host: &str, usual: &Arc<Policies>) -> Terms {
    let name: Arc<str> = job.name.as_str().into();
    let offset = job.policies.offset(&name, host);
    // Most jobs say nothing of them.
    let policies = if job.policies == **usual { usual.clone() } else { Arc::new(job.policies.clone()) };
    Terms { name, trigger: job.trigger.clone(), policies, offset }
}

async fn work(
    job: PlannedJob,
    shared: Arc<str>,
    opening: &mut Opening<'_>,
    account: Option<&Account>,
    #[cfg_attr(not(feature = "acme"), expect(unused_variables, reason = "nobody orders anything"))]
    store: &Store,
) -> Result<Work, Error> {
    let PlannedJob { name, may_write, work, policies, .. } = job;
    let folders =
        opening.open(&may_write).map_err(|(path, cause)| Kind::Folder { job: name.clone(), path, cause })?;
    let task = match work {
        PlannedWork::Task(task) => task,
        // What it writes, no layer would catch.
        #[cfg(feature = "testing")]
        PlannedWork::Command(_) if opening.layer.is_some() => Arc::new(crate::testing::Idle::FOREIGN),
        // What it orders is from the real world.
        #[cfg(all(feature = "acme", feature = "testing"))]
        PlannedWork::Certificates(_) if opening.layer.is_some() => Arc::new(crate::testing::Idle::ORDERS),
        #[cfg(feature = "acme")]
        PlannedWork::Certificates(ordered) => {
            let environment = account.map(Account::environment).unwrap_or_default().to_vec();
            Arc::new(crate::certs::acme::renewals(
                &opening.root,
                *ordered,
                store.challenges.clone(),
                environment,
            ))
        }
        PlannedWork::Command(program) => Arc::new(Commanded {
            program: program.told_of(account.map(Account::environment).unwrap_or_default()),
            job: shared.clone(),
            root: opening.root.to_path_buf(),
            grace: policies.grace,
        }),
        #[cfg(all(feature = "tokio-cron-scheduler", feature = "testing"))]
        PlannedWork::Hosted(_) if opening.layer.is_some() => Arc::new(crate::testing::Idle::FOREIGN),
        #[cfg(feature = "tokio-cron-scheduler")]
        PlannedWork::Hosted(job) => match jobs::hosted::open(job).await {
            Ok(code) => Arc::new(code),
            Err(why) => return Err(Kind::Job { job: name, cause: why.into() }.into()),
        },
    };
    Ok(Work { name: shared, task, folders })
}

/// The one actix System of the process, on a thread of its own. `System::stop` begins the drain.
fn system(
    events: mpsc::UnboundedSender<Event>,
    mut released: channel::Receiver<()>,
) -> io::Result<actix_rt::System> {
    let (made, system) = std::sync::mpsc::channel();
    let thread = thread::Builder::new().name("combo-system".into()).spawn(move || {
        let runner =
            actix_rt::System::with_tokio_rt(|| current_thread().expect("a runtime could be built before"));
        let _ = made.send(actix_rt::System::current());
        let (runtime, stop) = runner.into_parts();
        runtime.block_on(async {
            tokio::select! {
                _ = stop => {
                    let _ = events.send(Event::Asked { command: Command::Stop, caller: Caller::default() });
                    let _ = released.changed().await;
                }
                _ = released.changed() => {}
            }
        });
    })?;
    drop(thread);
    system.recv().map_err(io::Error::other)
}

fn current_thread() -> io::Result<Runtime> {
    runtime::Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_PER_WORKER).build()
}

/// Starts the workers; each is an arbiter of the system. They are ready to serve when this returns.
async fn workers(
    mut house: House,
    system: &actix_rt::System,
    events: &mpsc::UnboundedSender<Event>,
    released: &channel::Receiver<()>,
) -> Result<(Vec<Desk>, Vec<thread::JoinHandle<()>>), Errors> {
    let (mut desks, mut threads, mut readies) = (Vec::new(), Vec::new(), Vec::new());
    let count = house.workers;
    let left = Arc::new(std::sync::atomic::AtomicUsize::new(count));
    for index in 0..count {
        let (desk, inbox) = Desk::new();
        let (ready, readied) = oneshot::channel();
        let (assignment, system, mut released) = (house.assignment(), system.clone(), released.clone());
        let (events, left, own) = (events.clone(), left.clone(), desk.clone());
        let empty = move || {
            if left.fetch_sub(1, std::sync::atomic::Ordering::AcqRel) == 1 {
                let _ = events.send(Event::WorkersEmpty);
            }
        };
        let (parks, unparks) = (desk.shared().clone(), desk.shared().clone());
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_PER_WORKER)
            .thread_name(format!("combo-blocking-{index}"))
            .on_thread_park(move || parks.park())
            .on_thread_unpark(move || unparks.unpark())
            .build()
            .map_err(one("worker"))?;
        let thread = thread::Builder::new().name(format!("combo-worker-{index}")).spawn(move || {
            let runner = actix_rt::System::with_tokio_rt(|| runtime);
            // Apps see the one System of the process; this thread's own only makes it an arbiter.
            actix_rt::System::set_current(system);
            let release = async move { drop(released.changed().await) };
            runner.block_on(worker::run(assignment, own, inbox, ready, empty, release));
        });
        threads.push(thread.map_err(one("worker"))?);
        desks.push(desk);
        readies.push(readied);
    }
    let mut errors: Vec<Error> = Vec::new();
    let mut named = std::collections::HashSet::new();
    for ready in readies {
        match ready.await {
            Ok(Ok(())) => {}
            // All workers fail alike; one word is enough.
            Ok(Err((mount, cause))) if named.insert(mount) => errors.push(house.unbuilt_one(mount, cause)),
            Ok(Err(_)) => {}
            Err(_) => return Err(one("worker")(io::Error::other("it ended before it was ready"))),
        }
    }
    if errors.is_empty() { Ok((desks, threads)) } else { Err(Errors(errors)) }
}

/// The threads that have runtimes. All runtimes are dropped together, since a socket that was made
/// on one may be used on another.
struct Threads {
    threads: Vec<thread::JoinHandle<()>>,
    desks: Vec<Desk>,
    names: Vec<String>,
    tallies: Vec<Tally>,
    release: channel::Sender<()>,
}

impl Threads {
    /// Ends them all; names those that do not end.
    fn end(self) {
        let _ = self.release.send(());
        let until = std::time::Instant::now() + LAST_WORD;
        for (thread, desk) in self.threads.into_iter().zip(self.desks) {
            while !thread.is_finished() && std::time::Instant::now() < until {
                thread::sleep(Duration::from_millis(1));
            }
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if !thread.is_finished() {
                let held = desk.stall(true);
                let mount = held.map(|request| &*self.names[request.mount]);
                let request = held.map(|request| request.said());
                tracing::warn!(thread = name, mount, request, "does not end: code on it never returns");
            } else if thread.join().is_err() {
                tracing::error!(thread = name, "panicked");
            }
        }
        // Nobody can wait for these, only see that they are gone.
        for (mount, tally) in self.names.iter().zip(&self.tallies) {
            while tally.own_threads() > 0 && std::time::Instant::now() < until {
                thread::sleep(Duration::from_millis(1));
            }
            let threads = tally.own_threads();
            if threads > 0 {
                tracing::warn!(mount, threads, "threads of its own do not end");
            }
        }
    }
}

/// Performs effects. The same for the watch and for the rig.
pub(crate) struct Deeds {
    tasks: Tasks,
    /// The patterns of the mounts.
    names: Vec<String>,
    ground: Arc<Ground>,
    pub(crate) desks: Vec<Desk>,
    told: Vec<Draining>,
    host: runtime::Handle,
    /// Whether the host has threads to spare while one waits for the disk.
    several: bool,
    events: mpsc::UnboundedSender<Event>,
    /// How to cut what runs.
    cuts: HashMap<u64, Cancel>,
    /// What has been decided to begin.
    starting: Vec<Starting>,
    accepting: Option<(channel::Sender<bool>, JoinSet<io::Result<()>>)>,
    /// Who manages the process, and what he is told that it does.
    supervisor: Option<(Supervisor, String)>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

/// A tick that is about to begin.
struct Starting {
    job: usize,
    run: u64,
    work: Arc<Work>,
    tick: Tick,
    cut: Cancel,
    begin: Beginning,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    events: mpsc::UnboundedSender<Event>,
}

impl Starting {
    async fn run(self) {
        let Self { job, run, work, tick, cut, begin, clock, events } = self;
        let say = move |ended| drop(events.send(Event::TaskEnded { job, run, ended }));
        match begin.written().await {
            Begin::Go => jobs::run(work, tick, cut, move || clock(), say).await,
            Begin::Held => say(Ended::held(clock())),
        }
    }
}

/// Whether there is more to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    On,
    Over,
}

impl Deeds {
    pub(crate) fn new(
        tasks: Tasks,
        names: Vec<String>,
        ground: Ground,
        desks: Vec<Desk>,
        told: Vec<Draining>,
        host: runtime::Handle,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        let (clock, ground) = (Arc::new(Timestamp::now), Arc::new(ground));
        let (cuts, starting, accepting) = (HashMap::new(), Vec::new(), None);
        let several = host.metrics().num_workers() > 1;
        Self {
            tasks,
            names,
            ground,
            desks,
            told,
            host,
            several,
            events,
            cuts,
            starting,
            accepting,
            supervisor: None,
            clock,
        }
    }

    fn with_supervisor(mut self, supervisor: Option<Supervisor>, addresses: &[Address]) -> Self {
        let places: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        let (mounts, jobs) = (self.names.len().saturating_sub(1), self.tasks.jobs.len());
        let status = match &*places {
            [] => format!("runs {jobs} jobs"),
            places => format!("serves {mounts} mounts at {}, runs {jobs} jobs", places.join(", ")),
        };
        self.supervisor = supervisor.map(|supervisor| (supervisor, status));
        self
    }

    pub(crate) fn supervisor(&self) -> Option<&Supervisor> {
        self.supervisor.as_ref().map(|(supervisor, _)| supervisor)
    }

    /// It serves.
    pub(crate) fn say_ready(&self) {
        if let Some((supervisor, status)) = &self.supervisor {
            supervisor.ready(Some(status));
        }
    }

    pub(crate) fn journal(&self) -> Journal {
        self.tasks.journal.clone()
    }

    /// Another clock, for the rig.
    #[cfg(feature = "testing")]
    pub(crate) fn with_clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Begins to accept, on the runtime that this is called on.
    pub(crate) fn accept(&mut self, listeners: Vec<Listener>) {
        let (stop, stopping) = channel::channel(false);
        let mut accepting = JoinSet::new();
        for listener in listeners {
            let accepted =
                listen::accept(listener, self.desks.clone(), self.ground.gate.clone(), stopping.clone());
            drop(accepting.spawn(accepted));
        }
        self.accepting = Some((stop, accepting));
    }

    /// All that is to be done about one event.
    pub(crate) fn perform(&mut self, effects: impl IntoIterator<Item = Effect>) -> Flow {
        let over = effects.into_iter().any(|effect| self.perform_one(effect) == Flow::Over);
        self.launch();
        if over { Flow::Over } else { Flow::On }
    }

    /// Begins ticks after all of them were put down, so that they can be written down together.
    fn launch(&mut self) {
        for one in self.starting.drain(..) {
            drop(self.host.spawn(one.run()));
        }
    }

    fn perform_one(&mut self, effect: Effect) -> Flow {
        match effect {
            Effect::Job(act) => self.act(act),
            Effect::Reply { caller, mut reply } => {
                if let Reply::Status(status) = &mut reply {
                    self.count(status);
                }
                caller.hear(reply);
            }
            Effect::Turn { mount, state, page, caller } => {
                let turn = match state {
                    MountState::Maintenance => Turn::Maintain(page.into()),
                    MountState::Paused => Turn::Pause(Arc::new(Semaphore::new(WAITING))),
                    _ => Turn::Serve,
                };
                tracing::info!(mount = self.names[mount], "{}", turn.said());
                let told = Told::new(caller);
                for desk in &self.desks {
                    desk.tell(Message::Turn(mount, turn.clone(), told.clone()));
                }
            }
            Effect::Swap { mount, target, mut caller } => {
                let (ground, desks, events) = (self.ground.clone(), self.desks.clone(), self.events.clone());
                let name = self.names[mount].clone();
                drop(self.host.spawn(async move {
                    let label = target.label.clone();
                    let swapped = swap(&ground, mount, *target, &desks, &mut caller).await;
                    match &swapped {
                        Ok(()) => tracing::info!(mount = name, "swapped for {label}"),
                        Err(why) => tracing::warn!(mount = name, "not swapped for {label}: {why}"),
                    }
                    let _ = events.send(Event::Swapped { mount, swapped, caller });
                }));
            }
            Effect::Drain => self.drain(),
            Effect::SayWhom { tasks } => self.say_whom("waiting for", &tasks),
            Effect::Cut { tasks } => {
                self.say_whom("cutting", &tasks);
                for desk in &self.desks {
                    desk.tell(Message::Cut);
                }
            }
            Effect::Stop => return Flow::Over,
        }
        Flow::On
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Start { job, run, tick, asked, exclusive } => {
                let (work, events, clock) =
                    (self.tasks.jobs[job].clone(), self.events.clone(), self.clock.clone());
                let cut = Cancel::new();
                drop(self.cuts.insert(run, cut.clone()));
                let (name, due, start) = (work.name.clone(), tick.due, tick.now);
                let (count, missed, attempt) = (tick.count, tick.missed, tick.attempt);
                let begun = Begun { run, job: name, due, start, count, missed, attempt, asked, exclusive };
                // Asked here and not by the task, so that the journal has ticks in the order of their schedules.
                let begin = self.tasks.journal.begin(begun, self.several);
                self.starting.push(Starting { job, run, work, tick, cut, begin, clock, events });
            }
            Act::Tell { cancel } => cancel.cancel(),
            Act::Cut { run } => {
                if let Some(cut) = self.cuts.get(&run) {
                    cut.cancel();
                }
            }
            Act::Record { run, entry, .. } => {
                if let Some(run) = run {
                    drop(self.cuts.remove(&run));
                }
                report(&entry);
                if let Some(heard) = &self.tasks.heard {
                    let _ = heard.send((*entry).clone());
                }
                self.tasks.journal.end(run, entry);
            }
            Act::Again { job, outcome, attempt, wait } => {
                let job = &self.tasks.jobs[job].name;
                tracing::warn!(target: "jobs", %job, attempt, again_after_ms = millis(wait), "{outcome}");
            }
            Act::Alert { entry, failures, paused, .. } => {
                let alert = Alert::new((*entry).clone(), failures, paused);
                tracing::error!(target: "jobs", job = %alert.last.job, failures, paused, "{alert}");
                if let Some(on_alert) = self.tasks.on_alert.clone() {
                    // Its panic is in the log.
                    drop(self.host.spawn_blocking(move || on_alert(&alert)));
                }
            }
            Act::Known { job, trigger } => {
                self.tasks.journal.known(self.tasks.jobs[job].name.clone(), &trigger, (self.clock)());
            }
        }
    }

    /// Looks how much memory there is.
    pub(crate) fn weigh(&self, gauge: &Gauge) {
        if let Some(used) = gauge.used() {
            self.ground.gate.uses(used, gauge.most());
        }
    }

    /// Has files looked at that would be anyway, some time later; `now` is by the monotonic clock.
    pub(crate) fn reload(&self, now: Duration) {
        let supervisor = self.supervisor().cloned();
        supervisor.iter().for_each(|supervisor| supervisor.reloading(now.as_micros()));
        let ready = move || supervisor.iter().for_each(|supervisor| supervisor.ready(None));
        match &self.tasks.noticing {
            Some(noticing) => {
                tracing::info!("SIGHUP: looks for certificates that have changed");
                noticing.look(ready);
            }
            None => {
                tracing::info!("SIGHUP: there is nothing to reload");
                ready();
            }
        }
    }

    /// What is to be looked at for that.
    pub(crate) fn gauge(&self) -> Gauge {
        Gauge::new(self.ground.gate.limits.memory)
    }

    /// What only the workers know.
    fn count(&self, status: &mut Status) {
        status.connections = self.desks.iter().map(Desk::open).sum();
        status.evicted = self.ground.gate.evictions.counts();
        for desk in &self.desks {
            let requests = desk.shared().requests();
            status.requests += requests.len();
            for (_, request) in &*requests {
                if let Some(mount) = status.mounts.get_mut(request.mount) {
                    mount.requests += 1;
                }
            }
        }
        for (mount, tally) in status.mounts.iter_mut().zip(&self.ground.tallies) {
            mount.panicked = tally.panics();
        }
    }

    /// First those who want to know are told, then the listeners hand over what the kernel had
    /// accepted, then the workers finish.
    fn drain(&mut self) {
        tracing::info!("draining");
        self.supervisor().into_iter().for_each(Supervisor::stopping);
        self.told.iter().for_each(Draining::begin);
        let (desks, events) = (self.desks.clone(), self.events.clone());
        let accepting = self.accepting.take();
        let draining = async move {
            if let Some((stop, mut accepting)) = accepting {
                let _ = stop.send(true);
                while accepting.join_next().await.is_some() {}
            }
            if desks.is_empty() {
                let _ = events.send(Event::WorkersEmpty);
            }
            for desk in desks {
                desk.tell(Message::Drain);
            }
        };
        drop(tokio::spawn(draining));
    }

    fn say_whom(&self, what: &str, tasks: &[Whom]) {
        let mut whom_all = Vec::new();
        for Whom { job, age } in tasks {
            whom_all.push(format!("task `{}`", self.tasks.jobs[*job].name));
            tracing::info!(job = %self.tasks.jobs[*job].name, seconds = age.as_secs(), "{what} a task");
        }
        for desk in &self.desks {
            for (whom, all) in [("requests", desk.in_flight()), ("upgraded connections", desk.upgraded())] {
                whom_all.extend(all.iter().map(|(one, _)| format!("{} {}", one.kind, one.said())));
                for (one, age) in all.iter().take(NAMED) {
                    let (mount, said, kind) = (&*self.names[one.mount], one.said(), one.kind);
                    tracing::info!(mount, request = said, seconds = age, "{what} a {kind}");
                }
                if let Some(more) = all.len().checked_sub(NAMED).filter(|more| *more > 0) {
                    tracing::info!(more, "{what} more {whom} of the same worker");
                }
            }
        }
        self.supervisor().into_iter().for_each(|supervisor| supervisor.waits(what, &whom_all));
    }

    /// The stall watch names what holds a worker.
    pub(crate) fn name_stalled(&self, index: usize, held: Duration) {
        let worker = format!("combo-worker-{index}");
        let millis = u64::try_from(held.as_millis()).unwrap_or(u64::MAX);
        match self.desks[index].stall(true) {
            Some(request) => {
                let (mount, said) = (&*self.names[request.mount], request.said());
                tracing::warn!(
                    worker,
                    mount,
                    request = said,
                    millis,
                    "an app holds its worker: it blocks or spins"
                );
            }
            None => tracing::warn!(worker, millis, "something spawned by an app holds its worker"),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One line per tick, or per row of ticks that were skipped or missed.
fn report(entry: &Entry) {
    let Entry { job, due, missed, ticks, attempt, outcome, .. } = entry;
    let late = u64::try_from(entry.lateness.as_micros()).unwrap_or(u64::MAX);
    let took = u64::try_from(entry.took().as_micros()).unwrap_or(u64::MAX);
    let missed = (*missed > 0).then_some(*missed);
    let attempt = (*attempt > 1).then_some(*attempt);
    let ticks = (*ticks > 1).then_some(*ticks);
    match outcome {
        Outcome::Ran => {
            tracing::info!(target: "jobs", %job, %due, late_us = late, took_us = took, missed, attempt, "{outcome}");
        }
        Outcome::Skipped { .. } | Outcome::Missed { .. } | Outcome::Cancelled { .. } => {
            tracing::warn!(target: "jobs", %job, %due, ticks, "{outcome}");
        }
        _ => {
            tracing::error!(target: "jobs", %job, %due, late_us = late, took_us = took, missed, attempt, "{outcome}");
        }
    }
}
