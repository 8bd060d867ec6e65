//! A job that does nothing every 5 ms, among other jobs that are due once a day: `many_jobs OTHERS`.

use std::process::ExitCode;

use combo::{BoxError, Change, Deployment, Job, Tick, every, millis, secs};

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let [others] = words.as_slice() else { return usage() };
    let Ok(others) = others.parse() else { return usage() };
    match run(deployment(others)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: many_jobs OTHERS");
    ExitCode::from(2)
}

fn deployment(others: usize) -> Deployment {
    let deployment = Deployment::new("many jobs").job(Job::new("often", every(millis(5)), nothing));
    (0..others).fold(deployment, |deployment, number| {
        deployment.job(Job::new(format!("other-{number}"), every(secs(24 * 60 * 60)), nothing))
    })
}

async fn nothing(_: Tick) -> Result<Vec<Change>, BoxError> {
    Ok(Vec::new())
}

fn run(deployment: Deployment) -> Result<(), BoxError> {
    let host = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    host.block_on(async {
        let combo = combo::start(deployment.plan()?).await?;
        println!("started");
        combo.stopped().await;
        Ok(())
    })
}
