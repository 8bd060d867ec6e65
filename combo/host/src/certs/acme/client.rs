//! a request -> an answer, over HTTPS. Within a time and a size; what says when to come again is an error of its own.
//!
//! Whom it believes: the authorities that browsers do, which are in the program, so that it needs no file for it;
//! or those of one file.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use combo_core::{BoxError, Timestamp};
use http::{HeaderValue, Method, Request, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use jiff::fmt::rfc2822;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::renewal::{ASK_AGAIN, Held};
use crate::error::shortened;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it may be, in bytes. A chain of certificates has some thousand.
const LONGEST: usize = 1 << 20;

/// No more of its words are said than somebody would read, in bytes.
const LONGEST_WORDS: usize = 1_000;

/// What problem documents call a rate limit (RFC 8555, section 6.6).
pub(super) const RATE_LIMITED: &str = "urn:ietf:params:acme:error:rateLimited";

/// Speaks with one authority. Clones share connections.
#[derive(Clone)]
pub(super) struct Client(Pool<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>);

impl Client {
    /// Believes the authorities in this PEM text, or those that browsers believe.
    pub(super) fn new(roots: Option<&[u8]>) -> Result<Self, BoxError> {
        let mut believed = RootCertStore::empty();
        match roots {
            Some(pem) => {
                for root in CertificateDer::pem_slice_iter(pem) {
                    believed.add(root?)?;
                }
                if believed.is_empty() {
                    return Err("there is no certificate in it".into());
                }
            }
            None => believed.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(believed)
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().build();
        Ok(Self(Pool::builder(TokioExecutor::new()).build(connector)))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let is_get = request.method() == Method::GET;
        let answer = self.0.request(request);
        Box::pin(async move {
            let whole = async {
                let (parts, body) = answer.await.map_err(other)?.into_parts();
                let body = Limited::new(body, LONGEST).collect().await.map_err(Error::Other)?.to_bytes();
                Ok::<_, Error>((parts, body))
            };
            let late = |_| Error::Other(format!("it did not answer within {PATIENCE:?}").into());
            let (mut parts, body) = tokio::time::timeout(PATIENCE, whole).await.map_err(late)??;
            if let Some(error) = said(parts.status, parts.headers.get(RETRY_AFTER), &body) {
                return Err(error);
            }
            if is_get && !parts.headers.contains_key(RETRY_AFTER) {
                // Who says when to renew need not say when to ask again.
                let _ = parts.headers.insert(RETRY_AFTER, HeaderValue::from(ASK_AGAIN.as_secs()));
            }
            Ok(BytesResponse { parts, body: Box::new(body) })
        })
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(Box::new(error))
}

/// What an answer that is an error says, where that is more than its problem document can tell.
fn said(status: StatusCode, after: Option<&HeaderValue>, body: &[u8]) -> Option<Error> {
    if !status.is_client_error() && !status.is_server_error() {
        return None;
    }
    let limited = status == StatusCode::TOO_MANY_REQUESTS;
    let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
        let after = after.and_then(|value| value.to_str().ok()).map(str::to_owned);
        return Some(other(Later { said: format!("it answered {status}"), limited, after }));
    };
    let limited = limited || problem.r#type.as_deref() == Some(RATE_LIMITED);
    if !limited && status != StatusCode::SERVICE_UNAVAILABLE {
        return None;
    }
    let after = after.and_then(|value| value.to_str().ok()).map(str::to_owned);
    Some(other(Later { said: in_words(&problem), limited, after }))
}

/// An answer that says to come again later.
#[derive(Clone, Debug)]
pub(super) struct Later {
    said: String,
    limited: bool,
    /// The header `Retry-After` as it came.
    after: Option<String>,
}

impl fmt::Display for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

impl std::error::Error for Later {}

impl Later {
    /// For how long.
    pub(super) fn held(&self, now: Timestamp) -> Held {
        let after = self.after.as_deref().and_then(|said| retry_after(said, now));
        Held { limited: self.limited, after }
    }
}

/// A `Retry-After` (RFC 9110, section 10.2.3): seconds, or an instant.
fn retry_after(said: &str, now: Timestamp) -> Option<Duration> {
    let said = said.trim();
    if let Ok(seconds) = said.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = rfc2822::parse(said).ok()?.timestamp();
    Some(until.duration_since(now).try_into().unwrap_or_default())
}

/// What a problem document says, in one sentence.
pub(super) fn in_words(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let kind = kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind);
    let detail = problem.detail.as_deref().unwrap_or_default().trim().trim_end_matches('.');
    let mut said = match (detail, kind) {
        ("", "") => "it does not say why".to_owned(),
        ("", kind) => format!("`{kind}`"),
        (detail, "") => detail.to_owned(),
        (detail, kind) => format!("{detail} (`{kind}`)"),
    };
    for part in &problem.subproblems {
        said.push_str(&format!("; {part}"));
    }
    shortened(said, LONGEST_WORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_authority_says_is_not_endless() {
        let detail = Some("ä".repeat(100_000));
        let said = in_words(&Problem { r#type: None, detail, status: None, subproblems: Vec::new() });
        assert!(said.starts_with("ää") && said.ends_with('…') && said.len() < 1_010, "{}", said.len());
    }

    #[test]
    fn retry_after_is_seconds_or_an_instant() {
        let now: Timestamp = "1994-11-06T08:49:00Z".parse().expect("an instant");
        for (said, expected) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37)),
            ("Sun, 06 Nov 1994 08:48:37 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(retry_after(said, now), expected.map(Duration::from_secs), "{said}");
        }
    }

    #[test]
    fn a_problem_is_a_sentence() {
        for (json, expected) in [
            ("{}", "it does not say why"),
            (
                r#"{"type": "urn:ietf:params:acme:error:dns", "detail": "no such name."}"#,
                "no such name (`dns`)",
            ),
            (r#"{"type": "urn:ietf:params:acme:error:dns"}"#, "`dns`"),
            (r#"{"detail": "no"}"#, "no"),
        ] {
            assert_eq!(in_words(&serde_json::from_str(json).expect("a problem")), expected);
        }
    }

    #[test]
    fn only_what_says_more_than_its_document_is_an_error_of_its_own() {
        let after = HeaderValue::from_static("7200");
        let check = |status, kind: &str, body: bool| {
            let json = format!(r#"{{"type": "urn:ietf:params:acme:error:{kind}", "detail": "no"}}"#);
            let body = if body { json.as_bytes() } else { b"<html>" };
            let status = StatusCode::from_u16(status).expect("a status");
            let error = said(status, Some(&after), body)?;
            let Error::Other(error) = error else { panic!("{error:?}") };
            let later = error.downcast_ref::<Later>().expect("it says to come again");
            Some((later.to_string(), later.held(Timestamp::UNIX_EPOCH)))
        };
        let held = |limited| Held { limited, after: Some(Duration::from_secs(7_200)) };
        assert_eq!(check(200, "dns", true), None);
        assert_eq!(check(400, "badNonce", true), None);
        assert_eq!(check(403, "unauthorized", true), None);
        assert_eq!(check(429, "rateLimited", true), Some(("no (`rateLimited`)".into(), held(true))));
        assert_eq!(check(403, "rateLimited", true), Some(("no (`rateLimited`)".into(), held(true))));
        assert_eq!(check(503, "serverInternal", true), Some(("no (`serverInternal`)".into(), held(false))));
        assert_eq!(check(429, "", false), Some(("it answered 429 Too Many Requests".into(), held(true))));
        assert_eq!(check(502, "", false), Some(("it answered 502 Bad Gateway".into(), held(false))));
    }

    #[test]
    fn it_needs_authorities_to_believe() {
        assert!(Client::new(None).is_ok());
        assert!(Client::new(Some(b"nothing")).is_err());
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        assert!(Client::new(Some(made.cert.pem().as_bytes())).is_ok());
    }
}
