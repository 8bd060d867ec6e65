//! What a path led to a moment ago for clients that take the same codings: it is that again for as long as nothing
//! has happened in the folders on the way, and no longer than the second that it was found in.
//!
//! Keeps no contents that memory has let go of. What changes often is looked at.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use quick_cache::sync::Cache;

use super::{
    accept::Codings,
    memory::{Kept, Key, Name},
};

/// Paths that are remembered, a few hundred bytes each.
const PATHS: usize = 4_096;

/// Longer ones are not.
const LONGEST: usize = 256;

/// How often something may have happened within the second until it is looked at for the rest of it.
const OFTEN: u8 = 8;

/// What is remembered for one mount, for all workers.
pub(super) struct Recent(Cache<Key<Codings>, Known>);

/// What a path led to.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// The second in which it was found, of the wall clock.
    pub(super) second: u64,
    /// The turn of the watch; none where it is looked at.
    pub(super) turn: Option<u64>,
    /// How often it was looked for in this second because something had happened.
    again: u8,
    kept: Weak<Kept>,
}

impl Known {
    pub(super) fn kept(&self) -> Option<Arc<Kept>> {
        self.kept.upgrade()
    }

    /// So much has happened lately that there is no use in asking.
    pub(super) fn is_restless(&self) -> bool {
        self.again >= OFTEN
    }
}

impl Recent {
    /// Whether it remembers such a path.
    pub(super) fn takes(path: &str) -> bool {
        path.len() <= LONGEST
    }

    pub(super) fn find(&self, path: &str, codings: Codings) -> Option<Known> {
        self.0.get(&Name { path, with: codings })
    }

    /// Remembers what a path led to in this second, in which `before` was known.
    pub(super) fn remember(
        &self,
        (path, codings): (&str, Codings),
        second: u64,
        turn: Option<u64>,
        kept: &Arc<Kept>,
        before: Option<&Known>,
    ) {
        let again = before.map_or(0, |known| known.again.saturating_add(1));
        let known = Known { second, turn, again, kept: Arc::downgrade(kept) };
        self.0.insert(Key { path: path.into(), with: codings }, known);
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
