//! Runs many calls of a small app in this process, for a counter of instructions around it:
//!
//! ```sh
//! perf stat -e instructions:u target/release/examples/cost mounted 4 1000000
//! ```
//!
//! `build` makes the requests and drops them; `mounted` gives them to the app through `ActixService`;
//! `bare` gives the app requests that are actix's own from the start. What the translation costs is
//! `mounted` less `build` less `bare`. The second word is the number of headers, at most 12; the third
//! one that of the calls; a fourth one, that of the clients that take turns, which differ as browsers
//! do, and in their queries. Default: 1.

use std::{env, error::Error, net::SocketAddr, pin::Pin, task::Context};

use actix_http::{Payload, Request, Response};
use actix_service::{IntoServiceFactory as _, Service as _, ServiceFactory as _};
use actix_web::{
    App, HttpResponse,
    body::{BoxBody, MessageBody as _},
    dev::AppConfig,
    http::header::ContentType,
    web,
};
use bytes::Bytes;
use combo_actix::{ActixService, Arrival};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};
use http_body::Body as _;
use http_body_util::Empty;

const HEADERS: [(&str, &str); 12] = [
    ("host", "www.example.com"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("connection", "keep-alive"),
    ("accept-language", "en-GB,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("referer", "https://www.example.com/actix/"),
    ("cookie", "session=2f1c9a6be0d34f55; theme=dark"),
    ("upgrade-insecure-requests", "1"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
];

async fn hello() -> HttpResponse {
    HttpResponse::Ok().insert_header(ContentType::plaintext()).body("Hello, world!")
}

fn app() -> App<
    impl actix_service::ServiceFactory<
        actix_web::dev::ServiceRequest,
        Config = (),
        Response = actix_web::dev::ServiceResponse,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    App::new().route("/hello", web::get().to(hello)).route("/", web::get().to(hello))
}

/// What a server would have found in its buffer.
struct Incoming {
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Incoming {
    fn new(headers: usize, client: usize) -> Result<Self, Box<dyn Error>> {
        let query = if client == 0 { String::new() } else { format!("?{client}") };
        let mut all = Vec::new();
        for (name, value) in HEADERS.iter().take(headers) {
            let mut value = (*value).to_owned();
            if client != 0 && ["user-agent", "accept-language", "referer", "cookie"].contains(name) {
                value.push_str(&format!(" {client}"));
            }
            // Not static, as nothing in a server's buffer is.
            let value = HeaderValue::from_maybe_shared(Bytes::from(value))?;
            all.push((HeaderName::from_static(name), value));
        }
        Ok(Self { uri: format!("/actix/hello{query}").parse()?, headers: all })
    }

    fn request(&self, mut spare: HeaderMap) -> http::Request<Empty<Bytes>> {
        for (name, value) in &self.headers {
            let _ = spare.append(name.clone(), value.clone());
        }
        let mut request = http::Request::new(Empty::new());
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = spare;
        request
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = env::args().skip(1);
    let mode = words.next().ok_or("say `build`, `mounted` or `bare`")?;
    let headers = words.next().ok_or("say how many headers")?.parse()?;
    let calls = words.next().ok_or("say how many calls")?.parse()?;
    let clients = words.next().map_or(Ok(1), |clients| clients.parse())?;
    let incoming: Vec<_> =
        (0..clients.max(1)).map(|client| Incoming::new(headers, client)).collect::<Result<_, _>>()?;
    match mode.as_str() {
        "build" => build(&incoming, calls),
        "mounted" => mounted(&incoming, calls).await?,
        "bare" => bare(&incoming, calls).await?,
        other => return Err(format!("no such mode: {other}").into()),
    }
    Ok(())
}

fn build(clients: &[Incoming], calls: usize) {
    let mut spare = HeaderMap::new();
    for incoming in clients.iter().cycle().take(calls) {
        let request = std::hint::black_box(incoming.request(spare));
        spare = request.into_parts().0.headers;
        spare.clear();
    }
}

async fn mounted(clients: &[Incoming], calls: usize) -> Result<(), Box<dyn Error>> {
    let service = ActixService::new(app).await?;
    let peer = Some(SocketAddr::from(([127, 0, 0, 1], 4711)));
    let mut spare = HeaderMap::new();
    for incoming in clients.iter().cycle().take(calls) {
        let arrival = Arrival { peer, strip: "/actix".len(), origin: None, header: None };
        let response = service.call_with(incoming.request(spare), arrival).await;
        let (parts, mut body) = response.into_parts();
        assert_eq!(parts.status, 200);
        let mut waits = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut body).poll_frame(&mut waits).is_ready());
        spare = parts.headers;
        spare.clear();
    }
    Ok(())
}

async fn bare(clients: &[Incoming], calls: usize) -> Result<(), Box<dyn Error>> {
    let service = app()
        .into_factory()
        .new_service(AppConfig::default())
        .await
        .map_err(|()| "the app cannot be built")?;
    let peer = Some(SocketAddr::from(([127, 0, 0, 1], 4711)));
    let uri = actix_web::http::Uri::from_static("/hello");
    let mut headers = Vec::new();
    for (name, value) in &clients[0].headers {
        let value = Bytes::copy_from_slice(value.as_bytes());
        headers.push((
            actix_web::http::header::HeaderName::from_bytes(name.as_str().as_bytes())?,
            actix_web::http::header::HeaderValue::from_maybe_shared(value)?,
        ));
    }
    for _call in 0..calls {
        let mut request = Request::with_payload(Payload::None);
        let head = request.head_mut();
        head.uri = uri.clone();
        head.peer_addr = peer;
        for (name, value) in &headers {
            head.headers.append(name.clone(), value.clone());
        }
        let response: Response<BoxBody> = service.call(request).await?.into();
        let (head, body) = response.into_parts();
        assert_eq!(head.status(), 200);
        assert!(body.try_into_bytes().is_ok());
    }
    Ok(())
}
