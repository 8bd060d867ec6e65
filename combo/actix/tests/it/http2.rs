use std::io;

use actix_web::{App, HttpRequest, HttpResponse, dev::ConnectionInfo, web};
use bytes::Bytes;
use combo_actix::ActixService;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http2::SendRequest, rt::Executor};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};

use crate::{Counted, alone};

#[derive(Clone)]
struct Local;

impl<F: Future<Output: 'static> + 'static> Executor<F> for Local {
    fn execute(&self, task: F) {
        let _task = tokio::task::spawn_local(task);
    }
}

async fn answer(request: HttpRequest, connection: ConnectionInfo, body: web::Payload) -> HttpResponse {
    match request.path() {
        "/text" => HttpResponse::Ok().force_close().body("hello"),
        "/nothing" => HttpResponse::Ok().finish(),
        "/none" => HttpResponse::NoContent().body("hello"),
        "/unchanged" => HttpResponse::NotModified().insert_header(("content-length", "5")).finish(),
        "/echo" => HttpResponse::Ok().streaming(body),
        "/sized" => HttpResponse::Ok().no_chunking(30).streaming(Counted::new(10, 3).0),
        "/broken" => HttpResponse::Ok()
            .streaming(stream::iter([Ok(Bytes::from_static(b"a")), Err(io::Error::other("broken"))])),
        "/who" => HttpResponse::Ok().body(format!(
            "{} {} {:?} {}",
            connection.scheme(),
            connection.host(),
            request.headers().get("host").unwrap(),
            request.uri()
        )),
        other => panic!("no such answer: {other}"),
    }
}

async fn connected() -> SendRequest<Full<Bytes>> {
    let service = ActixService::new(|| App::new().default_service(web::to(answer))).await.unwrap();
    let (client, server) = tokio::io::duplex(64 * 1024);
    let _server = tokio::task::spawn_local(
        hyper::server::conn::http2::Builder::new(Local)
            .serve_connection(TokioIo::new(server), TowerToHyperService::new(service)),
    );
    let (sender, connection) =
        hyper::client::conn::http2::handshake(Local, TokioIo::new(client)).await.unwrap();
    let _client = tokio::task::spawn_local(connection);
    sender
}

async fn ask(client: &mut SendRequest<Full<Bytes>>, method: &str, path: &str) -> Response<Incoming> {
    let request = Request::builder().method(method).uri(format!("https://one.example{path}"));
    client.send_request(request.body(Full::from("abc")).unwrap()).await.unwrap()
}

#[test]
fn every_kind_of_body_arrives() {
    alone(async {
        let mut client = connected().await;
        for (method, path, status, length, body) in [
            ("GET", "/text", 200, Some("5"), "hello"),
            ("HEAD", "/text", 200, Some("5"), ""),
            ("GET", "/nothing", 200, Some("0"), ""),
            ("GET", "/none", 204, None, ""),
            ("GET", "/unchanged", 304, Some("5"), ""),
            ("POST", "/echo", 200, None, "abc"),
            ("HEAD", "/echo", 200, None, ""),
            ("GET", "/sized", 200, Some("30"), "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
            ("HEAD", "/sized", 200, Some("30"), ""),
        ] {
            let response = ask(&mut client, method, path).await;
            assert_eq!(response.status(), status, "{method} {path}");
            let said = response.headers().get("content-length").map(|value| value.to_str().unwrap());
            assert_eq!(said, length, "{method} {path}");
            assert!(!response.headers().contains_key("connection"), "{method} {path}");
            let said = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(said, body, "{method} {path}");
        }
    });
}

#[test]
fn the_app_knows_the_authority() {
    alone(async {
        let mut client = connected().await;
        let body = ask(&mut client, "GET", "/who").await.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "https one.example \"one.example\" https://one.example/who");
    });
}

#[test]
fn a_body_that_breaks_resets_its_stream_and_no_other() {
    alone(async {
        let mut client = connected().await;
        let request = Request::get("https://one.example/broken").body(Full::default()).unwrap();
        let whole = async { client.send_request(request).await?.into_body().collect().await };
        // The reset may overtake the head.
        assert!(whole.await.is_err());
        assert_eq!(ask(&mut client, "GET", "/text").await.status(), 200);
    });
}
