//! file changed -> job due.
//!
//! Takes the files that jobs wait for; says which job is due when one has changed: it was written and
//! closed, replaced by rename, made or removed, or a folder or a symbolic link on the way to it was
//! exchanged. One thread waits for what inotify tells of every folder on the way, and looks at the
//! files concerned 20 ms later: only one that looks different (device, inode, size, times, or absent)
//! has changed. What is held open and written to, as a log is, has changed when it is closed. A folder
//! that is gone is looked for once a second. Not seen is what is written through a mapping, by another
//! name (a hard link) or on another machine, and what is mounted over a folder. Never reads a file.
#![expect(clippy::disallowed_methods, reason = "this is where files are watched, by a thread of its own")]

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    ffi::{OsStr, OsString},
    fs, io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    fs::inotify::{self, ReadFlags},
    io::Errno,
};

use crate::{
    looks::{Looks, coarse_now},
    ways::{self, Step, Walked, timespec},
};

/// How long after the first sign of a change its file is looked at.
const SETTLE: Duration = Duration::from_millis(20);

/// How often a look is put off while the file is being written at that very moment.
const PUT_OFF: u8 = 5;

/// How often a folder that is gone is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// What happens to the folder itself.
const GONE: ReadFlags =
    ReadFlags::DELETE_SELF.union(ReadFlags::MOVE_SELF).union(ReadFlags::UNMOUNT).union(ReadFlags::IGNORED);

/// Files are watched until this is dropped; nobody is told anything after that.
#[derive(Debug)]
pub(crate) struct Watching(Option<(Arc<OwnedFd>, JoinHandle<()>)>);

/// Watches the files that jobs wait for. Paths are absolute; many jobs may wait for one file.
///
/// `changed` is called on the thread that watches, with one job at a time, and must not wait for
/// whoever drops the [`Watching`].
///
/// # Errors
///
/// The first file that cannot be watched, and why.
pub(crate) fn watch(
    files: Vec<(usize, PathBuf)>,
    changed: impl Fn(usize) + Send + 'static,
) -> Result<Watching, (PathBuf, io::Error)> {
    let Some((_, first)) = files.first() else { return Ok(Watching(None)) };
    let first = first.clone();
    let named = |error| (first.clone(), error);
    let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let stop = Arc::new(stop.map_err(|errno| named(errno.into()))?);
    let mut watch = Watch::new(files)?;
    let heard = Arc::clone(&stop);
    let attend = move || {
        if let Err(errno) = watch.attend(&heard, changed) {
            tracing::error!(error = %io::Error::from(errno), "changes of files are no longer seen");
        }
    };
    let thread = thread::Builder::new().name("combo-changes".to_owned()).spawn(attend).map_err(named)?;
    Ok(Watching(Some((stop, thread))))
}

impl Drop for Watching {
    fn drop(&mut self) {
        let Some((stop, thread)) = self.0.take() else { return };
        // It can only fail if it has been said already.
        let _ = rustix::io::write(&stop, &1_u64.to_ne_bytes());
        if thread.thread().id() != thread::current().id() {
            // It has panicked if `changed` has, which was said then.
            drop(thread.join());
        }
    }
}

/// All that the thread knows.
struct Watch {
    inotify: OwnedFd,
    files: Vec<File>,
    /// By watch descriptor.
    folders: HashMap<i32, Folder>,
    /// Files to look at, the earliest first.
    signs: VecDeque<(Instant, usize)>,
    /// Files with a folder that is gone or cannot be watched.
    lost: BTreeSet<usize>,
    /// When these are looked at.
    look: Option<Instant>,
}

struct File {
    path: PathBuf,
    jobs: Vec<usize>,
    trail: BTreeSet<Step>,
    seen: Option<Looks>,
    /// It was written so recently when it was seen that it may have been written again and look the same.
    doubt: bool,
    /// It is among the signs, and was put off so often.
    sign: Option<u8>,
}

/// The names in a folder that lead to files.
#[derive(Default)]
struct Folder {
    names: HashMap<OsString, BTreeSet<usize>>,
}

impl Watch {
    fn new(files: Vec<(usize, PathBuf)>) -> Result<Self, (PathBuf, io::Error)> {
        let inotify = ways::listen().map_err(|error| {
            let first = files.first().map(|(_, path)| path.clone());
            (first.unwrap_or_default(), error)
        })?;
        let mut watch = Self {
            inotify,
            files: Vec::new(),
            folders: HashMap::new(),
            signs: VecDeque::new(),
            lost: BTreeSet::new(),
            look: None,
        };
        let mut known = HashMap::new();
        for (job, path) in files {
            let index = *known.entry(path.clone()).or_insert(watch.files.len());
            match watch.files.get_mut(index) {
                Some(file) => file.jobs.push(job),
                None => {
                    let (jobs, trail) = (vec![job], BTreeSet::new());
                    watch.files.push(File { path, jobs, trail, seen: None, doubt: false, sign: None });
                }
            }
        }
        let mut walked = Walked::default();
        for index in 0..watch.files.len() {
            if let Err(error) = watch.begin(index, &mut walked) {
                return Err((watch.files[index].path.clone(), error));
            }
        }
        watch.sweep(walked);
        watch.look_again(0, Instant::now());
        Ok(watch)
    }

    /// Sees a file for the first time.
    fn begin(&mut self, index: usize, walked: &mut Walked) -> io::Result<()> {
        let path = self.files[index].path.clone();
        if fs::metadata(&path).is_ok_and(|found| found.is_dir()) {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
        }
        if let Some(folder) = path.parent() {
            let found = fs::metadata(folder).map_err(|error| no_folder(&error))?;
            if !found.is_dir() {
                return Err(no_folder(&io::ErrorKind::NotADirectory.into()));
            }
        }
        match self.follow(index, walked) {
            // A link leads to where there is nothing yet.
            Err(Errno::NOENT | Errno::NOTDIR) => {
                let _ = self.lost.insert(index);
            }
            followed => followed.map_err(unwatched)?,
        }
        (self.files[index].seen, self.files[index].doubt) = look(&path)?;
        Ok(())
    }

    /// Waits and tells until it is told to stop.
    fn attend(&mut self, stop: &OwnedFd, changed: impl Fn(usize)) -> Result<(), Errno> {
        loop {
            let until = self.signs.front().map(|(due, _)| *due).into_iter().chain(self.look).min();
            let timeout = until.map(|until| timespec(until.saturating_duration_since(Instant::now())));
            let mut ears = [PollFd::new(stop, PollFlags::IN), PollFd::new(&self.inotify, PollFlags::IN)];
            match poll(&mut ears, timeout.as_ref()) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            }
            let [stopped, told] = ears.map(|ear| !ear.revents().is_empty());
            if stopped {
                return Ok(());
            }
            if told {
                self.hear(Instant::now())?;
            }
            let due = self.due(Instant::now());
            if !due.is_empty() {
                self.compare(due, &changed);
            }
        }
    }

    /// Takes a buffer full of what the kernel has to tell.
    fn hear(&mut self, now: Instant) -> Result<(), Errno> {
        let Self { inotify, files, folders, signs, .. } = self;
        let all = files.len();
        let mut sign = |index: usize| {
            let file: &mut File = &mut files[index];
            if file.sign.is_none() {
                file.sign = Some(0);
                signs.push_back((now + SETTLE, index));
            }
        };
        ways::hear(inotify, |event| {
            let (wd, what) = (event.wd(), event.events());
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                (0..all).for_each(&mut sign);
            } else if let Some(folder) = folders.get(&wd) {
                if what.intersects(GONE) {
                    folder.names.values().flatten().copied().for_each(&mut sign);
                } else if let Some(name) = event.file_name() {
                    let concerned = folder.names.get(OsStr::from_bytes(name.to_bytes()));
                    concerned.into_iter().flatten().copied().for_each(&mut sign);
                }
            }
            if what.contains(ReadFlags::IGNORED) {
                drop(folders.remove(&wd));
            }
        })
    }

    /// The files that have to be looked at.
    fn due(&mut self, now: Instant) -> Vec<usize> {
        let mut due = Vec::new();
        while let Some((_, index)) = self.signs.pop_front_if(|(at, _)| *at <= now) {
            due.push(index);
        }
        if self.look.take_if(|at| *at <= now).is_some() {
            due.extend(self.lost.iter().copied().filter(|index| self.files[*index].sign.is_none()));
        }
        due
    }

    fn compare(&mut self, due: Vec<usize>, changed: &impl Fn(usize)) {
        let (mut walked, were) = (Walked::default(), self.lost.len());
        for index in due {
            // First the watches and then the look, so that nothing happens in between.
            let followed = self.follow(index, &mut walked);
            let looked = look(&self.files[index].path);
            if followed.is_ok() && looked.is_ok() {
                let _ = self.lost.remove(&index);
            } else {
                let _ = self.lost.insert(index);
            }
            match looked {
                Ok((seen, doubt)) => self.meet(index, seen, doubt, changed),
                Err(_) => self.files[index].sign = None,
            }
        }
        self.sweep(walked);
        self.look_again(were, Instant::now());
    }

    /// Tells if a file looks different.
    fn meet(&mut self, index: usize, seen: Option<Looks>, doubt: bool, changed: &impl Fn(usize)) {
        let file = &mut self.files[index];
        match &mut file.sign {
            Some(often) if doubt && *often < PUT_OFF => {
                *often += 1;
                self.signs.push_back((Instant::now() + SETTLE, index));
                return;
            }
            _ => {}
        }
        let heard = file.sign.take().is_some();
        let different = seen != file.seen || (heard && file.doubt);
        (file.seen, file.doubt) = (seen, doubt);
        if different {
            file.jobs.iter().copied().for_each(changed);
        }
    }

    /// Watches every folder on the way to a file, and none that no longer is.
    fn follow(&mut self, index: usize, walked: &mut Walked) -> Result<(), Errno> {
        let file = &mut self.files[index];
        let (trail, end) = walked.walk(&self.inotify, &file.path);
        for (wd, name) in trail.difference(&file.trail) {
            let folder = self.folders.entry(*wd).or_default();
            let _ = folder.names.entry(name.clone()).or_default().insert(index);
        }
        for (wd, name) in file.trail.difference(&trail) {
            let Some(folder) = self.folders.get_mut(wd) else { continue };
            if let Some(files) = folder.names.get_mut(name) {
                let _ = files.remove(&index);
                if files.is_empty() {
                    drop(folder.names.remove(name));
                }
            }
            let _ = walked.left.insert(*wd);
        }
        file.trail = trail;
        end
    }

    /// Ends the watches that nobody needs any more.
    fn sweep(&mut self, walked: Walked) {
        for wd in walked.left {
            if self.folders.get(&wd).is_some_and(|folder| folder.names.is_empty()) {
                drop(self.folders.remove(&wd));
                // It fails if the kernel has ended it already.
                let _ = inotify::remove_watch(&self.inotify, wd);
            }
        }
    }

    /// Sees to it that folders that are gone are looked for, and says so once.
    fn look_again(&mut self, were: usize, now: Instant) {
        self.look = if self.lost.is_empty() { None } else { self.look.or(Some(now + LOOK)) };
        match self.lost.first() {
            Some(index) if were == 0 => {
                let (file, files) = (self.files[*index].path.display(), self.lost.len());
                tracing::warn!(%file, files, "a folder on the way is gone: it is looked for once a second");
            }
            None if were > 0 => tracing::info!("the folders of all watched files are there again"),
            _ => {}
        }
    }
}

/// What a file looks like, and whether it may be written again and look the same.
fn look(path: &Path) -> io::Result<(Option<Looks>, bool)> {
    let now = coarse_now();
    match fs::metadata(path) {
        Ok(found) => {
            let looks = Looks::from(&found);
            Ok((Some(looks), looks.since(now)))
        }
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::ACCESS) => {
                Ok((None, false))
            }
            _ => Err(error),
        },
    }
}

fn unwatched(errno: Errno) -> io::Error {
    let why = match errno {
        Errno::NOSPC => {
            "too many folders are watched: a higher sysctl `fs.inotify.max_user_watches` would help"
        }
        Errno::ACCESS => "a folder that it or a link on the way is in may not be read",
        errno => return errno.into(),
    };
    io::Error::new(io::Error::from(errno).kind(), why)
}

fn no_folder(error: &io::Error) -> io::Error {
    let why = match error.kind() {
        io::ErrorKind::NotFound => "its folder does not exist".to_owned(),
        io::ErrorKind::NotADirectory => "it would be in what is no folder".to_owned(),
        kind => format!("its folder cannot be looked at: {kind}"),
    };
    io::Error::new(error.kind(), why)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::OpenOptions,
        io::Write as _,
        os::{
            fd::AsRawFd,
            unix::fs::{PermissionsExt, symlink},
        },
        sync::{
            Mutex,
            mpsc::{Receiver, RecvTimeoutError, channel},
        },
    };

    use tempfile::TempDir;

    use super::*;

    /// Far longer than anything takes.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A folder, the files in it that are watched, and the jobs that became due. Job 0 waits for
    /// `marker`, which tells that something else has not changed.
    struct Case {
        folder: TempDir,
        jobs: Receiver<usize>,
        watching: Option<Watching>,
    }

    impl Case {
        /// Makes a folder, waits for files in it as jobs 1 and on.
        fn new(make: impl FnOnce(&Path), files: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            make(folder.path());
            fs::write(folder.path().join("marker"), "").unwrap();
            for file in files {
                grow_old(&folder.path().join(file));
            }
            let paths = ["marker"].iter().chain(files).map(|file| folder.path().join(file));
            let (tell, jobs) = channel();
            let watching = watch(paths.enumerate().collect(), move |job| tell.send(job).unwrap_or_default());
            Self { folder, jobs, watching: Some(watching.unwrap()) }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.at(name), text).unwrap();
        }

        fn rename(&self, from: &str, to: &str) {
            fs::rename(self.at(from), self.at(to)).unwrap();
        }

        #[track_caller]
        fn due(&self, job: usize) {
            assert_eq!(self.jobs.recv_timeout(PATIENCE), Ok(job));
        }

        /// Nothing else was due until now.
        #[track_caller]
        fn nothing_else(&self) {
            self.write(".marker.tmp", "");
            self.rename(".marker.tmp", "marker");
            self.due(0);
        }
    }

    /// A file that was written in this very moment is watched with more suspicion: see `doubt`.
    fn grow_old(path: &Path) {
        while look(path).unwrap().1 {
            thread::yield_now();
        }
    }

    fn one(folder: &Path) {
        fs::write(folder.join("a"), "1").unwrap();
    }

    #[test]
    fn a_file_that_is_written_has_changed() {
        let case = Case::new(one, &["a"]);
        case.write("a", "2");
        case.due(1);
        case.nothing_else();
        case.write("a", "33");
        case.due(1);
        case.nothing_else();
    }

    #[test]
    fn a_file_that_is_held_open_changes_when_it_is_closed() {
        let case = Case::new(one, &["a"]);
        let mut file = OpenOptions::new().append(true).open(case.at("a")).unwrap();
        file.write_all(b"2").unwrap();
        case.nothing_else();
        file.write_all(b"3").unwrap();
        case.nothing_else();
        drop(file);
        case.due(1);
        case.nothing_else();
    }

    #[test]
    fn a_file_that_is_only_opened_read_or_made_readable_has_not_changed() {
        let case = Case::new(one, &["a"]);
        drop(OpenOptions::new().write(true).open(case.at("a")).unwrap());
        case.nothing_else();
        assert_eq!(fs::read(case.at("a")).unwrap(), b"1");
        fs::set_permissions(case.at("a"), fs::Permissions::from_mode(0o600)).unwrap();
        case.nothing_else();
        case.write("b", "another");
        case.nothing_else();
    }

    #[test]
    fn a_file_that_is_replaced_has_changed() {
        let case = Case::new(one, &["a"]);
        for round in 0..3 {
            case.write(".a.tmp", "1");
            case.rename(".a.tmp", "a");
            case.due(1);
            case.nothing_else();
            assert!(!case.at(".a.tmp").exists(), "{round}");
        }
    }

    #[test]
    fn a_file_that_is_made_or_removed_has_changed() {
        let case = Case::new(|_| {}, &["a"]);
        case.nothing_else();
        for _ in 0..3 {
            case.write(".a.tmp", "1");
            case.rename(".a.tmp", "a");
            case.due(1);
            case.nothing_else();
            fs::remove_file(case.at("a")).unwrap();
            case.due(1);
            case.nothing_else();
        }
    }

    /// As Kubernetes mounts a ConfigMap.
    #[test]
    fn a_link_on_the_way_that_is_exchanged_changes_the_file() {
        let make = |folder: &Path| {
            fs::create_dir(folder.join("..1")).unwrap();
            fs::write(folder.join("..1/a"), "1").unwrap();
            symlink("..1", folder.join("..data")).unwrap();
            symlink("..data/a", folder.join("a")).unwrap();
        };
        let case = Case::new(make, &["a"]);
        for round in 2..5 {
            fs::create_dir(case.at(&format!("..{round}"))).unwrap();
            case.write(&format!("..{round}/a"), "1");
            case.nothing_else();
            symlink(format!("..{round}"), case.at("..data_tmp")).unwrap();
            case.rename("..data_tmp", "..data");
            case.due(1);
            fs::remove_dir_all(case.at(&format!("..{}", round - 1))).unwrap();
            case.nothing_else();
            // Where it is now is watched, too.
            case.write(&format!("..{round}/a"), "written");
            case.due(1);
            case.nothing_else();
        }
    }

    #[test]
    fn a_link_far_up_that_is_exchanged_changes_the_file() {
        let make = |folder: &Path| {
            for at in ["1/sub/deep", "2/sub/deep"] {
                fs::create_dir_all(folder.join(at)).unwrap();
                fs::write(folder.join(at).join("a"), "1").unwrap();
            }
            symlink(folder.join("1"), folder.join("current")).unwrap();
        };
        let case = Case::new(make, &["current/sub/deep/a"]);
        symlink("./1/../2/.", case.at("next")).unwrap();
        case.rename("next", "current");
        case.due(1);
        case.write("1/sub/deep/a", "nobody cares");
        case.nothing_else();
        case.write("2/sub/deep/a", "2");
        case.due(1);
        case.nothing_else();
    }

    #[test]
    fn a_folder_that_is_exchanged_changes_the_file() {
        let make = |folder: &Path| {
            for at in ["up/in", "next/in"] {
                fs::create_dir_all(folder.join(at)).unwrap();
                fs::write(folder.join(at).join("a"), "1").unwrap();
            }
        };
        let case = Case::new(make, &["up/in/a"]);
        case.rename("up", "old");
        case.due(1);
        case.rename("next", "up");
        case.due(1);
        case.write("old/in/a", "nobody cares");
        case.nothing_else();
        case.write("up/in/a", "2");
        case.due(1);
        case.nothing_else();
    }

    #[test]
    fn a_folder_that_comes_back_is_watched_again() {
        let make = |folder: &Path| {
            fs::create_dir_all(folder.join("up/in")).unwrap();
            fs::write(folder.join("up/in/a"), "1").unwrap();
        };
        let case = Case::new(make, &["up/in/a"]);
        for _ in 0..2 {
            fs::remove_dir_all(case.at("up")).unwrap();
            case.due(1);
            case.nothing_else();
            fs::create_dir_all(case.at("up/in")).unwrap();
            case.nothing_else();
            case.write("up/in/.a.tmp", "2");
            case.rename("up/in/.a.tmp", "up/in/a");
            case.due(1);
            case.nothing_else();
            case.write("up/in/a", "written");
            case.due(1);
            case.nothing_else();
        }
    }

    /// Below a folder that may only be passed nothing is heard of what happens to the names in it.
    #[test]
    fn a_folder_that_nobody_tells_of_is_looked_for() {
        let make = |folder: &Path| {
            fs::create_dir_all(folder.join("up/in")).unwrap();
            fs::write(folder.join("up/in/a"), "1").unwrap();
        };
        let folder = tempfile::tempdir().unwrap();
        make(folder.path());
        let path = folder.path().join("up/in/a");
        let mut watch = Watch::new(vec![(7, path)]).unwrap();
        let due = Mutex::new(Vec::new());
        let changed = |job| due.lock().unwrap().push(job);
        let told = || std::mem::take(&mut *due.lock().unwrap());
        fs::remove_dir_all(folder.path().join("up")).unwrap();
        watch.compare(vec![0], &changed);
        assert_eq!(told(), [7]);
        let look = watch.look.expect("it is looked for");
        assert!(watch.due(look - Duration::from_nanos(1)).is_empty());
        make(folder.path());
        let found = watch.due(look);
        assert_eq!(found, [0]);
        watch.compare(found, &changed);
        assert_eq!(told(), [7]);
        assert_eq!((watch.look, watch.lost.len()), (None, 0));
    }

    #[test]
    fn changes_in_quick_succession_are_one() {
        let case = Case::new(one, &["a"]);
        loop {
            let began = Instant::now();
            for text in ["2", "3", "4", "5"] {
                case.write("a", text);
            }
            let quick = began.elapsed() < SETTLE / 2;
            case.due(1);
            if quick {
                return case.nothing_else();
            }
            // This machine was busy with something else.
            while case.jobs.recv_timeout(SETTLE * 10) == Ok(1) {}
        }
    }

    /// The clock that files are stamped by stands still for milliseconds, and nothing else tells these
    /// contents apart.
    #[test]
    fn the_last_of_many_changes_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let (tell, texts) = channel();
        let read = path.clone();
        let changed = move |_| drop(tell.send(fs::read_to_string(&read).unwrap()));
        let _watching = watch(vec![(0, path.clone())], changed).unwrap();
        for round in 0..20 {
            let until = Instant::now() + SETTLE * (round % 8);
            while Instant::now() < until {
                fs::write(&path, "first").unwrap();
            }
            let last = format!("{round:5}");
            fs::write(&path, &last).unwrap();
            while texts.recv_timeout(PATIENCE).unwrap() != last {}
        }
    }

    #[test]
    fn many_jobs_wait_for_one_file() {
        let case = Case::new(one, &["a", "a", "./a"]);
        case.write("a", "2");
        let mut due: Vec<_> = (0..3).map(|_| case.jobs.recv_timeout(PATIENCE).unwrap()).collect();
        due.sort_unstable();
        assert_eq!(due, [1, 2, 3]);
        case.nothing_else();
    }

    #[test]
    fn a_folder_may_be_on_the_way_to_one_file_and_have_another_in_it() {
        let make = |folder: &Path| {
            one(folder);
            fs::create_dir(folder.join("sub")).unwrap();
        };
        let case = Case::new(make, &["sub/b", "a", "sub/c"]);
        case.write("a", "2");
        case.due(2);
        case.write("sub/c", "2");
        case.due(3);
        case.nothing_else();
    }

    #[test]
    fn one_folder_is_watched_once_however_many_files_are_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let paths = (0..10_000).map(|index| folder.path().join(format!("{index}")));
        let files: Vec<_> = paths.enumerate().collect();
        for (_, path) in &files {
            fs::write(path, "").unwrap();
        }
        let deep = folder.path().canonicalize().unwrap().components().count();
        assert!(Watch::new(files.clone()).unwrap().folders.len() <= deep);
        let (tell, jobs) = channel();
        let _watching = watch(files, move |job| tell.send(job).unwrap_or_default()).unwrap();
        for job in [9_999, 0, 5_000] {
            fs::write(folder.path().join(format!("{job}")), "1").unwrap();
            assert_eq!(jobs.recv_timeout(PATIENCE), Ok(job));
        }
        let away = folder.path().with_extension("away");
        fs::rename(folder.path(), &away).unwrap();
        let mut due: Vec<_> = (0..10_000).map(|_| jobs.recv_timeout(PATIENCE).unwrap()).collect();
        due.sort_unstable();
        assert!(due.into_iter().eq(0..10_000));
        fs::rename(&away, folder.path()).unwrap();
        assert!((0..10_000).all(|_| jobs.recv_timeout(PATIENCE).is_ok()));
    }

    #[test]
    fn when_too_much_happens_everything_is_compared() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let (tell, jobs) = channel();
        let (go, wait) = channel();
        let changed = move |job| {
            let _ = tell.send(job);
            let _ = wait.recv();
        };
        let watching = watch(vec![(1, a.clone()), (2, b.clone())], changed).unwrap();
        fs::write(&a, "1").unwrap();
        assert_eq!(jobs.recv_timeout(PATIENCE), Ok(1));
        // Now it is held up, and the kernel forgets what does not fit.
        let fits = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let [mut here, mut there] = ["here", "there"].map(|name| folder.path().join(name));
        fs::write(&here, "").unwrap();
        // Each time something has gone and something has come.
        for _ in 0..=fits.trim().parse::<u32>().unwrap() / 2 {
            fs::rename(&here, &there).unwrap();
            std::mem::swap(&mut here, &mut there);
        }
        fs::write(&b, "2").unwrap();
        go.send(()).unwrap();
        loop {
            let job = jobs.recv_timeout(PATIENCE).unwrap();
            go.send(()).unwrap();
            if job == 2 {
                break;
            }
        }
        drop(go);
        drop(watching);
    }

    #[test]
    fn what_is_no_longer_on_the_way_is_no_longer_watched() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("1")).unwrap();
        fs::create_dir(folder.path().join("2")).unwrap();
        symlink("1", folder.path().join("current")).unwrap();
        let mut watch = Watch::new(vec![(0, folder.path().join("current/a"))]).unwrap();
        let kernels = format!("/proc/self/fdinfo/{}", watch.inotify.as_raw_fd());
        let watches = || fs::read_to_string(&kernels).unwrap().matches("inotify wd:").count();
        let folders = watch.folders.len();
        assert_eq!(watches(), folders);
        for to in ["2", "1", "2"] {
            fs::remove_file(folder.path().join("current")).unwrap();
            symlink(to, folder.path().join("current")).unwrap();
            watch.compare(vec![0], &|_| {});
            assert_eq!((watch.folders.len(), watches()), (folders, folders));
        }
    }

    #[test]
    fn links_in_a_circle_lead_nowhere_and_can_be_mended() {
        let make = |folder: &Path| {
            symlink("b", folder.join("a")).unwrap();
            symlink("a", folder.join("b")).unwrap();
        };
        let case = Case::new(make, &["a"]);
        case.nothing_else();
        fs::remove_file(case.at("b")).unwrap();
        case.write("c", "1");
        case.nothing_else();
        symlink("c", case.at("b")).unwrap();
        case.due(1);
        case.nothing_else();
    }

    #[test]
    fn nobody_is_told_anything_after_the_end() {
        let mut case = Case::new(one, &["a"]);
        case.write("a", "2");
        case.due(1);
        case.write("a", "3");
        let began = Instant::now();
        drop(case.watching.take());
        assert!(began.elapsed() < PATIENCE);
        while let Ok(job) = case.jobs.try_recv() {
            assert_eq!(job, 1);
        }
        assert_eq!(case.jobs.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn without_files_there_is_no_thread() {
        assert!(watch(Vec::new(), |_| {}).unwrap().0.is_none());
    }

    #[test]
    fn what_cannot_be_watched_is_named() {
        let folder = tempfile::tempdir().unwrap();
        one(folder.path());
        fs::create_dir(folder.path().join("sub")).unwrap();
        symlink("nowhere/b", folder.path().join("dangling")).unwrap();
        let check = |name: &str, why: &str| {
            let path = folder.path().join(name);
            let (named, error) =
                watch(vec![(0, folder.path().join("a")), (1, path.clone())], |_| {}).unwrap_err();
            assert_eq!((named, error.to_string().as_str()), (path, why));
        };
        check("absent/b", "its folder does not exist");
        check("a/b", "it would be in what is no folder");
        check("sub", "it is a folder");
        check("sub/..", "it is a folder");
        assert!(watch(vec![(0, folder.path().join("dangling"))], |_| {}).is_ok());
        assert!(watch(vec![(0, folder.path().join("b"))], |_| {}).is_ok());
    }

    #[test]
    fn what_would_help_is_said() {
        let check = |error: io::Error, help: &str| {
            assert!(error.to_string().contains(help), "{error}");
        };
        check(unwatched(Errno::NOSPC), "`fs.inotify.max_user_watches`");
        check(unwatched(Errno::ACCESS), "may not be read");
        check(unwatched(Errno::NOMEM), "memory");
        check(no_folder(&io::ErrorKind::PermissionDenied.into()), "permission denied");
    }
}
