//! A request in clear text -> where it is under https; and what an authority asks for over http-01 (RFC 8555, section
//! 8.3). Nothing else is answered here.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use combo_core::pattern::normal_host;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CONTENT_TYPE, LOCATION},
};

use super::{
    body::ResponseBody,
    refusal::{Malformed, Refusal},
};
use crate::mount::host;

/// Where an authority asks.
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// From a token to what an authority wants to read there.
pub(crate) type Tokens = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What an endpoint does that leads to https.
pub(crate) struct Redirecting {
    pub(crate) status: StatusCode,
    /// Behind the host: nothing, or a colon and the port.
    pub(crate) port: String,
    /// Nobody orders over http-01 unless there are some.
    pub(crate) tokens: Option<Tokens>,
}

impl fmt::Debug for Redirecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redirecting").field("status", &self.status).field("port", &self.port).finish()
    }
}

impl Redirecting {
    pub(crate) fn new(code: u16, port: u16, tokens: Option<Tokens>) -> Self {
        let status = StatusCode::from_u16(code).unwrap_or(StatusCode::PERMANENT_REDIRECT);
        let port = if port == 443 { String::new() } else { format!(":{port}") };
        Self { status, port, tokens }
    }

    /// The answer to a request that has passed the guard.
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Result<Response<ResponseBody>, Refusal> {
        let path = request.uri().path();
        if let Some(token) = path.strip_prefix(CHALLENGES) {
            let reads = matches!(*request.method(), Method::GET | Method::HEAD);
            let tokens = self.tokens.as_ref().filter(|_| reads);
            let key = tokens.and_then(|tokens| tokens(token)).ok_or(Refusal::NoMount)?;
            let mut response = Response::new(ResponseBody::whole(Bytes::from(key)));
            let kind = HeaderValue::from_static("application/octet-stream");
            let _ = response.headers_mut().insert(CONTENT_TYPE, kind);
            return Ok(response);
        }
        let host = normal_host(host(request));
        if host.is_empty() {
            return Err(Refusal::Malformed(Malformed::NoHost));
        }
        // `*` is no path, and what is to be a tunnel has none.
        let rest = request.uri().path_and_query().map_or("/", |rest| rest.as_str());
        let rest = if rest.starts_with('/') { rest } else { "/" };
        let location = format!("https://{host}{}{rest}", self.port);
        let location = HeaderValue::from_maybe_shared(Bytes::from(location));
        let location = location.map_err(|_| Refusal::Malformed(Malformed::Target))?;
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = self.status;
        let _ = response.headers_mut().insert(LOCATION, location);
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str, host: &str) -> Request<()> {
        Request::builder().method(method).uri(target).header("host", host).body(()).expect("a request")
    }

    fn check(method: &str, target: &str, host: &str, port: u16, location: &str) {
        let answer = Redirecting::new(308, port, None).answer(&request(method, target, host));
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 308);
        assert_eq!(answer.headers()[LOCATION], location, "{method} {target} {host}");
    }

    #[test]
    fn a_request_is_led_to_its_own_address() {
        check("GET", "/", "example.com", 443, "https://example.com/");
        check("GET", "/a%20b/?q=1&r=%2F", "example.com:80", 443, "https://example.com/a%20b/?q=1&r=%2F");
        check("POST", "/a", "Example.COM.:8080", 8443, "https://example.com:8443/a");
        check("GET", "//evil.example/x", "a.example", 443, "https://a.example//evil.example/x");
        check("GET", "/", "[::1]:80", 8443, "https://[::1]:8443/");
        check("GET", "http://a.example/x?y", "a.example", 443, "https://a.example/x?y");
        check("OPTIONS", "*", "a.example", 443, "https://a.example/");
        check(
            "GET",
            "/.well-known/acme-challenge",
            "a.example",
            443,
            "https://a.example/.well-known/acme-challenge",
        );
    }

    #[test]
    fn what_an_authority_asks_for_is_answered_here() {
        let tokens: Tokens = Arc::new(|token| (token == "t").then(|| "t.key".to_owned()));
        let redirecting = Redirecting::new(301, 443, Some(tokens));
        let ask = |method: &str, target: &str| redirecting.answer(&request(method, target, "a.example"));
        let answer = ask("GET", "/.well-known/acme-challenge/t").expect("an answer");
        assert_eq!(
            (answer.status(), &answer.headers()[CONTENT_TYPE]),
            (StatusCode::OK, &HeaderValue::from_static("application/octet-stream"))
        );
        for (method, target) in [("GET", "u"), ("GET", ""), ("POST", "t"), ("GET", "t/")] {
            let target = format!("/.well-known/acme-challenge/{target}");
            assert_eq!(ask(method, &target).err(), Some(Refusal::NoMount), "{method} {target}");
        }
        assert_eq!(ask("GET", "/a").expect("an answer").status(), 301);
        let nobody = Redirecting::new(308, 443, None);
        let request = request("GET", "/.well-known/acme-challenge/t", "a.example");
        assert_eq!(nobody.answer(&request).err(), Some(Refusal::NoMount));
    }
}
