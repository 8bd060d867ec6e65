//! An endpoint -> sockets, each handed to the worker with the fewest connections.
//!
//! Accepting happens on the watch thread, where no app can hold it up. When the system refuses (no
//! descriptors left, say) it is said once in a while, and accepting goes on after a pause.
#![expect(clippy::disallowed_methods, reason = "unix sockets are files that have to be removed")]

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use combo_core::{
    Endpoint, Peer,
    endpoint::{Inherited, Port, UnixName, discreet},
};
use http::uri::Scheme;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use tokio::{io::unix::AsyncFd, time::Instant};

#[cfg(feature = "tls")]
pub(crate) use crate::certs::{Store, noticed::Noticing};

use super::{
    gate::Gate,
    redirecting::{Redirecting, Tokens},
    worker::{Accepted, Desk, Raw, Tls},
};
use crate::error::{Error, Kind};

/// Without the feature there are no certificates.
#[cfg(not(feature = "tls"))]
#[derive(Clone, Debug, Default)]
pub(crate) struct Store(());

/// Nor any that change.
#[cfg(not(feature = "tls"))]
#[derive(Debug)]
pub(crate) enum Noticing {}

#[cfg(feature = "tls")]
impl Store {
    fn tokens(&self) -> Option<Tokens> {
        let challenges = self.challenges.clone();
        Some(Arc::new(move |token| challenges.http(token)))
    }
}

#[cfg(not(feature = "tls"))]
impl Store {
    fn tokens(&self) -> Option<Tokens> {
        None
    }

    pub(crate) fn notice(&self, _: impl Fn(&Path) + Send + 'static) -> io::Result<Option<Noticing>> {
        Ok(None)
    }
}

#[cfg(not(feature = "tls"))]
impl Noticing {
    pub(crate) fn look(&self, _: impl FnOnce() + Send + 'static) {
        match *self {}
    }
}

/// How many connections the kernel keeps for us until we accept them, unless it is said.
const BACKLOG: i32 = 4_096;

/// The shortest and the longest pause after the system refused.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The port of https.
const HTTPS: u16 = 443;

/// How often a lasting refusal is logged.
const REMIND: Duration = Duration::from_secs(10);

/// An open endpoint.
pub(crate) struct Listener {
    pub(crate) endpoint: Endpoint,
    socket: Bound,
    tls: Option<Tls>,
    proxied: bool,
    redirecting: Option<Arc<Redirecting>>,
}

#[derive(Debug)]
enum Bound {
    Tcp(std::net::TcpListener),
    /// With the file that was made for it.
    Unix {
        listener: std::os::unix::net::UnixListener,
        _made: Option<Made>,
    },
}

/// A unix socket's file, which goes with it.
#[derive(Debug)]
struct Made {
    path: PathBuf,
    file: File,
}

/// Which file something is: its device and its inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct File(u64, u64);

impl File {
    fn of(found: &std::fs::Metadata) -> Self {
        Self(found.dev(), found.ino())
    }
}

/// Where an endpoint turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address {
    /// A TCP address; where the endpoint said port 0, the port that the system chose.
    Tcp(SocketAddr),
    /// The same, with TLS.
    Tls(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
    /// The abstract name of a unix socket, without the `@`.
    Abstract(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{}", reachable(*address)),
            Self::Tls(address) => write!(f, "https://{}", reachable(*address)),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:@{name}"),
        }
    }
}

/// "Every interface" is no address that one can visit.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if !ip.is_unspecified() => address,
        _ => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
    }
}

impl Listener {
    /// Most endpoints are one socket.
    pub(crate) fn open(endpoint: &Endpoint, root: &Path, store: &Store) -> Result<Vec<Self>, Error> {
        let shown = || discreet(&endpoint.to_string()).into_owned();
        let refused = |cause| Kind::Listen { endpoint: shown(), cause };
        let tls = open_tls(endpoint, root, store)?;
        let sockets = match endpoint.bare() {
            Endpoint::Tcp(port) | Endpoint::Ssl { port, .. } => vec![Bound::Tcp(tcp(port).map_err(refused)?)],
            Endpoint::Unix { path: UnixName::Path(path), mode } => {
                let bound = unix(root.join(path), *mode).map_err(|cause| {
                    let uid = rustix::process::geteuid().as_raw();
                    Kind::Socket { endpoint: shown(), uid, cause }
                })?;
                vec![bound]
            }
            Endpoint::Unix { path: UnixName::Abstract(name), .. } => {
                vec![abstract_unix(name).map_err(refused)?]
            }
            Endpoint::Inherited(which) => inherited(which).map_err(refused)?,
            _ => return Err(refused(not_there("it")).into()),
        };
        let proxied = endpoint.is_proxied();
        let listener = |socket| {
            let (endpoint, tls) = (endpoint.clone(), tls.clone());
            Self { endpoint, socket, tls, proxied, redirecting: None }
        };
        Ok(sockets.into_iter().map(listener).collect())
    }

    pub(crate) fn address(&self) -> Address {
        let nowhere = Address::Tcp(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0));
        match address_of(self.as_fd()).unwrap_or(nowhere) {
            Address::Tcp(address) if self.tls.is_some() => Address::Tls(address),
            address => address,
        }
    }

    fn accept(&self) -> io::Result<Accepted> {
        let (socket, peer) = match &self.socket {
            Bound::Tcp(listener) => {
                let (socket, peer) = listener.accept()?;
                socket.set_nonblocking(true)?;
                (Raw::Tcp(socket), Peer::Inet(SocketAddr::new(peer.ip().to_canonical(), peer.port())))
            }
            Bound::Unix { listener, .. } => {
                let (socket, _) = listener.accept()?;
                socket.set_nonblocking(true)?;
                (Raw::Unix(socket), Peer::Unix)
            }
        };
        let scheme = if self.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        let (tls, proxied, redirecting) = (self.tls.clone(), self.proxied, self.redirecting.clone());
        Ok(Accepted { socket, peer, scheme, tls, proxied, redirecting, shaking: None })
    }
}

/// Where a socket listens.
pub(super) fn address_of(socket: BorrowedFd<'_>) -> Option<Address> {
    let address = SockRef::from(&socket).local_addr().ok()?;
    if let Some(address) = address.as_socket() {
        return Some(Address::Tcp(address));
    }
    let name = || address.as_abstract_namespace().map(|name| String::from_utf8_lossy(name).into_owned());
    let path = address.as_pathname().map(|path| Address::Unix(path.to_owned()));
    path.or_else(|| name().map(Address::Abstract))
}

/// Has those that lead to https lead to the port that it is at.
pub(crate) fn lead_to_https(listeners: &mut [Listener], store: &Store) {
    let tokens = store.tokens();
    let tls = listeners.iter().find_map(|listener| match listener.address() {
        Address::Tls(address) => Some(address.port()),
        _ => None,
    });
    for listener in listeners {
        if let Some(redirect) = listener.endpoint.redirect() {
            // One that is given to us may turn out to have no port.
            let port = redirect.port.or(tls).unwrap_or(HTTPS);
            let redirecting = Redirecting::new(redirect.code, port, tokens.clone());
            listener.redirecting = Some(Arc::new(redirecting));
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Bound::Tcp(listener) => listener.as_fd(),
            Bound::Unix { listener, .. } => listener.as_fd(),
        }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Takes a unix socket's file away, unless somebody else has put his own there.
impl Drop for Made {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| File::of(&found) == self.file) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Sockets that somebody else has bound, and whose file is his.
fn inherited(which: &Inherited) -> io::Result<Vec<Bound>> {
    let sockets = super::inherited::claim(which)?.into_iter().map(|socket| {
        socket.set_nonblocking(true)?;
        if socket.domain()? == Domain::UNIX {
            return Ok(Bound::Unix { listener: socket.into(), _made: None });
        }
        set_options(&socket, &Port::new(0))?;
        Ok(Bound::Tcp(socket.into()))
    });
    sockets.collect()
}

/// What encrypts an endpoint's connections, if something does.
#[cfg(feature = "tls")]
fn open_tls(endpoint: &Endpoint, root: &Path, store: &Store) -> Result<Option<Tls>, Error> {
    #[cfg(not(feature = "acme"))]
    if endpoint.tls().is_some_and(|tls| tls.issuer.is_some()) {
        let (endpoint, cause) = (discreet(&endpoint.to_string()).into_owned(), not_there("feature `acme`"));
        return Err(Kind::Listen { endpoint, cause }.into());
    }
    super::tls::open(endpoint, &discreet(&endpoint.to_string()), root, store)
}

#[cfg(not(feature = "tls"))]
fn open_tls(endpoint: &Endpoint, _: &Path, _: &Store) -> Result<Option<Tls>, Error> {
    if !endpoint.is_encrypted() {
        return Ok(None);
    }
    let (endpoint, cause) = (discreet(&endpoint.to_string()).into_owned(), not_there("feature `tls`"));
    Err(Kind::Listen { endpoint, cause }.into())
}

fn not_there(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("{what} is not there yet"))
}

/// How often a peer that is quiet is asked again whether it is there. Asked by the kernel: nobody waits for such a
/// peer, so no sweep would find it. `TCP_USER_TIMEOUT` would end whoever opens its window bit by bit, however much it
/// takes in all, so it is there for those alone who say it.
const ASKED: u32 = 4;

fn tcp(port: &Port) -> io::Result<std::net::TcpListener> {
    let bind = |address: IpAddr| {
        let socket =
            Socket::new(Domain::for_address((address, 0).into()), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(port.is_v6only())?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        set_options(&socket, port)?;
        socket.bind(&SockAddr::from(SocketAddr::new(address, port.number)))?;
        socket.listen(port.backlog.try_into().unwrap_or(BACKLOG))?;
        Ok(std::net::TcpListener::from(socket))
    };
    match port.interface {
        Some(address) => bind(address),
        None => match bind(Ipv6Addr::UNSPECIFIED.into()) {
            // A machine without IPv6.
            Err(error)
                if !port.is_v6only()
                    && matches!(error.raw_os_error(), Some(code) if NO_IPV6.contains(&code)) =>
            {
                bind(Ipv4Addr::UNSPECIFIED.into())
            }
            bound => bound,
        },
    }
}

/// All that is accepted is born with these.
fn set_options(socket: &Socket, port: &Port) -> io::Result<()> {
    // Who answers in pieces must not wait for acknowledgements.
    socket.set_tcp_nodelay(port.nodelay)?;
    match port.keepalive {
        None => socket.set_keepalive(false)?,
        Some(idle) => {
            let again = (idle / ASKED).max(Duration::from_secs(1));
            let alive = TcpKeepalive::new().with_time(idle).with_interval(again).with_retries(ASKED);
            socket.set_tcp_keepalive(&alive)?;
        }
    }
    port.user_timeout.map_or(Ok(()), |limit| socket.set_tcp_user_timeout(Some(limit)))
}

/// What a machine without IPv6 says.
const NO_IPV6: [i32; 2] =
    [rustix::io::Errno::AFNOSUPPORT.raw_os_error(), rustix::io::Errno::ADDRNOTAVAIL.raw_os_error()];

fn unix(path: PathBuf, mode: u32) -> io::Result<Bound> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let address = SockAddr::unix(&path)?;
    // A socket that nobody listens on any more is a leftover of a process that was killed.
    if std::fs::symlink_metadata(&path).is_ok_and(|found| found.file_type().is_socket()) {
        // Whoever listens may not accept any more, so this must not wait.
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        probe.set_nonblocking(true)?;
        match probe.connect(&address) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(&path)?,
            _ => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    if std::fs::symlink_metadata(&path).is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "something that is no socket is in the way",
        ));
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address)?;
    // Nobody can connect before `listen`, so nobody gets in with the wrong mode.
    let file = set_mode(&path, mode)?;
    socket.listen(BACKLOG)?;
    Ok(Bound::Unix { listener: socket.into(), _made: Some(Made { path, file }) })
}

/// A name that goes with the last of its sockets; there is no file, no mode and nothing to take away.
fn abstract_unix(name: &str) -> io::Result<Bound> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(format!("\0{name}"))?)?;
    socket.listen(BACKLOG)?;
    Ok(Bound::Unix { listener: socket.into(), _made: None })
}

/// Sets the mode of a socket that has just been bound. Whoever else may write in its folder may have put something in
/// its place by now, so the path is looked up once, and what is found there is what is looked at and changed. A link
/// is not followed, and another file of ours that was moved there is no socket, or has two names. The umask, which
/// would need no path, is that of all threads; and `fchmod` of the socket before `bind` can only take bits away.
fn set_mode(path: &Path, mode: u32) -> io::Result<File> {
    use rustix::fs::{CWD, Mode, OFlags, openat};

    let opened = openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let opened = std::fs::File::from(opened);
    let found = opened.metadata()?;
    let ours = found.uid() == rustix::process::geteuid().as_raw() && found.nlink() == 1;
    if !(found.file_type().is_socket() && ours) {
        return Err(io::Error::other("somebody has put something else in its place"));
    }
    // `fchmod` refuses a descriptor that cannot read. By this name it is still the file that is open.
    let name = format!("/proc/self/fd/{}", opened.as_raw_fd());
    std::fs::set_permissions(name, std::fs::Permissions::from_mode(mode))?;
    Ok(File::of(&found))
}

/// Accepts until it is told to stop; then hands over what the kernel has already accepted, and closes.
pub(crate) async fn accept(
    listener: Listener,
    desks: Vec<Desk>,
    gate: Arc<Gate>,
    mut stop: tokio::sync::watch::Receiver<bool>,
) -> io::Result<()> {
    let said = discreet(&listener.endpoint.to_string()).into_owned();
    let listener = readable(listener)?;
    let mut trouble = Trouble::default();
    loop {
        // Whoever else is on this thread has its turn, however many come.
        tokio::task::coop::consume_budget().await;
        let ready = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            ready = listener.readable() => ready,
        };
        let open: usize = desks.iter().map(Desk::open).sum();
        if gate.is_full() {
            trouble.full(&said, open, "there is no memory to spare; others wait").await;
            continue;
        }
        if open >= gate.limits.connections {
            trouble.full(&said, open, "as many connections as allowed; others wait").await;
            continue;
        }
        match ready?.try_io(|listener| listener.get_ref().accept()) {
            Ok(Ok(accepted)) => {
                trouble.over(&said);
                hand_over(&desks, &gate, accepted);
            }
            Ok(Err(error)) if is_of_the_connection(&error) => {}
            Ok(Err(error)) => trouble.refused(&said, &error).await,
            // Nothing there after all.
            Err(_) => {}
        }
    }
    // No more than the kernel can have had by now.
    for _ in 0..BACKLOG {
        match listener.get_ref().accept() {
            Ok(accepted) => hand_over(&desks, &gate, accepted),
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => {
                tracing::warn!(endpoint = said, %error, "gives up whom it has not accepted yet");
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Something whose descriptor can be waited for. It has to keep one descriptor for its whole life,
/// as everything does that this crate gives here.
#[expect(deprecated, reason = "the new name for this is unsafe, to make callers promise what is said above")]
pub(crate) fn readable<T: AsRawFd>(source: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(source, tokio::io::Interest::READABLE)
}

/// Errors of the connection that was to be accepted, not of the socket that accepts (accept(2)).
fn is_of_the_connection(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error().unwrap_or_default();
    [
        Errno::CONNABORTED,
        Errno::CONNRESET,
        Errno::INTR,
        Errno::PROTO,
        Errno::NETDOWN,
        Errno::HOSTUNREACH,
        Errno::NETUNREACH,
    ]
    .iter()
    .any(|known| known.raw_os_error() == code)
}

/// To the live, unstalled worker with the fewest connections, unless it may not come in.
fn hand_over(desks: &[Desk], gate: &Gate, mut accepted: Accepted) {
    // Who connects over a proxy's endpoint is the proxy, or is refused there.
    let (peer, tls) = (&accepted.peer, accepted.tls.is_some());
    let admitted = if accepted.proxied { gate.admit_proxy(peer, tls) } else { gate.admit(peer, tls) };
    let Some((mut pass, shaking)) = admitted else { return };
    accepted.shaking = shaking;
    let mut order: Vec<&Desk> = desks.iter().collect();
    order.sort_by_key(|desk| (desk.stalled(), desk.open()));
    for desk in order {
        match desk.take(accepted, pass) {
            Ok(()) => return,
            Err(back) => (accepted, pass) = *back,
        }
    }
}

/// Keeps the log readable while accepting fails.
#[derive(Default)]
struct Trouble {
    pause: Duration,
    said: Option<Instant>,
    ongoing: bool,
}

impl Trouble {
    fn due(&mut self) -> bool {
        self.ongoing = true;
        let due = self.said.is_none_or(|said| said.elapsed() > REMIND);
        if due {
            self.said = Some(Instant::now());
        }
        due
    }

    async fn refused(&mut self, endpoint: &str, error: &io::Error) {
        self.pause = (self.pause * 2).clamp(PAUSES.0, PAUSES.1);
        if self.due() {
            tracing::warn!(endpoint, %error, "cannot accept; open connections are served on");
        }
        tokio::time::sleep(self.pause).await;
    }

    async fn full(&mut self, endpoint: &str, connections: usize, why: &str) {
        if self.due() {
            tracing::warn!(endpoint, connections, "{why}");
        }
        tokio::time::sleep(PAUSES.0).await;
    }

    fn over(&mut self, endpoint: &str) {
        if std::mem::take(&mut self.ongoing) {
            self.pause = Duration::ZERO;
            tracing::info!(endpoint, "accepting again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixListener};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("a file").mode() & 0o7777
    }

    #[test]
    fn a_socket_has_the_mode_that_was_said_whatever_the_umask() {
        let folder = tempfile::tempdir().expect("a folder");
        for said in [0o600, 0o660, 0o666, 0o777, 0] {
            let path = folder.path().join("app.sock");
            let bound = unix(path.clone(), said).expect("a socket");
            assert_eq!(mode(&path), said);
            drop(bound);
            assert!(!path.exists());
        }
    }

    #[test]
    fn what_was_put_in_the_place_of_a_socket_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = |name: &str| folder.path().join(name);
        let (path, key, other) = (place("app.sock"), place("key"), place("other.sock"));
        fs::write(&key, "secret").expect("a file");
        let _others = UnixListener::bind(&other).expect("a socket");
        for known in [&key, &other] {
            fs::set_permissions(known, fs::Permissions::from_mode(0o600)).expect("a mode");
        }
        type Swap = fn(&Path, &Path) -> io::Result<()>;
        let (link, name): (Swap, Swap) =
            (|from, to| std::os::unix::fs::symlink(from, to), |from, to| fs::hard_link(from, to));
        for (swap, with) in [(link, &key), (link, &other), (name, &key), (name, &other)] {
            let _bound = UnixListener::bind(&path).expect("a socket");
            fs::remove_file(&path).expect("a socket");
            swap(with, &path).expect("something else");
            let refused = set_mode(&path, 0o666).expect_err("it is not the socket").to_string();
            assert!(refused.contains("something else in its place"), "{refused}");
            assert_eq!((mode(&key), mode(&other)), (0o600, 0o600));
            fs::remove_file(&path).expect("something else");
        }
        assert_eq!(set_mode(&path, 0o666).expect_err("it is gone").kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_accepted_is_born_with_the_options_of_its_listener() {
        let port = Port { interface: Some(Ipv4Addr::LOCALHOST.into()), ..Port::new(0) };
        let listener = tcp(&port).expect("a listener");
        listener.set_nonblocking(false).expect("a socket");
        let client = std::net::TcpStream::connect(listener.local_addr().expect("an address"));
        let (accepted, _) = listener.accept().expect("a connection");
        let socket = SockRef::from(&accepted);
        let seconds = Duration::from_secs;
        assert!(socket.tcp_nodelay().expect("an option") && socket.keepalive().expect("an option"));
        assert_eq!(socket.tcp_keepalive_time().expect("an option"), seconds(60));
        assert_eq!(socket.tcp_keepalive_interval().expect("an option"), seconds(15));
        assert_eq!(socket.tcp_keepalive_retries().expect("an option"), 4);
        assert_eq!(socket.tcp_user_timeout().expect("an option"), None);
        drop(client);
    }

    #[test]
    fn options_of_a_port_are_those_of_its_socket() {
        let seconds = Duration::from_secs;
        let opened = |said: &str| {
            let endpoint: Endpoint = format!("tcp:0:interface={said}").parse().expect("an endpoint");
            Socket::from(tcp(endpoint.port().expect("a port")).expect("a listener"))
        };
        let socket = opened("127.0.0.1:nodelay=no:keepalive=2:user_timeout=1500");
        assert!(!socket.tcp_nodelay().expect("an option"));
        assert_eq!(socket.tcp_keepalive_time().expect("an option"), seconds(2));
        assert_eq!(socket.tcp_keepalive_interval().expect("an option"), seconds(1));
        assert_eq!(socket.tcp_user_timeout().expect("an option"), Some(Duration::from_millis(1_500)));
        assert!(!opened("127.0.0.1:keepalive=no").keepalive().expect("an option"));
        assert!(opened("[::]").only_v6().expect("an option"));
        assert!(!opened("[::]:v6only=no").only_v6().expect("an option"));
    }

    #[test]
    fn an_abstract_name_is_taken_while_its_socket_is_there() {
        let name = format!("combo:{}\\x", std::process::id());
        let bound = abstract_unix(&name).expect("a socket");
        assert_eq!(abstract_unix(&name).expect_err("it is taken").kind(), io::ErrorKind::AddrInUse);
        drop(bound);
        drop(abstract_unix(&name).expect("a socket"));
    }
}
