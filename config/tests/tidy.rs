//! The rules of the house that no compiler holds, read from the files themselves. Nothing is built,
//! run or changed; only `cargo tree` is asked what is depended on. A failure lists every place.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use toml::{Table, Value};

/// What may stand at the top; beside it only what is hidden and what cargo makes.
const TOP: [&str; 15] = [
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "apps",
    "check",
    "clippy.toml",
    "combo",
    "config",
    "deny.toml",
    "rustfmt.toml",
    "schedules",
    "static",
];

/// Which folders the packages of a folder may depend on, tests and examples included.
const DIRECTIONS: [(&str, &[&str]); 8] = [
    ("apps", &[]),
    ("combo/actix", &[]),
    ("combo/bench", &["apps", "combo", "config", "schedules"]),
    ("combo/core", &[]),
    ("combo/embed", &[]),
    ("combo/host", &["combo/actix", "combo/core"]),
    ("config", &["apps", "combo/host", "schedules"]),
    ("schedules", &["combo/core"]),
];

/// None of these is under the words, however deep: no runtime, server, TLS, disk or log.
const DEEDS: [&str; 14] = [
    "actix-rt",
    "actix-web",
    "async-io",
    "axum",
    "hyper",
    "mio",
    "rustix",
    "rustls",
    "signal-hook",
    "socket2",
    "tempfile",
    "tokio",
    "tracing",
    "warp",
];

const FRAMEWORKS: [&str; 3] = ["actix-web", "axum", "warp"];

/// Words that say nothing, in names of our own. The last two only in front of others.
const EMPTY_WORDS: [&str; 11] =
    ["base", "data", "handler", "helper", "helpers", "impl", "info", "manager", "util", "utils", "utility"];
const EMPTY_VERBS: [&str; 2] = ["do", "get"];

/// The most lines of a module's doc, tables and examples aside, and of a page that users read.
const MODULE_DOC: usize = 10;
const PAGE: usize = 60;

#[test]
fn the_top_level_is_what_it_is_meant_to_be() {
    let found = names_in("").into_iter().filter(|name| !name.starts_with('.') && name != "target");
    assert_eq!(found.collect::<Vec<_>>(), TOP);
}

#[test]
fn every_file_says_what_it_is() {
    none(sources().into_iter().filter_map(|(path, text)| {
        let doc: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
        let is_page = path.ends_with("lib.rs") || path.ends_with("testing.rs");
        let most = if is_page { PAGE } else { MODULE_DOC };
        let mut example = false;
        let prose = doc.iter().filter(|line| {
            let fence = line.starts_with("```");
            example ^= fence;
            !(example || fence || line.is_empty() || line.starts_with('|'))
        });
        match prose.count() {
            0 if said_by_its_parent(&path) => None,
            0 => Some(format!("{path}: it does not begin with `//!` and what it is")),
            lines => (lines > most).then(|| format!("{path}: {lines} lines of `//!`, of {most}")),
        }
    }));
}

/// The files of one test program may be described where they are declared.
fn said_by_its_parent(path: &str) -> bool {
    let Some((folder, name)) = path.rsplit_once('/') else { return false };
    let main = fs::read_to_string(root().join(folder).join("main.rs")).unwrap_or_default();
    let declaration = format!("mod {};", name.trim_end_matches(".rs"));
    let lines: Vec<&str> = main.lines().collect();
    path.contains("/tests/")
        && lines.windows(2).any(|two| two[0].starts_with("/// ") && two[1] == declaration)
}

#[test]
fn dependencies_run_one_way() {
    let packages = packages();
    let folder_of =
        |name: &str| packages.iter().find(|other| other.name() == name).map(|other| &*other.folder);
    none(packages.iter().flat_map(|package| {
        let (_, may) =
            DIRECTIONS.iter().find(|(from, _)| lies_in(&package.folder, from)).expect("a direction");
        let ours = package.dependencies().filter_map(|dependency| folder_of(dependency.name));
        let wrong = ours.filter(|to| !may.iter().any(|may| lies_in(to, may)) && *to != package.folder);
        wrong.map(|to| format!("{} depends on {to}", package.folder)).collect::<Vec<_>>()
    }));
}

#[test]
fn apps_know_their_own_framework_only() {
    let packages = packages();
    none(packages.iter().filter(|package| lies_in(&package.folder, "apps")).filter_map(|package| {
        let known: BTreeSet<_> =
            package.dependencies().map(|known| known.name).filter(|name| FRAMEWORKS.contains(name)).collect();
        let alone = root().join(&package.folder).join("examples/alone.rs").is_file();
        (known.len() != 1 || !alone).then(|| {
            format!("{}: it knows {known:?}, and its `examples/alone.rs` is there: {alone}", package.folder)
        })
    }));
}

#[test]
fn core_has_no_runtime_server_tls_or_disk() {
    let tree = tree(&["-p", "combo-core", "--edges", "normal,build", "--all-features"]);
    none(tree.iter().map(|package| &package.name).filter(|name| DEEDS.contains(&&***name)).cloned());
}

#[test]
fn main_is_one_call() {
    let main = read("config/src/main.rs");
    let code = main.lines().filter(|line| !line.starts_with("//!")).flat_map(str::split_whitespace);
    let code = code.collect::<Vec<_>>().join(" ");
    assert_eq!(code, "fn main() -> std::process::ExitCode { combo::main(frankenstein::deployment) }");
}

#[test]
fn there_is_one_binary() {
    let mains = sources().into_keys();
    let mains: Vec<_> =
        mains.filter(|path| path.ends_with("src/main.rs") || path.contains("/src/bin/")).collect();
    assert_eq!(mains, ["config/src/main.rs"]);
    none(
        packages()
            .iter()
            .filter(|package| package.manifest.contains_key("bin"))
            .map(|package| &package.folder),
    );
}

#[test]
fn the_changelog_has_the_current_version_once() {
    let version = workspace()["package"]["version"].as_str().expect("a version").to_owned();
    let heading = format!("## [{version}]");
    let changelog = read("CHANGELOG.md");
    assert_eq!(changelog.lines().filter(|line| line.starts_with(&heading)).count(), 1, "`{heading}`");
}

#[test]
fn names_say_something() {
    let empty = |name: &str| {
        let words = words(name);
        let verb = words.len() > 1 && EMPTY_VERBS.contains(&&*words[0]);
        verb || words.iter().any(|word| EMPTY_WORDS.contains(&&**word))
    };
    none(sources().into_iter().flat_map(|(path, text)| {
        let mut wrong = Vec::new();
        if path.split(['/', '.']).any(empty) {
            wrong.push(format!("{path}: its name"));
        }
        // A test is named by a sentence, which may use the words of others.
        let ours = text.lines().take_while(|line| *line != "#[cfg(test)]");
        if !path.contains("/tests/") {
            wrong.extend(
                ours.filter_map(item).filter(|name| empty(name)).map(|name| format!("{path}: `{name}`")),
            );
        }
        wrong
    }));
}

/// The name of the item that begins on this line. Types inside of others are named by their trait.
fn item(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| {
        word.starts_with("pub") || word.ends_with(')') || matches!(*word, "async" | "unsafe")
    });
    let mut kind = words.next()?;
    let mut name = words.next()?;
    if kind == "const" && name == "fn" {
        (kind, name) = (name, words.next()?);
    }
    let is_item = match kind {
        "fn" | "struct" | "enum" | "trait" | "mod" | "const" | "static" | "union" => true,
        "type" => !line.starts_with(' '),
        _ => false,
    };
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
    (is_item && end > 0).then(|| &name[..end])
}

/// `read_to_end`, `ReadToEnd` and `READ_TO_END` are the same four words.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = '_';
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && before.is_lowercase()) {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().expect("at least one").extend(c.to_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn every_feature_is_documented() {
    none(packages().iter().flat_map(|package| {
        let Some(features) = package.manifest.get("features").and_then(Value::as_table) else {
            return Vec::new();
        };
        let manifest = read(&format!("{}/Cargo.toml", package.folder));
        let manifest: Vec<&str> = manifest.lines().collect();
        let page = read(&format!("{}/src/lib.rs", package.folder));
        let undocumented = features.keys().filter(|feature| *feature != "default").filter(|feature| {
            let line = format!("{feature} = ");
            let comment = manifest.windows(2).find(|two| two[1].starts_with(&line)).map(|two| two[0]);
            // Whoever uses a package has no use for its tests.
            let of_tests = comment.is_some_and(|comment| comment.starts_with("# Tests "));
            !comment.is_some_and(|comment| comment.starts_with("# "))
                || !of_tests && !page.contains(&format!("//! | `{feature}` |"))
        });
        undocumented
            .map(|feature| format!("{}: `{feature}`, in its manifest or its page", package.folder))
            .collect()
    }));
}

#[test]
fn every_invariant_is_held_by_a_test() {
    let tests = tests();
    let page = read("combo/ARCHITECTURE.md");
    let section = section(&page, "## What always holds");
    let mut invariants = Vec::new();
    for line in section.lines() {
        match line.split_once(". ") {
            Some((number, text)) if number.parse::<usize>().is_ok() => invariants.push(text.to_owned()),
            _ => invariants.iter_mut().last().into_iter().for_each(|last| *last += line),
        }
    }
    assert_eq!(invariants.len(), 10);
    none(invariants.iter().flat_map(|invariant| {
        let (_, held) = invariant.split_once("Held by").unwrap_or_default();
        let missing = quoted(held).into_iter().filter(|name| !tests.contains(*name));
        let mut wrong: Vec<_> = missing.map(|name| format!("there is no test `{name}`")).collect();
        if quoted(held).is_empty() {
            wrong.push(format!("by no test: {invariant}"));
        }
        wrong
    }));
}

/// In the last column of each table.
#[test]
fn every_promise_is_held_by_a_test() {
    let tests = tests();
    let page = read("combo/SECURITY.md");
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| ") && !line.contains("---")).collect();
    assert!(rows.len() > 30, "{}", rows.len());
    none(rows.into_iter().filter(|row| !row.ends_with(" held by |")).filter_map(|row| {
        let held = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        let names = quoted(held);
        let is_test = |name: &str| tests.contains(name) || name.contains('/') || name == "unsafe_code";
        let good = !names.is_empty() && names.iter().all(|name| is_test(name));
        (!good).then(|| format!("no such test: {row}"))
    }));
}

/// The names of all functions that an attribute makes a test.
fn tests() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for (_, text) in sources() {
        let mut tested = false;
        for line in text.lines().map(str::trim_start) {
            let attribute = line.strip_prefix("#[").and_then(|rest| rest.split([']', '(']).next());
            tested |= attribute.is_some_and(|path| path.rsplit("::").next() == Some("test"));
            if let Some((_, name)) = line.split_once("fn ").filter(|_| tested && attribute.is_none()) {
                tested = false;
                let _ = tests.insert(name.split(['(', '<']).next().unwrap_or_default().to_owned());
            }
        }
    }
    tests
}

#[test]
fn the_edge_is_where_it_is_said_to_be() {
    let sources = sources();
    let ours = |path: &str| !path.contains("/tests/") && !path.contains("/examples/");
    let expects = |text: &str| {
        let mut attributes =
            text.split("expect(").skip(1).map(|rest| rest.split_once(')').unwrap_or_default().0);
        attributes.any(|attribute| attribute.contains("clippy::disallowed_methods"))
    };
    let edge = sources.iter().filter(|(path, text)| ours(path) && expects(text));
    let edge: BTreeSet<_> = edge.map(|(path, _)| &**path).collect();
    let page = read("combo/ARCHITECTURE.md");
    let table = page.split_once("| at the edge |").expect("a table of the edge").1;
    let table = table.split_once("\n\n").unwrap_or_default().0;
    let said: BTreeSet<_> =
        table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(edge, said);

    // The lint is on wherever it is said to be.
    const ON: &str = "#![cfg_attr(not(test), warn(clippy::disallowed_methods))]";
    for library in ["combo/actix", "combo/core", "combo/embed", "combo/host", "schedules"] {
        assert!(read(&format!("{library}/src/lib.rs")).lines().any(|line| line == ON), "{library}");
    }
}

#[test]
fn the_readme_shows_the_deployment() {
    let readme = read("README.md");
    let (_, code) = readme.split_once("```rust\n").expect("the README has code");
    let (code, _) = code.split_once("```\n").expect("it ends");
    assert_eq!(code, read("config/src/lib.rs"));
}

const DOCUMENTS: [&str; 6] = [
    "README.md",
    "CHANGELOG.md",
    "combo/ARCHITECTURE.md",
    "combo/COMPATIBILITY.md",
    "combo/DEPLOYING.md",
    "combo/SECURITY.md",
];

#[test]
fn what_the_documents_name_is_there() {
    let tops = ["apps", "combo", "config", "schedules", "static"];
    none(DOCUMENTS.into_iter().flat_map(|document| {
        let text = read(document);
        let folder = root().join(document).parent().expect("it lies in a folder").to_owned();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let links = links.filter(|link| !link.contains("://")).map(|link| folder.join(link));
        let named = quoted(&text).into_iter().filter(|path| tops.iter().any(|top| lies_in(path, top)));
        let all: Vec<_> = links.chain(named.map(|path| root().join(path))).collect();
        all.into_iter()
            .filter(|path| !path.exists())
            .map(move |path| format!("{document}: {}", path.display()))
    }));
}

#[test]
fn versions_stand_once() {
    let workspace = workspace();
    let shared = workspace["dependencies"].as_table().expect("a table");
    let loose = shared.iter().filter(|(_, said)| {
        let at = |key: &str| said.get(key);
        at("path").is_none()
            && (at("version").is_none() || at("default-features") != Some(&Value::Boolean(false)))
    });
    let mut wrong: Vec<_> =
        loose.map(|(name, _)| format!("{name}: a version, and no default features")).collect();
    for package in packages() {
        let own = package
            .dependencies()
            .filter(|dependency| dependency.said.get("workspace") != Some(&Value::Boolean(true)));
        wrong.extend(
            own.map(|dependency| format!("{}: `{}` is not the workspace's", package.folder, dependency.name)),
        );
        let inherits = |value: Option<&Value>| {
            value.and_then(|value| value.get("workspace")) == Some(&Value::Boolean(true))
        };
        let fields = ["edition", "license", "rust-version", "version"];
        let inherited = fields.iter().all(|field| inherits(package.manifest["package"].get(field)));
        if !inherited || !inherits(package.manifest.get("lints")) {
            wrong.push(format!("{}: it has a package field or lints of its own", package.folder));
        }
    }
    none(wrong);
}

#[test]
fn manifests_are_sorted() {
    let folders = packages().into_iter().map(|package| package.folder + "/");
    none(folders.chain([String::new()]).flat_map(|folder| {
        let path = format!("{folder}Cargo.toml");
        let (mut section, mut last, mut wrong) = (String::new(), String::new(), Vec::new());
        for line in read(&path).lines() {
            if line.starts_with('[') {
                (section, last) = (line.to_owned(), String::new());
            } else if section.ends_with("dependencies]")
                && let Some((name, _)) = line.split_once([' ', '.'])
                && !line.starts_with('#')
            {
                if *name < *last {
                    wrong.push(format!("{path}: `{name}` after `{last}`"));
                }
                name.clone_into(&mut last);
            }
        }
        wrong
    }));
}

#[test]
fn optional_crates_are_switched_on_by_name() {
    none(packages().iter().flat_map(|package| {
        let features = package.manifest.get("features").and_then(Value::as_table);
        let on = features.into_iter().flat_map(Table::values).filter_map(Value::as_array).flatten();
        let on: BTreeSet<_> = on.filter_map(Value::as_str).collect();
        let optional =
            package.dependencies().filter(|known| known.said.get("optional") == Some(&Value::Boolean(true)));
        let names = optional.map(|dependency| format!("dep:{}", dependency.name));
        let silent = names.filter(|name| !on.contains(&**name));
        silent.map(|name| format!("{}: `{name}`", package.folder)).collect::<Vec<_>>()
    }));
}

#[test]
fn nothing_is_left_for_later() {
    let marks = [["TO", "DO"], ["FIX", "ME"], ["todo", "!("], ["unimplemented", "!("], ["#[ign", "ore"]]
        .map(|mark| mark.concat());
    none(sources().into_iter().flat_map(|(path, text)| {
        let lines = text.lines().zip(1..).filter(|(line, _)| marks.iter().any(|mark| line.contains(mark)));
        lines.map(|(line, number)| format!("{path}:{number}: {}", line.trim())).collect::<Vec<_>>()
    }));
}

/// What cargo-deny would say of licences, bans and sources, from the same lists.
#[test]
fn only_what_may_be_depended_on_is() {
    let deny: Table = read("deny.toml").parse().expect("TOML");
    let strings = |value: &Value| -> Vec<String> {
        let list = value.as_array().expect("a list").iter();
        list.map(|value| value.as_str().expect("a string").to_owned()).collect()
    };
    let allow = strings(&deny["licenses"]["allow"]);
    let bans = deny["bans"]["deny"].as_array().expect("a list");
    let bans: Vec<&str> = bans.iter().map(|ban| ban["crate"].as_str().expect("a crate")).collect();
    let all = tree(&["--workspace", "--edges", "normal,build,dev", "--all-features"]);
    let mut wrong = Vec::new();
    for package in &all {
        let Package { name, version, licence, source } = package;
        if !permitted(licence, &allow) {
            wrong.push(format!("{name} {version}: licence {licence}"));
        }
        if bans.iter().any(|said| meant(said, package)) {
            wrong.push(format!("{name} {version}: banned"));
        }
        if source.contains("://") || source.contains("registry") {
            wrong.push(format!("{name} {version}: from {source}"));
        }
    }
    let unused =
        allow.iter().filter(|allowed| !all.iter().any(|package| package.licence.contains(&***allowed)));
    wrong.extend(unused.map(|allowed| format!("{allowed} is allowed and nothing needs it")));
    none(wrong);
}

#[test]
fn there_is_one_tls_provider() {
    let tree = tree(&["-p", "frankenstein", "--edges", "normal"]);
    let providers: BTreeSet<_> = tree
        .iter()
        .map(|package| &*package.name)
        .filter(|name| ["aws-lc-rs", "openssl", "ring"].contains(name))
        .collect();
    assert_eq!(providers, BTreeSet::from(["aws-lc-rs"]));
}

/// Whether a package is meant: by its name, or as in `hyper@0.14` by the beginning of its version, too.
fn meant(said: &str, package: &Package) -> bool {
    match said.split_once('@') {
        None => said == package.name,
        Some((name, begins)) => {
            name == package.name && format!("{}.", package.version).starts_with(&format!("{begins}."))
        }
    }
}

/// Whether an SPDX expression can be satisfied. `/` is how `OR` was written once.
fn permitted(expression: &str, allow: &[String]) -> bool {
    fn any(words: &mut Vec<&str>, allow: &[String]) -> bool {
        let mut permitted = all(words, allow);
        while words.last() == Some(&"OR") {
            let _ = words.pop();
            permitted |= all(words, allow);
        }
        permitted
    }
    fn all(words: &mut Vec<&str>, allow: &[String]) -> bool {
        let mut permitted = one(words, allow);
        while words.last() == Some(&"AND") {
            let _ = words.pop();
            permitted &= one(words, allow);
        }
        permitted
    }
    fn one(words: &mut Vec<&str>, allow: &[String]) -> bool {
        let word = words.pop().unwrap_or_default();
        if word == "(" {
            let permitted = any(words, allow);
            return words.pop() == Some(")") && permitted;
        }
        let mut name = word.to_owned();
        if words.last() == Some(&"WITH") {
            words.truncate(words.len() - 1);
            name = format!("{name} WITH {}", words.pop().unwrap_or_default());
        }
        allow.contains(&name)
    }
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words: Vec<&str> = spaced.split_whitespace().rev().collect();
    any(&mut words, allow) && words.is_empty()
}

#[test]
fn licences_are_read_as_they_are_meant() {
    let allow = ["A", "B", "A WITH X"].map(ToOwned::to_owned);
    for good in ["A", "A OR C", "C/A", "A AND B", "(A OR C) AND B", "C OR A AND B", "A WITH X", "((A))"] {
        assert!(permitted(good, &allow), "{good}");
    }
    for bad in ["", "C", "A AND C", "(A OR B) AND C", "A WITH Y", "A B", "(A", "C OR A AND D"] {
        assert!(!permitted(bad, &allow), "{bad}");
    }
}

#[test]
fn a_ban_means_a_crate_or_some_of_its_versions() {
    let package = |version: &str| Package {
        name: "hyper".to_owned(),
        version: version.to_owned(),
        licence: String::new(),
        source: String::new(),
    };
    for (said, version, is_meant) in [
        ("hyper", "1.2.3", true),
        ("hyper@0.14", "0.14.30", true),
        ("hyper@0.14", "0.1.4", false),
        ("hyper@0.14", "1.0.14", false),
        ("hyper-util", "1.2.3", false),
    ] {
        assert_eq!(meant(said, &package(version)), is_meant, "{said} {version}");
    }
}

#[test]
fn names_are_split_into_words() {
    assert_eq!(words("ReadToEnd"), ["read", "to", "end"]);
    assert_eq!(words("READ_TO_end"), ["read", "to", "end"]);
    for (line, name) in [
        ("pub(crate) async fn read<T>(", Some("read")),
        ("    pub const fn secs(count: u64)", Some("secs")),
        ("const MOST: usize = 1;", Some("MOST")),
        ("pub(in crate::jobs) struct Tick(", Some("Tick")),
        ("    type Data = Bytes;", None),
        ("let get_it = 1;", None),
        ("impl Base for Thing {", None),
    ] {
        assert_eq!(item(line), name, "{line}");
    }
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("cannot read `{path}`: {error}"))
}

fn names_in(folder: &str) -> Vec<String> {
    let entries =
        fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("cannot read `{folder}`: {error}"));
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name in UTF-8"))
        .collect();
    names.sort();
    names
}

/// Every Rust file, by its path from the top.
fn sources() -> BTreeMap<String, String> {
    fn walk(folder: &str, found: &mut BTreeMap<String, String>) {
        for name in names_in(folder) {
            let path = format!("{folder}/{name}");
            if root().join(&path).is_dir() {
                walk(&path, found);
            } else if name.ends_with(".rs") {
                let text = read(&path);
                let _ = found.insert(path, text);
            }
        }
    }
    let mut found = BTreeMap::new();
    ["apps", "combo", "config", "schedules"].into_iter().for_each(|folder| walk(folder, &mut found));
    found
}

fn lies_in(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn workspace() -> Table {
    let manifest: Table = read("Cargo.toml").parse().expect("TOML");
    manifest["workspace"].as_table().expect("a table").clone()
}

/// A package of the workspace.
struct Member {
    folder: String,
    manifest: Table,
}

struct Dependency<'a> {
    name: &'a str,
    said: &'a Value,
}

impl Member {
    fn name(&self) -> &str {
        self.manifest["package"]["name"].as_str().expect("a name")
    }

    /// For code, tests and build scripts alike.
    fn dependencies(&self) -> impl Iterator<Item = Dependency<'_>> {
        let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
        let tables = sections.into_iter().filter_map(|section| self.manifest.get(section)?.as_table());
        tables.flatten().map(|(name, said)| Dependency { name, said })
    }
}

fn packages() -> Vec<Member> {
    let workspace = workspace();
    let members = workspace["members"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|member| member.as_str().expect("a path"));
    let folders = members.flat_map(|member| match member.strip_suffix("/*") {
        Some(parent) => names_in(parent).into_iter().map(|name| format!("{parent}/{name}")).collect(),
        None => vec![member.to_owned()],
    });
    let read = |folder: String| {
        let manifest = read(&format!("{folder}/Cargo.toml")).parse().expect("TOML");
        Member { folder, manifest }
    };
    folders.map(read).collect()
}

/// A package that something depends on.
struct Package {
    name: String,
    version: String,
    licence: String,
    /// Nothing for crates.io.
    source: String,
}

fn tree(arguments: &[&str]) -> Vec<Package> {
    let mut cargo = Command::new(env!("CARGO"));
    let cargo =
        cargo.current_dir(root()).args(["tree", "--prefix", "none", "--format", "{p}|{l}"]).args(arguments);
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{cargo:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines: BTreeSet<&str> =
        text.lines().map(|line| line.trim_end_matches(" (*)")).filter(|line| !line.is_empty()).collect();
    let package = |line: &str| {
        let (package, licence) = line.split_once('|').expect("two fields");
        let mut words = package.splitn(3, ' ').map(ToOwned::to_owned);
        let (name, version, source) = (words.next(), words.next(), words.next());
        let version = version.expect("a version").trim_start_matches('v').to_owned();
        Package {
            name: name.expect("a name"),
            version,
            licence: licence.to_owned(),
            source: source.unwrap_or_default(),
        }
    };
    lines.into_iter().map(package).collect()
}

/// What stands under a heading, up to the next.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(heading).unwrap_or_else(|| panic!("no `{heading}`"));
    rest.split("\n## ").next().unwrap_or_default()
}

/// What stands between backticks, code blocks aside.
fn quoted(text: &str) -> Vec<&str> {
    let prose = text.split("```").step_by(2);
    prose.flat_map(|text| text.split('`').skip(1).step_by(2)).collect()
}

fn none(wrong: impl IntoIterator<Item = impl ToString>) {
    let wrong: Vec<_> = wrong.into_iter().map(|wrong| wrong.to_string()).collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
