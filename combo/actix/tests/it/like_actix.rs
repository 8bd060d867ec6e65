//! Each request goes to the same app twice: through `actix_http`'s own dispatcher and through hyper.
//! Whatever a client can notice must be the same, but for the differences that a test here names.

use std::{collections::BTreeMap, io};

use actix_http::HttpService;
use actix_service::{Service as _, ServiceFactory as _, map_config};
use actix_web::{
    App, HttpRequest, HttpResponse, HttpResponseBuilder,
    body::BodyStream,
    dev::AppConfig,
    http::{StatusCode, header::ContentType},
    web,
};
use bytes::Bytes;
use combo_actix::ActixService;
use futures_util::stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use crate::{alone, serve};

async fn answer(request: HttpRequest, body: Bytes) -> HttpResponse {
    let pieces =
        || stream::iter(["one", "two"].map(|text| Ok::<_, io::Error>(Bytes::from_static(text.as_bytes()))));
    let mut response = match request.match_info().query("status") {
        "" => HttpResponse::Ok(),
        code => HttpResponseBuilder::new(StatusCode::from_u16(code.parse().unwrap()).unwrap()),
    };
    match request.match_info().query("what") {
        "text" => response.insert_header(ContentType::plaintext()).body("hello"),
        "nothing" => response.finish(),
        "empty" => response.body(""),
        "pieces" => response.streaming(pieces()),
        "sized" => response.no_chunking(6).streaming(pieces()),
        "lying" => response.insert_header(("content-length", "99")).body("hello"),
        "length" => response.insert_header(("content-length", "99")).finish(),
        "twice" => response
            .insert_header(("content-length", "99"))
            .insert_header(("transfer-encoding", "chunked"))
            .body(BodyStream::new(pieces())),
        "unchunked" => response.no_chunking(6).body(BodyStream::new(pieces())),
        "short" => response.no_chunking(99).streaming(pieces()),
        "long" => response.no_chunking(4).streaming(pieces()),
        "close" => response.force_close().body("hello"),
        "own" => response.insert_header(("connection", "close")).body("hello"),
        "upgrade" => response.insert_header(("upgrade", "websocket")).body("hello"),
        "date" => response.insert_header(("date", "Thu, 01 Jan 1970 00:00:00 GMT")).body("hello"),
        "echo" => response.body(body),
        "uri" => response.body(request.uri().to_string()),
        "headers" => {
            let mut all: Vec<_> = request.headers().iter().map(|header| format!("{header:?}")).collect();
            all.sort();
            response.body(all.join("\n"))
        }
        "flags" => {
            let head = request.head();
            response.body(format!("{:?} {} {:?}", head.connection_type(), head.upgrade(), head.version))
        }
        "url" => response.body(format!("{:?}", request.url_for("named", ["x"]).map(|url| url.to_string()))),
        other => panic!("no such answer: {other}"),
    }
}

fn app() -> App<
    impl actix_service::ServiceFactory<
        actix_web::dev::ServiceRequest,
        Config = (),
        Response = actix_web::dev::ServiceResponse,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    App::new()
        .service(web::resource("/named/{what}").name("named").to(HttpResponse::Ok))
        .route("/{what}", web::route().to(answer))
        .route("/{what}/{status}", web::route().to(answer))
}

/// Everything that a connection says to `request`, until it is closed.
async fn exchange(mut pipe: DuplexStream, request: &[u8]) -> Vec<u8> {
    pipe.write_all(request).await.unwrap();
    pipe.shutdown().await.unwrap();
    let mut said = Vec::new();
    let _ = pipe.read_to_end(&mut said).await.unwrap();
    said
}

async fn by_actix(request: &[u8]) -> Vec<u8> {
    let service = HttpService::build()
        .h1(map_config(app(), |()| AppConfig::default()))
        .new_service(())
        .await
        .unwrap_or_else(|()| panic!("the app builds"));
    let (client, server) = tokio::io::duplex(64 * 1024);
    let _task = tokio::task::spawn_local(async move {
        let _ended = service.call((server, None)).await;
    });
    exchange(client, request).await
}

async fn by_hyper(request: &[u8]) -> Vec<u8> {
    let service = ActixService::new(app).await.unwrap();
    let (client, server) = tokio::io::duplex(64 * 1024);
    serve(&service, server);
    exchange(client, request).await
}

/// Status line, headers without the date, and the rest.
fn parsed(said: &[u8]) -> (String, BTreeMap<String, Vec<String>>, String) {
    let said = String::from_utf8(said.to_vec()).unwrap();
    let (head, body) = said.split_once("\r\n\r\n").unwrap_or((&said, ""));
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().to_owned();
    let mut headers = BTreeMap::<_, Vec<_>>::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        // hyper spells out what HTTP/1.0 means anyway.
        let implied = status.starts_with("HTTP/1.0") && (name, value) == ("connection", "close");
        if !implied && (name != "date" || value.contains("1970")) {
            let mut values: Vec<_> = value.split(", ").collect();
            values.sort_unstable();
            headers.entry(name.to_owned()).or_default().push(values.join(", "));
        }
    }
    (status, headers, body.to_owned())
}

fn check(request: &str) {
    alone(async {
        let request = request.replace('\n', "\r\n");
        let theirs = by_actix(request.as_bytes()).await;
        let ours = by_hyper(request.as_bytes()).await;
        assert_eq!(parsed(&ours), parsed(&theirs), "{request}");
        assert!(theirs.starts_with(b"HTTP/1."), "{request}: {}", theirs.escape_ascii());
    });
}

#[test]
fn every_kind_of_body_with_every_kind_of_status() {
    for what in [
        "text",
        "nothing",
        "empty",
        "pieces",
        "sized",
        "lying",
        "length",
        "twice",
        "close",
        "own",
        "upgrade",
        "date",
        "unchunked",
        "long",
    ] {
        for status in ["", "/200", "/201", "/206", "/301", "/404", "/426", "/500"] {
            check(&format!("GET /{what}{status} HTTP/1.1\nhost: one.example\n\n"));
        }
        check(&format!("GET /{what} HTTP/1.1\nhost: one.example\nconnection: close\n\n"));
        check(&format!("POST /{what} HTTP/1.1\nhost: one.example\ncontent-length: 3\n\nabc"));
    }
}

#[test]
fn statuses_without_a_body() {
    for what in ["nothing", "length"] {
        for status in ["204", "304"] {
            check(&format!("GET /{what}/{status} HTTP/1.1\nhost: one.example\n\n"));
        }
    }
}

/// Where actix's own server sends what belongs to no message.
#[test]
fn a_body_that_must_not_be_is_not_sent() {
    for status in ["204", "304"] {
        let request = format!("GET /text/{status} HTTP/1.1\r\nhost: one.example\r\n\r\n");
        alone(async {
            assert_eq!(parsed(&by_actix(request.as_bytes()).await).2, "hello", "{status}");
            assert_eq!(parsed(&by_hyper(request.as_bytes()).await).2, "", "{status}");
        });
    }
}

/// Where actix's own server repeats the client's word for an upgrade that does not happen.
#[test]
fn an_upgrade_that_does_not_happen_is_not_announced() {
    let request = "GET /text HTTP/1.1\r\nhost: one.example\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    alone(async {
        assert_eq!(parsed(&by_actix(request.as_bytes()).await).1["connection"], ["upgrade"]);
        assert!(!parsed(&by_hyper(request.as_bytes()).await).1.contains_key("connection"));
    });
}

/// Where actix's own server announces chunks to a HEAD, which hyper leaves out, and sends chunks to a
/// client that cannot know of them, for which hyper ends the body with the connection.
#[test]
fn chunks_are_for_those_who_read_them() {
    for (request, theirs, ours) in [
        ("HEAD /pieces HTTP/1.1\r\nhost: one.example\r\n\r\n", "", ""),
        ("GET /pieces HTTP/1.0\r\n\r\n", "3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n", "onetwo"),
    ] {
        alone(async {
            let (_, headers, body) = parsed(&by_actix(request.as_bytes()).await);
            assert_eq!((headers["transfer-encoding"][0].as_str(), body.as_str()), ("chunked", theirs));
            let (_, headers, body) = parsed(&by_hyper(request.as_bytes()).await);
            assert_eq!((headers.get("transfer-encoding"), body.as_str()), (None, ours));
        });
    }
}

#[test]
fn a_body_shorter_than_its_length_breaks_the_connection() {
    let request = "GET /short HTTP/1.1\r\nhost: one.example\r\n\r\n";
    alone(async {
        for said in [by_actix(request.as_bytes()).await, by_hyper(request.as_bytes()).await] {
            assert!(parsed(&said).2.len() < 99);
        }
    });
}

#[test]
fn head_says_the_length_and_no_more() {
    for what in ["text", "nothing", "empty", "lying", "close", "own", "upgrade", "date", "length"] {
        for status in ["", "/404", "/204", "/304"] {
            check(&format!("HEAD /{what}{status} HTTP/1.1\nhost: one.example\n\n"));
        }
    }
    check("HEAD /sized HTTP/1.1\nhost: one.example\n\n");
}

#[test]
fn old_clients() {
    for what in ["text", "nothing", "empty", "lying", "sized", "close", "date"] {
        check(&format!("GET /{what} HTTP/1.0\nhost: one.example\n\n"));
        check(&format!("GET /{what} HTTP/1.0\n\n"));
    }
}

#[test]
fn what_the_app_sees() {
    for what in ["uri", "headers", "flags", "url"] {
        for version in ["1.0", "1.1"] {
            for rest in [
                "",
                "connection: keep-alive\n",
                "connection: close\n",
                "accept: a\naccept: b\nx-own: 1\nX-OWN: 2\ncookie: a=b; c=d\n",
                "content-length: 0\n",
                "x-empty:\nx-spaces:   a b  \n",
            ] {
                check(&format!("GET /{what}?a=%20&b HTTP/{version}\nhost: one.example:81\n{rest}\n"));
            }
        }
    }
    check("GET http://two.example/uri?q HTTP/1.1\nhost: one.example\n\n");
    check("GET http://two.example/headers HTTP/1.1\nhost: one.example\n\n");
    check("GET http://two.example/url HTTP/1.1\nhost: one.example\n\n");
}

#[test]
fn what_the_app_is_sent() {
    check("POST /echo HTTP/1.1\nhost: one.example\ncontent-length: 3\n\nabc");
    check("POST /echo HTTP/1.1\nhost: one.example\ntransfer-encoding: chunked\n\n3\nabc\n2\nde\n0\n\n");
    check("POST /echo HTTP/1.1\nhost: one.example\n\n");
    check("PURGE /echo HTTP/1.1\nhost: one.example\n\n");
}

#[test]
fn several_requests_on_one_connection() {
    alone(async {
        let requests = "GET /text HTTP/1.1\r\nhost: a\r\n\r\nGET /pieces HTTP/1.1\r\nhost: b\r\n\r\n\
                        GET /headers HTTP/1.1\r\nhost: c\r\naccept: d\r\n\r\n";
        let split = |said: Vec<u8>| {
            let said = String::from_utf8(said).unwrap();
            said.split("HTTP/1.1").skip(1).map(|one| parsed(one.as_bytes())).collect::<Vec<_>>()
        };
        let theirs = split(by_actix(requests.as_bytes()).await);
        let ours = split(by_hyper(requests.as_bytes()).await);
        assert_eq!(theirs.len(), 3);
        assert_eq!(ours, theirs);
    });
}
