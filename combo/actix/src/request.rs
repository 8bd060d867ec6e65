//! Takes a request of `http` 1 and gives the one that actix expects, and what is needed to answer it.
//!
//! Bodies are streamed, never gathered. The only request refused is one whose URI actix's version of
//! `http` cannot hold, which actix's own server refuses too.

use std::{
    error::Error as StdError,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use actix_http::{BoxedPayloadStream, HttpMessage as _, Payload, Request, Version as OldVersion};
use actix_web::{
    error::PayloadError,
    http::{
        ConnectionType, Method, Uri, header as old,
        uri::{InvalidUri, Parts, PathAndQuery, Scheme},
    },
};
use bytes::Bytes;
use futures_core::Stream;
use hyper::upgrade::OnUpgrade;
use pin_project_lite::pin_project;

use crate::{
    glossary::{CONNECTION, HOST, UPGRADE},
    response::Reply,
    service::{ActixService, Arrival, BoxError},
    upgrade::Tunnel,
};

pub(crate) fn translate<B>(
    request: http::Request<B>,
    arrival: Arrival,
    service: &ActixService,
) -> Result<(Request, Reply), InvalidUri>
where
    B: http_body::Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    let (mut parts, body) = request.into_parts();
    let Arrival { peer, strip, origin: told, header } = arrival;
    let mut words = service.glossary.borrow_mut();
    let mut request = Request::with_payload(Payload::None);
    let head = request.head_mut();
    let arrived = match parts.uri.path_and_query() {
        Some(target) => {
            let target = words.target(target.as_str(), target.path().len(), strip)?;
            let own = match (parts.uri.scheme(), parts.uri.authority()) {
                (Some(scheme), Some(authority)) => Some((scheme, authority)),
                _ => None,
            };
            let told = told.as_ref().map(|(scheme, authority)| (scheme, authority));
            head.uri = assemble(told.or(own), target.seen.clone())?;
            assemble(own, target.arrived.clone())?
        }
        // CONNECT: nothing but an authority.
        None => {
            head.uri = Uri::from_maybe_shared(words.keep(parts.uri.to_string().as_bytes()))?;
            head.uri.clone()
        }
    };
    head.method = method(&parts.method);
    head.version = version(parts.version);
    head.peer_addr = peer;

    let mut host = false;
    let mut upgrade = None;
    let mut connection = None;
    for (position, (name, value)) in parts.headers.iter().enumerate() {
        match words.inward(position, name, value, &mut head.headers) {
            Some(HOST) => host = true,
            Some(CONNECTION) => connection = connection_type(connection, value),
            Some(UPGRADE) => {
                upgrade = Some(value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket"));
            }
            _ => {}
        }
    }
    if let Some((name, value)) = header {
        head.headers.append(name, value);
    }
    if let Some(kind) = connection {
        head.set_connection_type(kind);
    }
    // HTTP/2 has the authority in the URI alone. Actix leaves it at that; apps that read the header
    // would then work with one version only.
    if !host && let Some(authority) = head.uri.authority() {
        let host = authority.as_str();
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        if let Ok(value) = old::HeaderValue::from_maybe_shared(words.keep(host.as_bytes())) {
            head.headers.append(old::HOST, value);
        }
    }

    let connect = head.method == Method::CONNECT;
    let whole = body.is_end_stream();
    let tunnel = if upgrade.is_some() || connect {
        parts
            .extensions
            .remove::<OnUpgrade>()
            .map(|upgrade| Box::new(Tunnel::new(upgrade, service.busy.clone())))
    } else {
        None
    };
    *request.payload() = match &tunnel {
        // As in actix: any other protocol's name is no reason to wait for bytes that may never come.
        Some(tunnel) if whole && (connect || upgrade == Some(true)) => stream(tunnel.incoming()),
        _ if whole => Payload::None,
        _ => stream(Incoming { body }),
    };

    {
        let mut extensions = request.extensions_mut();
        let _ = extensions.insert(arrived);
        if !parts.extensions.is_empty() {
            let _ = extensions.insert(parts.extensions);
        }
    }

    parts.headers.clear();
    let reply = Reply {
        glossary: Rc::clone(&service.glossary),
        version: parts.version,
        head: parts.method == http::Method::HEAD,
        connect,
        headers: parts.headers,
        tunnel,
    };
    Ok((request, reply))
}

fn assemble(
    origin: Option<(&http::uri::Scheme, &http::uri::Authority)>,
    target: PathAndQuery,
) -> Result<Uri, InvalidUri> {
    let Some((scheme, authority)) = origin else {
        return Ok(Uri::from(target));
    };
    let mut parts = Parts::default();
    parts.scheme = Some(match scheme.as_str() {
        "https" => Scheme::HTTPS,
        "http" => Scheme::HTTP,
        other => other.parse()?,
    });
    parts.authority = Some(authority.as_str().parse()?);
    parts.path_and_query = Some(target);
    Ok(Uri::from_parts(parts).expect("scheme, authority and path make a URI"))
}

fn method(method: &http::Method) -> Method {
    match *method {
        http::Method::GET => Method::GET,
        http::Method::POST => Method::POST,
        http::Method::PUT => Method::PUT,
        http::Method::DELETE => Method::DELETE,
        http::Method::HEAD => Method::HEAD,
        http::Method::OPTIONS => Method::OPTIONS,
        http::Method::CONNECT => Method::CONNECT,
        http::Method::PATCH => Method::PATCH,
        http::Method::TRACE => Method::TRACE,
        ref other => Method::from_bytes(other.as_str().as_bytes())
            .expect("both versions of http take the same methods"),
    }
}

fn version(version: http::Version) -> OldVersion {
    match version {
        http::Version::HTTP_09 => OldVersion::HTTP_09,
        http::Version::HTTP_10 => OldVersion::HTTP_10,
        http::Version::HTTP_2 => OldVersion::HTTP_2,
        http::Version::HTTP_3 => OldVersion::HTTP_3,
        _ => OldVersion::HTTP_11,
    }
}

/// The rules of actix's decoder: `close` wins, then `upgrade`.
fn connection_type(mut kind: Option<ConnectionType>, value: &http::HeaderValue) -> Option<ConnectionType> {
    if kind.is_none() && value == "keep-alive" {
        return Some(ConnectionType::KeepAlive);
    }
    for option in value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
        if option.eq_ignore_ascii_case(b"close") {
            return Some(ConnectionType::Close);
        } else if option.eq_ignore_ascii_case(b"upgrade") && kind != Some(ConnectionType::Close) {
            kind = Some(ConnectionType::Upgrade);
        } else if option.eq_ignore_ascii_case(b"keep-alive") && kind.is_none() {
            kind = Some(ConnectionType::KeepAlive);
        }
    }
    kind
}

fn stream(stream: impl Stream<Item = Result<Bytes, PayloadError>> + 'static) -> Payload {
    let payload: BoxedPayloadStream = Box::pin(stream);
    Payload::Stream { payload }
}

pin_project! {
    /// A body as actix reads it. Trailers are dropped: actix has no place for them.
    struct Incoming<B> {
        #[pin]
        body: B,
    }
}

impl<B> Stream for Incoming<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut body = self.project().body;
        loop {
            return Poll::Ready(match ready!(body.as_mut().poll_frame(cx)) {
                None => None,
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => Some(Ok(bytes)),
                    Err(_trailers) => continue,
                },
                Some(Err(error)) => Some(Err(payload_error(error.into()))),
            });
        }
    }
}

/// hyper says of a body that broke off that it met an unexpected end.
fn payload_error(error: BoxError) -> PayloadError {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&*error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.kind() == io::ErrorKind::UnexpectedEof
        {
            return PayloadError::Incomplete(None);
        }
        cause = error.source();
    }
    PayloadError::Io(io::Error::other(error))
}
