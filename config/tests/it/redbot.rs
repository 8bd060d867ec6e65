//! What REDbot, a lint of HTTP by an editor of its standards, says of every kind of answer about files. It asks
//! again by itself: for a part, for what has been modified, and for what is compressed.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use axum::{Router, routing::get};
use combo::{
    Deployment,
    mount::{self, Files},
};
use flate2::{Compression, write::GzEncoder};
use serde_json::Value;

use crate::{
    child::{command, run},
    site::{ANY_PORT, Site},
};

/// What `./check` installs, beside what cargo builds.
fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("redbot").join("bin/python");
    assert!(python.exists(), "there is no REDbot at {}: `./check` installs it", python.display());
    python
}

/// What is asked for, and the statuses that would be right.
type Case = (&'static str, &'static str, &'static [[&'static str; 2]], &'static [u64]);

const CASES: &[Case] = &[
    // The front page of the frankenstein.
    ("GET", "/", &[], &[200]),
    ("HEAD", "/", &[], &[200]),
    ("GET", "/page.html", &[], &[200]),
    ("GET", "/style.css", &[], &[200]),
    ("GET", "/code.js", &[], &[200]),
    ("GET", "/code-5f3a9c1b2d.js", &[], &[200]),
    ("GET", "/list.json", &[], &[200]),
    ("GET", "/picture.png", &[], &[200]),
    ("GET", "/bytes.bin", &[], &[200]),
    ("GET", "/none-at-all", &[], &[200]),
    ("GET", "/empty.txt", &[], &[200]),
    ("GET", "/a%20name%20%E2%82%AC.html", &[], &[200]),
    ("GET", "/from-the-future.html", &[], &[200]),
    ("GET", "/large.txt", &[], &[200]),
    ("HEAD", "/large.txt", &[], &[200]),
    ("GET", "/large.txt", &[["Accept-Encoding", "gzip, br, zstd"]], &[200]),
    ("GET", "/large.txt", &[["Accept-Encoding", "gzip"], ["Range", "bytes=100-199"]], &[200, 206]),
    ("GET", "/made.css", &[], &[200]),
    ("GET", "/made.css", &[["Accept-Encoding", "br"]], &[200]),
    ("HEAD", "/made.css", &[["Accept-Encoding", "gzip"]], &[200]),
    ("GET", "/made.css.gz", &[], &[200]),
    ("GET", "/large.bin", &[], &[200]),
    ("GET", "/large.bin", &[["Range", "bytes=100-199"]], &[206]),
    ("GET", "/large.bin", &[["Range", "bytes=-500"]], &[206]),
    // The server may as well send all of it.
    ("GET", "/large.bin", &[["Range", "bytes=0-9,1000-1999"]], &[200, 206]),
    ("GET", "/large.bin", &[["Range", "bytes=99999999-"]], &[416]),
    ("GET", "/large.bin", &[["If-Match", "\"another\""]], &[412]),
    ("GET", "/large.bin", &[["If-None-Match", "*"]], &[304]),
    ("GET", "/large.txt", &[["Accept-Encoding", "br"]], &[200]),
    ("GET", "/large.txt", &[["Accept-Encoding", "zstd"]], &[200]),
    ("GET", "/made.txt", &[["Accept-Encoding", "br"]], &[200]),
    ("HEAD", "/made.txt", &[["Accept-Encoding", "br"]], &[200]),
    ("GET", "/made.txt", &[["Accept-Encoding", "zstd"]], &[200]),
    ("GET", "/made.txt", &[["Accept-Encoding", "zstd;q=0.5, br;q=0"]], &[200]),
    ("GET", "/list/", &[], &[200]),
    ("HEAD", "/list/", &[], &[200]),
    ("GET", "/list/", &[["Accept", "application/json"]], &[200]),
    ("GET", "/list/folder", &[], &[307]),
    ("GET", "/list/missing/", &[], &[404]),
    ("GET", "/app/some/page", &[["Accept", "text/html"]], &[200]),
    ("GET", "/app/some/page", &[["Accept", "text/html"], ["Accept-Encoding", "br"]], &[200]),
    ("GET", "/app/missing.js", &[], &[404]),
    ("GET", "/app/missing.js", &[["Accept-Encoding", "gzip"]], &[404]),
    ("GET", "/folder/", &[], &[200]),
    ("GET", "/folder", &[], &[301, 302, 307, 308]),
    ("GET", "/folder-without-a-page/", &[], &[200, 403, 404]),
    ("GET", "/missing", &[], &[404]),
    ("GET", "/.hidden", &[], &[404]),
    ("POST", "/page.html", &[], &[405]),
    ("OPTIONS", "/page.html", &[], &[200, 204]),
    ("GET", WRONG, &[], &[200]),
];

/// What it says of right answers, as it does not know them: target, name of the note, and why.
const NOT_KNOWN: [[&str; 3]; 3] = [
    ["/large.txt", "BAD_GZIP", "a part of what is compressed cannot be read by itself (RFC 9110, 14.2)"],
    ["/large.bin", "PARTIAL_WITHOUT_RANGE", "of several parts each has its own `Content-Range` (15.3.7.2)"],
    ["/list/", "CSP_UNSAFE_INLINE", "it is said of styles alone; scripts have `default-src 'none'`"],
];

/// What is wrong on purpose, so that it shows that anything would be found.
const WRONG: &str = "/wrong";

fn wrong() -> Router {
    let headers = [("content-encoding", "gzip"), ("last-modified", "Mon, 04 Jul 2011 09:08:06 GMT")];
    Router::new().route("/", get(move || async move { (headers, "this is not gzip\n") }))
}

/// Where each of them is.
fn fill(folder: &Path) {
    // Compressed it is still longer than a part that is asked for.
    let line = |at: u32| format!("{:08x}: no play makes Jack a dull boy.\n", at.wrapping_mul(2_654_435_761));
    let text: String = (0..3_000).map(line).collect();
    let bytes: Vec<u8> = (0..3_u32 << 20).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let page = |title: &str| {
        let head = format!("<!doctype html>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<p>");
        (head + &text[..880]).into_bytes()
    };
    let png = [b"\x89PNG\r\n\x1a\n", &bytes[..4_000]].concat();
    let style: String =
        (1..400).map(|at| format!("p:nth-child({at}) {{ color: #{:06x}; }}\n", at * 38_653)).collect();
    let mut made = GzEncoder::new(Vec::new(), Compression::best());
    made.write_all(style.as_bytes()).unwrap();
    let files: [(&str, Vec<u8>); 20] = [
        ("page.html", page("page")),
        ("style.css", style.clone().into()),
        ("code.js", "export const one = () => 1;\n".repeat(300).into()),
        ("code-5f3a9c1b2d.js", "export const two = () => 2;\n".repeat(300).into()),
        ("large.txt", text.clone().into()),
        ("list.json", format!("[{}0]\n", "1, ".repeat(1_000)).into()),
        ("picture.png", png),
        ("bytes.bin", bytes[..4_000].into()),
        ("none-at-all", bytes[..4_000].into()),
        ("large.bin", bytes),
        ("made.css", style.into()),
        ("made.css.gz", made.finish().unwrap()),
        ("made.txt", text.clone().into()),
        ("app.html", page("app")),
        ("404.html", page("nothing")),
        ("empty.txt", Vec::new()),
        ("a name €.html", page("€")),
        ("from-the-future.html", page("future")),
        ("folder/index.html", page("folder")),
        ("folder-without-a-page/some.txt", text.clone().into()),
    ];
    fs::write(folder.join("index.html"), include_str!("../../../static/index.html")).unwrap();
    for (name, contents) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        let (day, now) = (Duration::from_secs(86_400), SystemTime::now());
        let made = if name.starts_with("from-the-future") { now + day } else { now - day };
        fs::File::open(&path).unwrap().set_modified(made).unwrap();
    }
}

/// How bad a note is, its name, and what it says.
fn notes(entry: &Value) -> impl Iterator<Item = [&str; 3]> {
    let notes = entry["_red_messages"].as_array().unwrap().iter();
    let all =
        notes.flat_map(|note| [note].into_iter().chain(note["subnotes"].as_array().into_iter().flatten()));
    all.map(|note| ["level", "note_id", "summary"].map(|key| note[key].as_str().unwrap()))
}

#[test]
fn redbot_finds_nothing_wrong_with_any_kind_of_answer() {
    let deployment = Deployment::new("redbot").listen(ANY_PORT).mount("/", mount::files("static"));
    let app = Files::folder("static").index(["app.html"]).fallback("app.html").not_found("404.html");
    let list = Files::folder("static").index([""; 0]).listing();
    let deployment = deployment.mount("/app", mount::files(app)).mount("/list", mount::files(list));
    let site = Site::start(deployment.mount(WRONG, mount::axum(wrong())));
    fill(&site.path("static"));
    // Who has it compressed can put it beside the original.
    for (coding, name) in [("br", "made.txt.br"), ("zstd", "made.txt.zst")] {
        let request = format!("GET /large.txt HTTP/1.1\r\nHost: test\r\nAccept-Encoding: {coding}\r\n\r\n");
        let answer = site.wire().ask(request);
        assert_eq!(answer.header("content-encoding"), Some(coding), "{answer:?}");
        fs::write(site.path("static").join(name), answer.body).unwrap();
    }
    let mut redbot = command(python().to_str().unwrap());
    let _ = redbot.args(["-c", include_str!("redbot.py")]);
    for (method, target, headers, _) in CASES {
        let mut case = vec![Value::from(*method), format!("http://{}{target}", site.address()).into()];
        case.extend(headers.iter().map(|header| header.to_vec().into()));
        let _ = redbot.arg(Value::from(case).to_string());
    }
    let said = run(redbot);
    let hars: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&said.out).into_iter().collect();
    let hars = hars.unwrap_or_else(|error| panic!("{error}: {said:?}"));
    assert_eq!((said.code, hars.len()), (Some(0), CASES.len()), "{}", said.err);
    let mut found = Vec::new();
    for ((method, target, headers, right), har) in CASES.iter().zip(&hars) {
        let case = format!("{method} {target} {headers:?}");
        let entries = har["log"]["entries"].as_array().unwrap();
        assert!(!entries.is_empty(), "{case}: no whole answer: {har}");
        for (at, entry) in entries.iter().enumerate() {
            let status = entry["response"]["status"].as_u64().unwrap();
            println!("{case}: {status}");
            assert!(at > 0 || right.contains(&status), "{case}: {status}");
            for [level, id, summary] in notes(entry) {
                println!("    {level} {id}: {summary}");
                if ["BAD", "WARN"].contains(&level) {
                    found.push((*target, id, format!("{case}: {status}: {level} {id}: {summary}")));
                }
            }
        }
    }
    let (on_purpose, ours): (Vec<_>, Vec<_>) = found.into_iter().partition(|(target, ..)| *target == WRONG);
    for expected in ["BAD_GZIP", "FRESHNESS_HEURISTIC"] {
        assert!(on_purpose.iter().any(|(_, id, _)| *id == expected), "{expected}: {on_purpose:?}");
    }
    let (not_known, ours): (Vec<_>, Vec<_>) = ours
        .into_iter()
        .partition(|(target, id, _)| NOT_KNOWN.iter().any(|known| [*target, *id] == known[..2]));
    for [target, id, why] in NOT_KNOWN {
        let said = not_known.iter().any(|found| (found.0, found.1) == (target, id));
        assert!(said, "{target} {id} is no longer said: {why}");
    }
    assert!(ours.is_empty(), "{}", ours.into_iter().map(|(.., said)| said + "\n").collect::<String>());
}
