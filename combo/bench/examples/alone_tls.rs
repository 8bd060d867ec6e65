//! An app over TLS without combo, on one thread: `alone_tls FRAMEWORK PORT CERTIFICATE KEY`. Axum and
//! warp have no TLS of their own: their apps are behind plain hyper and tokio-rustls, with the loop that
//! everybody writes for it. Actix is under its own `HttpServer`. The files are PEM.

use std::{io, net::Ipv4Addr, path::Path, process::ExitCode, sync::Arc};

use actix_web::HttpServer;
use combo::BoxError;
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    server::conn::http1,
    service::Service,
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
};
use tokio_rustls::TlsAcceptor;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let Some((framework, port, certificate, key)) = parse(&words) else {
        eprintln!("usage: alone_tls axum|warp|actix PORT CERTIFICATE KEY");
        return ExitCode::from(2);
    };
    match run(framework, port, certificate, key) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot serve on `127.0.0.1:{port}`: {error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Clone, Copy)]
enum Framework {
    Axum,
    Warp,
    Actix,
}

fn parse(words: &[String]) -> Option<(Framework, u16, &Path, &Path)> {
    let [framework, port, certificate, key] = words else { return None };
    let framework = match framework.as_str() {
        "axum" => Framework::Axum,
        "warp" => Framework::Warp,
        "actix" => Framework::Actix,
        _ => return None,
    };
    Some((framework, port.parse().ok()?, Path::new(certificate), Path::new(key)))
}

fn run(framework: Framework, port: u16, certificate: &Path, key: &Path) -> Result<(), BoxError> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let mut tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    match framework {
        Framework::Axum => on_one_thread(&TowerToHyperService::new(hello_axum::app()), port, tls)?,
        Framework::Warp => {
            on_one_thread(&TowerToHyperService::new(warp::service(hello_warp::routes())), port, tls)?;
        }
        Framework::Actix => actix_web::rt::System::new().block_on(async {
            let server = HttpServer::new(hello_actix::app).workers(1);
            server.bind_rustls_0_23((Ipv4Addr::LOCALHOST, port), tls)?.run().await
        })?,
    }
    Ok(())
}

fn on_one_thread<S, B>(app: &S, port: u16, tls: ServerConfig) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let tls = TlsAcceptor::from(Arc::new(tls));
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        loop {
            let (connection, _) = listener.accept().await?;
            let (tls, app) = (tls.clone(), app.clone());
            drop(tokio::spawn(async move {
                if let Err(error) = serve(app, connection, &tls).await {
                    eprintln!("error: {error}");
                }
            }));
        }
    })
}

async fn serve<S, B>(app: S, connection: TcpStream, tls: &TlsAcceptor) -> Result<(), BoxError>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>>,
    B: Body<Error: Into<BoxError>> + 'static,
{
    connection.set_nodelay(true)?;
    let connection = TokioIo::new(tls.accept(connection).await?);
    Ok(http1::Builder::new().serve_connection(connection, app).with_upgrades().await?)
}
