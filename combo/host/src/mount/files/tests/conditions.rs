//! Preconditions, ranges and dates.

use super::*;

#[tokio::test]
async fn preconditions_are_kept() {
    let site = Site::new().aged("a.txt", TEN, 60);
    let files = site.files();
    let now = get(&files, "/a.txt").await;
    let (tag, date) = (now.header(ETAG).to_owned(), now.header(LAST_MODIFIED).to_owned());
    let weak = format!("W/{tag}");
    let list = format!("\"x\", {tag}");
    let old = "Sun, 06 Nov 1994 08:49:37 GMT";
    let check = async |headers: &[(&str, &str)], status: u16| {
        for method in ["GET", "HEAD"] {
            let answered = send(&files, method, "/a.txt", headers).await;
            assert_eq!(answered.status, status, "{headers:?}: {answered:?}");
            if status == 304 {
                assert_eq!((answered.header(ETAG), answered.header(CACHE_CONTROL)), (&*tag, "no-cache"));
                assert_eq!(answered.headers.len(), if answered.headers.contains_key(VARY) { 3 } else { 2 });
            }
            if status != 200 {
                assert_eq!(answered.body, "");
            }
        }
    };
    check(&[("if-none-match", &tag)], 304).await;
    check(&[("if-none-match", &weak)], 304).await;
    check(&[("if-none-match", &list)], 304).await;
    check(&[("if-none-match", "\"x\""), ("if-none-match", &tag)], 304).await;
    check(&[("if-none-match", "*")], 304).await;
    check(&[("if-none-match", "\"x\"")], 200).await;
    check(&[("if-none-match", "\"x\""), ("if-modified-since", &date)], 200).await;
    check(&[("if-modified-since", &date)], 304).await;
    check(&[("if-modified-since", old)], 200).await;
    check(&[("if-modified-since", "yesterday")], 200).await;
    check(&[("if-match", &tag)], 200).await;
    check(&[("if-match", "*")], 200).await;
    check(&[("if-match", "\"x\""), ("if-match", &tag)], 200).await;
    check(&[("if-match", &weak)], 412).await;
    check(&[("if-match", "\"x\"")], 412).await;
    check(&[("if-unmodified-since", &date)], 200).await;
    check(&[("if-unmodified-since", old)], 412).await;
    check(&[("if-none-match", &tag), ("range", "bytes=0-1")], 304).await;
    check(&[("if-match", "\"x\""), ("range", "bytes=0-1")], 412).await;
}

#[tokio::test]
async fn parts_are_served_only_of_the_same_file() {
    // A date says which contents are meant once its second is over.
    let site = Site::new().aged("a.txt", TEN, 60).file("empty.txt", "");
    let files = site.files();
    let now = get(&files, "/a.txt").await;
    let (tag, date) = (now.header(ETAG).to_owned(), now.header(LAST_MODIFIED).to_owned());
    let weak = format!("W/{tag}");
    let check = async |headers: &[(&str, &str)], status: u16, body: &str, range: &str| {
        let answered = send(&files, "GET", "/a.txt", headers).await;
        assert_eq!(answered.status, status, "{headers:?}: {answered:?}");
        assert_eq!((&*answered.body, answered.header(CONTENT_RANGE)), (body, range), "{headers:?}");
        if status != 416 {
            assert_eq!(answered.header(CONTENT_LENGTH), body.len().to_string(), "{headers:?}");
            assert_eq!(answered.header(CONTENT_TYPE), "text/plain; charset=utf-8", "{headers:?}");
            assert_eq!(answered.header(ETAG), tag, "{headers:?}");
        }
    };
    check(&[("range", "bytes=2-4")], 206, "234", "bytes 2-4/10").await;
    check(&[("range", "bytes=7-")], 206, "789", "bytes 7-9/10").await;
    check(&[("range", "bytes=-2")], 206, "89", "bytes 8-9/10").await;
    check(&[("range", "bytes=0-99")], 206, TEN, "bytes 0-9/10").await;
    check(&[("range", "bytes=10-")], 416, "", "bytes */10").await;
    check(&[("range", "bytes=-0")], 416, "", "bytes */10").await;

    check(&[("range", "items=0-1")], 200, TEN, "").await;
    check(&[("range", "nonsense")], 200, TEN, "").await;
    check(&[("range", "bytes=4-2")], 200, TEN, "").await;
    check(&[("range", "bytes=0-0,2-3")], 206, "0123", "bytes 0-3/10").await;
    check(&[("range", "bytes=0-0"), ("range", "bytes=2-3")], 200, TEN, "").await;
    check(&[("range", "bytes=0-4,5-9")], 200, TEN, "").await;
    check(&[("range", &format!("bytes={}", ["0-0"; 5000].join(",")))], 200, TEN, "").await;

    check(&[("range", "bytes=2-4"), ("if-range", &tag)], 206, "234", "bytes 2-4/10").await;
    check(&[("range", "bytes=2-4"), ("if-range", &date)], 206, "234", "bytes 2-4/10").await;
    check(&[("range", "bytes=2-4"), ("if-range", &weak)], 200, TEN, "").await;
    check(&[("range", "bytes=2-4"), ("if-range", "\"x\"")], 200, TEN, "").await;
    check(&[("range", "bytes=2-4"), ("if-range", "Sun, 06 Nov 1994 08:49:37 GMT")], 200, TEN, "").await;
    check(&[("range", "bytes=2-4"), ("if-range", "Fri, 31 Dec 9999 23:59:59 GMT")], 200, TEN, "").await;
    check(&[("range", "bytes=2-4"), ("if-range", &tag), ("if-range", &tag)], 200, TEN, "").await;
    check(&[("range", "bytes=99-"), ("if-range", "\"x\"")], 200, TEN, "").await;
    check(&[("if-range", "\"x\"")], 200, TEN, "").await;

    let empty = send(&files, "GET", "/empty.txt", &[("range", "bytes=0-")]).await;
    assert_eq!((empty.status, empty.header(CONTENT_LENGTH)), (200, "0"));
}

#[tokio::test]
async fn a_stale_part_is_the_whole_new_file() {
    let site = Site::new().file("a.txt", "old old old");
    let files = site.files();
    let tag = get(&files, "/a.txt").await.header(ETAG).to_owned();
    fs::write(site.path("b.txt"), "new new").unwrap();
    fs::rename(site.path("b.txt"), site.path("a.txt")).unwrap();
    let answered = send(&files, "GET", "/a.txt", &[("range", "bytes=4-"), ("if-range", &tag)]).await;
    assert_eq!((answered.status, &*answered.body), (200, "new new"));
}

#[tokio::test]
async fn dates_are_never_in_the_future() {
    let site = Site::new().file("a.txt", TEN);
    let check = async |modified: SystemTime, dated: bool, timed: bool| {
        fs::File::options().write(true).open(site.path("a.txt")).unwrap().set_modified(modified).unwrap();
        // Contents have a tag, whenever they were changed.
        for (files, tagged) in [(site.files(), true), (site.never_kept(), timed)] {
            let answered = get(&files, "/a.txt").await;
            assert_eq!(answered.status, 200, "{modified:?}");
            assert_eq!(answered.headers.contains_key(LAST_MODIFIED), dated, "{modified:?}: {answered:?}");
            assert_eq!(answered.headers.contains_key(ETAG), tagged, "{modified:?}: {answered:?}");
            // Nothing is promised about a file without a tag.
            let tag = answered.header(ETAG);
            let same = send(&files, "GET", "/a.txt", &[("if-none-match", tag)]).await;
            assert_eq!(same.status, if tagged { 304 } else { 200 }, "{modified:?}");
            assert_eq!(same.headers.contains_key(LAST_MODIFIED), dated && !tagged, "{modified:?}");
            // A weak one is no promise about parts.
            let part = send(&files, "GET", "/a.txt", &[("range", "bytes=0-1"), ("if-range", tag)]).await;
            assert_eq!(part.status, if tag.starts_with('"') { 206 } else { 200 }, "{modified:?}");
        }
    };
    let epoch = SystemTime::UNIX_EPOCH;
    check(SystemTime::now() - Duration::from_secs(60), true, true).await;
    check(epoch, true, true).await;
    check(SystemTime::now() + Duration::from_secs(3600), false, true).await;
    // Dates that cannot be said.
    check(epoch - Duration::from_secs(1), false, false).await;
    check(epoch - Duration::from_secs(365 * 24 * 3600), false, false).await;
}

#[test]
fn a_date_is_said_when_its_second_is_over() {
    let none = HeaderValue::from_static("no-cache");
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    let headers = HeaderMap::new();
    for (milliseconds, dated) in [(0, false), (999, false), (1_000, true)] {
        let mut chosen = Chosen::made(Bytes::from_static(b"a"), none.clone(), none.clone());
        (chosen.modified, chosen.dated) = (dates::seconds(modified), Some(HeaderValue::from_static("then")));
        let now = dates::seconds(modified + Duration::from_millis(milliseconds));
        let choice = Choice::Other(Box::new(chosen));
        let answered = render::render(&Method::GET, &Wants::of(&headers), choice, now);
        assert_eq!(answered.headers().contains_key(LAST_MODIFIED), dated, "{milliseconds} ms later");
        assert!(answered.headers().contains_key(ETAG));
    }
}
