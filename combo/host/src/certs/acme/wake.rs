//! an empty file, a list of names, a name that is wanted, an instant -> the job is due.
//!
//! Waits on the runtime it is called on. Where nothing is told of changes, as over a network, an empty file is
//! found when the job is due anyway. Touching the folder itself has the job look as well.
#![expect(clippy::disallowed_methods, reason = "it waits in a task of its own, for the clock and the disk")]

use std::{
    mem::MaybeUninit,
    os::fd::OwnedFd,
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
        let told = told(&self.folder);
        if let Err(error) = &told {
            let folder = self.folder.display();
            tracing::warn!(
                "nothing tells of new files in `{folder}`, so they are found within the hour: {error}"
            );
        }
        Awake(tokio::spawn(self.wait(told.ok(), poke)).abort_handle())
    }

    async fn wait(mut self, told: Option<AsyncFd<OwnedFd>>, poke: impl Fn()) {
        loop {
            poke();
            loop {
                let next = *self.next.borrow_and_update();
                tokio::select! {
                    () = signs(told.as_ref(), &self.folder) => break,
                    () = self.wanted.some() => break,
                    // It is due at another time now.
                    changed = self.next.changed() => {
                        if changed.is_err() {
                            return;
                        }
                    }
                    () = until(next) => {
                        if next.is_some_and(|next| next <= Timestamp::now()) {
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

fn told(folder: &Path) -> std::io::Result<AsyncFd<OwnedFd>> {
    let told = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let what = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::ATTRIB | WatchFlags::ONLYDIR;
    let _ = inotify::add_watch(&told, folder, what)?;
    readable(told)
}

/// Waits for a file that is a reason to look.
async fn signs(told: Option<&AsyncFd<OwnedFd>>, folder: &Path) {
    let Some(told) = told else { return std::future::pending().await };
    loop {
        let Ok(mut ready) = told.readable().await else { return std::future::pending().await };
        let mut buffer = [MaybeUninit::uninit(); 4 * 1024];
        let mut reader = inotify::Reader::new(told.get_ref(), &mut buffer);
        let mut sign = false;
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => sign = true,
                Ok(event) => match event.file_name().map(|name| name.to_string_lossy()) {
                    Some(name) => sign |= is_sign(folder, &name),
                    None => sign |= event.events().contains(ReadFlags::ATTRIB),
                },
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        ready.clear_ready();
        if sign {
            return;
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
    use std::fs;

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
}
