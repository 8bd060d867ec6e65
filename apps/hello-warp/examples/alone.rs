//! The app under warp's own server: `alone PORT [WORKERS]`.

use std::io;
use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::process::ExitCode;

use tokio::net::TcpListener;
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let Some((port, workers)) = parse(words) else {
        eprintln!("usage: alone PORT [WORKERS]");
        return ExitCode::from(2);
    };
    match run(port, workers) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot serve on `127.0.0.1:{port}`: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<(u16, Option<NonZeroUsize>)> {
    let port = words.next()?.parse().ok()?;
    let workers = words.next().map(|word| word.parse()).transpose().ok()?;
    words.next().is_none().then_some((port, workers))
}

fn run(port: u16, workers: Option<NonZeroUsize>) -> io::Result<()> {
    let mut runtime = Builder::new_multi_thread();
    if let Some(workers) = workers {
        let _ = runtime.worker_threads(workers.get());
    }
    runtime.enable_all().build()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        println!("listening on http://{}", listener.local_addr()?);
        warp::serve(hello_warp::routes()).incoming(listener).run().await;
        Ok(())
    })
}
