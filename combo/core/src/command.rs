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
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// It was begun.
    Begun,
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
    /// A line per job, in the order they were said.
    pub jobs: Vec<JobStatus>,
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
