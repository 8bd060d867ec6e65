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

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    path::PathBuf,
    pin::Pin,
    sync::LazyLock,
    task::Poll,
    time::Duration,
};

use combo_core::{Change, Schedule, Tick, Timestamp};
use jiff::tz::{Offset, TimeZone};
use tokio::{
    runtime::Handle,
    task::{coop, spawn_blocking},
};
use tokio_cron_scheduler::{Job, JobScheduler, job::JobId};
use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
    subscriber::Interest,
};

use super::{
    ledger::Outcome,
    run::{ErasedTask, Wanted, panicked},
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
        return Schedule::hosted_cron(&expression, zone)
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
    let id = scheduler.add(job.clone()).await.map_err(refused)?;
    Ok(HostedCode { id, job, scheduler, schedule })
}

/// The code of a job, taken over.
pub(crate) struct HostedCode {
    id: JobId,
    job: Job,
    scheduler: JobScheduler,
    schedule: Schedule,
}

const POISONED: &str = "it has panicked before, and `tokio_cron_scheduler` runs no such job again; restart it, or \
                        make it an async job that panics only in its future";

impl ErasedTask for HostedCode {
    fn run(&self, tick: Tick) -> Wanted<'_> {
        Box::pin(self.once(tick))
    }

    fn writes(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

impl HostedCode {
    async fn once(&self, tick: Tick) -> Result<Vec<Change>, Outcome> {
        let context = self.scheduler.context();
        let code = context.job_code.write().await.get(self.id).await.ok().flatten();
        let Some(code) = code else {
            return Err(Outcome::Skipped { why: "it has removed itself from its scheduler".into() });
        };
        // Makes a future; the job's own code is not called before that is polled.
        let running = code.write().await(self.id, self.scheduler.clone());
        let (job, scheduler) = (self.job.clone(), self.scheduler.clone());
        let (last, next) = (tick.now, self.schedule.next_after(tick.due));
        let begun = spawn_blocking(move || begin(job, &scheduler, last, next, running)).await;
        match begun {
            Ok(Some(running)) => finish(running).await,
            Ok(None) => Err(Outcome::Failed { why: POISONED.into() }),
            Err(error) => Err(error.try_into_panic().map_or(Outcome::Cancelled, panicked)),
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
        let polled = tracing::dispatcher::with_default(&EAR, || running.as_mut().poll(context));
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

static EAR: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Ear));

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
