//! Host and path -> mount and rest of the path. Pure; built once from the plan, read by all workers.
//!
//! Of the patterns that match both host and path, the most specific host wins, then the longest
//! prefix. Whole segments are compared, percent-encoded unreserved characters decoded. Each host
//! has a tree of segments, so the cost grows with the depth of a path, not with the number of mounts.

use std::collections::HashMap;

use combo_core::{
    Pattern,
    pattern::{Host, normal_host, normal_segment},
};

/// All mounts, by host and by path.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    exact: HashMap<String, Tree>,
    /// Longest first.
    below: Vec<(String, Tree)>,
    any: Tree,
}

/// The patterns of one host.
#[derive(Debug, Default)]
struct Tree {
    mount: Option<usize>,
    /// Sorted by segment.
    children: Vec<(Box<[u8]>, Self)>,
}

/// What takes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The index of the mount.
    pub(crate) mount: usize,
    /// How many bytes of the path its prefix covers.
    pub(crate) strip: usize,
}

impl Routes {
    /// The mounts in the order of their indices. No two patterns are the same.
    pub(crate) fn new<'a, P: IntoIterator<Item = &'a Pattern>>(patterns: P) -> Self {
        let mut routes = Self::default();
        for (mount, pattern) in patterns.into_iter().enumerate() {
            let tree = match &pattern.host {
                Host::Any => &mut routes.any,
                Host::Exact(host) => routes.exact.entry(host.clone()).or_default(),
                Host::Below(parent) => {
                    let known = routes.below.iter().position(|(known, _)| known == parent);
                    let at = known.unwrap_or_else(|| {
                        routes.below.push((parent.clone(), Tree::default()));
                        routes.below.len() - 1
                    });
                    &mut routes.below[at].1
                }
            };
            tree.insert(&pattern.segments, mount);
        }
        routes.below.sort_by_key(|(parent, _)| std::cmp::Reverse(parent.len()));
        routes
    }

    /// Whether a host matters at all.
    pub(crate) fn by_host(&self) -> bool {
        !self.exact.is_empty() || !self.below.is_empty()
    }

    /// Whether there is a pattern for this host, whatever the path.
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "who asks has a certificate"))]
    pub(crate) fn knows(&self, host: &str) -> bool {
        let host = normal_host(host);
        self.any.mount.is_some()
            || !self.any.children.is_empty()
            || self.exact.contains_key(&*host)
            || self.below.iter().any(|(parent, _)| host.ends_with(&format!(".{parent}")))
    }

    /// `host` as in the request; `path` beginning with `/`, or `*`, or nothing (CONNECT).
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<Found> {
        if self.by_host() {
            let host = normal_host(host);
            if let Some(found) = self.exact.get(&*host).and_then(|tree| tree.find(path)) {
                return Some(found);
            }
            for (parent, tree) in &self.below {
                let below = host
                    .strip_suffix(parent.as_str())
                    .is_some_and(|name| name.len() > 1 && name.ends_with('.'));
                if let Some(found) = below.then(|| tree.find(path)).flatten() {
                    return Some(found);
                }
            }
        }
        self.any.find(path)
    }
}

impl Tree {
    fn insert(&mut self, segments: &[String], mount: usize) {
        let Some((first, rest)) = segments.split_first() else {
            self.mount = Some(mount);
            return;
        };
        let at = match self.children.binary_search_by(|(child, _)| (**child).cmp(first.as_bytes())) {
            Ok(at) => at,
            Err(at) => {
                self.children.insert(at, (first.as_bytes().into(), Self::default()));
                at
            }
        };
        self.children[at].1.insert(rest, mount);
    }

    fn child(&self, segment: &[u8]) -> Option<&Self> {
        // A handful is compared faster than searched.
        let at = if self.children.len() <= 8 {
            self.children.iter().position(|(child, _)| **child == *segment)?
        } else {
            self.children.binary_search_by(|(child, _)| (**child).cmp(segment)).ok()?
        };
        Some(&self.children[at].1)
    }

    fn find(&self, path: &str) -> Option<Found> {
        let bytes = path.as_bytes();
        let mut tree = self;
        let mut found = self.mount.map(|mount| Found { mount, strip: 0 });
        let mut at = 0;
        while !tree.children.is_empty() && bytes.get(at) == Some(&b'/') {
            let (from, mut to, mut plain) = (at + 1, at + 1, true);
            // Segments are short, so they are looked at byte by byte.
            while to < bytes.len() && bytes[to] != b'/' {
                plain &= bytes[to] != b'%';
                to += 1;
            }
            let child = if plain {
                tree.child(&bytes[from..to])
            } else {
                tree.child(normal_segment(&path[from..to]).as_bytes())
            };
            let Some(child) = child else { break };
            tree = child;
            at = to;
            found = tree.mount.map(|mount| Found { mount, strip: at }).or(found);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn routes(patterns: &[&str]) -> (Routes, Vec<Pattern>) {
        let patterns: Vec<Pattern> = patterns.iter().map(|said| said.parse().expect("a pattern")).collect();
        (Routes::new(&patterns), patterns)
    }

    fn check(patterns: &[&str], cases: &[(&str, &str, Option<(&str, &str)>)]) {
        let (routes, _) = routes(patterns);
        for (host, path, expected) in cases {
            let found = routes.find(host, path).map(|found| (patterns[found.mount], &path[found.strip..]));
            assert_eq!(found, *expected, "{host}{path} among {patterns:?}");
        }
    }

    #[test]
    fn a_prefix_takes_itself_and_what_is_under_it() {
        check(
            &["/blog"],
            &[
                ("h", "/blog", Some(("/blog", ""))),
                ("h", "/blog/", Some(("/blog", "/"))),
                ("h", "/blog/a//b", Some(("/blog", "/a//b"))),
                ("h", "/blogger", None),
                ("h", "/Blog", None),
                ("h", "//blog", None),
                ("h", "/b%6Cog/%2F", Some(("/blog", "/%2F"))),
                ("h", "/blog%2Fa", None),
                ("h", "/", None),
                ("h", "*", None),
                ("h", "", None),
            ],
        );
    }

    #[test]
    fn longest_prefix_wins_in_any_order() {
        let cases = [
            ("h", "/a/b/c", Some(("/a/b", "/c"))),
            ("h", "/a/bc", Some(("/a", "/bc"))),
            ("h", "/x", Some(("/", "/x"))),
            ("h", "*", Some(("/", "*"))),
            ("h", "", Some(("/", ""))),
        ];
        check(&["/", "/a", "/a/b"], &cases);
        check(&["/a/b", "/a", "/"], &cases);
    }

    #[test]
    fn most_specific_host_wins_where_its_path_matches() {
        check(
            &["/", "example.com/", "*.example.com/", "*.a.example.com/blog", "b.example.com/blog"],
            &[
                ("other.org", "/", Some(("/", "/"))),
                ("Example.COM.:80", "/x", Some(("example.com/", "/x"))),
                ("a.example.com", "/blog", Some(("*.example.com/", "/blog"))),
                ("x.a.example.com", "/blog", Some(("*.a.example.com/blog", ""))),
                ("x.a.example.com", "/", Some(("*.example.com/", "/"))),
                ("b.example.com", "/blog/x", Some(("b.example.com/blog", "/x"))),
                ("b.example.com", "/", Some(("*.example.com/", "/"))),
                ("notexample.com", "/", Some(("/", "/"))),
                (".example.com", "/", Some(("/", "/"))),
            ],
        );
    }

    #[test]
    fn without_a_default_an_unknown_host_has_no_mount() {
        check(
            &["example.com/"],
            &[("other.org", "/", None), ("example.com", "/", Some(("example.com/", "/")))],
        );
    }

    proptest! {
        /// The tree agrees with trying every pattern.
        #[test]
        fn the_tree_agrees_with_a_search(
            said in proptest::collection::hash_set("(a|b|\\*\\.b)?(/[ab]{1,2}){0,3}", 1..8),
            host in "(a|b|a\\.b|c)",
            path in "(/[ab]{0,2}){1,5}",
        ) {
            let said: Vec<String> = said.into_iter().map(|p| if p.contains('/') { p } else { p + "/" }).collect();
            let (routes, patterns) = routes(&said.iter().map(String::as_str).collect::<Vec<_>>());
            let best = patterns.iter().enumerate().filter_map(|(mount, pattern)| {
                let rank = match &pattern.host {
                    Host::Any => 0,
                    Host::Exact(name) if *name == host => 2,
                    Host::Below(name) if host.strip_suffix(&format!(".{name}")).is_some_and(|n| !n.is_empty()) => 1,
                    Host::Exact(_) | Host::Below(_) => return None,
                };
                let rest = path.strip_prefix(&pattern.prefix())?;
                (rest.is_empty() || rest.starts_with('/')).then_some((rank, path.len() - rest.len(), mount))
            });
            let best = best.max().map(|(_, strip, mount)| Found { mount, strip });
            prop_assert_eq!(routes.find(&host, &path), best);
        }
    }
}
