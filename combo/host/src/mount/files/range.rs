//! Takes `Range` and `If-Range`, gives the one part of the file that is to be served. Pure.
//!
//! What we do not serve in parts (another unit, several ranges, nonsense, an empty file) is served
//! whole, as RFC 9110, 14.2 allows: never an answer longer than the file.

use http::HeaderValue;
use http::header::{ETAG, HeaderMap, LAST_MODIFIED};

/// The part of a file of `len` bytes that `range` asks for, written out; none is the whole file.
/// A part that lies behind the end is kept, for it is answered with 416.
pub(crate) fn part(range: &HeaderValue, len: u64) -> Option<HeaderValue> {
    let (unit, ranges) = range.to_str().ok()?.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || len == 0 {
        return None;
    }
    let (first, last) = match ranges.trim().split_once('-')? {
        ("", suffix) => (len - number(suffix)?.min(len), len - 1),
        (first, "") => (number(first)?, len - 1),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return None;
            }
            (first, last.min(len - 1))
        }
    };
    let part = if first < len { format!("bytes={first}-{last}") } else { format!("bytes={len}-") };
    HeaderValue::try_from(part).ok()
}

/// Whether the condition of an `If-Range` names exactly what is in `current`: a strong entity tag or
/// the date, both compared letter by letter.
pub(super) fn same(condition: &HeaderValue, current: &HeaderMap) -> bool {
    let name = if condition.as_bytes().ends_with(b"\"") { ETAG } else { LAST_MODIFIED };
    current.get(name) == Some(condition)
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
    use super::*;

    #[test]
    fn only_one_part_is_a_part() {
        #[track_caller]
        fn check(range: &str, len: u64, expected: Option<&str>) {
            let part = part(&HeaderValue::from_str(range).unwrap(), len);
            assert_eq!(part.as_ref().map(|part| part.to_str().unwrap()), expected, "{range} of {len}");
        }
        check("bytes=0-0", 10, Some("bytes=0-0"));
        check("bytes=2-5", 10, Some("bytes=2-5"));
        check("bytes=2-", 10, Some("bytes=2-9"));
        check("bytes=-3", 10, Some("bytes=7-9"));
        check("bytes=-30", 10, Some("bytes=0-9"));
        check("bytes=5-30", 10, Some("bytes=5-9"));
        check("Bytes = 002-5 ", 10, Some("bytes=2-5"));
        check("bytes=5-99999999999999999999999", 10, Some("bytes=5-9"));
        check("bytes=-99999999999999999999999", 10, Some("bytes=0-9"));
        // Behind the end.
        check("bytes=10-", 10, Some("bytes=10-"));
        check("bytes=10-12", 10, Some("bytes=10-"));
        check("bytes=-0", 10, Some("bytes=10-"));
        check("bytes=99999999999999999999999-", 10, Some("bytes=10-"));
        // Whole.
        check("bytes=0-0", 0, None);
        check("bytes=-5", 0, None);
        check("items=0-1", 10, None);
        check("bytes", 10, None);
        check("bytes=", 10, None);
        check("bytes=-", 10, None);
        check("bytes=5-2", 10, None);
        check("bytes=a-b", 10, None);
        check("bytes=+1-2", 10, None);
        check("bytes=1--2", 10, None);
        check("bytes=0-0,2-3", 10, None);
        check("bytes=0-0,", 10, None);
        check("", 10, None);
    }

    #[test]
    fn if_range_is_exact() {
        #[track_caller]
        fn check(condition: &str, expected: bool) {
            let mut current = HeaderMap::new();
            let _ = current.insert(ETAG, HeaderValue::from_static("\"a-1\""));
            let _ = current.insert(LAST_MODIFIED, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
            assert_eq!(same(&HeaderValue::from_str(condition).unwrap(), &current), expected, "{condition}");
        }
        check("\"a-1\"", true);
        check("W/\"a-1\"", false);
        check("\"a-2\"", false);
        check("\"a-1\", \"a-2\"", false);
        check("Sun, 06 Nov 1994 08:49:37 GMT", true);
        check("Sun, 06 Nov 1994 08:49:38 GMT", false);
        check("Sun, 06 Nov 1994 08:49:36 GMT", false);
        check("Sunday, 06-Nov-94 08:49:37 GMT", false);
        check("a-1", false);
        check("*", false);
        check("", false);
        let empty = HeaderMap::new();
        assert!(!same(&HeaderValue::from_static("\"a-1\""), &empty));
    }
}
