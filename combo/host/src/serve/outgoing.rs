//! A socket -> how much of what was written to it its peer has not taken. The one thing that the kernel is
//! asked here for which nobody has a safe function.
#![expect(unsafe_code, reason = "see the proof beside it")]

use std::{ffi::c_int, os::fd::AsFd};

use rustix::ioctl::{Getter, Opcode, ioctl};

/// `SIOCOUTQ` (tcp(7), unix(7)), which is the same number as `TIOCOUTQ`.
const OUTQ: Opcode = nix::libc::TIOCOUTQ as Opcode;

/// In bytes. Of a TCP connection, what is not yet acknowledged; of a unix socket, what is not yet read, with
/// what it takes the kernel to keep it. Nothing if there is no telling.
pub(super) fn queued(socket: &impl AsFd) -> u32 {
    // SAFETY: `Getter<OUTQ, c_int>` has to be right about the request: it takes a pointer to an `int`, writes
    // one there and does nothing else (tcp(7), unix(7)). On descriptors that do not know it, it fails.
    let queued = unsafe { ioctl(socket, Getter::<OUTQ, c_int>::new()) };
    queued.ok().and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        os::unix::net::UnixStream,
    };

    use super::*;

    fn check(mut ours: impl Write + AsFd, mut theirs: impl Read) {
        assert_eq!(queued(&ours), 0);
        let mut written = 0;
        while let Ok(bytes) = ours.write(&[0; 64 << 10]) {
            written += bytes;
        }
        let before = queued(&ours);
        assert!(before > 0, "of {written}");
        let mut read = vec![0; written];
        theirs.read_exact(&mut read).expect("it was written");
        while queued(&ours) > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_the_peer_has_not_taken_is_known() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let theirs = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (ours, _) = listener.accept().expect("a connection");
        ours.set_nonblocking(true).expect("a socket");
        check(ours, theirs);
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("a socket");
        check(ours, theirs);
    }
}
