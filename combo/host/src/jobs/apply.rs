//! change -> applied.
//!
//! Takes one [`Change`] and the [`Folders`] that its job was given; makes it whole or not at all. The
//! only place that writes on behalf of tasks. Never follows a symbolic link below a folder, never
//! leaves it, never makes a folder.
//!
//! Folders are opened once, and from there on everything is relative to their descriptors, one name
//! at a time, so that nobody can swap a directory for a link in between. A file is written as
//! `.combo-N.tmp` beside its target and renamed. N is the first that is free; whoever writes holds a
//! lock on theirs, so writers never share one, and one without a lock was left by a process that was
//! killed, and goes at the next write to that directory.
//!
//! With a layer (for tests of deployments) nothing real is changed: `root/x` is read where it is and
//! written at `layer/x`, a folder outside the root at `layer/.absolute/…`. A real file that was removed
//! is `.wh.NAME` there, empty, as in an OCI image layer.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use combo_core::Change;
use rustix::{
    fs::{
        AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat, fchmod, flock, fstat, fsync, ftruncate,
        mkdirat, openat, renameat, statat, unlinkat,
    },
    io::Errno,
};

/// Permissions, unless said.
const FILE: u32 = 0o644;

/// How many may write into one directory at once.
const WRITERS: u32 = 4_096;

/// The folders that a job may write in, opened. A clone is cheap and shares them.
#[derive(Clone, Debug)]
pub(crate) struct Folders(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    root: PathBuf,
    folders: Vec<Folder>,
}

#[derive(Debug)]
struct Folder {
    said: PathBuf,
    /// Under the root, dots and all.
    path: PathBuf,
    real: OwnedFd,
    layer: Option<OwnedFd>,
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unapplied {
    /// It may not be.
    Refused(String),
    /// It could not be.
    Failed(String),
}

impl Folders {
    /// Opens folders, which may be symbolic links themselves. Relative ones are under the root.
    ///
    /// # Errors
    ///
    /// The first folder that cannot be opened, as it was said, and why.
    pub(crate) fn open(
        root: &Path,
        folders: &[PathBuf],
        layer: Option<&Path>,
    ) -> Result<Self, (PathBuf, io::Error)> {
        let root = std::path::absolute(root).map_err(|error| (root.to_owned(), error))?;
        let open = |said: &PathBuf| -> io::Result<Folder> {
            let path = root.join(said);
            let real = openat(CWD, &path, DIRECTORY, Mode::empty())?;
            let layer = match layer {
                None => None,
                Some(layer) => {
                    let path = layer.join(layered(&root, &path));
                    fs::create_dir_all(&path)?;
                    Some(openat(CWD, &path, DIRECTORY, Mode::empty())?)
                }
            };
            Ok(Folder { said: said.clone(), path, real, layer })
        };
        let opened: Result<Vec<_>, _> =
            folders.iter().map(|said| open(said).map_err(|error| (said.clone(), error))).collect();
        opened.map(|folders| Self(Arc::new(Opened { root, folders })))
    }
}

/// What is left of a path below a folder, if it lies there: whole names are compared, as they are
/// said. `..` below the folder is still in it. Both may be relative to the root.
pub(crate) fn below(root: &Path, folder: &Path, path: &Path) -> Option<PathBuf> {
    root.join(path).strip_prefix(root.join(folder)).ok().map(Path::to_owned)
}

/// Makes one change.
///
/// # Errors
///
/// One sentence. What was there before is there still.
pub(crate) fn apply(folders: &Folders, change: &Change) -> Result<(), Unapplied> {
    match change {
        Change::WriteFile { path, contents, mode } => {
            let failed = |error| failed("write", path, error);
            let target = place(folders, path, "write")?;
            match target.look().map_err(failed)? {
                Look::Directory => return Err(failed(Errno::ISDIR)),
                Look::Absent | Look::File | Look::Link | Look::Other => {}
            }
            let mode = mode.unwrap_or(FILE);
            if mode > 0o7777 {
                return Err(Unapplied::Failed(format!(
                    "cannot write `{}`: {mode:o} is no mode",
                    path.display()
                )));
            }
            target.write(contents, Mode::from_raw_mode(mode)).map_err(failed)
        }
        Change::AppendFile { path, contents } => {
            let failed = |error| failed("append to", path, error);
            let target = place(folders, path, "append to")?;
            match target.look().map_err(failed)? {
                Look::Absent | Look::File => {}
                Look::Link => {
                    return Err(Unapplied::Refused(format!("`{}` is a symbolic link", path.display())));
                }
                Look::Directory => return Err(failed(Errno::ISDIR)),
                Look::Other => return Err(not_a_file("append to", path)),
            }
            match target.append(contents) {
                Err(Errno::LOOP) => {
                    Err(Unapplied::Refused(format!("`{}` is a symbolic link", path.display())))
                }
                Err(Errno::NXIO) => Err(not_a_file("append to", path)),
                appended => appended.map_err(failed),
            }
        }
        Change::RemoveFile { path } => {
            let failed = |error| failed("remove", path, error);
            let target = match place(folders, path, "remove") {
                Err(Misplaced::Missing(_)) => return Ok(()),
                placed => placed?,
            };
            match target.look().map_err(failed)? {
                Look::Absent => Ok(()),
                Look::Directory => Err(failed(Errno::ISDIR)),
                Look::File | Look::Link | Look::Other => target.remove().map_err(failed),
            }
        }
        _ => Err(Unapplied::Failed(format!("nobody knows how to {change}"))),
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// On the way to a directory: it is enough if it may be passed.
const PASSING: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Where in the layer a folder is.
fn layered(root: &Path, folder: &Path) -> PathBuf {
    let plain = |rest: &&Path| rest.components().all(|part| matches!(part, Component::Normal(_)));
    if let Some(rest) = folder.strip_prefix(root).ok().filter(plain) {
        return rest.to_owned();
    }
    let mut path = PathBuf::from(".absolute");
    for part in folder.components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir if path.components().count() > 1 => drop(path.pop()),
            Component::ParentDir | Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    path
}

fn failed(verb: &str, path: &Path, errno: Errno) -> Unapplied {
    let error = io::Error::from(errno);
    let kind = error.kind().to_string();
    let why = if kind == "uncategorized error" { error.to_string() } else { kind };
    Unapplied::Failed(format!("cannot {verb} `{}`: {why}", path.display()))
}

fn not_a_file(verb: &str, path: &Path) -> Unapplied {
    Unapplied::Failed(format!("cannot {verb} `{}`: it is not a file", path.display()))
}

/// A name in an opened directory.
struct Target {
    directory: Directory,
    name: OsString,
}

struct Directory {
    real: OwnedFd,
    layer: Option<OwnedFd>,
}

/// Why there is no [`Target`].
enum Misplaced {
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

/// Finds the folder that a path lies in and walks from there.
fn place(folders: &Folders, path: &Path, verb: &str) -> Result<Target, Misplaced> {
    let refused = |why: String| Err(Misplaced::Other(Unapplied::Refused(why)));
    let Folders(opened) = folders;
    let found =
        opened.folders.iter().filter_map(|folder| Some((folder, below(&opened.root, &folder.path, path)?)));
    let Some((folder, rest)) = found.min_by_key(|(_, rest)| rest.components().count()) else {
        return refused(outside(&opened.folders, path));
    };
    let mut names = Vec::new();
    for part in rest.components() {
        match part {
            Component::Normal(name) => names.push(name),
            Component::ParentDir | Component::CurDir | Component::RootDir | Component::Prefix(_) => {
                return refused(format!("`{}` has a `..` in it", path.display()));
            }
        }
    }
    let ends_in = |end: &[u8]| path.as_os_str().as_bytes().ends_with(end);
    let (Some(name), false) = (names.pop(), ends_in(b"/") || ends_in(b"/.")) else {
        return Err(Misplaced::Other(failed(verb, path, Errno::ISDIR)));
    };

    let other = |errno| Misplaced::Other(failed(verb, path, errno));
    let mut directory = folder.directory().map_err(other)?;
    let mut passed = folder.said.clone();
    for (i, part) in names.iter().enumerate() {
        passed.push(part);
        let last = i + 1 == names.len();
        directory = directory.enter(part, last).map_err(|errno| match directory.kind(part) {
            Ok(Some(FileType::Symlink)) => Misplaced::Other(Unapplied::Refused(format!(
                "`{}` leads through the symbolic link `{}`",
                path.display(),
                passed.display()
            ))),
            Ok(Some(FileType::Directory)) | Err(_) => other(errno),
            Ok(Some(_)) => Misplaced::Other(Unapplied::Failed(format!(
                "cannot {verb} `{}`: `{}` is not a folder",
                path.display(),
                passed.display()
            ))),
            Ok(None) => Misplaced::Missing(Unapplied::Failed(format!(
                "cannot {verb} `{}`: there is no folder `{}`; it has to be made beforehand",
                path.display(),
                passed.display()
            ))),
        })?;
    }
    Ok(Target { directory, name: name.to_owned() })
}

fn outside(folders: &[Folder], path: &Path) -> String {
    if path.components().any(|part| part == Component::ParentDir) {
        return format!("`{}` has a `..` in it", path.display());
    }
    if folders.is_empty() {
        return format!("`{}`, and it was given no folder; say `.may_write(\"…\")`", path.display());
    }
    let mut said = format!("`{}` lies outside what it may write (", path.display());
    for (i, folder) in folders.iter().enumerate() {
        let _ = write!(said, "{}`{}`", if i == 0 { "" } else { ", " }, folder.said.display());
    }
    said + ")"
}

impl Folder {
    fn directory(&self) -> Result<Directory, Errno> {
        let again = |fd: &OwnedFd| openat(fd, ".", DIRECTORY, Mode::empty());
        Ok(Directory { real: again(&self.real)?, layer: self.layer.as_ref().map(again).transpose()? })
    }
}

impl Directory {
    /// The directory of that name in this one. The last of a walk is opened for flushing, too.
    fn enter(&self, name: &OsStr, last: bool) -> Result<Self, Errno> {
        let reading = DIRECTORY | OFlags::NOFOLLOW;
        let flags = if last && self.layer.is_none() { reading } else { PASSING };
        let real = openat(&self.real, name, flags, Mode::empty())?;
        let layer = match &self.layer {
            None => None,
            Some(layer) => {
                match mkdirat(layer, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
                Some(openat(layer, name, reading, Mode::empty())?)
            }
        };
        Ok(Self { real, layer })
    }

    /// Where changes are made.
    fn changed(&self) -> BorrowedFd<'_> {
        self.layer.as_ref().unwrap_or(&self.real).as_fd()
    }

    fn kind(&self, name: &OsStr) -> Result<Option<FileType>, Errno> {
        kind(self.real.as_fd(), name)
    }
}

fn kind(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Option<FileType>, Errno> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// What has a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Absent,
    File,
    Directory,
    Link,
    Other,
}

impl Target {
    fn look(&self) -> Result<Look, Errno> {
        let found = match &self.directory.layer {
            None => self.directory.kind(&self.name)?,
            Some(layer) => match kind(layer.as_fd(), &self.name)? {
                None if kind(layer.as_fd(), &self.whiteout())?.is_some() => None,
                None => self.directory.kind(&self.name)?,
                found => found,
            },
        };
        Ok(match found {
            None => Look::Absent,
            Some(FileType::RegularFile) => Look::File,
            Some(FileType::Directory) => Look::Directory,
            Some(FileType::Symlink) => Look::Link,
            Some(_) => Look::Other,
        })
    }

    fn write(&self, contents: &[u8], mode: Mode) -> Result<(), Errno> {
        let mut staged = Staged::new(self.directory.changed())?;
        staged.fill(contents, mode)?;
        staged.rename(&self.name)?;
        self.unwhiteout()?;
        flush(self.directory.changed())
    }

    fn append(&self, contents: &[u8]) -> Result<(), Errno> {
        self.copy_up()?;
        let (mut file, made) = self.open_to_append()?;
        let before = fstat(&file)?;
        if FileType::from_raw_mode(before.st_mode) != FileType::RegularFile {
            return Err(Errno::NXIO);
        }
        let written = (|| {
            if made {
                fchmod(&file, Mode::from_raw_mode(FILE))?;
            }
            file.write_all(contents).map_err(|error| errno(&error))?;
            fsync(&file)
        })();
        if let Err(errno) = written {
            self.take_back(&file, &before, contents.len(), made);
            return Err(errno);
        }
        self.unwhiteout()?;
        if made { flush(self.directory.changed()) } else { Ok(()) }
    }

    /// And whether it was made.
    fn open_to_append(&self) -> Result<(File, bool), Errno> {
        let flags = OFlags::WRONLY
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

    fn remove(&self) -> Result<(), Errno> {
        match unlinkat(self.directory.changed(), &self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        if let Some(layer) = &self.directory.layer
            && self.directory.kind(&self.name)?.is_some()
        {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            drop(openat(layer, self.whiteout(), flags, Mode::from_raw_mode(FILE))?);
        }
        flush(self.directory.changed())
    }

    fn whiteout(&self) -> OsString {
        let mut name = OsString::from(".wh.");
        name.push(&self.name);
        name
    }

    fn unwhiteout(&self) -> Result<(), Errno> {
        let Some(layer) = &self.directory.layer else { return Ok(()) };
        match unlinkat(layer, self.whiteout(), AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            removed => removed,
        }
    }

    /// With a layer: has what is real in it, too.
    fn copy_up(&self) -> Result<(), Errno> {
        let Some(layer) = &self.directory.layer else { return Ok(()) };
        if kind(layer.as_fd(), &self.name)?.is_some() || self.look()? != Look::File {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut real = File::from(openat(&self.directory.real, &self.name, flags, Mode::empty())?);
        let mode = Mode::from_raw_mode(fstat(&real)?.st_mode & 0o7777);
        let mut contents = Vec::new();
        let _ = real.read_to_end(&mut contents).map_err(|error| errno(&error))?;
        self.write(&contents, mode)
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// A rename is on the disk when its directory is. Some file systems cannot be asked.
fn flush(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    match fsync(directory) {
        Err(Errno::INVAL) => Ok(()),
        flushed => flushed,
    }
}

/// A temporary file; gone when dropped, unless renamed.
struct Staged<'a> {
    directory: BorrowedFd<'a>,
    name: String,
    file: File,
    renamed: bool,
}

impl<'a> Staged<'a> {
    fn new(directory: BorrowedFd<'a>) -> Result<Self, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for n in 0..WRITERS {
            let name = staged_name(n);
            if matches!(leftover(directory, &name)?, Leftover::Held) {
                continue;
            }
            let file = match openat(directory, &name, flags, Mode::from_raw_mode(0o600)) {
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

    fn fill(&mut self, contents: &[u8], mode: Mode) -> Result<(), Errno> {
        self.file.write_all(contents).map_err(|error| errno(&error))?;
        fchmod(&self.file, mode)?;
        fsync(&self.file)
    }

    fn rename(mut self, name: &OsStr) -> Result<(), Errno> {
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

fn is_named(file: &File, directory: BorrowedFd<'_>, name: &str) -> Result<bool, Errno> {
    let ours = fstat(file)?;
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok((stat.st_dev, stat.st_ino) == (ours.st_dev, ours.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}
