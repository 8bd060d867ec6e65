//! Takes a path below the folders opened at start, gives what is there: a regular file, a folder, nothing.
//!
//! The kernel resolves it (`openat2` with `RESOLVE_BENEATH`); where it cannot, we walk from folder to
//! folder without ever following a link by name. Either way a link may lead anywhere inside its folder
//! and nowhere else, and nothing but a regular file is opened for reading. On a worker only what the kernel
//! has in memory is looked at (`RESOLVE_CACHED`), and only where file systems wait for nobody but a disk.
#![expect(clippy::disallowed_methods, reason = "this is where files are opened to be served")]

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Statx, StatxAttributes, StatxFlags, fstat,
        fstatfs, makedev, openat, openat2, readlinkat, statx,
    },
    io::Errno,
};

use super::{
    embedded::{self, Asset, Embedded},
    listing::{self, Entry, Listing},
    memory::Kept,
    opened::{Opened, Speed, Stamp},
    said::Layer,
    watched::{Told, Watched},
};
use crate::local::KINDS;

/// Names a file without opening it: enough to see what it is, even of a FIFO or a device.
const NAME: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// For reading, and without waiting should it have become a FIFO or a terminal in between.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Links followed in one path, as the kernel has it.
const LINKS: usize = 40;

/// Folders opened at start, searched in order: an earlier one lies over the later ones.
///
/// What is served is what was opened: a folder renamed away later is still the one served.
#[derive(Debug)]
pub(crate) struct Root {
    places: Vec<Place>,
    resolver: Resolver,
    local: Local,
    watched: Option<Watched>,
}

#[derive(Debug)]
enum Place {
    Disk(OwnedFd),
    Binary(Binary),
}

/// What is in the binary, and what was made of it for answers, when it was first asked for: as it is and in each coding.
#[derive(Debug)]
struct Binary {
    embedded: Embedded,
    kept: Vec<Shelved>,
}

pub(super) type Shelved = [OnceLock<Arc<Kept>>; 4];

/// A file in the binary.
#[derive(Debug)]
pub(super) struct InBinary<'a> {
    pub(super) asset: &'static Asset,
    pub(super) kept: &'a Shelved,
}

/// Who keeps a path inside its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolver {
    /// And whether it can be asked for what it has in memory (Linux 5.12).
    Kernel {
        cached: bool,
    },
    Walk,
}

/// What is at a path.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// A regular file: in which of the folders, and what it is.
    File(usize, Stamp),
    Asset(InBinary<'a>),
    Folder(Stamp),
    /// Nothing, or nothing that may be served.
    Nothing,
    Forbidden,
}

impl Root {
    /// Opens all of them.
    ///
    /// # Errors
    ///
    /// When a folder does not exist or is not a directory, or when there is none.
    pub(super) fn open(layers: impl IntoIterator<Item = Layer>) -> io::Result<Self> {
        let place = |layer| {
            Ok(match layer {
                Layer::Folder(folder) => Place::Disk(open_folder(&folder)?),
                Layer::Embedded(embedded) => {
                    let kept = (0..embedded.len()).map(|_| Shelved::default()).collect();
                    Place::Binary(Binary { embedded, kept })
                }
            })
        };
        let places = layers.into_iter().map(place).collect::<io::Result<Vec<_>>>()?;
        if places.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no folder to serve"));
        }
        let (mut resolver, local) = (Resolver::Walk, Local::default());
        for place in &places {
            let Place::Disk(folder) = place else { continue };
            // Kernels before 5.6 do not know the call, and some sandboxes do not permit it.
            resolver = match beneath(folder, Path::new("."), NAME, Speed::Any) {
                Ok(_) => Resolver::Kernel {
                    cached: !matches!(
                        beneath(folder, Path::new("."), NAME, Speed::Cached),
                        Err(Errno::INVAL)
                    ),
                },
                Err(_) => Resolver::Walk,
            };
            local.learn(folder, &measure(folder, Speed::Any)?);
        }
        let watched = if matches!(places[0], Place::Disk(_)) { Watched::new() } else { None };
        Ok(Self { places, resolver, local, watched })
    }

    /// The same folders, resolved by `resolver`.
    #[cfg(test)]
    pub(super) fn resolved_by(self, resolver: Resolver) -> Self {
        Self { resolver, ..self }
    }

    /// The same folders, with a watch for them alone or none.
    #[cfg(test)]
    pub(super) fn watched_by(self, watched: Option<Watched>) -> Self {
        Self { watched, ..self }
    }

    /// What is at `path`, which is relative and decoded.
    ///
    /// # Errors
    ///
    /// When the world refuses for a reason that is not the path's: descriptors, memory, the disk;
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if it has to be asked at any speed.
    pub(super) fn find(&self, path: &str, speed: Speed) -> io::Result<Found<'_>> {
        let within = Path::new(if path.is_empty() { "." } else { path });
        for (at, place) in self.places.iter().enumerate() {
            let folder = match place {
                Place::Disk(folder) => folder,
                Place::Binary(Binary { embedded, kept }) => match embedded.find(path) {
                    None if embedded.hides(path) => return Ok(Found::Nothing),
                    None => continue,
                    Some(embedded::Found::File(at, asset)) => {
                        return Ok(Found::Asset(InBinary { asset, kept: &kept[at] }));
                    }
                    Some(embedded::Found::Folder) => return Ok(Found::Folder(Stamp::BINARY)),
                },
            };
            match self.look(folder.as_fd(), within, speed) {
                Err(Errno::NOENT) => {}
                Err(errno) => return refusal(errno),
                Ok((FileType::RegularFile, stamp)) => return Ok(Found::File(at, stamp)),
                Ok((FileType::Directory, stamp)) => return Ok(Found::Folder(stamp)),
                Ok(_) => return Ok(Found::Nothing),
            }
        }
        Ok(Found::Nothing)
    }

    /// What is at `path` in the first folder, wherever it leads: to see whether it is a file that was found there a moment
    /// ago, for which a third of the calls is enough.
    pub(super) fn glance(&self, path: &str) -> Option<Stamp> {
        self.seen(path, AtFlags::empty()).map(|stat| Stamp::of(&stat))
    }

    fn seen(&self, path: &str, follow: AtFlags) -> Option<Statx> {
        let Some(Place::Disk(folder)) = self.places.first() else { return None };
        let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT | follow;
        statx(folder, path, flags, StatxFlags::BASIC_STATS).ok()
    }

    /// The turn of the watch, which becomes another one before anything that has happened is over, as far as it is watched;
    /// none where there is no telling.
    pub(super) fn turn(&self) -> Option<u64> {
        self.watched.as_ref()?.turn()
    }

    /// Whether what decides what is at `path` in the first folder, and at the paths beside it, is told by another turn; has
    /// it told from now on if not.
    pub(super) fn told(&self, path: &str, mut beside: impl Iterator<Item = String>) -> Told {
        let (Some(watched), Some(Place::Disk(folder))) = (&self.watched, self.places.first()) else {
            return Told::Never;
        };
        match watched.told(folder.as_fd(), path) {
            told @ (Told::NotNow | Told::Never) => told,
            _ if self.is_elsewhere(path) || beside.any(|path| self.is_elsewhere(&path)) => Told::Never,
            told => told,
        }
    }

    /// Something else was found than before, perhaps while whoever changes it has not ended: from now on nobody is told of
    /// what was there before.
    pub(super) fn has_changed(&self) {
        self.watched.iter().for_each(Watched::has_changed);
    }

    /// The turn since which nobody has written into the file at `path` in the first folder, if it is told.
    pub(super) fn unwritten(&self, path: &str) -> Option<u64> {
        self.watched.as_ref()?.unwritten(path)
    }

    /// Whether a file is on a file system of which the kernel knows all that happens.
    pub(super) fn is_local(&self, stamp: &Stamp) -> bool {
        self.local.has_device(makedev(stamp.device.0, stamp.device.1))
    }

    /// Whether what happens to the file at a path is told of another folder: the one that a link leads to, or that it is
    /// mounted from.
    fn is_elsewhere(&self, path: &str) -> bool {
        self.seen(path, AtFlags::SYMLINK_NOFOLLOW).is_some_and(|stat| {
            kind(&stat) == FileType::Symlink || stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
        })
    }

    /// Whether nothing but the first folder decides that just this is found.
    pub(super) fn is_first(&self, kept: &Kept) -> bool {
        let disks = || self.places.iter().filter(|place| matches!(place, Place::Disk(_))).count();
        kept.at == 0 && (kept.stamp != Stamp::BINARY || disks() == 1)
    }

    /// Opens the regular file that was found at `path` in one of the folders. Another one may have taken its place
    /// since, which is as good; nothing if what has is none.
    ///
    /// # Errors
    ///
    /// As for [`find`](Self::find), and [`PermissionDenied`](io::ErrorKind::PermissionDenied) for what may be named and
    /// not be read.
    pub(super) fn open_file(&self, at: usize, path: &str, speed: Speed) -> io::Result<Option<Opened>> {
        // Resolved again rather than reopened through /proc, which may not be there.
        let Some(Place::Disk(folder)) = self.places.get(at) else { return Ok(None) };
        let opened = self.resolve(folder.as_fd(), Path::new(path), READ, speed).and_then(|file| {
            let stat = measure(&file, speed)?;
            Ok((kind(&stat) == FileType::RegularFile).then(|| Opened::new(file, Stamp::of(&stat))))
        });
        match opened {
            Ok(opened) => Ok(opened),
            Err(errno) => match refusal(errno)? {
                Found::Forbidden => Err(io::ErrorKind::PermissionDenied.into()),
                _ => Ok(None),
            },
        }
    }

    /// What an opened file is now.
    ///
    /// # Errors
    ///
    /// As for [`find`](Self::find).
    pub(super) fn stamp(&self, opened: &Opened, speed: Speed) -> io::Result<Stamp> {
        Ok(Stamp::of(&measure(opened.file(), speed)?))
    }

    /// What may be served in the folder at `path`; nothing if there is no such folder. Blocking.
    ///
    /// # Errors
    ///
    /// As for [`open_file`](Self::open_file).
    pub(super) fn list(&self, path: &str) -> io::Result<Option<Listing>> {
        let (mut names, mut closed) = (None, false);
        let within = Path::new(if path.is_empty() { "." } else { path });
        for place in &self.places {
            let folder = match place {
                Place::Disk(folder) => folder,
                Place::Binary(Binary { embedded, .. }) => {
                    if matches!(embedded.find(path), Some(embedded::Found::Folder)) {
                        let names: &mut BTreeSet<String> = names.get_or_insert_default();
                        names.extend(embedded.children(path).map(|(name, _)| name.to_owned()));
                    }
                    continue;
                }
            };
            let listed = match self.resolve(folder.as_fd(), within, READ | OFlags::DIRECTORY, Speed::Any) {
                Ok(listed) => listed,
                Err(errno) => {
                    closed |= matches!(refusal(errno)?, Found::Forbidden);
                    continue;
                }
            };
            let names: &mut BTreeSet<String> = names.get_or_insert_default();
            for entry in Dir::new(listed)? {
                names.extend(entry?.file_name().to_str().map(ToOwned::to_owned));
            }
        }
        let Some(mut names) = names else {
            return if closed { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(None) };
        };
        names.retain(|name| super::path::is_public(name));
        // To look at each takes longer than to read its name.
        let beyond = names.len().saturating_sub(listing::MOST);
        let mut entries = Vec::new();
        for name in names.iter().take(listing::MOST) {
            entries.extend(self.entry(path, name)?);
        }
        Ok(Some(Listing::new(entries, beyond)))
    }

    fn entry(&self, folder: &str, name: &str) -> io::Result<Option<Entry>> {
        let path = super::path::joined(folder, name);
        let name = name.to_owned();
        Ok(match self.find(&path, Speed::Any)? {
            Found::File(at, stamp) => match self.open_file(at, &path, Speed::Any) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
                opened => {
                    opened?.map(|_| Entry { name, folder: false, len: stamp.len, modified: stamp.modified() })
                }
            },
            Found::Asset(InBinary { asset, .. }) => {
                Some(Entry { name, folder: false, len: asset.contents.len() as u64, modified: None })
            }
            Found::Folder(stamp) => Some(Entry { name, folder: true, len: 0, modified: stamp.modified() }),
            Found::Nothing | Found::Forbidden => None,
        })
    }

    fn look(&self, folder: BorrowedFd<'_>, path: &Path, speed: Speed) -> Result<(FileType, Stamp), Errno> {
        let named = self.resolve(folder, path, NAME, speed)?;
        let stat = measure(&named, speed)?;
        if kind(&stat) == FileType::RegularFile && !self.local.has(&stat) {
            if speed == Speed::Cached {
                return Err(Errno::AGAIN);
            }
            // Only these keep their number when they are unmounted and others come.
            if stat.stx_dev_major != 0 {
                self.local.learn(&named, &stat);
            }
        }
        Ok((kind(&stat), Stamp::of(&stat)))
    }

    fn resolve(
        &self,
        folder: BorrowedFd<'_>,
        path: &Path,
        flags: OFlags,
        speed: Speed,
    ) -> Result<OwnedFd, Errno> {
        match (self.resolver, speed) {
            (Resolver::Walk | Resolver::Kernel { cached: false }, Speed::Cached) => Err(Errno::AGAIN),
            (Resolver::Walk, Speed::Any) => walk(folder, path, flags),
            (Resolver::Kernel { .. }, Speed::Cached) => match beneath(folder, path, flags, speed) {
                Err(Errno::NOSYS | Errno::PERM) => Err(Errno::AGAIN),
                resolved => resolved,
            },
            (Resolver::Kernel { .. }, Speed::Any) => match beneath(folder, path, flags, speed) {
                // AGAIN: somebody renames folders while `..` in a link is resolved, and the kernel is not
                // sure; the walk is. The other two: a sandbox entered after the start.
                Err(Errno::AGAIN | Errno::NOSYS | Errno::PERM) => walk(folder, path, flags),
                resolved => resolved,
            },
        }
    }
}

/// The devices of file systems that wait for nobody but a disk, so that what they have in memory is what is so. Of
/// others, over a network or of another process, not even the length is known without asking.
#[derive(Debug, Default)]
struct Local([AtomicU64; 8]);

impl Local {
    fn device(stat: &Statx) -> u64 {
        // No device is numbered zero.
        makedev(stat.stx_dev_major, stat.stx_dev_minor)
    }

    fn has(&self, stat: &Statx) -> bool {
        self.has_device(Self::device(stat))
    }

    fn has_device(&self, device: u64) -> bool {
        self.0.iter().any(|known| known.load(Relaxed) == device)
    }

    /// There is room for eight; who has more pays a trip to the blocking pool for each file of the others.
    fn learn(&self, file: &OwnedFd, stat: &Statx) {
        let local = fstatfs(file).is_ok_and(|system| KINDS.contains(&(system.f_type as u32)));
        if !local || self.has(stat) {
            return;
        }
        let device = Self::device(stat);
        let _ = self.0.iter().find(|room| room.compare_exchange(0, device, Relaxed, Relaxed).is_ok());
    }
}

fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

fn measure(file: &OwnedFd, speed: Speed) -> Result<Statx, Errno> {
    let sync = match speed {
        Speed::Cached => AtFlags::STATX_DONT_SYNC,
        Speed::Any => AtFlags::empty(),
    };
    statx(file, "", AtFlags::EMPTY_PATH | sync, StatxFlags::BASIC_STATS)
}

fn open_folder(folder: &Path) -> io::Result<OwnedFd> {
    openat(CWD, folder, NAME | OFlags::DIRECTORY, Mode::empty()).map_err(|errno| {
        let error = io::Error::from(errno);
        io::Error::new(error.kind(), format!("folder `{}`: {error}", folder.display()))
    })
}

fn beneath(folder: impl AsFd, path: &Path, flags: OFlags, speed: Speed) -> Result<OwnedFd, Errno> {
    let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    if speed == Speed::Cached {
        resolve |= ResolveFlags::CACHED;
    }
    openat2(folder, path, flags, Mode::empty(), resolve)
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
    match behind.pop() {
        Some(last) if flags.contains(OFlags::PATH) => Ok(last),
        // To name a folder and to list it are all that is ever asked of it.
        last => openat(last.as_ref().map_or(folder, AsFd::as_fd), ".", flags, Mode::empty()),
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
fn refusal<'a>(errno: Errno) -> io::Result<Found<'a>> {
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

        assert!(Root::open([Layer::Folder(there.clone())]).is_ok());
        assert_eq!(Root::open([]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        for (folders, kind) in [
            (vec![missing.clone()], io::ErrorKind::NotFound),
            (vec![file], io::ErrorKind::NotADirectory),
            (vec![there, missing], io::ErrorKind::NotFound),
        ] {
            let error = Root::open(folders.iter().cloned().map(Layer::Folder)).unwrap_err();
            assert_eq!(error.kind(), kind);
            let culprit = folders.last().unwrap().display().to_string();
            assert!(error.to_string().contains(&culprit), "{error}");
        }
    }

    #[test]
    fn this_kernel_resolves_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open([Layer::Folder(folder.path().to_path_buf())]).unwrap();
        assert_eq!(root.resolver, Resolver::Kernel { cached: true });
        // Nothing under test would be answered on a worker otherwise.
        assert_ne!(root.local.0[0].load(Relaxed), 0);
    }
}
