//! What an app sees and what comes of its answers, one file per subject.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

/// By HTTP/2.
mod http2;
/// The same app behind actix's own server and behind hyper.
mod like_actix;
/// From the request of `http` 1 to what the app sees.
mod request;
/// From the app's response to that of `http` 1.
mod response;
/// Bodies in both directions, and who waits for whom.
mod streaming;
/// The service that may be called from any thread.
mod threads;
/// Connections that change their protocol.
mod upgrade;

use std::{
    cell::Cell,
    convert::Infallible,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use combo_actix::{ActixService, Body};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::io::DuplexStream;

/// Runs a test on one thread, as a caller without actix's runtime would.
fn alone<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// Serves one connection by hyper, in the background.
fn serve(service: &ActixService, pipe: DuplexStream) {
    let service = TowerToHyperService::new(service.clone());
    let _task = tokio::task::spawn_local(async move {
        let connection = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(pipe), service)
            .with_upgrades();
        // Some tests hang up in the middle.
        let _ended = connection.await;
    });
}

fn empty() -> Empty<Bytes> {
    Empty::new()
}

fn full(text: &'static str) -> Full<Bytes> {
    Full::new(Bytes::from_static(text.as_bytes()))
}

async fn text(response: http::Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A body of `length` pieces that counts how many have been asked for.
struct Counted {
    piece: Bytes,
    given: Rc<Cell<usize>>,
    length: usize,
}

impl Counted {
    fn new(size: usize, length: usize) -> (Self, Rc<Cell<usize>>) {
        let given = Rc::new(Cell::new(0));
        (Self { piece: Bytes::from(vec![b'x'; size]), given: Rc::clone(&given), length }, given)
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.given.get() == self.length {
            return Poll::Ready(None);
        }
        self.given.set(self.given.get() + 1);
        Poll::Ready(Some(Ok(Frame::data(self.piece.clone()))))
    }
}

impl futures_core::Stream for Counted {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        http_body::Body::poll_frame(self, cx)
            .map(|next| next.map(|frame| Ok(frame.unwrap().into_data().unwrap())))
    }
}
