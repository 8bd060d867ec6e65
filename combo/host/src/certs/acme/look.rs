//! a folder, what is remembered of it -> the files that may be ours to order. Reads; writes nothing.
#![expect(clippy::disallowed_methods, reason = "certificates are files")]

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use combo_core::Timestamp;

use super::{
    asked::{NAMES, PEM, asked},
    certificate::Certificate,
    renewal::{Content, Memory},
};

/// A file with no more bytes than this may have nothing in it but the end of a line.
pub(super) const BLANK: u64 = 4;

/// A list of names is not longer.
const LONGEST: u64 = 1 << 16;

/// A file that is empty, or that we once ordered.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// `a.example.com.pem`.
    pub(super) file: String,
    pub(super) content: Content,
    pub(super) leaf: Option<Certificate>,
    /// When it, or the list of its names, was last written or touched.
    pub(super) touched: Timestamp,
    /// What it is to be ordered for, or why it cannot be.
    pub(super) names: Result<Vec<String>, String>,
    /// There is no such file: a handshake has asked for this name.
    pub(super) wanted: bool,
}

/// Looks into a folder. What somebody else put there, and is not remembered, is not even opened.
pub(super) fn look(folder: &Path, memory: &Memory) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Some(file) = entry.file_name().into_string().ok() else { continue };
        let Some(stem) = file.strip_suffix(PEM).filter(|stem| !stem.is_empty() && !stem.starts_with('.'))
        else {
            continue;
        };
        // A link is how somebody else's certificate comes here.
        let kind = match entry.metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(_) if !memory.files.contains_key(&file) => continue,
            Ok(kind) if !kind.is_file() || (kind.len() > BLANK && !memory.files.contains_key(&file)) => {
                continue;
            }
            kind => kind,
        };
        let pem = match kind.as_ref().map(|_| fs::read(entry.path())) {
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => continue,
            Ok(pem) => pem,
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        let list = list(&folder.join(format!("{stem}{NAMES}")));
        let (mut touched, mut names) = match &list {
            Ok(None) => (Timestamp::MIN, asked(stem, None)),
            Ok(Some((at, text))) => (*at, asked(stem, Some(text))),
            Err(error) => (Timestamp::MIN, Err(format!("cannot read `{stem}{NAMES}`: {error}"))),
        };
        let (content, leaf) = match pem {
            // Others are looked after all the same.
            Err(error) => {
                names = Err(format!("cannot read it: {error}"));
                (Content::Nothing, None)
            }
            Ok(pem) if pem.trim_ascii().is_empty() => (Content::Nothing, None),
            Ok(pem) => match Certificate::read(&pem) {
                Ok(leaf) => (Content::Certificate { id: leaf.id.clone(), life: leaf.life }, Some(leaf)),
                Err(_) => continue,
            },
        };
        let written = kind.ok().and_then(|kind| kind.modified().ok());
        touched = touched.max(written.and_then(|at| at.try_into().ok()).unwrap_or(Timestamp::MIN));
        found.push(Found { content, leaf, touched, names, file, wanted: false });
    }
    found.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(found)
}

/// When a list of names was written, and what is in it.
fn list(path: &Path) -> io::Result<Option<(Timestamp, String)>> {
    let text = match fs::metadata(path) {
        // Whoever opened a pipe would wait for somebody who writes into it.
        Ok(found) if !found.is_file() => return Err(io::Error::other("it is no file")),
        Ok(found) if found.len() > LONGEST => return Err(ErrorKind::FileTooLarge.into()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found.and_then(|found| Ok((found.modified()?, fs::read_to_string(path)?)))?,
    };
    Ok(Some((Timestamp::try_from(text.0).unwrap_or(Timestamp::MIN), text.1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::acme::renewal::Record;

    #[test]
    fn only_what_is_empty_or_remembered_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
        let made =
            rcgen::generate_simple_self_signed(vec!["c.example.com".to_owned()]).expect("a certificate");
        let pem = format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem());
        write("a.example.com.pem", "");
        write("b.example.com.pem", "\n");
        write("b.example.com.names", "x.example.com\ny.example.com\n");
        write("c.example.com.pem", &pem);
        write("d.example.com.pem", &pem);
        write("e.example.com.pem", "what is this");
        write("f.example.com.txt", "");
        write(".g.example.com.pem", "");
        write("_.example.com.pem", "");
        write("DEFAULT.pem", "");
        fs::create_dir(folder.path().join("h.example.com.pem")).expect("a folder");
        std::os::unix::fs::symlink("a.example.com.pem", folder.path().join("i.example.com.pem"))
            .expect("a link");
        let mut memory = Memory::default();
        for known in ["c.example.com.pem", "e.example.com.pem", "gone.example.com.pem"] {
            drop(memory.files.insert(known.into(), Record::default()));
        }
        let found = look(folder.path(), &memory).expect("a folder");
        let said: Vec<_> = found
            .iter()
            .map(|found| {
                let names = found.names.as_ref().map_or_else(String::clone, |names| names.join(" "));
                (&*found.file, found.content == Content::Nothing, names)
            })
            .collect();
        let no = "`DEFAULT.pem` is no name of a host; say the names in `DEFAULT.names`";
        assert_eq!(
            said,
            [
                ("DEFAULT.pem", true, no.into()),
                ("_.example.com.pem", true, "*.example.com".into()),
                ("a.example.com.pem", true, "a.example.com".into()),
                ("b.example.com.pem", true, "x.example.com y.example.com".into()),
                ("c.example.com.pem", false, "c.example.com".into()),
            ]
        );
    }

    #[test]
    fn one_that_cannot_be_read_hides_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &[u8]| fs::write(folder.path().join(name), text).expect("written");
        for name in ["a", "b", "c", "d"] {
            write(&format!("{name}.example.com.pem"), b"");
        }
        fs::create_dir(folder.path().join("b.example.com.names")).expect("a folder");
        write("c.example.com.names", &[0xff]);
        write("d.example.com.names", &vec![b' '; LONGEST as usize + 1]);
        let found = look(folder.path(), &Memory::default()).expect("a folder");
        let why: Vec<_> = found
            .iter()
            .map(|found| found.names.as_ref().err().map(|why| why.split(':').next().unwrap_or_default()))
            .collect();
        let cannot = ["b", "c", "d"].map(|name| format!("cannot read `{name}.example.com.names`"));
        assert_eq!(why, [None, Some(&*cannot[0]), Some(&*cannot[1]), Some(&*cannot[2])]);
    }
}
