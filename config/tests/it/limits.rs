//! How much one client may have, and how slowly: each limit by itself, over the real thing.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use combo::{Deployment, Limits, mount, secs};
use http::Method;
use http_body_util::BodyExt;

use crate::{
    http2::{Piped, read},
    lines::log,
    site::{ANY_PORT, ANY_TLS_PORT, FRAMEWORKS, Site, eventually, three, three_at},
    wire::{Wire, get},
};

fn evicted(site: &Site, why: &str) -> u64 {
    site.status().evicted.into_iter().find(|row| row.why.contains(why)).expect("such a reason").connections
}

/// Whether an answer without an end can be read for so long, so many bytes at a time with a pause after each. The
/// client has little room for it, so that what it has taken is what it has read.
fn reads(site: &Site, framework: &str, bytes: usize, pause: Duration, most: Duration) -> bool {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.connect(&site.address().into()).unwrap();
    let mut socket = TcpStream::from(socket);
    socket.write_all(get(&format!("/{framework}/fill?bytes={}", 1_u64 << 40)).as_bytes()).unwrap();
    let (began, mut read) = (Instant::now(), vec![0; bytes]);
    while began.elapsed() < most {
        // What it has not read yet comes before the end.
        if socket.read_exact(&mut read).is_err() || socket.take_error().unwrap().is_some() {
            return false;
        }
        thread::sleep(pause);
    }
    true
}

/// The kernel has taken megabytes of it by then: what counts is what the peer has.
#[test]
fn who_reads_byte_by_byte_is_let_go_and_who_reads_a_kilobyte_a_second_is_served() {
    let site = Site::start(three().limits(Limits { write: secs(8), ..Limits::default() }));
    thread::scope(|scope| {
        for framework in FRAMEWORKS {
            let site = &site;
            let _ = scope.spawn(move || {
                assert!(!reads(site, framework, 1, Duration::from_millis(250), secs(60)), "{framework}");
            });
            let _ = scope.spawn(move || {
                assert!(reads(site, framework, 256, Duration::from_millis(250), secs(25)), "{framework}");
            });
        }
    });
    assert_eq!(evicted(&site, "read the answer too slowly"), 3);
}

/// A connection from one of the addresses of this machine.
fn connected(from: &str, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let from = SocketAddr::new(from.parse().unwrap(), 0);
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

#[test]
fn one_peer_has_so_many_connections_and_others_have_theirs() {
    let limits = Limits { connections_per_peer: 3, ..Limits::default() };
    let deployment = three().listen("unix:socket").trusted_proxies(["127.0.0.9"]).limits(limits);
    let site = Site::start(deployment);
    let from = |address: &str| {
        let mut socket = connected(address, site.address());
        let mut answer = vec![0; 12];
        let asked =
            socket.write_all(get("/axum/hello/x").as_bytes()).and_then(|()| socket.read_exact(&mut answer));
        asked.ok().map(|()| {
            assert_eq!(answer, b"HTTP/1.1 200");
            socket
        })
    };
    let mut first: Vec<_> = (0..3).map(|_| from("127.0.0.1").expect("there is room")).collect();
    assert!(from("127.0.0.1").is_none());
    assert!(from("127.0.0.2").is_some());
    // Whoever stands for many has as many as it likes.
    let _many: Vec<_> = (0..10).map(|_| from("127.0.0.9").expect("a proxy is let in")).collect();
    let mut here: Vec<_> = (0..10).map(|_| Wire::unix(&site.path("socket"))).collect();
    for wire in &mut here {
        assert_eq!(wire.ask(get("/warp/hello/x")).status, 200);
    }
    assert_eq!(evicted(&site, "as many connections as one peer"), 1);
    drop(first.pop());
    let _again = eventually("there is room again", || from("127.0.0.1"));
}

#[test]
fn so_many_shake_hands_at_once_and_more_are_turned_away() {
    let limits = Limits { handshakes: 4, handshake: secs(60), ..Limits::default() };
    let site = Site::start(three().listen(ANY_TLS_PORT).limits(limits));
    let mut served = site.tls_wire();
    assert_eq!(served.ask(get("/axum/hello/x")).status, 200);
    let half = || {
        let mut wire = Wire::tcp(site.tls_address());
        let _ = wire.try_send(b"\x16\x03\x01\x02\x00\x01");
        wire
    };
    let shaking = [half(), half()];
    site.connections(3);
    let _ = half().rest();
    assert_eq!(evicted(&site, "too many that shook hands"), 1);
    // Nobody else is held up.
    assert_eq!(served.ask(get("/warp/hello/x")).status, 200);
    assert_eq!(site.wire().ask(get("/actix/hello/x")).status, 200);
    drop(shaking);
    site.connections(1);
    assert_eq!(site.tls_wire().ask(get("/axum/hello/x")).status, 200);
}

#[test]
fn who_is_silent_in_a_handshake_keeps_nobody_else_out() {
    let limits = Limits { handshakes: 4, handshake: secs(60), ..Limits::default() };
    let site = Site::start(three().listen(ANY_TLS_PORT).limits(limits));
    // Each from an address of its own, as a flood has many.
    let silent: Vec<_> = (2..12).map(|n| connected(&format!("127.0.0.{n}"), site.tls_address())).collect();
    let gone = |so_many: u64| {
        eventually("so many have given way", || {
            (evicted(&site, "too many that shook hands") == so_many).then_some(())
        });
    };
    gone(6);
    assert_eq!(site.tls_wire().ask(get("/axum/hello/x")).status, 200);
    gone(7);
    // The oldest have gone, and the last have not.
    for (n, mut socket) in silent.into_iter().enumerate() {
        socket.set_nonblocking(n >= 7).unwrap();
        let read = socket.read(&mut [0]);
        assert!(if n < 7 { matches!(read, Ok(0) | Err(_)) } else { read.is_err() }, "{n}: {read:?}");
    }
}

#[test]
fn a_connection_has_so_many_requests_and_ends_politely() {
    let site = Site::start(three().limits(Limits { requests: 3, ..Limits::default() }));
    for framework in FRAMEWORKS {
        let target = format!("/{framework}/hello/x");
        let mut wire = site.wire();
        for expected in [None, None, Some("close")] {
            let answer = wire.ask(get(&target));
            assert_eq!((answer.status, answer.header("connection")), (200, expected), "{framework}");
        }
        assert_eq!(wire.rest().0, b"");
        // Over HTTP/2 it is said by `GOAWAY`, and what was begun is finished.
        let http2 = site.http2();
        let slow = |ms| http2.request(Method::GET, &format!("/{framework}/slow?ms={ms}"), &[], "");
        let three: Vec<_> = [300, 200, 100].map(|ms| site.runtime().spawn(http2.begin(slow(ms)))).into();
        for (asked, ms) in three.into_iter().zip([300, 200, 100]) {
            let answer = http2.wait(async { read(asked.await.unwrap().unwrap()).await });
            assert_eq!(answer.text(), format!("waited {ms} ms\n"));
        }
        http2.ended();
    }
    site.connections(0);
}

/// Who does not hear that it is to end, and goes on asking, is ended.
#[test]
fn who_asks_on_and_on_is_not_heard_for_ever() {
    let site = Site::start(three().limits(Limits { requests: 2, streams: 4, ..Limits::default() }));
    let mut wire = site.wire();
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let ended = (0_u16..2_000).find(|n| {
        // `:method: GET`, `:scheme: http`, `:path: /`, `:authority: test`.
        let [high, low] = (2 * n + 1).to_be_bytes();
        let head = [&[0, 0, 9, 1, 5, 0, 0, high, low, 0x82, 0x86, 0x84, 0x01, 4], &b"test"[..]].concat();
        thread::sleep(Duration::from_millis(5));
        wire.try_send(head).is_err()
    });
    // Long before a ping that it does not answer would end it.
    assert!(ended.is_some());
    site.connections(0);
}

/// All of an answer is with the kernel, or with HTTP/2, long before the client has it.
#[test]
fn an_answer_that_is_slowly_read_is_not_cut_as_idle() {
    const SIZE: usize = 6 << 20;
    let whole = || axum::routing::get(|| async { bytes::Bytes::from_static(&[b'x'; SIZE]) });
    let deployment = Deployment::new("slow")
        .listen(ANY_PORT)
        .limits(Limits { idle: secs(1), ..Limits::default() })
        .mount("/", mount::axum(axum::Router::new().route("/whole", whole())));
    let site = Site::start(deployment);
    thread::scope(|scope| {
        let _ = scope.spawn(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_recv_buffer_size(64 << 10).unwrap();
            socket.connect(&site.address().into()).unwrap();
            let mut socket = TcpStream::from(socket);
            socket.write_all(get("/whole").as_bytes()).unwrap();
            let (mut got, mut bytes) = (0, vec![0; 64 << 10]);
            while got < SIZE {
                thread::sleep(Duration::from_millis(60));
                match socket.read(&mut bytes).expect("it goes on") {
                    0 => break,
                    read => got += read,
                }
            }
            assert!(got >= SIZE, "{got}");
        });
        let _ = scope.spawn(|| {
            let http2 = site.http2();
            let got = http2.wait(async {
                let request = http2.request(Method::GET, "/whole", &[], "");
                let mut body = http2.begin(request).await.unwrap().into_body();
                let mut got = 0;
                while let Some(frame) = body.frame().await {
                    got += frame.expect("it goes on").into_data().expect("a piece").len();
                    tokio::time::sleep(Duration::from_millis(12)).await;
                }
                got
            });
            assert_eq!(got, SIZE);
        });
    });
}

/// Both sides of a conversation over HTTP/2 may be quiet once it has begun.
#[test]
fn a_conversation_that_has_begun_may_pause() {
    let site = Site::start(three().limits(Limits { body: secs(1), write: secs(1), ..Limits::default() }));
    for framework in ["axum", "warp"] {
        let http2 = site.http2();
        let (pieces, body) = tokio::sync::mpsc::channel(1);
        let request = http2.request(Method::POST, &format!("/{framework}/echo"), &[], "");
        let answering = site.runtime().spawn(http2.begin(request.map(|_| Piped(body).boxed())));
        http2.wait(async {
            pieces.send("one".into()).await.unwrap();
            let mut answer = answering.await.unwrap().unwrap().into_body();
            let mut next =
                async || answer.frame().await.expect("more").expect("it goes on").into_data().unwrap();
            assert_eq!(next().await, "one");
            tokio::time::sleep(secs(5)).await;
            pieces.send("two".into()).await.unwrap();
            assert_eq!(next().await, "two", "{framework}");
        });
    }
    assert_eq!(evicted(&site, "sent a body too slowly"), 0);
}

/// Each reason is said in the log, and soon again only with how many there were meanwhile.
#[test]
fn who_was_let_go_is_named_and_counted() {
    let limits = Limits { head: secs(1), ..Limits::default() };
    let site = Site::start(three_at("-evicted").limits(limits));
    let half: Vec<_> = (0..20)
        .map(|_| {
            let mut wire = site.wire();
            wire.send("GET /axum-evicted/hello");
            wire
        })
        .collect();
    half.into_iter().for_each(|mut wire| assert_eq!(wire.rest().0, b""));
    assert_eq!(evicted(&site, "did not finish a request head"), 20);
    let _ = log().wait(&["clients", "the peer did not finish a request head", "last=127.0.0.1"]);
}

/// A body may be as long as it likes, unless its mount says otherwise.
#[test]
fn a_decompressed_body_has_the_limit_of_its_mount() {
    use tower_http::decompression::RequestDecompressionLayer;

    let body_of = |target: mount::Target| target.layer(RequestDecompressionLayer::new()).body_limit(1 << 20);
    let deployment = Deployment::new("bombed")
        .listen(ANY_PORT)
        .mount("/axum", body_of(mount::axum(hello_axum::app())))
        .mount("/warp", body_of(mount::tower(warp::service(hello_warp::routes()))));
    let site = Site::start(deployment);
    let zipped = |bytes: usize| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![0; bytes]).unwrap();
        encoder.finish().unwrap()
    };
    for (bytes, status) in [(1_usize << 20, 200), ((1 << 20) + 1, 413), (500 << 20, 413)] {
        let body = zipped(bytes);
        for framework in ["axum", "warp"] {
            let head = format!(
                "POST /{framework}/sink HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let mut wire = site.wire();
            wire.send(head);
            // It may be answered before it has all of it.
            let _ = wire.try_send(&body);
            let answer = wire.answer();
            assert_eq!(answer.status, status, "{framework}, {bytes}: {}", answer.text());
        }
    }
}
