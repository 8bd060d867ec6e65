//! Which file stands for what is asked for, or for what is not there.

use super::*;

const PAGE: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
const JSON: (&str, &str) = ("accept", "application/json");

#[tokio::test]
async fn the_first_name_that_is_there_stands_for_its_folder() {
    let site = Site::new()
        .file("index.html", "html")
        .file("both/index.html", "html")
        .file("both/index.txt", "txt")
        .file("txt/index.txt", "txt")
        .file("odd/index.txt/x", "a folder")
        .file("odd/index.html", "html");
    let check = async |index: &[&str], uri: &str, status: u16, body: &str| {
        let files = site.said(|files| files.index(index.iter().copied()));
        let answered = get(&files, uri).await;
        assert_eq!(answered.status, status, "{index:?} {uri}");
        if status == 200 {
            assert_eq!(answered.body, body, "{index:?} {uri}");
        }
    };
    let both = ["index.txt", "index.html"];
    check(&both, "/", 200, "html").await;
    check(&both, "/both/", 200, "txt").await;
    check(&both, "/txt/", 200, "txt").await;
    check(&both, "/odd/", 200, "html").await;
    check(&["index.txt"], "/", 404, "").await;
    check(&["index.txt"], "/odd/", 404, "").await;
    check(&[], "/", 404, "").await;
    check(&[], "/both/", 404, "").await;
    check(&[], "/both/index.html", 200, "html").await;
    check(&[], "/both", 307, "").await;
}

#[tokio::test]
async fn a_page_may_be_asked_for_without_its_extension() {
    let site = Site::new()
        .file("about.html", "about")
        .file("both", "file")
        .file("both.html", "page")
        .file("docs.html", "page")
        .file("docs/index.html", "folder")
        .file("bare/x", "")
        .file("folder.html/x", "")
        .file("a.b.html", "dots")
        .file(".well-known.html", "SECRET")
        .file(".well-known/x", "x");
    let with = site.said(Files::html_extension);
    let without = site.files();
    let check = async |files: &Served, uri: &str, status: u16, body: &str| {
        let answered = get(files, uri).await;
        assert_eq!(answered.status, status, "{uri}");
        assert!(!answered.body.contains("SECRET"), "{uri}");
        if status == 200 {
            assert_eq!(answered.body, body, "{uri}");
        }
    };
    check(&with, "/about", 200, "about").await;
    check(&with, "/about.html", 200, "about").await;
    check(&with, "/about.html.html", 404, "").await;
    check(&with, "/about/", 404, "").await;
    check(&with, "/both", 200, "file").await;
    check(&with, "/docs", 200, "page").await;
    check(&with, "/docs/", 200, "folder").await;
    check(&with, "/bare", 307, "").await;
    check(&with, "/folder", 404, "").await;
    check(&with, "/a.b", 200, "dots").await;
    check(&with, "/.well-known", 307, "").await;
    check(&with, &format!("/{}", "x".repeat(255)), 404, "").await;
    check(&without, "/about", 404, "").await;
    check(&without, "/docs", 307, "").await;
    let about = get(&with, "/about").await;
    assert_eq!(about.header(CONTENT_TYPE), "text/html; charset=utf-8");
    let head = send(&with, "HEAD", "/about", &[]).await;
    assert_eq!((head.status, head.headers), (200, about.headers));
}

#[tokio::test]
async fn pages_that_are_not_there_fall_back() {
    let site = Site::new()
        .aged("app.html", text(2000, 1), 9)
        .file("there.txt", "there")
        .file("bare/x", "")
        .file("dir/index.html", "index");
    for fallback in ["app.html", "/app.html"] {
        let files = site.said(|files| files.fallback(fallback));
        let check = async |method: &str, uri: &str, accept: Option<(&str, &str)>, status: u16| {
            let answered = send(&files, method, uri, accept.as_slice()).await;
            assert_eq!(answered.status, status, "{method} {uri} {accept:?}");
            if status == 200 {
                assert_eq!(answered.header(VARY), "accept, accept-encoding", "{uri}");
                assert_eq!(answered.header(CONTENT_TYPE), "text/html; charset=utf-8", "{uri}");
                assert_eq!(answered.header(CACHE_CONTROL), "no-cache", "{uri}");
                assert_eq!(answered.header(CONTENT_LENGTH), "2000", "{uri}");
                let expected = if method == "HEAD" { String::new() } else { text(2000, 1) };
                assert_eq!(answered.body, expected, "{uri}");
            }
        };
        for accept in [Some(PAGE), None, Some(("accept", "*/*")), Some(("accept", "text/*"))] {
            for method in ["GET", "HEAD"] {
                check(method, "/users", accept, 200).await;
                check(method, "/users/7/edit?x=a.b", accept, 200).await;
                check(method, "/v1.2/users", accept, 200).await;
                check(method, "/users/", accept, 200).await;
                check(method, "/", accept, 200).await;
                check(method, "/bare/", accept, 200).await;
                check(method, "/there.txt/x", accept, 200).await;
                // Not pages.
                check(method, "/missing.js", accept, 404).await;
                check(method, "/assets/app.3f9a0c1b.css", accept, 404).await;
                check(method, "/.env", accept, 404).await;
                check(method, "/a/../b", accept, 404).await;
                check(method, "/.git/config", accept, 404).await;
                check(method, "/bare", accept, 307).await;
            }
        }
        for accept in [JSON, ("accept", "image/*"), ("accept", "text/html;q=0"), ("accept", "nonsense")] {
            check("GET", "/users", Some(accept), 404).await;
        }
        for method in ["POST", "PUT", "DELETE"] {
            check(method, "/users", Some(PAGE), 405).await;
        }
        assert_eq!(get(&files, "/there.txt").await.header(VARY), "accept-encoding");
        assert_eq!(get(&files, "/dir/").await.body, "index");

        // All that is asked of a file may be asked of it.
        let coded = send(&files, "GET", "/users", &[PAGE, ("accept-encoding", "br")]).await;
        assert_eq!((coded.header(CONTENT_ENCODING), coded.header(VARY)), ("br", "accept, accept-encoding"));
        assert!(coded.decoded() == text(2000, 1).as_bytes());
        let same = send(
            &files,
            "GET",
            "/users",
            &[("accept-encoding", "br"), ("if-none-match", coded.header(ETAG))],
        )
        .await;
        assert_eq!((same.status, same.header(VARY)), (304, "accept, accept-encoding"));
        let part = send(&files, "GET", "/users", &[("range", "bytes=1-3")]).await;
        assert_eq!((part.status, &*part.body), (206, &text(2000, 1)[1..4]));
    }
}

#[tokio::test]
async fn what_is_not_there_has_a_page() {
    let site = Site::new()
        .aged("404.html", text(2000, 1), 9)
        .aged("404.html.gz", "GZ sibling", 9)
        .file("bare/x", "");
    let files = site.said(|files| files.not_found("404.html"));
    for uri in ["/missing", "/missing.js", "/a/", "/bare/", "/.env", "/a/../b", "/", "/%ff", "/404.html/"] {
        for headers in [
            &[][..],
            &[JSON],
            &[("range", "bytes=0-1")],
            &[("if-none-match", "*")],
            &[("if-match", "\"x\"")],
            &[("if-modified-since", "Fri, 31 Dec 9999 23:59:59 GMT")],
            &[("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT")],
        ] {
            let answered = send(&files, "GET", uri, headers).await;
            assert_eq!((answered.status, &*answered.body), (404, &*text(2000, 1)), "{uri} {headers:?}");
            assert_eq!(answered.header(CONTENT_TYPE), "text/html; charset=utf-8", "{uri}");
            assert_eq!(answered.header(CONTENT_LENGTH), "2000", "{uri}");
            assert_eq!(answered.header(CACHE_CONTROL), "no-cache", "{uri}");
            assert_eq!(answered.header(VARY), "accept-encoding", "{uri}");
            assert!(!answered.headers.contains_key(ACCEPT_RANGES), "{uri}");
            assert!(!answered.headers.contains_key(CONTENT_RANGE), "{uri}");
            let head = send(&files, "HEAD", uri, headers).await;
            assert_eq!((head.status, head.headers, &*head.body), (404, answered.headers, ""), "{uri}");
        }
        let coded = get_in(&files, uri, "gzip").await;
        assert_eq!((coded.status, &*coded.body), (404, "GZ sibling"), "{uri}");
        assert_eq!((coded.header(CONTENT_ENCODING), coded.header(CONTENT_LENGTH)), ("gzip", "10"), "{uri}");
        let coded = get_in(&files, uri, "zstd").await;
        assert_eq!((coded.status, coded.header(CONTENT_ENCODING)), (404, "zstd"), "{uri}");
        assert!(coded.decoded() == text(2000, 1).as_bytes(), "{uri}");
    }
    // By its own name it is a page like others.
    let page = get(&files, "/404.html").await;
    assert_eq!((page.status, page.header(ACCEPT_RANGES)), (200, "bytes"));
    assert_eq!(send(&files, "GET", "/404.html", &[("if-none-match", "*")]).await.status, 304);
    assert_eq!(send(&files, "POST", "/missing", &[]).await.status, 405);
    assert_eq!(send(&files, "OPTIONS", "/missing", &[]).await.status, 204);
}

#[tokio::test]
async fn a_fallback_comes_before_a_page_for_nothing() {
    let site = Site::new().file("app.html", "app").file("404.html", "none").file("dir/x", "");
    let both = site.said(|files| files.fallback("app.html").not_found("404.html"));
    let check = async |files: &Served, uri: &str, accept: (&str, &str), status: u16, body: &str| {
        let answered = send(files, "GET", uri, &[accept]).await;
        assert_eq!((answered.status, &*answered.body), (status, body), "{uri} {accept:?}");
    };
    check(&both, "/users", PAGE, 200, "app").await;
    check(&both, "/users", JSON, 404, "none").await;
    check(&both, "/missing.js", PAGE, 404, "none").await;
    check(&both, "/.env", PAGE, 404, "none").await;
    // Said and not there, or no file.
    let neither = "not found\n";
    for (fallback, not_found) in
        [("gone.html", "gone.html"), ("dir", "dir"), ("dir/", "dir/"), ("app.html/x", "x")]
    {
        let files = site.said(|files| files.fallback(fallback).not_found(not_found));
        check(&files, "/users", PAGE, 404, neither).await;
        check(&files, "/missing.js", PAGE, 404, neither).await;
    }
    let one = site.said(|files| files.fallback("gone.html").not_found("404.html"));
    check(&one, "/users", PAGE, 404, "none").await;
    // They come and go with their files.
    let files = site.said(|files| files.fallback("late.html"));
    check(&files, "/users", PAGE, 404, neither).await;
    fs::write(site.path("late.html"), "late").unwrap();
    check(&files, "/users", PAGE, 200, "late").await;
    fs::remove_file(site.path("late.html")).unwrap();
    check(&files, "/users", PAGE, 404, neither).await;
}

#[tokio::test]
async fn pages_never_lead_out() {
    let site = Site::new();
    let secret = site.outside("secret.txt");
    let site = site.link(secret, "out.html").file(".hidden.html", "SECRET");
    for page in ["out.html", "../secret.txt", ".hidden.html", "/etc/passwd"] {
        let files = site.said(|files| files.fallback(page).not_found(page));
        for uri in ["/users", "/missing.js"] {
            let answered = send(&files, "GET", uri, &[PAGE]).await;
            assert_eq!((answered.status, &*answered.body), (404, "not found\n"), "{page}");
        }
    }
}
