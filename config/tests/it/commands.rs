//! Jobs that are commands, block, or wait for files, in a process of their own that is stopped and killed.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use combo::{Entry, secs};

use crate::site::eventually;

/// Starts an example of this package in a folder; `cargo test` builds them beside the tests.
pub(crate) fn begin(example: &str, folder: &Path) -> Child {
    let deps = std::env::current_exe().unwrap();
    let path = deps.ancestors().nth(2).unwrap().join("examples").join(example);
    assert!(path.exists(), "`cargo build -p frankenstein --example {example}` makes {}", path.display());
    let mut process = Command::new(path)
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line == "started")), "it did not start");
    drop(thread::spawn(move || lines.count()));
    process
}

struct Process {
    process: Child,
    root: tempfile::TempDir,
}

impl Process {
    fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("sub")).unwrap();
        Self { process: begin("commands", root.path()), root }
    }

    fn run(&mut self, job: &str) {
        use std::io::Write;
        writeln!(self.process.stdin.as_mut().unwrap(), "{job}").unwrap();
    }

    /// How the last tick of a job ended, once there are so many.
    fn ended(&self, job: &str, count: usize) -> Entry {
        eventually(&format!("{job} has ended"), || {
            let entries = combo::read_ledger(&self.root.path().join(".state")).unwrap();
            let of_job: Vec<_> = entries.into_iter().filter(|entry| &*entry.job == job).collect();
            (of_job.len() >= count).then(|| of_job.last().unwrap().clone())
        })
    }

    /// Processes that have its mark in their environment.
    fn marked(&self) -> Vec<String> {
        let mark = format!("COMBO_TEST_MARK={}", self.root.path().display());
        let mut found = Vec::new();
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let path = process.path();
            let environment = fs::read(path.join("environ")).unwrap_or_default();
            let state = fs::read_to_string(path.join("stat")).unwrap_or_default();
            let zombie = state.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'));
            if !zombie && environment.windows(mark.len()).any(|part| part == mark.as_bytes()) {
                found.push(state);
            }
        }
        found
    }

    fn all_gone(&self) {
        eventually("nothing is left", || self.marked().is_empty().then_some(()));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = (self.process.kill(), self.process.wait());
    }
}

#[test]
fn commands_end_as_they_do_and_their_lines_are_kept() {
    let mut process = Process::start();
    for job in ["good", "bad", "absent", "blocks"] {
        process.run(job);
    }
    let good = process.ended("good", 1);
    assert_eq!(good.outcome.to_string(), "ran");
    let sub = process.root.path().join("sub").canonicalize().unwrap();
    let mut lines = good.output;
    lines.sort();
    assert_eq!(lines, [sub.display().to_string(), "good 1".to_owned()]);
    let bad = process.ended("bad", 1);
    assert_eq!(
        (bad.outcome.to_string(), bad.output),
        ("failed: `sh` ended with exit status 3".to_owned(), vec!["no".to_owned()])
    );
    let absent = process.ended("absent", 1).outcome.to_string();
    assert_eq!(absent, "failed: there is no program `there-is-no-such-program` in `PATH`");
    assert_eq!(process.ended("blocks", 1).outcome.to_string(), "failed: not yet");
    process.run("blocks");
    assert_eq!(process.ended("blocks", 2).outcome.to_string(), "ran");
}

#[test]
fn nothing_of_a_command_is_left_when_it_has_ended() {
    let mut process = Process::start();
    process.run("leaves");
    assert_eq!(process.ended("leaves", 1).outcome.to_string(), "ran");
    process.all_gone();
    process.run("endless");
    let endless = process.ended("endless", 1);
    assert_eq!(endless.outcome.to_string(), "timed out: it took longer than 300ms");
    assert!(endless.took() < secs(20) && endless.output[0] == "begun", "{endless:?}");
    process.all_gone();
}

#[test]
fn nothing_of_a_command_is_left_when_the_process_is_killed() {
    let mut process = Process::start();
    process.run("last");
    eventually("it has begun", || (process.marked().len() >= 5).then_some(()));
    process.process.kill().unwrap();
    process.all_gone();
}

#[test]
fn a_job_is_due_when_its_file_has_changed() {
    let process = Process::start();
    let list = process.root.path().join("sub/list.csv");
    fs::write(&list, "one\n").unwrap();
    assert_eq!(process.ended("changed", 1).output, ["one"]);
    // As editors and tasks do it.
    let temporary = process.root.path().join("sub/.list.tmp");
    fs::write(&temporary, "two\n").unwrap();
    fs::rename(temporary, &list).unwrap();
    assert_eq!(process.ended("changed", 2).output, ["two"]);
}
