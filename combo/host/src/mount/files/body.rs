//! What is sent: nothing, bytes that are there, parts of a file; one after the other.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    opened::{Opened, Reader},
    trips::Trips,
};

/// What is sent in every response of [`super::Files`], of which nothing has been read yet.
#[derive(Debug, Default)]
pub(crate) struct FilesBody {
    /// Before the sections. Often it is all, and then they need no memory.
    first: Bytes,
    sections: VecDeque<Section>,
    /// Bytes to come.
    left: u64,
}

#[derive(Debug)]
enum Section {
    Bytes(Bytes),
    /// And how many bytes of it are to come.
    File(Reader, u64),
}

impl FilesBody {
    pub(super) fn empty() -> Self {
        Self::default()
    }

    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        Self::empty().and(text.into())
    }

    /// With these after what there is.
    pub(super) fn and(mut self, bytes: Bytes) -> Self {
        if !bytes.is_empty() {
            if self.left == 0 {
                self.first = bytes;
                self.left = self.first.len() as u64;
            } else {
                self.left += bytes.len() as u64;
                self.sections.push_back(Section::Bytes(bytes));
            }
        }
        self
    }

    /// With so many bytes of a file after what there is.
    pub(super) fn and_file(mut self, opened: Opened, at: u64, len: u64) -> Self {
        if len > 0 {
            self.left += len;
            self.sections.push_back(Section::File(Reader::new(opened, at), len));
        }
        self
    }

    /// All of it, if it is there at once.
    pub(crate) fn into_whole(self) -> Result<Bytes, Self> {
        if self.sections.is_empty() { Ok(self.first) } else { Err(self) }
    }

    /// As a body that reads what is not in memory by these.
    pub(super) fn read_by(self, trips: Trips) -> Sending {
        Sending { body: self, trips }
    }
}

/// What is being sent. It knows its length and ends with an error when a file turns out to be shorter.
#[derive(Debug)]
pub(super) struct Sending {
    body: FilesBody,
    trips: Trips,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Self { body: this, trips } = self.get_mut();
        if !this.first.is_empty() {
            let first = std::mem::take(&mut this.first);
            this.left -= first.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let piece = match this.sections.front_mut() {
            None => return Poll::Ready(None),
            Some(Section::Bytes(bytes)) => Ok(std::mem::take(bytes)),
            Some(Section::File(reader, len)) => ready!(reader.poll_piece(cx, *len, trips)).inspect(|piece| {
                *len -= piece.len() as u64;
            }),
        };
        if !matches!(this.sections.front(), Some(Section::File(_, 1..))) {
            let _ = this.sections.pop_front();
        }
        match piece {
            Ok(piece) => {
                this.left -= piece.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Err(error) => {
                // Over.
                *this = FilesBody::empty();
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.left)
    }
}
