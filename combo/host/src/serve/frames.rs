//! What is written to a client that asked for a websocket -> where its messages end, and whether a close
//! was said (RFC 6455, section 5.2). Pure: bytes are looked at in whatever pieces they come and not kept.

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frames {
    at: At,
    /// The first byte of the frame that it is in.
    first: u8,
    /// A message has begun in one frame and has not ended.
    open: bool,
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// So many bytes of what the answer has to begin with have come.
    Answer(u8),
    /// So many bytes of what ends its head have come.
    Head(u8),
    /// Before a frame.
    Frame,
    /// Before its second byte.
    Second,
    /// So many bytes of its length are to come; what came, and how much follows besides.
    Length { left: u8, so_far: u64, more: u64 },
    /// So many bytes of the frame are to come.
    Payload(u64),
    /// It is something else.
    Lost,
}

const ANSWER: &[u8; 13] = b"HTTP/1.1 101 ";
const HEAD_END: &[u8; 4] = b"\r\n\r\n";
const LAST: u8 = 0x80;
const MASKED: u8 = 0x80;
const KIND: u8 = 0x0f;
const CLOSE: u8 = 8;

impl Frames {
    /// Before the answer to the handshake.
    pub(crate) fn new() -> Self {
        Self { at: At::Answer(0), first: 0, open: false, closed: false }
    }

    /// Takes what was written.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = &rest[self.take(rest)..];
        }
    }

    /// How many of these bytes belong to the message that it is in.
    pub(crate) fn until_rest(mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && !self.rests() {
            taken += self.take(&bytes[taken..]);
        }
        taken
    }

    /// Whether it is between messages, so that another may begin.
    pub(crate) fn rests(&self) -> bool {
        self.at == At::Frame && !self.open && !self.closed
    }

    /// Whether it is known where messages end.
    pub(crate) fn are_followed(&self) -> bool {
        !matches!(self.at, At::Answer(_) | At::Head(_) | At::Lost)
    }

    /// Whether a close was said.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// Takes one byte, or as much of a payload as there is; says how many.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let byte = bytes[0];
        match self.at {
            At::Answer(seen) if byte != ANSWER[usize::from(seen)] => self.at = At::Lost,
            At::Answer(seen) if usize::from(seen) + 1 == ANSWER.len() => self.at = At::Head(0),
            At::Answer(seen) => self.at = At::Answer(seen + 1),
            At::Head(seen) => {
                let seen =
                    if byte == HEAD_END[usize::from(seen)] { seen + 1 } else { u8::from(byte == b'\r') };
                self.at = if usize::from(seen) == HEAD_END.len() { At::Frame } else { At::Head(seen) };
            }
            At::Frame => (self.first, self.at) = (byte, At::Second),
            At::Second => {
                let mask = if byte & MASKED > 0 { 4 } else { 0 };
                match byte & !MASKED {
                    126 => self.at = At::Length { left: 2, so_far: 0, more: mask },
                    127 => self.at = At::Length { left: 8, so_far: 0, more: mask },
                    length => self.follow(u64::from(length) + mask),
                }
            }
            At::Length { left, so_far, more } => {
                let so_far = so_far << 8 | u64::from(byte);
                match left - 1 {
                    0 => self.follow(so_far.saturating_add(more)),
                    left => self.at = At::Length { left, so_far, more },
                }
            }
            At::Payload(left) => {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                self.follow(left - taken as u64);
                return taken;
            }
            At::Lost => return bytes.len(),
        }
        1
    }

    fn follow(&mut self, left: u64) {
        if left > 0 {
            self.at = At::Payload(left);
            return;
        }
        self.at = At::Frame;
        match self.first & KIND {
            CLOSE => self.closed = true,
            kind if kind < CLOSE => self.open = self.first & LAST == 0,
            // Other control frames may come between the frames of a message.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nx: \r\r\n\r\n";

    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match length {
            0..126 => frame.push(u8::try_from(length).expect("it is small")),
            126..0x1_0000 => {
                frame.push(126);
                frame.extend(u16::try_from(length).expect("it is small").to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        // A payload that looks like the beginning of a close.
        frame.extend(std::iter::repeat_n(0x88, length));
        frame
    }

    fn fed(pieces: &[&[u8]]) -> Frames {
        let mut frames = Frames::new();
        pieces.iter().for_each(|piece| frames.feed(piece));
        frames
    }

    #[test]
    fn messages_end_where_their_last_frame_does() {
        let cut = |bytes: &[u8]| bytes[..bytes.len() - 1].to_vec();
        for (name, bytes, rests, closed) in [
            ("the head only", vec![], true, false),
            ("nothing in it", frame(0x81, 0), true, false),
            ("a small one", frame(0x82, 125), true, false),
            ("a larger one", frame(0x82, 126), true, false),
            ("the largest of two bytes", frame(0x82, 65_535), true, false),
            ("a large one", frame(0x82, 65_536), true, false),
            ("all but its end", cut(&frame(0x82, 70_000)), false, false),
            ("half a length", frame(0x82, 70_000)[..5].to_vec(), false, false),
            ("one byte", vec![0x82], false, false),
            ("more to come", frame(0x01, 5), false, false),
            ("a ping between", [frame(0x01, 5), frame(0x89, 3)].concat(), false, false),
            ("and the rest", [frame(0x01, 5), frame(0x89, 3), frame(0x80, 9)].concat(), true, false),
            ("several", [frame(0x81, 5), frame(0x81, 300), frame(0x8a, 0)].concat(), true, false),
            ("a masked one", [vec![0x81, 0x83], vec![0x88; 7]].concat(), true, false),
            ("all but its end", [vec![0x81, 0x83], vec![0x88; 6]].concat(), false, false),
            ("a close", frame(0x88, 2), false, true),
            ("half of one", cut(&frame(0x88, 2)), false, false),
            ("an empty one", frame(0x88, 0), false, true),
            ("one within a message", [frame(0x01, 5), frame(0x88, 2)].concat(), false, true),
            ("longer than all", [vec![0x82, 0xff], vec![0xff; 100]].concat(), false, false),
        ] {
            let frames = fed(&[HEAD, &bytes]);
            assert_eq!((frames.rests(), frames.closed()), (rests, closed), "{name}");
        }
    }

    #[test]
    fn what_is_no_answer_to_a_handshake_is_not_followed() {
        for (bytes, rests) in [
            (&b"HTTP/1.1 101 Switching Protocols\r\n\r\n"[..], true),
            (b"HTTP/1.1 101 Switching Protocols\r\n", false),
            (b"HTTP/1.1 200 OK\r\n\r\n", false),
            (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n\r\n", false),
            (b"", false),
        ] {
            assert_eq!(fed(&[bytes]).rests(), rests, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_message_is_told_from_the_next() {
        let (one, two) = (frame(0x82, 300), frame(0x81, 4));
        let both = [&*one, &two].concat();
        let (begun, rest) = both.split_at(100);
        let mut frames = fed(&[HEAD, begun]);
        assert_eq!(frames.until_rest(rest), one.len() - 100);
        assert_eq!(frames.until_rest(&rest[..50]), 50);
        frames.feed(&rest[..one.len() - 100]);
        assert_eq!(frames.until_rest(&two), 0);
        let several = [frame(0x02, 3), frame(0x89, 1), frame(0x80, 200), two].concat();
        let mut frames = fed(&[HEAD]);
        frames.feed(&several[..1]);
        assert_eq!(frames.until_rest(&several[1..]), 5 + 3 + 204 - 1);
        assert_eq!(fed(&[b"GET"]).until_rest(b"anything"), 8);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_what_pieces_they_come(
            parts in prop::collection::vec((any::<u8>(), 0_usize..400), 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            head in any::<bool>(),
        ) {
            let head = if head { HEAD } else { b"" };
            let frames: Vec<u8> = parts.iter().flat_map(|(first, length)| frame(*first, *length)).collect();
            let bytes = [head, &frames].concat();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|two| &bytes[two[0]..two[1]]).collect();
            let whole = fed(&[&bytes]);
            prop_assert_eq!(fed(&pieces), whole);
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(fed(&single), whole);
        }

        #[test]
        fn up_to_its_rest_nothing_rests(
            parts in prop::collection::vec((any::<u8>(), 0_usize..400), 1..8),
            from in any::<prop::sample::Index>(),
        ) {
            let bytes: Vec<u8> = parts.iter().flat_map(|(first, length)| frame(*first, *length)).collect();
            let (begun, rest) = bytes.split_at(from.index(bytes.len()));
            let mut frames = fed(&[HEAD, begun]);
            let until = frames.until_rest(rest);
            for byte in &rest[..until] {
                prop_assert!(!frames.rests());
                frames.feed(std::slice::from_ref(byte));
            }
            prop_assert!(frames.rests() || until == rest.len());
        }

        #[test]
        fn whatever_comes_is_taken(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let frames = fed(&[HEAD, &bytes]);
            prop_assert!(frames.until_rest(&bytes) <= bytes.len());
        }
    }
}
