//! Plain hyper on one thread: connections as combo has them where answers are small, and nothing else.

use std::{
    error::Error,
    io,
    net::{Ipv4Addr, SocketAddr},
};

use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::HttpService,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, runtime, task::LocalSet};

/// Serves every connection with what `service` makes for its peer, and says when it listens.
pub(crate) fn run<S, B>(port: u16, service: impl Fn(SocketAddr) -> S) -> io::Result<()>
where
    S: HttpService<Incoming, ResBody = B, Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
{
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        println!("listening");
        loop {
            let (connection, peer) = listener.accept().await?;
            connection.set_nodelay(true)?;
            let served = http1::Builder::new()
                .half_close(true)
                .header_read_timeout(None)
                .writev(false)
                .serve_connection(TokioIo::new(connection), service(peer));
            drop(tokio::task::spawn_local(async move {
                if let Err(error) = served.await {
                    eprintln!("error: {error}");
                }
            }));
        }
    })
}
