//! outcome -> one line per tick.
//!
//! Takes one [`Entry`] per tick; gives the last of them, and counts per job since the start of the
//! process. Pure and in memory: what is recorded is a value, so that a journal on disk can take the
//! same entries.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use combo_core::{JobStatus, Timestamp};

/// How many entries are kept.
pub(crate) const KEPT: usize = 10_000;

/// How a tick ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The task returned and everything that it asked for was done.
    Ran,
    /// The task returned an error, or a change could not be made.
    Failed {
        /// What went wrong, with its causes.
        why: String,
    },
    /// The task panicked.
    Panicked {
        /// What it said.
        why: String,
    },
    /// The task asked for a change that its job may not make.
    Refused {
        /// Which, and why it may not.
        why: String,
    },
    /// The task was cut because the combo stopped.
    Cancelled,
    /// The task was not started.
    Skipped {
        /// Why not.
        why: String,
    },
}

/// What became of one tick of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The name of the job.
    pub job: Arc<str>,
    /// The instant that the schedule named.
    pub due: Timestamp,
    /// When the task was started.
    pub start: Timestamp,
    /// When it had ended and its changes were made.
    pub end: Timestamp,
    /// The how-manieth tick of this job since the start of the process, from 1.
    pub count: u64,
    /// How many due instants before this one were merged into it.
    pub missed: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The changes that were made, described; at most a few, and how many more.
    pub changes: Vec<String>,
}

/// The record of outcomes.
#[derive(Debug)]
pub(crate) struct Ledger {
    jobs: Vec<Counts>,
    entries: VecDeque<Entry>,
    kept: usize,
}

/// How often a job's ticks ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Ran.
    pub ran: u64,
    /// Failed, panicked or refused.
    pub failed: u64,
    /// Skipped.
    pub skipped: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Due instants merged into a later tick.
    pub missed: u64,
}

impl Ledger {
    /// For so many jobs, of which the last `kept` entries are kept.
    pub(crate) fn new(jobs: usize, kept: usize) -> Self {
        Self { jobs: vec![Counts::default(); jobs], entries: VecDeque::new(), kept }
    }

    /// Records the one outcome of one tick of the job with this index.
    pub(crate) fn record(&mut self, job: usize, entry: Entry) {
        if let Some(counts) = self.jobs.get_mut(job) {
            counts.missed += entry.missed;
            *match entry.outcome {
                Outcome::Ran => &mut counts.ran,
                Outcome::Failed { .. } | Outcome::Panicked { .. } | Outcome::Refused { .. } => {
                    &mut counts.failed
                }
                Outcome::Cancelled => &mut counts.cancelled,
                Outcome::Skipped { .. } => &mut counts.skipped,
            } += 1;
        }
        if self.entries.len() >= self.kept {
            drop(self.entries.pop_front());
        }
        if self.kept > 0 {
            self.entries.push_back(entry);
        }
    }

    /// The entries that are kept, the oldest first.
    pub(crate) fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> + ExactSizeIterator {
        self.entries.iter()
    }

    /// The counts of the job with this index.
    pub(crate) fn counts(&self, job: usize) -> Counts {
        self.jobs.get(job).copied().unwrap_or_default()
    }
}

impl Counts {
    /// Puts what is counted into a status; the rest of it is left.
    pub(crate) fn fill(self, status: &mut JobStatus) {
        (status.ran, status.failed) = (self.ran, self.failed);
        (status.skipped, status.missed) = (self.skipped, self.missed);
    }
}

impl Entry {
    /// An entry of a tick that made no changes.
    pub(crate) fn new(job: Arc<str>, tick: &combo_core::Tick, end: Timestamp, outcome: Outcome) -> Self {
        Self {
            job,
            due: tick.due,
            start: tick.now,
            end,
            count: tick.count,
            missed: tick.missed,
            outcome,
            changes: Vec::new(),
        }
    }

    /// How long after its due instant the task was started.
    #[must_use]
    pub fn lateness(&self) -> Duration {
        span(self.due, self.start)
    }

    /// How long it took, changes included.
    #[must_use]
    pub fn took(&self) -> Duration {
        span(self.start, self.end)
    }
}

/// Zero if the clock went back between the two.
fn span(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ran => f.write_str("ran"),
            Self::Failed { why } => write!(f, "failed: {why}"),
            Self::Panicked { why } => write!(f, "panicked: {why}"),
            Self::Refused { why } => write!(f, "was refused: {why}"),
            Self::Cancelled => f.write_str("was cancelled"),
            Self::Skipped { why } => write!(f, "was skipped: {why}"),
        }
    }
}

/// One sentence, without the times.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job `{}` {}", self.job, self.outcome)?;
        for (i, change) in self.changes.iter().enumerate() {
            write!(f, "{}{change}", if i == 0 { "; " } else { ", " })?;
        }
        Ok(())
    }
}
