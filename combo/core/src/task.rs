//! A task: a function from a tick to the wanted changes. It reads and waits; it never writes.

use std::{future::Future, path::PathBuf};

use jiff::Timestamp;

use crate::{change::Change, flag::Flag};

/// What a task may fail with: any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One due instant of one job.
///
/// The task runs in a `tracing` span, `tick`, with the job's name, the due instant and the attempt.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Tick {
    /// The instant that the schedule named.
    pub due: Timestamp,
    /// The instant at which this attempt was started.
    pub now: Timestamp,
    /// The how-manieth tick of this job since the start of the process, from 1.
    pub count: u64,
    /// How many due instants before this one passed without a run and were merged into it.
    pub missed: u64,
    /// The how-manieth attempt at this tick, from 1.
    pub attempt: u32,
    /// Tells the task that it is to end.
    pub cancel: Cancel,
}

/// Tells a task that it is to end: its time is over, somebody has cancelled it, or the combo stops and
/// the job says that it does not want to be waited for.
///
/// A task that does not look at it is dropped where it next waits, a little later; one that does can end
/// well. What it then returns is not applied. Clones are the same value and cheap.
///
/// ```
/// use combo_core::{BoxError, Change, Tick};
/// # async fn page(_: u32) -> Result<String, BoxError> { Ok(String::new()) }
///
/// async fn crawl(tick: Tick) -> Result<Vec<Change>, BoxError> {
///     let mut pages = String::new();
///     for number in 0..1_000 {
///         if tick.cancel.is_cancelled() {
///             return Err("it was told to end".into());
///         }
///         pages += &page(number).await?;
///     }
///     Ok(vec![Change::write("static/pages.html", pages)])
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cancel(Flag);

impl Cancel {
    /// One that has said nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the task is to end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.is_raised()
    }

    /// Waits until the task is to end; returns at once if it is.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        self.0.wait()
    }

    /// Tells it to. The combo says so; tests of tasks may as well.
    pub fn cancel(&self) {
        self.0.raise();
    }
}

impl Tick {
    /// A first, punctual tick: what a test of a task needs.
    #[must_use]
    pub fn at(due: Timestamp) -> Self {
        Self { due, now: due, count: 1, missed: 0, attempt: 1, cancel: Cancel::new() }
    }
}

/// From a tick to the wanted changes.
///
/// Every `Fn(Tick) -> impl Future<Output = Result<Vec<Change>, BoxError>>` is a task, so a plain
/// async function is one. A closure needs the type of its argument: `|tick: Tick| async move { … }`.
pub trait Task: Send + Sync + 'static {
    /// Runs once. Changes are applied by the host when it returns, in order.
    ///
    /// # Errors
    ///
    /// Any error ends this tick with the outcome `Failed`; the next tick still comes.
    fn run(&self, tick: Tick) -> impl Future<Output = Result<Vec<Change>, BoxError>> + Send;

    /// The paths that this task will ask to change, if it knows them beforehand. They are held
    /// against what the job may write before anything is started.
    fn writes(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

impl<F, Fut> Task for F
where
    F: Fn(Tick) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<Change>, BoxError>> + Send,
{
    fn run(&self, tick: Tick) -> impl Future<Output = Result<Vec<Change>, BoxError>> + Send {
        self(tick)
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Waker};

    use super::*;

    #[test]
    fn whoever_waits_is_told_to_end() {
        let tick = Tick::at(Timestamp::UNIX_EPOCH);
        let mut cancelled = pin!(tick.cancel.cancelled());
        let mut context = std::task::Context::from_waker(Waker::noop());
        assert!(cancelled.as_mut().poll(&mut context).is_pending() && !tick.cancel.is_cancelled());
        tick.cancel.cancel();
        assert!(cancelled.as_mut().poll(&mut context).is_ready() && tick.cancel.is_cancelled());
    }

    fn accepts(_: impl Task) {}

    async fn function(_: Tick) -> Result<Vec<Change>, BoxError> {
        Ok(Vec::new())
    }

    #[test]
    fn functions_and_closures_are_tasks() {
        accepts(function);
        accepts(|tick: Tick| async move { Ok(vec![Change::write("a", tick.due.to_string())]) });
    }
}
