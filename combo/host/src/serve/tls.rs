//! A connection -> a decrypted connection. TLS 1.2 and 1.3 by rustls; HTTP/2 or 1.1 by ALPN.
#![expect(clippy::disallowed_methods, reason = "keys and certificates are files")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use combo_core::BoxError;
use rustls::{
    ConfigBuilder, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

use crate::error::{Error, Kind};

/// What ALPN calls HTTP/2 (RFC 9113, section 3.3).
pub(crate) const H2: &[u8] = b"h2";

/// Reads key and certificate chain and checks that they belong together.
pub(crate) fn open(endpoint: &str, key: &Path, cert: &Path) -> Result<TlsAcceptor, Error> {
    let refused = |what, path: &Path, cause: BoxError| -> Error {
        Kind::Read { endpoint: endpoint.to_owned(), what, path: path.to_owned(), cause }.into()
    };
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| refused("key", key, cause(error)))?;
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| refused("certificate", cert, cause(error)))?;
    if chain.is_empty() {
        return Err(refused("certificate", cert, "there is no certificate in it".into()));
    }
    let (key, cert): (PathBuf, PathBuf) = (key.into(), cert.into());
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map(ConfigBuilder::<ServerConfig, _>::with_no_client_auth)
        .and_then(|builder| builder.with_single_cert(chain, private))
        .map_err(|error| Kind::Pair { endpoint: endpoint.to_owned(), key, cert, cause: pair(error) })?;
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
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
