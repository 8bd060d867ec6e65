//! What is different where a request is a call of gRPC: it brings its own deadline, as gRPC's servers keep
//! it, and a refusal is said in gRPC's words, since its clients read nothing else.
//!
//! By gRPC's "PROTOCOL-HTTP2.md" and "http-grpc-status-mapping.md".

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, header::CONTENT_TYPE,
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio::time::{Sleep, sleep};

use super::{body::ResponseBody, refusal::Refusal};

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const KIND: &str = "application/grpc";

/// A call that has no answer yet.
pub(crate) struct Call {
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Call {
    /// The call that a request is, if it is one.
    pub(crate) fn of<B>(request: &Request<B>) -> Option<Self> {
        if request.version() != Version::HTTP_2 || !is_grpc(request.headers()) {
            return None;
        }
        let deadline = request.headers().get(TIMEOUT).and_then(|said| timeout(said.as_bytes()));
        Some(Self { deadline: deadline.map(|limit| Box::pin(sleep(limit))) })
    }

    /// Whether nobody waits for its answer any more.
    pub(crate) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let deadline = self.deadline.as_mut();
        deadline.is_some_and(|deadline| matches!(deadline.as_mut().poll(cx), Poll::Ready(())))
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().strip_prefix(KIND.as_bytes()));
    // `application/grpc-web` is another protocol.
    kind.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// At most eight digits and a unit.
fn timeout(said: &[u8]) -> Option<Duration> {
    let (unit, digits) = said.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3_600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The number of a status.
fn status(refusal: Refusal) -> u16 {
    match refusal {
        Refusal::Panicked | Refusal::Failed => 2,
        Refusal::TimedOut => 4,
        Refusal::TooLarge => 8,
        Refusal::NoMount | Refusal::Misdirected => 12,
        Refusal::Malformed(_) => 13,
        Refusal::Busy | Refusal::Full | Refusal::TooMany(_) | Refusal::Maintained | Refusal::Stopping => 14,
    }
}

/// What a message may not have in it as it is.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// A refusal as the answer to a call: a head that is all there is.
pub(crate) fn refused(refusal: Refusal) -> Response<ResponseBody> {
    let mut response = refusal.response().map(|_| ResponseBody::empty());
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    let _ = headers.insert(CONTENT_TYPE, HeaderValue::from_static(KIND));
    let _ = headers.insert(STATUS, status(refusal).into());
    let message = utf8_percent_encode(&refusal.to_string(), ESCAPED).to_string();
    if let Ok(message) = HeaderValue::try_from(message) {
        let _ = headers.insert(MESSAGE, message);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_up_to_eight_digits_and_a_unit() {
        for (said, expected) in [
            ("1H", Some(Duration::from_secs(3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("30S", Some(Duration::from_secs(30))),
            ("50m", Some(Duration::from_millis(50))),
            ("7u", Some(Duration::from_micros(7))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("99999999H", Some(Duration::from_secs(359_999_996_400))),
            ("100000000n", None),
            ("S", None),
            ("", None),
            ("1", None),
            ("-1S", None),
            ("1s", None),
            ("1 S", None),
        ] {
            assert_eq!(timeout(said.as_bytes()), expected, "{said}");
        }
    }

    #[test]
    fn a_call_is_known_by_its_kind_and_version() {
        for (version, kind, expected) in [
            (Version::HTTP_2, "application/grpc", true),
            (Version::HTTP_2, "application/grpc+proto", true),
            (Version::HTTP_2, "application/grpc;x=y", true),
            (Version::HTTP_2, "application/grpc-web", false),
            (Version::HTTP_2, "application/json", false),
            (Version::HTTP_11, "application/grpc", false),
        ] {
            let request = Request::builder().version(version).header(CONTENT_TYPE, kind).body(());
            assert_eq!(Call::of(&request.expect("a request")).is_some(), expected, "{version:?} {kind}");
        }
    }

    #[test]
    fn a_refusal_is_a_head_with_a_status_and_a_message() {
        let response = refused(Refusal::TooMany(3));
        let said = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(response.status(), 200);
        assert_eq!((said("grpc-status"), said("grpc-message")), (Some("14"), Some("too many requests")));
        assert_eq!((said("content-type"), said("retry-after")), (Some(KIND), Some("3")));
    }
}
