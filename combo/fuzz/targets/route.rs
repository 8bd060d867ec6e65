//! Patterns, as they are said in a deployment and to a running combo, and whose a request is. The first line
//! is a host and a path, the others are patterns: the tree agrees with trying all of them.
#![no_main]

use combo::{
    Pattern,
    fuzzing::route,
    pattern::{Host, normal_host, normal_segment},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|said: &str| {
    let (request, said) = said.split_once('\n').unwrap_or((said, ""));
    let mut patterns: Vec<Pattern> = Vec::new();
    for said in said.lines() {
        match said.parse::<Pattern>() {
            Ok(pattern) => {
                assert_eq!(pattern.to_string().parse().as_ref(), Ok(&pattern), "{pattern}");
                if !patterns.contains(&pattern) {
                    patterns.push(pattern);
                }
            }
            Err(fault) => assert!(!fault.to_string().is_empty()),
        }
    }
    let (host, path) = request.split_once(' ').unwrap_or(("", request));
    if path.is_empty() || path == "*" || path.starts_with('/') {
        assert_eq!(route(&patterns, host, path), search(&patterns, host, path), "{host} {path} {patterns:?}");
    }
});

fn search(patterns: &[Pattern], host: &str, path: &str) -> Option<(usize, usize)> {
    let host = normal_host(host);
    let raw: Vec<&str> = path.split('/').skip(1).collect();
    let normal: Vec<_> = raw.iter().map(|segment| normal_segment(segment)).collect();
    let ranks = patterns.iter().enumerate().filter_map(|(mount, pattern)| {
        let rank = match &pattern.host {
            Host::Any => (0, 0),
            Host::Below(parent) => {
                let below = host.strip_suffix(&**parent)?.strip_suffix('.')?;
                (1, (!below.is_empty()).then_some(parent.len())?)
            }
            Host::Exact(name) => (2, (*host == **name).then_some(0)?),
        };
        let depth = pattern.segments.len();
        let taken =
            normal.len() >= depth && normal.iter().zip(&pattern.segments).all(|(one, other)| *one == **other);
        let strip = raw.iter().take(depth).map(|segment| segment.len() + 1).sum();
        taken.then_some((rank, depth, mount, strip))
    });
    ranks.max().map(|(_, _, mount, strip)| (mount, strip))
}
