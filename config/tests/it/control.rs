//! One mount at a time: maintenance, pauses and swaps, and who does not notice.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    thread,
};

use bytes::Bytes;
use combo::{
    BoxError, Command, Deployment, MountState, MountStatus, Reply, RequestBody, mount, mount::Target, secs,
};
use http::{HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::{Layer, Service};
use tower_http::set_header::SetResponseHeaderLayer;

use crate::{
    http2::{Http2, read},
    mirror::{Reached, mirror},
    site::{ANY_PORT, ANY_TLS_PORT, FRAMEWORKS, Site, eventually, three},
    websocket::{CLOSE, LAST, TEXT, echoes, frame, open},
    wire::{Answer, Wire, get, post},
};

/// How many requests a paused mount has room for.
const ROOM: usize = 1_024;

fn hello(framework: &str) -> Target {
    match framework {
        "axum" => mount::axum(hello_axum::app()),
        "actix" => mount::actix(hello_actix::app),
        _ => mount::tower(warp::service(hello_warp::routes())),
    }
}

/// The app of a framework as another version of it, which says so.
fn version(framework: &str, version: &'static str) -> Target {
    let name = HeaderName::from_static("x-version");
    hello(framework).layer(SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(version)))
}

/// The three apps beside each other, and the same within a layer around all mounts.
fn sites() -> [Site; 2] {
    [Site::start(three()), Site::start(three().layer(Hesitates))]
}

/// A layer that lets every request wait once before it passes it on.
#[derive(Clone)]
struct Hesitates;

#[derive(Clone)]
struct Hesitating<S>(S);

impl<S> Layer<S> for Hesitates {
    type Service = Hesitating<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Hesitating(inner)
    }
}

impl<S> Service<Request<RequestBody>> for Hesitating<S>
where
    S: Service<Request<RequestBody>> + Clone + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let mut inner = self.0.clone();
        Box::pin(async move {
            tokio::task::yield_now().await;
            inner.call(request).await
        })
    }
}

fn maintain(mount: &str, page: &str) -> Command {
    Command::Maintain { mount: mount.into(), page: page.into() }
}

fn pause(mount: &str) -> Command {
    Command::Pause { mount: mount.into() }
}

fn resume(mount: &str) -> Command {
    Command::Resume { mount: mount.into() }
}

fn done(site: &Site, command: Command) {
    let said = format!("{command:?}");
    assert_eq!(site.say(command), Reply::Done, "{said}");
}

fn swap(site: &Site, mount: &str, target: Target) -> Reply {
    site.wait(site.handle().swap(mount, target))
}

fn why(reply: Reply) -> String {
    match reply {
        Reply::Refused { why } => why,
        other => panic!("it was not refused: {other:?}"),
    }
}

fn standing(site: &Site, mount: &str) -> MountStatus {
    site.status().mounts.into_iter().find(|status| status.pattern == mount).expect("a line for it")
}

/// Requests in flight at a mount, and connections to the others, that are to survive what is done to it.
struct Bystanders {
    framework: &'static str,
    slow: Wire,
    endless: Wire,
    socket: Wire,
    stream: (Http2, tokio::task::JoinHandle<Answer>),
    others: Vec<Wire>,
}

impl Bystanders {
    fn of(site: &Site, framework: &'static str) -> Self {
        let (mut slow, mut endless, mut socket) = (site.wire(), site.wire(), site.wire());
        open(&mut socket, &format!("/{framework}/ws"));
        endless.send(get(&format!("/{framework}/endless")));
        endless.until("1\n");
        slow.send(get(&format!("/{framework}/slow?ms=1000")));
        let http2 = site.http2();
        let stream = http2.begin(http2.request(Method::GET, &format!("/{framework}/stream"), &[], ""));
        let stream = site.runtime().spawn(async { read(stream.await.unwrap()).await });
        site.requests(3);
        let (stream, others) = ((http2, stream), vec![site.wire(), site.wire()]);
        let mut bystanders = Self { framework, slow, endless, socket, stream, others };
        bystanders.go_on();
        bystanders
    }

    /// The connections to other mounts are the same as ever, and so is a websocket to this one.
    fn go_on(&mut self) {
        echoes(&mut self.socket, TEXT, b"still here", self.framework);
        for wire in &mut self.others {
            for other in FRAMEWORKS.iter().filter(|other| **other != self.framework) {
                assert_eq!(wire.ask(get(&format!("/{other}/hello/x"))).text(), "Hello, x!\n", "{other}");
            }
            assert_eq!(wire.ask(get("/")).text(), "welcome\n");
        }
    }

    /// What was in flight came to its own end, or goes on.
    fn end(mut self) {
        self.go_on();
        let Self { framework, mut slow, mut endless, stream: (http2, stream), .. } = self;
        endless.until("\n9\n");
        assert_eq!(slow.answer().text(), "waited 1000 ms\n", "{framework}");
        let stream = http2.wait(stream).unwrap();
        assert_eq!((stream.text().matches("data: ").count(), stream.whole), (10, true), "{framework}");
    }
}

#[test]
fn a_mount_in_maintenance_answers_503_and_nobody_else_notices() {
    for site in sites() {
        for framework in FRAMEWORKS {
            let (mount, target) = (format!("/{framework}"), format!("/{framework}/hello/x"));
            let mut bystanders = Bystanders::of(&site, framework);
            let (mut known, http2) = ([site.wire(), site.wire()], site.http2());
            known.iter_mut().for_each(|wire| assert_eq!(wire.ask(get(&target)).status, 200));
            done(&site, maintain(&mount, "<h1>back soon</h1>"));
            bystanders.go_on();
            let fresh = site.wire();
            for wire in known.iter_mut().chain([&mut { fresh }]) {
                for request in [get(&target), post(&format!("{mount}/echo"), "lost"), get(&target)] {
                    let answer = wire.ask(request);
                    assert_eq!((answer.status, answer.text()), (503, "<h1>back soon</h1>"), "{framework}");
                    assert_eq!(answer.header("retry-after"), Some("30"));
                    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
                }
            }
            let answer = http2.get(&target);
            assert_eq!((answer.status, answer.text()), (503, "<h1>back soon</h1>"), "{framework}");
            assert_eq!(standing(&site, &mount).state, MountState::Maintenance);
            // Another page, and our own.
            for (page, seen) in [("at noon", "at noon"), ("", "down for maintenance\n")] {
                done(&site, maintain(&mount, page));
                let answer = known[0].ask(get(&target));
                assert_eq!((answer.status, answer.text()), (503, seen));
                assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
                assert_eq!(answer.header("retry-after"), Some("30"));
            }
            done(&site, resume(&mount));
            for wire in &mut known {
                assert_eq!(wire.ask(get(&target)).text(), "Hello, x!\n", "{framework}");
            }
            assert_eq!(http2.get(&target).text(), "Hello, x!\n", "{framework}");
            assert_eq!(standing(&site, &mount).state, MountState::Serving);
            bystanders.end();
            site.requests(0);
        }
    }
}

#[test]
fn requests_of_a_paused_mount_wait_and_go_on_when_it_is_resumed() {
    for site in sites() {
        for framework in FRAMEWORKS {
            let mount = format!("/{framework}");
            let mut bystanders = Bystanders::of(&site, framework);
            let (mut known, mut echo, mut place) = (site.wire(), site.wire(), site.wire());
            assert_eq!(known.ask(get(&format!("{mount}/hello/x"))).status, 200);
            let expected = place.ask(get(&format!("{mount}/where?a=b"))).json();
            assert_eq!(expected["prefix"], mount);
            done(&site, pause(&mount));
            known.send(get(&format!("{mount}/hello/x")));
            echo.send(post(&format!("{mount}/echo"), "0123456789").split_at(60).0);
            place.send(get(&format!("{mount}/where?a=b")));
            let http2 = site.http2();
            let far = http2.begin(http2.request(Method::GET, &format!("{mount}/hello/y"), &[], ""));
            let far = site.runtime().spawn(async { read(far.await.unwrap()).await });
            eventually("they wait", || (site.status().requests >= 4).then_some(()));
            bystanders.go_on();
            // What was in flight is finished meanwhile.
            bystanders.end();
            site.requests(4);
            let status = standing(&site, &mount);
            assert_eq!((status.state, status.requests), (MountState::Paused, 4), "{framework}");
            done(&site, resume(&mount));
            assert_eq!(known.answer().text(), "Hello, x!\n", "{framework}");
            assert_eq!(place.answer().json(), expected, "{framework}");
            echo.send(post(&format!("{mount}/echo"), "0123456789").split_at(60).1);
            assert_eq!(echo.answer().text(), "0123456789", "{framework}");
            assert_eq!(http2.wait(far).unwrap().text(), "Hello, y!\n", "{framework}");
            site.requests(0);
            assert_eq!(known.ask(get(&format!("{mount}/hello/x"))).text(), "Hello, x!\n");
        }
    }
}

#[test]
fn so_many_wait_and_who_leaves_makes_room() {
    let site = Site::start(three());
    done(&site, pause("/warp"));
    let lines: Vec<Http2> = (0..ROOM.div_ceil(100)).map(|_| site.http2()).collect();
    let mut waiting: Vec<_> = (0..ROOM)
        .map(|n| {
            let http2 = &lines[n / 100];
            let answer = http2.begin(http2.request(Method::GET, &format!("/warp/hello/{n}"), &[], ""));
            (n, site.runtime().spawn(async { read(answer.await.unwrap()).await }))
        })
        .collect();
    site.requests(ROOM);
    let mut late = site.wire();
    let answer = late.ask(get("/warp/hello/late"));
    assert_eq!((answer.status, answer.text(), answer.header("retry-after")), (503, "busy\n", Some("1")));
    // One leaves by resetting its stream.
    waiting.pop().unwrap().1.abort();
    site.requests(ROOM - 1);
    let mut rude = site.wire();
    rude.send(get("/warp/hello/rude"));
    site.requests(ROOM);
    assert_eq!(late.ask(get("/warp/hello/late")).status, 503);
    // And one without a word.
    rude.abort();
    site.requests(ROOM - 1);
    late.send(get("/warp/hello/late"));
    site.requests(ROOM);
    done(&site, resume("/warp"));
    assert_eq!(late.answer().text(), "Hello, late!\n");
    for (n, answer) in waiting {
        assert_eq!(site.wait(answer).unwrap().text(), format!("Hello, {n}!\n"));
    }
    site.requests(0);
}

#[test]
fn who_waits_is_told_of_a_maintenance() {
    let site = Site::start(three());
    for framework in FRAMEWORKS {
        let (mount, target) = (format!("/{framework}"), format!("/{framework}/hello/x"));
        let mut wires = [site.wire(), site.wire()];
        done(&site, pause(&mount));
        wires.iter_mut().for_each(|wire| wire.send(get(&target)));
        site.requests(2);
        done(&site, maintain(&mount, "at noon"));
        for wire in &mut wires {
            let answer = wire.answer();
            assert_eq!((answer.status, answer.text()), (503, "at noon"), "{framework}");
        }
        // And the other way round.
        done(&site, pause(&mount));
        wires.iter_mut().for_each(|wire| wire.send(get(&target)));
        site.requests(2);
        done(&site, resume(&mount));
        assert!(wires.iter_mut().all(|wire| wire.answer().text() == "Hello, x!\n"), "{framework}");
    }
}

#[test]
fn a_stop_answers_who_waits_and_takes_no_budget() {
    for deployment in [three(), three().layer(Hesitates)] {
        let site = Site::start(deployment.drain(secs(3_600)));
        let mut waiting = Vec::new();
        for framework in FRAMEWORKS {
            done(&site, pause(&format!("/{framework}")));
            let (mut wire, mut late) = (site.wire(), site.wire());
            wire.send(get(&format!("/{framework}/hello/x")));
            late.send(format!("GET /{framework}/hello/x HTTP/1.1\r\nHo"));
            late.until_read();
            waiting.push((framework, wire, late));
        }
        let http2 = site.http2();
        let far = http2.begin(http2.request(Method::GET, "/axum/hello/y", &[], ""));
        let far = site.runtime().spawn(async { read(far.await.unwrap()).await });
        site.requests(4);
        site.stop();
        for (framework, mut wire, mut late) in waiting {
            let answer = wire.answer();
            assert_eq!((answer.status, answer.text()), (503, "stopping\n"), "{framework}");
            assert_eq!(answer.header("retry-after"), Some("1"));
            // Nor does one that comes only now.
            late.send("st: test\r\n\r\n");
            assert_eq!(late.answer().status, 503, "{framework}");
        }
        let far = http2.wait(far).unwrap();
        assert_eq!((far.status, far.text()), (503, "stopping\n"));
        site.stopped();
    }
}

#[test]
fn a_swap_leaves_what_is_in_flight_and_the_others_alone() {
    for site in sites() {
        for framework in FRAMEWORKS {
            let (mount, target) = (format!("/{framework}"), format!("/{framework}/hello/x"));
            let mut bystanders = Bystanders::of(&site, framework);
            let (mut known, http2) = ([site.wire(), site.wire()], site.http2());
            for wire in &mut known {
                assert_eq!(wire.ask(get(&target)).header("x-version"), None);
            }
            assert_eq!(http2.get(&target).header("x-version"), None);
            assert_eq!(swap(&site, &mount, version(framework, "2")), Reply::Done);
            bystanders.go_on();
            for wire in &mut known {
                let answer = wire.ask(get(&target));
                assert_eq!((answer.text(), answer.header("x-version")), ("Hello, x!\n", Some("2")));
            }
            assert_eq!(http2.get(&target).header("x-version"), Some("2"), "{framework}");
            assert_eq!(site.wire().ask(get(&target)).header("x-version"), Some("2"), "{framework}");
            bystanders.end();
            // By another framework.
            let other = if framework == "warp" { "axum" } else { "warp" };
            let seen = known[0].ask(get(&format!("{mount}/where"))).json();
            assert_eq!((&seen["framework"], &seen["prefix"]), (&framework.into(), &mount.as_str().into()));
            assert_eq!(swap(&site, &mount, hello(other)), Reply::Done);
            let seen = known[0].ask(get(&format!("{mount}/where"))).json();
            assert_eq!((&seen["framework"], &seen["prefix"]), (&other.into(), &mount.as_str().into()));
            let was = standing(&site, &mount).target;
            assert_eq!(swap(&site, &mount, hello(framework)), Reply::Done);
            assert_ne!(standing(&site, &mount).target, was);
        }
    }
}

/// What is said of a target holds from the swap on, and that of the old one no longer.
#[test]
fn what_is_said_of_a_target_comes_and_goes_with_it() {
    for framework in FRAMEWORKS {
        let reached = Reached::default();
        let site = Site::start(
            Deployment::new("said").listen(ANY_PORT).workers(2).mount("/a", mirror(framework, &reached)),
        );
        let mut wire = site.wire();
        let seen = wire.ask(get("/a/b")).json();
        let of =
            |seen: &serde_json::Value| (seen["path"].clone(), seen["prefix"].clone(), seen["mount"].clone());
        assert_eq!(of(&seen), ("/b".into(), "/a".into(), "/a".into()), "{framework}");
        assert_eq!(swap(&site, "/a", mirror(framework, &reached).unstripped().body_limit(3)), Reply::Done);
        let seen = wire.ask(get("/a/b")).json();
        assert_eq!(of(&seen), ("/a/b".into(), serde_json::Value::Null, "/a".into()), "{framework}");
        assert_eq!(wire.ask(post("/a/b", "1234")).status, 413, "{framework}");
        // The same for whoever has waited for it.
        let mut wire = site.wire();
        done(&site, pause("/a"));
        wire.send(get("/a/b"));
        site.requests(1);
        assert_eq!(swap(&site, "/a", mirror(framework, &reached)), Reply::Done);
        assert_eq!(standing(&site, "/a").state, MountState::Paused);
        site.requests(1);
        done(&site, resume("/a"));
        let seen = wire.answer().json();
        assert_eq!(of(&seen), ("/b".into(), "/a".into(), "/a".into()), "{framework}");
        assert_eq!(wire.ask(post("/a/b", "1234")).status, 200, "{framework}");
        done(&site, pause("/a"));
        wire.send(get("/a/b"));
        site.requests(1);
        assert_eq!(swap(&site, "/a", mirror(framework, &reached).unstripped()), Reply::Done);
        done(&site, resume("/a"));
        let seen = wire.answer().json();
        assert_eq!(of(&seen), ("/a/b".into(), serde_json::Value::Null, "/a".into()), "{framework}");
    }
}

/// A prefix that a trusted proxy has put before ours is there after a pause, too.
#[test]
fn what_a_proxy_says_is_not_forgotten_in_a_pause() {
    let site = Site::start(three().trusted_proxies(["127.0.0.1"]).proxy_headers(["x-forwarded-prefix"]));
    let ask = "GET /axum/where HTTP/1.1\r\nHost: test\r\nX-Forwarded-Prefix: /outer\r\n\r\n";
    let mut wire = site.wire();
    let expected = wire.ask(ask).json();
    assert_eq!(expected["prefix"], "/outer/axum");
    done(&site, pause("/axum"));
    wire.send(ask);
    site.requests(1);
    done(&site, resume("/axum"));
    assert_eq!(wire.answer().json(), expected);
}

/// An app that keeps something for as long as it is there.
fn keeping(framework: &str, kept: Arc<()>) -> Target {
    match framework {
        "axum" => mount::axum(hello_axum::app().layer(axum::Extension(kept))),
        "actix" => mount::actix(move || hello_actix::app().app_data(kept.clone())),
        _ => {
            use warp::Filter;
            let routes = hello_warp::routes().map(move |reply| {
                let _ = &kept;
                reply
            });
            mount::tower(warp::service(routes))
        }
    }
}

#[test]
fn an_old_app_ends_when_nothing_uses_it_any_more() {
    for framework in FRAMEWORKS {
        let kept = Arc::new(());
        let end = Arc::downgrade(&kept);
        let site = Site::start(
            Deployment::new("end").listen(ANY_PORT).workers(2).mount("/a", keeping(framework, kept)),
        );
        assert!(site.wire().ask(get("/a/hello/x")).status == 200 && end.strong_count() > 0);
        assert_eq!(swap(&site, "/a", hello(framework)), Reply::Done);
        eventually("the old app has ended", || (end.strong_count() == 0).then_some(()));
    }
}

#[test]
fn threads_of_its_own_end_with_the_last_that_an_old_app_was_asked() {
    for framework in FRAMEWORKS {
        let kept = Arc::new(());
        let end = Arc::downgrade(&kept);
        let deployment = Deployment::new("own").listen(ANY_PORT).workers(2);
        let site = Site::start(deployment.mount("/a", keeping(framework, kept).own_threads(2)));
        let (mut slow, mut endless) = (site.wire(), site.wire());
        endless.send(get("/a/endless"));
        endless.until("1\n");
        slow.send(get("/a/slow?ms=500"));
        site.requests(2);
        assert_eq!(swap(&site, "/a", version(framework, "2").own_threads(1)), Reply::Done);
        assert_eq!(site.wire().ask(get("/a/hello/x")).header("x-version"), Some("2"));
        assert_eq!(slow.answer().text(), "waited 500 ms\n", "{framework}");
        endless.until("\n9\n");
        assert!(end.strong_count() > 0, "{framework}");
        endless.abort();
        eventually("the threads of the old app have ended", || (end.strong_count() == 0).then_some(()));
        assert_eq!(site.wire().ask(get("/a/hello/x")).header("x-version"), Some("2"), "{framework}");
    }
}

/// Nobody is left but those that are no requests any more.
#[test]
fn threads_of_its_own_end_with_the_last_websocket_of_an_old_app() {
    for framework in FRAMEWORKS {
        let kept = Arc::new(());
        let end = Arc::downgrade(&kept);
        let deployment = Deployment::new("own").listen(ANY_PORT).workers(2);
        let site = Site::start(deployment.mount("/a", keeping(framework, kept).own_threads(2)));
        let mut sockets = [site.wire(), site.wire()];
        for socket in &mut sockets {
            open(socket, "/a/ws");
            echoes(socket, TEXT, b"before", framework);
        }
        site.requests(0);
        assert_eq!(swap(&site, "/a", version(framework, "2").own_threads(1)), Reply::Done);
        assert_eq!(site.wire().ask(get("/a/hello/x")).header("x-version"), Some("2"));
        for mut socket in sockets {
            echoes(&mut socket, TEXT, b"after", framework);
            assert!(end.strong_count() > 0, "{framework}");
            socket.abort();
        }
        eventually("the threads of the old app have ended", || (end.strong_count() == 0).then_some(()));
    }
}

/// A connection with many tunnels, one after another, keeps no more than those that are open.
#[test]
fn threads_of_its_own_end_with_the_last_tunnel_of_an_old_app_and_not_with_its_connection() {
    let deployment = Deployment::new("own").listen(ANY_PORT).listen(ANY_TLS_PORT).workers(2);
    let site = Site::start(deployment.mount("/a", hello("axum")));
    for http2 in [site.http2(), site.tls_http2()] {
        for round in 0..3 {
            let kept = Arc::new(());
            let end = Arc::downgrade(&kept);
            let target = keeping("axum", kept).own_threads(1);
            assert_eq!(swap(&site, "/a", target), Reply::Done);
            let mut request = http2.request(Method::CONNECT, "/a/ws", &[("sec-websocket-version", "13")], "");
            let _ = request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
            let response = http2.wait(http2.begin(request)).unwrap();
            let mut tunnel = TokioIo::new(http2.wait(hyper::upgrade::on(response)).unwrap());
            assert_eq!(swap(&site, "/a", hello("axum")), Reply::Done);
            assert_eq!(http2.get("/a/hello/x").text(), "Hello, x!\n", "{round}");
            assert!(end.strong_count() > 0, "{round}");
            http2.wait(tunnel.write_all(&frame(LAST | CLOSE, &1_000_u16.to_be_bytes()))).unwrap();
            let mut rest = Vec::new();
            let _ = http2.wait(tunnel.read_to_end(&mut rest)).unwrap();
            assert_eq!(rest[..2], [LAST | CLOSE, 2], "{round}");
            eventually("the threads have ended", || (end.strong_count() == 0).then_some(()));
        }
        assert_eq!(http2.get("/a/hello/x").text(), "Hello, x!\n");
    }
}

#[test]
fn what_cannot_be_built_on_one_worker_is_put_in_place_on_none() {
    for framework in FRAMEWORKS {
        let site = Site::start(three());
        let (mount, target) = (format!("/{framework}"), format!("/{framework}/hello/x"));
        let mut wires: Vec<Wire> = (0..4).map(|_| site.wire()).collect();
        let kept = Arc::new(());
        let (end, built) = (Arc::downgrade(&kept), Arc::new(AtomicUsize::new(0)));
        let (first, counted) = (AtomicBool::new(true), built.clone());
        let first = Arc::new(first);
        let picky = mount::local(move || {
            // Every worker but one can have it.
            assert!(!first.swap(false, Relaxed), "not on this one");
            let _ = counted.fetch_add(1, Relaxed);
            let kept = kept.clone();
            tower::service_fn(move |_: Request<RequestBody>| {
                let _ = &kept;
                async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"new")))) }
            })
        });
        let why_not = why(swap(&site, &mount, picky));
        assert_eq!(
            why_not,
            format!("cannot build what is mounted at `{mount}`: it panicked: not on this one")
        );
        eventually("nothing is left of it", || (end.strong_count() == 0).then_some(()));
        assert!(built.load(Relaxed) <= 1);
        let later = mount::build(|| async { Err::<Target, BoxError>("no database".into()) });
        assert!(why(swap(&site, &mount, later)).ends_with(": no database"));
        let missing = mount::files("nowhere");
        assert!(why(swap(&site, &mount, missing)).contains("No such file"), "{framework}");
        let wrong = mount::redirect("/x").own_threads(0).timeout(secs(0));
        assert_eq!(
            why(swap(&site, &mount, wrong)),
            format!(
                "mount `{mount}`: its timeout cannot be nothing; it cannot have 0 threads of its own: it must be 1 to 1024"
            )
        );
        for wire in &mut wires {
            assert_eq!(wire.ask(get(&target)).text(), "Hello, x!\n", "{framework}");
        }
        // It is not held against what comes next.
        assert_eq!(swap(&site, &mount, mount::files("static")), Reply::Done);
        for wire in &mut wires {
            assert_eq!(wire.ask(get(&mount)).text(), "welcome\n", "{framework}");
        }
    }
}

/// Whatever goes wrong on one worker first, the next swap finds none of them at the last.
#[test]
fn a_swap_is_refused_when_no_worker_builds_any_more() {
    let site = Site::start(three());
    let kept = Arc::new(());
    let end = Arc::downgrade(&kept);
    let (first, built) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let counted = built.clone();
    let slow = mount::local(move || {
        assert!(!first.swap(false, Relaxed), "not on this one");
        thread::sleep(combo::millis(300));
        let _ = counted.fetch_add(1, Relaxed);
        let kept = kept.clone();
        tower::service_fn(move |_: Request<RequestBody>| {
            let _ = &kept;
            async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"new")))) }
        })
    });
    assert!(why(swap(&site, "/warp", slow)).ends_with("not on this one"));
    assert_eq!((built.load(Relaxed), end.strong_count()), (1, 0));
}

#[test]
fn a_swap_that_nobody_waits_for_is_taken_back() {
    let site = Site::start(three());
    let (begun, never) = (Arc::new(tokio::sync::Notify::new()), std::future::pending::<()>());
    let begins = begun.clone();
    let target = mount::build(move || async move {
        begins.notify_one();
        never.await;
        Ok::<_, BoxError>(mount::redirect("/x"))
    });
    site.wait(async {
        let swapping = site.handle().swap("/axum", target);
        tokio::select! {
            reply = swapping => panic!("it cannot have been built: {reply:?}"),
            () = begun.notified() => {}
        }
    });
    eventually("it can be swapped again", || {
        (swap(&site, "/axum", version("axum", "2")) == Reply::Done).then_some(())
    });
    assert_eq!(site.wire().ask(get("/axum/hello/x")).header("x-version"), Some("2"));
}

#[test]
fn a_mount_that_there_is_not_is_answered_with_those_that_there_are() {
    let site = Site::start(three());
    let none = "there is no mount `/axun`; there are `/axum`, `/actix`, `/warp`, `/`";
    for command in [maintain("/axun", ""), pause("/axun"), resume("/axun")] {
        assert_eq!(why(site.say(command)), none);
    }
    assert_eq!(why(swap(&site, "/axun", hello("axum"))), none);
    assert_eq!(why(site.say(resume("/axum"))), "mount `/axum` is already serving");
}

/// On workers and on threads of its own, each framework by each: every answer is from the old or the new.
#[test]
fn many_swaps_under_load_lose_no_request() {
    const SWAPS: usize = 30;
    let site = Site::start(three());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let ask = |framework: &'static str| {
            let (over, mut wire) = (&over, site.wire());
            scope.spawn(move || {
                let mut seen = [0_usize; 3];
                while !over.load(Relaxed) {
                    let answer = wire.ask(get(&format!("/{framework}/hello/x")));
                    assert_eq!((answer.status, answer.text(), answer.whole), (200, "Hello, x!\n", true));
                    let version = answer.header("x-version").map_or(0, |version| version.parse().unwrap());
                    seen[version] += 1;
                }
                seen
            })
        };
        let asking: Vec<_> =
            FRAMEWORKS.into_iter().flat_map(|framework| [ask(framework), ask(framework)]).collect();
        let swapping = thread::Builder::new().spawn_scoped(scope, || {
            // Whatever goes wrong here, the others are to end.
            let ends = Ends(&over);
            let mut wires = [site.wire(), site.wire()];
            for n in 0..SWAPS {
                for framework in FRAMEWORKS {
                    let number = if n % 2 == 0 { "2" } else { "1" };
                    let target = version(framework, number);
                    let target = if n % 3 == 0 { target.own_threads(1) } else { target };
                    assert_eq!(swap(&site, &format!("/{framework}"), target), Reply::Done);
                    for wire in &mut wires {
                        let answer = wire.ask(get(&format!("/{framework}/hello/x")));
                        assert_eq!(answer.header("x-version"), Some(number), "{framework}");
                    }
                }
            }
            drop(ends);
        });
        swapping.unwrap().join().unwrap();
        for seen in asking {
            let seen = seen.join().unwrap();
            assert!(seen[1] > 0 && seen[2] > 0, "{seen:?}");
        }
    });
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn panics_are_counted_for_the_mount_that_they_happen_in() {
    for layered in [false, true] {
        let base = if layered { three().layer(Hesitates) } else { three() };
        let site = Site::start(FRAMEWORKS.iter().fold(base, |deployment, framework| {
            let own = deployment.mount(format!("/{framework}-own"), hello(framework).own_threads(2));
            own.mount(format!("/{framework}-layered"), version(framework, "1").own_threads(2))
        }));
        let mut expected = 0;
        let counts = |mount: &str| {
            let mounts = site.status().mounts;
            let all: u64 = mounts.iter().map(|status| status.panicked).sum();
            (standing(&site, mount).panicked, all)
        };
        for framework in FRAMEWORKS {
            for place in ["", "-own", "-layered"] {
                let mount = format!("/{framework}{place}");
                // On both workers, on one connection and on several.
                let mut wires = [site.wire(), site.wire()];
                for _ in 0..2 {
                    for wire in &mut wires {
                        assert_eq!(wire.ask(get(&format!("{mount}/panic"))).status, 500, "{mount}");
                        assert_eq!(wire.ask(get(&format!("{mount}/hello/x"))).status, 200, "{mount}");
                    }
                }
                eventually("four panics", || (counts(&mount) == (4, expected + 4)).then_some(()));
                for wire in &mut wires {
                    wire.send(get(&format!("{mount}/panic/body")));
                    assert!(!wire.answer().whole, "{mount}");
                }
                expected += 6;
                eventually("six panics", || (counts(&mount) == (6, expected)).then_some(()));
            }
            // They are the mount's, whatever is behind it.
            assert_eq!(swap(&site, &format!("/{framework}"), hello("axum").own_threads(1)), Reply::Done);
            assert_eq!(site.wire().ask(get(&format!("/{framework}/panic"))).status, 500);
            expected += 1;
            assert_eq!(counts(&format!("/{framework}")), (7, expected), "{framework}");
        }
        assert_eq!(standing(&site, "/").panicked, 0);
    }
}
