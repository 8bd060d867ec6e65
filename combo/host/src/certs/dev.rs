//! a machine that is developed on -> an authority of its own and a certificate for `localhost`.
//!
//! Makes both once, in the user's state folder, and the certificate again when a third of its life is left. The
//! authority may only sign for this machine's own names and addresses (RFC 5280, section 4.2.1.10), so whoever
//! trusts it is in no danger from whoever gets its key.
#![expect(clippy::disallowed_methods, reason = "they are files in the user's folder, and hold until a time")]

use std::{
    collections::HashMap,
    fmt, fs, io,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use combo_core::{BoxError, Timestamp};
use jiff::tz::TimeZone;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use super::{
    found,
    leaf::Leaf,
    noticed::{Noticed, Ways},
    shelf::Looked,
};
use crate::error::chain;

/// Days that an authority and a certificate hold.
const DAYS: (i64, i64) = (3_650, 90);

const DAY: i64 = 24 * 60 * 60;

/// As many hosts below `localhost` as are kept.
const MOST: usize = 256;

const AUTHORITY: (&str, &str) = ("authority.pem", "authority.key");

/// Locked by whoever makes something.
const LOCK: &str = ".lock";

/// The folder in it that is served from, and the file there.
const SERVED: (&str, &str) = ("certificates", "DEFAULT.pem");

/// The folder of this user: `$XDG_STATE_HOME/combo/dev`, or `~/.local/state/combo/dev`.
///
/// # Errors
///
/// Neither variable says one.
pub(crate) fn folder() -> io::Result<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
    let why = "neither `XDG_STATE_HOME` nor `HOME` says where the user's files are";
    Ok(state.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, why))?.join("combo/dev"))
}

/// What is made in the folder of this user, and made again.
pub(crate) struct Dev {
    folder: PathBuf,
    host: String,
    /// When it was last looked at.
    looked: Mutex<Timestamp>,
    made: Mutex<Made>,
}

/// What certificates are signed with, and those that are.
struct Made {
    /// As it is in its file.
    authority: String,
    issuer: Issuer<'static, KeyPair>,
    /// Those for hosts below `localhost`, until they are too many or as old as the file that is made again.
    below: HashMap<Box<str>, Arc<CertifiedKey>>,
}

impl Made {
    fn read(folder: &Path) -> Result<Self, BoxError> {
        let (authority, issuer) = issuer(folder)?;
        Ok(Self { authority, issuer, below: HashMap::new() })
    }

    fn sign(&self, host: &str) -> Result<CertifiedKey, BoxError> {
        let key = KeyPair::generate()?;
        let made = certificate_of(&[host], &[], Timestamp::now())?.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok(found::certified(vec![made.der().clone()], key)?)
    }
}

impl Dev {
    /// # Errors
    ///
    /// There is no folder for it, or it cannot be made.
    pub(crate) fn open() -> Result<Self, BoxError> {
        let host = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
        Self::of(folder()?, host, Timestamp::now())
    }

    /// The same in a folder, for a host.
    pub(crate) fn of(folder: PathBuf, host: String, now: Timestamp) -> Result<Self, BoxError> {
        let made = prepare(&folder, &host, now)?;
        let authority = authority(&folder);
        if made {
            tracing::info!(authority = %authority.display(), "{}", how_to_trust(&authority));
        } else {
            let file = authority.display();
            tracing::info!(authority = %file, "certificates for localhost are signed by it: curl --cacert {file}");
        }
        let made = Mutex::new(Made::read(&folder)?);
        Ok(Self { folder, host, looked: Mutex::new(now), made })
    }

    /// Where certificates are served from.
    pub(crate) fn served(&self) -> PathBuf {
        served(&self.folder)
    }

    /// One for a host below `localhost`, made when it is first asked for: of a wildcard right below a top-level name
    /// clients think nothing.
    pub(crate) fn below_localhost(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        let below = below_localhost(host)?;
        let mut all = self.made();
        if let Some(known) = all.below.get(below) {
            return Some(known.clone());
        }
        let made = all.sign(host).inspect_err(|error| {
            tracing::warn!(host, error = chain(&**error), "cannot make a certificate");
        });
        let made = Arc::new(made.ok()?);
        if all.below.len() >= MOST {
            all.below.clear();
        }
        drop(all.below.insert(below.into(), made.clone()));
        Some(made)
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what is to be made again. Somebody else may have done so.
    fn renew(&self, now: Timestamp) -> Result<(), BoxError> {
        let renewed = prepare(&self.folder, &self.host, now)?;
        let (read, mut made) = (Made::read(&self.folder)?, self.made());
        if renewed || read.authority != made.authority {
            *made = read;
        }
        Ok(())
    }
}

/// What is before `.localhost`.
pub(crate) fn below_localhost(host: &str) -> Option<&str> {
    host.strip_suffix(".localhost").filter(|below| !below.is_empty())
}

impl fmt::Debug for Dev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dev").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// The authority of a folder, and what signs in its name.
fn issuer(folder: &Path) -> Result<(String, Issuer<'static, KeyPair>), BoxError> {
    let authority = fs::read_to_string(authority(folder))?;
    let key = KeyPair::from_pem(&fs::read_to_string(folder.join(AUTHORITY.1))?)?;
    let issuer = Issuer::from_ca_cert_pem(&authority, key)?;
    Ok((authority, issuer))
}

impl Noticed for Dev {
    fn ways(&self) -> Ways {
        Ways::default()
    }

    /// Once an hour.
    fn look_again(&self) -> Looked {
        let (mut looked, now) =
            (self.looked.lock().unwrap_or_else(PoisonError::into_inner), Timestamp::now());
        if now.as_second() - looked.as_second() >= DAY / 24 {
            *looked = now;
            if let Err(error) = self.renew(now) {
                tracing::warn!(error = chain(&*error), "cannot make a certificate for localhost");
            }
        }
        Looked::default()
    }
}

/// Where certificates of that folder are served from.
pub(crate) fn served(folder: &Path) -> PathBuf {
    folder.join(SERVED.0)
}

/// The file that is to be trusted.
pub(crate) fn authority(folder: &Path) -> PathBuf {
    folder.join(AUTHORITY.0)
}

/// How this machine comes to trust a file.
pub(crate) fn how_to_trust(authority: &Path) -> String {
    let file = authority.display();
    format!(
        "to trust it, once: curl --cacert {file}; \
         Debian: sudo cp {file} /usr/local/share/ca-certificates/combo-dev.crt && sudo update-ca-certificates; \
         macOS: sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {file}; \
         Firefox: Settings, Certificates, Authorities, Import; \
         Chromium on Linux: certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n combo-dev -i {file}"
    )
}

/// Makes what is not there yet or near its end. Whether it did. One at a time does so, of all processes.
///
/// # Errors
///
/// A file cannot be read, made or understood.
pub(crate) fn prepare(folder: &Path, host: &str, now: Timestamp) -> Result<bool, BoxError> {
    let _alone = alone(folder)?;
    let usable = is_usable(folder, now);
    if !usable {
        make_authority(folder, host, now)?;
    }
    let certificate = served(folder).join(SERVED.1);
    let near = |(from, until): (i64, i64)| (until - now.as_second()) * 3 < until - from;
    let there = fs::read_to_string(&certificate).ok().and_then(|pem| life(&pem));
    if usable && there.is_some_and(|life| !near(life)) {
        return Ok(false);
    }
    let (authority, issuer) = issuer(folder)?;
    // The host that it may sign for is the one that it was made on.
    let host = permits(&authority, host).then_some(host);
    let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let names: Vec<&str> = ["localhost"].into_iter().chain(host).collect();
    let made = certificate_of(&names, &addresses, now)?;
    let key = KeyPair::generate()?;
    let made = made.signed_by(&key, &issuer)?;
    put(&certificate, &format!("{}{}", key.serialize_pem(), made.pem()), 0o600)?;
    Ok(true)
}

/// Whether the authority will hold long enough, and has its key.
fn is_usable(folder: &Path, now: Timestamp) -> bool {
    let (file, key) = (authority(folder), folder.join(AUTHORITY.1));
    let holds = fs::read_to_string(&file)
        .is_ok_and(|pem| life(&pem).is_some_and(|(_, until)| now.as_second() + DAYS.1 * DAY < until));
    let has_key = || {
        let (file, key) =
            (CertificateDer::from_pem_file(file).ok()?, PrivateKeyDer::from_pem_file(key).ok()?);
        found::certified(vec![file], key).ok()
    };
    holds && has_key().is_some()
}

/// Waits for whoever else makes something in this folder, until what is returned is dropped.
fn alone(folder: &Path) -> io::Result<fs::File> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let lock = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(folder.join(LOCK))?;
    lock.lock()?;
    Ok(lock)
}

/// From when and until when a certificate holds, in seconds since 1970.
fn life(pem: &str) -> Option<(i64, i64)> {
    let leaf = Leaf::read(&CertificateDer::from_pem_slice(pem.as_bytes()).ok()?)?;
    Some((leaf.from, leaf.until))
}

/// Whether this authority was made on a host of this name.
fn permits(authority: &str, host: &str) -> bool {
    let der = CertificateDer::from_pem_slice(authority.as_bytes());
    let leaf = der.ok().and_then(|der| Leaf::read(&der));
    !host.is_empty() && leaf.is_some_and(|leaf| leaf.issuer.ends_with(&common_name(host)))
}

fn common_name(host: &str) -> String {
    format!("development on {host}")
}

fn make_authority(folder: &Path, host: &str, now: Timestamp) -> Result<(), BoxError> {
    let mut params = CertificateParams::new(Vec::new())?;
    hold(&mut params, now, DAYS.0);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "combo");
    params.distinguished_name.push(DnType::CommonName, common_name(host));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let names = ["localhost", host].into_iter().filter(|name| !name.is_empty());
    let names = names.map(|name| GeneralSubtree::DnsName(name.to_owned()));
    let addresses = [(Ipv4Addr::new(127, 0, 0, 0).into(), 8), (Ipv6Addr::LOCALHOST.into(), 128)];
    let addresses =
        addresses.map(|(address, prefix): (IpAddr, u8)| GeneralSubtree::IpAddress(subnet(address, prefix)));
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: names.chain(addresses).collect(),
        excluded_subtrees: Vec::new(),
    });
    let key = KeyPair::generate()?;
    let made = params.self_signed(&key)?;
    // The key first: who reads the certificate finds its key.
    put(&folder.join(AUTHORITY.1), &key.serialize_pem(), 0o600)?;
    put(&authority(folder), &made.pem(), 0o644)?;
    Ok(())
}

fn subnet(address: IpAddr, prefix: u8) -> CidrSubnet {
    match address {
        IpAddr::V4(v4) => CidrSubnet::V4(v4.octets(), (u32::MAX << (32 - u32::from(prefix))).to_be_bytes()),
        IpAddr::V6(v6) => CidrSubnet::V6(v6.octets(), (u128::MAX << (128 - u32::from(prefix))).to_be_bytes()),
    }
}

fn certificate_of(
    names: &[&str],
    addresses: &[IpAddr],
    now: Timestamp,
) -> Result<CertificateParams, BoxError> {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
    hold(&mut params, now, DAYS.1);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// It holds from yesterday on, for so many days.
fn hold(params: &mut CertificateParams, now: Timestamp, days: i64) {
    let day = |offset: i64| {
        let at = Timestamp::from_second(now.as_second() + offset * DAY).unwrap_or(now);
        let date = at.to_zoned(TimeZone::UTC).date();
        rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    (params.not_before, params.not_after) = (day(-1), day(days));
}

/// Writes a file whole or not at all.
fn put(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustls::{
        RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier},
        pki_types::{ServerName, UnixTime},
    };

    use super::*;
    use crate::certs::found::PROVIDER;

    fn at(days: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + days * DAY).expect("an instant")
    }

    /// Whether a client that trusts the authority of a folder trusts what is served, or what is given.
    fn trusts(folder: &Path, chain: &str, host: &str, now: Timestamp) -> bool {
        let certificate = CertificateDer::from_pem_slice(chain.as_bytes()).expect("a certificate");
        trusts_der(folder, &certificate, host, now)
    }

    fn trusts_der(folder: &Path, certificate: &CertificateDer<'_>, host: &str, now: Timestamp) -> bool {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(authority(folder)).expect("an authority");
        roots.add(authority).expect("an authority");
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), PROVIDER.clone());
        let verifier = verifier.build().expect("a verifier");
        let host = ServerName::try_from(host).expect("a name");
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.as_second().unsigned_abs()));
        verifier.verify_server_cert(certificate, &[], &host, &[], now).is_ok()
    }

    #[test]
    fn an_authority_and_a_certificate_are_made_once_and_the_certificate_again_near_its_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("combo/dev");
        let file = served(&folder).join(SERVED.1);
        let read = || fs::read_to_string(&file).expect("a certificate");
        assert!(prepare(&folder, "box", at(0)).expect("files"));
        let (first, authority) = (read(), fs::read(authority(&folder)).expect("an authority"));
        assert!(!prepare(&folder, "box", at(59)).expect("files"));
        assert_eq!(read(), first);
        assert!(prepare(&folder, "box", at(61)).expect("files"));
        assert_ne!(read(), first);
        assert_eq!(fs::read(super::authority(&folder)).expect("an authority"), authority);
        for host in ["localhost", "127.0.0.1", "::1", "box"] {
            assert!(trusts(&folder, &read(), host, at(61)), "{host}");
        }
        for private in [&file, &folder.join(AUTHORITY.1)] {
            let mode = fs::metadata(private).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{private:?}");
        }
    }

    #[test]
    fn hosts_below_localhost_have_one_each() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Timestamp::now();
        assert!(prepare(folder.path(), "box", now).expect("files"));
        let dev = Dev::of(folder.path().to_owned(), "box".to_owned(), now).expect("an authority");
        for host in ["shop.localhost", "a.shop.localhost"] {
            let made = dev.below_localhost(host).expect("a certificate");
            let trusted = |host| trusts_der(&dev.folder, &made.cert[0], host, now);
            assert!(trusted(host) && !trusted("localhost"));
            assert!(Arc::ptr_eq(&made, &dev.below_localhost(host).expect("the same")));
        }
        for host in ["localhost", "example.com", ".localhost", "shoplocalhost"] {
            assert!(dev.below_localhost(host).is_none(), "{host}");
        }
    }

    #[test]
    fn an_authority_without_its_key_is_made_again_and_signs_from_then_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Timestamp::now();
        let dev = Dev::of(folder.path().to_owned(), "box".to_owned(), now).expect("an authority");
        let trusted = || {
            let made = dev.below_localhost("a.localhost").expect("a certificate");
            let served = fs::read_to_string(served(folder.path()).join(SERVED.1)).expect("a certificate");
            let served = served.split_once("-----BEGIN CERTIFICATE").expect("a certificate").1.to_owned();
            trusts_der(&dev.folder, &made.cert[0], "a.localhost", now)
                && trusts(&dev.folder, &format!("-----BEGIN CERTIFICATE{served}"), "localhost", now)
        };
        assert!(trusted());
        // As two that start at once would leave it, each of which has written half.
        let other = KeyPair::generate().expect("a key").serialize_pem();
        put(&folder.path().join(AUTHORITY.1), &other, 0o600).expect("a file");
        assert!(prepare(folder.path(), "box", now).expect("files"));
        dev.renew(now).expect("files");
        assert!(trusted() && !prepare(folder.path(), "box", now).expect("files"));
        // And what another process has made is taken up.
        fs::remove_file(authority(folder.path())).expect("a file");
        assert!(prepare(folder.path(), "box", now).expect("files"));
        assert!(!trusted());
        dev.renew(now).expect("files");
        assert!(trusted());
    }

    #[test]
    fn many_that_start_at_once_make_one_authority() {
        let folder = tempfile::tempdir().expect("a folder");
        let made: Vec<bool> = std::thread::scope(|scope| {
            let start = || scope.spawn(|| prepare(folder.path(), "box", at(0)).expect("files"));
            let all: Vec<_> = (0..8).map(|_| start()).collect();
            all.into_iter().map(|one| one.join().expect("no panic")).collect()
        });
        assert_eq!(made.iter().filter(|made| **made).count(), 1);
        assert!(is_usable(folder.path(), at(0)));
    }

    #[test]
    fn the_authority_can_sign_for_no_other_host() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(prepare(folder.path(), "box", at(0)).expect("files"));
        let authority = fs::read_to_string(authority(folder.path())).expect("an authority");
        let key = fs::read_to_string(folder.path().join(AUTHORITY.1)).expect("a key");
        let key = KeyPair::from_pem(&key).expect("a key");
        let issuer = Issuer::from_ca_cert_pem(&authority, key).expect("an authority");
        for (host, trusted) in [("box", true), ("example.com", false), ("192.0.2.1", false)] {
            let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
            hold(&mut params, at(0), 9);
            let made = params.signed_by(&KeyPair::generate().expect("a key"), &issuer).expect("one");
            assert_eq!(trusts(folder.path(), &made.pem(), host, at(0)), trusted, "{host}");
        }
        // On a machine of another name the host is left out, and the rest holds.
        fs::remove_file(served(folder.path()).join(SERVED.1)).expect("a certificate");
        assert!(prepare(folder.path(), "other", at(0)).expect("files"));
        let read = fs::read_to_string(served(folder.path()).join(SERVED.1)).expect("a certificate");
        assert!(trusts(folder.path(), &read, "localhost", at(0)));
        assert!(!trusts(folder.path(), &read, "other", at(0)));
    }
}
