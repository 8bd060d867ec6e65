//! Talks over websockets to what says everything again: `talk CONNECTIONS MESSAGES PORT PATH`. Each
//! connection says the next of its messages when it has heard the last, and all of them take turns.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    process::ExitCode,
};

use combo_bench::client::{self, LONGEST_MESSAGE};

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let Some((connections, messages, port, path)) = parse(&words) else {
        eprintln!("usage: talk CONNECTIONS MESSAGES PORT PATH");
        return ExitCode::from(2);
    };
    match talk(connections, messages, port, path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot talk to port {port}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(words: &[String]) -> Option<(usize, usize, u16, &str)> {
    let [connections, messages, port, path] = words else { return None };
    Some((connections.parse().ok()?, messages.parse().ok()?, port.parse().ok()?, path))
}

fn talk(connections: usize, messages: usize, port: u16, path: &str) -> io::Result<()> {
    let websocket = || -> io::Result<TcpStream> {
        let mut connection = client::connect(port)?;
        client::upgrade(&mut connection, path)?;
        Ok(connection)
    };
    let mut websockets: Vec<_> = (0..connections).map(|_| websocket()).collect::<Result<_, _>>()?;
    let message = [b'm'; LONGEST_MESSAGE];
    let (said, expected) = (client::said(&message), client::heard(&message));
    let mut heard = vec![0; expected.len()];
    for _ in 0..messages {
        for websocket in &mut websockets {
            websocket.write_all(&said)?;
        }
        for websocket in &mut websockets {
            websocket.read_exact(&mut heard)?;
            if heard != expected {
                return Err(io::Error::other("it does not say what it heard"));
            }
        }
    }
    Ok(())
}
