//! How late ticks are by the ledger, with the ledger kept in a folder: `late TICKS PORT FOLDER`. Two jobs
//! are due every four seconds, one does nothing and one writes a file; a mount may be asked meanwhile, at
//! `/axum` on the port. Prints a line for each job: its name, instants missed, surplus ticks, and in
//! milliseconds the median and the worst of how long after due its task was started.

use std::{
    process::ExitCode,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use combo::{BoxError, Change, Command, Deployment, Entry, Handle, Job, Reply, Tick, Timestamp, mount};
use combo_bench::{lateness, median, program, quantile};
use tokio::runtime::Runtime;

const INTERVAL: Duration = Duration::from_secs(4);

/// Begins and ends between two instants, so that none is half in.
const HALF: Duration = Duration::from_secs(2);

const JOBS: [&str; 2] = ["nothing", "file"];

fn main() -> ExitCode {
    program("late TICKS PORT FOLDER", |words| {
        let [ticks, port, folder] = words else { return None };
        let (ticks, port): (u32, u16) = (ticks.parse().ok()?, port.parse().ok()?);
        Some(run(ticks, deployment(port, folder)))
    })
}

fn deployment(port: u16, folder: &str) -> Deployment {
    Deployment::new("late")
        .root(folder)
        .state("state")
        .listen(format!("tcp:{port}:interface=127.0.0.1"))
        .access_log(false)
        .mount("/axum", mount::axum(hello_axum::app()))
        .job(Job::new(JOBS[0], "every 4s", nothing))
        .job(Job::new(JOBS[1], "every 4s", file).may_write("."))
}

async fn nothing(_: Tick) -> Result<Vec<Change>, BoxError> {
    Ok(Vec::new())
}

async fn file(tick: Tick) -> Result<Vec<Change>, BoxError> {
    Ok(vec![Change::write("time.txt", tick.due.to_string())])
}

fn run(ticks: u32, deployment: Deployment) -> Result<String, BoxError> {
    let host = Runtime::new()?;
    let past = now()?.as_secs() % INTERVAL.as_secs();
    if past >= HALF.as_secs() {
        thread::sleep(INTERVAL - Duration::from_secs(past)); // a start takes less than what is left of the next
    }
    let combo = host.block_on(combo::start(deployment.plan()?))?;
    let first = INTERVAL * (now()?.as_secs() / INTERVAL.as_secs() + 1) as u32;
    thread::sleep((first + INTERVAL * (ticks - 1) + HALF).saturating_sub(now()?));
    let lines: Result<Vec<_>, BoxError> =
        JOBS.iter().map(|job| Ok(line(job, &ledger(&host, &combo, job)?, first, ticks as usize))).collect();
    Ok(lines?.join("\n"))
}

fn ledger(host: &Runtime, combo: &Handle, job: &str) -> Result<Vec<Entry>, BoxError> {
    match host.block_on(combo.send(Command::Ledger { job: Some(job.to_owned()), most: usize::MAX })) {
        Reply::Ledger(entries) => Ok(entries),
        other => Err(format!("instead of the ledger: {other:?}").into()),
    }
}

fn line(job: &str, entries: &[Entry], first: Duration, ticks: usize) -> String {
    let ran: Vec<_> = entries.iter().filter(|entry| entry.outcome == combo::Outcome::Ran).collect();
    let due: Vec<_> = ran.iter().map(|entry| since_1970(entry.due)).collect();
    let kept = lateness(&due, first, INTERVAL, ticks);
    let late: Vec<_> = ran.iter().map(|entry| entry.lateness.as_secs_f64() * 1e3).collect();
    format!("{job} {} {} {:.3} {:.3}", kept.missed, kept.surplus, median(late.clone()), quantile(late, 1.0))
}

fn since_1970(instant: Timestamp) -> Duration {
    Duration::from_nanos(u64::try_from(instant.as_nanosecond()).unwrap_or_default())
}

fn now() -> Result<Duration, BoxError> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}
