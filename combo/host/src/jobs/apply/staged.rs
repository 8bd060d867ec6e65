//! A temporary file beside its target.
//!
//! It is named `.combo-N.tmp`. N is the first that is free; whoever writes holds a lock on theirs, so
//! writers never share one, and one without a lock was left by a process that was killed, and goes at
//! the next write to that directory.
#![expect(clippy::disallowed_methods, reason = "this is where temporary files are made")]

use std::{ffi::OsStr, fs::File, io::Write, os::fd::BorrowedFd};

use rustix::{
    fs::{
        AtFlags, FileType, FlockOperation, Mode, OFlags, fchmod, flock, fstat, fsync, openat, renameat,
        statat, unlinkat,
    },
    io::Errno,
};

use super::target::errno;

/// How many may write into one directory at once.
const WRITERS: u32 = 4_096;

/// A temporary file; gone when dropped, unless renamed.
pub(super) struct Staged<'a> {
    directory: BorrowedFd<'a>,
    name: String,
    file: File,
    renamed: bool,
}

impl<'a> Staged<'a> {
    pub(super) fn new(directory: BorrowedFd<'a>) -> Result<Self, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for n in 0..WRITERS {
            let name = staged_name(n);
            let make = || openat(directory, &name, flags, Mode::from_raw_mode(0o600));
            let made = match make() {
                Err(Errno::EXIST) if !matches!(leftover(directory, &name)?, Leftover::Held) => make(),
                made => made,
            };
            let file = match made {
                Ok(fd) => File::from(fd),
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(errno),
            };
            // Until it is locked, others may take it for a leftover.
            let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
            if locked == Err(Errno::WOULDBLOCK) || !is_named(&file, directory, &name)? {
                continue;
            }
            // Those of others who were killed at the same time.
            let mut next = n + 1;
            while matches!(leftover(directory, &staged_name(next)), Ok(Leftover::Removed)) {
                next += 1;
            }
            return Ok(Self { directory, name, file, renamed: false });
        }
        Err(Errno::MFILE)
    }

    pub(super) fn fill(&mut self, contents: &[u8], mode: Mode) -> Result<(), Errno> {
        self.file.write_all(contents).map_err(|error| errno(&error))?;
        fchmod(&self.file, mode)?;
        fsync(&self.file)
    }

    pub(super) fn rename(mut self, name: &OsStr) -> Result<(), Errno> {
        renameat(self.directory, &self.name, self.directory, name)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if !self.renamed {
            // If it stays, it goes at the next write.
            let _ = unlinkat(self.directory, &self.name, AtFlags::empty());
        }
    }
}

fn staged_name(n: u32) -> String {
    format!(".combo-{n}.tmp")
}

enum Leftover {
    Absent,
    Removed,
    /// Or not ours.
    Held,
}

/// Removes a temporary file if nobody is writing it.
fn leftover(directory: BorrowedFd<'_>, name: &str) -> Result<Leftover, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(directory, name, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Ok(Leftover::Absent),
        Err(Errno::LOOP | Errno::ACCESS | Errno::PERM | Errno::NXIO) => return Ok(Leftover::Held),
        Err(errno) => return Err(errno),
    };
    let regular = FileType::from_raw_mode(fstat(&file)?.st_mode) == FileType::RegularFile;
    if !regular || flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(Leftover::Held);
    }
    // While it is locked, nobody else removes it, so the name stays with it.
    if !is_named(&file, directory, name)? {
        return Ok(Leftover::Held);
    }
    unlinkat(directory, name, AtFlags::empty()).map(|()| Leftover::Removed)
}

pub(super) fn is_named(file: &File, directory: BorrowedFd<'_>, name: &str) -> Result<bool, Errno> {
    let ours = fstat(file)?;
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok((stat.st_dev, stat.st_ino) == (ours.st_dev, ours.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}
