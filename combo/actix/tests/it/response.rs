use std::{
    cell::Cell,
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpResponseBuilder, ResponseError,
    body::{BodySize, BodyStream, MessageBody},
    http::StatusCode,
    web,
};
use bytes::Bytes;
use combo_actix::{ActixService, Arrival, Body};
use futures_util::{StreamExt as _, stream};
use http::{Request, Response, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;

use crate::{Counted, alone, empty, text};

/// What comes of an app that answers everything with what `answer` makes.
async fn answered<F>(request: Request<http_body_util::Empty<Bytes>>, answer: F) -> Response<Body>
where
    F: Fn() -> HttpResponse + Clone + 'static,
{
    let service = ActixService::new(move || {
        let answer = answer.clone();
        App::new().default_service(web::to(move |_: HttpRequest| {
            let answer = answer();
            async move { answer }
        }))
    })
    .await
    .unwrap();
    service.call_with(request, Arrival::default()).await
}

fn get() -> Request<http_body_util::Empty<Bytes>> {
    Request::get("/").body(empty()).unwrap()
}

#[test]
fn a_body_in_memory_stays_one_piece_of_known_size() {
    alone(async {
        let response = answered(get(), || HttpResponse::Ok().body("hello")).await;
        let mut body = response.into_body();
        assert_eq!(body.size_hint().exact(), Some(5));
        assert!(!body.is_end_stream());
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "hello");
        assert!(body.is_end_stream());
        assert!(body.frame().await.is_none());
    });
}

#[test]
fn headers_come_as_they_are() {
    alone(async {
        let response = answered(get(), || {
            HttpResponse::Created()
                .insert_header(("content-type", "text/x"))
                .append_header(("set-cookie", "a=1"))
                .append_header(("set-cookie", "b=2"))
                .append_header(("set-cookie", "a=1"))
                .insert_header(("x-own", actix_web::http::header::HeaderValue::from_bytes(b"\xe9").unwrap()))
                .finish()
        })
        .await;
        assert_eq!(response.status(), 201);
        let mut headers: Vec<_> =
            response.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        headers.sort_by_key(|(name, _)| *name);
        assert_eq!(
            headers,
            [
                ("content-length", &b"0"[..]),
                ("content-type", b"text/x"),
                ("set-cookie", b"a=1"),
                ("set-cookie", b"b=2"),
                ("set-cookie", b"a=1"),
                ("x-own", b"\xe9"),
            ]
        );
    });
}

/// Values are remembered from one response to the next; this would find one remembered wrongly.
#[test]
fn responses_do_not_see_each_others_headers() {
    alone(async {
        let service = ActixService::new(|| {
            App::new().default_service(web::to(|request: HttpRequest| async move {
                let mut response = HttpResponse::Ok();
                let mut response = &mut response;
                for part in request.query_string().split('&').filter(|part| !part.is_empty()) {
                    let (name, value) = part.split_once('=').unwrap();
                    response = response.append_header((name, value));
                }
                response.finish()
            }))
        })
        .await
        .unwrap();
        let names = ["content-type", "vary", "server", "cache-control", "etag", "set-cookie", "x-own"];
        let mut state = 1_u64;
        let mut below = |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % bound
        };
        for _response in 0..5_000 {
            let said: Vec<_> = (0..below(8)).map(|_| (names[below(names.len())], below(5))).collect();
            let query: Vec<_> = said.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let request = Request::get(format!("/?{}", query.join("&"))).body(empty()).unwrap();
            let response = service.call_with(request, Arrival::default()).await;
            for name in names {
                let got: Vec<_> = response
                    .headers()
                    .get_all(name)
                    .iter()
                    .map(|value| value.to_str().unwrap().to_owned())
                    .collect();
                let expected: Vec<_> = said
                    .iter()
                    .filter(|(said, _)| *said == name)
                    .map(|(_, value)| value.to_string())
                    .collect();
                assert_eq!(got, expected, "{name} of {query:?}");
            }
        }
    });
}

/// HTTP/2 forbids them; see `prepare_response` in actix's own dispatcher.
#[test]
fn http2_answers_have_no_headers_about_the_connection() {
    alone(async {
        let make = || {
            HttpResponse::Ok()
                .force_close()
                .insert_header(("keep-alive", "timeout=5"))
                .insert_header(("proxy-connection", "close"))
                .insert_header(("upgrade", "h3"))
                .insert_header(("transfer-encoding", "gzip"))
                .insert_header(("x-own", "1"))
                .no_chunking(3)
                .body(BodyStream::new(stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"abc"))])))
        };
        let request = Request::get("https://one.example/").version(Version::HTTP_2).body(empty()).unwrap();
        let response = answered(request, make).await;
        let mut names: Vec<_> = response.headers().keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "x-own"]);
    });
}

#[test]
fn the_size_of_a_stream_is_known_when_the_app_says_it() {
    alone(async {
        let response = answered(get(), || {
            let (pieces, _) = Counted::new(10, 3);
            HttpResponse::Ok().body(actix_web::body::SizedStream::new(30, pieces))
        })
        .await;
        let mut body = response.into_body();
        assert_eq!(body.size_hint().exact(), Some(30));
        let _ = body.frame().await.unwrap().unwrap();
        assert_eq!(body.size_hint().exact(), Some(20));
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), 20);
    });
}

/// A body that gives these pieces, whatever it says its size is.
struct Pieces(BodySize, Vec<Result<&'static str, io::ErrorKind>>);

impl MessageBody for Pieces {
    type Error = Broken;

    fn size(&self) -> BodySize {
        self.0
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if self.1.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(self.1.remove(0).map(Bytes::from).map_err(|kind| Broken(kind.into()))))
    }
}

#[derive(Debug)]
struct Broken(io::Error);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot read the file")
    }
}

impl std::error::Error for Broken {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn streams_end_as_they_should() {
    let broken = io::ErrorKind::NotFound;
    alone(async {
        for (size, pieces, frames, error) in [
            (BodySize::Stream, vec![Ok("ab"), Ok("c")], &["ab", "c"][..], None),
            (BodySize::Stream, vec![], &[], None),
            (BodySize::Stream, vec![Ok(""), Ok("a"), Ok(""), Ok("b")], &["a", "b"], None),
            (
                BodySize::Stream,
                vec![Ok("a"), Err(broken)],
                &["a"],
                Some("cannot read the file: entity not found"),
            ),
            (BodySize::Sized(3), vec![Ok("ab"), Ok("c")], &["ab", "c"], None),
            (BodySize::Sized(3), vec![Ok("ab"), Ok("cd"), Ok("e")], &["ab", "c"], None),
            (
                BodySize::Sized(3),
                vec![Ok("ab")],
                &["ab"],
                Some("the app's body ended 1 bytes before the length it gave"),
            ),
        ] {
            let given = Cell::new(Some(pieces));
            let given = std::rc::Rc::new(given);
            let response =
                answered(get(), move || HttpResponse::Ok().body(Pieces(size, given.take().unwrap()))).await;
            let mut body = response.into_body();
            let mut got = Vec::new();
            let mut failed = None;
            while let Some(frame) = body.frame().await {
                match frame {
                    Ok(frame) => got.push(frame.into_data().unwrap()),
                    Err(error) => failed = Some(error.to_string()),
                }
            }
            assert_eq!(got, frames);
            assert_eq!(failed.as_deref(), error);
            assert!(body.is_end_stream());
        }
    });
}

#[derive(Debug)]
struct Teapot;

impl fmt::Display for Teapot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("short and stout")
    }
}

impl ResponseError for Teapot {
    fn status_code(&self) -> StatusCode {
        StatusCode::IM_A_TEAPOT
    }
}

#[test]
fn small_pieces_that_are_there_already_come_together() {
    let small = |count: usize| vec![Bytes::from(vec![b'x'; 100]); count];
    let large = Bytes::from(vec![b'y'; 5_000]);
    alone(async move {
        for (pieces, fails, expected) in [
            // The first is not kept waiting.
            (small(1), false, vec![100]),
            (small(4), false, vec![100, 300]),
            (small(101), false, vec![100, 7_200, 2_800]),
            // What is large stays what it is, wherever it stands.
            ([&[large.clone()][..], &small(2)].concat(), false, vec![5_000, 200]),
            (
                [&small(3)[..], &[large.clone(), large.clone()], &small(1)].concat(),
                false,
                vec![100, 200, 5_000, 5_000, 100],
            ),
            // Nothing that came before an error is lost.
            (small(4), true, vec![100, 300]),
        ] {
            let response = answered(get(), move || {
                let failure = fails.then(|| Err(io::Error::other("broken")));
                let all = pieces.clone().into_iter().map(Ok).chain(failure);
                HttpResponse::Ok().streaming(stream::iter(all))
            });
            let mut body = response.await.into_body();
            let mut sizes = Vec::new();
            let failed = loop {
                match body.frame().await {
                    Some(Ok(frame)) => sizes.push(frame.into_data().unwrap().len()),
                    Some(Err(_)) => break true,
                    None => break false,
                }
            };
            assert_eq!((sizes, failed), (expected, fails));
        }
    });
}

#[test]
fn a_small_piece_does_not_wait_for_the_next() {
    alone(async {
        let (sender, receiver) = mpsc::channel(4);
        let receiver = Arc::new(Mutex::new(Some(receiver)));
        let response = answered(get(), move || {
            let mut pieces: mpsc::Receiver<Bytes> = receiver.lock().unwrap().take().unwrap();
            let all = stream::poll_fn(move |cx| pieces.poll_recv(cx)).map(Ok::<_, io::Error>);
            HttpResponse::Ok().streaming(all)
        });
        let mut body = response.await.into_body();
        for piece in ["one", "two", "three"] {
            sender.send(Bytes::from(piece)).await.unwrap();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), piece);
        }
        drop(sender);
        assert!(body.frame().await.is_none());
    });
}

#[test]
fn an_error_is_its_own_response() {
    alone(async {
        let service = ActixService::new(|| {
            App::new()
                .wrap(actix_web::middleware::from_fn(
                    |request: actix_web::dev::ServiceRequest, next: actix_web::middleware::Next<_>| async move {
                        if request.path() == "/early" {
                            return Err(Teapot.into());
                        }
                        next.call(request).await
                    },
                ))
                .default_service(web::to(|| async { Err::<&str, _>(Teapot) }))
        })
        .await
        .unwrap();
        for path in ["/early", "/late"] {
            let request = Request::get(path).body(empty()).unwrap();
            let response = service.call_with(request, Arrival::default()).await;
            assert_eq!(response.status(), 418, "{path}");
            assert_eq!(text(response).await, "short and stout", "{path}");
        }
    });
}

#[test]
fn every_status_code_passes() {
    alone(async {
        for code in [200, 299, 302, 404, 451, 500, 599, 600, 999] {
            let make = move || HttpResponseBuilder::new(StatusCode::from_u16(code).unwrap()).finish();
            assert_eq!(answered(get(), make).await.status().as_u16(), code);
        }
    });
}
