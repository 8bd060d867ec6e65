//! What a tick costs that writes one small file, the ledger included: `change TICKS FOLDER`, where the
//! folder should be one that is in memory, so that bringing it to the disk is free. Prints the microseconds
//! of CPU of one of about so many ticks, one every 2 ms, without what the process uses while the job is
//! paused; and how many there were.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use combo::{BoxError, Change, Command, Deployment, Handle, Job, Reply, Tick, every, millis};
use combo_bench::{cpu, program};
use tokio::runtime::Runtime;

const INTERVAL: Duration = millis(2);

const NAME: &str = "file";

/// After a command: until what it has brought about is over.
const SETTLED: Duration = millis(200);

fn main() -> ExitCode {
    program("change TICKS FOLDER", |words| {
        let [ticks, folder] = words else { return None };
        Some(run(ticks.parse().ok()?, folder))
    })
}

fn run(ticks: u32, folder: &str) -> Result<String, BoxError> {
    let ran = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&ran);
    let task = move |tick: Tick| {
        let _ = counted.fetch_add(1, Ordering::Relaxed);
        async move { Ok(vec![Change::write("time.txt", tick.due.to_string())]) }
    };
    let deployment = Deployment::new("change")
        .root(folder)
        .state("state")
        .job(Job::new(NAME, every(INTERVAL), task).may_write("."));
    let host = Runtime::new()?;
    let combo = host.block_on(combo::start(deployment.plan()?))?;
    say(&host, &combo, Command::PauseJob { name: NAME.to_owned() })?;
    let (idle, _) = used(ticks, &ran);
    say(&host, &combo, Command::ResumeJob { name: NAME.to_owned() })?;
    let (busy, ran) = used(ticks, &ran);
    if ran == 0 {
        return Err("there was no tick".into());
    }
    Ok(format!("{:.1} {ran}", (busy - idle) * 1e6 / f64::from(ran)))
}

fn say(host: &Runtime, combo: &Handle, command: Command) -> Result<(), BoxError> {
    match host.block_on(combo.send(command)) {
        Reply::Done => {
            thread::sleep(SETTLED);
            Ok(())
        }
        other => Err(format!("it was not done: {other:?}").into()),
    }
}

/// The seconds of CPU that are used while so many ticks are due, and how many there are meanwhile.
fn used(ticks: u32, ran: &AtomicU32) -> (f64, u32) {
    let (before, counted) = (cpu(), ran.load(Ordering::Relaxed));
    thread::sleep(INTERVAL * ticks);
    ((cpu() - before).as_secs_f64(), ran.load(Ordering::Relaxed) - counted)
}
