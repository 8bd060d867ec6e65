//! Lets all floods loose on a server on 127.0.0.1, one after another, and prints a line for each: how many of what
//! it consists of were sent, how it ended, the CPU time in seconds and the memory in KiB that it cost the process,
//! and the longest wait of a bystander in milliseconds: `flood PORT PID`.

use std::{error::Error, fs, process::ExitCode, thread, time::Duration};

use combo_bench::{flood, program};

/// The most of what a flood consists of.
const MOST: usize = 100_000;

fn main() -> ExitCode {
    program("flood PORT PID", |words| {
        let [port, pid] = words else { return None };
        Some(Ok(
            floods(port.parse().ok()?, pid.parse().ok()?).unwrap_or_else(|error| format!("error: {error}"))
        ))
    })
}

fn floods(port: u16, pid: u32) -> Result<String, Box<dyn Error + Send + Sync>> {
    let mut lines = Vec::new();
    for flood in flood::all() {
        let (cpu, memory) = (cpu(pid)?, memory(pid)?);
        let met = flood.meet(port, MOST)?;
        let (cpu, memory) = (settled(pid)? - cpu, self::memory(pid)?.saturating_sub(memory));
        let flood::Met { sent, end, waits: (_, longest) } = met;
        lines.push(format!("{}\t{sent}\t{end:?}\t{cpu:.2}\t{memory}\t{longest:.1}", flood.name));
    }
    Ok(lines.join("\n"))
}

/// What it has used once it uses no more.
fn settled(pid: u32) -> Result<f64, Box<dyn Error + Send + Sync>> {
    let mut before = cpu(pid)?;
    loop {
        thread::sleep(Duration::from_millis(100));
        let now = cpu(pid)?;
        if now - before < 0.02 {
            return Ok(now);
        }
        before = now;
    }
}

/// In seconds (proc(5), `stat`); there are a hundred ticks of the clock in each.
fn cpu(pid: u32) -> Result<f64, Box<dyn Error + Send + Sync>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let words = stat.rsplit_once(") ").ok_or("no such process")?.1.split(' ');
    let ticks: u32 = words.skip(11).take(2).map(|word| word.parse().unwrap_or(0)).sum();
    Ok(f64::from(ticks) / 100.0)
}

/// In KiB.
fn memory(pid: u32) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no such process")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
