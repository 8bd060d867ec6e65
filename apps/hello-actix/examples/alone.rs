//! The app under actix's own server, over HTTP/1.1 and HTTP/2: `alone PORT [WORKERS]`.

use std::io;
use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::process::ExitCode;

use actix_web::HttpServer;

#[actix_web::main]
async fn main() -> ExitCode {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let Some((port, workers)) = parse(words) else {
        eprintln!("usage: alone PORT [WORKERS]");
        return ExitCode::from(2);
    };
    match run(port, workers).await {
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

async fn run(port: u16, workers: Option<NonZeroUsize>) -> io::Result<()> {
    let mut server = HttpServer::new(hello_actix::app).bind_auto_h2c((Ipv4Addr::LOCALHOST, port))?;
    if let Some(workers) = workers {
        server = server.workers(workers.get());
    }
    for address in server.addrs() {
        println!("listening on http://{address}");
    }
    server.run().await
}
