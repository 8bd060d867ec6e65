//! A process that has no descriptors left serves whom it has, and accepts again by itself.

use std::net::TcpStream;

use crate::{
    child::Child,
    lines::log,
    site::{ANY_PORT, FRAMEWORKS, Site, folder, limits, three},
    wire::{Wire, get},
};

#[test]
fn without_descriptors_the_established_are_served_and_others_wait() {
    let child = Child::under("ulimit -n 64", &["--listen", ANY_PORT, "--workers", "2"], folder());
    let mut established: Vec<Wire> = FRAMEWORKS.iter().map(|_| child.wire()).collect();
    for (wire, framework) in established.iter_mut().zip(FRAMEWORKS) {
        assert_eq!(wire.ask(get(&format!("/{framework}/hello/x"))).status, 200);
    }
    for round in 1..=2 {
        // More than it may have; the kernel takes them in.
        let crowd: Vec<TcpStream> =
            (0..100).map(|_| TcpStream::connect(child.address()).expect("the kernel lets it in")).collect();
        let _ = child.log.wait_for(round, &["cannot accept; open connections are served on", "os error 24"]);
        for (wire, framework) in established.iter_mut().zip(FRAMEWORKS) {
            for _ in 0..20 {
                assert_eq!(wire.ask(get(&format!("/{framework}/hello/x"))).text(), "Hello, x!\n");
            }
            wire.send(get(&format!("/{framework}/stream")));
        }
        for wire in &mut established {
            assert_eq!(wire.answer().text().matches("data: ").count(), 10);
        }
        // One that waits, and then they leave.
        let mut waiting = child.wire();
        waiting.send(get("/warp/hello/you"));
        drop(crowd);
        assert_eq!(waiting.answer().text(), "Hello, you!\n");
        let _ = child.log.wait_for(round, &["accepting again"]);
        for framework in FRAMEWORKS {
            assert_eq!(child.wire().ask(get(&format!("/{framework}/hello/x"))).status, 200);
        }
        assert_eq!(child.wire().ask(get("/index.html")).text(), "welcome\n");
    }
    // A lasting trouble is not said with every attempt.
    let said = child.log.with(&["cannot accept"]).len();
    assert!(said < 10, "it was said {said} times");
}

/// Beyond the limit of connections others wait, and are served as soon as there is room.
#[test]
fn more_connections_than_allowed_wait() {
    let site = Site::start(three().limits(limits(|limits| limits.connections = 4)));
    let mut served: Vec<Wire> = (0..4).map(|_| site.wire()).collect();
    for wire in &mut served {
        assert_eq!(wire.ask(get("/axum/hello/x")).status, 200);
    }
    let mut waiting: Vec<Wire> = (0..8).map(|_| site.wire()).collect();
    for (wire, n) in waiting.iter_mut().zip(0..) {
        wire.send(get(&format!("/{}/hello/{n}", FRAMEWORKS[n % 3])));
    }
    let _ = log().wait(&["as many connections as allowed", "connections=4"]);
    assert_eq!(site.status().connections, 4);
    for wire in &mut served {
        assert_eq!(wire.ask(get("/warp/hello/x")).status, 200);
    }
    drop(served);
    for (mut wire, n) in waiting.into_iter().zip(0..) {
        assert_eq!(wire.answer().text(), format!("Hello, {n}!\n"));
    }
}

/// Jobs need descriptors, too: they fail while there are none and go on by themselves.
#[test]
fn without_descriptors_jobs_fail_and_go_on() {
    let child = Child::under("ulimit -n 64", &["--listen", ANY_PORT, "--workers", "1"], folder());
    let _ = child.log.wait(&["\"job\":\"clock\"", "\"ran\""]);
    let crowd: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(child.address()).unwrap()).collect();
    let failed = child.log.wait(&["ERROR", "\"job\":\"clock\"", "failed", "os error 24"]);
    let ran = child.log.with(&["\"job\":\"clock\"", "\"ran\""]).len();
    drop(crowd);
    let _ = child.log.wait_for(ran + 1, &["\"job\":\"clock\"", "\"ran\""]);
    assert!(!failed.is_empty());
}
