//! Takes the conditions of a request and what is true of the file, gives whether it is to be sent. Pure.
//!
//! For `GET` and `HEAD` alone, in the order of RFC 9110, 13.2.2. A date in the future is not said to
//! anyone (8.8.2.1), so nobody's condition is measured by it.

use http::HeaderValue;
use http::header::{
    ACCEPT_ENCODING, HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE,
};

use super::dates;

/// What is true of the file that would be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Validators<'a> {
    /// As it would be sent.
    pub(super) tag: Option<&'a HeaderValue>,
    /// The second of it, since 1970.
    pub(super) modified: Option<u64>,
}

/// What becomes of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Proceed,
    /// The client has it: 304.
    NotModified,
    /// It is not what the client thinks: 412.
    Failed,
}

/// What a request says of the answer that it wants, found in one pass: each look-up would cost as much as that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wants<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) codings: Lines<'a>,
    pub(super) range: Lines<'a>,
    if_match: Lines<'a>,
    if_none_match: Lines<'a>,
    if_modified_since: Lines<'a>,
    if_unmodified_since: Lines<'a>,
    if_range: Lines<'a>,
}

/// The lines of a header that may stand once.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lines<'a> {
    None,
    One(&'a HeaderValue),
    Several,
}

impl<'a> Lines<'a> {
    pub(super) fn is_none(self) -> bool {
        matches!(self, Self::None)
    }

    fn add(&mut self, line: &'a HeaderValue) {
        *self = if self.is_none() { Self::One(line) } else { Self::Several };
    }

    /// What is no date, or two of them, is not there (RFC 9110, 13.1.3 and 13.1.4).
    fn date(self) -> Option<u64> {
        match self {
            Self::One(line) => dates::read(line),
            Self::None | Self::Several => None,
        }
    }
}

impl<'a> Wants<'a> {
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        let none = Lines::None;
        let mut wants = Self {
            headers,
            codings: none,
            range: none,
            if_match: none,
            if_none_match: none,
            if_modified_since: none,
            if_unmodified_since: none,
            if_range: none,
        };
        for (name, line) in headers {
            // By length first: that tells most names apart at once.
            let lines = match name.as_str().len() {
                5 if name == RANGE => &mut wants.range,
                8 if name == IF_MATCH => &mut wants.if_match,
                8 if name == IF_RANGE => &mut wants.if_range,
                13 if name == IF_NONE_MATCH => &mut wants.if_none_match,
                15 if name == ACCEPT_ENCODING => &mut wants.codings,
                17 if name == IF_MODIFIED_SINCE => &mut wants.if_modified_since,
                19 if name == IF_UNMODIFIED_SINCE => &mut wants.if_unmodified_since,
                _ => continue,
            };
            lines.add(line);
        }
        wants
    }
}

/// Whether the conditions of a request hold. `If-Range` is none of them: see [`range_holds`].
pub(super) fn judge(wants: &Wants<'_>, current: &Validators<'_>, now: Option<u64>) -> Verdict {
    if !wants.if_match.is_none() {
        if !names(wants, &IF_MATCH, wants.if_match, current.tag, is_same) {
            return Verdict::Failed;
        }
    } else if let Some(since) = wants.if_unmodified_since.date()
        && current.modified(now).is_some_and(|modified| modified > since)
    {
        return Verdict::Failed;
    }
    if !wants.if_none_match.is_none() {
        if names(wants, &IF_NONE_MATCH, wants.if_none_match, current.tag, is_alike) {
            return Verdict::NotModified;
        }
    } else if let Some(since) = wants.if_modified_since.date()
        && current.modified(now).is_some_and(|modified| modified <= since && is_over(modified, now))
    {
        return Verdict::NotModified;
    }
    Verdict::Proceed
}

/// Whether the file is still the one that the client has a part of, so that `Range` counts (RFC 9110,
/// 13.1.5). It is where nothing is said.
pub(super) fn range_holds(wants: &Wants<'_>, current: &Validators<'_>, now: Option<u64>) -> bool {
    let condition = match wants.if_range {
        Lines::None => return true,
        Lines::Several => return false,
        Lines::One(condition) => condition,
    };
    let said = condition.as_bytes().trim_ascii();
    if said.starts_with(b"\"") || said.starts_with(b"W/") {
        return matches!(tag(said), Some((_, b""))) && current.tag.is_some_and(|tag| is_same(tag, said));
    }
    let (Some(said), Some(modified)) = (dates::read(condition), current.modified(now)) else { return false };
    said == modified && is_over(modified, now)
}

/// Whether this second is over. Within it a file may change again (RFC 9110, 8.8.2.2), so its date says nothing yet.
pub(super) fn is_over(second: u64, now: Option<u64>) -> bool {
    now.is_some_and(|now| now > second)
}

impl Validators<'_> {
    fn modified(&self, now: Option<u64>) -> Option<u64> {
        self.modified.filter(|modified| now.is_some_and(|now| *modified <= now))
    }
}

/// Whether a list of entity tags names the current one; `*` alone names whatever there is. Where the list
/// becomes unreadable it ends, for what was said before was meant.
fn names(
    wants: &Wants<'_>,
    name: &HeaderName,
    lines: Lines<'_>,
    current: Option<&HeaderValue>,
    equal: impl Fn(&HeaderValue, &[u8]) -> bool,
) -> bool {
    if let Lines::One(line) = lines {
        // As a rule, what we sent comes back as it is.
        if current.is_some_and(|current| current == line && equal(current, line.as_bytes()))
            || line.as_bytes().trim_ascii() == b"*"
        {
            return true;
        }
    }
    let Some(current) = current else { return false };
    for line in wants.headers.get_all(name) {
        let mut rest = line.as_bytes();
        loop {
            rest = skip(rest, |byte| matches!(byte, b' ' | b'\t' | b','));
            if rest.is_empty() {
                break;
            }
            let Some((said, behind)) = tag(rest) else { return false };
            rest = skip(behind, |byte| matches!(byte, b' ' | b'\t'));
            if !matches!(rest.first(), None | Some(b',')) {
                return false;
            }
            if equal(current, said) {
                return true;
            }
        }
    }
    false
}

/// The entity tag at the beginning, and what is behind it (RFC 9110, 8.8.3).
fn tag(said: &[u8]) -> Option<(&[u8], &[u8])> {
    let opaque = strong_part(said).strip_prefix(b"\"")?;
    let length = opaque.iter().position(|byte| !matches!(byte, 0x21 | 0x23..=0x7e | 0x80..))?;
    if opaque[length] != b'"' {
        return None;
    }
    Some(said.split_at(said.len() - opaque.len() + length + 1))
}

/// The strong comparison (RFC 9110, 8.8.3.2): a weak tag is the same as nothing.
fn is_same(current: &HeaderValue, said: &[u8]) -> bool {
    !said.starts_with(b"W/") && current.as_bytes() == said
}

/// The weak comparison.
fn is_alike(current: &HeaderValue, said: &[u8]) -> bool {
    strong_part(current.as_bytes()) == strong_part(said)
}

fn strong_part(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

fn skip(bytes: &[u8], is_skipped: fn(u8) -> bool) -> &[u8] {
    let from = bytes.iter().position(|byte| !is_skipped(*byte)).unwrap_or(bytes.len());
    &bytes[from..]
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::*;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    /// Half a second after [`THEN`].
    fn then() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(784_111_777_500)
    }

    fn headers(said: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in said {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            let _ = headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
        }
        headers
    }

    #[track_caller]
    fn judged(said: &[(&str, &str)], tag: &str, modified: Option<SystemTime>) -> Verdict {
        let tag = (!tag.is_empty()).then(|| HeaderValue::from_str(tag).unwrap());
        let current = Validators { tag: tag.as_ref(), modified: modified.and_then(dates::seconds) };
        judge(&Wants::of(&headers(said)), &current, dates::seconds(then() + Duration::from_secs(60)))
    }

    /// One name, several lines.
    fn lines<'a>(name: &'a str, lines: &[&'a str]) -> Vec<(&'a str, &'a str)> {
        lines.iter().map(|line| (name, *line)).collect()
    }

    #[test]
    fn lists_name_entity_tags() {
        /// Whether `If-Match` and `If-None-Match` find the tag.
        #[track_caller]
        fn check(said: &[&str], tag: &str, strong: bool, weak: bool) {
            let must = judged(&lines("if-match", said), tag, Some(then()));
            assert_eq!(must == Verdict::Proceed, strong, "If-Match: {said:?} {tag}");
            let must_not = judged(&lines("if-none-match", said), tag, Some(then()));
            assert_eq!(must_not == Verdict::NotModified, weak, "If-None-Match: {said:?} {tag}");
        }
        check(&[r#""a""#], r#""a""#, true, true);
        check(&[r#" "a"	"#], r#""a""#, true, true);
        check(&[r#""b""#], r#""a""#, false, false);
        check(&[r#""A""#], r#""a""#, false, false);
        check(&[r#""""#], r#""""#, true, true);
        check(&[r#""\""#], r#""\""#, true, true);
        check(&[r#""é""#], r#""a""#, false, false);
        check(&[r#""é", "a""#], r#""a""#, true, true);
        // Weak ones.
        check(&[r#"W/"a""#], r#""a""#, false, true);
        check(&[r#""a""#], r#"W/"a""#, false, true);
        check(&[r#"W/"a""#], r#"W/"a""#, false, true);
        check(&[r#"W/"b""#], r#"W/"a""#, false, false);
        check(&[r#"W/"a", "a""#], r#""a""#, true, true);
        check(&[r#"w/"a""#], r#""a""#, false, false);
        check(&[r#"W/ "a""#], r#""a""#, false, false);
        // Lists.
        check(&[r#""b", "a""#], r#""a""#, true, true);
        check(&[r#""b","a","c""#], r#""a""#, true, true);
        check(&[r#",, "b"	,	"a" , ,"#], r#""a""#, true, true);
        check(&[r#""b""#, r#""a""#], r#""a""#, true, true);
        check(&["", r#""a""#], r#""a""#, true, true);
        check(&[r#""b""#, r#""c""#], r#""a""#, false, false);
        // A comma inside.
        check(&[r#""a,b""#], r#""a,b""#, true, true);
        check(&[r#""x,"#, r#""a""#], r#""a""#, false, false);
        check(&[r#""b,", "a""#], r#""a""#, true, true);
        check(&[r#""a,b""#], r#""a""#, false, false);
        // Whatever there is.
        check(&["*"], r#""a""#, true, true);
        check(&[" * "], r#"W/"a""#, true, true);
        check(&["*"], "", true, true);
        check(&["*", r#""b""#], r#""a""#, false, false);
        check(&[r#"*, "a""#], r#""a""#, false, false);
        check(&[r#""b", *"#], r#""a""#, false, false);
        check(&[r#""*""#], r#""a""#, false, false);
        check(&["**"], r#""a""#, false, false);
        // Nothing to compare with, or nothing said.
        check(&[r#""a""#], "", false, false);
        check(&[""], r#""a""#, false, false);
        check(&[","], r#""a""#, false, false);
        // Nonsense, and what stands before it.
        check(&["a"], r#""a""#, false, false);
        check(&["'a'"], r#""a""#, false, false);
        check(&[r#""a"#], r#""a""#, false, false);
        check(&[r#"a""#], r#""a""#, false, false);
        check(&[r#"""#], r#""a""#, false, false);
        check(&["W/"], r#""a""#, false, false);
        check(&[r#""a b", "a""#], r#""a""#, false, false);
        check(&[r#""a"x"#], r#""a""#, false, false);
        check(&[r#""a" "b""#], r#""a""#, false, false);
        check(&[r#""a"; q=1"#], r#""a""#, false, false);
        check(&[r#"b, "a""#], r#""a""#, false, false);
        check(&[r#""a", b"#], r#""a""#, true, true);
        check(&[r#""b", c"#, r#""a""#], r#""a""#, false, false);
    }

    #[test]
    fn long_lists_are_read_to_their_end() {
        let long = format!("{}\"a\"", "\"b\",, ".repeat(10_000));
        assert_eq!(judged(&[("if-none-match", &long)], "\"a\"", None), Verdict::NotModified);
        assert_eq!(judged(&[("if-none-match", &long)], "\"c\"", None), Verdict::Proceed);
    }

    #[test]
    fn dates_are_compared_in_seconds() {
        /// What `If-Modified-Since` and `If-Unmodified-Since` say of a file from [`then`].
        #[track_caller]
        fn check(said: &[&str], modified: Verdict, unmodified: Verdict) {
            let names = [("if-modified-since", modified), ("if-unmodified-since", unmodified)];
            for (name, expected) in names {
                assert_eq!(judged(&lines(name, said), "\"a\"", Some(then())), expected, "{name}: {said:?}");
            }
        }
        use Verdict::{Failed, NotModified, Proceed};
        check(&[THEN], NotModified, Proceed);
        check(&[AFTER], NotModified, Proceed);
        check(&[BEFORE], Proceed, Failed);
        check(&["Sunday, 06-Nov-94 08:49:37 GMT"], NotModified, Proceed);
        check(&["Sun Nov  6 08:49:37 1994"], NotModified, Proceed);
        check(&["Sun Nov  6 08:49:36 1994"], Proceed, Failed);
        // As if not there.
        check(&[THEN, THEN], Proceed, Proceed);
        check(&[BEFORE, BEFORE], Proceed, Proceed);
        check(&["Sun, 06 Nov 1994 08:49:36 GMT, Sun, 06 Nov 1994 08:49:36 GMT"], Proceed, Proceed);
        check(&[""], Proceed, Proceed);
        check(&["0"], Proceed, Proceed);
        check(&["Sun, 06 Nov 1994 08:49:36"], Proceed, Proceed);
        check(&["\"a\""], Proceed, Proceed);
        check(&["*"], Proceed, Proceed);
    }

    #[test]
    fn a_file_without_a_date_meets_no_date() {
        let times = [
            None,
            // In the future, by a second.
            Some(then() + Duration::from_secs(61)),
            UNIX_EPOCH.checked_sub(Duration::from_secs(1)),
            UNIX_EPOCH.checked_add(Duration::from_secs(1 << 60)),
        ];
        for modified in times {
            for name in ["if-modified-since", "if-unmodified-since"] {
                for date in [BEFORE, "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"] {
                    let verdict = judged(&[(name, date)], "\"a\"", modified);
                    assert_eq!(verdict, Verdict::Proceed, "{name}: {date}, {modified:?}");
                }
            }
        }
        // Now is not the future, whatever the fractions say.
        let now = then() + Duration::from_secs(60) + Duration::from_millis(400);
        assert_eq!(judged(&[("if-unmodified-since", THEN)], "", Some(now)), Verdict::Failed);
    }

    #[test]
    fn nothing_is_unchanged_by_the_date_of_a_second_that_is_not_over() {
        for (milliseconds, expected) in
            [(0, Verdict::Proceed), (100, Verdict::Proceed), (1_000, Verdict::NotModified)]
        {
            let current = Validators { tag: None, modified: dates::seconds(then()) };
            let now = dates::seconds(then() + Duration::from_millis(milliseconds));
            let verdict = judge(&Wants::of(&headers(&[("if-modified-since", THEN)])), &current, now);
            assert_eq!(verdict, expected, "{milliseconds} ms later");
        }
    }

    #[test]
    fn tags_go_before_dates() {
        #[track_caller]
        fn check(said: &[(&str, &str)], expected: Verdict) {
            assert_eq!(judged(said, "\"a\"", Some(then())), expected, "{said:?}");
        }
        let (yes, no) = ("\"a\"", "\"b\"");
        let (must, must_not) = ("if-match", "if-none-match");
        let (since, not_since) = ("if-modified-since", "if-unmodified-since");
        check(&[], Verdict::Proceed);
        check(&[("range", "bytes=0-"), ("if-range", no)], Verdict::Proceed);
        // `If-Match` before `If-Unmodified-Since`, whatever it says.
        check(&[(must, yes), (not_since, BEFORE)], Verdict::Proceed);
        check(&[(must, no), (not_since, THEN)], Verdict::Failed);
        check(&[(must, "nonsense"), (not_since, THEN)], Verdict::Failed);
        // `If-None-Match` before `If-Modified-Since`.
        check(&[(must_not, yes), (since, BEFORE)], Verdict::NotModified);
        check(&[(must_not, no), (since, THEN)], Verdict::Proceed);
        check(&[(must_not, "nonsense"), (since, THEN)], Verdict::Proceed);
        // What fails comes before what has not changed.
        check(&[(must, yes), (must_not, yes)], Verdict::NotModified);
        check(&[(must, no), (must_not, yes)], Verdict::Failed);
        check(&[(must, yes), (must_not, no)], Verdict::Proceed);
        check(&[(must, yes), (since, THEN)], Verdict::NotModified);
        check(&[(not_since, BEFORE), (must_not, yes)], Verdict::Failed);
        check(&[(not_since, THEN), (must_not, yes)], Verdict::NotModified);
        check(&[(not_since, BEFORE), (since, THEN)], Verdict::Failed);
        check(&[(not_since, THEN), (since, THEN)], Verdict::NotModified);
        check(&[(not_since, THEN), (since, BEFORE)], Verdict::Proceed);
        check(&[(must, "*"), (must_not, "*")], Verdict::NotModified);
    }

    #[test]
    fn a_part_is_sent_of_the_same_file_only() {
        /// Of a file from [`then`], so many seconds later.
        #[track_caller]
        fn check(said: &[&str], tag: &str, later: u64, expected: bool) {
            let tag = (!tag.is_empty()).then(|| HeaderValue::from_str(tag).unwrap());
            let current = Validators { tag: tag.as_ref(), modified: dates::seconds(then()) };
            let holds = range_holds(
                &Wants::of(&headers(&lines("if-range", said))),
                &current,
                dates::seconds(then() + Duration::from_secs(later)),
            );
            assert_eq!(holds, expected, "{said:?} {tag:?}, {later} s later");
        }
        check(&[], "\"a\"", 60, true);
        check(&["\"a\""], "\"a\"", 60, true);
        check(&[" \"a\" "], "\"a\"", 0, true);
        check(&["\"b\""], "\"a\"", 60, false);
        check(&["\"a\""], "", 60, false);
        // Strong on both sides.
        check(&["W/\"a\""], "\"a\"", 60, false);
        check(&["\"a\""], "W/\"a\"", 60, false);
        check(&["W/\"a\""], "W/\"a\"", 60, false);
        // One condition.
        check(&["\"a\"", "\"a\""], "\"a\"", 60, false);
        check(&["\"a\", \"b\""], "\"a\"", 60, false);
        check(&["\"a\",\"a\""], "\"a\"", 60, false);
        check(&["*"], "\"a\"", 60, false);
        check(&[""], "\"a\"", 60, false);
        check(&["a"], "\"a\"", 60, false);
        check(&["\"a"], "\"a\"", 60, false);
        // A date: exactly it, and long enough ago.
        check(&[THEN], "\"a\"", 60, true);
        check(&[THEN], "", 1, true);
        check(&[THEN], "", 0, false);
        check(&["Sunday, 06-Nov-94 08:49:37 GMT"], "", 60, true);
        check(&["Sun Nov  6 08:49:37 1994"], "", 60, true);
        check(&[BEFORE], "\"a\"", 60, false);
        check(&[AFTER], "\"a\"", 60, false);
        check(&["Fri, 31 Dec 9999 23:59:59 GMT"], "", 60, false);
        check(&[THEN, THEN], "", 60, false);
        check(&["Sun, 06 Nov 1994 08:49:37"], "", 60, false);
    }

    #[test]
    fn the_date_of_a_part_is_one_that_was_said() {
        let headers = headers(&[("if-range", THEN)]);
        let holds = |modified: Option<SystemTime>, now| {
            let current = Validators { tag: None, modified: modified.and_then(dates::seconds) };
            range_holds(&Wants::of(&headers), &current, dates::seconds(now))
        };
        assert!(holds(Some(then()), then() + Duration::from_secs(1)));
        assert!(!holds(None, then() + Duration::from_secs(60)));
        // From the future.
        assert!(!holds(Some(then()), then() - Duration::from_secs(60)));
    }
}
