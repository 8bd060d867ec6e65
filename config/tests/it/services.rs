//! Services of other frameworks, mounted as the examples of combo mount them: what each is told and can do.

#![expect(dead_code, reason = "examples have a `main` as well")]

use combo::{Deployment, mount::Target};
use http::{Method, StatusCode};
use tokio::io::AsyncWriteExt;

use crate::{
    site::{ANY_PORT, ANY_TLS_PORT, Site},
    upgrades::upgrade,
    wire::{End, Wire, get, post},
};

#[path = "../../../combo/host/examples/hyper.rs"]
mod by_hyper;
#[path = "../../../combo/host/examples/poem.rs"]
mod by_poem;
#[path = "../../../combo/host/examples/salvo.rs"]
mod by_salvo;

fn site() -> Site {
    let apps: [(&str, fn() -> Target); 2] = [("salvo", by_salvo::app), ("poem", by_poem::app)];
    let base = Deployment::new("services")
        .listen(ANY_PORT)
        .listen(ANY_TLS_PORT)
        .listen("unix:app.sock")
        .mount("/function", by_hyper::function())
        .mount("/service", by_hyper::service());
    Site::start(apps.into_iter().fold(base, |deployment, (name, app)| {
        deployment.mount(format!("/{name}"), app()).mount(format!("/{name}-own"), app().own_threads(1))
    }))
}

fn everywhere(site: &Site) -> [Wire; 3] {
    [site.wire(), site.tls_wire(), Wire::unix(&site.path("app.sock"))]
}

#[test]
fn a_bare_service_function_is_an_app() {
    let site = site();
    for mut wire in everywhere(&site) {
        assert_eq!(wire.ask(post("/function/a/b?c", "body")).text(), "/a/b, 4 bytes\n");
        assert_eq!(wire.ask(get("/service/you")).text(), "Hello, you!\n");
    }
    let http2 = site.http2();
    let request = http2.request(Method::POST, "/function", &[], "body");
    assert_eq!(http2.ask(request).text(), "/, 4 bytes\n");
}

#[test]
fn apps_of_salvo_and_poem_answer_stream_and_are_told_where_they_are() {
    let site = site();
    let large = "x".repeat(300_000);
    for name in ["salvo", "salvo-own", "poem", "poem-own"] {
        for (mut wire, scheme) in everywhere(&site).into_iter().zip(["http", "https", "http"]) {
            assert_eq!(wire.ask(get(&format!("/{name}/hello/x"))).text(), "Hello, x!\n", "{name}");
            let answer = wire.ask(post(&format!("/{name}/echo"), &large));
            assert_eq!((answer.text() == large, answer.whole), (true, true), "{name}");
            let told = wire.ask(get(&format!("/{name}/where")));
            assert!(told.text().ends_with(&format!(" {scheme} /where\n")), "{name}: {told:?}");
            assert_eq!(wire.ask(get(&format!("/{name}/nowhere"))).status, 404, "{name}");
        }
        let mut wire = site.wire();
        let own = wire.socket().local_addr().unwrap().to_string();
        let told = wire.ask(get(&format!("/{name}/where")));
        assert!(told.text().contains(&own), "{name}: {told:?}");
        for http2 in [site.http2(), site.tls_http2()] {
            let answer = http2.ask(http2.request(Method::POST, &format!("/{name}/echo"), &[], large.clone()));
            assert_eq!((answer.text() == large, answer.whole), (true, true), "{name}");
        }
    }
    site.requests(0);
}

/// An endpoint of poem that says again what it hears over a connection of its own protocol.
fn poem_upgrades() -> Target {
    let echo = async |request: poem::Request| -> poem::Result<poem::Response> {
        let upgrade = request.take_upgrade()?;
        drop(tokio::spawn(async {
            let (mut read, mut write) = tokio::io::split(upgrade.await.map_err(std::io::Error::other)?);
            let _ = tokio::io::copy(&mut read, &mut write).await?;
            write.shutdown().await
        }));
        let switching = poem::Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        Ok(switching.header("connection", "upgrade").header("upgrade", "echo").finish())
    };
    by_poem::target(poem::endpoint::make(echo))
}

#[salvo::handler]
async fn salvo_echo(request: &mut salvo::Request, response: &mut salvo::Response) {
    let Some(upgrade) = request.extensions_mut().remove() else { return };
    drop(tokio::spawn(crate::upgrades::echo(upgrade)));
    let _ = response.status_code(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    let _ = headers.insert("connection", "upgrade".parse().unwrap());
    let _ = headers.insert("upgrade", "echo".parse().unwrap());
}

#[test]
fn apps_of_salvo_and_poem_may_take_their_connections_over() {
    let salvo = || by_salvo::target(salvo::Service::new(salvo::Router::new().goal(salvo_echo)));
    let site = Site::start(
        Deployment::new("taken over")
            .listen(ANY_PORT)
            .listen(ANY_TLS_PORT)
            .listen("unix:app.sock")
            .mount("/poem", poem_upgrades())
            .mount("/poem-own", poem_upgrades().own_threads(1))
            .mount("/salvo", salvo())
            .mount("/salvo-own", salvo().own_threads(1)),
    );
    for name in ["poem", "poem-own", "salvo", "salvo-own"] {
        for mut wire in everywhere(&site) {
            wire.send(upgrade(&format!("/{name}"), "echo") + "early");
            assert_eq!(wire.answer().status, 101, "{name}");
            assert_eq!(wire.take(5), b"early", "{name}");
            wire.send("last");
            wire.finish();
            let (rest, end) = wire.rest();
            assert!(rest.starts_with(b"last") && end == End::Closed, "{name}: {rest:?}");
        }
    }
    site.connections(0);
}
