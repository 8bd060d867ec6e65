//! Bodies on their way in and out, both streamed with back-pressure. A request body is `Send` and
//! `Sync`, as warp asks for; a response body stays on its worker and need not be either.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use combo_core::BoxError;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::sweep::Progress;

/// The body of a request, as it comes from the client.
pub struct RequestBody {
    incoming: Incoming,
    progress: Option<Arc<Progress>>,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, progress: &Arc<Progress>) -> Self {
        let progress = (!incoming.is_end_stream()).then(|| progress.clone());
        Self { incoming, progress }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if let Some(progress) = &self.progress {
            progress.body(polled.is_pending());
        }
        Poll::Ready(ready!(polled).map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.body(false);
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").finish_non_exhaustive()
    }
}

/// The body of a response.
pub(crate) enum ResponseBody {
    /// All of it is here.
    Whole(Option<Bytes>),
    /// It comes bit by bit.
    Streamed(Pin<Box<dyn Body<Data = Bytes, Error = BoxError>>>),
}

impl ResponseBody {
    pub(crate) fn empty() -> Self {
        Self::Whole(None)
    }

    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    pub(crate) fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + 'static,
        B::Error: Into<BoxError>,
    {
        if body.is_end_stream() {
            return Self::empty();
        }
        Self::Streamed(Box::pin(Boxable { body }))
    }
}

/// A body that is all there is sent as one piece if it is no larger than this.
const WHOLE: u64 = 64 << 10;

impl ResponseBody {
    /// The same, but what is all there already is taken out of its box.
    pub(crate) fn begun<B>(mut body: B, cx: &mut Context<'_>) -> Self
    where
        B: Body<Data = Bytes> + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let Some(length @ 1..=WHOLE) = body.size_hint().exact() else { return Self::new(body) };
        let first = match Pin::new(&mut body).poll_frame(cx) {
            Poll::Pending => return Self::new(body),
            Poll::Ready(None) => return Self::empty(),
            Poll::Ready(Some(first)) => first.map_err(Into::into),
        };
        match first.map(Frame::into_data) {
            Ok(Ok(bytes)) if bytes.len() as u64 == length && body.is_end_stream() => Self::Whole(Some(bytes)),
            Ok(Ok(bytes)) => Self::rest(Ok(Frame::data(bytes)), body),
            Ok(Err(frame)) => Self::rest(Ok(frame), body),
            Err(error) => Self::rest(Err(error), body),
        }
    }

    fn rest<B>(first: Result<Frame<Bytes>, BoxError>, body: B) -> Self
    where
        B: Body<Data = Bytes> + 'static,
        B::Error: Into<BoxError>,
    {
        Self::Streamed(Box::pin(Begun { first: Some(first), body: Box::pin(Boxable { body }) }))
    }
}

/// A body whose first frame was looked at.
struct Begun<B> {
    first: Option<Result<Frame<Bytes>, BoxError>>,
    body: Pin<Box<B>>,
}

impl<B: Body<Data = Bytes, Error = BoxError>> Body for Begun<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => self.body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        if let Some(bytes) = self.first.as_ref().and_then(|first| first.as_ref().ok()?.data_ref()) {
            let more = bytes.len() as u64;
            let lower = hint.lower() + more;
            if let Some(upper) = hint.upper() {
                hint.set_upper(upper + more);
            }
            hint.set_lower(lower);
        }
        hint
    }
}

pin_project_lite::pin_project! {
    /// A body with its error boxed.
    struct Boxable<B> { #[pin] body: B }
}

impl<B> Body for Boxable<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(ready!(self.project().body.poll_frame(cx)).map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Streamed(body) => body.size_hint(),
        }
    }
}
