//! One app per framework that answers every request with what it sees of it, and counts them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use axum::extract::{ConnectInfo, OriginalUri};
use combo::{Context, mount, mount::Target};
use http::{HeaderMap, Uri};
use serde_json::{Value, json};
use warp::Filter;

/// How many requests an app has got.
#[derive(Clone, Default)]
pub(crate) struct Reached(Arc<AtomicUsize>);

impl Reached {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Relaxed)
    }

    fn more(&self) {
        let _ = self.0.fetch_add(1, Relaxed);
    }
}

/// What an app sees, in the terms of its own framework.
struct Seen<'a> {
    method: &'a str,
    uri: &'a Uri,
    original: Option<&'a Uri>,
    peer: Option<SocketAddr>,
    headers: &'a HeaderMap,
    context: Option<&'a Context>,
}

impl Seen<'_> {
    fn told(&self, framework: &str) -> Value {
        let header = |name| self.headers.get(name).and_then(|value| value.to_str().ok());
        let proxied = self.headers.keys().map(http::HeaderName::as_str);
        let mut proxied: Vec<&str> = proxied.filter(|name| name.contains("forward")).collect();
        proxied.sort_unstable();
        json!({
            "framework": framework,
            "method": self.method,
            "path": self.uri.path(),
            "query": self.uri.query(),
            "original": self.original.map(ToString::to_string),
            "peer": self.peer,
            "host": header("host"),
            "length": header("content-length"),
            "prefix": header("x-forwarded-prefix"),
            "proxied": proxied,
            "mount": self.context.map(|context| &*context.site().pattern),
            "scheme": self.context.map(|context| context.connection().scheme.as_str()),
            "server name": self.context.and_then(|context| context.connection().tls.as_ref()?.server_name.clone()),
            "alpn": self.context.and_then(|context| context.connection().tls.as_ref()?.alpn.clone()),
            "version": self.context.and_then(|context| context.connection().tls.as_ref()?.version.clone()),
            "certificates": self.context.and_then(|context| Some(context.connection().tls.as_ref()?.client_certificates.len())),
            "subject": self.context.and_then(|context| context.connection().tls.as_ref()?.client_subject.clone()),
            "process": self.context.and_then(|context| context.connection().credentials?.process),
        })
    }
}

/// The mirror of a framework.
pub(crate) fn mirror(framework: &str, reached: &Reached) -> Target {
    let target = match framework {
        "axum" => mount::axum(by_axum(reached.clone())),
        "actix" => by_actix(reached.clone()),
        "warp" => mount::tower(warp::service(by_warp(reached.clone()))),
        other => panic!("no mirror is made of {other}"),
    };
    target.context()
}

fn by_axum(reached: Reached) -> axum::Router {
    let tell = async move |OriginalUri(original): OriginalUri, request: axum::extract::Request| {
        reached.more();
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer);
        let seen = Seen {
            method: request.method().as_str(),
            uri: request.uri(),
            original: Some(&original),
            peer,
            headers: request.headers(),
            context: request.extensions().get(),
        };
        axum::Json(seen.told("axum"))
    };
    axum::Router::new().fallback(tell)
}

fn by_actix(reached: Reached) -> Target {
    async fn tell(request: HttpRequest, reached: web::Data<Reached>) -> HttpResponse {
        reached.more();
        // actix has the types of an older `http`.
        let newer = |uri: &actix_web::http::Uri| uri.to_string().parse::<Uri>().expect("a URI");
        let headers: HeaderMap = request
            .headers()
            .iter()
            .map(|(name, value)| {
                let name = http::HeaderName::from_bytes(name.as_str().as_bytes()).expect("a name");
                (name, http::HeaderValue::from_bytes(value.as_bytes()).expect("a value"))
            })
            .collect();
        // As actix's users learn of it; it is kept in the extensions, too.
        let known = request.connection_info().clone();
        let extensions = request.extensions();
        let original = extensions.get().map(newer);
        let uri: Uri = request.uri().path_and_query().expect("a path").as_str().parse().expect("a URI");
        let seen = Seen {
            method: request.method().as_str(),
            uri: &uri,
            original: original.as_ref(),
            peer: request.peer_addr(),
            headers: &headers,
            context: extensions.get::<http::Extensions>().and_then(|newer| newer.get()),
        };
        let mut told = seen.told("actix");
        told["scheme"] = known.scheme().into();
        told["authority"] = known.host().into();
        told["remote"] = known.realip_remote_addr().into();
        HttpResponse::Ok().json(told)
    }
    let reached = web::Data::new(reached);
    mount::actix(move || actix_web::App::new().app_data(reached.clone()).default_service(web::to(tell)))
}

fn by_warp(
    reached: Reached,
) -> impl Filter<Extract = (impl warp::Reply,), Error = std::convert::Infallible> + Clone + Send + Sync + 'static
{
    warp::any()
        .and(warp::method())
        .and(warp::path::full())
        .and(warp::query::raw().map(Some).or(warp::any().map(|| None)).unify())
        .and(warp::ext::optional::<Uri>())
        .and(warp::ext::optional::<SocketAddr>())
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Context>())
        .map(
            move |method: http::Method,
                  path: warp::path::FullPath,
                  query: Option<String>,
                  original,
                  peer,
                  headers,
                  context| {
                let original: Option<Uri> = original;
                let context: Option<Context> = context;
                reached.more();
                let uri =
                    query.iter().fold(path.as_str().to_owned(), |path, query| format!("{path}?{query}"));
                let seen = Seen {
                    method: method.as_str(),
                    uri: &uri.parse().expect("a URI"),
                    original: original.as_ref(),
                    peer,
                    headers: &headers,
                    context: context.as_ref(),
                };
                warp::reply::json(&seen.told("warp"))
            },
        )
}
