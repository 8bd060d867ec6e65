//! outcome -> one line per tick.
//!
//! Takes one [`Entry`] per tick, or per row of ticks that were skipped or missed; keeps the last of them
//! in memory. Pure. Where there is a state directory, the journal keeps them all on disk.

use std::{collections::VecDeque, sync::Arc};

use combo_core::Entry;

/// How many entries are kept.
pub(crate) const KEPT: usize = 1_000;

/// The record of outcomes.
#[derive(Debug)]
pub(crate) struct Ledger {
    entries: VecDeque<Arc<Entry>>,
    kept: usize,
}

impl Ledger {
    /// One of which the last `kept` entries are kept.
    pub(crate) fn new(kept: usize) -> Self {
        Self { entries: VecDeque::new(), kept }
    }

    /// Records what became of a tick.
    pub(crate) fn record(&mut self, entry: Arc<Entry>) {
        if self.entries.len() >= self.kept {
            drop(self.entries.pop_front());
        }
        if self.kept > 0 {
            self.entries.push_back(entry);
        }
    }

    /// The entries that are kept, the oldest first.
    pub(crate) fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> + ExactSizeIterator {
        self.entries.iter().map(|entry| &**entry)
    }

    /// The last entries of one job or of all, the last first.
    pub(crate) fn last(&self, job: Option<&str>, most: usize) -> Vec<Entry> {
        let of_job = |entry: &&Entry| job.is_none_or(|job| &*entry.job == job);
        self.entries().rev().filter(of_job).take(most).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use combo_core::{Outcome, Timestamp};

    use super::*;

    fn ledger(kept: usize) -> Ledger {
        let mut ledger = Ledger::new(kept);
        for second in 1..=5 {
            let at = Timestamp::from_second(second).expect("in range");
            let job = if second % 2 == 0 { "even" } else { "odd" };
            ledger.record(Arc::new(Entry::new(job.into(), at, at, Outcome::Ran)));
        }
        ledger
    }

    fn seconds(entries: &[Entry]) -> Vec<i64> {
        entries.iter().map(|entry| entry.due.as_second()).collect()
    }

    #[test]
    fn the_last_entries_are_kept() {
        assert_eq!(seconds(&ledger(3).last(None, 9)), [5, 4, 3]);
        assert_eq!(ledger(0).entries().len(), 0);
    }

    #[test]
    fn the_last_of_a_job_are_found() {
        assert_eq!(seconds(&ledger(5).last(Some("odd"), 2)), [5, 3]);
        assert_eq!(seconds(&ledger(5).last(None, 9)), [5, 4, 3, 2, 1]);
        assert!(ledger(5).last(Some("other"), 9).is_empty());
    }
}
