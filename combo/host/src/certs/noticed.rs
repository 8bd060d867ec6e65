//! A file that changes -> whoever has read it looks again.
//!
//! Takes what is to be noticed: folders, in which any name counts, and files, wherever links lead. One thread waits
//! for what inotify tells of all of them and of the folders on the way, has it looked at 20 ms later, and again every
//! half minute, in case nothing was told. File systems of which the kernel does not know all that happens to them,
//! and whatever cannot be watched, are looked at every two seconds. It may also be said that there is something.
#![expect(clippy::disallowed_methods, reason = "this is where folders are watched, by a thread of its own")]

use std::{
    collections::{BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    fmt, io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    fs::{
        inotify::{self, ReadFlags},
        statfs,
    },
    io::Errno,
};

use super::shelf::Looked;
use crate::{
    local::KINDS,
    ways::{self, Walked, timespec},
};

/// How long after the first sign of a change it is looked at.
const SETTLE: Duration = Duration::from_millis(20);

/// How long after a change it is looked at once more.
const AFTERWARDS: Duration = Duration::from_millis(200);

/// How often it is looked at where changes are told of, and where not.
const LOOK: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(2));

/// The name that is looked up in a folder to have that watched. Nothing else begins with so many dots.
const UNNAMED: &str = "....";

/// What reads files that may change.
pub(crate) trait Noticed: Send + Sync {
    /// What it depends on now.
    fn ways(&self) -> Ways;

    /// Looks at the disk again.
    fn look_again(&self) -> Looked;

    /// What can wait until everything is served.
    fn at_leisure(&self) {}
}

/// Where something may happen. Paths are absolute.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    pub(crate) folders: Vec<PathBuf>,
    pub(crate) files: Vec<PathBuf>,
}

/// Files are noticed until this is dropped.
#[derive(Debug)]
pub(crate) struct Noticing {
    poke: Arc<OwnedFd>,
    over: Arc<AtomicBool>,
    asked: Arc<Asked>,
}

/// What is called after the next look, or at once if nobody looks any more.
struct Asked(Mutex<Option<Vec<Then>>>);

type Then = Box<dyn FnOnce() + Send>;

impl Asked {
    fn all(&self) -> MutexGuard<'_, Option<Vec<Then>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<Then> {
        self.all().as_mut().map(std::mem::take).unwrap_or_default()
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Asked").field(&self.all().as_ref().map(Vec::len)).finish()
    }
}

/// Lasts as long as somebody looks, however that ends.
struct Looking(Arc<Asked>);

impl Drop for Looking {
    fn drop(&mut self) {
        let asked = self.0.all().take();
        asked.into_iter().flatten().for_each(|then| then());
    }
}

impl Noticing {
    /// Has everything looked at now; then calls this, on the thread that looks.
    pub(crate) fn look(&self, then: impl FnOnce() + Send + 'static) {
        let mut asked = self.asked.all();
        let Some(all) = &mut *asked else {
            drop(asked);
            return then();
        };
        all.push(Box::new(then));
        drop(asked);
        self.poke();
    }

    fn poke(&self) {
        // It can only fail if it has been said very often.
        let _ = rustix::io::write(&self.poke, &1_u64.to_ne_bytes());
    }
}

impl Drop for Noticing {
    fn drop(&mut self) {
        // The thread is not waited for: it may be in the middle of a look at a disk that does not answer.
        self.over.store(true, Relaxed);
        self.poke();
    }
}

/// Notices for all of them; says which has something else now, on a thread of its own.
///
/// # Errors
///
/// There is no thread to be had, or nothing to wake it with.
pub(crate) fn notice(
    all: Vec<Arc<dyn Noticed>>,
    changed: impl Fn(usize) + Send + 'static,
) -> io::Result<Noticing> {
    let poke = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let over = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(Asked(Mutex::new(Some(Vec::new()))));
    let (heard, ends, looking) = (poke.clone(), over.clone(), Looking(asked.clone()));
    let attend = move || {
        let mut ears = Ears::new(all);
        if let Err(errno) = ears.attend(&heard, &ends, &looking.0, &changed) {
            tracing::error!(error = %io::Error::from(errno), "changes of certificates are no longer seen");
        }
    };
    drop(thread::Builder::new().name("combo-certificates".to_owned()).spawn(attend)?);
    Ok(Noticing { poke, over, asked })
}

/// All that the thread knows.
struct Ears {
    all: Vec<Arc<dyn Noticed>>,
    inotify: Option<OwnedFd>,
    /// Who is concerned by what happens in a folder, by its watch descriptor.
    folders: HashMap<i32, Concerned>,
    /// When each is looked at.
    due: Vec<Instant>,
    /// Those of which not everything is told.
    blind: Vec<bool>,
    /// A watch has ended, so that there may be another folder in the place of that one.
    lost: bool,
}

#[derive(Default)]
struct Concerned {
    by_any: BTreeSet<usize>,
    by_name: HashMap<OsString, BTreeSet<usize>>,
}

impl Ears {
    fn new(all: Vec<Arc<dyn Noticed>>) -> Self {
        let inotify = ways::listen().map_err(|error| {
            tracing::warn!(%error, "folders of certificates are looked at every two seconds");
        });
        let (due, blind) = (vec![Instant::now(); all.len()], vec![false; all.len()]);
        Self { all, inotify: inotify.ok(), folders: HashMap::new(), due, blind, lost: false }
    }

    fn attend(
        &mut self,
        poke: &OwnedFd,
        over: &AtomicBool,
        asked: &Asked,
        changed: &impl Fn(usize),
    ) -> Result<(), Errno> {
        self.follow();
        // What has happened since they were read.
        self.look(changed);
        for one in &self.all {
            if over.load(Relaxed) {
                return Ok(());
            }
            one.at_leisure();
        }
        loop {
            let now = Instant::now();
            let until = self.due.iter().min().map(|due| timespec(due.saturating_duration_since(now)));
            let mut ears = vec![PollFd::new(poke, PollFlags::IN)];
            ears.extend(self.inotify.as_ref().map(|inotify| PollFd::new(inotify, PollFlags::IN)));
            match poll(&mut ears, until.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
            let told: Vec<bool> = ears.iter().map(|ear| !ear.revents().is_empty()).collect();
            if over.load(Relaxed) {
                return Ok(());
            }
            // Who asks from now on pokes again.
            let mut then = Vec::new();
            if told[0] {
                let _ = rustix::io::read(poke, &mut [0; 8]);
                then = asked.take();
                self.due.fill(Instant::now());
            }
            if told.get(1) == Some(&true) {
                self.hear(Instant::now())?;
            }
            self.look(changed);
            then.into_iter().for_each(|then| then());
        }
    }

    /// Has everything looked at that is due.
    fn look(&mut self, changed: &impl Fn(usize)) {
        let now = Instant::now();
        let due: Vec<usize> = (0..self.all.len()).filter(|one| self.due[*one] <= now).collect();
        if due.is_empty() {
            return;
        }
        let looked: Vec<(usize, Looked)> =
            due.into_iter().map(|one| (one, self.all[one].look_again())).collect();
        // What was there to be watched may be another now, and something may have happened before it was.
        if looked.iter().any(|(_, looked)| looked.changed || looked.again.is_some())
            || self.is_blind()
            || self.lost
        {
            self.follow();
        }
        let now = Instant::now();
        for (one, looked) in looked {
            let usual = if self.blind[one] { LOOK.1 } else { LOOK.0 };
            // Once more after a change: a folder that is new is watched only now.
            let again = looked.again.or(looked.changed.then_some(AFTERWARDS));
            self.due[one] = now + again.unwrap_or(usual);
            if looked.changed {
                changed(one);
            }
        }
    }

    fn is_blind(&self) -> bool {
        self.blind.contains(&true)
    }

    /// Watches every folder that something may happen in, and none that it may not.
    fn follow(&mut self) {
        self.lost = false;
        let Some(inotify) = &self.inotify else {
            self.blind.fill(true);
            return;
        };
        let (mut walked, mut folders) = (Walked::default(), HashMap::<i32, Concerned>::new());
        for (one, noticed) in self.all.iter().enumerate() {
            let Ways { folders: inside, files } = noticed.ways();
            let mut blind = false;
            for (path, any) in
                inside.iter().map(|path| (path, true)).chain(files.iter().map(|path| (path, false)))
            {
                let at = if any { path.join(UNNAMED) } else { path.clone() };
                let (trail, end) = walked.walk(inotify, &at);
                blind |= end.is_err();
                for (wd, name) in trail {
                    let concerned = folders.entry(wd).or_default();
                    let by = if any && name == UNNAMED {
                        &mut concerned.by_any
                    } else {
                        concerned.by_name.entry(name).or_default()
                    };
                    let _ = by.insert(one);
                }
            }
            let file = inside.first().or(files.first());
            blind |= file.is_some_and(|path| !is_local(path));
            self.blind[one] = blind;
        }
        for wd in self.folders.keys().filter(|wd| !folders.contains_key(wd)) {
            // It fails if the kernel has ended it already.
            let _ = inotify::remove_watch(inotify, *wd);
        }
        self.folders = folders;
    }

    /// Takes a buffer full of what the kernel has to tell.
    fn hear(&mut self, now: Instant) -> Result<(), Errno> {
        let Self { inotify, folders, due, lost, .. } = self;
        let Some(inotify) = inotify else { return Ok(()) };
        let all = due.len();
        let mut sign = |one: &usize| due[*one] = due[*one].min(now + SETTLE);
        ways::hear(inotify, |event| {
            let concerned = folders.get(&event.wd());
            *lost |= event.events().contains(ReadFlags::IGNORED);
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                (0..all).for_each(|one| sign(&one));
            } else if let Some(Concerned { by_any, by_name }) = concerned {
                by_any.iter().for_each(&mut sign);
                match event.file_name() {
                    Some(name) => {
                        let by = by_name.get(OsStr::from_bytes(name.to_bytes()));
                        by.into_iter().flatten().for_each(&mut sign);
                    }
                    // The folder itself is gone, or another.
                    None => by_name.values().flatten().for_each(&mut sign),
                }
            }
        })
    }
}

/// Whether the kernel sees all changes of what is there.
fn is_local(path: &std::path::Path) -> bool {
    statfs(path).is_ok_and(|system| KINDS.contains(&(system.f_type as u32)))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Far longer than anything takes.
    const LONG: Duration = Duration::from_secs(30);

    /// Says that it is looked at, and waits until it may go on.
    struct Slow {
        looks: Mutex<Sender<()>>,
        go_on: Mutex<Receiver<()>>,
    }

    impl Noticed for Slow {
        fn ways(&self) -> Ways {
            Ways::default()
        }

        fn look_again(&self) -> Looked {
            let _ = self.looks.lock().expect("no panic").send(());
            let _ = self.go_on.lock().expect("no panic").recv();
            Looked::default()
        }
    }

    fn slow() -> (Noticing, Receiver<()>, Sender<()>) {
        let ((looks, looked), (let_on, go_on)) = (channel(), channel());
        let slow = Arc::new(Slow { looks: Mutex::new(looks), go_on: Mutex::new(go_on) });
        (notice(vec![slow], |_| ()).expect("a thread"), looked, let_on)
    }

    #[test]
    fn nobody_waits_for_a_disk_that_does_not_answer() {
        let (noticing, looked, _let_on) = slow();
        looked.recv_timeout(LONG).expect("a look");
        let (tell, told) = channel();
        drop(thread::spawn(move || {
            drop(noticing);
            let _ = tell.send(());
        }));
        told.recv_timeout(LONG).expect("nobody has waited");
    }

    #[test]
    fn it_is_said_when_a_look_is_over() {
        let (noticing, looked, let_on) = slow();
        let (tell, told) = channel();
        let ask = |what: &'static str| {
            let tell = tell.clone();
            noticing.look(move || tell.send(what).unwrap_or_default());
        };
        looked.recv_timeout(LONG).expect("the first look");
        ask("during the first");
        let_on.send(()).expect("a thread");
        looked.recv_timeout(LONG).expect("the second look");
        assert!(told.try_recv().is_err());
        ask("during the second");
        let_on.send(()).expect("a thread");
        assert_eq!(told.recv_timeout(LONG), Ok("during the first"));
        looked.recv_timeout(LONG).expect("the third look");
        assert!(told.try_recv().is_err());
        // Whatever ends the thread, nobody waits for ever.
        noticing.over.store(true, Relaxed);
        drop(let_on);
        assert_eq!(told.recv_timeout(LONG), Ok("during the second"));
        while noticing.asked.all().is_some() {
            noticing.poke();
            thread::yield_now();
        }
        ask("when nobody looks");
        assert_eq!(told.recv_timeout(LONG), Ok("when nobody looks"));
    }
}
