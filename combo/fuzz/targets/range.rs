//! The length of a file, and on the next line a `Range`: what is served of it lies within.
#![no_main]

use combo::fuzzing::range;
use http::HeaderValue;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let length = lines.next().and_then(|line| std::str::from_utf8(line).ok()?.parse::<u64>().ok());
    let said = lines.next().and_then(|line| HeaderValue::from_bytes(line).ok());
    let (Some(length), Some(said)) = (length, said) else { return };
    let Some(part) = range(&said, length) else { return };
    let text = part.to_str().expect("text").strip_prefix("bytes=").expect("bytes");
    let (first, last) = text.split_once('-').expect("two ends");
    let first: u64 = first.parse().expect("a number");
    if last.is_empty() {
        assert_eq!(first, length, "behind the end");
    } else {
        let last: u64 = last.parse().expect("a number");
        assert!(first <= last && last < length, "{text} of {length}");
        assert_eq!(range(&part, length), Some(part), "asked for again");
    }
});
