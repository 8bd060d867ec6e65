//! Small files and what was made of them, in memory: bounded, and those that are asked for least go first.
//!
//! Nothing here is believed by itself: whoever asks brings the stamp of the file as it is now, and gets what
//! was read from just that. All that is alive counts, also what left the cache while a slow client still
//! takes it, so a mount never holds more than it was given.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http::HeaderValue;
use quick_cache::{DefaultHashBuilder, Equivalent, OptionsBuilder, Weighter, sync::Cache};

use super::{accept::Coding, opened::Stamp, render::Heads, representation::Facts};

/// What an entry takes beside its contents and its name, about.
const ENTRY: usize = 2 << 10;

/// One of so many times that a file is asked for is noted.
const FEW: u8 = 4;

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
    pub(super) heads: OnceLock<Heads>,
    /// Whether whatever has changed since they were read has changed the stamp.
    pub(super) settled: bool,
    /// Whether they were read so long after the last change that it was over.
    pub(super) aged: bool,
    /// The turn of the watch in which they were read, if another one is told of whatever changes them.
    pub(super) turn: Option<u64>,
    /// Second in which the path was last resolved and led to just this file.
    pub(super) resolved: AtomicU64,
    /// How often it was asked for, modulo what fits.
    pub(super) asked: AtomicU8,
    /// Second in which nothing that was compressed beforehand was beside it.
    pub(super) alone: AtomicU64,
}

/// What is kept for one mount, by path and coding; shared by all workers.
pub(super) struct Memory {
    cache: Cache<Key<Option<Coding>>, Arc<Kept>, Weight>,
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
    #[cfg(test)]
    pub(super) fn has_room(&self, len: u64) -> bool {
        self.room.taken.load(Relaxed) as u64 + len + ENTRY as u64 <= self.room.most as u64
    }

    /// What was kept of the file at `path` in this coding, if it is still the same file.
    pub(super) fn find(&self, path: &str, coding: Option<Coding>, stamp: &Stamp) -> Option<Arc<Kept>> {
        self.cache.get(&Name { path, with: coding }).filter(|kept| kept.stamp == *stamp)
    }

    /// It was asked for without being looked up here: what is asked for often is to stay, and a look-up of a few tells.
    pub(super) fn touch(&self, path: &str, kept: &Kept) {
        let asked = kept.asked.load(Relaxed);
        kept.asked.store(asked.wrapping_add(1), Relaxed);
        if asked.is_multiple_of(FEW) {
            drop(self.cache.get(&Name { path, with: kept.coding }));
        }
    }

    /// What was kept of the file at `path` without a coding, whatever that is now.
    pub(super) fn recall(&self, path: &str) -> Option<Arc<Kept>> {
        self.cache.get(&Name { path, with: None::<Coding> })
    }

    /// Lets go of what was kept of the file at `path` in this coding, if there is another file by now, or none; says whether.
    pub(super) fn outlived(&self, path: &str, coding: Option<Coding>, now: Option<&Stamp>) -> bool {
        let name = Name { path, with: coding };
        let is_another = self.cache.peek(&name).is_some_and(|kept| now != Some(&kept.stamp));
        is_another && self.cache.remove(&name).is_some()
    }

    pub(super) fn keep(&self, path: &str, coding: Option<Coding>, kept: &Arc<Kept>) {
        self.cache.insert(Key { path: path.into(), with: coding }, kept.clone());
    }

    /// Room for so many bytes, before there are any; nothing if there is none.
    pub(super) fn reserve(&self, len: usize) -> Option<Held> {
        let counted = len.checked_add(ENTRY)?;
        let with = |taken: usize| taken.checked_add(counted).filter(|taken| *taken <= self.room.most);
        let _ = self.room.taken.fetch_update(Relaxed, Relaxed, with).ok()?;
        Some(Held { contents: Vec::new(), counted, room: self.room.clone() })
    }

    /// The contents as something that counts until it is gone; nothing if there is no room.
    pub(super) fn hold(&self, contents: Vec<u8>) -> Result<Bytes, Vec<u8>> {
        match self.reserve(contents.len()) {
            Some(held) => Ok(held.of(contents)),
            None => Err(contents),
        }
    }

    /// Bytes that are alive.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.room.taken.load(Relaxed)
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
#[derive(Debug)]
pub(super) struct Held {
    contents: Vec<u8>,
    counted: usize,
    room: Arc<Room>,
}

impl Held {
    /// With the contents that the room was reserved for.
    pub(super) fn of(mut self, mut contents: Vec<u8>) -> Bytes {
        debug_assert!(contents.len() + ENTRY <= self.counted);
        // Compressors reserve as much as the worst case takes, which is more than the original.
        contents.shrink_to_fit();
        self.contents = contents;
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.contents
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.room.taken.fetch_sub(self.counted, Relaxed);
    }
}

/// A path, and what else tells entries apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key<T> {
    pub(super) path: Box<str>,
    pub(super) with: T,
}

/// The same, to look it up.
pub(super) struct Name<'a, T> {
    pub(super) path: &'a str,
    pub(super) with: T,
}

impl<T: Copy + Hash> Hash for Key<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Name { path: &self.path, with: self.with }.hash(state);
    }
}

impl<T: Hash> Hash for Name<'_, T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.path.hash(state);
        self.with.hash(state);
    }
}

impl<T: PartialEq> Equivalent<Key<T>> for Name<'_, T> {
    fn equivalent(&self, key: &Key<T>) -> bool {
        *self.path == *key.path && self.with == key.with
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<Key<Option<Coding>>, Arc<Kept>> for Weight {
    fn weight(&self, key: &Key<Option<Coding>>, kept: &Arc<Kept>) -> u64 {
        (key.path.len() + kept.contents.len() + ENTRY) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn kept(contents: Bytes) -> Arc<Kept> {
        let nothing = HeaderValue::from_static("");
        Arc::new(Kept {
            stamp: Stamp::BINARY,
            at: 0,
            contents,
            facts: Facts::none(),
            coding: None,
            tag: nothing.clone(),
            length: nothing,
            dated: None,
            heads: OnceLock::new(),
            settled: true,
            aged: true,
            turn: None,
            resolved: AtomicU64::new(u64::MAX),
            asked: AtomicU8::new(0),
            alone: AtomicU64::new(u64::MAX),
        })
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// A file is asked for, and read if it is not there.
        Ask(u8, usize),
        /// Somebody takes the file that was asked for last, slowly.
        Take,
        /// Whoever began first has all of it.
        Taken,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (any::<u8>(), 0..5_000_usize).prop_map(|(path, len)| Step::Ask(path, len)),
            2 => Just(Step::Take),
            1 => Just(Step::Taken),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn never_is_more_alive_than_was_given(
            most in 0..60_000_usize,
            steps in prop::collection::vec(step(), 0..400),
        ) {
            let memory = Memory::new(most);
            let (mut last, mut taking) = (Bytes::new(), VecDeque::new());
            for step in steps {
                match step {
                    Step::Ask(path, len) => {
                        let path = path.to_string();
                        if let Some(kept) = memory.find(&path, None, &Stamp::BINARY) {
                            prop_assert!(kept.contents.iter().all(|byte| path.starts_with(char::from(*byte))));
                            last = kept.contents.clone();
                        } else if memory.takes(len as u64) && memory.has_room(len as u64) {
                            // Who is alone has the room that there is.
                            let contents = memory.hold(vec![path.as_bytes()[0]; len]).unwrap();
                            memory.keep(&path, None, &kept(contents.clone()));
                            last = contents;
                        } else if !memory.has_room(len as u64) {
                            prop_assert!(memory.hold(vec![0; len]).is_err());
                        }
                    }
                    Step::Take => taking.push_back(last.clone()),
                    Step::Taken => drop(taking.pop_front()),
                }
                prop_assert!(memory.taken() <= most, "{} of {most}", memory.taken());
            }
            // All that was counted is counted back.
            let room = memory.room.clone();
            drop((memory, last, taking));
            prop_assert_eq!(room.taken.load(Relaxed), 0);
        }
    }

    #[test]
    fn workers_share_one_bound() {
        const MOST: usize = 100_000;
        let memory = Memory::new(MOST);
        std::thread::scope(|scope| {
            for worker in 0..4_usize {
                let memory = &memory;
                let _ = scope.spawn(move || {
                    let mut taking = VecDeque::new();
                    for turn in 0..5_000 {
                        let path = ((turn * (worker + 3)) % 97).to_string();
                        let contents = match memory.find(&path, None, &Stamp::BINARY) {
                            Some(kept) => kept.contents.clone(),
                            None => match memory.hold(vec![path.as_bytes()[0]; 100 + turn % 6_000]) {
                                Ok(contents) => {
                                    memory.keep(&path, None, &kept(contents.clone()));
                                    contents
                                }
                                Err(contents) => contents.into(),
                            },
                        };
                        assert!(contents.iter().all(|byte| *byte == path.as_bytes()[0]));
                        assert!(memory.taken() <= MOST, "{}", memory.taken());
                        taking.push_back(contents);
                        if taking.len() > 5 {
                            let _ = taking.pop_front();
                        }
                    }
                });
            }
        });
        let room = memory.room.clone();
        drop(memory);
        assert_eq!(room.taken.load(Relaxed), 0);
    }

    #[test]
    fn another_stamp_coding_or_path_is_another_file() {
        let memory = Memory::new(100_000);
        memory.keep("a", Some(Coding::Gzip), &kept(memory.hold(vec![1]).unwrap()));
        let mut other = Stamp::BINARY;
        other.len = 7;
        assert!(memory.find("a", Some(Coding::Gzip), &Stamp::BINARY).is_some());
        assert!(memory.find("a", Some(Coding::Gzip), &other).is_none());
        assert!(memory.find("a", Some(Coding::Brotli), &Stamp::BINARY).is_none());
        assert!(memory.find("a", None, &Stamp::BINARY).is_none());
        assert!(memory.find("b", Some(Coding::Gzip), &Stamp::BINARY).is_none());
    }
}
