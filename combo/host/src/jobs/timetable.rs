//! now -> ticks.
//!
//! Takes the schedules of all jobs and the wall clock as a value; gives what is due, in order, with
//! late instants merged into the latest and the missed ones counted. Pure. The clock may be stepped:
//!
//! - forwards: what was jumped over is late, so it is merged;
//! - back by less than [`NOISE`]: nothing changes; what has been due is not due again, and a job
//!   waits until the clock has caught up;
//! - back by more: every job is next due at its first instant after the new now, so none pauses for
//!   hours, and the instants that the clock really went back over come again.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use combo_core::{Schedule, Timestamp};

/// The greatest step back that is taken for a correction and not for a new time.
pub(crate) const NOISE: Duration = Duration::from_secs(60);

/// When every job is due next. Jobs are known by their index.
#[derive(Debug)]
pub(crate) struct Timetable {
    schedules: Vec<Schedule>,
    next: Vec<Option<Timestamp>>,
    /// The same instants, the earliest on top.
    queue: BinaryHeap<Reverse<(Timestamp, usize)>>,
    /// The latest now since the instants were last computed from one.
    latest: Timestamp,
}

/// One due instant of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// Its index.
    pub job: usize,
    /// The instant that its schedule named.
    pub due: Timestamp,
    /// How many earlier instants were merged into this one.
    pub missed: u64,
}

impl Timetable {
    /// Every job is first due at its first instant after `now`.
    pub(crate) fn new(schedules: Vec<Schedule>, now: Timestamp) -> Self {
        let mut timetable = Self { schedules, next: Vec::new(), queue: BinaryHeap::new(), latest: now };
        timetable.compute(now);
        timetable
    }

    /// The earliest instant at which any job is due: when to wake.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.queue.peek().map(|Reverse((due, _))| *due)
    }

    /// The instant at which this job is next due.
    pub(crate) fn next_of(&self, job: usize) -> Option<Timestamp> {
        self.next.get(job).copied().flatten()
    }

    /// What is due by `now`, each job at most once, in order of due instant, then of job.
    pub(crate) fn take(&mut self, now: Timestamp) -> Vec<Due> {
        if now < self.latest && self.latest.duration_since(now).unsigned_abs() >= NOISE {
            self.compute(now);
        }
        self.latest = self.latest.max(now);

        let mut taken = Vec::new();
        while self.next().is_some_and(|next| next <= now) {
            let Some(Reverse((first, job))) = self.queue.pop() else { break };
            let (due, count) =
                self.schedules[job].late(first, now).map_or((first, 1), |late| (late.latest, late.count));
            self.next[job] = self.schedules[job].next_after(due);
            taken.push(Due { job, due, missed: count - 1 });
        }
        // Only now, so that no job comes twice in one answer.
        for due in &taken {
            if let Some(next) = self.next[due.job] {
                self.queue.push(Reverse((next, due.job)));
            }
        }
        taken.sort_unstable_by_key(|due| (due.due, due.job));
        taken
    }

    fn compute(&mut self, now: Timestamp) {
        self.latest = now;
        self.next = self.schedules.iter().map(|schedule| schedule.next_after(now)).collect();
        let due = self.next.iter().enumerate();
        self.queue = due.filter_map(|(job, next)| Some(Reverse(((*next)?, job)))).collect();
    }
}
