//! What is written is there, whatever happens to the process, the files and the disk.

use std::{fs, path::Path};

use combo_core::Outcome;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn jobs(names: &[&str]) -> Vec<(Arc<str>, String)> {
    names.iter().map(|name| ((*name).into(), "every 4s".to_owned())).collect()
}

fn open_at(folder: &Path, names: &[&str], keep: Keep, now: Timestamp) -> Opened {
    Journal::open(folder, keep, &jobs(names), now).unwrap_or_else(|closed| panic!("{closed:?}"))
}

fn open(folder: &Path) -> Opened {
    open_at(folder, &["a", "b"], Keep::default(), at(0))
}

fn begun(run: u64, job: &str, due: i64) -> Begun {
    Begun {
        run,
        job: job.into(),
        due: at(due),
        start: at(due),
        count: run,
        missed: 0,
        attempt: 1,
        asked: false,
        exclusive: true,
    }
}

fn entry(job: &str, due: i64, outcome: Outcome) -> Arc<Entry> {
    let mut entry = Entry::new(job.into(), at(due), at(due), outcome);
    entry.attempt = 1;
    Arc::new(entry)
}

fn begin(journal: &Journal, begun: Begun) -> Begin {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let here = begun.run.is_multiple_of(2);
    runtime.block_on(journal.begin(begun, here).written())
}

/// One tick, from its beginning to its end.
fn run(journal: &Journal, number: u64, job: &str, due: i64) {
    assert_eq!(begin(journal, begun(number, job, due)), Begin::Go);
    journal.end(Some(number), entry(job, due, Outcome::Ran));
}

fn close(journal: &Journal) {
    assert!(journal.close(Duration::from_secs(60)));
}

/// Lets go of everything, as a process that is killed does.
#[expect(clippy::needless_pass_by_value, reason = "nothing of it is left")]
fn kill(opened: Opened) {
    close(&opened.journal);
}

fn dues(folder: &Path, job: &str) -> Vec<i64> {
    let entries = read_ledger(folder).expect("a ledger");
    entries.iter().filter(|entry| &*entry.job == job).map(|entry| entry.due.as_second()).collect()
}

#[test]
fn a_ledger_that_is_not_there_is_empty() {
    let folder = folder();
    assert!(read_ledger(&folder.path().join("absent")).expect("nothing").is_empty());
    assert!(read_ledger(folder.path()).expect("nothing").is_empty());
}

#[test]
fn what_is_known_is_known_again() {
    let folder = folder();
    let path = folder.path().join("state");
    let first = open(&path);
    assert_eq!(first.past[0], Remembered { trigger: "every 4s".into(), ..Remembered::default() });
    run(&first.journal, 1, "a", 4);
    first.journal.end(None, entry("a", 8, Outcome::Skipped { why: "it rains".into() }));
    assert_eq!(begin(&first.journal, begun(2, "a", 12)), Begin::Go);
    first.journal.end(Some(2), entry("a", 12, Outcome::Failed { why: "it rains".into() }));
    // One that is asked for is beside the schedule.
    let asked = Begun { asked: true, ..begun(3, "b", 99) };
    assert_eq!(begin(&first.journal, asked), Begin::Go);
    let mut of_asked = (*entry("b", 99, Outcome::Ran)).clone();
    of_asked.asked = true;
    first.journal.end(Some(3), Arc::new(of_asked));
    kill(first);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).expect("a folder").permissions());
    assert_eq!(mode & 0o777, 0o700);

    let again = open_at(&path, &["b", "a", "c"], Keep::default(), at(20));
    assert!(again.sentences.is_empty(), "{:?}", again.sentences);
    let [b, a, c] = &again.past[..] else { panic!("three jobs") };
    assert_eq!((a.accounted, a.counts.all(), a.counts.skipped, a.failures), (Some(at(12)), 3, 1, 1));
    assert_eq!(a.last.as_ref().map(|last| last.due), Some(at(12)));
    assert_eq!((b.accounted, b.counts.ran), (Some(at(0)), 1));
    assert_eq!((c.accounted, c.counts.all()), (None, 0));
    kill(again);
    // One that is due at other times is known anew, with its counts.
    let other = vec![("a".into(), "every 5s".to_owned())];
    let other =
        Journal::open(&path, Keep::default(), &other, at(30)).unwrap_or_else(|closed| panic!("{closed:?}"));
    assert_eq!((other.past[0].accounted, other.past[0].counts.all()), (None, 3));
    kill(other);
    assert_eq!((dues(&path, "a"), dues(&path, "b")), (vec![4, 8, 12], vec![99]));
}

#[test]
fn what_ran_when_the_process_ended_is_cut() {
    let folder = folder();
    let first = open(folder.path());
    assert_eq!(begin(&first.journal, begun(1, "a", 4)), Begin::Go);
    let second = Begun { attempt: 2, start: at(6), ..begun(1, "a", 4) };
    assert_eq!(begin(&first.journal, second), Begin::Go);
    assert_eq!(begin(&first.journal, begun(2, "gone", 4)), Begin::Go);
    let open_now = read(folder.path()).expect("a ledger").open;
    assert_eq!(open_now.len(), 2);
    kill(first);
    let again = open(folder.path());
    assert_eq!(again.past[0].accounted, Some(at(4)));
    assert_eq!(again.past[0].counts.cancelled, 1);
    assert!(read(folder.path()).expect("a ledger").open.is_empty());
    let entries = read_ledger(folder.path()).expect("a ledger");
    let mut said: Vec<_> = entries.iter().map(|entry| format!("{} {entry}", entry.attempt)).collect();
    said.sort();
    let why = "was cancelled: the process ended while it ran";
    assert_eq!(said, [format!("1 job `gone` {why}"), format!("2 job `a` {why}")]);
    kill(again);
}

#[test]
fn one_process_keeps_it_and_others_may_write_into_it() {
    let folder = folder();
    let keeper = open(folder.path());
    match Journal::open(folder.path(), Keep::default(), &[], at(0)) {
        Err(Closed::Kept(pid)) => assert_eq!(pid, std::process::id().to_string()),
        other => panic!("{:?}", other.map(|_| ())),
    }
    let guest = Journal::join(folder.path(), at(1)).expect("a journal");
    assert_eq!(begin(&guest, by_hand(1, "a", 4)), Begin::Go);
    // It runs there, so it does not run here; others do.
    assert_eq!(begin(&keeper.journal, begun(1, "a", 4)), Begin::Held);
    keeper.journal.end(Some(1), entry("a", 4, Outcome::Skipped { why: "it runs elsewhere".into() }));
    assert_eq!(begin(&keeper.journal, begun(2, "b", 4)), Begin::Go);
    // And the other way round, and so it is between guests.
    assert_eq!(begin(&guest, by_hand(2, "b", 4)), Begin::Held);
    guest.end(Some(2), entry("b", 4, Outcome::Skipped { why: "it runs elsewhere".into() }));
    let another = Journal::join(folder.path(), at(2)).expect("a journal");
    assert_eq!(begin(&another, by_hand(1, "a", 4)), Begin::Held);
    close(&another);
    kill(keeper);
    // Who keeps it next does not take it for cut.
    let next = open(folder.path());
    assert_eq!((next.past[0].counts.all(), next.past[1].counts.cancelled), (1, 1));
    // What has been said before this is written then.
    assert_eq!(begin(&guest, by_hand(3, "c", 4)), Begin::Go);
    assert_eq!(read(folder.path()).expect("a ledger").open.len(), 2);
    guest.end(Some(3), entry_by_hand("c", 4));
    guest.end(Some(1), entry_by_hand("a", 4));
    close(&guest);
    assert_eq!(begin(&next.journal, begun(1, "a", 8)), Begin::Go);
    next.journal.end(Some(1), entry("a", 8, Outcome::Ran));
    kill(next);
    let said: Vec<_> =
        read_ledger(folder.path()).expect("a ledger").iter().map(ToString::to_string).collect();
    assert_eq!(said.iter().filter(|said| **said == "job `a` ran").count(), 2, "{said:?}");
    // Then what they have written is taken over, once.
    for _ in 0..2 {
        let last = open(folder.path());
        assert_eq!((last.past[0].counts.ran, last.past[0].accounted), (2, Some(at(8))));
        kill(last);
        assert!(segments::guests(folder.path()).expect("a folder").is_empty());
        assert_eq!(read_ledger(folder.path()).expect("a ledger").len(), said.len());
    }
}

fn by_hand(run: u64, job: &str, due: i64) -> Begun {
    Begun { asked: true, ..begun(run, job, due) }
}

fn entry_by_hand(job: &str, due: i64) -> Arc<Entry> {
    let mut entry = (*entry(job, due, Outcome::Ran)).clone();
    entry.asked = true;
    Arc::new(entry)
}

#[test]
fn a_guest_may_be_the_first_and_may_be_killed() {
    let folder = folder();
    let guest = Journal::join(folder.path(), at(1)).expect("a journal");
    assert_eq!(begin(&guest, by_hand(1, "a", 4)), Begin::Go);
    guest.end(Some(1), entry_by_hand("a", 4));
    assert_eq!(begin(&guest, by_hand(2, "a", 8)), Begin::Go);
    close(&guest);
    assert_eq!(dues(folder.path(), "a"), [4]);
    let keeper = open(folder.path());
    let counts = keeper.past[0].counts;
    assert_eq!((keeper.past[0].accounted, counts.ran, counts.cancelled), (None, 1, 1));
    kill(keeper);
    assert_eq!(dues(folder.path(), "a"), [4, 8]);
}

#[test]
fn what_a_guest_wrote_is_counted_once_whenever_it_is_taken_over() {
    let folder = folder();
    let keeper = open(folder.path());
    let guest = Journal::join(folder.path(), at(1)).expect("a journal");
    assert_eq!(begin(&guest, by_hand(1, "a", 4)), Begin::Go);
    guest.end(Some(1), entry_by_hand("a", 4));
    close(&guest);
    let [(_, file)] = &segments::guests(folder.path()).expect("a folder")[..] else { panic!("one guest") };
    let kept = fs::read(file).expect("its file");
    kill(keeper);
    kill(open(folder.path()));
    // As if it had been killed before the file was removed.
    fs::write(file, kept).expect("it can be written");
    assert_eq!(dues(folder.path(), "a"), [4]);
    assert_eq!(read(folder.path()).expect("a ledger").jobs["a"].counts.ran, 1);
    let again = open(folder.path());
    assert_eq!(again.past[0].counts.ran, 1);
    assert!(!file.exists());
    kill(again);
}

#[test]
fn a_later_attempt_does_not_take_back_what_is_accounted_for() {
    let folder = folder();
    let opened = open(folder.path());
    assert_eq!(begin(&opened.journal, begun(1, "a", 60)), Begin::Go);
    for due in [120, 180, 240] {
        opened.journal.end(None, entry("a", due, Outcome::Skipped { why: "it runs".into() }));
    }
    assert_eq!(begin(&opened.journal, Begun { attempt: 2, ..begun(1, "a", 60) }), Begin::Go);
    kill(opened);
    let again = open_at(folder.path(), &["a", "b"], Keep::default(), at(400));
    assert_eq!(again.past[0].accounted, Some(at(240)));
    kill(again);
}

fn segments_of(folder: &Path) -> Vec<u64> {
    numbers(folder).expect("a folder")
}

#[test]
fn the_oldest_go_and_nothing_is_forgotten_with_them() {
    let folder = folder();
    let keep = Keep::default().entries(2_000);
    let opened = open_at(folder.path(), &["a", "b"], keep, at(0));
    run(&opened.journal, 1, "b", 4);
    assert_eq!(begin(&opened.journal, begun(2, "long", 4)), Begin::Go);
    for number in 0..20_000_u32 {
        opened.journal.end(None, entry("a", i64::from(number), Outcome::Skipped { why: "it rains".into() }));
    }
    kill(opened);
    let (segments, entries) = (segments_of(folder.path()), dues(folder.path(), "a"));
    assert!(segments.len() >= 2 && segments[0] > 1, "{segments:?}");
    assert!(entries.len() >= 2_000 && entries.len() < 12_000, "{}", entries.len());
    assert!(entries.is_sorted() && entries.last() == Some(&19_999));
    let again = open_at(folder.path(), &["a", "b", "long"], keep, at(30_000));
    assert_eq!((again.past[0].counts.skipped, again.past[1].counts.ran), (20_000, 1));
    assert_eq!((again.past[1].accounted, again.past[2].counts.cancelled), (Some(at(4)), 1));
    kill(again);
}

#[test]
fn a_journal_that_is_cut_anywhere_has_all_that_is_whole() {
    let folder = folder();
    let opened = open(folder.path());
    for number in 1..6 {
        run(&opened.journal, number, "a", 4 * number.cast_signed());
    }
    kill(opened);
    let path = path_of(folder.path(), 1);
    let whole = fs::read(&path).expect("a segment");
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).expect("it can be written");
        let complete = whole[..length].iter().filter(|byte| **byte == b'\n').count();
        let entries = dues(folder.path(), "a").len();
        let opened = open(folder.path());
        // Only one that lost even its beginning is damaged.
        assert_eq!(opened.sentences.len(), usize::from(complete == 0), "{length}: {:?}", opened.sentences);
        let counts = opened.past[0].counts;
        assert_eq!(counts.ran, entries as u64, "{length}");
        assert!(counts.all() - counts.ran <= 1);
        kill(opened);
        for entry in fs::read_dir(folder.path()).expect("a folder") {
            fs::remove_file(entry.expect("an entry").path()).expect("a file");
        }
    }
}

#[test]
fn what_is_damaged_is_kept_aside_and_what_is_whole_is_used() {
    let folder = folder();
    let opened = open(folder.path());
    for number in 1..6 {
        run(&opened.journal, number, "a", 4 * number.cast_signed());
    }
    kill(opened);
    let path = path_of(folder.path(), 1);
    let text = fs::read_to_string(&path).expect("a segment");
    let line = text
        .lines()
        .position(|line| line.contains("\"due\":\"1970-01-01T00:00:12Z\"") && line.contains("ended"));
    let start: usize = text.split_inclusive('\n').take(line.expect("it has ended")).map(str::len).sum();
    let mut damaged = text.into_bytes();
    damaged[start + 20] ^= 1;
    fs::write(&path, &damaged).expect("it can be written");
    let again = open_at(folder.path(), &["a", "b"], Keep::default(), at(77));
    let said = format!(
        "the journal `{}` is damaged: 1 of its lines cannot be read, 12 can; it is kept as `ledger-000001.log.damaged-77`",
        path.display()
    );
    assert_eq!(again.sentences, [said]);
    assert_eq!(fs::read(folder.path().join("ledger-000001.log.damaged-77")).expect("it is kept"), damaged);
    // Its end is not known, so it is taken for cut.
    assert_eq!((again.past[0].counts.ran, again.past[0].counts.cancelled), (4, 1));
    assert_eq!(again.past[0].accounted, Some(at(20)));
    kill(again);
    let third = open(folder.path());
    assert!(third.sentences.is_empty() && third.past[0].counts.all() == 5);
    kill(third);
}

#[test]
fn a_folder_that_is_removed_comes_back() {
    let folder = folder();
    let path = folder.path().join("state");
    let opened = open(&path);
    run(&opened.journal, 1, "a", 4);
    fs::remove_dir_all(&path).expect("it is there");
    run(&opened.journal, 2, "a", 8);
    run(&opened.journal, 3, "a", 12);
    // Nobody else may keep it there.
    assert!(matches!(Journal::open(&path, Keep::default(), &[], at(0)), Err(Closed::Kept(_))));
    // Or another is in its place.
    fs::rename(&path, folder.path().join("away")).expect("it is there");
    run(&opened.journal, 4, "a", 16);
    close(&opened.journal);
    let written = read(&path).expect("a ledger");
    assert_eq!((written.jobs["a"].counts.ran, written.jobs["a"].accounted), (4, Some(at(16))));
}

#[test]
fn what_cannot_be_read_is_put_aside() {
    let folder = folder();
    kill(open(folder.path()));
    fs::create_dir(path_of(folder.path(), 2)).expect("a folder in its place");
    let opened = open_at(folder.path(), &["a"], Keep::default(), at(5));
    assert!(opened.sentences[0].contains("it cannot be read"), "{:?}", opened.sentences);
    kill(opened);
    assert!(folder.path().join("ledger-000002.log.damaged-5").is_dir());
}

#[test]
fn damage_to_an_old_segment_leaves_nothing_open() {
    let folder = folder();
    let opened = open(folder.path());
    run(&opened.journal, 1, "b", 4);
    for number in 0..5_000_u32 {
        opened.journal.end(None, entry("a", i64::from(number), Outcome::Skipped { why: "it rains".into() }));
    }
    kill(opened);
    let path = path_of(folder.path(), 1);
    let text = fs::read_to_string(&path).expect("a segment").replacen("\"ended\"", "\"Ended\"", 1);
    fs::write(&path, text).expect("it can be written");
    assert!(segments_of(folder.path()).len() > 1 && read(folder.path()).expect("a ledger").open.is_empty());
}

#[test]
fn what_waits_for_a_disk_that_takes_nothing_has_an_end() {
    let folder = folder();
    let opened = open(folder.path());
    // Neither is it there nor can it be made.
    fs::remove_dir_all(folder.path()).expect("it is there");
    fs::write(folder.path(), "in its place").expect("it can be written");
    for number in 0..40_000_u32 {
        opened.journal.end(None, entry("a", i64::from(number), Outcome::Skipped { why: "it rains".into() }));
    }
    assert_eq!(begin(&opened.journal, begun(1, "b", 4)), Begin::Go);
    fs::remove_file(folder.path()).expect("it is there");
    opened.journal.end(Some(1), entry("b", 4, Outcome::Ran));
    close(&opened.journal);
    let jobs = read(folder.path()).expect("a ledger").jobs;
    assert_eq!((jobs["a"].counts.skipped, jobs["b"].counts.ran), (40_000, 1));
}

#[test]
fn a_folder_that_cannot_be_is_an_error() {
    let folder = folder();
    fs::write(folder.path().join("file"), "").expect("a file");
    for path in ["file", "absent/state"] {
        let closed = Journal::open(&folder.path().join(path), Keep::default(), &[], at(0));
        assert!(matches!(closed, Err(Closed::Io(_))), "{path}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever bytes are there instead: it starts, and what is whole is used.
    #[test]
    fn any_damage_is_survived(changes in prop::collection::vec((0_usize..10_000, any::<u8>()), 1..8)) {
        let folder = folder();
        let opened = open(folder.path());
        for number in 1..4 {
            run(&opened.journal, number, "a", 4 * number.cast_signed());
        }
        kill(opened);
        let path = path_of(folder.path(), 1);
        let mut bytes = fs::read(&path).expect("a segment");
        let lines = bytes.split(|byte| *byte == b'\n').count() - 1;
        let mut touched = HashSet::new();
        for (at, byte) in changes {
            let at = at % bytes.len();
            let _ = touched.insert(bytes[..at].iter().filter(|byte| **byte == b'\n').count());
            let _ = touched.insert(bytes[..=at].iter().filter(|byte| **byte == b'\n').count());
            bytes[at] = byte;
        }
        fs::write(&path, &bytes).expect("it can be written");
        let found = segments::read(&path).expect("a file");
        prop_assert!(found.records.len() + 2 * touched.len() >= lines);
        let again = open(folder.path());
        run(&again.journal, 9, "a", 400);
        kill(again);
        let third = open(folder.path());
        prop_assert!(third.sentences.is_empty());
        prop_assert_eq!(third.past[0].accounted, Some(at(400)));
        kill(third);
    }
}

#[test]
fn a_writer_that_hangs_holds_up_nobody_who_would_help() {
    let folder = folder();
    let opened = open(folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let writer = opened.journal.0.as_ref().expect("there is a folder");
    let hangs = writer.hang();
    // As the next to begin does; it waits, but not its thread.
    let mut written = Box::pin(opened.journal.begin(begun(1, "a", 4), true).written());
    let pending = runtime.block_on(async {
        std::future::poll_fn(|cx| std::task::Poll::Ready(written.as_mut().poll(cx).is_pending())).await
    });
    assert!(pending);
    drop(hangs);
    assert_eq!(runtime.block_on(written), Begin::Go);
    assert_eq!(read(folder.path()).expect("a ledger").open.len(), 1);
    kill(opened);
}

#[test]
fn who_helps_may_be_the_one_who_closes() {
    let folder = folder();
    let opened = open(folder.path());
    let writer = opened.journal.0.as_ref().expect("there is a folder");
    let (done, closed) = mpsc::channel();
    assert!(writer.put(Message::Close(done)));
    writer.help();
    assert_eq!(closed.recv_timeout(Duration::from_secs(60)), Ok(true));
    // What comes too late is not waited for.
    assert_eq!(begin(&opened.journal, begun(1, "a", 4)), Begin::Go);
    assert_eq!(begin(&opened.journal, begun(2, "a", 8)), Begin::Go);
    kill(open(folder.path()));
}
