//! Takes the path of a request, gives where it leads below the root, or nothing. Pure.
//!
//! Every segment is percent-decoded exactly once. What could mean something else to a disk, a
//! browser or another server (`..`, `\`, an encoded `/`, NUL) leads nowhere, like everything hidden.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// What is not said in a URL as it is; browsers take a backslash for a slash.
const SAID: &AsciiSet = &CONTROLS.add(b'\\');

/// The one hidden folder that is public (RFC 8615).
const WELL_KNOWN: &str = ".well-known";

/// A place below the root.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    /// Decoded, relative, without empty segments; empty for the root itself.
    pub(crate) path: Cow<'a, str>,
    /// Ended in `/`.
    pub(crate) folder: bool,
}

/// Where the path of a URI leads. Repeated slashes count as one.
pub(crate) fn place(raw: &str) -> Option<Place<'_>> {
    let folder = raw.ends_with('/');
    if is_plain(raw) {
        let path = raw.strip_prefix('/')?;
        return Some(Place { path: path.strip_suffix('/').unwrap_or(path).into(), folder });
    }
    let mut path = String::with_capacity(raw.len());
    for segment in raw.strip_prefix('/')?.split('/').filter(|segment| !segment.is_empty()) {
        let segment = percent_decode_str(segment).decode_utf8().ok()?;
        if !is_public(&segment) {
            return None;
        }
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(&segment);
    }
    Some(Place { path: path.into(), folder })
}

/// Whether a path says where it leads as it is, which most do: nothing is decoded, left out or hidden.
fn is_plain(raw: &str) -> bool {
    let mut before = 0;
    raw.bytes().all(|byte| {
        let begins = std::mem::replace(&mut before, byte) == b'/';
        !(matches!(byte, b'%' | b'\\' | 0) || begins && matches!(byte, b'/' | b'.'))
    })
}

/// Whether something of this name is served.
pub(super) fn is_public(segment: &str) -> bool {
    !segment.contains(['/', '\\', '\0']) && (!segment.starts_with('.') || segment == WELL_KNOWN)
}

/// A name in a folder, both relative; the root is the empty one.
pub(super) fn joined(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Prefix, path and query with a slash after the path; never two slashes in a row, so never
/// another host.
pub(crate) fn with_slash(prefix: &str, path: &str, query: Option<&str>) -> String {
    let mut location = String::with_capacity(prefix.len() + path.len() + 2);
    for segment in prefix.split('/').chain(path.split('/')).filter(|segment| !segment.is_empty()) {
        location.push('/');
        location.extend(utf8_percent_encode(segment, SAID));
    }
    location.push('/');
    if let Some(query) = query {
        location.push('?');
        location.extend(utf8_percent_encode(query, SAID));
    }
    location
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_once_or_lead_nowhere() {
        #[track_caller]
        fn check(raw: &str, expected: Option<(&str, bool)>) {
            let place = place(raw);
            let place = place.as_ref().map(|place| (&*place.path, place.folder));
            assert_eq!(place, expected, "{raw}");
        }
        check("/", Some(("", true)));
        check("/a.txt", Some(("a.txt", false)));
        check("/a/b/", Some(("a/b", true)));
        check("//a///b", Some(("a/b", false)));
        check("///", Some(("", true)));
        check("/a%20b", Some(("a b", false)));
        check("/%61", Some(("a", false)));
        check("/%E2%82%AC", Some(("€", false)));
        check("/€", Some(("€", false)));
        check("/a..b/c.", Some(("a..b/c.", false)));
        check("/.well-known/x", Some((".well-known/x", false)));
        check("/%2ewell-known/x", Some((".well-known/x", false)));
        // Once: what is left is a plain, if odd, name.
        check("/%252e%252e/x", Some(("%2e%2e/x", false)));
        check("/a%252fb", Some(("a%2fb", false)));
        check("/%zz%4", Some(("%zz%4", false)));

        check("", None);
        check("*", None);
        check("a", None);
        check("/..", None);
        check("/../a", None);
        check("/a/..", None);
        check("/a/../b", None);
        check("/./a", None);
        check("/%2e%2e/a", None);
        check("/.%2E/a", None);
        check("/...", None);
        check("/.env", None);
        check("/%2eenv", None);
        check("/.git/config", None);
        check("/a/.git/config", None);
        check("/.well-known/.secret", None);
        check("/.well-knownx", None);
        check("/a%2fb", None);
        check("/a%2F..%2Fb", None);
        check("/%2f", None);
        check("/a\\b", None);
        check("/a%5cb", None);
        check("/..%5c..%5ca", None);
        check("/\\evil.example", None);
        check("/a%00", None);
        check("/a%00.txt", None);
        check("/%ff", None);
        check("/%c0%ae%c0%ae/a", None);
    }

    #[test]
    fn redirects_stay_on_this_host() {
        #[track_caller]
        fn check(prefix: &str, path: &str, query: Option<&str>, expected: &str) {
            assert_eq!(with_slash(prefix, path, query), expected);
        }
        check("", "/a", None, "/a/");
        check("/blog", "/a", None, "/blog/a/");
        check("/blog/", "/a", None, "/blog/a/");
        check("/", "/a", None, "/a/");
        check("", "//evil.example", None, "/evil.example/");
        check("", "////evil.example//b", None, "/evil.example/b/");
        check("//x", "/a", None, "/x/a/");
        check("/\\evil.example", "/a", None, "/%5Cevil.example/a/");
        check("/b", "/a%20b", Some("c=%2f&d//e"), "/b/a%20b/?c=%2f&d//e");
        check("", "/a", Some(""), "/a/?");
        check("", "/€", Some("€"), "/%E2%82%AC/?%E2%82%AC");
    }
}
