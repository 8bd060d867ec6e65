use std::{cell::Cell, pin::pin, rc::Rc, task::Poll};

use actix_web::{App, HttpResponse, web};
use bytes::Bytes;
use combo_actix::{ActixService, Arrival};
use futures_util::{StreamExt as _, poll};
use http::Request;
use http_body_util::BodyExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{Notify, oneshot},
};

use crate::{Counted, alone, empty, serve};

/// Large enough to tell whether anything keeps it.
const PIECE: usize = 64 * 1024;
const PIECES: usize = 1_000;

#[test]
fn a_slow_handler_stops_the_uploader() {
    alone(async {
        let more = Rc::new(Notify::new());
        let taken = Rc::new(Cell::new(0));
        let service = {
            let (more, taken) = (Rc::clone(&more), Rc::clone(&taken));
            ActixService::new(move || {
                let (more, taken) = (Rc::clone(&more), Rc::clone(&taken));
                App::new().default_service(web::to(move |mut body: web::Payload| {
                    let (more, taken) = (Rc::clone(&more), Rc::clone(&taken));
                    async move {
                        loop {
                            more.notified().await;
                            let Some(piece) = body.next().await else { break };
                            assert_eq!(piece.unwrap().len(), PIECE);
                            taken.set(taken.get() + 1);
                        }
                        HttpResponse::Ok().finish()
                    }
                }))
            })
            .await
            .unwrap()
        };
        let (body, given) = Counted::new(PIECE, PIECES);
        let mut answer = pin!(service.call_with(Request::post("/").body(body).unwrap(), Arrival::default()));
        for round in 0..PIECES {
            assert!(poll!(answer.as_mut()).is_pending());
            assert_eq!((given.get(), taken.get()), (round, round));
            more.notify_one();
        }
        assert!(poll!(answer.as_mut()).is_pending());
        more.notify_one();
        assert!(poll!(answer.as_mut()).is_ready());
    });
}

#[test]
fn a_slow_reader_stops_the_producer() {
    alone(async {
        let given = Rc::new(Cell::new(None));
        let service = {
            let given = Rc::clone(&given);
            ActixService::new(move || {
                let given = Rc::clone(&given);
                App::new().default_service(web::to(move || {
                    let (pieces, count) = Counted::new(PIECE, PIECES);
                    given.set(Some(count));
                    async move { HttpResponse::Ok().streaming(pieces) }
                }))
            })
            .await
            .unwrap()
        };
        let response = service.call_with(Request::get("/").body(empty()).unwrap(), Arrival::default()).await;
        let given = given.take().unwrap();
        let mut body = response.into_body();
        for round in 0..PIECES {
            assert_eq!(given.get(), round);
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), PIECE);
        }
        assert!(body.frame().await.is_none());
    });
}

/// An app that sends back what it is sent, while it is sent.
async fn echo() -> ActixService {
    ActixService::new(|| {
        App::new()
            .default_service(web::to(|body: web::Payload| async move { HttpResponse::Ok().streaming(body) }))
    })
    .await
    .unwrap()
}

#[test]
fn both_directions_flow_at_once() {
    alone(async {
        let (body, given) = Counted::new(PIECE, PIECES);
        let request = Request::post("/").body(body).unwrap();
        let mut body = echo().await.call_with(request, Arrival::default()).await.into_body();
        let mut read = 0;
        while let Some(frame) = body.frame().await {
            assert_eq!(frame.unwrap().into_data().unwrap().len(), PIECE);
            read += 1;
            assert_eq!(given.get(), read);
        }
        assert_eq!(read, PIECES);
    });
}

/// What the pipes and hyper's own buffers may hold at most, whatever the length of the body.
const IN_FLIGHT: usize = 2 * 1024 * 1024;

#[test]
fn a_large_body_through_hyper_takes_little_memory() {
    alone(async {
        let (mut client, server) = tokio::io::duplex(16 * 1024);
        serve(&echo().await, server);
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", PIECE * PIECES);
        client.write_all(head.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(client);
        let sent = Rc::new(Cell::new(0));
        let received = Rc::new(Cell::new(0));
        let writing = async {
            let piece = vec![b'x'; PIECE];
            for _piece in 0..PIECES {
                writer.write_all(&piece).await.unwrap();
                sent.set(sent.get() + PIECE);
                assert!(sent.get() - received.get() < IN_FLIGHT);
            }
        };
        let reading = async {
            let mut buffer = vec![0; PIECE];
            let mut end = [0; 5];
            while end != *b"0\r\n\r\n" {
                let read = reader.read(&mut buffer).await.unwrap();
                received.set(received.get() + read);
                let last = &buffer[read.saturating_sub(5)..read];
                end.rotate_left(last.len());
                end[5 - last.len()..].copy_from_slice(last);
            }
        };
        let ((), ()) = futures_util::join!(writing, reading);
        assert!(received.get() > PIECE * PIECES);
    });
}

#[test]
fn an_uploader_that_is_not_read_waits() {
    alone(async {
        let service = ActixService::new(|| {
            App::new().default_service(web::to(|_body: web::Payload| std::future::pending::<HttpResponse>()))
        })
        .await
        .unwrap();
        let (mut client, server) = tokio::io::duplex(1024);
        serve(&service, server);
        client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n").await.unwrap();
        // Everything runs on this thread: when the write cannot go on after so many turns of the
        // others, nothing but a read would let it.
        let piece = vec![b'x'; 1024];
        let mut sent = 0;
        let mut waits = 0;
        while waits < 1_000 {
            match poll!(pin!(client.write(&piece))) {
                Poll::Ready(written) => {
                    sent += written.unwrap();
                    waits = 0;
                }
                Poll::Pending => {
                    waits += 1;
                    tokio::task::yield_now().await;
                }
            }
        }
        assert!(sent < IN_FLIGHT, "{sent} bytes sent to a handler that reads none");
    });
}

/// Tells when it is dropped.
struct Dropped(Option<oneshot::Sender<()>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.take().unwrap().send(());
    }
}

/// An app whose handler holds a `Dropped` and never answers.
async fn silent() -> (ActixService, oneshot::Receiver<()>, Rc<Notify>) {
    let (tell, dropped) = oneshot::channel();
    let tell = Rc::new(Cell::new(Some(tell)));
    let started = Rc::new(Notify::new());
    let starts = Rc::clone(&started);
    let service = ActixService::new(move || {
        let (tell, starts) = (Rc::clone(&tell), Rc::clone(&starts));
        App::new().default_service(web::to(move || {
            let guard = Dropped(tell.take());
            starts.notify_one();
            async move {
                let _guard = guard;
                std::future::pending::<HttpResponse>().await
            }
        }))
    })
    .await
    .unwrap();
    (service, dropped, started)
}

#[test]
fn dropping_the_answer_drops_the_handler() {
    alone(async {
        let (service, mut dropped, _) = silent().await;
        let request = Request::get("/").body(empty()).unwrap();
        {
            let mut answer = pin!(service.call_with(request, Arrival::default()));
            assert!(poll!(answer.as_mut()).is_pending());
            assert!(dropped.try_recv().is_err());
        }
        dropped.try_recv().unwrap();
    });
}

#[test]
fn a_client_that_hangs_up_drops_the_handler() {
    alone(async {
        let (service, dropped, started) = silent().await;
        let (mut client, server) = tokio::io::duplex(1024);
        let _connection = tokio::task::spawn_local({
            let service = hyper_util::service::TowerToHyperService::new(service);
            async move {
                let _ended = hyper::server::conn::http1::Builder::new()
                    .serve_connection(hyper_util::rt::TokioIo::new(server), service)
                    .await;
            }
        });
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        started.notified().await;
        drop(client);
        dropped.await.unwrap();
    });
}

#[test]
fn a_reader_that_goes_away_drops_the_body() {
    alone(async {
        let (tell, mut dropped) = oneshot::channel();
        let guard = Rc::new(Cell::new(Some(Dropped(Some(tell)))));
        let service = ActixService::new(move || {
            let guard = Rc::clone(&guard);
            App::new().default_service(web::to(move || {
                let guard = guard.take().unwrap();
                let body = futures_util::stream::repeat_with(move || {
                    let _held = &guard;
                    Ok::<_, std::io::Error>(Bytes::from_static(b"x"))
                });
                async move { HttpResponse::Ok().streaming(body) }
            }))
        })
        .await
        .unwrap();
        let request = Request::get("/").body(empty()).unwrap();
        let mut body = service.call_with(request, Arrival::default()).await.into_body();
        let _ = body.frame().await.unwrap().unwrap();
        assert!(dropped.try_recv().is_err());
        drop(body);
        dropped.try_recv().unwrap();
    });
}

#[test]
fn an_answer_may_come_before_the_body_is_sent() {
    alone(async {
        let service = ActixService::new(|| {
            App::new().default_service(web::to(|_body: web::Payload| async {
                HttpResponse::PayloadTooLarge().finish()
            }))
        })
        .await
        .unwrap();
        let (mut client, server) = tokio::io::duplex(1024);
        serve(&service, server);
        client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\nabc").await.unwrap();
        let mut said = [0; 12];
        let _ = client.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"HTTP/1.1 413");
    });
}

#[test]
fn an_upload_that_breaks_off_is_an_incomplete_payload() {
    alone(async {
        let (tell, told) = oneshot::channel();
        let tell = Rc::new(Cell::new(Some(tell)));
        let service = ActixService::new(move || {
            let tell = Rc::clone(&tell);
            App::new().default_service(web::to(move |body: web::Payload| {
                let tell = tell.take().unwrap();
                async move {
                    let pieces: Vec<_> = body.collect().await;
                    tell.send(format!("{pieces:?}")).unwrap();
                    HttpResponse::Ok().finish()
                }
            }))
        })
        .await
        .unwrap();
        let (mut client, server) = tokio::io::duplex(1024);
        serve(&service, server);
        client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(told.await.unwrap(), "[Ok(b\"abc\"), Err(Incomplete(None))]");
    });
}
