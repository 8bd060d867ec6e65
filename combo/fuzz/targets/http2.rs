//! What an HTTP/2 client sends, after two bytes that say where it is torn: whether it is in the middle of a head is the
//! same in whatever pieces it comes, and as one who reads frame by frame says.
#![no_main]

use combo::fuzzing::torn;
use libfuzzer_sys::fuzz_target;

const PREFACE: usize = 24;

fuzz_target!(|bytes: &[u8]| {
    let [one, other, sent @ ..] = bytes else { return };
    let sent = [&[0; PREFACE], sent].concat();
    let at = |cut: &u8| usize::from(*cut).min(sent.len());
    let (from, to) = (at(one).min(at(other)), at(one).max(at(other)));
    let whole = torn(&[&sent]);
    assert_eq!(torn(&[&sent[..from], &sent[from..to], &sent[to..]]), whole, "torn at {from} and {to}");
    assert_eq!(torn(&sent.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
    assert_eq!(frame_by_frame(&sent[PREFACE..]), whole);
});

/// RFC 9113, section 4.1.
fn frame_by_frame(mut sent: &[u8]) -> bool {
    let mut goes_on = false;
    while let [high, middle, low, kind, flags, _, _, _, _, rest @ ..] = sent {
        let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        let head = matches!(kind, 1 | 9);
        goes_on = if head { flags & 4 == 0 } else { goes_on };
        if rest.len() < length {
            return goes_on || head;
        }
        sent = &rest[length..];
    }
    goes_on
}
