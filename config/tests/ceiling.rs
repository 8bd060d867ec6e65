//! A process that has as much memory as it may have. It is one of its own, so that nobody else's counts.

use std::{
    hint::black_box,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use combo::{Address, Deployment, Limits, mount};

const ROOM: usize = 64 << 20;

fn ask(connection: &mut TcpStream, path: &str) -> String {
    connection.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).expect("it is open");
    answer(connection)
}

/// Until it has been silent for a moment.
fn answer(connection: &mut TcpStream) -> String {
    let (mut answer, mut bytes) = (Vec::new(), [0; 4_096]);
    connection.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    while let Ok(read @ 1..) = connection.read(&mut bytes) {
        answer.extend_from_slice(&bytes[..read]);
        connection.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "it did not come to this: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn used() -> u64 {
    let said = std::fs::read_to_string("/proc/self/statm").expect("a number");
    let pages: Vec<u64> = said.split(' ').filter_map(|word| word.trim().parse().ok()).collect();
    (pages[1] - pages[2]) * rustix::param::page_size() as u64
}

#[test]
fn above_its_ceiling_nothing_new_is_begun_and_what_was_goes_on() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let limits = Limits { memory: Some(used() + ROOM as u64), ..Limits::default() };
    let deployment = Deployment::new("full")
        .listen("tcp:0:interface=127.0.0.1")
        .workers(1)
        .limits(limits)
        .mount("/", mount::axum(hello_axum::app()));
    let handle = runtime.block_on(combo::start(deployment.plan().expect("a plan"))).expect("a start");
    let Address::Tcp(address) = handle.addresses()[0] else { panic!("a port") };
    let connect = |address: SocketAddr| TcpStream::connect(address).expect("the kernel lets it in");
    let (mut known, mut begun) = (connect(address), connect(address));
    assert!(ask(&mut known, "/hello/x").starts_with("HTTP/1.1 200"));
    begun.write_all(b"GET /slow?ms=3000 HTTP/1.1\r\nHost: a\r\n\r\n").expect("it is open");
    let ballast = black_box(vec![1_u8; 2 * ROOM]);
    until("it is full", || {
        let answer = ask(&mut known, "/hello/x");
        assert!(answer.starts_with("HTTP/1.1 200") || answer.contains("no memory to spare"), "{answer}");
        answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1")
    });
    // Who comes now waits, who was there is answered, and what was begun is finished.
    let mut waiting = connect(address);
    waiting.write_all(b"GET /hello/you HTTP/1.1\r\nHost: a\r\n\r\n").expect("the kernel takes it");
    waiting.set_read_timeout(Some(Duration::from_millis(300))).expect("a socket");
    assert!(waiting.read(&mut [0]).is_err(), "it is not let in");
    assert!(answer(&mut begun).contains("waited 3000 ms"));
    assert!(ask(&mut known, "/hello/x").starts_with("HTTP/1.1 503"));
    drop(black_box(ballast));
    assert!(answer(&mut waiting).contains("Hello, you!"));
    until("there is room", || ask(&mut known, "/hello/x").starts_with("HTTP/1.1 200"));
    drop(handle);
}
