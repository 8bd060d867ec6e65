//! The path of a request, as it was sent: where it leads below the root, nothing is hidden and no way leads
//! out; where it is redirected to is the same host. After a line: the prefix and the query.
#![no_main]

use combo::fuzzing::{place, with_slash};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|said: &str| {
    let mut lines = said.splitn(3, '\n');
    let (path, prefix, query) = (lines.next().unwrap_or_default(), lines.next(), lines.next());
    if let Some((place, folder)) = place(path) {
        assert_eq!(folder, path.ends_with('/'));
        assert!(place.is_empty() || place.split('/').all(|name| !name.is_empty()), "{place:?}");
        assert!(place.split('/').all(|name| !name.starts_with('.') || name == ".well-known"), "{place:?}");
        assert!(!place.contains(['\\', '\0']), "{place:?}");
    }
    let location = with_slash(prefix.unwrap_or_default(), path, query);
    let bytes = location.as_bytes();
    assert!(bytes[0] == b'/' && bytes.get(1) != Some(&b'/'), "{location:?}");
    assert!(bytes.iter().all(|byte| !byte.is_ascii_control()), "{location:?}");
    assert_eq!(location.split('?').next().unwrap_or_default().contains("//"), false, "{location:?}");
});
