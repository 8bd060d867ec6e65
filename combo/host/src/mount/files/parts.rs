//! Takes the parts of a file that are to be sent, gives what stands around them in a body of
//! `multipart/byteranges`, and how long that body is (RFC 9110, 14.6 and 15.3.7.2). Pure.

use bytes::Bytes;
use http::HeaderValue;

use super::range::Part;

const DELIMITER: &[u8] = b"\r\n--";
const TYPE: &[u8] = b"\r\nContent-Type: ";
const RANGE: &[u8] = b"\r\nContent-Range: bytes ";
const END_OF_HEAD: &[u8] = b"\r\n\r\n";
const END: &[u8] = b"--\r\n";

/// What all parts of one answer have in common.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    /// One to 70 letters and digits that no part may contain (RFC 2046, 5.1.1).
    boundary: String,
    /// Of the file.
    media: HeaderValue,
    /// Bytes in the file.
    len: u64,
}

impl Envelope {
    /// For parts of a file of `len` bytes.
    pub(super) fn new(boundary: String, media: HeaderValue, len: u64) -> Self {
        debug_assert!((1..=70).contains(&boundary.len()));
        debug_assert!(boundary.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        Self { boundary, media, len }
    }

    /// The `Content-Type` of the answer.
    pub(super) fn media(&self) -> HeaderValue {
        HeaderValue::try_from(format!("multipart/byteranges; boundary={}", self.boundary))
            .expect("letters and digits are visible ASCII")
    }

    /// What stands before the bytes of a part.
    pub(super) fn head(&self, part: Part, is_first: bool) -> Bytes {
        let range = format!("{}-{}/{}", part.first, part.last, self.len);
        let head = [
            delimiter(is_first),
            self.boundary.as_bytes(),
            TYPE,
            self.media.as_bytes(),
            RANGE,
            range.as_bytes(),
            END_OF_HEAD,
        ];
        head.concat().into()
    }

    /// What stands behind the last part.
    pub(super) fn end(&self) -> Bytes {
        [DELIMITER, self.boundary.as_bytes(), END].concat().into()
    }

    /// Bytes of the whole body: every head, part and the end.
    pub(super) fn length(&self, parts: &[Part]) -> u64 {
        let words = self.boundary.len() + TYPE.len() + self.media.len() + RANGE.len() + END_OF_HEAD.len();
        let end = DELIMITER.len() + self.boundary.len() + END.len();
        let each = parts.iter().enumerate().map(|(at, part)| {
            let head = delimiter(at == 0).len() + words + "-/".len();
            let numbers = [part.first, part.last, self.len].map(digits).iter().sum::<usize>();
            part.len().saturating_add((head + numbers) as u64)
        });
        each.fold(end as u64, u64::saturating_add)
    }
}

/// Nothing stands before the first that it would have to end.
fn delimiter(is_first: bool) -> &'static [u8] {
    if is_first { b"--" } else { DELIMITER }
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_wrapped_and_counted() {
        #[track_caller]
        fn check(file: &str, media: &'static str, parts: &[(u64, u64)], expected: &str) {
            let envelope = Envelope::new("SEAM".into(), HeaderValue::from_static(media), file.len() as u64);
            let parts: Vec<_> =
                parts.iter().map(|(first, last)| Part { first: *first, last: *last }).collect();
            let mut body = Vec::new();
            for (at, part) in parts.iter().enumerate() {
                body.extend_from_slice(&envelope.head(*part, at == 0));
                body.extend_from_slice(&file.as_bytes()[part.first as usize..=part.last as usize]);
            }
            body.extend_from_slice(&envelope.end());
            assert_eq!(String::from_utf8_lossy(&body), expected);
            assert_eq!(envelope.length(&parts), body.len() as u64, "{parts:?}");
        }
        check(
            "0123456789",
            "text/plain; charset=utf-8",
            &[(0, 1), (9, 9)],
            "--SEAM\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes 0-1/10\r\n\r\n01\r\n\
             --SEAM\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes 9-9/10\r\n\r\n9\r\n\
             --SEAM--\r\n",
        );
        check(
            &"x".repeat(1001),
            "image/png",
            &[(999, 1000), (9, 10), (99, 101)],
            "--SEAM\r\nContent-Type: image/png\r\nContent-Range: bytes 999-1000/1001\r\n\r\nxx\r\n\
             --SEAM\r\nContent-Type: image/png\r\nContent-Range: bytes 9-10/1001\r\n\r\nxx\r\n\
             --SEAM\r\nContent-Type: image/png\r\nContent-Range: bytes 99-101/1001\r\n\r\nxxx\r\n\
             --SEAM--\r\n",
        );
    }

    #[test]
    fn the_type_names_the_boundary() {
        let envelope = Envelope::new("a1B2".into(), HeaderValue::from_static("text/plain"), 1);
        assert_eq!(envelope.media(), "multipart/byteranges; boundary=a1B2");
    }

    #[test]
    fn lengths_are_those_of_what_is_written() {
        for number in [0, 1, 9, 10, 99, 100, 999_999, 1_000_000, u64::MAX / 10, u64::MAX] {
            assert_eq!(digits(number), number.to_string().len(), "{number}");
        }
        let whole = Part { first: 0, last: u64::MAX - 1 };
        let envelope = Envelope::new("a".into(), HeaderValue::from_static("a/b"), u64::MAX);
        assert_eq!(envelope.length(&[whole]), u64::MAX);
    }
}
