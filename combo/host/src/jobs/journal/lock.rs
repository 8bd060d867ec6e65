//! Locks between processes that share a state folder: whoever keeps the ledger, and guests, who run a job by hand.
//!
//! They are bytes of one file, locked for as long as it is open (open file description locks, `fcntl(2)`), so a
//! process that is killed lets go of all of them. Whoever keeps the ledger takes no lock for a job that runs: it
//! writes down that it does, and then asks whether a guest has that job. A guest takes the job, and then reads. So
//! at least one of the two sees the other.
#![expect(clippy::disallowed_methods, reason = "the ledger is on disk")]

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use combo_core::stable_hash;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};

/// Whoever keeps the ledger.
const KEEPER: i64 = 0;
/// Guests, however many.
const GUESTS: i64 = 1;
/// From here on, a byte per job.
const JOBS: i64 = 1 << 10;

/// The file with the locks, opened once.
#[derive(Debug)]
pub(super) struct Locks(File);

impl Locks {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let _ = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(folder.join("lock")).map(Self)
    }

    /// Only to ask, without making anything.
    pub(super) fn look(folder: &Path) -> Option<Self> {
        File::open(folder.join("lock")).ok().map(Self)
    }

    /// Becomes the one that keeps the ledger; gives the other's process id if there is another.
    pub(super) fn keep(&mut self) -> io::Result<Result<(), String>> {
        if !self.set(libc::F_WRLCK, KEEPER, 1)? {
            let mut said = String::new();
            let _ = self.0.rewind().and_then(|()| self.0.read_to_string(&mut said));
            return Ok(Err(said.trim().to_owned()));
        }
        // Who keeps it is only for people to read; a full disk is no reason not to.
        let said = self.0.set_len(0).and_then(|()| self.0.rewind());
        let _ = said.and_then(|()| writeln!(self.0, "{}", std::process::id()));
        Ok(Ok(()))
    }

    pub(super) fn is_kept(&self) -> bool {
        self.is_held(KEEPER)
    }

    /// Becomes a guest.
    pub(super) fn join(&self) -> io::Result<()> {
        self.set(libc::F_RDLCK, GUESTS, 1).map(drop)
    }

    pub(super) fn has_guests(&self) -> bool {
        self.is_held(GUESTS)
    }

    /// A guest takes a job; not if another guest has it, unless both may.
    pub(super) fn take(&self, job: &str, exclusive: bool) -> bool {
        let kind = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
        // Where there are no such locks one cannot know of others.
        !matches!(self.set(kind, byte_of(job), 1), Ok(false))
    }

    pub(super) fn let_go(&self, job: &str) {
        let _ = self.set(libc::F_UNLCK, byte_of(job), 1);
    }

    /// Whether a guest has a job.
    pub(super) fn is_taken(&self, job: &str) -> bool {
        self.is_held(byte_of(job))
    }

    /// Whether it has them now; all from there on, if the count is 0.
    fn set(&self, kind: libc::c_int, byte: i64, count: i64) -> io::Result<bool> {
        match fcntl(&self.0, FcntlArg::F_OFD_SETLK(&lock(kind, byte, count))) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// By another.
    fn is_held(&self, byte: i64) -> bool {
        let mut lock = lock(libc::F_WRLCK, byte, 1);
        let asked = fcntl(&self.0, FcntlArg::F_OFD_GETLK(&mut lock));
        asked.is_ok() && libc::c_int::from(lock.l_type) != libc::F_UNLCK
    }
}

/// A process that is just being started may have the file open as well, so that closing it is not enough.
impl Drop for Locks {
    fn drop(&mut self) {
        let _ = self.set(libc::F_UNLCK, KEEPER, 0);
    }
}

fn lock(kind: libc::c_int, byte: i64, count: i64) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: byte,
        l_len: count,
        l_pid: 0,
    }
}

/// Where its lock is: so far from others that hardly any two jobs share one.
fn byte_of(job: &str) -> i64 {
    JOBS + (stable_hash(job.bytes()) >> 2).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> (tempfile::TempDir, [Locks; 3]) {
        let folder = tempfile::tempdir().expect("a folder");
        let locks = [(); 3].map(|()| Locks::open(folder.path()).expect("a file"));
        (folder, locks)
    }

    #[test]
    fn one_keeps_the_ledger_and_others_learn_who() {
        let (_folder, [mut one, mut other, third]) = three();
        assert!(!third.is_kept());
        assert_eq!(one.keep().expect("a lock"), Ok(()));
        assert_eq!(other.keep().expect("a lock"), Err(std::process::id().to_string()));
        assert!(third.is_kept() && !one.is_kept());
        drop(one);
        assert_eq!(other.keep().expect("a lock"), Ok(()));
    }

    #[test]
    fn guests_take_jobs_and_the_keeper_sees_it() {
        let (_folder, [keeper, one, other]) = three();
        assert!(!keeper.has_guests());
        one.join().expect("a lock");
        other.join().expect("a lock");
        assert!(keeper.has_guests() && !keeper.is_taken("a"));
        assert!(one.take("a", true) && keeper.is_taken("a") && !keeper.is_taken("b"));
        assert!(
            !other.take("a", true)
                && !other.take("a", false)
                && other.take("b", false)
                && one.take("b", false)
        );
        one.let_go("a");
        assert!(other.take("a", true));
        drop((one, other));
        assert!(!keeper.has_guests() && !keeper.is_taken("a"));
    }
}
