//! A connection -> a decrypted connection. TLS 1.2 and 1.3 by rustls; HTTP/2 or 1.1 by ALPN.
#![expect(clippy::disallowed_methods, reason = "keys and certificates are files")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use combo_core::{BoxError, endpoint::Clients, pattern::normal_host};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection,
    client::verify_server_name,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::{ParsedCertificate, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio_rustls::TlsAcceptor;

use super::worker::Tls;
use crate::error::{Error, Kind};

/// What ALPN calls HTTP/2 (RFC 9113, section 3.3).
pub(crate) const H2: &[u8] = b"h2";

/// Reads key and certificate chain and checks that they belong together; reads whose certificates clients
/// show, if they are asked.
pub(crate) fn open(endpoint: &str, key: &Path, cert: &Path, clients: Option<&Clients>) -> Result<Tls, Error> {
    let refused = |what, path: &Path, cause: BoxError| -> Error {
        Kind::Read { endpoint: endpoint.to_owned(), what, path: path.to_owned(), cause }.into()
    };
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| refused("key", key, cause(error)))?;
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| refused("certificate", cert, cause(error)))?;
    let Some(certificate) = chain.first().cloned() else {
        return Err(refused("certificate", cert, "there is no certificate in it".into()));
    };
    let verifier = match clients {
        Some(clients) => {
            let authority = &clients.authority;
            Some(verifier(clients).map_err(|cause| refused("authority of clients", authority, cause))?)
        }
        None => None,
    };
    let (key, cert): (PathBuf, PathBuf) = (key.into(), cert.into());
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        })
        .and_then(|builder| builder.with_single_cert(chain, private))
        .map_err(|error| Kind::Pair { endpoint: endpoint.to_owned(), key, cert, cause: pair(error) })?;
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)), certificate })
}

/// Lets in whoever shows a certificate of the authorities, and perhaps whoever shows none.
fn verifier(clients: &Clients) -> Result<Arc<dyn ClientCertVerifier>, BoxError> {
    let mut roots = RootCertStore::empty();
    let authorities = CertificateDer::pem_file_iter(&clients.authority).map_err(cause)?;
    for authority in authorities {
        roots.add(authority.map_err(cause)?)?;
    }
    if roots.is_empty() {
        return Err("there is no certificate in it".into());
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if clients.optional { builder.allow_unauthenticated() } else { builder };
    Ok(builder.build()?)
}

/// Whether a certificate is for this host, which may have a port.
pub(crate) fn covers(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let name = normal_host(host);
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
    let (Ok(certificate), Ok(name)) = (ParsedCertificate::try_from(certificate), ServerName::try_from(name))
    else {
        return false;
    };
    verify_server_name(&certificate, &name).is_ok()
}

/// What was agreed upon.
pub(crate) fn facts(connection: &ServerConnection) -> combo_core::context::Tls {
    let mut facts = combo_core::context::Tls::default();
    facts.server_name = connection.server_name().map(str::to_owned);
    facts.alpn = connection.alpn_protocol().map(|alpn| String::from_utf8_lossy(alpn).into_owned());
    facts.version = connection.protocol_version().map(|version| format!("{version:?}"));
    facts.cipher_suite = connection.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
    let chain = connection.peer_certificates().unwrap_or_default();
    facts.client_certificates = chain.iter().map(|certificate| certificate.to_vec()).collect();
    facts
}

fn cause(error: rustls::pki_types::pem::Error) -> BoxError {
    match error {
        rustls::pki_types::pem::Error::Io(error) => error.into(),
        rustls::pki_types::pem::Error::NoItemsFound => "there is none in it".into(),
        other => other.into(),
    }
}

fn pair(error: rustls::Error) -> BoxError {
    match error {
        rustls::Error::InconsistentKeys(_) => "the key is not the certificate's".into(),
        other => other.into(),
    }
}
