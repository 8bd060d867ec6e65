//! Several ranges: each part as it was asked for, around it what was said of its length.

use super::*;

/// The parts of a body: their heads, and what is in them.
fn parts(answered: &Answered) -> Vec<(String, String, Vec<u8>)> {
    let boundary = answered.header(CONTENT_TYPE).strip_prefix("multipart/byteranges; boundary=").unwrap();
    assert!((1..=70).contains(&boundary.len()));
    let (mut rest, mut parts) = (&*answered.bytes, Vec::new());
    let delimiter = format!("--{boundary}");
    let mut before = delimiter.clone();
    loop {
        rest = rest.strip_prefix(before.as_bytes()).expect("a boundary");
        before = format!("\r\n{delimiter}");
        if rest == b"--\r\n" {
            return parts;
        }
        rest = rest.strip_prefix(b"\r\n").expect("a head");
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").expect("the end of a head");
        let head = std::str::from_utf8(&rest[..end]).unwrap();
        let (mut media, mut range) = ("", "");
        for line in head.split("\r\n") {
            match line.split_once(": ").unwrap() {
                ("Content-Type", value) => media = value,
                ("Content-Range", value) => range = value,
                (name, _) => panic!("{name} in a part"),
            }
        }
        // The length is told by the range, so nothing is searched for in contents.
        let (first, last) =
            range.strip_prefix("bytes ").unwrap().split_once('/').unwrap().0.split_once('-').unwrap();
        let len = last.parse::<usize>().unwrap() - first.parse::<usize>().unwrap() + 1;
        let contents = rest[end + 4..][..len].to_vec();
        rest = &rest[end + 4 + len..];
        parts.push((media.to_owned(), range.to_owned(), contents));
    }
}

#[tokio::test]
async fn each_part_is_what_was_asked_for() {
    let contents = noise(300_000, 1);
    let site = Site::new().aged("a.bin", &contents, 9).aged("a.html", &contents, 9);
    for (files, name) in [(site.files(), "memory"), (site.never_kept(), "disk")] {
        for (uri, media) in [("/a.bin", "application/octet-stream"), ("/a.html", "text/html; charset=utf-8")]
        {
            let check = async |range: &str, expected: &[(usize, usize)]| {
                let answered = send(&files, "GET", uri, &[("range", range)]).await;
                assert_eq!(answered.status, 206, "{range} from {name}");
                assert_eq!(answered.header(CONTENT_LENGTH), answered.bytes.len().to_string(), "{range}");
                assert_eq!(answered.header(ACCEPT_RANGES), "bytes");
                assert!(!answered.headers.contains_key(CONTENT_RANGE), "{range}");
                assert!(answered.headers.contains_key(ETAG) && answered.headers.contains_key(LAST_MODIFIED));
                let parts = parts(&answered);
                assert_eq!(parts.len(), expected.len(), "{range}");
                for ((said, range, part), (first, last)) in parts.iter().zip(expected) {
                    assert_eq!((&**said, &**range), (media, &*format!("bytes {first}-{last}/300000")));
                    assert!(*part == contents[*first..=*last], "{range} from {name}");
                }
            };
            check("bytes=0-0,1000-1000", &[(0, 0), (1000, 1000)]).await;
            check("bytes=-1,0-9", &[(299_999, 299_999), (0, 9)]).await;
            check("bytes=299990-,5-9, 1000-1999", &[(299_990, 299_999), (5, 9), (1000, 1999)]).await;
            // Across pieces that are read at once.
            let (from, to) = (PIECE - 3, 3 * PIECE + 5);
            check(&format!("bytes={from}-{to},200000-280000"), &[(from, to), (200_000, 280_000)]).await;
            // What is not there is left out, what lies close is one part.
            check("bytes=0-0,300000-,1000-1000", &[(0, 0), (1000, 1000)]).await;
            check("bytes=0-9,10-19,1000-1009", &[(0, 19), (1000, 1009)]).await;
            let many: Vec<_> = (0..64).map(|part| (part * 4000, part * 4000 + 9)).collect();
            let said: Vec<_> = many.iter().map(|(first, last)| format!("{first}-{last}")).collect();
            check(&format!("bytes={}", said.join(",")), &many).await;
            let more = format!("bytes={},299000-299001", said.join(","));
            let answered = send(&files, "GET", uri, &[("range", &more)]).await;
            assert_eq!((answered.status, answered.bytes.len()), (200, 300_000), "{name}");
            assert!(answered.bytes == contents);
            let head = send(&files, "HEAD", uri, &[("range", "bytes=0-0,1000-1000")]).await;
            assert_eq!((head.status, head.header(CONTENT_LENGTH)), (200, "300000"));
            let outside = send(&files, "GET", uri, &[("range", "bytes=300000-,400000-")]).await;
            assert_eq!((outside.status, outside.header(CONTENT_RANGE)), (416, "bytes */300000"));
            let one = send(&files, "GET", uri, &[("range", "bytes=300000-,5-9")]).await;
            assert_eq!((one.status, one.header(CONTENT_RANGE)), (206, "bytes 5-9/300000"));
        }
    }
}

#[tokio::test]
async fn parts_that_take_more_than_all_of_it_are_all_of_it() {
    let site = Site::new().aged("a.bin", noise(400, 1), 9);
    let files = site.files();
    let all = send(&files, "GET", "/a.bin", &[("range", "bytes=0-9,100-109,200-209,300-309")]).await;
    assert_eq!((all.status, all.bytes.len()), (200, 400));
    let some = send(&files, "GET", "/a.bin", &[("range", "bytes=0-9,300-309")]).await;
    assert!(some.status == 206 && some.bytes.len() < 400);
}

#[tokio::test]
async fn no_two_answers_have_the_same_boundary() {
    let site = Site::new().aged("a.bin", noise(4000, 1), 9);
    let files = site.files();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let answered = send(&files, "GET", "/a.bin", &[("range", "bytes=0-0,1000-1000")]).await;
        assert!(seen.insert(answered.header(CONTENT_TYPE).to_owned()));
    }
}

#[tokio::test]
async fn one_part_of_a_coding_is_a_part_of_what_is_sent_in_it_and_several_are_all_of_it() {
    let site = Site::new().aged("a.css", text(60_000, 1), 9).aged("b.css", text(6000, 1), 9).aged(
        "b.css.gz",
        noise(3000, 1),
        9,
    );
    let files = site.files();
    for (uri, coding) in [("/a.css", "zstd"), ("/a.css", "br"), ("/b.css", "gzip")] {
        let whole = get_in(&files, uri, coding).await;
        for (range, status, bytes) in [
            ("bytes=1500-1599", 206, &whole.bytes[1500..=1599]),
            ("bytes=0-9,1500-1599", 200, &whole.bytes[..]),
        ] {
            let headers = [("accept-encoding", coding), ("range", range), ("if-range", whole.header(ETAG))];
            let answered = send(&files, "GET", uri, &headers).await;
            assert_eq!((answered.status, answered.header(ETAG)), (status, whole.header(ETAG)));
            assert_eq!(
                (answered.header(CONTENT_ENCODING), answered.header(VARY)),
                (coding, "accept-encoding")
            );
            assert!(answered.bytes == bytes, "{uri} {coding} {range}");
        }
    }
}
