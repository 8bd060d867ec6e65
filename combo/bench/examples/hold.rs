//! Opens connections to 127.0.0.1, asks once on each or makes a websocket of it, prints `holding` and
//! keeps them open until it is killed: `hold COUNT PORT PATH [websocket]`.

use std::{convert::Infallible, io, net::TcpStream, process::ExitCode, thread};

use combo_bench::client;

type Open = fn(&mut TcpStream, &str) -> io::Result<()>;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let Some((count, port, path, open)) = parse(&words) else {
        eprintln!("usage: hold COUNT PORT PATH [websocket]");
        return ExitCode::from(2);
    };
    let Err(error) = hold(count, port, path, open);
    eprintln!("error: cannot hold {count} connections: {error}");
    ExitCode::FAILURE
}

fn parse(words: &[String]) -> Option<(usize, u16, &str, Open)> {
    let [count, port, path, kind @ ..] = words else { return None };
    let open = match kind {
        [] => client::ask,
        [kind] if kind == "websocket" => client::upgrade,
        _ => return None,
    };
    Some((count.parse().ok()?, port.parse().ok()?, path, open))
}

fn hold(count: usize, port: u16, path: &str, open: Open) -> io::Result<Infallible> {
    let connection = |nth| -> io::Result<TcpStream> {
        let mut connection = client::connect_as(nth, port)?;
        open(&mut connection, path)?;
        Ok(connection)
    };
    let _connections: Vec<_> = (0..count).map(connection).collect::<Result<_, _>>()?;
    println!("holding");
    loop {
        thread::park();
    }
}
