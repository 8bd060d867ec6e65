//! A small app of actix: it greets, streams, counts, tells what it sees of a request, and misbehaves
//! when asked to. `examples/alone.rs` runs it under actix's own server.

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use actix::{Actor, ActorContext, StreamHandler};
use actix_multipart::{Multipart, MultipartError};
use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::error::{Error, ErrorBadRequest, PayloadError};
use actix_web::http::Uri;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, ContentType, HeaderValue};
use actix_web::web::{self, Bytes, Path, Payload, Query, ReqData};
use actix_web::{App, HttpRequest, HttpResponse};
use actix_web_actors::ws;
use actix_ws::{AggregatedMessage, Item};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::sleep;

const TICK: Duration = Duration::from_millis(100);
/// The largest message of a websocket.
const LARGEST: usize = 16 << 20;
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The app, made anew for every worker: `HttpServer::new(hello_actix::app)`.
pub fn app() -> App<
    impl ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse, Error = Error, InitError = ()>,
> {
    App::new()
        .service(web::resource("/hello/{name}").get(hello))
        .service(web::resource("/").get(async || "Hello from actix!\n"))
        .service(web::resource("/json").get(greeting))
        .service(web::resource("/echo").post(echo))
        .service(web::resource("/sink").to(sink))
        .service(web::resource("/stream").get(events))
        .service(web::resource("/ws").get(talk))
        .service(web::resource("/actor-ws").get(talk_to_an_actor))
        .service(web::resource("/upload").post(upload))
        .service(web::resource("/where").to(whereabouts))
        .service(web::resource("/panic").get(panic))
        .service(web::resource("/panic/body").get(panic_body))
        .service(web::resource("/endless").get(endless))
        .service(web::resource("/fill").get(fill))
        .service(web::resource("/slow").get(slow))
        .service(web::resource("/block").get(block))
}

async fn hello(name: Path<String>, request: HttpRequest) -> Result<String, Error> {
    // `Path` puts replacement characters where the path is not UTF-8; such a path is refused here.
    let _ = percent_decode_str(request.path()).decode_utf8().map_err(ErrorBadRequest)?;
    Ok(format!("Hello, {name}!\n"))
}

async fn greeting() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "framework": "actix", "message": "Hello, JSON!" }))
}

async fn echo(request: HttpRequest, body: Payload) -> HttpResponse {
    let kind = request.headers().get(CONTENT_TYPE).cloned().unwrap_or(BINARY);
    HttpResponse::Ok().insert_header((CONTENT_TYPE, kind)).streaming(body)
}

async fn sink(body: Payload) -> Result<String, PayloadError> {
    let length = body.try_fold(0, |sum, frame| ready(Ok(sum + frame.len()))).await?;
    Ok(length.to_string())
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

async fn events(Query(Flow { count, every }): Query<Flow>) -> HttpResponse {
    let events = stream::iter(1..=count).then(move |n| async move {
        if every > 0 {
            sleep(Duration::from_millis(every)).await; // of nothing, too, it would wait for its clock
        }
        Ok::<_, Infallible>(Bytes::from(format!("data: {n}\n\n")))
    });
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((CACHE_CONTROL, "no-cache"))
        .streaming(events)
}

/// Says again what was said, until the other side has heard enough.
async fn talk(request: HttpRequest, body: Payload) -> Result<HttpResponse, Error> {
    let (response, mut session, messages) = actix_ws::handle(&request, body)?;
    let mut messages =
        messages.max_frame_size(LARGEST).aggregate_continuations().max_continuation_size(LARGEST);
    drop(actix_web::rt::spawn(async move {
        while let Some(Ok(message)) = messages.recv().await {
            let said = match message {
                AggregatedMessage::Text(text) => session.text(text).await,
                AggregatedMessage::Binary(bytes) => session.binary(bytes).await,
                AggregatedMessage::Ping(bytes) => session.pong(&bytes).await,
                AggregatedMessage::Pong(_) => Ok(()),
                AggregatedMessage::Close(reason) => {
                    // The other side may be gone already.
                    let _ = session.close(reason).await;
                    return;
                }
            };
            if said.is_err() {
                return;
            }
        }
    }));
    Ok(response)
}

/// The same, as apps with actors do it.
async fn talk_to_an_actor(request: HttpRequest, body: Payload) -> Result<HttpResponse, Error> {
    let talker = Talker { text: false, said: Vec::new() };
    ws::WsResponseBuilder::new(talker, &request, body).frame_size(LARGEST).start()
}

struct Talker {
    text: bool,
    /// What has come so far of a message in several frames.
    said: Vec<u8>,
}

impl Actor for Talker {
    type Context = ws::WebsocketContext<Self>;
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for Talker {
    fn handle(&mut self, message: Result<ws::Message, ws::ProtocolError>, context: &mut Self::Context) {
        match message {
            Ok(ws::Message::Text(text)) => context.text(text),
            Ok(ws::Message::Binary(bytes)) => context.binary(bytes),
            Ok(ws::Message::Ping(bytes)) => context.pong(&bytes),
            Ok(ws::Message::Continuation(item)) => self.more(item, context),
            Ok(ws::Message::Close(reason)) => {
                context.close(reason);
                context.stop();
            }
            Ok(ws::Message::Pong(_) | ws::Message::Nop) => {}
            Err(_) => context.stop(),
        }
    }
}

impl Talker {
    fn more(&mut self, item: Item, context: &mut ws::WebsocketContext<Self>) {
        match item {
            Item::FirstText(bytes) => (self.text, self.said) = (true, bytes.to_vec()),
            Item::FirstBinary(bytes) => (self.text, self.said) = (false, bytes.to_vec()),
            Item::Continue(bytes) => self.said.extend_from_slice(&bytes),
            Item::Last(bytes) => {
                self.said.extend_from_slice(&bytes);
                let said = std::mem::take(&mut self.said);
                match self.text.then(|| String::from_utf8(said.clone())) {
                    None => context.binary(said),
                    Some(Ok(text)) => context.text(text),
                    Some(Err(_)) => context.stop(),
                }
            }
        }
        if self.said.len() > LARGEST {
            context.stop();
        }
    }
}

/// Names and sizes of the parts of a form; nothing of them is kept.
async fn upload(mut form: Multipart) -> Result<HttpResponse, MultipartError> {
    let mut parts = Vec::new();
    while let Some(part) = form.try_next().await? {
        let name = part.name().map(str::to_owned);
        let size = part.try_fold(0, |sum, chunk| ready(Ok(sum + chunk.len()))).await?;
        parts.push(json!({ "name": name, "size": size }));
    }
    Ok(HttpResponse::Ok().json(parts))
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
    host: &'a str,
}

async fn whereabouts(request: HttpRequest, original: Option<ReqData<Uri>>) -> HttpResponse {
    let connection = request.connection_info();
    HttpResponse::Ok().json(Whereabouts {
        framework: "actix",
        method: request.method().as_str(),
        path: request.uri().path(),
        query: request.uri().query(),
        original: original.as_deref().unwrap_or(request.uri()).to_string(),
        prefix: request.headers().get("x-forwarded-prefix").and_then(|prefix| prefix.to_str().ok()),
        peer: request.peer_addr(),
        scheme: connection.scheme(),
        host: connection.host(),
    })
}

async fn panic() -> &'static str {
    panic!("asked to panic before the head")
}

async fn panic_body() -> HttpResponse {
    let chunks = stream::iter(0..).then(async |n| {
        if n > 0 {
            sleep(TICK).await; // so that the first chunk is on its way
            panic!("asked to panic in the body");
        }
        Ok::<_, Infallible>(Bytes::from_static(b"so far, so good\n"))
    });
    HttpResponse::Ok().content_type(ContentType::plaintext()).streaming(chunks)
}

async fn endless() -> HttpResponse {
    let chunks = stream::iter(1_u64..).then(async |n| {
        sleep(TICK).await;
        Ok::<_, Infallible>(Bytes::from(format!("{n}\n")))
    });
    HttpResponse::Ok().content_type(ContentType::plaintext()).streaming(chunks)
}

#[derive(Deserialize)]
struct Fill {
    bytes: u64,
}

async fn fill(Query(Fill { bytes }): Query<Fill>) -> HttpResponse {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    let chunks = stream::unfold(bytes, async |left| {
        let size = left.min(ZEROS.len() as u64);
        let chunk = Bytes::from_static(&ZEROS[..size as usize]);
        (size > 0).then_some((Ok::<_, Infallible>(chunk), left - size))
    });
    HttpResponse::Ok().insert_header((CONTENT_TYPE, BINARY)).streaming(chunks)
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
