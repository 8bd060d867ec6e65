//! What the app answers: most of it through `warp::test`, the rest through `warp::serve`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use hello_warp::routes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use warp::http::{StatusCode, Uri};
use warp::test::request;

async fn text(path: &str) -> String {
    let response = request().path(path).reply(&routes()).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    String::from_utf8(response.into_body().to_vec()).unwrap()
}

/// A client of `warp::serve`, and the server.
async fn connect() -> (TcpStream, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(warp::serve(routes()).incoming(listener).run());
    (TcpStream::connect(address).await.unwrap(), server)
}

#[tokio::test]
async fn names_are_decoded() {
    let response = request().path("/hello/J%C3%BCrgen%2F%25+x").reply(&routes()).await;
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(response.body(), "Hello, Jürgen/%+x!\n");
}

#[tokio::test]
async fn it_names_its_framework() {
    assert_eq!(text("/").await, "Hello from warp!\n");
    let json = request().path("/json").reply(&routes()).await;
    assert_eq!(json.headers()["content-type"], "application/json");
    assert_eq!(json.body(), r#"{"framework":"warp","message":"Hello, JSON!"}"#);
}

#[tokio::test]
async fn refusals_say_whose_fault_it_is() {
    for (method, path, status) in [
        ("GET", "/nope", StatusCode::NOT_FOUND),
        ("POST", "/nope", StatusCode::NOT_FOUND),
        ("GET", "/hello/", StatusCode::NOT_FOUND),
        ("GET", "/hello/a/b", StatusCode::NOT_FOUND),
        ("GET", "/hello/%FF", StatusCode::BAD_REQUEST),
        ("POST", "/", StatusCode::METHOD_NOT_ALLOWED),
        ("POST", "/hello/x", StatusCode::METHOD_NOT_ALLOWED),
        ("GET", "/echo", StatusCode::METHOD_NOT_ALLOWED),
        ("GET", "/fill?bytes=x", StatusCode::BAD_REQUEST),
        ("GET", "/fill?bytes=-1", StatusCode::BAD_REQUEST),
        ("GET", "/slow", StatusCode::BAD_REQUEST),
        ("GET", "/block?ms=", StatusCode::BAD_REQUEST),
    ] {
        let response = request().method(method).path(path).reply(&routes()).await;
        assert_eq!(response.status(), status, "{method} {path}");
    }
}

#[tokio::test]
async fn an_echo_keeps_the_type_of_what_was_sent() {
    let echo = request().method("POST").path("/echo").body("a=1").reply(&routes()).await;
    assert_eq!(echo.headers()["content-type"], "application/octet-stream");
    assert_eq!(echo.body(), "a=1");

    let typed = request().method("POST").path("/echo").header("content-type", "text/csv");
    assert_eq!(typed.reply(&routes()).await.headers()["content-type"], "text/csv");
}

#[tokio::test]
async fn bodies_may_be_large_and_methods_odd() {
    let body = vec![b'x'; 5 * 1024 * 1024];
    let sink = request().method("PURGE").path("/sink").body(body).reply(&routes()).await;
    assert_eq!(sink.body(), "5242880");
}

#[tokio::test(start_paused = true)]
async fn ten_events_take_a_second() {
    let start = Instant::now();
    let response = request().path("/stream").reply(&routes()).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-cache");
    assert_eq!(*response.body(), (1..=10).map(|n| format!("data: {n}\n\n")).collect::<String>());
    assert!((1000..1100).contains(&start.elapsed().as_millis()));
}

#[tokio::test]
async fn it_tells_what_it_sees() {
    let peer = SocketAddr::from(([192, 0, 2, 1], 4711));
    let alone = request().method("PUT").path("/where?a=%20b").remote_addr(peer);
    assert_eq!(
        alone.header("host", "example.com:81").reply(&routes()).await.body(),
        r#"{"framework":"warp","method":"PUT","path":"/where","query":"a=%20b","original":"/where?a=%20b","prefix":null,"peer":"192.0.2.1:4711","scheme":"http","host":"example.com:81"}"#
    );
}

#[tokio::test]
async fn it_tells_what_its_host_sees() {
    let mounted = request()
        .path("/where")
        .header("host", "example.com")
        .header("x-forwarded-prefix", "/warp")
        .extension(Uri::from_static("https://example.com/warp/where"))
        .extension(SocketAddr::from(([192, 0, 2, 1], 4711)));
    assert_eq!(
        mounted.reply(&routes()).await.body(),
        r#"{"framework":"warp","method":"GET","path":"/where","query":null,"original":"https://example.com/warp/where","prefix":"/warp","peer":"192.0.2.1:4711","scheme":"https","host":"example.com"}"#
    );
}

#[tokio::test]
async fn a_fill_has_the_size_asked_for() {
    assert_eq!(text("/fill?bytes=0").await, "");
    assert_eq!(text("/fill?bytes=65537").await, "\0".repeat(65537));
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_waits() {
    let start = Instant::now();
    assert_eq!(text("/slow?ms=60000").await, "waited 60000 ms\n");
    assert!(start.elapsed() >= Duration::from_secs(60));
}

#[tokio::test]
async fn a_blocking_answer_comes_too() {
    assert_eq!(text("/block?ms=1").await, "blocked 1 ms\n");
}

#[tokio::test]
async fn a_panic_before_the_head_is_a_panic() {
    assert!(AssertUnwindSafe(text("/panic")).catch_unwind().await.is_err());
}

#[tokio::test]
async fn a_panic_in_the_body_comes_after_its_first_chunk() {
    let (mut client, server) = connect().await;
    client.write_all(b"GET /panic/body HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut heard = String::new();
    let _ = client.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 200 OK\r\n"), "{heard}");
    assert!(heard.ends_with("\r\n\r\n10\r\nso far, so good\n\r\n"), "{heard}");
    server.abort();
}

#[tokio::test]
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
    server.abort();
}
