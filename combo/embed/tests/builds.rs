//! A program that embeds a folder, built by cargo as a user would build it, again and again while the folder
//! changes. It reads what it embeds by combo's own file, so the two are one in what they say; of combo it
//! has nothing else, so it is built in seconds.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The package of that name, and no more of it.
const COMBO: &str = r#"
pub mod mount {
    #[path = "EMBEDDED"]
    mod embedded;
    pub use embedded::{Asset, Embedded};

    /// All that is in it, a line for each, as answers are made from it.
    pub fn show(embedded: Embedded) {
        match embedded.folder() {
            Some(folder) => println!("{} is {}", embedded.name(), folder.display()),
            None => below(embedded, ""),
        }
    }

    fn below(embedded: Embedded, folder: &str) {
        for (name, child) in embedded.children(folder) {
            let path = [folder, name].join("/").trim_start_matches('/').to_owned();
            match (embedded.find(&path).expect("it is there"), child) {
                (embedded::Found::Folder, None) => below(embedded, &path),
                (embedded::Found::File(_, asset), Some(child)) => {
                    assert!(std::ptr::eq(asset, child));
                    let forms = [("br", asset.brotli), ("zst", asset.zstd), ("gz", asset.gzip)];
                    let forms = forms.iter().filter_map(|(name, form)| form.map(|_| *name));
                    let forms = forms.collect::<Vec<_>>().join(" ");
                    println!("{} {path} {} [{forms}]", embedded.name(), asset.contents.len());
                }
                found => panic!("{path}: {found:?}"),
            }
        }
    }
}
"#;

const BUILD: &str = r#"
fn main() {
    combo_embed::folder("../static");
    combo_embed::Folder::new("../static").named("always").always().embed();
}
"#;

const MAIN: &str = r#"
const ALWAYS: combo::mount::Embedded = combo::embedded!("always");

fn main() {
    combo::mount::show(combo::embedded!("static"));
    combo::mount::show(ALWAYS);
}
"#;

/// Two packages that embed the same folder: a debug build and, by `shipped`, one without its assertions.
const WORKSPACE: &str = r#"
[workspace]
resolver = "3"
members = ["combo", "shipped", "site"]

[profile.dev.package.shipped]
debug-assertions = false
"#;

fn manifest(name: &str, dependencies: &str) -> String {
    format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n{dependencies}")
}

struct Project(PathBuf);

impl Project {
    /// Where cargo lets tests have files, so that what it depends on is built once.
    fn new() -> Self {
        let project = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join("embed"));
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let embedded = here.join("../host/src/mount/files/embedded.rs");
        let embedded = embedded.to_str().expect("a path in UTF-8");
        if project.0.exists() {
            fs::remove_dir_all(&project.0).expect("it is a test's");
        }
        project.write("Cargo.toml", WORKSPACE);
        let lock = fs::read_to_string(here.join("../../Cargo.lock")).expect("versions are locked");
        project.write("Cargo.lock", &lock);
        project.write("combo/Cargo.toml", &manifest("combo", ""));
        project.write("combo/src/lib.rs", &COMBO.replace("EMBEDDED", embedded));
        let dependencies = format!(
            "[dependencies]\ncombo.path = \"../combo\"\n\n[build-dependencies]\ncombo-embed.path = {here:?}\n"
        );
        for package in ["shipped", "site"] {
            project.write(&format!("{package}/Cargo.toml"), &manifest(package, &dependencies));
            project.write(&format!("{package}/build.rs"), BUILD);
            project.write(&format!("{package}/src/main.rs"), MAIN);
        }
        project
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.0.join(path)).expect("it was there");
    }

    /// What a package prints, built anew if cargo sees a reason to, and what cargo said.
    fn run(&self, package: &str) -> (Vec<String>, String) {
        let mut cargo = Command::new(env!("CARGO"));
        let cargo = cargo.current_dir(&self.0).args(["run", "--offline", "--package", package]);
        let cargo = cargo.arg("--target-dir").arg(self.0.with_file_name("embed-target"));
        // Variables of the package that is tested are none of this one's.
        let cargo = cargo.env_remove("CARGO_MANIFEST_DIR").env_remove("OUT_DIR");
        let output = cargo.output().expect("cargo runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        (text.lines().map(ToOwned::to_owned).collect(), said)
    }

    #[track_caller]
    fn check(&self, package: &str, expected: &[&str]) {
        let (lines, said) = self.run(package);
        assert_eq!(lines, expected, "{said}");
    }
}

#[test]
fn the_binary_has_what_is_in_the_folder() {
    let project = Project::new();
    let words = "many words, many words, all of the same kind\n".repeat(40);
    project.write("static/index.html", &words);
    project.write("static/.hidden", "x");
    project.write("static/a/\"ü\".txt", "short");
    project.write("static/a/photo.png", &words);
    project.write("static/empty/.gitkeep", "");
    let folder = project.0.join("static");
    let disk = format!("static is {}", folder.display());

    let first = [
        &*disk,
        "always a/\"ü\".txt 5 []",
        "always a/photo.png 1800 []",
        "always index.html 1800 [br zst gz]",
    ];
    project.check("site", &first);
    // A debug build compresses only what is always embedded.
    let plain = ["static a/\"ü\".txt 5 []", "static a/photo.png 1800 []", "static index.html 1800 []"];
    project.check("shipped", &[&plain[..], &first[1..]].concat());
    let (_, said) = project.run("site");
    assert!(!said.contains("Compiling"), "nothing has changed: {said}");

    // Added, in a folder that was there.
    project.write("static/a/new.css", &words);
    let added = [first[0], first[1], "always a/new.css 1800 [br zst gz]", first[2], first[3]];
    project.check("site", &added);

    // Changed, and of the same length.
    project.write("static/a/new.css", &"x".repeat(1800));
    project.check("site", &added);
    let binary = fs::read(project.0.with_file_name("embed-target").join("debug/site")).expect("it was built");
    let has = |text: &[u8]| binary.windows(text.len()).any(|window| window == text);
    assert!(has("x".repeat(1800).as_bytes()) && has(words.as_bytes()));

    // Removed, and a new folder.
    project.remove("static/a/new.css");
    project.write("static/b/c", "");
    project.check("site", &[first[0], first[1], first[2], "always b/c 0 []", first[3]]);

    // Said by cargo, and no reason to do it again.
    std::os::unix::fs::symlink("../../secret", folder.join("b/secret")).expect("a link");
    let (_, said) = project.run("site");
    assert!(said.contains("b/secret` leads out of the folder"), "{said}");
}
