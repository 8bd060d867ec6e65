//! now -> jobs that are due.
//!
//! Keeps one instant for each job, on one clock: [`Timetable<Timestamp>`] for schedules, on the wall
//! clock, and [`Timetable<Duration>`] for intervals from the start of the process or the end of a run.
//! Gives whose instant has come, the earliest first; who that is has no instant any more until it is put
//! in again. Pure, and the same for ten jobs and a hundred thousand.

use std::{cmp::Reverse, collections::BinaryHeap};

/// When every job is due next. Jobs are known by their index.
#[derive(Debug)]
pub(crate) struct Timetable<I> {
    next: Vec<Option<I>>,
    /// The same instants, the earliest on top, and some that hold no more.
    queue: BinaryHeap<Reverse<(I, usize)>>,
}

impl<I: Ord + Copy> Timetable<I> {
    /// Nobody is due.
    pub(crate) fn new(jobs: usize) -> Self {
        Self { next: vec![None; jobs], queue: BinaryHeap::new() }
    }

    /// This job is due then, and no more when it was before.
    pub(crate) fn put(&mut self, job: usize, at: Option<I>) {
        if self.next[job] == at {
            return;
        }
        self.next[job] = at;
        self.queue.extend(at.map(|at| Reverse((at, job))));
        // What holds no more is thrown away when there is more of it than of the rest.
        if self.queue.len() > 2 * self.next.len().max(32) {
            let next = &self.next;
            self.queue.retain(|Reverse((at, job))| next[*job] == Some(*at));
        }
    }

    /// The earliest instant at which any job is due: when to wake.
    pub(crate) fn next(&mut self) -> Option<I> {
        while let Some(Reverse((at, job))) = self.queue.peek() {
            if self.next[*job] == Some(*at) {
                return Some(*at);
            }
            let _ = self.queue.pop();
        }
        None
    }

    /// A job that is due by `now`: the one with the earliest instant, then the one said first.
    pub(crate) fn take(&mut self, now: I) -> Option<usize> {
        let _ = self.next().filter(|next| *next <= now)?;
        let Reverse((_, job)) = self.queue.pop()?;
        self.next[job] = None;
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn jobs_come_in_order_of_their_instants_then_as_they_were_said() {
        let mut timetable = Timetable::new(4);
        for (job, at) in [(0, 6), (1, 4), (2, 3), (3, 4)] {
            timetable.put(job, Some(at));
        }
        assert_eq!(timetable.next(), Some(3));
        let taken: Vec<_> = std::iter::from_fn(|| timetable.take(4)).collect();
        assert_eq!((taken, timetable.next()), (vec![2, 1, 3], Some(6)));
        assert_eq!((timetable.take(5), timetable.take(6), timetable.take(7)), (None, Some(0), None));
        assert_eq!(timetable.next(), None);
    }

    #[test]
    fn only_what_was_said_last_holds() {
        let mut timetable = Timetable::new(2);
        for at in [9, 3, 5] {
            timetable.put(0, Some(at));
        }
        timetable.put(1, Some(4));
        timetable.put(1, None);
        assert_eq!((timetable.next(), timetable.take(4), timetable.take(9)), (Some(5), None, Some(0)));
        assert_eq!(timetable.take(9), None);
    }

    proptest! {
        /// Whatever is put in and taken out: the same as looking at all of them.
        #[test]
        fn it_is_as_good_as_a_list(steps in prop::collection::vec((0..5_usize, prop::option::of(0..50_u32), any::<bool>()), 1..300)) {
            let (mut timetable, mut list) = (Timetable::new(5), [None; 5]);
            for (job, at, take) in steps {
                timetable.put(job, at);
                list[job] = at;
                let first = (0..5).filter(|job| list[*job].is_some()).min_by_key(|job| (list[*job], *job));
                prop_assert_eq!(timetable.next(), first.and_then(|job| list[job]));
                if let Some(now) = at.filter(|_| take) {
                    let due = first.filter(|job| list[*job] <= Some(now));
                    prop_assert_eq!(timetable.take(now), due);
                    due.into_iter().for_each(|job| list[job] = None);
                }
                prop_assert!(timetable.queue.len() <= 65);
            }
        }
    }
}
