//! What a path led to a moment ago for clients that take the same codings: it is that again for as long as nothing
//! has happened in the folders on the way, and no longer than the second that it was found in.
//!
//! Keeps nothing alive that memory has let go of.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, Weak},
};

use quick_cache::{Equivalent, sync::Cache};

use super::{accept::Codings, memory::Kept};

/// Paths that are remembered, a few hundred bytes each.
const PATHS: usize = 4_096;

/// Longer ones are not.
const LONGEST: usize = 256;

/// What is remembered for one mount, for all workers.
pub(super) struct Recent(Cache<Key, Known>);

/// What a path led to.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// The second in which it was found, of the wall clock.
    pub(super) second: u64,
    /// The turn of the watch; none where the folders on the way cannot be watched.
    pub(super) turn: Option<u64>,
    kept: Weak<Kept>,
}

impl Known {
    pub(super) fn kept(&self) -> Option<Arc<Kept>> {
        self.kept.upgrade()
    }
}

impl Recent {
    pub(super) fn find(&self, path: &str, codings: Codings) -> Option<Known> {
        self.0.get(&Name { path, codings })
    }

    pub(super) fn remember(
        &self,
        path: &str,
        codings: Codings,
        second: u64,
        turn: Option<u64>,
        kept: &Arc<Kept>,
    ) {
        if path.len() <= LONGEST {
            let known = Known { second, turn, kept: Arc::downgrade(kept) };
            self.0.insert(Key { path: path.into(), codings }, known);
        }
    }
}

impl Default for Recent {
    fn default() -> Self {
        Self(Cache::new(PATHS))
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recent").field(&self.0.len()).finish()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    path: Box<str>,
    codings: Codings,
}

/// The same, to look it up.
struct Name<'a> {
    path: &'a str,
    codings: Codings,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Name { path: &self.path, codings: self.codings }.hash(state);
    }
}

impl Hash for Name<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.path.hash(state);
        self.codings.hash(state);
    }
}

impl Equivalent<Key> for Name<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self.path == *key.path && self.codings == key.codings
    }
}
