//! Jobs that are all due at one instant and do nothing, with the ledger kept in a folder: `burst JOBS PORT
//! FOLDER`. Prints how many of their ticks were lost, and in milliseconds how long after the instant the
//! last had ended, and the worst of the requests to a mount before and during that.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use combo::{BoxError, Change, Command, Deployment, Job, Reply, Tick, every, mount, secs};
use combo_bench::{client, program, quantile};

/// Between two instants: long enough to start, to watch before one and to watch during it.
const INTERVAL: Duration = secs(20);

/// More than it takes to start.
const HEAD_START: Duration = secs(5);

/// For how long requests are watched, each time.
const WATCHED: Duration = secs(2);

/// From when on it is watched before the instant.
const EARLY: Duration = Duration::from_millis(200);

const PATH: &str = "/axum/hello/world";

fn main() -> ExitCode {
    program("burst JOBS PORT FOLDER", |words| {
        let [jobs, port, folder] = words else { return None };
        Some(run(jobs.parse().ok()?, port.parse().ok()?, folder))
    })
}

fn run(jobs: usize, port: u16, folder: &str) -> Result<String, BoxError> {
    let ran = Arc::new(AtomicUsize::new(0));
    let host = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if until_due()? < HEAD_START + WATCHED {
        thread::sleep(until_due()?);
    }
    let combo = host.block_on(combo::start(deployment(jobs, port, folder, &ran).plan()?))?;
    thread::sleep(until_due()?.checked_sub(WATCHED + EARLY * 2).ok_or("it took too long to start")?);
    let before = client::waits(port, PATH, WATCHED)?;
    if ran.load(Ordering::Relaxed) > 0 {
        return Err("they were due too early".into());
    }
    thread::sleep(until_due()?.saturating_sub(EARLY));
    let during = client::waits(port, PATH, WATCHED)?;
    for _ in 0..10 {
        if ran.load(Ordering::Relaxed) < jobs {
            thread::sleep(secs(1));
        }
    }
    let last = host.block_on(combo.send(Command::Ledger { job: None, most: usize::MAX }));
    let Reply::Ledger(last) = last else { return Err(format!("instead of the ledger: {last:?}").into()) };
    let took = last.iter().map(|entry| entry.end.duration_since(entry.due).as_secs_f64() * 1e3);
    let status = host.block_on(combo.send(Command::Status));
    let Reply::Status(status) = status else {
        return Err(format!("instead of the status: {status:?}").into());
    };
    let recorded: u64 = status.jobs.iter().map(|job| job.counts.ran).sum();
    Ok(format!(
        "{} {:.0} {:.2} {:.2}",
        jobs.abs_diff(recorded as usize),
        took.fold(0.0, f64::max),
        quantile(before, 1.0),
        quantile(during, 1.0)
    ))
}

fn deployment(jobs: usize, port: u16, folder: &str, ran: &Arc<AtomicUsize>) -> Deployment {
    let deployment = Deployment::new("burst")
        .root(folder)
        .state("state")
        .listen(format!("tcp:{port}:interface=127.0.0.1"))
        .access_log(false)
        .mount("/axum", mount::axum(hello_axum::app()));
    (0..jobs).fold(deployment, |deployment, number| {
        let ran = Arc::clone(ran);
        let task = move |_: Tick| {
            let _ = ran.fetch_add(1, Ordering::Relaxed);
            async { Ok(Vec::<Change>::new()) }
        };
        deployment.job(Job::new(format!("job-{number}"), every(INTERVAL), task))
    })
}

/// How long it is until the jobs are due.
fn until_due() -> Result<Duration, BoxError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(INTERVAL - Duration::from_nanos((now.as_nanos() % INTERVAL.as_nanos()) as u64))
}
