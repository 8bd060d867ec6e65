//! A request -> where it should go instead; and the rest of a path once its prefix is off.

use std::{rc::Rc, sync::Arc, task::Context};

use http::{HeaderValue, Request, Response, StatusCode, Uri, header::LOCATION, uri::PathAndQuery};

use super::{Answering, App, Arrival, Builder, Recipe};
use crate::serve::body::{RequestBody, ResponseBody};

/// The URI without the first `strip` bytes of its path; `/` if nothing is left. The query and the
/// encoding stay as they are.
pub(super) fn stripped(uri: &Uri, strip: usize) -> Uri {
    let whole = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let rest = whole.get(strip..).unwrap_or_default();
    if matches!(rest, "" | "/") && uri.scheme().is_none() {
        return Uri::default();
    }
    let parsed = if rest.starts_with('/') {
        PathAndQuery::try_from(rest)
    } else {
        PathAndQuery::try_from(format!("/{rest}"))
    };
    with_path(uri, parsed.unwrap_or_else(|_| PathAndQuery::from_static("/")))
}

/// The URI with another path and query.
pub(super) fn with_path(uri: &Uri, path: PathAndQuery) -> Uri {
    if uri.scheme().is_none() {
        return Uri::from(path);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).unwrap_or_else(|_| Uri::from_static("/"))
}

/// What is wrong with a place to redirect to.
pub(super) fn fault(to: &str) -> Option<String> {
    let path = to.starts_with('/') && !to.starts_with("//");
    let url = to
        .parse::<Uri>()
        .is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some());
    let whole = (path && to.parse::<PathAndQuery>().is_ok()) || url;
    (!whole || to.contains(['?', '#'])).then(|| {
        format!("cannot redirect to `{to}`: it must be a path or an http(s) URL, without query or fragment")
    })
}

/// Where a request leads. Leading slashes of the rest are folded, and backslashes, which browsers take
/// for slashes, so that it cannot name a host.
fn location(to: &str, rest: &Uri) -> String {
    let path = rest.path().trim_start_matches(['/', '\\']);
    let to = if path.is_empty() { to } else { to.trim_end_matches('/') };
    let (slash, mark) =
        (if path.is_empty() { "" } else { "/" }, if rest.query().is_some() { "?" } else { "" });
    format!("{to}{slash}{path}{mark}{}", rest.query().unwrap_or_default())
}

struct Redirect {
    to: Arc<str>,
    status: StatusCode,
}

pub(super) fn recipe(to: String, permanent: bool) -> Box<dyn Recipe> {
    let status = if permanent { StatusCode::PERMANENT_REDIRECT } else { StatusCode::TEMPORARY_REDIRECT };
    Box::new(Redirect { to: to.into(), status })
}

impl Recipe for Redirect {
    fn builder(&mut self) -> Builder {
        let (to, status) = (self.to.clone(), self.status);
        Box::new(move || Box::pin(async move { Ok(Rc::new(Self { to, status }) as Rc<dyn App>) }))
    }
}

impl App for Redirect {
    fn answer(&self, request: Request<RequestBody>, arrival: Arrival<'_>, _: &mut Context<'_>) -> Answering {
        // In a layer the prefix is off already.
        let strip = if arrival.original.is_some() { 0 } else { arrival.strip };
        let location = location(&self.to, &stripped(request.uri(), strip));
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = self.status;
        if let Ok(location) = HeaderValue::from_str(&location) {
            let _ = response.headers_mut().insert(LOCATION, location);
        }
        Answering::Now(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_path_keeps_query_and_encoding() {
        for (uri, strip, rest) in [
            ("/blog", 5, "/"),
            ("/blog/", 5, "/"),
            ("/blog/a/b", 5, "/a/b"),
            ("/blog?q=1", 5, "/?q=1"),
            ("/blog/?q", 5, "/?q"),
            ("/%62log/%2F%20é", 7, "/%2F%20é"),
            ("/blog//x", 5, "//x"),
            ("http://h:1/blog/a?b", 5, "http://h:1/a?b"),
            ("/a", 0, "/a"),
        ] {
            assert_eq!(stripped(&uri.parse().expect("a uri"), strip).to_string(), rest, "{uri}");
        }
    }

    #[test]
    fn a_redirect_keeps_the_rest_and_never_leaves_by_itself() {
        for (to, rest, leads) in [
            ("/new", "/", "/new"),
            ("/new", "/a?b", "/new/a?b"),
            ("/new/", "/a", "/new/a"),
            ("/new/", "/", "/new/"),
            ("/", "//evil.example/a", "/evil.example/a"),
            ("/", "/\\/evil.example/a", "/evil.example/a"),
            ("https://example.com", "/a", "https://example.com/a"),
            ("https://example.com", "/?q", "https://example.com?q"),
        ] {
            assert_eq!(location(to, &rest.parse().expect("a uri")), leads, "{to} {rest}");
        }
    }

    #[test]
    fn places_that_are_none_are_named() {
        for good in ["/", "/a/b", "https://example.com", "http://example.com:8080/a"] {
            assert_eq!(fault(good), None);
        }
        for bad in ["", "a", "//a", "ftp://a", "/a?b", "/a#b", "/a b", "https://"] {
            assert!(fault(bad).is_some(), "{bad}");
        }
    }
}
