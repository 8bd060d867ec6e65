//! The folders on the way to kept files: whether anything has happened in them since somebody looked.
//!
//! Nobody waits for what inotify tells. Whoever is about to believe what was seen asks whether there is something to
//! tell, which costs a sixth of a look at the file: the kernel has it ready before the call that changed something
//! returns. It tells nothing of what is written through a mapping, by `io_submit`, or by another name or descriptor (a
//! hard link), and of what is mounted or unmounted; so nothing is to be believed for long.
#![expect(clippy::disallowed_methods, reason = "this is where folders are watched, without waiting")]

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use rustix::{
    fs::{
        Mode, OFlags, ResolveFlags,
        inotify::{self, ReadFlags, WatchFlags},
        openat2,
    },
    io::{Errno, ioctl_fionread},
};

use super::path::joined;
use crate::ways;

/// What happens to the names in a folder, and to what they stand for.
const EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::ONLYDIR);

/// Folders watched at most; when there are more, those of now are.
const MOST: usize = 1_024;

/// Files at most that it is known of when they were written to.
const FILES: usize = 4_096;

/// How often those of before are given up for those of now.
const TERM: Duration = Duration::from_secs(60);

/// What is told one process of the folders of all its mounts, for a user has not many inotify instances.
#[derive(Debug)]
struct Listening {
    inotify: OwnedFd,
    /// Odd while somebody takes what there is to tell, another one ever after.
    turn: AtomicU64,
    folders: Mutex<Folders>,
}

/// The folders that are watched.
#[derive(Debug)]
struct Folders {
    /// Their ways below each root, and the turn since which each is watched; none without those that it leads through.
    ways: HashMap<u64, HashMap<Box<str>, u64>>,
    /// Files in them, by root and path, and the turn since which each was not written to.
    written: HashMap<(u64, String), u64>,
    /// The same for all others.
    others: u64,
    /// By watch, the root and the way of each: more than one where mounts share a folder.
    watches: HashMap<i32, Vec<(u64, Box<str>)>>,
    since: Instant,
    roots: u64,
}

/// The folders below one root.
#[derive(Debug)]
pub(super) struct Watched {
    listening: Arc<Listening>,
    root: u64,
}

/// Whether what happens on the way to a file is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Since a turn before the one that lasts, or longer.
    Yes,
    /// From the next turn on.
    FromNow,
    /// Others are just finding out.
    NotNow,
    Never,
}

impl Watched {
    /// For another root; nothing where there is no inotify.
    pub(super) fn new() -> Option<Self> {
        static SHARED: Mutex<Weak<Listening>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let listening = match shared.upgrade() {
            Some(listening) => listening,
            None => {
                let listening = Arc::new(Listening::new().ok()?);
                *shared = Arc::downgrade(&listening);
                listening
            }
        };
        drop(shared);
        let mut folders = listening.folders();
        folders.roots += 1;
        let root = folders.roots;
        drop(folders);
        Some(Self { listening, root })
    }

    /// The turn of now: who had the same before has missed nothing. None if that cannot be said.
    pub(super) fn turn(&self) -> Option<u64> {
        self.listening.turn()
    }

    /// Whether what happens in the folders on the way to a file below `folder` is told; has them watched if they are not, one
    /// after the other. None of them may be a link.
    pub(super) fn told(&self, folder: BorrowedFd<'_>, path: &str) -> Told {
        let Some(mut folders) = self.listening.try_folders() else { return Told::NotNow };
        if on_the_way(path).all(|way| folders.has(self.root, way)) {
            return Told::Yes;
        }
        match self.listening.follow(&mut folders, self.root, folder, path) {
            Ok(()) => Told::FromNow,
            Err(_) => Told::Never,
        }
    }

    /// Something has happened that is not told yet.
    pub(super) fn has_changed(&self) {
        // Turns are begun only with the folders in one's hands.
        let _folders = self.listening.folders();
        let _ = self.listening.end_turn();
        self.listening.begin_turn();
    }

    /// The turn since which a file was not written to. None where that is not told, or others are just finding out.
    ///
    /// Its times are no proof: they change before its contents do, and whoever writes may be held up in between.
    pub(super) fn unwritten(&self, path: &str) -> Option<u64> {
        let folders = self.listening.try_folders()?;
        let watched = *folders.ways.get(&self.root)?.get(path.rsplit_once('/').map_or("", |(way, _)| way))?;
        let written = *folders.written.get(&(self.root, path.to_owned())).unwrap_or(&folders.others);
        Some(watched.max(written))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.listening.folders().forget(self.root, "", &self.listening.inotify);
    }
}

impl Listening {
    fn new() -> io::Result<Self> {
        let inotify = ways::listen()?;
        // A sandbox may not permit it.
        let _ = ioctl_fionread(&inotify)?;
        let folders = Folders {
            ways: HashMap::new(),
            written: HashMap::new(),
            others: 0,
            watches: HashMap::new(),
            since: Instant::now(),
            roots: 0,
        };
        Ok(Self { inotify, turn: AtomicU64::new(2), folders: Mutex::new(folders) })
    }

    fn folders(&self) -> MutexGuard<'_, Folders> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_folders(&self) -> Option<MutexGuard<'_, Folders>> {
        match self.folders.try_lock() {
            Ok(folders) => Some(folders),
            Err(TryLockError::Poisoned(folders)) => Some(folders.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn turn(&self) -> Option<u64> {
        // In this order: whoever has taken what there was to tell has made it another turn before.
        if ioctl_fionread(&self.inotify) != Ok(0) {
            self.hear()?;
        }
        let turn = self.turn.load(SeqCst);
        turn.is_multiple_of(2).then_some(turn)
    }

    /// Takes a buffer full of what there is to tell; nothing if somebody else does or it cannot be read, and then
    /// nothing is believed any more.
    fn hear(&self) -> Option<()> {
        let mut folders = self.try_folders()?;
        let next = self.end_turn();
        let heard = ways::hear(&self.inotify, |event| {
            let (watch, what) = (event.wd(), event.events());
            let name = event.file_name().and_then(|name| name.to_str().ok());
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                folders.clear(&self.inotify);
            } else if let (Some(name), true) = (name, what.contains(ReadFlags::MODIFY)) {
                folders.written(watch, name, next);
            } else if what.contains(ReadFlags::IGNORED) {
                folders.gone(watch, None, &self.inotify);
            } else if what.contains(ReadFlags::ISDIR) && name.is_some() {
                // By its name there is another folder now, or may be.
                folders.gone(watch, name, &self.inotify);
            }
        });
        heard.ok()?;
        self.begin_turn();
        Some(())
    }

    /// Nothing is believed from now on, and what was seen before never again. Gives the next turn, which others may begin
    /// only with the folders in their hands.
    fn end_turn(&self) -> u64 {
        if self.turn.load(SeqCst).is_multiple_of(2) {
            let _ = self.turn.fetch_add(1, SeqCst);
        }
        self.turn.load(SeqCst) + 1
    }

    fn begin_turn(&self) {
        let _ = self.turn.fetch_add(1, SeqCst);
    }

    fn follow(
        &self,
        folders: &mut Folders,
        root: u64,
        folder: BorrowedFd<'_>,
        path: &str,
    ) -> Result<(), Errno> {
        let follow = |folders: &mut Folders| {
            on_the_way(path).try_for_each(|way| match folders.has(root, way) {
                true => Ok(()),
                false => self.add(folders, root, folder, way),
            })
        };
        match follow(folders) {
            // From the root again, for what was given up may be what this one needs.
            Err(Errno::NOSPC) if self.begin_anew(folders) => follow(folders),
            followed => followed,
        }
    }

    fn add(&self, folders: &mut Folders, root: u64, folder: BorrowedFd<'_>, way: &str) -> Result<(), Errno> {
        let within = Path::new(if way.is_empty() { "." } else { way });
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::CACHED;
        let opened = openat2(folder, within, flags, Mode::empty(), resolve)?;
        // Watches are set by name alone, and just this folder is meant.
        let name = format!("/proc/self/fd/{}", opened.as_raw_fd());
        let watch = inotify::add_watch(&self.inotify, name, EVENTS)?;
        let is_full = folders.watches.len() >= MOST;
        match folders.watches.entry(watch) {
            Entry::Occupied(mut of) => of.get_mut().push((root, way.into())),
            Entry::Vacant(_) if is_full => {
                let _ = inotify::remove_watch(&self.inotify, watch);
                return Err(Errno::NOSPC);
            }
            Entry::Vacant(new) => drop(new.insert(vec![(root, way.into())])),
        }
        // Whoever has looked before may have missed something.
        let next = self.end_turn();
        let _ = folders.ways.entry(root).or_default().insert(way.into(), next);
        self.begin_turn();
        Ok(())
    }

    /// Gives up all watches, unless that was a moment ago; says whether it did.
    fn begin_anew(&self, folders: &mut Folders) -> bool {
        if folders.since.elapsed() < TERM {
            return false;
        }
        let _ = self.end_turn();
        folders.clear(&self.inotify);
        folders.since = Instant::now();
        self.begin_turn();
        true
    }
}

impl Folders {
    fn has(&self, root: u64, way: &str) -> bool {
        self.ways.get(&root).is_some_and(|ways| ways.contains_key(way))
    }

    /// Something was written into what was called so in a folder that is watched.
    fn written(&mut self, watch: i32, name: &str, next: u64) {
        let Some(of) = self.watches.get(&watch) else { return };
        if self.written.len() + of.len() > FILES {
            self.written.clear();
            self.others = next;
        }
        self.written.extend(of.iter().map(|(root, way)| ((*root, joined(way, name)), next)));
    }

    /// Ends all watches.
    fn clear(&mut self, inotify: &OwnedFd) {
        for watch in self.watches.drain().map(|(watch, _)| watch) {
            // It fails if the folder is gone.
            let _ = inotify::remove_watch(inotify, watch);
        }
        self.ways.clear();
    }

    /// What was called so in a folder that is watched, or that folder itself, is not what is there.
    fn gone(&mut self, watch: i32, name: Option<&str>, inotify: &OwnedFd) {
        let Some(of) = self.watches.get(&watch) else { return };
        let gone = |(root, way): &(u64, Box<str>)| {
            (*root, name.map_or_else(|| way.to_string(), |name| joined(way, name)))
        };
        for (root, way) in of.iter().map(gone).collect::<Vec<_>>() {
            self.forget(root, &way, inotify);
        }
        if name.is_none() {
            drop(self.watches.remove(&watch));
        }
    }

    /// Ends the watches of a folder and of all below it.
    fn forget(&mut self, root: u64, way: &str, inotify: &OwnedFd) {
        // Whoever is not watched has nobody below it that is.
        let Some(ways) = self.ways.get_mut(&root).filter(|ways| ways.contains_key(way)) else { return };
        let is_of = |other: &str| {
            let below = other.strip_prefix(way);
            below.is_some_and(|below| way.is_empty() || below.is_empty() || below.starts_with('/'))
        };
        ways.retain(|other, _| !is_of(other));
        if ways.is_empty() {
            drop(self.ways.remove(&root));
        }
        self.watches.retain(|watch, of| {
            of.retain(|(other, way)| *other != root || !is_of(way));
            if of.is_empty() {
                // It fails if the folder is gone.
                let _ = inotify::remove_watch(inotify, *watch);
            }
            !of.is_empty()
        });
    }
}

/// The folders that the name of a file is looked up through, from the root on.
fn on_the_way(path: &str) -> impl Iterator<Item = &str> {
    [""].into_iter().chain(path.match_indices('/').map(|(end, _)| &path[..end]))
}

#[cfg(test)]
impl Watched {
    /// Of which nobody else hears anything.
    pub(super) fn alone() -> Self {
        Self { listening: Arc::new(Listening::new().unwrap()), root: 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::{
            fd::AsFd,
            unix::fs::{FileExt, PermissionsExt, symlink},
        },
        thread,
    };

    use rustix::fs::{CWD, open};
    use tempfile::TempDir;

    use super::*;

    const FILE: &str = "a/b/c";

    /// A folder with `a/b/c` and `other/b/c` in it, of which the first is watched.
    struct Case {
        folder: TempDir,
        opened: OwnedFd,
        watched: Watched,
    }

    impl Case {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            for path in [FILE, "other/b/c"] {
                let path = folder.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "contents").unwrap();
            }
            let opened = open(folder.path(), OFlags::PATH, Mode::empty()).unwrap();
            let case = Self { folder, opened, watched: Watched::alone() };
            assert!(!case.knows(FILE));
            // Whoever has looked before has seen what may have changed since, unheard.
            case.told(|case| assert!(case.follows(FILE)));
            assert!(case.knows(FILE));
            case
        }

        fn at(&self, path: &str) -> std::path::PathBuf {
            self.folder.path().join(path)
        }

        /// Whether all folders on the way are watched.
        fn knows(&self, path: &str) -> bool {
            let folders = self.watched.listening.folders();
            on_the_way(path).all(|way| folders.has(self.watched.root, way))
        }

        /// Whether they are, or can be.
        fn follows(&self, path: &str) -> bool {
            let known = self.knows(path);
            match self.watched.told(self.opened.as_fd(), path) {
                Told::Yes => known,
                Told::FromNow => !known,
                Told::NotNow | Told::Never => false,
            }
        }

        fn watches(&self) -> usize {
            self.watched.listening.folders().watches.len()
        }

        /// Has all taken that there is to tell, a buffer full at a time.
        fn hear_all(&self) {
            while ioctl_fionread(&self.watched.listening.inotify) != Ok(0) {
                let _ = self.watched.turn();
            }
        }

        /// Another turn has come when this has returned, and it stays.
        #[track_caller]
        fn told(&self, happens: impl FnOnce(&Self)) {
            self.hear_all();
            let before = self.watched.turn().expect("a turn");
            assert_eq!(self.watched.turn(), Some(before));
            happens(self);
            assert_ne!(self.watched.turn().expect("a turn"), before);
        }
    }

    #[test]
    fn whatever_happens_on_the_way_is_told_at_once() {
        #[track_caller]
        fn check(knows: bool, happens: impl FnOnce(&Case)) {
            let case = Case::new();
            case.told(happens);
            assert_eq!(case.knows(FILE), knows);
            // What is there by then is followed, if it can be.
            if case.follows(FILE) {
                case.told(|case| fs::write(case.at(FILE), "again").unwrap());
            }
        }
        let next = |case: &Case| fs::write(case.at("next"), "next").unwrap();
        let written = |case: &Case| File::options().write(true).open(case.at(FILE)).unwrap();
        check(true, |case| fs::write(case.at(FILE), "new").unwrap());
        check(true, |case| written(case).write_all_at(b"N", 3).unwrap());
        check(true, |case| written(case).set_len(2).unwrap());
        check(true, |case| written(case).set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap());
        check(true, |case| fs::set_permissions(case.at(FILE), PermissionsExt::from_mode(0o000)).unwrap());
        check(true, |case| fs::remove_file(case.at(FILE)).unwrap());
        check(true, |case| fs::rename(case.at(FILE), case.at("elsewhere")).unwrap());
        check(true, |case| {
            next(case);
            fs::rename(case.at("next"), case.at(FILE)).unwrap();
        });
        check(true, |case| fs::hard_link(case.at(FILE), case.at("a/b/d")).unwrap());
        check(true, |case| fs::create_dir(case.at("a/another")).unwrap());
        check(true, |case| fs::remove_dir_all(case.at("other")).unwrap());
        check(false, |case| fs::rename(case.at("a"), case.at("gone")).unwrap());
        check(false, |case| fs::rename(case.at("a/b"), case.at("b")).unwrap());
        check(false, |case| fs::remove_dir_all(case.at("a")).unwrap());
        check(false, |case| {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            rustix::fs::renameat_with(CWD, case.at("a"), CWD, case.at("other"), flags).unwrap();
        });
        check(false, |case| {
            fs::rename(case.at("a"), case.at("gone")).unwrap();
            symlink("other", case.at("a")).unwrap();
        });
    }

    #[test]
    fn what_has_moved_away_is_no_longer_of_interest() {
        let case = Case::new();
        fs::rename(case.at("a"), case.at("gone")).unwrap();
        fs::rename(case.at("other"), case.at("a")).unwrap();
        let _ = case.watched.turn();
        assert!(!case.knows(FILE) && case.follows(FILE) && case.knows(FILE));
        case.told(|case| fs::write(case.at(FILE), "new").unwrap());
    }

    #[test]
    fn a_way_through_links_or_to_nowhere_is_not_followed() {
        let case = Case::new();
        symlink("a", case.at("link")).unwrap();
        for path in ["link/b/c", "none/c", "a/b/c/d", "../c"] {
            assert!(!case.follows(path) && !case.knows(path), "{path}");
        }
        assert!(case.follows("no-file") && case.knows("a/b/no-file"));
    }

    #[test]
    fn when_too_much_happens_nothing_is_believed() {
        let case = Case::new();
        let fits: u32 =
            fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
        case.told(|case| {
            for _ in 0..=fits / 2 {
                fs::rename(case.at("a/b/c"), case.at("a/b/d")).unwrap();
                fs::rename(case.at("a/b/d"), case.at("a/b/c")).unwrap();
            }
            fs::rename(case.at("a"), case.at("gone")).unwrap();
            case.hear_all();
            assert!(!case.knows(FILE));
        });
    }

    #[test]
    fn nobody_believes_anything_while_another_takes_what_is_told() {
        let case = Case::new();
        let held = case.watched.listening.folders();
        assert!(case.watched.turn().is_some());
        fs::write(case.at(FILE), "new").unwrap();
        assert_eq!(case.watched.turn(), None);
        assert_eq!(case.watched.told(case.opened.as_fd(), "other/b/c"), Told::NotNow);
        drop(held);
        assert!(case.watched.turn().is_some());
    }

    #[test]
    fn there_are_only_so_many_watches_and_those_of_now() {
        let case = Case::new();
        let path = |at: usize| format!("many/{at}/file");
        (0..MOST).for_each(|at| fs::create_dir_all(case.at(&format!("many/{at}"))).unwrap());
        case.hear_all();
        let followed = (0..MOST).filter(|at| case.follows(&path(*at))).count();
        // The root, `a`, `b` and `many` are watched, too.
        assert_eq!((followed, case.watches()), (MOST - 4, MOST));
        assert!(case.follows(FILE) && !case.follows(&path(MOST - 1)));
        // Others that come and go change nothing about that.
        fs::create_dir(case.at("many/other")).unwrap();
        fs::rename(case.at("many/other"), case.at("other/other")).unwrap();
        case.hear_all();
        assert_eq!((case.knows(FILE), case.knows(&path(7)), case.watches()), (true, true, MOST));
        // Of what is gone or elsewhere no watch is left.
        fs::remove_dir_all(case.at("many/0")).unwrap();
        fs::rename(case.at("many/1"), case.at("1")).unwrap();
        case.hear_all();
        assert_eq!(case.watches(), MOST - 2);
        assert!(case.follows(&path(MOST - 1)) && case.follows(&path(MOST - 2)));
        assert!(!case.follows(&path(MOST - 3)) && case.watches() == MOST);
        // A minute later those of now are watched.
        let before = case.watched.turn();
        case.watched.listening.folders().since -= TERM;
        assert!(case.follows(&path(MOST - 3)) && !case.knows(FILE));
        assert_eq!(case.watches(), 3);
        assert_ne!(case.watched.turn(), before);
        case.hear_all();
        case.told(|case| fs::write(case.at(&path(MOST - 3)), "new").unwrap());
    }

    #[test]
    fn mounts_may_share_a_folder_and_one_may_go() {
        let case = Case::new();
        let listening = case.watched.listening.clone();
        let other = Watched { listening: listening.clone(), root: 7 };
        let opened = open(case.at("a"), OFlags::PATH, Mode::empty()).unwrap();
        assert_eq!(other.told(opened.as_fd(), "b/c"), Told::FromNow);
        assert_eq!(case.watches(), 3);
        drop(other);
        assert!(case.watches() == 3 && case.knows(FILE));
        case.told(|case| fs::write(case.at(FILE), "new").unwrap());
        drop(case);
        assert!(listening.folders().watches.is_empty() && listening.folders().ways.is_empty());
    }

    /// Many ask and many change; who has the turn of before has missed nothing.
    #[test]
    fn no_change_is_missed_in_a_crowd() {
        let case = Case::new();
        let (case, over) = (&case, &AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..2 {
                let _ = scope.spawn(|| {
                    while over.load(SeqCst) == 0 {
                        let _ = case.watched.turn();
                    }
                });
            }
            let path = case.at(FILE);
            let _over = Over(over);
            for round in 0..5_000_u32 {
                let before = loop {
                    if let Some(turn) = case.watched.turn() {
                        break turn;
                    }
                };
                fs::write(&path, round.to_string()).unwrap();
                assert_ne!(case.watched.turn(), Some(before), "{round}");
            }
        });
    }

    /// Ends the others, however this ends.
    struct Over<'a>(&'a AtomicU64);

    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(1, SeqCst);
        }
    }

    #[test]
    fn all_roots_of_a_process_have_one_instance() {
        let [one, two] = [Watched::new().unwrap(), Watched::new().unwrap()];
        assert!(Arc::ptr_eq(&one.listening, &two.listening));
        assert_ne!(one.root, two.root);
    }
}
