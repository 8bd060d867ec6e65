//! a handshake for a name that there is no certificate for -> a name to order one for, if it is allowed.
//!
//! The handshake is not kept waiting: it fails, and those after the order has gone through succeed. A name that has
//! failed, or is being ordered, is not wanted again before its time; how many are kept is bounded.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use combo_core::Timestamp;
use tokio::sync::Notify;

use super::asked::{host, is_allowed};

/// How many names are wanted at once.
const MOST: usize = 100;

/// How many are known to have to wait.
const MOST_WAITING: usize = 10_000;

/// The names that are wanted of one folder. Clones are the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Wanted(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    allowed: Vec<String>,
    names: Mutex<Names>,
    some: Notify,
}

#[derive(Debug, Default)]
struct Names {
    wanted: BTreeSet<String>,
    /// Until when they are not wanted again.
    waiting: BTreeMap<String, Timestamp>,
    /// No more can be ordered for a while.
    closed: bool,
}

impl Wanted {
    /// Names that are one of these: hosts, or `*.` and a host for one label below it.
    pub(crate) fn new(allowed: Vec<String>) -> Self {
        Self(Arc::new(Shared { allowed, names: Mutex::default(), some: Notify::new() }))
    }

    /// Somebody has asked for a name that there is no certificate for. Whether one is to be ordered because of it,
    /// and was not before.
    pub(crate) fn want(&self, name: &str) -> bool {
        if !is_allowed(name, &self.0.allowed) {
            return false;
        }
        let Ok(name) = host(name) else { return false };
        let mut names = self.names();
        if names.closed || names.waiting.contains_key(&name) || names.wanted.len() >= MOST {
            return false;
        }
        let first = names.wanted.insert(name);
        if first {
            self.0.some.notify_one();
        }
        first
    }

    /// Waits until a name is wanted.
    pub(super) async fn some(&self) {
        self.0.some.notified().await;
    }

    /// The names that are wanted, which from now on wait.
    pub(super) fn take(&self) -> BTreeSet<String> {
        let mut names = self.names();
        let taken = std::mem::take(&mut names.wanted);
        names.waiting.extend(taken.iter().map(|name| (name.clone(), Timestamp::MAX)));
        taken
    }

    /// Of those that were taken, these wait until then, and all others not at all; nothing is wanted if `closed`.
    pub(super) fn settle(&self, waiting: BTreeMap<String, Timestamp>, closed: bool, now: Timestamp) {
        let mut names = self.names();
        names.waiting.retain(|_, until| *until > now && *until != Timestamp::MAX);
        names.waiting.extend(waiting.into_iter().filter(|(_, until)| *until > now));
        while names.waiting.len() > MOST_WAITING {
            drop(names.waiting.pop_first());
        }
        names.closed = closed;
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn only_allowed_names_are_wanted_and_each_once() {
        let wanted = Wanted::new(vec!["a.example.com".into(), "*.example.org".into()]);
        assert!(wanted.want("A.example.com") && wanted.want("x.example.org"));
        assert!(!wanted.want("a.example.com"));
        assert!(!wanted.want("b.example.com") && !wanted.want("x_y.example.org"));
        let taken: Vec<_> = wanted.take().into_iter().collect();
        assert_eq!(taken, ["a.example.com", "x.example.org"]);
        // While it is being ordered it is not wanted again.
        assert!(!wanted.want("a.example.com"));
        wanted.settle([("a.example.com".to_owned(), at(10))].into(), false, at(1));
        assert!(!wanted.want("a.example.com") && wanted.want("x.example.org"));
        wanted.settle(BTreeMap::new(), true, at(10));
        assert!(!wanted.want("a.example.com"));
        wanted.settle(BTreeMap::new(), false, at(11));
        assert!(wanted.want("a.example.com"));
    }

    #[test]
    fn whoever_asks_for_many_names_fills_no_memory() {
        let wanted = Wanted::new(vec!["*.example.org".into()]);
        let heard = (0..1_000).filter(|at| wanted.want(&format!("a{at}.example.org"))).count();
        assert_eq!((heard, wanted.take().len()), (MOST, MOST));
    }
}
