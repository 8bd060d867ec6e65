//! A record of the journal, and the line that it is: JSON, then ` #` and its CRC-32 in eight digits. Pure.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use combo_core::{Counts, Entry, Outcome, Timestamp};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// The greatest step back of a due instant that is taken for ticks that were started out of order, and not for a
/// clock that was set back.
const OUT_OF_ORDER: SignedDuration = SignedDuration::from_secs(60);

/// A tick that has begun, an attempt at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begun {
    /// Its number in this process.
    pub(crate) run: u64,
    pub(crate) job: Arc<str>,
    pub(crate) due: Timestamp,
    pub(crate) start: Timestamp,
    pub(crate) count: u64,
    pub(crate) missed: u64,
    pub(crate) attempt: u32,
    pub(crate) asked: bool,
    /// Whether no other process may run the same job meanwhile.
    pub(crate) exclusive: bool,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    /// The first of a segment: which there are before it.
    Segments(Vec<Segment>),
    /// All that has to be known of a job when the segments before this one are gone.
    Known(Known),
    Begun {
        session: u64,
        #[serde(flatten)]
        begun: Begun,
    },
    Ended {
        session: u64,
        run: Option<u64>,
        #[serde(flatten)]
        entry: Line,
    },
    /// All that a guest has written has been written here as well.
    Absorbed { session: u64 },
}

/// What is known of a segment that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) entries: usize,
    /// When the last of them ended.
    pub(super) last: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) job: Arc<str>,
    pub(super) trigger: Arc<str>,
    pub(super) accounted: Timestamp,
    /// Ran, failed, timed out, cancelled, skipped, missed.
    pub(super) counts: [u64; 6],
    pub(super) failures: u32,
    pub(super) last: Option<Line>,
}

/// An entry as it is written: what users read, and a few things more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Line {
    job: Arc<str>,
    due: Timestamp,
    start: Timestamp,
    pub(super) end: Timestamp,
    lateness_us: u64,
    attempt: u32,
    outcome: String,
    why: Option<String>,
    changes: Vec<String>,
    ticks: u64,
    last: Timestamp,
    count: u64,
    missed: u64,
    asked: bool,
    output: Vec<String>,
    /// Which of several outcomes that are one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
}

/// An entry as one JSON object: `job`, `due`, `start`, `end`, `lateness_us`, `attempt`, `outcome`, `why`, `changes`,
/// and after them `ticks`, `last`, `count`, `missed`, `asked` and `output`.
pub(crate) fn to_json(entry: &Entry) -> String {
    let line = Line { why: entry.outcome.why(), kind: None, ..Line::of(entry) };
    serde_json::to_string(&line).unwrap_or_default()
}

impl Line {
    pub(super) fn of(entry: &Entry) -> Self {
        let (kind, why) = match &entry.outcome {
            Outcome::Panicked { why } => (Some("panicked"), Some(why.clone())),
            Outcome::Refused { why } => (Some("refused"), Some(why.clone())),
            outcome => (None, outcome.why()),
        };
        Self {
            job: entry.job.clone(),
            due: entry.due,
            start: entry.start,
            end: entry.end,
            lateness_us: u64::try_from(entry.lateness.as_micros()).unwrap_or(u64::MAX),
            attempt: entry.attempt,
            outcome: entry.outcome.word().to_owned(),
            why,
            changes: entry.changes.clone(),
            ticks: entry.ticks,
            last: entry.last,
            count: entry.count,
            missed: entry.missed,
            asked: entry.asked,
            output: entry.output.clone(),
            kind: kind.map(ToOwned::to_owned),
        }
    }

    pub(super) fn entry(&self) -> Entry {
        let why = self.why.clone().unwrap_or_default();
        let outcome = match (&*self.outcome, self.kind.as_deref()) {
            ("ran", _) => Outcome::Ran,
            ("timed out", _) => Outcome::TimedOut { why },
            ("cancelled", _) => Outcome::Cancelled { why },
            ("skipped", _) => Outcome::Skipped { why },
            ("missed", _) => Outcome::Missed { why },
            (_, Some("panicked")) => Outcome::Panicked { why },
            (_, Some("refused")) => Outcome::Refused { why },
            _ => Outcome::Failed { why },
        };
        let mut entry = Entry::new(self.job.clone(), self.due, self.start, outcome);
        (entry.last, entry.ticks, entry.end) = (self.last, self.ticks, self.end);
        entry.lateness = Duration::from_micros(self.lateness_us);
        (entry.count, entry.missed, entry.attempt, entry.asked) =
            (self.count, self.missed, self.attempt, self.asked);
        (entry.changes, entry.output) = (self.changes.clone(), self.output.clone());
        entry
    }
}

/// Appends a record as a line.
pub(super) fn write(record: &Record, to: &mut Vec<u8>) {
    use std::io::Write as _;
    let start = to.len();
    // A vector takes everything, and no record has a map with keys that are no text.
    let _ = serde_json::to_writer(&mut *to, record);
    let sum = crc32fast::hash(&to[start..]);
    let _ = writeln!(to, " #{sum:08x}");
}

/// What a line is, without its end; nothing if it is damaged.
pub(super) fn parse(line: &[u8]) -> Option<Record> {
    let (text, sum) = line.split_at_checked(line.len().checked_sub(10)?)?;
    let sum = std::str::from_utf8(sum.strip_prefix(b" #")?).ok()?;
    let sum = u32::from_str_radix(sum, 16).ok()?;
    (crc32fast::hash(text) == sum).then(|| serde_json::from_slice(text).ok()).flatten()
}

/// What is known of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// As its trigger was said.
    pub(crate) trigger: Arc<str>,
    /// Up to when its ticks have been accounted for.
    pub(crate) accounted: Option<Timestamp>,
    pub(crate) counts: Counts,
    pub(crate) failures: u32,
    pub(crate) last: Option<Arc<Entry>>,
}

/// All that is known: what records come to, one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    pub(crate) jobs: HashMap<Arc<str>, Remembered>,
    /// Ticks that have begun and not ended, by session and run.
    pub(crate) open: HashMap<(u64, u64), Begun>,
    /// Guests whose files may still be there.
    pub(super) absorbed: HashSet<u64>,
}

impl Book {
    pub(super) fn apply(&mut self, record: Record) {
        match record {
            // What follows has all that is still open.
            Record::Segments(_) => self.open.clear(),
            Record::Absorbed { session } => drop(self.absorbed.insert(session)),
            Record::Known(known) => {
                let [ran, failed, timed_out, cancelled, skipped, missed] = known.counts;
                let mut counts = Counts::default();
                (counts.ran, counts.failed, counts.timed_out) = (ran, failed, timed_out);
                (counts.cancelled, counts.skipped, counts.missed) = (cancelled, skipped, missed);
                let remembered = Remembered {
                    trigger: known.trigger,
                    accounted: Some(known.accounted),
                    counts,
                    failures: known.failures,
                    last: known.last.map(|last| Arc::new(last.entry())),
                };
                drop(self.jobs.insert(known.job, remembered));
            }
            Record::Begun { session, begun } => self.begun(session, begun),
            Record::Ended { session, run, entry } => self.ended(session, run, &Arc::new(entry.entry())),
        }
    }

    pub(super) fn begun(&mut self, session: u64, begun: Begun) {
        let key = (session, begun.run);
        // A later attempt is older than what has come since.
        if !begun.asked && begun.attempt <= 1 && !self.open.contains_key(&key) {
            self.jobs.entry(begun.job.clone()).or_default().reach(begun.due);
        }
        drop(self.open.insert(key, begun));
    }

    pub(super) fn ended(&mut self, session: u64, run: Option<u64>, entry: &Arc<Entry>) {
        let begun = run.and_then(|run| self.open.remove(&(session, run)));
        let job = self.jobs.entry(entry.job.clone()).or_default();
        if !entry.asked && begun.is_none() {
            job.reach(entry.last);
        }
        job.counts.count(entry);
        match &entry.outcome {
            Outcome::Ran => job.failures = 0,
            outcome if outcome.is_failure() => job.failures += 1,
            _ => {}
        }
        // What a guest has written may be taken over later than it was.
        if entry.attempt > 0 && job.last.as_ref().is_none_or(|last| last.start <= entry.start) {
            job.last = Some(entry.clone());
        }
    }

    /// Everything, as records of which nothing before them is needed.
    pub(super) fn snapshot(&self) -> impl Iterator<Item = Record> {
        let jobs = self.jobs.iter().map(|(job, known)| Record::Known(known.known(job)));
        let open = self
            .open
            .iter()
            .map(|((session, _), begun)| Record::Begun { session: *session, begun: begun.clone() });
        // Ticks that run may be older than what has been accounted for, so they do not come last.
        open.chain(jobs)
    }
}

impl Remembered {
    fn reach(&mut self, due: Timestamp) {
        let back = self.accounted.map(|accounted| accounted.duration_since(due));
        if back.is_none_or(|back| back.is_negative() || back >= OUT_OF_ORDER) {
            self.accounted = Some(due);
        }
    }

    pub(super) fn known(&self, job: &Arc<str>) -> Known {
        let Counts { ran, failed, timed_out, cancelled, skipped, missed, .. } = self.counts;
        Known {
            job: job.clone(),
            trigger: self.trigger.clone(),
            accounted: self.accounted.unwrap_or(Timestamp::UNIX_EPOCH),
            counts: [ran, failed, timed_out, cancelled, skipped, missed],
            failures: self.failures,
            last: self.last.as_deref().map(Line::of),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn entry(outcome: Outcome) -> Entry {
        let mut entry = Entry::new("a \"job\"".into(), at(4), at(5), outcome);
        (entry.last, entry.ticks, entry.end) = (at(12), 3, at(6));
        (entry.lateness, entry.count, entry.missed) = (Duration::from_micros(1_000_001), 7, 2);
        (entry.attempt, entry.asked) = (2, true);
        (entry.changes, entry.output) = (vec!["write `a`".into()], vec!["a\nline #1".into()]);
        entry
    }

    fn outcomes() -> [Outcome; 8] {
        let why = || "ä\n # \"why\"".to_owned();
        [
            Outcome::Ran,
            Outcome::Failed { why: why() },
            Outcome::Panicked { why: why() },
            Outcome::Refused { why: why() },
            Outcome::TimedOut { why: why() },
            Outcome::Cancelled { why: why() },
            Outcome::Skipped { why: why() },
            Outcome::Missed { why: why() },
        ]
    }

    #[test]
    fn every_record_is_a_line_that_says_the_same() {
        let begun = Begun {
            run: 3,
            job: "a".into(),
            due: at(4),
            start: at(5),
            count: 1,
            missed: 2,
            attempt: 1,
            asked: false,
            exclusive: true,
        };
        let mut known = Remembered { accounted: Some(at(8)), failures: 2, ..Remembered::default() };
        (known.counts.missed, known.last) = (5, Some(Arc::new(entry(Outcome::Ran))));
        let mut records = vec![
            Record::Segments(vec![Segment { number: 1, entries: 2, last: at(3) }]),
            Record::Known(known.known(&"a".into())),
            Record::Begun { session: 7, begun },
            Record::Absorbed { session: 8 },
        ];
        for outcome in outcomes() {
            let line = Line::of(&entry(outcome.clone()));
            assert_eq!(line.entry(), entry(outcome));
            records.push(Record::Ended { session: 7, run: Some(3), entry: line.clone() });
            records.push(Record::Ended { session: 7, run: None, entry: line });
        }
        for record in records {
            let mut line = Vec::new();
            write(&record, &mut line);
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "{record:?}");
            assert_eq!(parse(&line[..line.len() - 1]), Some(record));
        }
    }

    #[test]
    fn users_read_the_sentence_and_the_word() {
        let json = to_json(&entry(Outcome::Panicked { why: "no".into() }));
        let expected = r#"{"job":"a \"job\"","due":"1970-01-01T00:00:04Z","start":"1970-01-01T00:00:05Z","end":"1970-01-01T00:00:06Z","lateness_us":1000001,"attempt":2,"outcome":"failed","why":"it panicked: no","changes":["write `a`"],"ticks":3,"last":"1970-01-01T00:00:12Z","count":7,"missed":2,"asked":true,"output":["a\nline #1"]}"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn what_is_accounted_for_goes_on_unless_the_clock_went_back() {
        let mut job = Remembered::default();
        for (due, accounted) in [(100, 100), (104, 104), (102, 104), (110, 110), (50, 50), (54, 54)] {
            job.reach(at(due));
            assert_eq!(job.accounted, Some(at(accounted)));
        }
        let soon = at(54) + Duration::from_millis(10);
        job.reach(soon);
        assert_eq!(job.accounted, Some(soon));
    }

    proptest! {
        #[test]
        fn a_damaged_line_is_nothing(byte in 0_usize..10_000, change in 1_u8..255) {
            let mut line = Vec::new();
            write(&Record::Ended { session: 1, run: Some(2), entry: Line::of(&entry(Outcome::Ran)) }, &mut line);
            let _ = line.pop();
            let byte = byte % line.len();
            line[byte] ^= change;
            // Letters of the sum may be large or small.
            let same = line[byte].eq_ignore_ascii_case(&(line[byte] ^ change)) && byte > line.len() - 9;
            prop_assert!(same || parse(&line).is_none());
        }

        #[test]
        fn any_bytes_are_a_record_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
