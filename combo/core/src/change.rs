//! A change: what a task asks for. Values only; the host applies them.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use bytes::Bytes;

/// One wanted change to the disk. Relative paths are under the deployment's root.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Make this the whole content of the file: a reader sees the old one or the new one.
    WriteFile {
        /// The file to make or replace.
        path: PathBuf,
        /// Its whole content.
        contents: Bytes,
        /// Permission bits; 644 unless said.
        mode: Option<u32>,
    },
    /// Add to the end of the file, which is made (mode 644) if it is not there.
    AppendFile {
        /// The file to make or extend.
        path: PathBuf,
        /// What to add.
        contents: Bytes,
    },
    /// Remove the file. One that is not there is as wanted.
    RemoveFile {
        /// The file to remove.
        path: PathBuf,
    },
}

impl Change {
    /// Write a whole file, mode 644.
    #[must_use]
    pub fn write(path: impl Into<PathBuf>, contents: impl Into<Bytes>) -> Self {
        Self::WriteFile { path: path.into(), contents: contents.into(), mode: None }
    }

    /// Add to the end of a file.
    #[must_use]
    pub fn append(path: impl Into<PathBuf>, contents: impl Into<Bytes>) -> Self {
        Self::AppendFile { path: path.into(), contents: contents.into() }
    }

    /// Remove a file.
    #[must_use]
    pub fn remove(path: impl Into<PathBuf>) -> Self {
        Self::RemoveFile { path: path.into() }
    }

    /// Stand-in.
    #[must_use]
    pub fn preview(&self) -> impl fmt::Display {
        self.to_string()
    }

    /// The path that is changed.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::WriteFile { path, .. } | Self::AppendFile { path, .. } | Self::RemoveFile { path } => path,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WriteFile { path, contents, .. } => {
                write!(f, "write `{}` ({} bytes)", path.display(), contents.len())
            }
            Self::AppendFile { path, contents } => {
                write!(f, "append to `{}` ({} bytes)", path.display(), contents.len())
            }
            Self::RemoveFile { path } => write!(f, "remove `{}`", path.display()),
        }
    }
}
