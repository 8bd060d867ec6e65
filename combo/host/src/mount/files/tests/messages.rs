//! Methods, and what heads say.

use super::*;

#[tokio::test]
async fn only_get_and_head() {
    let site = Site::new().file("a.txt", "a");
    let files = site.files();
    for uri in ["/a.txt", "/missing", "/../x"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"] {
            let answered = send(&files, method, uri, &[]).await;
            assert_eq!(
                (answered.status, answered.header(ALLOW)),
                (405, "GET, HEAD, OPTIONS"),
                "{method} {uri}"
            );
        }
        let answered = send(&files, "OPTIONS", uri, &[]).await;
        assert_eq!((answered.status, answered.header(ALLOW)), (204, "GET, HEAD, OPTIONS"), "{uri}");
        assert_eq!(answered.body, "");
    }
    assert_eq!(send(&files, "OPTIONS", "*", &[]).await.status, 204);
    assert_eq!(get(&files, "*").await.status, 404);
}

#[tokio::test]
async fn head_is_get_without_its_body() {
    let site = Site::new().file("a.txt", "some text").file("empty.txt", "").file("dir/x", "");
    let files = site.files();
    for uri in ["/a.txt", "/empty.txt", "/missing", "/dir", "/.env"] {
        let get = get(&files, uri).await;
        let head = send(&files, "HEAD", uri, &[]).await;
        assert_eq!((head.status, &head.headers), (get.status, &get.headers), "{uri}");
        assert_eq!(head.body, "", "{uri}");
        assert_eq!(get.header(CONTENT_LENGTH), get.body.len().to_string(), "{uri}");
    }
    // `Range` is for GET.
    let head = send(&files, "HEAD", "/a.txt", &[("range", "bytes=0-1")]).await;
    assert_eq!((head.status, head.header(CONTENT_LENGTH)), (200, "9"));
}

#[tokio::test]
async fn heads_say_what_it_is() {
    let site = Site::new().aged("index.html", "home", 60).aged("a.bin", "", 60).aged("b", TEN, 60);
    let files = site.files();
    let check = async |uri: &str, media: &str, len: &str| {
        let answered = get(&files, uri).await;
        assert_eq!(answered.header(CONTENT_TYPE), media, "{uri}");
        assert_eq!(answered.header(CONTENT_LENGTH), len, "{uri}");
        assert_eq!(answered.header(ACCEPT_RANGES), "bytes", "{uri}");
        assert!(answered.header(ETAG).starts_with('"'), "{uri}");
        assert!(answered.header(LAST_MODIFIED).ends_with(" GMT"), "{uri}");
    };
    check("/", "text/html; charset=utf-8", "4").await;
    check("/a.bin", "application/octet-stream", "0").await;
    check("/b", "application/octet-stream", "10").await;
}
