//! Schedules and policies on a clock that the test moves: how to test one's own, over days and clock changes,
//! in milliseconds. A deployment of jobs alone is enough.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use combo::{
    AfterFailures, BoxError, Change, Command, Deployment, Entry, Job, Missed, Overlap, Reply, Retry, Tick,
    Timestamp, millis, secs, testing::Rig,
};

type Changes = Result<Vec<Change>, BoxError>;

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

async fn nothing(_: Tick) -> Changes {
    Ok(Vec::new())
}

fn with(job: Job) -> Deployment {
    Deployment::new("test").job(job)
}

fn rig_at(deployment: Deployment, now: &str) -> Rig {
    Rig::starting_at(deployment.plan().expect("a right deployment"), at(now))
}

/// When the ticks were due and started, and how they ended.
async fn ticks(rig: &Rig) -> Vec<(String, String, String)> {
    let said =
        |entry: &Entry| (entry.due.to_string(), entry.start.to_string(), entry.outcome.word().to_owned());
    rig.outcomes().await.iter().map(said).collect()
}

async fn check_due(when: &str, now: &str, days: u64, due: &[&str]) {
    let mut rig = rig_at(with(Job::new("a", when, nothing)), now);
    rig.advance(secs(days * 86_400)).await;
    let ticks = ticks(&rig).await;
    assert!(ticks.iter().all(|(due, start, word)| due == start && word == "ran"), "{ticks:?}");
    assert_eq!(ticks.iter().map(|(due, ..)| &**due).collect::<Vec<_>>(), due, "{when}");
}

#[tokio::test]
async fn a_daily_job_keeps_its_hour_when_the_clock_changes() {
    // In spring, the hour from 2 to 3 is not there; in autumn it comes twice.
    let (half_past_three, half_past_two) =
        ("daily at 03:30 in Europe/Berlin", "daily at 02:30 in Europe/Berlin");
    check_due(half_past_three, "2027-03-27T12:00:00Z", 2, &["2027-03-28T01:30:00Z", "2027-03-29T01:30:00Z"])
        .await;
    check_due(half_past_two, "2027-03-27T12:00:00Z", 2, &["2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"])
        .await;
    check_due(half_past_two, "2026-10-24T12:00:00Z", 2, &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"])
        .await;
}

#[tokio::test]
async fn a_year_of_a_monthly_job_takes_no_time() {
    let mut rig =
        rig_at(with(Job::new("rent", "monthly on the 1st at 04:00", nothing)), "2026-01-01T12:00:00Z");
    rig.advance(secs(365 * 86_400)).await;
    let ticks = ticks(&rig).await;
    assert_eq!((ticks.len(), &*ticks[11].0), (12, "2027-01-01T04:00:00Z"));
}

#[tokio::test]
async fn what_was_due_while_nothing_ran_is_one_late_run() {
    let plan = with(Job::new("a", "daily at 03:30", nothing)).plan().expect("a right deployment");
    let mut rig = Rig::resuming(plan, at("2026-11-22T04:00:00Z"), at("2026-11-25T12:00:00Z"));
    rig.advance(secs(1)).await;
    let outcomes = rig.outcomes().await;
    let said: Vec<_> =
        outcomes.iter().map(|entry| (entry.outcome.word(), entry.ticks, entry.missed)).collect();
    assert_eq!(said, [("missed", 2, 0), ("ran", 1, 2)]);
    assert_eq!(outcomes[1].due, at("2026-11-25T03:30:00Z"));
    assert_eq!(outcomes[1].lateness, secs(8 * 3_600 + 1_800));
}

#[tokio::test]
async fn the_clock_is_put_forward_and_back_by_hours() {
    let deployment = || {
        Deployment::new("test")
            .job(Job::new("merged", "every 1h", nothing))
            .job(Job::new("all", "every 1h", nothing).missed(Missed::All(2)))
            .job(Job::new("left", "every 1h", nothing).missed(Missed::Skip))
            .job(Job::new("steady", "every 1h from start", nothing))
    };
    let mut rig = rig_at(deployment(), "2026-11-25T12:00:00Z");
    rig.set_clock(at("2026-11-25T17:30:00Z")).await;
    let words = |outcomes: Vec<Entry>, job: &str| -> Vec<String> {
        let of_job = outcomes.into_iter().filter(|entry| &*entry.job == job);
        of_job.map(|entry| format!("{} {} {}", entry.due, entry.outcome.word(), entry.ticks)).collect()
    };
    let outcomes = rig.outcomes().await;
    assert_eq!(
        words(outcomes.clone(), "merged"),
        ["2026-11-25T13:00:00Z missed 4", "2026-11-25T17:00:00Z ran 1"]
    );
    assert_eq!(
        words(outcomes.clone(), "all"),
        ["2026-11-25T13:00:00Z missed 3", "2026-11-25T16:00:00Z ran 1", "2026-11-25T17:00:00Z ran 1"]
    );
    assert_eq!(words(outcomes.clone(), "left"), ["2026-11-25T13:00:00Z missed 5"]);
    assert!(words(outcomes, "steady").is_empty());
    // Back: no job waits for hours until the clock has caught up.
    rig.set_clock(at("2026-11-25T09:30:00Z")).await;
    let before = rig.outcomes().await.len();
    rig.advance(secs(3_600)).await;
    let after = rig.outcomes().await.split_off(before);
    let mut said: Vec<_> = after.iter().map(|entry| format!("{} {}", entry.job, entry.outcome)).collect();
    said.sort();
    assert_eq!(said, ["all ran", "left ran", "merged ran", "steady ran"]);
}

#[tokio::test]
async fn a_tick_is_tried_again_and_then_an_alert_is_given() {
    let (calls, alerts) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (called, alerted) = (calls.clone(), alerts.clone());
    let fails = move |tick: Tick| {
        assert_eq!(called.fetch_add(1, Relaxed) % 3 + 1, tick.attempt);
        async { Err::<Vec<Change>, BoxError>("it rains".into()) }
    };
    let job = Job::new("a", "every 1h", fails)
        .retry(Retry::times(2).backoff(secs(10), secs(60)))
        .after_failures(2, AfterFailures::Pause);
    let alert = move |alert: &combo::Alert| {
        assert_eq!(alert.to_string(), "job `a` has failed 2 times in a row and is paused: it rains");
        let _ = alerted.fetch_add(1, Relaxed);
    };
    let mut rig = rig_at(with(job).on_alert(alert), "2026-11-25T12:30:00Z");
    rig.advance(secs(10 * 3_600)).await;
    let outcomes = rig.outcomes().await;
    assert_eq!(outcomes.len(), 2);
    for entry in &outcomes {
        assert_eq!((entry.outcome.word(), entry.attempt, entry.took()), ("failed", 3, secs(30)));
    }
    assert_eq!((calls.load(Relaxed), alerts.load(Relaxed)), (6, 1));
    let resumed = rig.command(Command::ResumeJob { name: "a".into() }).await;
    assert_eq!(resumed, Reply::Done);
    rig.advance(secs(40)).await;
    assert_eq!(rig.outcomes().await.len(), 4, "what was due in the pause, and one run");
}

#[tokio::test]
async fn a_task_that_takes_too_long_is_told_and_cut() {
    let deployment = Deployment::new("test")
        .job(
            Job::new("hears", "every 1h", async |tick: Tick| -> Changes {
                tick.cancel.cancelled().await;
                Ok(vec![Change::write("static/a", "too late")])
            })
            .time_limit(secs(60))
            .may_write("."),
        )
        .job(
            Job::new("deaf", "every 1h", async |_: Tick| -> Changes { std::future::pending().await })
                .time_limit(secs(60))
                .grace(secs(3)),
        )
        .root(std::env::temp_dir());
    let mut rig = rig_at(deployment, "2026-11-25T12:59:00Z");
    rig.advance(secs(300)).await;
    let took: Vec<_> =
        rig.outcomes().await.iter().map(|entry| (entry.outcome.to_string(), entry.took())).collect();
    let why = "timed out: it took longer than 60s".to_owned();
    assert_eq!(took, [(why.clone(), secs(60)), (why, secs(63))]);
    assert!(rig.disk().is_empty());
}

#[tokio::test]
async fn events_and_commands_make_ticks() {
    let deployment = Deployment::new("test")
        .job(Job::new("first", "at start", nothing))
        .job(Job::new("then", "after job first", nothing))
        .job(Job::new("file", "when list.csv changes", nothing))
        .job(Job::new("last", "at stop", nothing))
        .job(Job::new("after", "after 10m", async |_: Tick| -> Changes {
            tokio::time::sleep(secs(120)).await;
            Ok(Vec::new())
        }));
    let mut rig = rig_at(deployment, "2026-11-25T12:00:00Z");
    rig.file_changed("list.csv").await;
    rig.file_changed("other.csv").await;
    rig.advance(secs(25 * 60)).await;
    let again = Command::RunJob { name: "first".into(), due: Some(at("2020-01-01T00:00:00Z")) };
    assert_eq!(rig.command(again).await, Reply::Begun);
    assert_eq!(rig.command(Command::Stop).await, Reply::Begun);
    let outcomes = rig.outcomes().await;
    let said: Vec<_> =
        outcomes.iter().map(|entry| (&*entry.job, entry.due.to_string(), entry.asked)).collect();
    let expected = [
        ("first", "2026-11-25T12:00:00Z", false),
        ("then", "2026-11-25T12:00:00Z", false),
        ("file", "2026-11-25T12:00:00Z", false),
        ("after", "2026-11-25T12:10:00Z", false),
        ("after", "2026-11-25T12:22:00Z", false),
        ("first", "2020-01-01T00:00:00Z", true),
        ("then", "2026-11-25T12:25:00Z", false),
        ("last", "2026-11-25T12:25:00Z", false),
    ];
    assert_eq!(said, expected.map(|(job, due, asked)| (job, due.to_owned(), asked)));
}

#[tokio::test]
async fn ten_thousand_jobs_due_at_one_instant_all_run() {
    let jobs = (0..10_000).map(|n| Job::new(format!("job {n}"), "every 1h", nothing));
    let deployment = jobs.fold(Deployment::new("test").running_jobs(100), Deployment::job);
    let mut rig = rig_at(deployment, "2026-11-25T12:30:00Z");
    rig.advance(secs(1_800)).await;
    let Reply::Status(status) = rig.command(Command::Status).await else { panic!("no status") };
    assert!(status.jobs.iter().all(|job| (job.counts.ran, job.counts.all()) == (1, 1)));
}

#[tokio::test]
async fn a_job_that_may_overlap_does() {
    let slow = async |_: Tick| -> Changes {
        tokio::time::sleep(millis(9_500)).await;
        Ok(Vec::new())
    };
    let deployment = Deployment::new("test")
        .job(Job::new("one", "every 4s", slow))
        .job(Job::new("three", "every 4s", slow).overlap(Overlap::Allow(3)))
        .job(Job::new("queue", "every 4s", slow).overlap(Overlap::Queue));
    let mut rig = rig_at(deployment, "2026-11-25T12:00:00Z");
    rig.advance(secs(60)).await;
    let Reply::Status(status) = rig.command(Command::Status).await else { panic!("no status") };
    let counts: Vec<_> =
        status.jobs.iter().map(|job| (job.counts.ran, job.counts.skipped, job.running)).collect();
    assert_eq!(counts[1], (12, 0, 3));
    // Every third tick finds it free; or one waits for the other.
    assert_eq!((counts[0].0 + counts[0].1 + counts[0].2 as u64, counts[0].0), (15, 4));
    assert_eq!((counts[2].0, counts[2].2), (5, 1));
}
