//! A running deployment for one test: its own folder, its own port, its own host runtime.

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use combo::{Address, Command, Deployment, Errors, Handle, Limits, Reply, Status, mount, secs};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::{
    http2::Http2,
    lines::log,
    wire::{Alpn, Wire},
};

/// How long anything may take before a test gives up. Only what is broken takes it.
pub(crate) const PATIENCE: Duration = secs(60);

pub(crate) const FRAMEWORKS: [&str; 3] = ["axum", "actix", "warp"];

/// A port of the loopback interface that the system chooses.
pub(crate) const ANY_PORT: &str = "tcp:0:interface=127.0.0.1";

/// The same with TLS; every site's folder has these files.
pub(crate) const ANY_TLS_PORT: &str = "ssl:0:interface=127.0.0.1:key=key.pem:cert=cert.pem";

/// The three apps and a folder, as they are deployed.
pub(crate) fn three() -> Deployment {
    three_at("")
}

/// The three apps at `/axum-x`, ..., so that what is logged of them can be told from other tests' lines.
pub(crate) fn three_at(suffix: &str) -> Deployment {
    Deployment::new("it")
        .listen(ANY_PORT)
        .workers(2)
        .mount(format!("/axum{suffix}"), mount::axum(hello_axum::app()))
        .mount(format!("/actix{suffix}"), mount::actix(hello_actix::app))
        .mount(format!("/warp{suffix}"), mount::tower(warp::service(hello_warp::routes())))
        .mount("/", mount::files("static"))
}

/// The default limits, changed.
pub(crate) fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

/// Asks again and again until there is an answer.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "it did not come to this: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Key and certificate of `localhost`, made once.
pub(crate) fn pair() -> &'static (String, String) {
    static PAIR: OnceLock<(String, String)> = OnceLock::new();
    PAIR.get_or_init(|| {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        (made.signing_key.serialize_pem(), made.cert.pem())
    })
}

/// A folder with a page to serve, a key and a certificate.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let (key, cert) = pair();
    std::fs::create_dir(folder.path().join("static")).expect("a folder in it");
    for (name, contents) in [("static/index.html", "welcome\n"), ("key.pem", key), ("cert.pem", cert)] {
        std::fs::write(folder.path().join(name), contents).expect("a file in it");
    }
    folder
}

/// A port of the loopback interface that nobody has just now, for programs that have to be told one.
#[cfg(feature = "outside")]
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A host runtime.
pub(crate) fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Starts what cannot be started; nothing may be left of it.
pub(crate) fn refused(deployment: Deployment, folder: &Path) -> Errors {
    let plan = deployment.root(folder).plan().expect("a right deployment");
    let runtime = runtime();
    let errors = runtime.block_on(combo::start(plan)).expect_err("errors");
    runtime.shutdown_background();
    errors
}

/// A running deployment. Dropping it ends it, and a test whose site does not end fails.
pub(crate) struct Site {
    handle: Option<Handle>,
    runtime: Option<Runtime>,
    folder: TempDir,
}

impl Site {
    pub(crate) fn start(deployment: Deployment) -> Self {
        Self::start_in(folder(), deployment)
    }

    pub(crate) fn start_in(folder: TempDir, deployment: Deployment) -> Self {
        let _ = log();
        let plan = deployment.root(folder.path()).plan().expect("a right deployment");
        let runtime = runtime();
        let handle = runtime.block_on(combo::start(plan)).expect("a world that refuses nothing");
        Self { handle: Some(handle), runtime: Some(runtime), folder }
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.handle.as_ref().expect("it has not been dropped")
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it has not been dropped")
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// The address of the first endpoint of this kind.
    pub(crate) fn address(&self) -> SocketAddr {
        self.find(|address| match address {
            Address::Tcp(address) => Some(*address),
            _ => None,
        })
    }

    pub(crate) fn tls_address(&self) -> SocketAddr {
        self.find(|address| match address {
            Address::Tls(address) => Some(*address),
            _ => None,
        })
    }

    fn find(&self, wanted: impl Fn(&Address) -> Option<SocketAddr>) -> SocketAddr {
        self.handle().addresses().iter().find_map(wanted).expect("such an endpoint")
    }

    pub(crate) fn wire(&self) -> Wire {
        Wire::tcp(self.address())
    }

    pub(crate) fn tls_wire(&self) -> Wire {
        Wire::tls(self.tls_address(), Alpn::Http1)
    }

    pub(crate) fn http2(&self) -> Http2 {
        Http2::tcp(self.runtime(), self.address())
    }

    pub(crate) fn tls_http2(&self) -> Http2 {
        Http2::tls(self.runtime(), self.tls_address())
    }

    /// Waits for a future, and not for ever.
    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        let in_time = async { tokio::time::timeout(PATIENCE, future).await };
        self.runtime().block_on(in_time).expect("it does not take that long")
    }

    pub(crate) fn say(&self, command: Command) -> Reply {
        self.wait(self.handle().send(command))
    }

    pub(crate) fn status(&self) -> Status {
        match self.say(Command::Status) {
            Reply::Status(status) => status,
            other => panic!("no status: {other:?}"),
        }
    }

    /// Begins to stop.
    pub(crate) fn stop(&self) {
        assert_eq!(self.say(Command::Stop), Reply::Begun);
    }

    pub(crate) fn stopped(&self) {
        self.wait(self.handle().stopped());
    }

    /// Waits until so many connections are open.
    pub(crate) fn connections(&self, count: usize) {
        eventually(&format!("{count} open connections"), || {
            (self.status().connections == count).then_some(())
        });
    }

    /// Waits until so many requests are in flight.
    pub(crate) fn requests(&self, count: usize) {
        eventually(&format!("{count} requests in flight"), || {
            (self.status().requests == count).then_some(())
        });
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !thread::panicking() {
            let _ = self.say(Command::Cut);
            self.stopped();
        }
        drop(self.handle.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
