//! What becomes of the process -> messages to whoever manages it (sd_notify(3)): that it serves, reloads and stops,
//! whom a drain waits for, and that the watch is alive. Nobody waits for an answer, and nothing fails without one.
#![expect(clippy::disallowed_methods, reason = "where to send them is in the environment")]

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How long the watch may be held up by a supervisor that does not read.
const PATIENCE: Duration = Duration::from_millis(100);

/// While it drains it says more than once in so long that it is not stuck.
const EXTENSION: Duration = Duration::from_secs(10);

/// Of those that a drain waits for, as many are named.
const NAMED: usize = 3;

/// Who manages the process, if somebody does.
#[derive(Clone, Debug)]
pub(crate) struct Supervisor(Arc<Socket>);

#[derive(Debug)]
struct Socket {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
    /// Held while it is said whether it is ready, so that this is never the last word.
    stopping: Mutex<bool>,
}

impl Supervisor {
    /// By `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub(crate) fn of_environment() -> Option<Self> {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())?;
        let number = |name| std::env::var(name).ok().and_then(|said| said.parse::<u64>().ok());
        let whose = number("WATCHDOG_PID");
        let watchdog = number("WATCHDOG_USEC")
            .filter(|micros| *micros > 0 && whose.is_none_or(|pid| pid == u64::from(std::process::id())))
            .map(Duration::from_micros);
        match Self::new(&name, watchdog) {
            Ok(supervisor) => Some(supervisor),
            Err(error) => {
                let name = name.to_string_lossy();
                tracing::warn!("cannot tell `{name}` (`NOTIFY_SOCKET`) what becomes of the process: {error}");
                None
            }
        }
    }

    /// A path, or `@` and an abstract name.
    fn new(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::Error::other("it is neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(Arc::new(Socket { socket, address, watchdog, stopping: Mutex::new(false) })))
    }

    /// Within how long it wants to hear of the watch.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.0.watchdog
    }

    /// It serves, or serves again.
    pub(crate) fn ready(&self, status: Option<&str>) {
        let stopping = self.is_stopping();
        if !*stopping {
            let status = status.map_or(String::new(), |status| format!("\nSTATUS={}", line(status)));
            if let Err(error) = self.tell(&format!("READY=1{status}")) {
                tracing::warn!(%error, "the service manager does not hear that it is ready");
            }
        }
    }

    /// It reloads; `micros` are those of the monotonic clock.
    pub(crate) fn reloading(&self, micros: u128) {
        let stopping = self.is_stopping();
        if !*stopping {
            self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
        }
    }

    pub(crate) fn stopping(&self) {
        let mut stopping = self.is_stopping();
        *stopping = true;
        self.say(&format!("STOPPING=1\nSTATUS=draining\n{}", extension()));
    }

    /// It waits for these, or cuts them.
    pub(crate) fn waits(&self, what: &str, whom: &[String]) {
        let mut named = whom.iter().take(NAMED).map(|one| line(one)).collect::<Vec<_>>().join(", ");
        if let Some(more) = whom.len().checked_sub(NAMED).filter(|more| *more > 0) {
            named += &format!(" and {more} more");
        }
        let named = if named.is_empty() { "connections to end".to_owned() } else { named };
        self.say(&format!("STATUS={what} {named}\n{}", extension()));
    }

    pub(crate) fn is_alive(&self) {
        self.say("WATCHDOG=1");
    }

    fn is_stopping(&self) -> MutexGuard<'_, bool> {
        self.0.stopping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, message: &str) {
        if let Err(error) = self.tell(message) {
            tracing::debug!(%error, "the service manager does not hear `{message}`");
        }
    }

    fn tell(&self, message: &str) -> io::Result<()> {
        self.0.socket.send_to_addr(message.as_bytes(), &self.0.address).map(drop)
    }
}

fn extension() -> String {
    format!("EXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros())
}

/// Each line of a message is a variable of its own.
fn line(said: &str) -> String {
    said.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 4_096];
        let length = socket.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn a_supervisor_hears_what_becomes_of_the_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let supervisor = Supervisor::new(path.as_os_str(), None).expect("a supervisor");
        supervisor.ready(Some("serves a\nX=1"));
        assert_eq!(heard(&socket), "READY=1\nSTATUS=serves a X=1");
        supervisor.reloading(17);
        assert_eq!(heard(&socket), "RELOADING=1\nMONOTONIC_USEC=17");
        supervisor.ready(None);
        assert_eq!(heard(&socket), "READY=1");
        supervisor.is_alive();
        assert_eq!(heard(&socket), "WATCHDOG=1");
        supervisor.stopping();
        assert_eq!(heard(&socket), "STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=10000000");
        // A reload that ends now does not make it ready again.
        supervisor.ready(None);
        let whom = ["a", "b", "c", "d"].map(str::to_owned);
        supervisor.waits("waiting for", &whom);
        assert_eq!(heard(&socket), "STATUS=waiting for a, b, c and 1 more\nEXTEND_TIMEOUT_USEC=10000000");
        supervisor.waits("cutting", &[]);
        assert_eq!(heard(&socket), "STATUS=cutting connections to end\nEXTEND_TIMEOUT_USEC=10000000");
        drop(socket);
        // Nobody is there any more.
        supervisor.is_alive();
    }

    #[test]
    fn a_name_may_be_abstract() {
        let name = format!("combo-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        Supervisor::new(OsStr::new(&format!("@{name}")), None).expect("a supervisor").is_alive();
        assert_eq!(heard(&socket), "WATCHDOG=1");
        assert!(Supervisor::new(OsStr::new("vsock:2:1234"), None).is_err());
    }
}
