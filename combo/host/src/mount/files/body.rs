//! What is sent: nothing, a few words, or a file chunk by chunk.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};

use super::opened;

/// The body of every response of [`super::Files`]. It knows its length and ends with an error when the
/// file turns out to be shorter.
#[derive(Debug)]
pub(crate) struct FilesBody {
    content: Content,
    /// Bytes to come.
    left: u64,
}

enum Content {
    Text(Bytes),
    File(opened::Body),
}

impl FilesBody {
    pub(super) fn empty() -> Self {
        Self::text("")
    }

    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        Self { left: text.len() as u64, content: Content::Text(text) }
    }

    /// What `ServeDir` made of a file; as long as its head says, and empty if it says nothing.
    pub(super) fn served(response: Response<opened::Body>) -> Response<Self> {
        let said =
            response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        response.map(|body| Self { content: Content::File(body), left: said.unwrap_or_default() })
    }
}

impl Body for FilesBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let chunk = match &mut this.content {
            Content::Text(text) => Some(Ok(Frame::data(std::mem::take(text)))),
            Content::File(file) => ready!(Pin::new(file).poll_frame(cx)),
        };
        let sent = match &chunk {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len) as u64,
            // Over, one way or the other.
            Some(Err(_)) | None => this.left,
        };
        this.left = this.left.saturating_sub(sent);
        Poll::Ready(chunk)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text(_) => "Text",
            Self::File(_) => "File",
        })
    }
}
