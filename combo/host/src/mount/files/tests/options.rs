//! What is said of files: how long clients keep them, and what is wrong with what was said.

use super::*;

const YEAR: &str = "max-age=31536000, immutable";

#[tokio::test]
async fn the_first_rule_that_matches_counts() {
    let site = Site::new()
        .file("index.html", "")
        .file("a.txt", "")
        .file("app.3f9a0c1b.js", "")
        .file("assets/a.txt", "")
        .file("assets/app.3f9a0c1b.js", "")
        .file("assets/deep/a.txt", "")
        .file("app.html", "app")
        .file("404.html", "none");
    let files = site.said(|files| {
        files
            .cache_control("assets/*.js", "no-store")
            .cache_control("/assets/**", "max-age=60")
            .cache_control("assets/a.txt", "max-age=1")
            .cache_control("index.html", " private ")
            .fallback("app.html")
            .not_found("404.html")
    });
    let memory = site.said(|files| files.cache_control("**", "max-age=5").memory(0));
    let check = async |files: &Served, uri: &str, expected: &str| {
        for (name, value, status) in [
            ("x", "", 200),
            ("if-none-match", "*", 304),
            ("if-match", "\"x\"", 412),
            ("range", "bytes=99-", 416),
        ] {
            let answered = send(files, "GET", uri, &[(name, value)]).await;
            let is_empty = status == 416 && answered.status == 200;
            assert!(answered.status == status || is_empty, "{uri}: {answered:?}");
            // What is said of a file is not said of a mistake about it.
            let expected = if answered.status < 400 { expected } else { "no-cache" };
            assert_eq!(answered.header(CACHE_CONTROL), expected, "{uri} {status}");
        }
    };
    check(&files, "/", "private").await;
    check(&files, "/index.html", "private").await;
    check(&files, "/a.txt", "no-cache").await;
    check(&files, "/app.3f9a0c1b.js", YEAR).await;
    check(&files, "/assets/a.txt", "max-age=60").await;
    check(&files, "/assets/deep/a.txt", "max-age=60").await;
    check(&files, "/assets/app.3f9a0c1b.js", "no-store").await;
    check(&files, "/%61ssets//a.txt", "max-age=60").await;
    check(&memory, "/a.txt", "max-age=5").await;
    check(&memory, "/app.3f9a0c1b.js", "max-age=5").await;
    // Whatever was asked for, it is this page that is sent.
    assert_eq!(get(&files, "/assets/x").await.header(CACHE_CONTROL), "no-cache");
    let missing = get(&files, "/assets/x.3f9a0c1b.js").await;
    assert_eq!((missing.status, missing.header(CACHE_CONTROL)), (404, "no-cache"));
}

#[tokio::test]
async fn a_coding_is_kept_as_long_as_its_original() {
    let site = Site::new()
        .aged("app.3f9a0c1b.js", text(2000, 1), 9)
        .aged("b.css", text(2000, 1), 9)
        .aged("b.css.br", "BR", 9);
    let files =
        site.said(|files| files.cache_control("*.css", "max-age=60").cache_control("*.br", "no-store"));
    for (uri, expected) in [("/app.3f9a0c1b.js", YEAR), ("/b.css", "max-age=60"), ("/b.css.br", "no-store")] {
        for coding in ["", "br", "zstd"] {
            assert_eq!(get_in(&files, uri, coding).await.header(CACHE_CONTROL), expected, "{uri} {coding}");
        }
    }
}

#[test]
fn all_that_is_wrong_is_said() {
    #[track_caller]
    fn check(said: impl Into<Files>, expected: &[&str]) {
        let said = said.into();
        assert_eq!(said.faults(), expected, "{said:?}");
    }
    let files = || Files::folder("site");
    check(files(), &[]);
    check(Files::folder(""), &["the folder to serve has no name"]);
    check(files().over(""), &["the folder to serve has no name"]);
    check(files().index([""; 0]), &[]);
    check(files().index(["a", "b.html"]), &[]);
    for name in ["", ".", "..", ".hidden", "a/b", "/a", "a\\b", "a\0"] {
        check(
            files().index(["index.html", name]),
            &[&format!("`{name}` cannot stand for its folder: it must be a name that is served")],
        );
    }
    for page in ["a.html", "/a.html", "a/b.html", ".well-known/x"] {
        check(files().fallback(page).not_found(page), &[]);
    }
    for page in ["", "/", "a/", "a//b", "../a", "a/../b", ".env", "./a", "a\\b"] {
        let fault = format!("`{page}` is no page: it must be the path of a file that is served");
        check(files().fallback(page), &[&fault]);
        check(files().not_found(page), &[&fault]);
    }
    check(files().cache_control("a[", "no-cache"), &["the pattern `a[` cannot be read: `[` is not closed"]);
    check(files().cache_control("", "no-cache"), &["the pattern `` matches no file"]);
    check(files().cache_control("*", "a\nb"), &["`a\nb` for `*` cannot be a `Cache-Control`"]);
    // All of it, in the order in which it was said.
    check(
        Files::folder("")
            .index(["a/b"])
            .fallback("")
            .not_found("..")
            .cache_control("a[", "x")
            .cache_control("fine", "x")
            .cache_control("b{", "x"),
        &[
            "the folder to serve has no name",
            "`a/b` cannot stand for its folder: it must be a name that is served",
            "`` is no page: it must be the path of a file that is served",
            "`..` is no page: it must be the path of a file that is served",
            "the pattern `a[` cannot be read: `[` is not closed",
            "the pattern `b{` cannot be read: `{` is not closed",
        ],
    );
}

#[test]
fn what_was_said_is_said_in_the_plan() {
    #[track_caller]
    fn check(said: impl Into<Files>, name: &str, expected: &[&str]) {
        let said = said.into();
        assert_eq!(
            (said.to_string(), said.options()),
            (name.to_owned(), expected.iter().map(|s| (*s).to_owned()).collect())
        );
    }
    const EMBEDDED: Embedded = Embedded::in_binary("static", &[]);
    let files = || Files::folder("site");
    check(files(), "files `site`", &[]);
    check(files().index(["index.html"]).memory(64 << 20), "files `site`", &[]);
    check(
        files().over("a").over(Files::folder("b").over("c")),
        "files `site` over `a` over `b` over `c`",
        &[],
    );
    check(EMBEDDED, "files `static` in the binary", &[]);
    check(files().over(EMBEDDED), "files `site` over `static` in the binary", &[]);
    // What was said of what lies under it is forgotten.
    check(files().over(Files::folder("a").listing().memory(0)), "files `site` over `a`", &[]);
    check(files().index([""; 0]), "files `site`", &["without index"]);
    check(files().index(["a", "b"]), "files `site`", &["index `a`, `b`"]);
    check(
        files()
            .html_extension()
            .fallback("app.html")
            .not_found("404.html")
            .listing()
            .cache_control("*.js", "no-store")
            .uncompressed()
            .memory(0),
        "files `site`",
        &[
            "`.html` may be left out",
            "falls back to `app.html`",
            "`404.html` for what is not there",
            "lists folders",
            "`*.js` is `no-store`",
            "compresses nothing",
            "0 bytes in memory",
        ],
    );
}
