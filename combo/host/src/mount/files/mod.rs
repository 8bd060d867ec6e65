//! `mount::files`: takes a request for the rest of a path, gives a regular file from the folders
//! of a [`Root`], or says why not.
//!
//! We decide which file it is ([`path`], [`root`]), what it is called ([`media`]) and which part
//! of it is asked for ([`range`]); tower-http's `ServeDir` is then handed that one opened file and
//! does preconditions, the `206` and the reading. It never sees a name, so nothing can change
//! between deciding and reading.
//!
//! Never: a listing, a file outside the folders, a hidden file, anything but a regular file, a
//! whole file in memory.

mod body;
#[cfg_attr(not(test), expect(dead_code, reason = "no target is made of it yet"))]
mod embedded;
mod media;
mod opened;
pub(crate) mod path;
pub(crate) mod range;
mod root;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use http::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, LOCATION, RANGE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use tower_http::services::ServeDir;
use tower_service::Service;

pub(crate) use self::body::FilesBody;
pub use self::embedded::{Asset, Embedded};
pub(crate) use self::root::Root;

use self::opened::Opened;
use self::path::Place;
use self::root::Found;

/// Bytes read from disk at once.
const CHUNK: usize = 64 * 1024;

/// What a folder is asked for when the path ends in `/`.
const INDEX: &str = "index.html";

const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// Set by the host alone: what was cut off the path before it came here.
const PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// The service behind `mount::files`.
///
/// The request's path is the rest below the mount's prefix; the body of a request is ignored.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    root: Root,
}

impl Files {
    /// Serves what is in `root`.
    pub(crate) fn new(root: Root) -> Self {
        Self { root }
    }
}

impl<B> Service<Request<B>> for Files {
    type Response = Response<FilesBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<FilesBody>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let root = self.root.clone();
        // The body goes here, so the future is `Send` whatever it is.
        let (request, _) = request.into_parts();
        Box::pin(async move { Ok(answer(root, request).await) })
    }
}

async fn answer(root: Root, request: Parts) -> Response<FilesBody> {
    let mut response = match decide(root, &request).await {
        Answer::File(opened, media) => render(opened, media, &request).await,
        Answer::Options => {
            let mut response = Response::new(FilesBody::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            let _ = response.headers_mut().insert(ALLOW, ALLOWED);
            response
        }
        Answer::Redirect(location) => {
            let mut response = refuse(StatusCode::TEMPORARY_REDIRECT);
            let _ = response.headers_mut().insert(LOCATION, location);
            response
        }
        Answer::Method => {
            let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED);
            let _ = response.headers_mut().insert(ALLOW, ALLOWED);
            response
        }
        Answer::Missing => refuse(StatusCode::NOT_FOUND),
        Answer::Forbidden => refuse(StatusCode::FORBIDDEN),
        Answer::Broken => refuse(StatusCode::INTERNAL_SERVER_ERROR),
    };
    let headers = response.headers_mut();
    let _ = headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let _ = headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if request.method == Method::HEAD {
        *response.body_mut() = FilesBody::empty();
    }
    response
}

/// All that can be said to a request.
enum Answer {
    /// An opened file and its media type.
    File(Opened, HeaderValue),
    Options,
    Redirect(HeaderValue),
    Method,
    Missing,
    Forbidden,
    Broken,
}

async fn decide(root: Root, request: &Parts) -> Answer {
    if request.method == Method::OPTIONS {
        return Answer::Options;
    }
    if request.method != Method::GET && request.method != Method::HEAD {
        return Answer::Method;
    }
    let Some(Place { mut path, folder }) = path::place(request.uri.path()) else {
        return Answer::Missing;
    };
    if folder {
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(INDEX);
    }
    let media = media::of(&path);
    #[expect(clippy::disallowed_methods, reason = "looking for a file may block")]
    let found = tokio::task::spawn_blocking(move || root.find(&path)).await;
    match found.map_err(io::Error::other).flatten() {
        Ok(Found::File(opened)) => Answer::File(opened, media),
        Ok(Found::Folder) if !folder => {
            Answer::Redirect(with_slash(request.headers.get(PREFIX), &request.uri))
        }
        Ok(Found::Folder | Found::Nothing) => Answer::Missing,
        Ok(Found::Forbidden) => Answer::Forbidden,
        Err(_) => Answer::Broken,
    }
}

/// Where a folder asked for without its last slash is.
fn with_slash(prefix: Option<&HeaderValue>, uri: &Uri) -> HeaderValue {
    let prefix = prefix.and_then(|prefix| prefix.to_str().ok()).unwrap_or_default();
    HeaderValue::try_from(path::with_slash(prefix, uri.path(), uri.query()))
        .expect("what was percent-encoded is visible ASCII")
}

/// Lets `ServeDir` render the one file it is given.
async fn render(opened: Opened, media: HeaderValue, request: &Parts) -> Response<FilesBody> {
    let mut asked = HeaderMap::new();
    for name in [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE] {
        if let Some(value) = joined(&request.headers, &name) {
            let _ = asked.insert(name, value);
        }
    }
    // `Range` is defined for GET alone (RFC 9110, 14.2).
    if request.method == Method::GET
        && let Some(part) =
            joined(&request.headers, &RANGE).and_then(|range| range::part(&range, opened.len()))
        && condition_holds(&opened, &request.headers).await
    {
        let _ = asked.insert(RANGE, part);
    }
    let modified = opened.modified();
    let mut response = serve(opened, request.method.clone(), asked).await;
    let headers = response.headers_mut();
    // A `416` has no content, so no type either; neither have `304` and `412`.
    if headers.contains_key(CONTENT_TYPE) {
        let _ = headers.insert(CONTENT_TYPE, media);
        let _ = headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    // RFC 9110, 8.8.2.1: never later than now. The entity tag stays as it is.
    #[expect(clippy::disallowed_methods, reason = "this is about the moment of the answer")]
    if modified.is_some_and(|modified| modified > SystemTime::now()) {
        let _ = headers.remove(LAST_MODIFIED);
    }
    FilesBody::served(response)
}

/// Whether the file is still the one that the client has a part of (RFC 9110, 13.1.5).
async fn condition_holds(opened: &Opened, headers: &HeaderMap) -> bool {
    let mut conditions = headers.get_all(IF_RANGE).iter();
    let Some(condition) = conditions.next() else {
        return true;
    };
    // How the validators are written is `ServeDir`'s secret, so it is asked for them.
    let now = serve(opened.clone(), Method::HEAD, HeaderMap::new()).await;
    conditions.next().is_none() && range::same(condition, now.headers())
}

async fn serve(opened: Opened, method: Method, headers: HeaderMap) -> Response<opened::Body> {
    let mut request = Request::new(());
    *request.method_mut() = method;
    // Which file it is has been decided; this is only not a folder.
    *request.uri_mut() = Uri::from_static("/file");
    *request.headers_mut() = headers;
    match ServeDir::with_backend("", opened).with_buf_chunk_size(CHUNK).call(request).await {
        Ok(response) => response,
        Err(impossible) => match impossible {},
    }
}

/// All lines of a header as one list (RFC 9110, 5.3).
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    let Some(second) = lines.next() else {
        return Some(first.clone());
    };
    let mut list = first.as_bytes().to_vec();
    for line in [second].into_iter().chain(lines) {
        list.extend_from_slice(b", ");
        list.extend_from_slice(line.as_bytes());
    }
    HeaderValue::from_bytes(&list).ok()
}

/// A status and the words for it.
fn refuse(status: StatusCode) -> Response<FilesBody> {
    let words = status.canonical_reason().unwrap_or("refused").to_ascii_lowercase() + "\n";
    let length = HeaderValue::from(words.len());
    let mut response = Response::new(FilesBody::text(words));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let _ = headers.insert(CONTENT_LENGTH, length);
    let _ = headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
