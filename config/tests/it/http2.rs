//! A client that speaks HTTP/2, by hyper, with a deadline.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::{Handle, Runtime},
    task::JoinHandle,
};

use crate::{
    site::PATIENCE,
    wire::{Alpn, Answer, tls},
};

pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// One connection. Over plain TCP the client knows beforehand, over TLS it is agreed upon by ALPN.
pub(crate) struct Http2 {
    runtime: Handle,
    requests: SendRequest<Body>,
    scheme: &'static str,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Http2 {
    pub(crate) fn tcp(runtime: &Runtime, address: SocketAddr) -> Self {
        let runtime = runtime.handle().clone();
        let (requests, connection) = in_time(&runtime, async {
            spoken(TcpStream::connect(address).await.expect("a connection")).await
        });
        Self { runtime, requests, scheme: "http", connection }
    }

    pub(crate) fn tls(runtime: &Runtime, address: SocketAddr) -> Self {
        let runtime = runtime.handle().clone();
        let (requests, connection) = in_time(&runtime, async {
            let connector = tokio_rustls::TlsConnector::from(Arc::new(tls(Alpn::Http2)));
            let socket = TcpStream::connect(address).await.expect("a connection");
            let stream = connector.connect("localhost".try_into().expect("a name"), socket).await;
            spoken(stream.expect("a handshake")).await
        });
        Self { runtime, requests, scheme: "https", connection }
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.ask(self.request(Method::GET, target, &[], ""))
    }

    pub(crate) fn ask(&self, request: Request<Body>) -> Answer {
        self.try_ask(request).unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    /// An error says that no head came.
    pub(crate) fn try_ask(&self, request: Request<Body>) -> hyper::Result<Answer> {
        in_time(&self.runtime, async { Ok(read(self.begin(request).await?).await) })
    }

    /// The head of the answer; the body is to be read.
    pub(crate) fn begin(
        &self,
        request: Request<Body>,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + use<> {
        self.requests.clone().send_request(request)
    }

    /// A request for the host `test`, unless the target names one.
    pub(crate) fn request(
        &self,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Request<Body> {
        let uri = if target.contains("://") {
            target.parse().expect("a URI")
        } else {
            let builder = Uri::builder().scheme(self.scheme).authority("test").path_and_query(target);
            builder.build().expect("a target")
        };
        let mut request = Request::builder().method(method).uri(uri).version(Version::HTTP_2);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(body.into()).boxed()).expect("a request")
    }

    /// Waits for a future, and not for ever.
    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        in_time(&self.runtime, future)
    }

    /// Waits until the other side has ended the connection.
    pub(crate) fn ended(self) {
        let Self { runtime, requests, connection, .. } = self;
        let _ = in_time(&runtime, connection).expect("it does not panic");
        drop(requests);
    }
}

fn in_time<F: Future>(runtime: &Handle, future: F) -> F::Output {
    let in_time = async { tokio::time::timeout(PATIENCE, future).await };
    runtime.block_on(in_time).expect("it does not take that long")
}

async fn spoken(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> (SendRequest<Body>, JoinHandle<hyper::Result<()>>) {
    let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (requests, connection) = shaken.expect("HTTP/2");
    (requests, tokio::spawn(connection))
}

/// Reads a response to its end, whichever that is.
pub(crate) async fn read(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let mut answer =
        Answer { status: head.status.as_u16(), headers: text(&head.headers), body: Vec::new(), whole: true };
    let mut body = std::pin::pin!(body);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => answer.body.extend_from_slice(frame.data_ref().map_or(&[], |bytes| &bytes[..])),
            Err(_) => {
                answer.whole = false;
                break;
            }
        }
    }
    answer
}

fn text(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// The beginning of an upload, for the host `a`, as the bytes of a connection: the preface, `SETTINGS`, a
/// head, and a piece of a body that goes on.
pub(crate) fn upload(target: &str, headers: &[(&str, &str)], piece: &[u8]) -> Vec<u8> {
    let sized = |text: &str| [&[u8::try_from(text.len()).expect("a short text")], text.as_bytes()].concat();
    // `:method: POST`, `:scheme: http`, `:path`, `:authority: a`, then literals (RFC 7541, appendix A).
    let mut block = [&[0x83, 0x86, 0x04], &*sized(target), &[0x01, 1], b"a"].concat();
    for (name, value) in headers {
        block.extend([&[0], &*sized(name), &sized(value)].concat());
    }
    let frame = |kind: u8, flags: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).expect("a short frame");
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
    };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    [&preface[..], &frame(1, 4, &block), &frame(0, 0, piece)].concat()
}

/// A body whose pieces come out of a channel.
pub(crate) struct Piped(pub(crate) tokio::sync::mpsc::Receiver<Bytes>);

impl http_body::Body for Piped {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}
