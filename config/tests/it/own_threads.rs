//! Mounts on threads of their own: the same to clients, and no harm to others.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Sender, channel},
    },
    thread,
};

use axum::{Extension, routing};
use combo::{Command, Deployment, Reply, mount, mount::Target, secs};
use http::Method;
use hyper::upgrade::{OnUpgrade, Upgraded};

use crate::{
    http2::read,
    lines::log,
    site::{ANY_PORT, ANY_TLS_PORT, FRAMEWORKS, PATIENCE, Site, eventually, three},
    upgrades::upgrade,
    wire::{End, Wire, get, post},
};

fn target(framework: &str) -> Target {
    match framework {
        "axum" => mount::axum(hello_axum::app()),
        "actix" => mount::actix(hello_actix::app),
        _ => mount::tower(warp::service(hello_warp::routes())),
    }
}

/// The three apps on two threads each, at `/axum-own`, ..., beside the same on the workers.
fn apart() -> Deployment {
    FRAMEWORKS.iter().fold(three().listen(ANY_TLS_PORT), |deployment, framework| {
        deployment.mount(format!("/{framework}-own"), target(framework).own_threads(2))
    })
}

#[test]
fn on_threads_of_its_own_an_app_answers_as_it_does_on_a_worker() {
    let site = Site::start(apart());
    for framework in FRAMEWORKS {
        let own = format!("/{framework}-own");
        for tls in [false, true] {
            let mut wire = if tls { site.tls_wire() } else { site.wire() };
            let seen = wire.ask(get(&format!("{own}/where?a=b"))).json();
            assert_eq!(seen["framework"], framework);
            assert_eq!((&seen["path"], &seen["query"]), (&"/where".into(), &"a=b".into()), "{framework}");
            assert_eq!(seen["prefix"], own);
            assert_eq!(seen["scheme"], if tls { "https" } else { "http" }, "{framework}");
            assert!(seen["peer"].as_str().unwrap().starts_with("127.0.0.1"), "{framework}: {seen}");
            let body = "x".repeat(1 << 20);
            assert_eq!(wire.ask(post(&format!("{own}/echo"), &body)).text(), body, "{framework}");
            let events = wire.ask(get(&format!("{own}/stream")));
            assert_eq!((events.text().matches("data: ").count(), events.whole), (10, true), "{framework}");
            assert_eq!(wire.ask(get(&format!("{own}/hello/x"))).header("content-length"), Some("10"));
        }
        let http2 = site.http2();
        let answers = http2.wait(async {
            let all = (0..20)
                .map(|n| http2.begin(http2.request(Method::GET, &format!("{own}/hello/{n}"), &[], "")));
            futures_util::future::join_all(all.map(|one| async { read(one.await.unwrap()).await })).await
        });
        for (n, answer) in answers.iter().enumerate() {
            assert_eq!(answer.text(), format!("Hello, {n}!\n"), "{framework}");
        }
    }
}

#[test]
fn a_panic_on_a_thread_of_its_own_is_one_500_and_one_body_without_its_end() {
    let site = Site::start(apart());
    for framework in FRAMEWORKS {
        let mut wire = site.wire();
        for _ in 0..5 {
            let answer = wire.ask(get(&format!("/{framework}-own/panic")));
            assert_eq!((answer.status, answer.text()), (500, "internal server error\n"), "{framework}");
        }
        let _ = log().wait(&[
            "ERROR",
            "an app failed",
            "asked to panic before the head",
            &format!("/{framework}-own/panic"),
        ]);
        assert_eq!(wire.ask(get(&format!("/{framework}-own/hello/x"))).text(), "Hello, x!\n");
        wire.send(get(&format!("/{framework}-own/panic/body")));
        let answer = wire.answer();
        assert_eq!((answer.text(), answer.whole), ("so far, so good\n", false), "{framework}");
        assert_eq!(wire.end(), End::Closed);
        assert_eq!(site.wire().ask(get(&format!("/{framework}-own/hello/x"))).text(), "Hello, x!\n");
    }
    site.requests(0);
}

#[test]
fn a_client_that_goes_away_ends_what_its_app_was_doing() {
    let site = Site::start(apart());
    for framework in FRAMEWORKS {
        let mut wire = site.wire();
        wire.send(get(&format!("/{framework}-own/endless")));
        wire.until("200 OK");
        site.requests(1);
        wire.abort();
        site.requests(0);
    }
}

/// Holds threads until it is opened.
#[derive(Default)]
struct Gate {
    held: Mutex<usize>,
    opened: Condvar,
    open: AtomicBool,
}

impl Gate {
    /// Blocks the thread that calls.
    fn pass(&self) -> &'static str {
        let mut held = self.held.lock().unwrap();
        *held += 1;
        let _open = self.opened.wait_while(held, |_| !self.open.load(Relaxed)).unwrap();
        "at last"
    }

    fn open(&self) {
        let _held = self.held.lock().unwrap();
        self.open.store(true, Relaxed);
        self.opened.notify_all();
    }
}

/// Blocks its thread until the gate is opened.
fn blocks(gate: &Arc<Gate>, framework: &str) -> Target {
    let gate = gate.clone();
    match framework {
        "axum" => {
            mount::axum(axum::Router::new().route("/", routing::get(move || async move { gate.pass() })))
        }
        "actix" => mount::actix(move || {
            let gate = gate.clone();
            let pass = move || {
                let gate = gate.clone();
                async move { gate.pass() }
            };
            actix_web::App::new().route("/", actix_web::web::get().to(pass))
        }),
        _ => {
            use warp::Filter;
            mount::tower(warp::service(warp::path::end().then(move || {
                let gate = gate.clone();
                async move { gate.pass() }
            })))
        }
    }
}

#[test]
fn who_blocks_all_its_threads_holds_up_nobody_else_and_fills_its_queue() {
    for framework in FRAMEWORKS {
        let gate = Arc::new(Gate::default());
        let site = Site::start(three().mount("/blocks", blocks(&gate, framework).own_threads(2)));
        let mut waiting: Vec<Wire> = (0..2).map(|_| site.wire()).collect();
        waiting.iter_mut().for_each(|wire| wire.send(get("/blocks")));
        // One on each thread: nobody takes up a second while there is a thread that is free.
        eventually("both threads are held", || (*gate.held.lock().unwrap() == 2).then_some(()));
        // The workers answer, and so does this mount: that it is busy, once its queue is full.
        for other in FRAMEWORKS {
            assert_eq!(site.wire().ask(get(&format!("/{other}/hello/x"))).text(), "Hello, x!\n");
        }
        let http2 = site.http2();
        let refused = http2.wait(async {
            for _ in 0..2 * 64 + 10 {
                let request = http2.request(Method::GET, "/blocks", &[], "");
                let answer = http2.begin(request);
                let answer = tokio::time::timeout(std::time::Duration::from_millis(20), answer).await;
                if let Ok(answer) = answer {
                    return Some(read(answer.unwrap()).await);
                }
            }
            None
        });
        let refused = refused.expect("one is refused");
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{framework}");
        drop(http2);
        gate.open();
        for wire in &mut waiting {
            assert_eq!(wire.answer().text(), "at last", "{framework}");
        }
    }
}

/// Says on which thread it ends.
struct Ends(Sender<String>, Mutex<Vec<Upgraded>>);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.send(thread::current().name().unwrap_or_default().to_owned());
    }
}

/// It takes along the connections that it keeps, of whichever worker, and is let go of by their end alone.
#[test]
fn an_app_ends_on_threads_of_its_own() {
    let (ends, ended) = channel();
    let kept = Arc::new(Ends(ends, Mutex::default()));
    let keep = async move |Extension(kept): Extension<Arc<Ends>>, mut request: axum::extract::Request| {
        let upgrade: OnUpgrade = request.extensions_mut().remove().unwrap();
        drop(tokio::spawn(async move {
            let upgraded = upgrade.await.unwrap();
            kept.1.lock().unwrap().push(upgraded);
        }));
        let switching = http::Response::builder().status(101).header("connection", "upgrade");
        switching.header("upgrade", "silence").body(axum::body::Body::empty()).unwrap()
    };
    let weak = Arc::downgrade(&kept);
    let app = axum::Router::new().route("/", routing::get(keep)).layer(Extension(kept));
    let deployment = Deployment::new("ends").listen(ANY_PORT).workers(2);
    let site = Site::start(deployment.mount("/ends", mount::axum(app).own_threads(1)));
    let mut wires: Vec<Wire> = (0..4).map(|_| site.wire()).collect();
    for wire in &mut wires {
        wire.send(upgrade("/ends", "silence"));
        assert_eq!(wire.answer().status, 101);
    }
    let all = || weak.upgrade().is_some_and(|kept| kept.1.lock().unwrap().len() == wires.len());
    eventually("they are kept", || all().then_some(()));
    assert_eq!(site.wait(site.handle().swap("/ends", target("warp"))), Reply::Done);
    assert_eq!(site.wire().ask(get("/ends/hello/x")).text(), "Hello, x!\n");
    site.stop();
    assert_eq!(site.say(Command::Cut), Reply::Begun);
    assert_eq!(ended.recv_timeout(PATIENCE).as_deref(), Ok("combo-own"));
    site.stopped();
    for mut wire in wires {
        assert_eq!(wire.rest().0, b"");
    }
}

#[test]
fn threads_of_its_own_that_never_end_are_named() {
    for framework in FRAMEWORKS {
        let gate = Arc::new(Gate::default());
        let (never, ends) = (format!("/{framework}-never"), format!("/{framework}-ends"));
        let deployment = three()
            .mount(&*never, blocks(&gate, framework).own_threads(2))
            .mount(&*ends, target(framework).own_threads(2));
        let site = Site::start(deployment.drain(secs(3_600)));
        let (mut held, mut swapped) = (site.wire(), site.wire());
        swapped.send(get(&never));
        eventually("a thread is held", || (*gate.held.lock().unwrap() == 1).then_some(()));
        // What is behind a mount no more is its own all the same.
        assert_eq!(site.wait(site.handle().swap(&*never, target(framework))), Reply::Done);
        held.send(get(&format!("{ends}/endless")));
        held.until("1\n");
        site.stop();
        assert_eq!(site.say(Command::Cut), Reply::Begun);
        site.stopped();
        let said = "threads of its own do not end";
        let _ = log().wait(&["WARN", said, &format!("\"{never}\""), "threads="]);
        assert!(log().with(&[said, &format!("\"{ends}\"")]).is_empty(), "{framework}");
        gate.open();
    }
}

#[test]
fn what_may_block_in_place_does_so_on_threads_of_its_own() {
    let block = || async { tokio::task::block_in_place(|| "blocked in place") };
    let app = axum::Router::new().route("/", routing::get(block));
    let site =
        Site::start(Deployment::new("place").listen(ANY_PORT).mount("/", mount::axum(app).own_threads(1)));
    assert_eq!(site.wire().ask(get("/")).text(), "blocked in place");
}

#[test]
fn layers_and_limits_go_with_threads_of_its_own() {
    let layer = tower_http::set_header::SetResponseHeaderLayer::overriding(
        http::HeaderName::from_static("x-thread"),
        |_: &http::Response<combo::ResponseBody>| {
            http::HeaderValue::from_str(thread::current().name().unwrap()).ok()
        },
    );
    let base = Deployment::new("both").listen(ANY_PORT);
    let site = Site::start(FRAMEWORKS.iter().fold(base, |deployment, framework| {
        let target = target(framework).layer(layer.clone()).own_threads(1).body_limit(3);
        deployment.mount(format!("/{framework}"), target)
    }));
    for framework in FRAMEWORKS {
        let answer = site.wire().ask(get(&format!("/{framework}/where")));
        assert_eq!(answer.header("x-thread"), Some("combo-own-0"), "{framework}");
        assert_eq!(answer.json()["prefix"], format!("/{framework}"));
        assert_eq!(site.wire().ask(post(&format!("/{framework}/sink"), "1234")).status, 413, "{framework}");
    }
}
