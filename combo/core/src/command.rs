//! What can be asked of a running combo, and what comes back.

use jiff::Timestamp;

/// Something to do. Signals and the handle say the same words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Stop: accept nothing more, finish what is in flight, cut what is left when the drain
    /// budget is over.
    Stop,
    /// Cut what is still in flight, now.
    Cut,
    /// Run one job once, now, beside its schedule.
    RunJob {
        /// The job's name.
        name: String,
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
    /// A line per mount, in the order they were said.
    pub mounts: Vec<MountStatus>,
    /// A line per job, in the order they were said.
    pub jobs: Vec<JobStatus>,
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
    /// The next due instant, if there is one.
    pub next: Option<Timestamp>,
    /// Whether it is running now.
    pub running: bool,
    /// Ticks that ran to their end.
    pub ran: u64,
    /// Ticks that failed, panicked or were refused.
    pub failed: u64,
    /// Ticks left out because the one before was still running.
    pub skipped: u64,
    /// Due instants merged into a later tick.
    pub missed: u64,
}

impl JobStatus {
    /// A job that has not yet had a tick.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), next: None, running: false, ran: 0, failed: 0, skipped: 0, missed: 0 }
    }
}
