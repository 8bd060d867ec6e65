//! What the process was started with -> sockets, each of which one endpoint takes (sd_listen_fds(3)).
//!
//! They are looked for once, before there is a thread or another descriptor: the variables that name them are
//! removed then, and no descriptor is passed on to programs that jobs run.
#![expect(clippy::disallowed_methods, reason = "what a process is started with is in its environment")]

use std::{
    collections::BTreeSet,
    fmt, io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use combo_core::endpoint::Inherited;
use listenfd::ListenFd;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use socket2::{Domain, SockRef, Socket, Type};

/// The variables that are about this process alone: programs that it starts do not get them.
pub(crate) const VARIABLES: [&str; 7] = [
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_FDS_FIRST_FD",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// The descriptor of the first.
const FIRST: RawFd = 3;

/// More descriptors than a process may have open.
const MOST: usize = 1 << 20;

static STARTED_WITH: OnceLock<Mutex<StartedWith>> = OnceLock::new();

/// Takes the sockets that the process was started with, for endpoints such as `systemd:name=web` and `fd:3`.
/// [`main`](crate::main) does this; a program with a `main` of its own calls it first there, before it starts a
/// thread or opens anything. Without it such endpoints are refused.
///
/// `LISTEN_FDS` and `LISTEN_PID` are removed from the environment where they are about this process, and whatever descriptors the process was started
/// with, but for standard input, output and error, are not passed on to programs that it starts.
///
/// ```
/// // In `main`, behind `combo::keep_children`.
/// combo::take_sockets();
/// ```
pub fn take_sockets() {
    let _ = STARTED_WITH.get_or_init(|| Mutex::new(StartedWith::look()));
}

struct StartedWith {
    /// All descriptors that there were, but for standard input, output and error.
    there: BTreeSet<RawFd>,
    passed: Vec<Passed>,
    /// Why there is none.
    none: String,
}

/// A descriptor that was passed in `LISTEN_FDS`.
struct Passed {
    fd: RawFd,
    /// In `LISTEN_FDNAMES`.
    name: Option<String>,
    what: What,
}

enum What {
    Listens(Socket),
    /// An endpoint has it.
    Taken,
    /// What it is instead, and if it is ours, the thing itself.
    Other(&'static str, Option<Socket>),
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "descriptor {}", self.fd)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " (`{name}`)"))
    }
}

impl StartedWith {
    fn look() -> Self {
        let there = descriptors();
        close_fds::set_fds_cloexec(FIRST, &[]);
        let said = |name| std::env::var(name).unwrap_or_default();
        let (count, pid, names) = (said("LISTEN_FDS"), said("LISTEN_PID"), said("LISTEN_FDNAMES"));
        if let Err(none) = ours(&count, &pid, &said("LISTEN_FDS_FIRST_FD"), getpid().as_raw_pid()) {
            return Self { there, passed: Vec::new(), none };
        }
        let none = format!("the process was started with `LISTEN_FDS={count}`");
        let mut given = ListenFd::from_env();
        let names = named(&names, given.len());
        let passed = (0..given.len()).zip(names).map(|(index, name)| look_at(&mut given, index, name));
        Self { there, passed: passed.collect(), none }
    }

    fn names(&self) -> String {
        let names = self.passed.iter().filter_map(|passed| passed.name.as_deref());
        names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    }
}

fn descriptors() -> BTreeSet<RawFd> {
    close_fds::iter_open_fds(FIRST).collect()
}

/// Whether the variables are about descriptors of this process, or why not (sd_listen_fds(3)). Variables outlive the
/// process that they were meant for where it starts others.
fn ours(count: &str, pid: &str, first: &str, own: i32) -> Result<(), String> {
    match () {
        () if count.is_empty() => {
            Err("the process was started with none (`LISTEN_FDS` is not set)".to_owned())
        }
        () if pid.is_empty() => {
            Err("nothing says whose those are that there are (`LISTEN_PID` is not set)".to_owned())
        }
        () if pid.parse() != Ok(own) => {
            Err(format!("those that there are belong to process {pid} (`LISTEN_PID`)"))
        }
        () if !first.is_empty() && first.parse() != Ok(FIRST) => {
            Err(format!("they are to begin at descriptor 3, not at {first} (`LISTEN_FDS_FIRST_FD`)"))
        }
        () if count.parse::<usize>().is_ok_and(|count| count <= MOST) => Ok(()),
        () => Err(format!("the process was started with `LISTEN_FDS={count}`")),
    }
}

/// As many names as there are descriptors, or else none of them is known.
fn named(names: &str, count: usize) -> Vec<Option<String>> {
    let names: Vec<_> =
        names.split(':').map(|name| Some(name.to_owned()).filter(|name| !name.is_empty())).collect();
    if names.len() == count { names } else { vec![None; count] }
}

fn look_at(there: &mut ListenFd, index: usize, name: Option<String>) -> Passed {
    let tcp = |there: &mut ListenFd| there.take_tcp_listener(index).ok().flatten().map(Socket::from);
    let unix = |there: &mut ListenFd| there.take_unix_listener(index).ok().flatten().map(Socket::from);
    let fd = RawFd::try_from(index).ok().and_then(|index| index.checked_add(FIRST)).unwrap_or(RawFd::MAX);
    match tcp(there).or_else(|| unix(there)) {
        Some(socket) => Passed { fd: socket.as_raw_fd(), name, what: what(socket) },
        // Whose they are nobody knows, so they are left as they are.
        None => Passed { fd, name, what: What::Other("no stream socket", None) },
    }
}

fn what(socket: Socket) -> What {
    match socket.is_listener() {
        Ok(true) => What::Listens(socket),
        _ => What::Other("a socket that does not listen", Some(socket)),
    }
}

fn started_with() -> Option<MutexGuard<'static, StartedWith>> {
    Some(STARTED_WITH.get()?.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The sockets that an endpoint means, one or more; nobody else gets them.
pub(super) fn claim(which: &Inherited) -> io::Result<Vec<Socket>> {
    let Some(mut started_with) = started_with() else {
        return Err(io::Error::other("nobody has called `combo::take_sockets` at the start of the process"));
    };
    started_with.claim(which).map_err(io::Error::other)
}

impl StartedWith {
    fn claim(&mut self, which: &Inherited) -> Result<Vec<Socket>, String> {
        let meant: Vec<_> = match which {
            Inherited::Name(name) => {
                let has_name = |passed: &&mut Passed| passed.name.as_ref() == Some(name);
                self.passed.iter_mut().filter(has_name).collect()
            }
            Inherited::Index(index) => self.passed.get_mut(*index).into_iter().collect(),
            Inherited::Fd(fd) => self.passed.iter_mut().filter(|passed| passed.fd == *fd).collect(),
        };
        if !meant.is_empty() {
            return meant.into_iter().map(Passed::claim).collect();
        }
        match which {
            // By that number there may be one of our own by now.
            Inherited::Fd(fd) if !self.there.contains(fd) => {
                Err(format!("the process was started without a descriptor {fd}"))
            }
            Inherited::Fd(fd) => Ok(vec![copy(*fd)?]),
            _ if self.passed.is_empty() => Err(self.none.clone()),
            Inherited::Name(_) if self.names().is_empty() => {
                Err("the sockets have no names (`LISTEN_FDNAMES`); say `systemd:index=0`".to_owned())
            }
            Inherited::Name(_) => Err(format!("none has that name: they are {}", self.names())),
            Inherited::Index(_) => Err(format!("there are {} of them, from 0 on", self.passed.len())),
        }
    }
}

impl Passed {
    fn claim(&mut self) -> Result<Socket, String> {
        match std::mem::replace(&mut self.what, What::Taken) {
            What::Listens(socket) => Ok(socket),
            What::Taken => Err(format!("{self} is taken by another endpoint")),
            What::Other(what, kept) => {
                self.what = What::Other(what, kept);
                Err(format!("{self} is {what}"))
            }
        }
    }
}

/// A descriptor that no variable speaks of, by another number: the one that was passed belongs to nobody here, and
/// lasts as long as the process.
fn copy(fd: RawFd) -> Result<Socket, String> {
    let refused = |error: io::Error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::BADF.raw_os_error() => {
            format!("the process was started without a descriptor {fd}")
        }
        _ => format!("descriptor {fd} cannot be used: {error}"),
    };
    let own = pidfd_open(getpid(), PidfdFlags::empty()).map_err(|errno| refused(errno.into()))?;
    let copied = pidfd_getfd(own, fd, PidfdGetfdFlags::empty()).map_err(|errno| refused(errno.into()))?;
    if !listens(&copied) {
        return Err(format!("descriptor {fd} is no stream socket that listens"));
    }
    Ok(copied.into())
}

fn listens(fd: &OwnedFd) -> bool {
    let socket = SockRef::from(fd);
    let known = [Domain::IPV4, Domain::IPV6, Domain::UNIX];
    let is_stream = socket.r#type().is_ok_and(|kind| kind == Type::STREAM);
    is_stream
        && socket.is_listener().unwrap_or(false)
        && socket.domain().is_ok_and(|domain| known.contains(&domain))
}

/// Lets go of the sockets that no endpoint has taken, and says of each descriptor that is left what it is.
pub(crate) fn leave() -> Vec<String> {
    let Some(mut started_with) = started_with() else { return Vec::new() };
    let left = started_with.passed.iter_mut().filter(|passed| !matches!(passed.what, What::Taken));
    left.map(|passed| match std::mem::replace(&mut passed.what, What::Other("closed", None)) {
        What::Listens(socket) => {
            let at =
                super::listen::address_of(socket.as_fd()).map_or(String::new(), |at| format!(" at {at}"));
            format!("{passed}, a socket that listens{at}, was passed and no endpoint takes it: it is closed")
        }
        What::Other(other, kept) => {
            passed.what = What::Other(other, kept);
            format!("{passed} was passed and is {other}: it is left alone")
        }
        What::Taken => String::new(),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn listener() -> Socket {
        TcpListener::bind("127.0.0.1:0").expect("a port").into()
    }

    fn with(passed: Vec<(Option<&str>, What)>) -> StartedWith {
        let passed = passed.into_iter().enumerate().map(|(index, (name, what))| Passed {
            fd: FIRST + RawFd::try_from(index).expect("few"),
            name: name.map(str::to_owned),
            what,
        });
        StartedWith { there: BTreeSet::new(), passed: passed.collect(), none: "there is none".to_owned() }
    }

    fn check(started_with: &mut StartedWith, which: &Inherited, expected: Result<usize, &str>) {
        let claimed = started_with.claim(which).map(|sockets| sockets.len());
        assert_eq!(claimed, expected.map_err(str::to_owned), "{which:?}");
    }

    #[test]
    fn each_socket_is_taken_once_by_name_place_or_number() {
        let name = |name: &str| Inherited::Name(name.to_owned());
        let given = vec![
            (Some("web"), What::Listens(listener())),
            (Some("web"), What::Listens(listener())),
            (Some("other"), What::Listens(listener())),
            (None, What::Other("no stream socket", None)),
        ];
        let there = &mut with(given);
        check(there, &name("none"), Err("none has that name: they are `web`, `web`, `other`"));
        check(there, &Inherited::Index(4), Err("there are 4 of them, from 0 on"));
        check(there, &Inherited::Index(3), Err("descriptor 6 is no stream socket"));
        check(there, &name("web"), Ok(2));
        check(there, &name("web"), Err("descriptor 3 (`web`) is taken by another endpoint"));
        check(there, &Inherited::Fd(5), Ok(1));
        check(there, &Inherited::Index(2), Err("descriptor 5 (`other`) is taken by another endpoint"));
        let there = &mut with(vec![(None, What::Listens(listener()))]);
        check(
            there,
            &name("web"),
            Err("the sockets have no names (`LISTEN_FDNAMES`); say `systemd:index=0`"),
        );
        check(&mut with(vec![]), &Inherited::Index(0), Err("there is none"));
    }

    #[test]
    fn a_descriptor_that_is_nobodys_is_copied_if_it_listens() {
        let (there, udp) = (listener(), UdpSocket::bind("127.0.0.1:0").expect("a port"));
        let copied = copy(there.as_raw_fd()).expect("a copy");
        assert_eq!(
            copied.local_addr().expect("an address").as_socket(),
            there.local_addr().expect("an address").as_socket()
        );
        let fd = udp.as_raw_fd();
        assert_eq!(copy(fd).err(), Some(format!("descriptor {fd} is no stream socket that listens")));
        assert_eq!(copy(9_999).err(), Some("the process was started without a descriptor 9999".to_owned()));
    }

    #[test]
    fn what_was_opened_later_is_not_copied() {
        let own = listener();
        let fd = own.as_raw_fd();
        let there = &mut with(vec![]);
        let without = format!("the process was started without a descriptor {fd}");
        check(there, &Inherited::Fd(fd), Err(&without));
        let _ = there.there.insert(fd);
        check(there, &Inherited::Fd(fd), Ok(1));
        assert!(descriptors().contains(&fd));
    }

    #[test]
    fn those_of_another_process_are_not_ours() {
        let whose = "nothing says whose those are that there are (`LISTEN_PID` is not set)";
        for (count, pid, first, expected) in [
            ("1", "7", "", Ok(())),
            ("1", "7", "3", Ok(())),
            ("", "7", "", Err("the process was started with none (`LISTEN_FDS` is not set)")),
            ("1", "", "", Err(whose)),
            ("1", "8", "", Err("those that there are belong to process 8 (`LISTEN_PID`)")),
            ("1", "x", "", Err("those that there are belong to process x (`LISTEN_PID`)")),
            ("1", "7", "5", Err("they are to begin at descriptor 3, not at 5 (`LISTEN_FDS_FIRST_FD`)")),
            ("-1", "7", "", Err("the process was started with `LISTEN_FDS=-1`")),
            ("9999999", "7", "", Err("the process was started with `LISTEN_FDS=9999999`")),
        ] {
            assert_eq!(ours(count, pid, first, 7), expected.map_err(str::to_owned), "{count} {pid} {first}");
        }
    }

    #[test]
    fn names_are_known_if_there_is_one_for_each() {
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(named("a:b", 2), [some("a"), some("b")]);
        assert_eq!(named("a::b", 3), [some("a"), None, some("b")]);
        assert_eq!(named("", 1), [None]);
        assert_eq!(named("a", 2), [None, None]);
    }
}
