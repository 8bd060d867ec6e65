//! certificate, what is remembered of it, now -> order it now, later, or leave it alone. Pure.
//!
//! A certificate is due when a third of its life is left, a little earlier by a part that is always the same for
//! it; or at the instant that was drawn from the window its authority suggests (RFC 9773, section 4.2). What has
//! failed waits: longer each time, and as long as the authority said. Nothing here knows what a clock says.

use std::{collections::BTreeMap, time::Duration};

use combo_core::{Timestamp, stable_hash};
use serde::{Deserialize, Serialize};

/// How many orders are begun within an hour, in one folder. Let's Encrypt takes 300 within three.
pub(super) const ORDERS_PER_HOUR: usize = 100;

/// How many of these may be for names that were wanted at a handshake.
pub(super) const WANTED_PER_HOUR: usize = 20;

/// By how much the clock that files are touched by may be behind: a tick of the kernel.
const TICK: Duration = Duration::from_millis(10);

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// How long the first failure waits: so that within an hour there are fewer than the five failed validations
/// that Let's Encrypt takes of one name.
const FIRST_WAIT: Duration = Duration::from_secs(5 * 60);
/// No failure waits longer, unless the authority says so.
const LONGEST_WAIT: Duration = Duration::from_secs(12 * 3_600);
/// Nor longer than this if it does.
const LONGEST_HELD: Duration = Duration::from_secs(7 * 24 * 3_600);

/// How soon after a failure to learn the window it is asked for again (RFC 9773, section 4.3.3).
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(6 * 3_600);

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Life {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

impl Life {
    fn whole(self) -> Duration {
        self.until.duration_since(self.from).try_into().unwrap_or_default()
    }
}

/// When an authority suggests to renew a certificate (RFC 9773, section 4.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
}

/// What an authority said of the renewal of a certificate, and when it is asked again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Suggested {
    /// Of this certificate.
    pub(super) certificate: String,
    pub(super) window: Option<Window>,
    pub(super) again: Timestamp,
}

/// What is remembered of one file, `host.pem`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    /// Whom it was ordered from: the URL of a directory.
    pub(super) directory: String,
    /// What it was ordered for.
    pub(super) names: Vec<String>,
    /// The certificate that was issued last, and the one before: the file may still have that.
    pub(super) certificates: Vec<String>,
    /// When it is looked at next.
    pub(super) next: Option<Timestamp>,
    pub(super) failures: u32,
    pub(super) failed: Option<Timestamp>,
    /// One sentence.
    pub(super) why: Option<String>,
    /// Not before.
    pub(super) again: Option<Timestamp>,
    /// The authority itself said so.
    pub(super) held: bool,
    pub(super) suggested: Option<Suggested>,
    /// It was wanted at a handshake.
    pub(super) wanted: bool,
}

/// What is remembered of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    /// When orders were begun in the last hour, the earliest first.
    pub(super) begun: Vec<Timestamp>,
    /// Those for names that were wanted at a handshake.
    pub(super) begun_wanted: Vec<Timestamp>,
    /// By the name of the file.
    pub(super) files: BTreeMap<String, Record>,
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing: a certificate is to be ordered.
    Nothing,
    /// A certificate.
    Certificate { id: String, life: Life },
}

/// What is to be done about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing, ever: somebody else put it there.
    Foreign,
    /// Order it now.
    Now,
    /// Look at it again then.
    Later(Timestamp),
}

/// What is to be done about a file that has this in it, was last touched then, and is to be for these names.
pub(super) fn verdict(
    content: &Content,
    touched: Timestamp,
    names: &[String],
    directory: &str,
    record: Option<&Record>,
    now: Timestamp,
) -> Verdict {
    let due = match (content, record) {
        (Content::Nothing, _) => Timestamp::MIN,
        (Content::Certificate { .. }, None) => return Verdict::Foreign,
        (Content::Certificate { id, life }, Some(record)) => {
            if !record.certificates.contains(id) {
                return Verdict::Foreign;
            }
            let same = record.directory == directory && record.names == names;
            let suggested = record.suggested.as_ref().filter(|suggested| suggested.certificate == *id);
            let window = suggested.and_then(|suggested| suggested.window.as_ref());
            if same { due(*life, window, id) } else { Timestamp::MIN }
        }
    };
    let wait = record.and_then(|record| {
        let touched = after(touched, TICK);
        let forgiven = !record.held && record.failed.is_some_and(|failed| failed < touched);
        record.again.filter(|_| !forgiven)
    });
    let at = due.max(wait.unwrap_or(Timestamp::MIN));
    if at <= now { Verdict::Now } else { Verdict::Later(at) }
}

/// When a certificate is to be renewed; `id` tells it from others.
pub(super) fn due(life: Life, window: Option<&Window>, id: &str) -> Timestamp {
    match window.and_then(|window| drawn(window, id)) {
        // A window that is wrong must not cost the site its certificate.
        Some(drawn) => drawn.min(before(life.until, life.whole() / 10)),
        None => by_life(life, id),
    }
}

/// A third of its life before its end, and up to a thirtieth earlier.
fn by_life(life: Life, id: &str) -> Timestamp {
    let whole = life.whole();
    before(life.until, whole / 3 + (whole / 30).mul_f64(fraction(id, "life")))
}

/// Uniform in the window, and the same at every call (RFC 9773, section 4.2). Nothing if the window is none.
fn drawn(window: &Window, id: &str) -> Option<Timestamp> {
    let Window { start, end } = window;
    let wide: Duration = end.duration_since(*start).try_into().ok().filter(|wide| *wide > Duration::ZERO)?;
    Some(after(*start, wide.mul_f64(fraction(id, &format!("{start} {end}")))))
}

/// When the window is asked for again, if the authority says after so long: within reason (RFC 9773,
/// section 4.3.2).
pub(super) fn ask_again(said: Duration) -> Duration {
    said.clamp(Duration::from_secs(60), DAY)
}

/// How long what has failed so often in a row waits. `life` is that of the certificate that there is: one that
/// lives for minutes cannot wait for hours.
pub(super) fn wait(failures: u32, life: Option<Life>, seed: &str) -> Duration {
    let whole = life.map_or(Duration::MAX, Life::whole);
    let first = FIRST_WAIT.min(whole / 18);
    let longest = LONGEST_WAIT.min(whole / 6);
    let wait = first.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(longest);
    let spread = (wait / 4).mul_f64(fraction(seed, &failures.to_string()));
    (wait + spread).max(Duration::from_secs(1))
}

/// Why an order failed, as far as it matters for when it is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// A rate limit was hit.
    pub(super) limited: bool,
    /// The authority said after how long.
    pub(super) after: Option<Duration>,
}

/// Remembers a failure.
pub(super) fn fail(
    record: &mut Record,
    why: String,
    held: Held,
    life: Option<Life>,
    seed: &str,
    now: Timestamp,
) {
    record.failures = record.failures.saturating_add(1);
    let own = wait(record.failures, life, seed);
    let said = held.after.map(|after| after.min(LONGEST_HELD)).or(held.limited.then_some(HOUR));
    record.failed = Some(now);
    record.why = Some(why);
    record.held = said.is_some();
    record.again = Some(after(now, said.map_or(own, |said| said.max(own))));
}

/// Remembers that a certificate was issued.
pub(super) fn succeed(record: &mut Record, id: String) {
    let before = record.certificates.first().cloned();
    record.certificates = std::iter::once(id).chain(before).collect();
    (record.failures, record.failed, record.why) = (0, None, None);
    (record.again, record.held, record.suggested) = (None, false, None);
}

/// How many more of so many may be begun in this hour, when so many were; and when there is one more.
pub(super) fn allowance(begun: &mut Vec<Timestamp>, most: usize, now: Timestamp) -> (usize, Timestamp) {
    // What lies ahead was written down before the clock was set back.
    begun.retain(|at| before(now, HOUR) < *at && *at <= now);
    let left = most.saturating_sub(begun.len());
    let next =
        begun.len().checked_sub(most).and_then(|over| begun.get(over)).map_or(now, |at| after(*at, HOUR));
    (left, next)
}

/// A number of 0 to 1 that is always the same for the same words.
fn fraction(one: &str, other: &str) -> f64 {
    let mut hash = stable_hash(one.bytes().chain([0]).chain(other.bytes()));
    // Its upper bits alone would hardly differ for words that differ at their end.
    for _ in 0..2 {
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    }
    f64::from(u32::try_from(hash >> 32).unwrap_or_default()) / 2_f64.powi(32)
}

pub(super) fn after(at: Timestamp, wait: Duration) -> Timestamp {
    at.checked_add(wait).unwrap_or(Timestamp::MAX)
}

fn before(at: Timestamp, ahead: Duration) -> Timestamp {
    at.checked_sub(ahead).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HERE: &str = "https://acme.example/directory";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn life(from: i64, until: i64) -> Life {
        Life { from: at(from), until: at(until) }
    }

    fn days(count: i64) -> i64 {
        count * 24 * 3_600
    }

    fn holds(id: &str, from: i64, until: i64) -> Content {
        Content::Certificate { id: id.to_owned(), life: life(from, until) }
    }

    fn names() -> Vec<String> {
        vec!["a.example.com".to_owned()]
    }

    fn record(id: &str) -> Record {
        Record {
            directory: HERE.to_owned(),
            names: names(),
            certificates: vec![id.to_owned()],
            ..Record::default()
        }
    }

    #[test]
    fn it_is_due_when_a_third_of_its_life_is_left() {
        for (whole, third, spread) in [(days(90), days(30), days(3)), (days(6), days(2), 17_280), (90, 30, 3)]
        {
            for id in ["a", "b", "c", "d"] {
                let due = by_life(life(1_000, 1_000 + whole), id);
                let left = (1_000 + whole) * 1_000 - due.as_millisecond();
                assert!(
                    (third * 1_000..=(third + spread) * 1_000).contains(&left),
                    "{whole} {id}: {left} ms"
                );
                assert_eq!(due, by_life(life(1_000, 1_000 + whole), id));
            }
        }
        assert_ne!(by_life(life(0, days(90)), "a"), by_life(life(0, days(90)), "b"));
        // A certificate that ends before it begins is due.
        assert!(by_life(life(90, 0), "a") <= at(0));
    }

    #[test]
    fn the_window_says_when_and_each_has_its_own_instant_in_it() {
        let window = Window { start: at(days(50)), end: at(days(52)) };
        let mut drawn = Vec::new();
        for id in 0..1_000 {
            let due = due(life(0, days(90)), Some(&window), &id.to_string());
            assert!(window.start <= due && due < window.end);
            drawn.push((due.as_second() - days(50)) * 10 / days(2));
        }
        // Every tenth of the window has about a tenth of them.
        for tenth in 0..10 {
            let count = drawn.iter().filter(|of| **of == tenth).count();
            assert!((60..140).contains(&count), "{tenth}: {count}");
        }
        let again = due(life(0, days(90)), Some(&window), "0");
        assert_eq!(again, due(life(0, days(90)), Some(&window), "0"));
    }

    #[test]
    fn a_window_that_is_none_is_as_if_there_were_none() {
        let whole = life(0, days(90));
        for (start, end) in [(5, 5), (6, 5)] {
            let window = Window { start: at(days(start)), end: at(days(end)) };
            assert_eq!(due(whole, Some(&window), "a"), by_life(whole, "a"));
        }
        let past = Window { start: at(days(-9)), end: at(days(-8)) };
        assert!(due(whole, Some(&past), "a") < at(0));
        let late = Window { start: at(days(200)), end: at(days(201)) };
        assert_eq!(due(whole, Some(&late), "a"), at(days(81)));
    }

    #[test]
    fn the_window_is_asked_for_within_reason() {
        let secs = Duration::from_secs;
        for (said, asked) in [(0, 60), (59, 60), (21_600, 21_600), (1_000_000, 86_400)] {
            assert_eq!(ask_again(secs(said)), secs(asked));
        }
    }

    /// How many tries there are within an hour if all fail.
    #[test]
    fn failures_wait_longer_each_time_and_the_first_hour_has_no_more_than_four() {
        for seed in ["a", "b", "c", "d", "e"] {
            let mut waits = (1..40).map(|failures| wait(failures, None, seed)).collect::<Vec<_>>();
            assert!(FIRST_WAIT <= waits[0] && waits[0] <= FIRST_WAIT * 5 / 4);
            assert!(waits.iter().all(|wait| *wait <= LONGEST_WAIT * 5 / 4), "{waits:?}");
            assert!(waits[38] >= LONGEST_WAIT);
            let mut tries = 1;
            let mut spent = Duration::ZERO;
            for wait in &waits {
                spent += *wait;
                tries += usize::from(spent < HOUR);
            }
            assert!(tries <= 4, "{tries}");
            waits.truncate(7);
            assert!(waits.is_sorted(), "{waits:?}");
        }
        assert_ne!(wait(1, None, "a"), wait(1, None, "b"));
    }

    #[test]
    fn what_lives_for_seconds_is_tried_again_in_seconds() {
        let short = Some(life(0, 90));
        assert!(
            wait(1, short, "a") >= Duration::from_secs(5) && wait(1, short, "a") < Duration::from_secs(7)
        );
        assert!(wait(30, short, "a") < Duration::from_secs(19));
        assert!(wait(1, Some(life(0, 0)), "a") == Duration::from_secs(1));
    }

    #[test]
    fn an_empty_file_is_ordered_at_once_and_another_ones_is_left_alone() {
        let now = at(1_000);
        let check =
            |content: &Content, record: Option<&Record>| verdict(content, at(0), &names(), HERE, record, now);
        assert_eq!(check(&Content::Nothing, None), Verdict::Now);
        assert_eq!(check(&holds("x", 0, 10), None), Verdict::Foreign);
        // Somebody has put another one in the place of ours.
        assert_eq!(check(&holds("x", 0, 10), Some(&record("y"))), Verdict::Foreign);
        assert_eq!(check(&holds("x", 0, 10), Some(&record("x"))), Verdict::Now);
        let due = by_life(life(0, days(90)), "x");
        assert_eq!(check(&holds("x", 0, days(90)), Some(&record("x"))), Verdict::Later(due));
        // The certificate before is still ours: the new one may not have been written.
        let mut known = record("y");
        succeed(&mut known, "z".into());
        assert_eq!(check(&holds("y", 0, 10), Some(&known)), Verdict::Now);
    }

    #[test]
    fn other_names_and_another_authority_are_ordered_at_once() {
        let (content, now) = (holds("x", 0, days(90)), at(1_000));
        let check = |names: &[String], directory: &str| {
            verdict(&content, at(0), names, directory, Some(&record("x")), now)
        };
        assert!(matches!(check(&names(), HERE), Verdict::Later(_)));
        assert_eq!(check(&names(), "https://other.example/directory"), Verdict::Now);
        assert_eq!(check(&[names(), vec!["b.example.com".to_owned()]].concat(), HERE), Verdict::Now);
    }

    #[test]
    fn a_window_counts_for_the_certificate_it_was_asked_for() {
        let mut known = record("x");
        let window = Some(Window { start: at(10), end: at(20) });
        known.suggested = Some(Suggested { certificate: "x".into(), window, again: at(0) });
        let check =
            |known: &Record| verdict(&holds("x", 0, days(90)), at(0), &names(), HERE, Some(known), at(1_000));
        assert_eq!(check(&known), Verdict::Now);
        known.suggested.as_mut().expect("one").certificate = "y".into();
        assert!(matches!(check(&known), Verdict::Later(_)));
    }

    #[test]
    fn what_has_failed_waits_unless_the_file_is_touched() {
        let (now, mut known) = (at(1_000), Record::default());
        fail(&mut known, "no".into(), Held::default(), None, "a", now);
        let again = known.again.expect("it waits");
        assert!(again >= after(now, FIRST_WAIT));
        let check = |touched, now, known: &Record| {
            verdict(&Content::Nothing, touched, &names(), HERE, Some(known), now)
        };
        assert_eq!(check(at(0), now, &known), Verdict::Later(again));
        assert_eq!(check(at(0), again, &known), Verdict::Now);
        assert_eq!(check(at(1_001), at(1_002), &known), Verdict::Now);
        // At once after it failed, by a clock that is a little behind.
        assert_eq!(check(before(now, Duration::from_millis(4)), at(1_002), &known), Verdict::Now);
        assert_eq!(check(before(now, Duration::from_millis(100)), at(1_002), &known), Verdict::Later(again));
        // Not against what the authority has said.
        fail(&mut known, "no".into(), Held { limited: true, after: None }, None, "a", now);
        let again = known.again.expect("it waits");
        assert!(again >= after(now, HOUR));
        assert_eq!(check(at(1_001), at(1_002), &known), Verdict::Later(again));
    }

    #[test]
    fn the_authority_is_believed_when_it_says_how_long_to_wait() {
        let now = at(1_000);
        let waits = |limited, after, failures| {
            let mut known = Record { failures, ..Record::default() };
            let after = after as u64;
            fail(
                &mut known,
                "no".into(),
                Held { limited, after: Some(Duration::from_secs(after)) },
                None,
                "a",
                now,
            );
            known.again.expect("it waits").duration_since(now).as_secs()
        };
        assert_eq!(waits(true, days(1), 0), days(1));
        assert_eq!(waits(false, days(2), 0), days(2));
        // Not for ever, and not sooner than otherwise.
        assert_eq!(waits(true, days(400), 0), days(7));
        assert!(waits(true, 1, 0) >= 300);
    }

    #[test]
    fn a_success_ends_the_failures() {
        let mut known = record("x");
        fail(&mut known, "no".into(), Held { limited: true, after: None }, None, "a", at(0));
        fail(&mut known, "no".into(), Held::default(), None, "a", at(1));
        assert_eq!((known.failures, known.held), (2, false));
        succeed(&mut known, "y".into());
        assert_eq!(known, Record { certificates: vec!["y".into(), "x".into()], ..record("x") });
    }

    #[test]
    fn no_more_are_begun_within_an_hour() {
        let mut begun = vec![at(0), at(10), at(20)];
        assert_eq!(allowance(&mut begun.clone(), 3, at(3_599)), (0, at(3_600)));
        assert_eq!(allowance(&mut begun.clone(), 2, at(3_599)), (0, at(3_610)));
        assert_eq!(allowance(&mut begun.clone(), 4, at(30)), (1, at(30)));
        assert_eq!(allowance(&mut begun, 3, at(3_600)), (1, at(3_600)));
        assert_eq!(begun, [at(10), at(20)]);
        // The clock was set back.
        assert_eq!(allowance(&mut begun, 3, at(5)), (3, at(5)));
    }

    #[test]
    fn what_is_remembered_is_read_as_it_was_written() {
        let mut known = record("x");
        let window = Some(Window { start: at(10), end: at(20) });
        known.suggested = Some(Suggested { certificate: "x".into(), window, again: at(0) });
        fail(&mut known, "no".into(), Held::default(), None, "a", at(0));
        let files = [("a.pem".to_owned(), known)].into();
        let memory = Memory { begun: vec![at(1)], begun_wanted: Vec::new(), files };
        let text = serde_json::to_string(&memory).expect("JSON");
        assert_eq!(serde_json::from_str::<Memory>(&text).expect("the same"), memory);
        // What a later version writes as well is left out.
        assert_eq!(serde_json::from_str::<Memory>("{\"more\": 1}").expect("nothing"), Memory::default());
    }

    proptest! {
        #[test]
        fn it_is_never_due_after_a_tenth_of_its_life_is_left(
            from in -1_000_000_i64..1_000_000,
            whole in 0_i64..100_000_000,
            start in -1_000_000_i64..200_000_000,
            wide in -10_i64..10_000_000,
            id in "[a-z]{0,8}",
        ) {
            let window = Window { start: at(start), end: at(start + wide) };
            for window in [None, Some(&window)] {
                let due = due(life(from, from + whole), window, &id);
                prop_assert!(due.as_millisecond() <= (from + whole) * 1_000 - whole * 100);
            }
        }

        #[test]
        fn waits_are_bounded(failures: u32, whole in 0_i64..100_000_000) {
            let wait = wait(failures, Some(life(0, whole)), "a");
            prop_assert!(Duration::from_secs(1) <= wait && wait <= LONGEST_WAIT * 5 / 4);
        }
    }
}
