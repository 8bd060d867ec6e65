//! The prefix rule: which mount answers which request, and what its app sees of it, as one table
//! against every framework, over both versions of HTTP.

use combo::{Deployment, mount};
use http::Method;
use serde_json::{Value, json};

use crate::{
    mirror::{Reached, mirror},
    site::{ANY_PORT, ANY_TLS_PORT, FRAMEWORKS, Site, three},
    wire::{Answer, get},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

const VERSIONS: [Version; 2] = [Version::Http1, Version::Http2];

/// One request to a site, on a connection of its own.
fn ask(site: &Site, version: Version, tls: bool, method: &str, host: &str, target: &str) -> Answer {
    match version {
        Version::Http1 => {
            let mut wire = if tls { site.tls_wire() } else { site.wire() };
            wire.ask(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        }
        Version::Http2 => {
            let client = if tls { site.tls_http2() } else { site.http2() };
            let scheme = if tls { "https" } else { "http" };
            // A path such as `//x` is none to the parser of whole URIs.
            let uri = http::Uri::builder().scheme(scheme).authority(host).path_and_query(target);
            let mut request = client.request(Method::GET, "/", &[], "");
            *request.uri_mut() = uri.build().expect("a target");
            *request.method_mut() = method.parse().expect("a method");
            client.ask(request)
        }
    }
}

/// The three mirrors at `/axum`, `/actix` and `/warp`, and nothing else.
fn mirrors(unstripped: bool) -> Deployment {
    FRAMEWORKS.iter().fold(
        Deployment::new("mirrors").listen(ANY_PORT).listen(ANY_TLS_PORT).workers(1),
        |deployment, framework| {
            let target = mirror(framework, &Reached::default());
            deployment.mount(format!("/{framework}"), if unstripped { target.unstripped() } else { target })
        },
    )
}

/// The target, and path and query as the app sees them; or nothing, where no mount takes it. `P` is
/// the name of the framework and `%P` the same with its first letter encoded.
const TABLE: [(&str, Option<(&str, Option<&str>)>); 34] = [
    ("/P", Some(("/", None))),
    ("/P/", Some(("/", None))),
    ("/P//", Some(("//", None))),
    ("/P?", Some(("/", Some("")))),
    ("/P?a=1&b=%20/../x", Some(("/", Some("a=1&b=%20/../x")))),
    ("/P/?a", Some(("/", Some("a")))),
    ("/P/x?a?b", Some(("/x", Some("a?b")))),
    ("/P/x", Some(("/x", None))),
    ("/P/x/", Some(("/x/", None))),
    ("/P//x", Some(("//x", None))),
    ("/P///x//y", Some(("///x//y", None))),
    ("/P/P", Some(("/P", None))),
    ("/P/.", Some(("/.", None))),
    ("/P/./x", Some(("/./x", None))),
    ("/P/...", Some(("/...", None))),
    ("/P/%2F", Some(("/%2F", None))),
    ("/P/a%2fb%20c%C3%BC", Some(("/a%2fb%20c%C3%BC", None))),
    ("/P/%41%7e", Some(("/%41%7e", None))),
    ("/P/a;b=c,d:e@f!$&'()*+", Some(("/a;b=c,d:e@f!$&'()*+", None))),
    ("/P/%00%ff", Some(("/%00%ff", None))),
    ("/%P", Some(("/", None))),
    ("/%P/x%2F", Some(("/x%2F", None))),
    ("/%P?a", Some(("/", Some("a")))),
    ("/", None),
    ("/?P", None),
    ("/Px", None),
    ("/Px/P", None),
    ("/xP", None),
    ("/x/P", None),
    ("//P", None),
    ("//P/x", None),
    ("/P%2Fx", None),
    ("/P%2f", None),
    ("/P.", None),
];

fn filled(template: &str, framework: &str) -> String {
    let encoded = format!("%{:02x}{}", framework.as_bytes()[0], &framework[1..]);
    template.replace("%P", &encoded).replace('P', framework)
}

fn check_table(tls: bool, unstripped: bool) {
    let site = Site::start(mirrors(unstripped));
    for version in VERSIONS {
        for framework in FRAMEWORKS {
            for (template, expected) in TABLE {
                let target = filled(template, framework);
                let answer = ask(&site, version, tls, "GET", "test:1", &target);
                let said = format!("{target} over {version:?}: {answer:?}");
                let Some((path, query)) = expected else {
                    assert_eq!((answer.status, answer.text()), (404, "not found\n"), "{said}");
                    continue;
                };
                assert_eq!(answer.status, 200, "{said}");
                let seen = answer.json();
                let whole = target.split_once('?').map_or(&*target, |(path, _)| path).to_owned();
                let path = if unstripped { whole } else { filled(path, framework) };
                let scheme = if tls { "https" } else { "http" };
                // HTTP/2 has scheme and authority in every request.
                let absolute = tls || version == Version::Http2;
                let original = if absolute { format!("{scheme}://test:1{target}") } else { target.clone() };
                for (what, expected) in [
                    ("framework", json!(framework)),
                    ("method", json!("GET")),
                    ("path", json!(path)),
                    ("query", json!(query)),
                    ("original", json!(original)),
                    ("scheme", json!(scheme)),
                    ("host", json!("test:1")),
                    ("mount", json!(format!("/{framework}"))),
                    ("prefix", if unstripped { Value::Null } else { json!(format!("/{framework}")) }),
                ] {
                    assert_eq!(seen[what], expected, "{what} of {said}");
                }
                let peer: std::net::SocketAddr =
                    seen["peer"].as_str().expect("a peer").parse().expect("an address");
                assert!(peer.ip().is_loopback(), "{said}");
            }
        }
    }
}

#[test]
fn every_app_sees_the_rest_of_the_path() {
    check_table(false, false);
}

#[test]
fn every_app_sees_the_rest_of_the_path_over_tls() {
    check_table(true, false);
}

#[test]
fn an_unstripped_app_sees_the_whole_path() {
    check_table(false, true);
}

#[test]
fn the_apps_say_where_they_are() {
    let site = Site::start(three().listen(ANY_TLS_PORT));
    for (version, tls) in
        [(Version::Http1, false), (Version::Http2, false), (Version::Http1, true), (Version::Http2, true)]
    {
        for framework in FRAMEWORKS {
            let target = format!("/{framework}/where?x=%2F");
            let seen = ask(&site, version, tls, "PUT", "test", &target).json();
            let scheme = if tls { "https" } else { "http" };
            let absolute = tls || version == Version::Http2;
            let original = if absolute { format!("{scheme}://test{target}") } else { target.clone() };
            let expected = json!({
                "framework": framework, "method": "PUT", "path": "/where", "query": "x=%2F", "original": original,
                "prefix": format!("/{framework}"), "peer": seen["peer"], "scheme": scheme, "host": "test",
            });
            assert_eq!(seen, expected, "{version:?} {tls}");
            assert!(seen["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{seen}");
            let missing = ask(&site, version, tls, "GET", "test", &format!("/{framework}/nowhere"));
            assert_eq!(missing.status, 404);
            let other = ask(&site, version, tls, "GET", "test", &format!("/{framework}x"));
            assert_eq!(other.status, 404);
        }
        let page = ask(&site, version, tls, "GET", "test", "/index.html?P");
        assert_eq!((page.status, page.text()), (200, "welcome\n"));
    }
}

#[test]
fn every_app_can_be_at_the_root() {
    for framework in FRAMEWORKS {
        let site = Site::start(
            Deployment::new("root").listen(ANY_PORT).mount("/", mirror(framework, &Reached::default())),
        );
        for version in VERSIONS {
            for target in ["/", "//", "/x?y", "//x//", "/axum"] {
                let seen = ask(&site, version, false, "GET", "test", target).json();
                let path = target.split('?').next();
                assert_eq!(
                    (&seen["path"], &seen["prefix"], &seen["mount"]),
                    (&json!(path), &Value::Null, &json!("/"))
                );
            }
        }
    }
}

#[test]
fn an_absolute_target_is_the_same_request() {
    let site = Site::start(mirrors(false));
    for framework in FRAMEWORKS {
        let original = format!("http://test/{framework}/x?y");
        let seen = site.wire().ask(get(&original)).json();
        assert_eq!(
            (&seen["path"], &seen["query"], &seen["original"]),
            (&json!("/x"), &json!("y"), &json!(original))
        );
        // The scheme is the socket's.
        let spoofed = site.wire().ask(get(&original.replace("http:", "https:"))).json();
        assert_eq!((&spoofed["original"], &spoofed["scheme"]), (&json!(original), &json!("http")));
    }
}

#[test]
fn the_longest_prefix_wins_and_prefixes_may_be_deep() {
    let mut deployment = Deployment::new("deep").listen(ANY_PORT);
    for (pattern, framework) in [("/a", "axum"), ("/a/b", "actix"), ("/a/b/c", "warp")] {
        deployment = deployment.mount(pattern, mirror(framework, &Reached::default()));
    }
    let site = Site::start(deployment);
    for version in VERSIONS {
        for (target, framework, path, prefix) in [
            ("/a/bc", "axum", "/bc", "/a"),
            ("/a//b", "axum", "//b", "/a"),
            ("/a/b", "actix", "/", "/a/b"),
            ("/a/%62/x/c", "actix", "/x/c", "/a/b"),
            ("/a/b/cx", "actix", "/cx", "/a/b"),
            ("/%61/b/%63/d", "warp", "/d", "/a/b/c"),
        ] {
            let seen = ask(&site, version, false, "GET", "test", target).json();
            let expected = (&json!(framework), &json!(path), &json!(prefix));
            assert_eq!((&seen["framework"], &seen["path"], &seen["prefix"]), expected, "{target}");
        }
    }
}

#[test]
fn the_most_specific_host_wins() {
    let mut deployment = Deployment::new("hosts").listen(ANY_PORT);
    for (pattern, framework) in [("/", "axum"), ("example.com/", "actix"), ("*.example.com/x", "warp")] {
        deployment = deployment.mount(pattern, mirror(framework, &Reached::default()));
    }
    let site = Site::start(deployment);
    for version in VERSIONS {
        for (host, target, framework) in [
            ("other.org", "/x", "axum"),
            ("example.com", "/x", "actix"),
            ("EXAMPLE.com.:8080", "/x", "actix"),
            ("www.example.com", "/x/y", "warp"),
            ("a.b.Example.Com:1", "/x", "warp"),
            // Where the host's own mounts do not take the path, the next host is asked.
            ("www.example.com", "/y", "axum"),
            ("notexample.com", "/x", "axum"),
            ("[::1]:80", "/x", "axum"),
        ] {
            let seen = ask(&site, version, false, "GET", host, target).json();
            assert_eq!(
                (&seen["framework"], &seen["host"]),
                (&json!(framework), &json!(host)),
                "{host}{target}"
            );
        }
    }
}

#[test]
fn an_asterisk_goes_to_the_root_of_its_host() {
    let mut deployment = Deployment::new("asterisk").listen(ANY_PORT);
    for framework in FRAMEWORKS {
        deployment =
            deployment.mount(format!("{framework}.example/"), mirror(framework, &Reached::default()));
        deployment = deployment.mount(format!("/{framework}"), mirror(framework, &Reached::default()));
    }
    let site = Site::start(deployment);
    for framework in FRAMEWORKS {
        let request = format!("OPTIONS * HTTP/1.1\r\nHost: {framework}.example\r\n\r\n");
        let seen = site.wire().ask(&request).json();
        let expected = (&json!(framework), &json!("OPTIONS"), &json!("*"));
        assert_eq!((&seen["framework"], &seen["method"], &seen["path"]), expected);
    }
    let nowhere = site.wire().ask("OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!((nowhere.status, nowhere.text()), (404, "not found\n"));
    for framework in FRAMEWORKS {
        let seen = ask(&site, Version::Http2, false, "OPTIONS", &format!("{framework}.example"), "*").json();
        assert_eq!((&seen["framework"], &seen["path"]), (&json!(framework), &json!("*")));
    }
    assert_eq!(ask(&site, Version::Http2, false, "OPTIONS", "test", "*").status, 404);
}

#[test]
fn a_tunnel_is_asked_for_at_the_root_of_its_host() {
    let reached = Reached::default();
    let site = Site::start(
        Deployment::new("tunnel")
            .listen(ANY_PORT)
            .mount("axum.example/", mirror("axum", &reached))
            .mount("/axum", mirror("axum", &reached)),
    );
    let mut wire = site.wire();
    wire.send("CONNECT axum.example:80 HTTP/1.1\r\nHost: axum.example:80\r\n\r\n");
    wire.until("HTTP/1.1 200 OK\r\n");
    assert_eq!(reached.count(), 1);
    let nowhere = site.wire().ask("CONNECT test:80 HTTP/1.1\r\nHost: test:80\r\n\r\n");
    assert_eq!((nowhere.status, reached.count()), (404, 1));
}

#[test]
fn a_redirect_keeps_the_rest_of_the_path() {
    let site = Site::start(
        Deployment::new("redirects")
            .listen(ANY_PORT)
            .mount("/old", mount::redirect("/new"))
            .mount("/layered", mount::redirect("/new").layer(tower::layer::util::Identity::new()))
            .mount("/gone", mount::redirect("https://example.com/there").permanent()),
    );
    for version in VERSIONS {
        for (method, target, status, location) in [
            ("GET", "/old", 307, "/new"),
            ("GET", "/old/", 307, "/new"),
            ("POST", "/old/a%2Fb?c=d", 307, "/new/a%2Fb?c=d"),
            ("GET", "/old//evil.example/", 307, "/new/evil.example/"),
            ("GET", "/layered", 307, "/new"),
            ("GET", "/layered/a/long/way?c=d", 307, "/new/a/long/way?c=d"),
            ("GET", "/layered//evil.example/", 307, "/new/evil.example/"),
            ("GET", "/gone/x?y", 308, "https://example.com/there/x?y"),
        ] {
            let answer = ask(&site, version, false, method, "test", target);
            assert_eq!((answer.status, answer.header("location")), (status, Some(location)), "{target}");
        }
        assert_eq!(ask(&site, version, false, "GET", "test", "/older").status, 404);
    }
}
