//! What answers: the targets that stand behind a pattern, and their options.
//!
//! Each worker builds its own instance of every target, so that no request crosses a thread. The
//! functions here only say what to build; nothing is built before the deployment is started.

#[cfg(feature = "actix")]
mod actix;
mod allowance;
#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "files")]
pub(crate) mod files;
pub(crate) mod layer;
mod own_threads;
mod peers;
mod redirect;
mod relink;
pub(crate) mod stand_in;
mod tower;

use std::{
    fmt,
    future::{Future, poll_fn},
    path::PathBuf,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use combo_core::{BoxError, Connection, Draining, Site};
use http::{
    HeaderName, HeaderValue, Request, Response, StatusCode, Uri,
    header::HOST,
    uri::{Authority, PathAndQuery, Scheme},
};

#[cfg(feature = "actix")]
pub use self::actix::actix;
#[cfg(feature = "axum")]
pub use self::axum::axum;
#[cfg(feature = "files")]
#[doc(hidden)]
pub use self::files::Asset;
#[cfg(feature = "files")]
pub use self::files::{Embedded, Files};
use self::{allowance::Allowance, layer::Wrap, own_threads::SendApp};
pub use self::{
    layer::Inner,
    tower::{local, tower},
};
use crate::serve::{
    body::{RequestBody, ResponseBody},
    mounted::{Tally, Telling},
};

/// What stands behind a pattern: an app, files, a redirect.
pub struct Target {
    pub(crate) label: String,
    pub(crate) source: Source,
    pub(crate) unstripped: bool,
    pub(crate) context: bool,
    pub(crate) relink: bool,
    pub(crate) slash: bool,
    pub(crate) allowance: Allowance,
    pub(crate) own_threads: Option<usize>,
    layers: Vec<Box<dyn Wrap>>,
}

/// How a target comes to be.
pub(crate) enum Source {
    /// Every worker makes one of its own.
    App(Box<dyn Recipe>),
    /// Once per process something asynchronous has to happen first.
    Later(Option<Box<dyn FnOnce() -> Making + Send>>),
    /// Folders.
    #[cfg(feature = "files")]
    Files(Files),
    /// Somewhere else.
    Redirect { to: String, permanent: bool },
}

pub(crate) type Making = Pin<Box<dyn Future<Output = Result<Target, BoxError>> + Send>>;
pub(crate) type Building = Pin<Box<dyn Future<Output = Result<Rc<dyn App>, BoxError>>>>;
pub(crate) type Answered = Result<Response<ResponseBody>, BoxError>;
pub(crate) type Later = Pin<Box<dyn Future<Output = Answered>>>;
pub(crate) type Builder = Box<dyn FnOnce() -> Building + Send>;

/// Gives each worker what it needs to build its instance.
pub(crate) trait Recipe: Send {
    fn builder(&mut self) -> Builder;

    /// The app as one that may be asked on any thread, where it is.
    fn send(&mut self) -> Option<Arc<dyn SendApp>> {
        None
    }
}

/// One instance of a target on one worker. A panic while it answers is caught by whoever calls.
pub(crate) trait App {
    fn answer(&self, request: Request<RequestBody>, arrival: Arrival<'_>, cx: &mut Context<'_>) -> Answering;
}

/// What becomes of a request.
pub(crate) enum Answering {
    Now(Answered),
    /// A future that was polled already, with the context that the app was asked in.
    Later(Later),
}

impl Answering {
    /// Polls a future where it is: most are ready at once, and then it never needs a box.
    #[cfg(any(feature = "actix", feature = "axum"))]
    pub(crate) fn of(
        mut answer: impl Future<Output = Answered> + Unpin + 'static,
        cx: &mut Context<'_>,
    ) -> Self {
        match Pin::new(&mut answer).poll(cx) {
            Poll::Ready(answered) => Self::Now(answered),
            Poll::Pending => Self::Later(Box::pin(answer)),
        }
    }

    /// The same for one that cannot be moved once it was polled.
    pub(crate) fn boxed(mut answer: Later, cx: &mut Context<'_>) -> Self {
        match answer.as_mut().poll(cx) {
            Poll::Ready(answered) => Self::Now(answered),
            Poll::Pending => Self::Later(answer),
        }
    }
}

/// How a request got to its mount.
pub(crate) struct Arrival<'a> {
    pub(crate) connection: &'a Arc<Connection>,
    pub(crate) site: &'a Arc<Site>,
    /// How many bytes of the path the app does not see.
    pub(crate) strip: usize,
    /// What it sees instead, if that is known already.
    pub(crate) rest: Option<&'a PathAndQuery>,
    /// The original URI with scheme and authority, where the request's own has none: over TLS.
    pub(crate) absolute: Option<Uri>,
    /// The original URI, if the prefix is off already: where layers stand before an app.
    pub(crate) original: Option<Uri>,
    /// What `X-Forwarded-Prefix` says, if anything.
    pub(crate) forwarded: Option<&'a HeaderValue>,
    /// What the [`Context`](combo_core::Context) says of the drain, where the app wants one.
    pub(crate) context: Option<&'a Draining>,
}

/// The same, for whoever keeps it: a layer, another thread.
#[derive(Clone)]
pub(crate) struct Passage {
    connection: Arc<Connection>,
    site: Arc<Site>,
    strip: usize,
    absolute: Option<Uri>,
    original: Option<Uri>,
    forwarded: Option<HeaderValue>,
    context: Option<Draining>,
}

impl Passage {
    fn arrival(&self) -> Arrival<'_> {
        Arrival {
            connection: &self.connection,
            site: &self.site,
            strip: self.strip,
            rest: None,
            absolute: self.absolute.clone(),
            original: self.original.clone(),
            forwarded: self.forwarded.as_ref(),
            context: self.context.as_ref(),
        }
    }

    /// Asks an app, where there was no context to ask it in.
    async fn ask(&self, app: &dyn App, request: Request<RequestBody>) -> Answered {
        let (mut request, mut later) = (Some(request), None::<Later>);
        poll_fn(|cx| match (request.take(), &mut later) {
            (Some(request), _) => match app.answer(request, self.arrival(), cx) {
                Answering::Now(answered) => Poll::Ready(answered),
                Answering::Later(answering) => {
                    later = Some(answering);
                    Poll::Pending
                }
            },
            (None, Some(later)) => later.as_mut().poll(cx),
            (None, None) => Poll::Pending,
        })
        .await
    }
}

pub(crate) const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// The host that a request names.
pub(crate) fn host<B>(request: &Request<B>) -> &str {
    request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}

/// Whether its connection, or its stream of one, goes on as something else after this answer, to a `CONNECT`
/// or to anything else.
fn upgrades<B>(response: &Response<B>, connects: bool) -> bool {
    let status = response.status();
    status == StatusCode::SWITCHING_PROTOCOLS || connects && status.is_success()
}

/// Over TLS the original URI names scheme and host, whatever the version of HTTP.
fn absolute(uri: Uri, authority: Option<Authority>) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = authority;
    Uri::from_parts(parts).unwrap_or(uri)
}

impl<'a> Arrival<'a> {
    /// The way of a request to the mount that was found for it. Over TLS the `authority` that the
    /// host in its head is may have to be known.
    pub(crate) fn new<B>(
        request: &Request<B>,
        connection: &'a Arc<Connection>,
        telling: &'a Telling,
        strip: usize,
        authority: impl FnOnce(&str) -> Option<Authority>,
    ) -> Self {
        let Telling { site, strips, forwarded, context } = telling;
        let secure = connection.scheme == Scheme::HTTPS;
        let bare = secure && request.uri().scheme().is_none() && request.uri().authority().is_none();
        Self {
            connection,
            site,
            strip: if *strips { strip } else { 0 },
            rest: None,
            absolute: bare.then(|| absolute(request.uri().clone(), authority(host(request)))),
            original: None,
            forwarded: forwarded.as_ref(),
            context: context.as_ref(),
        }
    }
}

impl Arrival<'_> {
    fn kept(self) -> Passage {
        Passage {
            connection: self.connection.clone(),
            site: self.site.clone(),
            strip: self.strip,
            absolute: self.absolute,
            original: self.original,
            forwarded: self.forwarded.cloned(),
            context: self.context.cloned(),
        }
    }

    /// Takes the prefix off the request's path and tells the app of it, in a header that no client
    /// can set; leaves a context if one is wanted. Gives the original URI.
    pub(crate) fn strip<B>(&mut self, request: &mut Request<B>) -> Uri {
        if let Some(original) = self.original.take() {
            return original;
        }
        if let Some(prefix) = self.forwarded {
            let _ = request.headers_mut().insert(X_FORWARDED_PREFIX, prefix.clone());
        }
        let rest = match self.rest {
            _ if self.strip == 0 => request.uri().clone(),
            Some(rest) => redirect::with_path(request.uri(), rest.clone()),
            None => redirect::stripped(request.uri(), self.strip),
        };
        let came = std::mem::replace(request.uri_mut(), rest);
        let original = self.absolute.take().unwrap_or(came);
        self.leave_context(request, &original);
        original
    }

    /// The same for whoever has no use for the original URI, nor for a context.
    #[cfg(feature = "files")]
    fn strip_alone<B>(&mut self, request: &mut Request<B>) {
        if self.original.is_none() && (self.strip > 0 || self.forwarded.is_some()) {
            let _ = self.strip(request);
        }
    }

    pub(crate) fn leave_context<B>(&self, request: &mut Request<B>, original: &Uri) {
        if let Some(draining) = self.context {
            let method = request.method().clone();
            let context = combo_core::Context::new(
                self.connection.clone(),
                self.site.clone(),
                method,
                original.clone(),
                draining.clone(),
            );
            let _ = request.extensions_mut().insert(context);
        }
    }
}

impl Target {
    pub(crate) fn new(label: impl Into<String>, source: Source) -> Self {
        Self {
            label: label.into(),
            source,
            unstripped: false,
            context: false,
            relink: false,
            slash: false,
            allowance: Allowance::default(),
            own_threads: None,
            layers: Vec::new(),
        }
    }

    /// The app sees the whole path, prefix included: for apps that build links themselves.
    #[must_use]
    pub fn unstripped(mut self) -> Self {
        self.unstripped = true;
        self
    }

    /// The app finds a [`Context`](combo_core::Context) with all that is known of a request in its
    /// extensions, with a [`Draining`] among it for what goes on for long. Without this it finds what its
    /// framework's users know, which costs less.
    #[must_use]
    pub fn context(mut self) -> Self {
        self.context = true;
        self
    }

    /// A redirect that clients may remember: 308 instead of 307. Says nothing to other targets.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        if let Source::Redirect { permanent, .. } = &mut self.source {
            *permanent = true;
        }
        self
    }

    /// All that is wrong with what was said, apart from the pattern.
    pub(crate) fn faults(&self) -> Vec<String> {
        let source = match &self.source {
            Source::Redirect { to, .. } => redirect::fault(to),
            _ => None,
        };
        let files = match &self.source {
            #[cfg(feature = "files")]
            Source::Files(said) => said.faults(),
            _ => Vec::new(),
        };
        source
            .into_iter()
            .chain(files)
            .chain(self.allowance.faults())
            .chain(own_threads::fault(self.own_threads))
            .collect()
    }

    /// How to build it, if that has to happen before anything else; it can be taken once.
    pub(crate) fn later(&mut self) -> Option<Box<dyn FnOnce() -> Making + Send>> {
        match &mut self.source {
            Source::Later(make) => make.take(),
            _ => None,
        }
    }

    /// What was said of a target that is built later holds for what was built; what it was built with
    /// lies within.
    pub(crate) fn around(self, mut built: Self) -> Self {
        built.label = self.label;
        built.unstripped |= self.unstripped;
        built.context |= self.context;
        built.relink |= self.relink;
        built.slash |= self.slash;
        built.allowance = self.allowance.or(built.allowance);
        built.own_threads = self.own_threads.or(built.own_threads);
        built.layers.extend(self.layers);
        built
    }

    /// What was said apart from what it is, as the plan says it.
    pub(crate) fn options(&self) -> Vec<String> {
        let flag = |on: bool, said: &str| on.then(|| said.to_owned());
        let mut options: Vec<_> = [
            flag(self.unstripped, "sees the whole path"),
            flag(self.slash, "with a slash"),
            flag(self.relink, "links repaired"),
        ]
        .into_iter()
        .flatten()
        .collect();
        #[cfg(feature = "files")]
        if let Source::Files(said) = &self.source {
            drop(options.splice(0..0, said.options()));
        }
        match self.layers.len() {
            0 => {}
            1 => options.push("in a layer".to_owned()),
            several => options.push(format!("in {several} layers")),
        }
        options.extend(self.own_threads.map(|threads| format!("on {threads} threads of its own")));
        options.extend(self.allowance.said());
        options
    }

    /// What each worker builds from, once everything that can fail has been opened. From the app
    /// outwards: how much of a body it takes where a layer may make it larger, layers, threads of its own, links,
    /// what it takes.
    pub(crate) fn recipe(
        self,
        resolve: impl Fn(&std::path::Path) -> Vec<PathBuf>,
        tally: &Tally,
    ) -> Result<Box<dyn Recipe>, BoxError> {
        let mut recipe = self.source.recipe(resolve)?;
        if let Some(held) = self.allowance.held_within().filter(|_| !self.layers.is_empty()) {
            recipe = layer::around(recipe, Box::new(move |app| allowance::limited(app, held.clone())));
        }
        for layer in self.layers {
            recipe = layer::around(recipe, layer);
        }
        if let Some(threads) = self.own_threads {
            recipe = own_threads::recipe(recipe, threads, tally.clone());
        }
        if self.relink {
            recipe = layer::around(recipe, Box::new(relink::relinked));
        }
        if self.slash {
            recipe = layer::around(recipe, Box::new(relink::slashed));
        }
        if let Some(held) = self.allowance.held() {
            recipe = layer::around(recipe, Box::new(move |app| allowance::limited(app, held.clone())));
        }
        Ok(recipe)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("label", &self.label).finish_non_exhaustive()
    }
}

/// An app that is built asynchronously or can fail: once per process, before anything listens.
///
/// ```no_run
/// # #[cfg(feature = "axum")]
/// # fn main() {
/// use combo::{BoxError, mount};
///
/// async fn app() -> Result<axum::Router, std::io::Error> {
///     Ok(axum::Router::new())
/// }
///
/// let target = mount::build(|| async { Ok::<_, BoxError>(mount::axum(app().await?)) });
/// # }
/// # #[cfg(not(feature = "axum"))]
/// # fn main() {}
/// ```
pub fn build<F, Fut, E>(make: F) -> Target
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<Target, E>> + Send + 'static,
    E: Into<BoxError>,
{
    let later = move || -> Making {
        let making = make();
        Box::pin(async move { making.await.map_err(Into::into) })
    };
    Target::new("an app built at the start", Source::Later(Some(Box::new(later))))
}

/// Files: of a folder, or as [`Files`] says. A relative path is under the deployment's root.
///
/// Only regular files beneath the folder are served: no path with a dot-file in it but `.well-known`, nothing
/// that a symbolic link finds outside. A link within the folder is served as what it leads to, whatever that
/// is called. `index.html` stands for its folder.
///
/// The folder is opened once. One that is put in its place while the combo runs is found after a restart;
/// replace what is in it.
#[cfg(feature = "files")]
pub fn files(files: impl Into<Files>) -> Target {
    let files = files.into();
    Target::new(files.to_string(), Source::Files(files))
}

/// Files that were compiled into the binary; the same as [`files`](files()) of [`Files::embedded`].
#[cfg(feature = "files")]
pub fn embedded(embedded: Embedded) -> Target {
    files(embedded)
}

/// Somewhere else: a path (`/new`) or an `http://` or `https://` URL. The rest of the path and the
/// query are kept: with `/old` redirected to `/new`, `/old/a?b` leads to `/new/a?b`.
///
/// Answers 307, so that method and body are kept; [`Target::permanent`] makes it 308.
pub fn redirect(to: impl Into<String>) -> Target {
    let to = to.into();
    Target::new(format!("redirect to `{to}`"), Source::Redirect { to, permanent: false })
}

impl Source {
    fn recipe(self, resolve: impl Fn(&std::path::Path) -> Vec<PathBuf>) -> Result<Box<dyn Recipe>, BoxError> {
        let _ = &resolve;
        Ok(match self {
            Self::App(recipe) => recipe,
            Self::Later(_) => return Err("it was built twice".into()),
            #[cfg(feature = "files")]
            Self::Files(said) => Box::new(files::Served::open(said, resolve)?),
            Self::Redirect { to, permanent } => redirect::recipe(to, permanent),
        })
    }
}
