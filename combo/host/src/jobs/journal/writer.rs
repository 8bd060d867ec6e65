//! Writes down what the journal is told, in the order in which it is told.
//!
//! One writer for each journal, with a thread that waits for it. Whoever is about to begin a tick may write in its
//! stead, if nobody is writing and the disk has done what it should: that spares the tick two changes of
//! threads. So a disk that hangs holds up that thread and one other at most. Nobody waits for the writer's lock.
#![expect(clippy::disallowed_methods, reason = "the ledger is on disk, and a thread writes it")]

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use combo_core::{Entry, Outcome, Timestamp};
use tokio::sync::oneshot;

use super::{
    Begin, Begun, Keep, Message, Remembered,
    lock::Locks,
    read,
    record::{Book, Line, Record, write},
    segments::{self, Segments, make_folder},
};

/// So many records at most are written together.
const TOGETHER: usize = 4_096;

/// How many bytes wait for a disk that takes none.
const WAITING: usize = 4 << 20;

/// How often it is said that the journal cannot be written.
const WORD: Duration = Duration::from_secs(60);

/// How long after a failure the disk is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// A writer, and what it was told and has not written yet.
#[derive(Debug)]
struct Queued {
    writer: Writer,
    messages: mpsc::Receiver<Message>,
}

/// None any more when it has been closed.
type Shared = Mutex<Option<Queued>>;

/// How a journal reaches its writer.
#[derive(Clone, Debug)]
pub(super) struct WriterHandle {
    messages: mpsc::Sender<Message>,
    wake: mpsc::SyncSender<()>,
    shared: Arc<Shared>,
    /// Whether others may write in the stead of its thread.
    open: bool,
}

impl WriterHandle {
    /// Tells it something, and wakes its thread. Whether anybody hears it.
    pub(super) fn tell(&self, message: Message) -> bool {
        let told = self.put(message);
        self.wake();
        told
    }

    /// Tells it something that [`Self::help`] is called for, sooner or later.
    pub(super) fn put(&self, message: Message) -> bool {
        self.messages.send(message).is_ok()
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Writes what waits if that can be done at once; otherwise the thread does.
    pub(super) fn help(&self) {
        let done = self.shared.try_lock().is_ok_and(|mut shared| {
            let idle = |queued: &mut Queued| !queued.writer.is_due();
            shared.as_mut().is_some_and(idle) && !turn(&mut shared, false)
        });
        if !done {
            self.wake();
        }
    }

    /// As if the disk did not answer.
    #[cfg(test)]
    pub(super) fn hang(&self) -> impl Drop + '_ {
        self.shared.lock().expect("nobody panicked")
    }

    fn wake(&self) {
        // If it is full, the thread will wake and see this as well.
        let _ = self.wake.try_send(());
    }
}

/// Who waits until a tick has been written down, with the job if nobody else may run it.
type Waiting = (Option<Arc<str>>, oneshot::Sender<Begin>);

/// The thread: writes whenever it is woken, and tries again when the disk has failed.
fn attend(shared: &Shared, wakes: &mpsc::Receiver<()>) {
    let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    let mut failed = false;
    loop {
        let woken = match failed {
            false => wakes.recv().map_err(Into::into),
            true => wakes.recv_timeout(AGAIN),
        };
        if woken == Err(mpsc::RecvTimeoutError::Disconnected) {
            return;
        }
        while turn(&mut lock(), true) {}
        let Some(has_failed) = lock().as_ref().map(|queued| queued.writer.failed.is_some()) else { return };
        failed = has_failed;
    }
}

/// Writes what waits, but not all of it if that is very much; and keeps `house` if that is due. Closes it when that
/// is asked for. Says whether there is more to do, for the thread.
fn turn(shared: &mut Option<Queued>, house: bool) -> bool {
    let Some(Queued { writer, messages }) = shared else { return false };
    let (mut waiting, mut taken, mut closing) = (Vec::new(), 0, None);
    for message in messages.try_iter().take(TOGETHER) {
        taken += 1;
        match message {
            Message::Begin(begun, said) => {
                let job = begun.exclusive.then(|| begun.job.clone());
                if writer.begin(begun) {
                    waiting.push((job, said));
                } else {
                    // Who does not wait any more does not want to know.
                    let _ = said.send(Begin::Held);
                }
            }
            Message::End(run, entry) => writer.end(run, &entry),
            Message::Known { job, trigger, now } => writer.known(&job, trigger, now),
            Message::Close(done) => {
                closing = Some(done);
                break;
            }
        }
    }
    if taken > 0 || house && writer.is_due() {
        writer.write_or_say(Timestamp::now(), house, closing.is_some());
        writer.answer(waiting);
    }
    if let Some(done) = closing {
        // Whoever waits for this may open it next.
        let written = writer.lines.is_empty();
        *shared = None;
        let _ = done.send(written);
        return false;
    }
    taken == TOGETHER || !house && writer.is_due()
}

/// What is written, and where.
#[derive(Debug)]
pub(super) struct Writer {
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
pub(super) enum Place {
    Kept(Segments, Keep),
    Guest(File),
}

/// No two processes begin at one nanosecond with one number.
pub(super) fn session(now: Timestamp) -> u64 {
    u64::try_from(now.as_nanosecond()).unwrap_or_default() ^ (u64::from(std::process::id()) << 44)
}

impl Writer {
    pub(super) fn new(folder: &Path, locks: Locks, place: Place, book: Book, now: Timestamp) -> Self {
        let (session, lines, folder) = (session(now), Vec::new(), folder.to_owned());
        Self { folder, locks, place, book, session, lines, entries: 0, lost: 0, failed: None, said: None }
    }

    /// What an earlier process has left open.
    pub(super) fn cut_open(&mut self) {
        let open: Vec<_> = self.book.open.iter().map(|(key, begun)| (*key, begun.clone())).collect();
        for ((session, run), begun) in open {
            self.record_end(session, Some(run), &Arc::new(cut(&begun)));
        }
    }

    /// What is known of these jobs; those that are not known, are from now on.
    pub(super) fn meet(&mut self, jobs: &[(Arc<str>, String)], now: Timestamp) -> Vec<Remembered> {
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
        self.known(job, trigger.into(), now);
        Remembered { accounted: None, ..self.book.jobs.get(job).cloned().unwrap_or_default() }
    }

    /// Takes over what guests have written that have gone since.
    pub(super) fn absorb(&mut self, now: Timestamp) {
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
                self.write_or_say(now, true, true);
            }
            if self.lines.is_empty() {
                let _ = std::fs::remove_file(&path);
            }
        }
    }

    /// From now on a job is due at these times.
    fn known(&mut self, job: &Arc<str>, trigger: Arc<str>, now: Timestamp) {
        let known = self.book.jobs.entry(job.clone()).or_default();
        (known.trigger, known.accounted) = (trigger, Some(now));
        write(&Record::Known(known.known(job)), &mut self.lines);
    }

    /// Whether there is more to do than to append to what is there.
    fn is_due(&self) -> bool {
        self.failed.is_some() || matches!(&self.place, Place::Kept(segments, _) if segments.is_full())
    }

    /// Begins to wait for what it is told.
    pub(super) fn start(self) -> io::Result<WriterHandle> {
        // Waiting for the disk each time, or reading what others have written, is for the thread.
        let open = matches!(&self.place, Place::Kept(_, keep) if !keep.sync);
        let ((sender, messages), (wake, wakes)) = (mpsc::channel(), mpsc::sync_channel(1));
        let shared = Arc::new(Mutex::new(Some(Queued { writer: self, messages })));
        let handle = WriterHandle { messages: sender, wake, shared: shared.clone(), open };
        let thread = thread::Builder::new().name("combo-ledger".into());
        drop(thread.spawn(move || attend(&shared, &wakes))?);
        Ok(handle)
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
    fn answer(&self, waiting: Vec<Waiting>) {
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
        for (job, said) in waiting {
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

    /// Writes what has gathered, and then begins the next segment, if that is due.
    fn write(&mut self, now: Timestamp, house: bool) -> io::Result<()> {
        let (segments, keep) = match &mut self.place {
            Place::Guest(file) => {
                file.write_all(&self.lines)?;
                self.forget();
                return Ok(());
            }
            Place::Kept(segments, keep) => (segments, *keep),
        };
        // What only begins does not wait for that to be asked; its end comes soon enough.
        if !house && self.entries == 0 || segments.is_there() {
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
            && house
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

    pub(super) fn write_or_say(&mut self, now: Timestamp, house: bool, at_last: bool) {
        if !at_last && self.failed.is_some_and(|failed| failed.elapsed() < AGAIN) {
            self.drop_what_is_too_much();
            return;
        }
        let folder = self.folder.display().to_string();
        match self.write(now, house) {
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
