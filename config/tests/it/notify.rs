//! What the service manager is told, by a process of its own.

use std::{
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::Path,
};

use rustix::process::Signal;

use crate::{
    child::Child,
    site::{ANY_PORT, PATIENCE, folder},
    wire::get,
};

/// Hears all that is said to it, in the order in which it was said.
struct Hearing(UnixDatagram);

impl Hearing {
    fn at(path: &Path) -> Self {
        Self::of(UnixDatagram::bind(path).unwrap())
    }

    fn of(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn next(&self) -> String {
        let mut bytes = [0; 65_536];
        let length = self.0.recv(&mut bytes).expect("a message");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    /// What has been said and not heard yet.
    fn forget(&self) {
        self.0.set_nonblocking(true).unwrap();
        while self.0.recv(&mut [0; 1]).is_ok() {}
        self.0.set_nonblocking(false).unwrap();
    }

    /// The next message that begins so; none of those before may be one that `never` is.
    fn until(&self, begins: &str, never: &str) -> String {
        loop {
            let message = self.next();
            if message.starts_with(begins) {
                return message;
            }
            assert!(never.is_empty() || !message.contains(never), "{message}");
        }
    }
}

fn micros(of: &str, said: &str) -> u64 {
    let line = said.lines().find_map(|line| line.strip_prefix(of)).unwrap_or_else(|| panic!("{said}"));
    line.parse().unwrap()
}

#[test]
fn a_service_manager_hears_that_it_serves_reloads_and_stops() {
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().join("notify");
    let hearing = Hearing::at(&path);
    let mut child = Child::with(&["--listen", ANY_PORT], |command| {
        let _ = command.env("NOTIFY_SOCKET", &path).env_remove("WATCHDOG_USEC");
    });
    let ready = hearing.next();
    let address = child.address();
    assert!(ready.starts_with("READY=1\nSTATUS=serves "), "{ready}");
    assert!(ready.contains(&format!("http://{address}")), "{ready}");
    let mut before = 0;
    for _ in 0..3 {
        child.signal(Signal::HUP);
        let reloading = hearing.next();
        assert!(reloading.starts_with("RELOADING=1\n"), "{reloading}");
        let now = micros("MONOTONIC_USEC=", &reloading);
        assert!(now > before, "{reloading}");
        before = now;
        assert_eq!(hearing.next(), "READY=1");
    }
    let mut wire = child.wire();
    wire.send(get("/axum/endless"));
    wire.until("1\n");
    child.signal(Signal::TERM);
    let stopping = hearing.next();
    assert!(stopping.starts_with("STOPPING=1\n"), "{stopping}");
    assert!(micros("EXTEND_TIMEOUT_USEC=", &stopping) > 1_000_000);
    let waits = hearing.until("STATUS=waiting for ", "READY");
    assert!(waits.starts_with("STATUS=waiting for request GET /axum/endless\n"), "{waits}");
    assert!(micros("EXTEND_TIMEOUT_USEC=", &waits) > 1_000_000);
    drop(wire);
    assert_eq!(child.exit().code(), Some(0));
}

#[test]
fn its_watchdog_is_fed_if_it_is_this_process_that_is_watched() {
    let name = format!("combo-it-notify-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let hearing = Hearing::of(UnixDatagram::bind_addr(&address).unwrap());
    for (pid, watched) in [("$$", true), ("1", false)] {
        let script = format!("export NOTIFY_SOCKET=@{name} WATCHDOG_USEC=400000 WATCHDOG_PID={pid}");
        let mut child = Child::under(&script, &["--listen", ANY_PORT], folder());
        let _ = hearing.until("READY=1\n", "");
        if watched {
            for _ in 0..3 {
                assert_eq!(hearing.next(), "WATCHDOG=1");
            }
        } else {
            let mut wire = child.wire();
            wire.send(get("/axum/endless"));
            wire.until("5\n");
        }
        child.signal(Signal::TERM);
        let _ = hearing.until("STOPPING=1\n", if watched { "" } else { "WATCHDOG" });
        assert_eq!(child.exit().code(), Some(0));
        hearing.forget();
    }
}

#[test]
fn what_cannot_be_told_does_not_keep_it_from_serving() {
    for nobody in ["/nowhere/notify", "vsock:2:1234", "@combo-it-nobody"] {
        let child = Child::with(&["--listen", ANY_PORT], |command| {
            let _ = command.env("NOTIFY_SOCKET", nobody);
        });
        assert_eq!(child.wire().ask(get("/warp/hello/x")).status, 200, "{nobody}");
    }
}
