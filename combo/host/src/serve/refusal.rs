//! Why the combo answered itself -> response. Short plain text; nothing of an app shows.

use std::fmt;

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE},
};

use super::body::ResponseBody;

/// Why the combo answered a request itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No app may trust this request.
    Malformed(Malformed),
    /// No mount takes this host and path.
    NoMount,
    /// The app panicked before it had answered.
    Panicked,
    /// The app returned an error instead of an answer.
    Failed,
}

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
}

impl Refusal {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::NoMount => StatusCode::NOT_FOUND,
            Self::Panicked | Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(crate) fn response(self) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::whole(Bytes::from(format!("{self}\n"))));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        let _ = headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if let Self::Malformed(_) = self {
            let _ = headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed(why) => return write!(f, "bad request: {why}"),
            Self::NoMount => "not found",
            Self::Panicked | Self::Failed => "internal server error",
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
            (Refusal::NoMount, 404, "not found"),
            (Refusal::Panicked, 500, "internal server error"),
            (Refusal::Failed, 500, "internal server error"),
        ] {
            assert_eq!((refusal.status().as_u16(), refusal.to_string().as_str()), (status, sentence));
        }
    }
}
