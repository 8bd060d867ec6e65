//! Certificates of a folder, over real sockets: which one a host gets, what happens when files change, tickets, and
//! the certificates of clients.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion,
    RootCertStore, StreamOwned,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;

use crate::{
    lines::log,
    mirror::{Reached, mirror},
    site::{ANY_PORT, PATIENCE, Site, eventually, folder, three},
};

type Authority = CertifiedIssuer<'static, KeyPair>;

/// Who signs everything here.
pub(crate) fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Key and certificate for these hosts, of this authority.
pub(crate) fn signed(authority: &Authority, names: &[&str]) -> (String, String) {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Example, Inc.");
    params.distinguished_name.push(DnType::CommonName, "Ann");
    let key = KeyPair::generate().unwrap();
    (key.serialize_pem(), params.signed_by(&key, authority).unwrap().pem())
}

fn both(authority: &Authority, names: &[&str]) -> String {
    let (key, cert) = signed(authority, names);
    format!("{key}{cert}")
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// Puts a file in place as whoever is careful does.
pub(crate) fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let temporary = path.with_file_name(".temporary");
    fs::write(&temporary, text).unwrap();
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(temporary, path).unwrap();
}

/// A folder of certificates that one authority signs.
struct Shop {
    folder: TempDir,
    authority: Authority,
}

impl Shop {
    fn new(files: &[(&str, &[&str])]) -> Self {
        let shop = Self { folder: tempfile::tempdir().unwrap(), authority: authority("shop") };
        for (file, names) in files {
            let _ = shop.put(file, names);
        }
        shop
    }

    /// Puts another certificate there.
    fn put(&self, file: &str, names: &[&str]) -> CertificateDer<'static> {
        let text = both(&self.authority, names);
        put(&self.folder.path().join(file), &text);
        certificate(&text)
    }

    fn endpoint(&self, options: &str) -> String {
        format!("tls:{}{options}:{ANY_PORT}", self.folder.path().display())
    }

    fn config(&self) -> ClientConfig {
        client(&self.authority, None, None)
    }
}

/// A client that trusts an authority, with a certificate and a key exchange of its own if it has them.
fn client(
    authority: &Authority,
    own: Option<&(String, String)>,
    group: Option<&'static dyn rustls::crypto::SupportedKxGroup>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let mut provider: CryptoProvider = aws_lc_rs::default_provider();
    if let Some(group) = group {
        provider.kx_groups = vec![group];
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    match own {
        Some((key, cert)) => builder
            .with_client_auth_cert(
                vec![certificate(cert)],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
        None => builder.with_no_client_auth(),
    }
}

/// A connection whose hands are shaken.
struct Shaken(StreamOwned<ClientConnection, TcpStream>);

fn shake(config: &Arc<ClientConfig>, address: SocketAddr, host: &str) -> Result<Shaken, io::Error> {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut connection = ClientConnection::new(config.clone(), name).unwrap();
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    while connection.is_handshaking() {
        let _ = connection.complete_io(&mut socket)?;
    }
    Ok(Shaken(StreamOwned::new(connection, socket)))
}

impl Shaken {
    fn shown(&self) -> CertificateDer<'static> {
        self.0.conn.peer_certificates().unwrap()[0].clone().into_owned()
    }

    /// Asks for a page, and reads the whole answer, behind which tickets have come as well.
    fn ask(mut self, host: &str, path: &str) -> io::Result<String> {
        write!(self.0, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        let _ = self.0.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

/// The alert that a handshake ended with.
fn alert(refused: Result<Shaken, io::Error>) -> AlertDescription {
    let error = refused.err().expect("it is refused");
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("no alert: {error}"),
    }
}

#[test]
fn a_host_gets_its_certificate_and_others_the_default_or_none() {
    let shop = Shop::new(&[
        ("a.example.com.pem", &["a.example.com"]),
        ("_.example.com.pem", &["*.example.com"]),
        ("DEFAULT.pem", &["default.example", "127.0.0.1"]),
    ]);
    let site = Site::start(three().listen(shop.endpoint("")).listen(shop.endpoint(":unknown=refuse")));
    let config = Arc::new(shop.config());
    let [kind, strict] = &site.handle().addresses()[1..] else { panic!("two endpoints") };
    let address = |address: &combo::Address| match address {
        combo::Address::Tls(address) => *address,
        other => panic!("{other}"),
    };
    let (kind, strict) = (address(kind), address(strict));
    let names = |host: &str, address| {
        let shaken = shake(&config, address, host).unwrap();
        let shown = shaken.shown();
        assert!(shaken.ask(host, "/axum/json").unwrap().starts_with("HTTP/1.1 200 "), "{host}");
        shown
    };
    let file = |file: &str| certificate(&fs::read_to_string(shop.folder.path().join(file)).unwrap());
    for address in [kind, strict] {
        assert_eq!(names("a.example.com", address), file("a.example.com.pem"));
        assert_eq!(names("A.example.com", address), file("a.example.com.pem"));
        assert_eq!(names("b.example.com", address), file("_.example.com.pem"));
    }
    assert_eq!(names("default.example", kind), file("DEFAULT.pem"));
    // Whoever asks for an address names no host.
    assert_eq!(names("127.0.0.1", kind), file("DEFAULT.pem"));
    for unknown in ["127.0.0.1", "x.y.example.com"] {
        assert_eq!(alert(shake(&config, strict, unknown)), AlertDescription::UnrecognisedName);
    }
    fs::remove_file(shop.folder.path().join("DEFAULT.pem")).unwrap();
    let _ = eventually("the default is gone", || shake(&config, kind, "127.0.0.1").err());
    assert_eq!(alert(shake(&config, kind, "other.example")), AlertDescription::UnrecognisedName);
    assert_eq!(alert(shake(&config, kind, "127.0.0.1")), AlertDescription::UnrecognisedName);
}

#[test]
fn files_that_change_hold_for_the_next_handshake() {
    let shop = Shop::new(&[("b.org.pem", &["b.org"])]);
    let site = Site::start(three().listen(shop.endpoint("")));
    let (config, address) = (Arc::new(shop.config()), site.tls_address());
    let becomes = |host: &str, wanted: &CertificateDer<'_>| {
        let _ = eventually(host, || {
            shake(&config, address, host).ok().filter(|shaken| shaken.shown() == *wanted)
        });
    };
    assert!(shake(&config, address, "a.org").is_err());
    let empty = shop.folder.path().join("a.org.pem");
    put(&empty, "");
    for _ in 0..3 {
        let made = shop.put("a.org.pem", &["a.org"]);
        becomes("a.org", &made);
    }
    let last = shake(&config, address, "a.org").unwrap().shown();
    // Half of it, by whoever is not careful.
    let whole = both(&shop.authority, &["a.org"]);
    fs::write(&empty, &whole[..whole.len() / 2]).unwrap();
    let said =
        log().wait(&["a.org.pem", "is broken; the old one stays", &*shop.folder.path().to_string_lossy()]);
    assert!(said.contains("it ends in the middle"), "{said}");
    becomes("a.org", &last);
    fs::write(&empty, &whole).unwrap();
    becomes("a.org", &certificate(&whole));
    fs::remove_file(empty).unwrap();
    let _ = eventually("it is gone", || shake(&config, address, "a.org").err());
    let (key, cert) = signed(&shop.authority, &["c.org"]);
    put(&shop.folder.path().join("live/c.org/fullchain.pem"), &cert);
    put(&shop.folder.path().join("live/c.org/privkey.pem"), &key);
    becomes("c.org", &certificate(&cert));
    assert!(log().with(&[&key.lines().nth(1).unwrap()[..24]]).is_empty());
}

/// Sixty-four clients shake hands and ask without a pause while the certificate is replaced twenty times.
#[test]
fn no_handshake_and_no_request_fails_while_certificates_are_replaced() {
    const CLIENTS: usize = 64;
    let shop = Shop::new(&[("a.org.pem", &["a.org"])]);
    let site = Site::start(three().listen(shop.endpoint("")));
    let (address, over) = (site.tls_address(), AtomicBool::new(false));
    let (asked, kept) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let config = || {
        let mut config = shop.config();
        config.resumption = Resumption::disabled();
        Arc::new(config)
    };
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let (config, over, asked, kept) = (config(), &over, &asked, &kept);
            let _ = scope.spawn(move || {
                // One connection is kept all the time.
                let mut open = shake(&config, address, "a.org").unwrap();
                while !over.load(Relaxed) {
                    let answer =
                        shake(&config, address, "a.org").unwrap().ask("a.org", "/warp/json").unwrap();
                    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                    let _ = asked.fetch_add(1, Relaxed);
                    write!(open.0, "HEAD /axum/json HTTP/1.1\r\nhost: a.org\r\n\r\n").unwrap();
                    let mut head = [0; 1024];
                    let read = open.0.read(&mut head).unwrap();
                    assert!(head[..read].starts_with(b"HTTP/1.1 200 "));
                    let _ = kept.fetch_add(1, Relaxed);
                }
            });
        }
        let probe = config();
        for _ in 0..20 {
            let made = shop.put("a.org.pem", &["a.org"]);
            let before = asked.load(Relaxed);
            let _ = eventually("the new one is shown", || {
                shake(&probe, address, "a.org").ok().filter(|shaken| shaken.shown() == made)
            });
            eventually("everybody has been there", || (asked.load(Relaxed) > before + CLIENTS).then_some(()));
        }
        over.store(true, Relaxed);
    });
    assert!(asked.into_inner() > 20 * CLIENTS && kept.into_inner() > CLIENTS);
}

#[test]
fn a_session_goes_on_at_every_worker_and_after_a_certificate_was_replaced() {
    let shop = Shop::new(&[("a.org.pem", &["a.org"]), ("b.org.pem", &["b.org"])]);
    let site = Site::start(three().listen(shop.endpoint("")));
    let address = site.tls_address();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let mut roots = RootCertStore::empty();
        roots.add(shop.authority.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
        let kind = |host: &str| {
            let shaken = shake(&config, address, host).unwrap();
            let kind = shaken.0.conn.handshake_kind().unwrap();
            assert!(shaken.ask(host, "/axum/json").unwrap().starts_with("HTTP/1.1 200 "));
            kind
        };
        assert_eq!(kind("a.org"), HandshakeKind::Full);
        // Each goes to the worker with the fewest, so that all of them come to both.
        let open: Vec<_> = (0..8)
            .map(|_| {
                let shaken = shake(&config, address, "a.org").unwrap();
                let resumed = shaken.0.conn.handshake_kind();
                assert!(kind("a.org") == HandshakeKind::Resumed || resumed == Some(HandshakeKind::Resumed));
                shaken
            })
            .collect();
        drop(open);
        assert_eq!(kind("a.org"), HandshakeKind::Resumed);
        assert_eq!(kind("b.org"), HandshakeKind::Full);
        let made = shop.put("a.org.pem", &["a.org"]);
        let full = Arc::new(shop.config());
        let _ = eventually("the new one is shown", || {
            shake(&full, address, "a.org").ok().filter(|shaken| shaken.shown() == made)
        });
        assert_eq!(kind("a.org"), HandshakeKind::Resumed);
    }
}

#[test]
fn the_key_exchange_is_post_quantum_for_whoever_can() {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    let shop = Shop::new(&[("a.org.pem", &["a.org"])]);
    let site = Site::start(three().listen(shop.endpoint("")));
    for (group, name) in [
        (None, NamedGroup::X25519MLKEM768),
        (Some(X25519MLKEM768), NamedGroup::X25519MLKEM768),
        (Some(X25519), NamedGroup::X25519),
        (Some(SECP256R1), NamedGroup::secp256r1),
        (Some(SECP384R1), NamedGroup::secp384r1),
    ] {
        let group: Option<&'static dyn rustls::crypto::SupportedKxGroup> = group;
        let mut config = client(&shop.authority, None, group);
        if group.is_none() {
            // As browsers offer them.
            let mut provider = aws_lc_rs::default_provider();
            provider.kx_groups = vec![X25519MLKEM768, X25519, SECP256R1];
            let mut roots = RootCertStore::empty();
            roots.add(shop.authority.der().clone()).unwrap();
            let builder = ClientConfig::builder_with_provider(Arc::new(provider));
            let builder = builder.with_safe_default_protocol_versions().unwrap();
            config = builder.with_root_certificates(roots).with_no_client_auth();
        }
        let shaken = shake(&Arc::new(config), site.tls_address(), "a.org").unwrap();
        let connection = &shaken.0.conn;
        assert_eq!(connection.negotiated_key_exchange_group().unwrap().name(), name);
        assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full), "in one round trip");
    }
}

#[test]
fn apps_are_told_who_a_client_is() {
    let shop = Shop::new(&[("a.org.pem", &["a.org"])]);
    let clients = authority("clients");
    let ca = shop.folder.path().join(".clients.pem");
    put(&ca, &clients.pem());
    let optional = shop.endpoint(&format!(":client_ca={}:client=optional", ca.display()));
    let reached = Reached::default();
    let mut deployment = combo::Deployment::new("it").workers(2).listen(&optional);
    for framework in ["axum", "actix", "warp"] {
        deployment = deployment.mount(format!("/{framework}"), mirror(framework, &reached));
    }
    let site = Site::start(deployment);
    let own = signed(&clients, &["ann.example"]);
    let known = Arc::new(client(&shop.authority, Some(&own), None));
    let nobody = Arc::new(shop.config());
    let seen = |config: &Arc<ClientConfig>, framework: &str| {
        let answer = shake(config, site.tls_address(), "a.org").unwrap();
        let answer = answer.ask("a.org", &format!("/{framework}/x")).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str::<serde_json::Value>(body).unwrap()
    };
    for framework in ["axum", "actix", "warp", "axum"] {
        // The second time by a ticket.
        let told = seen(&known, framework);
        assert_eq!(
            (&told["subject"], &told["certificates"]),
            (&r"CN=Ann,O=Example\, Inc.".into(), &1.into()),
            "{told}"
        );
        assert_eq!(seen(&nobody, framework)["subject"], serde_json::Value::Null);
    }
    let stranger = signed(&authority("strangers"), &["ann.example"]);
    let stranger = Arc::new(client(&shop.authority, Some(&stranger), None));
    let refused =
        shake(&stranger, site.tls_address(), "a.org").and_then(|shaken| shaken.ask("a.org", "/axum/x"));
    assert!(refused.is_err());
}

#[test]
fn whom_an_authority_vouched_for_is_refused_once_there_is_another() {
    let shop = Shop::new(&[("a.org.pem", &["a.org"])]);
    let (first, second) = (authority("first"), authority("second"));
    let ca = shop.folder.path().join(".clients.pem");
    put(&ca, &first.pem());
    let site = Site::start(three().listen(shop.endpoint(&format!(":client_ca={}", ca.display()))));
    let of = |issuer| Arc::new(client(&shop.authority, Some(&signed(issuer, &["ann.example"])), None));
    let (old, new) = (of(&first), of(&second));
    let ask = |config: &Arc<ClientConfig>| {
        shake(config, site.tls_address(), "a.org").and_then(|shaken| shaken.ask("a.org", "/axum/json"))
    };
    assert!(ask(&old).unwrap().starts_with("HTTP/1.1 200 ") && ask(&new).is_err());
    put(&ca, "nothing");
    let _ = log().wait(&["the authorities of clients are broken", &*ca.to_string_lossy()]);
    assert!(ask(&old).is_ok());
    put(&ca, &second.pem());
    let _ = eventually("the new one is known", || ask(&new).ok());
    // It has a ticket as well.
    assert!(ask(&old).is_err());
    let none = Arc::new(shop.config());
    assert!(ask(&none).is_err());
}

#[test]
fn the_pair_of_an_ssl_endpoint_is_replaced_without_a_restart() {
    let (issuer, own) = (authority("own"), folder());
    let (key, cert) = (own.path().join("k.pem"), own.path().join("c.pem"));
    let write = |pair: &(String, String)| {
        put(&key, &pair.0);
        put(&cert, &pair.1);
    };
    let pairs: Vec<_> = (0..3).map(|_| signed(&issuer, &["a.org"])).collect();
    write(&pairs[0]);
    let endpoint = format!("ssl:0:interface=127.0.0.1:key={}:cert={}", key.display(), cert.display());
    let site = Site::start(three().listen(endpoint));
    let config = Arc::new(client(&issuer, None, None));
    let shown = || shake(&config, site.tls_address(), "a.org").unwrap().shown();
    assert_eq!(shown(), certificate(&pairs[0].1));
    write(&pairs[1]);
    eventually("the new one is shown", || (shown() == certificate(&pairs[1].1)).then_some(()));
    put(&cert, &pairs[2].1);
    let said = log().wait(&[&*cert.to_string_lossy(), "the old one stays"]);
    assert!(said.contains("the key is not the certificate's"), "{said}");
    assert_eq!(shown(), certificate(&pairs[1].1));
    put(&key, &pairs[2].0);
    eventually("the new one is shown", || (shown() == certificate(&pairs[2].1)).then_some(()));
}

#[test]
fn a_host_that_is_neither_mounted_nor_of_the_certificate_is_421() {
    let shop = Shop::new(&[("a.org.pem", &["a.org", "alias.org"]), ("b.org.pem", &["b.org"])]);
    let only_here = combo::Deployment::new("it").listen(shop.endpoint(""));
    let site = Site::start(only_here.mount("a.org/", combo::mount::axum(hello_axum::app())));
    let config = Arc::new(shop.config());
    for (server, host, status) in [
        ("a.org", "a.org", 200),
        ("a.org", "alias.org", 404),
        ("a.org", "b.org", 421),
        ("b.org", "b.org", 404),
        ("b.org", "a.org", 200),
        ("b.org", "alias.org", 421),
    ] {
        let answer = shake(&config, site.tls_address(), server).unwrap().ask(host, "/json").unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{server} {host}: {answer}");
    }
}

#[test]
fn keys_that_others_may_read_are_named() {
    let shop = Shop::new(&[("a.org.pem", &["a.org"]), ("b.org.pem", &["b.org"]), ("c.org.pem", &["c.org"])]);
    for (file, mode) in [("a.org.pem", 0o644), ("b.org.pem", 0o604), ("c.org.pem", 0o640)] {
        let path = shop.folder.path().join(file);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let _site = Site::start(three().listen(shop.endpoint("")));
    let said = log().wait(&["others on this machine may read a key", &*shop.folder.path().to_string_lossy()]);
    assert!(said.contains("file=a.org.pem") && said.contains("files=2"), "{said}");
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let errors = crate::site::refused(three().listen(format!("tls:nowhere:{ANY_PORT}")), folder().path());
    let said = errors.to_string();
    assert!(said.starts_with("cannot use the certificates in `nowhere` for `tls:nowhere:tcp:0"), "{said}");
}
