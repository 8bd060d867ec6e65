//! A small app of warp: it greets, streams, counts, tells what it sees of a request, and misbehaves
//! when asked to. `examples/alone.rs` runs it under warp's own server.

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::sleep;
use warp::host::Authority;
use warp::http::{Method, StatusCode, Uri};
use warp::multipart::FormData;
use warp::path::FullPath;
use warp::reply::with_header;
use warp::sse::{self, Event};
use warp::ws::Ws;
use warp::{Buf, Filter, Rejection, Reply};

const TICK: Duration = Duration::from_millis(100);
const TEXT: &str = "text/plain; charset=utf-8";
const BINARY: &str = "application/octet-stream";

/// The routes, for `warp::serve` or `warp::service`.
pub fn routes() -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone + Send + Sync + 'static {
    let hello = warp::path!("hello" / String).and(warp::get()).map(|name: String| hello(&name));
    let root = warp::path::end().and(warp::get()).map(|| "Hello from warp!\n");
    let greeting = warp::path!("json").and(warp::get()).map(greeting);
    let kind = warp::header::optional("content-type");
    let echo = warp::path!("echo").and(warp::post()).and(kind).and(warp::body::stream()).map(echo);
    let sink = warp::path!("sink").and(warp::body::stream()).then(sink);
    let events = warp::path!("stream").and(warp::get()).and(warp::query()).map(events);
    let talk = warp::path!("ws").and(warp::ws()).map(talk);
    let form = warp::multipart::form().max_length(None);
    let upload = warp::path!("upload").and(warp::post()).and(form).then(upload);
    let panic = warp::path!("panic").and(warp::get()).then(panic);
    let panic_body = warp::path!("panic" / "body").and(warp::get()).map(panic_body);
    let endless = warp::path!("endless").and(warp::get()).map(endless);
    let fill = warp::path!("fill").and(warp::get()).and(warp::query()).map(fill);
    let slow = warp::path!("slow").and(warp::get()).and(warp::query()).then(slow);
    let block = warp::path!("block").and(warp::get()).and(warp::query()).then(block);

    let panics = panic.or(panic_body);
    let streams = events.or(endless).or(fill).or(talk).or(upload);
    let others =
        root.or(greeting).or(echo).or(sink).or(whereabouts()).or(streams).or(slow).or(block).or(panics);
    hello.or(others) // what is asked for most is tried first
}

fn hello(name: &str) -> Result<String, StatusCode> {
    let name = percent_decode_str(name).decode_utf8().map_err(|_| StatusCode::BAD_REQUEST)?;
    Ok(format!("Hello, {name}!\n"))
}

fn greeting() -> impl Reply {
    warp::reply::json(&json!({ "framework": "warp", "message": "Hello, JSON!" }))
}

fn echo(
    kind: Option<String>,
    body: impl Stream<Item = Result<impl Buf, warp::Error>> + Send + Sync + 'static,
) -> impl Reply {
    let body = body.map_ok(|mut frame| frame.copy_to_bytes(frame.remaining()));
    with_header(warp::reply::stream(body), "content-type", kind.unwrap_or(BINARY.into()))
}

async fn sink(body: impl Stream<Item = Result<impl Buf, warp::Error>>) -> Result<String, StatusCode> {
    let length = body.try_fold(0, |sum, frame| ready(Ok(sum + frame.remaining()))).await;
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

fn events(Flow { count, every }: Flow) -> impl Reply {
    sse::reply(stream::iter(1..=count).then(move |n| async move {
        if every > 0 {
            sleep(Duration::from_millis(every)).await; // of nothing, too, it would wait for its clock
        }
        // warp puts nothing after the colon; a client drops the one space that others put there.
        Ok::<_, Infallible>(Event::default().data(format!(" {n}")))
    }))
}

/// Says again what was said, until the other side has heard enough.
fn talk(ws: Ws) -> impl Reply {
    ws.on_upgrade(async |socket| {
        let (speaker, listener) = socket.split();
        let said = listener.try_filter(|message| ready(message.is_text() || message.is_binary()));
        // It ends with the other side, however that does.
        let _ = said.forward(speaker).await;
    })
}

/// Names and sizes of the parts of a form; nothing of them is kept.
async fn upload(mut form: FormData) -> Result<impl Reply, StatusCode> {
    let mut parts = Vec::new();
    while let Some(part) = form.try_next().await.map_err(|_| StatusCode::BAD_REQUEST)? {
        let name = part.name().to_owned();
        let size = part.stream().try_fold(0, |sum, chunk| ready(Ok(sum + chunk.remaining()))).await;
        parts.push(json!({ "name": name, "size": size.map_err(|_| StatusCode::BAD_REQUEST)? }));
    }
    Ok(warp::reply::json(&parts))
}

#[derive(Serialize)]
struct Whereabouts {
    framework: &'static str,
    method: String,
    path: String,
    query: Option<String>,
    original: String,
    prefix: Option<String>,
    peer: Option<SocketAddr>,
    scheme: String,
    host: Option<String>,
}

fn whereabouts() -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Copy {
    let query = warp::query::raw().map(Some).or(warp::any().map(|| None)).unify();
    let peer = warp::ext::optional().and(warp::addr::remote()).map(Option::<SocketAddr>::or);
    warp::path!("where")
        .and(warp::method())
        .and(warp::path::full())
        .and(query)
        .and(warp::ext::optional())
        .and(warp::header::optional("x-forwarded-prefix"))
        .and(peer)
        .and(warp::host::optional())
        .map(
            |method: Method,
             path: FullPath,
             query: Option<String>,
             original: Option<Uri>,
             prefix: Option<String>,
             peer: Option<SocketAddr>,
             host: Option<Authority>| {
                let path = path.as_str().to_owned();
                let here = || query.iter().fold(path.clone(), |path, query| format!("{path}?{query}"));
                warp::reply::json(&Whereabouts {
                    framework: "warp",
                    method: method.to_string(),
                    original: original.as_ref().map_or_else(here, Uri::to_string),
                    path,
                    query,
                    prefix,
                    peer,
                    scheme: original.as_ref().and_then(Uri::scheme_str).unwrap_or("http").to_owned(),
                    host: host.map(|host| host.to_string()),
                })
            },
        )
}

async fn panic() -> &'static str {
    panic!("asked to panic before the head")
}

fn panic_body() -> impl Reply {
    let chunks = stream::iter(0..).then(async |n| {
        if n > 0 {
            sleep(TICK).await; // so that the first chunk is on its way
            panic!("asked to panic in the body");
        }
        Ok::<_, Infallible>("so far, so good\n")
    });
    with_header(warp::reply::stream(chunks), "content-type", TEXT)
}

fn endless() -> impl Reply {
    let chunks = stream::iter(1_u64..).then(async |n| {
        sleep(TICK).await;
        Ok::<_, Infallible>(format!("{n}\n"))
    });
    with_header(warp::reply::stream(chunks), "content-type", TEXT)
}

#[derive(Deserialize)]
struct Fill {
    bytes: u64,
}

fn fill(Fill { bytes }: Fill) -> impl Reply {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    let chunks = stream::unfold(bytes, async |left| {
        let size = left.min(ZEROS.len() as u64);
        (size > 0).then_some((Ok::<_, Infallible>(&ZEROS[..size as usize]), left - size))
    });
    with_header(warp::reply::stream(chunks), "content-type", BINARY)
}

#[derive(Deserialize)]
struct Pause {
    ms: u64,
}

async fn slow(Pause { ms }: Pause) -> String {
    sleep(Duration::from_millis(ms)).await;
    format!("waited {ms} ms\n")
}

async fn block(Pause { ms }: Pause) -> String {
    thread::sleep(Duration::from_millis(ms));
    format!("blocked {ms} ms\n")
}
