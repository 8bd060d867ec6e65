//! One regular file, opened and measured.
//!
//! What is read is what was measured: not one byte more if the file grows, and an error, not a
//! shorter body, if it shrinks. Reading is by position, so parts of one file do not disturb each other.
use std::{
    collections::HashMap,
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    os::fd::OwnedFd,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use rustix::{
    fs::Statx,
    io::{Errno, ReadWriteFlags, pread, preadv2},
};

use super::{dates, trips::Trips};

/// Bytes read at once, and all that a slow reader of a large file holds of it where nothing stands between: in layers
/// and on threads of its own, a few of them.
pub(super) const PIECE: usize = 32 << 10;

/// For so long after a change another one may leave the same time behind: the kernel's clock for files ticks every
/// ten milliseconds at most.
const TICK: Duration = Duration::from_millis(50);

/// The same for file systems that count in seconds, FAT in two.
const COARSE: Duration = Duration::from_millis(2_500);

/// Whether something may take as long as a disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speed {
    /// On a worker: what is not in memory is [`WouldBlock`](io::ErrorKind::WouldBlock).
    Cached,
    /// On the blocking pool.
    Any,
}

/// Which file it is and what it was when that was looked up. It changes when the contents do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) device: (u32, u32),
    inode: u64,
    pub(super) len: u64,
    modified: (i64, u32),
    changed: (i64, u32),
}

impl Stamp {
    /// Of what is in the binary, which never changes and has no date.
    pub(super) const BINARY: Self =
        Self { device: (0, 0), inode: 0, len: 0, modified: (-1, 0), changed: (-1, 0) };

    pub(super) fn of(stat: &Statx) -> Self {
        Self {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            len: stat.stx_size,
            modified: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            changed: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        }
    }

    /// When it was last changed, unless that was before 1970.
    pub(super) fn modified(&self) -> Option<SystemTime> {
        instant(self.modified)
    }

    /// The second of that, if it can be said as a date.
    pub(super) fn second(&self) -> Option<u64> {
        dates::second(self.modified.0)
    }

    /// Whether whatever changes it from now on changes the stamp. A job may write twice within a tick.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        self.is_older(now, if self.changed.1 == 0 { COARSE } else { TICK })
    }

    /// Whether whoever has changed it has most likely ended, too. The times of a file change before its contents do.
    pub(super) fn is_aged(&self, now: SystemTime) -> bool {
        self.is_older(now, COARSE)
    }

    fn is_older(&self, now: SystemTime, than: Duration) -> bool {
        let age = instant(self.changed).and_then(|changed| now.duration_since(changed).ok());
        age.is_some_and(|age| age > than)
    }

    /// Whether what it is of was made from what `original` is of, or later. Some programs keep the time of the
    /// original without its nanoseconds.
    pub(super) fn is_no_older(&self, original: &Self) -> bool {
        self.modified >= original.modified || self.modified == (original.modified.0, 0)
    }

    /// What changes with the contents, for an entity tag.
    pub(super) fn nanoseconds(&self) -> Option<(u128, u128)> {
        let since = |(seconds, nanoseconds): (i64, u32)| {
            Some(u128::try_from(seconds).ok()? * 1_000_000_000 + u128::from(nanoseconds))
        };
        Some((since(self.modified)?, since(self.changed)?))
    }
}

fn instant((seconds, nanoseconds): (i64, u32)) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(u64::try_from(seconds).ok()?, nanoseconds))
}

/// An opened regular file.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    file: Arc<OwnedFd>,
    pub(super) stamp: Stamp,
}

impl Opened {
    pub(super) fn new(file: OwnedFd, stamp: Stamp) -> Self {
        Self { file: Arc::new(file), stamp }
    }

    pub(super) fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// All of it, in memory.
    ///
    /// # Errors
    ///
    /// When the file became shorter, or the disk fails.
    pub(super) fn read_whole(&self, speed: Speed) -> io::Result<Vec<u8>> {
        let len = usize::try_from(self.stamp.len).map_err(io::Error::other)?;
        let mut whole = vec![0; len];
        let mut at = 0;
        while at < len {
            at += self.read(&mut whole[at..], at as u64, speed)?;
        }
        Ok(whole)
    }

    /// At least one byte from a position on.
    fn read(&self, bytes: &mut [u8], at: u64, speed: Speed) -> io::Result<usize> {
        loop {
            let read = match speed {
                Speed::Cached => {
                    preadv2(&self.file, &mut [IoSliceMut::new(bytes)], at, ReadWriteFlags::NOWAIT)
                }
                Speed::Any => pread(&self.file, &mut *bytes, at),
            };
            return match read {
                Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter")),
                Ok(read) => Ok(read),
                Err(Errno::INTR) => continue,
                // Not in memory; or the file system, the kernel or a sandbox cannot say.
                Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::INVAL)
                    if speed == Speed::Cached =>
                {
                    Err(io::ErrorKind::WouldBlock.into())
                }
                Err(errno) => Err(errno.into()),
            };
        }
    }

    fn piece(&self, at: u64, len: usize, speed: Speed) -> io::Result<Bytes> {
        let mut piece = vec![0; len];
        let read = self.read(&mut piece, at, speed)?;
        piece.truncate(read);
        Ok(piece.into())
    }
}

/// The files that are being sent: whoever asks for one of them gets the same descriptor, of which a process has not many.
#[derive(Debug, Default)]
pub(super) struct InUse(Mutex<HashMap<String, (Stamp, Weak<OwnedFd>)>>);

impl InUse {
    /// The file at a path as it was just opened, or as somebody else has it.
    pub(super) fn shared(&self, path: &str, opened: Opened) -> Opened {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((stamp, file)) = sent.get(path)
            && *stamp == opened.stamp
            && let Some(file) = file.upgrade()
        {
            return Opened { file, ..opened };
        }
        if sent.len() == sent.capacity() {
            sent.retain(|_, (_, file)| file.strong_count() > 0);
        }
        drop(sent.insert(path.to_owned(), (opened.stamp, Arc::downgrade(&opened.file))));
        opened
    }
}

/// Reads an [`Opened`] from a position on, piece by piece: at once what is in memory, the rest on the blocking pool.
pub(super) struct Reader {
    opened: Opened,
    at: u64,
    waits: Option<Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>>,
}

impl Reader {
    pub(super) fn new(opened: Opened, at: u64) -> Self {
        Self { opened, at, waits: None }
    }

    /// The next bytes, at least one and at most `len`; to be asked again for the same until it is ready.
    pub(super) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        len: u64,
        trips: &Trips,
    ) -> Poll<io::Result<Bytes>> {
        let piece = match &mut self.waits {
            Some(waits) => {
                let piece = ready!(waits.as_mut().poll(cx));
                self.waits = None;
                piece
            }
            None => {
                let len = usize::try_from(len).unwrap_or(PIECE).min(PIECE);
                match self.opened.piece(self.at, len, Speed::Cached) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        let (opened, at) = (self.opened.clone(), self.at);
                        let work = move || opened.piece(at, len, Speed::Any);
                        self.waits = Some(Box::pin(trips.clone().take(work)));
                        return self.poll_piece(cx, len as u64, trips);
                    }
                    piece => piece,
                }
            }
        };
        if let Ok(piece) = &piece {
            self.at += piece.len() as u64;
        }
        Poll::Ready(piece)
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { opened, at, waits } = self;
        let mut shown = f.debug_struct("Reader");
        shown.field("opened", opened).field("at", at).field("waits", &waits.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp =
        Stamp { device: (8, 1), inode: 1, len: 10, modified: (100, 7), changed: (100, 500_000_000) };

    #[test]
    fn what_has_just_changed_may_change_unseen() {
        #[track_caller]
        fn check(changed: (i64, u32), now: Duration, expected: bool) {
            let stamp = Stamp { changed, ..STAMP };
            assert_eq!(stamp.is_settled(SystemTime::UNIX_EPOCH + now), expected, "{changed:?} {now:?}");
        }
        let (early, late) = (Duration::from_millis(100_510), Duration::from_millis(100_560));
        check((100, 500_000_000), early, false);
        check((100, 500_000_000), late, true);
        check((100, 0), late, false);
        check((100, 0), Duration::from_millis(102_600), true);
        // In the future, or before all dates.
        check((200, 1), late, false);
        check((-1, 1), late, false);
    }

    #[test]
    fn a_sibling_is_as_new_as_its_original() {
        #[track_caller]
        fn check(modified: (i64, u32), expected: bool) {
            assert_eq!(Stamp { modified, ..STAMP }.is_no_older(&STAMP), expected, "{modified:?}");
        }
        check((100, 7), true);
        check((100, 8), true);
        check((101, 0), true);
        check((100, 0), true);
        check((100, 6), false);
        check((99, 0), false);
    }
}
