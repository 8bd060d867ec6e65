//! How much slower other mounts are while one with threads of its own blocks all of them: `bulkhead
//! FRAMEWORK PORT SECONDS`. Prints four figures in milliseconds: the 99th percentile and the worst of
//! the requests to another mount before, and both while the threads are blocked.

use std::{
    io,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use combo::{BoxError, Deployment, mount};
use combo_bench::{client, quantile};

/// What the mount that blocks has of its own.
const THREADS: usize = 2;

/// More than it takes until all threads are blocked.
const HEAD_START: Duration = Duration::from_millis(300);

const OTHER: &str = "/other/hello/world";

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let Some((deployment, port, blocked)) = parse(&words) else {
        eprintln!("usage: bulkhead axum|warp|actix PORT SECONDS");
        return ExitCode::from(2);
    };
    match run(deployment, port, blocked) {
        Ok([before, during]) => {
            println!("{before} {during}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(words: &[String]) -> Option<(Deployment, u16, Duration)> {
    let [framework, port, seconds] = words else { return None };
    let (port, seconds) = (port.parse().ok()?, seconds.parse().ok()?);
    let blocks = match framework.as_str() {
        "axum" => mount::axum(hello_axum::app()),
        "warp" => mount::tower(warp::service(hello_warp::routes())),
        "actix" => mount::actix(hello_actix::app),
        _ => return None,
    };
    let deployment = Deployment::new("bulkhead")
        .listen(format!("tcp:{port}:interface=127.0.0.1"))
        .workers(1)
        .access_log(false)
        .mount("/blocks", blocks.own_threads(THREADS))
        .mount("/other", mount::axum(hello_axum::app()));
    Some((deployment, port, Duration::from_secs(seconds)))
}

fn run(deployment: Deployment, port: u16, blocked: Duration) -> Result<[String; 2], BoxError> {
    let host = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let plan = deployment.plan()?;
    // Dropping it would end it.
    let _combo = host.block_on(combo::start(plan))?;
    let _ = how_long(port, "/blocks/hello/world")?;
    let watched = blocked.saturating_sub(HEAD_START * 2);
    let before = watch(port, watched)?;
    let path = format!("/blocks/block?ms={}", blocked.as_millis());
    let during = thread::scope(|scope| {
        let blocks: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| how_long(port, &path))).collect();
        thread::sleep(HEAD_START);
        let behind = scope.spawn(|| how_long(port, "/blocks/hello/world"));
        let during = watch(port, watched);
        for answer in blocks {
            let _ = answer.join().map_err(|_| io::Error::other("a thread panicked"))??;
        }
        let behind = behind.join().map_err(|_| io::Error::other("a thread panicked"))??;
        if behind < blocked.saturating_sub(HEAD_START * 3) {
            return Err(io::Error::other("not every thread was blocked"));
        }
        during
    })?;
    Ok([before, during])
}

/// How long an answer over a new connection takes.
fn how_long(port: u16, path: &str) -> io::Result<Duration> {
    let asked = Instant::now();
    client::ask(&mut client::connect(port)?, path)?;
    Ok(asked.elapsed())
}

/// Asks the other mount for as long as said.
fn watch(port: u16, long: Duration) -> io::Result<String> {
    let waits = client::waits(port, OTHER, long)?;
    Ok(format!("{:.2} {:.2}", quantile(waits.clone(), 0.99), quantile(waits, 1.0)))
}
