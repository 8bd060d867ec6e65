//! Takes a path below a folder that was compiled into the binary, gives the file that is there, or
//! that it is a folder. Pure; nothing is read from disk and nothing is copied.
//!
//! The lists are written by `combo-embed` in a build script and taken in by [`embedded!`](crate::embedded).

use std::{fmt, path::Path};

/// A folder that was compiled into the binary; [`embedded!`](crate::embedded) gives it.
///
/// In a build with debug assertions it is the folder on disk, where a change is seen at once.
#[derive(Clone, Copy)]
pub struct Embedded {
    name: &'static str,
    source: Source,
}

#[derive(Clone, Copy)]
enum Source {
    /// An absolute path.
    Disk(&'static str),
    /// Sorted by path.
    Binary(&'static [Asset]),
}

/// A file in the binary, and its compressed forms where they are worth it.
#[doc(hidden)]
pub struct Asset {
    /// Relative, between slashes. It ends in one for a folder with nothing in it.
    pub path: &'static str,
    pub contents: &'static [u8],
    pub brotli: Option<&'static [u8]>,
    pub zstd: Option<&'static [u8]>,
    pub gzip: Option<&'static [u8]>,
}

/// What is at a path.
#[derive(Debug)]
pub(super) enum Found {
    /// And its place among all.
    File(usize, &'static Asset),
    Folder,
}

impl Embedded {
    /// The folder at an absolute path, as it is when it is asked.
    #[doc(hidden)]
    pub const fn on_disk(name: &'static str, folder: &'static str) -> Self {
        Self { name, source: Source::Disk(folder) }
    }

    /// What was in it when the program was built, sorted by path.
    #[doc(hidden)]
    pub const fn in_binary(name: &'static str, assets: &'static [Asset]) -> Self {
        Self { name, source: Source::Binary(assets) }
    }

    /// What it was called where it was embedded.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Where it is, if it is read from disk.
    pub(super) fn folder(&self) -> Option<&'static Path> {
        match self.source {
            Source::Disk(folder) => Some(Path::new(folder)),
            Source::Binary(_) => None,
        }
    }

    /// How many files there are.
    pub(super) fn len(&self) -> usize {
        self.assets().len()
    }

    /// What is at a path without a slash at either end; the empty one is the folder itself.
    pub(super) fn find(&self, path: &str) -> Option<Found> {
        let assets = self.assets();
        if path.is_empty() {
            return Some(Found::Folder);
        }
        if path.ends_with('/') {
            return None;
        }
        if let Ok(at) = assets.binary_search_by(|asset| asset.path.cmp(path)) {
            return Some(Found::File(at, &assets[at]));
        }
        self.below(path).next().map(|_| Found::Folder)
    }

    /// Whether a file is where a path leads through: on disk nothing that lies under it would be seen either.
    pub(super) fn hides(&self, path: &str) -> bool {
        let assets = self.assets();
        let mut above = path.match_indices('/').map(|(at, _)| &path[..at]);
        above.any(|above| assets.binary_search_by(|asset| asset.path.cmp(above)).is_ok())
    }

    /// What is directly in a folder, sorted as it would be with a slash after each folder, which have no
    /// file. Nothing, if there is no such folder.
    pub(super) fn children(
        &self,
        folder: &str,
    ) -> impl Iterator<Item = (&'static str, Option<&'static Asset>)> + use<> {
        let mut last = None;
        self.below(folder).filter_map(move |(rest, asset)| match rest.split_once('/') {
            // The folder itself, with nothing in it.
            None if rest.is_empty() => None,
            None => Some((rest, Some(asset))),
            Some((name, _)) => (last.replace(name) != Some(name)).then_some((name, None)),
        })
    }

    /// All that lies in a folder, however deep, with the rest of its path. They stand next to each other.
    fn below(&self, folder: &str) -> impl Iterator<Item = (&'static str, &'static Asset)> + use<> {
        let mut prefix = folder.to_owned();
        if !prefix.is_empty() {
            prefix.push('/');
        }
        let assets = self.assets();
        let first = assets.partition_point(|asset| *asset.path < *prefix);
        assets[first..].iter().map_while(move |asset| Some((asset.path.strip_prefix(&*prefix)?, asset)))
    }

    fn assets(&self) -> &'static [Asset] {
        match self.source {
            Source::Disk(_) => &[],
            Source::Binary(assets) => assets,
        }
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asset").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The folder that a build script has embedded under this name, as a constant [`Embedded`].
///
/// It needs a build script that says so with the package `combo-embed`:
///
/// ```text
/// fn main() {
///     combo_embed::folder("../static");
/// }
/// ```
///
/// Then `combo::embedded!("static")` is that folder.
#[macro_export]
macro_rules! embedded {
    ($name:literal) => {{
        #[allow(clippy::all, clippy::pedantic, clippy::nursery)]
        const EMBEDDED: $crate::mount::Embedded = {
            #[allow(unused_imports)]
            use $crate::mount::{Asset, Embedded};
            ::core::include!(::core::concat!(::core::env!("OUT_DIR"), "/", $name, ".embedded.rs"))
        };
        EMBEDDED
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn asset(path: &'static str) -> Asset {
        Asset { path, contents: path.as_bytes(), brotli: None, zstd: None, gzip: None }
    }

    /// In the order of bytes, in which `a/` is after `a-` and `a.` and before `a0`.
    const SITE: Embedded = Embedded::in_binary(
        "site",
        &[
            asset(".well-known/security.txt"),
            asset("a-b"),
            asset("a.txt"),
            asset("a/b-c"),
            asset("a/b/c.css"),
            asset("a/b/d.css"),
            asset("a/index.html"),
            asset("a0"),
            asset("empty/"),
            asset("index.html"),
            asset("z/€"),
        ],
    );

    #[test]
    fn paths_lead_to_files_and_folders() {
        #[track_caller]
        fn check(embedded: Embedded, path: &str, expected: &str) {
            let found = match embedded.find(path) {
                None => "nothing",
                Some(Found::Folder) => "folder",
                Some(Found::File(_, asset)) => {
                    assert_eq!(asset.contents, path.as_bytes());
                    "file"
                }
            };
            assert_eq!(found, expected, "{path}");
        }
        check(SITE, "", "folder");
        check(SITE, ".well-known", "folder");
        check(SITE, ".well-known/security.txt", "file");
        check(SITE, "a", "folder");
        check(SITE, "a-b", "file");
        check(SITE, "a.txt", "file");
        check(SITE, "a/b", "folder");
        check(SITE, "a/b-c", "file");
        check(SITE, "a/b/c.css", "file");
        check(SITE, "a/b/d.css", "file");
        check(SITE, "a0", "file");
        check(SITE, "empty", "folder");
        check(SITE, "index.html", "file");
        check(SITE, "z/€", "file");

        check(SITE, "/", "nothing");
        check(SITE, "a/", "nothing");
        check(SITE, "empty/", "nothing");
        check(SITE, "empty/x", "nothing");
        check(SITE, "index", "nothing");
        check(SITE, "index.html/", "nothing");
        check(SITE, "index.html/x", "nothing");
        check(SITE, "A.txt", "nothing");
        check(SITE, "a/b/c", "nothing");
        check(SITE, "zz", "nothing");
        check(SITE, "\0", "nothing");

        let nothing = Embedded::in_binary("nothing", &[]);
        check(nothing, "", "folder");
        check(nothing, "a", "nothing");
    }

    #[test]
    fn folders_have_each_child_once() {
        #[track_caller]
        fn check(folder: &str, expected: &[&str]) {
            let children: Vec<_> = SITE
                .children(folder)
                .map(|(name, asset)| match asset {
                    None => format!("{name}/"),
                    Some(asset) => {
                        assert!(asset.path.ends_with(name), "{asset:?}");
                        name.to_owned()
                    }
                })
                .collect();
            assert_eq!(children, expected, "{folder}");
        }
        check("", &[".well-known/", "a-b", "a.txt", "a/", "a0", "empty/", "index.html", "z/"]);
        check("a", &["b-c", "b/", "index.html"]);
        check("a/b", &["c.css", "d.css"]);
        check(".well-known", &["security.txt"]);
        check("empty", &[]);
        check("a0", &[]);
        check("missing", &[]);
    }

    #[test]
    fn on_disk_it_is_a_folder_and_nothing_else() {
        const FOLDER: Embedded = Embedded::on_disk("site", "/srv/site");
        assert_eq!(FOLDER.folder(), Some(Path::new("/srv/site")));
        assert_eq!(FOLDER.name(), "site");
        assert_eq!(FOLDER.children("").count(), 0);
        assert_eq!(SITE.folder(), None);
        assert_eq!(format!("{SITE:?}"), "Embedded { name: \"site\", .. }");
    }
}
