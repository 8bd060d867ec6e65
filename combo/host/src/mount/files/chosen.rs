//! Takes a file that was found, gives the representation of it that suits the client best: as it is, as somebody
//! compressed it beforehand (`a.css.br` beside `a.css`), or compressed here, once, and kept with the file.

use std::{
    io,
    sync::{Arc, Mutex, TryLockError, atomic::Ordering::Relaxed},
    time::SystemTime,
};

use bytes::Bytes;

use super::{
    accept::{Coding, Codings},
    caching::Rules,
    coded::coded,
    embedded::Asset,
    loaded::{Loaded, Spot},
    media,
    memory::{Kept, Memory},
    opened::{InUse, Speed, Stamp},
    recent::Recent,
    representation::{Choice, Facts},
    root::{Found, InBinary, Root},
    watched::Told,
};

/// Up to so many bytes are read on a worker if the kernel has them: that takes less than a trip to the pool.
pub(super) const AT_ONCE: u64 = 256 << 10;

/// How often a file that changes while it is read is read again.
pub(super) const TRIES: usize = 3;

/// What a file is served from and with.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) root: Root,
    pub(super) memory: Memory,
    pub(super) recent: Recent,
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
    /// The second of it, in which some things are believed.
    pub(super) second: Option<u64>,
    /// The turn of the watch before anything was looked at, if whatever happens on the way is told by another.
    pub(super) turn: Option<u64>,
}

impl Shelf {
    /// The best representation of the file at a path, or what is there instead. What was found in this second is found
    /// again by one cheap call, as long as nothing has happened.
    ///
    /// # Errors
    ///
    /// When the world refuses; [`WouldBlock`](io::ErrorKind::WouldBlock) if it has to be asked at any speed.
    pub(super) fn find(&self, path: &str, inquiry: Inquiry) -> io::Result<Result<Choice, Found<'_>>> {
        let (codings, on_worker) = (inquiry.codings, inquiry.speed == Speed::Cached);
        let second = inquiry.second.filter(|_| Recent::takes(path));
        let Some(second) = second else { return self.look(path, inquiry) };
        let known = if on_worker { self.recent.find(path, codings) } else { None };
        let known = known.filter(|known| known.second == second);
        let is_told = known.as_ref().is_none_or(|known| known.turn.is_some());
        // Before anything is looked at, for what happens meanwhile is of a later turn.
        let Some(turn) = is_told.then(|| self.root.turn()).flatten() else { return self.look(path, inquiry) };
        if let Some(known) = known.as_ref().filter(|known| known.turn == Some(turn))
            && let Some(kept) = known.kept()
        {
            self.memory.touch(path, &kept);
            return Ok(Ok(Choice::Kept(kept)));
        }
        let beside = codings.iter().map(|coding| format!("{path}{}", extension(coding)));
        let told = match &known {
            Some(known) if known.is_restless() => Told::Never,
            _ => self.root.told(path, beside),
        };
        let turn = match told {
            Told::Yes => Some(turn),
            Told::FromNow => self.root.turn(),
            Told::NotNow | Told::Never => None,
        };
        let found = self.look(path, Inquiry { turn, ..inquiry })?;
        // What has just changed is read by each who asks, so that nobody has what another read a moment before.
        if on_worker
            && let Ok(Choice::Kept(kept)) = &found
            && self.root.is_first(kept)
            && (turn.is_some() && kept.settled || told == Told::Never)
        {
            self.recent.remember((path, codings), second, turn, kept, known.as_ref());
        }
        Ok(found)
    }

    /// The same, looked for.
    ///
    /// A file that is kept is looked up by one call within a second after its path was resolved: it is the same as
    /// long as its stamp is.
    fn look(&self, path: &str, inquiry: Inquiry) -> io::Result<Result<Choice, Found<'_>>> {
        let recalled = self.memory.recall(path).filter(|kept| {
            kept.at == 0
                && inquiry.second == Some(kept.resolved.load(Relaxed))
                && self.is_whole(kept, path, inquiry)
                && self.root.glance(path) == Some(kept.stamp)
        });
        if let Some(kept) = recalled
            && let Some(chosen) = self.choose(Spot { path, at: 0, stamp: kept.stamp }, Some(kept), inquiry)?
        {
            return Ok(Ok(chosen));
        }
        for _ in 0..TRIES {
            let (at, stamp) = match self.root.find(path, inquiry.speed)? {
                Found::File(at, stamp) => (at, stamp),
                Found::Asset(asset) => return Ok(Ok(self.embedded(path, &asset, inquiry)?)),
                found => {
                    if self.memory.outlived(path, None, None) {
                        self.root.has_changed();
                    }
                    return Ok(Err(found));
                }
            };
            let kept = self.recall((path, None), Spot { path, at, stamp }, inquiry);
            // On other file systems than local ones even a glance may take long.
            if let (Some(kept), Some(second), Speed::Cached) = (&kept, inquiry.second, inquiry.speed) {
                kept.resolved.store(second, Relaxed);
            }
            if let Some(chosen) = self.choose(Spot { path, at, stamp }, kept, inquiry)? {
                return Ok(Ok(chosen));
            }
            // It went away in between; what it lay over may be there.
        }
        Ok(Err(Found::Nothing))
    }

    /// The best representation of a file that was found; nothing if it is gone by now.
    fn choose(
        &self,
        file: Spot<'_>,
        kept: Option<Arc<Kept>>,
        inquiry: Inquiry,
    ) -> io::Result<Option<Choice>> {
        let Inquiry { codings, speed, second, turn, .. } = inquiry;
        let path = file.path;
        if codings.is_empty()
            && let Some(kept) = kept
        {
            return Ok(Some(Choice::Kept(kept)));
        }
        let facts = kept.as_ref().map_or_else(|| self.facts(path), |kept| kept.facts.clone());
        if !facts.is_compressed && !codings.is_empty() {
            let made = codings.iter().next().filter(|_| self.may_compress(&facts, &file.stamp));
            let is_alone =
                turn.is_none() && kept.as_ref().is_some_and(|kept| second == Some(kept.alone.load(Relaxed)));
            let sibling = if is_alone { None } else { self.sibling(file, codings, speed)? };
            if let Some((coding, beside, at, stamp)) = sibling {
                let sibling = Spot { path: &beside, at, stamp };
                if (made.is_none() || codings.is_best(coding))
                    && let Some(loaded) = readable(self.load((path, Some(coding)), sibling, &facts, inquiry))?
                {
                    return Ok(Some(loaded.choice(facts, Some(coding), inquiry.now)));
                }
            } else if let (Some(kept), Some(second), true) = (&kept, second, codings.is_all()) {
                kept.alone.store(second, Relaxed);
            }
            if let Some(coding) = made
                && let Some(kept) = self.compressed(file, coding, &facts, inquiry)?
            {
                return Ok(Some(Choice::Kept(kept)));
            }
        }
        if let Some(kept) = kept {
            return Ok(Some(Choice::Kept(kept)));
        }
        let loaded = self.load((path, None), file, &facts, inquiry)?;
        Ok(loaded.map(|loaded| loaded.choice(facts, None, inquiry.now)))
    }

    /// The best representation of a file in the binary.
    fn embedded(&self, path: &str, found: &InBinary<'_>, inquiry: Inquiry) -> io::Result<Choice> {
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
        Ok(Choice::Kept(kept.clone()))
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
        original: Spot<'_>,
        codings: Codings,
        speed: Speed,
    ) -> io::Result<Option<(Coding, String, usize, Stamp)>> {
        for coding in codings.iter() {
            let beside = format!("{}{}", original.path, extension(coding));
            if let Found::File(at, stamp) = self.root.find(&beside, speed)?
                && at == original.at
                && (1..original.stamp.len).contains(&stamp.len)
                && stamp.is_no_older(&original.stamp)
            {
                return Ok(Some((coding, beside, at, stamp)));
            }
        }
        Ok(None)
    }

    /// What was made of a file here, or is made now; nothing if others are being made.
    fn compressed(
        &self,
        file: Spot<'_>,
        coding: Coding,
        facts: &Facts,
        inquiry: Inquiry,
    ) -> io::Result<Option<Arc<Kept>>> {
        let Spot { path, at, .. } = file;
        if let Some(kept) = self.recall((path, Some(coding)), file, inquiry) {
            return Ok(Some(kept));
        }
        if inquiry.speed == Speed::Cached {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let Some(Loaded::Kept(original)) = self.load((path, None), file, facts, inquiry)? else {
            return Ok(None);
        };
        let _alone = match self.compressing.try_lock() {
            Ok(alone) => alone,
            Err(TryLockError::Poisoned(alone)) => alone.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(None),
        };
        let read = Spot { stamp: original.stamp, ..file };
        if let Some(kept) = self.recall((path, Some(coding)), read, inquiry) {
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
        let Kept { settled, aged, turn, .. } = *original;
        let made = Arc::new(Kept { settled, aged, turn, ..made });
        if settled {
            self.memory.keep(path, Some(coding), &made);
        }
        Ok(Some(made))
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
