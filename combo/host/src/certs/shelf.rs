//! what was found -> what handshakes take from.
//!
//! A handshake looks a host up in one table and touches no disk, however many certificates there are. Their keys are
//! parsed by whoever watches the folder; at the start a handshake may be there first, and parses the one that it needs.
//! What is made for hosts below `localhost` is behind a lock.
//! Of what changes on the disk only that is read again; where it is broken, that is said once and the old one stays,
//! and so it does while its file is empty. What is removed is gone.
#![expect(
    clippy::disallowed_methods,
    reason = "whether a certificate has expired is a question of the clock"
)]

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use combo_core::Timestamp;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};

use super::{
    dev::{self, Dev},
    found::{self, Broken, Listing, Material, Source, Stamp},
    leaf::Leaf,
    names::{Name, Table, claims},
    noticed::{Noticed, Ways},
};
use crate::{error::chain, looks::coarse_now};

/// What is broken may be in the middle of being written: so long nothing is said of it.
const PATIENCE: Duration = Duration::from_millis(400);

/// When it is tried again after the system was not able to read something.
const RETRY: Duration = Duration::from_secs(2);

/// Where certificates are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// A folder of them.
    Folder(PathBuf),
    /// One, for everybody.
    Pair { key: PathBuf, cert: PathBuf },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) | Self::Pair { cert: path, .. } => path.display().fmt(f),
        }
    }
}

/// One certificate with its chain and key.
pub(crate) struct Pair {
    pub(crate) leaf: Leaf,
    name: Option<Name>,
    unread: Mutex<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>>,
    ready: OnceLock<Result<Arc<CertifiedKey>, Broken>>,
}

impl Pair {
    fn new(name: Option<Name>, material: Material) -> Self {
        let Material { chain, key, leaf } = material;
        Self { leaf, name, unread: Mutex::new(Some((chain, key))), ready: OnceLock::new() }
    }

    /// Parses the key if nobody has.
    fn certified(&self) -> Result<&Arc<CertifiedKey>, Broken> {
        let ready = self.ready.get_or_init(|| {
            let unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner).take();
            let (chain, key) = unread.ok_or(Broken::Key)?;
            found::certified(chain, key).map(Arc::new)
        });
        ready.as_ref().map_err(Clone::clone)
    }

    fn names(&self) -> String {
        let mut names: Vec<_> = self.name.iter().chain(&self.leaf.names).map(ToString::to_string).collect();
        names.dedup();
        names.join(", ")
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("name", &self.name).field("leaf", &self.leaf).finish_non_exhaustive()
    }
}

/// The certificates of an endpoint.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) place: Place,
    shown: ArcSwap<Table<Arc<Pair>>>,
    known: Mutex<Known>,
    /// What makes those for hosts below `localhost`.
    dev: Option<Arc<Dev>>,
}

/// What has been seen on the disk.
#[derive(Debug, Default)]
struct Known {
    /// By the file with the certificate.
    files: HashMap<PathBuf, File>,
    empty: BTreeSet<PathBuf>,
    folders: Vec<PathBuf>,
    links: Vec<PathBuf>,
    /// What has been said of the folder.
    trouble: Option<String>,
    /// Of which folders in it that they cannot be looked into, and why.
    unseen: Vec<(PathBuf, Broken)>,
    /// Of which keys it has been said that others may read them.
    exposed: HashSet<PathBuf>,
    loaded: bool,
}

#[derive(Debug)]
struct File {
    source: Source,
    stamp: Option<Stamp>,
    /// It was changed so recently that it may be changed again and look the same.
    young: bool,
    broken: Option<Broken>,
    /// What has been said of it.
    said: Option<Broken>,
    shown: Option<Arc<Pair>>,
}

/// What has come of a look at the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Looked {
    /// Something else is shown now, or asked for.
    pub(crate) changed: bool,
    /// It is not over: it should be looked again so much later.
    pub(crate) again: Option<Duration>,
}

impl Looked {
    fn soon(&mut self, pause: Duration) {
        self.again = Some(self.again.map_or(pause, |again| again.min(pause)));
    }
}

impl Shelf {
    /// Reads what there is, but parses no key.
    ///
    /// # Errors
    ///
    /// The folder cannot be looked into. What is broken in it is said in the log.
    pub(crate) fn open(place: Place) -> Result<Self, std::io::Error> {
        let shelf = Self { place, shown: ArcSwap::default(), known: Mutex::default(), dev: None };
        if let Place::Folder(folder) = &shelf.place {
            let listing = found::list(folder)?;
            let _ = shelf.take(listing, false);
            let (shown, known) = (shelf.shown.load(), shelf.known());
            let certificates = known.files.values().filter(|file| file.shown.is_some()).count();
            let (empty, folder) = (known.empty.len(), folder.display());
            match certificates + empty {
                0 => tracing::warn!(%folder, "there is no certificate, so no handshake will succeed"),
                _ => tracing::info!(%folder, certificates, empty, "certificates are read"),
            }
            if empty > 0 {
                tracing::info!(%folder, files = empty, "empty files ask for a certificate");
            }
            if certificates > 0 && shown.fallback().is_none() {
                tracing::debug!(%folder, "who names no host is refused: there is no `DEFAULT.pem`");
            }
        }
        Ok(shelf)
    }

    /// One certificate for everybody, with its key.
    ///
    /// # Errors
    ///
    /// It is broken.
    pub(crate) fn of_one(place: Place) -> Result<Self, (Place, Broken)> {
        let shelf = Self { place, shown: ArcSwap::default(), known: Mutex::default(), dev: None };
        let _ = shelf.look(true);
        let broken = shelf.known().files.values().find_map(|file| file.broken.clone());
        match broken {
            Some(broken) => Err((shelf.place, broken)),
            None => Ok(shelf),
        }
    }

    /// The same, and some are made for hosts that ask for them.
    pub(crate) fn with(self, dev: Arc<Dev>) -> Self {
        Self { dev: Some(dev), ..self }
    }

    /// What is shown to whoever names this host, in lower case, or none; `otherwise` says whether no host, or one that
    /// there is nothing for, gets the default. Called in every handshake.
    pub(crate) fn find(&self, host: Option<&str>, otherwise: bool) -> Option<Arc<CertifiedKey>> {
        let shown = self.shown.load();
        let default = || if otherwise { shown.fallback() } else { None };
        let pair = match host {
            Some(host) => {
                if let Some(made) = self.dev.as_ref().and_then(|dev| dev.below_localhost(host)) {
                    return Some(made);
                }
                shown.named(host, is_good).or_else(default)?
            }
            None => default()?,
        };
        pair.certified().ok().cloned()
    }

    /// Whether there is something for this host.
    pub(crate) fn has(&self, host: Option<&str>, otherwise: bool) -> bool {
        let shown = self.shown.load();
        let made = |host| self.dev.is_some() && dev::below_localhost(host).is_some();
        let named = |host| made(host) || shown.named(host, is_good).is_some();
        host.is_some_and(named) || otherwise && shown.fallback().is_some_and(is_good)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the disk. Where keys are parsed at once, what is broken never takes the place of what is not.
    fn look(&self, parse: bool) -> Looked {
        let listing = match &self.place {
            Place::Folder(folder) => match found::list(folder) {
                Ok(listing) => listing,
                Err(error) => {
                    let (said, mut known) = (error.to_string(), self.known());
                    if known.trouble.as_ref() != Some(&said) {
                        let folder = folder.display();
                        tracing::warn!(%folder, error = said, "cannot look for certificates; those known stay");
                        known.trouble = Some(said);
                    }
                    return Looked { changed: false, again: Some(Duration::from_secs(1)) };
                }
            },
            Place::Pair { key, cert } => {
                let source = Source { name: Some(Name::Default), cert: cert.clone(), key: Some(key.clone()) };
                let stamp = found::measure(&source);
                let stamp = stamp.and_then(|stamp| stamp.ok_or(Broken::NoCertificate));
                Listing { sources: vec![(source, stamp)], ..Listing::default() }
            }
        };
        self.take(listing, parse)
    }

    fn take(&self, listing: Listing, parse: bool) -> Looked {
        // Before anything is read: what is written from now on is read again.
        let now = coarse_now();
        let just_now = now - PATIENCE.try_into().expect("less than a second");
        let mut known = self.known();
        let (mut looked, first) = (Looked::default(), !known.loaded);
        let mut files = HashMap::with_capacity(listing.sources.len());
        let mut exposed = Vec::new();
        for (source, found) in listing.sources {
            let before = known.files.remove(&source.cert);
            let stamp = found.as_ref().ok().copied();
            let was_broken = before.as_ref().and_then(|before| before.broken.clone());
            let same = |before: &File| {
                let unread = before.broken.as_ref().is_some_and(Broken::is_of_the_system);
                let settled = !before.young && before.broken == before.said && !unread;
                before.source == source && stamp.is_some() && before.stamp == stamp && settled
            };
            let mut file = match before {
                Some(before) if same(&before) => before,
                before => {
                    let read = found.and_then(|_| found::read(&source)).and_then(|material| {
                        let pair = Arc::new(Pair::new(source.name.clone(), material));
                        if parse { pair.certified().map(|_| pair.clone()) } else { Ok(pair) }
                    });
                    let (old, said) = before.map_or((None, None), |before| (before.shown, before.said));
                    let young = stamp.is_some_and(|stamp| stamp.since(now));
                    let (shown, broken, said) = match read {
                        Ok(pair) => {
                            looked.changed = true;
                            if !first && !same_chain(old.as_deref(), &pair) {
                                self.say_new(&source, &pair);
                            }
                            (Some(pair), None, None)
                        }
                        Err(broken) => (old, Some(broken), said),
                    };
                    File { source, stamp, young, broken, said, shown }
                }
            };
            if let Some(broken) = file.broken.clone().filter(|broken| file.said.as_ref() != Some(broken)) {
                // It may be in the middle of being written, or of being put beside its other half.
                let fresh = match file.stamp {
                    Some(stamp) => stamp.since(just_now),
                    None => was_broken.as_ref() != Some(&broken),
                };
                if fresh && !first {
                    looked.soon(PATIENCE);
                } else {
                    self.say_broken(&file.source, &broken, file.shown.is_some());
                    file.said = Some(broken);
                }
            }
            if file.broken.as_ref().is_some_and(Broken::may_pass) {
                looked.soon(RETRY);
            }
            if first && let Some(pair) = &file.shown {
                self.say_expired(&file.source, pair);
            }
            if stamp.is_some_and(|stamp| stamp.exposed) {
                let key = file.source.key.as_ref().unwrap_or(&file.source.cert);
                if known.exposed.insert(key.clone()) {
                    exposed.push(key.clone());
                }
            }
            drop(files.insert(file.source.cert.clone(), file));
        }
        // What is left was there before.
        let empty: BTreeSet<PathBuf> = listing.empty.into_iter().collect();
        let mut unseen: Vec<_> = listing.unseen.iter().map(|unseen| (unseen, 0_usize)).collect();
        for (cert, file) in known.files.drain() {
            if let Some((_, hidden)) = unseen.iter_mut().find(|((folder, _), _)| cert.starts_with(folder)) {
                *hidden += 1;
                let _ = files.insert(cert, file);
                continue;
            }
            let stays = empty.contains(&cert) && file.shown.is_some();
            looked.changed |= !stays || file.stamp.is_some();
            if stays {
                // Until there is another.
                let _ = files.insert(cert, File { stamp: None, broken: None, ..file });
            } else if file.shown.is_some() {
                tracing::info!(file = %self.within(&cert), folder = %self.place, "a certificate is gone");
            }
        }
        for ((folder, error), certificates) in unseen {
            if error.may_pass() {
                looked.soon(RETRY);
            }
            let is_new = known.unseen.iter().all(|(known, why)| (known, why) != (folder, error));
            // Others may be none of ours.
            if is_new && (certificates > 0 || folder.file_name().is_some_and(|name| name == "live")) {
                let (folder, error) = (folder.display(), chain(error));
                tracing::warn!(%folder, certificates, error, "cannot look for certificates; those known stay");
            }
        }
        known.unseen = listing.unseen;
        looked.changed |= !first && known.empty != empty;
        known.files = files;
        known.empty = empty;
        (known.folders, known.links) = (listing.folders, listing.links);
        known.loaded = true;
        if known.trouble.take().is_some() {
            tracing::info!(folder = %self.place, "certificates are looked for again");
        }
        if let Some(one) = exposed.first() {
            let (file, files, folder) = (self.within(one), exposed.len(), &self.place);
            tracing::warn!(%file, files, %folder, "others on this machine may read a key: `chmod o=` would help");
        }
        if looked.changed {
            self.show(&known);
        }
        looked
    }

    fn show(&self, known: &Known) {
        let mut table = Table::default();
        let mut files: Vec<_> = known.files.values().collect();
        // So that it is the same one each time where nothing else decides.
        files.sort_by(|a, b| a.source.cert.cmp(&b.source.cert));
        for file in files {
            let Some(pair) = &file.shown else { continue };
            for (name, claim) in claims(pair.name.as_ref(), &pair.leaf.names, pair.leaf.until) {
                table.put(name, claim, pair.clone());
            }
        }
        self.shown.store(Arc::new(table));
    }

    /// Parses all keys that nobody has parsed, and says which are broken.
    pub(crate) fn parse_all(&self) {
        let unread: Vec<_> = {
            let known = self.known();
            let shown = known.files.iter().filter_map(|(cert, file)| Some((cert, file.shown.as_ref()?)));
            shown
                .filter(|(_, pair)| pair.ready.get().is_none())
                .map(|(cert, pair)| (cert.clone(), pair.clone()))
                .collect()
        };
        let broken: Vec<_> = unread
            .into_iter()
            .filter_map(|(cert, pair)| pair.certified().err().map(|broken| (cert, pair, broken)))
            .collect();
        if broken.is_empty() {
            return;
        }
        let mut known = self.known();
        for (cert, pair, broken) in broken {
            let Some(file) = known.files.get_mut(&cert) else { continue };
            if file.shown.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, &pair)) {
                self.say_broken(&file.source, &broken, false);
                (file.shown, file.said, file.broken) = (None, Some(broken.clone()), Some(broken));
            }
        }
        self.show(&known);
    }

    fn within(&self, path: &Path) -> String {
        match &self.place {
            Place::Folder(folder) => found::within(folder, path),
            Place::Pair { .. } => path.to_owned(),
        }
        .display()
        .to_string()
    }

    fn say_new(&self, source: &Source, pair: &Pair) {
        let (file, hosts, until) = (self.within(&source.cert), pair.names(), instant(pair.leaf.until));
        tracing::info!(%file, folder = %self.place, hosts, %until, "a certificate is new");
        self.say_expired(source, pair);
    }

    fn say_expired(&self, source: &Source, pair: &Pair) {
        if pair.leaf.until < Timestamp::now().as_second() {
            let (file, until) = (self.within(&source.cert), instant(pair.leaf.until));
            tracing::warn!(%file, folder = %self.place, %until, "a certificate has expired");
        }
    }

    fn say_broken(&self, source: &Source, broken: &Broken, stays: bool) {
        let (file, folder, error) = (self.within(&source.cert), &self.place, chain(broken));
        match stays {
            true => tracing::warn!(file, %folder, error, "a certificate is broken; the old one stays"),
            false => tracing::warn!(file, %folder, error, "a certificate is broken"),
        }
    }
}

fn is_good(pair: &Arc<Pair>) -> bool {
    pair.certified().is_ok()
}

fn instant(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// Whether it is the same certificate with other names, or only another time on its file.
fn same_chain(old: Option<&Pair>, new: &Pair) -> bool {
    let first = |pair: &Pair| pair.certified().ok().and_then(|key| key.cert.first().cloned());
    old.is_some_and(|old| first(old) == first(new))
}

impl Noticed for Shelf {
    fn ways(&self) -> Ways {
        let known = self.known();
        match &self.place {
            Place::Folder(_) => Ways { folders: known.folders.clone(), files: known.links.clone() },
            Place::Pair { key, cert } => Ways { folders: Vec::new(), files: vec![key.clone(), cert.clone()] },
        }
    }

    fn look_again(&self) -> Looked {
        self.look(true)
    }

    fn at_leisure(&self) {
        self.parse_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
        sync::mpsc::{Receiver, channel},
    };

    use tempfile::TempDir;

    use super::{
        super::noticed::{Noticing, notice},
        *,
    };

    /// Far longer than anything takes.
    const LONG: Duration = Duration::from_secs(30);

    /// Key and certificate for these names, which holds for so many days from 2027 on.
    fn made(names: &[&str], days: i64) -> (String, String) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).expect("names");
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        params.not_after += Duration::from_secs(24 * 60 * 60) * u32::try_from(days).expect("days");
        let key = rcgen::KeyPair::generate().expect("a key");
        (key.serialize_pem(), params.self_signed(&key).expect("a certificate").pem())
    }

    fn both(names: &[&str], days: i64) -> String {
        let (key, cert) = made(names, days);
        format!("{key}{cert}")
    }

    /// A folder with certificates, and the shelf of it.
    struct Case {
        folder: TempDir,
        shelf: Arc<Shelf>,
        changes: Option<(Noticing, Receiver<usize>)>,
    }

    impl Case {
        fn new(make: impl FnOnce(&Path)) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            make(folder.path());
            let shelf = Shelf::open(Place::Folder(folder.path().to_owned())).expect("a shelf");
            Self { folder, shelf: Arc::new(shelf), changes: None }
        }

        /// The same, and what changes is noticed.
        fn noticed(make: impl FnOnce(&Path)) -> Self {
            let case = Self::new(make);
            let (tell, told) = channel();
            let noticing = notice(vec![case.shelf.clone()], move |one| tell.send(one).unwrap_or_default());
            Self { changes: Some((noticing.expect("a thread"), told)), ..case }
        }

        fn put(&self, name: &str, text: impl AsRef<[u8]>) {
            put(&self.folder.path().join(name), text);
        }

        /// Looks until nothing can have changed that looks the same.
        fn settle(&self) {
            let young = || self.shelf.known().files.values().any(|file| file.young);
            while young() {
                let _ = self.shelf.look(true);
            }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn shows(&self, host: &str) -> Option<CertificateDer<'static>> {
            let host = (!host.is_empty()).then_some(host);
            let found = self.shelf.find(host, true);
            assert_eq!(self.shelf.has(host, true), found.is_some(), "{host:?}");
            found.map(|key| key.cert[0].clone())
        }

        /// Waits until another certificate is shown, or none.
        #[track_caller]
        fn becomes(&self, host: &str, pem: Option<&str>) {
            let wanted = pem.map(|pem| found::sections(pem.as_bytes()).expect("PEM").0.remove(0));
            let (_, changes) = self.changes.as_ref().expect("it is noticed");
            while self.shelf.find(Some(host), true).map(|key| key.cert[0].clone()) != wanted {
                let _ = changes.recv_timeout(LONG).expect("a change");
            }
        }
    }

    /// Writes a file as whoever is careful does.
    fn put(path: &Path, text: impl AsRef<[u8]>) {
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let temporary = path.with_file_name(".temporary");
        fs::write(&temporary, text).expect("a file");
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600)).expect("a mode");
        fs::rename(temporary, path).expect("a file");
    }

    #[test]
    fn every_layout_is_found() {
        let (key, cert) = made(&["a.org"], 1);
        let secret = |folder: &Path| {
            fs::create_dir_all(folder.join("..1")).expect("a folder");
            fs::write(folder.join("..1/tls.key"), &key).expect("a file");
            fs::write(folder.join("..1/tls.crt"), &cert).expect("a file");
            symlink("..1", folder.join("..data")).expect("a link");
            for name in ["tls.key", "tls.crt"] {
                symlink(format!("..data/{name}"), folder.join(name)).expect("a link");
            }
        };
        type Make<'a> = Box<dyn Fn(&Path) + 'a>;
        let files = |files: &'static [(&'static str, &'static str)]| -> Make<'_> {
            let (key, cert) = (&key, &cert);
            Box::new(move |folder| {
                for (name, what) in files {
                    let text = what.chars().map(|part| match part {
                        'k' => &**key,
                        _ => &**cert,
                    });
                    put(&folder.join(name), text.collect::<String>());
                }
            })
        };
        let layouts: [(&str, Make<'_>); 9] = [
            ("b.org", files(&[("b.org.pem", "kc")])),
            ("b.org", files(&[("b.org.pem", "ck")])),
            ("b.org", files(&[("b.org.key", "k"), ("b.org.crt", "c")])),
            ("b.org", files(&[("b.org.key", "k"), ("b.org.pem", "c")])),
            ("b.org", files(&[("live/b.org/privkey.pem", "k"), ("live/b.org/fullchain.pem", "c")])),
            ("b.org", files(&[("b.org/privkey.pem", "k"), ("b.org/fullchain.pem", "c")])),
            (
                "b.org",
                Box::new(|folder| {
                    fs::create_dir(folder.join("b.org")).expect("a folder");
                    secret(&folder.join("b.org"));
                }),
            ),
            ("a.org", Box::new(|folder| secret(folder))),
            ("x.b.org", files(&[("_.b.org.pem", "kc")])),
        ];
        for (at, (host, make)) in layouts.iter().enumerate() {
            let case = Case::new(make);
            assert!(case.shows(host).is_some(), "{host} in layout {at}");
            assert!(case.shows("a.org").is_some(), "by its name in layout {at}");
            assert!(case.shows("").is_none() && case.shows("c.org").is_none());
        }
        let case = Case::new(|folder| {
            files(&[("DEFAULT.pem", "kc"), ("ca.crt", "c"), ("README", "-"), (".b.org.pem", "kc")])(folder);
        });
        assert!(case.shows("").is_some() && case.shows("b.org").is_some());
        for host in [Some("b.org"), None] {
            assert!(case.shelf.find(host, false).is_none() && !case.shelf.has(host, false), "{host:?}");
        }
        assert!(case.shelf.known().files.values().all(|file| file.broken.is_none()));
    }

    #[test]
    fn hosts_below_localhost_are_there_where_they_are_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let dev = Dev::of(folder.path().to_owned(), "box".to_owned(), Timestamp::now()).expect("files");
        let shelf = Shelf::open(Place::Folder(dev.served())).expect("a shelf").with(Arc::new(dev));
        for (host, there) in [("a.localhost", true), ("b.a.localhost", true), ("a.org", false)] {
            assert_eq!(shelf.has(Some(host), false), there, "{host}");
            assert_eq!(shelf.find(Some(host), false).is_some(), there, "{host}");
        }
    }

    #[test]
    fn what_is_broken_is_named_and_nothing_of_the_key_with_it() {
        let (key, cert) = made(&["a.org"], 1);
        let other = made(&["a.org"], 1).0;
        let secret: Vec<&str> = key.lines().filter(|line| line.len() > 40).collect();
        let locked = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        for (text, expected) in [
            (cert.clone(), Broken::NoKey),
            (key.clone(), Broken::NoCertificate),
            (format!("{other}{cert}"), Broken::Mismatch),
            (format!("{cert}{}", &key[..60]), Broken::Torn),
            (format!("{cert}{}", key.replace('\n', "")), Broken::Torn),
            (format!("{cert}{}", key.replacen("KEY-----", "KEY", 1)), Broken::NotPem),
            (format!("{}{cert}", key.replacen(&secret[0][..8], "!!!!!!!!", 1)), Broken::NotPem),
            (format!("{cert}{locked}"), Broken::Locked),
            ("nothing of the kind".to_owned(), Broken::NoCertificate),
        ] {
            let case = Case::new(|folder| put(&folder.join("a.org.pem"), &text));
            case.shelf.parse_all();
            assert_eq!(case.shows("a.org"), None, "{text}");
            let known = case.shelf.known();
            let broken = known.files.values().find_map(|file| file.broken.clone()).expect("it is broken");
            let said = format!("{broken} {broken:?} {known:?}");
            assert!(secret.iter().all(|line| !said.contains(&line[..16])), "{said}");
            assert_eq!(broken, expected, "{text}");
        }
    }

    #[test]
    fn a_new_a_replaced_and_a_removed_file_are_noticed() {
        let case = Case::noticed(|_| ());
        let (first, second) = (both(&["a.org"], 1), both(&["a.org"], 2));
        assert_eq!(case.shows("a.org"), None);
        for text in [&first, &second, &first] {
            case.put("a.org.pem", text);
            case.becomes("a.org", Some(text));
        }
        fs::write(case.at("a.org.pem"), &second).expect("a file");
        case.becomes("a.org", Some(&second));
        fs::remove_file(case.at("a.org.pem")).expect("a file");
        case.becomes("a.org", None);
        case.put("live/a.org/privkey.pem", made(&[], 1).0);
        let (key, cert) = made(&["a.org"], 3);
        case.put("live/a.org/fullchain.pem", &cert);
        case.put("live/a.org/privkey.pem", key);
        case.becomes("a.org", Some(&cert));
    }

    /// As Kubernetes renews a secret, and certbot a certificate.
    #[test]
    fn links_that_are_swapped_are_noticed() {
        let write = |folder: &Path, version: &str, (key, cert): &(String, String)| {
            let folder = folder.join(version);
            put(&folder.join("tls.key"), key);
            put(&folder.join("tls.crt"), cert);
        };
        let versions: Vec<_> = (1..4).map(|days| made(&["a.org"], days)).collect();
        let case = Case::noticed(|folder| {
            let host = folder.join("host");
            write(&host, "..0", &versions[0]);
            symlink("..0", host.join("..data")).expect("a link");
            for name in ["tls.key", "tls.crt"] {
                symlink(format!("..data/{name}"), host.join(name)).expect("a link");
            }
        });
        for (version, pair) in versions.iter().enumerate().skip(1) {
            let host = case.at("host");
            write(&host, &format!("..{version}"), pair);
            symlink(format!("..{version}"), host.join("..new")).expect("a link");
            fs::rename(host.join("..new"), host.join("..data")).expect("a link");
            fs::remove_dir_all(host.join(format!("..{}", version - 1))).expect("a folder");
            case.becomes("a.org", Some(&pair.1));
        }
        // A link to a file elsewhere, which is replaced there.
        let elsewhere = tempfile::tempdir().expect("a folder");
        let file = elsewhere.path().join("b");
        for days in 1..3 {
            let text = both(&["b.org"], days);
            put(&file, &text);
            if days == 1 {
                symlink(&file, case.at("b.org.pem")).expect("a link");
            }
            case.becomes("b.org", Some(&text));
        }
    }

    #[test]
    fn what_is_broken_or_empty_leaves_the_old_one() {
        let (first, second) = (both(&["a.org"], 1), both(&["a.org"], 2));
        let case = Case::noticed(|folder| put(&folder.join("a.org.pem"), &first));
        let (_, cert) = made(&["a.org"], 3);
        for broken in ["", "nothing", &first[..300], &cert, &format!("{}{cert}", made(&[], 1).0)] {
            case.put("a.org.pem", broken);
            // What comes behind it is there, so it has been looked at.
            let marker = both(&["marker.org"], 1);
            case.put("marker.pem", &marker);
            case.becomes("marker.org", Some(&marker));
            case.becomes("a.org", Some(&first));
        }
        case.put("a.org.pem", &second);
        case.becomes("a.org", Some(&second));
    }

    /// Nor may whoever starts as root and goes on as somebody else, who only looks into what root left open.
    #[test]
    fn what_cannot_be_looked_into_is_not_gone() {
        let folders = ["live/a.org", "b.org"];
        let case = Case::new(|folder| {
            for at in folders {
                let (key, cert) = made(&[at.trim_start_matches("live/")], 1);
                put(&folder.join(at).join("privkey.pem"), key);
                put(&folder.join(at).join("fullchain.pem"), cert);
            }
        });
        case.settle();
        let elsewhere = tempfile::tempdir().expect("a folder");
        for hidden in ["live", "b.org"] {
            fs::rename(case.at(hidden), elsewhere.path().join(hidden)).expect("a folder");
            // Nobody can follow it, not even root.
            symlink(hidden, case.at(hidden)).expect("a link");
            assert!(!case.shelf.look(true).changed, "{hidden}");
        }
        assert!(case.shows("a.org").is_some() && case.shows("b.org").is_some());
        for gone in ["live", "b.org"] {
            fs::remove_file(case.at(gone)).expect("a link");
        }
        assert!(case.shelf.look(true).changed);
        assert!(case.shows("a.org").is_none() && case.shows("b.org").is_none());
    }

    #[test]
    fn a_key_that_nobody_has_parsed_yet_hides_no_good_one() {
        let case = Case::new(|folder| {
            put(&folder.join("a.b.org.pem"), made(&[], 1).0 + &made(&["a.b.org"], 9).1);
            put(&folder.join("c.org.pem"), made(&[], 1).0 + &made(&["c.org"], 9).1);
            put(&folder.join("_.b.org.pem"), both(&["*.b.org"], 1));
        });
        assert!(case.shows("a.b.org").is_some() && case.shows("a.b.org") == case.shows("other.b.org"));
        assert!(case.shows("c.org").is_none());
    }

    #[test]
    fn what_could_not_be_read_once_is_read_again() {
        let case = Case::new(|folder| put(&folder.join("a.org.pem"), both(&["a.org"], 1)));
        let renewed = both(&["a.org"], 2);
        case.put("a.org.pem", &renewed);
        let mut sources = found::list(case.folder.path()).expect("a folder").sources;
        let (source, stamp) = sources.remove(0);
        let stamp = stamp.expect("a file");
        // So that nothing but the error has it read again.
        let now = || coarse_now() - PATIENCE.try_into().expect("less than a second");
        while stamp.since(now()) {
            std::thread::yield_now();
        }
        let take = || {
            let sources = vec![(source.clone(), Ok(stamp))];
            case.shelf.take(Listing { sources, ..Listing::default() }, true)
        };
        let elsewhere = case.at(".hidden");
        fs::rename(&source.cert, &elsewhere).expect("a file");
        assert!(!take().changed && !take().changed);
        fs::rename(&elsewhere, &source.cert).expect("a file");
        assert!(take().changed);
        let wanted = found::sections(renewed.as_bytes()).expect("PEM").0.remove(0);
        assert_eq!(case.shows("a.org"), Some(wanted));
    }

    #[test]
    fn a_file_that_was_emptied_is_one_change() {
        let case = Case::new(|folder| put(&folder.join("a.org.pem"), both(&["a.org"], 1)));
        case.put("a.org.pem", "");
        assert!(case.shelf.look(true).changed);
        assert_eq!(case.shelf.look(true), Looked::default());
        assert!(case.shows("a.org").is_some());
    }

    #[test]
    fn an_empty_file_asks_for_one_and_is_no_error() {
        let case = Case::noticed(|folder| put(&folder.join("a.org.pem"), ""));
        assert_eq!(case.shelf.known().empty.iter().collect::<Vec<_>>(), [&case.at("a.org.pem")]);
        assert!(case.shelf.known().files.is_empty() && case.shows("a.org").is_none());
        let text = both(&["a.org"], 1);
        case.put("a.org.pem", &text);
        case.becomes("a.org", Some(&text));
        assert!(case.shelf.known().empty.is_empty());
    }

    #[test]
    fn only_what_has_changed_is_read_again() {
        let case = Case::new(|folder| {
            for host in ["a.org", "b.org"] {
                put(&folder.join(format!("{host}.pem")), both(&[host], 1));
            }
        });
        let pair =
            |host: &str| case.shelf.shown.load().named(host, |_| true).cloned().expect("a certificate");
        case.settle();
        let before = [pair("a.org"), pair("b.org")];
        assert_eq!(case.shelf.look(true), Looked::default());
        case.put("b.org.pem", both(&["b.org"], 2));
        assert!(case.shelf.look(true).changed);
        assert!(Arc::ptr_eq(&before[0], &pair("a.org")) && !Arc::ptr_eq(&before[1], &pair("b.org")));
    }

    /// Keys are parsed when they are needed, and none is read in a handshake.
    #[test]
    fn a_handshake_touches_no_disk() {
        let case = Case::new(|folder| put(&folder.join("a.org.pem"), both(&["a.org"], 1)));
        assert!(
            case.shelf
                .known()
                .files
                .values()
                .all(|file| { file.shown.as_ref().is_some_and(|pair| pair.ready.get().is_none()) })
        );
        fs::remove_dir_all(case.folder.path()).expect("a folder");
        assert!(case.shows("a.org").is_some());
    }
}
