//! Takes `Range` and the length of a file, gives the parts of it that are to be sent. Pure.
//!
//! What cannot be read, or would be more than the file, is answered with all of it, as RFC 9110, 14.2
//! allows: however many ranges are asked for, there are never more than [`MOST`] parts, and no byte is in two
//! of them. Reading them takes one pass and no memory that grows with the header.

/// Ranges in one request; whoever asks for more is sent the whole file.
pub(crate) const MOST: usize = 64;

/// Bytes that the head of a part has at least: parts that lie closer together are one.
const HEAD: u64 = 80;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// All of it, for there is no range to be kept.
    Whole,
    /// Nothing that is there: 416.
    Unsatisfiable,
    /// One part.
    One(Part),
    /// Two to [`MOST`] parts, far enough apart, and with the least heads shorter than the file.
    Several(Vec<Part>),
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Offset of its first byte.
    pub(crate) first: u64,
    /// Offset of its last byte, within the file and not before the first.
    pub(crate) last: u64,
}

impl Part {
    /// Bytes in it, at least one.
    pub(crate) fn len(self) -> u64 {
        self.last - self.first + 1
    }
}

/// What the value of `Range` asks for of a file of `len` bytes (RFC 9110, 14.1.2 and 14.2).
pub(crate) fn asked(range: &str, len: u64) -> Asked {
    let Some((unit, specs)) = range.trim_matches(OWS).split_once('=') else { return Asked::Whole };
    if !unit.trim_end_matches(OWS).eq_ignore_ascii_case("bytes") || len == 0 {
        return Asked::Whole;
    }
    let mut parts = [Part { first: 0, last: 0 }; MOST];
    let (mut said, mut there) = (0, 0);
    for spec in specs.split(',').map(|spec| spec.trim_matches(OWS)).filter(|spec| !spec.is_empty()) {
        said += 1;
        let Some(spec) = Spec::read(spec).filter(|_| said <= MOST) else { return Asked::Whole };
        if let Some(part) = spec.of(len) {
            parts[there] = part;
            there += 1;
        }
    }
    match (said, &parts[..there]) {
        (0, _) => Asked::Whole,
        (_, []) => Asked::Unsatisfiable,
        (1, [part]) => Asked::One(*part),
        (_, parts) => several(parts, len),
    }
}

const OWS: [char; 2] = [' ', '\t'];

/// As it is said, without knowing how long the file is.
enum Spec {
    Between(u64, u64),
    From(u64),
    Last(u64),
}

impl Spec {
    fn read(spec: &str) -> Option<Self> {
        match spec.split_once('-')? {
            ("", last) => Some(Self::Last(number(last)?)),
            (first, "") => Some(Self::From(number(first)?)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::Between(first, last))
            }
        }
    }

    /// Nothing where it lies behind the end.
    fn of(self, len: u64) -> Option<Part> {
        let end = len.checked_sub(1)?;
        let (first, last) = match self {
            Self::Between(first, last) => (first, last.min(end)),
            Self::From(first) => (first, end),
            Self::Last(count) => (len.saturating_sub(count), end),
        };
        (first < len).then_some(Part { first, last })
    }
}

/// Parts as they were asked for, unless some lie so close that they are one: then from the beginning.
fn several(parts: &[Part], len: u64) -> Asked {
    let mut ascending = [Part { first: 0, last: 0 }; MOST];
    let ascending = &mut ascending[..parts.len()];
    ascending.copy_from_slice(parts);
    ascending.sort_unstable_by_key(|part| part.first);
    let mut kept = 0;
    for next in 1..ascending.len() {
        let Part { first, last } = ascending[next];
        if first.saturating_sub(ascending[kept].last + 1) < HEAD {
            ascending[kept].last = ascending[kept].last.max(last);
        } else {
            kept += 1;
            ascending[kept] = Part { first, last };
        }
    }
    let together = &ascending[..=kept];
    let heads = if kept == 0 { 0 } else { HEAD * together.len() as u64 };
    let total = together.iter().fold(heads, |total, part| total.saturating_add(part.len()));
    match together {
        _ if total >= len => Asked::Whole,
        [part] => Asked::One(*part),
        _ if together.len() == parts.len() => Asked::Several(parts.to_vec()),
        _ => Asked::Several(together.to_vec()),
    }
}

/// Digits only; more than fit are as many as fit.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is asked for, written down.
    fn said(range: &str, len: u64) -> String {
        let one = |part: &Part| format!("{}-{}", part.first, part.last);
        match asked(range, len) {
            Asked::Whole => "whole".into(),
            Asked::Unsatisfiable => "nothing".into(),
            Asked::One(part) => one(&part),
            Asked::Several(parts) => parts.iter().map(one).collect::<Vec<_>>().join(","),
        }
    }

    #[track_caller]
    fn check(range: &str, len: u64, expected: &str) {
        assert_eq!(said(range, len), expected, "{range} of {len}");
    }

    #[test]
    fn one_range_is_one_part() {
        check("bytes=0-0", 10, "0-0");
        check("bytes=2-5", 10, "2-5");
        check("bytes=2-", 10, "2-9");
        check("bytes=-3", 10, "7-9");
        check("bytes=9-", 10, "9-9");
        check("bytes=-1", 1, "0-0");
        // More than there is; also if it is all there is.
        check("bytes=5-30", 10, "5-9");
        check("bytes=-30", 10, "0-9");
        check("bytes=0-", 10, "0-9");
        check("bytes=0-9", 10, "0-9");
        // Written oddly.
        check("BYTES=2-5", 10, "2-5");
        check(" bytes = 002-5 ", 10, "2-5");
        check("bytes=\t2-5\t", 10, "2-5");
        check("bytes=,2-5, ,", 10, "2-5");
        // Behind the end.
        check("bytes=10-", 10, "nothing");
        check("bytes=10-12", 10, "nothing");
        check("bytes=-0", 10, "nothing");
    }

    #[test]
    fn numbers_are_as_many_as_fit() {
        const MAX: u64 = u64::MAX;
        check("bytes=5-99999999999999999999999", 10, "5-9");
        check("bytes=-99999999999999999999999", 10, "0-9");
        check("bytes=99999999999999999999999-", 10, "nothing");
        check("bytes=0-18446744073709551615", MAX, "0-18446744073709551614");
        check("bytes=-18446744073709551615", MAX, "0-18446744073709551614");
        check(
            "bytes=18446744073709551614-18446744073709551615",
            MAX,
            "18446744073709551614-18446744073709551614",
        );
        check("bytes=18446744073709551615-", MAX, "nothing");
        check("bytes=99999999999999999999999-5", 10, "whole");
        check(&format!("bytes={}2-{}5", "0".repeat(30_000), "0".repeat(30_000)), 10, "2-5");
        check("bytes=0-0,-1", MAX, "0-0,18446744073709551614-18446744073709551614");
        check("bytes=0-18446744073709551613,-1", MAX, "whole");
    }

    #[test]
    fn what_cannot_be_read_is_the_whole_file() {
        for range in [
            "",
            "=",
            "bytes",
            "bytes=",
            "bytes= ",
            "bytes=,",
            "bytes=, ,",
            "bytes=-",
            "bytes=--",
            "bytes=5",
            "bytes=5-2",
            "bytes=a-b",
            "bytes=a-",
            "bytes=-a",
            "bytes=+1-2",
            "bytes=1-+2",
            "bytes=1--2",
            "bytes=--1",
            "bytes=-1-2",
            "bytes=1-2-3",
            "bytes=1 -2",
            "bytes=1- 2",
            "bytes=- 2",
            "bytes=0x1-2",
            "bytes=1.0-2",
            "bytes=1-2;3-4",
            "bytes=1-2 3-4",
            "bytes=*",
            "bytes=１-２",
            "bytes:1-2",
            "bytes 1-2",
            "byte=1-2",
            "items=1-2",
            "none",
            "bytes=bytes=1-2",
            "bytes=1-2/10",
            "=1-2",
            "bytes=\u{a0}1-2",
            // One of several is enough.
            "bytes=1-2,x",
            "bytes=x,1-2",
            "bytes=1-2,5-2",
            "bytes=1-2,-",
            "bytes=1-2, bytes=3-4",
            "bytes=99-,x",
            "bytes=1-2\n,3-4",
        ] {
            check(range, 1000, "whole");
        }
        for range in ["bytes=0-", "bytes=0-0", "bytes=-5", "bytes=-0", "bytes=0-0,5-"] {
            check(range, 0, "whole");
        }
    }

    #[test]
    fn several_ranges_are_several_parts() {
        check("bytes=0-9,500-509", 1000, "0-9,500-509");
        check("bytes=0-9, ,500-509,", 1000, "0-9,500-509");
        check("bytes=0-9\t,\t-10", 1000, "0-9,990-999");
        check("bytes=900-,0-9", 1000, "900-999,0-9");
        check("bytes=500-509,900-909,0-9", 1000, "500-509,900-909,0-9");
        // Those that are not there are not sent.
        check("bytes=5000-,0-9,500-509", 1000, "0-9,500-509");
        check("bytes=0-9,1000-", 1000, "0-9");
        check("bytes=-0,0-9,1000-2000", 1000, "0-9");
        check("bytes=1000-,-0", 1000, "nothing");
    }

    #[test]
    fn what_lies_close_together_is_one_part() {
        // They overlap.
        check("bytes=0-9,5-19", 1000, "0-19");
        check("bytes=5-19,0-9", 1000, "0-19");
        check("bytes=0-99,10-19", 1000, "0-99");
        check("bytes=10-19,0-99,500-509", 1000, "0-99,500-509");
        check("bytes=3-5,3-5", 1000, "3-5");
        check("bytes=500-,-100", 1000, "500-999");
        // They touch.
        check("bytes=10-19,0-9", 1000, "0-19");
        // A head is longer than what lies between.
        check("bytes=0-9,89-99", 1000, "0-99");
        check("bytes=0-9,90-99", 1000, "0-9,90-99");
        // Order is kept if nothing had to be put together.
        check("bytes=900-909,0-9", 1000, "900-909,0-9");
        check("bytes=900-909,0-9,10-19", 1000, "0-19,900-909");
        check("bytes=900-909,500-509,0-9,490-499", 1000, "0-9,490-509,900-909");
        check("bytes=0-9,50-59,100-109,150-159,300-309", 1000, "0-159,300-309");
    }

    #[test]
    fn parts_are_never_more_than_the_file() {
        check("bytes=0-,0-", 10, "whole");
        check("bytes=0-4,5-9", 10, "whole");
        check("bytes=0-0,9-9", 10, "whole");
        check("bytes=0-0,-1", 10, "whole");
        check("bytes=0-9,1000-", 10, "whole");
        check("bytes=0-499,500-999", 1000, "whole");
        check("bytes=1-499,500-999", 1000, "1-999");
        check("bytes=0-449,550-999", 1000, "whole");
        check("bytes=0-400,561-999", 1000, "whole");
        check("bytes=0-400,562-999", 1000, "0-400,562-999");
    }

    #[test]
    fn bombs_are_the_whole_file() {
        let list = |count: u64, step: u64| {
            let specs: Vec<_> = (0..count).map(|at| format!("{}-{}", at * step, at * step)).collect();
            format!("bytes={}", specs.join(","))
        };
        let len = 1 << 20;
        assert_eq!(said(&list(64, 1000), len).split(',').count(), 64);
        check(&list(65, 1000), len, "whole");
        check(&list(64, 81), len, &list(64, 81)[6..]);
        check(&list(64, 80), len, "0-5040");
        check(&format!("bytes={}", ["0-"; 64].join(",")), len, "whole");
        check(&format!("bytes={}", ["1-"; 64].join(",")), len, "1-1048575");
        check(&format!("bytes={}", ["0-0"; 5000].join(",")), len, "whole");
        check(&format!("bytes={}", ["9999999-"; 65].join(",")), len, "whole");
        check(&format!("bytes={}", ["9999999-"; 64].join(",")), len, "nothing");
        check(&format!("bytes={}1-2", ", ".repeat(30_000)), len, "1-2");
        check(&format!("bytes={}", "-".repeat(60_000)), len, "whole");
    }

    #[test]
    fn parts_lie_within_the_file_and_apart() {
        for (len, range) in [
            (1000, "bytes=-100,0-9,300-400"),
            (1000, "bytes=0-9,100-109,200-209,300-309,400-409,500-509"),
            (300, "bytes=0-0,200-"),
            (u64::MAX, "bytes=-1,0-0,1000-1000,18446744073709551000-18446744073709551001"),
        ] {
            let Asked::Several(mut parts) = asked(range, len) else { panic!("{range} of {len}") };
            parts.sort_by_key(|part| part.first);
            assert!(parts.windows(2).all(|two| two[0].last + HEAD < two[1].first), "{range} of {len}");
            assert!(parts.iter().map(|part| part.len() + HEAD).sum::<u64>() < len, "{range} of {len}");
        }
    }

    proptest! {
        /// Every byte that was asked for is in one part, and all parts are what would be sent again.
        #[test]
        fn parts_have_what_was_asked_for(
            len in 1..2000_u64,
            specs in prop::collection::vec((0..2200_u64, prop::option::of(0..300_u64), any::<bool>()), 1..70),
        ) {
            let specs: Vec<_> = specs
                .into_iter()
                .map(|(first, count, is_last)| match count {
                    Some(count) if is_last => format!("-{count}"),
                    Some(count) => format!("{first}-{}", first + count),
                    None => format!("{first}-"),
                })
                .collect();
            let range = format!("bytes={}", specs.join(","));
            let parts = match asked(&range, len) {
                Asked::Whole => {
                    prop_assert!(specs.len() > 1);
                    return Ok(());
                }
                Asked::Unsatisfiable => vec![],
                Asked::One(part) => vec![part],
                Asked::Several(parts) => parts,
            };
            let within = |part: &Part, byte: u64| part.first <= byte && byte <= part.last;
            for spec in &specs {
                if let Asked::One(part) = asked(&format!("bytes={spec}"), len) {
                    let homes = parts.iter().filter(|home| within(home, part.first) && within(home, part.last));
                    prop_assert_eq!(homes.count(), 1, "{} in {:?}", spec, parts);
                }
            }
            let mut ascending = parts.clone();
            ascending.sort_by_key(|part| part.first);
            prop_assert!(ascending.windows(2).all(|two| two[0].last + HEAD < two[1].first));
            prop_assert!(parts.len() <= MOST && parts.iter().all(|part| part.first <= part.last && part.last < len));
            prop_assert!(parts.len() < 2 || parts.iter().map(|part| part.len() + HEAD).sum::<u64>() < len);
        }
    }
}
