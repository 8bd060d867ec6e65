//! A connection that was accepted -> whether it may come in. Asked by whoever accepts, before any worker
//! knows of it, so that a flood costs an accept and a close.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    hash::RandomState,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use combo_core::Peer;
use tokio::sync::Notify;

use super::{
    evictions::{Eviction, Evictions},
    limits::Limits,
    proxies::Proxies,
};

/// What is known of all connections together.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) limits: Arc<Limits>,
    pub(crate) evictions: Evictions,
    proxies: Arc<Proxies>,
    peers: Arc<Peers>,
    handshakes: Arc<Handshakes>,
    full: AtomicBool,
}

/// Whom each peer is the other end of. None has nothing.
#[derive(Debug, Default)]
struct Peers(Mutex<HashMap<IpAddr, Share, RandomState>>);

/// What one peer has of what there is for all.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    connections: usize,
    handshakes: usize,
}

impl Peers {
    fn all(&self) -> MutexGuard<'_, HashMap<IpAddr, Share, RandomState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, peer: IpAddr, what: fn(&mut Share) -> &mut usize) {
        if let Entry::Occupied(mut known) = self.all().entry(peer) {
            let count = what(known.get_mut());
            *count = count.saturating_sub(1);
            if known.get().connections == 0 && known.get().handshakes == 0 {
                let _ = known.remove();
            }
        }
    }
}

/// Lasts as long as what was let in.
#[derive(Debug, Default)]
pub(crate) struct Pass(Option<(IpAddr, Arc<Peers>)>);

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some((peer, peers)) = self.0.take() {
            peers.leave(peer, |share| &mut share.connections);
        }
    }
}

/// The TLS handshakes that go on.
#[derive(Debug, Default)]
struct Handshakes(Mutex<Going>);

#[derive(Debug, Default)]
struct Going {
    /// By the order in which they began.
    all: BTreeMap<u64, Arc<Notify>>,
    begun: u64,
}

impl Handshakes {
    fn going(&self) -> MutexGuard<'_, Going> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more; the one that has taken longest gives way if there are as many as may be.
    fn begin(&self, most: usize) -> (u64, Arc<Notify>) {
        let mut going = self.going();
        if going.all.len() >= most
            && let Some((_, oldest)) = going.all.pop_first()
        {
            oldest.notify_one();
        }
        going.begun += 1;
        let (number, gives_way) = (going.begun, Arc::<Notify>::default());
        drop(going.all.insert(number, gives_way.clone()));
        (number, gives_way)
    }
}

/// Lasts as long as a TLS handshake.
#[derive(Debug)]
pub(crate) struct Shaking {
    all: Arc<Handshakes>,
    number: u64,
    gives_way: Arc<Notify>,
    peer: Option<(IpAddr, Arc<Peers>)>,
}

impl Shaking {
    /// Until it has taken longest of too many.
    pub(crate) async fn gives_way(&self) {
        self.gives_way.notified().await;
    }
}

impl Drop for Shaking {
    fn drop(&mut self) {
        drop(self.all.going().all.remove(&self.number));
        if let Some((peer, peers)) = self.peer.take() {
            peers.leave(peer, |share| &mut share.handshakes);
        }
    }
}

impl Gate {
    pub(crate) fn new(limits: Arc<Limits>, proxies: Arc<Proxies>) -> Self {
        let (evictions, peers, handshakes) = (Evictions::default(), Arc::default(), Arc::default());
        Self { limits, evictions, proxies, peers, handshakes, full: AtomicBool::new(false) }
    }

    /// Lets a connection in, with what is to be kept as long as it is open and as long as it shakes hands.
    /// A proxy that is trusted has as many connections as it likes: it stands for many.
    pub(crate) fn admit(&self, peer: &Peer, tls: bool) -> Option<(Pass, Option<Shaking>)> {
        let known = match peer {
            Peer::Inet(address) if !self.proxies.trusts(peer) => {
                Some((of_one(address.ip()), self.peers.clone()))
            }
            _ => None,
        };
        self.enter(known, tls).map_err(|why| self.evictions.count(why, peer)).ok()
    }

    /// The same at an endpoint for proxies, where whoever connects is one, or is refused later: only all handshakes
    /// together are limited there.
    pub(crate) fn admit_proxy(&self, peer: &Peer, tls: bool) -> Option<(Pass, Option<Shaking>)> {
        self.enter(None, tls).map_err(|why| self.evictions.count(why, peer)).ok()
    }

    fn enter(
        &self,
        known: Option<(IpAddr, Arc<Peers>)>,
        tls: bool,
    ) -> Result<(Pass, Option<Shaking>), Eviction> {
        let Limits { connections_per_peer, handshakes, .. } = *self.limits;
        if let Some((peer, peers)) = &known {
            let mut all = peers.all();
            let share = all.entry(*peer).or_default();
            if share.connections >= connections_per_peer {
                return Err(Eviction::Peer);
            }
            // It costs nothing to begin one, so nobody may have begun them all once they become few.
            if tls
                && share.handshakes >= handshakes.div_ceil(8)
                && self.handshakes.going().all.len() >= handshakes / 2
            {
                return Err(Eviction::Handshakes);
            }
            share.connections += 1;
            share.handshakes += usize::from(tls);
        }
        let shaking = tls.then(|| {
            let (number, gives_way) = self.handshakes.begin(handshakes);
            Shaking { all: self.handshakes.clone(), number, gives_way, peer: known.clone() }
        });
        Ok((Pass(known), shaking))
    }

    /// Whether there is no memory to spare: nothing new is begun then.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Relaxed)
    }

    /// So much memory is in use.
    pub(crate) fn uses(&self, bytes: u64, most: u64) {
        let full = self.is_full();
        if !full && bytes > most {
            self.full.store(true, Relaxed);
            tracing::warn!(bytes, most, "as much memory as allowed; nothing new is begun");
        } else if full && bytes <= most / 100 * 95 {
            self.full.store(false, Relaxed);
            tracing::info!(bytes, "there is memory again");
        }
    }
}

/// What all addresses of one peer have in common: a subscriber has 64 bits of IPv6 addresses.
pub(crate) fn of_one(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn gate(proxies: Proxies) -> Gate {
        let limits = Limits { connections_per_peer: 2, handshakes: 9, ..Limits::default() };
        Gate::new(Arc::new(limits), Arc::new(proxies))
    }

    fn peer(address: &str) -> Peer {
        Peer::Inet((address.parse::<IpAddr>().expect("an address"), 5_000).into())
    }

    #[test]
    fn one_peer_has_so_many_connections_and_a_network_of_ipv6_is_one() {
        let gate = gate(Proxies::default());
        for (first, same, other) in [
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::ffff:0:0:1", "2001:db8:0:1::1"),
        ] {
            let admit = |address| gate.admit(&peer(address), false);
            let (one, two) = (admit(first).expect("a pass"), admit(same).expect("a pass"));
            assert!(admit(first).is_none() && admit(same).is_none());
            assert!(admit(other).is_some());
            drop(one);
            let again = admit(first).expect("a pass");
            assert!(admit(same).is_none());
            drop((two, again));
        }
        assert!(gate.peers.all().is_empty());
        assert_eq!(gate.evictions.counts()[0].connections, 6);
        assert!((0..3).map(|_| gate.admit(&Peer::Unix, false)).all(|pass| pass.is_some()));
    }

    #[test]
    fn so_many_shake_hands_at_once_and_nobody_has_them_all() {
        let limits = Limits { handshakes: 16, ..Limits::default() };
        let gate = Gate::new(Arc::new(limits), Arc::default());
        let admit = |address: String| gate.admit(&peer(&address), true);
        // As long as there are many left, one may have many.
        let mut first: Vec<_> = (0..8).map(|_| admit("192.0.2.1".into()).expect("a pass")).collect();
        assert!(admit("192.0.2.1".into()).is_none(), "half of them are taken");
        let others: Vec<_> =
            (0..8).map(|n| admit(format!("192.0.2.{}", 2 + n / 2)).expect("a pass")).collect();
        let gives_way = |(_, shaking): &(Pass, Option<Shaking>)| {
            shaking.as_ref().is_some_and(|shaking| shaking.gives_way().now_or_never().is_some())
        };
        // It keeps its connection; its hands are shaken.
        first[0].1 = None;
        let last = admit("192.0.2.99".into()).expect("a pass");
        assert!(!first.iter().chain(&others).any(gives_way), "there was one left");
        let more = admit("192.0.2.99".into()).expect("a pass");
        assert!(gives_way(&first[1]) && !first.iter().chain(&others).chain([&last, &more]).any(gives_way));
        drop((first, others, last, more));
        assert!(gate.peers.all().is_empty() && gate.handshakes.going().all.is_empty());
    }

    #[test]
    fn a_proxy_has_as_many_connections_as_it_likes_but_not_handshakes() {
        let gate = gate(Proxies::default());
        let admit = |tls| gate.admit_proxy(&peer("192.0.2.1"), tls);
        let shaking: Vec<_> = (0..9).map(|_| admit(true).expect("a pass")).collect();
        assert!(admit(true).is_some() && admit(false).is_some());
        let others: Vec<_> = (0..9).filter_map(|_| gate.admit(&peer("192.0.2.2"), true)).collect();
        assert_eq!(others.len(), 2, "an eighth");
        assert!(gate.handshakes.going().all.len() <= 9);
        drop((shaking, others));
        assert!(gate.peers.all().is_empty() && gate.handshakes.going().all.is_empty());
    }

    #[test]
    fn it_is_full_until_there_is_some_room() {
        let gate = gate(Proxies::default());
        for (bytes, full) in
            [(1_000, false), (1_001, true), (1_000, true), (951, true), (950, false), (1_000, false)]
        {
            gate.uses(bytes, 1_000);
            assert_eq!(gate.is_full(), full, "{bytes}");
        }
    }
}
