//! What tells a file from what it was before, and the clock that it is stamped by.

use std::{fs::Metadata, os::unix::fs::MetadataExt};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// What tells a file from what it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Looks {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    /// Of its inode, so it moves with every write, and nobody can set it.
    touched: (i64, i64),
}

impl From<&Metadata> for Looks {
    fn from(found: &Metadata) -> Self {
        Self {
            file: (found.dev(), found.ino()),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            touched: (found.ctime(), found.ctime_nsec()),
        }
    }
}

impl Looks {
    /// Whether it was changed at this instant of the clock that files are stamped by, or later.
    pub(crate) fn since(&self, instant: Timespec) -> bool {
        self.touched >= (instant.tv_sec, instant.tv_nsec)
    }
}

/// The clock that files are stamped by: it moves every few milliseconds.
pub(crate) fn coarse_now() -> Timespec {
    clock_gettime(ClockId::RealtimeCoarse)
}
