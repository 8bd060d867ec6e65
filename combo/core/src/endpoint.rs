//! Where to listen, as a string that operators can type. Parsing only; nothing is opened.
//!
//! The grammar is Twisted's: `:` separates arguments, the first `=` in one makes it a keyword, and
//! `\` takes the next character as it is. An IPv6 address may also stand in brackets. A bare
//! number means tcp.
//!
//! | endpoint | listens on |
//! | --- | --- |
//! | `tcp:8080`, `8080` | port 8080 of every interface, IPv4 and IPv6 |
//! | `tcp:8080:interface=127.0.0.1` | port 8080 of one address |
//! | `unix:/run/app.sock:mode=660` | a unix socket; mode 660 unless said |
//! | `ssl:8443:key=key.pem:cert=chain.pem` | a port with TLS; `interface=` as for tcp |
//! | `ssl:8443:key=…:cert=…:client_ca=ca.pem` | the same for clients with a certificate of that authority; `client=optional`: and for those with none |
//! | `haproxy:tcp:8080` | another endpoint, each of whose connections begins with a header of the PROXY protocol, version 1 or 2 |
//!
//! A wrapper such as `haproxy:` is followed by the endpoint within, written as it would be alone. What
//! is within is nearer to the wire than what the wrapper stands before, but the PROXY header comes
//! first of all, before TLS. Only proxies that the deployment trusts are heard, and it must trust one.
//! What is beside addresses in a header of version 2 may be as long as the protocol allows, 64 KiB in all.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

/// A place to listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// A TCP port.
    Tcp(Port),
    /// A unix socket.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Permission bits of the socket; 660 unless said.
        mode: u32,
    },
    /// A TCP port with TLS.
    Ssl {
        /// The port.
        port: Port,
        /// The file with the private key, PEM.
        key: PathBuf,
        /// The file with the certificate and its chain, PEM.
        cert: PathBuf,
        /// Whose certificates clients show; nobody asks for them unless said.
        clients: Option<Clients>,
    },
    /// Another endpoint behind a proxy that says whom a connection is from, by the PROXY protocol
    /// (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>). Its header comes before TLS.
    Haproxy(Box<Self>),
}

impl Endpoint {
    /// The endpoint without wrappers.
    #[must_use]
    pub fn bare(&self) -> &Self {
        match self {
            Self::Haproxy(within) => within.bare(),
            bare => bare,
        }
    }
}

/// Which certificates the clients of an endpoint with TLS show.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Clients {
    /// The file with the certificates of the authorities that sign them, PEM.
    pub authority: PathBuf,
    /// Whether clients without one are served, too. A bad one is refused in any case.
    pub optional: bool,
}

/// A TCP port, of one interface or of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Port {
    /// 0 lets the system choose.
    pub number: u16,
    /// The address to bind; every interface, IPv4 and IPv6, unless said.
    pub interface: Option<IpAddr>,
}

/// What is wrong with an endpoint string.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// There is nothing.
    Empty,
    /// The string ends in a backslash.
    UnfinishedEscape,
    /// A `[` has no `]`, or something else than an IPv6 address in it.
    Brackets,
    /// The first word is no kind of endpoint.
    UnknownKind(String),
    /// A required argument is not there.
    Missing(&'static str),
    /// A keyword is not known here.
    UnknownKeyword(String),
    /// A keyword stands twice.
    Twice(String),
    /// There is an argument too many.
    Excess(String),
    /// This is not a port.
    Port(String),
    /// This is not an address.
    Interface(String),
    /// This is not a mode.
    Mode(String),
    /// This says nothing of the certificates of clients.
    Client(String),
    /// This wrapper is around itself.
    Nested(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::UnfinishedEscape => f.write_str("it ends in a backslash"),
            Self::Brackets => f.write_str("brackets hold an IPv6 address, as in `[::1]`"),
            Self::UnknownKind(kind) => write!(f, "`{kind}` is none of tcp, unix, ssl, haproxy"),
            Self::Missing(what) => write!(f, "it has no {what}"),
            Self::UnknownKeyword(keyword) => write!(f, "`{keyword}=` is not known here"),
            Self::Twice(keyword) => write!(f, "`{keyword}=` stands twice"),
            Self::Excess(argument) => write!(f, "`{argument}` is one argument too many"),
            Self::Port(said) => write!(
                f,
                "`{said}` is not a port (0 to 65535; an address goes behind it, as `interface=127.0.0.1`)"
            ),
            Self::Interface(said) => write!(f, "`{said}` is not an IPv4 or IPv6 address"),
            Self::Mode(said) => write!(f, "`{said}` is not an octal mode, such as 660"),
            Self::Client(said) => write!(f, "`{said}` is neither required nor optional"),
            Self::Nested(wrapper) => write!(f, "`{wrapper}:` stands twice"),
        }
    }
}

impl std::error::Error for Fault {}

impl FromStr for Endpoint {
    type Err = Fault;

    fn from_str(said: &str) -> Result<Self, Fault> {
        if let Some(within) = said.strip_prefix("haproxy:") {
            return match within.parse()? {
                Self::Haproxy(_) => Err(Fault::Nested("haproxy")),
                within => Ok(Self::Haproxy(Box::new(within))),
            };
        }
        let mut arguments = Arguments::split(said)?;
        let kind = arguments.next().ok_or(Fault::Empty)?;
        let endpoint = match kind.as_str() {
            "tcp" => Self::Tcp(arguments.port()?),
            "ssl" => {
                let number = arguments.next();
                let key = arguments.required("key", "`key=` (the file with the private key)")?;
                let cert = arguments.required("cert", "`cert=` (the file with the certificate chain)")?;
                let clients = arguments.clients()?;
                Self::Ssl { port: arguments.port_of(number)?, key: key.into(), cert: cert.into(), clients }
            }
            "unix" => {
                let path = arguments.next().filter(|path| !path.is_empty()).ok_or(Fault::Missing("path"))?;
                let mode = match arguments.keyword("mode")? {
                    None => 0o660,
                    Some(said) => mode(&said)?,
                };
                Self::Unix { path: path.into(), mode }
            }
            number if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => {
                Self::Tcp(arguments.port_of(Some(number.to_owned()))?)
            }
            "haproxy" => return Err(Fault::Missing("endpoint behind it")),
            _ => return Err(Fault::UnknownKind(kind)),
        };
        arguments.end()?;
        Ok(endpoint)
    }
}

fn mode(said: &str) -> Result<u32, Fault> {
    u32::from_str_radix(said, 8)
        .ok()
        .filter(|mode| *mode <= 0o777 && !said.starts_with('+'))
        .ok_or_else(|| Fault::Mode(said.to_owned()))
}

const CLIENT_CA: &str = "`client_ca=` (the file with the authority of the clients' certificates)";

/// The arguments of one endpoint, positional and by keyword; whoever takes one removes it.
struct Arguments {
    positional: std::collections::VecDeque<String>,
    keywords: Vec<(String, String)>,
}

impl Arguments {
    fn clients(&mut self) -> Result<Option<Clients>, Fault> {
        let (authority, client) = (self.keyword("client_ca")?, self.keyword("client")?);
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

    fn split(said: &str) -> Result<Self, Fault> {
        let mut positional = std::collections::VecDeque::new();
        let mut keywords: Vec<(String, String)> = Vec::new();
        if said.is_empty() {
            return Err(Fault::Empty);
        }
        let mut characters = said.chars().peekable();
        loop {
            let (mut keyword, mut value) = (None, String::new());
            let more = loop {
                match characters.next() {
                    None => break false,
                    Some(':') => break true,
                    Some('\\') => value.push(characters.next().ok_or(Fault::UnfinishedEscape)?),
                    Some('=') if keyword.is_none() => keyword = Some(std::mem::take(&mut value)),
                    Some('[') if value.is_empty() => {
                        let mut closed = false;
                        let inside = characters.by_ref().take_while(|c| {
                            closed = *c == ']';
                            !closed
                        });
                        value = inside.collect();
                        let ends = closed && matches!(characters.peek(), None | Some(':'));
                        if !ends || value.parse::<std::net::Ipv6Addr>().is_err() {
                            return Err(Fault::Brackets);
                        }
                    }
                    Some(other) => value.push(other),
                }
            };
            match keyword {
                None => positional.push_back(value),
                Some(keyword) if keywords.iter().any(|(known, _)| *known == keyword) => {
                    return Err(Fault::Twice(keyword));
                }
                Some(keyword) => keywords.push((keyword, value)),
            }
            if !more {
                return Ok(Self { positional, keywords });
            }
        }
    }

    fn next(&mut self) -> Option<String> {
        self.positional.pop_front()
    }

    fn keyword(&mut self, keyword: &str) -> Result<Option<String>, Fault> {
        let position = self.keywords.iter().position(|(known, _)| known == keyword);
        Ok(position.map(|position| self.keywords.remove(position).1))
    }

    fn required(&mut self, keyword: &str, what: &'static str) -> Result<String, Fault> {
        self.keyword(keyword)?.filter(|value| !value.is_empty()).ok_or(Fault::Missing(what))
    }

    fn port(&mut self) -> Result<Port, Fault> {
        let number = self.next();
        self.port_of(number)
    }

    fn port_of(&mut self, number: Option<String>) -> Result<Port, Fault> {
        let said = number.ok_or(Fault::Missing("port"))?;
        let digits = !said.is_empty() && said.bytes().all(|b| b.is_ascii_digit());
        let number = said.parse().ok().filter(|_| digits).ok_or(Fault::Port(said))?;
        let interface = match self.keyword("interface")? {
            None => None,
            Some(said) => Some(said.parse().map_err(|_| Fault::Interface(said))?),
        };
        Ok(Port { number, interface })
    }

    /// Whatever nobody took is a mistake.
    fn end(mut self) -> Result<(), Fault> {
        if let Some((keyword, _)) = self.keywords.pop() {
            return Err(Fault::UnknownKeyword(keyword));
        }
        self.next().map_or(Ok(()), |argument| Err(Fault::Excess(argument)))
    }
}

/// Prints what parses back to the same endpoint.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "tcp:{port}"),
            Self::Unix { path, mode } => {
                write!(f, "unix:{}", escape(&path.to_string_lossy()))?;
                if *mode == 0o660 { Ok(()) } else { write!(f, ":mode={mode:o}") }
            }
            Self::Ssl { port, key, cert, clients } => {
                let (key, cert) = (escape(&key.to_string_lossy()), escape(&cert.to_string_lossy()));
                write!(f, "ssl:{port}:key={key}:cert={cert}")?;
                let Some(Clients { authority, optional }) = clients else { return Ok(()) };
                write!(f, ":client_ca={}", escape(&authority.to_string_lossy()))?;
                if *optional { f.write_str(":client=optional") } else { Ok(()) }
            }
            Self::Haproxy(within) => write!(f, "haproxy:{within}"),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)?;
        match self.interface {
            None => Ok(()),
            Some(IpAddr::V4(address)) => write!(f, ":interface={address}"),
            Some(IpAddr::V6(address)) => write!(f, ":interface=[{address}]"),
        }
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tcp(number: u16, interface: Option<&str>) -> Endpoint {
        let interface = interface.map(|address| address.parse().expect("an address"));
        Endpoint::Tcp(Port { number, interface })
    }

    fn unix(path: &str, mode: u32) -> Endpoint {
        Endpoint::Unix { path: path.into(), mode }
    }

    fn check(said: &str, means: Result<Endpoint, Fault>) {
        assert_eq!(said.parse(), means, "{said}");
        if let Ok(endpoint) = means {
            assert_eq!(endpoint.to_string().parse(), Ok(endpoint), "{said} printed and parsed again");
        }
    }

    #[test]
    fn endpoints_mean_what_they_say() {
        check("tcp:8080", Ok(tcp(8080, None)));
        check("8080", Ok(tcp(8080, None)));
        check("8080:interface=127.0.0.1", Ok(tcp(8080, Some("127.0.0.1"))));
        check("tcp:0", Ok(tcp(0, None)));
        check("tcp:8080:interface=127.0.0.1", Ok(tcp(8080, Some("127.0.0.1"))));
        check("tcp:8080:interface=[::1]", Ok(tcp(8080, Some("::1"))));
        check(r"tcp:8080:interface=\:\:1", Ok(tcp(8080, Some("::1"))));
        check("tcp:interface=[::]:8080", Ok(tcp(8080, Some("::"))));
        check("unix:/run/a.sock", Ok(unix("/run/a.sock", 0o660)));
        check("unix:/run/a.sock:mode=600", Ok(unix("/run/a.sock", 0o600)));
        check(r"unix:a\:b\=c", Ok(unix("a:b=c", 0o660)));
        check(
            "ssl:8443:key=k=1.pem:cert=c.pem",
            Ok(Endpoint::Ssl {
                port: Port { number: 8443, interface: None },
                key: "k=1.pem".into(),
                cert: "c.pem".into(),
                clients: None,
            }),
        );
        for (said, optional) in [("", false), (":client=required", false), (":client=optional", true)] {
            check(
                &format!("ssl:8443:key=k:cert=c:client_ca=ca.pem{said}"),
                Ok(Endpoint::Ssl {
                    port: Port { number: 8443, interface: None },
                    key: "k".into(),
                    cert: "c".into(),
                    clients: Some(Clients { authority: "ca.pem".into(), optional }),
                }),
            );
        }
        check("ssl:1:key=k:cert=c:client_ca=a:client=maybe", Err(Fault::Client("maybe".into())));
        check("ssl:1:key=k:cert=c:client=optional", Err(Fault::Missing(CLIENT_CA)));
    }

    #[test]
    fn a_wrapper_has_an_endpoint_within() {
        let haproxy = |within| Ok(Endpoint::Haproxy(Box::new(within)));
        check("haproxy:tcp:8080", haproxy(tcp(8080, None)));
        check("haproxy:8080:interface=[::1]", haproxy(tcp(8080, Some("::1"))));
        check(r"haproxy:unix:a\:b:mode=600", haproxy(unix("a:b", 0o600)));
        check("haproxy", Err(Fault::Missing("endpoint behind it")));
        check("haproxy:", Err(Fault::Empty));
        check("haproxy:udp:1", Err(Fault::UnknownKind("udp".into())));
        check("haproxy:haproxy:tcp:1", Err(Fault::Nested("haproxy")));
    }

    #[test]
    fn what_is_wrong_is_named() {
        check("", Err(Fault::Empty));
        check("tcp", Err(Fault::Missing("port")));
        check("tcp:", Err(Fault::Port(String::new())));
        check("tcp:65536", Err(Fault::Port("65536".into())));
        check("tcp:+80", Err(Fault::Port("+80".into())));
        check("tcp:http", Err(Fault::Port("http".into())));
        check("99999", Err(Fault::Port("99999".into())));
        check("udp:53", Err(Fault::UnknownKind("udp".into())));
        check(":8080", Err(Fault::UnknownKind(String::new())));
        check("127.0.0.1:80", Err(Fault::UnknownKind("127.0.0.1".into())));
        check("tcp:80:90", Err(Fault::Excess("90".into())));
        check("tcp:80:mode=660", Err(Fault::UnknownKeyword("mode".into())));
        check("tcp:80:interface=localhost", Err(Fault::Interface("localhost".into())));
        check("tcp:80:interface=[::1", Err(Fault::Brackets));
        check("tcp:80:interface=[x]", Err(Fault::Brackets));
        check("tcp:80:interface=1.2.3.4:interface=1.2.3.4", Err(Fault::Twice("interface".into())));
        check("unix", Err(Fault::Missing("path")));
        check("unix:", Err(Fault::Missing("path")));
        check("unix:a:mode=999", Err(Fault::Mode("999".into())));
        check("unix:a:mode=7777", Err(Fault::Mode("7777".into())));
        check("ssl:443:cert=a", Err(Fault::Missing("`key=` (the file with the private key)")));
        check("ssl:443:key=a", Err(Fault::Missing("`cert=` (the file with the certificate chain)")));
        check(r"tcp:80\", Err(Fault::UnfinishedEscape));
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(said in ".{0,60}") {
            if let Ok(endpoint) = said.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
            }
        }

        #[test]
        fn any_path_survives_printing(path in "[ -~]{1,40}") {
            let endpoint = Endpoint::Unix { path: path.into(), mode: 0o660 };
            prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
        }
    }
}
