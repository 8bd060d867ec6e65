//! A connection that was accepted -> whether it may come in. Asked by whoever accepts, before any worker
//! knows of it, so that a flood costs an accept and a close.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::RandomState,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use combo_core::Peer;

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
    handshakes: Arc<AtomicUsize>,
    full: AtomicBool,
}

/// Of how many connections each peer is the other end. None has zero.
#[derive(Debug, Default)]
struct Peers(Mutex<HashMap<IpAddr, usize, RandomState>>);

impl Peers {
    fn all(&self) -> MutexGuard<'_, HashMap<IpAddr, usize, RandomState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lasts as long as what was let in.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    peer: Option<(IpAddr, Arc<Peers>)>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Some((peer, peers)) = self.peer.take() else { return };
        if let Entry::Occupied(mut known) = peers.all().entry(peer) {
            match known.get() {
                0 | 1 => drop(known.remove()),
                more => *known.get_mut() = more - 1,
            }
        }
    }
}

/// Lasts as long as a TLS handshake.
#[derive(Debug)]
pub(crate) struct Shaking(Arc<AtomicUsize>);

impl Drop for Shaking {
    fn drop(&mut self) {
        let _ = self.0.fetch_sub(1, Relaxed);
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
        let pass = match peer {
            Peer::Inet(address) if !self.proxies.trusts(peer) => self.enter(of_one(address.ip())),
            _ => Some(Pass::default()),
        };
        let Some(pass) = pass else {
            self.evictions.count(Eviction::Peer, peer);
            return None;
        };
        if !tls {
            return Some((pass, None));
        }
        let shaking = self.handshakes.fetch_add(1, Relaxed);
        let guard = Shaking(self.handshakes.clone());
        if shaking >= self.limits.handshakes {
            self.evictions.count(Eviction::Handshakes, peer);
            return None;
        }
        Some((pass, Some(guard)))
    }

    fn enter(&self, peer: IpAddr) -> Option<Pass> {
        let mut peers = self.peers.all();
        let count = peers.entry(peer).or_default();
        if *count >= self.limits.connections_per_peer {
            return None;
        }
        *count += 1;
        Some(Pass { peer: Some((peer, self.peers.clone())) })
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

/// Whoever has one address of IPv6 has all of its network.
fn of_one(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(proxies: Proxies) -> Gate {
        let limits = Limits { connections_per_peer: 2, handshakes: 1, ..Limits::default() };
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
    fn so_many_shake_hands_at_once() {
        let gate = gate(Proxies::default());
        let (_pass, shaking) = gate.admit(&peer("192.0.2.1"), true).expect("a pass");
        assert!(gate.admit(&peer("192.0.2.2"), true).is_none());
        assert!(gate.admit(&peer("192.0.2.2"), false).is_some());
        drop(shaking);
        assert!(gate.admit(&peer("192.0.2.2"), true).is_some());
        assert_eq!(gate.peers.all().len(), 1, "who was not let in is forgotten");
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
