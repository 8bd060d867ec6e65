//! Where to listen, as a string that operators can type. Parsing only; nothing is opened.
//!
//! The grammar is Twisted's: `:` separates arguments, the first `=` in one makes it a keyword, and
//! `\` takes the next character as it is. An IPv6 address may also stand in brackets. A bare
//! number means tcp. What each kind listens on is at [`Endpoint`].

mod arguments;
mod fault;
mod parse;
mod place;
mod print;
#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

pub use self::{fault::Fault, print::discreet};

/// A place to listen.
///
/// | endpoint | listens on |
/// | --- | --- |
/// | `tcp:8080`, `8080` | port 8080 of every interface, IPv4 and IPv6 |
/// | `tcp:8080:interface=127.0.0.1` | port 8080 of one address |
/// | `tcp6:8080` | port 8080 of every interface, IPv6 alone unless `v6only=no` |
/// | `unix:/run/app.sock:mode=660` | a unix socket; mode 660 unless said |
/// | `unix:@app` | a unix socket with an abstract name, which is no file; a file `@app` is `./@app` |
/// | `systemd:name=web` | every socket of that name that the process was started with (`LISTEN_FDNAMES`) |
/// | `systemd:index=0` | the first socket that it was started with (`LISTEN_FDS`) |
/// | `fd:3` | the socket with this number, from whoever started the process |
/// | `ssl:8443:key=key.pem:cert=chain.pem` | a port with TLS; the options of tcp |
/// | `ssl:8443:key=…:cert=…:client_ca=ca.pem` | the same for clients with a certificate of that authority; `client=optional`: and for those with none |
///
/// A wrapper is followed by the endpoint within, written as it would be alone: the first argument behind those of the
/// wrapper that is no keyword begins it. What is within is nearer to the wire.
///
/// | wrapper | does |
/// | --- | --- |
/// | `tls:DIR:tcp:443` | TLS, with the certificate in that folder that has the name that the client asks for |
/// | `tls:dev:tcp:8443` | TLS with certificates for localhost, of an authority that is made for this machine; a folder `dev` is `./dev` |
/// | `le:DIR:tcp:443` | the same as with `tls`, and orders certificates from Let's Encrypt |
/// | `lets:DIR:tcp:443` | orders them from its staging authority, which nobody trusts and which allows more |
/// | `acme:DIR:directory=https\://ca.example/dir:tcp:443` | orders them from another authority (RFC 8555), whose own certificate is signed by one in `root=PEM` |
/// | `haproxy:tcp:8080` | each connection begins with a header of the PROXY protocol, version 1 or 2 |
/// | `redirect:tcp:80` | answers every request with its address under https, and the challenges of http-01; `port=` of https unless it is that of the deployment's endpoint with TLS, `code=` 308 unless it is 301 |
///
/// | option | of | means |
/// | --- | --- | --- |
/// | `interface=` | tcp, tcp6, ssl | the address; every interface unless said |
/// | `v6only=yes`, `no` | tcp, tcp6, ssl | whether IPv4 is left alone; no, but for `tcp6` and `interface=[::]` |
/// | `backlog=4096` | tcp, tcp6, ssl | how many connections the system keeps until they are accepted; it has a limit of its own |
/// | `nodelay=yes`, `no` | tcp, tcp6, ssl | whether small pieces are sent at once; yes unless said |
/// | `keepalive=60`, `no` | tcp, tcp6, ssl | after how many seconds a quiet peer is asked whether it is there, 1 to 32767 |
/// | `user_timeout=30s`, `1500` | tcp, tcp6, ssl | how long what was sent may go unacknowledged, in ms unless a unit is said; no limit unless said. It also ends who opens his window bit by bit |
/// | `unknown=refuse`, `default` | tls, le, lets, acme | what becomes of names without a certificate: no handshake, or `DEFAULT.pem`, which is so unless said and if there is one |
/// | `client_ca=`, `client=` | ssl, tls, le, lets, acme | as above |
/// | `email=a@example.com` | le, lets, acme | whom the authority writes to |
/// | `eab=KID,KEY` | le, lets, acme | the account at the authority that this one belongs to; the key in base64url (RFC 8555, section 7.3.4) |
/// | `challenge=tls-alpn-01`, `http-01`, `dns-01` | le, lets, acme | how it is shown whose the names are; the first unless said |
/// | `hook=PROGRAM` | le, lets, acme | what puts a record into the DNS and takes it out again, for dns-01 |
/// | `allow=a.example.com,*.example.org` | le, lets, acme | names that are ordered when somebody asks for them |
///
/// `ssl:443:…` within `haproxy:` is how it is written; around other TLS `haproxy:` cannot be: the PROXY header comes
/// first of all on the wire, so it is `le:DIR:haproxy:tcp:443`. Only proxies that the deployment trusts are heard, and
/// it must trust one. What is beside addresses in a header of version 2 may be as long as the protocol allows, 64 KiB
/// in all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// A TCP port.
    Tcp(Port),
    /// A unix socket.
    Unix {
        /// What it is called.
        path: UnixName,
        /// Permission bits of the socket; 660 unless said. Abstract names have none.
        mode: u32,
    },
    /// A socket that the process was started with.
    Inherited(Inherited),
    /// A TCP port with TLS and one certificate.
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
    /// Another endpoint with TLS, by certificates of a folder.
    Tls(Box<Tls>),
    /// Another endpoint behind a proxy that says whom a connection is from, by the PROXY protocol
    /// (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>). Its header comes before TLS.
    Haproxy(Box<Self>),
    /// Another endpoint that leads to https.
    Redirect(Box<Redirect>),
}

/// What a unix socket is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UnixName {
    /// A file.
    Path(PathBuf),
    /// A name that is no file and goes with the socket, without the `@`. Whoever may use the network namespace may
    /// connect. At most 107 bytes.
    Abstract(String),
}

/// Which of the sockets that the process was started with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Inherited {
    /// Those with this name in `LISTEN_FDNAMES`.
    Name(String),
    /// The one at this place in `LISTEN_FDS`; 0 is the first.
    Index(usize),
    /// The one with this descriptor, 3 or more.
    Fd(i32),
}

/// TLS by certificates of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tls {
    /// Where certificates are.
    pub certificates: Certificates,
    /// Who gives out those that are missing or near their end; nobody unless said.
    pub issuer: Option<Issuer>,
    /// What becomes of names that none is for.
    pub unknown: Unknown,
    /// Whose certificates clients show; nobody asks for them unless said.
    pub clients: Option<Clients>,
    /// What is nearer to the wire.
    pub within: Endpoint,
}

/// Where certificates are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Certificates {
    /// In this folder.
    Folder(PathBuf),
    /// They are made for this machine, by an authority of its own.
    Dev,
}

/// What becomes of a handshake for a name that no certificate is for, or for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Unknown {
    /// It has the certificate in `DEFAULT.pem`, and is refused if there is none.
    #[default]
    Default,
    /// It is refused.
    Refuse,
}

/// Who gives out certificates, and how (RFC 8555). Shown by `Debug` without the key of its account.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Issuer {
    /// Who.
    pub authority: Authority,
    /// Whom it writes to.
    pub email: Option<String>,
    /// The account there that this one belongs to: its name, and its key in base64url.
    pub eab: Option<(String, String)>,
    /// How it is shown whose a name is.
    pub challenge: Challenge,
    /// The program that changes the DNS; there if the challenge is dns-01, and not else.
    pub hook: Option<PathBuf>,
    /// Names that are ordered at a handshake: hosts in lower case, `*.` before one for all below it.
    pub on_demand: Vec<String>,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { authority, email, eab, challenge, hook, on_demand } = self;
        f.debug_struct("Issuer")
            .field("authority", authority)
            .field("email", email)
            .field("eab", &eab.as_ref().map(|(account, _)| account))
            .field("challenge", challenge)
            .field("hook", hook)
            .field("on_demand", on_demand)
            .finish()
    }
}

/// Who signs certificates.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Authority {
    /// Let's Encrypt.
    LetsEncrypt,
    /// The one that Let's Encrypt has for trying out.
    LetsEncryptStaging,
    /// Another.
    Other {
        /// The URL of its directory, https.
        directory: String,
        /// The file with the authorities that its own certificate is signed by, PEM; those that browsers
        /// trust unless said.
        root: Option<PathBuf>,
    },
}

/// How it is shown to an authority whose a name is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Challenge {
    /// By a handshake at port 443 of the name (RFC 8737).
    #[default]
    TlsAlpn01,
    /// By a request to port 80 of the name (RFC 8555, section 8.3).
    Http01,
    /// By a record in the DNS (RFC 8555, section 8.4).
    Dns01,
}

impl Challenge {
    const ALL: [Self; 3] = [Self::TlsAlpn01, Self::Http01, Self::Dns01];

    /// As the authority calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
            Self::Dns01 => "dns-01",
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

/// Where requests are led that come in clear text: to their own address under https.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Redirect {
    /// The port of https; that of the deployment's first endpoint with TLS unless said.
    pub port: Option<u16>,
    /// The status: 308, or 301.
    pub code: u16,
    /// Where they come in.
    pub within: Endpoint,
}

impl Redirect {
    /// From here, and all else as it is unless said.
    #[must_use]
    pub const fn of(within: Endpoint) -> Self {
        Self { port: None, code: 308, within }
    }
}

/// A TCP port, of one interface or of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Port {
    /// 0 lets the system choose.
    pub number: u16,
    /// The address to bind; every interface, IPv4 and IPv6, unless said.
    pub interface: Option<IpAddr>,
    /// Whether IPv4 is left alone: no unless said, but yes where the interface is `[::]`.
    pub v6only: Option<bool>,
    /// How many connections the system keeps until they are accepted.
    pub backlog: u32,
    /// Whether small pieces are sent at once.
    pub nodelay: bool,
    /// After how long a peer that is quiet is asked whether it is there, in whole seconds.
    pub keepalive: Option<Duration>,
    /// How long what was sent may go unacknowledged, in whole milliseconds.
    pub user_timeout: Option<Duration>,
}

impl Port {
    const BACKLOG: u32 = 4_096;
    const KEEPALIVE: Duration = Duration::from_secs(60);

    /// This port, and all else as it is unless said.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self {
            number,
            interface: None,
            v6only: None,
            backlog: Self::BACKLOG,
            nodelay: true,
            keepalive: Some(Self::KEEPALIVE),
            user_timeout: None,
        }
    }
}

impl Endpoint {
    /// The endpoint without wrappers.
    #[must_use]
    pub fn bare(&self) -> &Self {
        self.within().map_or(self, Self::bare)
    }

    /// What is within, if this is a wrapper.
    fn within(&self) -> Option<&Self> {
        match self {
            Self::Haproxy(within) => Some(within),
            Self::Tls(tls) => Some(&tls.within),
            Self::Redirect(redirect) => Some(&redirect.within),
            Self::Tcp(_) | Self::Unix { .. } | Self::Inherited(_) | Self::Ssl { .. } => None,
        }
    }

    /// This and all that is within, from what is furthest from the wire.
    fn layers(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |layer| layer.within())
    }

    /// Whether its connections speak TLS.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.layers().any(|layer| matches!(layer, Self::Ssl { .. } | Self::Tls(_)))
    }

    /// Whether its connections begin with a PROXY header.
    #[must_use]
    pub fn is_proxied(&self) -> bool {
        self.layers().any(|layer| matches!(layer, Self::Haproxy(_)))
    }

    /// Its certificates, if they are of a folder.
    #[must_use]
    pub fn tls(&self) -> Option<&Tls> {
        self.layers().find_map(|layer| match layer {
            Self::Tls(tls) => Some(&**tls),
            _ => None,
        })
    }

    /// Where it leads, if it leads to https.
    #[must_use]
    pub fn redirect(&self) -> Option<&Redirect> {
        self.layers().find_map(|layer| match layer {
            Self::Redirect(redirect) => Some(&**redirect),
            _ => None,
        })
    }

    /// The port that it binds, if it does.
    #[must_use]
    pub fn port(&self) -> Option<&Port> {
        match self.bare() {
            Self::Tcp(port) | Self::Ssl { port, .. } => Some(port),
            _ => None,
        }
    }
}
