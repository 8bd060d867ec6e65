//! What it takes to find the next due instant: `instants COUNT`. Prints a line for each schedule: the
//! nanoseconds that one of so many instants in a row takes, and the schedule.

use std::{hint::black_box, process::ExitCode, time::Instant};

use combo::{BoxError, Schedule, Timestamp};
use combo_bench::program;

const SCHEDULES: [&str; 4] = [
    "every 4s",
    "cron */5 * * * * in Europe/Berlin",
    "cron 30 3 * * * in Europe/Berlin",
    "daily at 03:30 in Europe/Berlin",
];

fn main() -> ExitCode {
    program("instants COUNT", |words| {
        let [count] = words else { return None };
        let count = count.parse().ok()?;
        let lines: Result<Vec<_>, BoxError> = SCHEDULES.iter().map(|said| line(said, count)).collect();
        Some(lines.map(|lines| lines.join("\n")))
    })
}

fn line(said: &str, count: u32) -> Result<String, BoxError> {
    let schedule: Schedule = said.parse().map_err(|fault| format!("schedule `{said}`: {fault}"))?;
    let mut now: Timestamp = "2026-01-01T00:00:00Z".parse()?;
    let began = Instant::now();
    for _ in 0..count {
        now = black_box(&schedule).next_after(now).ok_or("there is none any more")?;
    }
    Ok(format!("{:.0} {said}", began.elapsed().as_secs_f64() * 1e9 / f64::from(count)))
}
