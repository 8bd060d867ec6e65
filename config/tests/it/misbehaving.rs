//! Apps that misbehave: what they may do to their own request, and that everybody else goes on.
//!
//! Held elsewhere: panics in a call and in a body (`panics`), who is named while a worker is held (`workers`),
//! who blocks threads of its own (`own_threads`), that a body nobody reads costs no memory and is not asked for
//! (`clients`), bodies that nobody wants (`corners`).
//!
//! Here: answers that lie about their length or forge what frames them, statuses that are no answers, heads
//! without measure, panics in destructors, tasks that are left behind, loops that never wait. A panic in a
//! destructor while another panic unwinds aborts every Rust process: no host can contain that.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use actix_web::{HttpMessage, HttpResponse, HttpResponseBuilder, web};
use axum::body::Body;
use bytes::Bytes;
use combo::{BoxError, Command, Deployment, Job, Reply, Tick, millis, mount, mount::Target, secs};
use futures_util::{Stream, StreamExt, stream};
use http::{Method, Response};
use http_body_util::BodyExt;
use warp::{Filter, Reply as _};

use crate::{
    http2::{Piped, read},
    lines::log,
    site::{FRAMEWORKS, PATIENCE, Site, eventually, three},
    wire::{Answer, Wire, get},
};

/// An answer as its app says it.
#[derive(Clone, Debug, Default)]
struct Said {
    status: u16,
    headers: Vec<(String, String)>,
    body: Content,
}

#[derive(Clone, Debug)]
enum Content {
    /// All at once.
    Whole(&'static str),
    /// In pieces, and nobody is told how many.
    Pieces(&'static [&'static str]),
    /// The same piece again and again.
    Endless(&'static str),
}

impl Default for Content {
    fn default() -> Self {
        Self::Whole("hello")
    }
}

fn said(status: u16, headers: &[(&str, &str)], body: Content) -> Said {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Said { status, headers: headers.iter().map(owned).collect(), body }
}

/// What an app shares with its test.
#[derive(Clone, Default)]
struct App {
    /// What a client asks for by number.
    cases: Arc<Vec<Said>>,
    /// How often a body was asked for more.
    polls: Arc<AtomicUsize>,
    /// Ends loops that would not.
    released: Arc<AtomicBool>,
    /// Tasks that nobody waits for and that have not ended.
    left: Arc<AtomicUsize>,
}

/// Panics where it is dropped.
#[derive(Clone)]
struct Mine;

impl Drop for Mine {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("in a destructor");
        }
    }
}

/// Counts itself.
struct Left(Arc<AtomicUsize>);

impl Left {
    fn of(app: &App) -> Self {
        let _ = app.left.fetch_add(1, Relaxed);
        Self(app.left.clone())
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        let _ = self.0.fetch_sub(1, Relaxed);
    }
}

type Pieces = std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, Infallible>> + Send + Sync>>;

fn pieces(body: &Content, polls: Arc<AtomicUsize>) -> Pieces {
    let counted = move |piece: &'static str| {
        let _ = polls.fetch_add(1, Relaxed);
        Ok(Bytes::from_static(piece.as_bytes()))
    };
    match *body {
        Content::Whole(all) => Box::pin(stream::iter([all]).map(counted)),
        Content::Pieces(pieces) => Box::pin(stream::iter(pieces.iter().copied()).map(counted)),
        Content::Endless(piece) => Box::pin(stream::repeat(piece).map(counted)),
    }
}

/// A body that owns something that panics when it is dropped; two pieces, or the second for ever.
fn owner(endless: bool) -> Pieces {
    let mine = Arc::new(Mine);
    let own = move |piece: &'static str| {
        let _mine = &mine;
        Ok(Bytes::from_static(piece.as_bytes()))
    };
    let two = stream::iter(["one", "two"]);
    let more = stream::repeat("two").then(|piece| async move {
        tokio::time::sleep(millis(5)).await;
        piece
    });
    if endless { Box::pin(two.chain(more).map(own)) } else { Box::pin(two.map(own)) }
}

/// What does not depend on the framework. Nothing if it is one of the cases.
async fn act(path: &str, app: &App) -> Option<Said> {
    match path {
        "/hello" | "/extension" => {}
        "/spin" => {
            // For a minute, as far as anybody waits for it.
            let began = Instant::now();
            while !app.released.load(Relaxed) && began.elapsed() < PATIENCE {
                std::hint::spin_loop();
            }
        }
        "/spin/waking" => {
            // It is always ready to go on, and lets others have their turn.
            while !app.released.load(Relaxed) {
                tokio::task::yield_now().await;
            }
        }
        "/state" => {
            let _mine = Mine;
            std::future::pending::<()>().await;
        }
        "/state/done" => {
            let _mine = Mine;
            tokio::task::yield_now().await;
        }
        "/leave" => {
            for _ in 0..100 {
                let left = Left::of(app);
                drop(tokio::spawn(async move {
                    let _left = left;
                    std::future::pending::<()>().await;
                }));
            }
        }
        "/leave/panicking" => drop(tokio::spawn(async { panic!("nobody waits for it") })),
        "/leave/blocking" => {
            let (left, released) = (Left::of(app), app.released.clone());
            drop(tokio::task::spawn_blocking(move || {
                let (_left, began) = (left, Instant::now());
                while !released.load(Relaxed) && began.elapsed() < PATIENCE {
                    thread::sleep(millis(5));
                }
            }));
        }
        _ => return None,
    }
    Some(said(200, &[], Content::default()))
}

fn case(path: &str, app: &App) -> Said {
    let number: usize = path.trim_start_matches("/case/").parse().expect("a number");
    app.cases[number].clone()
}

fn head(said: &Said) -> http::response::Builder {
    let builder = Response::builder().status(said.status);
    said.headers.iter().fold(builder, |builder, (name, value)| builder.header(name, value))
}

fn by_axum(app: App) -> Target {
    let answer = move |request: axum::extract::Request| {
        let app = app.clone();
        async move {
            let (mut parts, _body) = request.into_parts();
            let path = parts.uri.path().to_owned();
            match &*path {
                "/body" => return Response::new(Body::from_stream(owner(false))),
                "/body/endless" => return Response::new(Body::from_stream(owner(true))),
                "/extension" => drop(parts.extensions.insert(Arc::new(Mine))),
                "/extension/answer" => {
                    let mut response = Response::new(Body::from("hello"));
                    let _ = response.extensions_mut().insert(Arc::new(Mine));
                    return response;
                }
                _ => {}
            }
            let said = act(&path, &app).await;
            let said = said.unwrap_or_else(|| case(&path, &app));
            let body = match said.body {
                Content::Whole(all) => Body::from(all),
                _ => Body::from_stream(pieces(&said.body, app.polls)),
            };
            head(&said).body(body).expect("an answer")
        }
    };
    mount::axum(axum::Router::new().fallback(answer))
}

fn by_actix(app: App) -> Target {
    async fn answer(request: actix_web::HttpRequest, app: web::Data<App>) -> HttpResponse {
        let path = request.path().to_owned();
        match &*path {
            "/body" => return HttpResponse::Ok().streaming(owner(false)),
            "/body/endless" => return HttpResponse::Ok().streaming(owner(true)),
            "/extension" => {
                let _ = request.extensions_mut().insert(Arc::new(Mine));
                return HttpResponse::Ok().body("hello");
            }
            "/extension/answer" => {
                let mut response = HttpResponse::Ok().body("hello");
                let _ = response.extensions_mut().insert(Arc::new(Mine));
                return response;
            }
            _ => {}
        }
        let said = match act(&path, &app).await {
            Some(said) => said,
            None => case(&path, &app),
        };
        let status = actix_web::http::StatusCode::from_u16(said.status).expect("a status");
        let mut builder = HttpResponseBuilder::new(status);
        for (name, value) in &said.headers {
            let _same = builder.append_header((&**name, &**value));
        }
        match said.body {
            Content::Whole(all) => builder.body(all),
            _ => {
                // By its own hand: `streaming` would say a kind of its own.
                let pieces = pieces(&said.body, app.polls.clone());
                builder.body(actix_web::body::BodyStream::new(pieces))
            }
        }
    }
    let app = web::Data::new(app);
    mount::actix(move || actix_web::App::new().app_data(app.clone()).default_service(web::to(answer)))
}

fn by_warp(app: App) -> Target {
    let answer = warp::path::full().then(move |path: warp::path::FullPath| {
        let app = app.clone();
        async move {
            let path = path.as_str().to_owned();
            match &*path {
                "/body" => return warp::reply::stream(owner(false)).into_response(),
                "/body/endless" => return warp::reply::stream(owner(true)).into_response(),
                "/extension/answer" => {
                    let mut response = "hello".into_response();
                    let _ = response.extensions_mut().insert(Arc::new(Mine));
                    return response;
                }
                _ => {}
            }
            let said = match act(&path, &app).await {
                Some(said) => said,
                None => case(&path, &app),
            };
            let mut response = match said.body {
                Content::Whole(all) => all.into_response(),
                _ => warp::reply::stream(pieces(&said.body, app.polls)).into_response(),
            };
            let told = head(&said).body(()).expect("a head");
            *response.status_mut() = told.status();
            response.headers_mut().extend(told.headers().clone());
            response
        }
    });
    mount::tower(warp::service(answer))
}

fn target(framework: &str, app: &App) -> Target {
    match framework {
        "axum" => by_axum(app.clone()),
        "actix" => by_actix(app.clone()),
        _ => by_warp(app.clone()),
    }
}

/// The hello apps, the apps of this file at `/axum-bad` and, on a thread of their own, `/axum-own`, ..., and a job.
struct Bench {
    site: Site,
    beats: Arc<AtomicUsize>,
}

impl Bench {
    fn new(app: &App, workers: usize) -> Self {
        let beats = Arc::new(AtomicUsize::new(0));
        let counted = beats.clone();
        let beat = move |_: Tick| {
            let _ = counted.fetch_add(1, Relaxed);
            async { Ok::<_, BoxError>(Vec::new()) }
        };
        let mounts = FRAMEWORKS.iter().fold(three().workers(workers), |deployment: Deployment, framework| {
            deployment
                .mount(format!("/{framework}-bad"), target(framework, app))
                .mount(format!("/{framework}-own"), target(framework, app).own_threads(1))
        });
        Self { site: Site::start(mounts.job(Job::new("beat", "every 50ms", beat)).drain(secs(1))), beats }
    }

    async fn wait_for_requests(&self, count: usize) {
        loop {
            match self.site.handle().send(Command::Status).await {
                Reply::Status(status) if status.requests == count => return,
                _ => tokio::time::sleep(millis(5)).await,
            }
        }
    }

    /// Everybody else is answered, and the job goes on.
    fn others_go_on(&self) {
        let before = self.beats.load(Relaxed);
        let mut wire = self.site.wire();
        for framework in FRAMEWORKS {
            assert_eq!(wire.ask(get(&format!("/{framework}/hello/x"))).text(), "Hello, x!\n", "{framework}");
        }
        assert_eq!(wire.ask(get("/index.html")).text(), "welcome\n");
        eventually("the job goes on", || (self.beats.load(Relaxed) >= before + 2).then_some(()));
    }
}

fn mounts() -> impl Iterator<Item = String> {
    FRAMEWORKS.iter().flat_map(|framework| [format!("/{framework}-bad"), format!("/{framework}-own")])
}

const HELLO: &str = "Hello, x!\n";

#[test]
fn an_answer_that_lies_about_its_length_is_never_taken_for_two() {
    use Content::{Pieces, Whole};
    let (hello, streamed) = (Whole("hello"), Pieces(&["he", "llo"]));
    let cases: Vec<(&str, Said)> = [hello, streamed]
        .into_iter()
        .flat_map(|body| {
            let said = |headers: &[(&str, &str)]| said(200, headers, body.clone());
            [
                ("longer than it is", said(&[("content-length", "10")])),
                ("shorter than it is", said(&[("content-length", "3")])),
                ("nothing", said(&[("content-length", "0")])),
                ("no number", said(&[("content-length", "five")])),
                ("signed", said(&[("content-length", "+5")])),
                ("a list", said(&[("content-length", "5, 5")])),
                ("more than a number holds", said(&[("content-length", "99999999999999999999999")])),
                ("twice the same", said(&[("content-length", "5"), ("content-length", "5")])),
                ("two lengths", said(&[("content-length", "5"), ("content-length", "3")])),
                ("chunked", said(&[("transfer-encoding", "chunked")])),
                (
                    "chunked twice",
                    said(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]),
                ),
                ("encoded", said(&[("transfer-encoding", "gzip")])),
                ("not chunked last", said(&[("transfer-encoding", "chunked, identity")])),
                ("both", said(&[("content-length", "3"), ("transfer-encoding", "chunked")])),
                ("both, the other way", said(&[("transfer-encoding", "chunked"), ("content-length", "3")])),
                (
                    "hop by hop",
                    said(&[("connection", "content-length, x-y"), ("x-y", "z"), ("keep-alive", "max=1")]),
                ),
                ("an upgrade", said(&[("connection", "upgrade"), ("upgrade", "other")])),
                ("closing", said(&[("connection", "close")])),
                ("keeping", said(&[("connection", "keep-alive"), ("proxy-connection", "keep-alive")])),
            ]
        })
        .chain([
            ("204 with a body", said(204, &[], Whole("hello"))),
            ("204 with a length", said(204, &[("content-length", "5")], Whole("hello"))),
            ("204 with an encoding", said(204, &[("transfer-encoding", "chunked")], Pieces(&["hello"]))),
            ("204 with pieces", said(204, &[], Pieces(&["hello"]))),
            ("304 with a body", said(304, &[], Whole("hello"))),
            ("304 with a length", said(304, &[("content-length", "9")], Whole("hello"))),
            ("304 with pieces", said(304, &[], Pieces(&["hello"]))),
            ("205 with a body", said(205, &[], Whole("hello"))),
            ("empty with a length", said(200, &[("content-length", "5")], Whole(""))),
        ])
        .collect();
    let app = App { cases: Arc::new(cases.iter().map(|(_, said)| said.clone()).collect()), ..App::default() };
    let bench = Bench::new(&app, 1);
    for mount in mounts() {
        let http2 = bench.site.http2();
        for (number, (name, said)) in cases.iter().enumerate() {
            let target = format!("{mount}/case/{number}");
            let said = format!("{mount}, {name}: {:?}", (&said.headers, &said.body));
            for method in ["GET", "HEAD"] {
                let request = get(&target).replacen("GET", method, 1);
                let mut wire = bench.site.wire();
                wire.send(format!("{request}{}", get(&format!("{mount}/hello"))));
                if let Some(next) = framed(&mut wire, method == "HEAD", &said) {
                    assert_eq!(
                        (next.status, next.text(), next.whole),
                        (200, "hello", true),
                        "{method} {said}"
                    );
                }
            }
            // Over HTTP/2 a stream says where it ends. Others go on, on the same connection.
            let mounted = http2.request(Method::GET, &target, &[], "");
            let _ = http2.try_ask(mounted);
            assert_eq!(http2.get("/axum/hello/x").text(), HELLO, "{said}");
            assert_eq!(http2.get(&format!("{mount}/hello")).text(), "hello", "{said}");
        }
    }
    bench.others_go_on();
    bench.site.requests(0);
}

/// Reads an answer as the strictest client would, and gives what comes after it, if anything does.
fn framed(wire: &mut Wire, bare: bool, said: &str) -> Option<Answer> {
    // A body that ends too early ends the connection, perhaps before its head was written.
    let head = wire.coming()?.to_ascii_lowercase();
    let of = |name: &str| -> Vec<String> {
        head.lines().filter_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned()).collect()
    };
    let (lengths, encodings) = (of("content-length:"), of("transfer-encoding:"));
    let status: u16 = head[9..12].parse().expect("a status");
    assert!(lengths.len() + encodings.len() <= 1, "{said}: {head}");
    assert!(lengths.iter().all(|length| length.bytes().all(|byte| byte.is_ascii_digit())), "{said}: {head}");
    assert!(encodings.iter().all(|encoding| encoding == "chunked"), "{said}: {head}");
    assert!(status != 204 || lengths.is_empty() && encodings.is_empty(), "{said}: {head}");
    let closes = head.contains("\r\nconnection: close\r\n");
    let until_the_end = lengths.is_empty() && encodings.is_empty();
    if bare || status == 204 || status == 304 {
        // No body whatever the head says.
        drop(wire.head());
    } else {
        assert!(!until_the_end || closes, "{said}: {head}");
        let answer = wire.answer();
        if !answer.whole {
            // It ended in the middle: nothing can come after it.
            return None;
        }
        assert!(matches!(answer.text(), "hello" | "hel" | ""), "{said}: {answer:?}");
    }
    let next = wire.try_answer();
    assert!(next.is_some() || closes, "{said}: {head}");
    next
}

#[test]
fn what_is_no_answer_is_a_500() {
    let statuses = [100, 102, 103, 199];
    let cases = statuses.map(|status| said(status, &[], Content::Whole("")));
    let app = App { cases: Arc::new(cases.into()), ..App::default() };
    let bench = Bench::new(&app, 1);
    for mount in mounts() {
        let http2 = bench.site.http2();
        for number in 0..statuses.len() {
            let target = format!("{mount}/case/{number}");
            let mut wire = bench.site.wire();
            wire.send(get(&target) + &get(&format!("{mount}/hello")));
            let seen = wire.answer();
            assert_eq!((seen.status, seen.text()), (500, "internal server error\n"), "{target}");
            assert_eq!(wire.answer().text(), "hello", "{target}");
            let seen = http2.get(&target);
            assert_eq!((seen.status, seen.text()), (500, "internal server error\n"), "{target}");
            assert_eq!(http2.get(&format!("{mount}/hello")).text(), "hello", "{target}");
        }
    }
    let _ = log().wait(&["ERROR", "an app failed", "it answered 103", "/axum-bad"]);
    bench.others_go_on();
}

#[test]
fn a_switch_that_nobody_asked_for_ends_its_connection_only() {
    let app = App {
        cases: Arc::new(vec![said(101, &[("upgrade", "other")], Content::Whole(""))]),
        ..App::default()
    };
    let bench = Bench::new(&app, 1);
    for mount in mounts() {
        let target = format!("{mount}/case/0");
        let mut wire = bench.site.wire();
        wire.send(get(&target) + &get(&format!("{mount}/hello")));
        let (seen, _) = wire.rest();
        let seen = String::from_utf8_lossy(&seen);
        assert!(seen.matches("HTTP/1.1").count() <= 1, "{mount}: {seen}");
        let http2 = bench.site.http2();
        assert_eq!(http2.get(&target).status, 500, "{mount}");
        assert_eq!(http2.get(&format!("{mount}/hello")).text(), "hello", "{mount}");
    }
    bench.others_go_on();
    bench.site.requests(0);
    bench.site.connections(0);
}

/// Asks over HTTP/1.1, and goes away when there is something to leave.
fn leave_behind(bench: &Bench, target: &str) {
    let mut wire = bench.site.wire();
    wire.send(get(target));
    if target.ends_with("/body/endless") {
        wire.until("two");
        wire.abort();
    } else if target.ends_with("/body") && !target.starts_with("/actix") {
        // All of it has been sent by then, and the connection is nobody's in particular. What actix makes of a
        // body lets go of it before that, so that there it is a panic in the body.
        let answer = wire.answer();
        assert_eq!((answer.text(), answer.whole), ("onetwo", true), "{target}");
        assert_eq!(wire.ask(get("/axum/hello/x")).text(), HELLO, "{target}");
    } else if let Some(answer) = wire.try_answer() {
        // Or an end: what an answer carries beside its head and body is dropped by whoever writes it.
        assert!(matches!(answer.status, 200 | 500), "{target}: {answer:?}");
    }
}

#[test]
fn a_panic_in_a_destructor_ends_its_own_request_at_most() {
    let app = App::default();
    let bench = Bench::new(&app, 1);
    for mount in mounts() {
        for path in ["/body", "/body/endless", "/state/done", "/extension", "/extension/answer"] {
            let target = format!("{mount}{path}");
            // On the same worker, as all are.
            let mut other = bench.site.wire();
            assert_eq!(other.ask(get("/axum/hello/x")).text(), HELLO);
            leave_behind(&bench, &target);
            assert_eq!(other.ask(get("/axum/hello/x")).text(), HELLO, "{target}");
            assert_eq!(bench.site.wire().ask(get(&format!("{mount}/hello"))).text(), "hello", "{target}");
        }
        // Over HTTP/2 on one connection, beside a stream that goes on.
        for path in ["/body", "/body/endless", "/state", "/state/done", "/extension", "/extension/answer"] {
            let target = format!("{mount}{path}");
            let http2 = bench.site.http2();
            let (said, body) = tokio::sync::mpsc::channel(1);
            let request = http2.request(Method::POST, "/axum/echo", &[], "");
            let echo = bench.site.runtime().spawn(http2.begin(request.map(|_| Piped(body).boxed())));
            http2.wait(async {
                said.send("before".into()).await.unwrap();
                let asked = http2.begin(http2.request(Method::GET, &target, &[], ""));
                match path {
                    "/state" => {
                        let asked = tokio::spawn(asked);
                        bench.wait_for_requests(2).await;
                        asked.abort();
                    }
                    "/body/endless" => drop(asked.await),
                    _ => {
                        if let Ok(answer) = asked.await {
                            let answer = read(answer).await;
                            assert!(matches!(answer.status, 200 | 500), "{target}: {answer:?}");
                        }
                    }
                }
                bench.wait_for_requests(1).await;
                said.send(" and after".into()).await.unwrap();
            });
            drop(said);
            let echoed = http2.wait(async { read(echo.await.unwrap().unwrap()).await });
            assert_eq!((echoed.text(), echoed.whole), ("before and after", true), "{target}");
            assert_eq!(http2.get(&format!("{mount}/hello")).text(), "hello", "{target}");
        }
    }
    bench.site.requests(0);
    bench.others_go_on();
    for framework in FRAMEWORKS {
        let _ = log().wait(&["ERROR", "an app failed", "in a destructor", &format!("/{framework}-bad/body")]);
    }
}

#[test]
fn tasks_that_are_left_behind_hold_up_nobody_and_end_with_the_combo() {
    let app = App::default();
    let bench = Bench::new(&app, 1);
    for mount in mounts() {
        let mut wire = bench.site.wire();
        for path in ["/leave", "/leave/panicking", "/leave/blocking", "/leave"] {
            assert_eq!(wire.ask(get(&format!("{mount}{path}"))).text(), "hello", "{mount}{path}");
        }
    }
    bench.others_go_on();
    assert_eq!(app.left.load(Relaxed), mounts().count() * 201);
    bench.site.stop();
    bench.site.stopped();
    // Only what blocks a thread cannot be dropped.
    eventually("all others are gone", || (app.left.load(Relaxed) <= mounts().count()).then_some(()));
    app.released.store(true, Relaxed);
    eventually("these, too", || (app.left.load(Relaxed) == 0).then_some(()));
}

#[test]
fn a_loop_that_never_waits_holds_its_own_thread_only() {
    for framework in FRAMEWORKS {
        let app = App::default();
        let bench = Bench::new(&app, 2);
        let (target, own) = (format!("/{framework}-bad/spin"), format!("/{framework}-own/spin"));
        let mut far = bench.site.wire();
        far.send(get(&own));
        bench.others_go_on();
        let mut near = bench.site.wire();
        near.send(get(&target));
        let _ = log().wait(&[
            "WARN",
            "an app holds its worker",
            &format!("\"/{framework}-bad\""),
            "GET",
            &target,
        ]);
        for _ in 0..5 {
            bench.others_go_on();
            let mut same = bench.site.wire();
            assert_eq!(same.ask(get(&format!("/{framework}-bad/hello"))).text(), "hello", "{framework}");
        }
        app.released.store(true, Relaxed);
        assert_eq!((near.answer().text(), far.answer().text()), ("hello", "hello"), "{framework}");
        let waits = format!("/{framework}-own/hello");
        assert_eq!(far.ask(get(&waits)).text(), "hello", "{framework}");
        assert!(log().with(&["an app holds its worker", &own]).is_empty(), "it is not the worker's");
    }
}

#[test]
fn a_task_that_is_always_ready_leaves_others_their_turn() {
    for framework in FRAMEWORKS {
        let app = App::default();
        let bench = Bench::new(&app, 1);
        let mut busy = bench.site.wire();
        busy.send(get(&format!("/{framework}-bad/spin/waking")));
        bench.site.requests(1);
        let http2 = bench.site.http2();
        let waking = format!("/{framework}-bad/spin/waking");
        let asked = bench.site.runtime().spawn(http2.begin(http2.request(Method::GET, &waking, &[], "")));
        bench.site.requests(2);
        bench.others_go_on();
        assert_eq!(http2.get(&format!("/{framework}-bad/hello")).text(), "hello", "{framework}");
        app.released.store(true, Relaxed);
        assert_eq!(busy.answer().text(), "hello", "{framework}");
        assert_eq!(http2.wait(asked).unwrap().unwrap().status(), 200, "{framework}");
    }
}

#[test]
fn a_body_without_an_end_is_made_as_it_is_read() {
    const PIECE: usize = 16 << 10;
    let piece: &'static str = Box::leak("x".repeat(PIECE).into_boxed_str());
    let app = App { cases: Arc::new(vec![said(200, &[], Content::Endless(piece))]), ..App::default() };
    let bench = Bench::new(&app, 1);
    let polled = || app.polls.load(Relaxed);
    // It stays so often as long as others have their turn.
    let stops = |said: &str| {
        eventually(&format!("no more is made: {said}"), || {
            let before = polled();
            bench.others_go_on();
            (polled() == before).then_some(before)
        })
    };
    for mount in mounts() {
        let target = format!("{mount}/case/0");
        // As much as the kernel keeps for both sides, which is a few MiB.
        let most = polled() + (64 << 20) / PIECE;
        let mut wire = bench.site.wire();
        wire.send(get(&target));
        let before = stops(&target);
        assert!(before < most, "{target}: {before} pieces, and nobody reads");
        drop(wire.take(8 << 20));
        wire.abort();
        bench.site.requests(0);
        let _ = stops(&target);
        let http2 = bench.site.http2();
        let answer = http2.wait(http2.begin(http2.request(Method::GET, &target, &[], ""))).unwrap();
        let before = stops(&target);
        assert!(before < most + (64 << 20) / PIECE, "{target}: {before} pieces, and nobody reads");
        assert_eq!(http2.get(&format!("{mount}/hello")).text(), "hello", "{target}");
        drop(answer);
        bench.site.requests(0);
        assert_eq!(http2.get(&format!("{mount}/hello")).text(), "hello", "{target}");
    }
}

#[test]
fn a_head_without_measure_arrives_or_ends_its_own_request() {
    let large = "v".repeat(1 << 20);
    let many: Vec<(String, String)> = (0..10_000).map(|n| (format!("x-{n}"), "v".to_owned())).collect();
    let cases = vec![
        said(200, &[("x-large", &large)], Content::default()),
        Said { status: 200, headers: many, body: Content::default() },
    ];
    let app = App { cases: Arc::new(cases), ..App::default() };
    let bench = Bench::new(&app, 1);
    for mount in mounts() {
        for (case, headers) in [(0, 1), (1, 10_000)] {
            let target = format!("{mount}/case/{case}");
            let mut wire = bench.site.wire();
            let answer = wire.ask(get(&target));
            let own = answer.headers.iter().filter(|(name, _)| name.starts_with("x-")).count();
            assert_eq!((answer.text(), own), ("hello", headers), "{target}");
            assert_eq!(wire.ask(get(&format!("{mount}/hello"))).text(), "hello", "{target}");
            // Over HTTP/2 a client says how large a head it takes; this one breaks off.
            let http2 = bench.site.http2();
            let request = http2.request(Method::GET, &target, &[], "");
            let _ = http2.try_ask(request);
            assert_eq!(wire.ask(get(&format!("{mount}/hello"))).text(), "hello", "{target}");
            drop(http2);
        }
    }
    bench.site.requests(0);
    bench.others_go_on();
}

/// What ends a line, or a string of C, is in no header that any of them takes.
#[test]
fn no_framework_takes_a_header_that_is_two() {
    for byte in 0..=u8::MAX {
        let (value, name) = ([b'a', byte, b'b'], [b'x', b'-', byte]);
        let may = byte == b'\t' || byte >= b' ' && byte != 0x7f;
        assert_eq!(http::HeaderValue::from_bytes(&value).is_ok(), may, "{byte}");
        assert_eq!(actix_web::http::header::HeaderValue::from_bytes(&value).is_ok(), may, "{byte}");
        if byte == b'"' {
            // Newer versions of `http` take it, and it ends nothing.
            continue;
        }
        // RFC 9110, section 5.6.2.
        let may = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        assert_eq!(http::HeaderName::from_bytes(&name).is_ok(), may, "{byte}");
        assert_eq!(actix_web::http::header::HeaderName::from_bytes(&name).is_ok(), may, "{byte}");
    }
}
