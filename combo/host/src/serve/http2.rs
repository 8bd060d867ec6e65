//! What an HTTP/2 client sends -> how much of it is of bodies, and whether it is in the middle of a head (RFC
//! 9113, sections 4.1 and 6.10).
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
    /// It is one of a body.
    body: bool,
    begun: bool,
}

/// What was seen in some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// How many of them are of bodies.
    pub(crate) of_bodies: usize,
    /// Whether a frame has begun by now.
    pub(crate) begun: bool,
    /// Whether a head has begun that is not whole.
    pub(crate) torn: bool,
}

const HEADER: usize = 9;
const PREFACE: u32 = 24;

/// The type of frames that bodies are in: `DATA`.
const CONTENT: u8 = 0;

/// Those that heads are in, and the flag of the last.
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

impl Frames {
    /// Before the preface.
    pub(crate) fn new() -> Self {
        Self {
            left: PREFACE,
            header: [0; HEADER],
            filled: 0,
            head: false,
            goes_on: false,
            body: false,
            begun: false,
        }
    }

    /// Takes what was read.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Seen {
        let (mut rest, mut of_bodies) = (bytes, 0);
        while !rest.is_empty() {
            let skipped = rest.len().min(self.left as usize);
            of_bodies += if self.body { skipped } else { 0 };
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
        Seen { of_bodies, begun: self.begun, torn: self.goes_on || self.head && self.left > 0 }
    }

    fn begin(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.header;
        (self.left, self.filled) = (u32::from_be_bytes([0, high, middle, low]), 0);
        self.begun = true;
        self.head = matches!(kind, HEADERS | CONTINUATION);
        self.body = kind == CONTENT;
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
        let seen = Frames::new().feed(&connection(frames));
        let of_bodies = frames.iter().filter(|(kind, ..)| *kind == CONTENT).map(|(.., length)| length).sum();
        assert_eq!(seen, Seen { of_bodies, begun: !frames.is_empty(), torn }, "{frames:?}");
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
        assert!(Frames::new().feed(&whole[..whole.len() - 1]).torn);
    }

    proptest! {
        #[test]
        fn pieces_are_as_good_as_the_whole(
            frames in proptest::collection::vec((0..10_u8, any::<u8>(), 0..40_usize), 0..8),
            length in 1..20_usize,
        ) {
            let bytes = connection(&frames);
            let mut pieces = Frames::new();
            let seen = bytes.chunks(length).fold((0, None), |(before, _), piece| {
                let seen = pieces.feed(piece);
                (before + seen.of_bodies, Some(seen))
            });
            let whole = Frames::new().feed(&bytes);
            prop_assert_eq!((seen.0, seen.1.map(|seen| (seen.begun, seen.torn))), (whole.of_bodies, Some((whole.begun, whole.torn))));
        }
    }
}
