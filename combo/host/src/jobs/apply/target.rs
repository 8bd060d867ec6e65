//! A target: a name in an opened directory, and what can be done to it.
//!
//! A path is walked from its folder one name at a time, never through a symbolic link, so that nobody
//! can swap a directory for a link in between. With a layer, what is real is read and the layer is
//! written.
#![expect(clippy::disallowed_methods, reason = "this is where files are changed on behalf of tasks")]

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::{Component, Path},
    rc::Rc,
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Stat, fchmod, flock, fstat, fsync, ftruncate,
        mkdirat, openat, readlinkat, renameat, statat, symlinkat, unlinkat,
    },
    io::Errno,
};

use super::{
    Deed, Unapplied, failed,
    folders::{Folder, Folders, below},
    staged::Staged,
};

/// Permissions, unless said.
pub(super) const FILE: u32 = 0o644;

/// Permissions of directories.
const PASSABLE: u32 = 0o755;

/// Names that begin so are not for tasks.
pub(super) const OURS: &str = ".combo-";

/// How often a lock is asked for, and how long is waited in between: 10 seconds at most.
pub(super) const ASKED: u32 = 2_000;
pub(super) const AGAIN: Duration = Duration::from_millis(5);

pub(super) const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// On the way to a directory: it is enough if it may be passed.
const PASSING: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A name in an opened directory.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) directory: Rc<Directory>,
    pub(super) name: OsString,
}

pub(super) struct Directory {
    /// With a layer there may be none: what was made lies in the layer only.
    pub(super) real: Option<OwnedFd>,
    pub(super) layer: Option<OwnedFd>,
}

/// Why there is no [`Target`].
pub(super) enum Misplaced {
    Missing(Unapplied),
    Other(Unapplied),
}

impl From<Misplaced> for Unapplied {
    fn from(misplaced: Misplaced) -> Self {
        match misplaced {
            Misplaced::Missing(unapplied) | Misplaced::Other(unapplied) => unapplied,
        }
    }
}

/// Finds the folder that a path lies in, and the names from there.
pub(super) fn find<'a>(
    folders: &'a Folders,
    path: &Path,
    deed: Deed<'_>,
) -> Result<(&'a Arc<Folder>, Vec<OsString>), Unapplied> {
    let refused = |why: String| Err(Unapplied::Refused(why));
    let all = folders.each().iter();
    let found = all.filter_map(|folder| Some((folder, below(folders.root(), &folder.path, path)?)));
    let Some((folder, rest)) = found.min_by_key(|(_, rest)| rest.components().count()) else {
        return refused(outside(folders, path));
    };
    let mut names = Vec::new();
    for part in rest.components() {
        match part {
            Component::Normal(name) if name.as_bytes().starts_with(OURS.as_bytes()) => {
                let (path, name) = (path.display(), name.display());
                return refused(format!("cannot {deed}: in `{path}`, combo keeps `{name}` for itself"));
            }
            Component::Normal(name) => names.push(name.to_owned()),
            Component::ParentDir | Component::CurDir | Component::RootDir | Component::Prefix(_) => {
                return refused(format!("`{}` has a `..` in it", path.display()));
            }
        }
    }
    Ok((folder, names))
}

/// Finds the folder that a path lies in and walks from there.
pub(super) fn place(folders: &Folders, path: &Path, deed: Deed<'_>) -> Result<Target, Misplaced> {
    let (folder, mut names) = find(folders, path, deed).map_err(Misplaced::Other)?;
    let ends_in = |end: &[u8]| path.as_os_str().as_bytes().ends_with(end);
    let (Some(name), false) = (names.pop(), ends_in(b"/") || ends_in(b"/.")) else {
        return Err(Misplaced::Other(failed(deed, Errno::ISDIR)));
    };
    let mut directory = folder.directory().map_err(|errno| Misplaced::Other(failed(deed, errno)))?;
    let mut passed = folder.said.clone();
    for (i, part) in names.iter().enumerate() {
        passed.push(part);
        let last = i + 1 == names.len();
        directory =
            directory.enter(part, last).map_err(|errno| lost(&directory, &passed, path, deed, errno))?;
    }
    Ok(Target { directory: Rc::new(directory), name })
}

/// Why the last name of what was passed could not be.
fn lost(directory: &Directory, passed: &Path, path: &Path, deed: Deed<'_>, errno: Errno) -> Misplaced {
    let name = passed.file_name().unwrap_or_default();
    let (path, passed) = (path.display(), passed.display());
    match directory.kind(name) {
        Ok(Some(FileType::Symlink)) => Misplaced::Other(Unapplied::Refused(format!(
            "`{path}` leads through the symbolic link `{passed}`"
        ))),
        Ok(Some(FileType::Directory)) | Err(_) => Misplaced::Other(failed(deed, errno)),
        Ok(Some(_)) => {
            Misplaced::Other(Unapplied::Failed(format!("cannot {deed}: `{passed}` is not a folder")))
        }
        Ok(None) => Misplaced::Missing(Unapplied::Failed(format!(
            "cannot {deed}: there is no folder `{passed}`; it has to be made beforehand"
        ))),
    }
}

/// Makes a directory and those above it.
pub(super) fn make_directory(folders: &Folders, path: &Path) -> Result<(), Unapplied> {
    let deed = Deed::Make(path);
    let (folder, names) = find(folders, path, deed)?;
    let failed = |errno| failed(deed, errno);
    if names.is_empty() && folder.is_gone() {
        return Err(failed(Errno::NOENT));
    }
    let mut directory = folder.directory().map_err(failed)?;
    let mut passed = folder.said.clone();
    for part in &names {
        passed.push(part);
        if directory.kind(part).map_err(failed)?.is_none() {
            directory.make(part).map_err(failed)?;
        }
        directory =
            directory.enter(part, true).map_err(|errno| lost(&directory, &passed, path, deed, errno))?;
    }
    Ok(())
}

fn outside(folders: &Folders, path: &Path) -> String {
    if path.components().any(|part| part == Component::ParentDir) {
        return format!("`{}` has a `..` in it", path.display());
    }
    if folders.each().is_empty() {
        return format!("`{}`, and it was given no folder; say `.may_write(\"…\")`", path.display());
    }
    let mut said = format!("`{}` lies outside what it may write (", path.display());
    for (i, folder) in folders.each().iter().enumerate() {
        let _ = write!(said, "{}`{}`", if i == 0 { "" } else { ", " }, folder.said.display());
    }
    said + ")"
}

impl Directory {
    /// The directory of that name in this one. The last of a walk is opened for flushing, too.
    fn enter(&self, name: &OsStr, last: bool) -> Result<Self, Errno> {
        let reading = DIRECTORY | OFlags::NOFOLLOW;
        let Some(layer) = &self.layer else {
            let real = self.real.as_ref().ok_or(Errno::NOENT)?;
            let flags = if last { reading } else { PASSING };
            return Ok(Self { real: Some(openat(real, name, flags, Mode::empty())?), layer: None });
        };
        let real = match &self.real {
            Some(real) if kind(layer.as_fd(), &whiteout(name))?.is_none() => {
                match openat(real, name, PASSING, Mode::empty()) {
                    Err(Errno::NOENT) => None,
                    opened => Some(opened?),
                }
            }
            Some(_) | None => None,
        };
        if real.is_some() {
            match mkdirat(layer, name, Mode::from_raw_mode(PASSABLE)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(Self { real, layer: Some(openat(layer, name, reading, Mode::empty())?) })
    }

    fn make(&self, name: &OsStr) -> Result<(), Errno> {
        match mkdirat(self.changed(), name, Mode::from_raw_mode(PASSABLE)) {
            Err(Errno::EXIST) => return Ok(()),
            made => made?,
        }
        let made = openat(self.changed(), name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        fchmod(&made, Mode::from_raw_mode(PASSABLE))?;
        flush(self.changed())
    }

    /// Where changes are made.
    pub(super) fn changed(&self) -> BorrowedFd<'_> {
        let changed = self.layer.as_ref().or(self.real.as_ref());
        changed.expect("without a layer it is real").as_fd()
    }

    fn real_kind(&self, name: &OsStr) -> Result<Option<FileType>, Errno> {
        self.real.as_ref().map_or(Ok(None), |real| kind(real.as_fd(), name))
    }

    fn kind(&self, name: &OsStr) -> Result<Option<FileType>, Errno> {
        match &self.layer {
            None => self.real_kind(name),
            Some(layer) => match kind(layer.as_fd(), name)? {
                None if kind(layer.as_fd(), &whiteout(name))?.is_some() => Ok(None),
                None => self.real_kind(name),
                found => Ok(found),
            },
        }
    }

    /// The device and the number of what is changed.
    pub(super) fn identity(&self) -> Result<(u64, u64), Errno> {
        fstat(self.changed()).map(|stat| (stat.st_dev, stat.st_ino))
    }
}

pub(super) fn kind(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Option<FileType>, Errno> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Locks a file or directory, and waits for that a while. Some file systems cannot be asked.
pub(super) fn lock(fd: impl AsFd) -> Result<(), Errno> {
    for _ in 0..ASKED {
        match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => thread::sleep(AGAIN),
            Ok(()) | Err(_) => return Ok(()),
        }
    }
    Err(Errno::WOULDBLOCK)
}

/// What has a name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Absent,
    File,
    Directory,
    Link,
    Other,
}

/// Why nothing was appended.
pub(super) enum Unappended {
    /// It is that long.
    Elsewhere(u64),
    Errno(Errno),
}

impl From<Errno> for Unappended {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl Target {
    pub(super) fn look(&self) -> Result<Look, Errno> {
        Ok(match self.directory.kind(&self.name)? {
            None => Look::Absent,
            Some(FileType::RegularFile) => Look::File,
            Some(FileType::Directory) => Look::Directory,
            Some(FileType::Symlink) => Look::Link,
            Some(_) => Look::Other,
        })
    }

    pub(super) fn write(&self, contents: &[u8], mode: Mode) -> Result<(), Errno> {
        let mut staged = Staged::new(self.directory.changed())?;
        staged.fill(contents, mode)?;
        staged.rename(&self.name)?;
        self.unwhiteout()?;
        flush(self.directory.changed())
    }

    /// With a length: only what is not there yet is added, and only there.
    pub(super) fn append(&self, contents: &[u8], at: Option<u64>) -> Result<(), Unappended> {
        if at.is_some_and(|at| at > 0) && self.look()? == Look::Absent {
            return Err(Unappended::Elsewhere(0));
        }
        self.copy_up()?;
        let (mut file, made) = self.open_to_append(at.is_some())?;
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(Errno::NXIO.into());
        }
        let rest = match at {
            None => contents,
            Some(at) => {
                lock(&file)?;
                unappended(&file, contents, at)?
            }
        };
        let before = fstat(&file)?;
        let written = (|| {
            if made {
                fchmod(&file, Mode::from_raw_mode(FILE))?;
            }
            file.write_all(rest).map_err(|error| errno(&error))?;
            fsync(&file)
        })();
        if let Err(errno) = written {
            self.take_back(&file, &before, rest.len(), made);
            return Err(errno.into());
        }
        self.unwhiteout()?;
        // Whoever appended this before may have been killed before the name was on the disk.
        if made || at.is_some() { Ok(flush(self.directory.changed())?) } else { Ok(()) }
    }

    /// And whether it was made.
    fn open_to_append(&self, reading: bool) -> Result<(File, bool), Errno> {
        let flags = if reading { OFlags::RDWR } else { OFlags::WRONLY }
            | OFlags::APPEND
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC
            | OFlags::NOCTTY;
        loop {
            match openat(self.directory.changed(), &self.name, flags, Mode::empty()) {
                Err(Errno::NOENT) => {}
                opened => return opened.map(|fd| (fd.into(), false)),
            }
            let making = flags | OFlags::CREATE | OFlags::EXCL;
            match openat(self.directory.changed(), &self.name, making, Mode::from_raw_mode(0o600)) {
                Err(Errno::EXIST) => {}
                opened => return opened.map(|fd| (fd.into(), true)),
            }
        }
    }

    /// Undoes a part of what was to be appended, unless others have appended since.
    fn take_back(&self, file: &File, before: &Stat, len: usize, made: bool) {
        let length = |stat: &Stat| u64::try_from(stat.st_size).unwrap_or_default();
        let ours = fstat(file).is_ok_and(|now| length(&now) <= length(before) + len as u64);
        if !ours {
            return;
        }
        // There is already an error to tell; this is as much as can be done about it.
        if made {
            let _ = unlinkat(self.directory.changed(), &self.name, AtFlags::empty());
        } else {
            let _ = ftruncate(file, length(before));
        }
    }

    pub(super) fn remove(&self) -> Result<(), Errno> {
        self.unlink()?;
        flush(self.directory.changed())
    }

    /// Removes it; that is not flushed.
    pub(super) fn unlink(&self) -> Result<(), Errno> {
        match unlinkat(self.directory.changed(), &self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => self.whiteout(),
            Err(errno) => Err(errno),
        }
    }

    /// Gives it another name, which is not flushed. A directory is never given the name of another.
    pub(super) fn rename(&self, to: &Self) -> Result<(), Errno> {
        self.copy_up()?;
        renameat(self.directory.changed(), &self.name, to.directory.changed(), &to.name)?;
        if self.directory.layer.is_none() {
            return Ok(());
        }
        self.whiteout()?;
        // What is real below a directory stays hidden.
        if to.look()? == Look::Directory { Ok(()) } else { to.unwhiteout() }
    }

    /// Makes a file of that name beside it.
    pub(super) fn stage(&self, name: &str, contents: &[u8], mode: Mode) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(self.directory.changed(), name, flags, Mode::from_raw_mode(0o600))?);
        file.write_all(contents).map_err(|error| errno(&error))?;
        fchmod(&file, mode)?;
        fsync(&file)
    }

    /// Gives its name to the file beside it, which is not flushed. If that is not there, it has been done.
    pub(super) fn put(&self, staged: &str) -> Result<(), Errno> {
        match kind(self.directory.changed(), OsStr::new(staged))? {
            None => Ok(()),
            Some(FileType::RegularFile) => {
                renameat(self.directory.changed(), staged, self.directory.changed(), &self.name)?;
                self.unwhiteout()
            }
            Some(_) => Err(Errno::NXIO),
        }
    }

    /// Removes the file beside it.
    pub(super) fn unstage(&self, staged: &str) -> Result<(), Errno> {
        match unlinkat(self.directory.changed(), staged, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            removed => removed,
        }
    }

    /// With a layer: hides what is real.
    fn whiteout(&self) -> Result<(), Errno> {
        if let Some(layer) = &self.directory.layer
            && self.directory.real_kind(&self.name)?.is_some()
        {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            drop(openat(layer, whiteout(&self.name), flags, Mode::from_raw_mode(FILE))?);
        }
        Ok(())
    }

    fn unwhiteout(&self) -> Result<(), Errno> {
        let Some(layer) = &self.directory.layer else { return Ok(()) };
        match unlinkat(layer, whiteout(&self.name), AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            removed => removed,
        }
    }

    /// With a layer: has what is real in it, too.
    fn copy_up(&self) -> Result<(), Errno> {
        let (Some(layer), Some(real)) = (&self.directory.layer, &self.directory.real) else { return Ok(()) };
        let look = self.look()?;
        if look != Look::Directory && kind(layer.as_fd(), &self.name)?.is_some() {
            return Ok(());
        }
        match look {
            Look::File => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let mut real = File::from(openat(real, &self.name, flags, Mode::empty())?);
                let mode = Mode::from_raw_mode(fstat(&real)?.st_mode & 0o7777);
                let mut contents = Vec::new();
                let _ = real.read_to_end(&mut contents).map_err(|error| errno(&error))?;
                self.write(&contents, mode)
            }
            Look::Directory => {
                let directory = Rc::new(self.directory.enter(&self.name, true)?);
                let Some(real) = &directory.real else { return Ok(()) };
                for entry in Dir::read_from(openat(real, ".", DIRECTORY, Mode::empty())?)? {
                    let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
                    if name != "." && name != ".." {
                        Self { directory: directory.clone(), name }.copy_up()?;
                    }
                }
                Ok(())
            }
            Look::Link => {
                let target = readlinkat(real, &self.name, Vec::new())?;
                symlinkat(target, layer, &self.name)
            }
            Look::Absent | Look::Other => Ok(()),
        }
    }
}

/// What of the contents is not at that place yet.
fn unappended<'a>(file: &File, contents: &'a [u8], at: u64) -> Result<&'a [u8], Unappended> {
    let length = u64::try_from(fstat(file)?.st_size).unwrap_or_default();
    let Some(there) = length.checked_sub(at) else { return Err(Unappended::Elsewhere(length)) };
    let there = usize::try_from(there).unwrap_or(usize::MAX).min(contents.len());
    let mut found = vec![0; there];
    file.read_exact_at(&mut found, at).map_err(|error| errno(&error))?;
    match contents.split_at(there) {
        (begun, rest) if begun == found => Ok(rest),
        _ => Err(Unappended::Elsewhere(length)),
    }
}

fn whiteout(name: &OsStr) -> OsString {
    let mut whiteout = OsString::from(".wh.");
    whiteout.push(name);
    whiteout
}

pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// A rename is on the disk when its directory is. Some file systems cannot be asked.
pub(super) fn flush(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    match fsync(directory) {
        Err(Errno::INVAL) => Ok(()),
        flushed => flushed,
    }
}
