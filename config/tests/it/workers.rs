//! Workers: who gets a connection, who is named when one is stuck, and what they share.

use std::{
    collections::HashMap,
    convert::Infallible,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    rc::Rc,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
};

use actix_web::{HttpResponse, web};
use axum::{extract::State, routing};
use bytes::Bytes;
use combo::{BoxError, Command, Deployment, Reply, RequestBody, mount, mount::Target};
use http::{Request, Response};
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Mutex as AsyncMutex, Notify},
};

use crate::{
    lines::log,
    site::{ANY_PORT, ANY_TLS_PORT, FRAMEWORKS, Site, eventually, folder, refused, three, three_at},
    wire::{Wire, get, post},
};

/// Tells the name of the worker. One instance per worker, which need not be `Send`.
fn who() -> Target {
    mount::local(|| {
        let name: Rc<str> = thread::current().name().expect("workers have names").into();
        tower::service_fn(move |_: Request<RequestBody>| {
            let name = name.clone();
            async move {
                assert_eq!(thread::current().name(), Some(&*name), "a request stays on its worker");
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(name.to_string()))))
            }
        })
    })
}

fn name(wire: &mut Wire) -> String {
    wire.ask(get("/who")).text().to_owned()
}

#[test]
fn a_burst_is_shared_evenly() {
    let endpoints = [ANY_PORT, ANY_TLS_PORT, "unix:app.sock"];
    for endpoint in endpoints {
        let site = Site::start(Deployment::new("even").listen(endpoint).workers(2).mount("/who", who()));
        for round in 0..3 {
            let mut wires: Vec<Wire> = (0..32)
                .map(|_| match endpoint {
                    ANY_PORT => site.wire(),
                    ANY_TLS_PORT => site.tls_wire(),
                    _ => Wire::unix(&site.path("app.sock")),
                })
                .collect();
            let mut counts: HashMap<String, usize> = HashMap::new();
            for wire in &mut wires {
                *counts.entry(name(wire)).or_default() += 1;
            }
            let mut shares: Vec<usize> = counts.into_values().collect();
            shares.sort_unstable();
            assert!(matches!(shares[..], [15, 17] | [16, 16]), "{endpoint}, {round}: {shares:?}");
            drop(wires);
            site.connections(0);
        }
    }
}

#[test]
fn who_leaves_makes_room() {
    let site = Site::start(Deployment::new("room").listen(ANY_PORT).workers(2).mount("/who", who()));
    let mut wires: Vec<Wire> = (0..16).map(|_| site.wire()).collect();
    let names: Vec<String> = wires.iter_mut().map(name).collect();
    // All of one worker leave; the next ones are its.
    let (stay, leave): (Vec<_>, Vec<_>) =
        wires.into_iter().zip(&names).partition(|(_, name)| *name == "combo-worker-0");
    let left = leave.len();
    drop(leave);
    site.connections(stay.len());
    let mut next: Vec<Wire> = (0..left).map(|_| site.wire()).collect();
    let next: Vec<String> = next.iter_mut().map(name).collect();
    assert!(next.iter().all(|name| name == "combo-worker-1"), "{next:?}");
}

/// A mount whose requests hold their worker until it is told.
fn holds() -> (Target, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel();
    let released = Arc::new(Mutex::new(released));
    let target = mount::tower(tower::service_fn(move |_: Request<RequestBody>| {
        let released = released.clone();
        async move {
            let _ = released.lock().unwrap_or_else(PoisonError::into_inner).recv();
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"at last\n"))))
        }
    }));
    (target, release)
}

#[test]
fn a_stalled_worker_is_named_and_gets_no_more() {
    let (target, release) = holds();
    let site = Site::start(three().mount("/who", who()).mount("/holds", target));
    let mut stuck = site.wire();
    let holder = name(&mut stuck);
    stuck.send(post("/holds/it/now?x=y", ""));
    let line = log().wait(&["WARN", "an app holds its worker", "\"/holds\"", "POST", "/holds/it/now"]);
    assert!(line.contains(&holder), "{line}");
    // The other one gets all that come now.
    let mut others: Vec<Wire> = (0..20).map(|_| site.wire()).collect();
    for wire in &mut others {
        assert_ne!(name(wire), holder);
        for framework in FRAMEWORKS {
            assert_eq!(wire.ask(get(&format!("/{framework}/hello/x"))).status, 200);
        }
    }
    release.send(()).unwrap();
    assert_eq!(stuck.answer().text(), "at last\n");
    let _ = log().wait(&["moves again", &holder]);
    eventually("it gets connections again", || (name(&mut site.wire()) == holder).then_some(()));
}

#[test]
fn whoever_blocks_is_named_by_mount_method_and_path() {
    let site = Site::start(three_at("-blocks").workers(1));
    for framework in FRAMEWORKS {
        let target = format!("/{framework}-blocks/block?ms=1500");
        let mut wire = site.wire();
        wire.send(get(&target));
        let (mount, path) = (format!("\"/{framework}-blocks\""), format!("/{framework}-blocks/block"));
        let _ = log().wait(&["WARN", "an app holds its worker", &mount, "GET", &path]);
        assert_eq!(wire.answer().text(), "blocked 1500 ms\n");
    }
}

/// Who has waited because a worker was held is not blamed for it.
#[test]
fn a_stall_lets_nobodys_deadline_pass() {
    let (target, release) = holds();
    let limits = crate::site::limits(|limits| (limits.head, limits.idle) = (combo::secs(2), combo::secs(2)));
    let site = Site::start(three().workers(1).limits(limits).mount("/held-deadline", target));
    let mut waiting = site.wire();
    waiting.send("GET /axum/hello/x HTTP/1.1\r\n");
    waiting.until_read();
    let mut stuck = site.wire();
    stuck.send(get("/held-deadline/now"));
    let _ = log().wait(&["an app holds its worker", "/held-deadline/now"]);
    // It goes on in time; it is not its fault that nobody listens.
    waiting.send("Host: test\r\n\r\n");
    let held = std::time::Instant::now();
    eventually("it is held for longer than the deadline", || (held.elapsed() > combo::secs(4)).then_some(()));
    release.send(()).unwrap();
    assert_eq!(stuck.answer().text(), "at last\n");
    assert_eq!(waiting.answer().text(), "Hello, x!\n");
}

#[test]
fn every_worker_has_its_own_instance() {
    let (made_local, made_actix) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (by_local, by_actix) = (made_local.clone(), made_actix.clone());
    let local = mount::local(move || {
        let _ = by_local.fetch_add(1, Relaxed);
        tower::service_fn(|_: Request<RequestBody>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
        })
    });
    let actix = mount::actix(move || {
        let _ = by_actix.fetch_add(1, Relaxed);
        actix_web::App::new().default_service(web::to(async || HttpResponse::Ok()))
    });
    let site =
        Site::start(Deployment::new("own").listen(ANY_PORT).workers(3).mount("/l", local).mount("/a", actix));
    for _ in 0..12 {
        let mut wire = site.wire();
        assert_eq!((wire.ask(get("/l")).status, wire.ask(get("/a")).status), (200, 200));
    }
    assert_eq!((made_local.load(Relaxed), made_actix.load(Relaxed)), (3, 3));
}

#[test]
fn an_app_that_cannot_be_made_on_a_worker_is_named_once() {
    let folder = folder();
    let deployment = Deployment::new("unmade").listen("unix:app.sock").workers(3).mount("/who", who()).mount(
        "/unmade",
        mount::actix(|| {
            assert!(thread::current().name().is_none(), "no app today");
            actix_web::App::new()
        }),
    );
    let errors = refused(deployment, folder.path()).to_string();
    assert_eq!(errors, "cannot build what is mounted at `/unmade`: it panicked: no app today");
    eventually("the socket is gone", || (!folder.path().join("app.sock").exists()).then_some(()));
}

#[test]
fn an_actix_handler_may_stop_the_system() {
    let stop = mount::actix(|| {
        actix_web::App::new().default_service(web::to(async || {
            actix_rt::System::current().stop();
            HttpResponse::Ok().body("stopping\n")
        }))
    });
    let site = Site::start(three().mount("/stop", stop));
    let mut stream = site.wire();
    stream.send(get("/warp/stream"));
    stream.until("data: 1");
    assert_eq!(site.wire().ask(get("/stop")).text(), "stopping\n");
    eventually("it drains", || match site.say(Command::Status) {
        Reply::Status(status) => status.draining.then_some(()),
        _ => Some(()),
    });
    let events = stream.answer();
    assert_eq!((events.text().matches("data: ").count(), events.whole), (10, true));
    site.stopped();
}

/// A server that answers each line with itself: what a database is to its clients.
fn database() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            drop(thread::spawn(move || {
                let mut writer = socket.try_clone().expect("a descriptor");
                for line in BufReader::new(socket).lines().map_while(Result::ok) {
                    if writer.write_all(format!("{line}\n").as_bytes()).is_err() {
                        return;
                    }
                }
            }));
        }
    }));
    address
}

/// One connection for everybody: the smallest pool.
#[derive(Clone)]
struct Pool(Arc<AsyncMutex<TcpStream>>);

impl Pool {
    async fn open(address: std::net::SocketAddr) -> std::io::Result<Self> {
        Ok(Self(Arc::new(AsyncMutex::new(TcpStream::connect(address).await?))))
    }

    async fn query(&self) -> Result<String, std::io::Error> {
        let mut connection = self.0.lock().await;
        connection.write_all(b"answer\n").await?;
        let mut answer = [0; 7];
        let _ = connection.read_exact(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

async fn query(State((pool, _)): State<(Pool, Arc<Notify>)>) -> String {
    pool.query().await.unwrap_or_else(|error| error.to_string())
}

async fn late(State((pool, go)): State<(Pool, Arc<Notify>)>) -> String {
    go.notified().await;
    pool.query().await.unwrap_or_else(|error| error.to_string())
}

#[test]
fn a_pool_made_on_the_host_works_on_all_workers_till_after_the_drain() {
    let (address, go) = (database(), Arc::new(Notify::new()));
    let shared = go.clone();
    let app = mount::build(move || async move {
        let pool = Pool::open(address).await?;
        let router =
            axum::Router::new().route("/query", routing::get(query)).route("/late", routing::get(late));
        Ok::<_, BoxError>(mount::axum(router.with_state((pool, shared))))
    });
    let site =
        Site::start(Deployment::new("pool").listen(ANY_PORT).workers(2).mount("/", app).mount("/who", who()));
    let mut wires: Vec<Wire> = (0..8).map(|_| site.wire()).collect();
    let mut names: Vec<String> = wires.iter_mut().map(name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 2);
    for _ in 0..20 {
        wires.iter_mut().for_each(|wire| wire.send(get("/query")));
        assert!(wires.iter_mut().all(|wire| wire.answer().text() == "answer\n"));
    }
    wires.iter_mut().for_each(|wire| wire.send(get("/late")));
    site.requests(8);
    site.stop();
    eventually("it drains", || site.status().draining.then_some(()));
    wires.iter().for_each(|_| go.notify_one());
    assert!(wires.iter_mut().all(|wire| wire.answer().text() == "answer\n"));
    site.stopped();
}

/// A socket belongs to the runtime that made it; all of them live until all workers have drained.
#[test]
fn a_pool_made_on_a_worker_works_on_another_till_after_the_drain() {
    let (address, go, pool) = (database(), Arc::new(Notify::new()), Arc::new(OnceLock::<Pool>::new()));
    let (shared, known) = (go.clone(), pool.clone());
    let app = mount::tower(tower::service_fn(move |request: Request<RequestBody>| {
        let (go, known) = (shared.clone(), known.clone());
        async move {
            if known.get().is_none() {
                let _ = known.set(Pool::open(address).await?);
            }
            if request.uri().path() == "/late" {
                go.notified().await;
            }
            let pool = known.get().expect("it was made just now");
            Ok::<_, BoxError>(Response::new(Full::new(Bytes::from(pool.query().await?))))
        }
    }));
    let site = Site::start(
        Deployment::new("pool").listen(ANY_PORT).workers(2).mount("/p", app).mount("/who", who()),
    );
    let (mut one, mut other) = (site.wire(), site.wire());
    assert_ne!(name(&mut one), name(&mut other));
    assert_eq!(one.ask(get("/p")).text(), "answer\n");
    assert_eq!(other.ask(get("/p")).text(), "answer\n");
    other.send(get("/p/late"));
    site.requests(1);
    site.stop();
    // The worker that made it has nothing left to do, and the other needs it still.
    assert_eq!(one.rest().0, b"");
    site.connections(1);
    go.notify_one();
    assert_eq!(other.answer().text(), "answer\n");
    site.stopped();
    drop(pool);
}

#[test]
fn who_waits_for_a_service_to_be_ready_is_called_when_it_is() {
    let go = Arc::new(Notify::new());
    let gone = go.clone();
    let service = tower::service_fn(move |_: Request<RequestBody>| {
        let go = go.clone();
        async move {
            go.notified().await;
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"my turn\n"))))
        }
    });
    let limited = mount::tower(tower::limit::ConcurrencyLimit::new(service, 1));
    let site = Site::start(Deployment::new("queue").listen(ANY_PORT).workers(1).mount("/", limited));
    let mut wires: Vec<_> = (1..=3)
        .map(|count| {
            let mut wire = site.wire();
            wire.send(get("/"));
            site.requests(count);
            wire
        })
        .collect();
    for wire in &mut wires {
        gone.notify_one();
        assert_eq!(wire.answer().text(), "my turn\n");
    }
}
