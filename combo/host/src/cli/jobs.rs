//! What the command line says of jobs: how they stand, when they are due, what became of their ticks.
//! Pure: a plan, what the ledger has, and the time go in; text comes out.

use std::{fmt::Write as _, time::Duration};

use combo_core::{
    Counts, Entry, Missed, OnDrain, Overlap, Policies, Schedule, Timestamp, Trigger, trigger::Event,
};
use jiff::tz::TimeZone;

use crate::{
    jobs::journal::Written,
    plan::{Plan, PlannedJob, PlannedWork},
};

/// How many instants are shown of each job.
const NEXT: usize = 3;

/// For how long ahead clock changes are told.
const AHEAD: Duration = Duration::from_secs(400 * 24 * 3_600);

/// Every job: when it is due, in words; how its last tick ended; its next instants.
pub(super) fn standing(plan: &Plan, written: &Written, now: Timestamp) -> String {
    let mut text = String::new();
    for job in &plan.jobs {
        let mut line = |said: &str| {
            let _ = writeln!(text, "{said}");
        };
        line(&format!("{}: {}", job.name, job.trigger.describe()));
        if plan.state.is_some() {
            let known = written.jobs.get(&*job.name).cloned().unwrap_or_default();
            match &known.last {
                None => line("  last   never"),
                Some(entry) => line(&format!("  last   {}, {}", entry.start, ended(entry))),
            }
            let running = written.open.iter().filter(|begun| *begun.job == *job.name);
            for begun in running {
                line(&match written.kept || begun.asked {
                    true => format!("  now    running since {}, due {}", begun.start, begun.due),
                    false => format!("  now    it was running when the process ended, due {}", begun.due),
                });
            }
            line(&format!("  so far {}", so_far(&known.counts)));
            if known.failures > 1 {
                line(&format!("  the last {} in a row have failed", known.failures));
            }
        }
        line(&format!("  next   {}", next(&job.trigger, now)));
    }
    if plan.jobs.is_empty() {
        text.push_str("there are no jobs\n");
    } else if plan.state.is_some() && !written.kept {
        text.push_str("\nno process is running this deployment here\n");
    } else if plan.state.is_none() {
        text.push_str("\nwhat became of them is known only to the process that runs: the deployment says no `.state(\"…\")`\n");
    }
    text
}

/// Everything there is to say of a job beforehand: its next instants, in this zone and in UTC, what clock
/// changes do to them, and what each of its policies would do.
pub(super) fn explanation(job: &PlannedJob, count: usize, now: Timestamp, zone: &TimeZone) -> String {
    let mut text = format!("{}: {}\n", job.name, job.trigger.describe());
    let mut part = |title: &str, lines: Vec<String>| {
        for (i, said) in lines.iter().enumerate() {
            let _ = writeln!(text, "  {:9} {said}", if i == 0 { title } else { "" });
        }
    };
    part("said", vec![format!("`{}`", job.trigger)]);
    part("does", vec![does(job)]);
    match &job.trigger {
        Trigger::Schedule(schedule) => {
            let instants = instants(schedule, now).take(count);
            let said =
                |due: Timestamp| format!("{} ({due})", due.to_zoned(zone.clone()).strftime("%a %F %T%.f %Z"));
            let mut lines: Vec<_> = instants.map(said).collect();
            if lines.is_empty() {
                lines.push("never again".into());
            }
            part("next", lines);
            let until = now.checked_add(AHEAD).unwrap_or(Timestamp::MAX);
            part("clocks", schedule.clock_changes(now, until).iter().map(ToString::to_string).collect());
        }
        trigger => part("next", vec![next(trigger, now)]),
    }
    for (title, said) in policies(job) {
        part(title, vec![said]);
    }
    text
}

/// What each policy would do, in this case.
fn policies(job: &PlannedJob) -> Vec<(&'static str, String)> {
    let Policies { missed, limit, grace, retry, jitter, failures, on_drain, .. } = &job.policies;
    let overlap = match job.policies.overlap(&job.trigger) {
        Overlap::Skip => "a tick that is due while the one before runs is skipped".to_owned(),
        Overlap::Queue => {
            "of the ticks that are due while one runs, the latest runs right after it".to_owned()
        }
        Overlap::Allow(most) => format!("up to {most} run at once; one more is skipped"),
        other => other.to_string(),
    };
    let missed = match missed {
        Missed::Merge => {
            "what was due while nothing could run is one late run, for the latest of them".to_owned()
        }
        Missed::Skip => {
            "what was due while nothing could run is left out; nothing starts more than 1 s late".to_owned()
        }
        Missed::All(most) => {
            format!("of what was due while nothing could run, the last {most} run, one after the other")
        }
        other => other.to_string(),
    };
    let limit = match (limit, can_be_cut(job)) {
        (None, _) => "none: it may take as long as it does".to_owned(),
        (Some(limit), true) => format!("after {limit:?} it is told to end, {grace:?} later it is cut"),
        (Some(limit), false) => {
            format!("after {limit:?} it is told to end; it cannot be cut, so it may go on")
        }
    };
    let retry = match retry {
        None => "none: what has failed is over until the next tick".to_owned(),
        Some(retry) => {
            let waits: Vec<_> = (1..=retry.times).map_while(|n| retry.wait(n)).take(5).collect();
            let said: Vec<_> = waits.iter().map(|wait| format!("{wait:?}")).collect();
            let more = if retry.times as usize > waits.len() { ", …" } else { "" };
            format!("up to {} more attempts, after {}{more}", retry.times, said.join(", "))
        }
    };
    let jitter = if jitter.is_zero() {
        "none: it starts when it is due".to_owned()
    } else {
        format!("it starts later than due, always by the same part of {jitter:?}")
    };
    let failures = match failures {
        None => "nothing is done when it keeps failing".to_owned(),
        Some((count, then)) => format!("after {count} in a row: {then}"),
    };
    let stop = match on_drain {
        OnDrain::Cancel => "a tick that runs is told to end",
        _ => "a tick that runs is waited for, within the drain's budget",
    };
    vec![
        ("overlap", overlap),
        ("missed", missed),
        ("limit", limit),
        ("retry", retry),
        ("jitter", jitter),
        ("failures", failures),
        ("stop", stop.to_owned()),
    ]
}

fn can_be_cut(job: &PlannedJob) -> bool {
    match &job.work {
        PlannedWork::Task(task) => task.can_be_cut(),
        PlannedWork::Command(_) => true,
        #[cfg(feature = "acme")]
        PlannedWork::Certificates(_) => true,
        #[cfg(feature = "tokio-cron-scheduler")]
        PlannedWork::Hosted(_) => false,
    }
}

fn does(job: &PlannedJob) -> String {
    let folders: Vec<_> = job.may_write.iter().map(|path| format!("`{}`", path.display())).collect();
    match &job.work {
        #[cfg(feature = "tokio-cron-scheduler")]
        PlannedWork::Hosted(_) => "a tokio-cron-scheduler job; it does its own writing".to_owned(),
        PlannedWork::Command(program) => format!("runs `{program}`"),
        #[cfg(feature = "acme")]
        PlannedWork::Certificates(ordered) => format!("orders {ordered}"),
        PlannedWork::Task(_) if folders.is_empty() => "a task; it writes nothing".to_owned(),
        PlannedWork::Task(_) => format!("a task; it may write {}", folders.join(", ")),
    }
}

fn instants(schedule: &Schedule, now: Timestamp) -> impl Iterator<Item = Timestamp> {
    std::iter::successors(schedule.next_after(now), |due| schedule.next_after(*due))
}

fn next(trigger: &Trigger, now: Timestamp) -> String {
    match trigger {
        Trigger::Schedule(schedule) => {
            let next: Vec<_> = instants(schedule, now).take(NEXT).map(|due| due.to_string()).collect();
            if next.is_empty() { "never again".to_owned() } else { next.join(", ") }
        }
        Trigger::FromStart(_) => "counted from the start of the process".to_owned(),
        Trigger::AfterEnd(_) => {
            "counted from the start of the process, then from the end of each run".to_owned()
        }
        Trigger::Event(Event::Start) => "when the process starts".to_owned(),
        Trigger::Event(Event::Stop) => "when the process stops".to_owned(),
        Trigger::Event(Event::Changed(path)) => format!("when `{}` changes", path.display()),
        Trigger::Event(Event::After(job)) => format!("when `{job}` has run"),
        _ => "when it is".to_owned(),
    }
}

fn so_far(counts: &Counts) -> String {
    let Counts { ran, failed, timed_out, cancelled, skipped, missed, .. } = *counts;
    let all = [
        (ran, "ran"),
        (failed, "failed"),
        (timed_out, "timed out"),
        (cancelled, "cancelled"),
        (skipped, "skipped"),
        (missed, "missed"),
    ];
    let said: Vec<_> =
        all.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    if said.is_empty() { "nothing".to_owned() } else { said.join(", ") }
}

/// How a tick ended: `ran, 0.3 ms late, took 2 ms`.
fn ended(entry: &Entry) -> String {
    let mut text = super::plain(&entry.outcome.to_string()).into_owned();
    if entry.attempt > 0 {
        let (late, took) = (said(entry.lateness), said(entry.took()));
        let _ = write!(text, ", {late} late, took {took}");
    }
    if entry.attempt > 1 {
        let _ = write!(text, " in {} attempts", entry.attempt);
    }
    if entry.asked {
        text.push_str(", asked for");
    }
    text
}

/// To three digits or so.
fn said(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        0.0..0.001 => format!("{:.0} µs", seconds * 1e6),
        0.001..0.1 => format!("{:.1} ms", seconds * 1e3),
        0.1..1.0 => format!("{:.0} ms", seconds * 1e3),
        1.0..100.0 => format!("{seconds:.1} s"),
        _ => format!("{:?}", Duration::from_secs(duration.as_secs())),
    }
}

/// One line for one tick, or for several that were skipped or missed, with its changes and output.
pub(super) fn ledger_line(entry: &Entry) -> String {
    let mut text = format!("{}  {}  {}", entry.due, entry.job, ended(entry));
    if entry.ticks > 1 {
        let _ = write!(text, " ({} ticks, the last due at {})", entry.ticks, entry.last);
    }
    for change in &entry.changes {
        let _ = write!(text, "\n    {change}");
    }
    for line in &entry.output {
        let _ = write!(text, "\n    | {line}");
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use combo_core::{BoxError, Change, Outcome, Retry, Tick};

    use super::*;
    use crate::{Deployment, Job, jobs::journal::Remembered, secs};

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    async fn nothing(_: Tick) -> Result<Vec<Change>, BoxError> {
        Ok(Vec::new())
    }

    fn entry(outcome: Outcome) -> Entry {
        let due = at("2026-11-25T03:30:00Z");
        let mut entry = Entry::new("clock".into(), due, at("2026-11-25T03:30:00.0003Z"), outcome);
        (entry.attempt, entry.lateness) = (1, Duration::from_micros(300));
        entry.end = at("2026-11-25T03:30:00.0123Z");
        entry
    }

    #[test]
    fn every_job_is_said_to_stand_somehow() {
        let plan = Deployment::new("test")
            .state(".state")
            .job(Job::new("clock", "every 4s", nothing))
            .job(Job::new("after", "after job clock", nothing))
            .plan()
            .expect("a plan");
        let mut written = Written::default();
        let mut known = Remembered { failures: 2, ..Remembered::default() };
        known.last = Some(std::sync::Arc::new(entry(Outcome::Failed { why: "it rains".into() })));
        (known.counts.ran, known.counts.failed) = (5, 2);
        drop(written.jobs.insert("clock".into(), known));
        let text = standing(&plan, &written, at("2026-11-25T12:00:01Z"));
        let clock = format!("clock: {}", plan.jobs[0].trigger.describe());
        let after = format!("after: {}", plan.jobs[1].trigger.describe());
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                &*clock,
                "  last   2026-11-25T03:30:00.0003Z, failed: it rains, 300 µs late, took 12.0 ms",
                "  so far 5 ran, 2 failed",
                "  the last 2 in a row have failed",
                "  next   2026-11-25T12:00:04Z, 2026-11-25T12:00:08Z, 2026-11-25T12:00:12Z",
                &*after,
                "  last   never",
                "  so far nothing",
                "  next   when `clock` has run",
                "",
                "no process is running this deployment here",
            ]
        );
    }

    #[test]
    fn a_job_is_explained() {
        let plan = Deployment::new("test")
            .job(
                Job::new("clock", "cron 30 2 * * * in Europe/Berlin", nothing)
                    .may_write("static")
                    .time_limit(secs(30))
                    .retry(Retry::times(7)),
            )
            .plan()
            .expect("a plan");
        let berlin = TimeZone::get("Europe/Berlin").expect("a zone");
        let text = explanation(&plan.jobs[0], 2, at("2027-03-27T00:00:00Z"), &berlin);
        for line in [
            "  said      `cron 30 2 * * * in Europe/Berlin`",
            "  does      a task; it may write `static`",
            "  next      Sat 2027-03-27 02:30:00 CET (2027-03-27T01:30:00Z)",
            "            Sun 2027-03-28 03:00:00 CEST (2027-03-28T01:00:00Z)",
            "  overlap   a tick that is due while the one before runs is skipped",
            "  missed    what was due while nothing could run is one late run, for the latest of them",
            "  limit     after 30s it is told to end, 5s later it is cut",
            "  retry     up to 7 more attempts, after 1s, 2s, 4s, 8s, 16s, …",
            "  jitter    none: it starts when it is due",
            "  failures  nothing is done when it keeps failing",
            "  stop      a tick that runs is waited for, within the drain's budget",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
        }
        assert!(text.contains("  clocks    ") && text.contains("2027-03-28"), "{text}");
    }

    #[test]
    fn every_tick_is_a_line() {
        let mut one = entry(Outcome::Ran);
        one.changes = vec!["write `a` (1 bytes)".into()];
        one.output = vec!["hello".into()];
        (one.asked, one.attempt) = (true, 2);
        assert_eq!(
            ledger_line(&one),
            "2026-11-25T03:30:00Z  clock  ran, 300 µs late, took 12.0 ms in 2 attempts, asked for\n    write `a` (1 bytes)\n    | hello\n"
        );
        let mut many =
            Entry::new("clock".into(), one.due, one.start, Outcome::Missed { why: "no process ran".into() });
        (many.ticks, many.last) = (3, at("2026-11-25T03:30:08Z"));
        assert_eq!(
            ledger_line(&many),
            "2026-11-25T03:30:00Z  clock  was missed: no process ran (3 ticks, the last due at 2026-11-25T03:30:08Z)\n"
        );
    }

    #[test]
    fn durations_are_said_to_three_digits() {
        for (nanos, expected) in [
            (0, "0 µs"),
            (48_400, "48 µs"),
            (1_234_000, "1.2 ms"),
            (250_000_000, "250 ms"),
            (2_340_000_000, "2.3 s"),
            (3_600_500_000_000, "3600s"),
        ] {
            assert_eq!(said(Duration::from_nanos(nanos)), expected);
        }
    }
}
