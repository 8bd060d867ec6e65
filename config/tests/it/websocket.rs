//! Websockets (RFC 6455) of apps that do not know where they are mounted.

use std::{sync::mpsc, thread};

use combo::{Deployment, mount, secs};
use http::Method;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    child::Child,
    http2::Http2,
    site::{ANY_PORT, ANY_TLS_PORT, Site, limits, three},
    wire::{End, Wire, get, post, unread},
};

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// The last frame of its message.
pub(crate) const LAST: u8 = 0x80;

/// Where there are websockets that say again what they hear.
pub(crate) const ECHOES: [&str; 8] = [
    "/axum/ws",
    "/actix/ws",
    "/actix/actor-ws",
    "/warp/ws",
    "/axum-own/ws",
    "/actix-own/ws",
    "/actix-own/actor-ws",
    "/warp-own/ws",
];

/// The three apps on the workers and on threads of their own, behind endpoints of every kind.
pub(crate) fn apps_everywhere() -> Deployment {
    three()
        .listen(ANY_TLS_PORT)
        .listen("unix:app.sock")
        .mount("/axum-own", mount::axum(hello_axum::app()).own_threads(1))
        .mount("/actix-own", mount::actix(hello_actix::app).own_threads(1))
        .mount("/warp-own", mount::tower(warp::service(hello_warp::routes())).own_threads(1))
}

fn site() -> Site {
    Site::start(apps_everywhere())
}

pub(crate) fn everywhere(site: &Site) -> [Wire; 3] {
    [site.wire(), site.tls_wire(), Wire::unix(&site.path("app.sock"))]
}

/// A frame of a client, masked.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The next frame of the server: what begins it, and what is in it.
pub(crate) fn next(wire: &mut Wire) -> (u8, Vec<u8>) {
    let head = wire.take(2);
    assert_eq!(head[1] & 0x80, 0, "a server does not mask");
    let length = match head[1] {
        126 => u16::from_be_bytes(wire.take(2).try_into().unwrap()).into(),
        127 => u64::from_be_bytes(wire.take(8).try_into().unwrap()),
        length => length.into(),
    };
    (head[0], wire.take(length as usize))
}

/// The next message, whatever it was cut into.
pub(crate) fn message(wire: &mut Wire) -> (u8, Vec<u8>) {
    let (first, mut whole) = next(wire);
    let mut last = first;
    while last & LAST == 0 {
        let (more, payload) = next(wire);
        assert_eq!(more & 0x0f, 0, "a continuation");
        whole.extend(payload);
        last = more;
    }
    (first & 0x0f, whole)
}

pub(crate) fn ask(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// Shakes hands (section 1.3).
pub(crate) fn open(wire: &mut Wire, target: &str) {
    wire.send(ask(target));
    let head = wire.head().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{target}: {head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{target}: {head}");
    assert!(head.contains("\r\nupgrade: websocket\r\n"), "{target}: {head}");
}

pub(crate) fn echoes(wire: &mut Wire, kind: u8, payload: &[u8], target: &str) {
    wire.send(frame(LAST | kind, payload));
    let (seen, said) = message(wire);
    assert!(seen == kind && said == payload, "{target}: {seen}, {} bytes", said.len());
}

#[test]
fn what_is_said_is_heard_again_over_every_kind_of_endpoint() {
    let site = site();
    for target in ECHOES {
        for mut wire in everywhere(&site) {
            open(&mut wire, target);
            echoes(&mut wire, TEXT, "Grüße".as_bytes(), target);
            echoes(&mut wire, BINARY, &[0, 1, 254, 255], target);
            echoes(&mut wire, BINARY, &[], target);
            for size in [125, 126, 65_535, 65_536, 1 << 20] {
                echoes(&mut wire, BINARY, &vec![7; size], target);
            }
            wire.send(frame(LAST | PING, b"there?"));
            assert_eq!(next(&mut wire), (LAST | PONG, b"there?".to_vec()), "{target}");
            // In pieces, with a ping between them, in pieces of bytes.
            let torn =
                [frame(TEXT, b"in "), frame(LAST | PING, b"!"), frame(0, b"three "), frame(LAST, b"pieces")];
            for bytes in torn.concat().chunks(3) {
                wire.send(bytes);
            }
            let both = [message(&mut wire), message(&mut wire)];
            assert!(both.contains(&(PONG, b"!".to_vec())), "{target}: {both:?}");
            assert!(both.contains(&(TEXT, b"in three pieces".to_vec())), "{target}: {both:?}");
        }
    }
}

#[test]
fn a_close_is_answered_and_ends_the_connection() {
    let site = site();
    for target in ECHOES {
        for mut wire in everywhere(&site) {
            open(&mut wire, target);
            echoes(&mut wire, TEXT, b"last words", target);
            wire.send(frame(LAST | CLOSE, &[&1000_u16.to_be_bytes()[..], b"bye"].concat()));
            let (first, reason) = next(&mut wire);
            assert_eq!((first, &reason[..2]), (LAST | CLOSE, &1000_u16.to_be_bytes()[..]), "{target}");
            assert_eq!(wire.end(), End::Closed, "{target}");
        }
    }
    site.connections(0);
    site.requests(0);
}

#[test]
fn who_is_gone_without_a_word_leaves_nothing_behind() {
    let site = site();
    for target in ECHOES {
        let mut wire = site.wire();
        open(&mut wire, target);
        echoes(&mut wire, TEXT, b"hello", target);
        wire.abort();
    }
    site.connections(0);
}

#[test]
fn a_handshake_that_is_none_is_refused_by_the_app_and_the_connection_goes_on() {
    let site = site();
    for target in ECHOES {
        let mut wire = site.wire();
        for request in [get(target), ask(target).replace("sec-websocket-key", "x-no-key")] {
            let answer = wire.ask(request);
            assert!((400..500).contains(&answer.status), "{target}: {answer:?}");
        }
        assert_eq!(wire.ask(get("/axum/hello/x")).text(), "Hello, x!\n", "{target}");
    }
}

#[test]
fn in_http_1_0_there_is_nothing_to_upgrade_from() {
    let site = site();
    for target in ECHOES {
        let answer = site.wire().ask(ask(target).replace("HTTP/1.1", "HTTP/1.0"));
        assert!((400..500).contains(&answer.status), "{target}: {answer:?}");
    }
}

#[test]
fn who_never_stops_talking_does_not_keep_others_waiting() {
    const FLOOD: usize = 64 << 20;
    let child = Child::with(&["--listen", ANY_PORT, "--workers", "1", "--no-access-log"], |_| ());
    for target in ["/axum/ws", "/actix/ws", "/actix/actor-ws", "/warp/ws"] {
        let mut wire = child.wire();
        open(&mut wire, target);
        let mut others = child.wire();
        let (before, _) = child.memory();
        let (done, over) = mpsc::channel();
        let flood = thread::spawn(move || {
            let pongs = frame(LAST | PONG, &[]).repeat(10_000);
            let mut sent = 0;
            // Until it has had enough of us, or we of it.
            while sent < FLOOD && over.try_recv().is_err() && wire.try_send(&pongs).is_ok() {
                sent += pongs.len();
            }
            wire.abort();
        });
        for n in 0..50 {
            let answer = others.ask(get(&format!("/axum/hello/{n}")));
            assert_eq!(answer.text(), format!("Hello, {n}!\n"), "{target}");
        }
        let (_, most) = child.memory();
        // It may have said all that it had.
        let _ = done.send(());
        flood.join().unwrap();
        assert!(most < before + (4 << 10), "{target} keeps what it is told: {before} KiB, then {most} KiB");
    }
}

#[test]
fn who_hears_nothing_is_not_listened_to_for_ever() {
    let site = site();
    for target in ECHOES {
        let mut wire = site.wire();
        open(&mut wire, target);
        let (client, server) = (wire.socket().local_addr().unwrap(), wire.socket().peer_addr().unwrap());
        wire.socket().set_nonblocking(true).unwrap();
        // Until the sockets are full both ways: what is sent stays with the server's kernel.
        let full = frame(LAST | BINARY, &vec![7; 60_000]);
        let mut sent = 0;
        crate::site::eventually("it is no longer listened to", || {
            let more = wire.try_send(&full);
            sent += usize::from(more.is_ok());
            assert!(sent < 2_000, "{target}: 120 MB were taken");
            (more.is_err() && unread(server, client) > 0).then_some(())
        });
        wire.abort();
    }
}

/// Who has not taken an answer yet and asks for a websocket behind it. The rest of a request may come after
/// the answer to it was begun, and then the next request is read before that answer was written.
#[test]
fn who_asks_behind_a_large_answer_gets_both() {
    const LARGE: usize = 32 << 20;
    let bulk = axum::Router::new().fallback(async |body: axum::body::Body| {
        drop(tokio::spawn(axum::body::to_bytes(body, LARGE)));
        vec![7_u8; LARGE]
    });
    let site = Site::start(apps_everywhere().mount("/bulk", mount::axum(bulk)).drain(secs(3_600)));
    let targets = ["/axum/ws", "/actix/ws", "/warp/ws", "/actix-own/ws"];
    let mut wires: Vec<_> =
        targets.iter().flat_map(|target| [(*target, site.wire()), (*target, site.tls_wire())]).collect();
    for (target, wire) in &mut wires {
        // Until its answers are taken for small ones, which are kept and written together.
        for _ in 0..8 {
            assert_eq!(wire.ask(get("/axum/hello/x")).status, 200);
        }
        let request = [post("/bulk", "0123456789"), ask(target)].concat();
        let (begun, rest) = request.split_at(post("/bulk", "0123456789").len() - 5);
        wire.send(begun);
        let head = wire.head();
        assert!(head.starts_with("HTTP/1.1 200 "), "{target}: {head}");
        wire.send(rest);
        wire.until_read();
        assert!(wire.take(LARGE) == vec![7; LARGE], "{target}");
        let head = wire.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{target}: {head}");
        echoes(wire, TEXT, b"hello", target);
    }
    // Where its messages end is known as well.
    site.stop();
    for (target, wire) in &mut wires {
        assert_eq!(next(wire), (LAST | CLOSE, 1_001_u16.to_be_bytes().to_vec()), "{target}");
    }
    site.stopped();
}

/// Asks for a websocket by extended CONNECT (RFC 8441).
pub(crate) fn connect(http2: &Http2, target: &str) -> TokioIo<Upgraded> {
    let mut request = http2.request(Method::CONNECT, target, &[("sec-websocket-version", "13")], "");
    let _ = request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
    let response = http2.wait(http2.begin(request)).unwrap();
    assert_eq!(response.status(), 200, "{target}");
    TokioIo::new(http2.wait(hyper::upgrade::on(response)).unwrap())
}

#[test]
fn a_quiet_websocket_is_not_idle_over_http1_or_http2_until_it_is_over() {
    let site = Site::start(apps_everywhere().limits(limits(|limits| limits.idle = secs(1))));
    let mut wires = everywhere(&site);
    wires.iter_mut().for_each(|wire| open(wire, "/axum/ws"));
    let both = [site.http2(), site.tls_http2()];
    let mut streams: Vec<_> = both.iter().map(|http2| connect(http2, "/axum/ws")).collect();
    // Others that are idle and end, twice: by then each of these was quiet for longer.
    for _ in 0..2 {
        let others = [site.http2(), site.tls_http2()];
        assert!(others.iter().all(|http2| http2.get("/axum/hello/x").status == 200));
        others.into_iter().for_each(Http2::ended);
    }
    wires.iter_mut().for_each(|wire| echoes(wire, TEXT, b"still here", "/axum/ws"));
    for (http2, stream) in both.iter().zip(&mut streams) {
        http2.wait(stream.write_all(&frame(LAST | TEXT, b"still here"))).unwrap();
        let mut heard = [0; 12];
        let _ = http2.wait(stream.read_exact(&mut heard)).unwrap();
        assert_eq!(heard, *b"\x81\x0astill here");
    }
    drop(streams);
    both.into_iter().for_each(Http2::ended);
}

#[test]
fn over_http2_axum_has_websockets_and_the_others_say_that_they_have_none() {
    let site = site();
    for (target, expected) in [("/axum/ws", 200..=200), ("/actix/ws", 400..=501), ("/warp/ws", 400..=501)] {
        for http2 in [site.http2(), site.tls_http2()] {
            let headers = [("sec-websocket-version", "13")];
            let mut request = http2.request(Method::CONNECT, target, &headers, "");
            let _ = request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
            let status = http2.wait(http2.begin(request)).unwrap().status().as_u16();
            assert!(expected.contains(&status), "{target}: {status}");
            // The others on the connection do not notice.
            assert_eq!(http2.get("/axum/hello/x").text(), "Hello, x!\n", "{target}");
        }
    }
}
