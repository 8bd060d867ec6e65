//! Lines of a log, as they come, and waiting for one of them.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Instant,
};

use crate::site::PATIENCE;

/// Lines that somebody else adds to.
#[derive(Default)]
pub(crate) struct Lines {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

impl Lines {
    fn locked(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, line: &str) {
        self.locked().push(line.to_owned());
        self.more.notify_all();
    }

    /// Those that have all of the words in them.
    pub(crate) fn with(&self, words: &[&str]) -> Vec<String> {
        self.locked().iter().filter(|line| words.iter().all(|word| line.contains(word))).cloned().collect()
    }

    /// Waits for a line that has all of the words in it.
    pub(crate) fn wait(&self, words: &[&str]) -> String {
        self.wait_for(1, words).remove(0)
    }

    /// Waits for so many of them.
    pub(crate) fn wait_for(&self, count: usize, words: &[&str]) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        let mut lines = self.locked();
        loop {
            let has = |line: &&String| words.iter().all(|word| line.contains(word));
            let found: Vec<String> = lines.iter().filter(has).cloned().collect();
            if found.len() >= count {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {count} lines with {words:?} among these:\n{}", lines.join("\n"));
            lines = self.more.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// What combos in this process log. All tests share it, so what is looked for has a name of its own.
pub(crate) fn log() -> &'static Lines {
    static LOG: OnceLock<Arc<Lines>> = OnceLock::new();
    LOG.get_or_init(|| {
        let lines = Arc::new(Lines::default());
        let writer = {
            let lines = lines.clone();
            move || Writer(lines.clone(), Vec::new())
        };
        tracing_subscriber::fmt().with_ansi(false).with_writer(writer).init();
        lines
    })
}

/// One event.
struct Writer(Arc<Lines>, Vec<u8>);

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.push(String::from_utf8_lossy(&self.1).trim_end());
    }
}
