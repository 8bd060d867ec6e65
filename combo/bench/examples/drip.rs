//! Many clients that send a request head byte by byte, and a bystander that asks meanwhile for so many seconds: prints
//! the 99th percentile of what it waited, and the median, in milliseconds: `drip COUNT PORT SECONDS`.

use std::{
    error::Error,
    io::Write,
    net::TcpStream,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use combo_bench::{client, median, program, quantile};

/// Between two bytes of each.
const PAUSE: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    program("drip COUNT PORT SECONDS", |words| {
        let [count, port, seconds] = words else { return None };
        Some(beside(count.parse().ok()?, port.parse().ok()?, seconds.parse().ok()?))
    })
}

fn beside(count: usize, port: u16, seconds: u64) -> Result<String, Box<dyn Error + Send + Sync>> {
    let dripping = (0..count).map(|n| client::connect_as(n, port));
    let mut dripping: Vec<TcpStream> = dripping.collect::<Result<_, _>>()?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ = scope.spawn(|| {
            let head = b"GET /axum/hello/x HTTP/1.1\r\nHost: a\r\nX: ";
            for byte in head.iter().chain([b'x'].iter().cycle()) {
                if over.load(Relaxed) {
                    break;
                }
                // Those that are let go have dripped.
                dripping.retain_mut(|one| one.write_all(&[*byte]).is_ok());
                thread::sleep(PAUSE);
            }
        });
        let waits = client::waits(port, "/axum/hello/x", Duration::from_secs(seconds));
        over.store(true, Relaxed);
        let waits = waits?;
        Ok(format!("{:.2} {:.2}", quantile(waits.clone(), 0.99), median(waits)))
    })
}
