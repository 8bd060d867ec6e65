//! The head of a request, as it is on the wire, after two bytes that say where it is torn: what is found in it is
//! the same in whatever pieces it comes.
#![no_main]

use combo::fuzzing::has_length;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [one, other, head @ ..] = bytes else { return };
    let (one, other) = (usize::from(*one).min(head.len()), usize::from(*other).min(head.len()));
    let (from, to) = (one.min(other), one.max(other));
    let whole = has_length(&[head]);
    assert_eq!(whole, look(head));
    assert_eq!(has_length(&[&head[..from], &head[from..to], &head[to..]]), whole, "torn at {from} and {to}");
    assert_eq!(has_length(&head.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
});

/// Line by line, up to the empty one that ends it.
fn look(head: &[u8]) -> bool {
    let mut lines: Vec<&[u8]> = head.split(|byte| *byte == b'\n').collect();
    // What is behind the last has no end yet.
    let _ = lines.pop();
    let empty = |line: &&[u8]| matches!(*line, [] | [b'\r']);
    let lines = lines.into_iter().skip_while(empty).take_while(|line| !empty(line));
    let name = b"content-length:";
    lines.into_iter().any(|line| line.len() >= name.len() && line[..name.len()].eq_ignore_ascii_case(name))
}
