//! A deployment: what was said. A plain value; building it opens and runs nothing.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use combo_core::{
    AfterFailures, Alert, BoxError, Change, Draining, Missed, OnDrain, Overlap, Policies, Retry, Schedule,
    Task, Tick, Trigger, schedule::Fault,
};
use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    jobs::{ErasedTask, Keep, Program, erase, erase_blocking},
    mount::{
        Inner, Target,
        layer::{Wrap, wrap},
    },
    serve::{body::RequestBody, hsts::Hsts, limits::Limits},
};

/// How long draining may take unless said otherwise.
pub const DRAIN: Duration = Duration::from_secs(30);

/// How many jobs may run at once unless said otherwise.
pub const RUNNING_JOBS: usize = 256;

/// What is done about a job that keeps failing.
pub(crate) type OnAlert = Arc<dyn Fn(&Alert) + Send + Sync>;

/// Endpoints, mounts, jobs and settings, as they were said.
///
/// Methods take what one would type and never fail; [`Deployment::plan`] finds everything that is
/// wrong at once.
#[must_use = "a deployment does nothing until it is planned and started"]
pub struct Deployment {
    pub(crate) name: String,
    pub(crate) listen: Vec<String>,
    pub(crate) mounts: Vec<(String, Target)>,
    pub(crate) layers: Vec<Box<dyn Wrap>>,
    pub(crate) trusted_proxies: Vec<String>,
    pub(crate) proxy_headers: Option<Vec<String>>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) running_jobs: usize,
    pub(crate) on_alert: Option<OnAlert>,
    pub(crate) state: Option<PathBuf>,
    pub(crate) keep: Keep,
    pub(crate) root: Option<PathBuf>,
    pub(crate) user: Option<String>,
    pub(crate) workers: Option<usize>,
    pub(crate) drain: Duration,
    pub(crate) told: Vec<Draining>,
    pub(crate) limits: Limits,
    pub(crate) redirect_to_https: bool,
    pub(crate) hsts: Option<Hsts>,
    pub(crate) access_log: bool,
}

impl Deployment {
    /// A deployment that does nothing yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            listen: Vec::new(),
            mounts: Vec::new(),
            layers: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_headers: None,
            jobs: Vec::new(),
            running_jobs: RUNNING_JOBS,
            on_alert: None,
            state: None,
            keep: Keep::default(),
            root: None,
            user: None,
            workers: None,
            drain: DRAIN,
            told: Vec::new(),
            limits: Limits::default(),
            redirect_to_https: false,
            hsts: None,
            access_log: true,
        }
    }

    /// Listens on an endpoint: `"tcp:8080"`, `8080`, or a typed [`Endpoint`](combo_core::Endpoint).
    /// The grammar is in [`combo_core::endpoint`].
    pub fn listen(mut self, endpoint: impl fmt::Display) -> Self {
        self.listen.push(endpoint.to_string());
        self
    }

    /// Makes a [`redirect:`](combo_core::endpoint) of every endpoint in clear text, but for unix sockets: requests there
    /// are led to their address under https (308), and nothing else is served there. Default: no.
    ///
    /// ```
    /// # use combo::{Deployment, secs};
    /// let deployment = Deployment::new("example")
    ///     .listen("tcp:80")
    ///     .listen("tls:certificates:tcp:443")
    ///     .redirect_to_https()
    ///     .hsts(secs(365 * 24 * 3_600));
    /// ```
    pub fn redirect_to_https(mut self) -> Self {
        self.redirect_to_https = true;
        self
    }

    /// Tells browsers in every answer over https to use nothing else for so long, as a `Duration` or with more in
    /// [`Hsts`]: `Strict-Transport-Security` (RFC 6797), whatever an app says there. It is in refusals, too, but not in what
    /// the HTTP library says to what is no request. Default: it is not said.
    pub fn hsts(mut self, hsts: impl Into<Hsts>) -> Self {
        self.hsts = Some(hsts.into());
        self
    }

    /// Mounts a target at a pattern: `"/blog"`, `"admin.example.com/"`. The grammar is in
    /// [`combo_core::pattern`]; the order of saying does not matter.
    pub fn mount(mut self, pattern: impl fmt::Display, target: Target) -> Self {
        self.mounts.push((pattern.to_string(), target));
        self
    }

    /// Puts a tower layer around the whole deployment: around routing and all mounts, and the combo's
    /// own 404. One that is said later is around those said before. It may change the path before it is
    /// routed. See [`Target::layer`].
    pub fn layer<L, B>(mut self, layer: L) -> Self
    where
        L: Layer<Inner> + Clone + Send + 'static,
        L::Service: Service<Request<RequestBody>, Response = Response<B>> + Clone + 'static,
        <L::Service as Service<Request<RequestBody>>>::Error: Into<BoxError>,
        <L::Service as Service<Request<RequestBody>>>::Future: 'static,
        B: Body<Data = Bytes> + 'static,
        B::Error: Into<BoxError>,
    {
        self.layers.push(wrap(layer));
        self
    }

    /// Runs a job.
    pub fn job(mut self, job: Job) -> Self {
        self.jobs.push(job);
        self
    }

    /// How many jobs may run at once; more wait until others have ended, and what they then have missed is
    /// their own business: see [`Job::missed`]. Default: 256.
    ///
    /// A job that waits for its next attempt does not count. One whose task blocks its thread and cannot be
    /// ended does.
    pub fn running_jobs(mut self, most: usize) -> Self {
        self.running_jobs = most;
        self
    }

    /// What is done when a job keeps failing, beside the error in the log: see [`Job::after_failures`]. It is
    /// called on the blocking pool, so it may wait.
    pub fn on_alert(mut self, alert: impl Fn(&Alert) + Send + Sync + 'static) -> Self {
        self.on_alert = Some(Arc::new(alert));
        self
    }

    /// The folder where the combo keeps what it has to know after a restart: the ledger of all ticks. It is
    /// made if it is not there. A relative path is under the root. Default: none, and the last 1,000 entries of
    /// the ledger are kept in memory.
    ///
    /// With it, ticks that are due while no process runs are missed ticks (see [`Job::missed`]), a tick that was
    /// running when the process was killed is recorded as cancelled, and the commands `jobs` and `ledger` say
    /// what has happened. One process at a time may use it.
    pub fn state(mut self, folder: impl Into<PathBuf>) -> Self {
        self.state = Some(folder.into());
        self
    }

    /// How much of the ledger is kept in the state folder.
    pub fn keep(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }

    /// The folder that relative paths are under. Default: the one that the process was started in.
    pub fn root(mut self, folder: impl Into<PathBuf>) -> Self {
        self.root = Some(folder.into());
        self
    }

    /// Who the process becomes once it listens, for one that is started as root to have a port under 1024:
    /// `"www"`, `"www:web"`, `1000`. The grammar is in [`combo_core::user`]. Default: it stays who it is.
    ///
    /// As root it only listens: ports are bound, and keys and certificates read. Then all of the process,
    /// every thread that is there and every one to come, is that user, in its groups, without a capability and
    /// with no way back: programs that it starts gain nothing by their own file's owner or capabilities
    /// either, so `sudo` and `ping` may not work in them. This is looked at thread by thread, and tried,
    /// before anything else is opened: unix sockets, folders, ledger, mounts that are built at the start. What
    /// builds the deployment itself runs before that, as root.
    ///
    /// Paths are the user's to reach: the root and what is in it, and the folder of the state. Unix sockets are
    /// files that it makes and takes away at the end, so their folders have to be ones that it may write.
    ///
    /// Who is started as that user already has nothing to give up, and keeps what capabilities it was given.
    /// Who is another, and not root, is refused. If anything is refused the process may be the user all the
    /// same: of a program that goes on after [`start`](crate::start) has failed, nothing is root's any more.
    ///
    /// Commands that jobs run are told of the user by `HOME`, `USER`, `LOGNAME` and `SHELL`, as services are by
    /// systemd.
    pub fn user(mut self, user: impl fmt::Display) -> Self {
        self.user = Some(user.to_string());
        self
    }

    /// Whom to believe what they say of others: addresses (`"192.0.2.1"`), networks (`"10.0.0.0/8"`), or
    /// `"unix"` for whoever connects over a unix socket. Default: nobody.
    ///
    /// What they say in the headers of [`proxy_headers`](Self::proxy_headers) is what apps are told by
    /// their frameworks' own means: peer, scheme, host and prefix. The peer is the nearest on the way that
    /// is not trusted itself. Apps do not see these headers, whoever sent them, but for
    /// `X-Forwarded-Prefix`.
    ///
    /// Over `haproxy:` endpoints, connections from others than these are refused, and there has to be one
    /// of these: `"unix"` for a unix socket, else an address or a network. There the peer is whom the
    /// PROXY header names, so what a request says of others is believed only if that one is trusted.
    pub fn trusted_proxies<I>(mut self, proxies: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.trusted_proxies.extend(proxies.into_iter().map(Into::into));
        self
    }

    /// In which headers the trusted proxies say it: any of `x-forwarded-for`, `-proto`, `-host` and
    /// `-prefix`; or `forwarded` (RFC 7239), alone or with `x-forwarded-prefix`. Default: `x-forwarded-for`
    /// and `x-forwarded-proto`.
    ///
    /// Proxies must set each of these headers, add to it, or take away what a client wrote: what they let
    /// through unseen is believed. So name `x-forwarded-host` and `-prefix` only where yours set them. No
    /// other header is looked at, even if none of these is there.
    ///
    /// ```
    /// # use combo::Deployment;
    /// let deployment = Deployment::new("example")
    ///     .trusted_proxies(["10.0.0.0/8"])
    ///     .proxy_headers(["x-forwarded-for", "x-forwarded-proto", "x-forwarded-prefix"]);
    /// ```
    pub fn proxy_headers<I>(mut self, names: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.proxy_headers = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// How many threads serve requests. Default: one per processor that the process may use.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// How long draining may take before what is left is cut. Default: 30 s. Every second the log says whom
    /// it waits for. What has been cut has two more seconds to go before the process goes without it.
    /// More than a year is a year.
    pub fn drain(mut self, budget: Duration) -> Self {
        self.drain = budget;
        self
    }

    /// Tells apps when the drain begins: whoever waits for this value or a clone of it. May be said of several
    /// values.
    ///
    /// Requests in flight are waited for in any case. This is for what has no end of its own, such as a
    /// websocket or a stream of events, and for what an app has running beside its requests.
    ///
    /// ```
    /// use combo::{Deployment, Draining, mount};
    /// # fn app(_: impl Future<Output = ()>) -> mount::Target { mount::redirect("/b") }
    ///
    /// let draining = Draining::new();
    /// let deployment = Deployment::new("example").mount("/a", app(draining.wait())).tell(draining);
    /// ```
    ///
    /// Where a mount says [`Target::context`], its requests have such a value with them. A websocket over
    /// HTTP/1 that its app has not closed a second after it was told is closed with code 1001 after the message
    /// that it is in, whatever the app is doing. If its peer or its app has not ended it a second or two later,
    /// it is cut; a message that has begun and does not end has the budget.
    pub fn tell(mut self, draining: Draining) -> Self {
        self.told.push(draining);
        self
    }

    /// Deadlines and caps. Start from `Limits::default()`.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Whether each request is logged. Default: yes.
    pub fn access_log(mut self, on: bool) -> Self {
        self.access_log = on;
        self
    }
}

impl fmt::Debug for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deployment").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A name, a trigger, a task and policies.
#[must_use = "a job does nothing until a deployment has it"]
pub struct Job {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) may_write: Vec<PathBuf>,
    pub(crate) policies: Policies,
}

pub(crate) enum Kind {
    /// A task of ours.
    Task { when: When, task: Arc<dyn ErasedTask> },
    /// A command.
    Command { when: When, program: Program },
    /// Somebody else's job, or why there is none.
    #[cfg(feature = "tokio-cron-scheduler")]
    Hosted(Result<tokio_cron_scheduler::Job, String>),
}

impl Job {
    /// A task and what makes it due: `"every 4s"`, `"daily at 03:30 in Europe/Berlin"`, `"cron 30 3 * * *"`,
    /// `"after 4s"`, `"at start"`, `"when static/list.csv changes"`, or a typed [`Schedule`] or [`Trigger`]. The
    /// grammar is in [`combo_core::schedule`] and [`combo_core::trigger`].
    pub fn new(name: impl Into<String>, when: impl Into<When>, task: impl Task) -> Self {
        Self::of(name.into(), Kind::Task { when: when.into(), task: erase(task) })
    }

    /// The same for a function that blocks: it is called on the blocking pool, so it holds up nothing else.
    ///
    /// It cannot be ended from outside, only told to: [`Tick::cancel`]. If it goes on all the same its tick is
    /// recorded as what it is, and it keeps its thread.
    pub fn blocking<F>(name: impl Into<String>, when: impl Into<When>, task: F) -> Self
    where
        F: Fn(Tick) -> Result<Vec<Change>, BoxError> + Send + Sync + 'static,
    {
        Self::of(name.into(), Kind::Task { when: when.into(), task: erase_blocking(task) })
    }

    /// The same for a command: a program of its own.
    pub fn command(name: impl Into<String>, when: impl Into<When>, program: Program) -> Self {
        Self::of(name.into(), Kind::Command { when: when.into(), program })
    }

    /// A `tokio_cron_scheduler::Job` as it is, or the `Result` of making one. Its own schedule says
    /// when, its own code runs, and it does its own writing. It has the same policies as others, but that
    /// it cannot be ended from outside.
    #[cfg(feature = "tokio-cron-scheduler")]
    pub fn hosted(name: impl Into<String>, job: impl Into<Hosted>) -> Self {
        Self::of(name.into(), Kind::Hosted(job.into().0))
    }

    fn of(name: String, kind: Kind) -> Self {
        Self { name, kind, may_write: Vec::new(), policies: Policies::default() }
    }

    /// Lets the job's task change files in this folder. May be said more than once; without it a
    /// task changes nothing. A relative path is under the deployment's root.
    pub fn may_write(mut self, folder: impl Into<PathBuf>) -> Self {
        self.may_write.push(folder.into());
        self
    }

    /// What becomes of a tick that is due while the one before it runs. Default: it is skipped; for a trigger
    /// that is an event, it waits.
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.policies.overlap = Some(overlap);
        self
    }

    /// What becomes of ticks whose time went by without a run: because no process ran, the machine was asleep,
    /// the clock was put forward, the job was paused, or all was busy. Default: [`Missed::Merge`].
    pub fn missed(mut self, missed: Missed) -> Self {
        self.policies.missed = missed;
        self
    }

    /// How long an attempt may take. Then its task is told to end, by [`Tick::cancel`], and after its
    /// [`grace`](Self::grace) it is cut where it waits. Making the changes that it has asked for is not limited.
    /// Default: no limit.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.policies.limit = Some(limit);
        self
    }

    /// How long a task may take to end after it was told to. Default: 5 s.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.policies.grace = grace;
        self
    }

    /// How often a tick that has failed or timed out is tried again. Default: not at all.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.policies.retry = Some(retry);
        self
    }

    /// Starts every tick later than due, by a part of this that is always the same for one job on one host, so
    /// that what is due at one instant does not start at one instant. Default: not at all.
    pub fn jitter(mut self, most: Duration) -> Self {
        self.policies.jitter = most;
        self
    }

    /// What is done when so many ticks in a row have failed or timed out: once, until one has run. Default:
    /// nothing.
    pub fn after_failures(mut self, failures: u32, then: AfterFailures) -> Self {
        self.policies.failures = Some((failures, then));
        self
    }

    /// What becomes of a tick that runs when the combo stops. Default: it is waited for, within the budget.
    pub fn on_drain(mut self, on_drain: OnDrain) -> Self {
        self.policies.on_drain = on_drain;
        self
    }
}

/// What makes a job due: what [`Job::new`] takes.
#[derive(Clone, Debug)]
pub struct When {
    /// As it was said; nothing if it was made.
    pub(crate) said: String,
    pub(crate) trigger: Result<Trigger, Fault>,
}

impl From<String> for When {
    fn from(said: String) -> Self {
        Self { trigger: said.parse(), said }
    }
}

impl From<&str> for When {
    fn from(said: &str) -> Self {
        said.to_owned().into()
    }
}

impl<T: Into<Trigger>> From<Result<T, Fault>> for When {
    fn from(made: Result<T, Fault>) -> Self {
        Self { said: String::new(), trigger: made.map(Into::into) }
    }
}

impl From<Schedule> for When {
    fn from(schedule: Schedule) -> Self {
        Ok::<_, Fault>(schedule).into()
    }
}

impl From<Trigger> for When {
    fn from(trigger: Trigger) -> Self {
        Ok::<_, Fault>(trigger).into()
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What [`Job::hosted`] takes: a job, or the result of making one.
#[cfg(feature = "tokio-cron-scheduler")]
pub struct Hosted(Result<tokio_cron_scheduler::Job, String>);

#[cfg(feature = "tokio-cron-scheduler")]
impl fmt::Debug for Hosted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosted").finish_non_exhaustive()
    }
}

#[cfg(feature = "tokio-cron-scheduler")]
impl From<tokio_cron_scheduler::Job> for Hosted {
    fn from(job: tokio_cron_scheduler::Job) -> Self {
        Self(Ok(job))
    }
}

#[cfg(feature = "tokio-cron-scheduler")]
impl<E: std::error::Error + 'static> From<Result<tokio_cron_scheduler::Job, E>> for Hosted {
    fn from(made: Result<tokio_cron_scheduler::Job, E>) -> Self {
        Self(made.map_err(|error| crate::error::chain(&error)))
    }
}

/// The typed form of `"every 4s"`.
#[must_use]
pub fn every(interval: Duration) -> When {
    When { said: format!("every {interval:?}"), trigger: Schedule::every(interval).map(Trigger::from) }
}

/// The typed form of `"cron 30 3 * * *"`.
#[must_use]
pub fn cron(expression: &str) -> When {
    format!("cron {expression}").into()
}

/// So many seconds.
#[must_use]
pub const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// So many milliseconds.
#[must_use]
pub const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}
