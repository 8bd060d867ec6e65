//! A panic in an app ends one request: not the process, not the worker, not the connection's others.

use http::Method;

use crate::{
    child::Child,
    http2::read,
    lines::log,
    site::{ANY_TLS_PORT, FRAMEWORKS, Site, three, three_at},
    wire::{End, get},
};

const OURS: &str = "internal server error\n";

#[test]
fn a_panic_before_the_head_is_one_500() {
    let site = Site::start(three().listen(ANY_TLS_PORT).workers(1));
    for framework in FRAMEWORKS {
        let (hello, panic) = (get(&format!("/{framework}/hello/x")), get(&format!("/{framework}/panic")));
        for mut wire in [site.wire(), site.tls_wire()] {
            for _ in 0..3 {
                let answer = wire.ask(&panic);
                assert_eq!((answer.status, answer.text(), answer.whole), (500, OURS, true), "{framework}");
                // The same connection goes on.
                assert_eq!(wire.ask(&hello).text(), "Hello, x!\n", "{framework}");
            }
        }
        // All at once, and among others.
        let mut wire = site.wire();
        wire.send([&*hello, &*panic, &*hello].concat());
        assert_eq!([wire.answer().status, wire.answer().status, wire.answer().status], [200, 500, 200]);
        let http2 = site.http2();
        let answer = http2.get(&format!("/{framework}/panic"));
        assert_eq!((answer.status, answer.text()), (500, OURS), "{framework}");
        assert_eq!(http2.get(&format!("/{framework}/hello/x")).status, 200, "{framework}");
    }
    site.requests(0);
}

#[test]
fn a_panic_in_a_body_leaves_it_without_its_end() {
    let site = Site::start(three().listen(ANY_TLS_PORT).workers(1));
    for framework in FRAMEWORKS {
        // These are served by the same worker at the same time.
        let mut other = site.wire();
        other.send(get(&format!("/{framework}/stream")));
        let http2 = site.http2();
        let target = format!("/{framework}/panic/body");
        let (same, cut, after) = http2.wait(async {
            let ask = |target: &str| http2.begin(http2.request(Method::GET, target, &[], ""));
            let (same, cut) = (ask(&format!("/{framework}/stream")), ask(&target));
            let same = tokio::spawn(async { read(same.await.unwrap()).await });
            let cut = read(cut.await.unwrap()).await;
            let after = read(ask(&format!("/{framework}/hello/x")).await.unwrap()).await;
            (same.await.unwrap(), cut, after)
        });
        assert_eq!((cut.status, cut.text(), cut.whole), (200, "so far, so good\n", false), "{framework}");
        assert_eq!((same.text().matches("data: ").count(), same.whole), (10, true), "{framework}");
        assert_eq!((after.text(), after.whole), ("Hello, x!\n", true), "{framework}");
        for mut wire in [site.wire(), site.tls_wire()] {
            wire.send(get(&target));
            let answer = wire.answer();
            let seen = (answer.status, answer.text(), answer.whole);
            assert_eq!(seen, (200, "so far, so good\n", false), "{framework}");
            assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        }
        let events = other.answer();
        assert_eq!((events.text().matches("data: ").count(), events.whole), (10, true), "{framework}");
        assert_eq!(other.ask(get(&format!("/{framework}/hello/x"))).status, 200, "{framework}");
    }
    site.requests(0);
}

#[test]
fn a_panic_is_logged_with_its_mount_and_path() {
    let site = Site::start(three_at("-panics"));
    for framework in FRAMEWORKS {
        for (path, words) in
            [("panic", "asked to panic before the head"), ("panic/body", "asked to panic in the body")]
        {
            let target = format!("/{framework}-panics/{path}");
            let mut wire = site.wire();
            wire.send(get(&target));
            drop(wire.try_answer());
            let mount = format!("\"/{framework}-panics\"");
            let line = log().wait(&["ERROR", "an app failed", words, &mount, "GET", &target]);
            assert!(!line.contains('\n'), "{line}");
        }
    }
}

#[test]
fn the_process_outlives_every_panic() {
    let mut child = Child::start();
    for _ in 0..7 {
        for framework in FRAMEWORKS {
            assert_eq!(child.wire().ask(get(&format!("/{framework}/panic"))).status, 500);
            let mut wire = child.wire();
            wire.send(get(&format!("/{framework}/panic/body")));
            assert!(!wire.answer().whole);
            assert_eq!(wire.end(), End::Closed);
        }
    }
    for framework in FRAMEWORKS {
        assert_eq!(child.wire().ask(get(&format!("/{framework}/hello/x"))).status, 200);
    }
    // What is logged of one is a line with a place in it, and no second to each.
    let lines = child.log.wait_for(21, &["a panic: asked to panic before the head"]);
    assert_eq!(lines.len(), 21);
    assert!(lines.iter().all(|line| line.contains("lib.rs:")), "{}", lines[0]);
    child.signal(rustix::process::Signal::TERM);
    assert!(child.exit().success());
}
