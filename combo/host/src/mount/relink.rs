//! Links of an app that does not know where it is mounted: what its answers name by an absolute path is
//! put under the prefix; and a bare prefix gets the slash that relative links need.

use std::{
    borrow::Cow,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use combo_core::Site;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{CONTENT_LOCATION, HOST, LINK, LOCATION, SET_COOKIE},
};

use super::{Answered, Answering, App, Arrival, Later, Target};
use crate::serve::body::{RequestBody, ResponseBody};

impl Target {
    /// Repairs the links in an answer's head that would lead out of the prefix: `Location`,
    /// `Content-Location`, `Link` and the `Path` of `Set-Cookie`. Where they name a path of this host
    /// that is not under the prefix, the prefix is put before it. Links in bodies stay as they are.
    ///
    /// For apps that redirect to `/login` and mean their own. A path that is under the prefix already
    /// is left alone, so an app that knows its prefix is not hurt.
    #[must_use]
    pub fn relink(mut self) -> Self {
        self.relink = true;
        self
    }

    /// Redirects the bare prefix to itself with a slash, `/blog` to `/blog/`, by 308, so that relative
    /// links on an app's first page work. Default: the app is asked for `/` either way.
    #[must_use]
    pub fn slash(mut self) -> Self {
        self.slash = true;
        self
    }
}

/// Puts repairs of links around an app.
pub(super) fn relinked(app: Rc<dyn App>) -> Rc<dyn App> {
    Rc::new(Relinked(app))
}

struct Relinked(Rc<dyn App>);

impl App for Relinked {
    fn answer(&self, request: Request<RequestBody>, arrival: Arrival<'_>, cx: &mut Context<'_>) -> Answering {
        if arrival.strip == 0 {
            return self.0.answer(request, arrival, cx);
        }
        let repair = Repair { site: arrival.site.clone(), host: request.headers().get(HOST).cloned() };
        match self.0.answer(request, arrival, cx) {
            Answering::Now(answered) => Answering::Now(repair.answered(answered)),
            Answering::Later(later) => Answering::Later(Box::pin(Repaired { later, repair })),
        }
    }
}

struct Repaired {
    later: Later,
    repair: Repair,
}

impl Future for Repaired {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answered> {
        let answered = ready!(self.later.as_mut().poll(cx));
        Poll::Ready(self.repair.answered(answered))
    }
}

/// Where links may lead.
struct Repair {
    site: Arc<Site>,
    host: Option<HeaderValue>,
}

impl Repair {
    fn answered(&self, answered: Answered) -> Answered {
        answered.map(|mut response| {
            let host = self.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
            repair(response.headers_mut(), &self.site.prefix, host);
            response
        })
    }
}

/// How the links of one kind of header are repaired.
type Mend = for<'a> fn(&'a str, &str, &str) -> Cow<'a, str>;

fn repair(headers: &mut HeaderMap, prefix: &str, host: &str) {
    let kinds: [(HeaderName, Mend); 4] =
        [(LOCATION, location), (CONTENT_LOCATION, location), (LINK, links), (SET_COOKIE, cookie)];
    for (name, mend) in kinds {
        let http::header::Entry::Occupied(mut entry) = headers.entry(name) else { continue };
        for value in entry.iter_mut() {
            let Ok(said) = value.to_str() else { continue };
            if let Cow::Owned(mended) = mend(said, prefix, host)
                && let Ok(mended) = HeaderValue::from_str(&mended)
            {
                *value = mended;
            }
        }
    }
}

/// A reference (RFC 3986, section 4.1) with its path under the prefix, if it names this host.
fn location<'a>(said: &'a str, prefix: &str, host: &str) -> Cow<'a, str> {
    let start = path_of(said, host);
    match start.map(|start| said.split_at(start)) {
        Some((before, path)) if escapes(path, prefix) => format!("{before}{prefix}{path}").into(),
        _ => said.into(),
    }
}

/// Where the absolute path of a reference to this host begins.
fn path_of(said: &str, host: &str) -> Option<usize> {
    let after = ["http://", "https://", "//"]
        .into_iter()
        .find(|scheme| said.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let Some(scheme) = after else { return said.starts_with('/').then_some(0) };
    let rest = &said[scheme.len()..];
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let here = rest[..end].eq_ignore_ascii_case(host) && rest[end..].starts_with('/');
    here.then_some(scheme.len() + end)
}

/// Whether a path is outside of the prefix.
fn escapes(path: &str, prefix: &str) -> bool {
    let rest = path.strip_prefix(prefix);
    !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
}

/// `</a>; rel=next, <b>` (RFC 8288, section 3).
fn links<'a>(said: &'a str, prefix: &str, host: &str) -> Cow<'a, str> {
    let mut mended = String::new();
    let mut rest = said;
    while let Some((before, after)) = rest.split_once('<') {
        let Some((target, after)) = after.split_once('>') else { break };
        mended.extend([before, "<", &location(target, prefix, host), ">"]);
        // A quoted parameter may have a `<` in it.
        let end = end_of_link(after);
        mended.push_str(&after[..end]);
        rest = &after[end..];
    }
    mended.push_str(rest);
    if mended == said { said.into() } else { mended.into() }
}

/// Where the next link begins: after a comma that is not quoted.
fn end_of_link(parameters: &str) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in parameters.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return at + 1,
            _ => {}
        }
    }
    parameters.len()
}

/// `a=b; Path=/` (RFC 6265, section 4.1).
fn cookie<'a>(said: &'a str, prefix: &str, _: &str) -> Cow<'a, str> {
    let mend = |attribute: &str| -> Option<String> {
        let (name, path) = attribute.split_once('=')?;
        let path = path.trim();
        let ours = name.trim().eq_ignore_ascii_case("path") && path.starts_with('/') && escapes(path, prefix);
        // For its whole site is for all that is under the prefix.
        ours.then(|| format!("{name}={prefix}{}", if path == "/" { "" } else { path }))
    };
    let mut parts = said.split(';');
    let pair = parts.next().unwrap_or_default();
    let mended: Vec<Cow<'_, str>> =
        parts.map(|attribute| mend(attribute).map_or(attribute.into(), Cow::Owned)).collect();
    if mended.iter().all(|part| matches!(part, Cow::Borrowed(_))) {
        return said.into();
    }
    format!("{pair};{}", mended.join(";")).into()
}

/// Puts the redirect of the bare prefix before an app.
pub(super) fn slashed(app: Rc<dyn App>) -> Rc<dyn App> {
    Rc::new(Slashed(app))
}

struct Slashed(Rc<dyn App>);

impl App for Slashed {
    fn answer(&self, request: Request<RequestBody>, arrival: Arrival<'_>, cx: &mut Context<'_>) -> Answering {
        let (path, prefix) = (request.uri().path(), arrival.site.prefix.len());
        // Percent-encoded, the prefix may be longer than it was said.
        let bare = prefix > 0
            && path.len() >= prefix
            && path.split('/').count() == arrival.site.prefix.split('/').count();
        if !bare {
            return self.0.answer(request, arrival, cx);
        }
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        // Only the last segment, so that it cannot name a host.
        let last = path.rsplit('/').next().unwrap_or_default();
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        if let Ok(location) = HeaderValue::from_str(&format!("./{last}/{query}")) {
            let _ = response.headers_mut().insert(LOCATION, location);
        }
        Answering::Now(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(mend: Mend, cases: &[(&str, &str)]) {
        for (said, expected) in cases {
            assert_eq!(mend(said, "/blog", "example.com:8080"), *expected, "{said}");
        }
    }

    #[test]
    fn a_location_that_escapes_the_prefix_is_put_under_it() {
        check(
            location,
            &[
                ("/login", "/blog/login"),
                ("/", "/blog/"),
                ("/?a=/b", "/blog/?a=/b"),
                ("/blogger", "/blog/blogger"),
                ("/blog", "/blog"),
                ("/blog/a", "/blog/a"),
                ("/blog?a", "/blog?a"),
                ("/blog#a", "/blog#a"),
                ("login", "login"),
                ("../login", "../login"),
                ("?a", "?a"),
                ("", ""),
                ("http://example.com:8080/login", "http://example.com:8080/blog/login"),
                ("HTTPS://EXAMPLE.com:8080/login", "HTTPS://EXAMPLE.com:8080/blog/login"),
                ("//example.com:8080/login", "//example.com:8080/blog/login"),
                ("http://example.com:8080", "http://example.com:8080"),
                ("http://example.com/login", "http://example.com/login"),
                ("//evil.example/login", "//evil.example/login"),
                ("mailto:a@example.com", "mailto:a@example.com"),
            ],
        );
    }

    #[test]
    fn every_link_of_a_header_is_looked_at() {
        check(
            links,
            &[
                ("</a.css>; rel=preload", "</blog/a.css>; rel=preload"),
                ("</a>; rel=next, <b>; rel=prev,</c>", "</blog/a>; rel=next, <b>; rel=prev,</blog/c>"),
                ("</a>; title=\"<, </b>\", </c>", "</blog/a>; title=\"<, </b>\", </blog/c>"),
                ("</a>; title=\"\\\", </b>\"", "</blog/a>; title=\"\\\", </b>\""),
                ("</blog/a>; rel=next", "</blog/a>; rel=next"),
                ("</a", "</a"),
                ("nonsense", "nonsense"),
            ],
        );
    }

    #[test]
    fn the_path_of_a_cookie_is_put_under_the_prefix() {
        check(
            cookie,
            &[
                ("a=b; Path=/", "a=b; Path=/blog"),
                ("a=b; HttpOnly; path=/admin; Secure", "a=b; HttpOnly; path=/blog/admin; Secure"),
                ("a=b; Path=/blog/x", "a=b; Path=/blog/x"),
                ("a=b", "a=b"),
                ("path=/; HttpOnly", "path=/; HttpOnly"),
                ("a=b; Path=relative", "a=b; Path=relative"),
            ],
        );
    }

    proptest! {
        /// What was repaired once is right.
        #[test]
        fn repairing_twice_is_repairing_once(said in "[a-z/<>,;=\" ?#:.Pp]{0,40}") {
            for mend in [location as Mend, links, cookie] {
                let once = mend(&said, "/blog", "h").into_owned();
                let twice = mend(&once, "/blog", "h").into_owned();
                prop_assert_eq!(once, twice);
            }
        }
    }
}
