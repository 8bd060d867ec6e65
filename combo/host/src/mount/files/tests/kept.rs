//! What is kept in memory: never what a file was before, never more than was given.

use std::{io::Write, sync::atomic::AtomicU64};

use super::{
    memory::Kept,
    representation::Facts,
    watched::{Told, Watched},
    *,
};

#[tokio::test]
async fn what_is_kept_is_served_without_the_pool() {
    let site = Site::new().aged("a.txt", text(5000, 1), 9);
    let files = site.files();
    let first = get(&files, "/a.txt").await;
    keep(&files, "a.txt", None).await;
    let kept = get(&files, "/a.txt").await;
    assert_eq!((&kept.headers, &kept.bytes), (&first.headers, &first.bytes));
    let again = get(&files, "/a.txt").await;
    assert_eq!(kept.bytes.as_ptr(), again.bytes.as_ptr());
    let request = Request::get("/a.txt").body(()).unwrap().into_parts().0;
    assert!(files.site.answer(Question::of(&request), Speed::Cached).is_ok());
}

#[tokio::test]
async fn a_rewritten_file_is_served_new_at_once() {
    let rename = |site: &Site, contents: &str| site.replace("a.txt", contents);
    let in_place = |site: &Site, contents: &str| {
        let file = fs::File::options().write(true).open(site.path("a.txt")).unwrap();
        file.write_all_at(contents.as_bytes(), 0).unwrap();
    };
    let truncated = |site: &Site, contents: &str| fs::write(site.path("a.txt"), contents).unwrap();
    let restored = |site: &Site, contents: &str| {
        let file = fs::File::options().write(true).open(site.path("a.txt")).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(contents.as_bytes(), 0).unwrap();
        file.set_modified(modified).unwrap();
    };
    let restored_rename = |site: &Site, contents: &str| {
        let modified = fs::metadata(site.path("a.txt")).unwrap().modified().unwrap();
        fs::write(site.path(".next"), contents).unwrap();
        fs::File::options().write(true).open(site.path(".next")).unwrap().set_modified(modified).unwrap();
        fs::rename(site.path(".next"), site.path("a.txt")).unwrap();
    };
    let ways: [(&str, &dyn Fn(&Site, &str)); 5] = [
        ("rename", &rename),
        ("in place", &in_place),
        ("truncated", &truncated),
        ("in place, with the same time", &restored),
        ("rename, with the same time", &restored_rename),
    ];
    for (way, rewrite) in ways {
        let site = Site::new().aged("a.txt", text(3000, 0), 9);
        let files = site.files();
        keep(&files, "a.txt", None).await;
        let mut tags = vec![get(&files, "/a.txt").await.header(ETAG).to_owned()];
        for version in 1..40 {
            // Once from what is kept, then again and again from what has just been written.
            if version % 20 == 0 {
                keep(&files, "a.txt", None).await;
            }
            rewrite(&site, &text(3000, version));
            let answered = get(&files, "/a.txt").await;
            assert!(answered.body == text(3000, version), "{version} by {way}");
            let tag = answered.header(ETAG).to_owned();
            assert!(!tags.contains(&tag), "{version} by {way}");
            let stale = send(&files, "GET", "/a.txt", &[("if-none-match", tags.last().unwrap())]).await;
            assert_eq!(stale.status, 200, "{version} by {way}");
            let part = [("range", "bytes=0-9"), ("if-range", &**tags.last().unwrap())];
            assert_eq!(send(&files, "GET", "/a.txt", &part).await.status, 200, "{version} by {way}");
            tags.push(tag);
        }
    }
}

/// Files whose folders are watched, or cannot be, of no other mount.
fn watched(site: &Site, watched: Option<Watched>) -> Served {
    let root = Root::open([Layer::Folder(site.site.path().to_path_buf())]).unwrap();
    Served::of(root.watched_by(watched), Files::folder("site")).unwrap()
}

/// Asks for a file until it is found again without a look; gives the turn since which that is so.
async fn watch(files: &Served, path: &str, codings: &str) -> Option<u64> {
    let asked = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_str(codings).unwrap())]);
    let wanted = if codings.is_empty() { Codings::default() } else { Codings::of(&asked) };
    let watched = async {
        loop {
            let _ = match codings {
                "" => get(files, &format!("/{path}")).await,
                codings => get_in(files, &format!("/{path}"), codings).await,
            };
            let known = files.site.shelf.recent.find(path, wanted);
            let turn = files.site.shelf.root.turn();
            // Once in a second it is looked for, whatever is said of it.
            if turn.is_some() && known.is_some_and(|known| known.turn == turn && known.kept().is_some()) {
                return turn;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, watched).await.expect("it is watched")
}

#[tokio::test]
async fn what_is_watched_is_believed_until_something_happens_on_the_way() {
    const FILE: &str = "deep/er/a.txt";
    let others = |site: &Site| site.outside("others");
    let rename = |site: &Site| site.replace(FILE, "new");
    let in_place = |site: &Site| fs::write(site.path(FILE), "new").unwrap();
    let linked = |site: &Site| {
        fs::write(site.path("b.txt"), "new").unwrap();
        fs::remove_file(site.path(FILE)).unwrap();
        symlink("../../b.txt", site.path(FILE)).unwrap();
    };
    let exchanged = |site: &Site| {
        fs::rename(site.path("deep"), others(site)).unwrap();
        fs::create_dir_all(site.path("deep/er")).unwrap();
        fs::write(site.path(FILE), "new").unwrap();
    };
    let led_elsewhere = |site: &Site| {
        fs::create_dir(site.path("next")).unwrap();
        fs::write(site.path("next/a.txt"), "new").unwrap();
        fs::rename(site.path("deep/er"), others(site)).unwrap();
        symlink("../next", site.path("deep/er")).unwrap();
    };
    let ways: [(&str, &dyn Fn(&Site)); 5] = [
        ("rename", &rename),
        ("in place", &in_place),
        ("a link in its place", &linked),
        ("another folder", &exchanged),
        ("a link in the place of a folder", &led_elsewhere),
    ];
    for (way, change) in ways {
        let site = Site::new().aged(FILE, "old", 9);
        let files = watched(&site, Some(Watched::alone()));
        keep(&files, FILE, None).await;
        let turn = watch(&files, FILE, "").await;
        assert_eq!(get(&files, "/deep/er/a.txt").await.body, "old");
        change(&site);
        assert_eq!(get(&files, "/deep/er/a.txt").await.body, "new", "{way}");
        assert_ne!(files.site.shelf.root.turn(), turn, "{way}");
        fs::remove_file(site.path(FILE)).unwrap();
        assert_eq!(get(&files, "/deep/er/a.txt").await.status, 404, "{way}");
    }
}

/// What was compressed beforehand lies in the same folder.
#[tokio::test]
async fn what_comes_and_goes_beside_a_file_is_seen_at_once() {
    const FILE: &str = "deep/a.css";
    let (plain, other) = (text(9_000, 1), text(9_000, 2));
    let site = Site::new().aged(FILE, &plain, 9);
    let said = |text: &str| {
        let mut made = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        made.write_all(text.as_bytes()).unwrap();
        made.finish().unwrap()
    };
    let files = watched(&site, Some(Watched::alone()));
    const CODINGS: [&str; 2] = ["gzip", "gzip, br;q=0.9, zstd;q=0.9"];
    let now = async |coding: &str, text: &str| {
        for codings in CODINGS {
            let answered = get_in(&files, "/deep/a.css", codings).await;
            assert_eq!((answered.header(CONTENT_ENCODING), answered.decoded()), (coding, text.into()));
        }
    };
    let coded = async |coding: &str, text: &str| {
        for codings in CODINGS {
            let _ = watch(&files, FILE, codings).await;
        }
        now(coding, text).await;
    };
    // Compressed here.
    coded("gzip", &plain).await;
    // It says something else, so that it can be told apart.
    site.replace("deep/a.css.gz", said("another"));
    now("gzip", "another").await;
    coded("gzip", "another").await;
    site.replace("deep/a.css.gz", said("a third"));
    now("gzip", "a third").await;
    coded("gzip", "a third").await;
    fs::remove_file(site.path("deep/a.css.gz")).unwrap();
    now("gzip", &plain).await;
    // It is older than what it was made of.
    site.replace("deep/a.css.gz", said("another"));
    coded("gzip", "another").await;
    site.replace(FILE, &other);
    assert_eq!(get_in(&files, "/deep/a.css", "gzip").await.decoded(), other.as_bytes());
}

#[tokio::test]
async fn what_a_link_leads_to_is_looked_at() {
    let site = Site::new().aged("deep/a.css", text(9_000, 1), 9).aged("gz/a", "compressed", 5);
    let site =
        site.link("../gz/a", "deep/a.css.gz").link("deep/a.css", "b.css").link("../gz/br", "deep/a.css.br");
    let files = watched(&site, Some(Watched::alone()));
    // One of them leads to where there is nothing yet.
    for (path, codings) in [("deep/a.css", "gzip"), ("deep/a.css", "gzip, br"), ("b.css", "")] {
        let asked = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_str(codings).unwrap())]);
        let due = SystemTime::now() + PATIENCE;
        let known = loop {
            assert!(SystemTime::now() < due, "{path} is never remembered");
            assert_eq!(get_in(&files, &format!("/{path}"), codings).await.status, 200);
            if let Some(known) = files.site.shelf.recent.find(path, Codings::of(&asked)) {
                break known;
            }
        };
        assert_eq!(known.turn, None, "{path}");
    }
    site.replace("gz/br", "better");
    assert_eq!(get_in(&files, "/deep/a.css", "br, gzip").await.bytes, "better");
    site.replace("gz/a", "something else");
    assert_eq!(get_in(&files, "/deep/a.css", "gzip").await.bytes, "something else");
    site.replace("deep/a.css", "new");
    assert_eq!(get(&files, "/b.css").await.body, "new");
}

/// What a file was when its contents were these.
fn read(files: &Served, path: &str, contents: &'static str) -> Kept {
    let found = files.site.shelf.root.find(path, Speed::Any).unwrap();
    let Found::File(at, stamp) = found else { panic!("{path} is {found:?}") };
    let (media, caching) = (HeaderValue::from_static("text/plain"), HeaderValue::from_static("no-cache"));
    let facts = Facts { media, caching, is_compressed: false, is_compressible: false };
    Kept::new(stamp, at, contents.into(), facts, None)
}

/// Two ask in the same moment, and neither knows of the other.
#[tokio::test]
async fn what_was_seen_before_it_was_watched_is_not_believed() {
    const FILE: &str = "deep/a.txt";
    let site = Site::new().aged(FILE, "old", 9);
    let files = watched(&site, Some(Watched::alone()));
    let root = &files.site.shelf.root;
    let turn = root.turn();
    let kept = Arc::new(read(&files, FILE, "old"));
    site.replace(FILE, "new");
    assert!(turn.is_some() && root.turn() == turn, "it is not watched yet");
    // The other one is first.
    assert_eq!(root.told(FILE, std::iter::empty()), Told::FromNow);
    assert_eq!(root.told(FILE, std::iter::empty()), Told::Yes);
    assert_ne!(root.turn(), turn);
    let second = dates::seconds(SystemTime::now()).unwrap();
    files.site.shelf.recent.remember((FILE, Codings::default()), second, turn, &kept, None);
    assert_eq!(get(&files, "/deep/a.txt").await.body, "new");
}

/// The times of a file change before its contents do, and who writes may be held up in between: what is read then looks
/// like what is there in the end.
#[tokio::test]
async fn what_was_read_while_somebody_wrote_is_read_again() {
    const FILE: &str = "deep/a.txt";
    for is_watched in [true, false] {
        let site = Site::new().aged(FILE, "old", 9);
        let files = watched(&site, is_watched.then(Watched::alone));
        let Shelf { root, memory, .. } = &files.site.shelf;
        if is_watched {
            let _ = watch(&files, FILE, "").await;
        }
        let turn = root.turn();
        assert_eq!(turn.is_some(), is_watched);
        fs::write(site.path(FILE), "new").unwrap();
        memory.keep(FILE, None, &Arc::new(Kept { aged: false, turn, ..read(&files, FILE, "old") }));
        for _ in 0..3 {
            assert_eq!(get(&files, "/deep/a.txt").await.body, "new", "{is_watched}");
        }
    }
}

/// Whoever changes a file is not done with it yet, and nothing is told.
#[tokio::test]
async fn nobody_is_served_what_was_there_before_when_somebody_was_served_what_is_there_now() {
    const FILE: &str = "deep/a.txt";
    let changes: [(&str, &dyn Fn(&Site)); 2] = [
        ("new", &|site| site.replace(FILE, "new")),
        ("not found\n", &|site| fs::remove_file(site.path(FILE)).unwrap()),
    ];
    for (now, change) in changes {
        let site = Site::new().aged(FILE, "old", 9);
        let files = watched(&site, Some(Watched::alone()));
        let turn = watch(&files, FILE, "").await;
        let old = files.site.shelf.recent.find(FILE, Codings::default()).unwrap().kept().unwrap();
        change(&site);
        assert_ne!(files.site.shelf.root.turn(), turn);
        // As if nothing had been told since, and others believed what was there.
        let turn = files.site.shelf.root.turn();
        let second = dates::seconds(SystemTime::now()).unwrap();
        files.site.shelf.memory.keep(FILE, None, &old);
        files.site.shelf.recent.remember((FILE, Codings::default()), second, turn, &old, None);
        assert_eq!(get_in(&files, "/deep/a.txt", "br").await.body, now);
        assert_eq!(get(&files, "/deep/a.txt").await.body, now);
    }
}

#[tokio::test]
async fn what_changes_often_is_looked_at() {
    let site = Site::new().aged("a.txt", "old", 9);
    let files = watched(&site, Some(Watched::alone()));
    let due = SystemTime::now() + PATIENCE;
    for round in 0.. {
        assert!(SystemTime::now() < due, "it is never left alone");
        fs::write(site.path("another.txt"), round.to_string()).unwrap();
        assert_eq!(get(&files, "/a.txt").await.body, "old");
        let known = files.site.shelf.recent.find("a.txt", Codings::default());
        if known.is_some_and(|known| known.turn.is_none()) {
            break;
        }
    }
    site.replace("a.txt", "new");
    assert_eq!(get(&files, "/a.txt").await.body, "new");
}

#[tokio::test]
async fn what_cannot_be_watched_is_looked_at() {
    let site = Site::new().aged("there/a.txt", "old", 9).link("there", "link");
    for (watch, path) in [(None, "there/a.txt"), (Some(Watched::alone()), "link/a.txt")] {
        let files = watched(&site, watch);
        fs::write(site.path("there/a.txt"), "old").unwrap();
        keep(&files, path, None).await;
        for contents in ["new", "newer", "newest"] {
            fs::write(site.path("there/a.txt"), contents).unwrap();
            assert_eq!(get(&files, &format!("/{path}")).await.body, contents, "{path}");
        }
    }
}

/// Which version is all that there is.
fn version(contents: &[u8]) -> Option<u64> {
    let contents = std::str::from_utf8(contents).ok()?;
    let mut lines = contents.lines();
    let first = lines.next()?;
    lines.all(|line| line == first).then(|| first.trim_start().parse().ok())?
}

const LINES: usize = 200;

/// The version on every line, always as long.
fn written(version: u64) -> String {
    format!("{version:>15}\n").repeat(LINES)
}

/// One thread rewrites a file `rewrites` times while two ask for it, each in its way.
fn race(rewrites: u64, files: &Served, codings: [&str; 2], in_place: bool, site: &Site) {
    let (begun, ended, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let (begun, ended, over) = (&begun, &ended, &over);
    std::thread::scope(|scope| {
        for codings in codings {
            let _ = scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let _end = End(over);
                let mut last = 0;
                while !over.load(Ordering::SeqCst) {
                    let before = ended.load(Ordering::SeqCst);
                    let answered = runtime.block_on(async {
                        let request = Request::get("/a.txt").header("accept-encoding", codings);
                        let request = request.body(()).unwrap().into_parts().0;
                        let (head, body) = files.clone().ask(request).await.unwrap().into_parts();
                        let bytes = body.collect().await.unwrap().to_bytes();
                        let (status, headers) = (head.status.as_u16(), head.headers);
                        Answered { status, headers, body: String::new(), bytes }
                    });
                    let after = begun.load(Ordering::SeqCst);
                    assert_eq!(answered.status, 200);
                    let plain = answered.decoded();
                    assert_eq!(plain.len(), 16 * LINES);
                    // What is written in place may be seen half, while it is written.
                    match version(&plain) {
                        Some(version) => {
                            assert!((before..=after).contains(&version), "{before} {version} {after}");
                            assert!(version >= last, "{last} {version}");
                            last = version;
                        }
                        None => assert!(in_place && before < after, "torn: {before} {after}"),
                    }
                }
            });
        }
        let _end = End(over);
        let file = fs::File::options().write(true).open(site.path("a.txt")).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        for version in 1..=rewrites {
            // Now and then it is kept before it is written again.
            let due = SystemTime::now() + PATIENCE;
            while version % (rewrites / 5) == 0
                && files.site.shelf.memory.takes(16 * LINES as u64)
                && !is_kept(files, "a.txt", None)
            {
                assert!(!over.load(Ordering::SeqCst) && SystemTime::now() < due, "never kept");
                std::thread::yield_now();
            }
            begun.store(version, Ordering::SeqCst);
            if in_place {
                file.write_all_at(written(version).as_bytes(), 0).unwrap();
                file.set_modified(modified).unwrap();
            } else {
                site.replace("a.txt", written(version));
            }
            ended.store(version, Ordering::SeqCst);
            if over.load(Ordering::SeqCst) {
                break;
            }
        }
    });
}

#[test]
fn while_a_file_is_replaced_every_answer_is_one_version_and_never_an_earlier_one() {
    for (most, rewrites) in [(64 << 20, 1000), (0, 200)] {
        let site = Site::new().aged("a.txt", written(0), 9);
        let files = site.said(|files| files.memory(most));
        race(rewrites, &files, ["", "zstd"], false, &site);
        assert_eq!(get_now(&files), written(rewrites));
    }
}

#[test]
fn while_a_file_is_written_in_place_no_earlier_version_is_served() {
    for said in [|files: Files| files, |files: Files| files.memory(0)] {
        let site = Site::new().aged("a.txt", written(0), 9);
        let files = site.said(said);
        race(3000, &files, ["", "gzip"], true, &site);
        assert_eq!(get_now(&files), written(3000));
    }
}

fn get_now(files: &Served) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(get(files, "/a.txt")).body
}

#[tokio::test]
async fn no_more_is_alive_than_was_given() {
    const MOST: usize = 256 << 10;
    let mut site = Site::new();
    for file in 0..100 {
        site = site.aged(&format!("{file}.txt"), text(4000 + 100 * file, file as u64), 9);
    }
    let files = site.said(|files| files.memory(MOST));
    let memory = &files.site.shelf.memory;
    keep(&files, "0.txt", None).await;
    let mut slow = Vec::new();
    for turn in 0..3 {
        for file in 0..100 {
            for codings in ["", "zstd"] {
                let uri = format!("/{file}.txt");
                let request = Request::get(&uri).header("accept-encoding", codings).body(()).unwrap();
                let response = files.clone().ask(request.into_parts().0).await.unwrap();
                assert_eq!(response.status(), 200);
                // Every third client is slow.
                if (file + turn) % 3 == 0 {
                    slow.push((file, codings, response));
                }
                assert!(memory.taken() <= MOST, "{}", memory.taken());
            }
        }
    }
    // Those who waited have what they asked for.
    assert!(!memory.has_room((MOST / 4) as u64));
    for (file, codings, response) in slow.drain(..) {
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let answered = Answered { status: 200, headers: head.headers, body: String::new(), bytes };
        assert!(answered.decoded() == text(4000 + 100 * file, file as u64).as_bytes(), "{file} {codings}");
        assert!(memory.taken() <= MOST);
    }
    // And then there is room again.
    assert!(memory.has_room((MOST / 16) as u64));
    keep(&files, "99.txt", None).await;
}

#[tokio::test]
async fn what_is_asked_for_often_stays() {
    let mut site = Site::new();
    for file in 0..300 {
        site = site.aged(&format!("{file}.bin"), noise(5000, file), 9);
    }
    let files = site.said(|files| files.memory(512 << 10));
    keep(&files, "299.bin", None).await;
    for file in 0..5 {
        keep(&files, &format!("{file}.bin"), None).await;
    }
    for cold in 5..300 {
        let _ = get(&files, &format!("/{cold}.bin")).await;
        let _ = get(&files, &format!("/{}.bin", cold % 5)).await;
    }
    for hot in 0..5 {
        assert!(is_kept(&files, &format!("{hot}.bin"), None), "{hot}");
    }
    let cold = (5..300).filter(|cold| is_kept(&files, &format!("{cold}.bin"), None)).count();
    assert!(cold < 100, "{cold}");
}

#[tokio::test]
async fn without_memory_all_is_as_it_is_with_it() {
    let site = Site::new()
        .aged("index.html", "home", 9)
        .aged("a.txt", text(9000, 1), 9)
        .aged("empty.txt", "", 9)
        .aged("app.3f9a0c1b.js", "x", 9)
        .aged("404.html", "none", 9)
        .file("dir/x", "x");
    let said = |files: Files| files.not_found("404.html").uncompressed();
    let with = site.said(said);
    for most in [0, 1, 511, 4096, 100_000, usize::MAX] {
        let without = site.said(|files| said(files).memory(most));
        for uri in ["/", "/a.txt", "/empty.txt", "/app.3f9a0c1b.js", "/missing", "/dir", "/a.txt/x"] {
            for (name, value) in [("x", ""), ("range", "bytes=1-2"), ("accept-encoding", "br, gzip")] {
                for method in ["GET", "HEAD"] {
                    let mut one = send(&with, method, uri, &[(name, value)]).await;
                    let mut other = send(&without, method, uri, &[(name, value)]).await;
                    let _ = (one.headers.remove(ETAG), other.headers.remove(ETAG));
                    assert_eq!((one.status, one.headers), (other.status, other.headers), "{uri} {most}");
                    assert_eq!(one.bytes, other.bytes, "{uri} {most}");
                }
            }
        }
        assert!(without.site.shelf.memory.taken() <= most);
    }
}
