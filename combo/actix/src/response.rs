//! Takes the app's response and gives one of `http` 1, by the rules of actix's own encoder.
//!
//! A body that is already in memory stays one piece; any other is polled when the reader asks.

use std::{
    cell::RefCell,
    error::Error as StdError,
    fmt::{self, Write as _},
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use actix_http::{ConnectionType, Response};
use actix_web::body::{BodySize, BoxBody, MessageBody};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use http_body::{Frame, SizeHint};

use crate::{
    glossary::{self, Glossary},
    service::BoxError,
    upgrade::Tunnel,
};

/// What is known of a request when its response comes.
pub(crate) struct Reply {
    pub(crate) glossary: Rc<RefCell<Glossary>>,
    pub(crate) version: Version,
    /// Whether the method was HEAD.
    pub(crate) head: bool,
    /// Whether the method was CONNECT.
    pub(crate) connect: bool,
    /// The request's map, empty: hyper takes the response's map for the next request, so one
    /// allocation serves a whole connection.
    pub(crate) headers: HeaderMap,
    pub(crate) tunnel: Option<Box<Tunnel>>,
}

impl Reply {
    pub(crate) fn with<B>(self, response: Response<B>) -> http::Response<Body>
    where
        B: MessageBody + 'static,
    {
        let (mut response, body) = response.into_parts();
        // Heads are pooled and keep the version that actix's own server wrote into them, which would
        // count as a wish to close.
        response.head_mut().version = actix_http::Version::HTTP_11;
        let status = StatusCode::from_u16(response.status().as_u16())
            .expect("both versions of http take the same status codes");
        let http1 = self.version < Version::HTTP_2;
        let mut size = body.size();
        // Whether the app may say the length itself: actix's encoders have the same cases.
        let mut own_length = size == BodySize::Stream && !(http1 && response.head().chunked());
        match status {
            StatusCode::CONTINUE
            | StatusCode::SWITCHING_PROTOCOLS
            | StatusCode::PROCESSING
            | StatusCode::NO_CONTENT => {
                size = BodySize::None;
                own_length = false;
            }
            StatusCode::NOT_MODIFIED => {
                size = BodySize::None;
                own_length = true;
            }
            _ => {}
        }

        let mut headers = self.headers;
        let mut upgrade = false;
        {
            let mut words = self.glossary.borrow_mut();
            for (position, (name, value)) in response.headers().iter().enumerate() {
                let place = words.place(position, name);
                match place {
                    Some(glossary::CONNECTION) => continue,
                    Some(glossary::CONTENT_LENGTH | glossary::TRANSFER_ENCODING) if !own_length => continue,
                    Some(glossary::TRANSFER_ENCODING | glossary::KEEP_ALIVE | glossary::PROXY_CONNECTION)
                        if !http1 =>
                    {
                        continue;
                    }
                    Some(glossary::UPGRADE) if !http1 => continue,
                    Some(glossary::UPGRADE) => upgrade = true,
                    _ => {}
                }
                words.outward(place, name, value, &mut headers);
            }
        }
        if http1 {
            let value = match (response.head().connection_type(), upgrade) {
                (ConnectionType::Close, true) => Some("close, upgrade"),
                (ConnectionType::Close, false) => Some("close"),
                (ConnectionType::Upgrade, _) | (_, true) => Some("upgrade"),
                (ConnectionType::KeepAlive, false) => None,
            };
            if let Some(value) = value {
                let _ = headers.insert(header::CONNECTION, HeaderValue::from_static(value));
            }
        }

        let switches = status == StatusCode::SWITCHING_PROTOCOLS || self.connect && status.is_success();
        let body = match self.tunnel {
            Some(tunnel) if switches => {
                let _ = headers.remove(header::CONTENT_LENGTH);
                let _ = headers.remove(header::TRANSFER_ENCODING);
                tunnel.open(body.boxed());
                Kind::Empty
            }
            _ if self.head => {
                if let BodySize::Sized(length) = size {
                    let _ = headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
                }
                Kind::Empty
            }
            _ => match size {
                // A server would take an empty body for a reason to drop the length.
                BodySize::None if headers.contains_key(header::CONTENT_LENGTH) => Kind::Withheld,
                BodySize::None => Kind::Empty,
                BodySize::Sized(0) => {
                    let _ = headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
                    Kind::Empty
                }
                BodySize::Sized(length) => match body.try_into_bytes() {
                    Ok(bytes) => Kind::Full(bytes),
                    Err(body) => Kind::Stream { pieces: Pieces::new(body.boxed()), left: Some(length) },
                },
                BodySize::Stream => Kind::Stream { pieces: Pieces::new(body.boxed()), left: None },
            },
        };

        let mut answer = http::Response::new(Body(body));
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        answer
    }
}

/// The body of an app's response: one piece if it was in memory, else read when polled.
///
/// Not `Send`. Its size is exact whenever the app knew it.
#[derive(Debug)]
pub struct Body(pub(crate) Kind);

#[derive(Debug)]
pub(crate) enum Kind {
    Empty,
    /// No bytes, but not for want of a length.
    Withheld,
    Full(Bytes),
    Stream {
        pieces: Pieces,
        left: Option<u64>,
    },
}

/// A body of actix, piece by piece.
#[derive(Debug)]
pub(crate) struct Pieces {
    body: BoxBody,
    /// There was a piece: the first one is not kept waiting, not even for what may go wrong behind it.
    begun: bool,
    /// What came after small pieces that were put together, if it could not be one of them.
    held: Option<Next>,
}

type Next = Option<Result<Bytes, Box<dyn StdError>>>;

/// A piece shorter than this is put together with those behind it that are there already, since each
/// piece costs a server much more than its bytes.
const SMALL: usize = 1_024;

/// How much is put together at most.
const TOGETHER: usize = 8 << 10;

impl Pieces {
    fn new(body: BoxBody) -> Self {
        Self { body, begun: false, held: None }
    }

    /// The next one that is not empty: actix's encoder writes nothing for these, and a frame without
    /// bytes is no use to anyone.
    fn poll_one(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        loop {
            match self.body.as_pin_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) if bytes.is_empty() => {}
                polled => return polled,
            }
        }
    }

    /// The next one, or small ones put together. Never waits for a second one.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let first = match self.held.take() {
            Some(held) => held,
            None => ready!(self.poll_one(cx)),
        };
        let begun = mem::replace(&mut self.begun, true);
        let first = match first {
            Some(Ok(bytes)) if begun && bytes.len() < SMALL => bytes,
            other => return Poll::Ready(other),
        };
        let mut all = BytesMut::new();
        while all.len() < TOGETHER - SMALL {
            match self.poll_one(cx) {
                Poll::Ready(Some(Ok(bytes))) if bytes.len() < SMALL => {
                    if all.is_empty() {
                        all.reserve(TOGETHER);
                        all.extend_from_slice(&first);
                    }
                    all.extend_from_slice(&bytes);
                }
                Poll::Ready(other) => {
                    self.held = Some(other);
                    break;
                }
                Poll::Pending => break,
            }
        }
        Poll::Ready(Some(Ok(if all.is_empty() { first } else { all.freeze() })))
    }
}

impl Body {
    pub(crate) fn refusal(status: StatusCode) -> http::Response<Self> {
        let mut response = http::Response::new(Self(Kind::Empty));
        *response.status_mut() = status;
        let _ = response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        response
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Kind::Stream { pieces, left } = &mut self.0 else {
            return Poll::Ready(match mem::replace(&mut self.0, Kind::Empty) {
                Kind::Full(bytes) => Some(Ok(Frame::data(bytes))),
                _ => None,
            });
        };
        let next = ready!(pieces.poll(cx));
        let frame = match (next, left) {
            (Some(Ok(mut bytes)), Some(left)) => {
                bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= bytes.len() as u64;
                Some(Ok(bytes))
            }
            (Some(Ok(bytes)), None) => Some(Ok(bytes)),
            (Some(Err(error)), _) => Some(Err(spelled(&*error).into())),
            (None, Some(left)) if *left > 0 => {
                Some(Err(format!("the app's body ended {left} bytes before the length it gave").into()))
            }
            (None, _) => None,
        };
        match frame {
            Some(Ok(bytes)) if bytes.is_empty() => {
                // All that was promised is sent: what comes after is cut off, as actix does.
                self.0 = Kind::Empty;
                Poll::Ready(None)
            }
            Some(Ok(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Some(Err(error)) => {
                self.0 = Kind::Empty;
                Poll::Ready(Some(Err(error)))
            }
            None => {
                self.0 = Kind::Empty;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Kind::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream { left: Some(left), .. } => SizeHint::with_exact(*left),
            Kind::Withheld | Kind::Stream { left: None, .. } => SizeHint::default(),
        }
    }
}

/// The error and its causes in one line: actix's body errors cannot leave their thread.
pub(crate) fn spelled(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _: fmt::Result = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
