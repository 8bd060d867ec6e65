//! Opens connections to 127.0.0.1 one after another, with TLS 1.3 and X25519 alone, and closes each when the handshake
//! is over: `shake COUNT PORT CERTIFICATE full|resumed [HOST]`, which is the address unless it is said. A resumed one has a ticket of the one before, and takes
//! another. Ends with an error if a handshake is of the other kind. The file is PEM, and trusted.

use std::{error::Error, net::Ipv4Addr, process::ExitCode, sync::Arc};

use combo_bench::{client, program};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::TLS13,
};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    program("shake COUNT PORT CERTIFICATE full|resumed [HOST]", |words| {
        let [count, port, certificate, kind, host @ ..] = words else { return None };
        let host = match host {
            [] => Ipv4Addr::LOCALHOST.into(),
            [host] => ServerName::try_from((*host).to_owned()).ok()?,
            _ => return None,
        };
        let resumed = match *kind {
            "full" => false,
            "resumed" => true,
            _ => return None,
        };
        Some(shake(count.parse().ok()?, port.parse().ok()?, certificate, resumed, &host))
    })
}

fn shake(
    count: usize,
    port: u16,
    certificate: &str,
    resumed: bool,
    host: &ServerName<'static>,
) -> Result<String, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(certificate)? {
        roots.add(certificate?)?;
    }
    let provider =
        CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..aws_lc_rs::default_provider() };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if resumed {
        let config = Arc::new(config);
        handshake(port, host, &config, HandshakeKind::Full, true)?;
        for _ in 0..count {
            handshake(port, host, &config, HandshakeKind::Resumed, true)?;
        }
    } else {
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);
        for _ in 0..count {
            handshake(port, host, &config, HandshakeKind::Full, false)?;
        }
    }
    Ok(format!("{count} handshakes"))
}

fn handshake(
    port: u16,
    host: &ServerName<'static>,
    config: &Arc<ClientConfig>,
    kind: HandshakeKind,
    ticket: bool,
) -> Result<(), Failure> {
    let mut socket = client::connect(port)?;
    let mut tls = ClientConnection::new(config.clone(), host.clone())?;
    while tls.is_handshaking() {
        let _ = tls.complete_io(&mut socket)?;
    }
    while ticket && tls.tls13_tickets_received() == 0 {
        if tls.read_tls(&mut socket)? == 0 {
            return Err("it was closed before there was a ticket".into());
        }
        let _ = tls.process_new_packets()?;
    }
    tls.send_close_notify();
    let _ = tls.write_tls(&mut socket)?;
    match tls.handshake_kind() {
        Some(found) if found == kind => Ok(()),
        found => Err(format!("a handshake was {found:?}, not {kind:?}").into()),
    }
}
