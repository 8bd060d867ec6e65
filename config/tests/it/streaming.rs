//! What comes bit by bit, both ways: uploads of any size, and what is said after a body.

use bytes::Bytes;
use combo::{Deployment, mount};
use http::{HeaderMap, HeaderValue, Method};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};

use crate::{
    child::Child,
    site::{ANY_PORT, ANY_TLS_PORT, FRAMEWORKS, Site, three},
    wire::{get, post},
};

const BOUNDARY: &str = "4f2a";

/// The head of a part of a form.
fn part(name: &str) -> String {
    format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n")
}

#[test]
fn a_form_with_files_is_taken_apart_by_every_framework() {
    let site = Site::start(three().listen(ANY_TLS_PORT));
    let body =
        [&part("small"), "abc\r\n", &part("large"), &"x".repeat(300_000), "\r\n--", BOUNDARY, "--\r\n"];
    let body = body.concat();
    for framework in FRAMEWORKS {
        let kind = format!("content-type: multipart/form-data; boundary={BOUNDARY}\r\n");
        let request =
            post(&format!("/{framework}/upload"), &body).replacen("\r\n", &format!("\r\n{kind}"), 1);
        for mut wire in [site.wire(), site.tls_wire()] {
            let parts = wire.ask(&request).json();
            let expected =
                serde_json::json!([{"name": "small", "size": 3}, {"name": "large", "size": 300_000}]);
            assert_eq!(parts, expected, "{framework}");
        }
        // One that does not end is no form, and the next one is.
        let torn = request.replace("--4f2a--", "--4f2a  ");
        let answer = site.wire().ask(torn);
        assert!((400..500).contains(&answer.status), "{framework}: {answer:?}");
    }
}

#[test]
fn uploads_of_any_size_take_no_more_memory() {
    const PIECE: usize = 1 << 20;
    const PIECES: usize = 256;
    for framework in FRAMEWORKS {
        let child = Child::start();
        let mut wire = child.wire();
        let head = format!(
            "POST /{framework}/upload HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\
             content-type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
        );
        let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        let begins = chunk(part("file").as_bytes());
        wire.send([head.as_bytes(), &begins].concat());
        let piece = chunk(&vec![b'x'; PIECE]);
        // What it takes to get going is taken by then.
        (0..8).for_each(|_| wire.send(&piece));
        let (before, _) = child.memory();
        (8..PIECES).for_each(|_| wire.send(&piece));
        let (_, most) = child.memory();
        wire.send([&chunk(format!("\r\n--{BOUNDARY}--\r\n").as_bytes()), &b"0\r\n\r\n"[..]].concat());
        let parts = wire.answer().json();
        assert_eq!(parts, serde_json::json!([{"name": "file", "size": PIECE * PIECES}]), "{framework}");
        assert!(most < before + 8 * 1_024, "{framework}: {before} KiB, then {most} KiB");
    }
}

#[test]
fn answers_of_all_sizes_take_turns_on_a_connection() {
    let site = Site::start(three().listen(ANY_TLS_PORT));
    for framework in FRAMEWORKS {
        for mut wire in [site.wire(), site.tls_wire()] {
            // Small ones are written in another way than large ones, and it changes in between.
            for size in [0, 1, 9, 200_000, 5, 5, 5, 5, 5, 300_000, 5, 5, 5, 5, 40_000, 70_000, 1] {
                let body = "x".repeat(size);
                let answer = wire.ask(post(&format!("/{framework}/echo"), &body));
                assert_eq!((answer.text(), answer.whole), (&*body, true), "{framework} {size}");
            }
            // Also where the next request is half there before the last one is answered.
            let asked = get(&format!("/{framework}/hello/x"));
            let (first, rest) = asked.split_at(20);
            for _ in 0..6 {
                wire.send(asked.clone() + first);
                assert_eq!(wire.answer().text(), "Hello, x!\n", "{framework}");
                wire.send(rest);
                assert_eq!(wire.answer().text(), "Hello, x!\n", "{framework}");
            }
        }
    }
}

#[test]
fn what_is_said_after_a_body_arrives() {
    let own = mount::axum(hello_axum::app()).own_threads(1);
    let site = Site::start(three().listen(ANY_TLS_PORT).mount("/own", own));
    for mount in ["/axum", "/own"] {
        let request = format!("GET {mount}/trailers HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n");
        for mut wire in [site.wire(), site.tls_wire()] {
            wire.send(&request);
            wire.until("\r\n0\r\nx-length: 17\r\n\r\n");
        }
        // Who does not want them gets an answer without.
        let answer = site.wire().ask(request.replace("te: trailers\r\n", ""));
        assert_eq!((answer.text(), answer.whole), ("see the trailers\n", true), "{mount}");
        for http2 in [site.http2(), site.tls_http2()] {
            let request = http2.request(Method::GET, &format!("{mount}/trailers"), &[], "");
            let answer = http2.wait(async { http2.begin(request).await.unwrap().collect().await.unwrap() });
            assert_eq!(
                answer.trailers().and_then(|trailers| trailers.get("x-length")).unwrap(),
                "17",
                "{mount}"
            );
            assert_eq!(answer.to_bytes(), "see the trailers\n", "{mount}");
        }
        // Both ways.
        let http2 = site.http2();
        let said = HeaderMap::from_iter([("x-after".parse().unwrap(), HeaderValue::from_static("all"))]);
        let frames = [Frame::data(Bytes::from_static(b"body")), Frame::trailers(said)];
        let frames = futures_util::stream::iter(frames.map(Ok::<_, std::convert::Infallible>));
        let request = http2.request(Method::POST, &format!("{mount}/echo"), &[], "");
        let request = request.map(|_| StreamBody::new(frames).boxed());
        let answer = http2.wait(async { http2.begin(request).await.unwrap().collect().await.unwrap() });
        assert_eq!(answer.trailers().and_then(|trailers| trailers.get("x-after")).unwrap(), "all", "{mount}");
    }
}

#[test]
fn what_is_said_after_a_body_of_a_known_length_arrives() {
    let app = |length: usize| {
        let answer = move || async move {
            let sum = HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("1"))]);
            let body = Full::new(Bytes::from(vec![b'x'; length]));
            axum::body::Body::new(body.with_trailers(std::future::ready(Some(Ok(sum)))))
        };
        mount::axum(axum::Router::new().route("/", axum::routing::get(answer)))
    };
    for length in [0, 1, 5_000, 100_000] {
        let deployment = Deployment::new("sized").listen(ANY_PORT).listen(ANY_TLS_PORT);
        let deployment = deployment.mount("/worker", app(length)).mount("/own", app(length).own_threads(1));
        let site =
            Site::start(deployment.mount("/layered", app(length).layer(tower::layer::util::Identity::new())));
        for (mount, http2) in ["/worker", "/own", "/layered"]
            .into_iter()
            .flat_map(|mount| [(mount, site.http2()), (mount, site.tls_http2())])
        {
            let request = http2.request(Method::GET, mount, &[], "");
            let answer = http2.wait(async { http2.begin(request).await.unwrap().collect().await.unwrap() });
            let sum = answer.trailers().and_then(|trailers| trailers.get("x-sum")).cloned();
            assert_eq!(sum.unwrap(), "1", "{mount} {length}");
            assert_eq!(answer.to_bytes().len(), length, "{mount} {length}");
        }
    }
}
