//! Takes work that may last as long as a disk does, gives what came of it: done on the blocking pool, so much of it at
//! once and the rest in the order in which it came.
//!
//! A worker has one pool for all that is mounted. A disk that does not answer would soon have all of its threads, and
//! nobody else's files were read; so no mount has more than [`AT_ONCE`] of them.
#![expect(clippy::disallowed_methods, reason = "this is the way to the blocking pool")]

use std::{io, sync::Arc};

use tokio::{sync::Semaphore, task::spawn_blocking};

/// Threads of a worker's pool that one mount may have, of the 64 there are.
const AT_ONCE: usize = 16;

/// The way to the pool for one mount on one worker.
#[derive(Clone, Debug)]
pub(super) struct Trips(Arc<Semaphore>);

impl Default for Trips {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Trips {
    /// Does some work. Who goes away before it has begun takes no thread; once it has, the thread counts until it is
    /// free again, whoever still waits for it.
    ///
    /// # Errors
    ///
    /// Those of the work, or that it panicked.
    pub(super) async fn take<T: Send + 'static>(
        self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let permit = self.0.acquire_owned().await.map_err(io::Error::other)?;
        let working = spawn_blocking(move || {
            let _until_the_end = permit;
            work()
        });
        working.await.map_err(io::Error::other).flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        sync::mpsc,
        task::{Context, Waker},
    };

    use super::*;

    /// Both would wait for ever otherwise.
    #[tokio::test]
    async fn who_goes_away_gives_back_no_thread_that_is_still_taken() {
        let trips = Trips::default();
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(std::sync::Mutex::new(released));
        let taken: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let released = released.clone();
                let work = move || {
                    let _ = released.lock().map(|released| released.recv());
                    Ok(())
                };
                tokio::spawn(trips.clone().take(work))
            })
            .collect();
        while trips.0.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        {
            // One that waits and goes away, before another that waits.
            let mut gone = pin!(trips.clone().take(|| Ok(())));
            assert!(gone.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        taken.iter().for_each(tokio::task::JoinHandle::abort);
        for one in taken {
            assert!(one.await.unwrap_err().is_cancelled());
        }
        assert_eq!(trips.0.available_permits(), 0);
        let next = tokio::spawn(trips.clone().take(|| Ok("done")));
        drop(release);
        assert_eq!(next.await.unwrap().unwrap(), "done");
    }

    #[tokio::test]
    async fn work_that_panics_gives_back_its_thread() {
        let trips = Trips::default();
        for _ in 0..=AT_ONCE {
            let panicked = trips.clone().take::<()>(|| panic!("on purpose")).await;
            assert!(panicked.is_err());
        }
    }
}
