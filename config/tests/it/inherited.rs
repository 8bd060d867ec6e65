//! Sockets that the process is started with.

use std::{net::TcpListener, os::fd::AsRawFd};

use combo::{Deployment, mount};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::{
    child::{Child, command, run},
    site::{folder, refused},
    wire::get,
};

/// A socket that every process inherits which is started from here on, as far as it lasts.
fn passed() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    fcntl_setfd(&listener, FdFlags::empty()).unwrap();
    listener
}

#[test]
fn a_descriptor_is_listened_on() {
    let listener = passed();
    let address = listener.local_addr().unwrap();
    let child = Child::with(&["--listen", &format!("fd:{}", listener.as_raw_fd())], |_| ());
    drop(listener);
    assert_eq!(child.addresses(), [format!("http://{address}")]);
    for target in ["/axum/hello/x", "/actix/hello/x", "/warp/hello/x"] {
        assert_eq!(child.wire().ask(get(target)).status, 200, "{target}");
    }
}

#[test]
fn what_it_was_not_started_with_is_named() {
    let folder = folder();
    let datagram = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    fcntl_setfd(&datagram, FdFlags::empty()).unwrap();
    let deaf = format!("fd:{}", datagram.as_raw_fd());
    let none = "the process was started with none (`LISTEN_FDS` is not set)";
    for (listen, why) in [
        ("systemd:name=web", none),
        ("systemd:index=0", none),
        ("fd:999", "the process was started without a descriptor 999"),
        (&deaf, &format!("descriptor {} is no stream socket that listens", datagram.as_raw_fd())),
    ] {
        let mut command = command(crate::child::BINARY);
        let _ = command.args(["plan", "--open", "--listen", listen]).current_dir(folder.path());
        let _ = command.env_remove("LISTEN_FDS").env_remove("LISTEN_PID");
        let ended = run(command);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.err.contains(&format!("error: cannot listen on `{listen}`: {why}\n")), "{}", ended.err);
    }
    for (pid, why) in [
        (Some("1"), "those that there are belong to process 1 (`LISTEN_PID`)"),
        (None, "nothing says whose those are that there are (`LISTEN_PID` is not set)"),
    ] {
        let mut command = command(crate::child::BINARY);
        let _ = command.args(["plan", "--open", "--listen", "systemd:index=0"]).current_dir(folder.path());
        let _ = command.env("LISTEN_FDS", "1").env_remove("LISTEN_PID");
        let _ = pid.map(|pid| command.env("LISTEN_PID", pid));
        let ended = run(command);
        assert!(ended.err.contains(why), "{}", ended.err);
    }
}

#[test]
fn without_our_main_somebody_has_to_take_them() {
    let errors = refused(
        Deployment::new("none").listen("systemd:index=0").mount("/", mount::redirect("/x")),
        folder().path(),
    );
    let said = errors.iter().map(combo_said).collect::<Vec<_>>();
    assert_eq!(
        said,
        [
            "cannot listen on `systemd:index=0`: nobody has called `combo::take_sockets` at the start of the process"
        ]
    );
}

fn combo_said(error: &combo::Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

/// With a real `systemd-socket-activate`, which binds, waits for somebody to connect and becomes the program.
#[cfg(feature = "outside")]
mod activated {
    use std::{fs, net::SocketAddr, os::unix::net::UnixStream, path::Path};

    use rustix::process::Signal;

    use super::*;
    use crate::{
        site::{eventually, free_port},
        wire::{Alpn, Wire},
    };

    struct Activated {
        child: Child,
        web: SocketAddr,
        other: SocketAddr,
    }

    /// Two ports and a unix socket by these names, which become a process with these words.
    fn start(names: &str, words: &[&str]) -> Activated {
        let folder = folder();
        let pair = ["key.pem", "cert.pem"].map(|name| fs::read_to_string(folder.path().join(name)).unwrap());
        fs::create_dir(folder.path().join("certs")).unwrap();
        fs::write(folder.path().join("certs/localhost.pem"), pair.concat()).unwrap();
        let [web, other] = [free_port(), free_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let path = folder.path().join("app.sock");
        let mut command = command("systemd-socket-activate");
        let _ =
            command.args(["-l", &web.to_string(), "-l", &other.to_string(), "-l", path.to_str().unwrap()]);
        if !names.is_empty() {
            let _ = command.arg(format!("--fdname={names}"));
        }
        let _ = command.arg(crate::child::BINARY).args(words);
        wake(&path);
        let child = Child::of(command, folder, |_| ());
        Activated { child, web, other }
    }

    /// Connects as soon as somebody listens there.
    fn wake(path: &Path) {
        let path = path.to_owned();
        drop(std::thread::spawn(move || eventually("somebody listens", || UnixStream::connect(&path).ok())));
    }

    #[test]
    fn endpoints_take_their_sockets_by_name() {
        let words = ["--listen", "systemd:name=web", "--listen", "systemd:name=local"];
        let mut there = start("web:web:local", &words);
        let _ = there.child.log.wait_for(3, &[" serves"]);
        let path = there.child.path("app.sock");
        let expected = [
            format!("http://{}", there.web),
            format!("http://{}", there.other),
            format!("unix:{}", path.display()),
        ];
        assert_eq!(there.child.addresses(), expected);
        for address in [there.web, there.other] {
            assert_eq!(Wire::tcp(address).ask(get("/axum/hello/x")).status, 200);
        }
        assert_eq!(Wire::unix(&path).ask(get("/actix/hello/x")).status, 200);
        there.child.signal(Signal::TERM);
        assert_eq!(there.child.exit().code(), Some(0));
        // The file is not ours to take away.
        assert!(path.exists());
    }

    #[test]
    fn endpoints_take_their_sockets_by_place_and_number() {
        let there = start("", &["--listen", "fd:3", "--listen", "systemd:index=2"]);
        assert_eq!(Wire::tcp(there.web).ask(get("/warp/hello/x")).status, 200);
        assert_eq!(Wire::unix(&there.child.path("app.sock")).ask(get("/warp/hello/x")).status, 200);
        let left = there.child.log.wait(&["no endpoint takes it"]);
        assert!(left.contains("descriptor 4") && left.contains(&there.other.to_string()), "{left}");
    }

    #[test]
    fn what_is_inherited_may_speak_tls() {
        let tls = "tls:certs:systemd:name=https";
        let words =
            ["--listen", "redirect:systemd:name=http", "--listen", tls, "--listen", "systemd:name=local"];
        let there = start("http:https:local", &words);
        let _ = there.child.log.wait_for(3, &[" serves"]);
        assert_eq!(Wire::tls(there.other, Alpn::Http1).ask(get("/axum/hello/x")).status, 200);
        let answer = Wire::tcp(there.web).ask(get("/axum/hello/x"));
        let location = format!("https://test:{}/axum/hello/x", there.other.port());
        assert_eq!((answer.status, answer.header("location")), (308, Some(&*location)));
    }
}
