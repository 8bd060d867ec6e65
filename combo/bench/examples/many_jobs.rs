//! Jobs that are due once a day, so many: `many_jobs OTHERS often|SECONDS`. Prints `started`, and in
//! microseconds what each took to be made and planned, and to be started. Then there is one more job, that
//! does nothing every 5 ms; or, for so many seconds, nothing happens. Then it prints `used` and the
//! milliseconds of CPU meanwhile, gives each job a tick, prints `ticked`, and waits to be stopped.

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use combo::{BoxError, Change, Command, Deployment, Handle, Job, Reply, Tick, every, millis, secs};
use combo_bench::{cpu, program};

const DAY: Duration = secs(24 * 60 * 60);

/// How often it is tried to give a job a tick.
const TRIES: u32 = 1_000;

/// Until what a start leaves behind is over.
const SETTLED: Duration = secs(1);

fn main() -> ExitCode {
    program("many_jobs OTHERS often|SECONDS", |words| {
        let [others, word] = words else { return None };
        let others = others.parse().ok()?;
        let idle = if *word == "often" { None } else { Some(secs(word.parse().ok()?)) };
        Some(run(others, idle).map(|()| "stopped"))
    })
}

fn deployment(others: usize, often: bool) -> Deployment {
    let deployment = Deployment::new("many jobs");
    let deployment = match often {
        true => deployment.job(Job::new("often", every(millis(5)), nothing)),
        false => deployment,
    };
    (0..others)
        .fold(deployment, |deployment, number| deployment.job(Job::new(name(number), every(DAY), nothing)))
}

fn name(number: usize) -> String {
    format!("other-{number}")
}

async fn nothing(_: Tick) -> Result<Vec<Change>, BoxError> {
    Ok(Vec::new())
}

fn run(others: usize, idle: Option<Duration>) -> Result<(), BoxError> {
    let host = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let began = Instant::now();
    let plan = deployment(others, idle.is_none()).plan()?;
    let planned = Instant::now();
    let combo = host.block_on(combo::start(plan))?;
    let each = |took: Duration| took.as_secs_f64() * 1e6 / others as f64;
    println!("started {:.2} {:.2}", each(planned - began), each(planned.elapsed()));
    if let Some(idle) = idle {
        thread::sleep(SETTLED);
        let before = cpu();
        thread::sleep(idle);
        println!("used {:.3}", (cpu() - before).as_secs_f64() * 1e3);
        host.block_on(tick_each(&combo, others))?;
        println!("ticked");
    }
    host.block_on(combo.stopped());
    Ok(())
}

async fn tick_each(combo: &Handle, others: usize) -> Result<(), BoxError> {
    for number in 0..others {
        let mut tries = 0;
        // No more than so many run at once.
        while let Reply::Refused { why } = combo.send(Command::RunJob { name: name(number), due: None }).await
        {
            tries += 1;
            if tries == TRIES {
                return Err(why.into());
            }
            thread::sleep(millis(1));
        }
    }
    Ok(())
}
