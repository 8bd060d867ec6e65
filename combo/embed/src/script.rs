//! Takes a folder to embed and what cargo says to build scripts, writes the expression for it, and tells
//! cargo when that has to be done again.
#![expect(clippy::disallowed_methods, reason = "this is where the environment of a build script is read")]

use std::{
    collections::BTreeMap,
    env, fs,
    num::NonZero,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    Folder,
    error::Error,
    render::render,
    store::{self, Store},
    walk::{Walked, walk},
};

/// After so long it is said how it may be quicker.
const LONG: Duration = Duration::from_secs(20);

/// What this script has embedded so far.
static TAKEN: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());

/// Where a build script runs.
#[derive(Debug)]
struct Place {
    /// Of the package that is built.
    package: PathBuf,
    /// For what the script makes.
    out: PathBuf,
    optimised: bool,
    threads: NonZero<usize>,
}

/// Embeds a folder, for the build script that this is called by.
pub(crate) fn run(folder: &Folder) -> Result<(), Error> {
    let variable = |name| env::var_os(name).ok_or(Error::NoScript(name));
    let place = Place {
        package: variable("CARGO_MANIFEST_DIR")?.into(),
        out: variable("OUT_DIR")?.into(),
        optimised: variable("PROFILE")? == "release",
        threads: variable("NUM_JOBS")?
            .to_str()
            .and_then(|jobs| jobs.parse().ok())
            .unwrap_or(NonZero::<usize>::MIN),
    };
    let name = folder.called()?;
    let other =
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), folder.path.clone());
    if let Some(other) = other {
        return Err(Error::Twice { name, folder: folder.path.clone(), other });
    }
    let began = Instant::now();
    let lines = embed(folder, &name, &place)?;
    for line in lines {
        println!("cargo::{line}");
    }
    let took = began.elapsed();
    if took > LONG {
        println!(
            "cargo::warning=embedding `{name}` took {} s, once; with `opt-level = 3` in \
             `[profile.release.build-override]` it takes a sixth of what it takes without",
            took.as_secs()
        );
    }
    Ok(())
}

/// Gives what cargo is to be told.
fn embed(folder: &Folder, name: &str, place: &Place) -> Result<Vec<String>, Error> {
    let said = place.package.join(&folder.path);
    let no_folder = |cause| Error::NoFolder { folder: folder.path.clone(), cause };
    let root = fs::canonicalize(&said).map_err(no_folder)?;
    let _ = fs::read_dir(&root).map_err(no_folder)?;
    let root_name = root.to_str().ok_or_else(|| Error::Utf8(root.clone()))?;

    let Walked { entries, left_out } = walk(&root)?;
    let mut assets = store::plain(entries, place.threads)?;
    if place.optimised || folder.always {
        let results = place.out.join(format!("{name}.embedded"));
        let store = Store { folder: &results, threads: place.threads };
        let _ = store.compress(&mut assets)?;
    }
    let text = render(name, root_name, folder.always, &assets)?;
    store::write(&place.out.join(format!("{name}.embedded.rs")), text.as_bytes())?;

    // Of a folder cargo looks at all that is in it, and follows links.
    let mut lines = vec![format!("rerun-if-changed={}", said.display())];
    lines.extend(left_out.iter().map(|link| warning(link)));
    Ok(lines)
}

fn warning(link: &Path) -> String {
    format!(
        "warning=`{}` leads out of the folder that is embedded, or nowhere, and is left out",
        link.display()
    )
}

impl Folder {
    /// The name that it was given, or the last part of its path.
    fn called(&self) -> Result<String, Error> {
        let last = || self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let name = self.name.clone().unwrap_or_else(last);
        if name.is_empty() || name.contains('/') || name.contains(char::is_control) {
            return Err(Error::Name { folder: self.path.clone(), name });
        }
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_last_part_or_what_is_said() {
        #[track_caller]
        fn check(folder: &Folder, expected: Option<&str>) {
            assert_eq!(folder.called().ok().as_deref(), expected, "{folder:?}");
        }
        check(&Folder::new("../static"), Some("static"));
        check(&Folder::new("/srv/a b/"), Some("a b"));
        check(&Folder::new("../static").named("site"), Some("site"));
        check(&Folder::new(".."), None);
        check(&Folder::new(""), None);
        check(&Folder::new("..").named("up"), Some("up"));
        check(&Folder::new("static").named(""), None);
        check(&Folder::new("static").named("a/b"), None);
    }

    #[test]
    fn a_release_compresses_and_a_debug_build_does_not() {
        let top = tempfile::tempdir().unwrap();
        let place = |out: &str, optimised| {
            let out = top.path().join(out);
            fs::create_dir_all(&out).unwrap();
            Place { package: top.path().join("site"), out, optimised, threads: NonZero::<usize>::MIN }
        };
        fs::create_dir_all(top.path().join("site")).unwrap();
        fs::create_dir(top.path().join("static")).unwrap();
        fs::write(top.path().join("static/a.txt"), "word ".repeat(100)).unwrap();
        let folder = Folder::new("../static");
        let always = folder.clone().always();

        for (folder, optimised, expected) in [
            (folder.clone(), true, true),
            (folder, false, false),
            (always.clone(), false, true),
            (always, true, true),
        ] {
            let place = place(&format!("{optimised}-{}", folder.always), optimised);
            let lines = embed(&folder, "static", &place).unwrap();
            assert_eq!(lines, [format!("rerun-if-changed={}/site/../static", top.path().display())]);
            let text = fs::read_to_string(place.out.join("static.embedded.rs")).unwrap();
            assert_eq!(text.contains("brotli: Some("), expected, "{text}");
            assert_eq!(text.contains("debug_assertions"), !folder.always, "{text}");
            assert_eq!(embed(&folder, "static", &place).unwrap(), lines);
            assert_eq!(fs::read_to_string(place.out.join("static.embedded.rs")).unwrap(), text);
        }

        let place = place("out", true);
        for missing in ["missing", "../static/a.txt"] {
            let error = embed(&Folder::new(missing), "x", &place).unwrap_err().to_string();
            assert!(error.starts_with(&format!("cannot embed `{missing}`: ")), "{error}");
        }
    }
}
