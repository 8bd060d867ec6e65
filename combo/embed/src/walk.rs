//! Takes a folder, gives the files in it that are to be embedded, sorted by the path that clients will ask
//! for, and says which links it has left out. It follows links as combo does when it serves a folder.
#![expect(clippy::disallowed_methods, reason = "this is where the folder is looked through")]

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

use crate::error::Error;

/// The one hidden folder that is public (RFC 8615).
const WELL_KNOWN: &str = ".well-known";

/// How many links there may be on the way to a file, as in the kernel.
const LINKS: usize = 40;

#[derive(Debug, Default)]
pub(crate) struct Walked {
    pub(crate) entries: Vec<Entry>,
    /// Links that lead out of the folder or nowhere.
    pub(crate) left_out: Vec<PathBuf>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    /// Relative, between slashes. It ends in one for a folder with nothing in it.
    pub(crate) path: String,
    /// Where that is, without a link below the folder.
    pub(crate) file: PathBuf,
}

pub(crate) fn walk(root: &Path) -> Result<Walked, Error> {
    let mut walk = Walk { root, above: vec![PathBuf::new()], walked: Walked::default() };
    walk.folder("")?;
    let mut walked = walk.walked;
    walked.entries.sort();
    walked.left_out.sort();
    Ok(walked)
}

struct Walk<'a> {
    root: &'a Path,
    /// The folders that it is in, relative and without a link, the innermost last.
    above: Vec<PathBuf>,
    walked: Walked,
}

impl Walk<'_> {
    /// Goes through the innermost folder, which clients ask for by `path`, with its slash.
    fn folder(&mut self, path: &str) -> Result<(), Error> {
        let here = self.above.last().expect("the root is always there").clone();
        let before = self.walked.entries.len();
        for name in self.names(&here)? {
            let found = self.root.join(&here).join(&name);
            let Some(name) = name.to_str() else { return Err(Error::Utf8(found)) };
            let resolved = resolve(self.root, &here, OsStr::new(name));
            let read = |cause| Error::Read { path: found.clone(), cause };
            let Some(real) = resolved.map_err(read)? else {
                self.walked.left_out.push(found);
                continue;
            };
            let file = self.root.join(&real);
            let kind = fs::symlink_metadata(&file).map_err(read)?.file_type();
            if kind.is_dir() {
                if self.above.contains(&real) {
                    return Err(Error::Circle(found));
                }
                self.above.push(real);
                self.folder(&format!("{path}{name}/"))?;
                let _ = self.above.pop();
            } else if kind.is_file() {
                self.walked.entries.push(Entry { path: format!("{path}{name}"), file });
            }
        }
        if self.walked.entries.len() == before && !path.is_empty() {
            let file = self.root.join(here);
            self.walked.entries.push(Entry { path: path.to_owned(), file });
        }
        Ok(())
    }

    /// What in a folder can be asked for, sorted.
    fn names(&self, folder: &Path) -> Result<Vec<OsString>, Error> {
        let path = self.root.join(folder);
        let read = || -> io::Result<Vec<OsString>> {
            let mut names = fs::read_dir(&path)?
                .map(|entry| Ok(entry?.file_name()))
                .filter(|name: &io::Result<_>| name.as_deref().map_or(true, is_public))
                .collect::<io::Result<Vec<_>>>()?;
            names.sort();
            Ok(names)
        };
        read().map_err(|cause| Error::Read { path: path.clone(), cause })
    }
}

fn is_public(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    name == WELL_KNOWN || !(bytes.starts_with(b".") || bytes.contains(&b'\\'))
}

/// Where an entry of a folder is, without a link, relative to the root as the folder is. Nothing if it
/// leads out of the root, even if only on the way, or nowhere.
fn resolve(root: &Path, folder: &Path, name: &OsStr) -> io::Result<Option<PathBuf>> {
    let mut at = folder.to_path_buf();
    let mut ahead = vec![name.to_owned()];
    let mut links = 0;
    while let Some(segment) = ahead.pop() {
        if segment == "." {
            continue;
        }
        if segment == ".." {
            if !at.pop() {
                return Ok(None);
            }
            continue;
        }
        let next = at.join(&segment);
        let kind = match fs::symlink_metadata(root.join(&next)) {
            Ok(metadata) => metadata.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if kind.is_symlink() {
            links += 1;
            let to = fs::read_link(root.join(&next))?;
            if links > LINKS || to.is_absolute() {
                return Ok(None);
            }
            ahead.extend(to.components().rev().map(|component| component.as_os_str().to_owned()));
        } else if !kind.is_dir() && !ahead.is_empty() {
            return Ok(None);
        } else {
            at = next;
        }
    }
    Ok(Some(at))
}

#[cfg(test)]
mod tests {
    use std::os::unix::{ffi::OsStrExt, fs::symlink, net::UnixListener};

    use tempfile::TempDir;

    use super::*;

    /// A folder in a folder, with these files, and folders that end in a slash.
    fn folder(files: &[&str]) -> (TempDir, PathBuf) {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().join("site");
        fs::create_dir(&root).unwrap();
        fs::write(top.path().join("secret"), "x").unwrap();
        for file in files {
            let path = root.join(file);
            if file.ends_with('/') {
                fs::create_dir_all(path).unwrap();
            } else {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, file).unwrap();
            }
        }
        (top, root)
    }

    fn paths(walked: &Walked) -> Vec<&str> {
        walked.entries.iter().map(|entry| &*entry.path).collect()
    }

    #[test]
    fn what_is_served_is_found_in_order() {
        let (_top, root) = folder(&[
            "index.html",
            "a/x",
            "a-b",
            "a.txt",
            "a0",
            "€ ü",
            ".well-known/acme-challenge/token",
            ".well-known/.secret",
            ".env",
            ".git/config",
            "a/.git/config",
            "back\\slash",
            "empty/",
            "kept/.gitkeep",
            "deep/empty/",
        ]);
        let _socket = UnixListener::bind(root.join("socket")).unwrap();
        let walked = walk(&root).unwrap();
        let expected = [
            ".well-known/acme-challenge/token",
            "a-b",
            "a.txt",
            "a/x",
            "a0",
            "deep/empty/",
            "empty/",
            "index.html",
            "kept/",
            "€ ü",
        ];
        assert_eq!(paths(&walked), expected);
        assert_eq!(walked.left_out, [""; 0].map(PathBuf::from));
        assert_eq!(walked.entries[3].file, root.join("a/x"));
    }

    #[test]
    fn links_lead_inside_or_are_left_out() {
        let (top, root) = folder(&["a/b/file", "a/.hidden", "c/", "z"]);
        for (link, to) in [
            ("c/good", "../a/b/file"),
            ("c/hidden", "../a/.hidden"),
            ("c/folder", "../a/b"),
            ("c/twice", "good"),
            ("c/through", "folder/../../z"),
            ("c/absolute", root.join("z").to_str().unwrap()),
            ("c/out", "../../secret"),
            ("c/out-and-in", "../../site/z"),
            ("c/nowhere", "x"),
            ("c/itself", "itself"),
            ("c/below-a-file", "../z/x"),
            ("c/beside-a-file", "../z/../z"),
        ] {
            symlink(to, root.join(link)).unwrap();
        }
        let walked = walk(&root).unwrap();
        assert_eq!(
            paths(&walked),
            ["a/b/file", "c/folder/file", "c/good", "c/hidden", "c/through", "c/twice", "z"]
        );
        // Out of `folder`, which is a link, `..` leads to where that is.
        let file_of = |path: &str| {
            let entry = walked.entries.iter().find(|entry| entry.path == path).unwrap();
            entry.file.strip_prefix(&root).unwrap().to_str().unwrap()
        };
        assert_eq!(file_of("c/good"), "a/b/file");
        assert_eq!(file_of("c/hidden"), "a/.hidden");
        assert_eq!(file_of("c/folder/file"), "a/b/file");
        assert_eq!(file_of("c/through"), "z");
        let names: Vec<_> =
            walked.left_out.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(
            names,
            ["absolute", "below-a-file", "beside-a-file", "itself", "nowhere", "out", "out-and-in"]
        );
        drop(top);
    }

    #[test]
    fn what_cannot_be_is_said() {
        #[track_caller]
        fn check(root: &Path, expected: &str) {
            let error = walk(root).unwrap_err().to_string().replace(root.to_str().unwrap(), "site");
            assert_eq!(error, expected);
        }
        let (_top, root) = folder(&["a/file", "b/"]);
        symlink("../b", root.join("a/to-b")).unwrap();
        assert_eq!(paths(&walk(&root).unwrap()), ["a/file", "a/to-b/", "b/"]);
        symlink("../a", root.join("b/to-a")).unwrap();
        check(&root, "cannot embed `site/b/to-a`: it leads back to a folder that it is in");

        let (_top, root) = folder(&["a"]);
        fs::write(root.join(OsStr::from_bytes(b"\xff")), "x").unwrap();
        check(&root, "cannot embed `site/\u{fffd}`: its name is not UTF-8");

        let (_top, root) = folder(&[]);
        symlink(".", root.join("loop")).unwrap();
        check(&root, "cannot embed `site/loop`: it leads back to a folder that it is in");
    }
}
