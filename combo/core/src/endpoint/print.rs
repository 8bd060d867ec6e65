//! An endpoint -> the text that parses back to it.

use std::{borrow::Cow, fmt, net::IpAddr, path::Path};

use super::{
    Authority, Certificates, Challenge, Clients, Endpoint, Inherited, Issuer, Port, Redirect, Tls, UnixName,
    Unknown, parse::KINDS,
};
use crate::schedule::in_short;

/// Prints what parses back to the same endpoint, the key in `eab=` with it: see [`discreet`].
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "tcp:{port}"),
            Self::Unix { path: UnixName::Abstract(name), .. } => write!(f, "unix:@{}", escape(name)),
            Self::Unix { path: UnixName::Path(path), mode } => {
                write!(f, "unix:{}", file(path, |said| said.starts_with('@')))?;
                if *mode == 0o660 { Ok(()) } else { write!(f, ":mode={mode:o}") }
            }
            Self::Inherited(Inherited::Name(name)) => write!(f, "systemd:name={}", escape(name)),
            Self::Inherited(Inherited::Index(index)) => write!(f, "systemd:index={index}"),
            Self::Inherited(Inherited::Fd(fd)) => write!(f, "fd:{fd}"),
            Self::Ssl { port, key, cert, clients } => {
                write!(f, "ssl:{port}:key={}:cert={}", path(key), path(cert))?;
                write_clients(clients.as_ref(), f)
            }
            Self::Tls(tls) => tls.fmt(f),
            Self::Haproxy(within) => write!(f, "haproxy:{within}"),
            Self::Redirect(redirect) => redirect.fmt(f),
        }
    }
}

impl fmt::Display for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { certificates, issuer, unknown, clients, within } = self;
        f.write_str(match issuer.as_ref().map(|issuer| &issuer.authority) {
            None => "tls:",
            Some(Authority::LetsEncrypt) => "le:",
            Some(Authority::LetsEncryptStaging) => "lets:",
            Some(Authority::Other { .. }) => "acme:",
        })?;
        match certificates {
            Certificates::Dev => f.write_str("dev")?,
            Certificates::Folder(folder) => {
                f.write_str(&file(folder, |said| {
                    issuer.is_none() && said == "dev" || KINDS.contains(&said)
                }))?;
            }
        }
        if let Some(issuer) = issuer {
            write_issuer(issuer, f)?;
        }
        if *unknown == Unknown::Refuse {
            f.write_str(":unknown=refuse")?;
        }
        write_clients(clients.as_ref(), f)?;
        write!(f, ":{within}")
    }
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redirect:")?;
        if let Some(port) = self.port {
            write!(f, "port={port}:")?;
        }
        if self.code != 308 {
            write!(f, "code={}:", self.code)?;
        }
        self.within.fmt(f)
    }
}

fn write_issuer(issuer: &Issuer, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Issuer { authority, email, eab, challenge, hook, on_demand } = issuer;
    if let Authority::Other { directory, root } = authority {
        write!(f, ":directory={}", escape(directory))?;
        if let Some(root) = root {
            write!(f, ":root={}", path(root))?;
        }
    }
    if let Some(email) = email {
        write!(f, ":email={}", escape(email))?;
    }
    if let Some((account, key)) = eab {
        write!(f, ":eab={},{}", escape(account), escape(key))?;
    }
    if *challenge != Challenge::default() {
        write!(f, ":challenge={}", challenge.name())?;
    }
    if let Some(hook) = hook {
        write!(f, ":hook={}", path(hook))?;
    }
    if on_demand.is_empty() { Ok(()) } else { write!(f, ":allow={}", on_demand.join(",")) }
}

fn write_clients(clients: Option<&Clients>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(Clients { authority, optional }) = clients else { return Ok(()) };
    write!(f, ":client_ca={}", path(authority))?;
    if *optional { f.write_str(":client=optional") } else { Ok(()) }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::new(self.number);
        write!(f, "{}", self.number)?;
        match self.interface {
            None => {}
            Some(IpAddr::V4(address)) => write!(f, ":interface={address}")?,
            Some(IpAddr::V6(address)) => write!(f, ":interface=[{address}]")?,
        }
        let word = |yes: bool| if yes { "yes" } else { "no" };
        if let Some(v6only) = self.v6only {
            write!(f, ":v6only={}", word(v6only))?;
        }
        if self.backlog != usual.backlog {
            write!(f, ":backlog={}", self.backlog)?;
        }
        if self.nodelay != usual.nodelay {
            write!(f, ":nodelay={}", word(self.nodelay))?;
        }
        match self.keepalive {
            same if same == usual.keepalive => {}
            None => f.write_str(":keepalive=no")?,
            Some(after) => write!(f, ":keepalive={}", after.as_secs())?,
        }
        self.user_timeout.map_or(Ok(()), |limit| write!(f, ":user_timeout={}", in_short(limit)))
    }
}

fn path(path: &Path) -> String {
    escape(&path.to_string_lossy())
}

/// A path where some words mean something else.
fn file(path: &Path, means_else: impl FnOnce(&str) -> bool) -> String {
    let said = path.to_string_lossy();
    let here = if means_else(&said) { "./" } else { "" };
    format!("{here}{}", escape(&said))
}

fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        if matches!(character, ':' | '=' | '\\' | '[') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// The text of an endpoint, right or wrong, as it may be shown and logged: without the key in `eab=`.
///
/// ```
/// # use combo_core::endpoint::discreet;
/// assert_eq!(discreet("le:certs:eab=me,c2VjcmV0:tcp:443"), "le:certs:eab=…:tcp:443");
/// ```
#[must_use]
pub fn discreet(said: &str) -> Cow<'_, str> {
    let (mut shown, mut rest) = (String::new(), said);
    while let Some(value) = key(rest) {
        shown.push_str(&rest[..value]);
        shown.push('…');
        rest = &rest[value + argument(&rest[value..])..];
    }
    if shown.is_empty() { Cow::Borrowed(said) } else { Cow::Owned(shown + rest) }
}

/// Where the value of the first `eab=` begins, with whatever is escaped in that.
fn key(said: &str) -> Option<usize> {
    let (mut text, mut characters) = (String::new(), said.chars());
    while let Some(character) = characters.next() {
        match character {
            ':' => text.clear(),
            '\\' => text.extend(characters.next()),
            other => text.push(other),
        }
        if text.ends_with("eab=") {
            return Some(said.len() - characters.as_str().len());
        }
    }
    None
}

/// Where the argument ends that this is the rest of.
fn argument(said: &str) -> usize {
    let (mut escaped, mut inside) = (false, said.starts_with('['));
    let end = said.find(|character| {
        inside &= character != ']';
        let end = character == ':' && !escaped && !inside;
        escaped = character == '\\' && !escaped;
        end
    });
    end.unwrap_or(said.len())
}
