//! A change: what a task asks for. Values only; the host applies them.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use bytes::Bytes;

/// How many bytes of contents a preview shows.
const SHOWN: usize = 2_000;

/// How many changes of a set are named; of the others the number is said.
const NAMED: usize = 16;

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
        /// How many bytes long the file is before, if that is known; one that is not there has 0.
        /// With it, what has been added already is not added again, and nothing is added elsewhere.
        at: Option<u64>,
    },
    /// Remove the file. One that is not there is as wanted.
    RemoveFile {
        /// The file to remove.
        path: PathBuf,
    },
    /// Give the file or directory another name. A file replaces the file of that name; a directory
    /// replaces nothing. Both names are on one file system.
    Rename {
        /// The name that it has.
        from: PathBuf,
        /// The name that it is given.
        to: PathBuf,
    },
    /// Make the directory (mode 755), and those above it that are missing. One that is there is as
    /// wanted.
    MakeDirectory {
        /// The directory to make.
        path: PathBuf,
    },
    /// All of these or none: files to write, to remove and to rename, each path named once. If the
    /// process is killed in between, the rest is done at the next start. For a moment a reader may see one file
    /// new and another old.
    Set(Vec<Self>),
}

impl Change {
    /// Write a whole file, mode 644.
    #[must_use]
    pub fn write(path: impl Into<PathBuf>, contents: impl Into<Bytes>) -> Self {
        Self::WriteFile { path: path.into(), contents: contents.into(), mode: None }
    }

    /// Add to the end of a file. Done twice, it is added twice.
    #[must_use]
    pub fn append(path: impl Into<PathBuf>, contents: impl Into<Bytes>) -> Self {
        Self::AppendFile { path: path.into(), contents: contents.into(), at: None }
    }

    /// Add to the end of a file that is `length` bytes long. Done twice, it is added once.
    ///
    /// ```
    /// use combo_core::Change;
    ///
    /// // The task has looked: the log is 10 bytes long.
    /// let change = Change::append_at("static/log", 10, "one more line\n");
    /// assert_eq!(change.to_string(), "append to `static/log` (14 bytes)");
    /// ```
    #[must_use]
    pub fn append_at(path: impl Into<PathBuf>, length: u64, contents: impl Into<Bytes>) -> Self {
        Self::AppendFile { path: path.into(), contents: contents.into(), at: Some(length) }
    }

    /// Remove a file.
    #[must_use]
    pub fn remove(path: impl Into<PathBuf>) -> Self {
        Self::RemoveFile { path: path.into() }
    }

    /// Give a file or directory another name.
    #[must_use]
    pub fn rename(from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Self {
        Self::Rename { from: from.into(), to: to.into() }
    }

    /// Make a directory, and those above it that are missing.
    #[must_use]
    pub fn make_directory(path: impl Into<PathBuf>) -> Self {
        Self::MakeDirectory { path: path.into() }
    }

    /// Make several changes as one: all of them or none.
    ///
    /// ```
    /// use combo_core::Change;
    ///
    /// let set = Change::set([Change::write("static/a", "1"), Change::remove("static/b")]);
    /// assert_eq!(set.to_string(), "write 2 files as one: `static/a`, remove `static/b`");
    /// ```
    #[must_use]
    pub fn set(changes: impl IntoIterator<Item = Self>) -> Self {
        Self::Set(changes.into_iter().collect())
    }

    /// The paths that are changed, in the order that they are named.
    #[must_use]
    pub fn paths(&self) -> Vec<&Path> {
        match self {
            Self::WriteFile { path, .. }
            | Self::AppendFile { path, .. }
            | Self::RemoveFile { path }
            | Self::MakeDirectory { path } => vec![path],
            Self::Rename { from, to } => vec![from, to],
            Self::Set(changes) => changes.iter().flat_map(Self::paths).collect(),
        }
    }

    /// What would be done, to be read by people: the change, and below it what would be written: a
    /// text up to its 2,000th byte, or how many bytes of no text.
    #[must_use]
    pub fn preview(&self) -> impl fmt::Display {
        Preview { change: self, indent: 0 }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WriteFile { path, contents, .. } => {
                write!(f, "write `{}` ({} bytes)", path.display(), contents.len())
            }
            Self::AppendFile { path, contents, .. } => {
                write!(f, "append to `{}` ({} bytes)", path.display(), contents.len())
            }
            Self::RemoveFile { path } => write!(f, "remove `{}`", path.display()),
            Self::Rename { from, to } => write!(f, "rename `{}` to `{}`", from.display(), to.display()),
            Self::MakeDirectory { path } => write!(f, "make directory `{}`", path.display()),
            Self::Set(changes) => {
                write!(f, "write {} files as one", changes.len())?;
                for (i, change) in changes.iter().take(NAMED).enumerate() {
                    f.write_str(if i == 0 { ": " } else { ", " })?;
                    match change {
                        Self::WriteFile { path, .. } => write!(f, "`{}`", path.display())?,
                        // One in another is refused; nothing is gained by unfolding it.
                        Self::Set(changes) => write!(f, "{} files as one", changes.len())?,
                        _ => write!(f, "{change}")?,
                    }
                }
                match changes.len().saturating_sub(NAMED) {
                    0 => Ok(()),
                    more => write!(f, ", and {more} more"),
                }
            }
        }
    }
}

/// A change and what it holds.
struct Preview<'a> {
    change: &'a Change,
    indent: usize,
}

impl fmt::Display for Preview<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { change, indent } = self;
        write!(f, "{:indent$}{change}", "")?;
        match change {
            Change::WriteFile { contents, .. } | Change::AppendFile { contents, .. } => {
                show(f, contents, indent + 4)
            }
            Change::Set(changes) => changes
                .iter()
                .try_for_each(|change| write!(f, "\n{}", Preview { change, indent: indent + 4 })),
            Change::RemoveFile { .. } | Change::Rename { .. } | Change::MakeDirectory { .. } => Ok(()),
        }
    }
}

/// Contents, each line of them on one of its own. Nothing in them moves the cursor of a terminal.
fn show(f: &mut fmt::Formatter<'_>, contents: &[u8], indent: usize) -> fmt::Result {
    let Ok(text) = std::str::from_utf8(contents) else {
        return write!(f, "\n{:indent$}{} bytes of no text", "", contents.len());
    };
    let shown = &text[..text.floor_char_boundary(SHOWN)];
    for line in shown.lines() {
        write!(f, "\n{:indent$}", "")?;
        for letter in line.chars() {
            if letter.is_control() && letter != '\t' {
                write!(f, "{}", letter.escape_default())?;
            } else {
                write!(f, "{letter}")?;
            }
        }
    }
    match text.len() - shown.len() {
        0 => Ok(()),
        more => write!(f, "\n{:indent$}… and {more} more bytes", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_says_what_it_is() {
        let check = |change: Change, said: &str| assert_eq!(change.to_string(), said);
        check(Change::write("a", "123"), "write `a` (3 bytes)");
        check(Change::append("a", "123"), "append to `a` (3 bytes)");
        check(Change::append_at("a", 7, "123"), "append to `a` (3 bytes)");
        check(Change::remove("a"), "remove `a`");
        check(Change::rename("a", "b"), "rename `a` to `b`");
        check(Change::make_directory("a"), "make directory `a`");
        check(
            Change::set([Change::write("a", "1"), Change::write("b", ""), Change::remove("c")]),
            "write 3 files as one: `a`, `b`, remove `c`",
        );
        check(Change::set([]), "write 0 files as one");
        let many = Change::set((0..20).map(|n| Change::write(n.to_string(), ""))).to_string();
        assert!(many.ends_with("`15`, and 4 more"), "{many}");
        let nested = Change::set([Change::set([Change::remove("a")])]);
        check(nested, "write 1 files as one: 1 files as one");
    }

    #[test]
    fn all_paths_of_a_change_are_known() {
        let check = |change: Change, paths: &[&str]| {
            assert_eq!(change.paths(), paths.iter().map(Path::new).collect::<Vec<_>>(), "{change}");
        };
        check(Change::append("a", ""), &["a"]);
        check(Change::make_directory("a/b"), &["a/b"]);
        check(Change::rename("a", "b"), &["a", "b"]);
        let set = [Change::write("a", ""), Change::rename("b", "c"), Change::remove("d")];
        check(Change::set(set), &["a", "b", "c", "d"]);
        check(Change::set([]), &[]);
    }

    #[test]
    fn a_preview_shows_what_would_be_written() {
        let check = |change: Change, said: &str| assert_eq!(change.preview().to_string(), said);
        check(Change::remove("a"), "remove `a`");
        check(Change::write("a", ""), "write `a` (0 bytes)");
        check(Change::write("a", "one\n\ttwo\n"), "write `a` (9 bytes)\n    one\n    \ttwo");
        check(Change::append("a", "\x1b[2J"), "append to `a` (4 bytes)\n    \\u{1b}[2J");
        let bytes = Bytes::from_static(b"a\xff");
        check(Change::write("a", bytes), "write `a` (2 bytes)\n    2 bytes of no text");
        let long = format!("write `a` (2001 bytes)\n    {}\n    … and 2 more bytes", "b".repeat(1_999));
        check(Change::write("a", "b".repeat(1_999) + "ä"), &long);
        check(
            Change::set([Change::write("a", "1"), Change::remove("b")]),
            "write 2 files as one: `a`, remove `b`\n    write `a` (1 bytes)\n        1\n    remove `b`",
        );
    }
}
