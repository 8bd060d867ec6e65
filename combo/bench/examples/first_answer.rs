//! Starts a server again and again and prints the median of the milliseconds until it first answers
//! with 200: `first_answer TIMES PORT PATH PROGRAM [ARGUMENT…]`. The server has to listen on that port
//! of 127.0.0.1; each is killed once it has answered.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use combo_bench::median;

/// Long enough for anything but a server that does not start.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two attempts to connect: the figure is as coarse as this.
const PAUSE: Duration = Duration::from_micros(200);

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let Some((times, port, path, program)) = parse(&words) else {
        eprintln!("usage: first_answer TIMES PORT PATH PROGRAM [ARGUMENT…]");
        return ExitCode::from(2);
    };
    let waits: Result<Vec<_>, _> = (0..times).map(|_| first_answer(port, path, program)).collect();
    match waits {
        Ok(waits) => {
            println!("{:.1}", median(waits.iter().map(|wait| wait.as_secs_f64() * 1e3).collect()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: no answer of `{}`: {error}", program.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn parse(words: &[String]) -> Option<(usize, u16, &str, &[String])> {
    let [times, port, path, program @ ..] = words else { return None };
    (!program.is_empty()).then_some((times.parse().ok()?, port.parse().ok()?, path, program))
}

fn first_answer(port: u16, path: &str, program: &[String]) -> io::Result<Duration> {
    if ask(port, path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody else answers on its port"));
    }
    let started = Instant::now();
    let mut server =
        Command::new(&program[0]).args(&program[1..]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let answer = loop {
        match ask(port, path) {
            Err(error)
                if error.kind() == io::ErrorKind::ConnectionRefused && started.elapsed() < PATIENCE =>
            {
                thread::sleep(PAUSE);
            }
            answer => break answer,
        }
    };
    let waited = started.elapsed();
    server.kill()?;
    let _ = server.wait()?;
    answer.map(|()| waited)
}

/// One request on a connection of its own; an error unless the answer is 200.
fn ask(port: u16, path: &str) -> io::Result<()> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    connection.set_read_timeout(Some(PATIENCE))?;
    write!(connection, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    let _ = connection.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    Err(io::Error::other(format!("it answered `{}`", answer.lines().next().unwrap_or_default())))
}
