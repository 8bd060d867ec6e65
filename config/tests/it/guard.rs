//! The guard: bytes that no app may see. The same verdict at every mount, the app not reached, and
//! nothing that comes after them taken for a request.

use combo::{Deployment, mount};
use http::Method;
use serde_json::json;

use crate::{
    mirror::{Reached, mirror},
    site::{ANY_PORT, ANY_TLS_PORT, FRAMEWORKS, Site, three},
    wire::{Wire, post},
};

/// Three mirrors that count.
fn counted(unstripped: bool) -> (Site, Vec<Reached>) {
    let reached: Vec<Reached> = FRAMEWORKS.iter().map(|_| Reached::default()).collect();
    let mut deployment = Deployment::new("guarded").listen(ANY_PORT).listen(ANY_TLS_PORT).workers(1);
    for (framework, reached) in FRAMEWORKS.iter().zip(&reached) {
        let target = mirror(framework, reached);
        deployment =
            deployment.mount(format!("/{framework}"), if unstripped { target.unstripped() } else { target });
    }
    (Site::start(deployment), reached)
}

/// What would be answered if what is sent before it were not refused.
fn second(framework: &str) -> String {
    format!("GET /{framework}/second HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// `/P` stands for the mount.
fn filled(template: &str, framework: &str) -> String {
    template.replace("/P", &format!("/{framework}"))
}

/// A head, and the status of its one answer.
const REFUSED: &[(&str, u16)] = &[
    // A request names exactly one valid host.
    ("GET /P HTTP/1.1\r\n\r\n", 400),
    ("POST /P HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("GET /P HTTP/1.1\r\nHost: test\r\nHost: test\r\n\r\n", 400),
    ("GET /P HTTP/1.1\r\nHost: test\r\nX: y\r\nhost: other\r\n\r\n", 400),
    ("GET /P HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("GET /P HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("GET /P HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
    ("GET /P HTTP/1.1\r\nHost: user@test\r\n\r\n", 400),
    ("GET /P HTTP/1.1\r\nHost: test/P\r\n\r\n", 400),
    ("GET /P HTTP/1.1\r\nHost: http://test\r\n\r\n", 400),
    ("GET /P HTTP/1.1\r\nHost: test:port\r\n\r\n", 400),
    ("GET /P HTTP/1.1\r\nHost: test:123456\r\n\r\n", 400),
    ("GET /P HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    ("GET /P HTTP/1.1\r\nHost: t%65st\r\n\r\n", 400),
    // Which agrees with the target.
    ("GET http://other/P HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    ("GET http://test:81/P HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    ("GET http://user@test/P HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    ("GET http://test/P HTTP/1.1\r\nHost: test\r\nHost: test\r\n\r\n", 400),
    // A body has one length, which is a number, or is `chunked`.
    (
        "POST /P HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST /P HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST /P HTTP/1.1\r\nTransfer-Encoding: CHUNKED\r\nHost: test\r\ncontent-LENGTH:0\r\n\r\n0\r\n\r\n",
        400,
    ),
    // Empty lines before a request are skipped.
    (
        "\r\n\nPOST /P HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("POST /P HTTP/1.1\nHost: test\nTransfer-Encoding: chunked\nContent-Length: 5\n\n0\r\n\r\n", 400),
    ("POST /P HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    (
        "POST /P HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("POST /P HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST /P HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    ("POST /P HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400),
    ("POST /P HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    ("POST /P HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    ("POST /P HTTP/1.0\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST /P HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
    ("POST /P HTTP/1.1\r\nHost: test\r\nContent-Length: +1\r\n\r\nx", 400),
    ("POST /P HTTP/1.1\r\nHost: test\r\nContent-Length: -1\r\n\r\nx", 400),
    ("POST /P HTTP/1.1\r\nHost: test\r\nContent-Length: 1, 2\r\n\r\nx", 400),
    ("POST /P HTTP/1.1\r\nHost: test\r\nContent-Length: 0x1\r\n\r\nx", 400),
    ("POST /P HTTP/1.1\r\nHost: test\r\nContent-Length:\r\n\r\nx", 400),
    ("POST /P HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999999999999999\r\n\r\nx", 400),
    // A path does not go up.
    ("GET /P/.. HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    ("GET /P/../P HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    ("GET /../P HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    ("GET /x/../P/y HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    ("GET /P/%2e%2e/y HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    ("GET /P/%2E./y?z HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    ("GET /P/.%2e HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    ("GET http://test/P/../y HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    // A target is ASCII, and what is not is percent-encoded.
    ("GET /P/é HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    ("GET /P?é HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    ("GET http://test/P/é HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    ("GET /P/\u{80} HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    ("GET /P/\x01 HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    ("GET /P?\x1f HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    ("GET /P/\x7f HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    // A head is a head.
    ("GET /P HTTP/1.1\r\nHost: test\r\nX: a\r\n b\r\n\r\n", 400),
    ("GET /P HTTP/1.1\r\nHost: test\r\n X: a\r\n\r\n", 400),
    ("GET /P HTTP/1.1\r\nHost : test\r\n\r\n", 400),
    ("POST /P HTTP/1.1\r\nHost: test\r\nContent-Length : 5\r\n\r\nhello", 400),
    ("GET /P HTTP/1.1\r\nHost: test\r\nX: a\0b\r\n\r\n", 400),
    ("GET /P\0 HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    ("GET /P HTTP/1.1\r\nHost: test\r\nX: a\rb\r\n\r\n", 400),
    ("GET /P HTTP/1.1\r\nHost: test\r\nX(y): a\r\n\r\n", 400),
    ("GET /P HTTP/1.1\r\nHost: test\r\nX\r\n\r\n", 400),
    ("GET /P HTTP/1.1\r\nHost: test\r\n: y\r\n\r\n", 400),
    ("GET /P x HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    ("GET /P HTTP/3.7\r\nHost: test\r\n\r\n", 400),
    ("GET P HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    ("G@T /P HTTP/1.1\r\nHost: test\r\n\r\n", 400),
];

#[test]
fn what_no_app_may_see_is_refused_at_every_mount() {
    let (site, reached) = counted(false);
    for (framework, reached) in FRAMEWORKS.iter().zip(&reached) {
        for (template, status) in REFUSED {
            let mut wire = site.wire();
            wire.send(filled(template, framework) + &second(framework));
            let answer = wire.answer();
            assert_eq!(answer.status, *status, "{framework}: {template:?}: {answer:?}");
            let (rest, _) = wire.rest();
            assert_eq!(String::from_utf8_lossy(&rest), "", "{framework}: {template:?} ends the connection");
            assert_eq!(reached.count(), 0, "{framework} was reached by {template:?}");
        }
        // And this is how it is when nothing is refused.
        let answer = site.wire().ask(second(framework));
        assert_eq!((answer.status, reached.count()), (200, 1));
    }
}

#[test]
fn two_lengths_are_found_however_they_are_cut() {
    let (site, reached) = counted(false);
    let (length, encoding) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    for (framework, reached) in FRAMEWORKS.iter().zip(&reached) {
        for lines in [[length, encoding], [encoding, length]] {
            let head = format!("POST /{framework} HTTP/1.1\r\nHost: test\r\n{}\r\n", lines.concat());
            for at in 1..head.len() {
                let mut wire = site.wire();
                wire.send(&head[..at]);
                wire.until_read();
                wire.send(&head[at..]);
                let answer = wire.answer();
                assert_eq!(
                    (answer.status, reached.count()),
                    (400, 0),
                    "{framework}, cut at {at}: {answer:?}"
                );
            }
        }
    }
}

#[test]
fn a_head_is_looked_at_by_itself_wherever_it_stands() {
    let (site, reached) = counted(false);
    for (framework, reached) in FRAMEWORKS.iter().zip(&reached) {
        let target = format!("/{framework}");
        let head = |lines: &str| format!("POST {target} HTTP/1.1\r\nHost: test\r\n{lines}\r\n");
        let plain = format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n");
        let length = head("Content-Length: 19\r\n") + "content-length: 1\r\n";
        let chunked = head("Transfer-Encoding: chunked\r\n") + "13\r\ncontent-length: 1\r\n\r\n0\r\n\r\n";
        let trailer = head("Transfer-Encoding: chunked\r\n") + "0\r\ncontent-length: 1\r\n\r\n";
        let both = head("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n") + "0\r\n\r\n";
        let good = [&plain, &length, &chunked, &trailer];
        for first in good {
            for second in good {
                let before = reached.count();
                // In one packet, one after the other, and cut where the second begins.
                let mut wire = site.wire();
                wire.send(format!("{first}{second}"));
                assert_eq!((wire.answer().status, wire.answer().status), (200, 200), "{first}{second}");
                assert_eq!((wire.ask(first).status, wire.ask(second).status), (200, 200), "{first}{second}");
                assert_eq!(reached.count(), before + 4);
            }
            // Alone it is refused.
            let before = reached.count();
            let mut wire = site.wire();
            assert_eq!((wire.ask(first).status, wire.ask(&both).status), (200, 400), "{first}{both}");
            assert_eq!((wire.rest().0, reached.count()), (Vec::new(), before + 1), "{first}{both}");
            // In one packet with another the length may be overlooked: then the encoding counts, the
            // app sees no length, and the connection ends (RFC 9112, section 6.3).
            let mut wire = site.wire();
            wire.send(format!("{first}{both}{plain}"));
            assert_eq!(wire.answer().status, 200, "{first}{both}");
            let answer = wire.answer();
            if answer.status == 200 {
                assert_eq!(answer.json()["length"], json!(null), "{first}{both}");
            } else {
                assert_eq!(answer.status, 400, "{first}{both}");
            }
            assert_eq!(wire.rest().0, b"", "{first}{both}");
        }
    }
}

#[test]
fn heads_have_a_size() {
    let (site, reached) = counted(false);
    let header = |length: usize| format!("X: {}\r\n", "x".repeat(length));
    let many = |count: usize| (0..count).map(|n| format!("X{n}: y\r\n")).collect::<String>();
    for (framework, reached) in FRAMEWORKS.iter().zip(&reached) {
        let head = |lines: &str| format!("GET /{framework} HTTP/1.1\r\nHost: test\r\n{lines}\r\n");
        let full = format!("GET /{framework} HTTP/1.1\r\nHost: test\r\nX: ");
        let full = format!("{full}{}", "x".repeat((64 << 10) - full.len()));
        for (name, request) in [
            ("64 KiB without an end", full),
            ("a header of a mebibyte", head(&header(1 << 20))),
            ("1,000 headers of 1 KiB", head(&header(1 << 10).repeat(1_000))),
            ("101 headers", head(&many(100))),
            ("a target of 64 KiB", format!("GET /{framework}/{}", "x".repeat((64 << 10) - 10))),
        ] {
            let answer = site.wire().ask(&request);
            assert_eq!((answer.status, reached.count()), (431, 0), "{framework}: {name}: {answer:?}");
        }
        for (name, lines) in [("60 KiB", header(60 << 10)), ("100 headers", many(99))] {
            let before = reached.count();
            assert_eq!(site.wire().ask(head(&lines)).status, 200, "{framework}: {name}");
            assert_eq!(reached.count(), before + 1);
        }
        let before = reached.count();
        let client = site.http2();
        for (length, status) in [(60 << 10, 200), (64 << 10, 431)] {
            let value = "x".repeat(length);
            let request = client.request(Method::GET, &format!("/{framework}"), &[("x", &value)], "");
            assert_eq!(
                client.try_ask(request).map_or(431, |answer| answer.status),
                status,
                "{framework}: {length}"
            );
        }
        assert_eq!(reached.count(), before + 1);
    }
}

/// Bodies whose chunks are none.
#[test]
fn a_bad_chunk_ends_the_body_and_the_connection() {
    let site = Site::start(three());
    for framework in FRAMEWORKS {
        for chunks in [
            "g\r\n",
            "-1\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "\r\n",
            "5\r\nhelloX\r\n0\r\n\r\n",
            "5\rhello\r\n0\r\n\r\n",
            "5 5\r\nhello\r\n0\r\n\r\n",
            "ffffffffffffffff1\r\n",
            "fffffffffffffffff\r\n",
            "5;a\nb\r\nhello\r\n0\r\n\r\n",
            "0\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            let mut wire = site.wire();
            let head = format!(
                "POST /{framework}/sink HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
            );
            wire.send(head + chunks);
            let _ = wire.try_send(format!("GET /{framework}/hello/second HTTP/1.1\r\nHost: test\r\n\r\n"));
            if let Some(answer) = wire.try_answer() {
                assert_ne!(answer.status, 200, "{framework}: {chunks:?}: {answer:?}");
            }
            let (rest, _) = wire.rest();
            assert_eq!(String::from_utf8_lossy(&rest), "", "{framework}: {chunks:?}");
        }
    }
    site.requests(0);
}

const SPOOFED: [(&str, &str); 9] = [
    ("Forwarded", "for=6.6.6.6;proto=https;host=evil.example"),
    ("X-Forwarded-For", "6.6.6.6"),
    ("x-forwarded-proto", "gopher"),
    ("X-FORWARDED-HOST", "evil.example"),
    ("X-Forwarded-Port", "666"),
    ("X-Forwarded-Prefix", "/evil"),
    ("X-Forwarded-Server", "evil"),
    ("X-Forwarded-Anything", "evil"),
    ("X-Forwarded-For", "7.7.7.7"),
];

#[test]
fn only_a_proxy_could_say_what_only_a_proxy_knows() {
    for unstripped in [false, true] {
        let (site, _) = counted(unstripped);
        for framework in FRAMEWORKS {
            let target = format!("/{framework}");
            let lines: String = SPOOFED.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\n{lines}\r\n");
            let lower: Vec<_> =
                SPOOFED.iter().map(|(name, value)| (name.to_ascii_lowercase(), *value)).collect();
            let lower: Vec<_> = lower.iter().map(|(name, value)| (&**name, *value)).collect();
            let (plain, tls) = (site.http2(), site.tls_http2());
            for (scheme, seen) in [
                ("http", site.wire().ask(&request)),
                ("https", site.tls_wire().ask(&request)),
                ("http", plain.ask(plain.request(Method::GET, &target, &lower, ""))),
                ("https", tls.ask(tls.request(Method::GET, &target, &lower, ""))),
            ] {
                let seen = seen.json();
                let (prefix, proxied) = if unstripped {
                    (None, json!([]))
                } else {
                    (Some(&target), json!(["x-forwarded-prefix"]))
                };
                assert_eq!(seen["proxied"], proxied, "{framework}");
                assert_eq!(seen["prefix"], json!(prefix), "{framework}");
                assert_eq!((&seen["scheme"], &seen["host"]), (&json!(scheme), &json!("test")), "{framework}");
                assert!(seen["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{seen}");
                if framework == "actix" {
                    assert_eq!((&seen["remote"], &seen["authority"]), (&json!("127.0.0.1"), &json!("test")));
                }
            }
        }
    }
}

/// What became of a stream.
#[derive(Debug, PartialEq, Eq)]
enum Became {
    Status(u16),
    Reset,
}

/// Sends one request over HTTP/2, header by header as they are said, and nothing after it.
fn http2_headers(site: &Site, headers: &[(&str, &str)]) -> Became {
    let mut block = Vec::new();
    for (name, value) in headers {
        // A literal that is not indexed, with a new name (RFC 7541, section 6.2.2).
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let mut wire: Wire = site.wire();
    wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    wire.send(frame(4, 0, 0, &[]));
    wire.send(frame(1, 0x5, 1, &block));
    loop {
        let head = wire.take(9);
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = wire.take(length);
        match (head[3], head[8]) {
            // HEADERS; these statuses have a place in the static table (RFC 7541, appendix A).
            (1, 1) => {
                let known = [(0x88, 200), (0x8c, 400), (0x8d, 404), (0x8e, 500)];
                let status = known.iter().find(|(index, _)| *index == payload[0]);
                return Became::Status(status.unwrap_or_else(|| panic!("another status: {payload:?}")).1);
            }
            // RST_STREAM, GOAWAY.
            (3, 1) | (7, _) => return Became::Reset,
            _ => {}
        }
    }
}

#[test]
fn http2_is_guarded_alike() {
    let (site, reached) = counted(false);
    for (framework, reached) in FRAMEWORKS.iter().zip(&reached) {
        let path = format!("/{framework}");
        let plain = [(":method", "GET"), (":scheme", "http"), (":path", &*path)];
        let with = |more: &[(&'static str, &'static str)]| [&plain[..], more].concat();
        let up = [(":method", "GET"), (":scheme", "http"), (":authority", "test")];
        let (inside, encoded) = (format!("{path}/../x"), format!("{path}/%2E%2e"));
        let test = (":authority", "test");
        for (headers, became) in [
            (with(&[]), Became::Status(400)),
            (with(&[("host", "test"), ("host", "test")]), Became::Status(400)),
            (with(&[test, ("host", "other")]), Became::Status(400)),
            (with(&[test, ("host", "test"), ("host", "test")]), Became::Status(400)),
            (with(&[(":authority", "user@test")]), Became::Status(400)),
            (with(&[test, ("host", "")]), Became::Status(400)),
            ([&up[..], &[(":path", &*inside)]].concat(), Became::Status(400)),
            ([&up[..], &[(":path", &*encoded)]].concat(), Became::Status(400)),
            ([&up[..], &[(":path", "")]].concat(), Became::Reset),
            (with(&[test, (":path", "/x")]), Became::Reset),
            (with(&[test, ("X", "y")]), Became::Reset),
            (with(&[test, ("connection", "close")]), Became::Reset),
            (with(&[test, ("transfer-encoding", "chunked")]), Became::Reset),
            (with(&[test, ("te", "gzip")]), Became::Reset),
            (with(&[test, ("x", "a\r\nhost: b")]), Became::Reset),
            (with(&[test, ("x", "y"), (":scheme", "http")]), Became::Reset),
        ] {
            assert_eq!(http2_headers(&site, &headers), became, "{framework}: {headers:?}");
            assert_eq!(reached.count(), 0, "{framework} was reached by {headers:?}");
        }
        for headers in [with(&[test]), with(&[("host", "test")]), with(&[test, ("host", "test")])] {
            assert_eq!(http2_headers(&site, &headers), Became::Status(200), "{headers:?}");
        }
        // The scheme is the socket's, whatever is said.
        let client = site.http2();
        let seen = client.get(&format!("https://test{path}")).json();
        assert_eq!(
            (&seen["scheme"], &seen["original"]),
            (&json!("http"), &json!(format!("http://test{path}")))
        );
    }
}

#[test]
fn a_body_is_as_long_as_it_says_over_http2() {
    let site = Site::start(three());
    for framework in FRAMEWORKS {
        let client = site.http2();
        for (length, taken) in [("5", true), ("4", false), ("6", false), ("x", false)] {
            let target = format!("/{framework}/sink");
            let request = client.request(Method::POST, &target, &[("content-length", length)], "hello");
            let answer = client.try_ask(request);
            let counted = answer.as_ref().is_ok_and(|answer| answer.status == 200 && answer.text() == "5");
            assert_eq!(counted, taken, "{framework}: {length}: {answer:?}");
            assert!(taken || !answer.is_ok_and(|answer| answer.status == 200), "{framework}: {length}");
        }
    }
    site.requests(0);
}

#[test]
fn a_redirect_is_guarded_as_well() {
    let site = Site::start(Deployment::new("redirect").listen(ANY_PORT).mount("/", mount::redirect("/new")));
    for head in ["GET /x HTTP/1.1\r\n\r\n", "GET /x/../y HTTP/1.1\r\nHost: test\r\n\r\n"] {
        assert_eq!(site.wire().ask(head).status, 400);
    }
}

/// Empty lines may come alone between two requests, and must not be taken for a head.
#[test]
fn empty_lines_hide_nothing_and_spoil_nothing() {
    let site = Site::start(three());
    let both = "POST /P/sink HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let chunked =
        "POST /P/sink HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    for framework in FRAMEWORKS {
        for (request, status) in [(both, 400), (chunked, 200)] {
            let mut wire = site.wire();
            let first = wire.ask(post(&format!("/{framework}/sink"), "hello"));
            assert_eq!((first.status, first.text()), (200, "5"), "{framework}");
            wire.send("\r\n\r\n");
            wire.until_read();
            assert_eq!(wire.ask(filled(request, framework)).status, status, "{framework}: {request}");
        }
    }
}
