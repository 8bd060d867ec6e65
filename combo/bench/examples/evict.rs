//! One client of each kind that keeps a server waiting, all at once, and when each is let go: prints a line for
//! each with its name, the deadline that is meant for it and how many seconds it took: `evict PORT`.

use std::{
    error::Error,
    io::{self, Read, Write},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use combo_bench::{client, program};

/// Between two bytes of who drips.
const DRIP: Duration = Duration::from_millis(500);

/// Longer than any deadline.
const PATIENCE: Duration = Duration::from_secs(150);

struct Slow {
    name: &'static str,
    /// In seconds, as by default.
    deadline: u64,
    says: &'static [u8],
    drips: bool,
    /// It takes all of its answer, or none.
    reads: bool,
}

const HALF: &[u8] = b"GET /axum/ HTTP/1.1\r\nHost: a\r\nX: ";
const POST: &[u8] = b"POST /axum/sink HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nx";
const FILL: &[u8] = b"GET /axum/fill?bytes=100000000000 HTTP/1.1\r\nHost: a\r\n\r\n";
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// A head that says that more of it comes.
const TORN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x01\0\0\0\x01\x82";
/// A request whose answer takes its time.
const QUIET: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x1b\x01\x05\0\0\0\x01\
    \x82\x86\x04\x14/axum/slow?ms=200000\x01\x01a";
const ONE: &[u8] = b"GET /axum/hello/x HTTP/1.1\r\nHost: a\r\n\r\n";

const fn slow(name: &'static str, deadline: u64, says: &'static [u8]) -> Slow {
    Slow { name, deadline, says, drips: false, reads: true }
}

const ALL: [Slow; 11] = [
    slow("nothing sent", 10, b""),
    slow("half a head", 10, HALF),
    Slow { drips: true, ..slow("a head that drips", 10, HALF) },
    slow("half a body", 60, POST),
    Slow { drips: true, ..slow("a body that drips", 60, POST) },
    Slow { reads: false, ..slow("an answer that is not read", 120, FILL) },
    Slow { reads: false, drips: true, ..slow("an answer that is read byte by byte", 120, FILL) },
    slow("nothing after a request", 75, ONE),
    slow("HTTP/2: nothing after the preface", 75, HTTP2),
    slow("HTTP/2: half a head", 10, TORN),
    slow("HTTP/2: a ping that is not answered", 50, QUIET),
];

fn main() -> ExitCode {
    program("evict PORT", |words| {
        let [port] = words else { return None };
        Some(all(port.parse().ok()?))
    })
}

fn all(port: u16) -> Result<String, Box<dyn Error + Send + Sync>> {
    thread::scope(|scope| {
        let waiting: Vec<_> = ALL.iter().map(|slow| (slow, scope.spawn(|| let_go(slow, port)))).collect();
        let mut lines = Vec::new();
        for (slow, waiting) in waiting {
            let waited = waiting.join().map_err(|_| format!("{}: it panicked", slow.name))?;
            let waited = waited.map_err(|error| format!("{}: {error}", slow.name))?;
            lines.push(format!("{}\t{}\t{:.1}", slow.name, slow.deadline, waited.as_secs_f64()));
        }
        Ok(lines.join("\n"))
    })
}

/// How long it takes until the server has ended the connection.
fn let_go(slow: &Slow, port: u16) -> io::Result<Duration> {
    let mut connection = client::connect(port)?;
    let began = Instant::now();
    connection.write_all(slow.says)?;
    connection.set_read_timeout(Some(DRIP))?;
    let mut bytes = vec![0; if slow.reads { 64 << 10 } else { 1 }];
    while began.elapsed() < PATIENCE {
        let over = if slow.reads {
            is_over(connection.read(&mut bytes)) || slow.drips && connection.write_all(b"x").is_err()
        } else {
            thread::sleep(DRIP);
            // What it has not read yet comes before the end.
            connection.take_error()?.is_some() || slow.drips && is_over(connection.read(&mut bytes))
        };
        if over {
            return Ok(began.elapsed());
        }
    }
    Err(io::Error::other("it is not let go"))
}

fn is_over(read: io::Result<usize>) -> bool {
    match read {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
    }
}
