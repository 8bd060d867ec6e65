//! Watches files that are replaced every four seconds: `ticks COUNT FILE…`. Waits for `COUNT` instants
//! and prints a line for each file: its name, instants missed, surplus changes, and in milliseconds
//! after the instant the median and worst of its modification times, and the worst of the times when
//! the new contents could be read.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs, io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use combo_bench::{Lateness, lateness, median};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
};

const INTERVAL: Duration = Duration::from_secs(4);

/// Watching begins and ends between two instants, so that none is half in.
const HALF: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let Some((count, files)) = parse(&words) else {
        eprintln!("usage: ticks COUNT FILE…");
        return ExitCode::from(2);
    };
    match watch(count, &files) {
        Ok(lines) => {
            print!("{lines}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: cannot watch: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(words: &[OsString]) -> Option<(u32, Vec<PathBuf>)> {
    let (count, files) = words.split_first()?;
    let files: Vec<_> = files.iter().map(PathBuf::from).collect();
    (!files.is_empty()).then_some((count.to_str()?.parse().ok()?, files))
}

/// When a file was modified and when that was seen, since 1970.
#[derive(Default)]
struct Changes {
    modified: Vec<Duration>,
    seen: Vec<Duration>,
}

fn watch(count: u32, files: &[PathBuf]) -> io::Result<String> {
    let (queue, folders) = queue(files)?;
    let past = now()?.as_secs_f64().rem_euclid(INTERVAL.as_secs_f64());
    let until_half = (HALF.as_secs_f64() - past).rem_euclid(INTERVAL.as_secs_f64());
    thread::sleep(Duration::from_secs_f64(until_half));
    let _ = changes(&queue, &folders, Duration::ZERO)?; // what happened before does not count
    let first = Duration::from_secs((now()? + HALF).as_secs_f64().round() as u64 / 4 * 4);
    let mut changes = changes(&queue, &folders, first + INTERVAL * (count - 1) + HALF)?;
    let mut lines = String::new();
    for file in files {
        let changes = changes.remove(file).unwrap_or_default();
        let modified = lateness(&changes.modified, first, INTERVAL, count as usize);
        let seen = lateness(&changes.seen, first, INTERVAL, count as usize);
        lines += &line(file, &modified, &seen);
    }
    Ok(lines)
}

/// A queue of what happens in the files' folders, with the number that the queue has for each folder.
fn queue(files: &[PathBuf]) -> io::Result<(OwnedFd, HashMap<i32, Vec<PathBuf>>)> {
    let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let mut folders: HashMap<i32, Vec<PathBuf>> = HashMap::new();
    for file in files {
        let folder = file.parent().filter(|folder| *folder != "").unwrap_or(Path::new("."));
        let number = inotify::add_watch(&queue, folder, WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE)?;
        folders.entry(number).or_default().push(file.clone());
    }
    Ok((queue, folders))
}

/// What changed until a time.
fn changes(
    queue: &OwnedFd,
    folders: &HashMap<i32, Vec<PathBuf>>,
    until: Duration,
) -> io::Result<HashMap<PathBuf, Changes>> {
    let mut found: HashMap<PathBuf, Changes> = HashMap::new();
    let mut buffer = [MaybeUninit::uninit(); 4096];
    loop {
        let mut reader = inotify::Reader::new(queue, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(rustix::io::Errno::WOULDBLOCK) => break,
                Err(error) => return Err(error.into()),
            };
            let seen = now()?;
            let Some(name) = event.file_name() else { continue };
            let name = OsString::from_vec(name.to_bytes().to_vec());
            let files = folders.get(&event.wd()).into_iter().flatten();
            for file in files.filter(|file| file.file_name() == Some(&name)) {
                let changes = found.entry(file.clone()).or_default();
                let modified = since_1970(fs::metadata(file)?.modified()?)?;
                // A file that is closed after it was moved here is told of twice.
                if changes.modified.last() != Some(&modified) {
                    changes.modified.push(modified);
                    changes.seen.push(seen);
                }
            }
        }
        let now = now()?;
        let Some(left) = until.checked_sub(now).filter(|left| !left.is_zero()) else { return Ok(found) };
        let wait = Timespec::try_from(left).map_err(io::Error::other)?;
        let _ = poll(&mut [PollFd::new(queue, PollFlags::IN)], Some(&wait))?;
    }
}

fn line(file: &Path, modified: &Lateness, seen: &Lateness) -> String {
    let worst = |late: &[f64]| late.iter().map(|late| late.abs()).fold(0.0, f64::max);
    format!(
        "{} {} {} {:.2} {:.2} {:.2}\n",
        file.file_name().unwrap_or_default().display(),
        modified.missed,
        modified.surplus,
        median(modified.late.clone()),
        worst(&modified.late),
        worst(&seen.late),
    )
}

fn now() -> io::Result<Duration> {
    since_1970(SystemTime::now())
}

fn since_1970(time: SystemTime) -> io::Result<Duration> {
    time.duration_since(UNIX_EPOCH).map_err(io::Error::other)
}
