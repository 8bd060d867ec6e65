//! Takes times, gives them as HTTP dates, and back. Pure.
//!
//! A date of HTTP has whole seconds from 1970 to 9999; a time outside of them has none.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

/// The first second of the year 10000.
const END: u64 = 253_402_300_800;

/// Seconds since 1970, of a time that can be said as a date.
pub(super) fn seconds(time: SystemTime) -> Option<u64> {
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    (seconds < END).then_some(seconds)
}

/// The same of a file's time.
pub(super) fn second(since: i64) -> Option<u64> {
    u64::try_from(since).ok().filter(|seconds| *seconds < END)
}

/// As `Last-Modified` has it (RFC 9110, 5.6.7).
pub(super) fn written(time: SystemTime) -> Option<String> {
    // `httpdate` panics at what it cannot say.
    let seconds = seconds(time)?;
    Some(httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds)))
}

/// Seconds since 1970, of a date in any of the three forms.
pub(super) fn read(value: &HeaderValue) -> Option<u64> {
    seconds(httpdate::parse_http_date(value.to_str().ok()?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_where_there_is_one() {
        #[track_caller]
        fn check(time: Option<SystemTime>, expected: Option<&str>) {
            assert_eq!(written(time.unwrap()).as_deref(), expected);
        }
        let after = |duration| UNIX_EPOCH.checked_add(duration);
        check(after(Duration::ZERO), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
        check(after(Duration::from_millis(784_111_777_999)), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        check(after(Duration::from_secs(END - 1)), Some("Fri, 31 Dec 9999 23:59:59 GMT"));
        check(after(Duration::from_secs(END)), None);
        check(after(Duration::from_secs(1 << 62)), None);
        check(UNIX_EPOCH.checked_sub(Duration::from_nanos(1)), None);
    }

    #[test]
    fn dates_are_read_in_three_forms() {
        #[track_caller]
        fn check(said: &[u8], expected: Option<u64>) {
            let value = HeaderValue::from_bytes(said).unwrap();
            assert_eq!(read(&value), expected, "{value:?}");
        }
        check(b"Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777));
        check(b"Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777));
        check(b"Sun Nov  6 08:49:37 1994", Some(784_111_777));
        check(b"Thu, 01 Jan 1970 00:00:00 GMT", Some(0));
        check(b"Fri, 31 Dec 9999 23:59:59 GMT", Some(END - 1));
        check(b"", None);
        check(b"0", None);
        check(b"yesterday", None);
        check(b"Sun, 06 Nov 1994 08:49:37", None);
        check(b"Sun, 06 Nov 1994 08:49:37 CET", None);
        check(b"Sun, 31 Feb 1994 08:49:37 GMT", None);
        check(b"Sun, 06 Nov 1969 08:49:37 GMT", None);
        check(b"1994-11-06T08:49:37Z", None);
        check(b"Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT", None);
        check(b"Sun, 06 N\xf6v 1994 08:49:37 GMT", None);
    }
}
