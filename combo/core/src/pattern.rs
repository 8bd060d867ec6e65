//! Where a mount is: an optional host and a path prefix, as a string. Parsing and normal forms
//! only; which pattern answers a request is decided by the host's router.
//!
//! | pattern | takes |
//! | --- | --- |
//! | `/` | everything |
//! | `/blog` | `/blog` and everything under `/blog/`, never `/blogger` |
//! | `admin.example.com/` | everything of one host |
//! | `*.example.com/blog` | `/blog` of every host below `example.com`, not of itself |

use std::{borrow::Cow, fmt, str::FromStr};

/// A parsed pattern, in normal form: two patterns that take the same requests are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    /// Which hosts.
    pub host: Host,
    /// The segments of the prefix, percent-encoded unreserved characters decoded. None: `/`.
    pub segments: Vec<String>,
}

/// Which hosts a pattern takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// Any.
    Any,
    /// One, in lower case, without port or trailing dot.
    Exact(String),
    /// Every host below this one: `*.example.com` is `example.com` here.
    Below(String),
}

/// What is wrong with a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It has no slash.
    NoSlash,
    /// This is not a host.
    Host(String),
    /// An empty segment, as in `/a//b`.
    EmptySegment,
    /// A `.` or `..` segment.
    DotSegment,
    /// A `*` segment.
    Star,
    /// A character that cannot stand in a path.
    Character(char),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlash => {
                f.write_str("it has no `/`; a pattern is a path prefix, with a host before it if wanted")
            }
            Self::Host(said) => {
                write!(f, "`{said}` is not a host (a name, `*.` and a name, or an address; no port)")
            }
            Self::EmptySegment => f.write_str("it has an empty segment (`//`)"),
            Self::DotSegment => f.write_str("it has a `.` or `..` segment"),
            Self::Star => {
                f.write_str("it has a `*` segment; a mount takes everything under its prefix without one")
            }
            Self::Character(c) => write!(f, "`{}` cannot stand in a path prefix", c.escape_debug()),
        }
    }
}

impl std::error::Error for Fault {}

impl FromStr for Pattern {
    type Err = Fault;

    fn from_str(said: &str) -> Result<Self, Fault> {
        let slash = said.find('/').ok_or(Fault::NoSlash)?;
        let (host, path) = said.split_at(slash);
        let mut said: Vec<&str> = path.split('/').skip(1).collect();
        // A trailing slash says nothing.
        let _ = said.pop_if(|last| last.is_empty());
        let mut segments = Vec::with_capacity(said.len());
        for said in said {
            if let Some(c) = said.chars().find(|c| !may_stand_in_segment(*c)) {
                return Err(Fault::Character(c));
            }
            match normal_segment(said) {
                segment if segment.is_empty() => return Err(Fault::EmptySegment),
                segment if segment == "." || segment == ".." => return Err(Fault::DotSegment),
                segment if segment == "*" => return Err(Fault::Star),
                segment => segments.push(segment.into_owned()),
            }
        }
        Ok(Self { host: host.parse()?, segments })
    }
}

/// `pchar` of RFC 3986, section 3.3; other characters have to be percent-encoded.
fn may_stand_in_segment(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~%!$&'()*+,;=:@".contains(c)
}

impl FromStr for Host {
    type Err = Fault;

    fn from_str(said: &str) -> Result<Self, Fault> {
        if said.is_empty() || said == "*" {
            return Ok(Self::Any);
        }
        let (below, name) = said.strip_prefix("*.").map_or((false, said), |name| (true, name));
        let name = normal_host(name);
        let bracketed = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let good = match bracketed {
            Some(address) => !below && address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                name.len() <= 253
                    && name.split('.').all(|label| {
                        !label.is_empty()
                            && label.len() <= 63
                            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                    })
            }
        };
        // What `normal_host` cuts off besides a trailing dot is a port, and a pattern has none.
        let whole = said.strip_prefix("*.").unwrap_or(said);
        if !good || whole.strip_suffix('.').unwrap_or(whole).len() != name.len() {
            return Err(Fault::Host(said.to_owned()));
        }
        Ok(if below { Self::Below(name.into_owned()) } else { Self::Exact(name.into_owned()) })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Exact(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

impl Pattern {
    /// The path prefix in normal form, or nothing for `/`.
    #[must_use]
    pub fn prefix(&self) -> String {
        self.segments.iter().flat_map(|segment| ["/", segment]).collect()
    }
}

/// Prints what parses back to the same pattern.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.fmt(f)?;
        if self.segments.is_empty() { f.write_str("/") } else { f.write_str(&self.prefix()) }
    }
}

/// A path segment with its percent-encoded unreserved characters decoded and the other escapes in
/// upper case (RFC 3986, section 6.2.2): segments that mean the same are the same text. A `%` that begins no
/// escape is `%25`, lest it begin one with what is decoded behind it.
#[must_use]
pub fn normal_segment(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    let bytes = segment.as_bytes();
    let mut normal = String::with_capacity(segment.len());
    let mut at = 0;
    while at < segment.len() {
        let escape = segment
            .get(at + 1..at + 3)
            .filter(|digits| bytes[at] == b'%' && digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match escape {
            Some(digits) => {
                match u8::from_str_radix(digits, 16).map(char::from) {
                    Ok(c) if c.is_ascii_alphanumeric() || "-._~".contains(c) => normal.push(c),
                    _ => {
                        normal.push('%');
                        normal.push_str(&digits.to_ascii_uppercase());
                    }
                }
                at += 3;
            }
            None if bytes[at] == b'%' => {
                normal.push_str("%25");
                at += 1;
            }
            None => {
                let c = segment[at..].chars().next().unwrap_or_default();
                normal.push(c);
                at += c.len_utf8();
            }
        }
    }
    Cow::Owned(normal)
}

/// A host in lower case, without port and trailing dot.
#[must_use]
pub fn normal_host(host: &str) -> Cow<'_, str> {
    let name = match host.rfind(':') {
        Some(colon) if !host.ends_with(']') => &host[..colon],
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(said: &str, printed: Result<&str, Fault>) {
        assert_eq!(said.parse::<Pattern>().map(|p| p.to_string()), printed.map(ToOwned::to_owned), "{said}");
    }

    #[test]
    fn patterns_have_one_normal_form() {
        check("/", Ok("/"));
        check("*/", Ok("/"));
        check("/blog", Ok("/blog"));
        check("/blog/", Ok("/blog"));
        check("/a/b", Ok("/a/b"));
        check("/%7Euser", Ok("/~user"));
        check("/a%2fb", Ok("/a%2Fb"));
        check("/100%", Ok("/100%25"));
        check("/%6%62log", Ok("/%256blog"));
        check("Admin.Example.COM./", Ok("admin.example.com/"));
        check("*.example.com/blog", Ok("*.example.com/blog"));
        check("[::1]/", Ok("[::1]/"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        check("", Err(Fault::NoSlash));
        check("blog", Err(Fault::NoSlash));
        check("//", Err(Fault::EmptySegment));
        check("/a//b", Err(Fault::EmptySegment));
        check("/a/../b", Err(Fault::DotSegment));
        check("/a/%2e%2E", Err(Fault::DotSegment));
        check("/a/*", Err(Fault::Star));
        check("/a/*/b", Err(Fault::Star));
        check("/a?b", Err(Fault::Character('?')));
        check("/a b", Err(Fault::Character(' ')));
        check("/é", Err(Fault::Character('é')));
        check("a.*.com/", Err(Fault::Host("a.*.com".into())));
        check("example.com:80/", Err(Fault::Host("example.com:80".into())));
        check("a..b/", Err(Fault::Host("a..b".into())));
        check("./", Err(Fault::Host(".".into())));
    }

    #[test]
    fn hosts_are_compared_without_case_port_and_dot() {
        for (host, normal) in [
            ("Example.com", "example.com"),
            ("example.com:8080", "example.com"),
            ("example.com.", "example.com"),
            ("example.com.:80", "example.com"),
            ("[::1]", "[::1]"),
            ("[::1]:80", "[::1]"),
        ] {
            assert_eq!(normal_host(host), normal);
        }
    }

    proptest! {
        #[test]
        fn printing_and_parsing_agree(said in "(\\*\\.)?[a-zA-Z.]{0,8}(/[a-z%0-9A-F.~]{0,5}){0,4}") {
            if let Ok(pattern) = said.parse::<Pattern>() {
                prop_assert_eq!(pattern.to_string().parse::<Pattern>(), Ok(pattern));
            }
        }

        #[test]
        fn a_normal_segment_stays_as_it_is(segment in "\\PC{0,12}|[%0-9a-f]{0,12}") {
            let once = normal_segment(&segment).into_owned();
            prop_assert_eq!(normal_segment(&once), once.as_str());
        }
    }
}
