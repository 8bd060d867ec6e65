//! tick -> changes.
//!
//! Takes a job's work and one tick; runs the task on the runtime it is called on, has its changes
//! applied on the blocking pool, and gives exactly one outcome. Errors and panics of the task, in its
//! call, in its future and in dropping that, end here. Never schedules and never records.
//!
//! Whoever spawned [`run`] may abort it: the task's future is dropped, a change that is being applied
//! is finished and those after it are not begun. That tick's outcome is `Cancelled`, and the caller's
//! to record. A task that blocks its thread is only cut when it next waits; nothing here waits for it.

use std::{
    any::Any,
    error::Error,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use combo_core::{Change, Task, Tick, Timestamp};
use tokio::task::spawn_blocking;

use super::{
    apply::{Folders, Unapplied, apply},
    ledger::Outcome,
};

/// How many changes of a tick are described; of the others the number is said.
const DESCRIBED: usize = 16;

/// How many bytes of an explanation are kept.
const LONGEST: usize = 4_096;

/// How many causes of an error are said; one may be its own cause.
const CAUSES: usize = 16;

/// What a job does when it is due.
pub(crate) struct Work {
    /// The job's name.
    pub name: Arc<str>,
    /// Its code.
    pub task: Arc<dyn ErasedTask>,
    /// Where its changes may be made.
    pub folders: Folders,
}

/// How a tick ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The one outcome.
    pub outcome: Outcome,
    /// The changes that were made, described.
    pub changes: Vec<String>,
    /// When.
    pub end: Timestamp,
}

/// The future of an [`ErasedTask`].
pub(crate) type Wanted<'a> = Pin<Box<dyn Future<Output = Result<Vec<Change>, Outcome>> + Send + 'a>>;

/// A task whose type is forgotten.
pub(crate) trait ErasedTask: Send + Sync {
    /// The changes that it wants, or how it ended instead.
    fn run(&self, tick: Tick) -> Wanted<'_>;

    /// The paths that it says it will change.
    fn writes(&self) -> Vec<PathBuf>;
}

/// Forgets the type of a task.
pub(crate) fn erase(task: impl Task) -> Arc<dyn ErasedTask> {
    struct Erased<T>(T);

    impl<T: Task> ErasedTask for Erased<T> {
        fn run(&self, tick: Tick) -> Wanted<'_> {
            Box::pin(async move {
                // The error is printed and dropped in here: that is the task's code as well.
                self.0.run(tick).await.map_err(|error| Outcome::Failed { why: chain(&*error) })
            })
        }

        fn writes(&self) -> Vec<PathBuf> {
            self.0.writes()
        }
    }

    Arc::new(Erased(task))
}

/// Runs one tick to its end. `clock` says when that was.
pub(crate) async fn run(work: Arc<Work>, tick: Tick, clock: impl Fn() -> Timestamp + Send) -> Ended {
    let (outcome, changes) = match Contained(Some(work.task.run(tick))).await {
        Ok(changes) => apply_all(work.folders.clone(), changes).await,
        Err(outcome) => (outcome, Vec::new()),
    };
    Ended { outcome, changes, end: clock() }
}

/// Applies changes in order, up to the first that cannot be made.
async fn apply_all(folders: Folders, changes: Vec<Change>) -> (Outcome, Vec<String>) {
    if changes.is_empty() {
        return (Outcome::Ran, Vec::new());
    }
    let cut = Cut::default();
    let is_cut = Arc::clone(&cut.0);
    let applying = spawn_blocking(move || {
        let (mut outcome, mut described, mut more) = (Outcome::Ran, Vec::new(), 0_usize);
        for change in changes {
            if is_cut.load(Ordering::Relaxed) {
                outcome = Outcome::Cancelled;
                break;
            }
            match apply(&folders, &change) {
                Ok(()) if described.len() < DESCRIBED => described.push(change.to_string()),
                Ok(()) => more += 1,
                Err(unapplied) => {
                    outcome = match unapplied {
                        Unapplied::Refused(why) => Outcome::Refused { why: shortened(why) },
                        Unapplied::Failed(why) => Outcome::Failed { why: shortened(why) },
                    };
                    break;
                }
            }
        }
        if more > 0 {
            described.push(format!("and {more} more"));
        }
        (outcome, described)
    });
    match applying.await {
        Ok(ended) => ended,
        // The contents of a change may be the task's own type.
        Err(error) => (error.try_into_panic().map_or(Outcome::Cancelled, panicked), Vec::new()),
    }
}

/// Says so when it is dropped.
#[derive(Default)]
struct Cut(Arc<AtomicBool>);

impl Drop for Cut {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A future whose panics are its outcome.
struct Contained<'a>(Option<Wanted<'a>>);

impl Future for Contained<'_> {
    type Output = Result<Vec<Change>, Outcome>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(wanted) = &mut self.0 else { return Poll::Pending };
        let polled = catch_unwind(AssertUnwindSafe(|| wanted.as_mut().poll(context)));
        let ended = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(ended)) => ended,
            Err(payload) => Err(panicked(payload)),
        };
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(self.0.take())));
        Poll::Ready(dropped.map_or_else(|payload| Err(panicked(payload)), |()| ended))
    }
}

impl Drop for Contained<'_> {
    fn drop(&mut self) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(self.0.take()))) {
            let _ = panicked(payload);
        }
    }
}

/// What a panic said. The payload is the task's own value, so dropping it may panic again.
pub(crate) fn panicked(payload: Box<dyn Any + Send>) -> Outcome {
    let said = payload.downcast_ref::<&str>().map(|said| (*said).to_owned());
    let said = said.or_else(|| payload.downcast_ref::<String>().cloned());
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        #[expect(clippy::mem_forget, reason = "there is no end to what dropping it might do")]
        std::mem::forget(again);
    }
    Outcome::Panicked { why: said.map_or_else(|| "it did not say why".to_owned(), shortened) }
}

/// An error and its causes, joined by colons.
fn chain(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    for _ in 0..CAUSES {
        let Some(error) = cause else { break };
        said.push_str(": ");
        said.push_str(&error.to_string());
        cause = error.source();
    }
    shortened(said)
}

fn shortened(mut said: String) -> String {
    if said.len() > LONGEST {
        said.truncate(said.floor_char_boundary(LONGEST));
        said.push('…');
    }
    said
}
