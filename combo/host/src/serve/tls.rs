//! A connection -> a decrypted connection. TLS 1.2 and 1.3 by rustls; HTTP/2 or 1.1 by ALPN.
//!
//! The certificate is the one on the endpoint's shelf for the host that the client names (SNI). Whoever names one that
//! there is nothing for has the alert `unrecognized_name` (RFC 6066, section 3). Who comes to see a challenge
//! (`acme-tls/1`, RFC 8737) is shown that and nothing else, and only while one is pending. Sessions go on by tickets
//! that all workers understand, also after a certificate was replaced, but not after the authorities of clients were.
#![expect(clippy::disallowed_methods, reason = "the authorities of clients are in a file")]

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use combo_core::{
    BoxError,
    endpoint::{self, Certificates, Clients, Unknown},
    pattern::normal_host,
};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection,
    client::verify_server_name,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    server::{
        Acceptor, ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
        WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

#[cfg(feature = "acme")]
use crate::certs::acme::wanted::Wanted;
use crate::{
    certs::{
        Store,
        challenges::{ACME_TLS, Challenges},
        found::{self, PROVIDER, Private},
        leaf::Holder,
        noticed::{Noticed, Ways},
        shelf::{Looked, Place, Shelf},
    },
    error::{Error, Kind},
    looks::{Looks, coarse_now},
};

/// What ALPN calls HTTP/2 (RFC 9113, section 3.3).
pub(crate) const H2: &[u8] = b"h2";

/// A fatal alert before anything was agreed upon (RFC 8446, sections 5.1 and 6): `unrecognized_name`.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// When a file is read again that could not be, or that was changed just now.
const AGAIN: Duration = Duration::from_secs(1);

/// What it takes to shake hands at an endpoint. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tls(Arc<Server>);

struct Server {
    /// As it was said.
    endpoint: String,
    shelf: Arc<Shelf>,
    /// Whether the default is for hosts that there is nothing for.
    otherwise: bool,
    challenges: Challenges,
    /// The names that are ordered when somebody asks for them.
    #[cfg(feature = "acme")]
    wanted: Option<Wanted>,
    usual: ArcSwap<ServerConfig>,
    challenged: Arc<ServerConfig>,
    clients: Option<Clients>,
    /// The file with the authorities of clients.
    seen: Mutex<Seen>,
}

/// A file, as it was read.
#[derive(Default)]
struct Seen {
    /// None if it is to be read again: it could not be, or it may be changed again and look the same.
    looks: Option<Looks>,
    /// What is in use.
    pem: Vec<u8>,
    /// What was said of it.
    said: Option<String>,
}

/// What a file looks like before it is read, unless it may be changed again and look the same.
fn settled(path: &Path) -> Option<Looks> {
    let now = coarse_now();
    std::fs::metadata(path).as_ref().map(Looks::from).ok().filter(|looks| !looks.since(now))
}

/// What encrypts an endpoint's connections, if something does.
pub(crate) fn open(
    endpoint: &combo_core::Endpoint,
    shown: &str,
    root: &Path,
    store: &Store,
) -> Result<Option<Tls>, Error> {
    let (shelf, clients, unknown) = match (endpoint.tls(), endpoint.bare()) {
        (Some(endpoint::Tls { certificates, clients, unknown, .. }), _) => {
            let refused = |path: &Path, cause| {
                Error::from(Kind::Certificates { endpoint: shown.to_owned(), path: path.to_owned(), cause })
            };
            let shelf = match certificates {
                Certificates::Folder(folder) => {
                    store.folder(&root.join(folder)).map_err(|cause| refused(folder, cause.into()))?
                }
                Certificates::Dev => store.dev().map_err(|cause| refused(Path::new("dev"), cause))?,
            };
            (shelf, clients, *unknown)
        }
        (None, combo_core::Endpoint::Ssl { key, cert, clients, .. }) => {
            let place = Place::Pair { key: root.join(key), cert: root.join(cert) };
            (store.of(place, |place| of_one(shown, place))?, clients, Unknown::Default)
        }
        _ => return Ok(None),
    };
    let clients = clients.clone().map(|Clients { authority, optional }| {
        let authority = root.join(authority);
        Clients { authority, optional }
    });
    let tls = Tls::new(shown, shelf, unknown == Unknown::Default, store, clients)?;
    store.keep(tls.0.clone());
    Ok(Some(tls))
}

/// One pair, with what is wrong with it said by its file.
fn of_one(endpoint: &str, place: Place) -> Result<Shelf, Error> {
    let endpoint = || endpoint.to_owned();
    if let Place::Pair { key, cert } = &place {
        let refused = |what, path: &Path, cause: BoxError| -> Error {
            Kind::Read { endpoint: endpoint(), what, path: path.to_owned(), cause }.into()
        };
        let _ = read(key).and_then(|pem| private(&pem)).map_err(|cause| refused("key", key, cause))?;
        let _ =
            read(cert).and_then(|pem| chain(&pem)).map_err(|cause| refused("certificate", cert, cause))?;
    }
    Shelf::of_one(place).map_err(|(place, cause)| {
        let (key, cert) = match place {
            Place::Pair { key, cert } => (key, cert),
            Place::Folder(folder) => (folder.clone(), folder),
        };
        Kind::Pair { endpoint: endpoint(), key, cert, cause: cause.into() }.into()
    })
}

fn read(path: &Path) -> Result<Vec<u8>, BoxError> {
    Ok(found::contents(path)?)
}

/// The first private key in a file.
pub(crate) fn private(pem: &[u8]) -> Result<PrivateKeyDer<'static>, BoxError> {
    match found::sections(pem)?.1 {
        Some(Private::Open(key)) => Ok(key),
        Some(Private::Locked) => Err(found::Broken::Locked.into()),
        None => Err("there is none in it".into()),
    }
}

/// All certificates in a file, of which there is one.
pub(crate) fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BoxError> {
    let (chain, _) = found::sections(pem)?;
    if chain.is_empty() { Err(found::Broken::NoCertificate.into()) } else { Ok(chain) }
}

/// Lets in whoever shows a certificate of the authorities in a file, and perhaps whoever shows none.
pub(crate) fn verifier(pem: &[u8], optional: bool) -> Result<Arc<dyn ClientCertVerifier>, BoxError> {
    let mut roots = RootCertStore::empty();
    for authority in chain(pem)? {
        roots.add(authority)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), PROVIDER.clone());
    let builder = if optional { builder.allow_unauthenticated() } else { builder };
    Ok(builder.build()?)
}

/// What handshakes are made by: the default suites of rustls, of which each has forward secrecy and authenticates what
/// it encrypts; tickets, whose key is another every six hours; nothing that is sent before the end of a handshake.
fn config(
    certificates: Arc<dyn ResolvesServerCert>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    protocols: &[&[u8]],
) -> Result<ServerConfig, BoxError> {
    let builder =
        ServerConfig::builder_with_provider(PROVIDER.clone()).with_safe_default_protocol_versions()?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(certificates);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    // Ours is the order of how strong they are.
    config.ignore_client_order = true;
    // Other than tickets, which each worker can read, it would be a table that they share.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

impl Tls {
    fn new(
        endpoint: &str,
        shelf: Arc<Shelf>,
        otherwise: bool,
        store: &Store,
        clients: Option<Clients>,
    ) -> Result<Self, Error> {
        let challenges = store.challenges.clone();
        #[cfg(feature = "acme")]
        let wanted = store.wanted(&shelf.place);
        let cannot = |cause: BoxError| Kind::Tls { endpoint: endpoint.to_owned(), cause };
        let certificates = Arc::new(Shown { shelf: shelf.clone(), otherwise });
        let (verifier, seen) = match &clients {
            Some(Clients { authority, optional }) => {
                let looks = settled(authority);
                let read = read(authority).and_then(|pem| Ok((verifier(&pem, *optional)?, pem)));
                let (verifier, pem) = read.map_err(|cause| Kind::Read {
                    endpoint: endpoint.to_owned(),
                    what: "authority of clients",
                    path: authority.clone(),
                    cause,
                })?;
                (Some(verifier), Seen { looks, pem, said: None })
            }
            None => (None, Seen::default()),
        };
        let usual = usual(certificates, verifier).map_err(cannot)?;
        let challenged = Arc::new(Challenged(challenges.clone()));
        let challenged = Arc::new(config(challenged, None, &[ACME_TLS]).map_err(cannot)?);
        let (usual, seen, endpoint) = (ArcSwap::from_pointee(usual), Mutex::new(seen), endpoint.to_owned());
        Ok(Self(Arc::new(Server {
            endpoint,
            shelf,
            otherwise,
            challenges,
            #[cfg(feature = "acme")]
            wanted,
            usual,
            challenged,
            clients,
            seen,
        })))
    }

    /// Shakes hands.
    pub(crate) async fn accept<S>(&self, socket: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Server { shelf, otherwise, challenges, usual, challenged, .. } = &*self.0;
        let mut start = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
        let hello = start.client_hello();
        let comes_to_see = challenges.is_pending()
            && hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == ACME_TLS));
        if comes_to_see {
            let mut stream = start.into_stream(challenged.clone()).await?;
            // What there was to be seen was in the handshake (RFC 8737, section 3).
            let _ = stream.shutdown().await;
            return Err(io::Error::other("it was shown a challenge"));
        }
        // Whoever comes after the order has what is ordered now.
        #[cfg(feature = "acme")]
        if let (Some(wanted), Some(name)) = (&self.0.wanted, hello.server_name())
            && !shelf.has(Some(name), false)
            && wanted.want(name)
        {
            tracing::info!(name, "a certificate is ordered because it was asked for");
        }
        if !shelf.has(hello.server_name(), *otherwise) {
            let name = hello.server_name().map_or_else(|| "no name".to_owned(), |name| format!("`{name}`"));
            start.io.write_all(&UNRECOGNIZED_NAME).await?;
            let _ = start.io.shutdown().await;
            return Err(io::Error::other(format!("there is no certificate for {name}")));
        }
        let config = usual.load_full();
        start.into_stream(config).await
    }

    /// Whether what is shown to whoever names a server is for this host, which may have a port.
    pub(crate) fn covers(&self, server: Option<&str>, host: &str) -> bool {
        let shown = self.0.shelf.find(server, self.0.otherwise);
        shown.is_some_and(|shown| shown.cert.first().is_some_and(|certificate| covers(certificate, host)))
    }
}

fn usual(
    certificates: Arc<dyn ResolvesServerCert>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<ServerConfig, BoxError> {
    let mut config = config(certificates, verifier, &[H2, b"http/1.1"])?;
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

/// What is on a shelf.
#[derive(Debug)]
struct Shown {
    shelf: Arc<Shelf>,
    otherwise: bool,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.shelf.find(hello.server_name(), self.otherwise)
    }
}

/// What an authority comes to see.
#[derive(Debug)]
struct Challenged(Challenges);

impl ResolvesServerCert for Challenged {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.tls_alpn(hello.server_name()?)
    }
}

impl Noticed for Server {
    fn ways(&self) -> Ways {
        let files: Vec<PathBuf> = self.clients.iter().map(|clients| clients.authority.clone()).collect();
        Ways { folders: Vec::new(), files }
    }

    /// Reads the authorities of clients again. A session that one of the old ones vouched for does not go on.
    fn look_again(&self) -> Looked {
        let Some(Clients { authority, optional }) = &self.clients else { return Looked::default() };
        let (file, endpoint) = (authority.display(), &self.endpoint);
        let looks = settled(authority);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.is_some() && seen.looks == looks {
            return Looked::default();
        }
        let again = looks.is_none().then_some(AGAIN);
        let certificates = Arc::new(Shown { shelf: self.shelf.clone(), otherwise: self.otherwise });
        let (error, again) = match read(authority) {
            Ok(pem) if pem == seen.pem => {
                (seen.looks, seen.said) = (looks, None);
                return Looked { changed: false, again };
            }
            Ok(pem) => {
                seen.looks = looks;
                match verifier(&pem, *optional).and_then(|verifier| usual(certificates, Some(verifier))) {
                    Ok(config) => {
                        self.usual.store(Arc::new(config));
                        (seen.pem, seen.said) = (pem, None);
                        tracing::info!(%file, endpoint, "the authorities of clients are new");
                        return Looked { changed: true, again };
                    }
                    Err(error) => (error, again),
                }
            }
            Err(error) => {
                seen.looks = None;
                (error, Some(AGAIN))
            }
        };
        let error = crate::error::chain(&*error);
        if seen.said.as_ref() != Some(&error) {
            tracing::warn!(%file, endpoint, error, "the authorities of clients are broken; the old ones stay");
            seen.said = Some(error);
        }
        Looked { changed: false, again }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
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
    if let Some(Holder { subject, names }) = chain.first().and_then(Holder::read) {
        (facts.client_subject, facts.client_names) = (Some(subject), names);
    }
    facts.client_certificates = chain.iter().map(|certificate| certificate.to_vec()).collect();
    facts
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn authority() -> String {
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").pem()
    }

    #[test]
    fn authorities_of_clients_that_could_not_be_read_once_are_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let (authority_file, first) = (at("ca.pem"), authority());
        fs::write(&authority_file, &first).expect("a file");
        let shelf = Arc::new(Shelf::open(Place::Folder(folder.path().to_owned())).expect("a shelf"));
        let clients = Clients { authority: authority_file.clone(), optional: false };
        let tls = Tls::new("here", shelf, true, &Store::default(), Some(clients)).expect("an endpoint");
        let uses = |pem: &str| tls.0.seen.lock().expect("no panic").pem == pem.as_bytes();
        assert!(uses(&first));
        // It has a size and a time, and reading it is an error.
        std::os::unix::fs::symlink("/proc/self/mem", at("unread")).expect("a link");
        fs::rename(at("unread"), &authority_file).expect("a link");
        while settled(&authority_file).is_none() {
            std::thread::yield_now();
        }
        for _ in 0..2 {
            assert_eq!(tls.0.look_again(), Looked { changed: false, again: Some(AGAIN) });
        }
        assert!(uses(&first));
        fs::remove_file(&authority_file).expect("a link");
        // Within one tick of the clock, so that they may look the same.
        for _ in 0..8 {
            let next = authority();
            fs::write(&authority_file, &next).expect("a file");
            assert!(tls.0.look_again().changed && uses(&next));
        }
        fs::write(&authority_file, "none").expect("a file");
        assert!(!tls.0.look_again().changed);
        while tls.0.look_again().again.is_some() {}
        assert_eq!(tls.0.look_again(), Looked::default());
    }
}
