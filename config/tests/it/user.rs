//! Root that listens and becomes a user: what every thread of it is then, what its apps and jobs can do, and
//! whose the files are. Where the tests are not root themselves, that this is refused and why.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use nix::unistd::Uid;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    child::{Child, Said, command, run},
    site::{ANY_PORT, folder},
    wire::{Alpn, Wire, get},
};

/// Who it becomes, and what the system has under that name.
struct Who {
    said: &'static str,
    uid: u32,
    gid: u32,
    groups: &'static [u64],
    told: [&'static str; 4],
    /// Whether it is only in lists of the test's own.
    made: bool,
}

const WWW: Who = Who {
    said: "www",
    uid: 4_242,
    gid: 4_243,
    groups: &[4_243, 4_250, 4_251],
    told: ["/srv/www", "www", "www", "/bin/sh"],
    made: true,
};

const NOBODY: Who = Who {
    said: "nobody:65534",
    uid: 65_534,
    gid: 65_534,
    groups: &[65_534],
    told: ["/nonexistent", "nobody", "nobody", "none"],
    made: false,
};

const NUMBERS: Who = Who {
    said: "4244:4245",
    uid: 4_244,
    gid: 4_245,
    groups: &[4_245],
    told: ["none", "none", "none", "none"],
    made: false,
};

/// The lists of users and groups with `www` in them, in this process's own view of the disk.
const LISTS: &str = "\
    { cat /etc/passwd; echo 'www:x:4242:4243::/srv/www:/bin/sh'; echo 'toor:x:0:4243::/:/bin/sh'; } > passwd && \
    { cat /etc/group; echo 'www:x:4243:'; echo 'logs:x:4250:www'; echo 'media:x:4251:root,www'; } > group && \
    mount --bind passwd /etc/passwd && mount --bind group /etc/group";

fn is_root() -> bool {
    Uid::effective().is_root()
}

/// An example of this package; `cargo test` builds them beside the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    let program = deps.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(program.exists(), "`cargo build -p frankenstein --example {name}` makes {}", program.display());
    program
}

/// Whoever the process becomes reaches the folder, and may write in two of those in it.
fn place(owner: Option<&Who>) -> TempDir {
    let folder = folder();
    let mode = |path: &str, mode| {
        fs::set_permissions(folder.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("", 0o755);
    mode("key.pem", 0o600);
    for name in ["out", "var"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        if let Some(owner) = owner {
            chown(folder.path().join(name), Some(owner.uid), Some(owner.gid)).unwrap();
        }
    }
    let id = ["/usr/bin/id", "/bin/id"].into_iter().find(|id| Path::new(id).exists()).unwrap();
    let _ = fs::copy(id, folder.path().join("id-of-root")).unwrap();
    mode("id-of-root", 0o4755);
    folder
}

/// The example after a script, in a view of the disk of its own if it needs one.
fn prepared(who: &Who, words: &[&str]) -> Command {
    let mut command = command(if who.made { "unshare" } else { "env" });
    let (own, lists) = if who.made { (&["--mount"][..], LISTS) } else { (&[][..], "true") };
    let script = format!("{lists} && exec \"$0\" \"$@\"");
    let _ = command.args(own).args(["sh", "-c", &script]).arg(example("user")).args(words);
    command
}

/// In a container that may not mount there are fewer of them.
fn everyone() -> Vec<Who> {
    let may_mount =
        Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]).status();
    let mut all = vec![NOBODY, NUMBERS];
    all.extend(may_mount.is_ok_and(|status| status.success()).then_some(WWW));
    all
}

/// One that root only may have, and nobody has.
fn low_port() -> u16 {
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    // From different places, so that tests that run at once do not take each other's.
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(610);
    std::iter::repeat_with(|| NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
        .take_while(|port| *port < 1_024)
        .find(free)
        .expect("a port under 1024")
}

fn ended(folder: &Path, mut command: Command) -> Said {
    let _ = command.current_dir(folder);
    run(command)
}

/// The fields of one thread that say what it may do.
fn may(status: &str) -> Vec<(String, Vec<u64>)> {
    let fields = ["Uid", "Gid", "Groups", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs"];
    let lines = status.lines().filter_map(|line| line.split_once(':'));
    let lines = lines.filter(|(field, _)| fields.contains(field)).map(|(field, words)| {
        let radix = if field.starts_with("Cap") { 16 } else { 10 };
        let mut words: Vec<u64> =
            words.split_whitespace().map(|word| u64::from_str_radix(word, radix).unwrap()).collect();
        words.sort_unstable();
        (field.to_owned(), words)
    });
    let mut lines: Vec<_> = lines.collect();
    lines.sort_unstable();
    lines
}

fn every_thread_is(who: &Who, process: u32) {
    let (uid, gid) = (u64::from(who.uid), u64::from(who.gid));
    let mut expected = vec![
        ("CapAmb".to_owned(), vec![0]),
        ("CapEff".to_owned(), vec![0]),
        ("CapPrm".to_owned(), vec![0]),
        ("Gid".to_owned(), vec![gid; 4]),
        ("Groups".to_owned(), who.groups.to_vec()),
        ("NoNewPrivs".to_owned(), vec![1]),
        ("Uid".to_owned(), vec![uid; 4]),
    ];
    expected.sort_unstable();
    let mut names = BTreeSet::new();
    for thread in fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten() {
        let Ok(status) = fs::read_to_string(thread.path().join("status")) else { continue };
        let name = status.lines().next().unwrap().split_whitespace().nth(1).unwrap().to_owned();
        assert_eq!(may(&status), expected, "{name} of `{}`", who.said);
        let _ = names.insert(name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned());
    }
    for name in ["combo-host", "combo-watch", "combo-worker-", "combo-system", "combo-own", "combo-ledger"] {
        assert!(names.contains(name), "no {name} among {names:?}");
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let found = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (found.uid(), found.gid())
}

#[test]
fn root_listens_and_a_user_with_no_way_back_serves() {
    if !is_root() {
        return refused_without_root();
    }
    for who in everyone() {
        let (port, tls) = (low_port(), low_port());
        let (port, tls) = (
            format!("tcp:{port}:interface=127.0.0.1"),
            format!("ssl:{tls}:interface=127.0.0.1:key=key.pem:cert=cert.pem"),
        );
        let words =
            ["--listen", &*port, "--listen", "unix:var/app.sock", "--listen", &*tls, "--user", who.said];
        let folder = place(Some(&who));
        for _ in 0..2 {
            let child = serves(&who, &words, &folder);
            let _ = child.log.wait_for(3, &[" serves"]);
            let asked = |wire: &mut Wire, path: &str| wire.ask(get(path)).text().to_owned();
            let mut wires = [
                Wire::tcp(child.address()),
                Wire::tls(tls_address(&child), Alpn::Http1),
                Wire::unix(&folder.path().join("var/app.sock")),
            ];
            let addresses = child.addresses();
            let kinds: Vec<_> = addresses.iter().filter_map(|said| said.split(':').next()).collect();
            assert_eq!(kinds, ["http", "unix", "https"], "as they were said");
            for wire in &mut wires {
                assert_eq!(asked(wire, "/"), "welcome\n");
                for way in ["/back/here", "/back/thread", "/own/here", "/own/thread"] {
                    assert_eq!(asked(wire, way), "[]", "{way} of `{}`", who.said);
                }
                for way in ["/back/program", "/own/program"] {
                    assert_eq!(asked(wire, way), who.uid.to_string(), "{way}");
                }
                assert_eq!(asked(wire, "/built"), "built");
                assert_eq!(asked(wire, "/was"), "0\n");
            }
            let _ = child.log.wait_for(3, &["\"target\":\"jobs\"", "\"message\":\"ran\""]);
            let lines = child.log.with(&["\"target\":\"jobs\"", "\"job\":\"command\""]);
            let said: Vec<String> =
                lines.iter().map(|line| said(line)).filter(|line| line != "ran").collect();
            let (uid, gid) = (who.uid.to_string(), who.gid.to_string());
            let groups: String = who.groups.iter().map(|group| format!("{group} ")).collect();
            let [home, user, logname, shell] = who.told;
            let nnp = "NoNewPrivs:\t1";
            assert_eq!(said, [&*uid, &*gid, &*groups, home, user, logname, shell, nnp], "`{}`", who.said);
            every_thread_is(&who, child.id());
            // Nobody else of the user reads the key out of it.
            assert_eq!(owner(Path::new(&format!("/proc/{}/mem", child.id()))), (0, 0));
            let its = (who.uid, who.gid);
            for path in ["out/task", "out/command", "out/built", "var/state", "var/app.sock"] {
                assert_eq!(owner(&folder.path().join(path)), its, "{path}");
            }
            for file in fs::read_dir(folder.path().join("var/state")).unwrap().flatten() {
                assert_eq!(owner(&file.path()), its, "{}", file.path().display());
            }
            stop(child);
            assert!(!folder.path().join("var/app.sock").exists());
        }
        // A job that is run by root beside it, or after it, is run by the user.
        let words = ["job", "writes", "--user", who.said];
        fs::remove_file(folder.path().join("out/command")).unwrap();
        let said = ended(folder.path(), prepared(&who, &words));
        assert_eq!((said.code, &*said.out), (Some(0), "job `writes` ran\n"), "{said:?}");
        assert_eq!(fs::read_to_string(folder.path().join("out/command")).unwrap(), format!("{}\n", who.uid));
        // And what it would change is found out as the user.
        let said = ended(folder.path(), prepared(&who, &["job", "task", "--dry-run", "--user", who.said]));
        assert_eq!(said.code, Some(0), "{said:?}");
        let said = ended(
            folder.path(),
            prepared(&who, &["plan", "--open", "--listen", ANY_PORT, "--user", who.said]),
        );
        assert_eq!((said.code, &*said.err), (Some(0), ""), "{said:?}");
        assert!(said.out.contains(&format!("\n\nthen becomes user `{}`\n\n", who.said)), "{}", said.out);
    }
}

fn refused_without_root() {
    let folder = place(None);
    let mut command = command(example("user").to_str().unwrap());
    let _ = command.args(["--listen", ANY_PORT, "--user", "4242:4242"]);
    let said = ended(folder.path(), command);
    assert_eq!(said.code, Some(1), "{said:?}");
    let why = format!(
        "error: cannot become user `4242:4242`: this process was started as user {}",
        Uid::effective()
    );
    assert!(said.err.contains(&why) && said.err.contains("only root can become another"), "{said:?}");
    assert!(!folder.path().join("var/state").exists());
}

fn serves(who: &Who, words: &[&str], folder: &TempDir) -> Child {
    let path = folder.path().to_owned();
    Child::of(prepared(who, words), self::folder(), |command| {
        let _ = command.current_dir(path).env("SHELL", "/root's").env("HOME", "/root");
    })
}

fn tls_address(child: &Child) -> std::net::SocketAddr {
    let addresses = child.addresses();
    addresses.iter().find_map(|address| address.strip_prefix("https://")).unwrap().parse().unwrap()
}

fn said(line: &str) -> String {
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    line["message"].as_str().unwrap().to_owned()
}

fn stop(mut child: Child) {
    child.signal(Signal::TERM);
    assert!(child.exit().success());
}

#[test]
fn a_unix_socket_is_the_users_and_is_taken_away() {
    if !is_root() {
        return refused_without_root();
    }
    let folder = place(Some(&NOBODY));
    // As `/tmp` is: whose a file is decides who may remove it.
    fs::create_dir(folder.path().join("run")).unwrap();
    fs::set_permissions(folder.path().join("run"), fs::Permissions::from_mode(0o1777)).unwrap();
    let words = ["--listen", "unix:run/app.sock", "--listen", "unix:var/app.sock:mode=666"];
    let words = [&words[..], &["--user", NOBODY.said]].concat();
    let sockets = ["run/app.sock", "var/app.sock"].map(|path| folder.path().join(path));
    for killed in [true, false] {
        let mut child = serves(&NOBODY, &words, &folder);
        assert!(sockets.iter().all(|path| owner(path) == (NOBODY.uid, NOBODY.gid)));
        let modes = sockets.each_ref().map(|path| fs::metadata(path).unwrap().permissions().mode() & 0o7777);
        assert_eq!(modes, [0o660, 0o666]);
        if killed {
            child.signal(Signal::KILL);
            assert!(!child.exit().success());
            // They are leftovers now, and no obstacle.
            assert!(sockets.iter().all(|path| path.exists()));
        } else {
            stop(child);
        }
    }
    assert!(sockets.iter().all(|path| !path.exists()));
}

#[test]
fn where_only_root_may_write_no_unix_socket_is_made() {
    if !is_root() {
        return refused_without_root();
    }
    let folder = place(Some(&NOBODY));
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = format!("tcp:{}:interface=127.0.0.1", busy.local_addr().unwrap().port());
    let refused = "its folder has to be one that user 65534 may write): Permission denied (os error 13)";
    let check = |words: &[&str], errors: &[String]| {
        let said = ended(folder.path(), prepared(&NOBODY, &[words, &["--user", NOBODY.said]].concat()));
        let lines: Vec<_> = said.err.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(
            (said.code, &*lines),
            (Some(1), &*errors.iter().map(|error| &**error).collect::<Vec<_>>())
        );
        assert!(!folder.path().join("app.sock").exists());
    };
    let one = format!("error: cannot listen on `unix:app.sock` ({refused}");
    check(&["--listen", ANY_PORT, "--listen", "unix:app.sock"], std::slice::from_ref(&one));
    // As they were said, although ports are opened before.
    let port = format!(
        "error: cannot listen on `{busy}` (something else listens there): Address already in use (os error 98)"
    );
    check(&["--listen", "unix:app.sock", "--listen", &busy], &[one, port]);
}

/// A copy of the example that anybody may execute: where it was built they may not.
fn copied(folder: &TempDir) -> Command {
    let copy = folder.path().join("user");
    let _ = fs::copy(example("user"), &copy).unwrap();
    command(copy.to_str().unwrap())
}

#[test]
fn who_is_another_and_not_root_is_refused() {
    if !is_root() {
        return refused_without_root();
    }
    let folder = place(Some(&NOBODY));
    let as_nobody = |words: &[&str]| {
        let mut command = copied(&folder);
        let _ = command.args(words).uid(65_534).gid(65_534);
        ended(folder.path(), command)
    };
    let only = "this process was started as user 65534 (`nobody`); only root can become another";
    let same = "this process is that user in group 65534; only root can change that";
    for (user, why) in [("4244:4245", only), ("nobody:4245", same)] {
        let said = as_nobody(&["--listen", ANY_PORT, "--user", user]);
        assert_eq!(
            (said.code, &*said.err),
            (Some(1), &*format!("error: cannot become user `{user}`: {why}\n"))
        );
    }
    // Together with what it cannot listen on.
    let port = format!("tcp:{}:interface=127.0.0.1", low_port());
    let said = as_nobody(&["--listen", &port, "--user", "4244:4245"]);
    let lines: Vec<&str> = said.err.lines().collect();
    assert!(
        matches!(lines[..], [listen, user] if listen.contains("CAP_NET_BIND_SERVICE") && user.contains(only)),
        "{said:?}"
    );
    assert!(!folder.path().join("var/state").exists());
}

#[test]
fn who_is_that_user_already_has_nothing_to_give_up() {
    if !is_root() {
        return refused_without_root();
    }
    let folder = place(Some(&NOBODY));
    let mut command = copied(&folder);
    let words = ["--listen", ANY_PORT, "--user", "nobody"];
    let _ = command.args(words).uid(65_534).gid(65_534);
    let path = folder.path().to_owned();
    let child = Child::of(command, self::folder(), |command| {
        let _ = command.current_dir(path);
    });
    assert_eq!(Wire::tcp(child.address()).ask(get("/")).text(), "welcome\n");
    assert_eq!(child.log.with(&["became user"]), [""; 0]);
    stop(child);
}

#[test]
fn who_is_not_there_or_root_by_another_name_is_an_error() {
    if !is_root() {
        return refused_without_root();
    }
    for who in everyone() {
        let folder = place(Some(&who));
        let mut cases = vec![
            ("there-is-no-such-user", "there is no user `there-is-no-such-user`"),
            ("nobody:there-is-no-such-group", "there is no group `there-is-no-such-group`"),
            ("4199999999", "no user has this number, so say a group beside it, as `4199999999:4199999999`"),
        ];
        if who.made {
            cases.push(("toor", "that is root by another name"));
        }
        for (user, why) in cases {
            let said = ended(folder.path(), prepared(&who, &["--listen", ANY_PORT, "--user", user]));
            assert_eq!(
                (said.code, &*said.err),
                (Some(1), &*format!("error: cannot become user `{user}`: {why}\n"))
            );
        }
        assert!(!folder.path().join("var/state").exists());
    }
}

#[test]
fn a_user_that_cannot_be_meant_is_a_problem() {
    let folder = place(None);
    for (user, why) in
        [("root", "to become root is to give up nothing"), ("www:", "after `:` there is no group")]
    {
        let mut command = command(example("user").to_str().unwrap());
        let _ = command.args(["plan", "--listen", ANY_PORT, "--user", user]);
        let said = ended(folder.path(), command);
        assert_eq!(
            (said.code, &*said.err),
            (Some(2), &*format!("error: cannot become user `{user}`: {why}\n"))
        );
    }
}

#[test]
fn what_only_root_reaches_is_an_error_and_not_served() {
    if !is_root() {
        return refused_without_root();
    }
    // The state cannot be made in a folder that is root's, nor anything reached beneath a closed one.
    let folder = place(None);
    let prepared = || prepared(&NOBODY, &["--listen", ANY_PORT, "--user", NOBODY.said]);
    let said = ended(folder.path(), prepared());
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("cannot build what is mounted at `/built`: Permission denied"), "{said:?}");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let said = ended(folder.path(), prepared());
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("error: cannot use root") && said.err.contains("ermission denied"), "{said:?}");
}
