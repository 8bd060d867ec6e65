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
    #[cfg(any(test, feature = "testing"))]
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

#[cfg(test)]
mod tests {
    use combo_core::Tick;

    use super::*;

    fn at(millisecond: i64) -> Timestamp {
        Timestamp::from_millisecond(millisecond).expect("in range")
    }

    fn why() -> String {
        "the reason".to_owned()
    }

    fn outcomes() -> [(Outcome, &'static str); 6] {
        [
            (Outcome::Ran, "ran"),
            (Outcome::Failed { why: why() }, "failed: the reason"),
            (Outcome::Panicked { why: why() }, "panicked: the reason"),
            (Outcome::Refused { why: why() }, "was refused: the reason"),
            (Outcome::Cancelled, "was cancelled"),
            (Outcome::Skipped { why: why() }, "was skipped: the reason"),
        ]
    }

    fn entry(outcome: Outcome) -> Entry {
        Entry::new("clock".into(), &Tick::at(at(4_000)), at(4_010), outcome)
    }

    #[test]
    fn every_outcome_is_a_sentence() {
        for (outcome, said) in outcomes() {
            assert_eq!(entry(outcome).to_string(), format!("job `clock` {said}"));
        }
        let mut entry = entry(Outcome::Ran);
        entry.changes = vec!["write `a` (1 bytes)".into(), "remove `b`".into()];
        assert_eq!(entry.to_string(), "job `clock` ran; write `a` (1 bytes), remove `b`");
    }

    #[test]
    fn every_outcome_is_counted_once() {
        let mut ledger = Ledger::new(2, KEPT);
        for (outcome, _) in outcomes() {
            let mut entry = entry(outcome);
            entry.missed = 2;
            ledger.record(1, entry);
        }
        let counts = Counts { ran: 1, failed: 3, skipped: 1, cancelled: 1, missed: 12 };
        assert_eq!((ledger.counts(0), ledger.counts(1)), (Counts::default(), counts));
        let mut status = JobStatus::new("clock");
        status.running = true;
        counts.fill(&mut status);
        assert_eq!((status.ran, status.failed, status.skipped, status.missed), (1, 3, 1, 12));
        assert!(status.running);
    }

    #[test]
    fn the_last_entries_are_kept_and_all_are_counted() {
        let mut ledger = Ledger::new(1, 3);
        for count in 1..=5 {
            let mut entry = entry(Outcome::Ran);
            entry.count = count;
            ledger.record(0, entry);
        }
        assert_eq!(ledger.entries().map(|entry| entry.count).collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(ledger.counts(0).ran, 5);
        let mut none = Ledger::new(1, 0);
        none.record(0, entry(Outcome::Ran));
        assert_eq!((none.entries().len(), none.counts(0).ran), (0, 1));
    }

    #[test]
    fn lateness_and_duration_are_never_negative() {
        for (due, start, end, lateness, took) in [(4_000, 4_002, 4_010, 2, 8), (4_000, 3_000, 2_000, 0, 0)] {
            let mut tick = Tick::at(at(due));
            tick.now = at(start);
            let entry = Entry::new("clock".into(), &tick, at(end), Outcome::Ran);
            let expected = (Duration::from_millis(lateness), Duration::from_millis(took));
            assert_eq!((entry.lateness(), entry.took()), expected);
        }
    }
}
