//! What leads to https, and what is said of it there.

use combo::{Deployment, Hsts, mount, secs};

use crate::{
    site::{ANY_PORT, ANY_TLS_PORT, FRAMEWORKS, Site, three},
    wire::{Wire, get, post},
};

const LOCATION: &str = "location";
const HSTS: &str = "strict-transport-security";

#[test]
fn every_endpoint_in_clear_text_leads_to_https() {
    let site = Site::start(three().listen(ANY_TLS_PORT).redirect_to_https());
    let port = site.tls_address().port();
    for target in ["/axum/where?a=b", "/", "/none", "/a%20b"] {
        let answer = site.wire().ask(get(target));
        assert_eq!(answer.status, 308, "{target}");
        assert_eq!(answer.header(LOCATION), Some(&*format!("https://test:{port}{target}")), "{target}");
        assert_eq!(site.http2().get(target).status, 308, "{target}");
    }
    // Bodies are led there as well, and the connection goes on or ends as after any answer.
    assert_eq!(site.wire().ask(post("/axum/echo", "all of it")).status, 308);
    let mut wire = site.wire();
    for _ in 0..3 {
        assert_eq!(wire.ask(get("/")).status, 308);
    }
    for framework in FRAMEWORKS {
        assert_eq!(site.tls_wire().ask(get(&format!("/{framework}/where"))).status, 200);
    }
}

#[test]
fn a_redirect_has_the_port_and_the_code_that_were_said() {
    let deployment =
        |listen: &str| Deployment::new("redirect").listen(listen).mount("/", mount::redirect("/x"));
    for (said, status, location) in [
        ("port=443", 308, "https://a.example/b?c"),
        ("port=8443:code=301", 301, "https://a.example:8443/b?c"),
    ] {
        let site = Site::start(deployment(&format!("redirect:{said}:{ANY_PORT}")));
        let answer = site.wire().ask("GET /b?c HTTP/1.1\r\nhost: A.example:80\r\n\r\n");
        assert_eq!((answer.status, answer.header(LOCATION)), (status, Some(location)), "{said}");
        let answer = site.wire().ask("HEAD /b?c HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n");
        assert_eq!((answer.status, answer.header(LOCATION)), (status, Some(location)), "{said}");
    }
}

#[test]
fn only_what_the_guard_lets_through_is_led_anywhere() {
    let deployment = Deployment::new("guarded").listen(format!("redirect:port=443:{ANY_PORT}"));
    let site = Site::start(deployment.mount("/", mount::redirect("/x")));
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        // Others may be without one; where this leads to nobody would know.
        ("GET / HTTP/1.0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a@b.example\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a.example\r\nhost: b.example\r\n\r\n", 400),
        ("GET /../x HTTP/1.1\r\nhost: a.example\r\n\r\n", 400),
        ("OPTIONS * HTTP/1.1\r\nhost: a.example\r\n\r\n", 308),
        ("GET / HTTP/1.0\r\nhost: a.example\r\n\r\n", 308),
        // Nobody has ordered anything.
        ("GET /.well-known/acme-challenge/token HTTP/1.1\r\nhost: a.example\r\n\r\n", 404),
        ("GET /.well-known/acme-challenge/ HTTP/1.1\r\nhost: a.example\r\n\r\n", 404),
        ("GET /.well-known/other HTTP/1.1\r\nhost: a.example\r\n\r\n", 308),
    ] {
        let answer = site.wire().ask(request);
        assert_eq!(answer.status, status, "{request:?}");
        assert_eq!(answer.header(LOCATION).is_some(), status == 308, "{request:?}");
    }
}

#[test]
fn answers_over_https_tell_browsers_to_use_nothing_else() {
    let hsts = Hsts::new(secs(63_072_000)).subdomains().preload();
    let site = Site::start(three().listen(ANY_TLS_PORT).hsts(hsts));
    let said = Some("max-age=63072000; includeSubDomains; preload");
    let bad = "GET / HTTP/1.1\r\nhost: a b\r\n\r\n".to_owned();
    for request in [get("/axum/where"), get("/actix/none"), get("/warp/panic"), get("/"), get("/none"), bad] {
        assert_eq!(site.tls_wire().ask(&request).header(HSTS), said, "{request}");
        // RFC 6797, section 7.2.
        assert_eq!(site.wire().ask(&request).header(HSTS), None, "{request}");
    }
    let (secure, clear) = (site.tls_http2(), site.http2());
    for target in ["/axum/where", "/none"] {
        assert_eq!(secure.get(target).header(HSTS), said);
        assert_eq!(clear.get(target).header(HSTS), None);
    }
}

#[test]
fn a_unix_socket_may_have_a_name_that_is_no_file() {
    let name = format!("combo-it-{}", std::process::id());
    let site = Site::start(three().listen(format!("unix:@{name}")));
    let addresses: Vec<_> = site.handle().addresses().iter().map(ToString::to_string).collect();
    assert_eq!(addresses[1], format!("unix:@{name}"));
    for framework in FRAMEWORKS {
        let seen = Wire::abstract_unix(&name).ask(get(&format!("/{framework}/where"))).json();
        assert_eq!(seen["framework"], framework);
    }
    // One that is taken is not there for others.
    let errors = crate::site::refused(three().listen(format!("unix:@{name}")), crate::site::folder().path());
    let said = errors.to_string();
    assert!(
        said.starts_with(&format!("cannot listen on `unix:@{name}` (something else listens there)")),
        "{said}"
    );
}
