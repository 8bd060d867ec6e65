//! The system calls of a whole life, which `combo/DEPLOYING.md` lists: a real strace sees no other.

use std::{collections::BTreeSet, fs, os::unix::fs::chown};

use nix::unistd::Uid;
use rustix::process::Signal;

use crate::{
    child::{Child, command},
    http2::Http2,
    site::{ANY_PORT, ANY_TLS_PORT, FRAMEWORKS, eventually, folder, runtime},
    user::example,
    wire::{Alpn, Wire, get, post},
};

const PAGE: &str = include_str!("../../../combo/DEPLOYING.md");

/// The words of the block after a heading.
fn listed() -> BTreeSet<&'static str> {
    let (_, section) = PAGE.split_once("\n## System calls\n").expect("a section");
    let (_, block) = section.split_once("```text\n").expect("a block");
    block.split("```").next().unwrap().split_whitespace().collect()
}

/// Everything that it does in a life, but for what fails.
fn live(child: &Child) {
    let runtime = runtime();
    let _ = child.log.wait_for(3, &[" serves"]);
    let addresses = child.addresses();
    let address = |scheme: &str| {
        addresses.iter().find_map(|address| address.strip_prefix(scheme)).unwrap().parse().unwrap()
    };
    let (tcp, tls) = (address("http://"), address("https://"));
    let mut wires = [Wire::tcp(tcp), Wire::tls(tls, Alpn::Http1), Wire::unix(&child.path("app.sock"))];
    for wire in &mut wires {
        for framework in FRAMEWORKS {
            for path in ["hello/x", "where", "stream", "panic"] {
                assert!(wire.ask(get(&format!("/{framework}/{path}"))).status < 501);
            }
            assert_eq!(wire.ask(post(&format!("/{framework}/echo"), "all of it")).text(), "all of it");
        }
        for (path, status) in [("/", 200), ("/large", 200), ("/none", 404), ("/../x", 400)] {
            assert_eq!(wire.ask(get(path)).status, status, "{path}");
        }
    }
    let clients = [Http2::tcp(&runtime, tcp), Http2::tls(&runtime, tls)];
    for client in &clients {
        for path in ["/axum/hello/x", "/actix/hello/x", "/warp/hello/x", "/", "/large"] {
            assert_eq!(client.get(path).status, 200, "{path}");
        }
    }
    Wire::tcp(tcp).abort();
    for job in ["clock", "pulse", "changes", "version"] {
        let _ = child.log.wait(&["\"message\":\"ran\"", &format!("\"job\":\"{job}\"")]);
    }
    let _ = child.log.wait(&["\"message\":\"timed out", "\"job\":\"endless\""]);
    fs::write(child.path("static/list.csv"), "a,b\n").unwrap();
    let _ = child.log.wait(&["\"message\":\"ran\"", "\"job\":\"changed\""]);
    // Some of them are still open.
    child.signal(Signal::TERM);
    drop(clients);
    runtime.shutdown_background();
}

#[test]
fn no_system_call_is_made_that_is_not_listed() {
    let folder = folder();
    fs::write(folder.path().join("static/large"), vec![b'x'; 3 << 20]).unwrap();
    let traced = tempfile::tempdir().unwrap();
    let calls = traced.path().join("calls");
    let mut command = command("strace");
    // The tracer is the grandchild, so that the child is the program.
    let _ = command.args(["-D", "-f", "-c", "--summary-columns=name", "-o"]).arg(&calls).arg(example("life"));
    let _ = command.args(["--listen", ANY_PORT, "--listen", ANY_TLS_PORT, "--listen", "unix:app.sock"]);
    if Uid::effective().is_root() {
        let user = Some(65_534);
        for path in ["", "static"] {
            chown(folder.path().join(path), user, user).unwrap();
        }
        let _ = command.args(["--user", "65534:65534"]);
    }
    let mut child = Child::of(command, folder, |_| ());
    live(&child);
    assert!(child.exit().success());
    let said = eventually("the trace is written", || {
        let said = fs::read_to_string(&calls).unwrap_or_default();
        said.lines().any(|line| line.trim() == "total").then_some(said)
    });
    // Beside the table there are lines of the tracer's own, of more words than one.
    let names = said.lines().map(str::trim).filter(|line| {
        line.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    });
    let seen: BTreeSet<&str> = names.filter(|line| !["", "syscall", "total"].contains(line)).collect();
    let listed = listed();
    assert!(seen.len() > 40, "{seen:?}");
    let unlisted: Vec<_> = seen.difference(&listed).collect();
    assert_eq!(unlisted, [&""; 0], "not in the list of combo/DEPLOYING.md");
}
