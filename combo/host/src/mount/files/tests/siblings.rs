//! What somebody compressed beforehand, and put beside its original: chosen, and only if it may be.

use super::*;

/// What stands in a sibling tells which one it is; nobody here decodes it.
fn site() -> Site {
    Site::new()
        .aged("a.css", text(2000, 1), 100)
        .aged("a.css.br", "BR sibling", 100)
        .aged("a.css.zst", "ZST sibling", 90)
        .aged("a.css.gz", "GZ sibling", 80)
}

#[tokio::test]
async fn the_coding_most_wanted_is_sent() {
    let site = site();
    for (resolver, files) in site.both() {
        for (codings, expected) in [
            ("", ""),
            ("identity", ""),
            ("br", "br"),
            ("zstd", "zstd"),
            ("gzip", "gzip"),
            ("x-gzip", "gzip"),
            ("GZIP", "gzip"),
            ("gzip, deflate, br, zstd", "br"),
            ("gzip, zstd", "zstd"),
            ("gzip;q=1.0, br;q=0.9", "gzip"),
            ("gzip;q=0.8, zstd;q=0.9, br;q=0.7", "zstd"),
            ("gzip;q=0.001", "gzip"),
            ("br;q=0, gzip", "gzip"),
            ("br;q=0", ""),
            ("*", "br"),
            ("*;q=0", ""),
            ("*, br;q=0", "zstd"),
            ("*;q=0.5, gzip", "gzip"),
            ("identity, gzip;q=0.5", ""),
            ("identity;q=0.5, gzip;q=0.5", "gzip"),
            ("identity;q=0.5, gzip", "gzip"),
            ("identity;q=0, gzip", "gzip"),
            // Nobody is sent nothing at all.
            ("identity;q=0", ""),
            ("deflate", ""),
            ("gzip;q=2", ""),
            ("gzip;level=9", ""),
        ] {
            for files in [&files, &site.never_kept(), &site.said(Files::uncompressed)] {
                let answered = get_in(files, "/a.css", codings).await;
                assert_eq!(answered.status, 200);
                assert_eq!(answered.header(CONTENT_ENCODING), expected, "{codings} by {resolver:?}");
                assert_eq!(answered.header(CONTENT_TYPE), "text/css; charset=utf-8", "{codings}");
                assert_eq!(answered.header(VARY), "accept-encoding", "{codings}");
                assert_eq!(answered.header(CONTENT_LENGTH), answered.bytes.len().to_string(), "{codings}");
                let sent = match expected {
                    "br" => "BR sibling",
                    "zstd" => "ZST sibling",
                    "gzip" => "GZ sibling",
                    _ => &text(2000, 1),
                };
                assert_eq!(answered.body, sent, "{codings}");
            }
        }
        let bare = get(&files, "/a.css").await;
        assert_eq!((bare.header(CONTENT_ENCODING), bare.header(VARY)), ("", "accept-encoding"));
    }
}

#[tokio::test]
async fn each_coding_has_conditions_and_parts_of_its_own() {
    let site = site();
    // A strong tag from disk is one of a file that has not just been changed.
    for files in [site.files(), site.never_kept()] {
        let mut tags = Vec::new();
        for (coding, contents) in [("", &*text(2000, 1)), ("br", "BR sibling"), ("gzip", "GZ sibling")] {
            let coded = ("accept-encoding", coding);
            let whole = loop {
                let whole = send(&files, "GET", "/a.css", &[coded]).await;
                if whole.header(ETAG).starts_with('"') {
                    break whole;
                }
                tokio::task::yield_now().await;
            };
            let tag = whole.header(ETAG).to_owned();
            let head = send(&files, "HEAD", "/a.css", &[coded]).await;
            assert_eq!((head.status, &head.headers, &*head.body), (200, &whole.headers, ""));

            let same = send(&files, "GET", "/a.css", &[coded, ("if-none-match", &tag)]).await;
            assert_eq!((same.status, same.header(ETAG), same.header(VARY)), (304, &*tag, "accept-encoding"));
            assert!(!same.headers.contains_key(CONTENT_ENCODING));

            let part =
                send(&files, "GET", "/a.css", &[coded, ("range", "bytes=1-4"), ("if-range", &tag)]).await;
            assert_eq!((part.status, &*part.body), (206, &contents[1..5]));
            assert_eq!(part.header(CONTENT_RANGE), format!("bytes 1-4/{}", contents.len()));
            assert_eq!((part.header(CONTENT_ENCODING), part.header(VARY)), (coding, "accept-encoding"));
            assert_eq!((part.header(ETAG), part.header(CONTENT_TYPE)), (&*tag, "text/css; charset=utf-8"));
            tags.push(tag);
        }
        let [plain, brotli, gzip] = &*tags else { panic!("three") };
        assert!(plain != brotli && brotli != gzip && plain != gzip, "{tags:?}");
        // A tag of one is none of another: no part of this is put behind a part of that.
        for (coding, other) in [("", brotli), ("br", plain), ("br", gzip), ("gzip", brotli)] {
            let coded = ("accept-encoding", coding);
            let part =
                send(&files, "GET", "/a.css", &[coded, ("range", "bytes=1-4"), ("if-range", other)]).await;
            assert_eq!(part.status, 200, "{coding}");
            let same = send(&files, "GET", "/a.css", &[coded, ("if-none-match", other)]).await;
            assert_eq!(same.status, 200, "{coding}");
            let failed = send(&files, "GET", "/a.css", &[coded, ("if-match", other)]).await;
            assert_eq!((failed.status, failed.header(VARY)), (412, "accept-encoding"), "{coding}");
        }
        let behind =
            send(&files, "GET", "/a.css", &[("accept-encoding", "br"), ("range", "bytes=99-")]).await;
        assert_eq!((behind.status, behind.header(CONTENT_RANGE)), (416, "bytes */10"));
    }
}

#[tokio::test]
async fn what_is_not_of_the_original_is_not_sent() {
    let out = |site: Site| {
        let secret = site.outside("secret.txt");
        site.link(secret, "a.css.br")
    };
    let pipe = |site: Site| {
        mkfifoat(CWD, site.path("a.css.br"), Mode::from_raw_mode(0o666)).unwrap();
        site
    };
    let original = || Site::new().aged("a.css", text(400, 1), 100);
    for (case, site) in [
        ("older", original().aged("a.css.br", "BR", 101)),
        ("empty", original().aged("a.css.br", "", 100)),
        ("as long", original().aged("a.css.br", text(400, 2), 100)),
        ("longer", original().aged("a.css.br", text(401, 2), 100)),
        ("a link that leads out", out(original())),
        ("a link to nothing", original().link("missing", "a.css.br")),
        ("a folder", original().file("a.css.br/x", "")),
        ("a pipe", pipe(original())),
    ] {
        for (resolver, files) in site.both() {
            let answered = get_in(&files, "/a.css", "br").await;
            assert_eq!(answered.status, 200, "{case}");
            assert_eq!(answered.header(CONTENT_ENCODING), "", "{case} by {resolver:?}");
            assert_eq!(answered.body, text(400, 1), "{case} by {resolver:?}");
        }
    }
    // The next best is sent.
    let site = original().aged("a.css.br", "BR", 101).aged("a.css.gz", "GZ", 100);
    assert_eq!(get_in(&site.files(), "/a.css", "br, gzip").await.body, "GZ");
    // A link that stays inside is as good as a file.
    let site = original().aged("coded/a", "BR", 100).link("coded/a", "a.css.br");
    assert_eq!(get_in(&site.files(), "/a.css", "br").await.body, "BR");
}

#[tokio::test]
async fn a_sibling_alone_is_a_file_of_its_own() {
    let site =
        Site::new().aged("b.css.br", "BR", 100).aged("c.tar.gz", "GZ", 100).aged("c.tar.gz.br", "X", 100);
    let files = site.files();
    assert_eq!(get_in(&files, "/b.css", "br").await.status, 404);
    for codings in ["", "br", "gzip"] {
        let answered = get_in(&files, "/b.css.br", codings).await;
        assert_eq!((answered.status, &*answered.body, answered.header(CONTENT_ENCODING)), (200, "BR", ""));
        let answered = get_in(&files, "/c.tar.gz", codings).await;
        assert_eq!((&*answered.body, answered.header(CONTENT_TYPE)), ("GZ", "application/gzip"));
        assert_eq!((answered.header(CONTENT_ENCODING), answered.header(VARY)), ("", ""));
    }
}

#[tokio::test]
async fn what_is_compressed_by_itself_has_no_siblings() {
    let mut site = Site::new();
    let names = ["a.png", "a.jpg", "a.woff2", "a.zip", "a.gz", "a.mp4", "a.pdf", "a.docx"];
    for name in names {
        site = site.aged(name, text(2000, 1), 100).aged(&format!("{name}.br"), "BR", 100);
    }
    let files = site.files();
    for name in names {
        let answered = get_in(&files, &format!("/{name}"), "br").await;
        assert_eq!((answered.header(CONTENT_ENCODING), answered.header(VARY)), ("", ""), "{name}");
        assert_eq!(answered.body, text(2000, 1), "{name}");
    }
    // Of what nothing is known, somebody may know more.
    let site = Site::new().aged("a.bin", text(2000, 1), 100).aged("a.bin.br", "BR", 100);
    assert_eq!(get_in(&site.files(), "/a.bin", "br").await.body, "BR");
}

#[tokio::test]
async fn a_long_name_and_a_hidden_one_have_none() {
    let long = format!("{}.css", "x".repeat(251));
    let site = Site::new().aged(&long, text(400, 1), 100).aged(".env.css", "SECRET", 100).aged(
        ".env.css.br",
        "S",
        50,
    );
    for (resolver, files) in site.both() {
        let answered = get_in(&files, &format!("/{long}"), "br, zstd, gzip").await;
        assert_eq!((answered.status, &*answered.body), (200, &*text(400, 1)), "{resolver:?}");
        for uri in ["/.env.css", "/.env.css.br"] {
            assert_eq!(get_in(&files, uri, "br").await.status, 404, "{uri} by {resolver:?}");
        }
    }
}

#[tokio::test]
async fn a_new_original_is_served_before_its_old_sibling() {
    let site = site();
    for files in [site.files(), site.never_kept(), site.said(Files::uncompressed)] {
        site.replace("a.css", text(2000, 1));
        site.age("a.css", 100);
        // Not within the tick in which the original is about to be replaced.
        site.age("a.css.br", 100);
        assert_eq!(get_in(&files, "/a.css", "br").await.body, "BR sibling");
        site.replace("a.css", text(2000, 2));
        let answered = get_in(&files, "/a.css", "br").await;
        assert!(answered.decoded() == text(2000, 2).as_bytes(), "{answered:?}");
        // And is compressed again.
        site.replace("a.css.br", "BR again");
        assert_eq!(get_in(&files, "/a.css", "br").await.body, "BR again");
        site.replace("a.css.br", "BR sibling");
        assert_eq!(get_in(&files, "/a.css", "br").await.body, "BR sibling");
        fs::remove_file(site.path("a.css.br")).unwrap();
        assert!(get_in(&files, "/a.css", "br").await.decoded() == text(2000, 2).as_bytes());
        site.replace("a.css.br", "BR sibling");
    }
}

#[tokio::test]
async fn a_sibling_lies_beside_its_original_and_not_in_another_folder() {
    // What is under it was compressed later, from what is under it.
    let over = Site::new().aged("a.css", text(2000, 1), 100).aged("b.css.br", "BR over", 10);
    let under = Site::new().aged("a.css", text(2000, 2), 90).aged("a.css.br", "BR under", 80).aged(
        "b.css",
        text(2000, 3),
        100,
    );
    let folders = [over.site.path().to_path_buf(), under.site.path().to_path_buf()];
    for said in [Files::folder("site"), Files::folder("site").uncompressed()] {
        let files = Served::open(said, |_| folders.to_vec()).unwrap();
        assert!(get_in(&files, "/a.css", "br").await.decoded() == text(2000, 1).as_bytes());
        // What is left over of a file that lay here is none of what has come out from under it.
        assert!(get_in(&files, "/b.css", "br").await.decoded() == text(2000, 3).as_bytes());
    }
}

#[tokio::test]
async fn a_coding_made_here_is_for_whom_no_sibling_suits() {
    let site = Site::new().aged("a.css", text(2000, 1), 100).aged("a.css.gz", "GZ sibling", 100);
    let files = site.files();
    for (codings, expected) in [
        ("gzip", "gzip"),
        // Wanted alike: what is there is there.
        ("gzip, br, zstd", "gzip"),
        ("br", "br"),
        ("gzip;q=0.5, br", "br"),
        ("gzip, br;q=0.5", "gzip"),
        ("zstd, br;q=0.1", "zstd"),
    ] {
        let answered = get_in(&files, "/a.css", codings).await;
        assert_eq!(answered.header(CONTENT_ENCODING), expected, "{codings}");
        if expected == "gzip" {
            assert_eq!(answered.body, "GZ sibling", "{codings}");
        } else {
            assert!(answered.decoded() == text(2000, 1).as_bytes(), "{codings}");
        }
    }
}

/// The same bytes in a coding and without mean something else.
#[tokio::test]
async fn each_coding_has_a_tag_of_its_own_whatever_its_bytes_are() {
    let bytes = text(2_000, 1);
    let site =
        Site::new().aged("a.css", &bytes, 9).aged("b.css", text(9_000, 2), 9).aged("b.css.gz", &bytes, 5);
    for files in [site.files(), site.never_kept()] {
        let plain = get(&files, "/a.css").await;
        let coded = get_in(&files, "/b.css", "gzip").await;
        assert_eq!((coded.header(CONTENT_ENCODING), coded.bytes.as_ref()), ("gzip", bytes.as_bytes()));
        assert_ne!(plain.header(ETAG), coded.header(ETAG));
        let headers = [("accept-encoding", "gzip"), ("if-none-match", plain.header(ETAG))];
        assert_eq!(send(&files, "GET", "/b.css", &headers).await.status, 200);
    }
}
