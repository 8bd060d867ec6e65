//! Where a path leads, on real folders, with all resolvers: inside or nowhere.

use super::*;

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
