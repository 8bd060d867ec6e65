//! What apps are made of, behind a prefix: sessions, forms, middleware, state, tokens, error pages and
//! routes with names. One small app per framework for each.

use std::{
    cell::Cell,
    collections::HashMap,
    convert::Infallible,
    future::{Ready, ready},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use actix::{Actor, Addr, System, SystemService};
use actix_web::{
    App, HttpRequest, HttpResponse,
    dev::{Service as _, ServiceRequest, ServiceResponse},
    middleware::{ErrorHandlerResponse, ErrorHandlers, NormalizePath},
    web,
};
use axum::{
    Form, Json, Router,
    extract::{FromRequestParts, MatchedPath, NestedPath, OriginalUri, Request, State},
    http::request::Parts,
    middleware::{Next, from_fn},
    response::{AppendHeaders, IntoResponse, Redirect},
    routing::{get as getting, post as posting},
};
use combo::{Deployment, RequestBody, mount, mount::Target};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use serde_json::json;
use tower::{Service, ServiceExt as _, util::MapResponse};
use warp::{Filter, Rejection, filters::BoxedFilter, path::FullPath};

use crate::{
    site::{ANY_PORT, FRAMEWORKS, Site},
    wire::{Answer, Wire, get},
};

/// One app per framework, at `/axum`, `/actix` and `/warp`.
fn all(apps: [Target; 3]) -> Deployment {
    let deployment = Deployment::new("apps").listen(ANY_PORT).workers(2);
    FRAMEWORKS
        .iter()
        .zip(apps)
        .fold(deployment, |deployment, (framework, app)| deployment.mount(format!("/{framework}"), app))
}

/// A request with a head and a body of one's own.
fn ask(site: &Site, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    site.wire().ask(format!(
        "{method} {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    ))
}

/// The response of a reply of warp.
fn reply(reply: impl warp::Reply) -> warp::reply::Response {
    warp::Reply::into_response(reply)
}

/// A value that only its maker can make.
fn sealed(value: &str) -> String {
    let mut seal = DefaultHasher::new();
    ("a secret", value).hash(&mut seal);
    format!("{value}.{:016x}", seal.finish())
}

fn opened(said: &str) -> Option<&str> {
    let (value, _) = said.rsplit_once('.')?;
    (sealed(value) == said).then_some(value)
}

/// The prefix that a mounted app is told of.
const PREFIX: &str = "x-forwarded-prefix";

// Sessions.

/// The cookies of somebody who has just logged in, and where they are sent.
fn cookies(name: &str, path: &str) -> [String; 2] {
    [format!("session={}; Path={path}; HttpOnly", sealed(name)), format!("theme=dark; Path={path}")]
}

/// The cookies of somebody who has just logged out.
fn no_cookies(path: &str) -> [String; 2] {
    ["session", "theme"].map(|name| format!("{name}=; Path={path}; Max-Age=0"))
}

/// Who it is, and how they like it.
fn session(cookies: &str) -> Option<String> {
    let pairs: HashMap<&str, &str> = cookies.split("; ").filter_map(|pair| pair.split_once('=')).collect();
    Some(format!("{} likes it {}", opened(pairs.get("session")?)?, pairs.get("theme")?))
}

fn sessions() -> [Target; 3] {
    let text = |headers: &HeaderMap, name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let set = |cookies: [String; 2]| {
        let [one, other] = cookies;
        AppendHeaders([(header::SET_COOKIE, one), (header::SET_COOKIE, other)])
    };
    let by_axum = Router::new()
        .route("/login", posting(async move |who: String| set(cookies(&who, "/"))))
        .route(
            "/login/own",
            posting(async move |headers: HeaderMap, who: String| set(cookies(&who, &text(&headers, PREFIX)))),
        )
        .route("/logout", posting(async move || set(no_cookies("/"))))
        .route(
            "/me",
            getting(async move |headers: HeaderMap| {
                session(&text(&headers, "cookie")).ok_or(StatusCode::UNAUTHORIZED)
            }),
        );

    fn told(request: &HttpRequest, name: &str) -> String {
        request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    }
    fn setting([one, other]: [String; 2]) -> HttpResponse {
        HttpResponse::Ok().append_header(("set-cookie", one)).append_header(("set-cookie", other)).finish()
    }
    let by_actix = || {
        App::new()
            .route("/login", web::post().to(async |who: String| setting(cookies(&who, "/"))))
            .route(
                "/login/own",
                web::post().to(async |request: HttpRequest, who: String| {
                    setting(cookies(&who, &told(&request, PREFIX)))
                }),
            )
            .route("/logout", web::post().to(async || setting(no_cookies("/"))))
            .route(
                "/me",
                web::get().to(async |request: HttpRequest| match session(&told(&request, "cookie")) {
                    Some(session) => HttpResponse::Ok().body(session),
                    None => HttpResponse::Unauthorized().finish(),
                }),
            )
    };

    fn replied(cookies: [String; 2]) -> Response<&'static str> {
        let mut response = Response::new("");
        for cookie in cookies {
            let _ = response.headers_mut().append(header::SET_COOKIE, HeaderValue::try_from(cookie).unwrap());
        }
        response
    }
    let who = || {
        warp::post()
            .and(warp::body::bytes())
            .map(|who: bytes::Bytes| String::from_utf8_lossy(&who).into_owned())
    };
    let by_warp = warp::path!("login")
        .and(who())
        .map(|who: String| replied(cookies(&who, "/")))
        .or(warp::path!("login" / "own")
            .and(warp::header(PREFIX))
            .and(who())
            .map(|prefix: String, who: String| replied(cookies(&who, &prefix))))
        .or(warp::path!("logout").and(warp::post()).map(|| replied(no_cookies("/"))))
        .or(warp::path!("me").and(warp::header::optional("cookie")).map(|cookies: Option<String>| {
            match session(&cookies.unwrap_or_default()) {
                Some(session) => reply(session),
                None => reply(StatusCode::UNAUTHORIZED),
            }
        }));
    [mount::axum(by_axum), mount::actix(by_actix), mount::tower(warp::service(by_warp))]
}

/// What a browser remembers, and where it sends it.
#[derive(Default)]
struct Jar(Vec<(String, String, String)>);

impl Jar {
    fn ask(&mut self, site: &Site, method: &str, target: &str, body: &str) -> Answer {
        let sent: Vec<String> = self
            .0
            .iter()
            .filter(|(path, _, _)| path == "/" || target == path || target.starts_with(&format!("{path}/")))
            .map(|(_, name, value)| format!("{name}={value}"))
            .collect();
        let sent = sent.join("; ");
        let headers: &[_] = if sent.is_empty() { &[] } else { &[("Cookie", &*sent)] };
        let answer = ask(site, method, target, headers, body);
        for (_, cookie) in answer.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (name, rest) = cookie.split_once('=').unwrap();
            let (value, attributes) = rest.split_once("; ").unwrap();
            let path = attributes.split("; ").find_map(|said| said.strip_prefix("Path=")).unwrap();
            self.0.retain(|(known, its, _)| known != path || its != name);
            if !attributes.contains("Max-Age=0") {
                self.0.push((path.to_owned(), name.to_owned(), value.to_owned()));
            }
        }
        answer
    }
}

#[test]
fn a_session_lives_in_signed_cookies() {
    let site = Site::start(all(sessions()));
    for framework in FRAMEWORKS {
        let mut jar = Jar::default();
        let me = format!("/{framework}/me");
        assert_eq!(jar.ask(&site, "GET", &me, "").status, 401, "{framework}");
        assert_eq!(jar.ask(&site, "POST", &format!("/{framework}/login"), "ann").status, 200, "{framework}");
        assert_eq!(jar.0.len(), 2, "both cookies come: {framework}");
        let answer = jar.ask(&site, "GET", &me, "");
        assert_eq!((answer.status, answer.text()), (200, "ann likes it dark"), "{framework}");
        let stolen = format!("session={}; theme=x", sealed("ann").replace("ann", "bob"));
        assert_eq!(ask(&site, "GET", &me, &[("Cookie", &stolen)], "").status, 401, "{framework}");
        assert_eq!(jar.ask(&site, "POST", &format!("/{framework}/logout"), "").status, 200, "{framework}");
        assert!(jar.0.is_empty(), "{framework}");
        assert_eq!(jar.ask(&site, "GET", &me, "").status, 401, "{framework}");
    }
}

/// A browser goes by the path of a cookie, which is what the app says and nothing else.
#[test]
fn a_cookie_of_the_root_is_everybodys_and_one_of_the_prefix_its_apps() {
    let site = Site::start(all(sessions()));
    for framework in FRAMEWORKS {
        for (login, others) in [("login", 200), ("login/own", 401)] {
            let mut jar = Jar::default();
            let _ = jar.ask(&site, "POST", &format!("/{framework}/{login}"), "ann");
            for other in FRAMEWORKS {
                let expected = if other == framework { 200 } else { others };
                let answer = jar.ask(&site, "GET", &format!("/{other}/me"), "");
                assert_eq!(answer.status, expected, "{login} of {framework}, asked at {other}");
            }
        }
    }
}

// Forms.

fn forms() -> [Target; 3] {
    const PAGE: &str = "<!doctype html><form action=form method=post><input name=to></form>\n";
    type Fields = HashMap<String, String>;

    let by_axum = Router::new()
        .route(
            "/form",
            getting(async || axum::response::Html(PAGE))
                .post(async |Form(fields): Form<Fields>| Redirect::to(&fields["to"])),
        )
        .route("/thanks", getting(async || "thank you\n"));
    let by_actix = || {
        let form = web::resource("/form")
            .get(async || HttpResponse::Ok().content_type("text/html; charset=utf-8").body(PAGE))
            .post(async |fields: web::Form<Fields>| web::Redirect::to(fields["to"].clone()).see_other());
        App::new().service(form).route("/thanks", web::get().to(async || "thank you\n"))
    };
    let by_warp = warp::path!("form")
        .and(warp::get())
        .map(|| warp::reply::html(PAGE))
        .or(warp::path!("form").and(warp::post()).and(warp::body::form()).map(|fields: Fields| {
            warp::reply::with_header(StatusCode::SEE_OTHER, header::LOCATION, fields["to"].clone())
        }))
        .or(warp::path!("thanks").map(|| "thank you\n"));
    [mount::axum(by_axum), mount::actix(by_actix), mount::tower(warp::service(by_warp))]
}

/// Where a browser that is at `here` goes when it is told to go `there`.
fn resolved(here: &str, there: &str) -> String {
    match here.rsplit_once('/') {
        Some((folder, _)) if !there.starts_with('/') => format!("{folder}/{there}"),
        _ => there.to_owned(),
    }
}

/// A redirect leaves as the app has written it: one that begins with `/` leads out of the prefix.
#[test]
fn a_redirect_after_a_form_leads_where_the_app_says() {
    let site = Site::start(all(forms()));
    for framework in FRAMEWORKS {
        let form = format!("/{framework}/form");
        let page = ask(&site, "GET", &form, &[], "");
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"), "{framework}");
        let within = format!("/{framework}/thanks");
        for (to, status) in [("thanks", 200), ("/thanks", 404), (&within, 200)] {
            let kind = [("Content-Type", "application/x-www-form-urlencoded")];
            let answer = ask(&site, "POST", &form, &kind, &format!("to={}", to.replace('/', "%2F")));
            assert_eq!((answer.status, answer.header("location")), (303, Some(to)), "{framework}");
            let next = site.wire().ask(get(&resolved(&form, to)));
            assert_eq!(next.status, status, "{to} of {framework}");
        }
    }
}

// Middleware.

const PASSED: &str = "x-passed";

/// Layers that say in the response that they were passed, and answer themselves if they are told to.
fn layers() -> [Target; 3] {
    async fn layer(name: &'static str, request: Request, next: Next) -> axum::response::Response {
        let stop = request.headers().get("x-stop").is_some_and(|value| value == name);
        let mut response = if stop { StatusCode::FORBIDDEN.into_response() } else { next.run(request).await };
        let _ = response.headers_mut().append(PASSED, HeaderValue::from_static(name));
        response
    }
    let by_axum = Router::new()
        .route("/", getting(async || "hello\n"))
        .layer(from_fn(|request, next| layer("inner", request, next)))
        .layer(from_fn(|request, next| layer("outer", request, next)));

    fn stopped(request: &ServiceRequest, name: &str) -> bool {
        request.headers().get("x-stop").is_some_and(|value| value == name)
    }
    fn passed<B>(mut response: ServiceResponse<B>, name: &'static str) -> ServiceResponse<B> {
        let value = actix_web::http::header::HeaderValue::from_static(name);
        response.headers_mut().append(actix_web::http::header::HeaderName::from_static(PASSED), value);
        response
    }
    let by_actix = || {
        App::new()
            .route("/", web::get().to(async || "hello\n"))
            .wrap(actix_web::middleware::from_fn(
                async |request: ServiceRequest, next: actix_web::middleware::Next<_>| {
                    let response: ServiceResponse = if stopped(&request, "inner") {
                        request.into_response(HttpResponse::Forbidden().finish())
                    } else {
                        next.call(request).await?
                    };
                    Ok(passed(response, "inner"))
                },
            ))
            .wrap_fn(|request, inner| {
                let answer: Result<_, ServiceRequest> =
                    if stopped(&request, "outer") { Err(request) } else { Ok(inner.call(request)) };
                async {
                    let response = match answer {
                        Ok(answer) => answer.await?,
                        Err(request) => request.into_response(HttpResponse::Forbidden().finish()),
                    };
                    Ok(passed(response, "outer"))
                }
            })
    };

    fn wrapped(
        filter: BoxedFilter<(warp::reply::Response,)>,
        name: &'static str,
    ) -> BoxedFilter<(warp::reply::Response,)> {
        let stop = warp::header::exact("x-stop", name).map(|| reply(StatusCode::FORBIDDEN));
        let through = stop.or(filter).unify();
        through
            .map(move |mut response: warp::reply::Response| {
                let _ = response.headers_mut().append(PASSED, HeaderValue::from_static(name));
                response
            })
            .boxed()
    }
    let hello = warp::path::end().map(|| reply("hello\n")).boxed();
    let by_warp = hello
        .with(warp::wrap_fn(|filter| wrapped(filter, "inner")))
        .with(warp::wrap_fn(|filter| wrapped(filter, "outer")));
    [mount::axum(by_axum), mount::actix(by_actix), mount::tower(warp::service(by_warp))]
}

fn all_passed(answer: &Answer) -> Vec<&str> {
    answer.headers.iter().filter(|(name, _)| name == PASSED).map(|(_, value)| &**value).collect()
}

#[test]
fn middleware_is_passed_in_its_order_and_may_answer_itself() {
    let site = Site::start(all(layers()));
    for framework in FRAMEWORKS {
        for (stop, status, passed) in [
            ("nobody", 200, &["inner", "outer"][..]),
            ("inner", 403, &["inner", "outer"]),
            ("outer", 403, &["outer"]),
        ] {
            let answer = ask(&site, "GET", &format!("/{framework}"), &[("X-Stop", stop)], "");
            assert_eq!((answer.status, all_passed(&answer)), (status, passed.to_vec()), "{framework}");
        }
    }
}

/// What is wrapped once more, by tower, is a tower service.
#[test]
fn a_layer_of_tower_goes_around_any_service() {
    fn mark<B>(mut response: Response<B>) -> Response<B> {
        let _ = response.headers_mut().append(PASSED, HeaderValue::from_static("tower"));
        response
    }
    fn marked<S, B>(service: S) -> MapResponse<S, fn(Response<B>) -> Response<B>>
    where
        S: Service<http::Request<RequestBody>, Response = Response<B>>,
    {
        service.map_response(mark)
    }
    let router = Router::new().route("/", getting(async || "hello\n"));
    let filter = warp::path::end().map(|| "hello\n");
    let site = Site::start(
        Deployment::new("tower")
            .listen(ANY_PORT)
            .mount("/axum", mount::tower(marked(router)))
            .mount("/warp", mount::tower(marked(warp::service(filter)))),
    );
    for framework in ["axum", "warp"] {
        let answer = site.wire().ask(get(&format!("/{framework}")));
        assert_eq!((answer.text(), all_passed(&answer)), ("hello\n", vec!["tower"]), "{framework}");
    }
}

// State.

/// Apps that count: for the whole process what was made outside of the factory, for their worker what
/// was made in it.
fn counters() -> [Target; 3] {
    let shared = Arc::new(AtomicUsize::new(0));
    let by_axum = mount::local(move || {
        let own = Arc::new(AtomicUsize::new(0));
        Router::new()
            .route(
                "/",
                getting(async |State((shared, own)): State<(Arc<AtomicUsize>, Arc<AtomicUsize>)>| {
                    format!("{} {}", shared.fetch_add(1, Relaxed) + 1, own.fetch_add(1, Relaxed) + 1)
                }),
            )
            .with_state((shared.clone(), own))
    });
    let shared = web::Data::new(AtomicUsize::new(0));
    let by_actix = mount::actix(move || {
        App::new().app_data(shared.clone()).app_data(web::Data::new(Cell::new(0_usize))).route(
            "/",
            web::get().to(async |shared: web::Data<AtomicUsize>, own: web::Data<Cell<usize>>| {
                own.set(own.get() + 1);
                format!("{} {}", shared.fetch_add(1, Relaxed) + 1, own.get())
            }),
        )
    });
    let shared = Arc::new(AtomicUsize::new(0));
    let by_warp =
        mount::local(move || {
            let (shared, own) = (shared.clone(), Arc::new(AtomicUsize::new(0)));
            warp::service(warp::any().map(move || {
                format!("{} {}", shared.fetch_add(1, Relaxed) + 1, own.fetch_add(1, Relaxed) + 1)
            }))
        });
    [by_axum, by_actix, by_warp]
}

#[test]
fn state_from_outside_the_factory_is_the_processs_and_from_inside_the_workers() {
    let site = Site::start(all(counters()));
    for framework in FRAMEWORKS {
        // Two connections are one for each worker.
        let mut wires: Vec<Wire> = (0..2).map(|_| site.wire()).collect();
        for round in 0..3 {
            for (index, wire) in wires.iter_mut().enumerate() {
                let answer = wire.ask(get(&format!("/{framework}")));
                let (shared, own) = (round * 2 + index + 1, round + 1);
                assert_eq!(answer.text(), format!("{shared} {own}"), "{framework}");
            }
        }
        drop(wires);
        site.connections(0);
    }
}

/// A router or a filter that is given as it is, is one for all workers, state and all.
#[test]
fn state_of_what_was_made_once_is_the_processs() {
    let count = || {
        let count = AtomicUsize::new(0);
        move || (count.fetch_add(1, Relaxed) + 1).to_string()
    };
    let (one, other) = (Arc::new(count()), Arc::new(count()));
    let router = Router::new().fallback(async move || one());
    let filter = warp::any().map(move || other());
    let site = Site::start(
        Deployment::new("once")
            .listen(ANY_PORT)
            .workers(2)
            .mount("/axum", mount::axum(router))
            .mount("/warp", mount::tower(warp::service(filter))),
    );
    for framework in ["axum", "warp"] {
        let mut wires: Vec<Wire> = (0..2).map(|_| site.wire()).collect();
        for (index, wire) in wires.iter_mut().enumerate() {
            assert_eq!(
                wire.ask(get(&format!("/{framework}"))).text(),
                (index + 1).to_string(),
                "{framework}"
            );
        }
        drop(wires);
        site.connections(0);
    }
}

// Actors.

/// Counts for everybody who knows its address.
#[derive(Default)]
struct Counter(usize);

impl Actor for Counter {
    type Context = actix::Context<Self>;
}

impl actix::Supervised for Counter {}

impl SystemService for Counter {}

struct More;

impl actix::Message for More {
    type Result = usize;
}

impl actix::Handler<More> for Counter {
    type Result = usize;

    fn handle(&mut self, _: More, _: &mut Self::Context) -> usize {
        self.0 += 1;
        self.0
    }
}

async fn more(counter: &Addr<Counter>) -> String {
    counter.send(More).await.unwrap().to_string()
}

#[test]
fn an_actor_is_one_for_all_workers() {
    let first = Arc::new(OnceLock::new());
    let by_actix = move || {
        // The first worker starts it, where all of them find it.
        let started =
            first.get_or_init(|| Counter::start_in_arbiter(System::current().arbiter(), |_| Counter(10)));
        App::new()
            .app_data(web::Data::new(started.clone()))
            .route("/started", web::get().to(async |counter: web::Data<Addr<Counter>>| more(&counter).await))
            .route("/registered", web::get().to(async || more(&Counter::from_registry()).await))
    };
    let actors = Deployment::new("actors").listen(ANY_PORT).workers(2);
    let site = Site::start(actors.mount("/actors", mount::actix(by_actix)));
    // Two connections are one for each worker.
    let mut wires: Vec<Wire> = (0..2).map(|_| site.wire()).collect();
    for round in 0..3 {
        for (index, wire) in wires.iter_mut().enumerate() {
            let count = round * 2 + index + 1;
            for (path, expected) in [("registered", count), ("started", 10 + count)] {
                let answer = wire.ask(get(&format!("/actors/{path}")));
                assert_eq!(answer.text(), expected.to_string(), "{path}");
            }
        }
    }
}

// Tokens.

/// Somebody who has shown a token.
struct User(String);

impl User {
    fn known(authorization: Option<&str>) -> Option<Self> {
        Some(Self(opened(authorization?.strip_prefix("Bearer ")?)?.to_owned()))
    }
}

const UNKNOWN: &str = "who are you?\n";

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = (StatusCode, [(header::HeaderName, &'static str); 1], &'static str);

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let said = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        Self::known(said).ok_or((StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], UNKNOWN))
    }
}

impl actix_web::FromRequest for User {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _: &mut actix_web::dev::Payload) -> Self::Future {
        let said = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        ready(Self::known(said).ok_or_else(|| {
            let response =
                HttpResponse::Unauthorized().insert_header(("www-authenticate", "Bearer")).body(UNKNOWN);
            actix_web::error::InternalError::from_response("no token", response).into()
        }))
    }
}

#[derive(Debug)]
struct Unknown;

impl warp::reject::Reject for Unknown {}

#[test]
fn who_shows_no_token_gets_401_from_the_app() {
    let by_axum = Router::new().route("/me", getting(async |User(name): User| name));
    let by_actix = || App::new().route("/me", web::get().to(async |User(name): User| name));
    let user = warp::header::optional("authorization").and_then(async |said: Option<String>| {
        User::known(said.as_deref()).ok_or_else(|| warp::reject::custom(Unknown))
    });
    let by_warp = warp::path!("me").and(user).map(|User(name)| name).recover(async |rejection: Rejection| {
        if rejection.find::<Unknown>().is_none() {
            return Err(rejection);
        }
        let reply = warp::reply::with_status(UNKNOWN, StatusCode::UNAUTHORIZED);
        Ok::<_, Rejection>(warp::reply::with_header(reply, header::WWW_AUTHENTICATE, "Bearer"))
    });
    let apps = [mount::axum(by_axum), mount::actix(by_actix), mount::tower(warp::service(by_warp))];
    let site = Site::start(all(apps));
    let right = format!("Bearer {}", sealed("ann"));
    for framework in FRAMEWORKS {
        let me = format!("/{framework}/me");
        for said in [None, Some("Bearer x"), Some("Basic YTpi"), Some(&*right.replace("ann", "bob"))] {
            let headers: Vec<_> = said.iter().map(|said| ("Authorization", *said)).collect();
            let answer = ask(&site, "GET", &me, &headers, "");
            let found = (answer.status, answer.header("www-authenticate"), answer.text());
            assert_eq!(found, (401, Some("Bearer"), UNKNOWN), "{said:?} to {framework}");
        }
        let answer = ask(&site, "GET", &me, &[("Authorization", &right)], "");
        assert_eq!((answer.status, answer.text()), (200, "ann"), "{framework}");
    }
}

// Error pages.

fn page(framework: &str, status: u16) -> String {
    format!("{framework} is sorry for {status}\n")
}

fn error_pages() -> [Target; 3] {
    async fn paged(request: Request, next: Next) -> axum::response::Response {
        let response = next.run(request).await;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            return (status, page("axum", status.as_u16())).into_response();
        }
        response
    }
    let by_axum = Router::new()
        .route("/get", getting(async || "got\n"))
        .route("/broken", getting(async || StatusCode::INTERNAL_SERVER_ERROR))
        .layer(from_fn(paged))
        .fallback(async || (StatusCode::NOT_FOUND, page("axum", 404)));

    fn replaced<B>(response: ServiceResponse<B>) -> actix_web::Result<ErrorHandlerResponse<B>> {
        let status = response.status();
        let page = HttpResponse::build(status).body(page("actix", status.as_u16()));
        let (request, _) = response.into_parts();
        Ok(ErrorHandlerResponse::Response(ServiceResponse::new(request, page.map_into_right_body())))
    }
    let by_actix =
        || {
            App::new()
                .service(web::resource("/get").get(async || "got\n"))
                .service(web::resource("/broken").get(async || {
                    Err::<String, _>(actix_web::error::ErrorInternalServerError("it is broken"))
                }))
                .wrap(ErrorHandlers::new().default_handler(replaced))
        };

    let by_warp = warp::path!("get")
        .and(warp::get())
        .map(|| "got\n")
        .or(warp::path!("broken").and_then(async || Err::<String, _>(warp::reject::custom(Unknown))))
        .recover(async |rejection: Rejection| {
            let status = if rejection.is_not_found() {
                StatusCode::NOT_FOUND
            } else if rejection.find::<warp::reject::MethodNotAllowed>().is_some() {
                StatusCode::METHOD_NOT_ALLOWED
            } else {
                StatusCode::INTERNAL_SERVER_ERROR
            };
            Ok::<_, Infallible>(warp::reply::with_status(page("warp", status.as_u16()), status))
        });
    [mount::axum(by_axum), mount::actix(by_actix), mount::tower(warp::service(by_warp))]
}

#[test]
fn every_app_has_its_own_error_pages() {
    let site = Site::start(all(error_pages()));
    for framework in FRAMEWORKS {
        assert_eq!(site.wire().ask(get(&format!("/{framework}/get"))).text(), "got\n", "{framework}");
        for (method, path, status) in
            [("GET", "", 404), ("GET", "/none", 404), ("POST", "/get", 405), ("GET", "/broken", 500)]
        {
            let answer = ask(&site, method, &format!("/{framework}{path}"), &[], "");
            let found = (answer.status, answer.text());
            assert_eq!(found, (status, &*page(framework, status)), "{method} {path} of {framework}");
        }
    }
    let nobodys = site.wire().ask(get("/none"));
    assert_eq!((nobodys.status, nobodys.text()), (404, "not found\n"));
}

// Routes.

/// Apps whose routes have names, behind `root`, that tell what they know of themselves.
fn routes(roots: [&'static str; 3]) -> [Target; 3] {
    let [axum, actix, warp] = roots;
    let tell =
        async |matched: MatchedPath, nested: NestedPath, OriginalUri(original): OriginalUri, uri: Uri| {
            Json(json!({
                "matched": matched.as_str(),
                "nested": nested.as_str(),
                "original": original.to_string(),
                "path": uri.path(),
            }))
        };
    let api = Router::new().route("/users/{id}", getting(tell)).fallback(async || "none such in the API\n");
    let by_axum = Router::new().nest(&format!("{axum}/api"), api).fallback(async || "none such\n");

    async fn tell_too(request: HttpRequest, original: web::ReqData<actix_web::http::Uri>) -> HttpResponse {
        HttpResponse::Ok().json(json!({
            "matched": request.match_pattern(),
            "link": request.url_for("user", ["8"]).map(String::from).ok(),
            "original": original.to_string(),
            "path": request.path(),
        }))
    }
    let by_actix = move || {
        let api = web::scope(&format!("{actix}/api"))
            .service(web::resource("/users/{id}").name("user").get(tell_too))
            .default_service(web::to(async || "none such in the API\n"));
        App::new().service(api).default_service(web::to(async || "none such\n")).wrap(NormalizePath::trim())
    };

    let root = match warp.strip_prefix('/') {
        Some(root) => warp::path(root).boxed(),
        None => warp::any().boxed(),
    };
    let tell = warp::path!("users" / u32).and(warp::path::full()).and(warp::ext::get()).map(
        |id, path: FullPath, original: Uri| {
            let told = json!({ "id": id, "original": original.to_string(), "path": path.as_str() });
            reply(warp::reply::json(&told))
        },
    );
    let none = warp::any().map(|| reply("none such in the API\n"));
    let by_warp = root
        .and(warp::path("api").and(tell.or(none).unify()))
        .or(warp::any().map(|| reply("none such\n")))
        .unify();
    [mount::axum(by_axum), mount::actix(by_actix), mount::tower(warp::service(by_warp))]
}

fn check_routes(site: &Site, roots: [&str; 3]) {
    let told = |target: &str| site.wire().ask(get(target)).json();
    for (framework, root) in FRAMEWORKS.into_iter().zip(roots) {
        let target = format!("/{framework}/api/users/7");
        let mut expected = json!({ "original": target, "path": format!("{root}/api/users/7") });
        match framework {
            "axum" => {
                expected["matched"] = json!(format!("{root}/api/users/{{id}}"));
                expected["nested"] = json!(format!("{root}/api"));
                // A nested router sees what is left, as it always does.
                expected["path"] = json!("/users/7");
            }
            "actix" => {
                expected["matched"] = json!(format!("{root}/api/users/{{id}}"));
                // A link is made from what the app knows, which is not what was stripped.
                expected["link"] = json!(format!("http://test{root}/api/users/8"));
            }
            _ => expected["id"] = json!(7),
        }
        assert_eq!(told(&target), expected);
        for (target, text) in [("api/none", "none such in the API\n"), ("none", "none such\n")] {
            let answer = site.wire().ask(get(&format!("/{framework}/{target}")));
            assert_eq!(answer.text(), text, "{target} of {framework}");
        }
    }
    // The middleware mends the rest of the path; the original stays what it was.
    let mended = told("/actix//api///users/7/");
    let path = format!("{}/api/users/7", roots[1]);
    assert_eq!((&mended["path"], &mended["original"]), (&json!(path), &json!("/actix//api///users/7/")));
}

#[test]
fn routes_are_named_as_the_app_names_them() {
    let roots = [""; 3];
    check_routes(&Site::start(all(routes(roots))), roots);
}

/// The way to links that work: an app that knows its prefix and sees it.
#[test]
fn routes_of_an_unstripped_app_begin_with_its_prefix() {
    let roots = ["/axum", "/actix", "/warp"];
    check_routes(&Site::start(all(routes(roots).map(Target::unstripped))), roots);
}
