//! What is compressed on the fly: texts, the same each time, once.

use super::*;

const CODINGS: [(Coding, &str); 3] = [(Coding::Brotli, "br"), (Coding::Zstd, "zstd"), (Coding::Gzip, "gzip")];

#[tokio::test]
async fn texts_are_compressed_and_mean_the_same() {
    let lengths = [512, 513, 4096, 100_000];
    let mut site = Site::new().aged("empty.txt", "", 9).aged("short.txt", text(511, 1), 9);
    for len in lengths {
        site = site.aged(&format!("{len}.txt"), text(len, 1), 9);
    }
    let site = site.aged("above.txt", text(100_001, 1), 9);
    let files = site.said(|files| files.memory(16 * 100_000));
    for (_, coding) in CODINGS {
        for len in lengths {
            let answered = get_in(&files, &format!("/{len}.txt"), coding).await;
            assert_eq!((answered.status, answered.header(CONTENT_ENCODING)), (200, coding), "{len}");
            assert_eq!(answered.header(CONTENT_TYPE), "text/plain; charset=utf-8");
            assert_eq!(answered.header(VARY), "accept-encoding");
            assert!(answered.header(ETAG).starts_with('"'));
            assert!(answered.bytes.len() < len, "{len} in {coding}");
            assert!(answered.decoded() == text(len, 1).as_bytes(), "{len} in {coding}");
        }
        for (name, len) in [("empty", 0), ("short", 511), ("above", 100_001)] {
            let answered = get_in(&files, &format!("/{name}.txt"), coding).await;
            assert_eq!((answered.header(CONTENT_ENCODING), answered.bytes.len()), ("", len), "{name}");
            assert_eq!(answered.header(VARY), "accept-encoding", "{name}");
        }
    }
}

#[tokio::test]
async fn only_what_gains_by_it_is_compressed() {
    let kinds = [
        ("html", true),
        ("css", true),
        ("js", true),
        ("json", true),
        ("svg", true),
        ("wasm", true),
        ("xml", true),
        ("png", false),
        ("jpg", false),
        ("woff2", false),
        ("zip", false),
        ("gz", false),
        ("pdf", false),
        ("bin", false),
        ("unheard-of", false),
    ];
    let mut site = Site::new().aged("none", text(4000, 1), 9).aged("noise.txt", noise(4000, 1), 9);
    for (extension, _) in kinds {
        site = site.aged(&format!("a.{extension}"), text(4000, 1), 9);
    }
    let files = site.files();
    for (_, coding) in CODINGS {
        for (extension, expected) in kinds {
            let answered = get_in(&files, &format!("/a.{extension}"), coding).await;
            let expected = if expected { coding } else { "" };
            assert_eq!(answered.header(CONTENT_ENCODING), expected, "{extension}");
            assert!(answered.decoded() == text(4000, 1).as_bytes(), "{extension}");
        }
        assert_eq!(get_in(&files, "/none", coding).await.header(CONTENT_ENCODING), "");
        for files in [&site.never_kept(), &site.said(Files::uncompressed)] {
            let answered = get_in(files, "/a.css", coding).await;
            assert_eq!((answered.header(CONTENT_ENCODING), answered.header(VARY)), ("", "accept-encoding"));
        }
        // Never larger, also when that is known already.
        for _ in 0..2 {
            let answered = get_in(&files, "/noise.txt", coding).await;
            assert_eq!((answered.header(CONTENT_ENCODING), answered.bytes.len()), ("", 4000));
            assert_eq!(answered.header(ETAG), get(&files, "/noise.txt").await.header(ETAG));
        }
    }
    // A sixteenth of what may be held, and no more.
    let site = Site::new().aged("at.txt", text(4096, 1), 9).aged("above.txt", text(4097, 1), 9);
    let files = site.said(|files| files.memory(16 * 4096));
    assert_eq!(get_in(&files, "/at.txt", "br").await.header(CONTENT_ENCODING), "br");
    assert_eq!(get_in(&files, "/above.txt", "br").await.header(CONTENT_ENCODING), "");
}

#[tokio::test]
async fn what_is_made_is_the_same_each_time() {
    let site = Site::new().aged("a.css", text(9000, 1), 9).aged("b.css", text(9000, 1), 5);
    let (one, other) = (site.files(), site.files());
    let mut tags = vec![get(&one, "/a.css").await.header(ETAG).to_owned()];
    for (coding, name) in CODINGS {
        let first = get_in(&one, "/a.css", name).await;
        let head = send(&one, "HEAD", "/a.css", &[("accept-encoding", name)]).await;
        assert_eq!((&head.headers, &*head.body), (&first.headers, ""));
        keep(&one, "a.css", Some(coding)).await;
        let kept = get_in(&one, "/a.css", name).await;
        assert_eq!((&kept.headers, &kept.bytes), (&first.headers, &first.bytes));
        // Of another process, of another date.
        for (files, uri) in [(&other, "/a.css"), (&one, "/b.css"), (&other, "/b.css")] {
            assert_eq!(get_in(files, uri, name).await.header(ETAG), first.header(ETAG), "{uri}");
        }
        let tag = first.header(ETAG).to_owned();
        let conditions = [("accept-encoding", name), ("if-none-match", &*tag)];
        let same = send(&one, "GET", "/a.css", &conditions).await;
        assert_eq!((same.status, same.header(VARY), same.header(ETAG)), (304, "accept-encoding", &*tag));
        let part = [("accept-encoding", name), ("range", "bytes=3-9"), ("if-range", &*tag)];
        let part = send(&other, "GET", "/a.css", &part).await;
        assert_eq!((part.status, part.header(CONTENT_ENCODING)), (206, name));
        assert_eq!(part.bytes, first.bytes.slice(3..10));
        assert_eq!(part.header(CONTENT_RANGE), format!("bytes 3-9/{}", first.bytes.len()));
        tags.push(tag);
    }
    let len = tags.len();
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), len, "{tags:?}");
}

#[tokio::test]
async fn it_is_made_once_and_kept() {
    let site = Site::new().aged("a.css", text(9000, 1), 9);
    let files = site.files();
    for (coding, name) in CODINGS {
        keep(&files, "a.css", Some(coding)).await;
        let first = get_in(&files, "/a.css", name).await;
        // The same bytes, and not the like: nothing was made again. Nor does it take a trip to the pool.
        let request = Request::get("/a.css").header("accept-encoding", name).body(()).unwrap().into_parts().0;
        let again = files
            .site
            .answer(Question::of(&request), Speed::Cached)
            .unwrap()
            .into_body()
            .into_whole()
            .unwrap();
        let (one, other) = (first.bytes.as_ptr(), again.as_ptr());
        assert_eq!(first.bytes, again);
        assert_eq!(one, other);
    }
}

#[test]
fn nobody_waits_for_what_others_have_made() {
    let site = Site::new().aged("a.css", text(9000, 1), 9);
    let files = site.files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let made = files.site.shelf.compressing.lock().unwrap();
    let answered = runtime.block_on(get_in(&files, "/a.css", "br"));
    assert_eq!((answered.header(CONTENT_ENCODING), answered.header(VARY)), ("", "accept-encoding"));
    assert_eq!(answered.body, text(9000, 1));
    drop(made);
    let answered = runtime.block_on(get_in(&files, "/a.css", "br"));
    assert_eq!(answered.header(CONTENT_ENCODING), "br");
}

#[tokio::test]
async fn new_contents_are_compressed_anew() {
    let site = Site::new().aged("a.css", text(9000, 1), 9);
    let files = site.files();
    for (coding, name) in CODINGS {
        keep(&files, "a.css", Some(coding)).await;
        let mut tags = Vec::new();
        for version in 2..12 {
            // By another file, and in place.
            if version % 2 == 0 {
                site.replace("a.css", text(9000, version));
            } else {
                fs::write(site.path("a.css"), text(9000, version)).unwrap();
            }
            let answered = get_in(&files, "/a.css", name).await;
            assert_eq!(answered.header(CONTENT_ENCODING), name);
            assert!(answered.decoded() == text(9000, version).as_bytes(), "{version} in {name}");
            tags.push(answered.header(ETAG).to_owned());
        }
        tags.dedup();
        assert_eq!(tags.len(), 10);
    }
}
