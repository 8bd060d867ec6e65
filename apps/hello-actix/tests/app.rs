//! What the app answers: most of it through `actix_web::test`, the rest through `HttpServer`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServerHandle, Service, ServiceResponse};
use actix_web::http::{Method, StatusCode, Uri};
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::web::Bytes;
use actix_web::{HttpMessage, HttpServer};
use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, pause};

async fn answer(request: TestRequest) -> ServiceResponse {
    call_service(&init_service(hello_actix::app()).await, request.to_request()).await
}

async fn text(request: TestRequest) -> String {
    let response = answer(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    String::from_utf8(read_body(response).await.to_vec()).unwrap()
}

fn get(uri: &str) -> TestRequest {
    TestRequest::get().uri(uri)
}

async fn frame(body: &mut BoxBody) -> Bytes {
    poll_fn(|context| Pin::new(&mut *body).poll_next(context)).await.unwrap().unwrap()
}

/// A client of `HttpServer`, and the server's handle.
async fn connect() -> (TcpStream, ServerHandle) {
    let server = HttpServer::new(hello_actix::app).workers(1).bind("127.0.0.1:0").unwrap();
    let address = server.addrs()[0];
    let server = server.disable_signals().run();
    let stop = server.handle();
    let _server = actix_web::rt::spawn(server);
    (TcpStream::connect(address).await.unwrap(), stop)
}

#[actix_web::test]
async fn names_are_decoded() {
    let response = answer(get("/hello/J%C3%BCrgen%2F%25+x")).await;
    assert_eq!(response.headers().get("content-type").unwrap(), "text/plain; charset=utf-8");
    assert_eq!(read_body(response).await, "Hello, Jürgen/%+x!\n");
}

#[actix_web::test]
async fn it_names_its_framework() {
    assert_eq!(text(get("/")).await, "Hello from actix!\n");
    let json = answer(get("/json")).await;
    assert_eq!(json.headers().get("content-type").unwrap(), "application/json");
    assert_eq!(read_body(json).await, r#"{"framework":"actix","message":"Hello, JSON!"}"#);
}

#[actix_web::test]
async fn refusals_say_whose_fault_it_is() {
    for (method, uri, status) in [
        (Method::GET, "/nope", StatusCode::NOT_FOUND),
        (Method::GET, "/hello/", StatusCode::NOT_FOUND),
        (Method::GET, "/hello/a/b", StatusCode::NOT_FOUND),
        (Method::GET, "/hello/%FF", StatusCode::BAD_REQUEST),
        (Method::POST, "/", StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, "/hello/x", StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "/echo", StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "/fill?bytes=x", StatusCode::BAD_REQUEST),
        (Method::GET, "/fill?bytes=-1", StatusCode::BAD_REQUEST),
        (Method::GET, "/slow", StatusCode::BAD_REQUEST),
        (Method::GET, "/block?ms=", StatusCode::BAD_REQUEST),
    ] {
        let request = get(uri).method(method.clone());
        assert_eq!(answer(request).await.status(), status, "{method} {uri}");
    }
}

#[actix_web::test]
async fn a_replacement_character_is_a_character() {
    assert_eq!(text(get("/hello/%EF%BF%BD")).await, "Hello, \u{FFFD}!\n");
}

#[actix_web::test]
async fn an_echo_keeps_the_type_of_what_was_sent() {
    let echo = answer(TestRequest::post().uri("/echo").set_payload("a=1")).await;
    assert_eq!(echo.headers().get("content-type").unwrap(), "application/octet-stream");
    assert_eq!(read_body(echo).await, "a=1");

    let typed = TestRequest::post().uri("/echo").insert_header(("content-type", "text/csv"));
    assert_eq!(answer(typed).await.headers().get("content-type").unwrap(), "text/csv");
}

#[actix_web::test]
async fn bodies_may_be_larger_than_actix_allows_by_default() {
    let body = vec![b'x'; 5 * 1024 * 1024];
    let purge = Method::from_bytes(b"PURGE").unwrap();
    assert_eq!(text(get("/sink").method(purge).set_payload(body)).await, "5242880");
}

#[actix_web::test]
async fn ten_events_take_a_second() {
    pause();
    let start = Instant::now();
    let response = answer(get("/stream")).await;
    assert_eq!(response.headers().get("content-type").unwrap(), "text/event-stream");
    assert_eq!(response.headers().get("cache-control").unwrap(), "no-cache");
    assert_eq!(read_body(response).await, (1..=10).map(|n| format!("data: {n}\n\n")).collect::<String>());
    assert!((1000..1100).contains(&start.elapsed().as_millis()));
}

#[actix_web::test]
async fn it_tells_what_it_sees() {
    let alone = get("/where?a=%20b")
        .method(Method::PUT)
        .peer_addr(SocketAddr::from(([192, 0, 2, 1], 4711)))
        .insert_header(("host", "example.com:81"));
    assert_eq!(
        text(alone).await,
        r#"{"framework":"actix","method":"PUT","path":"/where","query":"a=%20b","original":"/where?a=%20b","prefix":null,"peer":"192.0.2.1:4711","scheme":"http","host":"example.com:81"}"#
    );
}

#[actix_web::test]
async fn it_tells_what_its_host_sees() {
    let mounted =
        get("https://example.com/where").insert_header(("x-forwarded-prefix", "/actix")).to_request();
    let _ = mounted.extensions_mut().insert(Uri::from_static("https://example.com/actix/where"));
    let app = init_service(hello_actix::app()).await;
    let body = read_body(app.call(mounted).await.unwrap()).await;
    assert_eq!(
        body,
        r#"{"framework":"actix","method":"GET","path":"/where","query":null,"original":"https://example.com/actix/where","prefix":"/actix","peer":null,"scheme":"https","host":"example.com"}"#
    );
}

#[actix_web::test]
async fn a_fill_is_made_as_it_is_read() {
    assert_eq!(text(get("/fill?bytes=65537")).await, "\0".repeat(65537));

    let mut endless = answer(get(&format!("/fill?bytes={}", u64::MAX))).await.into_body();
    assert_eq!(frame(&mut endless).await.len(), 65536);
}

#[actix_web::test]
async fn a_slow_answer_waits() {
    pause();
    let start = Instant::now();
    assert_eq!(text(get("/slow?ms=60000")).await, "waited 60000 ms\n");
    assert!(start.elapsed() >= Duration::from_secs(60));
}

#[actix_web::test]
async fn a_blocking_answer_comes_too() {
    assert_eq!(text(get("/block?ms=1")).await, "blocked 1 ms\n");
}

#[actix_web::test]
async fn an_endless_answer_goes_on() {
    pause();
    let mut body = answer(get("/endless")).await.into_body();
    for n in 1..=1000 {
        assert_eq!(frame(&mut body).await, format!("{n}\n"));
    }
}

#[actix_web::test]
async fn it_panics_where_it_was_asked_to() {
    pause();
    assert!(AssertUnwindSafe(answer(get("/panic"))).catch_unwind().await.is_err());

    let mut body = answer(get("/panic/body")).await.into_body();
    assert_eq!(frame(&mut body).await, "so far, so good\n");
    assert!(AssertUnwindSafe(frame(&mut body)).catch_unwind().await.is_err());
}

#[actix_web::test]
async fn an_echo_over_a_socket_answers_before_it_has_heard_all() {
    let (mut client, server) = connect().await;
    client.write_all(b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let mut heard = Vec::new();
    for word in ["one", "two"] {
        let chunk = format!("3\r\n{word}\r\n");
        client.write_all(chunk.as_bytes()).await.unwrap();
        while !heard.ends_with(chunk.as_bytes()) {
            assert_ne!(client.read_buf(&mut heard).await.unwrap(), 0);
        }
    }
    server.stop(false).await;
}
