//! An intent: what a set of changes will do, as lines of text. Pure.
//!
//! ```text
//! combo set 1
//! write .combo-set-0123456789abcdef-0.tmp sub/a.txt
//! remove b.txt
//! rename c.txt d.txt
//! end 94 a5f55658503716e8
//! ```
//!
//! The last line has the number of bytes before it and their FNV-1a hash of 64 bits; without it nothing
//! has been done. Paths are below the folder that the intent lies in, or absolute; spaces, controls, `%`
//! and what is not ASCII are percent-encoded.

use std::{
    ffi::OsString,
    fmt::Write as _,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use combo_core::stable_hash;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

const FIRST: &str = "combo set 1\n";

const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// One thing that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The file of that name beside it gets its name.
    Write { staged: String, path: PathBuf },
    /// A file goes.
    Remove { path: PathBuf },
    /// A file gets another name.
    Rename { from: PathBuf, to: PathBuf },
}

/// What is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// It was decided to do this.
    Whole(Vec<Step>),
    /// That was not decided yet.
    Half(Vec<Step>),
    /// It is not what was written. This could be read.
    Corrupt(Vec<Step>),
}

/// All but the last line.
pub(super) fn begin<'a>(steps: impl IntoIterator<Item = &'a Step>) -> String {
    let said = |path: &'a Path| percent_encode(path.as_os_str().as_bytes(), ENCODED);
    let mut text = FIRST.to_owned();
    for step in steps {
        let _ = match step {
            Step::Write { staged, path } => writeln!(text, "write {staged} {}", said(path)),
            Step::Remove { path } => writeln!(text, "remove {}", said(path)),
            Step::Rename { from, to } => writeln!(text, "rename {} {}", said(from), said(to)),
        };
    }
    text
}

/// The last line.
pub(super) fn end(begun: &str) -> String {
    let hash = stable_hash(begun.bytes());
    format!("end {} {hash:016x}\n", begun.len())
}

/// Reads one.
pub(super) fn read(bytes: &[u8]) -> Intent {
    let mut steps = Vec::new();
    let (text, is_text) = match std::str::from_utf8(bytes) {
        Ok(text) => (text, true),
        Err(error) => (std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(), false),
    };
    let Some(lines) = text.strip_prefix(FIRST) else {
        return if FIRST.starts_with(text) && is_text { Intent::Half(steps) } else { Intent::Corrupt(steps) };
    };
    let mut length = FIRST.len();
    for line in lines.split_inclusive('\n') {
        if line.starts_with("end ") && line.ends_with('\n') {
            let whole = is_text && text[length..] == end(&text[..length]);
            return if whole { Intent::Whole(steps) } else { Intent::Corrupt(steps) };
        }
        match line.strip_suffix('\n').map(step) {
            Some(Some(step)) => steps.push(step),
            Some(None) => return Intent::Corrupt(steps),
            None => break,
        }
        length += line.len();
    }
    if is_text { Intent::Half(steps) } else { Intent::Corrupt(steps) }
}

fn step(line: &str) -> Option<Step> {
    let path = |said: &str| -> Option<PathBuf> {
        let path = OsString::from_vec(percent_decode_str(said).collect());
        (!path.is_empty()).then(|| path.into())
    };
    let words: Vec<_> = line.split(' ').collect();
    Some(match words[..] {
        ["write", staged, said] if is_staged(staged) => {
            Step::Write { staged: staged.to_owned(), path: path(said)? }
        }
        ["remove", said] => Step::Remove { path: path(said)? },
        ["rename", from, to] => Step::Rename { from: path(from)?, to: path(to)? },
        _ => return None,
    })
}

/// What a file is named that will be another, of a set with that number.
pub(super) fn staged(set: u64, n: usize) -> String {
    format!(".combo-set-{set:016x}-{n}.tmp")
}

fn is_staged(name: &str) -> bool {
    let parts = name.strip_prefix(".combo-set-").and_then(|rest| rest.strip_suffix(".tmp"));
    parts.and_then(|parts| parts.split_once('-')).is_some_and(|(set, n)| {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let digits = !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit());
        set.len() == 16 && set.bytes().all(hex) && digits
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some() -> Vec<Step> {
        vec![
            Step::Write { staged: staged(7, 0), path: "sub/a b%\n.txt".into() },
            Step::Remove { path: OsString::from_vec(b"\xff".to_vec()).into() },
            Step::Rename { from: "/srv/a".into(), to: "ä".into() },
        ]
    }

    fn whole(steps: &[Step]) -> String {
        let begun = begin(steps);
        let end = end(&begun);
        begun + &end
    }

    #[test]
    fn it_is_lines_of_text() {
        let text = "combo set 1\nwrite .combo-set-0000000000000007-0.tmp sub/a%20b%25%0A.txt\n\
                    remove %FF\nrename /srv/a %C3%A4\nend 104 a96c921a7d6287df\n";
        assert_eq!(whole(&some()), text);
        assert_eq!(read(text.as_bytes()), Intent::Whole(some()));
    }

    #[test]
    fn of_a_part_nothing_is_decided() {
        let text = whole(&some());
        for length in 0..text.len() {
            let read = read(&text.as_bytes()[..length]);
            assert!(matches!(&read, Intent::Half(steps) if some().starts_with(steps)), "{length}: {read:?}");
        }
        assert_eq!(read(begin(&some()).as_bytes()), Intent::Half(some()));
    }

    #[test]
    fn what_is_not_one_is_corrupt() {
        let first = "combo set 1\n";
        for text in [
            "combo set 2\n",
            "hello",
            "combo set 1\nwrite a b\n",
            "combo set 1\nwrite ../../etc/.combo-set-0000000000000007-0.tmp b\n",
            "combo set 1\nwrite .combo-set-0000000000000007-/.tmp b\n",
            "combo set 1\nremove \n",
            "combo set 1\nremove a b\n",
            "combo set 1\nend 12 0000000000000000\n",
        ] {
            assert_eq!(read(text.as_bytes()), Intent::Corrupt(Vec::new()), "{text}");
        }
        let more = whole(&[]) + "remove a\n";
        assert_eq!(read(more.as_bytes()), Intent::Corrupt(Vec::new()));
        assert_eq!(read(whole(&[]).as_bytes()), Intent::Whole(Vec::new()));
        assert_eq!(read(first.as_bytes()), Intent::Half(Vec::new()));
    }

    proptest! {
        #[test]
        fn what_was_changed_anywhere_is_not_whole(at in 0_usize..10_000, to in any::<u8>()) {
            let mut bytes = whole(&some()).into_bytes();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            prop_assert!(!matches!(read(&bytes), Intent::Whole(_)));
        }

        #[test]
        fn anything_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }

        #[test]
        fn every_path_comes_back(path in prop::collection::vec(1_u8.., 1..50)) {
            let steps = [Step::Remove { path: OsString::from_vec(path).into() }];
            prop_assert_eq!(read(whole(&steps).as_bytes()), Intent::Whole(steps.to_vec()));
        }
    }
}
