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

use combo_core::{Site, pattern::normal_segment};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{CONTENT_LOCATION, HOST, LINK, LOCATION, SET_COOKIE},
    uri::Scheme,
};

use super::{Answered, Answering, App, Arrival, Later, Target};
use crate::serve::body::{RequestBody, ResponseBody};

/// How the names of cookies begin that are for all of a host (RFC 6265bis, section 4.1.3.2).
const WHOLE_HOST: &str = "__Host-";

impl Target {
    /// Repairs the links in an answer's head that would lead out of the prefix: `Location`,
    /// `Content-Location`, `Link` and the `Path` of `Set-Cookie`. Where they name a path of this host
    /// that is not under the prefix, the prefix is put before it.
    ///
    /// For apps that redirect to `/login` and mean their own. The prefix is the one that the app is told
    /// in `X-Forwarded-Prefix`, with what a trusted proxy has put before it. A path that is under it
    /// already is left alone, so an app that knows its prefix is not hurt; one that is under the mount's
    /// own gets what the proxy says. Paths count as browsers follow them: `/blog/../login` is `/login`.
    ///
    /// Left as they are: links in bodies and other headers; relative links, such as `../login`; URLs
    /// that name a user, another port, or no path; cookies whose names begin with `__Host-`, which
    /// browsers take with `Path=/` only.
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
        let Some(told) = arrival.forwarded.cloned() else {
            return self.0.answer(request, arrival, cx);
        };
        let repair = Repair {
            told,
            site: (arrival.strip > 0).then(|| arrival.site.clone()),
            host: request.headers().get(HOST).cloned(),
            secure: arrival.connection.scheme == Scheme::HTTPS,
        };
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

/// What has to be kept of a request until it is answered.
struct Repair {
    /// The prefix that the app was told.
    told: HeaderValue,
    /// Where the mount's own prefix is part of that.
    site: Option<Arc<Site>>,
    host: Option<HeaderValue>,
    secure: bool,
}

impl Repair {
    fn answered(&self, answered: Answered) -> Answered {
        answered.map(|mut response| {
            let told = self.told.to_str().unwrap_or_default();
            let host = self.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
            let ours = self.site.as_ref().map_or("", |site| &site.prefix);
            repair(response.headers_mut(), Home { told, ours, host, secure: self.secure });
            response
        })
    }
}

/// Where links may lead.
#[derive(Clone, Copy)]
struct Home<'a> {
    /// The prefix as clients know it.
    told: &'a str,
    /// The mount's own: the end of it.
    ours: &'a str,
    host: &'a str,
    secure: bool,
}

impl Home<'_> {
    /// A path that lies elsewhere, put under the prefix. What is under the mount's own lacks only what
    /// a proxy has put before that.
    fn bring(&self, path: &str) -> Option<String> {
        if is_under(path, self.told) {
            return None;
        }
        let before = self.told.strip_suffix(self.ours).filter(|_| is_under(path, self.ours));
        Some(format!("{}{path}", before.unwrap_or(self.told)))
    }

    /// Where the absolute path of a reference to this host begins.
    fn path_of(&self, said: &str) -> Option<usize> {
        let after =
            [("http://", false), ("https://", true), ("//", self.secure)].into_iter().find(|(scheme, _)| {
                said.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            });
        let Some((scheme, secure)) = after else { return said.starts_with('/').then_some(0) };
        let rest = &said[scheme.len()..];
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let same =
            without_port(&rest[..end], secure).eq_ignore_ascii_case(without_port(self.host, self.secure));
        (same && rest[end..].starts_with('/')).then_some(scheme.len() + end)
    }
}

/// An authority without the port that its scheme has anyway.
fn without_port(authority: &str, secure: bool) -> &str {
    let default = if secure { ":443" } else { ":80" };
    authority.strip_suffix(default).or_else(|| authority.strip_suffix(':')).unwrap_or(authority)
}

fn is_under(path: &str, prefix: &str) -> bool {
    let rest = path.strip_prefix(prefix);
    !prefix.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// How the links of one kind of header are repaired.
type Mend = for<'a> fn(&'a str, Home<'_>) -> Cow<'a, str>;

fn repair(headers: &mut HeaderMap, home: Home<'_>) {
    let kinds: [(HeaderName, Mend); 4] =
        [(LOCATION, location), (CONTENT_LOCATION, location), (LINK, links), (SET_COOKIE, cookie)];
    for (name, mend) in kinds {
        let http::header::Entry::Occupied(mut entry) = headers.entry(name) else { continue };
        for value in entry.iter_mut() {
            if let Some(mended) = mended(value, mend, home) {
                *value = mended;
            }
        }
    }
}

fn mended(value: &HeaderValue, mend: Mend, home: Home<'_>) -> Option<HeaderValue> {
    if let Ok(said) = value.to_str() {
        let Cow::Owned(mended) = mend(said, home) else { return None };
        return HeaderValue::from_str(&mended).ok();
    }
    // Whatever its bytes mean: what matters is ASCII, and all others stay as they are.
    let said: String = value.as_bytes().iter().copied().map(char::from).collect();
    let Cow::Owned(mended) = mend(&said, home) else { return None };
    let bytes: Result<Vec<u8>, _> = mended.chars().map(u8::try_from).collect();
    HeaderValue::from_bytes(&bytes.ok()?).ok()
}

/// A reference (RFC 3986, section 4.1) with its path under the prefix, if it names this host.
fn location<'a>(said: &'a str, home: Home<'_>) -> Cow<'a, str> {
    let Some(start) = home.path_of(said) else { return said.into() };
    let (before, after) = said.split_at(start);
    let (path, rest) = after.split_at(after.find(['?', '#']).unwrap_or(after.len()));
    match home.bring(&resolved(path)) {
        Some(path) => format!("{before}{path}{rest}").into(),
        None => said.into(),
    }
}

/// An absolute path as browsers follow it: dot segments are gone, and where there are some, backslashes
/// are slashes.
fn resolved(path: &str) -> Cow<'_, str> {
    let segments = || path.split(['/', '\\']).skip(1).map(|said| (said, normal_segment(said)));
    if !segments().any(|(_, plain)| matches!(&*plain, "." | "..")) {
        return path.into();
    }
    let (mut kept, mut last) = (Vec::new(), "");
    for (said, plain) in segments() {
        match &*plain {
            "." => {}
            ".." => drop(kept.pop()),
            _ => {
                kept.push(said);
                last = said;
                continue;
            }
        }
        last = "";
    }
    let slash = if last.is_empty() && kept.last().is_some_and(|last| !last.is_empty()) { "/" } else { "" };
    format!("/{}{slash}", kept.join("/")).into()
}

/// `</a>; rel=next, <b>` (RFC 8288, section 3).
fn links<'a>(said: &'a str, home: Home<'_>) -> Cow<'a, str> {
    let mut mended = String::new();
    let mut rest = said;
    while let Some((before, after)) = rest.split_once('<') {
        let Some((target, after)) = after.split_once('>') else { break };
        mended.extend([before, "<", &location(target, home), ">"]);
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
fn cookie<'a>(said: &'a str, home: Home<'_>) -> Cow<'a, str> {
    let blank = |c| matches!(c, ' ' | '\t');
    let mend = |attribute: &str| -> Option<String> {
        let (name, path) = attribute.split_once('=')?;
        let path = path.trim_matches(blank);
        if !name.trim_matches(blank).eq_ignore_ascii_case("path") || !path.starts_with('/') {
            return None;
        }
        let path = home.bring(path)?;
        // For its whole site is for all that is under the prefix.
        Some(format!("{name}={}", path.strip_suffix('/').filter(|path| *path == home.told).unwrap_or(&path)))
    };
    let mut parts = said.split(';');
    let pair = parts.next().unwrap_or_default();
    // A browser takes these with the path `/` only.
    let whole_host = pair
        .trim_start_matches(blank)
        .get(..WHOLE_HOST.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(WHOLE_HOST));
    if whole_host {
        return said.into();
    }
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

    const HOME: Home<'_> = Home { told: "/blog", ours: "/blog", host: "example.com:8080", secure: false };

    fn check(mend: Mend, cases: &[(&str, &str)]) {
        check_at(HOME, mend, cases);
    }

    fn check_at(home: Home<'_>, mend: Mend, cases: &[(&str, &str)]) {
        for (said, expected) in cases {
            assert_eq!(mend(said, home), *expected, "{said}");
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
                ("a=b; Path=/blog/../x", "a=b; Path=/blog/../x"),
                ("a=b; Path=relative", "a=b; Path=relative"),
            ],
        );
    }

    #[test]
    fn a_cookie_for_the_whole_host_keeps_its_path() {
        for name in ["__Host-id", "__host-id", " __HOST-id"] {
            let said = format!("{name}=b; Path=/; Secure");
            assert_eq!(cookie(&said, HOME), said);
        }
        check(cookie, &[("__Secure-id=b; Path=/; Secure", "__Secure-id=b; Path=/blog; Secure")]);
    }

    #[test]
    fn the_prefix_that_the_app_was_told_is_the_one_that_counts() {
        let cases = [
            ("/outer/blog/login", "/outer/blog/login"),
            ("/outer/blog", "/outer/blog"),
            ("/login", "/outer/blog/login"),
            ("/outer/login", "/outer/blog/outer/login"),
            ("/blog/login", "/outer/blog/login"),
            ("/blog/../login", "/outer/blog/login"),
        ];
        check_at(Home { told: "/outer/blog", ..HOME }, location, &cases);
        let cases = [("a; Path=/", "a; Path=/outer/blog"), ("a; Path=/blog/", "a; Path=/outer/blog")];
        check_at(Home { told: "/outer/blog", ..HOME }, cookie, &cases);
        // At the root, or where the app sees the whole path, there is only what the proxy says.
        let cases =
            [("/login", "/outer/login"), ("/outer/login", "/outer/login"), ("/outer/../a", "/outer/a")];
        check_at(Home { told: "/outer", ours: "", ..HOME }, location, &cases);
    }

    #[test]
    fn a_host_is_the_same_with_the_port_of_its_scheme() {
        let clear = Home { host: "localhost", ..HOME };
        let cases = [
            ("http://localhost:80/login", "http://localhost:80/blog/login"),
            ("http://LOCALHOST:/login", "http://LOCALHOST:/blog/login"),
            ("https://localhost:443/login", "https://localhost:443/blog/login"),
            ("//localhost:80/login", "//localhost:80/blog/login"),
            ("http://localhost:443/login", "http://localhost:443/login"),
            ("//localhost:443/login", "//localhost:443/login"),
            ("http://user@localhost/login", "http://user@localhost/login"),
        ];
        check_at(clear, location, &cases);
        let cases = [("http://localhost/login", "http://localhost/blog/login"), cases[0], cases[3]];
        check_at(Home { host: "localhost:80", ..HOME }, location, &cases);
        let cases = [
            ("//localhost/login", "//localhost/blog/login"),
            ("https://localhost/login", "https://localhost/blog/login"),
            ("//localhost:80/a", "//localhost:80/a"),
        ];
        check_at(Home { host: "localhost:443", secure: true, ..HOME }, location, &cases);
    }

    #[test]
    fn dot_segments_do_not_lead_out() {
        check(
            location,
            &[
                ("/blog/../admin", "/blog/admin"),
                ("/blog/%2e%2E/admin?a=/../b", "/blog/admin?a=/../b"),
                ("/blog\\..\\admin", "/blog/admin"),
                ("/../../admin", "/blog/admin"),
                ("/blog/..", "/blog/"),
                ("/blog/a/../..", "/blog/"),
                ("/./a/.", "/blog/a/"),
                ("/a/b/../", "/blog/a/"),
                ("/blog/a/../b", "/blog/a/../b"),
                ("/a/../blog/b", "/a/../blog/b"),
                ("/blog/...", "/blog/..."),
                ("http://example.com:8080/blog/../admin", "http://example.com:8080/blog/admin"),
                ("http://other.example/blog/../admin", "http://other.example/blog/../admin"),
            ],
        );
        check(links, &[("</blog/../a>; rel=next", "</blog/a>; rel=next")]);
    }

    #[test]
    fn bytes_of_any_encoding_are_kept() {
        for (name, said, expected) in [
            (LOCATION, &b"/caf\xc3\xa9"[..], &b"/blog/caf\xc3\xa9"[..]),
            (LOCATION, b"/blog/\xff", b"/blog/\xff"),
            (LINK, b"</a>; title=\"\xe9\"", b"</blog/a>; title=\"\xe9\""),
            (SET_COOKIE, b"a=\xff; Path=/x\xc3\xa0", b"a=\xff; Path=/blog/x\xc3\xa0"),
        ] {
            let mut headers = HeaderMap::new();
            let _ = headers.insert(name.clone(), HeaderValue::from_bytes(said).expect("a value"));
            repair(&mut headers, HOME);
            assert_eq!(headers[name].as_bytes(), expected);
        }
    }

    proptest! {
        /// What was repaired once is right.
        #[test]
        fn repairing_twice_is_repairing_once(said in "[a-z/<>,;=\" ?#:.Pp\\\\]{0,40}") {
            for (mend, told) in [location as Mend, links, cookie].into_iter().flat_map(|mend| [(mend, "/blog"), (mend, "/a/blog")]) {
                let home = Home { told, host: "h", ..HOME };
                let once = mend(&said, home).into_owned();
                let twice = mend(&once, home).into_owned();
                prop_assert_eq!(once, twice);
            }
        }

        #[test]
        fn no_path_leads_out(path in "(/|\\\\|\\.|\\.\\.|%2e|blog|a){0,9}") {
            let said = format!("/blog/{path}");
            prop_assert!(is_under(&resolved(&location(&said, HOME)), "/blog"));
        }
    }
}
