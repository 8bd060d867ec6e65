//! A set of changes: all of them or none.
//!
//! What is to be written is staged beside its targets under hidden names; then it is decided, by the
//! last line of the [intent] `.combo-set-N.intent` in the top of the folder of the first
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
    thread::sleep,
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
    target::{AGAIN, ASKED, Directory, Look, Misplaced, Target, errno, find, flush, kind, lock, place},
    wanted_removal, wanted_rename, wanted_write,
};

/// How many sets may be made in one folder at once.
const SLOTS: u32 = 16;

/// An intent is not longer.
const LONGEST: u64 = 16 << 20;

/// How often others may be killed while this one waits for them.
const ROUNDS: usize = 400;

/// What has become of an intent that was found.
#[derive(Debug)]
pub(super) enum Found {
    /// It is gone: what it says is done, or nothing of it.
    Done(String),
    /// It is gone, and had hardly been made.
    Nothing,
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
    let mut directories = Directories::default();
    let Some((home, parts, staging)) = planned(folders, changes, &mut directories)? else { return Ok(()) };
    let failed = |errno| failed(Deed::Set(changes.len()), errno);
    for _ in 0..ROUNDS {
        let left = finish(folders)?;
        directories.lock().map_err(failed)?;
        let killed = unlocked(folders).any(|(intent, ..)| !left.contains(&intent));
        if !killed && !directories.are_of_the_dying(folders, &left) {
            return make_alone(home, parts, &staging, &directories, failed);
        }
        directories.unlock();
        sleep(AGAIN);
    }
    Err(failed(Errno::WOULDBLOCK))
}

/// Finishes what was left, and says in the log that it did. Gives the intents that are not for these.
pub(super) fn finish(folders: &Folders) -> Result<HashSet<PathBuf>, Unapplied> {
    let mut left = HashSet::new();
    for (intent, found) in recover(folders) {
        match found {
            Found::Done(sentence) => tracing::warn!("{sentence}"),
            Found::Nothing => {}
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
                // One that is not there may be until it is this set's turn.
                if let Some((target, _)) = wanted_removal(folders, path)? {
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
    for part in &parts {
        // Others may have been quicker.
        if part.to.is_some() && part.target.look().map_err(&failed)? != Look::File {
            let step = said(home, &part.step);
            return Err(Unapplied::Failed(format!("cannot {}: it was renamed meanwhile", deed(&step))));
        }
    }
    let mut begun = Begun::new(home.directory().map_err(&failed)?, parts).map_err(&failed)?;
    for (n, contents, mode) in staging {
        let part = &begun.parts[*n];
        let Step::Write { staged, .. } = &part.step else { continue };
        part.target.stage(staged, contents, *mode).map_err(&failed)?;
    }
    directories.flush().map_err(&failed)?;
    if let Err(errno) = begun.decide() {
        home.unfinished.store(begun.decided, Ordering::Relaxed);
        return Err(failed(errno));
    }
    match begun.perform() {
        (0, Some((n, errno))) if begun.retract().is_ok() => {
            return Err(super::failed(deed(&said(home, &begun.parts[n].step)), errno));
        }
        (_, Some((n, errno))) => {
            home.unfinished.store(true, Ordering::Relaxed);
            let (Unapplied::Failed(why) | Unapplied::Refused(why)) =
                super::failed(deed(&said(home, &begun.parts[n].step)), errno);
            return Err(Unapplied::Failed(format!(
                "{why}; others of its set have been made, and it is tried again before the next change"
            )));
        }
        (_, None) => {}
    }
    let ended = directories.flush().and_then(|()| begun.end());
    ended.map_err(|errno| {
        home.unfinished.store(true, Ordering::Relaxed);
        let (Unapplied::Failed(why) | Unapplied::Refused(why)) = failed(errno);
        Unapplied::Failed(format!(
            "{why}; they have been written, and that is finished before the next change"
        ))
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

    /// Somebody holds an intent for them, and they are locked: of a process that is killed, some
    /// locks go before others.
    fn are_of_the_dying(&self, folders: &Folders, left: &HashSet<PathBuf>) -> bool {
        let ours = |path: &Path| {
            let placed = place(folders, path, Deed::Write(path)).ok();
            let identity = placed.and_then(|target| target.directory.identity().ok());
            identity.is_some_and(|identity| self.0.contains_key(&identity))
        };
        held(folders, left).any(|(folder, steps)| {
            steps.iter().any(|step| match said(folder, step) {
                Step::Write { path, .. } | Step::Remove { path } => ours(&path),
                Step::Rename { from, to } => ours(&from) || ours(&to),
            })
        })
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
            let _ = self.target.unstage(staged).and_then(|()| flush(self.target.directory.changed()));
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
        decided.inspect_err(|_| {
            let _ = self.retract();
        })
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
        let _ = flock(&self.file, FlockOperation::Unlock);
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
    for _ in 0..ASKED {
        if let Some(slot) = free_slot(directory)? {
            return Ok(slot);
        }
        sleep(AGAIN);
    }
    Err(Errno::MFILE)
}

fn free_slot(directory: &Directory) -> Result<Option<(String, File)>, Errno> {
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
        let named = is_named(&file, directory.changed(), &name).inspect_err(|_| {
            let _ = unlinkat(directory.changed(), &name, AtFlags::empty());
        })?;
        if locked == Err(Errno::WOULDBLOCK) || !named {
            continue;
        }
        return Ok(Some((name, file)));
    }
    Ok(None)
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

/// What the intents say that somebody holds, but for those that are left alone.
fn held<'a>(folders: &'a Folders, left: &HashSet<PathBuf>) -> impl Iterator<Item = (&'a Folder, Vec<Step>)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let with_intents = folders.each().iter().filter(|folder| has_intents(folder));
    let slots = with_intents.flat_map(|folder| (0..SLOTS).map(move |n| (folder, slot_name(n))));
    let slots = slots.filter(|(folder, name)| !left.contains(&folder.path.join(name)));
    slots.filter_map(move |(folder, name)| {
        let top = folder.directory().ok()?;
        let file = File::from(openat(top.changed(), &name, flags, Mode::empty()).ok()?);
        // One that was let go just now is found by its maker's end, or in the next round.
        match read(&file).ok()?.ok()? {
            Intent::Whole(steps) | Intent::Half(steps) | Intent::Corrupt(steps) => Some((&**folder, steps)),
        }
    })
}

/// There are intents in it, be they held or not.
pub(super) fn has_intents(folder: &Folder) -> bool {
    let there = |top: &Directory, n| matches!(kind(top.changed(), slot_name(n).as_ref()), Ok(Some(_)));
    folder.directory().is_ok_and(|top| (0..SLOTS).any(|n| there(&top, n)))
}

/// Finishes or takes back what was left in these folders. Every path in an intent goes through the same
/// wall as that of a change.
pub(super) fn recover(folders: &Folders) -> Vec<(PathBuf, Found)> {
    let flagged: Vec<_> =
        folders.each().iter().filter(|folder| folder.unfinished.swap(false, Ordering::Relaxed)).collect();
    let one = |(path, folder, top, name, file): (PathBuf, &Folder, Directory, String, File)| {
        let said = folder.said.join(&name);
        let found = read(&file).unwrap_or_else(|why| Err(format!("left `{}` alone: {why}", said.display())));
        let found = match found {
            Err(why) => Found::Left(why),
            Ok(Intent::Whole(steps)) => finish_one(folders, folder, &top, &name, steps),
            Ok(Intent::Half(steps)) if steps.is_empty() => {
                // Perhaps its maker has not come to lock it; then it makes another.
                let _ = unlinkat(top.changed(), &name, AtFlags::empty());
                Found::Nothing
            }
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
        // A process that is just being started may have its descriptor, too.
        let _ = flock(&file, FlockOperation::Unlock);
        if matches!(found, Found::Stuck(_)) {
            folder.unfinished.store(true, Ordering::Relaxed);
        }
        (path, found)
    };
    let found = unlocked(folders).map(one).collect();
    // Whoever could not finish theirs may hold it still.
    for folder in flagged.into_iter().filter(|folder| has_intents(folder)) {
        folder.unfinished.store(true, Ordering::Relaxed);
    }
    found
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

/// As it is said, where the folder is that it is below.
fn said(folder: &Folder, step: &Step) -> Step {
    let said = |path: &Path| folder.said.join(path);
    match step {
        Step::Write { staged, path } => Step::Write { staged: staged.clone(), path: said(path) },
        Step::Remove { path } => Step::Remove { path: said(path) },
        Step::Rename { from, to } => Step::Rename { from: said(from), to: said(to) },
    }
}

fn deed(step: &Step) -> Deed<'_> {
    match step {
        Step::Write { path, .. } => Deed::Write(path),
        Step::Remove { path } => Deed::Remove(path),
        Step::Rename { from, to } => Deed::Rename(from, to),
    }
}

/// Removes what was staged; whatever else there is stays.
fn unstage(folders: &Folders, folder: &Folder, steps: &[Step]) {
    for step in steps {
        if let Step::Write { staged, path } = step {
            let path = folder.said.join(path);
            if let Ok(target) = place(folders, &path, Deed::Write(&path)) {
                // Whoever cannot remove it now cannot later either.
                let _ = target.unstage(staged).and_then(|()| flush(target.directory.changed()));
            }
        }
    }
}

fn finish_one(folders: &Folders, folder: &Folder, top: &Directory, name: &str, steps: Vec<Step>) -> Found {
    let intent = folder.said.join(name);
    let stuck =
        |why: String| Found::Stuck(format!("cannot finish the set of changes `{}`: {why}", intent.display()));
    let mut directories = Directories::default();
    let mut parts = Vec::new();
    for step in steps {
        match placed(folders, said(folder, &step), &mut directories) {
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
        let (Unapplied::Failed(why) | Unapplied::Refused(why)) = failed(deed(&parts[n].step), errno);
        return stuck(why);
    }
    let gone = directories.flush().and_then(|()| unlinkat(top.changed(), name, AtFlags::empty()));
    let made: Vec<_> = parts.iter().map(|part| deed(&part.step).to_string()).collect();
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

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        fs,
        os::unix::fs::{PermissionsExt, symlink},
        process::{Child, Stdio},
        thread,
        time::Duration,
    };

    use tempfile::TempDir;

    use super::{
        super::{
            Opening, apply,
            tests::{alone, failed, in_another_process, opened, passed, refused, root, tree, tree_of},
        },
        *,
    };

    /// What becomes of `static`, which has `old` and `sub/` at first.
    fn check<const N: usize>(set: impl IntoIterator<Item = Change>, entries: [(&str, &str); N]) {
        let (root, set) = (root(), Change::set(set));
        assert_eq!(apply(&opened(root.path()), &set), Ok(()), "{set}");
        assert_eq!(tree(&root.path().join("static")), tree_of(entries), "{set}");
    }

    /// Nothing becomes of it.
    fn check_not(root: &TempDir, set: impl IntoIterator<Item = Change>, result: &Result<(), Unapplied>) {
        let (before, set) = (tree(root.path()), Change::set(set));
        assert_eq!(&apply(&opened(root.path()), &set), result, "{set}");
        assert_eq!(tree(root.path()), before, "{set}");
    }

    fn found(root: &Path) -> Vec<String> {
        let mut opening = Opening::new(root, None);
        let _ = opening.open(&["static".into()]).expect("a folder");
        opening.finish()
    }

    #[test]
    fn all_of_a_set_is_made() {
        check([], [("old", "old"), ("sub/", "")]);
        check(
            [
                Change::write("static/a", "1"),
                Change::write("static/sub/b", "2"),
                Change::remove("static/old"),
            ],
            [("a", "1"), ("sub/", ""), ("sub/b", "2")],
        );
        check(
            [Change::rename("static/old", "static/sub/new"), Change::remove("static/absent")],
            [("sub/", ""), ("sub/new", "old")],
        );
        let mode = Change::WriteFile { path: "static/a".into(), contents: "1".into(), mode: Some(0o600) };
        let root = root();
        let set = Change::set([mode, Change::write("static/b", "2")]);
        assert_eq!(apply(&opened(root.path()), &set), Ok(()));
        let mode = |name| root.path().join(name).metadata().expect("a file").permissions().mode() & 0o7777;
        assert_eq!([mode("static/a"), mode("static/b")], [0o600, 0o644]);
    }

    #[test]
    fn if_one_may_not_be_none_is_made() {
        let root = root();
        let first = || Change::write("static/a", "1");
        let check = |change: Change, result| check_not(&root, [first(), change], &result);
        let only = "a set has files to write, to remove and to rename, and not: ";
        check(Change::append("static/b", "1"), refused(&format!("{only}append to `static/b` (1 bytes)")));
        check(Change::make_directory("static/b"), refused(&format!("{only}make directory `static/b`")));
        check(Change::set([first()]), refused(&format!("{only}write 1 files as one: `static/a`")));
        check(
            Change::write("static/a", "2"),
            refused("cannot write `static/a`: a set has each path only once"),
        );
        check(
            Change::remove("static/./a"),
            refused("cannot remove `static/./a`: a set has each path only once"),
        );
        check(Change::write("b", "1"), refused("`b` lies outside what it may write (`static`)"));
        check(Change::write("static/sub", "1"), failed("cannot write `static/sub`: is a directory"));
        check(
            Change::rename("static/sub", "static/b"),
            refused("cannot rename `static/sub` to `static/b`: in a set only files are renamed"),
        );
        check(
            Change::rename("static/b", "static/c"),
            failed("cannot rename `static/b` to `static/c`: there is no `static/b`"),
        );
    }

    #[test]
    fn on_a_full_disk_none_is_made_and_nothing_is_left() {
        let test = "on_a_full_disk_none_is_made_and_nothing_is_left";
        if let Some(root) = alone() {
            let (folders, much) = (opened(&root), "new".repeat(10_000));
            let set = [Change::write("static/old", "new"), Change::write("static/sub/b", much)];
            let why = "cannot write 2 files as one: file too large";
            assert_eq!(apply(&folders, &Change::set(set)), failed(why));
            return;
        }
        let root = root();
        let output =
            in_another_process(module_path!(), test, "trap '' XFSZ; ulimit -f 1;", root.path()).output();
        passed(&output.expect("it is run"));
        assert_eq!(tree(&root.path().join("static")), tree_of([("old", "old"), ("sub/", "")]));
    }

    /// An intent of `static`, as a killed process may have left it.
    fn leave(root: &Path, text: &str) {
        let path = root.join("static/.combo-set-0.intent");
        fs::write(&path, text).expect("an intent");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its mode");
    }

    fn whole(steps: &[Step]) -> String {
        let begun = intent::begin(steps);
        let end = intent::end(&begun);
        begun + &end
    }

    #[test]
    fn what_was_decided_is_finished_at_the_next_start() {
        let root = root();
        let folder = root.path().join("static");
        let staged = intent::staged(7, 0);
        let text = whole(&[
            Step::Write { staged: staged.clone(), path: "sub/a".into() },
            Step::Write { staged: intent::staged(7, 1), path: "done".into() },
            Step::Remove { path: "old".into() },
        ]);
        let finished = "finished a set of changes that was begun before: write `static/sub/a`, \
                        write `static/done`, remove `static/old`";
        fs::write(folder.join("sub").join(&staged), "1").expect("a staged file");
        fs::write(folder.join("done"), "2").expect("a file");
        leave(root.path(), &text);
        // Whoever is not at the start leaves staged files alone.
        assert_eq!(apply(&opened(root.path()), &Change::write("static/sub/b", "3")), Ok(()));
        assert!(folder.join("sub").join(&staged).exists());
        assert_eq!(found(root.path()), [finished]);
        let expected = tree_of([("done", "2"), ("sub/", ""), ("sub/a", "1"), ("sub/b", "3")]);
        assert_eq!(tree(&folder), expected);
        assert_eq!(found(root.path()), [""; 0]);
        // As if it had been killed just before the end of that.
        leave(root.path(), &text);
        assert_eq!(found(root.path()), [finished]);
        assert_eq!(tree(&folder), expected);
        // A set finishes what was left first.
        leave(root.path(), &whole(&[Step::Remove { path: "done".into() }]));
        assert_eq!(apply(&opened(root.path()), &Change::set([Change::write("static/a", "1")])), Ok(()));
        let expected = tree_of([("a", "1"), ("sub/", ""), ("sub/a", "1"), ("sub/b", "3")]);
        assert_eq!(tree(&folder), expected);
    }

    #[test]
    fn what_was_not_decided_is_taken_back() {
        let root = root();
        let folder = root.path().join("static");
        let staged = intent::staged(7, 0);
        let steps = [
            Step::Write { staged: staged.clone(), path: "sub/a".into() },
            Step::Remove { path: "old".into() },
        ];
        fs::write(folder.join("sub").join(&staged), "1").expect("a staged file");
        leave(root.path(), &intent::begin(&steps));
        let back = "took back a set of changes that was begun in `static`; nothing of it had been made";
        assert_eq!(found(root.path()), [back]);
        assert_eq!(tree(&folder), tree_of([("old", "old"), ("sub/", "")]));
        fs::write(folder.join("sub").join(&staged), "1").expect("a staged file");
        let text = whole(&steps).replace("remove old", "remove sub");
        leave(root.path(), &text);
        let aside = "`static/.combo-set-0.intent` is not what was written there; it is \
                     `.combo-set-0.intent.broken` now, and nothing of it was made";
        assert_eq!(found(root.path()), [aside]);
        let expected = tree_of([(".combo-set-0.intent.broken", &*text), ("old", "old"), ("sub/", "")]);
        assert_eq!(tree(&folder), expected);
        assert_eq!(found(root.path()), [""; 0]);
    }

    #[test]
    fn an_intent_that_leads_outside_is_left_alone() {
        let root = root();
        fs::write(root.path().join("outside"), "1").expect("a file");
        fs::write(root.path().join("static").join(intent::staged(7, 0)), "1").expect("a staged file");
        symlink("..", root.path().join("static/up")).expect("a link");
        let outside = root.path().join("outside");
        let check = |step: Step, why: &str| {
            leave(root.path(), &whole(&[Step::Remove { path: "old".into() }, step]));
            let before = tree(root.path());
            assert_eq!(found(root.path()), [format!("left `static/.combo-set-0.intent` alone: {why}")]);
            assert_eq!(tree(root.path()), before);
            // And others are made beside it.
            let set = Change::set([Change::write("static/a", "1"), Change::remove("static/b")]);
            assert_eq!(apply(&opened(root.path()), &set), Ok(()));
        };
        let lies = format!("`{}` lies outside what it may write (`static`)", outside.display());
        check(Step::Remove { path: outside.clone() }, &lies);
        check(Step::Rename { from: "old".into(), to: outside.clone() }, &lies);
        check(Step::Rename { from: outside, to: "a".into() }, &lies);
        check(Step::Remove { path: "../outside".into() }, "`static/../outside` has a `..` in it");
        check(
            Step::Write { staged: intent::staged(7, 0), path: "up/outside".into() },
            "`static/up/outside` leads through the symbolic link `static/up`",
        );
        let path = root.path().join("static/.combo-set-0.intent");
        leave(root.path(), &whole(&[Step::Remove { path: "old".into() }]));
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect("its mode");
        let why = "left `static/.combo-set-0.intent` alone: others could have written it";
        assert_eq!(found(root.path()), [why]);
        assert!(root.path().join("static/old").exists());
    }

    #[test]
    fn what_one_job_may_not_finish_another_may() {
        let root = root();
        fs::create_dir(root.path().join("other")).expect("a directory");
        fs::write(root.path().join("other/a"), "").expect("a file");
        leave(root.path(), &whole(&[Step::Remove { path: root.path().join("other/a") }]));
        let mut opening = Opening::new(root.path(), None);
        for folders in [vec!["static".into()], vec!["static".into(), "other".into()], vec!["other".into()]] {
            let _ = opening.open(&folders).expect("folders");
        }
        let path = root.path().join("other/a");
        let finished =
            format!("finished a set of changes that was begun before: remove `{}`", path.display());
        assert_eq!(opening.finish(), [finished]);
        assert!(!path.exists());
    }

    /// Something is in the way in between: a link where a staged file was.
    #[test]
    fn a_link_in_place_of_a_staged_file_is_not_taken() {
        let root = root();
        let folder = root.path().join("static");
        symlink("/etc/passwd", folder.join(intent::staged(7, 0))).expect("a link");
        leave(root.path(), &whole(&[Step::Write { staged: intent::staged(7, 0), path: "a".into() }]));
        let before = tree(root.path());
        let why = "cannot finish the set of changes `static/.combo-set-0.intent`: cannot write `static/a`";
        assert!(found(root.path())[0].starts_with(why), "{:?}", found(root.path()));
        assert_eq!(tree(root.path()), before);
        // Until that is mended, a job that would be overtaken by it changes nothing.
        let mut opening = Opening::new(root.path(), None);
        let folders = opening.open(&["static".into()]).expect("a folder");
        drop(opening.finish());
        let Err(Unapplied::Failed(said)) = apply(&folders, &Change::write("static/b", "1")) else { panic!() };
        assert!(said.starts_with(why), "{said}");
        fs::remove_file(folder.join(intent::staged(7, 0))).expect("removed");
        assert_eq!(apply(&folders, &Change::write("static/b", "1")), Ok(()));
        assert_eq!(tree(&folder), tree_of([("b", "1"), ("old", "old"), ("sub/", "")]));
    }

    #[test]
    fn sets_in_one_directory_come_one_after_the_other() {
        let root = root();
        let folders = opened(root.path());
        thread::scope(|scope| {
            let writers = ["a", "b", "c", "d"].map(|letter| {
                let folders = folders.clone();
                scope.spawn(move || {
                    for n in 0..15 {
                        let text = format!("{letter}{n}");
                        let set = ["x", "sub/y", "z"]
                            .map(|name| Change::write(format!("static/{name}"), text.clone()));
                        assert_eq!(apply(&folders, &Change::set(set)), Ok(()));
                    }
                })
            });
            assert!(writers.map(thread::ScopedJoinHandle::join).iter().all(Result::is_ok));
        });
        let files = tree(&root.path().join("static"));
        assert!(files["x"] == files["sub/y"] && files["x"] == files["z"], "{files:?}");
        assert_eq!(files.len(), 5);
    }

    /// One set after the other, for ever: the same text everywhere; `odd` is there or not, and one of
    /// `left` and `right`.
    fn make_for_ever(root: &Path) -> ! {
        let mut opening = Opening::new(root, None);
        let folders = opening.open(&["static".into(), "other".into()]).expect("folders");
        drop(opening.finish());
        let id = std::process::id();
        for n in 0_u64.. {
            let contents = format!("{id} {n}");
            let odd = n % 2 == 1;
            let (from, to) = if odd { ("left", "right") } else { ("right", "left") };
            let set = Change::set([
                Change::write("static/a", contents.clone()),
                Change::write("static/sub/b", contents.clone()),
                Change::rename(format!("static/{from}"), format!("static/sub/{to}")),
                if odd { Change::write("other/odd", contents) } else { Change::remove("other/odd") },
            ]);
            // Where another process has just renamed it the other way, this one is not made.
            let _ = apply(&folders, &set);
            let back = Change::set([
                Change::rename(format!("static/sub/{to}"), format!("static/{to}")),
                Change::write("other/c", ""),
            ]);
            let _ = apply(&folders, &back);
        }
        unreachable!();
    }

    fn check_whole(root: &Path, round: usize) {
        let files = tree(root);
        let read = |name: &str| files.get(name).map(String::as_str);
        let a = read("static/a").expect("it was there at first");
        assert_eq!(read("static/sub/b"), Some(a), "{round}: {files:?}");
        let odd = a.ends_with(['1', '3', '5', '7', '9']);
        assert_eq!(read("other/odd"), odd.then_some(a), "{round}: {files:?}");
        let names: Vec<_> =
            files.keys().filter(|name| name.ends_with("left") || name.ends_with("right")).collect();
        assert_eq!(names.len(), 1, "{round}: {files:?}");
        assert_eq!(names[0].ends_with("right"), odd, "{round}: {files:?}");
        assert!(!files.keys().any(|name| name.contains("/.combo")), "{round}: {files:?}");
    }

    fn check_killed(test: &str, processes: usize, rounds: usize) {
        if let Some(root) = alone() {
            make_for_ever(&root);
        }
        let root = root();
        fs::create_dir(root.path().join("other")).expect("a directory");
        for name in ["static/a", "static/sub/b", "static/left"] {
            fs::write(root.path().join(name), "0 0").expect("a file");
        }
        let mut seen = BTreeMap::new();
        for round in 0..rounds {
            let mut command = in_another_process(module_path!(), test, "", root.path());
            let _ = command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut children: Vec<Child> =
                (0..processes).map(|_| command.spawn().expect("a process")).collect();
            let random = RandomState::new().build_hasher().finish();
            sleep(Duration::from_micros(3_000 + random % 70_000));
            for child in &mut children {
                child.kill().expect("killed");
                let _ = child.wait().expect("ended");
            }
            // Some are finished by the next process, which may be killed over it.
            if round % 4 != 2 || round + 1 == rounds {
                let mut opening = Opening::new(root.path(), None);
                let _ = opening.open(&["static".into(), "other".into()]).expect("folders");
                for sentence in opening.finish() {
                    let begin = sentence.split_whitespace().next().unwrap_or_default().to_owned();
                    *seen.entry(begin).or_insert(0) += 1;
                }
                check_whole(root.path(), round);
            }
        }
        assert!(fs::read_to_string(root.path().join("static/a")).expect("a file") != "0 0", "some was made");
        assert!(!seen.keys().any(|begin| begin == "left" || begin == "cannot"), "{seen:?}");
    }

    #[test]
    fn a_killed_process_leaves_all_or_nothing() {
        check_killed("a_killed_process_leaves_all_or_nothing", 1, 80);
    }

    #[test]
    fn two_killed_processes_leave_all_or_nothing() {
        check_killed("two_killed_processes_leave_all_or_nothing", 2, 30);
    }
}
