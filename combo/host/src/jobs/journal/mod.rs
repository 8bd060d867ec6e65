//! outcome -> a line on disk, that survives the process.
//!
//! Takes what begins and what has ended; one thread writes it down, each tick before its start and after its end,
//! whatever waits together in one write. A disk that is slow, full or gone holds up that thread, or costs lines,
//! and no job. What is written is read by any process at any time, without a lock. A process that runs a job by hand
//! writes a file of its own beside it, which whoever keeps the ledger takes over later.
#![expect(clippy::disallowed_methods, reason = "the ledger is on disk, and a thread writes it")]

mod lock;
mod record;
mod segments;

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use combo_core::{Entry, Outcome, Timestamp};
use tokio::sync::oneshot;

pub(crate) use self::record::{Begun, Remembered, to_json};
use self::{
    lock::Locks,
    record::{Book, Line, Record, write},
    segments::{Segments, make_folder, numbers, path_of},
};

/// So many records at most are written together.
const TOGETHER: usize = 4_096;

/// How many bytes wait for a disk that takes none.
const WAITING: usize = 4 << 20;

/// How often it is said that the journal cannot be written.
const WORD: Duration = Duration::from_secs(60);

/// How long after a failure the disk is tried again.
const AGAIN: Duration = Duration::from_secs(1);

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
pub(crate) struct Journal(Option<mpsc::Sender<Message>>);

#[derive(Debug)]
enum Message {
    Begin(Begun, oneshot::Sender<Begin>),
    End(Option<u64>, Arc<Entry>),
    Known { job: Arc<str>, trigger: Arc<str>, now: Timestamp },
    Close(mpsc::Sender<bool>),
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
        writer.write_or_say(now, true);
        Ok(Opened { journal: writer.start()?, past, sentences })
    }

    /// Writes beside a ledger that another process may keep.
    pub(crate) fn join(folder: &Path, now: Timestamp) -> Result<Self, Closed> {
        make_folder(folder)?;
        let locks = Locks::open(folder)?;
        locks.join()?;
        let session = session(now);
        let place = Place::Guest(segments::guest(folder, session)?);
        Ok(Writer::new(folder, locks, place, Book::default(), now).start()?)
    }

    /// A tick is to begin: it may when the future says so, and then that is written down. The order in which this is
    /// called is the order of the journal.
    pub(crate) fn begin(&self, begun: Begun) -> impl Future<Output = Begin> + Send + use<> {
        let (said, heard) = oneshot::channel();
        let sent = self.0.as_ref().is_some_and(|journal| journal.send(Message::Begin(begun, said)).is_ok());
        async move { if sent { heard.await.unwrap_or(Begin::Go) } else { Begin::Go } }
    }

    /// A tick has ended, or was not begun.
    pub(crate) fn end(&self, run: Option<u64>, entry: Arc<Entry>) {
        self.send(Message::End(run, entry));
    }

    /// From now on a job is due at other times.
    pub(crate) fn known(&self, job: Arc<str>, trigger: &str, now: Timestamp) {
        self.send(Message::Known { job, trigger: trigger.into(), now });
    }

    fn send(&self, message: Message) {
        // Its thread ends only when it is told to.
        let _ = self.0.as_ref().map(|journal| journal.send(message));
    }

    /// Writes what is left, within this time; whether it has.
    pub(crate) fn close(&self, within: Duration) -> bool {
        let (done, closed) = mpsc::channel();
        let Some(journal) = &self.0 else { return true };
        journal.send(Message::Close(done)).is_err() || closed.recv_timeout(within).unwrap_or(false)
    }
}

/// The thread that writes.
#[derive(Debug)]
struct Writer {
    folder: PathBuf,
    locks: Locks,
    place: Place,
    book: Book,
    session: u64,
    lines: Vec<u8>,
    entries: usize,
    /// Entries that were lost since it was last said.
    lost: usize,
    failed: Option<Instant>,
    said: Option<Instant>,
}

/// Where it writes.
#[derive(Debug)]
enum Place {
    Kept(Segments, Keep),
    Guest(File),
}

/// No two processes begin at one nanosecond with one number.
fn session(now: Timestamp) -> u64 {
    u64::try_from(now.as_nanosecond()).unwrap_or_default() ^ (u64::from(std::process::id()) << 44)
}

impl Writer {
    fn new(folder: &Path, locks: Locks, place: Place, book: Book, now: Timestamp) -> Self {
        let (session, lines, folder) = (session(now), Vec::new(), folder.to_owned());
        Self { folder, locks, place, book, session, lines, entries: 0, lost: 0, failed: None, said: None }
    }

    /// What an earlier process has left open.
    fn cut_open(&mut self) {
        let open: Vec<_> = self.book.open.iter().map(|(key, begun)| (*key, begun.clone())).collect();
        for ((session, run), begun) in open {
            self.record_end(session, Some(run), &Arc::new(cut(&begun)));
        }
    }

    /// What is known of these jobs; those that are not known, are from now on.
    fn meet(&mut self, jobs: &[(Arc<str>, String)], now: Timestamp) -> Vec<Remembered> {
        let age = if let Place::Kept(_, keep) = &self.place { keep.age } else { Duration::MAX };
        let oldest = now.checked_sub(age).unwrap_or(Timestamp::MIN);
        let wanted: HashSet<&str> = jobs.iter().map(|(job, _)| &**job).collect();
        self.book.jobs.retain(|name, known| {
            known.accounted.is_some_and(|accounted| accounted >= oldest) || wanted.contains(&**name)
        });
        jobs.iter().map(|(job, trigger)| self.meet_one(job, trigger, now)).collect()
    }

    fn meet_one(&mut self, job: &Arc<str>, trigger: &str, now: Timestamp) -> Remembered {
        let known = self.book.jobs.entry(job.clone()).or_default();
        if known.accounted.is_some() && &*known.trigger == trigger {
            return known.clone();
        }
        (known.trigger, known.accounted) = (trigger.into(), Some(now));
        write(&Record::Known(known.known(job)), &mut self.lines);
        Remembered { accounted: None, ..known.clone() }
    }

    /// Takes over what guests have written that have gone since.
    fn absorb(&mut self, now: Timestamp) {
        for (session, path) in segments::guests(&self.folder).unwrap_or_default() {
            // Whoever lives has it locked.
            let gone = File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
            if !gone {
                continue;
            }
            if !self.book.absorbed.contains(&session) {
                let Ok(found) = segments::read(&path) else { continue };
                let mut open = HashMap::new();
                for record in found.records {
                    match record {
                        Record::Begun { begun, .. } => drop(open.insert(begun.run, begun)),
                        Record::Ended { run, entry, .. } => {
                            let _ = run.map(|run| open.remove(&run));
                            self.record_end(session, None, &Arc::new(entry.entry()));
                        }
                        _ => {}
                    }
                }
                for begun in open.values() {
                    self.record_end(session, None, &Arc::new(cut(begun)));
                }
                write(&Record::Absorbed { session }, &mut self.lines);
                let _ = self.book.absorbed.insert(session);
                self.write_or_say(now, true);
            }
            if self.lines.is_empty() {
                let _ = std::fs::remove_file(&path);
            }
        }
    }

    fn start(self) -> io::Result<Journal> {
        let (journal, messages) = mpsc::channel();
        let thread = thread::Builder::new().name("combo-ledger".into()).spawn(move || self.run(&messages))?;
        drop(thread);
        Ok(Journal(Some(journal)))
    }

    fn run(mut self, messages: &mpsc::Receiver<Message>) {
        let mut waiting: Vec<(Option<Arc<str>>, oneshot::Sender<Begin>)> = Vec::new();
        loop {
            let first = match self.failed {
                None => messages.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                Some(_) => messages.recv_timeout(AGAIN),
            };
            let first = match first {
                Ok(first) => Some(first),
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            };
            let mut closing = None;
            let rest = std::iter::from_fn(|| messages.try_recv().ok());
            for message in first.into_iter().chain(rest).take(TOGETHER) {
                match message {
                    Message::Begin(begun, said) => {
                        let job = begun.exclusive.then(|| begun.job.clone());
                        if self.begin(begun) {
                            waiting.push((job, said));
                        } else {
                            // Who does not wait any more does not want to know.
                            let _ = said.send(Begin::Held);
                        }
                    }
                    Message::End(run, entry) => self.end(run, &entry),
                    Message::Known { job, trigger, now } => {
                        let known = self.book.jobs.entry(job.clone()).or_default();
                        (known.trigger, known.accounted) = (trigger, Some(now));
                        write(&Record::Known(known.known(&job)), &mut self.lines);
                    }
                    Message::Close(done) => {
                        closing = Some(done);
                        break;
                    }
                }
            }
            self.write_or_say(Timestamp::now(), closing.is_some());
            self.answer(&mut waiting);
            if let Some(done) = closing {
                // Whoever waits for this may open it next.
                let written = self.lines.is_empty();
                drop(self);
                let _ = done.send(written);
                return;
            }
        }
    }

    /// Whether it may, as far as guests know of one another.
    fn begin(&mut self, begun: Begun) -> bool {
        let again = self.book.open.contains_key(&(self.session, begun.run));
        let guest = matches!(self.place, Place::Guest(_));
        if guest && !again && !self.locks.take(&begun.job, begun.exclusive) {
            return false;
        }
        write(&Record::Begun { session: self.session, begun: begun.clone() }, &mut self.lines);
        self.book.begun(self.session, begun);
        true
    }

    /// Tells who waits. What has begun is written down, so others see it; now it is to be seen what they have begun.
    fn answer(&self, waiting: &mut Vec<(Option<Arc<str>>, oneshot::Sender<Begin>)>) {
        let elsewhere: Box<dyn Fn(&str) -> bool> = match self.place {
            _ if waiting.is_empty() => return,
            Place::Kept(..) if !self.locks.has_guests() => Box::new(|_| false),
            Place::Kept(..) => Box::new(|job| self.locks.is_taken(job)),
            Place::Guest(_) if !self.locks.is_kept() => Box::new(|_| false),
            Place::Guest(_) => {
                let written = read(&self.folder).unwrap_or_default();
                Box::new(move |job| written.kept_open.iter().any(|begun| &*begun.job == job))
            }
        };
        for (job, said) in waiting.drain(..) {
            let held = job.is_some_and(|job| elsewhere(&job));
            let _ = said.send(if held { Begin::Held } else { Begin::Go });
        }
    }

    fn end(&mut self, run: Option<u64>, entry: &Arc<Entry>) {
        if matches!(self.place, Place::Guest(_)) {
            self.locks.let_go(&entry.job);
        }
        self.record_end(self.session, run, entry);
    }

    fn record_end(&mut self, session: u64, run: Option<u64>, entry: &Arc<Entry>) {
        write(&Record::Ended { session, run, entry: Line::of(entry) }, &mut self.lines);
        self.entries += 1;
        self.book.ended(session, run, entry);
    }

    /// Writes what has gathered.
    fn write(&mut self, now: Timestamp) -> io::Result<()> {
        let (segments, keep) = match &mut self.place {
            Place::Guest(file) => {
                file.write_all(&self.lines)?;
                self.forget();
                return Ok(());
            }
            Place::Kept(segments, keep) => (segments, *keep),
        };
        if segments.is_there() {
            segments.append(&self.lines, self.entries, now)?;
            if keep.sync {
                segments.sync()?;
            }
        } else {
            // Its folder was removed. What has happened is in what the next segment begins with, but not tick by tick.
            make_folder(&self.folder)?;
            let mut locks = Locks::open(&self.folder)?;
            if let Err(pid) = locks.keep()? {
                return Err(io::Error::other(format!("another process ({pid}) keeps it now")));
            }
            self.locks = locks;
            segments.rotate(&self.book, &keep, now)?;
            self.lost += self.entries;
        }
        self.forget();
        if let Place::Kept(segments, _) = &mut self.place
            && segments.is_full()
        {
            segments.rotate(&self.book, &keep, now)?;
            self.absorb(now);
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.lines.clear();
        self.entries = 0;
    }

    fn write_or_say(&mut self, now: Timestamp, at_last: bool) {
        if !at_last && self.failed.is_some_and(|failed| failed.elapsed() < AGAIN) {
            self.drop_what_is_too_much();
            return;
        }
        let folder = self.folder.display().to_string();
        match self.write(now) {
            Ok(()) => {
                if self.failed.take().is_some() || self.lost > 0 {
                    tracing::warn!(lost = self.lost, "the ledger is written into `{folder}` again");
                    (self.lost, self.said) = (0, None);
                }
            }
            Err(error) => {
                self.failed = Some(Instant::now());
                if self.said.is_none_or(|said| said.elapsed() >= WORD) {
                    self.said = Some(Instant::now());
                    let (waiting, lost) = (self.entries, self.lost);
                    tracing::error!(
                        waiting,
                        lost,
                        "cannot write the ledger into `{folder}`: {error}; jobs go on"
                    );
                }
                self.drop_what_is_too_much();
            }
        }
    }

    /// Nobody knows when the disk will take something again.
    fn drop_what_is_too_much(&mut self) {
        if self.lines.len() > WAITING {
            self.lost += self.entries;
            self.forget();
        }
    }
}

/// What becomes of a tick that was running when its process ended.
fn cut(begun: &Begun) -> Entry {
    let why = "the process ended while it ran".to_owned();
    let mut entry = Entry::new(begun.job.clone(), begun.due, begun.start, Outcome::Cancelled { why });
    // Nobody knows when it ended.
    (entry.end, entry.count, entry.missed) = (begun.start, begun.count, begun.missed);
    (entry.attempt, entry.asked) = (begun.attempt, begun.asked);
    if !begun.asked {
        entry.lateness = Duration::try_from(begun.start.duration_since(begun.due)).unwrap_or_default();
    }
    entry
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
