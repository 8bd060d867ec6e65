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
#![expect(clippy::disallowed_methods, reason = "this is where files are changed on behalf of tasks")]

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
    /// With a layer (for tests of deployments) nothing real is changed: `root/x` is read where it is
    /// and written at `layer/x`, a folder outside the root at `layer/.absolute/…`. A real file that was
    /// removed is `.wh.NAME` there, empty, as in an OCI image layer.
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

/// Where in the layer what is outside of the root is.
pub(crate) const OUTSIDE: &str = ".absolute";

/// Where in the layer a folder is.
pub(crate) fn layered(root: &Path, folder: &Path) -> PathBuf {
    let plain = |rest: &&Path| rest.components().all(|part| matches!(part, Component::Normal(_)));
    if let Some(rest) = folder.strip_prefix(root).ok().filter(plain) {
        return rest.to_owned();
    }
    let mut path = PathBuf::from(OUTSIDE);
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
    let why = match (errno, error.kind().to_string()) {
        // Names on the way were found, and a name that is to be made need not be.
        (Errno::NOENT, _) => "its folder was removed after it had been opened, at the start".to_owned(),
        (_, kind) if kind == "uncategorized error" => error.to_string(),
        (_, kind) => kind,
    };
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

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        os::unix::{
            fs::{PermissionsExt, symlink},
            process::ExitStatusExt,
        },
        process::{Command, Output},
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use rustix::{
        fs::{RenameFlags, mknodat, renameat_with},
        process::{Signal, getpid, kill_process},
    };
    use tempfile::TempDir;

    use super::*;

    /// A root with the folder `static`, the file `static/old` and the folder `static/sub`.
    fn root() -> TempDir {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(root.path().join("static/sub")).expect("directories");
        fs::write(root.path().join("static/old"), "old").expect("a file");
        root
    }

    fn opened(root: &Path) -> Folders {
        Folders::open(root, &["static".into()], None).expect("a folder")
    }

    /// All below it: folders with a `/`, links with their targets, files with their contents.
    fn tree(folder: &Path) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut left = vec![folder.to_owned()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(directory).expect("a directory") {
                let path = entry.expect("an entry").path();
                let kind = path.symlink_metadata().expect("a kind").file_type();
                let name = path.strip_prefix(folder).expect("below").display().to_string();
                let (name, content) = if kind.is_dir() {
                    left.push(path);
                    (name + "/", String::new())
                } else if kind.is_symlink() {
                    (name, format!("-> {}", fs::read_link(path).expect("a target").display()))
                } else if kind.is_file() {
                    (name, fs::read_to_string(path).expect("its contents"))
                } else {
                    (name, format!("{kind:?}"))
                };
                assert!(found.insert(name, content).is_none());
            }
        }
        found
    }

    fn tree_of<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
        entries.map(|(name, content)| (name.to_owned(), content.to_owned())).into()
    }

    fn failed(why: &str) -> Result<(), Unapplied> {
        Err(Unapplied::Failed(why.into()))
    }

    fn refused(why: &str) -> Result<(), Unapplied> {
        Err(Unapplied::Refused(why.into()))
    }

    /// What becomes of `static`, which has `old` and `sub/` at first.
    fn check<const N: usize>(change: &Change, entries: [(&str, &str); N]) {
        let root = root();
        assert_eq!(apply(&opened(root.path()), change), Ok(()), "{change}");
        assert_eq!(tree(&root.path().join("static")), tree_of(entries), "{change}");
    }

    /// Nothing becomes of it.
    fn check_not(root: &TempDir, change: &Change, result: &Result<(), Unapplied>) {
        let before = tree(root.path());
        assert_eq!(&apply(&opened(root.path()), change), result, "{change}");
        assert_eq!(tree(root.path()), before, "{change}");
    }

    #[test]
    fn what_is_asked_for_is_done() {
        check(&Change::write("static/new", "1"), [("new", "1"), ("old", "old"), ("sub/", "")]);
        check(&Change::write("static/old", "new"), [("old", "new"), ("sub/", "")]);
        check(&Change::write("static/sub/new", ""), [("old", "old"), ("sub/", ""), ("sub/new", "")]);
        check(&Change::write("./static//sub/./new", "1"), [("old", "old"), ("sub/", ""), ("sub/new", "1")]);
        check(&Change::append("static/old", "er"), [("old", "older"), ("sub/", "")]);
        check(&Change::append("static/new", "er"), [("new", "er"), ("old", "old"), ("sub/", "")]);
        check(&Change::remove("static/old"), [("sub/", "")]);
        check(&Change::remove("static/absent"), [("old", "old"), ("sub/", "")]);
        check(&Change::remove("static/absent/absent"), [("old", "old"), ("sub/", "")]);
    }

    #[test]
    fn an_absolute_path_is_as_good() {
        let root = root();
        let path = root.path().join("static/new");
        assert_eq!(apply(&opened(root.path()), &Change::write(&path, "1")), Ok(()));
        assert_eq!(fs::read_to_string(path).expect("a file"), "1");
    }

    #[test]
    fn what_lies_outside_is_refused() {
        let root = root();
        fs::write(root.path().join("outside"), "").expect("a file");
        fs::create_dir(root.path().join("static2")).expect("a directory");
        symlink("..", root.path().join("static/up")).expect("a link");
        symlink("../outside", root.path().join("static/link")).expect("a link");
        for (path, why) in [
            ("outside", "`outside` lies outside what it may write (`static`)"),
            ("static2/a", "`static2/a` lies outside what it may write (`static`)"),
            ("/etc/passwd", "`/etc/passwd` lies outside what it may write (`static`)"),
            ("/static/a", "`/static/a` lies outside what it may write (`static`)"),
            ("", "`` lies outside what it may write (`static`)"),
            ("static/../outside", "`static/../outside` has a `..` in it"),
            ("static/sub/../old", "`static/sub/../old` has a `..` in it"),
            ("../outside", "`../outside` has a `..` in it"),
            ("static/..", "`static/..` has a `..` in it"),
            ("static/up/outside", "`static/up/outside` leads through the symbolic link `static/up`"),
            ("static/up/absent/a", "`static/up/absent/a` leads through the symbolic link `static/up`"),
        ] {
            for change in [Change::write(path, "1"), Change::append(path, "1"), Change::remove(path)] {
                check_not(&root, &change, &refused(why));
            }
        }
        check_not(&root, &Change::append("static/link", "1"), &refused("`static/link` is a symbolic link"));
    }

    #[test]
    fn without_a_folder_everything_is_refused() {
        let root = root();
        let folders = Folders::open(root.path(), &[], None).expect("nothing to open");
        let why = "`static/a`, and it was given no folder; say `.may_write(\"…\")`";
        assert_eq!(apply(&folders, &Change::write("static/a", "1")), refused(why));
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let root = root();
        let missing = "there is no folder `static/absent`; it has to be made beforehand";
        for path in ["static/sub", "static/sub/", "static/sub/.", "static/new/", "static"] {
            let why = |verb: &str| failed(&format!("cannot {verb} `{path}`: is a directory"));
            check_not(&root, &Change::write(path, "1"), &why("write"));
            check_not(&root, &Change::append(path, "1"), &why("append to"));
            check_not(&root, &Change::remove(path), &why("remove"));
        }
        for (path, why) in [
            ("static/absent/a", missing),
            ("static/absent/absent/a", missing),
            ("static/old/a", "`static/old` is not a folder"),
        ] {
            let why = |verb: &str| failed(&format!("cannot {verb} `{path}`: {why}"));
            check_not(&root, &Change::write(path, "1"), &why("write"));
            check_not(&root, &Change::append(path, "1"), &why("append to"));
        }
        let mode = Change::WriteFile { path: "static/a".into(), contents: "".into(), mode: Some(0o100_644) };
        check_not(&root, &mode, &failed("cannot write `static/a`: 100644 is no mode"));
        let long = format!("static/{}", "a".repeat(256));
        let why = format!("cannot write `{long}`: invalid filename");
        check_not(&root, &Change::write(&long, "1"), &failed(&why));
        let why = "cannot write `static/a\0b`: invalid input parameter";
        check_not(&root, &Change::write("static/a\0b", "1"), &failed(why));
    }

    #[test]
    fn a_long_name_is_written_like_a_short_one() {
        let root = root();
        let name = "a".repeat(255);
        assert_eq!(apply(&opened(root.path()), &Change::write(format!("static/{name}"), "1")), Ok(()));
        assert!(root.path().join("static").join(name).exists());
    }

    #[test]
    fn a_link_is_replaced_or_removed_and_not_what_it_points_to() {
        let root = root();
        let link = root.path().join("static/link");
        fs::write(root.path().join("outside"), "outside").expect("a file");
        for change in [Change::write("static/link", "new"), Change::remove("static/link")] {
            let _ = fs::remove_file(&link);
            symlink("../outside", &link).expect("a link");
            assert_eq!(apply(&opened(root.path()), &change), Ok(()));
            assert!(!link.is_symlink());
            assert_eq!(fs::read_to_string(root.path().join("outside")).expect("a file"), "outside");
        }
    }

    #[test]
    fn a_pipe_is_replaced_and_never_waited_for() {
        let root = root();
        let pipe = root.path().join("static/pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o644), 0).expect("a pipe");
        let append = Change::append("static/pipe", "1");
        check_not(&root, &append, &failed("cannot append to `static/pipe`: it is not a file"));
        assert_eq!(apply(&opened(root.path()), &Change::write("static/pipe", "1")), Ok(()));
        assert_eq!(fs::read_to_string(&pipe).expect("a file"), "1");
        let devices = Folders::open(Path::new("/"), &["dev".into()], None).expect("a folder");
        let why = "cannot append to `dev/null`: it is not a file";
        assert_eq!(apply(&devices, &Change::append("dev/null", "1")), failed(why));
    }

    #[test]
    fn a_given_folder_may_be_a_link_and_may_lie_anywhere() {
        let root = root();
        let elsewhere = tempfile::tempdir().expect("a directory");
        symlink(elsewhere.path(), root.path().join("linked")).expect("a link");
        fs::create_dir(root.path().join("inside")).expect("a directory");
        let inside = root.path().join("inside");
        let folders = [PathBuf::from("linked"), "../inside".into(), elsewhere.path().to_owned()];
        let folders = Folders::open(&root.path().join("static"), &folders, None);
        assert_eq!(folders.expect_err("not there").0, Path::new("linked"));
        let folders = [PathBuf::from("../linked"), "../inside".into(), elsewhere.path().to_owned()];
        let folders = Folders::open(&root.path().join("static"), &folders, None).expect("folders");
        for (path, file) in [
            (PathBuf::from("../linked/a"), elsewhere.path().join("a")),
            ("../inside/b".into(), inside.join("b")),
            (elsewhere.path().join("c"), elsewhere.path().join("c")),
        ] {
            assert_eq!(apply(&folders, &Change::write(path, "1")), Ok(()));
            assert!(file.exists());
        }
        let why = "`../inside/../static/a` has a `..` in it";
        assert_eq!(apply(&folders, &Change::write("../inside/../static/a", "1")), refused(why));
    }

    #[test]
    fn of_folders_in_each_other_the_inner_counts() {
        let root = root();
        symlink("../outside", root.path().join("static/inner")).expect("a link");
        fs::create_dir(root.path().join("outside")).expect("a directory");
        let folders = ["static".into(), "static/inner".into()];
        let folders = Folders::open(root.path(), &folders, None).expect("folders");
        assert_eq!(apply(&folders, &Change::write("static/inner/a", "1")), Ok(()));
        assert_eq!(tree(&root.path().join("outside")), tree_of([("a", "1")]));
    }

    #[test]
    fn a_folder_that_does_not_exist_is_named_and_nothing_is_made() {
        let root = root();
        for (path, kind) in
            [("static/absent", io::ErrorKind::NotFound), ("static/old", io::ErrorKind::NotADirectory)]
        {
            let folders = ["static".into(), path.into()];
            let (said, error) = Folders::open(root.path(), &folders, None).expect_err("it is not there");
            assert_eq!((said.as_path(), error.kind()), (Path::new(path), kind));
        }
        let folders = opened(root.path());
        fs::remove_dir_all(root.path().join("static")).expect("removed");
        let why = "cannot write `static/a`: its folder was removed after it had been opened, at the start";
        assert_eq!(apply(&folders, &Change::write("static/a", "1")), failed(why));
    }

    #[test]
    fn paths_are_compared_by_whole_names() {
        let check = |folder: &str, path: &str, rest: Option<&str>| {
            assert_eq!(below(Path::new("/srv"), Path::new(folder), Path::new(path)), rest.map(PathBuf::from));
        };
        check("static", "static/a", Some("a"));
        check("static", "./static//a/./b", Some("a/b"));
        check("static", "/srv/static/a", Some("a"));
        check("/srv/static", "static/a", Some("a"));
        check("static", "static/../a", Some("../a"));
        check("static", "static2/a", None);
        check("static", "Static/a", None);
        check("static", "a/../static/a", None);
        check(".", "a", Some("a"));
        check(".", "/etc/a", None);
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().expect("a file").permissions().mode() & 0o7777
    }

    #[test]
    fn a_file_has_the_mode_that_was_asked_for() {
        let root = root();
        let old = root.path().join("static/old");
        for (asked, is) in [(Some(0o600), 0o600), (None, 0o644), (Some(0o755), 0o755), (Some(0o666), 0o666)] {
            let change = Change::WriteFile { path: "static/old".into(), contents: "1".into(), mode: asked };
            assert_eq!(apply(&opened(root.path()), &change), Ok(()));
            assert_eq!(mode(&old), is);
        }
        assert_eq!(apply(&opened(root.path()), &Change::append("static/old", "2")), Ok(()));
        assert_eq!(apply(&opened(root.path()), &Change::append("static/new", "2")), Ok(()));
        assert_eq!([mode(&old), mode(&root.path().join("static/new"))], [0o666, 0o644]);
    }

    const AGAIN: &str = "COMBO_APPLY_TEST";

    /// The root, in a process made by [`again`].
    fn alone() -> Option<PathBuf> {
        std::env::var_os(AGAIN).map(PathBuf::from)
    }

    /// Runs one test of these in a process of its own, after a bit of shell.
    fn again(test: &str, shell: &str, root: &Path) -> Output {
        let (_, module) = module_path!().split_once("::").expect("a crate and modules");
        Command::new("sh")
            .args(["-c", &format!("{shell} exec \"$0\" \"$@\"")])
            .arg(std::env::current_exe().expect("this program"))
            .args([&format!("{module}::{test}"), "--exact", "--nocapture"])
            .env(AGAIN, root)
            .output()
            .expect("it is run")
    }

    fn passed(output: &Output) {
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
    }

    #[test]
    fn the_umask_does_not_matter() {
        if let Some(root) = alone() {
            assert_eq!(apply(&opened(&root), &Change::write("static/a", "1")), Ok(()));
            assert_eq!(apply(&opened(&root), &Change::append("static/b", "1")), Ok(()));
            return;
        }
        let root = root();
        passed(&again("the_umask_does_not_matter", "umask 077;", root.path()));
        for name in ["a", "b"] {
            assert_eq!(mode(&root.path().join("static").join(name)), 0o644);
        }
    }

    /// A limit on the length of files stands in for a full disk: both take a part of what is written
    /// and then no more, and this one needs no privileges and no mount.
    #[test]
    fn on_a_full_disk_the_old_file_stays_whole_and_nothing_is_left_over() {
        if let Some(root) = alone() {
            let (folders, much) = (opened(&root), "new".repeat(10_000));
            for path in ["static/old", "static/new"] {
                let write = apply(&folders, &Change::write(path, much.clone()));
                assert_eq!(write, failed(&format!("cannot write `{path}`: file too large")));
                let append = apply(&folders, &Change::append(path, much.clone()));
                assert_eq!(append, failed(&format!("cannot append to `{path}`: file too large")));
            }
            assert_eq!(apply(&folders, &Change::write("static/sub/little", "1")), Ok(()));
            return;
        }
        let root = root();
        passed(&again(
            "on_a_full_disk_the_old_file_stays_whole_and_nothing_is_left_over",
            "trap '' XFSZ; ulimit -f 1;",
            root.path(),
        ));
        let expected = tree_of([("old", "old"), ("sub/", ""), ("sub/little", "1")]);
        assert_eq!(tree(&root.path().join("static")), expected);
    }

    /// Not even root can make a file in `/proc`.
    #[test]
    fn a_folder_that_takes_no_file_is_an_outcome() {
        let folders = Folders::open(Path::new("/"), &["proc".into()], None).expect("a folder");
        for (change, verb) in
            [(Change::write("proc/combo", "1"), "write"), (Change::append("proc/combo", "1"), "append to")]
        {
            let Err(Unapplied::Failed(why)) = apply(&folders, &change) else { panic!("{change}") };
            assert!(why.starts_with(&format!("cannot {verb} `proc/combo`: ")), "{why}");
        }
    }

    #[test]
    fn what_a_killed_process_leaves_is_hidden_and_goes_at_the_next_write() {
        if let Some(root) = alone() {
            let place = |path: &str| match place(&opened(&root), Path::new(path), "write") {
                Ok(target) => target,
                Err(misplaced) => panic!("{:?}", Unapplied::from(misplaced)),
            };
            let (old, other) = (place("static/old"), place("static/other"));
            let mut staged = Staged::new(old.directory.changed()).expect("a temporary file");
            staged.fill(b"new", Mode::from_raw_mode(FILE)).expect("filled");
            let mut second = Staged::new(other.directory.changed()).expect("another");
            second.fill(b"hal", Mode::from_raw_mode(FILE)).expect("filled");
            // All that is left to do is to rename them.
            kill_process(getpid(), Signal::KILL).expect("the end");
            unreachable!();
        }
        let root = root();
        let test = "what_a_killed_process_leaves_is_hidden_and_goes_at_the_next_write";
        let output = again(test, "", root.path());
        assert_eq!(output.status.signal(), Some(Signal::KILL.as_raw()), "{output:?}");
        let left = [(".combo-0.tmp", "new"), (".combo-1.tmp", "hal"), ("old", "old"), ("sub/", "")];
        assert_eq!(tree(&root.path().join("static")), tree_of(left));
        assert_eq!(apply(&opened(root.path()), &Change::write("static/a", "1")), Ok(()));
        let expected = tree_of([("a", "1"), ("old", "old"), ("sub/", "")]);
        assert_eq!(tree(&root.path().join("static")), expected);
    }

    #[test]
    fn what_others_are_writing_is_left_to_them() {
        let root = root();
        let folder = File::open(root.path().join("static")).expect("a folder");
        let mut theirs = Staged::new(folder.as_fd()).expect("a temporary file");
        theirs.fill(b"theirs", Mode::from_raw_mode(FILE)).expect("filled");
        assert_eq!(apply(&opened(root.path()), &Change::write("static/a", "1")), Ok(()));
        theirs.rename(OsStr::new("b")).expect("it is still there");
        let expected = tree_of([("a", "1"), ("b", "theirs"), ("old", "old"), ("sub/", "")]);
        assert_eq!(tree(&root.path().join("static")), expected);
    }

    #[test]
    fn what_is_not_a_leftover_is_left_alone() {
        let root = root();
        let folder = root.path().join("static");
        fs::create_dir(folder.join(".combo-0.tmp")).expect("a directory");
        symlink("old", folder.join(".combo-1.tmp")).expect("a link");
        mknodat(CWD, folder.join(".combo-2.tmp"), FileType::Fifo, Mode::from_raw_mode(0o644), 0)
            .expect("a pipe");
        let before = tree(&folder);
        assert_eq!(apply(&opened(root.path()), &Change::write("static/old", "new")), Ok(()));
        let mut expected = before;
        let _ = expected.insert("old".into(), "new".into());
        assert_eq!(tree(&folder), expected);
    }

    #[test]
    fn a_reader_never_sees_half_a_file_however_many_write_it() {
        let root = root();
        let folders = opened(root.path());
        let path = root.path().join("static/old");
        fs::write(&path, "x".repeat(50_000)).expect("a file");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let read = fs::read(&path).expect("always there");
                    assert_eq!(read.len(), 50_000);
                    assert!(read.iter().all(|byte| *byte == read[0]));
                }
            });
            let writers = ["a", "b", "c", "d"].map(|letter| {
                let folders = folders.clone();
                scope.spawn(move || {
                    for _ in 0..25 {
                        let change = Change::write("static/old", letter.repeat(50_000));
                        assert_eq!(apply(&folders, &change), Ok(()));
                    }
                })
            });
            let ended = writers.map(thread::ScopedJoinHandle::join);
            done.store(true, Ordering::Relaxed);
            reader.join().expect("it saw nothing wrong");
            assert!(ended.iter().all(Result::is_ok));
        });
        assert_eq!(tree(&root.path().join("static")).len(), 2);
    }

    /// `sub` is a directory now and a link out of the folder then, `file` is a file and a link to one
    /// outside of it, changed all the time.
    #[test]
    fn nobody_can_swap_something_for_a_link_on_the_way() {
        let root = root();
        let (folder, outside) = (root.path().join("static"), root.path().join("outside"));
        fs::create_dir(&outside).expect("a directory");
        fs::write(outside.join("file"), "outside").expect("a file");
        fs::write(folder.join("file"), "").expect("a file");
        symlink("../outside", folder.join("link-sub")).expect("a link");
        symlink("../outside/file", folder.join("link-file")).expect("a link");
        let folders = opened(root.path());
        let (done, before) = (AtomicBool::new(false), tree(&outside));
        thread::scope(|scope| {
            let swapping = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for name in ["sub", "file"] {
                        let (there, link) = (folder.join(name), folder.join(format!("link-{name}")));
                        renameat_with(CWD, there, CWD, link, RenameFlags::EXCHANGE).expect("swapped");
                    }
                }
            });
            let (mut made, mut unmade, mut rounds) = (0, 0, 0);
            // Until it has met both often.
            while rounds < 300 || (made.min(unmade) < 50 && rounds < 30_000) {
                rounds += 1;
                for change in [
                    Change::write("static/sub/a", "1"),
                    Change::append("static/sub/b", "1"),
                    Change::remove("static/sub/file"),
                    Change::append("static/file", "1"),
                ] {
                    *if apply(&folders, &change).is_ok() { &mut made } else { &mut unmade } += 1;
                }
            }
            done.store(true, Ordering::Relaxed);
            swapping.join().expect("it swapped");
            assert!(made.min(unmade) >= 50, "{made} were made and {unmade} were not");
        });
        assert_eq!(tree(&outside), before);
    }

    /// With a layer: what is in it in the end. What is real stays as it is.
    fn check_layer<const N: usize>(changes: &[Change], entries: [(&str, &str); N]) {
        let (root, layer) = (root(), tempfile::tempdir().expect("a directory"));
        fs::write(root.path().join("static/sub/deep"), "deep").expect("a file");
        let before = tree(root.path());
        let folders = Folders::open(root.path(), &["static".into()], Some(layer.path())).expect("a folder");
        for change in changes {
            assert_eq!(apply(&folders, change), Ok(()), "{change}");
        }
        assert_eq!(tree(layer.path()), tree_of(entries), "{changes:?}");
        assert_eq!(tree(root.path()), before, "{changes:?}");
    }

    #[test]
    fn with_a_layer_only_the_layer_is_changed() {
        check_layer(&[], [("static/", "")]);
        check_layer(&[Change::write("static/old", "new")], [("static/", ""), ("static/old", "new")]);
        check_layer(
            &[Change::append("static/sub/deep", "er"), Change::append("static/sub/deep", "!")],
            [("static/", ""), ("static/sub/", ""), ("static/sub/deep", "deeper!")],
        );
        check_layer(
            &[Change::append("static/new", "1"), Change::append("static/new", "2")],
            [("static/", ""), ("static/new", "12")],
        );
        check_layer(&[Change::write("static/new", "1"), Change::remove("static/new")], [("static/", "")]);
        check_layer(&[Change::remove("static/absent")], [("static/", "")]);
        let removed = [("static/", ""), ("static/.wh.old", "")];
        check_layer(&[Change::remove("static/old")], removed);
        check_layer(&[Change::remove("static/old"), Change::remove("static/old")], removed);
        check_layer(&[Change::write("static/old", "new"), Change::remove("static/old")], removed);
        let again = [("static/", ""), ("static/old", "again")];
        check_layer(&[Change::remove("static/old"), Change::write("static/old", "again")], again);
        check_layer(&[Change::remove("static/old"), Change::append("static/old", "again")], again);
    }

    #[test]
    fn with_a_layer_the_same_is_refused_and_the_same_fails() {
        let (root, layer) = (root(), tempfile::tempdir().expect("a directory"));
        symlink("..", root.path().join("static/up")).expect("a link");
        symlink("old", root.path().join("static/link")).expect("a link");
        let layered = Folders::open(root.path(), &["static".into()], Some(layer.path())).expect("a folder");
        let real = opened(root.path());
        for path in [
            "outside",
            "static/../outside",
            "static/up/outside",
            "static/sub",
            "static/absent/a",
            "static/old/a",
        ] {
            let change = Change::write(path, "1");
            let applied = apply(&layered, &change);
            assert!(applied.is_err());
            assert_eq!(applied, apply(&real, &change));
        }
        for change in [Change::append("static/link", "1"), Change::remove("static/sub")] {
            let applied = apply(&layered, &change);
            assert!(applied.is_err());
            assert_eq!(applied, apply(&real, &change));
        }
        assert_eq!(tree(layer.path()), tree_of([("static/", "")]));
        let nowhere = Folders::open(root.path(), &["absent".into()], Some(layer.path()));
        assert_eq!(nowhere.expect_err("not there").1.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn folders_outside_the_root_have_their_place_in_the_layer() {
        let check = |folder: &str, place: &str| {
            let root = Path::new("/srv/app");
            assert_eq!(layered(root, &root.join(folder)), Path::new(place), "{folder}");
        };
        check("static", "static");
        check("a/./b", "a/b");
        check("/var/www", ".absolute/var/www");
        check("../shared", ".absolute/srv/shared");
        check("../../../../etc", ".absolute/etc");
        check(".", "");
    }
}
