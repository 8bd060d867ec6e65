use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, ThreadId},
};

use actix_rt::{Arbiter, System};
use actix_web::{App, HttpRequest, HttpResponse, web};
use bytes::Bytes;
use combo_actix::{ActixThreads, Arrival, SendBody, Unavailable};
use futures_util::{StreamExt as _, stream};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tokio::sync::{
    mpsc::{UnboundedSender, unbounded_channel},
    oneshot,
};
use tower::ServiceExt as _;

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(Full::default()).unwrap()
}

async fn text(response: Response<SendBody>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn ask(threads: &ActixThreads, path: &str) -> String {
    text(threads.clone().oneshot(get(path)).await.unwrap()).await
}

#[test]
fn it_can_be_shared_by_threads() {
    fn check<T: Clone + Send + Sync + 'static>() {}
    fn check_body<T: Send + 'static>() {}
    check::<ActixThreads>();
    check_body::<SendBody>();
    check_body::<combo_actix::ThreadsFuture>();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_come_and_go_as_on_one_thread() {
    let threads = ActixThreads::start(2, 8, || {
        App::new().default_service(web::to(|request: HttpRequest, body: Bytes| async move {
            HttpResponse::Accepted().insert_header(("x-own", "1")).body(format!(
                "{} {} {:?} {:?} {body:?}",
                request.method(),
                request.uri(),
                request.peer_addr(),
                request.headers().get("accept")
            ))
        }))
    })
    .unwrap();
    let arrival = || Arrival { peer: Some(([192, 0, 2, 1], 5).into()), strip: 2, origin: None, header: None };
    let request = || Request::post("/x/a?b").header("accept", "c").body(Full::from("d")).unwrap();
    let expected = "POST /a?b Some(192.0.2.1:5) Some(\"c\") b\"d\"";
    let asking: Vec<_> = (0..100)
        .map(|turn| {
            let threads = threads.clone();
            let mut request = request();
            tokio::spawn(async move {
                let response = if turn % 2 == 0 {
                    threads.call_with(request, arrival()).await
                } else {
                    let _ = request.extensions_mut().insert(arrival());
                    threads.oneshot(request).await
                };
                // A queue of eight may well be full for a moment.
                let response = match response {
                    Err(Unavailable::Busy) => return,
                    response => response.unwrap(),
                };
                assert_eq!(response.status(), 202);
                assert_eq!(response.headers()["x-own"], "1");
                assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(42));
                assert_eq!(text(response).await, expected);
            })
        })
        .collect();
    for one in asking {
        one.await.unwrap();
    }
}

#[tokio::test]
async fn a_panic_ends_its_request_and_no_other() {
    let threads = ActixThreads::start(1, 8, || {
        App::new()
            .route("/at-once", web::to(|| -> std::future::Ready<HttpResponse> { panic!("at once") }))
            .route(
                "/later",
                web::to(|| async {
                    tokio::task::yield_now().await;
                    if std::hint::black_box(true) {
                        panic!("later");
                    }
                    HttpResponse::Ok().finish()
                }),
            )
            .route(
                "/body",
                web::to(|| async {
                    let pieces = stream::iter(0..).then(|piece| async move {
                        if piece == 2 {
                            // What was there before is on its way by then.
                            tokio::task::yield_now().await;
                            panic!("in the body");
                        }
                        Ok::<_, std::io::Error>(Bytes::from_static(b"x"))
                    });
                    HttpResponse::Ok().streaming(pieces)
                }),
            )
            .route("/", web::to(|| async { "fine" }))
    })
    .unwrap();
    for path in ["/at-once", "/later"] {
        let response = threads.clone().oneshot(get(path)).await.unwrap();
        assert_eq!(response.status(), 500, "{path}");
        assert_eq!(response.headers()["content-length"], "0");
        assert_eq!(text(response).await, "");
        assert_eq!(ask(&threads, "/").await, "fine");
    }
    let response = threads.clone().oneshot(get("/body")).await.unwrap();
    let mut body = response.into_body();
    for _piece in 0..2 {
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "x");
    }
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the actix app ended before its body did");
    assert!(body.frame().await.is_none());
    assert_eq!(ask(&threads, "/").await, "fine");
}

/// An app whose `/block` blocks its whole thread until it is told to go on, and says when it starts.
fn blocking(threads: usize, queue: usize) -> (ActixThreads, mpsc::Receiver<ThreadId>, mpsc::Sender<()>) {
    let (tell, told) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let gone = Arc::new(Mutex::new(gone));
    let threads = ActixThreads::start(threads, queue, move || {
        let (tell, gone) = (tell.clone(), Arc::clone(&gone));
        App::new()
            .route(
                "/block",
                web::to(move || {
                    tell.send(thread::current().id()).unwrap();
                    gone.lock().unwrap().recv().unwrap();
                    async { "blocked" }
                }),
            )
            .route("/", web::to(|| async { "fine" }))
    })
    .unwrap();
    (threads, told, go)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_busy_at_once() {
    let (threads, told, go) = blocking(1, 2);
    let blocked = tokio::spawn(threads.clone().oneshot(get("/block")));
    let _ = tokio::task::block_in_place(|| told.recv().unwrap());
    let waiting: Vec<_> = (0..2).map(|_| threads.call_with(get("/"), Arrival::default())).collect();
    let refused = threads.call_with(get("/"), Arrival::default()).await;
    assert_eq!(refused.unwrap_err(), Unavailable::Busy);
    go.send(()).unwrap();
    assert_eq!(text(blocked.await.unwrap().unwrap()).await, "blocked");
    for one in waiting {
        assert_eq!(text(one.await.unwrap()).await, "fine");
    }
    assert_eq!(ask(&threads, "/").await, "fine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_loaded_thread_takes_the_next_request() {
    let (threads, told, go) = blocking(3, 1);
    let mut blocked = Vec::new();
    let mut taken = HashSet::new();
    for _thread in 0..2 {
        blocked.push(tokio::spawn(threads.clone().oneshot(get("/block"))));
        assert!(taken.insert(tokio::task::block_in_place(|| told.recv().unwrap())));
    }
    // The third thread is free, however many requests come one after the other.
    for _request in 0..20 {
        assert_eq!(ask(&threads, "/").await, "fine");
    }
    for _thread in &blocked {
        go.send(()).unwrap();
    }
    for one in blocked {
        assert_eq!(text(one.await.unwrap().unwrap()).await, "blocked");
    }
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_is_dropped_over_there() {
    struct Dropped(UnboundedSender<ThreadId>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.send(thread::current().id());
        }
    }
    let (tell, mut told) = unbounded_channel();
    let (start, mut started) = unbounded_channel();
    let threads = ActixThreads::start(1, 1, move || {
        let (tell, start) = (tell.clone(), start.clone());
        App::new().default_service(web::to(move |request: HttpRequest| {
            let guard = Dropped(tell.clone());
            let start = start.clone();
            async move {
                start.send(thread::current().id()).unwrap();
                if request.path() == "/body" {
                    let pieces = stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"x")) })
                        .chain(stream::pending())
                        .map(move |piece| {
                            let _held = &guard;
                            piece
                        });
                    return HttpResponse::Ok().streaming(pieces);
                }
                std::future::pending().await
            }
        }))
    })
    .unwrap();
    let answer = tokio::spawn(threads.call_with(get("/"), Arrival::default()));
    let on = started.recv().await.unwrap();
    answer.abort();
    assert_eq!(told.recv().await.unwrap(), on);
    let mut body = threads.call_with(get("/body"), Arrival::default()).await.unwrap().into_body();
    let _ = body.frame().await.unwrap().unwrap();
    assert!(told.try_recv().is_err());
    drop(body);
    assert_eq!(told.recv().await.unwrap(), on);
}

#[tokio::test]
async fn bodies_wait_for_their_reader() {
    const LENGTH: usize = 500;
    /// The channel between the threads, and the one piece on its way into it.
    const AHEAD: usize = 5;
    let given = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&given);
    let threads = ActixThreads::start(1, 8, move || {
        let count = Arc::clone(&count);
        App::new().route("/", web::to(|| async { "fine" })).route(
            "/body",
            web::to(move || {
                let count = Arc::clone(&count);
                let pieces = stream::iter(0..LENGTH).map(move |_| {
                    let _ = count.fetch_add(1, Ordering::SeqCst);
                    Ok::<_, std::io::Error>(Bytes::from_static(&[0; 1024]))
                });
                async move { HttpResponse::Ok().streaming(pieces) }
            }),
        )
    })
    .unwrap();
    let mut body = threads.call_with(get("/body"), Arrival::default()).await.unwrap().into_body();
    for read in 0..LENGTH {
        // The thread has had its turn when it has answered something else.
        assert_eq!(ask(&threads, "/").await, "fine");
        let given = given.load(Ordering::SeqCst);
        assert!((read..=read + AHEAD).contains(&given), "{given} pieces given, {read} read");
        let _ = body.frame().await.unwrap().unwrap();
    }
    assert!(body.frame().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_cross_over() {
    let threads = ActixThreads::start(1, 8, || {
        App::new()
            .default_service(web::to(|body: web::Payload| async move { HttpResponse::Ok().streaming(body) }))
    })
    .unwrap();
    let pieces = stream::iter(0..1_000)
        .map(|_| Ok::<_, std::convert::Infallible>(http_body::Frame::data(Bytes::from_static(&[7; 1024]))));
    let request = Request::post("/").body(http_body_util::StreamBody::new(pieces)).unwrap();
    let response = threads.oneshot(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 1_000 * 1024);
}

#[tokio::test]
async fn actixs_own_runtime_is_there() {
    let threads = ActixThreads::start(2, 8, || {
        App::new()
            .route("/system", web::to(|| async { System::current().id().to_string() }))
            .route("/arbiter", web::to(|| async { Arbiter::current().alive().to_string() }))
            .route("/block", web::to(|| async { web::block(|| "blocked").await.unwrap() }))
            .route("/spawn", web::to(|| async { actix_web::rt::spawn(async { "spawned" }).await.unwrap() }))
            .route(
                "/time",
                web::to(|| async {
                    actix_web::rt::time::sleep(std::time::Duration::ZERO).await;
                    "timed"
                }),
            )
    })
    .unwrap();
    let system = ask(&threads, "/system").await;
    assert!(system.parse::<usize>().is_ok(), "{system}");
    for (path, answer) in
        [("/arbiter", "true"), ("/block", "blocked"), ("/spawn", "spawned"), ("/time", "timed")]
    {
        assert_eq!(ask(&threads, path).await, answer);
    }
}

/// Each app says the number of its system when it is built.
fn systems(threads: usize) -> (ActixThreads, Vec<usize>) {
    let (tell, told) = mpsc::channel();
    let started = ActixThreads::start(threads, 1, move || {
        tell.send(System::current().id()).unwrap();
        App::new().default_service(web::to(|| async { "fine" }))
    })
    .unwrap();
    let numbers = told.try_iter().collect();
    (started, numbers)
}

#[test]
fn all_threads_belong_to_one_system() {
    let (_threads, numbers) = systems(3);
    assert_eq!(numbers.len(), 3);
    assert!(numbers.iter().all(|number| *number == numbers[0]), "{numbers:?}");
    assert!(System::try_current().is_none());
}

#[test]
fn a_current_system_is_used_and_outlives_the_threads() {
    System::new().block_on(async {
        let own = System::current().id();
        let (threads, numbers) = systems(2);
        assert_eq!(numbers, [own, own]);
        assert_eq!(ask(&threads, "/").await, "fine");
        drop(threads);
        let (threads, _) = systems(1);
        assert_eq!(ask(&threads, "/").await, "fine");
    });
}

#[test]
fn threads_whose_system_stops_are_gone() {
    let runner = System::new();
    runner.block_on(async {
        let threads = ActixThreads::start(1, 1, || {
            App::new().route("/", web::to(|| async { "fine" })).route(
                "/stop",
                web::to(|| async {
                    System::current().stop();
                    std::future::pending::<HttpResponse>().await
                }),
            )
        })
        .unwrap();
        assert_eq!(ask(&threads, "/").await, "fine");
        let stopped = threads.call_with(get("/stop"), Arrival::default()).await;
        assert_eq!(stopped.unwrap_err(), Unavailable::Gone);
        let after = threads.call_with(get("/"), Arrival::default()).await;
        assert_eq!(after.unwrap_err(), Unavailable::Gone);
    });
}

/// Tells on which thread it was built and dropped.
struct Resident(ThreadId, mpsc::Sender<(ThreadId, ThreadId)>);

impl Drop for Resident {
    fn drop(&mut self) {
        let _ = self.1.send((self.0, thread::current().id()));
    }
}

#[tokio::test]
async fn each_app_is_dropped_on_its_own_thread_after_the_last_answer() {
    let (tell, told) = mpsc::channel();
    let (start, started) = oneshot::channel();
    let (go, gone) = oneshot::channel::<()>();
    let once = Arc::new(Mutex::new(Some((start, gone))));
    let threads = ActixThreads::start(2, 1, move || {
        let once = Arc::clone(&once);
        App::new().app_data(Resident(thread::current().id(), tell.clone())).default_service(web::to(
            move || {
                let once = once.lock().unwrap().take();
                async move {
                    let (start, gone) = once.unwrap();
                    start.send(()).unwrap();
                    gone.await.unwrap();
                    "fine"
                }
            },
        ))
    })
    .unwrap();
    let answer = tokio::spawn(threads.call_with(get("/"), Arrival::default()));
    started.await.unwrap();
    drop(threads);
    go.send(()).unwrap();
    assert_eq!(text(answer.await.unwrap().unwrap()).await, "fine");
    let ends: Vec<_> = (0..2).map(|_| told.recv().unwrap()).collect();
    for (built, dropped) in &ends {
        assert_eq!(built, dropped);
    }
    assert_ne!(ends[0].0, ends[1].0);
}

#[test]
fn an_app_that_cannot_be_built_says_so() {
    let broken = ActixThreads::start(2, 1, || {
        App::new().data_factory(|| async { Err::<u8, _>(std::io::Error::other("no database")) })
    });
    assert_eq!(broken.unwrap_err().to_string(), "cannot build the actix app: its factory gave `()`");
    let broken = ActixThreads::start(2, 1, || -> App<_> {
        if thread::current().name().is_some() {
            panic!("no app");
        }
        App::new()
    });
    assert!(std::error::Error::source(&broken.unwrap_err()).unwrap().to_string().contains("panicked"));
}

/// Over a real connection served by one thread, with the app on another. The last clone of the service
/// ends with hyper's part of the connection, which must not end the app's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_crosses_over() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let threads = ActixThreads::start(1, 1, || {
        App::new().default_service(web::to(|request: HttpRequest, body: web::Payload| async move {
            let (response, mut session, mut messages) = actix_ws::handle(&request, body)?;
            let _task = actix_web::rt::spawn(async move {
                while let Some(Ok(actix_ws::Message::Text(text))) = messages.next().await {
                    session.text(text).await.unwrap();
                }
            });
            Ok::<_, actix_web::Error>(response)
        }))
    })
    .unwrap();
    let (mut client, server) = tokio::io::duplex(1024);
    let service = hyper_util::service::TowerToHyperService::new(threads);
    let _connection = tokio::spawn(
        hyper::server::conn::http1::Builder::new()
            .serve_connection(hyper_util::rt::TokioIo::new(server), service)
            .with_upgrades(),
    );
    client
        .write_all(
            b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
              sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x82\0\0\0\0hi",
        )
        .await
        .unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"\x81\x02hi") {
        said.push(client.read_u8().await.unwrap());
    }
    assert!(said.starts_with(b"HTTP/1.1 101"));
}
