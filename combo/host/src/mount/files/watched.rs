//! The folders on the way to kept files: whether anything has happened in them since somebody looked.
//!
//! Nobody waits for what inotify tells. Whoever is about to believe what was seen asks whether there is something to
//! tell, which costs a sixth of a look at the file: the kernel has it ready before the call that changed something
//! returns. It tells nothing of what is written through a mapping or by another name (a hard link), and of what is
//! mounted over a folder; so nothing is to be believed for long.
#![expect(clippy::disallowed_methods, reason = "this is where folders are watched, without waiting")]

use std::{
    collections::{HashMap, HashSet},
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

/// How often those of before are given up for those of now.
const TERM: Duration = Duration::from_secs(60);

/// The folders of one process that are watched: of all mounts, for a user has not many inotify instances.
#[derive(Debug)]
struct Watch {
    inotify: OwnedFd,
    /// Odd while somebody takes what there is to tell, another one ever after.
    turn: AtomicU64,
    known: Mutex<Known>,
}

/// What is watched already.
#[derive(Debug)]
struct Known {
    /// By root.
    folders: HashMap<u64, HashSet<Box<str>>>,
    watches: HashSet<i32>,
    since: Instant,
    roots: u64,
}

/// The folders below one root.
#[derive(Debug)]
pub(super) struct Watched {
    watch: Arc<Watch>,
    root: u64,
}

impl Watched {
    /// For another root; nothing where there is no inotify.
    pub(super) fn new() -> Option<Self> {
        static SHARED: Mutex<Weak<Watch>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = match shared.upgrade() {
            Some(watch) => watch,
            None => {
                let watch = Arc::new(Watch::new().ok()?);
                *shared = Arc::downgrade(&watch);
                watch
            }
        };
        drop(shared);
        let mut known = watch.known();
        known.roots += 1;
        let root = known.roots;
        drop(known);
        Some(Self { watch, root })
    }

    /// The turn of now: who had the same before has missed nothing. None if that cannot be said.
    pub(super) fn turn(&self) -> Option<u64> {
        self.watch.turn()
    }

    /// Whether the folders on the way to a file are watched.
    pub(super) fn knows(&self, path: &str) -> bool {
        let known = self.watch.known();
        known.folders.get(&self.root).is_some_and(|folders| on_the_way(path).all(|way| folders.contains(way)))
    }

    /// Watches the folders on the way to a file below `folder`, one after the other; says whether it could. None of
    /// them may be a link.
    pub(super) fn follow(&self, folder: BorrowedFd<'_>, path: &str) -> bool {
        let Some(mut known) = self.watch.try_known() else { return false };
        let (root, watch) = (self.root, &self.watch);
        let is_new =
            |known: &Known, way: &str| !known.folders.get(&root).is_some_and(|folders| folders.contains(way));
        // Room for all of them at once: what is given up may be what this one needs.
        let new = on_the_way(path).filter(|way| is_new(&known, way)).count();
        if known.watches.len() + new > MOST && !watch.begin_anew(&mut known) {
            return false;
        }
        on_the_way(path).all(|way| !is_new(&known, way) || watch.add(&mut known, root, folder, way).is_ok())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.watch.known().folders.remove(&self.root));
    }
}

impl Watch {
    fn new() -> io::Result<Self> {
        let inotify = ways::listen()?;
        let known =
            Known { folders: HashMap::new(), watches: HashSet::new(), since: Instant::now(), roots: 0 };
        Ok(Self { inotify, turn: AtomicU64::new(2), known: Mutex::new(known) })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_known(&self) -> Option<MutexGuard<'_, Known>> {
        match self.known.try_lock() {
            Ok(known) => Some(known),
            Err(TryLockError::Poisoned(known)) => Some(known.into_inner()),
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
        let mut known = self.try_known()?;
        self.end_turn();
        let Known { folders, watches, .. } = &mut *known;
        let heard = ways::hear(&self.inotify, |event| {
            let what = event.events();
            if what.contains(ReadFlags::IGNORED) {
                let _ = watches.remove(&event.wd());
            }
            // By its name there is another folder now, or may be; of what is watched no more, its folder tells.
            if what.intersects(ReadFlags::ISDIR | ReadFlags::QUEUE_OVERFLOW | ReadFlags::UNMOUNT) {
                folders.clear();
            }
        });
        heard.ok()?;
        self.begin_turn();
        Some(())
    }

    /// Nothing is believed from now on, and what was seen before never again.
    fn end_turn(&self) {
        if self.turn.load(SeqCst).is_multiple_of(2) {
            let _ = self.turn.fetch_add(1, SeqCst);
        }
    }

    fn begin_turn(&self) {
        let _ = self.turn.fetch_add(1, SeqCst);
    }

    fn add(&self, known: &mut Known, root: u64, folder: BorrowedFd<'_>, way: &str) -> Result<(), Errno> {
        let within = Path::new(if way.is_empty() { "." } else { way });
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::CACHED;
        let opened = openat2(folder, within, flags, Mode::empty(), resolve)?;
        // Watches are set by name alone, and just this folder is meant.
        let name = format!("/proc/self/fd/{}", opened.as_raw_fd());
        let _ = known.watches.insert(inotify::add_watch(&self.inotify, name, EVENTS)?);
        let _ = known.folders.entry(root).or_default().insert(way.into());
        Ok(())
    }

    /// Gives up all watches, unless that was a moment ago; says whether it did.
    fn begin_anew(&self, known: &mut Known) -> bool {
        if known.since.elapsed() < TERM {
            return false;
        }
        self.end_turn();
        for watch in known.watches.drain() {
            // It fails if the folder is gone.
            let _ = inotify::remove_watch(&self.inotify, watch);
        }
        known.folders.clear();
        known.since = Instant::now();
        self.begin_turn();
        true
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
        Self { watch: Arc::new(Watch::new().unwrap()), root: 0 }
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
            assert!(!case.watched.knows(FILE));
            assert!(case.follows(FILE) && case.watched.knows(FILE));
            case
        }

        fn at(&self, path: &str) -> std::path::PathBuf {
            self.folder.path().join(path)
        }

        fn follows(&self, path: &str) -> bool {
            self.watched.follow(self.opened.as_fd(), path)
        }

        /// Has all taken that there is to tell, a buffer full at a time.
        fn hear_all(&self) {
            while ioctl_fionread(&self.watched.watch.inotify) != Ok(0) {
                let _ = self.watched.turn();
            }
        }

        /// Another turn has come when this has returned, and it stays.
        #[track_caller]
        fn told(&self, happens: impl FnOnce(&Self)) {
            let before = self.watched.turn().expect("a turn");
            assert_eq!(self.watched.turn(), Some(before));
            happens(self);
            let after = self.watched.turn().expect("a turn");
            assert_ne!(after, before);
            assert_eq!(self.watched.turn(), Some(after));
        }
    }

    #[test]
    fn whatever_happens_on_the_way_is_told_at_once() {
        #[track_caller]
        fn check(knows: bool, happens: impl FnOnce(&Case)) {
            let case = Case::new();
            case.told(happens);
            assert_eq!(case.watched.knows(FILE), knows);
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
        assert!(!case.watched.knows(FILE) && case.follows(FILE) && case.watched.knows(FILE));
        case.told(|case| fs::write(case.at(FILE), "new").unwrap());
    }

    #[test]
    fn a_way_through_links_or_to_nowhere_is_not_followed() {
        let case = Case::new();
        symlink("a", case.at("link")).unwrap();
        for path in ["link/b/c", "none/c", "a/b/c/d", "../c"] {
            assert!(!case.follows(path) && !case.watched.knows(path), "{path}");
        }
        assert!(case.follows("no-file") && case.watched.knows("a/b/no-file"));
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
            assert!(!case.watched.knows(FILE));
        });
    }

    #[test]
    fn nobody_believes_anything_while_another_takes_what_is_told() {
        let case = Case::new();
        let held = case.watched.watch.known();
        assert!(case.watched.turn().is_some());
        fs::write(case.at(FILE), "new").unwrap();
        assert_eq!(case.watched.turn(), None);
        assert!(!case.follows("other/b/c"));
        drop(held);
        assert!(case.watched.turn().is_some());
    }

    #[test]
    fn there_are_only_so_many_watches_and_those_of_now() {
        let case = Case::new();
        let path = |at: usize| format!("many/{at}/file");
        (0..MOST).for_each(|at| fs::create_dir_all(case.at(&format!("many/{at}"))).unwrap());
        let followed = (0..MOST).filter(|at| case.follows(&path(*at))).count();
        // The root, `a`, `b` and `many` are watched, too.
        assert_eq!(followed, MOST - 4);
        assert_eq!(case.watched.watch.known().watches.len(), MOST);
        assert!(case.follows(FILE) && !case.follows(&path(MOST - 1)));
        // Of what is gone no watch is left.
        fs::remove_dir_all(case.at("many/0")).unwrap();
        let _ = case.watched.turn();
        assert_eq!(case.watched.watch.known().watches.len(), MOST - 1);
        assert!(case.follows("file") && !case.follows(&path(MOST - 1)));
        // A minute later those of now are watched.
        let before = case.watched.turn().unwrap();
        case.watched.watch.known().since -= TERM;
        assert!(case.follows(&path(MOST - 1)) && !case.watched.knows(FILE));
        assert_eq!(case.watched.watch.known().watches.len(), 3);
        assert_ne!(case.watched.turn().unwrap(), before);
        case.hear_all();
        case.told(|case| fs::write(case.at(&path(MOST - 1)), "new").unwrap());
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
            for round in 0..5_000_u32 {
                let before = loop {
                    if let Some(turn) = case.watched.turn() {
                        break turn;
                    }
                };
                fs::write(&path, round.to_string()).unwrap();
                assert_ne!(case.watched.turn(), Some(before), "{round}");
            }
            over.store(1, SeqCst);
        });
    }

    #[test]
    fn all_roots_of_a_process_have_one_instance() {
        let [one, two] = [Watched::new().unwrap(), Watched::new().unwrap()];
        assert!(Arc::ptr_eq(&one.watch, &two.watch));
        assert_ne!(one.root, two.root);
    }
}
