//! An ordinary job of `tokio_cron_scheduler`.
#![expect(
    clippy::disallowed_methods,
    reason = "a job of `tokio_cron_scheduler` reads the clock and writes for itself"
)]

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use tokio::{fs, io::AsyncWriteExt, sync::Mutex};
use tokio_cron_scheduler::{Job, JobSchedulerError};

/// A job that rewrites a file every four seconds: `{"beats":3,"at":"2026-11-22T12:00:04Z"}`, with the
/// number of beats so far and the time of the last one. A reader sees the old file or the new one. A
/// relative path is relative to the folder that the process was started in.
///
/// ```no_run
/// # async fn example() -> Result<(), tokio_cron_scheduler::JobSchedulerError> {
/// let scheduler = tokio_cron_scheduler::JobScheduler::new().await?;
/// scheduler.add(schedules::pulse("pulse.json")?).await?;
/// scheduler.start().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// If `tokio_cron_scheduler` does not understand "every 4 seconds".
pub fn pulse(path: impl Into<PathBuf>) -> Result<Job, JobSchedulerError> {
    let path: Arc<Path> = path.into().into();
    // Held while a beat is written: the scheduler may start one before the last has ended.
    let beats = Arc::new(Mutex::new(0));
    Job::new_async("every 4 seconds", move |_, _| {
        let (path, beats) = (Arc::clone(&path), Arc::clone(&beats));
        Box::pin(async move {
            let mut beats = beats.lock().await;
            *beats += 1;
            if let Err(error) = beat(&path, *beats, Timestamp::now()).await {
                eprintln!("cannot write `{}`: {error}", path.display());
            }
        })
    })
}

/// Replaces the file as a whole.
async fn beat(path: &Path, beats: u64, at: Timestamp) -> io::Result<()> {
    let contents = format!("{{\"beats\":{beats},\"at\":\"{at:.0}\"}}\n");
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Another process may write the same file, as while one takes over from another.
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = async {
        let mut file = fs::File::create(&temporary).await?;
        file.write_all(contents.as_bytes()).await?;
        // Only this says whether it could be written.
        file.flush().await?;
        file.sync_all().await?;
        fs::rename(&temporary, path).await
    };
    let written = written.await;
    if written.is_err() {
        let _ = fs::remove_file(&temporary).await;
    }
    written
}
#[cfg(test)]
mod tests {
    use tokio_cron_scheduler::JobScheduler;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    #[test]
    fn it_is_due_every_four_seconds() {
        let stored = pulse("pulse.json").expect("a job").job_data().expect("what it stores");
        let cron = stored.schedule().expect("a cron expression");
        assert_eq!(cron.pattern.to_string(), "0/4 * * * * ?");
    }

    #[tokio::test]
    async fn a_beat_replaces_the_file_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("pulse.json");
        for (beats, time) in [(1, "2026-11-22T12:00:04.002Z"), (2, "2026-11-22T12:00:08Z")] {
            beat(&path, beats, at(time)).await.expect("it can be written");
            let written = std::fs::read_to_string(&path).expect("a file");
            let second = &time[..19];
            assert_eq!(written, format!("{{\"beats\":{beats},\"at\":\"{second}Z\"}}\n"));
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("a directory").count(), 1);
    }

    #[tokio::test]
    async fn a_beat_that_fails_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("pulse.json");
        std::fs::create_dir(&path).expect("a directory in its place");
        assert!(beat(&path, 1, at("2026-11-22T12:00:04Z")).await.is_err());
        assert_eq!(std::fs::read_dir(folder.path()).expect("a directory").count(), 1);
        assert!(beat(&folder.path().join("absent/pulse.json"), 1, at("2026-11-22T12:00:04Z")).await.is_err());
    }

    /// Its code is run as a scheduler runs it, without waiting for its time.
    #[tokio::test]
    async fn its_beats_are_counted() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("pulse.json");
        let scheduler = JobScheduler::new().await.expect("a scheduler");
        let id = scheduler.add(pulse(&path).expect("a job")).await.expect("it is added");
        let context = scheduler.context();
        let code = context.job_code.write().await.get(id).await.expect("an answer").expect("its code");
        for beats in 1..=3 {
            code.write().await(id, scheduler.clone()).await;
            let written = std::fs::read_to_string(&path).expect("a file");
            assert!(written.starts_with(&format!("{{\"beats\":{beats},\"at\":\"20")), "{written}");
        }
    }
}
