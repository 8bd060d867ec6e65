//! A process between us and each program, so that no program outlives us and nothing outlives a program.
//!
//! The keeper is our own binary, executed again as `combo-keeper`. It becomes whoever the orphans among its
//! descendants fall to, starts the program in a group of its own, and holds one end of a socket. At the end of
//! that, which comes with ours however we end, it kills everything. When the program has ended it ends what that
//! has left behind: `SIGTERM` at once, `SIGKILL` a second later, until it has no child any more.
//!
//! It signals only children that it has not reaped and their groups, in its own session. It cannot end what
//! another service starts for the program (`systemd-run`, `at`, a container) or what it may not signal. If
//! somebody kills the keeper itself, we kill the group of the program; what had left that group then stays.
#![expect(clippy::disallowed_methods, reason = "this is a process of its own, and the start of it")]

use std::{
    ffi::OsString,
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, ffi::OsStringExt, net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, fcntl_dupfd_cloexec},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
    process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, getpgid, getpid,
        kill_process, kill_process_group, pidfd_open, pidfd_send_signal, set_child_subreaper, setsid, wait,
        waitid, waitpid,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    signal::unix::{SignalKind, signal},
};

use super::child::{Child, End, LEFT};

/// What a keeper is called: how it knows that it is one. A path is not a match, so neither is a binary
/// of this name that is started by its path.
const NAME: &str = "combo-keeper";

/// With which arguments our binary attends to being a keeper. Not set if it does not.
static ATTENDS: OnceLock<Vec<OsString>> = OnceLock::new();

/// How often a keeper looks for orphans of the program that have ended.
const REAP: Duration = Duration::from_secs(5);

/// The longest pause between two attempts to end what is left.
const PAUSE: Duration = Duration::from_millis(50);

/// After how long we are told that something cannot be ended. The keeper stays with it.
const STUCK: Duration = Duration::from_secs(5);

/// How much longer than the grace a keeper waits for being told, or left, before it kills.
const MARGIN: Duration = Duration::from_millis(500);

/// Lets commands that are tasks be kept, so that nothing of them outlives this process, not even when it
/// is killed. [`main`](crate::main) does this; a program with a `main` of its own calls it first there,
/// before it reads its arguments or starts a thread.
///
/// This binary is then executed again for each run of a command, with `combo-keeper` as its zeroth
/// argument. In that process this function does not return.
///
/// Without it, commands are started in a process group that is killed when their time is over; but if this
/// process is killed they go on, and so do those of their children that left the group.
///
/// ```
/// // The first line of `main`.
/// combo::keep_children();
/// ```
pub fn keep_children() {
    if is_keeper() {
        std::process::exit(serve());
    }
    let _ = ATTENDS.set(Vec::new());
}

/// Whether programs can be kept.
pub(crate) fn attends() -> bool {
    ATTENDS.get().is_some()
}

fn is_keeper() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// What to start.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    pub program: OsString,
    pub arguments: Vec<OsString>,
    /// Whether it gets none of our environment.
    pub clear: bool,
    /// What is set in its environment, and what is removed from it.
    pub environment: Vec<(OsString, Option<OsString>)>,
    pub folder: PathBuf,
}

impl Order {
    /// As a command, without its streams.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        let _ = command.args(&self.arguments).current_dir(&self.folder);
        if self.clear {
            let _ = command.env_clear();
        }
        for (name, value) in &self.environment {
            let _ = match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// As a keeper reads it: the length of the whole, then pieces of a letter, a length and so many bytes.
    fn written(&self) -> Vec<u8> {
        let mut written = vec![0; 8];
        let mut piece = |letter: u8, bytes: &[u8]| {
            written.push(letter);
            written.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            written.extend_from_slice(bytes);
        };
        piece(b'p', self.program.as_bytes());
        piece(b'f', self.folder.as_os_str().as_bytes());
        if self.clear {
            piece(b'c', b"");
        }
        for argument in &self.arguments {
            piece(b'a', argument.as_bytes());
        }
        for (name, value) in &self.environment {
            match value {
                Some(value) => {
                    piece(b'n', name.as_bytes());
                    piece(b'v', value.as_bytes());
                }
                None => piece(b'r', name.as_bytes()),
            }
        }
        let length = written.len() as u64 - 8;
        written[..8].copy_from_slice(&length.to_le_bytes());
        written
    }

    fn read(mut from: impl Read) -> io::Result<Self> {
        let mut length = [0; 8];
        from.read_exact(&mut length)?;
        let body = take(&mut from, u64::from_le_bytes(length))?;
        let (mut order, mut name) = (Self::default(), OsString::new());
        let mut rest = &*body;
        while !rest.is_empty() {
            let mut head = [0; 9];
            Read::read_exact(&mut rest, &mut head)?;
            let [letter, length @ ..] = head;
            let word = OsString::from_vec(take(&mut rest, u64::from_le_bytes(length))?);
            match letter {
                b'p' => order.program = word,
                b'f' => order.folder = word.into(),
                b'c' => order.clear = true,
                b'a' => order.arguments.push(word),
                b'n' => name = word,
                b'v' => order.environment.push((std::mem::take(&mut name), Some(word))),
                b'r' => order.environment.push((word, None)),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(order)
    }
}

/// So many bytes and no fewer.
fn take(from: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = from.take(length).read_to_end(&mut bytes)?;
    if read as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// A letter and a number: what we and a keeper say to each other after the order.
type Message = [u8; 5];

/// We: end the group, and kill it after so many milliseconds.
const TERMINATE: u8 = b't';
/// It: the program was started and has this process id.
const STARTED: u8 = b'p';
/// It: the program could not be started, for this reason of the system's.
const REFUSED: u8 = b'e';
/// It: the program has ended with this exit status.
const EXITED: u8 = b'x';
/// It: the program was ended by this signal.
const SIGNALLED: u8 = b's';
/// It: this process, which the program has left behind, cannot be ended, or not soon.
const LEFT_BEHIND: u8 = b'l';

fn message(letter: u8, number: i32) -> Message {
    let [a, b, c, d] = number.to_le_bytes();
    [letter, a, b, c, d]
}

fn number([_, number @ ..]: Message) -> i32 {
    i32::from_le_bytes(number)
}

/// The file descriptors that a program gets: its input, its output, its errors.
pub(crate) type Streams = [OwnedFd; 3];

/// A program that has a keeper. If it is dropped, everything of it is killed.
#[derive(Debug)]
pub(crate) struct Kept {
    keeper: Child,
    control: tokio::net::UnixStream,
    /// Once it is known.
    program: Option<(Pid, OwnedFd)>,
    end: Option<io::Result<End>>,
    heard: (Message, usize),
}

impl Kept {
    /// Starts a keeper, and gives it the order.
    pub(crate) async fn start(job: &str, order: &Order, streams: Streams) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let control = tokio::net::UnixStream::from_std(ours)?;
        // Our own binary, also if the file has been replaced: the name leads to what is being executed.
        let mut command = Command::new("/proc/self/exe");
        let _ = command.arg0(NAME).args(ATTENDS.get().into_iter().flatten()).arg(job);
        let _ = command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::inherit());
        let keeper = Child::spawn(&mut command)
            .map_err(|error| io::Error::other(format!("cannot start its keeper: {error}")))?;
        // The command has the other end of the socket.
        drop(command);
        let mut kept = Self { keeper, control, program: None, end: None, heard: ([0; 5], 0) };
        send(kept.control.as_fd(), streams.each_ref().map(AsFd::as_fd))?;
        drop(streams);
        kept.control.write_all(&order.written()).await?;
        Ok(kept)
    }

    /// Tells the whole group to end; what has not by then is killed.
    pub(crate) fn terminate(&mut self, grace: Duration) {
        let grace = i32::try_from(grace.as_millis()).unwrap_or(i32::MAX);
        // So little has room, and a keeper that has gone is heard of.
        let _ = rustix::net::send(&self.control, &message(TERMINATE, grace), SendFlags::NOSIGNAL);
    }

    /// Waits until the program and all that it has left behind have ended. May be dropped and called again.
    ///
    /// # Errors
    ///
    /// The program could not be started: the error is the system's.
    pub(crate) async fn ended(&mut self, job: &str) -> io::Result<End> {
        loop {
            match self.hear().await? {
                None => break,
                Some(said) => match said[0] {
                    STARTED => self.program = pid(number(said)).and_then(|pid| Some((pid, found(pid)?))),
                    REFUSED => self.end = Some(Err(io::Error::from_raw_os_error(number(said)))),
                    EXITED => self.end = Some(Ok(End::Exit(number(said)))),
                    SIGNALLED => self.end = Some(Ok(End::Signal(number(said)))),
                    // If the program itself is what cannot be, there is nothing to tell yet.
                    LEFT_BEHIND if self.end.is_none() => {}
                    LEFT_BEHIND => {
                        let process = number(said);
                        tracing::warn!(target: "jobs", job, process, "what it has left behind cannot be ended");
                        return self.end();
                    }
                    _ => return Err(io::ErrorKind::InvalidData.into()),
                },
            }
        }
        self.keeper.ended().await?;
        let _ = self.keeper.reap()?;
        self.end()
    }

    fn end(&mut self) -> io::Result<End> {
        self.end.take().unwrap_or_else(|| {
            self.kill();
            Err(io::Error::new(io::ErrorKind::BrokenPipe, "the process that kept it was killed"))
        })
    }

    /// The next message, or that there is none any more.
    async fn hear(&mut self) -> io::Result<Option<Message>> {
        let (said, length) = &mut self.heard;
        while *length < said.len() {
            match self.control.read(&mut said[*length..]).await {
                Ok(0) => return Ok(None),
                Ok(more) => *length += more,
                // It has gone before it had read everything.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        *length = 0;
        Ok(Some(*said))
    }

    /// Kills the group at once; the keeper sees to the rest. As long as the keeper has not reaped the
    /// program, the number is its own.
    fn kill(&mut self) {
        if let Some((group, program)) = self.program.take()
            && pidfd_send_signal(&program, Signal::KILL).is_ok()
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // That the socket is closed afterwards is the order to kill everything.
        self.kill();
    }
}

fn pid(number: i32) -> Option<Pid> {
    Pid::from_raw(number)
}

fn found(pid: Pid) -> Option<OwnedFd> {
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

fn send(control: BorrowedFd<'_>, streams: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    let fits = rights.push(SendAncillaryMessage::ScmRights(&streams));
    debug_assert!(fits, "there is room for three");
    let _ = sendmsg(control, &[IoSlice::new(b"f")], &mut rights, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(control: &UnixStream) -> io::Result<Streams> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let mut letter = [0];
    let _ = recvmsg(control, &mut [IoSliceMut::new(&mut letter)], &mut rights, RecvFlags::CMSG_CLOEXEC)?;
    let mut received = Vec::new();
    for message in rights.drain() {
        if let RecvAncillaryMessage::ScmRights(streams) = message {
            received.extend(streams);
        }
    }
    received.try_into().map_err(|_| io::ErrorKind::UnexpectedEof.into())
}

/// The whole life of a keeper; gives its exit status.
fn serve() -> i32 {
    match keep() {
        Ok(()) => 0,
        Err(error) => {
            // Nobody is left to tell if standard error is gone.
            let _ = writeln!(io::stderr(), "{NAME}: {error}");
            1
        }
    }
}

fn keep() -> io::Result<()> {
    // A copy that no program inherits; the program gets another standard input than we.
    let control = UnixStream::from(fcntl_dupfd_cloexec(io::stdin(), 3)?);
    catch_signals()?;
    // So that whoever kills all processes with the name of our binary does not mean this one.
    let _ = rustix::thread::set_name(c"combo-keeper");
    let _ = setsid()?;
    set_child_subreaper(Some(getpid()))?;
    let [input, output, errors] = match receive(&control) {
        // We have gone already.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
        received => received?,
    };
    let order = match Order::read(&control) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
        read => read?,
    };
    let mut command = order.command();
    let started = command.process_group(0).stdin(input).stdout(output).stderr(errors).spawn();
    // With it go our copies of the program's streams.
    drop(command);
    let mut keeper = match &started {
        Ok(child) => Keeper { control, ordered: true, program: Pid::from_child(child), deadline: None },
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error());
            return (&control).write_all(&message(REFUSED, errno));
        }
    };
    keeper.say(STARTED, keeper.program.as_raw_nonzero().get());
    let killed = keeper.until_ended();
    keeper.end_all(killed);
    Ok(())
}

/// A stop of the combo may be a signal to all of its processes; the keeper is the last to go. Handlers, not
/// ignored: what is caught is not inherited by the program.
fn catch_signals() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
        SignalKind::quit(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ] {
        // The handler stays when this is dropped, and without a reader it does nothing.
        drop(signal(kind)?);
    }
    Ok(())
}

struct Keeper {
    control: UnixStream,
    /// Whether there is somebody to hear and to be told.
    ordered: bool,
    program: Pid,
    deadline: Option<Instant>,
}

impl Keeper {
    /// Waits until the program has ended, and does not reap it: false. Or until it is to be killed: true.
    fn until_ended(&mut self) -> bool {
        // Without one we look from time to time.
        let ended = pidfd_open(self.program, PidfdFlags::empty()).ok();
        loop {
            let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            if matches!(waitid(WaitId::Pid(self.program), peek), Ok(Some(_))) {
                return false;
            }
            if matches!(waitid(WaitId::All, peek), Ok(Some(_))) {
                for orphan in children().into_iter().filter(|orphan| *orphan != self.program) {
                    let _ = waitpid(Some(orphan), WaitOptions::NOHANG);
                }
            }
            let mut wait = if ended.is_some() { REAP } else { PAUSE };
            if let Some(deadline) = self.deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return true;
                }
                wait = wait.min(left);
            }
            if self.listen(ended.as_ref(), wait) {
                return true;
            }
        }
    }

    /// Ends everything that there is, the program included if it has not, and waits for it.
    fn end_all(&mut self, mut kill: bool) {
        // The program is not reaped, so this is its own group.
        let _ = kill_process_group(self.program, if kill { Signal::KILL } else { Signal::TERM });
        let (since, mut told, mut pause) = (Instant::now(), vec![self.program], Duration::from_millis(1));
        let mut stuck = false;
        loop {
            loop {
                match wait(WaitOptions::NOHANG) {
                    // Its group has been told, and may still be there.
                    Ok(Some((pid, status))) if pid == self.program => self.say_end(status),
                    Ok(Some((pid, _))) => told.retain(|told| *told != pid),
                    Ok(None) => break,
                    Err(Errno::INTR) => {}
                    // There is nobody left.
                    Err(_) => return,
                }
            }
            kill |= since.elapsed() >= LEFT;
            let left = children();
            for child in &left {
                tell_to_end(*child, kill, &mut told);
            }
            if !stuck && since.elapsed() >= STUCK {
                stuck = true;
                self.say(LEFT_BEHIND, left.first().map_or(0, |child| child.as_raw_nonzero().get()));
            }
            kill |= self.listen(None, pause);
            pause = PAUSE.min(pause * 2);
        }
    }

    /// Waits for an order, or the end of the program, or so long. Says whether everything is to be killed.
    fn listen(&mut self, ended: Option<&OwnedFd>, wait: Duration) -> bool {
        let mut awaited = Vec::with_capacity(2);
        if self.ordered {
            awaited.push(PollFd::new(&self.control, PollFlags::IN));
        }
        awaited.extend(ended.map(|ended| PollFd::new(ended, PollFlags::IN)));
        let wait = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() };
        // A signal is no order; whoever calls looks at the clock himself.
        let ready = poll(&mut awaited, Some(&wait)).unwrap_or_default();
        if ready == 0 || !self.ordered || awaited[0].revents().is_empty() {
            return false;
        }
        let mut said = Message::default();
        match (&self.control).read_exact(&mut said) {
            Ok(()) if said[0] == TERMINATE => {
                let _ = kill_process_group(self.program, Signal::TERM);
                let grace = Duration::from_millis(number(said).try_into().unwrap_or_default());
                self.deadline = Instant::now().checked_add(grace + MARGIN);
                false
            }
            _ => {
                self.ordered = false;
                true
            }
        }
    }

    fn say_end(&mut self, status: WaitStatus) {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => self.say(EXITED, code),
            (None, signal) => self.say(SIGNALLED, signal.unwrap_or_default()),
        }
    }

    fn say(&mut self, letter: u8, number: i32) {
        // If nobody hears it, the end of the socket is read next.
        let _ = (&self.control).write_all(&message(letter, number));
    }
}

/// Signals a child that we have not reaped and its group: `SIGTERM` once, `SIGKILL` whenever it is called.
fn tell_to_end(child: Pid, kill: bool, told: &mut Vec<Pid>) {
    // One that joined our own group is the only one in it that is meant.
    let group = getpgid(Some(child)).ok().filter(|group| *group != getpid());
    // They may have ended.
    if kill {
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
        let _ = kill_process(child, Signal::KILL);
    } else if !told.contains(&child) {
        let _ = match group {
            Some(group) if told.contains(&group) => Ok(()),
            Some(group) => {
                told.push(group);
                kill_process_group(group, Signal::TERM)
            }
            None => kill_process(child, Signal::TERM),
        };
        told.push(child);
    }
}

/// The children of this process: those that it started, and the orphans that fell to it. Some kernels have
/// a list of them; that need not be complete, and this is.
fn children() -> Vec<Pid> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let ours = getpid().as_raw_nonzero().to_string();
    let mut children = Vec::new();
    for process in processes.flatten() {
        let Some(number) = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(pid)
        else {
            continue;
        };
        let mut stat = Vec::new();
        let read = File::open(process.path().join("stat")).and_then(|mut file| file.read_to_end(&mut stat));
        if read.is_ok() && parent(&stat) == Some(ours.as_bytes()) {
            children.push(number);
        }
    }
    children
}

/// The parent in a process's `stat`: the second word after the name, which may have anything in it.
fn parent(stat: &[u8]) -> Option<&[u8]> {
    let name = stat.iter().rposition(|byte| *byte == b')')?;
    stat[name + 1..].split(|byte| *byte == b' ').filter(|word| !word.is_empty()).nth(1)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Has this test binary attend, by the test below: a keeper of it runs that one and nothing else.
    pub(crate) fn attend() {
        let (_, module) = module_path!().split_once("::").expect("in a crate");
        let _ = ATTENDS.set(vec!["--exact".into(), format!("{module}::keeper").into(), "--nocapture".into()]);
    }

    #[test]
    fn keeper() {
        if is_keeper() {
            std::process::exit(serve());
        }
    }

    #[test]
    fn an_order_is_read_as_it_was_written() {
        let order = Order {
            program: "sh".into(),
            arguments: vec!["".into(), OsString::from_vec(vec![0xff, b'\n', b' '])],
            clear: true,
            environment: vec![("A".into(), Some("b=c".into())), ("D".into(), None)],
            folder: "/tmp/a b".into(),
        };
        let written = order.written();
        assert_eq!(Order::read(&*written).expect("an order"), order);
        for length in 0..written.len() {
            let error = Order::read(&written[..length]).expect_err("not the whole of it");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn a_parent_is_read_whatever_the_name() {
        assert_eq!(parent(b"12 (a b) c) S 34 56"), Some(b"34".as_slice()));
        assert_eq!(parent(b"12 (a"), None);
        assert_eq!(parent(b""), None);
    }
}
