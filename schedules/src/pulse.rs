//! An ordinary job of `tokio_cron_scheduler`.

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
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    let written = async {
        let mut file = fs::File::create(&temporary).await?;
        file.write_all(contents.as_bytes()).await?;
        file.sync_all().await?;
        fs::rename(&temporary, path).await
    };
    let written = written.await;
    if written.is_err() {
        let _ = fs::remove_file(&temporary).await;
    }
    written
}
