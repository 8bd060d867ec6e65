//! The text of an endpoint -> the endpoint, or the first thing that is wrong with it.

use std::{net::IpAddr, str::FromStr, time::Duration};

use super::{
    Authority, Certificates, Challenge, Clients, Endpoint, Fault, Inherited, Issuer, Port, Redirect, Tls,
    UnixName, Unknown, arguments::Arguments,
};
use crate::{pattern::Host, schedule::interval};

pub(super) const KINDS: [&str; 12] =
    ["tcp", "tcp6", "unix", "systemd", "fd", "ssl", "tls", "le", "lets", "acme", "haproxy", "redirect"];

pub(super) const CLIENT_CA: &str = "`client_ca=` (the file with the authority of the clients' certificates)";

/// How long the address of a unix socket may be, less the zero before an abstract name.
const LONGEST_ABSTRACT: usize = 107;

/// What the kernel takes for the time before a quiet peer is asked, in seconds.
const LONGEST_KEEPALIVE: u16 = 32_767;

impl FromStr for Endpoint {
    type Err = Fault;

    fn from_str(said: &str) -> Result<Self, Fault> {
        Around::default().parse(said)
    }
}

/// The wrappers that are around an endpoint.
#[derive(Clone, Copy, Default)]
struct Around {
    redirect: bool,
    /// As it was said.
    tls: bool,
    haproxy: bool,
}

impl Around {
    fn parse(self, said: &str) -> Result<Endpoint, Fault> {
        let mut arguments = Arguments::of(said)?;
        if !arguments.read(1)? {
            // There are keywords alone.
            return Err(Fault::Missing("kind, such as `tcp:`"));
        }
        let kind = arguments.next().unwrap_or_default();
        let endpoint = match kind.as_str() {
            "haproxy" => self.haproxy(&mut arguments)?,
            "redirect" => self.redirect(&mut arguments)?,
            "tls" => self.tls("tls", &mut arguments)?,
            "le" => self.tls("le", &mut arguments)?,
            "lets" => self.tls("lets", &mut arguments)?,
            "acme" => self.tls("acme", &mut arguments)?,
            _ => {
                arguments.read_all()?;
                self.leaf(kind, &mut arguments)?
            }
        };
        arguments.end()?;
        Ok(endpoint)
    }

    fn leaf(self, kind: String, arguments: &mut Arguments<'_>) -> Result<Endpoint, Fault> {
        Ok(match kind.as_str() {
            "tcp" => Endpoint::Tcp(port(arguments.next(), arguments)?),
            "tcp6" => {
                let mut port = port(arguments.next(), arguments)?;
                match port.interface {
                    None => port.interface = Some(std::net::Ipv6Addr::UNSPECIFIED.into()),
                    Some(IpAddr::V6(_)) => {}
                    Some(IpAddr::V4(address)) => return Err(Fault::NotV6(address.to_string())),
                }
                Endpoint::Tcp(port)
            }
            "ssl" => {
                if self.redirect {
                    return Err(Fault::RedirectTls);
                }
                if self.tls {
                    return Err(Fault::TlsTwice);
                }
                let number = arguments.next();
                let key = arguments.required("key", "`key=` (the file with the private key)")?;
                let cert = arguments.required("cert", "`cert=` (the file with the certificate chain)")?;
                let clients = clients(arguments)?;
                Endpoint::Ssl { port: port(number, arguments)?, key: key.into(), cert: cert.into(), clients }
            }
            "unix" => unix(arguments)?,
            "systemd" => Endpoint::Inherited(systemd(arguments)?),
            "fd" => {
                let said = arguments.next().ok_or(Fault::Missing("descriptor"))?;
                let fd = said.parse().ok().filter(|fd| *fd > 2 && is_number(&said));
                Endpoint::Inherited(Inherited::Fd(fd.ok_or(Fault::Fd(said))?))
            }
            number if is_number(number) => Endpoint::Tcp(port(Some(kind), arguments)?),
            _ => return Err(Fault::UnknownKind(kind)),
        })
    }

    fn within(self, arguments: &mut Arguments<'_>) -> Result<Endpoint, Fault> {
        self.parse(arguments.inner()?.ok_or(Fault::Missing("endpoint behind it"))?)
    }

    fn haproxy(self, arguments: &mut Arguments<'_>) -> Result<Endpoint, Fault> {
        if self.haproxy {
            return Err(Fault::Nested("haproxy"));
        }
        Ok(Endpoint::Haproxy(Box::new(Self { haproxy: true, ..self }.within(arguments)?)))
    }

    fn redirect(self, arguments: &mut Arguments<'_>) -> Result<Endpoint, Fault> {
        match self {
            Self { redirect: true, .. } => return Err(Fault::Nested("redirect")),
            Self { tls: true, .. } => return Err(Fault::RedirectTls),
            Self { haproxy: true, .. } => return Err(Fault::Order("redirect", "haproxy")),
            _ => {}
        }
        let within = Self { redirect: true, ..self }.within(arguments)?;
        let port = |said: &str| said.parse().ok().filter(|port| *port > 0 && is_number(said));
        let port = arguments.choice("port", "a port, 1 to 65535", port)?;
        let code = |said: &str| ["301", "308"].contains(&said).then(|| said.parse().ok()).flatten();
        let code = arguments.choice("code", "301 or 308", code)?.unwrap_or(308);
        Ok(Endpoint::Redirect(Box::new(Redirect { port, code, within })))
    }

    fn tls(self, kind: &'static str, arguments: &mut Arguments<'_>) -> Result<Endpoint, Fault> {
        match self {
            Self { redirect: true, .. } => return Err(Fault::RedirectTls),
            Self { tls: true, .. } => return Err(Fault::TlsTwice),
            Self { haproxy: true, .. } => return Err(Fault::Order(kind, "haproxy")),
            _ => {}
        }
        let _ = arguments.read(1)?;
        let folder = arguments.next().filter(|said| !said.is_empty()).ok_or(Fault::Missing("folder"))?;
        if KINDS.contains(&&*folder) {
            return Err(Fault::NoFolder(folder));
        }
        let within = arguments.inner()?;
        let authority = match kind {
            "le" => Some(Authority::LetsEncrypt),
            "lets" => Some(Authority::LetsEncryptStaging),
            "acme" => Some(other(arguments)?),
            _ => None,
        };
        let certificates = match (&authority, &*folder) {
            (None, "dev") => Certificates::Dev,
            _ => Certificates::Folder(folder.into()),
        };
        let issuer = authority.map(|authority| issuer(authority, arguments)).transpose()?;
        let unknown = |said: &str| match said {
            "default" => Some(Unknown::Default),
            "refuse" => Some(Unknown::Refuse),
            _ => None,
        };
        let unknown = arguments.choice("unknown", "refuse or default", unknown)?.unwrap_or_default();
        let clients = clients(arguments)?;
        let within = within.ok_or(Fault::Missing("endpoint behind it"))?;
        let within = Self { tls: true, ..self }.parse(within)?;
        Ok(Endpoint::Tls(Box::new(Tls { certificates, issuer, unknown, clients, within })))
    }
}

fn is_number(said: &str) -> bool {
    !said.is_empty() && said.bytes().all(|b| b.is_ascii_digit())
}

fn mode(said: &str) -> Result<u32, Fault> {
    u32::from_str_radix(said, 8)
        .ok()
        .filter(|mode| *mode <= 0o777 && !said.starts_with('+'))
        .ok_or_else(|| Fault::Mode(said.to_owned()))
}

fn unix(arguments: &mut Arguments<'_>) -> Result<Endpoint, Fault> {
    let said = arguments.next().filter(|path| !path.is_empty()).ok_or(Fault::Missing("path"))?;
    let mode = arguments.keyword("mode").map(|said| mode(&said)).transpose()?;
    let path = match said.strip_prefix('@') {
        None => UnixName::Path(said.into()),
        Some(_) if mode.is_some() => return Err(Fault::AbstractMode),
        Some(name) if (1..=LONGEST_ABSTRACT).contains(&name.len()) => UnixName::Abstract(name.to_owned()),
        Some(name) => return Err(Fault::AbstractName(name.to_owned())),
    };
    Ok(Endpoint::Unix { path, mode: mode.unwrap_or(0o660) })
}

fn systemd(arguments: &mut Arguments<'_>) -> Result<Inherited, Fault> {
    let index = |said: &str| said.parse().ok().filter(|_| is_number(said));
    match (arguments.keyword("name"), arguments.choice("index", "a place (0 is the first)", index)?) {
        (Some(_), Some(index)) => Err(Fault::Excess(format!("index={index}"))),
        (Some(name), None) if !name.is_empty() => Ok(Inherited::Name(name)),
        (None, Some(index)) => Ok(Inherited::Index(index)),
        _ => Err(Fault::Missing("`name=` and no `index=`")),
    }
}

fn clients(arguments: &mut Arguments<'_>) -> Result<Option<Clients>, Fault> {
    let (authority, client) = (arguments.keyword("client_ca"), arguments.keyword("client"));
    let optional = match client.as_deref() {
        None | Some("required") => false,
        Some("optional") => true,
        Some(said) => return Err(Fault::Client(said.to_owned())),
    };
    match authority {
        Some(authority) => Ok(Some(Clients { authority: authority.into(), optional })),
        None if client.is_some() => Err(Fault::Missing(CLIENT_CA)),
        None => Ok(None),
    }
}

fn port(number: Option<String>, arguments: &mut Arguments<'_>) -> Result<Port, Fault> {
    let said = number.ok_or(Fault::Missing("port"))?;
    let mut port = Port::new(said.parse().ok().filter(|_| is_number(&said)).ok_or(Fault::Port(said))?);
    if let Some(said) = arguments.keyword("interface") {
        port.interface = Some(said.parse().map_err(|_| Fault::Interface(said))?);
    }
    port.v6only = arguments.choice("v6only", "yes or no", yes_or_no)?;
    if let (Some(_), Some(IpAddr::V4(address))) = (port.v6only, port.interface) {
        return Err(Fault::NotV6(address.to_string()));
    }
    let backlog =
        |said: &str| said.parse().ok().filter(|most| (1..=i32::MAX as u32).contains(most) && is_number(said));
    port.backlog =
        arguments.choice("backlog", "a number of connections, at least 1", backlog)?.unwrap_or(port.backlog);
    port.nodelay = arguments.choice("nodelay", "yes or no", yes_or_no)?.unwrap_or(port.nodelay);
    let keepalive = |said: &str| match said {
        "no" => Some(None),
        _ => {
            let seconds = said.parse().ok().filter(|seconds| (1..=LONGEST_KEEPALIVE).contains(seconds));
            seconds.filter(|_| is_number(said)).map(|seconds| Some(Duration::from_secs(seconds.into())))
        }
    };
    port.keepalive = arguments
        .choice("keepalive", "a number of seconds, 1 to 32767, or no", keepalive)?
        .unwrap_or(port.keepalive);
    port.user_timeout = arguments.choice(
        "user_timeout",
        "a number of milliseconds or a duration such as 30s, at least 1ms",
        timeout,
    )?;
    Ok(port)
}

fn yes_or_no(said: &str) -> Option<bool> {
    match said {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

fn timeout(said: &str) -> Option<Duration> {
    let said = match is_number(said) {
        true => Duration::from_millis(said.parse().ok()?),
        false => interval(said).ok()?,
    };
    (1..=i32::MAX as u128).contains(&said.as_millis()).then_some(said)
}

fn other(arguments: &mut Arguments<'_>) -> Result<Authority, Fault> {
    let directory = arguments.required("directory", "`directory=` (the URL of the authority's directory)")?;
    let behind = directory.strip_prefix("https://");
    if !behind.is_some_and(|behind| {
        !behind.is_empty() && !behind.starts_with('/') && behind.bytes().all(|b| b.is_ascii_graphic())
    }) {
        return Err(Fault::Directory(directory));
    }
    let root = arguments.keyword("root").map(Into::into);
    Ok(Authority::Other { directory, root })
}

fn issuer(authority: Authority, arguments: &mut Arguments<'_>) -> Result<Issuer, Fault> {
    let address = |said: &str| {
        let (who, host) = said.split_once('@')?;
        let good = !who.is_empty()
            && !host.is_empty()
            && said.chars().all(|c| !c.is_whitespace() && !c.is_control());
        good.then(|| said.to_owned())
    };
    let email = arguments.choice("email", "an address, such as admin@example.com", address)?;
    let eab = arguments.keyword("eab").map(|said| account(&said).ok_or(Fault::Eab)).transpose()?;
    let known = |said: &str| Challenge::ALL.into_iter().find(|challenge| challenge.name() == said);
    let challenge =
        arguments.choice("challenge", "tls-alpn-01, http-01 or dns-01", known)?.unwrap_or_default();
    let hook = arguments.keyword("hook").filter(|hook| !hook.is_empty());
    match (challenge, &hook) {
        (Challenge::Dns01, None) => return Err(Fault::Missing("`hook=` (the program that changes the DNS)")),
        (Challenge::TlsAlpn01 | Challenge::Http01, Some(_)) => return Err(Fault::Hook(challenge.name())),
        _ => {}
    }
    let allowed = arguments.keyword("allow");
    let on_demand = allowed.iter().flat_map(|said| said.split(',')).map(host).collect::<Result<_, _>>()?;
    Ok(Issuer { authority, email, eab, challenge, hook: hook.map(Into::into), on_demand })
}

fn account(said: &str) -> Option<(String, String)> {
    let (name, key) = said.rsplit_once(',')?;
    let digits = key.trim_end_matches('=');
    let good = !name.is_empty()
        && !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    good.then(|| (name.to_owned(), key.to_owned()))
}

/// A name that an authority could give a certificate for: neither one label nor an address.
fn host(said: &str) -> Result<String, Fault> {
    let fault = || Fault::Host(said.to_owned());
    let host: Host = said.trim().parse().map_err(|_| fault())?;
    let (Host::Exact(name) | Host::Below(name)) = &host else { return Err(fault()) };
    if !name.contains('.') || name.starts_with('[') || name.parse::<IpAddr>().is_ok() {
        return Err(fault());
    }
    Ok(host.to_string())
}
