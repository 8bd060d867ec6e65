//! gRPC: a service of tonic beside web apps on one port, asked by tonic's own client.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::pending,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use combo::{Command, Reply, RequestBody, millis, mount, secs};
use futures_util::{Stream, StreamExt, future::BoxFuture, stream};
use http::{Method, Request, Response, Uri, uri::PathAndQuery};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tonic::{
    Code, Status, Streaming,
    client::Grpc as Client,
    server::Grpc as Server,
    transport::{Certificate, Channel, ClientTlsConfig},
};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};
use tower_http::trace::TraceLayer;

use crate::{
    http2::{Piped, upload},
    site::{ANY_PORT, ANY_TLS_PORT, Site, eventually, pair, three},
    wire::get,
};

/// The one message there is.
#[derive(Clone, PartialEq, prost::Message)]
struct Word {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(uint32, tag = "2")]
    number: u32,
}

fn word(text: &str, number: u32) -> Word {
    Word { text: text.to_owned(), number }
}

type Words = Pin<Box<dyn Stream<Item = Result<Word, Status>> + Send>>;
type Said<T> = Result<tonic::Response<T>, Status>;

/// The service `it.Talk`, as generated code would have it. It counts what it is in the middle of.
#[derive(Clone, Default)]
struct Talk {
    busy: Arc<AtomicUsize>,
}

/// Something that it is in the middle of.
struct Busy(Arc<AtomicUsize>);

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.fetch_sub(1, Relaxed);
    }
}

impl Talk {
    fn busy(&self) -> Busy {
        let _ = self.busy.fetch_add(1, Relaxed);
        Busy(self.busy.clone())
    }

    async fn say(self, request: tonic::Request<Word>) -> Said<Word> {
        let _busy = self.busy();
        let asked = request.metadata().get("x-asked").cloned();
        match &*request.into_inner().text {
            "fail" => {
                let mut status =
                    Status::with_details(Code::FailedPrecondition, "nicht heute: 5 % Grüße", "why".into());
                let _ = status.metadata_mut().insert("x-because", "tired".parse().unwrap());
                Err(status)
            }
            "wait" => pending().await,
            "panic" => panic!("asked to panic in a call"),
            text => {
                let mut response = tonic::Response::new(word(text, 1));
                let asked = asked.unwrap_or("nothing".parse().unwrap());
                let _ = response.metadata_mut().insert("x-answered", asked);
                Ok(response)
            }
        }
    }

    async fn sum(self, request: tonic::Request<Streaming<Word>>) -> Said<Word> {
        let _busy = self.busy();
        let mut words = request.into_inner();
        let mut sum = 0;
        while let Some(Word { number, .. }) = words.message().await? {
            sum += number;
        }
        Ok(tonic::Response::new(word("sum", sum)))
    }

    /// Fails after so many, or goes on for ever after the first.
    async fn count(self, request: tonic::Request<Word>) -> Said<Words> {
        let busy = self.busy();
        let Word { text, number } = request.into_inner();
        let words = stream::iter(1..=number).map(|n| Ok(word("count", n)));
        let end: Words = match &*text {
            "fail" => stream::iter([Err(Status::aborted("in the middle"))]).boxed(),
            "wait" => stream::pending().boxed(),
            _ => stream::empty().boxed(),
        };
        let words = words.chain(end).map(move |word| {
            let _busy = &busy;
            word
        });
        Ok(tonic::Response::new(words.boxed()))
    }

    async fn converse(self, request: tonic::Request<Streaming<Word>>) -> Said<Words> {
        let busy = self.busy();
        let words = request.into_inner().map(move |word| {
            let _busy = &busy;
            word.map(|Word { text, number }| Word { text: text + "!", number: number + 1 })
        });
        Ok(tonic::Response::new(words.boxed()))
    }
}

impl Service<Request<RequestBody>> for Talk {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let talk = self.clone();
        Box::pin(async move {
            let mut server = Server::new(ProstCodec::<Word, Word>::default());
            Ok(match request.uri().path() {
                "/it.Talk/Say" => server.unary(service_fn(|word| talk.clone().say(word)), request).await,
                "/it.Talk/Sum" => {
                    server.client_streaming(service_fn(|words| talk.clone().sum(words)), request).await
                }
                "/it.Talk/Count" => {
                    server.server_streaming(service_fn(|word| talk.clone().count(word)), request).await
                }
                "/it.Talk/Converse" => {
                    server.streaming(service_fn(|words| talk.clone().converse(words)), request).await
                }
                _ => Status::unimplemented("no such call").into_http(),
            })
        })
    }
}

fn path(call: &str) -> PathAndQuery {
    format!("/it.Talk/{call}").parse().unwrap()
}

fn codec() -> ProstCodec<Word, Word> {
    ProstCodec::default()
}

/// tonic's client, once it is connected. What stands in the origin after the host goes before each path.
fn client(site: &Site, tls: bool, origin: &str) -> Client<Channel> {
    let address = if tls { site.tls_address() } else { site.address() };
    let scheme = if tls { "https" } else { "http" };
    let origin: Uri = format!("{scheme}://{origin}").parse().unwrap();
    let mut endpoint = Channel::from_shared(format!("{scheme}://{address}")).unwrap();
    endpoint = endpoint.origin(origin.clone());
    if tls {
        let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&pair().1));
        endpoint = endpoint.tls_config(config.domain_name("localhost")).unwrap();
    }
    Client::with_origin(site.wait(endpoint.connect()).unwrap(), origin)
}

/// Asks when there is room for it.
fn ask<T>(
    site: &Site,
    client: &Client<Channel>,
    asking: impl AsyncFnOnce(&mut Client<Channel>) -> Result<T, Status>,
) -> Result<T, Status> {
    let mut client = client.clone();
    site.wait(async {
        client.ready().await.unwrap();
        asking(&mut client).await
    })
}

fn say(site: &Site, client: &Client<Channel>, text: &str) -> Said<Word> {
    let request = tonic::Request::new(word(text, 0));
    ask(site, client, async |client| client.unary(request, path("Say"), codec()).await)
}

/// The service in every place that it can have, and the origin by which it is found there.
fn everywhere(talk: &Talk) -> (Site, [&'static str; 6]) {
    let target = || mount::tower(talk.clone());
    let site = Site::start(
        three()
            .listen(ANY_TLS_PORT)
            // By its name, whose prefix it has to see.
            .mount("/it.Talk", target().unstripped())
            // Below a prefix, which clients that can say one say.
            .mount("/api", target())
            .mount("/own", target().own_threads(2))
            .mount("/layered", target().layer(TraceLayer::new_for_grpc()).own_threads(1))
            .mount("grpc.example/", target().layer(TraceLayer::new_for_grpc()))
            .mount("own.example/", target().own_threads(2)),
    );
    (
        site,
        ["localhost", "localhost/api", "localhost/own", "localhost/layered", "grpc.example", "own.example"],
    )
}

#[test]
fn calls_of_all_kinds_work_wherever_the_service_is() {
    let talk = Talk::default();
    let (site, origins) = everywhere(&talk);
    for (tls, origin) in origins.iter().flat_map(|origin| [(false, *origin), (true, *origin)]) {
        let said = format!("{origin}, TLS: {tls}");
        let client = client(&site, tls, origin);
        let mut request = tonic::Request::new(word("hello", 0));
        let _ = request.metadata_mut().insert("x-asked", "this".parse().unwrap());
        let response =
            ask(&site, &client, async |client| client.unary(request, path("Say"), codec()).await).unwrap();
        assert_eq!(response.metadata().get("x-answered").unwrap(), "this", "{said}");
        assert_eq!(response.into_inner(), word("hello", 1), "{said}");

        let words = stream::iter(1..=1_000).map(|n| word(&"x".repeat(100), n));
        let sum = async |client: &mut Client<_>| {
            client.client_streaming(tonic::Request::new(words), path("Sum"), codec()).await
        };
        assert_eq!(ask(&site, &client, sum).unwrap().into_inner(), word("sum", 500_500), "{said}");

        let count = async |client: &mut Client<_>| {
            let request = tonic::Request::new(word("", 1_000));
            let words = client.server_streaming(request, path("Count"), codec()).await?.into_inner();
            Ok(words.map(|word| word.unwrap().number).collect::<Vec<u32>>().await)
        };
        assert_eq!(ask(&site, &client, count).unwrap(), Vec::from_iter(1..=1_000), "{said}");

        // An answer to each word before the next is said.
        let converse = async |client: &mut Client<Channel>| {
            let (words, heard) = mpsc::channel(1);
            let heard = stream::unfold(heard, async |mut heard| Some((heard.recv().await?, heard)));
            let request = tonic::Request::new(heard);
            let answers = client.streaming(request, path("Converse"), codec()).await?;
            let mut answers = answers.into_inner();
            for n in 0..10 {
                words.send(word("so", n)).await.unwrap();
                assert_eq!(answers.message().await?, Some(word("so!", n + 1)));
            }
            drop(words);
            assert_eq!(answers.message().await?, None);
            answers.trailers().await
        };
        assert!(ask(&site, &client, converse).unwrap().is_some(), "{said}");
    }
    // The others are still there.
    assert_eq!(site.wire().ask(get("/axum/hello/x")).text(), "Hello, x!\n");
    assert_eq!(talk.busy.load(Relaxed), 0);
}

#[test]
fn an_error_is_a_status_with_all_that_it_carries() {
    let (site, origins) = everywhere(&Talk::default());
    for (tls, origin) in origins.iter().flat_map(|origin| [(false, *origin), (true, *origin)]) {
        let client = client(&site, tls, origin);
        let status = say(&site, &client, "fail").unwrap_err();
        assert_eq!(
            (status.code(), status.message(), status.details()),
            (Code::FailedPrecondition, "nicht heute: 5 % Grüße", &b"why"[..]),
            "{origin}"
        );
        assert_eq!(status.metadata().get("x-because").unwrap(), "tired", "{origin}");
        // After what was said before it.
        let count = async |client: &mut Client<_>| {
            let request = tonic::Request::new(word("fail", 3));
            let mut words = client.server_streaming(request, path("Count"), codec()).await?.into_inner();
            for n in 1..=3 {
                assert_eq!(words.message().await?, Some(word("count", n)));
            }
            words.message().await
        };
        let status = ask(&site, &client, count).unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Aborted, "in the middle"), "{origin}");
        // The app's own words for what it does not have.
        let request = tonic::Request::new(word("", 0));
        let unknown = async |client: &mut Client<_>| client.unary(request, path("Sing"), codec()).await;
        let status: Status = ask(&site, &client, unknown).unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unimplemented, "no such call"), "{origin}");
    }
}

/// A message as it is sent: not compressed, its length, itself.
fn framed(word: &Word) -> Bytes {
    let message = prost::Message::encode_to_vec(word);
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat().into()
}

fn call(site: &Site, target: &str, headers: &[(&str, &str)], word: &Word) -> (u16, Vec<String>, Vec<String>) {
    let http2 = site.http2();
    let headers = [&[("content-type", "application/grpc"), ("te", "trailers")], headers].concat();
    let request = http2.request(Method::POST, target, &headers, framed(word));
    http2.wait(async {
        let (head, body) = http2.begin(request).await.unwrap().into_parts();
        let said = |headers: &http::HeaderMap| -> BTreeMap<String, String> {
            let grpc = headers.iter().filter(|(name, _)| name.as_str().starts_with("grpc-"));
            grpc.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
        };
        let listed = |headers| said(headers).into_iter().map(|(name, value)| name + ": " + &value).collect();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().map(listed).unwrap_or_default();
        (head.status.as_u16(), listed(&head.headers), trailers)
    })
}

#[test]
fn a_status_is_in_the_trailers_after_messages_and_in_the_head_without() {
    let (site, _) = everywhere(&Talk::default());
    for target in ["/it.Talk/Say", "/api/it.Talk/Say", "/own/it.Talk/Say"] {
        let (status, head, trailers) = call(&site, target, &[], &word("hello", 0));
        assert_eq!((status, head, trailers), (200, vec![], vec!["grpc-status: 0".to_owned()]), "{target}");
        let (status, head, trailers) = call(&site, target, &[], &word("fail", 0));
        assert_eq!((status, trailers), (200, vec![]), "{target}");
        assert!(head.contains(&"grpc-status: 9".to_owned()), "{target}: {head:?}");
    }
}

#[test]
fn a_call_ends_at_its_deadline_and_the_service_is_dropped() {
    let talk = Talk::default();
    let target = || mount::tower(talk.clone());
    let shared = talk.clone();
    let route = service_fn(move |request: Request<axum::body::Body>| {
        shared.clone().call(request.map(RequestBody::new))
    });
    let site = Site::start(
        three()
            .mount("/patient", target())
            .mount("/own", target().own_threads(1))
            .mount("/long", target().timeout(secs(600)))
            .mount("/routed", mount::axum(axum::Router::new().fallback_service(route)))
            .mount("/hasty", target().timeout(millis(50)))
            .mount("/hasty-own", target().timeout(millis(50)).own_threads(1)),
    );
    let over = vec!["grpc-message: the answer took too long".to_owned(), "grpc-status: 4".to_owned()];
    let wait = word("wait", 0);
    // The client's own, as gRPC's servers keep it.
    for mount in ["/patient", "/own", "/long", "/routed"] {
        let (status, head, _) =
            call(&site, &format!("{mount}/it.Talk/Say"), &[("grpc-timeout", "50m")], &wait);
        assert_eq!((status, &head), (200, &over), "{mount}");
        let (_, _, trailers) =
            call(&site, &format!("{mount}/it.Talk/Say"), &[("grpc-timeout", "1H")], &word("quick", 0));
        assert_eq!(trailers, ["grpc-status: 0"], "{mount}");
    }
    // The mount's.
    for mount in ["/hasty", "/hasty-own"] {
        for timeout in [&[][..], &[("grpc-timeout", "1H")]] {
            let (status, head, _) = call(&site, &format!("{mount}/it.Talk/Say"), timeout, &wait);
            assert_eq!((status, &head), (200, &over), "{mount}");
        }
        let client = client(&site, false, &format!("localhost{mount}"));
        assert_eq!(say(&site, &client, "wait").unwrap_err().code(), Code::DeadlineExceeded, "{mount}");
        assert_eq!(say(&site, &client, "hello").unwrap().into_inner(), word("hello", 1), "{mount}");
    }
    // As tonic's client says it.
    let client = client(&site, false, "localhost/patient");
    let mut request = tonic::Request::new(wait);
    request.set_timeout(millis(50));
    let asked = ask(&site, &client, async |client| client.unary(request, path("Say"), codec()).await);
    assert!(matches!(asked.unwrap_err().code(), Code::Cancelled | Code::DeadlineExceeded));
    site.requests(0);
    eventually("the service is dropped", || (talk.busy.load(Relaxed) == 0).then_some(()));
}

#[test]
fn a_client_that_gives_up_in_the_middle_of_a_stream_is_noticed() {
    let talk = Talk::default();
    let (site, origins) = everywhere(&talk);
    let busy = |count: usize| {
        eventually("the service is or is not at it", || (talk.busy.load(Relaxed) == count).then_some(()));
    };
    for origin in origins {
        let client = client(&site, false, origin);
        // While it answers.
        let count = async |client: &mut Client<_>| {
            let request = tonic::Request::new(word("wait", 1));
            let mut words: Streaming<Word> =
                client.server_streaming(request, path("Count"), codec()).await?.into_inner();
            let _ = words.message().await?;
            Ok(words)
        };
        let words = ask(&site, &client, count).unwrap();
        busy(1);
        drop(words);
        busy(0);
        // While both speak.
        let (sender, heard) = mpsc::channel(1);
        let converse = async |client: &mut Client<_>| {
            let heard = stream::unfold(heard, async |mut heard| Some((heard.recv().await?, heard)));
            let request = tonic::Request::new(heard);
            let mut words: Streaming<Word> =
                client.streaming(request, path("Converse"), codec()).await?.into_inner();
            sender.send(word("so", 1)).await.unwrap();
            let _ = words.message().await?;
            Ok(words)
        };
        let words = ask(&site, &client, converse).unwrap();
        busy(1);
        // tonic's client says that it hears no more only when it says no more either.
        drop((words, sender));
        busy(0);
        // While it waits for itself.
        let mut asking = client.clone();
        let calling = site.runtime().spawn(async move {
            asking.ready().await.unwrap();
            asking.unary(tonic::Request::new(word("wait", 0)), path("Say"), codec()).await
        });
        busy(1);
        calling.abort();
        busy(0);
    }
    // While it listens: the stream is reset (`CANCEL`), or the connection ends.
    for mount in ["/api", "/own"] {
        for reset in [true, false] {
            let mut wire = site.wire();
            let headers = [("content-type", "application/grpc"), ("te", "trailers")];
            wire.send(upload(&format!("{mount}/it.Talk/Sum"), &headers, &framed(&word("", 1))));
            busy(1);
            if reset {
                wire.send("\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08");
            } else {
                wire.abort();
            }
            busy(0);
        }
    }
    site.requests(0);
}

#[test]
fn what_the_combo_refuses_is_a_status_to_clients_of_grpc() {
    let target = || mount::tower(Talk::default());
    let deployment = || {
        combo::Deployment::new("refusals")
            .listen(ANY_PORT)
            .mount("/api", target())
            .mount("/small", target().body_limit(20))
            .mount("/one", target().max_in_flight(1))
            .mount("/seldom", target().rate_limit(1, secs(3_600)))
            .mount("/axum", mount::axum(hello_axum::app()))
    };
    check_refusals(&Site::start(deployment()));
    check_refusals(&Site::start(deployment().layer(TraceLayer::new_for_http())));
}

fn check_refusals(site: &Site) {
    let at = |mount: &str| client(site, false, &format!("localhost{mount}"));
    let refused = |client: &Client<Channel>, text: &str| {
        let status = say(site, client, text).unwrap_err();
        (status.code(), status.message().to_owned())
    };
    assert_eq!(refused(&at("/nowhere"), "x"), (Code::Unimplemented, "not found".to_owned()));
    assert_eq!(refused(&at("/api"), "panic"), (Code::Unknown, "internal server error".to_owned()));
    let large = refused(&at("/small"), &"x".repeat(30));
    assert_eq!(large, (Code::ResourceExhausted, "the body is too large".to_owned()));
    let seldom = at("/seldom");
    assert!(say(site, &seldom, "x").is_ok());
    assert_eq!(refused(&seldom, "x"), (Code::Unavailable, "too many requests".to_owned()));
    // One waits, so there is no room for another.
    let one = at("/one");
    let mut waiting = one.clone();
    let waits = site.runtime().spawn(async move {
        waiting.ready().await.unwrap();
        waiting.unary(tonic::Request::new(word("wait", 0)), path("Say"), codec()).await
    });
    site.requests(1);
    assert_eq!(refused(&one, "x"), (Code::Unavailable, "busy".to_owned()));
    waits.abort();
    site.requests(0);
    assert!(say(site, &one, "x").is_ok());
    // An app that is none of gRPC's says what it says to everybody: it is mapped by the client.
    assert_eq!(refused(&at("/axum"), "x").0, Code::Unimplemented);
    let maintain = Command::Maintain { mount: "/api".into(), page: "<p>soon</p>".into() };
    assert_eq!(site.say(maintain), Reply::Done);
    assert_eq!(refused(&at("/api"), "x"), (Code::Unavailable, "down for maintenance".to_owned()));
    // A request of another kind is refused as ever.
    assert_eq!(site.http2().get("/api").text(), "<p>soon</p>");
    assert_eq!(site.http2().get("/nowhere").text(), "not found\n");
}

/// A body that has begun and is not finished when the deadline comes.
#[test]
fn a_deadline_holds_while_the_client_is_still_speaking() {
    let site = Site::start(three().mount("/api", mount::tower(Talk::default())));
    let http2 = site.http2();
    let headers = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "50m")];
    let (words, heard) = mpsc::channel(1);
    let request = http2.request(Method::POST, "/api/it.Talk/Sum", &headers, "");
    let request = request.map(|_| Piped(heard).boxed());
    let response = http2.wait(async {
        let response = http2.begin(request);
        words.send(framed(&word("", 1))).await.unwrap();
        response.await.unwrap()
    });
    assert_eq!(response.headers().get("grpc-status").unwrap(), "4");
    drop(words);
    site.requests(0);
}
