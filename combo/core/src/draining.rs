//! That the combo is about to stop, for apps and tasks that want to end well: a [`Draining`].

use crate::flag::Flag;

/// Whether the drain has begun, and waiting for it.
///
/// Clones are the same value and cheap. Whoever waits is told at once, before anything else is done
/// about the drain, on whatever thread and runtime that is.
///
/// ```
/// use combo_core::Draining;
///
/// let draining = Draining::new();
/// let told = draining.wait();
/// assert!(!draining.is_draining());
/// // In a deployment, the combo says it.
/// draining.clone().begin();
/// assert!(draining.is_draining());
/// # drop(told);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Draining(Flag);

impl Draining {
    /// One that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.is_raised()
    }

    /// Waits until it begins; returns at once if it has. The future is on its own, so it can be given to
    /// whatever takes one, such as a server's graceful shutdown.
    pub fn wait(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        self.0.wait()
    }

    /// Tells all that wait. The combo calls this when its drain begins; tests of apps may as well.
    pub fn begin(&self) {
        self.0.raise();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        task::{Context, Poll, Wake},
    };

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            let _ = self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn all_that_wait_are_woken_and_who_comes_later_does_not_wait() {
        let draining = Draining::new();
        let clone = draining.clone();
        let woken = Arc::new(Woken::default());
        let waker = woken.clone().into();
        let mut cx = Context::from_waker(&waker);
        let (mut one, mut another) = (pin!(draining.wait()), pin!(clone.wait()));
        assert!(one.as_mut().poll(&mut cx).is_pending() && another.as_mut().poll(&mut cx).is_pending());
        clone.begin();
        assert!(draining.is_draining());
        assert_eq!(woken.0.load(Relaxed), 2);
        for waits in [one, another, pin!(draining.wait())] {
            assert_eq!(waits.poll(&mut cx), Poll::Ready(()));
        }
    }

    #[test]
    fn who_waits_on_another_thread_is_told() {
        for _ in 0..1_000 {
            let (draining, said) = (Draining::new(), Draining::new());
            let (waits, says) = (draining.clone(), said.clone());
            let waiter = std::thread::spawn(move || {
                struct Unpark(std::thread::Thread);
                impl Wake for Unpark {
                    fn wake(self: Arc<Self>) {
                        self.0.unpark();
                    }
                }
                let waker = Arc::new(Unpark(std::thread::current())).into();
                let mut wait = pin!(waits.wait());
                says.begin();
                while wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                    std::thread::park();
                }
            });
            while !said.is_draining() {
                std::hint::spin_loop();
            }
            draining.begin();
            waiter.join().expect("it is told");
        }
    }
}
