use std::{cell::Cell, rc::Rc};

use actix_web::{App, HttpRequest, HttpResponse, Responder, http::StatusCode, web};
use actix_ws::Message;
use combo_actix::ActixService;
use futures_util::StreamExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::oneshot,
};

use crate::{alone, serve};

const HANDSHAKE: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n\
                         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A connection to an app that treats every request with `answer`.
async fn connection<H, Args>(answer: H, buffer: usize) -> DuplexStream
where
    H: actix_web::Handler<Args> + Clone,
    Args: actix_web::FromRequest + 'static,
    H::Output: Responder + 'static,
{
    let service =
        ActixService::new(move || App::new().default_service(web::to(answer.clone()))).await.unwrap();
    let (client, server) = tokio::io::duplex(buffer);
    serve(&service, server);
    client
}

async fn head(client: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A frame from a client, its mask all zeros.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | kind, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

async fn read_frame(client: &mut DuplexStream) -> (u8, Vec<u8>) {
    let kind = client.read_u8().await.unwrap();
    let mut payload = vec![0; client.read_u8().await.unwrap().into()];
    let _ = client.read_exact(&mut payload).await.unwrap();
    (kind & 0x0f, payload)
}

const TEXT: u8 = 1;
const CLOSE: u8 = 8;

/// Sends every text back, and closes when the other end does.
async fn echo(request: HttpRequest, body: web::Payload) -> actix_web::Result<HttpResponse> {
    let (response, mut session, mut messages) = actix_ws::handle(&request, body)?;
    let _task = actix_web::rt::spawn(async move {
        while let Some(Ok(message)) = messages.next().await {
            match message {
                Message::Text(text) => session.text(text).await.unwrap(),
                Message::Close(reason) => return session.close(reason).await.unwrap(),
                _ => {}
            }
        }
    });
    Ok(response)
}

#[test]
fn a_websocket_talks_both_ways_and_closes() {
    alone(async {
        let mut client = connection(echo, 1024).await;
        client.write_all(HANDSHAKE.as_bytes()).await.unwrap();
        let head = head(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        let mut lines: Vec<_> =
            head.lines().skip(1).filter(|line| !line.is_empty() && !line.starts_with("date")).collect();
        lines.sort_unstable();
        let expected = [
            "connection: upgrade",
            "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            "upgrade: websocket",
        ];
        assert_eq!(lines, expected);
        for text in ["hello", "", "again"] {
            client.write_all(&frame(TEXT, text.as_bytes())).await.unwrap();
            assert_eq!(read_frame(&mut client).await, (TEXT, text.as_bytes().to_vec()));
        }
        client.write_all(&frame(CLOSE, &1000_u16.to_be_bytes())).await.unwrap();
        assert_eq!(read_frame(&mut client).await, (CLOSE, 1000_u16.to_be_bytes().to_vec()));
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    });
}

#[test]
fn bytes_sent_along_with_the_handshake_are_not_lost() {
    alone(async {
        let mut client = connection(echo, 1024).await;
        let mut all = HANDSHAKE.as_bytes().to_vec();
        all.extend(frame(TEXT, b"early"));
        client.write_all(&all).await.unwrap();
        let _ = head(&mut client).await;
        assert_eq!(read_frame(&mut client).await, (TEXT, b"early".to_vec()));
    });
}

#[test]
fn the_older_actors_work_too() {
    use actix_web_actors::ws::ProtocolError;
    struct Echo;
    impl actix::Actor for Echo {
        type Context = actix_web_actors::ws::WebsocketContext<Self>;
    }
    impl actix::StreamHandler<Result<Message, ProtocolError>> for Echo {
        fn handle(&mut self, message: Result<Message, ProtocolError>, context: &mut Self::Context) {
            match message {
                Ok(Message::Text(text)) => context.text(text),
                Ok(Message::Close(reason)) => {
                    context.close(reason);
                    actix::ActorContext::stop(context);
                }
                _ => {}
            }
        }
    }
    async fn start(request: HttpRequest, body: web::Payload) -> actix_web::Result<HttpResponse> {
        actix_web_actors::ws::start(Echo, &request, body)
    }
    actix_rt::System::new().block_on(async {
        let mut client = connection(start, 1024).await;
        client.write_all(HANDSHAKE.as_bytes()).await.unwrap();
        assert!(head(&mut client).await.starts_with("HTTP/1.1 101"));
        client.write_all(&frame(TEXT, b"hello")).await.unwrap();
        assert_eq!(read_frame(&mut client).await, (TEXT, b"hello".to_vec()));
        client.write_all(&frame(CLOSE, &1000_u16.to_be_bytes())).await.unwrap();
        assert_eq!(read_frame(&mut client).await.0, CLOSE);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    });
}

#[test]
fn an_upgrade_that_is_refused_is_an_ordinary_answer_and_ends_the_payload() {
    alone(async {
        let (tell, told) = oneshot::channel();
        let tell = Rc::new(Cell::new(Some(tell)));
        let refuse = move |body: web::Payload| {
            let tell = tell.take();
            // Somebody still waits for bytes that will not come.
            let _task = actix_web::rt::spawn(async move {
                let rest: Vec<_> = body.collect().await;
                if let Some(tell) = tell {
                    tell.send(rest.len()).unwrap();
                }
            });
            async { HttpResponse::BadRequest().body("no") }
        };
        let mut client = connection(refuse, 1024).await;
        for _again in 0..2 {
            client.write_all(HANDSHAKE.as_bytes()).await.unwrap();
            let head = head(&mut client).await;
            assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
            assert!(!head.contains("upgrade"), "{head}");
            let mut body = [0; 2];
            let _ = client.read_exact(&mut body).await.unwrap();
            assert_eq!(&body, b"no");
        }
        assert_eq!(told.await.unwrap(), 0);
    });
}

#[test]
fn an_offer_of_another_protocol_is_no_reason_to_wait_for_bytes() {
    async fn whole(body: web::Bytes) -> web::Bytes {
        body
    }
    alone(async {
        let mut client = connection(whole, 1024).await;
        // What curl sends with `--http2` in clear text.
        let offer = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n";
        for (body, length) in [("", 0), ("content-length: 3\r\n", 3)] {
            client
                .write_all(format!("POST / HTTP/1.1\r\nhost: a\r\n{offer}{body}\r\n").as_bytes())
                .await
                .unwrap();
            client.write_all(&b"abc"[..length]).await.unwrap();
            let head = head(&mut client).await;
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert!(head.contains(&format!("content-length: {length}\r\n")), "{head}");
            let _ = client.read_exact(&mut vec![0; length]).await.unwrap();
        }
    });
}

/// Tells what becomes of a websocket that nobody closes properly.
fn watched(
    read: bool,
) -> (impl AsyncFn(HttpRequest, web::Payload) -> actix_web::Result<HttpResponse> + Clone, oneshot::Receiver<()>)
{
    let (tell, told) = oneshot::channel();
    let tell = Rc::new(Cell::new(Some(tell)));
    let answer = async move |request: HttpRequest, body: web::Payload| {
        let (response, mut session, mut messages) = actix_ws::handle(&request, body)?;
        let tell = tell.take().unwrap();
        if !read {
            drop(messages);
            let _task = actix_web::rt::spawn(async move {
                // Only when the response's body is dropped does this fail.
                while session.ping(b"").await.is_ok() {
                    tokio::task::yield_now().await;
                }
                tell.send(()).unwrap();
            });
            return Ok(response);
        }
        let _task = actix_web::rt::spawn(async move {
            while let Some(Ok(_)) = messages.next().await {}
            tell.send(()).unwrap();
        });
        Ok(response)
    };
    (answer, told)
}

#[test]
fn a_client_that_hangs_up_ends_the_messages() {
    alone(async {
        let (answer, told) = watched(true);
        let answer = move |request, body| {
            let answer = answer.clone();
            async move { answer(request, body).await }
        };
        let mut client = connection(answer, 1024).await;
        client.write_all(HANDSHAKE.as_bytes()).await.unwrap();
        let _ = head(&mut client).await;
        drop(client);
        told.await.unwrap();
    });
}

#[test]
fn a_client_that_hangs_up_is_noticed_even_if_nobody_reads() {
    alone(async {
        let (answer, told) = watched(false);
        let answer = move |request, body| {
            let answer = answer.clone();
            async move { answer(request, body).await }
        };
        let mut client = connection(answer, 1024).await;
        client.write_all(HANDSHAKE.as_bytes()).await.unwrap();
        let _ = head(&mut client).await;
        drop(client);
        told.await.unwrap();
    });
}

#[test]
fn closing_the_session_closes_the_connection() {
    async fn short(request: HttpRequest, body: web::Payload) -> actix_web::Result<HttpResponse> {
        let (response, session, _messages) = actix_ws::handle(&request, body)?;
        session.close(None).await.unwrap();
        Ok(response)
    }
    alone(async {
        let mut client = connection(short, 1024).await;
        client.write_all(HANDSHAKE.as_bytes()).await.unwrap();
        let _ = head(&mut client).await;
        assert_eq!(read_frame(&mut client).await, (CLOSE, Vec::new()));
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    });
}

#[test]
fn a_client_that_does_not_read_stops_the_sender() {
    alone(async {
        let sent = Rc::new(Cell::new(0_usize));
        let flood = {
            let sent = Rc::clone(&sent);
            move |request: HttpRequest, body: web::Payload| {
                let sent = Rc::clone(&sent);
                async move {
                    let (response, mut session, messages) = actix_ws::handle(&request, body)?;
                    let _task = actix_web::rt::spawn(async move {
                        let _messages = messages;
                        while session.binary(vec![0; 1024]).await.is_ok() {
                            sent.set(sent.get() + 1);
                        }
                    });
                    Ok::<_, actix_web::Error>(response)
                }
            }
        };
        let mut client = connection(flood, 1024).await;
        client.write_all(HANDSHAKE.as_bytes()).await.unwrap();
        let _ = head(&mut client).await;
        // Everything runs on this thread: what has not been sent after so many turns will not be.
        for _turn in 0..10_000 {
            tokio::task::yield_now().await;
        }
        assert!(sent.get() < 256, "{} messages sent to a client that reads none", sent.get());
        let before = sent.get();
        let _ = client.read_exact(&mut vec![0; 1024 * 1024]).await.unwrap();
        assert!(sent.get() > before + 500);
    });
}

#[test]
fn a_server_that_does_not_read_stops_the_client() {
    async fn deaf(request: HttpRequest, body: web::Payload) -> actix_web::Result<HttpResponse> {
        let (response, session, messages) = actix_ws::handle(&request, body)?;
        let _task = actix_web::rt::spawn(async move {
            let _held = (session, messages);
            std::future::pending::<()>().await;
        });
        Ok(response)
    }
    alone(async {
        let mut client = connection(deaf, 1024).await;
        client.write_all(HANDSHAKE.as_bytes()).await.unwrap();
        let _ = head(&mut client).await;
        let mut sent = 0;
        let mut waits = 0;
        while waits < 1_000 {
            match futures_util::poll!(std::pin::pin!(client.write(&[0; 1024]))) {
                std::task::Poll::Ready(written) => {
                    sent += written.unwrap();
                    waits = 0;
                }
                std::task::Poll::Pending => {
                    waits += 1;
                    tokio::task::yield_now().await;
                }
            }
        }
        assert!(sent < 64 * 1024, "{sent} bytes sent to a server that reads none");
    });
}

#[test]
fn a_tunnel_asked_for_with_connect_works() {
    async fn tunnel(body: web::Payload) -> HttpResponse {
        HttpResponse::Ok().streaming(body)
    }
    alone(async {
        let mut client = connection(tunnel, 1024).await;
        client.write_all(b"CONNECT one.example:443 HTTP/1.1\r\nhost: one.example:443\r\n\r\n").await.unwrap();
        let head = head(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(!head.contains("chunked"), "{head}");
        client.write_all(b"ping").await.unwrap();
        let mut back = [0; 4];
        let _ = client.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"ping");
        client.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    });
}

#[test]
fn an_upgrade_without_a_connection_to_upgrade_is_an_empty_answer() {
    use http_body::Body as _;
    alone(async {
        let service = ActixService::new(|| App::new().default_service(web::to(echo))).await.unwrap();
        let request = http::Request::get("/")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(crate::empty())
            .unwrap();
        let response = service.call_with(request, combo_actix::Arrival::default()).await;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS.as_u16());
        assert!(response.body().is_end_stream());
    });
}
