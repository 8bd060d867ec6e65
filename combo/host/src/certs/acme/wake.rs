//! an empty file, a list of names, a name that is wanted, an instant -> the job is due.
//!
//! Waits on the runtime it is called on. Where nothing is told of changes, as over a network, an empty file is
//! found when the job is due anyway. Touching the folder itself has the job look as well.
#![expect(clippy::disallowed_methods, reason = "it waits in a task of its own, for the clock and the disk")]

use std::{
    io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use combo_core::Timestamp;
use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};
use tokio::{io::unix::AsyncFd, sync::watch, task::AbortHandle};

use super::{
    asked::{NAMES, PEM},
    look::BLANK,
    wanted::Wanted,
};
use crate::serve::listen::readable;

/// How long after the first sign the job is due, so that several files are one tick.
const SETTLE: Duration = Duration::from_millis(200);

/// The wall clock may be set meanwhile.
const LONGEST: Duration = Duration::from_secs(60);

/// How often it is looked whether the folder is still the same one.
const GLANCE: Duration = Duration::from_secs(5);

/// What says that a folder is not where it was.
const GONE: ReadFlags =
    ReadFlags::DELETE_SELF.union(ReadFlags::MOVE_SELF).union(ReadFlags::UNMOUNT).union(ReadFlags::IGNORED);

/// What tells the job when it is due again.
pub(crate) type Next = watch::Sender<Option<Timestamp>>;

/// What is waited for.
#[derive(Debug)]
pub(crate) struct Waking {
    pub(crate) folder: PathBuf,
    pub(crate) wanted: Wanted,
    pub(crate) next: watch::Receiver<Option<Timestamp>>,
}

/// Waits until this is dropped.
#[derive(Debug)]
pub(crate) struct Awake(AbortHandle);

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Waking {
    /// Says that the job is due: now, and then whenever there is a reason.
    pub(crate) fn wake(self, poke: impl Fn() + Send + 'static) -> Awake {
        let watch = Watch::new(self.folder.clone());
        Awake(tokio::spawn(self.wait(watch, poke)).abort_handle())
    }

    async fn wait(mut self, mut watch: Watch, poke: impl Fn()) {
        let mut last = None;
        loop {
            poke();
            loop {
                // What was said once is not said again while the job is at it.
                let next = self.next.borrow_and_update().filter(|next| Some(*next) != last);
                tokio::select! {
                    () = watch.sign() => break,
                    () = self.wanted.some() => break,
                    // It is due at another time now.
                    changed = self.next.changed() => {
                        if changed.is_err() {
                            return;
                        }
                    }
                    () = until(next) => {
                        if next.is_some_and(|next| next <= Timestamp::now()) {
                            last = next;
                            break;
                        }
                    }
                }
            }
            tokio::time::sleep(SETTLE).await;
        }
    }
}

async fn until(next: Option<Timestamp>) {
    let Some(next) = next else { return std::future::pending().await };
    let wait = next.duration_since(Timestamp::now()).try_into().unwrap_or(Duration::ZERO);
    // What is due in the same instant again and again does not take a processor.
    tokio::time::sleep(wait.clamp(SETTLE, LONGEST)).await;
}

/// A folder that is watched, whichever that is now.
struct Watch {
    folder: PathBuf,
    watched: Option<Watched>,
}

struct Watched {
    told: AsyncFd<OwnedFd>,
    /// Its device and number.
    which: (u64, u64),
}

/// What comes of waiting.
#[derive(Debug, PartialEq, Eq)]
enum Sign {
    Look,
    /// There is no more to be heard of this folder.
    Gone,
}

impl Watch {
    fn new(folder: PathBuf) -> Self {
        let mut watch = Self { folder, watched: None };
        if let Err(error) = watch.again() {
            let folder = watch.folder.display();
            tracing::warn!(
                "nothing tells of new files in `{folder}`, so they are found within the hour: {error}"
            );
        }
        watch
    }

    fn again(&mut self) -> io::Result<()> {
        self.watched = None;
        let told = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let what = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::ATTRIB | WatchFlags::ONLYDIR;
        let itself = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        // If it is another one already, that is seen at the next glance.
        let which = which(&self.folder)?;
        let _ = inotify::add_watch(&told, &self.folder, what | itself)?;
        self.watched = Some(Watched { told: readable(told)?, which });
        Ok(())
    }

    /// Waits for a reason to look. May be dropped at any time.
    async fn sign(&mut self) {
        loop {
            tokio::select! {
                sign = signs(self.watched.as_ref().map(|watched| &watched.told), &self.folder) => match sign {
                    Sign::Look => return,
                    Sign::Gone => self.watched = None,
                },
                () = tokio::time::sleep(GLANCE) => {}
            }
            let folder = self.folder.clone();
            let found = tokio::task::spawn_blocking(move || which(&folder)).await;
            let found = found.ok().and_then(Result::ok);
            // Another one, to which a link leads now perhaps, may have files in it.
            if found.is_some() && found != self.watched.as_ref().map(|watched| watched.which) {
                match self.again() {
                    Ok(()) => return,
                    Err(error) => tracing::debug!("`{}` is not watched: {error}", self.folder.display()),
                }
            }
        }
    }
}

fn which(folder: &Path) -> io::Result<(u64, u64)> {
    std::fs::metadata(folder).map(|found| (found.dev(), found.ino()))
}

/// Waits for a file that is a reason to look.
async fn signs(told: Option<&AsyncFd<OwnedFd>>, folder: &Path) -> Sign {
    let Some(told) = told else { return std::future::pending().await };
    loop {
        let Ok(mut ready) = told.readable().await else { return Sign::Gone };
        let mut buffer = [MaybeUninit::uninit(); 4 * 1024];
        let mut reader = inotify::Reader::new(told.get_ref(), &mut buffer);
        let mut sign = None;
        loop {
            match reader.next() {
                Ok(event) if event.events().intersects(GONE) => sign = Some(Sign::Gone),
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                    sign = sign.or(Some(Sign::Look));
                }
                Ok(event) => {
                    let is_sign = match event.file_name().map(|name| name.to_string_lossy()) {
                        Some(name) => is_sign(folder, &name),
                        None => event.events().contains(ReadFlags::ATTRIB),
                    };
                    sign = sign.or(is_sign.then_some(Sign::Look));
                }
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => break,
                Err(error) => {
                    tracing::warn!("nothing tells of new files in `{}`: {error}", folder.display());
                    return Sign::Gone;
                }
            }
        }
        ready.clear_ready();
        if let Some(sign) = sign {
            return sign;
        }
    }
}

fn is_sign(folder: &Path, name: &str) -> bool {
    if name.starts_with('.') {
        return false;
    }
    let blank = || std::fs::metadata(folder.join(name)).is_ok_and(|found| found.len() <= BLANK);
    name.ends_with(NAMES) || (name.ends_with(PEM) && blank())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use tokio::sync::mpsc;

    use super::*;
    use crate::certs::acme::notes::Notes;

    #[tokio::test]
    async fn what_is_a_reason_to_look_makes_the_job_due() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_owned();
        let wanted = Wanted::new(vec!["a.example.com".into()]);
        let (next, waiting) = watch::channel(None);
        let (poked, mut pokes) = mpsc::unbounded_channel();
        let waking = Waking { folder: path.clone(), wanted: wanted.clone(), next: waiting };
        let awake = waking.wake(move || poked.send(()).expect("somebody waits"));
        let mut poke = async || pokes.recv().await.expect("it is due");
        // At the start.
        poke().await;
        fs::write(path.join("a.pem"), "").expect("written");
        poke().await;
        fs::write(path.join("a.names"), "a.example.com").expect("written");
        poke().await;
        assert!(wanted.want("a.example.com"));
        poke().await;
        next.send(Some(Timestamp::now())).expect("somebody waits");
        poke().await;
        next.send(None).expect("somebody waits");
        Notes::ask(&path).expect("touched");
        poke().await;
        // What is somebody else's is none.
        fs::write(path.join("b.pem"), "a certificate").expect("written");
        fs::write(path.join(".c.pem"), "").expect("written");
        fs::write(path.join("c.txt"), "").expect("written");
        tokio::time::sleep(SETTLE * 3).await;
        assert!(pokes.is_empty());
        drop(awake);
        assert!(pokes.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_folder_that_is_replaced_is_watched_again() {
        let root = tempfile::tempdir().expect("a folder");
        let [one, other, link] = ["one", "other", "link"].map(|name| root.path().join(name));
        fs::create_dir(&one).expect("a folder");
        fs::create_dir(&other).expect("a folder");
        symlink(&one, &link).expect("a link");
        let mut watch = Watch::new(link.clone());
        let mut sign = async || {
            let limit = Duration::from_secs(60);
            tokio::time::timeout(limit, watch.sign()).await.expect("a sign");
        };
        fs::remove_file(&link).expect("gone");
        symlink(&other, &link).expect("a link");
        // That there is another one is a reason to look.
        sign().await;
        fs::write(other.join("a.pem"), "").expect("written");
        sign().await;
        fs::rename(&other, root.path().join("away")).expect("moved");
        fs::create_dir(&other).expect("a folder");
        sign().await;
        fs::write(other.join("a.pem"), "").expect("written");
        sign().await;
        fs::remove_dir_all(&other).expect("gone");
        fs::create_dir(&other).expect("a folder");
        sign().await;
        fs::write(other.join("a.pem"), "").expect("written");
        sign().await;
    }

    #[tokio::test]
    async fn what_is_due_once_is_said_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let (next, waiting) = watch::channel(None);
        let (poked, mut pokes) = mpsc::unbounded_channel();
        let wanted = Wanted::new(Vec::new());
        let waking = Waking { folder: folder.path().to_owned(), wanted, next: waiting };
        let _awake = waking.wake(move || poked.send(()).expect("somebody waits"));
        pokes.recv().await.expect("it is due");
        next.send(Some(Timestamp::now())).expect("somebody waits");
        pokes.recv().await.expect("it is due");
        // The job takes its time.
        tokio::time::sleep(SETTLE * 5).await;
        assert!(pokes.is_empty());
    }
}
