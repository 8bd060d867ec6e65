//! `mount::files`: takes a request for the rest of a path, gives a regular file from the folders of a [`Root`], or
//! says why not.
//!
//! A place below the root ([`path`]), what is there ([`root`]), the best representation of it ([`chosen`], from
//! [`memory`] or disk), what the request wants of that ([`render`]). All of it is tried on the worker with
//! what the kernel has in memory; only if that is not enough it is done again on the blocking pool.
//!
//! Never: a file outside the folders, a hidden file, anything but a regular file, a large file in memory.
#![expect(clippy::disallowed_methods, reason = "some things are said of the moment of the answer")]

mod accept;
mod body;
mod caching;
mod chosen;
mod coded;
mod conditions;
mod dates;
mod embedded;
mod listing;
mod loaded;
mod media;
mod memory;
mod opened;
mod parts;
pub(crate) mod path;
pub(crate) mod range;
mod recent;
mod render;
mod representation;
mod root;
mod said;
#[cfg(test)]
mod tests;
mod trips;
mod watched;

use std::{
    io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, Mutex},
    task::Context,
    time::SystemTime,
};

use combo_core::BoxError;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, VARY,
        X_CONTENT_TYPE_OPTIONS,
    },
    request::Parts,
};
use http_body_util::BodyExt;

use self::{
    accept::Codings,
    body::{FilesBody, Sending},
    chosen::{Inquiry, Shelf},
    conditions::Wants,
    memory::Memory,
    opened::{InUse, Speed},
    path::Place,
    recent::Recent,
    representation::{Choice, Chosen},
    root::{Found, Root},
    said::Layer,
    trips::Trips,
};
pub use self::{
    embedded::{Asset, Embedded},
    said::Files,
};
use super::{
    Answering, App, Arrival, Builder, Recipe, X_FORWARDED_PREFIX,
    own_threads::{Asked, SendApp, SendBody},
};
use crate::serve::body::{RequestBody, ResponseBody};

const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// What a list of names needs, and nothing that a name could bring.
const NOTHING_FROM_ELSEWHERE: HeaderValue =
    HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");

/// Bytes of a list that there is always room for; larger ones count as what is in memory.
const LIST: usize = 256 << 10;

/// What is served, for all workers.
#[derive(Debug)]
struct Site {
    shelf: Shelf,
    said: Files,
}

/// Files as an app: opened once, and what is kept in memory is kept for all workers.
#[derive(Clone, Debug)]
pub(super) struct Served {
    site: Arc<Site>,
    /// Of each worker its own, and one for all threads of a mount's own.
    trips: Trips,
}

impl Served {
    /// Opens what was said; `resolve` gives the folders that are meant by one, an earlier one over the later ones.
    ///
    /// # Errors
    ///
    /// When a folder cannot be opened.
    pub(super) fn open(said: Files, resolve: impl Fn(&Path) -> Vec<PathBuf>) -> Result<Self, BoxError> {
        let layers = said.layers.iter().flat_map(|layer| match layer {
            Layer::Folder(folder) => resolve(folder).into_iter().map(Layer::Folder).collect(),
            Layer::Embedded(embedded) => match embedded.folder() {
                Some(folder) => vec![Layer::Folder(folder.to_owned())],
                None => vec![layer.clone()],
            },
        });
        Ok(Self::of(Root::open(layers)?, said)?)
    }

    fn of(root: Root, said: Files) -> Result<Self, String> {
        let (memory, rules) = (Memory::new(said.memory), said.rules()?);
        let compresses = said.compresses;
        let (recent, in_use, compressing) = (Recent::default(), InUse::default(), Mutex::new(()));
        let shelf = Shelf { root, memory, recent, rules, compresses, in_use, compressing };
        Ok(Self { site: Arc::new(Site { shelf, said }), trips: Trips::default() })
    }

    async fn in_time(self, head: Box<Parts>) -> io::Result<Response<FilesBody>> {
        let Self { site, trips } = self;
        trips.take(move || site.answer(Question::of(&head), Speed::Any)).await
    }

    async fn ask(self, head: Parts) -> io::Result<Response<Sending>> {
        let trips = self.trips.clone();
        let answered = match self.site.answer(Question::of(&head), Speed::Cached) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.in_time(Box::new(head)).await,
            answered => answered,
        };
        Ok(answered?.map(|body| body.read_by(trips)))
    }
}

/// What of a request is looked at.
#[derive(Clone, Copy)]
struct Question<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
}

impl<'a> Question<'a> {
    fn of(head: &'a Parts) -> Self {
        Self { method: &head.method, uri: &head.uri, headers: &head.headers }
    }
}

impl Recipe for Served {
    fn builder(&mut self) -> Builder {
        let served = Self { trips: Trips::default(), ..self.clone() };
        Box::new(move || Box::pin(async move { Ok(Rc::new(served) as Rc<dyn App>) }))
    }

    fn send(&mut self) -> Option<Arc<dyn SendApp>> {
        Some(Arc::new(self.clone()))
    }
}

impl App for Served {
    fn answer(
        &self,
        mut request: Request<RequestBody>,
        mut arrival: Arrival<'_>,
        cx: &mut Context<'_>,
    ) -> Answering {
        arrival.strip_alone(&mut request);
        let asked = Question { method: request.method(), uri: request.uri(), headers: request.headers() };
        match self.site.answer(asked, Speed::Cached) {
            Ok(response) => Answering::Now(Ok(sent(response, &self.trips))),
            // It is asked again on the pool.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let (served, head) = (self.clone(), Box::new(request.into_parts().0));
                let later = async move {
                    let trips = served.trips.clone();
                    Ok(sent(served.in_time(head).await?, &trips))
                };
                Answering::boxed(Box::pin(later), cx)
            }
            Err(error) => Answering::Now(Err(error.into())),
        }
    }
}

impl SendApp for Served {
    fn ask(&self, mut request: Request<RequestBody>, mut arrival: Arrival<'_>) -> Asked {
        arrival.strip_alone(&mut request);
        let asked = self.clone().ask(request.into_parts().0);
        Box::pin(async move { Ok(asked.await?.map(|body| Box::pin(body.map_err(Into::into)) as SendBody)) })
    }
}

fn sent(response: Response<FilesBody>, trips: &Trips) -> Response<ResponseBody> {
    response.map(|body| match body.into_whole() {
        Ok(whole) => ResponseBody::whole(whole),
        Err(body) => ResponseBody::paced(body.read_by(trips.clone())),
    })
}

/// What is behind the path of a request.
enum Behind {
    File(Choice),
    /// A page that stands for what is not there, with its status.
    Page(StatusCode, Choice),
    /// The folder that is to be listed.
    Folder(String),
    /// A folder without its slash.
    Elsewhere,
    Nothing,
    Forbidden,
}

impl Site {
    /// The answer; [`WouldBlock`](io::ErrorKind::WouldBlock) if it takes longer than this.
    fn answer(&self, asked: Question<'_>, speed: Speed) -> io::Result<Response<FilesBody>> {
        let mut response = match *asked.method {
            Method::GET => return self.get(asked, speed),
            Method::HEAD => self.get(asked, speed)?,
            Method::OPTIONS => {
                let mut response = Response::new(FilesBody::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                let _ = response.headers_mut().insert(ALLOW, ALLOWED);
                let _ = response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
                response
            }
            _ => {
                let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED);
                let _ = response.headers_mut().insert(ALLOW, ALLOWED);
                response
            }
        };
        if *asked.method == Method::HEAD {
            *response.body_mut() = FilesBody::empty();
        }
        Ok(response)
    }

    fn get(&self, asked: Question<'_>, speed: Speed) -> io::Result<Response<FilesBody>> {
        let Question { method, uri, headers } = asked;
        let now = SystemTime::now();
        let place = path::place(uri.path());
        let wants = Wants::of(headers);
        let codings = if wants.codings.is_none() { Codings::default() } else { Codings::of(headers) };
        let second = dates::seconds(now);
        let inquiry = Inquiry { codings, speed, now, second, turn: None };
        let render = |choice| render::render(method, &wants, choice, second);
        Ok(match self.behind(place, headers, inquiry)? {
            Behind::File(choice) => render(choice),
            Behind::Page(StatusCode::OK, choice) => {
                let mut response = render(choice);
                let _ =
                    response.headers_mut().insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
                response
            }
            Behind::Page(status, choice) => {
                let mut chosen = choice.chosen();
                // What is said of the page itself is not said of what is not there.
                chosen.caching = HeaderValue::from_static("no-cache");
                render::whole(status, chosen, second)
            }
            Behind::Folder(path) => match self.listed(&path, asked, speed) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    refuse(StatusCode::FORBIDDEN)
                }
                Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => {
                    refuse(StatusCode::SERVICE_UNAVAILABLE)
                }
                Err(error) => return Err(error),
                Ok(Some(chosen)) => {
                    let mut response = render(Choice::Other(Box::new(chosen)));
                    if response.status() != StatusCode::NOT_MODIFIED {
                        let _ =
                            response.headers_mut().insert(CONTENT_SECURITY_POLICY, NOTHING_FROM_ELSEWHERE);
                    }
                    response
                }
                Ok(None) => refuse(StatusCode::NOT_FOUND),
            },
            Behind::Elsewhere => {
                let mut response = refuse(StatusCode::TEMPORARY_REDIRECT);
                let location = path::with_slash(prefix(headers), uri.path(), uri.query());
                let location =
                    HeaderValue::try_from(location).expect("what was percent-encoded is visible ASCII");
                let _ = response.headers_mut().insert(LOCATION, location);
                response
            }
            Behind::Nothing => refuse(StatusCode::NOT_FOUND),
            Behind::Forbidden => refuse(StatusCode::FORBIDDEN),
        })
    }

    fn behind(&self, place: Option<Place<'_>>, headers: &HeaderMap, inquiry: Inquiry) -> io::Result<Behind> {
        let Some(Place { path, folder }) = place else { return self.missing(None, headers, inquiry) };
        let found = if folder { self.in_folder(&path, inquiry)? } else { self.by_name(&path, inquiry)? };
        match found {
            Behind::Nothing => self.missing(Some(&path), headers, inquiry),
            found => Ok(found),
        }
    }

    /// What stands for a folder.
    fn in_folder(&self, path: &str, inquiry: Inquiry) -> io::Result<Behind> {
        for name in &self.said.index {
            match self.file(&path::joined(path, name), inquiry)? {
                Behind::File(choice) => return Ok(Behind::File(choice)),
                Behind::Forbidden => return Ok(Behind::Forbidden),
                _ => {}
            }
        }
        if self.said.listing && matches!(self.shelf.root.find(path, inquiry.speed)?, Found::Folder(_)) {
            return Ok(Behind::Folder(path.to_owned()));
        }
        Ok(Behind::Nothing)
    }

    /// A file by its name, or by its name without `.html`; else a folder without its slash.
    fn by_name(&self, path: &str, inquiry: Inquiry) -> io::Result<Behind> {
        let found = self.file(path, inquiry)?;
        if self.said.extension && matches!(found, Behind::Nothing | Behind::Elsewhere) {
            let page = format!("{path}.html");
            // There is `.well-known`, and no `.well-known.html`.
            if page.rsplit('/').next().is_some_and(path::is_public)
                && let page @ Behind::File(_) = self.file(&page, inquiry)?
            {
                return Ok(page);
            }
        }
        Ok(found)
    }

    /// What is sent instead of what is not there.
    fn missing(&self, path: Option<&str>, headers: &HeaderMap, inquiry: Inquiry) -> io::Result<Behind> {
        let is_page = |path: &&str| !path.rsplit('/').next().is_some_and(|last| last.contains('.'));
        if let Some(fallback) = &self.said.fallback
            && path.filter(is_page).is_some()
            && accept::takes_html(headers)
            && let Behind::File(choice) = self.page(fallback, inquiry)?
        {
            return Ok(Behind::Page(StatusCode::OK, choice));
        }
        if let Some(not_found) = &self.said.not_found
            && let Behind::File(choice) = self.page(not_found, inquiry)?
        {
            return Ok(Behind::Page(StatusCode::NOT_FOUND, choice));
        }
        Ok(Behind::Nothing)
    }

    fn page(&self, path: &str, inquiry: Inquiry) -> io::Result<Behind> {
        said::page(path).map_or(Ok(Behind::Nothing), |path| self.file(path, inquiry))
    }

    /// What is at exactly this path.
    fn file(&self, path: &str, inquiry: Inquiry) -> io::Result<Behind> {
        let found = match self.shelf.find(path, inquiry) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Found::Forbidden),
            found => found?,
        };
        Ok(match found {
            Ok(choice) => Behind::File(choice),
            Err(Found::Folder(_)) => Behind::Elsewhere,
            Err(Found::Forbidden) => Behind::Forbidden,
            Err(_) => Behind::Nothing,
        })
    }

    /// The list of what is in a folder, as a page or as JSON; nothing if it is gone by now.
    fn listed(&self, path: &str, asked: Question<'_>, speed: Speed) -> io::Result<Option<Chosen>> {
        if speed == Speed::Cached {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let Some(listing) = self.shelf.root.list(path)? else { return Ok(None) };
        let (list, media) = if accept::wants_json(asked.headers) {
            (listing.json(), "application/json")
        } else {
            let public = path::with_slash(prefix(asked.headers), asked.uri.path(), None);
            (listing.html(&public, path.is_empty()), "text/html; charset=utf-8")
        };
        let list = match self.shelf.memory.hold(list.into_bytes()) {
            Ok(list) => list,
            Err(list) if list.len() <= LIST => list.into(),
            Err(_) => return Err(io::ErrorKind::QuotaExceeded.into()),
        };
        let mut chosen =
            Chosen::made(list, HeaderValue::from_static(media), HeaderValue::from_static("no-cache"));
        chosen.vary = Some(HeaderValue::from_static("accept"));
        Ok(Some(chosen))
    }
}

/// Set by the host alone: what was cut off the path before it came here.
fn prefix(headers: &HeaderMap) -> &str {
    headers.get(X_FORWARDED_PREFIX).and_then(|prefix| prefix.to_str().ok()).unwrap_or_default()
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
    let _ = headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let _ = headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    response
}
