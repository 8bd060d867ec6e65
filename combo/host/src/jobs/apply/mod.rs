//! change -> applied.
//!
//! Takes one [`Change`] and the [`Folders`] that its job was given; makes it whole or not at all. The
//! only place that writes on behalf of tasks. Never follows a symbolic link below a folder, never
//! leaves it, and makes a directory only if that is the change.
//!
//! `folders` is what is opened, `target` a name in it and what can be done to that, `staged` the
//! temporary file beside one, `set` several changes as one, and `intent` the note by which a set is
//! finished after a crash.

mod folders;
mod intent;
mod set;
mod staged;
mod target;

use std::{fmt, io, path::Path};

use combo_core::Change;
use rustix::{fs::Mode, io::Errno};

pub(crate) use self::folders::{Folders, Opening, layered};
use self::target::{FILE, Look, Misplaced, Target, Unappended, find, make_directory, place};

/// Where in the layer what is outside of the root is.
pub(crate) const OUTSIDE: &str = ".absolute";

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unapplied {
    /// It may not be.
    Refused(String),
    /// It could not be.
    Failed(String),
}

/// Makes one change. If a folder was removed and made again since it was opened, that is opened.
///
/// # Errors
///
/// One sentence. What was there before is there still.
pub(crate) fn apply(folders: &Folders, change: &Change) -> Result<(), Unapplied> {
    match once(folders, change) {
        Err(_) if folders.reopen() => once(folders, change),
        applied => applied,
    }
}

fn once(folders: &Folders, change: &Change) -> Result<(), Unapplied> {
    if folders.unfinished() {
        drop(set::finish(folders)?);
    }
    match change {
        Change::WriteFile { path, contents, mode } => {
            let (target, mode) = wanted_write(folders, path, *mode)?;
            target.write(contents, mode).map_err(|errno| failed(Deed::Write(path), errno))
        }
        Change::AppendFile { path, contents, at } => append(folders, path, contents, *at),
        Change::RemoveFile { path } => match wanted_removal(folders, path)? {
            None | Some((_, Look::Absent)) => Ok(()),
            Some((target, _)) => target.remove().map_err(|errno| failed(Deed::Remove(path), errno)),
        },
        Change::Rename { from, to } => rename(folders, from, to),
        Change::MakeDirectory { path } => make_directory(folders, path),
        Change::Set(changes) => set::make(folders, changes),
        _ => Err(Unapplied::Failed(format!("nobody knows how to {change}"))),
    }
}

fn wanted_write(folders: &Folders, path: &Path, mode: Option<u32>) -> Result<(Target, Mode), Unapplied> {
    let deed = Deed::Write(path);
    let target = place(folders, path, deed)?;
    if target.look().map_err(|errno| failed(deed, errno))? == Look::Directory {
        return Err(failed(deed, Errno::ISDIR));
    }
    let mode = mode.unwrap_or(FILE);
    if mode > 0o7777 {
        return Err(Unapplied::Failed(format!("cannot {deed}: {mode:o} is no mode")));
    }
    Ok((target, Mode::from_raw_mode(mode)))
}

/// And what is removed. None: not even its directory is there.
fn wanted_removal(folders: &Folders, path: &Path) -> Result<Option<(Target, Look)>, Unapplied> {
    let deed = Deed::Remove(path);
    let placed = match place(folders, path, deed) {
        Err(Misplaced::Missing(_)) => None,
        placed => Some(placed?),
    };
    let look = placed.as_ref().map_or(Ok(Look::Absent), Target::look).map_err(|errno| failed(deed, errno))?;
    match look {
        // In a folder that was made again it may be there.
        Look::Absent if find(folders, path, deed)?.0.is_gone() => Err(failed(deed, Errno::NOENT)),
        Look::Directory => Err(failed(deed, Errno::ISDIR)),
        Look::Absent | Look::File | Look::Link | Look::Other => Ok(placed.map(|target| (target, look))),
    }
}

/// And what is renamed: a file or a directory.
fn wanted_rename(folders: &Folders, from: &Path, to: &Path) -> Result<(Target, Target, Look), Unapplied> {
    let deed = Deed::Rename(from, to);
    let (target, new) = (place(folders, from, deed)?, place(folders, to, deed)?);
    let look = |target: &Target| target.look().map_err(|errno| failed(deed, errno));
    let (look, over) = (look(&target)?, look(&new)?);
    let because = |why: String| Err(Unapplied::Failed(format!("cannot {deed}: {why}")));
    let (old, there) = (from.display(), to.display());
    match (look, over) {
        (Look::Absent, Look::Absent) => because(format!("there is no `{old}`")),
        (Look::Absent, _) => because(format!(
            "there is no `{old}`, and there is a `{there}`: it may have been renamed already"
        )),
        (Look::Link, _) => Err(Unapplied::Refused(format!("`{old}` is a symbolic link"))),
        (Look::Other, _) => because(format!("`{old}` is neither a file nor a directory")),
        (Look::File, Look::Directory) => because(format!("`{there}` is a directory")),
        (Look::Directory, over) if over != Look::Absent => because(format!("there is a `{there}`")),
        (Look::File | Look::Directory, _) => Ok((target, new, look)),
    }
}

fn append(folders: &Folders, path: &Path, contents: &[u8], at: Option<u64>) -> Result<(), Unapplied> {
    let deed = Deed::Append(path);
    let target = place(folders, path, deed)?;
    let link = || Unapplied::Refused(format!("`{}` is a symbolic link", path.display()));
    let not_a_file = || Unapplied::Failed(format!("cannot {deed}: it is not a file"));
    match target.look().map_err(|errno| failed(deed, errno))? {
        Look::Absent | Look::File => {}
        Look::Link => return Err(link()),
        Look::Directory => return Err(failed(deed, Errno::ISDIR)),
        Look::Other => return Err(not_a_file()),
    }
    target.append(contents, at).map_err(|unappended| match (unappended, at) {
        (Unappended::Errno(Errno::LOOP), _) => link(),
        (Unappended::Errno(Errno::NXIO), _) => not_a_file(),
        (Unappended::Errno(errno), _) => failed(deed, errno),
        (Unappended::Elsewhere(length), Some(at)) if length != at => {
            Unapplied::Failed(format!("cannot {deed}: it is {length} bytes long and not {at}"))
        }
        (Unappended::Elsewhere(length), _) => {
            Unapplied::Failed(format!("cannot {deed}: it was changed when it was {length} bytes long"))
        }
    })
}

fn rename(folders: &Folders, from: &Path, to: &Path) -> Result<(), Unapplied> {
    let (target, new, _) = wanted_rename(folders, from, to)?;
    let renamed = target.rename(&new).and_then(|()| {
        target::flush(new.directory.changed())?;
        target::flush(target.directory.changed())
    });
    renamed.map_err(|errno| failed(Deed::Rename(from, to), errno))
}

/// What was attempted, as it is said.
#[derive(Clone, Copy)]
enum Deed<'a> {
    Write(&'a Path),
    Append(&'a Path),
    Remove(&'a Path),
    Rename(&'a Path, &'a Path),
    Make(&'a Path),
    Set(usize),
}

impl fmt::Display for Deed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(path) => write!(f, "write `{}`", path.display()),
            Self::Append(path) => write!(f, "append to `{}`", path.display()),
            Self::Remove(path) => write!(f, "remove `{}`", path.display()),
            Self::Rename(from, to) => write!(f, "rename `{}` to `{}`", from.display(), to.display()),
            Self::Make(path) => write!(f, "make directory `{}`", path.display()),
            Self::Set(many) => write!(f, "write {many} files as one"),
        }
    }
}

fn failed(deed: Deed<'_>, errno: Errno) -> Unapplied {
    let error = io::Error::from(errno);
    let why = match (errno, error.kind().to_string()) {
        // Names on the way were found, and a name that is to be made need not be.
        (Errno::NOENT, _) => "its folder was removed after it had been opened".to_owned(),
        (Errno::NOSPC, _) => "the disk is full".to_owned(),
        (Errno::DQUOT, _) => "the quota is used up".to_owned(),
        (Errno::ROFS, _) => "the file system is read-only".to_owned(),
        (Errno::XDEV, _) => "they are on different file systems".to_owned(),
        (Errno::WOULDBLOCK, _) => "somebody else holds a lock on it".to_owned(),
        (Errno::INVAL, _) if matches!(deed, Deed::Rename(..)) => "one is inside the other".to_owned(),
        (Errno::MFILE, _) if matches!(deed, Deed::Set(_)) => {
            "too many sets of changes or open files at once".to_owned()
        }
        (_, kind) if kind == "uncategorized error" => error.to_string(),
        (_, kind) => kind,
    };
    Unapplied::Failed(format!("cannot {deed}: {why}"))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        ffi::OsStr,
        fs::{self, File},
        os::{
            fd::AsFd,
            unix::{
                fs::{MetadataExt, PermissionsExt, symlink},
                process::ExitStatusExt,
            },
        },
        path::PathBuf,
        process::{Command, Output},
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use rustix::{
        fs::{CWD, FileType, RenameFlags, mknodat, renameat_with},
        process::{Signal, getpid, kill_process},
    };
    use tempfile::TempDir;

    use super::{folders::below, staged::Staged, *};

    /// A root with the folder `static`, the file `static/old` and the folder `static/sub`.
    pub(super) fn root() -> TempDir {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(root.path().join("static/sub")).expect("directories");
        fs::write(root.path().join("static/old"), "old").expect("a file");
        root
    }

    pub(super) fn opened(root: &Path) -> Folders {
        Opening::new(root, None).open(&["static".into()]).expect("a folder")
    }

    /// All below it: folders with a `/`, links with their targets, files with their contents.
    pub(super) fn tree(folder: &Path) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut left = vec![folder.to_owned()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(directory).expect("a directory") {
                let path = entry.expect("an entry").path();
                let kind = path.symlink_metadata().expect("a kind").file_type();
                let name = path.strip_prefix(folder).expect("below").display().to_string();
                let (name, content) = if kind.is_dir() {
                    left.push(path);
                    (name + "/", String::new())
                } else if kind.is_symlink() {
                    (name, format!("-> {}", fs::read_link(path).expect("a target").display()))
                } else if kind.is_file() {
                    (name, fs::read_to_string(path).expect("its contents"))
                } else {
                    (name, format!("{kind:?}"))
                };
                assert!(found.insert(name, content).is_none());
            }
        }
        found
    }

    pub(super) fn tree_of<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
        entries.map(|(name, content)| (name.to_owned(), content.to_owned())).into()
    }

    pub(super) fn failed(why: &str) -> Result<(), Unapplied> {
        Err(Unapplied::Failed(why.into()))
    }

    pub(super) fn refused(why: &str) -> Result<(), Unapplied> {
        Err(Unapplied::Refused(why.into()))
    }

    /// What becomes of `static`, which has `old` and `sub/` at first.
    fn check<const N: usize>(change: &Change, entries: [(&str, &str); N]) {
        let root = root();
        assert_eq!(apply(&opened(root.path()), change), Ok(()), "{change}");
        assert_eq!(tree(&root.path().join("static")), tree_of(entries), "{change}");
    }

    /// Nothing becomes of it.
    fn check_not(root: &TempDir, change: &Change, result: &Result<(), Unapplied>) {
        let before = tree(root.path());
        assert_eq!(&apply(&opened(root.path()), change), result, "{change}");
        assert_eq!(tree(root.path()), before, "{change}");
    }

    #[test]
    fn what_is_asked_for_is_done() {
        check(&Change::write("static/new", "1"), [("new", "1"), ("old", "old"), ("sub/", "")]);
        check(&Change::write("static/old", "new"), [("old", "new"), ("sub/", "")]);
        check(&Change::write("static/sub/new", ""), [("old", "old"), ("sub/", ""), ("sub/new", "")]);
        check(&Change::write("./static//sub/./new", "1"), [("old", "old"), ("sub/", ""), ("sub/new", "1")]);
        check(&Change::append("static/old", "er"), [("old", "older"), ("sub/", "")]);
        check(&Change::append("static/new", "er"), [("new", "er"), ("old", "old"), ("sub/", "")]);
        check(&Change::remove("static/old"), [("sub/", "")]);
        check(&Change::remove("static/absent"), [("old", "old"), ("sub/", "")]);
        check(&Change::remove("static/absent/absent"), [("old", "old"), ("sub/", "")]);
        check(&Change::rename("static/old", "static/new"), [("new", "old"), ("sub/", "")]);
        check(&Change::rename("static/old", "static/sub/old"), [("sub/", ""), ("sub/old", "old")]);
        check(&Change::rename("static/old", "static/old"), [("old", "old"), ("sub/", "")]);
        check(&Change::rename("static/sub", "static/new"), [("new/", ""), ("old", "old")]);
        check(&Change::make_directory("static/sub"), [("old", "old"), ("sub/", "")]);
        check(&Change::make_directory("static/"), [("old", "old"), ("sub/", "")]);
        check(
            &Change::make_directory("static/a/b/"),
            [("a/", ""), ("a/b/", ""), ("old", "old"), ("sub/", "")],
        );
    }

    #[test]
    fn what_has_been_appended_is_not_appended_again() {
        let check = |before: Option<&str>, at: u64, contents: &'static str, after: Result<&str, u64>| {
            let root = root();
            let path = root.path().join("static/log");
            if let Some(before) = before {
                fs::write(&path, before).expect("a file");
            }
            let expected = after.map(|_| ()).map_err(|length| {
                let why = format!("it is {length} bytes long and not {at}");
                Unapplied::Failed(format!("cannot append to `static/log`: {why}"))
            });
            for _ in 0..2 {
                let change = Change::append_at("static/log", at, contents);
                assert_eq!(apply(&opened(root.path()), &change), expected, "{before:?} {at} {contents}");
            }
            let after = after.ok().or(before).map(str::to_owned);
            assert_eq!(fs::read_to_string(&path).ok(), after, "{before:?} {at} {contents}");
        };
        check(Some("one"), 3, "two", Ok("onetwo"));
        check(Some("onetwo"), 3, "two", Ok("onetwo"));
        check(Some("onetwothree"), 3, "two", Ok("onetwothree"));
        check(Some("onet"), 3, "two", Ok("onetwo"));
        check(Some("onex"), 3, "two", Err(4));
        check(Some("onetwx"), 3, "two", Err(6));
        check(Some("on"), 3, "two", Err(2));
        check(Some(""), 0, "two", Ok("two"));
        check(None, 0, "two", Ok("two"));
        check(None, 3, "two", Err(0));
        check(Some("one"), 3, "", Ok("one"));
        check(Some("one"), 2, "", Ok("one"));
    }

    #[test]
    fn what_cannot_be_renamed_stays() {
        let root = root();
        symlink("old", root.path().join("static/link")).expect("a link");
        fs::write(root.path().join("static/other"), "").expect("a file");
        let because = |from: &str, to: &str, why: &str| {
            check_not(
                &root,
                &Change::rename(from, to),
                &failed(&format!("cannot rename `{from}` to `{to}`: {why}")),
            );
        };
        let there = "there is no `static/a`, and there is a `static/old`: it may have been renamed already";
        because("static/a", "static/b", "there is no `static/a`");
        because("static/a", "static/old", there);
        because("static/old", "static/sub", "`static/sub` is a directory");
        because("static/sub", "static/old", "there is a `static/old`");
        because("static/sub", "static/sub/a", "one is inside the other");
        because("static/old", "static/a/b", "there is no folder `static/a`; it has to be made beforehand");
        because("static", "static/a", "is a directory");
        let link = refused("`static/link` is a symbolic link");
        check_not(&root, &Change::rename("static/link", "static/a"), &link);
        let outside = refused("`outside` lies outside what it may write (`static`)");
        check_not(&root, &Change::rename("static/old", "outside"), &outside);
        check_not(&root, &Change::rename("outside", "static/old"), &outside);
        let why = "cannot make directory `static/old/a`: `static/old` is not a folder";
        check_not(&root, &Change::make_directory("static/old/a"), &failed(why));
        let why = "`static/link/a` leads through the symbolic link `static/link`";
        check_not(&root, &Change::make_directory("static/link/a"), &refused(why));
    }

    #[test]
    fn a_file_is_not_renamed_to_another_file_system() {
        let root = root();
        let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
        let device = |folder: &TempDir| folder.path().metadata().expect("a folder").dev();
        if device(&root) == device(&elsewhere) {
            return;
        }
        let folders = [PathBuf::from("static"), elsewhere.path().to_owned()];
        let folders = Opening::new(root.path(), None).open(&folders).expect("folders");
        let to = elsewhere.path().join("a");
        let why =
            format!("cannot rename `static/old` to `{}`: they are on different file systems", to.display());
        let change = Change::rename("static/old", &to);
        assert_eq!(apply(&folders, &change), failed(&why));
        assert_eq!(apply(&folders, &Change::set([Change::write("static/new", "1"), change])), failed(&why));
        assert_eq!(tree(&root.path().join("static")), tree_of([("old", "old"), ("sub/", "")]));
    }

    #[test]
    fn what_the_world_refuses_is_a_sentence() {
        let path = Path::new("static/a");
        for (errno, why) in [
            (Errno::NOENT, "its folder was removed after it had been opened"),
            (Errno::NOSPC, "the disk is full"),
            (Errno::DQUOT, "the quota is used up"),
            (Errno::ROFS, "the file system is read-only"),
            (Errno::ACCESS, "permission denied"),
            (Errno::ISDIR, "is a directory"),
            (Errno::IO, "Input/output error (os error 5)"),
        ] {
            assert_eq!(
                Err(super::failed(Deed::Write(path), errno)),
                failed(&format!("cannot write `static/a`: {why}"))
            );
        }
        let said = |deed: Deed<'_>| deed.to_string();
        assert_eq!(said(Deed::Append(path)), "append to `static/a`");
        assert_eq!(said(Deed::Remove(path)), "remove `static/a`");
        assert_eq!(said(Deed::Make(path)), "make directory `static/a`");
        assert_eq!(said(Deed::Set(3)), "write 3 files as one");
    }

    #[test]
    fn names_that_combo_keeps_are_not_for_tasks() {
        let root = root();
        let why = "cannot write `static/.combo-set-0.intent`: in `static/.combo-set-0.intent`, combo keeps \
                   `.combo-set-0.intent` for itself";
        check_not(&root, &Change::write("static/.combo-set-0.intent", "1"), &refused(why));
        for change in [
            Change::append("static/.combo-0.tmp", "1"),
            Change::rename("static/old", "static/.combo-0.tmp"),
            Change::make_directory("static/.combo-a/b"),
        ] {
            assert!(matches!(apply(&opened(root.path()), &change), Err(Unapplied::Refused(_))), "{change}");
        }
    }

    #[test]
    fn a_folder_that_was_made_again_is_opened_again() {
        for change in [
            Change::write("static/a", "1"),
            Change::append("static/a", "1"),
            Change::rename("static/b", "static/a"),
            Change::set([Change::write("static/a", "1"), Change::remove("static/b")]),
        ] {
            let root = root();
            let folders = opened(root.path());
            fs::remove_dir_all(root.path().join("static")).expect("removed");
            fs::create_dir(root.path().join("static")).expect("made again");
            fs::write(root.path().join("static/b"), "1").expect("a file");
            let mut expected = tree_of([("a", "1"), ("b", "1")]);
            if !matches!(change, Change::WriteFile { .. } | Change::AppendFile { .. }) {
                let _ = expected.remove("b");
            }
            assert_eq!(apply(&folders, &change), Ok(()), "{change}");
            assert_eq!(tree(&root.path().join("static")), expected, "{change}");
            assert_eq!(apply(&folders, &Change::remove("static/a")), Ok(()));
        }
        let root = root();
        let folders = opened(root.path());
        fs::remove_dir_all(root.path().join("static")).expect("removed");
        fs::create_dir(root.path().join("static")).expect("made again");
        fs::write(root.path().join("static/a"), "1").expect("a file");
        assert_eq!(apply(&folders, &Change::remove("static/a")), Ok(()));
        assert_eq!(tree(&root.path().join("static")), tree_of([]));
    }

    /// What was a folder is not followed elsewhere; what was a link is followed as at first.
    #[test]
    fn a_folder_that_was_made_again_as_a_link_is_not_followed() {
        let root = root();
        let folders = opened(root.path());
        fs::remove_dir_all(root.path().join("static")).expect("removed");
        fs::create_dir(root.path().join("outside")).expect("a directory");
        symlink("outside", root.path().join("static")).expect("a link");
        let why = "cannot write `static/a`: its folder was removed after it had been opened";
        assert_eq!(apply(&folders, &Change::write("static/a", "1")), failed(why));
        let folders = opened(root.path());
        fs::remove_dir(root.path().join("outside")).expect("removed");
        fs::create_dir(root.path().join("elsewhere")).expect("a directory");
        fs::remove_file(root.path().join("static")).expect("removed");
        symlink("elsewhere", root.path().join("static")).expect("a link");
        assert_eq!(apply(&folders, &Change::write("static/a", "1")), Ok(()));
        assert_eq!(tree(&root.path().join("elsewhere")), tree_of([("a", "1")]));
    }

    #[test]
    fn many_jobs_share_what_is_opened() {
        let root = root();
        let descriptors = || fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let mut opening = Opening::new(root.path(), None);
        let (first, before) = (opening.open(&["static".into()]).expect("a folder"), descriptors());
        let all: Vec<_> = (0..10_000).map(|_| opening.open(&["static".into()]).expect("a folder")).collect();
        // Other tests open some at the same time.
        assert!(descriptors() < before + 1_000);
        assert_eq!(size_of_val(&all[0]), size_of::<usize>());
        assert_eq!(apply(&first, &Change::write("static/a", "1")), Ok(()));
    }

    #[test]
    fn an_absolute_path_is_as_good() {
        let root = root();
        let path = root.path().join("static/new");
        assert_eq!(apply(&opened(root.path()), &Change::write(&path, "1")), Ok(()));
        assert_eq!(fs::read_to_string(path).expect("a file"), "1");
    }

    #[test]
    fn what_lies_outside_is_refused() {
        let root = root();
        fs::write(root.path().join("outside"), "").expect("a file");
        fs::create_dir(root.path().join("static2")).expect("a directory");
        symlink("..", root.path().join("static/up")).expect("a link");
        symlink("../outside", root.path().join("static/link")).expect("a link");
        for (path, why) in [
            ("outside", "`outside` lies outside what it may write (`static`)"),
            ("static2/a", "`static2/a` lies outside what it may write (`static`)"),
            ("/etc/passwd", "`/etc/passwd` lies outside what it may write (`static`)"),
            ("/static/a", "`/static/a` lies outside what it may write (`static`)"),
            ("", "`` lies outside what it may write (`static`)"),
            ("static/../outside", "`static/../outside` has a `..` in it"),
            ("static/sub/../old", "`static/sub/../old` has a `..` in it"),
            ("../outside", "`../outside` has a `..` in it"),
            ("static/..", "`static/..` has a `..` in it"),
            ("static/up/outside", "`static/up/outside` leads through the symbolic link `static/up`"),
            ("static/up/absent/a", "`static/up/absent/a` leads through the symbolic link `static/up`"),
        ] {
            for change in [Change::write(path, "1"), Change::append(path, "1"), Change::remove(path)] {
                check_not(&root, &change, &refused(why));
            }
        }
        check_not(&root, &Change::append("static/link", "1"), &refused("`static/link` is a symbolic link"));
    }

    #[test]
    fn without_a_folder_everything_is_refused() {
        let root = root();
        let folders = Opening::new(root.path(), None).open(&[]).expect("nothing to open");
        let why = "`static/a`, and it was given no folder; say `.may_write(\"…\")`";
        assert_eq!(apply(&folders, &Change::write("static/a", "1")), refused(why));
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let root = root();
        let missing = "there is no folder `static/absent`; it has to be made beforehand";
        for path in ["static/sub", "static/sub/", "static/sub/.", "static/new/", "static"] {
            let why = |verb: &str| failed(&format!("cannot {verb} `{path}`: is a directory"));
            check_not(&root, &Change::write(path, "1"), &why("write"));
            check_not(&root, &Change::append(path, "1"), &why("append to"));
            check_not(&root, &Change::remove(path), &why("remove"));
        }
        for (path, why) in [
            ("static/absent/a", missing),
            ("static/absent/absent/a", missing),
            ("static/old/a", "`static/old` is not a folder"),
        ] {
            let why = |verb: &str| failed(&format!("cannot {verb} `{path}`: {why}"));
            check_not(&root, &Change::write(path, "1"), &why("write"));
            check_not(&root, &Change::append(path, "1"), &why("append to"));
        }
        let mode = Change::WriteFile { path: "static/a".into(), contents: "".into(), mode: Some(0o100_644) };
        check_not(&root, &mode, &failed("cannot write `static/a`: 100644 is no mode"));
        let long = format!("static/{}", "a".repeat(256));
        let why = format!("cannot write `{long}`: invalid filename");
        check_not(&root, &Change::write(&long, "1"), &failed(&why));
        let why = "cannot write `static/a\0b`: invalid input parameter";
        check_not(&root, &Change::write("static/a\0b", "1"), &failed(why));
    }

    #[test]
    fn a_long_name_is_written_like_a_short_one() {
        let root = root();
        let name = "a".repeat(255);
        assert_eq!(apply(&opened(root.path()), &Change::write(format!("static/{name}"), "1")), Ok(()));
        assert!(root.path().join("static").join(name).exists());
    }

    #[test]
    fn a_link_is_replaced_or_removed_and_not_what_it_points_to() {
        let root = root();
        let link = root.path().join("static/link");
        fs::write(root.path().join("outside"), "outside").expect("a file");
        for change in [Change::write("static/link", "new"), Change::remove("static/link")] {
            let _ = fs::remove_file(&link);
            symlink("../outside", &link).expect("a link");
            assert_eq!(apply(&opened(root.path()), &change), Ok(()));
            assert!(!link.is_symlink());
            assert_eq!(fs::read_to_string(root.path().join("outside")).expect("a file"), "outside");
        }
    }

    #[test]
    fn a_pipe_is_replaced_and_never_waited_for() {
        let root = root();
        let pipe = root.path().join("static/pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o644), 0).expect("a pipe");
        let append = Change::append("static/pipe", "1");
        check_not(&root, &append, &failed("cannot append to `static/pipe`: it is not a file"));
        assert_eq!(apply(&opened(root.path()), &Change::write("static/pipe", "1")), Ok(()));
        assert_eq!(fs::read_to_string(&pipe).expect("a file"), "1");
        let devices = Opening::new(Path::new("/"), None).open(&["dev".into()]).expect("a folder");
        let why = "cannot append to `dev/null`: it is not a file";
        assert_eq!(apply(&devices, &Change::append("dev/null", "1")), failed(why));
    }

    #[test]
    fn a_given_folder_may_be_a_link_and_may_lie_anywhere() {
        let root = root();
        let elsewhere = tempfile::tempdir().expect("a directory");
        symlink(elsewhere.path(), root.path().join("linked")).expect("a link");
        fs::create_dir(root.path().join("inside")).expect("a directory");
        let inside = root.path().join("inside");
        let folders = [PathBuf::from("linked"), "../inside".into(), elsewhere.path().to_owned()];
        let folders = Opening::new(&root.path().join("static"), None).open(&folders);
        assert_eq!(folders.expect_err("not there").0, Path::new("linked"));
        let folders = [PathBuf::from("../linked"), "../inside".into(), elsewhere.path().to_owned()];
        let folders = Opening::new(&root.path().join("static"), None).open(&folders).expect("folders");
        for (path, file) in [
            (PathBuf::from("../linked/a"), elsewhere.path().join("a")),
            ("../inside/b".into(), inside.join("b")),
            (elsewhere.path().join("c"), elsewhere.path().join("c")),
        ] {
            assert_eq!(apply(&folders, &Change::write(path, "1")), Ok(()));
            assert!(file.exists());
        }
        let why = "`../inside/../static/a` has a `..` in it";
        assert_eq!(apply(&folders, &Change::write("../inside/../static/a", "1")), refused(why));
    }

    #[test]
    fn of_folders_in_each_other_the_inner_counts() {
        let root = root();
        symlink("../outside", root.path().join("static/inner")).expect("a link");
        fs::create_dir(root.path().join("outside")).expect("a directory");
        let folders = ["static".into(), "static/inner".into()];
        let folders = Opening::new(root.path(), None).open(&folders).expect("folders");
        assert_eq!(apply(&folders, &Change::write("static/inner/a", "1")), Ok(()));
        assert_eq!(tree(&root.path().join("outside")), tree_of([("a", "1")]));
    }

    #[test]
    fn a_folder_that_does_not_exist_is_named_and_nothing_is_made() {
        let root = root();
        for (path, kind) in
            [("static/absent", io::ErrorKind::NotFound), ("static/old", io::ErrorKind::NotADirectory)]
        {
            let folders = ["static".into(), path.into()];
            let (said, error) = Opening::new(root.path(), None).open(&folders).expect_err("it is not there");
            assert_eq!((said.as_path(), error.kind()), (Path::new(path), kind));
        }
        let folders = opened(root.path());
        fs::remove_dir_all(root.path().join("static")).expect("removed");
        let why = "cannot write `static/a`: its folder was removed after it had been opened";
        assert_eq!(apply(&folders, &Change::write("static/a", "1")), failed(why));
    }

    #[test]
    fn paths_are_compared_by_whole_names() {
        let check = |folder: &str, path: &str, rest: Option<&str>| {
            assert_eq!(below(Path::new("/srv"), Path::new(folder), Path::new(path)), rest.map(PathBuf::from));
        };
        check("static", "static/a", Some("a"));
        check("static", "./static//a/./b", Some("a/b"));
        check("static", "/srv/static/a", Some("a"));
        check("/srv/static", "static/a", Some("a"));
        check("static", "static/../a", Some("../a"));
        check("static", "static2/a", None);
        check("static", "Static/a", None);
        check("static", "a/../static/a", None);
        check(".", "a", Some("a"));
        check(".", "/etc/a", None);
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().expect("a file").permissions().mode() & 0o7777
    }

    #[test]
    fn a_file_has_the_mode_that_was_asked_for() {
        let root = root();
        let old = root.path().join("static/old");
        for (asked, is) in [(Some(0o600), 0o600), (None, 0o644), (Some(0o755), 0o755), (Some(0o666), 0o666)] {
            let change = Change::WriteFile { path: "static/old".into(), contents: "1".into(), mode: asked };
            assert_eq!(apply(&opened(root.path()), &change), Ok(()));
            assert_eq!(mode(&old), is);
        }
        assert_eq!(apply(&opened(root.path()), &Change::append("static/old", "2")), Ok(()));
        assert_eq!(apply(&opened(root.path()), &Change::append("static/new", "2")), Ok(()));
        assert_eq!([mode(&old), mode(&root.path().join("static/new"))], [0o666, 0o644]);
    }

    const AGAIN: &str = "COMBO_APPLY_TEST";

    /// The root, in a process made by [`again`].
    pub(super) fn alone() -> Option<PathBuf> {
        std::env::var_os(AGAIN).map(PathBuf::from)
    }

    /// Runs one test of these in a process of its own, after a bit of shell.
    fn again(test: &str, shell: &str, root: &Path) -> Output {
        in_another_process(module_path!(), test, shell, root).output().expect("it is run")
    }

    pub(super) fn in_another_process(module: &str, test: &str, shell: &str, root: &Path) -> Command {
        let (_, module) = module.split_once("::").expect("a crate and modules");
        let mut command = Command::new("sh");
        let _ = command
            .args(["-c", &format!("{shell} exec \"$0\" \"$@\"")])
            .arg(std::env::current_exe().expect("this program"))
            .args([&format!("{module}::{test}"), "--exact", "--nocapture"])
            .env(AGAIN, root);
        command
    }

    pub(super) fn passed(output: &Output) {
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
    }

    #[test]
    fn the_umask_does_not_matter() {
        if let Some(root) = alone() {
            assert_eq!(apply(&opened(&root), &Change::write("static/a", "1")), Ok(()));
            assert_eq!(apply(&opened(&root), &Change::append("static/b", "1")), Ok(()));
            return;
        }
        let root = root();
        passed(&again("the_umask_does_not_matter", "umask 077;", root.path()));
        for name in ["a", "b"] {
            assert_eq!(mode(&root.path().join("static").join(name)), 0o644);
        }
    }

    /// A limit on the length of files stands in for a full disk: both take a part of what is written
    /// and then no more, and this one needs no privileges and no mount.
    #[test]
    fn on_a_full_disk_the_old_file_stays_whole_and_nothing_is_left_over() {
        if let Some(root) = alone() {
            let (folders, much) = (opened(&root), "new".repeat(10_000));
            for path in ["static/old", "static/new"] {
                let write = apply(&folders, &Change::write(path, much.clone()));
                assert_eq!(write, failed(&format!("cannot write `{path}`: file too large")));
                let append = apply(&folders, &Change::append(path, much.clone()));
                assert_eq!(append, failed(&format!("cannot append to `{path}`: file too large")));
            }
            assert_eq!(apply(&folders, &Change::write("static/sub/little", "1")), Ok(()));
            return;
        }
        let root = root();
        passed(&again(
            "on_a_full_disk_the_old_file_stays_whole_and_nothing_is_left_over",
            "trap '' XFSZ; ulimit -f 1;",
            root.path(),
        ));
        let expected = tree_of([("old", "old"), ("sub/", ""), ("sub/little", "1")]);
        assert_eq!(tree(&root.path().join("static")), expected);
    }

    /// Not even root can make a file in `/proc`.
    #[test]
    fn a_folder_that_takes_no_file_is_an_outcome() {
        let folders = Opening::new(Path::new("/"), None).open(&["proc".into()]).expect("a folder");
        for (change, verb) in
            [(Change::write("proc/combo", "1"), "write"), (Change::append("proc/combo", "1"), "append to")]
        {
            let Err(Unapplied::Failed(why)) = apply(&folders, &change) else { panic!("{change}") };
            assert!(why.starts_with(&format!("cannot {verb} `proc/combo`: ")), "{why}");
        }
    }

    #[test]
    fn what_a_killed_process_leaves_is_hidden_and_goes_at_the_next_write() {
        if let Some(root) = alone() {
            let place =
                |path: &str| match place(&opened(&root), Path::new(path), Deed::Write(Path::new(path))) {
                    Ok(target) => target,
                    Err(misplaced) => panic!("{:?}", Unapplied::from(misplaced)),
                };
            let (old, other) = (place("static/old"), place("static/other"));
            let mut staged = Staged::new(old.directory.changed()).expect("a temporary file");
            staged.fill(b"new", Mode::from_raw_mode(FILE)).expect("filled");
            let mut second = Staged::new(other.directory.changed()).expect("another");
            second.fill(b"hal", Mode::from_raw_mode(FILE)).expect("filled");
            // All that is left to do is to rename them.
            kill_process(getpid(), Signal::KILL).expect("the end");
            unreachable!();
        }
        let root = root();
        let test = "what_a_killed_process_leaves_is_hidden_and_goes_at_the_next_write";
        let output = again(test, "", root.path());
        assert_eq!(output.status.signal(), Some(Signal::KILL.as_raw()), "{output:?}");
        let left = [(".combo-0.tmp", "new"), (".combo-1.tmp", "hal"), ("old", "old"), ("sub/", "")];
        assert_eq!(tree(&root.path().join("static")), tree_of(left));
        assert_eq!(apply(&opened(root.path()), &Change::write("static/a", "1")), Ok(()));
        let expected = tree_of([("a", "1"), ("old", "old"), ("sub/", "")]);
        assert_eq!(tree(&root.path().join("static")), expected);
    }

    #[test]
    fn what_others_are_writing_is_left_to_them() {
        let root = root();
        let folder = File::open(root.path().join("static")).expect("a folder");
        let mut theirs = Staged::new(folder.as_fd()).expect("a temporary file");
        theirs.fill(b"theirs", Mode::from_raw_mode(FILE)).expect("filled");
        assert_eq!(apply(&opened(root.path()), &Change::write("static/a", "1")), Ok(()));
        theirs.rename(OsStr::new("b")).expect("it is still there");
        let expected = tree_of([("a", "1"), ("b", "theirs"), ("old", "old"), ("sub/", "")]);
        assert_eq!(tree(&root.path().join("static")), expected);
    }

    #[test]
    fn what_is_not_a_leftover_is_left_alone() {
        let root = root();
        let folder = root.path().join("static");
        fs::create_dir(folder.join(".combo-0.tmp")).expect("a directory");
        symlink("old", folder.join(".combo-1.tmp")).expect("a link");
        mknodat(CWD, folder.join(".combo-2.tmp"), FileType::Fifo, Mode::from_raw_mode(0o644), 0)
            .expect("a pipe");
        let before = tree(&folder);
        assert_eq!(apply(&opened(root.path()), &Change::write("static/old", "new")), Ok(()));
        let mut expected = before;
        let _ = expected.insert("old".into(), "new".into());
        assert_eq!(tree(&folder), expected);
    }

    #[test]
    fn a_reader_never_sees_half_a_file_however_many_write_it() {
        let root = root();
        let folders = opened(root.path());
        let path = root.path().join("static/old");
        fs::write(&path, "x".repeat(50_000)).expect("a file");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let read = fs::read(&path).expect("always there");
                    assert_eq!(read.len(), 50_000);
                    assert!(read.iter().all(|byte| *byte == read[0]));
                }
            });
            let writers = ["a", "b", "c", "d"].map(|letter| {
                let folders = folders.clone();
                scope.spawn(move || {
                    for _ in 0..25 {
                        let change = Change::write("static/old", letter.repeat(50_000));
                        assert_eq!(apply(&folders, &change), Ok(()));
                    }
                })
            });
            let ended = writers.map(thread::ScopedJoinHandle::join);
            done.store(true, Ordering::Relaxed);
            reader.join().expect("it saw nothing wrong");
            assert!(ended.iter().all(Result::is_ok));
        });
        assert_eq!(tree(&root.path().join("static")).len(), 2);
    }

    /// `sub` is a directory now and a link out of the folder then, `file` is a file and a link to one
    /// outside of it, changed all the time.
    #[test]
    fn nobody_can_swap_something_for_a_link_on_the_way() {
        let root = root();
        let (folder, outside) = (root.path().join("static"), root.path().join("outside"));
        fs::create_dir(&outside).expect("a directory");
        fs::write(outside.join("file"), "outside").expect("a file");
        fs::write(folder.join("file"), "").expect("a file");
        symlink("../outside", folder.join("link-sub")).expect("a link");
        symlink("../outside/file", folder.join("link-file")).expect("a link");
        let folders = opened(root.path());
        let (done, before) = (AtomicBool::new(false), tree(&outside));
        thread::scope(|scope| {
            let swapping = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for name in ["sub", "file"] {
                        let (there, link) = (folder.join(name), folder.join(format!("link-{name}")));
                        renameat_with(CWD, there, CWD, link, RenameFlags::EXCHANGE).expect("swapped");
                    }
                }
            });
            let (mut made, mut unmade, mut rounds) = (0, 0, 0);
            // Until it has met both often.
            while rounds < 300 || (made.min(unmade) < 50 && rounds < 30_000) {
                rounds += 1;
                for change in [
                    Change::write("static/sub/a", "1"),
                    Change::append("static/sub/b", "1"),
                    Change::remove("static/sub/file"),
                    Change::append("static/file", "1"),
                    Change::append_at("static/file", 0, ""),
                    Change::make_directory("static/sub/c/d"),
                    Change::rename("static/sub/a", "static/sub/e"),
                    Change::set([Change::write("static/sub/f", "1"), Change::write("static/g", "1")]),
                ] {
                    *if apply(&folders, &change).is_ok() { &mut made } else { &mut unmade } += 1;
                }
            }
            done.store(true, Ordering::Relaxed);
            swapping.join().expect("it swapped");
            assert!(made.min(unmade) >= 50, "{made} were made and {unmade} were not");
        });
        assert_eq!(tree(&outside), before);
    }

    /// With a layer: what is in it in the end. What is real stays as it is.
    fn check_layer<const N: usize>(changes: &[Change], entries: [(&str, &str); N]) {
        let (root, layer) = (root(), tempfile::tempdir().expect("a directory"));
        fs::write(root.path().join("static/sub/deep"), "deep").expect("a file");
        let before = tree(root.path());
        let folders =
            Opening::new(root.path(), Some(layer.path())).open(&["static".into()]).expect("a folder");
        for change in changes {
            assert_eq!(apply(&folders, change), Ok(()), "{change}");
        }
        assert_eq!(tree(layer.path()), tree_of(entries), "{changes:?}");
        assert_eq!(tree(root.path()), before, "{changes:?}");
    }

    #[test]
    fn with_a_layer_only_the_layer_is_changed() {
        check_layer(&[], [("static/", "")]);
        check_layer(&[Change::write("static/old", "new")], [("static/", ""), ("static/old", "new")]);
        check_layer(
            &[Change::append("static/sub/deep", "er"), Change::append("static/sub/deep", "!")],
            [("static/", ""), ("static/sub/", ""), ("static/sub/deep", "deeper!")],
        );
        check_layer(
            &[Change::append("static/new", "1"), Change::append("static/new", "2")],
            [("static/", ""), ("static/new", "12")],
        );
        check_layer(&[Change::write("static/new", "1"), Change::remove("static/new")], [("static/", "")]);
        check_layer(&[Change::remove("static/absent")], [("static/", "")]);
        let removed = [("static/", ""), ("static/.wh.old", "")];
        check_layer(&[Change::remove("static/old")], removed);
        check_layer(&[Change::remove("static/old"), Change::remove("static/old")], removed);
        check_layer(&[Change::write("static/old", "new"), Change::remove("static/old")], removed);
        let renamed = [("static/", ""), ("static/.wh.old", ""), ("static/new", "old")];
        check_layer(&[Change::rename("static/old", "static/new")], renamed);
        check_layer(
            &[Change::append_at("static/old", 3, "er"), Change::append_at("static/old", 3, "er")],
            [("static/", ""), ("static/old", "older")],
        );
        check_layer(
            &[Change::make_directory("static/a/b"), Change::write("static/a/b/c", "1")],
            [("static/", ""), ("static/a/", ""), ("static/a/b/", ""), ("static/a/b/c", "1")],
        );
        check_layer(
            &[
                Change::rename("static/sub", "static/new"),
                Change::append("static/new/deep", "er"),
                Change::make_directory("static/sub"),
                Change::append("static/sub/deep", "1"),
            ],
            [
                ("static/", ""),
                ("static/.wh.sub", ""),
                ("static/new/", ""),
                ("static/new/deep", "deeper"),
                ("static/sub/", ""),
                ("static/sub/deep", "1"),
            ],
        );
        check_layer(
            &[Change::set([
                Change::write("static/sub/deep", "er"),
                Change::remove("static/old"),
                Change::write("static/new", "1"),
            ])],
            [
                ("static/", ""),
                ("static/.wh.old", ""),
                ("static/new", "1"),
                ("static/sub/", ""),
                ("static/sub/deep", "er"),
            ],
        );
        let again = [("static/", ""), ("static/old", "again")];
        check_layer(&[Change::remove("static/old"), Change::write("static/old", "again")], again);
        check_layer(&[Change::remove("static/old"), Change::append("static/old", "again")], again);
    }

    #[test]
    fn with_a_layer_the_same_is_refused_and_the_same_fails() {
        let (root, layer) = (root(), tempfile::tempdir().expect("a directory"));
        symlink("..", root.path().join("static/up")).expect("a link");
        symlink("old", root.path().join("static/link")).expect("a link");
        let layered =
            Opening::new(root.path(), Some(layer.path())).open(&["static".into()]).expect("a folder");
        let real = opened(root.path());
        for path in [
            "outside",
            "static/../outside",
            "static/up/outside",
            "static/sub",
            "static/absent/a",
            "static/old/a",
        ] {
            let change = Change::write(path, "1");
            let applied = apply(&layered, &change);
            assert!(applied.is_err());
            assert_eq!(applied, apply(&real, &change));
        }
        for change in [Change::append("static/link", "1"), Change::remove("static/sub")] {
            let applied = apply(&layered, &change);
            assert!(applied.is_err());
            assert_eq!(applied, apply(&real, &change));
        }
        assert_eq!(tree(layer.path()), tree_of([("static/", "")]));
        let nowhere = Opening::new(root.path(), Some(layer.path())).open(&["absent".into()]);
        assert_eq!(nowhere.expect_err("not there").1.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn folders_outside_the_root_have_their_place_in_the_layer() {
        let check = |folder: &str, place: &str| {
            let root = Path::new("/srv/app");
            assert_eq!(layered(root, &root.join(folder)), Path::new(place), "{folder}");
        };
        check("static", "static");
        check("a/./b", "a/b");
        check("/var/www", ".absolute/var/www");
        check("../shared", ".absolute/srv/shared");
        check("../../../../etc", ".absolute/etc");
        check(".", "");
    }
}
