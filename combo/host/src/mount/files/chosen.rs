//! Takes a file that was found, gives the representation of it that suits the client best: as it is, as somebody
//! compressed it beforehand (`a.css.br` beside `a.css`), or compressed here, once, and kept with the file.

use std::{
    io,
    sync::{
        Arc, Mutex, TryLockError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use bytes::Bytes;
use http::HeaderValue;
use xxhash_rust::xxh3::xxh3_128;

use super::{
    accept::{Coding, Codings},
    caching::Rules,
    coded::{SMALLEST, coded},
    dates,
    embedded::Asset,
    media,
    memory::{Kept, Memory},
    opened::{InUse, Opened, Speed, Stamp},
    root::{Found, InBinary, Root},
};

/// Up to so many bytes are read on a worker if the kernel has them: that takes less than a trip to the pool.
const AT_ONCE: u64 = 256 << 10;

/// How often a file that changes while it is read is read again.
const TRIES: usize = 3;

/// What there is to send, and what is said of it.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) contents: Contents,
    pub(super) len: u64,
    /// `Content-Length` of all of it.
    pub(super) length: HeaderValue,
    pub(super) tag: Option<HeaderValue>,
    pub(super) modified: Option<SystemTime>,
    /// The same as it is sent.
    pub(super) dated: Option<HeaderValue>,
    pub(super) media: HeaderValue,
    pub(super) coding: Option<Coding>,
    /// Whether its date is that of no other representation.
    pub(super) is_sole: bool,
    /// What of a request decides which representation it is.
    pub(super) vary: Option<HeaderValue>,
    pub(super) caching: HeaderValue,
}

#[derive(Debug)]
pub(super) enum Contents {
    Memory(Bytes),
    Disk(Opened),
}

/// What a file is served from and with.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) root: Root,
    pub(super) memory: Memory,
    pub(super) rules: Rules,
    /// Whether texts are compressed here.
    pub(super) compresses: bool,
    pub(super) in_use: InUse,
    /// One at a time: nobody waits for what others have made compressed.
    pub(super) compressing: Mutex<()>,
}

/// How a file is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inquiry {
    pub(super) codings: Codings,
    pub(super) speed: Speed,
    /// The moment of the answer, before anything was read for it.
    pub(super) now: SystemTime,
}

impl Inquiry {
    /// Of the wall clock; none before 1970.
    fn second(self) -> u64 {
        dates::seconds(self.now).unwrap_or(0)
    }
}

/// A file in memory, or opened.
#[derive(Debug)]
enum Loaded {
    Kept(Arc<Kept>),
    Opened(Opened),
}

/// What the path of a file says of it.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    media: HeaderValue,
    caching: HeaderValue,
    /// Compressed by itself, so that it has no other coding.
    is_compressed: bool,
    /// Worth being compressed.
    is_compressible: bool,
}

impl Shelf {
    /// The best representation of the file at a path, or what is there instead.
    ///
    /// A file that is kept is looked up by one call within a second after its path was resolved: it is the same as
    /// long as its stamp is.
    ///
    /// # Errors
    ///
    /// When the world refuses; [`WouldBlock`](io::ErrorKind::WouldBlock) if it has to be asked at any speed.
    pub(super) fn find(&self, path: &str, inquiry: Inquiry) -> io::Result<Result<Chosen, Found<'_>>> {
        let recalled = self.memory.recall(path).filter(|kept| {
            kept.at == 0
                && kept.resolved.load(Relaxed) == inquiry.second()
                && self.root.glance(path) == Some(kept.stamp)
        });
        if let Some(kept) = recalled
            && let Some(chosen) = self.choose(path, 0, kept.stamp, Some(kept), inquiry)?
        {
            return Ok(Ok(chosen));
        }
        for _ in 0..TRIES {
            let (at, stamp) = match self.root.find(path, inquiry.speed)? {
                Found::File(at, stamp) => (at, stamp),
                Found::Asset(asset) => return Ok(Ok(self.embedded(path, &asset, inquiry)?)),
                found => return Ok(Err(found)),
            };
            let kept = self.memory.find(path, None, &stamp).filter(|kept| kept.at == at);
            // On other file systems than local ones even a glance may take long.
            if let Some(kept) = kept.as_ref().filter(|_| inquiry.speed == Speed::Cached) {
                kept.resolved.store(inquiry.second(), Relaxed);
            }
            if let Some(chosen) = self.choose(path, at, stamp, kept, inquiry)? {
                return Ok(Ok(chosen));
            }
            // It went away in between; what it lay over may be there.
        }
        Ok(Err(Found::Nothing))
    }

    /// The best representation of a file that was found; nothing if it is gone by now.
    fn choose(
        &self,
        path: &str,
        at: usize,
        stamp: Stamp,
        kept: Option<Arc<Kept>>,
        inquiry: Inquiry,
    ) -> io::Result<Option<Chosen>> {
        let (Inquiry { codings, speed, .. }, second) = (inquiry, inquiry.second());
        if codings.is_empty()
            && let Some(kept) = kept
        {
            return Ok(Some(kept.chosen()));
        }
        let facts = kept.as_ref().map_or_else(|| self.facts(path), |kept| kept.facts.clone());
        if !facts.is_compressed && !codings.is_empty() {
            let made = codings.iter().next().filter(|_| self.may_compress(&facts, &stamp));
            let is_alone = kept.as_ref().is_some_and(|kept| kept.alone.load(Relaxed) == second);
            let sibling = if is_alone { None } else { self.sibling(path, at, &stamp, codings, speed)? };
            if let Some((coding, sibling, found, of)) = sibling {
                if (made.is_none() || codings.is_best(coding))
                    && let Some(loaded) =
                        readable(self.load((path, Some(coding)), &sibling, found, of, &facts, inquiry))?
                {
                    return Ok(Some(loaded.chosen(facts, Some(coding), inquiry.now)));
                }
            } else if let Some(kept) = kept.as_ref().filter(|_| codings.is_all()) {
                kept.alone.store(second, Relaxed);
            }
            if let Some(coding) = made
                && let Some(kept) = self.compressed(path, at, stamp, coding, &facts, inquiry)?
            {
                return Ok(Some(kept.chosen()));
            }
        }
        if let Some(kept) = kept {
            return Ok(Some(kept.chosen()));
        }
        let loaded = self.load((path, None), path, at, stamp, &facts, inquiry)?;
        Ok(loaded.map(|loaded| loaded.chosen(facts, None, inquiry.now)))
    }

    /// The best representation of a file in the binary.
    fn embedded(&self, path: &str, found: &InBinary<'_>, inquiry: Inquiry) -> io::Result<Chosen> {
        let Inquiry { codings, speed, .. } = inquiry;
        let Asset { contents, brotli, zstd, gzip, .. } = *found.asset;
        let coded = |coding| match coding {
            Coding::Brotli => brotli,
            Coding::Zstd => zstd,
            Coding::Gzip => gzip,
        };
        let best = codings.iter().find_map(|coding| Some((Some(coding), coded(coding)?)));
        let (coding, contents) = best.unwrap_or((None, contents));
        let kept = &found.kept[coding.map_or(0, |coding| 1 + coding as usize)];
        if kept.get().is_none() && speed == Speed::Cached && contents.len() as u64 > AT_ONCE {
            // Its tag is made of all of it, which the kernel may have to read from the disk.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let kept = kept.get_or_init(|| {
            let facts = self.facts(path);
            // Who embedded them may have found it worth it all the same.
            let is_compressed = brotli.or(zstd).or(gzip).is_none() && facts.is_compressed;
            let facts = Facts { is_compressed, ..facts };
            Arc::new(Kept::new(Stamp::BINARY, 0, Bytes::from_static(contents), facts, coding))
        });
        Ok(kept.chosen())
    }

    fn facts(&self, path: &str) -> Facts {
        let media = media::of(path);
        let said = media.to_str().unwrap_or_default();
        Facts {
            is_compressed: media::is_compressed(said),
            is_compressible: media::is_compressible(said),
            caching: self.rules.value(path),
            media,
        }
    }

    fn may_compress(&self, facts: &Facts, stamp: &Stamp) -> bool {
        self.compresses && facts.has_codings(stamp.len) && self.memory.takes(stamp.len)
    }

    /// The file beside it that has the same in the coding that the client likes best: its path, where it was
    /// found, and what it is. One that is older than the original is of what that was before, and one in another
    /// folder than the original is of what lies there, or lay. An empty one compresses nothing.
    fn sibling(
        &self,
        path: &str,
        folder: usize,
        original: &Stamp,
        codings: Codings,
        speed: Speed,
    ) -> io::Result<Option<(Coding, String, usize, Stamp)>> {
        for coding in codings.iter() {
            let beside = format!("{path}{}", extension(coding));
            if let Found::File(at, stamp) = self.root.find(&beside, speed)?
                && at == folder
                && (1..original.len).contains(&stamp.len)
                && stamp.is_no_older(original)
            {
                return Ok(Some((coding, beside, at, stamp)));
            }
        }
        Ok(None)
    }

    /// What was made of a file here, or is made now; nothing if others are being made.
    fn compressed(
        &self,
        path: &str,
        at: usize,
        stamp: Stamp,
        coding: Coding,
        facts: &Facts,
        inquiry: Inquiry,
    ) -> io::Result<Option<Arc<Kept>>> {
        if let Some(kept) = self.memory.find(path, Some(coding), &stamp) {
            return Ok(Some(kept));
        }
        if inquiry.speed == Speed::Cached {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let Some(Loaded::Kept(original)) = self.load((path, None), path, at, stamp, facts, inquiry)? else {
            return Ok(None);
        };
        let _alone = match self.compressing.try_lock() {
            Ok(alone) => alone,
            Err(TryLockError::Poisoned(alone)) => alone.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(None),
        };
        if let Some(kept) = self.memory.find(path, Some(coding), &original.stamp) {
            return Ok(Some(kept));
        }
        let made = match coded(&original.contents, coding)? {
            Some(made) => match self.memory.hold(made) {
                Ok(contents) => Kept::new(original.stamp, at, contents, facts.clone(), Some(coding)),
                Err(_) => return Ok(None),
            },
            // Not worth it, which is worth knowing.
            None => Kept::new(original.stamp, at, original.contents.clone(), facts.clone(), None),
        };
        let made = Arc::new(made);
        if original.settled {
            self.memory.keep(path, Some(coding), &made);
        }
        Ok(Some(made))
    }

    /// A file, which is kept as what `key` says: in memory if it is small, else opened.
    fn load(
        &self,
        key: (&str, Option<Coding>),
        path: &str,
        at: usize,
        stamp: Stamp,
        facts: &Facts,
        inquiry: Inquiry,
    ) -> io::Result<Option<Loaded>> {
        let ((name, coding), Inquiry { speed, now, .. }) = (key, inquiry);
        let small = self.memory.takes(stamp.len);
        if small && let Some(kept) = self.memory.find(name, coding, &stamp) {
            return Ok(Some(Loaded::Kept(kept)));
        }
        if small && speed == Speed::Cached && stamp.len > AT_ONCE {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let Some(mut opened) = self.root.open_file(at, path, speed)? else { return Ok(None) };
        for _ in 0..TRIES {
            let len = opened.stamp.len;
            let reserved = if self.memory.takes(len) { self.memory.reserve(len as usize) } else { None };
            let Some(reserved) = reserved else { break };
            let contents = match opened.read_whole(speed) {
                Ok(contents) => contents,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Vec::new(),
                Err(error) => return Err(error),
            };
            let after = self.root.stamp(&opened, speed)?;
            if after != opened.stamp || contents.len() as u64 != after.len {
                // Somebody is writing into it.
                opened.stamp = after;
                continue;
            }
            let mut kept = Kept::new(after, at, reserved.of(contents), facts.clone(), coding);
            kept.settled = after.is_settled(now);
            let kept = Arc::new(kept);
            if kept.settled {
                self.memory.keep(name, coding, &kept);
            }
            return Ok(Some(Loaded::Kept(kept)));
        }
        Ok(Some(Loaded::Opened(self.in_use.shared(path, opened))))
    }
}

impl Loaded {
    fn chosen(self, facts: Facts, coding: Option<Coding>, now: SystemTime) -> Chosen {
        let opened = match self {
            Self::Kept(kept) => return kept.chosen(),
            Self::Opened(opened) => opened,
        };
        let stamp = opened.stamp;
        Chosen {
            len: stamp.len,
            length: stamp.len.into(),
            tag: timed(&stamp, now),
            modified: stamp.modified(),
            dated: stamp.modified().and_then(date),
            contents: Contents::Disk(opened),
            coding,
            is_sole: coding.is_none() && !facts.has_codings(stamp.len),
            vary: facts.vary(),
            media: facts.media,
            caching: facts.caching,
        }
    }
}

impl Facts {
    /// Whether a file of so many bytes may be sent compressed.
    fn has_codings(&self, len: u64) -> bool {
        self.is_compressible && len >= SMALLEST
    }

    /// Of nothing in particular.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        let none = HeaderValue::from_static("");
        Self { media: none.clone(), caching: none, is_compressed: false, is_compressible: false }
    }

    fn vary(&self) -> Option<HeaderValue> {
        (!self.is_compressed).then_some(HeaderValue::from_static("accept-encoding"))
    }
}

impl Chosen {
    /// Something that was made for this answer alone.
    pub(super) fn made(contents: Bytes, media: HeaderValue, caching: HeaderValue) -> Self {
        Self {
            len: contents.len() as u64,
            length: contents.len().into(),
            tag: Some(tag(&contents)),
            contents: Contents::Memory(contents),
            modified: None,
            dated: None,
            media,
            coding: None,
            is_sole: true,
            vary: None,
            caching,
        }
    }
}

impl Kept {
    fn new(stamp: Stamp, at: usize, contents: Bytes, facts: Facts, coding: Option<Coding>) -> Self {
        let (tag, length) = (tag(&contents), contents.len().into());
        let dated = stamp.modified().and_then(date);
        let (resolved, alone) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { stamp, at, contents, facts, coding, tag, length, dated, settled: true, resolved, alone }
    }

    fn chosen(&self) -> Chosen {
        Chosen {
            contents: Contents::Memory(self.contents.clone()),
            len: self.contents.len() as u64,
            length: self.length.clone(),
            tag: Some(self.tag.clone()),
            modified: self.stamp.modified(),
            dated: self.dated.clone(),
            media: self.facts.media.clone(),
            coding: self.coding,
            is_sole: self.coding.is_none() && !self.facts.has_codings(self.stamp.len),
            vary: self.facts.vary(),
            caching: self.facts.caching.clone(),
        }
    }
}

/// Of what may not be read there is nothing to send.
fn readable<T>(loaded: io::Result<Option<T>>) -> io::Result<Option<T>> {
    match loaded {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        loaded => loaded,
    }
}

/// What a sibling is called behind the name of its original.
fn extension(coding: Coding) -> &'static str {
    match coding {
        Coding::Brotli => ".br",
        Coding::Zstd => ".zst",
        Coding::Gzip => ".gz",
    }
}

/// The same for the same contents, wherever and whenever they are served.
fn tag(contents: &[u8]) -> HeaderValue {
    said(format!("\"{:032x}\"", xxh3_128(contents)))
}

/// Of a file too large to be read for its tag: by its times and length, and so another on each machine. A weak one,
/// if it may have changed since and still have all three (RFC 9110, 8.8.1).
fn timed(stamp: &Stamp, now: SystemTime) -> Option<HeaderValue> {
    let weak = if stamp.is_settled(now) { "" } else { "W/" };
    let (modified, changed) = stamp.nanoseconds()?;
    Some(said(format!("{weak}\"{modified:x}-{changed:x}-{:x}\"", stamp.len)))
}

fn date(instant: SystemTime) -> Option<HeaderValue> {
    dates::written(instant).map(said)
}

fn said(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("digits, letters and quotes are visible ASCII")
}
