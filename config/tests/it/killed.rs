//! A process that is killed at any moment, a hundred times: what its ledger says, and what is on the disk.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    thread,
    time::Duration,
};

use combo::{Entry, Timestamp, millis};

use crate::commands::begin;

const KILLS: usize = 100;

/// Each job and its grid, in milliseconds.
const JOBS: [(&str, i64); 5] = [("append", 10), ("pair", 20), ("whole", 15), ("slow", 50), ("all", 25)];

fn milliseconds(instant: Timestamp) -> i64 {
    instant.as_millisecond()
}

/// No instant of any grid is in two entries; and if nothing runs, each is in one. Gives those that ran.
fn check_ledger(entries: &[Entry], runs: bool) -> BTreeMap<String, HashSet<Timestamp>> {
    let mut ran = BTreeMap::new();
    for (job, grid) in JOBS {
        let mut of_job: Vec<&Entry> = entries.iter().filter(|entry| &*entry.job == job).collect();
        of_job.sort_by_key(|entry| entry.due);
        let mut reached = None;
        for entry in &of_job {
            let (first, last) = (milliseconds(entry.due), milliseconds(entry.last));
            let next = reached.map_or(first, |reached| reached + grid);
            assert!(first == next || (runs && first > next), "{job}: after {reached:?} {entry:?}");
            assert_eq!(last - first, (i64::try_from(entry.ticks).unwrap() - 1) * grid, "{entry:?}");
            reached = Some(last);
        }
        let those = of_job.iter().filter(|entry| entry.outcome.word() == "ran").map(|entry| entry.due);
        drop(ran.insert(job.to_owned(), those.collect()));
    }
    ran
}

fn check_files(root: &Path, ran: &BTreeMap<String, HashSet<Timestamp>>) {
    let log = fs::read_to_string(root.join("out/log")).unwrap();
    assert!(log.ends_with('\n'), "half a line");
    let lines: Vec<Timestamp> = log.lines().map(|line| line.parse().unwrap()).collect();
    let once: HashSet<_> = lines.iter().copied().collect();
    assert_eq!(once.len(), lines.len(), "a line twice");
    assert!(ran["append"].is_subset(&once), "a line is lost");
    assert_eq!(fs::read(root.join("out/a")).unwrap(), fs::read(root.join("out/b")).unwrap());
    let whole = fs::read_to_string(root.join("out/whole")).unwrap();
    assert!(whole.lines().count() == 1_000 && whole.lines().all(|line| Some(line) == whole.lines().next()));
}

#[test]
fn nothing_is_lost_or_counted_twice_when_it_is_killed_a_hundred_times() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir(root.join("out")).unwrap();
    for kill in 0..KILLS {
        let mut process = begin("killed", root);
        // At any moment: from before its first tick on.
        thread::sleep(Duration::from_micros((kill as u64 * 7_919) % 120_000));
        process.kill().unwrap();
        assert_eq!(process.wait().unwrap().signal(), Some(9));
        let entries = combo::read_ledger(&root.join(".state")).unwrap();
        drop(check_ledger(&entries, true));
    }
    let mut process = begin("killed", root);
    thread::sleep(millis(300));
    let pid = rustix::process::Pid::from_child(&process);
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let _ = process.wait().unwrap();
    // Once more, to its end: what was interrupted is finished, what ran is recorded as cut.
    let mut process = begin("killed", root);
    thread::sleep(millis(200));
    drop(process.stdin.take());
    assert!(process.wait().unwrap().success());
    let entries = combo::read_ledger(&root.join(".state")).unwrap();
    let ran = check_ledger(&entries, false);
    check_files(root, &ran);
    let cut = entries.iter().filter(|entry| entry.outcome.to_string().contains("process ended")).count();
    let missed = entries.iter().filter(|entry| entry.outcome.word() == "missed").count();
    assert!(cut >= KILLS / 4 && missed >= KILLS / 4, "{cut} were cut and {missed} missed");
    let hidden = fs::read_dir(root.join("out")).unwrap().map(|entry| entry.unwrap().file_name());
    let hidden: Vec<_> = hidden.filter(|name| name.to_string_lossy().starts_with('.')).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}
