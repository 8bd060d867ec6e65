//! Takes a path below the folders opened at start, gives the regular file that is there, opened.
//!
//! The kernel resolves it (`openat2` with `RESOLVE_BENEATH`); where it cannot, we walk from folder to
//! folder without ever following a link by name. Either way a link may lead anywhere inside its folder
//! and nowhere else, and nothing but a regular file is opened for reading. Blocking.
#![expect(clippy::disallowed_methods, reason = "this is where files are opened to be served")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat};
use rustix::io::Errno;

use super::opened::Opened;

/// Names a file without opening it: enough to see what it is, even of a FIFO or a device.
const NAME: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// For reading, and without waiting should it have become a FIFO or a terminal in between.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Links followed in one path, as the kernel has it.
const LINKS: usize = 40;

/// Folders opened at start, searched in order: an earlier one lies over the later ones.
///
/// What is served is what was opened: a folder renamed away later is still the one served.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    folders: Arc<[OwnedFd]>,
    resolver: Resolver,
}

/// Who keeps a path inside its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolver {
    Kernel,
    Walk,
}

/// What is at a path.
#[derive(Debug)]
pub(super) enum Found {
    File(Opened),
    Folder,
    /// Nothing, or nothing that may be served.
    Nothing,
    Forbidden,
}

impl Root {
    /// Opens all of `folders`.
    ///
    /// # Errors
    ///
    /// When one of them does not exist or is not a directory, or when there is none.
    pub(crate) fn open(folders: &[PathBuf]) -> io::Result<Self> {
        let folders = folders.iter().map(|folder| open_folder(folder)).collect::<io::Result<Arc<[_]>>>()?;
        let Some(first) = folders.first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no folder to serve"));
        };
        // Kernels before 5.6 do not know the call, and some sandboxes do not permit it.
        let resolver = match beneath(first, Path::new("."), NAME) {
            Ok(_) => Resolver::Kernel,
            Err(_) => Resolver::Walk,
        };
        Ok(Self { folders, resolver })
    }

    /// The same folders, resolved by `resolver`.
    #[cfg(test)]
    pub(super) fn resolved_by(self, resolver: Resolver) -> Self {
        Self { resolver, ..self }
    }

    /// What is at `path`, which is relative and decoded.
    ///
    /// # Errors
    ///
    /// When the world refuses for a reason that is not the path's: descriptors, memory, the disk.
    pub(super) fn find(&self, path: &str) -> io::Result<Found> {
        let path = Path::new(if path.is_empty() { "." } else { path });
        for folder in &*self.folders {
            match self.look(folder.as_fd(), path) {
                Err(Errno::NOENT) => {}
                Err(errno) => return refusal(errno),
                Ok(found) => return Ok(found),
            }
        }
        Ok(Found::Nothing)
    }

    fn look(&self, folder: BorrowedFd<'_>, path: &Path) -> Result<Found, Errno> {
        let named = self.resolve(folder, path, NAME)?;
        match FileType::from_raw_mode(fstat(&named)?.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Ok(Found::Folder),
            _ => return Ok(Found::Nothing),
        }
        // Resolved again rather than reopened through /proc, which may not be there. If another file
        // took its place in between, that one is as good, and it is looked at again.
        let file = self.resolve(folder, path, READ)?;
        let stat = fstat(&file)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Found::File(Opened::new(File::from(file), &stat))),
            FileType::Directory => Ok(Found::Folder),
            _ => Ok(Found::Nothing),
        }
    }

    fn resolve(&self, folder: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        if self.resolver == Resolver::Walk {
            return walk(folder, path, flags);
        }
        match beneath(folder, path, flags) {
            // AGAIN: somebody renames folders while `..` in a link is resolved, and the kernel is not
            // sure; the walk is. The other two: a sandbox entered after the start.
            Err(Errno::AGAIN | Errno::NOSYS | Errno::PERM) => walk(folder, path, flags),
            resolved => resolved,
        }
    }
}

fn open_folder(folder: &Path) -> io::Result<OwnedFd> {
    openat(CWD, folder, NAME | OFlags::DIRECTORY, Mode::empty()).map_err(|errno| {
        let error = io::Error::from(errno);
        io::Error::new(error.kind(), format!("folder `{}`: {error}", folder.display()))
    })
}

fn beneath(folder: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat2(folder, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
}

/// What `openat2` does, by hand: every step names one entry of a folder that is held open, links are
/// read and not followed, and `..` goes back to the folder that we came through.
fn walk(folder: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut ahead = Vec::new();
    let mut behind: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    push_segments(path.as_os_str().as_encoded_bytes(), &mut ahead)?;
    while let Some(segment) = ahead.pop() {
        match &*segment {
            b"." => continue,
            b".." => {
                drop(behind.pop().ok_or(Errno::XDEV)?);
                continue;
            }
            _ => {}
        }
        let here = behind.last().map_or(folder, AsFd::as_fd);
        let next = openat(here, &*segment, NAME | OFlags::NOFOLLOW, Mode::empty())?;
        match FileType::from_raw_mode(fstat(&next)?.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > LINKS {
                    return Err(Errno::LOOP);
                }
                push_segments(readlinkat(&next, "", Vec::new())?.as_bytes(), &mut ahead)?;
            }
            FileType::Directory => behind.push(next),
            _ if !ahead.is_empty() => return Err(Errno::NOTDIR),
            _ if flags.contains(OFlags::PATH) => return Ok(next),
            _ => return openat(here, &*segment, flags | OFlags::NOFOLLOW, Mode::empty()),
        }
    }
    // A folder: to name it is all that is ever asked of it.
    match behind.pop() {
        Some(last) => Ok(last),
        None => openat(folder, ".", NAME, Mode::empty()),
    }
}

/// Puts the segments of `path` on a stack, the first on top. A slash at the end is kept as `.`, for
/// only a folder has anything behind it.
fn push_segments(path: &[u8], ahead: &mut Vec<Vec<u8>>) -> Result<(), Errno> {
    if path.starts_with(b"/") {
        return Err(Errno::XDEV);
    }
    if path.ends_with(b"/") {
        ahead.push(b".".to_vec());
    }
    let segments = path.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty());
    ahead.extend(segments.rev().map(<[u8]>::to_vec));
    Ok(())
}

/// What an error of the kernel says about a path, if it is the path's fault.
fn refusal(errno: Errno) -> io::Result<Found> {
    match errno {
        // Like nginx: it is there, and the process may not read it.
        Errno::ACCESS | Errno::PERM => Ok(Found::Forbidden),
        // Not there; led outside, or in circles; a name that cannot be; a socket.
        Errno::NOENT
        | Errno::NOTDIR
        | Errno::XDEV
        | Errno::LOOP
        | Errno::NAMETOOLONG
        | Errno::INVAL
        | Errno::ILSEQ
        | Errno::NXIO
        | Errno::NODEV => Ok(Found::Nothing),
        errno => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_the_path_s_or_the_world_s() {
        #[track_caller]
        fn check(errno: Errno, expected: &str) {
            let said = match refusal(errno) {
                Ok(found) => format!("{found:?}"),
                Err(_) => "error".to_owned(),
            };
            assert_eq!(said, expected, "{errno:?}");
        }
        check(Errno::NOENT, "Nothing");
        check(Errno::NOTDIR, "Nothing");
        check(Errno::XDEV, "Nothing");
        check(Errno::LOOP, "Nothing");
        check(Errno::NAMETOOLONG, "Nothing");
        check(Errno::NXIO, "Nothing");
        check(Errno::ACCESS, "Forbidden");
        check(Errno::PERM, "Forbidden");
        check(Errno::MFILE, "error");
        check(Errno::NFILE, "error");
        check(Errno::NOMEM, "error");
        check(Errno::IO, "error");
    }

    #[test]
    fn what_cannot_be_opened_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().to_path_buf();
        let missing = there.join("missing");
        let file = there.join("file");
        std::fs::write(&file, "x").unwrap();

        assert!(Root::open(std::slice::from_ref(&there)).is_ok());
        assert_eq!(Root::open(&[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        for (folders, kind) in [
            (vec![missing.clone()], io::ErrorKind::NotFound),
            (vec![file], io::ErrorKind::NotADirectory),
            (vec![there, missing], io::ErrorKind::NotFound),
        ] {
            let error = Root::open(&folders).unwrap_err();
            assert_eq!(error.kind(), kind);
            let culprit = folders.last().unwrap().display().to_string();
            assert!(error.to_string().contains(&culprit), "{error}");
        }
    }

    #[test]
    fn this_kernel_resolves_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Root::open(&[folder.path().to_path_buf()]).unwrap().resolver, Resolver::Kernel);
    }
}
