//! Opens keep-alive connections to 127.0.0.1, asks once on each, prints `holding` and keeps them open
//! until it is killed: `hold COUNT PORT PATH`.

use std::{
    convert::Infallible,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
    process::ExitCode,
    thread,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let Some((count, port, path)) = parse(&words) else {
        eprintln!("usage: hold COUNT PORT PATH");
        return ExitCode::from(2);
    };
    let Err(error) = hold(count, port, path);
    eprintln!("error: cannot hold {count} connections: {error}");
    ExitCode::FAILURE
}

fn parse(words: &[String]) -> Option<(usize, u16, &str)> {
    let [count, port, path] = words else { return None };
    Some((count.parse().ok()?, port.parse().ok()?, path))
}

fn hold(count: usize, port: u16, path: &str) -> io::Result<Infallible> {
    let _connections: Vec<_> = (0..count).map(|_| open(port, path)).collect::<Result<_, _>>()?;
    println!("holding");
    loop {
        thread::park();
    }
}

/// A connection on which one request has been answered, with a body of one line.
fn open(port: u16, path: &str) -> io::Result<TcpStream> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    connection.set_read_timeout(Some(PATIENCE))?;
    write!(connection, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while !whole(&answer) {
        match connection.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(connection)
}

fn whole(answer: &[u8]) -> bool {
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n");
    head.is_some_and(|head| answer.ends_with(b"\n") && answer.len() > head + 4)
}
