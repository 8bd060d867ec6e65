//! A deployment: what was said. A plain value; building it opens and runs nothing.

use std::{fmt, path::PathBuf, time::Duration};

use bytes::Bytes;
use combo_core::{BoxError, Draining, Schedule, Task};
use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    jobs::{ErasedTask, erase},
    mount::{
        Inner, Target,
        layer::{Wrap, wrap},
    },
    serve::{body::RequestBody, limits::Limits},
};

/// How long draining may take unless said otherwise.
pub const DRAIN: Duration = Duration::from_secs(30);

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
    pub(crate) root: Option<PathBuf>,
    pub(crate) workers: Option<usize>,
    pub(crate) drain: Duration,
    pub(crate) told: Vec<Draining>,
    pub(crate) limits: Limits,
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
            root: None,
            workers: None,
            drain: DRAIN,
            told: Vec::new(),
            limits: Limits::default(),
            access_log: true,
        }
    }

    /// Listens on an endpoint: `"tcp:8080"`, `8080`, or a typed [`Endpoint`](combo_core::Endpoint).
    /// The grammar is in [`combo_core::endpoint`].
    pub fn listen(mut self, endpoint: impl fmt::Display) -> Self {
        self.listen.push(endpoint.to_string());
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

    /// The folder that relative paths are under. Default: the one that the process was started in.
    pub fn root(mut self, folder: impl Into<PathBuf>) -> Self {
        self.root = Some(folder.into());
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
}

pub(crate) enum Kind {
    /// A task of ours.
    Task { schedule: String, task: std::sync::Arc<dyn ErasedTask> },
    /// Somebody else's job, or why there is none.
    #[cfg(feature = "tokio-cron-scheduler")]
    Hosted(Result<tokio_cron_scheduler::Job, String>),
}

impl Job {
    /// A task on a schedule: `"every 4s"`, `"cron 30 3 * * *"`, or [`every`]`(secs(4))`. The grammar
    /// is in [`combo_core::schedule`].
    pub fn new(name: impl Into<String>, schedule: impl fmt::Display, task: impl Task) -> Self {
        let kind = Kind::Task { schedule: schedule.to_string(), task: erase(task) };
        Self { name: name.into(), kind, may_write: Vec::new() }
    }

    /// A `tokio_cron_scheduler::Job` as it is, or the `Result` of making one. Its own schedule says
    /// when, its own code runs, and it does its own writing.
    #[cfg(feature = "tokio-cron-scheduler")]
    pub fn hosted(name: impl Into<String>, job: impl Into<Hosted>) -> Self {
        Self { name: name.into(), kind: Kind::Hosted(job.into().0), may_write: Vec::new() }
    }

    /// Lets the job's task change files in this folder. May be said more than once; without it a
    /// task changes nothing. A relative path is under the deployment's root.
    pub fn may_write(mut self, folder: impl Into<PathBuf>) -> Self {
        self.may_write.push(folder.into());
        self
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
pub fn every(interval: Duration) -> impl fmt::Display {
    // One that a schedule cannot have is said as it is, and `plan` names it.
    Schedule::every(interval).map_or_else(|_| format!("every {interval:?}"), |every| every.to_string())
}

/// The typed form of `"cron 30 3 * * *"`.
#[must_use]
pub fn cron(expression: &str) -> impl fmt::Display + use<> {
    format!("cron {expression}")
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
