//! A real HAProxy in front: whom apps see, in clear text and over TLS that it passes through.

use std::{
    fmt::Write,
    fs,
    net::{SocketAddr, TcpStream},
    process::Stdio,
};

use serde_json::Value;

use crate::{
    child::command,
    proxies::mirrors,
    site::{ANY_PORT, ANY_TLS_PORT, FRAMEWORKS, Site, eventually, folder, free_port},
    wire::{Alpn, Wire},
};

/// Ended when dropped.
struct Proxy(std::process::Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Passes connections on, each kind from a port of its own: where to, and how it says whom they are from.
fn haproxy(site: &Site, routes: &[(SocketAddr, &str)]) -> (Proxy, Vec<SocketAddr>) {
    let mut said = String::from(
        "global\n maxconn 100\ndefaults\n mode tcp\n timeout connect 60s\n timeout client 60s\n timeout server 60s\n",
    );
    let mut fronts = Vec::new();
    for (index, (to, how)) in routes.iter().enumerate() {
        let front = SocketAddr::from(([127, 0, 0, 1], free_port()));
        write!(said, "listen l{index}\n bind {front}\n server s {to} {how}\n").unwrap();
        fronts.push(front);
    }
    let path = site.path("haproxy.cfg");
    fs::write(&path, said).unwrap();
    let mut command = command("haproxy");
    let _ = command.arg("-db").arg("-f").arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
    let proxy = Proxy(command.spawn().unwrap_or_else(|error| panic!("`haproxy` is needed here: {error}")));
    for front in &fronts {
        let _ = eventually("it listens", || TcpStream::connect(front).ok());
    }
    (proxy, fronts)
}

fn ask(mut wire: Wire, framework: &str) -> Value {
    wire.ask(format!("GET /{framework}/a HTTP/1.1\r\nhost: localhost\r\n\r\n")).json()
}

#[test]
fn apps_see_who_connects_to_the_proxy() {
    let deployment = mirrors("haproxy")
        .listen(format!("haproxy:{ANY_PORT}"))
        .listen(format!("haproxy:{ANY_TLS_PORT}"))
        .listen(format!("tls:certs:haproxy:{ANY_PORT}"))
        .trusted_proxies(["127.0.0.1"]);
    let folder = folder();
    let pair = ["key.pem", "cert.pem"].map(|name| fs::read_to_string(folder.path().join(name)).unwrap());
    fs::create_dir(folder.path().join("certs")).unwrap();
    fs::write(folder.path().join("certs/localhost.pem"), pair.concat()).unwrap();
    let site = Site::start_in(folder, deployment);
    let addresses: Vec<SocketAddr> = site
        .handle()
        .addresses()
        .iter()
        .map(|address| match address {
            combo::Address::Tcp(address) | combo::Address::Tls(address) => *address,
            other => panic!("{other}"),
        })
        .collect();
    let [clear, ssl, tls] = addresses[..] else { panic!("{addresses:?}") };
    let routes = [
        (clear, "send-proxy"),
        (clear, "send-proxy-v2"),
        (ssl, "send-proxy"),
        (ssl, "send-proxy-v2"),
        (tls, "send-proxy"),
        (tls, "send-proxy-v2"),
    ];
    let (_proxy, fronts) = haproxy(&site, &routes);
    for (front, (to, how)) in fronts.into_iter().zip(routes) {
        for framework in FRAMEWORKS {
            let wire = if to == clear { Wire::tcp(front) } else { Wire::tls(front, Alpn::Http1) };
            let own = wire.socket().local_addr().unwrap().to_string();
            let seen = ask(wire, framework);
            let scheme = if to == clear { "http" } else { "https" };
            assert_eq!(
                (&seen["peer"], &seen["scheme"]),
                (&own.into(), &scheme.into()),
                "{framework} {how}: {seen}"
            );
        }
    }
}

#[test]
fn a_redirect_behind_a_proxy_leads_to_where_it_was_told() {
    let site = Site::start(
        mirrors("led").listen(format!("redirect:port=443:haproxy:{ANY_PORT}")).trusted_proxies(["127.0.0.1"]),
    );
    let (_proxy, fronts) = haproxy(&site, &[(site.address(), "send-proxy-v2")]);
    let answer = Wire::tcp(fronts[0]).ask("GET /a?b HTTP/1.1\r\nhost: a.example\r\n\r\n");
    assert_eq!((answer.status, answer.header("location")), (308, Some("https://a.example/a?b")));
}
