//! names of files and certificates -> which certificate is for a host. Pure.
//!
//! A certificate is for the host that its file is named after and for those in it. Of several for one host, what
//! is both comes first, then what the certificate says, then what only the file says (RFC 9525, section 6.3, has a
//! wildcard stand for one label); of equals the one that expires later. An exact name comes before a wildcard.

use std::collections::{HashMap, hash_map::Entry};

/// What a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Name {
    /// Whoever names no host, and hosts that there is no other for.
    Default,
    /// This host.
    Exact(Box<str>),
    /// Every host one label below this one.
    Below(Box<str>),
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("DEFAULT"),
            Self::Exact(host) => f.write_str(host),
            Self::Below(host) => write!(f, "*.{host}"),
        }
    }
}

impl Name {
    /// What a file or a folder is named after, without its ending: `example.com`, `_.example.com`, `DEFAULT`.
    pub(crate) fn of_file(stem: &str) -> Option<Self> {
        match stem.strip_prefix("_.") {
            _ if stem == "DEFAULT" => Some(Self::Default),
            Some(below) => Some(Self::Below(host(below)?)),
            None => Some(Self::Exact(host(stem)?)),
        }
    }

    /// What stands in a certificate: `example.com`, `*.example.com`.
    pub(crate) fn in_certificate(name: &str) -> Option<Self> {
        match name.strip_prefix("*.") {
            Some(below) => Some(Self::Below(host(below)?)),
            None => Some(Self::Exact(host(name)?)),
        }
    }

    /// Whether whoever has this name may show a certificate for the other: the same, or a wildcard for a host.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Below(below), Self::Exact(host)) => above(host) == Some(below),
            _ => self == other,
        }
    }
}

/// A host as it is compared: without case or a final dot.
fn host(said: &str) -> Option<Box<str>> {
    let host = said.strip_suffix('.').unwrap_or(said);
    let good = |label: &str| {
        let plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        plain && (1..=63).contains(&label.len())
    };
    (host.len() <= 253 && host.split('.').all(good)).then(|| host.to_ascii_lowercase().into())
}

/// A host without its first label.
fn above(host: &str) -> Option<&str> {
    host.split_once('.').map(|(_, above)| above)
}

/// How good a claim to a name is; then how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claim {
    strength: Strength,
    /// Seconds since 1970.
    expires: i64,
}

/// Who says that a certificate is for a host, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    File,
    Certificate,
    Both,
}

/// What a certificate is for, and how good its claim to that is.
pub(crate) fn claims(
    file: Option<&Name>,
    certificate: &[Name],
    expires: i64,
) -> impl Iterator<Item = (Name, Claim)> {
    let covered = |name: &Name| certificate.iter().any(|known| known.covers(name));
    let by_file = file.map(|name| {
        let strength = if covered(name) { Strength::Both } else { Strength::File };
        (name.clone(), Claim { strength, expires })
    });
    let others = certificate.iter().filter(move |name| Some(*name) != file);
    let others = others.map(move |name| (name.clone(), Claim { strength: Strength::Certificate, expires }));
    by_file.into_iter().chain(others)
}

/// What is there for hosts.
#[derive(Clone, Debug)]
pub(crate) struct Table<T> {
    exact: HashMap<Box<str>, (Claim, T)>,
    below: HashMap<Box<str>, (Claim, T)>,
    default: Option<(Claim, T)>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), below: HashMap::new(), default: None }
    }
}

impl<T> Table<T> {
    /// Of two with equal claims the first stays.
    pub(crate) fn put(&mut self, name: Name, claim: Claim, what: T) {
        let (hosts, host) = match name {
            Name::Exact(host) => (&mut self.exact, host),
            Name::Below(host) => (&mut self.below, host),
            Name::Default => {
                if self.default.as_ref().is_none_or(|(known, _)| *known < claim) {
                    self.default = Some((claim, what));
                }
                return;
            }
        };
        match hosts.entry(host) {
            Entry::Vacant(free) => drop(free.insert((claim, what))),
            Entry::Occupied(mut known) if known.get().0 < claim => drop(known.insert((claim, what))),
            Entry::Occupied(_) => {}
        }
    }

    /// What is for a host, in lower case, and good. Looks twice at most, and makes nothing.
    pub(crate) fn named(&self, host: &str, is_good: impl Fn(&T) -> bool) -> Option<&T> {
        let exact = self.exact.get(host).map(|(_, what)| what).filter(|what| is_good(what));
        exact.or_else(|| self.below.get(above(host)?).map(|(_, what)| what).filter(|what| is_good(what)))
    }

    /// What is for everybody else.
    pub(crate) fn fallback(&self) -> Option<&T> {
        self.default.as_ref().map(|(_, what)| what)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn files_are_named_after_hosts() {
        for (stem, means) in [
            ("example.com", "example.com"),
            ("Example.COM", "example.com"),
            ("localhost", "localhost"),
            ("_.example.com", "*.example.com"),
            ("_dmarc.example.com", "_dmarc.example.com"),
            ("example.com.", "example.com"),
            ("DEFAULT", "DEFAULT"),
            ("", "-"),
            ("_.", "-"),
            ("a..b", "-"),
            ("a b", "-"),
            ("*.a", "-"),
            ("bücher.example", "-"),
        ] {
            let name = Name::of_file(stem).map_or("-".to_owned(), |name| name.to_string());
            assert_eq!(name, means, "{stem}");
        }
    }

    /// Files with the names in their certificates and how long they hold, and which one a host gets.
    fn check(files: &[(&str, &str, i64)], hosts: &[(&str, &str)]) {
        let mut table = Table::default();
        for (stem, certificate, expires) in files {
            let certificate: Vec<_> =
                certificate.split_whitespace().filter_map(Name::in_certificate).collect();
            let file = Name::of_file(stem);
            for (name, claim) in claims(file.as_ref(), &certificate, *expires) {
                table.put(name, claim, format!("{stem} {expires}"));
            }
        }
        for (host, expected) in hosts {
            let found = table.named(host, |_| true).or(table.fallback()).map_or("-", String::as_str);
            assert_eq!(found, *expected, "{host} of {files:?}");
        }
    }

    #[test]
    fn an_exact_name_comes_before_a_wildcard_and_the_longest_first() {
        check(
            &[
                ("_.example.com", "*.example.com", 1),
                ("a.example.com", "a.example.com", 1),
                ("_.b.example.com", "*.b.example.com", 1),
            ],
            &[
                ("a.example.com", "a.example.com 1"),
                ("b.example.com", "_.example.com 1"),
                ("c.b.example.com", "_.b.example.com 1"),
                ("d.c.b.example.com", "-"),
                ("example.com", "-"),
                ("", "-"),
            ],
        );
    }

    #[test]
    fn a_file_name_wins_over_another_file_that_has_the_name_inside() {
        let both = [("a.org", "a.org b.org", 1), ("b.org", "b.org a.org", 9)];
        check(&both, &[("a.org", "a.org 1"), ("b.org", "b.org 9"), ("c.org", "-")]);
        check(&[("x", "a.org", 1)], &[("a.org", "x 1"), ("x", "x 1")]);
    }

    #[test]
    fn a_file_name_that_its_certificate_does_not_bear_out_comes_last() {
        let stray = ("a.org", "*.a.org", 9);
        check(&[stray], &[("a.org", "a.org 9"), ("b.a.org", "a.org 9")]);
        check(&[stray, ("x", "a.org", 1)], &[("a.org", "x 1")]);
    }

    #[test]
    fn of_two_for_one_name_the_one_that_expires_later_wins() {
        check(&[("a.org", "a.org", 1), ("a.org", "a.org", 2)], &[("a.org", "a.org 2")]);
        check(&[("x", "*.a.org", 3), ("y", "*.a.org", 2)], &[("z.a.org", "x 3")]);
    }

    #[test]
    fn there_may_be_one_for_everybody_else() {
        check(&[("DEFAULT", "a.org", 1)], &[("b.org", "DEFAULT 1"), ("a.org", "DEFAULT 1")]);
        check(&[("a.org", "a.org", 1)], &[("b.org", "-")]);
    }

    proptest! {
        #[test]
        fn any_name_is_looked_up(stem in ".{0,20}", host in ".{0,20}") {
            let mut table = Table::default();
            for (name, claim) in claims(Name::of_file(&stem).as_ref(), &[], 0) {
                table.put(name, claim, ());
            }
            let is_it = Name::of_file(&stem) == Some(Name::Exact((*host).into()));
            if is_it {
                prop_assert!(table.named(&host, |_| true).is_some());
            }
        }
    }
}
