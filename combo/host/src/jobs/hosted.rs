//! tick -> the code of a `tokio_cron_scheduler::Job`, run.
//!
//! Takes a job as its author made it; gives its schedule, without a runtime, and a task that runs its
//! code once per tick. The job lives in a `JobScheduler` of its own that is never started: when is the
//! timetable's business. Such a job does its own reading and writing, and asks for no changes.
//!
//! The crate does not say how a run ended, so: the call is made on the blocking pool, because code
//! that is not async runs in it; a panic there is caught; and a panic in an async job's future shows
//! only as an event that the crate logs while its own future is polled, so that is listened for.
//! An async job runs as a task that the crate spawns: it cannot be cut before its runtime ends.
#![expect(clippy::disallowed_methods, reason = "the code of foreign jobs may block")]

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, LazyLock},
    task::Poll,
    time::Duration,
};

use combo_core::{Change, Outcome, Schedule, Tick, Timestamp};
use jiff::tz::{Offset, TimeZone};
use tokio::{
    runtime::Handle,
    sync::RwLock,
    task::{coop, spawn_blocking},
};
use tokio_cron_scheduler::{Job, JobScheduler, JobToRunAsync, job::JobId};
use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
    subscriber::Interest,
};

use super::{
    output::Output,
    run::{ErasedTask, Wanted, panicked, stopped},
};

/// As the crate stores it: 0 cron, 1 repeated, 2 one-shot.
const ONE_SHOT: i32 = 2;

/// When a job is due by its own schedule. Opens nothing and needs no runtime.
///
/// # Errors
///
/// One sentence, if it is due only once or its schedule cannot be followed.
pub(crate) fn plan(job: &Job) -> Result<Schedule, String> {
    let stored = job.clone().job_data().map_err(|_| POISONED.to_owned())?;
    if stored.job_type == ONE_SHOT {
        return Err("it is due only once; a hosted job has to have a cron schedule or be repeated".into());
    }
    if let Some(cron) = stored.schedule() {
        let zone = match stored.time_offset_seconds {
            0 => TimeZone::UTC,
            east => TimeZone::fixed(
                Offset::from_seconds(east).map_err(|_| format!("its zone is {east} seconds off UTC"))?,
            ),
        };
        let expression = cron.pattern.to_string();
        return Schedule::hosted_cron(&in_full(&expression), zone)
            .map_err(|fault| format!("its schedule is `{expression}`: {fault}"));
    }
    match stored.repeated_every() {
        Some(seconds @ 1..) => {
            Schedule::every(Duration::from_secs(seconds)).map_err(|fault| fault.to_string())
        }
        Some(0) => Err("it is repeated every 0 seconds; `tokio_cron_scheduler` knows whole seconds only, \
                        and drops the rest"
            .into()),
        None => Err("it has no schedule".into()),
    }
}

/// The crate's parser, and so its feature `english`, takes `5/10` for `5-59/10`; ours is a later one
/// that wants it said.
fn in_full(expression: &str) -> String {
    let last = ["59", "59", "23", "31", "12", "7"];
    let mut said = Vec::new();
    for (i, field) in expression.split_whitespace().enumerate() {
        let parts = field.split(',').map(|part| match (part.split_once('/'), last.get(i)) {
            (Some((start, step)), Some(last)) if start.bytes().all(|byte| byte.is_ascii_digit()) => {
                format!("{start}-{last}/{step}")
            }
            _ => part.to_owned(),
        });
        said.push(parts.collect::<Vec<_>>().join(","));
    }
    said.join(" ")
}

/// Takes a job over, on the runtime that its code is to run on.
///
/// # Errors
///
/// One sentence.
pub(crate) async fn open(job: Job) -> Result<HostedCode, String> {
    let schedule = plan(&job)?;
    let refused = |error| format!("`tokio_cron_scheduler` would not take it: {error}");
    // One of its own, so that jobs are never added at the same time and its channels never overflow.
    let mut scheduler = JobScheduler::new_with_channel_size(16).await.map_err(refused)?;
    scheduler.init().await.map_err(refused)?;
    // It keeps the code, too, but perhaps only a little after it has said that the job is added.
    let mut added = scheduler.context().job_create_tx.subscribe();
    let id = scheduler.add(job.clone()).await.map_err(refused)?;
    let (_, code) = added.recv().await.map_err(|_| "its code was lost".to_owned())?;
    Ok(HostedCode { id, job, code, scheduler, schedule })
}

/// The code of a job, taken over.
pub(crate) struct HostedCode {
    id: JobId,
    job: Job,
    code: Arc<RwLock<Box<JobToRunAsync>>>,
    scheduler: JobScheduler,
    schedule: Schedule,
}

/// The lock that the crate keeps its code in is.
const POISONED: &str = "it panicked earlier, and not in an async job's future; `tokio_cron_scheduler` runs such a \
                        job no more until the process is started again";

impl ErasedTask for HostedCode {
    fn run<'a>(&'a self, tick: Tick, _: &'a Output) -> Wanted<'a> {
        Box::pin(async move { self.once(tick).await.map(Into::into) })
    }

    fn can_be_cut(&self) -> bool {
        false
    }
}

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

impl HostedCode {
    async fn once(&self, tick: Tick) -> Result<Vec<Change>, Outcome> {
        let context = self.scheduler.context();
        let stored = context.metadata_storage.write().await.get(self.id).await;
        if !matches!(stored, Ok(Some(_))) {
            return Err(Outcome::Skipped { why: "it has removed itself from its scheduler".into() });
        }
        // Makes a future; the job's own code is not called before that is polled.
        let running = self.code.write().await(self.id, self.scheduler.clone());
        let (job, scheduler) = (self.job.clone(), self.scheduler.clone());
        let (last, next) = (tick.now, self.schedule.next_after(tick.due));
        let begun = spawn_blocking(move || begin(job, &scheduler, last, next, running)).await;
        match begun {
            Ok(Some(running)) => finish(running).await,
            Ok(None) => Err(Outcome::Failed { why: POISONED.into() }),
            Err(error) => Err(error.try_into_panic().map_or_else(|_| stopped(), panicked)),
        }
    }
}

/// Polls once: this is where the job's code is called. On the blocking pool, because it may wait for
/// the job's lock, too. `None` if it cannot be called any more.
fn begin(
    mut job: Job,
    scheduler: &JobScheduler,
    last: Timestamp,
    next: Option<Timestamp>,
    mut running: Running,
) -> Option<Running> {
    let mut stored = job.job_data().ok()?;
    // Jobs may ask their scheduler when they are next due.
    let seconds = |at: Timestamp| u64::try_from(at.as_second()).unwrap_or_default();
    (stored.last_tick, stored.next_tick) = (Some(seconds(last)), next.map_or(0, seconds));
    Handle::current().block_on(async {
        let context = scheduler.context();
        // Kept in memory, so this does not fail.
        let _ = context.metadata_storage.write().await.add_or_update(stored).await;
        // With no budget left, the crate's future stops before it learns how the job ended, so that
        // this is only ever learnt in `finish`, where none of the job's own code is called.
        while coop::has_budget_remaining() {
            coop::consume_budget().await;
        }
        let ended = poll_fn(|context| Poll::Ready(running.as_mut().poll(context).is_ready())).await;
        (!ended).then_some(running)
    })
}

/// Waits for the end, listening.
async fn finish(mut running: Running) -> Result<Vec<Change>, Outcome> {
    let heard = poll_fn(|context| {
        HEARD.set(false);
        let polled = tracing::dispatcher::with_default(&EARS[0], || running.as_mut().poll(context));
        polled.map(|()| HEARD.get())
    });
    if heard.await {
        let why = "its future did; what it said went to standard error".to_owned();
        return Err(Outcome::Panicked { why });
    }
    Ok(Vec::new())
}

thread_local! {
    static HEARD: Cell<bool> = const { Cell::new(false) };
}

/// Two, because while there is only one subscriber in a process, whether an event is heard is settled
/// for good by the thread that is the first to log it, which need not be one that listens.
static EARS: LazyLock<[Dispatch; 2]> = LazyLock::new(|| [Dispatch::new(Ear), Dispatch::new(Ear)]);

/// Hears the crate say that a job did not end well, and nothing else.
struct Ear;

fn hears(metadata: &Metadata<'_>) -> bool {
    *metadata.level() == Level::ERROR && metadata.target().starts_with("tokio_cron_scheduler")
}

impl Subscriber for Ear {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if hears(metadata) { Interest::sometimes() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        hears(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::ERROR)
    }

    fn event(&self, _: &Event<'_>) {
        HEARD.set(true);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Mutex, mpsc},
        time::Instant,
    };

    use tokio::sync::{Notify, oneshot};

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    fn tick() -> Tick {
        Tick::at(at("2026-11-22T12:00:04Z"))
    }

    fn cron(expression: &str) -> Job {
        Job::new(expression, |_, _| {}).expect("a job")
    }

    /// A cron job with a stored offset.
    fn zoned(expression: &str, east: i32) -> Job {
        let mut job = cron(expression);
        let mut stored = job.job_data().expect("what it stores");
        stored.time_offset_seconds = east;
        job.set_job_data(stored).expect("it takes it back");
        job
    }

    fn repeated(duration: Duration) -> Job {
        Job::new_repeated(duration, |_, _| {}).expect("a job")
    }

    /// No runtime anywhere near.
    fn check_due(job: &Job, due: &[&str]) {
        let schedule = plan(job).expect("a schedule");
        let mut now = at("2026-11-22T12:00:00Z");
        for due in due {
            now = schedule.next_after(now).expect("a next");
            assert_eq!(now, at(due), "{schedule}");
        }
    }

    #[test]
    fn it_is_due_when_its_author_said() {
        check_due(&cron("*/4 * * * * *"), &["2026-11-22T12:00:04Z", "2026-11-22T12:00:08Z"]);
        // What its feature `english` makes of "every 4 seconds".
        check_due(&cron("0/4 * * * * ?"), &["2026-11-22T12:00:04Z", "2026-11-22T12:00:08Z"]);
        check_due(
            &cron("5/20,1 * * * * *"),
            &[
                "2026-11-22T12:00:01Z",
                "2026-11-22T12:00:05Z",
                "2026-11-22T12:00:25Z",
                "2026-11-22T12:00:45Z",
                "2026-11-22T12:01:01Z",
            ],
        );
        check_due(
            &cron("0 0 6/9 * * 2/3"),
            &["2026-11-24T06:00:00Z", "2026-11-24T15:00:00Z", "2026-11-27T06:00:00Z"],
        );
        // Both days have to match.
        check_due(&cron("0 0 0 1 * MON"), &["2027-02-01T00:00:00Z"]);
        check_due(&zoned("0 0 10 * * *", 3_600), &["2026-11-23T09:00:00Z"]);
        check_due(&zoned("0 0 10 * * *", -18_000), &["2026-11-22T15:00:00Z"]);
        check_due(&repeated(Duration::from_secs(8)), &["2026-11-22T12:00:08Z", "2026-11-22T12:00:16Z"]);
    }

    #[test]
    fn what_cannot_be_followed_is_a_problem() {
        let once = Job::new_one_shot(Duration::from_secs(8), |_, _| {}).expect("a job");
        let then = Job::new_one_shot_at_instant(Instant::now(), |_, _| {}).expect("a job");
        for (job, why) in [
            (once, "it is due only once; a hosted job has to have a cron schedule or be repeated"),
            (then, "it is due only once; a hosted job has to have a cron schedule or be repeated"),
            (
                repeated(Duration::from_millis(900)),
                "it is repeated every 0 seconds; `tokio_cron_scheduler` knows whole seconds only, and drops the rest",
            ),
            (cron("0 0 0 30 2 *"), "its schedule is `0 0 0 30 2 *`: no instant ever matches it"),
            (zoned("0 0 10 * * *", 99_999_999), "its zone is 99999999 seconds off UTC"),
        ] {
            assert_eq!(plan(&job).err().as_deref(), Some(why));
        }
    }

    fn panicked(why: &str) -> Outcome {
        Outcome::Panicked { why: why.into() }
    }

    /// Runs it as often as outcomes are expected.
    async fn check(job: Job, outcomes: &[Result<(), Outcome>]) {
        let code = open(job).await.expect("it is taken over");
        for (n, outcome) in outcomes.iter().enumerate() {
            let ended = code.once(tick()).await;
            assert_eq!(ended, outcome.clone().map(|()| Vec::new()), "run {n}");
        }
    }

    fn future() -> Outcome {
        panicked("its future did; what it said went to standard error")
    }

    fn poisoned() -> Outcome {
        Outcome::Failed { why: POISONED.into() }
    }

    const ALWAYS: &str = "* * * * * *";

    #[tokio::test]
    async fn a_job_has_run_when_its_code_has_ended() {
        let ran = Arc::new(Mutex::new(Vec::new()));
        let (sync, later) = (Arc::clone(&ran), Arc::clone(&ran));
        check(
            Job::new(ALWAYS, move |_, _| sync.lock().expect("a list").push("sync")).expect("a job"),
            &[Ok(()), Ok(())],
        )
        .await;
        let job = Job::new_async(ALWAYS, move |_, _| {
            let later = Arc::clone(&later);
            Box::pin(async move {
                tokio::task::yield_now().await;
                later.lock().expect("a list").push("async");
            })
        });
        check(job.expect("a job"), &[Ok(()), Ok(())]).await;
        assert_eq!(*ran.lock().expect("a list"), ["sync", "sync", "async", "async"]);
    }

    #[tokio::test]
    async fn an_async_job_is_waited_for() {
        let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (beginning, going) = (Arc::clone(&begun), Arc::clone(&go));
        let job = Job::new_async(ALWAYS, move |_, _| {
            let (begun, go) = (Arc::clone(&beginning), Arc::clone(&going));
            Box::pin(async move {
                begun.notify_one();
                go.notified().await;
            })
        });
        let code = open(job.expect("a job")).await.expect("it is taken over");
        let mut running = tokio::spawn(async move { code.once(tick()).await });
        begun.notified().await;
        assert!(poll_once(&mut running).await.is_pending());
        go.notify_one();
        assert_eq!(running.await.expect("no panic"), Ok(Vec::new()));
    }

    async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await
    }

    #[tokio::test]
    async fn code_that_blocks_does_not_block_the_runtime() {
        let (begun, beginning) = oneshot::channel();
        let (go, going) = mpsc::channel();
        let (begun, going) = (Mutex::new(Some(begun)), Mutex::new(going));
        let job = Job::new(ALWAYS, move |_, _| {
            let begun = begun.lock().expect("a channel").take().expect("one run");
            begun.send(()).expect("somebody waits");
            going.lock().expect("a channel").recv().expect("somebody says go");
        });
        let code = open(job.expect("a job")).await.expect("it is taken over");
        // On a runtime of one thread this could not be, were it blocked.
        let running = tokio::spawn(async move { code.once(tick()).await });
        beginning.await.expect("it has begun");
        go.send(()).expect("it waits");
        assert_eq!(running.await.expect("no panic"), Ok(Vec::new()));
    }

    #[tokio::test]
    async fn a_panic_in_code_that_is_not_async_is_an_outcome_and_so_is_that_it_never_runs_again() {
        let job = Job::new(ALWAYS, |_, _| panic!("in the {}", "code")).expect("a job");
        check(job.clone(), &[Err(panicked("in the code")), Err(poisoned()), Err(poisoned())]).await;
        assert_eq!(plan(&job).err().as_deref(), Some(POISONED));
        assert_eq!(open(job).await.err().as_deref(), Some(POISONED));
    }

    #[tokio::test]
    async fn a_panic_in_making_the_future_is_one_too() {
        let job = Job::new_async(ALWAYS, |_, _| panic!("in the call"));
        check(job.expect("a job"), &[Err(panicked("in the call")), Err(poisoned())]).await;
    }

    async fn panics_now_and_then() {
        let runs = Mutex::new(0);
        let job = Job::new_async(ALWAYS, move |_, _| {
            let mut runs = runs.lock().expect("a number");
            *runs += 1;
            let run = *runs;
            Box::pin(async move {
                if run % 4 > 1 {
                    tokio::task::yield_now().await;
                }
                assert_eq!(run % 2, 0, "in the future");
            })
        });
        let expected: Vec<_> =
            (1..=200).map(|run| if run % 2 == 0 { Ok(()) } else { Err(future()) }).collect();
        check(job.expect("a job"), &expected).await;
    }

    #[tokio::test]
    async fn a_panic_in_a_future_is_an_outcome_and_the_next_tick_runs() {
        panics_now_and_then().await;
    }

    /// However soon it ends: on several threads, it may before anybody waits for it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_panic_in_a_future_on_another_thread_is_an_outcome_too() {
        panics_now_and_then().await;
        tokio::spawn(panics_now_and_then()).await.expect("as it should be");
    }

    #[tokio::test]
    async fn what_a_job_logs_is_not_taken_for_its_end() {
        let job = Job::new_async(ALWAYS, |_, _| {
            tracing::error!(target: "tokio_cron_scheduler", "before");
            Box::pin(async { tracing::error!(target: "tokio_cron_scheduler", "within") })
        });
        check(job.expect("a job"), &[Ok(()), Ok(())]).await;
    }

    #[tokio::test]
    async fn a_panic_that_nobody_listened_to_does_not_make_the_next_unheard() {
        let never = Job::new_async(ALWAYS, |_, _| Box::pin(async { panic!("in the future") }));
        let never = open(never.expect("a job")).await.expect("it is taken over");
        let _ = LazyLock::force(&EARS);
        never.code.write().await(never.id, never.scheduler.clone()).await;
        assert_eq!(never.once(tick()).await, Err(future()));
    }

    #[tokio::test]
    async fn a_job_can_ask_when_it_is_next_due() {
        let asked = Arc::new(Mutex::new(None));
        let answer = Arc::clone(&asked);
        let job = Job::new_async("*/4 * * * * *", move |id, mut scheduler| {
            let answer = Arc::clone(&answer);
            Box::pin(async move {
                let next = scheduler.next_tick_for_job(id).await.expect("an answer").expect("a next");
                *answer.lock().expect("an answer") = Some(next.timestamp());
            })
        });
        check(job.expect("a job"), &[Ok(())]).await;
        assert_eq!(*asked.lock().expect("an answer"), Some(at("2026-11-22T12:00:08Z").as_second()));
    }

    #[tokio::test]
    async fn a_job_that_has_removed_itself_is_skipped() {
        let job = Job::new_async(ALWAYS, |id, scheduler| {
            Box::pin(async move { scheduler.remove(&id).await.expect("it is there") })
        });
        let code = open(job.expect("a job")).await.expect("it is taken over");
        assert_eq!(code.once(tick()).await, Ok(Vec::new()));
        let why = "it has removed itself from its scheduler".to_owned();
        assert_eq!(code.once(tick()).await, Err(Outcome::Skipped { why }));
    }

    #[tokio::test]
    async fn many_jobs_are_taken_over_at_once() {
        let ran = Arc::new(Mutex::new(0));
        let jobs = (0..300).map(|_| {
            let ran = Arc::clone(&ran);
            let job = Job::new(ALWAYS, move |_, _| *ran.lock().expect("a number") += 1).expect("a job");
            tokio::spawn(async move { open(job).await.expect("it is taken over").once(tick()).await })
        });
        for job in jobs.collect::<Vec<_>>() {
            assert_eq!(job.await.expect("no panic"), Ok(Vec::new()));
        }
        assert_eq!(*ran.lock().expect("a number"), 300);
    }
}
