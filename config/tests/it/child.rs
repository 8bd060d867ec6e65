//! The real binary as a process of its own, in a folder of its own.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{
    lines::Lines,
    site::{ANY_PORT, eventually, folder},
    wire::Wire,
};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_frankenstein");

/// A serving process; killed when dropped.
pub(crate) struct Child {
    process: std::process::Child,
    folder: TempDir,
    /// What it says on standard error.
    pub(crate) log: Arc<Lines>,
}

/// What a process that has ended said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A command without what the outside might have set for it.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for name in [
        "COMBO_LISTEN",
        "COMBO_ROOT",
        "COMBO_USER",
        "COMBO_WORKERS",
        "COMBO_LOG",
        "LISTEN_FDS",
        "LISTEN_PID",
        "NOTIFY_SOCKET",
        "RUST_LOG",
        "WATCHDOG_USEC",
    ] {
        let _ = command.env_remove(name);
    }
    let _ = command.stdin(Stdio::null());
    command
}

/// Runs a program to its end.
pub(crate) fn run(mut command: Command) -> Said {
    let program = command.get_program().to_owned();
    let mut process = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("`{}` is needed here: {error}", program.display()));
    let (mut out, mut err) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
    let read = move |from: &mut dyn Read| {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let out = thread::spawn(move || read(&mut out));
    let err = thread::spawn(move || read(&mut err));
    let status = ended(&mut process);
    let (out, err) = (out.join().unwrap(), err.join().unwrap());
    Said { code: status.and_then(|status| status.code()), out, err }
}

/// How it ended; killed if it does not.
fn ended(process: &mut std::process::Child) -> Option<ExitStatus> {
    let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("the process ends", || process.try_wait().expect("a child"))
    }));
    waited
        .unwrap_or_else(|panic| {
            let _ = process.kill();
            std::panic::resume_unwind(panic)
        })
        .into()
}

impl Child {
    /// The real deployment on a free port of the loopback interface.
    pub(crate) fn start() -> Self {
        Self::with(&["--listen", ANY_PORT], |_| ())
    }

    /// With these words on its command line.
    pub(crate) fn with(words: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let mut command = command(BINARY);
        let _ = command.args(words);
        Self::of(command, folder(), change)
    }

    /// Run by a shell after a script, in a folder.
    pub(crate) fn under(script: &str, words: &[&str], folder: TempDir) -> Self {
        Self::within(&["env"], script, words, folder)
    }

    /// The same, with another program that runs the shell.
    pub(crate) fn within(program: &[&str], script: &str, words: &[&str], folder: TempDir) -> Self {
        let mut command = command(program[0]);
        let script = format!("{script}; exec \"$0\" \"$@\"");
        let _ = command.args(&program[1..]).args(["sh", "-c", &script, BINARY]).args(words);
        Self::of(command, folder, |_| ())
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn of(mut command: Command, folder: TempDir, change: impl FnOnce(&mut Command)) -> Self {
        change(command.current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::piped()));
        let mut process = command.spawn().expect("a process");
        let log = Arc::new(Lines::default());
        let (lines, from) = (log.clone(), process.stderr.take().expect("its standard error"));
        drop(thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                lines.push(&line);
            }
            lines.push("the end of standard error");
        }));
        let child = Self { process, folder, log };
        let _ = child.log.wait(&[" serves"]);
        child
    }

    /// Where it says that it serves.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let lines = self.log.with(&[" serves"]);
        let parsed =
            lines.iter().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON"));
        parsed.map(|line| line["address"].as_str().expect("an address").to_owned()).collect()
    }

    /// The first of them that is TCP.
    pub(crate) fn address(&self) -> SocketAddr {
        let addresses = self.addresses();
        let tcp = addresses.iter().find_map(|address| address.split_once("://"));
        tcp.expect("one of TCP").1.parse().expect("an address and a port")
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// The same path as the process sees it.
    pub(crate) fn inside(&self, relative: &str) -> PathBuf {
        let folder = self.folder.path().strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.process.id())).join(folder).join(relative)
    }

    pub(crate) fn wire(&self) -> Wire {
        Wire::tcp(self.address())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("it is there");
    }

    /// Waits for the end of the process.
    pub(crate) fn exit(&mut self) -> ExitStatus {
        let status = eventually("the process ends", || self.process.try_wait().expect("a child"));
        let _ = self.log.wait(&["the end of standard error"]);
        status
    }

    /// How many of its threads have a name that begins so.
    pub(crate) fn threads(&self, name: &str) -> usize {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("its threads");
        let names = threads.flatten().map(|thread| std::fs::read_to_string(thread.path().join("comm")));
        names.flatten().filter(|known| known.starts_with(name)).count()
    }

    /// How much memory it uses, and the most that it ever used, in KiB.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("its status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("such a field");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
