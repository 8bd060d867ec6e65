//! Host and path -> what they led to the last time, on one worker: what is asked for often is neither
//! looked up nor taken apart again.
//!
//! A few dozen short paths, compared byte by byte. A path is remembered when it is asked for a second
//! time, so those that are asked for once cost next to nothing and push nothing out.

use std::{cell::RefCell, rc::Rc};

use http::{Uri, uri::PathAndQuery};

use super::route::{Found, Routes};

const SLOTS: usize = 64;

/// Longer paths are looked up each time.
const LONGEST: usize = 128;

/// What one worker remembers.
#[derive(Debug)]
pub(crate) struct Recent(RefCell<Vec<Slot>>);

#[derive(Clone, Debug, Default)]
struct Slot {
    /// The print of the path that was last asked for here and is not the one that is known.
    seen: u64,
    known: Option<Rc<Known>>,
}

/// What a path led to.
#[derive(Debug)]
pub(crate) struct Known {
    host: Box<str>,
    path: Box<str>,
    found: Found,
    /// What is left of the path for the app.
    rest: PathAndQuery,
}

/// Which mount takes a request, and what was known of its path.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) found: Found,
    known: Option<Rc<Known>>,
}

impl Way {
    /// What is left of a path for the app, if that is known.
    pub(crate) fn rest(&self) -> Option<&PathAndQuery> {
        self.known.as_ref().map(|known| &known.rest)
    }
}

impl Default for Recent {
    fn default() -> Self {
        Self(RefCell::new(vec![Slot::default(); SLOTS]))
    }
}

impl Recent {
    /// The mount for a request, which `routes` know: `host` is empty where hosts do not matter.
    pub(crate) fn find(&self, routes: &Routes, host: &str, uri: &Uri) -> Option<Way> {
        let path = uri.path();
        if path.len() > LONGEST || uri.query().is_some() {
            return routes.find(host, path).map(|found| Way { found, known: None });
        }
        let print = print(path.as_bytes());
        let mut slots = self.0.borrow_mut();
        let slot = &mut slots[(print >> 58) as usize];
        if let Some(known) = slot.known.as_ref().filter(|known| *known.path == *path && *known.host == *host)
        {
            return Some(Way { found: known.found, known: Some(known.clone()) });
        }
        let found = routes.find(host, path)?;
        if std::mem::replace(&mut slot.seen, print) == print {
            slot.known = Known::new(host, path, found).map(Rc::new);
        }
        Some(Way { found, known: None })
    }
}

impl Known {
    fn new(host: &str, path: &str, found: Found) -> Option<Self> {
        let rest = match &path[found.strip..] {
            "" => "/",
            rest => rest,
        };
        // What does not stand by itself is left to whoever takes paths apart.
        let rest = rest.starts_with('/').then(|| rest.parse().ok()).flatten()?;
        Some(Self { host: host.into(), path: path.into(), found, rest })
    }
}

/// Tells most paths apart by their length and both of their ends.
fn print(path: &[u8]) -> u64 {
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let (first, last) = match (path.first_chunk::<8>(), path.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (word(path), 0),
    };
    (first ^ last.rotate_left(29) ^ path.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use combo_core::Pattern;
    use proptest::prelude::*;

    use super::*;

    fn routes(patterns: &[&str]) -> Routes {
        let patterns: Vec<Pattern> = patterns.iter().map(|said| said.parse().expect("a pattern")).collect();
        Routes::new(&patterns)
    }

    #[test]
    fn a_path_is_known_from_the_third_time_on() {
        let (recent, routes) = (Recent::default(), routes(&["/blog", "/"]));
        let ask = |uri: &str| {
            let way = recent.find(&routes, "", &uri.parse().expect("a uri")).expect("a mount");
            (way.found.mount, way.rest().map(ToString::to_string))
        };
        assert_eq!([ask("/blog/a"), ask("/blog/a")], [(0, None), (0, None)]);
        assert_eq!(ask("/blog/a"), (0, Some("/a".to_owned())));
        // What differs in a byte, or has a query, is not what is known.
        assert_eq!([ask("/blog/b"), ask("/blog/a?b")], [(0, None), (0, None)]);
        for (path, rest) in [("/blog", "/"), ("/blog/", "/"), ("/x", "/x"), ("/blog//x", "//x")] {
            let _ = [ask(path), ask(path)];
            assert_eq!(ask(path).1.as_deref(), Some(rest), "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_is_known_is_what_would_be_found(
            asked in proptest::collection::vec(("[ab]", "(/[abc]{1,2}){0,4}/?"), 1..200),
        ) {
            let (recent, routes) = (Recent::default(), routes(&["/a", "/a/b", "/b", "a/c", "*.b/"]));
            for (host, path) in asked {
                let uri: Uri = if path.is_empty() { "/" } else { &path }.parse().expect("a uri");
                let way = recent.find(&routes, &host, &uri);
                prop_assert_eq!(way.as_ref().map(|way| way.found), routes.find(&host, uri.path()));
                if let Some((way, rest)) = way.as_ref().and_then(|way| Some((way, way.rest()?))) {
                    let left = &uri.path()[way.found.strip..];
                    prop_assert_eq!(rest.as_str(), if left.is_empty() { "/" } else { left });
                }
            }
        }
    }
}
