//! Bodies on their way in and out, both streamed with back-pressure. A request body is `Send` and
//! `Sync`, as warp asks for; a response body stays on its worker and need not be either.

use std::{
    any::Any,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use combo_core::BoxError;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use send_wrapper::SendWrapper;
use sync_wrapper::SyncWrapper;

use super::{exchange::Exchange, sweep::Progress};

/// The body of a request: as it comes from the client, or what a layer made of it.
pub struct RequestBody {
    source: Source,
    progress: Option<Arc<Progress>>,
    exchange: Option<Arc<Exchange>>,
}

enum Source {
    Client(Incoming),
    Other(Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send + Sync>>),
}

impl RequestBody {
    /// Any body. One that is a `RequestBody` already stays what it is.
    pub fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut body = Some(body);
        if let Some(same) = (&mut body as &mut dyn Any).downcast_mut::<Option<Self>>() {
            return same.take().expect("it was put there a line ago");
        }
        let body = Alone::new(body.expect("it was not taken"));
        Self { source: Source::Other(Box::pin(body)), progress: None, exchange: None }
    }

    pub(crate) fn of_client(
        incoming: Incoming,
        progress: &Arc<Progress>,
        exchange: Option<&Arc<Exchange>>,
    ) -> Self {
        let comes = !incoming.is_end_stream();
        let progress = comes.then(|| {
            progress.body_began();
            progress.clone()
        });
        Self { source: Source::Client(incoming), progress, exchange: exchange.filter(|_| comes).cloned() }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.source {
            Source::Client(incoming) => {
                let polled = Pin::new(incoming).poll_frame(cx);
                if let Some(exchange) = &self.exchange {
                    if polled.is_ready() {
                        exchange.body(false);
                    } else if exchange.body_waits(cx.waker()) {
                        // Nothing of it is wanted any more, which its client is told by that.
                        self.source = Source::Other(Box::pin(
                            http_body_util::Empty::new().map_err(|none| match none {}),
                        ));
                        return Poll::Ready(Some(Err("the client was too slow".into())));
                    }
                } else if let Some(progress) = &self.progress {
                    progress.body(polled.is_pending());
                }
                Poll::Ready(ready!(polled).map(|frame| frame.map_err(Into::into)))
            }
            Source::Other(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Client(incoming) => incoming.is_end_stream(),
            Source::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Client(incoming) => incoming.size_hint(),
            Source::Other(body) => body.size_hint(),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(exchange) = &self.exchange {
            exchange.body(false);
        }
        if let Some(progress) = &self.progress {
            progress.body_ended();
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").finish_non_exhaustive()
    }
}

/// The body of a response. What it is made of may belong to one thread, so it stays on its worker: it is
/// `Send` and `Sync` for layers that ask for that, and panics where it is read on another thread.
#[derive(Default)]
pub struct ResponseBody(pub(crate) Content);

#[derive(Default)]
pub(crate) enum Content {
    #[default]
    Empty,
    /// All of it is here.
    Whole(Bytes),
    /// It is always there, so the next piece is asked for when the last is written.
    #[cfg_attr(not(feature = "files"), expect(dead_code, reason = "files alone are always there"))]
    Paced(SendWrapper<Pin<Box<dyn Body<Data = Bytes, Error = BoxError>>>>),
    /// It comes bit by bit.
    Streamed(SendWrapper<Pin<Box<dyn Body<Data = Bytes, Error = BoxError>>>>),
}

impl ResponseBody {
    pub(crate) fn empty() -> Self {
        Self(Content::Empty)
    }

    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self(if bytes.is_empty() { Content::Empty } else { Content::Whole(bytes) })
    }

    pub(crate) fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + 'static,
        B::Error: Into<BoxError>,
    {
        if body.is_end_stream() {
            return Self::empty();
        }
        Self(Content::Streamed(SendWrapper::new(Box::pin(Boxable { body }))))
    }

    /// One that is always ready, and of which no more than a piece is to be held for a client that takes
    /// its time.
    #[cfg(feature = "files")]
    pub(crate) fn paced<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + 'static,
        B::Error: Into<BoxError>,
    {
        match Self::new(body).0 {
            Content::Streamed(body) => Self(Content::Paced(body)),
            whole => Self(whole),
        }
    }

    /// Whether there is more of it to come.
    pub(crate) fn streams(&self) -> bool {
        matches!(self.0, Content::Paced(_) | Content::Streamed(_))
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
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
            Ok(Ok(bytes)) if bytes.len() as u64 == length && body.is_end_stream() => Self::whole(bytes),
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
        Self(Content::Streamed(SendWrapper::new(Box::pin(Begun {
            first: Some(first),
            body: Box::pin(Boxable { body }),
        }))))
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

pin_project_lite::pin_project! {
    /// A body that only one thread at a time can look at, so that it need not be `Sync` to seem so.
    struct Alone<B> {
        #[pin]
        body: SyncWrapper<B>,
        ended: bool,
        hint: SizeHint,
    }
}

impl<B: Body<Data = Bytes>> Alone<B> {
    fn new(body: B) -> Self {
        let (ended, hint) = (body.is_end_stream(), body.size_hint());
        Self { body: SyncWrapper::new(body), ended, hint }
    }
}

impl<B> Body for Alone<B>
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
        let this = self.project();
        let mut body = this.body.get_pin_mut();
        let frame = ready!(body.as_mut().poll_frame(cx));
        // Both may be asked for through a shared reference, which the body itself cannot be.
        (*this.ended, *this.hint) = (body.is_end_stream(), body.size_hint());
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Content::Paced(body) | Content::Streamed(body) => body.as_mut().poll_frame(cx),
            whole => Poll::Ready(match std::mem::take(whole) {
                Content::Whole(bytes) => Some(Ok(Frame::data(bytes))),
                _ => None,
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Empty => true,
            Content::Whole(_) => false,
            Content::Paced(body) | Content::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Empty => SizeHint::with_exact(0),
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Paced(body) | Content::Streamed(body) => body.size_hint(),
        }
    }
}
