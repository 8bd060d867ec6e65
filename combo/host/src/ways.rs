//! The way to a file -> the folders on it, each of them watched; and what the kernel tells of them.
//!
//! Links are followed as the kernel follows them, so that what is watched is what decides where a path leads. Who
//! waits for what is told is up to whoever listens.
#![expect(clippy::disallowed_methods, reason = "this is where links are read")]

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    ffi::OsString,
    fs, io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::inotify::{self, CreateFlags, Event, WatchFlags},
    io::Errno,
    time::Timespec,
};

/// As many symbolic links as the kernel follows.
const LINKS: u32 = 40;

/// What happens to a name in a folder.
const NAMES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::MASK_ADD)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::DONT_FOLLOW);

/// A name that is looked up on the way to a file, in a folder with this watch descriptor.
pub(crate) type Step = (i32, OsString);

/// Something that the kernel tells of folders, without waiting.
///
/// # Errors
///
/// There is none to be had, with what would help.
pub(crate) fn listen() -> io::Result<OwnedFd> {
    inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(no_inotify)
}

/// Takes a buffer full of what there is to tell. What comes in the meantime is for the next time, so that nobody can keep
/// whoever listens here.
///
/// # Errors
///
/// When the kernel has nothing to say any more.
pub(crate) fn hear(inotify: &OwnedFd, mut each: impl FnMut(&Event<'_>)) -> Result<(), Errno> {
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let mut told = inotify::Reader::new(inotify, &mut buffer);
    loop {
        match told.next() {
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            event => each(&event?),
        }
        if told.is_buffer_empty() {
            return Ok(());
        }
    }
}

/// What was found on the way to the files that are looked at in one go.
#[derive(Default)]
pub(crate) struct Walked {
    /// The watch of each folder, also for writing or not.
    folders: HashMap<(PathBuf, bool), Result<i32, Errno>>,
    names: HashMap<PathBuf, Found>,
    /// Folders that a file is no longer in. Their watches stay until all is done: they may be needed.
    pub(crate) left: BTreeSet<i32>,
}

/// What a name on the way is.
#[derive(Clone)]
enum Found {
    Link(PathBuf),
    Other,
    Nothing(Errno),
}

impl Walked {
    /// Goes to a file as the kernel does, name by name. Each folder is watched before a name is looked
    /// up in it: if that is exchanged a moment later, it is heard of.
    ///
    /// The error is what hides changes: a folder that is not there or cannot be watched. One that may
    /// only be passed does not count.
    pub(crate) fn walk(&mut self, inotify: &OwnedFd, path: &Path) -> (BTreeSet<Step>, Result<(), Errno>) {
        let (mut trail, mut end) = (BTreeSet::new(), Ok(()));
        let (mut at, mut links) = (PathBuf::from("/"), 0);
        let mut names: Vec<OsString> = backwards(path).collect();
        while let Some(name) = names.pop() {
            if name == ".." {
                let _ = at.pop();
                continue;
            }
            let last = names.is_empty();
            let watched = self.watch(inotify, &at, last);
            let here = at.join(&name);
            if let Ok(wd) = watched {
                let _ = trail.insert((wd, name));
            }
            let found = self.look_up(&here, last);
            match watched {
                Err(Errno::ACCESS) if !last && matches!(found, Found::Other) => {}
                watched => end = end.and(watched.map(drop)),
            }
            match found {
                Found::Nothing(Errno::NOENT) if last => break,
                Found::Nothing(errno) => return (trail, end.and(Err(errno))),
                Found::Other => at = here,
                Found::Link(target) => {
                    links += 1;
                    if links > LINKS {
                        break;
                    }
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    names.extend(backwards(&target));
                }
            }
        }
        (trail, end)
    }

    fn watch(&mut self, inotify: &OwnedFd, folder: &Path, written: bool) -> Result<i32, Errno> {
        match self.folders.entry((folder.to_owned(), written)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let flags = if written { NAMES.union(WatchFlags::CLOSE_WRITE) } else { NAMES };
                *new.insert(inotify::add_watch(inotify, folder, flags))
            }
        }
    }

    fn look_up(&mut self, path: &Path, last: bool) -> Found {
        let found = || match fs::read_link(path) {
            Ok(target) => Found::Link(target),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::INVAL) => Found::Other,
                errno => Found::Nothing(errno.unwrap_or(Errno::IO)),
            },
        };
        // The last one is this file's own.
        if last { found() } else { self.names.entry(path.to_owned()).or_insert_with(found).clone() }
    }
}

/// The names of a path, the last one first.
fn backwards(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    })
}

/// For how long something waits at most.
pub(crate) fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

fn no_inotify(errno: Errno) -> io::Error {
    let why =
        "there are too many: a higher sysctl `fs.inotify.max_user_instances`, or more open files, would help";
    match errno {
        Errno::MFILE => io::Error::new(io::Error::from(errno).kind(), why),
        errno => errno.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_help_is_said() {
        let error = no_inotify(Errno::MFILE).to_string();
        assert!(error.contains("`fs.inotify.max_user_instances`"), "{error}");
    }
}
