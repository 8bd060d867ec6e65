//! The length of a file, and on the next line a `Range`: what is sent of it lies within, apart, and is less.
#![no_main]

use combo::fuzzing::range;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Some((length, said)) = text.split_once('\n') else { return };
    let Ok(length) = length.parse::<u64>() else { return };
    let Some(parts) = range(said, length) else { return };
    assert!(length > 0, "a part of nothing");
    assert!(parts.len() <= 64, "{} parts", parts.len());
    for (first, last) in &parts {
        assert!(first <= last && *last < length, "{first}-{last} of {length}");
    }
    let mut ascending = parts.clone();
    ascending.sort_unstable();
    assert!(ascending.windows(2).all(|two| two[1].0 - two[0].1 > 80), "{parts:?} are too close");
    if parts.len() > 1 {
        let total: u128 = parts.iter().map(|(first, last)| u128::from(last - first) + 1).sum();
        assert!(total < u128::from(length), "{total} of {length}");
    }
    if !parts.is_empty() {
        let again: Vec<_> = parts.iter().map(|(first, last)| format!("{first}-{last}")).collect();
        assert_eq!(range(&format!("bytes={}", again.join(",")), length), Some(parts), "asked for again");
    }
});
