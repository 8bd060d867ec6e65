//! Stories: what happens to jobs when, and what is done about it.

use std::collections::{HashMap, HashSet};

use combo_core::Retry;
use proptest::prelude::*;

use super::*;

/// Ends on every grid of these tests.
const NOON: i64 = 1_000_080_000;

fn at(seconds: f64) -> Now {
    let nanos = (seconds * 1e9).round() as i128;
    let wall = Timestamp::from_nanosecond(i128::from(NOON) * 1_000_000_000 + nanos).expect("in range");
    Now { wall, mono: Duration::from_secs_f64(seconds.max(0.0)) }
}

fn terms(name: &str, trigger: &str, policies: Policies) -> (Terms, Past) {
    let trigger = trigger.parse().unwrap_or_else(|fault| panic!("{trigger}: {fault}"));
    let terms = Terms { name: name.into(), trigger, policies: Arc::new(policies), offset: Duration::ZERO };
    (terms, Past::default())
}

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn policies() -> Policies {
    Policies::default()
}

fn overlap(overlap: Overlap) -> Policies {
    let mut policies = policies();
    policies.overlap = Some(overlap);
    policies
}

fn missed(missed: Missed) -> Policies {
    let mut policies = policies();
    policies.missed = missed;
    policies
}

fn limit(limit: u64, grace: u64) -> Policies {
    let mut policies = policies();
    (policies.limit, policies.grace) = (Some(secs(limit)), secs(grace));
    policies
}

fn retry(times: u32) -> Policies {
    let mut policies = policies();
    policies.retry = Some(Retry::times(times).backoff(secs(1), secs(60)));
    policies
}

enum What {
    Started,
    Woke,
    Ran(u64),
    Failed(u64),
    Refused(u64),
    /// It was told to end, and did.
    Gone(u64),
    RunNow(usize),
    Pause(usize),
    Resume(usize),
    Cancel(usize),
    Reschedule(usize, &'static str),
    Changed(usize),
    Drain,
    GiveUp,
}
use What::*;

fn ended(outcome: Option<Outcome>, now: Now) -> Ended {
    Ended { outcome, changes: Vec::new(), output: Vec::new(), start: now.wall, end: now.wall }
}

/// The job whose run this is.
fn job_of(roster: &Roster, run: u64) -> usize {
    let mut jobs = roster.jobs.iter();
    jobs.position(|job| job.runs.iter().any(|known| known.id == run))
        .unwrap_or_else(|| panic!("no run {run}"))
}

fn tell(roster: &mut Roster, what: &What, now: Now) -> Result<Vec<Act>, String> {
    let why = || "why".to_owned();
    let end = |roster: &mut Roster, run, outcome| {
        let job = job_of(roster, run);
        // As on time as it was started.
        let mut ended = ended(outcome, now);
        ended.start = roster.jobs[job].runs.iter().find(|known| known.id == run).expect("it runs").tick.now;
        roster.ended(job, run, ended, now)
    };
    Ok(match *what {
        Started => roster.started(now),
        Woke => roster.woke(now),
        Ran(run) => end(roster, run, Some(Outcome::Ran)),
        Failed(run) => end(roster, run, Some(Outcome::Failed { why: why() })),
        Refused(run) => end(roster, run, Some(Outcome::Refused { why: why() })),
        Gone(run) => end(roster, run, None),
        RunNow(job) => return roster.run_now(job, now.wall, now),
        Pause(job) => return roster.pause(job).map(|()| Vec::new()),
        Resume(job) => return roster.resume(job, now),
        Cancel(job) => return roster.cancel(job, now),
        Reschedule(job, trigger) => {
            return roster.reschedule(job, trigger.parse().expect("a trigger"), now);
        }
        Changed(job) => roster.file_changed(job, now),
        Drain => roster.drain(now),
        GiveUp => roster.give_up(now),
    })
}

fn offset(instant: Timestamp) -> f64 {
    (instant.as_nanosecond() - i128::from(NOON) * 1_000_000_000) as f64 / 1e9
}

fn said(act: &Act) -> String {
    let times = |count: u64| if count == 1 { String::new() } else { format!(" x{count}") };
    match act {
        Act::Start { job, run, tick, .. } => {
            let more = match (tick.missed, tick.attempt) {
                (0, 1) => String::new(),
                (missed, 1) => format!(" missed {missed}"),
                (_, attempt) => format!(" attempt {attempt}"),
            };
            format!("start {job}#{run} due {}{more}", offset(tick.due))
        }
        Act::Tell { .. } => "tell".into(),
        Act::Cut { run } => format!("cut #{run}"),
        Act::Record { entry, .. } => {
            let Entry { job, due, last, ticks, outcome, .. } = &**entry;
            let due = if due == last {
                format!("{}", offset(*due))
            } else {
                format!("{}..{}", offset(*due), offset(*last))
            };
            format!("{job} {due}{} {outcome}", times(*ticks))
        }
        Act::Again { attempt, wait, .. } => format!("attempt {attempt} failed, again in {wait:?}"),
        Act::Alert { failures, paused, .. } => format!("alert {failures} paused {paused}"),
        Act::Known { job, trigger } => format!("{job} is now {trigger}"),
    }
}

fn check_of(roster: &mut Roster, story: Vec<(f64, What, &[&str])>) {
    for (step, (seconds, what, expected)) in story.into_iter().enumerate() {
        let acts = match tell(roster, &what, at(seconds)) {
            Ok(acts) => acts.iter().map(said).collect(),
            Err(why) => vec![format!("no: {why}")],
        };
        assert_eq!(acts, expected, "step {step}, after {seconds} s");
    }
}

fn check(jobs: Vec<(Terms, Past)>, story: Vec<(f64, What, &[&str])>) {
    check_of(&mut Roster::new(jobs, 100, at(0.0).wall), story);
}

fn every_4s(policies: Policies) -> Vec<(Terms, Past)> {
    vec![terms("a", "every 4s", policies)]
}

#[test]
fn a_tick_that_would_overlap_is_skipped() {
    check(
        every_4s(policies()),
        vec![
            (3.0, Woke, &[]),
            (4.0, Woke, &["start 0#1 due 4"]),
            (8.0, Woke, &["a 8 was skipped: the one before is still running"]),
            (9.0, Ran(1), &["a 4 ran"]),
            (12.0, Woke, &["start 0#2 due 12"]),
            (20.0, Woke, &["a 16..20 x2 was skipped: the one before is still running"]),
        ],
    );
}

#[test]
fn one_waits_for_the_one_before() {
    check(
        every_4s(overlap(Overlap::Queue)),
        vec![
            (4.0, Woke, &["start 0#1 due 4"]),
            (8.0, Woke, &[]),
            (9.0, Ran(1), &["a 4 ran", "start 0#2 due 8"]),
            (12.0, Woke, &[]),
            (16.0, Woke, &[]),
            (
                21.0,
                Ran(2),
                &[
                    "a 8 ran",
                    "a 12..16 x2 was skipped: the one before was still running, and a later one waits",
                    "start 0#3 due 20",
                ],
            ),
            (22.0, Ran(3), &["a 20 ran"]),
            (24.0, Woke, &["start 0#4 due 24"]),
        ],
    );
}

#[test]
fn so_many_run_at_once() {
    check(
        every_4s(overlap(Overlap::Allow(2))),
        vec![
            (4.0, Woke, &["start 0#1 due 4"]),
            (8.0, Woke, &["start 0#2 due 8"]),
            (9.0, RunNow(0), &["no: job `a` is running 2 times, as often as it may at once"]),
            (12.0, Woke, &["a 12 was skipped: 2 are still running"]),
            (13.0, Ran(1), &["a 4 ran"]),
            (14.0, RunNow(0), &["start 0#3 due 14"]),
        ],
    );
}

#[test]
fn late_ticks_are_merged() {
    check(
        every_4s(policies()),
        vec![
            (
                17.0,
                Woke,
                &[
                    "a 4..12 x3 was missed: merged into the one due at 2001-09-10T00:00:16Z: it was held up, or the clock was put forward",
                    "start 0#1 due 16 missed 3",
                ],
            ),
            (18.0, Ran(1), &["a 16 ran"]),
            (20.0, Woke, &["start 0#2 due 20"]),
        ],
    );
}

#[test]
fn late_ticks_are_skipped_where_that_is_said() {
    let reason = "it was held up, or the clock was put forward";
    check(
        every_4s(missed(Missed::Skip)),
        vec![
            (4.5, Woke, &["start 0#1 due 4"]),
            (5.0, Ran(1), &["a 4 ran"]),
            (18.0, Woke, &[&*format!("a 8..16 x3 was missed: it would have been 2s late: {reason}")]),
            (28.5, Woke, &[&*format!("a 20..24 x2 was missed: {reason}"), "start 0#2 due 28"]),
        ],
    );
}

#[test]
fn the_last_so_many_are_run_one_after_the_other() {
    check(
        every_4s(missed(Missed::All(3))),
        vec![
            (
                21.0,
                Woke,
                &[
                    "a 4..8 x2 was missed: it was not among the last 3: it was held up, or the clock was put forward",
                    "start 0#1 due 12",
                ],
            ),
            // It came while it was catching up.
            (24.0, Woke, &[]),
            (24.5, Ran(1), &["a 12 ran", "start 0#2 due 16"]),
            (24.6, Failed(2), &["a 16 failed: why", "start 0#3 due 20"]),
            (29.0, Ran(3), &["a 20 ran", "start 0#4 due 24"]),
            (29.1, Ran(4), &["a 24 ran", "start 0#5 due 28"]),
            (30.0, Ran(5), &["a 28 ran"]),
            (32.0, Woke, &["start 0#6 due 32"]),
            (36.0, Woke, &["a 36 was skipped: the one before is still running"]),
        ],
    );
}

#[test]
fn what_no_process_ran_is_missed_by_the_same_rule() {
    let with = |policies, accounted: f64| {
        let (terms, mut past) = terms("a", "every 4s", policies);
        past.accounted = Some(at(accounted).wall);
        vec![(terms, past)]
    };
    check(
        with(policies(), -10.0),
        vec![
            (0.0, Started, &[]),
            (
                0.1,
                Woke,
                &[
                    "a -8..-4 x2 was missed: merged into the one due at 2001-09-10T00:00:00Z: no process ran",
                    "start 0#1 due 0 missed 2",
                ],
            ),
        ],
    );
    check(
        with(missed(Missed::Skip), -10.0),
        vec![(2.0, Woke, &["a -8..0 x3 was missed: it would have been 2s late: no process ran"])],
    );
    // All that was due has been accounted for, as far ahead as the clock was then.
    check(with(policies(), 30.0), vec![(4.0, Woke, &[]), (32.0, Woke, &["start 0#1 due 32"])]);
    // It was set back by a day since.
    check(with(policies(), 86_400.0), vec![(4.0, Woke, &["start 0#1 due 4"])]);
}

#[test]
fn what_was_due_in_a_pause_was_missed() {
    check(
        every_4s(policies()),
        vec![
            (1.0, Resume(0), &["no: job `a` is not paused"]),
            (4.0, Woke, &["start 0#1 due 4"]),
            (5.0, Pause(0), &[]),
            (5.0, Pause(0), &["no: job `a` is already paused"]),
            (6.0, Ran(1), &["a 4 ran"]),
            (8.0, Woke, &[]),
            (9.0, RunNow(0), &["start 0#2 due 9"]),
            (9.5, Ran(2), &["a 9 ran"]),
            (
                17.0,
                Resume(0),
                &[
                    "a 8..12 x2 was missed: merged into the one due at 2001-09-10T00:00:16Z: it was paused",
                    "start 0#3 due 16 missed 2",
                ],
            ),
            (17.1, Ran(3), &["a 16 ran"]),
            (18.0, Pause(0), &[]),
            (19.0, Resume(0), &[]),
            (20.0, Woke, &["start 0#4 due 20"]),
        ],
    );
}

#[test]
fn more_than_may_run_at_once_wait() {
    let jobs = ["a", "b", "c"].map(|name| terms(name, "every 4s", policies())).into();
    let mut roster = Roster::new(jobs, 1, at(0.0).wall);
    check_of(
        &mut roster,
        vec![
            (4.0, Woke, &["start 0#1 due 4"]),
            (5.0, RunNow(1), &["no: 1 jobs are running, as many as may at once"]),
            (8.0, Woke, &["a 8 was skipped: the one before is still running"]),
            (
                9.0,
                Ran(1),
                &[
                    "a 4 ran",
                    "b 4 was missed: merged into the one due at 2001-09-10T00:00:08Z: 1 jobs ran, as many as may at once",
                    "start 1#2 due 8 missed 1",
                ],
            ),
            (
                10.0,
                Ran(2),
                &[
                    "b 8 ran",
                    "c 4 was missed: merged into the one due at 2001-09-10T00:00:08Z: 1 jobs ran, as many as may at once",
                    "start 2#3 due 8 missed 1",
                ],
            ),
            (11.0, Ran(3), &["c 8 ran"]),
            (12.0, Woke, &["start 0#4 due 12"]),
        ],
    );
}

#[test]
fn who_takes_too_long_is_told_then_cut_then_given_up() {
    check(
        every_4s(limit(10, 2)),
        vec![
            (4.0, Woke, &["start 0#1 due 4"]),
            (14.0, Woke, &["tell", "a 8..12 x2 was skipped: the one before is still running"]),
            (15.0, Gone(1), &["a 4 timed out: it took longer than 10s"]),
            (16.0, Woke, &["start 0#2 due 16"]),
            (26.0, Woke, &["tell", "a 20..24 x2 was skipped: the one before is still running"]),
            (28.0, Woke, &["cut #2", "a 28 was skipped: the one before is still running"]),
            (29.0, Woke, &["a 16 timed out: it took longer than 10s; it does not end, and holds a thread"]),
            (32.0, Woke, &["a 32 was skipped: the one before could not be ended and holds a thread"]),
            (33.0, Gone(2), &[]),
            (36.0, Woke, &["start 0#3 due 36"]),
            (46.0, Ran(3), &["a 40..44 x2 was skipped: the one before is still running", "a 36 ran"]),
        ],
    );
}

#[test]
fn what_fails_is_tried_again_and_is_one_tick() {
    check(
        every_4s(retry(2)),
        vec![
            (4.0, Woke, &["start 0#1 due 4"]),
            (4.1, Failed(1), &["attempt 1 failed, again in 1s"]),
            (5.1, Woke, &["start 0#1 due 4 attempt 2"]),
            (6.0, Failed(1), &["attempt 2 failed, again in 2s"]),
            (8.0, Woke, &["start 0#1 due 4 attempt 3", "a 8 was skipped: the one before is still running"]),
            (8.5, Failed(1), &["a 4 failed: why"]),
            (12.0, Woke, &["start 0#2 due 12"]),
            (12.5, Failed(2), &["attempt 1 failed, again in 1s"]),
            (13.5, Woke, &["start 0#2 due 12 attempt 2"]),
            (13.6, Ran(2), &["a 12 ran"]),
            (16.0, Woke, &["start 0#3 due 16"]),
            (16.1, Refused(3), &["a 16 was refused: why"]),
            (20.0, Woke, &["start 0#4 due 20"]),
            (23.0, Failed(4), &["attempt 1 failed, again in 1s"]),
            (23.5, Cancel(0), &["a 20 was cancelled: by command, before its next attempt"]),
            (24.0, Woke, &["start 0#5 due 24"]),
        ],
    );
}

#[test]
fn each_attempt_has_the_whole_limit() {
    let mut both = retry(1);
    (both.limit, both.grace) = (Some(secs(2)), secs(1));
    check(
        every_4s(both),
        vec![
            (4.0, Woke, &["start 0#1 due 4"]),
            (5.0, Failed(1), &["attempt 1 failed, again in 1s"]),
            (6.0, Woke, &["start 0#1 due 4 attempt 2"]),
            (7.9, Woke, &[]),
            (8.0, Woke, &["tell", "a 8 was skipped: the one before is still running"]),
            (8.1, Gone(1), &["a 4 timed out: it took longer than 2s"]),
        ],
    );
}

#[test]
fn an_attempt_is_not_cut_for_the_one_before_it() {
    let mut both = retry(1);
    (both.limit, both.grace) = (Some(secs(2)), secs(5));
    check(
        vec![terms("a", "every 1h from start", both)],
        vec![
            (3_600.0, Woke, &["start 0#1 due 3600"]),
            (3_602.0, Woke, &["tell"]),
            (3_602.5, Gone(1), &["attempt 1 failed, again in 1s"]),
            (3_603.5, Woke, &["start 0#1 due 3600 attempt 2"]),
            (3_605.5, Woke, &["tell"]),
            // Now the first would have been cut.
            (3_607.0, Woke, &[]),
            (3_610.5, Woke, &["cut #1"]),
            (3_610.6, Gone(1), &["a 3600 timed out: it took longer than 2s"]),
        ],
    );
}

#[test]
fn alarms_of_what_is_over_are_not_kept() {
    let mut long = policies();
    long.limit = Some(secs(86_400));
    let mut roster = Roster::new(vec![terms("a", "every 1s", long)], 100, at(0.0).wall);
    for second in 1..1_000 {
        let now = at(f64::from(second));
        assert_eq!(roster.woke(now).len(), 1);
        let _ = tell(&mut roster, &Ran(u64::try_from(second).expect("positive")), now);
    }
    assert!(roster.timers.len() <= 65, "{}", roster.timers.len());
}

#[test]
fn who_keeps_failing_is_paused() {
    let mut pausing = policies();
    pausing.failures = Some((2, AfterFailures::Pause));
    check(
        every_4s(pausing),
        vec![
            (4.0, Woke, &["start 0#1 due 4"]),
            (5.0, Failed(1), &["a 4 failed: why"]),
            (8.0, Woke, &["start 0#2 due 8"]),
            (9.0, Failed(2), &["a 8 failed: why", "alert 2 paused true"]),
            (12.0, Woke, &[]),
            (13.0, Resume(0), &["start 0#3 due 12"]),
            (14.0, Failed(3), &["a 12 failed: why"]),
        ],
    );
    let mut alerting = policies();
    alerting.failures = Some((1, AfterFailures::Alert));
    check(
        every_4s(alerting),
        vec![
            (4.0, Woke, &["start 0#1 due 4"]),
            (5.0, Failed(1), &["a 4 failed: why", "alert 1 paused false"]),
            (8.0, Woke, &["start 0#2 due 8"]),
            (9.0, Failed(2), &["a 8 failed: why"]),
        ],
    );
}

#[test]
fn intervals_from_the_start_and_from_the_end() {
    check(
        vec![terms("a", "every 5s from start", policies()), terms("b", "after 3s", policies())],
        vec![
            (3.0, Woke, &["start 1#1 due 3"]),
            (4.5, Ran(1), &["b 3 ran"]),
            (5.0, Woke, &["start 0#2 due 5"]),
            (6.0, Ran(2), &["a 5 ran"]),
            (7.5, Woke, &["start 1#3 due 7.5"]),
            (
                21.0,
                Woke,
                &[
                    "a 10..15 x2 was missed: merged into the one due at 2001-09-10T00:00:20Z: it was held up, or the clock was put forward",
                    "start 0#4 due 20 missed 2",
                ],
            ),
        ],
    );
}

#[test]
fn events_make_jobs_due() {
    check(
        vec![
            terms("first", "at start", policies()),
            terms("last", "at stop", policies()),
            terms("then", "after job first", policies()),
            terms("file", "when list.csv changes", policies()),
        ],
        vec![
            (0.0, Started, &["start 0#1 due 0"]),
            (1.0, Failed(1), &["first 0 failed: why"]),
            (2.0, RunNow(0), &["start 0#2 due 2"]),
            (3.0, Ran(2), &["first 2 ran", "start 2#3 due 3"]),
            (4.0, Changed(3), &["start 3#4 due 4"]),
            (5.0, Changed(3), &[]),
            (6.0, Changed(3), &[]),
            // The last change is never lost.
            (
                7.0,
                Ran(4),
                &[
                    "file 4 ran",
                    "file 5 was skipped: the one before was still running, and a later one waits",
                    "start 3#5 due 6",
                ],
            ),
            (8.0, Ran(5), &["file 6 ran"]),
            (9.0, Drain, &["start 1#6 due 9"]),
            (9.5, Changed(3), &[]),
            (10.0, Ran(6), &["last 9 ran"]),
        ],
    );
}

#[test]
fn a_drain_starts_nothing_and_tells_who_said_so() {
    let mut told = policies();
    (told.on_drain, told.grace) = (OnDrain::Cancel, secs(1));
    check(
        vec![
            terms("a", "every 4s", told),
            terms("b", "every 4s", retry(1)),
            terms("c", "every 4s", policies()),
        ],
        vec![
            (4.0, Woke, &["start 0#1 due 4", "start 1#2 due 4", "start 2#3 due 4"]),
            (4.5, Failed(2), &["attempt 1 failed, again in 1s"]),
            (5.0, Drain, &["tell", "b 4 failed: why"]),
            (5.5, Gone(1), &["a 4 was cancelled: the combo stopped"]),
            (8.0, Woke, &[]),
            (9.0, GiveUp, &["c 4 was cancelled: the combo stopped; it does not end, and holds a thread"]),
        ],
    );
}

#[test]
fn a_job_is_rescheduled() {
    check(
        vec![terms("a", "every 4s", policies()), terms("b", "at start", policies())],
        vec![
            (
                1.0,
                Reschedule(1, "every 4s"),
                &["no: job `b` cannot be rescheduled: events are waited for from the start on"],
            ),
            (
                1.0,
                Reschedule(0, "at start"),
                &["no: job `a` cannot be rescheduled: events are waited for from the start on"],
            ),
            (1.0, Pause(0), &[]),
            (
                9.0,
                Reschedule(0, "every 10s"),
                &["a 4..8 x2 was missed: it was rescheduled", "0 is now every 10s"],
            ),
            (9.5, Resume(0), &[]),
            (10.0, Woke, &["start 0#1 due 10"]),
            (11.0, Reschedule(0, "every 5s from start"), &["0 is now every 5s from start"]),
            (15.0, Woke, &["a 15 was skipped: the one before is still running"]),
            (16.0, Ran(1), &["a 10 ran"]),
            (20.0, Woke, &["start 0#2 due 20"]),
        ],
    );
}

#[test]
fn jitter_delays_every_tick_alike() {
    let (mut terms, past) = terms("a", "every 4s", policies());
    terms.offset = Duration::from_millis(1_500);
    check(
        vec![(terms, past)],
        vec![
            (4.0, Woke, &[]),
            (5.4, Woke, &[]),
            (5.5, Woke, &["start 0#1 due 4"]),
            (6.0, Ran(1), &["a 4 ran"]),
            (9.5, Woke, &["start 0#2 due 8"]),
        ],
    );
}

#[test]
fn a_clock_that_is_corrected_by_less_than_a_minute_makes_nothing_due_again() {
    let mut roster = Roster::new(every_4s(policies()), 100, at(0.0).wall);
    check_of(
        &mut roster,
        vec![
            (
                8.0,
                Woke,
                &[
                    "a 4 was missed: merged into the one due at 2001-09-10T00:00:08Z: it was held up, or the clock was put forward",
                    "start 0#1 due 8 missed 1",
                ],
            ),
            (8.5, Ran(1), &["a 8 ran"]),
            (-22.0, Woke, &[]),
            (-51.0, Woke, &[]),
            (8.0, Woke, &[]),
        ],
    );
    // Many small corrections are one big one.
    check_of(
        &mut roster,
        vec![(-22.0, Woke, &[]), (-53.0, Woke, &[]), (-52.0, Woke, &["start 0#2 due -52"])],
    );
}

#[test]
fn a_clock_that_is_put_back_does_not_pause_jobs() {
    let noon = "cron 10 0 0 * * *";
    check(
        vec![terms("a", "every 1h", policies()), terms("b", noon, policies())],
        vec![
            (10.0, Woke, &["start 1#1 due 10"]),
            (11.0, Ran(1), &["b 10 ran"]),
            (-10_800.0, Woke, &[]),
            (-7_200.0, Woke, &["start 0#2 due -7200"]),
            (-7_100.0, Ran(2), &["a -7200 ran"]),
            // It really went over this one again.
            (
                10.0,
                Woke,
                &[
                    "a -3600 was missed: merged into the one due at 2001-09-10T00:00:00Z: it was held up, or the clock was put forward",
                    "start 0#3 due 0 missed 1",
                    "start 1#4 due 10",
                ],
            ),
        ],
    );
}

#[test]
fn the_status_says_how_each_job_stands() {
    let mut roster = Roster::new(every_4s(policies()), 100, at(0.0).wall);
    let _ = (roster.woke(at(9.0)), roster.pause(0));
    let status = &roster.status()[0];
    assert_eq!((status.running, status.counts.missed, status.next), (1, 1, Some(at(12.0).wall)));
    assert_eq!((&*status.trigger, status.paused.as_deref()), ("every 4s", Some("by command")));
    let _ = tell(&mut roster, &Failed(1), at(9.5));
    let status = &roster.status()[0];
    assert_eq!((status.running, status.failures, status.counts.failed), (0, 1, 1));
    assert_eq!(status.lateness(), Some(secs(1)));
}

const TRIGGERS: [&str; 6] =
    ["every 4s", "every 7s", "every 250ms", "every 3s from start", "cron */5 * * * * *", "after 2s"];

fn any_policies() -> impl Strategy<Value = Policies> {
    let overlap = prop_oneof![
        Just(None),
        Just(Some(Overlap::Skip)),
        Just(Some(Overlap::Queue)),
        Just(Some(Overlap::Allow(2)))
    ];
    let missed = prop_oneof![Just(Missed::Merge), Just(Missed::Skip), (1..5_u32).prop_map(Missed::All)];
    (overlap, missed, prop::option::of(1..5_u64), 0..3_u32, prop::option::of(1..4_u32)).prop_map(
        |(overlap, missed, limit, times, failures)| {
            let mut policies = policies();
            (policies.overlap, policies.missed, policies.limit) = (overlap, missed, limit.map(secs));
            policies.grace = secs(1);
            policies.retry = (times > 0).then(|| Retry::times(times).backoff(secs(1), secs(4)));
            policies.failures = failures.map(|count| (count, AfterFailures::Pause));
            policies
        },
    )
}

proptest! {
    /// Whatever happens: every instant of every schedule is in exactly one tick, and every tick that was
    /// started ends as exactly one outcome.
    #[test]
    fn every_instant_is_in_one_tick_with_one_outcome(
        picked in prop::collection::vec((0..TRIGGERS.len(), any_policies()), 1..5),
        most in 1..4_usize,
        steps in prop::collection::vec((0..20_000_u32, 0..12_u8, any::<prop::sample::Index>()), 1..80),
    ) {
        let jobs: Vec<_> = picked.iter().enumerate()
            .map(|(n, (trigger, policies))| terms(&n.to_string(), TRIGGERS[*trigger], policies.clone())).collect();
        let mut roster = Roster::new(jobs.clone(), most, at(0.0).wall);
        let (mut now, mut running) = (0.0, Vec::<u64>::new());
        let (mut started, mut ticks) = (HashSet::new(), HashMap::<(usize, bool), Vec<(Timestamp, Timestamp, u64)>>::new());
        let mut ended_runs = HashSet::new();
        let mut hear = |acts: Vec<Act>, running: &mut Vec<u64>| -> Result<(), TestCaseError> {
            for act in acts {
                match act {
                    Act::Start { run, tick, .. } => {
                        prop_assert!(started.insert((run, tick.attempt)), "{} twice", run);
                        prop_assert!(!running.contains(&run));
                        running.push(run);
                    }
                    Act::Record { run, entry } => {
                        let job: usize = entry.job.parse().expect("a number");
                        if let Some(run) = run {
                            prop_assert!(ended_runs.insert(run), "{} has two outcomes", run);
                        }
                        ticks.entry((job, entry.asked)).or_default().push((entry.due, entry.last, entry.ticks));
                    }
                    _ => {}
                }
            }
            Ok(())
        };
        for (wait, what, index) in steps {
            now += f64::from(wait) / 1_000.0;
            let job = index.index(jobs.len());
            let run = (!running.is_empty()).then(|| index.index(running.len()));
            let what = match (what, run) {
                (0..=3, Some(index)) => Ran(running.remove(index)),
                (4, Some(index)) => Failed(running.remove(index)),
                (5, Some(index)) => Gone(running.remove(index)),
                (6, _) => RunNow(job),
                (7, _) => Pause(job),
                (8, _) => Resume(job),
                (9, _) => Cancel(job),
                _ => Woke,
            };
            if let Ok(acts) = tell(&mut roster, &what, at(now)) {
                hear(acts, &mut running)?;
            }
            let acts = roster.woke(at(now));
            hear(acts, &mut running)?;
            prop_assert!(running.len() <= most);
        }
        // What is left ends, and what has not been decided is what the schedule still has.
        let acts = roster.drain(at(now));
        hear(acts, &mut running)?;
        let acts = roster.give_up(at(now));
        hear(acts, &mut running)?;
        prop_assert!(roster.is_idle());
        let runs: HashSet<u64> = started.iter().map(|(run, _)| *run).collect();
        prop_assert_eq!(&runs, &ended_runs);
        for (job, (terms, _)) in jobs.iter().enumerate() {
            let Trigger::Schedule(schedule) = &terms.trigger else { continue };
            let mut entries = ticks.get(&(job, false)).cloned().unwrap_or_default();
            entries.sort_unstable();
            let mut reached = at(0.0).wall;
            for (first, last, count) in entries {
                let passed = schedule.passed(schedule.next_after(reached).expect("a next"), last, 1);
                prop_assert_eq!((schedule.next_after(reached), passed.count), (Some(first), count), "job {}", job);
                reached = last;
            }
            let undecided = roster.jobs[job].backlog.front().copied().or(roster.jobs[job].next);
            prop_assert_eq!(schedule.next_after(reached), undecided);
            if roster.jobs[job].backlog.is_empty() && roster.jobs[job].paused.is_none() && !roster.jobs[job].queued && runs.is_empty() {
                prop_assert!(undecided > Some(at(now).wall));
            }
        }
    }
}
