//! What goes wrong while it is served: folders that vanish, names that become something else, closed doors.

use nix::unistd::{Uid, setfsuid};

use super::*;

#[tokio::test]
async fn a_root_that_is_removed_is_empty() {
    for listing in [false, true] {
        let site = Site::new().file("static/index.html", "home").file("static/a.txt", "a");
        let said = Files::folder("static");
        let said = if listing { said.listing() } else { said };
        let files = Served::open(said, |folder| vec![site.path(folder.to_str().unwrap())]).unwrap();
        assert_eq!(get(&files, "/a.txt").await.status, 200);
        fs::remove_dir_all(site.path("static")).unwrap();
        // Another one of its name is not the one that is served.
        let _site = site.file("static/a.txt", "another");
        for uri in ["/a.txt", "/index.html", "/x/y", "/x/"] {
            assert_eq!(get(&files, uri).await.status, 404, "{uri}");
        }
        let answered = get(&files, "/").await;
        assert_eq!(answered.status, if listing { 200 } else { 404 });
        assert!(!answered.body.contains("another"));
    }
}

#[tokio::test]
async fn names_longer_than_can_be_are_nowhere() {
    let site = Site::new().file("x.html", "x");
    let said = |files: Files| files.html_extension().listing();
    for files in [site.said(said), site.said(|files| said(files).memory(0))] {
        for len in [250, 251, 252, 255, 256, 4095, 4096, 10_000] {
            for uri in [
                format!("/{}", "y".repeat(len)),
                format!("/{}/", "y".repeat(len)),
                format!("/{}x", "y/".repeat(len)),
            ] {
                assert_eq!(get_in(&files, &uri, "br, zstd, gzip").await.status, 404, "{len}");
            }
        }
    }
}

/// What stands behind a name changes from a file to a folder to nothing to a pipe and back, as fast as can be.
#[test]
fn a_name_may_become_anything_while_it_is_served() {
    let site = Site::new()
        .aged("file", text(3000, 1), 9)
        .aged("folder/index.html", "index", 9)
        .aged("a.css.br", "BR", 0)
        .aged("other", text(3000, 2), 9);
    mkfifoat(CWD, site.path("pipe"), Mode::from_raw_mode(0o666)).unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ = scope.spawn(|| {
            for turn in 0.. {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                // Whatever was there comes back under its own name.
                let name = ["file", "folder", "other", "pipe"][turn % 4];
                fs::rename(site.path(name), site.path("a.css")).unwrap();
                std::thread::yield_now();
                fs::rename(site.path("a.css"), site.path(name)).unwrap();
            }
        });
        let _end = End(&ended);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let said = |files: Files| files.listing();
            for files in [site.said(said), site.said(|files| said(files).memory(0))] {
                let mut seen = std::collections::BTreeSet::new();
                for request in 0..60_000 {
                    if request >= 800 && seen.len() >= 3 {
                        break;
                    }
                    let uri = ["/a.css", "/a.css/", "/"][request % 3];
                    let answered = get_in(&files, uri, ["", "zstd"][request % 2]).await;
                    let _ = seen.insert(answered.status);
                    match (uri, answered.status) {
                        ("/a.css", 200) => {
                            let plain = answered.decoded();
                            assert!(
                                plain == text(3000, 1).as_bytes() || plain == text(3000, 2).as_bytes(),
                                "{answered:?}"
                            );
                        }
                        ("/a.css", 307 | 404) | ("/a.css/", 404) | ("/", 200) => {}
                        ("/a.css/", 200) => {
                            assert!(answered.body == "index" || answered.body.contains("Index of"));
                        }
                        (uri, status) => panic!("{status} for {uri}"),
                    }
                }
                assert_eq!(seen.into_iter().collect::<Vec<_>>(), [200, 307, 404]);
            }
        });
    });
}

/// Runs it as a user that may only do what files permit to all, for nothing is closed to the superuser.
fn as_nobody(run: impl AsyncFnOnce() + Send) {
    let nobody = || {
        if rustix::process::geteuid().is_root() {
            let _ = setfsuid(Uid::from_raw(65_534));
        }
    };
    std::thread::scope(|scope| {
        let ran = scope.spawn(move || {
            nobody();
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().on_thread_start(nobody).build().unwrap();
            runtime.block_on(run());
        });
        if let Err(panic) = ran.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn what_is_closed_is_forbidden_and_not_listed() {
    let site = Site::new()
        .aged("a.txt", "a", 9)
        .aged("closed.txt", "SECRET", 9)
        .aged("closed.css", "SECRET", 9)
        .aged("closed/a.txt", "SECRET", 9)
        .aged("blind/a.txt", "a", 9)
        .aged("style.css", text(2000, 1), 9)
        .aged("style.css.br", "SECRET", 9)
        .aged("indexed/index.html", "SECRET", 9)
        .aged("indexed/other.html", "other", 9)
        .aged("404.html", "none", 9);
    let close = |path: &str, mode: u32| {
        fs::set_permissions(site.path(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    close("", 0o755);
    close("blind", 0o711);
    for (path, mode) in [
        ("closed.txt", 0o000),
        ("closed.css", 0o000),
        ("style.css.br", 0o000),
        ("indexed/index.html", 0o000),
        ("closed", 0o000),
    ] {
        close(path, mode);
    }
    let said = |files: Files| files.listing().not_found("404.html").index(["index.html", "other.html"]);
    for resolver in RESOLVERS {
        for most in [0, 64 << 20] {
            let root = Root::open([Layer::Folder(site.site.path().to_path_buf())]).unwrap();
            let root = root.resolved_by(resolver);
            let files = Served::of(root, said(Files::folder("site")).memory(most)).unwrap();
            as_nobody(async || {
                let check = async |uri: &str, status: u16, body: &str| {
                    for codings in ["", "br, zstd, gzip"] {
                        let answered = get_in(&files, uri, codings).await;
                        assert_eq!(answered.status, status, "{uri} by {resolver:?}: {answered:?}");
                        assert!(!answered.body.contains("SECRET"), "{uri} by {resolver:?}");
                        if !body.is_empty() {
                            assert_eq!(answered.decoded(), body.as_bytes(), "{uri} by {resolver:?}");
                        }
                    }
                };
                check("/a.txt", 200, "a").await;
                check("/closed.txt", 403, "forbidden\n").await;
                check("/closed.css", 403, "forbidden\n").await;
                check("/closed/a.txt", 403, "forbidden\n").await;
                check("/closed/", 403, "forbidden\n").await;
                check("/blind/a.txt", 200, "a").await;
                check("/blind/", 403, "forbidden\n").await;
                check("/indexed/", 403, "forbidden\n").await;
                // Of a closed sibling nothing is to be had; the original is open.
                check("/style.css", 200, &text(2000, 1)).await;
                let list = send(&files, "GET", "/", &[("accept", "application/json")]).await;
                assert_eq!(list.status, 200);
                assert!(!list.body.contains("closed.txt"), "{list:?}");
                assert!(list.body.contains("a.txt") && list.body.contains("style.css"), "{list:?}");
            });
        }
    }
    close("closed", 0o755);
}
