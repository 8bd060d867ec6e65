//! A set of changes: all of them or none.
//!
//! What is to be written is staged beside its targets under hidden names; then it is decided, by the
//! last line of the [intent](super::intent) `.combo-set-N.intent` in the top of the folder of the first
//! change; then everything gets its name. Whoever makes a set holds a lock on its intent. One without a
//! lock was left by a process that was killed: it is finished if it was decided, and taken back if not.
//! The directories are locked as well, so sets with a directory in common come one after the other.
#![expect(clippy::disallowed_methods, reason = "this is where files are changed on behalf of tasks")]

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    fs::File,
    hash::{BuildHasher, Hasher, RandomState},
    io::{Read, Write},
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};

use combo_core::Change;
use rustix::{
    fs::{
        AtFlags, FileType, FlockOperation, Mode, OFlags, flock, fstat, fsync, ftruncate, openat, renameat,
        unlinkat,
    },
    io::Errno,
    process::geteuid,
};

use super::{
    Deed, Unapplied, failed,
    folders::{Folder, Folders},
    intent::{self, Intent, Step},
    staged::is_named,
    target::{Directory, Look, Misplaced, Target, errno, find, flush, lock, place},
    wanted_removal, wanted_rename, wanted_write,
};

/// How many sets may be made in one folder at once.
const SLOTS: u32 = 16;

/// An intent is not longer.
const LONGEST: u64 = 16 << 20;

/// How often others may be killed while this one waits for them.
const ROUNDS: usize = 8;

/// What has become of an intent that was found.
#[derive(Debug)]
pub(super) enum Found {
    /// It is gone: what it says is done, or nothing of it.
    Done(String),
    /// It is not for whoever found it.
    Left(String),
    /// It could not be finished.
    Stuck(String),
}

/// A step and where it is made.
struct Part {
    step: Step,
    target: Target,
    to: Option<Target>,
}

/// What is written beside a target.
type Staging<'a> = (usize, &'a [u8], Mode);

/// Directories by what they are, each opened once.
#[derive(Default)]
struct Directories(HashMap<(u64, u64), Rc<Directory>>);

/// Makes all or none of the changes.
///
/// # Errors
///
/// One sentence. Nothing has changed, or it says that the rest is tried again.
pub(super) fn make(folders: &Folders, changes: &[Change]) -> Result<(), Unapplied> {
    folders.present()?;
    let mut directories = Directories::default();
    let Some((home, parts, staging)) = planned(folders, changes, &mut directories)? else { return Ok(()) };
    let failed = |errno| failed(Deed::Set(changes.len()), errno);
    for _ in 0..ROUNDS {
        let left = finish(folders)?;
        directories.lock().map_err(failed)?;
        let killed = unlocked(folders).any(|(intent, ..)| !left.contains(&intent));
        if !killed {
            return make_alone(home, parts, &staging, &directories, failed);
        }
        directories.unlock();
    }
    Err(failed(Errno::WOULDBLOCK))
}

/// Finishes what was left, and says in the log that it did. Gives the intents that are not for these.
pub(super) fn finish(folders: &Folders) -> Result<HashSet<PathBuf>, Unapplied> {
    let mut left = HashSet::new();
    for (intent, found) in recover(folders) {
        match found {
            Found::Done(sentence) => tracing::warn!("{sentence}"),
            Found::Left(_) => drop(left.insert(intent)),
            Found::Stuck(sentence) => return Err(Unapplied::Failed(sentence)),
        }
    }
    Ok(left)
}

type Planned<'a> = (&'a Arc<Folder>, Vec<Part>, Vec<Staging<'a>>);

fn planned<'a>(
    folders: &'a Folders,
    changes: &'a [Change],
    directories: &mut Directories,
) -> Result<Option<Planned<'a>>, Unapplied> {
    let id = RandomState::new().build_hasher().finish();
    let (mut home, mut parts, mut staging) = (None, Vec::new(), Vec::new());
    let mut named = HashSet::new();
    let mut placed = |target: Target, path: &Path, deed| {
        let (folder, names) = find(folders, path, deed)?;
        let home = *home.get_or_insert(folder);
        let path: PathBuf = names.iter().collect();
        let path = if Arc::ptr_eq(home, folder) { path } else { folder.path.join(path) };
        let (target, identity) = directories.share(target).map_err(|errno| failed(deed, errno))?;
        if named.insert((identity, target.name.clone())) { Ok((target, path)) } else { Err(twice(deed)) }
    };
    for change in changes {
        match change {
            Change::WriteFile { path, contents, mode } => {
                let (target, mode) = wanted_write(folders, path, *mode)?;
                let (target, path) = placed(target, path, Deed::Write(path))?;
                staging.push((parts.len(), &**contents, mode));
                let step = Step::Write { staged: intent::staged(id, parts.len()), path };
                parts.push(Part { step, target, to: None });
            }
            Change::RemoveFile { path } => {
                if let Some(target) = wanted_removal(folders, path)? {
                    let (target, path) = placed(target, path, Deed::Remove(path))?;
                    parts.push(Part { step: Step::Remove { path }, target, to: None });
                }
            }
            Change::Rename { from, to } => {
                let deed = Deed::Rename(from, to);
                let (target, new, look) = wanted_rename(folders, from, to)?;
                if look != Look::File {
                    return Err(Unapplied::Refused(format!(
                        "cannot {deed}: in a set only files are renamed"
                    )));
                }
                let (target, from) = placed(target, from, deed)?;
                let (new, to) = placed(new, to, deed)?;
                let device = |target: &Target| target.directory.identity().map(|(device, _)| device);
                if device(&target) != device(&new) {
                    return Err(failed(deed, Errno::XDEV));
                }
                parts.push(Part { step: Step::Rename { from, to }, target, to: Some(new) });
            }
            _ => {
                return Err(Unapplied::Refused(format!(
                    "a set has files to write, to remove and to rename, and not: {change}"
                )));
            }
        }
    }
    Ok(home.map(|home| (home, parts, staging)))
}

fn twice(deed: Deed<'_>) -> Unapplied {
    Unapplied::Refused(format!("cannot {deed}: a set has each path only once"))
}

/// Nobody else makes one in these directories.
fn make_alone(
    home: &Folder,
    parts: Vec<Part>,
    staging: &[Staging<'_>],
    directories: &Directories,
    failed: impl Fn(Errno) -> Unapplied,
) -> Result<(), Unapplied> {
    let mut begun = Begun::new(home.directory().map_err(&failed)?, parts).map_err(&failed)?;
    for (n, contents, mode) in staging {
        let part = &begun.parts[*n];
        let Step::Write { staged, .. } = &part.step else { continue };
        part.target.stage(staged, contents, *mode).map_err(&failed)?;
    }
    directories.flush().map_err(&failed)?;
    begun.decide().map_err(&failed)?;
    match begun.perform() {
        (0, Some((n, errno))) if begun.retract().is_ok() => {
            return Err(super::failed(begun.parts[n].deed(), errno));
        }
        (_, Some((n, errno))) => {
            home.unfinished.store(true, Ordering::Relaxed);
            let (Unapplied::Failed(why) | Unapplied::Refused(why)) =
                super::failed(begun.parts[n].deed(), errno);
            return Err(Unapplied::Failed(format!(
                "{why}; others of its set have been made, and it is tried again before the next change"
            )));
        }
        (_, None) => {}
    }
    let ended = directories.flush().and_then(|()| begun.end());
    ended.map_err(|errno| {
        home.unfinished.store(true, Ordering::Relaxed);
        failed(errno)
    })
}

impl Directories {
    /// The same target, by a descriptor that others have, too.
    fn share(&mut self, target: Target) -> Result<(Target, (u64, u64)), Errno> {
        let identity = target.directory.identity()?;
        let directory = match self.0.entry(identity) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(free) => free.insert(target.directory).clone(),
        };
        Ok((Target { directory, name: target.name }, identity))
    }

    /// In one order, whoever does it.
    fn lock(&self) -> Result<(), Errno> {
        let mut identities: Vec<_> = self.0.keys().collect();
        identities.sort_unstable();
        let locked = identities.into_iter().try_for_each(|identity| lock(self.0[identity].changed()));
        locked.inspect_err(|_| self.unlock())
    }

    fn unlock(&self) {
        for directory in self.0.values() {
            // Closing it does that in any case.
            let _ = flock(directory.changed(), FlockOperation::Unlock);
        }
    }

    fn flush(&self) -> Result<(), Errno> {
        self.0.values().try_for_each(|directory| flush(directory.changed()))
    }
}

impl Part {
    fn deed(&self) -> Deed<'_> {
        match &self.step {
            Step::Write { path, .. } => Deed::Write(path),
            Step::Remove { path } => Deed::Remove(path),
            Step::Rename { from, to } => Deed::Rename(from, to),
        }
    }

    /// What has been done is not done again.
    fn perform(&self) -> Result<(), Errno> {
        match (&self.step, &self.to) {
            (Step::Write { staged, .. }, _) => self.target.put(staged),
            (Step::Rename { .. }, Some(to)) => match self.target.look()? {
                Look::Absent => Ok(()),
                Look::File => self.target.rename(to),
                Look::Directory | Look::Link | Look::Other => Err(Errno::NXIO),
            },
            (Step::Remove { .. }, _) => self.target.unlink(),
            (Step::Rename { .. }, None) => Ok(()),
        }
    }

    fn unstage(&self) {
        if let Step::Write { staged, .. } = &self.step {
            // What stays is found by the intent, which stays then, too.
            let _ = self.target.unstage(staged);
        }
    }
}

/// A set that is being made. Taken back when dropped, unless decided.
struct Begun {
    directory: Directory,
    name: String,
    file: File,
    text: String,
    parts: Vec<Part>,
    decided: bool,
}

impl Begun {
    fn new(directory: Directory, parts: Vec<Part>) -> Result<Self, Errno> {
        let text = intent::begin(parts.iter().map(|part| &part.step));
        let (name, mut file) = slot(&directory)?;
        let written = file.write_all(text.as_bytes()).map_err(|error| errno(&error));
        let written = written.and_then(|()| fsync(&file)).and_then(|()| flush(directory.changed()));
        let begun = Self { directory, name, file, text, parts, decided: false };
        written.map(|()| begun)
    }

    fn decide(&mut self) -> Result<(), Errno> {
        let written = self.file.write_all(intent::end(&self.text).as_bytes()).map_err(|error| errno(&error));
        self.decided = true;
        let decided = written.and_then(|()| fsync(&self.file));
        // If it cannot be taken back either, the next start will see what was decided.
        decided.inspect_err(|_| drop(self.retract()))
    }

    fn retract(&mut self) -> Result<(), Errno> {
        ftruncate(&self.file, self.text.len() as u64)?;
        fsync(&self.file)?;
        self.decided = false;
        Ok(())
    }

    /// How many have been done, and the first that could not be. Those come first that may fail.
    fn perform(&self) -> (usize, Option<(usize, Errno)>) {
        perform(&self.parts)
    }

    fn end(&self) -> Result<(), Errno> {
        unlinkat(self.directory.changed(), &self.name, AtFlags::empty())?;
        flush(self.directory.changed())
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.decided {
            self.parts.iter().for_each(Part::unstage);
            // If it stays, it is taken back at the next start.
            let _ = unlinkat(self.directory.changed(), &self.name, AtFlags::empty());
        }
    }
}

fn perform(parts: &[Part]) -> (usize, Option<(usize, Errno)>) {
    let rank = |part: &Part| match part.step {
        Step::Rename { .. } => 0,
        Step::Write { .. } => 1,
        Step::Remove { .. } => 2,
    };
    let mut order: Vec<_> = parts.iter().enumerate().collect();
    order.sort_by_key(|(_, part)| rank(part));
    let (mut done, mut wrong) = (0, None);
    for (n, part) in order {
        match part.perform() {
            Ok(()) => done += 1,
            Err(errno) => {
                wrong = wrong.or(Some((n, errno)));
                // Nothing has been done; perhaps nothing need be.
                if done == 0 {
                    break;
                }
            }
        }
    }
    (done, wrong)
}

fn slot_name(n: u32) -> String {
    format!(".combo-set-{n}.intent")
}

/// A new intent, locked.
fn slot(directory: &Directory) -> Result<(String, File), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for n in 0..SLOTS {
        let name = slot_name(n);
        let file = match openat(directory.changed(), &name, flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => File::from(fd),
            Err(Errno::EXIST) => continue,
            Err(errno) => return Err(errno),
        };
        // Until it is locked, others may take it for a leftover.
        let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
        if locked == Err(Errno::WOULDBLOCK) || !is_named(&file, directory.changed(), &name)? {
            continue;
        }
        return Ok((name, file));
    }
    Err(Errno::MFILE)
}

/// Intents that nobody holds, locked from here on: their paths, their folders, their names.
fn unlocked(folders: &Folders) -> impl Iterator<Item = (PathBuf, &Folder, Directory, String, File)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let slots = folders.each().iter().flat_map(|folder| (0..SLOTS).map(move |n| (folder, slot_name(n))));
    // Opened only where there is one.
    let mut tops: HashMap<*const Folder, Option<Directory>> = HashMap::new();
    slots.filter_map(move |(folder, name)| {
        let top = tops.entry(Arc::as_ptr(folder)).or_insert_with(|| folder.directory().ok()).as_ref()?;
        let file = File::from(openat(top.changed(), &name, flags, Mode::empty()).ok()?);
        let regular = FileType::from_raw_mode(fstat(&file).ok()?.st_mode) == FileType::RegularFile;
        let free = regular && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if !free || !is_named(&file, top.changed(), &name).ok()? {
            return None;
        }
        Some((folder.path.join(&name), &**folder, folder.directory().ok()?, name, file))
    })
}

/// Finishes or takes back what was left in these folders. Every path in an intent goes through the same
/// wall as that of a change.
pub(super) fn recover(folders: &Folders) -> Vec<(PathBuf, Found)> {
    for folder in folders.each() {
        folder.unfinished.store(false, Ordering::Relaxed);
    }
    let one = |(path, folder, top, name, file): (PathBuf, &Folder, Directory, String, File)| {
        let said = folder.said.join(&name);
        let found = read(&file).unwrap_or_else(|why| Err(format!("left `{}` alone: {why}", said.display())));
        let found = match found {
            Err(why) => Found::Left(why),
            Ok(Intent::Whole(steps)) => finish_one(folders, folder, &top, &name, steps),
            Ok(Intent::Half(steps)) => {
                unstage(folders, folder, &steps);
                let gone = unlinkat(top.changed(), &name, AtFlags::empty());
                ended(
                    gone,
                    &top,
                    &said,
                    format!(
                        "took back a set of changes that was begun in `{}`; nothing of it had been made",
                        folder.said.display()
                    ),
                )
            }
            Ok(Intent::Corrupt(steps)) => {
                unstage(folders, folder, &steps);
                let aside = format!("{name}.broken");
                let gone = renameat(top.changed(), &name, top.changed(), &aside);
                ended(
                    gone,
                    &top,
                    &said,
                    format!(
                        "`{}` is not what was written there; it is `{aside}` now, and nothing of it was made",
                        said.display()
                    ),
                )
            }
        };
        if matches!(found, Found::Stuck(_)) {
            folder.unfinished.store(true, Ordering::Relaxed);
        }
        (path, found)
    };
    unlocked(folders).map(one).collect()
}

/// Its text, or why it is not trusted.
fn read(file: &File) -> Result<Result<Intent, String>, String> {
    let stat = fstat(file).map_err(|errno| errno.to_string())?;
    if stat.st_uid != geteuid().as_raw() || stat.st_mode & 0o077 != 0 || stat.st_nlink != 1 {
        return Err("others could have written it".to_owned());
    }
    let mut bytes = Vec::new();
    let read = file.take(LONGEST).read_to_end(&mut bytes);
    let _ = read.map_err(|error| error.to_string())?;
    Ok(Ok(intent::read(&bytes)))
}

fn ended(gone: Result<(), Errno>, top: &Directory, intent: &Path, sentence: String) -> Found {
    match gone.and_then(|()| flush(top.changed())) {
        Ok(()) => Found::Done(sentence),
        Err(errno) => {
            Found::Stuck(format!("cannot finish the set of changes `{}`: {errno}", intent.display()))
        }
    }
}

/// As they are said in a folder.
fn said(folder: &Folder, path: &Path) -> PathBuf {
    folder.said.join(path)
}

/// Removes what was staged; whatever else there is stays.
fn unstage(folders: &Folders, folder: &Folder, steps: &[Step]) {
    for step in steps {
        if let Step::Write { staged, path } = step {
            let path = said(folder, path);
            if let Ok(target) = place(folders, &path, Deed::Write(&path)) {
                // Whoever cannot remove it now cannot later either.
                let _ = target.unstage(staged);
            }
        }
    }
}

fn finish_one(folders: &Folders, folder: &Folder, top: &Directory, name: &str, steps: Vec<Step>) -> Found {
    let intent = said(folder, Path::new(name));
    let stuck =
        |why: String| Found::Stuck(format!("cannot finish the set of changes `{}`: {why}", intent.display()));
    let mut directories = Directories::default();
    let mut parts = Vec::new();
    for step in steps {
        let step = match step {
            Step::Write { staged, path } => Step::Write { staged, path: said(folder, &path) },
            Step::Remove { path } => Step::Remove { path: said(folder, &path) },
            Step::Rename { from, to } => Step::Rename { from: said(folder, &from), to: said(folder, &to) },
        };
        match placed(folders, step, &mut directories) {
            Ok(part) => parts.push(part),
            // What was there is gone, with its folder.
            Err(Misplaced::Missing(_)) => {}
            Err(Misplaced::Other(Unapplied::Refused(why))) => {
                return Found::Left(format!("left `{}` alone: {why}", intent.display()));
            }
            Err(Misplaced::Other(Unapplied::Failed(why))) => return stuck(why),
        }
    }
    if let Err(errno) = directories.lock() {
        return stuck(errno.to_string());
    }
    if let (_, Some((n, errno))) = perform(&parts) {
        let (Unapplied::Failed(why) | Unapplied::Refused(why)) = failed(parts[n].deed(), errno);
        return stuck(why);
    }
    let gone = directories.flush().and_then(|()| unlinkat(top.changed(), name, AtFlags::empty()));
    let made: Vec<_> = parts.iter().map(|part| part.deed().to_string()).collect();
    ended(gone, top, &intent, format!("finished a set of changes that was begun before: {}", made.join(", ")))
}

fn placed(folders: &Folders, step: Step, directories: &mut Directories) -> Result<Part, Misplaced> {
    let mut at = |path: &Path, deed| {
        let target = place(folders, path, deed)?;
        let shared = directories.share(target).map_err(|errno| Misplaced::Other(failed(deed, errno)))?;
        Ok(shared.0)
    };
    let (target, to) = match &step {
        Step::Write { path, .. } => (at(path, Deed::Write(path))?, None),
        Step::Remove { path } => (at(path, Deed::Remove(path))?, None),
        Step::Rename { from, to } => {
            (at(from, Deed::Rename(from, to))?, Some(at(to, Deed::Rename(from, to))?))
        }
    };
    Ok(Part { step, target, to })
}
