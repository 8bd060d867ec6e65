//! How ticks end: exactly one outcome for each.

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;

/// How a tick ended.
///
/// In the ledger these are six words: ran, failed (of which a panic and a refusal are kinds), timed out,
/// cancelled, skipped, missed.
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
    /// The task asked for a change that its job may not make. That is not tried again.
    Refused {
        /// Which, and why it may not.
        why: String,
    },
    /// The task was not done within its time limit. Nothing that it wanted was applied, unless it says so.
    TimedOut {
        /// Its limit, and whether it could be ended.
        why: String,
    },
    /// The task was ended before it was done: by a command, by the stop of the combo, or with the process.
    Cancelled {
        /// By what.
        why: String,
    },
    /// The task was not started although it was time, because of what else ran.
    Skipped {
        /// Of what.
        why: String,
    },
    /// The time went by without a run: the process was not there, the job was paused, or all was busy.
    Missed {
        /// What was done about it.
        why: String,
    },
}

impl Outcome {
    /// One of `ran`, `failed`, `timed out`, `cancelled`, `skipped`, `missed`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ran => "ran",
            Self::Failed { .. } | Self::Panicked { .. } | Self::Refused { .. } => "failed",
            Self::TimedOut { .. } => "timed out",
            Self::Cancelled { .. } => "cancelled",
            Self::Skipped { .. } => "skipped",
            Self::Missed { .. } => "missed",
        }
    }

    /// Why, but for those that ran. Whether a failure was a panic or a refusal is in it.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        match self {
            Self::Ran => None,
            Self::Panicked { why } => Some(format!("it panicked: {why}")),
            Self::Refused { why } => Some(format!("it may not change {why}")),
            Self::Failed { why }
            | Self::TimedOut { why }
            | Self::Cancelled { why }
            | Self::Skipped { why }
            | Self::Missed { why } => Some(why.clone()),
        }
    }

    /// Whether it was started and did not do what it was to: failed or timed out.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self.word(), "failed" | "timed out")
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ran => f.write_str("ran"),
            Self::Failed { why } => write!(f, "failed: {why}"),
            Self::Panicked { why } => write!(f, "panicked: {why}"),
            Self::Refused { why } => write!(f, "was refused: {why}"),
            Self::TimedOut { why } => write!(f, "timed out: {why}"),
            Self::Cancelled { why } => write!(f, "was cancelled: {why}"),
            Self::Skipped { why } => write!(f, "was skipped: {why}"),
            Self::Missed { why } => write!(f, "was missed: {why}"),
        }
    }
}

/// What became of one tick of one job; or of several in a row that were all skipped or missed alike.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The name of the job.
    pub job: Arc<str>,
    /// The instant that the schedule named; of several ticks, that of the first.
    pub due: Timestamp,
    /// The same of the last; `due` of one tick.
    pub last: Timestamp,
    /// How many ticks these are: 1, or more that were skipped or missed.
    pub ticks: u64,
    /// When the task was first started, or when it was decided not to.
    pub start: Timestamp,
    /// When it had ended and its changes were made.
    pub end: Timestamp,
    /// How long after its due instant, and the job's jitter, the task was first started.
    pub lateness: Duration,
    /// The how-manieth tick of this job since the start of the process, from 1. 0 of those not started.
    pub count: u64,
    /// How many due instants before this one were merged into it. They have entries of their own.
    pub missed: u64,
    /// How many attempts were made.
    pub attempt: u32,
    /// Whether somebody asked for it, beside the schedule.
    pub asked: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// The changes that were made, described; at most a few, and how many more.
    pub changes: Vec<String>,
    /// The last lines of output of a command.
    pub output: Vec<String>,
}

impl Entry {
    /// One tick, due then, of a task that was not started.
    #[must_use]
    pub fn new(job: Arc<str>, due: Timestamp, now: Timestamp, outcome: Outcome) -> Self {
        Self {
            job,
            due,
            last: due,
            ticks: 1,
            start: now,
            end: now,
            lateness: Duration::ZERO,
            count: 0,
            missed: 0,
            attempt: 0,
            asked: false,
            outcome,
            changes: Vec::new(),
            output: Vec::new(),
        }
    }

    /// How long it took, attempts, waits between them and changes included.
    #[must_use]
    pub fn took(&self) -> Duration {
        // Zero if the clock went back between the two.
        Duration::try_from(self.end.duration_since(self.start)).unwrap_or_default()
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

/// A job keeps failing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Alert {
    /// How its last tick ended.
    pub last: Entry,
    /// How many in a row have failed or timed out.
    pub failures: u32,
    /// Whether it has been paused because of that.
    pub paused: bool,
}

impl Alert {
    /// About the job that this entry is of.
    #[must_use]
    pub fn new(last: Entry, failures: u32, paused: bool) -> Self {
        Self { last, failures, paused }
    }
}

/// `` job `a` has failed 3 times in a row and is paused: no space left ``
impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { last, failures, paused } = self;
        let paused = if *paused { " and is paused" } else { "" };
        let why = last.outcome.why().unwrap_or_default();
        match failures {
            1 => write!(f, "job `{}` has failed{paused}: {why}", last.job),
            _ => write!(f, "job `{}` has failed {failures} times in a row{paused}: {why}", last.job),
        }
    }
}

/// How often a job's ticks ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Ran.
    pub ran: u64,
    /// Failed: also by a panic or a refusal.
    pub failed: u64,
    /// Timed out.
    pub timed_out: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Skipped.
    pub skipped: u64,
    /// Missed.
    pub missed: u64,
}

impl Counts {
    /// Counts all ticks of an entry.
    pub fn count(&mut self, entry: &Entry) {
        *match &entry.outcome {
            Outcome::Ran => &mut self.ran,
            Outcome::Failed { .. } | Outcome::Panicked { .. } | Outcome::Refused { .. } => &mut self.failed,
            Outcome::TimedOut { .. } => &mut self.timed_out,
            Outcome::Cancelled { .. } => &mut self.cancelled,
            Outcome::Skipped { .. } => &mut self.skipped,
            Outcome::Missed { .. } => &mut self.missed,
        } += entry.ticks;
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.ran + self.failed + self.timed_out + self.cancelled + self.skipped + self.missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why() -> String {
        "the reason".to_owned()
    }

    /// Every outcome, its sentence, its word, why.
    fn outcomes() -> [(Outcome, &'static str, &'static str, Option<&'static str>); 8] {
        let reason = Some("the reason");
        [
            (Outcome::Ran, "ran", "ran", None),
            (Outcome::Failed { why: why() }, "failed: the reason", "failed", reason),
            (
                Outcome::Panicked { why: why() },
                "panicked: the reason",
                "failed",
                Some("it panicked: the reason"),
            ),
            (
                Outcome::Refused { why: why() },
                "was refused: the reason",
                "failed",
                Some("it may not change the reason"),
            ),
            (Outcome::TimedOut { why: why() }, "timed out: the reason", "timed out", reason),
            (Outcome::Cancelled { why: why() }, "was cancelled: the reason", "cancelled", reason),
            (Outcome::Skipped { why: why() }, "was skipped: the reason", "skipped", reason),
            (Outcome::Missed { why: why() }, "was missed: the reason", "missed", reason),
        ]
    }

    fn entry(outcome: Outcome) -> Entry {
        Entry::new("clock".into(), Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH, outcome)
    }

    #[test]
    fn every_outcome_is_a_sentence_and_one_of_six_words() {
        for (outcome, said, word, why) in outcomes() {
            assert_eq!((outcome.word(), outcome.why().as_deref()), (word, why));
            assert_eq!(entry(outcome).to_string(), format!("job `clock` {said}"));
        }
        let mut entry = entry(Outcome::Ran);
        entry.changes = vec!["write `a` (1 bytes)".into(), "remove `b`".into()];
        assert_eq!(entry.to_string(), "job `clock` ran; write `a` (1 bytes), remove `b`");
    }

    #[test]
    fn an_alert_is_a_sentence() {
        let alert = |failures, paused| {
            Alert::new(entry(Outcome::Failed { why: why() }), failures, paused).to_string()
        };
        assert_eq!(alert(1, false), "job `clock` has failed: the reason");
        assert_eq!(alert(3, true), "job `clock` has failed 3 times in a row and is paused: the reason");
    }

    #[test]
    fn every_tick_is_counted_once() {
        let mut counts = Counts::default();
        for (outcome, ..) in outcomes() {
            let mut entry = entry(outcome);
            entry.ticks = 2;
            counts.count(&entry);
        }
        let expected = Counts { ran: 2, failed: 6, timed_out: 2, cancelled: 2, skipped: 2, missed: 2 };
        assert_eq!((counts, counts.all()), (expected, 16));
    }

    #[test]
    fn what_took_no_time_did_not_take_less() {
        let mut entry = entry(Outcome::Ran);
        entry.end = Timestamp::from_second(-1).expect("in range");
        assert_eq!(entry.took(), Duration::ZERO);
    }
}
