//! Who has asked how much lately, for as many peers as there is room for: a store for `governor`, which does
//! the arithmetic. It neither grows nor works more than is said here, whoever comes.

use std::{
    array,
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use governor::{
    nanos::Nanos,
    state::{StateStore, keyed::ShrinkableKeyedStateStore},
};

/// Each has a lock of its own, and is swept at once.
const SHARDS: usize = 64;

/// Chance fills shards unevenly, so this is somewhat more than the 100,000 that are promised in all.
const PER_SHARD: usize = 2_048;

type Shard = Mutex<HashMap<IpAddr, Nanos, RandomState>>;

/// When each peer will have back all that it may ask for.
pub(super) struct Peers {
    /// Nobody outside knows who is in which.
    hasher: RandomState,
    shards: [Shard; SHARDS],
    /// Those together that there was no room for.
    others: Mutex<Option<Nanos>>,
    /// Which shard is swept next.
    next: AtomicUsize,
}

impl Peers {
    pub(super) fn new() -> Self {
        let shards = array::from_fn(|_| Shard::default());
        Self { hasher: RandomState::new(), shards, others: Mutex::default(), next: AtomicUsize::new(0) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StateStore for Peers {
    type Key = IpAddr;

    fn measure_and_replace<T, F, E>(&self, peer: &IpAddr, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let shard = self.hasher.hash_one(peer) % SHARDS as u64;
        let mut shard = lock(&self.shards[shard as usize]);
        if let Some(known) = shard.get_mut(peer) {
            let (measured, next) = measure(Some(*known))?;
            *known = next;
            return Ok(measured);
        }
        if shard.len() < PER_SHARD {
            let (measured, next) = measure(None)?;
            let _ = shard.insert(*peer, next);
            return Ok(measured);
        }
        drop(shard);
        let mut others = lock(&self.others);
        let (measured, next) = measure(*others)?;
        *others = Some(next);
        Ok(measured)
    }
}

impl ShrinkableKeyedStateStore<IpAddr> for Peers {
    /// Of one shard at a time, so that nobody waits for the others.
    fn retain_recent(&self, drop_below: Nanos) {
        let next = self.next.fetch_add(1, Relaxed) % SHARDS;
        let mut shard = lock(&self.shards[next]);
        shard.retain(|_, until| *until > drop_below);
        if shard.len() < shard.capacity() / 4 {
            let room = 2 * shard.len();
            shard.shrink_to(room);
        }
    }

    fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// Asks on behalf of a peer until this instant; says what was known of it.
    fn ask(peers: &Peers, peer: u32, until: u64) -> Option<u64> {
        let peer = Ipv4Addr::from_bits(peer).into();
        let asked: Result<_, ()> = peers.measure_and_replace(&peer, |known| Ok((known, Nanos::new(until))));
        asked.unwrap_or_default().map(Nanos::as_u64)
    }

    #[test]
    fn so_many_peers_are_remembered_and_the_others_share() {
        let peers = Peers::new();
        for peer in 0..100_000 {
            assert_eq!(ask(&peers, peer, u64::from(peer)), None, "{peer}");
        }
        let shared = (100_000..300_000).filter(|peer| ask(&peers, *peer, 7).is_some()).count();
        assert_eq!(peers.len(), SHARDS * PER_SHARD);
        assert_eq!(peers.len() + shared + 1, 300_000, "the first of those who share finds nothing");
        assert_eq!(ask(&peers, 300_000, 8), Some(7));
        assert_eq!(ask(&peers, 300_001, 9), Some(8));
        assert_eq!(ask(&peers, 50_000, 9), Some(50_000), "who was there first is not forgotten");
    }

    #[test]
    fn who_has_all_back_is_forgotten_shard_by_shard() {
        let peers = Peers::new();
        for peer in 0..100_000 {
            let _ = ask(&peers, peer, 1 + u64::from(peer % 2));
        }
        for sweep in 0..SHARDS {
            let before = peers.len();
            peers.retain_recent(Nanos::new(1));
            assert!(before - peers.len() <= PER_SHARD, "{sweep}");
        }
        assert_eq!(peers.len(), 50_000);
        (0..SHARDS).for_each(|_| peers.retain_recent(Nanos::new(2)));
        assert!(peers.is_empty() && peers.shards.iter().all(|shard| lock(shard).capacity() == 0));
        assert_eq!(ask(&peers, 1, 3), None);
    }
}
