//! Compiles folders of files into the binary, for combo to serve. A program that embeds its files is one
//! file to copy, and a deploy that cannot be half done.
//!
//! It is used in a build script:
//!
//! ```toml
//! [build-dependencies]
//! combo-embed = "0.1"
//! ```
//!
//! ```no_run
//! // In `main` of `build.rs`.
//! combo_embed::folder("../static");
//! ```
//!
//! and then the folder is there under its name, the last part of its path:
//!
//! ```text
//! Deployment::new("site").mount("/", mount::embedded(combo::embedded!("static")))
//! ```
//!
//! # What is embedded
//!
//! What `mount::files` would serve, by the same rules: regular files, no name that begins with a dot but
//! `.well-known`, no name with a backslash; a relative link that stays inside the folder is what it leads
//! to, and one that does not is left out, with a warning. A name that is not UTF-8, a file that cannot be
//! read and a link to a folder that it is in end the build.
//!
//! Beside each file stand its forms in brotli, zstd and gzip, at their best ratios, where they are smaller
//! by a twentieth at least. What is compressed by nature, by its extension, is not tried.
//!
//! # When
//!
//! Files that were added, changed or removed are noticed by cargo. Only those whose content is new are
//! compressed again, on as many threads as cargo has jobs.
//!
//! In a build with debug assertions nothing is embedded: the files are read from where they are, so that
//! a change needs no build. [`Folder::always`] embeds all the same. Cargo's profile `dev`, and what
//! inherits from it, compresses nothing.
//!
//! # How long it takes
//!
//! Cargo does not optimise build scripts, not even for a release, and compressing is work. So a workspace
//! that embeds more than a few hundred kilobytes says:
//!
//! ```toml
//! [profile.release.build-override]
//! opt-level = 3
//! ```
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod encoding;
mod error;
mod hash;
mod render;
mod script;
mod store;
mod walk;

use std::path::PathBuf;

/// Embeds a folder under the last part of its path. A relative path is under the package's own folder.
///
/// # Panics
///
/// With one sentence, which ends the build: if it is not called by a build script, if there is no such
/// folder, if something in it cannot be embedded, or if the script has embedded another one under its name.
#[track_caller]
pub fn folder(path: impl Into<PathBuf>) {
    Folder::new(path).embed();
}

/// A folder to embed, where there is more to say of it.
///
/// ```no_run
/// combo_embed::Folder::new("../shop/static").named("shop").always().embed();
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is embedded before `embed` is called"]
pub struct Folder {
    path: PathBuf,
    name: Option<String>,
    always: bool,
}

impl Folder {
    /// A relative path is under the package's own folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), name: None, always: false }
    }

    /// What the program calls it: `combo::embedded!("name")`. By default the last part of the path.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Embeds and compresses also where there are debug assertions: for tests of what a release does.
    pub fn always(mut self) -> Self {
        self.always = true;
        self
    }

    /// Does it.
    ///
    /// # Panics
    ///
    /// As [`folder`] does.
    #[track_caller]
    pub fn embed(self) {
        if let Err(error) = script::run(&self) {
            panic!("{error}");
        }
    }
}
