//! What proxies say of others and who is believed; what apps are told of a connection.

use std::{io::Write, net::TcpStream};

use combo::{Deployment, secs};
use serde_json::Value;
use tower_http::trace::TraceLayer;

use crate::{
    lines::log,
    mirror::{Reached, mirror},
    site::{ANY_PORT, ANY_TLS_PORT, FRAMEWORKS, Site},
    wire::{Alpn, End, Wire},
};

/// Mirrors of all frameworks on one worker.
pub(crate) fn mirrors(name: &str) -> Deployment {
    let base = Deployment::new(name).workers(1);
    FRAMEWORKS.iter().fold(base, |deployment, framework| {
        deployment.mount(format!("/{framework}"), mirror(framework, &Reached::default()))
    })
}

fn with(framework: &str, headers: &[(&str, &str)]) -> String {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET /{framework}/a?b HTTP/1.1\r\nhost: combo.example\r\n{lines}\r\n")
}

/// What apps of all frameworks are told alike.
/// All that proxies say in.
const ALL: [&str; 4] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-prefix"];

fn told(seen: &Value) -> [Option<&str>; 4] {
    ["peer", "scheme", "host", "prefix"].map(|name| seen[name].as_str())
}

#[test]
fn what_a_trusted_proxy_says_is_what_every_framework_is_told() {
    let site = Site::start(
        mirrors("trusted")
            .listen(ANY_PORT)
            .listen(ANY_TLS_PORT)
            .trusted_proxies(["127.0.0.0/8", "10.0.0.0/8"])
            .proxy_headers(ALL),
    );
    for framework in FRAMEWORKS {
        let prefix = format!("/{framework}");
        let outer = format!("/outer{prefix}");
        let x = [
            ("x-forwarded-for", "203.0.113.66, 192.0.2.1, 10.0.0.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "outside.example:8443"),
            ("x-forwarded-prefix", "/outer/"),
        ];
        let seen = site.wire().ask(with(framework, &x)).json();
        let expected = ["192.0.2.1:0", "https", "outside.example:8443", &outer].map(Some);
        assert_eq!(told(&seen), expected, "{framework}: {seen}");
        assert_eq!(seen["proxied"], serde_json::json!(["x-forwarded-prefix"]), "{framework}");
        if framework == "actix" {
            let known = ["authority", "remote"].map(|name| seen[name].as_str());
            assert_eq!(known, [Some("outside.example:8443"), Some("192.0.2.1")]);
        }
        // The next request on the same connection is another one's.
        let mut wire = site.wire();
        let by = |address| [("x-forwarded-for", address)];
        for address in ["192.0.2.1", "192.0.2.2"] {
            let seen = wire.ask(with(framework, &by(address))).json();
            assert_eq!(seen["peer"], format!("{address}:0"), "{framework}");
        }
        // What cannot be understood is as if it were not there.
        let bad = [
            ("x-forwarded-for", "nobody"),
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-host", "a b"),
            ("x-forwarded-prefix", "/\\evil.example"),
        ];
        let mut wire = site.wire();
        let own = wire.socket().local_addr().unwrap().to_string();
        let seen = wire.ask(with(framework, &bad)).json();
        let expected = [&*own, "http", "combo.example", &prefix].map(Some);
        assert_eq!(told(&seen), expected, "{framework}: {seen}");
        let http2 = site.http2();
        let headers = [("x-forwarded-for", "192.0.2.3"), ("x-forwarded-host", "outside.example")];
        let request = http2.request(http::Method::GET, &format!("/{framework}/a"), &headers, "");
        let seen = http2.ask(request).json();
        let expected = ["192.0.2.3:0", "http", "outside.example", &prefix].map(Some);
        assert_eq!(told(&seen), expected, "{framework}: {seen}");
    }
    let _ = log().wait(&["access", "peer=192.0.2.3:0"]);
}

/// A header that a proxy does not set is its client's, whatever becomes of the others.
#[test]
fn only_the_headers_that_were_named_are_believed() {
    let deployment = || mirrors("named").listen(ANY_PORT).listen(ANY_TLS_PORT).trusted_proxies(["127.0.0.1"]);
    let forwarded = ("forwarded", "for=\"[2001:db8::1]:4711\";proto=http;host=outside.example");
    let usual = Site::start(deployment());
    let named = Site::start(deployment().proxy_headers(["forwarded"]));
    for framework in FRAMEWORKS {
        let prefix = format!("/{framework}");
        let x = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-prefix", "/evil"), forwarded];
        let seen = named.tls_wire().ask(with(framework, &x)).json();
        let expected = ["[2001:db8::1]:4711", "http", "outside.example", &prefix].map(Some);
        assert_eq!(told(&seen), expected, "{framework}: {seen}");
        let mut wire = usual.wire();
        let own = wire.socket().local_addr().unwrap().to_string();
        let seen = wire.ask(with(framework, &[forwarded])).json();
        let expected = [&*own, "http", "combo.example", &prefix].map(Some);
        assert_eq!(told(&seen), expected, "{framework}: {seen}");
        // What the client wrote, in one line with what the proxy added.
        for client in [&b"\xff"[..], b"\""] {
            let head = format!(
                "GET {prefix}/a HTTP/1.1\r\nhost: combo.example\r\n{}: {}\r\n",
                forwarded.0, forwarded.1
            );
            let ask = [head.as_bytes(), b"x-forwarded-for: ", client, b", 192.0.2.1\r\n\r\n"].concat();
            let seen = wire.ask(ask).json();
            let expected = ["192.0.2.1:0", "http", "combo.example", &prefix].map(Some);
            assert_eq!(told(&seen), expected, "{framework}: {seen}");
        }
    }
}

#[test]
fn nobody_else_is_believed() {
    let site = Site::start(mirrors("others").listen(ANY_PORT).trusted_proxies(["10.0.0.0/8", "unix"]));
    for framework in FRAMEWORKS {
        let spoofed = [
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-prefix", "/evil"),
            ("forwarded", "for=10.0.0.1;proto=https;host=evil.example"),
        ];
        let mut wire = site.wire();
        let own = wire.socket().local_addr().unwrap().to_string();
        let seen = wire.ask(with(framework, &spoofed)).json();
        let prefix = format!("/{framework}");
        let expected = [&*own, "http", "combo.example", &prefix].map(Some);
        assert_eq!(told(&seen), expected, "{framework}: {seen}");
    }
}

#[test]
fn limits_are_of_whom_the_request_is_from() {
    let target = mirror("axum", &Reached::default()).rate_limit(1, secs(3_600));
    let deployment = Deployment::new("true").listen(ANY_PORT).mount("/axum", target);
    let site = Site::start(deployment.trusted_proxies(["127.0.0.1"]));
    let mut wire = site.wire();
    let statuses = ["192.0.2.1", "192.0.2.2", "192.0.2.1"]
        .map(|address| wire.ask(with("axum", &[("x-forwarded-for", address)])).status);
    assert_eq!(statuses, [200, 200, 429]);
}

/// A header of version 2 for 192.0.2.1:5000, whose client spoke TLS to the proxy.
const SECOND: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14\xc0\0\x02\x01\xc6\x33\x64\x01\x13\x88\0\x50\x20\0\x05\x01\0\0\0\0";
const FIRST: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 80\r\n";

#[test]
fn the_proxy_protocol_says_whom_a_connection_is_from() {
    let haproxy = |endpoint: &str| format!("haproxy:{endpoint}");
    let site = Site::start(
        mirrors("haproxy")
            .listen(haproxy(ANY_PORT))
            .listen(haproxy(ANY_TLS_PORT))
            .listen(haproxy("unix:app.sock"))
            .trusted_proxies(["127.0.0.1", "unix"]),
    );
    for framework in FRAMEWORKS {
        let ask = with(framework, &[]);
        for (header, scheme) in [(FIRST, "http"), (SECOND, "https")] {
            let mut tcp = site.wire();
            let mut unix = Wire::unix(&site.path("app.sock"));
            for wire in [&mut tcp, &mut unix] {
                // Together with the request, and torn.
                wire.send(&header[..7]);
                let seen = wire.ask([&header[7..], ask.as_bytes()].concat()).json();
                let told = ["peer", "scheme"].map(|name| seen[name].as_str());
                assert_eq!(told, [Some("192.0.2.1:5000"), Some(scheme)], "{framework}: {seen}");
            }
            // Before TLS.
            let mut tls = Wire::tls(site.tls_address(), Alpn::Http1);
            let mut socket: &TcpStream = tls.socket();
            socket.write_all(header).unwrap();
            let seen = tls.ask(&ask).json();
            let told = ["peer", "scheme", "server name"].map(|name| seen[name].as_str());
            assert_eq!(told, [Some("192.0.2.1:5000"), Some("https"), Some("localhost")], "{framework}");
        }
        let mut unknown = site.wire();
        let own = unknown.socket().local_addr().unwrap().to_string();
        assert_eq!(unknown.ask(["PROXY UNKNOWN\r\n", &ask].concat()).json()["peer"], own, "{framework}");
        // Whom the proxy does not know says nothing of others.
        let ask = with(framework, &[("x-forwarded-for", "192.0.2.2")]);
        assert_eq!(unknown.ask(&ask).json()["peer"], own, "{framework}");
    }
}

#[test]
fn where_a_proxy_is_expected_nobody_else_is_served() {
    let behind =
        |name, proxy: &str| mirrors(name).listen(format!("haproxy:{ANY_PORT}")).trusted_proxies([proxy]);
    let site = Site::start(behind("expected", "127.0.0.1"));
    let wrong = b"PROXY TCP4 192.0.2.1\r\n";
    for bytes in [&with("axum", &[]).into_bytes()[..], wrong, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\0\0"]
    {
        let mut wire = site.wire();
        wire.send(bytes);
        let (answer, end) = wire.rest();
        assert_eq!(answer, b"", "{bytes:?}");
        assert!(matches!(end, End::Closed | End::Reset), "{bytes:?}");
    }
    let site = Site::start(behind("known", "10.0.0.0/8"));
    let mut wire = site.wire();
    let _ = wire.try_send([FIRST, with("axum", &[]).as_bytes()].concat());
    assert_eq!(wire.rest().0, b"");
}

#[test]
fn apps_that_want_it_are_told_of_tls_and_of_who_is_at_a_unix_socket() {
    let site = Site::start(mirrors("told").listen(ANY_TLS_PORT).listen("unix:app.sock"));
    for framework in FRAMEWORKS {
        let seen = site.tls_wire().ask(with(framework, &[])).json();
        let told = ["server name", "alpn", "version"].map(|name| seen[name].as_str());
        assert_eq!(told, ["localhost", "http/1.1", "TLSv1_3"].map(Some), "{framework}: {seen}");
        let seen = site.tls_http2().get(&format!("/{framework}/a")).json();
        assert_eq!(seen["alpn"], "h2", "{framework}");
        let seen = Wire::unix(&site.path("app.sock")).ask(with(framework, &[])).json();
        assert_eq!(seen["process"], std::process::id(), "{framework}: {seen}");
        assert_eq!((&seen["peer"], &seen["version"]), (&Value::Null, &Value::Null), "{framework}");
    }
}

#[test]
fn over_a_unix_socket_every_framework_is_told_by_its_own_means() {
    let site = Site::start(crate::site::three().listen("unix:app.sock"));
    for framework in FRAMEWORKS {
        let ask = format!("GET /{framework}/where?a HTTP/1.1\r\nhost: combo.example\r\n\r\n");
        let seen = Wire::unix(&site.path("app.sock")).ask(ask).json();
        let expected = [None, Some("http"), Some("combo.example"), Some(&*format!("/{framework}"))];
        assert_eq!(told(&seen), expected, "{seen}");
        assert_eq!(seen["original"], format!("/{framework}/where?a"), "{seen}");
        assert_eq!((&seen["path"], &seen["query"]), (&"/where".into(), &"a".into()), "{seen}");
    }
}

#[test]
fn a_host_that_is_not_ours_is_421_over_a_certificate_that_is_not_its() {
    let deployment = || {
        let target = mirror("axum", &Reached::default());
        Deployment::new("hosts").listen(ANY_PORT).listen(ANY_TLS_PORT).mount("localhost/here", target)
    };
    let get = |host: &str, path: &str| format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let words = "misdirected request: this is not the server of that host\n";
    // Also where layers stand before routing.
    for deployment in [deployment(), deployment().layer(TraceLayer::new_for_http())] {
        let site = Site::start(deployment);
        for (host, path, status) in
            [("localhost", "/here", 200), ("localhost", "/there", 404), ("other.example", "/here", 421)]
        {
            let answer = site.tls_wire().ask(get(host, path));
            assert_eq!(answer.status, status, "{host}{path}");
            assert_eq!(answer.text() == words, status == 421, "{host}{path}");
        }
        assert_eq!(site.tls_wire().ask(get("127.0.0.1:8443", "/here")).status, 404);
        assert_eq!(site.wire().ask(get("other.example", "/here")).status, 404);
    }
}

#[test]
fn a_request_of_http_1_0_needs_no_host() {
    let site = Site::start(mirrors("old").listen(ANY_PORT).listen("unix:app.sock"));
    for framework in FRAMEWORKS {
        let ask = format!("GET /{framework}/a HTTP/1.0\r\n\r\n");
        let mut tcp = site.wire();
        let own = tcp.socket().peer_addr().unwrap().to_string();
        assert_eq!(tcp.ask(&ask).json()["host"], own, "{framework}");
        let seen = Wire::unix(&site.path("app.sock")).ask(&ask).json();
        assert_eq!(seen["host"], "localhost", "{framework}");
        // A newer one does, and an older one has one valid one if it has one.
        let newer = format!("GET /{framework}/a HTTP/1.1\r\n\r\n");
        assert_eq!(site.wire().ask(newer).status, 400, "{framework}");
        let wrong = format!("GET /{framework}/a HTTP/1.0\r\nhost: a b\r\n\r\n");
        assert_eq!(site.wire().ask(wrong).status, 400, "{framework}");
    }
}
