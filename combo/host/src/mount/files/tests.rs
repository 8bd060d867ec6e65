//! `mount::files` as its clients see it, on real folders, with both resolvers.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LAST_MODIFIED};
use http_body::Body;
use http_body_util::BodyExt;
use rustix::fs::{CWD, FileType, Mode, OFlags, mkfifoat, mknodat};
use rustix::io::Errno;
use tempfile::TempDir;

use super::opened::PIECE;
use super::root::Resolver;
use super::*;

/// Longer than anything takes; what hangs fails.
const PATIENCE: Duration = Duration::from_secs(30);

const RESOLVERS: [Resolver; 3] =
    [Resolver::Kernel { cached: true }, Resolver::Kernel { cached: false }, Resolver::Walk];

const TEN: &str = "0123456789";

/// A folder to be served and one beside it that must stay secret.
struct Site {
    site: TempDir,
    outside: TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { site: tempfile::tempdir().unwrap(), outside: tempfile::tempdir().unwrap() };
        fs::write(site.outside.path().join("secret.txt"), "SECRET").unwrap();
        fs::create_dir(site.outside.path().join("folder")).unwrap();
        fs::write(site.outside.path().join("folder/index.html"), "SECRET").unwrap();
        site
    }

    /// With a file in it.
    fn file(self, path: &str, contents: &str) -> Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
        self
    }

    fn path(&self, path: &str) -> PathBuf {
        self.site.path().join(path)
    }

    fn outside(&self, path: &str) -> PathBuf {
        self.outside.path().join(path)
    }

    fn link(self, target: impl AsRef<Path>, path: &str) -> Self {
        symlink(target, self.path(path)).unwrap();
        self
    }

    fn files(&self) -> Served {
        self.said(|files| files)
    }

    /// With this said of them.
    fn said(&self, said: impl Fn(Files) -> Files) -> Served {
        Served::open(said(Files::folder("site")), |_| vec![self.site.path().to_path_buf()]).unwrap()
    }

    /// None of them in memory.
    fn never_kept(&self) -> Served {
        self.said(|files| files.memory(0))
    }

    /// All ways to resolve.
    fn both(&self) -> [(Resolver, Served); 3] {
        RESOLVERS.map(|resolver| {
            let root =
                Root::open([Layer::Folder(self.site.path().to_path_buf())]).unwrap().resolved_by(resolver);
            (resolver, Served::of(root, Files::folder("site")).unwrap())
        })
    }
}

/// A response with its body read.
#[derive(Debug)]
struct Answered {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answered {
    fn header(&self, name: impl http::header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

async fn send(files: &Served, method: &str, uri: &str, headers: &[(&str, &str)]) -> Answered {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answered = async {
        let response = files.clone().ask(request.body(()).unwrap().into_parts().0).await.unwrap();
        let (head, body) = response.into_parts();
        let said = body.size_hint().exact();
        let body = body.collect().await.unwrap().to_bytes();
        assert_eq!(said, Some(body.len() as u64), "{method} {uri}");
        Answered {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.unwrap_or_else(|_| panic!("{method} {uri} hangs"))
}

async fn get(files: &Served, uri: &str) -> Answered {
    send(files, "GET", uri, &[]).await
}

#[tokio::test]
async fn names_lead_to_files_or_nowhere() {
    let long = "x".repeat(255);
    let site = Site::new()
        .file("index.html", "home")
        .file("a.txt", "a")
        .file("a b.txt", "space")
        .file("€.txt", "euro")
        .file("%2e.txt", "percent")
        .file("sub/index.html", "sub home")
        .file("sub/b.txt", "b")
        .file("bare/c.txt", "c")
        .file("odd/index.html/x", "index is a folder")
        .file(".env", "SECRET")
        .file(".git/config", "SECRET")
        .file("sub/.hidden/x.txt", "SECRET")
        .file(".well-known/security.txt", "contact")
        .file(".well-known/.hidden", "SECRET")
        .file("a\\b.txt", "SECRET")
        .file(&long, "long");
    for (resolver, files) in site.both() {
        let check = async |uri: &str, status: u16, body: &str| {
            let answered = get(&files, uri).await;
            assert_eq!(answered.status, status, "{uri} by {resolver:?}: {answered:?}");
            assert!(!answered.body.contains("SECRET"), "{uri} by {resolver:?}");
            if status == 200 {
                assert_eq!(answered.body, body, "{uri} by {resolver:?}");
            }
            assert_eq!(answered.header(X_CONTENT_TYPE_OPTIONS), "nosniff", "{uri}");
            assert_eq!(answered.header(CACHE_CONTROL), "no-cache", "{uri}");
        };
        check("/", 200, "home").await;
        check("//", 200, "home").await;
        check("/index.html", 200, "home").await;
        check("/a.txt", 200, "a").await;
        check("/%61.txt", 200, "a").await;
        check("/a.txt?q=/../x", 200, "a").await;
        check("http://example.com/a.txt", 200, "a").await;
        check("/a%20b.txt", 200, "space").await;
        check("/%E2%82%AC.txt", 200, "euro").await;
        check("/%252e.txt", 200, "percent").await;
        check("/sub/", 200, "sub home").await;
        check("/sub/b.txt", 200, "b").await;
        check("//sub//b.txt", 200, "b").await;
        check("/.well-known/security.txt", 200, "contact").await;
        check(&format!("/{long}"), 200, "long").await;

        check("/missing", 404, "").await;
        check("/missing/", 404, "").await;
        check("/a.txt/", 404, "").await;
        check("/a.txt/b", 404, "").await;
        // No index, no listing.
        check("/bare/", 404, "").await;
        check("/odd/", 404, "").await;
        check("/.well-known/", 404, "").await;
        check("/.env", 404, "").await;
        check("/%2eenv", 404, "").await;
        check("/.git/config", 404, "").await;
        check("/.git", 404, "").await;
        check("/sub/.hidden/x.txt", 404, "").await;
        check("/.well-known/.hidden", 404, "").await;
        check("/sub/../a.txt", 404, "").await;
        check("/sub/%2e%2e/a.txt", 404, "").await;
        check("/sub/./b.txt", 404, "").await;
        check("/sub%2fb.txt", 404, "").await;
        check("/sub%2Fb.txt", 404, "").await;
        check("/sub%252fb.txt", 404, "").await;
        check("/%2e%2e%2f%2e%2e%2fetc%2fpasswd", 404, "").await;
        check("/%252e%252e/secret.txt", 404, "").await;
        check("/a%5cb.txt", 404, "").await;
        check("/..%5ca.txt", 404, "").await;
        check("/a.txt%00", 404, "").await;
        check("/%00", 404, "").await;
        check("/%ff.txt", 404, "").await;
        check(&format!("/{long}x"), 404, "").await;
        check(&format!("/{}", "y/".repeat(4000)), 404, "").await;
        check(&format!("/{}", "y".repeat(60_000)), 404, "").await;
    }
}

#[tokio::test]
async fn folders_get_their_slash_on_this_host() {
    let site = Site::new().file("dir/index.html", "dir").file("dir/a b/c.txt", "c").link("dir", "door");
    for (_, files) in site.both() {
        let check = async |uri: &str, prefix: Option<&str>, location: &str| {
            let prefix: Vec<_> = prefix.iter().map(|prefix| ("x-forwarded-prefix", *prefix)).collect();
            for method in ["GET", "HEAD"] {
                let answered = send(&files, method, uri, &prefix).await;
                assert_eq!((answered.status, answered.header(LOCATION)), (307, location), "{uri}");
            }
        };
        check("/dir", None, "/dir/").await;
        check("/door", None, "/door/").await;
        check("/dir?a=b&c=%20", None, "/dir/?a=b&c=%20").await;
        check("/dir", Some("/blog"), "/blog/dir/").await;
        check("/dir?x", Some("/blog/"), "/blog/dir/?x").await;
        check("/dir", Some("/"), "/dir/").await;
        check("//dir", None, "/dir/").await;
        check("//dir", Some("/blog"), "/blog/dir/").await;
        check("////dir//a%20b", None, "/dir/a%20b/").await;
        check("/d%69r", None, "/d%69r/").await;
        check("http://example.com//dir", None, "/dir/").await;
    }
}

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
    let site = Site::new().file("index.html", "home").file("a.bin", "").file("b", TEN);
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

#[tokio::test]
async fn preconditions_are_kept() {
    let site = Site::new().file("a.txt", TEN);
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
                assert_eq!((answered.header(ETAG), answered.header(LAST_MODIFIED)), (&*tag, &*date));
                assert!(!answered.headers.contains_key(CONTENT_TYPE));
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
    let site = Site::new().file("a.txt", TEN).file("empty.txt", "");
    // A date says which contents are meant once its second is over.
    let file = fs::File::options().write(true).open(site.path("a.txt")).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
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
            assert_eq!(same.headers.contains_key(LAST_MODIFIED), dated, "{modified:?}");
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

#[tokio::test]
async fn links_stay_inside() {
    let site = Site::new()
        .file("a.txt", "a")
        .file("sub/b.txt", "b")
        .file("sub/deep/c.txt", "c")
        .file(".releases/2/index.html", "release")
        .file("..data/d.txt", "mounted");
    let absolute = site.path("a.txt");
    let (secret, folder) = (site.outside("secret.txt"), site.outside("folder"));
    let above = format!("../{}/secret.txt", site.outside.path().file_name().unwrap().to_str().unwrap());
    let site = site
        .link("a.txt", "in.txt")
        .link("in.txt", "in-in.txt")
        .link("sub", "door")
        .link("../a.txt", "sub/up.txt")
        .link("../../sub/./deep//../b.txt", "sub/deep/around.txt")
        .link(".", "here")
        .link(".releases/2", "current")
        .link("..data/d.txt", "d.txt")
        // Out, by every way there is.
        .link(secret, "out.txt")
        .link(&above, "above.txt")
        .link(folder, "out")
        .link("/", "slash")
        .link("..", "parent")
        .link("../../../../../../../../../../../etc/passwd", "passwd")
        .link("out.txt", "out-out.txt")
        .link(absolute, "absolute.txt")
        .link("/dev/zero", "zero")
        .link("/proc/self/environ", "environ")
        .link("/proc/self/fd/0", "stdin")
        // Nowhere.
        .link("loop", "loop")
        .link("ping", "pong")
        .link("pong", "ping")
        .link("missing", "broken")
        .link("a.txt/", "no-folder");
    for (resolver, files) in site.both() {
        let check = async |uri: &str, status: u16, body: &str| {
            let answered = get(&files, uri).await;
            assert_eq!(answered.status, status, "{uri} by {resolver:?}: {answered:?}");
            if status == 200 {
                assert_eq!(answered.body, body, "{uri} by {resolver:?}");
            }
        };
        check("/in.txt", 200, "a").await;
        check("/in-in.txt", 200, "a").await;
        check("/door/b.txt", 200, "b").await;
        check("/door/deep/c.txt", 200, "c").await;
        check("/sub/up.txt", 200, "a").await;
        check("/door/up.txt", 200, "a").await;
        check("/sub/deep/around.txt", 200, "b").await;
        check("/here/here/here/a.txt", 200, "a").await;
        check("/here", 307, "").await;
        // The name asked for must be public; what it leads to inside is the operator's business.
        check("/current/", 200, "release").await;
        check("/d.txt", 200, "mounted").await;

        check("/out.txt", 404, "").await;
        check("/above.txt", 404, "").await;
        check("/out", 404, "").await;
        check("/out/", 404, "").await;
        check("/out/index.html", 404, "").await;
        check("/slash/etc/passwd", 404, "").await;
        check("/parent", 404, "").await;
        check("/passwd", 404, "").await;
        check("/out-out.txt", 404, "").await;
        // Inside, but said from the root of the machine.
        check("/absolute.txt", 404, "").await;
        check("/zero", 404, "").await;
        check("/environ", 404, "").await;
        check("/stdin", 404, "").await;
        check("/loop", 404, "").await;
        check("/loop/x", 404, "").await;
        check("/ping", 404, "").await;
        check("/broken", 404, "").await;
        check("/no-folder", 404, "").await;
    }
}

#[tokio::test]
async fn forty_links_and_no_more() {
    let mut site = Site::new().file("0", "end");
    for link in 1..=41 {
        site = site.link((link - 1).to_string(), &link.to_string());
    }
    for (resolver, files) in site.both() {
        assert_eq!(get(&files, "/40").await.status, 200, "{resolver:?}");
        assert_eq!(get(&files, "/41").await.status, 404, "{resolver:?}");
    }
}

#[tokio::test]
async fn only_regular_files_are_opened() {
    let site = Site::new().file("a.txt", "a").link("pipe", "to-pipe");
    mkfifoat(CWD, site.path("pipe"), Mode::from_raw_mode(0o666)).unwrap();
    let _socket = UnixListener::bind(site.path("socket")).unwrap();
    // Only the superuser makes devices, and not everywhere.
    match mknodat(
        CWD,
        site.path("zero"),
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        rustix::fs::makedev(1, 5),
    ) {
        Ok(()) => assert!(site.path("zero").exists()),
        Err(errno) => assert_eq!(errno, Errno::PERM),
    }
    for (resolver, files) in site.both() {
        for uri in ["/pipe", "/to-pipe", "/socket", "/zero", "/pipe/", "/pipe/x", "/socket/"] {
            for method in ["GET", "HEAD"] {
                assert_eq!(
                    send(&files, method, uri, &[]).await.status,
                    404,
                    "{method} {uri} by {resolver:?}"
                );
            }
        }
        assert_eq!(get(&files, "/a.txt").await.status, 200);
    }
    // A writer that does not wait finds nobody who reads.
    let writer = rustix::fs::open(site.path("pipe"), OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty());
    assert_eq!(writer.unwrap_err(), Errno::NXIO);
}

#[tokio::test]
async fn what_may_not_be_read_is_forbidden() {
    let site = Site::new().file("closed.txt", "a").file("closed/a.txt", "a");
    let close = |path: &str, mode: u32| {
        fs::set_permissions(site.path(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    close("closed.txt", 0o000);
    close("closed", 0o000);
    // Nothing is closed to the superuser.
    let expected = if rustix::process::geteuid().is_root() { 200 } else { 403 };
    for (resolver, files) in site.both() {
        for uri in ["/closed.txt", "/closed/a.txt"] {
            assert_eq!(get(&files, uri).await.status, expected, "{uri} by {resolver:?}");
            assert_eq!(send(&files, "HEAD", uri, &[]).await.status, expected, "{uri} by {resolver:?}");
        }
    }
    close("closed", 0o755);
}

#[tokio::test]
async fn earlier_folders_lie_over_later_ones() {
    let over = Site::new()
        .file("both.txt", "over")
        .file("over.txt", "over")
        .file("dir/x.txt", "x")
        .file("file", "hides a folder")
        .link("/etc/passwd", "closed.txt")
        .link("missing", "broken.txt");
    let under = Site::new()
        .file("both.txt", "under")
        .file("under.txt", "under")
        .file("dir/index.html", "under index")
        .file("dir/y.txt", "y")
        .file("file/z.txt", "z")
        .file("closed.txt", "under")
        .file("broken.txt", "under");
    let folders = [over.site.path().to_path_buf(), under.site.path().to_path_buf()];
    for resolver in RESOLVERS {
        let root = Root::open(folders.clone().map(Layer::Folder)).unwrap().resolved_by(resolver);
        let files = Served::of(root, Files::folder("site")).unwrap();
        let check = async |uri: &str, status: u16, body: &str| {
            let answered = get(&files, uri).await;
            assert_eq!(answered.status, status, "{uri} by {resolver:?}");
            if status == 200 {
                assert_eq!(answered.body, body, "{uri} by {resolver:?}");
            }
        };
        check("/both.txt", 200, "over").await;
        check("/over.txt", 200, "over").await;
        check("/under.txt", 200, "under").await;
        check("/dir", 307, "").await;
        check("/dir/", 200, "under index").await;
        check("/dir/x.txt", 200, "x").await;
        check("/dir/y.txt", 200, "y").await;
        check("/file", 200, "hides a folder").await;
        check("/file/z.txt", 404, "").await;
        check("/closed.txt", 404, "").await;
        // A link to nothing is nothing.
        check("/broken.txt", 200, "under").await;
        check("/none.txt", 404, "").await;
    }
}

#[tokio::test]
async fn a_renamed_root_is_still_the_one_opened() {
    let site = Site::new().file("static/a.txt", "a");
    let files =
        Served::open(Files::folder("static"), |folder| vec![site.path(folder.to_str().unwrap())]).unwrap();
    fs::rename(site.path("static"), site.path("moved")).unwrap();
    assert_eq!(get(&files, "/a.txt").await.body, "a");
}

/// Enough for many chunks.
fn large(fill: u8) -> Vec<u8> {
    vec![fill; 10 * PIECE + 17]
}

/// The response to a GET with its first chunk read.
async fn begin(files: &Served, uri: &str) -> (Vec<u8>, Sending) {
    let response = files.clone().ask(Request::get(uri).body(()).unwrap().into_parts().0).await.unwrap();
    let mut body = response.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.len() == PIECE && !body.is_end_stream());
    (first.to_vec(), body)
}

#[tokio::test]
async fn chunks_are_chunks() {
    let site = Site::new().file("a.bin", "");
    let contents: Vec<u8> = (0..large(0).len()).map(|at| (at % 251) as u8).collect();
    fs::write(site.path("a.bin"), &contents).unwrap();
    let files = site.never_kept();
    let (mut read, mut body) = begin(&files, "/a.bin").await;
    while let Some(frame) = body.frame().await {
        let chunk = frame.unwrap().into_data().unwrap();
        assert!(chunk.len() <= PIECE);
        read.extend_from_slice(&chunk);
    }
    assert!(read == contents);
    assert!(body.is_end_stream());

    let (from, to) = (PIECE - 3, 3 * PIECE + 5);
    let request =
        Request::get("/a.bin").header("range", format!("bytes={from}-{}", to - 1)).body(()).unwrap();
    let response = files.clone().ask(request.into_parts().0).await.unwrap();
    assert!(response.into_body().collect().await.unwrap().to_bytes() == contents[from..to]);
}

#[tokio::test]
async fn a_replaced_file_is_old_or_new() {
    let site = Site::new();
    fs::write(site.path("a.bin"), large(b'o')).unwrap();
    let files = site.never_kept();
    let (mut read, body) = begin(&files, "/a.bin").await;
    fs::write(site.path("b.bin"), large(b'n')).unwrap();
    fs::rename(site.path("b.bin"), site.path("a.bin")).unwrap();
    read.extend_from_slice(&body.collect().await.unwrap().to_bytes());
    assert!(read == large(b'o'));
    assert!(get(&files, "/a.bin").await.body.into_bytes() == large(b'n'));
}

#[tokio::test]
async fn a_removed_file_is_read_to_its_end() {
    let site = Site::new();
    fs::write(site.path("a.bin"), large(b'o')).unwrap();
    let files = site.never_kept();
    let (mut read, body) = begin(&files, "/a.bin").await;
    fs::remove_file(site.path("a.bin")).unwrap();
    read.extend_from_slice(&body.collect().await.unwrap().to_bytes());
    assert!(read == large(b'o'));
    assert_eq!(get(&files, "/a.bin").await.status, 404);
}

#[tokio::test]
async fn a_grown_file_is_as_long_as_was_said() {
    let site = Site::new();
    fs::write(site.path("a.bin"), large(b'o')).unwrap();
    let (mut read, body) = begin(&site.never_kept(), "/a.bin").await;
    let file = fs::File::options().write(true).open(site.path("a.bin")).unwrap();
    file.write_all_at(&large(b'n'), large(b'o').len() as u64).unwrap();
    read.extend_from_slice(&body.collect().await.unwrap().to_bytes());
    assert!(read == large(b'o'));
}

#[tokio::test]
async fn a_truncated_file_ends_with_an_error() {
    let site = Site::new();
    fs::write(site.path("a.bin"), large(b'o')).unwrap();
    let (_, mut body) = begin(&site.never_kept(), "/a.bin").await;
    fs::File::options().write(true).open(site.path("a.bin")).unwrap().set_len(PIECE as u64 + 5).unwrap();
    let error = loop {
        match body.frame().await.expect("an error before the end") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(body.frame().await.is_none());
}

/// Sets it when dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// While one thread changes what a name means as fast as it can, requests see what may be seen.
#[test]
fn swapped_links_never_lead_out() {
    const REQUESTS: usize = 1500;
    let site = Site::new().file("a.txt", "inside").file("folder/index.html", "inside");
    mkfifoat(CWD, site.path("pipe"), Mode::from_raw_mode(0o666)).unwrap();
    let (secret, outside) = (site.outside("secret.txt"), site.outside("folder"));
    let site = site
        .link("a.txt", "file-in")
        .link(secret, "file-out")
        .link("folder", "folder-in")
        .link(outside, "folder-out")
        .link("pipe", "no-file")
        .link("a.txt", "door")
        .link("folder", "gate");
    let ended = AtomicBool::new(false);
    let (mut inside, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let _ = scope.spawn(|| {
            for turn in 0.. {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let door = ["file-in", "file-out", "no-file", "folder-in"][turn % 4];
                let gate = ["folder-in", "folder-out"][turn % 2];
                for (from, to) in [(door, "door"), (gate, "gate")] {
                    let target = fs::read_link(site.path(from)).unwrap();
                    symlink(target, site.path("next")).unwrap();
                    fs::rename(site.path("next"), site.path(to)).unwrap();
                }
            }
        });
        // A failure ends it too.
        let _end = End(&ended);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for (resolver, files) in site.both() {
                for request in 0..100 * REQUESTS {
                    // On a busy machine it takes longer until both were there to be seen.
                    if request >= REQUESTS && inside > 0 && refused > 0 {
                        break;
                    }
                    let uri = ["/door", "/gate/index.html", "/gate/"][request % 3];
                    let answered = get(&files, uri).await;
                    match answered.status {
                        200 => {
                            assert_eq!(answered.body, "inside", "{uri} by {resolver:?}");
                            inside += 1;
                        }
                        404 => refused += 1,
                        307 => assert_eq!(uri, "/door"),
                        status => panic!("{status} for {uri} by {resolver:?}"),
                    }
                }
            }
        });
    });
    assert!(inside > 0 && refused > 0, "{inside} inside, {refused} refused");
}
