//! What makes a job due, as it is said in a deployment and to a running combo: it is printed so that it is
//! understood as the same, and each instant is later than the one before.
#![no_main]

use combo::{Schedule, Timestamp, Trigger};
use libfuzzer_sys::fuzz_target;

/// The epoch, a leap day, clock changes of Berlin in 2026, the last second.
const STARTS: [i64; 5] = [0, 1_709_164_800, 1_774_744_200, 1_792_886_400, 253_402_207_199];

/// How many instants are looked at from each.
const STEPS: usize = 6;

fuzz_target!(|said: &str| {
    match said.parse::<Trigger>() {
        Ok(trigger) => {
            let printed = trigger.to_string();
            assert_eq!(printed.parse().as_ref(), Ok(&trigger), "{printed}");
            assert!(!trigger.describe().is_empty());
            if let Trigger::Schedule(schedule) = trigger {
                STARTS.into_iter().for_each(|start| walk(&schedule, start));
            }
        }
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
});

fn walk(schedule: &Schedule, start: i64) {
    let start = Timestamp::from_second(start).expect("an instant");
    let mut last = start;
    let mut due = Vec::new();
    while let Some(next) = schedule.next_after(last).filter(|_| due.len() < STEPS) {
        assert!(next > last, "{next} after {last}");
        due.push(next);
        last = next;
    }
    if let (Some(first), Some(last)) = (due.first(), due.last()) {
        // They are all that has passed, and none is between them.
        let passed = schedule.passed(*first, *last, STEPS);
        assert_eq!((passed.last, passed.count, passed.exact), (due.clone(), due.len() as u64, true));
        let middle = *first + last.duration_since(*first) / 2;
        assert_eq!(
            schedule.next_after(middle),
            due.iter().copied().find(|due| *due > middle).or_else(|| schedule.next_after(*last))
        );
        for change in schedule.clock_changes(*first, *last).into_iter().take(STEPS) {
            assert!(!change.to_string().is_empty());
        }
    }
}
