//! Draining: apps are told, websockets are closed, and the log names everything that is waited for.

use std::{convert::Infallible, time::Duration};

use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use axum::extract::{Path, ws};
use bytes::Bytes;
use combo::{
    BoxError, Change, Command, Context, Deployment, Draining, Job, Reply, RequestBody, Tick, millis, mount,
    mount::Target, secs,
};
use futures_util::{SinkExt, StreamExt};
use http::{Extensions, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, split},
    time::sleep,
};
use warp::Filter;

use crate::{
    lines::log,
    site::{ANY_PORT, ANY_TLS_PORT, FRAMEWORKS, Site, three_at},
    websocket::{
        BINARY, CLOSE, ECHOES, LAST, TEXT, apps_everywhere, connect, echoes, everywhere, frame, message,
        next, open,
    },
    wire::{End, Wire, get},
};

/// More than sockets hold.
const LARGE: usize = 16 << 20;

/// With what code apps close that are told.
const TOLD: u16 = 4_001;

/// With what code the combo closes what apps do not.
const GOING_AWAY: u16 = 1_001;

/// Longer than any test may take.
const FOR_EVER: Duration = secs(3_600);

/// A websocket of a framework.
trait Socket {
    async fn say(&mut self, bytes: Vec<u8>) -> Result<(), ()>;
    async fn hear(&mut self) -> Option<()>;
    async fn bid(&mut self, code: u16);
}

impl Socket for ws::WebSocket {
    async fn say(&mut self, bytes: Vec<u8>) -> Result<(), ()> {
        self.send(ws::Message::Binary(bytes.into())).await.map_err(drop)
    }

    async fn hear(&mut self) -> Option<()> {
        self.recv().await?.ok().map(drop)
    }

    async fn bid(&mut self, code: u16) {
        let _ = self.send(ws::Message::Close(Some(ws::CloseFrame { code, reason: "".into() }))).await;
    }
}

impl Socket for warp::ws::WebSocket {
    async fn say(&mut self, bytes: Vec<u8>) -> Result<(), ()> {
        self.send(warp::ws::Message::binary(bytes)).await.map_err(drop)
    }

    async fn hear(&mut self) -> Option<()> {
        self.next().await?.ok().map(drop)
    }

    async fn bid(&mut self, code: u16) {
        let _ = self.send(warp::ws::Message::close_with(code, "")).await;
    }
}

struct ActixSocket(Option<actix_ws::Session>, actix_ws::MessageStream);

impl Socket for ActixSocket {
    async fn say(&mut self, bytes: Vec<u8>) -> Result<(), ()> {
        self.0.as_mut().ok_or(())?.binary(bytes).await.map_err(drop)
    }

    async fn hear(&mut self) -> Option<()> {
        self.1.next().await?.ok().map(drop)
    }

    async fn bid(&mut self, code: u16) {
        let code = actix_ws::CloseCode::Other(code);
        if let Some(session) = self.0.take() {
            let _ = session.close(Some(actix_ws::CloseReason { code, description: None })).await;
        }
    }
}

/// What the apps do with a websocket, by the last segment of its path. For each type on its own, since
/// that of actix does not leave its thread and those of the others may have to.
macro_rules! talk {
    ($name:ident, $socket:ty) => {
        async fn $name(mut socket: $socket, what: String, draining: Draining) {
            match &*what {
                "told" | "context" => {
                    let gone = async { while socket.hear().await.is_some() {} };
                    tokio::select! {
                        () = draining.wait() => {}
                        () = gone => return,
                    }
                    socket.bid(TOLD).await;
                }
                "large" => drop(socket.say(vec![7; LARGE]).await),
                "chatter" => {
                    while socket.say(b"and so on".to_vec()).await.is_ok() {
                        sleep(millis(1)).await;
                    }
                }
                // It never comes back to it, whatever is said.
                "absent" => std::future::pending().await,
                other => panic!("{other} is not known"),
            }
            while socket.hear().await.is_some() {}
        }
    };
}

talk!(by_axum, ws::WebSocket);
talk!(by_actix, ActixSocket);
talk!(by_warp, warp::ws::WebSocket);

/// The value that was given to the app, or that came with the request.
fn told_by(what: &str, context: Option<&Context>, given: &Draining) -> Draining {
    let context = context.expect("every mount here has a context");
    if what == "context" { context.draining() } else { given }.clone()
}

/// An app of a framework that talks.
fn talker(framework: &str, given: &Draining) -> Target {
    let given = given.clone();
    let target = match framework {
        "axum" => {
            let talk =
                async move |Path(what): Path<String>, extensions: Extensions, ws: ws::WebSocketUpgrade| {
                    let draining = told_by(&what, extensions.get(), &given);
                    ws.on_upgrade(move |socket| by_axum(socket, what, draining))
                };
            mount::axum(axum::Router::new().route("/{what}", axum::routing::any(talk)))
        }
        "actix" => {
            async fn talk(
                request: HttpRequest,
                body: web::Payload,
                what: web::Path<String>,
                given: web::Data<Draining>,
            ) -> Result<HttpResponse, actix_web::Error> {
                let (response, session, messages) = actix_ws::handle(&request, body)?;
                let what = what.into_inner();
                let draining = {
                    let extensions = request.extensions();
                    let newer = extensions.get::<Extensions>();
                    told_by(&what, newer.and_then(Extensions::get), &given)
                };
                let socket = ActixSocket(Some(session), messages);
                drop(actix_web::rt::spawn(by_actix(socket, what, draining)));
                Ok(response)
            }
            let given = web::Data::new(given);
            let app = move || {
                actix_web::App::new().app_data(given.clone()).service(web::resource("/{what}").to(talk))
            };
            mount::actix(app)
        }
        _ => {
            let context = warp::ext::optional::<Context>();
            let talk = warp::path::param().and(context).and(warp::ws()).map(
                move |what: String, context: Option<Context>, ws: warp::ws::Ws| {
                    let draining = told_by(&what, context.as_ref(), &given);
                    ws.on_upgrade(move |socket| by_warp(socket, what, draining))
                },
            );
            mount::tower(warp::service(talk))
        }
    };
    target.context()
}

/// Where the talkers are.
const TALKERS: [&str; 6] = ["/axum", "/actix", "/warp", "/axum-own", "/actix-own", "/warp-own"];

/// The talkers on the workers and on threads of their own, behind endpoints of every kind.
fn talkers() -> Site {
    let draining = Draining::new();
    let deployment = Deployment::new("talkers").listen(ANY_PORT).listen(ANY_TLS_PORT).listen("unix:app.sock");
    let deployment = FRAMEWORKS.iter().fold(deployment.workers(2), |deployment, framework| {
        let (plain, own) = (talker(framework, &draining), talker(framework, &draining).own_threads(1));
        deployment.mount(format!("/{framework}"), plain).mount(format!("/{framework}-own"), own)
    });
    Site::start(deployment.tell(Draining::new()).tell(draining).drain(FOR_EVER))
}

/// Each websocket at these targets, over each kind of endpoint.
fn opened(site: &Site, targets: impl IntoIterator<Item = String>) -> Vec<(String, Wire)> {
    let mut wires = Vec::new();
    for target in targets {
        for mut wire in everywhere(site) {
            open(&mut wire, &target);
            wires.push((target.clone(), wire));
        }
    }
    wires
}

/// The same, but over TLS and the unix socket only the first of them.
fn opened_in_turn(site: &Site, first: &str, what: &str) -> Vec<(String, Wire)> {
    let mut wires = opened(site, [format!("{first}/{what}")]);
    for target in TALKERS.iter().filter(|at| **at != first).map(|at| format!("{at}/{what}")) {
        let mut wire = site.wire();
        open(&mut wire, &target);
        wires.push((target, wire));
    }
    wires
}

/// The next frame is a close with this code, and nothing comes after it.
fn closes(wire: &mut Wire, code: u16, target: &str) -> End {
    let code = code.to_be_bytes();
    assert_eq!(next(wire), (LAST | CLOSE, code.to_vec()), "{target}");
    // An app that has closed may be gone already.
    let answered = wire.try_send(frame(LAST | CLOSE, &code));
    assert!(answered.is_ok() || code != GOING_AWAY.to_be_bytes(), "{target}");
    let (rest, end) = wire.rest();
    assert_eq!(rest, b"", "{target}");
    end
}

#[test]
fn websockets_that_apps_leave_open_are_closed_long_before_the_end() {
    let site = Site::start(apps_everywhere().drain(FOR_EVER));
    let mut wires = opened(&site, ECHOES.map(ToOwned::to_owned));
    for (target, wire) in &mut wires {
        echoes(wire, TEXT, b"hello", target);
    }
    site.stop();
    for (target, wire) in &mut wires {
        assert_eq!(closes(wire, GOING_AWAY, target), End::Closed, "{target}");
    }
    site.stopped();
}

#[test]
fn apps_that_are_told_close_by_themselves() {
    let site = talkers();
    let targets = TALKERS.iter().flat_map(|at| [format!("{at}/told"), format!("{at}/context")]);
    let mut wires = opened(&site, targets);
    site.stop();
    for (target, wire) in &mut wires {
        let _ = closes(wire, TOLD, target);
    }
    site.stopped();
}

#[test]
fn nothing_comes_after_a_close_of_an_app() {
    let site = talkers();
    let mut wires = opened(&site, TALKERS.map(|at| format!("{at}/told")));
    site.stop();
    // Nobody answers, so some are still there when the others would be closed.
    site.stopped();
    for (target, wire) in &mut wires {
        assert_eq!(next(wire), (LAST | CLOSE, TOLD.to_be_bytes().to_vec()), "{target}");
        assert_eq!(wire.rest().0, b"", "{target}");
    }
}

#[test]
fn a_message_that_has_begun_comes_whole_before_the_close() {
    let site = talkers();
    let mut wires = opened_in_turn(&site, "/actix", "large");
    site.stop();
    // By then it has been time for the close for a while.
    let _ = log().wait_for(4, &["waiting for a websocket", "\"/warp-own\"", "/warp-own/large"]);
    for (target, wire) in &mut wires {
        let (kind, bytes) = message(wire);
        assert!(kind == BINARY && bytes == vec![7; LARGE], "{target}");
        assert_eq!(closes(wire, GOING_AWAY, target), End::Closed, "{target}");
    }
    site.stopped();
}

#[test]
fn who_never_stops_talking_is_not_heard_after_the_close() {
    let site = talkers();
    let mut wires = opened_in_turn(&site, "/warp-own", "chatter");
    site.stop();
    for (target, wire) in &mut wires {
        loop {
            match next(wire) {
                (first, payload) if first == LAST | BINARY => assert_eq!(payload, b"and so on", "{target}"),
                (first, payload) => {
                    assert_eq!(
                        (first, payload),
                        (LAST | CLOSE, GOING_AWAY.to_be_bytes().to_vec()),
                        "{target}"
                    );
                    break;
                }
            }
        }
        assert_eq!(wire.rest(), (Vec::new(), End::Closed), "{target}");
    }
    site.stopped();
}

#[test]
fn a_peer_that_does_not_answer_the_close_is_not_waited_for() {
    let site = Site::start(apps_everywhere().drain(FOR_EVER));
    let mut wires = opened(&site, ECHOES.map(ToOwned::to_owned));
    site.stop();
    site.stopped();
    for (target, wire) in &mut wires {
        assert_eq!(next(wire), (LAST | CLOSE, GOING_AWAY.to_be_bytes().to_vec()), "{target}");
        assert_eq!(wire.rest().0, b"", "{target}");
    }
}

#[test]
fn an_app_that_leaves_its_websocket_alone_does_not_hold_up_the_drain() {
    for answers in [true, false] {
        let site = talkers();
        let mut wires = opened(&site, TALKERS.map(|at| format!("{at}/absent")));
        site.stop();
        for (target, wire) in &mut wires {
            assert_eq!(next(wire), (LAST | CLOSE, GOING_AWAY.to_be_bytes().to_vec()), "{target}");
            if answers {
                wire.send(frame(LAST | CLOSE, &GOING_AWAY.to_be_bytes()));
            }
        }
        for (target, wire) in &mut wires {
            assert_eq!(wire.rest(), (Vec::new(), End::Closed), "{target}");
        }
        site.stopped();
    }
}

/// An app that goes on in lines, which it says again.
fn lines(framework: &str) -> Target {
    async fn repeat(request: HttpRequest, body: web::Payload) -> HttpResponse {
        let _ = request;
        HttpResponse::SwitchingProtocols().upgrade("lines").streaming(body)
    }
    let switching = || {
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        response.header("connection", "upgrade").header("upgrade", "lines")
    };
    fn go_on<B>(request: Request<B>) {
        let upgrade = hyper::upgrade::on(request);
        drop(tokio::spawn(async move {
            let (mut from, mut to) = split(TokioIo::new(upgrade.await.unwrap()));
            let _ = copy(&mut from, &mut to).await;
        }));
    }
    match framework {
        "axum" => mount::axum(axum::Router::new().fallback(async move |request: axum::extract::Request| {
            go_on(request);
            switching().body(axum::body::Body::empty()).unwrap()
        })),
        "actix" => mount::actix(|| actix_web::App::new().default_service(web::to(repeat))),
        _ => mount::tower(tower::service_fn(move |request: Request<RequestBody>| async move {
            go_on(request);
            Ok::<_, Infallible>(switching().body(Empty::<Bytes>::new()).unwrap())
        })),
    }
}

/// Gets lines and says one. It is a websocket that is asked for, since actix does not go on with anybody
/// else; what counts is what the app says that it is.
fn line(wire: &mut Wire, target: &str) {
    let asked = "connection: upgrade\r\nupgrade: websocket";
    wire.send(format!("GET {target} HTTP/1.1\r\nhost: a\r\n{asked}\r\n\r\n"));
    let head = wire.head().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("\r\nupgrade: lines\r\n"), "{target}: {head}");
    wire.send("hello\n");
    assert_eq!(wire.take(6), b"hello\n", "{target}");
}

#[test]
fn what_is_no_websocket_is_named_and_left_alone_until_it_is_cut() {
    let deployment = Deployment::new("lines").listen(ANY_PORT).workers(2).drain(FOR_EVER);
    let deployment = FRAMEWORKS.iter().fold(deployment, |deployment, framework| {
        deployment
            .mount(format!("/{framework}-lines"), lines(framework))
            .mount(format!("/{framework}-lines-own"), lines(framework).own_threads(1))
    });
    let site = Site::start(deployment);
    let targets = FRAMEWORKS
        .iter()
        .flat_map(|framework| [format!("/{framework}-lines/a"), format!("/{framework}-lines-own/a")]);
    let mut wires: Vec<_> = targets
        .map(|target| {
            let mut wire = site.wire();
            line(&mut wire, &target);
            (target, wire)
        })
        .collect();
    site.stop();
    for (target, wire) in &mut wires {
        let (mount, said) = (format!("\"{}\"", &target[..target.len() - 2]), format!("\"GET {target}\""));
        let named = log().wait_for(4, &["waiting for a tunnel", &mount, &said, "seconds="]);
        assert_ne!(named[0], named[1], "{target}: it ages");
        // Nothing was put into it.
        wire.send("still here\n");
        assert_eq!(wire.take(11), b"still here\n", "{target}");
    }
    assert_eq!(site.say(Command::Cut), Reply::Begun);
    site.stopped();
    for (target, wire) in &mut wires {
        let mount = format!("\"{}\"", &target[..target.len() - 2]);
        let _ = log().wait(&["cutting a tunnel", &mount, target, "seconds="]);
        assert_eq!(wire.rest().0, b"", "{target}");
    }
}

/// Extended CONNECT: the bytes of a stream are none of ours, so it is as long as any request.
#[test]
fn a_websocket_over_http2_is_named_until_it_is_over_and_cut_at_the_end() {
    let site = Site::start(three_at("-h2").listen(ANY_TLS_PORT).drain(secs(3)));
    for http2 in [site.http2(), site.tls_http2()] {
        let mut over = connect(&http2, "/axum-h2/ws?over");
        http2.wait(over.write_all(&frame(LAST | CLOSE, &1_000_u16.to_be_bytes()))).unwrap();
        let mut rest = Vec::new();
        let _ = http2.wait(over.read_to_end(&mut rest)).unwrap();
        assert_eq!(rest[..2], [LAST | CLOSE, 2]);
        drop(http2);
    }
    let both = [site.http2(), site.tls_http2()];
    let mut cut: Vec<_> = both.iter().map(|http2| connect(http2, "/axum-h2/ws")).collect();
    site.stop();
    let named = ["\"/axum-h2\"", "\"CONNECT /axum-h2/ws\"", "seconds="];
    let _ = log().wait_for(4, &["waiting for a websocket", named[0], named[1], named[2]]);
    let _ = log().wait_for(2, &["cutting a websocket", named[0], named[1], named[2]]);
    site.stopped();
    assert_eq!(log().with(&["cutting a websocket", named[0]]).len(), 2);
    for (http2, stream) in both.iter().zip(&mut cut) {
        let mut rest = Vec::new();
        let _ = http2.wait(stream.read_to_end(&mut rest));
        assert_eq!(rest, b"");
    }
}

#[test]
fn http2_does_not_wait_for_a_websocket_that_is_over() {
    let site = Site::start(three_at("-h2-over").drain(FOR_EVER));
    let http2 = site.http2();
    let mut stream = connect(&http2, "/axum-h2-over/ws");
    site.stop();
    let _ = log().wait(&["waiting for a websocket", "\"/axum-h2-over\""]);
    http2.wait(stream.write_all(&frame(LAST | CLOSE, &1_000_u16.to_be_bytes()))).unwrap();
    let mut rest = Vec::new();
    let _ = http2.wait(stream.read_to_end(&mut rest)).unwrap();
    drop(stream);
    site.stopped();
}

#[test]
fn the_log_names_some_and_counts_the_rest() {
    let lines = Deployment::new("many").listen(ANY_PORT).workers(1).mount("/many", lines("axum"));
    let site = Site::start(lines.drain(secs(3)));
    let mut wires: Vec<_> = (0..13).map(|_| site.wire()).collect();
    for (n, wire) in wires.iter_mut().enumerate() {
        line(wire, &format!("/many/{n}"));
    }
    for _ in 0..2 {
        line(&mut site.wire(), "/many/gone");
    }
    site.connections(13);
    site.stop();
    let _ = log().wait(&["waiting for more upgraded connections of the same worker", "more=3"]);
    let _ = log().wait(&["cutting more upgraded connections of the same worker", "more=3"]);
    site.stopped();
    assert_eq!(log().with(&["cutting a tunnel", "\"/many\""]).len(), 10);
}

#[test]
fn requests_and_tasks_are_named_with_their_age() {
    async fn endless(_: Tick) -> Result<Vec<Change>, BoxError> {
        std::future::pending().await
    }
    let job = Job::new("endless", "cron 0 0 1 1 *", endless);
    let site = Site::start(three_at("-aged").job(job).drain(secs(3)));
    assert_eq!(site.say(Command::RunJob { name: "endless".into(), due: None }), Reply::Begun);
    let mut wires = FRAMEWORKS.map(|framework| {
        let mut wire = site.wire();
        wire.send(get(&format!("/{framework}-aged/endless")));
        wire.until("1\n");
        wire
    });
    site.stop();
    let age = |line: &String| {
        let age = line.split_once("seconds=").expect("an age").1.split_whitespace().next();
        age.expect("a number").parse::<u64>().expect("a number")
    };
    let ages = |what: &[&str]| {
        let lines = log().wait_for(2, &[&["waiting for"], what].concat());
        let ages: Vec<_> = lines.iter().map(age).collect();
        assert!(ages[0] < ages[1] && ages[1] < 60, "{lines:?}");
        let _ = log().wait(&[&["cutting", "seconds="], what].concat());
    };
    ages(&["a task", "job=endless"]);
    for framework in FRAMEWORKS {
        ages(&[
            "a request",
            &format!("\"/{framework}-aged\""),
            &format!("\"GET /{framework}-aged/endless\""),
        ]);
    }
    site.stopped();
    assert!(wires.iter_mut().all(|wire| !wire.answer().whole));
}
