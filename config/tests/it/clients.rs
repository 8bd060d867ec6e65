//! Clients that are slow, rude or gone, and what they may not do to others.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use combo::{Limits, secs};
use futures_util::StreamExt;
use http::Method;
use http_body_util::BodyExt;
use rustix::process::Signal;
use tokio::sync::mpsc;

use crate::{
    child::Child,
    http2::{Http2, Piped, read},
    site::{ANY_PORT, ANY_TLS_PORT, FRAMEWORKS, PATIENCE, Site, limits, runtime, three},
    wire::{Alpn, End, Wire, get, post},
};

/// Every deadline is a second.
fn impatient() -> Limits {
    limits(|limits| {
        for limit in
            [&mut limits.handshake, &mut limits.head, &mut limits.idle, &mut limits.body, &mut limits.write]
        {
            *limit = secs(1);
        }
    })
}

const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &str = "\0\0\0\x04\0\0\0\0\0";
/// A `HEADERS` frame that says that more of them come, with `:method: GET` in it.
const HALF_HEADERS: &str = "\0\0\x01\x01\x01\0\0\0\x01\u{2}";

#[test]
fn who_keeps_us_waiting_is_let_go() {
    let site = Site::start(three().listen(ANY_TLS_PORT).limits(impatient()));
    let mut waiting = Vec::new();
    for (name, bytes) in [
        ("nothing", String::new()),
        ("half a request line", "GET /axum/he".into()),
        ("an empty line", "\r\n".into()),
        ("half a head", "GET /axum/hello/x HTTP/1.1\r\nHost: te".into()),
        ("half the preface", PREFACE[..17].into()),
        ("the preface", PREFACE.into()),
        ("the preface and settings", format!("{PREFACE}{SETTINGS}")),
        ("half an HTTP/2 head", format!("{PREFACE}{SETTINGS}{HALF_HEADERS}")),
        ("a request and half a head", get("/axum/hello/x") + "GET /ax"),
        ("a request and nothing", get("/axum/hello/x")),
    ] {
        let mut wire = site.wire();
        wire.send(bytes);
        waiting.push((name.to_owned(), wire));
    }
    for framework in FRAMEWORKS {
        let post = format!("POST /{framework}/sink HTTP/1.1\r\nHost: test\r\n");
        for (name, rest) in [
            ("half a body", "Content-Length: 10\r\n\r\nhello"),
            ("no body", "Content-Length: 10\r\n\r\n"),
            ("half a chunk", "Transfer-Encoding: chunked\r\n\r\na\r\nhello"),
            ("no last chunk", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ] {
            let mut wire = site.wire();
            wire.send(format!("{post}{rest}"));
            waiting.push((format!("{name} for {framework}"), wire));
        }
        let mut wire = site.wire();
        wire.send(get(&format!("/{framework}/fill?bytes={}", 1_u64 << 40)));
        waiting.push((format!("a client that does not read {framework}"), wire));
    }
    let tls = site.tls_address();
    for (name, bytes) in
        [("no TLS", &b""[..]), ("half a hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03half")]
    {
        let mut wire = Wire::tcp(tls);
        wire.send(bytes);
        waiting.push((name.to_owned(), wire));
    }
    let mut shaken = Wire::tls(tls, Alpn::Http1);
    shaken.send("");
    waiting.push(("nothing over TLS".to_owned(), shaken));
    // Those that do not read must not begin to now.
    let (unread, waiting): (Vec<_>, Vec<_>) =
        waiting.into_iter().partition(|(name, _)| name.contains("read"));
    let unread = unread.into_iter().inspect(|_| site.connections(0));
    for (name, mut wire) in waiting.into_iter().chain(unread) {
        println!("{name}");
        let (said, _) = wire.rest();
        assert!(!said.windows(5).any(|bytes| bytes == b"\r\n0\r\n"), "{name} got a whole body");
        assert!(
            name.starts_with("a request and") || !said.starts_with(b"HTTP/1.1 200") || name.contains("read"),
            "{name}"
        );
    }
    site.requests(0);
    for framework in FRAMEWORKS {
        assert_eq!(site.wire().ask(get(&format!("/{framework}/hello/x"))).status, 200);
    }
}

/// What comes too slowly is as if nothing came, however busy its sender looks.
#[test]
fn a_head_that_drips_is_let_go() {
    let site = Site::start(three().limits(impatient()));
    let mut wire = site.wire();
    wire.send("GET /axum/hello/x HTTP/1.1\r\nHost: test\r\n");
    let began = Instant::now();
    while wire.try_send("X: y\r\n").is_ok() {
        assert!(began.elapsed() < PATIENCE, "it goes on for ever");
        thread::sleep(Duration::from_millis(50));
    }
    site.connections(0);
}

/// Who is idle is asked to leave: the connection ends as it should, not by a reset.
#[test]
fn an_idle_connection_is_closed_politely() {
    let site = Site::start(three().listen(ANY_TLS_PORT).limits(limits(|limits| limits.idle = secs(3))));
    let mut idle = Vec::new();
    for framework in FRAMEWORKS {
        let target = format!("/{framework}/hello/x");
        for mut wire in [site.wire(), site.tls_wire()] {
            assert_eq!((wire.ask(get(&target)).status, wire.ask(get(&target)).status), (200, 200));
            idle.push((wire, site.http2(), site.tls_http2()));
        }
        let (_, http2, tls_http2) = &idle[idle.len() - 1];
        assert_eq!((http2.get(&target).status, tls_http2.get(&target).status), (200, 200));
    }
    for (mut wire, http2, tls_http2) in idle {
        assert_eq!(wire.rest(), (Vec::new(), End::Closed));
        http2.ended();
        tls_http2.ended();
    }
}

/// As a phone on a bad line: a kilobyte a second. Gaps are shorter than the deadline, the whole takes longer.
#[test]
fn a_slow_but_steady_client_is_served() {
    let limits = limits(|limits| (limits.body, limits.write, limits.head) = (secs(4), secs(4), secs(20)));
    let site = Site::start(three().limits(limits));
    thread::scope(|scope| {
        for framework in FRAMEWORKS {
            let (site, pause) = (&site, Duration::from_millis(250));
            let _ = scope.spawn(move || {
                let mut wire = site.wire();
                for piece in [
                    &format!("POST /{framework}/echo HTT"),
                    "P/1.1\r\nHost: t",
                    "est\r\nContent-Length: 7680\r\n\r\n",
                ] {
                    wire.send(piece);
                    thread::sleep(pause);
                }
                for _ in 0..30 {
                    wire.send("x".repeat(256));
                    thread::sleep(pause);
                }
                let answer = wire.answer();
                assert_eq!(
                    (answer.status, answer.text(), answer.whole),
                    (200, &*"x".repeat(7_680), true),
                    "{framework}"
                );
            });
            let _ = scope.spawn(move || {
                // Little room on the way, so that the server waits for this reader all the time.
                let socket =
                    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
                socket.set_recv_buffer_size(8 << 10).unwrap();
                socket.connect(&site.address().into()).unwrap();
                let mut socket = TcpStream::from(socket);
                socket
                    .write_all(get(&format!("/{framework}/fill?bytes={}", 1_u64 << 40)).as_bytes())
                    .unwrap();
                let began = Instant::now();
                while began.elapsed() < secs(9) {
                    let mut bytes = [0; 4 << 10];
                    socket.read_exact(&mut bytes).expect("it goes on");
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
    });
}

#[test]
fn who_sends_no_more_is_answered_all_the_same() {
    let site = Site::start(three().listen(ANY_TLS_PORT).access_log(false));
    let body = "x".repeat(10_000);
    for framework in FRAMEWORKS {
        for n in 0..50 {
            for (request, expected) in [
                (get(&format!("/{framework}/hello/x")), "Hello, x!\n"),
                (get(&format!("/{framework}/slow?ms=20")), "waited 20 ms\n"),
                (post(&format!("/{framework}/echo"), &body), &*body),
                (post(&format!("/{framework}/sink"), &body), "10000"),
            ] {
                let mut wire = if n % 10 == 9 { site.tls_wire() } else { site.wire() };
                wire.send(request);
                wire.finish();
                let answer = wire.answer();
                assert_eq!(
                    (answer.status, answer.text(), answer.whole),
                    (200, expected, true),
                    "{framework}, {n}"
                );
                assert_eq!(wire.rest().0, b"");
            }
        }
    }
}

#[test]
fn whose_client_is_gone_goes_too() {
    let site = Site::start(three());
    for framework in FRAMEWORKS {
        let post = format!("POST /{framework}/sink HTTP/1.1\r\nHost: test\r\n");
        for head in ["Content-Length: 1000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nf4240\r\n"] {
            for reset in [false, true] {
                let mut wire = site.wire();
                wire.send(format!("{post}{head}{}", "x".repeat(100_000)));
                site.requests(1);
                if reset {
                    wire.abort();
                } else {
                    drop(wire);
                }
                site.requests(0);
                site.connections(0);
                assert_eq!(site.wire().ask(get(&format!("/{framework}/hello/x"))).status, 200);
            }
        }
        for target in ["endless", "fill?bytes=1000000000000", "stream"] {
            let mut wire = site.wire();
            wire.send(get(&format!("/{framework}/{target}")));
            wire.until("200 OK");
            wire.abort();
            site.requests(0);
        }
        // Over HTTP/2 a stream can go alone.
        let http2 = site.http2();
        let request = http2.request(Method::GET, &format!("/{framework}/endless"), &[], "");
        let response = http2.wait(http2.begin(request)).unwrap();
        site.requests(1);
        drop(response);
        site.requests(0);
        assert_eq!(http2.get(&format!("/{framework}/hello/x")).status, 200);
        drop(http2);
        site.connections(0);
    }
}

#[test]
fn hundreds_that_come_and_go_leave_nothing() {
    let site = Site::start(three().access_log(false));
    for n in 0..300 {
        let framework = FRAMEWORKS[n % 3];
        let mut wire = site.wire();
        wire.send(get(&format!("/{framework}/stream")));
        if n % 2 == 0 {
            wire.abort();
        }
    }
    site.requests(0);
    site.connections(0);
}

#[test]
fn requests_are_answered_in_their_order() {
    let site = Site::start(three());
    let mut wire = site.wire();
    let (mut requests, mut expected) = (String::new(), Vec::new());
    for n in 0..10 {
        for framework in FRAMEWORKS {
            requests += &get(&format!("/{framework}/slow?ms={}", n % 3));
            expected.push(format!("waited {} ms\n", n % 3));
            requests += &get(&format!("/{framework}/hello/{n}"));
            expected.push(format!("Hello, {n}!\n"));
            requests += &post(&format!("/{framework}/echo"), &format!("{framework} {n}"));
            expected.push(format!("{framework} {n}"));
        }
        requests += &get("/index.html");
        expected.push("welcome\n".to_owned());
    }
    wire.send(&requests);
    for expected in expected {
        let answer = wire.answer();
        assert_eq!((answer.status, answer.text()), (200, &*expected));
    }
    // And it can still be used.
    assert_eq!(wire.ask(get("/warp/hello/x")).text(), "Hello, x!\n");
}

#[test]
fn a_body_is_asked_for_when_it_is_wanted() {
    let site = Site::start(three());
    for framework in FRAMEWORKS {
        let mut wire = site.wire();
        let head = |path| {
            format!(
                "POST /{framework}/{path} HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
            )
        };
        let go_on = wire.ask(head("sink"));
        assert_eq!(go_on.status, 100, "{framework}: {go_on:?}");
        let answer = wire.ask("hello");
        assert_eq!((answer.status, answer.text()), (200, "5"), "{framework}");
        // Nobody wants it here.
        let refused = site.wire().ask(head("nowhere"));
        assert_eq!(refused.status, 404, "{framework}: {refused:?}");
    }
}

/// Who is answered before the whole body was read gets that answer, however much was sent.
#[test]
fn an_answer_may_come_before_the_body() {
    let site = Site::start(three().listen(ANY_TLS_PORT));
    for framework in FRAMEWORKS {
        for sent in [0, 10, 5_000, 3_000_000] {
            for mut wire in [site.wire(), site.tls_wire()] {
                let lines = "Host: test\r\nContent-Length: 3000000\r\n\r\n";
                let head = format!("POST /{framework}/nowhere HTTP/1.1\r\n{lines}");
                let answer = wire.ask(head + &"x".repeat(sent));
                assert_eq!(
                    (answer.status, answer.whole),
                    (404, true),
                    "{framework}, {sent} sent: {answer:?}"
                );
            }
        }
    }
    site.connections(0);
}

/// A byte of the pattern that bodies here are made of.
fn pattern(at: usize) -> u8 {
    (at % 251) as u8
}

const LARGE: usize = 20 << 20;

/// Writes a large body while reading it back.
fn echo_http1(address: SocketAddr, framework: &str, chunked: bool) {
    let mut wire = Wire::tcp(address);
    let mut writer = wire.socket().try_clone().unwrap();
    let head = format!("POST /{framework}/echo HTTP/1.1\r\nHost: test\r\n");
    let writing = thread::spawn(move || {
        let line =
            if chunked { "Transfer-Encoding: chunked".into() } else { format!("Content-Length: {LARGE}") };
        writer.write_all(format!("{head}{line}\r\n\r\n").as_bytes()).unwrap();
        let mut at = 0;
        while at < LARGE {
            let piece: Vec<u8> = (at..LARGE.min(at + 50_000)).map(pattern).collect();
            if chunked {
                writer.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).unwrap();
            }
            writer.write_all(&piece).unwrap();
            if chunked {
                writer.write_all(b"\r\n").unwrap();
            }
            at += piece.len();
        }
        if chunked {
            writer.write_all(b"0\r\n\r\n").unwrap();
        }
    });
    let answer = wire.answer();
    writing.join().unwrap();
    assert_eq!((answer.status, answer.body.len(), answer.whole), (200, LARGE, true), "{framework}");
    assert!(answer.body.iter().enumerate().all(|(at, byte)| *byte == pattern(at)), "{framework} garbles");
}

/// The same over HTTP/2, without keeping what comes back.
fn echo_http2(http2: &Http2, framework: &str) {
    let (pieces, body) = mpsc::channel(1);
    let request =
        http2.request(Method::POST, &format!("/{framework}/echo"), &[], "").map(|_| Piped(body).boxed());
    http2.wait(async {
        let writing = tokio::spawn(async move {
            let mut at = 0;
            while at < LARGE {
                let piece: Vec<u8> = (at..LARGE.min(at + 50_000)).map(pattern).collect();
                at += piece.len();
                pieces.send(piece.into()).await.expect("it is read");
            }
        });
        let response = http2.begin(request).await.expect("an answer");
        let mut body = response.into_body().into_data_stream();
        let mut at = 0;
        while let Some(piece) = body.next().await {
            for byte in piece.expect("a whole body") {
                assert_eq!(byte, pattern(at), "{framework} garbles byte {at}");
                at += 1;
            }
        }
        assert_eq!(at, LARGE, "{framework}");
        writing.await.expect("all was written");
    });
}

#[test]
fn large_bodies_flow_through_and_are_not_kept() {
    let child = Child::with(&["--listen", ANY_PORT, "--workers", "1", "--no-access-log"], |_| ());
    let runtime = runtime();
    for framework in FRAMEWORKS {
        assert_eq!(child.wire().ask(post(&format!("/{framework}/echo"), "x")).text(), "x");
    }
    let (before, _) = child.memory();
    for framework in FRAMEWORKS {
        echo_http1(child.address(), framework, false);
        echo_http1(child.address(), framework, true);
        echo_http2(&Http2::tcp(&runtime, child.address()), framework);
        let (_, most) = child.memory();
        assert!(
            most < before + (12 << 10),
            "{framework} keeps bodies: {before} KiB before, {most} KiB at most"
        );
    }
}

#[test]
fn who_waits_keeps_nothing_of_a_large_head() {
    let child = Child::with(&["--listen", ANY_PORT, "--workers", "1", "--no-access-log"], |_| ());
    let ask = |padding: usize| {
        let mut wire = child.wire();
        let large =
            format!("GET /axum/hello/x HTTP/1.1\r\nhost: a\r\nx-large: {}\r\n\r\n", "x".repeat(padding));
        assert_eq!(wire.ask(large).text(), "Hello, x!\n");
        wire
    };
    // More than a crowd: fewer may keep their buffers for the next request.
    let _crowd: Vec<Wire> = (0..260).map(|_| ask(10)).collect();
    let (before, _) = child.memory();
    let _waiting: Vec<Wire> = (0..200).map(|_| ask(60_000)).collect();
    let (now, _) = child.memory();
    assert!(now < before + 200 * 16, "{before} KiB before, {now} KiB now");
}

#[test]
fn who_does_not_read_is_not_read_from() {
    let child = Child::with(&["--listen", ANY_PORT, "--workers", "1"], |_| ());
    for framework in FRAMEWORKS {
        assert_eq!(child.wire().ask(post(&format!("/{framework}/echo"), "x")).text(), "x");
    }
    let (before, _) = child.memory();
    let child = &child;
    let stuff = move |framework: &str| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        // What the kernel keeps is not what this is about.
        socket.set_recv_buffer_size(64 << 10).unwrap();
        socket.set_send_buffer_size(64 << 10).unwrap();
        socket.connect(&child.address().into()).unwrap();
        let mut socket = TcpStream::from(socket);
        let (all, piece) = (256_usize << 20, vec![b'x'; 64 << 10]);
        let head = format!("POST /{framework}/echo HTTP/1.1\r\nHost: test\r\nContent-Length: {all}\r\n\r\n");
        socket.write_all(head.as_bytes()).unwrap();
        socket.set_write_timeout(Some(secs(2))).unwrap();
        let mut sent = 0;
        let stopped = loop {
            match socket.write(&piece[..piece.len().min(all - sent)]) {
                Ok(0) => break false,
                Ok(written) => sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break true,
                Err(error) => panic!("{framework}: {error}"),
            }
        };
        assert!(stopped && sent < 64 << 20, "{framework} reads {sent} bytes for a client that reads none");
        let (_, most) = child.memory();
        assert!(most < before + (12 << 10), "{framework}: {before} KiB before, {most} KiB at most");
        // Nothing of it is lost: as much comes back.
        let mut back = 0;
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = vec![0; 1 << 20];
        while back < sent {
            back += socket.read(&mut bytes).expect("what was sent comes back");
        }
    };
    thread::scope(|scope| {
        for framework in FRAMEWORKS {
            drop(scope.spawn(move || stuff(framework)));
        }
    });
}

#[test]
fn who_does_not_read_costs_no_memory() {
    let child = Child::with(&["--listen", ANY_PORT, "--workers", "1"], |_| ());
    let runtime = runtime();
    for framework in FRAMEWORKS {
        assert_eq!(child.wire().ask(get(&format!("/{framework}/fill?bytes=1000000"))).body.len(), 1_000_000);
    }
    let (before, _) = child.memory();
    let (mut wires, mut streams) = (Vec::new(), Vec::new());
    for framework in FRAMEWORKS {
        let target = format!("/{framework}/fill?bytes={}", 1_u64 << 40);
        for _ in 0..10 {
            let mut wire = child.wire();
            wire.send(get(&target));
            wire.until("200 OK");
            wires.push(wire);
            let http2 = Http2::tcp(&runtime, child.address());
            let request = http2.request(Method::GET, &target, &[], "");
            let response = http2.wait(http2.begin(request)).unwrap();
            streams.push((http2, response));
        }
    }
    // Others are served meanwhile; at the speed of memory gigabytes would have been kept by now.
    for n in 0..100 {
        let framework = FRAMEWORKS[n % 3];
        assert_eq!(child.wire().ask(get(&format!("/{framework}/slow?ms=5"))).status, 200);
    }
    let (_, most) = child.memory();
    assert!(most < before + (48 << 10), "sixty of them cost much: {before} KiB before, {most} KiB at most");
    // They can still have the rest.
    let (http2, response) = streams.pop().unwrap();
    let mut body = response.into_body().into_data_stream();
    let mut taken = 0;
    while taken < 10 << 20 {
        taken += http2.wait(body.next()).expect("more of it").unwrap().len();
    }
    drop(wires.pop().unwrap().take(10 << 20));
}

/// Over HTTP/2 it is the request that ends, of one whose client opens no window for the answer, and of one that
/// stops in the middle of its body; the connection and what else is on it go on.
#[test]
fn an_http2_stream_that_stops_is_reset_and_the_others_go_on() {
    let site = Site::start(three().limits(Limits { idle: secs(60), ..impatient() }));
    for framework in FRAMEWORKS {
        let path = format!("/{framework}/fill?bytes=1000000");
        let mut wire = site.wire();
        // `SETTINGS_INITIAL_WINDOW_SIZE` 0 (RFC 9113, section 6.5.2).
        wire.send(format!("{PREFACE}\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0"));
        // `:method: GET`, `:scheme: http`, `:path`, `:authority: test` (RFC 7541, appendix A).
        let length = u8::try_from(path.len()).unwrap();
        let block = [&[0x82, 0x86, 0x04, length], path.as_bytes(), &[0x01, 4], b"test"].concat();
        wire.send([&[0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1], &*block].concat());
        let http2 = site.http2();
        // Quiet by nature.
        let events = http2.begin(http2.request(Method::GET, &format!("/{framework}/slow?ms=6000"), &[], ""));
        let events = site.runtime().spawn(events);
        let (pieces, body) = mpsc::channel(1);
        let target = format!("/{framework}/sink");
        let request = http2.request(Method::POST, &target, &[], "").map(|_| Piped(body).boxed());
        let answering = site.runtime().spawn(http2.begin(request));
        http2.wait(pieces.send("hello".into())).unwrap();
        site.requests(3);
        // `RST_STREAM` of stream 1: `CANCEL`.
        wire.until("\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08");
        let reset = http2.wait(answering).unwrap().expect_err("a reset");
        assert!(format!("{reset:?}").contains("CANCEL"), "{framework}: {reset:?}");
        assert_eq!(http2.get(&format!("/{framework}/hello/x")).text(), "Hello, x!\n");
        let answer = http2.wait(async { read(events.await.unwrap().unwrap()).await });
        assert_eq!(answer.text(), "waited 6000 ms\n");
        site.requests(0);
    }
    let evicted =
        |why: &str| site.status().evicted.into_iter().find(|row| row.why.contains(why)).unwrap().connections;
    assert_eq!((evicted("body too slowly"), evicted("answer too slowly")), (3, 3));
}

#[test]
fn many_that_wait_for_their_next_request_are_answered_when_it_comes() {
    // More than a crowd on one worker.
    let mut child = Child::with(&["--workers", "1", "--listen", ANY_PORT, "--listen", ANY_TLS_PORT], |_| ());
    let _ = child.log.wait_for(2, &["frankenstein serves"]);
    let tls: SocketAddr = {
        let addresses = child.addresses();
        let tls = addresses.iter().find_map(|address| address.strip_prefix("https://"));
        tls.expect("one of TLS").parse().expect("an address")
    };
    let mut wires: Vec<Wire> = (0..260).map(|_| child.wire()).collect();
    wires.extend((0..40).map(|_| Wire::tls(tls, Alpn::Http1)));
    for framework in FRAMEWORKS {
        let hello = get(&format!("/{framework}/hello/x"));
        for wire in &mut wires {
            assert_eq!(wire.ask(&hello).text(), "Hello, x!\n", "{framework}");
        }
    }
    // The beginning of the next request comes with the last one.
    let mut torn = child.wire();
    torn.send([&*get("/axum/hello/a"), "GET /warp/hello/b HT"].concat());
    assert_eq!(torn.answer().text(), "Hello, a!\n");
    torn.send("TP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(torn.answer().text(), "Hello, b!\n");
    // Its first request is answered before its body has come, and the body is still its own.
    let mut early = child.wire();
    early.send("POST /axum/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\nabc");
    early.until("abc");
    early.send("def");
    assert_eq!(early.answer().text(), "abcdef");
    assert_eq!(early.ask(get("/axum/hello/c")).text(), "Hello, c!\n");
    child.signal(Signal::TERM);
    assert!(child.exit().success());
    for wire in &mut wires {
        assert_eq!(wire.end(), End::Closed);
    }
}
