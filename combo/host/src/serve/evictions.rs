//! Whom the combo has not let in or has ended, and why: counted, and said in the log once in a while.
#![expect(clippy::disallowed_methods, reason = "the log is kept readable by the clock")]

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use combo_core::{Evicted, Peer};

/// How often each reason is said while there are more of it.
const REMIND: Duration = Duration::from_secs(10);

/// Why a connection was not accepted, or was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Eviction {
    /// There are as many from one peer as there may be.
    Peer,
    /// There are as many that shake hands.
    Handshakes,
    Handshake,
    First,
    Head,
    Body,
    Write,
    Idle,
    Closing,
    Answer,
    Flood,
}

impl Eviction {
    const ALL: [Self; 11] = [
        Self::Peer,
        Self::Handshakes,
        Self::Handshake,
        Self::First,
        Self::Head,
        Self::Body,
        Self::Write,
        Self::Idle,
        Self::Closing,
        Self::Answer,
        Self::Flood,
    ];
}

impl fmt::Display for Eviction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peer => "has as many connections as one peer may have",
            Self::Handshakes => "was one of too many that shook hands",
            Self::Handshake => "did not finish its TLS handshake",
            Self::First => "sent nothing",
            Self::Head => "did not finish a request head",
            Self::Body => "sent a body too slowly",
            Self::Write => "read the answer too slowly",
            Self::Idle => "was idle",
            Self::Closing => "did not end it",
            Self::Answer => "did not answer the close of a websocket",
            Self::Flood => "flooded it with frames",
        })
    }
}

/// The counts of the whole process.
#[derive(Debug, Default)]
pub(crate) struct Evictions([Row; Eviction::ALL.len()]);

#[derive(Debug, Default)]
struct Row {
    count: AtomicU64,
    /// When it was last said, and how many there were then.
    said: Mutex<Option<(Instant, u64)>>,
}

impl Evictions {
    pub(crate) fn count(&self, why: Eviction, peer: &Peer) {
        let row = &self.0[why as usize];
        let count = row.count.fetch_add(1, Relaxed) + 1;
        let mut said = row.said.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match *said {
            Some((at, _)) if at.elapsed() < REMIND => return,
            Some((_, known)) => known,
            None => 0,
        };
        *said = Some((Instant::now(), count.max(known)));
        drop(said);
        let connections = count.saturating_sub(known);
        tracing::info!(target: "clients", connections, last = %peer, "ended because the peer {why}");
    }

    pub(crate) fn counts(&self) -> Vec<Evicted> {
        let counts = Eviction::ALL.iter().map(|why| {
            let connections = self.0[*why as usize].count.load(Relaxed);
            Evicted::new(format!("the peer {why}"), connections)
        });
        counts.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted_by_itself() {
        let evictions = Evictions::default();
        for (times, why) in (1..).zip(Eviction::ALL) {
            (0..times).for_each(|_| evictions.count(why, &Peer::Unix));
        }
        let counts = evictions.counts();
        assert_eq!(
            counts.iter().map(|row| row.connections).collect::<Vec<_>>(),
            (1..=11).collect::<Vec<_>>()
        );
        assert_eq!(counts[3].why, "the peer sent nothing");
    }
}
