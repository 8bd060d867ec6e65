//! Opens connections to 127.0.0.1, asks once on each for something large, prints `holding` when all answers have
//! begun, and takes 1 KiB a second of each until it is killed; ends with an error if one of them does:
//! `slow_readers COUNT PORT PATH`.

use std::{
    convert::Infallible,
    error::Error,
    io::{self, Read},
    net::TcpStream,
    process::ExitCode,
    thread,
    time::Duration,
};

use combo_bench::{client, program};

/// Between two reads of each.
const PAUSE: Duration = Duration::from_secs(1);

/// What each takes at once, in bytes.
const SIP: usize = 1024;

fn main() -> ExitCode {
    program("slow_readers COUNT PORT PATH", |words| {
        let [count, port, path] = words else { return None };
        Some(read(count.parse().ok()?, port.parse().ok()?, path))
    })
}

fn read(count: usize, port: u16, path: &str) -> Result<Infallible, Box<dyn Error + Send + Sync>> {
    let reader = |nth| -> io::Result<TcpStream> {
        let mut reader = client::connect_as(nth, port)?;
        client::begin(&mut reader, path)?;
        Ok(reader)
    };
    let mut readers: Vec<_> = (0..count).map(reader).collect::<Result<_, _>>()?;
    println!("holding");
    loop {
        thread::sleep(PAUSE);
        for (nth, reader) in readers.iter_mut().enumerate() {
            reader.read_exact(&mut [0; SIP]).map_err(|error| format!("reader {nth}: {error}"))?;
        }
    }
}
