//! What the app answers: most of it without a socket, the rest through `axum::serve`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, OriginalUri};
use axum::http::{Request, StatusCode, Uri};
use axum::response::Response;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tower::ServiceExt;

async fn ask(method: &str, uri: &str, body: impl Into<Body>) -> Response {
    let request = Request::builder().method(method).uri(uri).body(body.into()).unwrap();
    hello_axum::app().oneshot(request).await.unwrap()
}

async fn text(response: Response) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn names_are_decoded() {
    let response = ask("GET", "/hello/J%C3%BCrgen%2F%25+x", "").await;
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(text(response).await, "Hello, Jürgen/%+x!\n");
}

#[tokio::test]
async fn it_names_its_framework() {
    assert_eq!(text(ask("GET", "/", "").await).await, "Hello from axum!\n");
    let json = ask("GET", "/json", "").await;
    assert_eq!(json.headers()["content-type"], "application/json");
    assert_eq!(text(json).await, r#"{"framework":"axum","message":"Hello, JSON!"}"#);
}

#[tokio::test]
async fn refusals_say_whose_fault_it_is() {
    for (method, uri, status) in [
        ("GET", "/nope", StatusCode::NOT_FOUND),
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
        assert_eq!(ask(method, uri, "").await.status(), status, "{method} {uri}");
    }
}

#[tokio::test]
async fn an_echo_keeps_the_type_of_what_was_sent() {
    let response = ask("POST", "/echo", "a=1").await;
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
    assert_eq!(text(response).await, "a=1");

    let request = Request::post("/echo").header("content-type", "text/csv").body(Body::from("a,1")).unwrap();
    let response = hello_axum::app().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/csv");
}

#[tokio::test]
async fn bodies_may_be_larger_than_axum_allows_by_default() {
    let body = vec![b'x'; 5 * 1024 * 1024];
    assert_eq!(text(ask("PURGE", "/sink", body.clone()).await).await, "5242880");
    assert_eq!(text(ask("POST", "/echo", body).await).await.len(), 5_242_880);
}

#[tokio::test(start_paused = true)]
async fn ten_events_take_a_second() {
    let start = Instant::now();
    let response = ask("GET", "/stream", "").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-cache");
    assert_eq!(text(response).await, (1..=10).map(|n| format!("data: {n}\n\n")).collect::<String>());
    assert!((1000..1100).contains(&start.elapsed().as_millis()));
}

#[tokio::test]
async fn it_tells_what_it_sees() {
    let request = Request::put("/where?a=%20b").header("host", "example.com:81").body(Body::empty()).unwrap();
    let alone = hello_axum::app().oneshot(request).await.unwrap();
    assert_eq!(
        text(alone).await,
        r#"{"framework":"axum","method":"PUT","path":"/where","query":"a=%20b","original":"/where?a=%20b","prefix":null,"peer":null,"scheme":"http","host":"example.com:81"}"#
    );
}

#[tokio::test]
async fn it_tells_what_its_host_sees() {
    let request = Request::get("/where")
        .header("x-forwarded-prefix", "/axum")
        .extension(OriginalUri(Uri::from_static("https://example.com/axum/where")))
        .extension(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 4711))))
        .body(Body::empty())
        .unwrap();
    let mounted = hello_axum::app().oneshot(request).await.unwrap();
    assert_eq!(
        text(mounted).await,
        r#"{"framework":"axum","method":"GET","path":"/where","query":null,"original":"https://example.com/axum/where","prefix":"/axum","peer":"192.0.2.1:4711","scheme":"https","host":"example.com"}"#
    );
}

#[tokio::test]
async fn a_fill_is_made_as_it_is_read() {
    assert_eq!(text(ask("GET", "/fill?bytes=65537", "").await).await, "\0".repeat(65537));

    let mut endless = ask("GET", &format!("/fill?bytes={}", u64::MAX), "").await.into_body();
    assert_eq!(endless.frame().await.unwrap().unwrap().into_data().unwrap().len(), 65536);
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_waits() {
    let start = Instant::now();
    assert_eq!(text(ask("GET", "/slow?ms=60000", "").await).await, "waited 60000 ms\n");
    assert!(start.elapsed() >= Duration::from_secs(60));
}

#[tokio::test]
async fn a_blocking_answer_comes_too() {
    assert_eq!(text(ask("GET", "/block?ms=1", "").await).await, "blocked 1 ms\n");
}

#[tokio::test(start_paused = true)]
async fn an_endless_answer_goes_on() {
    let mut body = ask("GET", "/endless", "").await.into_body();
    for n in 1..=1000 {
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), format!("{n}\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn it_panics_where_it_was_asked_to() {
    assert!(AssertUnwindSafe(ask("GET", "/panic", "")).catch_unwind().await.is_err());

    let mut body = ask("GET", "/panic/body", "").await.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "so far, so good\n");
    assert!(AssertUnwindSafe(body.frame()).catch_unwind().await.is_err());
}

#[tokio::test]
async fn an_echo_over_a_socket_answers_before_it_has_heard_all() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = hello_axum::app().into_make_service_with_connect_info::<SocketAddr>();
    let server = tokio::spawn(async { axum::serve(listener, app).await });

    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let mut heard = Vec::new();
    for word in ["one", "two"] {
        client.write_all(format!("3\r\n{word}\r\n").as_bytes()).await.unwrap();
        let expected = format!("3\r\n{word}\r\n");
        while !heard.ends_with(expected.as_bytes()) {
            assert_ne!(client.read_buf(&mut heard).await.unwrap(), 0);
        }
    }
    server.abort();
}
