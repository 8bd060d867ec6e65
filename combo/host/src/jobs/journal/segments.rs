//! The files of the journal: `ledger-000001.log`, `ledger-000002.log` and so on. Only the last is written to.
//!
//! Each begins with all that has to be known of what was before it, so that the oldest can go at any time. A new
//! one is made under another name and renamed, so it is there as a whole or not at all.
#![expect(clippy::disallowed_methods, reason = "the ledger is on disk")]

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use combo_core::Timestamp;

use super::{
    Keep,
    record::{Book, Record, Segment, parse, write},
};

/// No segment is smaller when the next is begun.
const SMALLEST: u64 = 512 << 10;

/// The state folder, and the segment that is written to.
#[derive(Debug)]
pub(super) struct Segments {
    folder: PathBuf,
    file: File,
    /// Which file that is.
    identity: (u64, u64),
    /// The one that is written to, so far.
    current: Segment,
    written: u64,
    /// When it is so long, the next is begun.
    enough: u64,
    before: Vec<Segment>,
}

/// What reading a segment has come to.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) records: Vec<Record>,
    /// Lines that are damaged.
    pub(super) damaged: usize,
    /// How many bytes of whole lines there are.
    pub(super) whole: usize,
    pub(super) length: usize,
}

pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match folder.is_dir() {
            true => Ok(()),
            false => Err(io::ErrorKind::NotADirectory.into()),
        },
        made => made,
    }
}

pub(super) fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("ledger-{number:06}.log"))
}

/// The numbers of all segments, the oldest first.
pub(super) fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("ledger-")?.strip_suffix(".log"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The files of guests, with the numbers of their sessions.
pub(super) fn guests(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut guests = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let session = name.to_str().and_then(|name| name.strip_prefix("guest-")?.strip_suffix(".log"));
        let session = session.and_then(|session| u64::from_str_radix(session, 16).ok());
        guests.extend(session.map(|session| (session, entry.path())));
    }
    guests.sort_unstable();
    Ok(guests)
}

/// A guest's own file, locked while it lives.
pub(super) fn guest(folder: &Path, session: u64) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let _ = options.append(true).create_new(true).mode(0o600);
    let file = options.open(folder.join(format!("guest-{session:016x}.log")))?;
    file.lock()?;
    Ok(file)
}

pub(super) fn read(path: &Path) -> io::Result<Found> {
    read_wanted(path, &|_| true)
}

/// Only some of its lines; others count as whole.
pub(super) fn read_wanted(path: &Path, wanted: &dyn Fn(&[u8]) -> bool) -> io::Result<Found> {
    let bytes = fs::read(path)?;
    let mut found = Found { length: bytes.len(), ..Found::default() };
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        // The last line may be one that is being written, or was when everything ended.
        let Some(line) = line.strip_suffix(b"\n") else { break };
        found.whole += line.len() + 1;
        if !wanted(line) {
            continue;
        }
        match parse(line) {
            Some(record) => found.records.push(record),
            None => found.damaged += 1,
        }
    }
    Ok(found)
}

/// How many entries these are, and when the last of them ended.
fn count(number: u64, records: &[Record]) -> Segment {
    let mut segment = Segment { number, entries: 0, last: Timestamp::MIN };
    for record in records {
        if let Record::Ended { entry, .. } = record {
            segment.entries += 1;
            segment.last = segment.last.max(entry.end);
        }
    }
    segment
}

impl Segments {
    /// Reads what is there into the book, and goes on with the last segment, or begins the first. Gives a sentence
    /// for whatever was damaged; that is kept beside under another name.
    pub(super) fn open(
        folder: &Path,
        keep: &Keep,
        book: &mut Book,
        now: Timestamp,
    ) -> io::Result<(Self, Vec<String>)> {
        let numbers = numbers(folder)?;
        for entry in fs::read_dir(folder)?.flatten() {
            // A segment that was being begun when the process was killed.
            if entry.file_name().to_string_lossy().ends_with(".log.new") {
                let _ = fs::remove_file(entry.path());
            }
        }
        let Some(&last) = numbers.last() else {
            return Ok((Self::begin(folder, 1, book, Vec::new(), keep)?, Vec::new()));
        };
        let path = path_of(folder, last);
        let Some(found) = read(&path).ok().filter(Found::is_whole) else {
            return Self::repair(folder, &numbers, keep, book, now);
        };
        let file = open_to_append(&path)?;
        if found.whole < found.length {
            file.set_len(found.whole as u64)?;
        }
        let (current, mut before) = (count(last, &found.records), Vec::new());
        for record in found.records {
            if let Record::Segments(known) = &record {
                before.clone_from(known);
            }
            book.apply(record);
        }
        before.retain(|segment| numbers.contains(&segment.number));
        let (folder, written, enough) = (folder.to_owned(), found.whole as u64, enough(book));
        let identity = identity(&file.metadata()?);
        let mut segments = Self { folder, file, identity, current, written, enough, before };
        segments.let_go(keep, now);
        Ok((segments, Vec::new()))
    }

    /// Something is damaged: everything is read, and what is whole of each damaged file is written anew.
    fn repair(
        folder: &Path,
        numbers: &[u64],
        keep: &Keep,
        book: &mut Book,
        now: Timestamp,
    ) -> io::Result<(Self, Vec<String>)> {
        let (mut sentences, mut before) = (Vec::new(), Vec::new());
        for number in numbers {
            let path = path_of(folder, *number);
            let read = read(&path);
            let why = match &read {
                Ok(found) if found.is_whole() => None,
                Ok(Found { records, damaged, .. }) => {
                    Some(format!("{damaged} of its lines cannot be read, {} can", records.len()))
                }
                Err(error) => Some(format!("it cannot be read: {error}")),
            };
            let found = read.unwrap_or_default();
            if let Some(why) = why {
                let name = format!("ledger-{number:06}.log.damaged-{}", now.as_second());
                fs::rename(&path, folder.join(&name))?;
                let mut whole = Vec::new();
                found.records.iter().for_each(|record| write(record, &mut whole));
                // If there is no room for it, it is still in the other file.
                let _ = replace(&path, &whole, keep);
                sentences.push(format!(
                    "the journal `{}` is damaged: {why}; it is kept as `{name}`",
                    path.display()
                ));
            }
            before.push(count(*number, &found.records));
            found.records.into_iter().for_each(|record| book.apply(record));
        }
        let next = numbers.last().map_or(1, |last| last + 1);
        Ok((Self::begin(folder, next, book, before, keep)?, sentences))
    }

    fn begin(folder: &Path, number: u64, book: &Book, before: Vec<Segment>, keep: &Keep) -> io::Result<Self> {
        let mut first = Vec::new();
        write(&Record::Segments(before.clone()), &mut first);
        book.snapshot().for_each(|record| write(&record, &mut first));
        let path = path_of(folder, number);
        replace(&path, &first, keep)?;
        let file = open_to_append(&path)?;
        Ok(Self {
            folder: folder.to_owned(),
            identity: identity(&file.metadata()?),
            file,
            current: Segment { number, entries: 0, last: Timestamp::MIN },
            written: first.len() as u64,
            enough: enough(book),
            before,
        })
    }

    /// Appends lines, of which so many are entries; all of them or none.
    pub(super) fn append(&mut self, lines: &[u8], entries: usize, now: Timestamp) -> io::Result<()> {
        if let Err(error) = self.file.write_all(lines) {
            // Nobody else writes into it.
            let _ = self.file.set_len(self.written);
            return Err(error);
        }
        self.written += lines.len() as u64;
        self.current.entries += entries;
        if entries > 0 {
            self.current.last = now;
        }
        Ok(())
    }

    /// Whether it is where others look for it: its folder may have been removed, or another be in its place.
    pub(super) fn is_there(&self) -> bool {
        fs::metadata(path_of(&self.folder, self.current.number))
            .is_ok_and(|there| identity(&there) == self.identity)
    }

    pub(super) fn is_full(&self) -> bool {
        self.written >= self.enough
    }

    /// Begins the next segment, and lets go of those that are too old or too many.
    pub(super) fn rotate(&mut self, book: &Book, keep: &Keep, now: Timestamp) -> io::Result<()> {
        let numbers = numbers(&self.folder)?;
        let mut before = self.before.clone();
        before.push(self.current);
        before.retain(|segment| numbers.contains(&segment.number));
        let number = numbers.last().map_or(self.current.number, |last| self.current.number.max(*last)) + 1;
        *self = Self::begin(&self.folder, number, book, before, keep)?;
        self.let_go(keep, now);
        Ok(())
    }

    /// Of segments that are too old or too many.
    fn let_go(&mut self, keep: &Keep, now: Timestamp) {
        let oldest = now.checked_sub(keep.age).unwrap_or(Timestamp::MIN);
        let mut newer = self.current.entries;
        let mut stays = vec![false; self.before.len()];
        for (segment, stays) in self.before.iter().zip(&mut stays).rev() {
            *stays = newer < keep.entries && segment.last >= oldest;
            newer += segment.entries;
        }
        let (folder, mut stays) = (self.folder.clone(), stays.into_iter());
        self.before.retain(|segment| {
            let stays = stays.next() == Some(true);
            if !stays {
                // What cannot be removed is read a little longer.
                let _ = fs::remove_file(path_of(&folder, segment.number));
            }
            stays
        });
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl Found {
    /// Whether it begins as a segment does and no line is damaged.
    pub(super) fn is_whole(&self) -> bool {
        self.damaged == 0 && matches!(self.records.first(), Some(Record::Segments(_)))
    }
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// As much as several times what it begins with.
fn enough(book: &Book) -> u64 {
    let snapshot = 256 * book.jobs.len() as u64;
    SMALLEST.max(4 * snapshot)
}

fn open_to_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).open(path)
}

/// Writes a whole file that is not there before it is whole.
fn replace(path: &Path, contents: &[u8], keep: &Keep) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut options = OpenOptions::new();
    let _ = options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(&new).and_then(|mut file| {
        file.write_all(contents)?;
        if keep.sync { file.sync_data() } else { Ok(()) }
    });
    let renamed = written.and_then(|()| fs::rename(&new, path)).and_then(|()| match path.parent() {
        Some(folder) if keep.sync => File::open(folder)?.sync_all(),
        _ => Ok(()),
    });
    if renamed.is_err() {
        let _ = fs::remove_file(&new);
    }
    renamed
}
