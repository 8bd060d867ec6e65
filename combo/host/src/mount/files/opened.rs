//! One regular file, opened and measured: all that `ServeDir` gets to see of the disk.
//!
//! What is read is what was measured: not one byte more if the file grows, and an error, not a
//! shorter body, if it shrinks. Reading is by position, so parts of one file do not disturb each other.
#![expect(clippy::disallowed_methods, reason = "files are read on the blocking pool")]

use std::fs::File;
use std::future::{Ready, ready};
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes};
use rustix::fs::Stat;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tokio::task::JoinHandle;
use tower_http::services::fs::{self, Backend, ServeFileSystemResponseBody};

use super::CHUNK;

/// What `ServeDir` reads it with.
pub(super) type Body = ServeFileSystemResponseBody;

/// The last instant that an HTTP date can say, in seconds: the end of the year 9999.
const LAST_SECOND: i64 = 253_402_300_799;

/// An opened regular file.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    file: Arc<File>,
    measure: Measure,
}

/// What the file was when it was opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measure {
    len: u64,
    modified: Option<SystemTime>,
}

impl Opened {
    pub(super) fn new(file: File, stat: &Stat) -> Self {
        let measure = Measure {
            len: stat.st_size.try_into().unwrap_or_default(),
            modified: modified(stat.st_mtime, stat.st_mtime_nsec),
        };
        Self { file: Arc::new(file), measure }
    }

    /// Bytes in the file.
    pub(super) fn len(&self) -> u64 {
        self.measure.len
    }

    /// When it was last changed, unless an HTTP date cannot say that.
    pub(super) fn modified(&self) -> Option<SystemTime> {
        self.measure.modified
    }
}

/// Before 1970 and after 9999 there is neither date nor entity tag: the library that writes the
/// dates panics.
fn modified(seconds: i64, nanoseconds: u64) -> Option<SystemTime> {
    let since = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?);
    if seconds > LAST_SECOND {
        return None;
    }
    SystemTime::UNIX_EPOCH.checked_add(since)
}

/// Whatever `ServeDir` asks for, it gets this file.
impl Backend for Opened {
    type File = Reader;
    type Metadata = Measure;
    type OpenFuture = Ready<io::Result<Reader>>;
    type MetadataFuture = Ready<io::Result<Measure>>;

    fn open(&self, _: std::path::PathBuf) -> Self::OpenFuture {
        ready(Ok(Reader { opened: self.clone(), at: 0, stage: Stage::Read(Bytes::new()) }))
    }

    fn metadata(&self, _: std::path::PathBuf) -> Self::MetadataFuture {
        ready(Ok(self.measure))
    }
}

impl fs::Metadata for Measure {
    fn is_dir(&self) -> bool {
        false
    }

    fn modified(&self) -> io::Result<SystemTime> {
        self.modified.ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    fn len(&self) -> u64 {
        self.len
    }
}

/// Reads an [`Opened`] from a position on, chunk by chunk.
#[derive(Debug)]
pub(super) struct Reader {
    opened: Opened,
    /// Of the next chunk.
    at: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Reading(JoinHandle<io::Result<Bytes>>),
    /// And not yet taken.
    Read(Bytes),
}

impl fs::File for Reader {
    type Metadata = Measure;
    type MetadataFuture<'a> = Ready<io::Result<Measure>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        ready(Ok(self.opened.measure))
    }
}

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.stage {
                Stage::Read(chunk) if chunk.has_remaining() => {
                    let taken = chunk.split_to(chunk.len().min(buf.remaining()));
                    buf.put_slice(&taken);
                    return Poll::Ready(Ok(()));
                }
                Stage::Read(_) => {
                    let left = this.opened.measure.len.saturating_sub(this.at);
                    let len = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK).min(buf.remaining());
                    if len == 0 {
                        return Poll::Ready(Ok(()));
                    }
                    let (file, at) = (Arc::clone(&this.opened.file), this.at);
                    this.stage = Stage::Reading(tokio::task::spawn_blocking(move || read(&file, at, len)));
                }
                Stage::Reading(task) => {
                    let chunk = ready!(Pin::new(task).poll(cx)).map_err(io::Error::other).flatten();
                    // Whatever came of it, the task is not to be polled again.
                    this.stage = Stage::Read(Bytes::new());
                    let chunk = chunk?;
                    this.at += chunk.len() as u64;
                    this.stage = Stage::Read(chunk);
                }
            }
        }
    }
}

impl AsyncSeek for Reader {
    fn start_seek(mut self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        let io::SeekFrom::Start(at) = position else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        self.at = at;
        self.stage = Stage::Read(Bytes::new());
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.at))
    }
}

/// The next bytes, at most `len`, at least one.
fn read(file: &File, at: u64, len: usize) -> io::Result<Bytes> {
    let mut chunk = vec![0; len];
    loop {
        match file.read_at(&mut chunk, at) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter")),
            Ok(read) => {
                chunk.truncate(read);
                return Ok(chunk.into());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_years_that_a_date_can_say() {
        #[track_caller]
        fn check(seconds: i64, nanoseconds: u64, expected: bool) {
            assert_eq!(modified(seconds, nanoseconds).is_some(), expected, "{seconds}.{nanoseconds}");
        }
        check(0, 0, true);
        check(1_700_000_000, 999_999_999, true);
        check(LAST_SECOND, 999_999_999, true);
        check(LAST_SECOND + 1, 0, false);
        check(-1, 0, false);
        check(i64::MIN, 0, false);
        check(i64::MAX, 0, false);
    }
}
