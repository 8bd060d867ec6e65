//! What an app writes to a websocket, after two bytes that say where it is torn: where messages end is the same in
//! whatever pieces they come.
#![no_main]

use combo::fuzzing::{frames, rest};
use libfuzzer_sys::fuzz_target;

const HEAD: &[u8] = b"HTTP/1.1 101 \r\n\r\n";

fuzz_target!(|bytes: &[u8]| {
    let [one, other, written @ ..] = bytes else { return };
    for written in [written, &[HEAD, written].concat()] {
        let at = |cut: &u8| usize::from(*cut).min(written.len());
        let (from, to) = (at(one).min(at(other)), at(one).max(at(other)));
        let whole = frames(&[written]);
        assert_eq!(
            frames(&[&written[..from], &written[from..to], &written[to..]]),
            whole,
            "torn at {from} and {to}"
        );
        assert_eq!(frames(&written.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
        let (until, rests) = rest(&written[..from], &written[from..]);
        assert_eq!(until, rests.unwrap_or(written.len() - from), "from {from}");
    }
});
