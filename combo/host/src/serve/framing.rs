//! An app's answer -> one that says of its length what is so, or why it is no answer.
//!
//! Where a body ends is for whoever writes it to say: an app whose word for it is wrong would have the rest of
//! its body taken for the next answer on the connection, or that for the rest. Pure.

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use http_body::Body;

use super::body::ResponseBody;

/// Why an app's answer cannot be sent, or what it said that was not so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// RFC 9110, section 15.2: an interim response, and RFC 9113, section 8.6: nothing switches in HTTP/2.
    Interim(StatusCode),
    /// What it said instead of the length of its body.
    Length(HeaderValue),
}

impl Fault {
    pub(super) fn said(&self) -> String {
        match self {
            Self::Interim(status) => {
                format!("it answered {}, after which an answer has to come", status.as_u16())
            }
            Self::Length(said) => format!("it said that its body has {said:?} bytes"),
        }
    }
}

/// What a request has to do with where its answer ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    head: bool,
    connect: bool,
    version: Version,
}

impl Asked {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let (method, version) = (request.method(), request.version());
        Self { head: *method == Method::HEAD, connect: *method == Method::CONNECT, version }
    }
}

/// Corrects what an answer says of its length.
pub(super) fn frame(response: &mut Response<ResponseBody>, asked: Asked) -> Result<(), Fault> {
    let Asked { head, connect, version } = asked;
    let status = response.status();
    if status.is_informational() && (status != StatusCode::SWITCHING_PROTOCOLS || version == Version::HTTP_2)
    {
        return Err(Fault::Interim(status));
    }
    // RFC 9112, section 6.1: `chunked` is said by whoever does it, and nothing else is done.
    let mut lengths = Lengths::of(response.headers());
    if lengths.encoded {
        let _ = response.headers_mut().remove(TRANSFER_ENCODING);
        lengths = Lengths::of(response.headers());
    }
    let Lengths { said: Some(said), is_one, .. } = lengths else { return Ok(()) };
    if status.is_informational() || status == StatusCode::NO_CONTENT || connect && status.is_success() {
        // RFC 9110, section 8.6.
        let _ = response.headers_mut().remove(CONTENT_LENGTH);
        return Ok(());
    }
    // Without a body it is the length of the one that is not there.
    let spared = head || status == StatusCode::NOT_MODIFIED;
    let sized = response.body().size_hint().exact().filter(|size| !spared || *size > 0);
    let one = number(said).filter(|_| is_one);
    if one.is_some() && sized.is_none_or(|size| one == Some(size)) {
        return Ok(());
    }
    let said = said.clone();
    let headers = response.headers_mut();
    match sized {
        Some(size) => drop(headers.insert(CONTENT_LENGTH, size.into())),
        None => drop(headers.remove(CONTENT_LENGTH)),
    }
    Err(Fault::Length(said))
}

/// What an answer says of its length, found in one pass: answers have few headers, and each look-up costs more.
struct Lengths<'a> {
    encoded: bool,
    said: Option<&'a HeaderValue>,
    is_one: bool,
}

impl<'a> Lengths<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut lengths = Self { encoded: false, said: None, is_one: true };
        for (name, line) in headers {
            if *name == CONTENT_LENGTH {
                lengths.is_one = lengths.said.is_none();
                lengths.said = lengths.said.or(Some(line));
            } else if *name == TRANSFER_ENCODING {
                lengths.encoded = true;
            }
        }
        lengths
    }
}

/// Digits and nothing else (RFC 9110, section 8.6).
fn number(said: &HeaderValue) -> Option<u64> {
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let (first, rest) = said.as_bytes().split_first()?;
    rest.iter().try_fold(digit(*first)?, |number, byte| number.checked_mul(10)?.checked_add(digit(*byte)?))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn streamed() -> ResponseBody {
        ResponseBody::new(http_body_util::StreamBody::new(futures_util::stream::pending::<
            Result<http_body::Frame<Bytes>, std::convert::Infallible>,
        >()))
    }

    fn whole() -> ResponseBody {
        ResponseBody::whole(Bytes::from_static(b"hello"))
    }

    /// What is said of the length at last, and whether it was what the app had said.
    #[track_caller]
    fn check(
        status: u16,
        said: &[&str],
        body: ResponseBody,
        head: bool,
        expected: Option<&str>,
        right: bool,
    ) {
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        for said in said {
            let value = HeaderValue::from_str(said).expect("a value");
            let _ = response.headers_mut().append(CONTENT_LENGTH, value);
        }
        let _ = response.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("gzip"));
        let framed = frame(&mut response, Asked { head, connect: false, version: Version::HTTP_11 });
        assert_eq!(framed.is_ok(), right, "{framed:?}");
        assert!(!response.headers().contains_key(TRANSFER_ENCODING));
        let lengths: Vec<_> = response.headers().get_all(CONTENT_LENGTH).iter().collect();
        assert_eq!(lengths, expected.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_length_is_what_it_is() {
        for said in ["3", "10", "0", "five", "+5", " 5", "5, 5", "99999999999999999999999", ""] {
            check(200, &[said], whole(), false, Some("5"), false);
        }
        check(200, &[], whole(), false, None, true);
        check(200, &["5"], whole(), false, Some("5"), true);
        check(200, &["5", "5"], whole(), false, Some("5"), false);
        check(200, &["5"], ResponseBody::empty(), false, Some("0"), false);
    }

    #[test]
    fn of_a_body_whose_length_nobody_knows_a_number_is_believed() {
        check(200, &["7"], streamed(), false, Some("7"), true);
        for said in [&["five"][..], &["7", "7"], &["7", "8"], &["-1"], &[""]] {
            check(200, said, streamed(), false, None, false);
        }
    }

    #[test]
    fn without_a_body_it_is_of_the_one_that_is_not_there() {
        for (status, head) in [(200, true), (304, false)] {
            check(status, &["7"], ResponseBody::empty(), head, Some("7"), true);
            check(status, &["7"], streamed(), head, Some("7"), true);
            check(status, &["7"], whole(), head, Some("5"), false);
            check(status, &["seven"], ResponseBody::empty(), head, None, false);
        }
        check(204, &["7"], whole(), false, None, true);
        check(101, &["7"], ResponseBody::empty(), false, None, true);
    }

    #[test]
    fn what_is_to_be_followed_by_an_answer_is_none() {
        for (status, version, is_one) in [
            (100, Version::HTTP_11, false),
            (103, Version::HTTP_2, false),
            (101, Version::HTTP_11, true),
            (101, Version::HTTP_2, false),
            (200, Version::HTTP_2, true),
        ] {
            let mut response = Response::new(whole());
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            let framed = frame(&mut response, Asked { head: false, connect: false, version });
            assert_eq!(framed.is_ok(), is_one, "{status}");
        }
    }
}
