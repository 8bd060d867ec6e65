//! A small app of axum: it greets, streams, counts, tells what it sees of a request, and misbehaves
//! when asked to. `examples/alone.rs` runs it under axum's own server.

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::multipart::{Multipart, MultipartError};
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{ConnectInfo, DefaultBodyLimit, OriginalUri, Path, Query, Request};
use axum::http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, TRAILER};
use axum::http::uri::Authority;
use axum::http::{HeaderName, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Extension, Json, Router};
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use http_body::Frame;
use http_body_util::StreamBody;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::sleep;

const TICK: Duration = Duration::from_millis(100);
const TEXT: (HeaderName, &str) = (CONTENT_TYPE, "text/plain; charset=utf-8");
const LENGTH: HeaderName = HeaderName::from_static("x-length");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The app.
pub fn app() -> Router {
    Router::new()
        .route("/", get("Hello from axum!\n"))
        .route("/hello/{name}", get(hello))
        .route("/json", get(greeting))
        .route("/echo", post(echo))
        .route("/sink", any(sink))
        .route("/stream", get(events))
        .route("/ws", any(talk))
        .route("/upload", post(upload).layer(DefaultBodyLimit::disable()))
        .route("/trailers", get(trailers))
        .route("/where", any(whereabouts))
        .route("/panic", get(panic))
        .route("/panic/body", get(panic_body))
        .route("/endless", get(endless))
        .route("/fill", get(fill))
        .route("/slow", get(slow))
        .route("/block", get(block))
}

async fn hello(Path(name): Path<String>) -> String {
    format!("Hello, {name}!\n")
}

async fn greeting() -> Json<Value> {
    Json(json!({ "framework": "axum", "message": "Hello, JSON!" }))
}

async fn echo(headers: HeaderMap, body: Body) -> impl IntoResponse {
    let kind = headers.get(CONTENT_TYPE).cloned().unwrap_or(BINARY);
    ([(CONTENT_TYPE, kind)], body)
}

async fn sink(body: Body) -> Result<String, StatusCode> {
    let frames = body.into_data_stream();
    let length = frames.try_fold(0, |sum, frame| ready(Ok(sum + frame.len()))).await;
    length.map(|length| length.to_string()).map_err(|_| StatusCode::BAD_REQUEST)
}

/// How many events, and how many milliseconds before each.
#[derive(Deserialize)]
#[serde(default)]
struct Flow {
    count: u32,
    every: u64,
}

impl Default for Flow {
    fn default() -> Self {
        Self { count: 10, every: 100 }
    }
}

async fn events(
    Query(Flow { count, every }): Query<Flow>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(stream::iter(1..=count).then(move |n| async move {
        if every > 0 {
            sleep(Duration::from_millis(every)).await; // of nothing, too, it would wait for its clock
        }
        Ok(Event::default().data(n.to_string()))
    }))
}

/// Says again what was said, until the other side has heard enough.
async fn talk(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async |mut socket| {
        while let Some(Ok(message)) = socket.recv().await {
            let said = matches!(message, Message::Text(_) | Message::Binary(_));
            if said && socket.send(message).await.is_err() {
                return;
            }
        }
    })
}

/// Names and sizes of the parts of a form; nothing of them is kept.
async fn upload(mut form: Multipart) -> Result<Json<Vec<Value>>, MultipartError> {
    let mut parts = Vec::new();
    while let Some(mut part) = form.next_field().await? {
        let name = part.name().map(str::to_owned);
        let mut size = 0;
        while let Some(chunk) = part.chunk().await? {
            size += chunk.len();
        }
        parts.push(json!({ "name": name, "size": size }));
    }
    Ok(Json(parts))
}

/// What is known of an answer only at its end. HTTP/1.1 wants it announced.
async fn trailers() -> Response {
    let text = "see the trailers\n";
    let length = HeaderMap::from_iter([(LENGTH, text.len().into())]);
    let frames = [Frame::data(Bytes::from(text)), Frame::trailers(length)];
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
    ([TEXT, (TRAILER, LENGTH.as_str())], Body::new(body)).into_response()
}

#[derive(Serialize)]
struct Whereabouts<'a> {
    framework: &'a str,
    method: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    original: String,
    prefix: Option<&'a str>,
    peer: Option<SocketAddr>,
    scheme: &'a str,
    host: Option<&'a str>,
}

async fn whereabouts(
    OriginalUri(original): OriginalUri,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    request: Request,
) -> Response {
    let header = |name| request.headers().get(name)?.to_str().ok();
    Json(Whereabouts {
        framework: "axum",
        method: request.method().as_str(),
        path: request.uri().path(),
        query: request.uri().query(),
        original: original.to_string(),
        prefix: header(HeaderName::from_static("x-forwarded-prefix")),
        peer: peer.map(|Extension(ConnectInfo(address))| address),
        scheme: original.scheme_str().unwrap_or("http"),
        host: header(HOST).or(original.authority().map(Authority::as_str)),
    })
    .into_response()
}

async fn panic() -> &'static str {
    panic!("asked to panic before the head")
}

async fn panic_body() -> impl IntoResponse {
    let chunks = stream::iter(0..).then(|n| async move {
        if n > 0 {
            sleep(TICK).await; // so that the first chunk is on its way
            panic!("asked to panic in the body");
        }
        Ok::<_, Infallible>("so far, so good\n")
    });
    ([TEXT], Body::from_stream(chunks))
}

async fn endless() -> impl IntoResponse {
    let chunks = stream::iter(1_u64..).then(|n| async move {
        sleep(TICK).await;
        Ok::<_, Infallible>(format!("{n}\n"))
    });
    ([TEXT], Body::from_stream(chunks))
}

#[derive(Deserialize)]
struct Fill {
    bytes: u64,
}

async fn fill(Query(Fill { bytes }): Query<Fill>) -> impl IntoResponse {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    let chunks = stream::unfold(bytes, |left| async move {
        let size = left.min(ZEROS.len() as u64);
        let chunk = Bytes::from_static(&ZEROS[..size as usize]);
        (size > 0).then_some((Ok::<_, Infallible>(chunk), left - size))
    });
    ([(CONTENT_TYPE, BINARY)], Body::from_stream(chunks))
}

#[derive(Deserialize)]
struct Pause {
    ms: u64,
}

async fn slow(Query(Pause { ms }): Query<Pause>) -> String {
    sleep(Duration::from_millis(ms)).await;
    format!("waited {ms} ms\n")
}

async fn block(Query(Pause { ms }): Query<Pause>) -> String {
    thread::sleep(Duration::from_millis(ms));
    format!("blocked {ms} ms\n")
}
