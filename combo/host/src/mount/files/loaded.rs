//! Takes a file that was found, gives its contents: from memory, read into it, or opened where it is too large.

use std::{io, sync::Arc, time::SystemTime};

use super::{
    accept::Coding,
    chosen::{AT_ONCE, Inquiry, Shelf, TRIES},
    memory::Kept,
    opened::{Opened, Speed, Stamp},
    representation::{Choice, Chosen, Contents, Facts, date, timed},
};

/// A file that was found: its path, which of the folders it is in, and what it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot<'a> {
    pub(super) path: &'a str,
    pub(super) at: usize,
    pub(super) stamp: Stamp,
}

/// A file in memory, or opened.
#[derive(Debug)]
pub(super) enum Loaded {
    Kept(Arc<Kept>),
    Opened(Opened),
}

impl Shelf {
    /// What is kept as what `key` says of a file that was found, if it is of just that, and nobody was still writing when it
    /// was read.
    pub(super) fn recall(
        &self,
        (name, coding): (&str, Option<Coding>),
        file: Spot<'_>,
        inquiry: Inquiry,
    ) -> Option<Arc<Kept>> {
        let kept = self.memory.find(name, coding, &file.stamp).filter(|kept| kept.at == file.at)?;
        self.is_whole(&kept, file.path, inquiry).then_some(kept)
    }

    /// Whether the watch is told of what is written into a file, if it is told anything of the folders on the way.
    fn is_told(&self, at: usize, stamp: &Stamp) -> bool {
        at == 0 && self.root.is_local(stamp)
    }

    /// Whether what was read of the file at a path is all that was written before.
    pub(super) fn is_whole(&self, kept: &Kept, path: &str, inquiry: Inquiry) -> bool {
        match inquiry.turn.filter(|_| self.is_told(kept.at, &kept.stamp)) {
            Some(_) => {
                kept.turn.is_some_and(|read| self.root.unwritten(path).is_some_and(|turn| read >= turn))
            }
            None => kept.aged,
        }
    }

    /// A file, which is kept as what `key` says: in memory if it is small, else opened.
    pub(super) fn load(
        &self,
        key: (&str, Option<Coding>),
        file: Spot<'_>,
        facts: &Facts,
        inquiry: Inquiry,
    ) -> io::Result<Option<Loaded>> {
        let ((name, coding), Inquiry { speed, now, .. }) = (key, inquiry);
        let Spot { path, at, stamp } = file;
        let small = self.memory.takes(stamp.len);
        if self.memory.outlived(name, coding, Some(&stamp)) {
            self.root.has_changed();
        }
        if small && let Some(kept) = self.recall((name, coding), file, inquiry) {
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
            kept.turn = inquiry.turn.filter(|_| self.is_told(at, &after));
            kept.aged = after.is_aged(now);
            kept.settled = kept.aged || kept.turn.is_some() && after.is_settled(now);
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
    pub(super) fn choice(self, facts: Facts, coding: Option<Coding>, now: SystemTime) -> Choice {
        let opened = match self {
            Self::Kept(kept) => return Choice::Kept(kept),
            Self::Opened(opened) => opened,
        };
        let stamp = opened.stamp;
        Choice::Other(Box::new(Chosen {
            len: stamp.len,
            length: stamp.len.into(),
            tag: timed(&stamp, coding, now),
            modified: stamp.second(),
            dated: stamp.modified().and_then(date),
            contents: Contents::Disk(opened),
            coding,
            is_sole: coding.is_none() && !facts.has_codings(stamp.len),
            vary: facts.vary(),
            media: facts.media,
            caching: facts.caching,
        }))
    }
}
