//! What is said of files that are served: a value with a default for everything. Nothing is opened by saying it.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use super::{
    caching::{Rule, Rules},
    embedded::Embedded,
};

/// What a combo holds of small files in memory, for each mount, if nothing else is said.
const MEMORY: usize = 64 << 20;

/// Files behind a mount, with what is said of them: for [`mount::files`](crate::mount::files()).
///
/// With nothing said it is what a careful operator would have configured:
///
/// - GET, HEAD and OPTIONS; preconditions, one range and several (RFC 9110), strong entity tags by contents;
/// - only regular files beneath the folder, and nothing hidden but `.well-known`; `index.html` stands for its folder;
/// - `a.css.br`, `a.css.zst` or `a.css.gz`, if it is not older than `a.css`, for who accepts it; other texts
///   of 512 bytes to 4 MiB are compressed on the fly, once, and kept;
/// - files up to 4 MiB are served from memory, 64 MiB of them at most, those asked for last. A file that changes is served
///   new at once, one that changes unheard (through a mapping) within a second;
/// - names with a fingerprint (`app.3f9a1c.js`) may be kept by clients for a year, all else is asked for again.
///
/// ```
/// use combo::mount::{self, Files};
///
/// let target = mount::files(
///     Files::folder("site")
///         .fallback("index.html")
///         .not_found("404.html")
///         .cache_control("assets/**", "max-age=31536000, immutable"),
/// );
/// ```
#[derive(Clone, Debug)]
pub struct Files {
    pub(super) layers: Vec<Layer>,
    pub(super) index: Vec<String>,
    pub(super) extension: bool,
    pub(super) fallback: Option<String>,
    pub(super) not_found: Option<String>,
    pub(super) listing: bool,
    pub(super) compresses: bool,
    pub(super) memory: usize,
    rules: Vec<(String, String)>,
}

/// Where files are.
#[derive(Clone, Debug)]
pub(super) enum Layer {
    Folder(PathBuf),
    Embedded(Embedded),
}

impl Files {
    /// The files in a folder. A relative path is under the deployment's root.
    pub fn folder(folder: impl Into<PathBuf>) -> Self {
        Self::of(Layer::Folder(folder.into()))
    }

    /// Files that were compiled into the binary, with what compresses them: see [`embedded!`](crate::embedded). They have
    /// an entity tag and no date. In a build with debug assertions they are read from the folder that they are from.
    pub fn embedded(embedded: Embedded) -> Self {
        Self::of(Layer::Embedded(embedded))
    }

    fn of(layer: Layer) -> Self {
        Self {
            layers: vec![layer],
            index: vec!["index.html".to_owned()],
            extension: false,
            fallback: None,
            not_found: None,
            listing: false,
            compresses: true,
            memory: MEMORY,
            rules: Vec::new(),
        }
    }

    /// These files lie over those: what is in neither is not there, and of what is in both, this is served. Whatever
    /// else was said of those is forgotten.
    ///
    /// ```
    /// # use combo::mount::Files;
    /// // What jobs write is served before what was delivered, or before what is in the binary.
    /// let files = Files::folder("live").over("delivered");
    /// ```
    #[must_use]
    pub fn over(mut self, those: impl Into<Self>) -> Self {
        self.layers.extend(those.into().layers);
        self
    }

    /// The names that stand for their folder, the first that is there; `index.html` by default. None for no such names.
    #[must_use]
    pub fn index<I: Into<String>>(mut self, names: impl IntoIterator<Item = I>) -> Self {
        self.index = names.into_iter().map(Into::into).collect();
        self
    }

    /// `/about` is also `about.html`, if there is no file `about`.
    #[must_use]
    pub fn html_extension(mut self) -> Self {
        self.extension = true;
        self
    }

    /// What is served, with status 200, for pages that are not there: for apps of one page that find their way in the
    /// browser. A page is what a client takes HTML for and whose last segment has no dot in it, so that a missing
    /// script is a 404 still.
    #[must_use]
    pub fn fallback(mut self, path: impl Into<String>) -> Self {
        self.fallback = Some(path.into());
        self
    }

    /// The page for what is not there, with status 404.
    #[must_use]
    pub fn not_found(mut self, path: impl Into<String>) -> Self {
        self.not_found = Some(path.into());
        self
    }

    /// Folders without an index are listed: up to 10,000 entries, as a page or, for who prefers that, as JSON. Off by
    /// default. What would not be served is not listed.
    #[must_use]
    pub fn listing(mut self) -> Self {
        self.listing = true;
        self
    }

    /// `Cache-Control` of the files whose path below the mount the pattern matches: `*` is anything within a segment,
    /// `**` any number of segments. The first that matches counts, and all come before the defaults: a year for
    /// names with a fingerprint, `no-cache` for the rest (RFC 9111, 5.2.2).
    #[must_use]
    pub fn cache_control(mut self, pattern: impl Into<String>, value: impl Into<String>) -> Self {
        self.rules.push((pattern.into(), value.into()));
        self
    }

    /// Nothing is compressed on the fly; what was compressed beforehand is still served.
    #[must_use]
    pub fn uncompressed(mut self) -> Self {
        self.compresses = false;
        self
    }

    /// The bytes of small files that are held in memory, over all workers; 64 MiB by default. A file is small that
    /// takes a sixteenth of it at most. With 0 all files are read from disk, and nothing is compressed on the fly.
    #[must_use]
    pub fn memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }
}

impl Files {
    /// All that is wrong with what was said.
    pub(crate) fn faults(&self) -> Vec<String> {
        let folders = self.layers.iter().filter_map(|layer| match layer {
            Layer::Folder(folder) if folder.as_os_str().is_empty() => {
                Some("the folder to serve has no name".to_owned())
            }
            Layer::Folder(_) | Layer::Embedded(_) => None,
        });
        let index = self.index.iter().filter(|name| name.is_empty() || !super::path::is_public(name));
        let index = index
            .map(|name| format!("`{name}` cannot stand for its folder: it must be a name that is served"));
        let pages = self.fallback.iter().chain(&self.not_found).filter(|path| page(path).is_none());
        let pages =
            pages.map(|path| format!("`{path}` is no page: it must be the path of a file that is served"));
        let rules = self.rules.iter().filter_map(|(pattern, value)| Rule::new(pattern, value).err());
        folders.chain(index).chain(pages).chain(rules).collect()
    }

    /// What was said of caching.
    pub(super) fn rules(&self) -> Result<Rules, String> {
        let mut rules = Rules::default();
        for (pattern, value) in &self.rules {
            rules.push(Rule::new(pattern, value)?);
        }
        Ok(rules)
    }

    /// What was said beside the folders, as the plan says it.
    pub(crate) fn options(&self) -> Vec<String> {
        let flag = |on: bool, said: &str| on.then(|| said.to_owned());
        let mut options = Vec::new();
        if *self.index != ["index.html"] {
            options.push(match &*self.index {
                [] => "without index".to_owned(),
                names => format!("index {}", quoted(names)),
            });
        }
        options.extend(flag(self.extension, "`.html` may be left out"));
        options.extend(self.fallback.iter().map(|path| format!("falls back to `{path}`")));
        options.extend(self.not_found.iter().map(|path| format!("`{path}` for what is not there")));
        options.extend(flag(self.listing, "lists folders"));
        options.extend(self.rules.iter().map(|(pattern, value)| format!("`{pattern}` is `{value}`")));
        options.extend(flag(!self.compresses, "compresses nothing"));
        if self.memory != MEMORY {
            options.push(format!("{} bytes in memory", self.memory));
        }
        options
    }
}

/// The path of a page as it is looked up.
pub(super) fn page(path: &str) -> Option<&str> {
    let path = path.trim_start_matches('/');
    path.split('/').all(|segment| !segment.is_empty() && super::path::is_public(segment)).then_some(path)
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Where they are, the one that lies over the others first.
impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, layer) in self.layers.iter().enumerate() {
            f.write_str(if at == 0 { "files " } else { " over " })?;
            match layer {
                Layer::Folder(folder) => write!(f, "`{}`", folder.display())?,
                Layer::Embedded(embedded) => write!(f, "`{}` in the binary", embedded.name())?,
            }
        }
        Ok(())
    }
}

impl From<Embedded> for Files {
    fn from(embedded: Embedded) -> Self {
        Self::embedded(embedded)
    }
}

macro_rules! from_folders {
    ($($folder:ty),*) => {$(
        impl From<$folder> for Files {
            fn from(folder: $folder) -> Self {
                Self::folder(folder)
            }
        }
    )*};
}

from_folders!(&str, String, &String, OsString, &Path, PathBuf, &PathBuf);
