//! What answers: the targets that stand behind a pattern, and their options.
//!
//! Each worker builds its own instance of every target, so that no request crosses a thread. The
//! functions here only say what to build; nothing is built before the deployment is started.

#[cfg(feature = "actix")]
mod actix;
#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "files")]
pub(crate) mod files;
mod redirect;
mod tower;

use std::{fmt, future::Future, path::PathBuf, pin::Pin, rc::Rc, sync::Arc};

use combo_core::{BoxError, Connection, Context, Site};
use http::{HeaderName, HeaderValue, Request, Response, Uri};

#[cfg(feature = "actix")]
pub use self::actix::actix;
#[cfg(feature = "axum")]
pub use self::axum::axum;
pub use self::tower::{local, tower};
use crate::serve::body::{RequestBody, ResponseBody};

/// What stands behind a pattern: an app, files, a redirect.
pub struct Target {
    pub(crate) label: String,
    pub(crate) source: Source,
    pub(crate) unstripped: bool,
    pub(crate) context: bool,
}

/// How a target comes to be.
pub(crate) enum Source {
    /// Every worker makes one of its own.
    App(Box<dyn Recipe>),
    /// Once per process something asynchronous has to happen first.
    Later(Box<dyn FnOnce() -> Making + Send>),
    /// A folder.
    #[cfg(feature = "files")]
    Files(PathBuf),
    /// Somewhere else.
    Redirect { to: String, permanent: bool },
}

pub(crate) type Making = Pin<Box<dyn Future<Output = Result<Target, BoxError>> + Send>>;
pub(crate) type Building = Pin<Box<dyn Future<Output = Result<Rc<dyn App>, BoxError>>>>;
/// An answer on its way.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, BoxError>>>>;
pub(crate) type Builder = Box<dyn FnOnce() -> Building + Send>;

/// Gives each worker what it needs to build its instance.
pub(crate) trait Recipe: Send {
    fn builder(&mut self) -> Builder;
}

/// One instance of a target on one worker. A panic while it answers is caught by whoever calls.
pub(crate) trait App {
    fn answer(&self, request: Request<RequestBody>, arrival: Arrival<'_>) -> Answering;
}

/// How a request got to its mount.
pub(crate) struct Arrival<'a> {
    pub(crate) connection: &'a Arc<Connection>,
    pub(crate) site: &'a Arc<Site>,
    /// How many bytes of the path the app does not see.
    pub(crate) strip: usize,
    /// The original URI with scheme and authority, where the request's own has none: over TLS.
    pub(crate) absolute: Option<Uri>,
    /// What `X-Forwarded-Prefix` says, if anything.
    pub(crate) forwarded: Option<&'a HeaderValue>,
    /// Whether the app wants a [`Context`].
    pub(crate) context: bool,
}

pub(crate) const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

impl Arrival<'_> {
    /// Takes the prefix off the request's path and tells the app of it, in a header that no client
    /// can set; leaves a context if one is wanted. Gives the original URI.
    pub(crate) fn strip<B>(&mut self, request: &mut Request<B>) -> Uri {
        if let Some(prefix) = self.forwarded {
            let _ = request.headers_mut().insert(X_FORWARDED_PREFIX, prefix.clone());
        }
        let rest = if self.strip > 0 {
            redirect::stripped(request.uri(), self.strip)
        } else {
            request.uri().clone()
        };
        let came = std::mem::replace(request.uri_mut(), rest);
        let original = self.absolute.take().unwrap_or(came);
        self.leave_context(request, &original);
        original
    }

    pub(crate) fn leave_context<B>(&self, request: &mut Request<B>, original: &Uri) {
        if self.context {
            let method = request.method().clone();
            let context = Context::new(self.connection.clone(), self.site.clone(), method, original.clone());
            let _ = request.extensions_mut().insert(context);
        }
    }
}

impl Target {
    pub(crate) fn new(label: impl Into<String>, source: Source) -> Self {
        Self { label: label.into(), source, unstripped: false, context: false }
    }

    /// The app sees the whole path, prefix included: for apps that build links themselves.
    #[must_use]
    pub fn unstripped(mut self) -> Self {
        self.unstripped = true;
        self
    }

    /// The app finds a [`Context`] with all that is known of a request in its extensions. Without
    /// this it finds what its framework's users know, which costs less.
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

    /// What is wrong with what was said, apart from the pattern.
    pub(crate) fn fault(&self) -> Option<String> {
        match &self.source {
            Source::Redirect { to, .. } => redirect::fault(to),
            #[cfg(feature = "files")]
            Source::Files(folder) if folder.as_os_str().is_empty() => {
                Some("the folder to serve has no name".to_owned())
            }
            _ => None,
        }
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
    Target::new("an app built at the start", Source::Later(Box::new(later)))
}

/// A folder of files. A relative path is under the deployment's root.
///
/// Only regular files beneath the folder are served: no dot-files but `.well-known`, nothing that
/// a symbolic link finds outside. `index.html` stands for its folder.
#[cfg(feature = "files")]
pub fn files(folder: impl Into<PathBuf>) -> Target {
    let folder = folder.into();
    Target::new(format!("files `{}`", folder.display()), Source::Files(folder))
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
    /// What each worker builds from, once everything that can fail has been opened.
    pub(crate) fn recipe(
        self,
        resolve: impl Fn(&std::path::Path) -> Vec<PathBuf>,
    ) -> Result<Box<dyn Recipe>, BoxError> {
        let _ = &resolve;
        Ok(match self {
            Self::App(recipe) => recipe,
            Self::Later(_) => return Err("it was built twice".into()),
            #[cfg(feature = "files")]
            Self::Files(folder) => {
                let folders = resolve(&folder);
                let root = files::Root::open(&folders)?;
                tower::recipe(files::Files::new(root))
            }
            Self::Redirect { to, permanent } => redirect::recipe(to, permanent),
        })
    }
}
