//! Stopping: what is in flight is finished, what does not finish is named and cut, and it always ends.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use combo::{Command, Deployment, Reply, mount, secs};
use futures_util::StreamExt;
use http::Method;
use http_body_util::BodyExt;
use rustix::process::Signal;

use crate::{
    child::Child,
    http2::read,
    lines::log,
    site::{ANY_PORT, ANY_TLS_PORT, FRAMEWORKS, Site, eventually, three, three_at},
    wire::{Alpn, Answer, End, Wire, get, post},
};

/// The budget of the real deployment. What ends at once ends long before.
const DRAIN: Duration = secs(30);

fn events(answer: &Answer) -> (usize, bool) {
    (answer.text().matches("data: ").count(), answer.whole)
}

#[test]
fn what_is_in_flight_is_finished() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut child = Child::start();
        let mut streams = Vec::new();
        for framework in FRAMEWORKS {
            let (mut stream, mut echo) = (child.wire(), child.wire());
            stream.send(get(&format!("/{framework}/stream")));
            stream.until("data: 1");
            echo.send(post(&format!("/{framework}/echo"), "0123456789").split_at(60).0);
            echo.until_read();
            streams.push((framework, stream, echo));
        }
        child.signal(signal);
        let _ = child.log.wait(&["\"draining\""]);
        for (framework, mut stream, mut echo) in streams {
            echo.send(post(&format!("/{framework}/echo"), "0123456789").split_at(60).1);
            let answer = echo.answer();
            assert_eq!((answer.text(), answer.whole), ("0123456789", true), "{framework}");
            assert_eq!(echo.end(), End::Closed);
            assert_eq!(events(&stream.answer()), (10, true), "{framework}");
            assert_eq!(stream.end(), End::Closed);
        }
        assert_eq!(child.exit().code(), Some(0));
        let _ = child.log.wait(&["has stopped"]);
    }
}

#[test]
fn idle_and_silent_connections_do_not_hold_it_up() {
    let mut child = Child::start();
    let runtime = crate::site::runtime();
    let began = Instant::now();
    let mut idle = child.wire();
    assert_eq!(idle.ask(get("/axum/hello/x")).status, 200);
    let mut silent = child.wire();
    let http2 = crate::http2::Http2::tcp(&runtime, child.address());
    assert_eq!(http2.get("/warp/hello/x").status, 200);
    child.signal(Signal::TERM);
    assert_eq!(idle.rest(), (Vec::new(), End::Closed));
    http2.ended();
    let _ = silent.end();
    assert_eq!(child.exit().code(), Some(0));
    assert!(began.elapsed() < DRAIN, "it waited for {:?}", began.elapsed());
}

/// A request that has begun to come is waited for as long as its head may take.
#[test]
fn half_a_head_is_waited_for_and_answered() {
    let site = Site::start(three().limits(crate::site::limits(|limits| limits.head = secs(2))));
    let (mut slow, mut stuck) = (site.wire(), site.wire());
    for wire in [&mut slow, &mut stuck] {
        wire.send("GET /axum/hello/x HTTP/1.1\r\nHo");
        wire.until_read();
    }
    site.stop();
    slow.send("st: test\r\n\r\n");
    assert_eq!(slow.answer().text(), "Hello, x!\n");
    assert_eq!((slow.rest().0, stuck.rest().0), (Vec::new(), Vec::new()));
    site.stopped();
}

/// Between a handshake and a request there is a moment, too. It is short, so this may take more than
/// one attempt on a machine that has other things to do.
#[test]
fn who_has_just_shaken_hands_is_answered() {
    let answered = || {
        let site = Site::start(three().listen(ANY_TLS_PORT).workers(1));
        let (mut other, mut wire) = (site.wire(), site.tls_wire());
        wire.send("");
        wire.until_read();
        other.send(get("/axum/slow?ms=200"));
        site.requests(1);
        site.stop();
        // By then its worker has been told, too.
        assert_eq!(other.answer().status, 200);
        let sent = wire.try_send(get("/index.html"));
        sent.is_ok() && wire.try_answer().is_some_and(|answer| answer.text() == "welcome\n")
    };
    assert!((0..10).any(|_| answered()));
}

#[test]
fn http2_streams_are_finished_as_well() {
    let site = Site::start(three().listen(ANY_TLS_PORT));
    let (plain, tls) = (site.http2(), site.tls_http2());
    let begun: Vec<_> = [&plain, &tls]
        .into_iter()
        .flat_map(|http2| FRAMEWORKS.map(|framework| (http2, format!("/{framework}/stream"))))
        .map(|(http2, target)| (http2, http2.begin(http2.request(Method::GET, &target, &[], ""))))
        .map(|(http2, response)| (http2, http2.wait(response).unwrap()))
        .collect();
    site.stop();
    for (http2, response) in begun {
        assert_eq!(events(&http2.wait(read(response))), (10, true));
    }
    plain.ended();
    tls.ended();
    site.stopped();
}

/// The head and the payload of the next frame (RFC 9113, section 4.1); pings and settings are answered.
fn h2_frame(wire: &mut Wire) -> ([u8; 9], Vec<u8>) {
    let head: [u8; 9] = wire.take(9).try_into().unwrap();
    let payload = wire.take(u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize);
    if matches!(head[3], SETTINGS | PING) && head[4] & ACK == 0 {
        let echoed = if head[3] == PING { &*payload } else { &[] };
        wire.send(h2_bytes(head[3], ACK, 0, echoed));
    }
    (head, payload)
}

fn h2_bytes(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let head = [0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, stream];
    [&head, payload].concat()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The request is told to be the last of its connection, and is answered all the same.
#[test]
fn clients_are_told_that_there_will_be_no_more_while_their_requests_are_finished() {
    let site = Site::start(three().listen(ANY_TLS_PORT).workers(1));
    let mut idle = site.wire();
    assert_eq!(idle.ask(get("/axum/hello/x")).status, 200);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for framework in FRAMEWORKS {
        let path = format!("/{framework}/sink");
        for mut wire in [site.wire(), site.tls_wire()] {
            wire.send(post(&path, "0123456789").trim_end_matches("56789"));
            first.push((framework, wire));
        }
        for mut wire in [site.wire(), Wire::tls(site.tls_address(), Alpn::Http2)] {
            // POST and http, then path and authority as they are (RFC 7541, appendix A).
            let mut headers = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
            headers.extend([path.as_bytes(), b"\x01\x04test"].concat());
            wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            wire.send(h2_bytes(SETTINGS, 0, 0, &[]));
            wire.send(h2_bytes(HEADERS, END_HEADERS, 1, &headers));
            wire.send(h2_bytes(DATA, 0, 1, b"01234"));
            second.push((framework, wire));
        }
    }
    site.requests(12);
    site.stop();
    // By then the worker has told everybody.
    assert_eq!(idle.rest(), (Vec::new(), End::Closed));
    for (framework, mut wire) in first {
        wire.send("56789");
        let answer = wire.answer();
        assert_eq!((answer.text().trim(), answer.header("connection")), ("10", Some("close")), "{framework}");
        assert_eq!(wire.rest(), (Vec::new(), End::Closed), "{framework}");
    }
    for (framework, mut wire) in second {
        let goaway = loop {
            let (head, payload) = h2_frame(&mut wire);
            assert!(!matches!(head[3], HEADERS | DATA), "{framework}: it is not answered yet");
            if head[3] == GOAWAY {
                break payload;
            }
        };
        assert_eq!(goaway[4..8], [0; 4], "{framework}: no error");
        wire.send(h2_bytes(DATA, END_STREAM, 1, b"56789"));
        let mut answer = Vec::new();
        while answer.is_empty() {
            let (head, payload) = h2_frame(&mut wire);
            answer.extend(payload.into_iter().filter(|_| head[3] == DATA));
        }
        assert_eq!(answer.trim_ascii(), b"10", "{framework}");
        assert_eq!(wire.end(), End::Closed, "{framework}");
    }
    site.stopped();
}

#[test]
fn what_does_not_finish_is_named_and_cut() {
    let site = Site::start(three_at("-cut").drain(secs(2)));
    let mut endless = Vec::new();
    for framework in FRAMEWORKS {
        for path in ["endless", "slow?ms=3600000"] {
            let mut wire = site.wire();
            wire.send(get(&format!("/{framework}-cut/{path}")));
            endless.push((framework, wire));
        }
    }
    let http2 = site.http2();
    let request = http2.request(Method::GET, "/axum-cut/endless", &[], "");
    let response = http2.wait(http2.begin(request)).unwrap();
    site.requests(7);
    site.stop();
    assert!(matches!(site.say(Command::Stop), Reply::Refused { .. }));
    for framework in FRAMEWORKS {
        for path in ["endless", "slow"] {
            let (mount, path) = (format!("\"/{framework}-cut\""), format!("/{framework}-cut/{path}"));
            let _ = log().wait(&["waiting for a request", &mount, &path]);
            let _ = log().wait(&["cutting a request", &mount, &path]);
        }
    }
    site.stopped();
    for (framework, mut wire) in endless {
        assert!(!wire.try_answer().is_some_and(|answer| answer.whole), "{framework}");
        let _ = wire.end();
    }
    assert!(!http2.wait(read(response)).whole);
    assert_eq!(site.say(Command::Status), Reply::Stopped);
}

#[test]
fn a_cut_ends_at_once() {
    let site = Site::start(three().drain(secs(3600)));
    let mut wires: Vec<Wire> = FRAMEWORKS.iter().map(|_| site.wire()).collect();
    for (wire, framework) in wires.iter_mut().zip(FRAMEWORKS) {
        wire.send(get(&format!("/{framework}/endless")));
        wire.until("1\n");
    }
    site.stop();
    assert_eq!(site.say(Command::Cut), Reply::Begun);
    site.stopped();
    assert!(wires.iter_mut().all(|wire| !wire.answer().whole));
}

#[test]
fn the_second_signal_cuts() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM)] {
        let mut child = Child::start();
        let mut wire = child.wire();
        wire.send(get("/actix/endless"));
        wire.until("1\n");
        let began = Instant::now();
        child.signal(first);
        let _ = child.log.wait(&["waiting for a request", "\"/actix\"", "/actix/endless"]);
        child.signal(second);
        let _ = child.log.wait(&["cutting a request", "\"/actix\"", "/actix/endless"]);
        assert!(!wire.answer().whole);
        assert_eq!(child.exit().code(), Some(0));
        assert!(began.elapsed() < DRAIN, "it took {:?}", began.elapsed());
    }
}

#[test]
fn a_request_that_never_returns_does_not_keep_the_process() {
    let mut child = Child::start();
    let mut wire = child.wire();
    wire.send(get("/axum/block?ms=600000"));
    let named = ["\"/axum\"", "\"GET /axum/block\""];
    let _ = child.log.wait(&["holds its worker", named[0], named[1]]);
    child.signal(Signal::TERM);
    let _ = child.log.wait(&["waiting for a request", named[0], named[1]]);
    child.signal(Signal::TERM);
    let _ = child.log.wait(&["cutting a request", named[0], named[1]]);
    let _ = child.log.wait(&["does not end", named[0], named[1]]);
    assert_eq!(child.exit().code(), Some(0));
}

#[test]
fn a_hangup_changes_nothing() {
    let mut child = Child::start();
    for n in 1..=3 {
        child.signal(Signal::HUP);
        let _ = child.log.wait_for(n, &["SIGHUP"]);
        assert_eq!(child.wire().ask(get("/warp/hello/x")).status, 200);
    }
    child.signal(Signal::TERM);
    assert_eq!(child.exit().code(), Some(0));
}

#[test]
fn nobody_new_is_let_in() {
    let mut child = Child::with(&["--listen", ANY_PORT, "--listen", "unix:app.sock"], |_| ());
    let address = child.address();
    let mut wire = child.wire();
    wire.send(get("/axum/endless"));
    wire.until("1\n");
    child.signal(Signal::TERM);
    eventually("connections are refused", || TcpStream::connect(address).is_err().then_some(()));
    eventually("the socket is gone", || (!child.path("app.sock").exists()).then_some(()));
    // All the while the one in flight goes on.
    wire.until("5\n");
    drop(wire);
    assert_eq!(child.exit().code(), Some(0));
}

#[test]
fn who_was_already_let_in_is_answered() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut child = Child::start();
        // The process stands still, and the kernel accepts for it.
        child.signal(Signal::STOP);
        let mut wires = Vec::new();
        for n in 0..60 {
            let mut wire = child.wire();
            let framework = FRAMEWORKS[n % 3];
            wire.send(get(&format!("/{framework}/hello/{n}")));
            wires.push((n, wire));
        }
        child.signal(signal);
        child.signal(Signal::CONT);
        for (n, mut wire) in wires {
            assert_eq!(wire.answer().text(), format!("Hello, {n}!\n"));
            assert_eq!(wire.rest(), (Vec::new(), End::Closed));
        }
        assert_eq!(child.exit().code(), Some(0));
    }
}

#[test]
fn dropping_the_handle_drains() {
    let folder = crate::site::folder();
    let runtime = crate::site::runtime();
    let plan = three_at("").listen("unix:app.sock").root(folder.path()).plan().unwrap();
    let handle = runtime.block_on(combo::start(plan)).unwrap();
    let socket = folder.path().join("app.sock");
    let mut wire = Wire::unix(&socket);
    wire.send(get("/warp/stream"));
    wire.until("data: 1");
    drop(handle);
    assert_eq!(events(&wire.answer()), (10, true));
    eventually("the socket is gone", || (!socket.exists()).then_some(()));
}

#[test]
fn a_client_that_reads_slowly_gets_it_all() {
    let site = Site::start(three());
    let begun: Vec<_> = (0..4)
        .map(|_| {
            let http2 = site.http2();
            let request = http2.request(Method::GET, "/axum/fill?bytes=10000000", &[], "");
            let response = http2.wait(http2.begin(request)).unwrap();
            (http2, response)
        })
        .collect();
    let mut wire = site.wire();
    wire.send(get("/actix/fill?bytes=30000000"));
    wire.until("200 OK");
    site.stop();
    for (http2, response) in begun {
        let mut body = response.into_body().into_data_stream();
        let mut taken = 0;
        while let Some(piece) = http2.wait(body.next()) {
            taken += piece.unwrap().len();
        }
        assert_eq!(taken, 10_000_000);
    }
    let answer = wire.answer();
    assert_eq!((answer.body.len(), answer.whole), (30_000_000, true));
    site.stopped();
}

#[test]
fn nothing_to_serve_stops_as_well() {
    let site = Site::start(Deployment::new("nothing"));
    site.stop();
    site.stopped();
    let site = Site::start(Deployment::new("little").listen(ANY_PORT).mount("/", mount::redirect("/x")));
    site.stop();
    site.stopped();
}
