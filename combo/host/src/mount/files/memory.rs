//! Small files and what was made of them, in memory: bounded, and those that are asked for least go first.
//!
//! Nothing here is believed by itself: whoever asks brings the stamp of the file as it is now, and gets what
//! was read from just that. All that is alive counts, also what left the cache while a slow client still
//! takes it, so a mount never holds more than it was given.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http::HeaderValue;
use quick_cache::{DefaultHashBuilder, Equivalent, OptionsBuilder, Weighter, sync::Cache};

use super::{accept::Coding, chosen::Facts, opened::Stamp};

/// What an entry takes beside its contents and its name, about.
const ENTRY: usize = 512;

/// A file of which more fit is kept: this part of all.
const SHARE: usize = 16;

/// Contents with what is said of them.
#[derive(Debug)]
pub(super) struct Kept {
    /// Of the file that they were read or made from, and in which of the folders it was.
    pub(super) stamp: Stamp,
    pub(super) at: usize,
    pub(super) contents: Bytes,
    pub(super) facts: Facts,
    pub(super) coding: Option<Coding>,
    /// `ETag`, `Content-Length` and `Last-Modified`.
    pub(super) tag: HeaderValue,
    pub(super) length: HeaderValue,
    pub(super) dated: Option<HeaderValue>,
    /// Second in which the path was last resolved and led to just this file.
    pub(super) resolved: AtomicU64,
    /// Second in which nothing that was compressed beforehand was beside it.
    pub(super) alone: AtomicU64,
}

/// What is kept for one mount, by path and coding; shared by all workers.
pub(super) struct Memory {
    cache: Cache<Key, Arc<Kept>, Weight>,
    room: Arc<Room>,
}

impl Memory {
    /// Room for so many bytes.
    pub(super) fn new(most: usize) -> Self {
        let options = OptionsBuilder::new()
            // A quarter is for what has left the cache and is not sent yet.
            .weight_capacity((most - most / 4) as u64)
            .estimated_items_capacity(4_096)
            // Few, so that each has room for the largest.
            .shards(SHARE / 4)
            .build()
            .expect("capacities are given");
        let cache = Cache::with_options(options, Weight, DefaultHashBuilder::default(), Default::default());
        Self { cache, room: Arc::new(Room { most, taken: AtomicUsize::new(0) }) }
    }

    /// Whether a file of so many bytes is one to keep.
    pub(super) fn takes(&self, len: u64) -> bool {
        len <= (self.room.most / SHARE) as u64
    }

    /// Whether there is room for so many bytes more.
    pub(super) fn has_room(&self, len: u64) -> bool {
        self.room.taken.load(Relaxed) as u64 + len + ENTRY as u64 <= self.room.most as u64
    }

    /// What was kept of the file at `path` in this coding, if it is still the same file.
    pub(super) fn find(&self, path: &str, coding: Option<Coding>, stamp: &Stamp) -> Option<Arc<Kept>> {
        self.cache.get(&Name { path, coding }).filter(|kept| kept.stamp == *stamp)
    }

    /// What was kept of the file at `path` as it is, whatever that is now.
    pub(super) fn recall(&self, path: &str) -> Option<Arc<Kept>> {
        self.cache.get(&Name { path, coding: None })
    }

    pub(super) fn keep(&self, path: &str, coding: Option<Coding>, kept: &Arc<Kept>) {
        self.cache.insert(Key { path: path.into(), coding }, kept.clone());
    }

    /// The contents as something that counts until it is gone; nothing if there is no room.
    pub(super) fn hold(&self, contents: Vec<u8>) -> Result<Bytes, Vec<u8>> {
        let len = contents.len() + ENTRY;
        let taken = self.room.taken.fetch_add(len, Relaxed);
        let held = Held { contents, room: self.room.clone() };
        if taken + len > self.room.most {
            return Err(held.give_up());
        }
        Ok(Bytes::from_owner(held))
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("room", &self.room).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Room {
    most: usize,
    taken: AtomicUsize,
}

/// Takes its room with it.
struct Held {
    contents: Vec<u8>,
    room: Arc<Room>,
}

impl Held {
    fn give_up(mut self) -> Vec<u8> {
        let contents = std::mem::take(&mut self.contents);
        let _ = self.room.taken.fetch_sub(contents.len(), Relaxed);
        contents
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.contents
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.room.taken.fetch_sub(self.contents.len() + ENTRY, Relaxed);
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    path: Box<str>,
    coding: Option<Coding>,
}

/// The same, to look it up.
struct Name<'a> {
    path: &'a str,
    coding: Option<Coding>,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Name { path: &self.path, coding: self.coding }.hash(state);
    }
}

impl Hash for Name<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.path.hash(state);
        self.coding.hash(state);
    }
}

impl Equivalent<Key> for Name<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self.path == *key.path && self.coding == key.coding
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<Key, Arc<Kept>> for Weight {
    fn weight(&self, key: &Key, kept: &Arc<Kept>) -> u64 {
        (key.path.len() + kept.contents.len() + ENTRY) as u64
    }
}
