//! Connections that become something else, by an `Upgrade` to a protocol of the app's own and by `CONNECT`:
//! they are the app's, both ways, from the first byte to the last.

use std::{convert::Infallible, io, net::SocketAddr};

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use axum::body::Body;
use bytes::Bytes;
use combo::{Deployment, mount, mount::Target};
use futures_util::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use warp::Filter;

use crate::{
    site::{ANY_PORT, ANY_TLS_PORT, FRAMEWORKS, Site},
    wire::{End, Wire, get},
};

/// Says again what it hears, until it hears no more; then says goodbye.
pub(crate) async fn echo(upgrade: OnUpgrade) -> io::Result<()> {
    let mut io = TokioIo::new(upgrade.await.map_err(io::Error::other)?);
    let mut bytes = vec![0; 16 << 10];
    loop {
        let read = io.read(&mut bytes).await?;
        if read == 0 {
            break;
        }
        io.write_all(&bytes[..read]).await?;
        io.flush().await?;
    }
    io.write_all(b"goodbye").await?;
    io.shutdown().await
}

/// Carries a tunnel to where it is to lead.
async fn carry(upgrade: OnUpgrade, to: String) -> io::Result<()> {
    let mut far = TcpStream::connect(to).await?;
    let mut near = TokioIo::new(upgrade.await.map_err(io::Error::other)?);
    tokio::io::copy_bidirectional(&mut near, &mut far).await.map(drop)
}

/// What is to become of a connection.
fn begun<B: Default>(method: &Method, authority: Option<String>, upgrade: Option<OnUpgrade>) -> Response<B> {
    let mut response = Response::new(B::default());
    match (upgrade, authority) {
        (Some(upgrade), Some(to)) if *method == Method::CONNECT => drop(tokio::spawn(carry(upgrade, to))),
        (Some(upgrade), _) if *method == Method::GET => {
            drop(tokio::spawn(echo(upgrade)));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            let _ = headers.insert("connection", "upgrade".parse().unwrap());
            let _ = headers.insert("upgrade", "echo".parse().unwrap());
        }
        _ => *response.status_mut() = StatusCode::UPGRADE_REQUIRED,
    }
    response
}

fn by_axum() -> Target {
    let ask = async |mut request: Request<Body>| -> Response<Body> {
        let authority = request.uri().authority().map(ToString::to_string);
        let upgrade = request.extensions_mut().remove();
        begun(request.method(), authority, upgrade)
    };
    mount::axum(axum::Router::new().fallback(ask))
}

/// warp's filters see of a `CONNECT` where it leads to by the `Host`.
fn by_warp() -> Target {
    let ask = |method: Method, to: String, upgrade: Option<OnUpgrade>| -> Response<String> {
        begun(&method, Some(to), upgrade)
    };
    let routes = warp::method().and(warp::header("host")).and(warp::ext::optional()).map(ask);
    mount::tower(warp::service(routes))
}

/// actix gives an app its connection as payload and body. Of an upgrade to something that is not a websocket
/// it gives the body alone, under its own server as well.
fn by_actix() -> Target {
    async fn ask(request: HttpRequest, mut payload: web::Payload) -> HttpResponse {
        if request.method() == actix_web::http::Method::CONNECT {
            let to = request.uri().authority().unwrap().to_string();
            let (far, mut to_far) = TcpStream::connect(to).await.unwrap().into_split();
            drop(actix_web::rt::spawn(async move {
                while let Some(Ok(bytes)) = payload.next().await {
                    if to_far.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                let _ = to_far.shutdown().await;
            }));
            let from_far = stream::unfold(far, async |mut far| {
                let mut bytes = vec![0; 16 << 10];
                let read = far.read(&mut bytes).await.ok().filter(|read| *read > 0)?;
                bytes.truncate(read);
                Some((Ok::<_, Infallible>(Bytes::from(bytes)), far))
            });
            return HttpResponse::Ok().streaming(from_far);
        }
        let Some(protocol) = request.headers().get(header::UPGRADE) else {
            return HttpResponse::UpgradeRequired().finish();
        };
        let goodbye = stream::iter([Ok(Bytes::from_static(b"goodbye"))]);
        let mut response = HttpResponse::SwitchingProtocols();
        response.upgrade(protocol.to_str().unwrap()).streaming(payload.chain(goodbye))
    }
    mount::actix(|| actix_web::App::new().default_service(web::to(ask)))
}

fn app(framework: &str) -> Target {
    match framework {
        "axum" => by_axum(),
        "actix" => by_actix(),
        _ => by_warp(),
    }
}

/// The apps below prefixes, on workers and on threads of their own.
fn site() -> Site {
    let base = Deployment::new("upgrades").listen(ANY_PORT).listen(ANY_TLS_PORT).listen("unix:app.sock");
    Site::start(FRAMEWORKS.iter().fold(base, |deployment, framework| {
        deployment
            .mount(format!("/{framework}"), app(framework))
            .mount(format!("/{framework}-own"), app(framework).own_threads(1))
    }))
}

pub(crate) fn upgrade(target: &str, protocol: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\n")
}

#[test]
fn a_protocol_of_ones_own_goes_both_ways_to_its_end() {
    let site = site();
    // What is no websocket is not heard by apps of actix, see below.
    for (target, protocol) in [
        ("/axum", "echo"),
        ("/axum-own", "echo"),
        ("/warp", "echo"),
        ("/warp-own", "echo"),
        ("/actix", "websocket"),
        ("/actix-own", "websocket"),
    ] {
        for mut wire in [site.wire(), site.tls_wire(), Wire::unix(&site.path("app.sock"))] {
            // The first bytes come with the request.
            wire.send(upgrade(target, protocol) + "early");
            let answer = wire.answer();
            assert_eq!(answer.status, 101, "{target}: {answer:?}");
            if protocol == "echo" {
                assert_eq!(answer.header("upgrade"), Some("echo"), "{target}");
            }
            assert_eq!(wire.take(5), b"early", "{target}");
            // Bytes of any kind, such as look like HTTP among them.
            for bytes in [&get("/")[..], "\0\r\n\r\n0\r\n\r\n", &"x".repeat(100_000)] {
                wire.send(bytes);
                assert_eq!(wire.take(bytes.len()), bytes.as_bytes(), "{target}");
            }
            // Who says no more still hears the rest.
            wire.send("last");
            wire.finish();
            assert_eq!(wire.rest(), (b"lastgoodbye".to_vec(), End::Closed), "{target}");
        }
        let answer = site.wire().ask(get(target));
        assert_eq!(answer.status, 426, "{target}: {answer:?}");
    }
    site.connections(0);
    site.requests(0);
}

#[test]
fn of_a_protocol_that_actix_does_not_know_its_apps_hear_nothing_and_say_what_they_want() {
    let site = site();
    for target in ["/actix", "/actix-own"] {
        let mut wire = site.wire();
        wire.send(upgrade(target, "echo") + "unheard");
        let answer = wire.answer();
        assert_eq!((answer.status, answer.header("upgrade")), (101, Some("echo")), "{target}");
        assert_eq!(wire.rest().0, b"goodbye", "{target}");
    }
}

/// Each framework as a proxy for everybody: what leads anywhere leads to another site here.
fn proxy(framework: &str, own_threads: bool) -> Site {
    let target = app(framework);
    let target = if own_threads { target.own_threads(1) } else { target };
    let base = Deployment::new("proxy").listen(ANY_PORT).listen(ANY_TLS_PORT).listen("unix:app.sock");
    Site::start(base.mount("/", target).mount("/axum", mount::axum(hello_axum::app())))
}

fn connect(to: SocketAddr) -> String {
    format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n\r\n")
}

#[test]
fn a_tunnel_leads_where_the_app_carries_it() {
    let far = Site::start(crate::site::three());
    for (framework, own) in FRAMEWORKS.iter().flat_map(|framework| [(*framework, false), (*framework, true)])
    {
        let near = proxy(framework, own);
        for mut wire in [near.wire(), near.tls_wire(), Wire::unix(&near.path("app.sock"))] {
            let head = {
                wire.send(connect(far.address()));
                wire.head()
            };
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{framework}: {head}");
            assert!(!head.contains("transfer-encoding"), "{framework}: {head}");
            for name in ["a", "b"] {
                let answer = wire.ask(get(&format!("/warp/hello/{name}")));
                assert_eq!(answer.text(), format!("Hello, {name}!\n"), "{framework}");
            }
            wire.send(get("/actix/fill?bytes=300000"));
            wire.finish();
            assert_eq!(wire.answer().body.len(), 300_000, "{framework}");
            assert_eq!(wire.rest(), (vec![], End::Closed), "{framework}");
        }
        near.connections(0);
    }
    far.connections(0);
}

#[test]
fn a_tunnel_is_a_stream_of_http2() {
    let far = Site::start(crate::site::three());
    for (framework, own) in FRAMEWORKS.iter().flat_map(|framework| [(*framework, false), (*framework, true)])
    {
        let near = proxy(framework, own);
        for http2 in [near.http2(), near.tls_http2()] {
            let mut request = http2.request(Method::CONNECT, "/", &[], "");
            *request.uri_mut() = far.address().to_string().parse().unwrap();
            let heard = http2.wait(async {
                let mut response = http2.begin(request).await.unwrap();
                assert_eq!(response.status(), 200, "{framework}");
                let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
                io.write_all(get("/axum/hello/x").as_bytes()).await.unwrap();
                let mut heard = vec![0; 15];
                let _ = io.read_exact(&mut heard).await.unwrap();
                io.write_all(get("/axum/fill?bytes=300000").as_bytes()).await.unwrap();
                io.shutdown().await.unwrap();
                let _ = io.read_to_end(&mut heard).await.unwrap();
                heard
            });
            assert!(heard.starts_with(b"HTTP/1.1 200 OK"), "{framework}");
            assert!(heard.len() > 300_000 && heard.ends_with(b"0\r\n\r\n"), "{framework}: {}", heard.len());
            // The others on the connection do not notice.
            assert_eq!(http2.get("/axum/hello/x").text(), "Hello, x!\n", "{framework}");
        }
        near.requests(0);
    }
}
