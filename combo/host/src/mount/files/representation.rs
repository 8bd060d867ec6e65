//! What there is to send of a file, and what is said of it: its type, its tag, its date, how long it may be kept.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, AtomicU64},
    },
    time::SystemTime,
};

use bytes::Bytes;
use http::HeaderValue;
use xxhash_rust::xxh3::xxh3_128;

use super::{
    accept::Coding,
    coded::SMALLEST,
    dates,
    memory::Kept,
    opened::{Opened, Stamp},
};

/// The representation that suits a client best.
#[derive(Debug)]
pub(super) enum Choice {
    Kept(Arc<Kept>),
    Other(Box<Chosen>),
}

/// What there is to send, and what is said of it.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) contents: Contents,
    pub(super) len: u64,
    /// `Content-Length` of all of it.
    pub(super) length: HeaderValue,
    pub(super) tag: Option<HeaderValue>,
    /// The second of its last change.
    pub(super) modified: Option<u64>,
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

/// What the path of a file says of it.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) media: HeaderValue,
    pub(super) caching: HeaderValue,
    /// Compressed by itself, so that it has no other coding.
    pub(super) is_compressed: bool,
    /// Worth being compressed.
    pub(super) is_compressible: bool,
}

impl Facts {
    /// Whether a file of so many bytes may be sent compressed.
    pub(super) fn has_codings(&self, len: u64) -> bool {
        self.is_compressible && len >= SMALLEST
    }

    /// Of nothing in particular.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        let none = HeaderValue::from_static("");
        Self { media: none.clone(), caching: none, is_compressed: false, is_compressible: false }
    }

    pub(super) fn vary(&self) -> Option<HeaderValue> {
        (!self.is_compressed).then_some(HeaderValue::from_static("accept-encoding"))
    }
}

impl Choice {
    pub(super) fn chosen(self) -> Chosen {
        match self {
            Self::Kept(kept) => kept.chosen(),
            Self::Other(chosen) => *chosen,
        }
    }
}

impl Chosen {
    /// Something that was made for this answer alone.
    pub(super) fn made(contents: Bytes, media: HeaderValue, caching: HeaderValue) -> Self {
        Self {
            len: contents.len() as u64,
            length: contents.len().into(),
            tag: Some(tag(&contents, None)),
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
    pub(super) fn new(
        stamp: Stamp,
        at: usize,
        contents: Bytes,
        facts: Facts,
        coding: Option<Coding>,
    ) -> Self {
        let (tag, length) = (tag(&contents, coding), contents.len().into());
        let dated = stamp.modified().and_then(date);
        let (heads, resolved, alone) = (OnceLock::new(), AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX));
        Self {
            stamp,
            at,
            contents,
            facts,
            coding,
            tag,
            length,
            dated,
            heads,
            settled: true,
            aged: true,
            turn: None,
            resolved,
            asked: AtomicU8::new(0),
            alone,
        }
    }

    pub(super) fn chosen(&self) -> Chosen {
        Chosen {
            contents: Contents::Memory(self.contents.clone()),
            len: self.contents.len() as u64,
            length: self.length.clone(),
            tag: Some(self.tag.clone()),
            modified: self.stamp.second(),
            dated: self.dated.clone(),
            media: self.facts.media.clone(),
            coding: self.coding,
            is_sole: self.coding.is_none() && !self.facts.has_codings(self.stamp.len),
            vary: self.facts.vary(),
            caching: self.facts.caching.clone(),
        }
    }
}

/// The same for the same contents in the same coding, wherever and whenever they are served.
fn tag(contents: &[u8], coding: Option<Coding>) -> HeaderValue {
    said(format!("\"{:032x}{}\"", xxh3_128(contents), in_coding(coding)))
}

/// Of a file too large to be read for its tag: by its times and length, and so another on each machine. A weak one,
/// if it may have changed since and still have all three (RFC 9110, 8.8.1).
pub(super) fn timed(stamp: &Stamp, coding: Option<Coding>, now: SystemTime) -> Option<HeaderValue> {
    let weak = if stamp.is_settled(now) { "" } else { "W/" };
    let (modified, changed) = stamp.nanoseconds()?;
    Some(said(format!("{weak}\"{modified:x}-{changed:x}-{:x}{}\"", stamp.len, in_coding(coding))))
}

/// What is sent in a coding means something else than the same bytes without.
fn in_coding(coding: Option<Coding>) -> String {
    coding.map_or_else(String::new, |coding| format!("-{}", coding.name()))
}

pub(super) fn date(instant: SystemTime) -> Option<HeaderValue> {
    dates::written(instant).map(said)
}

fn said(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("digits, letters and quotes are visible ASCII")
}
