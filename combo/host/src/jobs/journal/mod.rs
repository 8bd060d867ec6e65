//! outcome -> a line on disk, that survives the process.
//!
//! Takes what begins and what has ended; one writer writes it down, each tick before its start and after its end,
//! whatever waits together in one write. A disk that is slow, full or gone costs lines, or holds up what is about
//! to begin, and nothing that runs. What is written is read by any process at any time, without a lock. A process that runs a job by hand
//! writes a file of its own beside it, which whoever keeps the ledger takes over later.

mod lock;
mod record;
mod segments;
mod writer;

use std::{
    collections::{HashMap, HashSet},
    io,
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

use combo_core::{Entry, Timestamp};
use tokio::sync::oneshot;

pub(crate) use self::record::{Begun, Remembered, to_json};
use self::{
    lock::Locks,
    record::{Book, Record},
    segments::{Segments, make_folder, numbers, path_of},
    writer::{Place, Writer, WriterHandle, session},
};

/// How much of the ledger is kept in the state folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keep {
    /// So many entries at least. Default: 100,000.
    pub entries: usize,
    /// None that is older, give or take some. Default: 90 days.
    pub age: Duration,
    /// Whether every write waits until it is on the disk, so that it survives a loss of power as well, and every
    /// tick waits for that. Default: no; it survives whatever happens to the process.
    pub sync: bool,
}

impl Default for Keep {
    fn default() -> Self {
        Self { entries: 100_000, age: Duration::from_secs(90 * 24 * 3_600), sync: false }
    }
}

impl Keep {
    /// So many entries at least.
    #[must_use]
    pub fn entries(mut self, entries: usize) -> Self {
        self.entries = entries;
        self
    }

    /// None that is older.
    #[must_use]
    pub fn age(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }

    /// Whether every write waits for the disk.
    #[must_use]
    pub fn sync(mut self, sync: bool) -> Self {
        self.sync = sync;
        self
    }
}

/// Whether a tick may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// It has been written down.
    Go,
    /// Another process is running this job.
    Held,
}

/// Where what becomes of ticks is written down; nowhere, if there is no state folder. A clone is the same one.
#[derive(Clone, Debug)]
pub(crate) struct Journal(Option<WriterHandle>);

#[derive(Debug)]
enum Message {
    Begin(Begun, oneshot::Sender<Begin>),
    End(Option<u64>, Arc<Entry>),
    Known { job: Arc<str>, trigger: Arc<str>, now: Timestamp },
    Close(mpsc::Sender<bool>),
}

/// A tick that is being written down.
pub(crate) struct Beginning {
    heard: oneshot::Receiver<Begin>,
    /// Whom to help with that.
    here: Option<WriterHandle>,
}

impl Beginning {
    /// Waits until it is.
    pub(crate) async fn written(self) -> Begin {
        if let Some(writer) = self.here {
            writer.help();
        }
        // Without a writer nobody says anything.
        self.heard.await.unwrap_or(Begin::Go)
    }
}

/// What an opened journal knows of the past.
pub(crate) struct Opened {
    pub(crate) journal: Journal,
    /// Of each job, in the order of the question; nothing of those that are not known, or were due at other times.
    pub(crate) past: Vec<Remembered>,
    /// What was damaged, and what became of it.
    pub(crate) sentences: Vec<String>,
}

/// Why a journal cannot be opened.
#[derive(Debug)]
pub(crate) enum Closed {
    /// Another process, with this number, keeps it.
    Kept(String),
    Io(io::Error),
}

impl From<io::Error> for Closed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Journal {
    /// Keeps nothing.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Keeps the ledger of these jobs, and how their triggers are said. What ran when an earlier process ended is
    /// recorded as cut.
    pub(crate) fn open(
        folder: &Path,
        keep: Keep,
        jobs: &[(Arc<str>, String)],
        now: Timestamp,
    ) -> Result<Opened, Closed> {
        make_folder(folder)?;
        let mut locks = Locks::open(folder)?;
        if let Err(pid) = locks.keep()? {
            return Err(Closed::Kept(pid));
        }
        let mut book = Book::default();
        let (segments, sentences) = Segments::open(folder, &keep, &mut book, now)?;
        let mut writer = Writer::new(folder, locks, Place::Kept(segments, keep), book, now);
        writer.cut_open();
        writer.absorb(now);
        let past = writer.meet(jobs, now);
        writer.write_or_say(now, true, true);
        Ok(Opened { journal: Self(Some(writer.start()?)), past, sentences })
    }

    /// Writes beside a ledger that another process may keep.
    pub(crate) fn join(folder: &Path, now: Timestamp) -> Result<Self, Closed> {
        make_folder(folder)?;
        let locks = Locks::open(folder)?;
        locks.join()?;
        let session = session(now);
        let place = Place::Guest(segments::guest(folder, session)?);
        Ok(Self(Some(Writer::new(folder, locks, place, Book::default(), now).start()?)))
    }

    /// A tick is to begin. The order in which this is called is the order of the journal. It may be written down by
    /// whoever waits for it if `here`, so that a disk that hangs holds that one up; but only one at a time.
    pub(crate) fn begin(&self, begun: Begun, here: bool) -> Beginning {
        let (said, heard) = oneshot::channel();
        let here = self.0.clone().filter(|writer| here && writer.is_open());
        let message = Message::Begin(begun, said);
        match &here {
            Some(writer) => drop(writer.put(message)),
            None => self.tell(message),
        }
        Beginning { heard, here }
    }

    /// A tick has ended, or was not begun.
    pub(crate) fn end(&self, run: Option<u64>, entry: Arc<Entry>) {
        self.tell(Message::End(run, entry));
    }

    /// From now on a job is due at other times.
    pub(crate) fn known(&self, job: Arc<str>, trigger: &str, now: Timestamp) {
        self.tell(Message::Known { job, trigger: trigger.into(), now });
    }

    fn tell(&self, message: Message) {
        // Its thread ends only when it is told to.
        let _ = self.0.as_ref().map(|writer| writer.tell(message));
    }

    /// Writes what is left, within this time; whether it has.
    pub(crate) fn close(&self, within: Duration) -> bool {
        let (done, closed) = mpsc::channel();
        let Some(writer) = &self.0 else { return true };
        !writer.tell(Message::Close(done)) || closed.recv_timeout(within).unwrap_or(false)
    }
}

/// How the jobs of a ledger stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    pub(crate) jobs: HashMap<Arc<str>, Remembered>,
    /// Ticks that have begun and not ended.
    pub(crate) open: Vec<Begun>,
    /// Those of them that are not a guest's.
    kept_open: Vec<Begun>,
    /// Whether a process keeps it now.
    pub(crate) kept: bool,
    /// Lines that cannot be read.
    pub(crate) damaged: usize,
}

/// Reads how jobs stand, whoever writes it meanwhile. Where there is no ledger, nothing is known.
pub(crate) fn read(folder: &Path) -> io::Result<Written> {
    let Some(numbers) = there(numbers(folder))? else { return Ok(Written::default()) };
    // The last begins with all that came before it, unless it is damaged.
    let newest = numbers.last().map(|last| segments::read(&path_of(folder, *last)));
    let from = if newest.is_some_and(|newest| newest.is_ok_and(|found| found.is_whole())) {
        numbers.len() - 1
    } else {
        0
    };
    let (mut book, mut damaged) = (Book::default(), 0);
    for number in &numbers[from..] {
        let found = there(segments::read(&path_of(folder, *number)))?.unwrap_or_default();
        damaged += found.damaged;
        found.records.into_iter().for_each(|record| book.apply(record));
    }
    let kept_open: Vec<Begun> = book.open.values().cloned().collect();
    for (session, path) in segments::guests(folder)? {
        if !book.absorbed.contains(&session) {
            for record in there(segments::read(&path))?.unwrap_or_default().records {
                book.apply(record);
            }
        }
    }
    let kept = Locks::look(folder).is_some_and(|locks| locks.is_kept());
    Ok(Written { jobs: book.jobs, open: book.open.into_values().collect(), kept_open, kept, damaged })
}

/// Entries of one job or of all, the oldest first.
pub(crate) fn entries(folder: &Path, job: Option<&str>) -> io::Result<Vec<Entry>> {
    let Some(numbers) = there(numbers(folder))? else { return Ok(Vec::new()) };
    // Most lines are of other jobs, and need not be understood.
    let name = job.map(|job| format!("\"job\":{}", serde_json::to_string(job).unwrap_or_default()));
    let finder = name.as_deref().map(memchr::memmem::Finder::new);
    let wanted = |line: &[u8]| {
        line.starts_with(b"{\"absorbed\"")
            || line.starts_with(b"{\"ended\"") && finder.as_ref().is_none_or(|name| name.find(line).is_some())
    };
    let (mut entries, mut absorbed) = (Vec::new(), HashSet::new());
    let mut read = |path: &Path, absorbed: &mut HashSet<u64>| -> io::Result<()> {
        for record in there(segments::read_wanted(path, &wanted))?.unwrap_or_default().records {
            match record {
                Record::Ended { entry, .. } => entries.push(entry.entry()),
                Record::Absorbed { session } => drop(absorbed.insert(session)),
                _ => {}
            }
        }
        Ok(())
    };
    for number in numbers {
        read(&path_of(folder, number), &mut absorbed)?;
    }
    let mut guests = segments::guests(folder)?;
    guests.retain(|(session, _)| !absorbed.contains(session));
    for (_, path) in &guests {
        read(path, &mut absorbed)?;
    }
    // What a guest has written, or was cut, is not where it was when that happened.
    entries.sort_by_key(|entry| entry.end);
    entries.retain(|entry| job.is_none_or(|job| &*entry.job == job));
    Ok(entries)
}

/// Nothing if it is not there, or is not any more.
fn there<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// What became of all ticks that are kept in a state folder, the oldest first, whether a process writes there now or
/// not.
///
/// # Errors
///
/// If it cannot be read. A folder that is not there has no entries.
pub fn read_ledger(folder: &Path) -> io::Result<Vec<Entry>> {
    entries(folder, None)
}

#[cfg(test)]
mod tests;
