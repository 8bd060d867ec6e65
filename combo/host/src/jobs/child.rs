//! A child process: started, waited for, and reaped whatever happens.
//!
//! [`Child`] is any child; [`Alone`] is a program in a process group of its own without a keeper, which
//! is the weaker way: see [`super::keeper`].
#![expect(clippy::disallowed_methods, reason = "processes are started and waited for, against the clock")]

use std::{
    io,
    os::fd::OwnedFd,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitStatus},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, test_kill_process_group};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, sleep, sleep_until},
};

use crate::serve::listen::readable;

/// How long what a program has left behind may take to end before it is killed.
pub(crate) const LEFT: Duration = Duration::from_secs(1);

/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With an exit status.
    Exit(i32),
    /// By a signal.
    Signal(i32),
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> Self {
        // One that has ended has one of the two.
        status.code().map_or_else(|| Self::Signal(status.signal().unwrap_or_default()), Self::Exit)
    }
}

/// A child of this process. If it is dropped before it has ended, it is still reaped when it does;
/// somebody else sees to it that it does.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    unreaped: Unreaped,
    ended: AsyncFd<OwnedFd>,
}

#[derive(Debug)]
struct Unreaped(Option<std::process::Child>);

impl Child {
    /// Starts a command. Needs a tokio runtime.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        let mut unreaped = Unreaped(Some(child));
        let ended = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from).and_then(readable);
        match ended {
            Ok(ended) => Ok(Self { pid, unreaped, ended }),
            Err(error) => {
                if let Some(child) = &mut unreaped.0 {
                    let _ = child.kill();
                }
                Err(error)
            }
        }
    }

    /// Its process id. Nobody else has it before [`reap`](Self::reap).
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits until it has ended, and leaves it to be reaped.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        // What is ready once is so for ever, so the guard has nothing to clear.
        self.ended.readable().await.map(drop)
    }

    /// How it ended, once it has.
    pub(crate) fn reap(&mut self) -> io::Result<Option<End>> {
        let Some(child) = &mut self.unreaped.0 else { return Ok(None) };
        let status = child.try_wait()?;
        if status.is_some() {
            self.unreaped.0 = None;
        }
        Ok(status.map(End::from))
    }
}

impl Drop for Unreaped {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        if matches!(child.try_wait(), Ok(None)) {
            // Not on a runtime: that may be going as well. Without a thread it stays until we end.
            let reaper = std::thread::Builder::new().name("combo-reaper".into());
            let _ = reaper.stack_size(64 * 1024).spawn(move || child.wait());
        }
    }
}

/// A program in a process group of its own. If it is dropped, the group is killed.
#[derive(Debug)]
pub(crate) struct Alone {
    child: Child,
    /// While there may be something in it.
    group: Option<Pid>,
    /// Once the program itself has.
    end: Option<End>,
    /// When it is killed if it has not ended, or what it left behind has not.
    kill: Option<Instant>,
}

impl Alone {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        let child = Child::spawn(command.process_group(0))?;
        Ok(Self { group: Some(child.pid()), child, end: None, kill: None })
    }

    /// Tells the whole group to end; what has not by then is killed.
    pub(crate) fn terminate(&mut self, grace: Duration) {
        self.signal(Signal::TERM);
        self.kill = self.kill.or_else(|| Instant::now().checked_add(grace));
    }

    /// Waits until it has ended, and ends what of its group it has left behind. May be dropped and called
    /// again.
    pub(crate) async fn ended(&mut self) -> io::Result<End> {
        let end = match self.end {
            Some(end) => end,
            None => self.leader_ended().await?,
        };
        while let Some(group) = self.group {
            if test_kill_process_group(group).is_err() {
                self.group = None;
            } else if self.kill.is_none_or(|kill| kill <= Instant::now()) {
                self.signal(Signal::KILL);
                self.group = None;
            } else {
                sleep(LOOK).await;
            }
        }
        Ok(end)
    }

    async fn leader_ended(&mut self) -> io::Result<End> {
        loop {
            let kill = self.kill;
            tokio::select! {
                ended = self.child.ended() => ended?,
                () = async { sleep_until(kill.unwrap_or_else(Instant::now)).await }, if kill.is_some() => {
                    self.signal(Signal::KILL);
                    self.kill = None;
                    continue;
                }
            }
            // Before it is reaped: until then nobody else can have the number of its group.
            self.signal(Signal::TERM);
            if let Some(end) = self.child.reap()? {
                self.end = Some(end);
                self.kill = Instant::now().checked_add(LEFT);
                return Ok(end);
            }
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // It may have ended.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
