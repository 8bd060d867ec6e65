//! What a mount is said to take, and the layers around it.

use std::{
    convert::Infallible,
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use axum::{
    response::{AppendHeaders, Redirect},
    routing,
};
use bytes::Bytes;
use combo::{BoxError, Deployment, RequestBody, ResponseBody, mount, mount::Target, secs};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use tower::{ServiceBuilder, buffer::BufferLayer};
use tower_http::{
    compression::{CompressionLayer, predicate::SizeAbove},
    cors::CorsLayer,
    decompression::RequestDecompressionLayer,
    limit::RequestBodyLimitLayer,
    map_request_body::MapRequestBodyLayer,
    normalize_path::NormalizePathLayer,
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
    sensitive_headers::SetSensitiveHeadersLayer,
    set_header::SetResponseHeaderLayer,
    trace::TraceLayer,
    validate_request::ValidateRequestHeaderLayer,
};

use crate::{
    lines::log,
    site::{ANY_PORT, ANY_TLS_PORT, FRAMEWORKS, Site, three},
    websocket::{TEXT, echoes, open},
    wire::{Wire, get, post},
};

/// The app of a framework.
fn hello(framework: &str) -> Target {
    match framework {
        "axum" => mount::axum(hello_axum::app()),
        "actix" => mount::actix(hello_actix::app),
        _ => mount::tower(warp::service(hello_warp::routes())),
    }
}

/// The three apps with something said of each.
fn each(say: impl Fn(Target) -> Target) -> Deployment {
    let base = Deployment::new("options").listen(ANY_PORT).listen(ANY_TLS_PORT).workers(2);
    FRAMEWORKS
        .iter()
        .fold(base, |deployment, framework| deployment.mount(format!("/{framework}"), say(hello(framework))))
}

fn marked(value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::appending(HeaderName::from_static("x-layer"), HeaderValue::from_static(value))
}

#[test]
fn layers_are_around_each_framework_and_change_nothing_else() {
    let plain = Site::start(each(|target| target));
    let layered = Site::start(each(|target| {
        target
            .layer(marked("inner"))
            .layer(TraceLayer::new_for_http())
            .layer(CorsLayer::permissive())
            .layer(PropagateRequestIdLayer::x_request_id())
            .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
            .layer(SetSensitiveHeadersLayer::new([http::header::AUTHORIZATION]))
            .layer(RequestDecompressionLayer::new())
            .layer(RequestBodyLimitLayer::new(1 << 20))
            .layer(marked("outer"))
    }));
    for framework in FRAMEWORKS {
        let where_am_i = get(&format!("/{framework}/where?a=b"));
        for tls in [false, true] {
            let open = |site: &Site| if tls { site.tls_wire() } else { site.wire() };
            let (mut expected, mut seen) = (open(&plain), open(&layered));
            // Each connection has a port of its own.
            let strip = |json: serde_json::Value| {
                let mut json = json;
                let peer = json["peer"].take();
                assert!(peer.as_str().is_some_and(|peer| peer.starts_with("127.0.0.1")), "{peer}");
                json
            };
            let answer = seen.ask(&where_am_i);
            assert_eq!(answer.header("x-layer"), Some("inner"), "{framework}");
            assert!(answer.header("x-request-id").is_some(), "{framework}");
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{framework}");
            assert_eq!(strip(answer.json()), strip(expected.ask(&where_am_i).json()), "{framework} {tls}");
            for target in ["/", "/hello/x", "/none"] {
                let target = get(&format!("/{framework}{target}"));
                let (seen, expected) = (seen.ask(&target), expected.ask(&target));
                assert_eq!((seen.status, seen.text()), (expected.status, expected.text()), "{framework}");
            }
        }
        let mut wire = layered.wire();
        assert_eq!(wire.ask(post(&format!("/{framework}/echo"), "all of it")).text(), "all of it");
        let events = wire.ask(get(&format!("/{framework}/stream")));
        assert_eq!((events.text().matches("data: ").count(), events.whole), (10, true), "{framework}");
        // A panic is still one 500, and what layers add to every answer is on it, too.
        let panicked = wire.ask(get(&format!("/{framework}/panic")));
        assert_eq!((panicked.status, panicked.text()), (500, "internal server error\n"), "{framework}");
        assert_eq!(panicked.header("x-layer"), Some("inner"), "{framework}");
        assert_eq!(panicked.header("access-control-allow-origin"), Some("*"), "{framework}");
        assert_eq!(layered.http2().get(&format!("/{framework}/hello/x")).text(), "Hello, x!\n");
    }
}

#[test]
fn a_layer_may_answer_by_itself() {
    #[expect(clippy::result_large_err, reason = "that is what the layer takes")]
    let known = |request: &mut Request<RequestBody>| match request.headers().get("authorization") {
        Some(token) if token == "Bearer secret" => Ok(()),
        _ => Err(Response::builder().status(401).body(ResponseBody::default()).unwrap()),
    };
    let site = Site::start(each(|target| target.layer(ValidateRequestHeaderLayer::custom(known))));
    for framework in FRAMEWORKS {
        let mut wire = site.wire();
        assert_eq!(wire.ask(get(&format!("/{framework}/hello/x"))).status, 401, "{framework}");
        let request =
            format!("GET /{framework}/hello/x HTTP/1.1\r\nhost: a\r\nauthorization: Bearer secret\r\n\r\n");
        assert_eq!(wire.ask(request).text(), "Hello, x!\n", "{framework}");
    }
}

#[test]
fn what_asks_for_services_that_can_be_sent_gets_them() {
    use axum::{extract::Request, middleware::Next};
    let greet = axum::middleware::from_fn(|request: Request, next: Next| async move {
        let mut response = next.run(request).await;
        let _ = response.headers_mut().insert("x-layer", HeaderValue::from_static("axum's own"));
        response
    });
    // axum's own middleware wants axum's own bodies.
    let bodies = MapRequestBodyLayer::new(axum::body::Body::new);
    let both = ServiceBuilder::new().layer(BufferLayer::new(8)).layer(bodies).layer(greet);
    let site = Site::start(each(|target| target.layer(both.clone())));
    for framework in FRAMEWORKS {
        let mut wire = site.wire();
        let answer = wire.ask(get(&format!("/{framework}/hello/x")));
        assert_eq!((answer.text(), answer.header("x-layer")), ("Hello, x!\n", Some("axum's own")));
        let events = wire.ask(get(&format!("/{framework}/stream")));
        assert_eq!((events.text().matches("data: ").count(), events.whole), (10, true), "{framework}");
    }
}

#[test]
fn answers_are_compressed_and_decompress_to_what_they_were() {
    let layer = CompressionLayer::new().compress_when(SizeAbove::new(1));
    let site = Site::start(each(|target| target.layer(layer.clone())));
    for framework in FRAMEWORKS {
        let request =
            format!("GET /{framework}/hello/x HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n");
        let answer = site.wire().ask(request);
        assert_eq!(answer.header("content-encoding"), Some("gzip"), "{framework}");
        let mut text = String::new();
        let _ = flate2::read::GzDecoder::new(&answer.body[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, "Hello, x!\n", "{framework}");
    }
}

#[test]
fn layers_around_the_deployment_are_around_routing() {
    let site = Site::start(
        each(|target| target)
            .mount("b.example/only", hello("axum"))
            .layer(NormalizePathLayer::trim_trailing_slash())
            .layer(marked("all")),
    );
    for framework in FRAMEWORKS {
        let mut wire = site.wire();
        let answer = wire.ask(get(&format!("/{framework}/hello/x/")));
        assert_eq!((answer.text(), answer.header("x-layer")), ("Hello, x!\n", Some("all")), "{framework}");
        let seen = wire.ask(get(&format!("/{framework}/where/"))).json();
        assert_eq!(seen["prefix"], format!("/{framework}"));
        assert_eq!((&seen["path"], &seen["scheme"]), (&"/where".into(), &"http".into()), "{framework}");
        let seen = site.tls_wire().ask(get(&format!("/{framework}/where"))).json();
        assert_eq!(seen["scheme"], "https", "{framework}");
        let mount = format!("mount=\"/{framework}\"");
        let _ = log().wait(&["access", &mount, &format!("/{framework}/hello/x/")]);
    }
    // The combo's own answers too.
    let answer = site.wire().ask(get("/nothing"));
    assert_eq!((answer.status, answer.text(), answer.header("x-layer")), (404, "not found\n", Some("all")));
    let answer = site.wire().ask("GET /only/hello/x HTTP/1.1\r\nhost: b.example\r\n\r\n");
    assert_eq!(answer.text(), "Hello, x!\n");
    let answer = site.wire().ask(get("/axum/panic"));
    assert_eq!((answer.status, answer.header("x-layer")), (500, Some("all")));
}

#[test]
fn an_answer_that_takes_too_long_is_504_and_the_app_is_dropped() {
    let site = Site::start(each(|target| target.timeout(combo::millis(50))));
    for framework in FRAMEWORKS {
        let mut wire = site.wire();
        let answer = wire.ask(get(&format!("/{framework}/slow?ms=600000")));
        assert_eq!((answer.status, answer.text()), (504, "the answer took too long\n"), "{framework}");
        assert_eq!(wire.ask(get(&format!("/{framework}/hello/x"))).status, 200, "{framework}");
        // What has begun may take its time: ten events take a second.
        let events = wire.ask(get(&format!("/{framework}/stream")));
        assert_eq!((events.text().matches("data: ").count(), events.whole), (10, true), "{framework}");
        assert_eq!(site.http2().get(&format!("/{framework}/slow?ms=600000")).status, 504, "{framework}");
    }
    site.requests(0);
}

#[test]
fn a_body_that_is_too_large_is_413_however_it_comes() {
    let site = Site::start(each(|target| target.body_limit(10)));
    for framework in FRAMEWORKS {
        let sink = format!("/{framework}/sink");
        let answer = site.wire().ask(post(&sink, "0123456789"));
        assert_eq!((answer.status, answer.text().trim()), (200, "10"), "{framework}");
        // It is refused before any of it has come.
        let declared = format!("POST {sink} HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\n");
        let answer = site.wire().ask(declared);
        assert_eq!((answer.status, answer.text()), (413, "the body is too large\n"), "{framework}");
        assert_eq!(answer.header("connection"), Some("close"), "{framework}");
        let chunks = "6\r\n012345\r\n5\r\n67890\r\n0\r\n\r\n";
        let head = format!("POST {sink} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        assert_eq!(site.wire().ask(head + chunks).status, 413, "{framework}");
        let http2 = site.http2();
        let answer = http2.ask(http2.request(Method::POST, &sink, &[], "01234567890"));
        assert_eq!(answer.status, 413, "{framework}");
        let answer = http2.ask(http2.request(Method::POST, &sink, &[], "0123456789"));
        assert_eq!(answer.status, 200, "{framework}");
    }
}

#[test]
fn one_request_too_many_in_flight_is_503_until_another_ends() {
    let site = Site::start(each(|target| target.max_in_flight(2)));
    for framework in FRAMEWORKS {
        let mut held: Vec<Wire> = (0..2)
            .map(|_| {
                let mut wire = site.wire();
                wire.send(get(&format!("/{framework}/endless")));
                wire.until("200 OK");
                wire
            })
            .collect();
        // On whatever worker.
        for _ in 0..4 {
            let answer = site.wire().ask(get(&format!("/{framework}/hello/x")));
            assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{framework}");
        }
        drop(held.pop());
        let free = || {
            let answer = site.wire().ask(get(&format!("/{framework}/hello/x")));
            (answer.status == 200).then_some(())
        };
        crate::site::eventually("there is room again", free);
    }
}

#[test]
fn a_websocket_takes_its_place_until_it_is_over() {
    let base = Deployment::new("options").listen(ANY_PORT).listen(ANY_TLS_PORT).workers(2);
    let site = Site::start(FRAMEWORKS.iter().fold(base, |deployment, framework| {
        deployment
            .mount(format!("/{framework}"), hello(framework).max_in_flight(1))
            .mount(format!("/{framework}-own"), hello(framework).own_threads(1).max_in_flight(1))
    }));
    let refused = |mount: &str| {
        let answer = site.wire().ask(get(&format!("{mount}/hello/x")));
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{mount}");
    };
    let free = |mount: &str| {
        crate::site::eventually("there is room again", || {
            (site.wire().ask(get(&format!("{mount}/hello/x"))).status == 200).then_some(())
        });
    };
    for mount in
        FRAMEWORKS.iter().flat_map(|framework| [format!("/{framework}"), format!("/{framework}-own")])
    {
        let mut socket = site.wire();
        open(&mut socket, &format!("{mount}/ws"));
        echoes(&mut socket, TEXT, b"hello", &mount);
        (0..4).for_each(|_| refused(&mount));
        echoes(&mut socket, TEXT, b"still here", &mount);
        socket.abort();
        free(&mount);
    }
    // Over HTTP/2 it is the stream that counts, however long its connection lives.
    for (mount, http2) in ["/axum", "/axum-own"]
        .into_iter()
        .flat_map(|mount| [(mount, site.http2()), (mount, site.tls_http2())])
    {
        let target = format!("{mount}/ws");
        let mut request = http2.request(Method::CONNECT, &target, &[("sec-websocket-version", "13")], "");
        let _ = request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
        let response = http2.wait(http2.begin(request)).unwrap();
        assert_eq!(response.status(), 200, "{mount}");
        let tunnel = http2.wait(hyper::upgrade::on(response)).unwrap();
        refused(mount);
        drop(tunnel);
        free(mount);
        assert_eq!(http2.get(&format!("{mount}/hello/x")).status, 200, "{mount}");
    }
}

#[test]
fn a_peer_that_asks_too_often_is_429_and_told_when_to_come_back() {
    let site = Site::start(each(|target| target.rate_limit(3, secs(3_600))));
    for framework in FRAMEWORKS {
        let statuses: Vec<_> = (0..4).map(|_| site.wire().ask(get(&format!("/{framework}/")))).collect();
        assert!(statuses[..3].iter().all(|answer| answer.status == 200), "{framework}");
        assert_eq!((statuses[3].status, statuses[3].text()), (429, "too many requests\n"), "{framework}");
        let wait: u32 = statuses[3].header("retry-after").unwrap().parse().unwrap();
        assert!((1..=1_200).contains(&wait), "{framework}: {wait}");
    }
}

#[test]
fn what_is_said_within_a_target_that_is_built_later_holds() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = asked.clone();
    let build = mount::build(move || async move {
        let _ = counting.fetch_add(1, Relaxed);
        Ok::<_, BoxError>(mount::axum(hello_axum::app()).body_limit(3).layer(marked("built")).unstripped())
    });
    let site = Site::start(Deployment::new("later").listen(ANY_PORT).mount("/", build.layer(marked("said"))));
    let answer = site.wire().ask(get("/hello/x"));
    assert_eq!((answer.text(), answer.header("x-layer")), ("Hello, x!\n", Some("built")));
    assert_eq!(site.wire().ask(post("/sink", "1234")).status, 413);
    assert_eq!(asked.load(Relaxed), 1);
}

/// An app that means its own paths, in each framework.
fn wanders(framework: &str) -> Target {
    match framework {
        "axum" => mount::axum(
            axum::Router::new()
                .route("/old", routing::get(|| async { Redirect::to("/new?a=b") }))
                .route("/login", routing::get(|| async { AppendHeaders([("set-cookie", "s=1; Path=/")]) })),
        ),
        "actix" => mount::actix(|| {
            use actix_web::{App, HttpResponse, cookie::Cookie, web};
            let login =
                || async { HttpResponse::Ok().cookie(Cookie::build("s", "1").path("/").finish()).finish() };
            App::new().service(web::redirect("/old", "/new?a=b")).route("/login", web::get().to(login))
        }),
        _ => mount::tower(tower::service_fn(|request: Request<RequestBody>| async move {
            let mut response = Response::new(Full::<Bytes>::default());
            if request.uri().path() == "/old" {
                *response.status_mut() = StatusCode::SEE_OTHER;
                let _ = response.headers_mut().insert("location", HeaderValue::from_static("/new?a=b"));
            } else {
                let _ = response.headers_mut().insert("set-cookie", HeaderValue::from_static("s=1; Path=/"));
            }
            Ok::<_, Infallible>(response)
        })),
    }
}

#[test]
fn links_that_escape_the_prefix_are_repaired() {
    for framework in FRAMEWORKS {
        let deployment = Deployment::new("links").listen(ANY_PORT).workers(1);
        let site = Site::start(
            deployment
                .mount("/a/b", wanders(framework).relink())
                .mount("/plain", wanders(framework))
                .mount("c.example/", wanders(framework).relink()),
        );
        let mut wire = site.wire();
        assert_eq!(wire.ask(get("/a/b/old")).header("location"), Some("/a/b/new?a=b"), "{framework}");
        assert_eq!(wire.ask(get("/a/b/login")).header("set-cookie"), Some("s=1; Path=/a/b"), "{framework}");
        assert_eq!(wire.ask(get("/plain/old")).header("location"), Some("/new?a=b"), "{framework}");
        let root = wire.ask("GET /old HTTP/1.1\r\nhost: c.example\r\n\r\n");
        assert_eq!(root.header("location"), Some("/new?a=b"), "{framework}");
    }
}

/// What a trusted proxy says stands before the prefix is part of it.
#[test]
fn links_are_repaired_behind_the_prefix_of_a_proxy() {
    let get = |path| format!("GET {path} HTTP/1.1\r\nhost: test\r\nx-forwarded-prefix: /outer\r\n\r\n");
    let tells = || {
        mount::axum(axum::Router::new().route(
            "/told",
            routing::get(async |headers: http::HeaderMap| {
                let prefix = headers["x-forwarded-prefix"].to_str().unwrap();
                Redirect::to(&format!("{prefix}/login"))
            }),
        ))
    };
    for framework in FRAMEWORKS {
        let deployment = Deployment::new("outer")
            .listen(ANY_PORT)
            .trusted_proxies(["127.0.0.1"])
            .proxy_headers(["x-forwarded-prefix"]);
        let site = Site::start(
            deployment
                .mount("/blog", wanders(framework).relink())
                .mount("/", wanders(framework).relink())
                .mount("/tells", tells().relink()),
        );
        let mut wire = site.wire();
        for (path, name, expected) in [
            ("/blog/old", "location", "/outer/blog/new?a=b"),
            ("/blog/login", "set-cookie", "s=1; Path=/outer/blog"),
            ("/old", "location", "/outer/new?a=b"),
            ("/tells/told", "location", "/outer/tells/login"),
        ] {
            assert_eq!(wire.ask(get(path)).header(name), Some(expected), "{framework}{path}");
        }
    }
}

#[test]
fn a_bare_prefix_gets_its_slash_where_that_is_said() {
    let site = Site::start(each(Target::slash));
    for framework in FRAMEWORKS {
        let mut wire = site.wire();
        for (target, location) in [
            (format!("/{framework}"), format!("./{framework}/")),
            (format!("/{framework}?a=b"), format!("./{framework}/?a=b")),
        ] {
            let answer = wire.ask(get(&target));
            assert_eq!((answer.status, answer.header("location")), (308, Some(&*location)), "{target}");
        }
        for target in [format!("/{framework}/"), format!("/{framework}/hello/x")] {
            assert_eq!(wire.ask(get(&target)).status, 200, "{target}");
        }
    }
}

#[test]
fn a_mount_that_nobody_layers_has_what_it_had() {
    let site = Site::start(three());
    assert_eq!(site.wire().ask(get("/axum/hello/x")).header("x-layer"), None);
}
