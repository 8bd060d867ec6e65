//! An endpoint -> the text that parses back to it.

use std::{borrow::Cow, fmt, net::IpAddr, path::Path};

use super::{
    Authority, Certificates, Challenge, Clients, Endpoint, Inherited, Issuer, Port, Redirect, Tls, UnixName,
    Unknown,
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
                f.write_str(&file(folder, |said| issuer.is_none() && said == "dev"))?;
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
    const KEYWORD: &str = "eab=";
    let mut shown = String::new();
    let mut rest = said;
    while let Some(at) = rest.find(KEYWORD) {
        let value = at + KEYWORD.len();
        shown.push_str(&rest[..value]);
        let mut escaped = false;
        let end = rest[value..].find(|c: char| {
            let end = c == ':' && !escaped;
            escaped = c == '\\' && !escaped;
            end
        });
        shown.push('…');
        rest = end.map_or("", |end| &rest[value + end..]);
    }
    if shown.is_empty() { Cow::Borrowed(said) } else { Cow::Owned(shown + rest) }
}
