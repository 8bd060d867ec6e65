//! A task: from a tick to a file with its due time in it.

use std::path::PathBuf;

use combo_core::{BoxError, Change, Task, Tick};

/// Writes the due time of every tick to a file, as a line such as `2026-11-22T12:00:04Z`.
///
/// ```no_run
/// let clock = schedules::write_time("static/time.txt");
/// ```
pub fn write_time(path: impl Into<PathBuf>) -> impl Task {
    WriteTime(path.into())
}

struct WriteTime(PathBuf);

impl Task for WriteTime {
    async fn run(&self, tick: Tick) -> Result<Vec<Change>, BoxError> {
        Ok(vec![Change::write(&self.0, format!("{}\n", tick.due))])
    }

    fn writes(&self) -> Vec<PathBuf> {
        vec![self.0.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(due: &str, contents: &'static str) {
        let task = write_time("static/time.txt");
        let mut tick = Tick::at(due.parse().expect("a timestamp"));
        tick.now = "2027-01-01T00:00:00Z".parse().expect("a timestamp");
        let changes = task.run(tick).await.expect("it does not fail");
        assert_eq!(changes, [Change::write("static/time.txt", contents)]);
    }

    #[tokio::test]
    async fn it_writes_when_it_was_due_and_not_when_it_ran() {
        check("2026-11-22T12:00:04Z", "2026-11-22T12:00:04Z\n").await;
        check("2026-11-22T12:00:04.25Z", "2026-11-22T12:00:04.25Z\n").await;
    }

    #[test]
    fn it_says_beforehand_what_it_writes() {
        assert_eq!(write_time("static/time.txt").writes(), [PathBuf::from("static/time.txt")]);
    }
}
