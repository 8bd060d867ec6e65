//! Folders: what a job may write in, opened.
//!
//! Opened once and shared by all jobs that were given the same, so that many jobs hold few
//! descriptors. From there on everything is relative to the descriptors. A folder that was removed
//! and made again is opened again by its path; it may be a symbolic link only if it was one at first.
#![expect(clippy::disallowed_methods, reason = "this is where folders are opened on behalf of tasks")]

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use rustix::{
    fs::{CWD, Mode, OFlags, fstat, openat},
    io::Errno,
};

use super::{
    OUTSIDE,
    set::{Found, has_intents, recover},
    target::{DIRECTORY, Directory},
};

/// The folders that a job may write in, opened. A clone is cheap and shares them.
#[derive(Clone, Debug)]
pub(crate) struct Folders(Arc<Given>);

#[derive(Debug)]
struct Given {
    root: Arc<Path>,
    folders: Vec<Arc<Folder>>,
}

#[derive(Debug)]
pub(super) struct Folder {
    pub(super) said: PathBuf,
    /// Under the root, dots and all.
    pub(super) path: PathBuf,
    /// It was a symbolic link when it was opened first.
    linked: bool,
    real: ArcSwap<OwnedFd>,
    layer: Option<OwnedFd>,
    /// A set of changes was begun here and could not be finished.
    pub(super) unfinished: AtomicBool,
}

/// Folders that are being opened, for one job after the other.
///
/// With a layer (for tests of deployments) nothing real is changed: `root/x` is read where it is
/// and written at `layer/x`, a folder outside the root at `layer/.absolute/…`. A real file that was
/// removed is `.wh.NAME` there, empty, as in an OCI image layer.
#[derive(Debug)]
pub(crate) struct Opening<'a> {
    pub(crate) root: Arc<Path>,
    pub(crate) layer: Option<&'a Path>,
    folders: HashMap<PathBuf, Arc<Folder>>,
    given: HashMap<Vec<PathBuf>, Folders>,
}

impl<'a> Opening<'a> {
    pub(crate) fn new(root: &Path, layer: Option<&'a Path>) -> Self {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned()).into();
        Self { root, layer, folders: HashMap::new(), given: HashMap::new() }
    }

    /// Opens folders, which may be symbolic links themselves. Relative ones are under the root.
    ///
    /// # Errors
    ///
    /// The first folder that cannot be opened, as it was said, and why.
    pub(crate) fn open(&mut self, folders: &[PathBuf]) -> Result<Folders, (PathBuf, io::Error)> {
        if let Some(given) = self.given.get(folders) {
            return Ok(given.clone());
        }
        let opened: Result<Vec<_>, _> =
            folders.iter().map(|said| self.one(said).map_err(|error| (said.clone(), error))).collect();
        let opened = Folders(Arc::new(Given { root: self.root.clone(), folders: opened? }));
        let _ = self.given.insert(folders.to_owned(), opened.clone());
        Ok(opened)
    }

    fn one(&mut self, said: &Path) -> io::Result<Arc<Folder>> {
        if let Some(folder) = self.folders.get(said) {
            return Ok(folder.clone());
        }
        let path = self.root.join(said);
        let (real, linked) = match openat(CWD, &path, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            Err(Errno::NOTDIR | Errno::LOOP) => (openat(CWD, &path, DIRECTORY, Mode::empty())?, true),
            opened => (opened?, false),
        };
        let layer = match self.layer {
            None => None,
            Some(layer) => {
                let path = layer.join(layered(&self.root, &path));
                fs::create_dir_all(&path)?;
                Some(openat(CWD, &path, DIRECTORY, Mode::empty())?)
            }
        };
        let real = ArcSwap::from_pointee(real);
        let unfinished = AtomicBool::new(false);
        let folder = Arc::new(Folder { said: said.to_owned(), path, linked, real, layer, unfinished });
        let _ = self.folders.insert(said.to_owned(), folder.clone());
        Ok(folder)
    }

    /// Finishes the sets of changes that were begun and not finished when a process was killed. To be
    /// called when all have been opened, and before anything runs. Gives what was found, as sentences.
    pub(crate) fn finish(self) -> Vec<String> {
        let (mut said, mut left) = (Vec::new(), BTreeMap::new());
        let there: HashSet<_> =
            self.folders.values().filter(|folder| has_intents(folder)).map(Arc::as_ptr).collect();
        let concerned = |folders: &&Folders| folders.each().iter().any(|f| there.contains(&Arc::as_ptr(f)));
        for folders in self.given.values().filter(concerned) {
            for (intent, found) in recover(folders) {
                match found {
                    Found::Left(sentence) => drop(left.insert(intent, sentence)),
                    Found::Done(sentence) => {
                        drop(left.remove(&intent));
                        said.push(sentence);
                    }
                    Found::Stuck(sentence) => said.push(sentence),
                    Found::Nothing => {}
                }
            }
        }
        // What one job may not finish another may have.
        said.extend(left.into_iter().filter(|(intent, _)| intent.exists()).map(|(_, sentence)| sentence));
        said
    }
}

impl Folders {
    /// Opens folders for one job alone.
    #[cfg(test)]
    pub(crate) fn open(
        root: &Path,
        folders: &[PathBuf],
        layer: Option<&Path>,
    ) -> Result<Self, (PathBuf, io::Error)> {
        Opening::new(root, layer).open(folders)
    }

    pub(super) fn root(&self) -> &Path {
        &self.0.root
    }

    pub(super) fn each(&self) -> &[Arc<Folder>] {
        &self.0.folders
    }

    /// One has a set of changes that could not be finished.
    pub(super) fn unfinished(&self) -> bool {
        self.each().iter().any(|folder| folder.unfinished.load(Ordering::Relaxed))
    }

    /// Opens again those that were removed and made again since. And whether there were any.
    pub(super) fn reopen(&self) -> bool {
        let mut any = false;
        for folder in self.each().iter().filter(|folder| folder.is_gone()) {
            let flags = if folder.linked { DIRECTORY } else { DIRECTORY | OFlags::NOFOLLOW };
            if let Ok(opened) = openat(CWD, &folder.path, flags, Mode::empty()) {
                folder.real.store(Arc::new(opened));
                any = true;
            }
        }
        any
    }
}

impl Folder {
    /// It was removed since it was opened.
    pub(super) fn is_gone(&self) -> bool {
        fstat(self.real.load().as_ref()).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// To walk from.
    pub(super) fn directory(&self) -> Result<Directory, Errno> {
        let again = |fd: &OwnedFd| openat(fd, ".", DIRECTORY, Mode::empty());
        let real = Some(again(&self.real.load())?);
        Ok(Directory { real, layer: self.layer.as_ref().map(again).transpose()? })
    }
}

/// What is left of a path below a folder, if it lies there: whole names are compared, as they are
/// said. `..` below the folder is still in it. Both may be relative to the root.
pub(super) fn below(root: &Path, folder: &Path, path: &Path) -> Option<PathBuf> {
    root.join(path).strip_prefix(root.join(folder)).ok().map(Path::to_owned)
}

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
