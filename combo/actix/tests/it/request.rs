use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use actix_web::{App, FromRequest as _, HttpRequest, HttpResponse, dev::ConnectionInfo, web};
use combo_actix::{ActixService, Arrival};
use http::{HeaderName, HeaderValue, Method, Request, Version};
use tower::ServiceExt as _;

use crate::{alone, empty, full, text};

/// An app that gives every request to `look` and answers with what it says.
async fn looking<F>(look: F) -> ActixService
where
    F: Fn(&HttpRequest) -> String + Clone + 'static,
{
    ActixService::new(move || {
        let look = look.clone();
        App::new().default_service(web::to(move |request: HttpRequest| {
            let seen = look(&request);
            async move { HttpResponse::Ok().body(seen) }
        }))
    })
    .await
    .unwrap()
}

fn strip(strip: usize) -> Arrival {
    Arrival { strip, ..Arrival::default() }
}

#[test]
fn the_app_sees_the_rest_of_the_path_and_can_ask_for_all_of_it() {
    alone(async {
        let service = looking(|request| {
            let arrived = request.head().uri.clone();
            let own = actix_web::HttpMessage::extensions(request);
            let own = own.get::<actix_web::http::Uri>().unwrap();
            format!("{arrived} {own}")
        })
        .await;
        let long = format!("/x/{}", "a".repeat(1000));
        let cases = [
            ("/x", 0, "/x"),
            ("/x", 2, "/"),
            ("/x/", 2, "/"),
            ("/x?q", 2, "/?q"),
            ("/x?q=/x", 2, "/?q=/x"),
            ("/x/?q", 2, "/?q"),
            ("/x/a", 2, "/a"),
            ("/x//a", 2, "//a"),
            ("/x/%2f/%C3%A9", 2, "/%2f/%C3%A9"),
            ("/x/a%3Fb?c=%26", 2, "/a%3Fb?c=%26"),
            ("/x/{a}\"?b", 2, "/{a}\"?b"),
            ("http://one.example/x/a?q", 2, "http://one.example/a?q"),
            ("https://one.example:8443/x", 2, "https://one.example:8443/"),
            // Never more than the path, and always a path.
            ("/x?q", 99, "/?q"),
            ("/xyz", 2, "/yz"),
            (&long, 2, &long[2..]),
        ];
        // Paths are remembered from one request to the next.
        for (arrived, bytes, seen) in cases.iter().cycle().take(20 * cases.len()) {
            let request = Request::get(*arrived).body(empty()).unwrap();
            let answer = text(service.call_with(request, strip(*bytes)).await).await;
            assert_eq!(answer, format!("{seen} {arrived}"), "{arrived} without {bytes}");
        }
    });
}

#[test]
fn one_path_may_lose_more_or_less() {
    alone(async {
        let service = looking(|request| request.path().to_owned()).await;
        for _again in 0..20 {
            for (bytes, seen) in [(0, "/a/b"), (2, "/b"), (4, "/")] {
                let request = Request::get("/a/b").body(empty()).unwrap();
                assert_eq!(text(service.call_with(request, strip(bytes)).await).await, seen);
            }
        }
    });
}

#[test]
fn targets_without_a_path_are_left_alone() {
    alone(async {
        let service = looking(|request| format!("{} {}", request.method(), request.uri())).await;
        for (method, target) in [(Method::OPTIONS, "*"), (Method::CONNECT, "one.example:443")] {
            for bytes in [0, 2] {
                let request = Request::builder().method(&method).uri(target).body(empty()).unwrap();
                let answer = text(service.call_with(request, strip(bytes)).await).await;
                assert_eq!(answer, format!("{method} {target}"));
            }
        }
    });
}

#[test]
fn a_path_that_actix_cannot_hold_is_a_bad_request() {
    alone(async {
        let service = looking(|_| unreachable!()).await;
        let request = Request::get("/é").body(empty()).unwrap();
        let response = service.call_with(request, strip(0)).await;
        assert_eq!(response.status(), 400);
        assert_eq!(text(response).await, "");
    });
}

#[test]
fn methods_come_as_they_are() {
    alone(async {
        let service = looking(|request| request.method().to_string()).await;
        for method in [
            "GET",
            "POST",
            "PUT",
            "DELETE",
            "OPTIONS",
            "PATCH",
            "TRACE",
            "PURGE",
            "M-SEARCH",
            "get",
            "A-METHOD-LONGER-THAN-ANY-BUFFER",
        ] {
            let request = Request::builder().method(method).uri("/").body(empty()).unwrap();
            assert_eq!(text(service.call_with(request, strip(0)).await).await, method);
        }
    });
}

#[test]
fn versions_come_as_they_are() {
    alone(async {
        let service = looking(|request| format!("{:?}", request.version())).await;
        for version in
            [Version::HTTP_09, Version::HTTP_10, Version::HTTP_11, Version::HTTP_2, Version::HTTP_3]
        {
            let request = Request::get("/").version(version).body(empty()).unwrap();
            assert_eq!(text(service.call_with(request, strip(0)).await).await, format!("{version:?}"));
        }
    });
}

#[test]
fn the_connection_header_is_told_as_actix_tells_it() {
    alone(async {
        let service = looking(|request| format!("{:?}", request.head().connection_type())).await;
        for (version, values, told) in [
            (Version::HTTP_11, &[][..], "KeepAlive"),
            (Version::HTTP_10, &[], "Close"),
            (Version::HTTP_10, &["keep-alive"], "KeepAlive"),
            (Version::HTTP_11, &["Close"], "Close"),
            (Version::HTTP_11, &["keep-alive, Upgrade"], "Upgrade"),
            (Version::HTTP_11, &["upgrade", " close "], "Close"),
            (Version::HTTP_11, &["te"], "KeepAlive"),
        ] {
            let mut request = Request::get("/").version(version);
            for value in values {
                request = request.header("connection", *value);
            }
            let request = request.body(empty()).unwrap();
            assert_eq!(text(service.call_with(request, strip(0)).await).await, told, "{values:?}");
        }
    });
}

/// The headers of each request, as the app saw them.
type Seen = Rc<RefCell<Vec<(String, Vec<u8>)>>>;

async fn recording() -> (ActixService, Seen) {
    let seen = Seen::default();
    let record = Rc::clone(&seen);
    let service = looking(move |request| {
        *record.borrow_mut() = request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
            .collect();
        // The order of different names is the map's own affair; that of the same name is not.
        record.borrow_mut().sort_by(|(one, _), (other, _)| one.cmp(other));
        String::new()
    })
    .await;
    (service, seen)
}

fn expected(headers: &http::HeaderMap) -> Vec<(String, Vec<u8>)> {
    let mut headers: Vec<_> =
        headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    headers.sort_by(|(one, _), (other, _)| one.cmp(other));
    headers
}

#[test]
fn headers_come_as_they_are() {
    alone(async {
        let (service, seen) = recording().await;
        let long = "x".repeat(20_000);
        let long_name = "n".repeat(300);
        for headers in [
            &[][..],
            &[("host", "one.example"), ("accept", "*/*")],
            &[("accept", "a"), ("accept", "b"), ("accept", "a"), ("accept", "a"), ("accept", "b")],
            &[("x-own", "1"), ("x-own", "2"), ("x-other", "3"), ("x-own", "3")],
            &[("x-bytes", "caf\u{e9} \u{ff}\u{80}"), ("x-empty", ""), ("x-tab", "a\tb")],
            &[("cookie", "a=b"), ("cookie", "c=d"), ("authorization", "Basic eA==")],
            &[("sec-fetch-mode", "cors"), ("sec-ch-ua", "\"a\";v=\"1\", \"b\"")],
            &[("user-agent", long.as_str()), (long_name.as_str(), "x"), ("x", "y")],
        ] {
            let mut request = Request::get("/").body(empty()).unwrap();
            for (name, value) in headers {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                let bytes: Vec<u8> = value.chars().map(|letter| letter as u8).collect();
                let _ = request.headers_mut().append(name, HeaderValue::from_bytes(&bytes).unwrap());
            }
            let expected = expected(request.headers());
            for _again in 0..20 {
                let _ = service.call_with(request.clone(), strip(0)).await;
                assert_eq!(*seen.borrow(), expected);
            }
        }
    });
}

/// Values are remembered from one request to the next; this would find one remembered wrongly.
#[test]
fn requests_do_not_see_each_others_headers() {
    alone(async {
        let (service, seen) = recording().await;
        let names = ["host", "accept", "user-agent", "cookie", "x-own", "sec-fetch-mode", "range"];
        let values = ["", "a", "b", "one.example", "two.example", "*/*", "text/html"];
        let mut state = 1_u64;
        let mut below = |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % bound
        };
        for _request in 0..5_000 {
            let mut request = Request::get("/").body(empty()).unwrap();
            for _header in 0..below(10) {
                let mut value = HeaderValue::from_static(values[below(values.len())]);
                value.set_sensitive(below(4) == 0);
                let _ = request.headers_mut().append(names[below(names.len())], value);
            }
            let expected = expected(request.headers());
            let _ = service.call_with(request, strip(0)).await;
            assert_eq!(*seen.borrow(), expected);
        }
    });
}

#[test]
fn a_sensitive_value_stays_so() {
    alone(async {
        let service =
            looking(|request| request.headers().get("accept").unwrap().is_sensitive().to_string()).await;
        for (sensitive, told) in [(true, "true"), (false, "false"), (true, "true")] {
            let mut value = HeaderValue::from_static("a");
            value.set_sensitive(sensitive);
            let request = Request::get("/").header("accept", value).body(empty()).unwrap();
            assert_eq!(text(service.call_with(request, strip(0)).await).await, told);
        }
    });
}

#[test]
fn a_missing_host_is_taken_from_the_authority() {
    alone(async {
        let service = looking(|request| format!("{:?}", request.headers().get("host"))).await;
        for (uri, host, told) in [
            ("https://one.example:8443/", None, "Some(\"one.example:8443\")"),
            ("https://me@one.example/", None, "Some(\"one.example\")"),
            ("https://one.example/", Some("two.example"), "Some(\"two.example\")"),
            ("/", None, "None"),
        ] {
            let mut request = Request::get(uri).body(empty()).unwrap();
            if let Some(host) = host {
                let _ = request.headers_mut().insert("host", HeaderValue::from_static(host));
            }
            assert_eq!(text(service.call_with(request, strip(0)).await).await, told, "{uri}");
        }
    });
}

#[test]
fn the_peer_is_what_the_host_says() {
    alone(async {
        let service = looking(|request| format!("{:?}", request.peer_addr())).await;
        let peer = SocketAddr::from(([192, 0, 2, 1], 4711));
        let other = SocketAddr::from(([192, 0, 2, 2], 4712));
        let request = || Request::get("/").body(empty()).unwrap();

        assert_eq!(text(service.call_with(request(), strip(0)).await).await, "None");
        let arrival = Arrival { peer: Some(peer), ..Arrival::default() };
        let told = text(service.call_with(request(), arrival.clone()).await).await;
        assert_eq!(told, format!("{:?}", Some(peer)));

        let mut as_tower = request();
        let _ = as_tower.extensions_mut().insert(other);
        let told = text(service.clone().oneshot(as_tower.clone()).await.unwrap()).await;
        assert_eq!(told, format!("{:?}", Some(other)));
        let _ = as_tower.extensions_mut().insert(arrival);
        let told = text(service.clone().oneshot(as_tower).await.unwrap()).await;
        assert_eq!(told, format!("{:?}", Some(peer)));
        let told = text(service.oneshot(request()).await.unwrap()).await;
        assert_eq!(told, "None");
    });
}

#[test]
fn a_plain_tower_service_strips_what_an_arrival_among_the_extensions_says() {
    alone(async {
        let service = looking(|request| request.uri().to_string()).await;
        let request = Request::get("/x/a").extension(strip(2)).body(empty()).unwrap();
        assert_eq!(text(service.oneshot(request).await.unwrap()).await, "/a");
    });
}

#[test]
fn connection_info_tells_scheme_and_host() {
    alone(async {
        let service = looking(|request| {
            let told = ConnectionInfo::extract(request).into_inner().unwrap();
            format!("{} {} {:?}", told.scheme(), told.host(), told.peer_addr())
        })
        .await;
        let tls = Some((http::uri::Scheme::HTTPS, "one.example".parse().unwrap()));
        let own = |scheme: http::uri::Scheme| Some((scheme, "one.example".parse().unwrap()));
        let peer = Some(SocketAddr::from(([192, 0, 2, 1], 1)));
        for (uri, origin, told) in [
            ("/", None, "http one.example Some(\"192.0.2.1\")"),
            ("/", tls.clone(), "https one.example Some(\"192.0.2.1\")"),
            ("https://one.example/", None, "https one.example Some(\"192.0.2.1\")"),
            // The client wrote the scheme, the host knows better.
            ("https://one.example/", own(http::uri::Scheme::HTTP), "http one.example Some(\"192.0.2.1\")"),
            ("http://one.example/", tls, "https one.example Some(\"192.0.2.1\")"),
        ] {
            let mut request = Request::get(uri).body(empty()).unwrap();
            if uri == "/" {
                let _ = request.headers_mut().insert("host", HeaderValue::from_static("one.example"));
            }
            let arrival = Arrival { peer, strip: 0, origin, header: None };
            assert_eq!(text(service.call_with(request, arrival).await).await, told, "{uri}");
        }
    });
}

#[derive(Clone, Debug, PartialEq)]
struct Session(u32);

#[test]
fn the_requests_own_extensions_can_be_reached() {
    async fn reach(
        uri: web::ReqData<actix_web::http::Uri>,
        all: Option<web::ReqData<http::Extensions>>,
    ) -> String {
        format!("{} {:?}", *uri, all.map(|all| all.get::<Session>().cloned()))
    }
    alone(async {
        let service = ActixService::new(|| App::new().route("/a", web::get().to(reach))).await.unwrap();
        let request = Request::get("/x/a").extension(Session(7)).body(empty()).unwrap();
        let told = text(service.call_with(request, strip(2)).await).await;
        assert_eq!(told, "/x/a Some(Some(Session(7)))");
        let request = Request::get("/x/a").body(empty()).unwrap();
        assert_eq!(text(service.call_with(request, strip(2)).await).await, "/x/a None");
    });
}

#[test]
fn a_known_empty_body_is_no_payload() {
    async fn kind(payload: web::Payload) -> &'static str {
        match payload.into_inner() {
            actix_web::dev::Payload::None => "none",
            _ => "some",
        }
    }
    alone(async {
        let service = ActixService::new(|| App::new().default_service(web::to(kind))).await.unwrap();
        let request = Request::post("/").body(empty()).unwrap();
        assert_eq!(text(service.call_with(request, strip(0)).await).await, "none");
        let request = Request::post("/").body(full("a")).unwrap();
        assert_eq!(text(service.call_with(request, strip(0)).await).await, "some");
    });
}

#[test]
fn an_app_that_cannot_be_built_says_so() {
    alone(async {
        let broken = ActixService::new(|| {
            App::new().data_factory(|| async { Err::<u8, _>(std::io::Error::other("no database")) })
        });
        let error = broken.await.unwrap_err();
        assert_eq!(error.to_string(), "cannot build the actix app: its factory gave `()`");
    });
}
