//! The axum app at `/axum` among other mounts, on one worker, without an access log:
//! `many_mounts PORT OTHERS`.

use std::process::ExitCode;

use combo::{Deployment, mount};

fn main() -> ExitCode {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let Some((port, others)) = parse(words) else {
        eprintln!("usage: many_mounts PORT OTHERS");
        return ExitCode::from(2);
    };
    match run(deployment(port, others)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<(u16, usize)> {
    let port = words.next()?.parse().ok()?;
    let others = words.next()?.parse().ok()?;
    words.next().is_none().then_some((port, others))
}

fn deployment(port: u16, others: usize) -> Deployment {
    let deployment = Deployment::new("many mounts")
        .listen(format!("tcp:{port}:interface=127.0.0.1"))
        .workers(1)
        .access_log(false)
        .mount("/axum", mount::axum(hello_axum::app()));
    (0..others).fold(deployment, |deployment, number| {
        deployment.mount(format!("/other-{number}"), mount::redirect("/axum"))
    })
}

fn run(deployment: Deployment) -> Result<(), combo::BoxError> {
    let host = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    host.block_on(async {
        combo::start(deployment.plan()?).await?.stopped().await;
        Ok(())
    })
}
