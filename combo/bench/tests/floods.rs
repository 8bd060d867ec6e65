//! Every flood is met: by an end of its connection where what it sends is for nothing, by being read no further where
//! it does not read, and otherwise by being served; others are answered meanwhile, and what it took is given back.

use combo::{Address, Command, Deployment, Reply, mount};
use combo_bench::flood::{self, End, Met};

/// Less than all of it, since this is not optimized.
const MOST: usize = 20_000;

/// A bystander waits less in the middle, in milliseconds.
const WAIT: f64 = 50.0;

/// What is served as it comes: it is neither more than others ask for nor kept.
const SERVED: [&str; 9] = [
    "http2 settings",
    "http2 settings, unread",
    "http2 ping",
    "http2 ping, unread",
    "http2 priority",
    "http2 window, bit by bit",
    "chunks of a byte",
    "ranges",
    "websocket ping",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_flood_is_met_and_others_are_served() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let deployment = Deployment::new("flooded")
        .root(root)
        .listen("tcp:0:interface=127.0.0.1")
        .workers(1)
        .access_log(false)
        .mount("/axum", mount::axum(hello_axum::app()))
        .mount("/actix", mount::actix(hello_actix::app))
        .mount("/warp", mount::tower(warp::service(hello_warp::routes())))
        .mount("/", mount::files("static"));
    let handle = combo::start(deployment.plan().expect("a right deployment")).await.expect("a start");
    let Address::Tcp(address) = handle.addresses()[0] else { panic!("it listens on a port") };
    for flood in flood::all() {
        let name = flood.name;
        let met = tokio::task::spawn_blocking(move || flood.meet(address.port(), MOST)).await;
        let Met { sent, end, waits: (median, _) } = met.expect("no panic").expect("a bystander is answered");
        println!("{name}: {sent}, {end:?}, {median} ms");
        assert!(median < WAIT, "{name}: a bystander waits {median} ms");
        let served = SERVED.contains(&name) || name.ends_with("unread") || name == "websocket fragments";
        assert_eq!(end != End::Ended, served, "{name}: {end:?}");
    }
    let Reply::Status(status) = handle.send(Command::Status).await else { panic!("it runs") };
    let floods = status.evicted.iter().find(|row| row.why.contains("flooded")).expect("a row").connections;
    assert!(floods >= 2, "{floods}: {:?}", status.evicted);
}
