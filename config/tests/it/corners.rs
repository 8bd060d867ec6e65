//! The corners of HTTP where servers differ: `HEAD`, answers before the end of a request, requests that
//! have no end, trailers. One app per framework, by its own means.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use actix_web::{HttpRequest, HttpResponse, body::SizedStream, web};
use axum::{body::Body, response::IntoResponse, routing};
use bytes::Bytes;
use combo::{mount, mount::Target};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use http::Method;
use http_body_util::BodyExt;
use tokio::sync::{Notify, mpsc};
use warp::Filter;

use crate::{
    http2::{Piped, read, upload},
    site::{ANY_TLS_PORT, FRAMEWORKS, Site, eventually, three},
    wire::{End, Wire, get},
};

/// What became of requests that were read to their end, or not.
#[derive(Clone, Default)]
struct Became(Arc<Mutex<Vec<&'static str>>>);

/// Says `dropped` unless something else is said before.
struct Said(Became, Option<&'static str>);

impl Became {
    fn begin(&self) -> Said {
        self.0.lock().unwrap().push("begun");
        Said(self.clone(), None)
    }

    fn all(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().clone()
    }
}

impl Said {
    fn end(mut self, whole: bool) -> &'static str {
        let said = if whole { "whole" } else { "broken off" };
        self.1 = Some(said);
        said
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().push(self.1.unwrap_or("dropped"));
    }
}

/// Chunks of an answer: two, and then an end or none.
fn chunks(endless: bool) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let chunks = stream::iter(["one", "two"]).map(|chunk| Ok(Bytes::from_static(chunk.as_bytes())));
    let end = if endless { stream::pending().left_stream() } else { stream::empty().right_stream() };
    chunks.chain(end)
}

/// Reads all of a request; waits for the gate.
#[derive(Clone, Default)]
struct App {
    became: Became,
    gate: Arc<Notify>,
}

fn by_axum(app: App) -> Target {
    let (became, App { became: of_waiting, gate }) = (app.became.clone(), app);
    let swallow = async move |body: Body| {
        let said = became.begin();
        said.end(body.into_data_stream().try_for_each(async |_| Ok(())).await.is_ok())
    };
    let wait = async move || {
        let said = of_waiting.begin();
        gate.notified().await;
        said.end(true)
    };
    let sized = async || ([("content-length", "6")], Body::from_stream(chunks(false))).into_response();
    mount::axum(
        axum::Router::new()
            .route("/whole", routing::any(async || "whole"))
            .route("/empty", routing::any(async || ()))
            .route("/stream", routing::any(async || Body::from_stream(chunks(false))))
            .route("/endless", routing::any(async || Body::from_stream(chunks(true))))
            .route("/sized", routing::any(sized))
            .route("/swallow", routing::any(swallow))
            .route("/wait", routing::any(wait)),
    )
}

fn by_actix(app: App) -> Target {
    async fn swallow(app: web::Data<App>, body: web::Payload) -> &'static str {
        let said = app.became.begin();
        said.end(body.try_for_each(async |_| Ok(())).await.is_ok())
    }
    async fn wait(app: web::Data<App>, _: HttpRequest) -> &'static str {
        let said = app.became.begin();
        app.gate.notified().await;
        said.end(true)
    }
    let app = web::Data::new(app);
    mount::actix(move || {
        actix_web::App::new()
            .app_data(app.clone())
            .service(web::resource("/whole").to(async || "whole"))
            .service(web::resource("/empty").to(async || HttpResponse::Ok().finish()))
            .service(web::resource("/stream").to(async || HttpResponse::Ok().streaming(chunks(false))))
            .service(web::resource("/endless").to(async || HttpResponse::Ok().streaming(chunks(true))))
            .service(
                web::resource("/sized")
                    .to(async || HttpResponse::Ok().body(SizedStream::new(6, chunks(false)))),
            )
            .service(web::resource("/swallow").to(swallow))
            .service(web::resource("/wait").to(wait))
    })
}

fn by_warp(app: App) -> Target {
    let became = app.became.clone();
    let swallow = warp::path("swallow").and(warp::body::stream()).then(move |body| {
        let said = became.begin();
        async move { said.end(swallowed(body).await) }
    });
    let wait = warp::path("wait").then(move || {
        let App { became, gate } = app.clone();
        async move {
            let said = became.begin();
            gate.notified().await;
            said.end(true)
        }
    });
    let sized = || warp::reply::with_header(warp::reply::stream(chunks(false)), "content-length", "6");
    let routes = warp::path("whole")
        .map(|| "whole")
        .or(warp::path("empty").map(|| ""))
        .or(warp::path("stream").map(|| warp::reply::stream(chunks(false))))
        .or(warp::path("endless").map(|| warp::reply::stream(chunks(true))))
        .or(warp::path("sized").map(sized))
        .or(swallow)
        .or(wait);
    mount::tower(warp::service(routes))
}

async fn swallowed(body: impl Stream<Item = Result<impl bytes::Buf, warp::Error>>) -> bool {
    body.try_for_each(async |_| Ok(())).await.is_ok()
}

fn app(framework: &str, app: &App) -> Target {
    match framework {
        "axum" => by_axum(app.clone()),
        "actix" => by_actix(app.clone()),
        _ => by_warp(app.clone()),
    }
}

/// The hello apps, and apps of this file at `/axum-here` and `/axum-own`, ...
fn site(here: &App) -> Site {
    Site::start(FRAMEWORKS.iter().fold(three().listen(ANY_TLS_PORT), |deployment, framework| {
        deployment
            .mount(format!("/{framework}-here"), app(framework, here))
            .mount(format!("/{framework}-own"), app(framework, here).own_threads(1))
    }))
}

fn mounts() -> impl Iterator<Item = String> {
    FRAMEWORKS.iter().flat_map(|framework| [format!("/{framework}-here"), format!("/{framework}-own")])
}

#[test]
fn head_is_the_head_of_get_and_the_connection_goes_on() {
    let site = site(&App::default());
    for mount in mounts() {
        for mut wire in [site.wire(), site.tls_wire()] {
            for (path, length) in [
                ("whole", Some("5")),
                ("empty", Some("0")),
                ("stream", None),
                ("sized", Some("6")),
                ("endless", None),
            ] {
                let said = format!("{mount}/{path}");
                wire.send(get(&said).replacen("GET", "HEAD", 1));
                let head = wire.head().to_ascii_lowercase();
                assert!(head.starts_with("http/1.1 200 ok\r\n"), "{said}: {head}");
                assert!(!head.contains("connection: close"), "{said}: {head}");
                let told = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                // Of an empty body some frameworks say nothing.
                assert!(told == length || path == "empty" && told.is_none(), "{said}: {head}");
            }
            // Nothing but the next answer comes.
            assert_eq!(wire.ask(get(&format!("{mount}/whole"))).text(), "whole", "{mount}");
            let sized = wire.ask(get(&format!("{mount}/sized")));
            assert_eq!((sized.header("content-length"), sized.text()), (Some("6"), "onetwo"), "{mount}");
        }
        for http2 in [site.http2(), site.tls_http2()] {
            for path in ["whole", "empty", "stream", "sized", "endless"] {
                let answer = http2.ask(http2.request(Method::HEAD, &format!("{mount}/{path}"), &[], ""));
                assert_eq!((answer.status, answer.text(), answer.whole), (200, "", true), "{mount}/{path}");
            }
            assert_eq!(http2.get(&format!("{mount}/whole")).text(), "whole", "{mount}");
        }
    }
    let mut wire = site.wire();
    wire.send("HEAD /index.html HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(wire.head().to_ascii_lowercase().contains("content-length: 8\r\n"));
    assert_eq!(wire.ask(get("/index.html")).text(), "welcome\n");
    for (path, status, length) in [("/index.html", 200, "8"), ("/none", 404, "10"), ("/axum/x/..", 400, "41")]
    {
        let http2 = site.http2();
        let answer = http2.ask(http2.request(Method::HEAD, path, &[], ""));
        assert_eq!((answer.status, answer.text(), answer.whole), (status, "", true), "{path}");
        assert_eq!(answer.header("content-length"), Some(length), "{path}");
    }
    site.requests(0);
}

#[test]
fn over_http2_an_answer_may_come_before_the_body_too() {
    let site = site(&App::default());
    for mount in mounts() {
        for http2 in [site.http2(), site.tls_http2()] {
            let (pieces, body) = mpsc::channel(1);
            let request = http2.request(Method::POST, &format!("{mount}/whole"), &[], "");
            let request = request.map(|_| Piped(body).boxed());
            let answer = http2.wait(async {
                let answering = http2.begin(request);
                pieces.send(vec![b'x'; 10_000].into()).await.unwrap();
                read(answering.await.unwrap()).await
            });
            assert_eq!((answer.status, answer.text(), answer.whole), (200, "whole", true), "{mount}");
            drop(pieces);
            assert_eq!(http2.get(&format!("{mount}/whole")).text(), "whole", "{mount}");
        }
    }
    site.requests(0);
}

#[test]
fn whose_client_breaks_off_an_upload_is_told_so_or_dropped() {
    for mount in mounts() {
        let here = App::default();
        let site = site(&here);
        let begun = |count: usize| {
            eventually("the app has begun", || {
                (here.became.all().iter().filter(|said| **said == "begun").count() == count).then_some(())
            });
        };
        let ended = |count: usize| {
            eventually("the app has ended", || (here.became.all().len() == 2 * count).then_some(()));
        };
        let target = format!("{mount}/swallow");
        // Over HTTP/1.1: by a reset, by an end, and by a chunk that is none.
        for (n, how) in ["reset", "end", "half", "chunk"].into_iter().enumerate() {
            let mut wire = site.wire();
            let head = format!("POST {target} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
            wire.send(head + "3\r\nabc\r\n");
            begun(n + 1);
            match how {
                "reset" => wire.abort(),
                "end" => drop(wire),
                "half" => {
                    wire.finish();
                    let _ = wire.end();
                }
                _ => {
                    wire.send("xyz\r\n");
                    let _ = wire.end();
                }
            }
            ended(n + 1);
        }
        // Over HTTP/2: by a reset of the stream alone, whose connection goes on.
        let mut wire = site.wire();
        wire.send(upload(&target, &[], b"abc"));
        begun(5);
        // `RST_STREAM` with `CANCEL`, then `PING` and its answer (RFC 9113, sections 6.4 and 6.7).
        wire.send("\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08");
        ended(5);
        wire.send("\0\0\x08\x06\0\0\0\0\0are you?");
        wire.until("are you?");
        // By the end of the connection.
        let mut wire = site.wire();
        wire.send(upload(&target, &[], b"abc"));
        begun(6);
        wire.abort();
        ended(6);
        let became = here.became.all();
        assert!(!became.contains(&"whole"), "{mount}: {became:?}");
        site.requests(0);
    }
}

#[test]
fn whose_client_is_gone_is_dropped_over_http2_and_over_http1_when_it_answers() {
    for mount in mounts() {
        let here = App::default();
        let site = site(&here);
        let target = format!("{mount}/wait");
        let http2 = site.http2();
        let request = http2.request(Method::GET, &target, &[], "");
        let answering = site.runtime().spawn(http2.begin(request));
        eventually("it waits", || (here.became.all() == ["begun"]).then_some(()));
        answering.abort();
        eventually("it is dropped", || (here.became.all() == ["begun", "dropped"]).then_some(()));
        // A client that sends no more may still read, so over HTTP/1.1 its end says nothing.
        let mut wire = site.wire();
        wire.send(get(&target));
        wire.finish();
        eventually("it waits", || (here.became.all().len() == 3).then_some(()));
        here.gate.notify_one();
        assert_eq!(wire.answer().text(), "whole", "{mount}");
        for reset in [false, true] {
            let mut wire = site.wire();
            wire.send(get(&target));
            site.requests(1);
            if reset {
                wire.abort();
            } else {
                drop(wire);
            }
            here.gate.notify_one();
            site.requests(0);
            site.connections(1);
        }
        drop(http2);
        site.connections(0);
    }
}

#[test]
fn what_is_said_after_a_chunked_body_reaches_axum() {
    let told = async |body: Body| {
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let sum = trailers.get("x-sum").map(|sum| sum.to_str().unwrap().to_owned());
        format!("{} {}", String::from_utf8_lossy(&collected.to_bytes()), sum.unwrap_or_default())
    };
    let app = move || mount::axum(axum::Router::new().route("/", routing::post(told)));
    let deployment = combo::Deployment::new("trailers").listen(crate::site::ANY_PORT).listen(ANY_TLS_PORT);
    let site = Site::start(deployment.mount("/axum", app()).mount("/own", app().own_threads(1)));
    for mount in ["/axum", "/own"] {
        let head = format!(
            "POST {mount} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n"
        );
        for mut wire in [site.wire(), site.tls_wire()] {
            for sum in ["7", "8"] {
                let body = format!("3\r\nabc\r\n0\r\nx-sum: {sum}\r\n\r\n");
                assert_eq!(wire.ask(head.clone() + &body).text(), format!("abc {sum}"), "{mount}");
            }
        }
    }
}

#[test]
fn a_body_that_nobody_wants_is_not_asked_for_by_any_framework() {
    let site = site(&App::default());
    for mount in mounts() {
        let head = |path| {
            format!(
                "POST {mount}/{path} HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n"
            )
        };
        for mut wire in [site.wire(), site.tls_wire()] {
            let answer = wire.ask(head("whole"));
            assert_eq!((answer.status, answer.text()), (200, "whole"), "{mount}");
        }
        for mut wire in [site.wire(), site.tls_wire()] {
            assert_eq!(wire.ask(head("swallow")).status, 100, "{mount}");
            let answer = wire.ask("abc");
            assert_eq!((answer.status, answer.text()), (200, "whole"), "{mount}");
            assert_eq!(wire.ask(get(&format!("{mount}/whole"))).text(), "whole", "{mount}");
        }
    }
}

#[test]
fn an_upload_is_answered_while_it_is_sent() {
    let site = site(&App::default());
    for mount in mounts() {
        let mut wire: Wire = site.wire();
        let head = format!("POST {mount}/whole HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        let answer = wire.ask(head + "3\r\nabc\r\n");
        assert_eq!((answer.status, answer.text()), (200, "whole"), "{mount}");
        // It is told that nobody listens.
        assert!(matches!(wire.end(), End::Closed | End::Reset), "{mount}");
    }
    site.requests(0);
    site.connections(0);
}
