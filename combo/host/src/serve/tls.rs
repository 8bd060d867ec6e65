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
    let private = read(key).and_then(|pem| private(&pem)).map_err(|cause| refused("key", key, cause))?;
    let chain =
        read(cert).and_then(|pem| chain(&pem)).map_err(|cause| refused("certificate", cert, cause))?;
    let verifier = match clients {
        Some(Clients { authority, optional }) => {
            let verifier = read(authority).and_then(|pem| verifier(&pem, *optional));
            Some(verifier.map_err(|cause| refused("authority of clients", authority, cause))?)
        }
        None => None,
    };
    let (key, cert): (PathBuf, PathBuf) = (key.into(), cert.into());
    let pair = together(private, chain, verifier);
    Ok(pair.map_err(|cause| Kind::Pair { endpoint: endpoint.to_owned(), key, cert, cause })?)
}

fn read(path: &Path) -> Result<Vec<u8>, BoxError> {
    Ok(std::fs::read(path)?)
}

/// The first private key in a file.
pub(crate) fn private(pem: &[u8]) -> Result<PrivateKeyDer<'static>, BoxError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(cause)
}

/// All certificates in a file, of which there is one.
pub(crate) fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BoxError> {
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(cause)?;
    if chain.is_empty() { Err("there is no certificate in it".into()) } else { Ok(chain) }
}

/// Lets in whoever shows a certificate of the authorities in a file, and perhaps whoever shows none.
pub(crate) fn verifier(pem: &[u8], optional: bool) -> Result<Arc<dyn ClientCertVerifier>, BoxError> {
    let mut roots = RootCertStore::empty();
    for authority in chain(pem)? {
        roots.add(authority)?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if optional { builder.allow_unauthenticated() } else { builder };
    Ok(builder.build()?)
}

/// What a server is made of that shows this chain, if the key is that of its first certificate.
pub(crate) fn together(
    key: PrivateKeyDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<Tls, BoxError> {
    let certificate = chain.first().cloned().ok_or("there is no certificate")?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        })
        .and_then(|builder| builder.with_single_cert(chain, key))
        .map_err(pair)?;
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)), certificate })
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
