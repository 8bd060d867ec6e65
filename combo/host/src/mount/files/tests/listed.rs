//! Folders as pages and as JSON: what is served of them and nothing else, under links that lead there.

use std::collections::BTreeSet;

use super::*;

const HTML: (&str, &str) = ("accept", "text/html");
const JSON: (&str, &str) = ("accept", "application/json");

/// The names that a list has, of folders with their slash.
async fn listed(files: &Served, uri: &str) -> Vec<String> {
    let answered = send(files, "GET", uri, &[JSON]).await;
    assert_eq!((answered.status, answered.header(CONTENT_TYPE)), (200, "application/json"), "{uri}");
    let list: serde_json::Value = serde_json::from_slice(&answered.bytes).unwrap();
    let entries = list.as_array().unwrap().iter();
    entries
        .map(|entry| match entry["type"].as_str().unwrap() {
            "directory" => format!("{}/", entry["name"].as_str().unwrap()),
            _ => entry["name"].as_str().unwrap().to_owned(),
        })
        .collect()
}

/// What the links of a page say, and the text in them.
fn links(page: &str) -> Vec<(String, String)> {
    let plain = |text: &str| {
        let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
        text.replace("&#39;", "'").replace("&amp;", "&")
    };
    let links = page.split("<a href=\"").skip(1).map(|rest| {
        let (href, rest) = rest.split_once("\">").unwrap();
        let label = rest.split_once("</a>").unwrap().0;
        (plain(href), plain(&label.replace("<bdi>", "").replace("</bdi>", "")))
    });
    links.filter(|(href, _)| href != "../").collect()
}

#[tokio::test]
async fn folders_are_listed_where_that_was_said() {
    let site = Site::new().file("dir/a.txt", "a").file("indexed/index.html", "index").file("x.txt", "x");
    assert_eq!(get(&site.files(), "/dir/").await.status, 404);
    assert_eq!(get(&site.files(), "/").await.status, 404);
    let files = site.said(Files::listing);
    assert_eq!(listed(&files, "/").await, ["dir/", "indexed/", "x.txt"]);
    assert_eq!(listed(&files, "/dir/").await, ["a.txt"]);
    assert_eq!(listed(&files, "//dir//").await, ["a.txt"]);
    let index = send(&files, "GET", "/indexed/", &[JSON]).await;
    assert_eq!((index.status, &*index.body), (200, "index"));
    assert_eq!(listed(&site.said(|files| files.listing().index([""; 0])), "/indexed/").await, ["index.html"]);
    for (uri, status) in
        [("/dir", 307), ("/x.txt/", 404), ("/missing/", 404), ("/.git/", 404), ("/dir/../", 404)]
    {
        assert_eq!(get(&files, uri).await.status, status, "{uri}");
    }
    for (method, status) in [("POST", 405), ("OPTIONS", 204)] {
        assert_eq!(send(&files, method, "/dir/", &[]).await.status, status);
    }
    // A folder that is there is listed before anything stands for it.
    let files = site.said(|files| files.listing().fallback("x.txt").not_found("x.txt"));
    assert_eq!(listed(&files, "/dir/").await, ["a.txt"]);
    assert_eq!(get(&files, "/missing/").await.body, "x");
}

#[tokio::test]
async fn a_list_is_what_the_client_would_rather_have() {
    let site = Site::new().file("a.txt", "a");
    let files = site.said(Files::listing);
    for (accept, media) in [
        (None, "text/html; charset=utf-8"),
        (Some("text/html,application/xhtml+xml,*/*;q=0.8"), "text/html; charset=utf-8"),
        (Some("*/*"), "text/html; charset=utf-8"),
        (Some("application/json"), "application/json"),
        (Some("application/json, text/html;q=0.9"), "application/json"),
        (Some("application/json;q=0.5, text/html"), "text/html; charset=utf-8"),
        (Some("image/png"), "text/html; charset=utf-8"),
    ] {
        let headers: Vec<_> = accept.iter().map(|accept| ("accept", *accept)).collect();
        let answered = send(&files, "GET", "/", &headers).await;
        assert_eq!((answered.status, answered.header(CONTENT_TYPE)), (200, media), "{accept:?}");
        assert_eq!(answered.header(VARY), "accept", "{accept:?}");
        assert_eq!(answered.header(CACHE_CONTROL), "no-cache", "{accept:?}");
        assert_eq!(
            answered.header(CONTENT_SECURITY_POLICY),
            "default-src 'none'; style-src 'unsafe-inline'",
            "{accept:?}"
        );
        assert_eq!(answered.header(X_CONTENT_TYPE_OPTIONS), "nosniff");
        assert_eq!(answered.header(CONTENT_LENGTH), answered.bytes.len().to_string());
        let head = send(&files, "HEAD", "/", &headers).await;
        assert_eq!((head.status, &head.headers, &*head.body), (200, &answered.headers, ""));
    }
}

#[tokio::test]
async fn a_list_has_conditions() {
    let site = Site::new().aged("a.txt", "a", 9);
    let files = site.said(Files::listing);
    let page = send(&files, "GET", "/", &[HTML]).await;
    let json = send(&files, "GET", "/", &[JSON]).await;
    let (tag, other) = (page.header(ETAG).to_owned(), json.header(ETAG).to_owned());
    assert!(tag.starts_with('"') && tag != other && !page.headers.contains_key(LAST_MODIFIED));
    let same = send(&files, "GET", "/", &[HTML, ("if-none-match", &tag)]).await;
    assert_eq!((same.status, same.header(VARY), same.header(ETAG)), (304, "accept", &*tag));
    assert_eq!(send(&files, "GET", "/", &[JSON, ("if-none-match", &tag)]).await.status, 200);
    let part = send(&files, "GET", "/", &[HTML, ("range", "bytes=0-14"), ("if-range", &tag)]).await;
    assert_eq!((part.status, &*part.body), (206, "<!DOCTYPE html>"));
    let date = ("if-modified-since", "Fri, 31 Dec 9999 23:59:59 GMT");
    assert_eq!(send(&files, "GET", "/", &[HTML, date]).await.status, 200);
    // It changes with what is in the folder.
    let site = site.aged("b.txt", "b", 9);
    assert_eq!(send(&files, "GET", "/", &[HTML, ("if-none-match", &tag)]).await.status, 200);
    fs::remove_file(site.path("b.txt")).unwrap();
    assert_eq!(send(&files, "GET", "/", &[HTML, ("if-none-match", &tag)]).await.status, 304);
}

#[tokio::test]
async fn what_is_not_served_is_not_listed() {
    let site = Site::new()
        .file("a.txt", "a")
        .file("dir/x", "x")
        .file(".env", "SECRET")
        .file(".git/config", "SECRET")
        .file(".well-known/x", "x")
        .file("back\\slash.txt", "SECRET")
        .file("empty/.keep", "");
    let (secret, folder) = (site.outside("secret.txt"), site.outside("folder"));
    let site = site
        .link(secret, "out.txt")
        .link(folder, "out")
        .link("/etc/passwd", "passwd")
        .link("missing", "broken.txt")
        .link("loop", "loop")
        .link("a.txt", "in.txt")
        .link("dir", "door");
    mkfifoat(CWD, site.path("pipe"), Mode::from_raw_mode(0o666)).unwrap();
    let _socket = UnixListener::bind(site.path("socket")).unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"\xff.txt");
    fs::write(site.site.path().join(odd), "SECRET").unwrap();
    for resolver in RESOLVERS {
        let root = Root::open([Layer::Folder(site.site.path().to_path_buf())]).unwrap().resolved_by(resolver);
        let files = Served::of(root, Files::folder("site").listing()).unwrap();
        let expected = [".well-known/", "dir/", "door/", "empty/", "a.txt", "in.txt"];
        assert_eq!(listed(&files, "/").await, expected, "{resolver:?}");
        let page = send(&files, "GET", "/", &[HTML]).await.body;
        let labels: Vec<_> = links(&page).into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, expected, "{resolver:?}");
        assert!(listed(&files, "/empty/").await.is_empty());
        assert_eq!(get(&files, "/out/").await.status, 404);
        for uri in expected {
            assert!([200, 404].contains(&get(&files, &format!("/{uri}")).await.status), "{uri}");
        }
    }
}

#[tokio::test]
async fn each_link_leads_to_its_file() {
    let names = [
        "plain.txt",
        "a b.txt",
        " lead",
        "trail ",
        "<b>bold&amp;</b>.txt",
        "&lt;.txt",
        "\"quoted\".txt",
        "it's.txt",
        "javascript:alert(1)",
        "https:",
        "//x".trim_start_matches('/'),
        "100%.txt",
        "%41.txt",
        "%2e%2e%2f",
        "a?b=c",
        "a#b",
        "a;b=c",
        "a+b",
        "new\nline.txt",
        "tab\there.txt",
        "\u{7f}\u{1}",
        "x..",
        "~",
        "-",
        "C:",
        "é€𝄞.txt",
        "e\u{301}.txt",
        "\u{202e}txt.exe",
        "</a><script>alert(1)</script>".trim_end_matches("/script>"),
        "{{x}}",
        "[x]",
        "`x`",
    ];
    let mut site = Site::new();
    for name in names {
        let name = name.replace('/', "\u{2215}");
        site = site.file(&name, &name).file(&format!("dir/{name}.d/x y.txt"), &name);
    }
    for files in [site.said(Files::listing), site.said(|files| files.listing().memory(0))] {
        for (prefix, folder) in [("", "/"), ("/blog", "/"), ("/a b", "/"), ("", "/dir/"), ("/blog", "/dir/")]
        {
            let said = ("x-forwarded-prefix", prefix);
            let page = send(&files, "GET", folder, &[HTML, said]).await.body;
            assert!(page.contains(&format!("Index of {prefix}{folder}<")), "{prefix} {folder}");
            assert!(!page.contains("<script>") && !page.contains("<b>"), "{page}");
            let links = links(&page);
            let expected = if folder == "/" { names.len() + 1 } else { names.len() };
            assert_eq!(links.len(), expected);
            let mut seen = BTreeSet::new();
            for (href, _) in links {
                // As a browser resolves it (RFC 3986, 5.2): no scheme, no host, no query, below this folder.
                let below = href.strip_prefix("./").unwrap_or_else(|| panic!("{href}"));
                assert!(below.bytes().all(|byte| byte.is_ascii_graphic()), "{href}");
                assert!(!below.contains(['?', '#', '"', ':']), "{href}");
                let uri = format!("{folder}{below}");
                if !below.ends_with('/') {
                    let answered = get(&files, &uri).await;
                    assert_eq!(answered.status, 200, "{uri}");
                    assert!(seen.insert(answered.body), "{uri}");
                } else if below != "dir/" {
                    // And a folder deeper.
                    let deeper = send(&files, "GET", &uri, &[HTML]).await;
                    assert_eq!(deeper.status, 200, "{uri}");
                    let [(href, label)] = &*self::links(&deeper.body) else { panic!("{uri}") };
                    assert_eq!((&**href, &**label), ("./x%20y.txt", "x y.txt"));
                    let answered = get(&files, &format!("{uri}x%20y.txt")).await;
                    assert!(seen.insert(answered.body), "{uri}");
                }
            }
            let all = names.iter().map(|name| name.replace('/', "\u{2215}")).collect::<BTreeSet<_>>();
            assert_eq!(seen, all, "{prefix} {folder}");
        }
        let all = listed(&files, "/").await;
        assert_eq!(all.len(), names.len() + 1);
        assert!(names.iter().all(|name| all.contains(&name.replace('/', "\u{2215}"))));
    }
}

#[tokio::test]
async fn folders_that_lie_over_each_other_are_one_list() {
    static UNDER: [Asset; 3] = [
        Asset { path: "both.txt", contents: b"under", brotli: None, zstd: None, gzip: None },
        Asset { path: "dir/under.txt", contents: b"under", brotli: None, zstd: None, gzip: None },
        Asset { path: "zz/.hidden", contents: b"SECRET", brotli: None, zstd: None, gzip: None },
    ];
    let over = Site::new()
        .file("both.txt", "over!")
        .file("over.txt", "over")
        .file("dir/x.txt", "x")
        .file("kind", "a file")
        .link("/etc/passwd", "closed.txt")
        .link("missing", "broken.txt");
    let middle = Site::new()
        .file("both.txt", "middle")
        .file("middle.txt", "middle")
        .file("dir/y.txt", "y")
        .file("kind/x", "in a folder")
        .file("closed.txt", "middle")
        .file("broken.txt", "middle");
    let layers = || {
        [
            Layer::Folder(over.site.path().to_path_buf()),
            Layer::Folder(middle.site.path().to_path_buf()),
            Layer::Embedded(Embedded::in_binary("under", &UNDER)),
        ]
    };
    for resolver in RESOLVERS {
        let root = Root::open(layers()).unwrap().resolved_by(resolver);
        let files = Served::of(root, Files::folder("site").listing()).unwrap();
        let expected = ["dir/", "zz/", "both.txt", "broken.txt", "kind", "middle.txt", "over.txt"];
        assert_eq!(listed(&files, "/").await, expected, "{resolver:?}");
        assert_eq!(listed(&files, "/dir/").await, ["under.txt", "x.txt", "y.txt"], "{resolver:?}");
        assert!(listed(&files, "/zz/").await.is_empty());
        assert_eq!(get(&files, "/kind/").await.status, 404);
        let json = send(&files, "GET", "/", &[JSON]).await;
        let list: serde_json::Value = serde_json::from_slice(&json.bytes).unwrap();
        let both = list.as_array().unwrap().iter().find(|entry| entry["name"] == "both.txt").unwrap();
        assert_eq!(both["size"], 5);
    }
}
