//! What is kept beside the certificates, in `DIR/.acme`: who looks after the folder, accounts, what became of
//! orders, and certificates that were issued and are not in their files yet.
//!
//! Everything in it is readable for its owner alone (mode 600 in 700) and is written to a file of another name,
//! flushed and renamed. What cannot be read is moved aside and said, so that the work goes on without it.
#![expect(clippy::disallowed_methods, reason = "it is on disk")]

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, DirBuilder, File, FileTimes, OpenOptions, Permissions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use combo_core::stable_hash;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};
use serde::{Serialize, de::DeserializeOwned};

use super::renewal::Memory;

/// The folder in the folder.
pub(super) const FOLDER: &str = ".acme";

const ORDERS: &str = "orders.json";
const OBTAINED: &str = "obtained";

/// What the names of files that are being written begin with.
const STAGED: &str = ".tmp";

/// The notes of a folder, and the right to keep them, until this is dropped.
#[derive(Debug)]
pub(super) struct Notes {
    folder: PathBuf,
    unwritten: Mutex<Unwritten>,
    _lock: Lock,
}

/// What could not be written and is known to this process alone.
#[derive(Default)]
struct Unwritten {
    memory: Option<Memory>,
    obtained: BTreeMap<String, String>,
}

/// Keys are nobody's business.
impl fmt::Debug for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let obtained: Vec<_> = self.obtained.keys().collect();
        f.debug_struct("Unwritten").field("memory", &self.memory).field("obtained", &obtained).finish()
    }
}

/// Why there are no notes.
#[derive(Debug)]
pub(super) enum Unkept {
    /// Another process keeps them; its id.
    By(String),
    Io(io::Error),
}

impl From<io::Error> for Unkept {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Notes {
    /// Opens the notes of a folder of certificates, which are made if there are none.
    pub(super) fn open(certificates: &Path) -> Result<Self, Unkept> {
        let folder = certificates.join(FOLDER);
        let owner = fs::metadata(certificates)?.uid();
        make(&folder, owner)?;
        make(&folder.join(OBTAINED), owner)?;
        let lock = Lock::take(&folder)?;
        for of in [folder.clone(), folder.join(OBTAINED)] {
            sweep(&of)?;
        }
        Ok(Self { folder, unwritten: Mutex::default(), _lock: lock })
    }

    /// Asks the process that keeps them to look now.
    pub(super) fn ask(certificates: &Path) -> io::Result<()> {
        let now = SystemTime::now();
        // Nobody is told of a folder of which only one of the two was set.
        File::open(certificates)?.set_times(FileTimes::new().set_accessed(now).set_modified(now))
    }

    /// What is remembered of the folder.
    pub(super) fn memory(&self) -> io::Result<Memory> {
        if let Some(memory) = &self.unwritten().memory {
            return Ok(memory.clone());
        }
        Ok(self.read(&self.folder.join(ORDERS))?.unwrap_or_default())
    }

    /// Remembers this, in this process at least.
    pub(super) fn remember(&self, memory: &Memory) -> io::Result<()> {
        let written = json(memory).and_then(|text| self.write(&self.folder, ORDERS, &text));
        self.unwritten().memory = written.is_err().then(|| memory.clone());
        written
    }

    /// What is kept of the account at this directory.
    pub(super) fn account<T: DeserializeOwned>(&self, directory: &str) -> io::Result<Option<T>> {
        self.read(&self.folder.join(account(directory)))
    }

    pub(super) fn keep_account(&self, directory: &str, kept: &impl Serialize) -> io::Result<()> {
        self.write(&self.folder, &account(directory), &json(kept)?)
    }

    /// Moves aside what is kept of the account at this directory.
    pub(super) fn forget_account(&self, directory: &str) -> io::Result<()> {
        set_aside(&self.folder.join(account(directory))).map(drop)
    }

    /// What was issued for a file.
    pub(super) fn obtained(&self, file: &str) -> io::Result<Option<String>> {
        if let Some(pem) = self.unwritten().obtained.get(file) {
            return Ok(Some(pem.clone()));
        }
        match fs::read_to_string(self.folder.join(OBTAINED).join(file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    /// Keeps what was issued for a file, in this process at least.
    pub(super) fn keep_obtained(&self, file: &str, pem: &str) -> io::Result<()> {
        let written = self.write(&self.folder.join(OBTAINED), file, pem.as_bytes());
        let mut unwritten = self.unwritten();
        drop(unwritten.obtained.remove(file));
        if written.is_err() {
            drop(unwritten.obtained.insert(file.to_owned(), pem.to_owned()));
        }
        written
    }

    pub(super) fn forget_obtained(&self, file: &str) -> io::Result<()> {
        drop(self.unwritten().obtained.remove(file));
        match fs::remove_file(self.folder.join(OBTAINED).join(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn unwritten(&self) -> MutexGuard<'_, Unwritten> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T: DeserializeOwned>(&self, path: &Path) -> io::Result<Option<T>> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        match serde_json::from_slice(&text) {
            Ok(read) => Ok(Some(read)),
            Err(error) => {
                let aside = set_aside(path)?;
                let (path, aside) = (path.display(), aside.display());
                tracing::error!("`{path}` cannot be read and is now `{aside}`: {error}");
                Ok(None)
            }
        }
    }

    fn write(&self, folder: &Path, name: &str, text: &[u8]) -> io::Result<()> {
        let mut staged = tempfile::Builder::new().prefix(STAGED).tempfile_in(folder)?;
        staged.write_all(text)?;
        staged.as_file().sync_all()?;
        drop(staged.persist(folder.join(name)).map_err(|error| error.error)?);
        File::open(folder)?.sync_all()
    }
}

/// Takes away what a process that was killed had begun to write.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(STAGED) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What is remembered of a folder, for whoever only wants to know.
pub(super) fn glance(certificates: &Path) -> Memory {
    let text = fs::read(certificates.join(FOLDER).join(ORDERS)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

/// A folder for its owner alone: this process, or whoever the certificates belong to. One that somebody else has
/// put there is not believed.
fn make(folder: &Path, owner: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made,
    }
    let found = fs::symlink_metadata(folder)?;
    let no = |why: &str| io::Error::other(format!("`{}` {why}", folder.display()));
    if !found.is_dir() {
        return Err(no("is no folder"));
    }
    if ![owner, rustix::process::geteuid().as_raw()].contains(&found.uid()) {
        return Err(no("belongs to somebody else"));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Gives a file another name, which is returned.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = path.with_extension("broken");
    match fs::rename(path, &aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(aside),
    }
}

/// The file of the account at a directory: its host for people to read, and what tells it from others.
fn account(directory: &str) -> String {
    let host =
        directory.split("://").last().and_then(|rest| rest.split(['/', ':']).next()).unwrap_or_default();
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')).collect();
    format!("account-{host}-{:016x}.json", stable_hash(directory.bytes()))
}

/// A lock on a file for as long as it is open (an open file description lock, `fcntl(2)`): a process that is
/// killed lets go of it.
#[derive(Debug)]
struct Lock(File);

impl Lock {
    fn take(folder: &Path) -> Result<Self, Unkept> {
        let mut options = OpenOptions::new();
        let _ = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        // What is behind a link is not ours to write to.
        let _ = options.custom_flags(libc::O_NOFOLLOW);
        let mut lock = Self(options.open(folder.join("lock"))?);
        if !lock.set(libc::F_WRLCK)? {
            let mut said = String::new();
            let _ = lock.0.read_to_string(&mut said);
            return Err(Unkept::By(said.trim().to_owned()));
        }
        // Who keeps it is only for people to read.
        let said = lock.0.set_len(0).and_then(|()| lock.0.rewind());
        let _ = said.and_then(|()| writeln!(lock.0, "{}", std::process::id()));
        Ok(lock)
    }

    fn set(&self, kind: libc::c_int) -> io::Result<bool> {
        let lock = libc::flock {
            l_type: i16::try_from(kind).unwrap_or_default(),
            l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        match fcntl(&self.0, FcntlArg::F_OFD_SETLK(&lock)) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// A process that is just being started may have the file open as well, so that closing it is not enough.
impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.set(libc::F_UNLCK);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[test]
    fn what_is_kept_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let notes = Notes::open(folder.path()).expect("notes");
        notes.remember(&Memory::default()).expect("written");
        notes.keep_account("https://a.example/dir", &1).expect("written");
        notes.keep_obtained("a.pem", "pem").expect("written");
        let own = folder.path().join(FOLDER);
        assert_eq!((mode(&own), mode(&own.join(OBTAINED))), (0o700, 0o700));
        let mut files = 0;
        for entry in
            [own.clone(), own.join(OBTAINED)].iter().flat_map(|of| fs::read_dir(of).expect("a folder"))
        {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                files += 1;
                assert_eq!(mode(&path), 0o600, "{}", path.display());
            }
        }
        assert_eq!(files, 4);
        assert_eq!(notes.obtained("a.pem").expect("read").as_deref(), Some("pem"));
        notes.forget_obtained("a.pem").expect("gone");
        notes.forget_obtained("a.pem").expect("still gone");
        assert_eq!(notes.obtained("a.pem").expect("none"), None);
    }

    #[test]
    fn what_somebody_else_has_put_there_is_not_believed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (own, away) = (folder.path().join(FOLDER), folder.path().join("away"));
        let refused = || match Notes::open(folder.path()) {
            Err(Unkept::Io(error)) => error.to_string(),
            other => panic!("{other:?}"),
        };
        fs::create_dir(&away).expect("a folder");
        symlink(&away, &own).expect("a link");
        assert_eq!(refused(), format!("`{}` is no folder", own.display()));
        fs::remove_file(&own).expect("gone");
        fs::create_dir(&own).expect("a folder");
        fs::write(away.join("precious"), "text").expect("written");
        symlink(away.join("precious"), own.join("lock")).expect("a link");
        let _ = refused();
        assert_eq!(fs::read_to_string(away.join("precious")).expect("read"), "text");
        fs::remove_file(own.join("lock")).expect("gone");
        // Readable for others, as it may have come out of a backup.
        fs::set_permissions(&own, Permissions::from_mode(0o755)).expect("changed");
        drop(Notes::open(folder.path()).expect("notes"));
        assert_eq!(mode(&own), 0o700);
    }

    #[test]
    fn what_is_broken_is_moved_aside_and_the_work_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let left = folder.path().join(FOLDER).join(".tmpAbCdEf");
        drop(Notes::open(folder.path()).expect("notes"));
        fs::write(&left, "half").expect("written");
        let notes = Notes::open(folder.path()).expect("notes");
        assert!(!left.exists());
        let orders = folder.path().join(FOLDER).join(ORDERS);
        fs::write(&orders, "{ not json").expect("written");
        assert_eq!(notes.memory().expect("none"), Memory::default());
        assert!(!orders.exists() && orders.with_extension("broken").exists());
        let url = "https://a.example/dir";
        notes.keep_account(url, &7).expect("written");
        assert_eq!(notes.account::<u8>(url).expect("read"), Some(7));
        assert_eq!(notes.account::<u8>("https://b.example/dir").expect("none"), None);
        fs::write(folder.path().join(FOLDER).join(account(url)), "").expect("written");
        assert_eq!(notes.account::<u8>(url).expect("none"), None);
    }

    #[test]
    fn what_cannot_be_written_is_known_to_this_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let notes = Notes::open(folder.path()).expect("notes");
        notes.remember(&Memory::default()).expect("written");
        let own = folder.path().join(FOLDER);
        fs::rename(&own, folder.path().join("away")).expect("moved");
        let begun = vec![combo_core::Timestamp::UNIX_EPOCH];
        let memory = Memory { begun, ..Memory::default() };
        let _ = notes.remember(&memory).expect_err("there is no such folder");
        let _ = notes.keep_obtained("a.pem", "pem").expect_err("there is no such folder");
        assert_eq!(notes.memory().expect("it is known"), memory);
        assert_eq!(notes.obtained("a.pem").expect("it is known").as_deref(), Some("pem"));
        fs::rename(folder.path().join("away"), &own).expect("moved back");
        notes.remember(&Memory::default()).expect("written");
        notes.forget_obtained("a.pem").expect("gone");
        assert_eq!(notes.memory().expect("read"), Memory::default());
        assert_eq!(notes.obtained("a.pem").expect("none"), None);
    }

    #[test]
    fn one_process_looks_after_a_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let notes = Notes::open(folder.path()).expect("notes");
        match Notes::open(folder.path()) {
            Err(Unkept::By(pid)) => assert_eq!(pid, std::process::id().to_string()),
            other => panic!("{other:?}"),
        }
        drop(notes);
        drop(Notes::open(folder.path()).expect("notes"));
    }

    #[test]
    fn an_account_is_known_by_its_directory() {
        let name = account("https://acme-v02.api.letsencrypt.org/directory");
        assert!(
            name.starts_with("account-acme-v02.api.letsencrypt.org-") && name.ends_with(".json"),
            "{name}"
        );
        assert_ne!(name, account("https://acme-v02.api.letsencrypt.org/other"));
        assert!(!account("https://../../x:14000/dir").contains('/'));
    }
}
