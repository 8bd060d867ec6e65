//! Why the combo answered itself -> response. Short plain text; nothing of an app shows.

use std::fmt;

use bytes::Bytes;
use combo_core::BoxError;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER},
};

use super::body::ResponseBody;

/// Nobody knows how long a maintenance takes; this many seconds are asked for.
const MAINTENANCE: u32 = 30;

/// Why the combo answered a request itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No app may trust this request.
    Malformed(Malformed),
    /// No mount takes this host and path.
    NoMount,
    /// RFC 9110, section 15.5.20: nor is the certificate for this host, so it is another server's.
    Misdirected,
    /// The app panicked before it had answered.
    Panicked,
    /// The app returned an error instead of an answer.
    Failed,
    /// It did not answer in the time that its mount has.
    TimedOut,
    /// RFC 9110, section 15.5.14: the body is larger than its mount takes.
    TooLarge,
    /// As many requests are in flight, or wait, as the mount has room for.
    Busy,
    /// The process has as much memory as it may have.
    Full,
    /// The mount is in maintenance.
    Maintained,
    /// It waited for its mount to be resumed, and the combo stops.
    Stopping,
    /// RFC 6585, section 4: too many from this peer; so many seconds until the next.
    TooMany(u32),
}

/// Whoever stands before an app answers with this instead of asking it.
impl std::error::Error for Refusal {}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// RFC 9112, section 3.2: a request names its host.
    NoHost,
    /// RFC 9112, section 3.2: exactly one.
    ManyHosts,
    /// RFC 9112, section 3.2: which is a host.
    Host,
    /// RFC 9113, section 8.3.1, and RFC 9112, section 3.2.2: host and authority agree.
    HostsDiffer,
    /// RFC 9112, section 6.1: a message has a length or an encoding.
    TwoLengths,
    /// RFC 9112, section 6.1: `chunked`, once, is the only encoding known here.
    TransferEncoding,
    /// A `..` segment in the path as it was sent.
    DotDot,
    /// RFC 3986, section 2: what is not ASCII is percent-encoded.
    Target,
}

impl Refusal {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::NoMount => StatusCode::NOT_FOUND,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Panicked | Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy | Self::Full | Self::Maintained | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// What an error on the way to an app means; what no refusal explains is the app's own and told.
    pub(crate) fn of(error: BoxError, tell: impl FnOnce(&(dyn std::error::Error + 'static))) -> Self {
        error.downcast::<Self>().map_or_else(
            |error| {
                tell(&*error);
                Self::Failed
            },
            |refusal| *refusal,
        )
    }

    /// When to come back, in seconds (RFC 9110, section 10.2.3).
    fn retry_after(self) -> Option<u32> {
        match self {
            Self::Busy | Self::Full | Self::Stopping => Some(1),
            Self::Maintained => Some(MAINTENANCE),
            Self::TooMany(seconds) => Some(seconds),
            _ => None,
        }
    }

    pub(crate) fn response(self) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::whole(Bytes::from(format!("{self}\n"))));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        let _ = headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if let Some(seconds) = self.retry_after() {
            let _ = headers.insert(RETRY_AFTER, seconds.into());
        }
        // What is left of the request is not read.
        if matches!(self, Self::Malformed(_) | Self::TooLarge) {
            let _ = headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // Whoever is told in other words has to know it for one, also through layers.
        let _ = response.extensions_mut().insert(self);
        response
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed(why) => return write!(f, "bad request: {why}"),
            Self::NoMount => "not found",
            Self::Misdirected => "misdirected request: this is not the server of that host",
            Self::Panicked | Self::Failed => "internal server error",
            Self::TimedOut => "the answer took too long",
            Self::TooLarge => "the body is too large",
            Self::Busy => "busy",
            Self::Full => "no memory to spare",
            Self::Maintained => "down for maintenance",
            Self::Stopping => "stopping",
            Self::TooMany(_) => "too many requests",
        })
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHost => "it names no host",
            Self::ManyHosts => "it names more than one host",
            Self::Host => "its host is not a host",
            Self::HostsDiffer => "its host is not the one in its target",
            Self::TwoLengths => "it has both a length and a transfer encoding",
            Self::TransferEncoding => "its transfer encoding is not `chunked`",
            Self::DotDot => "its path has a `..` segment",
            Self::Target => "its target has bytes that have to be percent-encoded",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_status_and_a_sentence() {
        for (refusal, status, sentence) in [
            (Refusal::Malformed(Malformed::NoHost), 400, "bad request: it names no host"),
            (Refusal::Malformed(Malformed::ManyHosts), 400, "bad request: it names more than one host"),
            (Refusal::Malformed(Malformed::Host), 400, "bad request: its host is not a host"),
            (
                Refusal::Malformed(Malformed::HostsDiffer),
                400,
                "bad request: its host is not the one in its target",
            ),
            (
                Refusal::Malformed(Malformed::TwoLengths),
                400,
                "bad request: it has both a length and a transfer encoding",
            ),
            (
                Refusal::Malformed(Malformed::TransferEncoding),
                400,
                "bad request: its transfer encoding is not `chunked`",
            ),
            (Refusal::Malformed(Malformed::DotDot), 400, "bad request: its path has a `..` segment"),
            (
                Refusal::Malformed(Malformed::Target),
                400,
                "bad request: its target has bytes that have to be percent-encoded",
            ),
            (Refusal::NoMount, 404, "not found"),
            (Refusal::Misdirected, 421, "misdirected request: this is not the server of that host"),
            (Refusal::Panicked, 500, "internal server error"),
            (Refusal::Failed, 500, "internal server error"),
            (Refusal::TimedOut, 504, "the answer took too long"),
            (Refusal::TooLarge, 413, "the body is too large"),
            (Refusal::Busy, 503, "busy"),
            (Refusal::Full, 503, "no memory to spare"),
            (Refusal::Maintained, 503, "down for maintenance"),
            (Refusal::Stopping, 503, "stopping"),
            (Refusal::TooMany(3), 429, "too many requests"),
        ] {
            assert_eq!((refusal.status().as_u16(), refusal.to_string().as_str()), (status, sentence));
        }
    }
}
