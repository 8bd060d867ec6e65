//! Serves an actix-web app by plain hyper, on one thread and without actix's own server:
//!
//! ```sh
//! cargo run --example hyper
//! curl http://127.0.0.1:8080/hello/world
//! ```

use std::{error::Error, net::Ipv4Addr};

use actix_web::{App, HttpRequest, get, web};
use combo_actix::{ActixService, Arrival};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    task::{LocalSet, spawn_local},
};

#[get("/hello/{name}")]
async fn hello(name: web::Path<String>, request: HttpRequest) -> String {
    format!("Hello, {name}, from {:?}!\n", request.peer_addr())
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let service = ActixService::new(|| App::new().service(hello)).await?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 8080)).await?;
    loop {
        let (socket, peer) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let service = service.clone();
        let _connection = spawn_local(async move {
            let answer = service_fn(|request| {
                let answer = service.call_with(request, Arrival { peer: Some(peer), ..Arrival::default() });
                async { Ok::<_, std::convert::Infallible>(answer.await) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), answer);
            if let Err(error) = connection.with_upgrades().await {
                eprintln!("{peer}: {error}");
            }
        });
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    LocalSet::new().run_until(serve()).await
}
