//! The files of an endpoint with TLS: a key, a chain and perhaps the authorities of clients, with a line of `====`
//! between them. They are of use or they are not; neither ends the process.
#![no_main]

use combo::fuzzing::tls;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut files = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(6).position(|six| six == b"\n====\n") {
        files.push(&rest[..=at]);
        rest = &rest[at + 6..];
    }
    files.push(rest);
    let [key, chain, authority @ ..] = &*files else { return };
    for host in ["localhost", "www.example.com:443", "[::1]:8443", "127.0.0.1"] {
        let said = tls(key, chain, authority.first().copied(), host);
        if let Err(why) = said {
            assert!(!why.to_string().is_empty());
        }
    }
});
