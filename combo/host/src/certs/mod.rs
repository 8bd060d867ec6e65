//! The path of a certificate: order -> folder -> found -> shelf -> handshake.
//!
//! | file | takes | gives |
//! | --- | --- | --- |
//! | [`acme`] | what a folder asks for | files in it |
//! | [`found`] | a folder | key and certificate of each host in it, or what is broken |
//! | [`leaf`] | a certificate | names, dates, issuer, subject |
//! | [`names`] | what certificates are for | the one for a host |
//! | [`shelf`] | what was found | what handshakes take from |
//! | [`noticed`] | a change on the disk | the shelf, changed |
//!
//! [`dev`] makes certificates for the machine that it is developed on; [`challenges`] proves that names are ours.

#[cfg(feature = "acme")]
pub(crate) mod acme;
#[cfg_attr(not(any(test, feature = "acme")), expect(dead_code, reason = "nobody orders anything"))]
pub(crate) mod challenges;
pub(crate) mod dev;
pub(crate) mod found;
pub(crate) mod leaf;
pub(crate) mod names;
pub(crate) mod noticed;
pub(crate) mod shelf;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use combo_core::BoxError;

use self::{
    challenges::Challenges,
    noticed::{Noticed, Noticing},
    shelf::{Place, Shelf},
};

/// What the endpoints of one process have in common. Clones are the same value.
#[derive(Clone, Default)]
pub(crate) struct Store {
    pub(crate) challenges: Challenges,
    /// Which names may be ordered at a handshake, by folder.
    #[cfg(feature = "acme")]
    wanted: Arc<Mutex<Vec<(PathBuf, acme::wanted::Wanted)>>>,
    shelves: Arc<Mutex<Vec<Arc<Shelf>>>>,
    /// All that reads files which may change.
    noticed: Arc<Mutex<Vec<Arc<dyn Noticed>>>>,
}

impl Store {
    /// The certificates in a folder, which has an absolute path. Endpoints of one folder share them.
    ///
    /// # Errors
    ///
    /// The folder cannot be looked into.
    pub(crate) fn folder(&self, folder: &Path) -> io::Result<Arc<Shelf>> {
        self.of(Place::Folder(folder.to_owned()), Shelf::open)
    }

    /// Has names of this folder ordered when a handshake asks for them.
    #[cfg(feature = "acme")]
    pub(crate) fn order(&self, folder: PathBuf, wanted: acme::wanted::Wanted) {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).push((folder, wanted));
    }

    /// Has a name ordered, if it is one of those. For the folder of a shelf.
    #[cfg(feature = "acme")]
    pub(crate) fn wanted(&self, place: &Place) -> Option<acme::wanted::Wanted> {
        let Place::Folder(folder) = place else { return None };
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.iter().find(|(of, _)| of == folder).map(|(_, wanted)| wanted.clone())
    }

    /// The certificate of this machine, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// It cannot be made, or not be read.
    pub(crate) fn dev(&self) -> Result<Arc<Shelf>, BoxError> {
        let dev = Arc::new(dev::Dev::open()?);
        self.keep(dev.clone());
        Ok(self.of(Place::Folder(dev.served()), |place| Shelf::open(place).map(|shelf| shelf.with(dev)))?)
    }

    /// Has something noticed.
    pub(crate) fn keep(&self, noticed: Arc<dyn Noticed>) {
        self.noticed.lock().unwrap_or_else(PoisonError::into_inner).push(noticed);
    }

    /// All that is to be noticed, and of which folder it has certificates, if it has.
    fn all(&self) -> Vec<(Arc<dyn Noticed>, Option<PathBuf>)> {
        let shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        let shelves = shelves.iter().map(|shelf| {
            let noticed: Arc<dyn Noticed> = shelf.clone();
            let Place::Folder(folder) = &shelf.place else { return (noticed, None) };
            (noticed, Some(folder.clone()))
        });
        let noticed = self.noticed.lock().unwrap_or_else(PoisonError::into_inner);
        shelves.chain(noticed.iter().map(|noticed| (noticed.clone(), None))).collect()
    }

    /// Notices what changes, until what is returned is dropped. Says of which folder there are others now, on a
    /// thread that watches.
    ///
    /// # Errors
    ///
    /// There is no thread to be had.
    pub(crate) fn notice(&self, changed: impl Fn(&Path) + Send + 'static) -> io::Result<Option<Noticing>> {
        let (all, folders): (Vec<_>, Vec<_>) = self.all().into_iter().unzip();
        if all.is_empty() {
            return Ok(None);
        }
        let changed =
            move |one: usize| folders.get(one).and_then(Option::as_deref).into_iter().for_each(&changed);
        noticed::notice(all, changed).map(Some)
    }

    /// The same shelf for the same place.
    pub(crate) fn of<E>(
        &self,
        place: Place,
        open: impl FnOnce(Place) -> Result<Shelf, E>,
    ) -> Result<Arc<Shelf>, E> {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shelves.iter().find(|known| known.place == place) {
            return Ok(known.clone());
        }
        let shelf = Arc::new(open(place)?);
        shelves.push(shelf.clone());
        Ok(shelf)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("challenges", &self.challenges).finish_non_exhaustive()
    }
}
