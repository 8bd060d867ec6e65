//! What can be asked of a running combo, and what comes back.

use std::time::Duration;

use jiff::Timestamp;

use crate::outcome::{Counts, Entry};

/// Something to do. Signals and the handle say the same words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Stop: accept nothing more, finish what is in flight, cut what is left when the drain
    /// budget is over.
    Stop,
    /// Cut what is still in flight, now.
    Cut,
    /// Run one job once, now, beside its schedule, even if it is paused. Its policies hold: while it runs it
    /// is refused, unless it may run more than once at a time.
    RunJob {
        /// The job's name.
        name: String,
        /// The due instant that its task is told; now, unless said.
        due: Option<Timestamp>,
    },
    /// Start no more ticks of a job until it is resumed or the process is started again; one that runs is
    /// finished.
    PauseJob {
        /// The job's name.
        name: String,
    },
    /// Go on with a job. What would have been due meanwhile has been missed.
    ResumeJob {
        /// The job's name.
        name: String,
    },
    /// End what runs of a job, attempts that are still to come included: its tasks are told, and cut after
    /// the job's grace.
    CancelJob {
        /// The job's name.
        name: String,
    },
    /// Have a job due at other times, until the process is started again. What runs is finished.
    Reschedule {
        /// The job's name.
        name: String,
        /// As a job is given it: `every 10s`, `daily at 03:30`.
        trigger: String,
    },
    /// Say how ticks have ended, the last first.
    Ledger {
        /// The job's name; nothing for all jobs.
        job: Option<String>,
        /// No more than so many, and no more than are kept in memory: 1,000 of all jobs together.
        most: usize,
    },
    /// Say how things stand.
    Status,
    /// Have a mount answer every new request with 503 and this page until it is resumed; what is in flight
    /// is finished. Again with another page, the page is replaced.
    Maintain {
        /// Its pattern.
        mount: String,
        /// HTML if it begins with `<`, else plain text; nothing for a sentence of our own.
        page: String,
    },
    /// Have new requests of a mount wait until it is resumed; what is in flight is finished. Up to 1,024
    /// wait, in all workers together; more are answered 503, and so are those that wait when the combo stops.
    Pause {
        /// Its pattern.
        mount: String,
    },
    /// End a mount's maintenance or pause.
    Resume {
        /// Its pattern.
        mount: String,
    },
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// It was begun.
    Begun,
    /// It was done, on every worker.
    Done,
    /// It was not done, and why.
    Refused {
        /// One sentence, lower case.
        why: String,
    },
    /// How things stand.
    Status(Status),
    /// How ticks have ended.
    Ledger(Vec<Entry>),
    /// There is nobody to ask any more: the combo has stopped.
    Stopped,
}

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Whether the combo is draining.
    pub draining: bool,
    /// Open connections.
    pub connections: usize,
    /// Requests in flight.
    pub requests: usize,
    /// How many connections were not let in or were ended, a line for each reason there is.
    pub evicted: Vec<Evicted>,
    /// A line per mount, in the order they were said.
    pub mounts: Vec<MountStatus>,
    /// A line per job, in the order they were said.
    pub jobs: Vec<JobStatus>,
}

/// How many connections were not let in or were ended because of their peers; over HTTP/2, requests of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Evicted {
    /// What the peer did: `the peer sent nothing`.
    pub why: String,
    /// Since the process was started.
    pub connections: u64,
}

impl Evicted {
    /// So many.
    #[must_use]
    pub fn new(why: impl Into<String>, connections: u64) -> Self {
        Self { why: why.into(), connections }
    }
}

/// How one mount stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MountStatus {
    /// Its pattern.
    pub pattern: String,
    /// What is behind it, as the plan says it.
    pub target: String,
    /// What becomes of its requests.
    pub state: MountState,
    /// Its requests in flight, those that wait in a pause included.
    pub requests: usize,
    /// How often it has panicked so far while it was asked: before the head of an answer or in a body, on
    /// workers and on threads of its own. What it has spawned is not known here.
    pub panicked: u64,
}

impl MountStatus {
    /// A mount that serves and has not had a request.
    #[must_use]
    pub fn new(pattern: impl Into<String>, target: impl Into<String>) -> Self {
        let (pattern, target) = (pattern.into(), target.into());
        Self { pattern, target, state: MountState::Serving, requests: 0, panicked: 0 }
    }
}

/// What becomes of a mount's requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MountState {
    /// They are given to its app.
    #[default]
    Serving,
    /// They are answered 503.
    Maintenance,
    /// They wait.
    Paused,
}

/// How one job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobStatus {
    /// Its name.
    pub name: String,
    /// When it is due, as it was said.
    pub trigger: String,
    /// The next due instant, if one is known; the job's jitter is not in it.
    pub next: Option<Timestamp>,
    /// How many of its ticks are running now; those that wait for their next attempt are.
    pub running: usize,
    /// Why it is paused, if it is.
    pub paused: Option<String>,
    /// How many ticks in a row have failed or timed out.
    pub failures: u32,
    /// How its ticks have ended so far; those of earlier processes included, as far as the ledger goes.
    pub counts: Counts,
    /// How the last tick that was started ended.
    pub last: Option<Entry>,
}

impl JobStatus {
    /// A job that has not yet had a tick.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            trigger: String::new(),
            next: None,
            running: 0,
            paused: None,
            failures: 0,
            counts: Counts::default(),
            last: None,
        }
    }

    /// How long after its due instant the last tick that was started, was.
    #[must_use]
    pub fn lateness(&self) -> Option<Duration> {
        self.last.as_ref().map(|last| last.lateness)
    }
}
