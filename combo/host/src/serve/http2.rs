//! What an HTTP/2 client sends -> whether it is in the middle of a head (RFC 9113, sections 4.1 and 6.10).
//! Pure: frames are followed in whatever pieces they come, and nothing of them is kept.

/// How far it has come.
#[derive(Debug)]
pub(crate) struct Frames {
    /// What is still to come of the frame that it is in; at first, of the preface.
    left: u32,
    /// The beginning of the next one.
    header: [u8; HEADER],
    filled: usize,
    /// It is one of a head.
    head: bool,
    /// The head goes on in the next one.
    goes_on: bool,
}

const HEADER: usize = 9;
const PREFACE: u32 = 24;

/// The types of frames that heads are in, and the flag of the last.
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

impl Frames {
    /// Before the preface.
    pub(crate) fn new() -> Self {
        Self { left: PREFACE, header: [0; HEADER], filled: 0, head: false, goes_on: false }
    }

    /// Takes what was read; says whether a head has begun in it that is not whole.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let skipped = rest.len().min(self.left as usize);
            self.left -= u32::try_from(skipped).unwrap_or(self.left);
            rest = &rest[skipped..];
            let taken = rest.len().min(HEADER - self.filled);
            self.header[self.filled..self.filled + taken].copy_from_slice(&rest[..taken]);
            self.filled += taken;
            rest = &rest[taken..];
            if self.filled == HEADER {
                self.begin();
            }
        }
        self.goes_on || self.head && self.left > 0
    }

    fn begin(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.header;
        (self.left, self.filled) = (u32::from_be_bytes([0, high, middle, low]), 0);
        self.head = matches!(kind, HEADERS | CONTINUATION);
        if self.head {
            self.goes_on = flags & END_HEADERS == 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let length = u32::try_from(length).expect("it is short").to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], &vec![kind; u32::from_be_bytes(length) as usize]].concat()
    }

    fn connection(frames: &[(u8, u8, usize)]) -> Vec<u8> {
        let frames = frames.iter().map(|(kind, flags, length)| frame(*kind, *flags, *length));
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()].into_iter().chain(frames).flatten().collect()
    }

    fn check(frames: &[(u8, u8, usize)], torn: bool) {
        assert_eq!(Frames::new().feed(&connection(frames)), torn, "{frames:?}");
    }

    #[test]
    fn a_head_is_torn_until_its_last_frame_has_ended() {
        check(&[], false);
        check(&[(4, 0, 6), (1, 4, 30)], false);
        check(&[(4, 0, 6), (1, 1, 30)], true);
        check(&[(1, 1, 0), (9, 0, 16_384), (9, 0, 0)], true);
        check(&[(1, 1, 0), (9, 0, 16_384), (9, 4, 0)], false);
        check(&[(1, 5, 3), (0, 0, 100), (8, 4, 4), (6, 0, 8)], false);
        check(&[(1, 1, 3), (0, 4, 100)], true);
        let whole = connection(&[(1, 5, 30)]);
        assert!(Frames::new().feed(&whole[..whole.len() - 1]));
    }

    proptest! {
        #[test]
        fn pieces_are_as_good_as_the_whole(
            frames in proptest::collection::vec((0..10_u8, any::<u8>(), 0..40_usize), 0..8),
            length in 1..20_usize,
        ) {
            let bytes = connection(&frames);
            let mut pieces = Frames::new();
            let torn = bytes.chunks(length).fold(false, |_, piece| pieces.feed(piece));
            prop_assert_eq!(torn, Frames::new().feed(&bytes));
        }
    }
}
