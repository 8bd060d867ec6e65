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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    /// On 22 November 2026.
    fn time(text: &str) -> Timestamp {
        at(&format!("2026-11-22T{text}Z"))
    }

    fn timetable(schedules: &[&str], now: Timestamp) -> Timetable {
        let schedules = schedules.iter().map(|said| said.parse().expect("a schedule"));
        Timetable::new(schedules.collect(), now)
    }

    /// At a time, what is taken, as (job, due, missed).
    type Step<'a> = (&'a str, &'a [(usize, &'a str, u64)]);

    /// From noon on.
    fn check(schedules: &[&str], steps: &[Step<'_>]) {
        let mut timetable = timetable(schedules, time("12:00:00"));
        for (now, expected) in steps {
            let expected: Vec<_> =
                expected.iter().map(|&(job, due, missed)| Due { job, due: time(due), missed }).collect();
            assert_eq!(timetable.take(time(now)), expected, "{schedules:?} at {now}");
        }
    }

    #[test]
    fn a_job_is_first_due_after_now_and_then_on_its_grid() {
        check(
            &["every 4s"],
            &[
                ("12:00:00", &[]),
                ("12:00:03.999", &[]),
                ("12:00:04", &[(0, "12:00:04", 0)]),
                ("12:00:04", &[]),
                ("12:00:08.003", &[(0, "12:00:08", 0)]),
                ("12:00:11.999", &[]),
                ("12:00:12", &[(0, "12:00:12", 0)]),
            ],
        );
    }

    #[test]
    fn ticks_come_in_order_of_due_then_of_job() {
        check(
            &["every 6s", "every 4s", "every 3s", "every 4s"],
            &[
                ("12:00:04", &[(2, "12:00:03", 0), (1, "12:00:04", 0), (3, "12:00:04", 0)]),
                ("12:00:06", &[(0, "12:00:06", 0), (2, "12:00:06", 0)]),
            ],
        );
    }

    #[test]
    fn late_ticks_are_merged() {
        check(
            &["every 4s", "cron */4 * * * * *", "every 1h"],
            &[("12:01:01", &[(0, "12:01:00", 14), (1, "12:01:00", 14)]), ("12:01:03", &[])],
        );
    }

    #[test]
    fn a_clock_that_is_put_forward_makes_ticks_late() {
        check(
            &["every 4s", "cron 0 3 * * *"],
            &[
                ("12:00:04", &[(0, "12:00:04", 0)]),
                ("15:00:00", &[(0, "15:00:00", 2_698)]),
                ("15:00:04", &[(0, "15:00:04", 0)]),
            ],
        );
    }

    #[test]
    fn a_clock_that_is_corrected_by_less_than_a_minute_makes_nothing_due_again() {
        check(
            &["every 4s", "cron 10 0 12 * * *"],
            &[
                ("12:00:10", &[(0, "12:00:08", 1), (1, "12:00:10", 0)]),
                ("12:00:09.999", &[]),
                ("11:59:11", &[]),
                ("12:00:10", &[]),
                ("12:00:12", &[(0, "12:00:12", 0)]),
            ],
        );
        // Many small corrections are one big one.
        check(
            &["every 4s"],
            &[
                ("12:00:08", &[(0, "12:00:08", 1)]),
                ("11:59:38", &[]),
                ("11:59:08", &[]),
                ("11:59:12", &[(0, "11:59:12", 0)]),
            ],
        );
    }

    #[test]
    fn a_clock_that_is_put_back_does_not_pause_jobs() {
        check(
            &["every 4s", "cron 10 0 12 * * *"],
            &[
                ("12:00:10", &[(0, "12:00:08", 1), (1, "12:00:10", 0)]),
                ("09:00:00", &[]),
                ("09:00:04", &[(0, "09:00:04", 0)]),
                // It really went over this one again.
                ("12:00:10", &[(0, "12:00:08", 2_700), (1, "12:00:10", 0)]),
            ],
        );
    }

    #[test]
    fn it_says_when_to_wake() {
        let mut timetable = timetable(&["every 6s", "every 4s"], time("12:00:00"));
        assert_eq!(timetable.next(), Some(time("12:00:04")));
        assert_eq!(timetable.next_of(0), Some(time("12:00:06")));
        assert_eq!(timetable.take(time("12:00:05")).len(), 1);
        assert_eq!(timetable.next(), Some(time("12:00:06")));
        assert_eq!(timetable.next_of(1), Some(time("12:00:08")));
        assert_eq!(timetable.next_of(2), None);
        assert_eq!(Timetable::new(Vec::new(), time("12:00:00")).next(), None);
    }

    #[test]
    fn a_schedule_that_has_ended_is_due_no_more() {
        let new_year = "cron 0 0 0 1 1 * 2027";
        let mut timetable = timetable(&[new_year], time("12:00:00"));
        let taken = timetable.take(at("2028-06-01T00:00:00Z"));
        assert_eq!(taken, [Due { job: 0, due: at("2027-01-01T00:00:00Z"), missed: 0 }]);
        assert_eq!((timetable.next(), timetable.next_of(0)), (None, None));
    }

    const SCHEDULES: [&str; 6] =
        ["every 4s", "every 7s", "every 250ms", "every 1m30s", "cron */5 * * * * *", "cron 7 * * * * *"];

    fn after(now: Timestamp, milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(now.as_millisecond() + milliseconds).expect("in range")
    }

    proptest! {
        /// Whatever the steps: every due instant is taken, or counted as missed by the next that is.
        #[test]
        fn every_due_instant_is_run_or_missed_exactly_once(
            picked in prop::collection::vec(0..SCHEDULES.len(), 1..8),
            steps in prop::collection::vec(prop_oneof![0_i64..300, 0_i64..10_000, 0_i64..600_000], 1..40),
            start in 0_i64..100_000_000,
        ) {
            let schedules: Vec<Schedule> =
                picked.iter().map(|&i| SCHEDULES[i].parse().expect("a schedule")).collect();
            let mut now = after(time("12:00:00"), start);
            let mut timetable = Timetable::new(schedules.clone(), now);
            let mut reached = vec![now; schedules.len()];
            for step in steps {
                now = after(now, step);
                let taken = timetable.take(now);
                prop_assert!(taken.is_sorted_by(|a, b| (a.due, a.job) < (b.due, b.job)));
                let jobs: HashSet<_> = taken.iter().map(|due| due.job).collect();
                prop_assert_eq!(jobs.len(), taken.len());
                for Due { job, due, missed } in taken {
                    prop_assert!(due <= now);
                    for _ in 0..=missed {
                        reached[job] = schedules[job].next_after(reached[job]).expect("a next");
                    }
                    prop_assert_eq!(reached[job], due);
                }
                for (job, schedule) in schedules.iter().enumerate() {
                    let next = schedule.next_after(reached[job]).expect("a next");
                    prop_assert!(next > now);
                    prop_assert_eq!(timetable.next_of(job), Some(next));
                }
                prop_assert_eq!(timetable.next(), (0..schedules.len()).filter_map(|job| timetable.next_of(job)).min());
            }
        }

        /// The clock may go anywhere: nothing is due twice unless the clock was put back over it, and
        /// no job waits for longer than a minute more than its schedule says.
        #[test]
        fn nothing_is_due_twice_unless_the_clock_went_back_over_it(
            steps in prop::collection::vec(prop_oneof![-200_i64..2_000, -70_000_i64..70_000, -7_200_000_i64..60_000], 1..60),
        ) {
            let schedules: Vec<Schedule> =
                SCHEDULES.iter().map(|said| said.parse().expect("a schedule")).collect();
            let mut now = at("2026-11-22T12:00:00Z");
            let mut timetable = Timetable::new(schedules.clone(), now);
            let (mut taken, mut latest) = (HashSet::new(), now);
            for step in steps {
                now = after(now, step);
                if latest.duration_since(now) >= jiff::SignedDuration::from_secs(60) {
                    taken.retain(|&(_, due)| due <= now);
                    latest = now;
                }
                latest = latest.max(now);
                for Due { job, due, .. } in timetable.take(now) {
                    prop_assert!(due <= now);
                    prop_assert!(taken.insert((job, due)), "job {} twice at {}", job, due);
                }
                for (job, schedule) in schedules.iter().enumerate() {
                    let next = timetable.next_of(job).expect("a next");
                    prop_assert!(next > now);
                    prop_assert!(next <= schedule.next_after(after(now, 60_000)).expect("a next"));
                }
            }
        }
    }
}
