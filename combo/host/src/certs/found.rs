//! A folder -> the certificates in it, or what is broken and why.
//!
//! A host has `host.pem` (key, certificate and chain in any order), or `host.crt` or `host.pem` with `host.key`, or a
//! folder with `privkey.pem` and `fullchain.pem` or `tls.key` and `tls.crt`, here or in `live`. Links are followed,
//! hidden names left alone. An empty `host.pem` is none yet. Nothing of a key is ever in an error.
#![expect(clippy::disallowed_methods, reason = "certificates and their keys are files")]

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    fs::{self, Metadata},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use rustix::time::Timespec;
use rustls::{
    InconsistentKeys,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject, SectionKind},
    },
    sign::CertifiedKey,
};

use super::{
    leaf::{self, Leaf},
    names::Name,
};
use crate::looks::Looks;

/// No certificate with its chain and key is larger.
const LARGEST: u64 = 1 << 20;

/// What a key file's mode lets others do: read, write or run it.
const OTHERS: u32 = 0o007;

/// Algorithms and key exchanges. Post-quantum first, since what is recorded today may be read when there are
/// machines for it (draft-ietf-tls-ecdhe-mlkem).
pub(crate) static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    let kx_groups = vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1];
    Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() })
});

/// The files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// What they are named after.
    pub(crate) name: Option<Name>,
    /// The file with certificate and chain.
    pub(crate) cert: PathBuf,
    /// The one with the key, if that is another.
    pub(crate) key: Option<PathBuf>,
}

/// What tells the files of a certificate from what they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    cert: Looks,
    key: Option<Looks>,
    /// Whoever else is on the machine may read the key.
    pub(crate) exposed: bool,
}

impl Stamp {
    /// Whether they were changed at this instant of the coarse clock or later.
    pub(crate) fn since(&self, instant: Timespec) -> bool {
        [Some(self.cert), self.key].into_iter().flatten().any(|looks| looks.since(instant))
    }
}

/// What there is in a folder.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) sources: Vec<(Source, Result<Stamp, Broken>)>,
    /// Files that ask for a certificate.
    pub(crate) empty: Vec<PathBuf>,
    /// Folders that something may appear in, this one first.
    pub(crate) folders: Vec<PathBuf>,
    /// What leads elsewhere.
    pub(crate) links: Vec<PathBuf>,
    /// Folders of which nobody could say what is in them, and why.
    pub(crate) unseen: Vec<(PathBuf, Broken)>,
}

/// A certificate as it was read.
pub(crate) struct Material {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) leaf: Leaf,
}

/// Why a certificate cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    NoCertificate,
    NoKey,
    /// It would take a passphrase.
    Locked,
    /// There is a beginning without an end.
    Torn,
    NotPem,
    NoFile,
    Large,
    Certificate,
    Key,
    Mismatch,
    Io(io::ErrorKind),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("there is no certificate in it"),
            Self::NoKey => f.write_str("there is no private key in it or beside it"),
            Self::Locked => f.write_str("the key has a passphrase, which nobody could be asked for"),
            Self::Torn => f.write_str("it ends in the middle"),
            Self::NotPem => f.write_str("it is no PEM"),
            Self::NoFile => f.write_str("it is no file"),
            Self::Large => f.write_str("it is too large: more than 1 MiB"),
            Self::Certificate => f.write_str("the certificate cannot be read"),
            Self::Key => f.write_str("the key is of no kind that is known here"),
            Self::Mismatch => f.write_str("the key is not the certificate's"),
            Self::Io(kind) => write!(f, "{kind}"),
        }
    }
}

impl Broken {
    /// Whether it says nothing of the file: nobody was able to read it this time.
    pub(crate) fn is_of_the_system(&self) -> bool {
        matches!(self, Self::Io(_))
    }

    /// Whether it may be over without anybody having touched the file.
    pub(crate) fn may_pass(&self) -> bool {
        let lasts = |kind| matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied);
        matches!(self, Self::Io(kind) if !lasts(*kind))
    }
}

impl std::error::Error for Broken {}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

/// Looks at a folder, and at the folders in it that may have a certificate. Reads no file.
pub(crate) fn list(folder: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    look_into(folder, true, &mut listing)?;
    Ok(listing)
}

/// The files of one stem.
#[derive(Default)]
struct Stem {
    pem: bool,
    crt: bool,
    key: bool,
}

fn look_into(folder: &Path, outermost: bool, listing: &mut Listing) -> io::Result<()> {
    let mut stems: BTreeMap<String, Stem> = BTreeMap::new();
    let mut folders = Vec::new();
    listing.folders.push(folder.to_owned());
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            Err(error) if is_absence(&error) => continue,
            Err(error) => return Err(error),
        };
        let stem =
            |ending| outermost.then(|| name.strip_suffix(ending)).flatten().filter(|stem| !stem.is_empty());
        let led = kind.is_symlink().then(|| fs::metadata(entry.path()));
        let is_folder = led.as_ref().map_or(kind.is_dir(), |led| led.as_ref().is_ok_and(Metadata::is_dir));
        if is_folder {
            if kind.is_symlink() {
                listing.links.push(entry.path());
            }
            folders.push(name);
            continue;
        }
        let of = |stem: &str, stems: &mut BTreeMap<String, Stem>, set: fn(&mut Stem) -> &mut bool| {
            *set(stems.entry(stem.to_owned()).or_default()) = true;
        };
        if let Some(stem) = stem(".pem") {
            of(stem, &mut stems, |stem| &mut stem.pem);
        } else if let Some(stem) = stem(".crt") {
            of(stem, &mut stems, |stem| &mut stem.crt);
        } else if let Some(stem) = stem(".key") {
            of(stem, &mut stems, |stem| &mut stem.key);
        } else {
            // It may lead to a folder.
            if let Some(Err(error)) = led
                && !is_absence(&error)
            {
                listing.links.push(entry.path());
                listing.unseen.push((entry.path(), error.into()));
            }
            continue;
        }
        if kind.is_symlink() {
            listing.links.push(entry.path());
        }
    }
    for (stem, Stem { pem, crt, key }) in stems {
        let at = |ending: &str| folder.join(format!("{stem}{ending}"));
        // A secret of Kubernetes, mounted as the folder itself.
        let name = if stem == "tls" { None } else { Name::of_file(&stem) };
        if crt && key {
            listing.add(Source { name: name.clone(), cert: at(".crt"), key: Some(at(".key")) });
        }
        if pem {
            let key = (key && !crt).then(|| at(".key"));
            listing.add(Source { name, cert: at(".pem"), key });
        } else if crt && !key && stem != "ca" {
            listing.add(Source { name, cert: at(".crt"), key: None });
        }
    }
    for name in folders {
        let within = folder.join(&name);
        if outermost && name == "live" {
            match look_into(&within, false, listing) {
                Err(error) if !is_absence(&error) => listing.unseen.push((within, error.into())),
                _ => {}
            }
            continue;
        }
        for (cert, key) in [("fullchain.pem", "privkey.pem"), ("tls.crt", "tls.key")] {
            let (cert, key) = (within.join(cert), within.join(key));
            let found = match fs::symlink_metadata(&cert) {
                Ok(found) => found,
                Err(error) => {
                    if !is_absence(&error) && listing.unseen.last().is_none_or(|(last, _)| *last != within) {
                        listing.unseen.push((within.clone(), error.into()));
                    }
                    continue;
                }
            };
            for path in [&cert, &key] {
                if found.is_symlink() {
                    listing.links.push(path.clone());
                }
            }
            listing.add(Source { name: Name::of_file(&name), cert, key: Some(key) });
        }
        listing.folders.push(within);
    }
    Ok(())
}

/// Whether it says that something is not there; any other error says nothing of that.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

impl Listing {
    fn add(&mut self, source: Source) {
        match measure(&source) {
            Ok(None) => self.empty.push(source.cert),
            Ok(Some(stamp)) => self.sources.push((source, Ok(stamp))),
            Err(broken) => self.sources.push((source, Err(broken))),
        }
    }
}

/// What the files look like; nothing of an empty one that is to have all.
pub(crate) fn measure(source: &Source) -> Result<Option<Stamp>, Broken> {
    let cert = file(&source.cert)?;
    if cert.len() == 0
        && source.cert.extension().is_some_and(|ending| ending == "pem")
        && source.key.is_none()
    {
        return Ok(None);
    }
    let key = source.key.as_deref().map(file).transpose();
    let key =
        key.map_err(
            |broken| if broken == Broken::Io(io::ErrorKind::NotFound) { Broken::NoKey } else { broken },
        )?;
    let exposed = key.as_ref().unwrap_or(&cert).permissions().mode() & OTHERS != 0;
    Ok(Some(Stamp { cert: Looks::from(&cert), key: key.as_ref().map(Looks::from), exposed }))
}

fn file(path: &Path) -> Result<Metadata, Broken> {
    let found = fs::metadata(path)?;
    match found.len() {
        _ if !found.is_file() => Err(Broken::NoFile),
        too_much if too_much > LARGEST => Err(Broken::Large),
        _ => Ok(found),
    }
}

/// What is in a file, which is no pipe, no device and not too large.
pub(crate) fn contents(path: &Path) -> Result<Vec<u8>, Broken> {
    let _ = file(path)?;
    Ok(fs::read(path)?)
}

/// Reads certificate and key; whether they belong together is not known yet.
pub(crate) fn read(source: &Source) -> Result<Material, Broken> {
    let cert = contents(&source.cert)?;
    let (chain, own) = sections(&cert)?;
    let key = match &source.key {
        Some(key) => sections(&contents(key)?)?.1,
        None => own,
    };
    material(chain, key)
}

fn material(chain: Vec<CertificateDer<'static>>, key: Option<Private>) -> Result<Material, Broken> {
    let chain = leaf::in_order(chain);
    let leaf = Leaf::read(chain.first().ok_or(Broken::NoCertificate)?).ok_or(Broken::Certificate)?;
    match key {
        Some(Private::Open(key)) => Ok(Material { chain, key, leaf }),
        Some(Private::Locked) => Err(Broken::Locked),
        None => Err(Broken::NoKey),
    }
}

/// A private key, as it was found.
pub(crate) enum Private {
    Open(PrivateKeyDer<'static>),
    Locked,
}

/// The certificates in a file and the first private key. The parser's own errors have lines of the file in them, so
/// they are not passed on.
pub(crate) fn sections(text: &[u8]) -> Result<(Vec<CertificateDer<'static>>, Option<Private>), Broken> {
    let (mut chain, mut key) = (Vec::new(), None);
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
        let (kind, der) = section.map_err(|error| match error {
            pem::Error::MissingSectionEnd { .. } => Broken::Torn,
            _ => Broken::NotPem,
        })?;
        match kind {
            SectionKind::Certificate => chain.push(CertificateDer::from(der)),
            _ if key.is_none() => key = PrivateKeyDer::from_pem(kind, der).map(Private::Open),
            _ => {}
        }
    }
    if key.is_none() && memchr::memmem::find(text, b"-----BEGIN ENCRYPTED PRIVATE KEY-----").is_some() {
        key = Some(Private::Locked);
    }
    Ok((chain, key))
}

/// What signs in handshakes, if the key is that of the first certificate.
pub(crate) fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, Broken> {
    let key = PROVIDER.key_provider.load_private_key(key).map_err(|_| Broken::Key)?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err(Broken::Mismatch),
        Err(_) => Err(Broken::Certificate),
    }
}

/// The name of a file or folder under another, as people say it.
pub(crate) fn within(folder: &Path, path: &Path) -> PathBuf {
    let inside = path.strip_prefix(folder).unwrap_or(path);
    // Both files of a folder are meant by the folder.
    let both: [OsString; 2] = ["fullchain.pem".into(), "tls.crt".into()];
    match (inside.file_name(), inside.parent()) {
        (Some(name), Some(parent)) if both.iter().any(|known| known == name) && parent != Path::new("") => {
            parent.to_owned()
        }
        _ => inside.to_owned(),
    }
}
