//! Starting: all or nothing, in sentences; endpoints of every kind; what is said at the point of use.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::Path,
    process::Command,
    thread,
};

use combo::{Address, Deployment, mount};
use rustix::process::Signal;

use crate::{
    child::{BINARY, Child, Said, command, run},
    site::{ANY_PORT, ANY_TLS_PORT, FRAMEWORKS, Site, folder, pair, refused, three},
    wire::{Wire, get},
};

/// The binary in a folder, to its end.
fn said(folder: &Path, words: &[&str]) -> Said {
    said_with(folder, words, |_| ())
}

fn said_with(folder: &Path, words: &[&str], change: impl FnOnce(&mut Command)) -> Said {
    let mut command = command(BINARY);
    change(command.current_dir(folder).args(words));
    run(command)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_port_in_use_is_one_sentence_and_nothing_is_served() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let endpoint = format!("tcp:{port}:interface=127.0.0.1");
    let ended = said(folder.path(), &["--listen", "unix:other.sock", "--listen", &endpoint]);
    let why = "(something else listens there): Address already in use (os error 98)";
    assert_eq!((ended.code, &*ended.out), (Some(1), ""));
    assert_eq!(ended.err, format!("error: cannot listen on `{endpoint}` {why}\n"));
    assert!(!folder.path().join("other.sock").exists());
    assert!(!folder.path().join("static/time.txt").exists());
}

#[test]
fn everything_that_is_refused_is_said() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    fs::remove_dir_all(folder.path().join("static")).unwrap();
    let (tcp, unix) = (format!("tcp:{port}:interface=127.0.0.1"), "unix:nowhere/app.sock");
    let ssl = "ssl:0:key=no.pem:cert=cert.pem";
    let ended = said(folder.path(), &["--listen", &tcp, "--listen", unix, "--listen", ssl]);
    assert_eq!((ended.code, &*ended.out), (Some(1), ""));
    let lines: Vec<&str> = ended.err.lines().collect();
    let expected = [
        "error: cannot open folder `static`, which job `clock` may write: ",
        "error: cannot build what is mounted at `/`: ",
        &format!("error: cannot listen on `{tcp}`"),
        "error: cannot listen on `unix:nowhere/app.sock",
        "error: cannot read the key `",
    ];
    assert_eq!(lines.len(), expected.len(), "{}", ended.err);
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\n{expected}");
    }
}

#[test]
fn every_problem_is_a_line() {
    let folder = folder();
    for command in ["run", "plan"] {
        let ended = said(
            folder.path(),
            &[command, "--listen", "pigeon:1", "--listen", "tcp:http", "--listen", "unix:", "--workers", "0"],
        );
        assert_eq!((ended.code, &*ended.out), (Some(2), ""), "{ended:?}");
        let expected = [
            "error: cannot understand endpoint `pigeon:1`: `pigeon` is none of tcp, tcp6, unix, systemd, fd, ssl, tls, le, lets, acme, haproxy, redirect",
            "error: cannot understand endpoint `tcp:http`: `http` is not a port (0 to 65535; an address goes behind it, as `interface=127.0.0.1`)",
            "error: cannot understand endpoint `unix:`: it has no path",
            "error: workers cannot be `0`: it must be 1 to 1024",
        ];
        assert_eq!(ended.err.lines().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_root_that_does_not_exist_is_named() {
    let folder = folder();
    let ended = said(folder.path(), &["--root", "nowhere", "--listen", ANY_PORT]);
    assert_eq!((ended.code, &*ended.out), (Some(1), ""));
    assert_eq!(ended.err, "error: cannot use root `nowhere`: No such file or directory (os error 2)\n");
}

#[test]
fn keys_and_certificates_that_are_none_are_named() {
    let folder = folder();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::create_dir(folder.path().join("dir.pem")).unwrap();
    for (name, contents) in [
        ("other.pem", other.signing_key.serialize_pem()),
        ("empty.pem", String::new()),
        ("text.pem", "not a key\n".to_owned()),
        ("torn.pem", pair().0[..60].to_owned()),
        ("bad.pem", pair().0.replacen('M', "!", 1)),
    ] {
        fs::write(folder.path().join(name), contents).unwrap();
    }
    let path = |name: &str| folder.path().canonicalize().unwrap().join(name).display().to_string();
    for (key, cert, expected) in [
        ("no.pem", "cert.pem", format!("cannot read the key `{}` of ", path("no.pem"))),
        ("key.pem", "no.pem", format!("cannot read the certificate `{}` of ", path("no.pem"))),
        ("dir.pem", "cert.pem", format!("cannot read the key `{}` of ", path("dir.pem"))),
        ("empty.pem", "cert.pem", format!("cannot read the key `{}` of ", path("empty.pem"))),
        ("text.pem", "cert.pem", format!("cannot read the key `{}` of ", path("text.pem"))),
        ("torn.pem", "cert.pem", format!("cannot read the key `{}` of ", path("torn.pem"))),
        ("bad.pem", "cert.pem", format!("cannot read the key `{}` of ", path("bad.pem"))),
        ("cert.pem", "cert.pem", format!("cannot read the key `{}` of ", path("cert.pem"))),
        ("key.pem", "empty.pem", format!("cannot read the certificate `{}` of ", path("empty.pem"))),
        ("key.pem", "key.pem", format!("cannot read the certificate `{}` of ", path("key.pem"))),
        (
            "other.pem",
            "cert.pem",
            format!("cannot use key `{}` with certificate `{}` for ", path("other.pem"), path("cert.pem")),
        ),
    ] {
        let endpoint = format!("ssl:0:interface=127.0.0.1:key={key}:cert={cert}");
        let errors = refused(three().listen(&endpoint), folder.path()).to_string();
        assert!(errors.starts_with(&expected), "{key} {cert}: {errors}");
        assert!(errors.contains(&endpoint) || errors.contains("interface=127.0.0.1"), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}

#[test]
fn a_unix_socket_has_a_mode_and_goes_at_the_end() {
    let site = Site::start(three().listen("unix:app.sock").listen("unix:private.sock:mode=600"));
    let (open, private) = (site.path("app.sock"), site.path("private.sock"));
    assert_eq!((mode(&open), mode(&private)), (0o660, 0o600));
    for path in [&open, &private] {
        for framework in FRAMEWORKS {
            let seen = Wire::unix(path).ask(get(&format!("/{framework}/where"))).json();
            assert_eq!(
                (&seen["peer"], &seen["scheme"]),
                (&serde_json::Value::Null, &"http".into()),
                "{seen}"
            );
        }
    }
    site.stop();
    site.stopped();
    assert!(!open.exists() && !private.exists());
}

#[test]
fn a_socket_that_a_killed_process_left_is_replaced() {
    let mut child = Child::with(&["--listen", "unix:app.sock"], |_| ());
    let path = child.path("app.sock");
    assert_eq!(Wire::unix(&path).ask(get("/axum/hello/x")).status, 200);
    child.signal(Signal::KILL);
    assert!(!child.exit().success());
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    assert!(UnixStream::connect(&path).is_err());
    let plan = three().listen("unix:app.sock").root(child.path(".")).plan().unwrap();
    let runtime = crate::site::runtime();
    let handle = runtime.block_on(combo::start(plan)).unwrap();
    assert_eq!(Wire::unix(&path).ask(get("/axum/hello/x")).status, 200);
    drop(handle);
}

#[test]
fn a_socket_in_use_and_a_file_in_the_way_are_left_alone() {
    let folder = folder();
    let path = folder.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let deployment = || three().listen("unix:app.sock");
    let error = refused(deployment(), folder.path()).to_string();
    assert!(error.starts_with("cannot listen on `unix:app.sock` (something else listens there)"), "{error}");
    // It still belongs to the other.
    let connected = UnixStream::connect(&path).unwrap();
    drop((listener.accept().unwrap(), connected));
    drop(listener);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    let error = refused(deployment(), folder.path()).to_string();
    assert!(error.starts_with("cannot listen on `unix:app.sock`"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_socket_that_is_somebody_elses_by_now_is_not_removed() {
    let site = Site::start(three().listen("unix:app.sock"));
    let path = site.path("app.sock");
    fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    site.stop();
    site.stopped();
    let connected = UnixStream::connect(&path).unwrap();
    drop((other.accept().unwrap(), connected));
}

#[test]
fn a_port_is_every_interface_of_both_families() {
    let child = Child::with(&["--port", "0"], |_| ());
    let address = child.address();
    assert!(address.ip().is_loopback() && address.port() > 0, "{address}");
    let mut ipv4 = Wire::tcp(([127, 0, 0, 1], address.port()).into());
    let seen = ipv4.ask(get("/axum/where")).json();
    assert!(seen["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{seen}");
    let ipv6 = ("::1", address.port());
    match TcpListener::bind(("::1", 0)) {
        Ok(_) => {
            let mut ipv6 =
                Wire::tcp(std::net::ToSocketAddrs::to_socket_addrs(&ipv6).unwrap().next().unwrap());
            let seen = ipv6.ask(get("/axum/where")).json();
            assert!(seen["peer"].as_str().is_some_and(|peer| peer.starts_with("[::1]:")), "{seen}");
        }
        // A machine without IPv6 has only the other.
        Err(error) => assert!(TcpStream::connect(ipv6).is_err(), "{error}"),
    }
}

#[test]
fn addresses_are_reported_as_they_turned_out() {
    let site = Site::start(three().listen(ANY_PORT).listen(ANY_TLS_PORT).listen("unix:app.sock"));
    let addresses = site.handle().addresses();
    let [Address::Tcp(one), Address::Tcp(two), Address::Tls(three), Address::Unix(four)] = addresses else {
        panic!("{addresses:?}");
    };
    for address in [one, two] {
        assert_eq!(Wire::tcp(*address).ask(get("/axum/hello/x")).status, 200);
    }
    assert!(one.port() != two.port() && three.port() > 0);
    assert_eq!(site.tls_wire().ask(get("/axum/hello/x")).status, 200);
    assert_eq!(fs::canonicalize(four).unwrap(), fs::canonicalize(site.path("app.sock")).unwrap());
}

#[test]
fn a_plan_is_printed_and_nothing_opened() {
    let folder = folder();
    fs::remove_dir_all(folder.path().join("static")).unwrap();
    let ended = said(folder.path(), &["plan", "--listen", "unix:app.sock", "--listen", "tcp:1"]);
    assert_eq!((ended.code, &*ended.err), (Some(0), ""), "{ended:?}");
    for line in [
        "frankenstein",
        "  unix:app.sock",
        "  tcp:1, every interface",
        "  /actix  an actix app (`hello_actix::app`)",
    ] {
        assert!(ended.out.lines().any(|said| said == line), "{line}\n{}", ended.out);
    }
    assert!(ended.out.contains("\n  clock  every 4s\n"), "{}", ended.out);
    assert!(!folder.path().join("app.sock").exists());
}

#[test]
fn a_plan_whose_reader_leaves_is_no_error() {
    let folder = folder();
    let mut shell = command("sh");
    let script = r#"{ "$0" plan; echo "exit $?" >&2; } | head -n 1"#;
    let _ = shell.args(["-c", script, BINARY]).current_dir(folder.path());
    let ended = run(shell);
    assert_eq!((&*ended.out, &*ended.err), ("frankenstein\n", "exit 0\n"));
    // Nobody reads any of it.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut plan = command(BINARY);
    let plan = plan.arg("plan").current_dir(folder.path()).stdout(writer).output().unwrap();
    assert_eq!((plan.status.code(), &*plan.stderr), (Some(0), &b""[..]));
}

#[test]
fn flags_win_over_variables_and_both_over_code() {
    let folder = folder();
    let listens = |words: &[&str], variables: &[(&str, &str)]| -> Vec<String> {
        let words = [&["plan"], words].concat();
        let ended = said_with(folder.path(), &words, |command| {
            let _ = command.envs(variables.iter().copied());
        });
        assert_eq!((ended.code, &*ended.err), (Some(0), ""), "{words:?} {variables:?}");
        let lines = ended.out.lines().skip_while(|line| *line != "listens on").skip(1);
        let plain = |line: &str| line.trim().trim_end_matches(", every interface").to_owned();
        lines.take_while(|line| !line.is_empty()).map(plain).collect()
    };
    assert_eq!(listens(&[], &[]), ["tcp:8080"]);
    assert_eq!(listens(&[], &[("COMBO_LISTEN", ""), ("COMBO_WORKERS", "")]), listens(&[], &[]));
    assert_eq!(listens(&[], &[("COMBO_LISTEN", "tcp:1")]), ["tcp:1"]);
    assert_eq!(listens(&[], &[("COMBO_LISTEN", "tcp:1 unix:a")]), ["tcp:1", "unix:a"]);
    assert_eq!(listens(&["--listen", "tcp:2"], &[("COMBO_LISTEN", "tcp:1")]), ["tcp:2"]);
    assert_eq!(listens(&["--listen", "tcp:2", "--listen", "3"], &[]), ["tcp:2", "tcp:3"]);
    assert_eq!(listens(&["--port", "4"], &[("COMBO_LISTEN", "tcp:1")]), ["tcp:4"]);
    assert_eq!(listens(&["--port", "4", "--port", "unix:a"], &[]), ["tcp:4", "unix:a"]);
    assert_eq!(
        listens(&["--port", "4", "--listen", "tcp:2"], &[("COMBO_LISTEN", "tcp:1")]),
        ["tcp:2", "tcp:4"]
    );
}

#[test]
fn root_workers_and_log_can_be_said_at_the_point_of_use() {
    // By flags, over variables that say otherwise.
    let other = folder();
    let mut child = Child::with(&["--listen", ANY_PORT, "--workers", "3", "--log", "json"], |command| {
        let _ = command.env("COMBO_WORKERS", "1").env("COMBO_LOG", "off").env("COMBO_LISTEN", "tcp:1");
    });
    assert_eq!(child.threads("combo-worker-"), 3);
    assert_eq!(child.wire().ask(get("/index.html")).text(), "welcome\n");
    let line = child.log.wait(&["\"path\":\"/index.html\""]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["status"], 200);
    child.signal(Signal::TERM);
    assert!(child.exit().success());
    fs::write(other.path().join("static/index.html"), "another\n").unwrap();
    let child = Child::with(
        &["--root", other.path().to_str().unwrap(), "--log", "text", "--no-access-log"],
        |command| {
            let _ = command.env("COMBO_LISTEN", ANY_PORT).env("COMBO_WORKERS", "1");
        },
    );
    assert_eq!(child.threads("combo-worker-"), 1);
    let address = child.log.wait(&["frankenstein serves"]);
    let address = address.split("address=http://").nth(1).unwrap().parse().unwrap();
    assert_eq!(Wire::tcp(address).ask(get("/index.html")).text(), "another\n");
    assert_eq!(child.log.with(&["/index.html"]), [""; 0]);
}

#[test]
fn nothing_is_logged_where_that_is_wanted() {
    let folder = folder();
    let mut command = command(BINARY);
    let _ = command.args(["--listen", "unix:app.sock", "--log", "off"]).current_dir(folder.path());
    let running = thread::spawn(move || run(command));
    let socket = folder.path().join("app.sock");
    drop(crate::site::eventually("it serves", || UnixStream::connect(&socket).ok()));
    assert_eq!(Wire::unix(&socket).ask(get("/axum/panic")).status, 500);
    let pid = crate::site::eventually("its process", || {
        let of_it = |pid: &u32| {
            fs::read_link(format!("/proc/{pid}/cwd"))
                .is_ok_and(|cwd| cwd == folder.path().canonicalize().unwrap())
        };
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find(of_it)
    });
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let ended = running.join().unwrap();
    assert_eq!((ended.code, &*ended.out), (Some(0), ""));
    assert!(!ended.err.contains("INFO") && !ended.err.contains("serves"), "{}", ended.err);
}

#[test]
fn help_and_version_are_answers_and_wrong_usage_is_none() {
    let folder = folder();
    for (words, code, contains) in [
        (&["--help"][..], 0, "--listen <ENDPOINT>"),
        (&["-h"], 0, "--workers <N>"),
        (&["plan", "--help"], 0, "COMBO_ROOT"),
        (&["--version"], 0, concat!("frankenstein ", env!("CARGO_PKG_VERSION"))),
        (&["-V"], 0, concat!("frankenstein ", env!("CARGO_PKG_VERSION"))),
        (&["dance"], 2, "dance"),
        (&["--listen"], 2, "--listen"),
        (&["--workers", "many"], 2, "many"),
        (&["--log", "xml"], 2, "xml"),
        (&["--wrong"], 2, "--wrong"),
        (&["run", "again"], 2, "again"),
    ] {
        let ended = said(folder.path(), words);
        let (told, silent) = if code == 0 { (&ended.out, &ended.err) } else { (&ended.err, &ended.out) };
        assert_eq!((ended.code, &**silent), (Some(code), ""), "{words:?}: {ended:?}");
        assert!(told.contains(contains), "{words:?}: {told}");
    }
}

#[test]
fn what_is_built_before_the_start_may_fail_and_names_its_mount() {
    let folder = folder();
    let deployment = Deployment::new("broken")
        .listen("unix:app.sock")
        .mount("/good", mount::redirect("/x"))
        .mount(
            "/broken",
            mount::build(|| async { Err("the database is away".into()) as Result<_, combo::BoxError> }),
        )
        .mount("/panics", mount::build(|| async { panic!("not today") as Result<_, combo::BoxError> }));
    let errors = refused(deployment, folder.path());
    let lines: Vec<String> = errors.to_string().lines().map(ToOwned::to_owned).collect();
    let expected = [
        "cannot build what is mounted at `/broken`: the database is away",
        "cannot build what is mounted at `/panics`: it panicked: not today",
    ];
    assert_eq!(lines, expected);
    assert!(!folder.path().join("app.sock").exists());
}
