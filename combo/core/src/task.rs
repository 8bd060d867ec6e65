//! A task: a function from a tick to the wanted changes. It reads and waits; it never writes.

use std::{future::Future, path::PathBuf};

use jiff::Timestamp;

use crate::change::Change;

/// What a task may fail with: any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One due instant of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tick {
    /// The instant that the schedule named.
    pub due: Timestamp,
    /// The instant at which the task was started.
    pub now: Timestamp,
    /// The how-manieth tick of this job since the start of the process, from 1.
    pub count: u64,
    /// How many due instants before this one passed without a run and were merged into it.
    pub missed: u64,
    /// The how-manieth attempt at this tick, from 1.
    pub attempt: u32,
}

impl Tick {
    /// A first, punctual tick: what a test of a task needs.
    #[must_use]
    pub fn at(due: Timestamp) -> Self {
        Self { due, now: due, count: 1, missed: 0, attempt: 1 }
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
    use super::*;

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
