//! A flag that is raised once and can be waited for on any thread and runtime.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use event_listener::Event;

/// Clones are the same flag.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flag(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    raised: AtomicBool,
    told: Event,
}

impl Flag {
    pub(crate) fn is_raised(&self) -> bool {
        self.0.raised.load(SeqCst)
    }

    /// Wakes all that wait.
    pub(crate) fn raise(&self) {
        self.0.raised.store(true, SeqCst);
        let _ = self.0.told.notify(usize::MAX);
    }

    /// Waits until it is raised; returns at once if it is.
    pub(crate) fn wait(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let flag = self.clone();
        async move {
            while !flag.is_raised() {
                let told = flag.0.told.listen();
                // It may have been raised before anybody listened.
                if !flag.is_raised() {
                    told.await;
                }
            }
        }
    }
}
