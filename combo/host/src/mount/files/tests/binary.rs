//! Files in the binary: answered as they would be from disk, and lying over or under those.

use super::*;

const INDEX: &str = "<h1>home</h1>";
const SCRIPT: &str = "0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz";

const fn asset(path: &'static str, contents: &'static str) -> Asset {
    Asset { path, contents: contents.as_bytes(), brotli: None, zstd: None, gzip: None }
}

static ASSETS: [Asset; 12] = [
    asset(".env", "SECRET"),
    asset(".well-known/security.txt", "contact"),
    asset("404.html", "none"),
    asset("about.html", "about"),
    Asset {
        brotli: Some(b"BR form"),
        zstd: Some(b"ZST form"),
        gzip: Some(b"GZ form"),
        ..asset("app.3f9a0c1b.js", SCRIPT)
    },
    asset("empty.txt", ""),
    asset("folder/", ""),
    Asset { gzip: Some(b"GZ form"), ..asset("index.html", INDEX) },
    asset("logo.png", "PNG"),
    asset("sub/deep/a b.txt", "deep"),
    asset("sub/index.html", "sub"),
    asset("€.txt", "euro"),
];

const EMBEDDED: Embedded = Embedded::in_binary("static", &ASSETS);

/// The same on disk.
fn on_disk() -> Site {
    let mut site = Site::new();
    for asset in &ASSETS {
        if let Some(folder) = asset.path.strip_suffix('/') {
            fs::create_dir(site.path(folder)).unwrap();
            continue;
        }
        site = site.aged(asset.path, asset.contents, 9);
        for (extension, form) in [("br", asset.brotli), ("zst", asset.zstd), ("gz", asset.gzip)] {
            if let Some(form) = form {
                site = site.aged(&format!("{}.{extension}", asset.path), form, 9);
            }
        }
    }
    site
}

fn embedded(said: impl Fn(Files) -> Files) -> Served {
    Served::open(said(Files::embedded(EMBEDDED)), |_| panic!("no folder")).unwrap()
}

#[tokio::test]
async fn the_binary_answers_as_the_disk_does() {
    let said = |files: Files| {
        files.uncompressed().html_extension().not_found("404.html").cache_control("sub/**", "max-age=60")
    };
    let site = on_disk();
    let (binary, disk) = (embedded(said), site.said(said));
    let tag = get(&disk, "/").await.header(ETAG).to_owned();
    let coded = get_in(&disk, "/app.3f9a0c1b.js", "br").await.header(ETAG).to_owned();
    let mut statuses = std::collections::BTreeSet::new();
    for uri in [
        "/",
        "/index.html",
        "/about",
        "/about.html",
        "/app.3f9a0c1b.js",
        "/empty.txt",
        "/folder",
        "/folder/",
        "/logo.png",
        "/sub",
        "/sub?x=y",
        "/sub/",
        "/sub/index.html",
        "/sub/deep",
        "/sub/deep/",
        "/sub/deep/a%20b.txt",
        "//sub//deep//a%20b.txt",
        "/%E2%82%AC.txt",
        "/.well-known/security.txt",
        "/.env",
        "/.well-known",
        "/missing",
        "/index.html/",
        "/index.html/x",
        "/INDEX.html",
        "/sub/../index.html",
        "/%00",
        "/%ff",
    ] {
        for headers in [
            &[][..],
            &[("accept-encoding", "br")],
            &[("accept-encoding", "gzip")],
            &[("accept-encoding", "zstd, gzip;q=0.5")],
            &[("accept-encoding", "gzip, br;q=0.1")],
            &[("accept-encoding", "*")],
            &[("accept-encoding", "identity, br;q=0.5")],
            &[("accept-encoding", "br;q=0, zstd;q=0")],
            &[("if-none-match", "*")],
            &[("if-none-match", &tag)],
            &[("if-match", &tag)],
            &[("if-match", "\"x\"")],
            &[("accept-encoding", "br"), ("if-none-match", &coded)],
            &[("accept-encoding", "br"), ("range", "bytes=1-3"), ("if-range", &coded)],
            &[("accept-encoding", "br"), ("range", "bytes=1-3"), ("if-range", &tag)],
            &[("range", "bytes=1-2")],
            &[("range", "bytes=-2")],
            &[("range", "bytes=1000-")],
            &[("range", "bytes=1-2"), ("if-range", &tag)],
            &[("range", "bytes=1-2"), ("if-range", "\"x\"")],
            &[("range", "bytes=0-0,2-3")],
            &[("x-forwarded-prefix", "/blog")],
        ] {
            for method in ["GET", "HEAD", "OPTIONS", "POST"] {
                let ours = send(&binary, method, uri, headers).await;
                let mut theirs = send(&disk, method, uri, headers).await;
                // Nobody knows when what is in the binary was changed.
                let _ = theirs.headers.remove(LAST_MODIFIED);
                let case = format!("{method} {uri} {headers:?}");
                assert_eq!((ours.status, ours.headers), (theirs.status, theirs.headers), "{case}");
                assert_eq!(ours.body, theirs.body, "{case}");
                let _ = statuses.insert(ours.status);
            }
        }
    }
    assert_eq!(statuses.into_iter().collect::<Vec<_>>(), [200, 204, 206, 304, 307, 404, 405, 412, 416]);
}

#[tokio::test]
async fn dates_mean_nothing_to_the_binary() {
    let files = embedded(|files| files);
    for (name, value) in [
        ("if-modified-since", "Fri, 31 Dec 9999 23:59:59 GMT"),
        ("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ] {
        let answered = send(&files, "GET", "/", &[(name, value)]).await;
        assert_eq!((answered.status, &*answered.body), (200, INDEX));
    }
    let date = ("if-range", "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(send(&files, "GET", "/", &[("range", "bytes=0-1"), date]).await.status, 200);
}

#[tokio::test]
async fn the_binary_is_served_from_where_it_is() {
    for files in [embedded(|files| files), embedded(|files| files.memory(0))] {
        for (codings, contents) in [("", SCRIPT.as_bytes()), ("br", b"BR form")] {
            let served = get_in(&files, "/app.3f9a0c1b.js", codings).await;
            assert_eq!(served.bytes, contents);
            let again = get_in(&files, "/app.3f9a0c1b.js", codings).await;
            assert_eq!(served.bytes.as_ptr(), again.bytes.as_ptr());
        }
        assert_eq!(get_in(&files, "/app.3f9a0c1b.js", "").await.bytes.as_ptr(), ASSETS[4].contents.as_ptr());
        assert_eq!(files.site.shelf.memory.taken(), 0);
    }
}

#[tokio::test]
async fn the_binary_is_listed() {
    let said = |files: Files| files.listing().index([""; 0]);
    let site = on_disk();
    let (binary, disk) = (embedded(said), site.said(said));
    for uri in ["/", "/sub/", "/sub/deep/", "/folder/", "/.well-known/"] {
        let names = async |files: &Served| {
            let answered = send(files, "GET", uri, &[("accept", "application/json")]).await;
            assert_eq!(answered.status, 200, "{uri}");
            let list: serde_json::Value = serde_json::from_slice(&answered.bytes).unwrap();
            let entries = list.as_array().unwrap().iter().filter(|entry| {
                let name = entry["name"].as_str().unwrap();
                ![".br", ".zst", ".gz"].iter().any(|form| name.ends_with(form))
            });
            entries.map(|entry| format!("{} {} {}", entry["name"], entry["type"], entry["size"])).collect()
        };
        let (ours, theirs): (Vec<_>, Vec<_>) = (names(&binary).await, names(&disk).await);
        assert_eq!(ours, theirs, "{uri}");
        assert_eq!(ours.is_empty(), uri == "/folder/");
        let page = send(&binary, "GET", uri, &[]).await;
        assert_eq!((page.status, page.header(CONTENT_TYPE)), (200, "text/html; charset=utf-8"));
        assert!(!page.body.contains("<time"), "{uri}");
    }
    assert_eq!(send(&binary, "GET", "/missing/", &[]).await.status, 404);
    assert_eq!(send(&binary, "GET", "/sub", &[]).await.header(LOCATION), "/sub/");
    // With an index, the index.
    assert_eq!(get(&embedded(Files::listing), "/sub/").await.body, "sub");
}

#[tokio::test]
async fn the_binary_lies_over_and_under_folders() {
    static THESE: [Asset; 6] = [
        asset("both.txt", "binary"),
        Asset { brotli: Some(b"BR form"), ..asset("coded.css", SCRIPT) },
        asset("dir/binary.txt", "binary"),
        asset("file", "binary"),
        asset("index.html", "binary"),
        asset("tree/x", "binary"),
    ];
    let site = Site::new()
        .aged("both.txt", "disk", 9)
        .aged("coded.css", text(2000, 1), 9)
        .aged("coded.css.gz", "GZ disk", 9)
        .aged("dir/disk.txt", "disk", 9)
        .aged("file/x", "disk", 9)
        .aged("tree", "disk", 9)
        .aged("sub/index.html", "disk", 9);
    let embedded = Files::embedded(Embedded::in_binary("these", &THESE));
    let resolve = |_: &Path| vec![site.site.path().to_path_buf()];
    let over = Served::open(Files::folder("site").over(embedded.clone()), resolve).unwrap();
    let under = Served::open(embedded.over("site"), resolve).unwrap();
    let check = async |files: &Served, uri: &str, codings: &str, status: u16, body: &str| {
        let answered = get_in(files, uri, codings).await;
        assert_eq!(answered.status, status, "{uri}");
        if status == 200 {
            assert_eq!(answered.body, body, "{uri} {codings}");
        }
    };
    check(&over, "/both.txt", "", 200, "disk").await;
    check(&under, "/both.txt", "", 200, "binary").await;
    for files in [&over, &under] {
        check(files, "/", "", 200, "binary").await;
        check(files, "/dir", "", 307, "").await;
        check(files, "/dir/disk.txt", "", 200, "disk").await;
        check(files, "/dir/binary.txt", "", 200, "binary").await;
        check(files, "/sub/", "", 200, "disk").await;
        check(files, "/missing", "", 404, "").await;
    }
    // No coding of what lies under or over it.
    check(&over, "/coded.css", "gzip", 200, "GZ disk").await;
    assert!(get_in(&over, "/coded.css", "br").await.decoded() == text(2000, 1).as_bytes());
    check(&under, "/coded.css", "br", 200, "BR form").await;
    check(&under, "/coded.css", "gzip", 200, SCRIPT).await;
    // A file hides the folder that lies under it, with all that is in it.
    check(&over, "/tree", "", 200, "disk").await;
    check(&over, "/tree/x", "", 404, "").await;
    check(&under, "/tree", "", 307, "").await;
    check(&under, "/tree/x", "", 200, "binary").await;
    check(&under, "/file", "", 200, "binary").await;
    check(&under, "/file/x", "", 404, "").await;
    check(&over, "/file", "", 307, "").await;
    check(&over, "/file/x", "", 200, "disk").await;
}

#[tokio::test]
async fn what_is_there_in_two_forms_says_so() {
    // Some find it worth it to compress what is compressed by itself.
    static ODD: [Asset; 2] =
        [Asset { brotli: Some(b"BR form"), ..asset("a.pdf", "PDF") }, asset("a.png", "PNG")];
    let files = Files::embedded(Embedded::in_binary("odd", &ODD));
    let files = Served::open(files, |_| Vec::new()).unwrap();
    let check = async |uri: &str, codings: &str, body: &str, coding: &str, vary: &str| {
        let answered = get_in(&files, uri, codings).await;
        assert_eq!((&*answered.body, answered.header(CONTENT_ENCODING)), (body, coding), "{uri} {codings}");
        assert_eq!(answered.header(VARY), vary, "{uri} {codings}");
    };
    check("/a.pdf", "br", "BR form", "br", "accept-encoding").await;
    check("/a.pdf", "", "PDF", "", "accept-encoding").await;
    check("/a.png", "br", "PNG", "", "").await;
}

#[tokio::test]
async fn in_a_build_with_debug_assertions_it_is_the_folder() {
    let site = Site::new().file("a.txt", "a");
    let folder: &'static str = Box::leak(site.site.path().to_str().unwrap().to_owned().into_boxed_str());
    let files = Files::embedded(Embedded::on_disk("static", folder)).listing();
    let files = Served::open(files, |_| panic!("no folder of the deployment")).unwrap();
    assert_eq!(get(&files, "/a.txt").await.body, "a");
    site.replace("a.txt", "new");
    assert_eq!(get(&files, "/a.txt").await.body, "new");
    assert_eq!(get(&files, "/").await.status, 200);
}

#[tokio::test]
async fn a_file_that_appears_between_a_folder_and_the_binary_is_seen_at_once() {
    static THESE: [Asset; 1] = [asset("both.txt", "binary")];
    let (first, second) = (Site::new(), Site::new());
    let resolve = |folder: &Path| match folder.to_str() {
        Some("first") => vec![first.site.path().to_owned()],
        _ => vec![second.site.path().to_owned()],
    };
    let embedded = Files::embedded(Embedded::in_binary("these", &THESE));
    let said = Files::folder("first").over(Files::folder("second").over(embedded));
    let files = Served::open(said, resolve).unwrap();
    for round in 0..5 {
        for _ in 0..5 {
            assert_eq!(get(&files, "/both.txt").await.body, "binary");
        }
        fs::write(second.path("both.txt"), "disk").unwrap();
        assert_eq!(get(&files, "/both.txt").await.body, "disk", "{round}");
        fs::remove_file(second.path("both.txt")).unwrap();
    }
}
